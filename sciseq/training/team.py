r"""Several processes that train one network together, each on its share of every batch.

.. math::

    g = \frac{\sum_r \nabla \sum_{i \in B_r} l_i}{\sum_r \sum_{i \in B_r} n_i},
    \qquad B = B_0 \cup \dots \cup B_{R-1}

Sums and counts are added up, and divided once: shares of different sizes, missing
values and weights count what they would in one process. A mean of the means of the
shares would not be that.
"""

import contextlib
import signal
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["Team"]


class Team(ABC):
    """The processes that train together, as one of them sees them.

    Parameters
    ----------
    rank : int
        Number of this process, from 0.
    size : int
        Number of processes.

    Attributes
    ----------
    wants_to_stop : bool
        Whether this process was asked to stop; the next step tells all.
    """

    def __init__(self, rank: int, size: int) -> None:
        self.rank = rank
        self.size = size
        self.wants_to_stop = False

    @abstractmethod
    def sum(self, tensor: Tensor) -> Tensor:
        """Return the sum of the tensors that all processes give, the same for all."""

    @abstractmethod
    def gather(self, value: Any) -> list[Any]:
        """Return what the processes give, in their order, to all of them."""

    def share(self, n_items: int) -> slice:
        """Return which of some items are those of this process.

        Shares follow each other, and their sizes differ by one item at most.
        """
        first, last = (
            place * n_items // self.size for place in (self.rank, self.rank + 1)
        )
        return slice(first, last)

    def largest_share(self, n_items: int) -> int:
        """Return the items of the largest share."""
        return -(-n_items // self.size)

    def sum_or_stop(self, numbers: Tensor) -> Tensor:
        """Return the sum of vectors, unless a process wants to stop.

        Parameters
        ----------
        numbers : Tensor, shape (n,)
            Those of this process, in float64 on the CPU.

        Returns
        -------
        Tensor, shape (n,)
            The sum.

        Raises
        ------
        KeyboardInterrupt
            In every process, when one of them wants to stop.
        """
        wish = numbers.new_full((1,), float(self.wants_to_stop))
        whole = self.sum(torch.cat((numbers, wish)))
        if whole[-1] > 0:
            raise KeyboardInterrupt
        return whole[:-1]

    def add_up(
        self, parameters: Sequence[Tensor], total: Tensor, count: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Replace gradients by their sums over all processes.

        Parameters
        ----------
        parameters : sequence of Tensor
            What learns. A gradient that no process has stays None.
        total, count : Tensor
            Sum of the losses of this share, and number of scored values.

        Returns
        -------
        total, count : Tensor
            Those of the whole batch, in float64 on the CPU.

        Raises
        ------
        KeyboardInterrupt
            As :meth:`sum_or_stop`.
        """
        own = [one.grad is not None for one in parameters]
        numbers = [total.item(), count.item(), *own]
        whole = self.sum_or_stop(torch.tensor(numbers, dtype=torch.float64))
        learning = [
            one for one, n in zip(parameters, whole[2:].tolist(), strict=True) if n
        ]
        gradients = [
            torch.zeros_like(one) if one.grad is None else one.grad for one in learning
        ]
        # One message instead of one for each tensor.
        joined = self.sum(torch.cat([one.reshape(-1) for one in gradients]))
        parts = torch.split(joined, [one.numel() for one in learning])
        for one, part in zip(learning, parts, strict=True):
            one.grad = part.view_as(one)
        return whole[0], whole[1]

    @contextlib.contextmanager
    def stopping(self) -> Iterator[None]:
        """Let Ctrl-C end all processes in the same step, inside.

        Left alone it would end this process between two messages, and the others would
        wait for it. A second Ctrl-C does.
        """
        if threading.current_thread() is not threading.main_thread():
            yield  # Python tells the main thread alone
            return

        def note(number: int, frame: Any) -> None:
            if self.wants_to_stop:
                raise KeyboardInterrupt
            self.wants_to_stop = True

        before = signal.signal(signal.SIGINT, note)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, signal.SIG_DFL if before is None else before)
        if self.wants_to_stop:  # asked for after the last message
            raise KeyboardInterrupt
