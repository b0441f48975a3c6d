"""Peaks where the ions of a candidate residue should be: inputs of the networks.

Axes: ``batch`` (B), ``peak`` (P), ``query`` (any places asked for), ``place`` (L, after
so many residues), ``token`` (V, of the vocabulary), ``ion`` (kinds of ions).

A plain network has to learn the arithmetic of masses from examples. Here it is told,
for every residue that may come next, whether a peak stands where that residue's ions
would be. That is an addition of ours to the published networks.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from sciseq.sequencing.residues import PROTON, WATER

__all__ = [
    "N_FEATURES",
    "Candidates",
    "Peaks",
    "candidate_evidence",
    "candidates_of",
    "peak_evidence",
]

AMMONIA, CARBON_MONOXIDE = 17.026549, 27.994915  # Da

# Ions counted from the C-terminus: charge, and what is lost.
_Y_IONS = ((1, 0.0), (2, 0.0), (3, 0.0), (1, AMMONIA))
# And from the N-terminus, found from the mass of the whole peptide.
_B_IONS = ((1, 0.0), (2, 0.0), (1, CARBON_MONOXIDE))
# Of these also the best peak two residues ahead is looked for.
_AHEAD = (("y", 1), ("b", 1), ("y", 2))

N_FEATURES = 2 * (len(_Y_IONS) + len(_B_IONS)) + len(_AHEAD)
"""Numbers that :func:`candidate_evidence` gives for every candidate."""

# A peak may be off by so much: parts of its own m/z, Da at least, and for ions that are
# found from the precursor's mass parts of that mass.
_OWN_PPM, _LEAST, _PRECURSOR_PPM = 15e-6, 0.006, 4e-6


class Peaks(NamedTuple):
    """Peaks of some spectra, sorted by m/z."""

    mz: Tensor  # (batch, peak), float64, infinite where there is none
    intensity: Tensor  # (batch, peak), 0 where there is none
    precursor_mass: Tensor  # (batch,), float64, neutral
    charge: Tensor  # (batch,), int64

    @property
    def is_peak(self) -> Tensor:
        """Whether there is a peak (batch, peak)."""
        return self.mz.isfinite()


class Candidates(NamedTuple):
    """Residue masses, alone and in pairs."""

    masses: Tensor  # (token,), float64
    sums: Tensor  # (sum,), float64: the different masses of two residues
    place: Tensor  # (token, token), int64: where the sum of two tokens stands


def candidates_of(masses: Tensor) -> Candidates:
    """Prepare residue masses (token,), float64, for :func:`candidate_evidence`."""
    # Many pairs weigh the same.
    sums, place = torch.unique(masses[:, None] + masses, return_inverse=True)
    return Candidates(masses, sums, place)


def candidate_evidence(peaks: Peaks, prefix: Tensor, candidates: Candidates) -> Tensor:
    r"""Look for the ions that each candidate residue would make.

    With r the residue masses from the C-terminus, the candidate's included:

    .. math::

        y^{z+} = (r + m_{H_2O}) / z + m_p, \qquad
        b^{z+} = (M - m_{H_2O} - r) / z + m_p

    Parameters
    ----------
    peaks : Peaks
        Spectra.
    prefix : Tensor of float64, shape (batch, place)
        Residue masses before the candidate, from the C-terminus, in Da.
    candidates : Candidates
        Residue masses of the candidates, in Da.

    Returns
    -------
    Tensor, shape (batch, place, token, N_FEATURES)
        For y, y2+, y3+, y-NH3, b, b2+ and a: the intensity of the nearest peak
        (relative to the largest) and its closeness in [0, 1], 0 beyond the tolerance of
        15 ppm (at least 6 mDa; b and a ions 4 ppm of the precursor's mass more). Then
        for y, b and y2+ the largest intensity over all second residues.

    Examples
    --------
    >>> import torch
    >>> glycine = torch.tensor([57.021464], dtype=torch.float64)
    >>> peaks = Peaks(glycine + WATER + PROTON, torch.ones(1), glycine + 500, None)
    >>> peaks = Peaks(peaks.mz[None], peaks.intensity[None], peaks.precursor_mass, None)
    >>> start = torch.zeros(1, 1, dtype=torch.float64)
    >>> found = candidate_evidence(peaks, start, candidates_of(glycine))
    >>> found[0, 0, 0, :2].tolist()
    [1.0, 1.0]
    """
    relative = _relative(peaks)
    one = prefix.unsqueeze(-1) + candidates.masses  # (batch, place, token)
    features: list[Tensor] = []
    for kind, ions in (("y", _Y_IONS), ("b", _B_IONS)):
        for charge, lost in ions:
            query = _ion(kind, one, peaks.precursor_mass, charge, lost)
            features += _nearest(peaks, relative, query, kind)
    two = prefix.unsqueeze(-1) + candidates.sums
    for kind, charge in _AHEAD:
        query = _ion(kind, two, peaks.precursor_mass, charge, 0.0)
        found, _ = _nearest(peaks, relative, query, kind)
        features.append(found[..., candidates.place].amax(dim=-1))
    return torch.stack(features, dim=-1)


def peak_evidence(peaks: Peaks, masses: Tensor) -> Tensor:
    """Look for the other ions that each peak would belong to.

    Parameters
    ----------
    peaks : Peaks
        Spectra.
    masses : Tensor of float64, shape (token,)
        Residue masses in Da.

    Returns
    -------
    Tensor, shape (batch, peak, 2 + 2 token)
        Intensity and closeness of the complement, b for y and y for b; then the
        intensity of the peak lighter and of the peak heavier by each residue.
    """
    relative = _relative(peaks)
    mz = peaks.mz.where(peaks.is_peak, 0.0).unsqueeze(-1)  # (batch, peak, 1)
    total = peaks.precursor_mass[:, None, None]
    complement = torch.cat(_nearest(peaks, relative, total + 2 * PROTON - mz, "b"), -1)
    lighter, _ = _nearest(peaks, relative, mz - masses, "y")
    heavier, _ = _nearest(peaks, relative, mz + masses, "y")
    return torch.cat([complement, lighter, heavier], dim=-1)


def _relative(peaks: Peaks) -> Tensor:
    largest = peaks.intensity.amax(dim=1, keepdim=True)
    return peaks.intensity / largest.clamp_min(1e-30)


def _ion(
    kind: str, residues: Tensor, precursor_mass: Tensor, charge: int, lost: float
) -> Tensor:
    if kind == "y":
        neutral = residues + (WATER - lost)
    else:
        neutral = precursor_mass[:, None, None] - residues - (WATER + lost)
    return neutral / charge + PROTON


def _nearest(
    peaks: Peaks, relative: Tensor, query: Tensor, kind: str
) -> tuple[Tensor, Tensor]:
    """Intensity and closeness of the peak nearest to each place (batch, ...)."""
    flat = query.flatten(1)
    right = torch.searchsorted(peaks.mz, flat)
    last = peaks.mz.shape[1] - 1
    left, right = (right - 1).clamp_min(0), right.clamp_max(last)
    to_left = (flat - peaks.mz.gather(1, left)).abs()
    to_right = (peaks.mz.gather(1, right) - flat).abs()
    nearest = torch.where(to_left <= to_right, left, right)
    tolerance = (flat.abs() * _OWN_PPM).clamp_min(_LEAST)
    if kind == "b":
        tolerance += peaks.precursor_mass[:, None] * _PRECURSOR_PPM
    closeness = 1 - torch.minimum(to_left, to_right) / tolerance
    closeness = closeness.clamp_min(0).to(relative.dtype)
    intensity = relative.gather(1, nearest) * (closeness > 0)
    return intensity.view(query.shape), closeness.view(query.shape)
