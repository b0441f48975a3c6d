"""LexRank: sentences, vectors, centrality and the selection under a budget.

Test T22 of the card, its part about centrality.
"""

import gzip
import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from sciseq.errors import InputError, NumericalError
from sciseq.generation.parts.lexrank import (
    centrality,
    cosine_similarities,
    inverse_document_frequencies,
    rank_order,
    select_in_budget,
    sentence_vectors,
    split_sentences,
    words_of,
)

TOLERANCE = 1e-6


def random_graph(seed, n=7, share=0.5):
    rng = np.random.default_rng(seed)
    S = rng.random((n, n)) * (rng.random((n, n)) < share)
    np.fill_diagonal(S, 0)
    return S


def transition(S, damping=0.85):
    """The whole Markov matrix, rows sum to 1; written out from the equation."""
    n = len(S)
    degree = S.sum(axis=1, keepdims=True)
    M = np.where(degree > 0, S / np.where(degree > 0, degree, 1), 1 / n)
    return (1 - damping) / n + damping * M


# --- Centrality ----------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(8))
def test_centrality_is_the_stationary_distribution(seed):
    S = random_graph(seed)
    if seed % 2:
        S[3] = 0  # a dangling row
    pi, P = centrality(S), transition(S)
    assert (pi >= 0).all()
    assert pi.sum() == pytest.approx(1, abs=1e-12)
    assert np.abs(pi @ P - pi).sum() < TOLERANCE
    # Independent of the iteration: the left eigenvector of eigenvalue 1.
    system = np.vstack([P.T - np.eye(7), np.ones(7)])
    exact = np.linalg.lstsq(system, np.r_[np.zeros(7), 1.0], rcond=None)[0]
    np.testing.assert_allclose(pi, exact, atol=1e-5)
    np.testing.assert_allclose(
        centrality(S, tolerance=1e-13, max_iterations=300), exact
    )


def test_wrong_directions_are_told_apart():
    # M instead of its transpose, and dangling rows forgotten, are not stationary.
    S = random_graph(1)
    S[3] = 0
    pi = centrality(S)
    assert np.abs(transition(S) @ pi - pi).sum() > 0.01
    M = S / np.where(S.sum(axis=1) > 0, S.sum(axis=1), 1)[:, None]
    assert np.abs(0.15 / 7 + 0.85 * M.T @ pi - pi).sum() > 0.01


def test_an_early_stop_is_seen():
    # The number 0.2 as the tolerance, as in the released script, is no solution.
    S = random_graph(0)
    early = centrality(S, tolerance=0.2)
    assert np.abs(early @ transition(S) - early).sum() > 100 * TOLERANCE


@pytest.mark.parametrize("n", [1, 2, 9])
def test_complete_graph_is_uniform(n):
    complete = np.ones((n, n)) - np.eye(n)
    np.testing.assert_allclose(centrality(complete), np.full(n, 1 / n), atol=1e-15)


def test_no_edges_is_uniform_and_no_node_is_nothing():
    np.testing.assert_allclose(centrality(np.zeros((4, 4))), np.full(4, 0.25))
    assert centrality(np.zeros((0, 0))).shape == (0,)


def test_isolated_node_has_the_teleport_minimum():
    S = np.ones((5, 5)) - np.eye(5)
    S[4] = S[:, 4] = 0
    pi = centrality(S, tolerance=1e-12, max_iterations=300)
    # What arrives: the teleport, and its own dangling share: π = (0.15 + 0.85 π) / 5.
    assert pi[4] == pytest.approx(0.15 / 5 / (1 - 0.85 / 5), abs=1e-10)
    assert (pi[:4] > pi[4]).all()
    # With a loop it would keep all it has, and be as central as the others.
    S[4, 4] = 1
    looped = centrality(S, tolerance=1e-12, max_iterations=300)
    assert looped[4] == pytest.approx(1 / 5, abs=1e-10)


