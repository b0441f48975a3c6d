"""AR-Net as a forecaster: every setting against equations written out."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from scipy.signal import lfilter

from sciseq.errors import DataQualityError, InputError, SciSeqWarning
from sciseq.forecasting.arnet import ALPHAS, ARNetForecaster, stpe

L, H = 5, 3
RNG = np.random.default_rng(0)
TABLE = np.sin(np.arange(120)[:, None] * [0.3, 0.7, 1.1]) + RNG.normal(size=(120, 3))
PLAIN = {"lookback": L, "horizon": H, "scaler": None, "validation_fraction": 0.0}
STRATEGIES = ["direct", "recursive"]


def simulate(weights, n_rows, seed=0):
    noise = np.random.default_rng(seed).normal(size=n_rows + 500)
    return lfilter([1.0], np.concatenate([[1.0], -np.asarray(weights)]), noise)[500:]


def windows(column, steps):
    """Lags (n, L), newest first, and truths (n, steps)."""
    rows = sliding_window_view(column, L + steps)
    return rows[:, :L][:, ::-1], rows[:, L:]


def regress(X, y, weight=None):
    """Constant and weights of least squares."""
    rows = np.hstack([np.ones((len(X), 1)), X])
    root = np.ones(len(X)) if weight is None else np.sqrt(weight)
    return np.linalg.lstsq(rows * root[:, None], y * root, rcond=None)[0]


def steps_of(strategy):
    return H if strategy == "direct" else 1


def expected_maps(columns, strategy):
    """Constants and weights (S, 1 + L) of the pooled equations of some columns."""
    S = steps_of(strategy)
    X, Y = zip(*(windows(column, S) for column in columns), strict=True)
    X, Y = np.concatenate(X), np.concatenate(Y)
    return np.stack([regress(X, Y[:, h]) for h in range(S)])


def roll(maps, window, strategy):
    """Forecast (H,) from the last rows of a column."""
    rows = list(window)
    for h in range(H):
        one = maps[h] if strategy == "direct" else maps[0]
        past = window if strategy == "direct" else np.array(rows)
        rows.append(one[0] + one[1:] @ past[::-1][:L])
    return np.array(rows[len(window) :])


def check_maps(model, group, maps):
    np.testing.assert_allclose(model.coef_[group], maps[:, 1:], rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(
        model.intercept_[group], maps[:, 0], rtol=1e-8, atol=1e-10
    )


# Least squares


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_one_map_for_all_columns(strategy):
    model = ARNetForecaster(**PLAIN, strategy=strategy).fit(TABLE)
    maps = expected_maps(TABLE.T, strategy)
    assert model.coef_.shape == (1, steps_of(strategy), L)
    check_maps(model, 0, maps)
    expected = [roll(maps, column[-L:], strategy) for column in TABLE.T]
    np.testing.assert_allclose(model.predict(), np.transpose(expected), rtol=1e-9)
    assert model.solver_ == "cholesky"
    wrong = expected_maps(TABLE.T[:1], strategy)
    assert not np.allclose(model.coef_[0], wrong[:, 1:], rtol=1e-3)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_map_for_each_target(strategy):
    settings = PLAIN | {"strategy": strategy, "individual": True}
    model = ARNetForecaster(**settings, targets=[2, 0]).fit(TABLE)
    assert model.coef_.shape[0] == 2
    for group, column in enumerate((2, 0)):
        maps = expected_maps(TABLE.T[[column]], strategy)
        check_maps(model, group, maps)
        np.testing.assert_allclose(
            model.predict()[:, group], roll(maps, TABLE[-L:, column], strategy)
        )


def test_recursion_is_that_of_statsmodels():
    from statsmodels.tsa.ar_model import AutoReg

    x = 20 + 3 * simulate([0.5, 0.2], 400)
    other = AutoReg(x, L, trend="c").fit()
    for scaler in (None, "standard"):
        model = ARNetForecaster(**PLAIN | {"scaler": scaler}, strategy="recursive")
        model.fit(x[:, None])
        np.testing.assert_allclose(model.coef_[0, 0], other.params[1:], atol=1e-9)
        forecast = other.forecast(H)
        np.testing.assert_allclose(model.predict()[:, 0], forecast, rtol=1e-9)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_panel_is_one_fit_over_all_series(strategy):
    series = [TABLE[:50, :1], TABLE[:31, 1:2], TABLE[10:30, 2:]]
    model = ARNetForecaster(**PLAIN, strategy=strategy).fit(series)
    maps = expected_maps([one[:, 0] for one in series], strategy)
    check_maps(model, 0, maps)
    for forecast, one in zip(model.predict(), series, strict=True):
        np.testing.assert_allclose(forecast[:, 0], roll(maps, one[-L:, 0], strategy))
    # Windows across the border of two series would be other equations.
    joined = expected_maps([np.concatenate(series)[:, 0]], strategy)
    assert not np.allclose(model.coef_[0], joined[:, 1:], rtol=1e-6)


def test_ready_made_windows_give_the_same_direct_map():
    view = sliding_window_view(TABLE, L + H, axis=0)  # (n, C, L + H)
    X = np.ascontiguousarray(np.swapaxes(view[..., :L], 1, 2))
    y = np.ascontiguousarray(np.swapaxes(view[..., L:], 1, 2))
    model = ARNetForecaster(**PLAIN).fit(X, y)
    table = ARNetForecaster(**PLAIN).fit(TABLE)
    np.testing.assert_allclose(model.coef_, table.coef_, rtol=1e-9)
    np.testing.assert_allclose(
        model.predict(X[-1:])[0], table.predict(TABLE[-H - L : -H])
    )


def test_validation_rows_are_not_learnt_from():
    model = ARNetForecaster(**PLAIN | {"validation_fraction": 0.25}).fit(TABLE)
    np.testing.assert_array_equal(
        model.coef_, ARNetForecaster(**PLAIN).fit(TABLE[:90]).coef_
    )
    again = ARNetForecaster(
        **PLAIN | {"validation_fraction": 0.25, "refit_on_all": True}
    ).fit(TABLE)
    np.testing.assert_array_equal(
        again.coef_, ARNetForecaster(**PLAIN).fit(TABLE).coef_
    )


# Missing values and weights


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_equations_with_missing_values_are_left_out(strategy):
    table = TABLE.copy()
    table[[20, 21, 70], 0] = table[55:60, 2] = np.nan
    settings = PLAIN | {"missing": "mask", "strategy": strategy}
    model = ARNetForecaster(**settings).fit(table)
    S = steps_of(strategy)
    X, Y = zip(*(windows(column, S) for column in table.T), strict=True)
    rows = np.hstack([np.concatenate(X), np.concatenate(Y)])
    rows = rows[~np.isnan(rows).any(axis=1)]
    maps = np.stack([regress(rows[:, :L], rows[:, L + h]) for h in range(S)])
    check_maps(model, 0, maps)
    filled = pd.DataFrame(table).interpolate().to_numpy()
    other = ARNetForecaster(**settings).fit(filled)
    assert not np.allclose(model.coef_, other.coef_, rtol=1e-3)


def test_a_window_with_gaps_is_interpolated():
    model = ARNetForecaster(**PLAIN, missing="mask").fit(TABLE)
    window = TABLE[:L].copy()
    window[[0, 2, 3], 0] = window[4, 1] = np.nan
    filled = window.copy()
    filled[0, 0] = window[1, 0]
    filled[2:4, 0] = np.interp([2, 3], [1, 4], window[[1, 4], 0])
    filled[4, 1] = window[3, 1]
    np.testing.assert_allclose(model.predict(window), model.predict(filled))


def test_no_complete_window_is_refused():
    table = TABLE[:, :1].copy()
    table[::4] = np.nan
    with pytest.raises(DataQualityError, match="without missing values"):
        ARNetForecaster(**PLAIN, missing="mask").fit(table)


def weighted_maps(table, weight, strategy):
    S = steps_of(strategy)
    maps = []
    for h in range(S):
        X, Y = zip(*(windows(column, S) for column in table.T), strict=True)
        share = np.tile(sliding_window_view(weight[L:], S)[:, h], len(X))
        maps.append(regress(np.concatenate(X), np.concatenate(Y)[:, h], share))
    return np.stack(maps)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_each_truth_has_its_weight(strategy):
    weight = RNG.uniform(size=len(TABLE))
    weight[30:50] = 0.0
    table = np.hstack([TABLE, weight[:, None]])
    settings = PLAIN | {"strategy": strategy, "sample_weight": 3}
    model = ARNetForecaster(**settings).fit(table)
    check_maps(model, 0, weighted_maps(TABLE, weight, strategy))
    plain = ARNetForecaster(**PLAIN, strategy=strategy).fit(TABLE)
    assert not np.allclose(model.coef_, plain.coef_, rtol=1e-3)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_older_rows_count_less(strategy):
    settings = PLAIN | {"strategy": strategy, "time_decay": 15.0}
    model = ARNetForecaster(**settings).fit(TABLE)
    weight = 0.5 ** (np.arange(len(TABLE))[::-1] / 15)
    check_maps(model, 0, weighted_maps(TABLE, weight, strategy))


# Covariates


def with_covariates(n_rows=150, n_series=1):
    """Tables of two targets that follow a known column, its level set by the series."""
    rng = np.random.default_rng(5)
    tables = []
    for series in range(n_series):
        known, noise = rng.normal(size=n_rows), rng.normal(size=(n_rows, 2))
        y = lfilter([1.0], [1.0, -0.6], noise + known[:, None] + 2.0 * series, axis=0)
        static = np.full(n_rows, float(series))
        tables.append(np.column_stack([y, known, static]))
    return tables


def covariate_maps(tables, strategy, *, static, weights=None):
    S = steps_of(strategy)
    maps = []
    for h in range(S):
        X, y, share = [], [], []
        for number, table in enumerate(tables):
            for column in (0, 1):
                lags, truth = windows(table[:, column], S)
                beside = sliding_window_view(table[L:, 2], S)[:, [h]]
                parts = [lags, beside]
                if static:
                    parts.append(np.full((len(lags), 1), table[0, 3]))
                X.append(np.hstack(parts))
                y.append(truth[:, h])
                if weights is not None:
                    share.append(sliding_window_view(weights[number][L:], S)[:, h])
        joined = None if weights is None else np.concatenate(share)
        maps.append(regress(np.concatenate(X), np.concatenate(y), joined))
    return np.stack(maps)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_known_values_enter_at_the_row_that_is_forecast(strategy):
    table = with_covariates()[0][:, :3]
    settings = PLAIN | {"strategy": strategy, "future_covariates": 2}
    model = ARNetForecaster(**settings).fit(table[:-H])
    maps = covariate_maps([table[:-H]], strategy, static=False)
    check_maps(model, 0, maps[:, : L + 1])
    np.testing.assert_allclose(
        model.covariate_coef_[0], maps[:, L + 1 :], rtol=1e-8, atol=1e-10
    )
    ahead = table.copy()
    ahead[-H:, :2] = np.nan
    forecast = model.predict(ahead)
    for column in (0, 1):
        rows = list(table[:-H, column])
        for h in range(H):
            one = maps[h] if strategy == "direct" else maps[0]
            past = table[-H - L : -H, column] if strategy == "direct" else rows[-L:]
            rows.append(
                one[0] + one[1 : L + 1] @ past[::-1] + one[-1] * table[-H + h, 2]
            )
        np.testing.assert_allclose(forecast[:, column], rows[-H:], rtol=1e-9)
    ahead[-1, 2] += 10
    other = model.predict(ahead)
    np.testing.assert_array_equal(other[:-1], forecast[:-1])
    assert (other[-1] > forecast[-1] + 5).all()


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("weighted", [False, True])
def test_known_and_static_values_over_a_panel(strategy, weighted):
    tables = with_covariates(60, 3)
    settings = PLAIN | {
        "strategy": strategy,
        "future_covariates": 2,
        "static_covariates": 3,
    }
    weights = None
    if weighted:
        weights = [0.5 ** (np.arange(60)[::-1] / 20)] * 3
        settings["time_decay"] = 20.0
    model = ARNetForecaster(**settings).fit(tables)
    maps = covariate_maps(tables, strategy, static=True, weights=weights)
    check_maps(model, 0, maps[:, : L + 1])
    np.testing.assert_allclose(
        model.covariate_coef_[0], maps[:, L + 1 :], rtol=1e-8, atol=1e-10
    )
    assert model.covariate_coef_[0, 0, 1] > 1  # the level of the series


def test_weights_that_differ_by_step_and_known_values_together():
    table = with_covariates(80)[0][:, :3]
    weight = np.random.default_rng(6).uniform(size=80)
    settings = PLAIN | {"future_covariates": 2, "sample_weight": 3}
    model = ARNetForecaster(**settings).fit(np.column_stack([table, weight]))
    maps = covariate_maps([table], "direct", static=False, weights=[weight])
    check_maps(model, 0, maps[:, : L + 1])


def test_calendar_features_are_known_ahead():
    index = pd.date_range("2026-01-01", periods=400, freq="h")
    hour = np.sin(2 * np.pi * np.arange(400) / 24)
    noise = np.random.default_rng(7).normal(size=400)
    frame = pd.DataFrame({"load": 3 * (index.hour == 7) + hour + noise / 9}, index)
    settings = {"lookback": 4, "horizon": 24, "validation_fraction": 0.0}
    plain = ARNetForecaster(**settings).fit(frame[:300])
    model = ARNetForecaster(**settings, future_covariates=["hour"]).fit(frame[:300])
    assert model.covariate_coef_.shape[2] == model._n_known > 0
    assert model.score(frame[296:]) > plain.score(frame[296:])


# What is taken away from windows


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("centre", ["mean", "last"])
def test_centred_forecasts_move_with_their_window(strategy, centre):
    settings = PLAIN | {"strategy": strategy, "alpha": 0.1}
    model = ARNetForecaster(**settings, centre=centre).fit(TABLE)
    np.testing.assert_allclose(model.coef_.sum(axis=2), 1.0, rtol=1e-12)
    window = TABLE[:L]
    np.testing.assert_allclose(
        model.predict(window + 100.0), model.predict(window) + 100.0, rtol=1e-10
    )
    assert not model.is_stable()
    plain = ARNetForecaster(**settings).fit(TABLE)
    assert not np.allclose(plain.predict(window + 100), plain.predict(window) + 100)


@pytest.mark.parametrize("centre", ["mean", "last"])
@pytest.mark.parametrize("alpha", [0.0, 0.3])
def test_centred_maps_are_ridge_on_centred_windows(centre, alpha):
    model = ARNetForecaster(**PLAIN, centre=centre, alpha=alpha).fit(TABLE)
    X, Y = zip(*(windows(column, H) for column in TABLE.T), strict=True)
    X, Y = np.concatenate(X), np.concatenate(Y)
    level = X[:, :1] if centre == "last" else X.mean(axis=1, keepdims=True)
    Z = X - level  # newest first; with "last", its first column is zero
    Z, Y = Z - Z.mean(axis=0), Y - level
    system = Z.T @ Z + (alpha * len(Z) + 1e-9) * np.eye(L)
    u = np.linalg.solve(system, Z.T @ (Y - Y.mean(axis=0))).T  # (H, L)
    expected = u + (1 - u.sum(axis=1, keepdims=True)) * (
        np.eye(L)[0] if centre == "last" else np.full(L, 1 / L)
    )
    np.testing.assert_allclose(model.coef_[0], expected, atol=1e-8)


def test_a_long_ridge_leaves_what_was_taken_away():
    window = TABLE[:L]
    for centre, level in (("last", window[-1]), ("mean", window.mean(axis=0))):
        model = ARNetForecaster(**PLAIN, centre=centre, alpha=1e9).fit(TABLE)
        drift = model.intercept_[0][:, None]
        np.testing.assert_allclose(model.predict(window), level + drift, atol=1e-6)


# Choices


def test_choices_are_the_best_on_the_validation_tail():
    settings = PLAIN | {"validation_fraction": 0.25, "horizon": 2}
    walk = TABLE.cumsum(axis=0)
    for strategy in STRATEGIES:
        kept = settings | {"strategy": strategy}
        errors = {}
        for alpha in ALPHAS:
            for centre in ("none", "mean", "last"):
                model = ARNetForecaster(**kept, alpha=alpha, centre=centre).fit(walk)
                tail = model._evaluation_panel(walk[90 - L :])
                squares = [
                    (truth - forecast) ** 2
                    for _, truth, forecast in model._evaluate_panel(tail)
                ]
                errors[alpha, centre] = np.mean(np.concatenate(squares))
        model = ARNetForecaster(**kept, alpha="auto", centre="auto").fit(walk)
        assert (model.alpha_, model.centre_) == min(errors, key=errors.get)
        again = ARNetForecaster(
            **kept, alpha="auto", centre="auto", refit_on_all=True
        ).fit(walk)
        assert (again.alpha_, again.centre_) == (model.alpha_, model.centre_)
        assert not np.allclose(again.coef_, model.coef_)


def test_without_validation_choices_are_fixed():
    model = ARNetForecaster(**PLAIN, alpha="auto", centre="auto").fit(TABLE)
    assert (model.alpha_, model.centre_) == (1e-3, "none")


# Sparsity, Yule–Walker, batches


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_sparse_fits_find_the_true_lags(strategy):
    x = 50 + 4 * simulate([0.0, 0.6, 0.0, -0.3], 4000)
    settings = PLAIN | {"lookback": 40, "strategy": strategy}
    dense = ARNetForecaster(**settings).fit(x[:, None])
    model = ARNetForecaster(**settings, sparsity=0.05).fit(x[:, None])
    assert set(np.flatnonzero(model.coef_[0, 0]) + 1) == {2, 4}
    np.testing.assert_allclose(model.coef_[0, 0, [1, 3]], [0.6, -0.3], atol=0.04)
    true = [0.0, 0.6, 0.0, -0.3]
    assert stpe(model.coef_[0, 0], true) < 5 < stpe(dense.coef_[0, 0], true)
    assert model.solver_ == "cholesky, coordinate descent"
    # The penalty is set by the data, not by their units.
    for a, b in ((1e-3, 0.0), (1e4, -7.0)):
        other = ARNetForecaster(**settings, sparsity=0.05).fit(a * x[:, None] + b)
        np.testing.assert_allclose(other.coef_, model.coef_, atol=1e-6)
    none = ARNetForecaster(**settings, sparsity=1.0).fit(x[:, None])
    np.testing.assert_array_equal(none.coef_, dense.coef_)


def test_sparse_differences_repeat_the_last_value_of_a_random_walk():
    walk = np.random.default_rng(9).normal(size=(3000, 1)).cumsum(axis=0)
    settings = PLAIN | {"lookback": 20, "sparsity": 0.1}
    model = ARNetForecaster(**settings, centre="last").fit(walk)
    expected = np.zeros((H, 20))
    expected[:, 0] = 1
    np.testing.assert_array_equal(model.coef_[0], expected)


def test_levinson_as_a_solver():
    x = 7 + simulate([0.5, 0.2], 5000)[:, None]
    for strategy in STRATEGIES:
        settings = PLAIN | {"strategy": strategy}
        model = ARNetForecaster(**settings, solver="levinson").fit(x)
        exact = ARNetForecaster(**settings).fit(x)
        np.testing.assert_allclose(model.coef_, exact.coef_, atol=5e-3)
        np.testing.assert_allclose(model.predict(), exact.predict(), atol=0.02)
        assert not np.allclose(model.coef_, exact.coef_, atol=1e-8)
        assert model.solver_ == "levinson"
        sparse = ARNetForecaster(**settings, solver="levinson", sparsity=0.3).fit(x)
        assert 0 < (sparse.coef_ == 0).sum() < sparse.coef_.size


def test_batches_as_a_solver():
    x = 7 + simulate([0.5, 0.2], 2000)[:, None]
    settings = PLAIN | {"solver": "sgd", "max_epochs": 3}
    exact = ARNetForecaster(**PLAIN).fit(x)
    for strategy in STRATEGIES:
        kept = settings | {"strategy": strategy}
        model = ARNetForecaster(**kept, random_state=0).fit(x)
        S = steps_of(strategy)
        np.testing.assert_allclose(model.coef_, exact.coef_[:, :S], atol=5e-3)
        again = ARNetForecaster(**kept, random_state=0).fit(x)
        np.testing.assert_array_equal(again.coef_, model.coef_)
        other = ARNetForecaster(**kept, random_state=1).fit(x)
        assert not np.array_equal(other.coef_, model.coef_)
        assert model.solver_ == "cholesky, adam"
    sparse = ARNetForecaster(**settings, sparsity=0.01, random_state=0).fit(x)
    small = np.abs(exact.coef_) < 0.05
    assert np.abs(sparse.coef_[small]).sum() < 0.7 * np.abs(exact.coef_[small]).sum()


# Ill conditions


def test_what_the_data_do_not_determine_is_said():
    wave = np.sin(np.arange(200.0) / 3)[:, None]
    with pytest.warns(SciSeqWarning, match="determine only 2 of 5 weights"):
        model = ARNetForecaster(**PLAIN).fit(wave)
    assert model.solver_ == "least norm"
    expected = np.sin(np.arange(200.0, 200 + H) / 3)
    np.testing.assert_allclose(model.predict()[:, 0], expected, atol=1e-8)


def test_orthogonal_factors_are_said_and_refinement_is_silent():
    noise = simulate([0.2, 0.3, -0.5], 2000)
    slope = np.arange(2000.0)
    model = ARNetForecaster(**PLAIN).fit((slope + noise)[:, None])
    assert model.solver_ == "refined"
    with pytest.warns(SciSeqWarning, match="nearly collinear"):
        model = ARNetForecaster(**PLAIN).fit((1e8 * slope + noise)[:, None])
    assert model.solver_ == "qr"
    ridge = ARNetForecaster(**PLAIN | {"scaler": "standard"}, alpha=1e-6)
    assert ridge.fit((1e8 * slope + noise)[:, None]).solver_ == "refined"


# Coefficients


def test_coefficients_as_a_table():
    frame = pd.DataFrame(TABLE, columns=["a", "b", ("c", 1)])
    direct = ARNetForecaster(**PLAIN, individual=True, targets=["b", ("c", 1)])
    table = direct.fit(frame).coefficients()
    assert table.index.tolist() == [1, 2, 3, 4, 5]
    assert table.index.name == "lag"
    assert table.columns.names == ["target", "step"]
    assert table.columns.tolist() == [
        (name, step) for name in ("b", ("c", 1)) for step in (1, 2, 3)
    ]
    np.testing.assert_array_equal(table["b", 2], direct.coef_[0, 1])
    np.testing.assert_array_equal(table[("c", 1), 3], direct.coef_[1, 2])
    recursive = ARNetForecaster(**PLAIN, strategy="recursive").fit(TABLE)
    table = recursive.coefficients()
    assert table.columns.tolist() == ["shared"]
    np.testing.assert_array_equal(table["shared"], recursive.coef_[0, 0])
    own = ARNetForecaster(**PLAIN, strategy="recursive", individual=True).fit(TABLE)
    assert own.coefficients().columns.tolist() == [0, 1, 2]


def test_the_first_lag_is_the_newest_row():
    x = simulate([0.9], 3000)[:, None]
    coefficients = ARNetForecaster(**PLAIN).fit(x).coefficients()["shared"]
    assert coefficients.loc[1, 1] > 0.8
    assert coefficients.loc[2:, 1].abs().max() < 0.1


def test_stability():
    settings = PLAIN | {"strategy": "recursive"}
    calm = ARNetForecaster(**settings).fit(simulate([0.5, 0.3], 500)[:, None])
    assert calm.is_stable()
    assert calm.roots().shape == (1, L)
    assert np.abs(calm.roots()).max() < 1
    growing = np.exp(np.arange(100.0) / 30)[:, None]
    growing += 0.01 * np.random.default_rng(1).normal(size=growing.shape)
    wild = ARNetForecaster(**settings).fit(growing)
    assert not wild.is_stable()
    assert np.abs(wild.roots()).max() > 1


# Parameters and imports


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"centre": "last", "lookback": 1}, "at least 2"),
        ({"centre": "mean", "sparsity": 0.5}, "no sparse form"),
        ({"solver": "levinson", "centre": "last"}, "needs centre='none'"),
        ({"solver": "levinson", "time_decay": 3.0}, "cannot use time_decay"),
        ({"solver": "levinson", "future_covariates": 1}, "cannot use future"),
        ({"solver": "old"}, "'ols', 'levinson', 'sgd'"),
        ({"sparsity": 0.0}, "sparsity=0.0 is not allowed"),
        ({"strategy": "recursiv"}, "Did you mean 'recursive'"),
    ],
)
def test_parameters_that_do_not_fit(settings, message):
    with pytest.raises(InputError, match=message):
        ARNetForecaster(**PLAIN | settings).fit(TABLE)


def test_torch_is_never_imported():
    code = (
        "import sys, numpy as np\n"
        "from sciseq.forecasting.arnet import ARNetForecaster\n"
        "x = np.random.default_rng(0).normal(size=(99, 1))\n"
        "for options in ({}, {'sparsity': 0.5}, {'solver': 'levinson'},\n"
        "                {'solver': 'sgd', 'sparsity': 0.5}):\n"
        "    ARNetForecaster(lookback=4, horizon=2, **options).fit(x).predict()\n"
        "sys.exit('torch' in sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
