"""What of a panel stands in a report: a few series and targets, never all of them.

Axis legend: H rows of a forecast, n series.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from sciseq.jobs.report_html import shorten
from sciseq.jobs.report_pictures import Line, Picture, draw_forecast

__all__ = ["Shown", "forecast_pictures", "label_of", "series_of", "some_series"]

MOST_TARGETS = 4
LONGEST_NAME = 120
_HORIZONS_OF_HISTORY = 4
_FEWEST_ROWS, _MOST_ROWS = 48, 400


class Shown(NamedTuple):
    """A series whose forecast is shown.

    Parameters
    ----------
    label : object
        Its name; None when there is one series only.
    forecast : DataFrame
        Its rows of the forecast, over time.
    """

    label: Any
    forecast: pd.DataFrame


def some_series(forecast: pd.DataFrame, n_series: int) -> list[Shown]:
    """Take some series out of a forecast, evenly spread from the first to the last.

    Parameters
    ----------
    forecast : DataFrame
        Over time, or over (series, time).
    n_series : int
        Most of them.

    Examples
    --------
    >>> index = pd.MultiIndex.from_product([list("abcde"), range(2)])
    >>> forecast = pd.DataFrame({"load": 1.0}, index)
    >>> [one.label for one in some_series(forecast, 3)]
    ['a', 'c', 'e']
    """
    if not isinstance(forecast.index, pd.MultiIndex):
        return [Shown(None, forecast)]
    # In the order of the rows; codes without rows are of series that were left out.
    codes = pd.unique(np.asarray(forecast.index.codes[0]))
    places = np.linspace(0, len(codes) - 1, min(n_series, len(codes))).round()
    labels = forecast.index.levels[0][codes[places.astype(int)]]
    return [Shown(one, series_of(forecast, one)) for one in labels]


def series_of(table: pd.DataFrame, label: Any) -> pd.DataFrame:
    """Return the rows of one series over time.

    By codes, because a look-up by label first sorts the millions of rows of a history.

    Parameters
    ----------
    table : DataFrame
        Over time, or over (series, time).
    label : object
        Name of a series; of a table without series: ignored.
    """
    index = table.index
    if not isinstance(index, pd.MultiIndex):
        return table
    place = index.levels[0].get_indexer(pd.Index([label]))[0]
    # A code of -1 is a missing label, which no series has.
    rows = np.flatnonzero((np.asarray(index.codes[0]) == place) & (place >= 0))
    part = table.iloc[rows]
    return part.set_axis(part.index.get_level_values(1)).sort_index()


def label_of(*names: Any) -> str:
    """Write the name of a series and a target.

    Examples
    --------
    >>> label_of("north", "load"), label_of(None, "load")
    ('north: load', 'load')
    """
    return ": ".join(shorten(one, LONGEST_NAME) for one in names if one is not None)


def forecast_pictures(
    one: Shown, history: pd.DataFrame | None, targets: list[Any]
) -> Iterator[Picture]:
    """Draw the forecast of a series, a picture for each target.

    Parameters
    ----------
    one : Shown
        Series to draw.
    history : DataFrame or None
        Rows that were known.
    targets : list
        Columns to draw.
    """
    past = None if history is None else series_of(history, one.label)
    n_rows = int(
        np.clip(_HORIZONS_OF_HISTORY * len(one.forecast), _FEWEST_ROWS, _MOST_ROWS)
    )
    for target in targets:
        ahead = Line(one.forecast.index, _values(one.forecast, target))
        if past is None or target not in past:
            before = Line(one.forecast.index[:0], np.empty(0))
        else:
            latest = past.iloc[-n_rows:]
            before = Line(latest.index, _values(latest, target))
        ends = [f"{target}_{end}" for end in ("lower", "upper")]
        is_banded = all(end in one.forecast for end in ends)
        band = tuple(_values(one.forecast, end) for end in ends) if is_banded else ()
        yield draw_forecast(label_of(one.label, target), before, ahead, band)


def _values(table: pd.DataFrame, column: Any) -> npt.NDArray[np.float64]:
    return np.asarray(table[column], dtype=np.float64)
