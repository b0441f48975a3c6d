"""pandas tables become panels and come back with every label."""

import datetime

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sciseq.data.containers import read_panel
from sciseq.errors import InputError

NAMES = st.sampled_from([None, "when", 7, ("a", "b")])
ONE_TO_FOUR = st.integers(1, 4)
UNITS = st.sampled_from(["s", "ms", "us", "ns"])
FREQUENCIES = ["15min", "h", "D", "B", "W-SUN", "ME", "MS", "QS", "YS"]


def echo(panel):
    """Write a panel as if its own rows were the forecast."""
    columns = range(panel.n_columns)
    return panel.layout.write(panel, panel.values, panel.times, columns)


@st.composite
def indexes(draw, n_rows):
    name, start = draw(NAMES), draw(st.integers(-50, 50))
    dates = pd.date_range(
        "2024-10-20", periods=n_rows, freq=draw(st.sampled_from(FREQUENCIES))
    )
    made = {
        "dates": lambda: dates.as_unit(draw(UNITS)),
        "frequency dropped": lambda: pd.DatetimeIndex(dates.to_numpy()),
        "zone": lambda: pd.date_range(
            "2024-10-26 22:00", periods=n_rows, freq="h", tz="Europe/Berlin"
        ),
        "periods": lambda: pd.period_range("2019-11", periods=n_rows, freq="M"),
        "durations": lambda: pd.timedelta_range("-1h", periods=n_rows, freq="90s"),
        "range": lambda: pd.RangeIndex(start, start + 3 * n_rows, 3),
        "integers": lambda: pd.Index(start + 5 * np.arange(n_rows)),
        "small integers": lambda: pd.Index(np.arange(n_rows, dtype="u1")),
        "floats": lambda: pd.Index(start + 0.1 * np.arange(n_rows)),
        "text": lambda: pd.Index([f"row {row}" for row in range(n_rows)]),
        "mixed": lambda: pd.Index(
            [(row, "x") if row % 2 else row for row in range(n_rows)], dtype=object
        ),
    }
    return made[draw(st.sampled_from(sorted(made)))]().rename(name)


@st.composite
def columns(draw, n_columns):
    made = {
        "text": lambda: pd.Index([f"c{one}" for one in range(n_columns)]),
        "numbers": lambda: pd.Index(np.arange(n_columns)[::-1] / 2),
        "range": lambda: pd.RangeIndex(n_columns),
        "mixed": lambda: pd.Index([0, "a", None, 2.5][:n_columns], dtype=object),
        "dates": lambda: pd.DatetimeIndex(["2024", "2020", "2021", "2022"])[:n_columns],
        "levels": lambda: pd.MultiIndex.from_product(
            [["air", "sea"], [10, 20]], names=["where", "depth"]
        )[:n_columns],
        "categories": lambda: pd.CategoricalIndex(list("dabc")[:n_columns]),
    }
    index = made[draw(st.sampled_from(sorted(made)))]()
    return index if index.nlevels > 1 else index.rename(draw(NAMES))


@st.composite
def frames(draw, n_columns=ONE_TO_FOUR):
    n_rows, n = draw(st.integers(1, 8)), draw(n_columns)
    values = np.random.default_rng(draw(st.integers(0, 9))).normal(size=(n_rows, n))
    values[draw(st.integers(0, n_rows - 1)), 0] = np.nan
    return pd.DataFrame(values, index=draw(indexes(n_rows)), columns=draw(columns(n)))


@given(frames())
def test_a_frame_comes_back(table):
    panel = read_panel(table)
    assert panel.n_series == 1
    pd.testing.assert_frame_equal(echo(panel), table, check_freq=True)


@given(frames(st.just(1)), NAMES)
def test_a_series_comes_back(table, name):
    series = table.iloc[:, 0].rename(name)
    back = echo(read_panel(series))
    pd.testing.assert_series_equal(back, series, check_freq=True)
    # A missing name stays missing, it does not become 0.
    assert back.name is name or back.name == name


