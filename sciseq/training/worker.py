"""One process of a training that :mod:`sciseq.training.processes` started."""

import os
import pickle
import sys
import threading
import traceback
import warnings
from pathlib import Path

import torch

from sciseq.files import write_atomic
from sciseq.training.distributed import TrainingTask, train_share
from sciseq.training.processes import (
    TASK,
    Failure,
    Success,
    error_path,
    result_path,
)

__all__ = ["main"]


def main() -> None:
    """Do the share of this process, and leave a result or an error in the folder."""
    folder, rank = Path(sys.argv[1]), int(os.environ["LOCAL_RANK"])
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        task = pickle.loads((folder / TASK).read_bytes())
        success = _train(task)
        if rank == 0:
            _leave(result_path(folder), success)
    except BaseException as error:
        _leave(error_path(folder, rank), _failure(error, rank))
        sys.exit(1)


def _train(task: TrainingTask) -> Success:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        result = train_share(task)
    weights = {name: tensor.cpu() for name, tensor in task.network.state_dict().items()}
    torch.distributed.barrier()  # the first process hosts the meeting point
    torch.distributed.destroy_process_group()
    said = [one.message for one in caught if isinstance(one.message, Warning)]
    return Success(result, weights, said)


def _end_with_parent() -> None:
    # The pipe ends when the process that started this one does, even if killed.
    # Not through sys.stdin, whose lock would be held at the end of this one.
    os.read(0, 1)
    os._exit(1)


def _failure(error: BaseException, rank: int) -> Failure:
    text = "".join(traceback.format_exception(error))
    # Where it happened would be lost on the way.
    error.add_note(f"In process {rank} of the training:\n{text}")
    try:
        return Failure(pickle.dumps(error), text)
    except Exception:  # pickling fails in ways of the class
        return Failure(None, text)


def _leave(path: Path, value: Success | Failure) -> None:
    write_atomic(path, pickle.dumps(tuple(value)))
