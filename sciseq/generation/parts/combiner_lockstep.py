r"""Combiner sequences that are all at the same position, token by token.

Axes: ``batch`` (B), ``row`` (N), ``head`` (h), ``slot`` (of a layer's room), ``width``
(d, of one head).

The loop of :mod:`~sciseq.generation.parts.lockstep`, and layers that remember less:
the rows of the span that is under way, and the summaries of those before it. Both lie
side by side, so that a row reads one piece of memory.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from sciseq.generation.parts.combiner_attention import combiner_attention
from sciseq.generation.parts.combiner_backbone import CombinerTransformer
from sciseq.generation.parts.combiner_plans import Heads, summarize_spans
from sciseq.generation.parts.drawing import Drawing
from sciseq.generation.parts.layout import Layout
from sciseq.generation.parts.lockstep import (
    GenerationInStep,
    LayerRows,
    StoredRows,
    attend_stored,
    turns,
)
from sciseq.generation.parts.network import SequenceNetwork
from sciseq.generation.parts.requests import Requests, Work

__all__ = ["generate_spans_in_step"]


def generate_spans_in_step(
    network: SequenceNetwork, drawing: Drawing, requests: Requests
) -> tuple[Tensor, Work]:
    r"""Fill all gaps from left to right, each row at :math:`O(s + L / s)` in a layer.

    Parameters
    ----------
    network : SequenceNetwork
        In evaluation mode, with a :class:`CombinerTransformer` of plan ``"fixed"``.
    drawing : Drawing
        How tokens are drawn.
    requests : Requests
        What; they are used up.

    Returns
    -------
    tokens : Tensor of int64, shape (batch, position)
        Without gaps.
    work : Work
        What it took, for each request.
    """
    backbone = network.backbone
    assert isinstance(backbone, CombinerTransformer) and backbone.plan == ("fixed",)
    with torch.no_grad():
        # The loop draws, embeds and scores as that of a plain transformer.
        return _Generation(network, backbone, drawing, requests).run()


class _Generation(GenerationInStep):
    def __init__(
        self,
        network: SequenceNetwork,
        backbone: CombinerTransformer,
        drawing: Drawing,
        requests: Requests,
    ) -> None:
        self._combiner = backbone
        super().__init__(network, backbone.transformer, drawing, requests)

    def in_places(self, x: Tensor, layout: Layout) -> tuple[Tensor, Layout]:
        """Make one place of all rows of a condition, which is always read."""
        x, layout = self._combiner.in_places(x, layout)
        return x, replace(layout, segment=torch.zeros_like(layout.segment))

    def make_rows(self, n_batch: int, capacity: int) -> StoredRows:
        """Return the room for so many requests and rows."""
        return _SpanRows(self.backbone, n_batch, capacity, self._combiner.span)


class _SpanRows(StoredRows):
    def __init__(self, backbone: Any, n_batch: int, capacity: int, span: int) -> None:
        self.backbone, self.n_stored = backbone, 0
        like = backbone.symbols
        n_slots = min(span, capacity) + capacity // span
        shape = (3, n_batch, backbone.n_heads, n_slots, backbone.width)
        self._layers = [
            _SpanLayer(one, like.new_empty(shape), span, min(span, capacity))
            for one in backbone.layers
        ]

    def begin(self, x: Tensor, layout: Layout) -> Tensor:
        """Read what comes first, and return the scores of its last row."""
        turn = turns(layout.position, self.backbone.width, x.dtype)
        return self.read(x, turn, None)


class _SpanLayer(LayerRows):
    """A layer, and the room (3, batch, head, slot, width) of queries, keys, values.

    First come the rows of the span under way, from the last to the first, so that what
    is there ends where the summaries begin. A room that no span fills is shorter.
    """

    def __init__(self, layer: Any, room: Tensor, span: int, size: int) -> None:
        super().__init__(layer, room)
        self._span, self._size = span, size

    def find(
        self, heads: Tensor, place: tuple[int, int], mask: Tensor | None
    ) -> Tensor:
        """Read all rows that come first, or the next one."""
        return self._first(heads) if place[0] == 0 else self._next(heads, place[0])

    def _next(self, heads: Tensor, place: int) -> Tensor:
        n_complete, number = divmod(place, self._span)
        first = self._size - 1 - number
        self.room[:, :, :, first : first + 1] = heads
        read = self.room[1:, :, :, first : self._size + n_complete]
        found = attend_stored(heads[0], read, None)
        if number == self._span - 1:
            self._complete(self.room[:, :, :, : self._span], n_complete)
        return found

    def _first(self, heads: Tensor) -> Tensor:
        q, k, v = heads
        n_rows, width = q.shape[2:]
        n_complete, n_left = divmod(n_rows, self._span)
        n_inside = n_complete * self._span
        if n_complete:
            self._complete(heads[:, :, :, :n_inside], 0)
        self.room[:, :, :, self._size - n_left : self._size] = heads[
            :, :, :, n_inside:
        ].flip(3)
        # Queries have been scaled already.
        found = combiner_attention(q * width**0.5, k, v, span=self._span, causal=True)
        return found.transpose(1, 2).flatten(2)

    def _complete(self, heads: Tensor, number: int) -> None:
        """Write the summaries of whole spans to their place behind so many others."""
        _, n_batch, n_heads, n_rows, width = heads.shape
        n_spans = n_rows // self._span
        q, k, v = heads.reshape(3, -1, n_spans, self._span, width)
        is_real = torch.ones(n_spans, self._span, dtype=torch.bool, device=q.device)
        found = summarize_spans(Heads(q * width**0.5, k, v), is_real)
        first = self._size + number
        for room, one in zip(self.room[1:], found, strict=True):
            room[:, :, first : first + n_spans] = one.view(n_batch, n_heads, -1, width)
