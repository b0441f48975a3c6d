r"""Counts of symbols after contexts of every length, and the probabilities from them.

Axis legend: n rows, m length of a context (0 to the order M), V symbols. A context of m
symbols is known by a number, found from the number of its m - 1 most recent symbols and
the symbol before these, so that any order and any number of symbols fit into 64 bits.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["STRENGTHS", "ContextCounts", "Level", "mixed"]

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

STRENGTHS = tuple(float(10.0**power) for power in np.arange(-2, 3.25, 0.25))
"""Strengths of smoothing to choose from, 0.01 to 1000."""

_MOST_SWEEPS = 5


class Level(NamedTuple):
    """Contexts of one length m.

    Parameters
    ----------
    keys : ndarray
        Rising keys of the contexts that were seen; a context's number is its place.
    totals : ndarray
        How often a symbol followed each.
    pairs : ndarray
        Rising keys, number times V plus symbol, of what followed.
    counts : ndarray
        How often.
    """

    keys: IntArray
    totals: IntArray
    pairs: IntArray
    counts: IntArray


class ContextCounts:
    r"""Which symbols followed which contexts.

    .. math:: p_m(x \mid c) = \frac{n(c, x) + \alpha_m\, p_{m-1}(x \mid c')}
                                  {n(c) + \alpha_m},
              \qquad p_{-1} = \tfrac1V

    where the context :math:`c'` lacks the oldest symbol of :math:`c`. A context that
    was never seen changes nothing. Without interpolation only the longest contexts
    count, :math:`(n(c, x) + \alpha_M / V) / (n(c) + \alpha_M)`.

    Parameters
    ----------
    levels : sequence of Level
        Contexts of length 0, 1, ..., M.
    n_symbols : int
        Number V of symbols that may follow. The number V itself stands for the place
        before the start.
    interpolates : bool, default=True
        Whether shorter contexts complete the longest.
    """

    def __init__(
        self, levels: Sequence[Level], n_symbols: int, *, interpolates: bool = True
    ) -> None:
        self.levels = [Level(*level) for level in levels]
        self.n_symbols = n_symbols
        self.interpolates = interpolates

    @property
    def order(self) -> int:
        """Length M of the longest contexts."""
        return len(self.levels) - 1

    @classmethod
    def of(
        cls,
        contexts: IntArray,
        symbols: IntArray,
        n_symbols: int,
        *,
        interpolates: bool = True,
    ) -> "ContextCounts":
        """Count which symbols (n,) followed contexts (n, M), most recent first."""
        V = n_symbols
        number = np.zeros(len(symbols), dtype=np.int64)
        keys = np.zeros(1, dtype=np.int64)
        levels = []
        for m in range(contexts.shape[1] + 1):
            if m:
                keys, number = np.unique(
                    number * (V + 1) + contexts[:, m - 1], return_inverse=True
                )
            pairs, counts = np.unique(number * V + symbols, return_counts=True)
            totals = np.bincount(number, minlength=len(keys)).astype(np.int64)
            levels.append(Level(keys, totals, pairs, counts.astype(np.int64)))
        return cls(levels, V, interpolates=interpolates)

    def tallies(
        self, contexts: IntArray, symbols: IntArray
    ) -> tuple[IntArray, IntArray]:
        """Return n(c, x) and n(c) of every length used, both (lengths, n)."""
        counts, totals = [], []
        for level, number in self._used(contexts):
            at, is_found = _places(level.pairs, number * self.n_symbols + symbols)
            counts.append(np.where(is_found, level.counts[at], 0))
            totals.append(_totals(level, number))
        return np.stack(counts), np.stack(totals)

    def probability(
        self, contexts: IntArray, symbols: IntArray, strengths: npt.ArrayLike
    ) -> FloatArray:
        """Return the probability of symbols (n,) after contexts (n, M)."""
        tallies = self.tallies(contexts, symbols)
        return mixed(*tallies, self._per_level(strengths), self.n_symbols)

    def best_strengths(self, contexts: IntArray, symbols: IntArray) -> FloatArray:
        """Choose the strength of each length by the likelihood of other data.

        First from short contexts to long ones, each with the chain that ends there;
        then one at a time with all others fixed, until none gets better.
        """
        counts, totals = self.tallies(contexts, symbols)

        best = np.ones(len(counts))

        def improve(m: int, until: int) -> None:
            def score(strength: float) -> float:
                tried = np.where(np.arange(until) == m, strength, best[:until])
                p = mixed(counts[:until], totals[:until], tried, self.n_symbols)
                return float(np.log(p).sum())

            best[m] = max(STRENGTHS, key=score)

        for m in range(len(best)):
            improve(m, m + 1)
        for _ in range(_MOST_SWEEPS):
            before = best.copy()
            for m in range(len(best)):
                improve(m, len(best))
            if np.array_equal(best, before):
                break
        return best

    def distribution(self, contexts: IntArray, strengths: npt.ArrayLike) -> FloatArray:
        """Return the probabilities (n, V) of all symbols after contexts (n, M)."""
        V = self.n_symbols
        p = np.full((1, V), 1 / V)
        used = self._used(contexts)
        alphas = self._per_level(strengths)
        for (level, number), strength in zip(used, alphas, strict=True):
            if level is self.levels[0]:
                number = number[:1]  # the empty context is the same in all rows
            total = _totals(level, number) + strength
            p = p * (strength / total)[:, None]
            # What followed a context stands side by side: rows of a sparse matrix.
            start = np.searchsorted(level.pairs, number * V)
            end = np.searchsorted(level.pairs, (number + 1) * V)
            length = end - start
            row = np.repeat(np.arange(len(p)), length)
            offset = np.arange(len(row)) - np.repeat(np.cumsum(length) - length, length)
            at = np.repeat(start, length) + offset
            p[row, level.pairs[at] % V] += level.counts[at] / total[row]
        return np.broadcast_to(p, (len(contexts), V))

    def _per_level(self, strengths: npt.ArrayLike) -> FloatArray:
        n_used = len(self.levels) if self.interpolates else 1
        return np.broadcast_to(np.asarray(strengths, dtype=np.float64), (n_used,))

    def _used(self, contexts: IntArray) -> list[tuple[Level, IntArray]]:
        """Levels that count, with the number of each context (n,).

        A context that was not seen has the number -1. No pair has a key that low.
        """
        number = np.zeros(len(contexts), dtype=np.int64)
        found = [(self.levels[0], number)]
        for m, level in enumerate(self.levels[1:]):
            at, is_found = _places(
                level.keys, number * (self.n_symbols + 1) + contexts[:, m]
            )
            number = np.where(is_found, at, -1)
            found.append((level, number))
        return found if self.interpolates else found[-1:]


def mixed(
    counts: IntArray, totals: IntArray, strengths: FloatArray, n_symbols: int
) -> FloatArray:
    """Return probabilities (n,) from tallies (lengths, n), shortest contexts first."""
    p = np.full(counts.shape[1], 1 / n_symbols)
    for count, total, strength in zip(counts, totals, strengths, strict=True):
        p = (count + strength * p) / (total + strength)
    return p


def _totals(level: Level, number: IntArray) -> IntArray:
    return np.where(number >= 0, level.totals[number], 0)


def _places(keys: IntArray, wanted: IntArray) -> tuple[IntArray, npt.NDArray[np.bool_]]:
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return at, keys[at] == wanted
