"""Solutions of autoregressions: exact, fast, and honest about ill conditions.

Axis legend: L lookback (the card's p), H horizon, F features, oldest row first.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import linalg

from sciseq.data.panel import FloatArray
from sciseq.forecasting.arnet_moments import EPS, Chunks, Moments, autocovariances

__all__ = [
    "Solution",
    "characteristic_roots",
    "is_stable",
    "least_squares",
    "stpe",
    "yule_walker",
]

ACCEPTED = 1e-10  # estimated error of the weights without refinement
MAX_REFINEMENTS = 8
LEAST_SINGULAR_VALUE = 1e-13  # relative; below it, the data do not tell

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Solution:
    """Weights, and how they were found.

    Parameters
    ----------
    weights : ndarray of shape (F, H)
        One column for each step.
    intercept : ndarray of shape (H,)
        Constants.
    method : str
        ``"cholesky"``, ``"refined"`` (Cholesky, then iterative refinement on the
        windows), ``"qr"`` (orthogonal factors of the windows), ``"least norm"`` (the
        data do not determine the weights) or ``"levinson"``.
    rank : int
        Number of directions that the data determine.
    """

    weights: FloatArray
    intercept: FloatArray
    method: str
    rank: int


# -------------------------------------------------------------------- least squares


def least_squares(
    moments: Moments, chunks: Chunks, penalty: FloatArray | None = None
) -> Solution:
    r"""Weights of least squares, exact to rounding whatever the condition.

    .. math:: \min_W \sum \lVert y - b - W^\top x \rVert^2
              + n \operatorname{tr} W^\top P W

    by Cholesky factors of the moments. Where an estimate of the condition says that
    this may cost more than 10 digits, the weights are refined on the windows
    themselves; where that does not converge, the windows are reduced to triangular
    form by orthogonal factors, which loses half as many digits as moments do.

    Parameters
    ----------
    moments : Moments
        Of the design.
    chunks : callable
        Gives the rows of the design anew; called only when moments are not enough.
    penalty : ndarray of shape (F, F), optional
        The matrix P, positive semi-definite.

    Returns
    -------
    Solution
        A feature that is constant gets the weight 0.

    References
    ----------
    Björck, Stability analysis of the method of seminormal equations for linear least
    squares problems, Linear Algebra and its Applications 88/89, 1987.

    Examples
    --------
    >>> from sciseq.forecasting.arnet_moments import lag_chunks, lag_moments
    >>> x = [np.array([0.0, 1.0, 0.0, 2.0, 0.0, 3.0])]
    >>> solution = least_squares(lag_moments(x, 1), lambda: lag_chunks(x, 1))
    >>> solution.weights.round(4).tolist(), solution.method
    ([[-1.125]], 'cholesky')
    """
    scale = _feature_scale(moments)
    active = scale > 0
    F, H = moments.cross.shape
    weights = np.zeros((F, H))
    if not active.any():
        return Solution(weights, moments.intercept(weights), "cholesky", 0)
    ridge = None if penalty is None else moments.count * penalty
    system = _System(moments, ridge, active)
    weights[active] = system.solve(moments.cross[active])
    method, rank = "cholesky", int(active.sum())
    if not system.error <= ACCEPTED:
        refined = None
        if system.is_definite:
            refined = _refine(moments, chunks, ridge, system, active, weights)
        method = "refined"
        if refined is None:
            refined, rank = _orthogonal(moments, chunks, ridge, active)
            method = "qr" if rank == active.sum() else "least norm"
        weights = refined
    return Solution(weights, moments.intercept(weights), method, rank)


def _feature_scale(moments: Moments) -> FloatArray:
    """Root of the Gram diagonal; 0 for a feature that is constant up to rounding."""
    spread = np.sqrt(np.maximum(moments.gram.diagonal(), 0.0))
    level = np.abs(moments.feature_mean) * np.sqrt(moments.count)
    return np.where(spread > 64 * EPS * level, spread, 0.0)


class _System:
    """Cholesky factors of the penalised Gram matrix, scaled to unit diagonal."""

    def __init__(
        self, moments: Moments, ridge: FloatArray | None, active: BoolArray
    ) -> None:
        gram = moments.gram if ridge is None else moments.gram + ridge
        if not active.all():
            gram = gram[np.ix_(active, active)]
        self.scale = np.sqrt(gram.diagonal())
        scaled = gram / self.scale
        scaled /= self.scale[:, None]
        # The transpose of a symmetric matrix is itself, in the order of LAPACK.
        norm = float(linalg.lapack.dlange("1", scaled.T))
        self.is_definite = True
        self.error = np.inf
        try:
            self.factor = linalg.cho_factor(
                scaled.T, lower=True, overwrite_a=True, check_finite=False
            )
        except linalg.LinAlgError:
            self.is_definite = False
            return
        reciprocal, _ = linalg.lapack.dpocon(self.factor[0], norm, uplo="L")
        least = float(reciprocal) * norm  # least eigenvalue, from below
        if least > 0:
            rounding = (moments.rounding[active] / self.scale**2).max()
            self.error = float(rounding) / least

    def solve(self, right: FloatArray) -> FloatArray:
        """Solution, or zeros where there is none."""
        if not self.is_definite:
            return np.zeros_like(right)
        scaled = linalg.cho_solve(
            self.factor, right / self.scale[:, None], check_finite=False
        )
        return np.asarray(scaled / self.scale[:, None])


def _refine(
    moments: Moments,
    chunks: Chunks,
    ridge: FloatArray | None,
    system: _System,
    active: BoolArray,
    weights: FloatArray,
) -> FloatArray | None:
    """Newton steps with residuals of the windows; None when they do not converge."""
    weights = weights.copy()
    before = np.inf
    for _ in range(MAX_REFINEMENTS):
        gradient = np.zeros_like(weights) if ridge is None else -(ridge @ weights)
        intercept = moments.intercept(weights)
        for X, Y, weight in chunks():
            rest = Y - intercept - X @ weights
            if weight is not None:
                rest *= weight[:, None]
            gradient += (X - moments.feature_mean).T @ rest
        step = system.solve(gradient[active])
        weights[active] += step
        largest = np.abs(weights).max()
        size = float(np.abs(step).max() / largest) if largest > 0 else 0.0
        if size <= 1e-13 or (before <= 1e-9 and size > 0.5 * before):
            return weights
        if not size <= 0.5 * before:
            return None
        before = size
    return weights if before <= 1e-9 else None


def _orthogonal(
    moments: Moments, chunks: Chunks, ridge: FloatArray | None, active: BoolArray
) -> tuple[FloatArray, int]:
    """Weights by orthogonal factors, rows folded in chunk by chunk; and the rank."""
    kept = int(active.sum())
    H = moments.cross.shape[1]
    width = 1 + kept + H
    R = np.zeros((0, width))
    pending: list[FloatArray] = []
    for X, Y, weight in chunks():
        rows = np.hstack(
            [
                np.ones((len(X), 1)),
                (X - moments.feature_mean)[:, active],
                Y - moments.truth_mean,
            ]
        )
        pending.append(rows if weight is None else rows * np.sqrt(weight)[:, None])
        if sum(map(len, pending)) >= 3 * width:
            R = _triangle([R, *pending])
            pending = []
    if ridge is not None:
        values, vectors = np.linalg.eigh(ridge[np.ix_(active, active)])
        pull = np.zeros((kept, width))
        pull[:, 1 : 1 + kept] = (vectors * np.sqrt(np.maximum(values, 0.0))).T
        pending.append(pull)
    R = _triangle([R, *pending])
    triangle, right = R[1:, 1 : 1 + kept], R[1:, 1 + kept :]
    size = np.linalg.norm(triangle, axis=0)
    found, _, rank, _ = linalg.lstsq(
        triangle / size, right, cond=LEAST_SINGULAR_VALUE, check_finite=False
    )
    weights = np.zeros((len(active), H))
    weights[active] = found / size[:, None]
    return weights, int(rank)


def _triangle(rows: list[FloatArray]) -> FloatArray:
    return np.asarray(np.linalg.qr(np.vstack(rows), mode="r"))


# ---------------------------------------------------------------------- Yule–Walker


def yule_walker(
    series: Sequence[FloatArray], lookback: int, horizon: int = 1, alpha: float = 0.0
) -> Solution:
    """Weights from autocovariances, by Levinson's recursion.

    The autocovariances are sums over all pairs of rows, divided by the number of
    rows: the weights of the first step are always those of a stable process, and are
    biased towards 0 by about L / N.

    Parameters
    ----------
    series : sequence of ndarray of shape (N,)
        Series without gaps; their covariances are pooled about one mean.
    lookback, horizon : int
        L and H.
    alpha : float, default=0.0
        Ridge penalty, added to the variance.

    Returns
    -------
    Solution
        Oldest row first.

    Examples
    --------
    >>> x = [np.array([0.0, 1.0, 0.0, 2.0, 0.0, 3.0])]
    >>> yule_walker(x, 1).weights.round(4).tolist()
    [[-0.5]]
    """
    L, H = lookback, horizon
    covariance, level = autocovariances(series, L + H)
    weights = np.zeros((L, H))
    rank = 0
    if covariance[0] > (64 * EPS * level) ** 2:
        column = covariance[:L].copy()
        column[0] += alpha
        # axes: (L, H); lag i at step h is lag i + h of the covariances
        right = np.stack([covariance[1 + h : 1 + h + L] for h in range(H)], axis=1)
        weights, rank = np.flipud(_solve_toeplitz(column, right)), L
    mean = np.full(H, level)
    return Solution(weights, mean - level * weights.sum(axis=0), "levinson", rank)


def _solve_toeplitz(column: FloatArray, right: FloatArray) -> FloatArray:
    try:
        return np.asarray(linalg.solve_toeplitz(column, right, check_finite=False))
    except linalg.LinAlgError:
        return np.asarray(linalg.lstsq(linalg.toeplitz(column), right)[0])


# -------------------------------------------------------- what coefficients mean


def characteristic_roots(coefficients: FloatArray) -> np.ndarray:
    """Eigenvalues of the companion matrix, largest modulus first.

    Parameters
    ----------
    coefficients : ndarray of shape (p,)
        Weights of lag 1 ... p.

    Returns
    -------
    complex ndarray of shape (p,)
        The process dies out when all moduli are below 1.

    Examples
    --------
    >>> characteristic_roots(np.array([0.0, 0.25])).real.round(6).tolist()
    [-0.5, 0.5]
    """
    p = len(coefficients)
    companion = np.zeros((p, p))
    companion[0] = coefficients
    companion[1:, :-1] = np.eye(p - 1)
    roots = linalg.eigvals(companion).astype(np.complex128)
    order = np.lexsort((roots.imag, roots.real, -np.abs(roots).round(12)))
    return np.asarray(roots[order])


def is_stable(coefficients: FloatArray) -> bool:
    """Tell whether the process dies out, by the step-down recursion in O(p²).

    Parameters
    ----------
    coefficients : ndarray of shape (p,)
        Weights of lag 1 ... p.

    Returns
    -------
    bool

    Examples
    --------
    >>> is_stable(np.array([0.5, 0.25])), is_stable(np.array([0.5, 0.5]))
    (True, False)
    """
    w = np.array(coefficients, dtype=np.float64)
    while len(w):
        reflection = w[-1]
        if not abs(reflection) < 1:
            return False
        # Levinson's recursion backwards: from order k to order k - 1
        w = (w[:-1] + reflection * w[-2::-1]) / (1 - reflection**2)
    return True


def stpe(estimated: FloatArray, true: FloatArray) -> float:
    r"""Symmetric total percentage error between two coefficient vectors.

    .. math:: 100\, \frac{\sum_i |\hat w_i - w_i|}{\sum_i (|\hat w_i| + |w_i|)}

    Parameters
    ----------
    estimated, true : array-like of shape (p,)
        Weights of lag 1 ...; the shorter one is padded with zeros.

    Returns
    -------
    float
        From 0 (equal) to 100 (no overlap, or opposite signs); 0 for two zero vectors.

    References
    ----------
    Triebe et al., AR-Net: a simple auto-regressive neural network for time-series,
    arXiv:1911.12436.

    Examples
    --------
    >>> round(stpe([0.2, 0.3, -0.5], [0.2, 0.3, -0.4]), 2)
    5.26
    >>> stpe([0.0, 0.5], [0.5])
    100.0
    """
    a, b = (np.asarray(one, dtype=np.float64).ravel() for one in (estimated, true))
    size = max(len(a), len(b))
    a, b = (np.pad(one, (0, size - len(one))) for one in (a, b))
    total = np.abs(a).sum() + np.abs(b).sum()
    return float(100 * np.abs(a - b).sum() / total) if total > 0 else 0.0
