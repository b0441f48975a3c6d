"""Pictures of the errors of a backtest: by step of the horizon, and by variate.

Axis legend: n windows, H horizon.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from sciseq.data.panel import FloatArray
from sciseq.errors import InputError, nearest_name
from sciseq.metrics import METRICS
from sciseq.model_selection import Backtest
from sciseq.plotting.backtest_tables import (
    forecasts_of,
    groups_of,
    step_errors,
)
from sciseq.plotting.canvas import (
    SERIES_COLORS,
    place_legend,
    single_axes,
    thin_labels,
    tidy,
    unit_of,
)
from sciseq.plotting.panels import panel_title

__all__ = ["plot_error_by_step", "plot_variate_heatmap"]

_LINE_STYLES = ("-", "--", ":", "-.")
_MOST_LABELS = 40
_MOST_WRITTEN_CELLS = 200

# What the heat map can show, and the colour map and label of each.
_SHOWN = {
    "mae": ("viridis", "mean absolute error / spread of the truth"),
    "rmse": ("viridis", "root mean squared error / spread of the truth"),
    "bias": ("RdBu_r", "mean of forecast minus truth / spread of the truth"),
    "correlation": ("RdBu_r", "correlation of the errors"),
}


def plot_error_by_step(
    backtests: Backtest | Mapping[str, Backtest],
    *,
    metric: str = "mae",
    column: Any = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw how the error grows with the steps ahead, one line per model.

    Parameters
    ----------
    backtests : Backtest, or dict of name to Backtest
        What :func:`~sciseq.model_selection.backtest` returned for one or several
        models.
    metric : str, default="mae"
        A metric that was asked of the backtest; with ``column`` any metric that
        needs no scale.
    column : label, optional
        A target, whose errors are drawn in its own units. By default the errors of
        all targets together.
    ax : Axes, optional
        Where to draw; by default on a new figure.

    Returns
    -------
    Axes
        ``.figure`` is its figure. In a notebook it shows itself.

    Raises
    ------
    CapabilityError
        With ``column``, when a backtest kept no forecasts.
    InputError
        When a backtest has no such metric or column.

    Examples
    --------
    >>> import numpy as np
    >>> from sciseq import NaiveForecaster
    >>> from sciseq.model_selection import backtest
    >>> X = np.arange(40.0).reshape(-1, 1)
    >>> result = backtest(NaiveForecaster(horizon=3), X, n_origins=5)
    >>> axis = plot_error_by_step({"last value": result})
    >>> axis.get_lines()[0].get_ydata().tolist()
    [1.0, 2.0, 3.0]
    """
    named = backtests if isinstance(backtests, Mapping) else {"": backtests}
    curves = {
        name: _errors_by_step(result, metric, column) for name, result in named.items()
    }
    axis = single_axes(ax, 3.6)
    for number, (name, errors) in enumerate(curves.items()):
        style, color = divmod(number, len(SERIES_COLORS))
        axis.plot(
            np.arange(1, len(errors) + 1),
            errors,
            label=name or "_nolegend_",
            color=SERIES_COLORS[color],
            linestyle=_LINE_STYLES[style % len(_LINE_STYLES)],
            linewidth=1.8,
            marker="o" if len(errors) <= 24 else None,
            markersize=4,
        )
    _label_errors(axis, metric, column, next(iter(named.values())))
    if isinstance(backtests, Mapping):
        place_legend([axis], list(curves), is_own=ax is None)
    return axis


def _errors_by_step(result: Backtest, metric: str, column: Any) -> FloatArray:
    if column is None:
        _check_name(metric, list(result.per_step), "metric", "the backtest")
        return result.per_step[metric].to_numpy(float)
    table = forecasts_of(result, "plot_error_by_step, column")
    _check_name(column, list(table["forecast"]), "column", "the forecasts")
    errors = step_errors(table, column, result.horizon)
    _check_name(metric, list(errors), "metric", "those of one column")
    return errors[metric]


def _check_name(name: Any, allowed: list[Any], kind: str, owner: str) -> None:
    if name in allowed:
        return
    raise InputError(
        f"{kind} {name!r} is not among {owner}: {allowed[:20]}",
        where=kind,
        hint=nearest_name(name, allowed) or f"Choose one of them as {kind}.",
    )


def _label_errors(axis: Axes, metric: str, column: Any, first: Backtest) -> None:
    title = METRICS[metric].title if metric in METRICS else metric
    unit = unit_of(column, first.forecasts) if column is not None else ""
    if unit and metric in ("mae", "rmse", "bias", "mse"):
        title += f" ({unit})" if metric != "mse" else f" ({unit}²)"
    axis.set_ylabel(title)
    axis.set_xlabel("steps ahead")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    if column is not None:
        axis.set_title(str(column), loc="left")
    if metric in METRICS and METRICS[metric].direction == "lower":
        axis.set_ylim(bottom=0)
    elif metric == "bias":
        axis.axhline(0, color="0.6", linewidth=0.8, zorder=0)
    tidy(axis)


