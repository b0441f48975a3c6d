"""Tables in files: CSV, Parquet and NetCDF, read with care and written whole.

What a file is, its content says; its suffix must agree. Times come back with their
name and zone. CSV knows no names of zones: it keeps the offset from UTC.
"""

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from sciseq.data.delimited_files import FlatTable, read_delimited, write_delimited
from sciseq.data.long_format import from_long
from sciseq.data.time_columns import find_times
from sciseq.errors import FileFormatError, InputError, nearest_name
from sciseq.files import temporary_path

__all__ = ["TABLE_SUFFIXES", "read_table", "table_kind", "write_table"]

TABLE_SUFFIXES = {
    ".csv": "CSV",
    ".tsv": "CSV",
    ".csv.gz": "compressed CSV",
    ".tsv.gz": "compressed CSV",
    ".parquet": "Parquet",
    ".nc": "NetCDF",
    ".nc4": "NetCDF",
}
"""Kind of table by suffix."""

# First bytes of files, and what they are; ours under the names of TABLE_SUFFIXES.
_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"PAR1", "Parquet"),
    (b"\x89HDF\r\n\x1a\n", "NetCDF"),
    (b"CDF", "NetCDF"),
    (b"\x1f\x8b", "compressed CSV"),
    (b"PK\x03\x04", "a ZIP archive (Excel workbooks are such)"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\xff\xfe", "UTF-16 text"),
    (b"\xfe\xff", "UTF-16 text"),
)
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")


def read_table(
    path: str | os.PathLike[str],
    *,
    time_column: str | None = None,
    series_column: str | None = None,
    drop: Sequence[str] = (),
) -> pd.DataFrame:
    r"""Read a table of numbers over time from a file.

    Parameters
    ----------
    path : path-like
        CSV (``.csv``, ``.tsv``, also compressed: ``.csv.gz``), Parquet (``.parquet``)
        or NetCDF (``.nc``). Separators of CSV are recognised.
    time_column : str, optional
        Column that labels the rows: dates, or plain numbers. By default the index of
        the file when it holds dates, else the only column of dates; of several the
        one called time, date, datetime, timestamp or ds.
    series_column : str, optional
        Column that names the series of a table in long format; without it, every
        row is a time of one table.
    drop : sequence of str
        Columns to leave out.

    Returns
    -------
    pandas.DataFrame
        Numeric columns over time, over (series, time) with ``series_column``, or over
        row numbers when the file holds no dates.

    Raises
    ------
    InputError
        When there is no such file, when the time is ambiguous, or when columns hold
        no numbers or share a name.
    FileFormatError
        When the file is not what its suffix says, is empty or damaged.
    UnsafeFileError
        For a compressed file that grows out of all proportion.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder, "flow.csv")
    ...     _ = file.write_text("day;flow\n2024-01-01;3.5\n2024-01-02;4\n")
    ...     read_table(file)
                flow
    day
    2024-01-01   3.5
    2024-01-02   4.0
    """
    file = Path(path)
    kind = _checked_kind(file)
    frame: pd.DataFrame
    if kind == "NetCDF":
        from sciseq.data.netcdf_files import read_netcdf

        frame = read_netcdf(
            file, time_column=time_column, series_column=series_column, drop=drop
        )
    else:
        texts = [] if series_column is None else [series_column]
        read = _read_parquet if kind == "Parquet" else read_delimited
        flat = read(file, texts)
        flat = flat._replace(frame=_without(flat.frame, drop, file))
        frame = _index_by_time(flat, time_column, series_column, file)
    _check_columns(frame, file)
    frame.index = _in_microseconds(frame.index)
    return frame


def write_table(frame: pd.DataFrame, path: str | os.PathLike[str]) -> None:
    """Write a table so that the file is complete or not there.

    Parameters
    ----------
    frame : pandas.DataFrame
        Table over time, or over (series, time).
    path : path-like
        The suffix decides the kind: ``.csv``, ``.tsv`` (also ``.csv.gz``),
        ``.parquet``, ``.nc``.

    Raises
    ------
    FileFormatError
        For another suffix.
    OSError
        When the folder is missing, full or not writable; a file that was there before
        is unchanged.

    Notes
    -----
    :func:`read_table` gives the same values, columns and times back. NetCDF and CSV
    hold periods as the date of their start.

    Examples
    --------
    >>> import tempfile
    >>> frame = pd.DataFrame({"flow": [3.5, 4.0]}, index=pd.date_range(
    ...     "2024-01-01", periods=2, name="day", tz="Europe/Berlin"))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_table(frame, Path(folder, "flow.parquet"))
    ...     print(read_table(Path(folder, "flow.parquet")).index.tz)
    Europe/Berlin
    """
    kind = table_kind(path)
    with temporary_path(path) as temporary:
        _WRITERS[kind](frame, temporary)


