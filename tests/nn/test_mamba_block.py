"""The Mamba block: equations, causality, initialisation, precision."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sciseq.nn import MambaBlock, build_network
from sciseq.ops import mamba_inner as inner_module
from sciseq.ops.causal_convolution import causal_depthwise_convolution


def build(*args, **kwargs):
    generator = torch.Generator().manual_seed(0)
    return build_network(lambda: MambaBlock(*args, **kwargs), generator)


def normal(*shape, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def naive_block(state, u, k):
    """Card §1 steps 1 to 8 for one sequence (token, d_model), step by step."""

    def silu(v):
        return v / (1 + np.exp(-v))

    p = {name: tensor.double().numpy() for name, tensor in state.items()}
    n_channel, n_state = p["A_log"].shape
    rank = p["dt_proj.weight"].shape[1]
    h, rows = np.zeros((n_channel, n_state)), []
    xz = [p["in_proj.weight"] @ token for token in u]
    for t in range(len(u)):
        z = xz[t][n_channel:]
        x = p["conv1d.bias"].copy()
        for j in range(k):
            if t - j >= 0:
                x += p["conv1d.weight"][:, 0, k - 1 - j] * xz[t - j][:n_channel]
        x = silu(x)
        d, B, C = np.split(p["x_proj.weight"] @ x, [rank, rank + n_state])
        dt = np.log1p(np.exp(p["dt_proj.weight"] @ d + p["dt_proj.bias"]))
        for c in range(n_channel):
            for n in range(n_state):
                A = -math.exp(p["A_log"][c, n])
                h[c, n] = math.exp(dt[c] * A) * h[c, n] + dt[c] * x[c] * B[n]
        y = h @ C + p["D"] * x
        rows.append(p["out_proj.weight"] @ (y * silu(z)))
    return np.stack(rows)


@pytest.mark.parametrize(
    ("d_model", "n", "k", "e", "n_tokens"),
    [(5, 3, 4, 2, 6), (20, 2, 2, 1, 4), (3, 1, 4, 1, 1), (4, 2, 1, 1, 3)],
)
def test_equals_the_card(d_model, n, k, e, n_tokens):
    block = build(d_model, d_state=n, d_conv=k, expand=e).double()
    u = normal(2, n_tokens, d_model)
    out = block(u).detach().numpy()
    for single, want_of in zip(out, u.numpy(), strict=True):
        want = naive_block(block.state_dict(), want_of, k)
        np.testing.assert_allclose(single, want, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("n_tokens", [1, 2, 3, 7])
@pytest.mark.parametrize("k", [1, 2, 4])
def test_convolution_equals_the_framework(n_tokens, k):
    x, weight, bias = normal(2, n_tokens, 3), normal(3, 1, k), normal(3)
    inputs = [tensor.requires_grad_() for tensor in (x, weight, bias)]
    y = causal_depthwise_convolution(*inputs)
    padded = F.conv1d(x.mT, weight, bias, padding=k - 1, groups=3)
    want = padded[..., :n_tokens].mT
    torch.testing.assert_close(y, want, rtol=1e-12, atol=1e-13)
    without_bias = causal_depthwise_convolution(x, weight)
    torch.testing.assert_close(without_bias, want - bias, rtol=1e-12, atol=1e-13)
    weights = normal(*y.shape, seed=2)
    for got, expected in zip(
        torch.autograd.grad((y * weights).sum(), inputs),
        torch.autograd.grad((want * weights).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-13)
    if n_tokens > k > 1:  # cutting the head instead of the tail is not causal
        assert not torch.allclose(y, padded[..., k - 1 :].mT, atol=1e-3)


def test_convolution_reaches_back_exactly_k_tokens():
    weight, bias = normal(3, 1, 3), normal(3)
    x = normal(1, 8, 3).requires_grad_()
    y = causal_depthwise_convolution(x, weight, bias)
    (gradient,) = torch.autograd.grad(y[0, 5].sum(), x)
    reached = gradient[0].abs().sum(1) > 0
    assert reached.tolist() == [t in (3, 4, 5) for t in range(8)]


def test_block_is_causal():
    block = build(6, d_state=3).double()
    u = normal(2, 9, 6)
    changed = u.clone()
    changed[:, 4] += 1
    difference = (block(changed) - block(u)).abs().amax((0, 2))
    assert torch.all(difference[:4] == 0)
    assert torch.all(difference[4:] > 1e-9)
    flipped = (block(changed.flip(1)) - block(u.flip(1))).flip(1).abs().amax((0, 2))
    assert torch.all(flipped[5:] == 0)
    assert torch.all(flipped[:5] > 1e-9)


def test_initial_values():
    block = build(48, d_state=7, expand=3)
    rank = 3
    want = torch.log(torch.arange(1.0, 8.0)).expand(144, 7)
    assert torch.equal(block.A_log, want)
    assert torch.equal(block.D, torch.ones(144))
    dt = F.softplus(block.dt_proj.bias.double())
    assert 1e-3 * (1 - 1e-4) <= dt.min() < 1.5e-3
    assert 7e-2 < dt.max() <= 1e-1 * (1 + 1e-4)
    # Log-uniform: the median lies at the geometric mean, far below the arithmetic one.
    assert 0.007 < dt.median() < 0.014
    assert block.dt_proj.weight.abs().max() <= rank**-0.5
    assert block.dt_proj.weight.abs().max() > 0.9 * rank**-0.5


@pytest.mark.parametrize(
    ("settings", "count"),
    [
        ({"d_model": 512, "d_state": 32, "d_conv": 2, "expand": 1}, 870_912),
        ({"d_model": 256, "d_state": 2, "d_conv": 2, "expand": 1}, 207_616),
        ({"d_model": 128, "d_state": 2, "d_conv": 2, "expand": 1}, 52_608),
    ],
)
def test_parameter_count(settings, count):
    with torch.device("meta"):
        block = MambaBlock(**settings)
    assert sum(parameter.numel() for parameter in block.parameters()) == count


def test_constructed_directly_the_block_shows_it():
    # Default values of another rule must not pass for an initialised block.
    before = torch.random.get_rng_state()
    assert torch.isnan(MambaBlock(8)(torch.ones(1, 2, 8))).all()
    torch.random.set_rng_state(before)


def test_names_are_the_published_ones():
    assert set(build(8).state_dict()) == {
        "A_log",
        "D",
        "in_proj.weight",
        "conv1d.weight",
        "conv1d.bias",
        "x_proj.weight",
        "dt_proj.weight",
        "dt_proj.bias",
        "out_proj.weight",
    }
    assert build(8).conv1d.weight.shape == (16, 1, 4)


def test_scan_gets_float32_under_autocast(monkeypatch):
    seen = {}

    def spy(u, d, A, *rest, **settings):
        seen.update(u=u.dtype, d=d.dtype, A=A.dtype)
        seen["autocast"] = torch.is_autocast_enabled("cpu")
        return scan(u, d, A, *rest, **settings)

    scan = inner_module.gated_selective_scan
    monkeypatch.setattr(inner_module, "gated_selective_scan", spy)
    block, u = build(16), normal(2, 30, 16).float()
    want = block(u)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = block(u)
    assert seen == {
        "u": torch.float32,
        "d": torch.float32,
        "A": torch.float32,
        "autocast": False,
    }
    assert out.dtype == torch.bfloat16
    assert (out - want).abs().max() < 0.02 * want.abs().max()
    out.float().square().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in block.parameters())


@pytest.mark.parametrize("backend", ["reference", None])
def test_reversed_is_flipped_before_and_after(backend, monkeypatch):
    if backend:
        monkeypatch.setenv("SCISEQ_SCAN", backend)
    block, u = build(5, d_state=3, d_conv=4, expand=2).double(), normal(2, 6, 5)
    want = block(u.flip(1)).flip(1)
    torch.testing.assert_close(block(u, reverse=True), want, rtol=1e-12, atol=1e-14)
    assert not torch.allclose(block(u), want, atol=1e-4)


@pytest.mark.parametrize("n_tokens", [1, 3])
def test_gradients_equal_finite_differences(n_tokens):
    block = build(3, d_state=2, d_conv=2, expand=1).double()
    names = [name for name, _ in block.named_parameters()]
    parameters = [p.detach().requires_grad_() for p in block.parameters()]

    def run(u, *values):
        named = dict(zip(names, values, strict=True))
        return torch.func.functional_call(block, named, (u,))

    u = normal(1, n_tokens, 3).requires_grad_()
    assert torch.autograd.gradcheck(run, (u, *parameters), atol=1e-6)
