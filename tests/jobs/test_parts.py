"""Cutting panels, fields and spectra; forecasting and sequencing a part."""

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from sciseq import LinearForecaster, NaiveForecaster, SMambaForecaster
from sciseq.errors import InputError
from sciseq.jobs.bad_pieces import run_good_pieces
from sciseq.jobs.field_parts import field_parts, join_field
from sciseq.jobs.panel_parts import forecast_part, panel_parts
from sciseq.jobs.spectrum_parts import sequence_part, spectrum_parts
from sciseq.sequencing.mgf_files import write_mgf
from sciseq.sequencing.prediction import COLUMNS
from sciseq.sequencing.spectrum_files import read_spectra
from sciseq.testing.spectra import spectra

dask_array = pytest.importorskip("dask.array")


def panel_of(names, n_rows=30, columns=("load", "wind"), seed=0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    times = pd.date_range("2026-01-01", periods=n_rows, freq="h")
    index = pd.MultiIndex.from_product([names, times], names=["series", "time"])
    return pd.DataFrame(rng.normal(size=(len(index), len(columns))), index, columns)


# --- Panels ------------------------------------------------------------------------


@given(
    st.lists(st.sampled_from("dbca"), min_size=1, max_size=12),
    st.integers(1, 5),
    st.booleans(),
)
def test_parts_hold_every_row_once_in_the_order_of_the_series(names, n, contiguous):
    order = list(dict.fromkeys(names))
    if contiguous:
        names = sorted(names, key=order.index)
    index = pd.MultiIndex.from_arrays([names, range(len(names))], names=["s", "t"])
    frame = pd.DataFrame({"x": np.arange(len(names), dtype=float)}, index=index)
    parts = list(panel_parts(frame, n))
    assert len(parts) == -(-len(order) // n)
    wanted = pd.concat([frame.loc[[name]] for name in order])
    pd.testing.assert_frame_equal(pd.concat(parts), wanted)
    for number, part in enumerate(parts):
        own = order[n * number : n * number + n]
        assert sorted(part.index.levels[0]) == sorted(own)


def test_a_part_shares_the_memory_of_the_panel_and_not_its_labels():
    frame = panel_of([f"series {number}" for number in range(500)])
    first, *_ = panel_parts(frame, 2)
    assert np.shares_memory(first.to_numpy(), frame.to_numpy())
    assert len(pickle.dumps(first)) < 10_000
    assert len(pickle.dumps(frame.iloc[: len(first)])) > 10_000  # a plain cut


def test_panels_that_cannot_be_cut():
    frame = panel_of(["a", None])
    with pytest.raises(InputError, match="no series label"):
        next(panel_parts(frame, 1))
    with pytest.raises(InputError, match="series_per_part is 0"):
        next(panel_parts(frame, 0))
    one = frame.droplevel(0)
    assert next(panel_parts(one, 3)) is one


# --- Forecasts of a part -------------------------------------------------------------


@pytest.mark.parametrize(
    "model",
    [
        SMambaForecaster(
            lookback=8, horizon=3, d_model=8, n_layers=1, max_epochs=1, random_state=0
        ),
        LinearForecaster(lookback=8, horizon=3),
    ],
    ids=lambda model: type(model).__name__,
)
def test_a_bad_series_changes_no_bit_of_the_others(model):
    panel = panel_of(list("abcdefghijklm"))
    model.fit(panel)
    bad = panel.copy()
    bad.loc[("c", bad.index[-1][1]), "wind"] = np.nan
    bad = bad.drop(index=[("f", time) for time in bad.loc["f"].index[:-4]])  # too short
    found = forecast_part(model, bad)
    assert [one["series"] for one in found.failures] == ["c", "f"]
    assert "NaN" in found.failures[0]["error"]
    assert found.failures[1]["error"].startswith("InputError")
    without = forecast_part(model, panel.drop(index=["c", "f"]))
    pd.testing.assert_frame_equal(found.frame, without.frame, check_exact=True)
    assert not without.failures


def test_the_good_ones_are_run_together():
    """Each one alone would be other bits: the wrong way is seen."""
    calls = []

    def run(pieces):
        calls.append(list(pieces))
        if "bad" in pieces:
            raise ValueError("no")
        return len(pieces)

    pieces = [(one, one) for one in ("a", "bad", "b")]
    assert run_good_pieces(run, pieces, list) == ([2], [("bad", "ValueError: no")])
    assert calls[-1] == ["a", "b"]


def test_good_ones_that_cannot_be_run_together_keep_what_they_had():
    def run(pieces):
        if len(pieces) > 1:
            raise MemoryError
        return pieces[0]

    assert run_good_pieces(run, [("a", 1), ("b", 2)], list) == ([1, 2], [])


def test_nothing_but_bad_series():
    model = NaiveForecaster(lookback=2, horizon=1).fit(panel_of(["a"]))
    found = forecast_part(model, panel_of(["a", "b"]) * np.nan)
    assert len(found.frame) == 0
    assert [one["series"] for one in found.failures] == ["a", "b"]
    alone = forecast_part(model, panel_of(["a"]).droplevel(0) * np.nan)
    assert len(alone.frame) == 0
    assert [one["series"] for one in alone.failures] == [None]


def test_warnings_are_returned_and_not_shown():
    panel = panel_of(["a", "b"])
    model = NaiveForecaster(lookback=2, horizon=1).fit(panel)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = forecast_part(model, panel, horizon=3)
    (note,) = found.notes
    assert note.startswith("SciSeqWarning: horizon 3 is longer than the fitted 1")
    assert len(found.frame) == 6


def test_intervals_are_columns():
    panel = panel_of(["a", "b"])
    model = LinearForecaster(lookback=4, horizon=2, validation_fraction=0.3).fit(panel)
    found = forecast_part(model, panel, coverage=0.8).frame
    lower, upper = model.predict_interval(panel, coverage=0.8)
    names = ["load", "wind"]
    assert found.columns.tolist() == [
        *names, "load_lower", "wind_lower", "load_upper", "wind_upper"
    ]  # fmt: skip
    np.testing.assert_array_equal(found[names], model.predict(panel))
    np.testing.assert_array_equal(found[["load_lower", "wind_lower"]], lower)
    np.testing.assert_array_equal(found[["load_upper", "wind_upper"]], upper)


# --- Fields ------------------------------------------------------------------------


def small_field(n_rows=12) -> xr.DataArray:
    """Dimensions in an odd order, a mask, coordinates of all kinds."""
    values = np.random.default_rng(0).normal(size=(4, n_rows, 3)).astype(np.float32)
    values[1, :, 2] = np.nan
    return xr.DataArray(
        values,
        dims=["lat", "time", "lon"],
        coords={
            "lat": ("lat", [50.0, 45.0, 40.0, 35.0], {"units": "degrees_north"}),
            "time": (
                "time", pd.date_range("2026-01-01", periods=n_rows), {"axis": "T"}
            ),
            "area": (("lat", "lon"), np.ones((4, 3)), {"units": "km2"}),
            "height": 2.0,
        },
        name="t2m",
        attrs={"units": "K"},
    )  # fmt: skip


@pytest.mark.parametrize("chunks", [None, {"lat": 3, "lon": 2, "time": 5}])
def test_a_field_comes_back(chunks):
    field = small_field()
    cut = field if chunks is None else field.chunk(chunks)
    parts = list(field_parts(cut, 5, last_rows=6))
    assert len(parts) == 4
    echoed = join_field([part.frame() for part in parts][::-1], cut)
    xr.testing.assert_identical(echoed.astype(np.float32), field[:, -6:])


@pytest.mark.parametrize("chunks", [None, {"lat": 3, "lon": 2}])
def test_forecasts_of_a_field(chunks):
    field = small_field() if chunks is None else small_field().chunk(chunks)
    whole = pd.concat([part.frame() for part in field_parts(field, 100)])
    model = NaiveForecaster(lookback=2, horizon=2).fit(whole)
    found = [forecast_part(model, part) for part in field_parts(field, 5)]
    joined = join_field((one.frame for one in found), field)
    assert joined.dims == ("lat", "time", "lon")
    assert joined.attrs == {"units": "K"} and joined["time"].attrs == {"axis": "T"}
    last = small_field()[:, -1]
    for row in (0, 1):
        np.testing.assert_array_equal(joined[:, row], last)
    wanted = pd.date_range("2026-01-13", periods=2)
    np.testing.assert_array_equal(joined["time"], wanted)
    assert joined["area"].attrs == {"units": "km2"}


class Recorder:
    """An array that remembers what was read of it."""

    def __init__(self, values):
        self.values, self.reads = values, []
        self.shape, self.dtype, self.ndim = values.shape, values.dtype, values.ndim

    def __getitem__(self, key):
        self.reads.append(key)
        return self.values[key]


def test_a_part_reads_its_own_chunk_and_nothing_before_it_is_asked_for():
    recorder = Recorder(np.arange(480.0).reshape(12, 40))
    lazy = dask_array.from_array(recorder, chunks=(-1, 4), name="recorder")
    recorder.reads.clear()
    parts = list(field_parts(xr.DataArray(lazy, dims=["time", "cell"])))
    assert len(parts) == 10 and not recorder.reads
    # The chunks of the others do not travel along.
    assert len(dict(parts[3].block.__dask_graph__())) <= 3
    frame = parts[3].frame()
    assert [read[1] for read in recorder.reads] == [slice(12, 16, None)]
    assert frame.index.get_level_values(0).unique().tolist() == [12, 13, 14, 15]
    np.testing.assert_array_equal(frame["recorder"][:12], recorder.values[:, 12])


def test_wrong_calls_with_fields():
    field = small_field()
    with pytest.raises(InputError, match="cells_per_part is 0"):
        next(field_parts(field, 0))
    with pytest.raises(InputError, match="no cell has a forecast"):
        join_field([], field)
    first, second = (part.frame() for part in field_parts(field, 6))
    later = second.loc[pd.IndexSlice[:, field["time"].values[3:]], :]
    with pytest.raises(InputError, match="different times"):
        join_field([first, later], field)


# --- Spectra -----------------------------------------------------------------------


def test_spectra_are_cut_in_order_and_read_once(tmp_path):
    path = tmp_path / "some.mgf"
    write_mgf(list(spectra()) * 3, path)
    whole = [one.identifier for one in read_spectra(path)]
    parts = list(spectrum_parts(path, 5))
    assert [one.identifier for part in parts for one in part.records] == whole
    assert [(part.first, part.count) for part in parts] == [
        (first, min(5, len(whole) - first)) for first in range(0, len(whole), 5)
    ]
    with pytest.raises(InputError, match="spectra_per_part is 0"):
        next(spectrum_parts(path, 0))


class Reader:
    """Stands for a sequencer that one spectrum breaks."""

    def iter_rows(self, records):
        for one in records:
            if one.identifier == "index=2":
                raise ZeroDivisionError("no mass")
            yield dict.fromkeys(COLUMNS) | {"identifier": one.identifier}


def test_a_bad_spectrum_is_recorded_and_the_others_are_read(tmp_path):
    path = tmp_path / "some.mgf"
    write_mgf(list(spectra()), path)
    (part,) = spectrum_parts(path, 1000)
    found = sequence_part(Reader(), part)
    assert found.failures == [
        {"series": "index=2", "error": "ZeroDivisionError: no mass"}
    ]
    assert found.frame.columns.tolist() == list(COLUMNS)
    kept = [one.identifier for one in part.records if one.identifier != "index=2"]
    assert found.frame["identifier"].tolist() == kept
