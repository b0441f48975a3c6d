"""Windows against NumPy's sliding view; series are never crossed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.lib.stride_tricks import sliding_window_view

from sciseq.data.windows import WindowSet, window_starts

SIZES = st.lists(st.integers(1, 12), min_size=1, max_size=4)
STEPS = st.integers(1, 4)


def labelled(lengths):
    """Series whose values say which series and row they are."""
    return [
        np.stack([np.full(n, float(series)), np.arange(float(n))], axis=1)
        for series, n in enumerate(lengths)
    ]


@given(SIZES, STEPS, STEPS, STEPS)
def test_same_as_the_sliding_view_of_each_series(lengths, L, H, stride):
    series = labelled(lengths)
    marks = [np.float32(100 + values[:, 1:]) for values in series]
    windows = WindowSet.over(series, L, H, marks=marks, stride=stride)
    views = [
        # (n, C, L + H) -> (n, L + H, C)
        sliding_window_view(values, L + H, axis=0).swapaxes(1, 2)[::stride]
        for values in series
        if len(values) >= L + H
    ]
    whole = np.concatenate([np.empty((0, L + H, 2)), *views])
    every = slice(None)
    assert len(windows) == len(whole)
    np.testing.assert_array_equal(windows.inputs(every).values, whole[:, :L])
    np.testing.assert_array_equal(windows.targets(every), whole[:, L:])
    np.testing.assert_array_equal(windows.inputs(every).marks, 100 + whole[:, :L, 1:])
    if stride == 1:
        counts = np.maximum(0, np.array(lengths) - L - H + 1)
        assert len(windows) == counts.sum()


def crossings(windows):
    """Number of windows that hold rows of more than one series."""
    rows = np.concatenate(
        [windows.inputs(slice(None)).values, windows.targets(slice(None))], axis=1
    )
    return int((np.ptp(rows[:, :, 0], axis=1) > 0).sum())


@given(SIZES, STEPS, STEPS)
def test_no_window_crosses_from_one_series_into_the_next(lengths, L, H):
    windows = WindowSet.over(labelled(lengths), L, H)
    assert crossings(windows) == 0
    steps = np.diff(windows.inputs(slice(None)).values[:, :, 1], axis=1)
    assert (steps == 1).all()


def test_windows_over_the_joined_table_would_cross():
    lengths, L, H = [6, 5], 3, 1
    right = WindowSet.over(labelled(lengths), L, H)
    wrong = WindowSet.over([np.concatenate(labelled(lengths))], L, H)
    assert (crossings(right), crossings(wrong)) == (0, 3)


def test_chunks_cover_every_window_once():
    windows = WindowSet.over([np.arange(20.0)[:, None]], 3, 2)
    for size in (1, 4, 16, 100):
        chunks = list(windows.chunks(size))
        joined = np.concatenate([windows.inputs(chunk).values for chunk in chunks])
        np.testing.assert_array_equal(joined, windows.inputs(slice(None)).values)
        assert all(chunk.stop - chunk.start == size for chunk in chunks[:-1])


@given(st.integers(2, 60), st.integers(2, 20))
def test_evenly_spread_windows_reach_both_ends(n_rows, count):
    windows = WindowSet.over([np.zeros((n_rows, 1))], 1, 1)
    few = windows.evenly(count)
    assert len(few) == min(count, len(windows))
    assert (few.starts[0], few.starts[-1]) == (0, n_rows - 2)
    steps = np.diff(few.starts)
    assert len(steps) == 0 or steps.max() - steps.min() <= 1
    assert (steps > 0).all()


def test_windows_are_gathered_and_never_copied_beforehand():
    values = np.random.default_rng(0).normal(size=(5000, 3))
    windows = WindowSet.over([values], 500, 100)
    assert np.shares_memory(windows.values, values)
    assert windows.starts.nbytes < values.nbytes


@pytest.mark.parametrize("lengths", [[3], [3, 3, 3]])
def test_series_shorter_than_a_window_have_none(lengths):
    assert window_starts(lengths, 3, 1).tolist() == []
    assert window_starts(lengths, 2, 1).tolist() == [
        3 * one for one in range(len(lengths))
    ]


def test_what_is_known_ahead_stands_at_the_rows_of_the_horizon():
    series = labelled([9, 6])
    ahead = [np.full((len(one), 1), number, "f4") for number, one in enumerate(series)]
    windows = WindowSet.over(series, 3, 2, known_columns=[1], future_marks=ahead)
    inputs = windows.inputs(slice(None))
    np.testing.assert_array_equal(
        inputs.known[..., 0], windows.targets(slice(None))[..., 1]
    )
    np.testing.assert_array_equal(inputs.known[:, 0, 1], inputs.series)
    assert WindowSet.over(series, 3, 2).inputs(slice(None)).known is None


@given(SIZES, STEPS, STEPS)
def test_windows_know_their_series(lengths, L, H):
    windows = WindowSet.over(labelled(lengths), L, H)
    inputs = windows.inputs(slice(None))
    np.testing.assert_array_equal(inputs.series, inputs.values[:, 0, 0])


def test_weights_are_those_of_the_truths():
    series = labelled([7, 5])
    weights = [one[:, 1] for one in series]
    windows = WindowSet.over(series, 3, 2, weights=weights)
    np.testing.assert_array_equal(
        windows.target_weights(slice(None)), windows.targets(slice(None))[..., 1]
    )
    assert WindowSet.over(series, 3, 2).target_weights(slice(None)) is None


def test_inputs_of_some_windows_are_some_of_the_inputs():
    windows = WindowSet.over(labelled([9]), 3, 2, known_columns=[0])
    some = np.array([3, 0])
    chosen, direct = windows.inputs(slice(None)).take(some), windows.inputs(some)
    for name in ("values", "known", "series"):
        np.testing.assert_array_equal(getattr(chosen, name), getattr(direct, name))
    assert chosen.marks is None and len(chosen) == 2
