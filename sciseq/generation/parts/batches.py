"""Training sequences on the device, and losses whose noise never depends on the batch.

Axes: ``batch`` (B), ``position`` (L).
"""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sciseq.generation.parts.network import Condition
from sciseq.generation.parts.noise import uniform

__all__ = ["NoisyLoss", "SequenceBatch", "SequenceBatches"]


class SequenceBatch(NamedTuple):
    """Some sequences.

    Parameters
    ----------
    tokens : Tensor of int64, shape (batch, position)
        Tokens, ends behind the sequence.
    number : Tensor of int64, shape (batch,)
        Which sequences they are.
    condition : Condition or None
        What they belong to.
    """

    tokens: Tensor
    number: Tensor
    condition: Condition | None


class SequenceBatches:
    """All sequences of a set, on a device.

    Parameters
    ----------
    tokens : Tensor of int64, shape (n, position)
        Tokens.
    condition : Condition or None
        Of the sequences.
    device : torch.device
        Where to keep them.
    """

    def __init__(
        self, tokens: Tensor, condition: Condition | None, device: torch.device
    ) -> None:
        self._tokens = tokens.to(device)
        self._condition = None
        if condition is not None:
            self._condition = Condition(*(one.to(device) for one in condition))

    @property
    def n_items(self) -> int:
        """Number of sequences."""
        return len(self._tokens)

    def gather(self, indices: Tensor) -> SequenceBatch:
        """Return some sequences."""
        condition = self._condition and self._condition.take(indices)
        return SequenceBatch(self._tokens[indices], indices, condition)


class NoisyLoss(ABC):
    """A loss that breaks sequences, in another way at every step.

    Parameters
    ----------
    seed : int
        Seed of all noise.

    Notes
    -----
    The noise of a sequence depends on its number and the step alone. Validation breaks
    a sequence the same way every time.
    """

    def __init__(self, seed: int) -> None:
        self.seed, self._step, self.progress = seed, 0, 0.0

    def on_step(self, step: int, n_steps: int) -> None:
        """Take note of the step that begins."""
        self._step, self.progress = step, step / n_steps

    @abstractmethod
    def __call__(
        self, network: nn.Module, batch: SequenceBatch
    ) -> tuple[Tensor, Tensor]:
        """Return the sum of losses, and the number of what was scored."""

    def noise(
        self, network: nn.Module, batch: SequenceBatch, purpose: int, n: int
    ) -> Tensor:
        """Return uniform numbers (batch, n) in (0, 1).

        Parameters
        ----------
        network : nn.Module
            Whether it trains or validates.
        batch : SequenceBatch
            Whose numbers they are.
        purpose : int
            Tells apart different draws of a step.
        n : int
            How many.
        """
        step = self._step + 1 if network.training else 0
        seeds = torch.full_like(batch.number, self.seed)
        place = torch.arange(n, device=seeds.device).unsqueeze(0)
        return uniform(seeds, batch.number.unsqueeze(1), step, purpose, place)