def table_kind(path: str | os.PathLike[str]) -> str:
    """Return the kind of table that a file name stands for.

    Raises
    ------
    FileFormatError
        When the suffix is none of ``TABLE_SUFFIXES``.

    Examples
    --------
    >>> table_kind("forecast.csv.gz")
    'compressed CSV'
    """
    # Other suffixes may stand in between: "table.csv.part.gz" is compressed CSV.
    suffixes = [suffix.lower() for suffix in Path(path).suffixes]
    ending = suffixes[-1] if suffixes else ""
    before = [suffix for suffix in suffixes[:-1] if suffix in TABLE_SUFFIXES]
    if ending == ".gz" and before:
        ending = before[-1] + ending
    if ending in TABLE_SUFFIXES:
        return TABLE_SUFFIXES[ending]
    raise FileFormatError(
        f"{Path(path).name!r} {f'ends in {ending!r}' if ending else 'has no suffix'}, "
        f"tables end in {', '.join(TABLE_SUFFIXES)}",
        where=str(path),
        hint=nearest_name(ending, TABLE_SUFFIXES) or "The suffix tells the format.",
    )


# ------------------------------------------------------------------------- reading


def _checked_kind(file: Path) -> str:
    """Kind of a file by its suffix, once its content agrees."""
    _check_is_file(file)
    kind = table_kind(file)
    try:
        with file.open("rb") as stream:
            start = stream.read(1024)
    except OSError as error:
        raise InputError(
            f"{file.name} cannot be read: {error.strerror}", where=str(file)
        ) from error
    if not start:
        raise FileFormatError(f"{file.name} is empty (0 bytes)", where=str(file))
    fallback = "binary data of an unknown kind" if b"\0" in start else "CSV"
    found = next((name for magic, name in _MAGIC if start.startswith(magic)), fallback)
    if found == kind:
        return kind
    suffix = next((one for one, name in TABLE_SUFFIXES.items() if name == found), "")
    shown = "plain text" if found == "CSV" else found
    raise FileFormatError(
        f"{file.name} is named like {kind}, but holds {shown}",
        where=str(file),
        hint=f"If it is a table, rename it to end in {suffix}."
        if suffix
        else "Save it as CSV, Parquet or NetCDF.",
    )


def _check_is_file(file: Path) -> None:
    if file.is_file():
        return
    if file.is_dir():
        raise InputError(
            f"{file} is a folder, a file is needed",
            where=str(file),
            hint=f"Tables end in {', '.join(TABLE_SUFFIXES)}.",
        )
    beside = []
    if file.parent.is_dir():
        beside = sorted(other.name for other in file.parent.iterdir())
    raise InputError(
        f"there is no file {str(file)!r}",
        where=str(file.absolute()),
        hint=nearest_name(file.name, beside) or None,
    )


def _read_parquet(file: Path, texts: Sequence[str]) -> FlatTable:
    try:
        # Labels that repeat are read as numbers and a short list: many times faster.
        frame = pd.read_parquet(file, read_dictionary=list(texts))
    except (OSError, ValueError, KeyError, NotImplementedError) as error:
        # pyarrow calls damage an OSError, too; the system's own errors have a number.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise FileFormatError(
            f"{file.name} cannot be read as Parquet: {error}",
            where=str(file),
            hint="The file may be damaged or cut off; copy or download it again.",
        ) from error
    if frame.empty:
        raise FileFormatError(f"{file.name} holds no rows", where=str(file))
    index = frame.index
    if isinstance(index, pd.RangeIndex) and index.name is None:
        return FlatTable(frame)
    names = [str(name or f"index_{level}") for level, name in enumerate(index.names)]
    clash = [name for name in names if name in frame.columns]
    if clash:
        raise InputError(
            f"column names must be unique, {clash} are also names of the index",
            where=str(file),
        )
    flat = frame.reset_index(names=names)
    return FlatTable(flat, names[-1], has_label_name=index.names[-1] is not None)


def _without(frame: Any, drop: Sequence[str], file: Path) -> Any:
    for name in drop:
        if name not in frame.columns:
            raise InputError(
                f"there is no column {name!r} to leave out, only "
                f"{list(frame.columns)[:20]}",
                where=str(file),
                hint=nearest_name(name, frame.columns) or None,
            )
    return frame.drop(columns=list(drop))


