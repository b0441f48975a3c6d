"""Exact counts of masks in blocks, late tokens more often, and block diffusion else."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sequence_toys import every_row, fitted, follows, run, tiny_network

from sciseq.errors import InputError
from sciseq.generation.parts.batches import SequenceBatch
from sciseq.generation.parts.block_masks import block_share_mask, of_tokens
from sciseq.generation.parts.corruption import exact_count_mask
from sciseq.generation.parts.drawing import Drawing
from sciseq.generation.parts.layout import Layout, two_copies
from sciseq.generation.parts.masks import attention_mask, two_copy
from sciseq.generation.parts.noise import uniform
from sciseq.generation.parts.two_copy_loss import two_copy_scores
from sciseq.generation.sequences.block_diffusion import BlockDiffusionSequence
from sciseq.generation.sequences.efficient_block import (
    EfficientBlockDiffusion,
    late_tokens,
)
from sciseq.generation.sequences.masked_diffusion import denoising_scores

LEAST = 1e-3
LENGTH = 7
NETWORK = tiny_network(3, LENGTH)


def numbers(n, length, seed=0):
    return uniform(torch.arange(n) + 1000 * seed, 0, torch.arange(length)[None])


def at_level(share, n, n_blocks):
    """Uniform numbers of blocks that stand for a share m."""
    return torch.full((n, n_blocks), (share - LEAST) / (1 - LEAST)).double()


def batch_of(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(3, (n, LENGTH), generator=generator)
    return SequenceBatch(tokens, torch.arange(n), None)


def model(**params):
    return fitted(EfficientBlockDiffusion, 3, LENGTH, network=NETWORK, **params)


# --- T12: counts, and where masks are -------------------------------------------------


@settings(max_examples=40)
@given(length=st.integers(1, 20), size=st.integers(1, 6), seed=st.integers(0, 99))
def test_counts_are_exact_in_every_block(length, size, seed):
    n_blocks = -(-length // size)
    u_block = uniform(torch.arange(4) + seed, 1, torch.arange(n_blocks)[None])
    broken = late_tokens(numbers(4, length, seed), u_block, size)
    share = LEAST + (1 - LEAST) * u_block
    for block in range(n_blocks):
        part = slice(block * size, (block + 1) * size)
        n = len(range(length)[part])
        expected = (share[:, block] * n + 0.5).floor().clamp(1, n).long()
        assert broken.mask[:, part].sum(1).equal(expected)
    weight = broken.weight * of_tokens(share, size, length)
    torch.testing.assert_close(weight, torch.ones_like(weight))


@pytest.mark.parametrize(
    ("share", "k", "mean"),
    [(0.1, 2, 10.4), (0.25, 4, 9.8), (0.5, 8, 8.75), (1, 16, 7.5)],
)
def test_mean_place_of_masks(share, k, mean):
    n, place = 4000, torch.arange(16.0)
    for half_life, wanted in ((0.25, mean), (math.inf, 7.5)):
        u_block = at_level(share, n, 1)
        mask = late_tokens(numbers(n, 16), u_block, 16, half_life=half_life).mask
        assert (mask.sum(1) == k).all()
        found = float((mask * place).sum() / mask.sum())
        assert abs(found - wanted) < 0.1
    # A law of earlier tokens would not pass.
    assert share == 1 or abs(mean - 7.5) > 0.5


def test_the_law_of_pairs_is_that_of_draws_without_replacement():
    n, size, share = 6000, 4, 0.5
    beta = math.log(2) / (0.25 * size)
    w = [math.exp(beta * (1 - share) * i) for i in range(size)]
    law = {}
    for i, j in itertools.permutations(range(size), 2):
        pair = tuple(sorted((i, j)))
        law[pair] = law.get(pair, 0) + w[i] / sum(w) * w[j] / (sum(w) - w[i])
    pairs = sorted(law)
    # The second block of each row has a law of its own, and the same.
    mask = late_tokens(numbers(n, 8), at_level(share, n, 2), size).mask
    for part in (mask[:, :4], mask[:, 4:]):
        counts = [int(part[:, list(pair)].all(1).sum()) for pair in pairs]
        assert follows(counts, [law[pair] for pair in pairs])
        assert not follows(counts, [1 / 6] * 6)
    flat = late_tokens(numbers(n, 8), at_level(share, n, 2), size, half_life=math.inf)
    counts = [int(flat.mask[:, list(pair)].all(1).sum()) for pair in pairs]
    assert follows(counts, [1 / 6] * 6)


def test_blocks_are_masked_apart():
    u = torch.tensor([[0.9, 0.8, 0.7, 0.1, 0.2, 0.3, 0.5]])
    share = torch.tensor([[0.34, 0.67, 1.0]])
    mask = block_share_mask(u, share, 3)
    assert mask.int().tolist() == [[1, 0, 0, 0, 1, 1, 1]]


# --- The loss -------------------------------------------------------------------------


def test_blocks_of_one_are_autoregressive():
    """T02: at m = 1 the loss is the exact likelihood of a law of next tokens."""
    network, rows = tiny_network(3, 4), every_row(3, 4)
    ours = fitted(EfficientBlockDiffusion, network=network, block_size=1, n_estimates=2)
    strings = ours.alphabet_.decode(rows.numpy())
    scores, errors = ours.score_samples(strings, return_std=True)
    assert errors.max() < 1e-12 and abs(np.exp(scores).sum() - 1) < 1e-12
    loss = ours._loss(0)
    corrupt = loss.corrupt
    # Its only token is hidden at any level.
    assert corrupt(numbers(4, 4), at_level(0.01, 4, 4), 1).mask.all()
    loss.corrupt = lambda u, u_block, size: corrupt(u, at_level(1.0, *u.shape), size)
    batch = SequenceBatch(rows, torch.arange(len(rows)), None)
    assert float(loss(network, batch)[0].detach()) == pytest.approx(
        -scores.sum(), rel=1e-12
    )
    # Blocks of more tokens are not.
    wider = ours.set_params(block_size=2).score_samples(strings)
    assert abs(np.exp(wider).sum() - 1) > 1e-6


@pytest.mark.parametrize("normalisation", ["length", "masked"])
def test_the_loss_by_hand(normalisation):
    batch, size = batch_of(3), 3
    loss = model(block_size=size, normalisation=normalisation)._loss(4)
    total, count = loss(NETWORK, batch)
    broken = late_tokens(
        loss.noise(NETWORK, batch, 0, LENGTH), loss.noise(NETWORK, batch, 1, 3), size
    )
    share = LEAST + (1 - LEAST) * loss.noise(NETWORK, batch, 1, 3)
    rule = two_copy(clean="block")
    noisy, _ = two_copy_scores(NETWORK, batch, broken, size, rule)
    logs = noisy.log_softmax(-1).gather(2, batch.tokens.unsqueeze(2)).squeeze(2)
    expected = 0.0
    for row in range(3):
        hidden = broken.mask[row].nonzero().flatten().tolist()
        term = -sum(logs[row, i] / share[row, i // size] for i in hidden)
        n = LENGTH if normalisation == "length" else len(hidden)
        expected = expected + term / n
    assert count == 3 * LENGTH
    torch.testing.assert_close(total / LENGTH, expected)


def test_with_one_block_it_is_masked_diffusion_of_exact_counts():
    """T03, exactly where the prefix does not read tokens: in a network of one layer."""

    def both(network, half_life):
        ours = fitted(EfficientBlockDiffusion, 3, LENGTH, network=network,
                      block_size=LENGTH, half_life=half_life)  # fmt: skip
        loss, batch = ours._loss(4), batch_of(3)
        u, u_level = (
            loss.noise(network, batch, i, n) for i, n in ((0, LENGTH), (1, 1))
        )
        share = LEAST + (1 - LEAST) * u_level[:, 0]
        count = (share * LENGTH + 0.5).long().clamp_min(1)
        mask = exact_count_mask(torch.ones_like(u, dtype=torch.bool), count, u)
        shown = batch.tokens.masked_fill(mask, network.mask)
        logs = denoising_scores(network, shown, None).log_softmax(-1)
        logs = logs.gather(2, batch.tokens.unsqueeze(2)).squeeze(2)
        wanted = -(logs / share[:, None])[mask].sum()
        return float(loss(network, batch)[0].detach()), float(wanted.detach())

    flat = tiny_network(3, LENGTH, n_layers=1)
    for network in (flat.train(), flat.eval()):
        found, wanted = both(network, math.inf)
        assert found == pytest.approx(wanted, rel=1e-11)
    # Late tokens, or a prefix that reads tokens, are another loss.
    for network, half_life in ((flat, 0.1), (NETWORK, math.inf)):
        found, wanted = both(network, half_life)
        assert abs(found - wanted) > 1e-3


def test_rows_read_what_those_of_block_diffusion_read():
    ours = model(block_size=3)._loss(0)
    host = fitted(BlockDiffusionSequence, network=NETWORK, block_size=3)._loss(0)
    layout = two_copies(Layout.of(LENGTH, block=3))
    masks = [attention_mask(one.rule, layout) for one in (ours, host)]
    assert torch.equal(*masks) and not ours.is_shifted and not ours.clean_weight


# --- The estimator --------------------------------------------------------------------


@pytest.mark.parametrize("with_ends", [False, True])
def test_masks_are_never_drawn_and_batches_do_not_matter(with_ends):
    network = tiny_network(3, LENGTH)
    with torch.no_grad():  # even where the mask resembles everything
        network.backbone.symbols[network.mask] = network.backbone.head.weight.sum(0)
    ours = fitted(
        EfficientBlockDiffusion, 3, LENGTH, network=network, block_size=3,
        threshold=0.5, with_ends=with_ends,
    )  # fmt: skip
    many = ours.sample(40, random_state=1)
    assert set("".join(many)) <= set("ABC"[: 3 - with_ends])
    assert many == ours.sample(40, random_state=1)
    assert many[:3] == ours.sample(3, random_state=1)
    assert many != ours.sample(40, random_state=2)


def test_counters_by_hand():
    empty = torch.full((2, LENGTH), -1)
    # The begin; one pass denoises a block, one reads it clean; the last, of one token,
    # is only denoised.
    _, work = run(
        NETWORK, model(block_size=3, threshold=0.0)._decoder(Drawing()), empty
    )
    assert work.n_passes.tolist() == [1 + 2 + 2 + 1] * 2
    assert work.n_rows.tolist() == [1 + 6 + 6 + 1] * 2
    assert work.n_tokens.tolist() == [LENGTH] * 2


@pytest.mark.parametrize("bad", [{"half_life": 0.0}, {"normalisation": "none"}])
def test_parameters_out_of_range_are_refused(bad):
    with pytest.raises(InputError, match=next(iter(bad))):
        EfficientBlockDiffusion(**bad).fit(["AB", "BA"])
