"""The command ``sciseq sequence predict``: read, predict, keep, write."""

import contextlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from sciseq import __version__
from sciseq.cli.boundary import INTERRUPTED, say
from sciseq.cli.outputs import check_file
from sciseq.cli.partial_rows import PartialRows
from sciseq.cli.sequence_files import (
    check_spectra,
    input_fingerprint,
    load_sequencer,
    model_fingerprint,
    result_suffix,
    write_result,
)
from sciseq.cli.sequence_progress import Progress, make_progress
from sciseq.errors import DataQualityError, InputError
from sciseq.sequencing.spectrum_files import read_spectra

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["PredictRequest", "count_reasons", "predicted_chunks", "run_predict"]

# Spectra between two visits to the disk: what a kill can cost.
_CHUNK = 256


@dataclass(frozen=True)
class PredictRequest:
    """What the user asked for; see the help of the command."""

    spectra: list[Path]
    model: Path
    out: Path
    resume: bool = False
    beam_size: int | None = None
    device: str = "auto"
    quiet: bool = False


def run_predict(request: PredictRequest) -> None:
    """Predict the peptides of spectra and write them to a file.

    Parameters
    ----------
    request : PredictRequest
        Spectra, model, output.

    Raises
    ------
    SciSeqError
        The output is as it was; rows that were computed are in the partial file.
    """
    partial_path = _check_request(request)
    model = _load_model(request)
    # Reading everything once shows a damaged file now, not after hours.
    n_spectra = sum(1 for _ in read_spectra(request.spectra))
    if not n_spectra:
        raise DataQualityError("there is no fragment spectrum", where="SPECTRA")
    fingerprint = {
        "sciseq": __version__,
        "model": model_fingerprint(request.model),
        "spectra": input_fingerprint(request.spectra),
        "beam size": model.get_params()["beam_size"],
    }
    partial = PartialRows(partial_path, fingerprint, chunk=_CHUNK)
    if request.resume and partial_path.exists():
        partial.resume()
    else:
        partial.start()
    if not request.quiet and request.resume:
        say(f"{partial.n_rows} of {n_spectra} spectra were done before")
    with _kept_rows(partial):
        progress = make_progress(n_spectra, partial.n_rows, quiet=request.quiet)
        with progress:
            _predict_rest(model, request.spectra, partial, progress)
        table = _table(partial.rows(), n_spectra)
        write_result(table, request.out, model, request.spectra)
    partial_path.unlink()
    if not request.quiet:
        _report(table, progress, request)


def predicted_chunks(
    model: Any, records: Iterator[Any], progress: Progress
) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of spectra, some hundred at a time.

    Parameters
    ----------
    model : PeptideSequencer
        Fitted.
    records : iterator of Spectrum or SkippedSpectrum
        What to predict.
    progress : Progress
        Told of what is done.
    """
    while chunk := list(islice(records, _CHUNK)):
        rows = list(model.iter_rows(chunk))
        for record, row in zip(chunk, rows, strict=True):
            _check_belongs(row, record)
            row.setdefault("scan", record.scan)
        yield rows
        progress.advance(len(rows))


def count_reasons(reasons: Iterable[str]) -> list[tuple[str, int]]:
    """Count reasons, those that differ in their numbers alone together.

    Examples
    --------
    >>> count_reasons(["3 peaks, 20 needed", "the charge is not known",
    ...                "4 peaks, 20 needed"])
    [('N peaks, 20 needed', 2), ('the charge is not known', 1)]
    """
    kinds: dict[tuple[str, ...], Counter[tuple[str, ...]]] = {}
    for reason in reasons:
        parts = re.split(r"(\d+(?:\.\d+)?)", reason)
        kinds.setdefault(tuple(parts[::2]), Counter())[tuple(parts[1::2])] += 1
    counts = []
    for words, numbers in kinds.items():
        places = zip(*numbers, strict=True)
        shown = [one[0] if len(set(one)) == 1 else "N" for one in places]
        text = "".join(map("".join, zip_longest(words, shown, fillvalue="")))
        counts.append((text, numbers.total()))
    return sorted(counts, key=lambda one: -one[1])


# ------------------------------------------------------------------------ the request


def _check_request(request: PredictRequest) -> Path:
    """Refuse what cannot work; return the place of the partial file."""
    suffix = result_suffix(request.out)
    check_spectra(request.spectra)
    for path in request.spectra:
        check_file(request.out, path, "--out")
    if suffix == ".pin" and len(request.spectra) > 1:
        raise InputError(
            f"a .pin file holds one file of spectra, {len(request.spectra)} were given",
            where="--out",
            hint="Predict one file at a time.",
        )
    partial = request.out.with_name(f"{request.out.name}.partial")
    if partial.exists() and not request.resume:
        raise InputError(
            f"{partial} holds the rows of a run that was stopped, or goes on",
            where="--out",
            hint="--resume takes them and computes the rest; delete the file to start "
            "again.",
        )
    return partial


def _load_model(request: PredictRequest) -> Any:
    model = load_sequencer(request.model, request.device)
    if request.beam_size is not None:
        model.set_params(beam_size=request.beam_size)
    return model


# --------------------------------------------------------------------------- the rows


def _predict_rest(
    model: Any, spectra: Sequence[Path], partial: PartialRows, progress: Progress
) -> None:
    """Append the rows of all spectra that have none."""
    records = read_spectra(list(spectra))
    for record, row in zip(
        islice(records, partial.n_rows), partial.rows(), strict=True
    ):
        _check_belongs(row, record)
    for rows in predicted_chunks(model, records, progress):
        partial.append(rows)


def _check_belongs(row: dict[str, Any], record: Any) -> None:
    if (row["source"], row["identifier"]) != (record.source, record.identifier):
        raise RuntimeError(
            f"the row of {row['source']} {row['identifier']} stands at the place of "
            f"{record.source} {record.identifier}"
        )


@contextlib.contextmanager
def _kept_rows(partial: PartialRows) -> Iterator[None]:
    """Say where the rows are when a run stops; leave no file without rows."""
    try:
        with partial:
            yield
    except BaseException as error:
        if not partial.n_rows:
            partial.path.unlink(missing_ok=True)
            raise
        say(
            f"sciseq: {partial.n_rows} spectra are done and kept in {partial.path}; "
            "the same command with --resume goes on"
        )
        if isinstance(error, KeyboardInterrupt):
            say("sciseq: interrupted")
            raise typer.Exit(INTERRUPTED) from None
        raise


def _table(rows: Iterable[dict[str, Any]], n_spectra: int) -> "pd.DataFrame":
    import pandas as pd

    table = pd.DataFrame(list(rows))
    if len(table) != n_spectra:
        raise RuntimeError(f"{n_spectra} spectra have {len(table)} rows")
    # Whole numbers, even where some are not known.
    return table.astype({"charge": "Int64", "scan": "Int64"})


def _report(table: "pd.DataFrame", progress: Progress, request: PredictRequest) -> None:
    is_found = table["peptide"].notna()
    say(f"spectra: {len(table)}")
    say(f"predicted: {int(is_found.sum())}")
    say(f"skipped: {int((~is_found).sum())}")
    for reason, number in count_reasons(table.loc[~is_found, "reason"]):
        say(f"  {number}: {reason}")
    if progress.n_done > progress.n_before:
        say(f"speed: {progress.speed:.3g} spectra/s")
    say(f"peptides: {request.out}")
