"""A gated recurrence that reads conditions and inputs as a prefix, and writes labels.

Axes: ``batch`` (B), ``row`` (N, of a pass: conditions, inputs, BEGIN, labels),
``d_model`` (D), ``label`` (what may be predicted), ``token`` (V of them, those of
sequences).

A row of the prefix has a position below -1, BEGIN has -1, labels count from 0. Nothing
but this and the segments of packed rows says where states go on.
"""

from typing import cast

import torch
from torch import Tensor, nn

from sciseq.errors import CapabilityError
from sciseq.generation.parts.cache import KeyValueCache
from sciseq.generation.parts.gated_recurrence import GatedRecurrence, RecurrentState
from sciseq.generation.parts.layout import Layout
from sciseq.generation.parts.linear_recurrence import StateCarry, state_carry
from sciseq.generation.parts.masks import Rule, causal
from sciseq.generation.parts.network import Backbone, Condition, SequenceNetwork
from sciseq.generation.parts.recall_objectives import RecallVocabulary
from sciseq.nn.dropout import Dropout

__all__ = ["PrefixNetwork", "PrefixRecurrence", "layout_carry", "row_layout"]

_SCALE = 0.02  # of embeddings at the start


def layout_carry(layout: Layout) -> StateCarry:
    """Say where states go on: right to left before BEGIN, never between segments.

    Parameters
    ----------
    layout : Layout
        Of rows in the order in which they are read.

    Examples
    --------
    >>> layout_carry(Layout.of(4, start=-3)).backward.int().tolist()
    [[1, 1, 0, 0]]
    """
    return state_carry(layout.position < -1, layout.segment)


def row_layout(in_prefix: Tensor) -> Layout:
    """Return the layout of rows that hold [inputs | BEGIN | labels].

    Parameters
    ----------
    in_prefix : Tensor of bool, shape (batch, row)
        True at inputs, which come first.

    Examples
    --------
    >>> row_layout(torch.tensor([[True, True, False, False]])).position.tolist()
    [[-3, -2, -1, 0]]
    """
    place = torch.arange(in_prefix.shape[1], device=in_prefix.device)
    return Layout.at(place - in_prefix.sum(dim=1, keepdim=True) - 1)


