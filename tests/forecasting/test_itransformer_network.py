"""iTransformer, plain and gated: invariants of the card and independent equations."""

import copy
import pickle

import pytest
import torch
from torch import nn

from sciseq.errors import CapabilityError, InputError
from sciseq.forecasting.gateformer_network import GateformerNetwork
from sciseq.forecasting.itransformer_network import ITransformerNetwork
from sciseq.nn import build_network, set_dropout_generator

LOOKBACK, HORIZON = 20, 4
SMALL = {"d_model": 12, "d_ff": 7, "n_layers": 2, "n_heads": 3}
PATCHES = {"patch_length": 6, "stride": 5}


def build(seed=0, **changes):
    network = build_network(
        lambda: ITransformerNetwork(LOOKBACK, HORIZON, **(SMALL | PATCHES | changes)),
        torch.Generator().manual_seed(seed),
    )
    return network.double().eval()


def normal(*shape, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def force(gate, bias):
    with torch.no_grad():
        for linear in (gate.W1, gate.W2):
            linear.weight.zero_()
            linear.bias.fill_(bias)


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "gated"])
def network(request):
    return build(gated=request.param)


@pytest.fixture(scope="module")
def gated():
    return build(gated=True)


@pytest.fixture
def x():
    return 5 + 3 * normal(3, LOOKBACK, 6)


def reference_encoder(encoder, activation="gelu", norm_first=False):
    """The same layers in torch's own transformer, which is written independently."""
    d_model, d_ff = SMALL["d_model"], SMALL["d_ff"]
    layers = []
    for ours in encoder.layers:
        layer = nn.TransformerEncoderLayer(
            d_model,
            SMALL["n_heads"],
            d_ff,
            activation=activation,
            batch_first=True,
            norm_first=norm_first,
            dtype=torch.float64,
        )
        pairs = {
            "self_attn.in_proj_": "attention.qkv.",
            "self_attn.out_proj.": "attention.out.",
            "linear1.": "feed_forward.W1.",
            "linear2.": "feed_forward.W2.",
            "norm1.": "norm1.",
            "norm2.": "norm2.",
        }
        own = ours.state_dict()
        layer.load_state_dict(
            {
                theirs + kind: own[name + kind]
                for theirs, name in pairs.items()
                for kind in ("weight", "bias")
            }
        )
        layers.append(layer.eval())
    return nn.Sequential(*layers)


def test_plain_network_equals_the_card(x):
    network = build()
    marks = normal(3, LOOKBACK, 4, seed=2)
    mean, scale = x.mean(1, keepdim=True), (x.var(1, False, keepdim=True) + 1e-5).sqrt()
    rows = torch.cat([(x - mean) / scale, marks], 2).mT
    tokens = rows @ network.embedding.linear.weight.T + network.embedding.linear.bias

    def finish(encoded):
        weight, bias = network.projector.weight, network.projector.bias
        return (network.norm(encoded)[:, :6] @ weight.T + bias).mT * scale + mean

    want = finish(reference_encoder(network.encoder)(tokens))
    torch.testing.assert_close(network(x, marks), want, rtol=1e-10, atol=1e-10)
    for wrong in ({"activation": "relu"}, {"norm_first": True}):
        other = finish(reference_encoder(network.encoder, **wrong)(tokens))
        assert (other - want).abs().max() > 1e-3


def test_gated_network_is_the_plain_one_between_two_gates(gated, x):
    marks = normal(3, LOOKBACK, 4, seed=2)
    plain = build()
    own = gated.state_dict()
    plain.load_state_dict({name: own[name] for name in plain.state_dict()})
    # Gate 1 at one and gate 2 at zero leave the host as it was.
    forced = copy.deepcopy(gated)
    force(forced.gate1, 1e3)
    force(forced.gate2, -1e3)
    torch.testing.assert_close(forced(x, marks), plain(x, marks))
    assert not torch.allclose(gated(x, marks), plain(x, marks), atol=1e-2)


def test_dual_embedding_is_that_of_gateformer(gated, x):
    # With the variate encoder shut off, both networks are the same.
    gateformer = build_network(
        lambda: GateformerNetwork(LOOKBACK, HORIZON, **(SMALL | PATCHES)),
        torch.Generator().manual_seed(3),
    ).double()
    own = gated.state_dict()
    gateformer.load_state_dict(
        {
            name: own.get(name, tensor)
            for name, tensor in gateformer.state_dict().items()
            if not name.startswith("encoder.")
        },
        strict=False,
    )
    forced = copy.deepcopy(gated)
    force(forced.gate2, 1e3)
    force(gateformer.gate2, 1e3)
    torch.testing.assert_close(forced(x), gateformer.eval()(x))


def test_gates_forced_open_shut_out_their_partner(gated, x):
    forced = copy.deepcopy(gated)
    force(forced.gate2, 1e3)
    assert torch.all(influence(forced, x)[[0, 1, 3, 4, 5]] == 0)
    assert torch.all(influence(gated, x) > 1e-6)
    forced = copy.deepcopy(gated)
    force(forced.gate1, 1e3)
    y = forced(x)
    with torch.no_grad():
        for parameter in forced.temporal.parameters():
            parameter += 1
    assert torch.equal(forced(x), y)


def influence(network, x, changed=2):
    other = x.clone()
    other[:, :, changed] = other[:, :, changed].square()
    return (network(other) - network(x)).abs().amax((0, 1))


