r"""Whether paths through the peaks lead on from a candidate residue to the end.

Axes: ``batch`` (B), ``place`` (L, after so many residues), ``token`` (V, of the
vocabulary), ``sum`` (the different masses of two tokens), ``node`` (of the spectrum
graph), ``edge`` (of tolerance windows).

The ions of a candidate, and those one residue further, may stand there by accident. The
spectrum graph knows all paths from there to the whole mass. It is walked once for each
spectrum; a search then looks up masses. This is an addition of ours.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from sciseq.sequencing.ion_evidence import Candidates, Peaks
from sciseq.sequencing.residues import WATER
from sciseq.sequencing.spectrum_graph import (
    MISSING,
    NOWHERE,
    Steps,
    node_weights,
    tolerance,
)

__all__ = ["N_PATH_FEATURES", "Onward", "onward_evidence", "onward_of"]

N_PATH_FEATURES = 2
"""Numbers that :func:`onward_evidence` gives for every candidate."""

_RANGE = 16.0  # a weight so much below the best, in logarithms, is as good as none


class Onward(NamedTuple):
    """How paths go on, as steps on the scale of residue masses from the C-terminus."""

    edges: Tensor  # (batch, edge), float64, sorted
    heights: Tensor  # (batch, edge + 1), float64: before each edge, -inf if no path
    whole: Tensor  # (batch,), float64: where the peptide ends


def onward_of(peaks: Peaks, steps: Steps, terminal: Tensor) -> Onward:
    """Prepare spectra for :func:`onward_evidence`, once for many calls.

    Parameters
    ----------
    peaks : Peaks
        Spectra.
    steps : Steps
        Masses that paths advance by.
    terminal : Tensor of float64, shape (token,)
        Masses of N-terminal modifications.
    """
    mass, weight = node_weights(peaks, steps, terminal)
    weight = weight.where(mass < NOWHERE, -torch.inf)
    low, high = mass - tolerance(mass), mass + tolerance(mass)
    edges = torch.cat([low, high], dim=1).sort(dim=1).values
    # Both are sorted, so that windows that hold a place are neighbours.
    first = torch.searchsorted(high, edges, right=True)
    behind = torch.searchsorted(low, edges, right=True)
    heights = _largest_between(weight, first, behind)
    heights = torch.nn.functional.pad(heights, (1, 0), value=-torch.inf)
    return Onward(edges, heights, peaks.precursor_mass - WATER)


def _largest_between(values: Tensor, first: Tensor, behind: Tensor) -> Tensor:
    """Largest of the values (batch, node) from ``first`` up to before ``behind``."""
    n_held = behind - first
    best = torch.full_like(first, -torch.inf, dtype=values.dtype)
    width, largest = 1, values  # of so many values from each one on
    while width <= values.shape[1]:
        # Two runs, which may overlap, fill what holds less than twice as many.
        fits = (n_held >= width) & (n_held < 2 * width)
        left = first.clamp_max(largest.shape[1] - 1)
        right = (behind - width).clamp(0, largest.shape[1] - 1)
        both = torch.maximum(largest.gather(1, left), largest.gather(1, right))
        best = torch.where(fits, both, best)
        if largest.shape[1] <= width:
            break
        largest = torch.maximum(largest[:, :-width], largest[:, width:])
        width *= 2
    return best


def onward_evidence(
    onward: Onward, prefix: Tensor, candidates: Candidates, is_terminal: Tensor
) -> Tensor:
    r"""Tell how probable it is that paths lead on from each candidate residue.

    With :math:`w` the weight of a node, :math:`\beta` that of all paths from there to
    the end, and u that of a missing peak, a candidate a after the mass p has

    .. math::

        v_a = \log \max\Bigl(\max_{g \approx p + m_a} w_g\, \beta(g),\;
        u \max_r \max_{g \approx p + m_a + m_r} w_g\, \beta(g)\Bigr)

    A modification of the N-terminus has 0 where it ends the peptide, and no path
    elsewhere.

    Parameters
    ----------
    onward : Onward
        From :func:`onward_of`.
    prefix : Tensor of float64, shape (batch, place)
        Residue masses before the candidate, from the C-terminus, in Da.
    candidates : Candidates
        Residue masses in Da. Of ``place`` only the columns of residues: nothing stands
        behind a modification of the N-terminus.
    is_terminal : Tensor of bool, shape (token,)
        Which candidates are such modifications.

    Returns
    -------
    Tensor, shape (batch, place, token, N_PATH_FEATURES)
        How near :math:`v_a` is to the best of the place, 1 for the best and 0 for
        :math:`e^{-16}` of its weight or no path; and the candidate's share
        :math:`e^{v_a} / \sum_b e^{v_b}`, 0 without any path.

    Examples
    --------
    >>> import torch
    >>> from sciseq.sequencing.ion_evidence import candidates_of
    >>> from sciseq.sequencing.residues import PROTON
    >>> from sciseq.sequencing.spectrum_graph import steps_of
    >>> masses = torch.tensor([57.0, 71.0, 99.0], dtype=torch.float64)
    >>> mz = torch.tensor([[71.0 + WATER + PROTON]], dtype=torch.float64)
    >>> peaks = Peaks(mz, torch.ones(1, 1), torch.tensor([170.0]) + WATER, None)
    >>> onward = onward_of(peaks, steps_of(masses), masses[:0])
    >>> start, is_terminal = masses.new_zeros(1, 1), torch.zeros(3, dtype=torch.bool)
    >>> found = onward_evidence(onward, start, candidates_of(masses), is_terminal)
    >>> found[0, 0, :, 1].round(decimals=3).tolist()
    [0.0, 0.999, 0.001]
    """
    after = prefix.unsqueeze(-1) + candidates.masses
    one, two = (
        _looked_up(onward, prefix, m) for m in (candidates.masses, candidates.sums)
    )
    by_sum = two.T.contiguous()  # rows of all places of one sum are copied fastest
    place = candidates.place
    pairs = by_sum.index_select(0, place.flatten()).view(*place.shape, -1)
    best_two = pairs.amax(dim=1).T  # (batch * place, token)
    value = torch.maximum(one, best_two + MISSING).view_as(after)
    off = (after - onward.whole[:, None, None]).abs()
    ends = torch.zeros_like(value).where(off <= tolerance(after), -torch.inf)
    value = torch.where(is_terminal, ends, value)
    best = value.amax(dim=-1, keepdim=True)
    below = (value - best).where(value.isfinite(), -torch.inf)
    share = below.exp()
    share = share / share.sum(dim=-1, keepdim=True).clamp_min(1.0)
    return torch.stack([(1 + below / _RANGE).clamp_min(0), share], dim=-1)


def _looked_up(onward: Onward, prefix: Tensor, masses: Tensor) -> Tensor:
    """Heights at each place and mass (batch * place, mass)."""
    wanted = (prefix.unsqueeze(-1) + masses).flatten(1)
    at = torch.searchsorted(onward.edges, wanted)
    return onward.heights.gather(1, at).view(-1, len(masses))
