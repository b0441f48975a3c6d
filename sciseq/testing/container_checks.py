"""Checks that what goes in comes out: the container, its labels, zone and units."""

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from sklearn.base import clone

from sciseq.testing.tables import frame, panel, quiet, refuses, same, values

__all__ = [
    "check_array",
    "check_dict_of_frames",
    "check_integer_index",
    "check_list_of_arrays",
    "check_numpy_for_a_calendar",
    "check_panel",
    "check_period_index",
    "check_series",
    "check_time_zone_and_summer_time",
    "check_windows",
    "check_windows_need_truth",
    "check_xarray_array",
    "check_xarray_dataset",
]


def _fit(estimator: Any, table: Any, **params: Any) -> Any:
    with quiet():
        return clone(estimator).set_params(**params).fit(table)


def _no_calendar(estimator: Any) -> dict[str, Any]:
    return {"calendar": None} if "calendar" in estimator.get_params() else {}


def check_array(estimator: Any) -> None:
    """NumPy in, NumPy out, with the values of the same rows in pandas."""
    params = _no_calendar(estimator)
    forecast = _fit(estimator, values(), **params).predict()
    assert type(forecast) is np.ndarray and forecast.dtype == np.float64
    same(forecast, _fit(estimator, frame(), **params).predict())


def check_series(estimator: Any) -> None:
    """A pandas Series gives a Series of the same name."""
    forecast = _fit(estimator, frame()["b"]).predict()
    assert isinstance(forecast, pd.Series) and forecast.name == "b"
    assert forecast.index.name == "when"


def check_time_zone_and_summer_time(estimator: Any) -> None:
    """Hours go on through the change to summer time, in the zone of the data."""
    table = frame(60, start="2024-03-28 20:00", tz="Europe/Berlin")
    index = _fit(estimator, table).predict().index
    assert str(index.tz) == "Europe/Berlin" and index.name == "when"
    whole = pd.DatetimeIndex(table.index.append(index))
    assert len(set(np.diff(whole.asi8))) == 1


def check_period_index(estimator: Any) -> None:
    """Periods go on as periods."""
    table = frame()
    table.index = pd.period_range("2019-01", periods=len(table), freq="M")
    index = _fit(estimator, table).predict().index
    assert isinstance(index, pd.PeriodIndex)
    assert index[0] == table.index[-1] + 1


def check_integer_index(estimator: Any) -> None:
    """Integers go on with their step."""
    table = frame().set_axis(np.arange(100, 100 + 5 * 60, 5))
    assert _fit(estimator, table).predict().index[0] == 400


def check_panel(estimator: Any) -> None:
    """A (series, time) index comes back with its names, each series with its times."""
    forecast = _fit(estimator, panel()).predict()
    assert forecast.index.names == ["site", "when"]
    assert forecast.index.get_level_values(0).unique().tolist() == ["north", "south"]
    assert forecast.loc["south"].index[0] == frame(51).index[-1]


def check_list_of_arrays(estimator: Any) -> None:
    """A list of arrays gives a list of arrays."""
    parts = [values(60), values(50)]
    forecast = _fit(estimator, parts, **_no_calendar(estimator)).predict()
    assert isinstance(forecast, list) and len(forecast) == 2
    assert forecast[1].shape == (estimator.horizon, 3)


def check_dict_of_frames(estimator: Any) -> None:
    """A dict of tables gives a dict with the same keys."""
    parts = {"north": frame(60), "south": frame(50)}
    forecast = _fit(estimator, parts).predict()
    assert list(forecast) == ["north", "south"]
    assert forecast["south"].index[0] == frame(51).index[-1]


def check_xarray_array(estimator: Any) -> None:
    """A DataArray comes back with dims, coordinates, attributes and its name."""
    table = frame()
    array = xr.DataArray(
        table.to_numpy().T,
        dims=["station", "time"],
        coords={
            "time": table.index.rename("time"),
            "station": ["a", "b", "c"],
            "height": ("station", [1.0, 2.0, 3.0], {"units": "m"}),
        },
        name="temperature",
        attrs={"units": "K"},
    )
    forecast = _fit(estimator, array).predict()
    assert forecast.dims == ("station", "time") and forecast.name == "temperature"
    assert forecast.attrs == {"units": "K"}
    assert forecast["height"].attrs == {"units": "m"}
    same(forecast.transpose("time", "station"), _fit(estimator, table).predict())


def check_xarray_dataset(estimator: Any) -> None:
    """A Dataset comes back with its variables and their units."""
    dataset = frame().rename_axis("time").to_xarray().assign_attrs(source="check")
    dataset["b"].attrs["units"] = "Pa"
    forecast = _fit(estimator, dataset).predict()
    assert isinstance(forecast, xr.Dataset) and forecast.attrs == {"source": "check"}
    assert forecast["b"].attrs == {"units": "Pa"}
    assert forecast.sizes == {"time": estimator.horizon}


def check_windows(estimator: Any) -> None:
    """Ready-made windows fit and forecast as they are."""
    params = _no_calendar(estimator)
    L, H = _context(estimator), estimator.horizon
    starts = range(60 - L - H + 1)
    X = np.stack([values()[start : start + L] for start in starts])
    y = np.stack([values()[start + L : start + L + H] for start in starts])
    with quiet():
        model = clone(estimator).set_params(**params).fit(X, y)
    assert model.predict(X).shape == y.shape
    assert np.isfinite(model.score(X, y))
    with refuses("ready-made windows"):
        model.predict()


def check_windows_need_truth(estimator: Any) -> None:
    """Windows without their truth are refused."""
    with refuses("truth"), quiet():
        estimator.fit(np.zeros((4, _context(estimator), 2)))


def check_numpy_for_a_calendar(estimator: Any) -> None:
    """A model with calendar features refuses data that carry no time."""
    model = _fit(estimator, frame())
    if getattr(model, "calendar_", ()):
        with refuses("no time", "calendar=None"):
            model.predict(values())


def _context(estimator: Any) -> int:
    with quiet():
        return int(clone(estimator).fit(frame())._context_length)
