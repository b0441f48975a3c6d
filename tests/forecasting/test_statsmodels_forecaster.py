"""Classical models: equal to statsmodels, called directly on the same rows."""

import threading
import warnings

import joblib
import numpy as np
import pandas as pd
import pytest
from statsmodels.tsa.ar_model import AutoReg
from statsmodels.tsa.exponential_smoothing.ets import ETSModel
from statsmodels.tsa.forecasting.theta import ThetaModel
from statsmodels.tsa.holtwinters import SimpleExpSmoothing
from statsmodels.tsa.seasonal import seasonal_decompose
from statsmodels.tsa.statespace.sarimax import SARIMAX

from sciseq import load
from sciseq.errors import DataQualityError, InputError, SciSeqWarning
from sciseq.forecasting import classical_models
from sciseq.forecasting.smoothing_models import ETS
from sciseq.forecasting.statsmodels_forecaster import StatsmodelsForecaster
from sciseq.testing import checks_for
from sciseq.testing.tables import quiet

M, L, H = 6, 24, 5
ROWS = np.arange(90)
RNG = np.random.default_rng(0)
SERIES = 20 + 0.05 * ROWS + 3 * np.sin(2 * np.pi * ROWS / M) + RNG.normal(size=90) / 2
TABLE = np.stack([SERIES, 100 - 2 * np.roll(SERIES, 2)], axis=1)
RAW = {
    "lookback": L,
    "horizon": H,
    "season_length": M,
    "standardize": False,
    "validation_fraction": 0.0,
}
WINDOWS = [slice(0, L), slice(33, 33 + L), slice(66, 90)]


def build(**params):
    return StatsmodelsForecaster(**{**RAW, **params})


def fit(table=TABLE, **params):
    with quiet():
        return build(**params).fit(table)


def forecast_of(model, window, column=0):
    return model.predict(TABLE[window])[:, column]


# Parameters and forecasts are those of statsmodels


@pytest.mark.parametrize("lags", [3, [1, 6, 7]])
@pytest.mark.parametrize("constant", [True, False])
def test_autoreg(lags, constant):
    model = fit(model="autoreg", lags=lags, constant=constant)
    trend = "c" if constant else "n"
    for column in range(2):
        expected = AutoReg(TABLE[:, column], lags=lags, trend=trend).fit()
        np.testing.assert_allclose(
            model.parameters_[0, column], expected.params, rtol=1e-10
        )
        for window in WINDOWS:
            own = AutoReg(TABLE[window, column], lags=lags, trend=trend)
            again = own.predict(expected.params, start=L, end=L + H - 1)
            np.testing.assert_allclose(
                forecast_of(model, window, column), again, rtol=1e-10
            )


ORDERS = [
    {"order": (2, 0, 1)},
    {"order": (0, 1, 1)},
    {"order": (1, 1, 1), "constant": True},
    {"order": (1, 0, 0), "seasonal_order": (1, 1, 0)},
    {"order": (0, 1, 1), "seasonal_order": (0, 1, 1)},
]


def sarimax(order, seasonal_order=(0, 0, 0), constant="auto", **more):
    """The model of statsmodels that the parameters stand for."""
    if constant == "auto":
        constant = order[1] + seasonal_order[1] == 0
    season = M if any(seasonal_order) else 0
    return {
        "order": order,
        "seasonal_order": (*seasonal_order, season),
        "trend": "c" if constant else "n",
        **more,
    }


@pytest.mark.filterwarnings("ignore::UserWarning")  # statsmodels on its first guesses
@pytest.mark.parametrize("params", ORDERS, ids=str)
def test_sarimax(params):
    model = fit(TABLE[:, :1], model="sarimax", **params, max_iter=200)
    direct = SARIMAX(TABLE[:, 0], **sarimax(**params)).fit(disp=False, maxiter=200)
    np.testing.assert_allclose(model.parameters_[0, 0], direct.params, rtol=1e-10)
    assert list(model.parameter_names_) == direct.param_names
    for window in WINDOWS:
        again = direct.apply(TABLE[window, 0])
        np.testing.assert_allclose(
            model.predict(TABLE[window, :1])[:, 0], again.forecast(H), rtol=1e-8
        )
    # The same parameters on other rows give other forecasts.
    late = direct.apply(TABLE[65:89, 0]).forecast(H)
    assert not np.allclose(model.predict()[:, 0], late, rtol=1e-4)


