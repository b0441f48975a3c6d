r"""Which hidden tokens a parallel decoder reveals next: scores and amounts.

A score says how sure the network is of a position. An amount takes the best scores of
each row among the positions that are still masked. Rows are independent of each other;
of equal scores the first position is taken first.

Axes: ``batch`` (rows), ``token``, ``symbol`` (V of the vocabulary). Symbols:
:math:`p_i` law of position i, c its score.
"""

import torch
from torch import Tensor

from sciseq.errors import InputError, nearest_name
from sciseq.generation.parts.tables import check_rows, check_table, largest

__all__ = [
    "ORDERS",
    "confidence",
    "entropy_bound",
    "factor",
    "margin",
    "negative_entropy",
    "scores",
    "threshold",
    "top_n",
]

ORDERS = ("confidence", "margin", "entropy", "random")

# --- Scores --------------------------------------------------------------------------


def scores(
    order: str,
    logits: Tensor,
    *,
    chosen: Tensor | None = None,
    u: Tensor | None = None,
) -> Tensor:
    """Score every position by the name of an order.

    Parameters
    ----------
    order : {"confidence", "margin", "entropy", "random"}
        Which score; with ``"entropy"`` the least uncertain positions come first.
    logits : Tensor, shape (batch, token, symbol)
        Output of the network; minus infinity: a symbol that cannot be.
    chosen : Tensor of int64, shape (batch, token), optional
        Symbols that were drawn, for ``"confidence"``.
    u : Tensor, shape (batch, token), optional
        Uniform numbers, which are the scores of ``"random"``.

    Returns
    -------
    Tensor of float64, shape (batch, token)
        Scores, the highest first to be revealed.

    Raises
    ------
    InputError
        When the order is unknown or ``u`` is missing.

    Examples
    --------
    >>> import torch
    >>> logits = torch.tensor([[[0.0, 0.0], [0.0, 1.0]]])
    >>> scores("entropy", logits).round(decimals=3).tolist()
    [[-0.693, -0.582]]
    """
    if order == "confidence":
        return confidence(logits, chosen)
    if order == "margin":
        return margin(logits)
    if order == "entropy":
        return negative_entropy(logits)
    if order != "random":
        raise InputError(
            f"order is {order!r}; must be one of {', '.join(ORDERS)}",
            where="order",
            hint=nearest_name(order, ORDERS),
        )
    if u is None or u.shape != logits.shape[:-1]:
        raise InputError(
            "order is 'random', which needs one number u per position", where="u"
        )
    return u.to(torch.float64)


def confidence(logits: Tensor, chosen: Tensor | None = None) -> Tensor:
    r"""Score positions by the probability of their symbol.

    .. math:: c_i = \max_v p_i(v) \quad\text{or}\quad c_i = p_i(\hat x_i)

    Parameters
    ----------
    logits : Tensor, shape (batch, token, symbol)
        Output of the network.
    chosen : Tensor of int64, shape (batch, token), optional
        Symbols that were drawn; without them the most probable ones.

    Returns
    -------
    Tensor of float64, shape (batch, token)
        Probabilities.

    Examples
    --------
    >>> import torch
    >>> logits = torch.tensor([[[0.75, 0.25]]], dtype=torch.float64).log()
    >>> confidence(logits).round(decimals=6).tolist()
    [[0.75]]
    >>> confidence(logits, torch.tensor([[1]])).round(decimals=6).tolist()
    [[0.25]]
    """
    p = logits.to(torch.float64).softmax(dim=-1)
    if chosen is None:
        return p.amax(dim=-1)
    return p.gather(-1, chosen.unsqueeze(-1)).squeeze(-1)


def margin(logits: Tensor) -> Tensor:
    r"""Score positions by how far the best symbol is ahead.

    .. math:: c_i = p_i(v_1) - p_i(v_2)

    with the two most probable symbols :math:`v_1, v_2`.

    Parameters
    ----------
    logits : Tensor, shape (batch, token, symbol)
        Output of the network; a single symbol is ahead by all.

    Returns
    -------
    Tensor of float64, shape (batch, token)
        Differences from 0 to 1.

    Examples
    --------
    >>> import torch
    >>> margin(torch.tensor([[[0.5, 0.25, 0.25]]]).log()).round(decimals=6).tolist()
    [[0.25]]
    """
    p = logits.to(torch.float64).softmax(dim=-1)
    best: Tensor = torch.nn.functional.pad(p, (0, 1)).topk(2, dim=-1).values
    return best[..., 0] - best[..., 1]


def negative_entropy(logits: Tensor) -> Tensor:
    r"""Score positions by their entropy, the least first.

    .. math:: c_i = -H_i = \sum_v p_i(v) \log p_i(v)

    Parameters
    ----------
    logits : Tensor, shape (batch, token, symbol)
        Output of the network; minus infinity adds nothing.

    Returns
    -------
    Tensor of float64, shape (batch, token)
        Numbers from minus log V to 0, in nats.

    Examples
    --------
    >>> import torch
    >>> logits = torch.tensor([[[0.0, 0.0, -torch.inf]]])
    >>> negative_entropy(logits).exp().round(decimals=6).tolist()
    [[0.5]]
    """
    p = logits.to(torch.float64).softmax(dim=-1)
    entropy: Tensor = torch.special.entr(p).sum(dim=-1)
    return -entropy


# --- Amounts -------------------------------------------------------------------------


