"""Markov chains and plain recommenders: exact probabilities, samples, ranks, saving."""

import itertools
import math
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone

from sciseq.data.event_sequences import leave_one_out
from sciseq.data.event_tables import read_events
from sciseq.data.sequence_files import read_sequences
from sciseq.errors import DataQualityError, InputError, InputTypeError
from sciseq.generation.baselines import (
    MarkovChain,
    PopularityRecommender,
    TransitionRecommender,
)
from sciseq.generation.context_counts import STRENGTHS, ContextCounts
from sciseq.metrics.negative_sampling import sample_negatives
from sciseq.metrics.ranking import ranking_summary
from sciseq.metrics.sequence_quality import bits_per_token
from sciseq.persistence import load

TEXTS = st.lists(st.text("ABC", min_size=0, max_size=5), min_size=1, max_size=6)
SMOOTHING = ["interpolated", "add"]


def all_texts(alphabet, lengths):
    return [
        "".join(letters)
        for length in lengths
        for letters in itertools.product(alphabet, repeat=length)
    ]


def by_hand(texts, text, order, alpha, *, interpolate=True, alphabet="ABC"):
    """Log-probability with an end symbol, by counting letters in the texts."""
    V, total = len(alphabet) + 1, 0.0
    padded = ["^" * order + one + "$" for one in texts]
    for at in range(order, len(text) + order + 1):
        whole = "^" * order + text + "$"
        p = 1 / V
        for m in range(order + 1) if interpolate else [order]:
            context = whole[at - m : at]
            follows = Counter(
                one[i]
                for one in padded
                for i in range(order, len(one))
                if one[i - m : i] == context
            )
            p = (follows[whole[at]] + alpha * p) / (follows.total() + alpha)
        total += math.log(p)
    return total


# ------------------------------------------------------------------- probabilities


@pytest.mark.parametrize("smoothing", SMOOTHING)
@pytest.mark.parametrize("order", [0, 1, 3])
def test_probabilities_are_those_counted_by_hand(smoothing, order):
    texts = ["ABCA", "AB", "", "CCCA", "ABCC"]
    chain = MarkovChain(order, smoothing=smoothing, strength=0.7, alphabet="ABC")
    chain.fit(texts)
    asked = ["ABC", "", "CAB", "BBBBB"]
    interpolate = smoothing == "interpolated"
    expected = [by_hand(texts, x, order, 0.7, interpolate=interpolate) for x in asked]
    np.testing.assert_allclose(chain.score_samples(asked), expected, rtol=1e-12)


@pytest.mark.parametrize("smoothing", SMOOTHING)
def test_probabilities_of_a_fixed_length_sum_to_one(smoothing):
    chain = MarkovChain(2, smoothing=smoothing, strength=0.3).fit(["ABCA", "ACCC"])
    assert chain.length_ == 4
    texts = all_texts("ABC", [4])
    assert np.exp(chain.score_samples(texts)).sum() == pytest.approx(1, abs=1e-12)
    unsmoothed = [math.prod(0.5 for _ in text) for text in texts]  # no distribution
    assert sum(unsmoothed) != pytest.approx(1)


@pytest.mark.parametrize("smoothing", SMOOTHING)
def test_probabilities_of_all_lengths_sum_to_one(smoothing):
    # Of order 0, a text of more than n letters has the probability (1 - p)^(n + 1).
    chain = MarkovChain(0, smoothing=smoothing, strength=0.5).fit(["AB", "A", "ABB"])
    p = np.exp(chain.score_samples(all_texts("AB", range(9)))).sum()
    p_end = math.exp(chain.score_samples([""])[0])
    assert p == pytest.approx(1 - (1 - p_end) ** 9, abs=1e-12)
    # Of order 2, the mass of short texts and of the prefixes that go on is one.
    chain = MarkovChain(2, smoothing=smoothing, strength=0.5).fit(["AB", "A", "ABB"])
    short = np.exp(chain.score_samples(all_texts("AB", range(6)))).sum()
    contexts, symbols, sequence = chain._places(
        [np.array([0, 1])[list(map("AB".index, x))] for x in all_texts("AB", [6])]
    )
    step = np.log(chain.counts_.probability(contexts, symbols, 0.5))
    is_end = symbols == 2
    alive = np.exp(np.bincount(sequence[~is_end], weights=step[~is_end])).sum()
    assert short + alive == pytest.approx(1, abs=1e-12)


