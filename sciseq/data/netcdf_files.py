"""NetCDF files (version 3 and 4) as tables: variables over time become columns.

A time zone, which NetCDF does not know, is kept as the attribute ``time_zone`` of the
time coordinate, whose values are then UTC.
"""

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr

from sciseq.errors import FileFormatError, InputError, nearest_name

__all__ = ["dataset_of", "frame_of", "read_netcdf", "write_netcdf"]

_ZONE = "time_zone"
# What the readers of both versions raise on damaged or foreign files.
_UNREADABLE = (
    OSError,
    ValueError,
    KeyError,
    IndexError,
    TypeError,
    RuntimeError,
    EOFError,
)


def read_netcdf(
    file: Path,
    *,
    time_column: str | None = None,
    series_column: str | None = None,
    drop: Sequence[str] = (),
) -> Any:
    """Read the variables over time of a NetCDF file.

    Parameters
    ----------
    file : Path
        NetCDF 3 or 4.
    time_column : str, optional
        The time dimension; by default ``time``, or the only one with dates.
    series_column : str, optional
        A dimension that holds many series.
    drop : sequence of str
        Variables to leave out.

    Returns
    -------
    pandas.DataFrame
        One column per variable, or, when the file holds one variable over time and
        other dimensions, one per cell. ``attrs["units"]`` holds the units that the
        file gives. Variables that do not depend on time are not part of the table.

    Raises
    ------
    FileFormatError
        When the file cannot be read.
    InputError
        When the dimensions do not make a table.
    """
    return frame_of(
        _load(file),
        file,
        time_column=time_column,
        series_column=series_column,
        drop=drop,
    )


def frame_of(
    data: Any,
    file: Path,
    *,
    time_column: str | None = None,
    series_column: str | None = None,
    drop: Sequence[str] = (),
) -> Any:
    """Return the variables over time of a dataset that was read from ``file``.

    As :func:`read_netcdf`.
    """
    unknown = [name for name in drop if name not in data.variables]
    if unknown:
        raise InputError(
            f"there is no variable {unknown[0]!r} to leave out, only "
            f"{list(data.data_vars)[:20]}",
            where=str(file),
            hint=nearest_name(unknown[0], data.data_vars) or None,
        )
    data = data.drop_vars(list(drop)).reset_coords(drop=True)
    for name in (time_column, series_column):
        if name is not None and name not in data.dims:
            raise InputError(
                f"{name!r} is not a dimension, the file has {list(data.dims)}",
                where=str(file),
                hint=nearest_name(name, data.dims) or None,
            )
    time = time_column or _time_dimension(data, series_column, file)
    names = [name for name in data.data_vars if time in data[name].dims]
    if not names:
        raise InputError(
            f"no variable depends on {time!r}, the variables are "
            f"{list(data.data_vars)[:20]}",
            where=str(file),
            hint="Name the time dimension with --time-column (in Python: "
            "time_column=).",
        )
    return _to_frame(data[names], time, series_column, file)


def write_netcdf(frame: Any, path: Path) -> None:
    """Write a table: its columns become variables over the levels of its index.

    Parameters
    ----------
    frame : pandas.DataFrame
        Table over time, or over (series, time). ``attrs["units"]``, when it is a
        mapping, gives the units of columns.
    path : Path
        File to write.

    Raises
    ------
    InputError
        When a column cannot be a variable.
    """
    dataset_of(frame).to_netcdf(path, engine="h5netcdf")


def dataset_of(frame: Any) -> Any:
    """Return a table as an xarray dataset, as :func:`write_netcdf` writes it."""
    is_panel = frame.index.nlevels == 2
    usual = ["series", "time"] if is_panel else ["time"]
    if not is_panel and not isinstance(_plain(frame.index), pd.DatetimeIndex):
        usual = ["row"]
    dims = [
        default if name is None else str(name)
        for name, default in zip(frame.index.names, usual, strict=True)
    ]
    _check_names(frame.columns, dims)
    times = frame.index.get_level_values(-1)
    table = frame.set_axis([str(name) for name in frame.columns], axis=1)
    if is_panel:
        series = frame.index.get_level_values(0)
        table.index = pd.MultiIndex.from_arrays([series, _plain(times)], names=dims)
    else:
        table.index = _plain(times).rename(dims[0])
    data = table.to_xarray()
    zone = getattr(times, "tz", None)
    if zone is not None:
        data[dims[-1]].attrs[_ZONE] = str(zone)
    units = frame.attrs.get("units")
    for name in data.data_vars:
        if isinstance(units, Mapping) and name in units:
            data[name].attrs["units"] = str(units[name])
    return data


