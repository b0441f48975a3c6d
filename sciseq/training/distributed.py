"""Training over several processes or nodes, found and connected by Lightning Fabric.

Where a launcher (torchrun, srun) started the processes, they find each other and each
goes on with its share. Otherwise this process starts them, waits, and takes over what
they learned; see :mod:`sciseq.training.processes`.
"""

import contextlib
import hashlib
import importlib.util
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor, nn

from sciseq.errors import InputError, MissingDependencyError, ProcessError
from sciseq.training.loop import train
from sciseq.training.options import (
    Batches,
    LossFunction,
    TrainingOptions,
    TrainingResult,
)
from sciseq.training.team import Team

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["TrainingTask", "train_distributed", "train_share"]

MakeBatches: TypeAlias = Callable[[torch.device], tuple[Batches, Batches | None]]

# How long a process waits for the others, in seconds: they take equal steps, but the
# first one also writes checkpoints, and compiling takes a while.
TIMEOUT = 600.0

# Beginnings of the variables that launchers set. Fabric knows them better, but takes
# seconds to import: it is asked only where there may be one.
_OF_LAUNCHERS = ("LOCAL_RANK", "SLURM_", "LSB_", "OMPI_", "PMI_", "MPI_")

_PACKAGES = ("lightning_fabric", "cloudpickle")


@dataclass(frozen=True)
class TrainingTask:
    """All that a process needs in order to train along.

    Parameters
    ----------
    network : torch.nn.Module
        With its initial weights, on the CPU.
    loss : callable
        As in :func:`sciseq.training.train`.
    make_batches : callable
        From a device to the training and validation items on it.
    options : TrainingOptions
        All settings; of the device only its kind counts.
    n_devices, n_nodes : int
        Processes of each node, and nodes.
    timeout : float
        Seconds to wait for other processes.
    """

    network: nn.Module
    loss: LossFunction
    make_batches: MakeBatches
    options: TrainingOptions
    n_devices: int
    n_nodes: int
    timeout: float


def train_distributed(
    network: nn.Module,
    loss: LossFunction,
    make_batches: MakeBatches,
    options: TrainingOptions,
    *,
    n_devices: int,
    n_nodes: int = 1,
) -> TrainingResult:
    """Train ``network`` in place, as :func:`sciseq.training.train`, by many processes.

    Parameters
    ----------
    network, loss, options
        As in :func:`sciseq.training.train`.
    make_batches : callable
        From a device to the training and validation items on it.
    n_devices : int
        Processes of each node, one per device; on a CPU as many as wanted.
    n_nodes : int, default 1
        Nodes.

    Returns
    -------
    TrainingResult
        The same in all processes.

    Raises
    ------
    MissingDependencyError
        Without Lightning Fabric and cloudpickle.
    InputError
        When devices or nodes are not there, or processes that were started by a
        launcher do not train the same.
    ProcessError
        When a process ended, or did not answer for ten minutes.

    Notes
    -----
    Processes that are started here share nothing with this one: they get a copy of the
    data, and import what the training needs. The main module is not imported, so a
    script needs no guard, and notebooks work. On CPUs they divide the threads that
    torch may use here.
    """
    for name in _PACKAGES:
        if importlib.util.find_spec(name) is None:
            raise MissingDependencyError(
                f"training by several processes needs the package {name}, which is "
                "not installed",
                where="n_devices",
                hint="Install it: pip install 'sciseq[distributed]'.",
            )
    task = TrainingTask(
        network, loss, make_batches, options, n_devices, n_nodes, TIMEOUT
    )
    if any(name.startswith(_OF_LAUNCHERS) for name in os.environ):
        fabric = _make_fabric(task)
        if _has_launcher(fabric):
            return train_share(task, fabric)
    from sciseq.training.processes import train_in_processes

    result, weights = train_in_processes(task)
    network.load_state_dict(weights)
    network.to(options.device).eval()
    return result


