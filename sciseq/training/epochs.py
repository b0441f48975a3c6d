"""One epoch: a pass over the training items, then one over the validation items.

An epoch costs few waits for the device: losses stay there as scalars until all steps
are queued, batches are gathered by index from data that live there, and nothing is
copied per item.
"""

import contextlib
import functools
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from sciseq.errors import DataQualityError, NumericalError
from sciseq.nn.dropout import set_dropout_generator
from sciseq.training.allocations import bytes_of
from sciseq.training.compilation import is_compiled, run_compiled
from sciseq.training.dropout_rows import DropoutRows
from sciseq.training.memory_plan import StepMemory, resident_bytes
from sciseq.training.options import Batches, LossFunction, TrainingOptions
from sciseq.training.progress import Reporter
from sciseq.training.seeds import generator_for

__all__ = ["Epochs"]

_N_NAMED_ITEMS = 8


class Epochs:
    """Runs epochs of one network on its data.

    Parameters
    ----------
    network, loss, training, validation, options
        As in :func:`sciseq.training.train`.
    optimizer : torch.optim.Optimizer
        Optimizer of the trainable parameters; its learning rate is set here.

    Attributes
    ----------
    part_size : int
        Items computed at once; a larger batch is computed in parts whose gradients are
        added up. By default the size of a batch.

    Notes
    -----
    With ``options.team`` a step is computed in the same way in parts, which are spread
    over its processes: their gradients are added up, then divided by what the whole
    batch scored.
    """

    def __init__(
        self,
        network: nn.Module,
        loss: LossFunction,
        training: Batches,
        validation: Batches | None,
        options: TrainingOptions,
        optimizer: torch.optim.Optimizer,
    ) -> None:
        self.network = network
        self.loss = loss
        self.training = training
        self.validation = validation
        self.options = options
        self.optimizer = optimizer
        self.team = options.team
        self.part_size = options.batch_size
        self.parameters = [one for one in network.parameters() if one.requires_grad]
        # Torch empties the cache of cast weights only on leaving the outermost
        # autocast: here a cached weight would outlive the step that moves it.
        self.autocast = torch.autocast(
            options.device.type,
            dtype=torch.bfloat16,
            enabled=options.precision == "bfloat16",
            cache_enabled=False,
        )

    def run(self, epoch: int, reporter: Reporter) -> dict[str, float]:
        """Train for one epoch, validate, and return the record of both.

        Raises
        ------
        NumericalError
            When a loss, a gradient or a weight is not finite.
        DataQualityError
            When no value is scored.
        """
        started = time.perf_counter()
        rate = self.options.learning_rate * self.options.schedule(epoch)
        self._set_rate(rate)
        place = f"epoch {epoch}, learning rate {rate:.6g}"
        record: dict[str, float] = {"epoch": epoch}
        # An autocast around the caller would reach the backward pass.
        with torch.autocast(self.options.device.type, enabled=False):
            record["train_loss"] = self._train(epoch, place, reporter)
            if self.validation is not None:
                record["validation_loss"] = self._validate(self.validation, place)
        record["learning_rate"] = rate
        record["seconds"] = time.perf_counter() - started
        reporter.epoch_done(record)
        return record

    def step_memory(self, limit: int) -> StepMemory:
        """Return what measures the memory of training steps, up to a limit."""
        resident = resident_bytes(self.network, self.training, self.validation)
        device = self.options.device
        if self.team is not None:
            resident += bytes_of(self.parameters)  # gradients on their way
        return StepMemory(self.network, self._try_items, resident, device, limit)

    def _try_items(self, indices: Tensor) -> None:
        generator = generator_for(0, "memory", device=self.options.device)
        with (
            torch.autocast(self.options.device.type, enabled=False),
            self._in_training(generator),
        ):
            total, _ = self._loss(self.training, indices)
            torch.autograd.backward(total)

    def _train(self, epoch: int, place: str, reporter: Reporter) -> float:
        seed, device = self.options.seed, self.options.device
        shuffle = generator_for(seed, "shuffle", epoch)
        order = torch.randperm(self.training.n_items, generator=shuffle).to(device)
        dropout = generator_for(seed, *self._dropout_stream(epoch), device=device)
        steps = []
        batches = torch.split(order, self.options.batch_size)
        with self._in_training(dropout), self._row_wise() as rows:
            for number, indices in enumerate(batches, (epoch - 1) * len(batches)):
                self._begin_step(epoch, number, self.options.max_epochs * len(batches))
                steps.append(self._step(indices, dropout, rows))
                reporter.step_done()
        sums, counts, norms = map(_on_host, zip(*steps, strict=True))
        quantities = {"training loss": sums, "norm of the gradient": norms}
        self._check_finite(quantities, order, self.options.batch_size, place)
        self._check_weights(place)
        return _mean(sums, counts, "training")

    def _dropout_stream(self, epoch: int) -> tuple[int | str, ...]:
        # A CPU draws the masks of its rows of the batch, see ``DropoutRows``. Elsewhere
        # processes must not draw the same ones for their different rows.
        if (
            self.team is None
            or self.team.rank == 0
            or self.options.device.type == "cpu"
        ):
            return "dropout", epoch
        return "dropout", epoch, self.team.rank

    def _set_rate(self, rate: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def _begin_step(self, epoch: int, number: int, n_steps: int) -> None:
        options = self.options
        if options.step_schedule is not None:
            rate = options.learning_rate * options.schedule(epoch)
            self._set_rate(rate * options.step_schedule(number / n_steps))
        if options.on_step is not None:
            options.on_step(number, n_steps)

    @contextlib.contextmanager
    def _in_training(self, dropout: torch.Generator) -> Iterator[None]:
        self.network.train()
        with _dropout_from(dropout, self.network), torch.enable_grad():
            yield

    @contextlib.contextmanager
    def _row_wise(self) -> Iterator[DropoutRows | None]:
        """Prepare the dropouts for batches in parts, where that is needed."""
        size = min(self.options.batch_size, self.training.n_items)
        has_parts = self.part_size < size or self.team is not None
        # Other devices draw in an order of their own: there each part draws anew.
        if not has_parts or self.options.device.type != "cpu":
            yield None
            return
        rows = DropoutRows(self.network)
        with rows.known():
            yield rows

    def _step(
        self, indices: Tensor, dropout: torch.Generator, rows: DropoutRows | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        rewind: Callable[[], object] = _do_nothing
        if rows is not None or is_compiled(self.network):
            rewind = functools.partial(dropout.set_state, dropout.get_state())
        total, count = run_compiled(
            self.network, lambda: self._set_gradients(indices, rows, rewind), rewind
        )
        if self.team is not None:
            total, count = self.team.add_up(self.parameters, total, count)
            self._divide_gradients(count)
        gradients = [one.grad for one in self.parameters if one.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        if self.options.gradient_clip is not None:
            nn.utils.clip_grads_with_norm_(
                self.parameters, self.options.gradient_clip, norm
            )
        self.optimizer.step()
        return total, count, norm

    def _set_gradients(
        self, indices: Tensor, rows: DropoutRows | None, rewind: Callable[[], object]
    ) -> tuple[Tensor, Tensor]:
        """Set the gradients of the mean loss of some items; return sum and count.

        In a team they are those of the sum over the own share.
        """
        self.optimizer.zero_grad()
        if self.team is None and len(indices) <= self.part_size:
            total, count = self._loss(self.training, indices)
            # A batch without any scored value has the gradient zero, not 0 / 0.
            torch.autograd.backward(total / count.where(count > 0, 1))
            return total.detach(), count
        share = self._share(len(indices))
        if share.start == share.stop:  # fewer items than processes
            return self._nothing()
        parts, first = [], share.start
        for part in torch.split(indices[share], self.part_size):
            with contextlib.ExitStack() as stack:
                if rows is not None:
                    rewind()
                    place = rows.part(first, len(part), n_rows=len(indices))
                    stack.enter_context(place)
                total, count = self._loss(self.training, part)
                torch.autograd.backward(total)
            parts.append((total.detach(), count))
            first += len(part)
        total, count = (torch.stack(one).sum() for one in zip(*parts, strict=True))
        if self.team is None:
            self._divide_gradients(count)
        return total, count

    def _divide_gradients(self, count: Tensor) -> None:
        # What the mean is taken over is known only after the last part.
        for one in self.parameters:
            if one.grad is not None:
                one.grad.div_(count.where(count > 0, 1))

    def _nothing(self) -> tuple[Tensor, Tensor]:
        zero = torch.zeros((), dtype=torch.float64, device=self.parameters[0].device)
        return zero, zero

    def _share(self, n_items: int) -> slice:
        return slice(0, n_items) if self.team is None else self.team.share(n_items)

    def _loss(self, batches: Batches, indices: Tensor) -> tuple[Tensor, Tensor]:
        with self.autocast:
            return self.loss(self.network, batches.gather(indices))

    def _validate(self, validation: Batches, place: str) -> float:
        order = torch.arange(validation.n_items, device=self.options.device)
        self.network.eval()
        # Not inference_mode: what a module caches there could never train again.
        size = self.part_size * (1 if self.team is None else self.team.size)
        with torch.no_grad():
            batches = [
                self._validation_loss(validation, indices[self._share(len(indices))])
                for indices in torch.split(order, size)
            ]
        sums, counts = map(_on_host, zip(*batches, strict=True))
        if self.team is not None:
            whole = self.team.sum_or_stop(torch.cat((sums, counts)))
            sums, counts = whole.chunk(2)
        quantities = {"validation loss": sums}
        self._check_finite(quantities, order, size, place)
        return _mean(sums, counts, "validation")

    def _validation_loss(
        self, validation: Batches, indices: Tensor
    ) -> tuple[Tensor, Tensor]:
        if not len(indices):
            return self._nothing()
        return run_compiled(self.network, lambda: self._loss(validation, indices))

    def _check_finite(
        self, quantities: dict[str, Tensor], order: Tensor, size: int, place: str
    ) -> None:
        is_finite = torch.stack(list(quantities.values())).isfinite().all(dim=0)
        if is_finite.all():
            return
        # The first step of all is the cause: a bad gradient spoils the losses after it.
        step = int(is_finite.int().argmin())
        name, value = next(
            (name, values[step].item())
            for name, values in quantities.items()
            if not values[step].isfinite()
        )
        items = torch.split(order, size)[step]
        named = ", ".join(str(one) for one in items[:_N_NAMED_ITEMS].tolist())
        more = f" and {len(items) - _N_NAMED_ITEMS} more"
        raise NumericalError(
            f"the {name} became {value} in step {step + 1} of {len(is_finite)}, on "
            f"items {named}{more if len(items) > _N_NAMED_ITEMS else ''}",
            where=place,
            hint="Look for extreme values in these items, or lower learning_rate.",
        )

    def _check_weights(self, place: str) -> None:
        is_finite = torch.stack([one.isfinite().all() for one in self.parameters])
        if not is_finite.all():
            raise NumericalError(
                "the weights are no longer finite after the last step",
                where=place,
                hint="Lower learning_rate.",
            )


@contextlib.contextmanager
def _dropout_from(generator: torch.Generator, network: nn.Module) -> Iterator[None]:
    set_dropout_generator(network, generator)
    try:
        yield
    finally:
        set_dropout_generator(network, None)


def _do_nothing() -> None:
    pass


def _on_host(values: tuple[Tensor, ...]) -> Tensor:
    return torch.stack(values).cpu().double()


def _mean(sums: Tensor, counts: Tensor, name: str) -> float:
    count = counts.sum()
    if count == 0:
        raise DataQualityError(
            f"not a single value of the {name} items is scored",
            where=f"{name} data",
            hint="Check for missing values in all of them, or give more data.",
        )
    return (sums.sum() / count).item()
