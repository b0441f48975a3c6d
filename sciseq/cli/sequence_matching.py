"""The command ``sciseq sequence match``: predicted peptides in proteins."""

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sciseq.cli.boundary import say
from sciseq.cli.outputs import check_file
from sciseq.cli.sequence_files import read_predictions
from sciseq.errors import DataQualityError, FileFormatError, InputError
from sciseq.files import temporary_path

if TYPE_CHECKING:
    import pandas as pd

    from sciseq.sequencing.protein_matches import ProteinMatches

__all__ = ["MatchRequest", "run_match"]

_SUFFIXES = (".csv", ".tsv", ".parquet")


@dataclass(frozen=True)
class MatchRequest:
    """What the user asked for; see the help of the command."""

    predictions: Path
    fasta: list[Path]
    out: Path
    proteins: Path | None = None
    enzyme: str = "trypsin"
    quiet: bool = False


def run_match(request: MatchRequest) -> None:
    """Match a table of predictions to proteins, and write the tables.

    Parameters
    ----------
    request : MatchRequest
        Predictions, proteins, and where the tables go.

    Raises
    ------
    DataQualityError
        When the table holds no peptide.
    """
    _check_outputs(request)
    table = read_predictions(request.predictions)
    if not table["peptide"].notna().any():
        raise DataQualityError(
            f"none of {len(table)} rows has a peptide", where=str(request.predictions)
        )
    from sciseq.sequencing.protein_matches import match_proteins

    matches = match_proteins(table, request.fasta, enzyme=request.enzyme)
    with contextlib.ExitStack() as stack:
        # Files get their names on leaving, when all has been written.
        _write(matches.peptides, stack.enter_context(temporary_path(request.out)))
        if request.proteins is not None:
            flat = matches.proteins.assign(
                intervals=matches.proteins["intervals"].map(_joined)
            )
            _write(flat, stack.enter_context(temporary_path(request.proteins)))
    if not request.quiet:
        _say_all(request, matches)


def _check_outputs(request: MatchRequest) -> None:
    """Refuse places that could not be written to when the work is done."""
    outputs = [("--out", request.out)]
    if request.proteins is not None:
        outputs.append(("--proteins", request.proteins))
        if request.out.absolute() == request.proteins.absolute():
            raise InputError(
                f"both tables would be written to {request.out}", where="--proteins"
            )
    for option, path in outputs:
        if path.suffix.lower() not in _SUFFIXES:
            raise FileFormatError(
                f"{path.name!r} must end in one of {', '.join(_SUFFIXES)}", where=option
            )
        for data in (request.predictions, *request.fasta):
            check_file(path, data, option)


def _write(table: "pd.DataFrame", path: Path) -> None:
    if path.suffix.lower() == ".parquet":
        table.to_parquet(path, index=False)
    else:
        separator = "\t" if path.suffix.lower() == ".tsv" else ","
        table.to_csv(path, sep=separator, index=False, lineterminator="\n")


def _joined(intervals: list[tuple[int, int]]) -> str:
    """Write intervals as text, as in ``3-17 40-52``."""
    return " ".join(f"{start}-{end}" for start, end in intervals)


def _say_all(request: MatchRequest, matches: "ProteinMatches") -> None:
    each = matches.peptides.drop_duplicates("peptide")
    is_found = each["n_proteins"] > 0
    n_spectra = int(each["n_spectra"].sum())
    n_found = int(each.loc[is_found, "n_spectra"].sum())
    say(f"peptides: {int(is_found.sum())} of {len(each)} stand in a protein")
    say(f"spectra: {n_found} of {n_spectra} with a peptide")
    say(f"proteins: {len(matches.proteins)}")
    say(f"places: {request.out}")
    if request.proteins is not None:
        say(f"coverage: {request.proteins}")
