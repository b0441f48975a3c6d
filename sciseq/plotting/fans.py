"""Pictures of the forecasts of a backtest."""

from collections.abc import Iterator, Sequence
from typing import Any, overload

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes

from sciseq.errors import InputError
from sciseq.model_selection import Backtest
from sciseq.parameters import Integer
from sciseq.plotting.backtest_tables import forecasts_of, groups_of
from sciseq.plotting.canvas import (
    COLORS,
    place_legend,
    plain_times,
    show_times,
    tidy,
    unit_of,
)
from sciseq.plotting.panels import AxesArray, Given, Panels

__all__ = ["plot_backtest_fan"]

_Line = tuple[npt.NDArray[Any], npt.NDArray[np.float64]]


@overload
def plot_backtest_fan(
    backtest: Backtest,
    *,
    columns: Sequence[Any] | None = None,
    series: Sequence[Any] | None = None,
    every: int | None = None,
    title: str | None = None,
    ax: None = None,
) -> AxesArray: ...
@overload
def plot_backtest_fan(
    backtest: Backtest,
    *,
    columns: Sequence[Any] | None = None,
    series: Sequence[Any] | None = None,
    every: int | None = None,
    title: str | None = None,
    ax: Given,
) -> Given: ...
def plot_backtest_fan(
    backtest: Backtest,
    *,
    columns: Sequence[Any] | None = None,
    series: Sequence[Any] | None = None,
    every: int | None = None,
    title: str | None = None,
    ax: Any = None,
) -> Any:
    """Draw the forecasts of a backtest over the truth, one small panel per column.

    Each line is the forecast from one origin, with a dot at its first step.

    Parameters
    ----------
    backtest : Backtest
        What :func:`~sciseq.model_selection.backtest` returned, with its forecasts.
    columns : sequence of labels, optional
        Targets to draw; by default all.
    series : sequence of labels, optional
        Series of a panel to draw; by default all.
    every : int, optional
        Draw the forecast of each ``every``-th origin. By default an origin is drawn
        when the forecast before has ended, so that lines do not cross.
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
    CapabilityError
        When the backtest kept no forecasts.
    InputError
        When columns or series are missing, or there are not as many axes as panels.

    Examples
    --------
    >>> import numpy as np
    >>> from sciseq import NaiveForecaster
    >>> from sciseq.model_selection import backtest
    >>> X = np.arange(40.0).reshape(-1, 1)
    >>> result = backtest(NaiveForecaster(horizon=3), X, n_origins=7)
    >>> (axis,) = plot_backtest_fan(result)
    >>> sum(line.get_label() == "forecast" for line in axis.get_lines())
    3
    """
    if every is not None and not Integer(1).allows(every):
        raise InputError(
            f"every={every!r} is not allowed: must be an integer of at least 1",
            where="plot_backtest_fan",
        )
    table = forecasts_of(backtest, "plot_backtest_fan")
    groups = dict(groups_of(table))
    panels = Panels(
        ax,
        title,
        all_series=list(groups),
        all_columns=list(table["forecast"].columns),
        series=series,
        columns=columns,
    )
    for axis, one, label in panels:
        rows = groups[one]
        lines = _lines_of(rows["forecast"][label], backtest.horizon, every)
        _draw_fan(axis, _pieces(rows["truth"][label]), list(lines))
        axis.set_ylabel(unit_of(label, table))
    place_legend(panels.axes, ["truth", "forecast"], is_own=panels.is_own)
    return panels.result()


def _lines_of(
    column: "pd.Series[Any]", horizon: int, every: int | None
) -> Iterator[_Line]:
    """Yield times and values of the forecasts of one series that are drawn."""
    times, values = plain_times(_times(column)), column.to_numpy(float)
    places = _places(column)
    end = -1
    for start in range(0, len(times), horizon * (every or 1)):
        if every is not None or places[start] > end:
            rows = slice(start, start + horizon)
            end = int(places[rows][-1])
            yield times[rows], values[rows]


def _pieces(column: "pd.Series[Any]") -> list[_Line]:
    """Truth of one series, in pieces between which rows were not forecast."""
    times, values = plain_times(_times(column)), column.to_numpy(float)
    places, rows = np.unique(_places(column), return_index=True)
    return [
        (times[piece], values[piece])
        for piece in np.split(rows, np.flatnonzero(np.diff(places) > 1) + 1)
    ]


def _times(column: "pd.Series[Any]") -> "pd.Index[Any]":
    return column.index.get_level_values("time")


def _places(column: "pd.Series[Any]") -> npt.NDArray[np.int64]:
    """Positions of the rows on the time axis of the backtest."""
    index = column.index
    assert isinstance(index, pd.MultiIndex)
    return np.asarray(index.codes[index.names.index("time")], dtype=np.int64)


def _draw_fan(axis: Axes, truth: list[_Line], forecasts: list[_Line]) -> None:
    for times, values in truth:
        # Broad and light, so that lines upon it and beside it are seen alike.
        axis.plot(times, values, color="0.75", label="truth", linewidth=3.5)
    for times, values in forecasts:
        axis.plot(
            times,
            values,
            color=COLORS["forecast"],
            label="forecast",
            linewidth=1.2,
            marker="o",
            markersize=3.5,
            markevery=[0],
        )
    show_times(axis, truth[0][0])
    tidy(axis)
