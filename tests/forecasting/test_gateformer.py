"""Gateformer through the estimator: published settings, gates, the card's invariants.

Numbers in test names refer to the list of checks in the card, forecasting §8.
"""

import copy

import numpy as np
import pandas as pd
import pytest
import torch

from sciseq.errors import CapabilityError, InputError
from sciseq.errors import NotFittedError as Unfitted
from sciseq.forecasting.gateformer import GateformerForecaster
from sciseq.forecasting.linear import LinearForecaster

RNG = np.random.default_rng(0)
TABLE = (
    np.sin(np.arange(100)[:, None] * [0.3, 0.5, 0.7]) + RNG.normal(size=(100, 3)) / 3
)
SMALL = {
    "lookback": 12,
    "horizon": 3,
    "d_model": 8,
    "patch_length": 4,
    "stride": 4,
    "random_state": 0,
}
GATES = ["gate 1", "gate 2"]


def make(**changes):
    return GateformerForecaster(**(SMALL | {"max_epochs": 2} | changes))


def windows(n, seed=1, n_columns=3):
    return np.random.default_rng(seed).normal(size=(n, SMALL["lookback"], n_columns))


def force(gate, bias):
    with torch.no_grad():
        for linear in (gate.W1, gate.W2):
            linear.weight.zero_()
            linear.bias.fill_(bias)


def dated(n_rows=100):
    index = pd.date_range("2024-03-29", periods=n_rows, freq="h")
    return pd.DataFrame(TABLE[:n_rows], index=index, columns=["a", "b", "c"])


# Published settings: the table of the card, forecasting §3.2, written out again

LONG, PEMS = (96, 192, 336, 720), (3, 6, 12, 24)
CARD = """
ETTh1         | 1,2,2,2 | 64,64,128,64    | =D                | 4 | 1e-4, 5e-4, 5e-4, 5e-4
ETTh2         | 2,1,2,1 | 128,64,64,128   | =D                | 4 | 5e-4, 5e-4, 1e-4, 1e-4
ETTm1         | 1       | 64,128,128,64   | =D                | 4 | 5e-4, 5e-4, 1e-4, 5e-4
ETTm2         | 1,1,2,2 | 64              | 64                | 4 | 5e-4, 1e-4, 5e-4, 5e-4
exchange_rate | 1,1,1,2 | 64,64,64,128    | =D                | 4 | 1e-4, 1e-3, 1e-4, 1e-3
weather       | 2       | 512,512,256,256 | 1024,1024,256,512 | 8 | 1e-4, 1e-4, 5e-4, 1e-4
solar         | 3,2,2,2 | 512             | 512               | 8 | 1e-4
electricity   | 2,4,2,2 | 512             | 512,1024,1024,1024 | 8 | 5e-4
traffic       | 2,2,3,3 | 512             | 1024,1024,1024,512 | 8 | 5e-4
PEMS03        | 2       | 512             | 512               | 8 | 5e-4
PEMS04        | 2       | 512             | 512               | 8 | 5e-4
PEMS07        | 2       | 512             | 512               | 8 | 5e-4
PEMS08        | 2       | 512             | 512               | 8 | 5e-4
"""  # noqa: E501


def card_rows():
    for line in CARD.strip().splitlines():
        dataset, *cells = (cell.strip() for cell in line.split("|"))
        cells[2] = cells[1] if cells[2] == "=D" else cells[2]
        columns = [[float(value) for value in cell.split(",")] for cell in cells]
        horizons = PEMS if dataset.startswith("PEMS") else LONG
        for place, horizon in enumerate(horizons):
            values = [one[place] if len(one) == 4 else one[0] for one in columns]
            yield pytest.param(dataset, horizon, values, id=f"{dataset}-{horizon}")


@pytest.mark.parametrize(("dataset", "horizon", "values"), list(card_rows()))
def test_published_settings_are_those_of_the_card(dataset, horizon, values):
    model = GateformerForecaster.published(dataset, horizon=horizon)
    d_ff = model.d_model if model.d_ff is None else model.d_ff
    found = [model.n_layers, model.d_model, d_ff, model.n_heads, model.learning_rate]
    assert found == values
    fixed = {
        "lookback": 96,
        "horizon": horizon,
        "patch_length": 8,
        "stride": 8,
        "dropout": 0.1,
        "batch_size": 8,
        "max_epochs": 10,
        "patience": 3,
        "loss": "mse",
        "learning_rate_schedule": "halving",
        "weight_decay": 0.0,
        "scaler": "standard",
        "use_norm": True,
        "calendar": None,
    }
    assert {name: getattr(model, name) for name in fixed} == fixed
    model._check_parameters()


def test_published_settings_can_be_changed_and_are_limited():
    model = GateformerForecaster.published("weather", random_state=3, batch_size=32)
    assert (model.random_state, model.batch_size, model.d_ff) == (3, 32, 1024)
    with pytest.raises(InputError, match="horizon 24 was not published"):
        GateformerForecaster.published("ETTh1", horizon=24)
    with pytest.raises(InputError, match="Did you mean 'ETTh1'"):
        GateformerForecaster.published("ETTh11")