def test_sarimax_filters_through_gaps():
    holes = TABLE[:, :1].copy()
    holes[[3, 40, 41, 80, 89]] = np.nan
    params = {"order": (1, 0, 1), "constant": True}
    model = fit(holes, model="sarimax", missing="mask", **params)
    direct = SARIMAX(holes[:, 0], **sarimax(**params)).fit(disp=False, maxiter=500)
    np.testing.assert_allclose(model.parameters_[0, 0], direct.params, rtol=1e-10)
    expected = direct.apply(holes[-L:, 0]).forecast(H)
    np.testing.assert_allclose(model.predict()[:, 0], expected, rtol=1e-8)
    filled = direct.apply(TABLE[-L:, 0]).forecast(H)
    assert not np.allclose(model.predict()[:, 0], filled, rtol=1e-4)


def test_sarimax_with_future_covariates():
    index = pd.date_range("2024-01-01", periods=95, freq="h")
    driver = np.cos(np.arange(95) * 0.7)
    noise = np.random.default_rng(1).normal(size=90)
    table = pd.DataFrame({"driver": driver}, index=index)
    table.loc[index[:90], "y"] = 20 + 4 * driver[:90] + noise
    model = fit(
        table,
        model="sarimax",
        targets=["y"],
        future_covariates=["driver", "hour"],
        order=(1, 0, 0),
    )
    hour = (index.hour / 23 - 0.5).to_numpy().astype(np.float32)
    exog = np.stack([driver, hour], axis=1)
    y = table["y"].to_numpy()[:90]
    direct = SARIMAX(y, exog=exog[:90], **sarimax((1, 0, 0)))
    direct = direct.fit(disp=False, maxiter=500)
    np.testing.assert_allclose(model.parameters_[0, 0], direct.params, rtol=1e-8)
    again = direct.apply(y[-L:], exog=exog[90 - L : 90])
    expected = again.forecast(H, exog=exog[90:])
    np.testing.assert_allclose(model.predict(table)["y"], expected, rtol=1e-8)
    other = table.assign(driver=driver[::-1])
    assert not np.allclose(model.predict(other)["y"], expected, rtol=1e-3)
    # The covariate is what was added, and is found again.
    assert model.parameter_names_[:3] == ("intercept", "driver", "hour")
    found = model.parameter_table().loc[(0, "y"), "driver"]
    assert found == pytest.approx(4, abs=0.5)


def test_theta_on_all_rows_is_that_of_statsmodels():
    for seasonal, theta in (("auto", 2.0), ("add", 3.0), ("mul", 1.5), (None, 2.0)):
        model = fit(model="theta", seasonal=seasonal, theta=theta)
        direct = ThetaModel(
            TABLE[:, 0],
            period=M,
            deseasonalize=seasonal is not None,
            use_test=seasonal == "auto",
            method="auto" if seasonal in ("auto", None) else seasonal,
        ).fit()
        alpha, b0 = model.parameters_[0, 0, :2]
        np.testing.assert_allclose([b0, alpha], direct.params, rtol=1e-10)
        # A model of these parameters on the very rows of the estimation.
        x, parameters = TABLE[None, :, 0], model.parameters_[0, :1]
        forecast = model._classical().forecast(x, parameters, H)[0]
        expected = direct.forecast(H, theta=theta)
        np.testing.assert_allclose(forecast, expected, rtol=1e-10)


