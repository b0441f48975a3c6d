"""What the pictures share: axes given or made, colours, dates, legends, files.

A picture draws on the axes that it is given. Given none, it makes a figure of its own
without pyplot: nothing is kept in a global registry, no window opens, and settings of
the caller (``matplotlib.rcParams``) are read, never changed.
"""

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import matplotlib.dates as mdates
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure, SubFigure

from sciseq.errors import FileFormatError, InputTypeError, nearest_name
from sciseq.files import temporary_path

__all__ = [
    "COLORS",
    "FIGURE_SUFFIXES",
    "SERIES_COLORS",
    "WIDTH",
    "PictureAxes",
    "check_axes",
    "check_figure_path",
    "label_text",
    "place_legend",
    "plain_times",
    "png_of",
    "root_figure",
    "save_figure",
    "show_times",
    "single_axes",
    "thin_labels",
    "tidy",
    "tint",
    "unit_of",
]

FIGURE_SUFFIXES = (".png", ".pdf", ".svg")
"""Suffixes that :func:`save_figure` writes."""

WIDTH = 8.0  # inches, 800 pixels in a notebook

# Colours of Okabe and Ito, which people with any colour vision tell apart.
COLORS = {"history": "#4d4d4d", "truth": "#d55e00", "forecast": "#0072b2"}
SERIES_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")


class PictureAxes(Axes):
    """Axes of a figure made here; a notebook shows them as the picture."""

    def _repr_png_(self) -> bytes | None:
        return png_of(self.figure)


def png_of(figure: Figure | SubFigure) -> bytes:
    """Return the whole figure as a PNG file."""
    picture = io.BytesIO()
    root_figure(figure).savefig(picture, format="png")
    return picture.getvalue()


def root_figure(figure: Figure | SubFigure) -> Figure:
    """Return the figure that a part of a figure belongs to."""
    root = figure.figure  # of a figure: itself
    assert isinstance(root, Figure)
    return root


# --------------------------------------------------------------------- where to draw


def single_axes(ax: Axes | None, height: float) -> Axes:
    """Return the axes given, or those of a new figure.

    Parameters
    ----------
    ax : Axes or None
        What the caller gave.
    height : float
        Height of a new figure in inches.

    Raises
    ------
    InputTypeError
        When ``ax`` is something else.
    """
    if ax is not None:
        check_axes(ax)
        return ax
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure.add_subplot(axes_class=PictureAxes)


def check_axes(ax: Any) -> None:
    """Refuse what are not axes."""
    if isinstance(ax, Axes):
        return
    raise InputTypeError(
        f"ax holds a {type(ax).__name__}, must be matplotlib Axes",
        where="ax",
        hint="Axes come from pyplot.subplots() or figure.subplots().",
    )


# ---------------------------------------------------------------------- how to draw


def tidy(axis: Axes, *, grid: Literal["x", "y"] = "y") -> None:
    """Take away what is not data, and put grid lines behind the rest."""
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis=grid, color="0.9", linewidth=0.8)
    axis.set_axisbelow(True)


def place_legend(axes: Sequence[Axes], names: Sequence[str], *, is_own: bool) -> None:
    """Name the lines: beside the panels of an own figure, else on the first axes.

    Parameters
    ----------
    axes : sequence of Axes
        The panels; what the first one holds is named.
    names : sequence of str
        Names in their order; those that were not drawn are passed over.
    is_own : bool
        Whether the figure was made here.
    """
    handles = dict(zip(*axes[0].get_legend_handles_labels()[::-1], strict=True))
    shown = [name for name in names if name in handles]
    lines = [handles[name] for name in shown]
    if is_own:
        root_figure(axes[0].figure).legend(
            lines,
            shown,
            loc="outside lower right",
            ncols=min(len(shown), 5),
            columnspacing=1.6,
            handlelength=1.6,
            frameon=False,
        )
    else:
        axes[0].legend(lines, shown, fontsize="small", framealpha=0.8, edgecolor="none")


def tint(color: str, strength: float) -> tuple[float, float, float]:
    """Mix a colour with white, so that what lies beneath does not change it."""
    red, green, blue = (1 - strength * (1 - part) for part in to_rgb(color))
    return red, green, blue


def plain_times(index: Any) -> npt.NDArray[Any]:
    """Row labels as matplotlib draws them: periods at their start, local times."""
    if hasattr(index, "to_timestamp"):
        index = index.to_timestamp()
    if getattr(index, "tz", None) is not None:
        index = index.tz_localize(None)
    return np.asarray(index.to_numpy())


def show_times(axis: Axes, times: npt.NDArray[Any]) -> None:
    """Write few and short dates at the time axis, and say where rows are counted."""
    if not np.issubdtype(times.dtype, np.datetime64):
        axis.set_xlabel("row")
        return
    # These classes of matplotlib carry no types.
    dates: Any = mdates
    locator = dates.AutoDateLocator(maxticks=6)
    axis.xaxis.set_major_locator(locator)
    axis.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator))


def label_text(label: Any) -> str:
    """Return a label, or the labels of several levels, as one text.

    Examples
    --------
    >>> label_text("load"), label_text(("north", "load"))
    ('load', 'north: load')
    """
    return ": ".join(map(str, label)) if isinstance(label, tuple) else str(label)


def thin_labels(labels: Sequence[Any], most: int) -> tuple[list[int], list[str]]:
    """Positions and texts of at most ``most`` of the labels, evenly spread.

    Examples
    --------
    >>> thin_labels("abcde", most=3)
    ([0, 2, 4], ['a', 'c', 'e'])
    """
    step = -(-len(labels) // most)
    positions = list(range(0, len(labels), max(step, 1)))
    return positions, [label_text(labels[one]) for one in positions]


def unit_of(label: Any, *containers: Any) -> str:
    """Units of a column, as the first container that has them gives them."""
    for container in containers:
        attributes = getattr(container, "attrs", {})
        if label in getattr(container, "data_vars", ()):
            attributes = container[label].attrs
        units = attributes.get("units", "")
        found = units.get(label, "") if isinstance(units, dict) else units
        if found:
            return str(found)
    return ""


# ---------------------------------------------------------------------------- files


def save_figure(picture: Any, path: str | os.PathLike[str]) -> None:
    """Save a picture so that the file is complete or not there.

    Parameters
    ----------
    picture : Axes, AxesArray or matplotlib.figure.Figure
        What a picture function returned, or a figure; the whole figure is saved.
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
    >>> from sciseq.plotting import plot_forecast
    >>> axes = plot_forecast(np.zeros((20, 1)), np.zeros((5, 1)))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_figure(axes, Path(folder, "zeros.png"))
    ...     Path(folder, "zeros.png").read_bytes()[1:4]
    b'PNG'
    """
    check_figure_path(path)
    with temporary_path(path) as temporary:
        root_figure(picture.figure).savefig(temporary, dpi=150)


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