def test_a_chain_that_forgets_the_end_is_caught():
    chain = MarkovChain(1, strength=0.5).fit(["AB", "A", "ABB"])
    texts = all_texts("AB", range(9))
    with_end = np.exp(chain.score_samples(texts)).sum()
    contexts, symbols, sequence = chain._places(
        [np.array(list(map("AB".index, x)), dtype=np.int64) for x in texts]
    )
    p = np.log(chain.counts_.probability(contexts, symbols, 0.5))
    keep = symbols != 2
    forgotten = np.bincount(sequence[keep], weights=p[keep], minlength=len(texts))
    assert with_end <= 1 < np.exp(forgotten).sum()


@settings(max_examples=25)
@given(TEXTS, st.integers(0, 3), st.booleans())
def test_row_of_probabilities_equals_the_single_ones(texts, order, interpolate):
    smoothing = SMOOTHING[0] if interpolate else SMOOTHING[1]
    chain = MarkovChain(
        order, smoothing=smoothing, strength=1.0, end_symbol=True, alphabet="ABC"
    ).fit(texts)
    counts, V = chain.counts_, 4
    alphas = np.arange(1, order + 2) * 0.3 if interpolate else [0.4]
    contexts = np.random.default_rng(0).integers(0, V + 1, (6, order))
    rows = counts.distribution(contexts, alphas)
    np.testing.assert_allclose(rows.sum(axis=1), 1, rtol=1e-12)
    for symbol in range(V):
        single = counts.probability(contexts, np.full(6, symbol), alphas)
        np.testing.assert_allclose(rows[:, symbol], single, rtol=1e-12)


def test_high_order_with_many_symbols_does_not_overflow():
    rng = np.random.default_rng(0)
    texts = [rng.integers(0, 5000, 30).tolist() for _ in range(20)]
    chain = MarkovChain(8, strength=1e-6).fit(texts)
    # Each sequence has contexts of its own: it is predicted after its first tokens.
    assert chain.score_samples(texts).min() > -2 * math.log(5000) - 1e-3
    assert 5001**8 > 2**63  # the number of a context, written out, would overflow


def test_smoothing_with_the_law_of_large_numbers():
    rng = np.random.default_rng(0)
    T = np.array([[0.8, 0.2], [0.3, 0.7]])
    state = rng.integers(0, 2, 2000)
    steps = [state]
    for _ in range(40):
        state = (rng.random(2000) > T[state, 0]).astype(int)
        steps.append(state)
    texts = ["".join("AB"[s] for s in one) for one in np.stack(steps, axis=1)]
    chain = MarkovChain(1).fit(texts)
    p = chain.counts_.distribution(np.array([[0], [1]]), chain.strengths_)
    np.testing.assert_allclose(p, T, atol=0.01)


# ------------------------------------------------------------------- strength


def test_no_strength_is_better_on_the_validation_part():
    rng = np.random.default_rng(1)
    T = rng.dirichlet(np.full(4, 0.5), size=16)
    texts = []
    for _ in range(80):
        x = [0, 1]
        while len(x) < 25:
            x.append(rng.choice(4, p=T[4 * x[-2] + x[-1]]))
        texts.append("".join("ACGT"[one] for one in x))
    chain = MarkovChain(4).fit(texts)
    training, held_out = chain._parts(len(texts))
    assert len(held_out) == 8
    assert not set(held_out) & set(training)
    numbered = [np.array(["ACGT".index(one) for one in text]) for text in texts]
    counts = chain._count([numbered[one] for one in training])
    places = chain._places([numbered[one] for one in held_out])[:2]

    def score(strengths):
        return np.log(counts.probability(*places, strengths)).sum()

    best = score(chain.strengths_)
    for m, strength in itertools.product(range(5), STRENGTHS):
        tried = chain.strengths_.copy()
        tried[m] = strength
        assert score(tried) <= best + 1e-9
    # One strength for all lengths is a special case, and worse.
    assert best > max(score(strength) for strength in STRENGTHS)


def test_where_there_is_nothing_to_learn_smoothing_is_strong():
    rng = np.random.default_rng(1)
    texts = ["".join(rng.choice(list("ACGT"), 20)) for _ in range(60)]
    held_out = ["".join(rng.choice(list("ACGT"), 20)) for _ in range(200)]
    chain, bold = MarkovChain(4).fit(texts), MarkovChain(4, strength=0.01).fit(texts)
    assert bits_per_token(chain.score_samples(held_out), held_out) < 2.1
    assert bits_per_token(bold.score_samples(held_out), held_out) > 3


