"""What the training loop is given and what it returns."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

import torch
from torch import Tensor, nn

from sciseq.errors import InputError
from sciseq.training.team import Team

__all__ = ["Batches", "LossFunction", "StopReason", "TrainingOptions", "TrainingResult"]

StopReason: TypeAlias = Literal[
    "max_epochs", "early_stopping", "interrupted", "non_finite"
]

LossFunction: TypeAlias = Callable[[nn.Module, Any], tuple[Tensor, Tensor]]
"""``loss(network, batch)`` returns the sum of the losses and the number of scored
values (or the sum of their weights), as scalar tensors; a number known without looking
at the data may stay on the CPU. Means are always sums over counts, so that a partial
last batch and missing values weigh what they should."""

_PRECISIONS = ("float32", "bfloat16", "float64")


class Batches(Protocol):
    """Items held on the device, of which any set can be gathered at once."""

    @property
    def n_items(self) -> int:
        """Number of items."""
        ...

    def gather(self, indices: Tensor) -> Any:
        """Return the batch of the items ``indices`` (int64, on the device)."""
        ...


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """Settings of one training run.

    Parameters
    ----------
    learning_rate : float
        Base learning rate of Adam.
    batch_size : int
        Items per step, and per forward pass of the validation.
    max_epochs : int
        Largest number of passes over the training items.
    patience : int or None
        Stop after this many validation losses in a row that were strictly worse than
        the best; None never stops early, and neither does training without validation.
    schedule : callable
        From the epoch, counted from 1, to a factor on ``learning_rate``.
    step_schedule : callable, optional
        From the share of all steps that is done, in [0, 1), to another factor; the
        steps of ``max_epochs`` epochs count.
    on_step : callable, optional
        Called before every training step with its number, counted from 0 through all
        epochs, and the number of steps of ``max_epochs`` epochs.
    seed : int
        Seed of shuffling and dropout, from :func:`~sciseq.training.resolve_seed`.
    device : torch.device
        Where network and data live, from :func:`~sciseq.training.resolve_device`.
    weight_decay : float, default=0.0
        Decoupled weight decay (AdamW). Parameters that their modules name in
        ``no_weight_decay`` are exempt.
    gradient_clip : float, optional
        Largest norm of the whole gradient.
    precision : {"float32", "bfloat16", "float64"}, default="float32"
        ``"bfloat16"`` keeps float32 weights and computes under ``torch.autocast``;
        ``"float64"`` expects a network and data that are float64 already.
    verbose : int, default=0
        0 is silent; 1 shows a live bar on a terminal, else one line per epoch.
    checkpoint_dir : path-like, optional
        Folder of this one run's checkpoints. A run found there is continued.
    fingerprint : str, default=""
        Hash of the settings and data that determine the run, made by the caller.
        Leave out ``max_epochs`` (unless the schedule depends on it) and ``patience``,
        so that a finished run can be continued with larger ones. A checkpoint with
        another fingerprint is refused.
    checkpoint_every : int, default=1
        Epochs between checkpoints; the last epoch always gets one.
    memory_limit : int, optional
        Bytes that training may take on the device. A step that needs more is computed
        in parts, and its layers twice when that is not enough.
    compile : bool, default=False
        Run the network through ``torch.compile``.
    team : Team, optional
        Processes that train together, of which this one computes its share of every
        batch; see ``sciseq.training.team``.

    Raises
    ------
    InputError
        Naming every setting that is out of range.
    """

    learning_rate: float
    batch_size: int
    max_epochs: int
    patience: int | None
    schedule: Callable[[int], float]
    seed: int
    device: torch.device
    step_schedule: Callable[[float], float] | None = None
    on_step: Callable[[int, int], None] | None = None
    weight_decay: float = 0.0
    gradient_clip: float | None = None
    precision: str = "float32"
    verbose: int = 0
    checkpoint_dir: str | Path | None = None
    fingerprint: str = ""
    checkpoint_every: int = 1
    memory_limit: int | None = None
    compile: bool = False
    team: Team | None = None

    def __post_init__(self) -> None:
        problems = [
            f"{name} is {getattr(self, name)!r}, must be {requirement}"
            for name, is_valid, requirement in self._checks()
            if not is_valid
        ]
        if problems:
            raise InputError("; ".join(problems), hint="Change these settings.")

    def _checks(self) -> list[tuple[str, bool, str]]:
        patience, clip = self.patience, self.gradient_clip
        decay, limit = self.weight_decay, self.memory_limit
        return [
            ("learning_rate", 0 < self.learning_rate < math.inf, "positive and finite"),
            ("batch_size", self.batch_size >= 1, "at least 1"),
            ("max_epochs", self.max_epochs >= 1, "at least 1"),
            ("patience", patience is None or patience >= 1, "None or at least 1"),
            ("weight_decay", 0 <= decay < math.inf, "at least 0 and finite"),
            ("gradient_clip", clip is None or clip > 0, "None or positive"),
            ("precision", self.precision in _PRECISIONS, f"one of {_PRECISIONS}"),
            ("checkpoint_every", self.checkpoint_every >= 1, "at least 1"),
            ("memory_limit", limit is None or limit >= 1, "None or at least 1"),
        ]


@dataclass
class TrainingResult:
    """How a training run went.

    Parameters
    ----------
    history : list of dict
        One entry per finished epoch, resumed ones included: ``epoch``, ``train_loss``,
        ``validation_loss`` (only with validation), ``learning_rate``, ``seconds``.
    best_epoch : int
        Epoch whose weights the network holds.
    best_loss : float
        Validation loss of that epoch; without validation, its training loss.
    stopped : {"max_epochs", "early_stopping", "interrupted", "non_finite"}
        Why training ended.
    part_size : int
        Items that were computed at once, by each process.
    recomputed_layers : bool
        Whether layers were computed twice instead of being kept.
    estimated_memory : int or None
        Estimated bytes of training, with ``memory_limit``.
    """

    history: list[dict[str, float]]
    best_epoch: int
    best_loss: float
    stopped: StopReason
    part_size: int
    recomputed_layers: bool = False
    estimated_memory: int | None = None
