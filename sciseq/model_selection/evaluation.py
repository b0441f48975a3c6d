"""Forecasts of a fitted model over many windows, beside the truth.

Axis legend: n windows, L lookback, H horizon, T targets.

Scorer and backtest both stand on this file: windows are forecast in batches, each
once; a truth that is NaN in the caller's table stays NaN, that is unobserved; and what
a model fills in for missing values never comes from rows after the origin.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from sciseq.data.containers import read_panel
from sciseq.data.missing import forward_fill
from sciseq.data.panel import FloatArray, Panel
from sciseq.errors import InputError, InputTypeError
from sciseq.model_selection.time_axis import IntArray

__all__ = [
    "Forecaster",
    "WindowForecasts",
    "as_container",
    "check_context",
    "check_forecaster",
    "forecast_from",
    "forecast_windows",
    "future_columns",
    "known_panel",
    "known_rows",
    "match_to",
    "select_series",
]


class Forecaster(Protocol):
    """What scoring asks of a forecaster, be it a model or a pipeline."""

    horizon: int

    @property
    def _context_length(self) -> int:
        """Rows that a forecast looks back on."""
        ...

    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn from a container of series."""
        ...

    def predict(self, X: Any = None) -> Any:
        """Forecast the rows after the end of each series."""
        ...

    def _evaluation_panel(self, X: Any, y: Any = None) -> Panel:
        """Read rows that hold context and truth, in the column order of fit."""
        ...

    def _evaluate_panel(
        self, panel: Panel, *, stride: int = 1
    ) -> Iterator[tuple[npt.NDArray[np.int64], FloatArray, FloatArray]]:
        """First target rows (in the joined panel), truths, forecasts, in data units."""
        ...

    def _targets_of(self, panel: Panel) -> list[int]:
        """Positions of the targets among the columns."""
        ...


class WindowForecasts(NamedTuple):
    """Some windows: where they are, what happened, what was forecast.

    Parameters
    ----------
    series, rows : ndarray of shape (n,)
        Series, and its row, of the first target row.
    truth, forecast : ndarray of shape (n, H, T)
        In the units of the data; an unobserved truth is NaN.
    quantiles : ndarray of shape (n, H, T, Q), or None
        Forecasts of quantiles, when there are any.
    """

    series: IntArray
    rows: IntArray
    truth: FloatArray
    forecast: FloatArray
    quantiles: FloatArray | None = None


_NEEDED = (
    "_context_length",
    "_evaluate_panel",
    "_evaluation_panel",
    "_targets_of",
    "fit",
    "horizon",
    "predict",
)


def check_forecaster(model: Any) -> None:
    """Refuse objects that are no forecasters.

    Raises
    ------
    InputTypeError
        Naming the class.
    """
    # Looked up on the class, where properties are not computed: before fit some cannot.
    names = set(dir(type(model))) | set(getattr(model, "__dict__", ()))
    if not names.issuperset(_NEEDED):
        raise InputTypeError(
            f"a forecaster of sciseq or a ForecastPipeline is needed, "
            f"{type(model).__name__} is not one",
            where="model",
            hint="For other estimators use scikit-learn's own scorers.",
        )


def match_to(cleaned: Panel, raw: Panel) -> Panel:
    """Bring the columns of a panel, as read, into the order of the model's panel."""
    if raw.columns is None or raw.columns == cleaned.columns:
        return raw
    position = {label: number for number, label in enumerate(raw.columns)}
    return raw.select_columns([position[label] for label in cleaned.columns or ()])


def select_series(panel: Panel, series: IntArray) -> Panel:
    """Keep some series of a panel."""
    return _cut_series(
        panel, series.tolist(), [0] * len(series), panel.lengths[series].tolist()
    )


def _cut_series(
    panel: Panel, series: Sequence[int], starts: Sequence[int], stops: Sequence[int]
) -> Panel:
    """Cut a row range of its own from each of some series."""
    bounds = list(zip(series, starts, stops, strict=True))
    return replace(
        panel,
        values=tuple(panel.values[one][a:b] for one, a, b in bounds),
        times=tuple(
            None if panel.times[one] is None else panel.times[one][a:b]
            for one, a, b in bounds
        ),
        series_ids=tuple(panel.series_ids[one] for one in series),
    )


def as_container(panel: Panel, starts: npt.ArrayLike, stops: npt.ArrayLike) -> Any:
    """Write a row range of each series as the caller's kind of container.

    Parameters
    ----------
    panel : Panel
        All series, as they were read.
    starts, stops : array-like of int
        Rows of each series; a series with none is left out.
    """
    low, high = (
        np.clip(np.broadcast_to(bound, panel.n_series), 0, panel.lengths).tolist()
        for bound in (starts, stops)
    )
    part = _cut_series(panel, range(panel.n_series), low, high)
    written = panel.layout.write(part, part.values, part.times, range(panel.n_columns))
    if isinstance(written, dict):
        kept = zip(written.items(), part.lengths, strict=True)
        return {label: one for (label, one), length in kept if length}
    if isinstance(written, list):
        kept = zip(written, part.lengths, strict=True)
        return [one for one, length in kept if length]
    return written


