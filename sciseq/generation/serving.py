"""Serving requests that arrive at any time: continuous batching (Flover).

Axes: ``batch`` (active sequences, in the order of their slots), ``position`` (L),
``row``, ``token`` (V).

One loop over passes, not over requests: each pass serves every active sequence at its
own place. Card: sequences §15.
"""

import sys
import time
from copy import copy
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from sciseq.errors import InputError, InputTypeError
from sciseq.generation.base import SequenceGenerator, make_drawing, request_seeds
from sciseq.generation.constraints import without_early_ends
from sciseq.generation.parts.drawing import Drawing
from sciseq.generation.parts.drawing_of_each import DrawingOfEach
from sciseq.generation.parts.joining import SeatedCache, join, joined_conditions
from sciseq.generation.parts.network import Condition
from sciseq.generation.parts.requests import (
    Requests,
    Work,
    begin,
    is_counted,
    step,
)
from sciseq.generation.parts.slots import SlotPool
from sciseq.training import resolve_seed

__all__ = ["ContinuousBatcher", "Served"]

_SECONDS_BETWEEN_LINES = 1.0


@dataclass
class Served:
    """What a batcher has done so far.

    Parameters
    ----------
    n_passes : int
        Fused passes.
    n_prefills : int
        Passes over conditions and begins of requests that joined, and over what they
        give where that would have made the passes of all others wider.
    n_rows : int
        Rows that were computed for sequences in fused passes, padding left out.
    n_sequences, n_tokens : int
        Complete sequences, and the tokens generated for them, up to their ends.
    most_active : int
        Largest number of sequences in a pass.
    seconds : float
        Time in the loop.
    """

    n_passes: int = 0
    n_prefills: int = 0
    n_rows: int = 0
    n_sequences: int = 0
    n_tokens: int = 0
    most_active: int = 0
    seconds: float = 0.0

    @property
    def tokens_per_pass(self) -> float:
        """Generated tokens over fused passes."""
        return self.n_tokens / max(self.n_passes, 1)

    @property
    def tokens_per_second(self) -> float:
        """Generated tokens over time in the loop."""
        return self.n_tokens / self.seconds if self.seconds else 0.0


@dataclass
class _Sequence:
    """One sequence that is asked for: what ``Requests`` hold of it, on the device."""

    ticket: int
    place: int  # among those of its ticket
    tokens: Tensor  # (1, position), -1 at gaps
    seed: Tensor  # (1,)
    condition: Condition | None
    allowed: Tensor | None  # (1, position, token)
    drawing: Drawing


