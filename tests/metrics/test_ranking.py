"""Ranking metrics: hand tables, ties, random scores, and negatives."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sciseq.errors import DataQualityError, InputError
from sciseq.metrics import negative_sampling
from sciseq.metrics.negative_sampling import history_mask, sample_negatives
from sciseq.metrics.ranking import (
    hit_rate,
    ndcg,
    rank_in_batches,
    ranking_summary,
    reciprocal_rank,
    target_ranks,
)

# Few different values, so that ties are common.
SCORES = hnp.arrays(np.float64, (5, 7), elements=st.integers(-2, 2).map(float))
TARGETS = hnp.arrays(np.int64, 5, elements=st.integers(0, 6))


def ranks_by_sorting(scores, targets, last_wins=False):
    """The wrong version that many programs have: the place after argsort."""
    order = np.argsort(-scores, axis=1, kind="stable")
    if last_wins:
        order = np.argsort(scores, axis=1, kind="stable")[:, ::-1]
    return (order == np.asarray(targets)[:, None]).argmax(axis=1)


# ------------------------------------------------------------------- hand tables (T18)


@pytest.mark.parametrize(
    ("rank", "hr", "gain", "reciprocal"),
    [
        (0, 1, 1.0, 1.0),
        (1, 1, 1 / np.log2(3), 0.5),
        (2, 1, 0.5, 1 / 3),
        (2.5, 1, 1 / np.log2(4.5), 1 / 3.5),
        (9, 1, 1 / np.log2(11), 0.1),
        (10, 0, 0.0, 1 / 11),
        (100, 0, 0.0, 1 / 101),
    ],
)
def test_metrics_of_a_hand_table(rank, hr, gain, reciprocal):
    assert hit_rate(rank, 10) == hr
    assert ndcg(rank, 10) == pytest.approx(gain, rel=1e-15)
    assert reciprocal_rank(rank) == pytest.approx(reciprocal, rel=1e-15)


def test_summary_is_the_mean_over_users():
    found = ranking_summary([0, 3, 10], cutoffs=(1, 10))
    assert list(found) == ["hr@1", "hr@10", "ndcg@1", "ndcg@10", "mrr"]
    expected = [1 / 3, 2 / 3, 1 / 3, (1 + 1 / np.log2(5)) / 3, (1 + 1 / 4 + 1 / 11) / 3]
    np.testing.assert_allclose(list(found.values()), expected, rtol=1e-15)


def test_a_discount_that_is_off_by_one_is_caught():
    assert 1 / np.log2(0 + 1 + 1e-9) > 1  # 1 / log2(r + 1) has no value at rank 0
    assert ndcg(0, 1) == 1 / np.log2(2)


# ------------------------------------------------------------------- ranks


def test_ranks_of_a_hand_table():
    scores = np.array([[5.0, 1, 3, 3], [0, 0, 0, 0], [2, 2, 1, -np.inf]])
    np.testing.assert_array_equal(target_ranks(scores, [2, 3, 3]), [1.5, 1.5, 3])


def test_constant_scores_are_in_the_middle_and_never_first():
    scores = np.ones((3, 101))
    assert (target_ranks(scores, [0, 50, 100]) == 50).all()
    assert hit_rate(target_ranks(scores, [0, 50, 100]), 10).sum() == 0
    wrong = ranks_by_sorting(scores, [0, 50, 100])
    assert hit_rate(wrong, 10).sum() > 0  # a constant model looks good by luck


@settings(max_examples=30)
@given(SCORES, TARGETS)
def test_a_rank_is_the_mean_over_all_ways_to_break_ties(scores, targets):
    ranks = target_ranks(scores, targets)
    first = ranks_by_sorting(scores, targets)
    last = ranks_by_sorting(scores, targets, last_wins=True)
    # Of two orders of the ties, one is the other backwards.
    np.testing.assert_array_equal(ranks, (first + last) / 2)


@settings(max_examples=30)
@given(SCORES, TARGETS, st.permutations(range(7)))
def test_names_of_items_do_not_matter(scores, targets, names):
    names = np.array(names)
    renamed = np.empty_like(scores)
    renamed[:, names] = scores
    np.testing.assert_array_equal(
        target_ranks(renamed, names[targets]), target_ranks(scores, targets)
    )


def test_ranks_by_sorting_depend_on_names_and_are_caught():
    scores, renamed = np.array([[1.0, 1.0, 0.0]]), np.array([[0.0, 1.0, 1.0]])
    assert ranks_by_sorting(scores, [0]) != ranks_by_sorting(renamed, [2])
    assert target_ranks(scores, [0]) == target_ranks(renamed, [2])


@settings(max_examples=30)
@given(SCORES, TARGETS)
def test_all_other_items_as_negatives_are_the_full_ranking(scores, targets):
    others = np.array([[item for item in range(7) if item != one] for one in targets])
    np.testing.assert_array_equal(
        target_ranks(scores, targets, candidates=others), target_ranks(scores, targets)
    )


def test_excluded_items_do_not_count_but_the_target_does():
    scores = np.array([[9.0, 8.0, 7.0, 6.0]])
    excluded = history_mask([[0, 2, 3]], 4)
    assert target_ranks(scores, [3], excluded=excluded) == 1  # only item 1 is left
    assert target_ranks(scores, [3]) == 3


def test_random_scores_hit_as_often_as_chance():
    rng = np.random.default_rng(0)
    n = 40_000
    negatives = np.tile(np.arange(1, 101), (n, 1))
    ranks = target_ranks(
        rng.random((n, 101), dtype=np.float32), np.zeros(n, int), candidates=negatives
    )
    gain = sum(1 / np.log2(r + 2) for r in range(10)) / 101
    chance = 10 / 101
    spread = np.sqrt(chance * (1 - chance) / n)
    assert abs(hit_rate(ranks, 10).mean() - chance) < 4 * spread
    assert abs(ndcg(ranks, 10).mean() - gain) < 4 * spread  # gains are at most 1
    # Ranks from 1 would hit 9 in 101.
    assert abs(hit_rate(ranks + 1, 10).mean() - chance) > 4 * spread


# ------------------------------------------------------------------- negatives


def histories_and_targets(n_users, n_items, rng):
    histories = [rng.integers(0, n_items, rng.integers(0, 9)) for _ in range(n_users)]
    return histories, rng.integers(0, n_items, n_users)


def repeats_or_knows(negatives, histories, targets):
    return any(
        len(set(row)) < len(row) or target in row or set(row) & set(history)
        for row, history, target in zip(
            negatives.tolist(), map(np.ndarray.tolist, histories), targets, strict=True
        )
    )


@pytest.mark.parametrize("is_popular", [False, True])
def test_negatives_are_new_to_the_user_and_no_target(is_popular):
    rng = np.random.default_rng(1)
    histories, targets = histories_and_targets(300, 40, rng)
    popularity = np.arange(40.0) + 1 if is_popular else None
    drawn = sample_negatives(
        histories, targets, 40, n_negatives=20, popularity=popularity, generator=rng
    )
    assert drawn.shape == (300, 20)
    assert not repeats_or_knows(drawn, histories, targets)
    wrong = rng.integers(0, 40, drawn.shape)  # drawn without a look at the user
    assert repeats_or_knows(wrong, histories, targets)


def test_exactly_the_items_that_are_left_are_drawn():
    generator = np.random.default_rng(0)
    drawn = sample_negatives([[0, 4]], [2], 6, n_negatives=3, generator=generator)
    assert sorted(drawn[0].tolist()) == [1, 3, 5]
    with pytest.raises(InputError, match="4 negatives are asked for, 3 items") as error:
        sample_negatives([[], [0, 4]], [1, 2], 6, n_negatives=4, generator=generator)
    assert error.value.where == "user 1"


def test_popular_negatives_come_in_proportion():
    n, weights = 30_000, np.array([5.0, 0.0, 1.0, 3.0, 1.0])
    drawn = sample_negatives(
        [[4]] * n,
        [4] * n,
        5,
        n_negatives=2,
        popularity=weights,
        generator=np.random.default_rng(3),
    )
    first = np.bincount(drawn[:, 0], minlength=5) / n
    np.testing.assert_allclose(first, np.array([5, 0, 1, 3, 0]) / 9, atol=0.012)
    # After a 0, the second is 2 or 3 as 1 to 3.
    after = drawn[drawn[:, 0] == 0, 1]
    assert abs((after == 3).mean() - 3 / 4) < 0.015


def test_negatives_do_not_depend_on_how_many_are_drawn_at_once(monkeypatch):
    histories, targets = histories_and_targets(50, 30, np.random.default_rng(2))

    def drawn():
        return sample_negatives(
            histories, targets, 30, n_negatives=9, generator=np.random.default_rng(7)
        )

    whole = drawn()
    monkeypatch.setattr(negative_sampling, "_NUMBERS_AT_ONCE", 90)
    np.testing.assert_array_equal(drawn(), whole)


# ------------------------------------------------------------------- batches


def test_batches_rank_as_a_whole():
    rng = np.random.default_rng(4)
    histories, targets = histories_and_targets(23, 12, rng)
    table = rng.integers(0, 5, (23, 12)).astype(float)
    place = {id(history): row for row, history in enumerate(histories)}

    def score(part):
        return table[[place[id(history)] for history in part]]

    negatives = sample_negatives(histories, targets, 12, n_negatives=3, generator=rng)
    found = rank_in_batches(
        score,
        histories,
        targets,
        negatives=negatives,
        exclude_history=True,
        batch_size=5,
    )
    excluded = history_mask(histories, 12)
    np.testing.assert_array_equal(
        found["full"], target_ranks(table, targets, excluded=excluded)
    )
    np.testing.assert_array_equal(
        found["sampled"], target_ranks(table, targets, candidates=negatives)
    )


# ------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: target_ranks([[1.0, 2.0]], [2]), "item 2 does not exist"),
        (lambda: target_ranks([[1.0, 2.0]], [0.0]), "must be integers"),
        (lambda: target_ranks([1.0, 2.0], [0]), "must be \\(users, items\\)"),
        (lambda: target_ranks([[1.0, 2]], [1], candidates=[[1]]), "its own negatives"),
        (
            lambda: target_ranks([[1.0, 2]], [1], candidates=[0]),
            "candidates have shape",
        ),
        (lambda: hit_rate([-1], 10), "at least 0"),
        (lambda: hit_rate([np.nan], 10), "at least 0"),
        (lambda: ndcg([0], 0), "k is 0"),
        (lambda: ranking_summary([]), "no ranks"),
        (lambda: history_mask([[0], [5]], 3), "item 5 does not exist"),
    ],
)
def test_bad_calls(call, message):
    with pytest.raises(InputError, match=message):
        call()


@pytest.mark.parametrize("weights", [[1.0], [1.0, -1.0, 1.0], [1.0, np.nan, 1.0]])
def test_bad_weights_are_refused(weights):
    generator = np.random.default_rng(0)
    with pytest.raises(InputError, match="3 finite numbers"):
        sample_negatives(
            [[]], [0], 3, n_negatives=1, popularity=weights, generator=generator
        )


def test_scores_that_are_nan_are_named():
    with pytest.raises(DataQualityError, match="user 1, item 0"):
        target_ranks([[0.0, 1.0], [np.nan, 1.0]], [0, 1])
