r"""The sparse autoregression of AR-Net: its regulariser, and two ways to its minimum.

Axis legend: F features, H horizon, m windows of one batch, S support.

.. math:: \min_w \; \mathrm{MSE}(w) + \lambda(s)\, R(w), \qquad
          R(w) = \frac1p \sum_i \tanh\bigl(\tfrac{c_1}{2} |w_i|^{1/c_2}\bigr)

with :math:`\lambda(s) = c_\lambda (1/s - 1)`. The regulariser is steep near zero and
nearly flat at real coefficients, so that these are not shrunk. Its slope is infinite at
zero: the root is taken of :math:`|w| + 10^{-4}`.

The model is linear, so the mean squared error is a quadratic form that the moments of
the data give exactly. :func:`coordinate_descent` minimises on it, one weight at a time
and each globally, which is deterministic, needs no learning rate and gives zeros that
are zeros. :func:`stochastic_descent` is the published training (Adam on batches), in
NumPy: the gradient of a linear map is two matrix products.
"""

import math
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
from scipy import linalg

from sciseq.data.panel import FloatArray
from sciseq.forecasting.arnet_moments import Chunk, Moments

__all__ = [
    "coordinate_descent",
    "penalty_strength",
    "regularizer",
    "stochastic_descent",
]

C1 = C2 = 3.0
FLOOR = 1e-4  # added to |w| under the root
TOLERANCE = 1e-8  # of the weights, relative to the largest
MAX_ROUNDS = 200
AT_ZERO = math.tanh(C1 / 2 * FLOOR ** (1 / C2))
MAX_FIXED_POINT_STEPS = 200

BoolArray = npt.NDArray[np.bool_]


def penalty_strength(sparsity: float, c_lambda: float) -> float:
    r"""Strength :math:`\lambda(s) = c_\lambda (1/s - 1)` of the regulariser.

    Parameters
    ----------
    sparsity : float
        Expected share s of weights that are not zero, in (0, 1]; 1 is no penalty.
    c_lambda : float
        The paper takes a hundredth of the standard deviation of the noise.

    Returns
    -------
    float

    Examples
    --------
    >>> round(penalty_strength(0.25, 0.01), 3), penalty_strength(1.0, 0.01)
    (0.03, 0.0)
    """
    return c_lambda * (1.0 / sparsity - 1.0)


def regularizer(
    weights: FloatArray, *, c1: float = C1, c2: float = C2, floor: float = 0.0
) -> float:
    r"""Mean of :math:`\tanh(c_1 |w|^{1/c_2} / 2)` over all weights.

    Parameters
    ----------
    weights : ndarray
        Weights of the lags.
    c1, c2 : float, default=3.0
        Height and steepness.
    floor : float, default=0.0
        Added to :math:`|w|` under the root; the value at zero is taken away again.

    Returns
    -------
    float
        From 0 (all weights zero) to below 1.

    Examples
    --------
    >>> [round(regularizer(np.array([w])), 3) for w in (0.0, 0.01, 0.1, 1.0)]
    [0.0, 0.312, 0.602, 0.905]
    """
    at_zero = _height(np.zeros(1), c1, c2, floor)[0]
    return float(np.mean(_height(np.abs(weights), c1, c2, floor) - at_zero))


def _height(
    size: FloatArray, c1: float = C1, c2: float = C2, floor: float = FLOOR
) -> FloatArray:
    return np.asarray(np.tanh(c1 / 2 * (size + floor) ** (1 / c2)))


def _slope(
    size: FloatArray, c1: float = C1, c2: float = C2, floor: float = FLOOR
) -> FloatArray:
    """Differentiate the height by |w|."""
    root = (size + floor) ** (1 / c2)
    return np.asarray(
        c1 / (2 * c2) * root / (size + floor) / np.cosh(c1 / 2 * root) ** 2
    )


# ---------------------------------------------------------------- on the moments


