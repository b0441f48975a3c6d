"""Training and predicting with a torch network, through the estimator."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from sciseq import SMambaForecaster
from sciseq.data.windows import WindowSet
from sciseq.errors import CheckpointError, SciSeqWarning
from sciseq.forecasting import network_passes, predicting, torch_forecaster
from sciseq.forecasting.torch_forecaster import (
    Batch,
    Columns,
    NetworkInputs,
    WindowBatches,
)

RNG = np.random.default_rng(0)
TABLE = (
    np.sin(np.arange(150)[:, None] * [0.3, 0.5, 0.7]) + RNG.normal(size=(150, 3)) / 3
)
SMALL = {
    "lookback": 8,
    "horizon": 3,
    "d_model": 8,
    "n_layers": 1,
    "max_epochs": 3,
    "random_state": 0,
    "device": "cpu",
}


def make(**changes):
    return SMambaForecaster(**(SMALL | changes))


def bits(model):
    return {name: one.clone() for name, one in model.network_.state_dict().items()}


def same_bits(first, second):
    one, other = bits(first), bits(second)
    return all(torch.equal(one[name], other[name]) for name in one)


def records(model):
    return [{k: v for k, v in one.items() if k != "seconds"} for one in model.history_]


def assert_same_run(model, whole):
    assert same_bits(model, whole)
    assert records(model) == records(whole)
    for name in ("best_epoch_", "n_epochs_", "stopped_"):
        assert getattr(model, name) == getattr(whole, name)
    np.testing.assert_array_equal(model.predict(TABLE), whole.predict(TABLE))


# Batches


def test_batches_hold_the_windows_of_the_window_set():
    series = [RNG.normal(size=(n, 2)) for n in (9, 4, 12)]
    marks = [RNG.normal(size=(len(one), 3)).astype("f4") for one in series]
    windows = WindowSet.over(series, 5, 2, marks=marks)
    batches = WindowBatches(windows, torch.device("cpu"), torch.float64)
    assert batches.n_items == len(windows) == 9
    indices = np.array([8, 0, 3, 3])
    batch = batches.gather(torch.from_numpy(indices))
    np.testing.assert_array_equal(batch.inputs.x, windows.inputs(indices).values)
    np.testing.assert_array_equal(batch.inputs.marks, windows.inputs(indices).marks)
    np.testing.assert_array_equal(batch.truth, windows.targets(indices))
    assert batch.inputs.known is batch.inputs.static is batch.weights is None


def test_batches_hold_what_each_column_is_for():
    series = [RNG.normal(size=(n, 5)) for n in (9, 12)]
    future_marks = [RNG.normal(size=(len(one), 1)).astype("f4") for one in series]
    weights = [RNG.random(len(one)) for one in series]
    windows = WindowSet.over(
        series, 5, 2, known_columns=[3], future_marks=future_marks, weights=weights
    )
    columns = Columns(inputs=[0, 2, 3], targets=[2, 0], static=[4])
    batches = WindowBatches(windows, torch.device("cpu"), torch.float64, columns)
    indices = np.array([8, 0, 3, 3])
    batch = batches.gather(torch.from_numpy(indices))
    inputs = windows.inputs(indices)
    np.testing.assert_array_equal(batch.inputs.x, inputs.values[..., [0, 2, 3]])
    np.testing.assert_array_equal(batch.truth, windows.targets(indices)[..., [2, 0]])
    np.testing.assert_array_equal(batch.inputs.static, inputs.values[:, 0, [4]])
    known = batch.inputs.known
    np.testing.assert_array_equal(known, inputs.known)
    np.testing.assert_array_equal(known[..., 0], windows.targets(indices)[..., 3])
    np.testing.assert_array_equal(batch.weights, windows.target_weights(indices))


# Losses


PENALTIES = {
    "mse": lambda e: e**2,
    "mae": np.abs,
    "huber": lambda e: np.where(np.abs(e) < 1, e**2 / 2, np.abs(e) - 0.5),
}


def gradient(model, forecast, truth):
    """Sum, count, and gradient of the loss for a forecast given outright."""
    leaf = torch.tensor(forecast, requires_grad=True)
    x, truth = torch.zeros(len(forecast), 8, 3), torch.tensor(truth)
    targets = model._columns().targets
    truth = truth if targets is None else truth[..., targets]
    batch = Batch(NetworkInputs(x), truth)
    total, count = model._make_loss()(lambda **inputs: leaf, batch)
    total.backward()
    return total.item(), count.item(), leaf.grad.numpy()


@pytest.mark.parametrize("loss", sorted(PENALTIES))
@pytest.mark.parametrize("targets", [None, [2], [2, 0], [1, 2, 0]])
@pytest.mark.parametrize("missing", ["error", "mask"])
def test_the_loss_counts_targets_and_what_is_known(loss, targets, missing):
    model = make(loss=loss, targets=targets, missing=missing, max_epochs=1).fit(TABLE)
    forecast, truth = 2 * RNG.normal(size=(2, 4, 3, 3))
    counted = np.zeros(forecast.shape, dtype=bool)
    counted[..., targets if targets else [0, 1, 2]] = True
    if missing == "mask":
        truth[RNG.random(truth.shape) < 0.4] = np.nan
        counted &= ~np.isnan(truth)
    total, count, slope = gradient(model, forecast, truth)
    assert count == counted.sum()
    expected = PENALTIES[loss](forecast - truth)[counted].sum()
    assert total == pytest.approx(expected, rel=1e-12)
    # What is no target or not known pulls at nothing; all else does.
    assert (slope[~counted] == 0).all()
    assert (slope[counted] != 0).all()
    assert np.isfinite(slope).all()


def test_the_future_of_other_columns_is_never_read():
    """Bit for bit: the last rows of a column that is no target are no one's input."""
    settings = {"targets": [0], "scaler": None, "validation_fraction": 0.0}
    model = make(**settings).fit(TABLE)
    changed = TABLE.copy()
    changed[-3:, 1] = 1e6
    assert same_bits(make(**settings).fit(changed), model)
    changed[-4, 1] = 1e6  # a row that the last window reads
    assert not same_bits(make(**settings).fit(changed), model)