def test_after_the_choice_the_chain_learns_from_everything():
    texts = [*["AB"] * 9, "CC"]
    chain = MarkovChain(1, validation_fraction=0.2).fit(texts)
    assert [level.totals.sum() for level in chain.counts_.levels] == [20, 20]
    again = MarkovChain(1, validation_fraction=0.2).fit(texts)
    np.testing.assert_array_equal(chain.strengths_, again.strengths_)


# ------------------------------------------------------------------- samples


def test_samples_follow_the_probabilities():
    chain = MarkovChain(2, strength=0.5).fit(["ABA", "ABB", "B", "AAB"])
    n = 20_000
    counts = Counter(chain.sample(n, random_state=0))
    texts = all_texts("AB", range(5))
    p = np.exp(chain.score_samples(texts))
    found = np.array([counts[text] for text in texts]) / n
    assert (np.abs(found - p) < 4.5 * np.sqrt(p * (1 - p) / n)).all()
    wrong = np.exp(MarkovChain(0, strength=0.5).fit(["ABA", "B"]).score_samples(texts))
    assert not (np.abs(found - wrong) < 4.5 * np.sqrt(wrong * (1 - wrong) / n)).all()


def test_samples_of_a_fixed_length_and_of_tokens():
    chain = MarkovChain(1).fit(["ACGT", "TGCA"] * 5)
    assert {len(text) for text in chain.sample(50, random_state=1)} == {4}
    assert {len(text) for text in chain.sample(9, random_state=1, max_length=2)} == {2}
    table = MarkovChain(1).fit(np.array([[4, 5], [5, 4]] * 5)).sample(3, random_state=1)
    assert table.shape == (3, 2)
    assert set(table.ravel().tolist()) <= {4, 5}
    tokens = MarkovChain(1).fit([["Cl", "C"], ["C"]] * 5).sample(5, random_state=1)
    assert all(isinstance(one, list) and set(one) <= {"Cl", "C"} for one in tokens)


def test_samples_repeat_with_their_seed_and_touch_nothing(no_global_side_effects):
    chain = MarkovChain(2).fit(["ABA", "ABB", "B", "AAB"] * 3)
    with no_global_side_effects():
        first = chain.sample(20, random_state=5)
    assert first == chain.sample(20, random_state=np.random.default_rng(5))
    assert first != chain.sample(20, random_state=6)
    assert first[:7] == chain.sample(7, random_state=5)


def test_a_chain_without_an_end_in_sight_is_cut():
    chain = MarkovChain(1, strength=1e-12, alphabet="A").fit(["A" * 40, "A" * 41])
    endless = MarkovChain(0, strength=1e9, alphabet=list(range(10_000))).fit([[1], []])
    assert max(map(len, endless.sample(20, random_state=0))) <= 10
    assert max(map(len, chain.sample(5, random_state=0, max_length=3))) == 3


# ------------------------------------------------------------------- as an estimator


def test_clone_and_parameters():
    chain = MarkovChain(3, smoothing="add")
    assert clone(chain).get_params() == chain.get_params()
    with pytest.raises(InputError, match="Did you mean 'order'"):
        chain.set_params(ordre=2)
    with pytest.raises(InputError, match=r"order=-1.*smoothing='laplace'"):
        MarkovChain(-1, smoothing="laplace").fit(["AB"])


def test_parameters_changed_after_fit_wait_for_the_next_fit():
    chain = MarkovChain(2, strength=0.5).fit(["ABA", "ABB", "B"])
    before = chain.score_samples(["AB"])
    chain.set_params(order=4, smoothing="add", strength=9.0)
    assert chain.score_samples(["AB"]) == before


def test_a_fit_that_fails_changes_nothing():
    chain = MarkovChain(1, strength=0.5).fit(["ABA", "ABB", "B"])
    before = chain.score_samples(["AB"])
    chain.set_params(strength=None)
    with pytest.raises(InputError, match="cannot be split"):
        chain.fit(["CC", "C"])
    assert chain.score_samples(["AB"]) == before


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda chain: chain.fit("ABC"), InputError, "the string 'ABC', and there"),
        (lambda chain: chain.fit("A" * 9999), InputError, "the string 'AAA"),
        (lambda chain: chain.fit([]), InputError, "no sequences"),
        (lambda chain: chain.score_samples(["AB", "AXB"]), InputError, r"X\[1\], symb"),
        (lambda chain: chain.sample(0), InputError, "n is 0"),
        (
            lambda chain: MarkovChain(1, end_symbol=False).fit(["A", "AB"]),
            InputError,
            "1 to 2 symbols",
        ),
        (
            lambda chain: MarkovChain(1, strength=1).fit(["AB"]).score_samples(["A"]),
            InputError,
            "has 1 symbols",
        ),
    ],
)
def test_bad_calls(call, kind, message):
    with pytest.raises(kind, match=message):
        call(MarkovChain(1, strength=0.5).fit(["ABA", "ABB", "B"]))