@given(st.integers(0, 10_000), st.floats(0, 0.99), st.integers(2, 12))
@settings(max_examples=40, deadline=None)
def test_centrality_is_a_distribution_and_follows_a_permutation(seed, damping, n):
    rng = np.random.default_rng(seed)
    S = random_graph(seed, n)
    pi = centrality(S, damping=damping, max_iterations=3000)
    assert (pi >= (1 - damping) / n - 1e-12).all()
    assert pi.sum() == pytest.approx(1, abs=1e-12)
    order = rng.permutation(n)
    shuffled = centrality(S[order][:, order], damping=damping, max_iterations=3000)
    np.testing.assert_allclose(shuffled, pi[order], atol=1e-10)


def test_dense_and_sparse_agree():
    S = random_graph(2)
    assert np.array_equal(centrality(S), centrality(sparse.csr_array(S)))


def test_hundred_steps_are_enough_for_the_defaults():
    # Two nodes that swap, the slowest case there is: every step flips the difference.
    S = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    pi = centrality(S)
    assert np.abs(pi @ transition(S) - pi).sum() < TOLERANCE
    with pytest.raises(NumericalError, match="after 20 steps"):
        centrality(S, max_iterations=20)


@pytest.mark.parametrize(
    ("graph", "damping", "message"),
    [
        (np.ones((2, 3)), 0.85, "shape"),
        (-np.ones((2, 2)), 0.85, "negative"),
        (np.full((2, 2), np.nan), 0.85, "not finite"),
        (np.ones((2, 2)), 1.0, "damping is 1.0"),
    ],
)
def test_centrality_refuses(graph, damping, message):
    with pytest.raises(InputError, match=message):
        centrality(graph, damping=damping)


# --- Vectors and similarities --------------------------------------------------------


def test_duplicate_sentences_have_equal_scores():
    sentences = ["a b c", "c d", "a b c", "d e f", "b f"]
    vectors = sentence_vectors([one.split() for one in sentences])
    pi = centrality(cosine_similarities(vectors))
    assert pi[0] == pytest.approx(pi[2], abs=1e-15)
    assert rank_order(pi).index(0) == rank_order(pi).index(2) - 1


def test_cosines_are_those_of_the_formula():
    documents = [["a", "b", "b"], ["b", "c"], ["d"], []]
    idf, other = inverse_document_frequencies(documents[:2])
    assert idf == {
        "a": pytest.approx(np.log(3 / 2) + 1),
        "b": pytest.approx(1),
        "c": pytest.approx(np.log(3 / 2) + 1),
    }
    assert other == pytest.approx(np.log(3) + 1)
    S = cosine_similarities(sentence_vectors(documents, idf, other)).toarray()
    x = np.array([idf["a"], 2, 0, 0])
    y = np.array([0, 1, idf["c"], 0])
    expected = x @ y / np.linalg.norm(x) / np.linalg.norm(y)
    assert S[0, 1] == S[1, 0] == pytest.approx(expected, abs=1e-15)
    assert S[2].sum() == S[3].sum() == 0
    assert (np.diag(S) == 0).all()


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 1.0])
def test_threshold_cuts_similarities_and_not_iterations(threshold):
    rng = np.random.default_rng(0)
    sentences = [rng.choice(list("abcdefgh"), size=4).tolist() for _ in range(12)]
    vectors = sentence_vectors(sentences)
    dense = (vectors @ vectors.T).toarray()
    expected = np.where(dense > threshold, dense, 0)
    np.fill_diagonal(expected, 0)
    S = cosine_similarities(vectors, threshold)
    np.testing.assert_allclose(S.toarray(), expected, atol=1e-15)
    pi = centrality(S)
    assert np.abs(pi @ transition(expected) - pi).sum() < TOLERANCE


# --- Selection -----------------------------------------------------------------------


