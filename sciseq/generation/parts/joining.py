"""Requests that join others under way, and leave them, in memory that is allotted once.

Axes: ``batch`` (active requests, in the order of their seats), ``seat`` (of a request:
the slots of a :class:`~sciseq.generation.parts.slots.SlotPool`), ``head``, ``slot`` (of
a row of the cache: those of the prefix, then one for each position), ``width``.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from sciseq.errors import InputError
from sciseq.generation.parts.cache import KeyValueCache
from sciseq.generation.parts.layout import NOTHING, Layout
from sciseq.generation.parts.network import Condition
from sciseq.generation.parts.requests import Requests
from sciseq.generation.parts.slots import SlotPool

__all__ = ["SeatedCache", "join", "joined_conditions"]


class SeatedCache(KeyValueCache):
    """A cache of all seats, of which a pass sees those of the active requests.

    Who joins is written to its seat; of those who stay only the ones move that the pool
    moves.

    Parameters
    ----------
    pool : SlotPool
        Assigns the seats.
    n_prefix, n_positions : int
        As of :class:`KeyValueCache`.
    """

    def __init__(self, pool: SlotPool[Any], n_prefix: int, n_positions: int) -> None:
        super().__init__(n_prefix, n_positions)
        self._pool, self._first = pool, 0
        self._seats: list[Tensor] = []  # (2, seat, head, slot, width) for each layer

    @property
    def n_bytes(self) -> int:
        """Bytes of the keys and values of active requests, empty slots included."""
        return sum(one.numel() * one.element_size() for one in self._rooms)

    def _add_room(self, like: Tensor) -> None:
        self._allot(like)
        self._show()

    def _allot(self, like: Tensor) -> None:
        """Allot memory for one more layer with heads as these."""
        n_heads, width = like.shape[1], like.shape[3]
        n_slots = self.n_prefix + self.n_positions
        shape = (2, self._pool.capacity, n_heads, n_slots, width)
        self._seats.append(like.new_zeros(shape))

    def _show(self) -> None:
        active = self._pool.active
        self._first = active.start
        self._rooms = [one[:, active] for one in self._seats]

    def join(
        self, other: KeyValueCache, n_each: tuple[int, int], order: Tensor
    ) -> None:
        """Take up requests that the pool has admitted.

        Parameters
        ----------
        other : KeyValueCache
            Theirs.
        n_each : tuple of int
            Requests so far, and new ones.
        order : Tensor of int64, shape (batch,)
            Which of the former, followed by the latter, has the first seat, and so on.
        """
        n_prefix = max(self.n_prefix, other.n_prefix)
        n_more = n_prefix - other.n_prefix
        self._widen(n_prefix - self.n_prefix)
        new_seats = self._pool.active.start + (order >= n_each[0]).nonzero().flatten()
        # Those of the new ones, in their own order.
        new_seats = new_seats[order[order >= n_each[0]].argsort()]
        for layer, room in enumerate(other._rooms):
            if layer == len(self._seats):
                self._allot(room[0])
            wider = _widened(room, 3, other.n_prefix - 1, n_more)
            self._seats[layer][:, new_seats] = wider
        self._join_layout(other, n_each, n_more, order)
        used = other._used + n_more if other._used else 0
        self._used = max(self._used, used)
        self._show()

    def _join_layout(
        self, other: KeyValueCache, n_each: tuple[int, int], n_more: int, order: Tensor
    ) -> None:
        if self.layout is None and other.layout is None:
            return  # nothing has been computed yet
        mine, theirs = self.layout, other.layout
        if theirs is not None:
            theirs = _widened_layout(theirs, other.n_prefix - 1, n_more)
        like = mine or theirs
        assert like is not None
        nothing = torch.full_like(like.segment[:1], NOTHING)
        empty = replace(like.map(lambda one: one[:1]), segment=nothing)
        both = [(mine or empty).expand(n_each[0]), (theirs or empty).expand(n_each[1])]
        self.layout = replace(
            like,
            **{
                name: torch.cat([getattr(one, name) for one in both])[order]
                for name in vars(like)
            },
        )

    def _widen(self, n: int) -> None:
        """Make room for longer conditions."""
        at = self.n_prefix - 1
        self._seats = [_widened(one, 3, at, n) for one in self._seats]
        if self.layout is not None:
            self.layout = _widened_layout(self.layout, at, n)
        self._used += n if self._used else 0
        self.n_prefix += n

    def keep(self, items: Tensor) -> None:
        """Drop all requests but these, whose seats the pool has assigned by now."""
        seats = self._pool.active.start + torch.arange(len(items), device=items.device)
        is_moved = self._first + items != seats
        sources, targets = (self._first + items)[is_moved], seats[is_moved]
        if len(sources):
            for one in self._seats:
                one[:, targets] = one[:, sources]
        self._show()
        if self.layout is not None:
            self.layout = self.layout.requests(items)
            is_used = (self.layout.segment != NOTHING).any(dim=0)
            self._used = int(is_used.nonzero().max()) + 1 if bool(is_used.any()) else 0


def _widened(x: Tensor, axis: int, at: int, n: int) -> Tensor:
    """Put n zeros along an axis before a place."""
    if not n:
        return x
    shape = list(x.shape)
    shape[axis] = n
    before, behind = x.narrow(axis, 0, at), x.narrow(axis, at, x.shape[axis] - at)
    return torch.cat([before, x.new_zeros(shape), behind], dim=axis)


def _widened_layout(layout: Layout, at: int, n: int) -> Layout:
    """Put n empty slots, that belong to the condition, before the begin."""
    wider = layout.map(lambda one: _widened(one, 1, at, n))
    wider.position[:, at : at + n] = -2
    wider.segment[:, at : at + n] = NOTHING
    return wider


def join(requests: Requests, others: Requests, order: Tensor) -> None:
    """Let other requests, which have begun, join those under way.

    Parameters
    ----------
    requests : Requests
        Under way, with a :class:`SeatedCache`.
    others : Requests
        They are used up.
    order : Tensor of int64, shape (batch,)
        Which of the former, followed by the latter, comes first, and so on.

    Raises
    ------
    InputError
        When decoders keep different things of them.
    """
    cache = requests.cache
    assert isinstance(cache, SeatedCache)
    n_each = len(requests), len(others)
    mine, theirs = set(requests.memory), set(others.memory)
    if n_each[0] and mine != theirs:
        raise InputError(
            f"a decoder keeps {sorted(mine)} of requests under way and "
            f"{sorted(theirs)} of new ones",
            where="join",
            hint="Let Decoder.start set all that the decoder keeps.",
        )
    cache.join(others.cache, n_each, order)
    for name in ("tokens", "is_filled", "seeds", "number"):
        both = torch.cat([getattr(requests, name), getattr(others, name)])
        setattr(requests, name, both[order])
    if requests.condition is not None and others.condition is not None:
        both_told = joined_conditions([requests.condition, others.condition])
        requests.condition = both_told.take(order)
    requests.allowed = _joined_allowed(requests, others, n_each, order)
    requests.memory = {
        name: torch.cat([requests.memory[name], one])[order]
        if n_each[0]
        else one[order]
        for name, one in others.memory.items()
    }


def _joined_allowed(
    requests: Requests, others: Requests, n_each: tuple[int, int], order: Tensor
) -> Tensor | None:
    given = (requests.allowed, others.allowed)
    like = next((one for one in given if one is not None), None)
    if like is None:
        return None
    every = torch.ones_like(like[:1])
    parts = [
        (every if one is None else one).expand(n, -1, -1)
        for one, n in zip(given, n_each, strict=True)
    ]
    return torch.cat(parts)[order]


def joined_conditions(conditions: list[Condition]) -> Condition:
    """Return the conditions of several batches as those of one, padded at the end.

    Parameters
    ----------
    conditions : list of Condition
        Of one width, and any numbers of rows.

    Examples
    --------
    >>> import torch
    >>> one, two = (
    ...     Condition(torch.ones(1, n, 3), torch.ones(1, n).bool()) for n in (1, 2)
    ... )
    >>> joined_conditions([one, two]).is_row
    tensor([[ True, False],
            [ True,  True]])
    """
    n_rows = max(one.rows.shape[1] for one in conditions)
    rows, is_row = (
        torch.cat([
            _widened(field, 1, field.shape[1], n_rows - field.shape[1])
            for field in fields
        ])
        for fields in zip(*conditions, strict=True)
    )  # fmt: skip
    return Condition(rows, is_row)
