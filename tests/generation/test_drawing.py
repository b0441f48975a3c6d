"""Drawing tokens: the law, its truncations, and noise of each request's own."""

import pytest
import torch
from sequence_toys import follows
from torch.testing import assert_close

from sciseq.generation.parts.drawing import Drawing, log_probabilities

SCORES = torch.tensor([[[0.3, -1.0, 1.2, 0.0, 2.0]]], dtype=torch.float64)


def draws(drawing, n=20_000, allowed=None, scores=SCORES):
    seeds = torch.arange(n)
    tokens = drawing(
        scores.expand(n, -1, -1), seeds, torch.zeros(n, 1, dtype=torch.int64), allowed
    )
    return torch.bincount(tokens.flatten(), minlength=scores.shape[2])


@pytest.mark.parametrize(
    "drawing", [Drawing(), Drawing(0.5), Drawing(top_k=2), Drawing(2.0, 4, 0.8)]
)
def test_tokens_have_the_law(drawing):
    assert follows(draws(drawing), drawing.law(SCORES).exp()[0, 0])
    other = Drawing(0.8).law(SCORES).exp()[0, 0]
    assert not follows(draws(drawing), other)


def test_the_law_divides_scores_by_the_temperature():
    found = Drawing(0.7).law(SCORES)
    assert_close(found, (SCORES / 0.7).log_softmax(-1))
    assert Drawing(0).law(SCORES).exp().tolist() == [[[0, 0, 0, 0, 1]]]
    assert int(draws(Drawing(0), 3)[4]) == 3


def test_top_k_and_top_p_keep_the_most_probable():
    law = SCORES.softmax(-1)[0, 0]
    best = law.argsort(descending=True)
    assert Drawing(top_k=2).law(SCORES).exp()[0, 0].nonzero().flatten().tolist() == [
        2,
        4,
    ]
    for n in range(1, 6):
        enough = law[best[:n]].sum()  # n tokens have this probability together
        found = Drawing(top_p=float(enough) - 1e-6).law(SCORES).exp()[0, 0]
        assert found.nonzero().flatten().tolist() == sorted(best[:n].tolist())
        assert_close(found[best[:n]], law[best[:n]] / enough)
    assert Drawing(top_p=1e-9).law(SCORES).exp().max() == 1  # the best one stays


def test_what_is_not_legal_is_never_drawn():
    allowed = torch.tensor([True, True, False, True, False])
    for drawing in (Drawing(), Drawing(0), Drawing(top_k=1), Drawing(top_p=0.5)):
        counts = draws(drawing, 2000, allowed)
        assert int(counts[~allowed].sum()) == 0
        assert follows(counts, drawing.law(SCORES, allowed).exp()[0, 0])


def test_noise_belongs_to_the_seed_the_position_and_the_purpose():
    scores = torch.zeros(1, 6, 50, dtype=torch.float64).expand(4, -1, -1)
    place = torch.arange(6).expand(4, -1)
    seeds = torch.tensor([1, 2, 3, 4])
    found = Drawing()(scores, seeds, place)
    assert Drawing()(scores[:1], seeds[2:3], place[:1])[0].equal(found[2])
    assert Drawing()(scores[:, 3:4], seeds, place[:, 3:4])[:, 0].equal(found[:, 3])
    assert not found[0].equal(found[1])
    again = Drawing()(scores, seeds, place, purpose=1)
    assert not found.equal(again)
    purpose = torch.tensor([0, 1, 0, 1])
    mixed = Drawing()(scores, seeds, place, purpose=purpose)
    assert mixed.equal(torch.where(purpose[:, None] == 0, found, again))


def test_rare_tokens_stay_as_rare_in_float32():
    """The truncated tail of float32 noise would lose tokens of small probability."""
    scores = torch.tensor([[[0.0, -7.0]]])
    law = Drawing().law(scores).exp()[0, 0]
    assert law.dtype == torch.float64
    assert follows(draws(Drawing(), 100_000, scores=scores), law)


def test_log_probabilities_are_those_of_the_tokens():
    tokens = torch.tensor([[2]])
    wanted = SCORES.log_softmax(-1)[:, :, 2]
    assert_close(log_probabilities(SCORES, tokens), wanted)
