"""The form and the digest of the rows of a run."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sciseq.errors import DataQualityError, InputError, InputTypeError
from sciseq.jobs.database import digest_of_forecasts
from sciseq.jobs.database_rows import RowDigest, forecast_rows, stored_tuples

TIMES = pd.date_range("2026-01-01", periods=3, freq="h")


def panel(**changes):
    frame = pd.DataFrame(
        {
            "series": ["b", "a", "a"],
            "time": TIMES[[0, 1, 0]],
            "load": [3.0, np.nan, 1.0],
            "load_lower": [2.0, 1.0, -np.inf],
        }
    )
    return frame.assign(**changes)


def test_rows_are_sorted_and_in_utc():
    frame = panel(time=TIMES[[0, 1, 0]].tz_localize("Europe/Berlin"))
    rows = forecast_rows(frame)
    assert rows["series"].tolist() == ["a", "a", "b"]
    assert rows["load_lower"].tolist() == [-np.inf, 1.0, 2.0]
    assert rows["time"][0] == pd.Timestamp("2025-12-31 23:00", tz="UTC")
    assert str(rows["time"].dtype) == "datetime64[us, UTC]"


def test_text_is_sorted_by_code_points():
    labels = ["é", "z", "Z", "a", "😀", "\uffee"]
    frame = pd.DataFrame({"series": labels, "time": TIMES[0], "load": 1.0})
    assert forecast_rows(frame)["series"].tolist() == sorted(labels)


def test_tuples_are_what_both_databases_take():
    rows = forecast_rows(panel(time=TIMES[[0, 1, 0]].tz_localize("UTC")))
    names = ["load", "run_id", "time", "series", "load_lower"]
    chunks = list(stored_tuples(rows, names, "0f", 2))
    assert chunks == [
        [
            (1.0, "0f", "2026-01-01 00:00:00.000000+00:00", "a", -np.inf),
            (None, "0f", "2026-01-01 01:00:00.000000+00:00", "a", 1.0),
        ],
        [(3.0, "0f", "2026-01-01 00:00:00.000000+00:00", "b", 2.0)],
    ]


@given(st.permutations(range(6)), st.integers(1, 7))
@settings(max_examples=25)
def test_the_digest_knows_neither_order_nor_chunks(order, chunk_rows):
    frame = pd.DataFrame(
        {
            "series": ["a", "b"] * 3,
            "time": TIMES.repeat(2),
            "x": np.arange(6.0) / 7,
            "y": np.nan,
        }
    )
    expected = digest_of_forecasts(frame)
    assert digest_of_forecasts(frame.iloc[order]) == expected
    assert digest_of_forecasts(frame[["y", "time", "x", "series"]]) == expected
    rows = forecast_rows(frame)
    digest = RowDigest(rows.columns)
    for start in range(0, 6, chunk_rows):
        digest.add(rows[start : start + chunk_rows])
    assert digest.hexdigest() == expected


@pytest.mark.parametrize(
    "changes",
    [
        {"load": [3.0, 0.0, 1.0]},
        {"load": [np.nan, 3.0, 1.0]},
        {"load": [np.nextafter(3.0, 4.0), np.nan, 1.0]},
        {"series": ["b", "a", "a "]},
        {"series": ["ba", "", ""]},
        {"time": TIMES[[0, 1, 0]] + pd.Timedelta(1, "us")},
        {"other": 0.0},
    ],
)
def test_every_change_changes_the_digest(changes):
    assert digest_of_forecasts(panel(**changes)) != digest_of_forecasts(panel())


def test_what_databases_do_not_tell_apart_has_one_digest():
    zero = panel(load=[0.0, np.nan, 1.0])
    assert digest_of_forecasts(zero) == digest_of_forecasts(
        panel(load=[-0.0, -np.nan, 1.0])
    )
    local = panel(time=TIMES[[0, 1, 0]].tz_localize("Europe/Berlin"))
    instants = local.assign(time=local["time"].dt.tz_convert("UTC"))
    assert digest_of_forecasts(local) == digest_of_forecasts(instants)


@pytest.mark.parametrize(
    ("frame", "error", "message"),
    [
        (panel().rename(columns={"time": "tme"}), InputError, "no column 'time'"),
        (panel(run_id="a"), InputError, "cannot be called 'run_id'"),
        (panel(as_of=1.0), InputError, "cannot be called 'as_of'"),
        (panel()[["series", "time"]], InputError, "no column of values"),
        (panel(load=["a", "b", "c"]), InputTypeError, "values are .*, must be num"),
        (panel(time=[1, 2, 3]), InputTypeError, "times are int64, must be dates"),
        (panel(time=TIMES[0]), DataQualityError, "1 rows repeat the series and time"),
        (panel(time=[TIMES[0], pd.NaT, TIMES[1]]), DataQualityError, "have no time"),
        (panel(series=["a", None, "b"]), DataQualityError, "1 rows have no series"),
        (
            panel(time=TIMES[[0, 1, 0]].as_unit("ns") + pd.Timedelta(1, "ns")),
            DataQualityError,
            "finer than the microsecond",
        ),
        (panel().rename(columns={"load": 7}), InputTypeError, "column 7 is no text"),
    ],
)
def test_frames_that_are_refused(frame, error, message):
    with pytest.raises(error, match=message):
        forecast_rows(frame)
