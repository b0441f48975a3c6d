r"""Which tokens are hidden: the laws of the masks that denoisers are trained with.

All randomness comes in as numbers that are uniform in (0, 1), one per token, so that
the noise of a row never depends on the batch around it (``sciseq.generation.parts
.noise`` draws such numbers). The masks are bool, True where a token is hidden, and
never outside of ``maskable``.

Axes: ``batch`` (rows; blocks of a row are rows too), ``token``. Symbols: t, m level of
noise, p probability of a mask, n maskable tokens of a row, k masked ones, B tokens
of a block.
"""

import math

import torch
from torch import Tensor

from sciseq.errors import InputError
from sciseq.generation.parts.tables import (
    check_range,
    check_rows,
    check_table,
    largest,
)

__all__ = [
    "bernoulli_mask",
    "complement",
    "ensure_one",
    "exact_count_mask",
    "position_weighted_log_weight",
    "round_half_up_count",
    "stratified_levels",
    "truncated_count",
]

# --- Levels and counts ---------------------------------------------------------------


def stratified_levels(u0: float, n: int, epsilon: float = 1e-3) -> Tensor:
    r"""Spread the levels of noise of a batch evenly over (0, 1).

    .. math:: t_j = (u_0 + j) / n, \qquad p_j = (1 - \epsilon) t_j + \epsilon

    Each :math:`t_j` taken from a random row is uniform, and each of n equal parts of
    (0, 1) holds exactly one: the mean over a batch varies less than with n independent
    levels.

    Parameters
    ----------
    u0 : float
        The only random number, in (0, 1).
    n : int
        Number of rows, at least 1.
    epsilon : float, default 1e-3
        Smallest level, from 0 up to but not including 1, so that weights 1/p stay
        bounded.

    Returns
    -------
    Tensor of float64, shape (batch,)
        Probabilities p, growing with the row, so that rows must be in random order.
        Weights of a loss are 1/p of these, not 1/t.

    Raises
    ------
    InputError
        When a number is out of range.

    Examples
    --------
    >>> stratified_levels(0.5, 4, epsilon=0.0).tolist()
    [0.125, 0.375, 0.625, 0.875]
    """
    if not 0 < u0 < 1 or n < 1 or not 0 <= epsilon < 1:
        raise InputError(
            f"u0 is {u0}, n {n} and epsilon {epsilon}; u0 must lie in (0, 1), n be at "
            "least 1 and epsilon lie in [0, 1)",
            where="stratified_levels",
        )
    t = (torch.arange(n, dtype=torch.float64) + u0) / n
    return (1 - epsilon) * t + epsilon


def round_half_up_count(share: Tensor, n: Tensor | int) -> Tensor:
    r"""Turn shares into counts, halves upwards and at least one.

    .. math:: k = \min(n, \max(1, \lfloor m n + \tfrac12 \rfloor))

    Parameters
    ----------
    share : Tensor, shape (batch,)
        Shares m in (0, 1].
    n : Tensor of int64, shape (batch,), or int
        What they are shares of. Of nothing, the count is 0.

    Returns
    -------
    Tensor of int64, shape (batch,)
        Counts. Products within 1e-9 below a half are rounded up as halves are: the
        product of 0.29 and 50 is 14.499999999999998 in float64.

    Examples
    --------
    >>> import torch
    >>> round_half_up_count(torch.tensor([0.01, 0.15625, 0.5, 1.0]), 16).tolist()
    [1, 3, 8, 16]
    """
    return _count(share, n, 0.5).clamp(min=1).minimum(_like(n, share))


def truncated_count(share: Tensor, n: Tensor | int) -> Tensor:
    r"""Turn shares into counts, rounded down; at least one where a share is not zero.

    .. math:: k = \min(n, \max(1, \lfloor P n \rfloor)), \qquad k = 0
        \text{ where } P = 0

    Parameters
    ----------
    share : Tensor, shape (batch,)
        Shares P in [0, 1].
    n : Tensor of int64, shape (batch,), or int
        What they are shares of.

    Returns
    -------
    Tensor of int64, shape (batch,)
        Counts. Products within 1e-9 below an integer count as that integer.

    Examples
    --------
    >>> import torch
    >>> truncated_count(torch.tensor([0.0, 0.01, 0.15]), 18).tolist()
    [0, 1, 2]
    """
    count = _count(share, n, 0.0).clamp(min=1).minimum(_like(n, share))
    return count.where(share > 0, 0)


