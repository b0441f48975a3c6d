"""MambaMixer through the estimator: settings, invariants, side information, learning.

Numbers in test names refer to the list of checks in the card, forecasting §8.
"""

import copy
import pickle

import numpy as np
import pandas as pd
import pytest
import torch

from sciseq.errors import InputError
from sciseq.forecasting.linear import LinearForecaster
from sciseq.forecasting.mambamixer import MambaMixerForecaster

RNG = np.random.default_rng(0)
TABLE = (
    np.sin(np.arange(100)[:, None] * [0.3, 0.5, 0.7]) + RNG.normal(size=(100, 3)) / 3
)
SMALL = {
    "lookback": 8,
    "horizon": 3,
    "d_model": 8,
    "n_layers": 2,
    "patch_length": 4,
    "stride": 2,
    "max_epochs": 1,
    "random_state": 0,
}


def make(**changes):
    return MambaMixerForecaster(**(SMALL | changes))


def windows(n, seed=1, n_columns=3):
    return np.random.default_rng(seed).normal(size=(n, SMALL["lookback"], n_columns))


def dated(n_rows=100):
    index = pd.date_range("2024-03-29", periods=n_rows, freq="h", tz="Europe/Berlin")
    return pd.DataFrame(TABLE[:n_rows], index=index)


# Settings


@pytest.mark.parametrize(
    ("dataset", "expand", "dropout", "batch_size"),
    [
        ("ETTh1", 2, 0.3, 128),
        ("ETTm2", 2, 0.3, 128),
        ("weather", 2, 0.3, 64),
        ("exchange_rate", 2, 0.3, 32),
        ("electricity", 2, 0.2, 8),
        ("traffic", 1, 0.2, 4),
    ],
)
def test_settings_of_the_replication_are_those_of_the_card(
    dataset, expand, dropout, batch_size
):
    model = MambaMixerForecaster.published(dataset, horizon=336)
    found = (model.expand, model.dropout, model.batch_size)
    assert found == (expand, dropout, batch_size)
    fixed = {
        "lookback": 512, "horizon": 336, "d_model": 32, "n_layers": 2, "d_state": 16,
        "d_conv": 4, "patch_length": 16, "stride": 8, "use_norm": True,
        "learning_rate": 1e-4, "weight_decay": 0.01, "learning_rate_schedule": "cosine",
        "calendar": None, "loss": "mse", "scaler": "standard",
    }  # fmt: skip
    assert {name: getattr(model, name) for name in fixed} == fixed
    assert 8 <= model.max_epochs <= 20
    assert 3 <= model.patience <= 5
    model._check_parameters()


def test_published_settings_are_limited_to_what_was_replicated():
    model = MambaMixerForecaster.published("ETTh1", horizon=720, lookback=96)
    assert (model.lookback, model.horizon) == (96, 720)
    with pytest.raises(InputError, match="no settings were published for 'PEMS03'"):
        MambaMixerForecaster.published("PEMS03", horizon=12)
    with pytest.raises(InputError, match="horizon 24 was not published"):
        MambaMixerForecaster.published("ETTh1", horizon=24)


def test_steps_between_patches_are_refused_and_long_patches_cut():
    with pytest.raises(InputError, match="stride=5 must be at most patch_length=4"):
        make(stride=5).fit(TABLE)
    model = make(patch_length=100, stride=1).fit(TABLE)
    assert model.network_.embedding.n_patches == 1
    assert model.network_.embedding.patch_length == 8


def test_check_04_initial_values_and_the_number_of_weights():
    # With a vanishing learning rate the weights stay what they were.
    model = make(learning_rate=1e-30, d_state=5, d_conv=2).fit(TABLE)
    D, E, H, P, J, k, n, r = 8, 2, 3, 4, 3, 2, 5, 1
    mamba = 2 * D * D + D * (k + 1) + D * (r + 2 * n) + r * D + D + D * n + D + D * D
    layers = E * (3 * mamba + 4 * D) + E * (2 * E + 3) + 2 * E + 2
    ends = (P + 1) * D + J * D + 2 * D * J + (D * J + 1) * H
    assert model.n_parameters_ == layers + ends
    for name, one in model.network_.named_parameters():
        if name.endswith("A_log"):
            states = torch.arange(1.0, n + 1).log().expand(D, n)
            torch.testing.assert_close(one, states)
        elif name.endswith("channel_weights"):
            expected = torch.tensor([0.0] + [1.0] * (len(one) - 1))
            torch.testing.assert_close(one, expected, rtol=0, atol=1e-20)
        elif name.endswith("token_weights"):
            assert (one == 1).all()