def coordinate_descent(
    moments: Moments,
    start: FloatArray,
    strength: FloatArray,
    penalised: BoolArray,
    penalty: FloatArray | None = None,
) -> FloatArray:
    r"""Minimise the sparse objective on the moments, from a classical solution.

    The lower of two minima is taken: one reached from the classical solution, one from
    zero weights. Each weight in turn, the smallest first, goes to the global minimum of the
    objective along its axis. Between rounds the weights that are not zero are solved
    for together, with the regulariser replaced by its tangent: it lies above, because
    the regulariser is concave on each side of zero, so the objective never rises.

    Parameters
    ----------
    moments : Moments
        Of the design.
    start : ndarray of shape (F, H)
        Weights to start from: least squares, or Yule-Walker.
    strength : ndarray of shape (H,)
        :math:`\lambda(s)`, in units of the squared truth.
    penalised : ndarray of bool of shape (F,)
        Features that the regulariser acts on: the lags.
    penalty : ndarray of shape (F, F), optional
        Quadratic penalty :math:`w^\top P w` beside it.

    Returns
    -------
    ndarray of shape (F, H)

    Examples
    --------
    >>> from sciseq.forecasting.arnet_moments import lag_moments
    >>> x = np.random.default_rng(0).normal(size=2000)
    >>> moments = lag_moments([x], 4)
    >>> start = np.linalg.solve(moments.gram, moments.cross)
    >>> everywhere = np.ones(4, dtype=bool)
    >>> coordinate_descent(moments, start, np.array([0.03]), everywhere).ravel().tolist()
    [0.0, 0.0, 0.0, 0.0]
    """  # noqa: E501
    quadratic = moments.gram / moments.count
    if penalty is not None:
        quadratic = quadratic + penalty
    linear = moments.cross / moments.count
    columns = []
    for step in range(linear.shape[1]):
        # R is a mean over the weights.
        heights = np.where(penalised, strength[step] / max(penalised.sum(), 1), 0.0)
        b, given = linear[:, step], start[:, step]
        bounds = _zero_bounds(quadratic.diagonal(), heights)
        found = _descend(quadratic, b, given, heights, bounds)
        if heights.any():
            # The objective has several minima: from zero, weights enter instead.
            zero = np.where(penalised, 0.0, given)
            other = _descend(quadratic, b, zero, heights, bounds)
            found = min(
                found, other, key=lambda w: _objective(quadratic, b, w, heights)
            )
        columns.append(found)
    return np.stack(columns, axis=1)


def _objective(
    Q: FloatArray, b: FloatArray, w: FloatArray, heights: FloatArray
) -> float:
    return float(w @ Q @ w - 2 * b @ w + heights @ _height(np.abs(w)))


def _descend(
    Q: FloatArray,
    b: FloatArray,
    start: FloatArray,
    heights: FloatArray,
    bounds: FloatArray,
) -> FloatArray:
    """Minimise w'Qw - 2b'w + sum of heights times regulariser."""
    w = start.copy()
    if not heights.any():
        return w
    for _ in range(MAX_ROUNDS):
        before = w.copy()
        _sweep(Q, b, w, heights, bounds)
        _polish(Q, b, w, heights)
        if np.abs(w - before).max() <= TOLERANCE * np.abs(w).max():
            break
    return w


def _sweep(
    Q: FloatArray, b: FloatArray, w: FloatArray, heights: FloatArray, bounds: FloatArray
) -> None:
    """Bring each weight in turn to the minimum along its axis."""
    rest = b - Q @ w
    diagonal = Q.diagonal().tolist()
    for i in np.argsort(np.abs(w), kind="stable").tolist():
        if diagonal[i] <= 0 or (w[i] == 0 and abs(rest[i]) <= bounds[i]):
            continue
        free = rest[i] / diagonal[i] + w[i]  # the minimum without regulariser
        new = _shrink(float(free), diagonal[i], float(heights[i]))
        if new != w[i]:
            rest -= Q[i] * (new - w[i])
            w[i] = new


def _zero_bounds(diagonal: FloatArray, heights: FloatArray) -> FloatArray:
    """Bounds on |b - Qw| below which a zero weight is sure to stay zero.

    Zero is left when q (2 f w - w²) > height (R(w) - R(0)) for some w, with f the
    minimum without regulariser: when f is above the least of
    w / 2 + height (R(w) - R(0)) / (2 q w). A grid finds that to a percent.
    """
    w = np.geomspace(1e-8, 1e4, 3000)
    rise = (_height(w) - _height(np.zeros(1))) / w
    bounds = np.zeros_like(diagonal)
    for i in np.flatnonzero(diagonal > 0):
        step = heights[i] / (2 * diagonal[i])
        bounds[i] = 0.99 * diagonal[i] * float(np.min(w / 2 + step * rise))
    return np.where(heights > 0, bounds, 0.0)


def _shrink(free: float, curvature: float, height: float) -> float:
    """Global minimum of curvature (w - free)² + height R(w), w between 0 and free."""
    size = abs(free)
    w = size
    if height > 0:
        step = height / (2 * curvature)
        for _ in range(MAX_FIXED_POINT_STEPS):
            # Falls to the largest root of the derivative, since the slope falls in w.
            root = (w + FLOOR) ** (1 / C2)
            flat = math.cosh(min(C1 / 2 * root, 300.0)) ** 2
            lower = size - step * C1 / (2 * C2) * root / (w + FLOOR) / flat
            if lower <= 0:
                return 0.0
            if w - lower <= 1e-14 * size:
                break
            w = lower
        gain = curvature * (size**2 - (size - w) ** 2)
        rise = math.tanh(C1 / 2 * (w + FLOOR) ** (1 / C2)) - AT_ZERO
        if gain <= height * rise:
            return 0.0
    return w if free >= 0 else -w