def test_what_stands_behind_the_mask_has_no_influence(monkeypatch):
    """Bit for bit, in weights and forecasts: hidden values are 0, or anything else."""
    holes = TABLE.copy()
    holes[20:40, 1] = holes[55, 0] = holes[-5:, 2] = np.nan
    model = make(missing="mask").fit(holes)
    forecast = model.predict()

    def with_filling(network, inputs, has_gaps):
        x = inputs.x.nan_to_num(123.0)
        return network(x, inputs.marks, ~inputs.x.isnan())

    def without_mask(network, inputs, has_gaps):
        return network(inputs.x.nan_to_num(123.0), inputs.marks)

    monkeypatch.setattr(torch_forecaster, "_run", with_filling)
    other = make(missing="mask").fit(holes)
    assert same_bits(other, model)
    np.testing.assert_array_equal(other.predict(), forecast)
    monkeypatch.setattr(torch_forecaster, "_run", without_mask)
    assert not same_bits(make(missing="mask").fit(holes), model)


def test_without_gaps_the_mask_changes_nothing():
    forecasts = [make(missing=one).fit(TABLE).predict() for one in ("error", "mask")]
    np.testing.assert_allclose(*forecasts, rtol=1e-4, atol=1e-5)


# Epochs


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [
        ("halving", [1, 1, 1 / 2, 1 / 4, 1 / 8]),
        ("constant", [1, 1, 1, 1, 1]),
        ("cosine", [(1 + np.cos(np.pi * one / 5)) / 2 for one in range(5)]),
    ],
)
def test_the_learning_rate_of_each_epoch(schedule, factors):
    model = make(
        learning_rate=7e-5, learning_rate_schedule=schedule, max_epochs=5, patience=None
    )
    model.fit(TABLE)
    assert [one["epoch"] for one in model.history_] == [1, 2, 3, 4, 5]
    rates = [one["learning_rate"] for one in model.history_]
    np.testing.assert_allclose(rates, 7e-5 * np.array(factors), rtol=1e-12)


def validation_loss(model, tail):
    """Mean squared error over all windows of some rows, in scaled units."""
    panel = model._evaluation_panel(tail)
    errors = [y - f for _, y, f in model._evaluate_panel(panel)]
    return float(np.mean((np.concatenate(errors) / model.scaler_.scale) ** 2))


def test_the_best_weights_are_restored():
    noise = np.random.default_rng(1).normal(size=(120, 3))
    model = make(
        learning_rate=0.02,
        learning_rate_schedule="constant",
        max_epochs=6,
        patience=None,
    ).fit(noise)
    losses = [one["validation_loss"] for one in model.history_]
    assert model.best_epoch_ == int(np.argmin(losses)) + 1 < 6
    found = validation_loss(model, noise[108 - 8 :])
    assert found == pytest.approx(min(losses), rel=1e-5)
    assert found != pytest.approx(losses[-1], rel=1e-4)  # the last weights


