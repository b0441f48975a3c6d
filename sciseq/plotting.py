"""Pictures of forecasts and of training, as plain matplotlib figures.

Figures are made without pyplot: nothing is kept in a global registry, no window
opens, and settings of the caller (``matplotlib.rcParams``) are read, never changed.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.dates as mdates
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sciseq.data.containers import read_panel
from sciseq.data.panel import Panel
from sciseq.errors import CapabilityError, FileFormatError, InputError, nearest_name
from sciseq.files import temporary_path

__all__ = [
    "FIGURE_SUFFIXES",
    "check_figure_path",
    "plot_forecast",
    "plot_history",
    "save_figure",
]

FIGURE_SUFFIXES = (".png", ".pdf", ".svg")
"""Suffixes that :func:`save_figure` writes."""

MAX_PANELS = 12
# Colours of Okabe and Ito, which people with any colour vision tell apart.
_COLORS = {"history": "#4d4d4d", "truth": "#d55e00", "forecast": "#0072b2"}
_LEGEND = ("history", "truth", "forecast", "interval")
_HORIZONS_OF_HISTORY = 4


def plot_forecast(
    history: Any,
    forecast: Any,
    *,
    truth: Any = None,
    interval: tuple[Any, Any] | None = None,
    columns: Sequence[Any] | None = None,
    max_history: int | None = None,
    title: str | None = None,
) -> Figure:
    """Draw a forecast after its history, one small panel per column.

    Parameters
    ----------
    history : DataFrame, Series, DataArray, Dataset, ndarray, or list or dict of these
        Rows before the forecast, in a container that the forecasters take.
    forecast : same kind of container as history
        What ``predict`` returned.
    truth : same kind of container as history, optional
        What happened; only the rows of the forecast are drawn.
    interval : tuple of (lower, upper), optional
        What ``predict_interval`` returned.
    columns : sequence of labels, optional
        Columns to draw; by default all of the forecast. At most 12 panels are drawn,
        and the figure says so when there are more.
    max_history : int, optional
        Rows of history to draw; by default four times as many as were forecast.
    title : str, optional
        Title of the figure.

    Returns
    -------
    matplotlib.figure.Figure
        Save it with :func:`save_figure`; in a notebook it shows itself.

    Raises
    ------
    InputError
        When columns or series are missing.

    Notes
    -----
    Units stand at the axes when ``attrs["units"]`` of a DataFrame gives them (one text
    for all, or a mapping by column), or the attributes of an xarray object.

    Examples
    --------
    >>> import numpy as np
    >>> values = np.sin(np.arange(60.0) / 4).reshape(-1, 1)
    >>> figure = plot_forecast(values[:50], values[50:])
    >>> len(figure.axes)
    1
    """
    past, ahead = read_panel(history), read_panel(forecast)
    n_history = max_history or _HORIZONS_OF_HISTORY * int(ahead.lengths.max())
    parts = {"forecast": ahead}
    if truth is not None:
        parts["truth"] = read_panel(truth)
    if interval is not None:
        parts["lower"], parts["upper"] = map(read_panel, interval)
    panels = _choose_panels(ahead, columns)
    shown = panels[:MAX_PANELS]
    figure, axes = _grid(len(shown))
    for axis, (series, label) in zip(axes, shown, strict=True):
        before = _line(past, series, label, first_row=0)
        # Arrays carry no labels: their rows are counted on from the history.
        n_rows = len(before[1])
        lines = {"history": before} | {
            name: _line(part, series, label, first_row=n_rows)
            for name, part in parts.items()
        }
        _draw_panel(axis, lines, n_history)
        axis.set_title(_panel_title(ahead, series, label), loc="left")
        axis.set_ylabel(_unit(history, forecast, label))
    left_out = len(panels) - len(shown)
    note = f"{len(shown)} of {len(panels)} panels are shown" if left_out else ""
    _finish(figure, axes[0], title, note)
    return figure


def plot_history(estimator: Any) -> Figure:
    """Draw the training and validation loss of each epoch, and mark the best one.

    Parameters
    ----------
    estimator : estimator
        A fitted estimator that was trained in epochs.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    NotFittedError
        Before fit.
    CapabilityError
        When the estimator was not trained in epochs.

    Examples
    --------
    >>> import numpy as np
    >>> from sciseq.plotting import plot_history
    >>> class Trained:
    ...     best_epoch_ = 2
    ...     history_ = [{"epoch": 1, "train_loss": 0.9},
    ...                 {"epoch": 2, "train_loss": 0.5}]
    >>> plot_history(Trained()).axes[0].get_xlabel()
    'epoch'
    """
    if hasattr(estimator, "__sklearn_is_fitted__"):
        from sklearn.utils.validation import check_is_fitted

        check_is_fitted(estimator)
    records: Sequence[Mapping[str, float]] = getattr(estimator, "history_", ())
    if not records:
        raise CapabilityError(
            f"{type(estimator).__name__} was not trained in epochs, so there is no "
            "history to draw",
            where="history_",
        )
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axis = figure.subplots()
    epochs = [record["epoch"] for record in records]
    for name, kind, marker in (
        ("train_loss", "history", "."),
        ("validation_loss", "forecast", "o"),
    ):
        if name not in records[0]:
            continue
        losses = [record[name] for record in records]
        axis.plot(epochs, losses, marker=marker, markersize=4, color=_COLORS[kind])
        axis.annotate(
            name.replace("_loss", ""),
            (epochs[-1], losses[-1]),
            xytext=(6, 0),
            textcoords="offset points",
            color=_COLORS[kind],
            va="center",
            annotation_clip=False,
        )
    best = int(estimator.best_epoch_)
    axis.axvline(best, color=_COLORS["truth"], linestyle="--", linewidth=1)
    axis.set_title(f"best epoch: {best}", loc="left", color=_COLORS["truth"])
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_xlabel("epoch")
    axis.set_ylabel("loss per value")
    _tidy(axis)
    return figure


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Save a figure so that the file is complete or not there.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        Figure to save.
    path : path-like
        Ends in ``.png``, ``.pdf`` or ``.svg``.

    Raises
    ------
    FileFormatError
        For another suffix.
    OSError
        When the folder is missing, full or not writable.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_figure(Figure(), Path(folder, "empty.png"))
    ...     Path(folder, "empty.png").read_bytes()[1:4]
    b'PNG'
    """
    check_figure_path(path)
    with temporary_path(path) as temporary:
        figure.savefig(temporary, dpi=150)


