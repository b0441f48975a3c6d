"""Pictures of forecasts after their history."""

from collections.abc import Mapping, Sequence
from typing import Any, overload

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes

from sciseq.data.containers import read_panel
from sciseq.data.panel import Panel
from sciseq.errors import InputError
from sciseq.plotting.canvas import (
    COLORS,
    place_legend,
    plain_times,
    show_times,
    tidy,
    tint,
    unit_of,
)
from sciseq.plotting.panels import AxesArray, Given, Panels

__all__ = ["plot_forecast"]

_HORIZONS_OF_HISTORY = 4
_Line = tuple[npt.NDArray[Any], npt.NDArray[np.float64]]


@overload
def plot_forecast(
    history: Any,
    forecast: Any,
    *,
    truth: Any = None,
    interval: Any = None,
    columns: Sequence[Any] | None = None,
    series: Sequence[Any] | None = None,
    max_history: int | None = None,
    title: str | None = None,
    ax: None = None,
) -> AxesArray: ...
@overload
def plot_forecast(
    history: Any,
    forecast: Any,
    *,
    truth: Any = None,
    interval: Any = None,
    columns: Sequence[Any] | None = None,
    series: Sequence[Any] | None = None,
    max_history: int | None = None,
    title: str | None = None,
    ax: Given,
) -> Given: ...
def plot_forecast(
    history: Any,
    forecast: Any,
    *,
    truth: Any = None,
    interval: Any = None,
    columns: Sequence[Any] | None = None,
    series: Sequence[Any] | None = None,
    max_history: int | None = None,
    title: str | None = None,
    ax: Any = None,
) -> Any:
    """Draw a forecast after its history, one small panel per column.

    Parameters
    ----------
    history : DataFrame, Series, DataArray, Dataset, ndarray, or list or dict of these
        Rows before the forecast, in a container that the forecasters take.
    forecast : same kind of container as history
        What ``predict`` returned.
    truth : same kind of container as history, optional
        What happened; only the rows of the forecast are drawn.
    interval : tuple of (lower, upper), or dict of coverage to such a tuple, optional
        What ``predict_interval`` returned, for one coverage or for several.
    columns : sequence of labels, optional
        Columns to draw; by default all of the forecast.
    series : sequence of labels, optional
        Series of a panel to draw; by default all.
    max_history : int, optional
        Rows of history to draw; by default four times as many as were forecast.
    title : str, optional
        Title of the figure; only where none is given by ``ax``.
    ax : Axes, or sequence or ndarray of Axes, optional
        Where to draw, one for each panel. By default a new figure is made, of at most
        12 panels, which says so when there are more.

    Returns
    -------
    AxesArray, or what was given as ``ax``
        One axes per panel; ``.figure`` is the figure. In a notebook it shows itself.

    Raises
    ------
    InputError
        When columns or series are missing, or there are not as many axes as panels.

    Notes
    -----
    Units stand at the axes when ``attrs["units"]`` of a DataFrame gives them (one text
    for all, or a dict by column), or the attributes of an xarray object.

    Examples
    --------
    >>> import numpy as np
    >>> values = np.sin(np.arange(60.0) / 4).reshape(-1, 1)
    >>> axes = plot_forecast(values[:50], values[50:])
    >>> len(axes)
    1
    """
    past, ahead = read_panel(history), read_panel(forecast)
    n_history = max_history or _HORIZONS_OF_HISTORY * int(ahead.lengths.max())
    parts = {"forecast": ahead}
    if truth is not None:
        parts["truth"] = read_panel(truth)
    bands = _bands(interval)
    panels = Panels(
        ax,
        title,
        all_series=ahead.series_ids,
        all_columns=_labels(ahead),
        series=series,
        columns=columns,
    )
    for axis, one, label in panels:
        before = _line(past, one, label, first_row=0)
        # Arrays carry no labels: their rows are counted on from the history.
        n_rows = len(before[1])
        lines = {
            name: _line(part, one, label, first_row=n_rows)
            for name, part in parts.items()
        }
        _draw_history(axis, before, n_history, lines.get("truth"), lines["forecast"])
        for number, (name, ends) in enumerate(bands.items()):
            low, high = (_line(end, one, label, first_row=n_rows) for end in ends)
            _draw_band(axis, name, low, high, number / len(bands))
        _draw_forecast(axis, lines["forecast"])
        axis.set_ylabel(unit_of(label, forecast, history))
    names = ["history", "truth", "forecast", *bands]
    place_legend(panels.axes, names, is_own=panels.is_own)
    return panels.result()


# --------------------------------------------------------------------- what to draw


def _labels(panel: Panel) -> list[Any]:
    return list(range(panel.n_columns) if panel.columns is None else panel.columns)


def _line(part: Panel, series: Any, label: Any, *, first_row: int) -> _Line:
    """Row labels and values of one column of one series."""
    if series not in part.series_ids or label not in _labels(part):
        raise InputError(
            f"column {label!r} of series {series!r} is in the forecast, but not in "
            "every other table",
            where="history, truth, interval",
            hint="Give tables with the columns and series of the forecast.",
        )
    place = part.series_ids.index(series)
    values = part.values[place][:, _labels(part).index(label)]
    index = part.times[place]
    if index is None:
        return np.arange(first_row, first_row + len(values)), values
    return plain_times(index), values


def _bands(interval: Any) -> dict[str, tuple[Panel, Panel]]:
    """Return the ends of the intervals by the name in the legend, the widest first."""
    if interval is None:
        return {}
    if not isinstance(interval, Mapping):
        lower, upper = interval
        return {"interval": (read_panel(lower), read_panel(upper))}
    return {
        f"{100 * coverage:g} % interval": (read_panel(lower), read_panel(upper))
        for coverage, (lower, upper) in sorted(interval.items(), reverse=True)
    }


# ---------------------------------------------------------------------- how to draw


def _draw_history(
    axis: Axes, history: _Line, n_rows: int, truth: _Line | None, forecast: _Line
) -> None:
    times, values = (part[-n_rows:] for part in history)
    axis.plot(times, values, color=COLORS["history"], label="history", linewidth=1.2)
    if truth is not None:
        rows, happened = truth
        kept = np.isin(rows, forecast[0])
        axis.plot(
            # The truth goes on where the history ends.
            np.concatenate([times[-1:], rows[kept]]),
            np.concatenate([values[-1:], happened[kept]]),
            color=COLORS["truth"],
            label="truth",
            linewidth=1.2,
        )
    axis.axvline(times[-1], color="0.75", linewidth=0.8, zorder=0)
    show_times(axis, times)
    tidy(axis)


def _draw_band(axis: Axes, name: str, low: _Line, high: _Line, darkness: float) -> None:
    """Shade an interval; the narrower it is, the darker."""
    axis.fill_between(
        low[0],
        low[1],
        high[1],
        color=tint(COLORS["forecast"], 0.2 + 0.4 * darkness),
        linewidth=0,
        # Beneath the lines, above the band before.
        zorder=1 + darkness / 2,
        label=name,
    )


def _draw_forecast(axis: Axes, forecast: _Line) -> None:
    times, values = forecast
    axis.plot(
        times,
        values,
        color=COLORS["forecast"],
        label="forecast",
        linewidth=1.8,
        # A few points are told from a line; many would hide the truth beneath.
        marker="o" if len(times) <= 12 else None,
        markersize=3,
    )
