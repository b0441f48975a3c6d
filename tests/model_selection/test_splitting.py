"""RollingOriginSplit: what is learnt from, what is looked back on, what is scored."""

import copy
import pickle

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import BaseEstimator, clone
from sklearn.model_selection import TimeSeriesSplit, check_cv, cross_val_score

from sciseq.errors import DataQualityError, InputError, InputTypeError
from sciseq.model_selection import RollingOriginSplit


def folds(X, **arguments):
    return list(RollingOriginSplit(**arguments).split(X))


# --- One table -----------------------------------------------------------------------


@st.composite
def valid_cuts(draw):
    arguments = {
        "n_splits": draw(st.integers(1, 6)),
        "test_size": draw(st.integers(1, 7)),
        "context": draw(st.integers(0, 9)),
        "gap": draw(st.integers(0, 4)),
        "window": draw(st.sampled_from(["expanding", "sliding"])),
    }
    if arguments["window"] == "sliding":
        arguments["train_size"] = draw(st.none() | st.integers(1, 8))
    before = max(
        arguments["context"], arguments["gap"] + (arguments.get("train_size") or 1)
    )
    least = before + arguments["n_splits"] * arguments["test_size"]
    return arguments, least, least + draw(st.integers(0, 10))


@settings(deadline=None, max_examples=200)
@given(valid_cuts())
def test_folds_of_one_table(cut) -> None:
    arguments, _, n_rows = cut
    size, context, gap = (arguments[name] for name in ("test_size", "context", "gap"))
    scored = []
    train_sizes = []
    for train, test in folds(np.zeros((n_rows, 1)), **arguments):
        assert test.tolist() == list(range(test[0], test[0] + context + size))
        first = test[context]
        # The first row to score is the first after the training rows and the gap.
        assert train[-1] == first - gap - 1
        assert train.tolist() == list(range(train[0], train[-1] + 1))
        scored.append(test[context:])
        train_sizes.append(len(train))
        if arguments["window"] == "expanding":
            assert train[0] == 0
    # Scored rows are disjoint, follow each other, and end where the table ends.
    n_scored = arguments["n_splits"] * size
    assert np.concatenate(scored).tolist() == list(range(n_rows - n_scored, n_rows))
    if arguments["window"] == "sliding":
        expected = arguments["train_size"] or n_rows - n_scored - gap
        assert set(train_sizes) == {expected}


@settings(deadline=None, max_examples=50)
@given(valid_cuts())
def test_the_least_number_of_rows_is_enough_and_one_less_is_not(cut) -> None:
    arguments, least, _ = cut
    assert len(folds(np.zeros((least, 1)), **arguments)) == arguments["n_splits"]
    with pytest.raises(InputError, match=f"{least} are needed"):
        # Refused by split itself, not only when the first fold is asked for.
        RollingOriginSplit(**arguments).split(np.zeros((least - 1, 1)))


def test_all_kinds_of_table_give_the_same_folds(hourly_frame) -> None:
    arguments = {"n_splits": 3, "test_size": 5, "context": 10, "gap": 2}
    array = hourly_frame.to_numpy()
    expected = folds(array, **arguments)
    data_array = xr.DataArray(array, dims=["time", "place"])
    for X in (hourly_frame, hourly_frame.iloc[:, 0], data_array, array.tolist()):
        for (train, test), (train_0, test_0) in zip(
            folds(X, **arguments), expected, strict=True
        ):
            np.testing.assert_array_equal(train, train_0)
            np.testing.assert_array_equal(test, test_0)


def test_ready_made_windows_are_cut_as_windows_and_bring_their_own_context() -> None:
    windows = np.zeros((20, 8, 2))
    (train, test), _ = folds(windows, n_splits=2, test_size=3, context=8, gap=4)
    np.testing.assert_array_equal(train, np.arange(10))
    np.testing.assert_array_equal(test, [14, 15, 16])


# --- Panels --------------------------------------------------------------------------


def times_of(panel, rows):
    return panel.index.get_level_values(1)[rows]


