"""Multi-head self-attention and the transformer layers made of it.

Axes: ``batch``, ``token`` (N), ``d_model`` (D), ``head`` (h), ``width`` (d = D / h, of
one head).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sciseq.errors import InputError
from sciseq.nn.dropout import Dropout
from sciseq.nn.feed_forward import FeedForward

__all__ = [
    "MultiHeadSelfAttention",
    "TransformerEncoder",
    "TransformerLayer",
    "attend",
]

_SHORT_ROW = 16
_VECTOR, _NARROW_HEAD = 16, 16


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    r"""Let queries read keys and values, by torch's own kernel.

    .. math:: \mathrm{softmax}(q k^\top / \sqrt{d})\, v

    Parameters
    ----------
    q : Tensor, shape (batch, head, query, width)
        Queries.
    k, v : Tensor, shape (batch, head, key, width)
        Keys and values.
    mask : Tensor of bool, broadcastable to (batch, head, query, key), optional
        True where a query may read a key. Every query must read something.

    Returns
    -------
    Tensor, shape (batch, head, query, width)
        What they found.

    Notes
    -----
    On a CPU the kernel's backward pass is much slower in bfloat16 than in float32, so
    there it computes in float32.

    Examples
    --------
    >>> import torch
    >>> attend(*torch.ones(3, 1, 2, 5, 4)).shape
    torch.Size([1, 2, 5, 4])
    """
    is_slow = q.device.type == "cpu" and q.dtype == torch.bfloat16
    if not is_slow or not torch.is_grad_enabled():
        if mask is None and _has_slow_tail(q, k):
            k, v, mask = _padded_keys(k, v)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    with torch.autocast("cpu", enabled=False):
        found = F.scaled_dot_product_attention(
            q.float(), k.float(), v.float(), attn_mask=mask
        )
    return found.to(q.dtype)


def _has_slow_tail(q: Tensor, k: Tensor) -> bool:
    """Tell whether the kernel is faster with more keys.

    On a CPU it takes exponentials 16 at a time, and one by one what is left of a row.
    In narrow heads that is most of its time; in wide ones, and with gradients, copying
    the keys costs more.
    """
    if torch.is_grad_enabled() or torch.compiler.is_compiling():
        return False  # compiled code must not depend on the number of keys
    is_narrow = q.device.type == "cpu" and q.shape[-1] <= _NARROW_HEAD
    return is_narrow and k.shape[-2] % _VECTOR >= _VECTOR // 2


def _padded_keys(k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Lengthen keys and values to whole vectors, with a mask of those to be read."""
    n_keys = k.shape[-2]
    n_more = -n_keys % _VECTOR
    k, v = (F.pad(one, (0, 0, 0, n_more)) for one in (k, v))
    is_key = torch.arange(n_keys + n_more, device=k.device) < n_keys
    return k, v, is_key.expand(1, 1, 1, -1)


