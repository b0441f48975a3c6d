"""forecast_scorer: the same rows for every lookback, in scikit-learn's searches."""

import pickle
import re

import numpy as np
import pandas as pd
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import (
    GridSearchCV,
    TimeSeriesSplit,
    cross_val_score,
    cross_validate,
)

import sciseq
from sciseq.errors import CapabilityError, InputError, InputTypeError
from sciseq.metrics import METRICS, forecast_errors
from sciseq.model_selection import RollingOriginSplit, forecast_scorer

LOOKBACKS = [1, 5, 24]


@pytest.fixture(scope="module")
def macro() -> pd.DataFrame:
    return sciseq.load_dataset("macrodata")[["infl", "unemp", "tbilrate"]]


def last_value(lookback=1, horizon=4):
    return sciseq.NaiveForecaster(horizon=horizon, lookback=lookback)


def last_value_errors(frame, context, horizon):
    """Truths and last-value forecasts, window by window, on plain arrays."""
    values = np.asarray(frame, dtype=float)
    rows = range(context, len(values) - horizon + 1)
    truth = np.stack([values[row : row + horizon] for row in rows])
    forecast = np.stack([values[[row - 1] * horizon] for row in rows])
    return truth, forecast


# --- The same rows -------------------------------------------------------------------


def test_a_last_value_model_scores_the_same_whatever_its_lookback(macro) -> None:
    splitter = RollingOriginSplit(n_splits=4, test_size=12, context=24)
    scorer = forecast_scorer("mse", context=24)

    def scores(scoring, cv):
        return [
            cross_val_score(last_value(L), macro, cv=cv, scoring=scoring)
            for L in LOOKBACKS
        ]

    ours = scores(scorer, splitter)
    np.testing.assert_array_equal(ours[0], ours[1])
    np.testing.assert_array_equal(ours[0], ours[2])
    # The number itself: each fold's windows, forecast by hand.
    for (_, test), score in zip(splitter.split(macro), ours[0], strict=True):
        truth, forecast = last_value_errors(macro.iloc[test], 24, 4)
        assert len(truth) == 12 - 4 + 1
        assert score == pytest.approx(-np.mean((truth - forecast) ** 2), rel=1e-12)

    # score() of the model counts other windows for another lookback, even on our folds
    # and all the more on those of TimeSeriesSplit.
    for cv in (splitter, TimeSeriesSplit(n_splits=4, test_size=36)):
        plain = scores(None, cv)
        assert not np.isclose(plain[0], plain[2], rtol=1e-3).any()


def test_panel_windows_after_the_context_are_scored_per_series(panel) -> None:
    scores = [
        forecast_scorer("mae", context=24)(last_value(L).fit(panel), panel)
        for L in LOOKBACKS
    ]
    assert scores[0] == scores[1] == scores[2]
    parts = [last_value_errors(one, 24, 4) for _, one in panel.groupby(level=0)]
    truth, forecast = (np.concatenate(one) for one in zip(*parts, strict=True))
    assert -scores[0] == pytest.approx(np.abs(truth - forecast).mean(), rel=1e-12)


@pytest.mark.parametrize("metric", METRICS)
def test_every_metric_is_greater_for_better(metric, macro) -> None:
    if METRICS[metric].needs_scale or METRICS[metric].judges != "forecast":
        with pytest.raises(CapabilityError, match="backtest"):
            forecast_scorer(metric, context=4)
        return
    truth, forecast = last_value_errors(macro, 24, 4)
    value = forecast_errors(truth, forecast, metrics=[metric])[metric]
    expected = value if metric == "r2" else -abs(value)
    score = forecast_scorer(metric, context=24)(last_value().fit(macro), macro)
    assert score == pytest.approx(expected, rel=1e-10)


def test_bias_of_both_signs_is_bad() -> None:
    rising = np.arange(20.0).reshape(-1, 1)
    scorer = forecast_scorer("bias", context=5)
    for X in (rising, -rising):
        assert scorer(last_value(horizon=1).fit(X), X) == -1.0