class PrefixRecurrence(Backbone):
    """A :class:`GatedRecurrence` over embedded symbols, with scores of labels.

    Parameters
    ----------
    n_tokens : int
        Tokens V of sequences. What else stands in rows is listed by
        :class:`RecallVocabulary`.
    d_model, d_ff, n_layers : int
        Sizes.
    dropout : float
        Probability of every dropout.
    d_state : int, optional
        Width of the states; ``d_model`` when None.
    kind : str, default "gated_ssm"
        Which recurrence.
    prefix_bidirectional : bool, default True
        Let every second layer read the prefix in both directions.

    Notes
    -----
    Labels are the tokens, DONE and the separator, in this order. There are no
    embeddings of positions: the order is that of the rows.

    Examples
    --------
    >>> from sciseq.nn import build_network
    >>> backbone = build_network(
    ...     lambda: PrefixRecurrence(4, 8, 16, 2, 0.0), torch.Generator().manual_seed(0)
    ... )
    >>> layout = Layout.of(5, start=-3)
    >>> x = backbone.embed(torch.zeros(2, 5, dtype=torch.int64), layout)
    >>> states = backbone(x, layout, causal)
    >>> backbone.scores(states).shape, backbone.label_scores(states).shape
    (torch.Size([2, 5, 4]), torch.Size([2, 5, 6]))
    """

    def __init__(
        self,
        n_tokens: int,
        d_model: int,
        d_ff: int,
        n_layers: int,
        dropout: float,
        *,
        d_state: int | None = None,
        kind: str = "gated_ssm",
        prefix_bidirectional: bool = True,
    ) -> None:
        super().__init__(n_tokens)
        self.vocabulary = RecallVocabulary(n_tokens)
        self.mask = self.vocabulary.mask
        self.symbols = nn.Parameter(torch.empty(self.vocabulary.size, d_model))
        self.recurrence = GatedRecurrence(
            n_layers, d_model, d_state, d_ff, kind=kind, dropout=dropout,
            prefix_bidirectional=prefix_bidirectional,
        )  # fmt: skip
        self.head = nn.Linear(d_model, n_tokens + 2)
        self.dropout = Dropout(dropout)

    def initialize_parameters(self, generator: torch.Generator) -> None:
        """Draw the embeddings.

        Parameters
        ----------
        generator : torch.Generator
            Source of all numbers.
        """
        nn.init.normal_(self.symbols, std=_SCALE, generator=generator)

    def embed(self, tokens: Tensor, layout: Layout | None = None) -> Tensor:
        """Return what stands for symbols, wherever they stand."""
        x: Tensor = self.dropout(self.symbols[tokens])
        return x

    def forward(
        self,
        x: Tensor,
        layout: Layout,
        rule: Rule,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        """Return the states (batch, row, d_model) of embedded rows.

        Parameters
        ----------
        x : Tensor, shape (batch, row, d_model)
            Rows in order.
        layout : Layout
            Of them.
        rule : callable
            :func:`~sciseq.generation.parts.masks.causal`, which the prefix exceeds.
        cache : None
            States are kept by :meth:`PrefixNetwork.prefill`.

        Raises
        ------
        CapabilityError
            For another rule, or a cache.
        """
        if rule is not causal or cache is not None:
            raise CapabilityError(
                "a recurrence reads rows in order, and keeps states, not keys",
                where="PrefixRecurrence",
                hint="Use a TokenTransformer for other masks and for caches.",
            )
        states: Tensor = self.recurrence(x, layout_carry(layout))
        return states

    def scores(self, states: Tensor) -> Tensor:
        """Return the scores of tokens of sequences (batch, row, token)."""
        return self.label_scores(states)[..., : self.n_tokens]

    def label_scores(self, states: Tensor) -> Tensor:
        """Return the scores of all labels, the last axis of ``states`` replaced."""
        scores: Tensor = self.head(states)
        return scores

    def label_number(self, symbols: Tensor) -> Tensor:
        """Return the places of symbols among the labels: BEGIN is none of them."""
        return symbols - (symbols > self.begin).long()


class PrefixNetwork(SequenceNetwork):
    """Conditions and inputs before BEGIN, labels behind it.

    Parameters
    ----------
    backbone : PrefixRecurrence
        What reads them.
    d_model : int
        Width of a row.
    n_features : int, default=0
        Numbers in a row of the condition; 0 for no condition.
    evaluations : (int, int), default=(0, 0)
        Shape of ``evaluations``.

    Attributes
    ----------
    evaluations : Tensor, shape (evaluation, configuration)
        Losses that a mixture's controller was told, 0 where there was none yet. They
        are part of the network, so that a run resumed from a checkpoint knows them.

    Notes
    -----
    Several rows of a condition are read in their order; padding stands before them.
    """

    def __init__(
        self,
        backbone: PrefixRecurrence,
        d_model: int,
        n_features: int = 0,
        evaluations: tuple[int, int] = (0, 0),
    ) -> None:
        super().__init__(backbone, d_model, n_features)
        self.evaluations: Tensor
        self.register_buffer("evaluations", torch.empty(evaluations))

    def initialize_parameters(self, generator: torch.Generator) -> None:
        """Forget all evaluations.

        Parameters
        ----------
        generator : torch.Generator
            Not used.
        """
        self.evaluations.zero_()

    @property
    def recurrent(self) -> PrefixRecurrence:
        """The backbone."""
        return cast(PrefixRecurrence, self.backbone)

    def prefix(
        self, n_batch: int, condition: Condition | None
    ) -> tuple[Tensor, Layout]:
        """Return condition, the paradigm of next tokens and BEGIN, and their layout.

        Parameters
        ----------
        n_batch : int
            Sequences.
        condition : Condition or None
            Theirs.
        """
        words, device = self.recurrent.vocabulary, self.recurrent.symbols.device
        opening = [[words.paradigm("next_token"), words.begin]]
        tokens = torch.tensor(opening, device=device).expand(n_batch, -1)
        return self.rows(tokens, tokens != words.begin, condition)

    def rows(
        self, tokens: Tensor, in_prefix: Tensor, condition: Condition | None
    ) -> tuple[Tensor, Layout]:
        """Return embedded rows behind those of the condition, and their layout.

        Parameters
        ----------
        tokens : Tensor of int64, shape (batch, row)
            [inputs | BEGIN | labels], with anything behind them.
        in_prefix : Tensor of bool, shape (batch or 1, row)
            True at inputs.
        condition : Condition or None
            Of the sequences.
        """
        x, layout = self.recurrent.embed(tokens), row_layout(in_prefix)
        if condition is None or self.condition1 is None:
            return x, layout
        # Padding in between would cut the flow of states: it goes to the front.
        order = condition.is_row.to(torch.uint8).argsort(dim=1, stable=True)
        wide = order.unsqueeze(2).expand(-1, -1, condition.rows.shape[2])
        ordered = Condition(
            condition.rows.gather(1, wide), condition.is_row.gather(1, order)
        )
        told, before = super().prefix(len(tokens), ordered)
        before = before.map(lambda one: one[:, :-1])  # without the begin
        return torch.cat([told[:, :-1], x], dim=1), before.followed_by(layout)

    def label_states(
        self, tokens: Tensor, in_prefix: Tensor, condition: Condition | None
    ) -> Tensor:
        """Return the states (batch, row, d_model) of all tokens.

        Parameters are those of :meth:`rows`.
        """
        x, layout = self.rows(tokens, in_prefix, condition)
        states: Tensor = self(x, layout, causal)
        return states[:, -tokens.shape[1] :]

    def prefill(
        self,
        tokens: Tensor,
        in_prefix: Tensor,
        n_rows: Tensor,
        condition: Condition | None,
    ) -> tuple[Tensor, RecurrentState]:
        """Read prompts, and remember what their next tokens need.

        Parameters
        ----------
        tokens, in_prefix, condition
            As in :meth:`rows`.
        n_rows : Tensor of int64, shape (batch,)
            Tokens of each prompt, BEGIN included.

        Returns
        -------
        scores : Tensor, shape (batch, token)
            Of the next token of each.
        state : RecurrentState
            What :meth:`step` goes on from.
        """
        x, layout = self.rows(tokens, in_prefix, condition)
        last = x.shape[1] - tokens.shape[1] + n_rows - 1
        carry = layout_carry(layout)
        states, state = self.recurrent.recurrence.prefill(x, carry, last)
        return self.scores(states), state

    def step(
        self, tokens: Tensor, state: RecurrentState
    ) -> tuple[Tensor, RecurrentState]:
        """Read one more label (batch,) of each; return as :meth:`prefill` does."""
        x = self.recurrent.embed(tokens)
        states, state = self.recurrent.recurrence.step(x, state)
        return self.scores(states), state
