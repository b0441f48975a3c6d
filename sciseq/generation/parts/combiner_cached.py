r"""New rows of a Combiner that read stored ones: their own span, and summaries.

Axes: ``batch`` (B), ``head`` (h), ``row`` (N, new in a pass), ``place`` (in the order
of the sequence), ``span`` (T, of those that new rows lie in), ``query`` (of the rows of
a span), ``key`` (what is read), ``width`` (d, of one head).

Symbols of the card: s the length of a span, L that of the sequence.

Once a span is complete, nobody reads its rows any more, only its summary
:math:`k_\Omega, v_\Omega`. So the row that completes it leaves this in the cache in
place of its own key and value: what the cache holds, keeps and forgets is rows.
"""

import torch
from torch import Tensor

from sciseq.generation.parts.cache import KeyValueCache
from sciseq.generation.parts.combiner_plans import Heads, summarize_spans

__all__ = ["SpanReader", "packed", "unpacked"]


def packed(x: Heads) -> tuple[Tensor, Tensor]:
    """Return two tensors of one width, as a cache holds them: of each, half a query."""
    first, second = x.q.chunk(2, dim=-1)
    return torch.cat([x.k, first], dim=-1), torch.cat([x.v, second], dim=-1)


def unpacked(key: Tensor, value: Tensor) -> Heads:
    """Return what :func:`packed` has packed.

    Examples
    --------
    >>> import torch
    >>> x = Heads(*torch.randn(3, 1, 2, 5, 4).unbind())
    >>> all(a.equal(b) for a, b in zip(x, unpacked(*packed(x))))
    True
    """
    width = key.shape[-1] // 3 * 2
    q = torch.cat([key[..., width:], value[..., width:]], dim=-1)
    return Heads(q, key[..., :width], value[..., :width])


