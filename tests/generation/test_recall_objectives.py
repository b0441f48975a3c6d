"""Rows of the recall objectives: what is asked, what is hidden, where loss stands."""

import re
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sciseq.errors import InputError
from sciseq.generation.parts.recall_objectives import (
    OBJECTIVES,
    ObjectiveConfiguration,
    RecallVocabulary,
    build_row,
    default_configurations,
)
from sciseq.generation.parts.recall_rows import (
    RecallRow,
    collate_rows,
    pack_rows,
)
from sciseq.generation.parts.recall_spans import (
    count_readings,
    draw_delimited_spans,
    hide_spans,
)

WORDS = RecallVocabulary(20)
SEEDS = st.integers(0, 2**32 - 1)
LAYOUT = {"begin": WORDS.begin, "padding": WORDS.padding}


def draw(seed, n_symbols=40, size=20):
    return np.random.default_rng(seed).integers(size, size=n_symbols)


def row_of(objective, symbols, seed, **options):
    """Inputs and labels as lists, without the paradigm token and DONE."""
    configuration = ObjectiveConfiguration(objective, **options)
    row = build_row(configuration, symbols, WORDS, np.random.default_rng(seed))
    inputs, labels = row.inputs.tolist(), row.labels.tolist()
    paradigm = WORDS.paradigm(objective)
    assert paradigm in (inputs[0], inputs[-1])
    inputs.remove(paradigm)
    assert labels.pop() == WORDS.done
    assert not {WORDS.begin, WORDS.done, WORDS.padding} & {*inputs, *labels}
    return inputs, labels


def cut(tokens, mark):
    """Parts of a list between marks."""
    parts = [[]]
    for token in tokens:
        if token == mark:
            parts.append([])
        else:
            parts[-1].append(token)
    return parts


def readings(context, left, right):
    """Every span between the delimiters, found by looking everywhere."""
    return [
        context[i:j]
        for i in range(len(left), len(context))
        for j in range(i + 1, len(context) - len(right) + 1)
        if context[i - len(left) : i] == left and context[j : j + len(right)] == right
    ]


# What each objective asks


@given(SEEDS, st.integers(2, 60))
@settings(max_examples=30)
def test_language_modelling_splits_the_sequence(seed, n_symbols):
    symbols = draw(seed, n_symbols)
    assert row_of("next_token", symbols, seed) == ([], symbols.tolist())
    inputs, labels = row_of("prefix_lm", symbols, seed)
    assert inputs + labels == symbols.tolist()
    assert inputs
    assert labels


@given(SEEDS, st.integers(2, 60), st.floats(0.01, 1), st.integers(1, 9))
@settings(max_examples=40)
def test_infilling_labels_fill_the_holes(seed, n_symbols, rate, mean_span):
    symbols = draw(seed, n_symbols)
    inputs, labels = row_of("infilling", symbols, seed, rate=rate, mean_span=mean_span)
    visible, hidden = cut(inputs, WORDS.mask), cut(labels, WORDS.separator)
    assert len(visible) == len(hidden) + 1
    filled = [symbol for pair in zip(visible, hidden, strict=False) for symbol in pair]
    assert [one for part in (*filled, visible[-1]) for one in part] == symbols.tolist()
    assert all(hidden)
    assert all(visible[1:-1])
    n_hidden = sum(map(len, hidden))
    assert n_hidden == min(max(round(rate * n_symbols), 1), n_symbols - 1)
    assert len(hidden) <= max(round(n_hidden / mean_span), 1)


def test_hidden_spans_have_their_mean_length_and_may_stand_anywhere():
    generator, symbols = np.random.default_rng(0), np.arange(60)
    places = np.zeros(60)
    for _ in range(400):
        _, hidden = hide_spans(symbols, 0.5, 3, generator)
        assert len(hidden) == 10
        places[np.concatenate(hidden)] += 1
    assert places.sum() == 400 * 30
    assert places.min() > 400 * 0.5 * 0.6  # every place, the ends too
    assert places.max() < 400 * 0.5 * 1.4


@given(SEEDS, st.integers(2, 60), st.sampled_from([0.15, 0.85]))
@settings(max_examples=30)
def test_autoencoding_asks_for_everything(seed, n_symbols, rate):
    symbols = draw(seed, n_symbols)
    options = {"rate": rate, "mean_span": 3}
    inputs, labels = row_of("autoencoding", symbols, seed, **options)
    assert labels == symbols.tolist()
    pattern = "".join(".+" if one == WORDS.mask else chr(65 + one) for one in inputs)
    assert re.fullmatch(pattern, "".join(chr(65 + one) for one in labels))
    # Shuffled, the same symbols are visible: the spans are drawn first.
    shuffled, labels = row_of(
        "autoencoding", symbols, seed, is_shuffled=True, **options
    )
    assert labels == symbols.tolist()
    assert sorted(shuffled) == sorted(inputs)
    if len(set(inputs)) > 12:
        assert shuffled != inputs


