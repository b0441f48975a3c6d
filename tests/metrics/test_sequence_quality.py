"""Quality of generated sequences: spectra, novelty, edit distance, descriptors."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sciseq.errors import InputError
from sciseq.metrics import sequence_quality
from sciseq.metrics.biological_sequences import (
    EISENBERG,
    KYTE_DOOLITTLE,
    PK,
    gc_content,
    gravy,
    hydrophobic_moment,
    net_charge,
    peptide_descriptors,
)
from sciseq.metrics.sequence_quality import (
    bits_per_token,
    kmer_distance,
    kmer_spectrum,
    nearest_edit_distance,
    novelty,
    token_entropy,
    uniqueness,
)

TEXTS = st.lists(st.text("ACG", min_size=1, max_size=7), min_size=1, max_size=5)


# ------------------------------------------------------------------- k-mers


def test_kmers_do_not_cross_from_one_sequence_to_the_next():
    assert kmer_spectrum(["AC", "GT"], 2) == {"AC": 0.5, "GT": 0.5}
    assert "CG" in kmer_spectrum(["".join(["AC", "GT"])], 2)  # a wrong version's


def test_kmers_of_tokens_are_tuples():
    assert kmer_spectrum([[1, 2, 1]], 2) == {(1, 2): 0.5, (2, 1): 0.5}


def test_distance_of_a_hand_table():
    # p = (1/2, 1/2, 0), q = (1/4, 1/4, 1/2), m = (3/8, 3/8, 1/4)
    p, q = [0.5, 0.5, 0.0], [0.25, 0.25, 0.5]
    m = [0.375, 0.375, 0.25]
    divergence = sum(
        0.5 * x * math.log2(x / z)
        for y in (p, q)
        for x, z in zip(y, m, strict=True)
        if x
    )
    found = kmer_distance(["AB"], ["ABCC"], 1)
    assert found == pytest.approx(math.sqrt(divergence), rel=1e-12)


@given(TEXTS, TEXTS, TEXTS)
def test_distance_is_a_metric_between_zero_and_one(first, second, third):
    def d(one, two):
        return kmer_distance(one, two, 1)

    assert d(first, second) == pytest.approx(d(second, first), abs=1e-12)
    assert 0 <= d(first, second) <= 1 + 1e-12
    assert d(first, first) == 0
    assert d(first, third) <= d(first, second) + d(second, third) + 1e-9


def test_divergence_without_the_root_is_no_metric():
    a, b, c = ["A"], ["AC"], ["C"]
    d = [kmer_distance(*pair, 1) ** 2 for pair in ((a, c), (a, b), (b, c))]
    assert d[0] > d[1] + d[2]


def test_too_short_sequences_have_no_spectrum():
    with pytest.raises(InputError, match="no sequence has 3 tokens"):
        kmer_spectrum(["AC"], 3)


# ------------------------------------------------------------------- diversity


def test_novelty_and_uniqueness_of_texts_and_tokens():
    assert novelty([["a"], ["b"], ["b"]], [("a",)]) == 2 / 3
    assert uniqueness([["a"], ["b"], ["b"]]) == 2 / 3
    assert (novelty(["AC"], []), uniqueness(["AC"])) == (1, 1)
    for measure in (lambda: novelty([], ["A"]), lambda: uniqueness([])):
        with pytest.raises(InputError, match="no sequences"):
            measure()


def test_entropy_is_that_within_a_sequence():
    found = token_entropy(["AAAA", "ACGT", "AAC", ""])
    third = -(2 / 3) * math.log(2 / 3) - (1 / 3) * math.log(1 / 3)
    np.testing.assert_allclose(found, [0, math.log(4), third, 0], rtol=1e-12)
    # Pooled over sequences, samples that repeat one letter each would look diverse.
    assert token_entropy(["AA", "CC", "GG", "TT"]).max() == 0
    assert token_entropy(["AACCGGTT"])[0] == pytest.approx(math.log(4))


def test_bits_count_the_tokens_and_not_the_sequences():
    log_p = [10 * math.log(1 / 4), 2 * math.log(1 / 4)]
    assert bits_per_token(log_p, ["A" * 10, "CC"]) == pytest.approx(2, rel=1e-12)
    with pytest.raises(InputError, match="1 sequences of 0 tokens"):
        bits_per_token([0.0], [""])


# ------------------------------------------------------------------- edit distance


def edit_distance(x, y, *, substitution=1):
    """Levenshtein's table, cell by cell."""
    D = np.zeros((len(x) + 1, len(y) + 1), dtype=int)
    D[:, 0], D[0] = range(len(x) + 1), range(len(y) + 1)
    for i, a in enumerate(x, start=1):
        for j, b in enumerate(y, start=1):
            change = D[i - 1, j - 1] + substitution * (a != b)
            D[i, j] = min(change, D[i - 1, j] + 1, D[i, j - 1] + 1)
    return D[-1, -1]


