"""Windows over a panel: one joined table, and where each window starts.

Axis legend: n windows, L lookback, H horizon, C columns, M calendar features,
K channels that are known ahead. A window is the rows ``start ... start + L + H - 1``
of the joined table and never crosses from one series into the next. Windows are
gathered by index when needed: nothing is copied beforehand.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from sciseq.data.panel import FloatArray

__all__ = ["WindowInputs", "WindowSet", "window_starts"]

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
class WindowInputs:
    """What a forecaster may look at to forecast some windows.

    Parameters
    ----------
    values : ndarray of shape (n, L, C)
        Look-back rows, all columns of the table; NaN marks a missing value.
    marks : ndarray of shape (n, L, M), or None
        Calendar features of the look-back rows.
    known : ndarray of shape (n, H, K), or None
        What is known ahead at the rows of the horizon: future covariates, then
        calendar features.
    series : ndarray of shape (n,), or None
        Position of the series that each window belongs to.
    """

    values: FloatArray
    marks: npt.NDArray[np.float32] | None = None
    known: FloatArray | None = None
    series: IntArray | None = None

    def __len__(self) -> int:
        return len(self.values)

    def take(self, windows: IntArray | slice) -> "WindowInputs":
        """Return the inputs of some of the windows."""
        return WindowInputs(
            self.values[windows],
            None if self.marks is None else self.marks[windows],
            None if self.known is None else self.known[windows],
            None if self.series is None else self.series[windows],
        )


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
        Calendar features of each row, read in the look-back.
    lengths : ndarray of shape (n_series,), optional
        Rows of each series; by default one series holds them all.
    known_columns : tuple of int, default=()
        Columns whose values at the rows of the horizon are known ahead.
    future_marks : ndarray of shape (n_rows, K'), or None
        Calendar features of each row, read at the rows of the horizon.
    weights : ndarray of shape (n_rows,), or None
        Weight of each row as a truth.
    """

    values: FloatArray
    starts: IntArray
    lookback: int
    horizon: int
    marks: npt.NDArray[np.float32] | None = None
    lengths: IntArray | None = None
    known_columns: tuple[int, ...] = ()
    future_marks: npt.NDArray[np.float32] | None = None
    weights: FloatArray | None = None

    @classmethod
    def over(
        cls,
        series: Sequence[FloatArray],
        lookback: int,
        horizon: int,
        *,
        marks: Sequence[npt.NDArray[np.float32]] | None = None,
        known_columns: Sequence[int] = (),
        future_marks: Sequence[npt.NDArray[np.float32]] | None = None,
        weights: Sequence[FloatArray] | None = None,
        stride: int = 1,
    ) -> "WindowSet":
        """All windows of the given series."""
        lengths = np.array([len(values) for values in series], dtype=np.int64)
        return cls(
            values=np.concatenate(list(series)) if len(series) > 1 else series[0],
            starts=window_starts(lengths, lookback, horizon, stride=stride),
            lookback=lookback,
            horizon=horizon,
            marks=None if marks is None else np.concatenate(list(marks)),
            lengths=lengths,
            known_columns=tuple(int(one) for one in known_columns),
            future_marks=None
            if future_marks is None
            else np.concatenate(list(future_marks)),
            weights=None if weights is None else np.concatenate(list(weights)),
        )

    def __len__(self) -> int:
        return len(self.starts)

    def inputs(self, windows: IntArray | slice) -> WindowInputs:
        """Return what may be looked at to forecast some windows."""
        rows = self._rows(windows, 0, self.lookback)
        return WindowInputs(
            values=np.asarray(self.values[rows]),
            marks=None if self.marks is None else np.asarray(self.marks[rows]),
            known=self.known(windows),
            series=self.series_of(windows),
        )

    def known(self, windows: IntArray | slice) -> FloatArray | None:
        """Return what is known ahead of some windows, (n, H, K), or None."""
        if not self.known_columns and self.future_marks is None:
            return None
        rows = self._horizon_rows(windows)
        parts = [self.values[rows][..., list(self.known_columns)]]
        if self.future_marks is not None:
            parts.append(self.future_marks[rows].astype(np.float64))
        return np.concatenate(parts, axis=2)

    def targets(self, windows: IntArray | slice) -> FloatArray:
        """Rows of the horizon of some windows, of shape (n, H, C)."""
        return np.asarray(self.values[self._horizon_rows(windows)])

    def target_weights(self, windows: IntArray | slice) -> FloatArray | None:
        """Weights of the rows of the horizon, of shape (n, H), or None."""
        if self.weights is None:
            return None
        return np.asarray(self.weights[self._horizon_rows(windows)])

    def series_of(self, windows: IntArray | slice) -> IntArray:
        """Position of the series of some windows, of shape (n,)."""
        starts = self.starts[windows]
        if self.lengths is None:
            return np.zeros(len(starts), dtype=np.int64)
        return np.searchsorted(np.cumsum(self.lengths), starts, side="right")

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

    def _horizon_rows(self, windows: IntArray | slice) -> IntArray:
        return self._rows(windows, self.lookback, self.lookback + self.horizon)

    def _rows(self, windows: IntArray | slice, start: int, stop: int) -> IntArray:
        return self.starts[windows][:, None] + np.arange(start, stop)