# ------------------------------------------------------------------- recommenders

EVENTS = [["tea", "milk", "cake"], ["tea", "milk"], ["cake", "tea"], ["rum"]]


def test_popularity_by_hand():
    model = PopularityRecommender().fit(EVENTS)
    assert model.vocabulary_.tolist() == ["cake", "milk", "rum", "tea"]
    np.testing.assert_allclose(model.score_items([[]])[0] * 8, [2, 2, 1, 3])
    # Cake and milk are tied; with the history left out, one of them remains.
    assert model.rank([["milk"]], ["cake"])["full"] == 1.5
    assert model.rank([["milk"]], ["cake"], exclude_history=True)["full"] == 1
    assert model.recommend([["tea"]], k=9) == [["cake", "milk", "rum"]]
    assert model.recommend([["tea"]], k=2, exclude_history=False) == [["tea", "cake"]]


def test_transitions_by_hand():
    alpha = 0.5
    model = TransitionRecommender(strength=alpha).fit(EVENTS)
    share = (np.array([2, 2, 1, 3]) + alpha / 4) / (8 + alpha)
    after_tea = (np.array([0, 2, 0, 0]) + alpha * share) / (2 + alpha)
    first = (np.array([1, 0, 1, 2]) + alpha * share) / (4 + alpha)
    found = model.score_items([["rum", "tea"], []])
    np.testing.assert_allclose(found, [after_tea, first], rtol=1e-12)
    # Nothing follows rum, so popularity decides.
    np.testing.assert_allclose(model.score_items([["rum"]])[0], share, rtol=1e-12)


def test_transitions_do_not_cross_from_one_entity_to_the_next():
    model = TransitionRecommender(strength=1e-9).fit([["a", "b"], ["c", "d"]])
    scores = dict(zip("abcd", model.score_items([["b"]])[0], strict=True))
    assert scores["c"] == pytest.approx(0.25)  # the popularity, and no transition
    joined = TransitionRecommender(strength=1e-9).fit([["a", "b", "c", "d"]])
    assert joined.score_items([["b"]])[0, 2] == pytest.approx(1)


@pytest.mark.parametrize("kind", [PopularityRecommender, TransitionRecommender])
def test_names_of_items_do_not_matter(kind):
    rng = np.random.default_rng(0)
    histories = [rng.integers(0, 9, rng.integers(1, 8)).tolist() for _ in range(40)]
    names = rng.permutation(9).tolist()
    renamed = [[names[item] for item in one] for one in histories]
    targets = [one[-1] for one in histories]
    known = [one[:-1] for one in histories]
    first = kind().fit(histories).rank(known, targets)
    second = (
        kind()
        .fit(renamed)
        .rank(
            [[names[item] for item in one] for one in known],
            [names[one] for one in targets],
        )
    )
    np.testing.assert_array_equal(first["full"], second["full"])


def test_no_event_at_all_and_unknown_items():
    with pytest.raises(InputError, match="no events"):
        PopularityRecommender().fit([[], []])
    with pytest.raises(InputTypeError, match="several types"):
        PopularityRecommender().fit([["a", 1]])
    with pytest.raises(InputTypeError, match="list of lists"):
        PopularityRecommender().fit(["tea", "milk"])
    model = PopularityRecommender().fit(EVENTS)
    with pytest.raises(InputError, match=r"'gin' is none of the 4.*X\[1\], symbol 0"):
        model.recommend([["tea"], ["gin"]])
    with pytest.raises(InputError, match="1 targets for 2"):
        model.rank([[], []], ["tea"])


def test_a_strong_popularity_hides_the_transitions():
    events = [["a", "b"], ["c", "c", "c"]]
    weak, strong = (TransitionRecommender(strength=one) for one in (1.0, 1e6))
    assert weak.fit(events).recommend([["a"]], k=1) == [["b"]]
    assert strong.fit(events).recommend([["a"]], k=1) == [["c"]]


def test_events_of_another_numbering_are_refused(tmp_path):
    (tmp_path / "a.txt").write_text("1 10\n1 20\n2 20\n")
    (tmp_path / "b.txt").write_text("1 20\n2 20\n")
    model = PopularityRecommender().fit(read_events(tmp_path / "a.txt"))
    with pytest.raises(InputError, match="number their items otherwise"):
        model.recommend(read_events(tmp_path / "b.txt"))
    same = read_events(tmp_path / "b.txt", vocabulary=model.vocabulary_)
    assert model.recommend(same) == [[10], [10]]


