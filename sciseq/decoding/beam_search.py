"""Beam search over any autoregressive decoder, for a batch of items at once.

Axes: ``item``, ``beam`` (candidates of one item, best first), ``token`` (V of the
vocabulary), ``length`` (tokens so far), ``place`` (of the result: ``max_length`` tokens
and the stop).
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from sciseq.decoding.finished_sequences import (
    Decoded,
    Finished,
    append_last,
    decoded_from_steps,
    gather_beams,
)
from sciseq.errors import InputError, NumericalError

__all__ = ["Constraint", "Decoded", "Decoder", "State", "beam_search"]

State = tuple[Tensor, ...]
"""What a constraint knows, each tensor with the leading axes (item, beam)."""


class Decoder(Protocol):
    """What :func:`beam_search` asks of a network.

    A decoder without a cache computes everything from the tokens that ``step`` is given
    and does nothing in the other methods. One with a cache reads the newest token only
    and lets its cache follow ``reorder`` and ``keep``.
    """

    def start(self, n_items: int, n_beams: int, max_length: int) -> None:
        """Get ready for a search of at most ``max_length + 1`` steps."""

    def step(self, tokens: Tensor) -> Tensor:
        """Return the log-probabilities of the next token.

        Parameters
        ----------
        tokens : Tensor of int64, shape (item, beam, length)
            Tokens so far, never a stop; length 0 at the first step, then one more at
            every step.

        Returns
        -------
        Tensor, shape (item, beam, token)
            Log-probabilities, none above 0.
        """

    def reorder(self, parents: Tensor) -> None:
        """Let each beam go on from the beam ``parents`` (item, beam) of its item."""

    def keep(self, items: Tensor) -> None:
        """Drop all items but those at these positions (kept,), in this order."""


class Constraint(Protocol):
    """Which tokens may come next, by a state that follows each beam.

    The search gathers the tensors of the state itself when beams change their order or
    items are dropped, so that an item's own constants are part of the state.
    """

    def start(self, n_items: int, n_beams: int, device: torch.device) -> State:
        """Return the state of beams without tokens."""

    def mask(self, state: State) -> Tensor:
        """Return what is allowed next, bool of shape (item, beam, token)."""

    def advance(self, state: State, tokens: Tensor) -> State:
        """Return the state after one more token (item, beam) of each beam."""


def beam_search(
    step: Decoder,
    *,
    n_items: int,
    beam_size: int,
    max_length: int,
    stop: int,
    allowed: Constraint | None = None,
    n_best: int = 1,
    device: torch.device | str = "cpu",
) -> Decoded:
    r"""Find sequences of a high probability, several per item.

    .. math:: \hat a = \arg\max_a \sum_i \log p(a_i \mid a_{<i})

    over sequences that end with a stop. At each step every open beam is extended by
    every token; of all these the best ``beam_size`` that do not stop go on, and those
    that stop are finished if they are among the best ``beam_size``. With
    ``beam_size=1`` this is greedy decoding.

    Parameters
    ----------
    step : Decoder
        The network.
    n_items : int
        Number of items, at least 1.
    beam_size : int
        Open candidates per item, at least 1.
    max_length : int
        Most tokens of a sequence without its stop, at least 1. Behind as many tokens
        nothing but the stop is taken.
    stop : int
        Token that ends a sequence.
    allowed : Constraint, optional
        Tokens that may come next. Log-probabilities stay those of the network: they
        are not rescaled to what is allowed.
    n_best : int, default 1
        Sequences returned per item, at most ``beam_size``.
    device : torch.device or str, default "cpu"
        Where the network is.

    Returns
    -------
    Decoded
        Tokens, log-probabilities, lengths and totals. An item whose beams all came to
        a place where nothing is allowed has a total of minus infinity and length 0.

    Raises
    ------
    InputError
        When a number is out of range.
    NumericalError
        When the network returns NaN.

    Notes
    -----
    An item ends when no open beam has a total above the worst of its ``n_best``
    finished sequences: a total never grows. Items that ended are dropped from the batch
    whenever they are half of it. Each item is searched by itself, so that the others in
    its batch do not matter beyond the rounding of the network. There is one transfer
    from the device per step.

    Examples
    --------
    >>> import torch
    >>> class Coin:  # heads, tails, or the end
    ...     def start(self, n_items, n_beams, max_length): ...
    ...     def reorder(self, parents): ...
    ...     def keep(self, items): ...
    ...     def step(self, tokens):
    ...         p = torch.tensor([0.5, 0.1, 0.4])
    ...         return p.log().expand(*tokens.shape[:2], 3)
    >>> found = beam_search(
    ...     Coin(), n_items=1, beam_size=2, max_length=3, stop=2, n_best=2
    ... )
    >>> found.tokens.tolist()
    [[[2, 2, 2, 2], [0, 2, 2, 2]]]
    >>> [round(total, 3) for total in found.totals[0].exp().tolist()]
    [0.4, 0.2]
    """
    _check_sizes(n_items, beam_size, max_length, n_best)
    search = _Search(step, allowed, stop, beam_size, max_length, torch.device(device))
    with torch.no_grad():
        return search.greedy(n_items) if beam_size == 1 else search.run(n_items, n_best)


def _check_sizes(n_items: int, beam_size: int, max_length: int, n_best: int) -> None:
    if min(n_items, beam_size, max_length, n_best) < 1 or n_best > beam_size:
        raise InputError(
            f"n_items is {n_items}, beam_size {beam_size}, max_length {max_length} and "
            f"n_best {n_best}; all must be at least 1, n_best at most beam_size",
            where="beam_search",
        )


@dataclass
class _Beams:
    """Open beams of the items in the present batch."""

    tokens: Tensor  # (item, beam, length)
    log_probs: Tensor  # (item, beam, length)
    totals: Tensor  # (item, beam), minus infinity: not open
    state: State

    def reorder(self, parents: Tensor) -> None:
        """Let each beam go on from another one; the totals are those after it."""
        self.tokens = gather_beams(self.tokens, parents)
        self.log_probs = gather_beams(self.log_probs, parents)
        self.state = tuple(gather_beams(one, parents) for one in self.state)

    def append(self, token: Tensor, log_prob: Tensor) -> None:
        """Append one token (item, beam)."""
        self.tokens = append_last(self.tokens, token)
        self.log_probs = append_last(self.log_probs, log_prob)

    def keep(self, items: Tensor) -> None:
        """Drop all items but these."""
        self.tokens, self.log_probs = self.tokens[items], self.log_probs[items]
        self.totals = self.totals[items]
        self.state = tuple(one[items] for one in self.state)


class _Search:
    """One call of :func:`beam_search`: what stays the same over its steps."""

    def __init__(
        self,
        decoder: Decoder,
        constraint: Constraint | None,
        stop: int,
        n_beams: int,
        max_length: int,
        device: torch.device,
    ) -> None:
        self.decoder = decoder
        self.constraint = constraint
        self.stop = stop
        self.n_beams = n_beams
        self.max_length = max_length
        self.device = device
        # What beams without a future are given, so that a decoder never reads a stop.
        self.filler = 0 if stop else 1

    def greedy(self, n_items: int) -> Decoded:
        """Take the best token of each step."""
        tokens, state = self._start(n_items)
        n_places = self.max_length + 1
        rows = torch.arange(n_items, device=self.device)
        is_open = torch.ones((n_items, 1), dtype=torch.bool, device=self.device)
        steps = []
        for _ in range(n_places):
            last, token = self._scores(tokens, state).max(dim=-1)  # (item, beam)
            step = last.where(is_open, 0.0)
            is_open = is_open & (token != self.stop) & (last != -torch.inf)
            steps.append((rows, token.where(is_open, self.stop), step))
            n_open, is_nan = _read(is_open.sum(), last.isnan().any())
            _check_numbers(is_nan)
            if not n_open:
                break
            token = token.where(is_open, self.filler)
            tokens = append_last(tokens, token)
            state = self._advance(state, token)
            if 2 * n_open <= len(tokens):
                items = self._keep(is_open[:, 0], n_open)
                rows, tokens, is_open = rows[items], tokens[items], is_open[items]
                state = tuple(one[items] for one in state)
        return decoded_from_steps(steps, n_places, self.stop)

    def run(self, n_items: int, n_best: int) -> Decoded:
        """Keep several candidates per item."""
        tokens, state = self._start(n_items)
        n_places = self.max_length + 1
        finished = Finished(n_items, n_best, n_places, self.stop, self.device)
        own = torch.arange(self.n_beams, device=self.device)
        log_probs = torch.empty((n_items, self.n_beams, 0), device=self.device)
        # All beams are the same at first, so that only one of them is open.
        totals = torch.where(own == 0, 0.0, -torch.inf).expand(n_items, -1)
        beams = _Beams(tokens, log_probs, totals, state)
        for _ in range(n_places):
            scores = self._scores(beams.tokens, beams.state)
            stops, best, chosen = self._extend(beams.totals, scores)
            finished.add(beams.tokens, beams.log_probs, scores[..., self.stop], stops)
            # A total never grows: what is beaten already stays beaten.
            beams.totals = best.where(best > finished.totals[:, -1:], -torch.inf)
            is_open = beams.totals > -torch.inf
            parents = (chosen // scores.shape[-1]).where(is_open, own)
            token = (chosen % scores.shape[-1]).where(is_open, self.filler)
            has_open = is_open.any(dim=1)
            is_nan = torch.cat([best, stops]).isnan().any()
            is_moved = (parents != own).any()
            n_open, *answers = _read(has_open.sum(), is_moved, is_nan)
            _check_numbers(answers[1])
            if not n_open:
                break
            if answers[0]:
                self.decoder.reorder(parents)
                beams.reorder(parents)
            beams.append(token, scores.flatten(1).gather(1, chosen))
            beams.state = self._advance(beams.state, token)
            if 2 * n_open <= len(has_open):
                items = self._keep(has_open, n_open)
                finished.keep(items)
                beams.keep(items)
        return finished.result()

    def _start(self, n_items: int) -> tuple[Tensor, State]:
        self.decoder.start(n_items, self.n_beams, self.max_length)
        state: State = ()
        if self.constraint is not None:
            state = self.constraint.start(n_items, self.n_beams, self.device)
        shape = (n_items, self.n_beams, 0)
        return torch.empty(shape, dtype=torch.int64, device=self.device), state

    def _scores(self, tokens: Tensor, state: State) -> Tensor:
        """Log-probabilities (item, beam, token); minus infinity: not allowed."""
        log_probs = self.decoder.step(tokens)
        n_tokens = log_probs.shape[-1]
        if not 0 <= self.stop < n_tokens or n_tokens < 2:
            raise InputError(
                f"stop is {self.stop} and the network scores {n_tokens} tokens; at "
                "least 2 are needed, the stop among them",
                where="stop",
            )
        if self.constraint is not None:
            log_probs = log_probs.where(self.constraint.mask(state), -torch.inf)
        if tokens.shape[-1] == self.max_length:
            is_stop = torch.arange(n_tokens, device=self.device) == self.stop
            log_probs = log_probs.where(is_stop, -torch.inf)
        return log_probs

    def _extend(self, totals: Tensor, scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Extend open beams with totals (item, beam) by every token.

        Returns totals with a stop (item, beam), minus infinity when they are not among
        the best; totals of the best without; and which (beam * token) these are.
        """
        candidates = totals.unsqueeze(-1) + scores
        stops = candidates[..., self.stop].clone()
        candidates[..., self.stop] = -torch.inf
        best, chosen = candidates.flatten(1).topk(self.n_beams)
        # (item, beam that stops, beam that is better)
        others = torch.cat([best, stops], dim=1).unsqueeze(1)
        n_better = (others > stops.unsqueeze(2)).sum(dim=2)
        return stops.where(n_better < self.n_beams, -torch.inf), best, chosen

    def _advance(self, state: State, token: Tensor) -> State:
        if self.constraint is None:
            return state
        return self.constraint.advance(state, token)

    def _keep(self, has_open: Tensor, n_open: int) -> Tensor:
        """Drop items without open beams, and return the places of the others."""
        # Sorting needs no transfer, as nonzero() would.
        order = has_open.to(torch.uint8).argsort(descending=True, stable=True)
        items = order[:n_open]
        self.decoder.keep(items)
        return items


def _read(*numbers: Tensor) -> list[int]:
    """Bring a few numbers to the host in one transfer."""
    values: list[int] = torch.stack([one.to(torch.int64) for one in numbers]).tolist()
    return values


def _check_numbers(is_nan: int) -> None:
    if is_nan:
        raise NumericalError(
            "the network returned NaN as a log-probability",
            where="beam_search",
            hint="Look for values that are not finite in its input and weights.",
        )