@given(frames(), st.data())
def test_targets_pick_columns_in_their_own_order(table, data):
    panel = read_panel(table)
    places = data.draw(st.permutations(range(panel.n_columns)))
    targets = places[: data.draw(st.integers(1, len(places)))]
    chosen = [values[:, targets] for values in panel.values]
    back = panel.layout.write(panel, chosen, panel.times, targets)
    pd.testing.assert_frame_equal(back, table.iloc[:, list(targets)], check_freq=True)


def test_dates_stored_as_objects_become_dates():
    days = [datetime.date(2024, 2, day) for day in (27, 28, 29)]
    stamps = [datetime.datetime(2024, 2, 28, hour) for hour in (0, 1, 2)]
    for labels in (days, stamps):
        index = pd.Index(labels, dtype=object, name="day")
        back = echo(read_panel(pd.DataFrame({"a": [1.0, 2.0, 3.0]}, index=index)))
        assert isinstance(back.index, pd.DatetimeIndex)
        assert back.index.name == "day"
        assert list(back.index) == [pd.Timestamp(label) for label in labels]


@pytest.mark.parametrize(
    "column",
    [
        pd.array([1, None, 3], dtype="Int64"),
        pd.array([1.0, None, 3.0], dtype="Float64"),
        np.array([1, np.nan, 3], dtype="f4"),
        np.array([1, None, 3], dtype=object),
        np.array([1, pd.NA, 3], dtype=object),
        pd.arrays.SparseArray([1.0, np.nan, 3.0]),
    ],
    ids=lambda column: str(column.dtype),
)
def test_every_kind_of_number_and_gap(column):
    table = pd.DataFrame({"a": column, "b": [4, 5, 6]})
    (values,) = read_panel(table).values
    assert values.dtype == np.float64
    np.testing.assert_array_equal(values, [[1, 4], [np.nan, 5], [3, 6]])


def test_reading_leaves_the_table_as_it_was():
    table = pd.DataFrame({"a": [1, 2], "b": [3.0, np.nan]}, index=["x", "y"])
    before = table.copy(deep=True)
    panel = read_panel(table)
    echo(panel)
    pd.testing.assert_frame_equal(table, before)


# Two levels


@st.composite
def interleaved(draw):
    """Series of unequal lengths, their rows shuffled into each other in order."""
    lengths = draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    names = draw(st.permutations(["north", "south", "west", "east"]))[: len(lengths)]
    turns = draw(
        st.permutations(
            [name for name, n in zip(names, lengths, strict=True) for _ in range(n)]
        )
    )
    starts = {name: number for number, name in enumerate(names)}
    times = []
    for name in turns:
        times.append(pd.Timestamp("2024-03-30") + pd.Timedelta(days=starts[name]))
        starts[name] += 1
    index = pd.MultiIndex.from_arrays(
        [turns, pd.DatetimeIndex(times)],
        names=draw(st.sampled_from([["site", "when"], [None, None]])),
    )
    values = np.random.default_rng(0).normal(size=(len(index), 2))
    return pd.DataFrame(values, index=index, columns=["a", "b"])


@given(interleaved())
def test_a_two_level_table_comes_back_series_by_series(table):
    panel = read_panel(table)
    back = echo(panel)
    names = list(dict.fromkeys(table.index.get_level_values(0)))
    assert list(panel.series_ids) == names
    assert back.index.names == table.index.names
    assert back.index.is_monotonic_increasing or len(names) > 1
    for name, values in zip(names, panel.values, strict=True):
        np.testing.assert_array_equal(values, table.loc[name])
        pd.testing.assert_frame_equal(back.loc[name], table.loc[name], check_freq=False)
    column = echo(read_panel(table["a"]))
    pd.testing.assert_series_equal(column, back["a"])
    assert echo(read_panel(table["a"].rename(None))).name is None