def check_figure_path(path: str | os.PathLike[str]) -> None:
    """Refuse a name whose suffix is none of ``FIGURE_SUFFIXES``.

    Raises
    ------
    FileFormatError
        Naming the allowed suffixes.
    """
    suffix = Path(path).suffix
    if suffix.lower() in FIGURE_SUFFIXES:
        return
    raise FileFormatError(
        f"{Path(path).name!r} {f'ends in {suffix!r}' if suffix else 'has no suffix'}, "
        f"pictures end in {', '.join(FIGURE_SUFFIXES)}",
        where=str(path),
        hint=nearest_name(suffix, FIGURE_SUFFIXES) or "The suffix tells the format.",
    )


# --------------------------------------------------------------------- what to draw


def _choose_panels(
    panel: Panel, columns: Sequence[Any] | None
) -> list[tuple[Any, Any]]:
    """(series, column) of each small panel."""
    labels = _labels(panel)
    wanted = labels if columns is None else list(columns)
    for label in wanted:
        if label not in labels:
            raise InputError(
                f"column {label!r} is not in the forecast, which has {labels[:20]}",
                where="columns",
                hint=nearest_name(label, labels) or None,
            )
    return [(series, label) for series in panel.series_ids for label in wanted]


def _labels(panel: Panel) -> list[Any]:
    return list(range(panel.n_columns) if panel.columns is None else panel.columns)