def top_n(scores: Tensor, is_masked: Tensor, n: Tensor | int) -> Tensor:
    """Reveal the n best positions of each row.

    Parameters
    ----------
    scores : Tensor, shape (batch, token)
        Finite where masked.
    is_masked : Tensor of bool, shape (batch, token)
        Positions that can be revealed.
    n : Tensor of int64, shape (batch,), or int
        How many; all masked positions where there are fewer.

    Returns
    -------
    Tensor of bool, shape (batch, token)
        Positions to reveal.

    Raises
    ------
    InputError, InputTypeError
        When the tensors do not fit.

    Examples
    --------
    >>> import torch
    >>> scores = torch.tensor([[0.9, 0.3, 0.5]])
    >>> top_n(scores, torch.tensor([[False, True, True]]), 1).tolist()
    [[False, False, True]]
    """
    check_table("is_masked", is_masked, scores=scores)
    if isinstance(n, int):
        n = torch.full((len(scores),), n, device=scores.device)
    check_rows(is_masked, n=n)
    return largest(is_masked, n, scores)


def threshold(scores: Tensor, is_masked: Tensor, tau: float) -> Tensor:
    r"""Reveal every position with a score above a threshold, and at least the best.

    .. math:: \{i : c_i > \tau\} \cup \{\arg\max_i c_i\}

    Parameters
    ----------
    scores : Tensor, shape (batch, token)
        Finite where masked.
    is_masked : Tensor of bool, shape (batch, token)
        Positions that can be revealed.
    tau : float
        The threshold; 0.9 is common for ``confidence``.

    Returns
    -------
    Tensor of bool, shape (batch, token)
        Positions to reveal, at least one in each row with a masked one.

    Raises
    ------
    InputError, InputTypeError
        When the tensors do not fit.

    Examples
    --------
    >>> import torch
    >>> scores = torch.tensor([[0.95, 0.3, 0.5], [0.2, 0.1, 0.99]])
    >>> is_masked = torch.tensor([[True, True, True], [True, True, False]])
    >>> threshold(scores, is_masked, 0.4).tolist()
    [[True, False, True], [True, False, False]]
    """
    return top_n(scores, is_masked, 1) | (is_masked & (scores > tau))


def factor(scores: Tensor, is_masked: Tensor, f: float) -> Tensor:
    r"""Reveal more positions the surer the network is of the least sure of them.

    .. math:: n = \max\{n : (n + 1)(1 - c_{(n)}) < f\}

    with the confidences :math:`c_{(1)} \ge c_{(2)} \ge \dots` of the masked positions;
    the best n are revealed, and at least one.

    Parameters
    ----------
    scores : Tensor, shape (batch, token)
        Confidences, from 0 to 1.
    is_masked : Tensor of bool, shape (batch, token)
        Positions that can be revealed.
    f : float
        The factor, above 0.

    Returns
    -------
    Tensor of bool, shape (batch, token)
        Positions to reveal, at least one in each row with a masked one.

    Raises
    ------
    InputError, InputTypeError
        When the tensors do not fit.

    References
    ----------
    Fast-dLLM: training-free acceleration of diffusion LLM by enabling KV cache and
    parallel decoding, arXiv:2505.22618, 2025.

    Examples
    --------
    >>> import torch
    >>> scores = torch.tensor([[0.9, 0.8, 0.7]])  # 2 * 0.1, 3 * 0.2, 4 * 0.3
    >>> factor(scores, torch.ones(1, 3, dtype=torch.bool), 1.0).tolist()
    [[True, True, False]]
    """
    check_table("is_masked", is_masked, scores=scores)
    best = scores.where(is_masked, -torch.inf).sort(dim=1, descending=True).values
    n = torch.arange(1, scores.shape[1] + 1, device=scores.device)
    # The left side grows with n, so that counting finds the largest n.
    n_chosen = ((n + 1) * (1 - best) < f).sum(dim=1)
    return top_n(scores, is_masked, n_chosen.clamp(min=1))


def entropy_bound(scores: Tensor, is_masked: Tensor, gamma: float) -> Tensor:
    r"""Reveal as many positions as their joint uncertainty allows.

    .. math:: n = \max\left\{n : \sum_{j=1}^{n} H_{(j)} - H_{(n)} \le \gamma\right\}

    with the entropies :math:`H_{(1)} \le H_{(2)} \le \dots` of the masked positions;
    the n least uncertain are revealed, which is always at least one.

    Parameters
    ----------
    scores : Tensor, shape (batch, token)
        Negative entropies, of :func:`negative_entropy`.
    is_masked : Tensor of bool, shape (batch, token)
        Positions that can be revealed.
    gamma : float
        The bound in nats, at least 0. At 0 one position is revealed, besides those
        that are certain.

    Returns
    -------
    Tensor of bool, shape (batch, token)
        Positions to reveal.

    Raises
    ------
    InputError, InputTypeError
        When the tensors do not fit or the bound is below 0.

    Examples
    --------
    >>> import torch
    >>> scores = -torch.tensor([[0.3, 0.1, 0.2, 0.9]])
    >>> entropy_bound(scores, torch.ones(1, 4, dtype=torch.bool), 0.35).tolist()
    [[True, True, True, False]]
    """
    check_table("is_masked", is_masked, scores=scores)
    if not gamma >= 0:
        raise InputError(f"gamma is {gamma}; must be at least 0", where="gamma")
    best = scores.where(is_masked, -torch.inf).sort(dim=1, descending=True).values
    entropies = -best.where(best > -torch.inf, 0.0).to(torch.float64)
    # The largest of n entropies is the last, so that the sum of those before remains.
    before = torch.nn.functional.pad(entropies.cumsum(dim=1), (1, -1))
    return top_n(scores, is_masked, (before <= gamma).sum(dim=1))
