"""Scorer and backtest take a pipeline as they take a model."""

import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import GridSearchCV
from sklearn.preprocessing import StandardScaler

import sciseq
from sciseq.model_selection import RollingOriginSplit, backtest, forecast_scorer


def model(**parameters) -> sciseq.LinearForecaster:
    defaults = {"lookback": 8, "alpha": 0.1, "validation_fraction": 0.0}
    return sciseq.LinearForecaster(horizon=3, **defaults | parameters)


def pipeline(**parameters) -> sciseq.ForecastPipeline:
    forecaster = model(scaler=None, **parameters)
    return sciseq.ForecastPipeline([("scale", StandardScaler()), ("model", forecaster)])


@pytest.fixture(scope="module")
def macro() -> pd.DataFrame:
    frame = sciseq.load_dataset("macrodata")[["infl", "unemp", "tbilrate"]]
    return frame.iloc[:100]


def test_a_pipeline_that_scales_is_the_model_that_scales(macro, panel) -> None:
    for X, season in ((macro, 4), (panel, 24), (macro.to_numpy(), 1)):
        for refit in (False, True):
            one, two = (
                backtest(
                    estimator,
                    X,
                    test_size=60,
                    stride=7,
                    refit=refit,
                    season_length=season,
                )
                for estimator in (model(), pipeline())
            )
            assert one.n_windows == two.n_windows
            np.testing.assert_allclose(
                two.forecasts.to_numpy(), one.forecasts.to_numpy(), rtol=1e-7
            )
            np.testing.assert_allclose(
                two.metrics.to_numpy(), one.metrics.to_numpy(), rtol=1e-7
            )


def test_gaps_at_an_origin_are_filled_from_the_past(macro) -> None:
    holes = np.random.default_rng(0).random(macro.shape) < 0.15
    holes[:5] = False
    frame = macro.mask(holes)
    estimator = pipeline(missing="interpolate").fit(frame.iloc[:-20])
    result = backtest(estimator, frame, test_size=20, fit=False)
    forecast = result.forecasts["forecast"].to_numpy().reshape(-1, 3, 3)
    for window, row in enumerate(range(80, 98)):
        expected = estimator.predict(frame.iloc[:row]).to_numpy()
        np.testing.assert_allclose(forecast[window], expected, rtol=1e-9)


def test_horizon_reaches_the_last_step(macro) -> None:
    estimator = pipeline()
    assert backtest(estimator, macro, horizon=5, n_origins=2).horizon == 5
    assert estimator.horizon == 3


def test_search_over_the_lookback_of_a_step(macro) -> None:
    splitter = RollingOriginSplit(n_splits=2, test_size=10, context=12)
    scoring = forecast_scorer("mse", context=12)
    scores = [
        GridSearchCV(estimator, {name: [4, 12]}, cv=splitter, scoring=scoring)
        .fit(macro)
        .cv_results_["mean_test_score"]
        for estimator, name in ((model(), "lookback"), (pipeline(), "model__lookback"))
    ]
    np.testing.assert_allclose(scores[0], scores[1], rtol=1e-7)