def _count(share: Tensor, n: Tensor | int, offset: float) -> Tensor:
    return (share.to(torch.float64) * n + (offset + 1e-9)).floor().to(torch.int64)


def _like(n: Tensor | int, share: Tensor) -> Tensor:
    return torch.as_tensor(n, dtype=torch.int64, device=share.device)


# --- Masks ---------------------------------------------------------------------------


def bernoulli_mask(maskable: Tensor, p: Tensor, u: Tensor) -> Tensor:
    """Mask each maskable token by itself with probability p.

    Parameters
    ----------
    maskable : Tensor of bool, shape (batch, token)
        Tokens that may be masked.
    p : Tensor, shape (batch,) or (batch, token)
        Probabilities from 0 (never) to 1 (always).
    u : Tensor, shape (batch, token)
        Uniform numbers in (0, 1); a token is masked when its number is below p.

    Returns
    -------
    Tensor of bool, shape (batch, token)
        Masked tokens. With equal ``u``, those at a lower p are among those at a higher.

    Raises
    ------
    InputError, InputTypeError
        When the tensors do not fit.

    Examples
    --------
    >>> import torch
    >>> maskable = torch.tensor([[True, True, True, False]])
    >>> u = torch.tensor([[0.1, 0.7, 0.4, 0.2]])
    >>> bernoulli_mask(maskable, torch.tensor([0.5]), u).tolist()
    [[True, False, True, False]]
    """
    check_table("maskable", maskable, u=u)
    if p.shape != maskable.shape:
        check_rows(maskable, p=p)
    return maskable & (u < (p.unsqueeze(1) if p.dim() == 1 else p))


def exact_count_mask(
    maskable: Tensor, count: Tensor, u: Tensor, log_weight: Tensor | None = None
) -> Tensor:
    r"""Mask exactly ``count`` of the maskable tokens of each row.

    Without weights every subset of that size is as probable as any other. With weights
    :math:`w_i` the tokens are drawn one after the other without replacement, each with
    a probability in proportion to its weight among those left. That is the law of the
    k largest keys (Gumbel top-k)

    .. math:: g_i = \log w_i - \log(-\log u_i)

    Parameters
    ----------
    maskable : Tensor of bool, shape (batch, token)
        Tokens that may be masked.
    count : Tensor of int64, shape (batch,)
        Masks k, from 0 to the number of maskable tokens.
    u : Tensor, shape (batch, token)
        Uniform numbers in (0, 1).
    log_weight : Tensor, shape (token,) or (batch, token), optional
        Logarithms of the weights, finite, up to a constant per row.

    Returns
    -------
    Tensor of bool, shape (batch, token)
        Masked tokens. With equal ``u``, those of a lower count are among those of a
        higher.

    Raises
    ------
    InputError, InputTypeError
        When the tensors do not fit or a count is out of range.

    References
    ----------
    Kool, van Hoof and Welling, Stochastic beams and where to find them, ICML 2019.

    Examples
    --------
    >>> import torch
    >>> maskable = torch.tensor([[True, True, True, False]])
    >>> u = torch.tensor([[0.1, 0.7, 0.4, 0.9]])
    >>> exact_count_mask(maskable, torch.tensor([2]), u).tolist()
    [[False, True, True, False]]
    """
    check_table("maskable", maskable, u=u)
    check_rows(maskable, count=count)
    check_range("count", count, torch.zeros_like(count), maskable.sum(dim=1))
    return largest(maskable, count, _keys(maskable, u, log_weight))


def _keys(maskable: Tensor, u: Tensor, log_weight: Tensor | None) -> Tensor:
    # The Gumbel law grows with u, so that without weights u has the same order.
    if log_weight is None:
        return u
    if log_weight.shape not in (maskable.shape, maskable.shape[1:]):
        raise InputError(
            f"log_weight is {tuple(log_weight.shape)} and maskable "
            f"{tuple(maskable.shape)}; log_weight must have the same shape, or one "
            "value per token",
            where="log_weight",
        )
    return log_weight - (-u.to(torch.float64).log()).log()


