"""Parts on the workers of a Dask cluster, running or started for the purpose."""

import contextlib
import math
import signal
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pickle import loads
from typing import Any
from uuid import uuid4

from sciseq.errors import InputError, MissingDependencyError
from sciseq.jobs.exit_codes import TemporaryError
from sciseq.jobs.worker_calls import Work, call_packed, load_work, pack, worker_died

try:
    from distributed import (
        CancelledError,
        Client,
        KilledWorker,
        LocalCluster,
        WorkerPlugin,
        get_worker,
        wait,
    )
except ImportError as _error:
    raise MissingDependencyError(
        "running parts on a Dask cluster needs dask and distributed",
        where="run_parts",
        hint="Install the extra: pip install 'sciseq[distributed]'.",
    ) from _error

__all__ = ["PARTS_PER_WORKER", "run_on_dask"]

PARTS_PER_WORKER = 2
"""Parts in flight for each worker: one that it runs, one that is on its way."""

# Seconds: to reach a scheduler; for workers to come, or to come again; between looks
# at a cluster that is silent.
_CONNECT, _NO_WORKERS, _LOOK = 8.0, 60.0, 5.0
_SETTLE = 2.0  # for workers that have just started


def run_on_dask(
    work: Work,
    parts: Iterable[Any],
    *,
    address: str | None,
    n_workers: int,
    retries: int,
) -> Iterator[tuple[int, Any]]:
    """Yield the number and the result of each part, as they finish.

    Parameters
    ----------
    work : Work
        Sent once to each worker, those that come later too.
    parts : iterable
        Read as workers become free.
    address : str, optional
        Of the scheduler; without it a cluster is started here.
    n_workers : int
        Workers of the cluster that is started here.
    retries : int
        Times that a part is tried again after its worker has died.
    """
    packed = pack(work, "the function, or what is shared,")
    is_own = address is None
    with contextlib.ExitStack() as stack:
        restore: Callable[[], object] = bool  # does nothing
        if address is None:
            cluster = stack.enter_context(_local_cluster(n_workers))
            address, restore = (
                cluster.scheduler_address,
                partial(cluster.scale, n_workers),
            )
        client = stack.enter_context(_connected(address))
        name = stack.enter_context(_shared(client, packed, is_own=is_own))
        del packed
        yield from _Flight(client, name, enumerate(parts), retries, restore).results()


def _local_cluster(n_workers: int) -> Any:
    return LocalCluster(
        n_workers=n_workers,
        threads_per_worker=1,
        processes=True,
        scheduler_kwargs={
            "dashboard": False,
            "dashboard_address": "127.0.0.1:0",  # its pages for machines, at any port
            "allowed_failures": 0,  # whether a part is tried again is decided here
        },
        silence_logs=50,
    )


class _Client(Client):
    """A client that is closed when it cannot connect.

    Dask leaves that to the garbage collector. When this comes by while another loop is
    being started, in the same thread, both wait for one lock for ever.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        begin: Any = super().__init__
        close: Any = self.close
        try:
            begin(*args, **kwargs)
        except BaseException:
            with contextlib.suppress(Exception):  # it may have failed very early
                close()
            raise


@contextlib.contextmanager
def _connected(address: str) -> Iterator[Any]:
    """Connect to a scheduler that has workers; Dask's default client stays."""
    try:
        client = _Client(address, timeout=_CONNECT, set_as_default=False)
    except (OSError, ValueError) as error:  # a time-out is the former
        raise InputError(
            f"no Dask scheduler can be reached at {address!r}: {error}",
            where="scheduler",
            hint="Start one with `dask scheduler`, or use 'local'.",
        ) from error
    with client:
        try:
            client.wait_for_workers(1, timeout=_NO_WORKERS)
        except TimeoutError as error:
            raise _without_workers(address) from error
        yield client


def _without_workers(address: str) -> TemporaryError:
    return TemporaryError(
        f"the Dask scheduler at {address!r} has no workers, {_NO_WORKERS:.0f} s long",
        where="scheduler",
        hint=f"Start some with `dask worker {address} --nthreads 1`.",
    )


@contextlib.contextmanager
def _shared(client: Any, packed: bytes, *, is_own: bool) -> Iterator[str]:
    """Keep the work on every worker, and yield the name it has there.

    What is scattered is lost with the workers that hold it; a plug-in is set up again
    on every worker that starts.
    """
    name = f"sciseq-{uuid4().hex}"
    try:
        _register(client, _SharedWork(packed, is_own=is_own), name)
        yield name
    finally:
        # One that cannot be set up is kept by the scheduler too, and would be the end
        # of every new worker. A cluster that is gone has nothing to tidy up.
        with contextlib.suppress(Exception):
            client.unregister_worker_plugin(name)