def test_scale_divides_the_errors_of_each_target(macro) -> None:
    scale = macro.iloc[:120].std(ddof=0)
    truth, forecast = last_value_errors(macro, 24, 4)
    model = last_value().fit(macro)
    score = forecast_scorer("mse", context=24, scale=scale)(model, macro)
    error = (truth - forecast) / scale.to_numpy()
    assert score == pytest.approx(-np.mean(error**2), rel=1e-12)
    half = forecast_scorer("mae", context=24, scale=2.0)(model, macro)
    assert half == pytest.approx(-np.abs(truth - forecast).mean() / 2, rel=1e-12)


def test_missing_truth_is_not_scored_and_not_invented() -> None:
    X = np.array([[0.0], [1.0], [2.0], [np.nan], [4.0], [9.0]])
    for missing in ("interpolate", "mask"):
        model = last_value(2, horizon=1).set_params(missing=missing).fit(X[:3])
        # Targets are rows 2, 4 and 5 with errors 1, 2 (the last value known before row
        # 4 is that of row 2) and 5. Interpolating first would give 1, 1, 1 and 5.
        score = forecast_scorer("mae", context=2)(model, X)
        assert score == pytest.approx(-(1 + 2 + 5) / 3)


def test_column_order_and_targets_are_those_of_the_model(macro) -> None:
    model = sciseq.NaiveForecaster(horizon=2, targets=["unemp"]).fit(macro)
    turned = macro[["tbilrate", "unemp", "infl"]].copy()
    truth, forecast = last_value_errors(macro[["unemp"]], 10, 2)
    scorer = forecast_scorer("mae", context=10)
    for X in (macro, turned):
        expected = -np.abs(truth - forecast).mean()
        assert scorer(model, X) == pytest.approx(expected, rel=1e-12)


def test_ready_made_windows_are_all_scored() -> None:
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(30, 6, 2)), rng.normal(size=(30, 3, 2))
    splitter = RollingOriginSplit(n_splits=2, test_size=5, context=6, gap=2)
    model = last_value(lookback=6, horizon=3)
    scoring = forecast_scorer("mse", context=6)
    scores = cross_val_score(model, X, y, cv=splitter, scoring=scoring)
    expected = [
        -np.mean((y[rows] - X[rows, -1:]) ** 2)
        for rows in (slice(20, 25), slice(25, 30))
    ]
    np.testing.assert_allclose(scores, expected, rtol=1e-12)


# --- Searches ------------------------------------------------------------------------


def linear(**parameters):
    return sciseq.LinearForecaster(horizon=4, validation_fraction=0.0, **parameters)


def test_grid_search_over_lookback_and_penalty(macro) -> None:
    splitter = RollingOriginSplit(n_splits=3, test_size=16, context=24)
    grid = {"lookback": [4, 24], "alpha": [1e-3, 1.0]}
    search = GridSearchCV(
        linear(), grid, cv=splitter, scoring=forecast_scorer("mae", context=24)
    ).fit(macro)
    # Every cell by hand: fit on the training rows, predict from each origin.
    for parameters, *scores in zip(
        search.cv_results_["params"],
        *(search.cv_results_[f"split{fold}_test_score"] for fold in range(3)),
        strict=True,
    ):
        for (train, test), score in zip(splitter.split(macro), scores, strict=True):
            model = linear(**parameters).fit(macro.iloc[train])
            fold = macro.iloc[test]
            errors = [
                np.abs(
                    model.predict(fold.iloc[:row]).to_numpy()
                    - fold.iloc[row : row + 4].to_numpy()
                ).mean()
                for row in range(24, 40 - 4 + 1)
            ]
            assert score == pytest.approx(-np.mean(errors), rel=1e-9)
    assert search.best_estimator_.predict().shape == (4, 3)


