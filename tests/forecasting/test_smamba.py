"""S-Mamba through the estimator: published settings and the card's invariants.

Numbers in test names refer to the list of checks in the card, forecasting §8.
"""

import numpy as np
import pandas as pd
import pytest
import torch

from sciseq import LinearForecaster, NaiveForecaster, SMambaForecaster
from sciseq.data.calendar import calendar_features
from sciseq.errors import CapabilityError, InputError
from sciseq.forecasting.future import FutureRows
from sciseq.forecasting.smamba_network import SMambaNetwork

RNG = np.random.default_rng(0)
TABLE = (
    np.sin(np.arange(100)[:, None] * [0.3, 0.5, 0.7]) + RNG.normal(size=(100, 3)) / 3
)
SMALL = {"lookback": 8, "horizon": 3, "d_model": 8, "n_layers": 2, "random_state": 0}


def make(**changes):
    return SMambaForecaster(**(SMALL | {"max_epochs": 2} | changes))


def windows(n, seed=1, n_columns=3):
    return np.random.default_rng(seed).normal(size=(n, SMALL["lookback"], n_columns))


# Published settings: the table of the card, forecasting §2.3, written out again

LONG, SHORT = (96, 192, 336, 720), (12, 24, 48, 96)
CARD = """
ETTh1         | 2          | 256                | 2          | 7e-5, 7e-5, 5e-5, 5e-5 | 32             | 10           | 1
ETTh2         | 2          | 256                | 2          | 4e-5, 4e-5, 3e-5, 7e-5 | 32             | 10           | 1
ETTm1         | 2          | 256, 128, 128, 128 | 2          | 5e-5                   | 32             | 10           | 1
ETTm2         | 2          | 256, 128, 128, 128 | 2          | 5e-5, 5e-5, 3e-5, 5e-5 | 32             | 10           | 1
exchange_rate | 2          | 128                | 32         | 1e-4, 1e-4, 5e-5, 5e-5 | 16, 32, 32, 32 | 10           | 1
weather       | 3          | 512                | 2          | 5e-5                   | 32             | 5            | 1
solar         | 2          | 512                | 32         | 1e-4                   | 32             | 10           | 1
electricity   | 3          | 512                | 16, 32, 32, 32 | 1e-3, 5e-4, 5e-4, 5e-4 | 16         | 5            | 1
traffic       | 4          | 512                | 32         | 1e-3, 1e-3, 2e-3, 8e-4 | 16             | 10           | 1
PEMS03        | 4, 4, 5, 4 | 512                | 32         | 1e-3, 1e-3, 1e-4, 1.5e-3 | 32           | 5, 10, 10, 10 | 1
PEMS04        | 4          | 1024               | 32         | 3e-4                   | 32             | 10           | 0
PEMS07        | 2, 2, 4, 4 | 512                | 32         | 7e-4, 7e-4, 5e-4, 5e-4 | 16, 32, 16, 16 | 10           | 0
PEMS08        | 2, 2, 4, 4 | 512, 512, 256, 256 | 32         | 1e-3, 7e-4, 1e-3, 1e-3 | 32, 32, 16, 16 | 10           | 1
"""  # noqa: E501
FIELDS = (
    "n_layers",
    "d_model",
    "d_state",
    "learning_rate",
    "batch_size",
    "max_epochs",
    "use_norm",
)


def card_rows():
    for line in CARD.strip().splitlines():
        dataset, *cells = (cell.strip() for cell in line.split("|"))
        columns = [[float(value) for value in cell.split(",")] for cell in cells]
        horizons = SHORT if dataset.startswith("PEMS") else LONG
        for place, horizon in enumerate(horizons):
            values = [one[place] if len(one) == 4 else one[0] for one in columns]
            yield pytest.param(dataset, horizon, values, id=f"{dataset}-{horizon}")


@pytest.mark.parametrize(("dataset", "horizon", "values"), list(card_rows()))
def test_published_settings_are_those_of_the_card(dataset, horizon, values):
    model = SMambaForecaster.published(dataset, horizon=horizon)
    assert [getattr(model, name) for name in FIELDS] == values
    assert (model.lookback, model.horizon) == (96, horizon)
    fixed = {"d_conv": 2, "expand": 1, "dropout": 0.1, "patience": 3, "loss": "mse"}
    fixed |= {
        "learning_rate_schedule": "halving",
        "scaler": "standard",
        "targets": None,
    }
    assert {name: getattr(model, name) for name in fixed} == fixed
    assert model.d_ff in (None, model.d_model)
    # The scripts never pass the step, so all sets with dates have the hourly marks.
    has_marks = not dataset.startswith("PEMS") and dataset != "solar"
    hourly = ("hour", "dayofweek", "day", "dayofyear")
    assert model.calendar == (hourly if has_marks else None)
    model._check_parameters()


