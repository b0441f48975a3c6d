"""Where results go: files that are replaced whole, or tables of a database."""

import os
from pathlib import Path
from typing import Any

import pandas as pd

from sciseq.data.table_files import TABLE_SUFFIXES, write_table
from sciseq.errors import FileFormatError, InputError, nearest_name
from sciseq.files import remove_leftovers, temporary_path
from sciseq.jobs.exit_codes import TemporaryError
from sciseq.jobs.frames import flat
from sciseq.jobs.job_file import Job, fill_places
from sciseq.jobs.state import file_digest, moment

__all__ = ["Destination", "destination_of"]

_TEXTS = (".fasta", ".fa", ".txt")
_RESULTS = {
    "sequence": (".csv", ".tsv", ".parquet", ".mztab"),
    "generate": (".csv", ".parquet", *_TEXTS),
}


class Destination:
    """Where the result of a run goes.

    Parameters
    ----------
    job : Job
        With its destination.
    places : dict
        ``as_of``, ``name`` and ``run_id`` as text.
    """

    def __init__(self, job: Job, places: dict[str, str]) -> None:
        self.job, self.places = job, places
        settings = job["destination"]
        self.table = settings["table"]
        self.url_env = settings["url_env"]
        self.path: Path | None = None
        if settings["path"] is not None:
            self.path = job.path(fill_places(settings["path"], places))

    @property
    def where(self) -> str:
        """Name of the place, without secrets."""
        if self.path is not None:
            return str(self.path)
        return f"{self.url_env}: {self.table}"

    @property
    def name(self) -> str:
        """Name of the place as the record has it: that of the file, or the table."""
        return self.where if self.path is None else self.path.name

    def check(self) -> None:
        """Refuse a place that cannot be written, before the work starts.

        Raises
        ------
        TemporaryError
            When it cannot be written now.
        FileFormatError
            For an unknown suffix.
        InputError
            When it is the source itself.
        """
        if self.path is None:
            self.holds("", self.places["run_id"])  # can it be reached?
            return
        _check_suffix(self.job.task, self.path)
        source = self.job["source"]["path"]
        if (
            source is not None
            and self.job.path(source).resolve() == self.path.resolve()
        ):
            raise InputError(
                f"{self.path.name} is the source: it would be replaced",
                where="destination.path",
                hint="Write to another file.",
            )
        folder = self.path.parent
        if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
            state = "is not writable" if folder.is_dir() else "is not there"
            raise TemporaryError(
                f"the folder {folder} {state}",
                where="destination.path",
                hint="Make it writable, then run the job again.",
            )
        if self.path.is_dir() and self.path.suffix != ".zarr":
            raise FileFormatError(f"{self.path} is a folder", where="destination.path")

    def holds(self, digest: str, run_id: str) -> bool:
        """Tell whether the result is there, and whole."""
        if self.path is not None:
            return self.path.exists() and file_digest(self.path) == digest
        from sciseq.jobs.database import engine_of, has_run

        return bool(has_run(engine_of(self.url_env), self.table, run_id, digest))

    def write(self, frame: Any, record: dict[str, Any]) -> str:
        """Write a result whole, and return its digest."""
        if self.path is None:
            return self._write_rows(frame, record)
        remove_leftovers(self.path)
        suffix = self.path.suffix.lower()
        if suffix == ".zarr":
            from sciseq.jobs.zarr_stores import write_zarr

            write_zarr(frame, self.path)
            return file_digest(self.path)
        with temporary_path(self.path) as temporary:
            _write_file(frame, temporary, suffix)
            digest = file_digest(temporary)
        return digest

    def _write_rows(self, frame: Any, record: dict[str, Any]) -> str:
        from sciseq.jobs.database import Run, engine_of, write_run

        run = Run(
            run_id=record["run_id"],
            job=record["job"],
            model_version=str(record["model_version"]),
            as_of=moment(record["as_of"]),
        )
        stored = write_run(engine_of(self.url_env), self.table, flat(frame), run)
        return stored.digest

    def forget(self) -> None:
        """Delete the rows of old runs from a database; files are left alone."""
        if self.path is None:
            from sciseq.jobs.database import delete_runs, engine_of

            keep = self.job["keep"]["runs"]
            delete_runs(engine_of(self.url_env), self.table, self.job.name, keep)


def destination_of(job: Job, as_of: Any, run_id: str) -> Destination | None:
    """Return where a run writes, None when its task writes no rows."""
    if job.task == "fit":
        return None
    date = as_of.isoformat() if isinstance(as_of, pd.Timestamp) else str(as_of)
    # Midnight goes without its zeros, and no name holds a colon.
    date = date.removesuffix("T00:00:00").replace(":", "")
    return Destination(job, {"as_of": date, "name": job.name, "run_id": run_id})


def _check_suffix(task: str, path: Path) -> None:
    known = _RESULTS.get(task, (*TABLE_SUFFIXES, ".zarr"))
    name = path.name.lower()
    if not any(name.endswith(one) for one in known):
        raise FileFormatError(
            f"{path.name!r} has an unknown suffix, known are {', '.join(known)}",
            where="destination.path",
            hint=nearest_name(path.suffix, known) or None,
        )


def _write_file(frame: Any, path: Path, suffix: str) -> None:
    is_numbered = isinstance(getattr(frame, "index", None), pd.RangeIndex)
    if suffix in _TEXTS:
        with path.open("w", encoding="utf-8", newline="\n") as file:
            for number, text in enumerate(frame["sequence"], 1):
                head = f">sample{number}\n" if suffix != ".txt" else ""
                file.write(f"{head}{text}\n")
    elif suffix == ".mztab":
        from sciseq.sequencing.mztab_files import write_mztab

        write_mztab(frame, path)
    elif is_numbered:
        if suffix == ".parquet":
            frame.to_parquet(path, index=False)
        else:
            separator = "\t" if suffix == ".tsv" else ","
            frame.to_csv(path, sep=separator, index=False, lineterminator="\n")
    elif isinstance(frame, pd.DataFrame):
        write_table(frame, path)
    else:
        frame.to_netcdf(path, engine="h5netcdf")
