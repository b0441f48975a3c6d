r"""A causal transformer whose tokens read the far ones through summaries of spans.

Axes: ``batch`` (B), ``row`` (N, new in a pass), ``key`` (rows that are read, stored and
new), ``place`` (in the order of the sequence: the condition, the begin, the tokens),
``head`` (h), ``width`` (d, of one head), ``token`` (V).
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from sciseq.errors import CapabilityError
from sciseq.generation.parts.backbone import TokenTransformer, rotated, rotation
from sciseq.generation.parts.cache import KeyValueCache
from sciseq.generation.parts.combiner_attention import (
    check_plan,
    check_span,
    combiner_attention,
    default_span,
)
from sciseq.generation.parts.combiner_cached import SpanReader, packed, unpacked
from sciseq.generation.parts.combiner_plans import Heads
from sciseq.generation.parts.layout import NOTHING, Layout
from sciseq.generation.parts.masks import Rule, causal
from sciseq.generation.parts.network import Backbone, mean_of_rows

__all__ = ["CombinerTransformer"]


class CombinerTransformer(Backbone):
    r"""The transformer of all methods, with Combiner attention in its layers.

    Its weights are those of a :class:`TokenTransformer`, and when the span holds the
    whole sequence, or one token, it computes the same as that under the causal rule.

    Parameters
    ----------
    n_tokens, n_positions, d_model, d_ff, n_layers, n_heads, dropout
        As of :class:`TokenTransformer`.
    plan : str or sequence of str, default="fixed"
        As of :func:`combiner_attention`.
    span : int, optional
        Length of a span; by default the square root of the longest sequence, rounded
        up. It does not change with the sequence, so that a state depends on what stands
        before it alone.

    Raises
    ------
    InputError
        When a size, the plan or the span is out of range.

    Notes
    -----
    Queries and keys are rotated by their positions before the maxima over a span are
    taken. The rows of a condition are in no order, so that no span can hold them: their
    mean stands before the begin instead (the same where a condition has one row).

    What is cached is exact. With the plan ``"fixed"`` alone a new row reads its own
    span and the summaries of those before it, made once and cached: :math:`O(s + L /
    s)` in each layer. With other plans, or several, the cache holds queries, keys and
    values, and what all rows so far read is computed anew in every pass, at the cost
    of attention to the whole sequence; all else is not.

    Card: sequences §13.

    Examples
    --------
    >>> import torch
    >>> from sciseq.nn import build_network
    >>> network = build_network(
    ...     lambda: CombinerTransformer(4, 9, 8, 16, 1, 2, 0.0, span=3),
    ...     torch.Generator().manual_seed(0),
    ... )
    >>> layout = Layout.of(5)
    >>> x = network.embed(torch.zeros(2, 5, dtype=torch.int64), layout)
    >>> network.scores(network(x, layout, causal)).shape
    torch.Size([2, 5, 4])
    """

    def __init__(
        self,
        n_tokens: int,
        n_positions: int,
        d_model: int,
        d_ff: int,
        n_layers: int,
        n_heads: int,
        dropout: float,
        plan: str | Sequence[str] = "fixed",
        span: int | None = None,
    ) -> None:
        super().__init__(n_tokens)
        self.transformer = TokenTransformer(
            n_tokens, n_positions, d_model, d_ff, n_layers, n_heads, dropout
        )
        self.plan = check_plan(plan)
        n_places = n_positions + 1  # the begin
        # Not check_span's result: with a condition there is one place more.
        check_span(span, n_places)
        self.span = default_span(n_places) if span is None else span

    def embed(self, tokens: Tensor, layout: Layout) -> Tensor:
        """Return what stands for symbols (batch, row) at their positions."""
        return self.transformer.embed(tokens, layout)

    def in_places(self, x: Tensor, layout: Layout) -> tuple[Tensor, Layout]:
        """Return rows (batch, place, d_model), of a condition one, and their layout.

        Parameters
        ----------
        x : Tensor, shape (batch, row, d_model)
            Embedded rows, those of a condition first.
        layout : Layout
            Where they belong; nothing else is padded.
        """
        n_more = max(int((layout.position[0] < -1).sum()) - 1, 0)
        x = _with_one_condition(x, layout)[:, n_more:]
        return x, layout.map(lambda one: one[:, n_more:])

    def scores(self, states: Tensor) -> Tensor:
        """Return scores of tokens (batch, row, token): neither mask nor begin."""
        return self.transformer.scores(states)

    def forward(
        self,
        x: Tensor,
        layout: Layout,
        rule: Rule,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        """Let rows read what stands before them, stored or new.

        Parameters
        ----------
        x : Tensor, shape (batch, row, d_model)
            Embedded rows: of a condition, all or none.
        layout : Layout
            Where they belong; no two at one position but those of the condition.
        rule : callable
            :func:`~sciseq.generation.parts.masks.causal`.
        cache : KeyValueCache, optional
            Rows of earlier passes. The new ones are left there, to be stored.

        Returns
        -------
        Tensor, shape (batch, row, d_model)
            States, normalised.

        Raises
        ------
        CapabilityError
            For another rule.
        """
        if rule is not causal:
            raise CapabilityError(
                "Combiner attention over sequences is causal only",
                where="CombinerTransformer",
                hint="Use a TokenTransformer for other masks.",
            )
        read = self._reader(layout, cache)
        x = _with_one_condition(x, layout)
        turn = rotation(layout.position, self.transformer.width, x.dtype)
        layers: Any = self.transformer.layers
        for number, layer in enumerate(layers):
            y = read(number, _heads(layer, x, turn))
            y = y.transpose(1, 2).reshape(x.shape)
            x = x + layer.dropout(layer.out(y))
            x = x + layer.feed_forward(layer.norm2(x))
        states: Tensor = self.transformer.norm(x)
        return states

    def _reader(
        self, layout: Layout, cache: KeyValueCache | None
    ) -> Callable[[int, Heads], Tensor]:
        """Return what tells the new rows of a layer what they find."""
        keys = layout if cache is None else cache.begin(layout)
        # Without a begin there is a place that nothing stands at.
        if cache is not None and self.plan == ("fixed",) and cache.n_prefix:
            places, n_places = _places(layout, int(cache.n_prefix > 1))
            return SpanReader(cache, places, n_places, self.span)
        places, n_places = _places(keys, int(bool(keys.position[0, 0] < -1)))

        def read(layer: int, x: Heads) -> Tensor:
            n_rows = x.q.shape[2]
            if cache is not None:
                x = unpacked(*cache.read(layer, *packed(x)))
            return self._attend(torch.cat(x, dim=-1), places, n_places, n_rows)

        return read

    def _attend(
        self, read: Tensor, places: Tensor, n_places: int, n_rows: int
    ) -> Tensor:
        """Return what the last rows find among all (batch, head, key, 3 width)."""
        n_batch, n_heads, n_keys, _ = read.shape
        index = places.expand(n_batch, -1).view(n_batch, 1, n_keys, 1)
        # What has no place goes behind all others.
        room = read.new_zeros(n_batch, n_heads, n_places + 1, read.shape[3])
        ordered = room.scatter(2, index.expand_as(read), read)[:, :, :n_places]
        q, k, v = ordered.chunk(3, dim=-1)
        found = combiner_attention(q, k, v, plan=self.plan, span=self.span, causal=True)
        own = index[:, :, -n_rows:].clamp_max(n_places - 1)
        return found.gather(2, own.expand(-1, n_heads, -1, found.shape[3]))


def _places(rows: Layout, n_told: int) -> tuple[Tensor, int]:
    """Return the places of rows (batch, row), and a number above them.

    All rows of a condition are one place, if there are any (``n_told`` 1). Rows that
    hold nothing have the place behind all others.
    """
    is_told = rows.position < -1
    place = (rows.position + 1 + n_told).where(~is_told, 0)
    number = torch.arange(rows.n_rows, device=place.device)
    is_hidden = torch.where(is_told, number > 0, rows.segment == NOTHING)
    n_places = 1 + int(place.where(~is_hidden, 0).max())
    return place.where(~is_hidden, n_places), n_places


def _with_one_condition(x: Tensor, layout: Layout) -> Tensor:
    """Give all rows of the condition, which come first, their mean."""
    n_told = int((layout.position[0] < -1).sum())
    if not n_told:
        return x
    is_row = (layout.segment[:, :n_told] != NOTHING).expand(len(x), -1)
    mean = mean_of_rows(x[:, :n_told], is_row)
    return torch.cat([mean.unsqueeze(1).expand(-1, n_told, -1), x[:, n_told:]], dim=1)


def _heads(layer: Any, x: Tensor, turn: tuple[Tensor, Tensor]) -> Heads:
    """Return queries, keys and values of rows, each (batch, head, row, width)."""
    n_batch, n_rows, _ = x.shape
    heads = layer.qkv(layer.norm1(x)).view(n_batch, n_rows, 3, layer.n_heads, -1)
    q, k, v = heads.permute(2, 0, 3, 1, 4).unbind()
    return Heads(rotated(q, turn), rotated(k, turn), v)
