"""Autoregressive generation of requests that are all at the same position.

Axes: ``batch`` (B), ``row``, ``head`` (h), ``position`` (L), ``width`` (d), ``token``
(V).

What :class:`~sciseq.generation.parts.requests.Decoder` does for requests at places of
their own costs more than the network itself, where a pass is one token. Here requests
go in step, and a pass is the bare arithmetic of the transformer. What all of them give
at the start is read at once, and once for those that give the same; other given tokens
are read like drawn ones. The results are the same.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sciseq.generation.parts.backbone import TokenTransformer, rotation
from sciseq.generation.parts.drawing import Drawing
from sciseq.generation.parts.layout import NOTHING, Layout
from sciseq.generation.parts.masks import attention_mask, causal
from sciseq.generation.parts.network import SequenceNetwork
from sciseq.generation.parts.noise import gumbel
from sciseq.generation.parts.requests import Requests, Work, is_counted

__all__ = [
    "GenerationInStep",
    "LayerRows",
    "StoredRows",
    "attend_stored",
    "generate_in_step",
    "turns",
]

_NOISE_TOGETHER = 32  # positions whose noise is made at once


class StoredRows:
    """A transformer's keys and values so far, and its next rows."""

    def __init__(self, backbone: TokenTransformer, n_batch: int, capacity: int) -> None:
        self.backbone, self.n_stored = backbone, 0
        like = backbone.symbols
        shape = (2, n_batch, backbone.n_heads, capacity, backbone.width)
        self._layers = [LayerRows(one, like.new_empty(shape))
                        for one in backbone.layers]  # fmt: skip

    def begin(self, x: Tensor, layout: Layout) -> Tensor:
        """Read what comes first, and return the scores of its last row."""
        mask = None if layout.n_rows == 1 else attention_mask(causal, layout)
        return self.read(x, turns(layout.position, self.backbone.width, x.dtype), mask)

    def read(self, x: Tensor, turn: Tensor, mask: Tensor | None) -> Tensor:
        """Return the scores of the last of new rows (batch, row, d_model)."""
        place = self.n_stored, self.n_stored + x.shape[1]
        for layer in self._layers:
            x = layer(x, turn, place, mask)
        self.n_stored = place[1]
        return self.backbone.scores(_normalised(self.backbone.norm, x[:, -1]))

    def keep(self, items: Tensor) -> None:
        """Drop all requests but these, which may be named more than once."""
        for one in self._layers:
            one.room = one.room.index_select(1, items)


class LayerRows:
    """A layer of the transformer, and the room (2, batch, head, position, width).

    The two numbers that are rotated together stand side by side, as a complex number,
    in queries and keys alike, and queries are scaled by their weights: fewer and
    larger steps, and the same products.
    """

    def __init__(self, layer: Any, room: Tensor) -> None:
        self.room, self.norm1, self.norm2 = room, layer.norm1, layer.norm2
        _, _, n_heads, _, width = room.shape
        self._pairs = n_heads, width // 2, 2
        shape = n_heads, 2, width // 2
        self.qkv = _Map(
            _arranged(layer.qkv.weight, (*shape, -1)), _arranged(layer.qkv.bias, shape)
        )
        inner = layer.feed_forward
        self.out, self.W1, self.W2 = (
            _Map(one.weight, one.bias) for one in (layer.out, inner.W1, inner.W2)
        )

    def __call__(
        self, x: Tensor, turn: Tensor, place: tuple[int, int], mask: Tensor | None
    ) -> Tensor:
        """Compute new rows, whose keys and values are written to their place."""
        n_batch, n_rows = x.shape[:2]
        heads = self.qkv(_normalised(self.norm1, x)).to(x.dtype)
        heads = heads.view(n_batch, n_rows, 3, *self._pairs)
        torch.view_as_complex(heads[:, :, :2]).mul_(turn)
        heads = heads.flatten(4).permute(2, 0, 3, 1, 4)  # (3, batch, head, row, width)
        x = x + self.out(self.find(heads, place, mask))
        return x + self.W2(F.gelu(self.W1(_normalised(self.norm2, x))))

    def find(
        self, heads: Tensor, place: tuple[int, int], mask: Tensor | None
    ) -> Tensor:
        """Store keys and values, and return what queries find (batch, row, d_model)."""
        first, end = place
        self.room[:, :, :, first:end] = heads[1:]
        return attend_stored(heads[0], self.room[:, :, :, :end], mask)


