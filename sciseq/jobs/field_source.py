"""Gridded fields as sources: each cell is a series, read when it is needed.

Axes: time, and the other dimensions of the field, which together are its cells.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sciseq.data.xarray_tables import time_dimension
from sciseq.errors import FileFormatError, InputError, nearest_name
from sciseq.jobs.field_parts import FieldPart, field_parts, join_field
from sciseq.jobs.logical_dates import logical_date

__all__ = ["FieldHistory", "open_field"]


@dataclass(frozen=True)
class FieldHistory:
    """The part of a field that a run may use; nothing is read before it is asked for.

    Parameters
    ----------
    field : xarray.DataArray
        Times before the logical date.
    as_of : pandas.Timestamp
        Logical date.
    where : str
        Where it came from.
    notes : tuple of str
        What a person should know.
    """

    field: Any
    as_of: Any
    where: str
    notes: tuple[str, ...] = ()

    @cached_property
    def frame(self) -> Any:
        """The whole field as a table over (series, time): for fits and gates."""
        return pd.concat([one.frame() for one in self.parts(100_000)]).sort_index()

    def parts(self, number: int) -> Iterator[FieldPart]:
        """Cut the field into parts of cells."""
        return field_parts(self.field, number)

    def facts(self, before: Any = None) -> dict[str, Any]:
        """Return what the record of a run says of its source, up to a date."""
        time = time_dimension(self.field)
        times = pd.Index(self.field.indexes[time])
        field = self.field
        if before is not None:
            field = field.isel({time: times < before})
            times = times[times < before]
        total = hashlib.sha256(repr((field.dims, field.shape)).encode())
        total.update(times.astype(str).str.cat(sep=" ").encode())
        cells = 0
        for part in field_parts(field):
            frame = part.frame()
            cells += len(frame.index.unique(level=0))
            total.update(part.cells().tobytes())
            total.update(np.ascontiguousarray(frame.to_numpy()).tobytes())
        return {
            "where": self.where,
            "digest": total.hexdigest(),
            "rows": cells * len(times),
            "series": cells,
            "first": str(times.min()),
            "last": str(times.max()),
        }

    def shown(self) -> Any:
        """Return the rows that a report shows: None when they have not been read."""
        return self.__dict__.get("frame")

    def as_result(self, frame: Any, suffix: str) -> Any:
        """Return forecasts of cells as a field again, for a file that holds fields."""
        if suffix not in (".nc", ".nc4", ".zarr"):
            return frame
        import xarray as xr

        return xr.Dataset(
            {
                str(name): join_field([frame], self.field, name).rename(str(name))
                for name in frame.columns
            }
        )


def open_field(path: Path, name: str, as_of: Any) -> FieldHistory:
    """Open a variable of a file or store, by its chunks where Dask is there.

    Parameters
    ----------
    path : Path
        ``.nc`` or ``.zarr``.
    name : str
        The variable.
    as_of : pandas.Timestamp or str, optional
        Times before it are used. By default one step after the last time.

    Raises
    ------
    FileFormatError
        When it cannot be opened.
    InputError
        For a variable that is not there or has no dates.
    """
    import xarray as xr

    is_zarr = path.suffix.lower() == ".zarr"
    if is_zarr:
        from sciseq.jobs.zarr_stores import need_zarr

        need_zarr()
    try:
        if is_zarr:
            data = xr.open_zarr(path, chunks=_chunks(), consolidated=False)
        else:
            data = xr.open_dataset(path, engine="h5netcdf", chunks=_chunks())
    except (OSError, ValueError, KeyError) as error:
        raise FileFormatError(
            f"this cannot be opened as a field: {error}", where=str(path)
        ) from error
    if name not in data.data_vars:
        raise InputError(
            f"there is no variable {name!r}, only {list(data.data_vars)[:20]}",
            where="source.field",
            hint=nearest_name(name, map(str, data.data_vars)) or None,
        )
    field = data[name]
    time = time_dimension(field)
    times = field.indexes.get(time)
    if not isinstance(times, pd.DatetimeIndex):
        raise InputError(f"{time!r} of {name!r} holds no dates", where="source.field")
    date = logical_date(times, times, as_of)
    known = field.isel({time: times < date})
    if not known.sizes[time]:
        raise InputError(
            f"no time is before {date}: the first is {times.min()}", where="as_of"
        )
    return FieldHistory(known, date, path.name)


def _chunks() -> dict[str, Any] | None:
    """Return the chunks to open with: those of the file, or none without Dask."""
    try:
        import dask.array  # noqa: F401
    except ImportError:
        return None
    return {}
