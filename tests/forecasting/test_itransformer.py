"""iTransformer through the estimator, plain and gated: settings and invariants.

Numbers in test names refer to the list of checks in the card, forecasting §8.
"""

import numpy as np
import pandas as pd
import pytest
import torch

from sciseq.errors import CapabilityError, InputError
from sciseq.errors import NotFittedError as Unfitted
from sciseq.forecasting.future import FutureRows
from sciseq.forecasting.itransformer import ITransformerForecaster
from sciseq.forecasting.linear import LinearForecaster

RNG = np.random.default_rng(0)
TABLE = (
    np.sin(np.arange(100)[:, None] * [0.3, 0.5, 0.7]) + RNG.normal(size=(100, 3)) / 3
)
SMALL = {
    "lookback": 12,
    "horizon": 3,
    "d_model": 8,
    "n_layers": 1,
    "patch_length": 4,
    "stride": 4,
    "random_state": 0,
}
BOTH = pytest.mark.parametrize("gated", [False, True], ids=["plain", "gated"])


def make(**changes):
    return ITransformerForecaster(**(SMALL | {"max_epochs": 2} | changes))


def windows(n, seed=1, n_columns=3):
    return np.random.default_rng(seed).normal(size=(n, SMALL["lookback"], n_columns))


def force(gate, bias):
    with torch.no_grad():
        for linear in (gate.W1, gate.W2):
            linear.weight.zero_()
            linear.bias.fill_(bias)


def dated(n_rows=100):
    index = pd.date_range("2024-03-29", periods=n_rows, freq="h", tz="Europe/Berlin")
    return pd.DataFrame(TABLE[:n_rows], index=index, columns=["a", "b", "c"])


# Published settings: the list of the card, forecasting §6, written out again

LONG, SHORT = (96, 192, 336, 720), (12, 24, 48, 96)
CARD = """
ETTh1         | 2       | 256,256,512,512 | 1e-4                | 32          | 10        | 1
ETTh2         | 2       | 128             | 1e-4                | 32          | 10        | 1
ETTm1         | 2       | 128             | 1e-4                | 32          | 10        | 1
ETTm2         | 2       | 128             | 1e-4                | 32          | 10        | 1
exchange_rate | 2       | 128             | 1e-4                | 32          | 10,10,1,10 | 1
weather       | 3       | 512             | 1e-4                | 32          | 10        | 1
solar         | 2       | 512             | 5e-4                | 32          | 10        | 1
electricity   | 3       | 512             | 5e-4                | 16          | 10        | 1
traffic       | 4       | 512             | 1e-3                | 16          | 10        | 1
PEMS03        | 4       | 512             | 1e-3                | 32          | 10        | 1
PEMS04        | 4       | 1024            | 5e-4                | 32          | 10        | 0
PEMS07        | 2,2,4,4 | 512             | 1e-3                | 32,32,16,16 | 10        | 0
PEMS08        | 2,2,4,4 | 512             | 1e-4,1e-4,1e-3,1e-3 | 32,32,16,16 | 10        | 1,1,0,0
"""  # noqa: E501
FIELDS = (
    "n_layers", "d_model", "learning_rate", "batch_size", "max_epochs", "use_norm",
)  # fmt: skip


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
    model = ITransformerForecaster.published(dataset, horizon=horizon)
    assert [getattr(model, name) for name in FIELDS] == values
    fixed = {
        "lookback": 96,
        "horizon": horizon,
        "n_heads": 8,
        "gated": False,
        "dropout": 0.1,
        "patience": 3,
        "loss": "mse",
        "learning_rate_schedule": "halving",
        "weight_decay": 0.0,
        "scaler": "standard",
    }
    assert {name: getattr(model, name) for name in fixed} == fixed
    assert model.d_ff in (None, model.d_model)
    has_marks = not dataset.startswith("PEMS") and dataset != "solar"
    hourly = ("hour", "dayofweek", "day", "dayofyear")
    assert model.calendar == (hourly if has_marks else None)
    model._check_parameters()


def test_published_settings_can_be_changed_and_are_limited():
    model = ITransformerForecaster.published("ETTh1", horizon=336, gated=True)
    assert (model.gated, model.d_model) == (True, 512)
    with pytest.raises(InputError, match="horizon 24 was not published"):
        ITransformerForecaster.published("ETTh1", horizon=24)


def count(d, n_layers, lookback=96, horizon=96):
    layer = 4 * (d * d + d) + 2 * (d * d + d) + 4 * d
    return lookback * d + d + n_layers * layer + 2 * d + d * horizon + horizon


@BOTH
def test_number_of_weights(gated):
    model = ITransformerForecaster.published("ETTh1", gated=gated)
    with torch.device("meta"):
        network = model._make_network()
    d, n_patches = 256, 13
    want = count(d, 2)
    if gated:  # patches, an encoder of as many layers, flattening, four maps of gates
        encoder = count(d, 2) - count(d, 0)
        want += 8 * d + encoder + n_patches * d * d + d + 4 * (d * d + d)
    assert sum(one.numel() for one in network.parameters()) == want


# Invariants


