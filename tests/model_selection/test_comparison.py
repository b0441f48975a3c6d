"""compare: the same windows for all, the ranking, and the paired test."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import sciseq
from sciseq.errors import InputError, InputTypeError
from sciseq.model_selection import backtest, compare, diebold_mariano
from sciseq.model_selection.paired_test import holm_adjusted


@pytest.fixture(scope="module")
def macro() -> pd.DataFrame:
    return sciseq.load_dataset("macrodata")[["infl", "unemp", "tbilrate"]]


def linear(**parameters):
    defaults = {"lookback": 8, "horizon": 3, "alpha": 0.1, "validation_fraction": 0.2}
    return sciseq.LinearForecaster(**defaults | parameters)


def seasonal(**parameters):
    return sciseq.NaiveForecaster(strategy="seasonal", horizon=3, **parameters)


def last_value(**parameters):
    return sciseq.NaiveForecaster(**{"horizon": 3, **parameters})


# --- The test ------------------------------------------------------------------------


def direct(losses, others, h):
    """The formulas of both papers, term by term."""
    d = [a - b for a, b in zip(losses, others, strict=True)]
    n = len(d)
    mean = sum(d) / n
    gamma = [
        sum((d[t] - mean) * (d[t - k] - mean) for t in range(k, n)) / n
        for k in range(h)
    ]
    dm = mean / ((gamma[0] + 2 * sum(gamma[1:])) / n) ** 0.5
    s = ((n + 1 - 2 * h + h * (h - 1) / n) / n) ** 0.5 * dm
    return s, 2 * (1 - stats.t.cdf(abs(s), n - 1))


@pytest.mark.parametrize("h", [1, 2, 5])
def test_equals_the_formulas_of_the_papers(h) -> None:
    rng = np.random.default_rng(h)
    noise = np.convolve(rng.normal(size=84), np.ones(h), "valid")[:80]
    losses, others = noise + 0.4, rng.normal(size=80)
    found = diebold_mariano(losses, others, lags=h - 1)
    np.testing.assert_allclose(found, direct(losses, others, h), rtol=1e-9)
    turned = diebold_mariano(others, losses, lags=h - 1)
    assert turned.statistic == pytest.approx(-found.statistic)
    assert turned.p_value == pytest.approx(found.p_value)


def test_without_lags_it_is_the_t_test_of_pairs() -> None:
    rng = np.random.default_rng(0)
    losses, others = rng.normal(size=(2, 30)) + np.array([[0.3], [0.0]])
    found = diebold_mariano(losses, others, lags=0)
    expected = stats.ttest_rel(losses, others)
    assert found.statistic == pytest.approx(expected.statistic)
    assert found.p_value == pytest.approx(expected.pvalue)


def test_special_cases_of_the_test() -> None:
    rng = np.random.default_rng(1)
    same = rng.normal(size=20)
    assert diebold_mariano(same, same, lags=2) == (0.0, 1.0)
    statistic, p_value = diebold_mariano(np.ones(20), np.zeros(20), lags=2)
    assert (statistic, p_value) == (np.inf, 0.0)
    assert np.isnan(diebold_mariano(same, -same, lags=19)).all()
    # Alternating differences: the plain sum of autocovariances is negative.
    swing = np.tile([1.0, -1.0], 20) + 0.01
    assert 0 < diebold_mariano(swing, np.zeros(40), lags=1).p_value <= 1
    gaps = np.where(np.arange(20) < 3, np.nan, same)
    assert diebold_mariano(gaps, -same, lags=1) == diebold_mariano(
        same[3:], -same[3:], lags=1
    )
    with pytest.raises(InputError, match=r"shapes \(20,\) and \(19,\)"):
        diebold_mariano(same, same[1:], lags=0)
    with pytest.raises(InputError, match="lags=-1"):
        diebold_mariano(same, same, lags=-1)


def rejections(h, n, lags, n_simulations=3000, seed=0):
    """Share of tests below 5 % when both forecasts lose the same on average."""
    rng = np.random.default_rng(seed)
    # Differences of forecasts of h steps are a moving average of h terms.
    noise = rng.normal(size=(n_simulations, n + h - 1))
    windows = np.lib.stride_tricks.sliding_window_view(noise, h, axis=1)
    differences = windows.mean(axis=2)
    return np.mean(
        [diebold_mariano(d, np.zeros(n), lags=lags).p_value < 0.05 for d in differences]
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("h", "n", "allowed"), [(1, 30, 0.012), (4, 200, 0.02), (12, 800, 0.025)]
)
def test_size_by_simulation(h, n, allowed) -> None:
    assert rejections(h, n, lags=h - 1) == pytest.approx(0.05, abs=allowed)
    if h > 1:
        # Without the lags equal forecasts are called different far too often.
        assert rejections(h, n, lags=0, n_simulations=500) > 0.2


def test_holm_steps_down() -> None:
    p = np.array([0.01, np.nan, 0.04, 0.03, 0.005])
    np.testing.assert_allclose(holm_adjusted(p), [0.03, np.nan, 0.06, 0.06, 0.02])
    assert holm_adjusted([0.6, 0.7]).tolist() == [1.0, 1.0]
    # Never below the plain p-value, never above Bonferroni, in the same order.
    rng = np.random.default_rng(2)
    p = rng.random(9) ** 3
    adjusted = holm_adjusted(p)
    assert (adjusted >= p).all()
    assert (adjusted <= np.minimum(9 * p, 1.0) + 1e-15).all()
    assert (np.diff(adjusted[np.argsort(p)]) >= 0).all()


# --- The comparison ------------------------------------------------------------------


def test_each_model_is_backtested_on_the_same_windows(macro) -> None:
    models = {"linear": linear(), "season": seasonal(), "last": last_value()}
    result = compare(models, macro, metric="mae", test_size=60, coverage=0.8)
    assert list(result.backtests) == list(models)
    for name, model in models.items():
        # Eight rows of context, the longest look-back among them.
        alone = backtest(model, macro, test_size=60, context=8, coverage=0.8)
        pd.testing.assert_frame_equal(result.backtests[name].forecasts, alone.forecasts)
        row = result.table.loc[name]
        assert row[list(alone.metrics)].to_dict() == alone.metrics.iloc[0].to_dict()
    table = result.table
    assert table["mae"].is_monotonic_increasing
    assert table["rank"].tolist() == [1, 2, 3]
    assert (table["difference"] == table["mae"] - table["mae"].min()).all()
    assert result.best == table.index[0]
    best = result.backtests[result.best].per_window["mae"]
    others = [name for name in table.index if name != result.best]
    for name in others:
        expected = diebold_mariano(
            result.backtests[name].per_window["mae"], best, lags=2
        )
        row = table.loc[name]
        assert (row["statistic"], row["p_value"]) == pytest.approx(expected)
    np.testing.assert_allclose(
        table.loc[others, "p_adjusted"], holm_adjusted(table.loc[others, "p_value"])
    )
    assert table.loc[result.best, ["statistic", "p_value", "p_adjusted"]].isna().all()


def test_late_series_give_all_models_the_same_windows() -> None:
    rng = np.random.default_rng(0)
    late = pd.DataFrame(rng.normal(size=(60, 1)), index=range(80, 140))
    early = pd.DataFrame(rng.normal(size=(140, 1)))
    panel = pd.concat({"early": early, "late": late}, names=["series", "time"])
    models = [last_value(lookback=1), last_value(lookback=25)]
    result = compare(models, panel, test_size=40, metrics="mae")
    indices = [one.per_window.index for one in result.backtests.values()]
    pd.testing.assert_index_equal(*indices)
    assert list(result.backtests) == ["NaiveForecaster-1", "NaiveForecaster-2"]
    assert (result.table["rank"] == 1).all()
    # Without a common context they would differ.
    counts = [
        backtest(one, panel, test_size=40, context=context).n_windows
        for one, context in zip(models, (1, 25), strict=True)
    ]
    assert counts[0] > counts[1]


def test_lags_follow_the_stride(macro) -> None:
    models = {"one": last_value(), "two": seasonal()}
    for stride, lags in ((1, 2), (2, 1), (3, 0)):
        result = compare(models, macro, test_size=60, stride=stride, metrics="mse")
        worst = result.table.index[1]
        pairs = [
            result.backtests[name].per_window["mse"] for name in result.table.index
        ]
        expected = diebold_mariano(*pairs[::-1], lags=lags)
        assert result.table.loc[worst, "p_value"] == pytest.approx(expected.p_value)


def test_losses_of_a_panel_are_averaged_over_its_series(panel) -> None:
    models = {"one": last_value(), "two": seasonal()}
    result = compare(models, panel, test_size=90, metrics="mase")
    losses = [
        result.backtests[name].per_window["mase"].groupby(level="origin").mean()
        for name in result.table.index
    ]
    assert len(losses[0]) == 90 - 3 + 1
    expected = diebold_mariano(*losses[::-1], lags=2)
    assert result.table["p_value"].iloc[1] == pytest.approx(expected.p_value)


def test_ranking_by_metrics_of_quantiles(macro) -> None:
    models = {"linear": linear(), "last": last_value()}
    for metric in ("crps", "interval_score_0.9", "rmse"):
        result = compare(
            models,
            macro,
            metric=metric,
            test_size=40,
            quantiles=[0.1, 0.5, 0.9],
            coverage=[0.8, 0.9],
            keep_forecasts=False,
        )
        loss = "mse" if metric == "rmse" else metric
        pairs = [
            result.backtests[name].per_window[loss] for name in result.table.index[::-1]
        ]
        expected = diebold_mariano(*pairs, lags=2)
        assert result.table["p_value"].iloc[1] == pytest.approx(expected.p_value)
        assert f"by {metric}, 38 windows" in repr(result)


def test_equal_models_are_not_told_apart(macro) -> None:
    result = compare({"a": linear(), "b": linear()}, macro, test_size=30)
    assert result.table["p_value"].iloc[1] == 1.0
    assert result.table["rank"].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("models", "options", "message"),
    [
        ([last_value()], {}, "1 models cannot be compared"),
        ([last_value(), last_value(horizon=2)], {}, "different horizons"),
        ([last_value(), seasonal()], {"metric": "r2"}, "it does not rank"),
        ([last_value(), seasonal()], {"metric": "coverage_0.9"}, "does not rank"),
        ([last_value(), seasonal()], {"metric": "maes"}, "Did you mean 'mae"),
        ([last_value(), seasonal()], {"metric": "crps"}, "none are asked for"),
        ([last_value(), seasonal()], {"context": 3}, "4 rows, context is 3"),
    ],
)
def test_what_is_refused(macro, models, options, message) -> None:
    with pytest.raises(InputError, match=message):
        compare(models, macro, test_size=20, **options)


def test_other_objects_and_arguments_are_refused(macro) -> None:
    with pytest.raises(InputTypeError, match="dict is not one"):
        compare([last_value(), {}], macro)
    with pytest.raises(TypeError, match="tets_size"):
        compare([last_value(), seasonal()], macro, tets_size=20)
    # Another horizon for all is fine.
    models = [last_value(), last_value(horizon=2)]
    assert compare(models, macro, horizon=4, n_origins=5).table.shape[0] == 2


def test_comparing_leaves_global_state_alone(macro, no_global_side_effects) -> None:
    with no_global_side_effects():
        compare([last_value(), seasonal()], macro, n_origins=5)
