"""Exponential smoothing, ARIMA, Theta and autoregression, through statsmodels.

Axis legend: n windows, L lookback, H horizon, S series, T targets, P parameters,
F future covariates.
"""

import warnings
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from sciseq.data.calendar import season_for_step
from sciseq.data.panel import FloatArray
from sciseq.data.windows import WindowInputs, WindowSet
from sciseq.errors import DataQualityError, InputError, SciSeqWarning
from sciseq.forecasting.base import FORECASTER_RULES
from sciseq.forecasting.classical_estimation import (
    Estimates,
    check_positive,
    estimate_all,
    interpolated,
)
from sciseq.forecasting.classical_models import SARIMAX, AutoReg, ClassicalModel
from sciseq.forecasting.panel_windows import UNSEEN, PanelForecaster, PanelWindows
from sciseq.forecasting.roles import is_given
from sciseq.forecasting.smoothing_models import ETS, Theta
from sciseq.parameters import AnyOf, Boolean, Instance, Integer, Nothing, Option, Real
from sciseq.parameters import Rule as ParameterRule

__all__ = ["StatsmodelsForecaster"]


class StatsmodelsForecaster(PanelForecaster):
    r"""ETS, SARIMAX, Theta or AutoReg for each series and target by itself.

    Parameters are estimated by statsmodels on the training rows. A forecast filters
    the rows of its window with these parameters, and estimates nothing, so that
    backtests over many origins are affordable.

    Parameters
    ----------
    model : {"ets", "sarimax", "theta", "autoreg"}, default="ets"
        Exponential smoothing with error, trend and season; seasonal ARIMA with future
        covariates as regressors; the Theta method; autoregression by least squares.
    lookback : int, default=96
        Rows that a forecast filters. Season and trend are told from these, so that it
        should span several seasons.
    horizon : int, default=24
        Rows to forecast.
    season_length : int or "auto", default="auto"
        Rows of one season. ``"auto"`` takes the usual one for the step of the index
        (24 for hours, 12 for months, ...) where two of them fit into the lookback, and
        none otherwise.
    error : {"add", "mul"}, default="add"
        ETS: whether errors add or multiply.
    trend : {"add", "mul", None}, default="add"
        ETS: how the trend enters.
    damped_trend : bool, default=True
        ETS: whether the trend fades.
    seasonal : {"auto", "add", "mul", None}, default="auto"
        ETS and Theta: how the season enters. ``"auto"``: ETS adds it; Theta tests for
        it, and multiplies where all values are positive.
    order : (int, int, int), default=(1, 0, 0)
        SARIMAX: lags :math:`p`, differences :math:`d`, and moving averages :math:`q`.
    seasonal_order : (int, int, int), default=(0, 0, 0)
        SARIMAX: the same at whole seasons.
    lags : int or list of int, default=1
        AutoReg: lags up to this one, or just these.
    constant : bool or "auto", default="auto"
        SARIMAX and AutoReg: whether there is a constant; with differences it is a
        drift. ``"auto"``: unless there are differences.
    theta : float, default=2.0
        Theta: curvature kept of the second line; the drift is
        :math:`(\theta - 1) / \theta` of the slope.
    targets : label or list of labels, optional
        Columns to forecast; all by default.
    future_covariates : label or list of labels, optional
        SARIMAX: columns known ahead, and calendar features, as regressors.
    missing : {"error", "mask", "interpolate"}, default="error"
        What to do with NaN. ``"mask"``: SARIMAX filters through the gaps; the other
        models know no gaps, and theirs are interpolated inside each window.
    standardize : bool, default=True
        Estimate and filter each series and target divided by its standard deviation,
        minus its mean where that changes nothing but the level. The optimisers of
        statsmodels find different parameters in different units; False leaves it so.
    validation_fraction : float, default=0.1
        Share of the rows, at the end, that calibrate intervals.
    refit_on_all : bool, default=False
        Estimate again on all rows.
    nonnegative : bool, default=False
        Raise negative forecasts to zero.
    max_iter : int, default=500
        Iterations of the optimiser.
    n_jobs : int, optional
        Processes that estimate; None is one, -1 all cores.

    Attributes
    ----------
    parameters_ : ndarray of shape (S, T, P)
        Estimated parameters of the standardised values; NaN where nothing could be
        estimated. See :meth:`parameter_table`.
    parameter_names_ : tuple of str
        Their names.
    centre_, spread_ : ndarray of shape (S, T)
        What is taken from the values, and what they are divided by.
    season_length_ : int
        Season used; 1 for none.
    fallback_ : ndarray of shape (n_columns,)
        Training means, used where a window holds no value at all.

    Notes
    -----
    A window is no continuation of the training rows: what stood before it is not
    known. SARIMAX starts it as statsmodels starts a series, additive ETS by least
    squares, other ETS and Theta by the classical decomposition. The docs page of the
    method says how.

    A constant series, and one for which statsmodels fails (with a warning that names
    it), repeat their last value. A series that fit has not seen, and ready-made windows
    in fit, are estimated on the rows of the window alone: one estimation for every
    forecast.

    References
    ----------
    Hyndman, Koehler, Ord and Snyder, Forecasting with exponential smoothing, 2008.
    Durbin and Koopman, Time series analysis by state space methods, 2012.
    Assimakopoulos and Nikolopoulos, The theta model, 2000. Seabold and Perktold,
    Statsmodels: econometric and statistical modeling with Python, 2010.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.sin(np.arange(63.0) / 3).reshape(-1, 1)
    >>> model = StatsmodelsForecaster(
    ...     model="autoreg", lags=2, lookback=8, horizon=3
    ... )
    >>> bool(np.allclose(model.fit(X[:60]).predict(), X[60:]))
    True
    >>> model.parameter_table().columns.tolist()
    ['const', 'lag 1', 'lag 2', 'centre', 'spread']
    """

    _covariates: ClassVar[frozenset[str]] = frozenset({"future"})
    _parameter_rules: ClassVar[dict[str, ParameterRule]] = {
        "model": Option("ets", "sarimax", "theta", "autoreg"),
        "season_length": AnyOf(Option("auto"), Integer(1)),
        "error": Option("add", "mul"),
        "trend": AnyOf(Nothing(), Option("add", "mul")),
        "damped_trend": Boolean(),
        "seasonal": AnyOf(Nothing(), Option("auto", "add", "mul")),
        "order": Instance("three integers (p, d, q)", tuple, list),
        "seasonal_order": Instance("three integers (P, D, Q)", tuple, list),
        "lags": AnyOf(Integer(1), Instance("a list of lags", tuple, list)),
        "constant": AnyOf(Option("auto"), Boolean()),
        "theta": Real(1.0),
        "standardize": Boolean(),
        "max_iter": Integer(1),
        "n_jobs": AnyOf(Nothing(), Instance("an integer other than 0", int)),
        **{
            name: FORECASTER_RULES[name]
            for name in (
                "lookback",
                "horizon",
                "targets",
                "future_covariates",
                "missing",
                "validation_fraction",
                "refit_on_all",
                "nonnegative",
            )
        },
    }

    def __init__(
        self,
        *,
        model: str = "ets",
        lookback: int = 96,
        horizon: int = 24,
        season_length: int | str = "auto",
        error: str = "add",
        trend: str | None = "add",
        damped_trend: bool = True,
        seasonal: str | None = "auto",
        order: Sequence[int] = (1, 0, 0),
        seasonal_order: Sequence[int] = (0, 0, 0),
        lags: int | Sequence[int] = 1,
        constant: bool | str = "auto",
        theta: float = 2.0,
        targets: Any = None,
        future_covariates: Any = None,
        missing: str = "error",
        standardize: bool = True,
        validation_fraction: float = 0.1,
        refit_on_all: bool = False,
        nonnegative: bool = False,
        max_iter: int = 500,
        n_jobs: int | None = None,
    ) -> None:
        self.model = model
        self.lookback = lookback
        self.horizon = horizon
        self.season_length = season_length
        self.error = error
        self.trend = trend
        self.damped_trend = damped_trend
        self.seasonal = seasonal
        self.order = order
        self.seasonal_order = seasonal_order
        self.lags = lags
        self.constant = constant
        self.theta = theta
        self.targets = targets
        self.future_covariates = future_covariates
        self.missing = missing
        self.standardize = standardize
        self.validation_fraction = validation_fraction
        self.refit_on_all = refit_on_all
        self.nonnegative = nonnegative
        self.max_iter = max_iter
        self.n_jobs = n_jobs

    def _parameter_relations(self) -> list[str]:
        problems = [
            f"{name}={given!r} is not allowed: must be three integers of at least 0"
            + (", the season is season_length=" if name != "order" else "")
            for name in ("order", "seasonal_order")
            if len(given := getattr(self, name)) != 3
            or not all(Integer(0).allows(one) for one in given)
        ]
        lags = [self.lags] if isinstance(self.lags, int) else list(self.lags)
        if not lags or not all(Integer(1).allows(lag) for lag in lags):
            problems.append(f"lags={self.lags!r} must be integers of at least 1")
        elif self.model == "autoreg" and max(lags) > self.lookback:
            problems.append(
                f"lookback={self.lookback} is shorter than the lag {max(lags)}"
            )
        if self.n_jobs == 0:
            problems.append("n_jobs=0 is not allowed: must be None or not 0")
        if is_given(self.future_covariates) and self.model != "sarimax":
            problems.append(
                f"future_covariates= need model='sarimax', model={self.model!r} cannot "
                "use them"
            )
        if problems or self.season_length == "auto":
            return problems
        if self._uses_season and self.lookback < 2 * int(self.season_length):
            problems.append(
                f"lookback={self.lookback} is shorter than two seasons of "
                f"season_length={self.season_length}"
            )
        return problems

    @property
    def _uses_season(self) -> bool:
        return self.model in ("ets", "theta") and self.seasonal is not None

    @property
    def _usable_covariates(self) -> frozenset[str]:
        """Kinds of covariates that these settings can use."""
        return self._covariates if self.model == "sarimax" else frozenset()

    # -------------------------------------------------------------------- fit

    def _prepare(self) -> None:
        self.season_length_ = self._settle_season()
        is_seasonal = self.model == "sarimax" and any(self.seasonal_order)
        if is_seasonal and self.season_length_ == 1:
            raise InputError(
                f"seasonal_order={tuple(self.seasonal_order)} needs a season, and none "
                "is told from the index",
                where="season_length",
                hint="Give season_length=, the number of rows of one season.",
            )
        # Regressors are needed at the rows of the look-back too.
        self.calendar_ = self.future_calendar_
        self.parameter_names_ = self._names()

    def _names(self) -> tuple[str, ...]:
        model = self._classical()
        names = list(model.names)
        if isinstance(model, SARIMAX):
            # Weights of covariates stand after the constant.
            columns = self.columns_ or range(self.n_features_in_)
            known = [str(columns[position]) for position in self.future_positions_]
            first = int(model.constant)
            names[first : first + self._n_known] = [*known, *self.future_calendar_]
        return tuple(names)

    def _settle_season(self) -> int:
        if self.season_length != "auto":
            return int(self.season_length)
        found = season_for_step(self.step_) or 1
        fits = self.model == "sarimax" or 2 * found <= self.lookback
        return int(found) if fits else 1

    def _classical(self) -> ClassicalModel:
        """Build the model asked for, with the season that was found."""
        m = self.season_length_
        if self.model == "autoreg":
            lags = self.lags
            chosen = range(1, lags + 1) if isinstance(lags, int) else sorted(set(lags))
            constant = self.constant == "auto" or bool(self.constant)
            return AutoReg(tuple(int(lag) for lag in chosen), constant)
        if self.model == "theta":
            return Theta(float(self.theta), m, self.seasonal if m > 1 else None)
        if self.model == "ets":
            kind = "add" if self.seasonal == "auto" else self.seasonal
            season = kind if m > 1 else None
            return ETS(
                self.error, self.trend, self.damped_trend, season, m, self.max_iter
            )
        (p, d, q), (P, D, Q) = self.order, self.seasonal_order
        constant = d + D == 0 if self.constant == "auto" else bool(self.constant)
        return SARIMAX(
            (p, d, q), (P, D, Q), m, constant, self._n_known, int(self.max_iter)
        )

    def _fit(self, training: WindowSet, validation: WindowSet | None) -> None:
        self.fallback_ = np.nan_to_num(np.nanmean(training.values, axis=0))
        T, P = len(self.target_positions_), len(self.parameter_names_)
        S = len(self.fitted_ids_)  # 0 for ready-made windows
        lengths = (
            [len(training.values)] if training.lengths is None else training.lengths
        )
        bounds = np.cumsum(lengths)[:-1]
        series = np.split(training.values, bounds)
        regressors = self._training_regressors(training, bounds)
        cases = [(place, target) for place in range(S) for target in range(T)]
        columns = [
            (series[place][:, self.target_positions_[target]], regressors[place])
            for place, target in cases
        ]
        names = [
            _name(training, place, int(self.target_positions_[target]))
            for place, target in cases
        ]
        found = self._estimate(columns, names)
        self.parameters_ = found.parameters.reshape(S, T, P)
        self.centre_ = found.centre.reshape(S, T)
        self.spread_ = found.spread.reshape(S, T)

    def _training_regressors(
        self, training: WindowSet, bounds: npt.NDArray[np.int64]
    ) -> list[FloatArray | None]:
        """Gather what is known ahead at the training rows, (n_rows, F) per series."""
        if self._n_known == 0:
            return [None] * (len(bounds) + 1)
        known = training.values[:, self.future_positions_]
        if training.future_marks is not None:
            known = np.concatenate([known, training.future_marks], axis=1)
        if np.isnan(known).any():
            raise DataQualityError(
                "a future covariate is missing in the training rows, and a regression "
                "needs all of them",
                where="future_covariates",
                hint="Choose missing='interpolate', or fill the gaps.",
            )
        return list(np.split(known, bounds))

    def _estimate(
        self,
        columns: Sequence[tuple[FloatArray, FloatArray | None]],
        names: Sequence[str],
    ) -> Estimates:
        """Estimate on some series, and warn of those that make trouble."""
        found, problems = estimate_all(
            self._classical(), columns, names, self.standardize, self.n_jobs
        )
        if problems:
            more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
            warnings.warn(
                f"the estimation of {self.model!r} had problems in {len(problems)} of "
                f"{len(columns)} cases: {'; '.join(problems[:5])}{more}",
                SciSeqWarning,
                stacklevel=7,
            )
        return found

    # --------------------------------------------------------------- forecast

    def _forecast(self, inputs: WindowInputs) -> FloatArray:
        model = self._classical()
        regressors = self._regressors(inputs)
        forecast = np.empty((len(inputs), self.horizon, len(self.target_positions_)))
        for target, position in enumerate(self.target_positions_):
            x = inputs.values[:, :, position]
            is_empty = np.isnan(x).all(axis=1, keepdims=True)
            x = np.where(is_empty, self.fallback_[position], x)
            check_positive(model, x, f"target {target}")
            estimates = self._estimates_for(x, regressors, inputs.series, target)
            known = inputs.known
            forecast[:, :, target] = self._column(
                model, x, estimates, regressors, known
            )
        return forecast

    def _regressors(self, inputs: WindowInputs) -> FloatArray | None:
        """Gather what is known ahead at the rows of the look-back, (n, L, F)."""
        if self._n_known == 0:
            return None
        parts = [inputs.values[..., self.future_positions_]]
        if inputs.marks is not None:
            parts.append(inputs.marks.astype(np.float64))
        return np.concatenate(parts, axis=2)

    def _estimates_for(
        self,
        x: FloatArray,
        regressors: FloatArray | None,
        places: npt.NDArray[np.int64] | None,
        target: int,
    ) -> Estimates:
        """Estimates of the series of each window (n, L); on itself where unseen."""
        if places is None:
            places = np.full(len(x), 0 if len(self.parameters_) == 1 else UNSEEN)
        unseen = np.flatnonzero(places == UNSEEN)
        found = self._estimate(
            [(x[n], None if regressors is None else regressors[n]) for n in unseen],
            [f"window {n}, target {target}" for n in unseen],
        )
        kept = (self.parameters_, self.centre_, self.spread_)
        parts = []
        for old, new in zip(kept, found, strict=True):
            part = np.empty((len(x), *new.shape[1:]))
            part[places != UNSEEN] = old[places[places != UNSEEN], target]
            part[unseen] = new
            parts.append(part)
        return Estimates(*parts)

    def _column(
        self,
        model: ClassicalModel,
        x: FloatArray,
        estimates: Estimates,
        regressors: FloatArray | None,
        known: FloatArray | None,
    ) -> FloatArray:
        """Forecasts (n, H) of one target from its windows (n, L)."""
        H = int(self.horizon)
        filled = interpolated(x)
        # Where nothing could be estimated, the last value stays.
        forecast = np.repeat(filled[:, -1:], H, axis=1)
        able = np.isfinite(estimates.parameters).all(axis=1)
        if not able.any():
            return forecast
        parameters, centre, spread = (part[able] for part in estimates)
        rows = (x if model.handles_gaps else filled)[able]
        rows = (rows - centre[:, None]) / spread[:, None]
        ahead: Any = 0.0
        if isinstance(model, SARIMAX) and regressors is not None and known is not None:
            weights, parameters = model.regression(parameters)
            rows -= np.einsum("nlf,nf->nl", regressors[able], weights)
            ahead = np.einsum("nhf,nf->nh", known[able], weights)
        scaled = model.forecast(rows, parameters, H) + ahead
        forecast[able] = scaled * spread[:, None] + centre[:, None]
        return forecast

    def parameter_table(self) -> Any:
        """Estimated parameters as a table.

        Returns
        -------
        DataFrame of shape (S * T, P + 2)
            One row for each series and target; one column for each parameter, then
            ``centre`` and ``spread``: what was taken from the values, and what they
            were divided by, before the estimation.
        """
        import pandas as pd

        self._check_is_fitted()
        columns = self.columns_ or range(self.n_features_in_)
        labels = [columns[position] for position in self.target_positions_]
        index = pd.MultiIndex.from_product(
            [self.fitted_ids_, labels], names=["series", "target"]
        )
        values = self.parameters_.reshape(len(index), -1)
        table = pd.DataFrame(values, index=index, columns=list(self.parameter_names_))
        return table.assign(centre=self.centre_.ravel(), spread=self.spread_.ravel())


def _name(training: WindowSet, place: int, position: int) -> str:
    """Name a series and a column for messages."""
    if not isinstance(training, PanelWindows):
        return f"column {position}"
    panel = training.panel
    return panel.series_label(place) + panel.column_label(position)