# ------------------------------------------------------------------- counts, real data


def test_counts_are_contiguous_and_complete():
    counts = ContextCounts.of(np.array([[2], [0], [2]]), np.array([0, 1, 0]), 2)
    assert [level.totals.tolist() for level in counts.levels] == [[3], [1, 2]]
    assert [level.counts.sum() for level in counts.levels] == [3, 3]


def test_real_promoters_are_no_noise(data_dir):
    file = data_dir / "sequences" / "dna_ecoli_prom.fa.gz"
    texts = read_sequences(file, alphabet="ACGT").sequences
    assert MarkovChain(1, strength=1.0).fit(file).n_training_ == len(texts) == 839
    order = np.random.default_rng(0).permutation(len(texts))
    training = [texts[place] for place in order[84:]]
    test = [texts[place] for place in order[:84]]
    chain = MarkovChain(5).fit(training)
    bits = bits_per_token(chain.score_samples(test), test)
    zero = MarkovChain(0).fit(training)
    assert bits < bits_per_token(zero.score_samples(test), test) < 2
    assert {len(text) for text in chain.sample(5, random_state=0)} == {81}


def test_real_ratings_end_to_end(data_dir):
    file = data_dir / "events" / "ml_small_ratings.csv.gz"
    events = read_events(file, entity="userId", time="timestamp", item="movieId")
    split = leave_one_out(events)
    popular = PopularityRecommender().fit(split.training)
    moves = TransitionRecommender().fit(split.training)
    known = split.test_history.take(split.judged)
    negatives = sample_negatives(
        list(known),
        split.test,
        len(events.vocabulary),
        popularity=split.training.item_counts(),
        generator=np.random.default_rng(0),
    )
    assert not (negatives == split.test[:, None]).any()
    found = {
        (model, kind): ranking_summary(ranks, [10])["ndcg@10"]
        for model, one in (("popular", popular), ("moves", moves))
        for kind, ranks in one.rank(
            known, split.test, negatives=negatives, exclude_history=True
        ).items()
    }
    assert found["moves", "full"] > found["popular", "full"]
    assert found["moves", "sampled"] > found["popular", "sampled"]
    # Against popular negatives, popularity is no better than chance.
    chance = sum(1 / np.log2(r + 2) for r in range(10)) / 101
    assert found["popular", "sampled"] < 2 * chance


# ------------------------------------------------------------------- saving


@pytest.mark.parametrize(
    ("model", "data"),
    [
        (MarkovChain(2), ["ABA", "ABB", "B", "AAB"] * 3),
        (MarkovChain(1, smoothing="add", strength=0.5), np.array([[4, 5], [5, 4]])),
        (PopularityRecommender(), EVENTS),
        (TransitionRecommender(), EVENTS),
    ],
)
def test_saved_models_answer_the_same(tmp_path, model, data):
    model.fit(data)
    model.save(tmp_path / "model.zip")
    again = load(tmp_path / "model.zip")
    assert again.get_params() == model.get_params()
    ask = "score_samples" if isinstance(model, MarkovChain) else "score_items"
    np.testing.assert_array_equal(getattr(again, ask)(data), getattr(model, ask)(data))
    if isinstance(model, MarkovChain):
        drawn = [one.sample(5, random_state=0) for one in (again, model)]
        np.testing.assert_array_equal(*drawn)


def test_missing_and_mixed_items_are_refused():
    for missing in (None, float("nan"), pd.NA):
        for model in (PopularityRecommender(), TransitionRecommender(), MarkovChain(1)):
            with pytest.raises(DataQualityError, match="missing"):
                model.fit([["a", missing], ["b", "a"]])
    with pytest.raises(InputTypeError, match="such as 'a' and 1"):
        PopularityRecommender().fit([["a", 1], ["b"]])
    model = PopularityRecommender().fit([["a", "b"]])
    for k in (0, 1.5, "2"):
        with pytest.raises(InputError, match="k is"):
            model.recommend([["a"]], k=k)
    with pytest.raises(InputError, match="batch_size is 0"):
        model.rank([["a"]], ["b"], batch_size=0)


def test_the_scores_of_a_chain_are_exact():
    chain = MarkovChain(1, strength=1.0).fit(["ABAB", "ABBA"])
    values, errors = chain.score_samples(["ABAB"], return_std=True)
    assert (values == chain.score_samples(["ABAB"])).all()
    assert not errors.any()
    with pytest.raises(InputError, match=r"n is 2\.5"):
        chain.sample(2.5)