@pytest.mark.parametrize("window", WINDOWS)
def test_theta_on_a_window(window):
    model = fit(model="theta", seasonal="add")
    alpha = model.parameters_[0, 0, 0]
    x = TABLE[window, 0]
    season = seasonal_decompose(x, period=M).seasonal
    rest = x - season
    slope = np.polyfit(np.arange(L), rest, 1)[0]
    smoothed = SimpleExpSmoothing(
        rest, initialization_method="known", initial_level=rest[0]
    ).fit(smoothing_level=alpha, optimized=False)
    h = np.arange(1, H + 1)
    drift = slope / 2 * (h - 1 + (1 - (1 - alpha) ** L) / alpha)
    expected = smoothed.forecast(H) + drift + season[(L + h - 1) % M]
    np.testing.assert_allclose(forecast_of(model, window), expected, rtol=1e-8)
    assert not np.allclose(expected - drift, forecast_of(model, window), rtol=1e-4)


ETS_KINDS = [
    ("add", None, False, None),
    ("add", "add", True, "add"),
    ("add", "add", False, "add"),
    ("mul", "add", True, "mul"),
    ("mul", "mul", True, "mul"),
    ("add", "mul", False, "add"),
    ("mul", "mul", True, None),
    ("add", None, False, "mul"),
]


def ets(error, trend, damped_trend, seasonal, **more):
    period = M if seasonal else None
    return {
        "error": error,
        "trend": trend,
        "damped_trend": damped_trend,
        "seasonal": seasonal,
        "seasonal_periods": period,
        **more,
    }


@pytest.mark.parametrize("kind", ETS_KINDS, ids=str)
def test_ets(kind):
    options = dict(
        zip(("error", "trend", "damped_trend", "seasonal"), kind, strict=True)
    )
    model = fit(TABLE[:, :1], model="ets", **options, max_iter=60)
    estimator = ETSModel(TABLE[:, 0], **ets(*kind))
    direct = estimator.fit(disp=False, maxiter=60, warn_convergence=False)
    found = dict(zip(estimator.param_names, direct.params, strict=True))
    expected = [found[name] for name in model.parameter_names_]
    np.testing.assert_allclose(model.parameters_[0, 0], expected, rtol=1e-10)
    smoother = model._classical()
    for window in WINDOWS:
        x = TABLE[window, 0]
        start = start_of(smoother, x, model.parameters_[0])
        again = ETSModel(x, **ets(*kind), initialization_method="known", **start)
        smoothed = again.smooth(model.parameters_[0, 0])
        np.testing.assert_allclose(
            model.predict(TABLE[window, :1])[:, 0], smoothed.forecast(H), rtol=1e-8
        )


def start_of(smoother, x, parameters):
    """States before a window, as statsmodels takes them."""
    rates = smoother._rates(parameters)
    is_additive = smoother._is_additive
    start = smoother._best_start if is_additive else smoother._decomposed_start
    states = start(x[None], rates)
    known = {"initial_level": states.level[0]}
    if smoother.trend:
        known["initial_trend"] = states.slope[0]
    if smoother.seasonal:
        known["initial_seasonal"] = states.season[0].copy()
    return known


def test_the_states_before_a_window_are_the_best():
    model = fit(TABLE[:, :1], model="ets", max_iter=60)
    kind = ("add", "add", True, "add")
    x, parameters = TABLE[WINDOWS[1], 0], model.parameters_[0, 0]
    best = start_of(model._classical(), x, model.parameters_[0])

    def errors(level, trend, season):
        states = {"initial_level": level, "initial_trend": trend}
        again = ETSModel(
            x,
            **ets(*kind),
            initialization_method="known",
            initial_seasonal=season,
            **states,
        )
        return (again.smooth(parameters).resid ** 2).sum()

    least = errors(
        best["initial_level"], best["initial_trend"], best["initial_seasonal"]
    )
    for place in range(M):
        for step in (-0.1, 0.1):
            moved = best["initial_seasonal"] + step * (np.arange(M) == place)
            assert errors(best["initial_level"], best["initial_trend"], moved) > least
        sloped = best["initial_trend"] + 0.05
        assert errors(best["initial_level"], sloped, best["initial_seasonal"]) > least
    # No worse than what statsmodels' optimiser finds for the same rates.
    free = ETSModel(x, **ets(*kind))
    fixed = dict(zip(model.parameter_names_, parameters, strict=True))
    with free.fix_params(fixed):
        searched = free.fit(disp=False, warn_convergence=False)
    assert least <= (searched.resid**2).sum() * (1 + 1e-6)
    decomposed = model._classical()._decomposed_start(
        x[None], model._classical()._rates(model.parameters_[0])
    )
    assert least < errors(
        decomposed.level[0], decomposed.slope[0], decomposed.season[0].copy()
    )


