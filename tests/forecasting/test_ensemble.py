"""Ensembles: members as they are alone, weights as optimisers find them."""

import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from sklearn.base import clone
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.preprocessing import StandardScaler

from sciseq import LinearForecaster, NaiveForecaster, SMambaForecaster, load
from sciseq.errors import CapabilityError, DataQualityError, InputError, SciSeqWarning
from sciseq.forecasting.combination_weights import by_inverse_error, stacked
from sciseq.forecasting.ensemble import ForecastEnsemble
from sciseq.forecasting.statsmodels_forecaster import StatsmodelsForecaster
from sciseq.forecasting.window_forecaster import WindowForecaster
from sciseq.model_selection import RollingOriginSplit, backtest
from sciseq.pipeline import ForecastPipeline
from sciseq.testing.tables import frame, panel, quiet, values

H = 3


def members():
    """Three members of different look-backs, scalings and calendars."""
    return [
        ("line", LinearForecaster(lookback=8)),
        ("last", NaiveForecaster()),
        ("window", WindowForecaster(lookback=5, scaler="series")),
    ]


def build(forecasters=None, **params):
    forecasters = members() if forecasters is None else forecasters
    return ForecastEnsemble(**{"forecasters": forecasters, "horizon": H, **params})


def alone(forecaster, table, **params):
    own = forecaster.get_params(deep=False)
    params = {"horizon": H, "validation_fraction": 0.1, **params}
    given = {name: value for name, value in params.items() if name in own}
    with quiet():
        return clone(forecaster).set_params(**given).fit(table)


# Members


@pytest.mark.parametrize("weights", ["equal", [1, 3, 2], "inverse_error", "stack"])
def test_the_forecast_is_the_weighted_mean_of_the_members_alone(weights):
    model = build(weights=weights).fit(frame())
    forecasts = [alone(one, frame()).predict().to_numpy() for _, one in members()]
    assert model.weights_.sum() == pytest.approx(1)
    expected = sum(w * one for w, one in zip(model.weights_, forecasts, strict=True))
    np.testing.assert_allclose(model.predict(), expected, rtol=1e-12)
    # So far apart are the members that other weights give other forecasts.
    other = np.roll(model.weights_, 1) + np.array([0.1, -0.1, 0])
    turned = np.tensordot(other, forecasts, 1)
    assert not np.allclose(model.predict(), turned, rtol=1e-4)


def test_members_are_fitted_forecasters_of_their_own():
    model = build().fit(frame())
    assert list(model.forecasters_) == ["line", "last", "window"]
    for name, forecaster in members():
        expected = alone(forecaster, frame())
        fitted = model.forecasters_[name]
        pd.testing.assert_frame_equal(fitted.predict(), expected.predict())
        assert fitted.score(frame()) == pytest.approx(expected.score(frame()))
    assert model._context_length == 8


def test_evaluation_looks_back_as_far_as_the_longest():
    model = build().fit(frame())
    table = frame(20)
    first, truth, forecast = next(model._evaluate_panel(model._evaluation_panel(table)))
    assert first[0] == 8 and len(first) == 20 - 8 - H + 1
    for origin in (0, 5):
        rows = table.iloc[: 8 + origin]
        np.testing.assert_allclose(model.predict(rows), forecast[origin], rtol=1e-12)
    np.testing.assert_array_equal(truth[0], table.iloc[8 : 8 + H])


def test_panels_reach_members_with_their_labels():
    forecasters = [
        ("own", StatsmodelsForecaster(model="autoreg", lookback=6)),
        ("scaled", LinearForecaster(lookback=4, scaler="series")),
    ]
    model = build(forecasters).fit(panel())
    expected = sum(alone(one, panel()).predict() for _, one in forecasters) / 2
    pd.testing.assert_frame_equal(model.predict(), expected)
    south = model.predict(panel().loc[["south"]])
    np.testing.assert_array_equal(south, expected.loc[["south"]])
    # A label that fit has not seen is estimated, and scaled, on its own rows.
    other = panel().loc[["south"]].rename(index={"south": "east"})
    unseen = sum(alone(one, panel()).predict(other) for _, one in forecasters) / 2
    np.testing.assert_allclose(model.predict(other), unseen, rtol=1e-12)
    assert not np.allclose(unseen, south, rtol=1e-4)


