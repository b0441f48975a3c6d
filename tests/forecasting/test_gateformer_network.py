"""Gateformer: invariants of the card and equality with its equations."""

import copy
import math
import pickle

import numpy as np
import pytest
import torch

from sciseq.errors import InputError
from sciseq.forecasting.gateformer_network import GateformerNetwork
from sciseq.nn import build_network, set_dropout_generator

LOOKBACK, HORIZON = 21, 4
SMALL = {
    "d_model": 12,
    "d_ff": 7,
    "n_layers": 2,
    "n_heads": 3,
    "patch_length": 6,
    "stride": 5,
}


def build(seed=0, **changes):
    network = build_network(
        lambda: GateformerNetwork(LOOKBACK, HORIZON, **(SMALL | changes)),
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


@pytest.fixture(scope="module")
def network():
    return build()


@pytest.fixture
def x():
    return 5 + 3 * normal(3, LOOKBACK, 6)


@pytest.mark.parametrize(
    ("d_model", "d_ff", "n_layers", "count"),
    [
        (64, 64, 1, 133_344),  # ETTh1
        (512, 512, 2, 10_873_952),  # ECL
        (512, 1024, 2, 12_973_152),  # Weather
    ],
)
def test_parameter_count(d_model, d_ff, n_layers, count):
    with torch.device("meta"):
        network = GateformerNetwork(
            96, 96, d_model=d_model, d_ff=d_ff, n_layers=n_layers
        )
    assert sum(parameter.numel() for parameter in network.parameters()) == count


def published_forward(state, x, *, n_heads, patch_length, stride):
    """One window, step by step from the card's equations."""
    p = {name: tensor.numpy() for name, tensor in state.items()}
    length, n_variates = x.shape

    def linear(v, name):
        return p[f"{name}.weight"] @ v + p[f"{name}.bias"]

    def layer_norm(v, name):
        v = (v - v.mean()) / math.sqrt(v.var() + 1e-5)
        return v * p[f"{name}.weight"] + p[f"{name}.bias"]

    def attention(tokens, name):
        triples = [np.split(linear(token, f"{name}.qkv"), 3) for token in tokens]
        outputs = []
        for query, _, _ in triples:
            heads = []
            for rows in np.split(np.arange(len(query)), n_heads):
                scores = [query[rows] @ key[rows] for _, key, _ in triples]
                weights = np.exp(np.array(scores) / math.sqrt(len(rows)))
                weights /= weights.sum()
                pairs = zip(weights, triples, strict=True)
                heads.append(sum(w * value[rows] for w, (_, _, value) in pairs))
            outputs.append(linear(np.concatenate(heads), f"{name}.out"))
        return outputs

    def encode(tokens, name):
        n_layers = len({key for key in p if key.startswith(f"{name}.layers.")}) // 12
        tokens = list(tokens)
        for layer in (f"{name}.layers.{index}" for index in range(n_layers)):
            read = attention([layer_norm(t, f"{layer}.norm1") for t in tokens],
                             f"{layer}.attention")  # fmt: skip
            for i, token in enumerate(tokens):
                a = token + read[i]
                hidden = linear(layer_norm(a, f"{layer}.norm2"),
                                f"{layer}.feed_forward.W1")  # fmt: skip
                hidden = np.maximum(hidden, 0)
                tokens[i] = a + linear(hidden, f"{layer}.feed_forward.W2")
        return tokens

    def gate(first, second, name):
        s = linear(first, f"{name}.W1") + linear(second, f"{name}.W2")
        s = 1 / (1 + np.exp(-s))
        return s * first + (1 - s) * second

    mean, scale = x.mean(0), np.sqrt(x.var(0) + 1e-5)
    v = []
    for series in ((x - mean) / scale).T:
        padded = np.concatenate([series, np.full(stride, series[-1])])
        starts = range(0, len(padded) - patch_length + 1, stride)
        patches = []
        for j, start in enumerate(starts):
            token = p["temporal.patches.linear.weight"] @ padded[start:][:patch_length]
            for channel in range(len(token)):
                angle = j / 10_000 ** (2 * (channel // 2) / len(token))
                token[channel] += math.cos(angle) if channel % 2 else math.sin(angle)
            patches.append(token)
        assert len(patches) == (length - patch_length) // stride + 2
        encoded = np.stack(encode(patches, "temporal.encoder"))
        view = linear(encoded.T.ravel(), "temporal.linear")
        v.append(gate(linear(series, "embedding.linear"), view, "gate1"))
    c = encode(v, "encoder")
    columns = [
        linear(gate(mine, seen, "gate2"), "projector")
        for mine, seen in zip(v, c, strict=True)
    ]
    assert len(columns) == n_variates
    return np.stack(columns, 1) * scale + mean


def test_equals_the_card(network, x):
    shaken = copy.deepcopy(network)  # layers that started equal are told apart
    with torch.no_grad():
        for index, parameter in enumerate(shaken.parameters()):
            parameter += 0.1 * normal(*parameter.shape, seed=index)
    y = shaken(x).detach().numpy()
    sizes = {name: SMALL[name] for name in ("n_heads", "patch_length", "stride")}
    for got, window in zip(y, x.numpy(), strict=True):
        want = published_forward(shaken.state_dict(), window, **sizes)
        # The fixed positions are stored in float32.
        np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)
    # The same check rejects exchanged gates and post-norm layers.
    wrong = copy.deepcopy(shaken)
    wrong.gate1, wrong.gate2 = wrong.gate2, wrong.gate1
    assert np.abs(wrong(x).detach().numpy() - y).max() > 1e-2
    wrong = copy.deepcopy(shaken)
    for layer in wrong.encoder.layers:
        layer.pre_norm = False
    assert np.abs(wrong(x).detach().numpy() - y).max() > 1e-2


def test_layers_of_an_encoder_start_equal():
    network = build(n_layers=3)
    for encoder in (network.encoder, network.temporal.encoder):
        first, *others = (layer.state_dict() for layer in encoder.layers)
        for other in others:
            assert all(torch.equal(first[name], other[name]) for name in first)
    of_time = network.temporal.encoder.layers[0].feed_forward.W1.weight
    assert not torch.equal(of_time, network.encoder.layers[0].feed_forward.W1.weight)
    again = build(n_layers=3).state_dict()
    assert all(
        torch.equal(one, again[name]) for name, one in network.state_dict().items()
    )


# What depends on what


def test_order_of_variates_does_not_matter(network, x):
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    y = network(x)
    torch.testing.assert_close(network(x[..., order]), y[..., order])
    # With a code of positions on the variates it would.
    positional = copy.deepcopy(network)
    positional.gate1.register_forward_hook(
        lambda gate, inputs, v: v + torch.arange(6.0).double().view(1, 6, 1)
    )
    assert not torch.allclose(
        positional(x[..., order]), positional(x)[..., order], atol=1e-3
    )


def influence(network, x, changed=2):
    """Largest change of each variate's forecast when one variate changes."""
    other = x.clone()
    other[:, :, changed] = other[:, :, changed].square()
    return (network(other) - network(x)).abs().amax((0, 1))


def test_gate2_forced_to_one_makes_variates_independent(network, x):
    forced = copy.deepcopy(network)
    force(forced.gate2, 1e3)
    change = influence(forced, x)
    assert change[2] > 1e-3
    assert torch.all(change[[0, 1, 3, 4, 5]] == 0)
    force(forced.gate2, -1e3)  # the wrong end: only the mixed token is left
    assert torch.all(influence(forced, x) > 1e-6)
    assert torch.all(influence(network, x) > 1e-6)


def test_gate1_forced_to_one_ignores_the_patches(network, x):
    forced = copy.deepcopy(network)
    force(forced.gate1, 1e3)
    y = forced(x)
    with torch.no_grad():
        for parameter in forced.temporal.parameters():
            parameter += 1
    assert torch.equal(forced(x), y)
    force(forced.gate1, -1e3)
    y = forced(x)
    with torch.no_grad():
        forced.embedding.linear.weight += 1
    assert torch.equal(forced(x), y)  # zero ignores the global token
    with torch.no_grad():
        forced.temporal.linear.bias += normal(SMALL["d_model"])
    assert not torch.allclose(forced(x), y, atol=1e-3)


@pytest.mark.parametrize("n_variates", [1, 2, 17])
def test_any_number_of_variates(network, n_variates):
    y = network(normal(2, LOOKBACK, n_variates))
    assert y.shape == (2, HORIZON, n_variates)
    assert torch.isfinite(y).all()


def test_marks_are_ignored_as_published(network, x):
    assert torch.equal(network(x, normal(3, LOOKBACK, 4)), network(x))


def test_gate_values_reproduce_the_forecast(network, x):
    first, second = network.gate_values(x)
    assert first.shape == second.shape == (3, 6, SMALL["d_model"])
    z, mean, scale = network.normalize(x, None, None)
    g, p = network.embedding(z), network.temporal(z)
    v = first * g + (1 - first) * p
    o = second * v + (1 - second) * network.encoder(v)
    y = network.projector(o).mT * scale + mean
    torch.testing.assert_close(network(x), y)
    forced = copy.deepcopy(network)
    force(forced.gate1, math.log(3) / 2)
    torch.testing.assert_close(forced.gate_values(x)[0], torch.full_like(first, 0.75))


# Normalisation and gaps


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
    assert torch.equal(y, network(x, observed=observed))
    assert torch.isfinite(build(use_norm=False)(spoiled, observed=observed)).all()
    assert torch.isnan(network(spoiled)).any()


# Covariates


def test_covariates_act_on_every_variate_and_add_no_output(x):
    network = build(n_known=2, n_static=3, horizon=5)
    known, static = normal(3, 5, 2), normal(3, 3)
    y = network(x, known=known, static=static)
    assert y.shape == (3, HORIZON, 6)
    for changes in ({"known": known + 1}, {"static": static + 1}):
        other = network(x, **({"known": known, "static": static} | changes))
        assert torch.all((other - y).abs().amax((0, 1)) > 1e-6)
    with pytest.raises(InputError, match="known is missing"):
        network(x, static=static)


def test_unexpected_covariates_are_refused(network, x):
    with pytest.raises(InputError, match=r"known is of shape.*built without"):
        network(x, known=normal(3, HORIZON, 1))


# Batches, copies, dropout


def test_batch_equals_stack_of_singles(network, x):
    singles = torch.cat([network(window[None]) for window in x])
    torch.testing.assert_close(network(x), singles, rtol=1e-12, atol=1e-12)


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
        assert all(one.grad.abs().max() > 0 for one in network.parameters())
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
        ({"x": torch.zeros(2, LOOKBACK + 1, 3)}, r"\(2, 22, 3\).*\(batch, 21,"),
        (
            {"x": torch.zeros(2, LOOKBACK, 3), "marks": torch.zeros(2, 25, 4)},
            r"marks has shape \(2, 25, 4\)",
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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_heads": 5}, "d_model must be a multiple of n_heads"),
        ({"patch_length": 22}, "patch_length is 22, stride 5 and lookback 21"),
    ],
)
def test_sizes_that_do_not_fit_are_named(changes, message):
    with pytest.raises(InputError, match=message):
        build(**changes)
