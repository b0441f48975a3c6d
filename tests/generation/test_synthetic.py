"""Synthetic sequences: the rules they obey, and the laws against enumeration."""

from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sciseq.errors import DataQualityError, InputError
from sciseq.generation.synthetic import (
    associative_recall,
    checksum_strings,
    hairpins,
    has_checksum,
    is_paired,
    phone_book,
)
from sciseq.generation.synthetic_chain import GAP, KnownChain, random_chain
from sciseq.generation.synthetic_series import event_histories, quantised_series

SEEDS = st.integers(0, 2**32 - 1)


def rng(seed=0):
    return np.random.default_rng(seed)


# S1, S2: recall


@given(SEEDS, st.integers(1, 8), st.integers(1, 4), st.data())
@settings(max_examples=30)
def test_answers_stand_behind_their_keys(seed, n_entries, n_digits, data):
    n_queries = data.draw(st.integers(1, n_entries))
    options = {"n_names": 9, "n_digits": n_digits, "n_queries": n_queries}
    book = phone_book(3, n_entries, rng(seed), **options)
    assert book.n_symbols == 19
    assert book.labels.shape == (3, n_digits * n_queries)
    for inputs, labels in zip(book.inputs, book.labels, strict=True):
        entries = inputs[:-n_queries].reshape(n_entries, 1 + n_digits)
        numbers = {entry[0]: entry[1:].tolist() for entry in entries}
        assert len(numbers) == n_entries  # every name once
        assert max(numbers) < 9
        assert 9 <= entries[:, 1:].min() <= entries[:, 1:].max() < 19
        queries = inputs[-n_queries:].tolist()
        assert len(set(queries)) == n_queries
        answers = [numbers[name] for name in queries]
        assert labels.reshape(n_queries, n_digits).tolist() == answers


def test_associative_recall_asks_for_all_places_alike():
    task = associative_recall(900, 3, rng(), n_keys=5, n_values=4, n_queries=2)
    assert task.inputs.shape == (900, 8)
    assert task.labels.shape == (900, 2)
    keys, queries = task.inputs[:, 0:6:2], task.inputs[:, 6:]
    first = np.argmax(keys == queries[:, :1], axis=1)
    counts = np.bincount(first, minlength=3)
    assert np.all(abs(counts - 300) < 60)  # standard deviation 14
    values = np.take_along_axis(task.inputs[:, 1:6:2], first[:, None], axis=1)
    np.testing.assert_array_equal(values[:, 0], task.labels[:, 0])


# S3, S5: rules over whole sequences


@given(SEEDS, st.integers(1, 9), st.integers(0, 4))
@settings(max_examples=30)
def test_hairpins_pair(seed, arm, loop):
    sequences = hairpins(4, arm, loop, rng(seed))
    assert sequences.shape == (4, 2 * arm + loop)
    assert 0 <= sequences.min() <= sequences.max() <= 3
    for sequence in sequences:
        for t in range(arm):
            assert sequence[t] + sequence[-1 - t] == 3
    assert is_paired(sequences, arm).all()
    broken = sequences.copy()
    broken[:, 0] = (broken[:, 0] + 1) % 4
    assert not is_paired(broken, arm)[:, 0].any()
    assert is_paired(broken, arm)[:, 1:].all()


@given(SEEDS, st.integers(1, 9), st.integers(2, 7))
@settings(max_examples=30)
def test_checksums_hold_and_see_any_single_change(seed, length, base):
    strings = checksum_strings(5, length, rng(seed), base=base)
    assert strings.shape == (5, length)
    assert 0 <= strings.min() <= strings.max() < base
    assert all(sum(string) % base == 0 for string in strings.tolist())
    assert has_checksum(strings, base).all()
    strings[:, seed % length] = (strings[:, seed % length] + 1) % base
    assert not has_checksum(strings, base).any()


# S4: the Markov chain


@pytest.fixture
def chain():
    return random_chain(3, rng(5))


def joint(chain, length):
    """Probability of every sequence, by multiplication."""
    table = {}
    for states in product(range(chain.n_states), repeat=length):
        p = chain.initial[states[0]]
        for one, following in pairwise(states):
            p *= chain.transition[one, following]
        table[states] = p
    return table


