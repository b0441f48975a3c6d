"""Where a training run stands, and its way into a checkpoint and back.

Random states are not among it: every draw of an epoch comes from generators named by
seed and epoch, so that the number of the epoch says it all.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sciseq.errors import CheckpointError
from sciseq.training.checkpoints import Checkpoint
from sciseq.training.options import StopReason, TrainingOptions

__all__ = ["TrainingState", "capture", "restore"]


@dataclass(frozen=True)
class TrainingState:
    """Where a run stands after ``epoch`` epochs.

    Immutable, so that an interrupt finds the state before an epoch or after it, never
    best weights that are half copied.
    """

    epoch: int
    history: tuple[dict[str, float], ...]
    best_epoch: int
    best_loss: float
    n_worse: int
    best_weights: Mapping[str, Tensor]

    @classmethod
    def initial(cls, network: nn.Module) -> "TrainingState":
        """Return the state before the first epoch."""
        return cls(0, (), 0, float("inf"), 0, _copy_of(network.state_dict()))

    def after(self, record: dict[str, float], network: nn.Module) -> "TrainingState":
        """Return the state after one more epoch, which ``record`` describes."""
        epoch, history = self.epoch + 1, (*self.history, record)
        loss = record.get("validation_loss", record["train_loss"])
        if "validation_loss" in record and loss > self.best_loss:
            return TrainingState(
                epoch,
                history,
                self.best_epoch,
                self.best_loss,
                self.n_worse + 1,
                self.best_weights,
            )
        weights = _copy_of(network.state_dict())
        return TrainingState(epoch, history, epoch, loss, 0, weights)

    def reason_to_stop(self, options: TrainingOptions) -> StopReason | None:
        """Return why training ends here, or None when it goes on."""
        if options.patience is not None and self.n_worse >= options.patience:
            return "early_stopping"
        return "max_epochs" if self.epoch >= options.max_epochs else None


def capture(
    state: TrainingState, network: nn.Module, optimizer: torch.optim.Optimizer
) -> Checkpoint:
    """Return all that is needed to go on from here later."""
    record = {
        "epoch": state.epoch,
        "history": list(state.history),
        "best_epoch": state.best_epoch,
        "best_loss": state.best_loss,
        "n_worse": state.n_worse,
    }
    names: dict[Tensor, str] = {one: name for name, one in network.named_parameters()}
    tensors = {
        **{f"weights/{name}": one for name, one in network.state_dict().items()},
        **{f"best/{name}": one for name, one in state.best_weights.items()},
        **{
            f"optimizer/{slot}/{names[parameter]}": one
            for parameter, slots in optimizer.state.items()
            for slot, one in slots.items()
        },
    }
    # Copies, because safetensors refuses the shared memory of tied weights.
    return Checkpoint(
        record,
        {
            name: one.detach().to("cpu", copy=True).contiguous()
            for name, one in tensors.items()
        },
    )


def restore(
    checkpoint: Checkpoint,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    options: TrainingOptions,
) -> TrainingState:
    """Put network and optimizer where ``checkpoint`` left them; return the state.

    Raises
    ------
    CheckpointError
        When the network has other weights, or the checkpoint more epochs than asked
        for; network and optimizer are unchanged.
    """
    record, tensors = checkpoint
    if record["epoch"] > options.max_epochs:
        raise CheckpointError(
            f"the checkpoint has {record['epoch']} epochs, max_epochs is "
            f"{options.max_epochs}; a shorter run cannot be cut out of it",
            where=str(options.checkpoint_dir),
            hint=f"Set max_epochs to at least {record['epoch']}, or give another "
            "checkpoint_dir.",
        )
    weights = _below("weights/", tensors)
    _check_weights(weights, network, options)
    network.load_state_dict(weights)
    parameters = dict(network.named_parameters())
    for key, tensor in _below("optimizer/", tensors).items():
        slot, _, name = key.partition("/")
        optimizer.state[parameters[name]][slot] = tensor.to(parameters[name].device)
    return TrainingState(
        record["epoch"],
        tuple(record["history"]),
        record["best_epoch"],
        record["best_loss"],
        record["n_worse"],
        _below("best/", tensors),
    )


def _check_weights(
    weights: Mapping[str, Tensor], network: nn.Module, options: TrainingOptions
) -> None:
    found = {name: (tuple(one.shape), one.dtype) for name, one in weights.items()}
    wanted = {
        name: (tuple(one.shape), one.dtype)
        for name, one in network.state_dict().items()
    }
    names = sorted(
        name for name in found.keys() | wanted if found.get(name) != wanted.get(name)
    )
    if names:
        raise CheckpointError(
            "the checkpoint does not fit the network; differing weights: "
            f"{', '.join(names[:10])} ({len(names)} in all)",
            where=str(options.checkpoint_dir),
            hint="Give another checkpoint_dir, or delete this folder to train from "
            "the start.",
        )


def _below(prefix: str, tensors: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name.removeprefix(prefix): one
        for name, one in tensors.items()
        if name.startswith(prefix)
    }


def _copy_of(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: one.detach().clone() for name, one in weights.items()}
