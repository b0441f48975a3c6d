"""Masks of tokens: exact counts, laws by enumeration, partitions, levels."""

import itertools
import math
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from sciseq.errors import InputError, InputTypeError
from sciseq.generation.parts.corruption import (
    bernoulli_mask,
    complement,
    ensure_one,
    exact_count_mask,
    position_weighted_log_weight,
    round_half_up_count,
    stratified_levels,
    truncated_count,
)
from sciseq.generation.parts.noise import uniform
from sciseq.generation.parts.spans import span_mask


def numbers(n_rows, n_tokens, seed=0):
    """Uniform numbers (batch, token)."""
    return uniform(torch.arange(n_rows), seed, torch.arange(n_tokens).unsqueeze(0))


def everywhere(n_rows, n_tokens):
    return torch.ones(n_rows, n_tokens, dtype=torch.bool)


@st.composite
def tables(draw):
    """What may be masked, and numbers for it."""
    n_rows, n_tokens = draw(st.integers(1, 4)), draw(st.integers(1, 9))
    bits = draw(st.integers(0, 2**36 - 1)) >> torch.arange(n_rows * n_tokens)
    maskable = (bits & 1).bool().reshape(n_rows, n_tokens)
    return maskable, numbers(n_rows, n_tokens, draw(st.integers(0, 2**20)))


def drawn_counts(data, lows, highs):
    pairs = zip(lows.tolist(), highs.tolist(), strict=True)
    return torch.tensor([data.draw(st.integers(low, high)) for low, high in pairs])


# --- Independent masks ---------------------------------------------------------------


@given(table=tables(), p=st.floats(0, 1), q=st.floats(0, 1))
def test_bernoulli_masks_lie_inside_and_grow_with_p(table, p, q):
    maskable, u = table
    n_rows = len(u)
    low, high = (
        bernoulli_mask(maskable, torch.full((n_rows,), one, dtype=torch.float64), u)
        for one in sorted((p, q))
    )
    assert not (high & ~maskable).any()
    assert not (low & ~high).any()
    assert not bernoulli_mask(maskable, torch.zeros(n_rows), u).any()
    assert torch.equal(bernoulli_mask(maskable, torch.ones(n_rows), u), maskable)


def test_bernoulli_masks_have_the_rate_of_their_row_or_token():
    u = numbers(20_000, 3)
    maskable = everywhere(*u.shape)
    rate = torch.tensor([0.2, 0.7]).repeat(10_000)
    masks = bernoulli_mask(maskable, rate, u).double().reshape(10_000, 2, 3)
    of_tokens = torch.tensor([0.0, 0.1, 1.0]).expand(20_000, 3)
    assert masks.mean(dim=(0, 2)).tolist() == pytest.approx([0.2, 0.7], abs=0.012)
    means = bernoulli_mask(maskable, of_tokens, u).double().mean(dim=0).tolist()
    assert means == pytest.approx([0, 0.1, 1], abs=0.01)
    # Tokens are masked independently: the number of masks is binomial.
    n_masked = masks[:, 0].sum(dim=1).long().bincount(minlength=4)
    expected = 10_000 * stats.binom.pmf(range(4), 3, 0.2)
    assert stats.chisquare(n_masked.numpy(), expected).pvalue > 1e-4


# --- Exact counts --------------------------------------------------------------------


@given(table=tables(), is_weighted=st.booleans(), data=st.data())
def test_counts_are_exact_and_masks_grow_with_them(table, is_weighted, data):
    maskable, u = table
    n = maskable.sum(dim=1)
    count = drawn_counts(data, 0 * n, n)
    log_weight = torch.linspace(-3, 5, u.shape[1]) if is_weighted else None
    mask = exact_count_mask(maskable, count, u, log_weight)
    assert torch.equal(mask.sum(dim=1), count)
    assert not (mask & ~maskable).any()
    fewer = exact_count_mask(maskable, (count - 1).clamp(min=0), u, log_weight)
    assert not (fewer & ~mask).any()


def test_counts_are_exact_for_equal_numbers():
    u = torch.full((3, 5), 0.5)
    count = torch.tensor([0, 2, 5])
    mask = exact_count_mask(everywhere(3, 5), count, u)
    assert mask.sum(dim=1).tolist() == [0, 2, 5]
    # Wrong: a cut-off at the k-th number takes all that are equal to it.
    cut_off = u.sort(dim=1, descending=True).values.gather(1, torch.tensor([[0]] * 3))
    assert (u >= cut_off).sum(dim=1).tolist() != [0, 2, 5]


