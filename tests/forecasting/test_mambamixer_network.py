"""TSM2: invariants of the card, side information, marks, and numerical safety."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F

from sciseq.errors import InputError
from sciseq.forecasting.mambamixer_network import MambaMixerNetwork
from sciseq.nn import WeightedAverage, build_network, set_dropout_generator

LOOKBACK, HORIZON = 14, 4
SMALL = {
    "d_model": 6,
    "n_layers": 2,
    "d_state": 3,
    "d_conv": 2,
    "expand": 1,
    "patch_length": 4,
    "stride": 2,
}


def build(seed=0, n_outputs=HORIZON, **changes):
    network = build_network(
        lambda: MambaMixerNetwork(LOOKBACK, n_outputs, **(SMALL | changes)),
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
    return 5 + 3 * normal(3, LOOKBACK, 5)


def averages(network):
    return [one for one in network.modules() if isinstance(one, WeightedAverage)]


# The whole network, written from the equations


def mamba(block, tokens):
    """The selective block of the card for tokens (N, D), step by step."""
    (ssm,), n = block.ssms, block.ssms[0].A_log.shape[1]
    x, z = (tokens @ block.in_proj.weight.T).chunk(2, -1)
    kernel, outputs, h = block.convolution.weight[:, 0], [], 0
    for t in range(len(x)):
        before = x[t - 1] if t else torch.zeros_like(x[0])
        conv = kernel[:, 1] * x[t] + kernel[:, 0] * before + block.convolution.bias
        conv = F.silu(conv)
        d, B, C = (ssm.x_proj.weight @ conv).split([1, n, n])
        dt = torch.log1p((ssm.dt_proj.weight @ d + ssm.dt_proj.bias).exp())
        decay = (-dt[:, None] * ssm.A_log.exp()).exp()
        h = decay * h + (dt * conv)[:, None] * B
        outputs.append(h @ C + ssm.D * conv)
    return (torch.stack(outputs) * F.silu(z)) @ block.out_proj.weight.T


def standardized(x, norm):
    x = x - x.mean(-1, keepdim=True)
    x = x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    return x * norm.weight + norm.bias


def by_equations(network, window):
    """The forecast of one window (L, V)."""
    mean, scale = window.mean(0), (window.var(0, correction=0) + 1e-5).sqrt()
    series = ((window - mean) / scale).T
    embedding = network.embedding
    starts = range(LOOKBACK % 2, LOOKBACK - 4 + 1, 2)
    patches = torch.stack([series[:, start : start + 4] for start in starts], 1)
    x = patches @ embedding.linear.weight.T + embedding.linear.bias
    x = x + embedding.positions  # (variate, patch, d_model)
    y_T, y_C = [x], [x]

    def weighted(average, *outputs):
        weights = [*average.token_weights, *average.channel_weights]
        outputs = [one for kind in outputs for one in kind]
        return sum(w * y for w, y in zip(weights, outputs, strict=True))

    layers = network.layers
    for layer in range(len(layers.token_mixers)):
        time = layers.token_mixers[layer]
        x_T = weighted(layers.token_averages[layer], y_T, y_C)
        lines = standardized(x_T, time.norm)
        y_T.append(torch.stack([mamba(time.mixer, line) for line in lines]))
        variate = layers.channel_mixers[layer]
        x_C = weighted(layers.channel_averages[layer], y_T, y_C)
        lines = standardized(x_C, variate.norm).transpose(0, 1)
        ahead, back = variate.mixer.forward_block, variate.mixer.backward_block
        both = [mamba(ahead, one) + mamba(back, one.flip(0)).flip(0) for one in lines]
        y_C.append(torch.stack(both, 1))
    out = weighted(layers.output_average, y_T, y_C)  # (variate, patch, d_model)
    out = out.flatten(1) - out.flatten(1).mean(1, keepdim=True)
    out = out / (out.square().mean(1, keepdim=True) + 1e-5).sqrt()
    out = out * network.norm.weight.flatten() + network.norm.bias.flatten()
    y = out @ network.head.weight.T + network.head.bias
    return y.T * scale + mean


@torch.no_grad()
def test_equals_the_equations_window_by_window(x):
    network = build()
    for index, average in enumerate(averages(network)):
        for weights in average.parameters():
            weights.add_(0.3 * normal(len(weights), seed=index))
    network.norm.weight.add_(0.1 * normal(*network.norm.weight.shape))
    network.norm.bias.add_(0.1 * normal(*network.norm.bias.shape, seed=2))
    y = network(x)
    for got, window in zip(y, x, strict=True):
        torch.testing.assert_close(
            got, by_equations(network, window), rtol=1e-10, atol=1e-11
        )
    # Exchanging the directions is what a wrong assignment would do.
    assert (swap_directions(network)(x) - y).abs().max() > 1e-4


@pytest.mark.parametrize(
    ("lookback", "settings", "n_patches"),
    [
        (512, {}, 63),
        (96, {}, 11),
        (99, {}, 11),
        (96, {"n_known": 2, "n_static": 1}, 35),
    ],
)
def test_number_of_patches_and_of_weights(lookback, settings, n_patches):
    D, E, n, k, e, P, H, r = 32, 2, 16, 4, 2, 16, 96, 2
    with torch.device("meta"):
        network = MambaMixerNetwork(
            lookback, H, d_model=D, n_layers=E, d_state=n, **settings
        )
    assert network.embedding.n_patches == n_patches
    if settings:
        return
    C = e * D
    mamba = 2 * D * C + C * (k + 1) + C * (r + 2 * n) + r * C + 2 * C + C * n + C * D
    count = (P + 1) * D + n_patches * D  # patches and positions
    count += E * (3 * mamba + 2 * 2 * D)  # three blocks and two norms in a layer
    count += E * (2 * E + 3) + 2 * E + 2  # averages
    count += 2 * D * n_patches + (D * n_patches + 1) * H
    assert sum(p.numel() for p in network.parameters()) == count


def test_the_newest_steps_are_always_read():
    """Where patches do not fit, steps are left out at the beginning of the series."""
    network = build(patch_length=5, stride=4)  # 14 = 5 + 2 * 4 + 1
    embedding, series = network.embedding, normal(1, LOOKBACK).requires_grad_()
    gradient = torch.autograd.grad(embedding(series).square().sum(), series)[0]
    assert (gradient[0] != 0).tolist() == [False] + 13 * [True]


def test_one_patch_is_enough(x):
    """Normalising over the patches alone would leave nothing of a single one."""
    network = build(patch_length=LOOKBACK)
    assert network.embedding.n_patches == 1
    z, mean, scale = network.normalize(x, None, None)
    y = (network(x) - mean) / scale
    assert (y - y[:1, :, :1]).abs().max() > 1e-2
    features = network.layers(network.embedding(z.mT))
    alone = F.layer_norm(features.mT, (1,))
    assert alone.abs().max() == 0


def test_positions_start_small():
    positions = build(d_model=200).embedding.positions
    assert 0.018 < positions.std() < 0.022


# Order of the variates (check 5), and the special cases of the card (check 7)


def swap_directions(network):
    swapped = copy.deepcopy(network)
    for layer in swapped.layers.channel_mixers:
        mixer = layer.mixer
        mixer.forward_block, mixer.backward_block = (
            mixer.backward_block,
            mixer.forward_block,
        )
    return swapped


def test_swapping_directions_mirrors_the_order(network, x):
    y = network(x)
    mirrored = swap_directions(network)(x.flip(2)).flip(2)
    torch.testing.assert_close(mirrored, y, rtol=1e-11, atol=1e-12)
    # Neither half of the operation is enough, and the network is not equivariant.
    assert not torch.allclose(network(x.flip(2)).flip(2), y, atol=1e-6)
    assert not torch.allclose(swap_directions(network)(x), y, atol=1e-6)


def test_mirror_symmetry_fails_without_the_flip(network, x, monkeypatch):
    monkeypatch.setattr(
        type(network.layers.channel_mixers[0].mixer),
        "forward",
        lambda mixer, tokens: (
            mixer.forward_block(tokens) + mixer.backward_block(tokens)
        ),
    )
    mirrored = swap_directions(network)(x.flip(2)).flip(2)
    assert not torch.allclose(mirrored, network(x), atol=1e-6)


@torch.no_grad()
def test_without_variate_mixers_variates_are_independent(network, x):
    separate = copy.deepcopy(network)
    for layer in separate.layers.channel_mixers:
        layer.mixer.forward_block.out_proj.weight.zero_()
        layer.mixer.backward_block.out_proj.weight.zero_()
    changed = x.clone()
    changed[:, :, 2] = changed[:, :, 2].square()
    others = [0, 1, 3, 4]
    torch.testing.assert_close(
        separate(changed)[..., others], separate(x)[..., others], rtol=0, atol=1e-13
    )
    assert not torch.allclose(separate(changed)[..., 2], separate(x)[..., 2])
    difference = (network(changed) - network(x)).abs()
    assert torch.all(difference[..., others].amax((0, 1)) > 1e-7)


@torch.no_grad()
def test_newest_token_weights_alone_give_a_plain_stack_of_time_mixers(x):
    network = build()
    for average in averages(network):
        average.token_weights.zero_()
        average.channel_weights.zero_()
        average.token_weights[-1] = 1.0
    z, mean, scale = network.normalize(x, None, None)
    tokens = network.embedding(z.mT)
    for time_mixer in network.layers.token_mixers:
        tokens = time_mixer(tokens)
    y = network.head(network.norm(tokens).flatten(2))
    torch.testing.assert_close(network(x), y.mT * scale + mean)
    network.layers.output_average.channel_weights[-1] = 1.0
    assert not torch.allclose(network(x), y.mT * scale + mean, atol=1e-5)


@torch.no_grad()
def test_with_no_weights_the_forecast_knows_nothing_but_the_level(x):
    network = build()
    for average in averages(network):
        average.token_weights.zero_()
        average.channel_weights.zero_()
    _, mean, scale = network.normalize(x, None, None)
    y = (network(x) - mean) / scale
    torch.testing.assert_close(y, y[:1, :, :1].expand_as(y))


def test_time_mixers_see_the_past_and_variate_mixers_one_patch(network):
    tokens = normal(2, 5, 6, 6)  # (batch, variate, patch, d_model)
    changed = tokens.clone()
    changed[:, 1, 3] = normal(2, 6, seed=2)
    reached = [
        (layer(changed) - layer(tokens)).abs().amax((0, 3)) > 1e-9
        for layer in (network.layers.token_mixers[0], network.layers.channel_mixers[0])
    ]
    for variate in range(5):
        for patch in range(6):
            assert reached[0][variate, patch] == (variate == 1 and patch >= 3)
            assert reached[1][variate, patch] == (patch == 3)


@pytest.mark.parametrize("n_variates", [1, 2, 9])
def test_any_number_of_variates(network, n_variates):
    y = network(normal(2, LOOKBACK, n_variates))
    assert y.shape == (2, HORIZON, n_variates)
    assert torch.isfinite(y).all()


# Normalisation (check 6)


def test_affine_equivariance_needs_instance_norm(network, x):
    a = torch.tensor([0.5, 2.0, 10.0, 1.0, 30.0]).double()
    b = torch.tensor([-5.0, 0.0, 100.0, 7.0, 1.0]).double()
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
    assert torch.isfinite(build(use_norm=False)(spoiled, observed=observed)).all()
    assert torch.isnan(network(spoiled)).any()


@pytest.mark.parametrize("factor", [1e-30, 1e-10, 1.0, 1e10, 1e30])
def test_gradients_are_finite_at_any_scale(factor):
    network = build().float()
    x = (normal(2, LOOKBACK, 3) * factor).float().requires_grad_()
    y = network(x)
    y.mean().backward()
    tensors = [x, *network.parameters()]
    assert torch.isfinite(y).all()
    assert all(torch.isfinite(tensor.grad).all() for tensor in tensors)


# Marks (check 8) and side information


def test_marks_are_variates_that_are_not_forecast(network, x):
    marks = normal(3, LOOKBACK, 4, seed=2)
    y = network(x, marks=marks)
    assert y.shape == (3, HORIZON, 5)
    assert (y - network(x)).abs().max() > 1e-5
    assert not torch.allclose(network(x, marks=2 * marks + 1), y, atol=1e-5)
    # The scans go over V + M variates, in this order.
    z, mean, scale = network.normalize(x, None, None)
    plain = copy.deepcopy(network)
    plain.use_norm = False
    together = plain(torch.cat([z, marks], 2))[..., :5]
    torch.testing.assert_close(y, together * scale + mean)
    marks_first = plain(torch.cat([marks, z], 2))[..., 4:]
    assert not torch.allclose(y, marks_first * scale + mean, atol=1e-5)


def side_network(**changes):
    return build(n_known=2, n_static=3, **changes)


def test_side_information_follows_every_variate_in_time(x):
    network = side_network()
    known, static = normal(3, HORIZON, 2), normal(3, 3, seed=2)
    z, mean, scale = network.normalize(x, None, None)
    scanned = network.known.mixer(known).flatten(1)
    Z = scanned @ network.known.linear.weight.T + network.known.linear.bias
    S = static @ network.static.weight.T + network.static.bias
    series = torch.stack([torch.cat([z[..., v], Z, S], 1) for v in range(5)], 1)
    assert series.shape == (3, 5, 3 * LOOKBACK)
    tokens = network.layers(network.embedding(series))
    y = network.head(network.norm(tokens).flatten(2))
    got = network(x, known=known, static=static)
    torch.testing.assert_close(got, y.mT * scale + mean)
    other_order = torch.stack([torch.cat([z[..., v], S, Z], 1) for v in range(5)], 1)
    assert not torch.allclose(
        network.embedding(other_order), network.embedding(series), atol=1e-3
    )
    for changed in ({"known": known.flip(2)}, {"static": static.flip(1)}):
        inputs = {"known": known, "static": static} | changed
        assert (network(x, **inputs) - got).abs().max() > 1e-6


def test_side_information_keeps_affine_equivariance(x):
    network = side_network()
    inputs = {"known": normal(3, HORIZON, 2), "static": normal(3, 3, seed=2)}
    torch.testing.assert_close(
        network(3 * x + 7, **inputs), 3 * network(x, **inputs) + 7, rtol=1e-4, atol=1e-4
    )


def test_more_outputs_than_steps_ahead(x):
    network = build(n_outputs=3 * HORIZON, horizon=HORIZON, n_known=2)
    assert network(x, known=normal(3, HORIZON, 2)).shape == (3, 3 * HORIZON, 5)
    with pytest.raises(InputError, match=r"must have shape \(3, 4, 2\)"):
        network(x, known=normal(3, 3 * HORIZON, 2))


# Batches, copies, dropout


def test_batch_equals_stack_of_singles(x):
    network = side_network()
    known, static = normal(3, HORIZON, 2), normal(3, 3, seed=2)
    marks = normal(3, LOOKBACK, 2, seed=3)
    rows = [slice(i, i + 1) for i in range(3)]
    singles = [network(x[i], marks[i], None, known[i], static[i]) for i in rows]
    torch.testing.assert_close(
        network(x, marks, None, known, static),
        torch.cat(singles),
        rtol=1e-12,
        atol=1e-12,
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
    ("changes", "arguments", "message"),
    [
        ({}, {"x": torch.zeros(2, LOOKBACK + 1, 3)}, r"\(2, 15, 3\).*\(batch, 14,"),
        ({}, {"known": torch.zeros(2, 4, 1)}, "built without such channels"),
        ({}, {"static": torch.zeros(2, 1)}, "built without such channels"),
        ({"n_known": 2}, {}, r"known is missing, must have shape \(2, 4, 2\)"),
        ({"n_static": 3}, {}, "static is missing"),
        ({"n_static": 3}, {"static": torch.zeros(2, 2)}, r"shape \(2, 2\).*\(2, 3\)"),
    ],
)
def test_wrong_inputs_are_named(changes, arguments, message):
    arguments = {"x": torch.zeros(2, LOOKBACK, 3)} | arguments
    with pytest.raises(InputError, match=message):
        build(**changes).float()(**arguments)


@pytest.mark.parametrize("changes", [{"patch_length": 15}, {"stride": 0}])
def test_patches_must_fit(changes):
    with pytest.raises(InputError, match="1 <= patch_length <= lookback"):
        build(**changes)