# Invariants


def test_check_05_the_order_of_the_columns_matters():
    model = make(precision="float64").fit(TABLE)
    model.scaler_ = type(model.scaler_).identity(3)
    X, order = windows(4), [2, 0, 1]
    moved = model.predict(X[..., order])
    assert not np.allclose(moved, model.predict(X)[..., order], atol=1e-6)
    # Without the variate mixers every column stands alone, and its place is nothing.
    with torch.no_grad():
        for layer in model.network_.layers.channel_mixers:
            layer.mixer.forward_block.out_proj.weight.zero_()
            layer.mixer.backward_block.out_proj.weight.zero_()
    np.testing.assert_allclose(
        model.predict(X[..., order]), model.predict(X)[..., order], rtol=1e-12
    )


def test_check_06_forecasts_move_and_scale_with_their_columns():
    a, b = np.array([0.5, 20.0, 3.0]), np.array([-5.0, 100.0, 0.0])
    X = windows(20)
    model = make(precision="float64").fit(TABLE)
    expected = a * model.predict(X) + b
    np.testing.assert_allclose(model.predict(a * X + b), expected, rtol=1e-4, atol=1e-3)
    plain = make(use_norm=False, precision="float64").fit(TABLE)
    wrong = plain.predict(a * X + b)
    assert np.abs(wrong - a * plain.predict(X) - b).max() > 1.0


def test_check_06_a_constant_window_goes_on_near_its_constant():
    forecast = make().fit(TABLE).predict(np.full((1, 8, 3), 42.0))
    np.testing.assert_allclose(forecast, 42.0, atol=0.05)


@pytest.mark.parametrize(
    ("calendar", "n_marks"), [("auto", 4), (["hour"], 1), (None, 0)]
)
def test_check_08_marks_are_variates_beside_the_columns(calendar, n_marks):
    model = make(calendar=calendar).fit(dated())
    shapes = []
    model.network_.layers.register_forward_hook(
        lambda module, inputs, output: shapes.append(tuple(output.shape[1:]))
    )
    assert model.predict().shape == (3, 3)
    assert set(shapes) == {(3 + n_marks, 3, 8)}
    assert make().fit(dated()).calendar_ == ()  # none by default


@pytest.mark.parametrize("n_columns", [1, 2, 5, 30])
def test_check_12_other_numbers_of_columns(n_columns):
    model = make(variates="any", scaler=None).fit(TABLE)
    table = np.random.default_rng(0).normal(size=(40, n_columns)) + 10
    forecast = model.predict(table)
    assert forecast.shape == (3, n_columns)
    assert np.abs(forecast - 10).max() < 5


def test_check_12_copies_and_pickles_forecast_the_same_bits():
    model = make().fit(TABLE)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(other.predict(TABLE), model.predict(TABLE))
    again = make().fit(TABLE)
    np.testing.assert_array_equal(again.predict(TABLE), model.predict(TABLE))
    other = make(random_state=1).fit(TABLE)
    assert np.abs(other.predict(TABLE) - model.predict(TABLE)).max() > 1e-6


def test_a_forecast_does_not_depend_on_its_company():
    model, X = make().fit(TABLE), windows(11)
    together = model.predict(X)
    for place in (0, 4, 10):
        np.testing.assert_array_equal(
            model.predict(X[place : place + 1])[0], together[place]
        )


# Roles of columns


def promoted(n_rows=400, seed=0):
    """Noise whose level of the hour is announced by a column known ahead."""
    rng = np.random.default_rng(seed)
    index = pd.date_range("2026-01-01", periods=n_rows, freq="h")
    plan = rng.normal(size=n_rows)
    columns = {"load": 5 + 3 * plan + rng.normal(size=n_rows), "plan": plan}
    return pd.DataFrame(columns, index=index)


