"""Sequences that are being generated, and the one loop that generates them.

Axes: ``batch`` (requests under way), ``position`` (L), ``row`` (given to the network in
one pass), ``token`` (V).
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from torch import Tensor

from sciseq.generation.parts.cache import KeyValueCache
from sciseq.generation.parts.layout import NOTHING, Layout
from sciseq.generation.parts.masks import Rule
from sciseq.generation.parts.network import Condition, SequenceNetwork

__all__ = ["Decoder", "Requests", "Rows", "Work", "begin", "generate", "is_counted"]


@dataclass
class Work:
    """What the generation of each request took.

    Parameters
    ----------
    n_passes : Tensor of int64, shape (batch,)
        Passes through the network in which the request took part (NFE).
    n_rows : Tensor of int64, shape (batch,)
        Rows computed for it.
    n_read : Tensor of int64, shape (batch,)
        Rows read from its cache, summed over the passes.
    n_tokens : Tensor of int64, shape (batch,)
        Tokens generated, up to the first end.
    """

    n_passes: Tensor
    n_rows: Tensor
    n_read: Tensor
    n_tokens: Tensor

    @property
    def tokens_per_pass(self) -> Tensor:
        """Generated tokens over passes (TPF)."""
        return self.n_tokens / self.n_passes.clamp_min(1)

    @property
    def tokens_per_row(self) -> Tensor:
        """Generated tokens over computed rows (p_cache of WeDLM)."""
        return self.n_tokens / self.n_rows.clamp_min(1)

    @property
    def cache_share(self) -> Tensor:
        """Rows that came from the cache over all rows that were read or computed.

        Pooled over the passes. The cache ratio of dKV-Cache is the mean of the shares
        of the passes, which is the same where all have equally many rows.
        """
        return self.n_read / (self.n_read + self.n_rows).clamp_min(1)


@dataclass
class Requests:
    """Sequences under way.

    Parameters
    ----------
    tokens : Tensor of int64, shape (batch, position)
        What is there; the mask symbol elsewhere.
    is_filled : Tensor of bool, shape (batch, position)
        Which positions are known, given or generated. Given ones never change.
    seeds : Tensor of int64, shape (batch,)
        Source of all noise of a request, so that it does not depend on the others.
    mask : int
        The mask symbol.
    condition : Condition or None
        What the sequences are generated for.
    allowed : Tensor of bool, shape (batch or 1, position, token), or None
        Legal tokens.
    end : int or None
        Token behind which everything is an end.

    Attributes
    ----------
    cache : KeyValueCache
        Rows that need not be computed again.
    number : Tensor of int64, shape (batch,)
        Which requests they are, of those at the start.
    memory : dict of str to Tensor
        What a decoder keeps of each request between passes; ``next`` holds the scores
        of the token behind the last one that was stored, where that is kept.
    """

    tokens: Tensor
    is_filled: Tensor
    seeds: Tensor
    mask: int
    condition: Condition | None = None
    allowed: Tensor | None = None
    end: int | None = None
    cache: KeyValueCache = field(init=False)
    number: Tensor = field(init=False)
    work: Work = field(init=False)
    memory: dict[str, Tensor] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        n, n_positions = self.tokens.shape
        n_condition = 0 if self.condition is None else self.condition.rows.shape[1]
        self.cache = KeyValueCache(n_condition + 1, n_positions)
        self.number = torch.arange(n, device=self.tokens.device)
        self.work = Work(*(torch.zeros_like(self.seeds) for _ in range(4)))

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def n_positions(self) -> int:
        """Positions of a sequence."""
        return self.tokens.shape[1]

    def first_gap(self) -> Tensor:
        """Return the first position that is not filled, (batch,)."""
        is_gap = ~self.is_filled
        first = is_gap.to(torch.int8).argmax(dim=1)
        return first.where(is_gap.any(dim=1), self.n_positions)

    def allowed_at(self, position: Tensor) -> Tensor | None:
        """Return the legal tokens (batch, row, token) at positions (batch, row)."""
        if self.allowed is None:
            return None
        allowed = self.allowed.expand(len(self), self.n_positions, -1)
        place = position.clamp(0, self.n_positions - 1).unsqueeze(2)
        return allowed.gather(1, place.expand(-1, -1, allowed.shape[2]))

    def fill(self, position: Tensor, tokens: Tensor, which: Tensor) -> None:
        """Write tokens (batch, row) at positions, where ``which`` and still free.

        What stands behind an end that follows only filled positions is an end as well.
        """
        inside = which & (position >= 0) & (position < self.n_positions)
        place = position.where(inside, 0)
        inside = inside & ~self.is_filled.gather(1, place)
        rows, columns = inside.nonzero(as_tuple=True)
        where = (rows, place[rows, columns])
        self.tokens[where] = tokens[rows, columns]
        self.is_filled[where] = True
        if self.end is not None:
            self._close()

    def _close(self) -> None:
        """Fill what comes behind the first end of a filled beginning."""
        assert self.end is not None
        is_end = self.tokens == torch.full_like(self.tokens, self.end)
        first = is_end.to(torch.int8).argmax(dim=1)
        closed = is_end.any(dim=1) & (first < self.first_gap())
        places = torch.arange(self.n_positions, device=first.device)
        behind = closed[:, None] & (places > first[:, None]) & ~self.is_filled
        self.tokens.masked_fill_(behind, self.end)
        self.is_filled |= behind

    def keep(self, items: Tensor) -> None:
        """Drop all requests but these."""
        for name in ("tokens", "is_filled", "seeds", "number"):
            setattr(self, name, getattr(self, name)[items])
        if self.condition is not None:
            self.condition = self.condition.take(items)
        if self.allowed is not None and len(self.allowed) > 1:
            self.allowed = self.allowed[items]
        self.memory = {name: one[items] for name, one in self.memory.items()}
        self.cache.keep(items)


class Rows(NamedTuple):
    """What a pass computes.

    Parameters
    ----------
    tokens : Tensor of int64, shape (batch, row)
        Symbols.
    layout : Layout
        Where they belong. Rows of segment ``NOTHING`` are padding.
    """

    tokens: Tensor
    layout: Layout


class Decoder(ABC):
    """Which rows are computed next, and what becomes of their scores.

    Attributes
    ----------
    rule : callable
        Who reads whom.
    is_exact : bool
        Whether what is cached equals what would be computed anew, under the rule.
    keeps_prefix : bool
        Whether conditions and begin are computed once and stored, or in every pass.
    """

    rule: Rule
    is_exact: bool = True
    keeps_prefix: bool = True

    @abstractmethod
    def start(self, requests: Requests) -> None:
        """Prepare for requests, whose prefix is stored if it is kept."""

    @abstractmethod
    def rows(self, requests: Requests) -> Rows:
        """Choose what the next pass computes."""

    def computes_prefix(self, requests: Requests) -> Tensor:
        """Tell for whom the next pass computes conditions and begin, bool (batch,)."""
        return torch.full_like(requests.is_filled[:, 0], not self.keeps_prefix)

    @abstractmethod
    def commit(self, requests: Requests, rows: Rows, scores: Tensor) -> None:
        """Fill tokens, and store rows, from the scores (batch, row, token)."""

    def is_done(self, requests: Requests) -> Tensor:
        """Tell which requests are complete (batch,)."""
        return requests.is_filled.all(dim=1)


def generate(
    network: SequenceNetwork, decoder: Decoder, requests: Requests
) -> tuple[Tensor, Work]:
    """Fill all gaps of all requests.

    Parameters
    ----------
    network : SequenceNetwork
        In evaluation mode.
    decoder : Decoder
        How.
    requests : Requests
        What; they are used up.

    Returns
    -------
    tokens : Tensor of int64, shape (batch, position)
        Without gaps.
    work : Work
        What it took, for each request.
    """
    tokens, work = requests.tokens.clone(), requests.work
    is_free, end = ~requests.is_filled, requests.end
    with torch.no_grad():
        _release(requests, tokens, requests.is_filled.all(dim=1))
        if len(requests):
            begin(network, decoder, requests, work)
        while True:
            _release(requests, tokens, decoder.is_done(requests))
            if not len(requests):
                break
            step(network, decoder, requests, work)
    work.n_tokens = (is_free & is_counted(tokens, end)).sum(dim=1)
    return tokens, work


def begin(
    network: SequenceNetwork, decoder: Decoder, requests: Requests, work: Work
) -> None:
    """Do what comes before the first step of requests, none of them complete."""
    if decoder.keeps_prefix:
        _read_prefix(network, decoder, requests, work)
    decoder.start(requests)


def is_counted(tokens: Tensor, end: int | None) -> Tensor:
    """Tell which tokens count: all up to the first end (batch, position).

    Parameters
    ----------
    tokens : Tensor of int64, shape (batch, position)
        Tokens.
    end : int or None
        Token behind which everything is an end.
    """
    if end is None:
        return torch.ones_like(tokens, dtype=torch.bool)
    is_end = tokens == torch.full_like(tokens, end)
    return (is_end.cumsum(dim=1) - is_end.long()) == 0


def _release(requests: Requests, tokens: Tensor, done: Tensor) -> None:
    """Take complete requests out."""
    if len(requests) and bool(done.any()):
        tokens[requests.number[done]] = requests.tokens[done]
        requests.keep((~done).nonzero().flatten())


def step(
    network: SequenceNetwork, decoder: Decoder, requests: Requests, work: Work
) -> None:
    """Let all requests take part in one pass."""
    rows = decoder.rows(requests)
    n_batch, layout = len(requests), rows.layout
    x, n_before = network.embed(rows.tokens, layout), 0
    computes_prefix = decoder.computes_prefix(requests)
    if bool(computes_prefix.any()):
        before, its_layout = network.prefix(n_batch, requests.condition)
        x, n_before = torch.cat([before, x], dim=1), its_layout.n_rows
        its_layout = its_layout.expand(n_batch)
        segment = its_layout.segment.where(computes_prefix.unsqueeze(1), NOTHING)
        layout = replace(its_layout, segment=segment).followed_by(layout)
    states = network(x, layout, decoder.rule, requests.cache)
    work.n_passes[requests.number] += 1
    work.n_rows[requests.number] += (layout.segment != NOTHING).sum(dim=1)
    work.n_read[requests.number] += requests.cache.n_read
    decoder.commit(requests, rows, network.scores(states[:, n_before:]))


def _read_prefix(
    network: SequenceNetwork, decoder: Decoder, requests: Requests, work: Work
) -> None:
    """Compute conditions and begin once, store them, and keep what the begin says."""
    x, layout = network.prefix(len(requests), requests.condition)
    states = network(x, layout, decoder.rule, requests.cache)
    requests.cache.store()
    requests.memory["next"] = network.scores(states[:, -1])
    work.n_passes[requests.number] += 1
    work.n_rows[requests.number] += (layout.segment != NOTHING).sum(dim=1)
