"""Rows of a database as pandas frames: times, series and numbers of either database."""

from collections.abc import Generator, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sciseq.errors import DataQualityError, InputError

if TYPE_CHECKING:
    from sqlalchemy import Connection, Select

__all__ = ["frames_of", "instants", "series_labels"]

_NOTHING = type(None)


def frames_of(
    connection: "Connection",
    statement: "Select[Any]",
    time_column: str,
    series_column: str | None,
    chunk_rows: int,
) -> Generator[Any, None, None]:
    """Yield the rows of a statement as frames, at least one.

    Parameters
    ----------
    connection : sqlalchemy.Connection
        Inside a transaction; the rows are fetched as they are asked for.
    statement : sqlalchemy.Select
        Ordered as it should be.
    time_column : str
        Column of times.
    series_column : str or None
        Column that names the series.
    chunk_rows : int
        Most rows of a frame.

    Yields
    ------
    pandas.DataFrame
        As :func:`read_rows` describes them.
    """
    options = {"yield_per": chunk_rows, "sqlite_raw_colnames": True}
    with connection.execute(statement, execution_options=options) as result:
        names = list(result.keys())
        kind = None
        for rows in result.partitions():
            frame = _frame(names, rows, time_column, series_column)
            kind = kind or frame[time_column].dtype
            if frame[time_column].dtype != kind:
                raise _some_zones(time_column)
            yield frame
    if kind is None:
        yield _frame(names, [], time_column, series_column)


def _frame(
    names: list[str],
    rows: Sequence[Any],
    time_column: str,
    series_column: str | None,
) -> Any:
    fields = zip(*rows, strict=True) if rows else ([] for _ in names)
    columns = {}
    for name, values in zip(names, fields, strict=True):
        if name == time_column:
            columns[name] = instants(values, name)
        elif name == series_column:
            columns[name] = series_labels(values, name)
        else:
            columns[name] = _values(values)
    return pd.DataFrame(columns, columns=names)


def instants(values: Sequence[Any], column: str) -> Any:
    """Return times as a pandas Series, in UTC if they have a zone.

    Parameters
    ----------
    values : sequence of datetime, date or str
        As a driver gives them.
    column : str
        Name, for messages.

    Returns
    -------
    pandas.Series
        Of datetime64, to the microsecond.

    Raises
    ------
    InputError
        For anything but times.
    DataQualityError
        For missing or unreadable times, and a zone in some only.

    Examples
    --------
    >>> instants(["2026-03-29T01:30+01:00", "2026-03-29T03:30+02:00"], "time")
    0   2026-03-29 00:30:00+00:00
    1   2026-03-29 01:30:00+00:00
    dtype: datetime64[us, UTC]
    """
    times = _datetimes(values, column)
    has_zone = {getattr(one, "tzinfo", None) is not None for one in times}
    if len(has_zone) > 1:
        raise _some_zones(column)
    if has_zone != {True}:
        return pd.Series(np.array(times, dtype="datetime64[us]"))
    universal = [one.astimezone(UTC).replace(tzinfo=None) for one in times]
    return pd.Series(np.array(universal, dtype="datetime64[us]")).dt.tz_localize("UTC")


def _datetimes(values: Sequence[Any], column: str) -> Sequence[Any]:
    """Return datetimes and dates as they are, and texts parsed."""
    kinds = set(map(type, values))
    if _NOTHING in kinds:
        number = sum(one is None for one in values)
        raise DataQualityError(f"{number} rows have no time", where=f"column {column}")
    if not all(issubclass(one, date | str) for one in kinds):
        first = next(one for one in values if not isinstance(one, date | str))
        raise InputError(
            f"{first!r} is no time",
            where=f"column {column}",
            hint="Times are of a type for times, or text such as 2026-01-05 06:00.",
        )
    if str not in kinds:
        return values
    try:
        return [
            datetime.fromisoformat(one) if isinstance(one, str) else one
            for one in values
        ]
    except ValueError as error:
        raise DataQualityError(
            f"a time cannot be read: {error}",
            where=f"column {column}",
            hint="Write times as in 2026-01-05 or 2026-01-05T06:00+01:00.",
        ) from None


def _some_zones(column: str) -> DataQualityError:
    return DataQualityError(
        "some times have a zone or an offset from UTC, and some have none",
        where=f"column {column}",
    )


def series_labels(values: Sequence[Any], column: str) -> Any:
    """Return the names of series: integers, or text."""
    kinds = set(map(type, values))
    if _NOTHING in kinds:
        number = sum(one is None for one in values)
        raise DataQualityError(
            f"{number} rows have no series", where=f"column {column}"
        )
    if kinds == {int}:
        return pd.Series(list(values))
    return pd.Series(list(map(str, values)), dtype="str")


def _values(values: Sequence[Any]) -> Any:
    """Return numbers as float64 with NaN for NULL, and anything else as it is."""
    kinds = set(map(type, values))
    if kinds <= {int, float, bool, Decimal, _NOTHING}:
        return pd.Series(np.array(values, dtype=np.float64))
    return pd.Series(list(values))
