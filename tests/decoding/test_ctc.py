"""CTC against sums and maxima over all paths."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sciseq.decoding.ctc import (
    best_alignment,
    collapse,
    ctc_loss,
    forward_log_probs,
    greedy_decode,
    required_length,
)
from sciseq.decoding.ctc_search import prefix_beam_search
from sciseq.errors import InputError


def normal(*shape, seed=0, scale=1.5):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(*shape, generator=generator, dtype=torch.float64)
    return (scale * x).log_softmax(-1)


def collapse_by_hand(path, blank):
    merged = [symbol for symbol, _ in itertools.groupby(path)]
    return tuple(symbol for symbol in merged if symbol != blank)


def all_paths(log_probs):
    """Every path of one item, with its log-probability."""
    n_positions, n_symbols = log_probs.shape
    rows = log_probs.tolist()
    for path in itertools.product(range(n_symbols), repeat=n_positions):
        yield path, sum(rows[t][symbol] for t, symbol in enumerate(path))


def by_sequence(log_probs, blank):
    """All sequences of one item: probability, and best path with its score."""
    sums, best = {}, {}
    for path, score in all_paths(log_probs):
        y = collapse_by_hand(path, blank)
        sums[y] = sums.get(y, 0.0) + math.exp(score)
        best[y] = max(best.get(y, (-math.inf, ())), (score, path))
    return sums, best


def padded(sequences, filler=0):
    width = max(1, *(len(one) for one in sequences))
    rows = [list(one) + [filler] * (width - len(one)) for one in sequences]
    return torch.tensor(rows), torch.tensor([len(one) for one in sequences])


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("AA_A", "AA"),
        ("AA_ALL", "AAL"),
        ("____", ""),
        ("ABAB", "ABAB"),
        ("AAAA", "A"),
        ("_A_", "A"),
        ("A", "A"),
        ("_", ""),
    ],
)
def test_collapse(path, expected):
    symbols = "_ABL"
    tokens, length = collapse(torch.tensor([symbols.index(one) for one in path]), 0)
    assert "".join(symbols[one] for one in tokens[:length]) == expected
    assert (tokens[length:] == 0).all()


@given(
    paths=st.integers(1, 8).flatmap(
        lambda n: st.lists(
            st.lists(st.integers(0, 3), min_size=n, max_size=n), min_size=1, max_size=5
        )
    ),
    blank=st.integers(0, 3),
)
def test_collapse_of_a_batch(paths, blank):
    tokens, lengths = collapse(torch.tensor(paths), blank)
    for row, length, path in zip(tokens.tolist(), lengths.tolist(), paths, strict=True):
        assert tuple(row[:length]) == collapse_by_hand(path, blank)


@pytest.mark.parametrize("blank", [0, 2, 3])
@pytest.mark.parametrize(("n_positions", "n_symbols"), [(1, 4), (4, 4), (6, 3)])
def test_loss_and_alignment_equal_brute_force(n_positions, n_symbols, blank):
    if blank >= n_symbols:
        blank = n_symbols - 1
    log_probs = normal(1, n_positions, n_symbols, seed=n_positions)
    sums, best = by_sequence(log_probs[0], blank)
    assert sum(sums.values()) == pytest.approx(1, abs=1e-12)
    sequences = sorted(sums)
    targets, lengths = padded(sequences, filler=(blank + 1) % n_symbols)
    many = log_probs.expand(len(sequences), -1, -1)
    losses, is_possible = ctc_loss(many, targets, lengths, blank=blank)
    paths, scores = best_alignment(many, targets, lengths, blank=blank)
    alpha = forward_log_probs(many, targets, lengths, blank=blank)
    assert is_possible.all()
    for row, y in enumerate(sequences):
        want = math.log(sums[y])
        assert float(losses[row]) == pytest.approx(-want, abs=1e-11)
        ends = alpha[row, -1, max(2 * len(y) - 1, 0) : 2 * len(y) + 1]
        assert float(ends.logsumexp(0)) == pytest.approx(want, abs=1e-11)
        score, path = best[y]
        assert float(scores[row]) == pytest.approx(score, abs=1e-12)
        assert tuple(paths[row].tolist()) == path


def without_the_blank_between(log_probs, targets, lengths, blank):
    """Wrong: two equal neighbours need no blank between them."""
    longest = targets.shape[1]
    spread = targets.clone()
    n_symbols = log_probs.shape[2]
    # A second name for each symbol hides that neighbours are equal.
    twice = torch.cat([log_probs, log_probs], dim=2)
    spread[:, 1:longest:2] += n_symbols
    return ctc_loss(twice, spread, lengths, blank=blank)[0]


def test_equal_neighbours_need_a_blank():
    log_probs = normal(2, 4, 3)
    targets, lengths = torch.tensor([[1, 1], [1, 2]]), torch.tensor([2, 2])
    losses, _ = ctc_loss(log_probs, targets, lengths, blank=0)
    wrong = without_the_blank_between(log_probs, targets, lengths, blank=0)
    assert wrong[0] < losses[0] - 0.1
    assert wrong[1] == pytest.approx(float(losses[1]), abs=1e-12)


def test_rows_without_a_path_are_reported():
    log_probs = normal(4, 3, 3).requires_grad_()
    targets = torch.tensor([[1, 1, 2], [1, 2, 1], [1, 1, 0], [1, 1, 1]])
    lengths = torch.tensor([3, 3, 2, 3])
    losses, is_possible = ctc_loss(log_probs, targets, lengths, blank=0)
    assert is_possible.tolist() == [False, True, True, False]
    assert losses[~is_possible].tolist() == [0, 0]
    (gradient,) = torch.autograd.grad(losses.sum(), log_probs)
    assert torch.isfinite(gradient).all()
    assert (gradient[~is_possible] == 0).all() and (gradient[is_possible] != 0).any()
    paths, scores = best_alignment(log_probs.detach(), targets, lengths, blank=0)
    assert (scores[~is_possible] == -torch.inf).all()
    assert (paths[~is_possible] == 0).all()
    assert torch.isfinite(scores[is_possible]).all()


def test_required_length():
    targets, lengths = padded([(), (1,), (1, 1), (1, 1, 1, 2, 2), (1, 2)], filler=2)
    assert required_length(targets, lengths).tolist() == [0, 1, 3, 8, 2]
    nothing = required_length(
        torch.zeros(2, 0, dtype=torch.int64), torch.zeros(2).long()
    )
    assert nothing.tolist() == [0, 0]


@given(seed=st.integers(0, 1000), y=st.lists(st.integers(1, 3), max_size=4))
def test_alignments_collapse_to_their_sequence(seed, y):
    targets, lengths = padded([tuple(y)], filler=1)
    needed = int(required_length(targets, lengths))
    for n_positions in (max(needed, 1), needed + 3):
        log_probs = normal(1, n_positions, 4, seed=seed)
        paths, scores = best_alignment(log_probs, targets, lengths, blank=0)
        assert collapse_by_hand(paths[0].tolist(), 0) == tuple(y)
        along = log_probs[0].gather(1, paths[0].unsqueeze(1)).sum()
        assert float(scores) == pytest.approx(float(along), abs=1e-12)


def test_greedy_takes_the_best_path():
    log_probs = normal(5, 6, 4)
    tokens, lengths, scores = greedy_decode(log_probs, blank=3)
    for row in range(5):
        score, path = max((score, path) for path, score in all_paths(log_probs[row]))
        assert float(scores[row]) == pytest.approx(score, abs=1e-12)
        want = collapse_by_hand(path, 3)
        assert tuple(tokens[row, : lengths[row]].tolist()) == want


@pytest.mark.parametrize("blank", [0, 3])
@pytest.mark.parametrize(("n_positions", "n_symbols"), [(1, 4), (4, 4), (6, 3)])
def test_a_wide_prefix_beam_is_exact(n_positions, n_symbols, blank):
    blank = min(blank, n_symbols - 1)
    log_probs = normal(3, n_positions, n_symbols, seed=n_positions, scale=0.7)
    n_sequences = len(by_sequence(log_probs[0], blank)[0])
    found = prefix_beam_search(
        log_probs, blank=blank, beam_size=n_sequences + 5, n_best=n_sequences + 2
    )
    for row in range(3):
        sums, _ = by_sequence(log_probs[row], blank)
        want = sorted(sums.items(), key=lambda one: -one[1])
        got = [
            tuple(tokens[:length])
            for tokens, length in zip(
                found.tokens[row].tolist(), found.lengths[row].tolist(), strict=True
            )
        ]
        assert got[:n_sequences] == [y for y, _ in want]
        totals = found.totals[row].exp().tolist()
        assert totals[:n_sequences] == pytest.approx([p for _, p in want], abs=1e-12)
        assert totals[n_sequences:] == [0, 0]


@given(seed=st.integers(0, 1000), beam_size=st.integers(1, 6))
def test_a_narrow_prefix_beam_sums_some_of_the_paths(seed, beam_size):
    log_probs = normal(2, 5, 3, seed=seed)
    found = prefix_beam_search(log_probs, blank=0, beam_size=beam_size)
    for row in range(2):
        sums, best = by_sequence(log_probs[row], 0)
        y = tuple(found.tokens[row, 0, : found.lengths[row, 0]].tolist())
        total = float(found.totals[row, 0].exp())
        assert total <= sums[y] + 1e-12
        assert y in best


def test_prefixes_that_meet_are_merged():
    # Both A and the empty prefix lead to A at the second position.
    log_probs = torch.tensor([[[0.6, 0.4], [0.6, 0.4]]], dtype=torch.float64).log()
    found = prefix_beam_search(log_probs, blank=0, beam_size=2, n_best=2)
    assert found.tokens[0].tolist() == [[1, 0], [0, 0]]
    assert found.totals[0].exp().tolist() == pytest.approx([0.64, 0.36], abs=1e-15)


def test_a_prefix_search_does_not_depend_on_its_batch():
    log_probs = normal(7, 20, 6, scale=1.0)
    settings = dict(blank=5, beam_size=10, n_best=3)
    together = prefix_beam_search(log_probs, **settings)
    for row in range(7):
        alone = prefix_beam_search(log_probs[row : row + 1], **settings)
        for one, every in zip(alone, together, strict=True):
            assert torch.equal(one[0], every[row])


def test_prefix_search_beats_the_best_path():
    log_probs = normal(40, 12, 5, scale=0.8)
    tokens, lengths, _ = greedy_decode(log_probs, blank=0)
    losses, _ = ctc_loss(log_probs, tokens, lengths, blank=0)
    found = prefix_beam_search(log_probs, blank=0, beam_size=40)
    best = found.tokens[:, 0], found.lengths[:, 0]
    better, _ = ctc_loss(log_probs, *best, blank=0)
    # Some paths were lost with the prefixes that left the beam.
    assert (found.totals[:, 0] <= -better + 1e-9).all()
    assert (better < losses + 1e-9).float().mean() > 0.9
    assert (better < losses - 0.1).any()


def test_shapes_are_checked():
    log_probs, one = normal(2, 4, 3), torch.ones(2, dtype=torch.int64)
    with pytest.raises(InputError, match="blank is 3"):
        ctc_loss(log_probs, one[:, None], one, blank=3)
    with pytest.raises(InputError, match="batch of 2"):
        best_alignment(log_probs, one[:1, None], one, blank=0)
    with pytest.raises(InputError, match="one position or more"):
        greedy_decode(log_probs[:, :0], blank=0)
    with pytest.raises(InputError, match="n_best 3"):
        prefix_beam_search(log_probs, blank=0, beam_size=2, n_best=3)
    with pytest.raises(InputError, match="blank is -1"):
        prefix_beam_search(log_probs, blank=-1, beam_size=2)