class _Map:
    """A linear map whose weights lie as few rows are multiplied fastest."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        device, dtype = weight.device.type, weight.dtype
        if torch.is_autocast_enabled(device):  # once, not in every pass
            dtype = torch.get_autocast_dtype(device)
        self.weight, self.bias = weight.to(dtype).t().contiguous(), bias.to(dtype)

    def __call__(self, x: Tensor) -> Tensor:
        y = torch.addmm(self.bias, x.flatten(0, 1), self.weight)
        return y.view(*x.shape[:2], -1)


def _arranged(weights: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Scale queries, and put the numbers that are rotated together side by side."""
    q, k, v = weights.chunk(3)
    width = 2 * shape[2]
    pairs = [one.view(shape).transpose(1, 2).reshape(one.shape)
             for one in (q * width**-0.5, k)]  # fmt: skip
    return torch.cat([*pairs, v])


def _normalised(norm: Any, x: Tensor) -> Tensor:
    found: Tensor = F.layer_norm(x, norm.normalized_shape, norm.weight, norm.bias)
    return found


def attend_stored(q: Tensor, room: Tensor, mask: Tensor | None) -> Tensor:
    """Let scaled queries read; return (batch, row, d_model)."""
    n_batch, n_heads, n_rows, width = q.shape
    keys, values = room.unbind()
    if n_rows > 1:
        y: Tensor = F.scaled_dot_product_attention(
            q, keys, values, attn_mask=mask, scale=1.0
        )
        return y.transpose(1, 2).reshape(n_batch, n_rows, -1)
    # One query is too little work for a fused kernel.
    keys, values = keys.flatten(0, 1), values.flatten(0, 1)  # (.., position, width)
    scores = torch.bmm(q.reshape(-1, 1, width), keys.mT)
    if mask is not None:
        table = scores.view(n_batch, n_heads, 1, -1)
        scores = table.masked_fill(~mask, -torch.inf).view_as(scores)
    return torch.bmm(scores.softmax(dim=-1), values).view(n_batch, 1, -1)


