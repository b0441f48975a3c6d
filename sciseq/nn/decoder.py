"""Attention to other tokens, and the decoder layers made of it.

Axes: ``batch``, ``query`` (tokens that read), ``key`` (tokens that are read), ``head``,
``width`` (of one head), ``d_model`` (D).
"""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor, nn

from sciseq.errors import InputError
from sciseq.nn.attention import attend
from sciseq.nn.dropout import Dropout
from sciseq.nn.feed_forward import FeedForward

__all__ = ["DecoderLayer", "KeysAndValues", "MultiHeadAttention"]

# Shapes (item, beam, head, width) all.
ReadOwn = Callable[[Tensor, Tensor, Tensor], Tensor]
ReadMemory = Callable[[Tensor], Tensor]


class KeysAndValues(NamedTuple):
    """What is read, projected."""

    keys: Tensor  # (batch, head, key, width)
    values: Tensor  # (batch, head, key, width)


class MultiHeadAttention(nn.Module):
    r"""Tokens read tokens of another sequence, or of their own.

    .. math::

        q = x W_q + b_q, \quad [k, v] = m W_{kv} + b_{kv}, \quad
        out = \mathrm{softmax}(q k^\top / \sqrt{D / h})\, v W_o + b_o

    Parameters
    ----------
    d_model : int
        Width D of a token; a multiple of ``n_heads``.
    n_heads : int
        Number of heads h.

    Raises
    ------
    InputError
        When ``d_model`` is no multiple of ``n_heads``.

    Notes
    -----
    Keys and values are made by :meth:`project` and given to :meth:`forward`, so that a
    search projects what it reads once and not for every step and beam.

    Examples
    --------
    >>> import torch
    >>> attention = MultiHeadAttention(8, n_heads=2)
    >>> memory = attention.project(torch.zeros(2, 5, 8))
    >>> attention(torch.zeros(2, 3, 8), memory).shape
    torch.Size([2, 3, 8])
    """

    def __init__(self, d_model: int, n_heads: int) -> None:
        super().__init__()
        if n_heads < 1 or d_model % n_heads:
            raise InputError(
                f"d_model is {d_model} and n_heads {n_heads}; d_model must be a "
                "multiple of n_heads",
                where="MultiHeadAttention",
            )
        self.n_heads = n_heads
        self.queries = nn.Linear(d_model, d_model)
        self.keys_values = nn.Linear(d_model, 2 * d_model)
        self.out = nn.Linear(d_model, d_model)

    def project(self, memory: Tensor) -> KeysAndValues:
        """Make keys and values of tokens (batch, key, d_model)."""
        n_batch, n_keys, _ = memory.shape
        both = self.keys_values(memory).view(n_batch, n_keys, 2, self.n_heads, -1)
        return KeysAndValues(*both.permute(2, 0, 3, 1, 4).unbind())

    def heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Project tokens (..., d_model) to queries, keys, values (..., head, width)."""
        both = self.keys_values(x).view(*x.shape[:-1], 2, self.n_heads, -1)
        keys, values = both.unbind(-3)
        return self.query_heads(x), keys, values

    def query_heads(self, x: Tensor) -> Tensor:
        """Project tokens (..., d_model) to queries (..., head, width)."""
        queries: Tensor = self.queries(x)
        return queries.view(*x.shape[:-1], self.n_heads, -1)

    def join(self, found: Tensor) -> Tensor:
        """Map what the heads found (..., head, width) to tokens (..., d_model)."""
        output: Tensor = self.out(found.flatten(-2))
        return output

    def forward(
        self, x: Tensor, memory: KeysAndValues, mask: Tensor | None = None
    ) -> Tensor:
        """Let tokens read.

        Parameters
        ----------
        x : Tensor, shape (batch, query, d_model)
            Tokens that read.
        memory : KeysAndValues
            What they read, from :meth:`project`.
        mask : Tensor of bool, broadcastable to (batch, head, query, key), optional
            True where a query may read a key. Every query must read something.

        Returns
        -------
        Tensor, shape (batch, query, d_model)
            What they found.
        """
        n_batch, n_queries, d_model = x.shape
        q = self.queries(x).view(n_batch, n_queries, self.n_heads, -1).transpose(1, 2)
        y = attend(q, *memory, mask)
        # (batch, head, query, width) to (batch, query, d_model)
        joined = y.transpose(1, 2).reshape(n_batch, n_queries, d_model)
        output: Tensor = self.out(joined)
        return output


class DecoderLayer(nn.Module):
    r"""Self-attention, attention to a memory, feed-forward network, with residuals.

    .. math::

        a &= x + \mathrm{Drop}(\mathrm{Attn}(\mathrm{LN}_1(x), \mathrm{LN}_1(x))) \\
        b &= a + \mathrm{Drop}(\mathrm{Attn}(\mathrm{LN}_2(a), m)) \\
        out &= b + \mathrm{FFN}(\mathrm{LN}_3(b))

    Parameters
    ----------
    d_model : int
        Width D of a token; a multiple of ``n_heads``.
    n_heads : int
        Number of heads.
    d_ff : int
        Inner width of the feed-forward network.
    dropout : float, default 0.1
        Probability of every dropout. Attention weights are not dropped.

    Notes
    -----
    Pre-norm; the published decoders are post-norm and need a longer warm-up.

    Examples
    --------
    >>> import torch
    >>> layer = DecoderLayer(8, n_heads=2, d_ff=16, dropout=0.0)
    >>> memory = layer.cross_attention.project(torch.zeros(2, 5, 8))
    >>> layer(torch.zeros(2, 3, 8), memory).shape
    torch.Size([2, 3, 8])
    """

    def __init__(
        self, d_model: int, n_heads: int, d_ff: int, dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.self_attention = MultiHeadAttention(d_model, n_heads)
        self.cross_attention = MultiHeadAttention(d_model, n_heads)
        self.feed_forward = FeedForward(d_model, d_ff, dropout)
        self.norm1 = nn.LayerNorm(d_model)
        self.norm2 = nn.LayerNorm(d_model)
        self.norm3 = nn.LayerNorm(d_model)
        self.dropout = Dropout(dropout)

    def forward(
        self,
        x: Tensor,
        memory: KeysAndValues,
        self_mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
    ) -> Tensor:
        """Map tokens (batch, query, d_model) to tokens of the same shape.

        Parameters
        ----------
        x : Tensor, shape (batch, query, d_model)
            Tokens.
        memory : KeysAndValues
            Projected memory, from ``cross_attention.project``.
        self_mask, memory_mask : Tensor of bool, optional
            As in :class:`MultiHeadAttention`.
        """
        own = self.norm1(x)
        read = self.self_attention.project(own)
        a = x + self.dropout(self.self_attention(own, read, self_mask))
        found = self.cross_attention(self.norm2(a), memory, memory_mask)
        b = a + self.dropout(found)
        output: Tensor = b + self.feed_forward(self.norm3(b))
        return output

    def step(self, x: Tensor, read_own: ReadOwn, read_memory: ReadMemory) -> Tensor:
        """Map the newest token of each beam, reading from caches; without dropout.

        Parameters
        ----------
        x : Tensor, shape (item, beam, d_model)
            The newest tokens.
        read_own : callable
            From queries, keys and values (item, beam, head, width) of the newest
            tokens to what the queries find in all tokens of their beams.
        read_memory : callable
            From queries to what they find in the memory of their item.
        """
        own, attention = self.norm1(x), self.self_attention
        a = x + attention.join(read_own(*attention.heads(own)))
        attention = self.cross_attention
        b = a + attention.join(read_memory(attention.query_heads(self.norm2(a))))
        output: Tensor = b + self.feed_forward(self.norm3(b))
        return output
