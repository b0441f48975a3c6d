"""Row labels in time: the step between rows, gaps, and the labels of future rows.

Works on pandas indexes of any kind. A step is known by its pandas frequency (dates,
periods, durations) or by a number (integers, floats); labels of any other kind have
none, and future rows are then numbered 1, 2, ... steps ahead.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from sciseq.errors import DataQualityError, InputError

__all__ = ["Step", "check_times", "future_times", "infer_step"]


@dataclass(frozen=True)
class Step:
    """Distance between neighbouring rows.

    Parameters
    ----------
    kind : {"datetime", "period", "timedelta", "number", "label"}
        Kind of row label.
    frequency : str or None
        pandas frequency string, for dates, periods and durations.
    delta : float or None
        Distance, for numbers.
    """

    kind: str
    frequency: str | None = None
    delta: float | None = None

    def __str__(self) -> str:
        return str(self.frequency if self.frequency is not None else self.delta)

    def is_same(self, other: "Step") -> bool:
        """Tell whether rows of both steps are equally far apart.

        Steps between numbers are compared up to the rounding of their labels.
        """
        if self.kind != other.kind or self.frequency != other.frequency:
            return False
        if self.delta is None or other.delta is None:
            return self.delta is other.delta
        return bool(np.isclose(self.delta, other.delta, rtol=1e-3, atol=0))


def infer_step(
    index: Any, *, where: str = "", expected: Step | None = None
) -> Step | None:
    """Infer the step of one index, refusing unsorted, repeated and irregular rows.

    Parameters
    ----------
    index : pandas.Index
        Row labels in the order of the rows.
    where : str, default=""
        Prefix for messages (the series).
    expected : Step, optional
        Step known from elsewhere; it is returned when these rows keep it, which is
        far cheaper than inferring.

    Returns
    -------
    Step or None
        None when the index is too short to tell.

    Raises
    ------
    DataQualityError
        For missing, repeated, unsorted or irregular labels, naming the first ones.

    Examples
    --------
    >>> import pandas as pd
    >>> infer_step(pd.date_range("2024-01-31", periods=4, freq="ME")).frequency
    'ME'
    """
    import pandas as pd

    if isinstance(index, pd.DatetimeIndex) and _keeps_width(index, expected):
        return expected
    check_times(index, where=where)
    if isinstance(index, pd.PeriodIndex):
        _check_constant(index.asi8, index, where)
        return Step("period", frequency=index.freqstr)
    if isinstance(index, pd.DatetimeIndex):
        return _datetime_step(index, where, expected)
    if isinstance(index, pd.TimedeltaIndex):
        if len(index) < 2:
            return None
        _check_constant(index.asi8, index, where)
        return Step("timedelta", frequency=_tick(index[1] - index[0]))
    if isinstance(index, pd.RangeIndex):
        return Step("number", delta=float(index.step))
    if _is_numeric(index):
        if len(index) < 2:
            return None
        labels = index.to_numpy()
        _check_constant(labels, index, where)
        # Over all rows, the rounding of single labels counts least.
        span = labels[-1].item() - labels[0].item()
        return Step("number", delta=float(span / (len(labels) - 1)))
    return Step("label")


def _is_numeric(index: Any) -> bool:
    import pandas as pd

    return bool(
        pd.api.types.is_numeric_dtype(index.dtype)
        and not pd.api.types.is_bool_dtype(index.dtype)
    )


def check_times(index: Any, *, where: str = "") -> None:
    """Refuse missing, repeated and unsorted row labels, naming the first ones."""
    import pandas as pd

    ordered = isinstance(
        index, pd.DatetimeIndex | pd.PeriodIndex | pd.TimedeltaIndex
    ) or _is_numeric(index)
    # pandas learns both in one pass over sorted labels, which are never missing; to
    # ask for repeated ones first would build a hash table.
    if ordered and index.is_monotonic_increasing and index.is_unique:
        return
    if index.hasnans:
        rows = np.flatnonzero(index.isna())
        raise DataQualityError(
            f"the index has {len(rows)} missing labels",
            where=f"{where}rows {rows[:5].tolist()}",
            hint="Drop these rows or give them a time.",
        )
    if not index.is_unique:
        repeated = index[index.duplicated()].unique()
        shown = ", ".join(str(label) for label in repeated[:5])
        raise DataQualityError(
            f"the index has duplicate labels: {len(repeated)} appear more than once",
            where=f"{where}{shown}",
            hint="Keep one row per time, for example "
            "frame[~frame.index.duplicated()] or frame.groupby(level=0).mean().",
        )
    if ordered and not index.is_monotonic_increasing:
        values = index.to_numpy()
        row = int(np.flatnonzero(values[1:] < values[:-1])[0]) + 1
        raise DataQualityError(
            "the rows are not sorted in time",
            where=f"{where}row {row} ({index[row]}) comes after {index[row - 1]}",
            hint="Sort with frame.sort_index().",
        )


def _datetime_step(index: Any, where: str, expected: Step | None) -> Step | None:
    import pandas as pd

    if expected is not None and expected.kind != "datetime":
        expected = None
    named = index.freqstr
    # pandas knows months, business days, and days on the wall clock of a zone with
    # summer time; it needs three rows to tell.
    if named is None and len(index) > 2:
        named = pd.DatetimeIndex(index, freq="infer").freqstr
    # One step has many names (7D is W-MON on Mondays), and few rows may keep several
    # (five working days in a row are days as well).
    if expected is not None and named != expected.frequency and _is_on(index, expected):
        return expected
    if named is not None:
        return Step("datetime", frequency=named)
    if len(index) < 2:
        return None
    distances = np.diff(index.asi8)
    if not (distances == distances[0]).all():
        _refuse_irregular(index.asi8, index, where)
    return Step("datetime", frequency=_tick(index[1] - index[0]))


def _keeps_width(index: Any, step: Step | None) -> bool:
    """Tell whether dates lie a step of constant length apart: cheap and usual.

    Such dates are sorted, differ, and none of them is missing.
    """
    if step is None or step.kind != "datetime" or not len(index):
        return False
    width = _width(str(step.frequency), index.unit)
    labels = index.asi8
    if width is None or labels[0] == np.iinfo(np.int64).min:  # NaT
        return False
    # Differences of int64 wrap around; the distance from end to end does not lie.
    span = int(labels[-1]) - int(labels[0])
    if span != (len(labels) - 1) * width:
        return False
    return bool((np.diff(labels) == width).all())


@lru_cache(maxsize=64)
def _width(frequency: str, unit: Any) -> int | None:
    """Length of a step in units of time; None where it varies, as for months."""
    import pandas as pd

    offset = pd.tseries.frequencies.to_offset(frequency)
    if not isinstance(offset, pd.tseries.offsets.Tick):
        return None
    width = int(pd.Timedelta(offset).as_unit(unit).asm8.view(np.int64))
    return width if width > 0 else None


def _is_on(index: Any, step: Step) -> bool:
    """Tell whether dates are neighbours on the grid of a step, on the wall clock."""
    import pandas as pd

    wall = index.tz_localize(None)
    grid = pd.date_range(wall[0], periods=len(wall), freq=step.frequency)
    return bool((grid == wall).all())


def _tick(distance: Any) -> str:
    import pandas as pd

    offset: Any = pd.tseries.frequencies.to_offset(distance)
    return str(offset.freqstr)


def _check_constant(labels: Any, index: Any, where: str) -> None:
    if len(labels) > 1 and not _is_usual(labels).all():
        _refuse_irregular(labels, index, where)


def _is_usual(labels: Any) -> Any:
    """Tell which distances between neighbours equal the usual one, the median."""
    distances = np.diff(labels)
    rounding = 0.0
    if labels.dtype.kind == "f":
        # Times of day in seconds since 1970 keep some 1e-7 s of a millisecond step.
        rounding = 2 * float(np.spacing(np.abs(labels[[0, -1]]).max()))
    return np.isclose(distances, _median(distances), rtol=1e-6, atol=rounding)


def _median(distances: Any) -> Any:
    """Median that is one of the distances."""
    return np.sort(distances)[len(distances) // 2]


def _refuse_irregular(labels: Any, index: Any, where: str) -> None:
    distances = np.diff(labels)
    is_usual = _is_usual(labels)
    if is_usual.all():  # dates must agree to the last digit
        is_usual = distances == _median(distances)
    rows = np.flatnonzero(~is_usual) + 1
    shown = "; ".join(f"{index[row - 1]} to {index[row]}" for row in rows[:3])
    first = int(np.argmax(is_usual))
    step = index[first + 1] - index[first]
    raise DataQualityError(
        f"the rows are irregular in time: {len(rows)} of {len(distances)} steps "
        f"differ from the usual step ({step})",
        where=f"{where}{shown}",
        hint="Bring them onto a grid with frame.resample(...) or frame.asfreq(...), "
        "or drop the times with frame.reset_index(drop=True).",
    )


def future_times(index: Any, step: Step | None, n_rows: int) -> Any:
    """Labels of the ``n_rows`` rows after the end of ``index``.

    Parameters
    ----------
    index : pandas.Index
        Labels of the known rows.
    step : Step or None
        Step of the series, as :func:`infer_step` found it.
    n_rows : int
        Number of future rows.

    Returns
    -------
    pandas.Index
        Same kind, name and time zone as ``index``.

    Examples
    --------
    >>> import pandas as pd
    >>> index = pd.date_range("2024-03-30", periods=2, freq="D", tz="Europe/Berlin")
    >>> [str(day) for day in future_times(index, infer_step(index), 2)]
    ['2024-04-01 00:00:00+02:00', '2024-04-02 00:00:00+02:00']
    """
    import pandas as pd

    last = index[-1]
    if step is None:
        raise InputError(
            "one row does not tell the step between rows",
            where=f"index ending at {last}",
            hint="Give at least two rows, or set index.freq.",
        )
    if step.kind == "label":
        return pd.RangeIndex(1, n_rows + 1, name=index.name)
    if step.kind == "number":
        return _future_numbers(index, step.delta or 1.0, n_rows)
    if step.kind == "period":
        return pd.period_range(last + 1, periods=n_rows, freq=index.freq).rename(
            index.name
        )
    offset: Any = pd.tseries.frequencies.to_offset(step.frequency)
    if step.kind == "timedelta":
        return pd.timedelta_range(
            last + offset, periods=n_rows, freq=offset, name=index.name
        )
    return _future_dates(last, offset, n_rows).rename(index.name).as_unit(index.unit)


def _future_numbers(index: Any, delta: float, n_rows: int) -> Any:
    import pandas as pd

    last = index[-1]
    steps = np.arange(1, n_rows + 1)
    if index.dtype.kind == "f":
        return pd.Index(last + delta * steps, dtype=index.dtype, name=index.name)
    # Integers stay integers: nanoseconds since 1970 are beyond the digits of a float.
    width = round(delta)
    if isinstance(index, pd.RangeIndex):
        start = int(last) + width
        return pd.RangeIndex(start, start + n_rows * width, width, name=index.name)
    future = pd.Index(int(last) + width * steps, name=index.name)
    largest = np.iinfo(f"{index.dtype.kind}{index.dtype.itemsize}").max
    return future.astype(index.dtype) if future[-1] <= largest else future


def _future_dates(last: Any, offset: Any, n_rows: int) -> Any:
    import pandas as pd

    wall = pd.date_range(last.tz_localize(None), periods=n_rows + 1, freq=offset)
    # date_range drops a start that is not on the offset (the 15th for month ends).
    rows = slice(1, None) if wall[0] == last.tz_localize(None) else slice(n_rows)
    if last.tz is None or isinstance(offset, pd.tseries.offsets.Tick):
        return pd.date_range(start=last, periods=n_rows + 1, freq=offset)[rows]
    # Days and longer go by the wall clock, on which a change of the clock skips times
    # (the next one that exists counts) and repeats others (the first one counts).
    first, second = (
        wall.tz_localize(
            last.tz,
            ambiguous=np.full(len(wall), is_summer_time),
            nonexistent="shift_forward",
        )[rows]
        for is_summer_time in (True, False)
    )
    is_plain = (first == second).all() and (first.tz_localize(None) == wall[rows]).all()
    return pd.DatetimeIndex(first, freq=offset) if is_plain else first
