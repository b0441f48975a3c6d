"""What is known of each token besides its value: the one thing that masks rest on.

Axes: ``batch`` (B, or 1 where all requests share a layout), ``row`` (N, what is given
to the network at once; a row is a token at a place).
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Self

import torch
from torch import Tensor

__all__ = ["CLEAN", "NOISY", "NOTHING", "Layout", "two_copies"]

NOISY, CLEAN = 0, 1
NOTHING = -1
"""Segment of rows that hold nothing, such as padding: nobody else reads them."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where rows belong, each field of shape (batch, row).

    Parameters
    ----------
    position : Tensor of int64
        Logical place in the sequence, whatever the order of the rows.
    group : Tensor of int64
        First position of the group of tokens that is generated together with this one:
        of its block, scale or window.
    segment : Tensor of int64
        Which sequence of a packed row it belongs to, ``NOTHING`` for padding.
    copy : Tensor of int64
        ``CLEAN`` tokens are what they are, ``NOISY`` ones are being generated.
    rank : Tensor of int64
        Physical order within the group.
    maskable : Tensor of bool
        Whether corruption may touch it; conditions and prompts are not.
    scored : Tensor of bool
        Whether its prediction counts.

    Examples
    --------
    >>> Layout.of(4, block=2).group
    tensor([[0, 0, 2, 2]])
    """

    position: Tensor
    group: Tensor
    segment: Tensor
    copy: Tensor
    rank: Tensor
    maskable: Tensor
    scored: Tensor

    @classmethod
    def of(
        cls,
        n: int,
        *,
        start: int = 0,
        block: int = 1,
        copy: int = CLEAN,
        device: torch.device | str = "cpu",
    ) -> Self:
        """Return the layout of so many places in order, in blocks, for one batch.

        Parameters
        ----------
        n : int
            Rows.
        start : int, default=0
            Position of the first one.
        block : int, default=1
            Tokens that are generated together.
        copy : {CLEAN, NOISY}, default=CLEAN
            What they are.
        device : torch.device or str, default="cpu"
            Where the layout is kept.
        """
        position = torch.arange(start, start + n, device=device).unsqueeze(0)
        group = position.div(block, rounding_mode="floor") * block
        return cls.at(position, group=group, copy=copy)

    @classmethod
    def at(
        cls,
        position: Tensor,
        *,
        group: Tensor | None = None,
        copy: int | Tensor = CLEAN,
        rank: Tensor | None = None,
        is_row: Tensor | None = None,
    ) -> Self:
        """Return the layout of rows at given positions.

        Parameters
        ----------
        position : Tensor of int64, shape (batch, row)
            Where they are.
        group : Tensor of int64, optional
            First positions of their groups; their own by default.
        copy : {CLEAN, NOISY} or Tensor of int64, default=CLEAN
            What they are.
        rank : Tensor of int64, optional
            Physical order; by default that of the positions in the group.
        is_row : Tensor of bool, optional
            False at padding.
        """
        group = position if group is None else group.expand_as(position)
        yes = torch.ones_like(position, dtype=torch.bool)
        segment = torch.zeros_like(position)
        if is_row is not None:
            segment = segment.where(is_row, NOTHING)
        if not isinstance(copy, Tensor):
            copy = torch.full_like(position, copy)
        return cls(
            position=position,
            group=group,
            segment=segment,
            copy=copy.expand_as(position),
            rank=position - group if rank is None else rank,
            maskable=yes,
            scored=yes,
        )

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return self.position.shape[1]

    def map(self, change: Callable[[Tensor], Tensor]) -> Self:
        """Change every field alike."""
        return replace(
            self, **{one.name: change(getattr(self, one.name)) for one in fields(self)}
        )

    def expand(self, n_batch: int) -> Self:
        """Repeat a layout that all requests share."""
        return self.map(lambda one: one.expand(n_batch, -1))

    def take(self, rows: Tensor) -> Self:
        """Choose rows (batch, kept), other ones for each request."""
        n_batch = rows.shape[0]
        return self.map(lambda one: one.expand(n_batch, -1).gather(1, rows))

    def requests(self, items: Tensor) -> Self:
        """Keep the requests at some places of the batch, in their new order."""
        return self.map(lambda one: one[items] if one.shape[0] > 1 else one)

    def followed_by(self, other: "Layout") -> Self:
        """Put the rows of another layout behind these."""
        n_batch = max(len(self.position), len(other.position))
        mine, theirs = self.expand(n_batch), other.expand(n_batch)
        return replace(
            self,
            **{
                one.name: torch.cat(
                    [getattr(mine, one.name), getattr(theirs, one.name)], dim=1
                )
                for one in fields(self)
            },
        )


def two_copies(clean: Layout) -> Layout:
    """Return a noisy copy of all rows, which is scored, and the clean one behind it.

    Both have the same positions and groups.

    Parameters
    ----------
    clean : Layout
        Of the sequence.

    Examples
    --------
    >>> two_copies(Layout.of(2)).copy
    tensor([[0, 0, 1, 1]])
    """
    noisy = replace(clean, copy=torch.full_like(clean.copy, NOISY))
    is_scored = torch.zeros_like(clean.scored)
    behind = replace(clean, maskable=is_scored, scored=is_scored)
    return noisy.followed_by(behind)
