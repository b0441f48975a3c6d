"""What every forecaster does with rows, columns, windows and scores."""

import subprocess
import sys
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from sklearn.metrics import r2_score

from sciseq import LinearForecaster, NaiveForecaster, SMambaForecaster
from sciseq.errors import (
    CapabilityError,
    DataQualityError,
    InputError,
    NumericalError,
    SciSeqWarning,
)
from sciseq.forecasting import predicting
from sciseq.forecasting.base import FORECASTER_RULES, BaseForecaster

LEVELS = np.array([0.0, 50.0, -200.0])
WALK = LEVELS + np.random.default_rng(0).normal(size=(60, 3)).cumsum(axis=0)
TINY = {"d_model": 8, "n_layers": 1, "max_epochs": 1, "random_state": 0}


class Witness(BaseForecaster):
    """Repeats the last row, and remembers the windows that it was given."""

    _parameter_rules: ClassVar = {
        name: FORECASTER_RULES[name]
        for name in (
            "lookback",
            "horizon",
            "targets",
            "calendar",
            "missing",
            "scaler",
            "validation_fraction",
            "refit_on_all",
        )
    }

    def __init__(
        self,
        lookback=4,
        horizon=2,
        targets=None,
        calendar=None,
        missing="error",
        scaler=None,
        validation_fraction=0.0,
        refit_on_all=False,
    ):
        self.lookback = lookback
        self.horizon = horizon
        self.targets = targets
        self.calendar = calendar
        self.missing = missing
        self.scaler = scaler
        self.validation_fraction = validation_fraction
        self.refit_on_all = refit_on_all

    def _fit(self, training, validation):
        self.training_, self.validation_ = training, validation

    def _refit(self, training):
        self.all_ = training

    def _forecast(self, inputs):
        return np.repeat(
            inputs.values[:, -1:, self.target_positions_], self.horizon, axis=1
        )


def rows_in(windows, part):
    """Row numbers that appear in the inputs or targets of some windows."""
    rows = getattr(windows, part)(slice(None))
    return sorted(set(getattr(rows, "values", rows).ravel().astype(int)))


def counter(n_rows, start=0):
    """A table whose values are its row numbers."""
    return np.arange(start, start + n_rows, dtype=float)[:, None]


# Training and validation rows


def test_the_tail_is_held_out_and_borrows_only_its_context():
    model = Witness(validation_fraction=0.2).fit(counter(50))
    assert rows_in(model.training_, "inputs") == list(range(38))
    assert rows_in(model.training_, "targets") == list(range(4, 40))
    # The first row to forecast is the first that training never saw.
    assert rows_in(model.validation_, "targets") == list(range(40, 50))
    assert rows_in(model.validation_, "inputs") == list(range(36, 48))
    seen = {*rows_in(model.training_, "inputs"), *rows_in(model.training_, "targets")}
    assert not seen & set(rows_in(model.validation_, "targets"))


def test_a_tail_holds_at_least_one_window():
    model = Witness(horizon=7, validation_fraction=0.01).fit(counter(50))
    assert rows_in(model.validation_, "targets") == list(range(43, 50))


def test_each_series_has_its_own_tail_and_short_ones_only_train():
    tables = [counter(30), counter(7, start=100), counter(20, start=200)]
    model = Witness(validation_fraction=0.1).fit(tables)
    assert rows_in(model.validation_, "targets") == [27, 28, 29, 218, 219]
    trained = rows_in(model.training_, "targets")
    assert trained == [*range(4, 27), *range(104, 107), *range(204, 218)]


def test_series_too_short_for_a_tail_say_so():
    with pytest.warns(SciSeqWarning, match="too short to hold out"):
        model = Witness(validation_fraction=0.5).fit(counter(7))
    assert model.validation_ is None
    assert rows_in(model.training_, "targets") == [4, 5, 6]


def test_validation_data_replace_the_tail():
    model = Witness(validation_fraction=0.5)
    model.fit(counter(20), validation_data=counter(9, start=100))
    assert rows_in(model.training_, "targets") == list(range(4, 20))
    assert rows_in(model.validation_, "targets") == list(range(104, 109))