def position_weighted_log_weight(
    block_size: int, share: Tensor, half_life: float = 0.25
) -> Tensor:
    r"""Weight the tokens of a block so that late ones are masked more often.

    .. math:: \log w_i(m) = \beta (1 - m) i, \qquad \beta = \frac{\ln 2}{h B}

    At m near 0 a weight doubles every h B tokens; at m = 1 all are equal. It mimics
    what decoding from left to right leaves for last.

    Parameters
    ----------
    block_size : int
        Tokens B of a block, at least 1.
    share : Tensor, shape (...,)
        Share m of the tokens that are masked.
    half_life : float, default 0.25
        h above 0, as a part of the block; infinite: all weights are equal.

    Returns
    -------
    Tensor of float64, shape (..., token)
        For :func:`exact_count_mask`.

    Raises
    ------
    InputError
        When a number is out of range.

    References
    ----------
    Efficient-DLM: from autoregressive to diffusion language models, and beyond in
    speed, arXiv:2512.14067, 2025.

    Examples
    --------
    >>> import torch
    >>> log_weight = position_weighted_log_weight(4, torch.tensor([0.0, 1.0]))
    >>> log_weight.exp().round(decimals=6).tolist()
    [[1.0, 2.0, 4.0, 8.0], [1.0, 1.0, 1.0, 1.0]]
    """
    if block_size < 1 or not half_life > 0:
        raise InputError(
            f"block_size is {block_size} and half_life {half_life}; block_size must be "
            "at least 1 and half_life above 0",
            where="position_weighted_log_weight",
        )
    beta = math.log(2) / (half_life * block_size)
    i = torch.arange(block_size, dtype=torch.float64, device=share.device)
    return beta * (1 - share.to(torch.float64)).unsqueeze(-1) * i


def complement(mask: Tensor, maskable: Tensor) -> Tensor:
    r"""Mask the maskable tokens that another mask leaves.

    .. math:: \bar S = A \setminus S

    The two masks share no token and together hide every maskable one, so that a pair of
    copies has each token as a target once. A copy at level t has its partner at 1 - t.

    Parameters
    ----------
    mask : Tensor of bool, shape (batch, token)
        Masked tokens S, all maskable.
    maskable : Tensor of bool, shape (batch, token)
        Tokens A that may be masked.

    Returns
    -------
    Tensor of bool, shape (batch, token)
        The other maskable tokens.

    Raises
    ------
    InputError, InputTypeError
        When the tensors do not fit.

    Examples
    --------
    >>> import torch
    >>> mask = torch.tensor([[True, False, False]])
    >>> complement(mask, torch.tensor([[True, True, False]])).tolist()
    [[False, True, False]]
    """
    check_table("maskable", maskable, mask=mask)
    return maskable & ~mask


def ensure_one(mask: Tensor, maskable: Tensor, u: Tensor) -> Tensor:
    """Mask one token in rows where none is masked: the one with the lowest number.

    For a mask of :func:`bernoulli_mask` from the same numbers this raises p just so far
    that one token is masked.

    Parameters
    ----------
    mask : Tensor of bool, shape (batch, token)
        Masked tokens.
    maskable : Tensor of bool, shape (batch, token)
        Tokens that may be masked.
    u : Tensor, shape (batch, token)
        Uniform numbers in (0, 1).

    Returns
    -------
    Tensor of bool, shape (batch, token)
        Masked tokens, at least one in each row with a maskable token. Weights 1/p of a
        loss are then a little biased: numbers to report come from exact counts.

    Raises
    ------
    InputError, InputTypeError
        When the tensors do not fit.

    Examples
    --------
    >>> import torch
    >>> maskable = torch.tensor([[True, True, False]])
    >>> u = torch.tensor([[0.9, 0.6, 0.3]])
    >>> ensure_one(torch.zeros_like(maskable), maskable, u).tolist()
    [[False, True, False]]
    """
    check_table("maskable", maskable, mask=mask, u=u)
    one = largest(maskable, torch.ones_like(mask[:, 0], dtype=torch.int64), -u)
    return mask | (one & ~mask.any(dim=1, keepdim=True))
