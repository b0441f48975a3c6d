"""xarray objects to panels and back: dims, coordinates, attributes and units kept.

The time dimension is the one called ``time``, else the only one with dates, else the
first. A dimension called ``series`` holds many series. In a DataArray all other
dimensions together are the columns (a gridded field has one column per cell); in a
Dataset each variable is a column.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from sciseq.data.panel import FloatArray, Panel, as_float64
from sciseq.errors import CapabilityError, InputError, InputTypeError

__all__ = ["XarrayLayout", "read_xarray", "time_dimension"]

SERIES = "series"


def read_xarray(X: Any, last_rows: int | None) -> Panel:
    """Read a DataArray or a Dataset; lazy arrays are computed for the rows read."""
    if not isinstance(X, xr.DataArray | xr.Dataset):
        raise InputTypeError(
            f"a DataArray or Dataset was expected, got xarray {type(X).__name__}",
            where="X",
            hint="Give one DataArray, or one Dataset whose variables are columns.",
        )
    time = time_dimension(X)
    if last_rows and X.chunks:
        X = X.isel({time: slice(-last_rows, None)})
    if isinstance(X, xr.Dataset):
        return _read_dataset(X, time)
    return _read_array(X, time)


def time_dimension(X: Any) -> Hashable:
    """Return the name of the time dimension of a DataArray or Dataset.

    Raises
    ------
    InputError
        When it is not clear.
    """
    dims = list(X.dims)
    if not dims:
        raise InputError(
            f"the {type(X).__name__} has no dimension, a time dimension is needed",
            where="X.dims",
            hint="Give data with a dimension called 'time'.",
        )
    if "time" in dims:
        return "time"
    dated = [
        dim
        for dim in dims
        if dim in X.coords and np.issubdtype(X[dim].dtype, np.datetime64)
    ]
    if len(dated) == 1:
        only: Hashable = dated[0]
        return only
    others = [dim for dim in dims if dim != SERIES]
    if len(dated) > 1 or not others:
        raise InputError(
            f"the time dimension is not clear among {dims}",
            where="X.dims",
            hint="Rename it: X.rename({'...': 'time'}).",
        )
    first: Hashable = others[0]
    return first


def _index(X: Any, time: Hashable) -> Any:
    if time in X.indexes:
        return X.indexes[time]
    return pd.RangeIndex(X.sizes[time], name=time)


def _read_array(X: Any, time: Hashable) -> Panel:
    others = [dim for dim in X.dims if dim not in (time, SERIES)]
    has_series = SERIES in X.dims
    order = ([SERIES] if has_series else []) + [time, *others]
    block = np.asarray(X.transpose(*order).data)
    n_rows = X.sizes[time]
    n_series = X.sizes[SERIES] if has_series else 1
    flat = as_float64(block.reshape(n_series * n_rows, -1), where="X")
    values = flat.reshape(n_series, n_rows, -1)
    layout = _layout(X, time)
    return Panel(
        values=tuple(values),
        times=(_index(X, time),) * n_series,
        series_ids=_series_labels(X) if has_series else (0,),
        columns=layout.columns(),
        layout=layout,
    )


def _series_labels(X: Any) -> tuple[Any, ...]:
    if SERIES in X.indexes:
        return tuple(X.indexes[SERIES])
    return tuple(range(X.sizes[SERIES]))


def _read_dataset(X: Any, time: Hashable) -> Panel:
    has_series = SERIES in X.dims
    allowed = {time, SERIES} if has_series else {time}
    wrong = [name for name in X.data_vars if set(X[name].dims) != allowed]
    names = sorted(map(str, allowed))
    if wrong or not len(X.data_vars):
        raise InputError(
            f"each variable of a Dataset must have the dimensions {names}, "
            f"{wrong[:5]} have others"
            if wrong
            else "the Dataset holds no variable",
            where="X.data_vars",
            hint="Drop them, or give a DataArray, whose other dimensions are columns.",
        )
    order = ([SERIES] if has_series else []) + [time]
    n_series = X.sizes[SERIES] if has_series else 1
    columns = tuple(X.data_vars)
    parts = [
        as_float64(
            np.asarray(X[name].transpose(*order).data).reshape(-1, 1),
            where="X",
            column_names=[name],
        )
        for name in columns
    ]
    values = np.concatenate(parts, axis=1).reshape(n_series, -1, len(columns))
    return Panel(
        values=tuple(values),
        times=(_index(X, time),) * n_series,
        series_ids=_series_labels(X) if has_series else (0,),
        columns=columns,
        layout=_layout(X, time),
    )


def _layout(X: Any, time: Hashable) -> "XarrayLayout":
    # A stacked dimension keeps its levels inside its own index.
    stacked = {
        dim: index
        for dim, index in X.indexes.items()
        if index.nlevels > 1 and dim in X.dims
    }
    levels = {name for index in stacked.values() for name in index.names}
    coordinates = {
        name: (
            tuple(coordinate.dims),
            stacked[name] if name in stacked else np.asarray(coordinate.data),
            coordinate.attrs,
        )
        for name, coordinate in X.coords.items()
        if time not in coordinate.dims and name not in levels
    }
    is_dataset = isinstance(X, xr.Dataset)
    variables = list(X.data_vars) if is_dataset else []
    return XarrayLayout(
        time=time,
        dims=tuple(X[variables[0]].dims if is_dataset else X.dims),
        sizes={dim: size for dim, size in X.sizes.items() if dim != time},
        name=None if is_dataset else X.name,
        coordinates=coordinates,
        time_attributes=dict(X[time].attrs) if time in X.coords else None,
        attributes=dict(X.attrs),
        variable_attributes=(
            {name: dict(X[name].attrs) for name in variables} if is_dataset else None
        ),
    )


@dataclass(frozen=True)
class XarrayLayout:
    """Dims, coordinates and attributes of a DataArray, or of a Dataset."""

    time: Any
    dims: tuple[Any, ...]
    sizes: dict[Any, int]
    name: Any
    coordinates: dict[Any, Any]
    time_attributes: dict[Any, Any] | None
    attributes: dict[Any, Any]
    variable_attributes: dict[Any, Any] | None = None

    def columns(self) -> tuple[Any, ...]:
        """Column labels of a DataArray, in the order of its values."""
        others = self._others()
        labels = [
            list(pd.Index(self.coordinates[dim][1]))
            if dim in self.coordinates
            else list(range(self.sizes[dim]))
            for dim in others
        ]
        if len(others) == 1:
            return tuple(labels[0])
        if others:
            return tuple(pd.MultiIndex.from_product(labels))
        return (self.name if self.name is not None else "value",)

    def _others(self) -> list[Any]:
        return [dim for dim in self.dims if dim not in (self.time, SERIES)]

    def write(
        self,
        panel: Panel,
        forecasts: Sequence[FloatArray],
        times: Sequence[Any],
        targets: Sequence[int],
    ) -> Any:
        """Build the container from forecasts."""
        if any(not index.equals(times[0]) for index in times[1:]):
            raise CapabilityError(
                "the series end at different times, and one array has one time axis",
                where="X",
                hint="Give a dict of arrays, one for each series.",
            )
        coordinates = dict(self.coordinates)
        if self.time_attributes is not None:
            coordinates[self.time] = ((self.time,), times[0], self.time_attributes)
        block = np.stack(list(forecasts))
        if self.variable_attributes is not None:
            return self._write_dataset(panel, block, coordinates, targets)
        return self._write_array(panel, block, coordinates, targets)

    def _write_array(
        self,
        panel: Panel,
        block: FloatArray,
        coordinates: dict[Any, Any],
        targets: Sequence[int],
    ) -> Any:
        assert panel.columns is not None
        others = self._others()
        shape = [self.sizes[dim] for dim in others]
        # The panel may have its columns in another order, that of fit.
        own = {label: place for place, label in enumerate(self.columns())}
        places = [own[panel.columns[position]] for position in targets]
        if len(others) == 1:
            coordinates = self._cut(coordinates, others[0], places)
            shape = [len(places)]
        elif len(places) != len(own):
            raise CapabilityError(
                f"{len(places)} targets do not fill the dimensions {others}",
                where="targets",
                hint="Stack the dimensions into one: X.stack(cell=[...]).",
            )
        else:
            block = block[..., np.argsort(places)]
        # axes: (series, time, other dimensions as they were)
        block = block.reshape(*block.shape[:2], *shape)
        has_series = SERIES in self.dims
        array = xr.DataArray(
            block if has_series else block[0],
            dims=[SERIES, self.time, *others] if has_series else [self.time, *others],
            coords=_coordinates(coordinates),
            name=self.name,
            attrs=self.attributes,
        )
        return array.transpose(*self.dims, transpose_coords=False)

    def _cut(
        self, coordinates: dict[Any, Any], dim: Any, places: Sequence[int]
    ) -> dict[Any, Any]:
        cut = {}
        for name, (dims, values, attributes) in coordinates.items():
            if dim in dims and isinstance(values, pd.MultiIndex):
                values = values.take(list(places))
            elif dim in dims:
                values = np.take(values, list(places), axis=dims.index(dim))
            cut[name] = (dims, values, attributes)
        return cut

    def _write_dataset(
        self,
        panel: Panel,
        block: FloatArray,
        coordinates: dict[Any, Any],
        targets: Sequence[int],
    ) -> Any:
        assert panel.columns is not None and self.variable_attributes is not None
        has_series = SERIES in self.dims
        variables = {}
        for number, position in enumerate(targets):
            name = panel.columns[position]
            dims = [SERIES, self.time] if has_series else [self.time]
            values = block[:, :, number] if has_series else block[0, :, number]
            attributes = self.variable_attributes[name]
            variable = xr.Variable(dims, values, attrs=attributes)
            variables[name] = variable.transpose(*self.dims)
        return xr.Dataset(
            variables, coords=_coordinates(coordinates), attrs=self.attributes
        )


def _coordinates(coordinates: dict[Any, Any]) -> Any:
    """Coordinates with their indexes, stacked ones included."""
    plain: dict[Any, Any] = {}
    for name, (dims, values, attributes) in coordinates.items():
        if isinstance(values, pd.MultiIndex):
            plain |= xr.Coordinates.from_pandas_multiindex(values, name)
            plain[name].attrs.update(attributes)
        else:
            plain[name] = (dims, values, attributes)
    return plain