def plot_variate_heatmap(
    backtest: Backtest, *, show: str = "mae", ax: Axes | None = None
) -> Axes:
    """Draw the errors of each variate at each step as a heat map.

    Parameters
    ----------
    backtest : Backtest
        What :func:`~sciseq.model_selection.backtest` returned, with its forecasts.
    show : {"mae", "rmse", "bias", "correlation"}, default="mae"
        Errors by variate (rows) and step (columns), divided by the standard deviation
        of the truths of the variate so that units do not matter; or the correlation
        of the errors of each two variates, over all windows and steps. Each variate
        of each series of a panel is a row.
    ax : Axes, optional
        Where to draw; by default on a new figure.

    Returns
    -------
    Axes
        ``.figure`` is its figure. In a notebook it shows itself. Cells of a variate
        that never changes, and those without any truth, are grey.

    Raises
    ------
    CapabilityError
        When the backtest kept no forecasts.
    InputError
        For another ``show``.

    Examples
    --------
    >>> import numpy as np
    >>> from sciseq import NaiveForecaster
    >>> from sciseq.model_selection import backtest
    >>> X = np.random.default_rng(0).normal(size=(60, 4)).cumsum(axis=0)
    >>> result = backtest(NaiveForecaster(horizon=3), X, n_origins=20)
    >>> axis = plot_variate_heatmap(result)
    >>> axis.get_images()[0].get_array().shape
    (4, 3)
    """
    _check_name(show, list(_SHOWN), "show", "what can be shown")
    table = forecasts_of(backtest, "plot_variate_heatmap")
    cells = _cells(table, backtest.horizon, show)
    axis = single_axes(ax, float(np.clip(1.6 + 0.32 * len(cells), 3.0, 8.0)))
    name, label = _SHOWN[show]
    largest = 1.0 if show == "correlation" else float(np.nanmax(np.abs(cells)))
    image = axis.imshow(
        np.ma.masked_invalid(cells),
        aspect="auto",
        interpolation="nearest",
        cmap=name,
        vmin=0 if name == "viridis" else -largest,
        vmax=largest,
    )
    axis.set_facecolor("0.8")
    axis.figure.colorbar(image, ax=axis)
    axis.set_title(label, loc="left")
    axis.set_yticks(*thin_labels(list(cells.index), _MOST_LABELS))
    if show == "correlation":
        positions, names = thin_labels(list(cells.columns), _MOST_LABELS // 2)
        axis.set_xticks(positions, names, rotation=40, ha="right")
    else:
        positions, names = thin_labels(list(cells.columns), 12)
        axis.set_xticks(positions, names)
        axis.set_xlabel("steps ahead")
    axis.tick_params(length=0)
    if cells.size <= _MOST_WRITTEN_CELLS:
        _write_cells(axis, image, cells.to_numpy())
    return axis


def _cells(table: pd.DataFrame, horizon: int, show: str) -> pd.DataFrame:
    """Rows and columns of the heat map."""
    groups = list(groups_of(table))
    targets = list(table["forecast"].columns)
    blocks = {
        panel_title(series, target, len(groups), len(targets)): (rows, target)
        for series, rows in groups
        for target in targets
    }
    if show == "correlation":
        # Windows of one series are matched with those of another by origin and time.
        differences = {
            name: rows["forecast"][target] - rows["truth"][target]
            for name, (rows, target) in blocks.items()
        }
        joined: pd.DataFrame = pd.concat(differences, axis=1)
        return joined.corr()
    return pd.DataFrame(
        {
            name: step_errors(rows, target, horizon)[show] / _spread(rows, target)
            for name, (rows, target) in blocks.items()
        },
        index=range(1, horizon + 1),
    ).T


def _spread(rows: pd.DataFrame, target: Any) -> float:
    """Return the standard deviation of the truths; NaN where they never change."""
    return float(np.nanstd(rows["truth"][target].to_numpy(float))) or np.nan


def _write_cells(axis: Axes, image: Any, cells: npt.NDArray[np.float64]) -> None:
    for (row, column), value in np.ndenumerate(cells):
        if np.isnan(value):
            continue
        red, green, blue = np.asarray(image.cmap(image.norm(value))[:3]) ** 2.2
        # Black and white stand out alike against a luminance of 0.18.
        is_dark = 0.21 * red + 0.72 * green + 0.07 * blue < 0.18
        axis.text(
            column,
            row,
            f"{value:.2f}",
            ha="center",
            va="center",
            fontsize="small",
            color="white" if is_dark else "black",
        )