def train_share(task: TrainingTask, fabric: "Fabric | None" = None) -> TrainingResult:
    """Train together with the other processes of a task, each of which calls this.

    Parameters
    ----------
    task : TrainingTask
        What to train.
    fabric : Fabric, optional
        What knows the other processes; by default the environment says it.

    Returns
    -------
    TrainingResult
        The same in all processes; the network has the best weights in all of them.
    """
    fabric = _make_fabric(task) if fabric is None else fabric
    with _quiet():
        try:
            fabric.launch()
        except (RuntimeError, ValueError) as error:
            raise ProcessError(f"the processes did not find each other: {error}",
                               where="n_devices, n_nodes") from error  # fmt: skip
    team = _FabricTeam(fabric, task.timeout)
    options = replace(task.options, device=fabric.device, team=team)
    batches = task.make_batches(fabric.device)
    _check_same(team, task, batches[0])
    return train(task.network, task.loss, *batches, options)


class _FabricTeam(Team):
    """Processes that Fabric connected."""

    def __init__(self, fabric: "Fabric", timeout: float) -> None:
        super().__init__(fabric.global_rank, fabric.world_size)
        self._device = fabric.device
        self._timeout = timeout

    def sum(self, tensor: Tensor) -> Tensor:
        # NCCL adds up on its device only.
        moved = tensor.to(self._device, copy=True)
        with self._answering():
            torch.distributed.all_reduce(moved)
        return moved.to(tensor.device)

    def gather(self, value: Any) -> list[Any]:
        values = [None] * self.size
        with self._answering():
            torch.distributed.all_gather_object(values, value)
        return values

    @contextlib.contextmanager
    def _answering(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            raise ProcessError(
                f"another of the {self.size} processes that train together ended, or "
                f"did not answer for {self._timeout:g} s",
                where=f"process {self.rank}",
                hint="Its own message, if it had one, says why.",
            ) from error


def _make_fabric(task: TrainingTask) -> "Fabric":
    with _environment_kept():
        from lightning_fabric import Fabric
        from lightning_fabric.strategies.ddp import DDPStrategy

        kind = task.options.device.type
        try:
            return Fabric(
                accelerator=kind,
                devices=task.n_devices,
                num_nodes=task.n_nodes,
                strategy=DDPStrategy(timeout=timedelta(seconds=task.timeout)),
            )
        except (RuntimeError, ValueError) as error:
            raise InputError(
                f"n_devices={task.n_devices} and n_nodes={task.n_nodes} cannot be had "
                f"of {kind!r}: {error}",
                where="n_devices, n_nodes",
            ) from error


def _has_launcher(fabric: "Fabric") -> bool:
    from lightning_fabric.strategies.ddp import DDPStrategy

    assert isinstance(fabric.strategy, DDPStrategy)
    environment = fabric.strategy.cluster_environment
    return environment is not None and environment.creates_processes_externally


def _check_same(team: Team, task: TrainingTask, training: Batches) -> None:
    """Refuse processes that would each train something else."""
    digest = hashlib.sha256()
    for name, one in task.network.state_dict().items():
        digest.update(name.encode())
        digest.update(
            one.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy()
        )
    found = {
        "seed": task.options.seed,
        "number of training items": training.n_items,
        "batch_size": task.options.batch_size,
        "initial weights": digest.hexdigest(),
    }
    all_found = team.gather(found)
    different = [name for name in found if len({one[name] for one in all_found}) > 1]
    if different:
        raise InputError(
            f"the {team.size} processes do not train the same: they differ in "
            f"{', '.join(different)}",
            where="fit",
            hint="Give all of them the same data and parameters, and random_state an "
            "integer.",
        )


@contextlib.contextmanager
def _environment_kept() -> Iterator[None]:
    """Take back what Fabric writes into the environment when it is imported."""
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep Fabric from announcing what it does."""
    logger = logging.getLogger("lightning_fabric")
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(before)
