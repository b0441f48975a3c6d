"""First-order meta-learning (Reptile) over several domains, and plain domain mixing.

Symbols: φ parameters, d domain, D number of domains, k inner steps, η and ε learning
rates of inner and outer steps.
"""

import functools
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from sciseq.errors import InputError, NumericalError
from sciseq.nn.dropout import set_dropout_generator
from sciseq.training import (
    Batches,
    LossFunction,
    TrainingOptions,
    TrainingResult,
    generator_for,
)
from sciseq.training.progress import make_reporter
from sciseq.training.state import TrainingState

__all__ = ["reptile_step", "sgd_steps", "train_reptile"]


def sgd_steps(
    parameters: Mapping[str, Tensor],
    losses: Iterable[Callable[[], Tensor]],
    learning_rate: float,
) -> list[float]:
    r"""Take one step of plain gradient descent per loss.

    .. math:: \phi \leftarrow \phi - \eta \nabla L(\phi)

    Parameters
    ----------
    parameters : mapping of str to Tensor
        Leaf tensors that require a gradient; changed in place.
    losses : iterable of callables
        Each computes a scalar loss from the parameters as they are then.
    learning_rate : float
        Step size η.

    Returns
    -------
    list of float
        The losses, each before its step.

    Examples
    --------
    >>> w = torch.tensor([1.0], requires_grad=True)
    >>> sgd_steps({"w": w}, [lambda: w.square().sum()] * 2, learning_rate=0.25)
    [1.0, 0.25]
    """
    values = []
    for loss in losses:
        value = loss()
        # Parameters that a loss does not depend on stay where they are.
        gradients = torch.autograd.grad(
            value, list(parameters.values()), allow_unused=True
        )
        with torch.no_grad():
            for one, gradient in zip(parameters.values(), gradients, strict=True):
                if gradient is not None:
                    one.sub_(learning_rate * gradient)
        values.append(float(value.detach()))
    return values


def reptile_step(
    parameters: Mapping[str, Tensor],
    inner: Sequence[Callable[[], object]],
    step_size: float = 1.0,
) -> None:
    r"""Move parameters towards where each domain would take them.

    .. math:: \phi \leftarrow \phi + \varepsilon \frac{1}{D} \sum_d (\phi_d - \phi)

    where :math:`\phi_d` is reached by training on domain d from :math:`\phi`. With one
    domain and :math:`\varepsilon = 1` this is that training itself.

    Parameters
    ----------
    parameters : mapping of str to Tensor
        Tensors, changed in place.
    inner : sequence of callables
        For each domain one that trains the parameters in place.
    step_size : float, default=1.0
        Outer learning rate ε.

    Raises
    ------
    InputError
        When there is no domain.

    References
    ----------
    Nichol et al., On first-order meta-learning algorithms, arXiv:1803.02999.

    Examples
    --------
    >>> w = torch.zeros(1)
    >>> reptile_step({"w": w}, [lambda: w.add_(1), lambda: w.add_(3)], step_size=0.5)
    >>> w.item()
    1.0
    """
    if not inner:
        raise InputError("there is no domain, at least 1 is needed", where="inner")
    start = {name: one.detach().clone() for name, one in parameters.items()}
    moves = {name: torch.zeros_like(one) for name, one in start.items()}
    for train_domain in inner:
        train_domain()
        with torch.no_grad():
            for name, one in parameters.items():
                moves[name] += one - start[name]
                one.copy_(start[name])
    with torch.no_grad():
        for name, one in parameters.items():
            one.add_(moves[name], alpha=step_size / len(inner))