def test_a_plan_known_ahead_is_used():
    table, horizon = promoted(), 4
    common = {"horizon": horizon, "patch_length": 8, "stride": 8, "n_layers": 1}
    model = make(
        future_covariates=["plan"],
        learning_rate=2e-2,
        learning_rate_schedule="cosine",
        max_epochs=8,
        dropout=0.0,
        **common,
    ).fit(table.iloc[:340])
    ahead = table.iloc[300:340].copy()
    ahead.loc[ahead.index[-horizon:], "load"] = np.nan
    forecast = model.predict(ahead)
    assert list(forecast.index) == list(ahead.index[-horizon:])
    assert list(forecast.columns) == ["load"]
    other = ahead.copy()
    other.loc[other.index[-horizon:], "plan"] *= -1
    assert (model.predict(other) - forecast).abs().max(axis=None) > 1e-2
    # The past of the load says nothing, nor does that of the plan.
    blind = make(targets=["load"], **common).fit(table.iloc[:340])
    assert blind.score(table.iloc[330:]) < 0.1
    assert model.score(table.iloc[330:]) > 0.3


def test_a_constant_of_the_series_is_used():
    series = {}
    for number, kind in enumerate((0.0, 1.0, 0.0, 1.0)):
        rng = np.random.default_rng(number)
        series[f"s{number}"] = pd.DataFrame(
            {"y": rng.normal(size=60), "kind": np.full(60, kind)},
            index=pd.date_range("2026-01-01", periods=60, freq="h"),
        )
    panel = pd.concat(series, names=["series", "time"])
    model = make(static_covariates=["kind"]).fit(panel)
    forecast = model.predict()
    assert list(forecast.columns) == ["y"]
    changed = panel.copy()
    changed["kind"] = 1.0 - changed["kind"]
    assert (model.predict(changed) - forecast).abs().max(axis=None) > 1e-6
    assert model.network_.embedding.n_patches == (2 * 8 - 4) // 2 + 1


def test_quantiles_are_learnt_together():
    model = make(loss="quantile", quantiles=(0.1, 0.5, 0.9), max_epochs=3).fit(TABLE)
    assert model.network_.head.out_features == 9
    assert model.predict().shape == (3, 3)
    quantiles = model.predict_quantiles(TABLE, quantiles=[0.1, 0.9])
    assert all(np.isfinite(one).all() for one in quantiles.values())


def test_missing_values_are_masked():
    table = TABLE.copy()
    table[[20, 21, 95], [0, 0, 2]] = np.nan
    forecast = make(missing="mask").fit(table).predict()
    assert np.isfinite(forecast).all()


# Learning


def relay(n_rows, seed=0):
    """Two drivers, and two followers that repeat them four rows later.

    The next four rows of a follower are known from its driver, and from nothing else.
    """
    rng, delay = np.random.default_rng(seed), 4
    hour = np.arange(n_rows + delay)
    smooth = np.ones(3) / np.sqrt(3)
    noise = [np.convolve(rng.normal(size=len(hour) + 2), smooth, "valid") for _ in "ab"]
    one = noise[0] + np.sin(2 * np.pi * hour / 24)
    two = noise[1] + np.cos(2 * np.pi * hour / 24)
    columns = [one[delay:], 10 + 3 * one[:-delay], two[delay:], -two[:-delay]]
    return np.stack(columns, axis=1)


def test_it_learns_from_one_series_what_another_will_do():
    table = relay(700)
    train, test = table[:560], table[560 - 12 :]
    common = {"lookback": 12, "horizon": 4, "targets": [1, 3]}
    model = make(
        d_model=16,
        d_state=4,
        n_layers=1,
        dropout=0.0,
        learning_rate=2e-2,
        learning_rate_schedule="cosine",
        max_epochs=9,
        **common,
    ).fit(train)
    score = model.score(test)
    # The best linear map of a follower's own past misses what its driver knows.
    alone = LinearForecaster(**common).fit(train).score(test)
    assert score > max(alone, 0.0) + 0.25
    losses = [one["train_loss"] for one in model.history_]
    assert losses[-1] < 0.6 * losses[0]
    # With drivers that say nothing there is no more to know than that.
    spoiled = test.copy()
    spoiled[:, [0, 2]] = np.random.default_rng(1).permutation(test[:, [0, 2]])
    assert model.score(spoiled) < score - 0.2