@pytest.mark.parametrize(
    ("dataset", "count"),
    [("ETTh1", 133_344), ("electricity", 10_873_952), ("weather", 12_973_152)],
)
def test_published_networks_have_the_number_of_weights_of_the_card(dataset, count):
    model = GateformerForecaster.published(dataset, horizon=96)
    with torch.device("meta"):
        network = model._make_network()
    assert sum(one.numel() for one in network.parameters()) == count


# Invariants


def test_check_05_the_order_of_the_columns_does_not_matter():
    model = make(precision="float64", scaler=None).fit(TABLE)
    X, order = windows(4), [2, 0, 1]
    forecast = model.predict(X)
    np.testing.assert_allclose(
        model.predict(X[..., order]), forecast[..., order], rtol=1e-10, atol=1e-12
    )
    changed = X.copy()
    changed[..., 0] = X[::-1, :, 0]  # the other columns do see it
    assert np.abs(model.predict(changed) - forecast)[..., 1:].min() > 1e-9


@pytest.mark.parametrize("scaler", [None, "standard"])
def test_check_06_forecasts_move_and_scale_with_their_columns(scaler):
    a, b = np.array([0.5, 20.0, 3.0]), np.array([-5.0, 100.0, 0.0])
    X = windows(20)
    model = make(scaler=scaler, precision="float64").fit(TABLE)
    expected = a * model.predict(X) + b
    np.testing.assert_allclose(model.predict(a * X + b), expected, rtol=1e-4, atol=1e-3)
    plain = make(scaler=scaler, use_norm=False, precision="float64").fit(TABLE)
    wrong = plain.predict(a * X + b)
    assert np.abs(wrong - a * plain.predict(X) - b).max() > 1.0


def test_check_06_a_constant_window_goes_on_near_its_constant():
    forecast = make().fit(TABLE).predict(np.full((1, 12, 3), 42.0))
    np.testing.assert_allclose(forecast, 42.0, atol=0.05)


def test_check_07_with_gate_2_at_one_each_column_stands_alone():
    model = make().fit(TABLE)
    X = windows(4)
    changed = X.copy()
    changed[..., 0] = X[::-1, :, 0]

    def others():
        return np.abs(model.predict(changed) - model.predict(X))[..., 1:].max()

    assert others() > 1e-6
    force(model.network_.gate2, 1e3)
    assert others() == 0
    assert model.gate_values()["gate 2"].eq(1).all()


def test_check_07_with_gate_1_at_one_the_patches_do_not_count():
    model = make().fit(TABLE)
    force(model.network_.gate1, 1e3)
    forecast = model.predict()
    with torch.no_grad():
        model.network_.temporal.linear.weight.mul_(5)
    np.testing.assert_array_equal(model.predict(), forecast)
    force(model.network_.gate1, 0.0)
    assert np.abs(model.predict() - forecast).max() > 1e-6


@pytest.mark.parametrize("n_columns", [1, 2, 5, 30])
def test_check_12_other_numbers_of_columns(n_columns):
    model = make(variates="any", scaler=None).fit(TABLE)
    table = np.random.default_rng(0).normal(size=(40, n_columns)) + 10
    forecast = model.predict(table)
    assert forecast.shape == (3, n_columns)
    assert np.abs(forecast - 10).max() < 5
    assert len(model.gate_values(table)) == n_columns


def test_the_first_epoch_starts_with_equal_layers():
    # With a vanishing learning rate the weights stay what they were.
    model = make(n_layers=3, learning_rate=1e-30, max_epochs=1).fit(TABLE)
    for encoder in (model.network_.encoder, model.network_.temporal.encoder):
        first, *others = encoder.layers
        for other in others:
            for one, same in zip(first.parameters(), other.parameters(), strict=True):
                torch.testing.assert_close(one, same, rtol=0, atol=1e-20)
    trained = make(n_layers=3, learning_rate=1e-2).fit(TABLE).network_.encoder.layers
    assert not torch.equal(trained[0].norm1.weight, trained[1].norm1.weight)


# Parameters


def test_parameters_that_do_not_fit_are_named_together():
    with pytest.raises(InputError, match=r"(?s)multiple of n_heads=3.*is not read"):
        make(n_heads=3, calendar="auto").fit(TABLE)


def test_patches_are_cut_to_the_lookback():
    model = make(lookback=3, patch_length=8).fit(TABLE)
    assert model.network_.temporal.patches.patch_length == 3


# Gates


def test_gate_values_are_means_of_those_of_the_network():
    model = make().fit(dated())
    gates = model.gate_values()
    assert list(gates.columns) == GATES
    assert list(gates.index) == ["a", "b", "c"]
    x = model.scaler_.transform(TABLE[-12:])
    both = model.network_.gate_values(torch.tensor(x[None], dtype=torch.float32))
    want = [one.detach().mean(dim=(0, 2)).numpy() for one in both]
    np.testing.assert_allclose(gates.to_numpy().T, want, rtol=1e-5)
    assert ((gates > 0) & (gates < 1)).all(axis=None)


