"""Spectra that come as objects of other libraries: pyteomics and pandas."""

import math
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from sciseq.errors import InputError
from sciseq.sequencing.mgf_files import parse_charges
from sciseq.sequencing.spectrum_records import (
    SkippedSpectrum,
    Spectrum,
    spectrum_or_skip,
)

__all__ = ["spectra_of_frame", "spectrum_of_dict"]

_FRAME_FIELDS = ("charge", "identifier", "source", "title", "retention_time", "peptide")


def spectrum_of_dict(
    found: Mapping[str, Any], index: int, levels: Collection[int] = (2,)
) -> Spectrum | SkippedSpectrum | None:
    """Convert a spectrum as pyteomics reads it from MGF, mzML or mzXML.

    Parameters
    ----------
    found : mapping
        With ``"m/z array"`` and ``"intensity array"``.
    index : int
        Its place, counted from 0.
    levels : collection of int, default=(2,)
        Levels of MS to keep.

    Returns
    -------
    Spectrum, SkippedSpectrum or None
        None for a survey spectrum (level 1).

    Raises
    ------
    InputError
        When it has no peak arrays.

    Examples
    --------
    >>> spectrum_of_dict({
    ...     "m/z array": [100.0, 200.0], "intensity array": [1.0, 2.0],
    ...     "params": {"pepmass": (450.2, None), "charge": [2]}}, 0).charge
    2
    """
    for name in ("m/z array", "intensity array"):
        if name not in found:
            raise InputError(
                f"a spectrum has no {name!r}, only {', '.join(map(str, found))}",
                where=f"spectrum {index}",
                hint="Give spectra as pyteomics reads them, or a data frame.",
            )
    level = int(found.get("ms level", found.get("msLevel", 2)))
    if level == 1 and level not in levels:
        return None
    try:
        fields = _fields(found, index)
    except (TypeError, ValueError) as error:
        return SkippedSpectrum(
            "malformed_header", str(error), identifier=f"index={index}", index=index
        )
    charges = fields.pop("charges")
    fields["charge"] = charges[0] if len(charges) == 1 else None
    precursor_mz = fields.pop("precursor_mz")
    if level not in levels or min(charges, default=1) < 0:
        reason = "ms_level" if level not in levels else "negative_mode"
        explanation = f"the level is {level}" if reason == "ms_level" else "negative"
        fields.pop("is_profile", None)
        return SkippedSpectrum(reason, explanation, precursor_mz=precursor_mz, **fields)
    fields["charges"] = charges if len(charges) > 1 else ()
    return spectrum_or_skip(
        found["m/z array"], found["intensity array"], precursor_mz, **fields
    )


def _fields(found: Mapping[str, Any], index: int) -> dict[str, Any]:
    if "params" in found:
        return _mgf_fields(found["params"], index)
    if "precursorMz" in found or "num" in found:
        return _mzxml_fields(found, index)
    return _mzml_fields(found, index)


def _mgf_fields(params: Mapping[str, Any], index: int) -> dict[str, Any]:
    pepmass = params.get("pepmass")
    charge = params.get("charge", ())
    charges = parse_charges(charge) if isinstance(charge, str) else map(int, charge)
    time = params.get("rtinseconds")
    scan = str(params.get("scans", ""))
    return {
        "identifier": f"index={index}",
        "index": index,
        "precursor_mz": _float(
            pepmass[0] if isinstance(pepmass, (tuple, list)) else pepmass
        ),
        "charges": tuple(charges),
        "title": params.get("title"),
        "peptide": params.get("seq"),
        "retention_time": _float(time),
        "scan": int(scan) if scan.isdecimal() else None,
    }


def _mzml_fields(found: Mapping[str, Any], index: int) -> dict[str, Any]:
    ion: Mapping[str, Any] = {}
    try:
        precursor = found["precursorList"]["precursor"][0]
        ion = precursor["selectedIonList"]["selectedIon"][0]
    except (KeyError, IndexError):
        pass
    scans = found.get("scanList", {}).get("scan", [{}])
    charge = ion.get("charge state", ion.get("possible charge state", ()))
    charges = charge if isinstance(charge, (list, tuple)) else [charge]
    identifier = str(found.get("id", f"index={index}"))
    scan = re.search(r"\bscan=(\d+)", identifier)
    return {
        "identifier": identifier,
        "index": int(found.get("index", index)),
        "precursor_mz": _float(ion.get("selected ion m/z")),
        "charges": tuple(int(one) for one in charges),
        "title": found.get("spectrum title"),
        "retention_time": _seconds(scans[0].get("scan start time")),
        "scan": int(scan[1]) if scan else None,
        "is_profile": "profile spectrum" in found,
    }


def _mzxml_fields(found: Mapping[str, Any], index: int) -> dict[str, Any]:
    precursors = found.get("precursorMz") or [{}]
    charge = precursors[0].get("precursorCharge")
    number = str(found.get("num", index))
    return {
        "identifier": f"scan={number}",
        "index": index,
        "precursor_mz": _float(precursors[0].get("precursorMz")),
        "charges": (int(charge),) if charge else (),
        "retention_time": _seconds(found.get("retentionTime")),
        "scan": int(number) if number.isdecimal() else None,
        "is_profile": str(found.get("centroided", "1")) in {"0", "False"},
    }


def _seconds(time: Any) -> float | None:
    """Return a time of pyteomics, which is in minutes unless it says otherwise."""
    if time is None:
        return None
    return float(time) * (1.0 if getattr(time, "unit_info", None) == "second" else 60.0)


def _float(value: Any) -> float | None:
    return None if value is None else float(value)


def spectra_of_frame(frame: Any) -> Iterator[Spectrum | SkippedSpectrum]:
    """Yield the spectra of a data frame, one a row.

    Parameters
    ----------
    frame : DataFrame
        Columns mz and intensity (an array in each cell), precursor_mz, and, if there
        are, charge, identifier, source, title, retention_time, peptide. Without
        identifiers, rows are ``index=0`` and so on.

    Raises
    ------
    InputError
        When a needed column is missing.
    """
    needed = ("mz", "intensity", "precursor_mz")
    missing = [name for name in needed if name not in frame.columns]
    if missing:
        raise InputError(
            f"the data frame has no column {', '.join(map(repr, missing))}",
            where="data frame",
            hint="Needed are mz, intensity (an array in each cell) and precursor_mz.",
        )
    optional = [name for name in _FRAME_FIELDS if name in frame.columns]
    columns = [frame[name].tolist() for name in (*needed, *optional)]
    for index, (mz, intensity, precursor_mz, *cells) in enumerate(
        zip(*columns, strict=True)
    ):
        fields = {
            name: value
            for name, value in zip(optional, cells, strict=True)
            if not _is_missing(value)
        }
        if "charge" in fields:
            fields["charge"] = int(fields["charge"]) or None
        fields = {"identifier": f"index={index}", "index": index} | fields
        yield spectrum_or_skip(mz, intensity, _float(precursor_mz), **fields)


def _is_missing(value: Any) -> bool:
    is_na = type(value).__name__ == "NAType"
    return value is None or is_na or (isinstance(value, float) and math.isnan(value))
