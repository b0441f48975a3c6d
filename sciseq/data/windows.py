"""Windows over a panel: one joined table, and where each window starts.

Axis legend: n windows, L lookback, H horizon, C columns, M calendar features.
A window is the rows ``start ... start + L + H - 1`` of the joined table and never
crosses from one series into the next. Windows are gathered by index when needed:
nothing is copied beforehand.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from sciseq.data.panel import FloatArray

__all__ = ["WindowSet", "window_starts"]

IntArray = npt.NDArray[np.int64]


def window_starts(
    lengths: npt.ArrayLike, lookback: int, horizon: int, *, stride: int = 1
) -> IntArray:
    """First rows, in the joined table, of all windows of every series.

    Parameters
    ----------
    lengths : array-like of int
        Rows of each series.
    lookback, horizon : int
        Rows before and after the origin.
    stride : int, default=1
        Rows between neighbouring windows of a series.

    Returns
    -------
    ndarray of shape (n_windows,)

    Examples
    --------
    >>> window_starts([4, 2, 3], lookback=2, horizon=1).tolist()
    [0, 1, 6]
    """
    sizes = np.asarray(lengths, dtype=np.int64)
    offsets = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    parts = [
        np.arange(offset, offset + size - lookback - horizon + 1, stride)
        for offset, size in zip(offsets, sizes, strict=True)
    ]
    return np.concatenate(parts).astype(np.int64)


@dataclass(frozen=True)
class WindowSet:
    """All windows of a panel.

    Parameters
    ----------
    values : ndarray of shape (n_rows, C)
        The series one after the other; NaN marks a missing value.
    starts : ndarray of shape (n,)
        First row of each window.
    lookback, horizon : int
        L and H.
    marks : ndarray of shape (n_rows, M), or None
        Calendar features of each row.
    """

    values: FloatArray
    starts: IntArray
    lookback: int
    horizon: int
    marks: npt.NDArray[np.float32] | None = None

    @classmethod
    def over(
        cls,
        series: Sequence[FloatArray],
        lookback: int,
        horizon: int,
        *,
        marks: Sequence[npt.NDArray[np.float32]] | None = None,
        stride: int = 1,
    ) -> "WindowSet":
        """All windows of the given series."""
        lengths = [len(values) for values in series]
        return cls(
            values=np.concatenate(list(series)) if len(series) > 1 else series[0],
            starts=window_starts(lengths, lookback, horizon, stride=stride),
            lookback=lookback,
            horizon=horizon,
            marks=None if marks is None else np.concatenate(list(marks)),
        )

    def __len__(self) -> int:
        return len(self.starts)

    def inputs(self, windows: IntArray | slice) -> FloatArray:
        """Look-back rows of some windows, of shape (n, L, C)."""
        return np.asarray(self.values[self._rows(windows, 0, self.lookback)])

    def input_marks(self, windows: IntArray | slice) -> npt.NDArray[np.float32] | None:
        """Calendar features of the look-back rows, of shape (n, L, M), or None."""
        if self.marks is None:
            return None
        return np.asarray(self.marks[self._rows(windows, 0, self.lookback)])

    def targets(self, windows: IntArray | slice) -> FloatArray:
        """Rows of the horizon of some windows, of shape (n, H, C)."""
        stop = self.lookback + self.horizon
        return np.asarray(self.values[self._rows(windows, self.lookback, stop)])

    def chunks(self, size: int) -> Iterator[slice]:
        """Slices that cover all windows, ``size`` at a time."""
        for start in range(0, len(self), size):
            yield slice(start, min(start + size, len(self)))

    def evenly(self, count: int) -> "WindowSet":
        """At most ``count`` windows, evenly spread."""
        if len(self) <= count:
            return self
        chosen = np.linspace(0, len(self) - 1, count).round().astype(np.int64)
        return replace(self, starts=self.starts[chosen])

    def _rows(self, windows: IntArray | slice, start: int, stop: int) -> IntArray:
        return self.starts[windows][:, None] + np.arange(start, stop)
