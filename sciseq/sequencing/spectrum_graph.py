r"""Which residue probably stands in which place: paths through the peaks of a spectrum.

Axes: ``batch`` (B), ``peak`` (P), ``node`` (G = 2 P + 2, and the ends before terminal
modifications, where they are asked for), ``step`` (K, by which a path may advance),
``place`` (T), ``residue`` (R), ``edge`` (of all graphs of a batch).

A peak may be a y or a b ion, so it is a node at two masses from the C-terminus. A
peptide is a path through nodes, from nothing to the whole mass, each step one residue,
or two where a peak is missing. Nothing is learned here: all paths that the peaks allow
are summed. That tells a nonautoregressive decoder, which knows no mass before its
slots, how many residues come before a peak, and an autoregressive one, which knows a
mass, how paths go on from there. It is an addition of ours to the published networks.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from sciseq.sequencing.ion_evidence import Peaks
from sciseq.sequencing.residues import PROTON, WATER

__all__ = [
    "MISSING",
    "NOWHERE",
    "Steps",
    "node_weights",
    "place_probabilities",
    "steps_of",
    "tolerance",
]

# Logarithms of the weights of a path: each node has the first, the next two times the
# heights of its peak and of that peak's complement; then those of a step of two
# residues, and of an end before the whole mass. Chosen with simulated spectra.
_NODE, _HEIGHT, _COMPLEMENT, _TWO, _LOST = -0.2, 4.2, 4.0, -2.7, -7.4
MISSING = _TWO
"""Logarithm of the weight of a missing peak."""

# Two nodes may be off by so much: parts of the heavier one's mass, within bounds in Da.
_PPM, _LEAST, _MOST = 15e-6, 0.004, 0.018
_SAME = 1e-4  # Da
_BINS = 1000  # per Da, of the table of masses
_LARGEST = 1e300  # a weight above it is as good as this
NOWHERE = 1e5
"""Mass of a node that is none."""


class Steps(NamedTuple):
    """Masses of one and of two residues."""

    one: Tensor  # (some of the steps,), float64, sorted, no two alike
    two: Tensor  # (the others,), float64, sorted, no two alike
    shares: (
        Tensor  # (step, residue), float64: which residue it is in each of its places
    )
    is_mass: Tensor  # (bin,), bool: whether a mass is near that of a step


class _Edges(NamedTuple):
    source: Tensor  # (edge,), int64: a node of the flattened graphs
    target: Tensor  # (edge,)
    weight: Tensor  # (edge,), float64
    step: Tensor  # (edge,)

    def chosen(self, mask: Tensor) -> "_Edges":
        return _Edges(*(one[mask] for one in self))

    def push(self, values: Tensor, like: Tensor) -> Tensor:
        """Carry values of the sources, weighted, to the targets."""
        carried = self.weight * values[self.source]
        return torch.zeros_like(like).index_add(0, self.target, carried)


def steps_of(masses: Tensor) -> Steps:
    """Prepare residue masses (residue,), float64, for :func:`place_probabilities`.

    Examples
    --------
    >>> import torch
    >>> steps = steps_of(torch.tensor([57.0, 71.0], dtype=torch.float64))
    >>> steps.two.tolist(), steps.shares[3].tolist()
    ([114.0, 128.0, 142.0], [0.5, 0.5])
    """
    alone = torch.eye(len(masses), dtype=torch.float64)
    both = (alone[:, None] + alone).flatten(0, 1)
    one, shares_of_one = _grouped(masses, alone)
    two, shares_of_two = _grouped((masses[:, None] + masses).flatten(), both)
    shares = torch.cat([shares_of_one, shares_of_two])
    is_mass = torch.zeros(int((two[-1] + 1) * _BINS), dtype=torch.bool)
    width = int(_MOST * _BINS) + 2  # the masses of both nodes are rounded
    centre = (torch.cat([one, two]) * _BINS).round().long()
    near = centre[:, None] + torch.arange(-width, width + 1)
    is_mass[near.flatten()] = True
    return Steps(one, two, shares, is_mass)


def _grouped(masses: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Make one step of what weighs the same, and share it."""
    masses, order = masses.sort()
    is_other = masses.diff() > _SAME
    place = torch.nn.functional.pad(is_other.long().cumsum(dim=0), (1, 0))
    shares = torch.zeros(int(place[-1]) + 1, counts.shape[1], dtype=torch.float64)
    shares.index_add_(0, place, counts[order])
    is_first = torch.nn.functional.pad(is_other, (1, 0), value=True)
    return masses[is_first], shares / shares.sum(dim=1, keepdim=True)