def test_refit_on_all_sees_every_row_and_its_scaler_too():
    model = Witness(validation_fraction=0.5, refit_on_all=True, scaler="standard")
    model.fit(counter(20))
    assert model.scaler_.mean.item() == np.arange(20).mean()
    np.testing.assert_allclose(
        model.scaler_.inverse_transform(model.all_.targets(slice(None))).max(), 19
    )
    # With rows of their own there is nothing left to take in.
    model.fit(counter(20), validation_data=counter(9))
    assert not hasattr(model, "all_")


def test_windows_are_held_out_from_their_end():
    X, y = np.zeros((10, 4, 1)), np.arange(20.0).reshape(10, 2, 1)
    model = Witness(validation_fraction=0.3).fit(X, y)
    assert rows_in(model.training_, "targets") == list(range(14))
    assert rows_in(model.validation_, "targets") == list(range(14, 20))
    assert model.context_ is None
    with pytest.raises(InputError, match="ready-made windows"):
        model.predict()
    np.testing.assert_array_equal(model.predict(X + 3.0), np.full((10, 2, 1), 3.0))


def test_ready_made_windows_are_the_windows_of_the_table():
    view = sliding_window_view(WALK, 8, axis=0).swapaxes(1, 2)
    settings = {"lookback": 6, "horizon": 2, "alpha": 0.1, "scaler": None}
    model = LinearForecaster(**settings, validation_fraction=0)
    whole = model.fit(WALK).coef_.copy()
    model.fit(view[:, :6], view[:, 6:])
    np.testing.assert_allclose(model.coef_, whole, rtol=1e-9, atol=1e-12)
    # Other targets among the columns of X, in an order of their own.
    model.set_params(targets=[2, 0]).fit(view[:, :6], view[:, 6:][..., [2, 0]])
    table = LinearForecaster(**settings, validation_fraction=0, targets=[2, 0]).fit(
        WALK
    )
    np.testing.assert_allclose(model.coef_, table.coef_, rtol=1e-9, atol=1e-12)


# What a fitted model keeps


@pytest.mark.parametrize("kind", ["array", "column", "series", "frame"])
def test_later_changes_of_the_table_do_not_reach_the_model(kind):
    values = counter(20).copy()
    table = {
        "array": lambda: values,
        "column": lambda: np.asfortranarray(np.hstack([values, values]))[:, :1],
        "series": lambda: pd.Series(values[:, 0], copy=False),
        "frame": lambda: pd.DataFrame(values, copy=False),
    }[kind]()
    model = Witness().fit(table)
    before = np.asarray(model.predict()).copy()
    writable = table if isinstance(table, np.ndarray) else values
    writable[:] = -1.0
    np.testing.assert_array_equal(model.predict(), before)
    assert (np.asarray(table) == -1.0).all()  # the change did happen


def test_tables_are_not_modified():
    table = pd.DataFrame(WALK.copy(), columns=list("abc"))
    table.iloc[5, 1] = np.nan
    before = table.copy(deep=True)
    for model in (
        NaiveForecaster(horizon=2, missing="interpolate"),
        LinearForecaster(lookback=6, horizon=2, missing="mask"),
    ):
        model.fit(table).predict(table)
        model.score(table)
        pd.testing.assert_frame_equal(table, before)


def test_a_failed_fit_leaves_the_model_as_it_was():
    model = LinearForecaster(lookback=6, horizon=2).fit(WALK)
    forecast, attributes = model.predict(), dict(vars(model))
    spoiled = WALK.copy()
    spoiled[3, 1] = np.nan
    with pytest.raises(DataQualityError):
        model.fit(spoiled)
    assert vars(model).keys() == attributes.keys()
    np.testing.assert_array_equal(model.predict(), forecast)


def test_a_new_fit_forgets_the_old_one():
    model = NaiveForecaster(horizon=1).fit(pd.DataFrame(WALK, columns=list("abc")))
    assert list(model.feature_names_in_) == ["a", "b", "c"]
    model.fit(WALK[:, :2])
    assert not hasattr(model, "feature_names_in_")
    assert model.n_features_in_ == 2