def test_cutting_by_lengths_alone_would_mix_series():
    """The wrong version: blocks of rows, as if each series stood in one piece."""
    index = pd.MultiIndex.from_arrays([["n", "s", "n", "s"], [1, 1, 2, 2]])
    table = pd.DataFrame({"a": [1.0, 10.0, 2.0, 20.0]}, index=index)
    right = [values.ravel().tolist() for values in read_panel(table).values]
    wrong = [part.ravel().tolist() for part in np.split(table.to_numpy(), [2])]
    assert right == [[1.0, 2.0], [10.0, 20.0]]
    assert wrong == [[1.0, 10.0], [2.0, 20.0]]


@pytest.mark.parametrize(
    "labels",
    [
        pd.CategoricalIndex(["b", "a"]),
        pd.Index([3, 1]),
        pd.DatetimeIndex(["2024", "2020"], tz="Asia/Tokyo"),
    ],
    ids=["categories", "numbers", "dates"],
)
def test_series_labels_of_any_kind(labels):
    index = pd.MultiIndex.from_product([labels, [0, 1, 2]], names=["id", "row"])
    table = pd.DataFrame({"a": np.arange(6.0)}, index=index)
    pd.testing.assert_frame_equal(
        echo(read_panel(table)), table, check_index_type=False
    )


@pytest.mark.parametrize("is_interleaved", [False, True])
def test_series_with_the_same_times_share_them(is_interleaved):
    hours = pd.date_range("2024", periods=3, freq="h", name="when")
    days = pd.date_range("2024", periods=3, freq="D", name="when")
    pairs = [
        (name, time) for name in "zab" for time in (days if name == "a" else hours)
    ]
    if is_interleaved:
        pairs = [pairs[3 * one + row] for row in range(3) for one in range(3)]
    index = pd.MultiIndex.from_tuples(pairs, names=["site", "when"])
    panel = read_panel(pd.DataFrame({"a": np.arange(9.0)}, index=index))
    first, other, second = panel.times
    assert first is second
    assert first.equals(hours) and other.equals(days)
    first, _, second = panel.rows(-2).times
    assert first is second and len(first) == 2


@pytest.mark.parametrize(
    "kind", ["dates", "zone", "periods", "range", "floats", "text"]
)
def test_shared_times_are_written_as_each_alone_would_be(kind):
    """Levels, codes and classes too: what is cheaper shall not be seen."""
    times = {
        "dates": pd.date_range("2024", periods=3, freq="h"),
        "zone": pd.date_range("2024", periods=3, freq="D", tz="Europe/Berlin"),
        "periods": pd.period_range("2024", periods=3, freq="M"),
        "range": pd.RangeIndex(4, 10, 2),
        "floats": pd.Index([0.5, 1.5, 2.5]),
        "text": pd.Index(["q", "p", "r"]),
    }[kind].rename("when")
    index = pd.MultiIndex.from_product([["z", "b"], times], names=["site", "when"])
    panel = read_panel(pd.DataFrame({"a": np.arange(6.0)}, index=index))
    columns = range(panel.n_columns)
    shared, apart = (
        panel.layout.write(panel, panel.values, one, columns).index
        for one in ((times, times), (times, times.copy()))
    )
    assert shared.identical(apart)
    for one, other in zip(shared.levels, apart.levels, strict=True):
        assert type(one) is type(other)
        assert one.identical(other)
    for one, other in zip(shared.codes, apart.codes, strict=True):
        np.testing.assert_array_equal(one, other)
    # A product of the times as they are would keep what joining them loses.
    plain = pd.MultiIndex.from_product([["z", "b"], times])
    assert (kind in ("dates", "zone", "range")) != (
        type(plain.levels[1]) is type(apart.levels[1])
        and plain.levels[1].identical(apart.levels[1].rename("when"))
    )


@pytest.mark.parametrize(
    "columns",
    [["a", "a"], [1, 1], [np.nan, np.nan], [("a", 1), ("a", 1)], [None, None]],
    ids=str,
)
def test_a_column_name_that_comes_twice_is_refused(columns):
    table = pd.DataFrame(np.zeros((3, 2)), columns=pd.Index(columns))
    with pytest.raises(InputError, match="column names must be unique"):
        read_panel(table)
