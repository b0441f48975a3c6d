"""Exponential smoothing and Theta: estimated by statsmodels, forecast from any window.

Axis legend: n windows, L lookback, H horizon, P parameters, m season, p states at the
start, U distinct sets of parameters.

The recursions are those of statsmodels, run over all windows at once.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from sciseq.data.panel import FloatArray
from sciseq.forecasting.classical_models import ClassicalModel

__all__ = ["ETS", "Theta"]

# Singular values below this share of the largest are no information: a constant that
# moves from the level to all seasons changes nothing.
RANK_TOLERANCE = 1e-10


@dataclass(frozen=True)
class Theta(ClassicalModel):
    r"""Simple exponential smoothing with a share of the slope as drift.

    .. math:: \hat y_{n+h} = \ell_n + \frac{\theta - 1}{\theta}\, b_0
              \Bigl(h - 1 + \frac{1 - (1 - \alpha)^n}{\alpha}\Bigr)

    of the deseasonalised rows. A window gives its own seasonal figures, slope
    :math:`b_0` and first level :math:`\ell_0 = y_1`; the smoothing :math:`\alpha`, and
    whether there is a season, are those of the training rows.
    """

    theta: float
    season_length: int
    seasonal: str | None

    _KINDS: ClassVar[tuple[str | None, ...]] = (None, "add", "mul")

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the P parameters; seasonality is 0 none, 1 additive, 2 mult."""
        return ("alpha", "b0", "seasonality")

    def estimate(self, y: FloatArray, exog: FloatArray | None) -> tuple[Any, bool]:
        """Estimate the parameters (P,) of a series (n_rows,)."""
        from statsmodels.tsa.forecasting.theta import ThetaModel

        m = self.season_length
        has_season = self.seasonal is not None and m > 1
        model = ThetaModel(
            y,
            period=m if has_season else None,
            deseasonalize=has_season,
            use_test=self.seasonal == "auto",
            method=self.seasonal if self.seasonal in ("add", "mul") else "auto",
        )
        result = model.fit()
        b0, alpha = np.asarray(result.params)
        kind = 0
        if has_season:
            figures = np.asarray(result.forecast_components(m).seasonal)
            # The test may have found no season: all figures are then the same.
            if np.ptp(figures) > 0:
                kind = 2 if model.method.startswith("mul") else 1
        return np.array([alpha, b0, kind]), True

    def forecast(self, x: FloatArray, parameters: FloatArray, H: int) -> FloatArray:
        """Forecast (n, H) from windows (n, L)."""
        alpha, kind = parameters[:, 0], parameters[:, 2].copy()
        # Figures that multiply need positive values.
        kind[(kind == 2) & (x.min(axis=1) <= 0)] = 1
        result = np.empty((len(x), H))
        for number, name in enumerate(self._KINDS):
            chosen = kind == number
            if chosen.any():
                result[chosen] = self._of_kind(x[chosen], alpha[chosen], name, H)
        return result

    def _of_kind(
        self, x: FloatArray, alpha: FloatArray, kind: str | None, H: int
    ) -> FloatArray:
        L = x.shape[1]
        if kind is None:
            return self._line(x, alpha, H)
        season = _seasonal_figures(x, self.season_length, kind)  # (n, m)
        past = season[:, np.arange(L) % self.season_length]
        ahead = season[:, np.arange(L, L + H) % self.season_length]
        if kind == "add":
            return self._line(x - past, alpha, H) + ahead
        return self._line(x / past, alpha, H) * ahead

    def _line(self, x: FloatArray, alpha: FloatArray, H: int) -> FloatArray:
        L = x.shape[1]
        _, slope = _line_before(x)
        level = x[:, 0]
        for row in x.T:
            level = alpha * row + (1 - alpha) * level
        drift = (1 - (1 - alpha) ** L) / np.where(alpha > 0, alpha, 1.0)
        weight = (self.theta - 1) / self.theta
        ahead = np.arange(H) + drift[:, None]
        return np.asarray(level[:, None] + weight * slope[:, None] * ahead)


