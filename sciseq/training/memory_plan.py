"""How a training step is computed so that it stays within a limit of memory.

What one step needs is measured, not guessed: the real network runs forward and backward
on a few real items while every allocation is counted. When a whole batch needs too
much it is computed in parts whose gradients add up to those of the batch; when one item
still needs too much, the layers are computed twice instead of being kept.
"""

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sciseq.errors import InputError
from sciseq.training.allocations import AllocationMeter, LimitReached, bytes_of
from sciseq.training.memory_size import format_bytes
from sciseq.training.options import Batches
from sciseq.training.recomputation import (
    has_batch_norm,
    layers_of,
    recomputed_layers,
)

__all__ = ["MemoryPlan", "StepMemory", "plan_memory", "resident_bytes"]

# Gradients, and the two moments of Adam.
_COPIES_OF_TRAINED_WEIGHTS = 3


@dataclass(frozen=True)
class MemoryPlan:
    """How a training step is computed.

    Parameters
    ----------
    part_size : int
        Items computed at once.
    recomputes_layers : bool, default=False
        Whether the backward pass computes the layers again instead of keeping them.
    n_bytes : int, optional
        Estimated memory of training in this way: data, weights, their gradients,
        optimizer, best weights and one step; None when it was not measured.
    """

    part_size: int
    recomputes_layers: bool = False
    n_bytes: int | None = None

    def describe(self, batch_size: int, limit: int) -> str:
        """Say what is done, in one line.

        Examples
        --------
        >>> MemoryPlan(8, True, 3_200_000).describe(32, 4_000_000)
        'memory: 3.2 MB of 4 MB; steps of 32 items in parts of 8, layers computed twice'
        """
        needed = "not measured" if self.n_bytes is None else format_bytes(self.n_bytes)
        text = f"memory: {needed} of {format_bytes(limit)}; "
        text += f"steps of {batch_size} items "
        text += f"in parts of {self.part_size}" if self.part_size < batch_size else ""
        text += "at once" if self.part_size >= batch_size else ""
        return text + (", layers computed twice" if self.recomputes_layers else "")


class StepMemory:
    """Memory of a training step by its number of items, measured where asked.

    Parameters
    ----------
    network : nn.Module
        The network; left as it was.
    add_gradients : callable
        Adds the gradients of some items, by their indices, to those that are there.
    resident : int
        Bytes that are there during every step.
    device : torch.device
        Where all of it lives.
    limit : int
        Bytes that training may take.

    Attributes
    ----------
    measured : dict of int to int
        Bytes of the steps that stayed within the limit, by their number of items.
    """

    def __init__(
        self,
        network: nn.Module,
        add_gradients: Callable[[Tensor], object],
        resident: int,
        device: torch.device,
        limit: int,
    ) -> None:
        self.network = network
        self.resident = resident
        self.limit = limit
        self.measured: dict[int, int] = {}
        self._add_gradients = add_gradients
        self._device = device
        self._too_many = math.inf

    def recomputing(self) -> "StepMemory":
        """Return the memory of a step that computes its layers twice."""

        def add_gradients(indices: Tensor) -> None:
            with recomputed_layers(self.network):
                self._add_gradients(indices)

        return StepMemory(
            self.network, add_gradients, self.resident, self._device, self.limit
        )

    def fits(self, n_items: int) -> bool:
        """Tell whether a step on ``n_items`` items stays within the limit.

        The step is done, and broken off where it goes beyond, unless other steps show
        that it must. Weights, buffers and gradients stay as they were.
        """
        if n_items in self.measured:
            return True
        if n_items >= self._too_many or self.expect(n_items) > self.limit:
            return False
        try:
            self.measured[n_items] = self.resident + self._measure(n_items)
        except LimitReached:
            self._too_many = n_items
            return False
        return True

    def _measure(self, n_items: int) -> int:
        """Do a step and return its bytes."""
        room = self.limit - self.resident
        # At the end of an epoch there is a second copy of the best weights.
        copy = bytes_of(self.network.state_dict())
        if copy > room:
            raise LimitReached
        indices = torch.arange(n_items, device=self._device)
        meter = AllocationMeter(self._device, room)
        with _left_as_it_was(self.network), meter:
            self._add_gradients(indices)
        return max(meter.peak, copy)

    def expect(self, n_items: int) -> int:
        """Return the bytes of a step on ``n_items`` items from steps on fewer.

        The peak of a step is the largest of several sums that grow evenly with the
        items, so a straight line through two measured points is not too high beyond
        them.
        """
        smaller = sorted(one for one in self.measured if one <= n_items)
        if not smaller or smaller[-1] == n_items or len(smaller) == 1:
            return self.measured[smaller[-1]] if smaller else self.resident
        a, b = smaller[-2:]
        slope = (self.measured[b] - self.measured[a]) / (b - a)
        return int(self.measured[b] + slope * (n_items - b))


