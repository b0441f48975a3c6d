"""The rows of a run, in the one form that is written, read back, and hashed.

Columns: series (integers or text; only when there are several), time (to the
microsecond; in UTC if it has a zone), then float64 values with NaN for what is
missing. Rows are sorted by series, text by its code points, and time.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from sciseq.errors import DataQualityError, InputError, InputTypeError, nearest_name
from sciseq.jobs.database_frames import series_labels

__all__ = ["RowDigest", "digest_of_forecasts", "forecast_rows", "stored_tuples"]

RESERVED = ("run_id", "as_of")
"""Columns that the tables have themselves."""


def forecast_rows(frame: Any) -> Any:
    """Bring flat forecasts into the form that is stored.

    Parameters
    ----------
    frame : pandas.DataFrame
        Columns ``time``, ``series`` when there are several, and numbers.

    Returns
    -------
    pandas.DataFrame
        A new table, sorted.

    Raises
    ------
    InputError
        For columns that are missing, reserved, or no numbers.
    DataQualityError
        For missing, repeated or too fine times, and missing series.
    """
    names = _checked_names(frame)
    columns = {}
    if "series" in names:
        labels = frame["series"]
        if labels.isna().any():
            raise DataQualityError(f"{labels.isna().sum()} rows have no series")
        columns["series"] = series_labels(labels.tolist(), "series").to_numpy()
    columns["time"] = _times(frame["time"])
    for name in names:
        if name not in columns:
            columns[name] = _numbers(frame[name], name)
    key = [name for name in ("series", "time") if name in columns]
    rows = pd.DataFrame(columns).sort_values(key, ignore_index=True)
    repeated = rows.duplicated(key)
    if repeated.any():
        first = ", ".join(str(one) for one in rows.loc[repeated, key].iloc[0])
        raise DataQualityError(
            f"{int(repeated.sum())} rows repeat the {' and '.join(key)} of another",
            where=first,
        )
    return rows


def digest_of_forecasts(frame: Any) -> str:
    """Return the SHA-256 of flat forecasts, whatever the order of rows and columns.

    Parameters
    ----------
    frame : pandas.DataFrame
        As for :func:`~sciseq.jobs.database.write_run`.

    Returns
    -------
    str
        Hexadecimal.

    Examples
    --------
    >>> times = pd.to_datetime(["2026-01-01", "2026-01-02"])
    >>> frame = pd.DataFrame({"time": times, "load": [1.0, 2.0]})
    >>> digest_of_forecasts(frame) == digest_of_forecasts(frame[::-1])
    True
    >>> other = frame.assign(load=[1.0, 2.0000000001])
    >>> digest_of_forecasts(frame) == digest_of_forecasts(other)
    False
    """
    rows = forecast_rows(frame)
    digest = RowDigest(rows.columns)
    digest.add(rows)
    return digest.hexdigest()


class RowDigest:
    """SHA-256 of sorted rows that come in chunks; the cuts between them do not matter.

    Parameters
    ----------
    names : iterable of str
        Names of the columns, in any order.
    """

    def __init__(self, names: Any) -> None:
        self.n_rows = 0
        self._columns = {name: hashlib.sha256() for name in sorted(names)}

    def add(self, rows: Any) -> None:
        """Add rows in the form that :func:`forecast_rows` returns."""
        self.n_rows += len(rows)
        for name, column in self._columns.items():
            column.update(_content(rows[name], name))

    def hexdigest(self) -> str:
        """Return the digest of all rows so far."""
        digests = [(name, one.hexdigest()) for name, one in self._columns.items()]
        return hashlib.sha256(json.dumps([self.n_rows, digests]).encode()).hexdigest()


def stored_tuples(
    rows: Any, names: Sequence[str], run_id: str, chunk_rows: int
) -> Iterator[list[tuple[Any, ...]]]:
    """Yield rows as tuples of what both databases take as it is, by chunks.

    Parameters
    ----------
    rows : pandas.DataFrame
        As :func:`forecast_rows` returns them.
    names : sequence of str
        Columns of the table, in its order.
    run_id : str
        First part of the key.
    chunk_rows : int
        Most rows of a chunk.

    Yields
    ------
    list of tuple
        Times are text, such as ``2026-01-05 06:00:00.000000+00:00``, of one length, so
        that SQLite's order of texts is that of time.
    """
    for start in range(0, len(rows), chunk_rows):
        chunk = rows.iloc[start : start + chunk_rows]
        fields = {"run_id": [run_id] * len(chunk)}
        for name in rows.columns:
            fields[name] = _stored(chunk[name], name)
        yield list(zip(*(fields[name] for name in names), strict=True))


# ---------------------------------------------------------------------------- columns


def _checked_names(frame: Any) -> list[str]:
    names = list(frame.columns)
    strange = [one for one in names if not isinstance(one, str)]
    if strange:
        raise InputTypeError(f"the column {strange[0]!r} is no text")
    if len(set(names)) < len(names):
        raise InputError(f"there are columns of the same name among {names}")
    if "time" not in names:
        raise InputError(
            f"the forecasts have no column 'time', only {', '.join(names)}",
            hint=nearest_name("time", names),
        )
    taken = [one for one in names if one in RESERVED]
    if taken:
        raise InputError(
            f"a target cannot be called {taken[0]!r}: the table has such a column",
            hint="Rename the target.",
        )
    if not set(names) - {"series", "time"}:
        raise InputError("the forecasts have no column of values")
    return names


def _times(column: Any) -> Any:
    if column.dtype.kind != "M":
        raise InputTypeError(
            f"times are {column.dtype}, must be dates",
            where="column time",
            hint="Forecasts over numbered rows go to files.",
        )
    if column.isna().any():
        raise DataQualityError(
            f"{column.isna().sum()} rows have no time", where="column time"
        )
    if column.dt.tz is not None:
        column = column.dt.tz_convert("UTC")
    times = column.dt.as_unit("us")
    is_finer = times != column
    if is_finer.any():
        raise DataQualityError(
            "times are finer than the microsecond of databases, first "
            f"{column[is_finer].iloc[0]}",
            where="column time",
        )
    return times.array


def _numbers(column: Any, name: str) -> Any:
    if column.dtype.kind not in "fiub":
        raise InputTypeError(
            f"values are {column.dtype}, must be numbers", where=f"column {name}"
        )
    return column.to_numpy(dtype=np.float64, na_value=np.nan)


def _content(column: Any, name: str) -> bytes:
    """Return the bytes that are hashed for a column."""
    if name == "series":
        # No database stores the character 0, which ends a name here.
        text = "".join(f"{label}\0" for label in column.tolist())
        return text.encode("utf-8", "surrogatepass")
    if name == "time":
        times = column.dt.tz_localize(None).to_numpy("datetime64[us]")
        return bytes(times.astype("<i8").tobytes())
    # SQLite has one zero, and NULL for each kind of NaN.
    values = column.to_numpy("<f8") + 0.0
    values[np.isnan(values)] = np.nan
    return bytes(values.tobytes())


def _stored(column: Any, name: str) -> list[Any]:
    if name == "series":
        return list(column.tolist())
    if name == "time":
        offset = "" if column.dt.tz is None else "+00:00"
        times = column.dt.tz_localize(None).to_numpy("datetime64[us]")
        texts = np.datetime_as_string(times, unit="us").tolist()
        return [f"{one.replace('T', ' ')}{offset}" for one in texts]
    values = column.tolist()
    if column.isna().any():
        return [None if one != one else one for one in values]
    return list(values)
