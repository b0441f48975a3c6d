"""Errors of a forecast, once the truth is known.

Axis legend: n rows of a forecast, m rows of the history, T targets.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from sciseq.errors import InputError, InputTypeError

__all__ = [
    "ERROR_COLUMNS",
    "TIME_COLUMNS",
    "WHOLE_NUMBERS",
    "ZONED_DATES",
    "check_columns",
    "check_same_clock",
    "clock_of",
    "in_microseconds",
    "realised_errors",
]

ERROR_COLUMNS = (
    "run_id",
    "as_of",
    "series",
    "time",
    "lead",
    "target",
    "forecast",
    "observed",
    "error",
)
"""Columns of the table of realised errors."""

TIME_COLUMNS = ("as_of", "time")
"""Those of them that are times, or numbers of rows."""

IntArray = npt.NDArray[np.int64]


def realised_errors(
    forecast: pd.DataFrame,
    observed: pd.DataFrame,
    *,
    as_of: pd.Timestamp | int,
    run_id: str,
) -> pd.DataFrame:
    """Errors of a forecast, as far as its truth is known by now.

    Parameters
    ----------
    forecast : DataFrame
        What a run forecast: targets over time, or over (series, time); times are dates
        or whole numbers. Columns ``NAME_lower`` and ``NAME_upper`` beside a target
        ``NAME`` are passed over.
    observed : DataFrame
        Rows known now, with the same kind of index and at least the targets as columns.
        Of several rows for one time the last one counts.
    as_of : Timestamp or int
        Logical date of the run that made the forecast.
    run_id : str
        Name of that run.

    Returns
    -------
    DataFrame
        Columns ``ERROR_COLUMNS``: ``series`` is the name as text (empty for a single
        series), ``lead`` the place of the row in the forecast of its series, from 1,
        and ``error`` is forecast minus observed. Rows without a forecast or without
        truth (missing or NaN) are left out.

    Raises
    ------
    InputTypeError
        When rows are labelled by something other than dates or whole numbers.
    InputError
        When the observed rows lack a target, or when one of the two tables has dates,
        zones or series and the other has not.

    Examples
    --------
    >>> hours = pd.date_range("2026-03-01", periods=3, freq="h")
    >>> forecast = pd.DataFrame({"load": [5.0, 6.0, 7.0]}, hours)
    >>> observed = pd.DataFrame({"load": [5.5, 5.0]}, hours[:2])
    >>> errors = realised_errors(
    ...     forecast, observed, as_of=pd.Timestamp("2026-03-01"), run_id="a1"
    ... )
    >>> errors[["lead", "forecast", "observed", "error"]]
       lead  forecast  observed  error
    0     1       5.0       5.5   -0.5
    1     2       6.0       5.0    1.0
    """
    ahead, known = _Rows.of(forecast, "forecast"), _Rows.of(observed, "observed")
    _check_same_kind(ahead, known)
    targets = _targets(forecast, observed)
    place = _places(ahead, known)  # (n,), -1: not observed
    seen = np.flatnonzero(place >= 0)
    y_hat = _values(forecast, targets, seen)  # (n seen, T)
    y = _values(observed, targets, place[seen])
    error = y_hat - y
    row, target = np.nonzero(~np.isnan(error))
    rows = seen[row]
    names = np.array([str(one) for one in ahead.series], dtype=object)
    table = {
        "run_id": run_id,
        "as_of": as_of,
        "series": names[ahead.series_code[rows]],
        "time": ahead.times.take(ahead.time_code[rows]),
        "lead": _leads(ahead)[rows],
        "target": np.array([str(one) for one in targets], dtype=object)[target],
        "forecast": y_hat[row, target],
        "observed": y[row, target],
        "error": error[row, target],
    }
    return in_microseconds(pd.DataFrame(table, columns=list(ERROR_COLUMNS)))


@dataclass(frozen=True)
class _Rows:
    """Index of a table as codes.

    Row i is of series[series_code[i]] at times[time_code[i]]; a code of -1 is a missing
    label. A single series is one called "".
    """

    series: pd.Index
    series_code: IntArray
    times: Any  # an Index of dates or of whole numbers
    time_code: IntArray
    is_panel: bool

    @classmethod
    def of(cls, table: pd.DataFrame, where: str) -> "_Rows":
        index = table.index
        is_panel = isinstance(index, pd.MultiIndex)
        if isinstance(index, pd.MultiIndex):
            if index.nlevels != 2:
                raise InputError(
                    f"{where} has {index.nlevels} index levels, must have two: series "
                    "and time",
                    where=where,
                )
            series, times = index.levels
            series_code, time_code = (np.asarray(one, np.int64) for one in index.codes)
        else:
            series, series_code = pd.Index([""]), np.zeros(len(index), np.int64)
            time_code, times = pd.factorize(index)
        if not (isinstance(times, pd.DatetimeIndex) or times.dtype.kind in "iu"):
            raise InputTypeError(
                f"rows of {where} are labelled by {times.dtype}, must be by dates or "
                "whole numbers",
                where=where,
                hint="Give a DatetimeIndex, or (series, time) for several series.",
            )
        return cls(series, series_code, times, np.asarray(time_code), is_panel)


def _check_same_kind(ahead: _Rows, known: _Rows) -> None:
    if ahead.is_panel != known.is_panel:
        raise InputError(
            "one of forecast and observed has several series, the other has one",
            where="observed",
            hint="Give both with (series, time) as index, or both with time alone.",
        )
    check_same_clock(ahead.times, known.times, "observed")


def _targets(forecast: pd.DataFrame, observed: pd.DataFrame) -> list[Any]:
    ends = {f"{one}_{end}" for one in forecast for end in ("lower", "upper")}
    targets = [one for one in forecast if one in observed or one not in ends]
    missing = [one for one in targets if one not in observed]
    if missing:
        raise InputError(
            f"observed has no column {missing[0]!r}, which was forecast; its columns "
            f"are {', '.join(map(str, observed.columns[:20]))}",
            where="observed",
        )
    return targets


def _values(
    table: pd.DataFrame, targets: Sequence[Any], rows: IntArray
) -> npt.NDArray[np.float64]:
    # Column by column, because the history may be too large to be copied as a whole.
    columns = [table[one].to_numpy()[rows].astype(np.float64) for one in targets]
    return np.stack(columns, axis=1) if columns else np.empty((len(rows), 0))


def _places(ahead: _Rows, known: _Rows) -> IntArray:
    """Row of the history that each row of the forecast is about; -1: none.

    Series and times of the history are looked up once each, and only the rows that the
    forecast is about are sorted: of millions, a few.
    """
    times: Any = known.times
    if clock_of(times) == ZONED_DATES:
        times = times.tz_convert(ahead.times.tz)
    # A missing label (code -1) takes the -1 at the end.
    series = np.append(ahead.series.get_indexer(known.series), -1)[known.series_code]
    time = np.append(ahead.times.get_indexer(times), -1)[known.time_code]
    near = np.flatnonzero((series >= 0) & (time >= 0))
    key = series[near] * len(ahead.times) + time[near]
    order = np.argsort(key, kind="stable")
    # The last of equal keys; below the first key lies the -1 at the end.
    wanted = ahead.series_code * len(ahead.times) + ahead.time_code
    last = np.searchsorted(key[order], wanted, side="right") - 1
    found = np.append(key[order], -1)[last] == wanted
    found &= (ahead.series_code >= 0) & (ahead.time_code >= 0)
    return np.where(found, np.append(near[order], -1)[last], -1)


def _leads(ahead: _Rows) -> npt.NDArray[np.int32]:
    """Place of each row in the forecast of its series, by time and from 1."""
    n = len(ahead.series_code)
    earlier = np.empty(len(ahead.times), np.int64)
    earlier[np.asarray(ahead.times.argsort())] = np.arange(len(ahead.times))
    order = np.lexsort((earlier[ahead.time_code], ahead.series_code))
    is_first = np.diff(ahead.series_code[order], prepend=-2) != 0
    start = np.maximum.accumulate(np.where(is_first, np.arange(n), 0))
    lead = np.empty(n, np.int32)
    lead[order] = np.arange(n) - start + 1
    return lead


# ----------------------------------------------------------------- columns and times


def check_columns(errors: pd.DataFrame, where: str) -> None:
    """Refuse a table that lacks columns of realised errors.

    Raises
    ------
    InputError
        Naming those that are missing.
    """
    missing = [one for one in ERROR_COLUMNS if one not in errors]
    if missing:
        raise InputError(
            f"a table of realised errors has the columns {', '.join(ERROR_COLUMNS)}; "
            f"{', '.join(missing)} is missing",
            where=where,
        )


WHOLE_NUMBERS = "whole numbers"
PLAIN_DATES = "dates without a zone"
ZONED_DATES = "dates with a zone"


def clock_of(times: Any) -> str:
    """Tell what labels rows, of an index or a column.

    Examples
    --------
    >>> clock_of(pd.date_range("2026-03-01", periods=2, tz="UTC"))
    'dates with a zone'
    """
    times = pd.Index(times)
    if isinstance(times, pd.DatetimeIndex):
        return PLAIN_DATES if times.tz is None else ZONED_DATES
    return WHOLE_NUMBERS


def check_same_clock(one: Any, other: Any, where: str) -> None:
    """Refuse times that cannot be compared; those of two zones can.

    Raises
    ------
    InputError
        When one has dates or a zone, and the other has not.
    """
    clocks = clock_of(one), clock_of(other)
    if clocks[0] != clocks[1]:
        raise InputError(
            f"some times are {clocks[0]}, others {clocks[1]}",
            where=where,
            hint="Give all as dates with a zone, as dates without, or as numbers.",
        )


def in_microseconds(errors: pd.DataFrame) -> pd.DataFrame:
    """Give times one unit: the bytes written must not depend on who read them."""
    dated = [one for one in TIME_COLUMNS if clock_of(errors[one]) != WHOLE_NUMBERS]
    return errors.assign(**{one: errors[one].dt.as_unit("us") for one in dated})
