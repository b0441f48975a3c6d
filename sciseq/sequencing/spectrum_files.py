"""One way in for spectra: files of all formats, and objects of other libraries."""

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from sciseq.errors import FileFormatError, InputError, InputTypeError, nearest_name
from sciseq.sequencing.foreign_spectra import spectra_of_frame, spectrum_of_dict
from sciseq.sequencing.mgf_files import read_mgf
from sciseq.sequencing.msp_files import read_msp
from sciseq.sequencing.mzml_files import read_mzml, read_mzxml
from sciseq.sequencing.spectrum_records import SkippedSpectrum, Spectrum

__all__ = ["read_spectra"]

Record: TypeAlias = Spectrum | SkippedSpectrum
_Reader: TypeAlias = Callable[[Path, Collection[int]], Iterator[Record]]

# MGF and MSP do not say the level: all their spectra are fragment spectra.
_READERS: dict[str, _Reader] = {
    ".mgf": lambda path, levels: read_mgf(path),
    ".msp": lambda path, levels: read_msp(path),
    ".mzml": read_mzml,
    ".mzxml": read_mzxml,
}


def read_spectra(source: Any, *, levels: Collection[int] = (2,)) -> Iterator[Record]:
    """Read spectra one after the other, whatever they come in.

    Parameters
    ----------
    source : path-like, data frame, or iterable
        A file (``.mgf``, ``.mzML``, ``.mzXML``, ``.msp``, each also ``.gz``); a data
        frame with the columns mz, intensity (an array in each cell) and precursor_mz;
        one Spectrum, or one dict of pyteomics; or an iterable of any of these.
    levels : collection of int, default=(2,)
        Levels of MS to read from mzML, mzXML and pyteomics.

    Returns
    -------
    iterator of Spectrum or SkippedSpectrum
        One record per fragment spectrum, in order. One that cannot be used is a
        SkippedSpectrum with the reason, and so is a fragment spectrum of another level;
        only survey spectra (level 1) pass silently. The memory does not grow with the
        number of spectra.

    Raises
    ------
    InputError
        For a file that is not there, at the call; for a data frame without a needed
        column.
    InputTypeError
        For anything else that holds no spectra.
    FileFormatError
        For a name of another format, at the call; while reading, when a file is no
        spectrum file or its data are damaged.
    UnsafeFileError
        While reading, when an XML file declares a document type, or one spectrum takes
        more than 64 MiB.

    Examples
    --------
    >>> spectrum = Spectrum([100.0], [1.0], 450.2)
    >>> [one.precursor_mz for one in read_spectra([spectrum])]
    [450.2]
    """
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        return _reader_of(path)(path, levels)
    if hasattr(source, "columns"):
        return spectra_of_frame(source)
    if isinstance(source, (Spectrum, SkippedSpectrum, Mapping)):
        return _items([source], levels)
    if isinstance(source, Iterable) and not isinstance(source, (bytes, bytearray)):
        if isinstance(source, (list, tuple)):
            for one in source:  # a wrong name shows now, not after hours of reading
                if isinstance(one, (str, os.PathLike)):
                    _reader_of(Path(one))
        return _items(source, levels)
    raise InputTypeError(
        f"a {type(source).__name__} holds no spectra",
        hint="Give a path, a list of paths, Spectrum objects, dicts of pyteomics, or a "
        "data frame.",
    )


def _items(source: Iterable[Any], levels: Collection[int]) -> Iterator[Record]:
    for index, one in enumerate(source):
        if isinstance(one, (Spectrum, SkippedSpectrum)):
            yield one
        elif isinstance(one, Mapping):
            spectrum = spectrum_of_dict(one, index, levels)
            if spectrum is not None:
                yield spectrum
        else:
            yield from read_spectra(one, levels=levels)


def _reader_of(path: Path) -> _Reader:
    """Return what reads this file; its name decides, and is checked at once."""
    suffix = Path(path.name.lower().removesuffix(".gz")).suffix
    if suffix not in _READERS:
        ending = f"ends in {suffix!r}" if suffix else "has no suffix"
        raise FileFormatError(
            f"{path.name!r} {ending}; read are .mgf, .mzML, .mzXML and .msp, each also "
            ".gz",
            where=os.fspath(path),
            hint=nearest_name(suffix, _READERS) or None,
        )
    if not path.is_file():
        raise InputError("there is no such file", where=os.fspath(path))
    return _READERS[suffix]
