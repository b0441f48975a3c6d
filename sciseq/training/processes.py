"""Starting the processes of one training on this machine, watching and ending them.

They are plain child processes that are told their places as torchrun would tell them,
by variables of the environment. Work and results go through files of a folder that
belongs to this user alone and is removed at the end.
"""

import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from sciseq.errors import InputError, ProcessError
from sciseq.training.options import TrainingResult

if TYPE_CHECKING:
    from sciseq.training.distributed import TrainingTask

__all__ = ["Failure", "Success", "error_path", "result_path", "train_in_processes"]

Process = subprocess.Popen[bytes]

TASK = "task.pickle"

_LOOK_EVERY = 0.05  # seconds
# A process that lost another one needs a moment to say so.
_GRACE = 5.0
_TAIL = 2000  # characters of what a dead process wrote

_WORKER = "from sciseq.training.worker import main; main()"


class Success(NamedTuple):
    """What the first process brings back."""

    result: TrainingResult
    weights: dict[str, Tensor]
    warnings: list[Warning]


class Failure(NamedTuple):
    """Why a process ended: the error, pickled where that is possible, and its text."""

    error: bytes | None
    text: str


def result_path(folder: Path) -> Path:
    """Return where the first process of a node leaves its :class:`Success`."""
    return folder / "result.pickle"


def error_path(folder: Path, rank: int) -> Path:
    """Return where a process leaves its :class:`Failure`."""
    return folder / f"error-{rank}.pickle"


def train_in_processes(
    task: "TrainingTask",
) -> tuple[TrainingResult, dict[str, Tensor]]:
    """Train in processes of their own, and wait for them.

    Parameters
    ----------
    task : TrainingTask
        What to train.

    Returns
    -------
    TrainingResult
        How it went.
    dict of str to Tensor
        The best weights, on the CPU.

    Raises
    ------
    InputError
        When the task cannot be handed over, or the other nodes are not known.
    ProcessError
        When a process ended without an error of its own, or did not answer.
    KeyboardInterrupt
        When interrupted before the first epoch is finished.
    Exception
        The error of a process, as in a training by one.
    """
    with tempfile.TemporaryDirectory(prefix="sciseq-") as name:
        folder = Path(name)
        (folder / TASK).write_bytes(_dumped(task))
        places = _environments(task)
        processes: list[Process] = []
        try:
            for rank, place in enumerate(places):
                processes.append(_start(folder, rank, place))
            _wait(processes)
        except KeyboardInterrupt:
            # They end in the same step, and the first one brings its best weights.
            for process in processes:
                process.send_signal(signal.SIGINT)
            _wait(processes)
            if not result_path(folder).exists():
                raise
        finally:
            codes = [process.poll() for process in processes]
            _end(processes)
        if any(codes) or None in codes or not result_path(folder).exists():
            raise _cause(folder, codes)
        success = Success(*pickle.loads(result_path(folder).read_bytes()))
    for warning in success.warnings:
        warnings.warn(warning, stacklevel=4)
    return success.result, success.weights


def _dumped(task: "TrainingTask") -> bytes:
    import cloudpickle  # losses are closures, which pickle leaves alone

    try:
        return bytes(cloudpickle.dumps(task))
    except (TypeError, ValueError, pickle.PicklingError) as error:
        raise InputError(
            f"the training cannot be handed to other processes: {error}",
            where="n_devices",
            hint="Give what can be pickled, or set n_devices=1.",
        ) from error


def _environments(task: "TrainingTask") -> list[dict[str, str]]:
    """Return the environment of each process."""
    common = dict(os.environ)
    if task.n_nodes == 1:
        common.update(
            MASTER_ADDR="127.0.0.1", MASTER_PORT=str(_free_port()), NODE_RANK="0"
        )
    missing = [
        name
        for name in ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK")
        if not common.get(name)
    ]
    if missing:
        raise InputError(
            f"n_nodes={task.n_nodes} needs {', '.join(missing)} in the environment, "
            "which is not set",
            where="n_nodes",
            hint="Start the script with torchrun or srun, or set address and port of "
            "the first node, and the number of this one, on every node.",
        )
    # What can be imported here can be imported there.
    common["PYTHONPATH"] = os.pathsep.join(one or str(Path.cwd()) for one in sys.path)
    threads = max(torch.get_num_threads() // task.n_devices, 1)
    common["OMP_NUM_THREADS"] = str(threads)
    common.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    return [{**common, "LOCAL_RANK": str(rank)} for rank in range(task.n_devices)]


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _start(folder: Path, rank: int, environment: Mapping[str, str]) -> Process:
    with _log_path(folder, rank).open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-c", _WORKER, str(folder)],
            env=environment,
            # It ends when this pipe does: whatever happens here, nothing is left.
            stdin=subprocess.PIPE,
            stdout=log,
            # The first one shows the progress.
            stderr=None if rank == 0 else log,
            # Ctrl-C in a terminal is for this process, which passes it on.
            start_new_session=True,
        )


def _log_path(folder: Path, rank: int) -> Path:
    return folder / f"output-{rank}.txt"


def _wait(processes: list[Process]) -> None:
    """Wait until all ended, or one failed and the others had a moment to say so."""
    last = None
    while None in (codes := [process.poll() for process in processes]):
        if last is None and any(codes):
            last = time.monotonic() + _GRACE
        if last is not None and time.monotonic() > last:
            return
        time.sleep(_LOOK_EVERY)


def _end(processes: list[Process]) -> None:
    for process in processes:
        process.kill()  # does nothing to one that ended
        process.wait()
        if process.stdin is not None:
            process.stdin.close()


def _cause(folder: Path, codes: list[int | None]) -> BaseException:
    """Return what went wrong first: that a process lost another one comes after it."""
    failures = {
        rank: Failure(*pickle.loads(error_path(folder, rank).read_bytes()))
        for rank in range(len(codes))
        if error_path(folder, rank).exists()
    }
    errors = [_loaded(rank, one) for rank, one in failures.items()]
    for error in errors:
        if not isinstance(error, ProcessError):
            return error
    for rank, code in enumerate(codes):
        if code and rank not in failures:
            return _died(rank, code, len(codes), _tail(_log_path(folder, rank)))
    return errors[0] if errors else ProcessError("no process brought back a result")


def _loaded(rank: int, failure: Failure) -> BaseException:
    if failure.error is not None:
        try:
            error = pickle.loads(failure.error)
        # Errors of other packages may not open again, in ways of their own.
        except Exception:
            error = None
        if isinstance(error, BaseException):
            return error
    return RuntimeError(f"process {rank} of the training failed:\n{failure.text}")


def _died(rank: int, code: int, n_processes: int, output: str) -> ProcessError:
    how = f"with exit code {code}"
    if code < 0:
        how = f"by signal {-code} ({signal.Signals(-code).name})"
    said = f", having written: {output}" if output else ""
    hint = "The others were ended too. With checkpoint_dir the same call goes on from "
    hint += "the last checkpoint."
    if code == -signal.SIGKILL:
        hint = f"Perhaps memory ran out: every process holds the data. {hint}"
    return ProcessError(
        f"process {rank} of {n_processes} that train together was ended {how}{said}",
        where="fit",
        hint=hint,
    )


def _tail(path: Path) -> str:
    return path.read_text(errors="replace").strip()[-_TAIL:]
