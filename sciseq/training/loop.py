"""The training loop that every torch estimator of sciseq uses."""

import contextlib
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sciseq.errors import CapabilityError, InputError, NumericalError, SciSeqWarning
from sciseq.nn.initialization import no_weight_decay_names
from sciseq.training.adam import FusedAdam
from sciseq.training.allocations import out_of_memory_named
from sciseq.training.checkpoints import Checkpoint, CheckpointStore
from sciseq.training.compilation import set_compiled
from sciseq.training.epochs import Epochs
from sciseq.training.memory_plan import MemoryPlan, plan_memory
from sciseq.training.options import (
    Batches,
    LossFunction,
    StopReason,
    TrainingOptions,
    TrainingResult,
)
from sciseq.training.progress import Reporter, make_reporter
from sciseq.training.recomputation import has_batch_norm, recomputed_layers
from sciseq.training.state import TrainingState, capture, restore
from sciseq.training.team import Team

__all__ = ["train"]


def train(
    network: nn.Module,
    loss: LossFunction,
    training: Batches,
    validation: Batches | None,
    options: TrainingOptions,
) -> TrainingResult:
    """Train ``network`` in place and leave it with its best weights, in eval mode.

    Best is the epoch with the smallest validation loss, the latest of equal ones;
    without validation it is the last epoch.

    Parameters
    ----------
    network : torch.nn.Module
        Moved to ``options.device``. Dropout must come from ``sciseq.nn.dropout``, which
        draws from an explicit generator.
    loss : callable
        ``loss(network, batch)`` returns the sum of the losses and the number of scored
        values, as scalar tensors. The gradient is that of their ratio.
    training, validation : Batches
        Data on ``options.device``; ``validation`` may be None.
    options : TrainingOptions
        All settings.

    Returns
    -------
    TrainingResult
        History, best epoch and why training ended.

    Warns
    -----
    SciSeqWarning
        When training was interrupted (Ctrl-C) or left the finite numbers, after at
        least one finished epoch. The network then has the best weights so far. Also
        when the network cannot be compiled, and when ``memory_limit`` and ``compile``
        do not go together.

    Raises
    ------
    InputError
        When there is nothing to train or no item to train on, or ``memory_limit`` is
        too small for one item.
    CapabilityError
        When memory runs out, or a team is to train a network with a batch norm.
    DataQualityError
        When not a single value of the training or validation items is scored.
    NumericalError
        When a loss, a gradient or a weight stops being finite in the first epoch. The
        network then has its initial weights.
    KeyboardInterrupt
        When interrupted before the first epoch is finished.
    CheckpointError
        When ``checkpoint_dir`` holds another run, or only damaged files.
    OSError
        When a checkpoint cannot be read or written.
    ProcessError
        When another process of the team ended, or no longer answers.

    Notes
    -----
    Every draw of epoch ``q`` comes from generators named by the seed and ``q``, so a
    run resumed from ``checkpoint_dir`` equals an uninterrupted one bit for bit on a CPU
    (same versions, same number of threads). No global random state is used.

    Every process of a team calls this function with the same arguments but for the
    device. Only the first one writes checkpoints and shows progress. An interrupt of
    one of them ends all of them in the same step.

    Examples
    --------
    >>> import torch
    >>> from sciseq.nn import build_network
    >>> from sciseq.training import TrainingOptions, generator_for, train
    >>> class Points:
    ...     x = torch.linspace(-1, 1, 64).unsqueeze(1)
    ...     n_items = 64
    ...     def gather(self, indices):
    ...         return self.x[indices]
    >>> def squared_error(network, x):
    ...     error = network(x) - (3 * x + 1)
    ...     return error.square().sum(), torch.tensor(error.numel())
    >>> weights = generator_for(0, "weights")
    >>> line = build_network(lambda: torch.nn.Linear(1, 1), weights)
    >>> options = TrainingOptions(
    ...     learning_rate=0.3, batch_size=16, max_epochs=60, patience=None,
    ...     schedule=lambda epoch: 0.9**epoch, seed=0, device=torch.device("cpu"))
    >>> result = train(line, squared_error, Points(), None, options)
    >>> round(line.weight.item(), 2), round(line.bias.item(), 2), result.stopped
    (3.0, 1.0, 'max_epochs')
    """
    network.to(options.device)
    _check(network, training, validation, options)
    optimizer = _make_optimizer(network, options)
    state = TrainingState.initial(network)
    store, checkpoint = _find_checkpoint(options)
    if checkpoint is not None:
        state = restore(checkpoint, network, optimizer, options)

    reporter = make_reporter(
        options.verbose if _is_first(options.team) else 0,
        max_epochs=options.max_epochs,
        n_steps=-(-training.n_items // options.batch_size),
        n_done=state.epoch,
    )
    epochs = Epochs(network, loss, training, validation, options, optimizer)
    problem: NumericalError | KeyboardInterrupt | None = None
    plan = MemoryPlan(options.batch_size)
    try:
        with (
            reporter,
            out_of_memory_named("a training step", options.device),
            contextlib.nullcontext()
            if options.team is None
            else options.team.stopping(),
        ):
            plan = _plan(epochs, reporter)
            with _prepared(network, plan, options):
                while state.reason_to_stop(options) is None:
                    state = state.after(epochs.run(state.epoch + 1, reporter), network)
                    if store is not None and _is_checkpoint_due(state, options):
                        store.save(state.epoch, *capture(state, network, optimizer))
    except (NumericalError, KeyboardInterrupt) as error:
        problem = error
    finally:
        optimizer.zero_grad()
        network.eval()

    network.load_state_dict(state.best_weights)
    if problem is not None:
        if not state.history:
            raise problem
        _warn_of(problem, state)
    return TrainingResult(
        [dict(record) for record in state.history],
        state.best_epoch,
        state.best_loss,
        _reason(problem, state, options),
        plan.part_size,
        plan.recomputes_layers,
        plan.n_bytes,
    )


def _is_first(team: Team | None) -> bool:
    return team is None or team.rank == 0


def _find_checkpoint(
    options: TrainingOptions,
) -> tuple[CheckpointStore | None, Checkpoint | None]:
    """Return where checkpoints go, and the one to go on from, which a team shares."""
    if options.checkpoint_dir is None:
        return None, None
    store = checkpoint = None
    if _is_first(options.team):
        store = CheckpointStore(Path(options.checkpoint_dir), options.fingerprint)
        checkpoint = store.load()
    if options.team is not None:
        checkpoint = options.team.gather(checkpoint)[0]
    return store, checkpoint


def _plan(epochs: Epochs, reporter: Reporter) -> MemoryPlan:
    """Settle how steps are computed, and let the epochs do so."""
    options = epochs.options
    limit, size = options.memory_limit, min(options.batch_size, epochs.training.n_items)
    if options.team is not None:
        size = options.team.largest_share(size)
    if limit is None:
        return MemoryPlan(size)
    plan = plan_memory(epochs.step_memory(limit), size)
    if options.team is not None:  # validation goes through parts of one size
        plan = replace(plan, part_size=min(options.team.gather(plan.part_size)))
    reporter.note(plan.describe(size, limit))
    epochs.part_size = plan.part_size
    return plan


@contextlib.contextmanager
def _prepared(
    network: nn.Module, plan: MemoryPlan, options: TrainingOptions
) -> Iterator[None]:
    """Let the network compile, or compute its layers twice, as planned."""
    set_compiled(network, options.compile and not plan.recomputes_layers)
    if not plan.recomputes_layers:
        yield
        return
    if options.compile:
        warnings.warn(
            SciSeqWarning(
                "compile=True has no effect on training here: memory_limit asks for "
                "layers that are computed twice, which are not compiled"
            ),
            stacklevel=5,
        )
    with recomputed_layers(network):
        yield


def _check(
    network: nn.Module,
    training: Batches,
    validation: Batches | None,
    options: TrainingOptions,
) -> None:
    for name, items in (("training", training), ("validation", validation)):
        if items is not None and items.n_items < 1:
            raise InputError(
                f"there is no {name} item, at least 1 is needed",
                where=f"{name} data",
                hint="Give more data, or change how they are split.",
            )
    dtype = torch.float64 if options.precision == "float64" else torch.float32
    trainable = {
        name: one.dtype for name, one in network.named_parameters() if one.requires_grad
    }
    if not trainable:
        raise InputError("the network has no weight to train", where="network")
    if options.team is not None and has_batch_norm(network):
        raise CapabilityError(
            "the network has a batch norm, whose statistics are those of the whole "
            "batch: it cannot be trained by several processes",
            where="network",
            hint="Set n_devices=1 and n_nodes=1.",
        )
    wrong = [name for name, found in trainable.items() if found != dtype]
    if wrong:
        raise InputError(
            f"precision {options.precision!r} needs weights of {dtype}; "
            f"{wrong[0]!r} is {trainable[wrong[0]]} ({len(wrong)} such weights)",
            where="network",
            hint="Convert the network with .float() or .double().",
        )


def _make_optimizer(
    network: nn.Module, options: TrainingOptions
) -> torch.optim.Optimizer:
    trainable = {
        name: one for name, one in network.named_parameters() if one.requires_grad
    }
    rate, decay = options.learning_rate, options.weight_decay
    if decay == 0:
        return FusedAdam(trainable.values(), lr=rate)
    exempt = trainable.keys() & no_weight_decay_names(network)
    decayed = [one for name, one in trainable.items() if name not in exempt]
    spared = [one for name, one in trainable.items() if name in exempt]
    groups: list[dict[str, Any]] = [
        {"params": decayed, "weight_decay": decay},
        {"params": spared, "weight_decay": 0.0},
    ]
    return FusedAdam(groups, lr=rate, decoupled_weight_decay=True)


def _is_checkpoint_due(state: TrainingState, options: TrainingOptions) -> bool:
    is_last = state.reason_to_stop(options) is not None
    return is_last or state.epoch % options.checkpoint_every == 0


def _warn_of(problem: NumericalError | KeyboardInterrupt, state: TrainingState) -> None:
    kept = f"The best weights so far are kept: epoch {state.best_epoch}, "
    kept += f"loss {state.best_loss:.6g}."
    if isinstance(problem, NumericalError):
        message = f"Training stopped early: {problem} {kept}"
    else:
        message = f"Training was interrupted in epoch {state.epoch + 1}. {kept}"
    warnings.warn(SciSeqWarning(message), stacklevel=3)


def _reason(
    problem: NumericalError | KeyboardInterrupt | None,
    state: TrainingState,
    options: TrainingOptions,
) -> StopReason:
    if isinstance(problem, NumericalError):
        return "non_finite"
    reason = state.reason_to_stop(options)
    return "interrupted" if problem is not None or reason is None else reason