def test_constant_targets_are_flagged():
    table = pd.DataFrame(WALK, columns=["a", "b", "c"]).assign(b=7.0, d=1.0)
    table.loc[3, "b"] = np.nan
    model = NaiveForecaster(targets=["b", "a"], horizon=1, missing="mask").fit(table)
    assert model.constant_targets_ == ("b",)
    assert NaiveForecaster(horizon=1).fit(np.ones((5, 2))).constant_targets_ == (0, 1)


# Forecasts


@pytest.mark.parametrize(
    "model",
    [
        NaiveForecaster(horizon=3),
        LinearForecaster(lookback=6, horizon=3),
        SMambaForecaster(lookback=6, horizon=3, **TINY),
    ],
    ids=lambda model: type(model).__name__,
)
def test_a_forecast_looks_back_on_the_last_rows_only(model):
    model.fit(WALK)
    np.testing.assert_array_equal(model.predict(WALK), model.predict())
    changed = WALK.copy()
    changed[:-6] += 1e3
    np.testing.assert_array_equal(model.predict(changed), model.predict())
    changed[-1] += 1e3
    assert not np.allclose(model.predict(changed), model.predict())


@pytest.mark.parametrize(
    "model",
    [
        NaiveForecaster(horizon=3),
        LinearForecaster(lookback=6, horizon=3, individual=True),
        SMambaForecaster(lookback=6, horizon=3, precision="float64", **TINY),
    ],
    ids=lambda model: type(model).__name__,
)
@pytest.mark.parametrize("targets", [["c", "a", "b"], ["b", "a", "c"], ["c", "a"]])
def test_targets_in_any_order_get_their_own_forecasts(model, targets):
    table = pd.DataFrame(WALK, columns=list("abc"))
    whole = model.set_params(targets=list("abc")).fit(table).predict()
    forecast = model.set_params(targets=targets).fit(table).predict()
    assert list(forecast.columns) == targets
    if len(targets) == 3 or not isinstance(model, SMambaForecaster):
        pd.testing.assert_frame_equal(forecast, whole[targets], rtol=1e-6)
    # Levels are far apart: no forecast can stand under another name.
    assert (forecast.iloc[0] - table[targets].iloc[-1]).abs().max() < 20
    score = model.score(table)
    assert score > 0.5


def test_columns_are_matched_by_name():
    table = pd.DataFrame(WALK, columns=list("abc"))
    model = LinearForecaster(lookback=6, horizon=3, individual=True).fit(table)
    shuffled = table[["c", "a", "b"]]
    pd.testing.assert_frame_equal(model.predict(shuffled), model.predict(table))
    assert model.score(shuffled) == model.score(table)
    assert model.score(shuffled.to_numpy()) != model.score(table)  # by place


@pytest.mark.parametrize("targets", [None, ["c", "a", "b"]])
def test_rolling_forward_is_forecasting_again_and_again(targets):
    table = pd.DataFrame(WALK, columns=list("abc"))
    model = LinearForecaster(lookback=6, horizon=4, individual=True, targets=targets)
    model.fit(table)
    history = table
    for _ in range(3):
        history = pd.concat([history, model.predict(history)[list("abc")]])
    with pytest.warns(SciSeqWarning, match="rolling forward"):
        forecast = model.predict(horizon=10)
    expected = history.iloc[60:70]
    pd.testing.assert_frame_equal(forecast[list("abc")], expected, rtol=1e-12)
    pd.testing.assert_index_equal(forecast.index, pd.RangeIndex(60, 70))
    pd.testing.assert_frame_equal(model.predict(horizon=3), forecast.iloc[:3])


