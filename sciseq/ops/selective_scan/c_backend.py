"""The scan in C, with what stands around it in a Mamba block.

Axes: ``batch``, ``group``, ``channel`` (of all groups), ``state``, ``length`` (tokens).
"""

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sciseq.errors import MissingDependencyError
from sciseq.ops.selective_scan import c_library
from sciseq.ops.selective_scan.operators import (
    ScanOperator,
    promoted,
    refuse_second_derivatives,
    reversed_bits,
)

__all__ = ["convolution_silu", "empty_checkpoints", "gated_scan", "load"]


def load(device_type: str) -> Any:
    """Return the scan of this backend.

    Parameters
    ----------
    device_type : str
        Only ``"cpu"`` will do.

    Returns
    -------
    callable
        A ``Scan`` as in ``groups.py``.

    Raises
    ------
    MissingDependencyError
        On another device, or when the library was not built.
    """
    if device_type != "cpu":
        raise MissingDependencyError("it computes on the processor")
    c_library.library()
    return _OPERATOR


def gated_scan(
    u: Tensor,
    d: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    dt_bias: Tensor | None,
    z: Tensor | None,
    reverse: Sequence[bool],
) -> Tensor:
    """Scan with softplus before it and the gate behind it; not for the compiler."""
    inputs = promoted(u, d, A, B, C, D, dt_bias, z)
    bits = reversed_bits(reverse, "c")
    keep = torch.is_grad_enabled() and any(
        one is not None and one.requires_grad for one in inputs
    )
    y: Tensor = _GatedScan.apply(*inputs, bits, keep)  # type: ignore[no-untyped-call]
    return y.to(u.dtype)


class _GatedScan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        *inputs, ctx.reverse, keep = arguments
        kept = empty_checkpoints(inputs[0], inputs[2], inputs[3], keep)
        y = c_library.scan_forward(tuple(inputs), ctx.reverse, kept, has_softplus=True)
        if keep:
            ctx.save_for_backward(*inputs, kept)
        return y

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        if torch.is_grad_enabled():  # with create_graph=True
            refuse_second_derivatives("c")
        *inputs, kept = ctx.saved_tensors
        gradients = c_library.scan_backward(
            grad_y, tuple(inputs), ctx.reverse, kept, has_softplus=True
        )
        wanted = (
            None if one is None else gradient
            for one, gradient in zip(inputs, gradients, strict=True)
        )
        return (*wanted, None, None)


def convolution_silu(
    x: Tensor, weight: Tensor, bias: Tensor | None, reverse: bool
) -> Tensor:
    """SiLU of a causal depthwise convolution; not for the compiler.

    Parameters
    ----------
    x : Tensor, shape (batch, channel, length)
        Tokens.
    weight : Tensor, shape (channel, tap)
        Kernels.
    bias : Tensor, shape (channel,), optional
        Offsets.
    reverse : bool
        Whether the past of a token are those after it.

    Returns
    -------
    Tensor, shape (batch, channel, length)
        In the widest dtype of the arguments.
    """
    given = (x, weight) if bias is None else (x, weight, bias)
    of_y = functools.reduce(torch.promote_types, (one.dtype for one in given))
    inputs = promoted(x, weight, bias)
    y: Tensor = _Convolution.apply(*inputs, reverse)  # type: ignore[no-untyped-call]
    return y.to(of_y)


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        x, weight, bias, ctx.reverse = arguments
        ctx.save_for_backward(x, weight, bias)
        return c_library.convolution_forward(x, weight, bias, ctx.reverse)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        if torch.is_grad_enabled():  # with create_graph=True
            refuse_second_derivatives("c")
        x, weight, bias = ctx.saved_tensors
        gradients = c_library.convolution_backward(grad_y, x, weight, bias, ctx.reverse)
        return (*gradients[:2], None if bias is None else gradients[2], None)


def empty_checkpoints(u: Tensor, A: Tensor, B: Tensor, keep: bool) -> Tensor:
    """Room for what the forward pass keeps, none when nothing is to be kept."""
    return u.new_empty(c_library.checkpoint_size(u, A, B.shape[1]) if keep else 0)


def _compute(
    u: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    reverse: int,
    keep: bool,
) -> tuple[Tensor, Tensor]:
    kept = empty_checkpoints(u, A, B, keep)
    return c_library.scan_forward((u, dt, A, B, C, D, None, None), reverse, kept), kept


def _compute_gradients(
    grad_y: Tensor,
    u: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    kept: Tensor,
    reverse: int,
) -> list[Tensor]:
    inputs = (u, dt, A, B, C, D, None, None)
    return c_library.scan_backward(grad_y, inputs, reverse, kept)[:6]


_OPERATOR = ScanOperator(
    "c",
    compute=_compute,
    compute_gradients=_compute_gradients,
    empty_kept=empty_checkpoints,
    empty_map=c_library.room_for_map,
    device_types=("cpu",),
)