def _load(file: Path) -> Any:
    with file.open("rb") as stream:
        engine: Any = "scipy" if stream.read(3) == b"CDF" else "h5netcdf"
    try:
        # Bounds and grid mappings count as coordinates: they are no measurements.
        with xr.open_dataset(
            file, engine=engine, decode_coords="all", decode_timedelta=False
        ) as opened:
            return opened.load()
    except _UNREADABLE as error:
        raise FileFormatError(
            f"{file.name} cannot be read as NetCDF: {error}",
            where=str(file),
            hint="The file may be damaged or cut off; copy or download it again.",
        ) from error


def _time_dimension(data: Any, series: str | None, file: Path) -> Hashable:
    dims: list[Hashable] = [dim for dim in data.dims if dim != series]
    dated = [dim for dim in dims if isinstance(data.indexes.get(dim), pd.DatetimeIndex)]
    usual = [dim for dim in dims if dim == "time"]
    for choice in (usual, dated, dims):
        if len(choice) == 1:
            return choice[0]
    raise InputError(
        f"the time dimension is not clear among {dims}",
        where=str(file),
        hint="Name it with --time-column (in Python: time_column=).",
    )


def _to_frame(data: Any, time: Hashable, series: str | None, file: Path) -> Any:
    rows = [time] if series is None else [series, time]
    gridded = [name for name in data.data_vars if set(data[name].dims) - set(rows)]
    if gridded and len(data.data_vars) > 1:
        raise InputError(
            f"variables {gridded[:5]} have dimensions besides {rows}, next to "
            f"{len(data.data_vars) - 1} other variables",
            where=str(file),
            hint="Leave variables out with --drop (in Python: drop=[...], in a job: "
            "source.drop), or name a dimension of many series with --series-column.",
        )
    units = {
        str(name): data[name].attrs["units"]
        for name in data.data_vars
        if "units" in data[name].attrs
    }
    zone = data[time].attrs.get(_ZONE) if time in data.coords else None
    if gridded:
        frame = _cells(data[gridded[0]], rows)
        units = dict.fromkeys(frame.columns, units[gridded[0]]) if units else {}
    else:
        # A variable without the series dimension is repeated for every series.
        frame = data.to_dataframe(dim_order=rows)
        frame.columns = frame.columns.map(str)
    if time not in data.indexes and series is None:
        frame.index = pd.RangeIndex(len(frame))
    if zone is not None:
        frame.index = _localize(frame.index, zone)
    if series is not None:
        frame = _without_padding(frame)
        # Text comes as Python objects.
        names = frame.index.levels[0].infer_objects()
        frame.index = frame.index.set_levels(names, level=0)
    frame.attrs = {"units": units} if units else {}
    return frame


def _cells(array: Any, rows: list[Any]) -> Any:
    """One column per cell of the dimensions that are not rows."""
    others = [dim for dim in array.dims if dim not in rows]
    stacked = array.stack(row=rows, cell=others).transpose("row", "cell")
    labels = [
        ", ".join(str(part) for part in label) if isinstance(label, tuple) else label
        for label in stacked.indexes["cell"]
    ]
    index = stacked.indexes["row"]
    if len(rows) == 1:
        index = index.get_level_values(0)
    columns = pd.Index([str(label) for label in labels])
    return pd.DataFrame(stacked.to_numpy(), index=index, columns=columns)


def _localize(index: Any, zone: str) -> Any:
    if index.nlevels == 1:
        return index.tz_localize("UTC").tz_convert(zone)
    times = index.levels[-1].tz_localize("UTC").tz_convert(zone)
    return index.set_levels(times, level=-1)


def _without_padding(frame: Any) -> Any:
    """Cut rows without any value from both ends of each series.

    Series of unequal length fill a rectangle in the file; gaps inside a series stay.
    """
    known = frame.notna().any(axis=1)
    begun = known.groupby(level=0).cummax()
    not_over = known[::-1].groupby(level=0).cummax()[::-1]
    kept = frame[begun & not_over]
    kept.index = kept.index.remove_unused_levels()
    return kept


def _plain(index: Any) -> Any:
    """Turn times into what NetCDF can hold: dates in UTC without a zone."""
    if isinstance(index, pd.PeriodIndex):
        return index.to_timestamp()
    if isinstance(index, pd.DatetimeIndex) and index.tz is not None:
        return index.tz_convert("UTC").tz_localize(None)
    return index


def _check_names(columns: Any, dims: Sequence[str]) -> None:
    for name in map(str, columns):
        if not name or "/" in name or name in dims:
            reason = "is a dimension too" if name in dims else "is empty or holds '/'"
            raise InputError(
                f"column {name!r} cannot be a NetCDF variable: the name {reason}",
                where="columns",
                hint="Rename the column, or write CSV or Parquet.",
            )
