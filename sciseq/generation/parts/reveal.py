"""Which of the drawn tokens are kept in a pass: order times amount.

Axes: ``batch`` (B), ``row`` (of a block or a whole sequence), ``token`` (V).
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sciseq.generation.parts.noise import uniform
from sciseq.generation.parts.selection import (
    confidence,
    margin,
    negative_entropy,
    top_n,
)

__all__ = ["ORDERS", "Reveal", "equal_amounts"]


def _left_to_right(logs: Tensor, tokens: Tensor) -> Tensor:
    place = torch.arange(logs.shape[1], device=logs.device, dtype=logs.dtype)
    return (-place).expand(logs.shape[:2])


ORDERS: dict[str, Callable[[Tensor, Tensor], Tensor] | None] = {
    "confidence": confidence,
    "margin": lambda logs, tokens: margin(logs),
    "entropy": lambda logs, tokens: negative_entropy(logs),
    "left_to_right": _left_to_right,
    "random": None,
}
"""What comes first: the largest probability of the drawn token, the largest distance of
the two best, the lowest entropy, the first position, or any."""

Amount = Callable[[Tensor, Tensor], Tensor]
"""From the hidden tokens and the passes so far, (batch,) each, to how many to keep."""


def equal_amounts(n_steps: int | None) -> Amount:
    """Return the amounts that fill everything in so many passes, as evenly as possible.

    Parameters
    ----------
    n_steps : int or None
        Passes; None keeps one token in each.

    Examples
    --------
    >>> amount = equal_amounts(4)
    >>> hidden = torch.tensor([10])
    >>> [int(amount(hidden, torch.tensor([0]))), int(amount(hidden - 3, torch.ones(1)))]
    [3, 3]
    """

    def amount(n_hidden: Tensor, step: Tensor) -> Tensor:
        if n_steps is None:
            return torch.ones_like(n_hidden)
        left = (n_steps - step).clamp_min(1)
        return torch.ceil(n_hidden / left).to(torch.int64)

    return amount


@dataclass(frozen=True)
class Reveal:
    """A rule for what is kept of what was drawn.

    Parameters
    ----------
    order : str, default="confidence"
        One of ``ORDERS``.
    amount : callable
        How many at least, see ``Amount``; at least one is kept always.
    threshold : float, optional
        Tokens of a higher probability are kept as well.
    """

    order: str = "confidence"
    amount: Amount = field(default_factory=lambda: equal_amounts(None))
    threshold: float | None = None

    def __call__(
        self, logs: Tensor, tokens: Tensor, is_hidden: Tensor, step: Tensor,
        seeds: Tensor, position: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Tell which tokens are kept, bool of shape (batch, row).

        Parameters
        ----------
        logs : Tensor, shape (batch, row, token)
            Log-probabilities of the model, whatever the temperature of the drawing: at
            temperature 0 all would be certain.
        tokens : Tensor of int64, shape (batch, row)
            What was drawn.
        is_hidden : Tensor of bool, shape (batch, row)
            Rows that may be kept.
        step : Tensor of int64, shape (batch,)
            Passes so far.
        seeds : Tensor of int64, shape (batch,)
            Seeds of the requests.
        position : Tensor of int64, shape (batch, row), optional
            Where the rows stand, for the random order; by default they are numbered.
        """
        score = ORDERS[self.order]
        if score is None:
            if position is None:
                position = torch.arange(tokens.shape[1], device=tokens.device)
                position = position.unsqueeze(0)
            value = uniform(seeds, -1, step.unsqueeze(1), position)
        else:
            value = score(logs, tokens)
        n = self.amount(is_hidden.sum(dim=1), step).clamp_min(1)
        kept = top_n(value, is_hidden, n)
        if self.threshold is not None:
            kept = kept | (is_hidden & (confidence(logs, tokens) > self.threshold))
        return kept
