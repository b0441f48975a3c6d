"""Missing values under each stated choice."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sciseq.data.containers import read_panel
from sciseq.data.missing import apply_missing_choice, forward_fill
from sciseq.errors import DataQualityError

CELLS = st.floats(-1e6, 1e6) | st.just(float("nan"))
TABLES = hnp.arrays(np.float64, (7, 3), elements=CELLS)
BLOCKS = hnp.arrays(np.float64, (2, 6, 3), elements=CELLS)


@given(TABLES)
def test_interpolation_is_that_of_pandas(table):
    table[3] = 1.0  # a column without any value is refused
    (filled,) = apply_missing_choice(read_panel(table), "interpolate").values
    expected = pd.DataFrame(table).interpolate(limit_direction="both")
    np.testing.assert_allclose(filled, expected, rtol=1e-12, atol=1e-9)
    known = ~np.isnan(table)
    assert (filled[known] == table[known]).all()


def test_each_series_is_interpolated_from_its_own_rows():
    tables = [np.array([[1.0], [np.nan]]), np.array([[np.nan], [9.0]])]
    first, second = apply_missing_choice(read_panel(tables), "interpolate").values
    assert (first.ravel().tolist(), second.ravel().tolist()) == ([1, 1], [9, 9])
    joined = np.interp([1, 2], [0, 3], [1.0, 9.0])  # across the border
    assert joined.tolist() != [1, 9]


def test_interpolation_leaves_the_table_of_the_caller_alone():
    table = np.array([[1.0], [np.nan], [3.0]])
    apply_missing_choice(read_panel(table), "interpolate")
    assert np.isnan(table[1, 0])


@given(TABLES)
def test_masked_values_stay_missing(table):
    table[0] = 0.0
    panel = read_panel(table)
    np.testing.assert_array_equal(apply_missing_choice(panel, "mask").values[0], table)


@given(TABLES)
def test_errors_are_the_default_and_whole_tables_pass(table):
    panel = read_panel(table)
    if np.isnan(table).any():
        with pytest.raises(DataQualityError, match=f"{np.isnan(table).sum()} missing"):
            apply_missing_choice(panel, "error")
    else:
        assert apply_missing_choice(panel, "error") is panel


@pytest.mark.parametrize("missing", ["error", "mask", "interpolate"])
@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_infinity_is_never_accepted(missing, value):
    table = np.array([[1.0, 2.0], [np.nan, value], [3.0, 4.0]])
    with pytest.raises(DataQualityError, match="infinity"):
        apply_missing_choice(read_panel(table), missing)
    # Opposite infinities, whose sum is NaN, are found as well.
    with pytest.raises(DataQualityError, match="infinity"):
        apply_missing_choice(read_panel([[np.inf, -np.inf]]), missing)


@pytest.mark.parametrize("missing", ["mask", "interpolate"])
def test_bad_03_a_column_of_a_series_without_any_value(missing):
    tables = [np.ones((2, 2)), np.array([[1.0, np.nan], [1.0, np.nan]])]
    with pytest.raises(DataQualityError, match="NaN throughout") as caught:
        apply_missing_choice(read_panel(tables), missing)
    assert caught.value.where == "series 1, column 1"


@given(BLOCKS)
def test_forward_fill_is_that_of_pandas(windows):
    expected = [pd.DataFrame(window).ffill().to_numpy() for window in windows]
    np.testing.assert_array_equal(forward_fill(windows), expected)
