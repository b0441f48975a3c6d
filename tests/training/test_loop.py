"""The loop learns, repeats itself, weighs right, and leaves the world alone."""

import copy
import random
import sys
import threading
import warnings
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from sciseq.errors import DataQualityError, InputError
from sciseq.training import generator_for, resolve_device, train


def test_reaches_the_least_squares_solution(toys, make_options):
    data = toys.Regression(64, dtype=torch.float64)
    design = torch.cat([data.x, torch.ones(64, 1, dtype=torch.float64)], dim=1)
    solution = torch.linalg.lstsq(design, data.y).solution
    optimum = (design @ solution - data.y).square().mean().item()
    network = toys.linear().double()
    options = make_options(
        learning_rate=0.3,
        batch_size=64,
        max_epochs=300,
        precision="float64",
        schedule=lambda epoch: 0.98**epoch,
    )
    result = train(network, toys.squared_error, data, data, options)
    assert result.history[0]["train_loss"] > 10 * optimum
    assert result.best_loss == pytest.approx(optimum, rel=1e-6)
    assert torch.allclose(network.weight[0], solution[:3, 0], atol=1e-4)
    assert network.bias.item() == pytest.approx(solution[3].item(), abs=1e-4)


def hand_written(network, data, *, n_epochs, rate, clip):
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    for _ in range(n_epochs):
        optimizer.zero_grad()
        (network(data.x) - data.y).square().mean().backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(network.parameters(), clip)
        optimizer.step()


@pytest.mark.parametrize("clip", [None, 1.0])
def test_equals_a_hand_written_loop(toys, make_options, clip):
    data = toys.Regression(16, dtype=torch.float64)
    ours, theirs, other = (toys.linear().double() for _ in range(3))
    options = make_options(
        batch_size=16,
        max_epochs=20,
        gradient_clip=clip,
        precision="float64",
        schedule=lambda epoch: 1.0,
        learning_rate=0.1,
    )
    train(ours, toys.squared_error, data, None, options)
    hand_written(theirs, data, n_epochs=20, rate=0.1, clip=clip)
    assert torch.allclose(ours.weight, theirs.weight, rtol=1e-12)
    hand_written(other, data, n_epochs=20, rate=0.1, clip=1.0 if clip is None else None)
    assert not torch.allclose(ours.weight, other.weight, rtol=1e-6)


def run(toys, options, loss=None):
    network = toys.perceptron()
    result = train(
        network,
        loss or toys.squared_error,
        toys.Regression(30),
        toys.Regression(11, stream="validation"),
        options,
    )
    return toys.bits(network), toys.without_seconds(result.history)


def test_same_seed_gives_the_same_bits_and_another_seed_others(toys, make_options):
    first, first_history = run(toys, make_options())
    again, again_history = run(toys, make_options())
    assert toys.is_same(first, again)
    assert first_history == again_history
    other, _ = run(toys, make_options(seed=1))
    assert not toys.is_same(first, other)


def test_threads_training_at_once_get_the_bits_of_one_alone(toys, make_options):
    seeds = range(3)
    alone = {seed: run(toys, make_options(seed=seed)) for seed in seeds}
    together = {}
    barrier = threading.Barrier(len(seeds))

    def work(seed):
        barrier.wait()
        together[seed] = run(toys, make_options(seed=seed))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in seeds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed in seeds:
        assert toys.is_same(alone[seed][0], together[seed][0])
        assert alone[seed][1] == together[seed][1]


def test_dropout_draws_anew_in_every_epoch(toys, make_options):
    seeds = []

    def loss(network, batch):
        seeds.append(network[2].generator.initial_seed())
        return toys.squared_error(network, batch)

    options = make_options(max_epochs=3, seed=4)
    train(toys.perceptron(), loss, toys.Regression(16), None, options)
    expected = [generator_for(4, "dropout", q).initial_seed() for q in (1, 2, 3)]
    assert seeds == [one for one in expected for _ in range(2)]


