"""What predict does not do: nothing twice, nothing per series, nothing to old rows."""

import tracemalloc
from typing import ClassVar
from unittest import mock

import numpy as np
import pandas as pd
import pytest

from sciseq import NaiveForecaster
from sciseq.data import calendar, timeline
from sciseq.data.panel import once_each
from sciseq.errors import DataQualityError, InputError
from sciseq.forecasting import future, training_table
from sciseq.forecasting.base import BaseForecaster

L, H = 12, 4
START = pd.Timestamp("2024-01-01")


def hourly(n_rows: int, seed: int = 0, start: pd.Timestamp = START) -> pd.DataFrame:
    noise = np.random.default_rng(seed).normal(size=(n_rows, 3)).cumsum(axis=0)
    index = pd.DatetimeIndex(pd.date_range(start, periods=n_rows, freq="h").to_numpy())
    return pd.DataFrame(noise, index=index.rename("time"), columns=list("abc"))


def series_table(n_series: int, n_rows: int = 40, *, apart: bool = False):
    """Many series, with the same times or each with its own."""
    parts = {
        f"s{one}": hourly(n_rows, one, START + pd.Timedelta(days=one * apart))
        for one in range(n_series)
    }
    return pd.concat(parts, names=["series", "time"])


class Marked(BaseForecaster):
    """Continues the last row by what the calendar and the known future say."""

    _parameter_rules: ClassVar = {}
    _covariates: ClassVar = frozenset({"past", "future"})
    targets = None

    def __init__(
        self,
        lookback=L,
        horizon=H,
        calendar="auto",
        scaler="standard",
        future_covariates=None,
        missing="error",
        validation_fraction=0.3,
    ):
        self.lookback = lookback
        self.horizon = horizon
        self.calendar = calendar
        self.scaler = scaler
        self.future_covariates = future_covariates
        self.missing = missing
        self.validation_fraction = validation_fraction

    def _fit(self, training, validation):
        pass

    def _forecast(self, inputs):
        last = inputs.values[:, -1:, self.target_positions_]
        said = inputs.marks.sum(axis=(1, 2), dtype=float)[:, None, None]
        if inputs.known is not None:
            said = said + inputs.known.sum(axis=2)[..., None]
        return np.repeat(last, self.horizon, axis=1) + said


@pytest.fixture
def counted(monkeypatch):
    """Count calls of functions, by name; they still do their work."""

    def count(module, name):
        spy = mock.Mock(wraps=getattr(module, name))
        monkeypatch.setattr(module, name, spy)
        return spy

    return count


# Nothing twice


def test_the_end_of_the_training_data_is_not_checked_again(counted):
    model = Marked().fit(hourly(60))
    steps = counted(training_table, "infer_step")
    model.predict()
    model.predict_interval()
    assert steps.call_count == 0
    model.predict(hourly(60))
    assert steps.call_count == 1


def test_rows_of_the_known_step_are_checked_in_one_pass(counted):
    model = Marked().fit(hourly(60))
    slow = counted(timeline, "check_times")
    model.predict(hourly(60))
    assert slow.call_count == 0
    with pytest.raises(DataQualityError):
        model.predict(hourly(60).iloc[::-1])
    assert slow.call_count == 1


def without_time(frame: pd.DataFrame, row: int) -> pd.DataFrame:
    return frame.set_axis(frame.index.where(frame.index != frame.index[row]))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda one: one.drop(one.index[55]), "irregular in time"),
        (lambda one: one.iloc[[*range(56), 55, *range(56, 60)]], "duplicate labels"),
        (lambda one: one.iloc[[*range(55), 56, 55, 57, 58, 59]], "not sorted"),
        (lambda one: without_time(one, 55), "missing labels"),
        (lambda one: without_time(one, 60 - L), "missing labels"),
        (lambda one: one.rename(columns={"b": "d"}), "columns differ"),
        (lambda one: one.mask(one.index.to_series() == one.index[3]), "contain NaN"),
    ],
)
def test_what_was_refused_is_refused_with_the_same_words(spoil, message):
    """Beside a known step too; gaps in values also far before the look-back."""
    model = Marked().fit(hourly(60))
    spoilt = spoil(hourly(60))
    with pytest.raises((DataQualityError, InputError), match=message) as known:
        model.predict(spoilt)
    if "column" in message or "NaN" in message:
        return
    with pytest.raises(DataQualityError) as unknown:
        timeline.infer_step(spoilt.index[-L:])
    assert known.value.message == unknown.value.message
    assert known.value.where == unknown.value.where