class MultiHeadSelfAttention(nn.Module):
    r"""Every token reads all tokens, in several heads.

    .. math::

        [q, k, v] = x W_{qkv} + b, \quad
        y = \mathrm{Drop}(\mathrm{softmax}(q k^\top / \sqrt{D / h}))\, v, \quad
        out = y W_o + b_o

    Parameters
    ----------
    d_model : int
        Width D of a token; a multiple of ``n_heads``.
    n_heads : int
        Number of heads h.
    dropout : float, default 0.1
        Probability of the dropout on the attention weights.

    Raises
    ------
    InputError
        When ``d_model`` is no multiple of ``n_heads``.

    Notes
    -----
    Card: forecasting §0.4. No positions: permuting the tokens permutes the output.
    Torch's own attention kernel draws its dropout from the global random
    state, so while training with dropout the weights are computed one by one; that
    takes ``batch * n_heads * n_tokens**2`` numbers. Without dropout, and when
    predicting, the kernel is used.

    Examples
    --------
    >>> import torch
    >>> attention = MultiHeadSelfAttention(8, n_heads=2, dropout=0.0)
    >>> attention(torch.zeros(2, 5, 8)).shape
    torch.Size([2, 5, 8])
    """

    def __init__(self, d_model: int, n_heads: int, dropout: float = 0.1) -> None:
        super().__init__()
        if n_heads < 1 or d_model % n_heads:
            raise InputError(
                f"d_model is {d_model} and n_heads {n_heads}; d_model must be a "
                "multiple of n_heads",
                where="MultiHeadSelfAttention",
            )
        self.n_heads = n_heads
        self.qkv = nn.Linear(d_model, 3 * d_model)  # q, k and v in one product
        self.out = nn.Linear(d_model, d_model)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Let tokens (batch, token, d_model) read each other; the shape is kept.

        ``mask``, broadcastable to (batch, head, token, token), is True where a token
        may read another; every token must read something.
        """
        n_batch, n_tokens, d_model = x.shape
        heads = self.qkv(x).view(n_batch, n_tokens, 3, self.n_heads, -1)
        heads = heads.permute(2, 0, 3, 1, 4)  # (3, batch, head, token, width)
        if self.training and self.dropout.p > 0:
            y = self._attend_with_dropout(heads, mask)
        else:
            q, k, v = heads.unbind()
            y = attend(q, k, v, mask)
        # (batch, head, token, width) to (batch, token, d_model)
        output: Tensor = self.out(y.transpose(1, 2).reshape(n_batch, n_tokens, d_model))
        return output

    def _attend_with_dropout(self, heads: Tensor, mask: Tensor | None) -> Tensor:
        q, k, v = heads.flatten(1, 2).unbind()  # (batch * head, token, width) each
        scale = 1 / math.sqrt(q.shape[-1])
        # With beta=0 the first argument gives no more than the shape and type.
        scores = torch.baddbmm(q.new_empty(()), q, k.mT, beta=0, alpha=scale)
        if mask is not None:
            by_head = scores.view(*heads.shape[1:4], -1)
            scores = by_head.masked_fill(~mask, -math.inf).flatten(0, 1)
        y: Tensor = self.dropout(_softmax(scores)) @ v
        return y.view(heads.shape[1:])


def _softmax(scores: Tensor) -> Tensor:
    # On a CPU rows shorter than 16 take torch up to ten times as long as padded ones.
    n_tokens = scores.shape[-1]
    if scores.device.type == "cpu" and n_tokens < _SHORT_ROW:
        scores = F.pad(scores, (0, _SHORT_ROW - n_tokens), value=-math.inf)
    return scores.softmax(-1)[..., :n_tokens]


class TransformerLayer(nn.Module):
    r"""Self-attention, then a feed-forward network, each with a residual.

    .. math::

        a &= \mathrm{LN}_1(x + \mathrm{Drop}(\mathrm{Attn}(x))), \quad
        out = \mathrm{LN}_2(a + \mathrm{FFN}(a)) \\
        a &= x + \mathrm{Drop}(\mathrm{Attn}(\mathrm{LN}_1(x))), \quad
        out = a + \mathrm{FFN}(\mathrm{LN}_2(a)) \qquad \text{(pre-norm)}

    Parameters
    ----------
    d_model : int
        Width D of a token; a multiple of ``n_heads``.
    n_heads : int
        Number of heads.
    d_ff : int
        Inner width F of the feed-forward network.
    dropout : float, default 0.1
        Probability of every dropout: attention weights, attention output, and the two
        of the feed-forward network.
    activation : {"gelu", "relu"}, default "gelu"
        Activation of the feed-forward network.
    pre_norm : bool, default False
        Normalise what enters the two parts instead of what leaves them.

    Notes
    -----
    Card: forecasting §0.4 (post-norm) and §3.1 (pre-norm).

    Examples
    --------
    >>> import torch
    >>> layer = TransformerLayer(8, n_heads=2, d_ff=16, dropout=0.0)
    >>> layer(torch.zeros(2, 5, 8)).shape
    torch.Size([2, 5, 8])
    """

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        d_ff: int,
        dropout: float = 0.1,
        *,
        activation: str = "gelu",
        pre_norm: bool = False,
    ) -> None:
        super().__init__()
        self.pre_norm = pre_norm
        self.attention = MultiHeadSelfAttention(d_model, n_heads, dropout)
        self.norm1 = nn.LayerNorm(d_model)
        self.feed_forward = FeedForward(d_model, d_ff, dropout, activation)
        self.norm2 = nn.LayerNorm(d_model)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map tokens (batch, token, d_model) to tokens of the same shape.

        ``mask`` as in :class:`MultiHeadSelfAttention`.
        """
        output: Tensor
        if self.pre_norm:
            a = x + self.dropout(self.attention(self.norm1(x), mask))
            output = a + self.feed_forward(self.norm2(a))
        else:
            a = self.norm1(x + self.dropout(self.attention(x, mask)))
            output = self.norm2(a + self.feed_forward(a))
        return output


class TransformerEncoder(nn.Module):
    """Transformer layers one after the other.

    Parameters
    ----------
    n_layers : int
        Number of layers E.
    d_model, n_heads, d_ff, dropout, activation, pre_norm
        As in :class:`TransformerLayer`.
    equal_start : bool, default False
        Let all layers start from the weights of the first one, as stacks that clone
        one layer do. They are trained apart.

    Notes
    -----
    There is no norm after the last layer; a post-norm layer ends with one.

    Examples
    --------
    >>> import torch
    >>> from sciseq.nn import build_network
    >>> encoder = build_network(
    ...     lambda: TransformerEncoder(2, 8, n_heads=2, d_ff=16, equal_start=True),
    ...     torch.Generator().manual_seed(0),
    ... )
    >>> first, second = encoder.layers
    >>> torch.equal(first.feed_forward.W1.weight, second.feed_forward.W1.weight)
    True
    """

    def __init__(
        self,
        n_layers: int,
        d_model: int,
        n_heads: int,
        d_ff: int,
        dropout: float = 0.1,
        *,
        activation: str = "gelu",
        pre_norm: bool = False,
        equal_start: bool = False,
    ) -> None:
        super().__init__()
        self.equal_start = equal_start
        self.layers = nn.ModuleList(
            TransformerLayer(
                d_model,
                n_heads,
                d_ff,
                dropout,
                activation=activation,
                pre_norm=pre_norm,
            )
            for _ in range(n_layers)
        )

    def initialize_parameters(self, generator: torch.Generator) -> None:
        """Give every layer the weights of the first one, with ``equal_start``.

        Parameters
        ----------
        generator : torch.Generator
            Not used: the layers have drawn their weights before.
        """
        if self.equal_start:
            first = self.layers[0].state_dict()
            for layer in self.layers[1:]:
                layer.load_state_dict(first)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map tokens (batch, token, d_model) to tokens of the same shape.

        ``mask`` as in :class:`MultiHeadSelfAttention`.
        """
        for layer in self.layers:
            x = layer(x, mask)
        return x
