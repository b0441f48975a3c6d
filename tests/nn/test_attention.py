"""Self-attention and transformer layers: equations, dropout, precision."""

import pytest
import torch
from torch import nn

from sciseq.errors import InputError
from sciseq.nn import (
    MultiHeadSelfAttention,
    TransformerEncoder,
    TransformerLayer,
    build_network,
    set_dropout_generator,
)
from sciseq.nn.attention import _has_slow_tail, _padded_keys, attend


def build(factory, seed=0):
    network = build_network(factory, torch.Generator().manual_seed(seed))
    return network.double().eval()


def normal(*shape, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def dropping(network, seed=0):
    set_dropout_generator(network, torch.Generator().manual_seed(seed))
    return network.train()


def naive_attention(attention, x, exponent=0.5):
    """Card §0.4 for tokens (token, d_model): heads, queries and keys one by one."""
    n_tokens, d_model = x.shape
    width = d_model // attention.n_heads
    q, k, v = (x @ attention.qkv.weight.T + attention.qkv.bias).split(d_model, 1)
    out = torch.zeros_like(x)
    for head in range(attention.n_heads):
        part = slice(head * width, (head + 1) * width)
        for i in range(n_tokens):
            scores = [q[i, part] @ k[j, part] for j in range(n_tokens)]
            exponentials = torch.exp(torch.stack(scores) / width**exponent)
            weights = exponentials / exponentials.sum()
            out[i, part] = sum(weights[j] * v[j, part] for j in range(n_tokens))
    return out @ attention.out.weight.T + attention.out.bias


@pytest.mark.parametrize("n_tokens", [1, 5, 19])
@pytest.mark.parametrize("n_heads", [1, 2, 4])
def test_equals_the_card(n_tokens, n_heads):
    attention = build(lambda: MultiHeadSelfAttention(8, n_heads))
    x = normal(2, n_tokens, 8)
    y = attention(x)
    for got, tokens in zip(y, x, strict=True):
        want = naive_attention(attention, tokens)
        torch.testing.assert_close(got, want, rtol=1e-11, atol=1e-13)
        if n_tokens > 1:
            unscaled = naive_attention(attention, tokens, exponent=0)
            assert not torch.allclose(got, unscaled, rtol=1e-6)


@pytest.mark.parametrize(
    ("n_keys", "is_lengthened"), [(7, False), (8, True), (42, True), (48, False)]
)
def test_keys_that_fill_whole_vectors_change_nothing(n_keys, is_lengthened):
    q = normal(2, 3, 5, 4)
    k, v = normal(2, 2, 3, n_keys, 4, seed=2)
    want = (q @ k.mT / 2).softmax(-1) @ v
    with torch.no_grad():
        assert _has_slow_tail(q, k) == is_lengthened
        got = attend(q, k, v)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-13)
    long_k, long_v, _ = _padded_keys(k, v)
    assert long_k.shape[2] % 16 == 0
    unmasked = nn.functional.scaled_dot_product_attention(q, long_k, long_v)
    assert torch.allclose(unmasked, want) == (n_keys % 16 == 0)
    # With gradients, and in wide heads, copying costs more than it saves.
    assert not _has_slow_tail(q, k)
    with torch.no_grad():
        assert not _has_slow_tail(normal(1, 1, 5, 32), k)


@pytest.mark.parametrize("n_tokens", [1, 7, 15, 16, 17])
def test_path_with_dropout_equals_the_kernel(n_tokens):
    # A rate that drops nothing takes the explicit path.
    attention = build(lambda: MultiHeadSelfAttention(8, 2, dropout=1e-9))
    x = normal(3, n_tokens, 8).requires_grad_()
    weights = normal(3, n_tokens, 8, seed=2)
    tensors = [x, *attention.parameters()]
    kernel = attention(x)
    of_kernel = torch.autograd.grad((kernel * weights).sum(), tensors)
    explicit = dropping(attention)(x)
    of_explicit = torch.autograd.grad((explicit * weights).sum(), tensors)
    torch.testing.assert_close(explicit, kernel, rtol=1e-11, atol=1e-12)
    for got, want in zip(of_explicit, of_kernel, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-11)


def test_large_scores_stay_finite():
    attention = build(lambda: MultiHeadSelfAttention(8, 2, dropout=1e-9)).float()
    x = 1e4 * normal(1, 6, 8).float()
    want = attention(x)
    y = dropping(attention)(x)
    assert torch.isfinite(y).all()
    torch.testing.assert_close(y, want)
    y.sum().backward()
    assert all(torch.isfinite(one.grad).all() for one in attention.parameters())


def test_permuting_tokens_permutes_the_output():
    attention = build(lambda: MultiHeadSelfAttention(8, 2))
    x, order = normal(2, 5, 8), torch.tensor([4, 1, 0, 3, 2])
    torch.testing.assert_close(attention(x[:, order]), attention(x)[:, order])
    assert not torch.allclose(attention(x)[:, order], attention(x))


