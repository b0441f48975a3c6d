"""Block diffusion: autoregressive limit, what a block reads, prefill, work."""

import math

import numpy as np
import pytest
import torch
from sequence_toys import (
    GREEDY,
    every_string,
    every_string_up_to,
    fitted,
    follows,
    request,
    run,
    steps,
    tiny_network,
)

from sciseq.generation.parts.batches import SequenceBatch
from sciseq.generation.parts.block_decoder import BlockDecoder
from sciseq.generation.parts.drawing import Drawing
from sciseq.generation.parts.layout import CLEAN, NOTHING
from sciseq.generation.parts.masks import two_copy
from sciseq.generation.parts.requests import generate
from sciseq.generation.parts.reveal import Reveal, equal_amounts
from sciseq.generation.parts.two_copy_loss import Broken, two_copy_scores
from sciseq.generation.sequences.block_diffusion import (
    BlockDiffusionSequence,
    block_bound,
)

RULE = two_copy(clean="block")


def decoder(size, drawing=None, reveal=None):
    return BlockDecoder(drawing or Drawing(), reveal or Reveal(), RULE, size)


def noisy_scores(network, tokens, mask, size):
    batch = SequenceBatch(tokens, torch.arange(len(tokens)), None)
    broken = Broken(mask, torch.ones(len(tokens), 1))
    return two_copy_scores(network, batch, broken, size, RULE)[0]


def test_blocks_of_one_are_an_exact_law():
    model = fitted(BlockDiffusionSequence, block_size=1, n_estimates=2)
    strings = every_string("ABC", 4)
    values, errors = model.score_samples(strings, return_std=True)
    assert math.fsum(np.exp(values)) == pytest.approx(1, abs=1e-12)
    assert errors.max() < 1e-14
    found = model.sample(2000, random_state=0)
    assert follows([found.count(one) for one in strings], np.exp(values))


def test_blocks_of_one_are_exact_for_any_length():
    model = fitted(BlockDiffusionSequence, block_size=1, n_estimates=1,
                   with_ends=True, length=3)  # fmt: skip
    strings = every_string_up_to("AB", 3)
    values, errors = model.score_samples(strings, return_std=True)
    assert math.fsum(np.exp(values)) == pytest.approx(1, abs=1e-12)
    assert not errors.any()
    found = model.sample(1500, random_state=0)
    counts = [found.count(one) for one in strings]
    assert sum(counts) == 1500
    rows = torch.from_numpy(model.alphabet_.encode(strings))
    with torch.no_grad():
        mask = torch.ones_like(rows, dtype=torch.bool)
        logs = noisy_scores(model.network_, rows, mask, 1).log_softmax(-1)
    logs = logs.gather(2, rows.unsqueeze(2)).squeeze(2)
    is_end = (rows == 2).long()
    law = logs.where(is_end.cumsum(1) - is_end == 0, 0.0).sum(dim=1).exp()
    assert follows(counts, law)
    assert np.allclose(np.exp(values), law, rtol=0, atol=1e-12)
    # Wrong: ends behind the first one are certain, and tell nothing.
    everything = block_bound(model.network_, rows, None, 1, (0, 0, 1)).detach().exp()
    assert float(everything.sum()) < 0.99


