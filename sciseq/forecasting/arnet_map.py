"""The linear map of AR-Net: forecasts from windows, whatever way it was learnt.

Axis legend: n windows, L lookback, H horizon, S steps learnt (1 or H), T targets,
G groups (1 or T), E regressors beside the lags.
"""

from dataclasses import dataclass

import numpy as np

from sciseq.data.panel import FloatArray

__all__ = ["LinearMap", "interpolate_gaps"]


@dataclass(frozen=True)
class LinearMap:
    r"""Weights of all groups and steps.

    .. math:: \hat y_{t+h} = b_h + \sum_i w_{hi}\, y_{t-i} + \beta_h^\top z_{t+h}

    Parameters
    ----------
    intercept : ndarray of shape (G, S)
        Constants b.
    lags : ndarray of shape (G, S, L)
        Weights w, of lag 1 first.
    beside : ndarray of shape (G, S, E)
        Weights of the other regressors.
    way : str
        How the weights were found.
    least : tuple of int
        Of the systems solved, the fewest weights that the data determine, and how
        many there are.

    Examples
    --------
    >>> weights = LinearMap(np.zeros((1, 1)), np.full((1, 1, 1), 0.5), np.zeros((1, 1, 0)))
    >>> weights.recursive(np.array([[[8.0]]]), np.zeros((1, 3, 0))).ravel().tolist()
    [4.0, 2.0, 1.0]
    """  # noqa: E501

    intercept: FloatArray
    lags: FloatArray
    beside: FloatArray
    way: str = "cholesky"
    least: tuple[int, int] = (0, 0)

    def direct(self, x: FloatArray, z: FloatArray) -> FloatArray:
        """Forecast all steps from the same rows.

        Parameters
        ----------
        x : ndarray of shape (T, n, L)
            Windows, oldest row first.
        z : ndarray of shape (n, H, E)
            Regressors beside the lags, at the rows of the horizon.

        Returns
        -------
        ndarray of shape (T, n, H)
        """
        return np.asarray(x @ self._oldest_first + self._given(z))

    def recursive(self, x: FloatArray, z: FloatArray) -> FloatArray:
        """Forecast row by row, from the rows given and those forecast before.

        Takes and returns the same as :meth:`direct`.
        """
        L, H = x.shape[2], z.shape[1]
        given = self._given(z)
        rows = np.concatenate([x, np.zeros((*x.shape[:2], H))], axis=2)
        for h in range(H):
            step = rows[..., h : h + L] @ self._oldest_first  # (T, n, 1)
            rows[..., L + h] = step[..., 0] + given[..., h]
        return rows[..., L:]

    @property
    def _oldest_first(self) -> FloatArray:
        return np.swapaxes(self.lags[..., ::-1], 1, 2)  # (G, L, S)

    def _given(self, z: FloatArray) -> FloatArray:
        """Sum up what does not depend on the lags, (G, n, H)."""
        H, G = z.shape[1], len(self.beside)
        weights = np.broadcast_to(self.beside, (G, H, z.shape[2]))
        constant = np.broadcast_to(self.intercept, (G, H))[:, None]
        return np.asarray(constant + np.einsum("nhe,ghe->gnh", z, weights))


def interpolate_gaps(windows: FloatArray) -> FloatArray:
    """Fill NaN in windows (n, L, T) linearly in time; the ends repeat the nearest.

    A window without any value becomes 0, the mean of scaled values.

    Examples
    --------
    >>> x = np.array([np.nan, 1.0, np.nan, 3.0, np.nan]).reshape(1, 5, 1)
    >>> interpolate_gaps(x).ravel().tolist()
    [1.0, 1.0, 2.0, 3.0, 3.0]
    """
    gaps = np.isnan(windows)
    if not gaps.any():
        return windows
    L = windows.shape[1]
    rows = np.arange(L)[None, :, None]
    before = np.maximum.accumulate(np.where(gaps, -1, rows), axis=1)
    after = np.minimum.accumulate(np.where(gaps, L, rows)[:, ::-1], axis=1)[:, ::-1]
    first = np.where(before < 0, after, before).clip(0, L - 1)
    second = np.where(after >= L, before, after).clip(0, L - 1)
    left = np.take_along_axis(windows, first, axis=1)
    right = np.take_along_axis(windows, second, axis=1)
    share = (rows - first) / np.maximum(second - first, 1)
    return np.nan_to_num(np.where(gaps, left + share * (right - left), windows))