def test_equal_weights_give_the_masks_without_weights():
    u = numbers(300, 8)
    count = torch.arange(300) % 9
    plain = exact_count_mask(everywhere(300, 8), count, u)
    assert torch.equal(
        exact_count_mask(everywhere(300, 8), count, u, torch.full((8,), -1.5)), plain
    )


def successive(weights, n_drawn):
    """Probabilities of subsets, drawn one by one without replacement."""
    law = Counter()
    for order in itertools.permutations(range(len(weights)), n_drawn):
        left, probability = sum(weights), 1.0
        for one in order:
            probability *= weights[one] / left
            left -= weights[one]
        law[tuple(sorted(order))] += probability
    return law


def subset_p_value(masks, law):
    drawn = Counter(tuple(row.nonzero().flatten().tolist()) for row in masks)
    assert set(drawn) <= set(law)
    observed = [drawn[subset] for subset in law]
    expected = [len(masks) * probability for probability in law.values()]
    return stats.chisquare(observed, expected).pvalue


N_DRAWS = 20_000


@pytest.mark.parametrize(("share", "half_life"), [(0.5, 0.25), (1.0, 0.25), (0.5, 1.0)])
def test_subsets_have_the_law_of_successive_sampling(share, half_life):
    log_weight = position_weighted_log_weight(4, torch.tensor(share), half_life)
    law = successive(log_weight.exp().tolist(), 2)
    assert sum(law.values()) == pytest.approx(1, abs=1e-12)
    count = torch.full((N_DRAWS,), 2)
    masks = exact_count_mask(
        everywhere(N_DRAWS, 4), count, numbers(N_DRAWS, 4), log_weight
    )
    assert 1e-4 < subset_p_value(masks, law) < 1 - 1e-4
    inclusion = [sum(p for s, p in law.items() if i in s) for i in range(4)]
    assert masks.double().mean(dim=0).tolist() == pytest.approx(inclusion, abs=0.015)


def test_weighted_numbers_without_the_gumbel_law_are_caught():
    log_weight = position_weighted_log_weight(4, torch.tensor(0.5))
    law = successive(log_weight.exp().tolist(), 2)
    chosen = (log_weight.exp() * numbers(N_DRAWS, 4)).topk(2, dim=1).indices
    masks = torch.zeros(N_DRAWS, 4, dtype=torch.bool).scatter(1, chosen, True)
    assert subset_p_value(masks, law) < 1e-12


def test_subsets_without_weights_are_equally_probable():
    maskable = torch.tensor([True, True, False, True, True]).expand(N_DRAWS, 5)
    masks = exact_count_mask(maskable, torch.full((N_DRAWS,), 2), numbers(N_DRAWS, 5))
    law = {subset: 1 / 6 for subset in itertools.combinations((0, 1, 3, 4), 2)}
    assert 1e-4 < subset_p_value(masks, law) < 1 - 1e-4


# --- Late tokens are masked more often -----------------------------------------------


def mean_masked_index(share, half_life=0.25, n=4000):
    share = torch.full((n,), share, dtype=torch.float64)
    log_weight = position_weighted_log_weight(16, share, half_life)
    count = round_half_up_count(share, 16)
    mask = exact_count_mask(everywhere(n, 16), count, numbers(n, 16), log_weight)
    return float((mask * torch.arange(16)).sum() / mask.sum())


@pytest.mark.parametrize(
    ("share", "n_masked", "expected"),
    [(0.1, 2, 10.4), (0.25, 4, 9.8), (0.5, 8, 8.75), (1.0, 16, 7.5)],
)
def test_mean_index_of_masks_in_a_block_of_16(share, n_masked, expected):
    assert round_half_up_count(torch.tensor([share]), 16).tolist() == [n_masked]
    assert mean_masked_index(share) == pytest.approx(expected, abs=0.1)
    assert mean_masked_index(share, math.inf) == pytest.approx(7.5, abs=0.15)


def test_weights_double_each_half_life_when_nearly_nothing_is_masked():
    share = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    steps = position_weighted_log_weight(16, share, 0.25).diff(dim=1)
    expected = (math.log(2) / 4 * (1 - share)).unsqueeze(1).expand(3, 15)
    torch.testing.assert_close(steps, expected, rtol=0, atol=1e-14)
    assert position_weighted_log_weight(1, share).tolist() == [[0.0]] * 3