class TimeSpy(BaseEstimator):
    """Records the last time that was learnt from, and the first that is scored."""

    seen: list = []  # noqa: RUF012 - shared by the clones on purpose

    def __init__(self, context=0):
        self.context = context

    def fit(self, X, y=None):
        self.last_ = X.index.get_level_values(1).max()
        return self

    def score(self, X, y=None):
        first = min(
            one.index.get_level_values(1)[self.context]
            for _, one in X.groupby(level=0)
            if len(one) > self.context
        )
        TimeSpy.seen.append((self.last_, first))
        return 0.0


def test_a_panel_is_cut_in_time_where_a_split_by_rows_leaks(panel) -> None:
    complete = panel.loc[["north", "west"]]
    complete = complete[times_of(complete, slice(None)) < pd.Timestamp("2026-01-11")]

    def leaks(splitter, context):
        TimeSpy.seen.clear()
        cross_val_score(TimeSpy(context), complete, cv=splitter)
        assert len(TimeSpy.seen) == 3
        return [last >= first for last, first in TimeSpy.seen]

    ours = RollingOriginSplit(n_splits=3, test_size=12, context=24)
    assert leaks(ours, 24) == [False, False, False]
    # Rows of the second series begin again at its start, long before the first ends.
    assert any(leaks(TimeSeriesSplit(n_splits=3), 0))


@pytest.mark.parametrize("order", ["by series", "by time", "shuffled series"])
def test_panel_rows_may_be_interleaved(panel, order) -> None:
    if order == "by time":
        panel = panel.sort_index(level=1, kind="stable")
    elif order == "shuffled series":
        panel = panel.loc[["west", "north", "south"]]
    panel = panel[times_of(panel, slice(None)) < pd.Timestamp("2026-01-11")]
    axis = times_of(panel, slice(None)).unique().sort_values()
    arguments = {"n_splits": 4, "test_size": 6, "context": 20, "gap": 3}
    for fold, (train, test) in enumerate(folds(panel, **arguments)):
        first = axis[len(axis) - (4 - fold) * 6]
        assert times_of(panel, train).max() == first - pd.Timedelta("4h")
        assert (np.diff(train) > 0).all() and (np.diff(test) > 0).all()
        part = panel.iloc[test]
        # Row `context` of every series is the first time to score.
        for _, one in part.groupby(level=0):
            assert len(one) == 26
            assert one.index[20][1] == first
        assert set(part.index.get_level_values(0)) == {"north", "south", "west"}
        assert set(panel.index.get_level_values(0)[train]) == {"north", "south", "west"}


def test_series_take_part_where_they_have_rows(panel) -> None:
    # South runs from hour 24 to 144, north to 160, west to 200.
    (_, test), *_, (train, last) = folds(panel, n_splits=6, test_size=10, context=20)
    assert set(panel.index.get_level_values(0)[test]) == {"north", "west"}
    assert set(panel.index.get_level_values(0)[last]) == {"west"}
    assert set(panel.index.get_level_values(0)[train]) == {"north", "south", "west"}


def test_a_series_that_has_just_begun_is_not_learnt_from() -> None:
    young = pd.DataFrame({"x": np.arange(30.0)}, index=range(30))
    old = pd.DataFrame({"x": np.arange(40.0)}, index=range(-10, 30))
    panel = pd.concat({"old": old, "young": young})
    parts = folds(panel, n_splits=3, test_size=5, context=12)
    # 17 rows are needed; it has 15, 20 and 25 of them before the folds.
    learnt = [set(panel.index.get_level_values(0)[train]) for train, _ in parts]
    assert learnt == [{"old"}, {"old", "young"}, {"old", "young"}]


def test_a_panel_of_one_series_is_cut_like_a_table(hourly_frame) -> None:
    panel = pd.concat({"only": hourly_frame})
    for arguments in (
        {"test_size": 30, "context": 24},
        {"test_size": 30, "context": 4, "window": "sliding", "train_size": 5},
    ):
        for ours, table in zip(
            folds(panel, **arguments), folds(hourly_frame, **arguments), strict=True
        ):
            np.testing.assert_array_equal(ours[0], table[0])
            np.testing.assert_array_equal(ours[1], table[1])


