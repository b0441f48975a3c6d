r"""The equations of an autoregression: which rows of a panel stand in which.

Axis legend: n windows, L lookback, S steps that are learnt (1 for recursion, else the
horizon), w = L + S, C columns, T columns that share one map, K channels known ahead,
E regressors beside the lags, F = L + E features, m equations.

One window gives one equation for each column and step,

.. math:: x_{t+h} = b_h + \sum_{i<L} w_{hi}\, x_{t-L+i} + \beta_h^\top z_{t+h} ,

with the lags oldest first, and in :math:`z` what is known of the row that is forecast,
then static covariates.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from sciseq.data.panel import FloatArray
from sciseq.data.windows import WindowSet
from sciseq.forecasting.arnet_moments import (
    Chunk,
    Moments,
    centred_moments,
    design_moments,
    difference_moments,
    differences,
    lag_moments,
)
from sciseq.forecasting.arnet_solvers import Solution, least_squares, yule_walker
from sciseq.forecasting.arnet_sparse import penalty_strength

__all__ = ["CENTRES", "CentredSystem", "LagDesign", "LagSystem"]

EQUATIONS_PER_CHUNK = 4096
CENTRES = ("none", "mean", "last")

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class LagSystem:
    """Equations of some steps that share their features.

    Parameters
    ----------
    steps : slice
        Steps of the horizon.
    moments : callable
        Gives the moments.
    chunks : callable
        Gives the equations, chunk by chunk.
    batches : callable
        Gives them in batches of so many windows, in an order drawn from a generator.
    """

    steps: slice
    moments: Callable[[], Moments]
    chunks: Callable[[], Iterator[Chunk]]
    batches: Callable[[int, np.random.Generator], Iterator[Chunk]]


class LagDesign:
    """All equations of a panel for one map.

    Parameters
    ----------
    windows : WindowSet
        Windows of the rows to learn from, with horizon S.
    columns : ndarray of int of shape (T,)
        Columns that share the map.
    static : ndarray of int
        Columns of static covariates.
    """

    def __init__(self, windows: WindowSet, columns: IntArray, static: IntArray) -> None:
        self.windows = windows
        self.columns = columns
        self.static = static
        self.n_lags = windows.lookback
        self.n_steps = windows.horizon
        known = windows.known(slice(0, 0))
        self.n_known = 0 if known is None else known.shape[2]
        self.n_features = self.n_lags + self.n_known + len(static)

    @cached_property
    def systems(self) -> list[LagSystem]:
        """All steps together where they have their features in common."""
        if not self.n_known and self._has_common_weights:
            return [self._system(slice(0, self.n_steps))]
        return [self._system(slice(h, h + 1)) for h in range(self.n_steps)]

    @cached_property
    def stretches(self) -> list[FloatArray]:
        """Rows of each series and column, cut at missing values."""
        lengths = self.windows.lengths
        if lengths is None:
            lengths = np.array([len(self.windows.values)])
        ends = np.cumsum(lengths)
        found: list[FloatArray] = []
        for start, end in zip(ends - lengths, ends, strict=True):
            for column in self.columns:
                found += _stretches(self.windows.values[start:end, column])
        return found

    @property
    def _is_plain(self) -> bool:
        """Tell whether the lags are all there is, and all windows count alike."""
        return self.n_features == self.n_lags and self.windows.weights is None

    @cached_property
    def _has_common_weights(self) -> bool:
        """Tell whether the weights of all steps are those of the first, but scaled."""
        weights = self.windows.target_weights(slice(None))
        if weights is None or not weights.any():
            return True
        first = weights[:, 0]
        ratio = weights.sum(axis=0) / max(float(first.sum()), 1e-300)
        return bool(np.allclose(weights, first[:, None] * ratio, rtol=1e-9, atol=0.0))

    def _system(self, steps: slice) -> LagSystem:
        return LagSystem(
            steps,
            lambda: self._moments[steps.start],
            lambda: (one.chunk(steps) for one in self._chunks()),
            lambda size, generator: (
                one.chunk(steps) for one in self._batches(size, generator)
            ),
        )

    @cached_property
    def _moments(self) -> list[Moments]:
        """Moments of each system."""
        if self._is_plain:
            return [lag_moments(self.stretches, self.n_lags, self.n_steps)]
        if self._has_common_weights and self.n_known:
            return _stepwise_moments(self._chunks())
        return [
            design_moments(one.chunk(system.steps) for one in self._chunks())
            for system in self.systems
        ]

    def _chunks(self) -> Iterator["_Equations"]:
        size = max(1, EQUATIONS_PER_CHUNK // len(self.columns))
        return map(self._equations, self.windows.chunks(size))

    def _batches(
        self, size: int, generator: np.random.Generator
    ) -> Iterator["_Equations"]:
        order = generator.permutation(len(self.windows))
        for start in range(0, len(order), size):
            yield self._equations(order[start : start + size])

    def _equations(self, windows: IntArray | slice) -> "_Equations":
        """Complete equations of some windows."""
        L, T = self.n_lags, len(self.columns)
        starts = self.windows.starts[windows]
        rows = starts[:, None] + np.arange(L + self.n_steps)
        x = self.windows.values[rows[:, None], self.columns[:, None]]  # (n, T, w)
        x = x.reshape(-1, L + self.n_steps)
        static = self.windows.values[starts][:, self.static]
        known = self.windows.known(windows)
        if known is None:
            known = np.zeros((len(starts), self.n_steps, 0))
        weight = self.windows.target_weights(windows)
        static, known = (np.repeat(one, T, axis=0) for one in (static, known))
        complete = ~(
            np.isnan(x).any(axis=1)
            | np.isnan(static).any(axis=1)
            | np.isnan(known).any(axis=(1, 2))
        )
        return _Equations(
            lags=x[complete, :L],
            known=known[complete],
            static=static[complete],
            truth=x[complete, L:],
            weight=None if weight is None else np.repeat(weight, T, axis=0)[complete],
        )


@dataclass(frozen=True)
class _Equations:
    """Some windows as equations; m of them."""

    lags: FloatArray  # (m, L)
    known: FloatArray  # (m, S, K)
    static: FloatArray
    truth: FloatArray  # (m, S)
    weight: FloatArray | None  # (m, S)

    def chunk(self, steps: slice) -> Chunk:
        """Rows of a design: features of the first of the steps, and all truths."""
        first = steps.start
        X = np.hstack([self.lags, self.known[:, first], self.static])
        weight = None if self.weight is None else self.weight[:, first]
        return X, self.truth[:, steps], weight


def _stepwise_moments(chunks: Iterator[_Equations]) -> list[Moments]:
    """Moments of each step in one pass: what the steps share is summed once."""
    sums: list[FloatArray] = []
    shifts: list[FloatArray] = []
    for one in chunks:
        m, (S, K) = len(one.truth), one.known.shape[1:]
        if not m:
            continue
        base = np.hstack([np.ones((m, 1)), one.lags, one.static])
        parts = [base, one.truth, one.known]
        if not shifts:
            shifts = [part.mean(axis=0) for part in parts]
            shifts[0][0] = 0.0
        base, truth, known = (a - b for a, b in zip(parts, shifts, strict=True))
        share = np.ones(m) if one.weight is None else one.weight[:, 0]
        heavy = base * share[:, None]
        found = [
            heavy.T @ base,
            heavy.T @ truth,
            (heavy.T @ known.reshape(m, S * K)).reshape(-1, S, K),
            (share[:, None] * truth**2).sum(axis=0),
            np.einsum("m,mh,mhk->hk", share, truth, known, optimize=True),
            np.matmul(np.moveaxis(known * share[:, None, None], 0, 2), _steps(known)),
        ]
        sums = [a + b for a, b in zip(sums, found, strict=True)] if sums else found
    if not sums:
        return [centred_moments(np.zeros((1, 1)), np.zeros(1), 0)]  # refuses
    steps = range(sums[1].shape[1])
    n_lags = one.lags.shape[1]
    return [_assemble([*sums, *shifts], h, n_lags) for h in steps]


def _steps(known: FloatArray) -> FloatArray:
    return np.swapaxes(known, 0, 1)  # (S, m, K)


def _assemble(parts: list[FloatArray], h: int, n_lags: int) -> Moments:
    """Put the sums of one step together: 1, lags, what is known, static, truth."""
    base, crossed, beside, square, both, known, *shifts = parts
    cut, K = 1 + n_lags, known.shape[1]
    total = np.block(
        [
            [base, beside[:, h], crossed[:, [h]]],
            [beside[:, h].T, known[h], both[h][:, None]],
            [crossed[:, [h]].T, both[[h]], square[[h]][:, None]],
        ]
    )
    shift = np.concatenate([shifts[0], shifts[2][h], shifts[1][[h]]])
    size = len(base)
    order = [*range(cut), *range(size, size + K), *range(cut, size), size + K]
    return centred_moments(total[np.ix_(order, order)], shift[order], size + K - 1)


def _stretches(column: FloatArray) -> list[FloatArray]:
    """Longest runs of rows without NaN."""
    known = ~np.isnan(column)
    if known.all():
        return [column]
    edges = np.flatnonzero(np.diff(np.concatenate([[False], known, [False]])))
    return [column[a:b] for a, b in zip(edges[::2], edges[1::2], strict=True)]


class CentredSystem:
    r"""Equations of some steps, seen from what is taken away from each window.

    With the mean or the last value taken away, the weights of the lags sum to 1. They
    are written as :math:`w = o + (u, -\sum u)`, where o is the mean or the last value,
    so that the features of u are differences :math:`x_k - x_L`. The ridge penalty acts
    on :math:`w - o` for the mean, and on u for the last value.

    Parameters
    ----------
    design : LagDesign
        All equations of a map.
    equations : LagSystem
        Those of some steps.
    alpha : float
        Ridge penalty per equation.
    centre : {"none", "mean", "last"}
        What is taken away.
    """

    def __init__(
        self, design: LagDesign, equations: LagSystem, alpha: float, centre: str
    ) -> None:
        self.design = design
        self.equations = equations
        self.alpha = alpha
        L = design.n_lags
        self.offset: FloatArray | None = None
        if centre == "last":
            self.offset = np.eye(L)[-1]
        elif centre == "mean":
            self.offset = np.full(L, 1 / L)
        self.n_lags = L if self.offset is None else L - 1
        self.n_features = self.n_lags + design.n_features - L
        self.penalty: FloatArray | None = None
        if alpha > 0:
            self.penalty = alpha * np.eye(self.n_features)
            if centre == "mean":
                # The newest weight takes part through the others: (sum u)².
                self.penalty[: self.n_lags, : self.n_lags] += alpha

    @cached_property
    def moments(self) -> Moments:
        """Moments of the equations as they are seen."""
        moments = self.equations.moments()
        if self.offset is None:
            return moments
        return difference_moments(moments, self.design.n_lags, self.offset)

    def chunks(self) -> Iterator[Chunk]:
        """Equations as they are seen, chunk by chunk."""
        return map(self._view, self.equations.chunks())

    def batches(self, size: int, generator: np.random.Generator) -> Iterator[Chunk]:
        """Equations as they are seen, in batches of random windows."""
        return map(self._view, self.equations.batches(size, generator))

    def _view(self, chunk: Chunk) -> Chunk:
        if self.offset is None:
            return chunk
        return differences(chunk, self.design.n_lags, self.offset)

    def classical(self, solver: str) -> Solution:
        """Solution of least squares, or of the Yule-Walker equations."""
        if solver != "levinson":
            return least_squares(self.moments, self.chunks, self.penalty)
        design = self.design
        return yule_walker(design.stretches, design.n_lags, design.n_steps, self.alpha)

    def strength(self, solution: Solution, share: float, c_lambda: float) -> FloatArray:
        """Strength (S,) of the regulariser, in squared units of the truth."""
        moments = self.equations.moments()
        variance = moments.square / moments.count
        degrees = moments.count - self.n_features - 1
        noise = variance
        if degrees > 0:
            residual = self.moments.mean_square(solution.weights)
            noise = residual * moments.count / degrees
        # c_lambda is meant for values and noise of unit variance.
        return np.asarray(penalty_strength(share, c_lambda) * np.sqrt(noise * variance))

    def restore(self, solution: Solution) -> FloatArray:
        """Constant, lags from the oldest on, and covariates, of shape (S, 1 + F)."""
        weights = solution.weights
        if self.offset is not None:
            last = self.n_lags
            newest = -weights[:last].sum(axis=0, keepdims=True)
            weights = np.vstack([weights[:last], newest, weights[last:]])
            weights[: last + 1] += self.offset[:, None]
        return np.vstack([solution.intercept, weights]).T
