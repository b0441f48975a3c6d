"""Zarr stores as sources and destinations of tables; xarray does the work."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from sciseq.data.netcdf_files import dataset_of, frame_of
from sciseq.errors import FileFormatError, MissingDependencyError

__all__ = ["need_zarr", "read_zarr", "write_zarr"]


def need_zarr() -> Any:
    """Return xarray, when it can open Zarr stores."""
    try:
        import zarr  # noqa: F401 (xarray needs it)
    except ImportError as error:
        raise MissingDependencyError(
            "Zarr stores need the package zarr",
            hint='Install it with: pip install "sciseq[zarr]"',
        ) from error
    import xarray

    return xarray


def read_zarr(
    path: Path,
    *,
    time_column: str | None = None,
    series_column: str | None = None,
    drop: Sequence[str] = (),
) -> Any:
    """Read the variables over time of a Zarr store.

    Parameters
    ----------
    path : Path
        Folder.
    time_column, series_column : str, optional
        Dimensions.
    drop : sequence of str
        Variables to leave out.

    Returns
    -------
    pandas.DataFrame
        With one column for each variable, over time or over (series, time).

    Raises
    ------
    FileFormatError
        When it is no such store.
    MissingDependencyError
        Without the package zarr.
    """
    try:
        data = need_zarr().open_zarr(path, consolidated=False)
    except (OSError, ValueError, KeyError) as error:
        raise FileFormatError(
            f"this is no Zarr store: {error}", where=str(path)
        ) from error
    return frame_of(
        data, path, time_column=time_column, series_column=series_column, drop=drop
    )


def write_zarr(table: Any, path: Path) -> None:
    """Write a table as a Zarr store; the old one is there until the new one is whole.

    Parameters
    ----------
    table : pandas.DataFrame or xarray.Dataset
        Table over time, or over (series, time), or fields.
    path : Path
        Folder to make or replace.
    """
    need_zarr()
    new, old = path.with_name(f".{path.name}.part"), path.with_name(f".{path.name}.old")
    for left in (new, old):
        shutil.rmtree(left, ignore_errors=True)
    data = dataset_of(table) if isinstance(table, pd.DataFrame) else table
    data.to_zarr(new, mode="w", consolidated=False)
    if path.exists():
        path.rename(old)
    new.rename(path)
    shutil.rmtree(old, ignore_errors=True)
