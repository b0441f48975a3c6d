"""The baselines against values worked out by hand."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sciseq import NaiveForecaster
from sciseq.errors import InputError, SciSeqWarning

TABLE = np.arange(20.0).reshape(10, 2)


def forecast(model, table):
    return np.asarray(model.fit(table).predict())


def test_the_last_row_is_repeated():
    assert forecast(NaiveForecaster(horizon=3), TABLE).tolist() == [[18, 19]] * 3


def test_the_last_season_is_repeated_beyond_its_end():
    model = NaiveForecaster(strategy="seasonal", season_length=3, horizon=7)
    column = forecast(model, TABLE)[:, 0]
    assert column.tolist() == [14, 16, 18, 14, 16, 18, 14]


@given(st.integers(1, 9), st.integers(1, 25))
def test_the_formula(m, H):
    x = np.random.default_rng(0).normal(size=40)
    model = NaiveForecaster(strategy="seasonal", season_length=m, horizon=H)
    column = forecast(model, x[:, None]).ravel()
    t = len(x) - 1
    expected = [x[t + h - m * math.ceil(h / m)] for h in range(1, H + 1)]
    assert column.tolist() == expected
    # Without the ceiling the formula would reach into the future for h > m.
    if H > m:
        assert column.tolist() != [x[(t + h - m) % 40] for h in range(1, H + 1)]


@pytest.mark.parametrize("lookback", [None, 3, 8])
@pytest.mark.parametrize("strategy", ["last", "seasonal"])
def test_more_context_changes_nothing(strategy, lookback):
    season = 3 if strategy == "seasonal" else None
    model = NaiveForecaster(strategy=strategy, season_length=season, horizon=2)
    expected = forecast(model, TABLE)
    model.set_params(lookback=lookback)
    np.testing.assert_array_equal(forecast(model, TABLE), expected)


@given(st.integers(1, 5), st.integers(1, 4), st.integers(1, 15))
def test_rolling_forward_goes_on_with_the_season(m, H, n_rows):
    x = np.random.default_rng(1).normal(size=(30, 2))
    short = NaiveForecaster(strategy="seasonal", season_length=m, horizon=H).fit(x)
    long = NaiveForecaster(strategy="seasonal", season_length=m, horizon=15).fit(x)
    if n_rows > H:
        with pytest.warns(SciSeqWarning, match="rolling"):
            rolled = short.predict(horizon=n_rows)
    else:
        rolled = short.predict(horizon=n_rows)
    np.testing.assert_array_equal(rolled, long.predict(horizon=n_rows))


@pytest.mark.parametrize(
    ("frequency", "season"), [("h", 24), ("D", 7), ("B", 5), ("MS", 12)]
)
def test_the_season_comes_from_the_index(frequency, season):
    index = pd.date_range("2024-01-01", periods=60, freq=frequency)
    table = pd.DataFrame({"a": np.arange(60.0)}, index=index)
    model = NaiveForecaster(strategy="seasonal", horizon=2).fit(table)
    assert model.season_length_ == season
    assert model.predict()["a"].tolist() == [60.0 - season, 61.0 - season]
    with pytest.raises(InputError, match="Give season_length="):
        model.fit(table.to_numpy())


def test_each_series_repeats_its_own_end():
    tables = {"north": TABLE, "south": TABLE[:4] + 100}
    model = NaiveForecaster(horizon=1).fit(tables)
    found = {name: table.tolist() for name, table in model.predict().items()}
    assert found == {"north": [[18, 19]], "south": [[106, 107]]}


# Missing values


def test_masked_values_are_filled_from_before_then_from_the_training_mean():
    table = TABLE.copy()
    table[-2:, 0] = np.nan
    model = NaiveForecaster(horizon=1, missing="mask", lookback=3)
    assert forecast(model, table).tolist() == [[14, 19]]
    # A context without any value: the mean of what is known in training.
    model.set_params(lookback=1)
    assert forecast(model, table).tolist() == [[np.mean(table[:8, 0]), 19]]


def test_a_masked_season_takes_the_last_value_that_is_known():
    column = np.array([0.0, 1, 2, 3, 4, 5, np.nan, 7, 8])[:, None]
    model = NaiveForecaster(
        strategy="seasonal", season_length=3, horizon=3, missing="mask", lookback=6
    )
    assert forecast(model, column).ravel().tolist() == [5, 7, 8]
    # With the season alone as context there is nothing before the gap.
    model.set_params(lookback=None)
    assert forecast(model, column).ravel().tolist() == [np.nanmean(column), 7, 8]


def test_interpolated_values_are_taken_as_they_are():
    column = np.array([0.0, 4.0, np.nan, 8.0, np.nan])[:, None]
    model = NaiveForecaster(
        strategy="seasonal", season_length=3, horizon=2, missing="interpolate"
    )
    assert forecast(model, column).ravel().tolist() == [6, 8]
