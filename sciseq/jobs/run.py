"""Running a job for one logical date or for a range of them."""

from typing import Any

import pandas as pd

from sciseq.errors import InputError
from sciseq.jobs.execution import Execution, RunResult
from sciseq.jobs.job_file import Job
from sciseq.jobs.logbook import Logbook
from sciseq.jobs.state import JobState

__all__ = ["RunResult", "dates_of", "run_job"]


def run_job(
    job: Job,
    as_of: Any = None,
    *,
    dry_run: bool = False,
    scheduler: str | None = None,
    log: Logbook | None = None,
) -> RunResult:
    """Run a job for one logical date.

    Parameters
    ----------
    job : Job
        From :func:`read_job`.
    as_of : pandas.Timestamp, str or int, optional
        Logical date: only rows before it are used. By default one step after the last
        row of the source.
    dry_run : bool, default=False
        Read and decide, but write nothing.
    scheduler : str, optional
        Address of a Dask scheduler, or ``"local"``; goes before that of the job file.
    log : Logbook, optional
        Where to tell what happens.

    Returns
    -------
    RunResult
        With the record of the run.

    Raises
    ------
    LockedError
        When another run of the job is under way.
    TemporaryError
        For what may go away by itself.
    SciSeqError
        When the job cannot be done. What was finished is kept, and the next run goes
        on from there.
    OSError
        When something cannot be written; the destination is as it was before.
    """
    log = log or Logbook(as_json=job["log"]["format"] == "json", quiet=True)
    state = JobState(job.state)
    if dry_run:
        return Execution(job, state, log, scheduler).plan(as_of)
    state.prepare()
    log.write_to(state.root)
    with state.lock():
        return Execution(job, state, log, scheduler).execute(as_of)


def dates_of(first: str | None, last: str | None, step: str) -> list[Any]:
    """Return the logical dates of a range, oldest first.

    Raises
    ------
    InputError
        When it is no range.

    Examples
    --------
    >>> [str(one.date()) for one in dates_of("2024-05-01", "2024-05-15", "7D")]
    ['2024-05-01', '2024-05-08', '2024-05-15']
    >>> dates_of("100", "120", "10")  # where the rows are numbered
    [100, 110, 120]
    """
    if last is None:
        return [first]
    try:
        dates = _between(first, last, step) if first else []
    except (ValueError, ZeroDivisionError) as error:
        raise InputError(
            f"--as-of {first} --until {last} --step {step} is no range: {error}",
            where="--until",
            hint="Write --step 1D; a number where the rows are numbered.",
        ) from error
    if not dates:
        raise InputError(
            f"there is no date from {first} to {last}",
            where="--until",
            hint="Give the first date with --as-of, and --until after it.",
        )
    return dates


def _between(first: str, last: str, step: str) -> list[Any]:
    if step.isdigit():  # of rows that are numbered
        return list(range(int(first), int(last) + 1, int(step)))
    return list(pd.date_range(first, last, freq=step))
