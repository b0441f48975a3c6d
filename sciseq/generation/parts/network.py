"""A network for sequences: conditions before the begin, then tokens.

Axes: ``batch`` (B), ``row`` (N), ``feature`` (of a condition), ``d_model`` (D).
"""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sciseq.generation.parts.cache import KeyValueCache
from sciseq.generation.parts.layout import NOTHING, Layout
from sciseq.generation.parts.masks import Rule

__all__ = ["Backbone", "Condition", "SequenceNetwork", "mean_of_rows"]


class Backbone(nn.Module, ABC):
    """What turns embedded rows into states, and states into scores of tokens.

    Parameters
    ----------
    n_tokens : int
        Tokens V that may be predicted.

    Attributes
    ----------
    begin, mask : int
        The two symbols that are never predicted, V and V + 1.
    """

    def __init__(self, n_tokens: int) -> None:
        super().__init__()
        self.n_tokens, self.begin, self.mask = n_tokens, n_tokens, n_tokens + 1

    @abstractmethod
    def embed(self, tokens: Tensor, layout: Layout) -> Tensor:
        """Return what stands for symbols (batch, row) at their positions."""

    @abstractmethod
    def forward(
        self,
        x: Tensor,
        layout: Layout,
        rule: Rule,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        """Return the states (batch, row, d_model) of embedded rows."""

    @abstractmethod
    def scores(self, states: Tensor) -> Tensor:
        """Return scores of tokens (batch, row, token): neither mask nor begin."""


class Condition(NamedTuple):
    """What sequences are generated for: a class, numbers, or a set of rows of numbers.

    Parameters
    ----------
    rows : Tensor, shape (batch, row, feature)
        Classes as indicators, one row.
    is_row : Tensor of bool, shape (batch, row)
        False at padding.
    """

    rows: Tensor
    is_row: Tensor

    def take(self, items: Tensor) -> "Condition":
        """Choose some of the batch."""
        return Condition(self.rows[items], self.is_row[items])


class SequenceNetwork(nn.Module):
    """A backbone, and what tells it the condition.

    Parameters
    ----------
    backbone : Backbone
        As :class:`~sciseq.generation.parts.backbone.TokenTransformer`.
    d_model : int
        Width of a row.
    n_features : int, default=0
        Numbers in a row of the condition; 0 for no condition.

    Notes
    -----
    Rows of the condition stand at position -2, in no order, and the begin at -1.
    """

    def __init__(self, backbone: Backbone, d_model: int, n_features: int = 0) -> None:
        super().__init__()
        self.backbone = backbone
        self.condition1 = nn.Linear(n_features, d_model) if n_features else None
        self.condition2 = nn.Linear(d_model, d_model) if n_features else None

    @property
    def mask(self) -> int:
        """Symbol that stands where nothing is known."""
        return self.backbone.mask

    def prefix(
        self, n_batch: int, condition: Condition | None
    ) -> tuple[Tensor, Layout]:
        """Return the embedded condition and begin, and their layout.

        Parameters
        ----------
        n_batch : int
            Requests.
        condition : Condition or None
            Theirs.
        """
        device = next(self.parameters()).device
        layout = Layout.of(1, start=-1, device=device)
        no = torch.zeros_like(layout.maskable)
        layout = Layout(**{**vars(layout), "maskable": no, "scored": no})
        begin = torch.full((n_batch, 1), self.backbone.begin, device=device)
        x = self.backbone.embed(begin, layout)
        if condition is None or self.condition1 is None:
            return x, layout
        assert self.condition2 is not None
        rows = condition.rows.to(x.dtype)
        told = self.condition2(F.gelu(self.condition1(rows)))
        before = layout.expand(n_batch).map(
            lambda one: one.expand(-1, told.shape[1]).clone()
        )
        before.position.fill_(-2)
        before.group.fill_(-2)
        before.segment.masked_fill_(~condition.is_row, NOTHING)
        return torch.cat([told, x], dim=1), before.followed_by(layout)

    def embed(self, tokens: Tensor, layout: Layout) -> Tensor:
        """Return what stands for symbols (batch, row)."""
        return self.backbone.embed(tokens, layout)

    def forward(
        self,
        x: Tensor,
        layout: Layout,
        rule: Rule,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        """Return the states (batch, row, d_model) of embedded rows."""
        states: Tensor = self.backbone(x, layout, rule, cache)
        return states

    def scores(self, states: Tensor) -> Tensor:
        """Return the scores of tokens (batch, row, token)."""
        return self.backbone.scores(states)

    def read(
        self, tokens: Tensor, layout: Layout, rule: Rule, condition: Condition | None
    ) -> Tensor:
        """Return the states of symbols (batch, row) behind the prefix, without it.

        The first of them is that of the begin: it stands one place before the rows.

        Parameters
        ----------
        tokens : Tensor of int64, shape (batch, row)
            Symbols.
        layout : Layout
            Of them.
        rule : callable
            Who reads whom.
        condition : Condition or None
            Of the sequences.

        Returns
        -------
        Tensor, shape (batch, 1 + row, d_model)
            States.
        """
        x, before = self.prefix(len(tokens), condition)
        x = torch.cat([x, self.embed(tokens, layout)], dim=1)
        states: Tensor = self(x, before.followed_by(layout), rule)
        return states[:, before.n_rows - 1 :]


def mean_of_rows(x: Tensor, is_row: Tensor) -> Tensor:
    """Return the mean of rows that are none of the padding, (batch, d_model).

    Parameters
    ----------
    x : Tensor, shape (batch, row, d_model)
        Rows in no order.
    is_row : Tensor of bool, shape (batch, row)
        False at padding; without any row the mean is 0.

    Examples
    --------
    >>> import torch
    >>> x = torch.tensor([[[1.0], [3.0], [9.0]]])
    >>> mean_of_rows(x, torch.tensor([[True, True, False]]))
    tensor([[2.]])
    """
    total = x.masked_fill(~is_row.unsqueeze(2), 0.0).sum(dim=1)
    return total / is_row.sum(dim=1, keepdim=True).clamp_min(1).to(x.dtype)
