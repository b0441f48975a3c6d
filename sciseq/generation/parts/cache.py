"""Keys and values of rows that need not be computed again.

Axes: ``batch``, ``head`` (h), ``slot`` (one for each row that can be stored: those of
the prefix, then one for each position), ``row`` (new in a pass), ``width`` (d, of one
head).

What is stored, and when, is a decoder's rule. This part only keeps it: a pass leaves
the keys and values of its rows here, and the decoder says which of them stay. As every
position has a slot of its own, requests of one batch may be at different places.
"""

from dataclasses import replace

import torch
from torch import Tensor

from sciseq.generation.parts.layout import NOTHING, Layout

__all__ = ["KeyValueCache"]


class KeyValueCache:
    """Keys, values and the layout of rows, for each layer of a network.

    Parameters
    ----------
    n_prefix : int
        Rows before position 0: conditions and the begin.
    n_positions : int
        Positions that can be stored.

    Attributes
    ----------
    layout : Layout or None
        Of the slots, those without anything of segment ``NOTHING``; None before the
        first pass.
    n_read : Tensor of int64, shape (batch,)
        Stored rows that the last pass could read.

    Examples
    --------
    >>> import torch
    >>> cache = KeyValueCache(n_prefix=0, n_positions=8)
    >>> new = torch.zeros(1, 2, 3, 4)  # batch, head, row, width
    >>> _ = cache.begin(Layout.of(3))
    >>> _ = cache.read(0, new, new)
    >>> cache.store()
    >>> _ = cache.begin(Layout.of(1, start=3))
    >>> cache.read(0, new[:, :, :1], new[:, :, :1])[0].shape
    torch.Size([1, 2, 4, 4])
    """

    def __init__(self, n_prefix: int, n_positions: int) -> None:
        self.n_prefix, self.n_positions = n_prefix, n_positions
        self.layout: Layout | None = None
        self._rooms: list[Tensor] = []  # (2, batch, head, slot, width) for each layer
        self._used = 0  # slots behind are empty for all requests
        self._new: Layout | None = None
        self._slots: Tensor | None = None
        self._rows: list[tuple[Tensor, Tensor]] = []
        self._is_next = False
        self.n_read = torch.zeros(1, dtype=torch.int64)

    @property
    def is_stored(self) -> Tensor:
        """Which positions are stored, bool of shape (batch, position)."""
        assert self.layout is not None
        return self.layout.segment[:, self.n_prefix :] != NOTHING

    def begin(self, layout: Layout) -> Layout:
        """Begin a pass over some rows, and return the layout of what they may read.

        Stored rows whose positions are computed anew are not read.

        Parameters
        ----------
        layout : Layout
            Of the new rows. Rows of the prefix come first, and all at once.
        """
        number = torch.arange(layout.n_rows, device=layout.position.device)
        slots = layout.position + self.n_prefix
        slots = slots.where(layout.position >= 0, number)
        self._new, self._slots, self._rows = layout, slots, []
        if self.layout is None:
            empty = Layout.of(self.n_positions + self.n_prefix, start=-self.n_prefix,
                              device=number.device)  # fmt: skip
            nothing = torch.full_like(empty.segment, NOTHING)
            self.layout = replace(empty, segment=nothing)
        n_batch = len(layout.position)
        if len(self.layout.position) < n_batch:
            self.layout = self.layout.map(lambda one: one.repeat(n_batch, 1))
        n_stored = len(self.layout.position)
        used = self._used
        self._is_next = bool((slots == number + used).all())
        stored = self.layout.map(lambda one: one[:, :used])
        if not self._is_next:
            # Padding hides nothing, wherever it stands: it goes behind all slots.
            is_row = layout.segment != NOTHING
            slot = slots.where(is_row, self.layout.n_rows).expand(n_stored, -1)
            is_old = torch.ones_like(self.layout.maskable)
            is_old = _scattered(is_old, slot, torch.zeros_like(slot, dtype=torch.bool))
            segment = stored.segment.where(is_old[:, :used], NOTHING)
            stored = replace(stored, segment=segment)
        self.n_read = (stored.segment != NOTHING).sum(dim=1)
        return stored.followed_by(layout)

    def read(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Return the stored keys and values of a layer, followed by new ones.

        Parameters
        ----------
        layer : int
            Which one; all are read in order in every pass.
        key, value : Tensor, shape (batch, head, row, width)
            Of the new rows.

        Returns
        -------
        tuple of Tensor
            Possibly views, which the next pass changes.
        """
        self.leave(layer, key, value)
        room, first, end = self._rooms[layer], self._used, self._used + key.shape[2]
        if self._is_next and end <= room.shape[3]:
            return room[0, :, :, :end], room[1, :, :, :end]
        return (
            torch.cat([room[0, :, :, :first], key], dim=2),
            torch.cat([room[1, :, :, :first], value], dim=2),
        )

    def leave(self, layer: int, key: Tensor, value: Tensor) -> None:
        """Leave new rows of a layer, to be stored, in place of what the pass left.

        Parameters
        ----------
        layer, key, value
            As of :meth:`read`.
        """
        if layer == len(self._rooms):
            self._add_room(key)
        self._rows[layer : layer + 1] = [(key, value)]
        room, first, end = self._rooms[layer], self._used, self._used + key.shape[2]
        if self._is_next and end <= room.shape[3]:
            room[0, :, :, first:end] = key
            room[1, :, :, first:end] = value

    def stored(self, layer: int, slots: Tensor) -> tuple[Tensor, Tensor]:
        """Return keys and values at some slots of a layer, at the cost of these alone.

        New rows of the pass, and slots without anything, are unspecified.

        Parameters
        ----------
        layer : int
            Whose new rows have been left.
        slots : Tensor of int64, shape (batch, any)
            Those of the prefix come first, then one for each position.

        Returns
        -------
        tuple of Tensor
            Each of shape (batch, head, any, width).
        """
        _, n_batch, n_heads, n_slots, width = self._rooms[layer].shape
        # Whole rows by their number: gathering number by number is much slower.
        head = torch.arange(n_batch * n_heads, device=slots.device) * n_slots
        rows = head.view(n_batch, n_heads, 1) + slots.unsqueeze(1)
        key, value = (
            one.flatten(0, 2).index_select(0, rows.flatten()).view(*rows.shape, width)
            for one in self._rooms[layer]
        )
        return key, value

    def _add_room(self, like: Tensor) -> None:
        """Make room for one more layer with heads as these."""
        n_batch, n_heads, _, width = like.shape
        n_slots = self.n_prefix + self.n_positions
        self._rooms.append(like.new_zeros((2, n_batch, n_heads, n_slots, width)))

    def store(self, which: Tensor | None = None, layout: Layout | None = None) -> None:
        """Keep rows of the last pass.

        Parameters
        ----------
        which : Tensor of bool, shape (batch, row), optional
            Which of them; all by default.
        layout : Layout, optional
            What they are from now on, where it is another layout than in the pass.
        """
        assert self._new is not None and self._slots is not None
        assert self.layout is not None
        new, slots = layout or self._new, self._slots
        n_batch = len(self.layout.position)
        if which is not None:
            # Rows that are not kept write to a slot behind all others.
            slots = slots.where(which, self.layout.n_rows)
        slots = slots.expand(n_batch, -1)
        written = {}
        for name in ("position", "group", "segment", "copy", "rank", "maskable",
                     "scored"):  # fmt: skip
            value = getattr(new, name).expand(n_batch, -1)
            written[name] = _scattered(getattr(self.layout, name), slots, value)
        self.layout = replace(self.layout, **written)
        if not (self._is_next and which is None):
            for room, rows in zip(self._rooms, self._rows, strict=True):
                for part, value in zip(room, rows, strict=True):
                    _scatter_rows(part, slots, value)
        last = slots.where(slots < self.layout.n_rows, -1).max()
        self._used = max(self._used, int(last) + 1)

    def forget(self, which: Tensor) -> None:
        """Drop stored positions, bool of shape (batch, position)."""
        assert self.layout is not None
        segment = self.layout.segment.clone()
        places = segment[:, self.n_prefix :]
        places.masked_fill_(which, NOTHING)
        self.layout = replace(self.layout, segment=segment)

    def keep(self, items: Tensor) -> None:
        """Drop all requests but those at some places of the batch (kept,)."""
        for layer, room in enumerate(self._rooms):
            self._rooms[layer] = room.index_select(1, items)
        if self.layout is not None:
            self.layout = self.layout.requests(items)


def _scattered(field: Tensor, slots: Tensor, value: Tensor) -> Tensor:
    wider = torch.cat([field, field[:, :1]], dim=1)
    return wider.scatter(1, slots, value)[:, :-1]


def _scatter_rows(room: Tensor, slots: Tensor, value: Tensor) -> None:
    """Write rows (batch, head, row, width) to their slots, those behind the end not."""
    n_slots = room.shape[2]
    batch, row = (slots < n_slots).nonzero(as_tuple=True)
    room[batch, :, slots[batch, row]] = value[batch, :, row].to(room.dtype)
