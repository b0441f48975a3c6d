"""Steps between rows and the labels of future rows, against pandas itself."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sciseq import NaiveForecaster
from sciseq.data.timeline import Step, _keeps_width, future_times, infer_step
from sciseq.errors import DataQualityError, InputError
from sciseq.forecasting.future import FutureRows

FREQUENCIES = [
    "100ms", "s", "min", "15min", "h", "6h", "D", "2D", "7D", "B", "W-SUN", "W-WED",
    "2W-SUN", "MS", "ME", "BME", "QS", "QE", "QS-FEB", "WOM-3FRI", "YS", "YE",
]  # fmt: skip
ZONES = [None, "UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"]


def without_freq(index):
    """The same labels, as a file gives them back."""
    return pd.DatetimeIndex(index, freq=None, name=index.name)


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("frequency", FREQUENCIES)
@pytest.mark.parametrize("has_freq", [True, False])
def test_dates_go_on_as_pandas_would(frequency, zone, has_freq):
    # Summer time begins and ends within a year of days, or within these hours.
    start = "2024-03-30 21:00" if frequency in ("h", "15min") else "2024-03-01"
    whole = pd.date_range(start, periods=40, freq=frequency, tz=zone, name="when")
    index = whole[:12] if has_freq else without_freq(whole[:12])
    future = future_times(index, infer_step(index), 28)
    pd.testing.assert_index_equal(future, whole[12:], exact=True, check_freq=False)
    assert future.freq == whole.freq or (frequency == "7D" and not has_freq)


@given(
    st.sampled_from(FREQUENCIES),
    st.datetimes(pd.Timestamp("1950-01-01"), pd.Timestamp("2100-01-01")),
    st.integers(2, 10),
    st.integers(0, 8),
)
def test_a_known_step_holds_for_any_few_rows(frequency, start, n_rows, first):
    """Two rows do not tell months from 31 days, nor five days from working days."""
    whole = pd.date_range(pd.Timestamp(start).floor("s"), periods=40, freq=frequency)
    step = infer_step(whole)
    rows = without_freq(whole[first : first + n_rows])
    found = infer_step(rows, expected=step)
    assert found == step or n_rows == 2
    future = future_times(rows, step, 5)
    assert list(future) == list(whole[first + n_rows : first + n_rows + 5])


def test_adding_the_last_distance_again_would_be_wrong():
    index = pd.date_range("2024-01-31", periods=4, freq="ME")
    wrong = index[-1] + (index[-1] - index[-2])
    assert wrong != future_times(index, infer_step(index), 1)[0]


@pytest.mark.parametrize(
    ("fitted", "given"),
    [
        ("60min", "h"),
        ("24h", "D"),
        ("7D", "W-MON"),
        ("QS", "QS-OCT"),
        ("2W-MON", "14D"),
    ],
)
def test_one_step_under_two_names(fitted, given):
    whole = pd.date_range("2024-01-01", periods=20, freq=fitted)
    renamed = pd.DatetimeIndex(whole, freq=given)
    X = pd.DataFrame({"a": np.arange(20.0)}, index=whole)
    model = NaiveForecaster(horizon=2, lookback=6).fit(X)
    for index in (renamed, without_freq(whole)):
        forecast = model.predict(X.set_axis(index).iloc[:10])
        assert list(forecast.index) == list(whole[10:12])


@pytest.mark.parametrize("given", ["30min", "2h", "D", "MS"])
def test_another_step_than_in_fit_is_refused(given):
    index = pd.date_range("2024-01-01", periods=20, freq="h")
    model = NaiveForecaster(horizon=2, lookback=6)
    model.fit(pd.DataFrame({"a": np.arange(20.0)}, index=index))
    other = pd.date_range("2024-01-01", periods=8, freq=given)
    with pytest.raises(InputError, match="fitted with a step of h"):
        model.predict(pd.DataFrame({"a": np.arange(8.0)}, index=other))


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "Asia/Kolkata"])
def test_the_unit_of_time_is_kept(unit, zone):
    for frequency in ("h", "D", "ME"):
        dates = pd.date_range("2024", periods=5, freq=frequency, tz=zone).as_unit(unit)
        future = future_times(dates, infer_step(dates), 3)
        assert future.dtype == dates.dtype
        # The quick way for a step that is known works in every unit.
        assert _keeps_width(dates, infer_step(dates)) == (frequency == "h")
        assert infer_step(
            without_freq(dates), expected=infer_step(dates)
        ) == infer_step(dates)
    durations = pd.timedelta_range("0s", periods=5, freq="h").as_unit(unit)
    assert future_times(durations, infer_step(durations), 3).dtype == durations.dtype


# Clocks that change


def test_days_over_summer_time_are_days_on_the_wall():
    index = pd.date_range("2024-03-29", periods=3, freq="D", tz="Europe/Berlin")
    future = future_times(without_freq(index), infer_step(without_freq(index)), 2)
    assert [str(day) for day in future] == [
        "2024-04-01 00:00:00+02:00",
        "2024-04-02 00:00:00+02:00",
    ]
    wrong = index[-1] + pd.Timedelta(hours=24)  # one o'clock in the morning
    assert wrong != future[0]


def test_a_midnight_that_the_clock_skips_is_the_next_time_there_is():
    index = pd.date_range("2023-08-28", periods=6, freq="D", tz="America/Santiago")
    future = future_times(index, infer_step(index), 3)
    assert [str(day) for day in future] == [
        "2023-09-03 01:00:00-03:00",
        "2023-09-04 00:00:00-03:00",
        "2023-09-05 00:00:00-03:00",
    ]


def test_a_time_that_the_clock_repeats_is_the_first_of_both():
    start = pd.Timestamp("2024-10-25 02:30", tz="Europe/Berlin")
    index = pd.date_range(start, periods=2, freq="D")
    future = future_times(index, Step("datetime", frequency="D"), 2)
    assert [str(day) for day in future] == [
        "2024-10-27 02:30:00+02:00",
        "2024-10-28 02:30:00+01:00",
    ]


def test_series_of_other_zones_and_names_keep_their_own_labels():
    moments = pd.date_range("2024-01-01", periods=3, freq="h", tz="UTC")
    berlin = moments.tz_convert("Europe/Berlin").rename("Zeit")
    tables = [
        pd.DataFrame({"a": [1.0, 2.0, 3.0]}, index=one) for one in (moments, berlin)
    ]
    first, second = NaiveForecaster(horizon=1).fit(tables).predict()
    assert (str(first.index.tz), first.index.name) == ("UTC", None)
    assert (str(second.index.tz), second.index.name) == ("Europe/Berlin", "Zeit")


def test_the_calendar_of_two_zones_is_not_the_same():
    from sciseq.data.containers import read_panel

    moments = pd.date_range("2024-01-01", periods=3, freq="h", tz="UTC")
    tables = [
        pd.DataFrame({"a": [1.0, 2.0, 3.0]}, index=moments.tz_convert(zone))
        for zone in ("UTC", "Asia/Tokyo")
    ]
    panel = read_panel(tables)
    future = FutureRows.after(panel, Step("datetime", frequency="h"), 1)
    marks = (future.marks(panel, ["hour"]) + 0.5) * 23
    np.testing.assert_allclose(
        marks[:, :, 0], [[0, 1, 2, 3], [9, 10, 11, 12]], atol=1e-5
    )


# Other labels


@pytest.mark.parametrize("frequency", ["D", "M", "Q-DEC", "W-SUN", "Y", "h"])
def test_periods_go_on(frequency):
    whole = pd.period_range("2024-01-01", periods=9, freq=frequency, name="when")
    future = future_times(whole[:5], infer_step(whole[:5]), 4)
    pd.testing.assert_index_equal(future, whole[5:], exact=True)


@given(
    st.integers(-(10**9), 10**9),
    st.integers(1, 10**9),
    st.sampled_from(["s", "ms", "us", "ns"]),
)
def test_durations_go_on(start, width, unit):
    ticks = np.array([start + width * row for row in range(7)])
    whole = pd.TimedeltaIndex(ticks.astype(f"m8[{unit}]"), name="since")
    future = future_times(whole[:4], infer_step(whole[:4]), 3)
    np.testing.assert_array_equal(future.to_numpy(), whole[4:].to_numpy())
    assert future.name == "since"


@given(st.integers(-(2**62), 2**61), st.integers(1, 2**50))
def test_integers_go_on_exactly(start, width):
    whole = pd.Index([start + width * row for row in range(9)], name="tick")
    future = future_times(whole[:5], infer_step(whole[:5]), 4)
    pd.testing.assert_index_equal(future, whole[5:], exact=True)


def test_nanoseconds_since_1970_would_not_survive_as_floats():
    index = pd.Index(1_700_000_000_000_000_001 + 10**9 * np.arange(5))
    future = future_times(index, infer_step(index), 1)
    wrong = int(float(index[-1]) + 1e9)
    assert future[0] == index[-1] + 10**9 != wrong


@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u4", "i8"])
def test_small_integers_grow_where_they_must(dtype):
    limit = np.iinfo(dtype).max
    index = pd.Index(np.array([limit - 4, limit - 3, limit - 2], dtype=dtype))
    assert future_times(index, infer_step(index), 2).dtype == dtype
    if dtype != "i8":
        future = future_times(index, infer_step(index), 4)
        assert future.tolist() == [limit - 1, limit, limit + 1, limit + 2]
    wide = pd.Index(np.array([-100, 100], dtype="i1"))
    assert infer_step(wide) == Step("number", delta=200.0)


@given(
    st.floats(-1e6, 2e9),
    st.sampled_from([1e-3, 0.1, 1 / 3, 1.0, 86400.0]),
    st.integers(2, 30),
)
def test_floats_go_on_within_their_rounding(start, width, n_rows):
    whole = start + width * np.arange(n_rows + 5)
    index = pd.Index(whole[:n_rows])
    future = future_times(index, infer_step(index), 5)
    rounding = np.spacing(np.abs(whole).max())
    np.testing.assert_allclose(future, whole[n_rows:], rtol=0, atol=12 * rounding)


def test_years_as_float32_are_regular():
    index = pd.Index((2000 + np.arange(24) / 12).astype("f4"))
    future = future_times(index, infer_step(index), 12)
    assert future.dtype == np.float32
    np.testing.assert_allclose(future, 2002 + np.arange(12) / 12, rtol=0, atol=2e-3)
    with pytest.raises(DataQualityError, match="irregular"):
        infer_step(index.delete(5))


@given(st.integers(-9, 9), st.integers(1, 5), st.integers(1, 6))
def test_ranges_stay_ranges(start, width, n_rows):
    index = pd.RangeIndex(start, start + width * n_rows, width, name="row")
    future = future_times(index, infer_step(index), 3)
    assert isinstance(future, pd.RangeIndex)
    assert list(future) == [index[-1] + width * ahead for ahead in (1, 2, 3)]
    assert future.name == "row"


def test_other_labels_are_counted_from_one():
    for labels in (["x", "y"], [("a", 1), 2], [False, True]):
        index = pd.Index(
            labels, dtype=None if labels[0] is False else object, name="id"
        )
        future = future_times(index, infer_step(index), 3)
        assert (list(future), future.name) == ([1, 2, 3], "id")


@pytest.mark.parametrize(
    "labels", [range(0, 12, 2), np.arange(0, 12, 2), np.arange(0, 3, 0.5)]
)
def test_another_distance_between_numbers_is_refused(labels):
    model = NaiveForecaster(horizon=1, lookback=2).fit(
        pd.DataFrame({"a": np.arange(6.0)})
    )
    with pytest.raises(InputError, match=r"fitted with a step of 1\.0"):
        model.predict(pd.DataFrame({"a": np.arange(6.0)}, index=labels))


def test_series_with_unlike_labels_are_refused():
    dated = pd.DataFrame({"a": np.arange(6.0)}, index=pd.date_range("2024", periods=6))
    with pytest.raises(InputError, match="series 1"):
        NaiveForecaster(horizon=1).fit([dated, dated.reset_index(drop=True)])


# What is no regular grid


@given(st.integers(1, 7), st.sampled_from(["h", "D", "M", "s", "number", "float"]))
def test_a_single_missing_row_is_found(row, kind):
    whole = {
        "h": pd.date_range("2024-01-01", periods=9, freq="h", tz="Europe/Berlin"),
        "D": pd.date_range("2024-01-01", periods=9, freq="D"),
        "M": pd.period_range("2024-01", periods=9, freq="M"),
        "s": pd.timedelta_range(0, periods=9, freq="s"),
        "number": pd.Index(np.arange(9) * 10**9),
        "float": pd.Index(np.linspace(0, 1, 9)),
    }[kind]
    assert infer_step(whole) is not None
    with pytest.raises(DataQualityError) as caught:
        infer_step(whole.delete(row))
    assert f"{whole[row - 1]} to {whole[row + 1]}" in str(caught.value)
    assert "1 of 7 steps" in str(caught.value)


LIMITS = np.iinfo(np.int64)  # the least stands for a missing date


@given(
    st.sampled_from([LIMITS.min, LIMITS.min + 1, -3, 0, LIMITS.max - 2, LIMITS.max]),
    st.lists(st.sampled_from([0, 1, 2, 2**63, -1]), min_size=1, max_size=4),
)
def test_only_regular_dates_take_the_short_cut(first, steps):
    """Also where differences of int64 wrap around, as they do at a missing date."""
    exact = [first]
    for step in steps:
        exact.append(exact[-1] + step)
    wrapped = [(one - LIMITS.min) % 2**64 + LIMITS.min for one in exact]
    index = pd.DatetimeIndex(np.array(wrapped, dtype="i8").view("M8[ns]"))
    is_regular = set(steps) == {1} and wrapped == exact and LIMITS.min not in wrapped
    assert _keeps_width(index, Step("datetime", frequency="ns")) == is_regular
    assert not _keeps_width(index, Step("period", frequency="ns"))
    assert not _keeps_width(index, None)


def test_differences_alone_would_take_a_wrapped_date_for_the_next():
    labels = np.array([LIMITS.max, LIMITS.min, LIMITS.min + 1])
    assert (np.diff(labels) == 1).all()


def test_a_shift_in_the_last_digit_of_a_date_is_named():
    dates = (
        pd.date_range("2024-01-01", periods=9, freq="h").as_unit("ns").to_numpy().copy()
    )
    dates[4] += np.timedelta64(1, "ns")
    with pytest.raises(DataQualityError, match="2 of 8 steps"):
        infer_step(pd.DatetimeIndex(dates))


def test_too_few_rows_have_no_step():
    for index in (pd.DatetimeIndex(["2024"]), pd.Index([5]), pd.TimedeltaIndex(["1h"])):
        assert infer_step(index) is None
        with pytest.raises(InputError, match="does not tell the step"):
            future_times(index, None, 2)