# --- Refusals ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_splits": 0}, "n_splits=0"),
        ({"test_size": 0}, "test_size=0"),
        ({"test_size": 2.0}, r"test_size=2\.0"),
        ({"context": -1}, "context=-1"),
        ({"gap": -1}, "gap=-1"),
        ({"window": "slide"}, "Did you mean 'sliding'"),
        ({"train_size": 5}, "needs window='sliding'"),
    ],
)
def test_wrong_arguments(arguments, message) -> None:
    with pytest.raises(InputError, match=message) as caught:
        RollingOriginSplit(**{"test_size": 2, "context": 3} | arguments)
    assert "RollingOriginSplit" in str(caught.value)
    assert "set_params" not in str(caught.value)


@pytest.mark.parametrize("many", [list, dict], ids=["list", "dict"])
def test_lists_and_dicts_of_series_are_refused_with_the_way_out(many) -> None:
    series = [np.zeros((30, 1)), np.zeros((40, 1))]
    X = series if many is list else dict(enumerate(series))
    with pytest.raises(InputTypeError, match=r"pandas\.concat") as caught:
        folds(X, test_size=2, context=2)
    assert many.__name__ in str(caught.value)


def test_time_must_be_the_first_dimension() -> None:
    array = xr.DataArray(np.zeros((3, 40)), dims=["place", "time"])
    with pytest.raises(InputTypeError, match="transpose"):
        folds(array, test_size=2, context=2)
    with pytest.raises(InputTypeError, match="Dataset"):
        folds(array.to_dataset(dim="place"), test_size=2, context=2)
    assert len(folds(array.transpose("time", "place"), test_size=2, context=2)) == 5


def test_panel_times_that_do_not_sort_are_refused() -> None:
    labels = [f"day {number}" for number in range(12)]  # "day 10" sorts before "day 2"
    one = pd.DataFrame({"x": np.arange(12.0)}, index=labels)
    panel = pd.concat({"a": one, "b": one})
    with pytest.raises(DataQualityError, match="day 9 is followed by day 10"):
        folds(panel, n_splits=1, test_size=2, context=2)


def test_panel_rows_that_repeat_or_lack_labels_are_refused(panel) -> None:
    arguments = {"n_splits": 1, "test_size": 2, "context": 2}
    with pytest.raises(DataQualityError, match="repeat a time"):
        folds(pd.concat([panel, panel.iloc[[-1]]]), **arguments)
    late = panel.reset_index()
    for level, message in (("time", "1 rows have no time"), ("series", "no series")):
        broken = late.copy()
        broken.loc[7, level] = None
        with pytest.raises(DataQualityError, match=message):
            folds(broken.set_index(["series", "time"]), **arguments)


def test_three_levels_and_empty_folds_are_refused(panel) -> None:
    deep = pd.concat({"site": panel})
    with pytest.raises(InputError, match="3 levels"):
        folds(deep, test_size=2, context=2)
    for spans, message in (
        ([(0, 10), (10, 20), (20, 30)], "training part of fold 0 .* 13 rows"),
        ([(0, 20), (20, 30)], "test part of fold 0 .* 13 rows"),
    ):
        short = pd.concat(
            {
                number: pd.DataFrame({"x": 0.0}, index=range(*span))
                for number, span in enumerate(spans)
            }
        )
        with pytest.raises(InputError, match=message):
            folds(short, n_splits=1, test_size=5, context=8)


# --- Conduct -------------------------------------------------------------------------


def test_conduct_in_scikit_learn() -> None:
    splitter = RollingOriginSplit(3, test_size=2, context=4, gap=1)
    assert splitter.get_n_splits() == splitter.get_n_splits(np.zeros((9, 1))) == 3
    assert check_cv(splitter) is splitter
    expected = (
        "RollingOriginSplit(context=4, gap=1, n_splits=3, test_size=2, "
        "train_size=None,\n          window='expanding')"
    )
    assert repr(splitter) == expected
    X = np.zeros((20, 1))
    for other in (
        clone(splitter, safe=False),
        copy.deepcopy(splitter),
        pickle.loads(pickle.dumps(splitter)),
    ):
        assert other is not splitter
        assert repr(other) == repr(splitter)
        assert [test.tolist() for _, test in other.split(X)] == [
            test.tolist() for _, test in splitter.split(X)
        ]