def test_cross_validate_with_several_metrics_and_processes(panel) -> None:
    scoring = {
        name: forecast_scorer(name, context=24) for name in ("mse", "rmse", "r2")
    }
    splitter = RollingOriginSplit(n_splits=2, test_size=12, context=24)
    results = [
        cross_validate(
            linear(lookback=24), panel, cv=splitter, scoring=scoring, n_jobs=n_jobs
        )
        for n_jobs in (None, 2)
    ]
    for name in scoring:
        key = f"test_{name}"
        np.testing.assert_array_equal(results[0][key], results[1][key])
    rmse = results[0]["test_rmse"]
    np.testing.assert_allclose(-results[0]["test_mse"], rmse**2, rtol=1e-12)


def test_a_search_inside_cross_validation(macro) -> None:
    splitter = RollingOriginSplit(n_splits=2, test_size=8, context=8)
    scoring = forecast_scorer("mae", context=8)
    search = GridSearchCV(linear(), {"lookback": [4]}, cv=splitter, scoring=scoring)
    nested = cross_val_score(search, macro, cv=splitter, scoring=scoring)
    direct = cross_val_score(linear(lookback=4), macro, cv=splitter, scoring=scoring)
    np.testing.assert_array_equal(nested, direct)


def test_lookbacks_on_etth1(data_dir) -> None:
    frame = sciseq.load_dataset("ETTh1").iloc[:6000, -2:]
    splitter = RollingOriginSplit(n_splits=2, test_size=480, context=168)
    scorer = forecast_scorer("mse", context=168)
    naive = [
        cross_val_score(last_value(L, horizon=24), frame, cv=splitter, scoring=scorer)
        for L in (1, 168)
    ]
    np.testing.assert_array_equal(naive[0], naive[1])
    model = sciseq.LinearForecaster(horizon=24)
    search = GridSearchCV(model, {"lookback": [24, 168]}, cv=splitter, scoring=scorer)
    scores = search.fit(frame).cv_results_["mean_test_score"]
    # A week of context is better than a day, and both are better than the last value.
    assert np.mean(naive[0]) < scores[0] < scores[1] < 0


# --- Refusals and conduct ------------------------------------------------------------


def test_wrong_arguments() -> None:
    with pytest.raises(InputError, match="Did you mean 'smape'"):
        forecast_scorer("smap", context=4)
    with pytest.raises(InputError, match="no metric is called 3"):
        forecast_scorer(3, context=4)
    for context in (0, -1, 2.0, None, True):
        with pytest.raises(InputError, match=re.escape(f"context={context!r}")):
            forecast_scorer(context=context)
    for scale in (0.0, [1.0, -1.0], [1.0, np.nan], [[1.0]]):
        with pytest.raises(InputError, match="positive"):
            forecast_scorer(context=4, scale=scale)


def test_what_cannot_be_scored(macro) -> None:
    model = last_value(lookback=10).fit(macro)
    with pytest.raises(InputError, match="10 rows, context is 9"):
        forecast_scorer(context=9)(model, macro)
    with pytest.raises(InputError, match="no window to score"):
        forecast_scorer(context=40)(model, macro.iloc[:43])
    assert forecast_scorer(context=40)(model, macro.iloc[:44]) < 0
    with pytest.raises(InputError, match="2 values for 3 targets"):
        forecast_scorer(context=10, scale=[1.0, 2.0])(model, macro)
    with pytest.raises(InputTypeError, match="LinearRegression is not one"):
        forecast_scorer(context=9)(LinearRegression(), macro)
    with pytest.raises(NotFittedError):
        forecast_scorer(context=9)(last_value(), macro)


def test_scorer_is_plain_data(macro) -> None:
    scorer = forecast_scorer("mae", context=24, scale=[1.0, 2.0, 3.0])
    assert repr(scorer) == "forecast_scorer('mae', context=24, scale=[1.0, 2.0, 3.0])"
    model = last_value().fit(macro)
    again = pickle.loads(pickle.dumps(scorer))
    assert again(model, macro) == scorer(model, macro)


def test_scoring_leaves_global_state_alone(macro, no_global_side_effects) -> None:
    model = last_value().fit(macro)
    with no_global_side_effects():
        forecast_scorer(context=8)(model, macro)
