"""Fragment spectra as records.

A spectrum that cannot be used is a record too, :class:`SkippedSpectrum`: it says which
spectrum and why, so that as many records leave as spectra came in.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sciseq.errors import DataQualityError, InputError

__all__ = ["SKIP_REASONS", "SkippedSpectrum", "Spectrum", "spectrum_or_skip"]

FloatArray = npt.NDArray[np.float64]

SKIP_REASONS = {
    "charge_limit": "the charge is above the largest that is sequenced",
    "encoding": "the peaks are packed in a way that is not read",
    "malformed_header": "a header line cannot be read",
    "malformed_peaks": "the peak list cannot be read",
    "missing_charge": "the charge is not known",
    "missing_precursor": "the m/z of the precursor is missing or is no positive number",
    "ms_level": "the spectrum is of another level than asked for",
    "negative_mode": "the ions are negative",
    "no_peaks": "the peak list is empty",
    "profile": "the spectrum is in profile mode",
    "too_few_peaks": "too few peaks are left after the filters",
    "unterminated": "the end of the spectrum is missing",
}


@dataclass(frozen=True, eq=False)
class Spectrum:
    """One fragment spectrum.

    Parameters
    ----------
    mz : ndarray of shape (n_peaks,)
        m/z of the peaks, at least one; sorted here when they are not.
    intensity : ndarray of shape (n_peaks,)
        Heights of the peaks, in any unit.
    precursor_mz : float
        m/z of the precursor.
    charge : int, optional
        Its charge; None when the file does not say, or names several.
    identifier : str, default=""
        Native identifier: ``"index=5"`` (counted from 0) in MGF and MSP,
        ``"scan=17"`` in mzXML, the whole id in mzML.
    source : str, default=""
        The file.
    index : int, default=0
        Place in the file among all its spectra, counted from 0.
    title, peptide : str, optional
        Title, and annotated peptide (ProForma), as written.
    retention_time : float, optional
        In seconds.
    charges : tuple of int, default=()
        The possible charges, when there are several.
    is_profile : bool, default=False
        Whether these are points of a profile, not peaks.
    scan : int, optional
        Number of the scan, where the file gives it.

    Raises
    ------
    DataQualityError
        When there is no peak, when the arrays differ in length, or hold NaN,
        infinity, or an m/z that is not positive, and for such a `precursor_mz`.

    Examples
    --------
    >>> Spectrum([300.5, 200.25], [1.0, 4.0], precursor_mz=450.2, charge=2).mz
    array([200.25, 300.5 ])
    """

    mz: FloatArray
    intensity: FloatArray
    precursor_mz: float
    charge: int | None = None
    identifier: str = ""
    source: str = ""
    index: int = 0
    title: str | None = None
    retention_time: float | None = None
    peptide: str | None = None
    charges: tuple[int, ...] = ()
    is_profile: bool = False
    scan: int | None = None

    def __post_init__(self) -> None:
        mz = np.asarray(self.mz, dtype=np.float64)
        intensity = np.asarray(self.intensity, dtype=np.float64)
        fault = _find_fault(mz, intensity, self.precursor_mz)
        if fault:
            raise DataQualityError(fault[1], where=self.identifier or None)
        if not _is_increasing(mz):
            # Height decides between equal m/z: the order in the file must not matter.
            order = np.lexsort((intensity, mz))
            mz, intensity = mz[order], intensity[order]
        object.__setattr__(self, "mz", mz)
        object.__setattr__(self, "intensity", intensity)


@dataclass(frozen=True)
class SkippedSpectrum:
    """A spectrum that cannot be used, and why.

    Parameters
    ----------
    reason : str
        Short code, a key of :data:`SKIP_REASONS`.
    explanation : str
        One sentence for people.
    identifier, source, index, precursor_mz, charge, title, retention_time
        As in :class:`Spectrum`, as far as they could be read.
    peptide, scan
        The same.

    Examples
    --------
    >>> print(SkippedSpectrum("no_peaks", "the peak list is empty", "index=3"))
    index=3: the peak list is empty (no_peaks)
    """

    reason: str
    explanation: str
    identifier: str = ""
    source: str = ""
    index: int = 0
    precursor_mz: float | None = None
    charge: int | None = None
    title: str | None = None
    retention_time: float | None = None
    peptide: str | None = None
    scan: int | None = None

    def __post_init__(self) -> None:
        if self.reason not in SKIP_REASONS:
            raise InputError(
                f"reason is {self.reason!r}, must be one of {', '.join(SKIP_REASONS)}",
                where="reason",
            )

    def __str__(self) -> str:
        return f"{self.identifier}: {self.explanation} ({self.reason})"

    @classmethod
    def of(cls, spectrum: Spectrum, reason: str, explanation: str) -> "SkippedSpectrum":
        """Return the record that says why this spectrum is not used."""
        return cls(
            reason,
            explanation,
            identifier=spectrum.identifier,
            source=spectrum.source,
            index=spectrum.index,
            precursor_mz=spectrum.precursor_mz,
            charge=spectrum.charge,
            title=spectrum.title,
            retention_time=spectrum.retention_time,
            peptide=spectrum.peptide,
            scan=spectrum.scan,
        )


def spectrum_or_skip(
    mz: npt.ArrayLike,
    intensity: npt.ArrayLike,
    precursor_mz: float | None,
    **fields: Any,
) -> Spectrum | SkippedSpectrum:
    """Return a spectrum, or the record of why it cannot be one.

    Parameters
    ----------
    mz, intensity, precursor_mz, **fields
        As in :class:`Spectrum`; `precursor_mz` may be None, which is a reason.

    Examples
    --------
    >>> spectrum_or_skip([], [], 450.2, identifier="index=3").reason
    'no_peaks'
    """
    if precursor_mz is None:
        precursor_mz = math.nan
    try:
        return Spectrum(
            np.asarray(mz, dtype=np.float64),
            np.asarray(intensity, dtype=np.float64),
            precursor_mz,
            **fields,
        )
    except (TypeError, ValueError) as error:
        reason, explanation = "malformed_peaks", f"the peaks are not numbers: {error}"
        if isinstance(error, DataQualityError):
            fault = _find_fault(np.asarray(mz), np.asarray(intensity), precursor_mz)
            assert fault is not None  # what the constructor has just found
            reason, explanation = fault
    names = SkippedSpectrum.__dataclass_fields__
    known = {key: value for key, value in fields.items() if key in names}
    if reason != "missing_precursor":
        known["precursor_mz"] = precursor_mz
    return SkippedSpectrum(reason, explanation, **known)


def _find_fault(
    mz: FloatArray, intensity: FloatArray, precursor_mz: float
) -> tuple[str, str] | None:
    """Return reason and explanation of what makes a spectrum useless."""
    if not (math.isfinite(precursor_mz) and precursor_mz > 0):
        return "missing_precursor", SKIP_REASONS["missing_precursor"]
    if mz.ndim != 1 or mz.shape != intensity.shape:
        return (
            "malformed_peaks",
            f"m/z has shape {mz.shape} and intensity {intensity.shape}; both must be "
            "(n_peaks,)",
        )
    if not len(mz):
        return "no_peaks", SKIP_REASONS["no_peaks"]
    # NaN is in no order, so it takes the long way.
    ends = (mz[0], mz[-1]) if _is_increasing(mz) else (mz.min(), mz.max())
    lowest, highest = ends
    if not (lowest > 0 and highest < math.inf):
        worst = lowest if not lowest > 0 else highest
        return "malformed_peaks", f"an m/z is {worst}, must be a positive number"
    if not np.isfinite(intensity).all():
        return "malformed_peaks", "an intensity is NaN or infinite"
    return None


def _is_increasing(values: FloatArray) -> bool:
    return bool((values[1:] > values[:-1]).all())
