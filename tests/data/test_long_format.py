"""The long format and back."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sciseq import NaiveForecaster
from sciseq.data import from_long, to_long
from sciseq.errors import InputError


@st.composite
def long_tables(draw):
    lengths = draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    parts = [
        pd.DataFrame(
            {
                "unique_id": f"site {number}",
                "ds": pd.date_range("2024-03-30", periods=n, freq="D")
                + pd.Timedelta(days=number),
                "y": np.arange(float(n)) + 10 * number,
                "wind": -np.arange(float(n)),
            }
        )
        for number, n in enumerate(lengths)
    ]
    table = pd.concat(parts, ignore_index=True)
    return table, table.iloc[draw(st.permutations(range(len(table))))]


@given(long_tables())
def test_there_and_back_from_rows_in_any_order(tables):
    ordered, shuffled = tables
    wide = from_long(shuffled)
    assert wide.index.names == ["unique_id", "ds"]
    pd.testing.assert_frame_equal(to_long(wide), ordered)
    pd.testing.assert_frame_equal(from_long(to_long(wide)), wide)


def test_own_names_and_one_value():
    table = pd.DataFrame(
        {"id": ["b", "a"], "t": [1, 1], "x": [1.0, 2.0], "z": [3.0, 4.0]}
    )
    wide = from_long(table, series="id", time="t", value="x")
    assert wide.columns.tolist() == ["x"]
    assert wide["x"].to_dict() == {("a", 1): 2.0, ("b", 1): 1.0}
    back = to_long(wide, series="id", time="t")
    assert back.to_dict("list") == {"id": ["a", "b"], "t": [1, 1], "x": [2.0, 1.0]}
    assert table.columns.tolist() == ["id", "t", "x", "z"]  # untouched


@pytest.mark.parametrize(
    ("times", "kind"),
    [
        (["2024-01-02", "2024-01-01"], pd.Timestamp),
        (pd.to_datetime(["2024-01-02", "2024-01-01"], utc=True), pd.Timestamp),
        (pd.PeriodIndex(["2024-02", "2024-01"], freq="M"), pd.Period),
        ([7, 5], np.integer),
        ([0.5, 0.25], float),
    ],
    ids=["text", "zone", "periods", "integers", "floats"],
)
def test_times_of_any_kind_are_sorted(times, kind):
    table = pd.DataFrame({"unique_id": "a", "ds": times, "y": [2.0, 1.0]})
    wide = from_long(table)
    assert wide["y"].tolist() == [1.0, 2.0]
    assert isinstance(wide.index[0][1], kind)


def test_a_forecast_goes_back_into_the_long_format():
    table = pd.DataFrame(
        {
            "unique_id": ["a"] * 3 + ["b"] * 2,
            "ds": pd.to_datetime(
                ["2024-01-01", "2024-01-02", "2024-01-03", "2024-02-01", "2024-02-02"]
            ),
            "y": [1.0, 2.0, 3.0, 10.0, 20.0],
        }
    )
    forecast = NaiveForecaster(horizon=1).fit(from_long(table)).predict()
    assert to_long(forecast).to_dict("list") == {
        "unique_id": ["a", "b"],
        "ds": [pd.Timestamp("2024-01-04"), pd.Timestamp("2024-02-03")],
        "y": [3.0, 20.0],
    }


def test_text_that_is_no_date_is_named():
    table = pd.DataFrame(
        {"unique_id": "a", "ds": ["2024-01-01", "soon"], "y": [1.0, 2.0]}
    )
    with pytest.raises(InputError, match="'soon'") as caught:
        from_long(table)
    assert caught.value.where == "row 1"