def place_probabilities(peaks: Peaks, steps: Steps, n_places: int) -> Tensor:
    r"""Sum over the paths through the peaks.

    With :math:`w` the weight of an edge, :math:`\alpha_t(g)` that of all paths of t
    residues from nothing to a node, :math:`\beta(g)` that of all paths from there to
    the end, and r the residue of an edge:

    .. math::

        P(a_t = a) = \frac{1}{\beta(0)} \sum_{g \to h} \alpha_{t-1}(g)\, w_{gh}\,
        \beta(h)\, [r_{gh} = a], \qquad
        P(n < t) = \frac{1}{\beta(0)} \sum_{s < t} \alpha_s(M)

    A step of two residues is either of them in both of its places.

    Parameters
    ----------
    peaks : Peaks
        Spectra.
    steps : Steps
        Masses that paths advance by.
    n_places : int
        Places T, from the C-terminus.

    Returns
    -------
    Tensor, shape (batch, place, residue + 1)
        Probabilities, as far as a sum over paths has any; the last is that of a peptide
        which is over before the place.

    Examples
    --------
    >>> import torch
    >>> steps = steps_of(torch.tensor([57.0, 71.0], dtype=torch.float64))
    >>> mz = torch.tensor([[71.0 + WATER + PROTON]], dtype=torch.float64)
    >>> peaks = Peaks(mz, torch.ones(1, 1), torch.tensor([128.0]) + WATER, None)
    >>> place_probabilities(peaks, steps, 3)[0].round(decimals=2).tolist()
    [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    """
    mass, weight, is_end = _nodes(peaks, steps.one[:0])
    edges = _edges(mass, weight, steps)
    is_two = edges.step >= len(steps.one)
    single, double = edges.chosen(~is_two), edges.chosen(is_two)
    after = _weight_after(edges, mass, is_end, steps)
    before = [torch.zeros_like(after).view_as(mass)]
    before[0][:, 0] = 1.0
    before[0] = before[0].flatten()
    for place in range(1, n_places):
        reached = single.push(before[-1], after)
        if place > 1:
            reached = reached + double.push(before[-2], after)
        before.append(reached)
    alpha = torch.stack(before).view(n_places, *mass.shape).transpose(0, 1)
    earlier = alpha.roll(1, dims=1)
    earlier[:, 0] = 0.0
    found = alpha @ _onward(single, after, mass, steps)
    found = found + (alpha + earlier) @ _onward(double, after, mass, steps)
    over = (alpha * is_end.unsqueeze(1)).sum(dim=2).cumsum(dim=1)
    found = torch.cat([found, over.unsqueeze(2)], dim=2)
    total = after.view_as(mass)[:, 0]
    # A hundred high peaks in a row are too much for a float: then nothing is told.
    found = (found / total[:, None, None]).nan_to_num(0.0, posinf=0.0)
    return found.to(peaks.intensity.dtype)


def node_weights(peaks: Peaks, steps: Steps, terminal: Tensor) -> tuple[Tensor, Tensor]:
    r"""Weigh how paths go on from each node: :math:`\log (w_g\, \beta(g))`.

    Parameters
    ----------
    peaks : Peaks
        Spectra.
    steps : Steps
        Masses that paths advance by.
    terminal : Tensor of float64, shape (token,)
        Masses of N-terminal modifications: a path may end before any of them.

    Returns
    -------
    mass : Tensor of float64, shape (batch, node)
        Residue masses from the C-terminus, sorted, ``NOWHERE`` for no node.
    weight : Tensor of float64, shape (batch, node)
        Logarithm of the node's own weight times those of all paths onwards.

    Examples
    --------
    >>> import torch
    >>> steps = steps_of(torch.tensor([57.0, 71.0], dtype=torch.float64))
    >>> mz = torch.tensor([[71.0 + WATER + PROTON]], dtype=torch.float64)
    >>> peaks = Peaks(mz, torch.ones(1, 1), torch.tensor([128.0]) + WATER, None)
    >>> mass, weight = node_weights(peaks, steps, steps.one[:0])
    >>> mass[0].round(decimals=2).tolist(), weight[0].round(decimals=2).tolist()
    ([0.0, 38.99, 71.0, 128.0], [3.8, -3.4, 4.0, 0.0])
    """
    mass, weight, is_end = _nodes(peaks, terminal)
    edges = _edges(mass, weight, steps)
    after = _weight_after(edges, mass, is_end, steps).view_as(mass)
    return mass, (weight * after).clamp_max(_LARGEST).log()


