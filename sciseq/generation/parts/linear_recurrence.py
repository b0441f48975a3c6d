"""Linear recurrences over the tokens of packed rows that open with a prefix.

Axes: ``row``, ``token`` (t), ``d_state`` (n). A row holds one sample laid out as
[inputs | BEGIN | labels without the last], or several of them one after the other. The
prefix is the inputs, the first P tokens; the causal area starts at BEGIN.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["StateCarry", "linear_recurrence", "prefix_carry", "state_carry"]


def linear_recurrence(decay: Tensor, drive: Tensor, *, reverse: bool = False) -> Tensor:
    r"""Run an elementwise linear recurrence over the tokens, all at once.

    .. math:: h_t = a_t \odot h_{t-1} + b_t, \qquad h_{-1} = 0

    Parameters
    ----------
    decay, drive : Tensor, shape (row, token, d_state)
        Decays :math:`a` and inputs :math:`b`.
    reverse : bool, default False
        Run from the last token to the first, :math:`h_t = a_t \odot h_{t+1} + b_t`.

    Returns
    -------
    Tensor, shape (row, token, d_state)
        The states :math:`h`.

    Notes
    -----
    Neighbouring tokens are joined in pairs until one is left: a number of operations
    that grows with the logarithm of the length, and work that grows with the length.
    There is no division, so decays may be zero. Differentiable any number of times; the
    backward pass is the same recurrence in the other direction.

    Examples
    --------
    >>> import torch
    >>> drive = torch.tensor([[[1.0], [0.0], [0.0]]])
    >>> linear_recurrence(torch.full((1, 3, 1), 0.5), drive).flatten().tolist()
    [1.0, 0.5, 0.25]
    """
    if reverse:
        return _run(decay.flip(1), drive.flip(1)).flip(1)
    return _run(decay, drive)


def _run(decay: Tensor, drive: Tensor) -> Tensor:
    states: Tensor = _Recurrence.apply(decay, drive)  # type: ignore[no-untyped-call]
    return states


class _Recurrence(torch.autograd.Function):
    # Autograd through the pairs would keep every level; this keeps decay and state.

    @staticmethod
    def forward(ctx: Any, decay: Tensor, drive: Tensor) -> Tensor:
        states = _scan(decay, drive)
        ctx.save_for_backward(decay, states)
        return states

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        decay, states = ctx.saved_tensors
        # g_t = grad_t + a_{t+1} g_{t+1}; the first token has no state before it.
        following = F.pad(decay[:, 1:], (0, 0, 0, 1))
        g = linear_recurrence(following, grad, reverse=True)
        before = F.pad(states[:, :-1], (0, 0, 1, 0))
        return g * before, g


def _scan(a: Tensor, b: Tensor) -> Tensor:
    n_tokens = a.shape[1]
    if n_tokens < 2:
        return b.clone()
    n_pairs = n_tokens // 2
    first, second = slice(0, 2 * n_pairs, 2), slice(1, None, 2)
    # h_{t+1} = (a_{t+1} a_t) h_{t-1} + (a_{t+1} b_t + b_{t+1}): half as many tokens
    joined = torch.addcmul(b[:, second], a[:, second], b[:, first])
    states = torch.empty_like(b)
    states[:, second] = _scan(a[:, second] * a[:, first], joined)
    states[:, 0] = b[:, 0]
    odd = states[:, 1 : n_tokens - 1 : 2]  # the states before tokens 2, 4, ...
    states[:, 2::2] = torch.addcmul(b[:, 2::2], a[:, 2::2], odd)
    return states


class StateCarry(NamedTuple):
    """Which tokens take over the state of a neighbour.

    Parameters
    ----------
    forward : Tensor of bool, shape (row, token)
        True where a token takes over the left-to-right state of the token before.
    backward : Tensor of bool, shape (row, token)
        True where a token takes over the right-to-left state of the token after.
    """

    forward: Tensor
    backward: Tensor


def state_carry(
    in_prefix: Tensor, sample: Tensor | None = None, *, has_begin: bool = True
) -> StateCarry:
    """Say where states go on, from the prefixes and the packing of rows.

    Left to right a state goes on inside its sample. Right to left it goes on inside the
    prefix alone; in the causal area the forget gate is zero.

    Parameters
    ----------
    in_prefix : Tensor of bool, shape (row, token)
        True in prefixes, False from BEGIN (inclusive) on.
    sample : Tensor of int64, shape (row, token), optional
        A number for each sample packed into a row; one sample per row when None.
    has_begin : bool, default True
        Whether a constant BEGIN stands first in every causal area. Then the last token
        of the prefix may read it. Otherwise that token would read the first label, so
        that this carry is cut too.

    Returns
    -------
    StateCarry
        What ``GatedRecurrence`` takes.

    Examples
    --------
    >>> import torch
    >>> carry = state_carry(torch.tensor([[True, True, False, False]]))
    >>> carry.forward.int().tolist(), carry.backward.int().tolist()
    ([[0, 1, 1, 1]], [[1, 1, 0, 0]])
    """
    if sample is None:
        joined = torch.ones_like(in_prefix[:, 1:])
    else:
        joined = sample[:, 1:] == sample[:, :-1]  # tokens t and t+1
    backward = in_prefix[:, :-1] & joined
    if not has_begin:
        backward = backward & in_prefix[:, 1:]
    # The first token has nothing before it, the last one nothing after it.
    return StateCarry(F.pad(joined, (1, 0)), F.pad(backward, (0, 1)))


def prefix_carry(
    prefix: Tensor, n_tokens: int, *, has_begin: bool = True
) -> StateCarry:
    """Say where states go on in rows of one sample with prefixes of their own lengths.

    Parameters
    ----------
    prefix : Tensor of int64, shape (row,)
        Length P of the prefix of each row; token P is BEGIN.
    n_tokens : int
        Tokens of a row, padding at its end included.
    has_begin : bool, default True
        As in :func:`state_carry`.

    Returns
    -------
    StateCarry
        What ``GatedRecurrence`` takes.

    Examples
    --------
    >>> import torch
    >>> prefix_carry(torch.tensor([0, 2]), 4).backward.int().tolist()
    [[0, 0, 0, 0], [1, 1, 0, 0]]
    """
    places = torch.arange(n_tokens, device=prefix.device)
    return state_carry(places < prefix[:, None], has_begin=has_begin)