def test_published_settings_can_be_changed_and_are_limited_to_what_was_published():
    model = SMambaForecaster.published(
        "weather", horizon=720, random_state=3, d_model=64
    )
    assert (model.random_state, model.d_model, model.n_layers) == (3, 64, 3)
    with pytest.raises(InputError, match="horizon 24 was not published"):
        SMambaForecaster.published("ETTh1", horizon=24)
    with pytest.raises(InputError, match="Did you mean 'ETTh1'"):
        SMambaForecaster.published("ETTh11")


@pytest.mark.parametrize(
    ("dataset", "count"),
    [
        ("ETTh1", 1_145_696),
        ("exchange_rate", 348_640),
        ("weather", 6_631_008),
        ("electricity", 6_760_032),
        ("traffic", 9_176_672),
    ],
)
def test_published_networks_have_the_number_of_weights_of_the_card(dataset, count):
    model = SMambaForecaster.published(dataset, horizon=96)
    with torch.device("meta"):
        network = model._make_network()
    assert sum(one.numel() for one in network.parameters()) == count


def test_check_04_initial_values_and_the_number_of_weights():
    # With a vanishing learning rate the weights stay what they were.
    model = make(learning_rate=1e-30, max_epochs=1, d_state=5, n_layers=1).fit(TABLE)
    D = F = D_i = 8
    L, H, k, n, r = 8, 3, 2, 5, 1
    mamba = (
        2 * D * D_i
        + D_i * (k + 1)
        + D_i * (r + 2 * n)
        + r * D_i
        + D_i
        + D_i * n
        + D_i
        + D_i * D
    )
    layer = 2 * mamba + 2 * D * F + D + F + 4 * D
    assert model.n_parameters_ == (L + 1) * D + layer + 2 * D + (D + 1) * H
    for block in (
        model.network_.layers[0].forward_block,
        model.network_.layers[0].backward_block,
    ):
        states = torch.arange(1.0, n + 1).log().expand(D_i, n)
        torch.testing.assert_close(block.A_log, states)
        assert (block.D == 1).all()
        dt = torch.nn.functional.softplus(block.dt_proj.bias)
        assert ((dt >= 1e-3 - 1e-9) & (dt <= 0.1 + 1e-6)).all()
        assert (block.dt_proj.weight.abs() <= r**-0.5).all()


# Invariants


def test_check_05_the_order_of_the_columns_matters():
    model = make(calendar=None, precision="float64").fit(TABLE)
    X = windows(4)
    order = [2, 0, 1]
    assert not np.allclose(
        model.predict(X[..., order]), model.predict(X)[..., order], atol=1e-4
    )
    # Without the two scans every column stands alone, and its place does not matter.
    with torch.no_grad():
        for layer in model.network_.layers:
            layer.forward_block.out_proj.weight.zero_()
            layer.backward_block.out_proj.weight.zero_()
    model.scaler_ = type(model.scaler_).identity(3)
    np.testing.assert_allclose(
        model.predict(X[..., order]), model.predict(X)[..., order], rtol=1e-12
    )


@pytest.mark.parametrize("scaler", [None, "standard"])
def test_check_06_forecasts_move_and_scale_with_their_columns(scaler):
    a, b = np.array([0.5, 20.0, 3.0]), np.array([-5.0, 100.0, 0.0])
    X = windows(20)
    model = make(scaler=scaler, precision="float64", calendar=None).fit(TABLE)
    expected = a * model.predict(X) + b
    np.testing.assert_allclose(model.predict(a * X + b), expected, rtol=1e-4, atol=1e-3)
    plain = make(scaler=scaler, use_norm=False, precision="float64", calendar=None)
    plain.fit(TABLE)
    wrong = plain.predict(a * X + b)
    assert np.abs(wrong - a * plain.predict(X) - b).max() > 1.0


def test_check_06_a_constant_window_goes_on_near_its_constant():
    model = make(calendar=None).fit(TABLE)
    forecast = model.predict(np.full((1, 8, 3), 42.0))
    np.testing.assert_allclose(forecast, 42.0, atol=0.05)


def dated(freq="h", n_rows=100, n_columns=3):
    index = pd.date_range("2024-03-29", periods=n_rows, freq=freq, tz="Europe/Berlin")
    return pd.DataFrame(TABLE[:n_rows, :n_columns], index=index)


@pytest.mark.parametrize(
    ("calendar", "n_marks"),
    [("auto", 4), (None, 0), (["hour"], 1), (["month", "week"], 2)],
)
def test_check_08_marks_are_tokens_beside_the_columns(calendar, n_marks):
    model = make(calendar=calendar, max_epochs=1).fit(dated())
    shapes = []
    model.network_.layers[0].register_forward_hook(
        lambda module, inputs, output: shapes.append(tuple(output.shape[1:]))
    )
    assert model.predict().shape == (3, 3)
    assert set(shapes) == {(3 + n_marks, 8)}
    assert model._n_tokens(3) == 3 + n_marks


