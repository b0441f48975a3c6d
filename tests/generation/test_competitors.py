"""Drawn competitors: their law, the sum they estimate, and the loss they stand in."""

import pytest
import torch
from torch.testing import assert_close

from sciseq.generation.parts.batches import SequenceBatch
from sciseq.generation.parts.competitors import Competitors
from sciseq.generation.sequences.cloze_recommender import (
    ClozeLoss,
    ClozeNetwork,
    ClozeRecommender,
)
from sciseq.nn import build_network

COUNTS = torch.tensor([6, 3, 0, 1])
V, N = len(COUNTS), 5


def draws(n_steps=400):
    some = Competitors(COUNTS, n_draws=50)
    return some, torch.stack([some.draw(3, step) for step in range(n_steps)])


def test_half_is_drawn_by_frequency_and_half_evenly():
    some, items = draws()
    expected = COUNTS.double() / 20 + 0.125
    assert_close(some.share, expected, rtol=0, atol=1e-15)
    found = torch.bincount(items.flatten(), minlength=V).double() / items.numel()
    assert_close(found, expected, rtol=0, atol=0.012)


def test_draws_depend_on_seed_and_step_alone():
    some, items = draws(2)
    assert torch.equal(some.draw(3, 1), items[1])
    assert not torch.equal(items[0], items[1])
    assert not torch.equal(some.draw(4, 1), items[1])


def estimate(some, items, target, scores, *, keeps_target=False):
    weights = (scores[items] - some.corrections(items)).exp()
    is_other = items != target
    return (weights * (is_other | keeps_target)).sum(1).mean()


@pytest.mark.parametrize("target", range(V))
def test_the_sum_over_other_items_has_no_bias(target):
    some, items = draws()
    scores = torch.tensor([0.3, -1.0, 1.2, 0.0])
    others = torch.arange(V) != target
    exact = scores[others].exp().sum()
    assert_close(estimate(some, items, target, scores), exact, rtol=0.02, atol=0)
    # Wrong: a drawn target counts a second time.
    wrong = estimate(some, items, target, scores, keeps_target=True)
    assert abs(wrong / exact - 1) > 0.05


def test_the_loss_nears_that_of_all_items():
    network = build_network(
        lambda: ClozeNetwork(V, N, 8, 16, 1, 2, 0.0), torch.Generator().manual_seed(0)
    ).double()
    with torch.no_grad():
        network.symbols.mul_(50)
        network.item_bias.copy_(torch.tensor([1.0, -1.0, 0.5, 0.0]))
    tokens = torch.tensor([[V, 0, 1, 2, 3], [0, 0, 3, 1, 2]])
    batch = SequenceBatch(tokens, torch.arange(2), None)

    def loss(competitors):
        made = ClozeLoss(0, 0.5, None, first_last=9, competitors=competitors)
        total, count = made(network, batch)
        network.zero_grad()
        total.backward()
        return total.detach(), count, network.head.weight.grad.clone()

    full = loss(None)
    drawn = loss(Competitors(COUNTS, n_draws=200_000))
    assert_close(drawn[1], full[1])
    assert_close(drawn[0], full[0], rtol=5e-3, atol=0)
    assert_close(drawn[2], full[2], rtol=0.02, atol=0.01)
    few = loss(Competitors(COUNTS, n_draws=2))  # noisy, but not the same
    assert not torch.isclose(few[0], full[0], rtol=1e-3)


def test_a_recommender_learns_with_competitors():
    histories = [[0, 1, 2, 3, 4, 5] * 2, [3, 4, 5, 0, 1, 2] * 2] * 4
    model = ClozeRecommender(
        max_length=4, d_model=16, d_ff=16, n_layers=1, dropout=0.0, n_competitors=4,
        max_epochs=15, batch_size=16, learning_rate=0.01, random_state=0, device="cpu",
    ).fit(histories)  # fmt: skip
    found = model.recommend([[0, 1], [4, 5]], k=1, exclude_history=False)
    assert found == [[2], [0]]
