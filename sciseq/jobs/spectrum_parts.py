"""Cutting a file of spectra into parts, and sequencing the spectra of a part.

A part holds its spectra. A worker that read them itself would have to read all before
them too, and more so the later its part; the spectra of a part are a few megabytes, and
reading them takes less than a hundredth of the time that sequencing does.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

import pandas as pd

from sciseq.errors import InputError
from sciseq.jobs.bad_pieces import collected_warnings, run_good_pieces
from sciseq.sequencing.spectrum_files import Record, read_spectra

__all__ = ["PartPeptides", "SpectrumPart", "sequence_part", "spectrum_parts"]


@dataclass(frozen=True)
class SpectrumPart:
    """Spectra of a file that follow each other.

    Parameters
    ----------
    file : str
        The file.
    first : int
        Place of the first one among those that are read, from 0.
    count : int
        How many there are.
    records : tuple of Spectrum or SkippedSpectrum
        The spectra.
    """

    file: str
    first: int
    count: int
    records: tuple[Record, ...]


def spectrum_parts(
    path: str | os.PathLike[str], spectra_per_part: int
) -> Iterator[SpectrumPart]:
    """Cut a file of spectra into parts, in one pass and with one part in memory.

    Parameters
    ----------
    path : path-like
        As :func:`~sciseq.sequencing.spectrum_files.read_spectra` reads it.
    spectra_per_part : int
        Spectra in each part; the last one may have fewer.

    Yields
    ------
    SpectrumPart
        In the order of the file.

    Raises
    ------
    InputError
        For a number below 1, or a file that is not there.
    FileFormatError, UnsafeFileError
        As ``read_spectra`` does.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from sciseq.sequencing.mgf_files import write_mgf
    >>> from sciseq.sequencing.spectra import Spectrum
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder, "three.mgf")
    ...     write_mgf([Spectrum([100.0], [1.0], 450.2)] * 3, file)
    ...     [(part.first, part.count) for part in spectrum_parts(file, 2)]
    [(0, 2), (2, 1)]
    """
    if spectra_per_part < 1:
        raise InputError(
            f"spectra_per_part is {spectra_per_part}, must be at least 1",
            where="spectra_per_part",
        )
    records = read_spectra(path)
    first = 0
    while part := tuple(islice(records, spectra_per_part)):
        yield SpectrumPart(os.fspath(path), first, len(part), part)
        first += len(part)


class PartPeptides(NamedTuple):
    """What became of the spectra of a part.

    Parameters
    ----------
    frame : DataFrame
        One row for each spectrum, in order, without those that failed; see
        :meth:`~sciseq.PeptideSequencer.predict_table`. Probabilities and q-values are
        not among them: they are for all parts together.
    failures : list of dict
        ``{"series": identifier, "error": text}`` for each spectrum that has no row.
    notes : list of str
        Warnings, each text once.
    """

    frame: pd.DataFrame
    failures: list[dict[str, Any]]
    notes: list[str]


def sequence_part(model: Any, part: SpectrumPart) -> PartPeptides:
    """Read the peptides of the spectra of a part.

    Parameters
    ----------
    model : PeptideSequencer
        Fitted.
    part : SpectrumPart
        From :func:`spectrum_parts`.

    Returns
    -------
    PartPeptides
        A spectrum that cannot be used has a row with the reason, as always. One that
        raises an exception is recorded, and the others are read without it.

    Notes
    -----
    The last bits of a score depend on the spectra that are read together, so on the
    size of the parts, but not on the processes.
    """
    from sciseq.sequencing.prediction import COLUMNS

    def read(records: list[Record]) -> pd.DataFrame:
        return pd.DataFrame(list(model.iter_rows(records)), columns=list(COLUMNS))

    records = list(part.records)
    bad: list[tuple[Any, str]] = []
    with collected_warnings() as notes:
        try:
            tables = [read(records)]
        except Exception:
            pieces = ((one.identifier, one) for one in records)
            tables, bad = run_good_pieces(read, pieces, list)
    frame = pd.concat(tables, ignore_index=True) if tables else read([])
    failures = [{"series": label, "error": text} for label, text in bad]
    return PartPeptides(frame, failures, notes)
