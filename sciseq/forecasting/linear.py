"""Linear maps from lookback to horizon, solved exactly.

Axis legend: n windows, L lookback, H horizon, C columns, T targets, F features,
G groups (1 when all variates share one map, else one per target).

DLinear and RLinear are usually trained by gradient descent. Both are linear in
known features of the window, so their squared error has an exact minimum: Gram
matrices are summed over all windows and solved once per penalty.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from scipy import linalg

from sciseq.data.panel import FloatArray
from sciseq.data.windows import WindowInputs, WindowSet
from sciseq.errors import DataQualityError, NumericalError
from sciseq.forecasting.base import FORECASTER_RULES, BaseForecaster
from sciseq.parameters import AnyOf, Boolean, Integer, Option, Real
from sciseq.parameters import Rule as ParameterRule

__all__ = ["LinearForecaster"]

WINDOWS_PER_CHUNK = 512
EPSILON = 1e-5  # under the root of the instance scale, as in RevIN
ALPHAS = tuple(10.0**power for power in range(-6, 3))


class LinearForecaster(BaseForecaster):
    r"""One linear map from lookback to horizon, shared by all variates, exact.

    ``"rlinear"`` works on windows from which their own mean is taken,

    .. math:: \hat y = \mu + W (x - \mu) + b\,\sigma ,

    ``"dlinear"`` on trend :math:`Mx` (moving average of width ``kernel_size``, ends
    repeated) and remainder :math:`x - Mx`,

    .. math:: \hat y = W_s (x - Mx) + W_t\, Mx + b .

    Parameters
    ----------
    kind : {"rlinear", "dlinear"}, default="rlinear"
        Which of the two maps.
    lookback : int, default=96
        Rows of context.
    horizon : int, default=24
        Rows to forecast.
    alpha : float or "auto", default="auto"
        Ridge penalty per window on the weights. ``"auto"`` takes the one of
        1e-6 ... 100 with the least squared error on the validation tail (1e-3 when
        there is none).
    individual : bool, default=False
        One map per target instead of a shared one.
    kernel_size : int, default=25
        Width of the moving average of ``"dlinear"``; odd.
    targets : label or list of labels, optional
        Columns to forecast; all by default.
    missing : {"error", "mask", "interpolate"}, default="error"
        What to do with NaN. ``"mask"`` reads missing inputs as the mean of their
        window and leaves out windows with missing truth.
    scaler : {"standard", None}, default="standard"
        Standardise columns inside; forecasts come back in the units of the data.
    validation_fraction : float, default=0.1
        Share of the rows, at the end, that choose ``alpha`` and calibrate intervals.
    refit_on_all : bool, default=False
        Solve again on all rows with the chosen ``alpha``.

    Attributes
    ----------
    coef_ : ndarray of shape (G, H, L)
        Weights of the window, oldest row first, for each step of the horizon; one
        map for all targets, or one for each with ``individual=True``.
    intercept_ : ndarray of shape (G, H)
        The bias :math:`b`.
    alpha_ : float
        Penalty used.

    Notes
    -----
    The published models minimise the same squared error by stochastic gradient
    descent with early stopping; here the minimum is exact, up to the penalty.

    References
    ----------
    Zeng et al., Are Transformers effective for time series forecasting?,
    arXiv:2205.13504 (DLinear). Li et al., Revisiting long-term time series
    forecasting: an investigation on linear mapping, arXiv:2305.10721 (RLinear).

    Examples
    --------
    >>> import numpy as np
    >>> X = np.sin(np.arange(80.0) / 3).reshape(-1, 1)
    >>> model = LinearForecaster(lookback=8, horizon=2, alpha=1e-6).fit(X[:60])
    >>> bool(np.allclose(model.predict(), X[60:62], atol=1e-3))
    True
    """

    _parameter_rules: ClassVar[dict[str, ParameterRule]] = {
        "kind": Option("rlinear", "dlinear"),
        "alpha": AnyOf(Option("auto"), Real(0.0)),
        "individual": Boolean(),
        "kernel_size": Integer(1),
        **{
            name: FORECASTER_RULES[name]
            for name in (
                "lookback",
                "horizon",
                "targets",
                "missing",
                "scaler",
                "validation_fraction",
                "refit_on_all",
            )
        },
    }

    def __init__(
        self,
        *,
        kind: str = "rlinear",
        lookback: int = 96,
        horizon: int = 24,
        alpha: float | str = "auto",
        individual: bool = False,
        kernel_size: int = 25,
        targets: Any = None,
        missing: str = "error",
        scaler: str | None = "standard",
        validation_fraction: float = 0.1,
        refit_on_all: bool = False,
    ) -> None:
        self.kind = kind
        self.lookback = lookback
        self.horizon = horizon
        self.alpha = alpha
        self.individual = individual
        self.kernel_size = kernel_size
        self.targets = targets
        self.missing = missing
        self.scaler = scaler
        self.validation_fraction = validation_fraction
        self.refit_on_all = refit_on_all

    def _parameter_relations(self) -> list[str]:
        if self.kind == "dlinear" and self.kernel_size % 2 == 0:
            return [f"kernel_size={self.kernel_size} must be odd"]
        return []

    def _fit(self, training: WindowSet, validation: WindowSet | None) -> None:
        moments = self._moments(training)
        held_out = None if validation is None else self._moments(validation)
        if self.alpha != "auto":
            self.alpha_ = float(self.alpha)
        elif held_out is None:
            self.alpha_ = 1e-3
        else:
            errors = [held_out.error(self._solve(moments, alpha)) for alpha in ALPHAS]
            self.alpha_ = ALPHAS[int(np.argmin(errors))]
        self._keep(self._solve(moments, self.alpha_))

    def _refit(self, training: WindowSet) -> None:
        self._keep(self._solve(self._moments(training), self.alpha_))

    def _moments(self, windows: WindowSet) -> "_Moments":
        """Sum the products of features and truths over all windows."""
        n_targets = len(self.target_positions_)
        moments = _Moments.zeros(
            n_targets if self.individual else 1, self._n_features, self.horizon
        )
        for chunk in windows.chunks(WINDOWS_PER_CHUNK):
            inputs = windows.inputs(chunk).values[..., self.target_positions_]
            truth = windows.targets(chunk)[..., self.target_positions_]
            with np.errstate(over="ignore", invalid="ignore"):  # refused by check
                features, centre = self._features(inputs)
                # axes: (T, n, F) and (T, n, H)
                truth = np.moveaxis(truth, 2, 0) - centre
                if not self.individual:
                    features = features.reshape(1, -1, features.shape[2])
                    truth = truth.reshape(1, -1, truth.shape[2])
                moments.add(features, truth)
        moments.check()
        return moments

    @property
    def _n_features(self) -> int:
        return (2 if self.kind == "dlinear" else 1) * int(self.lookback) + 1

    def _features(self, inputs: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Features (T, n, F) of windows (n, L, T), and what is added back (T, n, 1)."""
        x = np.moveaxis(inputs, 2, 0)  # (T, n, L)
        mean = _mean(x)
        x = np.where(np.isnan(x), mean, x)
        if self.kind == "rlinear":
            x = x - mean
            deviation = np.sqrt(np.mean(x**2, axis=2, keepdims=True) + EPSILON)
            return np.concatenate([x, deviation], axis=2), mean
        trend = x @ _moving_average(self.lookback, self.kernel_size).T
        ones = np.ones_like(mean)
        return np.concatenate([x - trend, trend, ones], axis=2), np.zeros_like(mean)

    def _solve(self, moments: "_Moments", alpha: float) -> FloatArray:
        """Ridge weights, (G, F, H); the bias (last feature) is not penalised."""
        penalty = np.full(self._n_features, alpha)
        # The two feature blocks are collinear (mean-free windows sum to zero; trend
        # is smooth): a relative floor keeps the system positive definite.
        scale = np.trace(moments.gram, axis1=1, axis2=2) / self._n_features
        penalty[-1] = 0.0
        weights = []
        for gram, cross, count, size in zip(
            moments.gram, moments.cross, moments.count, scale, strict=True
        ):
            ridge = penalty * count + 1e-10 * max(float(size), 1e-300)
            weights.append(linalg.solve(gram + np.diag(ridge), cross, assume_a="pos"))
        return np.stack(weights)

    def _keep(self, weights: FloatArray) -> None:
        L = self.lookback
        if self.kind == "dlinear":
            average = _moving_average(L, self.kernel_size)
            seasonal, trend = weights[:, :L], weights[:, L:-1]
            # W x = W_s (x - M x) + W_t M x
            window = seasonal + average.T @ (trend - seasonal)
        else:
            window = weights[:, :L]
        self.coef_ = np.ascontiguousarray(np.swapaxes(window, 1, 2))
        self.intercept_ = np.ascontiguousarray(weights[:, -1])

    def _forecast(self, inputs: WindowInputs) -> FloatArray:
        x = np.moveaxis(inputs.values[..., self.target_positions_], 2, 0)  # (T, n, L)
        mean = _mean(x)
        x = np.where(np.isnan(x), mean, x)
        bias = self.intercept_[:, None, :]  # (G, 1, H)
        if self.kind == "rlinear":
            x = x - mean
            deviation = np.sqrt(np.mean(x**2, axis=2, keepdims=True) + EPSILON)
            forecast = mean + x @ np.swapaxes(self.coef_, 1, 2) + bias * deviation
        else:
            forecast = x @ np.swapaxes(self.coef_, 1, 2) + bias
        return np.moveaxis(forecast, 0, 2)  # (n, H, T)

    def _make_export_core(self) -> Any:
        """Make the same map as a torch module, for export."""
        from sciseq.export.linear_maps import LinearCore

        return LinearCore(
            self.coef_,
            self.intercept_,
            self.target_positions_,
            epsilon=EPSILON if self.kind == "rlinear" else None,
            has_gaps=self.missing == "mask",
        )