def test_training_stops_when_patience_ends():
    noise = np.random.default_rng(1).normal(size=(120, 3))
    settings = {"learning_rate": 0.02, "learning_rate_schedule": "constant"}
    model = make(**settings, max_epochs=50, patience=2).fit(noise)
    assert model.stopped_ == "early_stopping"
    assert model.n_epochs_ == model.best_epoch_ + 2 < 50


def test_a_partial_last_batch_weighs_as_much_as_its_windows():
    """The validation loss is the mean over windows, whatever the batch size."""
    losses = []
    for batch_size in (1, 4, 1000):
        model = make(batch_size=32, max_epochs=1, precision="float64").fit(TABLE)
        network = copy.deepcopy(model.network_)
        held_out = model._windows(model._evaluation_panel(TABLE[-20:]))
        batches = WindowBatches(held_out, torch.device("cpu"), torch.float64)
        loss, total, count = model._make_loss(), 0.0, 0
        for part in torch.arange(batches.n_items).split(batch_size):
            with torch.no_grad():
                one, n = loss(network, batches.gather(part))
            total, count = total + one.item(), count + int(n)
        losses.append(total / count)
    np.testing.assert_allclose(losses, losses[0], rtol=1e-12)


def test_refit_trains_on_all_rows_for_the_best_number_of_epochs():
    noise = np.random.default_rng(1).normal(size=(120, 3))
    settings = {"learning_rate": 0.02, "learning_rate_schedule": "constant"}
    first = make(**settings, max_epochs=6, patience=None).fit(noise)
    refitted = make(**settings, max_epochs=6, patience=None, refit_on_all=True).fit(
        noise
    )
    epochs = first.best_epoch_
    assert epochs < 6
    assert refitted.n_epochs_ == refitted.best_epoch_ == epochs
    plain = make(**settings, max_epochs=epochs, validation_fraction=0.0).fit(noise)
    assert same_bits(refitted, plain)
    assert not same_bits(refitted, first)


def test_validation_data_decide_instead_of_the_tail():
    model = make(max_epochs=2).fit(TABLE[:100], validation_data=TABLE[100:])
    assert model.history_[-1]["validation_loss"] == pytest.approx(
        validation_loss(
            make(max_epochs=2).fit(TABLE[:100], validation_data=TABLE[100:]),
            TABLE[100:],
        ),
        rel=1e-5,
    )
    plain = make(max_epochs=2, validation_fraction=0.0).fit(TABLE[:100])
    assert model.best_epoch_ == 2
    assert same_bits(model, plain)  # the training rows are all rows of X


# Seeds


def test_the_same_seed_gives_the_same_bits():
    model = make().fit(TABLE)
    assert_same_run(make().fit(TABLE), model)
    assert_same_run(make().fit(np.asfortranarray(TABLE)), model)
    assert same_bits(make().fit(pd.DataFrame(TABLE)), model)
    assert same_bits(model.fit(TABLE), make().fit(TABLE))  # fitted once more
    assert not same_bits(make(random_state=1).fit(TABLE), model)


def test_a_random_state_object_moves_on():
    state = np.random.RandomState(0)
    first, second = (
        make(random_state=state, max_epochs=1).fit(TABLE) for _ in range(2)
    )
    assert not same_bits(first, second)
    again = make(random_state=np.random.RandomState(0), max_epochs=1).fit(TABLE)
    assert same_bits(first, again)


def test_fits_in_threads_do_not_disturb_each_other():
    seeds = [0, 1, 2, 0]
    serial = [make(random_state=seed, dropout=0.3).fit(TABLE) for seed in seeds]
    with ThreadPoolExecutor(4) as threads:
        parallel = list(
            threads.map(
                lambda seed: make(random_state=seed, dropout=0.3).fit(TABLE), seeds
            )
        )
    for one, other in zip(parallel, serial, strict=True):
        assert_same_run(one, other)


# Interruptions


class Stop:
    """A loss that raises at its n-th training batch, once."""

    def __init__(self, batch, error=KeyboardInterrupt):
        self.left, self.error = batch, error

    def __call__(self, error):
        if error.requires_grad:
            self.left -= 1
            if self.left == 0:
                raise self.error
        return error.square()


LONG = {"max_epochs": 5, "patience": None, "learning_rate": 1e-3}
BATCHES = 4  # per epoch: 150 rows less 15 held out give 125 windows


