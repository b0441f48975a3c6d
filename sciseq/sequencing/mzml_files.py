"""mzML and mzXML: spectra of a mass spectrometer in XML.

pyteomics reads both, but keeps a trace of every spectrum in memory and asks for the
vocabulary of PSI-MS, which it may fetch from the network. Here spectra are cut out of
the stream one at a time, and a damaged one costs only itself.
"""

import base64
import binascii
import math
import os
import re
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from sciseq.sequencing.guarded_xml import iterate_elements, local_name
from sciseq.sequencing.spectrum_records import (
    SkippedSpectrum,
    Spectrum,
    spectrum_or_skip,
)

__all__ = ["read_mzml", "read_mzxml"]

FloatArray = npt.NDArray[np.float64]
_NUMBER_TYPES = {
    "MS:1000521": "<f4",
    "MS:1000523": "<f8",
    "MS:1000519": "<i4",
    "MS:1000522": "<i8",
}
_MZ_ARRAY, _INTENSITY_ARRAY = "MS:1000514", "MS:1000515"
_ZLIB, _NOT_PACKED = "MS:1000574", "MS:1000576"
_SCAN = re.compile(r"(?:^|\s)scan(?:Id)?=(\d+)(?:\s|$)")
_DURATION = re.compile(r"P(?:T(?:([\d.]+)H)?(?:([\d.]+)M)?(?:([\d.]+)S)?)?")


class _UnreadableError(Exception):
    """Reason and explanation of a spectrum that cannot be read."""

    def __init__(self, reason: str, explanation: str) -> None:
        super().__init__(reason, explanation)
        self.reason = reason
        self.explanation = explanation


def read_mzml(
    path: str | os.PathLike[str], levels: Collection[int] = (2,)
) -> Iterator[Spectrum | SkippedSpectrum]:
    """Read the fragment spectra of an mzML file one after the other.

    Parameters
    ----------
    path : path-like
        File, plain or compressed with gzip.
    levels : collection of int, default=(2,)
        Levels of MS to read.

    Yields
    ------
    Spectrum or SkippedSpectrum
        In the order of the file. Survey spectra (level 1) pass silently unless asked
        for; fragment spectra of other levels, and what cannot be read, are records
        with the reason.

    Raises
    ------
    FileFormatError
        When it is no mzML, or is cut short.
    UnsafeFileError
        See :func:`sciseq.sequencing.guarded_xml.iterate_elements`.
    """
    names = ("referenceableParamGroup", "spectrum", "spectrumList")
    groups: dict[str, dict[str, Any]] = {}
    index = -1
    with iterate_elements(path, ("mzML", "indexedmzML"), names) as events:
        for event, element in events:
            name = local_name(element)
            if event == "start":
                index += name == "spectrum"
                continue
            if name == "spectrumList":  # what follows is an index and chromatograms
                return
            if name == "referenceableParamGroup":
                groups[element.get("id", "")] = _terms(element, {})
                continue
            fields = {"source": os.fspath(path), "index": index}
            header = _mzml_header(element, groups, fields)
            record = _record(header, levels, partial(_mzml_peaks, element, groups))
            _forget(element)
            if record is not None:
                yield record


def _forget(element: Any) -> None:
    """Drop what an element held, and the empty shell of the one before it."""
    element.clear()
    before = element.getprevious()
    if before is not None and before.tag == element.tag:
        element.getparent().remove(before)