def test_log_probabilities_equal_enumeration(chain):
    table = joint(chain, 4)
    found = np.exp(chain.log_prob(list(table)))
    np.testing.assert_allclose(found, list(table.values()), rtol=1e-12)
    assert found.sum() == pytest.approx(1, abs=1e-12)
    turned = KnownChain(chain.transition.T / chain.transition.sum(0)[:, None])
    assert not np.allclose(np.exp(turned.log_prob(list(table))), found, atol=1e-3)


@pytest.mark.parametrize(
    "known",
    [
        (0, GAP, GAP, 2),
        (GAP, 1, GAP, GAP),
        (GAP, GAP, GAP, 0),
        (2, 1, 0, 1),
        (GAP,) * 4,
    ],
)
def test_posteriors_equal_enumeration(chain, known):
    fits = {
        states: p
        for states, p in joint(chain, 4).items()
        if all(k in (GAP, s) for k, s in zip(known, states, strict=True))
    }
    expected = np.zeros((4, 3))
    for states, p in fits.items():
        expected[range(4), states] += p
    total = sum(fits.values())
    (found,) = chain.posterior([known])
    np.testing.assert_allclose(found, expected / total, atol=1e-12)
    assert chain.log_prob([known])[0] == pytest.approx(np.log(total), abs=1e-12)


def test_posterior_needs_both_sides(chain):
    (both,) = chain.posterior([[0, GAP, 2]])
    (left,) = chain.posterior([[0, GAP, GAP]])
    np.testing.assert_allclose(left[1], chain.transition[0], atol=1e-12)
    assert abs(both[1] - left[1]).max() > 0.05  # filtering alone is wrong


def test_long_sequences_do_not_underflow(chain):
    states = chain.sample(2, 3000, rng(1))
    logs = np.log(chain.initial[states[:, 0]])
    logs = logs + np.log(chain.transition[states[:, :-1], states[:, 1:]]).sum(1)
    np.testing.assert_allclose(chain.log_prob(states), logs, rtol=1e-10)
    states[:, 1::2] = GAP
    np.testing.assert_allclose(chain.posterior(states).sum(-1), 1, rtol=1e-12)


def test_samples_follow_the_chain(chain, no_global_side_effects):
    with no_global_side_effects():
        states = chain.sample(4000, 6, rng(2))
    np.testing.assert_array_equal(states, chain.sample(4000, 6, rng(2)))
    np.testing.assert_allclose(
        chain.initial @ chain.transition, chain.initial, atol=1e-12
    )
    for t in range(6):  # stationary
        shares = np.bincount(states[:, t], minlength=3) / 4000
        assert abs(shares - chain.initial).max() < 0.04  # standard deviation 0.008
    pairs = np.zeros((3, 3))
    np.add.at(pairs, (states[:, :-1].ravel(), states[:, 1:].ravel()), 1)
    found = pairs / pairs.sum(1, keepdims=True)
    assert abs(found - chain.transition).max() < 0.05
    assert abs(found - chain.transition.T).max() > 0.1


def test_chains_of_certain_steps():
    cycle = KnownChain([[0, 1, 0], [0, 0, 1], [1, 0, 0]], initial=[1, 0, 0])
    assert cycle.sample(1, 5, rng()).tolist() == [[0, 1, 2, 0, 1]]
    assert cycle.log_prob([[0, 2]]).tolist() == [-np.inf]
    with pytest.raises(DataQualityError, match="cannot produce"):
        cycle.posterior([[0, 1], [0, 2]])


# S6: quantised series


def test_bins_hold_their_values():
    series = quantised_series(200, 80, rng(3))
    inside = (series.values >= series.edges[0]) & (series.values < series.edges[-1])
    assert inside.mean() > 0.99
    low, high = series.edges[series.bins], series.edges[series.bins + 1]
    assert np.all((low <= series.values)[inside])
    assert np.all((series.values < high)[inside])
    assert set(series.bins[~inside]) <= {0, 31}
    assert len(np.unique(series.bins)) == 32