@BOTH
def test_check_05_the_order_of_the_columns_does_not_matter(gated):
    model = make(precision="float64", scaler=None, gated=gated, calendar=None)
    model.fit(TABLE)
    X, order = windows(4), [2, 0, 1]
    forecast = model.predict(X)
    np.testing.assert_allclose(
        model.predict(X[..., order]), forecast[..., order], rtol=1e-10, atol=1e-12
    )
    changed = X.copy()
    changed[..., 0] = X[::-1, :, 0]  # the other columns do see it
    assert np.abs(model.predict(changed) - forecast)[..., 1:].min() > 1e-9


@BOTH
def test_check_06_forecasts_move_and_scale_with_their_columns(gated):
    a, b = np.array([0.5, 20.0, 3.0]), np.array([-5.0, 100.0, 0.0])
    X = windows(20)
    settings = {"precision": "float64", "calendar": None, "gated": gated}
    model = make(**settings).fit(TABLE)
    expected = a * model.predict(X) + b
    np.testing.assert_allclose(model.predict(a * X + b), expected, rtol=1e-4, atol=1e-3)
    plain = make(use_norm=False, **settings).fit(TABLE)
    wrong = plain.predict(a * X + b)
    assert np.abs(wrong - a * plain.predict(X) - b).max() > 1.0


@BOTH
def test_check_06_a_constant_window_goes_on_near_its_constant(gated):
    model = make(calendar=None, gated=gated).fit(TABLE)
    forecast = model.predict(np.full((1, 12, 3), 42.0))
    np.testing.assert_allclose(forecast, 42.0, atol=0.05)


def test_check_07_gates_leave_the_host_as_it_is_or_shut_it_out():
    gated = make(gated=True).fit(dated())
    plain = make().fit(dated())
    own = gated.network_.state_dict()
    plain.network_.load_state_dict(
        {name: own[name] for name in plain.network_.state_dict()}
    )
    force(gated.network_.gate1, 1e3)
    force(gated.network_.gate2, -1e3)
    pd.testing.assert_frame_equal(gated.predict(), plain.predict())
    force(gated.network_.gate2, 1e3)
    assert (gated.predict() - plain.predict()).abs().max(axis=None) > 1e-3


@BOTH
@pytest.mark.parametrize(
    ("calendar", "n_marks"), [("auto", 4), (None, 0), (["month", "week"], 2)]
)
def test_check_08_marks_are_tokens_beside_the_columns(gated, calendar, n_marks):
    model = make(calendar=calendar, max_epochs=1, gated=gated).fit(dated())
    shapes = []
    model.network_.encoder.register_forward_hook(
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

    monkeypatch.setattr(FutureRows, "marks", scrambled(slice(12, None)))
    pd.testing.assert_frame_equal(model.predict(), forecast)
    monkeypatch.setattr(FutureRows, "marks", scrambled(slice(11, 12)))  # last input row
    assert (model.predict() - forecast).abs().max(axis=None) > 1e-6


@BOTH
@pytest.mark.parametrize("n_columns", [1, 2, 30])
def test_check_12_other_numbers_of_columns(gated, n_columns):
    model = make(variates="any", scaler=None, calendar=None, gated=gated).fit(TABLE)
    table = np.random.default_rng(0).normal(size=(40, n_columns)) + 10
    forecast = model.predict(table)
    assert forecast.shape == (3, n_columns)
    assert np.abs(forecast - 10).max() < 5


# Gates, parameters, covariates


def test_gate_values_read_the_calendar_too():
    model = make(gated=True).fit(dated())
    gates = model.gate_values()
    assert list(gates.index) == ["a", "b", "c"]
    x = torch.tensor(model.scaler_.transform(TABLE[-12:])[None], dtype=torch.float32)
    rows = FutureRows.after(model.context_, model.step_, 3)
    marks = torch.tensor(rows.marks(model.context_, model.calendar_)[:, :12])
    for read, is_right in ((marks, True), (marks.flip(1), False)):
        both = model.network_.gate_values(x, read)
        want = np.stack([one.detach().mean(dim=(0, 2)).numpy() for one in both], 1)
        assert np.allclose(gates, want, rtol=1e-5) == is_right


def test_the_plain_form_has_no_gates():
    with pytest.raises(Unfitted):
        make().gate_values()
    with pytest.raises(CapabilityError, match="gated=True"):
        make(max_epochs=1).fit(TABLE).gate_values()


def test_heads_must_divide_the_width():
    with pytest.raises(InputError, match="d_model=8 must be a multiple of n_heads=3"):
        make(n_heads=3).fit(TABLE)


@BOTH
def test_future_and_static_covariates_reach_the_forecast(gated):
    frame = dated().assign(site=1.0)
    model = make(
        targets=["a"], future_covariates=["c"], static_covariates="site", gated=gated
    )
    frame.loc[frame.index[-3:], ["a", "b"]] = np.nan
    model.fit(frame[:-3])
    forecast = model.predict(frame)
    other = frame.copy()
    other.loc[other.index[-3:], "c"] += 5
    assert np.abs(model.predict(other) - forecast).max(axis=None) > 1e-6
    assert model._n_tokens(3) == 3 + 4 + 1 + 1


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
    model = ITransformerForecaster(
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
    alone = LinearForecaster(**common).fit(train).score(test)
    assert score > alone + 0.2
    # With a driver that says nothing there is no more to know than that.
    spoiled = test.copy()
    spoiled[:, 0] = np.random.default_rng(1).permutation(test[:, 0])
    assert model.score(spoiled) < score - 0.2