def _nodes(peaks: Peaks, terminal: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Masses from the C-terminus, sorted, their weights, and whether it is an end."""
    whole = (peaks.precursor_mass - WATER).clamp_min(1.0).unsqueeze(1)
    ion = peaks.mz - PROTON
    mass = torch.cat([ion - WATER, whole - ion], dim=1)
    is_inside = mass.isfinite() & (mass > 0) & (mass < whole)
    mass = mass.where(is_inside, NOWHERE)
    ends = torch.cat([whole, whole - terminal], dim=1)
    # (batch, node): nothing, the ends, the peaks
    is_end = torch.nn.functional.pad(ends > 0, (1, mass.shape[1]))
    mass = torch.cat([torch.zeros_like(whole), ends.where(ends > 0, NOWHERE), mass], 1)
    largest = peaks.intensity.amax(dim=1, keepdim=True).clamp_min(1e-30)
    height = (peaks.intensity / largest).double()
    height = torch.cat([height, height], dim=1)
    height = torch.nn.functional.pad(height, (1 + ends.shape[1], 0))
    mass, order = mass.sort(dim=1)
    height, is_end = height.gather(1, order), is_end.gather(1, order)
    # The complement of a peak, if it is there, is the neighbour.
    is_close = mass.diff(dim=1) <= tolerance(mass[:, 1:])
    other = torch.zeros_like(height)
    other[:, 1:] = height[:, :-1] * is_close
    other[:, :-1] = torch.maximum(other[:, :-1], height[:, 1:] * is_close)
    weight = (_NODE + _HEIGHT * height + _COMPLEMENT * other).exp()
    return mass, weight.where(~is_end, 1.0), is_end


def _edges(mass: Tensor, weight: Tensor, steps: Steps) -> _Edges:
    """Pairs of nodes that are one or two residues apart."""
    n_nodes = mass.shape[1]
    # Only so many nodes behind one are within two residues of it.
    behind_it = torch.searchsorted(mass, mass + (steps.two[-1] + 1))
    behind_it = behind_it - torch.arange(n_nodes, device=mass.device)
    n_near = max(int((behind_it * (mass < NOWHERE)).max()), 1)
    place = (mass.clamp_max(10 * NOWHERE) * _BINS).round().int()
    far_off = torch.iinfo(place.dtype).max
    behind = torch.nn.functional.pad(place, (0, n_near), value=far_off)
    behind = behind.unfold(1, n_near, 1)[:, :n_nodes]
    apart = behind - place.unsqueeze(2)  # (batch, source, how far behind)
    # Most pairs are sorted out by the table; no step is near its first and last bin.
    is_near = steps.is_mass[apart.clamp_(0, len(steps.is_mass) - 1)]
    row, source, further = is_near.nonzero(as_tuple=True)
    source = row * n_nodes + source
    target = source + further
    flat, weight = mass.flatten(), weight.flatten()
    apart, allowed = flat[target] - flat[source], tolerance(flat[target])
    parts = []
    for first, masses in ((0, steps.one), (len(steps.one), steps.two)):
        step = _nearest(masses, apart)
        closeness = 1 - (apart - masses[step]).abs() / allowed
        there = closeness > 0
        edge = _Edges(source, target, closeness * weight[target], first + step)
        parts.append(edge.chosen(there))
    one, two = parts
    two = two._replace(weight=two.weight * math.exp(_TWO))
    return _Edges(*(torch.cat(pair) for pair in zip(one, two, strict=True)))


def _weight_after(edges: _Edges, mass: Tensor, is_end: Tensor, steps: Steps) -> Tensor:
    """Weights of all paths from each node onwards, flattened."""
    ends = is_end.double() + (mass < NOWHERE) * math.exp(_LOST)
    longest = min(int(mass[is_end].max() / steps.one[0]) + 1, mass.shape[1])
    backward = edges._replace(source=edges.target, target=edges.source)
    newest = total = ends.flatten()
    for _ in range(longest):
        newest = backward.push(newest, total)
        total = total + newest
    return total


def _onward(edges: _Edges, after: Tensor, mass: Tensor, steps: Steps) -> Tensor:
    """Weights of all paths that leave a node with a residue (batch, node, residue)."""
    weight = edges.weight * after[edges.target]
    n_residues = steps.shares.shape[1]
    made = steps.shares.new_zeros((mass.numel(), n_residues))
    made.index_add_(0, edges.source, weight.unsqueeze(1) * steps.shares[edges.step])
    return made.view(*mass.shape, n_residues)


def _nearest(masses: Tensor, query: Tensor) -> Tensor:
    right = torch.searchsorted(masses, query).clamp_max(len(masses) - 1)
    left = (right - 1).clamp_min(0)
    is_left = (query - masses[left]).abs() <= (masses[right] - query).abs()
    return torch.where(is_left, left, right)


def tolerance(mass: Tensor) -> Tensor:
    """How far off nodes of a mass may be, in Da."""
    return (mass * _PPM).clamp(_LEAST, _MOST)