@pytest.mark.parametrize("size", [2, 3])
def test_bounds_leave_out_the_blocks_behind_the_end(size):
    """Tighter, and still bounds: probabilities of all strings sum to less than 1."""
    model = fitted(BlockDiffusionSequence, block_size=size, n_estimates=64,
                   with_ends=True, length=6)  # fmt: skip
    strings = every_string_up_to("AB", 5)
    values = model.score_samples(strings)
    rows = torch.from_numpy(model.alphabet_.encode(strings))
    with torch.no_grad():
        loose = torch.stack([
            block_bound(model.network_, rows, None, size, (0, i, 64)) for i in range(64)
        ]).mean(dim=0)  # fmt: skip
    n_told = [-(-(len(one) + 1) // size) * size for one in strings]
    for value, other, n in zip(values, loose.tolist(), n_told, strict=True):
        assert value > other + 1e-3 if n < 6 else value == pytest.approx(other)
    assert math.fsum(np.exp(values)) < 1


def test_the_error_of_a_single_draw_is_unknown():
    model = fitted(BlockDiffusionSequence, block_size=3, n_estimates=1)
    strings = every_string("ABC", 4)
    values, errors = model.score_samples(strings, return_std=True)
    assert np.isfinite(values).all()
    assert np.isnan(errors).all()
    state = np.random.RandomState(3)
    assert (model.score_samples(strings, random_state=state) != values).any()
    assert np.isfinite(model.score_samples(strings, random_state=None)).all()


@pytest.mark.parametrize("size", [2, 3, 5])
def test_scores_of_training_are_those_of_decoding(size):
    """With the clean prefix in the cache, at any depth, for whatever is hidden."""
    network = tiny_network(3, 5, n_layers=3)
    requests = request([[-1] * 5, [1, -1, -1, 0, -1]], network.mask)
    seen = 0
    for rows, scores, tokens, _ in steps(network, decoder(size), requests):
        for i in range(len(tokens)):
            is_row = rows.layout.segment[i] != NOTHING
            if int(rows.layout.copy[i, 0]) == CLEAN:
                continue
            place = rows.layout.position[i][is_row]
            # What is still hidden behind this block is not read.
            mask = tokens[i : i + 1] == network.mask
            whole = tokens[i : i + 1].masked_fill(mask, 0)
            wanted = noisy_scores(network, whole, mask, size)
            assert (wanted[0, place] - scores[i][is_row]).abs().max() < 1e-11
            seen += 1
    assert seen >= 5


@torch.no_grad()
def test_a_token_of_a_block_never_changes_earlier_blocks():
    network, size = tiny_network(3, 6, n_layers=3), 2
    tokens = torch.tensor([[0, 1, 2, 0, 1, 2]])
    mask = torch.tensor([[True, False] * 3])
    before = noisy_scores(network, tokens, mask, size)
    for i in range(6):
        other = tokens.clone()
        other[0, i] = (tokens[0, i] + 1) % 3
        differs = (noisy_scores(network, other, mask, size) != before).any(-1)[0]
        # A shown token is read in its own noisy block, a hidden one only by later ones.
        first = (i // size) * size + (size if bool(mask[0, i]) else 0)
        assert differs.tolist() == [j >= first for j in range(6)]


@pytest.mark.parametrize("given", [2, 4, 5])
def test_prefill_may_be_split_at_any_edge(given):
    """Whole prompt blocks at once, or one after the other."""

    class OneByOne(BlockDecoder):
        def rows(self, requests):
            rows = super().rows(requests)
            some = rows.layout.map(lambda one: one[:, : self.block_size])
            return rows._replace(tokens=rows.tokens[:, : self.block_size], layout=some)

    network = tiny_network(3, 7, n_layers=3)
    prompt = [[0, 2, 1, 1, 0, 2, 1][:given] + [-1] * (7 - given)] * 20
    found = []
    for kind in (BlockDecoder, OneByOne):
        requests = request(prompt, network.mask)
        tokens, work = generate(network, kind(Drawing(), Reveal(), RULE, 2), requests)
        found.append((tokens, work))
    assert found[0][0].equal(found[1][0])
    saved = max(given // 2 - 1, 0)  # blocks that were read along
    assert (found[1][1].n_passes - found[0][1].n_passes).unique().tolist() == [saved]


def test_sequential_greedy_is_deterministic_from_left_to_right():
    network, size = tiny_network(3, 6), 3
    one = decoder(size, GREEDY, Reveal("left_to_right"))
    tokens, _ = run(network, one, [[-1] * 6])
    built = torch.full((1, 6), 0)
    with torch.no_grad():
        for i in range(6):
            mask = torch.arange(6)[None] >= i
            built[0, i] = noisy_scores(network, built, mask, size)[0, i].argmax()
    assert tokens.equal(built)


def test_work_is_counted():
    """T26: a pass for the begin, S for a block, one more to store it unless last."""
    network = tiny_network(3, 6)
    rows = [[-1] * 6, [0, 1, 2, -1, -1, -1], [0, 1, 2, 1, -1, -1], [-1, 1, 2, 0, 1, 2]]
    _, work = run(network, decoder(3), rows)
    assert work.n_passes.tolist() == [1 + 3 + 1 + 3, 1 + 1 + 3, 1 + 1 + 2, 1 + 1]
    assert work.n_rows.tolist() == [1 + 7 * 3, 1 + 4 * 3, 1 + 3 * 3, 1 + 3]
    assert work.n_tokens.tolist() == [6, 3, 2, 1]
    # The first block reads the begin, the second 3 tokens more.
    assert work.n_read.tolist()[:2] == [4 * 1 + 3 * 4, 1 + 3 * 4]
    one = decoder(3, None, Reveal("confidence", equal_amounts(1)))
    _, work = run(network, one, rows)
    assert work.n_passes.tolist() == [1 + 1 + 1 + 1, 3, 3, 2]
    assert work.tokens_per_pass.tolist()[0] == pytest.approx(6 / 4)
    one = decoder(3, None, Reveal("confidence", threshold=0.0))
    assert run(network, one, rows)[1].n_passes.tolist() == [4, 3, 3, 2]


def test_a_last_block_may_be_shorter():
    network = tiny_network(3, 5)
    tokens, work = run(network, decoder(3), [[-1] * 5] * 3)
    assert int(tokens.max()) < 3
    assert work.n_rows.tolist() == [1 + 4 * 3 + 2 * 2] * 3


def test_an_end_stops_the_blocks_behind():
    network = tiny_network(3, 9)
    with torch.no_grad():
        network.backbone.head.bias[2] += 60.0
    tokens, work = run(network, decoder(3), [[-1] * 9], end=2)
    assert tokens.tolist() == [[2] * 9]
    assert int(work.n_passes) <= 4
    assert int(work.n_tokens) == 1


def test_infilling_reads_right_of_a_gap_in_its_block():
    network = tiny_network(3, 4)
    model = fitted(BlockDiffusionSequence, network=network, block_size=4)
    tokens = torch.tensor([[0, t, 2, 1] for t in range(3)])
    mask = torch.tensor([[False, True, False, False]]).expand(3, -1)
    with torch.no_grad():
        law = noisy_scores(network, tokens, mask, 4)[0, 1].softmax(0)
    found = model.infill(["A?CB"] * 1500, random_state=0)
    assert follows([found.count(f"A{x}CB") for x in "ABC"], law)