def test_gate_values_of_a_table_are_means_over_its_windows():
    model = make().fit(dated())
    X = dated(30)
    ready = np.stack([X.to_numpy()[i : i + 12] for i in range(30 - 12 - 3 + 1)])
    want = np.mean([model.gate_values(ready[i : i + 1]) for i in range(len(ready))], 0)
    np.testing.assert_allclose(model.gate_values(X), want, rtol=1e-5)
    np.testing.assert_allclose(model.gate_values(ready), want, rtol=1e-5)
    # One window alone is not the mean.
    assert np.abs(model.gate_values(ready[:1]) - want).max(axis=None) > 1e-4
    model.network_ = copy.deepcopy(model.network_)
    force(model.network_.gate1, np.log(3) / 2)
    np.testing.assert_allclose(model.gate_values(X)["gate 1"], 0.75, rtol=1e-6)


def test_gate_values_of_a_panel_are_per_series():
    frame = dated(60)
    panel = pd.concat({"north": frame, "south": 3 * frame[::-1].set_index(frame.index)})
    model = make().fit(panel)
    for X in (None, panel):
        gates = model.gate_values(X)
        assert gates.index.names == ["series", "variate"]
        assert list(gates.index[:4]) == [
            ("north", "a"), ("north", "b"), ("north", "c"), ("south", "a"),
        ]  # fmt: skip
        assert (gates.loc["north"] - gates.loc["south"]).abs().max(axis=None) > 1e-5
    # Each series by itself, with its scale, has the same values.
    alone = make().set_params(scaler=None)
    alone.fit(panel)
    both = alone.gate_values(panel)
    one = alone.gate_values(panel.loc[["south"]])
    np.testing.assert_allclose(both.loc["south"], one, rtol=1e-5)


def test_gate_values_with_gaps_and_covariates():
    frame = dated().assign(site=2.0)
    frame.iloc[40:43, 0] = np.nan
    model = make(
        targets=["a"],
        past_covariates=["b"],
        future_covariates=["c", "hour"],
        static_covariates=["site"],
        missing="mask",
    ).fit(frame)
    gates = model.gate_values(frame)
    assert list(gates.index) == ["a", "b", "c"]
    assert gates.notna().all(axis=None)


def test_gate_values_before_fit():
    with pytest.raises(Unfitted):
        make().gate_values()


# Covariates and learning


def test_future_and_static_covariates_reach_the_forecast():
    frame = dated().assign(site=1.0)
    model = make(targets=["a"], future_covariates=["c"], static_covariates="site")
    frame.loc[frame.index[-3:], ["a", "b"]] = np.nan
    model.fit(frame[:-3])
    forecast = model.predict(frame)
    other = frame.copy()
    other.loc[other.index[-3:], "c"] += 5
    assert np.abs(model.predict(other) - forecast).max(axis=None) > 1e-6
    assert model.network_.covariates.n_tokens == 2
    with pytest.raises(CapabilityError):
        model.predict(frame, horizon=4)


def relay(n_rows, seed=0):
    """A driver, and a follower that repeats it eight rows later."""
    rng, delay = np.random.default_rng(seed), 8
    noise = np.convolve(
        rng.normal(size=n_rows + delay + 4), np.ones(5) / 5**0.5, "valid"
    )
    one = noise + np.sin(2 * np.pi * np.arange(n_rows + delay) / 24)
    return np.stack([one[delay:], 10 + 3 * one[:-delay]], axis=1)


def test_it_learns_from_one_series_what_another_will_do():
    table = relay(1000)
    train, test = table[:800], table[800 - 24 :]
    common = {"lookback": 24, "horizon": 8, "targets": [1]}
    model = GateformerForecaster(
        d_model=32,
        dropout=0.0,
        learning_rate=5e-3,
        learning_rate_schedule="cosine",
        max_epochs=8,
        random_state=0,
        **common,
    ).fit(train)
    score = model.score(test)
    alone = LinearForecaster(**common).fit(train).score(test)
    assert score > alone + 0.2
    # Without what the second gate lets in, it does not know.
    force(model.network_.gate2, 1e3)
    assert model.score(test) < score - 0.2


def test_gates_read_gaps_in_what_is_known_as_the_forecast_does():
    rows = np.sin(np.arange(80.0)[:, None] / [3.0, 5.0])
    rows[30:33, 1] = np.nan
    model = GateformerForecaster(
        lookback=8,
        horizon=4,
        d_model=8,
        n_heads=2,
        max_epochs=1,
        random_state=0,
        targets=[0],
        future_covariates=[1],
        missing="mask",
    ).fit(rows)
    assert np.isfinite(model.gate_values(rows)).all(axis=None)