def _register(client: Any, plugin: Any, name: str, n_trials: int = 5) -> None:
    try:
        client.register_plugin(plugin, name=name)
    except InputError:
        raise
    except OSError as error:  # a worker that is just dying does not answer
        if n_trials == 1:
            raise _lost() from error
        time.sleep(1.0)
        _register(client, plugin, name, n_trials - 1)
    except Exception as error:  # of a worker, whatever it lacks
        raise InputError(
            f"the Dask workers cannot load sciseq: {type(error).__name__}: {error}",
            where="scheduler",
            hint="Install the same version of sciseq on all workers.",
        ) from error


class _SharedWork(WorkerPlugin):
    """The work, unpacked once in each worker."""

    def __init__(self, packed: bytes, *, is_own: bool) -> None:
        self._packed, self._is_own = packed, is_own

    def setup(self, worker: Any) -> None:
        self.work = load_work(self._packed)
        self._packed = b""
        if self._is_own and threading.current_thread() is threading.main_thread():
            # Ctrl-C reaches all processes of a terminal; the first one says what
            # happens.
            signal.signal(signal.SIGINT, signal.SIG_IGN)


# Workers may have several threads. Numbers of threads and the record of warnings
# belong to the process, so that a process does one part at a time.
_ONE_AT_A_TIME = threading.Lock()


def _call_on_worker(name: str, packed_part: bytes) -> bytes:
    with _ONE_AT_A_TIME:
        plugin: Any = get_worker().plugins[name]
        return call_packed(plugin.work, packed_part)


@dataclass
class _Sent:
    """A part that has been sent to the cluster."""

    index: int
    packed: bytes
    n_deaths: int = 0
    is_alone: bool = False


class _Flight:
    """The parts that are on the cluster.

    When a worker dies, Dask blames all parts that it had. So these are tried again one
    by one, with nothing else on the cluster: what dies then is to blame itself.
    """

    def __init__(
        self,
        client: Any,
        name: str,
        parts: Iterator[tuple[int, Any]],
        retries: int,
        restore: Callable[[], object],
    ) -> None:
        # A worker that dies as soon as it is there is not started again by its nanny.
        self._restore = restore
        self._client, self._name, self._parts = client, name, parts
        self._retries = retries
        self._sent: dict[Any, _Sent] = {}
        self._suspects: deque[_Sent] = deque()
        self._n_workers, self._looked = 0, -math.inf
        self._last_seen = time.monotonic()

    def results(self) -> Iterator[tuple[int, Any]]:
        self._fill()
        while self._sent:
            for future in self._finished():
                found = self._take(future)
                # Before the caller has its turn: the workers go on meanwhile.
                self._fill()
                if found is not None:
                    yield found

    def _fill(self) -> None:
        self._look()
        if self._suspects:
            if not self._sent:
                time.sleep(_SETTLE)
                suspect = self._suspects.popleft()
                suspect.is_alone = True
                self._send(suspect)
            return
        while len(self._sent) < PARTS_PER_WORKER * max(1, self._n_workers):
            following = next(self._parts, None)
            if following is None:
                return
            index, part = following
            self._send(_Sent(index, pack(part, f"part {index}")))

    def _send(self, one: _Sent) -> None:
        with warnings.catch_warnings():
            # Large parts are meant to be sent, each once.
            warnings.filterwarnings("ignore", message="Sending large graph")
            future = self._client.submit(
                _call_on_worker, self._name, one.packed, pure=False
            )
        self._sent[future] = one

    def _finished(self) -> list[Any]:
        """Wait until parts are done."""
        while True:
            try:
                with self._client.as_current():
                    found = wait(
                        [*self._sent], timeout=_LOOK, return_when="FIRST_COMPLETED"
                    )
            except TimeoutError:
                self._look()
            except CancelledError as error:
                raise _lost() from error
            else:
                return list(found.done)

    def _look(self) -> None:
        """Count the workers, now and then; without any there is nothing to wait for."""
        now = time.monotonic()
        if now - self._looked < _LOOK:
            return
        self._restore()
        self._n_workers, self._looked = (
            len(self._client.scheduler_info()["workers"]),
            now,
        )
        if self._n_workers:
            self._last_seen = now
        elif now - self._last_seen > _NO_WORKERS:
            raise _without_workers(self._client.scheduler.address)

    def _take(self, future: Any) -> tuple[int, Any] | None:
        """Return a part's result; None when it is tried again."""
        one = self._sent.pop(future)
        try:
            result = loads(future.result())
        except KilledWorker as error:
            one.n_deaths += error.allowed_failures + 1
            if one.n_deaths <= self._retries or not one.is_alone:
                self._suspects.append(one)
                return None
            result = worker_died(one.n_deaths)
        except CancelledError as error:
            raise _lost() from error
        return one.index, result


def _lost() -> TemporaryError:
    return TemporaryError(
        "the connection to the Dask scheduler was lost",
        where="scheduler",
        hint="See whether it still runs, and start again.",
    )
