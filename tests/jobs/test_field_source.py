"""Fields from file to file: cells are series, chunks are parts."""

import numpy as np
import pandas as pd
import pytest

import sciseq
from sciseq.errors import FileFormatError, InputError
from sciseq.jobs import run_job

xr = pytest.importorskip("xarray")


@pytest.fixture
def field():
    generator = np.random.default_rng(0)
    times = pd.date_range("2024-01-01", periods=240, freq="h")
    phase = generator.uniform(0, 6, size=(4, 5))
    hours = np.arange(240)[:, None, None] * 2 * np.pi / 24
    values = 280 + np.sin(hours + phase) + 0.05 * generator.normal(size=(240, 4, 5))
    values[:, 0, 0] = np.nan  # land in a field of the sea
    return xr.DataArray(
        values,
        dims=["time", "lat", "lon"],
        coords={"time": times, "lat": np.arange(4.0), "lon": np.arange(5.0)},
        name="sst",
        attrs={"units": "K"},
    )


def field_job(workshop, kind, **changes):
    settings = {
        "source__path": f"sea.{kind}",
        "source__field": "sst",
        "source__series_column": None,
        "source__time_column": None,
        "destination__path": f"out.{kind}",
    }
    return workshop.job(**{**settings, **changes})


@pytest.fixture
def stored(workshop, field):
    field.to_dataset().to_netcdf(workshop.folder / "sea.nc", engine="h5netcdf")
    return workshop


def test_a_field_comes_back_as_a_field(stored, field):
    result = run_job(field_job(stored, "nc"), "2024-01-10")
    assert result.record["source"]["series"] == 19
    with xr.open_dataset(stored.folder / "out.nc", engine="h5netcdf") as data:
        found = data["sst"].load()
    assert found.dims == field.dims and found.attrs["units"] == "K"
    assert found.sizes == {"time": 24, "lat": 4, "lon": 5}
    assert found["time"].values[0] == np.datetime64("2024-01-10")
    assert np.isnan(found[:, 0, 0]).all()
    assert int(np.isnan(found).sum()) == 24
    known = field.sel(time=slice(None, "2024-01-09 23:00"))
    truth = field.sel(time=found["time"])
    assert float(abs(found - truth).mean()) < 0.1
    assert run_job(field_job(stored, "nc"), "2024-01-10").is_repeated
    # The cells are forecast as the estimator would.
    cells = known.stack(cell=("lat", "lon")).dropna("cell").transpose("time", "cell")
    model = sciseq.LinearForecaster(lookback=48, horizon=24)
    panel = pd.concat(
        {one: pd.DataFrame({"sst": cells.values[:, one]}, index=known["time"].values)
         for one in range(19)}
    )  # fmt: skip
    expected = model.fit(panel).predict()["sst"].to_numpy().reshape(19, 24)
    ours = found.stack(cell=("lat", "lon")).dropna("cell").transpose("cell", "time")
    np.testing.assert_allclose(ours.values, expected, rtol=1e-12)


def test_a_chunked_store_gives_the_same(stored, field):
    pytest.importorskip("zarr")
    pytest.importorskip("dask")
    chunked = field.to_dataset().chunk({"time": 100, "lat": 2, "lon": 3})
    chunked.to_zarr(stored.folder / "sea.zarr", consolidated=False)
    result = run_job(field_job(stored, "zarr", state="z"), "2024-01-10")
    assert result.record["parts"]["total"] == 4  # a chunk of cells each
    run_job(field_job(stored, "nc"), "2024-01-10")
    whole = xr.open_dataset(stored.folder / "out.nc", engine="h5netcdf")["sst"]
    parts = xr.open_zarr(stored.folder / "out.zarr", consolidated=False)["sst"]
    xr.testing.assert_equal(whole.load(), parts.load())


def test_what_cannot_be_a_field(stored):
    with pytest.raises(InputError, match="no variable 'sts'"):
        run_job(field_job(stored, "nc", source__field="sts"))
    with pytest.raises(InputError, match=r"needs a source.path that ends in .nc"):
        field_job(stored, "csv")
    (stored.folder / "sea.nc").write_bytes(b"no such file")
    with pytest.raises(FileFormatError, match="cannot be opened"):
        run_job(field_job(stored, "nc"))
    with pytest.raises(InputError, match="no time is before"):
        other = stored.folder / "sea.nc"
        xr.Dataset(
            {"sst": (("time", "x"), np.ones((3, 2)))},
            coords={"time": pd.date_range("2024-01-01", periods=3)},
        ).to_netcdf(other, engine="h5netcdf")
        run_job(field_job(stored, "nc"), "2023-01-01")


def test_a_saved_model_reads_no_more_than_a_part(stored, field, monkeypatch):
    from sciseq.jobs.field_source import FieldHistory

    job = field_job(stored, "nc", state="first")
    record = run_job(job, "2024-01-10").record
    model = str(job.state / "models" / record["model_version"])

    def whole(history):
        raise AssertionError("the field was read whole")

    monkeypatch.setattr(FieldHistory, "frame", property(whole))
    saved = {"model__method": None, "model__settings": None, "model__path": model}
    again = field_job(stored, "nc", **saved, state="second", log__report=True)
    assert run_job(again, "2024-01-10").exit_code == 0
