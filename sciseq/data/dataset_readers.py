"""From the bytes of a data set's files to one tidy frame.

Each reader knows one layout of files; which one applies, and the names and formats it
needs, stand in the entry of the data set in ``datasets/registry.toml``.
"""

import gzip
import io
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["UNREADABLE", "Entry", "read_embedded", "read_files"]

Entry = Mapping[str, Any]

# What decompressing, decoding and parsing raise on another file than the expected one.
UNREADABLE = (
    ValueError,
    KeyError,
    IndexError,
    EOFError,
    gzip.BadGzipFile,
    zipfile.BadZipFile,
    zlib.error,
)

_GZIP_MAGIC = b"\x1f\x8b"


def read_files(contents: Sequence[bytes], entry: Entry) -> "pd.DataFrame":
    r"""Read the files of a data set into one frame.

    Parameters
    ----------
    contents : sequence of bytes
        The files in the order of the entry, plain or compressed with gzip.
    entry : mapping
        Entry of the data set in the registry.

    Returns
    -------
    pandas.DataFrame
        A table in time, a panel with the index levels ("series", "time"), or one row
        per sequence or event.

    Raises
    ------
    ValueError, KeyError, IndexError, EOFError, zipfile.BadZipFile, zlib.error
        One of ``UNREADABLE`` when a file does not have the layout of the entry.

    Examples
    --------
    >>> entry = {"reader": "table", "time": "day", "time_column": "day",
    ...          "frequency": "D"}
    >>> read_files([b"day,flow\n2020-01-01,3\n2020-01-02,4\n"], entry)
                flow
    day
    2020-01-01   3.0
    2020-01-02   4.0
    """
    import pandas as pd

    plain = [
        gzip.decompress(content) if content.startswith(_GZIP_MAGIC) else content
        for content in contents
    ]
    if entry["reader"] in _BYTE_READERS:
        (content,) = plain
        return _BYTE_READERS[entry["reader"]](content, entry)
    tables = [pd.read_csv(io.BytesIO(content)) for content in plain]
    return _TABLE_READERS[entry["reader"]](tables, entry)


def read_embedded(entry: Entry) -> "pd.DataFrame":
    """Read a data set that is shipped with statsmodels.

    Parameters
    ----------
    entry : mapping
        Entry of the data set in the registry, with ``embedded = "statsmodels:NAME"``.

    Returns
    -------
    pandas.DataFrame
        A table in time.

    Examples
    --------
    >>> entry = {"embedded": "statsmodels:nile", "reader": "table", "time": "year",
    ...          "time_parts": {"year": "year"}, "frequency": "YS"}
    >>> read_embedded(entry)["volume"].iloc[:3].tolist()
    [1120.0, 1160.0, 963.0]
    """
    import pandas as pd

    package, _, name = entry["embedded"].partition(":")
    table = import_module(f"{package}.datasets.{name}").load_pandas().data
    if isinstance(table.index, pd.DatetimeIndex):
        table = table.reset_index(names=entry["time_column"])
    return _TABLE_READERS[entry["reader"]]([table], entry)


def _read_table(tables: Sequence["pd.DataFrame"], entry: Entry) -> "pd.DataFrame":
    """One row per time."""
    (table,) = tables
    table = table.dropna(how="all")
    times = _times(table, entry)
    used = [
        *entry.get("drop", ()),
        *entry.get("time_parts", {}).values(),
        *([entry["time_column"]] if "time_column" in entry else ()),
    ]
    frame = table.drop(columns=used).rename(columns=entry.get("rename", {}))
    return frame.astype(np.float64).set_index(times)


def _read_months(tables: Sequence["pd.DataFrame"], entry: Entry) -> "pd.DataFrame":
    """One row per year: the year, then the twelve months."""
    (table,) = tables
    year = entry["time_parts"]["year"]
    # (year, month) -> (time,)
    values = table.drop(columns=year).to_numpy(dtype=np.float64).reshape(-1)
    return _series_frame({"": (f"{int(table[year].iloc[0])}-01-01", values)}, entry)


def _read_rows(tables: Sequence["pd.DataFrame"], entry: Entry) -> "pd.DataFrame":
    """One row per series: its name, then its values; later tables continue earlier."""
    parts = [table.set_index(table.columns[0]).astype(np.float64) for table in tables]
    names = parts[0].index
    blocks = [part.loc[names].to_numpy() for part in parts]
    return _series_frame(
        {
            str(name): (entry["time_start"], np.concatenate(list(map(_filled, rows))))
            for name, *rows in zip(names, *blocks, strict=True)
        },
        entry,
    )


def _read_tsf(content: bytes, entry: Entry) -> "pd.DataFrame":
    """Monash archive: ``@attribute`` lines, ``@data``, then attributes and values."""
    # The archive is written in latin-1, where some bytes would count as line breaks.
    header, _, body = content.decode("latin-1").partition("@data")
    attributes = [
        line.split()[1] for line in header.split("\n") if line.startswith("@attribute")
    ]
    name_at = attributes.index("series_name")
    start_at = attributes.index("start_timestamp")
    series = {}
    for line in body.strip().split("\n"):
        *fields, values = line.split(":")
        date, _, clock = fields[start_at].partition(" ")
        series[fields[name_at]] = (
            f"{date} {clock.replace('-', ':')}",
            np.array(values.replace("?", "nan").split(","), dtype=np.float64),
        )
    return _series_frame(series, entry)


