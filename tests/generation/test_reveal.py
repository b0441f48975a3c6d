"""Which tokens are kept: orders, amounts, thresholds."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sequence_toys import follows

from sciseq.generation.parts.plans import equal_transfer
from sciseq.generation.parts.reveal import ORDERS, Reveal, equal_amounts

LAWS = torch.tensor(
    [[[0.5, 0.45, 0.05], [0.6, 0.2, 0.2], [0.1, 0.8, 0.1], [0.34, 0.33, 0.33]]],
    dtype=torch.float64,
)
TOKENS = torch.tensor([[0, 1, 1, 0]])
ALL = torch.ones(1, 4, dtype=torch.bool)
ZERO, SEED = torch.tensor([0]), torch.tensor([3])


def kept(reveal, hidden=ALL, step=ZERO, seeds=SEED, logs=None, **kwargs):
    n = len(seeds)
    logs = LAWS.log() if logs is None else logs
    return reveal(logs.expand(n, -1, -1), TOKENS.expand(n, -1), hidden.expand(n, -1),
                  step.expand(n), seeds, **kwargs)  # fmt: skip


def order(name, **kwargs):
    """Positions in the order in which one after the other is kept."""
    hidden, found = ALL.clone(), []
    while bool(hidden.any()):
        new = kept(Reveal(name), hidden, **kwargs)
        assert int(new.sum()) == 1
        found.append(int(new[0].nonzero()))
        hidden &= ~new
    return found


def test_orders_follow_their_scores():
    assert order("confidence") == [2, 0, 3, 1]  # of the drawn tokens: .5 .2 .8 .34
    assert order("margin") == [2, 1, 0, 3]
    entropies = [-sum(p * math.log(p) for p in row) for row in LAWS[0].tolist()]
    assert order("entropy") == sorted(range(4), key=entropies.__getitem__)
    assert order("left_to_right") == [0, 1, 2, 3]


def test_zero_probabilities_are_no_trouble():
    logs = torch.tensor([[[0.0, -math.inf], [-0.7, -0.7]]], dtype=torch.float64)
    for name in ORDERS:
        found = Reveal(name)(logs, torch.zeros(1, 2, dtype=torch.int64), ALL[:, :2],
                             ZERO, SEED)  # fmt: skip
        assert int(found.sum()) == 1
        assert name not in ("confidence", "margin", "entropy") or bool(found[0, 0])


def test_one_token_alone_has_a_margin():
    logs = torch.zeros(1, 2, 1)
    found = Reveal("margin")(logs, TOKENS[:, :2] * 0, ALL[:, :2], ZERO, SEED)
    assert found.tolist() == [[True, False]]


def test_the_random_order_is_uniform_and_belongs_to_the_request():
    seeds = torch.arange(8000)
    found = kept(Reveal("random"), seeds=seeds)
    assert follows(found.sum(dim=0), [0.25] * 4)
    later = kept(Reveal("random"), seeds=seeds, step=torch.tensor([1]))
    both = (found.int().argmax(1) * 4 + later.int().argmax(1)).bincount(minlength=16)
    assert follows(both, [1 / 16] * 16)  # each step anew
    elsewhere = kept(
        Reveal("random"), seeds=seeds, position=torch.tensor([[4, 5, 6, 7]])
    )
    both = (found.int().argmax(1) * 4 + elsewhere.int().argmax(1)).bincount(
        minlength=16
    )
    assert follows(both, [1 / 16] * 16)  # each block anew
    assert kept(Reveal("random"), seeds=seeds[5:6])[0].equal(found[5])


def test_a_threshold_keeps_all_above_it_and_at_least_the_amount():
    assert kept(Reveal(threshold=0.3)).tolist() == [[True, False, True, True]]
    assert kept(Reveal(threshold=0.5)).tolist() == [[False, False, True, False]]
    assert kept(Reveal(threshold=0.9)).tolist() == [[False, False, True, False]]
    two = Reveal(amount=equal_amounts(2), threshold=0.9)
    assert kept(two).tolist() == [[True, False, True, False]]


@pytest.mark.parametrize("name", ORDERS)
def test_only_hidden_tokens_are_kept(name):
    hidden = torch.tensor([[False, True, False, True]])
    found = kept(Reveal(name, equal_amounts(1), threshold=0.0), hidden)
    assert found.equal(hidden)
    assert not kept(Reveal(name), ~ALL).any()


@given(st.integers(1, 40), st.integers(1, 12))
def test_equal_amounts_are_those_of_the_card(n_hidden, n_steps):
    amount, left, found = equal_amounts(n_steps), n_hidden, []
    for step in range(n_steps):
        n = int(amount(torch.tensor([left]), torch.tensor([step])))
        found.append(n)
        left -= n
    assert found == equal_transfer(torch.tensor([n_hidden]), n_steps)[0].tolist()
    assert left == 0


def test_late_steps_keep_all_that_is_left():
    amount = equal_amounts(3)
    assert int(amount(torch.tensor([5]), torch.tensor([9]))) == 5
