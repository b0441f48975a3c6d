"""Backtests: forecasts from rolling origins, and their errors, in one batched pass.

Axis legend: n windows, H horizon, T targets. Times are positions on the time axis
(:mod:`sciseq.model_selection.time_axis`); an origin is named by its first target time.
"""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted

from sciseq.data.calendar import season_for_step
from sciseq.data.containers import read_panel
from sciseq.data.panel import FloatArray, Panel
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
)
from sciseq.model_selection.scoring import check_metric
from sciseq.model_selection.time_axis import (
    TRAINING_RULES,
    IntArray,
    check_arguments,
    panel_times,
    training_rows,
)
from sciseq.parameters import AnyOf, Boolean, Integer, Nothing, Rule

__all__ = ["Backtest", "backtest"]

_COUNT = AnyOf(Nothing(), Integer(1))
BACKTEST_RULES: dict[str, Rule] = {
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
# Share of the times that is forecast when the caller does not say.
TEST_SHARE = 0.2


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
    metrics: Sequence[str] = ("mse", "mae", "rmse", "mase"),
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
    metrics : sequence of str, default=("mse", "mae", "rmse", "mase")
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
    arguments = {
        name: value for name, value in locals().items() if name in BACKTEST_RULES
    }
    check_arguments("backtest", arguments, BACKTEST_RULES)
    for name in metrics:
        check_metric(name)
    model = _prepare(model, horizon, fit, refit)
    plan = _Plan.over(
        _read(X),
        model.horizon,
        test_size,
        n_origins,
        stride=stride,
        gap=gap,
        window=window,
        train_size=train_size,
        context=context,
    )
    if fit:
        plan.fit(model, plan.first)
    else:
        _warn_of_seen_rows(model, plan)
    return _summarise(model, plan, refit, metrics, season_length, scaled, keep_forecasts)
