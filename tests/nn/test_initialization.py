"""Networks are built from their generator alone, and completely."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from sciseq.errors import InputError
from sciseq.nn import MambaBlock, build_network, no_weight_decay_names


def make_network():
    return nn.Sequential(
        nn.Linear(300, 40),
        nn.Conv1d(120, 60, 5, groups=30),
        nn.LayerNorm(4),
        nn.Linear(5, 3, bias=False),
        MambaBlock(8),
    )


def build(seed=0, factory=make_network):
    return build_network(factory, torch.Generator().manual_seed(seed))


def bits(network):
    return torch.cat([tensor.flatten() for tensor in network.state_dict().values()])


@pytest.mark.parametrize(("index", "fan_in"), [(0, 300), (1, 120 // 30 * 5)])
def test_uniform_within_the_fan_in_bound(index, fan_in):
    layer = build()[index]
    bound = fan_in**-0.5
    for tensor in (layer.weight, layer.bias):
        assert tensor.abs().max() <= bound
        assert tensor.abs().max() > 0.8 * bound
    deviation = float(layer.weight.detach().std())
    assert deviation == pytest.approx(bound / 3**0.5, rel=0.1)


def test_layer_norm_starts_as_identity():
    norm = build()[2]
    assert torch.equal(norm.weight, torch.ones(4))
    assert torch.equal(norm.bias, torch.zeros(4))


def test_same_seed_same_bits_and_no_global_state():
    before = torch.random.get_rng_state()
    first = bits(build(0))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(first, bits(build(0)))
    assert not torch.equal(first, bits(build(1)))
    make_network()  # constructing directly draws from the global state
    assert not torch.equal(torch.random.get_rng_state(), before)
    torch.random.set_rng_state(before)


def test_same_bits_from_threads_at_once():
    seeds = [0, 1] * 8
    want = {seed: bits(build(seed)) for seed in set(seeds)}
    with ThreadPoolExecutor(2) as pool:
        for seed, network in zip(seeds, pool.map(build, seeds), strict=True):
            assert torch.equal(bits(network), want[seed])
            assert network[0].weight.device.type == "cpu"


def test_parameters_are_trainable_leaves():
    for parameter in build().parameters():
        assert parameter.requires_grad
        assert parameter.is_leaf


def test_own_rule_overrules_that_of_children():
    steps = nn.functional.softplus(build()[4].dt_proj.bias)
    assert steps.max() < 0.11
    linear = build(factory=lambda: nn.Linear(1, 16))  # what the child alone would get
    assert nn.functional.softplus(linear.bias).max() > 0.11


class Incomplete(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))
        self.register_buffer("counts", torch.arange(3))


class HalfDone(Incomplete):
    def initialize_parameters(self, generator):
        with torch.no_grad():
            self.scale[:2].fill_(1.0)
            self.counts.copy_(torch.arange(3))


class Forgetful(Incomplete):
    def initialize_parameters(self, generator):
        nn.init.ones_(self.scale)


class Complete(Forgetful):
    def initialize_parameters(self, generator):
        super().initialize_parameters(generator)
        self.counts = torch.arange(3)


@pytest.mark.parametrize(
    ("factory", "names"),
    [(Incomplete, "scale, counts"), (HalfDone, "scale"), (Forgetful, "counts")],
)
def test_what_was_left_unset_is_named(factory, names):
    with pytest.raises(InputError, match=f"initial value: {names} "):
        build(factory=factory)


def test_own_rule_may_replace_tensors():
    network = build(factory=Complete)
    assert network.counts.tolist() == [0, 1, 2]
    assert network.scale.tolist() == [1, 1, 1]


def test_nested_names_are_given():
    with pytest.raises(InputError, match=r"0\.weight"):
        build(factory=lambda: nn.Sequential(nn.Embedding(3, 2)))


def test_no_weight_decay_names_are_full_names():
    network = build(factory=lambda: nn.Sequential(nn.Linear(8, 8), MambaBlock(8)))
    names = no_weight_decay_names(network)
    assert names == {"1.A_log", "1.D"}
    assert names <= dict(network.named_parameters()).keys()
