r"""Second moments of the windows of series: all that least squares needs to know.

Axis legend: N rows of a series, L lookback (the card's p), H horizon, w = L + H rows
of a window, n windows, m windows of one chunk, F features, oldest row first.

The Gram matrix of all windows of a series needs no window: neighbouring windows share
all rows but one. With :math:`A_{ij} = \sum_{s<n} x_{s+i} x_{s+j}`,

.. math:: A_{i+1,j+1} = A_{ij} + x_{n+i} x_{n+j} - x_i x_j ,

so that its first row (by FFT) and the two ends of the series give everything in
:math:`O(N \log N + L w)` operations, instead of :math:`O(N L w)`.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy import fft, linalg

from sciseq.data.panel import FloatArray
from sciseq.errors import DataQualityError, NumericalError

__all__ = [
    "EPS",
    "Chunk",
    "Chunks",
    "Moments",
    "autocovariances",
    "centred_moments",
    "design_moments",
    "difference_moments",
    "differences",
    "lag_chunks",
    "lag_moments",
]

# Features (m, F), truths (m, H), and weights (m,) of some windows.
Chunk = tuple[FloatArray, FloatArray, FloatArray | None]
Chunks = Callable[[], Iterator[Chunk]]

EPS = float(np.finfo(np.float64).eps)
ROUNDING = 32 * EPS  # of a sum of products: FFT, recursion and centring together


@dataclass(frozen=True)
class Moments:
    """What least squares needs to know of a design, centred.

    Parameters
    ----------
    count : float
        Number of windows, or sum of their weights.
    gram : ndarray of shape (F, F)
        Products of features, after taking away their means.
    cross : ndarray of shape (F, H)
        Products of features and truths.
    square : ndarray of shape (H,)
        Squares of the truths.
    feature_mean, truth_mean : ndarray of shape (F,) and (H,)
        The means taken away.
    rounding : ndarray of shape (F,)
        Absolute error that the diagonal of ``gram`` may have.
    """

    count: float
    gram: FloatArray
    cross: FloatArray
    square: FloatArray
    feature_mean: FloatArray
    truth_mean: FloatArray
    rounding: FloatArray

    def intercept(self, weights: FloatArray) -> FloatArray:
        """Return the constants (H,) that belong to weights (F, H)."""
        return np.asarray(self.truth_mean - self.feature_mean @ weights)

    def mean_square(self, weights: FloatArray) -> FloatArray:
        """Return the mean squared error (H,) of weights (F, H)."""
        fitted = np.einsum("fh,fh->h", weights, self.gram @ weights)
        crossed = np.einsum("fh,fh->h", weights, self.cross)
        rest = self.square - 2 * crossed + fitted
        return np.asarray(np.maximum(rest, 0.0) / self.count)


def lag_moments(
    series: Sequence[FloatArray], lookback: int, horizon: int = 1
) -> Moments:
    """Moments of all windows of some series, pooled, without building a window.

    Parameters
    ----------
    series : sequence of ndarray of shape (N,)
        Series without gaps; those shorter than a window add nothing.
    lookback, horizon : int
        L and H.

    Returns
    -------
    Moments
        With F = L features, the rows of the look-back from the oldest on.

    Raises
    ------
    DataQualityError
        When no series is as long as one window.
    NumericalError
        When sums of squares overflow.

    Examples
    --------
    >>> moments = lag_moments([np.array([0.0, 1.0, 0.0, 2.0])], lookback=1)
    >>> int(moments.count), moments.feature_mean.round(3).tolist()
    (3, [0.333])
    """
    L, w = lookback, lookback + horizon
    long_enough = [one for one in series if len(one) >= w]
    if not long_enough:
        raise DataQualityError(
            f"no stretch of a series without missing values has {w} rows, as one "
            "window needs",
            where="ARNetForecaster.fit",
            hint="Use missing='interpolate', or shorten the lookback or the horizon.",
        )
    level = sum(float(one.sum()) for one in long_enough) / sum(map(len, long_enough))
    A = np.zeros((L, w))
    sums, squares = np.zeros(w), np.zeros(w)
    n = 0
    with np.errstate(over="ignore", invalid="ignore"):  # refused below
        for stack in _stacks(long_enough):
            x = stack - level
            n_windows = x.shape[1] - w + 1
            n += len(x) * n_windows
            first = _correlation(x[:, :n_windows], x, w)
            A[0] += first
            A[1:, 0] += first[1:L]
            squares[0] += first[0]
            sums[0] += x[:, :n_windows].sum()
            # What leaves and what enters when a window moves on by one row.
            heads, tails = x[:, : w - 1], x[:, n_windows:]
            ends = np.vstack([tails, heads])
            signed = np.vstack([tails, -heads])
            A[1:, 1:] += signed[:, : L - 1].T @ ends
            squares[1:] += (signed * ends).sum(axis=0)
            sums[1:] += (tails - heads).sum(axis=0)
        for i in range(L - 1):
            A[i + 1, 1:] += A[i, :-1]
        sums, squares = np.cumsum(sums), np.cumsum(squares)
        # A -= sums sums^T / n, in place
        linalg.blas.dger(-1.0 / n, sums, sums[:L], a=A.T, overwrite_a=True)
    _check_finite(A, squares)
    return Moments(
        count=float(n),
        gram=A[:, :L],
        cross=A[:, L:],
        square=squares[L:] - sums[L:] ** 2 / n,
        feature_mean=level + sums[:L] / n,
        truth_mean=level + sums[L:] / n,
        rounding=ROUNDING * (squares[:L] + n * (EPS * level) ** 2),
    )


def _stacks(series: Sequence[FloatArray]) -> Iterator[FloatArray]:
    """Series of equal length together, so that many short ones cost little."""
    by_length: dict[int, list[FloatArray]] = {}
    for one in series:
        by_length.setdefault(len(one), []).append(one)
    for length, members in by_length.items():
        size = max(1, 4_000_000 // length)
        for start in range(0, len(members), size):
            yield np.stack(members[start : start + size])


def _correlation(head: FloatArray, x: FloatArray, n_lags: int) -> FloatArray:
    """Sum over rows and series head[s] x[s + lag], for lag 0 ... n_lags - 1."""
    size = fft.next_fast_len(x.shape[1], real=True)
    spectrum = np.conj(fft.rfft(head, size)) * fft.rfft(x, size)
    return np.asarray(fft.irfft(spectrum.sum(axis=0), size)[:n_lags])


def autocovariances(
    series: Sequence[FloatArray], n_lags: int
) -> tuple[FloatArray, float]:
    """Autocovariances of series, pooled about one mean, and that mean.

    Sums over all pairs of rows are divided by the number of rows, which makes the
    result positive semi-definite.

    Parameters
    ----------
    series : sequence of ndarray of shape (N,)
        Series without gaps.
    n_lags : int
        Number of lags, from 0 on.

    Returns
    -------
    ndarray of shape (n_lags,), float

    Examples
    --------
    >>> covariances, level = autocovariances([np.array([1.0, 3.0])], 2)
    >>> covariances.round(6).tolist(), level
    ([1.0, -0.5], 2.0)
    """
    n_rows = sum(map(len, series))
    level = sum(float(one.sum()) for one in series) / n_rows
    found = np.zeros(n_lags)
    with np.errstate(over="ignore", invalid="ignore"):  # refused below
        for stack in _stacks(series):
            x = stack - level
            padded = np.pad(x, ((0, 0), (0, n_lags)))
            found += _correlation(x, padded, n_lags) / n_rows
    _check_finite(found)
    return found, level


def design_moments(chunks: Iterable[Chunk]) -> Moments:
    """Moments of any design, from its rows chunk by chunk.

    Parameters
    ----------
    chunks : iterable of (features (m, F), truths (m, H), weights (m,) or None)
        Rows of the design, without NaN.

    Returns
    -------
    Moments
        As from :func:`lag_moments`.

    Raises
    ------
    DataQualityError
        When there is no row, or no weight above 0.
    NumericalError
        When sums of squares overflow.

    Examples
    --------
    >>> design = [(np.array([[0.0], [1.0], [0.0]]), np.array([[1.0], [0.0], [2.0]]), None)]
    >>> design_moments(design).gram.round(3).tolist()
    [[0.667]]
    """  # noqa: E501
    shift: FloatArray | None = None
    total, F = np.zeros((1, 1)), 0
    for X, Y, weight in chunks:
        rows = np.hstack([np.ones((len(X), 1)), X, Y])
        F = X.shape[1]
        if shift is None and len(X):
            # Sums are taken about the mean of the first rows: a common level would
            # otherwise eat the digits.
            shift = rows.mean(axis=0)
            shift[0] = 0.0
            total = np.zeros((rows.shape[1], rows.shape[1]))
        if shift is None:
            continue
        rows -= shift
        with np.errstate(over="ignore", invalid="ignore"):  # refused below
            total += rows.T @ (rows if weight is None else rows * weight[:, None])
    return centred_moments(total, np.zeros(1) if shift is None else shift, F)


def centred_moments(total: FloatArray, shift: FloatArray, n_features: int) -> Moments:
    """Moments from sums of products of rows (1, features, truths), taken about shift.

    Parameters
    ----------
    total : ndarray of shape (1 + F + H, 1 + F + H)
        Weighted sums of products.
    shift : ndarray of shape (1 + F + H,)
        What was taken away from each row; 0 from the leading 1.
    n_features : int
        F.

    Returns
    -------
    Moments
    """
    F, count = n_features, float(total[0, 0])
    if not count > 0:
        raise DataQualityError(
            "no window is complete, or none has a weight above 0",
            where="ARNetForecaster.fit",
            hint="Use missing='interpolate', or shorten the lookback or the horizon.",
        )
    _check_finite(total)
    mean = total[0, 1:] / count
    centred = total[1:, 1:] - count * np.outer(mean, mean)
    level = shift[1:] + mean
    return Moments(
        count=count,
        gram=centred[:F, :F],
        cross=centred[:F, F:],
        square=centred.diagonal()[F:].copy(),
        feature_mean=level[:F],
        truth_mean=level[F:],
        rounding=ROUNDING * total.diagonal()[1 : F + 1],
    )


def lag_chunks(
    series: Sequence[FloatArray], lookback: int, horizon: int = 1, size: int = 4096
) -> Iterator[Chunk]:
    """Windows of some series as rows of a design, ``size`` at a time.

    Parameters
    ----------
    series : sequence of ndarray of shape (N,)
        Series without gaps.
    lookback, horizon : int
        L and H.
    size : int, default=4096
        Windows of a chunk.

    Yields
    ------
    features (m, L), truths (m, H), None

    Examples
    --------
    >>> [X.tolist() for X, Y, _ in lag_chunks([np.arange(4.0)], 2)]
    [[[0.0, 1.0], [1.0, 2.0]]]
    """
    for one in series:
        if len(one) < lookback + horizon:
            continue
        view = sliding_window_view(one, lookback + horizon)
        for start in range(0, len(view), size):
            rows = view[start : start + size]
            yield rows[:, :lookback].copy(), rows[:, lookback:].copy(), None


def differences(design: Chunk, n_lags: int, offset: FloatArray) -> Chunk:
    r"""Rows of a design in which lags count from the newest one.

    Lag features become :math:`x_k - x_L` (one less), and from the truth goes
    :math:`\sum_k o_k x_k`. Least squares on these is least squares on ``x`` under the
    constraint that the lag weights sum to that of the offset.

    Parameters
    ----------
    design : features (m, F), truths (m, H), weights
        The first ``n_lags`` features are lags, oldest first.
    n_lags : int
        L.
    offset : ndarray of shape (L,)
        The weights o that are given before anything is learnt.

    Returns
    -------
    features (m, F - 1), truths (m, H), weights
    """
    X, Y, weight = design
    lags = X[:, :n_lags]
    rest = [lags[:, :-1] - lags[:, -1:], X[:, n_lags:]]
    return np.hstack(rest), Y - (lags @ offset)[:, None], weight


def difference_moments(moments: Moments, n_lags: int, offset: FloatArray) -> Moments:
    """Moments of the design that :func:`differences` gives, from those of x."""
    last = n_lags - 1
    full = np.zeros(len(moments.gram))
    full[:n_lags] = offset
    pull = moments.gram @ full
    gram = moments.gram.copy()
    gram[:last] -= gram[last]
    gram[:, :last] -= gram[:, [last]]
    cross = moments.cross - pull[:, None]
    cross[:last] -= cross[last]
    mean = moments.feature_mean.copy()
    mean[:last] -= mean[last]
    rounding = moments.rounding.copy()
    rounding[:last] += rounding[last]
    keep = np.arange(len(gram)) != last
    return Moments(
        count=moments.count,
        gram=gram[np.ix_(keep, keep)],
        cross=cross[keep],
        square=moments.square - 2 * full @ moments.cross + full @ pull,
        feature_mean=mean[keep],
        truth_mean=moments.truth_mean - moments.feature_mean @ full,
        rounding=rounding[keep],
    )


def _check_finite(*sums: FloatArray) -> None:
    if not all(np.isfinite(one).all() for one in sums):
        raise NumericalError(
            "sums of squares over the windows overflow float64",
            where="ARNetForecaster.fit",
            hint="Set scaler='standard', or give the values in larger units.",
        )
