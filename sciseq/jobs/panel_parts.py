"""Cutting tables of many series into parts, and forecasting the series of a part."""

from collections.abc import Iterator
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pandas as pd

from sciseq.errors import InputError
from sciseq.jobs.bad_pieces import collected_warnings, run_good_pieces
from sciseq.jobs.field_parts import FieldPart

__all__ = ["Part", "PartForecast", "forecast_part", "panel_parts"]

Part: TypeAlias = pd.DataFrame | FieldPart
"""Some series with all their rows: a table as forecasters take it, or cells."""


def panel_parts(frame: pd.DataFrame, series_per_part: int) -> Iterator[pd.DataFrame]:
    """Cut a table of many series into tables of some series each.

    Parameters
    ----------
    frame : DataFrame
        With a (series, time) index; one without a series level is one part.
    series_per_part : int
        Series in each part; the last one may have fewer.

    Yields
    ------
    DataFrame
        The series in the order in which they first appear, each with all its rows.
        Where the rows of a series follow each other, nothing is copied; the index of a
        part holds no labels of other parts.

    Raises
    ------
    InputError
        For a number below 1, or rows without a series label.

    Examples
    --------
    >>> index = pd.MultiIndex.from_product([["north", "south", "west"], range(2)])
    >>> frame = pd.DataFrame({"load": range(6)}, index=index)
    >>> [part.index.levels[0].tolist() for part in panel_parts(frame, 2)]
    [['north', 'south'], ['west']]
    """
    if series_per_part < 1:
        raise InputError(
            f"series_per_part is {series_per_part}, must be at least 1",
            where="series_per_part",
        )
    if frame.index.nlevels == 1:
        yield frame
        return
    index: Any = frame.index
    if (index.codes[0] < 0).any():
        raise InputError(
            "some rows have no series label",
            where="index, first level",
            hint="Drop these rows or name their series.",
        )
    codes = index.codes[0]
    if not _is_ascending(codes):  # else they say already in which order series come
        codes, _ = pd.factorize(codes, sort=False)
    is_in_order = _is_ascending(codes)
    if not is_in_order:
        order = np.argsort(codes, kind="stable")  # rows of a series stay in order
    sizes = np.bincount(codes)
    ends = np.cumsum(sizes[sizes > 0])
    start = 0
    for last in range(series_per_part - 1, len(ends) + series_per_part - 1,
                      series_per_part):  # fmt: skip
        end = int(ends[min(last, len(ends) - 1)])
        rows = slice(start, end) if is_in_order else order[start:end]
        part: Any = frame.iloc[rows]
        # A cut index still holds the labels of all series, which would travel along.
        part.index = part.index.remove_unused_levels()
        yield part
        start = end


def _is_ascending(codes: Any) -> bool:
    return bool((codes[1:] >= codes[:-1]).all())


class PartForecast(NamedTuple):
    """What became of the series of a part.

    Parameters
    ----------
    frame : DataFrame
        Forecasts, the series in the order of the part.
    failures : list of dict
        ``{"series": label, "error": text}`` for each series that has none.
    notes : list of str
        Warnings, each text once.
    """

    frame: pd.DataFrame
    failures: list[dict[str, Any]]
    notes: list[str]


def forecast_part(
    model: Any,
    part: Part,
    *,
    horizon: int | None = None,
    coverage: float | None = None,
) -> PartForecast:
    """Forecast the series of a part, and those that can be when some cannot.

    Parameters
    ----------
    model : forecaster
        Fitted.
    part : DataFrame or FieldPart
        Some series with all their rows, from :func:`panel_parts` or
        :func:`~sciseq.jobs.field_parts.field_parts`.
    horizon : int, optional
        Rows to forecast; the fitted horizon by default.
    coverage : float, optional
        Adds the columns ``NAME_lower`` and ``NAME_upper``, the ends of an interval of
        this coverage.

    Returns
    -------
    PartForecast
        One call forecasts all series. When it raises, each series is tried alone, those
        that fail are recorded, and one more call forecasts the others: their bits are
        those of a part without the bad series. When that call fails too, each keeps
        what it had alone.

    Examples
    --------
    >>> from sciseq import NaiveForecaster
    >>> index = pd.MultiIndex.from_product(
    ...     [["good", "bad"], pd.date_range("2026", periods=4)]
    ... )
    >>> frame = pd.DataFrame({"load": [1.0, 2, 3, 4, 5, 6, 7, None]}, index=index)
    >>> model = NaiveForecaster(horizon=1, lookback=1).fit(frame.loc[["good"]])
    >>> found = forecast_part(model, frame)
    >>> found.frame["load"].tolist(), [one["series"] for one in found.failures]
    ([4.0], ['bad'])
    """
    frame = part.frame() if isinstance(part, FieldPart) else part
    if not len(frame):
        return PartForecast(frame, [], [])

    def predict(table: pd.DataFrame) -> pd.DataFrame:
        return _predicted(model, table, horizon, coverage)

    bad: list[tuple[Any, str]] = []
    with collected_warnings() as notes:
        try:
            found = [predict(frame)]
        except Exception:
            found, bad = run_good_pieces(predict, _series_of(frame), pd.concat)
    joined = pd.concat(found) if len(found) > 1 else (*found, frame.iloc[:0])[0]
    failures = [{"series": label, "error": text} for label, text in bad]
    return PartForecast(joined, failures, notes)


def _series_of(frame: pd.DataFrame) -> Iterator[tuple[Any, pd.DataFrame]]:
    """Yield each series and its label, None for a single one."""
    for one in panel_parts(frame, 1):
        yield (one.index[0][0] if one.index.nlevels > 1 else None), one


def _predicted(
    model: Any, frame: pd.DataFrame, horizon: int | None, coverage: float | None
) -> pd.DataFrame:
    found: pd.DataFrame = model.predict(frame, horizon=horizon)
    if coverage is None:
        return found
    ends = model.predict_interval(frame, coverage=coverage, horizon=horizon)
    sides = zip(("_lower", "_upper"), ends, strict=True)
    found = pd.concat([found, *(one.add_suffix(name) for name, one in sides)], axis=1)
    return found