def test_ready_made_windows():
    table = values()
    L = 8
    X = np.stack([table[start : start + L] for start in range(40)])
    y = np.stack([table[start + L : start + L + H] for start in range(40)])
    forecasters = [
        ("line", LinearForecaster(lookback=L)),
        ("short", LinearForecaster(lookback=3)),
    ]
    model = build(forecasters).fit(X, y)
    short = LinearForecaster(lookback=3, horizon=H).fit(X[:, -3:], y)
    line = LinearForecaster(lookback=L, horizon=H).fit(X, y)
    expected = (line.predict(X) + short.predict(X[:, -3:])) / 2
    np.testing.assert_allclose(model.predict(X), expected, rtol=1e-12)


def test_ensembles_inside_ensembles():
    inner = ForecastEnsemble(forecasters=members()[:2], weights=[1, 3])
    model = build([("inner", inner), ("window", members()[2][1])]).fit(frame())
    flat = build(weights=[1, 3, 4]).fit(frame())
    np.testing.assert_allclose(model.predict(), flat.predict(), rtol=1e-12)
    line = model.forecasters_["inner"].forecasters_["line"]
    pd.testing.assert_frame_equal(line.predict(), flat.forecasters_["line"].predict())


def test_longer_horizons_roll_on_the_combination():
    model = build().fit(frame())
    with pytest.warns(SciSeqWarning, match="rolling forward") as caught:
        longer = model.predict(horizon=2 * H)
    assert len(caught) == 1
    second = model.predict(pd.concat([frame(), model.predict()]))
    np.testing.assert_allclose(longer.iloc[H:], second, rtol=1e-9)


def test_gaps_are_left_to_the_members():
    table = frame()
    table.iloc[[10, 30, 58], 1] = np.nan
    model = build(missing="mask").fit(table)
    forecasts = [
        alone(one, table, missing="mask").predict().to_numpy() for _, one in members()
    ]
    np.testing.assert_allclose(model.predict(), np.mean(forecasts, axis=0), rtol=1e-12)
    with pytest.raises(DataQualityError, match="NaN"):
        build().fit(table)


# Roles


def covariates(n_rows=80, known=H):
    """Load that follows a driver; the driver is known some rows further."""
    table = frame(n_rows).assign(driver=np.cos(np.arange(n_rows) * 0.9), weight=1.0)
    table["a"] += 5 * table["driver"]
    table.iloc[n_rows - known :, :3] = np.nan
    table.iloc[n_rows - known :, 4] = 1.0
    return table


def test_each_member_gets_the_covariates_that_it_can_use():
    roles = {
        "targets": ["a"],
        "past_covariates": ["b"],
        "future_covariates": ["driver", "hour"],
        "sample_weight": "weight",
    }
    table = covariates()[["a", "b", "driver", "weight"]]
    window = WindowForecaster(lookback=4, lags_of="all", calendar=None)
    forecasters = [("last", NaiveForecaster()), ("window", window)]
    model = build(forecasters, weights=[0, 1], **roles).fit(table)
    expected = alone(window, table, **roles)
    np.testing.assert_allclose(model.predict(table), expected.predict(table), rtol=1e-9)
    own = model.forecasters_["window"]
    names = own.feature_names_[0]
    assert names[-2:] == ("driver", "hour") and "b lag 1" in names
    # Other values of the driver ahead give another forecast.
    other = table.copy()
    other.iloc[-H:, 2] += 1.0
    assert not np.allclose(model.predict(other), model.predict(table))


def test_settings_of_members_count():
    roles = {"targets": ["a"], "past_covariates": ["b"]}
    table = covariates()[["a", "b"]].iloc[:-H]
    # With lags of its own only, a window forecaster can use no past covariates.
    forecasters = [("window", WindowForecaster(lookback=4))]
    with pytest.raises(CapabilityError, match="no member can use past covariates"):
        build(forecasters, **roles).fit(table)
    forecasters.append(("all", WindowForecaster(lookback=4, lags_of="all")))
    model = build(forecasters, **roles).fit(table)
    assert model.forecasters_["window"].past_covariates == []


