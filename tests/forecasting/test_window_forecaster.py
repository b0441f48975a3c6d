"""Regressors on windows: the design matrix written out again, row by row."""

import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, RegressorMixin, clone
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestRegressor
from sklearn.linear_model import Lasso, LinearRegression, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeRegressor

from sciseq import load
from sciseq.errors import CapabilityError, DataQualityError, InputError
from sciseq.forecasting.window_forecaster import WindowForecaster
from sciseq.model_selection import RollingOriginSplit
from sciseq.testing import checks_for

L, H = 5, 3
RNG = np.random.default_rng(0)
TABLE = np.sin(np.arange(70)[:, None] * [0.3, 0.7, 1.1]) + RNG.normal(size=(70, 3)) / 3
PLAIN = {
    "lookback": L,
    "horizon": H,
    "scaler": None,
    "validation_fraction": 0.0,
    "calendar": None,
}


class Recorder(RegressorMixin, BaseEstimator):
    """Keeps what it is fitted on, and forecasts zero."""

    def __init__(self, allow_nan=False, n_outputs=1):
        self.allow_nan = allow_nan
        self.n_outputs = n_outputs

    def fit(self, X, y, sample_weight=None):
        self.X_, self.y_, self.sample_weight_ = X, y, sample_weight
        return self

    def predict(self, X):
        self.seen_ = X
        return np.zeros((len(X), self.n_outputs))

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = self.allow_nan
        tags.target_tags.multi_output = self.n_outputs > 1
        return tags


def recorded(table, step=0, group=0, **params):
    """The recorder of one step after a fit."""
    params = {"regressor": Recorder(), **PLAIN, **params}
    return WindowForecaster(**params).fit(table).regressors_[group][step]


def design(table, step, columns=(0, 1, 2), shift=0):
    """Centred windows and truths of some columns, window by window."""
    X, y = [], []
    for start in range(len(table) - L - H + 1):
        for column in columns:
            window = table[start : start + L, column]
            X.append(window - window.mean())
            y.append(table[start + L + step + shift, column] - window.mean())
    return np.array(X), np.array(y)


# What a regressor is fitted on


@pytest.mark.parametrize("step", range(H))
def test_each_step_has_its_own_fit_on_the_windows_of_all_targets(step):
    X, y = design(TABLE, step)
    model = WindowForecaster(regressor=Ridge(alpha=0.5), **PLAIN).fit(TABLE)
    expected = Ridge(alpha=0.5).fit(X, y)
    fitted = model.regressors_[0][step]
    np.testing.assert_allclose(fitted.coef_, expected.coef_, rtol=1e-10, atol=1e-12)
    window = TABLE[-L:]
    own = (window - window.mean(axis=0)).T
    forecast = expected.predict(own) + window.mean(axis=0)
    np.testing.assert_allclose(model.predict()[step], forecast, rtol=1e-10)
    # One row off, the coefficients are others.
    late = Ridge(alpha=0.5).fit(*design(TABLE, step, shift=-1))
    assert not np.allclose(fitted.coef_, late.coef_, atol=1e-3)


def test_individual_regressors_see_their_target_alone():
    params = {**PLAIN, "individual": True}
    model = WindowForecaster(regressor=LinearRegression(), **params).fit(TABLE)
    for column in range(3):
        expected = LinearRegression().fit(*design(TABLE, 1, (column,)))
        fitted = model.regressors_[column][1]
        np.testing.assert_allclose(fitted.coef_, expected.coef_, atol=1e-10)
        alone = WindowForecaster(regressor=LinearRegression(), **PLAIN)
        alone.fit(TABLE[:, [column]])
        np.testing.assert_allclose(
            model.predict()[:, column], alone.predict()[:, 0], rtol=1e-10
        )


def numbered(n_rows=20):
    """A table in which each value tells its column and row: 102 is row 2 of 'b'."""
    rows = np.arange(float(n_rows))
    frame = pd.DataFrame({name: 100.0 * i + rows for i, name in enumerate("abc")})
    return frame.assign(site=7.0, weight=1.0 + rows)


