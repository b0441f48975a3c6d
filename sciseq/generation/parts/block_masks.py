r"""Numbers of blocks for their tokens, and masks of an exact count in each block.

Axes: ``batch`` (B), ``position`` (L), ``block``, ``inside`` (of a block, b tokens; the
last block of a sequence may have fewer).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from sciseq.generation.parts.corruption import exact_count_mask, round_half_up_count

__all__ = ["block_share_mask", "of_tokens"]


def of_tokens(values: Tensor, size: int, length: int) -> Tensor:
    """Give each token (batch, position) the number of its block (batch, block).

    Parameters
    ----------
    values : Tensor, shape (batch, block)
        Numbers.
    size : int
        Tokens of a block.
    length : int
        Tokens of a sequence.

    Examples
    --------
    >>> import torch
    >>> of_tokens(torch.tensor([[5, 7]]), 3, 4).tolist()
    [[5, 5, 5, 7]]
    """
    return values.repeat_interleave(size, dim=1)[:, :length]


def block_share_mask(
    u: Tensor, share: Tensor, size: int, log_weight: Tensor | None = None
) -> Tensor:
    r"""Mask an exact count of the tokens of each block.

    .. math:: k = \min(n, \max(1, \lfloor m n + \tfrac12 \rfloor))

    of the n tokens of a block, uniformly, or one after the other by weight.

    Parameters
    ----------
    u : Tensor, shape (batch, position)
        Uniform numbers in (0, 1).
    share : Tensor, shape (batch, block)
        Shares m in (0, 1].
    size : int
        Tokens of a block.
    log_weight : Tensor, shape (batch, block, inside), optional
        As for :func:`~sciseq.generation.parts.corruption.exact_count_mask`.

    Returns
    -------
    Tensor of bool, shape (batch, position)
        Masked tokens.

    Examples
    --------
    >>> import torch
    >>> u = torch.tensor([[0.1, 0.7, 0.4, 0.9, 0.2]])
    >>> block_share_mask(u, torch.tensor([[0.5, 0.1]]), 3).int().tolist()
    [[0, 1, 1, 1, 0]]
    """
    (n_batch, length), n_blocks = u.shape, share.shape[1]
    n_missing = n_blocks * size - length
    # A block is a row: (batch, position) -> (batch * block, inside).
    is_token = F.pad(torch.ones_like(u, dtype=torch.bool), (0, n_missing), value=False)
    is_token = is_token.view(-1, size)
    u = F.pad(u, (0, n_missing), value=0.5).view(-1, size)
    count = round_half_up_count(share.flatten(), is_token.sum(dim=1))
    if log_weight is not None:
        log_weight = log_weight.flatten(0, 1)
    mask = exact_count_mask(is_token, count, u, log_weight)
    return mask.view(n_batch, -1)[:, :length]