def test_covariates_that_no_member_uses_are_refused():
    with pytest.raises(CapabilityError, match="no member can use future covariates"):
        build(members()[:2], future_covariates=["driver"]).fit(covariates())


# Weights


def error_products(model, table):
    """Sums of products of the members' errors on the tail, window by window."""
    tail, scale = 6, table.iloc[:-6].to_numpy().std(axis=0)
    rows = table.iloc[-(tail + model._context_length) :]
    errors = []
    for one in model.forecasters_.values():
        parts = []
        for start in range(tail - H + 1):
            context = rows.iloc[: model._context_length + start]
            truth = rows.iloc[len(context) : len(context) + H].to_numpy()
            parts.append((truth - one.predict(context).to_numpy()) / scale)
        errors.append(np.ravel(parts))
    return np.array(errors) @ np.array(errors).T, len(errors[0])


def test_errors_are_those_of_the_tail():
    model = build(weights="inverse_error").fit(frame())
    products, count = error_products(model, frame())
    errors = np.diag(products) / count
    np.testing.assert_allclose(model.validation_errors_, errors, rtol=1e-10)
    expected = (1 / errors) / (1 / errors).sum()
    np.testing.assert_allclose(model.weights_, expected, rtol=1e-10)


def test_stacked_weights_are_the_best_of_the_simplex():
    model = build(weights="stack").fit(frame())
    products, _ = error_products(model, frame())
    np.testing.assert_allclose(model.weights_, searched(products), atol=1e-5)


def searched(products):
    """Minimise the error of the combination by a general optimiser."""
    J, scaled = len(products), products / np.trace(products)
    best = min(
        (
            minimize(
                lambda w: w @ scaled @ w,
                start,
                jac=lambda w: 2 * scaled @ w,
                bounds=[(0, 1)] * J,
                constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
                method="SLSQP",
                options={"ftol": 1e-15, "maxiter": 500},
            )
            for start in [np.full(J, 1 / J), *np.eye(J)]
        ),
        key=lambda found: found.fun,
    )
    return best.x


def products_of(seed, n_members, n_errors):
    errors = np.random.default_rng(seed).normal(size=(n_members, n_errors))
    return (errors + errors.mean(axis=0)) @ (errors + errors.mean(axis=0)).T


@given(st.integers(0, 1000), st.integers(2, 5))
def test_no_weights_of_the_simplex_are_better(seed, n_members):
    products = products_of(seed, n_members, 12)
    weights = stacked(products)
    assert weights.sum() == pytest.approx(1) and (weights >= 0).all()
    least = weights @ products @ weights
    others = np.random.default_rng(seed).dirichlet(np.ones(n_members), size=200)
    for other in [*np.eye(n_members), *others]:
        assert least <= other @ products @ other * (1 + 1e-9)
    # Not scaling the products changes the way there, not the weights.
    np.testing.assert_allclose(stacked(products * 1e6), weights, atol=1e-8)


def test_negative_weights_cut_off_are_not_the_best():
    products = np.array([[1.0, 1.4, 0.9], [1.4, 2.1, 1.2], [0.9, 1.2, 1.3]])
    free = np.linalg.solve(products, np.ones(3))
    assert free.min() < 0
    cut = np.maximum(free, 0) / np.maximum(free, 0).sum()
    weights = stacked(products)
    assert weights @ products @ weights < cut @ products @ cut - 1e-3
    np.testing.assert_allclose(weights, searched(products), atol=1e-5)


def test_members_without_errors_share_the_weight():
    products = np.diag([0.0, 0.0, 3.0])
    np.testing.assert_array_equal(by_inverse_error(products), [0.5, 0.5, 0.0])
    assert stacked(products)[2] == pytest.approx(0, abs=1e-12)
    np.testing.assert_allclose(stacked(np.zeros((2, 2))).sum(), 1)


