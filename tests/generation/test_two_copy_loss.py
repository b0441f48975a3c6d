"""The loss of two copies: its limits, its expectation, and what it may not read."""

import itertools

import pytest
import torch
from sequence_toys import conditions, every_row, tiny_network
from torch.testing import assert_close

from sciseq.generation.parts.batches import SequenceBatch
from sciseq.generation.parts.layout import CLEAN, NOISY, Layout, two_copies
from sciseq.generation.parts.masks import prefix_bidirectional, two_copy
from sciseq.generation.parts.two_copy_loss import (
    Broken,
    TwoCopyLoss,
    token_losses,
    two_copy_scores,
)
from sciseq.generation.sequences.autoregressive import next_token_scores
from sciseq.generation.sequences.block_diffusion import block_bound, one_level
from sciseq.generation.sequences.draft_verify import all_hidden
from sciseq.generation.sequences.masked_diffusion import (
    MaskedDiffusionLoss,
    whole_bound,
)

EXACT = {"rtol": 1e-11, "atol": 1e-11}
TOKENS = torch.tensor([[0, 2, 1, 1, 2], [1, 1, 0, 2, 0]])


def batch(tokens=TOKENS, condition=None):
    return SequenceBatch(tokens, torch.arange(len(tokens)), condition)


def hidden(mask, weight=1.0):
    return Broken(mask, torch.full((len(mask), 1), weight, dtype=torch.float64))


def loss(size, *, clean="block", corrupt=all_hidden, seed=0, **kwargs):
    return TwoCopyLoss(seed, rule=two_copy(clean=clean), corrupt=corrupt,
                       block_size=lambda progress: size, **kwargs)  # fmt: skip


def chain(network, tokens, condition=None):
    """NLL of masks behind clean tokens, one stand-alone pass for each token."""
    total = torch.zeros(len(tokens), dtype=torch.float64)
    for i in range(tokens.shape[1]):
        shown = tokens[:, : i + 1].clone()
        shown[:, i] = network.mask
        layout = Layout.of(i).followed_by(Layout.of(1, start=i, copy=NOISY))
        states = network.read(shown, layout, two_copy(), condition)
        scores = network.scores(states[:, -1:])
        total += token_losses(scores, tokens[:, i : i + 1])[:, 0]
    return total


@pytest.mark.parametrize("clean", ["block", "causal"])
@torch.no_grad()
def test_with_blocks_of_one_all_hidden_it_is_the_chain(clean):
    """T02: an autoregressive negative log-likelihood, with zero variance."""
    network, told = tiny_network(3, 5, n_layers=3, n_features=2), conditions(2)
    total, n = loss(1, clean=clean)(network, batch(condition=told))
    assert int(n) == TOKENS.numel()
    assert_close(total, chain(network, TOKENS, told).sum(), **EXACT)
    # A law: the chain sums to 1 over all strings.
    rows = every_row(3, 3)
    assert_close(float((-chain(network, rows)).exp().sum()), 1.0, **EXACT)


@torch.no_grad()
def test_with_one_block_it_is_masked_diffusion():
    """T03, exactly where the prefix does not read tokens: in a network of one layer."""
    network, told = tiny_network(3, 5, n_layers=1, n_features=2), conditions(2)
    for mode in (network.train, network.eval):
        mode()
        whole = MaskedDiffusionLoss(4)
        block = loss(5, corrupt=one_level, seed=4)
        for step in range(3):
            whole.on_step(step, 3)
            block.on_step(step, 3)
            found, n = block(network, batch(condition=told))
            wanted, n_whole = whole(network, batch(condition=told))
            assert_close(found, wanted, **EXACT)
            assert int(n) == int(n_whole)


@torch.no_grad()
def test_with_one_block_the_scores_are_the_denoiser_behind_its_prefix():
    """T03 at any depth, where the begin is kept from reading tokens."""
    network = tiny_network(3, 5, n_layers=3)
    mask = torch.tensor([[True, False, True, True, False], [True] * 5])
    noisy, _ = two_copy_scores(network, batch(), hidden(mask), 5, two_copy())
    shown = TOKENS.masked_fill(mask, network.mask)
    layout = Layout.of(5, block=5, copy=NOISY)
    states = network.read(shown, layout, prefix_bidirectional, None)
    assert_close(noisy, network.scores(states[:, 1:]), **EXACT)


