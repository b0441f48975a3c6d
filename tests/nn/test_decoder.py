"""Decoder layers: masks, and steps that read from caches."""

import torch

from sciseq.nn import MultiHeadSelfAttention, TransformerEncoder, build_network
from sciseq.nn.decoder import DecoderLayer, MultiHeadAttention


def built(make):
    return build_network(make, torch.Generator().manual_seed(0)).double().eval()


def normal(*shape):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def test_attention_equals_the_formula():
    attention = built(lambda: MultiHeadAttention(8, n_heads=2))
    x, memory = normal(2, 3, 8), normal(2, 5, 8)
    mask = torch.tensor([True, True, False, True, False])
    found = attention(x, attention.project(memory), mask[None, None, None])
    q = attention.queries(x).view(2, 3, 2, 4)
    k, v = attention.keys_values(memory).view(2, 5, 2, 2, 4).unbind(2)
    weights = torch.einsum("bqhw,bkhw->bhqk", q, k) / 2
    weights = weights.masked_fill(~mask, -torch.inf).softmax(-1)
    wanted = attention.out(torch.einsum("bhqk,bkhw->bqhw", weights, v).flatten(2))
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)


def test_a_step_equals_the_whole():
    layer = built(lambda: DecoderLayer(8, n_heads=2, d_ff=16, dropout=0.0))
    x, memory = normal(2, 4, 8), normal(2, 5, 8)
    read = layer.cross_attention.project(memory)
    causal = torch.ones(4, 4, dtype=torch.bool).tril()
    whole = layer(x, read, causal)
    keys, values = [], []

    def own(query, key, value):
        keys.append(key)
        values.append(value)
        k, v = (torch.stack(one, dim=3).squeeze(1) for one in (keys, values))
        weights = torch.einsum("ibhw,ihkw->ibhk", query, k.transpose(2, 3).mT) / 2
        return torch.einsum(
            "ibhk,ihkw->ibhw", weights.softmax(-1), v.transpose(2, 3).mT
        )

    def from_memory(query):
        weights = torch.einsum("ibhw,ihkw->ibhk", query, read.keys) / 2
        return torch.einsum("ibhk,ihkw->ibhw", weights.softmax(-1), read.values)

    for place in range(4):
        one = layer.step(x[:, place : place + 1], own, from_memory)
        torch.testing.assert_close(one[:, 0], whole[:, place], rtol=0, atol=1e-12)
    # Without the mask the first place reads what follows.
    assert (layer(x, read)[:, 0] - whole[:, 0]).abs().max() > 1e-3


def test_masked_tokens_are_not_read():
    encoder = built(
        lambda: TransformerEncoder(2, 8, n_heads=2, d_ff=16, dropout=0.0, pre_norm=True)
    )
    x, is_token = normal(2, 5, 8), torch.tensor([True, True, True, False, False])
    mask = is_token[None, None, None]
    alone = encoder(x[:, :3])
    torch.testing.assert_close(encoder(x, mask)[:, :3], alone, rtol=0, atol=1e-12)
    assert (encoder(x)[:, :3] - alone).abs().max() > 1e-3


def test_masks_hold_under_dropout_too():
    attention = built(lambda: MultiHeadSelfAttention(8, n_heads=2, dropout=0.5)).train()
    x = normal(1, 4, 8)
    mask = torch.tensor([True, True, False, False])[None, None, None]
    outputs = []
    for change in (0.0, 1.0):
        attention.dropout.generator = torch.Generator().manual_seed(3)
        changed = x.clone()
        changed[:, 2:] += change
        outputs.append(attention(changed, mask)[:, :2])
    torch.testing.assert_close(*outputs, rtol=0, atol=1e-12)