@pytest.fixture(scope="module")
def uninterrupted():
    return {
        schedule: make(**LONG, learning_rate_schedule=schedule).fit(TABLE)
        for schedule in ("constant", "halving", "cosine")
    }


@pytest.mark.parametrize("schedule", ["constant", "halving", "cosine"])
@pytest.mark.parametrize(
    "batch", [1, BATCHES, BATCHES + 1, 3 * BATCHES + 2, 5 * BATCHES]
)
def test_a_run_stopped_by_the_user_resumes_bit_for_bit(
    schedule, batch, tmp_path, monkeypatch, uninterrupted
):
    settings = LONG | {"learning_rate_schedule": schedule, "checkpoint_dir": tmp_path}
    model = make(**settings)
    n_done = (batch - 1) // BATCHES
    with monkeypatch.context() as patched:
        patched.setitem(torch_forecaster.LOSSES, "mse", Stop(batch))
        if n_done == 0:
            with pytest.raises(KeyboardInterrupt):
                model.fit(TABLE)
            assert not hasattr(model, "network_")
        else:
            with pytest.warns(
                SciSeqWarning, match=f"interrupted in epoch {n_done + 1}"
            ):
                model.fit(TABLE)
            # What was learnt so far can be used.
            assert (model.stopped_, model.n_epochs_) == ("interrupted", n_done)
            assert np.isfinite(model.predict()).all()
            assert not same_bits(model, uninterrupted[schedule])
    assert_same_run(model.fit(TABLE), uninterrupted[schedule])


@pytest.mark.parametrize("batch", [2, 2 * BATCHES + 1])
def test_a_run_that_was_killed_resumes_bit_for_bit(
    batch, tmp_path, monkeypatch, uninterrupted
):
    model = make(**LONG, learning_rate_schedule="constant", checkpoint_dir=tmp_path)
    with monkeypatch.context() as patched:
        patched.setitem(torch_forecaster.LOSSES, "mse", Stop(batch, RuntimeError))
        with pytest.raises(RuntimeError):
            model.fit(TABLE)
    assert_same_run(model.fit(TABLE), uninterrupted["constant"])


@pytest.mark.parametrize("schedule", ["constant", "halving"])
def test_a_short_run_is_the_beginning_of_a_longer_one(
    schedule, tmp_path, uninterrupted
):
    settings = LONG | {"learning_rate_schedule": schedule, "checkpoint_dir": tmp_path}
    for max_epochs in (1, 2, 4, 5):
        model = make(**(settings | {"max_epochs": max_epochs})).fit(TABLE)
        assert records(model) == records(uninterrupted[schedule])[:max_epochs]
    assert_same_run(model, uninterrupted[schedule])


@pytest.mark.parametrize("batch", [2 * BATCHES + 1, 5 * BATCHES + 1, 7 * BATCHES + 2])
def test_a_refit_resumes_bit_for_bit(batch, tmp_path, monkeypatch):
    """Stopped in the first training, at the start of the second, and within it."""
    settings = LONG | {"refit_on_all": True, "learning_rate_schedule": "constant"}
    whole = make(**settings).fit(TABLE)
    model = make(**settings, checkpoint_dir=tmp_path)
    with monkeypatch.context() as patched:
        patched.setitem(torch_forecaster.LOSSES, "mse", Stop(batch, RuntimeError))
        with pytest.raises(RuntimeError):
            model.fit(TABLE)
    assert_same_run(model.fit(TABLE), whole)


def test_stopping_the_first_training_does_not_start_the_second(monkeypatch):
    settings = LONG | {"refit_on_all": True, "learning_rate_schedule": "constant"}
    monkeypatch.setitem(torch_forecaster.LOSSES, "mse", Stop(2 * BATCHES + 1))
    with pytest.warns(SciSeqWarning, match="interrupted in epoch 3"):
        model = make(**settings).fit(TABLE)
    assert (model.stopped_, model.n_epochs_) == ("interrupted", 2)
    assert "validation_loss" in model.history_[-1]
    scaler = make(**LONG).fit(TABLE).scaler_
    np.testing.assert_array_equal(model.scaler_.mean, scaler.mean)


@pytest.mark.parametrize(
    "change",
    [{"random_state": 1}, {"learning_rate": 2e-3}, {"dropout": 0.2}, {"d_ff": 9}],
)
def test_another_run_is_not_continued(change, tmp_path):
    make(**LONG, checkpoint_dir=tmp_path).fit(TABLE)
    with pytest.raises(CheckpointError, match="other settings or other data"):
        make(**(LONG | change), checkpoint_dir=tmp_path).fit(TABLE)
    with pytest.raises(CheckpointError, match="other settings or other data"):
        make(**LONG, checkpoint_dir=tmp_path).fit(TABLE + 1e-3)