def plan_memory(step: StepMemory, batch_size: int) -> MemoryPlan:
    """Return the fastest way of a step that stays within the limit.

    Parameters
    ----------
    step : StepMemory
        Memory of steps that keep their layers.
    batch_size : int
        Items of a step.

    Returns
    -------
    MemoryPlan
        The whole batch where that fits, else the fewest parts that fit, else parts
        whose layers are computed twice. With a batch norm there are no parts: its
        statistics are those of the whole batch.

    Raises
    ------
    InputError
        When even that does not fit.
    """
    ways = [(step, False)]
    if layers_of(step.network):
        ways.append((step.recomputing(), True))
    for way, recomputes in ways:
        size = _largest_size(way, batch_size)
        if size:
            return MemoryPlan(size, recomputes, way.measured[size])
    raise _too_much(step)


def resident_bytes(
    network: nn.Module, training: Batches, validation: Batches | None
) -> int:
    """Return the memory that training takes between its steps.

    Parameters
    ----------
    network : nn.Module
        Network to train.
    training, validation : Batches
        The data, as far as they are tensors in attributes.

    Returns
    -------
    int
        Bytes of data, weights, gradients, optimizer and best weights.
    """
    weights = bytes_of(network.state_dict())
    trained = bytes_of([one for one in network.parameters() if one.requires_grad])
    data = [vars(one) for one in (training, validation) if one is not None]
    return bytes_of(data) + 2 * weights + _COPIES_OF_TRAINED_WEIGHTS * trained


def _largest_size(step: StepMemory, batch_size: int) -> int:
    """Items that fit at once; 0 when not one does."""
    if step.resident > step.limit:
        return 0
    # Small steps show first what must be too large. A batch norm needs more than one
    # value per channel.
    is_whole = has_batch_norm(step.network)
    small = (size for size in ((2, 3) if is_whole else (1, 2)) if size < batch_size)
    if all(step.fits(size) for size in small) and step.fits(batch_size):
        return batch_size
    # A batch in k parts of about one size, for every k.
    sizes = sorted({-(-batch_size // k) for k in range(1, batch_size + 1)})
    if is_whole or not step.fits(sizes[0]):
        return 0
    fitting, too_large = 0, len(sizes) - 1
    while too_large - fitting > 1:
        middle = (fitting + too_large) // 2
        if step.fits(sizes[middle]):
            fitting = middle
        else:
            too_large = middle
    return sizes[fitting]


def _too_much(step: StepMemory) -> InputError:
    is_whole = has_batch_norm(step.network)
    resident = f"data, weights and optimizer take {format_bytes(step.resident)}"
    if step.resident > step.limit:
        needed = f"{resident} before the first step"
    elif is_whole:
        needed = f"{resident}, and a step on a whole batch, which the batch norm of "
        needed += "the network needs, takes more than the rest"
    else:
        needed = f"{resident}, and a step on a single item takes more than the rest"
    knobs = "batch_size or d_model" if is_whole else "d_model, n_layers or lookback"
    return InputError(
        f"memory_limit is {format_bytes(step.limit)}; {needed}",
        where="memory_limit",
        hint=f"Raise memory_limit, or lower {knobs}.",
    )


@contextlib.contextmanager
def _left_as_it_was(network: nn.Module) -> Iterator[None]:
    buffers = [(one, one.clone()) for one in network.buffers()]
    trained = [one for one in network.parameters() if one.requires_grad]
    for one in trained:
        # From its second part on, a step adds to gradients that are there.
        one.grad = torch.zeros_like(one)
    try:
        yield
    finally:
        for one in trained:
            one.grad = None
        for buffer, before in buffers:
            buffer.copy_(before)