def _polish(Q: FloatArray, b: FloatArray, w: FloatArray, heights: FloatArray) -> None:
    """Minimise over the support, with the regulariser replaced by its tangent."""
    S = np.flatnonzero(w)
    if not len(S):
        return
    factor, info = linalg.lapack.dpotrf(Q[np.ix_(S, S)], lower=1)
    if info:
        return
    for _ in range(MAX_FIXED_POINT_STEPS):
        signs = np.sign(w[S])
        pull = heights[S] / 2 * _slope(np.abs(w[S])) * signs
        new, _ = linalg.lapack.dpotrs(factor, b[S] - pull, lower=1)
        if (np.sign(new) != signs).any():
            return  # the tangent does not hold beyond zero: leave it to the sweeps
        change = np.abs(new - w[S]).max()
        w[S] = new
        if change <= TOLERANCE * np.abs(new).max():
            return


# ----------------------------------------------------------------------- on batches


def stochastic_descent(
    batches: Callable[[np.random.Generator], Iterator[Chunk]],
    start: FloatArray,
    means: tuple[FloatArray, FloatArray],
    strength: FloatArray,
    penalised: BoolArray,
    *,
    generator: np.random.Generator,
    learning_rate: float = 2e-4,
    n_epochs: int = 10,
    decay: float = 0.9,
    penalty: FloatArray | None = None,
) -> FloatArray:
    r"""Minimise the sparse objective by Adam on batches, as published.

    The rate falls by ``decay`` each epoch, and :math:`\lambda` rises in equal steps to
    its full value in the last one.

    Parameters
    ----------
    batches : callable
        Gives the batches of one epoch, in an order drawn from the generator.
    start : ndarray of shape (F, H)
        Weights to start from.
    means : tuple of ndarray of shape (F,) and (H,)
        Means of features and truths, taken away from each batch; they stand for the
        constant, on which there is no penalty.
    strength : ndarray of shape (H,)
        :math:`\lambda(s)`, in units of the squared truth.
    penalised : ndarray of bool of shape (F,)
        Features that the regulariser acts on: the lags.
    generator : numpy.random.Generator
        Draws the order.
    learning_rate : float, default=2e-4
        Rate of the first epoch.
    n_epochs : int, default=10
        Passes over the data.
    decay : float, default=0.9
        Factor on the rate after each epoch.
    penalty : ndarray of shape (F, F), optional
        Quadratic penalty beside it.

    Returns
    -------
    ndarray of shape (F, H)
        Weights that matter little are small, not exactly zero.

    Examples
    --------
    >>> x = np.arange(6.0)[:, None]
    >>> def batches(generator):
    ...     yield x, 2 * x, None
    >>> weights = stochastic_descent(
    ...     batches, np.zeros((1, 1)), (x.mean(axis=0), 2 * x.mean(axis=0)),
    ...     np.zeros(1), np.ones(1, dtype=bool), learning_rate=0.1, n_epochs=400,
    ...     decay=0.99, generator=np.random.default_rng(0))
    >>> weights.round(2).tolist()
    [[2.0]]
    """
    w = start.copy()
    adam = _Adam(w.shape)
    heights = penalised[:, None] * strength / max(int(penalised.sum()), 1)
    for epoch in range(n_epochs):
        ramp = (epoch + 1) / n_epochs
        rate = learning_rate * decay**epoch
        for X, Y, weight in batches(generator):
            X, rest = X - means[0], Y - means[1]
            rest = rest - X @ w
            share = np.full(len(X), 1.0) if weight is None else weight
            total = share.sum()
            if not total > 0:
                continue
            gradient = -2 * X.T @ (rest * share[:, None]) / total
            gradient += ramp * heights * _slope(np.abs(w)) * np.sign(w)
            if penalty is not None:
                gradient += 2 * penalty @ w
            w -= rate * adam.direction(gradient)
    return w


class _Adam:
    """Moments of the gradient, with the usual constants."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.first, self.second = np.zeros(shape), np.zeros(shape)
        self.n_steps = 0

    def direction(self, gradient: FloatArray) -> FloatArray:
        self.n_steps += 1
        self.first += 0.1 * (gradient - self.first)
        self.second += 0.001 * (gradient**2 - self.second)
        mean = self.first / (1 - 0.9**self.n_steps)
        square = self.second / (1 - 0.999**self.n_steps)
        return np.asarray(mean / (np.sqrt(square) + 1e-8))