@pytest.mark.parametrize("weights", ["inverse_error", "stack"])
def test_without_a_tail_all_weigh_the_same(weights):
    with pytest.warns(SciSeqWarning, match="nothing was held out to choose weights"):
        model = build(weights=weights, validation_fraction=0.0).fit(frame())
    np.testing.assert_allclose(model.weights_, 1 / 3)
    assert model.validation_errors_ is None


def test_missing_truths_and_light_rows_count_less():
    table = covariates(known=0)[["a", "driver", "weight"]]
    window = WindowForecaster(lookback=4, calendar=None)
    forecasters = [("last", NaiveForecaster()), ("window", window)]
    roles = {"targets": ["a"], "sample_weight": "weight", "weights": "inverse_error"}
    spoilt = table.copy()
    spoilt.iloc[-1, 0] += 50.0
    plain = build(forecasters, **roles).fit(spoilt)
    spoilt.iloc[-1, 2] = 0.0
    light = build(forecasters, **roles).fit(spoilt)
    assert light.validation_errors_[1] < plain.validation_errors_[1] / 2
    spoilt.iloc[-3, 0] = np.nan
    holes = build(forecasters, **roles, missing="mask").fit(spoilt)
    assert np.isfinite(holes.validation_errors_).all()


def test_refitting_keeps_the_weights():
    model = build(weights="stack", refit_on_all=True).fit(frame())
    np.testing.assert_array_equal(
        model.weights_, build(weights="stack").fit(frame()).weights_
    )
    forecasts = [
        alone(one, frame(), refit_on_all=True).predict().to_numpy()
        for _, one in members()
    ]
    expected = np.tensordot(model.weights_, forecasts, 1)
    np.testing.assert_allclose(model.predict(), expected, rtol=1e-12)


def test_intervals_hold_the_errors_of_the_combination():
    model = build().fit(frame())
    residuals = []
    for start in range(6 - H + 1):
        context = frame().iloc[: 54 + start]
        truth = frame().iloc[54 + start : 54 + start + H].to_numpy()
        residuals.append(truth - model.predict(context).to_numpy())
    np.testing.assert_allclose(
        model.calibration_residuals_, residuals, rtol=1e-5, atol=1e-5
    )
    low, high = model.predict_interval(coverage=0.5)
    assert (low < model.predict()).any(axis=None) and (low <= high).all(axis=None)


# Parameters


def test_nested_parameters():
    model = build()
    assert model.get_params()["line__lookback"] == 8
    assert model.get_params()["window__regressor"] is None
    assert "line" not in model.get_params(deep=False)
    copied = clone(model).set_params(line__lookback=5, window__centre="last")
    assert dict(copied.forecasters)["line"].lookback == 5
    assert dict(copied.forecasters)["window"].centre == "last"
    assert dict(model.forecasters)["line"].lookback == 8
    given = model.forecasters
    model.set_params(last=LinearForecaster(kind="dlinear"), weights="stack")
    assert [name for name, _ in model.forecasters] == ["line", "last", "window"]
    assert model.get_params()["last__kind"] == "dlinear"
    assert isinstance(given[1][1], NaiveForecaster)  # the caller's list is his own
    model.set_params(forecasters=members()[:1], line__alpha=1.0)
    assert dict(model.forecasters)["line"].alpha == 1.0


def test_misspelt_parameters_change_nothing():
    model = build()
    with pytest.raises(InputError, match="Did you mean 'line'"):
        model.set_params(weights="stack", lime__alpha=1.0)
    assert model.weights == "equal"
    with pytest.raises(InputError, match="Did you mean 'alpha'"):
        model.set_params(line__alpa=1.0)


def test_a_search_over_a_member():
    search = GridSearchCV(
        build(members()[:1]),
        {"line__alpha": [1e-3, 1e4]},
        cv=RollingOriginSplit(n_splits=2, test_size=8, context=8),
        error_score="raise",
    )
    assert search.fit(values()).best_params_ == {"line__alpha": 1e-3}


