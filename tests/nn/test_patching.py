"""Patches of series and the tokens made of them."""

import math

import pytest
import torch

from sciseq.errors import InputError
from sciseq.nn import (
    PatchEmbedding,
    PatchSeriesEmbedding,
    build_network,
    count_patches,
    set_dropout_generator,
    sinusoidal_positions,
)


def build(factory):
    network = build_network(factory, torch.Generator().manual_seed(0))
    return network.double().eval()


def normal(*shape, seed=3):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(
    ("lookback", "patch_length", "stride", "count"),
    [(96, 8, 8, 13), (96, 16, 8, 12), (10, 10, 3, 2), (10, 4, 7, 2), (1, 1, 1, 2)],
)
def test_number_of_patches(lookback, patch_length, stride, count):
    assert count_patches(lookback, patch_length, stride) == count
    # What cutting the padded series really gives.
    padded = torch.zeros(lookback + stride)
    assert len(padded.unfold(0, patch_length, stride)) == count


@pytest.mark.parametrize("sizes", [(7, 8, 8), (8, 0, 1), (8, 2, 0)])
def test_impossible_sizes_are_refused(sizes):
    with pytest.raises(InputError, match="patch_length is"):
        count_patches(*sizes)


def test_positions_equal_their_equation():
    d_model = 7
    code = sinusoidal_positions(5, d_model).double()
    for j in range(5):
        for channel in range(d_model):
            angle = j / 10_000 ** (2 * (channel // 2) / d_model)
            want = math.cos(angle) if channel % 2 else math.sin(angle)
            assert float(code[j, channel]) == pytest.approx(want, abs=1e-7)


@pytest.mark.parametrize(("patch_length", "stride"), [(4, 4), (5, 3), (3, 6), (11, 2)])
def test_patches_equal_explicit_cutting(patch_length, stride):
    lookback = 11
    embed = build(lambda: PatchEmbedding(lookback, patch_length, stride, 6))
    x = normal(2, lookback, 3)
    tokens = embed(x)
    assert tokens.shape == (6, embed.n_patches, 6)
    for series in range(6):
        window, variate = divmod(series, 3)
        values = x[window, :, variate]
        for j in range(embed.n_patches):
            # Beyond the end stands the last value.
            steps = torch.arange(j * stride, j * stride + patch_length)
            patch = values[steps.clamp(max=lookback - 1)]
            want = embed.linear.weight @ patch + embed.positions[j]
            torch.testing.assert_close(tokens[series, j], want)
    if embed.n_patches > 2:  # padding by zeros is another thing
        zeros = torch.cat([values, values.new_zeros(stride)])[-patch_length:]
        assert not torch.allclose(
            embed.linear.weight @ zeros + embed.positions[j], want
        )


def test_positions_are_built_copied_and_not_saved():
    embed = build_network(
        lambda: PatchEmbedding(12, 4, 4, 6), torch.Generator().manual_seed(0)
    )
    assert torch.equal(embed.positions, sinusoidal_positions(4, 6))
    assert torch.equal(PatchEmbedding(12, 4, 4, 6).positions, embed.positions)
    assert list(embed.state_dict()) == ["linear.weight"]
    assert embed.double().positions.dtype == torch.float64


def test_dropout_acts_on_tokens():
    embed = build(lambda: PatchEmbedding(12, 4, 4, 50, dropout=0.5)).train()
    set_dropout_generator(embed, torch.Generator().manual_seed(0))
    assert 0.4 < (embed(normal(5, 12, 2)) == 0).double().mean() < 0.6


def build_series_embedding(**changes):
    sizes = {"n_layers": 2, "d_model": 6, "n_heads": 2, "d_ff": 5} | changes
    return build(lambda: PatchSeriesEmbedding(12, 4, 4, **sizes))


def test_series_embedding_flattens_width_before_patches():
    embed = build_series_embedding()
    x = normal(2, 12, 3)
    encoded = embed.encoder(embed.patches(x)).view(2, 3, 4, 6)  # (…, patch, d_model)
    weight = embed.linear.weight.view(6, 6, 4)  # (out, d_model, patch)
    want = torch.einsum("odj,bvjd->bvo", weight, encoded) + embed.linear.bias
    torch.testing.assert_close(embed(x), want)
    other = embed.linear.weight.view(6, 4, 6)
    wrong = torch.einsum("ojd,bvjd->bvo", other, encoded) + embed.linear.bias
    assert not torch.allclose(embed(x), wrong, atol=1e-3)


def test_series_do_not_see_each_other():
    embed = build_series_embedding()
    x = normal(2, 12, 3)
    tokens = embed(x)
    changed = x.clone()
    changed[:, :, 1] += normal(2, 12)
    difference = (embed(changed) - tokens).abs().amax((0, 2))
    assert difference[1] > 1e-3
    assert torch.all(difference[[0, 2]] == 0)
    torch.testing.assert_close(embed(x[..., [2, 0, 1]]), tokens[:, [2, 0, 1]])


def test_layers_are_pre_norm_relu_and_start_equal():
    encoder = build_series_embedding().encoder
    assert all(layer.pre_norm for layer in encoder.layers)
    assert all(layer.feed_forward.activation == "relu" for layer in encoder.layers)
    first, second = (layer.feed_forward.W1.weight for layer in encoder.layers)
    assert torch.equal(first, second)


def test_dropout_acts_on_the_embedded_series():
    embed = build_series_embedding(d_model=60, dropout=0.5).train()
    set_dropout_generator(embed, torch.Generator().manual_seed(0))
    assert 0.4 < (embed(normal(5, 12, 2)) == 0).double().mean() < 0.6
