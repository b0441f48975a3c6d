"""Passes of a network: fixed sizes, larger ones only where they give the same bits."""

import gc

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from sciseq import ITransformerForecaster, SMambaForecaster
from sciseq.forecasting import network_passes
from sciseq.forecasting.network_passes import (
    LARGER_PASSES,
    TOKENS_PER_PASS,
    run_in_passes,
    windows_per_pass,
)
from sciseq.forecasting.window_batches import NetworkInputs

CPU = torch.device("cpu")
N_TOKENS = 8
SMALL = windows_per_pass(CPU, N_TOKENS)
SIZES = [SMALL, *(factor * SMALL for factor in LARGER_PASSES["cpu"])]


class Recorder(nn.Module):
    """Doubles its windows, and remembers how many came at once."""

    def __init__(self, disagrees_from: int = 10**9) -> None:
        super().__init__()
        self.sizes: list[int] = []
        self.disagrees_from = disagrees_from

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.sizes.append(len(x))
        # As a product that adds in another order above some number of rows.
        return 2 * x * (1 + 1e-6 * (len(x) >= self.disagrees_from))

    def run(self, part: NetworkInputs) -> torch.Tensor:
        return self(part.x)


def windows(n: int) -> NetworkInputs:
    x = torch.randn(n, 5, 2, generator=torch.Generator().manual_seed(n))
    return NetworkInputs(x)


def outputs(network: Recorder, whole: NetworkInputs, **options) -> torch.Tensor:
    network.sizes.clear()
    return run_in_passes(network, network.run, whole, CPU, N_TOKENS, **options)


@given(st.integers(1, 4 * SIZES[-1]), st.integers(1, 3))
def test_passes_cover_every_window_once_and_waste_little(n, n_sizes):
    sizes = SIZES[:n_sizes]
    planned = list(network_passes._plan(n, sizes))
    stops = [start + size for start, size in planned]
    assert [start for start, _ in planned] == [0, *stops[:-1]]
    assert stops[-2:-1] < [n] <= stops[-1:]
    assert {size for _, size in planned} <= set(sizes)
    # Only the last pass may be padded, and by no more than it holds.
    assert stops[-1] - n <= max(n, SMALL - 1)


def test_one_window_takes_the_smallest_pass():
    network = Recorder()
    outputs(network, windows(1))
    assert network.sizes == [SMALL]
    assert SMALL * N_TOKENS <= TOKENS_PER_PASS["cpu"]


def test_many_windows_take_the_largest_pass():
    network, n = Recorder(), 5 * SIZES[-1]
    y = outputs(network, windows(n))
    torch.testing.assert_close(y, 2 * windows(n).x.double(), rtol=0, atol=0)
    # The first time each size is compared with smaller ones; never again.
    assert len(network.sizes) > 5
    outputs(network, windows(n))
    assert network.sizes == [SIZES[-1]] * 5


@pytest.mark.parametrize("place", range(1, len(SIZES)))
def test_a_size_that_changes_bits_is_not_used(place):
    network, whole = Recorder(disagrees_from=SIZES[place]), windows(3 * SIZES[-1])
    y = outputs(network, whole)
    assert torch.equal(y, 2 * whole.x.double())
    outputs(network, whole)
    assert max(network.sizes) == SIZES[place - 1]


def test_without_the_comparison_bits_would_change(monkeypatch):
    monkeypatch.setattr(network_passes, "_gives_same_bits", lambda *given: True)
    whole = windows(3 * SIZES[-1])
    y = outputs(Recorder(disagrees_from=SIZES[-1]), whole)
    assert not torch.equal(y, 2 * whole.x.double())


def test_few_windows_ask_for_no_comparison():
    network = Recorder()
    for n in range(1, 2 * SIZES[1]):
        outputs(network, windows(n))
        assert set(network.sizes) == {SMALL}


def test_a_network_that_may_not_grow_sees_one_size():
    network = Recorder()
    outputs(network, windows(3 * SIZES[-1]), may_grow=False)
    assert set(network.sizes) == {SMALL}


def test_answers_are_kept_by_shape_and_setting_while_the_network_lives():
    network, n = Recorder(), 2 * SIZES[1]
    outputs(network, windows(n))
    asked = len(network.sizes)
    outputs(network, windows(n), setting="bfloat16")
    assert len(network.sizes) == asked  # asked anew
    outputs(network, windows(n))
    assert len(network.sizes) < asked
    known = len(network_passes._IS_SAME)
    del network
    gc.collect()
    assert len(network_passes._IS_SAME) == known - 1


def test_every_kind_of_input_is_compared_and_padded():
    x = torch.randn(2 * SIZES[1] + 1, 5, 2)
    whole = NetworkInputs(x, x[..., :1], x[:, :3], x[:, 0])
    network = Recorder()

    def run(part: NetworkInputs) -> torch.Tensor:
        sizes = {len(one) for one in part if one is not None}
        assert len(sizes) == 1
        return network(part.x)

    y = run_in_passes(network, run, whole, CPU, N_TOKENS)
    assert torch.equal(y, 2 * x.double())


@pytest.mark.parametrize("n_columns", [3, 7, 11])
@pytest.mark.parametrize("method", [SMambaForecaster, ITransformerForecaster])
def test_a_forecast_is_the_same_alone_and_among_many(method, n_columns):
    rng = np.random.default_rng(0)
    # Widths above the lanes of a processor, as real models have.
    model = method(lookback=24, horizon=8, d_model=32, max_epochs=1, random_state=0)
    model.fit(rng.normal(size=(60, n_columns)))
    many = rng.normal(size=(150, 24, n_columns))
    together = model.predict(many)
    for one in (0, 1, 77, 149):
        np.testing.assert_array_equal(model.predict(many[[one]])[0], together[one])
    np.testing.assert_array_equal(model.predict(many[::-1])[::-1], together)


def test_many_series_take_few_passes():
    rng = np.random.default_rng(0)
    model = SMambaForecaster(
        lookback=12, horizon=4, d_model=16, max_epochs=1, random_state=0
    ).fit(rng.normal(size=(40, 8)))
    many = rng.normal(size=(300, 12, 8))
    model.predict(many)
    if not all(network_passes._IS_SAME[model.network_].values()):
        pytest.skip("this processor adds in another order in larger passes")
    passes = []
    model.network_.register_forward_pre_hook(lambda *given: passes.append(given))
    model.predict(many)
    # Too few for the largest pass, and still no more than these.
    assert len(passes) == len(list(network_passes._plan(300, SIZES[:-1])))
    assert len(passes) < 300 / SMALL / 10