# Nothing per series


def test_series_with_the_same_times_cost_one_calendar(counted):
    table = series_table(40)
    features = counted(future, "calendar_features")
    labels = counted(future, "future_times")
    rows = counted(training_table, "calendar_features")
    model = Marked(validation_fraction=0.0).fit(table)
    assert rows.call_count == 1
    model.predict(table)
    assert (features.call_count, labels.call_count) == (1, 1)
    model.predict(series_table(40, apart=True))
    assert (features.call_count, labels.call_count) == (41, 41)


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("scaler", [None, "standard", "series"])
@pytest.mark.parametrize("known", [None, ["hour"], ["c", "hour"]])
def test_many_series_are_forecast_as_each_alone(apart, scaler, known):
    table = series_table(6, apart=apart)
    model = Marked(scaler=scaler, future_covariates=known).fit(table)
    if known == ["c", "hour"]:
        # The last rows are the future, in which only c is known.
        for rows in np.split(np.arange(len(table)), 6):
            table.iloc[rows[-H:], :2] = np.nan
    together = model.predict(table)
    for name, rows in table.groupby(level=0, sort=False):
        alone = model.predict(rows)
        pd.testing.assert_frame_equal(
            together.loc[[name]].droplevel(0), alone.droplevel(0), rtol=0, atol=0,
            check_freq=False,
        )  # fmt: skip
    as_dict = {name: rows.droplevel(0) for name, rows in table.groupby(level=0)}
    for name, forecast in model.predict(as_dict).items():
        expected = together.loc[name]
        np.testing.assert_array_equal(forecast.to_numpy(), expected.to_numpy())
        assert list(forecast.index) == list(expected.index)


def test_taking_each_series_for_the_first_would_be_seen():
    table = series_table(3, apart=True)
    index = table.loc["s0"].index
    shifted = {name: table.loc[name].set_axis(index) for name in ("s0", "s1", "s2")}
    model = Marked().fit(table)
    forecasts = model.predict(shifted)
    assert not np.allclose(forecasts["s1"], model.predict(table).loc["s1"])


def test_functions_of_labels_run_once_for_each_object():
    index, other = pd.RangeIndex(3), pd.RangeIndex(3)
    seen = []
    results = once_each(
        lambda one: seen.append(one) or len(seen), [index, None, index, other, None]
    )
    assert results == (1, 2, 1, 3, 2)
    assert len(seen) == 3


# Nothing to old rows


def test_a_long_table_is_not_copied():
    long = hourly(200_000)
    model = NaiveForecaster(horizon=H).fit(long.iloc[-100:])
    model.predict(long)
    panel = model._prediction_panel(long)
    assert panel.values[0].nbytes == panel.n_columns * 8
    assert np.shares_memory(panel.values[0], long.to_numpy())
    table = long.to_numpy().nbytes
    assert peak_bytes(lambda: model.predict(long)) < table / 2
    assert peak_bytes(lambda: model.predict(long.copy())) > table / 2


def peak_bytes(work) -> int:
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_calendar_features_are_those_of_the_index():
    """By arithmetic on the index itself, as pandas does it."""
    index = pd.date_range("2023-12-25", periods=400, freq="7h", tz="Europe/Berlin")
    names = ["second", "minute", "hour", "dayofweek", "day", "dayofyear", "month"]
    own = [
        index.second / 59.0, index.minute / 59.0, index.hour / 23.0,
        index.day_of_week / 6.0, (index.day - 1) / 30.0,
        (index.day_of_year - 1) / 365.0, (index.month - 1) / 11.0,
    ]  # fmt: skip
    expected = np.stack([np.asarray(one) - 0.5 for one in own], axis=1)
    found = calendar.calendar_features(index, names)
    np.testing.assert_array_equal(found, expected.astype(np.float32))