def test_gate_values_reproduce_the_forecast(gated, x):
    marks = normal(3, LOOKBACK, 2, seed=2)
    first, second = gated.gate_values(x, marks)
    assert first.shape == second.shape == (3, 6, SMALL["d_model"])
    z, mean, scale = gated.normalize(x, marks, None)
    tokens = gated.embedding(z, marks)
    v = first * tokens[:, :6] + (1 - first) * gated.temporal(z)
    c = gated.norm(gated.encoder(torch.cat([v, tokens[:, 6:]], 1)))[:, :6]
    y = gated.projector(second * v + (1 - second) * c).mT * scale + mean
    torch.testing.assert_close(gated(x, marks), y)
    with pytest.raises(CapabilityError, match="gated=True"):
        build().gate_values(x)


# What depends on what


def test_order_of_variates_does_not_matter(network, x):
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    marks = normal(3, LOOKBACK, 4, seed=2)
    y = network(x, marks)
    torch.testing.assert_close(network(x[..., order], marks), y[..., order])
    assert torch.all(influence(network, x) > 1e-6)
    # A code of positions on the tokens would break it.
    positional = copy.deepcopy(network)
    positional.embedding.register_forward_hook(
        lambda embed, inputs, tokens: (
            tokens + torch.arange(tokens.shape[1]).double().view(1, -1, 1)
        )
    )
    moved = positional(x[..., order], marks)
    assert not torch.allclose(moved, positional(x, marks)[..., order], atol=1e-3)


@pytest.mark.parametrize("n_variates", [1, 2, 17])
def test_any_number_of_variates(network, n_variates):
    y = network(normal(2, LOOKBACK, n_variates))
    assert y.shape == (2, HORIZON, n_variates)
    assert torch.isfinite(y).all()


def test_marks_act_as_extra_tokens_and_are_not_normalised(network, x):
    marks = normal(3, LOOKBACK, 4, seed=2)
    seen = []
    handle = network.encoder.register_forward_hook(
        lambda encoder, inputs, output: seen.append(output.shape[1])
    )
    y = network(x, marks)
    handle.remove()
    assert seen == [6 + 4]
    assert y.shape == (3, HORIZON, 6)
    assert (y - network(x)).abs().max() > 1e-4
    assert (y - network(x, 2 * marks + 1)).abs().max() > 1e-4


def test_affine_equivariance_needs_instance_norm(network, x):
    a = torch.tensor([0.5, 2.0, 10.0, 1.0, 30.0, 3.0]).double()
    b = torch.tensor([-5.0, 0.0, 100.0, 7.0, 1.0, -40.0]).double()
    torch.testing.assert_close(
        network(a * x + b), a * network(x) + b, rtol=1e-4, atol=1e-4
    )
    plain = build(use_norm=False, gated=network.gated)
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
    assert torch.equal(y, network(x, observed=observed))
    assert torch.isnan(network(spoiled)).any()


# Covariates


@pytest.mark.parametrize("is_gated", [False, True])
def test_covariates_act_on_every_variate_and_add_no_output(x, is_gated):
    network = build(n_known=2, n_static=3, horizon=5, gated=is_gated)
    marks, known, static = normal(3, LOOKBACK, 4), normal(3, 5, 2), normal(3, 3)
    y = network(x, marks, known=known, static=static)
    assert y.shape == (3, HORIZON, 6)
    for changes in ({"known": known + 1}, {"static": static + 1}):
        other = network(x, marks, **({"known": known, "static": static} | changes))
        assert torch.all((other - y).abs().amax((0, 1)) > 1e-6)
    # Channels known ahead are a set, as variates are.
    swapped = network(x, marks, known=known.flip(2), static=static)
    torch.testing.assert_close(swapped, y)
    with pytest.raises(InputError, match="static is missing"):
        network(x, marks, known=known)


def test_unexpected_covariates_are_refused(network, x):
    with pytest.raises(InputError, match=r"static is of shape.*built without"):
        network(x, static=normal(3, 1))


# Batches, copies, dropout


def test_batch_equals_stack_of_singles(network, x):
    singles = torch.cat([network(window[None]) for window in x])
    torch.testing.assert_close(network(x), singles, rtol=1e-12, atol=1e-12)


def test_state_dict_and_pickle_give_equal_bits(network, x):
    other = build(seed=9, gated=network.gated)
    assert not torch.allclose(other(x), network(x))
    other.load_state_dict(network.state_dict())
    assert torch.equal(other(x), network(x))
    assert torch.equal(pickle.loads(pickle.dumps(network))(x), network(x))


@pytest.mark.parametrize("is_gated", [False, True])
def test_training_is_reproducible_and_leaves_global_state_alone(x, is_gated):
    def train(seed):
        network = build(dropout=0.3, gated=is_gated).train()
        set_dropout_generator(network, torch.Generator().manual_seed(seed))
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
        for _ in range(3):
            optimizer.zero_grad()
            network(x).square().mean().backward()
            optimizer.step()
        assert all(one.grad.abs().max() > 0 for one in network.parameters())
        return network.eval()(x)

    before = torch.random.get_rng_state()
    first = train(0)
    assert torch.equal(first, train(0))
    assert not torch.equal(first, train(1))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_no_dropout_in_eval_mode(x):
    assert torch.equal(build(dropout=0.5)(x), build(dropout=0.0)(x))


def test_wrong_shapes_are_named(network):
    with pytest.raises(InputError, match=r"\(2, 21, 3\).*\(batch, 20,"):
        network(torch.zeros(2, LOOKBACK + 1, 3))
