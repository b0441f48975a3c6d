"""T01: every mask equals a table made by brute force from the card's conditions."""

import itertools
from dataclasses import replace

import pytest
import torch
from sequence_toys import tiny_network

from sciseq.generation.parts.layout import CLEAN, NOISY, NOTHING, Layout, two_copies
from sciseq.generation.parts.masks import (
    attention_mask,
    block_causal,
    causal,
    full,
    local,
    prefix_bidirectional,
    prefix_causal,
    two_copy,
)

SIZES = [(n, b) for n in range(1, 7) for b in range(1, n + 1)]


def table(n, allow):
    return torch.tensor([[bool(allow(q, k)) for k in range(n)] for q in range(n)])


def made(rule, layout):
    return attention_mask(rule, layout)[0, 0]


@pytest.mark.parametrize(("n", "b"), SIZES)
def test_one_copy_is_the_table(n, b):
    layout = Layout.of(n, block=b)
    assert made(full, layout).equal(table(n, lambda q, k: True))
    assert made(causal, layout).equal(table(n, lambda q, k: k <= q))
    assert made(block_causal, layout).equal(table(n, lambda q, k: k // b <= q // b))
    near = table(n, lambda q, k: abs(q - k) <= b)
    assert made(local(b), layout).equal(near)
    prefix = replace(layout, maskable=layout.position >= b)
    assert made(prefix_causal, prefix).equal(table(n, lambda q, k: k < b or k <= q))
    both = table(n, lambda q, k: k < b or q >= b)
    assert made(prefix_bidirectional, prefix).equal(both)


def card(n, b, clean, noisy, rank):
    """BD or RC, OBC, and BC or CC over 2n rows, noisy ones first."""

    def allow(q, k):
        q_noisy, k_noisy, pq, pk = q < n, k < n, q % n, k % n
        if q_noisy and k_noisy:
            same = pq // b == pk // b
            return same and (noisy == "bidirectional" or rank[pk] <= rank[pq])
        if q_noisy:
            return pk // b < pq // b
        if k_noisy:
            return False
        return pk // b <= pq // b if clean == "block" else pk <= pq

    return table(2 * n, allow)


@pytest.mark.parametrize(("n", "b"), SIZES)
@pytest.mark.parametrize("clean", ["block", "causal"])
@pytest.mark.parametrize("noisy", ["bidirectional", "reordered"])
def test_two_copies_are_the_table(n, b, clean, noisy):
    # Any order within each block: the last is the first.
    rank = [-(p % b) + b for p in range(n)]
    layout = two_copies(Layout.of(n, block=b))
    layout = replace(layout, rank=torch.tensor([rank + rank]))
    rule = two_copy(clean=clean, noisy=noisy)
    assert made(rule, layout).equal(card(n, b, clean, noisy, rank))


def strictly_before(q, k):
    """Wrong: rows of a lower rank alone, not itself nor those of the same."""
    within = (q.copy == NOISY) & (k.copy == NOISY) & (k.group == q.group)
    rule = two_copy(clean="causal", noisy="reordered")
    return rule(q, k) & ~(within & (k.rank == q.rank))


def ranked(n, b, seed):
    """Ranks from -3 to 3, of which some are equal, and the layout that has them."""
    generator = torch.Generator().manual_seed(seed)
    rank = torch.randint(-3, 4, (n,), generator=generator)
    layout = two_copies(Layout.of(n, block=b))
    # Those of the clean copy say nothing.
    other = torch.randint(-3, 4, (n,), generator=generator)
    return rank.tolist(), replace(layout, rank=torch.cat([rank, other])[None])


@pytest.mark.parametrize("b", [1, 2, 4])
@pytest.mark.parametrize("seed", range(4))
def test_rows_of_a_noisy_block_read_those_of_no_later_rank(b, seed):
    """T14 of WeDLM, for any ranks."""
    n, rule = 8, two_copy(clean="causal", noisy="reordered")
    rank, layout = ranked(n, b, seed)

    def allow(q, k):
        return q // b == k // b and rank[k] <= rank[q]

    assert made(rule, layout)[:n, :n].equal(table(n, allow))
    assert made(rule, layout).equal(card(n, b, "causal", "reordered", rank))
    assert not made(strictly_before, layout)[:n, :n].equal(table(n, allow))


def jacobian(rule, layout):
    """Which embedded rows the states behind two layers depend on."""
    n_rows = layout.n_rows
    network = tiny_network(3, n_rows // 2)
    tokens = torch.arange(n_rows)[None] % 3
    x = network.embed(tokens, layout).detach().requires_grad_()
    prefix, before = network.prefix(1, None)
    states = network(torch.cat([prefix, x], 1), before.followed_by(layout), rule)
    mixture = torch.linspace(-1, 1, 8, dtype=torch.float64) ** 3 + 0.2
    found = []
    for value in (states[0, 1:] * mixture).sum(dim=1):
        (gradient,) = torch.autograd.grad(value, x, retain_graph=True)
        found.append(gradient[0].abs().amax(dim=1) > 0)
    return torch.stack(found)


@pytest.mark.parametrize("b", [1, 2, 4])
def test_states_depend_on_what_their_rows_may_read(b):
    """T14 through a network: no later rank, and all that is allowed."""
    rank, layout = ranked(8, b, 1)
    wanted = card(8, b, "causal", "reordered", rank)
    rule = two_copy(clean="causal", noisy="reordered")
    assert jacobian(rule, layout).equal(wanted)
    if b == 4:  # two of one rank: without each other it is another network
        assert not jacobian(strictly_before, layout).equal(wanted)


@pytest.mark.parametrize("n", [3, 6])
def test_the_table_tells_wrong_rules(n):
    b = 2
    layout, rank = two_copies(Layout.of(n, block=b)), list(range(n))
    right = card(n, b, "block", "bidirectional", rank)

    def leaks(q, k):  # a noisy block reads its own clean block
        own = (q.copy == NOISY) & (k.copy == CLEAN) & (k.group <= q.group)
        return two_copy()(q, k) | own

    def by_row(q, k):  # of earlier clean rows instead of earlier blocks
        before = (q.copy == NOISY) & (k.copy == CLEAN) & (k.position < q.position)
        return two_copy()(q, k) | before

    for wrong in (leaks, by_row, two_copy(clean="causal"), block_causal, full):
        assert not made(wrong, layout).equal(right)


def test_with_blocks_of_one_all_two_copy_rules_coincide():
    layout = two_copies(Layout.of(5))
    rules = [
        two_copy(clean=clean, noisy=noisy)
        for clean in ("block", "causal")
        for noisy in ("bidirectional", "reordered")
    ]
    masks = [made(rule, layout) for rule in rules]
    assert all(one.equal(masks[0]) for one in masks)
    clean = masks[0][5:, 5:]
    assert clean.equal(made(causal, Layout.of(5)))


@pytest.mark.parametrize("rule", [full, causal, block_causal, two_copy(), local(2)])
def test_segments_never_read_each_other_and_padding_reads_itself(rule):
    layout = Layout.of(6, block=2)
    segment = torch.tensor([[0, 0, 1, 1, NOTHING, NOTHING]])
    mask = made(rule, replace(layout, segment=segment))
    for q, k in itertools.product(range(6), repeat=2):
        if segment[0, q] != segment[0, k]:
            assert not mask[q, k]
    assert mask.diagonal().all()  # no row without a key: its softmax would be NaN


def test_queries_and_keys_may_be_other_rows():
    keys = Layout.of(6, block=2)
    queries = Layout.of(2, start=4, block=2)
    mask = attention_mask(block_causal, queries, keys)
    assert mask.shape == (1, 1, 2, 6)
    assert mask[0, 0].equal(attention_mask(block_causal, keys)[0, 0, 4:])


def test_the_step_of_draft_and_verify_is_the_table():
    # Rows: K drafts at p.., then K replicas of K masks; a prefix of p clean tokens.
    p, k = 3, 4
    place = torch.arange(k)
    drafts = Layout.at((p + place)[None])
    group = (p + 1 + place).repeat_interleave(k)[None]
    behind = (p + 1 + place[:, None] + place).flatten()[None]
    replicas = Layout.at(behind, group=group, copy=NOISY)
    rows = drafts.followed_by(replicas)
    keys = Layout.of(p).followed_by(rows)
    found = attention_mask(two_copy(clean="causal"), rows, keys)[0, 0]

    def allow(q, key):
        if key < p:
            return True
        key -= p
        if q < k:  # draft j reads drafts up to j, never a replica
            return key <= q
        r = (q - k) // k + 1
        if key < k:
            return key < r
        return (key - k) // k + 1 == r

    n = k + k * k
    wanted = torch.tensor([[allow(q, j) for j in range(p + n)] for q in range(n)])
    assert found.equal(wanted)


def test_layouts_choose_and_join_rows():
    layout = Layout.of(4, start=2, block=2)
    assert layout.position.tolist() == [[2, 3, 4, 5]]
    assert layout.group.tolist() == [[2, 2, 4, 4]]
    assert layout.rank.tolist() == [[0, 1, 0, 1]]
    taken = layout.take(torch.tensor([[3, 0], [1, 1]]))
    assert taken.position.tolist() == [[5, 2], [3, 3]]
    joined = Layout.of(1).followed_by(taken)
    assert joined.position.tolist() == [[0, 5, 2], [0, 3, 3]]
    assert joined.requests(torch.tensor([1])).position.tolist() == [[0, 3, 3]]
    both = two_copies(layout)
    assert both.scored.tolist() == [[True] * 4 + [False] * 4]
    assert both.maskable.equal(both.scored)