ROLES = {
    "targets": ["a"],
    "past_covariates": ["b"],
    "future_covariates": ["c"],
    "static_covariates": ["site"],
    "sample_weight": "weight",
}


@pytest.mark.parametrize("step", range(H))
def test_features_in_their_order(step):
    chosen = recorded(numbered(), step, **ROLES, lags_of="all", centre=None, lookback=2)
    # Window 4: rows 4 and 5 of each column, then what is known of the target row.
    ahead = 6 + step
    expected = [4, 5, 104, 105, 204, 205, 7, 200 + ahead]
    np.testing.assert_array_equal(chosen.X_[4], expected)
    assert chosen.y_[4] == ahead
    assert chosen.sample_weight_[4] == 1 + ahead
    model = WindowForecaster(
        **{**PLAIN, "lookback": 2}, **ROLES, lags_of="all", regressor=Recorder()
    ).fit(numbered())
    names = "lag 2,lag 1,b lag 2,b lag 1,c lag 2,c lag 1,site,c".split(",")
    assert model.feature_names_ == [tuple(names)]


def test_own_lags_only_by_default():
    roles = {**ROLES, "past_covariates": None}
    chosen = recorded(numbered(), 1, **roles, centre=None, lookback=2)
    np.testing.assert_array_equal(chosen.X_[4], [4, 5, 7, 207])


def test_several_outputs_see_all_that_is_known():
    roles = {**ROLES, "past_covariates": None}
    chosen = recorded(
        numbered(),
        **roles,
        regressor=Recorder(n_outputs=H),
        strategy="multioutput",
        centre=None,
        lookback=2,
    )
    np.testing.assert_array_equal(chosen.X_[4], [4, 5, 7, 206, 207, 208])
    np.testing.assert_array_equal(chosen.y_[4], [6, 7, 8])
    assert chosen.sample_weight_[4] == 8  # the mean of 7, 8 and 9


@pytest.mark.parametrize("individual", [False, True])
def test_lags_of_all_columns(individual):
    table = numbered()[["a", "b", "c"]]
    chosen = recorded(
        table, group=0, lags_of="all", centre=None, lookback=2, individual=individual
    )
    first = chosen.X_[4 if individual else 12]  # window 4 of target "a"
    every = [4, 5, 104, 105, 204, 205]
    # A shared regressor has each column in one place whatever its target is.
    expected = every if individual else [4, 5, *every]
    np.testing.assert_array_equal(first, expected)
    if not individual:
        np.testing.assert_array_equal(chosen.X_[13], [104, 105, *every])


@pytest.mark.parametrize(("centre", "taken"), [("mean", 4.5), ("last", 5.0)])
def test_the_centre_is_taken_away_and_put_back(centre, taken):
    params = {**PLAIN, "lookback": 2, "centre": centre}
    model = WindowForecaster(regressor=Recorder(), **params).fit(numbered()[["a"]])
    fitted = model.regressors_[0][0]
    np.testing.assert_array_equal(fitted.X_[4], [4 - taken, 5 - taken])
    assert fitted.y_[4] == 6 - taken
    # The recorder forecasts 0: what is left is the centre of the last window.
    np.testing.assert_array_equal(model.predict(), 14 + taken)


def test_the_calendar_is_that_of_the_row_to_forecast():
    table = pd.DataFrame(
        {"a": np.arange(200.0)},
        index=pd.date_range("2024-01-01", periods=200, freq="h"),
    )
    for step in range(H):
        chosen = recorded(table, step, calendar=["hour"], lookback=2)
        hour = (chosen.X_[:, -1] + 0.5) * 23
        np.testing.assert_allclose(
            hour, (np.arange(len(hour)) + 2 + step) % 24, atol=1e-5
        )
    model = WindowForecaster(lookback=2, horizon=H, regressor=Recorder()).fit(table)
    names = ["lag 2", "lag 1", "hour", "dayofweek", "day", "dayofyear"]
    assert list(model.feature_names_[0]) == names
    model.predict()
    last = [chosen.seen_[0, 2] for chosen in model.regressors_[0]]
    np.testing.assert_allclose(
        (np.array(last) + 0.5) * 23, (200 + np.arange(H)) % 24, atol=1e-5
    )


