"""Arrays, lists and dicts become panels and come back as they were."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sciseq import NaiveForecaster
from sciseq.data.containers import read_panel, read_windows
from sciseq.errors import InputError

FLOATS = st.floats(-1e6, 1e6) | st.just(float("nan"))
TABLES = hnp.arrays(
    np.float64, st.tuples(st.integers(1, 8), st.integers(1, 4)), elements=FLOATS
)


def echo(panel):
    """Write a panel as if its own rows were the forecast."""
    columns = range(panel.n_columns)
    return panel.layout.write(panel, panel.values, panel.times, columns)


# One array


@given(TABLES, st.sampled_from("CF"))
def test_an_array_comes_back(table, order):
    panel = read_panel(np.asarray(table, order=order))
    assert panel.times == (None,)
    assert panel.columns is None
    np.testing.assert_array_equal(echo(panel), table)


@pytest.mark.parametrize("dtype", ["i1", "u2", "i8", "f2", "f4", ">f8", "<f4", "g"])
def test_any_real_type_becomes_native_float64(dtype):
    table = np.arange(6).reshape(3, 2).astype(dtype)
    (values,) = read_panel(table).values
    assert values.dtype == np.dtype("=f8")
    np.testing.assert_array_equal(values, [[0, 1], [2, 3], [4, 5]])


def test_float64_is_read_without_a_copy():
    table = np.arange(6.0).reshape(3, 2)
    assert np.shares_memory(read_panel(table).values[0], table)
    assert not np.shares_memory(read_panel(table.astype("f4")).values[0], table)


@pytest.mark.parametrize("order", ["C", "F"])
def test_bad_15_a_read_only_memory_map(tmp_path, order):
    table = np.random.default_rng(0).normal(size=(30, 3))
    path = tmp_path / "table.dat"
    writable = np.memmap(path, mode="w+", dtype="f8", shape=table.shape, order=order)
    writable[:] = table
    writable.flush()
    before = path.read_bytes()
    mapped = np.memmap(path, mode="r", dtype="f8", shape=table.shape, order=order)
    np.testing.assert_array_equal(echo(read_panel(mapped)), table)
    forecast = NaiveForecaster(horizon=2).fit(mapped).predict()
    np.testing.assert_array_equal(forecast, table[[-1, -1]])
    assert path.read_bytes() == before


def test_what_is_masked_is_missing_and_not_the_fill_value():
    table = np.ma.array([[1.0, 2.0], [3.0, -999.0]], mask=[[0, 0], [0, 1]])
    (values,) = read_panel(table).values
    np.testing.assert_array_equal(values, [[1.0, 2.0], [3.0, np.nan]])
    windows = read_panel(np.ma.stack([table, table])).values
    np.testing.assert_array_equal(windows, [values, values])
    assert np.asarray(table)[1, 1] == -999.0  # what NumPy itself would have read


def test_nested_lists_of_numbers_are_a_table():
    (values,) = read_panel([[1, 2], [3, 4], [5, 6]]).values
    np.testing.assert_array_equal(values, [[1, 2], [3, 4], [5, 6]])


# Windows


@given(
    hnp.arrays(np.float64, hnp.array_shapes(min_dims=3, max_dims=3), elements=FLOATS)
)
def test_windows_come_back(windows):
    panel = read_windows(windows)
    assert panel.is_windows
    assert panel.n_series == len(windows)
    np.testing.assert_array_equal(echo(panel), windows)


# Many series


@given(
    st.integers(1, 3).flatmap(
        lambda n_columns: st.lists(
            hnp.arrays(
                np.float64,
                st.tuples(st.integers(1, 5), st.just(n_columns)),
                elements=FLOATS,
            ),
            min_size=1,
            max_size=4,
        )
    )
)
def test_lists_and_dicts_of_arrays_come_back(tables):
    panel = read_panel(tables)
    assert panel.lengths.tolist() == [len(table) for table in tables]
    for back, table in zip(echo(panel), tables, strict=True):
        np.testing.assert_array_equal(back, table)
    named = {f"site {number}": table for number, table in enumerate(tables)}
    back = echo(read_panel(named))
    assert list(back) == list(named)
    for name, table in named.items():
        np.testing.assert_array_equal(back[name], table)


def frame(n_rows, columns, start="2024-01-01", value=0.0):
    index = pd.date_range(start, periods=n_rows, freq="h", name="when")
    values = value + np.arange(n_rows * len(columns), dtype=float)
    return pd.DataFrame(values.reshape(n_rows, -1), index=index, columns=columns)


def test_a_dict_of_frames_comes_back():
    tables = {"a": frame(3, ["x", "y"]), "b": frame(5, ["x", "y"], "2025-06-01")}
    back = echo(read_panel(tables))
    for name, table in tables.items():
        pd.testing.assert_frame_equal(back[name], table)


def test_a_list_of_series_keeps_their_names():
    tables = [frame(3, ["x"])["x"], frame(4, ["x"], value=7.0)["x"]]
    for back, table in zip(echo(read_panel(tables)), tables, strict=True):
        pd.testing.assert_series_equal(back, table)


def test_columns_of_a_list_are_matched_by_name_not_by_place():
    first, second = frame(3, ["x", "y"]), frame(3, ["y", "x"], value=50.0)
    panel = read_panel([first, second])
    np.testing.assert_array_equal(panel.values[1], second[["x", "y"]])
    assert not np.array_equal(panel.values[1], second)  # by place
    pd.testing.assert_frame_equal(echo(panel)[1], second[["x", "y"]])


def test_a_list_of_tables_with_other_columns_is_refused():
    with pytest.raises(InputError, match="different columns"):
        read_panel([frame(3, ["x"]), frame(3, ["z"])])


# Panels


def test_rows_and_columns_are_cut_in_every_series_alike():
    panel = read_panel([frame(4, ["x", "y"]), frame(6, ["x", "y"], value=100.0)])
    cut = panel.rows(-2).select_columns([1])
    assert cut.columns == ("y",)
    assert [values.ravel().tolist() for values in cut.values] == [[5, 7], [109, 111]]
    assert [index[0].hour for index in cut.times] == [2, 4]
    assert panel.lengths.tolist() == [4, 6]


def test_tables_with_the_same_times_share_them():
    parts = [frame(3, ["x"]), frame(3, ["x"]), frame(3, ["x"], "2025-01-01")]
    parts.append(frame(3, ["x"]).tz_localize("UTC"))
    first, second, later, zoned = read_panel(parts).times
    assert first is second
    assert later is not first and zoned is not first
    assert str(zoned.tz) == "UTC"
    assert read_panel([np.zeros((2, 1)), np.zeros((3, 1))]).times == (None, None)
