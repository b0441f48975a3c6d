"""ROUGE-1, ROUGE-2 and ROUGE-L against brute force, hand counts and another package."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sciseq.errors import InputError
from sciseq.metrics.rouge import RougeScore, rouge_l, rouge_n, rouge_scores

TEXTS = st.lists(st.sampled_from("abcd"), max_size=9).map(" ".join)
ALL = [
    lambda candidate, reference: rouge_n(candidate, reference, 1),
    lambda candidate, reference: rouge_n(candidate, reference, 2),
    rouge_l,
]


def common_subsequence(a, b):
    table = np.zeros((len(a) + 1, len(b) + 1), dtype=int)
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            best = max(table[i, j + 1], table[i + 1, j])
            table[i + 1, j + 1] = table[i, j] + 1 if x == y else best
    return int(table[-1, -1])


@pytest.mark.parametrize("score", ALL)
@given(TEXTS)
@example("")
@example("one")
@example("The cat. The CAT!")
def test_identical_texts_score_one(score, text):
    assert score(text, text) == RougeScore(1.0, 1.0)
    assert score(text, text).f1 == 1


@pytest.mark.parametrize("score", ALL)
@given(TEXTS, TEXTS)
def test_exchanging_the_texts_exchanges_precision_and_recall(score, one, other):
    here, there = score(one, other), score(other, one)
    assert (here.precision, here.recall) == (there.recall, there.precision)
    assert 0 <= here.f1 <= 1


@given(TEXTS, TEXTS)
def test_longest_common_subsequence(one, other):
    a, b = one.split(), other.split()
    if a and b:
        assert rouge_l(one, other).precision * len(a) == pytest.approx(
            common_subsequence(a, b), abs=1e-12
        )


def test_longest_common_subsequence_of_long_texts():
    rng = np.random.default_rng(0)
    a, b = (rng.choice(list("abcdefgh"), size=n).tolist() for n in (150, 90))
    score = rouge_l(" ".join(a), " ".join(b))
    assert score.recall == common_subsequence(a, b) / 90


def test_hand_counts():
    candidate, reference = "the the the cat", "the cat sat on the mat"
    # Repeated words count as often as the reference has them, not more.
    assert rouge_n(candidate, reference, 1) == RougeScore(3 / 4, 3 / 6)
    assert rouge_n(candidate, reference, 2) == RougeScore(1 / 3, 1 / 5)
    assert rouge_l(candidate, reference) == RougeScore(2 / 4, 2 / 6)
    assert rouge_n("", "a b", 1) == rouge_l("a", "") == RougeScore(0.0, 0.0)
    assert rouge_n("a", "b", 2) == RougeScore(0.0, 0.0)


def test_best_reference_counts_for_each_kind_by_itself():
    scores = rouge_scores(["a b c d"], [["d c b a", "a b x y"]])
    assert scores == {"rouge1": 1.0, "rouge2": 1 / 3, "rougeL": 0.5}
    mean = rouge_scores(["a", "a"], ["a", "b"])
    assert mean == {"rouge1": 0.5, "rouge2": 0.5, "rougeL": 0.5}


def test_rouge_refuses():
    with pytest.raises(InputError, match="2 candidates and 1 references"):
        rouge_scores(["a", "b"], ["a"])
    with pytest.raises(InputError, match=r"references\[1\]"):
        rouge_scores(["a", "b"], ["a", []])
    with pytest.raises(InputError, match="n is 0"):
        rouge_n("a", "a", 0)


@pytest.mark.slow  # the import of the package takes seconds
def test_values_of_another_package():
    scorer_of = pytest.importorskip("rouge_score.rouge_scorer", reason="rouge-score")
    scorer = scorer_of.RougeScorer(["rouge1", "rouge2", "rougeL"])
    rng = np.random.default_rng(0)
    words = ["model", "3.5", "state-space", "Net", "a", "of", "loss;"]
    for _ in range(50):
        reference, candidate = (
            " ".join(rng.choice(words, size=rng.integers(2, 20))) for _ in range(2)
        )
        theirs = scorer.score(reference, candidate)
        ours = [score(candidate, reference) for score in ALL]
        for here, there in zip(ours, theirs.values(), strict=True):
            assert here.precision == pytest.approx(there.precision, abs=1e-12)
            assert here.recall == pytest.approx(there.recall, abs=1e-12)
            assert here.f1 == pytest.approx(there.fmeasure, abs=1e-12)