def _line(
    part: Panel, series: Any, label: Any, *, first_row: int
) -> tuple[npt.NDArray[Any], npt.NDArray[np.float64]]:
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
    if hasattr(index, "to_timestamp"):
        index = index.to_timestamp()
    if getattr(index, "tz", None) is not None:
        index = index.tz_localize(None)
    return index.to_numpy(), values


def _panel_title(panel: Panel, series: Any, label: Any) -> str:
    if panel.n_series == 1:
        return str(label)
    return f"{series}" if panel.n_columns == 1 else f"{series}: {label}"


def _unit(history: Any, forecast: Any, label: Any) -> str:
    """Units of a column as the containers give them; empty when they do not."""
    for container in (forecast, history):
        attributes = getattr(container, "attrs", {})
        if label in getattr(container, "data_vars", ()):
            attributes = container[label].attrs
        units = attributes.get("units", "")
        found = units.get(label, "") if isinstance(units, Mapping) else units
        if found:
            return str(found)
    return ""


# ---------------------------------------------------------------------- how to draw


def _grid(n_panels: int) -> tuple[Figure, list[Axes]]:
    n_columns = 1 if n_panels <= 2 else 2 if n_panels <= 6 else 3
    n_rows = -(-n_panels // n_columns)
    width = 8.0 if n_columns == 1 else 4.0 * n_columns
    figure = Figure(figsize=(width, 0.9 + 2.1 * n_rows), layout="constrained")
    axes = figure.subplots(n_rows, n_columns, squeeze=False).ravel().tolist()
    for axis in axes[n_panels:]:
        axis.remove()
    return figure, axes[:n_panels]


def _draw_panel(axis: Axes, lines: dict[str, Any], n_history: int) -> None:
    times, values = (part[-n_history:] for part in lines["history"])
    axis.plot(times, values, color=_COLORS["history"], label="history", linewidth=1.2)
    ahead, forecast = lines["forecast"]
    if "lower" in lines:
        axis.fill_between(
            ahead,
            lines["lower"][1],
            lines["upper"][1],
            color=_COLORS["forecast"],
            alpha=0.2,
            linewidth=0,
            label="interval",
        )
    if "truth" in lines:
        rows, happened = lines["truth"]
        kept = np.isin(rows, ahead)
        axis.plot(
            # The truth goes on where the history ends.
            np.concatenate([times[-1:], rows[kept]]),
            np.concatenate([values[-1:], happened[kept]]),
            color=_COLORS["truth"],
            label="truth",
            linewidth=1.2,
        )
    # A few points are told from a line; many would hide the truth beneath.
    marker = "o" if len(ahead) <= 12 else None
    axis.plot(
        ahead,
        forecast,
        color=_COLORS["forecast"],
        label="forecast",
        linewidth=1.8,
        marker=marker,
        markersize=3,
    )
    axis.axvline(times[-1], color="0.75", linewidth=0.8, zorder=0)
    if np.issubdtype(np.asarray(times).dtype, np.datetime64):
        # These classes of matplotlib carry no types.
        dates: Any = mdates
        locator = dates.AutoDateLocator(maxticks=6)
        axis.xaxis.set_major_locator(locator)
        axis.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator))
    _tidy(axis)


def _tidy(axis: Axes) -> None:
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="y", color="0.9", linewidth=0.8)
    axis.set_axisbelow(True)


def _finish(figure: Figure, axis: Axes, title: str | None, note: str) -> None:
    handles = dict(zip(*axis.get_legend_handles_labels()[::-1], strict=True))
    names = [name for name in _LEGEND if name in handles]
    figure.legend(
        [handles[name] for name in names],
        names,
        loc="outside lower right",
        ncols=len(names),
        frameon=False,
    )
    if title:
        figure.suptitle(title, x=0.01, ha="left", weight="bold")
    if note:
        figure.text(0.01, 0.01, note, ha="left", va="bottom")
