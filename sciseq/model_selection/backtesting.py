"""Backtests: forecasts from rolling origins, and their errors, in one batched pass.

Axis legend: n windows, H horizon, T targets. Times are positions on the time axis
(:mod:`sciseq.model_selection.time_axis`); an origin is named by its first target time.
"""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted

from sciseq.data.calendar import season_for_step
from sciseq.data.panel import FloatArray
from sciseq.data.timeline import infer_step
from sciseq.errors import InputError, SciSeqWarning
from sciseq.metrics import METRICS
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
from sciseq.model_selection.origins import OriginPlan
from sciseq.model_selection.scoring import check_metric
from sciseq.model_selection.time_axis import TRAINING_RULES, IntArray, check_arguments
from sciseq.parameters import AnyOf, Boolean, Integer, Nothing, Rule

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
    "keep_forecasts": Boolean(),
}


@dataclass(frozen=True, repr=False, eq=False)
class Backtest:
    """Errors and forecasts of a backtest.

    Parameters
    ----------
    metrics : pandas.DataFrame
        One row (named after the model), one column per metric: errors over all windows.
        Rows of several backtests make a comparison: ``pandas.concat``.
    per_step, per_target : pandas.DataFrame
        One row per step of the horizon (from 1), or per target.
    per_window : pandas.DataFrame
        One row per window. Its index is the origin, that is the label of the last row
        before the forecast (with the series before it, for a panel).
    forecasts : pandas.DataFrame, or None
        One row per forecast row, with index levels ``origin`` and ``time`` (and
        ``series`` before them, for a panel). Columns are two-level:
        ``forecasts["forecast"]`` and ``forecasts["truth"]`` have one column per target.
    n_unobserved : int
        Values of the truth that are missing, and not counted.
    """

    metrics: pd.DataFrame
    per_step: pd.DataFrame
    per_target: pd.DataFrame
    per_window: pd.DataFrame
    forecasts: pd.DataFrame | None
    n_unobserved: int

    @property
    def n_windows(self) -> int:
        """Number of forecasts made, each of ``horizon`` rows."""
        return len(self.per_window)

    @property
    def horizon(self) -> int:
        """Rows of each forecast."""
        return len(self.per_step)

    def __repr__(self) -> str:
        origins = self.per_window.index.get_level_values("origin")
        return (
            f"Backtest: {self.n_windows} windows of {self.horizon} rows, origins "
            f"{origins.min()} to {origins.max()}\n"
            f"{self.metrics.to_string(float_format='{:.6g}'.format)}"
        )


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
    keep_forecasts: bool = True,
) -> Backtest:
    """Forecast from rolling origins as if the future were not known, and compare.

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
    keep_forecasts : bool, default=True
        Keep forecasts and truths; they take 16 bytes for each step of each window and
        target.

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
    """
    arguments = dict(locals())
    check_arguments("backtest", {name: arguments[name] for name in RULES}, RULES)
    names = _metric_names(metrics)
    model = _prepared(model, horizon, fit, refit)
    plan = OriginPlan.over(X, model.horizon, arguments)
    if fit:
        model.fit(plan.training_data(plan.first))
    else:
        _warn_of_seen_rows(model, plan)
    if context is not None:
        check_context(model, context, "backtest")
    plan, batches = _refitted(model, plan) if refit else _batched(model, plan)
    tables = _tables(model, plan, names, season_length, scaled)
    record = _Record(keep_forecasts)
    for batch in batches:
        tables.update(batch)
        record.add(batch)
    return _result(model, plan, tables, record)


def _metric_names(metrics: str | Sequence[str]) -> list[str]:
    names = [metrics] if isinstance(metrics, str) else list(dict.fromkeys(metrics))
    if not names:
        raise InputError(
            "no metric was given",
            where="metrics",
            hint=f"Metrics are {', '.join(METRICS)}.",
        )
    for name in names:
        check_metric(name)
    return names


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


_Batches = Iterator[WindowForecasts]


def _batched(model: Forecaster, plan: OriginPlan) -> tuple[OriginPlan, _Batches]:
    """All windows by one fitted model; the plan in the model's order of columns."""
    first_rows = plan.first_rows(plan.context or model._context_length)
    lengths = plan.panel.lengths
    series = np.flatnonzero(first_rows + plan.horizon <= lengths)
    if len(series) == 0:
        raise _no_window(plan)
    shown = np.zeros_like(lengths)
    shown[series] = lengths[series]
    cleaned = model._evaluation_panel(as_container(plan.panel, 0, shown))
    plan = replace(plan, panel=match_to(cleaned, plan.panel))
    raw = select_series(plan.panel, series)

    def batches() -> _Batches:
        for batch in forecast_windows(
            model, raw, cleaned, first_rows[series], stride=plan.stride
        ):
            yield batch._replace(series=series[batch.series])

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
                yield forecast_from(fitted, plan.panel, rows)

    return plan, batches()


def _no_window(plan: OriginPlan) -> InputError:
    return InputError(
        "no window: no series has both the rows to look back on and the "
        f"{plan.horizon} rows to forecast at any of {len(plan.origins)} origins",
        where="X",
        hint="Choose later origins, or a shorter lookback, context or horizon.",
    )


def _tables(
    model: Forecaster,
    plan: OriginPlan,
    metrics: Sequence[str],
    season_length: int | None,
    scaled: bool,
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
    return ErrorTables(metrics, training, season_length or 1, scaled)


class _Record:
    """Where the windows are, and what was forecast."""

    def __init__(self, keep_forecasts: bool) -> None:
        self.series: list[IntArray] = []
        self.rows: list[IntArray] = []
        self.blocks: list[FloatArray] | None = [] if keep_forecasts else None

    def add(self, batch: WindowForecasts) -> None:
        self.series.append(batch.series)
        self.rows.append(batch.rows)
        if self.blocks is not None:
            both = np.concatenate([batch.truth, batch.forecast], axis=2)
            self.blocks.append(both)  # (n, H, 2T)


def _result(
    model: Any, plan: OriginPlan, tables: ErrorTables, record: _Record
) -> Backtest:
    if not record.series:
        raise _no_window(plan)
    series, rows = np.concatenate(record.series), np.concatenate(record.rows)
    # Refitting goes origin by origin, batches go series by series.
    order = np.lexsort((rows, series))
    labels = plan.panel.columns or range(plan.panel.n_columns)
    targets = [labels[position] for position in model._targets_of(plan.panel)]
    forecasts = None
    if record.blocks is not None:
        block = np.concatenate(record.blocks)[order]
        forecasts = pd.DataFrame(
            block.reshape(-1, block.shape[2]),  # (n, H, 2T) -> (n H, 2T)
            index=plan.forecast_index(series[order], rows[order]),
            columns=pd.MultiIndex.from_product([["truth", "forecast"], targets]),
        )
    per_window = tables.per_window(plan.window_index(series, rows))
    return Backtest(
        metrics=tables.overall(type(model).__name__),
        per_step=tables.per_step(),
        per_target=tables.per_target(targets),
        per_window=per_window.iloc[order],
        forecasts=forecasts,
        n_unobserved=tables.n_unobserved,
    )
