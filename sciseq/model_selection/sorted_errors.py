"""Many sorted samples of errors, each of which takes one value in and lets one go.

Axis legend: G samples, N values of each, Q levels.
"""

import numpy as np

from sciseq.data.panel import FloatArray
from sciseq.model_selection.time_axis import IntArray

__all__ = ["SortedErrors", "ranked_quantiles"]


def ranked_quantiles(
    ordered: FloatArray, count: IntArray, levels: FloatArray
) -> FloatArray:
    """Quantiles of errors by their ranks out of n + 1, as conformal prediction has it.

    The k-th of n errors covers k / (n + 1): the correction that makes the coverage of
    exchangeable errors at least nominal.

    Parameters
    ----------
    ordered : ndarray of shape (..., N)
        Errors in rising order; what comes after the first ``count`` is not looked at.
    count : ndarray of shape (...)
        Number n of errors.
    levels : ndarray of shape (..., Q)
        Levels, for each set of errors its own. Outside of what ranks reach the
        smallest or largest error counts.

    Returns
    -------
    ndarray of shape (..., Q)
        NaN where there is no error at all.

    Examples
    --------
    >>> errors, n = np.array([1.0, 2.0, 3.0]), np.array(3)
    >>> ranked_quantiles(errors, n, np.array([0.25, 0.5, 0.9]))
    array([1., 2., 3.])
    """
    count = count[..., None]
    last = np.maximum(count - 1, 0)
    rank = np.clip(levels * (count + 1) - 1, 0, last)
    below = np.floor(rank).astype(np.int64)
    low, high = (
        np.where(count > 0, np.take_along_axis(ordered, place, axis=-1), np.nan)
        for place in (below, np.minimum(below + 1, last))
    )
    return np.asarray(low + (high - low) * (rank - below))


class SortedErrors:
    """G sorted samples.

    Parameters
    ----------
    values : ndarray of shape (G, K)
        Values to begin with; NaN is no value.

    Attributes
    ----------
    ordered : ndarray of shape (G, N)
        Each sample in rising order, filled up with infinity.
    count : ndarray of shape (G,)
        Values of each sample.
    """

    def __init__(self, values: FloatArray) -> None:
        values = np.pad(values, [(0, 0), (0, 1)], constant_values=np.nan)
        self.ordered = np.sort(np.where(np.isnan(values), np.inf, values), axis=1)
        self.count = np.isfinite(self.ordered).sum(axis=1)

    def replace(self, samples: IntArray, old: FloatArray, new: FloatArray) -> None:
        """Take a value out of some samples, and another in.

        Parameters
        ----------
        samples : ndarray of int, shape (m,)
            Positions of the samples.
        old, new : ndarray of shape (m,)
            Values to go and to come; NaN is none.
        """
        old, new = (np.where(np.isnan(one), np.inf, one) for one in (old, new))
        is_new, was_old = np.isfinite(new), np.isfinite(old)
        if (is_new & ~was_old & (self.count[samples] == self.ordered.shape[1])).any():
            self._make_room()
        self.count[samples] += is_new.astype(np.int64) - was_old
        both = self._places(np.tile(samples, 2), np.concatenate([old, new]))
        leaves, enters = both.reshape(2, -1).tolist()
        for sample, one, a, b in zip(
            samples.tolist(), new.tolist(), leaves, enters, strict=True
        ):
            row = self.ordered[sample]
            if a < b:
                row[a : b - 1] = row[a + 1 : b]
                row[b - 1] = one
            elif a < len(row):
                row[b + 1 : a + 1] = row[b:a]
                row[b] = one

    def _places(self, samples: IntArray, values: FloatArray) -> IntArray:
        """First position of each sample that holds no less than a value."""
        length = self.ordered.shape[1]
        place = np.zeros(len(samples), dtype=np.int64)
        # Steps of 2^k down to 1, each taken where what lies before is still less.
        for power in reversed(range(length.bit_length())):
            ahead = place + (1 << power)
            before = self.ordered[samples, np.minimum(ahead, length) - 1]
            place = np.where((ahead <= length) & (before < values), ahead, place)
        return place

    def _make_room(self) -> None:
        more = np.full((len(self.ordered), self.ordered.shape[1] + 64), np.inf)
        self.ordered = np.concatenate([self.ordered, more], axis=1)
