"""Pictures of a report: small SVG documents that follow the reader's light or dark.

No text of the data stands in a picture: it would be read as a formula where it holds
two dollar signs. Names stand in the caption, which the page escapes.
"""

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sciseq.jobs.report_html import Html, markup
from sciseq.jobs.report_style import PICTURE_STYLE

__all__ = ["Line", "Picture", "draw_errors", "draw_forecast", "time_text"]

FloatArray = npt.NDArray[np.float64]

SIZE = (4.0, 2.3)  # inches: letters stay readable at the width of a phone

# Stand-ins that matplotlib writes, and the colours of the style that replace them.
_INK, _GRID = "#111111", "#dddddd"
_HISTORY, _FORECAST = "#444444", "#0077bb"
_REPLACED = {
    _INK: "var(--ink)",
    _GRID: "var(--line)",
    _HISTORY: "var(--history)",
    _FORECAST: "var(--forecast)",
}
_SETTINGS: dict[str, Any] = {
    "axes.edgecolor": _INK,
    "axes.formatter.useoffset": False,
    "axes.labelcolor": _INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "font.size": 9,
    "grid.color": _GRID,
    "svg.fonttype": "none",  # letters stay letters
    "svg.hashsalt": "sciseq",  # else names inside the file are random
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
}


@dataclass(frozen=True)
class Line:
    """Values over times, which are dates or whole numbers (an Index)."""

    times: Any
    values: FloatArray

    def range_text(self) -> str:
        """Return how many values there are and between what they lie."""
        seen = self.values[np.isfinite(self.values)]
        if not len(seen):
            return f"{len(self.values)} rows without values"
        return f"{len(self.values)} rows between {seen.min():.4g} and {seen.max():.4g}"


@dataclass(frozen=True)
class Picture:
    """A picture with what is said beside it, and in place of it."""

    svg: bytes
    caption: str
    alt: str

    def html(self) -> Html:
        """Return the figure, with the picture inside of the page."""
        return markup(
            '<figure><figcaption>{}</figcaption><img width="{}" height="{}" alt="{}" '
            'src="data:image/svg+xml;base64,{}"></figure>\n',
            self.caption,
            round(96 * SIZE[0]),
            round(96 * SIZE[1]),
            self.alt,
            base64.b64encode(self.svg).decode("ascii"),
        )


def draw_forecast(
    caption: str, history: Line, forecast: Line, band: tuple[FloatArray, ...] = ()
) -> Picture:
    """Draw a forecast after its history.

    Parameters
    ----------
    caption : str
        Name of the series and the target.
    history, forecast : Line
        What to draw.
    band : tuple of two ndarrays, optional
        Lower and upper ends of an interval at the times of the forecast.
    """

    def draw(axis: Any) -> None:
        _plot(axis, history, color=_HISTORY, linewidth=1.1)
        if band:
            axis.fill_between(
                _plain(forecast.times), *band, color=_FORECAST, alpha=0.25, linewidth=0
            )
        # A single value is a point, which no line shows.
        marker = "o" if len(forecast.values) == 1 else None
        _plot(axis, forecast, color=_FORECAST, linewidth=1.7, marker=marker)
        _label_times(axis, forecast.times)

    alt = f"Line chart of {caption}. History: {history.range_text()}"
    if len(history.times):
        first, last = time_text(history.times[0]), time_text(history.times[-1])
        alt += f", {first} to {last}"
    alt += f". Forecast: {forecast.range_text()}"
    if len(forecast.times):
        alt += f", {time_text(forecast.times[0])} to {time_text(forecast.times[-1])}"
    return Picture(_svg(draw), caption, alt + ".")


def draw_errors(caption: str, places: Any, errors: FloatArray, label: str) -> Picture:
    """Draw mean errors, over dates (a DatetimeIndex) or over leads.

    Parameters
    ----------
    caption : str
        What is drawn.
    places : Index
        Dates, or whole numbers.
    errors : ndarray
        Mean absolute errors.
    label : str
        Name of the axis below; ours, not of the data.
    """

    def draw(axis: Any) -> None:
        line = Line(places, errors)
        # Of many points the line alone is clearer.
        style: dict[str, Any] = {"color": _FORECAST, "linewidth": 1.4}
        style |= {"marker": "o", "markersize": 3} if len(errors) <= 40 else {}
        _plot(axis, line, **style)
        _label_times(axis, places)
        axis.set_xlabel(label)
        # An error of zero is what all others are measured from.
        axis.set_ylim(bottom=0)

    first, last = time_text(places[0]), time_text(places[-1])
    alt = (
        f"Line chart of {caption}, by {label} from {first} to {last}: "
        f"{Line(places, errors).range_text()}, the last {errors[-1]:.4g}."
    )
    return Picture(_svg(draw), caption, alt)


def time_text(time: Any) -> str:
    """Write a time, or a number of a row, without the parts that are zero anyway.

    Examples
    --------
    >>> import pandas as pd
    >>> time_text(pd.Timestamp("2026-03-01")), time_text(pd.Timestamp("2026-03-01 06"))
    ('2026-03-01', '2026-03-01 06:00')
    """
    if not hasattr(time, "normalize"):
        return str(time)
    if time == time.normalize():
        return f"{time:%Y-%m-%d}"
    return f"{time:%Y-%m-%d %H:%M:%S}".removesuffix(":00")


# ------------------------------------------------------------------------ matplotlib


def _svg(draw: Callable[[Any], None]) -> bytes:
    """Return a picture whose bytes depend only on what is drawn."""
    import matplotlib.style
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    # The caller's own settings are put aside meanwhile.
    with matplotlib.style.context(["default", _SETTINGS]):
        figure = Figure(figsize=SIZE)
        axis = figure.add_axes((0.14, 0.2, 0.84, 0.76))
        axis.yaxis.set_major_locator(MaxNLocator(nbins=5))
        draw(axis)
        axis.margins(x=0.02)
        picture = io.StringIO()
        figure.savefig(
            picture,
            format="svg",
            transparent=True,
            metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")),
        )
    text = picture.getvalue()
    text = text[text.index("<svg") :]
    for color, variable in _REPLACED.items():
        text = text.replace(color, variable)
    end = text.index(">") + 1
    return f"{text[:end]}<style>{PICTURE_STYLE}</style>{text[end:]}".encode()


def _plot(axis: Any, line: Line, **style: Any) -> None:
    axis.plot(_plain(line.times), line.values, **style)


def _plain(times: Any) -> npt.NDArray[Any]:
    """Return instants: a day of 25 hours is no step backwards."""
    if getattr(times, "tz", None) is not None:
        times = times.tz_convert("UTC").tz_localize(None)
    return np.asarray(times)


def _label_times(axis: Any, times: Any) -> None:
    """Write few and short dates, as clocks of their zone show them."""
    import matplotlib.dates
    from matplotlib.ticker import MaxNLocator

    if not hasattr(times, "tz"):
        axis.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        return
    dates: Any = matplotlib.dates
    locator = dates.AutoDateLocator(tz=times.tz, minticks=3, maxticks=6)
    axis.xaxis.set_major_locator(locator)
    axis.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator, tz=times.tz))