def test_dropout_acts_on_the_weights_and_keeps_the_mean():
    # Equal scores and unit values: each output is the sum of what is kept.
    n_tokens, p = 200, 0.25
    attention = build(lambda: MultiHeadSelfAttention(2, 1, dropout=p))
    with torch.no_grad():
        attention.qkv.weight.zero_()
        attention.qkv.bias.copy_(torch.tensor([0, 0, 0, 0, 1.0, 1.0]))
        attention.out.weight.copy_(torch.eye(2))
        attention.out.bias.zero_()
    y = dropping(attention)(normal(20, n_tokens, 2))
    assert torch.equal(y[..., 0], y[..., 1])  # one weight for all channels of a head
    kept = y[..., 0].detach() * n_tokens * (1 - p)
    torch.testing.assert_close(kept, kept.round(), rtol=0, atol=1e-6)
    assert float(kept.mean()) == pytest.approx(n_tokens * (1 - p), rel=0.01)
    assert float(kept.std()) == pytest.approx((n_tokens * p * (1 - p)) ** 0.5, rel=0.1)
    # Torch's own dropout of the weights would draw from the global state.
    before = torch.random.get_rng_state()
    again = dropping(attention)(normal(20, n_tokens, 2))
    assert torch.equal(again, y)
    assert torch.equal(torch.random.get_rng_state(), before)
    q = normal(1, 1, n_tokens, 2)
    nn.functional.scaled_dot_product_attention(q, q, q, dropout_p=p)
    assert not torch.equal(torch.random.get_rng_state(), before)


def test_every_head_and_window_has_its_own_mask():
    attention = dropping(build(lambda: MultiHeadSelfAttention(8, 2, dropout=0.5)))
    with torch.no_grad():
        attention.qkv.weight.zero_()
        attention.qkv.bias.fill_(1.0)
        attention.out.weight.copy_(torch.eye(8))
    y = attention(normal(1, 6, 8).expand(2, -1, -1))
    assert not torch.equal(y[0], y[1])
    assert not torch.equal(y[..., :4], y[..., 4:])


@pytest.mark.parametrize("n_heads", [0, 3, 16])
def test_heads_that_do_not_divide_the_width_are_refused(n_heads):
    with pytest.raises(InputError, match=f"d_model is 8 and n_heads {n_heads}"):
        MultiHeadSelfAttention(8, n_heads)


# Layers


def reference_layer(ours, activation, pre_norm):
    """Torch's own layer with the same weights, written independently of ours."""
    layer = nn.TransformerEncoderLayer(
        8,
        2,
        5,
        activation=activation,
        batch_first=True,
        norm_first=pre_norm,
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
    return layer.eval()


@pytest.mark.parametrize("activation", ["gelu", "relu"])
@pytest.mark.parametrize("pre_norm", [False, True])
def test_layer_equals_the_framework(activation, pre_norm):
    layer = build(
        lambda: TransformerLayer(8, 2, 5, activation=activation, pre_norm=pre_norm)
    )
    with torch.no_grad():
        for index, parameter in enumerate(layer.parameters()):
            parameter += 0.3 * normal(*parameter.shape, seed=index)
    x = normal(3, 6, 8)
    want = reference_layer(layer, activation, pre_norm)(x)
    torch.testing.assert_close(layer(x), want, rtol=1e-11, atol=1e-12)
    other = {"relu": "gelu", "gelu": "relu"}[activation]
    for wrong in ((activation, not pre_norm), (other, pre_norm)):
        assert not torch.allclose(reference_layer(layer, *wrong)(x), want, atol=1e-3)


def test_output_of_attention_is_dropped():
    layer = dropping(build(lambda: TransformerLayer(400, 2, 5, dropout=0.5)))
    with torch.no_grad():
        layer.feed_forward.W2.weight.zero_()
        layer.feed_forward.W2.bias.zero_()
    seen = []
    layer.norm1.register_forward_hook(lambda norm, inputs, y: seen.append(inputs[0]))
    x = normal(1, 6, 400)
    layer(x)
    assert 0.4 < (seen[0] == x).double().mean() < 0.6


def test_encoder_is_its_layers_in_turn():
    encoder = build(lambda: TransformerEncoder(3, 8, 2, 5))
    x = normal(2, 6, 8)
    first, second, third = encoder.layers
    assert torch.equal(encoder(x), third(second(first(x))))
    assert not torch.allclose(encoder(x), first(second(third(x))))


@pytest.mark.parametrize("equal_start", [False, True])
def test_equal_start(equal_start):
    encoder = build(lambda: TransformerEncoder(3, 8, 2, 5, equal_start=equal_start))
    first, *others = (layer.attention.qkv.weight for layer in encoder.layers)
    assert all(torch.equal(first, other) == equal_start for other in others)
    # Trained apart: the weights are copies, not the same tensors.
    dropping(encoder)
    encoder(normal(2, 6, 8)).square().mean().backward()
    gradients = [layer.attention.qkv.weight.grad for layer in encoder.layers]
    assert not torch.allclose(gradients[0], gradients[1])


def test_unknown_activation_is_refused():
    with pytest.raises(InputError, match=r"activation is 'glu'.*\n?.*Did you mean"):
        TransformerLayer(8, 2, 5, activation="glu")


def test_half_precision_under_autocast():
    layer = build(lambda: TransformerLayer(8, 2, 5, dropout=0.1)).float()
    x = normal(2, 6, 8).float()
    want = layer(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = layer(x)
        trained = dropping(layer)(x)
    assert (got - want).abs().max() < 0.05
    trained.float().square().sum().backward()
    assert all(torch.isfinite(one.grad).all() for one in layer.parameters())
