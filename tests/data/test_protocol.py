"""The long-horizon protocol: window counts, borrowed history, no leak."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sciseq.data import describe_dataset, load_dataset
from sciseq.data.protocol import (
    SPLIT_RULES,
    SplitRule,
    count_windows,
    long_horizon_split,
)
from sciseq.errors import DataQualityError, InputError, InputTypeError

LOOKBACK = 96
HORIZONS = (96, 192, 336, 720)

# Windows of train, validation and test at lookback 96 and horizon 96; each further step
# of the horizon costs each segment one window.
WINDOWS = {
    ("ett_hourly", 17420): (8449, 2785, 2785),
    ("ett_quarter_hourly", 69680): (34369, 11425, 11425),
    ("ratio", 7588): (5120, 665, 1422),
    ("ratio", 52696): (36696, 5175, 10444),
    ("ratio", 26304): (18221, 2537, 5165),
    ("ratio", 17544): (12089, 1661, 3413),
    ("ratio", 52560): (36601, 5161, 10417),
}
# PEMS03, PEMS04, PEMS07 and PEMS08 at horizon 12.
PEMS_WINDOWS = {
    26208: (15617, 5135, 5135),
    16992: (10088, 3291, 3292),
    28224: (16827, 5538, 5538),
    17856: (10606, 3464, 3465),
}
# Rows and windows (test windows at every horizon) of the sets that are files.
REAL = {
    "ETTh1": (("ett_hourly", 17420), (2785, 2689, 2545, 2161)),
    "ETTh2": (("ett_hourly", 17420), (2785, 2689, 2545, 2161)),
    "ETTm1": (("ett_quarter_hourly", 69680), (11425, 11329, 11185, 10801)),
    "exchange_rate": (("ratio", 7588), (1422, 1326, 1182, 798)),
    "weather": (("ratio", 52696), (10444, 10348, 10204, 9820)),
}


def numbered(n_rows):
    return pd.DataFrame({"row": np.arange(n_rows)})


def windows(split, lookback, horizon):
    return tuple(count_windows(len(part), lookback, horizon) for part in split)


# ------------------------------------------------------------------------ counts


@pytest.mark.parametrize("horizon", HORIZONS)
@pytest.mark.parametrize(("rule", "n_rows"), WINDOWS)
def test_window_counts_of_the_published_splits(rule, n_rows, horizon):
    split = long_horizon_split(numbered(n_rows), rule, lookback=LOOKBACK)
    expected = tuple(n - (horizon - 96) for n in WINDOWS[rule, n_rows])
    assert windows(split, LOOKBACK, horizon) == expected


def test_exchange_has_few_validation_windows_at_the_longest_horizon():
    split = long_horizon_split(numbered(7588), "ratio", lookback=LOOKBACK)
    assert windows(split, LOOKBACK, 720) == (4496, 41, 798)


@pytest.mark.parametrize("n_rows", PEMS_WINDOWS)
def test_pems_segments_borrow_no_history(n_rows):
    split = long_horizon_split(numbered(n_rows), "pems", lookback=LOOKBACK)
    assert windows(split, LOOKBACK, 12) == PEMS_WINDOWS[n_rows]
    assert sum(len(part) for part in split) == n_rows


def test_pems_counts_tell_the_sum_of_shares_from_each_share():
    # int(0.2 * N) instead of int((0.6 + 0.2) * N) would be one row off.
    _, validation, _ = SPLIT_RULES["pems"].segments(26208, LOOKBACK)
    assert validation.stop - validation.start == 5242 != int(0.2 * 26208)


@given(
    n_rows=st.integers(0, 60), lookback=st.integers(1, 20), horizon=st.integers(1, 20)
)
def test_count_windows_is_the_number_of_starts(n_rows, lookback, horizon):
    starts = [t for t in range(n_rows) if t + lookback + horizon <= n_rows]
    assert count_windows(n_rows, lookback, horizon) == len(starts)


# ------------------------------------------------------------------------ segments


@given(n_rows=st.integers(200, 3000), lookback=st.integers(1, 100))
def test_first_target_row_is_the_first_row_of_the_segment(n_rows, lookback):
    split = long_horizon_split(numbered(n_rows), "ratio", lookback=lookback)
    n_train, n_test = int(0.7 * n_rows), int(0.2 * n_rows)
    assert split.train["row"].tolist() == list(range(n_train))
    assert split.validation["row"].iloc[lookback] == n_train
    assert split.test["row"].iloc[lookback] == n_rows - n_test
    assert split.validation["row"].iloc[-1] == n_rows - n_test - 1
    assert split.test["row"].iloc[-1] == n_rows - 1


def test_rows_after_the_ett_months_are_not_used():
    split = long_horizon_split(numbered(17420), "ett_hourly", lookback=336)
    assert split.test["row"].iloc[[336, -1]].tolist() == [8640 + 2880, 14399]


def test_split_keeps_frequency_and_leaves_the_frame_alone():
    index = pd.date_range("2020", periods=500, freq="h", name="time")
    frame = pd.DataFrame({"x": np.arange(500.0)}, index=index)
    before = frame.copy()
    split = long_horizon_split(frame, "ratio", lookback=24)
    assert split.test.index.freqstr == "h"
    split.test.iloc[:] = -1.0
    pd.testing.assert_frame_equal(frame, before)


def test_target_of_a_named_set_is_last_and_of_a_rule_is_not_moved():
    frame = pd.DataFrame(np.zeros((14400, 3)), columns=["OT", "HUFL", "HULL"])
    named = long_horizon_split(frame, "ETTh1", lookback=96)
    assert named.test.columns.tolist() == ["HUFL", "HULL", "OT"]
    by_rule = long_horizon_split(frame, SPLIT_RULES["ett_hourly"], lookback=96)
    assert by_rule.test.columns.tolist() == ["OT", "HUFL", "HULL"]


@pytest.mark.parametrize("name", REAL)
def test_rules_of_data_sets_are_the_published_ones(name):
    (rule, n_rows), _ = REAL[name]
    entry = describe_dataset(name)
    assert SplitRule(**entry["split"]) == SPLIT_RULES[rule]
    assert entry["shape"][0] == n_rows


@pytest.mark.parametrize("name", REAL)
def test_real_sets_have_the_published_windows(data_dir, name):
    key, tests = REAL[name]
    frame = load_dataset(name, data_dir=data_dir)
    split = long_horizon_split(frame, name, lookback=LOOKBACK)
    for horizon, n_test in zip(HORIZONS, tests, strict=True):
        expected = tuple(n - (horizon - 96) for n in WINDOWS[key])
        assert windows(split, LOOKBACK, horizon) == expected
        assert expected[2] == n_test
    assert split.train.columns[-1] == "OT"


# ------------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    "parts",
    [
        {"train": 0.7},
        {"train": 0.7, "validation": 0.1, "test": 0.2},
        {"train": 0.8, "test": 0.2},
        {"train": 0.0, "test": 0.2},
        {"train": 100, "test": 0.2},
        {"train": 100, "validation": 10},
        {"train": 100, "validation": 0, "test": 10},
        {"train": 0.7, "test": float("nan")},
    ],
)
def test_split_rule_refuses_other_parts(parts):
    with pytest.raises(InputError, match="three numbers of rows"):
        SplitRule(**parts)


def test_too_few_rows_are_refused_with_the_bounds():
    with pytest.raises(InputError, match="8640, 11520 and 14400"):
        long_horizon_split(numbered(14399), "ETTh1", lookback=96)
    with pytest.raises(InputError, match="too few"):
        long_horizon_split(numbered(4), "ratio", lookback=1)


def test_lookback_longer_than_the_train_rows_is_refused():
    with pytest.raises(InputError, match="only 70 train rows"):
        long_horizon_split(numbered(100), "ratio", lookback=71)
    long_horizon_split(numbered(100), "ratio", lookback=70)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ETTh3", "Did you mean 'ETTh[12]'"),
        ("ratios", "Did you mean 'ratio'"),
        ("nile", "no published long-horizon split"),
    ],
)
def test_unknown_names_are_refused(name, message):
    with pytest.raises(InputError, match=message):
        long_horizon_split(numbered(1000), name, lookback=96)


@pytest.mark.parametrize("rule", [None, 0.7, ["ratio"]])
def test_other_kinds_of_rules_are_refused(rule):
    with pytest.raises(InputTypeError, match="SplitRule"):
        long_horizon_split(numbered(1000), rule, lookback=96)


def test_times_out_of_order_are_refused():
    index = pd.to_datetime(["2020-01-01", "2020-01-03", "2020-01-02", "2020-02-01"])
    frame = pd.DataFrame({"x": range(4)}, index=index)
    with pytest.raises(
        DataQualityError, match=r"2020-01-03.* is followed by 2020-01-02"
    ):
        long_horizon_split(frame, "ratio", lookback=1)


def test_panels_and_arrays_are_refused(panel):
    with pytest.raises(InputError, match="panel"):
        long_horizon_split(panel, "ratio", lookback=24)
    with pytest.raises(InputTypeError, match="ndarray"):
        long_horizon_split(np.zeros((1000, 2)), "ratio", lookback=24)


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        ((-1, 1, 1), InputError),
        ((10, 0, 1), InputError),
        ((10, 1, 0), InputError),
        ((10, 1.5, 1), InputTypeError),
    ],
)
def test_count_windows_refuses_impossible_numbers(arguments, kind):
    with pytest.raises(kind):
        count_windows(*arguments)
