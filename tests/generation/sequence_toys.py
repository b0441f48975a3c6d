"""Tiny networks in float64, enumerations and a test of laws, for all generators."""

import itertools
import math

import numpy as np
import torch
from scipy import stats

from sciseq.generation.alphabet import Alphabet
from sciseq.generation.conditions import ConditionCoding
from sciseq.generation.parts.backbone import TokenTransformer
from sciseq.generation.parts.drawing import Drawing
from sciseq.generation.parts.network import Condition, SequenceNetwork
from sciseq.generation.parts.next_token import next_token_scores
from sciseq.generation.parts.requests import Requests, generate, step
from sciseq.nn import build_network

LETTERS = "ABCDEFGH"


def tiny_network(
    n_tokens=3, length=4, *, seed=0, n_layers=2, n_features=0, contrast=20.0
):
    """Random weights, of which the scores tell tokens well apart."""
    network = build_network(
        lambda: SequenceNetwork(
            TokenTransformer(n_tokens, length, 8, 12, n_layers, 2, 0.0), 8, n_features
        ),
        torch.Generator().manual_seed(seed),
    ).double()
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for name in ("symbols", "places"):
            one = getattr(network.backbone, name)
            one.mul_(contrast)
        network.backbone.head.weight.mul_(3)
        for one in network.parameters():
            if one.dim() == 1:
                one.add_(0.2 * torch.randn(one.shape, generator=generator).double())
    return network.eval()


def fitted(cls, n_tokens=3, length=4, *, network=None, with_ends=False, classes=None,
           **params):  # fmt: skip
    """An estimator around a network of random weights."""
    params = {"precision": "float64", "device": "cpu", "d_model": 8, "d_ff": 12,
              "n_layers": 2, "n_heads": 2, "dropout": 0.0, **params}  # fmt: skip
    model = cls(**params)
    model.alphabet_ = Alphabet(
        tuple(LETTERS[: n_tokens - with_ends]), "string", length, not with_ends
    )
    model.condition_coding_ = classes and ConditionCoding(classes=classes)
    if network is None:
        network = tiny_network(
            n_tokens, length, n_features=len(classes) if classes else 0
        )
    model.network_, model.n_features_in_ = network, 1
    return model


def every_row(n_tokens, length):
    """All strings (n_tokens^length, length)."""
    return torch.tensor(list(itertools.product(range(n_tokens), repeat=length)))


def every_string(letters, length):
    return ["".join(one) for one in itertools.product(letters, repeat=length)]


def every_string_up_to(letters, length):
    return [one for n in range(length + 1) for one in every_string(letters, n)]


def law_of_gaps(one, string, temperature=1.0):
    """Law of what fills a string, from the joint one."""
    gaps = [i for i, x in enumerate(string) if x == "?"]
    filled = []
    letters = one.alphabet_.tokens
    for some in itertools.product(letters, repeat=len(gaps)):
        letters_of = list(string)
        for i, x in zip(gaps, some, strict=True):
            letters_of[i] = x
        filled.append("".join(letters_of))
    tokens = torch.from_numpy(one.alphabet_.encode(filled))
    with torch.no_grad():
        scores = next_token_scores(one.network_, tokens, None) / temperature
    logs = scores.log_softmax(-1).gather(2, tokens.unsqueeze(2)).squeeze(2)
    end = one.alphabet_.end
    if end is not None:  # up to the first end
        is_end = (tokens == end).long()
        logs = logs.where(is_end.cumsum(1) - is_end == 0, 0.0)
    return filled, logs.sum(dim=1).softmax(0)


def request(tokens, mask, *, seeds=None, condition=None, allowed=None, end=None):
    """Requests from rows with -1 at gaps."""
    tokens = torch.as_tensor(tokens)
    is_filled = tokens >= 0
    if seeds is None:
        seeds = torch.arange(len(tokens)) + 7
    return Requests(tokens=tokens.where(is_filled, mask), is_filled=is_filled,
                    seeds=seeds, mask=mask, condition=condition, allowed=allowed,
                    end=end)  # fmt: skip


def run(network, decoder, tokens, **kwargs):
    return generate(network, decoder, request(tokens, network.mask, **kwargs))


def prefix_pass(network, decoder, requests):
    """What ``generate`` does before its first step."""
    x, layout = network.prefix(len(requests), requests.condition)
    states = network(x, layout, decoder.rule, requests.cache)
    requests.cache.store()
    requests.memory["next"] = network.scores(states[:, -1])
    decoder.start(requests)


def steps(network, decoder, requests):
    """Yield rows, scores, and tokens and memory as they were before, of each pass."""
    with torch.no_grad():
        prefix_pass(network, decoder, requests)
        while True:
            requests.keep((~decoder.is_done(requests)).nonzero().flatten())
            if not len(requests):
                return
            seen, commit = [], decoder.commit

            def spy(requests, rows, scores, seen=seen, commit=commit):
                seen.append((rows, scores))
                state = {name: one.clone() for name, one in requests.memory.items()}
                seen.append((requests.tokens.clone(), state))
                commit(requests, rows, scores)

            decoder.commit = spy
            try:
                step(network, decoder, requests, requests.work)
            finally:
                del decoder.commit
            yield *seen[0], *seen[1]


def conditions(n, n_rows=1, n_features=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(n, n_rows, n_features, generator=generator, dtype=torch.float64)
    return Condition(rows, torch.ones(n, n_rows, dtype=torch.bool))


def follows(counts, probabilities, level=1e-3):
    """Whether counts fit a law (chi-square; rare cells are joined)."""
    counts, law = np.asarray(counts, float), np.asarray(probabilities, float)
    assert math.isclose(law.sum(), 1.0, abs_tol=1e-9)
    n = counts.sum()
    rare = law * n < 5
    if rare.any():
        counts = np.append(counts[~rare], counts[rare].sum())
        law = np.append(law[~rare], law[rare].sum())
        if law[-1] * n < 1:
            if counts[-1] > 10:
                return False
            counts, law = counts[:-1], law[:-1]
            law, n = law / law.sum(), counts.sum()
    if len(law) == 1:
        return True
    statistic = ((counts - n * law) ** 2 / (n * law)).sum()
    return bool(stats.chi2.sf(statistic, len(law) - 1) > level)


GREEDY = Drawing(temperature=0)