class Caching(nn.Module):
    """Keeps one tensor per length that it has seen, as positional tables do."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3, 1))
        self.tables = {}

    def forward(self, x):
        table = self.tables.setdefault(len(x), torch.ones(len(x), 1))
        return table * (x @ self.weight)


def test_what_a_module_caches_in_validation_can_train(toys, make_options):
    # Two items come in validation first, and in training later.
    network = Caching()
    training, validation = toys.Regression(7), toys.Regression(2)
    options = make_options(batch_size=5, max_epochs=1)
    train(network, toys.squared_error, toys.Regression(5), validation, options)
    assert set(network.tables) == {5, 2}
    result = train(network, toys.squared_error, training, validation, options)
    assert result.stopped == "max_epochs"


def test_dropout_generator_is_taken_away_also_after_an_error(toys, make_options):
    def fail(total):
        raise RuntimeError("out of luck")

    for actions in ({}, {2: fail}):
        network = toys.perceptron()
        loss = toys.AtStep(actions)
        try:
            train(network, loss, toys.Regression(30), None, make_options())
        except RuntimeError:
            assert actions
        assert network[2].generator is None
        assert not network.training
        assert all(one.grad is None for one in network.parameters())


def world():
    """Everything global that a training run could disturb."""
    return {
        "torch": torch.get_rng_state().tolist(),
        "numpy": repr(np.random.get_state()),
        "python": random.getstate(),
        "threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "dtype": torch.get_default_dtype(),
        "grad": torch.is_grad_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "matmul": torch.get_float32_matmul_precision(),
        "folder": Path.cwd(),
        "streams": (sys.stdout, sys.stderr),
        "warnings": list(warnings.filters),
    }


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_nothing_global_changes(toys, make_options, tmp_path, precision):
    options = make_options(precision=precision, verbose=1, checkpoint_dir=tmp_path)
    before = world()
    run(toys, options)
    assert world() == before
    torch.rand(1)
    assert world() != before  # the comparison sees a single global draw


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_no_grad_and_autocast_of_the_caller_change_nothing(
    toys, make_options, precision
):
    data, loss = toys.Regression(30), toys.squared_error
    plain, inside = toys.perceptron(), toys.perceptron()
    options = make_options(precision=precision)
    train(plain, loss, data, data, options)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        train(inside, loss, data, data, options)
        assert not torch.is_grad_enabled()
        assert torch.is_autocast_enabled("cpu")
    assert toys.is_same(toys.bits(plain), toys.bits(inside))


def test_means_are_sums_over_counts(toys, make_options):
    # 10 items in batches of 4, 4 and 2; the rate is too small to move any weight.
    data = toys.Regression(10, dtype=torch.float64)
    data.y[:2] += 100
    network = toys.linear().double()
    with torch.no_grad():
        squares = (network(data.x) - data.y).square()
    options = make_options(
        learning_rate=1e-300, batch_size=4, max_epochs=1, precision="float64"
    )
    result = train(network, toys.squared_error, data, data, options)
    (record,) = result.history
    assert record["train_loss"] == pytest.approx(squares.mean().item(), rel=1e-13)
    assert record["validation_loss"] == pytest.approx(squares.mean().item(), rel=1e-13)
    wrong = torch.stack([one.mean() for one in squares.split(4)]).mean().item()
    assert record["validation_loss"] != pytest.approx(wrong, rel=1e-2)


def masked_squared_error(network, batch):
    x, y = batch
    is_scored = ~y.isnan()
    error = (network(x) - y.nan_to_num()) * is_scored
    return error.square().sum(), is_scored.sum()


def test_a_batch_without_scored_values_has_no_gradient(toys, make_options):
    data = toys.Regression(6)
    data.y[:3] = torch.nan
    network = toys.linear()
    options = make_options(batch_size=1, max_epochs=3)
    result = train(network, masked_squared_error, data, data, options)
    assert np.isfinite([record["train_loss"] for record in result.history]).all()

    data.y[:] = torch.nan
    with pytest.raises(DataQualityError, match="not a single value of the training"):
        train(network, masked_squared_error, data, None, options)
    with pytest.raises(DataQualityError, match="not a single value of the validation"):
        train(network, masked_squared_error, toys.Regression(6), data, options)


class HalfDecayed(nn.Module):
    no_weight_decay = ("spared",)

    def __init__(self):
        super().__init__()
        self.decayed = nn.Parameter(torch.tensor([2.0]))
        self.spared = nn.Parameter(torch.tensor([2.0]))


def test_weight_decay_leaves_the_named_parameters_alone(toys, make_options):
    def no_slope(network, batch):
        return 0 * sum(one.sum() for one in network.parameters()), torch.tensor(1)

    for decay, expected in ((0.0, 2.0), (0.5, 2.0 * (1 - 0.02 * 0.5) ** 8)):
        network = nn.ModuleList([HalfDecayed()])
        options = make_options(
            batch_size=3,
            max_epochs=4,
            schedule=lambda epoch: 1.0,
            weight_decay=decay,
        )
        train(network, no_slope, toys.Regression(6), None, options)
        assert network[0].decayed.item() == pytest.approx(expected, rel=1e-6)
        assert network[0].spared.item() == 2.0


def test_learning_rate_follows_the_schedule_from_epoch_one(toys, make_options):
    epochs = []

    def schedule(epoch):
        epochs.append(epoch)
        return 1 / epoch

    options = make_options(max_epochs=4, schedule=schedule)
    result = train(toys.linear(), toys.squared_error, toys.Regression(9), None, options)
    assert epochs == [1, 2, 3, 4]
    rates = [record["learning_rate"] for record in result.history]
    assert rates == [0.02 * (1 / epoch) for epoch in (1, 2, 3, 4)]
    assert [record["epoch"] for record in result.history] == [1, 2, 3, 4]
    assert all("validation_loss" not in record for record in result.history)


def test_every_epoch_visits_every_item_once_in_a_new_order(toys, make_options):
    class Recorded(toys.Regression):
        seen: list[int] = []  # noqa: RUF012

        def gather(self, indices):
            assert indices.dtype == torch.int64
            self.seen.append(indices.tolist())
            return super().gather(indices)

    data = Recorded(10)
    options = make_options(batch_size=4, max_epochs=2)
    train(toys.linear(), toys.squared_error, data, None, options)
    assert [len(one) for one in data.seen] == [4, 4, 2] * 2
    first, second = (list(chain(*data.seen[a : a + 3])) for a in (0, 3))
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second


def test_bfloat16_computes_under_autocast_with_float32_weights(toys, make_options):
    seen = set()

    def loss(network, batch):
        seen.add(network(batch[0]).dtype)
        return toys.squared_error(network, batch)

    network = toys.linear()
    options = make_options(precision="bfloat16", max_epochs=30, learning_rate=0.1)
    data = toys.Regression(40)
    result = train(network, loss, data, data, options)
    assert seen == {torch.bfloat16}
    assert network.weight.dtype == torch.float32
    assert result.best_loss < 0.05 < result.history[0]["validation_loss"]


def test_tied_and_frozen_weights(toys, make_options, tmp_path):
    network = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 1))
    network[1].weight = network[0].weight
    network[2].bias.requires_grad_(False)
    frozen = network[2].bias.clone()
    start = copy.deepcopy(network)
    data, options = toys.Regression(9), make_options(checkpoint_dir=tmp_path)
    train(network, toys.squared_error, data, data, options)
    assert network[1].weight is network[0].weight
    assert torch.equal(network[2].bias, frozen)
    train(start, toys.squared_error, data, data, options)
    assert toys.is_same(toys.bits(start), toys.bits(network))


def test_refuses_what_cannot_be_trained(toys, make_options):
    data, loss = toys.Regression(4), toys.squared_error
    with pytest.raises(InputError, match="there is no training item"):
        train(toys.linear(), loss, toys.Regression(0), data, make_options())
    with pytest.raises(InputError, match="there is no validation item"):
        train(toys.linear(), loss, data, toys.Regression(0), make_options())
    with pytest.raises(InputError, match="no weight to train"):
        train(nn.ReLU(), loss, data, None, make_options())
    with pytest.raises(InputError, match="'float64' needs weights of torch"):
        train(toys.linear(), loss, data, None, make_options(precision="float64"))


def test_options_name_every_bad_setting_at_once(make_options):
    with pytest.raises(InputError) as caught:
        make_options(
            learning_rate=0.0,
            batch_size=0,
            max_epochs=0,
            patience=0,
            weight_decay=-1.0,
            gradient_clip=0.0,
            precision="float16",
            checkpoint_every=0,
        )
    for fragment in (
        "learning_rate is 0.0",
        "batch_size is 0, must be at least 1",
        "max_epochs is 0",
        "patience is 0",
        "weight_decay is -1.0",
        "gradient_clip is 0.0",
        "precision is 'float16'",
        "checkpoint_every is 0",
    ):
        assert fragment in str(caught.value)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_an_accelerator_learns_what_the_cpu_learns(
    toys, make_options, tmp_path, precision
):
    device = resolve_device("auto")
    if device.type == "cpu":
        pytest.skip("this machine has no accelerator")
    data, moved = toys.Regression(40), toys.Regression(40)
    moved.x, moved.y = moved.x.to(device), moved.y.to(device)
    here, there = toys.linear(), toys.linear()
    options = make_options(precision=precision, gradient_clip=1.0, weight_decay=0.01)
    expected = train(here, toys.squared_error, data, data, options)
    for n_epochs in (2, 5):  # interrupted once
        moved_options = replace(
            options, device=device, checkpoint_dir=tmp_path, max_epochs=n_epochs
        )
        result = train(there, toys.squared_error, moved, moved, moved_options)
    tolerance = 1e-4 if precision == "float32" else 3e-2
    assert result.best_loss == pytest.approx(expected.best_loss, rel=tolerance)
    assert torch.allclose(there.weight.cpu(), here.weight, atol=tolerance)


def test_steps_are_counted_through_epochs_and_resumed_runs(
    toys, make_options, tmp_path
):
    data, seen, shares = toys.Regression(20), [], []

    def factor(share):
        shares.append(share)
        return 1.0

    options = make_options(
        batch_size=8,  # three steps an epoch
        schedule=lambda epoch: 1.0,
        step_schedule=factor,
        on_step=lambda step, n_steps: seen.append((step, n_steps)),
        checkpoint_dir=tmp_path,
        max_epochs=4,
    )
    train(toys.linear(), toys.squared_error, data, None, options)
    assert seen == [(step, 12) for step in range(12)]
    assert shares == [step / 12 for step in range(12)]
    seen.clear()
    train(toys.linear(), toys.squared_error, data, None, replace(options, max_epochs=5))
    assert seen == [(step, 15) for step in range(12, 15)]


def test_a_step_schedule_of_zero_stops_the_weights(toys, make_options):
    data = toys.Regression(20)
    moved = []
    for n_epochs in (1, 3):
        network = toys.linear()
        options = make_options(
            batch_size=20,
            max_epochs=n_epochs,
            schedule=lambda epoch: 1.0,
            step_schedule=lambda share: 1.0 if share == 0 else 0.0,
        )
        train(network, toys.squared_error, data, None, options)
        moved.append(network.weight.detach())
    assert torch.equal(*moved)
    assert not torch.equal(moved[0], toys.linear().weight)