# Forecasts


@pytest.mark.parametrize("n_columns", [1, 2, 3, 7, 17, 40])
def test_a_forecast_does_not_depend_on_its_company(n_columns, monkeypatch):
    table = np.random.default_rng(0).normal(size=(60, n_columns))
    model = make(max_epochs=1).fit(table)
    windows = np.random.default_rng(1).normal(size=(37, 8, n_columns))
    together = model.predict(windows)
    for part in (slice(0, 1), slice(5, 6), slice(30, 37), slice(0, 37, 2)):
        np.testing.assert_array_equal(model.predict(windows[part]), together[part])
    np.testing.assert_array_equal(model.predict(windows[::-1])[::-1], together)
    score = model.score(table)
    monkeypatch.setattr(predicting, "WINDOWS_PER_CHUNK", 5)
    assert model.score(table) == pytest.approx(score, rel=1e-12)
    monkeypatch.setattr(network_passes, "TOKENS_PER_PASS", {"cpu": 4096})
    np.testing.assert_allclose(model.predict(windows), together, rtol=1e-4, atol=1e-5)
    assert model.score(table) == pytest.approx(score, rel=1e-4)


def test_predicting_builds_no_graph_and_leaves_the_network_alone():
    model = make().fit(TABLE)
    before, seen = bits(model), []
    for module in model.network_.modules():
        module.register_forward_hook(lambda m, inputs, output: seen.append((m, output)))
    model.predict()
    model.score(TABLE)
    assert len(seen) > 10
    for module, output in seen:
        assert not module.training
        assert output.is_inference()
        assert output.grad_fn is None
    assert all(torch.equal(one, before[name]) for name, one in bits(model).items())
    for parameter in model.network_.parameters():
        assert parameter.requires_grad
        assert parameter.grad is None
        assert not parameter.is_inference()


@pytest.mark.parametrize(
    ("precision", "dtype", "rtol"),
    [("float64", torch.float64, 1e-3), ("bfloat16", torch.float32, 0.1)],
)
def test_precisions_agree_within_their_digits(precision, dtype, rtol):
    exact = make(max_epochs=2).fit(TABLE)
    model = make(max_epochs=2, precision=precision).fit(TABLE)
    assert {one.dtype for one in model.network_.parameters()} == {dtype}
    forecast = model.predict()
    assert forecast.dtype == np.float64
    difference = np.abs(forecast - exact.predict()).max()
    assert 0 < difference < rtol * TABLE.std()
    assert_same_run(make(max_epochs=2, precision=precision).fit(TABLE), model)


def test_digits_that_float32_cannot_hold_are_warned_of():
    large = TABLE + 2.0**25
    with pytest.warns(SciSeqWarning, match="lose digits in float32"):
        make(scaler=None, max_epochs=1).fit(large)
    make(scaler=None, max_epochs=1, precision="float64").fit(large)
    make(max_epochs=1).fit(large)


# Copies and pickles


def test_copies_and_pickles_forecast_the_same_bits():
    model = make().fit(TABLE)
    for other in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert_same_run(other, model)
        assert other.network_ is not model.network_
        assert_same_run(other.fit(TABLE), model)  # and train on


class Elsewhere(nn.Module):
    """A network that says it lives on a GPU until it is moved."""

    def __init__(self):
        super().__init__()
        self.place = "cuda:1"

    def parameters(self, recurse=True):
        place = torch.device(self.place)
        yield type("Parameter", (), {"device": place})

    def cpu(self):
        self.place = "cpu"
        return self


def test_a_model_on_another_device_is_pickled_with_weights_on_the_cpu():
    model = make().fit(TABLE)
    model.network_, model.device_ = Elsewhere(), "cuda:1"
    other = pickle.loads(pickle.dumps(model))
    assert (other.network_.place, other.device_) == ("cpu", "cpu")
    # The model itself stays where it is.
    assert (model.network_.place, model.device_) == ("cuda:1", "cuda:1")


def test_a_model_for_a_device_that_is_not_here_runs_where_its_weights_are():
    model = make().fit(TABLE)
    forecast = model.predict()
    elsewhere = pickle.loads(pickle.dumps(model)).set_params(device="cuda:7")
    np.testing.assert_array_equal(elsewhere.predict(), forecast)
