"""Zarr stores as sources and destinations of tables; xarray does the work."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sciseq.data.netcdf_files import dataset_of, frame_of
from sciseq.errors import FileFormatError, MissingDependencyError

__all__ = ["read_zarr", "write_zarr"]


def _xarray() -> Any:
    try:
        import zarr  # noqa: F401 (xarray needs it)
    except ImportError as error:
        raise MissingDependencyError(
            "Zarr stores need the package zarr",
            hint='Install it with: pip install "sciseq[jobs]"',
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
        As :func:`sciseq.data.table_files.read_table` returns.

    Raises
    ------
    FileFormatError
        When it is no such store.
    MissingDependencyError
        Without the package zarr.
    """
    try:
        data = _xarray().open_zarr(path, consolidated=False)
    except (OSError, ValueError, KeyError) as error:
        raise FileFormatError(
            f"this is no Zarr store: {error}", where=str(path)
        ) from error
    return frame_of(
        data, path, time_column=time_column, series_column=series_column, drop=drop
    )


def write_zarr(frame: Any, path: Path) -> None:
    """Write a table as a Zarr store; the old one is there until the new one is whole.

    Parameters
    ----------
    frame : pandas.DataFrame
        Table over time, or over (series, time).
    path : Path
        Folder to make or replace.
    """
    _xarray()
    new, old = path.with_name(f".{path.name}.part"), path.with_name(f".{path.name}.old")
    for left in (new, old):
        shutil.rmtree(left, ignore_errors=True)
    dataset_of(frame).to_zarr(new, mode="w", consolidated=False)
    if path.exists():
        path.rename(old)
    new.rename(path)
    shutil.rmtree(old, ignore_errors=True)
