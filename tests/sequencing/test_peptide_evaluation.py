"""Evaluation of peptides: hand-worked cases, and the rule written out as loops."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sciseq.errors import DataQualityError, InputError, InputTypeError
from sciseq.sequencing.evaluation import Evaluation, evaluate, match_residues
from sciseq.sequencing.residues import Vocabulary

VOCABULARY = Vocabulary()


def masses(peptide: str) -> list[float]:
    return VOCABULARY.token_masses(peptide).tolist()


def forward_only(truth: list[float], predicted: list[float]) -> list[bool]:
    """The rule without its second half: wrong, and to be told from the right one."""
    flags = [False] * max(len(truth), len(predicted))
    i = j = 0
    while i < len(truth) and j < len(predicted):
        before, before_predicted = sum(truth[: i + 1]), sum(predicted[: j + 1])
        if abs(before - before_predicted) < 0.5:
            flags[max(i, j)] = abs(truth[i] - predicted[j]) < 0.1
            i, j = i + 1, j + 1
        elif before_predicted > before:
            i += 1
        else:
            j += 1
    return flags


def both_ways(truth: list[float], predicted: list[float]) -> list[bool]:
    """The rule, written out with sums that are taken anew at every step."""
    flags = forward_only(truth, predicted)
    if all(flags):
        return flags
    stop = flags.index(False)
    i, j = len(truth) - 1, len(predicted) - 1
    while i >= stop and j >= stop:
        behind, behind_predicted = sum(truth[i:]), sum(predicted[j:])
        if abs(behind - behind_predicted) < 0.5:
            flags[max(i, j)] = abs(truth[i] - predicted[j]) < 0.1
            i, j = i - 1, j - 1
        elif behind_predicted > behind:
            i -= 1
        else:
            j -= 1
    return flags


# Truth, prediction, flags worked by hand.
CASES = [
    ("PEPTIDE", "PEPTLDE", [1, 1, 1, 1, 1, 1, 1]),
    # From the N-terminus the sums never meet again; from the C-terminus four agree.
    ("AGVLK", "SGVLK", [0, 1, 1, 1, 1]),
    # One residue for two: the pair meets at place 2 of the longer one, of other mass.
    ("GGAVK", "NAVK", [0, 0, 1, 1, 1]),
    ("NAVK", "GGAVK", [0, 0, 1, 1, 1]),
    ("GAVK", "AGVK", [0, 0, 1, 1]),
    # 0.98 Da apart: more than 0.5, so that the sums do not meet.
    ("NK", "DK", [0, 1]),
    ("NK", "NR", [1, 0]),
    ("N[Deamidated]Q[Deamidated]K", "DEK", [1, 1, 1]),
    # 36 mDa apart is the same residue, by this rule.
    ("GKA", "GQA", [1, 1, 1]),
    ("GAVK", "GAV", [1, 1, 1, 0]),
    ("GAVK", "AVK", [0, 1, 1, 1]),
    # The terminus is a residue of its own.
    ("[Acetyl]-GAVK", "GAVK", [0, 1, 1, 1, 1]),
    ("[Acetyl]-GAVK", "[+42.01]-GAVK", [1, 1, 1, 1, 1]),
    ("GS[Phospho]K", "GSK", [1, 0, 1]),
]


@pytest.mark.parametrize(("truth", "predicted", "flags"), CASES)
def test_pairs_worked_by_hand(truth: str, predicted: str, flags: list[int]) -> None:
    assert match_residues(masses(truth), masses(predicted)).tolist() == flags
    assert both_ways(masses(truth), masses(predicted)) == flags


def test_the_forward_half_alone_is_caught() -> None:
    def agrees(rule: Callable[[list[float], list[float]], list[bool]]) -> bool:
        return all(rule(masses(a), masses(b)) == flags for a, b, flags in CASES)

    assert agrees(both_ways)
    assert not agrees(forward_only)


PEPTIDES = st.lists(
    st.sampled_from(VOCABULARY.masses.tolist()), min_size=1, max_size=12
)
# Near misses: most residues agree.
PAIRS = st.one_of(
    st.tuples(PEPTIDES, PEPTIDES),
    st.tuples(PEPTIDES, PEPTIDES, PEPTIDES, PEPTIDES).map(
        lambda parts: (parts[0] + parts[1] + parts[3], parts[0] + parts[2] + parts[3])
    ),
)


@given(PAIRS)
def test_any_pair_as_the_loops_say(pair: tuple[list[float], list[float]]) -> None:
    assert match_residues(*pair).tolist() == both_ways(*pair)


@given(PAIRS)
def test_exchanging_the_two_changes_nothing(
    pair: tuple[list[float], list[float]],
) -> None:
    truth, predicted = pair
    flags = match_residues(truth, predicted)
    assert match_residues(predicted, truth).tolist() == flags.tolist()


@given(PAIRS)
def test_reversing_both_keeps_a_match(pair: tuple[list[float], list[float]]) -> None:
    truth, predicted = pair
    forwards = match_residues(truth, predicted).all()
    assert match_residues(truth[::-1], predicted[::-1]).all() == forwards


@given(PEPTIDES)
def test_a_peptide_agrees_with_itself(peptide: list[float]) -> None:
    assert match_residues(peptide, peptide).all()
    assert not match_residues(peptide, []).any()


@pytest.mark.parametrize(
    ("wrong", "error"),
    [([np.nan], DataQualityError), ([np.inf], DataQualityError), ([[1.0]], InputError)],
)
def test_wrong_masses_are_refused(wrong: list[float], error: type[Exception]) -> None:
    with pytest.raises(error, match="predicted_masses"):
        match_residues([57.0], wrong)


# --- Whole sets ----------------------------------------------------------------------

TRUTHS = ["AGVLK", "GGAVK", "PEPTIDE", "NK", "GAVK"]
PREDICTIONS = ["SGVLK", "NAVK", "PEPTLDE", "DK", None]
SCORES = [0.1, 0.2, 0.9, 0.5, 1.0]


def test_a_set_worked_by_hand() -> None:
    result = evaluate(TRUTHS, PREDICTIONS, SCORES)
    # Right residues: 4 + 3 + 7 + 1 + 0.
    assert result.n_matched_residues == 15
    assert result.n_predicted_residues == 18
    assert result.n_true_residues == 23
    assert result.aa_precision == pytest.approx(15 / 18, abs=1e-15)
    assert result.aa_recall == pytest.approx(15 / 23, abs=1e-15)
    assert result.peptide_recall == pytest.approx(1 / 5, abs=1e-15)
    assert result.coverage == pytest.approx(4 / 5, abs=1e-15)
    assert (result.n_spectra, result.n_predicted, result.n_matched) == (5, 4, 1)
    assert result.is_match.tolist() == [False, False, True, False, False]


def test_the_curve_worked_by_hand() -> None:
    curve = evaluate(TRUTHS, PREDICTIONS, SCORES).precision_coverage
    assert curve is not None
    # The missing prediction comes last, whatever its score.
    assert curve.score.tolist() == [0.9, 0.5, 0.2, 0.1, -np.inf]
    assert curve.coverage == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0], abs=1e-15)
    assert curve.precision == pytest.approx([1, 1 / 2, 1 / 3, 1 / 4, 1 / 5], abs=1e-15)
    area = 0.2 * (1 + 3 / 4 + 5 / 12 + 7 / 24 + 9 / 40)
    assert curve.area == pytest.approx(area, abs=1e-15)


def test_identical_peptides_give_ones() -> None:
    peptides = ["[Acetyl]-PEPTIDEK", "GM[Oxidation]S[Phospho]K", "C"]
    result = evaluate(peptides, list(reversed(peptides))[::-1], [3, 1, 2])
    assert result.aa_precision == result.aa_recall == result.peptide_recall == 1.0
    assert result.coverage == 1.0
    assert result.precision_coverage is not None
    assert result.precision_coverage.area == pytest.approx(1.0, abs=1e-15)


def test_nothing_predicted() -> None:
    result = evaluate(["GK", "AK"], [None, ""], [0.5, math.nan])
    assert math.isnan(result.aa_precision)
    assert result.aa_recall == result.peptide_recall == result.coverage == 0.0
    assert result.precision_coverage is not None
    assert result.precision_coverage.area == 0.0
    assert evaluate(["GK"], [None]).precision_coverage is None


def test_missing_values_of_pandas_are_no_predictions() -> None:
    import pandas as pd

    given = pd.Series(["GK", None, pd.NA, float("nan")], dtype="object")
    assert evaluate(["GK"] * 4, given.tolist()).n_predicted == 1


SETS = st.lists(
    st.tuples(
        st.sampled_from(["PEPTIDE", "GGAVK", "NK"]),
        st.sampled_from(["PEPTLDE", "NAVK", "NK", None]),
        st.floats(-3, 3).map(lambda score: round(score, 1)),
    ),
    min_size=1,
    max_size=20,
)


def split(rows: list[tuple[str, str | None, float]]) -> Evaluation:
    truths, predictions, scores = zip(*rows, strict=True)
    return evaluate(truths, predictions, scores)


@given(SETS, st.randoms(use_true_random=False))
def test_order_and_scale_of_scores_change_nothing(
    rows: list[tuple[str, str | None, float]], random: object
) -> None:
    result = split(rows)
    curve = result.precision_coverage
    assert curve is not None
    assert curve.precision[-1] == pytest.approx(result.peptide_recall, abs=1e-12)
    shuffled = list(rows)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    rescaled = [(a, b, math.exp(score)) for a, b, score in rows]
    for other in (split(shuffled), split(rescaled)):
        assert other.aa_precision == pytest.approx(result.aa_precision, nan_ok=True)
        assert other.aa_recall == pytest.approx(result.aa_recall, abs=1e-12)
        assert other.precision_coverage is not None
        assert other.precision_coverage.precision == pytest.approx(
            curve.precision, abs=1e-12
        )
        assert other.precision_coverage.area == pytest.approx(curve.area, abs=1e-12)


def test_reversed_scores_are_seen() -> None:
    curve = evaluate(TRUTHS, PREDICTIONS, SCORES).precision_coverage
    reversed_curve = evaluate(
        TRUTHS, PREDICTIONS, [-score for score in SCORES]
    ).precision_coverage
    assert curve is not None
    assert reversed_curve is not None
    assert reversed_curve.area < curve.area
    assert reversed_curve.precision[-1] == curve.precision[-1]


def test_a_vocabulary_says_how_letters_are_read() -> None:
    free = Vocabulary({"G": 57.021464, "C": 103.009185})
    assert evaluate(["GC"], ["GC[Carbamidomethyl]"]).peptide_recall == 1.0
    assert (
        evaluate(["GC"], ["GC[Carbamidomethyl]"], vocabulary=free).peptide_recall == 0.0
    )


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([], []), InputError, "at least one"),
        ((["GK"], []), InputError, "one of each"),
        ((["GK"], ["GK"], [1, 2]), InputError, "one of each"),
        ((["GK"], ["GK"], 1.0), InputError, "one of each"),
        ((["GK"], ["GK"], [math.nan]), DataQualityError, "NaN"),
        ((["GK"], [[0, 1]]), InputTypeError, "must be text"),
        (([None], ["GK"]), InputTypeError, "must be text"),
        ((["GxK"], ["GK"]), InputError, "cannot be read"),
        ((["GK"], ["GB"]), InputError, "'B'"),
    ],
)
def test_wrong_sets_are_refused(
    arguments: tuple[object, ...], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        evaluate(*arguments)  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_large_set_takes_seconds() -> None:
    import time

    generator = np.random.default_rng(0)
    letters = np.array(list("GASPVTLNDQKEMHFRYW"))
    truths = ["".join(generator.choice(letters, 15)) for _ in range(100_000)]
    predictions = [text[:7] + text[8] + text[7] + text[9:] for text in truths]
    start = time.process_time()
    result = evaluate(truths, predictions, generator.random(100_000))
    assert time.process_time() - start < 60
    assert result.aa_recall == pytest.approx(13 / 15, abs=0.02)