def forecast_windows(
    model: Forecaster,
    raw: Panel,
    cleaned: Panel,
    first_rows: npt.ArrayLike,
    *,
    stride: int = 1,
) -> Iterator[WindowForecasts]:
    """Forecast windows in batches, each window once.

    Parameters
    ----------
    model : forecaster
        Fitted.
    raw, cleaned : Panel
        The same rows and columns, as they were read, and as the model wants them:
        missing values treated by its choice, rows after the last observed target left
        out where it takes covariates that are known ahead.
    first_rows : array-like of int
        First target row of the first window of each series; at least L. Series
        without a window are left out.
    stride : int, default=1
        Rows between the windows of a series.

    Yields
    ------
    WindowForecasts
        A batch of windows, in the order of series and rows.
    """
    L, H = model._context_length, model.horizon
    first = np.broadcast_to(first_rows, cleaned.n_series)
    series = np.flatnonzero(first + H <= cleaned.lengths)
    if not len(series):
        return
    starts, stops = first[series] - L, cleaned.lengths[series]
    inputs, truths = (
        _cut_series(one, series.tolist(), starts.tolist(), stops.tolist())
        for one in (cleaned, raw)
    )
    ends = np.cumsum(inputs.lengths)
    truth_rows = np.concatenate(truths.values)[:, model._targets_of(cleaned)]
    is_filled = _filled_rows(inputs, truths)
    for joined, _, forecast in model._evaluate_panel(inputs, stride=stride):
        part = np.searchsorted(ends, joined, side="right")
        rows = joined - (ends - inputs.lengths)[part] + starts[part]
        truth = truth_rows[joined[:, None] + np.arange(H)]  # (n, H, T)
        redo = np.flatnonzero(is_filled[joined - 1])
        if len(redo):
            forecast = np.array(forecast)
        for window in redo:
            past = known_rows(model, raw, int(series[part[window]]), int(rows[window]))
            forecast[window] = read_panel(model.predict(past)).values[0]
        yield WindowForecasts(series[part], rows, truth, forecast)


def _filled_rows(cleaned: Panel, raw: Panel) -> npt.NDArray[np.bool_]:
    """Rows in which the model filled a gap, in the joined table.

    What fills a gap may come from both its ends. Where an origin lies in a gap, the
    far end is the future, and the window has to be forecast from the past alone.
    """
    return np.concatenate(
        [
            (np.isnan(before) & ~np.isnan(after)).any(axis=1)
            for before, after in zip(raw.values, cleaned.values, strict=True)
        ]
    )


def future_columns(model: Any) -> tuple[int, ...]:
    """Positions of the columns whose future is known to a fitted model."""
    return tuple(int(one) for one in getattr(model, "future_positions_", ()))


def known_rows(
    model: Any, panel: Panel, series: int, row: int, *, start: int = 0
) -> Any:
    """Write what is known of one series before a row, as a table.

    Parameters
    ----------
    model : forecaster
        Fitted. Where it takes covariates that are known ahead, their rows follow.
    panel : Panel
        All series, as they were read, with the columns in the order of fit.
    series, row : int
        Series, and its first target row.
    start : int, default=0
        First row.

    Returns
    -------
    ndarray or DataFrame
    """
    values, times = _known(model, panel, series, row)
    if panel.columns is None:
        return values[start:]
    labels = pd.Index(list(panel.columns))
    return pd.DataFrame(values[start:], index=times[start:], columns=labels)


def _known(model: Any, panel: Panel, series: int, row: int) -> tuple[FloatArray, Any]:
    """Rows of one series before a first target row, and what is known ahead."""
    columns, times = future_columns(model), panel.times[series]
    stop = row + model.horizon if columns and row else row
    values = panel.values[series][:stop]
    if columns and row:
        values = values.copy()
        hidden = np.ones(panel.n_columns, dtype=bool)
        hidden[list(columns)] = False
        values[row:, hidden] = np.nan
        targets = model._targets_of(panel)
        if np.isnan(values[row - 1, targets]).all():
            # Forecasts begin after the last row with a target: it must be this one.
            past = forward_fill(values[None, :row, targets])
            values[row - 1, targets] = past[0, -1]
    return values, None if times is None else times[:stop]


def forecast_from(model: Forecaster, raw: Panel, origins: IntArray) -> WindowForecasts:
    """Forecast one window of some series, from all rows before it and no others.

    Parameters
    ----------
    model : forecaster
        Fitted.
    raw : Panel
        All series, as they were read, with the columns in the order of fit.
    origins : ndarray of int, shape (n_series,)
        First target row of each series; 0 leaves a series out.
    """
    H = model.horizon
    series = np.flatnonzero(origins)
    rows = origins[series]
    forecast = read_panel(model.predict(known_panel(model, raw, origins)))
    targets = model._targets_of(raw)
    truth = [
        raw.values[one][row : row + H, targets]
        for one, row in zip(series, rows, strict=True)
    ]
    return WindowForecasts(series, rows, np.stack(truth), np.stack(forecast.values))


def known_panel(model: Forecaster, raw: Panel, origins: IntArray) -> Any:
    """Write what is known of each series before its first target row; 0: left out."""
    known = [_known(model, raw, series, int(row)) for series, row in enumerate(origins)]
    values, times = zip(*known, strict=True)
    cut = replace(raw, values=values, times=times)
    return as_container(cut, 0, cut.lengths)


def check_context(model: Forecaster, context: int, where: str) -> None:
    """Refuse a model that looks back on more rows than every window has.

    Raises
    ------
    InputError
        Naming both numbers.
    """
    if model._context_length > context:
        raise InputError(
            f"{type(model).__name__} looks back on {model._context_length} rows, "
            f"context is {context}",
            where=where,
            hint="Raise context (here and in the splitter) to the longest lookback.",
        )