@given(
    st.lists(st.integers(0, 30), min_size=1, max_size=12),
    st.integers(0, 60),
    st.one_of(st.none(), st.integers(1, 5)),
    st.randoms(use_true_random=False),
)
@settings(deadline=None)
def test_selection_keeps_the_budget_and_is_maximal(sizes, budget, most, random):
    order = list(range(len(sizes)))
    random.shuffle(order)
    chosen = select_in_budget(order, sizes, budget, max_items=most)
    used = sum(sizes[i] for i in chosen)
    assert used <= budget
    assert chosen == select_in_budget(order, sizes, budget, max_items=most)
    assert chosen == sorted(chosen, key=order.index)
    assert most is None or len(chosen) <= most
    if most is None or len(chosen) < most:
        left_out = set(order) - set(chosen)
        assert all(sizes[i] > budget - used for i in left_out)


def test_a_selection_that_stops_at_the_first_misfit_is_not_maximal():
    # Such a rule would leave the budget unused.
    assert select_in_budget([0, 1, 2], [3, 9, 4], 8) == [0, 2]


def test_ties_go_to_the_earlier_sentence_whatever_the_rounding():
    assert rank_order(np.array([0.1, 0.3 + 1e-16, 0.3, 0.3])) == [1, 2, 3, 0]
    assert rank_order(np.array([0.1, 0.3, 0.3 + 5e-17, 0.3])) == [1, 2, 3, 0]


# --- Sentences -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three? Four", ["One.", "Two!", "Three?", "Four"]),
        ("We got 3.5 % more. It works.", ["We got 3.5 % more.", "It works."]),
        ("As J. Smith et al. 2019 say, e.g. Tab. 3.", None),
        ("It is so, i.e. It is.", None),
        ('He said "Stop." Then he left.', ['He said "Stop."', "Then he left."]),
        ("It ends (as here.) (So it does.)", ["It ends (as here.)", "(So it does.)"]),
        ("with Adam. lower case goes on", None),
        ("Title\n\nText starts\nhere.", ["Title", "Text starts here."]),
        ("Wait… Now.", ["Wait…", "Now."]),
        ("", []),
        (" \n\n ", []),
    ],
)
def test_split_sentences(text, expected):
    assert split_sentences(text) == ([text] if expected is None else expected)


@given(st.text(alphabet="abAB1 .!?\"'()\n…é", max_size=60))
def test_splitting_loses_nothing(text):
    sentences = split_sentences(text)
    assert re.sub(r"\s", "", "".join(sentences)) == re.sub(r"\s", "", text)
    assert all(one == " ".join(one.split()) and one for one in sentences)


def test_words_of():
    text = "The ReLU-network's x_1, Éa; 3.5"
    expected = ["relu", "network", "s", "x", "1", "éa", "3", "5"]
    assert words_of(text, {"the"}) == expected


def ends_of(sentences):
    """Ends of sentences, counted in characters that are not white space."""
    lengths = [len("".join(one.split())) for one in sentences]
    return np.cumsum(lengths).tolist()


def test_real_abstracts_are_split_as_in_the_file(data_dir):
    path = data_dir / "sequences" / "scitldr_a_dev.jsonl.gz"
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        sources = [json.loads(line)["source"] for line in lines]
    n_found = n_given = n_right = n_stops = n_stops_found = 0
    for source in sources:
        theirs, ours = ends_of(source), ends_of(split_sentences(" ".join(source)))
        n_found, n_given = n_found + len(ours), n_given + len(theirs)
        n_right += len(set(theirs) & set(ours))
        # The file also has pieces of sentences, from line breaks of its origin.
        stops = {
            end
            for end, one in zip(theirs, source, strict=True)
            if one.rstrip().endswith((".", "!", "?"))
        }
        n_stops, n_stops_found = (
            n_stops + len(stops),
            n_stops_found + len(stops & set(ours)),
        )
    assert n_given > 4000
    assert n_right / n_found > 0.97
    assert n_stops_found / n_stops > 0.97