def test_windows_together_are_windows_alone():
    model = fit(model="ets", max_iter=20)
    stack = np.stack([TABLE[start : start + L] for start in range(0, 60, 7)])
    together = model.predict(stack)
    for number, window in enumerate(stack):
        np.testing.assert_allclose(model.predict(window), together[number], rtol=1e-10)


# Estimation happens in fit, and nowhere else


@pytest.mark.parametrize("name", ["ets", "sarimax", "theta", "autoreg"])
def test_forecasts_estimate_nothing(name, monkeypatch):
    model = fit(model=name, max_iter=20)
    expected = model.predict(TABLE[:50])

    def never(self, y, exog):
        raise AssertionError("estimated again")

    monkeypatch.setattr(type(model._classical()), "estimate", never)
    np.testing.assert_array_equal(model.predict(TABLE[:50]), expected)
    assert np.isfinite(model.score(TABLE))
    # The trap springs where an estimation is asked for.
    with pytest.raises(AssertionError, match="estimated again"):
        fit(model=name)


def panel_of(tables):
    return pd.concat(
        {
            name: pd.DataFrame(table, columns=["x", "z"])
            for name, table in tables.items()
        },
        names=["site"],
    )


def test_each_series_has_parameters_of_its_own():
    tables = {"north": TABLE, "south": TABLE[::-1][:70] ** 1.5}
    model = fit(panel_of(tables), model="autoreg", lags=2)
    for place, table in enumerate(tables.values()):
        alone = fit(table, model="autoreg", lags=2)
        np.testing.assert_array_equal(model.parameters_[place], alone.parameters_[0])
        name = list(tables)[place]
        np.testing.assert_allclose(model.predict().loc[name], alone.predict())
    # Known by their labels, in any order.
    turned = panel_of(dict(reversed(tables.items())))
    pd.testing.assert_frame_equal(
        model.predict(turned).loc["north"], model.predict().loc["north"]
    )
    table = model.parameter_table()
    assert table.index.names == ["series", "target"]
    assert table.loc[("south", "z"), "lag 2"] == model.parameters_[1, 1, 2]


def test_an_unseen_series_is_estimated_on_its_window():
    model = fit(panel_of({"a": TABLE, "b": TABLE * 2}), model="autoreg", lags=2)
    other = TABLE[::-1][:L]
    new = model.predict(panel_of({"c": other})).to_numpy()
    own = [AutoReg(other[:, column], lags=2).fit().forecast(H) for column in range(2)]
    np.testing.assert_allclose(new, np.transpose(own), rtol=1e-8)
    # A model of one series takes any other for that one.
    single = fit(TABLE, model="autoreg", lags=2).predict(other)
    assert not np.allclose(single, new, rtol=1e-3)


def test_ready_made_windows_are_estimated_one_by_one():
    X = np.stack([TABLE[start : start + L] for start in (0, 30, 60)])
    y = np.stack([TABLE[start + L : start + L + H] for start in (0, 30, 60)])
    model = StatsmodelsForecaster(**{**RAW, "model": "autoreg"}).fit(X, y)
    assert model.parameters_.shape == (0, 2, 2)
    own = [AutoReg(X[1][:, column], lags=1).fit().forecast(H) for column in range(2)]
    np.testing.assert_allclose(model.predict(X)[1], np.transpose(own), rtol=1e-8)