def _different(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Return the different rows of tokens, and which of them each row is."""
    if not tokens.shape[1]:
        return tokens[:1], torch.zeros_like(tokens.sum(dim=1))
    rows, which = torch.unique(tokens, dim=0, return_inverse=True)
    return rows, which


def turns(position: Tensor, width: int, dtype: torch.dtype) -> Tensor:
    """Return complex numbers (batch, row, 1, 1, pair) that rotate by positions."""
    cosine, sine = rotation(position, width, dtype)  # (batch, 1, row, width)
    half = width // 2
    found = torch.complex(cosine[..., :half], sine[..., half:])
    return found[:, 0, :, None, None]


def generate_in_step(
    network: SequenceNetwork, drawing: Drawing, requests: Requests
) -> tuple[Tensor, Work]:
    """Fill all gaps from left to right.

    Parameters
    ----------
    network : SequenceNetwork
        In evaluation mode, with a :class:`TokenTransformer`.
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
    assert isinstance(backbone, TokenTransformer)
    with torch.no_grad():
        return GenerationInStep(network, backbone, drawing, requests).run()


class GenerationInStep:
    """Requests in step: which are open, and what has become of all."""

    def __init__(
        self,
        network: SequenceNetwork,
        backbone: TokenTransformer,
        drawing: Drawing,
        requests: Requests,
    ) -> None:
        self.backbone, self.drawing, self.requests = backbone, drawing, requests
        self.tokens, self.work = requests.tokens.clone(), requests.work
        self._is_free = ~requests.is_filled
        requests.keep((~requests.is_filled.all(dim=1)).nonzero().flatten())
        if not len(requests):
            return
        length, is_filled = requests.n_positions, requests.is_filled
        self.n_given = int(is_filled.all(dim=0).long().cumprod(dim=0).sum())
        self._read_given(network)
        place = torch.arange(length, device=is_filled.device)
        dtype = backbone.symbols.dtype
        self._turns = turns(place.unsqueeze(0), backbone.width, dtype)
        self._is_given = is_filled.any(dim=0).tolist()
        self._last_gap = (~is_filled * place).amax(dim=1)
        self._ends = set(self._last_gap.tolist())

    def _read_given(self, network: SequenceNetwork) -> None:
        """Read conditions, begins and what all requests give at the start."""
        requests = self.requests
        given, which = requests.tokens[:, : self.n_given], None
        if requests.condition is None:
            given, which = _different(given)
        x, layout = network.prefix(len(given), requests.condition)
        self.n_before = layout.n_rows
        x, layout = self.in_places(x, layout)
        is_row = layout.expand(len(requests)).segment != NOTHING
        self.is_row = None if bool(is_row.all()) else is_row
        self.rows = self.make_rows(len(given), layout.n_rows + requests.n_positions)
        if self.n_given:
            behind = Layout.of(self.n_given, device=x.device)
            x = torch.cat([x, network.embed(given, behind)], dim=1)
            layout = layout.followed_by(behind)
        self.scores = self.rows.begin(x, layout)
        if which is not None:
            self.rows.keep(which)
            self.scores = self.scores[which]

    def in_places(self, x: Tensor, layout: Layout) -> tuple[Tensor, Layout]:
        """Return conditions and begins as they are read."""
        return x, layout

    def make_rows(self, n_batch: int, capacity: int) -> StoredRows:
        """Return the room for so many requests and rows."""
        return StoredRows(self.backbone, n_batch, capacity)

    def run(self) -> tuple[Tensor, Work]:
        """Go from position to position until every request is complete."""
        first = self.n_given if len(self.requests) else self.requests.n_positions
        for position in range(first, self.requests.n_positions):
            self._draw(position)
            if not self._goes_on(position):
                break
            self._read(position)
        counted = is_counted(self.tokens, self.requests.end)
        self.work.n_tokens = (self._is_free & counted).sum(dim=1)
        return self.tokens, self.work

    def _draw(self, position: int) -> None:
        requests = self.requests
        place = (position - self.n_given) % _NOISE_TOGETHER
        logs = self._logs(None if requests.allowed is None
                          else requests.allowed[:, position])  # fmt: skip
        if self.drawing.temperature:
            if place == 0:
                self._noise = self._noise_from(position)
            logs = logs + self._noise[:, place]
        drawn = logs.argmax(dim=-1)
        if self._is_given[position]:
            is_given = requests.is_filled[:, position]
            drawn = requests.tokens[:, position].where(is_given, drawn)
        requests.tokens[:, position] = drawn

    def _logs(self, allowed: Tensor | None) -> Tensor:
        """Log-probabilities that noise is added to, up to a constant."""
        drawing, scores = self.drawing, self.scores
        if drawing.top_k is not None or drawing.top_p < 1:
            return drawing.law(scores, allowed)
        if allowed is not None:
            scores = scores.masked_fill(~allowed, -torch.inf)
        scores = scores.double()
        return scores if drawing.temperature in (0, 1) else scores / drawing.temperature

    def _noise_from(self, position: int) -> Tensor:
        """Make the noise of the next positions (batch, place, token)."""
        end = min(position + _NOISE_TOGETHER, self.requests.n_positions)
        device = self.requests.seeds.device
        place = torch.arange(position, end, device=device).view(1, -1, 1)
        token = torch.arange(self.backbone.n_tokens, device=device).view(1, 1, -1)
        return gumbel(self.requests.seeds, 0, place, token)

    def _goes_on(self, position: int) -> bool:
        """Take complete requests out; tell whether any is left."""
        requests = self.requests
        if requests.end is None:
            if position not in self._ends:
                return True
            done = self._last_gap == position
        else:
            done = self._last_gap <= position
            done = done | (requests.tokens[:, position] == requests.end)
            if not bool(done.any()):
                return True
        self._release(done, position)
        items = (~done).nonzero().flatten()
        requests.keep(items)
        self._last_gap = self._last_gap[items]
        if self.is_row is not None:
            self.is_row = self.is_row[items]
        if len(items):
            self.rows.keep(items)
            self.scores = self.scores[items]
            if self.drawing.temperature:
                self._noise = self._noise[items]
        return len(items) > 0

    def _release(self, done: Tensor, position: int) -> None:
        requests, number = self.requests, self.requests.number[done]
        finished = requests.tokens[done]
        if requests.end is not None:  # all behind the first end are ends
            is_end = (finished == requests.end).cumsum(dim=1) > 0
            finished = finished.masked_fill(is_end, requests.end)
        self.tokens[number] = finished
        n_later = position - self.n_given  # passes of one row, behind the first pass
        self.work.n_passes[number] = 1 + n_later
        self.work.n_rows[number] = self.n_before + position
        n_first = self.n_before + self.n_given
        self.work.n_read[number] = n_later * n_first + n_later * (n_later - 1) // 2

    def _read(self, position: int) -> None:
        tokens = self.requests.tokens[:, position : position + 1]
        x = F.embedding(tokens, self.backbone.symbols)
        x = x + self.backbone.places[position + 1]
        mask = None
        if self.is_row is not None:
            ones = self.is_row.new_ones(len(x), position + 1)
            mask = torch.cat([self.is_row, ones], dim=1)[:, None, None, :]
        turn = self._turns[:, position : position + 1]
        self.scores = self.rows.read(x, turn, mask)
