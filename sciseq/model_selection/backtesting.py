"""Backtests: forecasts from rolling origins, and their errors, in one batched pass.

Axis legend: n windows, H horizon, T targets. Times are positions on the time axis
(:mod:`sciseq.model_selection.time_axis`); an origin is named by its first target time.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted

from sciseq.data.calendar import season_for_step
from sciseq.data.timeline import infer_step
from sciseq.errors import InputError, SciSeqWarning
from sciseq.metrics import METRICS, QuantileErrors
from sciseq.model_selection.backtest_result import (
    Backtest,
    Record,
    no_window,
    write_result,
)
from sciseq.model_selection.calibration import CALIBRATIONS, Calibrator
from sciseq.model_selection.error_tables import ErrorTables
from sciseq.model_selection.evaluation import (
    Forecaster,
    WindowForecasts,
    as_container,
    check_context,
    check_forecaster,
    forecast_from,
    forecast_windows,
    match_to,
    select_series,
)
from sciseq.model_selection.metric_choice import metric_names, quantile_errors
from sciseq.model_selection.origins import OriginPlan
from sciseq.model_selection.time_axis import TRAINING_RULES, check_arguments
from sciseq.parameters import AnyOf, Boolean, Integer, Nothing, Option, Rule

__all__ = ["Backtest", "backtest"]

_COUNT = AnyOf(Nothing(), Integer(1))
RULES: dict[str, Rule] = {
    **TRAINING_RULES,
    "horizon": _COUNT,
    "test_size": _COUNT,
    "n_origins": _COUNT,
    "season_length": _COUNT,
    "context": _COUNT,
    "stride": Integer(1),
    "refit": Boolean(),
    "fit": Boolean(),
    "scaled": Boolean(),
    "calibration": Option(*CALIBRATIONS),
    "calibration_windows": Integer(1),
    "keep_forecasts": Boolean(),
}


def backtest(
    model: Any,
    X: Any,
    *,
    horizon: int | None = None,
    test_size: int | None = None,
    n_origins: int | None = None,
    stride: int = 1,
    gap: int = 0,
    refit: bool = False,
    fit: bool = True,
    window: str = "expanding",
    train_size: int | None = None,
    context: int | None = None,
    metrics: str | Sequence[str] = ("mse", "mae", "rmse", "mase"),
    season_length: int | None = None,
    scaled: bool = False,
    coverage: float | Sequence[float] | None = None,
    quantiles: npt.ArrayLike | None = None,
    calibration: str = "adaptive",
    calibration_windows: int = 2000,
    keep_forecasts: bool = True,
) -> Backtest:
    r"""Forecast from rolling origins as if the future were not known, and compare.

    A clone of the model is fitted once, on the rows before the first target row, and
    forecasts from every origin in one batched pass; ``refit=True`` fits a new clone at
    every origin. The model given is left as it is.

    Parameters
    ----------
    model : forecaster or ForecastPipeline
        Fitted or not.
    X : same kinds of container as in ``fit``
        One or many series; ready-made windows are refused.
    horizon : int, optional
        Rows to forecast, set on the clone; by default the model's own.
    test_size : int, optional
        Times, at the end of X, that are targets; by default a fifth. The first origin
        is before them, the last leaves a whole horizon.
    n_origins : int, optional
        Number of origins instead, the last of which leaves just one horizon.
    stride : int, default=1
        Times between neighbouring origins.
    gap : int, default=0
        Times between the end of the training rows and the first target row. Forecasts
        still look back on them.
    refit : bool, default=False
        Fit anew at every origin, on the rows known there.
    fit : bool, default=True
        False takes the fitted model as it is. Its training data must end before the
        first target row.
    window : {"expanding", "sliding"}, default="expanding"
        Train on all earlier times, or on the last ``train_size``.
    train_size : int, optional
        Times of a sliding window; by default those of the first training part.
    context : int, optional
        Rows before an origin that a series must have to be forecast there; by default
        the model's lookback. Where series start late, give the longest lookback to
        compare models on the same windows; series with fewer than ``context + horizon``
        training rows are then not learnt from.
    metrics : str or sequence of str, default=("mse", "mae", "rmse", "mase")
        Names in ``sciseq.metrics.METRICS``.
    season_length : int, optional
        Rows of one season for MASE and RMSSE; by default the usual one for the step of
        the index (24 for hours, 12 for months, ...), else 1.
    scaled : bool, default=False
        Standardise truth and forecasts with the training rows of the first origin
        before all metrics but MASE and RMSSE, as published long-horizon results do.
    coverage : float or sequence of float, optional
        Shares of truths that central intervals should hold. They are judged by
        ``interval_score`` and ``coverage``; with a sequence by columns of its own for
        each, such as ``coverage_0.9``.
    quantiles : array-like of float, optional
        Levels of quantiles, judged by ``pinball`` (mean over the levels) and ``crps``
        (twice that, which needs evenly spread levels such as 0.05, 0.15, ..., 0.95).
    calibration : {"adaptive", "rolling", "fixed"}, default="adaptive"
        Which errors set intervals and quantiles. ``"fixed"``: those that the model
        held out in fit, as its ``predict_quantiles`` does. ``"rolling"``: at every
        origin those of the latest windows of the same series whose truth is known
        there, step by step; at first they are made up by those of fit. ``"adaptive"``:
        the same, at levels that rise or fall as truths are missed or held.
    calibration_windows : int, default=2000
        How many of the latest windows are looked at. Neighbouring windows overlap:
        2000 windows of 96 rows, one row apart, hold 20 that do not.
    keep_forecasts : bool, default=True
        Keep forecasts, quantiles and truths; each takes 8 bytes for each step of each
        window and target.

    Returns
    -------
    Backtest
        Tables of errors, and the forecasts in the units of the data.

    Raises
    ------
    InputError
        For arguments out of range, too few rows, or no window at all.
    InputTypeError
        For an object that is no forecaster.
    DataQualityError
        When series of a panel are not on one grid of times.

    Warns
    -----
    SciSeqWarning
        When a model with ``fit=False`` has seen rows that it is to forecast.

    Notes
    -----
    Every window counts once, also the last ones; a truth that is missing is not
    counted. Series of a panel are cut at the same times; a series takes part in the
    origins for which it has context and truth. MASE and RMSSE divide by the in-sample
    error of the seasonal naive forecast on the training rows of the first origin (the
    rows before it for ``fit=False``), of each series by itself.

    The truth of step h is known h rows after an origin, so that rolling errors of the
    last steps are older than those of the first. Quantiles are errors by their ranks
    out of n + 1 (split-conformal prediction). Adaptive levels move by
    :math:`\tau' \leftarrow \tau' + 0.001\, (\tau - 1\{y \le q\})` for each step, target
    and level by itself, whenever a truth becomes known.
    Networks that forecast quantiles, and pipelines, are asked for them; their errors
    correct them from 100 known windows on.

    References
    ----------
    Gibbs and Candès, Adaptive conformal inference under distribution shift,
    arXiv:2106.00170.

    Examples
    --------
    >>> import numpy as np
    >>> from sciseq import NaiveForecaster
    >>> X = np.arange(40.0).reshape(-1, 1)
    >>> result = backtest(NaiveForecaster(horizon=3), X, n_origins=5)
    >>> result.n_windows, float(result.metrics.loc["NaiveForecaster", "mae"])
    (5, 2.0)
    >>> result.forecasts.loc[32]  # origin 32: the last row known to the forecast
         truth forecast
             0        0
    time
    33    33.0     32.0
    34    34.0     32.0
    35    35.0     32.0

    Intervals and their scores:

    >>> noise = np.random.default_rng(0).normal(size=(400, 1))
    >>> result = backtest(NaiveForecaster(horizon=3), noise, coverage=0.8)
    >>> result.metrics[["interval_score", "coverage"]].round(2).values.tolist()
    [[4.61, 0.83]]
    >>> lower, upper = result.interval(0.8)
    """
    arguments = dict(locals())
    check_arguments("backtest", {name: arguments[name] for name in RULES}, RULES)
    make_errors = quantile_errors(quantiles, coverage)
    names = metric_names(metrics, make_errors)
    model = _prepared(model, horizon, fit, refit)
    plan = OriginPlan.over(X, model.horizon, arguments)
    if fit:
        model.fit(plan.training_data(plan.first))
    else:
        _warn_of_seen_rows(model, plan)
    if context is not None:
        check_context(model, context, "backtest")
    plan, batches = _refitted(model, plan) if refit else _batched(model, plan)
    tables = _tables(model, plan, names, season_length, scaled, make_errors)
    levels = () if make_errors is None else make_errors().levels
    record = Record(keep_forecasts, levels)
    calibrator = Calibrator(levels, calibration, calibration_windows)
    for fitted, batch in batches:
        if levels:
            batch = calibrator.add(fitted, plan.panel, batch)
        tables.update(batch)
        record.add(batch)
    return write_result(model, plan, tables, record)


def _prepared(model: Any, horizon: int | None, fit: bool, refit: bool) -> Forecaster:
    """Clone with the horizon asked for, or the fitted model itself."""
    check_forecaster(model)
    if not fit:
        check_is_fitted(model)
        if refit or horizon not in (None, model.horizon):
            raise InputError(
                "fit=False takes the model as it is, with its horizon of "
                f"{model.horizon}; refit={refit} and horizon={horizon} need a new fit",
                where="backtest",
                hint="Leave out fit=False.",
            )
        return cast(Forecaster, model)
    copy = clone(model)
    if horizon is not None:
        # A pipeline hands the name on to its last step: "model__horizon".
        names = [
            name for name in copy.get_params() if name.split("__")[-1] == "horizon"
        ]
        copy.set_params(**dict.fromkeys(names, horizon))
    return cast(Forecaster, copy)


def _warn_of_seen_rows(model: Any, plan: OriginPlan) -> None:
    """Warn when the dates of the training data reach into the rows to forecast."""
    known = getattr(model, "context_", None)
    kind = type(plan.axis)
    if known is None or not issubclass(kind, pd.DatetimeIndex | pd.PeriodIndex):
        return
    ends: list[Any] = [index[-1] for index in known.times if type(index) is kind]
    if ends and max(ends) >= plan.axis[plan.first]:
        warnings.warn(
            f"the model was fitted on rows up to {max(ends)}, and is to forecast from "
            f"{plan.axis[plan.first]} on: errors on rows that it has seen are too good",
            SciSeqWarning,
            stacklevel=3,
        )


# Batches, with the fitted model that made each.
_Batches = Iterator[tuple[Any, WindowForecasts]]


def _batched(model: Forecaster, plan: OriginPlan) -> tuple[OriginPlan, _Batches]:
    """All windows by one fitted model; the plan in the model's order of columns."""
    first_rows = plan.first_rows(plan.context or model._context_length)
    lengths = plan.panel.lengths
    series = np.flatnonzero(first_rows + plan.horizon <= lengths)
    if len(series) == 0:
        raise no_window(plan)
    shown = np.zeros_like(lengths)
    shown[series] = lengths[series]
    cleaned = model._evaluation_panel(as_container(plan.panel, 0, shown))
    plan = replace(plan, panel=match_to(cleaned, plan.panel))
    raw = select_series(plan.panel, series)

    def batches() -> _Batches:
        for batch in forecast_windows(
            model, raw, cleaned, first_rows[series], stride=plan.stride
        ):
            yield model, batch._replace(series=series[batch.series])

    return plan, batches()


