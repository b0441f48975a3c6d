"""Calendar features of timestamps, each in [-0.5, 0.5].

The features and their scaling are those of the long-horizon forecasting papers:
minute/59, hour/23, dayofweek/6, (day - 1)/30, (dayofyear - 1)/365, second/59,
(month - 1)/11, (isoweek - 1)/52, each minus 0.5. Local wall-clock time counts.

Holidays are a feature as well, ``"holiday:DE"`` or ``"holiday:US-CA"`` (a country and,
if wanted, a part of it): 0.5 on a public holiday, else -0.5. They come from the package
`holidays <https://holidays.readthedocs.io>`_.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sciseq.data.timeline import Step
from sciseq.errors import InputError, MissingDependencyError, nearest_name

__all__ = [
    "CALENDAR_FEATURES",
    "calendar_features",
    "calendar_for_step",
    "is_calendar_feature",
    "season_for_step",
]

# The fields go to NumPy before any arithmetic: on an index each step makes an index.
CALENDAR_FEATURES: dict[str, Callable[[Any], Any]] = {
    "second": lambda index: np.asarray(index.second) / 59.0,
    "minute": lambda index: np.asarray(index.minute) / 59.0,
    "hour": lambda index: np.asarray(index.hour) / 23.0,
    "dayofweek": lambda index: np.asarray(index.day_of_week) / 6.0,
    "day": lambda index: (np.asarray(index.day) - 1) / 30.0,
    "dayofyear": lambda index: (np.asarray(index.day_of_year) - 1) / 365.0,
    "week": lambda index: (index.isocalendar().week.to_numpy() - 1) / 52.0,
    "month": lambda index: (np.asarray(index.month) - 1) / 11.0,
}

_HOLIDAY = "holiday:"

# By the length of a step in seconds: the features that can change between rows.
_DAILY = ("dayofweek", "day", "dayofyear")
_BY_SECONDS: tuple[tuple[float, tuple[str, ...]], ...] = (
    (60.0, ("second", "minute", "hour", *_DAILY)),
    (3600.0, ("minute", "hour", *_DAILY)),
    (86400.0, ("hour", *_DAILY)),
    (7 * 86400.0, _DAILY),
    (28 * 86400.0, ("day", "week")),
    (365 * 86400.0, ("month",)),
)


def calendar_for_step(step: Step | None) -> tuple[str, ...]:
    """Names of the calendar features that suit a step.

    Examples
    --------
    >>> calendar_for_step(Step("datetime", frequency="h"))
    ('hour', 'dayofweek', 'day', 'dayofyear')
    >>> calendar_for_step(Step("datetime", frequency="MS"))
    ('month',)
    """
    seconds = _seconds(step)
    return next((names for limit, names in _BY_SECONDS if seconds < limit), ())


def season_for_step(step: Step | None) -> int | None:
    """Rows of the usual season: a day, a week of days, a year of weeks or months.

    Returns
    -------
    int or None
        None where no season is usual (yearly rows, plain numbers).

    Examples
    --------
    >>> [season_for_step(Step("datetime", f)) for f in ("15min", "h", "D", "MS", "YS")]
    [96, 24, 7, 12, None]
    >>> [season_for_step(Step("datetime", f)) for f in ("B", "2W", "QS")]
    [5, 26, 4]
    """
    days = _seconds(step) / 86400.0
    if days < 1:
        return round(1 / days)
    if days < 7:
        is_working_day = step is not None and step.frequency in ("B", "C")
        return 5 if is_working_day else 7
    if days <= 28:
        return round(364 / days)
    # Months and more: a number of steps that fills the year.
    rows = round(12 / max(1.0, days / 30.4)) if days < 360 else 1
    return rows if rows > 1 else None


def _seconds(step: Step | None) -> float:
    """Length of a step in seconds; infinite for labels that are not dates."""
    if step is None or step.kind not in ("datetime", "period"):
        return float("inf")
    import pandas as pd

    if step.kind == "period":
        start = pd.Period("2000-01-01", freq=step.frequency)
        index = pd.period_range(start, periods=2).to_timestamp()
    else:
        index = pd.date_range("2000-01-01", periods=2, freq=step.frequency)
    return float((index[1] - index[0]).total_seconds())


def calendar_features(index: Any, names: Sequence[str]) -> npt.NDArray[np.float32]:
    """Calendar features of an index.

    Parameters
    ----------
    index : pandas.DatetimeIndex or pandas.PeriodIndex
        Timestamps.
    names : sequence of str
        Keys of ``CALENDAR_FEATURES``, or ``"holiday:<country>"``.

    Returns
    -------
    ndarray of shape (n_rows, n_features), float32
        Values in [-0.5, 0.5].

    Raises
    ------
    InputError
        For an unknown feature or country, or an index that carries no dates.
    MissingDependencyError
        For holidays without the package ``holidays``.

    Examples
    --------
    >>> import pandas as pd
    >>> calendar_features(pd.date_range("2024-01-01", periods=1), ["day"])
    array([[-0.5]], dtype=float32)
    """
    import pandas as pd

    unknown = [name for name in names if not is_calendar_feature(name)]
    if unknown:
        raise InputError(
            f"calendar feature {unknown[0]!r} is unknown, allowed are "
            f"{sorted(CALENDAR_FEATURES)}",
            where="calendar",
            hint=nearest_name(unknown[0], CALENDAR_FEATURES)
            or "calendar='auto' takes those that suit the step of the data.",
        )
    if isinstance(index, pd.PeriodIndex):
        index = index.to_timestamp()
    if not isinstance(index, pd.DatetimeIndex):
        raise InputError(
            "calendar features need dates, and these rows carry none "
            f"({'no index' if index is None else type(index).__name__})",
            where="calendar",
            hint="Fit with calendar=None, or give a table with a DatetimeIndex.",
        )
    columns = [
        np.asarray(
            _is_holiday(index, name.removeprefix(_HOLIDAY))
            if name.startswith(_HOLIDAY)
            else CALENDAR_FEATURES[name](index)
        )
        - 0.5
        for name in names
    ]
    if not columns:
        return np.empty((len(index), 0), dtype=np.float32)
    return np.stack(columns, axis=1).astype(np.float32)


def is_calendar_feature(name: Any) -> bool:
    """Tell whether a name stands for a calendar feature.

    Examples
    --------
    >>> [is_calendar_feature(name) for name in ("hour", "holiday:DE", "load", 3)]
    [True, True, False, False]
    """
    is_holiday = isinstance(name, str) and name.startswith(_HOLIDAY)
    return is_holiday or (isinstance(name, str) and name in CALENDAR_FEATURES)


def _is_holiday(index: Any, place: str) -> npt.NDArray[np.float64]:
    """1 on the public holidays of a country ("DE") or a part of it ("US-CA")."""
    try:
        import holidays
    except ImportError:
        raise MissingDependencyError(
            f"the calendar feature 'holiday:{place}' needs the package holidays",
            where="calendar",
            hint="pip install 'sciseq[holidays]'",
        ) from None
    country, _, part = place.partition("-")
    years = range(index[0].year, index[-1].year + 1) if len(index) else range(0)
    try:
        days = holidays.country_holidays(country, subdiv=part or None, years=years)
    except NotImplementedError as error:
        raise InputError(
            f"no holidays are known for {place!r}: {error}",
            where="calendar",
            hint="Give an ISO code such as 'holiday:DE' or 'holiday:US-CA'.",
        ) from None
    dates = index.tz_localize(None).normalize()
    known = np.array(sorted(days), dtype="datetime64[D]")
    return np.isin(dates.to_numpy().astype("datetime64[D]"), known).astype(np.float64)