def test_processes_change_nothing():
    one = fit(model="autoreg").predict()
    with joblib.parallel_config(backend="threading"):
        two = fit(model="autoreg", n_jobs=2).predict()
    np.testing.assert_array_equal(one, two)


# Units, seasons, gaps


@pytest.mark.parametrize("name", ["ets", "sarimax", "theta", "autoreg"])
def test_standardised_estimation_is_that_of_statsmodels_on_standardised_rows(name):
    # Theta multiplies where values are positive: they stay so.
    scaled = np.column_stack(
        [(y - (name != "theta") * y.mean()) / y.std() for y in TABLE.T.copy()]
    )
    model = fit(model=name, standardize=True, max_iter=40)
    plain = fit(scaled, model=name, standardize=False, max_iter=40)
    np.testing.assert_allclose(model.parameters_, plain.parameters_, rtol=1e-8)
    restored = plain.predict() * model.spread_ + model.centre_
    np.testing.assert_allclose(model.predict(), restored, rtol=1e-8)
    # So that the units of the data do not matter.
    units = np.array([1e5, 1e-4])
    other = fit(TABLE * units, model=name, standardize=True, max_iter=40)
    np.testing.assert_allclose(other.predict() / units, model.predict(), rtol=1e-4)


def test_the_season_is_told_from_the_index():
    index = pd.date_range("2024-01-01", periods=90, freq="MS")
    monthly = pd.DataFrame(TABLE, index=index)
    auto = {"season_length": "auto", "max_iter": 5}
    assert fit(monthly, lookback=24, **auto).season_length_ == 12
    assert fit(monthly, lookback=23, **auto).season_length_ == 1
    assert fit(TABLE, **auto).season_length_ == 1
    with pytest.raises(InputError, match="needs a season"):
        fit(TABLE, model="sarimax", seasonal_order=(1, 0, 0), season_length="auto")


def test_gaps_of_the_other_models_are_lines():
    holes, filled = TABLE.copy(), TABLE.copy()
    holes[[70, 71], 0] = holes[89, 1] = np.nan
    filled[[70, 71], 0] = TABLE[69, 0] + np.array([1, 2]) / 3 * (
        TABLE[72, 0] - TABLE[69, 0]
    )
    filled[89, 1] = TABLE[88, 1]
    for name in ("ets", "theta", "autoreg"):
        model = fit(holes, model=name, missing="mask", max_iter=10)
        same = fit(filled, model=name, max_iter=10)
        np.testing.assert_allclose(model.predict(), same.predict(), rtol=1e-10)


def test_a_window_without_a_value_forecasts_from_the_mean():
    model = fit(model="autoreg", missing="mask")
    rows = TABLE[:L].copy()
    rows[:, 0] = np.nan
    inputs = model._windows(model.context_).inputs(slice(0, 0))
    full = type(inputs)(rows[None], None, None, np.array([0]))
    mean = type(inputs)(
        np.where(np.isnan(rows), TABLE.mean(axis=0), rows)[None],
        None,
        None,
        np.array([0]),
    )
    np.testing.assert_allclose(model._forecast(full), model._forecast(mean))


# Trouble


def test_a_constant_column_goes_on():
    table = np.column_stack([TABLE[:, 0], np.full(90, 4.0)])
    for name in ("ets", "sarimax", "theta", "autoreg"):
        model = fit(table, model=name, max_iter=10)
        np.testing.assert_array_equal(model.predict()[:, 1], 4.0)
        assert np.isnan(model.parameters_[0, 1]).all()


def test_trouble_is_told_with_series_and_column():
    panel = panel_of({"north": TABLE, "south": TABLE * 2})
    with pytest.warns(SciSeqWarning) as caught:
        build(model="ets", max_iter=1).fit(panel)
    words = str(caught[0].message)
    assert "4 of 4 cases" in words and len(caught) == 1
    assert "series 'north', column 'x': did not converge" in words
    assert "series 'south', column 'z'" in words