def _seasonal_figures(x: FloatArray, m: int, kind: str) -> FloatArray:
    """Classical decomposition of each window; the figures (n, m) from its first row."""
    from statsmodels.tsa.seasonal import seasonal_decompose

    model: Any = "multiplicative" if kind == "mul" else "additive"
    result = seasonal_decompose(np.ascontiguousarray(x.T), model=model, period=m)
    figures = np.asarray(result.seasonal).reshape(x.shape[1], len(x))
    return np.ascontiguousarray(figures[:m].T)


@dataclass
class _States:
    """States of B smoothers: level (B,), slope (B,), seasons (B, m) in a ring."""

    level: FloatArray
    slope: FloatArray
    season: FloatArray
    row: int = 0


@dataclass(frozen=True)
class ETS(ClassicalModel):
    r"""Exponential smoothing with error, trend and season.

    .. math::

        L_t &= \ell_{t-1} \circ b_{t-1}^{(\phi)}, \qquad
        \hat y_t = L_t \circ s_{t-m}, \\
        \ell_t &= \alpha\,(y_t \circ^{-1} s_{t-m}) + (1 - \alpha) L_t, \\
        b_t &= \beta^*(\ell_t \circ^{-1} \ell_{t-1})
               + (1 - \beta^*)\, b_{t-1}^{(\phi)}, \\
        s_t &= \gamma^*(y_t \circ^{-1} \ell_t) + (1 - \gamma^*)\, s_{t-m},

    where :math:`\circ` adds or multiplies, and :math:`b^{(\phi)}` is
    :math:`\phi b` or :math:`b^\phi`. The states before the first row of a window are
    those with the least squared one-step errors in it, exactly, when everything adds;
    with a component that multiplies they come from the classical decomposition of the
    window and a line through the deseasonalised rows.
    """

    error: str
    trend: str | None
    damped_trend: bool
    seasonal: str | None
    season_length: int
    max_iter: int

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the P parameters."""
        return (
            "smoothing_level",
            *("smoothing_trend",) * (self.trend is not None),
            *("smoothing_seasonal",) * (self.seasonal is not None),
            *("damping_trend",) * (self.trend is not None and self.damped_trend),
        )

    @property
    def _is_additive(self) -> bool:
        return "mul" not in (self.trend, self.seasonal)

    @property
    def can_shift(self) -> bool:
        """Tell whether a constant added to the rows is only added to the forecast."""
        return not self.needs_positive

    @property
    def needs_positive(self) -> bool:
        """Tell whether values must be positive."""
        return "mul" in (self.error, self.trend, self.seasonal)

    def estimate(self, y: FloatArray, exog: FloatArray | None) -> tuple[Any, bool]:
        """Estimate the parameters (P,) of a series (n_rows,)."""
        from statsmodels.tsa.exponential_smoothing.ets import ETSModel

        model = ETSModel(
            y,
            error=self.error,
            trend=self.trend,
            damped_trend=self.damped_trend and self.trend is not None,
            seasonal=self.seasonal,
            seasonal_periods=self.season_length if self.seasonal else None,
        )
        result = model.fit(disp=False, maxiter=self.max_iter, warn_convergence=False)
        found = dict(zip(model.param_names, np.asarray(result.params), strict=True))
        is_done = bool(result.mle_retvals["converged"])
        return np.array([found[name] for name in self.names]), is_done

    def forecast(self, x: FloatArray, parameters: FloatArray, H: int) -> FloatArray:
        """Forecast (n, H) from windows (n, L)."""
        rates = self._rates(parameters)
        start = self._best_start if self._is_additive else self._decomposed_start
        states = start(x, rates)
        self._smooth(x, rates, states)
        return self._extrapolate(states, rates, H)

    def _rates(self, parameters: FloatArray) -> FloatArray:
        r""":math:`\alpha, \beta^*, \gamma^*, \phi`, (4, n)."""
        found = dict(zip(self.names, parameters.T, strict=True))
        zero, one = np.zeros(len(parameters)), np.ones(len(parameters))
        alpha = found["smoothing_level"]
        beta = found.get("smoothing_trend", zero) / alpha
        gamma = found.get("smoothing_seasonal", zero) / (1 - alpha)
        no_slope = zero if self.trend is None else one
        return np.stack([alpha, beta, gamma, found.get("damping_trend", no_slope)])

    def _smooth(self, x: FloatArray, rates: FloatArray, states: _States) -> FloatArray:
        """One-step forecasts (n, L) of the rows; ``states`` move on in place."""
        alpha, beta, gamma, phi = rates
        fitted = np.empty_like(x)
        m = states.season.shape[1]
        for t, y in enumerate(x.T):
            season = states.season[:, (states.row + t) % m].copy()
            slope = states.slope**phi if self.trend == "mul" else phi * states.slope
            before = states.level
            base = before * slope if self.trend == "mul" else before + slope
            if self.seasonal == "mul":
                fitted[:, t] = base * season
                level = alpha * (y / season) + (1 - alpha) * base
                target = y / level
            else:
                fitted[:, t] = base + season
                level = alpha * (y - season) + (1 - alpha) * base
                target = y - level
            step = level / before if self.trend == "mul" else level - before
            states.slope = beta * step + (1 - beta) * slope
            states.level = level
            if self.seasonal is not None:
                kept = gamma * target + (1 - gamma) * season
                states.season[:, (states.row + t) % m] = kept
        states.row += x.shape[1]
        return fitted

    def _extrapolate(self, states: _States, rates: FloatArray, H: int) -> FloatArray:
        steps = np.cumsum(rates[3][:, None] ** np.arange(1, H + 1), axis=1)  # (n, H)
        level, slope = states.level[:, None], states.slope[:, None]
        line = level * slope**steps if self.trend == "mul" else level + slope * steps
        ahead = (states.row + np.arange(H)) % states.season.shape[1]
        season = states.season[:, ahead]
        return np.asarray(line * season if self.seasonal == "mul" else line + season)

    def _best_start(self, x: FloatArray, rates: FloatArray) -> _States:
        """Least squares: one-step errors are linear in the states at the start."""
        n, L = x.shape
        unique, place = np.unique(rates, axis=1, return_inverse=True)
        place = place.reshape(-1)
        effects = self._effects(unique, L)  # (U, L, p)
        inverse = np.linalg.pinv(effects, rcond=RANK_TOLERANCE)  # (U, p, L)
        zero = self._unit_states(np.zeros((n, self._n_states)))
        errors = x - self._smooth(x, rates, zero)
        return self._unit_states(np.einsum("npl,nl->np", inverse[place], errors))

    @property
    def _n_states(self) -> int:
        return 2 + (self.season_length if self.seasonal is not None else 0)

    def _unit_states(self, states: FloatArray) -> _States:
        season = states[:, 2:] if self.seasonal is not None else states[:, :1] * 0.0
        slope = states[:, 1] if self.trend is not None else states[:, 1] * 0.0
        return _States(states[:, 0].copy(), slope.copy(), season.copy())

    def _effects(self, rates: FloatArray, L: int) -> FloatArray:
        """Change of the one-step forecasts with each state at the start, (U, L, p)."""
        U, p = rates.shape[1], self._n_states
        units = self._unit_states(np.tile(np.eye(p), (U, 1)))
        fitted = self._smooth(np.zeros((U * p, L)), np.repeat(rates, p, axis=1), units)
        return np.moveaxis(fitted.reshape(U, p, L), 1, 2)

    def _decomposed_start(self, x: FloatArray, rates: FloatArray) -> _States:
        n, L = x.shape
        if self.seasonal is None:
            season, rest = np.zeros((n, 1)), x
        else:
            season = _seasonal_figures(x, self.season_length, self.seasonal)
            past = season[:, np.arange(L) % self.season_length]
            rest = x / past if self.seasonal == "mul" else x - past
        if self.trend == "mul":
            # Positive values deseasonalised are positive, but for strange windows.
            level, slope = _line_before(np.log(np.maximum(rest, np.finfo(float).tiny)))
            return _States(np.exp(level), np.exp(slope), season)
        level, slope = _line_before(rest)
        if self.trend is None:
            level, slope = rest.mean(axis=1), np.zeros(n)
        return _States(level, slope, season)


def _line_before(rows: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Value one row before the first, and slope, of a line through each window."""
    L = rows.shape[1]
    t = np.arange(L) - (L - 1) / 2
    slope = (rows @ t) / (t @ t) if L > 1 else np.zeros(len(rows))
    return rows.mean(axis=1) - slope * (L + 1) / 2, slope
