"""The transformer that all methods share, and what it is told besides tokens.

Axes: ``batch`` (B), ``row`` (N), ``d_model`` (D), ``head`` (h), ``width`` (d = D / h),
``symbol`` (of the alphabet, and the begin and the mask), ``token`` (V, what may be
predicted).
"""

import math

import torch
from torch import Tensor, nn

from sciseq.errors import InputError
from sciseq.generation.parts.cache import KeyValueCache
from sciseq.generation.parts.layout import Layout
from sciseq.generation.parts.masks import Rule, attention_mask
from sciseq.generation.parts.network import Backbone
from sciseq.nn.attention import attend
from sciseq.nn.dropout import Dropout
from sciseq.nn.feed_forward import FeedForward

__all__ = ["TokenTransformer", "rotated", "rotation"]

_ROTARY_BASE = 10_000.0
_SCALE = 0.02  # of embeddings at the start


class TokenTransformer(Backbone):
    r"""A transformer over rows in any order, masked by a rule over their layout.

    .. math::

        x = e_{token} + p_{position}, \quad
        x \leftarrow x + \mathrm{Attn}(\mathrm{LN}(x)), \quad
        x \leftarrow x + \mathrm{FFN}(\mathrm{LN}(x)), \quad
        scores = W\,\mathrm{LN}(x) + b

    Queries and keys are rotated by the logical position of their row, wherever the row
    stands.

    Parameters
    ----------
    n_tokens : int
        Tokens V that may be predicted. The mask is symbol V + 1, the begin symbol V.
    n_positions : int
        Positions that have an embedding of their own; later ones share the last.
    d_model, d_ff, n_layers, n_heads : int
        Sizes; the width of a head must be even.
    dropout : float
        Probability of every dropout.

    Raises
    ------
    InputError
        When ``d_model`` is no multiple of twice ``n_heads``.

    Examples
    --------
    >>> import torch
    >>> from sciseq.generation.parts.masks import causal
    >>> from sciseq.nn import build_network
    >>> network = build_network(
    ...     lambda: TokenTransformer(4, 9, 8, 16, 1, 2, 0.0),
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
    ) -> None:
        super().__init__(n_tokens)
        if d_model % (2 * n_heads):
            raise InputError(
                f"d_model is {d_model} and n_heads {n_heads}; d_model must be a "
                "multiple of twice n_heads",
                where="TokenTransformer",
            )
        self.symbols = nn.Parameter(torch.empty(n_tokens + 2, d_model))
        # The first one is the begin's, at position -1.
        self.places = nn.Parameter(torch.empty(n_positions + 1, d_model))
        self.n_heads, self.width = n_heads, d_model // n_heads
        self.layers = nn.ModuleList(
            _Layer(d_model, d_ff, n_heads, dropout) for _ in range(n_layers)
        )
        self.norm = nn.LayerNorm(d_model)
        self.head = nn.Linear(d_model, n_tokens)
        self.dropout = Dropout(dropout)

    def initialize_parameters(self, generator: torch.Generator) -> None:
        """Draw the embeddings.

        Parameters
        ----------
        generator : torch.Generator
            Source of all numbers.
        """
        for one in (self.symbols, self.places):
            nn.init.normal_(one, std=_SCALE, generator=generator)

    def embed(self, tokens: Tensor, layout: Layout) -> Tensor:
        """Return what stands for symbols (batch, row) at their positions."""
        last = len(self.places) - 1
        places = self.places[(layout.position + 1).clamp(0, last)]
        x: Tensor = self.dropout(self.symbols[tokens] + places)
        return x

    def forward(
        self,
        x: Tensor,
        layout: Layout,
        rule: Rule,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        """Let rows read each other, and what is stored of earlier passes.

        Parameters
        ----------
        x : Tensor, shape (batch, row, d_model)
            Embedded rows.
        layout : Layout
            Where they belong.
        rule : callable
            Who may read whom.
        cache : KeyValueCache, optional
            Rows of earlier passes. The new ones are left there, to be stored.

        Returns
        -------
        Tensor, shape (batch, row, d_model)
            States, normalised.
        """
        keys = layout if cache is None else cache.begin(layout)
        allowed = attention_mask(rule, layout, keys)
        # One row that reads all: a kernel without a mask is faster.
        is_plain = layout.n_rows == 1 and not x.requires_grad and bool(allowed.all())
        mask = None if is_plain else allowed
        turn = rotation(layout.position, self.width, x.dtype)
        for number, layer in enumerate(self.layers):
            x = layer(x, turn, mask, cache, number)
        states: Tensor = self.norm(x)
        return states

    def scores(self, states: Tensor) -> Tensor:
        """Return scores of tokens (batch, row, token): neither mask nor begin."""
        scores: Tensor = self.head(states)
        return scores


class _Layer(nn.Module):
    def __init__(self, d_model: int, d_ff: int, n_heads: int, dropout: float) -> None:
        super().__init__()
        self.n_heads, self.width = n_heads, d_model // n_heads
        self.norm1, self.norm2 = nn.LayerNorm(d_model), nn.LayerNorm(d_model)
        self.qkv = nn.Linear(d_model, 3 * d_model)
        self.out = nn.Linear(d_model, d_model)
        self.feed_forward = FeedForward(d_model, d_ff, dropout)
        self.dropout = Dropout(dropout)

    def forward(
        self,
        x: Tensor,
        turn: tuple[Tensor, Tensor],
        mask: Tensor | None,
        cache: KeyValueCache | None,
        number: int,
    ) -> Tensor:
        n_batch, n_rows, d_model = x.shape
        heads = self.qkv(self.norm1(x)).view(n_batch, n_rows, 3, self.n_heads, -1)
        q, k, v = heads.permute(2, 0, 3, 1, 4).unbind()  # (batch, head, row, width)
        q, k = rotated(q, turn), rotated(k, turn)
        if cache is not None:
            k, v = cache.read(number, k, v)
        y = attend(q, k, v, mask).transpose(1, 2).reshape(n_batch, n_rows, d_model)
        x = x + self.dropout(self.out(y))
        output: Tensor = x + self.feed_forward(self.norm2(x))
        return output


def rotation(position: Tensor, width: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return cosines and signed sines (batch, 1, row, width) of rotary embeddings.

    Parameters
    ----------
    position : Tensor of int64, shape (batch, row)
        Logical positions.
    width : int
        Width of a head.
    dtype : torch.dtype
        Of the result; angles are computed in float64.
    """
    number = torch.arange(width // 2, dtype=torch.float64, device=position.device)
    speed = torch.exp(number * (-2 * math.log(_ROTARY_BASE) / width))
    angle = (position.to(torch.float64).unsqueeze(2) * speed).unsqueeze(1)
    cosine, sine = angle.cos().to(dtype), angle.sin().to(dtype)
    return torch.cat([cosine, cosine], dim=-1), torch.cat([-sine, sine], dim=-1)


def rotated(x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    """Rotate queries or keys (batch, head, row, width) by :func:`rotation`.

    Parameters
    ----------
    x : Tensor
        Queries or keys.
    turn : tuple of Tensor
        Cosines and sines.
    """
    cosine, sine = turn
    first, second = x.chunk(2, dim=-1)
    return torch.addcmul(x * cosine, torch.cat([second, first], dim=-1), sine)