def test_check_08_marks_of_the_future_have_no_effect(monkeypatch):
    model = make().fit(dated())
    forecast = model.predict()
    marks = FutureRows.marks

    def scrambled(rows):
        def changed(self, panel, names):
            known = marks(self, panel, names).copy()
            known[:, rows] += 0.3
            return known

        return changed

    monkeypatch.setattr(FutureRows, "marks", scrambled(slice(8, None)))
    pd.testing.assert_frame_equal(model.predict(), forecast)
    monkeypatch.setattr(
        FutureRows, "marks", scrambled(slice(7, 8))
    )  # the last input row
    assert (model.predict() - forecast).abs().max(axis=None) > 1e-6


def test_check_08_training_reads_the_marks_of_its_input_rows(monkeypatch):
    """Each batch holds the calendar of the rows that it holds values of."""
    table = dated()
    table[0] = np.arange(100.0)  # the values of the first column tell the rows
    seen = []

    def watch(network, x, marks=None, observed=None):
        seen.append((x[..., 0].detach().clone(), marks.clone()))
        return forward(network, x, marks, observed)

    forward = SMambaNetwork.forward
    monkeypatch.setattr(SMambaNetwork, "forward", watch)
    make(max_epochs=1, scaler=None).fit(table)
    expected = calendar_features(table.index, ["hour", "dayofweek", "day", "dayofyear"])
    rows = torch.cat([x for x, _ in seen]).round().long()
    found = torch.cat([marks for _, marks in seen])
    kept = rows.sum(dim=1) > 0  # rows that only fill up a pass are zero
    np.testing.assert_array_equal(found[kept], expected[rows[kept]])
    assert len(set(rows[kept][:, 0].tolist())) > 80


@pytest.mark.parametrize("n_columns", [1, 2, 5, 30])
def test_check_12_other_numbers_of_columns(n_columns):
    model = make(variates="any", scaler=None, calendar=None).fit(TABLE)
    table = np.random.default_rng(0).normal(size=(40, n_columns)) + 10
    forecast = model.predict(table)
    assert forecast.shape == (3, n_columns)
    assert np.abs(forecast - 10).max() < 5
    assert np.isfinite(model.score(table))
    with pytest.raises(CapabilityError, match="fitted columns"):
        model.predict_interval(table)


def test_check_12_the_columns_of_fit_are_forecast_as_ever():
    settings = {"scaler": None, "calendar": None}
    fixed, free = (
        make(variates=one, **settings).fit(TABLE) for one in ("fixed", "any")
    )
    np.testing.assert_array_equal(free.predict(), fixed.predict())
    named = pd.DataFrame(windows(1)[0][:, :2], columns=["new", "other"])
    assert list(free.predict(named).columns) == ["new", "other"]
    with pytest.raises(InputError, match="3 features"):
        fixed.predict(TABLE[:, :2])


def test_check_12_any_columns_go_without_targets_and_scaler():
    with pytest.raises(InputError, match="scaler=None"):
        make(variates="any").fit(TABLE)
    for targets in ([0], [1, 0, 2]):
        model = make(variates="any", scaler=None, calendar=None, targets=targets)
        with pytest.raises(CapabilityError, match="every column to be a target"):
            model.fit(TABLE).predict(TABLE)


# Learning


def relay(n_rows, seed=0):
    """Two drivers, and two followers that repeat them eight rows later.

    The next eight rows of a follower are known from its driver, and from nothing else.
    """
    rng, delay = np.random.default_rng(seed), 8
    hour = np.arange(n_rows + delay)
    smooth = np.ones(5) / np.sqrt(5)
    noise = [np.convolve(rng.normal(size=len(hour) + 4), smooth, "valid") for _ in "ab"]
    one = noise[0] + np.sin(2 * np.pi * hour / 24)
    two = noise[1] + np.cos(2 * np.pi * hour / 24)
    columns = [one[delay:], 10 + 3 * one[:-delay], two[delay:], -two[:-delay]]
    return np.stack(columns, axis=1)


def test_it_learns_from_one_series_what_another_will_do():
    table = relay(1000)
    train, test = table[:800], table[800 - 24 :]
    common = {"horizon": 8, "targets": [1, 3]}
    model = SMambaForecaster(
        lookback=24,
        d_model=32,
        n_layers=1,
        dropout=0.0,
        learning_rate=5e-3,
        learning_rate_schedule="cosine",
        max_epochs=8,
        random_state=0,
        **common,
    ).fit(train)
    score = model.score(test)
    naive = NaiveForecaster(**common).fit(train).score(test)
    # The best linear map of a follower's own past misses what its driver knows.
    alone = LinearForecaster(lookback=24, **common).fit(train).score(test)
    assert naive < 0 < alone < 0.45
    assert score > alone + 0.1
    losses = [one["train_loss"] for one in model.history_]
    assert losses[-1] < 0.6 * losses[0]
    # With drivers that say nothing there is no more to know than that.
    spoiled = test.copy()
    spoiled[:, [0, 2]] = np.random.default_rng(1).permutation(test[:, [0, 2]])
    assert model.score(spoiled) < score - 0.2
