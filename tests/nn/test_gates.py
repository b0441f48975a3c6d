"""Elementwise gates and tokens of covariates."""

import math

import pytest
import torch

from sciseq.errors import InputError
from sciseq.nn import CovariateTokens, ElementwiseGate, build_network


def build(factory):
    network = build_network(factory, torch.Generator().manual_seed(0))
    return network.double().eval()


def normal(*shape, seed=3):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@pytest.fixture
def gate():
    return build(lambda: ElementwiseGate(5))


def force(gate, bias):
    with torch.no_grad():
        for linear in (gate.W1, gate.W2):
            linear.weight.zero_()
            linear.bias.fill_(bias)


def test_gate_equals_its_equation(gate):
    g, p = normal(2, 3, 5), normal(2, 3, 5, seed=4)
    logits = g @ gate.W1.weight.T + gate.W1.bias + p @ gate.W2.weight.T + gate.W2.bias
    s = 1 / (1 + torch.exp(-logits))
    torch.testing.assert_close(gate.values(g, p), s)
    torch.testing.assert_close(gate(g, p), s * g + (1 - s) * p)
    assert not torch.allclose(gate(g, p), s * p + (1 - s) * g, atol=1e-3)
    assert not torch.allclose(gate(p, g), gate(g, p), atol=1e-3)


def test_gate_mixes_between_its_inputs_channel_by_channel(gate):
    g, p = normal(2, 3, 5), normal(2, 3, 5, seed=4)
    v = gate(g, p)
    assert torch.all(v >= torch.minimum(g, p))
    assert torch.all(v <= torch.maximum(g, p))
    s = gate.values(g, p)
    assert torch.all((s > 0) & (s < 1))
    assert s.std(-1).min() > 1e-3


@pytest.mark.parametrize(("bias", "chosen"), [(1e3, 0), (-1e3, 1)])
def test_forced_gate_gives_one_input_exactly(gate, bias, chosen):
    force(gate, bias)
    inputs = normal(2, 3, 5), normal(2, 3, 5, seed=4)
    assert torch.equal(gate(*inputs), inputs[chosen])
    assert torch.all(gate.values(*inputs) == 1 - chosen)


def test_gate_at_a_constant_value(gate):
    force(gate, math.log(4) / 2)
    g, p = normal(2, 3, 5), normal(2, 3, 5, seed=4)
    torch.testing.assert_close(gate(g, p), 0.8 * g + 0.2 * p)


def test_gate_gradients_equal_finite_differences(gate):
    g, p = normal(2, 5).requires_grad_(), normal(2, 5, seed=4).requires_grad_()
    assert torch.autograd.gradcheck(gate, (g, p))


# Tokens of covariates


def test_one_token_per_known_channel_and_one_of_all_static_values():
    append = build(lambda: CovariateTokens(4, n_known=3, n_static=2, d_model=5))
    tokens, known, static = normal(2, 6, 5), normal(2, 4, 3), normal(2, 2)
    out = append(tokens, known, static)
    assert out.shape == (2, 6 + 3 + 1, 5)
    assert append.n_tokens == 4
    assert torch.equal(out[:, :6], tokens)
    for channel in range(3):
        want = known[:, :, channel] @ append.known.weight.T + append.known.bias
        torch.testing.assert_close(out[:, 6 + channel], want)
    want = static @ append.static.weight.T + append.static.bias
    torch.testing.assert_close(out[:, 9], want)


def test_nothing_is_built_without_covariates():
    append = CovariateTokens(4, n_known=0, n_static=0, d_model=5)
    assert not list(append.parameters())
    assert append.n_tokens == 0
    tokens = normal(2, 6, 5)
    assert append(tokens) is tokens


def test_half_precision_tokens_are_joined():
    append = build(lambda: CovariateTokens(4, n_known=1, n_static=1, d_model=5)).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        tokens = normal(2, 6, 5).bfloat16()
        out = append(tokens, normal(2, 4, 1), normal(2, 1))
    assert out.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("sizes", "blocks", "message"),
    [
        ((1, 0), {}, r"known is missing, must have shape \(2, 4, 1\)"),
        ((0, 1), {}, r"static is missing, must have shape \(2, 1\)"),
        ((1, 0), {"known": (2, 3, 1)}, r"known is of shape \(2, 3, 1\), must have"),
        ((0, 1), {"static": (2, 4)}, r"static is of shape \(2, 4\), must have"),
        ((0, 0), {"known": (2, 4, 1)}, "built without such channels"),
        ((1, 0), {"known": (2, 4, 1), "static": (2, 1)}, "static is of shape"),
    ],
)
def test_blocks_that_do_not_fit_are_named(sizes, blocks, message):
    append = CovariateTokens(4, *sizes, d_model=5)
    given = {name: torch.zeros(shape) for name, shape in blocks.items()}
    with pytest.raises(InputError, match=message):
        append(torch.zeros(2, 6, 5), **given)