def _terms(element: Any, groups: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the terms of an element by accession, those of its groups included."""
    terms: dict[str, Any] = {}
    for child in () if element is None else element.iterchildren():
        name = local_name(child)
        if name == "cvParam":
            terms.setdefault(child.get("accession", ""), child)
        elif name == "referenceableParamGroupRef":
            for key, value in groups.get(child.get("ref", ""), {}).items():
                terms.setdefault(key, value)
    return terms


def _value(terms: Mapping[str, Any], accession: str) -> float | None:
    try:
        value = float(terms[accession].get("value", ""))
    except (KeyError, ValueError):
        return None
    return value if math.isfinite(value) else None


@dataclass
class _Header:
    """What a spectrum says of itself, its peaks aside."""

    level: int
    is_negative: bool
    is_profile: bool
    charges: tuple[int, ...]
    precursor_mz: float | None
    fields: dict[str, Any]


def _record(
    header: _Header,
    levels: Collection[int],
    read_peaks: Callable[[], tuple[FloatArray, FloatArray]],
) -> Spectrum | SkippedSpectrum | None:
    """Return the record of a spectrum, None for a survey that is not asked for."""
    if header.level not in levels and header.level < 2:
        return None
    charges, precursor_mz = header.charges, header.precursor_mz
    fields = header.fields | {"charge": charges[0] if len(charges) == 1 else None}
    try:
        if header.level not in levels:
            wanted = " or ".join(map(str, sorted(levels)))
            raise _UnreadableError(
                "ms_level", f"the level is {header.level}, read is {wanted}"
            )
        if header.is_negative:
            raise _UnreadableError("negative_mode", "the ions are negative")
        mz, intensity = read_peaks()
    except _UnreadableError as error:
        return SkippedSpectrum(
            error.reason, error.explanation, precursor_mz=precursor_mz, **fields
        )
    fields |= {
        "charges": charges if len(charges) > 1 else (),
        "is_profile": header.is_profile,
    }
    return spectrum_or_skip(mz, intensity, precursor_mz, **fields)


def _mzml_header(
    element: Any, groups: Mapping[str, Mapping[str, Any]], fields: dict[str, Any]
) -> _Header:
    terms = _terms(element, groups)
    selected = _first(element, "precursorList/precursor/selectedIonList/selectedIon")
    isolation = _first(element, "precursorList/precursor/isolationWindow")
    scan = _first(element, "scanList/scan")
    ion = _terms(selected, groups)
    window = _terms(isolation, groups)
    level = _value(terms, "MS:1000511")
    if level is None:
        level = 1 if selected is None and isolation is None else 2
    precursor_mz = _value(ion, "MS:1000744")
    title = terms.get("MS:1000796")
    identifier = element.get("id", "")
    return _Header(
        int(level),
        is_negative="MS:1000129" in terms,
        is_profile="MS:1000128" in terms,
        charges=_mzml_charges(selected, ion),
        precursor_mz=precursor_mz or _value(window, "MS:1000827"),
        fields=fields
        | {
            "identifier": identifier,
            "scan": _scan_number(identifier),
            "title": None if title is None else title.get("value") or None,
            "retention_time": _seconds(_terms(scan, groups)),
        },
    )


def _all(element: Any, path: str) -> list[Any]:
    # Names are looked up in the namespace of the element itself, whatever it is.
    space = str(element.tag).rpartition("}")[0]
    prefix = f"{space}}}" if space else ""
    found: list[Any] = element.findall("/".join(prefix + n for n in path.split("/")))
    return found


def _first(element: Any, path: str) -> Any:
    found = _all(element, path)
    return found[0] if found else None


def _scan_number(identifier: str) -> int | None:
    match = _SCAN.search(identifier)
    return int(match[1]) if match else None


def _seconds(terms: Mapping[str, Any]) -> float | None:
    time = _value(terms, "MS:1000016")
    if time is None:
        return None
    is_seconds = terms["MS:1000016"].get("unitAccession") == "UO:0000010"
    return time if is_seconds else 60.0 * time


def _mzml_charges(selected: Any, ion: Mapping[str, Any]) -> tuple[int, ...]:
    charge = _value(ion, "MS:1000041")
    if charge:
        return (int(charge),)
    possible = [] if selected is None else _all(selected, "cvParam")
    return tuple(
        int(term.get("value"))
        for term in possible
        if term.get("accession") == "MS:1000633" and term.get("value", "").isdecimal()
    )


def _mzml_peaks(
    element: Any, groups: Mapping[str, Mapping[str, Any]]
) -> tuple[FloatArray, FloatArray]:
    found: dict[str, FloatArray] = {}
    for binary in _all(element, "binaryDataArrayList/binaryDataArray"):
        terms = _terms(binary, groups)
        kind = next((k for k in (_MZ_ARRAY, _INTENSITY_ARRAY) if k in terms), None)
        if kind is None:
            continue
        length = binary.get("arrayLength", element.get("defaultArrayLength", ""))
        found[kind] = _mzml_array(binary, terms, length)
    if len(found) < 2:
        raise _UnreadableError(
            "no_peaks", "an array of m/z or of intensities is missing"
        )
    return found[_MZ_ARRAY], found[_INTENSITY_ARRAY]


def _mzml_array(binary: Any, terms: Mapping[str, Any], length: str) -> FloatArray:
    if not length.isdecimal():
        raise _UnreadableError("malformed_peaks", f"the array length is {length!r}")
    number_type = next((d for a, d in _NUMBER_TYPES.items() if a in terms), None)
    if number_type is None or not (_ZLIB in terms or _NOT_PACKED in terms):
        names = ", ".join(term.get("name", "?") for term in terms.values())
        raise _UnreadableError(
            "encoding",
            f"an array is packed as ({names}); read are 32 and 64 bit numbers, plain "
            "or with zlib",
        )
    text = _first(binary, "binary")
    data = _unpack(
        "" if text is None else text.text or "",
        int(length) * int(number_type[-1]),
        is_packed=_ZLIB in terms,
    )
    return np.frombuffer(data, dtype=number_type).astype(np.float64)


def _unpack(text: str, n_bytes: int, *, is_packed: bool) -> bytes:
    """Decode base64 and zlib to exactly so many bytes, and never to more."""
    try:
        data = base64.b64decode(text)
        if is_packed and data:
            # One byte more than wanted is enough to see that there is more.
            data = zlib.decompressobj().decompress(data, n_bytes + 1)
    except (binascii.Error, ValueError, zlib.error) as error:
        raise _UnreadableError(
            "malformed_peaks", f"an array is damaged: {error}"
        ) from error
    if len(data) != n_bytes:
        raise _UnreadableError(
            "malformed_peaks",
            f"an array has not the stated length of {n_bytes} bytes",
        )
    return data


def read_mzxml(
    path: str | os.PathLike[str], levels: Collection[int] = (2,)
) -> Iterator[Spectrum | SkippedSpectrum]:
    """Read the fragment spectra of an mzXML file one after the other.

    Parameters
    ----------
    path : path-like
        File, plain or compressed with gzip.
    levels : collection of int, default=(2,)
        Levels of MS to read.

    Yields
    ------
    Spectrum or SkippedSpectrum
        As :func:`read_mzml`, with identifiers such as ``scan=17``. Of scans within
        scans the inner ones come first.

    Raises
    ------
    FileFormatError
        When it is no mzXML, or is cut short.
    UnsafeFileError
        See :func:`sciseq.sequencing.guarded_xml.iterate_elements`.
    """
    names = ("dataProcessing", "scan", "index")
    places: list[int] = []  # of the scans that are open, in the order of their starts
    n_started = 0
    is_centroided = True
    with iterate_elements(path, ("mzXML", "msRun"), names) as events:
        for event, element in events:
            name = local_name(element)
            if name == "index":
                return
            if event == "start":
                if name == "scan":
                    places.append(n_started)
                    n_started += 1
                continue
            if name == "dataProcessing":
                is_centroided &= element.get("centroided") != "0"
                continue
            fields = {"source": os.fspath(path), "index": places.pop()}
            header = _mzxml_header(element, fields, is_centroided)
            record = _record(header, levels, partial(_mzxml_peaks, element))
            _forget(element)
            if record is not None:
                yield record


def _mzxml_header(element: Any, fields: dict[str, Any], is_centroided: bool) -> _Header:
    number, level = element.get("num", ""), element.get("msLevel", "1")
    precursor = _first(element, "precursorMz")
    charge = "" if precursor is None else precursor.get("precursorCharge", "")
    try:
        precursor_mz = None if precursor is None else float(precursor.text or "")
    except ValueError:
        precursor_mz = None
    duration = _DURATION.fullmatch(element.get("retentionTime", ""))
    centroided = element.get("centroided", "1" if is_centroided else "0")
    return _Header(
        int(level) if level.isdecimal() else 2,
        is_negative=element.get("polarity") == "-",
        is_profile=centroided == "0",
        charges=(int(charge),) if charge.isdecimal() and int(charge) else (),
        precursor_mz=precursor_mz,
        fields=fields
        | {
            "identifier": f"scan={number}",
            "scan": int(number) if number.isdecimal() else None,
            "retention_time": _duration(duration) if duration else None,
        },
    )


def _duration(match: re.Match[str]) -> float:
    hours, minutes, seconds = (float(part or 0) for part in match.groups())
    return 3600 * hours + 60 * minutes + seconds


def _mzxml_peaks(element: Any) -> tuple[FloatArray, FloatArray]:
    peaks = _first(element, "peaks")
    count = element.get("peaksCount", "")
    if peaks is None or not count.isdecimal():
        raise _UnreadableError("no_peaks", "the peaks or their number are missing")
    packing = peaks.get("compressionType", "none")
    content = peaks.get("contentType", peaks.get("pairOrder", "m/z-int"))
    if packing not in {"none", "zlib"} or content != "m/z-int":
        raise _UnreadableError(
            "encoding",
            f"the peaks are packed with {packing!r} as {content!r}; read are 'none' "
            "and 'zlib', 'm/z-int'",
        )
    width = 8 if peaks.get("precision") == "64" else 4
    n_bytes = 2 * width * int(count)
    data = _unpack(peaks.text or "", n_bytes, is_packed=packing == "zlib")
    pairs = np.frombuffer(data, dtype=f">f{width}").astype(np.float64)
    return pairs[0::2], pairs[1::2]
