r"""Precise mass control: the most probable CTC path of a peptide of the right mass.

The search goes over the positions of the path. What is known after t positions is the
mass that remains and the last symbol; of what agrees in both only the best is kept. A
coarse dynamic program from the other end tells for each position, last symbol and
nominal mass that remains, how probable the rest of the path can be at best, so that
most of what cannot win is never followed.

Axes: ``batch``, ``position`` (T), ``symbol`` (S, the blank among them), ``nominal``
(remaining masses, rounded), ``state`` (kept by the search).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sciseq.errors import DataQualityError, InputError
from sciseq.sequencing.mass_bounds import (
    PathBounds,
    PathSymbols,
    PathTargets,
    SequenceBounds,
)
from sciseq.sequencing.mass_table import mass_tolerance, mass_units, tolerance_units
from sciseq.sequencing.masses import C13, WATER

__all__ = ["MassControlledPaths", "most_probable_paths"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

# What a path may lose against the bound: first nothing, which is fast, and in the end
# anything. The bounds are float32, hence the slack.
_LOSSES = (0.0, 1.5, 6.0, np.inf)
_SLACK = 1e-2
# Remaining masses are below 2**45 nanodaltons, 35 kDa. States are ranked by how far
# they stay behind the best, in steps of 1/1024 up to 1024.
_REMAINING_BITS = 45
_HOPE_BITS, _HOPE_STEPS = 20, 1024
_HOPE_MOST = 2**_HOPE_BITS - 1
# Spectra that are searched together; their bounds take about 8 MB each.
_TOGETHER = 8


class MassControlledPaths(NamedTuple):
    """The most probable path of the right mass for each spectrum.

    Parameters
    ----------
    paths : ndarray of int64, shape (batch, position)
        Symbols; blanks where no path was found.
    scores : ndarray of float64, shape (batch,)
        Log-probabilities of the paths; minus infinity where no path was found.
    is_exact : ndarray of bool, shape (batch,)
        True where nothing was left out: the path is the best one, or there is none.
    """

    paths: IntArray
    scores: FloatArray
    is_exact: BoolArray


def most_probable_paths(
    log_probs: npt.ArrayLike,
    neutral_masses: npt.ArrayLike,
    masses: npt.ArrayLike,
    *,
    blank: int,
    is_terminal: npt.ArrayLike | None = None,
    excluded: Sequence[int] = (),
    ppm: float = 20.0,
    absolute: float = 0.0,
    isotopes: tuple[int, int] = (0, 0),
    bin_width: float = 0.02,
    entries_per_bin: int = 3,
    max_states: int = 2048,
    is_merging: bool = True,
) -> MassControlledPaths:
    r"""Find the most probable path whose peptide has the measured mass.

    .. math::

        \hat\pi = \arg\max_\pi \sum_t \log p_t(\pi_t) \quad \text{with} \quad
        |M - 18.010565 - k \cdot 1.003355 - \sum_i m(y_i)| \le tol

    where y is the sequence of the path (equal neighbours merged, blanks dropped) and k
    some number of additional neutrons in the measured precursor.

    Parameters
    ----------
    log_probs : array-like of shape (batch, position, symbol)
        Log-probabilities.
    neutral_masses : array-like of shape (batch,)
        Measured neutral masses M in Da.
    masses : array-like of shape (symbol,)
        Mass of each symbol in Da, positive for residues; the blank may be missing when
        it is the last one, its mass is not read.
    blank : int
        Symbol that stands for nothing.
    is_terminal : array-like of bool of shape (symbol,), optional
        Modifications of a terminus, of any sign: at most one in a sequence, behind all
        residues (C-terminus first). None when None.
    excluded : sequence of int, default ()
        Symbols that are never used.
    ppm : float, default 20.0
        Relative tolerance, in millionths of M.
    absolute : float, default 0.0
        Added to the tolerance, in Da.
    isotopes : tuple of int, default (0, 0)
        Smallest and largest k.
    bin_width : float, default 0.02
        Width in Da of the bins of remaining masses.
    entries_per_bin : int, default 3
        States kept after each position in one bin: pairs of mass and last symbol.
    max_states : int, default 2048
        States kept after each position for one spectrum.
    is_merging : bool, default True
        Whether equal neighbours are one symbol, and blanks stand anywhere. With False y
        is what stands before the first blank, symbol by symbol, and only blanks follow.

    Returns
    -------
    MassControlledPaths
        Paths, scores and whether the search was exact.

    Raises
    ------
    InputError
        When shapes disagree or a number is out of range.
    DataQualityError
        When a log-probability is NaN or plus infinity.

    Notes
    -----
    Card: peptide §8 (PrimeNovo). Deviations: masses are exact, in whole nanodaltons,
    the tolerance is extended by 1e-7 Da for their rounding; several states are kept per
    bin; what is kept is chosen with a bound of what is to come.

    Examples
    --------
    The best path AA has the wrong mass, AB the right one:

    >>> log_probs = np.log([[[0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0.1, 0.1, 0.8]]])
    >>> M = 57.021464 + 71.037114 + 18.010565
    >>> found = most_probable_paths(log_probs, [M], [57.021464, 71.037114], blank=2)
    >>> found.paths.tolist(), found.is_exact.tolist()
    ([[0, 1, 2]], [True])
    """
    scores = np.asarray(log_probs, dtype=np.float64)
    M = np.asarray(neutral_masses, dtype=np.float64)
    symbols = PathSymbols.read(masses, is_terminal, excluded, blank, scores.shape)
    _check_search(scores, M, isotopes, (bin_width, entries_per_bin, max_states))
    tolerance = tolerance_units(mass_tolerance(M, ppm=ppm, absolute=absolute))
    shifts = mass_units(np.arange(isotopes[0], isotopes[1] + 1) * C13)
    bin_units = mass_units(bin_width).item()
    limits = _Limits(bin_units, entries_per_bin, max_states, is_merging)
    scores = np.where(symbols.is_excluded, -np.inf, scores)
    paths = np.full(scores.shape[:2], blank, dtype=np.int64)
    totals, is_exact = np.full(len(M), -np.inf), np.ones(len(M), dtype=np.bool_)
    # Neighbours in mass share the size of their bounds.
    order = np.argsort(M, kind="stable")
    for first in range(0, len(M), _TOGETHER):
        rows = order[first : first + _TOGETHER]
        target = PathTargets(mass_units(M[rows] - WATER), tolerance[rows], shifts)
        found = _search_chunk(scores[rows], target, symbols, limits)
        paths[rows], totals[rows], is_exact[rows] = found
    return MassControlledPaths(paths, totals, is_exact)


class _Limits(NamedTuple):
    bin_units: int
    entries_per_bin: int
    max_states: int
    is_merging: bool


@dataclass(frozen=True)
class _States:
    """States of all spectra after some positions, each array of shape (state,)."""

    item: IntArray
    remaining: IntArray
    last: IntArray  # symbol, or blank without merging; one more: a blank that stays
    score: FloatArray
    parent: IntArray  # place among the states before
    symbol: IntArray

    def take(self, places: Any) -> "_States":
        return _States(
            self.item[places],
            self.remaining[places],
            self.last[places],
            self.score[places],
            self.parent[places],
            self.symbol[places],
        )


def _search_chunk(
    scores: FloatArray, targets: PathTargets, symbols: PathSymbols, limits: _Limits
) -> tuple[IntArray, FloatArray, BoolArray]:
    """Search with a growing allowance until every spectrum has a path."""
    n_batch, n_positions, _ = scores.shape
    make_bounds = PathBounds if limits.is_merging else SequenceBounds
    bounds = make_bounds(scores, targets, symbols)
    everything = np.arange(n_batch)
    start = bounds(0, np.full(n_batch, symbols.blank), everything, targets.units)
    paths = np.full((n_batch, n_positions), symbols.blank, dtype=np.int64)
    totals, is_exact = np.full(n_batch, -np.inf), np.ones(n_batch, dtype=np.bool_)
    open_items = np.flatnonzero(start > -np.inf)
    for loss in _LOSSES:
        # Where a small allowance was too much already, only the last one is tried.
        items = open_items[is_exact[open_items] | (loss == np.inf)]
        search = _Search(scores, targets, symbols, limits, bounds, start - loss)
        for item, path, score in search.run(items):
            paths[item], totals[item] = path, score
        is_exact[items] = ~search.is_cut[items]
        open_items = open_items[totals[open_items] == -np.inf]
        if not len(open_items):
            break
    return paths, totals, is_exact


class _Search:
    """One search for all paths whose score reaches a threshold."""

    def __init__(
        self,
        scores: FloatArray,
        targets: PathTargets,
        symbols: PathSymbols,
        limits: _Limits,
        bounds: PathBounds,
        threshold: FloatArray,
    ) -> None:
        self.scores = scores
        self.targets = targets
        self.symbols = symbols
        self.limits = limits
        self.bounds = bounds
        self.threshold = threshold - _SLACK
        self.is_cut = np.zeros(len(scores), dtype=np.bool_)

    def run(self, items: IntArray) -> Iterator[tuple[int, IntArray, float]]:
        """Yield number, path and score of the spectra that have a path."""
        zeros, blanks = np.zeros_like(items), np.full_like(items, self.symbols.blank)
        score = np.zeros(len(items))
        remaining = self.targets.units[items]
        states = _States(items, remaining, blanks, score, zeros, blanks)
        history = []
        for t in range(self.scores.shape[1]):
            states = self._keep(*self._extend(states, t))
            history.append(states)
        places = np.flatnonzero(self.targets.is_met(states.item, states.remaining))
        places = places[np.lexsort((-states.score[places], states.item[places]))]
        place = places[_rank(states.item[places]) == 0]
        items, totals = states.item[place], states.score[place]
        path = np.empty((len(place), len(history)), dtype=np.int64)
        for t in range(len(history) - 1, -1, -1):
            path[:, t] = history[t].symbol[place]
            place = history[t].parent[place]
        for item, one, total in zip(items, path, totals, strict=True):
            yield int(item), one, float(total)

    def _extend(self, states: _States, t: int) -> tuple[_States, FloatArray]:
        """Let every state read position ``t``; states that can win, and their hopes."""
        symbols, n_symbols = self.symbols, self.scores.shape[2]
        every, item = np.arange(n_symbols), states.item
        # (state, symbol)
        score = states.score[:, None] + self.scores[item, t]
        hope = score + self.bounds.without_mass[item, t + 1][:, None]
        is_new = np.broadcast_to(every != symbols.blank, score.shape)
        if self.limits.is_merging:
            is_new = is_new & (every != states.last[:, None])
        is_closed = np.append(symbols.is_terminal, True)[states.last]
        may = (hope > self.threshold[item][:, None]) & ~(is_closed[:, None] & is_new)
        parent, symbol = np.nonzero(may)
        score, item = score[parent, symbol], item[parent]
        taken = np.where(is_new[parent, symbol], symbols.units[symbol], 0)
        remaining = states.remaining[parent] - taken
        is_blank = symbol == symbols.blank
        if self.limits.is_merging:
            hope = score + self.bounds(t + 1, symbol, item, remaining)
            last = np.where(is_closed[parent] & is_blank, n_symbols, symbol)
        else:  # what stands last does not matter
            is_over = is_blank | symbols.is_terminal[symbol]
            last = np.where(is_over, n_symbols, symbols.blank)
            hope = score + self.bounds(t + 1, last, item, remaining)
        new = _States(item, remaining, last, score, parent, symbol)
        places = np.flatnonzero(hope > self.threshold[item])
        return new.take(places), hope[places]

    def _keep(self, states: _States, hope: FloatArray) -> _States:
        """Of equal states keep the best, of each bin and spectrum the best few."""
        item, remaining = states.item, states.remaining
        remaining = remaining - remaining.min(initial=0)
        # One whole number per state: sorting it is far faster than sorting by columns.
        last = states.last + (self.scores.shape[2] + 1) * item
        places = _best_of_equal(remaining + (last << _REMAINING_BITS), states.score)
        behind = np.clip((hope.max(initial=0.0) - hope) * _HOPE_STEPS, 0, _HOPE_MOST)
        number = behind.astype(np.int64)
        bins = remaining // self.limits.bin_units
        bins += item * (bins.max(initial=0) + 1)
        places = self._cut(item, places, bins, number, self.limits.entries_per_bin)
        places = self._cut(item, places, item, number, self.limits.max_states)
        return states.take(places)

    def _cut(
        self,
        item: IntArray,
        places: IntArray,
        group: IntArray,
        number: IntArray,
        n: int,
    ) -> IntArray:
        """Keep of each group the ``n`` places with the lowest numbers."""
        key = (group[places] << _HOPE_BITS) + number[places]
        order = np.argsort(key)
        stays = _rank(key[order] >> _HOPE_BITS) < n
        self.is_cut[item[places[order[~stays]]]] = True
        return np.asarray(places[order[stays]])


def _best_of_equal(key: IntArray, score: FloatArray) -> IntArray:
    """Return the place of the best score for each key."""
    if not len(key):
        return np.empty(0, dtype=np.int64)
    order = np.argsort(key)
    rank = _rank(key[order])
    starts = np.flatnonzero(rank == 0)
    best = np.maximum.reduceat(score[order], starts)
    group = np.cumsum(rank == 0) - 1
    is_best = np.flatnonzero(score[order] == best[group])
    return np.asarray(order[is_best[_rank(group[is_best]) == 0]])


def _rank(values: IntArray) -> IntArray:
    """Count from 0 within runs of equal values."""
    number = np.arange(len(values))
    starts = np.ones(len(values), dtype=np.bool_)
    starts[1:] = values[1:] != values[:-1]
    return np.asarray(number - np.maximum.accumulate(np.where(starts, number, 0)))


def _check_search(
    scores: FloatArray,
    M: FloatArray,
    isotopes: tuple[int, int],
    limits: tuple[float, int, int],
) -> None:
    bin_width, entries_per_bin, max_states = limits
    if M.shape != scores.shape[:1] or isotopes[0] > isotopes[1]:
        raise InputError(
            f"log_probs has shape {scores.shape}, neutral_masses {M.shape} and "
            f"isotopes is {isotopes}; one mass per row and ascending isotopes are "
            "needed",
            where="most_probable_paths",
        )
    if not (bin_width >= 1e-6 and min(entries_per_bin, max_states) >= 1):
        raise InputError(
            f"bin_width is {bin_width}, entries_per_bin {entries_per_bin} and "
            f"max_states {max_states}; at least 1e-6, 1 and 1 are needed",
            where="most_probable_paths",
        )
    is_bad = ~(scores < np.inf)
    if is_bad.any():
        raise DataQualityError(
            "log_probs holds NaN or plus infinity",
            where=f"row {int(np.argmax(is_bad.any(axis=(1, 2))))}",
        )
