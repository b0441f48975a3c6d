"""S-Mamba: invariants of the card, the published layout, and numerical safety."""

import copy
import itertools
import math
import pickle

import numpy as np
import pytest
import torch
from scipy.special import erf

from sciseq.errors import CheckpointError, InputError
from sciseq.forecasting.smamba_network import (
    SMambaNetwork,
    load_published_state_dict,
    published_name_map,
)
from sciseq.nn import build_network, set_dropout_generator

LOOKBACK, HORIZON = 10, 4
SMALL = {"d_model": 18, "d_ff": 7, "n_layers": 2, "d_state": 3}


def build(seed=0, **changes):
    network = build_network(
        lambda: SMambaNetwork(LOOKBACK, HORIZON, **(SMALL | changes)),
        torch.Generator().manual_seed(seed),
    )
    return network.double().eval()


def normal(*shape, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@pytest.fixture(scope="module")
def network():
    return build()


@pytest.fixture
def x():
    return 5 + 3 * normal(3, LOOKBACK, 6)


@pytest.mark.parametrize(
    ("d_model", "d_state", "n_layers", "count"),
    [
        (256, 2, 2, 1_145_696),  # ETTh1
        (128, 32, 2, 348_640),  # Exchange
        (512, 2, 3, 6_631_008),  # Weather
        (512, 16, 3, 6_760_032),  # ECL
        (512, 32, 4, 9_176_672),  # Traffic
    ],
)
def test_parameter_count(d_model, d_state, n_layers, count):
    with torch.device("meta"):
        network = SMambaNetwork(
            96, 96, d_model=d_model, d_ff=d_model, n_layers=n_layers, d_state=d_state
        )
    assert sum(parameter.numel() for parameter in network.parameters()) == count


# Order of the variates


def swap_directions(network):
    swapped = copy.deepcopy(network)
    for layer in swapped.layers:
        layer.forward_block, layer.backward_block = (
            layer.backward_block,
            layer.forward_block,
        )
    return swapped


def test_swapping_directions_mirrors_the_order(network, x):
    y = network(x)
    mirrored = swap_directions(network)(x.flip(2)).flip(2)
    torch.testing.assert_close(mirrored, y, rtol=1e-11, atol=1e-12)
    # Neither half of the operation is enough, and the network is not equivariant.
    assert not torch.allclose(network(x.flip(2)).flip(2), y, atol=1e-4)
    assert not torch.allclose(swap_directions(network)(x), y, atol=1e-4)


def test_mirror_symmetry_fails_without_the_flip(network, x, monkeypatch):
    monkeypatch.setattr(
        type(network.layers[0]),
        "forward",
        lambda layer, tokens: layer.norm2(
            layer.norm1(
                tokens + layer.forward_block(tokens) + layer.backward_block(tokens)
            )
        ),
    )
    mirrored = swap_directions(network)(x.flip(2)).flip(2)
    assert not torch.allclose(mirrored, network(x), atol=1e-4)


def test_without_output_projections_variates_are_independent(network, x):
    separate = copy.deepcopy(network)
    with torch.no_grad():
        for layer in separate.layers:
            layer.forward_block.out_proj.weight.zero_()
            layer.backward_block.out_proj.weight.zero_()
    changed = x.clone()
    changed[:, :, 2] = changed[:, :, 2].square()
    others = [0, 1, 3, 4, 5]
    assert torch.equal(separate(changed)[..., others], separate(x)[..., others])
    assert not torch.allclose(separate(changed)[..., 2], separate(x)[..., 2])
    difference = (network(changed) - network(x)).abs()
    assert torch.all(difference[..., others].amax((0, 1)) > 1e-6)


@pytest.mark.parametrize("n_variates", [1, 2, 11])
def test_any_number_of_variates(network, n_variates):
    y = network(normal(2, LOOKBACK, n_variates))
    assert y.shape == (2, HORIZON, n_variates)
    assert torch.isfinite(y).all()


# Normalisation


def test_affine_equivariance_needs_instance_norm(network, x):
    a = torch.tensor([0.5, 2.0, 10.0, 1.0, 30.0, 3.0]).double()
    b = torch.tensor([-5.0, 0.0, 100.0, 7.0, 1.0, -40.0]).double()
    torch.testing.assert_close(
        network(a * x + b), a * network(x) + b, rtol=1e-4, atol=1e-4
    )
    plain = build(use_norm=False)
    assert not torch.allclose(plain(a * x + b), a * plain(x) + b, rtol=1e-2)


def test_constant_window_gives_a_finite_forecast_near_it(network):
    y = network(torch.full((1, LOOKBACK, 3), 42.0, dtype=torch.float64))
    assert (y - 42).abs().max() < 0.05


def test_missing_values_do_not_matter(network, x):
    observed = torch.ones_like(x, dtype=torch.bool)
    torch.testing.assert_close(network(x, observed=observed), network(x))
    observed[0, 3:6, 1] = False
    observed[1, :, 4] = False
    spoiled = torch.where(observed, x, torch.nan)
    y = network(spoiled, observed=observed)
    assert torch.isfinite(y).all()
    torch.testing.assert_close(y, network(x, observed=observed), rtol=0, atol=0)
    plain = build(use_norm=False)
    assert torch.isfinite(plain(spoiled, observed=observed)).all()
    assert torch.isnan(network(spoiled)).any()


@pytest.mark.parametrize("factor", [1e-30, 1e-10, 1.0, 1e10, 1e30])
def test_gradients_are_finite_at_any_scale(factor):
    network = build().float()
    x = (normal(2, LOOKBACK, 3) * factor).float().requires_grad_()
    y = network(x)
    assert torch.isfinite(y).all()
    if factor >= 1:
        want = network((x / factor).detach())
        torch.testing.assert_close(y / factor, want, rtol=1e-3, atol=1e-3)
    y.mean().backward()
    tensors = [x, *network.parameters()]
    assert all(torch.isfinite(tensor.grad).all() for tensor in tensors)


# Time marks


def test_marks_act_without_changing_the_width(network, x):
    marks = normal(3, LOOKBACK, 4, seed=2)
    y = network(x, marks=marks)
    assert y.shape == (3, HORIZON, 6)
    assert (y - network(x)).abs().max() > 1e-4
    assert (y - network(x, marks=marks.flip(0))).abs().max() > 1e-4


def test_marks_are_not_normalised(network, x):
    marks = normal(3, LOOKBACK, 1, seed=2)
    y = network(x, marks=marks)
    assert not torch.allclose(network(x, marks=2 * marks + 1), y, atol=1e-4)


# Batches, copies, dropout


def test_batch_equals_stack_of_singles(network, x):
    marks = normal(3, LOOKBACK, 2)
    singles = [network(x[i : i + 1], marks[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(
        network(x, marks), torch.cat(singles), rtol=1e-12, atol=1e-12
    )


def test_state_dict_and_pickle_give_equal_bits(network, x):
    other = build(seed=9)
    assert not torch.allclose(other(x), network(x))
    other.load_state_dict(network.state_dict())
    assert torch.equal(other(x), network(x))
    assert torch.equal(pickle.loads(pickle.dumps(network))(x), network(x))


def test_training_is_reproducible_and_leaves_global_state_alone(x):
    def train(seed):
        network = build(dropout=0.3).train()
        set_dropout_generator(network, torch.Generator().manual_seed(seed))
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
        for _ in range(3):
            optimizer.zero_grad()
            network(x).square().mean().backward()
            optimizer.step()
        return network.eval()(x)

    before = torch.random.get_rng_state()
    first = train(0)
    assert torch.equal(first, train(0))
    assert not torch.equal(first, train(1))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_no_dropout_in_eval_mode(x):
    assert torch.equal(build(dropout=0.5)(x), build(dropout=0.0)(x))
    with pytest.raises(InputError, match="set_dropout_generator"):
        build(dropout=0.5).train()(x)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x": torch.zeros(2, LOOKBACK + 1, 3)}, r"\(2, 11, 3\).*\(batch, 10,"),
        ({"x": torch.zeros(LOOKBACK, 3)}, "x has shape"),
        (
            {"x": torch.zeros(2, LOOKBACK, 3), "marks": torch.zeros(2, 14, 4)},
            r"marks has shape \(2, 14, 4\)",
        ),
        (
            {
                "x": torch.zeros(2, LOOKBACK, 3),
                "observed": torch.ones(2, LOOKBACK, 1, dtype=torch.bool),
            },
            "observed has shape",
        ),
        (
            {"x": torch.zeros(2, LOOKBACK, 3), "observed": torch.ones(2, LOOKBACK, 3)},
            r"dtype torch\.float32, must be .* torch\.bool",
        ),
    ],
)
def test_wrong_shapes_are_named(network, arguments, message):
    with pytest.raises(InputError, match=message):
        network(**arguments)


# Published checkpoints


def make_published_state(n_layers=2, d=18, f=7, n=3, k=2, rank=2, seed=5):
    """Random weights in the layout of the original model, unused modules included."""
    counter = itertools.count(seed)

    def tensor(*shape):
        return 0.4 * normal(*shape, seed=next(counter))

    def mamba(prefix, d, rank):
        return {
            f"{prefix}.A_log": tensor(d, n),
            f"{prefix}.D": tensor(d),
            f"{prefix}.in_proj.weight": tensor(2 * d, d),
            f"{prefix}.conv1d.weight": tensor(d, 1, k),
            f"{prefix}.conv1d.bias": tensor(d),
            f"{prefix}.x_proj.weight": tensor(rank + 2 * n, d),
            f"{prefix}.dt_proj.weight": tensor(d, rank),
            f"{prefix}.dt_proj.bias": tensor(d),
            f"{prefix}.out_proj.weight": tensor(d, d),
        }

    def affine(prefix, *shape):
        return {f"{prefix}.weight": tensor(*shape), f"{prefix}.bias": tensor(shape[0])}

    state = affine("enc_embedding.value_embedding", d, LOOKBACK)
    for index in range(n_layers):
        layer = f"encoder.attn_layers.{index}"
        state |= mamba(f"{layer}.attention", d, rank)
        state |= mamba(f"{layer}.attention_r", d, rank)
        state |= affine(f"{layer}.conv1", f, d, 1)
        state |= affine(f"{layer}.conv2", d, f, 1)
        state |= affine(f"{layer}.norm1", d) | affine(f"{layer}.norm2", d)
        state |= mamba(f"{layer}.man", 11, 1) | mamba(f"{layer}.man2", 11, 1)
        state |= affine(f"{layer}.a.query_projection", 11, 11)
    return state | affine("encoder.norm", d) | affine("projector", HORIZON, d)


def published_forward(state, x, marks):
    """The original forward pass of one window, written from the card's equations."""
    p = {name: tensor.numpy() for name, tensor in state.items()}

    def silu(v):
        return v / (1 + np.exp(-v))

    def layer_norm(v, prefix):
        v = (v - v.mean()) / math.sqrt(v.var() + 1e-5)
        return v * p[f"{prefix}.weight"] + p[f"{prefix}.bias"]

    def mamba(tokens, prefix):
        w = {
            name.removeprefix(f"{prefix}."): value
            for name, value in p.items()
            if name.startswith(f"{prefix}.")
        }
        d, n = w["A_log"].shape
        rank = w["dt_proj.weight"].shape[1]
        h, previous, outputs = np.zeros((d, n)), np.zeros(d), []
        for token in tokens:
            x, z = np.split(w["in_proj.weight"] @ token, 2)
            kernel = w["conv1d.weight"][:, 0]
            conv = silu(kernel[:, 1] * x + kernel[:, 0] * previous + w["conv1d.bias"])
            previous = x
            low, B, C = np.split(w["x_proj.weight"] @ conv, [rank, rank + n])
            dt = np.log1p(np.exp(w["dt_proj.weight"] @ low + w["dt_proj.bias"]))
            for c in range(d):
                decay = np.exp(-dt[c] * np.exp(w["A_log"][c]))
                h[c] = decay * h[c] + dt[c] * conv[c] * B
            y = h @ C + w["D"] * conv
            outputs.append(w["out_proj.weight"] @ (y * silu(z)))
        return outputs

    mean, scale = x.mean(0), np.sqrt(x.var(0) + 1e-5)
    rows = [*((x - mean) / scale).T, *marks.T]
    weight, bias = (
        p[f"enc_embedding.value_embedding.{kind}"] for kind in ("weight", "bias")
    )
    tokens = [weight @ row + bias for row in rows]
    n_layers = sum(name.endswith(".norm1.weight") for name in p)
    for index in range(n_layers):
        layer = f"encoder.attn_layers.{index}"
        ahead = mamba(tokens, f"{layer}.attention")
        back = mamba(tokens[::-1], f"{layer}.attention_r")[::-1]
        for i, token in enumerate(tokens):
            x1 = layer_norm(token + ahead[i] + back[i], f"{layer}.norm1")
            hidden = p[f"{layer}.conv1.weight"][:, :, 0] @ x1 + p[f"{layer}.conv1.bias"]
            hidden = hidden * 0.5 * (1 + erf(hidden / math.sqrt(2)))
            out = p[f"{layer}.conv2.weight"][:, :, 0] @ hidden
            out += p[f"{layer}.conv2.bias"]
            tokens[i] = layer_norm(x1 + out, f"{layer}.norm2")
    columns = [
        p["projector.weight"] @ layer_norm(token, "encoder.norm") + p["projector.bias"]
        for token in tokens[: x.shape[1]]
    ]
    return np.stack(columns, 1) * scale + mean


def test_published_weights_give_the_published_forecast(x):
    state = make_published_state()
    network = build()
    load_published_state_dict(network, state)
    marks = normal(3, LOOKBACK, 4, seed=2)
    y = network(x, marks).detach().numpy()
    for got, window, window_marks in zip(y, x.numpy(), marks.numpy(), strict=True):
        want = published_forward(state, window, window_marks)
        np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-11)
    # Exchanging the two directions is what a wrong map would do.
    swapped = swap_directions(network)(x, marks).detach().numpy()
    assert np.abs(swapped - y).max() > 1e-2


def test_name_map_is_one_to_one(network):
    names = published_name_map(2)
    assert len(set(names.values())) == len(names)
    assert set(names.values()) == set(network.state_dict())
    unused = {"man", "man2", "a"}
    assert set(names) == {
        name
        for name in make_published_state()
        if not unused & set(name.split(".")[3:4])
    }


def test_published_state_that_does_not_fit_changes_nothing(x):
    network = build()
    want = network(x)
    state = make_published_state()

    def refuse(changes, message, removed=()):
        changed = {k: v for k, v in (state | changes).items() if k not in removed}
        with pytest.raises(CheckpointError, match=message):
            load_published_state_dict(network, changed)
        assert torch.equal(network(x), want)

    refuse({}, "1 parameters are missing: projector.bias", {"projector.bias"})
    refuse({"extra.weight": torch.ones(1)}, "1 parameters are unexpected: extra.weight")
    refuse(
        {"projector.bias": torch.ones(HORIZON + 1)},
        r"projector.bias \(5,\) instead of \(4,\)",
    )
    refuse(
        {"encoder.attn_layers.0.conv1.weight": torch.ones(7, 18)},
        r"conv1.weight \(7, 18\) instead of \(7, 18, 1\)",
    )
    third_layer = {f"encoder.attn_layers.2.man.{i}": torch.ones(1) for i in range(12)}
    refuse(third_layer, r"12 parameters are unexpected: (\S+, ){10}\.\.\.")
