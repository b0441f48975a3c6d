"""The forecasters inside scikit-learn's own tools, on real data."""

import copy
import pickle

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.model_selection import (
    GridSearchCV,
    RandomizedSearchCV,
    cross_val_score,
    cross_validate,
)
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from sciseq import LinearForecaster, NaiveForecaster, SMambaForecaster, load_dataset
from sciseq.errors import InputError
from sciseq.model_selection import RollingOriginSplit, forecast_scorer

FORECASTERS = {
    "naive": NaiveForecaster(strategy="seasonal", horizon=4),
    "linear": LinearForecaster(lookback=8, horizon=4),
    "s-mamba": SMambaForecaster(
        lookback=8, horizon=4, d_model=8, n_layers=1, max_epochs=1, random_state=0
    ),
}


@pytest.fixture(scope="module")
def economy():
    table = load_dataset("macrodata")[["realgdp", "unemp", "infl", "tbilrate"]]
    return table.assign(realgdp=100 * table["realgdp"].pct_change()).iloc[1:]


@pytest.fixture(params=FORECASTERS)
def forecaster(request):
    return clone(FORECASTERS[request.param])


def test_plain_pipeline_of_scikit_learn(forecaster, economy):
    steps = [("scale", StandardScaler()), ("forecast", forecaster)]
    model = Pipeline(steps).set_output(transform="pandas").fit(economy)
    forecast = model.predict(economy)
    assert forecast.index[0] == pd.Timestamp("2009-10-01")
    scaled = StandardScaler().set_output(transform="pandas").fit_transform(economy)
    by_hand = clone(forecaster).fit(scaled).predict()
    pd.testing.assert_frame_equal(forecast, by_hand)


def test_parameters_through_a_pipeline_of_scikit_learn(forecaster, economy):
    model = Pipeline([("scale", StandardScaler()), ("forecast", forecaster)])
    model.set_output(transform="pandas")
    model.set_params(forecast__lookback=6, scale__with_mean=False)
    assert model.get_params()["forecast__lookback"] == forecaster.lookback == 6
    with pytest.raises(InputError, match="Did you mean 'lookback'"):
        model.set_params(forecast__lookbak=6)
    copied = clone(model)
    assert repr(copied.get_params(deep=False)) == repr(model.get_params(deep=False))
    assert copied[-1] is not forecaster and copied[-1].lookback == 6
    pd.testing.assert_frame_equal(
        copied.fit(economy).predict(economy), model.fit(economy).predict(economy)
    )
    assert type(forecaster).__name__ in model._repr_html_()


def test_search_inside_a_pipeline_of_scikit_learn(economy):
    # scikit-learn's own pipeline leaves forecasts in scaled units, and so its score.
    cv = RollingOriginSplit(2, test_size=20, context=12)
    model = Pipeline([("scale", StandardScaler()), ("forecast", LinearForecaster())])
    model.set_output(transform="pandas").set_params(forecast__horizon=4)
    lookbacks = [4, 8, 12]
    search = GridSearchCV(model, {"forecast__lookback": lookbacks}, cv=cv).fit(economy)
    by_hand = []
    for lookback in lookbacks:
        scores = []
        for train, test in cv.split(economy):
            scaler = StandardScaler().set_output(transform="pandas")
            rows = scaler.fit_transform(economy.iloc[train])
            fitted = LinearForecaster(lookback=lookback, horizon=4).fit(rows)
            scores.append(fitted.score(scaler.transform(economy.iloc[test])))
        by_hand.append(np.mean(scores))
    np.testing.assert_allclose(search.cv_results_["mean_test_score"], by_hand)
    assert search.best_params_["forecast__lookback"] == lookbacks[np.argmax(by_hand)]


def test_cross_validation_scores_the_held_out_rows(forecaster, economy):
    cv = RollingOriginSplit(3, test_size=16, context=8)
    scorer = forecast_scorer("mae", context=8)
    scores = cross_val_score(forecaster, economy, cv=cv, scoring=scorer)
    by_hand = []
    for train, test in cv.split(economy):
        model = clone(forecaster).fit(economy.iloc[train])
        rows = economy.iloc[test]
        errors = [
            np.abs(
                model.predict(rows.iloc[: start + 8]).to_numpy()
                - rows.iloc[start + 8 : start + 12].to_numpy()
            ).mean()
            for start in range(13)
        ]
        by_hand.append(-np.mean(errors))
    np.testing.assert_allclose(scores, by_hand, rtol=1e-6)
    both = cross_validate(forecaster, economy, cv=cv, scoring={"mae": scorer})
    np.testing.assert_allclose(both["test_mae"], scores)


def test_own_score_serves_a_search(economy):
    cv = RollingOriginSplit(2, test_size=20, context=8)
    search = GridSearchCV(
        clone(FORECASTERS["linear"]), {"alpha": [1e-3, 1.0, 100.0]}, cv=cv
    ).fit(economy)
    means = [
        cross_val_score(
            clone(FORECASTERS["linear"]).set_params(alpha=alpha), economy, cv=cv
        ).mean()
        for alpha in (1e-3, 1.0, 100.0)
    ]
    assert search.best_index_ == int(np.argmax(means))
    assert search.predict(economy).shape == (4, 4)


def test_randomized_search_of_a_network(economy):
    search = RandomizedSearchCV(
        clone(FORECASTERS["s-mamba"]),
        {"d_state": [1, 2, 3], "learning_rate": [1e-3, 1e-2]},
        n_iter=2,
        cv=RollingOriginSplit(2, test_size=12, context=8),
        scoring=forecast_scorer("mse", context=8),
        random_state=0,
    ).fit(economy)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert search.best_estimator_.predict().shape == (4, 4)


def test_copies_forecast_the_same(forecaster, economy, tmp_path):
    model = forecaster.fit(economy)
    joblib.dump(model, tmp_path / "model")
    for copied in (
        pickle.loads(pickle.dumps(model)),
        copy.deepcopy(model),
        joblib.load(tmp_path / "model"),
        clone(model).fit(economy),
    ):
        pd.testing.assert_frame_equal(copied.predict(), model.predict())


def test_parallel_search_equals_a_serial_one(economy):
    results = [
        cross_val_score(
            clone(FORECASTERS["s-mamba"]),
            economy,
            cv=RollingOriginSplit(2, test_size=12, context=8),
            n_jobs=n_jobs,
        )
        for n_jobs in (1, 2)
    ]
    np.testing.assert_allclose(*results, rtol=1e-6)


def test_search_on_hourly_data(data_dir):
    table = load_dataset("ETTh1", data_dir=data_dir).iloc[:1500]
    search = GridSearchCV(
        LinearForecaster(horizon=24),
        {"lookback": [24, 72]},
        cv=RollingOriginSplit(2, test_size=96, context=72),
        scoring=forecast_scorer("mse", context=72),
    ).fit(table)
    scores = dict(zip([24, 72], search.cv_results_["mean_test_score"], strict=True))
    assert search.best_params_["lookback"] == max(scores, key=scores.__getitem__)
