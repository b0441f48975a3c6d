"""What a fitted model itself says about quantiles: its residuals, or its forecasts.

Axis legend: n windows, H horizon, T targets, Q levels.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from sciseq.data.containers import read_panel
from sciseq.data.panel import FloatArray, Panel
from sciseq.errors import CapabilityError
from sciseq.model_selection.evaluation import (
    WindowForecasts,
    future_columns,
    known_rows,
)
from sciseq.model_selection.time_axis import IntArray

__all__ = ["calibrates_by_residuals", "own_quantiles", "residual_scale"]

# Windows that are forecast in one call: enough to be fast, few enough to be small.
WINDOWS_PER_CALL = 512


def calibrates_by_residuals(model: Any) -> bool:
    """Tell whether quantiles are the forecast plus residuals, the same for all windows.

    Networks that forecast quantiles themselves, and pipelines, whose steps may bend
    them, have to be asked.
    """
    residuals = getattr(model, "calibration_residuals_", None)
    return residuals is not None and residuals.ndim == 3


def residual_scale(model: Any, raw: Panel, series: IntArray) -> FloatArray:
    """Scale of the residuals in the units of the data, (n, 1, T)."""
    targets = model._scaler_for(raw).select(model._targets_of(raw))
    return np.asarray(targets.scale_of(series))


def own_quantiles(
    model: Any, raw: Panel, batch: WindowForecasts, levels: FloatArray
) -> FloatArray:
    """Quantiles (n, H, T, Q) as the model forecasts them, from past rows alone.

    Many windows go through ``predict_quantiles`` together, as series of one panel.

    Raises
    ------
    CapabilityError
        When the model forecasts no quantiles.
    """
    if not hasattr(model, "predict_quantiles"):
        raise CapabilityError(
            f"{type(model).__name__} forecasts no quantiles",
            where="backtest",
            hint="Leave out coverage= and quantiles=.",
        )
    quantiles = np.empty((*batch.forecast.shape, len(levels)))
    first = _first_rows(model, raw, batch)
    for part in _calls(model, raw, batch.series):
        tables: Mapping[Any, Any] = {
            label: known_rows(
                model,
                raw,
                int(batch.series[window]),
                int(batch.rows[window]),
                start=int(first[window]),
            )
            for label, window in part
        }
        # One series needs no name, and array containers have none.
        one = next(iter(tables.values())) if raw.n_series == len(part) == 1 else tables
        forecasts = model.predict_quantiles(one, quantiles=levels)
        chosen = [window for _, window in part]
        for place, forecast in enumerate(forecasts.values()):
            quantiles[chosen, ..., place] = read_panel(forecast).values
    return quantiles


def _calls(model: Any, raw: Panel, series: IntArray) -> Iterator[list[tuple[Any, int]]]:
    """Windows of each call, with the label under which each goes in."""
    if raw.n_series == 1 and not _knows_series(model):
        for start in range(0, len(series), WINDOWS_PER_CALL):
            stop = min(start + WINDOWS_PER_CALL, len(series))
            yield [(window, window) for window in range(start, stop)]
        return
    # A model may know its series by name: each series goes in once, as itself.
    turn = np.zeros(len(series), dtype=np.int64)
    for one in np.unique(series):
        turn[series == one] = np.arange((series == one).sum())
    for number in range(int(turn.max(initial=-1)) + 1):
        windows = np.flatnonzero(turn == number)
        yield [(raw.series_ids[series[one]], int(one)) for one in windows]


def _knows_series(model: Any) -> bool:
    """Tell whether forecasts depend on the name of a series."""
    last = getattr(model, "_forecaster", model)
    return getattr(last, "series_scaler_", None) is not None


def _first_rows(model: Any, raw: Panel, batch: WindowForecasts) -> IntArray:
    """First row to show for each window: the look-back, and what fills its gaps.

    A gap is filled from its ends, so that rows are needed from the last complete one
    before the look-back on.
    """
    first: IntArray = batch.rows - model._context_length
    ahead = list(future_columns(model))
    for one in np.unique(batch.series):
        values = raw.values[one]
        others = np.delete(values, ahead, axis=1)
        is_complete = ~np.isnan(others).any(axis=1)
        latest = np.maximum.accumulate(np.where(is_complete, np.arange(len(values)), 0))
        chosen = batch.series == one
        first[chosen] = latest[first[chosen]]
    return first
