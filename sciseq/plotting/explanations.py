"""Pictures that explain a model: coefficients by lag, gate values, importances."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from sciseq.errors import InputError, InputTypeError, nearest_name
from sciseq.plotting.canvas import (
    SERIES_COLORS,
    label_text,
    place_legend,
    single_axes,
    thin_labels,
    tidy,
)

__all__ = ["plot_coefficients", "plot_gates", "plot_importance"]

_MOST_ROWS = 30
_MOST_MARKERS = 100


def plot_coefficients(
    coefficients: pd.DataFrame,
    *,
    columns: Sequence[Any] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw autoregressive coefficients by their lag.

    Parameters
    ----------
    coefficients : DataFrame or Series
        What ``ARNetForecaster.coefficients()`` returned: the index holds the lags,
        each column is one set of coefficients (of a target, or of a target and step).
    columns : sequence of labels, optional
        Columns to draw, at most six; by default all.
    ax : Axes, optional
        Where to draw; by default on a new figure.

    Returns
    -------
    Axes
        ``.figure`` is its figure. In a notebook it shows itself.

    Raises
    ------
    InputError
        When columns are missing, or more than six are to be drawn.

    Examples
    --------
    >>> import pandas as pd
    >>> lags = pd.Index([1, 2, 3], name="lag")
    >>> axis = plot_coefficients(pd.DataFrame({"load": [0.2, 0.3, -0.5]}, index=lags))
    >>> axis.get_xlabel()
    'lag (steps back)'
    """
    table = _table(coefficients, columns)
    n_columns = table.shape[1]
    if n_columns > len(SERIES_COLORS):
        raise InputError(
            f"{n_columns} columns are too many to tell apart, at most "
            f"{len(SERIES_COLORS)} are drawn",
            where="columns",
            hint=f"Choose some: columns={list(table.columns[:2])}.",
        )
    lags = table.index.to_numpy(float)
    names = [label_text(one) for one in table.columns]
    axis = single_axes(ax, 3.6)
    for number, (label, color) in enumerate(
        zip(table.columns, SERIES_COLORS, strict=False)
    ):
        values = table[label].to_numpy(float)
        # Columns stand beside each other within the width of one lag.
        places = lags + 0.6 * ((number + 0.5) / n_columns - 0.5)
        axis.vlines(places, 0.0, values, color=color, linewidth=1.4)
        axis.plot(
            places,
            values,
            linestyle="none",
            marker="o" if len(lags) <= _MOST_MARKERS else None,
            markersize=4,
            color=color,
            label=names[number],
        )
        if len(lags) > _MOST_MARKERS:
            axis.lines[-1].set(linestyle="-", linewidth=0.8)
    axis.axhline(0, color="0.3", linewidth=0.8)
    axis.set_xlabel("lag (steps back)")
    axis.set_ylabel("coefficient")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.margins(x=0.02)
    tidy(axis)
    if n_columns == 1:
        axis.set_title(names[0], loc="left")
    else:
        place_legend([axis], names, is_own=ax is None)
    return axis


def plot_gates(gates: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw the mean gate values of each variate, between 0 and 1.

    Parameters
    ----------
    gates : DataFrame
        What ``GateformerForecaster.gate_values()`` returned: one row per variate, one
        column per gate.
    ax : Axes, optional
        Where to draw; by default on a new figure.

    Returns
    -------
    Axes
        ``.figure`` is its figure. In a notebook it shows itself.

    Examples
    --------
    >>> import pandas as pd
    >>> gates = pd.DataFrame({"gate 1": [0.4, 0.6], "gate 2": [0.9, 0.8]})
    >>> [float(end) for end in plot_gates(gates).get_xlim()]
    [0.0, 1.0]
    """
    table = _table(gates, None)
    axis = single_axes(ax, _height_of_rows(len(table)))
    rows = np.arange(len(table))
    axis.hlines(
        rows,
        table.min(axis=1),
        table.max(axis=1),
        color="0.75",
        linewidth=1.5,
        zorder=1,
    )
    for label, color in zip(table.columns, SERIES_COLORS, strict=False):
        axis.plot(
            table[label],
            rows,
            linestyle="none",
            marker="o",
            markersize=6,
            color=color,
            label=str(label),
        )
    axis.set_xlim(0, 1)
    axis.set_xlabel("gate value")
    _label_rows(axis, list(table.index))
    tidy(axis, grid="x")
    place_legend([axis], [str(one) for one in table.columns], is_own=ax is None)
    return axis


def plot_importance(
    importance: pd.DataFrame, *, max_rows: int = _MOST_ROWS, ax: Axes | None = None
) -> Axes:
    """Draw permutation importances as bars, the largest on top, with their spread.

    Parameters
    ----------
    importance : DataFrame
        What :func:`~sciseq.inspection.permutation_importance` returned: one row per
        variate, with columns ``mean`` and ``sd`` (over repeats).
    max_rows : int, default=30
        Draw the largest ones only; the axes say so when there are more.
    ax : Axes, optional
        Where to draw; by default on a new figure.

    Returns
    -------
    Axes
        ``.figure`` is its figure. In a notebook it shows itself.

    Raises
    ------
    InputError
        When a column is missing.

    Examples
    --------
    >>> import pandas as pd
    >>> table = pd.DataFrame({"mean": [0.1, 0.7], "sd": [0.05, 0.1]}, index=["a", "b"])
    >>> [label.get_text() for label in plot_importance(table).get_yticklabels()]
    ['b', 'a']
    """
    table = _table(importance, ["mean", "sd"]).sort_values(
        "mean", ascending=False, kind="stable"
    )
    shown = table.iloc[:max_rows]
    axis = single_axes(ax, _height_of_rows(len(shown)))
    rows = np.arange(len(shown))
    axis.barh(
        rows,
        shown["mean"],
        xerr=shown["sd"],
        height=0.65,
        color=SERIES_COLORS[0],
        error_kw={"ecolor": "0.2", "elinewidth": 1.2, "capsize": 2.5},
    )
    axis.axvline(0, color="0.3", linewidth=0.8)
    axis.set_xlabel("rise of the error (mean ± sd)")
    _label_rows(axis, list(shown.index))
    tidy(axis, grid="x")
    if len(table) > len(shown):
        axis.set_title(f"the largest {len(shown)} of {len(table)}", loc="left")
    return axis


def _table(frame: Any, columns: Sequence[Any] | None) -> pd.DataFrame:
    if isinstance(frame, pd.Series):
        frame = frame.to_frame("coefficient" if frame.name is None else frame.name)
    if not isinstance(frame, pd.DataFrame):
        raise InputTypeError(
            f"a {type(frame).__name__} was given, must be a pandas DataFrame",
            where="first argument",
            hint="Give the table as the method returned it.",
        )
    if columns is None:
        return frame
    for label in columns:
        if label not in frame.columns:
            raise InputError(
                f"column {label!r} is not in the table, which has "
                f"{list(frame.columns[:20])}",
                where="columns",
                hint=nearest_name(label, frame.columns) or None,
            )
    return frame[list(columns)]


def _height_of_rows(n_rows: int) -> float:
    return float(np.clip(1.3 + 0.3 * n_rows, 2.2, 10.0))


def _label_rows(axis: Axes, labels: list[Any]) -> None:
    """Name the rows, the first one on top."""
    axis.set_yticks(*thin_labels(labels, 40))
    axis.set_ylim(len(labels) - 0.4, -0.6)
    axis.tick_params(axis="y", length=0)
