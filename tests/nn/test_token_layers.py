"""Inverted embedding and feed-forward network."""

import math

import torch

from sciseq.nn import (
    FeedForward,
    InvertedEmbedding,
    build_network,
    set_dropout_generator,
)


def build(factory):
    network = build_network(factory, torch.Generator().manual_seed(0))
    return network.double().eval()


def normal(*shape):
    generator = torch.Generator().manual_seed(3)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def test_each_series_becomes_one_token_and_marks_come_last():
    embed = build(lambda: InvertedEmbedding(6, 4))
    x, marks = normal(2, 6, 3), normal(2, 6, 2)
    tokens = embed(x, marks)
    weight, bias = embed.linear.weight, embed.linear.bias
    for token, series in enumerate([*x.unbind(2), *marks.unbind(2)]):
        torch.testing.assert_close(tokens[:, token], series @ weight.T + bias)
    torch.testing.assert_close(embed(x), tokens[:, :3])


def test_feed_forward_equals_its_equation():
    network = build(lambda: FeedForward(3, 5))
    x = normal(2, 4, 3)
    hidden = x @ network.W1.weight.T + network.W1.bias
    exact_gelu = 0.5 * hidden * (1 + torch.erf(hidden / math.sqrt(2)))
    want = exact_gelu @ network.W2.weight.T + network.W2.bias
    torch.testing.assert_close(network(x), want, rtol=1e-12, atol=1e-14)
    tanh_gelu = torch.nn.functional.gelu(hidden, approximate="tanh")
    other = tanh_gelu @ network.W2.weight.T + network.W2.bias
    assert not torch.allclose(network(x), other, rtol=1e-7, atol=1e-9)


def test_relu_is_the_other_activation():
    network = build(lambda: FeedForward(3, 5, activation="relu"))
    x = normal(2, 4, 3)
    hidden = (x @ network.W1.weight.T + network.W1.bias).clamp(min=0)
    want = hidden @ network.W2.weight.T + network.W2.bias
    torch.testing.assert_close(network(x), want, rtol=1e-12, atol=1e-14)


def test_both_dropouts_of_the_feed_forward_network_act():
    network = build(lambda: FeedForward(3, 500, dropout=0.5)).train()
    with torch.no_grad():
        network.W1.weight.zero_()
        network.W1.bias.fill_(1.0)
        network.W2.weight.fill_(1.0)
        network.W2.bias.zero_()
    set_dropout_generator(network, torch.Generator().manual_seed(0))
    y = network(normal(1, 200, 3))
    assert 0.4 < (y == 0).double().mean() < 0.6  # the outer one
    assert len(y[y != 0].unique()) > 20  # the inner one


def test_embedding_dropout_acts():
    embed = build(lambda: InvertedEmbedding(6, 400, dropout=0.5)).train()
    set_dropout_generator(embed, torch.Generator().manual_seed(0))
    assert 0.4 < (embed(normal(1, 6, 3)) == 0).double().mean() < 0.6
