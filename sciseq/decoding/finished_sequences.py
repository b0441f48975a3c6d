"""The best sequences that a search has finished so far.

Axes: ``item``, ``beam``, ``length`` (tokens so far), ``place`` (of the result: all
tokens and the stop).
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "Decoded",
    "Finished",
    "append_last",
    "decoded_from_steps",
    "gather_beams",
]


class Decoded(NamedTuple):
    """The best sequences of each item, best first.

    Parameters
    ----------
    tokens : Tensor of int64, shape (item, n_best, place)
        Tokens with their stop; the rest is filled with stops.
    log_probs : Tensor, shape (item, n_best, place)
        Log-probability of each token, its stop included; 0 behind it.
    lengths : Tensor of int64, shape (item, n_best)
        Number of tokens without the stop.
    totals : Tensor, shape (item, n_best)
        Sum of ``log_probs``; minus infinity where no such sequence was found.
    """

    tokens: Tensor
    log_probs: Tensor
    lengths: Tensor
    totals: Tensor


class Finished:
    """The best finished sequences of each item, best first.

    Those of the items in the present batch are held apart from the result, and are
    written into it when an item leaves the batch.
    """

    def __init__(
        self, n_items: int, n_best: int, n_places: int, stop: int, device: torch.device
    ) -> None:
        self.stop = stop
        self.n_places = n_places
        self.rows = torch.arange(n_items, device=device)
        shape = (n_items, n_best, n_places)
        self.parts = [
            torch.full(shape, stop, dtype=torch.int64, device=device),
            torch.zeros(shape, device=device),
            torch.zeros(shape[:2], dtype=torch.int64, device=device),
            torch.full(shape[:2], -torch.inf, device=device),
        ]
        self.all_parts = self.parts

    @property
    def totals(self) -> Tensor:
        """Totals (item, n_best)."""
        return self.parts[-1]

    def add(
        self, tokens: Tensor, log_probs: Tensor, last: Tensor, totals: Tensor
    ) -> None:
        """Offer ``tokens`` with a stop; a total of minus infinity is never taken.

        Shapes are (item, beam, length) twice, then (item, beam) twice.
        """
        length, n_best = tokens.shape[-1], self.totals.shape[1]
        lengths = torch.full_like(tokens[..., 0] if length else last.long(), length)
        new = (
            F.pad(tokens, (0, self.n_places - length), value=self.stop),
            F.pad(append_last(log_probs, last), (0, self.n_places - length - 1)),
            lengths,
            totals,
        )
        joined = [
            torch.cat([old.to(one), one], dim=1)
            for old, one in zip(self.parts, new, strict=True)
        ]
        best = joined[-1].topk(n_best).indices
        self.parts = [gather_beams(one, best) for one in joined]

    def keep(self, items: Tensor) -> None:
        """Drop all items but these from the present batch."""
        self._write()
        self.rows = self.rows[items]
        self.parts = [one[items] for one in self.parts]

    def result(self) -> Decoded:
        """Return what was found for all items."""
        self._write()
        return _only_found(Decoded(*self.all_parts), self.stop)

    def _write(self) -> None:
        self.all_parts = [
            every.to(one).index_copy(0, self.rows, one)
            for every, one in zip(self.all_parts, self.parts, strict=True)
        ]


def decoded_from_steps(
    steps: Sequence[tuple[Tensor, Tensor, Tensor]], n_places: int, stop: int
) -> Decoded:
    """Put one sequence per item together from the steps of a greedy search.

    Parameters
    ----------
    steps : sequence of tuple of Tensor, shapes (row,), (row, 1) and (row, 1)
        For each step the items, their tokens (stop from the end on) and the
        log-probabilities of these (minus infinity where nothing could be taken, 0
        behind the end). The first step has all items in order.
    n_places : int
        Places of the result.
    stop : int
        What the places behind the end hold.

    Returns
    -------
    Decoded
        With ``n_best`` 1.
    """
    _, token, log_prob = steps[0]
    shape = (len(token), 1, n_places)
    tokens = torch.full(shape, stop, dtype=torch.int64, device=token.device)
    log_probs = torch.zeros(shape, dtype=log_prob.dtype, device=token.device)
    for place, (rows, token, log_prob) in enumerate(steps):
        tokens[rows, :, place] = token
        log_probs[rows, :, place] = log_prob
    lengths = (tokens != stop).sum(dim=-1)
    return _only_found(Decoded(tokens, log_probs, lengths, log_probs.sum(-1)), stop)


def _only_found(decoded: Decoded, stop: int) -> Decoded:
    """Empty the sequences whose total is minus infinity."""
    is_found = decoded.totals > -torch.inf
    return Decoded(
        decoded.tokens.where(is_found.unsqueeze(-1), stop),
        decoded.log_probs.where(is_found.unsqueeze(-1), 0.0),
        decoded.lengths.where(is_found, 0),
        decoded.totals,
    )


def gather_beams(values: Tensor, beams: Tensor) -> Tensor:
    """Take beams (item, new beam) of values (item, beam, ...)."""
    index = beams.reshape(*beams.shape, *(1,) * (values.ndim - 2))
    return values.gather(1, index.expand(-1, -1, *values.shape[2:]))


def append_last(values: Tensor, last: Tensor) -> Tensor:
    """Append one number (item, beam) to values (item, beam, length)."""
    return torch.cat([values.to(last), last.unsqueeze(-1)], dim=-1)
