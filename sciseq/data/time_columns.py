"""Which column of a table holds its times, and how its text reads as dates.

Only whole columns count: a column of which one value is not a date is no time column.
Dates are read by format, never by guessing value for value, so that 1/2/2024 cannot
mean January in one row and February in the next.
"""

import datetime
import re
import warnings
from collections.abc import Sequence
from typing import Any

import pandas as pd

from sciseq.errors import InputError, SciSeqWarning, nearest_name

__all__ = ["PREFERRED_NAMES", "date_readings", "find_times"]

PREFERRED_NAMES = ("time", "date", "datetime", "timestamp", "ds")
"""Names, in any case, that decide between several columns of dates."""

_ISO = re.compile(r"\d{4}-\d{2}(-\d{2}([T ].*)?)?")
_NUMBERS = re.compile(
    r"(?P<first>\d{1,4})(?P<mark>[-/.])\d{1,2}(?P=mark)(?P<last>\d{1,4})"
    r"(?P<gap>[T ]?)(?P<clock>\d{1,2}:\d{2}(?P<seconds>:\d{2})?(?P<part>\.\d+)?"
    r"(?P<half> [AP]M)?)?",
    re.IGNORECASE,
)
# Dates written as one number, 20240131: centuries in which measurements were taken.
_COMPACT = range(1600_01_01, 2400_00_00)


def find_times(
    table: Any, *, named: str | None = None, row_labels: str | None = None
) -> tuple[str, Any] | None:
    """Find the time column of a table and read it.

    Parameters
    ----------
    table : pandas.DataFrame
        All columns that could hold the time.
    named : str, optional
        The column to take. It may also hold numbers, as they are.
    row_labels : str, optional
        Column that labelled the rows in the file, preferred when it holds dates.

    Returns
    -------
    (name, times) or None
        None when no column holds dates.

    Raises
    ------
    InputError
        When several columns hold dates, when the named column does not, or when its
        days and months cannot be told apart.

    Examples
    --------
    >>> table = pd.DataFrame({"day": ["2024-01-31", "2024-02-01"], "flow": [3.0, 4.0]})
    >>> name, times = find_times(table)
    >>> name, times.iloc[-1].month
    ('day', 2)
    """
    if named is not None:
        return named, _read_named(table, named)
    readings = {name: date_readings(table[name]) for name in table.columns}
    dated = [name for name in table.columns if readings[name]]
    name = _choose(dated, row_labels)
    if name is None:
        _refuse_spoilt(table)
        return None
    return name, _the_only(readings[name], table[name])


def date_readings(column: Any) -> list[Any]:
    """Return every way in which a whole column reads as dates.

    Parameters
    ----------
    column : pandas.Series
        Dates, text, or whole numbers such as 20240131.

    Returns
    -------
    list of pandas.Series
        Empty when the column holds something else; two entries when day and month
        could be either way round.

    Examples
    --------
    >>> [len(date_readings(pd.Series([text]))) for text in ("31/1/2024", "1/2/2024")]
    [1, 2]
    """
    dtype = column.dtype
    if pd.api.types.is_datetime64_any_dtype(dtype) or isinstance(dtype, pd.PeriodDtype):
        return [column]
    known = column.dropna()
    if known.empty:
        return []
    first = known.iloc[0]
    if isinstance(first, datetime.date):
        try:
            return [pd.to_datetime(column)]
        except ValueError as error:
            raise InputError(
                f"times in column {column.name!r} cannot be compared: {error}",
                where="time column",
                hint="Convert them to one zone: pandas.to_datetime(..., utc=True).",
            ) from error
    if pd.api.types.is_integer_dtype(dtype) and int(first) in _COMPACT:
        return _fitting(column.astype(str), ["%Y%m%d"])
    if isinstance(first, str):
        return _fitting(column.str.strip(), _formats(first.strip()))
    return []


def _choose(dated: Sequence[str], row_labels: str | None) -> str | None:
    if row_labels is not None and row_labels in dated:
        return row_labels
    if len(dated) <= 1:
        return dated[0] if dated else None
    preferred = [name for name in dated if str(name).lower() in PREFERRED_NAMES]
    if len(preferred) == 1:
        return preferred[0]
    raise InputError(
        f"{len(dated)} columns hold dates: {', '.join(map(repr, dated))}",
        where="time column",
        hint="Name the one that labels the rows with --time-column (in Python: "
        "time_column=).",
    )


