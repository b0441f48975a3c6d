"""Windows as rows of features, as regressors of scikit-learn take them.

Axis legend: n windows, L lookback, C columns, T targets, F features.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sciseq.data.panel import FloatArray

__all__ = ["WindowFeatures", "join_known"]

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class WindowFeatures:
    """What a regressor sees of a window, for each target.

    In this order: the rows of the target itself, oldest first; the rows of other
    columns, one column after the other; the static covariates.

    Parameters
    ----------
    targets : ndarray of int
        Columns to forecast.
    others : tuple of ndarray of int
        Columns whose rows are features too, for each target.
    static : ndarray of int
        Columns of static covariates.
    centre : {"mean", "last", None}
        What is taken from the rows of each column of a window.
    allow_nan : bool
        Leave NaN to the regressor; else the mean of the window stands for it.
    """

    targets: IntArray
    others: tuple[IntArray, ...]
    static: IntArray
    centre: str | None
    allow_nan: bool

    def of(self, values: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Features and centres of windows.

        Parameters
        ----------
        values : ndarray of shape (n, L, C)
            Look-back rows; NaN marks a missing value.

        Returns
        -------
        features : ndarray of shape (n, T, F)
        centre : ndarray of shape (n, T)
            What was taken from the rows of each target, to be added to its forecast.
        """
        rows, centre = self._centred(values)
        static = values[:, 0, self.static]
        if not self.allow_nan:
            static = np.nan_to_num(static)
        parts = []
        for target, others in zip(self.targets, self.others, strict=True):
            chosen = rows[..., [target, *others]]  # (n, L, 1 + others)
            lags = np.moveaxis(chosen, 1, 2).reshape(len(values), -1)
            parts.append(np.concatenate([lags, static], axis=1))
        return np.stack(parts, axis=1), centre[:, self.targets]

    def _centred(self, values: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Rows minus their centre, gaps filled, and the centre (n, C)."""
        known = ~np.isnan(values)
        total = np.where(known, values, 0.0).sum(axis=1)
        mean = total / np.maximum(known.sum(axis=1), 1)
        if self.centre == "mean":
            centre = mean
        elif self.centre == "last":
            centre = _last_known(values, known)
        else:
            centre = np.zeros_like(mean)
        if not self.allow_nan:
            values = np.where(known, values, mean[:, None])
        return values - centre[:, None], centre


def _last_known(values: FloatArray, known: npt.NDArray[np.bool_]) -> FloatArray:
    """Last known value of each column, (n, C); 0 where there is none."""
    from_end = np.argmax(known[:, ::-1], axis=1)
    last = values.shape[1] - 1 - from_end
    found = np.take_along_axis(values, last[:, None], axis=1)[:, 0]
    return np.nan_to_num(found)


def join_known(
    features: FloatArray, known: FloatArray | None, *, allow_nan: bool
) -> FloatArray:
    """Append what is known ahead, (n, K), to the features (n, T, F) of each target."""
    if known is None:
        return features
    if not allow_nan:
        known = np.nan_to_num(known)
    n, T, _ = features.shape
    ahead = np.broadcast_to(known[:, None], (n, T, known.shape[1]))
    return np.concatenate([features, ahead], axis=2)
