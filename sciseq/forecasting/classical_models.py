"""SARIMAX and AutoReg: estimated by statsmodels, forecast from any window.

Axis legend: n windows, L lookback, H horizon, P parameters, F future covariates,
k states.

Parameters are estimated once, on the training rows. A forecast filters the rows of its
window again with these parameters, all windows at once, without estimating anything:
thousands of origins cost little. How a window starts, before its first row, is said
with each model.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from sciseq.data.panel import FloatArray

__all__ = ["SARIMAX", "AutoReg", "ClassicalModel"]


class ClassicalModel(ABC):
    """What the four models have in common.

    ``estimate`` gives the parameters of one series, and whether the optimiser
    converged; ``forecast`` maps windows with their parameters to forecasts.
    """

    handles_gaps: ClassVar[bool] = False

    @property
    def can_shift(self) -> bool:
        """Tell whether a constant added to the rows is only added to the forecast."""
        return False

    @property
    def needs_positive(self) -> bool:
        """Tell whether values must be positive."""
        return False

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """Names of the P parameters."""

    @abstractmethod
    def estimate(self, y: FloatArray, exog: FloatArray | None) -> tuple[Any, bool]:
        """Estimate the parameters (P,) of a series (n_rows,)."""

    @abstractmethod
    def forecast(self, x: FloatArray, parameters: FloatArray, H: int) -> FloatArray:
        """Forecast (n, H) from windows (n, L) with parameters (n, P)."""


@dataclass(frozen=True)
class AutoReg(ClassicalModel):
    r"""Autoregression :math:`y_t = c + \sum_j \phi_j y_{t - l_j}` by least squares."""

    lags: tuple[int, ...]
    constant: bool

    @property
    def can_shift(self) -> bool:
        """Tell whether a constant added to the rows is only added to the forecast."""
        return self.constant

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the P parameters."""
        return ("const",) * self.constant + tuple(f"lag {lag}" for lag in self.lags)

    def estimate(self, y: FloatArray, exog: FloatArray | None) -> tuple[Any, bool]:
        """Estimate the parameters (P,) of a series (n_rows,)."""
        from statsmodels.tsa.ar_model import AutoReg as Estimator

        trend: Any = "c" if self.constant else "n"
        return Estimator(y, lags=list(self.lags), trend=trend).fit().params, True

    def forecast(self, x: FloatArray, parameters: FloatArray, H: int) -> FloatArray:
        """Forecast (n, H) from windows (n, L) by recursion on the forecasts."""
        constant = parameters[:, 0] if self.constant else 0.0
        weights = parameters[:, int(self.constant) :]
        rows = np.concatenate([x, np.empty((len(x), H))], axis=1)
        L = x.shape[1]
        for t in range(L, L + H):
            past = rows[:, t - np.array(self.lags)]
            rows[:, t] = constant + (past * weights).sum(axis=1)
        return rows[:, L:]


@dataclass(frozen=True)
class SARIMAX(ClassicalModel):
    """Seasonal ARIMA, with covariates that are known ahead as regressors.

    A window starts as statsmodels starts a series: stationary parts from their own
    law, differences from a very wide one. The Kalman gains depend on the parameters
    and on which rows are missing, not on the values: they come from statsmodels once,
    and all windows run through them together.
    """

    order: tuple[int, int, int]
    seasonal_order: tuple[int, int, int]
    season_length: int
    constant: bool
    n_covariates: int
    max_iter: int

    handles_gaps: ClassVar[bool] = True

    @property
    def can_shift(self) -> bool:
        """Tell whether a constant added to the rows is only added to the forecast."""
        return self.constant or self.order[1] + self.seasonal_order[1] > 0

    def _build(self, y: FloatArray, exog: FloatArray | None = None) -> Any:
        from statsmodels.tsa.statespace.sarimax import SARIMAX as Estimator  # noqa: N811

        season = self.season_length if any(self.seasonal_order) else 0
        return Estimator(
            y,
            exog=exog,
            order=self.order,
            seasonal_order=(*self.seasonal_order, season),
            trend="c" if self.constant else "n",
        )

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the P parameters."""
        exog = np.zeros((2, self.n_covariates)) if self.n_covariates else None
        return tuple(self._build(np.zeros(2), exog).param_names)

    def estimate(self, y: FloatArray, exog: FloatArray | None) -> tuple[Any, bool]:
        """Estimate the parameters (P,) of a series (n_rows,)."""
        result = self._build(y, exog).fit(
            disp=False, maxiter=self.max_iter, warn_convergence=False
        )
        return np.asarray(result.params), bool(result.mle_retvals["converged"])

    def regression(self, parameters: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Weights of the covariates (n, F), and the other parameters."""
        first = int(self.constant)
        chosen = np.arange(first, first + self.n_covariates)
        return parameters[:, chosen], np.delete(parameters, chosen, axis=1)

    def forecast(self, x: FloatArray, parameters: FloatArray, H: int) -> FloatArray:
        """Forecast (n, H) from windows (n, L), gaps allowed, of what no covariate says.

        ``parameters`` are those without the weights of the covariates.
        """
        # Windows that share parameters and gaps share their gains.
        keys = np.concatenate([parameters, np.isnan(x)], axis=1)
        unique, place = np.unique(keys, axis=0, return_inverse=True)
        place = place.reshape(-1)
        forecast = np.empty((len(x), H))
        for number, key in enumerate(unique):
            chosen = place == number
            n_parameters = parameters.shape[1]
            gaps = key[n_parameters:].astype(bool)
            filtered = self._filter(key[:n_parameters], gaps)
            forecast[chosen] = _run_filter(filtered, x[chosen], gaps, H)
        return forecast

    def _filter(self, parameters: FloatArray, gaps: npt.NDArray[np.bool_]) -> Any:
        model = self._build(np.where(gaps, np.nan, 0.0))
        model.update(parameters)
        return model.ssm.filter()


def _run_filter(
    filtered: Any, x: FloatArray, gaps: npt.NDArray[np.bool_], H: int
) -> FloatArray:
    r"""Run windows through the gains of one filter.

    .. math:: a_{t+1} = T a_t + c + K_t (y_t - d - Z a_t)
    """
    T, c = filtered.transition[:, :, 0], filtered.state_intercept[:, 0]
    Z, d = filtered.design[0, :, 0], filtered.obs_intercept[0, 0]
    state = np.repeat(filtered.initial_state[None], len(x), axis=0)  # (n, k)
    for t, y in enumerate(x.T):
        moved = state @ T.T + c
        if not gaps[t]:
            error = y - d - state @ Z
            moved = moved + error[:, None] * filtered.kalman_gain[:, 0, t]
        state = moved
    forecast = np.empty((len(x), H))
    for step in range(H):
        forecast[:, step] = d + state @ Z
        state = state @ T.T + c
    return forecast