def test_where_statsmodels_fails_the_last_value_stays(monkeypatch):
    def fails(self, y, exog):
        raise np.linalg.LinAlgError("Singular matrix")

    monkeypatch.setattr(classical_models.AutoReg, "estimate", fails)
    with pytest.warns(SciSeqWarning, match="column 0: Singular matrix; its forecasts"):
        model = build(model="autoreg").fit(TABLE)
    np.testing.assert_array_equal(model.predict(), np.tile(TABLE[-1], (H, 1)))


def test_components_that_multiply_need_positive_values():
    table = TABLE.copy()
    table[7, 1] = -1.0
    for part in ("error", "trend", "seasonal"):
        with pytest.raises(DataQualityError, match=r"a value is -1.*column 1"):
            fit(table, model="ets", **{part: "mul"})
    model = fit(model="ets", seasonal="mul", max_iter=200)
    with pytest.raises(DataQualityError, match="need positive values"):
        model.predict(TABLE[-L:] - 1000)


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"order": (1, 0)}, "three integers"),
        ({"seasonal_order": (1, 0, 0, 12)}, "the season is season_length="),
        ({"lags": [0, 1]}, "lags=[0, 1] must be integers of at least 1"),
        ({"model": "autoreg", "lags": 30}, "shorter than the lag 30"),
        ({"lookback": 11}, "shorter than two seasons"),
        ({"future_covariates": ["x"]}, "need model='sarimax'"),
        ({"n_jobs": 0}, "n_jobs=0 is not allowed"),
        ({"theta": 0.5}, "a number of at least 1"),
        ({"model": "arima"}, "Did you mean 'sarimax'"),
    ],
)
def test_what_is_refused(params, words):
    with pytest.raises(InputError) as caught:
        fit(**params)
    assert words in str(caught.value)


def test_gaps_in_regressors_are_refused():
    table = pd.DataFrame({"y": SERIES, "driver": SERIES})
    table.loc[5, "driver"] = np.nan
    with pytest.raises(DataQualityError, match="a future covariate is missing"):
        fit(
            table,
            model="sarimax",
            targets=["y"],
            future_covariates=["driver"],
            missing="mask",
        )


def test_filters_of_warnings_survive_threads():
    before = list(warnings.filters)
    threads = [
        threading.Thread(target=build(model="autoreg").fit, args=(TABLE,))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert warnings.filters == before


# Saving and conformance


@pytest.mark.parametrize("name", ["ets", "sarimax", "theta", "autoreg"])
def test_saved_models_forecast_the_same_bits(name, tmp_path):
    tables = panel_of({"a": TABLE, "b": TABLE * 2})
    model = fit(tables, model=name, max_iter=5)
    model.save(tmp_path / "model")
    loaded = load(tmp_path / "model")
    pd.testing.assert_frame_equal(loaded.predict(), model.predict())
    pd.testing.assert_frame_equal(loaded.parameter_table(), model.parameter_table())


@pytest.mark.parametrize(
    "name",
    [
        "check_missing_values_masked",
        "check_only_context_counts",
        "check_panel",
        "check_units",
    ],
)
@pytest.mark.parametrize("model", ["ets", "sarimax", "theta"])
def test_checks_of_the_other_models(name, model):
    estimator = StatsmodelsForecaster(
        model=model, lookback=12, horizon=3, season_length=6, max_iter=5
    )
    checks_for("forecaster")[name](estimator)


def test_rank_of_the_states_is_seen():
    # A level and all seasons may move against each other: one direction of freedom.
    smoother = ETS("add", "add", False, "add", M, 5)
    rates = smoother._rates(np.array([[0.3, 0.1, 0.2]]))
    effects = smoother._effects(rates, L)[0]
    assert np.linalg.matrix_rank(effects, tol=1e-10) == M + 1 < effects.shape[1]
