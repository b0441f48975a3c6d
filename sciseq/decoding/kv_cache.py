"""Keys and values kept between the steps of autoregressive decoding with beams.

Axes: ``item`` (independent sequences), ``beam`` (candidates of one item), ``head`` (h),
``token`` (of the encoder), ``length`` (tokens decoded so far), ``width`` (d, of one
head). A row is one beam of one item.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sciseq.errors import InputError
from sciseq.nn.decoder import KeysAndValues

__all__ = ["CrossAttentionCache", "SelfAttentionCache"]


class CrossAttentionCache:
    r"""Encoder keys and values, held once per item and read by all its beams.

    .. math:: y_{ib} = \mathrm{softmax}(q_{ib} K_i^\top / \sqrt{d})\, V_i

    The beams of an item are the rows of one query matrix, so nothing is copied per
    beam, and a change in the order of the beams needs no work.

    Parameters
    ----------
    layers : sequence of KeysAndValues
        Projected encoder outputs of each layer, keys and values of shape
        (item, head, token, width), as ``MultiHeadAttention.project`` makes them.
    is_token : Tensor of bool, shape (item, token), optional
        False at padding, which no query reads; each item needs one true token. All are
        true when None.

    Attributes
    ----------
    mask : Tensor of bool, shape (item, 1, 1, token), or None
        ``is_token`` for every head and beam.

    Raises
    ------
    InputError
        When keys, values and ``is_token`` do not fit each other.

    Examples
    --------
    >>> import torch
    >>> layer = KeysAndValues(torch.zeros(2, 1, 3, 4), torch.ones(2, 1, 3, 4))
    >>> cache = CrossAttentionCache([layer])
    >>> cache.attend(0, torch.zeros(2, 5, 1, 4)).shape  # five beams
    torch.Size([2, 5, 1, 4])
    """

    def __init__(
        self, layers: Sequence[KeysAndValues], is_token: Tensor | None = None
    ) -> None:
        shapes = [tuple(one.shape) for layer in layers for one in layer]
        if not shapes or len(set(shapes)) > 1 or len(shapes[0]) != 4:
            raise InputError(
                f"keys and values have shapes {shapes}; one shape (item, head, token, "
                "width) is needed for all",
                where="CrossAttentionCache, layers",
            )
        expected = (shapes[0][0], shapes[0][2])
        if is_token is not None and tuple(is_token.shape) != expected:
            raise InputError(
                f"is_token has shape {tuple(is_token.shape)}, keys and values have "
                f"(item, token) = {expected}",
                where="CrossAttentionCache, is_token",
            )
        # They are read at every step, so that a better order in memory pays: few
        # queries read transposed keys faster.
        self._layers = [
            (one.keys.mT.contiguous(), one.values.contiguous()) for one in layers
        ]
        self.mask = None if is_token is None else is_token[:, None, None, :]

    def memory(self, layer: int) -> KeysAndValues:
        """Return keys and values of a layer, (item, head, token, width) each.

        With the beams of an item as its queries, (item, beam, d_model), they and
        ``mask`` are what ``MultiHeadAttention`` takes.
        """
        transposed, values = self._layers[layer]
        return KeysAndValues(transposed.mT, values)

    def attend(self, layer: int, query: Tensor) -> Tensor:
        """Let the beams of each item read the item's tokens.

        Parameters
        ----------
        layer : int
            Which keys and values to read.
        query : Tensor, shape (item, beam, head, width)
            One query for each beam and head.

        Returns
        -------
        Tensor, shape (item, beam, head, width)
            What each head read.
        """
        transposed, values = self._layers[layer]
        # (item, head, beam, token)
        scores = _scaled(query).transpose(1, 2) @ transposed
        if self.mask is not None:
            scores = scores.masked_fill_(~self.mask, -math.inf)
        return (scores.softmax(dim=-1) @ values).transpose(1, 2)

    def keep(self, items: Tensor) -> None:
        """Drop all items but these.

        Parameters
        ----------
        items : Tensor of int64, shape (kept,)
            Present positions of the items that stay, in their new order.
        """
        self._layers = [
            (keys.index_select(0, items), values.index_select(0, items))
            for keys, values in self._layers
        ]
        if self.mask is not None:
            self.mask = self.mask.index_select(0, items)


class SelfAttentionCache:
    r"""Keys and values of the tokens decoded so far, for every beam.

    Memory for ``max_length`` tokens is taken once, and each step writes its keys and
    values in place. The storage of one layer is (item, beam, head, length, width).

    Parameters
    ----------
    n_layers, n_items, n_beams, n_heads : int
        Sizes, each at least 1.
    max_length : int
        Most tokens that are ever held.
    width : int
        Width d of one head.
    dtype : torch.dtype, default torch.float32
        Type of keys and values.
    device : torch.device or str, default "cpu"
        Where they are held.

    Raises
    ------
    InputError
        When a size is below 1.

    Notes
    -----
    All storage together takes ``2 * n_layers * n_items * n_beams * n_heads *
    max_length * width`` numbers. A change of order copies what is filled, layer by
    layer, so that it needs extra memory for one layer only.

    Examples
    --------
    >>> import torch
    >>> cache = SelfAttentionCache(1, 2, 3, 1, max_length=8, width=4)
    >>> one = torch.ones(2, 3, 1, 4)
    >>> cache.attend(0, one, one, one).shape
    torch.Size([2, 3, 1, 4])
    >>> cache.length
    1
    """

    def __init__(
        self,
        n_layers: int,
        n_items: int,
        n_beams: int,
        n_heads: int,
        *,
        max_length: int,
        width: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        sizes = (n_items, n_beams, n_heads, max_length, width)
        if min(n_layers, *sizes) < 1:
            raise InputError(
                f"n_layers is {n_layers} and (n_items, n_beams, n_heads, max_length, "
                f"width) are {sizes}; all must be at least 1",
                where="SelfAttentionCache",
            )
        self.n_items = n_items
        self.n_beams = n_beams
        self.max_length = max_length
        self._lengths = [0] * n_layers
        # (key or value, row, head, length, width)
        shape = (2, n_items * n_beams, n_heads, max_length, width)
        self._layers = [
            torch.empty(shape, dtype=dtype, device=device) for _ in range(n_layers)
        ]
        self._spare: Tensor | None = None  # memory of one layer, for reordering

    @property
    def length(self) -> int:
        """Number of tokens that every layer holds."""
        return min(self._lengths)

    def append(self, layer: int, key: Tensor, value: Tensor) -> KeysAndValues:
        """Write the newest token of each beam, and return all of them.

        Parameters
        ----------
        layer : int
            Layer whose keys and values are extended.
        key, value : Tensor, shape (item, beam, head, width)
            Projections of the newest token.

        Returns
        -------
        KeysAndValues
            Keys and values of shape (row, head, length, width): views into the cache,
            which the next call of any method may change. With rows as batch,
            (row, 1, d_model), they are what ``MultiHeadAttention`` takes.

        Raises
        ------
        InputError
            When the shape is another, or ``max_length`` tokens are held already.
        """
        storage, position = self._layers[layer], self._lengths[layer]
        _, _, n_heads, max_length, width = storage.shape
        expected = (self.n_items, self.n_beams, n_heads, width)
        if tuple(key.shape) != expected or position >= max_length:
            raise InputError(
                f"token {position + 1} has keys of shape {tuple(key.shape)}; at most "
                f"{max_length} tokens of shape {expected} are held",
                where=f"SelfAttentionCache, layer {layer}",
            )
        storage[0, :, :, position] = key.flatten(0, 1)
        storage[1, :, :, position] = value.flatten(0, 1)
        self._lengths[layer] = position + 1
        return KeysAndValues(*storage[:, :, :, : position + 1].unbind())

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Append the newest token of each beam, and let it read all of its beam.

        Parameters
        ----------
        layer, key, value
            As in :meth:`append`.
        query : Tensor, shape (item, beam, head, width)
            What the newest token asks.

        Returns
        -------
        Tensor, shape (item, beam, head, width)
            What each head read.
        """
        keys, values = self.append(layer, key, value)
        # One query at a time is too little work for a fused attention kernel.
        asked = _scaled(query).flatten(0, 1).unsqueeze(2)  # (row, head, 1, width)
        weights = (asked @ keys.mT).softmax(dim=-1)
        return (weights @ values).reshape(query.shape)

    def reorder(self, parents: Tensor) -> None:
        """Let each beam go on from another beam of its item.

        Parameters
        ----------
        parents : Tensor of int64, shape (item, beam)
            For each beam the one whose tokens it takes over.
        """
        first = torch.arange(self.n_items, device=parents.device) * self.n_beams
        rows = (first[:, None] + parents).flatten()
        # Each layer moves to the memory that the one before it has left.
        target = self._spare
        if target is None:
            target = torch.empty_like(self._layers[0])
        for layer, storage in enumerate(self._layers):
            # Only the filled part; the rest is overwritten before it is read.
            filled = storage[:, :, :, : self.length]
            torch.index_select(filled, 1, rows, out=target[:, :, :, : self.length])
            self._layers[layer], target = target, storage
        self._spare = target

    def keep(self, items: Tensor) -> None:
        """Drop all items but these, and give back their memory.

        Parameters
        ----------
        items : Tensor of int64, shape (kept,)
            Present positions of the items that stay, in their new order.
        """
        beams = torch.arange(self.n_beams, device=items.device)
        rows = (items[:, None] * self.n_beams + beams).flatten()
        self.n_items = len(items)
        self._spare = None
        for layer, storage in enumerate(self._layers):
            kept = storage.new_empty((2, len(rows), *storage.shape[2:]))
            filled = storage[:, :, :, : self.length]
            kept[:, :, :, : self.length] = filled.index_select(1, rows)
            self._layers[layer] = kept


def _scaled(query: Tensor) -> Tensor:
    return query * (1 / math.sqrt(query.shape[-1]))
