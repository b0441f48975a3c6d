"""Cutting a gridded field into parts of cells, and joining their forecasts.

Each cell is a series of one variable. A field of Dask chunks is cut along these, and
the process that works on a part reads its chunks then.

Axes: time, and the other dimensions of the field, which together are its cells. A cell
is named by its place among all cells, counted in the order of these dimensions.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from sciseq.data.xarray_tables import time_dimension
from sciseq.errors import InputError

__all__ = ["FieldPart", "field_parts", "join_field"]


@dataclass(frozen=True)
class FieldPart:
    """A block of neighbouring cells, read when its table is asked for.

    Parameters
    ----------
    block : DataArray
        All its times, first, and its cells.
    first : tuple of int
        Place of its first cell, by dimension.
    shape : tuple of int
        Shape of the whole field without time.
    """

    block: Any
    first: tuple[int, ...]
    shape: tuple[int, ...]

    def cells(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Return the places of the cells in the field."""
        places = np.ravel_multi_index(
            np.ix_(
                *(
                    np.arange(start, start + size)
                    for start, size in zip(
                        self.first, self.block.shape[1:], strict=True
                    )
                )
            ),
            self.shape,
        )
        return np.asarray(places, dtype=np.int64).ravel()

    def frame(self) -> pd.DataFrame:
        """Read the cells as a table with a (series, time) index.

        Returns
        -------
        DataFrame
            One column, called like the field. Cells without any value, such as land in
            a field of the sea, are left out.
        """
        block = self.block
        if block.chunks is not None:
            # In this process: others have parts of their own.
            block = block.compute(scheduler="synchronous")
        time = block.dims[0]
        values = np.asarray(block.data, dtype=np.float64).reshape(block.shape[0], -1).T
        has_values = ~np.isnan(values).all(axis=1)
        times = block.indexes.get(time, pd.RangeIndex(block.shape[0]))
        index = pd.MultiIndex.from_product(
            [self.cells()[has_values], times], names=["series", "time"]
        )
        name = "value" if block.name is None else block.name
        return pd.DataFrame({name: values[has_values].ravel()}, index=index)


def field_parts(
    field: Any, cells_per_part: int = 1000, *, last_rows: int | None = None
) -> Iterator[FieldPart]:
    """Cut a field into blocks of cells.

    Parameters
    ----------
    field : DataArray
        With a time dimension, and any others.
    cells_per_part : int, default=1000
        Most cells in a part. A field of Dask chunks has its own parts: a chunk of
        cells with all its times.
    last_rows : int, optional
        Times to read, from the end: what a forecast looks back on. All by default.

    Yields
    ------
    FieldPart
        Not read yet.

    Raises
    ------
    InputError
        For a number below 1, or when the time dimension is not clear.

    Examples
    --------
    >>> field = xr.DataArray(np.arange(12.0).reshape(2, 2, 3), dims=["time", "y", "x"])
    >>> [part.cells().tolist() for part in field_parts(field, 3)]
    [[0, 1, 2], [3, 4, 5]]
    >>> next(field_parts(field, 2)).frame()["value"].tolist()
    [0.0, 6.0, 1.0, 7.0]
    """
    if cells_per_part < 1:
        raise InputError(
            f"cells_per_part is {cells_per_part}, must be at least 1",
            where="cells_per_part",
        )
    time = time_dimension(field)
    others = _others(field, time)
    field = field.transpose(time, *others)
    if last_rows is not None:
        field = field.isel({time: slice(-last_rows, None)})
    shape = tuple(field.sizes[dim] for dim in others)
    if field.chunks is None:
        chunks = _even_chunks(shape, cells_per_part)
    else:
        chunks = [field.chunksizes[dim] for dim in others]
    spans = [list(itertools.pairwise(itertools.accumulate(sizes, initial=0)))
             for sizes in chunks]  # fmt: skip
    for box in itertools.product(*spans):
        cut = {dim: slice(*span) for dim, span in zip(others, box, strict=True)}
        # Coordinates stay with the field: a part is joined by the places of its cells.
        block = field.isel(cut).drop_vars([one for one in field.coords if one != time])
        yield FieldPart(_culled(block), tuple(start for start, _ in box), shape)


def join_field(
    forecasts: Iterable[pd.DataFrame], like: Any, column: Hashable = None
) -> Any:
    """Put the forecasts of cells back into a field.

    Parameters
    ----------
    forecasts : iterable of DataFrame
        Of the parts, in any order.
    like : DataArray
        The field that was cut; none of its values are read.
    column : hashable, optional
        Column of the forecasts, their first by default.

    Returns
    -------
    DataArray
        Forecast times, and the dimensions, coordinates and attributes of the field.
        NaN where a cell has no forecast.

    Raises
    ------
    InputError
        When there is no forecast, or their times differ.

    Examples
    --------
    >>> field = xr.DataArray(np.ones((2, 3)), dims=["time", "x"], attrs={"units": "K"})
    >>> index = pd.MultiIndex.from_product([[0, 2], [2]], names=["series", "time"])
    >>> joined = join_field([pd.DataFrame({"value": [5.0, 6.0]}, index=index)], field)
    >>> joined.values, joined.attrs
    (array([[ 5., nan,  6.]]), {'units': 'K'})
    """
    time = time_dimension(like)
    others = _others(like, time)
    shape = tuple(like.sizes[dim] for dim in others)
    block: Any = None
    times: Any = None
    for forecast in forecasts:
        if not len(forecast):
            continue
        index: Any = forecast.index
        own = index.levels[1]
        cells = index.get_level_values(0).to_numpy()[:: len(own)]
        if block is None:
            times, block = own, np.full((len(own), math.prod(shape)), np.nan)
        if not own.equals(times) or len(forecast) != len(cells) * len(own):
            raise InputError(
                "the forecasts of a field have different times",
                where="forecasts",
                hint="Join forecasts of one field with one horizon.",
            )
        values = forecast.iloc[:, 0] if column is None else forecast[column]
        block[:, cells] = values.to_numpy().reshape(len(cells), -1).T
    if block is None:
        raise InputError("no cell has a forecast", where="forecasts")
    fixed = like.isel({time: 0}, drop=True).coords
    array = xr.DataArray(
        block.reshape(-1, *shape),
        dims=[time, *others],
        coords=fixed,
        name=like.name,
        attrs=like.attrs,
    )
    if time in like.coords:
        array = array.assign_coords({time: (time, times, like[time].attrs)})
    return array.transpose(*like.dims)


def _others(field: Any, time: Hashable) -> list[Hashable]:
    return [dim for dim in field.dims if dim != time]


def _even_chunks(shape: Sequence[int], n_cells: int) -> list[tuple[int, ...]]:
    """Sizes of chunks by dimension, of so many cells at most, long in the last ones.

    Examples
    --------
    >>> _even_chunks((4, 3), 6), _even_chunks((4, 3), 2)
    ([(2, 2), (3,)], [(1, 1, 1, 1), (2, 1)])
    """
    chunks: list[tuple[int, ...]] = []
    for length in reversed(shape):
        size = max(1, min(length, n_cells))
        n_cells //= size
        whole, rest = divmod(length, size)
        chunks.append((size,) * whole + ((rest,) if rest else ()))
    return chunks[::-1]


def _culled(block: Any) -> Any:
    """Drop from a lazy block the chunks of others, which would travel along."""
    if block.chunks is None:
        return block
    from dask.base import optimize

    (culled,) = optimize(block)
    return culled
