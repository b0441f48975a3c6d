"""Reading the rows that are known at a logical date, from files and databases."""

import glob
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pandas as pd

from sciseq.data.long_format import from_long
from sciseq.data.table_files import read_table
from sciseq.errors import DataQualityError, InputError, SciSeqError, nearest_name
from sciseq.files import sha256_of
from sciseq.jobs.exit_codes import TemporaryError
from sciseq.jobs.frames import (
    count_series,
    digest_of_rows,
    labels_of,
    longest_series,
    rows_before,
)
from sciseq.jobs.job_file import Job
from sciseq.jobs.logical_dates import as_date, logical_date
from sciseq.jobs.state import file_digest
from sciseq.registry import method_by_name

__all__ = [
    "FileInputs",
    "History",
    "read_history",
    "read_inputs",
    "read_unchanged",
]

if TYPE_CHECKING:
    from sciseq.jobs.field_source import FieldHistory

_ATTEMPTS = 3
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class History:
    """The rows that a run may use.

    Parameters
    ----------
    frame : pandas.DataFrame
        Columns over time, or over (series, time).
    as_of : pandas.Timestamp or int
        Logical date: all rows are before it.
    where : str
        Where they came from.
    notes : tuple of str
        What was done to local times.
    """

    frame: Any
    as_of: Any
    where: str
    notes: tuple[str, ...] = ()

    def facts(self, before: Any = None) -> dict[str, Any]:
        """Return what the record of a run says of its source, up to a date."""
        frame = self.frame if before is None else rows_before(self.frame, before)
        times = labels_of(frame, -1)
        return {
            "where": self.where,
            "digest": digest_of_rows(frame),
            "rows": len(frame),
            "series": count_series(frame),
            "first": str(times.min()),
            "last": str(times.max()),
        }

    def parts(self, number: int) -> Iterator[Any]:
        """Cut the table into parts of some series."""
        from sciseq.jobs.panel_parts import panel_parts

        return panel_parts(self.frame, number)

    def shown(self) -> Any:
        """Return the rows that a report shows."""
        return self.frame

    def as_result(self, frame: Any, suffix: str) -> Any:
        """Return forecasts in the form of the source: a table, as they are."""
        return frame


def read_history(job: Job, as_of: Any = None) -> "History | FieldHistory":
    """Read the source of a job up to its logical date.

    Parameters
    ----------
    job : Job
        With a table as its source.
    as_of : pandas.Timestamp, str or int, optional
        Rows before it are used. By default one step after the last row.

    Returns
    -------
    History
        At least one row.

    Raises
    ------
    TemporaryError
        When the file changed each time that it was read.
    DataQualityError
        For local times that cannot be told, or no row before the date.
    SciSeqError
        For anything else that makes it no table over time.
    """
    source = job["source"]
    if source["field"] is not None:
        from sciseq.jobs.field_source import open_field

        path = job.path(source["path"])
        return read_unchanged(path, lambda: open_field(path, source["field"], as_of))
    notes: list[str] = []
    if source["path"] is not None:
        file = job.path(source["path"])
        frame = read_unchanged(file, lambda: _read_file(file, source))
        where = file.name
    else:
        frame = _read_database(source, as_of)
        where = f"{source['url_env']}: {source['table'] or 'query'}"
    if not len(frame):
        raise DataQualityError("the source holds no row", where=where)
    _check_labels(frame, where)
    if source["time_zone"] is not None:
        frame = _in_zone(frame, source["time_zone"], source["daylight_saving"], notes)
    date = logical_date(labels_of(frame, -1), longest_series(frame), as_of)
    known = rows_before(frame, date)
    if not len(known):
        raise DataQualityError(
            f"no row is before {date}: the first is at "
            f"{frame.index.get_level_values(-1).min()}",
            where=where,
            hint="Give a later --as-of.",
        )
    return History(known, date, where, tuple(notes))