def test_series_follow_their_recurrence():
    series = quantised_series(4000, 30, rng(4), coefficients=(0.9, -0.5), amplitude=0)
    z = series.values
    for t in (0, 1, 2, 29):  # stationary from the start: 1 / (1 - 0.9 r1 + 0.5 r2)
        r1 = 0.9 / 1.5
        r2 = 0.9 * r1 - 0.5
        assert z[:, t].var() == pytest.approx(1 / (1 - 0.9 * r1 + 0.5 * r2), rel=0.1)
    assert np.corrcoef(z[:, 0], z[:, 1])[0, 1] == pytest.approx(r1, abs=0.05)
    noise = z[:, 2:] - 0.9 * z[:, 1:-1] + 0.5 * z[:, :-2]
    assert noise.var() == pytest.approx(1, rel=0.03)
    assert abs(np.mean(noise[:, 1:] * noise[:, :-1])) < 0.02
    wrong = z[:, 2:] - 0.5 * z[:, 1:-1]
    assert abs(np.mean(wrong[:, 1:] * wrong[:, :-1])) > 0.1


def test_season_has_its_period():
    seasonal = quantised_series(1, 4000, rng(5), amplitude=9.0, period=10.0).values[0]
    spectrum = abs(np.fft.rfft(seasonal))
    assert np.argmax(spectrum[1:]) + 1 == 400


# S8: event histories


def test_event_histories_have_types_habits_and_popular_items():
    events = event_histories(600, rng(6), n_items=8, lengths=(3, 12), habit=0.7)
    lengths = [len(history) for history in events.histories]
    assert min(lengths) == 3
    assert max(lengths) == 12
    assert set(events.types) == {0, 1, 2}
    assert np.all(np.diff(events.popularity) < 0)
    first = np.bincount([h[0] for h in events.histories], minlength=8) / 600
    assert abs(first - events.popularity).max() < 0.08
    for chain in events.chains:
        favourite = chain.transition.argmax(1)
        np.testing.assert_allclose(
            chain.transition.max(1), 0.7 + 0.3 * events.popularity[favourite]
        )
        assert sorted(favourite) == list(range(8))
    # The type that drew a history explains it best, in most cases.
    long = [i for i, history in enumerate(events.histories) if len(history) == 12]
    scores = np.array(
        [
            [chain.log_prob(events.histories[i][None])[0] for chain in events.chains]
            for i in long
        ]
    )
    assert np.mean(scores.argmax(1) == events.types[long]) > 0.9


def test_everything_is_drawn_from_the_generator(no_global_side_effects):
    def draw(seed):
        generator = rng(seed)
        events = event_histories(3, generator, lengths=(20, 20))
        return [
            *associative_recall(2, 5, generator)[:2],
            *phone_book(2, 5, generator)[:2],
            hairpins(2, 5, 3, generator),
            checksum_strings(2, 9, generator, base=7),
            quantised_series(2, 20, generator).bins,
            random_chain(4, generator).sample(2, 20, generator),
            *events.histories,
        ]

    with no_global_side_effects():
        first = draw(0)
    for one, same, other in zip(first, draw(0), draw(1), strict=True):
        assert one.dtype == np.int64
        np.testing.assert_array_equal(one, same)
        assert not np.array_equal(one, other)


# Errors


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: associative_recall(2, 33, rng()), "33 pairs with 32 keys"),
        (lambda: associative_recall(2, 3, rng(), n_queries=4), "4 queries for 3"),
        (lambda: phone_book(2, 3, rng(), n_digits=0), "at least 1"),
        (lambda: hairpins(1, 0, 3, rng()), "'arm': 0"),
        (lambda: hairpins(1, 2, -1, rng()), "loop is -1"),
        (lambda: checksum_strings(1, 0, rng()), "'length': 0"),
        (lambda: quantised_series(1, 9, rng(), coefficients=(0.9, 0.2)), "phi_1"),
        (lambda: event_histories(1, rng(), lengths=(0, 3)), "lengths are"),
        (lambda: random_chain(0, rng()), "n_states is 0"),
        (lambda: KnownChain([[0.5, 0.5]]), "square"),
        (lambda: KnownChain([[0.5, 0.4], [0, 1]]), "whose sum is 1"),
        (lambda: KnownChain([[1.0]], initial=[0.5, 0.5]), "initial has shape"),
        (lambda: KnownChain([[1.0]]).log_prob([[1]]), "from -1"),
        (lambda: KnownChain([[1.0]]).log_prob([[0.0]]), "type float64"),
    ],
)
def test_wrong_arguments_are_told(make, told):
    with pytest.raises(InputError, match=told):
        make()
