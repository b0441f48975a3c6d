"""What happens to one part in a process, the same whichever process it is.

The number of threads is part of what decides the last bits of a sum, so every process
computes with the same number, whatever its own settings are.
"""

import contextlib
import pickle
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from sciseq.errors import InputError, InputTypeError

__all__ = [
    "Failure",
    "Work",
    "call",
    "call_packed",
    "limited_threads",
    "load_work",
    "pack",
    "worker_died",
]


@dataclass(frozen=True)
class Failure:
    """A part that could not be done; it stands where its result would.

    Parameters
    ----------
    type : str
        Class of the exception; ``"WorkerDied"`` when there was none because the
        process was gone.
    message : str
        What the exception said.
    traceback : str, default=""
        Where it was raised, in the process that raised it.

    Examples
    --------
    >>> Failure("ValueError", "the values contain NaN").message
    'the values contain NaN'
    """

    type: str
    message: str
    traceback: str = ""


@dataclass(frozen=True)
class Work:
    """What all parts of a run have in common.

    Parameters
    ----------
    function : callable
        From ``(shared, part)`` to a result.
    shared : object
        What it needs besides the part, a fitted estimator as a rule.
    threads : int
        Threads to compute with.
    """

    function: Callable[[Any, Any], Any]
    shared: Any
    threads: int


def call(work: Work, part: Any) -> Any:
    """Return the result of a part, or the :class:`Failure` that stands for it.

    Examples
    --------
    >>> work = Work(lambda shared, part: shared / part, 1.0, threads=1)
    >>> call(work, 2)
    0.5
    >>> call(work, 0).type
    'ZeroDivisionError'
    """
    try:
        with limited_threads(work.threads):
            return work.function(work.shared, part)
    except (Exception, SystemExit) as error:
        return _failure(error)


def _failure(error: BaseException) -> Failure:
    lines = traceback.format_exception(error)
    return Failure(type(error).__name__, str(error), "".join(lines))


@contextlib.contextmanager
def limited_threads(n_threads: int) -> Iterator[None]:
    """Compute with so many threads: in torch if it is loaded, in BLAS and OpenMP.

    Examples
    --------
    >>> import numpy
    >>> from threadpoolctl import threadpool_info
    >>> with limited_threads(1):
    ...     {one["num_threads"] for one in threadpool_info()}
    {1}
    """
    from threadpoolctl import threadpool_limits

    torch = sys.modules.get("torch")
    before = torch.get_num_threads() if torch is not None else 0
    with threadpool_limits(limits=n_threads):
        if torch is not None:
            torch.set_num_threads(n_threads)
        try:
            yield
        finally:
            if torch is not None:
                torch.set_num_threads(before)


# ------------------------------------------------------------- between processes

# By cloudpickle, because a function of a script or notebook has no module that a
# worker could import.


def pack(value: Any, what: str) -> bytes:
    """Return what can be sent to a worker.

    Raises
    ------
    InputTypeError
        When it cannot be pickled.

    Examples
    --------
    >>> pack((one for one in ()), "part 3")
    Traceback (most recent call last):
        ...
    sciseq.errors.InputTypeError: part 3 cannot be sent to a worker: ...
    """
    try:
        return _dumps(value)
    except Exception as error:  # whatever the value's own methods raise
        raise InputTypeError(
            f"{what} cannot be sent to a worker: {error}",
            where="run_parts",
            hint="Give data that can be pickled: no open files, locks or generators.",
        ) from error


def load_work(packed: bytes) -> Work:
    """Return the work that a worker has been sent.

    Raises
    ------
    InputError
        When something is missing where the worker runs.
    """
    try:
        work: Work = pickle.loads(packed)
    except Exception as error:
        raise InputError(
            "a worker cannot load what the parts have in common: "
            f"{type(error).__name__}: {error}",
            where="run_parts",
            hint="Install the same packages, in the same versions, for all workers.",
        ) from error
    return work


def call_packed(work: Work, packed_part: bytes) -> bytes:
    """Do a part in a worker, from bytes to bytes."""
    try:
        return _dumps(call(work, pickle.loads(packed_part)))
    except Exception as error:  # the part cannot be loaded, or the result not sent
        return _dumps(_failure(error))


def worker_died(n_deaths: int, how: str = "") -> Failure:
    """Return what stands for a part that has cost as many workers."""
    times = "once" if n_deaths == 1 else f"{n_deaths} times"
    return Failure(
        "WorkerDied",
        f"the worker process died {times} while it ran this part"
        f"{f', {how}' if how else ''}: killed, out of memory, or crashed",
    )


def _dumps(value: Any) -> bytes:
    # The same cloudpickle as the process pools of joblib, vendored or not.
    from joblib.externals.loky.cloudpickle_wrapper import dumps

    packed: bytes = dumps(value, protocol=pickle.HIGHEST_PROTOCOL)
    return packed