def test_the_default_members():
    model = ForecastEnsemble(horizon=2).set_params(weights=[1, 1])
    model.fit(frame(200))
    assert list(model.forecasters_) == ["linear", "last"]


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"forecasters": []}, "a list of pairs (name, forecaster of sciseq)"),
        ({"forecasters": [("ridge", Ridge())]}, "a list of pairs"),
        ({"forecasters": [NaiveForecaster()]}, "a list of pairs"),
        ({"forecasters": [("a__b", NaiveForecaster())]}, "'a__b' is not allowed"),
        ({"forecasters": [("horizon", NaiveForecaster())]}, "'horizon' is not"),
        ({"forecasters": [("a", NaiveForecaster())] * 2}, "must be unique"),
        (
            {"forecasters": [("a", NaiveForecaster(targets=["x"]))]},
            "roles belong to the ensemble",
        ),
        ({"weights": [1, 2]}, "one number of at least 0 for each of 3 members"),
        ({"weights": [1, -1, 1]}, "one number of at least 0"),
        ({"weights": [0, 0, 0]}, "not all 0"),
        ({"weights": ["a", "b", "c"]}, "one number of at least 0"),
        ({"weights": "stacked"}, "Did you mean 'stack'"),
    ],
)
def test_what_is_refused(params, words):
    with pytest.raises(InputError, match=re.escape(words)):
        build(**params).fit(frame())


def test_trouble_in_a_member_names_it():
    with pytest.raises(InputError) as caught:
        build([("odd", LinearForecaster(kind="dlinear", kernel_size=4))]).fit(frame())
    assert caught.value.where.startswith("member 'odd'")


def test_a_failed_fit_keeps_the_first():
    model = build().fit(frame())
    before = model.predict()
    model.set_params(line__lookback=500)
    with pytest.raises(InputError, match="too few rows"):
        model.fit(frame())
    model.set_params(line__lookback=8)
    pd.testing.assert_frame_equal(model.predict(), before)


# Saving


def test_members_are_saved_inside_the_ensemble(tmp_path):
    small = {"lookback": 6, "d_model": 8, "n_layers": 1, "max_epochs": 1}
    forecasters = [*members(), ("mamba", SMambaForecaster(**small, random_state=0))]
    model = build(forecasters, weights="stack").fit(frame())
    for name in ("folder", "file.sciseq"):
        model.save(tmp_path / name)
        loaded = load(tmp_path / name)
        pd.testing.assert_frame_equal(loaded.predict(), model.predict())
        np.testing.assert_array_equal(loaded.weights_, model.weights_)
        assert repr(loaded) == repr(model)
        for key, member in model.forecasters_.items():
            other = loaded.forecasters_[key]
            assert type(other) is type(member)
            pd.testing.assert_frame_equal(other.predict(), member.predict())


def test_a_member_that_cannot_be_saved_is_named(tmp_path):
    from sklearn.tree import DecisionTreeRegressor

    tree = WindowForecaster(regressor=DecisionTreeRegressor(), lookback=4)
    model = build([("tree", tree)]).fit(frame())
    with pytest.raises(CapabilityError, match="DecisionTreeRegressor") as caught:
        model.save(tmp_path / "model")
    assert "forecasters[0]" in caught.value.where
    assert not list(tmp_path.iterdir())


# With the rest of the house


def test_validation_data_take_the_place_of_the_tail():
    model = build(weights="inverse_error", validation_fraction=0.0)
    model.fit(frame().iloc[:54], validation_data=frame().iloc[46:])
    tail = build(weights="inverse_error").fit(frame())
    np.testing.assert_allclose(model.weights_, tail.weights_, rtol=1e-12)
    with pytest.raises(InputError) as caught:
        build().fit(frame().iloc[:54], validation_data=frame().iloc[50:])
    assert caught.value.where.startswith("validation_data")


def test_inside_a_pipeline_and_a_backtest():
    steps = [("scale", StandardScaler()), ("forecast", build())]
    pipeline = ForecastPipeline(steps).fit(frame())
    plain = build().fit(frame())
    np.testing.assert_allclose(pipeline.predict(), plain.predict(), rtol=1e-3)
    result = backtest(build(), frame(), test_size=10)
    first = build().fit(frame().iloc[:50]).predict().to_numpy()
    np.testing.assert_allclose(result.forecasts["forecast"][:H], first, rtol=1e-9)