# --- Pairs and rows without a mask ---------------------------------------------------


@given(table=tables(), p=st.floats(0, 1))
def test_a_mask_and_its_complement_are_a_partition(table, p):
    maskable, u = table
    mask = bernoulli_mask(maskable, torch.full((len(u),), p), u)
    other = complement(mask, maskable)
    assert not (mask & other).any()
    assert torch.equal(mask | other, maskable)
    assert torch.equal(complement(other, maskable), mask)
    # Wrong: the plain negation masks what must stay.
    assert torch.equal(mask | ~mask, maskable) == bool(maskable.all())


@given(table=tables(), p=st.floats(0, 0.4))
def test_every_row_has_a_mask_and_rows_that_had_one_stay(table, p):
    maskable, u = table
    mask = bernoulli_mask(maskable, torch.full((len(u),), p), u)
    ensured = ensure_one(mask, maskable, u)
    had_one, can_have_one = mask.any(dim=1), maskable.any(dim=1)
    assert torch.equal(ensured[had_one], mask[had_one])
    assert torch.equal(ensured.sum(dim=1)[~had_one], can_have_one[~had_one].long())
    # The same as a raised p.
    lowest = u.where(maskable, 2.0).amin(dim=1)
    raised = torch.nextafter(lowest, lowest + 1).clamp(min=p)
    assert torch.equal(ensured, bernoulli_mask(maskable, raised, u))


# --- Spans ---------------------------------------------------------------------------


def n_runs(row):
    return sum(1 for value, _ in itertools.groupby(row) if value)


@given(table=tables(), data=st.data())
def test_spans_have_their_number_and_their_tokens(table, data):
    maskable, u = table
    n = maskable.sum(dim=1)
    count = drawn_counts(data, 0 * n, n)
    most = count.minimum(n - count + 1)
    n_spans = drawn_counts(data, count.clamp(max=1), most)
    mask = span_mask(maskable, count, n_spans, u)
    assert torch.equal(mask.sum(dim=1), count)
    assert not (mask & ~maskable).any()
    for row in range(len(u)):
        assert n_runs(mask[row, maskable[row]].tolist()) == int(n_spans[row])


@pytest.mark.parametrize(("count", "n_spans"), [(3, 2), (4, 1), (3, 3), (2, 2)])
def test_masks_of_spans_are_equally_probable(count, n_spans):
    n = 12_000
    subsets = [
        subset
        for subset in itertools.combinations(range(6), count)
        if n_runs([i in subset for i in range(6)]) == n_spans
    ]
    n_subsets = math.comb(count - 1, n_spans - 1) * math.comb(7 - count, n_spans)
    assert len(subsets) == n_subsets
    rows = torch.ones(n, dtype=torch.int64)
    masks = span_mask(everywhere(n, 6), count * rows, n_spans * rows, numbers(n, 6))
    law = dict.fromkeys(subsets, 1 / n_subsets)
    p_value = subset_p_value(masks, law) if n_subsets > 1 else 0.5
    assert 1e-4 < p_value < 1 - 1e-4


def test_impossible_spans_are_refused():
    u, one = numbers(1, 6), torch.tensor([1])
    with pytest.raises(InputError, match="n_spans is 3 in row 0; 1 to 2 are possible"):
        span_mask(everywhere(1, 6), 5 * one, 3 * one, u)
    with pytest.raises(InputError, match="n_spans is 0 in row 0; 1 to 3"):
        span_mask(everywhere(1, 6), 3 * one, 0 * one, u)


# --- Levels and counts ---------------------------------------------------------------


@given(u0=st.floats(0, 1, exclude_min=True, exclude_max=True), n=st.integers(1, 40))
def test_each_part_of_the_interval_has_one_level(u0, n):
    levels = stratified_levels(u0, n, epsilon=0.0)
    # Rounding takes levels at a border to it at most.
    assert ((levels * n - torch.arange(n) - u0).abs() < 1e-12 * n).all()
    assert levels.dtype == torch.float64
    clamped = stratified_levels(u0, n, epsilon=0.1)
    torch.testing.assert_close(clamped, 0.9 * levels + 0.1, rtol=0, atol=1e-15)
    assert clamped.min() >= 0.1
    assert clamped.max() <= 1


