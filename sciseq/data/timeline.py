"""Row labels in time: the step between rows, gaps, and the labels of future rows.

Works on pandas indexes of any kind. A step is known by its pandas frequency (dates,
periods, durations) or by a number (integers, floats); labels of any other kind have
none, and future rows are then numbered 1, 2, ... steps ahead.
"""

from dataclasses import dataclass
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

    check_times(index, where=where)
    if isinstance(index, pd.PeriodIndex):
        _check_constant(index.asi8, index, where)
        return Step("period", frequency=index.freqstr)
    if isinstance(index, pd.DatetimeIndex):
        if expected is not None and _keeps(index, expected):
            return expected
        return _datetime_step(index, where)
    if isinstance(index, pd.TimedeltaIndex):
        if len(index) < 2:
            return None
        _check_constant(index.asi8, index, where)
        return Step("timedelta", frequency=_tick(index[1] - index[0]))
    if isinstance(index, pd.RangeIndex):
        return Step("number", delta=float(index.step))
    if pd.api.types.is_numeric_dtype(index.dtype):
        if len(index) < 2:
            return None
        labels = index.to_numpy()
        _check_constant(labels, index, where)
        return Step("number", delta=float(labels[1] - labels[0]))
    return Step("label")


def check_times(index: Any, *, where: str = "") -> None:
    """Refuse missing, repeated and unsorted row labels, naming the first ones."""
    import pandas as pd

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
    ordered = isinstance(
        index, pd.DatetimeIndex | pd.PeriodIndex | pd.TimedeltaIndex
    ) or pd.api.types.is_numeric_dtype(index.dtype)
    if ordered and not index.is_monotonic_increasing:
        values = index.to_numpy()
        row = int(np.flatnonzero(values[1:] < values[:-1])[0]) + 1
        raise DataQualityError(
            "the rows are not sorted in time",
            where=f"{where}row {row} ({index[row]}) comes after {index[row - 1]}",
            hint="Sort with frame.sort_index().",
        )


def _keeps(index: Any, step: Step) -> bool:
    """Tell whether dates lie on a step of constant length."""
    import pandas as pd

    if step.kind != "datetime" or len(index) < 2:
        return len(index) < 2 and step.kind == "datetime"
    offset = pd.tseries.frequencies.to_offset(step.frequency)
    if not isinstance(offset, pd.tseries.offsets.Tick):
        return False
    width = pd.Timedelta(offset).as_unit(index.unit).value
    return bool((np.diff(index.asi8) == width).all())


def _datetime_step(index: Any, where: str) -> Step | None:
    import pandas as pd

    if index.freqstr is not None:
        return Step("datetime", frequency=index.freqstr)
    if len(index) < 2:
        return None
    # pandas knows months, business days, and days on the wall clock of a zone with
    # summer time; it needs three rows to tell.
    if len(index) > 2:
        named = pd.DatetimeIndex(index, freq="infer").freqstr
        if named is not None:
            return Step("datetime", frequency=named)
    distances = np.diff(index.asi8)
    if not (distances == distances[0]).all():
        _refuse_irregular(index.asi8, index, where)
    return Step("datetime", frequency=_tick(index[1] - index[0]))


def _tick(distance: Any) -> str:
    import pandas as pd

    offset: Any = pd.tseries.frequencies.to_offset(distance)
    return str(offset.freqstr)


def _check_constant(labels: Any, index: Any, where: str) -> None:
    distances = np.diff(labels)
    if len(distances) and not np.allclose(distances, distances[0], rtol=1e-6, atol=0):
        _refuse_irregular(labels, index, where)


def _refuse_irregular(labels: Any, index: Any, where: str) -> None:
    distances = np.diff(labels)
    usual = np.median(distances)
    rows = np.flatnonzero(~np.isclose(distances, usual, rtol=1e-6, atol=0)) + 1
    shown = "; ".join(f"{index[row - 1]} to {index[row]}" for row in rows[:3])
    step = index[1] - index[0] if len(rows) and rows[0] > 1 else usual
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
        delta = step.delta or 1.0
        if isinstance(index, pd.RangeIndex):
            start, width = int(last) + index.step, index.step
            return pd.RangeIndex(start, start + n_rows * width, width, name=index.name)
        labels = last + delta * np.arange(1, n_rows + 1)
        return pd.Index(labels.astype(index.dtype), name=index.name)
    if step.kind == "period":
        return pd.period_range(last + 1, periods=n_rows, freq=index.freq).rename(
            index.name
        )
    offset: Any = pd.tseries.frequencies.to_offset(step.frequency)
    if step.kind == "timedelta":
        return pd.timedelta_range(
            last + offset, periods=n_rows, freq=offset, name=index.name
        )
    future = pd.date_range(start=last, periods=n_rows + 1, freq=offset)
    # date_range drops a start that is not on the offset (the 15th for month ends).
    future = future[1:] if future[0] == last else future[:n_rows]
    return future.rename(index.name).as_unit(index.unit)
