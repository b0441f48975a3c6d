"""xarray objects become panels and come back with dims, coordinates and attributes."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from sciseq import NaiveForecaster, load
from sciseq.data.containers import read_panel
from sciseq.errors import CapabilityError

dask_array = pytest.importorskip("dask.array")


def echo(panel):
    """Write a panel as if its own rows were the forecast."""
    columns = range(panel.n_columns)
    return panel.layout.write(panel, panel.values, panel.times, columns)


COORDINATES = {
    "lat": lambda n: np.linspace(50, 40, n, dtype="f4"),
    "lon": lambda n: [f"E{one}" for one in range(n)],
    "level": lambda n: pd.date_range("2000", periods=n).to_numpy(),
    "series": lambda n: [f"run {one}" for one in range(n)],
}


@st.composite
def arrays(draw):
    """Time among up to three other dimensions, in any order, with any coordinates."""
    others = draw(
        st.lists(st.sampled_from(sorted(COORDINATES)), max_size=3, unique=True)
    )
    dims = draw(st.permutations(["time", *others]))
    sizes = {dim: draw(st.integers(1, 3)) for dim in dims}
    coords = {
        dim: (dim, COORDINATES[dim](sizes[dim]), {"units": f"unit of {dim}"})
        for dim in others
        if draw(st.booleans())
    }
    if draw(st.booleans()):
        times = pd.date_range("2024-03-30", periods=sizes["time"], freq="h")
        coords["time"] = ("time", times, {"long_name": "time of validity"})
    coords["height"] = ((), 2.0, {"units": "m"})
    if others:
        coords["mask"] = ((others[0],), np.arange(sizes[others[0]]) > 0)
    if len(others) > 1:
        shape = [sizes[dim] for dim in others[:2]]
        coords["area"] = (tuple(others[:2]), np.ones(shape), {"units": "km2"})
    values = np.random.default_rng(0).normal(size=[sizes[dim] for dim in dims])
    return xr.DataArray(
        values,
        dims=dims,
        coords=coords,
        name=draw(st.sampled_from([None, "t2m"])),
        attrs={"units": "K", "history": ["a", "b"]},
    )


@given(arrays())
def test_an_array_comes_back(X):
    panel = read_panel(X)
    assert panel.n_series == X.sizes.get("series", 1)
    assert panel.values[0].shape[0] == X.sizes["time"]
    xr.testing.assert_identical(echo(panel), X)


@given(arrays())
def test_cells_keep_their_places(X):
    """Each column of the panel is one cell, found by its label."""
    panel = read_panel(X)
    others = [dim for dim in X.dims if dim not in ("time", "series")]
    labelled = X.assign_coords(
        {dim: range(X.sizes[dim]) for dim in others if dim not in X.coords}
    )
    for place, label in enumerate(panel.columns):
        cells = label if len(others) > 1 else (label,)
        chosen = dict(zip(others, cells, strict=False))
        column = labelled.sel(chosen).transpose(..., "time").to_numpy()
        found = np.stack([values[:, place] for values in panel.values])
        np.testing.assert_array_equal(found, column.reshape(found.shape))


@pytest.mark.parametrize("order", [("time", "series"), ("series", "time")])
def test_a_dataset_comes_back(order):
    times = pd.date_range("2024", periods=3, freq="D")
    X = xr.Dataset(
        {
            "t2m": (
                order,
                np.arange(6.0).reshape([2 if d == "series" else 3 for d in order]),
                {"units": "K"},
            ),
            "rain": (
                order,
                np.full([2 if d == "series" else 3 for d in order], 7.0),
                {"units": "mm"},
            ),
        },
        coords={
            "time": ("time", times, {"axis": "T"}),
            "series": ["north", "south"],
            "height": ("series", [10.0, 20.0], {"units": "m"}),
        },
        attrs={"Conventions": "CF-1.8"},
    )
    panel = read_panel(X)
    assert panel.columns == ("t2m", "rain")
    assert panel.series_ids == ("north", "south")
    xr.testing.assert_identical(echo(panel), X)
    np.testing.assert_array_equal(panel.values[1][:, 0], X["t2m"].sel(series="south"))


def test_the_time_dimension_is_found():
    values = np.arange(6.0).reshape(2, 3)
    dates = pd.date_range("2024", periods=3)
    by_name = xr.DataArray(values, dims=["site", "time"])
    by_dates = xr.DataArray(values, dims=["site", "day"], coords={"day": dates})
    by_place = xr.DataArray(values, dims=["step", "site"])
    assert [len(read_panel(X).values[0]) for X in (by_name, by_dates, by_place)] == [
        3,
        3,
        2,
    ]


# Forecasts


def weather(n_rows=6, order=("air", "sea")):
    times = pd.date_range("2024-02-27", periods=n_rows, freq="D")
    levels = {"air": 1.0, "sea": 100.0, "ice": 1000.0}
    values = np.arange(n_rows)[:, None] + [levels[name] for name in order]
    return xr.DataArray(
        values,
        dims=["time", "place"],
        coords={
            "time": ("time", times, {"axis": "T"}),
            "place": list(order),
            "station": ("place", [f"id of {name}" for name in order]),
            "hour": ("time", times.hour),
        },
        attrs={"units": "K"},
    )


def test_labels_of_the_future_and_nothing_that_belongs_to_the_past():
    forecast = NaiveForecaster(horizon=3).fit(weather()).predict()
    assert list(forecast.time.values) == list(
        pd.date_range("2024-03-04", periods=3).values
    )
    assert forecast.time.attrs == {"axis": "T"}
    assert forecast.attrs == {"units": "K"}
    assert set(forecast.coords) == {"time", "place", "station"}


@pytest.mark.parametrize("targets", [["sea", "air"], ["sea"], ["ice", "air"], "ice"])
def test_targets_carry_their_own_labels(targets):
    X = weather(order=("air", "sea", "ice"))
    forecast = NaiveForecaster(horizon=1, targets=targets).fit(X).predict()
    names = [targets] if isinstance(targets, str) else targets
    assert forecast.place.values.tolist() == names
    assert forecast.station.values.tolist() == [f"id of {name}" for name in names]
    np.testing.assert_array_equal(forecast.values[0], X.sel(place=names).values[-1])


def test_a_table_with_its_columns_in_another_order():
    model = NaiveForecaster(horizon=1).fit(weather())
    other = weather(order=("sea", "air"))
    forecast = model.predict(other)
    for name in ("air", "sea"):
        assert forecast.sel(place=name).item() == other.sel(place=name).values[-1]
    # The wrong version: values in the order of fit under the labels as they came.
    wrong = xr.DataArray(
        forecast.values, dims=forecast.dims, coords={"place": other.place}
    )
    assert wrong.sel(place="air").item() != other.sel(place="air").values[-1]


def test_grids_in_another_order_keep_every_cell():
    grid = xr.DataArray(
        np.arange(24.0).reshape(4, 2, 3),
        dims=["time", "lat", "lon"],
        coords={"lat": [10.0, 20.0], "lon": [1, 2, 3]},
    )
    model = NaiveForecaster(horizon=2).fit(grid)
    flipped = grid.isel(lat=[1, 0], lon=[2, 0, 1])
    forecast = model.predict(flipped)
    xr.testing.assert_equal(
        forecast.isel(time=0, drop=True), flipped.isel(time=-1, drop=True)
    )
    with pytest.raises(CapabilityError, match="do not fill"):
        NaiveForecaster(horizon=1, targets=[(10.0, 1)]).fit(grid).predict()


def test_a_stacked_grid_can_be_unstacked_after_the_forecast(tmp_path):
    grid = xr.DataArray(
        np.arange(24.0).reshape(4, 2, 3),
        dims=["time", "lat", "lon"],
        coords={"lat": ("lat", [10.0, 20.0]), "lon": [1, 2, 3]},
        attrs={"units": "K"},
    )
    stacked = grid.stack(cell=["lat", "lon"])
    xr.testing.assert_identical(echo(read_panel(stacked)), stacked)
    model = NaiveForecaster(horizon=1, targets=[(20.0, 3), (10.0, 1)]).fit(stacked)
    model.save(tmp_path / "model")
    for one in (model, load(tmp_path / "model")):
        cells = one.predict().unstack("cell").isel(time=0)
        assert cells.sel(lat=20.0, lon=3).item() == 23.0
        assert cells.sel(lat=10.0, lon=1).item() == 18.0


# Lazy arrays


class Recorder:
    """An array on disk, so to speak, that remembers which rows were read."""

    def __init__(self, values):
        self.values = values
        self.shape, self.dtype, self.ndim = values.shape, values.dtype, values.ndim
        self.rows = set()

    def __getitem__(self, key):
        self.rows |= set(np.arange(len(self.values))[key[0]].tolist())
        return self.values[key]


def lazy(recorder, chunk):
    chunks = (chunk, *recorder.shape[1:])
    # The name keeps Dask from reading the values to hash them.
    values = dask_array.from_array(recorder, chunks=chunks, name="recorder")
    times = pd.date_range("2024", periods=len(recorder.values), freq="h")
    return xr.DataArray(values, dims=["time", "site"], coords={"time": times})


def test_predict_reads_only_the_last_rows_of_a_lazy_array():
    values = np.random.default_rng(0).normal(size=(1000, 3))
    model = NaiveForecaster(strategy="seasonal", season_length=24, horizon=5).fit(
        values
    )
    recorder = Recorder(values)
    forecast = model.predict(lazy(recorder, 10))
    assert min(recorder.rows) >= 970  # the chunk that holds row 976, and later ones
    np.testing.assert_array_equal(forecast, model.predict(values))
    # The recorder does see a read of everything.
    read_panel(lazy(recorder, 10))
    assert recorder.rows == set(range(1000))


def test_a_lazy_dataset_is_read_from_its_end_too():
    values = np.random.default_rng(0).normal(size=(100, 1))
    recorder = Recorder(values)
    X = lazy(recorder, 10).isel(site=0).to_dataset(name="a")
    model = NaiveForecaster(horizon=2).fit(pd.DataFrame({"a": values[:, 0]}))
    assert model.predict(X)["a"].values.tolist() == [values[-1, 0]] * 2
    assert min(recorder.rows) >= 90


def test_missing_values_stay_missing_in_a_lazy_array():
    X = weather(8).where(lambda one: one != 5.0)
    model = NaiveForecaster(horizon=1, missing="mask").fit(X)
    xr.testing.assert_identical(model.predict(X.chunk(time=2)), model.predict(X))