def test_levels_over_many_batches_are_uniform_and_their_mean_hardly_varies():
    u0 = numbers(2000, 1).flatten().tolist()
    levels = torch.stack([stratified_levels(one, 8, epsilon=0.0) for one in u0])
    assert stats.kstest(levels.flatten().numpy(), "uniform").pvalue > 1e-4
    independent = numbers(2000, 8)
    ratio = levels.mean(dim=1).std() / independent.mean(dim=1).std()
    assert float(ratio) == pytest.approx(1 / math.sqrt(8), rel=0.08)


def test_halves_are_rounded_up_and_counts_stay_possible():
    n = 50
    share = torch.tensor([0.001, 0.01, 0.03, 0.05, 0.29, 1.0], dtype=torch.float64)
    assert round_half_up_count(share, n).tolist() == [1, 1, 2, 3, 15, 50]
    # Wrong: halves to the even number; and the product without a tolerance.
    assert (share * n).round().tolist() != [1, 1, 2, 3, 15, 50]
    assert math.floor(0.29 * 50 + 0.5) == 14
    rows = torch.tensor([0, 1, 3])
    assert round_half_up_count(torch.full((3,), 0.5), rows).tolist() == [0, 1, 2]


@given(share=st.floats(0, 1, exclude_min=True), n=st.integers(1, 200))
def test_counts_are_the_nearest_possible(share, n):
    count = int(round_half_up_count(torch.tensor([share], dtype=torch.float64), n))
    assert 1 <= count <= n
    assert abs(count - share * n) <= 0.5 + 1e-8 or count == 1
    below = int(truncated_count(torch.tensor([share], dtype=torch.float64), n))
    assert 1 <= below <= count


def test_truncated_counts():
    share = torch.tensor([0.0, 0.01, 0.15, 0.29, 1.0], dtype=torch.float64)
    assert truncated_count(share, 100).tolist() == [0, 1, 15, 29, 100]
    assert truncated_count(share, torch.tensor([9, 0, 13, 7, 0])).tolist() == [
        *(0, 0, 1, 2, 0)
    ]


# --- Batches and errors --------------------------------------------------------------


def test_the_mask_of_a_row_does_not_depend_on_the_batch():
    u, maskable = numbers(6, 9), numbers(6, 9, seed=1) < 0.8
    count = maskable.sum(dim=1) // 2
    log_weight = torch.linspace(0, 2, 9)
    together = exact_count_mask(maskable, count, u, log_weight)
    spans = span_mask(maskable, count, count.clamp(max=2), u)
    for row in range(6):
        one = slice(row, row + 1)
        alone = exact_count_mask(maskable[one], count[one], u[one], log_weight)
        assert torch.equal(alone, together[one])
        alone = span_mask(maskable[one], count[one], count[one].clamp(max=2), u[one])
        assert torch.equal(alone, spans[one])


def test_wrong_arguments_are_refused():
    maskable, u = everywhere(2, 3), numbers(2, 3)
    two = torch.tensor([2, 2])
    with pytest.raises(InputTypeError, match=r"must be torch\.bool"):
        bernoulli_mask(maskable.long(), torch.ones(2), u)
    with pytest.raises(InputError, match="same shape"):
        bernoulli_mask(maskable, torch.ones(2), u[:1])
    with pytest.raises(InputError, match="one per row"):
        bernoulli_mask(maskable, torch.ones(3), u)
    with pytest.raises(InputError, match=r"\(batch, token\)"):
        complement(maskable[0], maskable[0])
    with pytest.raises(InputError, match="count is 4 in row 1; 0 to 3 are possible"):
        exact_count_mask(maskable, torch.tensor([3, 4]), u)
    with pytest.raises(InputError, match="count is -1 in row 0"):
        exact_count_mask(maskable, torch.tensor([-1, 4]), u)
    with pytest.raises(InputError, match="log_weight"):
        exact_count_mask(maskable, two, u, torch.zeros(2))
    with pytest.raises(InputError, match="half_life 0"):
        position_weighted_log_weight(4, torch.ones(2), 0)
    for wrong in ((0.0, 1), (1.0, 1), (0.5, 0)):
        with pytest.raises(InputError, match="u0 is"):
            stratified_levels(*wrong)
