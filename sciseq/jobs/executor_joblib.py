"""Parts on several processes of this machine, by the process pools of joblib.

Every worker is a pool of one process. When it dies, the part that it ran is the one to
blame, and no other worker is touched; one pool of several processes would break as a
whole and leave open which part it was.
"""

import os
import re
import signal
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from pickle import loads
from typing import Any

from joblib.externals.loky.process_executor import ProcessPoolExecutor

from sciseq.jobs.worker_calls import Work, call_packed, load_work, pack, worker_died

__all__ = ["PARTS_PER_WORKER", "run_on_processes"]

PARTS_PER_WORKER = 2
"""Parts that a worker has: one that it runs, one that waits, so that it never does."""

_PARENT_CHECK = 1.0  # seconds


def run_on_processes(
    work: Work, parts: Iterable[Any], *, n_processes: int, retries: int
) -> Iterator[tuple[int, Any]]:
    """Yield the number and the result of each part, as they finish.

    Parameters
    ----------
    work : Work
        Written to a file once and read once by each process.
    parts : iterable
        Read as workers become free.
    n_processes : int
        At least 1; they start when there are parts for them.
    retries : int
        Times that a part is tried again after its process has died.
    """
    packed = pack(work, "the function, or what is shared,")
    with tempfile.TemporaryDirectory(prefix="sciseq-") as folder:
        path = Path(folder, "work")
        path.write_bytes(packed)
        del packed
        workers = [_Worker(path, retries) for _ in range(n_processes)]
        try:
            yield from _results(workers, enumerate(parts))
        finally:
            for worker in workers:
                worker.stop()


def _results(
    workers: list["_Worker"], parts: Iterator[tuple[int, Any]]
) -> Iterator[tuple[int, Any]]:
    _fill(workers, parts)
    while heads := [worker.assigned[0].future for worker in workers if worker.assigned]:
        wait(heads, return_when=FIRST_COMPLETED)
        for worker in workers:
            while worker.assigned and worker.assigned[0].future.done():
                found = worker.take()
                # Before the caller has its turn: the workers go on meanwhile.
                _fill(workers, parts)
                if found is not None:
                    yield found


def _fill(workers: list["_Worker"], parts: Iterator[tuple[int, Any]]) -> None:
    """Give each worker its parts, the idle ones first."""
    for n_others in range(PARTS_PER_WORKER):
        for worker in workers:
            if len(worker.assigned) == n_others:
                following = next(parts, None)
                if following is None:
                    return
                index, part = following
                worker.give(index, pack(part, f"part {index}"))


@dataclass
class _Assigned:
    """A part that a worker has."""

    index: int
    packed: bytes
    future: "Future[bytes]"
    n_deaths: int = 0


class _Worker:
    """One process and its parts, the one that it runs first."""

    def __init__(self, path: Path, retries: int) -> None:
        self.assigned: deque[_Assigned] = deque()
        self._path, self._retries = path, retries
        self._pool: Any = None

    def give(self, index: int, packed: bytes) -> None:
        self.assigned.append(_Assigned(index, packed, self._submit(packed)))

    def take(self) -> tuple[int, Any] | None:
        """Return the first part's result; None when it is tried again."""
        first = self.assigned[0]
        try:
            result = loads(first.future.result())
        except BrokenProcessPool as error:
            first.n_deaths += 1
            if first.n_deaths <= self._retries:
                self._start_again()
                return None
            result = worker_died(first.n_deaths, _exit_code(error))
            self.assigned.popleft()
            self._start_again()
        else:
            self.assigned.popleft()
        return first.index, result

    def stop(self) -> None:
        """End the process, and whatever it has started."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=True, kill_workers=True)

    def _start_again(self) -> None:
        self.stop()
        for one in self.assigned:
            one.future = self._submit(one.packed)

    def _submit(self, packed: bytes) -> "Future[bytes]":
        if self._pool is None:
            self._pool = ProcessPoolExecutor(
                1, initializer=_prepare_process, initargs=(os.getpid(),)
            )
        future: Future[bytes] = self._pool.submit(_call_in_process, self._path, packed)
        return future


def _exit_code(error: BaseException) -> str:
    found = re.search(r"\{(\w+\(-?\d+\))\}", str(error))
    return f"with {found[1]}" if found else ""


# ------------------------------------------------------------------ in the process

# Work that this process has read, by its file.
_READ: dict[Path, Work] = {}


def _call_in_process(path: Path, packed_part: bytes) -> bytes:
    if path not in _READ:
        _READ.clear()
        _READ[path] = load_work(path.read_bytes())
    return call_packed(_READ[path], packed_part)


def _prepare_process(parent: int) -> None:
    # Ctrl-C reaches all processes of a terminal; the first one says what happens.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow, args=(parent, os.getppid), daemon=True).start()


def _follow(parent: int, parent_now: Callable[[], int]) -> None:
    """End this process when the one that started it has been killed."""
    while parent_now() == parent:
        time.sleep(_PARENT_CHECK)
    os._exit(1)
