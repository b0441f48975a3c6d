"""Roles of columns: covariates of three kinds, weights, and what is known ahead."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from sklearn.preprocessing import StandardScaler

from sciseq import (
    ForecastPipeline,
    LinearForecaster,
    NaiveForecaster,
    SMambaForecaster,
    load,
)
from sciseq.errors import CapabilityError, DataQualityError, InputError
from sciseq.forecasting import roles
from sciseq.forecasting.base import BaseForecaster
from sciseq.model_selection import backtest

TINY = {
    "lookback": 8,
    "horizon": 4,
    "d_model": 8,
    "n_layers": 1,
    "max_epochs": 1,
    "random_state": 0,
    "device": "cpu",
}
RNG = np.random.default_rng(0)


def table(n_rows=120):
    """A target that repeats, four rows later, what a covariate says today."""
    index = pd.date_range("2024-01-01", periods=n_rows, freq="h", name="time")
    driver = RNG.normal(size=n_rows)
    return pd.DataFrame(
        {"load": driver + 5, "driver": driver, "other": RNG.normal(size=n_rows)},
        index=index,
    )


class KnowsTheFuture(BaseForecaster):
    """Forecasts the sum of what is known ahead: easy to check by hand."""

    _covariates = frozenset({"past", "future", "static"})
    _parameter_rules = {}  # noqa: RUF012

    def __init__(
        self,
        lookback=3,
        horizon=2,
        targets=None,
        past_covariates=None,
        future_covariates=None,
        static_covariates=None,
        sample_weight=None,
        time_decay=None,
        missing="error",
        validation_fraction=0.0,
    ):
        self.lookback = lookback
        self.horizon = horizon
        self.targets = targets
        self.past_covariates = past_covariates
        self.future_covariates = future_covariates
        self.static_covariates = static_covariates
        self.sample_weight = sample_weight
        self.time_decay = time_decay
        self.missing = missing
        self.validation_fraction = validation_fraction

    def _fit(self, training, validation):
        self.weights_ = training.weights

    def _forecast(self, inputs):
        known = inputs.known.sum(axis=2, keepdims=True)
        return np.repeat(known, len(self.target_positions_), axis=2)


def named(model, X):
    fitted = model.fit(X)
    labels = np.array(X.columns)
    return {
        "targets": labels[fitted.target_positions_].tolist(),
        "inputs": labels[fitted.input_positions_].tolist(),
        "future": labels[fitted.future_positions_].tolist(),
        "static": labels[fitted.static_positions_].tolist(),
    }


def test_columns_without_a_role():
    X = table().assign(site=3.0)
    everything = named(SMambaForecaster(**TINY), X)
    assert everything["targets"] == everything["inputs"] == list(X.columns)
    # With targets named, the rest are past covariates; without, targets.
    some = named(SMambaForecaster(targets="load", static_covariates="site", **TINY), X)
    assert some == {
        "targets": ["load"],
        "inputs": ["load", "driver", "other"],
        "future": [],
        "static": ["site"],
    }
    rest = named(
        SMambaForecaster(future_covariates="driver", static_covariates="site", **TINY),
        X,
    )
    assert rest["targets"] == ["load", "other"]
    none = named(SMambaForecaster(targets="load", past_covariates=[], **TINY), X)
    assert none["inputs"] == ["load"]


def test_known_rows_are_those_after_the_last_target():
    X = table(20)
    model = KnowsTheFuture(targets="load", future_covariates="driver").fit(X)
    future = model.make_future()
    assert future.isna().to_numpy().all()
    future["driver"] = [10.0, 20.0]
    forecast = model.predict(pd.concat([X, future]))
    assert forecast["load"].tolist() == [10.0, 20.0]
    assert forecast.index.equals(future.index)
    # The same rows given to fit are there for predict().
    again = KnowsTheFuture(targets="load", future_covariates="driver")
    again.fit(pd.concat([X, future]))
    assert again.predict().equals(forecast)
    assert again.make_future()["driver"].tolist() == [10.0, 20.0]


def test_known_rows_of_a_panel_may_end_at_different_times():
    parts = {"a": table(20), "b": table(16)}
    X = pd.concat(parts, names=["site", "time"])
    model = KnowsTheFuture(targets="load", future_covariates="driver").fit(X)
    future = model.make_future()
    future["driver"] = [1.0, 2.0, 3.0, 4.0]
    joined = pd.concat([X, future]).sort_index()
    assert model.predict(joined)["load"].tolist() == [1.0, 2.0, 3.0, 4.0]


def test_a_future_that_is_not_known_far_enough_is_refused():
    X = table(20)
    model = KnowsTheFuture(targets="load", future_covariates="driver").fit(X)
    with pytest.raises(InputError, match=r"known for 0 rows.*2 are needed"):
        model.predict(X)
    future = model.make_future()
    with pytest.raises(InputError, match="known for 1 rows"):
        model.predict(pd.concat([X, future.assign(driver=1.0)[:1]]))
    future["driver"] = [1.0, np.nan]
    with pytest.raises(DataQualityError, match=r"row 2.*driver"):
        model.predict(pd.concat([X, future]))


def test_calendar_features_are_known_ahead_without_any_row():
    X = table(30)
    model = KnowsTheFuture(targets="load", future_covariates=["hour"]).fit(X)
    hours = model.predict().index.hour.to_numpy()
    np.testing.assert_allclose(
        model.predict()["load"], hours / 23 - 0.5, rtol=0, atol=1e-6
    )


def test_backtests_read_the_known_future_and_nothing_else():
    X = table()
    model = KnowsTheFuture(targets="load", future_covariates="driver")
    for refit in (False, True):
        result = backtest(model, X, n_origins=5, refit=refit, metrics=["mae"])
        # The model forecasts exactly the driver; the load is 5 above it.
        assert result.metrics["mae"].item() == pytest.approx(5.0)


def test_a_network_uses_what_is_known_ahead():
    """The driver of today says all: knowing it ahead beats guessing it."""
    X = table(400)
    errors = {}
    for name, roles_ in {
        "known": {"future_covariates": "driver"},
        "unknown": {},
    }.items():
        model = SMambaForecaster(
            **{**TINY, "max_epochs": 40, "learning_rate": 5e-3, "d_model": 16},
            targets="load",
            past_covariates=[],
            calendar=None,
            batch_size=16,
            learning_rate_schedule="cosine",
            patience=None,
            use_norm=False,
            dropout=0.0,
            **roles_,
        )
        errors[name] = (
            backtest(model, X, test_size=80, metrics=["mse"], keep_forecasts=False)
            .metrics["mse"]
            .item()
        )
    assert errors["known"] < 0.5 * errors["unknown"], errors


def test_a_network_uses_static_covariates():
    """Two kinds of series, alike up to now: only the static value tells them apart."""
    walk = RNG.normal(size=(40, 60)).round()
    parts = {
        number: pd.DataFrame(
            {"y": np.where(np.arange(60) % 2, 1.0, -1.0) * 0 + rows, "kind": number % 2}
        )
        for number, rows in enumerate(walk)
    }
    for part in parts.values():
        part.loc[part.index % 5 == 4, "y"] = 4.0 * (part["kind"] * 2 - 1)
    X = pd.concat(parts, names=["series", "row"])
    scores = {}
    for name, roles_ in {"told": {"static_covariates": "kind"}, "not": {}}.items():
        model = SMambaForecaster(
            **{**TINY, "lookback": 4, "horizon": 1, "max_epochs": 6},
            targets="y",
            past_covariates=[],
            calendar=None,
            learning_rate=5e-3,
            use_norm=False,
            **roles_,
        ).fit(X)
        scores[name] = model.score(X)
    assert scores["told"] > scores["not"] + 0.05, scores


def test_methods_refuse_covariates_that_they_cannot_use():
    X = table()
    for model, role in ((LinearForecaster(), "future"), (NaiveForecaster(), "static")):
        setattr(model, f"{role}_covariates", "driver")
        with pytest.raises(CapabilityError, match=f"cannot use {role} covariates"):
            model.fit(X)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"future_covariates": "drive"}, InputError, "'driver'"),
        ({"targets": "load", "static_covariates": "load"}, InputError, "two roles"),
        (
            {"static_covariates": "driver"},
            DataQualityError,
            "static covariate is missing or changes",
        ),
        ({"sample_weight": ["load", "driver"]}, InputError, "sample_weight"),
        ({"sample_weight": "driver"}, DataQualityError, "must be at least 0"),
        ({"static_covariates": ["load", "driver", "other"]}, InputError, "no column"),
    ],
)
def test_bad_roles_are_named(given, error, message):
    with pytest.raises(error, match=message):
        SMambaForecaster(**TINY, **given).fit(table())


@pytest.mark.parametrize("label", [0, [1]])
def test_windows_have_no_roles_of_the_future(label):
    X, y = np.zeros((5, 8, 2)), np.zeros((5, 4, 1))
    with pytest.raises(CapabilityError, match="ready-made windows"):
        SMambaForecaster(**TINY, future_covariates=label).fit(X, y)


def test_weights_halve_with_age_and_multiply():
    X = table(12).assign(w=np.arange(12.0))
    model = KnowsTheFuture(
        targets="load", future_covariates="driver", sample_weight="w", time_decay=3.0
    ).fit(X)
    age = np.arange(12)[::-1]
    np.testing.assert_allclose(model.weights_, X["w"] * 0.5 ** (age / 3.0))


def test_rows_of_weight_zero_do_not_train():
    """Bit for bit: what a target is in rows of no weight has no influence."""
    X = table().assign(w=1.0)
    X.iloc[50:54, 3] = 0.0
    settings = {**TINY, "validation_fraction": 0.0, "scaler": None, "lookback": 3}
    settings |= {"targets": "load", "sample_weight": "w", "past_covariates": []}
    settings |= {"calendar": None}
    first = SMambaForecaster(**settings).fit(X)
    # Windows that look back on a changed row would see it: only these have weight 0.
    changed = X.copy()
    changed.iloc[50:54, 0] = 100.0
    changed.iloc[54:61, 3] = X.iloc[54:61, 3] = 0.0
    one, other = (SMambaForecaster(**settings).fit(each) for each in (X, changed))
    assert one.predict().equals(other.predict())
    assert not one.predict().equals(first.predict())


def test_equal_weights_are_no_weights():
    X = table()
    settings = {**TINY, "targets": "load", "past_covariates": ["driver", "other"]}
    plain = SMambaForecaster(**settings).fit(X)
    weighted = SMambaForecaster(**settings, sample_weight="w").fit(X.assign(w=2.0))
    np.testing.assert_allclose(
        weighted.predict(X.assign(w=0.0)), plain.predict(), rtol=1e-4
    )


def test_models_with_covariates_are_saved_whole(tmp_path):
    X = table().assign(site=1.0, w=1.0)
    model = SMambaForecaster(
        **TINY,
        targets="load",
        future_covariates=["driver", "hour"],
        static_covariates="site",
        sample_weight="w",
    )
    future = model.fit(X).make_future()
    assert (future["site"] == 1.0).all()
    rows = pd.concat([X, future.assign(driver=0.5)])
    model.fit(rows).save(tmp_path / "model")
    copy = load(tmp_path / "model")
    assert copy.predict().equals(model.predict())
    assert copy.predict(rows).equals(model.predict())


def test_parting_what_is_ahead_keeps_gaps_inside():
    X = table(10)
    X.iloc[4, 0] = np.nan
    X.iloc[8:, [0, 2]] = np.nan
    panel = roles.split_ahead(_panel(X), [0], [1])
    assert [len(one) for one in panel.values] == [8]
    np.testing.assert_array_equal(panel.ahead[0][:, 1], X["driver"].iloc[8:])
    # Without anything known ahead, rows without targets are gaps like any other.
    assert roles.split_ahead(_panel(X), [0], []).lengths.tolist() == [10]


def _panel(X):
    from sciseq.data.containers import read_panel

    return read_panel(X)


def test_gaps_in_what_is_known_ahead_are_masked():
    X = table()
    X.iloc[30:33, 1] = np.nan
    settings = {**TINY, "targets": "load", "future_covariates": "driver"}
    model = SMambaForecaster(**settings, missing="mask").fit(X)
    future = model.make_future().assign(driver=1.0)
    assert np.isfinite(model.predict(pd.concat([X, future]))).all().all()
    with pytest.raises(DataQualityError, match="driver"):
        SMambaForecaster(**settings).fit(X)


def test_rows_ahead_must_follow_in_time():
    X = table(20)
    model = KnowsTheFuture(targets="load", future_covariates="driver").fit(X)
    future = model.make_future(horizon=4).assign(driver=1.0)
    for wrong in (future[1:], future[::-1]):
        with pytest.raises(DataQualityError, match=r"irregular|not sorted"):
            model.predict(pd.concat([X, wrong]))


def test_series_of_one_array_that_end_at_different_times_are_refused():
    X = table(20).to_xarray().to_array("column").transpose("time", "column")
    X = xr.concat([X, X], dim=pd.Index(["p", "q"], name="series"))
    X.loc[{"column": ["load", "other"], "time": X.time[-2:]}] = np.nan
    X.loc[{"series": "q", "column": ["load", "other"], "time": X.time[-4:]}] = np.nan
    model = KnowsTheFuture(targets="load", future_covariates="driver").fit(X)
    with pytest.raises(CapabilityError, match="end at different times"):
        model.predict()


def test_weights_count_against_the_mean_of_all_and_not_of_the_batch():
    """One window a batch: a light row is a small step, not a whole one."""
    X = table().assign(w=np.where(np.arange(120) % 2, 1.0, 1e-4))
    settings = {**TINY, "horizon": 1, "targets": "load", "past_covariates": []}
    settings |= {"batch_size": 1, "dropout": 0.0}
    weighted = SMambaForecaster(**settings, sample_weight="w").fit(X)
    plain = SMambaForecaster(**settings).fit(X)
    assert abs(weighted.predict() - plain.predict()).to_numpy().max() > 1e-3


def test_weights_matter_to_fit_alone():
    X = table().assign(w=np.where(np.arange(120) < 60, 1.0, 0.0))
    model = SMambaForecaster(**TINY, sample_weight="w").fit(X)
    assert np.isfinite(model.score(X[60:]))  # rows of no weight


def test_windows_do_not_age():
    with pytest.raises(CapabilityError, match="time_decay"):
        SMambaForecaster(**TINY, time_decay=3.0).fit(
            np.zeros((5, 8, 2)), np.zeros((5, 4, 2))
        )


@pytest.mark.parametrize(
    "options",
    [
        {"targets": "load", "future_covariates": "driver"},
        {"targets": "load", "static_covariates": "site"},
        {"sample_weight": "site"},
        {"nonnegative": True},
    ],
)
def test_pipelines_refuse_what_their_steps_would_distort(options):
    pipeline = ForecastPipeline(
        [("scale", StandardScaler()), ("model", SMambaForecaster(**TINY, **options))]
    )
    with pytest.raises(CapabilityError, match="does not go through a pipeline"):
        pipeline.fit(table().assign(site=1.0))
    known = SMambaForecaster(**TINY, future_covariates=["hour"])
    passes = ForecastPipeline([("scale", StandardScaler()), ("model", known)])
    assert passes.fit(table()).predict().shape == (4, 3)