def _read_named(table: Any, name: str) -> Any:
    if name not in table.columns:
        raise InputError(
            f"column {name!r} is missing, the table has {list(table.columns)[:20]}",
            where="time column",
            hint=nearest_name(name, table.columns) or None,
        )
    column = table[name]
    readings = date_readings(column)
    if not readings and pd.api.types.is_numeric_dtype(column.dtype):
        return column
    if not readings:
        raise _not_dates(column)
    return _the_only(readings, column)


def _the_only(readings: list[Any], column: Any) -> Any:
    if len(readings) == 1:
        return readings[0]
    day_first, month_first = (one.dropna().iloc[0].date() for one in readings)
    raise InputError(
        f"{column.dropna().iloc[0]!r} in column {column.name!r} may be {day_first} or "
        f"{month_first}: no row tells whether the day or the month comes first",
        where="time column",
        hint="Write dates as in 2024-01-31 (ISO 8601).",
    )


def _refuse_spoilt(table: Any) -> None:
    """Refuse a column called ``time`` or the like that holds text, but not dates."""
    for name in table.columns:
        column = table[name]
        is_text = not pd.api.types.is_numeric_dtype(column.dtype)
        if is_text and str(name).lower() in PREFERRED_NAMES and column.notna().any():
            raise _not_dates(column)


def _not_dates(column: Any) -> InputError:
    known = column.dropna()
    if known.empty:
        return InputError(f"column {column.name!r} is empty", where="time column")
    # Read by the format of the first value, the others show where the text breaks.
    formats = _formats(str(known.iloc[0]).strip()) or ["ISO8601"]
    text = known.astype(str).str.strip()
    bad = max(
        (known[_parse(text, one).isna()] for one in formats[::-1]),
        key=lambda rows: -len(rows),
    )
    return InputError(
        f"{len(bad)} of {len(known)} values in column {column.name!r} are not dates, "
        f"first {bad.iloc[0]!r}",
        where=f"time column, row {bad.index[0]}",
        hint="Write dates as in 2024-01-31 or 2024-01-31 23:00 (ISO 8601).",
    )


def _formats(text: str) -> list[str]:
    """List the formats in which one text could be a date."""
    if _ISO.fullmatch(text):
        return ["ISO8601"]
    match = _NUMBERS.fullmatch(text)
    if match is None:
        return []
    mark, clock = match["mark"], _clock_format(match)
    if len(match["first"]) == 4:
        return [f"%Y{mark}%m{mark}%d{clock}"]
    if len(match["last"]) != 4:
        return []
    day_first = f"%d{mark}%m{mark}%Y{clock}"
    # Dots are written only where the day comes first.
    return [day_first] if mark == "." else [day_first, f"%m{mark}%d{mark}%Y{clock}"]


def _clock_format(match: re.Match[str]) -> str:
    if match["clock"] is None:
        return ""
    hours = "%I:%M" if match["half"] else "%H:%M"
    seconds = ":%S" if match["seconds"] else ""
    part = ".%f" if match["part"] else ""
    return match["gap"] + hours + seconds + part + (" %p" if match["half"] else "")


def _fitting(text: Any, formats: Sequence[str]) -> list[Any]:
    readings: list[Any] = []
    for one in formats:
        dates = _parse(text, one)
        fits = bool((dates.notna() == text.notna()).all())
        if fits and not any(dates.equals(other) for other in readings):
            readings.append(dates)
    return readings


def _parse(text: Any, date_format: str) -> Any:
    try:
        return pd.to_datetime(text, format=date_format, errors="coerce")
    except ValueError:
        # Only different offsets from UTC are refused rather than coerced.
        warnings.warn(
            f"column {text.name!r} mixes offsets from UTC: its times are read as UTC. "
            "Parquet and NetCDF files keep the name of a time zone",
            SciSeqWarning,
            stacklevel=2,
        )
        return pd.to_datetime(text, format=date_format, errors="coerce", utc=True)
