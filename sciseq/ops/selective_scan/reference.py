"""Selective scan as a loop over the tokens: the definition every backend must equal.

Axes: ``batch``, ``channel`` (inner width Di), ``length`` (tokens N), ``state`` (n).
"""

import functools

import torch
from torch import Tensor

__all__ = ["selective_scan_reference"]


def selective_scan_reference(
    u: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
) -> Tensor:
    r"""Run the selective state-space recurrence token by token.

    .. math::

        h_t &= \exp(dt_t A) \odot h_{t-1} + (dt_t u_t) \otimes B_t, \qquad h_0 = 0 \\
        y_t &= \langle h_t, C_t \rangle_{state} + D \odot u_t

    Parameters
    ----------
    u, dt : Tensor, shape (batch, channel, length)
        Input and positive step sizes.
    A : Tensor, shape (channel, state)
        Continuous-time decay rates, negative.
    B, C : Tensor, shape (batch, state, length)
        Input and output maps, one per token.
    D : Tensor, shape (channel,), optional
        Skip weights; no skip when None.

    Returns
    -------
    Tensor, shape (batch, channel, length)
        ``y`` in the dtype of ``u``. The state is kept in the widest dtype of the
        inputs and never below float32, also under autocast.

    Notes
    -----
    Card: forecasting §1, steps 6 and 7 (Gu and Dao, arXiv:2312.00752). Differentiable
    any number of times. The forward pass holds one (batch, state, channel) state at a
    time; autograd keeps a fixed number of such tensors per token.

    Examples
    --------
    >>> import torch
    >>> u = torch.tensor([[[1.0, 0.0, 0.0]]])
    >>> dt, A = torch.ones(1, 1, 3), torch.tensor([[-1.0]]) * torch.log(torch.tensor(2))
    >>> B = C = torch.ones(1, 1, 3)
    >>> [round(value, 3) for value in selective_scan_reference(u, dt, A, B, C).flatten(
    ...     ).tolist()]
    [1.0, 0.5, 0.25]
    """
    inputs = (u, dt, A, B, C) if D is None else (u, dt, A, B, C, D)
    dtypes = (tensor.dtype for tensor in inputs)
    state_dtype = functools.reduce(torch.promote_types, dtypes, torch.float32)
    # Autocast lowers matrix products only, and the loop has none.
    return _scan(*(tensor.to(state_dtype) for tensor in inputs)).to(u.dtype)


def _scan(
    u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None = None
) -> Tensor:
    # The state axis is small: with channel innermost every product runs over long
    # contiguous rows. Unbinding once keeps the backward pass linear in the length.
    x = dt * u  # (batch, channel, length)
    A = A.T.contiguous()  # (state, channel)
    h = x.new_zeros(u.shape[0], *A.shape)  # (batch, state, channel)
    outputs = []
    for x_t, dt_t, B_t, C_t in zip(*map(_tokens, (x, dt, B, C)), strict=True):
        h = torch.exp(dt_t[:, None, :] * A) * h + x_t[:, None, :] * B_t[:, :, None]
        outputs.append((h * C_t[:, :, None]).sum(1))
    y = torch.stack(outputs, 1).mT if outputs else x  # (batch, channel, length)
    return y if D is None else y + D[:, None] * u


def _tokens(tensor: Tensor) -> tuple[Tensor, ...]:
    # (batch, channel or state, length) -> length times (batch, channel or state)
    return tensor.mT.unbind(1)
