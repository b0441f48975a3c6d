"""The inner part of a Mamba block: one fused step equals the composed equations."""

import pytest
import torch
import torch.nn.functional as F

from sciseq.errors import CapabilityError
from sciseq.ops.causal_convolution import causal_depthwise_convolution
from sciseq.ops.mamba_inner import mamba_inner
from sciseq.ops.selective_scan import selective_scan


def make_inputs(batch, token, channel, state, rank, n_taps, dtype=torch.float64):
    generator = torch.Generator().manual_seed(channel)

    def normal(*sizes):
        return torch.randn(*sizes, generator=generator, dtype=torch.float64).to(dtype)

    return [
        normal(batch, token, 2 * channel),
        normal(channel, 1, n_taps),
        normal(channel),
        normal(rank + 2 * state, channel) / channel**0.5,
        normal(channel, rank),
        normal(channel),
        normal(channel, state),
        normal(channel),
    ]


def fused(xz, kernels, bias, *weights, reverse):
    return mamba_inner(xz, (kernels, bias), *weights, reverse=reverse)


def composed(xz, kernels, bias, W_x, W_dt, dt_bias, A_log, D, *, reverse):
    x, z = xz.chunk(2, -1)
    if reverse:
        x = x.flip(1)
    x = F.silu(causal_depthwise_convolution(x, kernels, bias))
    A = -torch.exp(A_log)
    d, B, C = (x @ W_x.T).split([W_dt.shape[1], A.shape[1], A.shape[1]], -1)
    dt = F.softplus(d @ W_dt.T + dt_bias)
    y = selective_scan(x.mT, dt.mT, A, B.mT, C.mT, D, backend="reference").mT
    return (y.flip(1) if reverse else y) * F.silu(z)


def values_and_gradients(function, inputs, reverse):
    inputs = [one.detach().clone().requires_grad_() for one in inputs]
    y = function(*inputs, reverse=reverse)
    weight = torch.linspace(-1, 1, max(y.numel(), 1), dtype=y.dtype)[: y.numel()]
    loss = (y * weight.reshape(y.shape)).sum()
    return [y, *torch.autograd.grad(loss, inputs, materialize_grads=True)]


@pytest.mark.parametrize("backend", ["c", "reference"])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(
    "sizes",
    [
        (2, 7, 5, 3, 2, 4),
        (1, 1, 1, 1, 1, 1),
        (3, 40, 20, 16, 1, 2),
        (1, 34, 150, 2, 3, 4),  # channels cut into parts
        (2, 0, 4, 2, 1, 2),
        (4, 1, 16, 2, 1, 2),
    ],
)
def test_equals_the_equations(sizes, reverse, backend, monkeypatch):
    monkeypatch.setenv("SCISEQ_SCAN", backend)
    inputs = make_inputs(*sizes)
    got = values_and_gradients(fused, inputs, reverse)
    want = values_and_gradients(composed, inputs, reverse)
    for index, (a, b) in enumerate(zip(got, want, strict=True)):
        assert a.shape == b.shape
        if a.numel():
            assert (a - b).abs().max() <= 1e-12 * b.abs().max(), index
    if sizes[1] > 1:
        wrong = fused(*inputs, reverse=not reverse)
        assert not torch.allclose(wrong, want[0], atol=1e-3)


def test_without_offsets_of_the_convolution():
    inputs = make_inputs(2, 6, 4, 2, 1, 3)
    inputs[2] = torch.zeros_like(inputs[2])
    want = fused(*inputs, reverse=False)
    inputs = [one.requires_grad_() for one in inputs]
    got = fused(*inputs[:2], None, *inputs[3:], reverse=False)
    torch.testing.assert_close(got, want, rtol=1e-13, atol=1e-14)
    got.sum().backward()
    assert inputs[2].grad is None
    assert all(one.grad is not None for k, one in enumerate(inputs) if k != 2)


def test_it_is_one_step_of_autograd_and_keeps_little(monkeypatch):
    monkeypatch.setenv("SCISEQ_SCAN", "c")
    sizes = batch, token, channel, state, rank, _ = 2, 100, 8, 4, 1, 2
    inputs = [one.requires_grad_() for one in make_inputs(*sizes)]
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda one: kept.append(one.numel()) or one, lambda one: one
    ):
        y = fused(*inputs, reverse=False)
    # Behind the transposition of y stands one node, and then the inputs alone.
    node = y.grad_fn
    while node is not None and not type(node).__name__.startswith("_Inner"):
        (node, _), *others = node.next_functions
        assert not others
    assert type(node).__name__ == "_InnerBackward"
    lanes = 8
    n_checkpoints = 3 * batch * state * lanes
    activations = batch * token * (channel + (rank + 2 * state) + channel)
    own = sum(one.numel() for one in inputs)
    assert sum(kept) <= own + activations + n_checkpoints


def test_low_precision_and_second_derivatives_go_the_composed_way(monkeypatch):
    monkeypatch.setenv("SCISEQ_SCAN", "c")
    inputs = make_inputs(2, 9, 6, 2, 1, 2, dtype=torch.float32)
    want = fused(*inputs, reverse=False)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = fused(*inputs, reverse=False)
    assert 0 < (low - want).abs().max() < 0.05 * want.abs().max()
    inputs[0].requires_grad_()
    y = fused(*inputs, reverse=False)
    with pytest.raises(CapabilityError, match=r"first derivatives.*reference"):
        torch.autograd.grad(y.sum(), inputs[0], create_graph=True)
