"""Standardisation by column, or by series and column; knows missing values.

Axis legend: S series, n windows, C columns.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sciseq.data.panel import FloatArray
from sciseq.errors import InputError, NumericalError

__all__ = ["ColumnScaler", "SeriesScaler"]


@dataclass(frozen=True)
class ColumnScaler:
    """Column-wise ``z = (x - mean) / scale``, one mean and scale per column.

    Parameters
    ----------
    mean, scale : ndarray of shape (n_columns,)
        Learned by :meth:`fit`; the scale of a constant column is 1.

    Examples
    --------
    >>> scaler = ColumnScaler.fit([np.array([[1.0], [3.0]])])
    >>> scaler.transform(np.array([[3.0]]))
    array([[1.]])
    """

    mean: FloatArray
    scale: FloatArray

    @classmethod
    def fit(cls, series: Sequence[FloatArray]) -> "ColumnScaler":
        """Learn mean and (population) standard deviation over all series together."""
        # Two passes over the data, series by series: exact for large offsets, and no
        # copy of the whole panel.
        count = sum(np.isfinite(values).sum(axis=0) for values in series)
        known = np.maximum(count, 1)
        low = np.fmin.reduce([np.fmin.reduce(values, axis=0) for values in series])
        high = np.fmax.reduce([np.fmax.reduce(values, axis=0) for values in series])
        with np.errstate(over="ignore", invalid="ignore"):  # refused below, by name
            mean = sum(np.nansum(values, axis=0) for values in series) / known
            # The mean of many equal values is not quite their value.
            mean = np.where(low == high, low, mean)
            squares = sum(np.nansum((values - mean) ** 2, axis=0) for values in series)
        deviation = np.sqrt(squares / known)
        # A constant column leaves rounding noise of the size of its mean: dividing
        # by that would blow noise up to unit size.
        floor = 10 * np.finfo(np.float64).eps * np.abs(mean)
        if not np.isfinite(deviation).all():
            raise NumericalError(
                "the spread of a column overflows float64",
                where=f"scaler, column {int(np.argmin(np.isfinite(deviation)))}",
                hint="Divide the column by a power of ten before fitting.",
            )
        constant = ~(deviation > np.maximum(floor, np.finfo(np.float64).tiny))
        return cls(mean=mean, scale=np.where(constant, 1.0, deviation))

    @classmethod
    def identity(cls, n_columns: int) -> "ColumnScaler":
        """Return a scaler that changes nothing."""
        return cls(mean=np.zeros(n_columns), scale=np.ones(n_columns))

    def select(self, columns: Sequence[int]) -> "ColumnScaler":
        """Return the scaler of some of the columns."""
        chosen = list(columns)
        return ColumnScaler(self.mean[chosen], self.scale[chosen])

    def transform(self, values: FloatArray) -> FloatArray:
        """Scale an array whose last axis is the columns."""
        self._check(values)
        return np.asarray((values - self.mean) / self.scale)

    def inverse_transform(self, values: FloatArray) -> FloatArray:
        """Undo :meth:`transform`."""
        self._check(values)
        return np.asarray(values * self.scale + self.mean)

    def _check(self, values: FloatArray) -> None:
        if values.shape[-1] != len(self.mean):
            raise InputError(
                f"{values.shape[-1]} columns were given, the scaler knows "
                f"{len(self.mean)}",
                where="scaler",
                hint="Give the columns of fit.",
            )


@dataclass(frozen=True)
class SeriesScaler:
    """``z = (x - mean) / scale`` with a mean and scale of its own for each series.

    One row of statistics stands for every series when all share them.

    Parameters
    ----------
    mean, scale : ndarray of shape (S, C) or (1, C)
        Statistics of each series.

    Examples
    --------
    >>> rows = [np.array([[1.0], [3.0]]), np.array([[10.0], [30.0]])]
    >>> scaler = SeriesScaler.fit(rows)
    >>> scaler.transform(rows[1], 1).ravel().tolist()
    [-1.0, 1.0]
    """

    mean: FloatArray
    scale: FloatArray

    @classmethod
    def fit(cls, series: Sequence[FloatArray]) -> "SeriesScaler":
        """Learn the statistics of each series from its own rows."""
        each = [ColumnScaler.fit([values]) for values in series]
        return cls(
            np.stack([one.mean for one in each]), np.stack([one.scale for one in each])
        )

    @classmethod
    def shared(cls, scaler: ColumnScaler) -> "SeriesScaler":
        """Statistics that are the same for every series."""
        return cls(scaler.mean[None], scaler.scale[None])

    def select(self, columns: Sequence[int]) -> "SeriesScaler":
        """Return the scaler of some of the columns."""
        chosen = list(columns)
        return SeriesScaler(self.mean[:, chosen], self.scale[:, chosen])

    def transform(self, values: FloatArray, series: int) -> FloatArray:
        """Scale the rows (n_rows, C) of one series."""
        mean, scale = self._of(np.array([series]))
        return np.asarray((values - mean[0]) / scale[0])

    def transform_windows(
        self, windows: FloatArray, series: npt.NDArray[np.int64]
    ) -> FloatArray:
        """Scale windows (n, L, C) of the given series (n,)."""
        mean, scale = self._of(series)
        scaled = windows - mean
        scaled /= scale  # in place: one block of windows is large
        return scaled

    def inverse_transform(
        self, windows: FloatArray, series: npt.NDArray[np.int64]
    ) -> FloatArray:
        """Undo :meth:`transform_windows` on windows (n, H, C) of series (n,)."""
        mean, scale = self._of(series)
        restored = windows * scale
        restored += mean
        return restored

    def scale_of(self, series: npt.NDArray[np.int64]) -> FloatArray:
        """Scales of some series, of shape (n, 1, C)."""
        scale = self._of(series)[1]
        return np.broadcast_to(scale, (len(series), *scale.shape[1:])).copy()

    def _of(self, series: npt.NDArray[np.int64]) -> tuple[FloatArray, FloatArray]:
        # Statistics that all share broadcast over the windows.
        rows = slice(None) if len(self.mean) == 1 else series
        return self.mean[rows][:, None], self.scale[rows][:, None]