def test_rolling_forward_needs_every_column():
    model = LinearForecaster(lookback=6, horizon=2, targets=[0]).fit(WALK)
    with pytest.raises(CapabilityError, match="rolling"):
        model.predict(horizon=3)


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
def test_an_explosive_forecast_is_an_error_and_not_infinity():
    # Powers of two: the map doubles its input, and the twelfth roll is beyond 1e308.
    model = LinearForecaster(
        kind="dlinear", lookback=1, horizon=1, alpha=0.0, scaler=None, kernel_size=1
    ).fit(2.0 ** np.arange(20)[:, None])
    with pytest.warns(SciSeqWarning), pytest.raises(NumericalError, match="not finite"):
        model.predict(np.array([[1e307]]), horizon=100)


def test_future_rows_are_labelled_and_empty():
    index = pd.date_range("2024-01-31", periods=8, freq="ME", name="month")
    table = pd.DataFrame(WALK[:8], index=index, columns=list("abc"))
    model = NaiveForecaster(horizon=2, targets="a").fit(table)
    future = model.make_future(horizon=3)
    assert list(future.columns) == ["a", "b", "c"]
    assert future.isna().all(axis=None)
    expected = pd.date_range("2024-09-30", periods=3, freq="ME", name="month")
    pd.testing.assert_index_equal(future.index, expected)


# Scores


@pytest.mark.parametrize("targets", [None, [2, 0]])
@pytest.mark.parametrize("model", [NaiveForecaster, LinearForecaster])
def test_the_score_is_r2_over_all_windows_in_the_units_of_the_data(model, targets):
    model = model(lookback=6, horizon=3, targets=targets).fit(WALK)
    places = targets or [0, 1, 2]
    view = sliding_window_view(WALK, 9, axis=0).swapaxes(1, 2)
    forecasts = np.concatenate([model.predict(window[:6])[None] for window in view])
    truth = view[:, 6:][..., places]
    expected = r2_score(
        truth.reshape(-1, len(places)), forecasts.reshape(-1, len(places))
    )
    assert model.score(WALK) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_the_score_does_not_depend_on_chunks(chunk, monkeypatch):
    model = LinearForecaster(lookback=6, horizon=3).fit(WALK)
    whole = model.score(WALK)
    monkeypatch.setattr(predicting, "WINDOWS_PER_CHUNK", chunk)
    assert model.score(WALK) == pytest.approx(whole, rel=1e-12)


def test_constant_targets_do_not_count_in_the_score():
    table = np.column_stack([WALK, np.full(60, 5.0)])
    model = NaiveForecaster(horizon=2).fit(table)
    assert model.score(table) == pytest.approx(
        NaiveForecaster(horizon=2).fit(WALK).score(WALK), rel=1e-12
    )


def test_missing_truths_do_not_count_in_the_score():
    table = WALK.copy()
    table[30:40, 1] = np.nan
    model = NaiveForecaster(horizon=2, missing="mask").fit(table)
    # Context is one row; a gap there is filled by the training mean.
    last = np.where(np.isnan(table), np.nanmean(table, axis=0), table)[:-2]
    per_target = []
    for target in range(3):
        truth = np.concatenate([table[1:-1, target], table[2:, target]])
        known = ~np.isnan(truth)
        forecast = np.tile(last[:, target], 2)
        per_target.append(r2_score(truth[known], forecast[known]))
    assert model.score(table) == pytest.approx(np.mean(per_target), rel=1e-10)


# Imports and side effects


@pytest.mark.parametrize("name", ["NaiveForecaster", "LinearForecaster"])
def test_plain_forecasters_never_import_torch(name):
    code = f"""
import sys
import numpy as np
from sciseq import {name}
model = {name}(lookback=6, horizon=2).fit(np.random.default_rng(0).normal(size=(60, 2)))
model.predict(); model.score(np.ones((20, 2)).cumsum(axis=0)); model.predict_interval()
assert "torch" not in sys.modules, "torch was imported"
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "model",
    [
        NaiveForecaster(horizon=3),
        LinearForecaster(lookback=6, horizon=3),
        SMambaForecaster(lookback=6, horizon=3, dropout=0.5, **TINY),
    ],
    ids=lambda model: type(model).__name__,
)
def test_no_global_side_effects(model, no_global_side_effects):
    with no_global_side_effects():
        model.fit(WALK).predict()
        model.score(WALK)
        model.predict_quantiles()