@dataclass
class _Moments:
    """Sums over windows: features squared, features times truth, truth squared."""

    gram: FloatArray  # (G, F, F)
    cross: FloatArray  # (G, F, H)
    square: FloatArray  # (G,)
    count: npt.NDArray[np.int64]  # (G,)

    @classmethod
    def zeros(cls, G: int, F: int, H: int) -> "_Moments":
        return cls(
            np.zeros((G, F, F)),
            np.zeros((G, F, H)),
            np.zeros(G),
            np.zeros(G, dtype=np.int64),
        )

    def add(self, features: FloatArray, truth: FloatArray) -> None:
        known = ~np.isnan(truth).any(axis=2, keepdims=True)  # (G, n, 1)
        features = np.where(known, features, 0.0)
        truth = np.where(known, truth, 0.0)
        self.gram += np.swapaxes(features, 1, 2) @ features
        self.cross += np.swapaxes(features, 1, 2) @ truth
        self.square += (truth**2).sum(axis=(1, 2))
        self.count += known.sum(axis=(1, 2))

    def check(self) -> None:
        if (self.count == 0).any():
            raise DataQualityError(
                "no window has a complete truth: values are missing in every one",
                where="targets",
                hint="Use missing='interpolate', or a shorter horizon.",
            )
        if not (np.isfinite(self.gram).all() and np.isfinite(self.square).all()):
            raise NumericalError(
                "sums of squares over the windows overflow float64",
                where="LinearForecaster.fit",
                hint="Set scaler='standard', or give the values in larger units.",
            )

    def error(self, weights: FloatArray) -> float:
        """Sum of squared errors of some weights, over all windows."""
        fitted = np.einsum("gfh,gfe,geh->g", weights, self.gram, weights, optimize=True)
        crossed = np.einsum("gfh,gfh->g", weights, self.cross)
        return float(np.sum(self.square - 2 * crossed + fitted))


def _mean(x: FloatArray) -> FloatArray:
    """Mean of the known values of each window; 0 where none is known."""
    known = ~np.isnan(x)
    total = np.where(known, x, 0.0).sum(axis=-1, keepdims=True)
    return np.asarray(total / np.maximum(known.sum(axis=-1, keepdims=True), 1))


def _moving_average(L: int, kernel_size: int) -> FloatArray:
    """Matrix M (L, L) of the moving average whose ends repeat the edge value."""
    half = (kernel_size - 1) // 2
    M = np.zeros((L, L))
    for row in range(L):
        for column in range(row - half, row + half + 1):
            M[row, min(max(column, 0), L - 1)] += 1.0 / kernel_size
    return M
