"""What lies between the two outer projections of a Mamba block.

Axes: ``batch``, ``token`` (N, the ``length`` of the scan), ``channel`` (Di), ``state``
(n), ``r`` (rank of the step sizes).
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sciseq.ops.causal_convolution import causal_convolution_silu
from sciseq.ops.selective_scan import gated_selective_scan, is_fused

__all__ = ["mamba_inner"]


def mamba_inner(
    xz: Tensor,
    convolution: tuple[Tensor, Tensor | None],
    W_x: Tensor,
    W_dt: Tensor,
    dt_bias: Tensor,
    A_log: Tensor,
    D: Tensor,
    *,
    reverse: bool = False,
) -> Tensor:
    r"""Convolve, choose step sizes and maps from the result, scan, and gate.

    .. math::

        x' &= \mathrm{SiLU}(\mathrm{conv}_k(x)), \quad [d, B, C] = x' W_x \\
        y &= \mathrm{scan}(x', \mathrm{softplus}(d W_{dt} + b_{dt}), A, B, C, D)
             \odot \mathrm{SiLU}(z), \quad A = -\exp(A_{log})

    Parameters
    ----------
    xz : Tensor, shape (batch, token, 2 channel)
        Tokens x and gates z, side by side.
    convolution : (Tensor, Tensor or None), shapes (channel, 1, k) and (channel,)
        Kernels and offsets of the causal convolution.
    W_x : Tensor, shape (r + 2 state, channel)
        Projection to the step sizes and maps.
    W_dt : Tensor, shape (channel, r)
        Projection of the step sizes.
    dt_bias, D : Tensor, shape (channel,)
        Offset of the step sizes, and skip weights.
    A_log : Tensor, shape (channel, state)
        Logarithms of the decay rates without their sign.
    reverse : bool, default False
        Run from the last token to the first.

    Returns
    -------
    Tensor, shape (batch, token, channel)
        Gated tokens.

    Notes
    -----
    Card: forecasting §1, steps 2 to 8. Step sizes, decay rates and the state stay in
    float32 under autocast. Where the scan's backend ``"c"`` is taken, and all inputs
    have one dtype, everything is one step of autograd that keeps no more than it needs
    and writes each gradient once.

    Examples
    --------
    >>> import torch
    >>> y = mamba_inner(
    ...     torch.ones(1, 3, 2), (torch.ones(1, 1, 2), None), torch.ones(3, 1),
    ...     torch.ones(1, 1), torch.zeros(1), torch.zeros(1, 1), torch.ones(1),
    ... )
    >>> y.shape
    torch.Size([1, 3, 1])
    """
    weight, bias = convolution
    given = (xz, weight, W_x, W_dt, dt_bias, A_log, D)
    if is_fused(xz) and _have_one_dtype(given):
        keep = torch.is_grad_enabled() and any(one.requires_grad for one in given)
        y: Tensor = _Inner.apply(  # type: ignore[no-untyped-call]
            xz, weight[:, 0], bias, W_x, W_dt, dt_bias, A_log, D, reverse, keep
        )
        return y
    x, z = xz.chunk(2, dim=-1)
    x = causal_convolution_silu(x, weight, bias, reverse=reverse)
    n_states = A_log.shape[1]
    d, B, C = torch.split(F.linear(x, W_x), [W_dt.shape[1], n_states, n_states], -1)
    with torch.autocast(xz.device.type, enabled=False):
        d, A = F.linear(d.to(W_dt.dtype), W_dt), -torch.exp(A_log)
        # The scan wants (batch, channel or state, length).
        return gated_selective_scan(
            x.mT, d.mT, A, B.mT, C.mT, D, dt_bias, z.mT, reverse=reverse
        ).mT


def _have_one_dtype(tensors: tuple[Tensor, ...]) -> bool:
    """Whether all are of one type that the library computes in, also under autocast."""
    dtype = tensors[0].dtype
    return (
        dtype in (torch.float32, torch.float64)
        and all(one.dtype == dtype for one in tensors)
        and not torch.is_autocast_enabled(tensors[0].device.type)
    )


class _Inner(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        from sciseq.ops.selective_scan import c_library

        xz, kernels, bias, W_x, W_dt, dt_bias, A_log, D, reverse, keep = arguments
        A = A_log.exp().neg_()
        x_in, z = (one.mT for one in xz.chunk(2, -1))
        x = c_library.convolution_forward(x_in, kernels, bias, reverse)
        maps = _rows(x) @ W_x.T  # d, B and C, (batch x token, r + 2 state)
        d = (maps[:, : W_dt.shape[1]] @ W_dt.T).view(*xz.shape[:2], len(W_dt)).mT
        inputs = (x, d, A, *_maps(maps, xz, A), D, dt_bias, z)
        checkpoints = x.new_empty(c_library.checkpoint_size(x, A, 1) if keep else 0)
        y = c_library.scan_forward(inputs, reverse, checkpoints, has_softplus=True)
        if keep:
            ctx.save_for_backward(
                xz, kernels, bias, W_x, W_dt, dt_bias, A, D, x, maps, d, checkpoints
            )
            ctx.reverse = reverse
        return y.mT

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        from sciseq.ops.selective_scan import c_library
        from sciseq.ops.selective_scan.operators import refuse_second_derivatives

        if torch.is_grad_enabled():  # with create_graph=True
            refuse_second_derivatives("c")
        saved = ctx.saved_tensors
        xz, kernels, bias, W_x, W_dt, dt_bias, A, D, x, maps, d, checkpoints = saved
        rank = W_dt.shape[1]
        # Gradients of parts of a tensor are written where they belong.
        grad_xz, grad_maps = torch.empty_like(xz), torch.empty_like(maps)
        x_in, z = (one.mT for one in xz.chunk(2, -1))
        grad_x_in, grad_z = (one.mT for one in grad_xz.chunk(2, -1))
        grad_B, grad_C = _maps(grad_maps, xz, A)
        grads = c_library.scan_backward(
            grad_y.mT,
            (x, d, A, *_maps(maps, xz, A), D, dt_bias, z),
            ctx.reverse,
            checkpoints,
            has_softplus=True,
            rooms={"B": grad_B, "C": grad_C, "z": grad_z},
        )
        grad_x, grad_d, grad_A, _, _, grad_D, grad_dt_bias, _ = grads
        grad_d = _rows(grad_d)
        torch.mm(grad_d, W_dt, out=grad_maps[:, :rank])
        grad_dt_weight = grad_d.T @ maps[:, :rank]
        grad_x_weight = grad_maps.T @ _rows(x)
        _rows(grad_x).addmm_(grad_maps, W_x)
        _, grad_kernels, grad_bias = c_library.convolution_backward(
            grad_x, x_in, kernels, bias, ctx.reverse, room=grad_x_in
        )
        return (
            grad_xz,
            grad_kernels,
            None if bias is None else grad_bias,
            grad_x_weight,
            grad_dt_weight,
            grad_dt_bias,
            grad_A.mul_(A),  # of A_log
            grad_D,
            None,
            None,
        )


def _rows(x: Tensor) -> Tensor:
    # (batch, channel, token), stored by tokens -> (batch x token, channel)
    return x.mT.view(-1, x.shape[1])


def _maps(maps: Tensor, xz: Tensor, A: Tensor) -> tuple[Tensor, ...]:
    # (batch x token, r + 2 state) -> B and C (batch, 1, state, token)
    n_states = A.shape[1]
    pair = maps[:, -2 * n_states :].view(*xz.shape[:2], 2, n_states)
    return tuple(one.mT[:, None] for one in pair.unbind(2))
