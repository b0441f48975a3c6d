"""Calendar features against formulas written out again, and seasons."""

import datetime

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sciseq import SMambaForecaster
from sciseq.data.calendar import (
    CALENDAR_FEATURES,
    calendar_features,
    calendar_for_step,
    season_for_step,
)
from sciseq.data.timeline import Step
from sciseq.errors import InputError

MOMENTS = st.datetimes(datetime.datetime(1700, 1, 1), datetime.datetime(2200, 1, 1))
# Card forecasting §0.2, with the calendar of Python instead of pandas.
FORMULAS = {
    "second": lambda t: t.second / 59 - 0.5,
    "minute": lambda t: t.minute / 59 - 0.5,
    "hour": lambda t: t.hour / 23 - 0.5,
    "dayofweek": lambda t: t.weekday() / 6 - 0.5,
    "day": lambda t: (t.day - 1) / 30 - 0.5,
    "dayofyear": lambda t: (t.timetuple().tm_yday - 1) / 365 - 0.5,
    "week": lambda t: (t.isocalendar().week - 1) / 52 - 0.5,
    "month": lambda t: (t.month - 1) / 11 - 0.5,
}


@given(st.lists(MOMENTS, min_size=1, max_size=5), st.permutations(sorted(FORMULAS)))
def test_features_follow_the_formulas_and_stay_in_range(moments, names):
    found = calendar_features(pd.DatetimeIndex(moments), names)
    expected = [[FORMULAS[name](moment) for name in names] for moment in moments]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    assert (np.abs(found) <= 0.5).all()


def test_both_ends_of_every_feature_are_reached():
    first = pd.DatetimeIndex(["2001-01-01 00:00:00"])  # a Monday in week 1
    last = {
        "second": "2024-01-01 00:00:59",
        "minute": "2024-01-01 00:59",
        "hour": "2024-01-01 23:00",
        "dayofweek": "2024-01-07",
        "day": "2024-01-31",
        "dayofyear": "2024-12-31",  # of a leap year
        "week": "2020-12-31",  # of a year with 53 weeks
        "month": "2024-12-01",
    }
    assert sorted(last) == sorted(CALENDAR_FEATURES)
    for name, moment in last.items():
        assert calendar_features(first, [name]).item() == -0.5
        assert calendar_features(pd.DatetimeIndex([moment]), [name]).item() == 0.5


def test_the_local_wall_clock_counts():
    moments = pd.DatetimeIndex(["2024-06-30 23:00"], tz="UTC")
    names = ["hour", "day", "month"]
    tokyo = calendar_features(moments.tz_convert("Asia/Tokyo"), names)
    wall = datetime.datetime(2024, 7, 1, 8)
    np.testing.assert_allclose(
        tokyo[0], [FORMULAS[name](wall) for name in names], atol=1e-6
    )
    assert not np.allclose(tokyo, calendar_features(moments, names))


def test_a_period_counts_from_its_start():
    periods = pd.period_range("2024-02", periods=2, freq="M")
    found = calendar_features(periods, ["month", "day"])
    np.testing.assert_allclose(
        found, [[1 / 11 - 0.5, -0.5], [2 / 11 - 0.5, -0.5]], atol=1e-6
    )


def test_rows_without_dates_have_no_features():
    for index in (None, pd.RangeIndex(3), pd.Index(["2024-01-01"])):
        with pytest.raises(InputError, match="need dates"):
            calendar_features(index, ["hour"])
    with pytest.raises(InputError, match="Did you mean 'month'"):
        calendar_features(pd.DatetimeIndex(["2024"]), ["months"])


@pytest.mark.parametrize(
    ("frequencies", "names"),
    [
        (["s", "30s"], ("second", "minute", "hour", "dayofweek", "day", "dayofyear")),
        (["min", "5min", "15min"], ("minute", "hour", "dayofweek", "day", "dayofyear")),
        (["h", "6h"], ("hour", "dayofweek", "day", "dayofyear")),
        (["D", "B", "2D"], ("dayofweek", "day", "dayofyear")),
        (["W-SUN", "7D", "2W"], ("day", "week")),
        (["MS", "ME", "BME", "QS", "QE"], ("month",)),
        (["YS", "YE"], ()),
    ],
    ids=lambda value: str(len(value)) if isinstance(value, tuple) else None,
)
def test_features_that_suit_a_step(frequencies, names):
    """Hourly 4, minutely 5, daily 3, weekly 2, monthly 1."""
    for frequency in frequencies:
        step = Step("datetime", frequency=frequency)
        assert calendar_for_step(step) == names, frequency
        # What is left out at the fine end is the same in every row.
        index = pd.date_range("2024-01-01", periods=400, freq=frequency)
        finer = [name for name in ("second", "minute", "hour") if name not in names]
        assert all(
            len(np.unique(calendar_features(index, [one]))) == 1 for one in finer
        )


@pytest.mark.parametrize(
    ("frequency", "count"),
    [("h", 4), ("min", 5), ("D", 3), ("W", 2), ("M", 1), ("Y", 0)],
)
def test_a_model_gets_that_many_marks(frequency, count):
    index = pd.period_range("2024-01-01", periods=12, freq=frequency)
    model = SMambaForecaster(
        lookback=4, horizon=2, d_model=4, n_layers=1, max_epochs=1, random_state=0
    )
    X = np.random.default_rng(0).normal(size=(12, 2))
    assert len(model.fit(pd.DataFrame(X, index=index)).calendar_) == count


@pytest.mark.parametrize(
    ("frequency", "rows"),
    [
        ("s", 86400), ("15min", 96), ("30min", 48), ("h", 24), ("6h", 4),
        ("D", 7), ("B", 5), ("W", 52), ("7D", 52), ("2W", 26),
        ("MS", 12), ("ME", 12), ("BME", 12), ("2MS", 6), ("QS", 4), ("QE", 4),
        ("2QS", 2), ("YS", None), ("YE", None),
    ],
)  # fmt: skip
def test_the_usual_season(frequency, rows):
    assert season_for_step(Step("datetime", frequency=frequency)) == rows


def test_a_year_of_seasons_ends_where_it_began():
    """The season of working days is five rows, not the seven of a week."""
    index = pd.date_range("2024-01-01", periods=60, freq="B")
    right = season_for_step(Step("datetime", frequency="B"))
    days = calendar_features(index, ["dayofweek"])
    np.testing.assert_array_equal(days[right:], days[:-right])
    assert (days[7:] != days[:-7]).any()


@pytest.mark.parametrize("step", [None, Step("number", delta=1.0), Step("label")])
def test_without_dates_there_is_no_calendar_and_no_season(step):
    assert calendar_for_step(step) == ()
    assert season_for_step(step) is None