def subsets(places):
    for n in range(1, len(places) + 1):
        yield from itertools.combinations(places, n)


def exact_bound(network, tokens, size):
    """Form (2) of the card in each block, by enumeration of what is hidden."""
    length = tokens.shape[1]
    total = torch.zeros(len(tokens), dtype=torch.float64)
    for first in range(0, length, size):
        places = list(range(first, min(first + size, length)))
        n = len(places)
        for some in subsets(places):
            mask = torch.zeros_like(tokens, dtype=torch.bool)
            mask[:, list(some)] = True
            scores, _ = two_copy_scores(
                network, batch(tokens), hidden(mask), size, two_copy()
            )
            losses = token_losses(scores, tokens).where(mask, 0.0).sum(dim=1)
            k = len(some)
            ways = len(list(itertools.combinations(places, k)))
            total += losses * (n / k) / (n * ways)
    return total


@pytest.mark.parametrize("size", [1, 2, 3, 4])
@torch.no_grad()
def test_the_estimate_has_the_expectation(size):
    """T04: 3 tokens, length 4; (1) with its weight 1/p equals the enumeration (2)."""
    network = tiny_network(3, 4, n_layers=1)
    tokens, n = torch.tensor([[0, 2, 1, 1]]), 3000
    exact = float(exact_bound(network, tokens, size))
    many = batch(tokens.expand(n, -1))
    block = loss(size, corrupt=one_level)

    def each(network, batch):  # the loss of each sequence by itself
        u = block.noise(network, batch, 0, 4)
        broken = one_level(u, block.noise(network, batch, 1, -(-4 // size)), size)
        scores, _ = two_copy_scores(network, batch, broken, size, two_copy())
        return block._noisy(scores, batch.tokens, broken, size).sum(dim=1)

    values = each(network, many)
    assert_close(block(network, many)[0], values.sum(), **EXACT)
    error = values.std() / n**0.5
    assert abs(float(values.mean()) - exact) < 3 * error
    # The wrong weight, none, is seen.
    assert abs(float(values.mean()) / 2 - exact) > 3 * error
    draws = [(seed, 0, 1) for seed in range(150)]
    found = [-block_bound(network, tokens, None, size, draw) for draw in draws]
    bound = torch.cat(found)
    assert abs(float(bound.mean()) - exact) < 3 * bound.std() / 150**0.5 + 1e-12
    if size == 1:
        assert float(bound.std()) < 1e-12
    if size == 4:  # one layer: the prefix does not matter
        whole = torch.cat([-whole_bound(network, tokens, None, one) for one in draws])
        assert abs(float(whole.mean()) - exact) < 3 * whole.std() / 150**0.5


@torch.no_grad()
def test_complementary_masks_have_the_same_expectation():
    network, n = tiny_network(3, 4, n_layers=1), 4000
    tokens = torch.tensor([[0, 2, 1, 1]])
    exact = float(exact_bound(network, tokens, 4))
    found = []
    for seed in range(12):
        total, count = MaskedDiffusionLoss(seed, is_complementary=True)(
            network, batch(tokens.expand(n // 12, -1))
        )
        found.append(float(total / count) * 4)
    error = torch.tensor(found).std() / 12**0.5
    assert abs(sum(found) / 12 - exact) < 3.5 * error


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@torch.no_grad()
def test_clean_scores_are_plain_autoregressive_ones(size):
    """T05, whatever the noise; where the clean copy reads blocks they are not."""
    network, told = tiny_network(3, 5, n_layers=3, n_features=2), conditions(2)
    plain = next_token_scores(network, TOKENS, told)
    for mask in (torch.ones_like(TOKENS).bool(), TOKENS == 1):
        _, clean = two_copy_scores(
            network, batch(condition=told), hidden(mask), size, two_copy(clean="causal")
        )
        assert_close(clean, plain, **EXACT)
    _, clean = two_copy_scores(
        network, batch(condition=told), hidden(mask), size, two_copy(clean="block")
    )
    assert torch.allclose(clean, plain) == (size == 1)
    # The weight of the second term is that of an autoregressive loss.
    both = loss(size, clean="causal", clean_weight=0.5)(network, batch(condition=told))
    one = loss(size, clean="causal")(network, batch(condition=told))
    wanted = 0.5 * token_losses(plain, TOKENS).sum()
    assert_close(both[0] - one[0], wanted, **EXACT)


def reads(network, rule, size, length=6):
    """Which rows change the states of which: largest entries of the Jacobian."""
    layout = two_copies(Layout.of(length, block=size))
    tokens = torch.arange(2 * length)[None] % 3
    x = network.embed(tokens, layout).detach().requires_grad_()
    states = network(x, layout, rule)
    return torch.stack([
        torch.autograd.grad(states[0, q].square().sum(), x, retain_graph=True)[0][0]
        .abs().amax(dim=1) > 0
        for q in range(2 * length)
    ])  # fmt: skip


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("clean", ["block", "causal"])
def test_noisy_blocks_never_read_their_clean_ones(size, clean):
    """T14 and the leak of two copies, through three layers."""
    network, length = tiny_network(3, 6, n_layers=3), 6
    found = reads(network, two_copy(clean=clean), size)
    for q, k in itertools.product(range(length), repeat=2):
        q_block, k_block = q // size, k // size
        assert bool(found[q, k]) == (q_block == k_block)  # noisy, noisy
        assert bool(found[q, length + k]) == (k_block < q_block)  # noisy, clean
        assert not found[length + q, k]  # clean rows never read noisy ones
        earlier = k_block <= q_block if clean == "block" else k <= q
        assert bool(found[length + q, length + k]) == earlier

    def leaking(q, k):
        own = (q.copy == NOISY) & (k.copy == CLEAN) & (k.group == q.group)
        return two_copy(clean=clean)(q, k) | own

    assert bool(reads(network, leaking, size)[0, length])


@torch.no_grad()
def test_a_shifted_row_predicts_the_next_token():
    network = tiny_network(3, 5)
    size = 3
    total, _ = loss(size, clean="causal", is_shifted=True)(network, batch())
    mask = torch.ones_like(TOKENS).bool()
    scores, _ = two_copy_scores(
        network, batch(), hidden(mask), size, two_copy(clean="causal")
    )
    # Row 0 of a block predicts its token 1, and so on: tokens 0 and 3 have no term.
    wanted = sum(
        token_losses(scores[:, i - 1 : i], TOKENS[:, i : i + 1]).sum()
        for i in (1, 2, 4)
    )
    assert_close(total, wanted, **EXACT)


@torch.no_grad()
def test_noise_belongs_to_the_sequence_and_the_step():
    network = tiny_network(3, 5).train()
    block = loss(2, corrupt=one_level)

    def value(numbers):
        some = SequenceBatch(TOKENS[numbers], torch.tensor(numbers), None)
        return float(block(network, some)[0])

    block.on_step(0, 10)
    first = value([0, 1])
    assert first == pytest.approx(value([0]) + value([1]), abs=1e-10)
    block.on_step(1, 10)
    assert value([0, 1]) != first
    block.on_step(0, 10)
    assert value([0, 1]) == first
    network.eval()  # validation is the same at every step
    before = value([0, 1])
    block.on_step(7, 10)
    assert value([0, 1]) == before != first


@torch.no_grad()
def test_the_rank_decides_in_a_reordered_block():
    network = tiny_network(3, 4, n_layers=2)
    tokens = TOKENS[:1, :4]
    mask = torch.tensor([[True, False, True, False]])
    rank = torch.tensor([[2, 0, 3, 1]])  # known tokens come first
    rule = two_copy(clean="causal", noisy="reordered")
    broken = hidden(mask)._replace(rank=rank)
    scores, _ = two_copy_scores(network, batch(tokens), broken, 4, rule)
    shown = tokens.masked_fill(mask, network.mask)
    order = torch.tensor([1, 3, 0, 2])  # a causal pass over the new order
    layout = Layout.at(order[None])
    x, before = network.prefix(1, None)
    x = torch.cat([x, network.embed(shown[:, order], layout)], dim=1)
    physical = before.followed_by(layout)
    by_rank = type(physical)(**{**vars(physical), "rank": torch.arange(5)[None]})
    states = network(x, by_rank, lambda q, k: k.rank <= q.rank)
    assert_close(scores[0, order], network.scores(states)[0, 1:], **EXACT)