def read_inputs(job: Job, as_of: Any = None) -> "History | FieldHistory":
    """Read what a run starts from: a table, spectra or sequences.

    Spectra are only named here: they are read when the work is done.
    """
    if job.task not in ("sequence", "generate") and not is_generator(job):
        return read_history(job, as_of)
    date = 0 if as_of is None else as_date(as_of)
    if job["source"]["path"] is None:
        return FileInputs(None, date, "no source", paths=())
    if job.task == "sequence":
        paths = tuple(spectra_files(job))
        for one in paths:
            if not one.exists():
                raise _missing(one)
        return FileInputs(None, date, ", ".join(map(_name, paths)), paths=paths)
    from sciseq.data.sequence_files import read_sequences

    path = job.path(job["source"]["path"])
    found = read_unchanged(path, lambda: read_sequences(path))
    return FileInputs(found, date, path.name, paths=(path,))


def is_generator(job: Job) -> bool:
    """Tell whether a job fits a generator of sequences."""
    method = method_by_name(str(job["model"]["method"]))
    return method is not None and method.data == "generation"


def _name(path: Path) -> str:
    return path.name


@dataclass(frozen=True)
class FileInputs(History):
    """Files that are no tables over time.

    Parameters
    ----------
    frame : NamedSequences or None
        What was read.
    as_of : pandas.Timestamp or int
        Logical date, which only names the run.
    where : str
        Names of the files.
    paths : tuple of Path
        The files.
    """

    paths: tuple[Path, ...] = ()

    def facts(self, before: Any = None) -> dict[str, Any]:
        """Return what the record of a run says of its source."""
        digests = [file_digest(one) for one in self.paths]
        return {
            "where": self.where,
            "digest": sha256_of(repr(digests).encode()),
            "rows": None if self.frame is None else len(self.frame),
            "series": None,
            "first": None,
            "last": None,
        }


# ------------------------------------------------------------------------------ files


def read_unchanged(path: Path, read: Callable[[], _Result]) -> _Result:
    """Read a file, or a folder, and again when it changed meanwhile.

    Raises
    ------
    TemporaryError
        When it changed each time, or is not there.
    """
    for _ in range(_ATTEMPTS):
        try:
            before = _fingerprint(path)
            found = read()
        except (SciSeqError, OSError, ValueError) as error:
            # Half a file, most likely, when another one is there by now.
            if path.exists() and _fingerprint(path) != before:
                continue
            if isinstance(error, FileNotFoundError):
                raise _missing(path) from error
            raise
        if _fingerprint(path) == before:
            return found
    raise TemporaryError(
        f"{path.name} changed while it was read, {_ATTEMPTS} times",
        where=str(path),
        hint="Run the job when the file is complete; write it under another name and "
        "rename it.",
    )


def _fingerprint(path: Path) -> list[tuple[str, int, int, int]]:
    files = [path]
    if path.is_dir():
        files += [one for one in sorted(path.rglob("*")) if one.is_file()]
    stats = [(str(one), one.stat()) for one in files]
    return [(name, it.st_ino, it.st_size, it.st_mtime_ns) for name, it in stats]


def _missing(path: Path) -> TemporaryError:
    return TemporaryError(
        "the source is not there",
        where=str(path),
        hint="Run the job again when it is, or mend source.path.",
    )


def _read_file(file: Path, source: Mapping[str, Any]) -> Any:
    columns = {
        "time_column": source["time_column"],
        "series_column": source["series_column"],
        "drop": source["drop"],
    }
    if file.suffix.lower() == ".zarr":
        from sciseq.jobs.zarr_stores import read_zarr

        return read_zarr(file, **columns)
    return read_table(file, **columns)


def spectra_files(job: Job) -> list[Path]:
    """Return the files of spectra that the source names, with ``*`` for many."""
    pattern = str(job.path(job["source"]["path"]))
    if not any(sign in pattern for sign in "*?["):
        return [Path(pattern)]
    found = sorted(glob.glob(pattern))  # noqa: PTH207 (absolute patterns)
    if not found:
        raise TemporaryError(
            f"no file is called {pattern}", where="source.path", hint="Run again later."
        )
    return [Path(one) for one in found]