@given(SEEDS, st.integers(2, 60))
@settings(max_examples=30)
def test_copying_repeats_a_part(seed, n_symbols):
    symbols = draw(seed, n_symbols)
    inputs, labels = row_of("copying", symbols, seed, lengths=(4, 16))
    assert inputs == labels
    assert min(4, n_symbols) <= len(labels) <= min(16, n_symbols)
    windows = np.lib.stride_tricks.sliding_window_view(symbols, len(labels))
    assert labels in windows.tolist()


@given(SEEDS, st.integers(2, 60), st.sampled_from([0.5, 1.0]))
@settings(max_examples=30)
def test_deshuffling_restores_the_order(seed, n_symbols, rate):
    symbols = draw(seed, n_symbols)
    inputs, labels = row_of("deshuffling", symbols, seed, rate=rate)
    assert labels == symbols.tolist()
    assert sorted(inputs) == sorted(labels)
    n_moved = np.sum(np.array(inputs) != symbols)
    assert n_moved <= np.ceil(rate * n_symbols)
    if n_symbols > 20:
        assert n_moved > rate * n_symbols / 2


@given(SEEDS, st.integers(1, 4), st.booleans())
@settings(max_examples=40)
def test_selective_copy_is_what_stands_between_its_delimiters(seed, n_spans, first):
    symbols = draw(seed, 60)
    inputs, labels = row_of(
        "selective_copying",
        symbols,
        seed,
        n_spans=n_spans,
        lengths=(2, 8),
        delimiters=(1, 3),
        query_first=first,
    )
    parts, spans = cut(inputs, WORDS.separator), cut(labels, WORDS.separator)
    context = parts.pop(-1 if first else 0)
    assert context == symbols.tolist()
    assert len(parts) == len(spans) == n_spans
    for request, span in zip(parts, spans, strict=True):
        left, right = cut(request, WORDS.mask)
        assert 1 <= len(left) <= 3
        assert 1 <= len(right) <= 3
        assert 2 <= len(span) <= 8
        assert readings(context, left, right) == [span]


@given(SEEDS)
@settings(max_examples=30)
def test_ambiguous_delimiters_are_rejected(seed):
    # With three symbols most delimiters of one or two occur several times.
    generator, symbols = np.random.default_rng(seed), draw(seed, 24, size=3)
    spans = draw_delimited_spans(symbols, 3, (1, 5), (3, 4), generator)
    for span in spans:
        left, right = (part.tolist() for part in span.delimiters(symbols))
        found = symbols[span.first : span.stop].tolist()
        assert readings(symbols.tolist(), left, right) == [found]
    places = [one for span in spans for one in range(span.first, span.stop)]
    assert len(places) == len(set(places))
    # Wrong: taking any span, as long as it is in the context.
    counts = []
    for stop in range(5, 23):
        left, right = symbols[stop - 4 : stop - 3], symbols[stop : stop + 1]
        counts.append(count_readings(symbols, left, right))
        expected = readings(symbols.tolist(), left.tolist(), right.tolist())
        assert counts[-1] == len(expected)
    assert max(counts) > 1


def test_a_sequence_without_clear_delimiters_is_an_error():
    with pytest.raises(InputError, match="no span of 20 symbols"):
        row_of("selective_copying", [1] * 20, 0, lengths=(2, 4))
    with pytest.raises(InputError, match="no span of 2 symbols"):
        row_of("selective_copying", [1, 2], 0)


# Rows


def test_paradigm_token_stands_at_either_end():
    symbols, generator = draw(0), np.random.default_rng(1)
    configuration = ObjectiveConfiguration("prefix_lm")
    rows = [build_row(configuration, symbols, WORDS, generator) for _ in range(400)]
    at_front = sum(row.inputs[0] == WORDS.paradigm("prefix_lm") for row in rows)
    assert 160 < at_front < 240  # 200, standard deviation 10


def test_ids_do_not_collide():
    ids = [
        *range(20),
        WORDS.begin,
        WORDS.done,
        WORDS.separator,
        WORDS.mask,
        WORDS.padding,
        *map(WORDS.paradigm, OBJECTIVES),
    ]
    assert sorted(ids) == list(range(WORDS.size))


