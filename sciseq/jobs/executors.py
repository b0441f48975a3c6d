"""One way to run many parts: here, on several processes, or on a Dask cluster.

Results are the same bits in all three; only their order differs.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from sciseq.errors import InputError
from sciseq.jobs.worker_calls import Failure, Work, call

__all__ = ["Failure", "run_parts"]

Shared = TypeVar("Shared")
Part = TypeVar("Part")
Result = TypeVar("Result")


def run_parts(
    function: Callable[[Shared, Part], Result],
    shared: Shared,
    parts: Iterable[Part],
    *,
    n_jobs: int = 1,
    scheduler: str | None = None,
    local_workers: int | None = None,
    threads: int = 1,
    retries: int = 3,
) -> Iterator[tuple[int, Result | Failure]]:
    """Run a function over many parts and yield the results as they finish.

    Parameters
    ----------
    function : callable
        From ``(shared, part)`` to a result, by these alone. Best a function of a
        module.
    shared : object
        What all parts need, a fitted estimator as a rule. It reaches each worker once.
    parts : iterable
        Read as workers become free: at most two for each worker are held at a time.
    n_jobs : int, default=1
        Processes on this machine, counted as in joblib (-1: one for each CPU). With 1,
        the parts run in this process. Not used with a scheduler.
    scheduler : str, optional
        Address of a Dask scheduler, such as ``"tcp://10.0.0.5:8786"``; or ``"local"``
        for a cluster on this machine that lasts as long as the run.
    local_workers : int, optional
        Workers of that cluster, ``n_jobs`` by default; given alone it asks for one.
    threads : int, default=1
        Threads that each process computes with (torch, BLAS, OpenMP).
    retries : int, default=3
        Times that a part is tried again after its process has died.

    Yields
    ------
    index : int
        Number of the part, from 0. Parts finish in any order.
    result : object or Failure
        What the function returned. A :class:`Failure` stands for a part whose function
        raised an exception, or whose process died ``retries + 1`` times; all other
        parts are done.

    Raises
    ------
    InputError
        For numbers out of range; with the first result, when no scheduler can be
        reached, or it has no workers.
    InputTypeError
        When something cannot be sent to a worker.
    MissingDependencyError
        When a Dask cluster is asked for and ``distributed`` is not installed.
    SciSeqError
        When the connection to the scheduler is lost.

    Notes
    -----
    Closing the iterator, an exception in the caller, or Ctrl-C end all workers that
    were started here. A worker of a running cluster does one part at a time, however
    many threads it has: start workers with ``--nthreads 1``. Its scheduler tries a part
    several times itself before it gives up, by its own settings, so that more workers
    than ``retries + 1`` may die of one part there.

    Examples
    --------
    >>> def divide(shared, part):
    ...     return shared / part
    >>> found = dict(run_parts(divide, 6.0, [1, 0, 3]))
    >>> found[0], found[1].type, found[2]
    (6.0, 'ZeroDivisionError', 2.0)
    """
    _check(n_jobs, scheduler, local_workers, threads, retries)
    work = Work(function, shared, threads)
    if scheduler is not None or local_workers is not None:
        from sciseq.jobs.executor_dask import run_on_dask

        return run_on_dask(
            work,
            parts,
            address=None if scheduler in (None, "local") else scheduler,
            n_workers=_n_processes(local_workers or n_jobs),
            retries=retries,
        )
    if n_jobs == 1:
        return _run_here(work, parts)
    from sciseq.jobs.executor_joblib import run_on_processes

    return run_on_processes(
        work, parts, n_processes=_n_processes(n_jobs), retries=retries
    )


def _run_here(work: Work, parts: Iterable[Any]) -> Iterator[tuple[int, Any]]:
    for index, part in enumerate(parts):
        yield index, call(work, part)


def _n_processes(n_jobs: int) -> int:
    from joblib import cpu_count

    return n_jobs if n_jobs > 0 else max(1, cpu_count() + 1 + n_jobs)


def _check(
    n_jobs: int,
    scheduler: str | None,
    local_workers: int | None,
    threads: int,
    retries: int,
) -> None:
    if n_jobs == 0:
        raise InputError("n_jobs is 0, must be another integer", where="n_jobs")
    least = {
        "local_workers": (local_workers, 1),
        "threads": (threads, 1),
        "retries": (retries, 0),
    }
    for name, (value, lowest) in least.items():
        if value is not None and value < lowest:
            raise InputError(
                f"{name} is {value}, must be at least {lowest}", where=name
            )
    if scheduler not in (None, "local") and local_workers is not None:
        raise InputError(
            f"scheduler is {scheduler!r} and local_workers is {local_workers}: a "
            "running cluster has its own workers",
            where="local_workers",
            hint="Leave one of them out.",
        )