def test_only_the_calendar_can_tell_a_coming_holiday():
    index = pd.date_range("2024-01-01", periods=600, freq="D")
    load_of = np.where(index.day_of_week == 6, 0.0, RNG.normal(10, 0.1, size=600))
    table = pd.DataFrame({"load": load_of}, index=index)
    options = {
        "lookback": 2,
        "horizon": 2,
        "regressor": DecisionTreeRegressor(max_depth=3, random_state=0),
        "centre": None,
    }
    assert WindowForecaster(**options).fit(table[:500]).score(table[500:]) > 0.95
    blind = WindowForecaster(**options, calendar=None).fit(table[:500])
    assert blind.score(table[500:]) < 0.9


# Strategies


def test_outputs_together_equal_direct_fits_of_a_ridge():
    direct = WindowForecaster(regressor=Ridge(), **PLAIN).fit(TABLE)
    together = WindowForecaster(regressor=Ridge(), strategy="multioutput", **PLAIN)
    together.fit(TABLE)
    assert together.regressors_[0][0].coef_.shape == (H, L)
    np.testing.assert_allclose(together.predict(), direct.predict(), rtol=1e-10)


@pytest.mark.parametrize("lags_of", ["own", "all"])
def test_recursion_goes_on_from_its_own_forecasts(lags_of):
    options = {"regressor": Ridge(alpha=0.1), "lags_of": lags_of}
    model = WindowForecaster(strategy="recursive", **options, **PLAIN).fit(TABLE)
    one = WindowForecaster(**options, **{**PLAIN, "horizon": 1})
    # The recursion learns from the same windows as direct fits: those of H rows.
    one.fit(TABLE[: len(TABLE) - H + 1])
    rows = TABLE.copy()
    for _ in range(H):
        rows = np.vstack([rows, one.predict(rows)])
    np.testing.assert_allclose(model.predict(), rows[-H:], rtol=1e-9)
    stale = np.vstack([one.predict(TABLE)] * H)
    assert not np.allclose(model.predict(), stale, atol=1e-3)


def test_recursion_of_a_first_order_law_is_its_power():
    table = 3.0 * 0.8 ** np.arange(40.0)[:, None]
    model = WindowForecaster(
        **{**PLAIN, "lookback": 1, "horizon": 6},
        regressor=LinearRegression(fit_intercept=False),
        strategy="recursive",
        centre=None,
    ).fit(table)
    np.testing.assert_allclose(
        model.predict()[:, 0], 3 * 0.8 ** np.arange(40.0, 46), rtol=1e-9
    )


def test_recursion_reads_future_covariates_in_their_lags():
    rows = np.arange(60.0)
    driver = np.sin(rows)
    level = np.zeros(60)
    for row in range(1, 60):
        level[row] = 0.5 * level[row - 1] + driver[row] + 2 * driver[row - 1]
    table = pd.DataFrame({"level": level, "driver": driver})
    model = WindowForecaster(
        **{**PLAIN, "lookback": 1, "horizon": 4},
        regressor=LinearRegression(),
        strategy="recursive",
        lags_of="all",
        centre=None,
        targets=["level"],
        future_covariates=["driver"],
    ).fit(table[:50])
    known = table.copy()
    known.loc[50:, "level"] = np.nan
    forecast = model.predict(known)
    np.testing.assert_allclose(forecast["level"], level[50:54], atol=1e-10)


def test_recursion_needs_the_future_of_what_it_reads():
    model = WindowForecaster(
        **PLAIN, strategy="recursive", lags_of="all", targets=["a"]
    )
    with pytest.raises(CapabilityError, match="2 past covariates are not forecast"):
        model.fit(numbered()[["a", "b", "c"]])
    model.set_params(lags_of="own").fit(numbered()[["a", "b", "c"]])


# Missing values and weights