def _index_by_time(
    flat: FlatTable, time_column: str | None, series_column: str | None, file: Path
) -> Any:
    table = flat.frame
    if series_column is not None and series_column not in table.columns:
        raise InputError(
            f"series column {series_column!r} is missing, the table has "
            f"{list(table.columns)[:20]}",
            where=str(file),
            hint=nearest_name(series_column, table.columns) or None,
        )
    others = table.drop(columns=[] if series_column is None else [series_column])
    found = find_times(others, named=time_column, row_labels=flat.row_labels)
    labels = flat.row_labels
    if found is None:
        if series_column is not None:
            raise InputError(
                "a table in long format needs a column with the time of each row",
                where=str(file),
                hint="Name it with --time-column (in Python: time_column=).",
            )
        if labels is None or not pd.api.types.is_numeric_dtype(table[labels].dtype):
            return table
        found = labels, table[labels]
    name, times = found
    table = table.assign(**{name: times})
    if labels is not None and name != labels and _are_row_numbers(table[labels]):
        table = table.drop(columns=[labels])
    if series_column is not None:
        return _with_plain_labels(table, series_column, name)
    table = table.set_index(name)
    if name == labels and not flat.has_label_name:
        table.index.name = None
    return table


def _with_plain_labels(table: Any, series: str, time: str) -> Any:
    """Index by series and time; categories of a file stand for their labels."""
    labels = table[series]
    if not isinstance(labels.dtype, pd.CategoricalDtype):
        return from_long(table, series=series, time=time)
    plain = labels.cat.set_categories(labels.cat.categories.sort_values())
    found = from_long(table.assign(**{series: plain}), series=series, time=time)
    level = found.index.levels[0]
    found.index = found.index.set_levels(level.categories.rename(series), level=0)
    return found


def _are_row_numbers(labels: Any) -> bool:
    is_whole = pd.api.types.is_integer_dtype(labels.dtype)
    return is_whole and bool((labels.diff().iloc[1:] == 1).all())


def _in_microseconds(index: Any) -> Any:
    """Dates in one unit, whatever the file had, unless they need nanoseconds."""
    if index.nlevels == 2:
        levels = [_in_microseconds(level) for level in index.levels]
        return index.set_levels(levels)
    if not isinstance(index, pd.DatetimeIndex):
        return index
    if index.unit == "ns" and (index.asi8 % 1000).any():
        return index
    return index.as_unit("us")


# ------------------------------------------------------------------------- checks


def _check_columns(frame: Any, file: Path) -> None:
    if not frame.shape[1]:
        raise InputError(
            f"{file.name} holds no column besides the time",
            where=str(file),
            hint="At least one column of numbers is needed.",
        )
    if not frame.columns.is_unique:
        repeated = frame.columns[frame.columns.duplicated()].unique().tolist()
        raise InputError(
            f"column names must be unique, {repeated[:5]} appear more than once",
            where=str(file),
            hint="Rename them; columns are matched by name.",
        )
    bad = [
        name
        for name, dtype in frame.dtypes.items()
        if not pd.api.types.is_numeric_dtype(dtype) or pd.api.types.is_bool_dtype(dtype)
    ]
    if not bad:
        return
    shown = [_describe_text(frame[name]) for name in bad[:5]]
    names = ",".join(str(name) for name in bad)
    hint = f"Leave them out with --drop {names!r} (in Python: drop=[...], "
    hint += "in a job: source.drop)"
    if frame.index.nlevels == 1:
        hint += ", or name the column of series with --series-column"
    if any(_DECIMAL_COMMA.fullmatch(value) for _, _, value in shown):
        hint = "The file has decimal commas: save it with decimal points"
    described = ", ".join(
        f"{name!r} ({value!r} in row {row})" for name, row, value in shown
    )
    raise InputError(
        f"{len(bad)} of {frame.shape[1]} columns hold no numbers: {described}",
        where=str(file),
        hint=f"{hint}.",
    )


def _describe_text(column: Any) -> tuple[Any, int, str]:
    """Name of a column, and the first row that holds no number."""
    if column.dtype.kind in "bMm":
        return column.name, 0, str(column.iloc[0])
    text = column.notna() & pd.to_numeric(column, errors="coerce").isna()
    row = int(text.to_numpy().argmax())
    return column.name, row, str(column.iloc[row])


# ------------------------------------------------------------------------- writing


def _write_csv(frame: Any, path: Path) -> None:
    is_tabbed = any(suffix.lower() == ".tsv" for suffix in path.suffixes)
    write_delimited(frame, path, separator="\t" if is_tabbed else ",")


def _write_parquet(frame: Any, path: Path) -> None:
    frame.to_parquet(path)


def _write_netcdf(frame: Any, path: Path) -> None:
    from sciseq.data.netcdf_files import write_netcdf

    write_netcdf(frame, path)


_WRITERS: dict[str, Callable[[Any, Path], None]] = {
    "CSV": _write_csv,
    "compressed CSV": _write_csv,
    "Parquet": _write_parquet,
    "NetCDF": _write_netcdf,
}
