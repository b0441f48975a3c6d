"""From a spectrum to the peaks that a network reads.

The records themselves, :class:`Spectrum` and :class:`SkippedSpectrum`, are those of
:mod:`sciseq.sequencing.spectrum_records`.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from sciseq.errors import InputError
from sciseq.sequencing.masses import PROTON
from sciseq.sequencing.spectrum_records import (
    SKIP_REASONS,
    SkippedSpectrum,
    Spectrum,
    spectrum_or_skip,
)

__all__ = [
    "SKIP_REASONS",
    "PeakSettings",
    "Peaks",
    "SkippedSpectrum",
    "Spectrum",
    "centroid",
    "preprocess",
    "spectrum_or_skip",
]

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class PeakSettings:
    """Which peaks of a spectrum are kept.

    Parameters
    ----------
    minimum_mz, maximum_mz : float, default=50.0 and 2500.0
        Range of m/z, ends included.
    n_peaks : int, default=150
        At most so many, the highest.
    precursor_tolerance : float, default=2.0
        Peaks within so many m/z of the precursor, at any charge up to its own, are
        removed.
    minimum_intensity : float, default=0.01
        Share of the highest peak, of square roots, below which a peak is removed.
    fewest_peaks : int, default=20
        Spectra with fewer peaks left are skipped.
    largest_charge : int, default=4
        Spectra of a higher charge are skipped.
    profile : {"skip", "centroid"}, default="skip"
        What happens to spectra in profile mode: they are skipped, or their peaks are
        picked with :func:`centroid`.

    Raises
    ------
    InputError
        For a value out of its range.
    """

    minimum_mz: float = 50.0
    maximum_mz: float = 2500.0
    n_peaks: int = 150
    precursor_tolerance: float = 2.0
    minimum_intensity: float = 0.01
    fewest_peaks: int = 20
    largest_charge: int = 4
    profile: str = "skip"

    def __post_init__(self) -> None:
        rules = [
            ("minimum_mz", self.minimum_mz >= 0, "at least 0"),
            ("maximum_mz", self.maximum_mz > self.minimum_mz, "above minimum_mz"),
            ("n_peaks", self.n_peaks >= 1, "at least 1"),
            ("precursor_tolerance", self.precursor_tolerance >= 0, "at least 0"),
            ("minimum_intensity", 0 <= self.minimum_intensity < 1, "in [0, 1)"),
            ("fewest_peaks", 1 <= self.fewest_peaks <= self.n_peaks, "in [1, n_peaks]"),
            ("largest_charge", self.largest_charge >= 1, "at least 1"),
            (
                "profile",
                self.profile in {"skip", "centroid"},
                "'skip' or 'centroid'",
            ),
        ]
        for name, holds, allowed in rules:
            if not holds:
                raise InputError(
                    f"{name} is {getattr(self, name)!r}, must be {allowed}", where=name
                )


@dataclass(frozen=True, eq=False)
class Peaks:
    """Peaks as a network reads them.

    Parameters
    ----------
    mz : ndarray of shape (n_peaks,)
        m/z, sorted.
    intensity : ndarray of shape (n_peaks,)
        Square roots of the heights, of L2 norm 1.
    precursor_mz : float
        m/z of the precursor.
    charge : int
        Its charge.
    """

    mz: FloatArray
    intensity: FloatArray
    precursor_mz: float
    charge: int


def preprocess(
    spectrum: Spectrum,
    charge: int | None = None,
    settings: PeakSettings | None = None,
) -> Peaks | SkippedSpectrum:
    r"""Return the peaks that a network reads, or the reason why there are none.

    In this order: range of m/z; removal of the precursor,

    .. math:: |x - (M / c + m_p)| \le \delta \text{ for } c = 1 \dots z,
              \qquad M = (x_\text{precursor} - m_p) z,

    where m_p is the mass of the proton; square root, scaled to a maximum of 1; removal
    below the minimum intensity; the highest `n_peaks`; division by the L2 norm. Peaks
    of no or negative height count as absent.

    Parameters
    ----------
    spectrum : Spectrum
        The spectrum.
    charge : int, optional
        Charge z of the precursor; that of the spectrum by default.
    settings : PeakSettings, optional
        Limits; the defaults of :class:`PeakSettings` when not given.

    Returns
    -------
    Peaks or SkippedSpectrum
        The peaks, or a record with the reason.

    Notes
    -----
    The order and the defaults are those of Casanovo 5. Casanovo removes a peak that
    lies exactly at the minimum intensity, this function keeps it.

    Examples
    --------
    >>> spectrum = Spectrum([100.0, 200.0, 449.0], [9.0, 16.0, 99.0], 450.0, charge=1)
    >>> preprocess(spectrum, settings=PeakSettings(fewest_peaks=2)).intensity
    array([0.6, 0.8])
    >>> preprocess(spectrum).reason
    'too_few_peaks'
    """
    settings = settings or PeakSettings()
    charge = spectrum.charge if charge is None else charge
    refusal = _refusal(spectrum, charge, settings)
    if refusal is not None:
        return refusal
    assert charge is not None  # what _refusal has just checked
    if spectrum.is_profile:
        spectrum = centroid(spectrum)
    mz, intensity = spectrum.mz, spectrum.intensity
    kept = (mz >= settings.minimum_mz) & (mz <= settings.maximum_mz) & (intensity > 0)
    mass = (spectrum.precursor_mz - PROTON) * charge
    for reduced in range(1, charge + 1):
        distance = np.abs(mz - (mass / reduced + PROTON))
        kept &= distance > settings.precursor_tolerance
    mz, intensity = _highest(mz[kept], intensity[kept], settings)
    if len(mz) < settings.fewest_peaks:
        return SkippedSpectrum.of(
            spectrum,
            "too_few_peaks",
            f"{len(mz)} peaks are left after the filters, {settings.fewest_peaks} are "
            "needed",
        )
    intensity = intensity / np.linalg.norm(intensity)
    return Peaks(mz, intensity, spectrum.precursor_mz, int(charge))


def _refusal(
    spectrum: Spectrum, charge: int | None, settings: PeakSettings
) -> SkippedSpectrum | None:
    """Return why a spectrum is not looked at, None when it is."""
    if charge is None:
        explanation = SKIP_REASONS["missing_charge"]
        if spectrum.charges:
            explanation += f"; it may be {_listed(spectrum.charges)}"
        return SkippedSpectrum.of(spectrum, "missing_charge", explanation)
    if charge < 1:
        raise InputError(f"charge is {charge}, must be at least 1", where="charge")
    if charge > settings.largest_charge:
        return SkippedSpectrum.of(
            spectrum,
            "charge_limit",
            f"the charge is {charge}, the largest is {settings.largest_charge}",
        )
    if spectrum.is_profile and settings.profile == "skip":
        return SkippedSpectrum.of(
            spectrum,
            "profile",
            "the spectrum is in profile mode; profile='centroid' picks its peaks",
        )
    return None


def _highest(
    mz: FloatArray, intensity: FloatArray, settings: PeakSettings
) -> tuple[FloatArray, FloatArray]:
    """Return m/z and square roots of the peaks that stay, sorted by m/z."""
    if not len(mz):
        return mz, intensity
    root = np.sqrt(intensity / intensity.max())
    kept = root >= settings.minimum_intensity
    mz, root = mz[kept], root[kept]
    if len(mz) > settings.n_peaks:
        # Stable: of equally high peaks those of lower m/z stay.
        order = np.sort(np.argsort(-root, kind="stable")[: settings.n_peaks])
        mz, root = mz[order], root[order]
    return mz, root


def centroid(spectrum: Spectrum) -> Spectrum:
    r"""Pick the peaks of a spectrum in profile mode.

    A peak is a point higher than its left neighbour and not lower than its right one.
    Through it and both neighbours goes a parabola in the logarithm of the height,

    .. math:: \ln I(x) = \ln I_0 + a (x - x_0) + b (x - x_0)^2, \qquad
              x_\text{peak} = x_0 - \frac{a}{2b}, \quad
              \ln I_\text{peak} = \ln I_0 - \frac{a^2}{4b},

    which is exact for a Gaussian peak. A point whose neighbours are without signal, or
    unevenly far away, is taken as it stands.

    Parameters
    ----------
    spectrum : Spectrum
        Points of a profile.

    Returns
    -------
    Spectrum
        The peaks; `is_profile` is False.

    Examples
    --------
    >>> x = np.array([499.98, 499.99, 500.0, 500.01, 500.02])
    >>> profile = Spectrum(x, np.exp(-(((x - 500.003) / 0.01) ** 2)), 450.0)
    >>> centroid(profile).mz.round(6)
    array([500.003])
    """
    mz, height = spectrum.mz, np.maximum(spectrum.intensity, 0.0)
    left = np.concatenate(([0.0], height[:-1]))
    right = np.concatenate((height[1:], [0.0]))
    apex = np.flatnonzero((height > left) & (height >= right))
    if not len(apex):  # no signal anywhere: the points stay, and count as no peaks
        return replace(spectrum, is_profile=False)
    peak_mz, peak_height = mz[apex].copy(), height[apex].copy()
    inner = np.flatnonzero((left[apex] > 0) & (right[apex] > 0))
    at = apex[inner]
    before, after = mz[at] - mz[at - 1], mz[at + 1] - mz[at]
    even = (before <= 2 * after) & (after <= 2 * before) & (before > 0)
    inner, at, before, after = inner[even], at[even], before[even], after[even]
    rise = (np.log(height[at]) - np.log(height[at - 1])) / before
    fall = (np.log(height[at + 1]) - np.log(height[at])) / after
    curvature = (fall - rise) / (before + after)
    slope = rise + curvature * before
    peak_mz[inner] -= slope / (2 * curvature)
    peak_height[inner] *= np.exp(-(slope**2) / (4 * curvature))
    return replace(spectrum, mz=peak_mz, intensity=peak_height, is_profile=False)


def _listed(charges: tuple[int, ...]) -> str:
    return " or ".join(str(charge) for charge in charges)