def test_regressors_that_allow_nan_get_it():
    table = TABLE.copy()
    table[10, 0] = table[30:33, 1] = np.nan
    options = {"missing": "mask", "centre": None}
    kept = recorded(table, **options, regressor=Recorder(allow_nan=True))
    filled = recorded(table, **options)
    gaps = np.isnan(kept.X_)
    assert gaps.any() and not np.isnan(filled.X_).any()
    np.testing.assert_array_equal(kept.X_[~gaps], filled.X_[~gaps])
    row = int(np.flatnonzero(gaps.sum(axis=1) == 1)[0])
    assert filled.X_[row][gaps[row]] == pytest.approx(np.nanmean(kept.X_[row]))
    # Four truths are missing, and their rows are left out.
    n_windows = len(table) - L - H + 1
    assert len(kept.y_) == 3 * n_windows - 4
    assert np.isfinite(kept.y_).all()


def test_gaps_in_the_last_window():
    table = TABLE.copy()
    table[-2:, 0] = np.nan
    for regressor in (Ridge(), HistGradientBoostingRegressor(max_iter=3)):
        for centre in ("mean", "last", None):
            model = WindowForecaster(
                regressor=regressor, centre=centre, missing="mask", random_state=0
            )
            model.set_params(**PLAIN).fit(table)
            assert np.isfinite(model.predict()).all()


def test_no_truth_at_all_is_refused():
    table = TABLE[:, :1].copy()
    table[L + 1 :] = np.nan
    with pytest.raises(DataQualityError, match="no window has a complete truth"):
        WindowForecaster(**PLAIN, missing="mask").fit(table)


def test_weights_are_those_of_the_truths():
    table = pd.DataFrame(TABLE, columns=list("abc"))
    table["weight"] = RNG.uniform(size=len(table))
    params = {**PLAIN, "sample_weight": "weight", "regressor": Ridge(alpha=0.1)}
    model = WindowForecaster(**params).fit(table)
    n_windows = len(TABLE) - L - H + 1
    for step in range(H):
        weight = table["weight"].to_numpy()[L + step : L + step + n_windows]
        X, y = design(TABLE, step)
        expected = Ridge(alpha=0.1).fit(X, y, sample_weight=np.repeat(weight, 3))
        fitted = model.regressors_[0][step]
        np.testing.assert_allclose(fitted.coef_, expected.coef_, atol=1e-10)
        plain = Ridge(alpha=0.1).fit(X, y)
        assert not np.allclose(fitted.coef_, plain.coef_, atol=1e-3)


def test_old_rows_weigh_less():
    chosen = recorded(TABLE, 2, time_decay=10.0)
    age = np.arange(len(TABLE) - L - H + 1)[::-1]
    np.testing.assert_allclose(chosen.sample_weight_, np.repeat(0.5 ** (age / 10), 3))


def test_weights_need_a_regressor_that_takes_them():
    model = WindowForecaster(**PLAIN, regressor=KNeighborsRegressor(), time_decay=5.0)
    with pytest.raises(CapabilityError, match="KNeighborsRegressor takes no weights"):
        model.fit(TABLE)


def test_fewer_windows_are_spread_evenly():
    chosen = recorded(TABLE[:, :1], max_windows=4)
    every = recorded(TABLE[:, :1])
    places = np.linspace(0, len(every.X_) - 1, 4).round().astype(int)
    np.testing.assert_array_equal(chosen.X_, every.X_[places])


# The regressor as a parameter


def test_nested_parameters():
    model = WindowForecaster(regressor=Ridge(alpha=2.0), **PLAIN)
    assert model.get_params()["regressor__alpha"] == 2.0
    copied = clone(model).set_params(regressor__alpha=5.0)
    assert copied.regressor.alpha == 5.0 and model.regressor.alpha == 2.0
    model.fit(TABLE)
    assert not hasattr(model.regressor, "coef_")
    with pytest.raises(ValueError, match="alpa"):
        model.set_params(regressor__alpa=1.0)
    with pytest.raises(InputError, match="Did you mean 'regressor'"):
        model.set_params(regresor=Ridge())


def test_a_search_over_the_regressor():
    search = GridSearchCV(
        WindowForecaster(regressor=Ridge(), **PLAIN),
        {"regressor__alpha": [1e-3, 1e4]},
        cv=RollingOriginSplit(n_splits=2, test_size=8, context=L),
        error_score="raise",
    )
    assert search.fit(TABLE).best_params_ == {"regressor__alpha": 1e-3}


