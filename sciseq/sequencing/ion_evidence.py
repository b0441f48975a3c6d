"""Peaks where the ions of a candidate residue should be: inputs of the networks.

Axes: ``batch`` (B), ``peak`` (P), ``query`` (any places asked for), ``place`` (L, after
so many residues), ``token`` (V, of the vocabulary), ``ion`` (kinds of ions),
``sum`` (the different masses of two residues), ``edge`` (of tolerance windows).

A plain network has to learn the arithmetic of masses from examples. Here it is told,
for every residue that may come next, whether a peak stands where that residue's ions
would be. That is an addition of ours to the published networks.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from sciseq.sequencing.masses import AMMONIA, CARBON_MONOXIDE, PROTON, WATER

__all__ = [
    "N_FEATURES",
    "Candidates",
    "Peaks",
    "Windows",
    "candidate_evidence",
    "candidates_of",
    "peak_evidence",
    "windows_of",
]

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


class Windows(NamedTuple):
    """Where on the scale of residue masses the peaks of a spectrum begin and end.

    One search in the edges of all kinds of ions tells which peaks are hit.
    """

    edges: Tensor  # (batch, edge), float64, sorted
    heights: Tensor  # (batch, kind, edge + 1): the peak hit before each edge, 0 if none


def candidates_of(masses: Tensor) -> Candidates:
    """Prepare residue masses (token,), float64, for :func:`candidate_evidence`."""
    # Many pairs weigh the same.
    sums, place = torch.unique(masses[:, None] + masses, return_inverse=True)
    return Candidates(masses, sums, place)


def windows_of(peaks: Peaks) -> Windows:
    """Prepare spectra for :func:`candidate_evidence`, once for many calls."""
    relative, mz, middle = _relative(peaks), peaks.mz, _middles(peaks.mz)
    no_peak = mz.new_full((len(mz), 1), torch.inf)
    left, right = torch.cat([-no_peak, middle], 1), torch.cat([middle, no_peak], 1)
    ends, heights = [], []
    for kind, charge in _AHEAD:
        slack = _slack(peaks, kind)
        # Where the tolerance of the place asked for just reaches the peak.
        low = torch.minimum(mz - _LEAST - slack, (mz - slack) / (1 + _OWN_PPM))
        high = torch.maximum(mz + _LEAST + slack, (mz + slack) / (1 - _OWN_PPM))
        window = torch.stack([low.maximum(left), high.minimum(right)], dim=-1)
        mass = _residues(kind, window.flatten(1), peaks.precursor_mass, charge)
        # The more residues, the lighter the b ion.
        ends.append(mass.flip(1) if kind == "b" else mass)
        heights.append(relative.flip(1) if kind == "b" else relative)
    edges = torch.cat(ends, dim=1).sort(dim=1).values
    hit = [_height_behind(edges, *own) for own in zip(ends, heights, strict=True)]
    return Windows(edges, F.pad(torch.stack(hit, dim=1), (1, 0)))


def _height_behind(edges: Tensor, own: Tensor, heights: Tensor) -> Tensor:
    """Peak (batch, edge) whose window, with ``own`` ends, goes on behind each edge."""
    n_passed = torch.searchsorted(own, edges, right=True)
    peak = (n_passed // 2).clamp_max(heights.shape[1] - 1)
    return heights.gather(1, peak) * (n_passed % 2)


def candidate_evidence(
    peaks: Peaks,
    prefix: Tensor,
    candidates: Candidates,
    windows: Windows | None = None,
) -> Tensor:
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
    windows : Windows, optional
        From :func:`windows_of`, made here by default.

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
    found = _own_evidence(peaks, prefix, candidates.masses)
    windows = windows_of(peaks) if windows is None else windows
    ahead = _ahead_evidence(windows, prefix, candidates)
    return torch.cat([found, ahead], dim=-1)


def _own_evidence(peaks: Peaks, prefix: Tensor, masses: Tensor) -> Tensor:
    """Intensities and closenesses in turn (batch, place, token, 2 ion)."""
    one = prefix.unsqueeze(-1) + masses
    queries, slack = [], []
    for kind, ions in (("y", _Y_IONS), ("b", _B_IONS)):
        for charge, lost in ions:
            query = _ion(kind, one, peaks.precursor_mass, charge, lost)
            queries.append(query.flatten(1))
            slack.append(_slack(peaks, kind))
    # All ions in one search: (batch, ion, place * token)
    wanted, slacks = torch.stack(queries, dim=1), torch.stack(slack, dim=1)
    found = torch.stack(_nearest(peaks, _relative(peaks), wanted, slacks), dim=2)
    # from (batch, 2 ion, place * token)
    return found.flatten(1, 2).transpose(1, 2).reshape(*one.shape, -1)


def _ahead_evidence(windows: Windows, prefix: Tensor, candidates: Candidates) -> Tensor:
    """Highest peaks (batch, place, token, kind) over all second residues."""
    n_items, n_kinds, _ = windows.heights.shape
    sums, place = candidates.sums, candidates.place
    two = (prefix.unsqueeze(-1) + sums).flatten(1)
    at = torch.searchsorted(windows.edges, two)
    # (batch, place * sum) each; rows of all places of one sum are copied fastest
    hit = torch.stack([one.gather(1, at) for one in windows.heights.unbind(1)])
    by_sum = hit.view(-1, len(sums)).T.contiguous()
    pairs = by_sum.index_select(0, place.flatten()).view(*place.shape, -1)
    # from (token, kind * batch * place)
    best = pairs.amax(dim=1).view(len(place), n_kinds, n_items, -1)
    return best.permute(2, 3, 0, 1)


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
    slack = {kind: _slack(peaks, kind).unsqueeze(-1) for kind in "yb"}
    other = total + 2 * PROTON - mz
    complement = torch.cat(_nearest(peaks, relative, other, slack["b"]), dim=-1)
    lighter, _ = _nearest(peaks, relative, mz - masses, slack["y"])
    heavier, _ = _nearest(peaks, relative, mz + masses, slack["y"])
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


def _residues(kind: str, mz: Tensor, precursor_mass: Tensor, charge: int) -> Tensor:
    """Residue masses (batch, place) of ions at some m/z: the inverse of ``_ion``."""
    neutral = (mz - PROTON) * charge
    if kind == "y":
        return neutral - WATER
    return precursor_mass[:, None] - neutral - WATER


def _slack(peaks: Peaks, kind: str) -> Tensor:
    """Tolerance (batch, 1) that the precursor's mass adds, in Da."""
    share = _PRECURSOR_PPM if kind == "b" else 0.0
    return peaks.precursor_mass[:, None] * share


def _middles(mz: Tensor) -> Tensor:
    """Places (batch, peak - 1) halfway from each peak to the next one."""
    return (mz[:, :-1] + mz[:, 1:]) / 2


def _nearest(
    peaks: Peaks, relative: Tensor, query: Tensor, slack: Tensor
) -> tuple[Tensor, Tensor]:
    """Intensity and closeness of the peak nearest to each place (batch, ...)."""
    flat = query.flatten(1)
    nearest = torch.searchsorted(_middles(peaks.mz), flat)
    distance = (peaks.mz.gather(1, nearest) - flat).abs_().view(query.shape)
    tolerance = (query.abs() * _OWN_PPM).clamp_min_(_LEAST) + slack
    closeness = (1 - distance / tolerance).clamp_min_(0).to(relative.dtype)
    intensity = relative.gather(1, nearest).view(query.shape) * (closeness > 0)
    return intensity, closeness