def _read_database(source: Mapping[str, Any], as_of: Any) -> Any:
    from sciseq.jobs.database import engine_of, read_rows

    series, time = source["series_column"], source["time_column"]
    before = None if as_of is None else as_date(as_of)
    chunks = read_rows(
        engine_of(source["url_env"]),
        table=source["table"],
        query=source["query"],
        time_column=time,
        series_column=series,
        before=before,
        time_zone=source["time_zone"] or "UTC",
    )
    table = pd.concat(list(chunks), ignore_index=True)
    for name in source["drop"]:
        if name not in table:
            raise InputError(
                f"there is no column {name!r} to leave out, only {list(table)}",
                where="source.drop",
                hint=nearest_name(name, table) or None,
            )
    table = table.drop(columns=source["drop"])
    if series is not None:
        return from_long(table, series=series, time=time)
    return table.set_index(time).sort_index()


# ------------------------------------------------------------------------------ times


def _check_labels(frame: Any, where: str) -> None:
    """Refuse rows that do not say when they were, or of which series."""
    index = frame.index
    for level, what in ((-1, "time"), (-2, "series"))[: index.nlevels]:
        # Of many rows the labels are not written out: those without have code -1.
        bare = index.codes[level] < 0 if index.nlevels > 1 else index.isna()
        missing = np.flatnonzero(bare)
        if len(missing):
            raise DataQualityError(
                f"rows without a {what}: {len(missing)}, the first of them holds "
                f"{frame.iloc[missing[0]].to_dict()}",
                where=where,
                hint="Drop these rows, or say where they belong.",
            )


def _in_zone(frame: Any, zone: str, policy: str, notes: list[str]) -> Any:
    """Give local times their zone; of repeated hours the first is in summer time."""
    times = frame.index.get_level_values(-1)
    if not isinstance(times, pd.DatetimeIndex):
        raise InputError(
            "the rows carry no dates", where="source.time_zone", hint="Leave it out."
        )
    if times.tz is not None:
        return frame.set_axis(_index_with(frame, times.tz_convert(zone)), axis=0)
    try:
        local = times.tz_localize(
            zone, ambiguous=_is_first(frame, times), nonexistent="NaT"
        )
        sure = times.tz_localize(zone, ambiguous="NaT", nonexistent="NaT")
    except (KeyError, ValueError, OSError) as error:
        raise InputError(
            f"{zone!r} is no time zone that is known here",
            where="source.time_zone",
            hint='Write a name such as "Europe/Berlin".',
        ) from error
    skipped = np.asarray(local.isna())
    repeated = np.asarray(sure.isna()) & ~skipped
    bad = skipped | (repeated & (policy != "infer"))
    if bad.any() and policy != "drop":
        raise DataQualityError(
            f"{int(bad.sum())} local times do not say which instant they are, first "
            f"{times[bad][0]}: the clocks of {zone} were changed then",
            where="source.time_zone",
            hint='Mend the times, or set source.daylight_saving = "drop".',
        )
    if bad.any():
        notes.append(f"dropped {int(bad.sum())} rows at changes of the clocks")
    if repeated.any() and policy == "infer":
        notes.append(f"{int(repeated.sum())} rows in repeated hours told by order")
    frame = frame.set_axis(_index_with(frame, local), axis=0)
    return frame[~bad] if bad.any() else frame


def _is_first(frame: Any, times: Any) -> Any:
    """Tell for each row whether no row of its series had the same local time before."""
    keys = pd.DataFrame({"time": times})
    if frame.index.nlevels == 2:
        keys["series"] = frame.index.codes[0]
    return ~keys.duplicated(keep="first").to_numpy()


def _index_with(frame: Any, times: Any) -> Any:
    if frame.index.nlevels == 1:
        return times.rename(frame.index.name)
    series = frame.index.get_level_values(0)
    return pd.MultiIndex.from_arrays([series, times], names=frame.index.names)