class ContinuousBatcher:
    """Generates for many callers at once; sequences join and leave at every pass.

    Parameters
    ----------
    model : SequenceGenerator
        Fitted; one that generates by a decoder, as most do.
    max_active : int, default=32
        Sequences in a pass; others wait, first come, first served.
    verbose : int, default=0
        1 shows progress on standard error, a line a second.

    Attributes
    ----------
    served : Served
        Counts of passes, tokens and time.

    Raises
    ------
    InputTypeError
        For what is no generator of sequences.
    CapabilityError
        When it does not generate by a decoder.
    InputError
        When ``max_active`` is no integer from 1.

    Notes
    -----
    What a ticket gives is what ``model.sample`` gives for the same arguments, whatever
    else is served: every sequence has noise of its own and reads its own rows alone.
    Sums of numbers may be grouped otherwise, so that scores agree to rounding.

    While there is room, the number of passes is at most the largest, over sequences, of
    the pass that it joined at plus its own passes. Conditions and begins are read when
    a sequence joins, in a pass apart, and so is a first pass that has more rows than
    those of the others. A model that is fitted again while it is served is
    served as it was.

    Card: sequences §15 (Flover, arXiv:2305.13484). Keys and values of all seats are
    allotted together, when the first sequence joins, and given back when none is
    active. Seats stay side by side, and when a sequence leaves at most one other moves.
    Tensor parallelism is not here. A batcher is for one thread.

    Examples
    --------
    >>> from sciseq.generation.sequences.autoregressive import AutoregressiveSequence
    >>> model = AutoregressiveSequence(max_epochs=2, random_state=0, device="cpu")
    >>> model = model.fit(["ACGT", "ACGG"] * 20)
    >>> batcher = ContinuousBatcher(model)
    >>> first = batcher.submit(2, random_state=0)
    >>> batcher.advance()
    True
    >>> second = batcher.submit(template="A?G?", random_state=1)
    >>> batcher.run()
    >>> batcher.result(first) == model.sample(2, random_state=0)
    True
    >>> batcher.served.n_sequences
    3
    """

    def __init__(
        self, model: SequenceGenerator, max_active: int = 32, verbose: int = 0
    ) -> None:
        if not isinstance(model, SequenceGenerator):
            raise InputTypeError(
                f"model is a {type(model).__name__}, must be a generator of sequences",
                where="ContinuousBatcher",
            )
        model._check_is_fitted()
        # What it is now: fitted again, it goes on with other weights and tokens.
        self._model, self._verbose = copy(model), verbose
        self._device = model._run_device()
        self._network = model._network()
        self._drawings = DrawingOfEach()
        self._decoder = model._decoder(cast(Drawing, self._drawings))
        self._pool: SlotPool[int] = SlotPool(max_active)
        self._sequences: dict[int, _Sequence] = {}
        self._n_submitted = self._n_tickets = 0
        self._made: dict[int, Tensor] = {}  # tokens of each ticket
        self._n_missing: dict[int, int] = {}
        self._running: Requests | None = None
        self._line_at = 0.0
        self.served = Served()

    # ------------------------------------------------------------ for callers

    @property
    def n_active(self) -> int:
        """Sequences under way."""
        return len(self._pool.requests)

    @property
    def n_waiting(self) -> int:
        """Sequences that wait for a seat."""
        return self._pool.n_waiting

    @property
    def cache_bytes(self) -> int:
        """Bytes of keys and values that are held for active sequences."""
        if self._running is None:
            return 0
        return cast(SeatedCache, self._running.cache).n_bytes

    def submit(
        self,
        n: int | None = None,
        condition: Any = None,
        *,
        template: Any = None,
        allowed: Any = None,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float = 1.0,
        random_state: Any = None,
    ) -> int:
        """Ask for sequences, at any time.

        Parameters
        ----------
        n, condition, template, allowed, temperature, top_k, top_p, random_state
            As in :meth:`SequenceGenerator.sample`.

        Returns
        -------
        int
            Ticket, for :meth:`result`.

        Raises
        ------
        InputError
            For arguments that sample refuses as well.
        """
        model = self._model
        drawing = make_drawing(temperature, top_k, top_p)
        n, rows, told, legal = model._asked(n, condition, template, allowed)
        number = torch.arange(n)
        seeds = request_seeds(resolve_seed(random_state), number)
        tokens = rows[number % len(rows)]
        legal = without_early_ends(model.alphabet_, tokens, legal)
        ticket, self._n_tickets = self._n_tickets, self._n_tickets + 1
        self._made[ticket], self._n_missing[ticket] = tokens.clone(), n
        for place in range(n):
            one = slice(place, place + 1)
            of = None if told is None else told.take(number[one] % len(told.rows))
            self._add(
                _Sequence(
                    ticket,
                    place,
                    tokens[one],
                    seeds[one],
                    of,
                    legal if legal is None or len(legal) == 1 else legal[one],
                    drawing,
                )
            )
        return ticket

    def is_done(self, ticket: int) -> bool:
        """Tell whether all sequences of a ticket are complete."""
        self._check_ticket(ticket)
        return not self._n_missing[ticket]

    def result(self, ticket: int) -> Any:
        """Hand over the sequences of a ticket, once.

        Parameters
        ----------
        ticket : int
            From :meth:`submit`.

        Returns
        -------
        As from :meth:`SequenceGenerator.sample`.

        Raises
        ------
        InputError
            When they are not complete, or were handed over before.
        """
        if not self.is_done(ticket):
            raise InputError(
                f"{self._n_missing[ticket]} sequences of ticket {ticket} are not "
                "complete",
                where="result",
                hint="Call run(), or advance() until is_done(ticket).",
            )
        del self._n_missing[ticket]
        return self._model.alphabet_.decode(self._made.pop(ticket).numpy())

    def cancel(self, ticket: int) -> None:
        """Forget a ticket; its sequences leave, complete or not.

        Parameters
        ----------
        ticket : int
            From :meth:`submit`.

        Raises
        ------
        InputError
            When it is unknown, or its sequences were handed over.
        """
        self._check_ticket(ticket)
        del self._n_missing[ticket], self._made[ticket]
        gone = {
            number for number, one in self._sequences.items() if one.ticket == ticket
        }
        active = [i for i, one in enumerate(self._pool.requests) if one in gone]
        if self._running is not None and active:
            self._leave(self._running, active)
        self._pool.withdraw(gone)
        for number in gone:
            del self._sequences[number]

    def run(self) -> None:
        """Go on until all that was submitted is complete."""
        while self.advance():
            pass

    def advance(self) -> bool:
        """Let waiting sequences join, and make one pass of all active ones.

        Returns
        -------
        bool
            Whether anything is left to do.

        Notes
        -----
        When a pass fails or is interrupted, the active sequences begin anew with the
        next call, and end as they would have.
        """
        started = time.perf_counter()
        try:
            with torch.no_grad(), self._model._autocast(self._device):
                self._admit()
                if self._running is not None:
                    self._pass(self._running)
                    self._release(self._running)
        except BaseException:
            self._begin_anew()
            raise
        is_left = bool(self.n_active or self.n_waiting)
        self.served.seconds += time.perf_counter() - started
        self._tell(is_last=not is_left)
        return is_left

    # ------------------------------------------------------------ the loop

    def _add(self, sequence: _Sequence) -> None:
        if bool((sequence.tokens >= 0).all()):  # nothing is to be done
            self._finish(sequence, sequence.tokens[0])
            return
        number, self._n_submitted = self._n_submitted, self._n_submitted + 1
        self._sequences[number] = sequence
        self._pool.submit(number)

    def _admit(self) -> None:
        """Fill free seats; what is complete from the start frees its seat again."""
        while admitted := [number for number, _ in self._pool.admit()]:
            new = self._begun([self._sequences[number] for number in admitted])
            before = [one for one in self._pool.requests if one not in set(admitted)]
            place = {number: i for i, number in enumerate(before + admitted)}
            order = [place[number] for number in self._pool.requests]
            if self._running is None:
                self._running = self._nobody(new)
            join(self._running, new, torch.tensor(order, device=self._device))
            self._release(self._running)

    def _begun(self, sequences: list[_Sequence]) -> Requests:
        """Return requests whose prefix is read, and which the decoder has started."""
        mask, device = self._network.mask, self._device
        tokens = torch.cat([one.tokens for one in sequences]).to(device)
        is_filled = tokens >= 0
        told = [one.condition for one in sequences if one.condition is not None]
        condition = joined_conditions(told) if told else None
        if condition is not None:
            condition = Condition(*(one.to(device) for one in condition))
        allowed = None
        if any(one.allowed is not None for one in sequences):
            shape = (1, tokens.shape[1], self._network.backbone.n_tokens)
            every = torch.ones(shape, dtype=torch.bool)
            allowed = torch.cat([
                every if one.allowed is None else one.allowed for one in sequences
            ]).to(device)  # fmt: skip
        requests = Requests(
            tokens=tokens.where(is_filled, mask),
            is_filled=is_filled,
            seeds=torch.cat([one.seed for one in sequences]).to(device),
            mask=mask,
            condition=condition,
            allowed=allowed,
            end=self._model.alphabet_.end,
        )
        self._drawings.of = [one.drawing for one in sequences]
        begin(self._network, self._decoder, requests, requests.work)
        self.served.n_prefills += self._decoder.keeps_prefix
        if self._running is not None and self._widens(requests, self._running):
            step(self._network, self._decoder, requests, requests.work)
            self.served.n_prefills += 1
        return requests

    def _widens(self, new: Requests, running: Requests) -> bool:
        """Tell whether a pass of all would be wider than without the new ones.

        A long beginning that is given would cost all others as many rows of padding.
        """
        width, usual = (
            self._decoder.rows(one).tokens.shape[1] for one in (new, running)
        )
        return width > usual

    def _nobody(self, like: Requests) -> Requests:
        """Return requests without any, that others can join."""
        none = Requests(
            tokens=like.tokens[:0],
            is_filled=like.is_filled[:0],
            seeds=like.seeds[:0],
            mask=like.mask,
            condition=like.condition and Condition(*(x[:0] for x in like.condition)),
            end=like.end,
        )
        none.cache = SeatedCache(self._pool, like.cache.n_prefix, like.n_positions)
        return none

    def _pass(self, requests: Requests) -> None:
        n = len(requests)
        self._drawings.of = [
            self._sequences[number].drawing for number in self._pool.requests
        ]
        requests.number = torch.arange(n, device=self._device)
        work = Work(*(torch.zeros_like(requests.seeds) for _ in range(4)))
        requests.work = work  # decoders add what they compute besides
        step(self._network, self._decoder, requests, work)
        self.served.n_passes += 1
        self.served.n_rows += int(work.n_rows.sum())
        self.served.most_active = max(self.served.most_active, n)

    def _begin_anew(self) -> None:
        """Let all unfinished sequences wait again, as nothing is known of the rest."""
        self._running, self._pool = None, SlotPool(self._pool.capacity)
        for number in sorted(self._sequences):
            self._pool.submit(number)

    def _release(self, requests: Requests) -> None:
        """Let complete sequences leave."""
        done = self._decoder.is_done(requests).nonzero().flatten().tolist()
        numbers = self._pool.requests
        for row in done:
            self._finish(self._sequences.pop(numbers[row]), requests.tokens[row])
        if done:
            self._leave(requests, done)

    def _leave(self, requests: Requests, rows: list[int]) -> None:
        """Free the seats of some rows."""
        numbers = self._pool.requests
        self._pool.release(numbers[row] for row in rows)
        row_of = {number: row for row, number in enumerate(numbers)}
        items = [row_of[number] for number in self._pool.requests]
        if items:
            requests.keep(torch.tensor(items, device=self._device))
        else:
            self._running = None

    def _finish(self, sequence: _Sequence, tokens: Tensor) -> None:
        tokens = tokens.cpu()
        self._made[sequence.ticket][sequence.place] = tokens
        self._n_missing[sequence.ticket] -= 1
        counted = is_counted(tokens.unsqueeze(0), self._model.alphabet_.end)
        self.served.n_sequences += 1
        self.served.n_tokens += int((counted & (sequence.tokens < 0)).sum())

    # ------------------------------------------------------------ the rest

    def _check_ticket(self, ticket: int) -> None:
        if ticket not in self._n_missing:
            raise InputError(
                f"ticket {ticket!r} is unknown, or its sequences were handed over",
                where="ticket",
                hint="submit() returns tickets; result() hands over once.",
            )

    def _tell(self, *, is_last: bool) -> None:
        now = time.monotonic()
        is_time = is_last or now - self._line_at >= _SECONDS_BETWEEN_LINES
        # Programs without a console have no standard error stream at all.
        if not self._verbose or not is_time or sys.stderr is None:
            return
        self._line_at = now
        served = self.served
        sys.stderr.write(
            f"pass {served.n_passes}  active {self.n_active}  waiting "
            f"{self.n_waiting}  done {served.n_sequences}  "
            f"{served.tokens_per_pass:.1f} tokens per pass  "
            f"{served.tokens_per_second:.0f} tokens per second\n"
        )
        sys.stderr.flush()