def test_random_regressors_draw_from_the_seed_alone(no_global_side_effects):
    def forecast(seed, own=None):
        forest = RandomForestRegressor(n_estimators=3, random_state=own)
        model = WindowForecaster(regressor=forest, random_state=seed, **PLAIN)
        return model.fit(TABLE[:40]).predict()

    with no_global_side_effects():
        np.testing.assert_array_equal(forecast(0), forecast(0))
        assert not np.array_equal(forecast(0), forecast(1))
        # A seed of the regressor's own counts more.
        np.testing.assert_array_equal(forecast(0, own=7), forecast(1, own=7))
        forecast(None)


@pytest.mark.parametrize(
    ("params", "error", "words"),
    [
        ({"regressor": Ridge}, InputError, "must be None or a regressor"),
        ({"regressor": StandardScaler()}, InputError, "must be None or a regressor"),
        ({"strategy": "directly"}, InputError, "Did you mean 'direct'"),
        ({"centre": "median"}, InputError, "one of 'mean', 'last'"),
        ({"past_covariates": ["b"]}, InputError, "only with lags_of='all'"),
        (
            {"regressor": Lasso(), "strategy": "multioutput", "lookback": 999},
            InputError,
            "999",
        ),
        (
            {
                "regressor": HistGradientBoostingRegressor(),
                "strategy": "multioutput",
            },
            CapabilityError,
            "has one output",
        ),
    ],
)
def test_what_is_refused(params, error, words):
    with pytest.raises(error, match=re.escape(words)):
        WindowForecaster(**{**PLAIN, **params}).fit(numbered()[["a", "b", "c"]])


# Saving


@pytest.mark.parametrize(
    "regressor",
    [None, Ridge(alpha=0.5), make_pipeline(StandardScaler(), Lasso(alpha=0.01))],
    ids=["default", "ridge", "pipeline"],
)
def test_linear_regressors_are_saved(regressor, tmp_path):
    model = WindowForecaster(regressor=regressor, **PLAIN).fit(TABLE)
    model.save(tmp_path / "model.sciseq")
    loaded = load(tmp_path / "model.sciseq")
    np.testing.assert_array_equal(loaded.predict(), model.predict())
    np.testing.assert_array_equal(loaded.predict(TABLE[:40]), model.predict(TABLE[:40]))
    assert repr(loaded.regressor) == repr(model.regressor)


def test_other_regressors_are_refused_with_the_way_out(tmp_path):
    model = WindowForecaster(regressor=DecisionTreeRegressor(), **PLAIN).fit(TABLE)
    with pytest.raises(CapabilityError, match=r"DecisionTreeRegressor.*joblib.dump"):
        model.save(tmp_path / "model")
    assert not list(tmp_path.iterdir())


# Conformance of what test_conformance.py does not run


@pytest.mark.parametrize(
    "name",
    [
        "check_fit_twice",
        "check_future_cannot_leak",
        "check_horizon_longer_rolls",
        "check_missing_values_masked",
        "check_only_context_counts",
        "check_panel",
        "check_series_are_independent",
        "check_units",
        "check_windows",
        "check_windows_alone_equal_together",
    ],
)
@pytest.mark.parametrize(
    "params",
    [
        {"strategy": "recursive", "lags_of": "all"},
        {"strategy": "multioutput", "individual": True, "centre": "last"},
    ],
    ids=["recursive", "multioutput"],
)
def test_checks_of_the_other_strategies(name, params):
    model = WindowForecaster(lookback=4, horizon=2, calendar=None, **params)
    checks_for("forecaster")[name](model)


def test_neither_torch_nor_statsmodels_is_imported():
    code = (
        "import sys; import sciseq.forecasting.window_forecaster;"
        "import sciseq.forecasting.statsmodels_forecaster;"
        "import sciseq.forecasting.ensemble;"
        "print([m for m in ('torch', 'statsmodels') if m in sys.modules])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "[]"