class SpanReader:
    r"""What the new rows of one pass read in the fixed plan, for all layers alike.

    A row costs :math:`O(s + L / s)` in each layer. All that stands before a new row
    must be stored or new.

    Parameters
    ----------
    cache : KeyValueCache
        Its pass has begun.
    places : Tensor of int64, shape (batch or 1, row)
        Of the new rows. Those that hold nothing have the place ``n_places``.
    n_places : int
        More than every place.
    span : int
        Length of a span.
    """

    def __init__(
        self, cache: KeyValueCache, places: Tensor, n_places: int, span: int
    ) -> None:
        self._cache, self._span = cache, span
        is_row = places < n_places
        first = places.amin(dim=1, keepdim=True)
        self._first_span = first // span  # (batch, 1)
        at = (places - self._first_span * span).masked_fill(~is_row, -1)
        n_read = int(at.amax().clamp_min(0)) + 1
        # The spans that hold new rows, and how much of a span they can read.
        self._n_spans, self._size = -(-n_read // span), min(span, n_read)
        self._n_before = int(self._first_span.amax())
        self._slots = self._slots_of_keys()
        self._at = at.where(is_row, self._slots.shape[1] - 1)
        self._is_last = is_row & (places % span == span - 1)
        self._completes = bool(self._is_last.any())
        self._arrange(first % span, at)

    def _slots_of_keys(self) -> Tensor:
        """Slots (batch, key): of spans, of summaries, and one for rows of nothing."""
        device, first = self._first_span.device, self._first_span * self._span
        window = first + torch.arange(self._n_spans * self._size, device=device)
        before = torch.arange(1, self._n_before + 1, device=device) * self._span - 1
        places = torch.cat(
            [window, before.expand(len(first), -1), torch.zeros_like(first)], dim=1
        )
        # All rows of a condition, which come first, are one place.
        n_told = self._cache.n_prefix - 1
        slots = places + max(n_told - 1, 0)
        n_slots = self._cache.n_prefix + self._cache.n_positions
        return slots.where(places > 0, 0).clamp_max(n_slots - 1)

    def _arrange(self, start: Tensor, at: Tensor) -> None:
        """Give each row a query of its span, and say what the queries read.

        The first new row is the first query of its span, so that one new row is one.
        """
        device, n_spans = at.device, self._n_spans
        self._span_of = at.clamp_min(0) // self._size  # (batch, row)
        skipped = start.where(self._span_of == 0, 0)
        query = (at - self._span_of * self._size - skipped).clamp_min(0)
        n_queries = int(query.amax()) + 1
        self._query = self._span_of * n_queries + query
        numbers = torch.arange(at.shape[1], device=device).expand_as(at)
        behind = self._query.where(at >= 0, n_spans * n_queries)
        self._row_of = numbers.new_zeros(len(at), n_spans * n_queries + 1).scatter(
            1, behind, numbers
        )[:, :-1]
        self._n_queries = n_queries
        self._mask = self._mask_of_queries(start)

    def _mask_of_queries(self, start: Tensor) -> Tensor | None:
        """Who reads what, bool (batch, 1, span, query, key); None if all read all."""
        device, shape = start.device, (len(start), self._n_spans, self._n_queries, -1)
        span = torch.arange(self._n_spans, device=device)
        query = torch.arange(self._n_queries, device=device)
        # Places of queries within their spans (batch, span, query, 1).
        within = query + start.unsqueeze(2).where(span.unsqueeze(1) == 0, 0)
        own = torch.arange(self._size, device=device) <= within.unsqueeze(3)
        number = torch.arange(self._n_before, device=device)
        before = number < self._first_span
        complete = span[:-1] < span.unsqueeze(1)
        mask = torch.cat(
            [own, before[:, None, None].expand(shape),
             complete[None, :, None].expand(shape)], dim=3,
        )  # fmt: skip
        return None if bool(mask.all()) else mask.unsqueeze(1)

    def __call__(self, layer: int, x: Heads) -> Tensor:
        """Return what new rows find, and leave them to be stored.

        Parameters
        ----------
        layer : int
            Which one.
        x : Heads
            Of the new rows, each (batch, head, row, width).

        Returns
        -------
        Tensor, shape (batch, head, row, width)
            What they find.
        """
        new = packed(x)
        self._cache.leave(layer, *new)
        keys, values = self._with_new(self._cache.stored(layer, self._slots), new)
        spans = None
        if self._completes or self._n_spans > 1:
            spans = self._summaries(keys, values)
            self._cache.leave(layer, *self._with_summaries(x, spans))
        width = x.q.shape[-1]
        k, v = (
            self._readable(one[..., :width], None if spans is None else spans[number])
            for number, one in enumerate((keys, values))
        )
        return self._read(x.q, k, v)

    def _with_new(
        self, stored: tuple[Tensor, Tensor], new: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Put new rows in their places among the stored ones."""
        n_batch, n_heads, n_keys, _ = stored[0].shape
        head = torch.arange(n_batch * n_heads, device=self._at.device) * n_keys
        rows = (head.view(n_batch, n_heads, 1) + self._at.unsqueeze(1)).flatten()
        for one, its in zip(stored, new, strict=True):
            one.flatten(0, 2).index_copy_(0, rows, its.flatten(0, 2))
        return stored

    def _summaries(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Return keys and values of the spans (batch, head, span, width).

        They are those of spans that are complete; others must not be read.
        """
        n_window = self._n_spans * self._size
        x = unpacked(keys[:, :, :n_window], values[:, :, :n_window])
        x = x.map(lambda one: torch.unflatten(one, 2, (self._n_spans, self._size)))
        is_real = torch.ones(
            self._n_spans, self._size, dtype=torch.bool, device=keys.device
        )
        found = summarize_spans(x.map(lambda one: one.flatten(0, 1)), is_real)
        is_new = torch.zeros(
            len(self._is_last), self._n_spans, dtype=torch.bool, device=keys.device
        ).scatter_reduce(1, self._span_of, self._is_last, "amax")
        # Where the last row was stored before, it holds the summary.
        k, v = (
            one.view_as(last).where(is_new[:, None, :, None], last)
            for one, last in zip(found, (x.k[..., -1, :], x.v[..., -1, :]), strict=True)
        )
        return k, v

    def _with_summaries(
        self, x: Heads, spans: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Give rows that complete their spans the summaries, in place of their own."""
        n_batch, n_heads, _, width = x.k.shape
        span_of = self._span_of[:, None, :, None].expand(n_batch, n_heads, -1, width)
        is_last = self._is_last[:, None, :, None]
        k, v = (
            one.gather(2, span_of).where(is_last, own)
            for one, own in zip(spans, (x.k, x.v), strict=True)
        )
        return packed(Heads(x.q, k, v))

    def _readable(self, x: Tensor, spans: Tensor | None) -> Tensor:
        """Return what each span reads (batch, head, span, key, width)."""
        x = x[:, :, :-1]
        if self._n_spans == 1:
            return x.unsqueeze(2)
        assert spans is not None
        n_window = self._n_spans * self._size
        window = torch.unflatten(x[:, :, :n_window], 2, (self._n_spans, self._size))
        others = torch.cat([x[:, :, n_window:], spans[:, :, :-1]], dim=2)
        others = others.unsqueeze(2).expand(-1, -1, self._n_spans, -1, -1)
        return torch.cat([window, others], dim=3)

    def _read(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Let rows read; one query is too little work for a fused kernel."""
        shape = self._n_spans, self._n_queries
        if q.shape[2] > 1:
            q = _taken(q, self._row_of)
        scores = torch.unflatten(q * q.shape[-1] ** -0.5, 2, shape) @ k.mT
        if self._mask is not None:
            scores = scores.masked_fill(~self._mask, -torch.inf)
        found = (scores.softmax(dim=-1).to(v.dtype) @ v).flatten(2, 3)
        return found if self._at.shape[1] == 1 else _taken(found, self._query)


def _taken(x: Tensor, numbers: Tensor) -> Tensor:
    """Choose rows of (batch, head, row, width), numbered (batch or 1, chosen)."""
    n_batch, n_heads, _, width = x.shape
    numbers = numbers[:, None, :, None].expand(n_batch, n_heads, -1, width)
    return x.gather(2, numbers)
