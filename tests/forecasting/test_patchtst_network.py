"""PatchTST: invariants of the card, and a batch norm that survives training."""

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from sciseq.errors import InputError
from sciseq.forecasting.patchtst_network import PatchTSTNetwork
from sciseq.nn import build_network, set_dropout_generator
from sciseq.training import TrainingOptions, train

LOOKBACK, HORIZON = 21, 4
SMALL = {
    "d_model": 12,
    "d_ff": 7,
    "n_layers": 2,
    "n_heads": 3,
    "patch_length": 6,
    "stride": 4,
}


def build(seed=0, **changes):
    network = build_network(
        lambda: PatchTSTNetwork(LOOKBACK, HORIZON, **(SMALL | changes)),
        torch.Generator().manual_seed(seed),
    )
    return network.double().eval()


def normal(*shape, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@pytest.fixture(scope="module")
def network():
    network = build()
    with torch.no_grad():  # statistics as after some training
        network.norm.running_mean += normal(SMALL["d_model"])
        network.norm.running_var += normal(SMALL["d_model"]).square()
    return network


@pytest.fixture
def x():
    return 5 + 3 * normal(3, LOOKBACK, 6)


def reference(network, x, *, is_d_major=True):
    """The card's equations, with torch's own attention and explicit patches."""
    mean, scale = x.mean(1, keepdim=True), (x.var(1, False, keepdim=True) + 1e-5).sqrt()
    z = (x - mean) / scale
    P, S = SMALL["patch_length"], SMALL["stride"]
    columns = []
    for variate in range(x.shape[2]):
        series = torch.cat([z[:, :, variate], z[:, -1:, variate].repeat(1, S)], 1)
        starts = range(0, series.shape[1] - P + 1, S)
        assert len(starts) == (LOOKBACK - P) // S + 2
        patches = torch.stack([series[:, start : start + P] for start in starts], 1)
        tokens = patches @ network.patches.linear.weight.T + network.patches.positions
        for layer in network.encoder.layers:
            qkv = layer.attention.qkv
            read = nn.functional.multi_head_attention_forward(
                *3 * [tokens.transpose(0, 1)], SMALL["d_model"], SMALL["n_heads"],
                qkv.weight, qkv.bias, None, None, False, 0.0,
                layer.attention.out.weight, layer.attention.out.bias,
                training=False, need_weights=False,
            )[0].transpose(0, 1)  # fmt: skip
            a = layer.norm1(tokens + read)
            tokens = layer.norm2(a + layer.feed_forward(a))
        norm = network.norm
        deviation = (norm.running_var + 1e-5).sqrt()
        tokens = (tokens - norm.running_mean) / deviation * norm.weight + norm.bias
        flat = (tokens.mT if is_d_major else tokens).flatten(1)
        columns.append(flat @ network.projector.weight.T + network.projector.bias)
    return torch.stack(columns, 2) * scale + mean


def test_equals_the_card(network, x):
    y = network(x)
    torch.testing.assert_close(y, reference(network, x), rtol=1e-10, atol=1e-10)
    patch_major = reference(network, x, is_d_major=False)
    assert (patch_major - y).abs().max() > 1e-2


def test_number_of_patches():
    with torch.device("meta"):
        network = PatchTSTNetwork(96, 96, d_model=8, d_ff=8, n_layers=1)
    assert network.patches.n_patches == 12
    assert network.projector.in_features == 8 * 12


def test_variates_are_independent(network, x):
    changed = x.clone()
    changed[:, :, 2] = changed[:, :, 2].square()
    others = [0, 1, 3, 4, 5]
    assert torch.equal(network(changed)[..., others], network(x)[..., others])
    assert not torch.allclose(network(changed)[..., 2], network(x)[..., 2])
    torch.testing.assert_close(network(x[..., others]), network(x)[..., others])
    # Statistics of the batch would let variates meet: forecasts must not use them.
    training = copy.deepcopy(network).train()
    for module in training.modules():
        if hasattr(module, "p"):
            module.p = 0.0
    difference = (training(changed) - training(x))[..., others].abs()
    assert difference.max() > 1e-4


def test_marks_are_ignored_and_covariates_refused(network, x):
    assert torch.equal(network(x, normal(3, LOOKBACK, 4)), network(x))
    with pytest.raises(InputError, match=r"known is of shape.*each series alone"):
        network(x, known=normal(3, HORIZON, 1))
    with pytest.raises(InputError, match=r"static is of shape.*each series alone"):
        network(x, static=normal(3, 1))


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
    assert torch.isnan(network(spoiled)).any()


# The batch norm


def test_running_statistics_follow_the_tokens_of_training(x):
    network = build(dropout=0.0).train()
    seen = []
    network.encoder.register_forward_hook(lambda module, inputs, y: seen.append(y))
    network(x)
    tokens = seen[0].flatten(0, 1)
    norm = network.norm
    torch.testing.assert_close(norm.running_mean, 0.1 * tokens.mean(0))
    torch.testing.assert_close(norm.running_var, 0.9 + 0.1 * tokens.var(0))
    assert norm.num_batches_tracked == 1
    before = copy.deepcopy(network.state_dict())
    network.eval()(x)
    assert all(
        torch.equal(before[key], one) for key, one in network.state_dict().items()
    )


class Windows:
    def __init__(self, x, y):
        self.x, self.y, self.n_items = x, y, len(x)

    def gather(self, indices):
        return self.x[indices], self.y[indices]


def squared_error(network, batch):
    error = network(batch[0]) - batch[1]
    return error.square().sum(), torch.tensor(error.numel())


def options(**changes):
    return TrainingOptions(
        **{
            "learning_rate": 0.03,
            "batch_size": 8,
            "max_epochs": 6,
            "patience": None,
            "schedule": lambda epoch: 1.0,
            "seed": 0,
            "device": torch.device("cpu"),
            "precision": "float64",
        }
        | changes
    )


def data():
    training = Windows(normal(40, LOOKBACK, 2), normal(40, HORIZON, 2))
    validation = Windows(
        normal(16, LOOKBACK, 2, seed=3), normal(16, HORIZON, 2, seed=4)
    )
    return training, validation


def test_statistics_of_the_best_epoch_are_restored():
    network = build()
    result = train(network, squared_error, *data(), options())
    assert result.best_epoch < 6  # noise cannot be learned for long
    assert network.norm.num_batches_tracked == 5 * result.best_epoch
    total, count = map(float, squared_error(network, (data()[1].x, data()[1].y)))
    assert total / count == pytest.approx(result.best_loss, rel=1e-9)
    # With the statistics of another moment the loss is another.
    with torch.no_grad():
        network.norm.running_mean += 0.5
    total, count = map(float, squared_error(network, (data()[1].x, data()[1].y)))
    assert total / count != pytest.approx(result.best_loss, rel=1e-6)


def test_a_resumed_run_has_the_same_statistics(tmp_path):
    whole, parts = build(), build()
    train(whole, squared_error, *data(), options())
    for n_epochs in (3, 6):
        resumed = options(
            max_epochs=n_epochs, checkpoint_dir=str(tmp_path), fingerprint="same"
        )
        train(parts, squared_error, *data(), resumed)
    for (name, one), other in zip(
        whole.state_dict().items(), parts.state_dict().values(), strict=True
    ):
        assert torch.equal(one, other), name


def test_initial_norm_is_the_identity():
    norm = build().norm
    for tensor, value in (
        (norm.weight, 1), (norm.bias, 0), (norm.running_mean, 0), (norm.running_var, 1),
    ):  # fmt: skip
        assert torch.all(tensor == value)
    assert norm.num_batches_tracked == 0


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
    assert {"norm.running_mean", "norm.running_var"} <= set(network.state_dict())


def test_training_is_reproducible_and_leaves_global_state_alone(x):
    def fit(seed):
        network = build(dropout=0.3).train()
        set_dropout_generator(network, torch.Generator().manual_seed(seed))
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
        for _ in range(3):
            optimizer.zero_grad()
            network(x).square().mean().backward()
            optimizer.step()
        return network.eval()(x)

    before = torch.random.get_rng_state()
    first = fit(0)
    assert torch.equal(first, fit(0))
    assert not torch.equal(first, fit(1))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_dropout_of_the_head_acts(x):
    network = build(dropout=0.5).train()
    set_dropout_generator(network, torch.Generator().manual_seed(0))
    z, _, _ = network.normalize(normal(30, LOOKBACK, 6), None, None)
    y = network.forecast_normalized(z, None, None, None)
    share = float((y == 0).double().mean())
    assert np.isclose(share, 0.5, atol=0.1)


def test_wrong_shapes_are_named(network):
    with pytest.raises(InputError, match=r"\(2, 22, 3\).*\(batch, 21,"):
        network(torch.zeros(2, LOOKBACK + 1, 3))
