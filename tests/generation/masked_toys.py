"""Tiny networks in float64, and estimators around them, for masked generators."""

import itertools

import torch

from sciseq.generation.alphabet import Alphabet
from sciseq.generation.conditions import ConditionCoding
from sciseq.generation.parts.backbone import TokenTransformer
from sciseq.generation.parts.drawing import Drawing
from sciseq.generation.parts.network import Condition, SequenceNetwork
from sciseq.generation.parts.requests import Requests, generate
from sciseq.nn import build_network

GREEDY = Drawing(temperature=0)


def toy_network(n_tokens=3, length=4, *, seed=0, n_layers=2, n_features=0):
    """Random weights, large enough that tokens and places matter."""
    network = build_network(
        lambda: SequenceNetwork(
            TokenTransformer(n_tokens, length, 8, 12, n_layers, 2, 0.0), 8, n_features
        ),
        torch.Generator().manual_seed(seed),
    ).double()
    with torch.no_grad():
        network.backbone.symbols.mul_(40.0)
        network.backbone.places.mul_(40.0)
        for layer in network.backbone.layers:
            layer.qkv.weight.mul_(2.0)
            layer.out.weight.mul_(2.0)
        network.backbone.head.weight.mul_(2.0)
    return network.eval()


def ready(cls, n_tokens=3, length=4, *, network=None, with_ends=False, classes=None,
          **params):  # fmt: skip
    """An estimator with a network of random weights, as if it had been fitted."""
    sizes = {"precision": "float64", "device": "cpu", "d_model": 8, "d_ff": 12,
             "n_layers": 2, "n_heads": 2, "dropout": 0.0}  # fmt: skip
    model = cls(**{**sizes, **params})
    letters = tuple("ABCDEFGH"[: n_tokens - with_ends])
    model.alphabet_ = Alphabet(letters, "string", length, not with_ends)
    model.condition_coding_ = ConditionCoding(classes=classes) if classes else None
    model.network_ = network or toy_network(
        n_tokens, length, n_layers=model.n_layers, n_features=len(classes or ())
    )
    model.n_features_in_ = 1
    return model


def every_row(n_tokens, length):
    """All strings (n_tokens^length, length)."""
    return torch.tensor(list(itertools.product(range(n_tokens), repeat=length)))


def run(network, decoder, rows, *, seeds=None, condition=None, allowed=None, end=None):
    """Fill the gaps (-1) of rows."""
    tokens = torch.as_tensor(rows)
    is_filled = tokens >= 0
    seeds = torch.arange(len(tokens)) + 7 if seeds is None else seeds
    requests = Requests(
        tokens=tokens.where(is_filled, network.mask), is_filled=is_filled, seeds=seeds,
        mask=network.mask, condition=condition, allowed=allowed, end=end,
    )  # fmt: skip
    return generate(network, decoder, requests)


def toy_condition(n, n_rows=2, n_features=2):
    generator = torch.Generator().manual_seed(5)
    rows = torch.randn(n, n_rows, n_features, generator=generator, dtype=torch.float64)
    is_row = torch.ones(n, n_rows, dtype=torch.bool)
    is_row[1::2, -1] = False
    return Condition(rows, is_row)
