"""Dropout draws from its generator and from nothing else."""

import copy
import pickle

import pytest
import torch
from torch import nn

from sciseq.errors import InputError
from sciseq.nn import Dropout, set_dropout_generator


def make_dropout(p, seed=0):
    dropout = Dropout(p)
    dropout.generator = torch.Generator().manual_seed(seed)
    return dropout


@pytest.mark.parametrize("p", [0.1, 0.5, 0.93])
def test_rate_and_scale(p):
    n = 400_001  # not a multiple of four
    y = make_dropout(p)(torch.ones(n))
    kept = y != 0
    deviation = (p * (1 - p) / n) ** 0.5
    assert abs(1 - p - kept.double().mean()) < 4 * deviation
    assert torch.all(y[kept] == y[kept][0])
    assert float(y[kept][0]) == pytest.approx(1 / (1 - p), rel=1e-3)


def test_draws_are_independent_between_neighbours():
    # Four draws share one word of the generator.
    kept = (make_dropout(0.5)(torch.ones(400_000)) != 0).double() - 0.5
    for lag in range(1, 9):
        correlation = (kept[lag:] * kept[:-lag]).mean() / 0.25
        assert abs(correlation) < 4 / 400_000**0.5


def test_gradient_is_the_mask():
    x = torch.ones(50, requires_grad=True)
    y = make_dropout(0.3)(x)
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())


def test_same_generator_same_mask_and_global_state_untouched():
    x = torch.ones(3, 5, 7)
    before = torch.random.get_rng_state()
    first, again, other = (make_dropout(0.4, seed)(x) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.random.get_rng_state(), before)
    nn.functional.dropout(x, 0.4)  # torch's own does draw from it
    assert not torch.equal(torch.random.get_rng_state(), before)


def test_does_nothing_in_eval_mode_or_at_rate_zero():
    x = torch.randn(4, generator=torch.Generator().manual_seed(0))
    assert Dropout(0.5).eval()(x) is x
    assert Dropout(0.0)(x) is x


def test_training_without_generator_is_refused():
    with pytest.raises(InputError, match="set_dropout_generator"):
        Dropout(0.1)(torch.ones(3))


@pytest.mark.parametrize("p", [-0.1, 1.0, float("nan")])
def test_rate_out_of_range_is_refused(p):
    with pytest.raises(InputError, match=r"must be in \[0, 1\)"):
        Dropout(p)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_dtype_and_shape_are_kept(dtype):
    y = make_dropout(0.5)(torch.ones(3, 0, 2, dtype=dtype))
    assert (y.dtype, y.shape) == (dtype, (3, 0, 2))
    assert make_dropout(0.5)(torch.ones(9, dtype=dtype)).unique().tolist() == [0, 2]


def test_generator_is_no_part_of_the_model():
    network = nn.Sequential(nn.Linear(2, 2), Dropout(0.2), nn.Sequential(Dropout(0.3)))
    generator = torch.Generator()
    set_dropout_generator(network, generator)
    assert network[1].generator is generator
    assert network[2][0].generator is generator
    assert list(network.state_dict()) == ["0.weight", "0.bias"]
    for copied in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert copied[1].generator is None
        assert copied[2][0].p == 0.3
        assert torch.equal(copied[0].weight, network[0].weight)
    assert network[1].generator is generator
    set_dropout_generator(network, None)
    assert network[1].generator is None