def _refitted(model: Forecaster, plan: OriginPlan) -> tuple[OriginPlan, _Batches]:
    """Windows origin by origin, each by a model that knows the rows up to there."""

    def batches() -> _Batches:
        fitted = model
        for origin in plan.origins:
            if origin > plan.first:
                fitted = clone(model).fit(plan.training_data(origin))
            context = plan.context or fitted._context_length
            rows = plan.rows_at(origin, context)
            if rows.any():
                yield fitted, forecast_from(fitted, plan.panel, rows)

    return plan, batches()


def _tables(
    model: Forecaster,
    plan: OriginPlan,
    metrics: Sequence[str],
    season_length: int | None,
    scaled: bool,
    make_errors: Callable[[], QuantileErrors] | None,
) -> ErrorTables:
    """Empty tables, with the scales that the training rows give."""
    targets = model._targets_of(plan.panel)
    bounds = zip(*plan.training_bounds(plan.first), strict=True)
    training = [
        values[start:stop, targets]
        for values, (start, stop) in zip(plan.panel.values, bounds, strict=True)
    ]
    if season_length is None and any(METRICS[name].needs_scale for name in metrics):
        index = plan.panel.times[0]
        step = None if index is None else infer_step(index)
        season_length = season_for_step(step)
    return ErrorTables(metrics, training, season_length or 1, scaled, make_errors)
