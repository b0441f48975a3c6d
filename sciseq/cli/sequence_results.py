"""Results of ``sciseq sequence predict``: written in any format, a row at a time."""

import csv
import math
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sciseq.cli.partial_rows import PartialRows
from sciseq.cli.sequence_rates import if_accepted, rates
from sciseq.errors import FileFormatError, nearest_name
from sciseq.files import temporary_path

if TYPE_CHECKING:
    import pandas as pd

    from sciseq.sequencing.mgf_files import Match

__all__ = [
    "RESULT_SUFFIXES",
    "ResultRows",
    "check_belongs",
    "result_suffix",
    "write_result",
]

# Rows of a row group in Parquet.
_TOGETHER = 4096
_EXAMPLE: dict[str, Any] = {
    "source": "", "identifier": "", "index": 0, "scan": 0, "title": "",
    "retention_time": 0.0, "precursor_mz": 0.0, "charge": 0, "peptide": "",
    "score": 0.0, "residue_scores": [0.0], "calculated_mz": 0.0, "error_ppm": 0.0,
    "reason": "", "probability": 0.0, "q_value": 0.0, "decoy_score": 0.0,
    "decoy_q_value": 0.0,
}  # fmt: skip
"""What the columns hold, whatever the first rows lack."""


class ResultRows:
    """Rows of a whole result, read from the file of rows on every iteration.

    Of a calibrated model each row gets its probability and q-value, and with decoys
    another q-value: all scores are needed for these, so they, and nothing else, are
    held.

    Parameters
    ----------
    partial : PartialRows
        Rows of all spectra.
    calibration : ScoreCalibration or None
        What turns scores into probabilities.
    fdr : float, optional
        Largest q-value; rows above it lose their peptides, and say why.
    fdr_method : {"calibrated", "decoy"}, default="calibrated"
        Which q-value counts; with ``"decoy"`` the rows hold the scores of decoys.

    Attributes
    ----------
    names : list of str
        Of the columns, in order.
    """

    def __init__(
        self,
        partial: PartialRows,
        calibration: Any = None,
        *,
        fdr: float | None = None,
        fdr_method: str = "calibrated",
    ) -> None:
        from sciseq.sequencing.prediction import COLUMNS

        self.names = list(COLUMNS)
        self._partial = partial
        self._fdr, self._fdr_method = fdr, fdr_method
        self._more = rates(partial.rows, calibration, fdr_method)
        self.names += self._more

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Read the rows."""
        if not self._more:
            yield from self._partial.rows()
            return
        more = zip(*self._more.values(), strict=True)
        for row, values in zip(self._partial.rows(), more, strict=True):
            known = (None if math.isnan(one) else float(one) for one in values)
            whole = row | dict(zip(self._more, known, strict=True))
            if self._fdr is not None:
                whole = if_accepted(whole, self._fdr_method, self._fdr)
            yield whole


def check_belongs(row: dict[str, Any], record: Any) -> None:
    """Refuse a row that is not that of a spectrum.

    Parameters
    ----------
    row : dict
        Of the result.
    record : Spectrum or SkippedSpectrum
        What stands at its place in the files.
    """
    if (row["source"], row["identifier"]) != (record.source, record.identifier):
        raise RuntimeError(
            f"the row of {row['source']} {row['identifier']} stands at the place of "
            f"{record.source} {record.identifier}"
        )


def result_suffix(path: Path) -> str:
    """Return the suffix that says which format a result has.

    Raises
    ------
    FileFormatError
        For any other suffix.

    Examples
    --------
    >>> result_suffix(Path("run.mzTab"))
    '.mztab'
    """
    suffix = path.suffix.lower()
    if suffix not in RESULT_SUFFIXES:
        ending = f"ends in {path.suffix!r}" if path.suffix else "has no suffix"
        raise FileFormatError(
            f"{path.name!r} {ending}, results end in {', '.join(RESULT_SUFFIXES)}",
            where="--out",
            hint=nearest_name(suffix, RESULT_SUFFIXES) or None,
        )
    return suffix


def write_result(
    rows: ResultRows, path: Path, model: Any, spectra: Sequence[Path]
) -> None:
    """Write peptide-spectrum matches in the format that the name asks for.

    Memory does not grow with the number of rows, save that mzIdentML holds the
    different peptides.

    Parameters
    ----------
    rows : ResultRows
        One row per spectrum, see :data:`sciseq.sequencing.prediction.COLUMNS`.
    path : Path
        File to write, whole or not at all.
    model : PeptideSequencer
        What made the rows; some formats tell of its modifications and settings.
    spectra : sequence of Path
        Files that the rows are about, for the format that repeats their peaks.
    """
    RESULT_SUFFIXES[result_suffix(path)](rows, path, model, spectra)


def _write_text_table(
    rows: ResultRows, path: Path, model: Any, spectra: Sequence[Path]
) -> None:
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    with (
        temporary_path(path) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.writer(file, delimiter=delimiter, lineterminator="\n")
        writer.writerow(rows.names)
        for row in rows:
            writer.writerow([_cell(row[name]) for name in rows.names])


def _cell(value: Any) -> Any:
    """Return what stands in a cell; what is not known is empty."""
    if isinstance(value, list):
        return " ".join(map(str, value))
    return "" if value != value else value


def _write_parquet(
    rows: ResultRows, path: Path, model: Any, spectra: Sequence[Path]
) -> None:
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    def frame(some: Sequence[dict[str, Any]]) -> "pd.DataFrame":
        import pandas as pd

        table = pd.DataFrame(some, columns=rows.names)
        # Whole numbers, even where some are not known.
        return table.astype({"charge": "Int64", "scan": "Int64"})

    # One type per column in the whole file, whatever a part of the rows lacks.
    schema = pa.Schema.from_pandas(frame([_EXAMPLE]), preserve_index=False)
    with (
        temporary_path(path) as temporary,
        ParquetWriter(temporary, schema) as writer,
    ):
        left = iter(rows)
        while some := list(islice(left, _TOGETHER)):
            table = pa.Table.from_pandas(frame(some), schema, preserve_index=False)
            writer.write_table(table)


def _write_mztab(
    rows: ResultRows, path: Path, model: Any, spectra: Sequence[Path]
) -> None:
    from sciseq.sequencing.mztab_files import write_mztab

    write_mztab(rows, path, **_about(model))


def _write_mzid(
    rows: ResultRows, path: Path, model: Any, spectra: Sequence[Path]
) -> None:
    from sciseq.sequencing.mzid_files import write_mzid

    write_mzid(rows, path, **_about(model))


def _write_pin(
    rows: ResultRows, path: Path, model: Any, spectra: Sequence[Path]
) -> None:
    from sciseq.sequencing.pin_files import write_pin

    write_pin(rows, path)


def _write_mgf(
    rows: ResultRows, path: Path, model: Any, spectra: Sequence[Path]
) -> None:
    from sciseq.sequencing.mgf_files import write_matches

    write_matches(_matches(rows, spectra), path)


def _matches(rows: ResultRows, spectra: Sequence[Path]) -> Iterator["Match"]:
    from sciseq.sequencing.mgf_files import Match
    from sciseq.sequencing.spectrum_files import read_spectra
    from sciseq.sequencing.spectrum_records import Spectrum

    for record, row in zip(read_spectra(list(spectra)), rows, strict=True):
        check_belongs(row, record)
        if isinstance(record, Spectrum):
            yield Match(record, row["peptide"], row["score"])


RESULT_SUFFIXES: dict[str, Callable[..., None]] = {
    ".mztab": _write_mztab,
    ".csv": _write_text_table,
    ".tsv": _write_text_table,
    ".parquet": _write_parquet,
    ".mzid": _write_mzid,
    ".pin": _write_pin,
    ".mgf": _write_mgf,
}
"""What writes a result, by suffix."""

_SETTINGS = (
    "decoder",
    "beam_size",
    "precursor_tolerance",
    "isotope_errors",
    "charges",
    "n_peaks",
    "minimum_mz",
    "maximum_mz",
)


def _about(model: Any) -> dict[str, Any]:
    modified = [token for token in model.vocabulary_.tokens if "[" in token]
    # What a bare letter means is on every such residue.
    fixed = list(model.vocabulary_.fixed.values())
    parameters = model.get_params()
    return {
        "fixed_modifications": fixed,
        "variable_modifications": [one for one in modified if one not in fixed],
        "settings": {name: parameters[name] for name in _SETTINGS},
    }
