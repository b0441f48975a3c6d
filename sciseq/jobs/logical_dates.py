"""Logical dates: what a run may know, and which runs can be compared."""

from collections.abc import Iterable
from typing import Any

import pandas as pd

from sciseq.data.timeline import future_times, infer_step
from sciseq.errors import InputError, SciSeqError
from sciseq.jobs.realised_errors import clock_of

__all__ = ["as_date", "check_same_clocks", "logical_date"]


def as_date(as_of: Any) -> pd.Timestamp:
    """Return a logical date that was given as text.

    Raises
    ------
    InputError
        When it is none.

    Examples
    --------
    >>> as_date("2024-05-01")
    Timestamp('2024-05-01 00:00:00')
    """
    try:
        date = pd.Timestamp(as_of)
    except ValueError as error:
        raise _no_date(as_of) from error
    if pd.isna(date):
        raise _no_date(as_of)
    return date


def _no_date(as_of: Any) -> InputError:
    return InputError(f"{as_of!r} is no date", where="as_of", hint="Write 2024-05-01.")


def logical_date(times: Any, longest: Any, as_of: Any) -> Any:
    """Return the logical date of a run.

    Parameters
    ----------
    times : pandas.Index
        Of all rows.
    longest : pandas.Index
        Of the longest series, whose step is that of the source.
    as_of : pandas.Timestamp, str or int, optional
        What was asked for; by default one step after the last row.

    Returns
    -------
    pandas.Timestamp or int
        In the time zone of the rows, so that an instant has one name.

    Raises
    ------
    InputError
        When it is no date, or the rows have neither dates nor whole numbers.

    Examples
    --------
    >>> days = pd.date_range("2024-05-01", periods=3)
    >>> logical_date(days, days, None)
    Timestamp('2024-05-04 00:00:00')
    """
    if not isinstance(times, pd.DatetimeIndex):
        _check_whole_numbers(times)
        return int(times.max()) + 1 if as_of is None else _whole_number(as_of)
    if as_of is None:
        return _after(longest, times.max())
    date = as_date(as_of)
    if times.tz is None and date.tz is not None:
        raise InputError(
            f"the logical date {date} has a time zone, the rows of the source have "
            "none",
            where="as_of",
            hint="Leave it out, or set source.time_zone.",
        )
    if times.tz is None or date.tz is not None:
        return date if times.tz is None else date.tz_convert(times.tz)
    try:
        return date.tz_localize(times.tz)
    except ValueError as error:
        raise InputError(
            f"{date} does not say which instant it is: the clocks of {times.tz} were "
            "changed then",
            where="as_of",
            hint="Give it with its offset, as in 2024-10-27T02:30+02:00.",
        ) from error


def _check_whole_numbers(times: Any) -> None:
    if times.dtype.kind not in "iu":
        raise InputError(
            f"rows are labelled by {times.dtype}, must be by dates or whole numbers",
            where="source",
            hint="Name the column of dates with source.time_column; periods become "
            "dates by pandas' to_timestamp.",
        )


def _whole_number(as_of: Any) -> int:
    try:
        return int(as_of)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"the rows are numbered, and {as_of!r} is no number of a row",
            where="as_of",
            hint="Name the column of times with source.time_column.",
        ) from error


def _after(times: Any, last: Any) -> Any:
    try:
        return future_times(pd.DatetimeIndex([last]), infer_step(times), 1)[0]
    except SciSeqError:  # a broken series, or a single row: any later instant will do
        return last + pd.Timedelta(1, "s")


def check_same_clocks(as_of: Any, earlier: Iterable[Any]) -> None:
    """Refuse a logical date that cannot be compared with those of earlier runs.

    Raises
    ------
    InputError
        When one is a date or has a zone, and the other is or has not.

    Examples
    --------
    >>> check_same_clocks(pd.Timestamp("2024-05-02"), [pd.Timestamp("2024-05-01")])
    """
    clock = clock_of([as_of])
    for one in earlier:
        if clock_of([one]) != clock:
            raise InputError(
                f"the logical date {as_of} cannot be compared with {one} of an earlier "
                f"run: logical dates are {clock} now, and were {clock_of([one])}",
                where="as_of",
                hint="Give it as before, or remove the state folder to begin anew.",
            )