def _read_npz(content: bytes, entry: Entry) -> "pd.DataFrame":
    """Array ``values`` (time, station, variable), and an array of labels per axis."""
    import pandas as pd

    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        values, time, station, variable = (
            arrays[key] for key in ("values", "time", "station", "variable")
        )
    times = pd.DatetimeIndex(time, freq=entry["frequency"])
    index = pd.MultiIndex.from_product([station, times], names=["series", "time"])
    # (time, station, variable) -> (station, time, variable) -> (row, variable)
    rows = values.transpose(1, 0, 2).reshape(-1, len(variable)).astype(np.float64)
    return pd.DataFrame(rows, index=index, columns=variable)


def _read_fasta(content: bytes, entry: Entry) -> "pd.DataFrame":
    """One row per entry: the first word of its header, and its letters."""
    import pandas as pd

    before, *entries = content.decode().split(">")
    if before.strip() or not entries:
        raise ValueError("this is no FASTA file")
    lines = [one.splitlines() for one in entries]
    return pd.DataFrame(
        {
            "id": [header.split()[0] for header, *_ in lines],
            "sequence": ["".join(rest).upper() for _, *rest in lines],
        }
    )


def _read_columns(content: bytes, entry: Entry) -> "pd.DataFrame":
    """One row per sequence or event, in named columns."""
    import pandas as pd

    frame = pd.read_csv(
        io.BytesIO(content),
        sep=entry.get("separator", ","),
        header=None,
        skiprows=int(entry.get("header", True)),
        skipinitialspace=True,
    )
    if frame.shape[1] != len(entry["columns"]) or frame.isna().to_numpy().any():
        raise ValueError(f"its rows do not hold {', '.join(entry['columns'])}")
    return frame.set_axis(entry["columns"], axis=1)


def _read_ragged(content: bytes, entry: Entry) -> "pd.DataFrame":
    """Arrays over events, ``offsets`` where each entity starts, ``fold`` per entity."""
    import pandas as pd

    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        time, item, offsets, fold = (
            arrays[key] for key in ("time", "event_type", "offsets", "fold")
        )
    entity = np.repeat(np.arange(len(fold)), np.diff(offsets))
    return pd.DataFrame(
        {"entity": entity, "time": time, "item": item, "fold": fold[entity]}
    )


_TableReader = Callable[[Sequence["pd.DataFrame"], Entry], "pd.DataFrame"]
_ByteReader = Callable[[bytes, Entry], "pd.DataFrame"]
_TABLE_READERS: dict[str, _TableReader] = {
    "table": _read_table,
    "months": _read_months,
    "rows": _read_rows,
}
_BYTE_READERS: dict[str, _ByteReader] = {
    "tsf": _read_tsf,
    "npz": _read_npz,
    "fasta": _read_fasta,
    "columns": _read_columns,
    "ragged": _read_ragged,
}


def _times(table: "pd.DataFrame", entry: Entry) -> "pd.DatetimeIndex":
    import pandas as pd

    if "time_start" in entry:
        return _regular_times(entry["time_start"], len(table), entry)
    if "time_parts" in entry:
        parts = {
            part: table[column].astype(np.int64)
            for part, column in entry["time_parts"].items()
        }
        if "quarter" in parts:
            parts["month"] = 3 * parts.pop("quarter") - 2
        stamps = pd.to_datetime(pd.DataFrame(parts).assign(**_first_of(parts)))
    else:
        column = table[entry["time_column"]]
        stamps = pd.to_datetime(column.astype(str), format=entry.get("time_format"))
    times = pd.DatetimeIndex(stamps, name=entry["time"])
    if "frequency" not in entry:
        return times
    return pd.DatetimeIndex(times, freq=entry["frequency"])


def _first_of(parts: Mapping[str, Any]) -> dict[str, int]:
    return {part: 1 for part in ("month", "day") if part not in parts}


def _regular_times(start: str, n_rows: int, entry: Entry) -> "pd.DatetimeIndex":
    import pandas as pd

    frequency = entry["frequency"]
    times = pd.date_range(start, periods=n_rows, freq=frequency, name=entry["time"])
    # A start between two steps would silently move to the next one.
    if times[0] != pd.Timestamp(start):
        raise ValueError(f"a series starts at {start}, not on the grid {frequency!r}")
    return times


def _series_frame(
    series: Mapping[str, tuple[str, npt.NDArray[np.float64]]], entry: Entry
) -> "pd.DataFrame":
    """Give a panel of several series, or a plain table of a single one."""
    import pandas as pd

    # Many series share their start: the longest of them serves all.
    longest: dict[str, int] = {}
    for start, x in series.values():
        longest[start] = max(longest.get(start, 0), len(x))
    ranges = {start: _regular_times(start, n, entry) for start, n in longest.items()}
    times = [ranges[start][: len(x)] for start, x in series.values()]
    values = np.concatenate([x for _, x in series.values()])
    index: pd.Index = times[0]
    if len(series) > 1:
        names = np.repeat(list(series), [len(x) for _, x in series.values()])
        index = pd.MultiIndex.from_arrays(
            [names, times[0].append(times[1:])], names=["series", "time"]
        )
    return pd.DataFrame({entry["value_name"]: values}, index=index)


def _filled(row: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Cut the blank cells after the last value of a ragged row."""
    known = np.flatnonzero(~np.isnan(row))
    return row[: known[-1] + 1] if known.size else row[:0]