@given(TEXTS, TEXTS)
def test_nearest_distance_is_that_of_the_table(sequences, training):
    expected = [min(edit_distance(x, y) for y in training) for x in sequences]
    assert nearest_edit_distance(sequences, training).tolist() == expected


def test_a_table_without_substitutions_is_caught():
    assert edit_distance("AC", "AG") == 1 == nearest_edit_distance(["AC"], ["AG"])[0]
    assert edit_distance("AC", "AG", substitution=2) == 2


def test_parts_of_the_training_sequences_do_not_show(monkeypatch):
    rng = np.random.default_rng(0)
    texts = ["".join(rng.choice(list("ACGT"), rng.integers(0, 9))) for _ in range(40)]
    whole = nearest_edit_distance(texts[:8], texts[8:])
    monkeypatch.setattr(sequence_quality, "_CELLS_AT_ONCE", 40)
    np.testing.assert_array_equal(nearest_edit_distance(texts[:8], texts[8:]), whole)


def test_unknown_tokens_match_nothing_and_empty_sequences_work():
    assert nearest_edit_distance([["x", "y"], []], [["a", "b", "c"]]).tolist() == [3, 3]
    with pytest.raises(InputError, match="training"):
        nearest_edit_distance(["A"], [])


# ------------------------------------------------------------------- peptides and DNA


def test_scales_have_the_published_moments():
    assert set(KYTE_DOOLITTLE) == set(EISENBERG) == set("ACDEFGHIKLMNPQRSTVWY")
    # The normalised consensus has mean 0 and standard deviation 1 by construction.
    values = np.array(list(EISENBERG.values()))
    assert values.sum() == pytest.approx(0, abs=1e-9)
    assert values.std(ddof=1) == pytest.approx(1, abs=5e-3)
    assert np.mean(list(KYTE_DOOLITTLE.values())) == pytest.approx(-0.49, abs=1e-9)


def test_charge_at_half_dissociation():
    # At pH = pK a group carries half its charge: two peptides that differ by it.
    for group in "KRH":
        charge = net_charge("G" + group, ph=PK[group]) - net_charge("G", ph=PK[group])
        assert charge == pytest.approx(0.5, rel=1e-9)
    for group in "DECY":
        charge = net_charge("G" + group, ph=PK[group]) - net_charge("G", ph=PK[group])
        assert charge == pytest.approx(-0.5, rel=1e-9)


def test_charge_agrees_with_pyteomics():
    electrochem = pytest.importorskip("pyteomics.electrochem")
    basic = {"K", "R", "H", "N-terminus"}
    names = {"N-terminus": "H-", "C-terminus": "-OH"}
    pk = {
        names.get(group, group): [(value, 1 if group in basic else -1)]
        for group, value in PK.items()
    }
    for peptide in ("GLWSKIKEVGK", "DDEEYCH", "ACDEFGHIKLMNPQRSTVWY"):
        expected = electrochem.charge(peptide, 7.0, pK=pk)
        assert net_charge(peptide) == pytest.approx(expected, rel=1e-9)


def test_moment_of_a_perfect_helix_and_of_none():
    # Over 18 residues a helix of 100 degrees closes: a constant peptide has no moment.
    assert hydrophobic_moment("A" * 18) == pytest.approx(0, abs=1e-12)
    assert hydrophobic_moment("LL", angle=180) == pytest.approx(0, abs=1e-12)
    assert hydrophobic_moment("LK", angle=180) == pytest.approx((1.06 + 1.5) / 2)
    # By hand: sums of sines and cosines.
    text = "GLWSKIK"
    turn = [math.radians(100 * n) for n in range(len(text))]
    sine = sum(EISENBERG[r] * math.sin(t) for r, t in zip(text, turn, strict=True))
    cosine = sum(EISENBERG[r] * math.cos(t) for r, t in zip(text, turn, strict=True))
    expected = math.hypot(sine, cosine) / len(text)
    assert hydrophobic_moment(text) == pytest.approx(expected, rel=1e-12)


def test_descriptors_go_together():
    found = peptide_descriptors(["GLWSK", "AA"])
    assert list(found) == ["length", "net_charge", "hydrophobic_moment", "gravy"]
    assert found["length"].tolist() == [5, 2]
    assert found["gravy"][1] == gravy("AA") == pytest.approx(1.8)


@pytest.mark.parametrize("peptide", ["", "GXA", "gla", "A*"])
def test_other_letters_are_refused(peptide):
    with pytest.raises(InputError, match=r"empty|is no letter of peptides"):
        peptide_descriptors(["AA", peptide])


def test_gc_content():
    assert gc_content(["GGCC", "atgu", "AAG"]).tolist() == [1, 0.25, 1 / 3]
    with pytest.raises(InputError, match=r"'N' is no letter of DNA or RNA.*sequence 1"):
        gc_content(["A", "AN"])