def train_reptile(
    network: nn.Module,
    loss: LossFunction,
    domains: Sequence[Batches],
    validation: Batches | None,
    options: TrainingOptions,
    *,
    inner_steps: int = 5,
    step_size: float = 1.0,
) -> TrainingResult:
    """Train a network by Reptile; the counterpart of :func:`sciseq.training.train`.

    Plain domain mixing is that function on the items of all domains together.

    Parameters
    ----------
    network : nn.Module
        Trained in place, and left with its best weights in evaluation mode.
    loss : callable
        As in :func:`sciseq.training.train`.
    domains : sequence of Batches
        Items of each domain. Every domain has the same weight, however few items it
        has: small ones are gone through more often.
    validation : Batches or None
        Items of all domains that the best epoch is chosen by.
    options : TrainingOptions
        ``learning_rate`` times the schedule is that of the inner steps. Nothing is
        resumed, and the settings of memory, precision and compilation have no effect.
    inner_steps : int, default=5
        Inner steps k per domain.
    step_size : float, default=1.0
        Outer learning rate ε.

    Returns
    -------
    TrainingResult
        An epoch has as many outer steps as take the number of all items, at least one.

    Raises
    ------
    InputError
        When a domain has no item, or ``inner_steps`` is below 1.
    NumericalError
        When a loss is not finite. The network then has its best weights so far.
    """
    if inner_steps < 1 or any(one.n_items < 1 for one in domains):
        raise InputError(
            f"inner_steps is {inner_steps}, and the domains have "
            f"{[one.n_items for one in domains]} items; all must be at least 1",
            where="train_reptile",
        )
    network.to(options.device)
    state = TrainingState.initial(network)
    n_items = sum(one.n_items for one in domains)
    per_step = len(domains) * inner_steps * options.batch_size
    n_steps = max(1, round(n_items / per_step))
    reporter = make_reporter(
        options.verbose, max_epochs=options.max_epochs, n_steps=n_steps, n_done=0
    )
    try:
        with reporter, torch.enable_grad():
            while (reason := state.reason_to_stop(options)) is None:
                run = _Epoch(network, loss, domains, options, state.epoch + 1)
                record = run.train(n_steps, inner_steps, step_size, reporter.step_done)
                if validation is not None:
                    record["validation_loss"] = run.validate(validation)
                state = state.after(run.finished(record), network)
                reporter.epoch_done(record)
    finally:
        set_dropout_generator(network, None)
        network.eval()
        network.load_state_dict(state.best_weights)
    return TrainingResult(
        [dict(one) for one in state.history],
        state.best_epoch,
        state.best_loss,
        reason,
        options.batch_size,
    )


class _Epoch:
    """One epoch of :func:`train_reptile`."""

    def __init__(
        self,
        network: nn.Module,
        loss: LossFunction,
        domains: Sequence[Batches],
        options: TrainingOptions,
        epoch: int,
    ) -> None:
        self.started = time.perf_counter()
        self.network, self.loss = network, loss
        self.domains, self.options, self.epoch = domains, options, epoch
        self.rate = options.learning_rate * options.schedule(epoch)

    def train(
        self,
        n_steps: int,
        inner_steps: int,
        step_size: float,
        step_done: Callable[[], None],
    ) -> dict[str, float]:
        options = self.options
        dropout = generator_for(
            options.seed, "dropout", self.epoch, device=options.device
        )
        set_dropout_generator(self.network, dropout)
        self.network.train()
        parameters = {
            name: one
            for name, one in self.network.named_parameters()
            if one.requires_grad
        }
        values: list[float] = []

        def train_domain(losses: Iterator[Callable[[], Tensor]]) -> None:
            next_losses = itertools.islice(losses, inner_steps)
            values.extend(sgd_steps(parameters, next_losses, self.rate))

        streams = [self._losses(number) for number in range(len(self.domains))]
        inner = [functools.partial(train_domain, losses) for losses in streams]
        for _ in range(n_steps):
            reptile_step(parameters, inner, step_size)
            step_done()
        return {"epoch": self.epoch, "train_loss": self._finite(values, "training")}

    def validate(self, validation: Batches) -> float:
        self.network.eval()
        order = torch.arange(validation.n_items, device=self.options.device)
        with torch.no_grad():
            pairs = [
                self.loss(self.network, validation.gather(indices))
                for indices in torch.split(order, self.options.batch_size)
            ]
        total = sum(float(one) for one, _ in pairs)
        return self._finite([total / sum(float(one) for _, one in pairs)], "validation")

    def finished(self, record: dict[str, float]) -> dict[str, float]:
        record["learning_rate"] = self.rate
        record["seconds"] = time.perf_counter() - self.started
        return record

    def _losses(self, number: int) -> Iterator[Callable[[], Tensor]]:
        """Yield the losses of one domain without end, shuffled anew in every round."""
        n_items, options = self.domains[number].n_items, self.options
        generator = generator_for(options.seed, "shuffle", self.epoch, number)
        while True:
            order = torch.randperm(n_items, generator=generator).to(options.device)
            for indices in torch.split(order, options.batch_size):
                yield functools.partial(self._mean, self.domains[number], indices)

    def _mean(self, domain: Batches, indices: Tensor) -> Tensor:
        total, count = self.loss(self.network, domain.gather(indices))
        return total / count.where(count > 0, 1)

    def _finite(self, values: list[float], what: str) -> float:
        mean = sum(values) / len(values)
        if mean - mean != 0:
            raise NumericalError(
                f"the {what} loss became {mean}",
                where=f"epoch {self.epoch}, learning rate {self.rate:.6g}",
                hint="Lower the learning rate of the inner steps.",
            )
        return mean