def test_default_configurations_cover_all_objectives_and_stay_short(
    no_global_side_effects,
):
    configurations = default_configurations()
    assert {one.objective for one in configurations} == set(OBJECTIVES)
    assert len(set(configurations)) == len(configurations)
    symbols = draw(2, 128)
    with no_global_side_effects():
        rows = [
            build_row(one, symbols, WORDS, np.random.default_rng(3))
            for one in configurations
        ]
    again = build_row(configurations[4], symbols, WORDS, np.random.default_rng(3))
    assert again.inputs.tolist() == rows[4].inputs.tolist()
    assert again.labels.tolist() == rows[4].labels.tolist()
    assert all(row.inputs.dtype == row.labels.dtype == np.int64 for row in rows)
    assert max(row.n_tokens for row in rows) == 128 + 1 + 128 + 1


def rows_for_layout(seed):
    generator = np.random.default_rng(seed)
    configurations = default_configurations()
    chosen = generator.choice(len(configurations), 5)
    return [
        build_row(configurations[i], draw(seed, 30), WORDS, generator) for i in chosen
    ]


def check_layout(batch, rows):
    """Every sample stands where it should, and loss only from BEGIN on."""
    found = []
    for i in range(len(batch.tokens)):
        places = batch.sample[i]
        assert np.all(batch.tokens[i][places < 0] == WORDS.padding)
        assert not batch.is_scored[i][places < 0].any()
        for number in range(places.max() + 1):
            is_here = places == number
            tokens = batch.tokens[i][is_here].tolist()
            n_inputs = tokens.index(WORDS.begin)
            in_prefix = np.arange(len(tokens)) < n_inputs
            np.testing.assert_array_equal(batch.in_prefix[i][is_here], in_prefix)
            np.testing.assert_array_equal(batch.is_scored[i][is_here], ~in_prefix)
            targets = batch.targets[i][is_here]
            assert np.all(targets[in_prefix] == WORDS.padding)
            labels = targets[~in_prefix].tolist()
            assert tokens[n_inputs + 1 :] == labels[:-1]  # aligned with the next label
            found.append((tokens[:n_inputs], labels))
    assert sorted(found) == sorted((r.inputs.tolist(), r.labels.tolist()) for r in rows)


@given(SEEDS)
@settings(max_examples=20)
def test_loss_stands_on_the_labels_only(seed):
    rows = rows_for_layout(seed)
    batch = collate_rows(rows, **LAYOUT)
    check_layout(batch, rows)
    assert batch.tokens.shape == (5, max(row.n_tokens for row in rows))
    packed = pack_rows(rows, n_tokens=100, **LAYOUT)
    check_layout(packed, rows)
    assert len(packed.tokens) <= 5


def test_wrong_layouts_are_seen():
    rows = rows_for_layout(0)
    batch = collate_rows(rows, **LAYOUT)
    with pytest.raises(AssertionError):  # loss on the prefix
        check_layout(batch._replace(is_scored=batch.sample >= 0), rows)
    with pytest.raises(AssertionError):  # targets that stand one place late
        check_layout(batch._replace(targets=np.roll(batch.targets, 1, axis=1)), rows)
    with pytest.raises(AssertionError):  # a causal area that starts behind BEGIN
        begins = batch.tokens == WORDS.begin
        check_layout(batch._replace(in_prefix=batch.in_prefix | begins), rows)


def test_packing_fills_rows_and_keeps_samples_whole():
    rows = [RecallRow(np.full(n, 3), np.array([1, 2])) for n in (6, 5, 1, 0)]
    packed = pack_rows(rows, n_tokens=10, **LAYOUT)
    lengths = [[int(np.sum(row == i)) for i in range(2)] for row in packed.sample]
    assert lengths == [[8, 2], [7, 3]]
    for row in packed.sample:  # one after the other
        assert all(a <= b for a, b in pairwise(row[row >= 0]))


# Errors


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: ObjectiveConfiguration("copyng"), "Did you mean 'copying'"),
        (lambda: ObjectiveConfiguration("infilling", rate=0.0), "rate must be in"),
        (lambda: ObjectiveConfiguration("copying", lengths=(4, 2)), "ranges from"),
        (lambda: RecallVocabulary(0), "n_symbols is 0"),
        (lambda: row_of("copying", [3], 0), "at least two symbols"),
        (lambda: row_of("copying", [3, 20], 0), "from 0 to 19"),
        (lambda: collate_rows([], **LAYOUT), "at least one row"),
        (
            lambda: collate_rows(
                [RecallRow(np.arange(3), np.arange(3))], n_tokens=5, **LAYOUT
            ),
            "n_tokens=5",
        ),
        (
            lambda: collate_rows([RecallRow(np.arange(3), np.arange(0))], **LAYOUT),
            "labels in each",
        ),
    ],
)
def test_wrong_arguments_are_told(make, told):
    with pytest.raises(InputError, match=told):
        make()
