"""Selection of positions: scores, amounts against loops, plans against enumeration."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sciseq.errors import InputError, InputTypeError
from sciseq.generation.parts.noise import uniform
from sciseq.generation.parts.plans import (
    PLANS,
    _nearest_increasing,
    equal_transfer,
    shifted_time,
    transfer_plan,
)
from sciseq.generation.parts.selection import (
    ORDERS,
    confidence,
    entropy_bound,
    factor,
    margin,
    negative_entropy,
    scores,
    threshold,
    top_n,
)


def drawn(shape, seed=0, low=0.0, high=1.0):
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.rand(shape, generator=generator, dtype=torch.float64)
    return low + (high - low) * numbers


@st.composite
def tables(draw):
    """Scores in (0, 1), some equal, and what is masked."""
    n_rows, n_tokens = draw(st.integers(1, 4)), draw(st.integers(1, 8))
    bits = draw(st.integers(0, 2**32 - 1)) >> torch.arange(n_rows * n_tokens)
    is_masked = (bits & 1).bool().reshape(n_rows, n_tokens)
    values = drawn((n_rows, n_tokens), draw(st.integers(0, 2**20)))
    return values.mul(20).ceil().div(20).clamp(max=0.999), is_masked


# --- Scores --------------------------------------------------------------------------


def test_scores_of_a_law_that_is_known():
    rows = [[0.5, 0.25, 0.25, 0.0], [0.1, 0.2, 0.0, 0.7]]
    p = torch.tensor([rows], dtype=torch.float64)
    logits = p.log() + 3.0
    close = {"rtol": 0, "atol": 1e-15}
    torch.testing.assert_close(confidence(logits), p.amax(-1), **close)
    chosen = torch.tensor([[1, 2]])
    torch.testing.assert_close(confidence(logits, chosen)[0, 0], p[0, 0, 1], **close)
    assert float(confidence(logits, chosen)[0, 1]) == 0
    margins = torch.stack([p[0, 0, 0] - p[0, 0, 1], p[0, 1, 3] - p[0, 1, 1]])
    torch.testing.assert_close(margin(logits)[0], margins, **close)
    entropies = [-sum(q * math.log(q) for q in row if q) for row in p[0].tolist()]
    assert (-negative_entropy(logits)[0]).tolist() == pytest.approx(
        entropies, abs=1e-14
    )
    # Wrong: p log p without the limit at 0.
    assert (p * logits.log_softmax(-1)).sum(-1).isnan().all()


def test_scores_are_computed_in_float64():
    logits = torch.tensor([[[20.0, 0.0], [19.0, 0.0]]])
    sure = confidence(logits)
    assert sure.dtype == torch.float64
    assert sure[0, 0] > sure[0, 1]
    # Wrong: float32 cannot tell the two apart.
    assert logits.softmax(-1)[0, 0, 0] == logits.softmax(-1)[0, 1, 0]


def test_orders_by_name():
    logits, u = drawn((2, 3, 5), high=4.0), drawn((2, 3), 1)
    chosen = torch.tensor([[0, 1, 2], [3, 4, 0]])
    by_name = {one: scores(one, logits, chosen=chosen, u=u) for one in ORDERS}
    assert torch.equal(by_name["confidence"], confidence(logits, chosen))
    assert torch.equal(by_name["margin"], margin(logits))
    assert torch.equal(by_name["entropy"], negative_entropy(logits))
    assert torch.equal(by_name["random"], u)
    with pytest.raises(InputError, match="Did you mean 'entropy'"):
        scores("entropi", logits)
    with pytest.raises(InputError, match="needs one number u"):
        scores("random", logits)
    with pytest.raises(InputError, match="needs one number u"):
        scores("random", logits, u=u[:1])


# --- Amounts against loops over rows -------------------------------------------------


def best_first(row, masked):
    """Masked positions of a row, best first, equal ones from the left."""
    return sorted((i for i, is_in in enumerate(masked) if is_in), key=lambda i: -row[i])


def looped(law, values, is_masked):
    """Apply a law (scores of the masked positions, best first) -> how many."""
    reveal = torch.zeros_like(is_masked)
    for i, (row, masked) in enumerate(
        zip(values.tolist(), is_masked.tolist(), strict=True)
    ):
        order = best_first(row, masked)
        reveal[i, order[: law([row[j] for j in order])]] = True
    return reveal


def n_threshold(best, tau):
    return max(1, sum(c > tau for c in best))


def n_factor(best, f):
    fits = [n for n, c in enumerate(best, start=1) if (n + 1) * (1 - c) < f]
    return max([1, *fits])


def n_entropy_bound(best, gamma):
    entropies = [-score for score in best]
    fits = [
        n
        for n in range(1, len(best) + 1)
        if math.fsum(entropies[:n]) - entropies[n - 1] <= gamma + 1e-12
    ]
    return max([1, *fits])


@given(table=tables(), n=st.integers(0, 9))
def test_top_n(table, n):
    values, is_masked = table
    reveal = top_n(values, is_masked, n)
    assert torch.equal(reveal, looped(lambda best: n, values, is_masked))
    assert torch.equal(reveal.sum(dim=1), is_masked.sum(dim=1).clamp(max=n))
    of_rows = torch.arange(len(values))
    own = top_n(values, is_masked, of_rows)
    for row in range(len(values)):
        assert torch.equal(own[row], top_n(values, is_masked, row)[row])


@given(table=tables(), tau=st.integers(0, 19))
def test_threshold(table, tau):
    values, is_masked = table
    tau = tau / 20 + 0.01
    reveal = threshold(values, is_masked, tau)
    expected = looped(lambda best: n_threshold(best, tau), values, is_masked)
    assert torch.equal(reveal, expected)
    # Wrong without the best one: rows below the threshold would wait for ever.
    plain = is_masked & (values > tau)
    assert torch.equal(reveal.any(dim=1), is_masked.any(dim=1))
    assert not (plain & ~reveal).any()


@given(table=tables(), f=st.floats(0.01, 6))
def test_factor(table, f):
    values, is_masked = table
    reveal = factor(values, is_masked, f)
    expected = looped(lambda best: n_factor(best, f), values, is_masked)
    assert torch.equal(reveal, expected)


@given(table=tables(), gamma=st.integers(0, 60))
def test_entropy_bound(table, gamma):
    values, is_masked = table
    gamma = gamma / 20 + 0.01  # never equal to a sum of entropies
    reveal = entropy_bound(-values, is_masked, gamma)
    expected = looped(lambda best: n_entropy_bound(best, gamma), -values, is_masked)
    assert torch.equal(reveal, expected)
    assert torch.equal(reveal.any(dim=1), is_masked.any(dim=1))


def test_amounts_by_hand():
    masked = torch.ones(1, 4, dtype=torch.bool)
    sure = torch.tensor([[0.99, 0.6, 0.95, 0.9]], dtype=torch.float64)
    assert threshold(sure, masked, 0.9).tolist() == [[True, False, True, False]]
    # 2 * 0.01, 3 * 0.05, 4 * 0.1, 5 * 0.4
    assert factor(sure, masked, 0.3).sum() == 2
    assert factor(sure, masked, 1.99).sum() == 3
    assert factor(sure, masked, 1e-9).sum() == 1
    # Wrong: n in place of n + 1 would take the third at 0.3 + epsilon.
    assert factor(sure, masked, 0.35).sum() == 2
    uncertain = -torch.tensor([[0.0, 0.0, 0.5, 0.4]], dtype=torch.float64)
    assert entropy_bound(uncertain, masked, 0.0).sum() == 3
    assert entropy_bound(uncertain, masked, 0.39).sum() == 3
    assert entropy_bound(uncertain, masked, 0.4).sum() == 4
    # Wrong: the bare sum would stop at two.
    assert (-uncertain).sort().values.cumsum(1).le(0.39).sum() == 2


@given(table=tables(), seed=st.integers(0, 1000))
def test_what_is_revealed_follows_the_positions(table, seed):
    """Moving positions moves what is revealed, when no scores are equal."""
    values, is_masked = table
    values = values - torch.arange(values.shape[1]) * 1e-6
    generator = torch.Generator().manual_seed(seed)
    moved = torch.randperm(values.shape[1], generator=generator)
    for amount in (
        lambda v, m: top_n(v, m, 2),
        lambda v, m: threshold(v, m, 0.613),
        lambda v, m: factor(v, m, 1.013),
        lambda v, m: entropy_bound(v - 1, m, 0.513),
    ):
        before = amount(values, is_masked)
        assert torch.equal(
            amount(values[:, moved], is_masked[:, moved]), before[:, moved]
        )
        # What is not masked may have any score.
        noise = values.where(is_masked, float("nan"))
        assert torch.equal(amount(noise, is_masked), before)
        for row in range(len(values)):
            one = slice(row, row + 1)
            assert torch.equal(amount(values[one], is_masked[one]), before[one])


def test_decoding_by_any_amount_ends_and_reveals_each_position_once():
    values = uniform(torch.arange(5), torch.arange(12).unsqueeze(0))
    for amount in (
        lambda m: threshold(values, m, 2.0),
        lambda m: factor(values, m, 1e-6),
        lambda m: entropy_bound(-values, m, 0.0),
    ):
        is_masked = values < 0.8
        n_steps = 0
        while is_masked.any():
            reveal = amount(is_masked)
            assert not (reveal & ~is_masked).any()
            assert torch.equal(reveal.sum(1), is_masked.any(1).long())
            is_masked, n_steps = is_masked & ~reveal, n_steps + 1
        assert n_steps == int((values < 0.8).sum(1).max())


def test_tables_that_do_not_fit_are_refused():
    values, is_masked = drawn((2, 3)), torch.ones(2, 3, dtype=torch.bool)
    for amount in (
        lambda v, m: top_n(v, m, 1),
        lambda v, m: threshold(v, m, 0.9),
        lambda v, m: factor(v, m, 1.0),
        lambda v, m: entropy_bound(v, m, 1.0),
    ):
        with pytest.raises(InputError, match=r"scores is \(1, 3\)"):
            amount(values[:1], is_masked)
        with pytest.raises(InputTypeError, match="is_masked"):
            amount(values, is_masked.long())
    with pytest.raises(InputError, match="one per row"):
        top_n(values, is_masked, torch.ones(3).long())
    with pytest.raises(InputError, match="gamma is -1"):
        entropy_bound(values, is_masked, -1)


# --- Plans ---------------------------------------------------------------------------


@given(
    m=st.lists(st.integers(0, 50), min_size=1, max_size=5), n_steps=st.integers(1, 9)
)
def test_equal_transfer(m, n_steps):
    amounts = equal_transfer(torch.tensor(m), n_steps)
    assert amounts.sum(dim=1).tolist() == m
    assert (amounts.diff(dim=1) <= 0).all()
    assert (amounts.amax(dim=1) - amounts.amin(dim=1) <= 1).all()
    first = [[len(part) for part in np.array_split(range(one), n_steps)] for one in m]
    assert amounts.tolist() == first


def test_golden_plan():
    assert transfer_plan(32, 8, alpha=1 / 3).tolist() == [10, 6, 5, 3, 3, 2, 2, 1]
    # Wrong: alpha upside down reveals little early.
    assert transfer_plan(32, 8, alpha=3.0).tolist() != [10, 6, 5, 3, 3, 2, 2, 1]
    assert transfer_plan(32, 8, alpha=3.0).sum() == 32


CURVES = {
    "linear": lambda t: t,
    "cosine": lambda t: 1 - (1 + math.cos(math.pi * t)) / 2,
    "shifted": lambda t: 0.4 * t / (1 + (0.4 - 1) * t),
}


def cost(amounts, curve):
    """Squared distance of the plan from L f(i/K)."""
    n_steps, length = len(amounts), sum(amounts)
    masked = [sum(amounts[n_steps - i :]) for i in range(n_steps + 1)]
    return math.fsum(
        (masked[i] - length * curve(i / n_steps)) ** 2 for i in range(n_steps + 1)
    )


@pytest.mark.parametrize("plan", PLANS)
def test_no_plan_of_all_is_nearer(plan):
    curve = CURVES[plan]
    for length, n_steps in itertools.product(range(1, 10), range(1, 6)):
        if n_steps > length:
            continue
        amounts = transfer_plan(length, n_steps, plan=plan, alpha=0.4).tolist()
        least = min(
            cost(one, curve)
            for one in itertools.product(range(1, length + 1), repeat=n_steps)
            if sum(one) == length
        )
        assert cost(amounts, curve) == pytest.approx(least, abs=1e-9)


@given(targets=st.lists(st.integers(0, 16), min_size=3, max_size=3))
def test_integers_are_nearest_for_curves_of_any_shape(targets):
    """The curves with names never show squared and absolute distances apart."""
    wanted = np.array([0, *(one / 2 + 0.1 for one in targets), 8])
    found = _nearest_increasing(wanted, 8)
    assert (np.diff(found) >= 1).all()
    assert found[[0, -1]].tolist() == [0, 8]
    costs = [
        sum((np.array(inner) - wanted[1:-1]) ** 2)
        for inner in itertools.combinations(range(1, 8), 3)
    ]
    assert sum((found - wanted) ** 2) == pytest.approx(min(costs), abs=1e-12)


def test_rounded_differences_do_not_even_sum_to_the_length():
    targets = [32 * float(shifted_time(torch.tensor(i / 7), 1 / 3)) for i in range(8)]
    rounded = [max(1, round(b - a)) for a, b in itertools.pairwise(targets)]
    assert sum(rounded) == 33


@given(
    length=st.integers(1, 60),
    n_steps=st.integers(1, 60),
    plan=st.sampled_from(PLANS),
    alpha=st.floats(0.05, 20),
)
def test_plans_reveal_every_token_and_one_at_least_per_step(
    length, n_steps, plan, alpha
):
    if n_steps > length:
        with pytest.raises(InputError, match="at most length"):
            transfer_plan(length, n_steps, plan=plan, alpha=alpha)
        return
    amounts = transfer_plan(length, n_steps, plan=plan, alpha=alpha)
    assert amounts.shape == (n_steps,)
    assert amounts.dtype == torch.int64
    assert int(amounts.sum()) == length
    assert (amounts >= 1).all()
    if n_steps == length:
        assert amounts.tolist() == [1] * length


@given(length=st.integers(1, 40), n_steps=st.integers(1, 40))
def test_alpha_one_is_linear_and_multiples_are_equal_shares(length, n_steps):
    linear = transfer_plan(length * n_steps, n_steps, plan="linear")
    assert linear.tolist() == [length] * n_steps
    if n_steps <= length:
        shifted = transfer_plan(length, n_steps, alpha=1.0)
        assert torch.equal(shifted, transfer_plan(length, n_steps, plan="linear"))


def test_of_equally_good_plans_the_one_that_reveals_more_early():
    assert transfer_plan(5, 2, plan="linear").tolist() == [3, 2]
    assert transfer_plan(3, 2, plan="cosine").tolist() == [2, 1]


@given(t=st.floats(0, 1), alpha=st.floats(0.05, 20))
def test_the_inverse_shift_takes_levels_back(t, alpha):
    t = torch.tensor(t, dtype=torch.float64)
    back = shifted_time(shifted_time(t, alpha), 1 / alpha)
    torch.testing.assert_close(back, t, rtol=1e-13, atol=1e-15)
    # Wrong: -alpha, or alpha again, is no inverse.
    twice = shifted_time(shifted_time(t, alpha), alpha)
    if 0.1 < t < 0.9 and abs(math.log(alpha)) > 0.1:
        assert abs(float(twice - t)) > 1e-3


def test_shifts_keep_the_ends_and_bend_as_alpha_says():
    t = torch.linspace(0, 1, 11, dtype=torch.float64)
    for alpha in (1 / 3, 3.0):
        shifted = shifted_time(t, alpha)
        assert shifted[[0, -1]].tolist() == [0, 1]
        assert (((shifted - t)[1:-1] > 0) == (alpha > 1)).all()
    assert torch.equal(shifted_time(t, 1.0), t)
    torch.testing.assert_close(
        1 - shifted_time(1 - t, 1 / 3), shifted_time(t, 3.0), rtol=0, atol=1e-15
    )


def test_impossible_plans_are_refused():
    with pytest.raises(InputError, match="n_steps is 0"):
        transfer_plan(3, 0)
    with pytest.raises(InputError, match="Did you mean 'cosine'"):
        transfer_plan(3, 2, plan="cosin")
    for alpha in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(InputError, match="alpha is"):
            transfer_plan(3, 2, alpha=alpha)
    with pytest.raises(InputError, match="at least 1"):
        equal_transfer(torch.tensor([3]), 0)
