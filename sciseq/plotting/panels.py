"""Pictures of small panels: which there are, and on which axes they are drawn."""

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sciseq.errors import InputError, nearest_name
from sciseq.plotting.canvas import (
    WIDTH,
    PictureAxes,
    check_axes,
    png_of,
    root_figure,
)

__all__ = ["MAX_PANELS", "AxesArray", "Given", "Panels", "panel_title"]

MAX_PANELS = 12
"""Panels of a figure that a picture makes; given axes may be more."""

Given = TypeVar("Given", Axes, Sequence[Axes], npt.NDArray[Any])


class AxesArray(np.ndarray[Any, np.dtype[np.object_]]):
    """Axes of a picture with several panels; a notebook shows them as the picture.

    Examples
    --------
    >>> from sciseq.plotting import plot_forecast
    >>> axes = plot_forecast(np.zeros((20, 2)), np.zeros((5, 2)))
    >>> axes.shape, axes[0].get_title("left")
    ((2,), '0')
    """

    @property
    def figure(self) -> Figure:
        """The figure that holds the panels."""
        first: Any = self.flat[0]
        return root_figure(first.figure)

    def _repr_png_(self) -> bytes | None:
        # What NumPy computes from axes need not be axes.
        is_picture = self.size and all(isinstance(one, Axes) for one in self.flat)
        return png_of(self.figure) if is_picture else None


class Panels:
    """The panels of a picture, one for each column of each series.

    Parameters
    ----------
    ax : Axes, sequence or ndarray of Axes, or None
        What the caller gave; None makes a figure of at most 12 panels.
    title : str or None
        Title of the figure that is made.
    all_series, all_columns : sequence of labels
        What there is.
    series, columns : sequence of labels, or None
        What the caller wants of it.

    Raises
    ------
    InputError
        For unknown labels, or when there are not as many axes as panels.
    InputTypeError
        When ``ax`` holds something else.
    """

    def __init__(
        self,
        ax: Any,
        title: str | None,
        *,
        all_series: Sequence[Any],
        all_columns: Sequence[Any],
        series: Sequence[Any] | None,
        columns: Sequence[Any] | None,
    ) -> None:
        self._given = ax
        self._parts = [
            (one, label)
            for one in _chosen(series, all_series, "series")
            for label in _chosen(columns, all_columns, "columns")
        ]
        counts = len(all_series), len(all_columns)
        self._titles = [panel_title(*one, *counts) for one in self._parts]
        self.is_own = ax is None
        self.axes = (
            _new_grid(self._titles, title) if self.is_own else self._check(title)
        )

    def _check(self, title: str | None) -> list[Axes]:
        """Return the axes given, one per panel."""
        if title is not None:
            raise InputError(
                "title names a new figure, and ax belongs to one that is there",
                where="title",
                hint="Use ax.set_title(...) or figure.suptitle(...).",
            )
        axes = list(np.ravel(np.asarray(self._given, dtype=object)))
        for one in axes:
            check_axes(one)
        if len(axes) != len(self._titles):
            shown = ", ".join(self._titles[:6]) + ", ..." * (len(self._titles) > 6)
            raise InputError(
                f"{len(axes)} axes were given for {len(self._titles)} panels ({shown})",
                where="ax",
                hint="Give one for each panel, or choose columns and series.",
            )
        return axes

    def __iter__(self) -> Iterator[tuple[Axes, Any, Any]]:
        """Yield axes, series and column of each panel, and write its title."""
        for axis, title, (series, column) in zip(
            self.axes, self._titles, self._parts, strict=False
        ):
            axis.set_title(title, loc="left")
            yield axis, series, column

    def result(self) -> Any:
        """Return what the picture returns: what was given, or the new axes."""
        if not self.is_own:
            return self._given
        array = np.empty(len(self.axes), dtype=object)
        array[:] = self.axes
        return array.view(AxesArray)


def panel_title(series: Any, column: Any, n_series: int, n_columns: int) -> str:
    """Name a column of a series, as shortly as it can be told from the others.

    Examples
    --------
    >>> panel_title("north", "load", 2, 1), panel_title("north", "load", 2, 2)
    ('north', 'north: load')
    """
    if n_series == 1:
        return str(column)
    return f"{series}" if n_columns == 1 else f"{series}: {column}"


def _chosen(wanted: Sequence[Any] | None, known: Sequence[Any], name: str) -> list[Any]:
    if wanted is None:
        return list(known)
    if not len(wanted):
        raise InputError(f"{name} is empty, so there is nothing to draw", where=name)
    for label in wanted:
        if label not in known:
            kind = "column" if name == "columns" else name
            raise InputError(
                f"{kind} {label!r} is not in the forecast, which has "
                f"{list(known[:20])}",
                where=name,
                hint=nearest_name(label, known) or None,
            )
    return list(wanted)


def _new_grid(titles: Sequence[str], title: str | None) -> list[Axes]:
    """Make axes on a new figure, with its title and what it leaves out."""
    n_panels = min(len(titles), MAX_PANELS)
    n_columns = 1 if n_panels <= 3 else 2
    n_rows = -(-n_panels // n_columns)
    figure = Figure(figsize=(WIDTH, 0.9 + 2.1 * n_rows), layout="constrained")
    if title:
        figure.suptitle(title, x=0.01, ha="left", weight="bold")
    if n_panels < len(titles):
        note = f"{n_panels} of {len(titles)} panels are shown"
        figure.text(0.01, 0.01, note, ha="left", va="bottom")
    return [
        figure.add_subplot(n_rows, n_columns, number + 1, axes_class=PictureAxes)
        for number in range(n_panels)
    ]
