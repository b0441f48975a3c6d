"""The compiled scan as an operator of torch: autograd, fake tensors, compilation.

Axes: ``batch``, ``group``, ``channel`` (of all groups), ``state``, ``length`` (tokens).
"""

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sciseq.errors import CapabilityError, MissingDependencyError
from sciseq.ops.selective_scan import c_library

__all__ = ["convolution_silu", "gated_scan", "load", "refuse_second_derivatives"]


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
    return _scan


def _scan(
    u: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    reverse: Sequence[bool],
) -> Tensor:
    return _run((u, dt, A, B, C, D, None, None), reverse, has_softplus=False)


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
    return _run((u, d, A, B, C, D, dt_bias, z), reverse, has_softplus=True)


def _run(
    inputs: c_library.Inputs, reverse: Sequence[bool], *, has_softplus: bool
) -> Tensor:
    given = [one for one in inputs if one is not None]
    dtypes = (one.dtype for one in given)
    dtype = functools.reduce(torch.promote_types, dtypes, torch.float32)
    of_y = given[0].dtype
    if any(one.dtype != dtype for one in given):
        inputs = tuple(None if one is None else one.to(dtype) for one in inputs)
    bits = sum(flag << group for group, flag in enumerate(reverse))
    keep = torch.is_grad_enabled() and any(one.requires_grad for one in given)
    if torch.compiler.is_compiling() or type(given[0]) is not Tensor:
        y: Tensor = _forward(*inputs[:6], bits, keep)[0]
    else:
        # The same without the dispatcher, whose way to an operator written in Python
        # takes longer than a short scan.
        y = _EagerScan.apply(*inputs, has_softplus, bits, keep)  # type: ignore[no-untyped-call]
    return y.to(of_y)


class _EagerScan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        *inputs, has_softplus, reverse, keep = arguments
        u, A, B = inputs[0], inputs[2], inputs[3]
        checkpoints = _checkpoints(u, A, B, keep)
        y = c_library.scan_forward(
            tuple(inputs), reverse, checkpoints, has_softplus=has_softplus
        )
        if keep:
            ctx.save_for_backward(*inputs, checkpoints)
            ctx.has_softplus, ctx.reverse = has_softplus, reverse
        return y

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        if torch.is_grad_enabled():  # with create_graph=True
            refuse_second_derivatives()
        *inputs, checkpoints = ctx.saved_tensors
        gradients = c_library.scan_backward(
            grad_y,
            tuple(inputs),
            ctx.reverse,
            checkpoints,
            has_softplus=ctx.has_softplus,
        )
        wanted = (
            None if one is None else gradient
            for one, gradient in zip(inputs, gradients, strict=True)
        )
        return (*wanted, None, None, None)


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
    dtype = torch.promote_types(of_y, torch.float32)
    if any(one.dtype != dtype for one in given):
        x, weight = x.to(dtype), weight.to(dtype)
        bias = None if bias is None else bias.to(dtype)
    y: Tensor = _EagerConvolution.apply(x, weight, bias, reverse)  # type: ignore[no-untyped-call]
    return y.to(of_y)


class _EagerConvolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        x, weight, bias, ctx.reverse = arguments
        ctx.save_for_backward(x, weight, bias)
        return c_library.convolution_forward(x, weight, bias, ctx.reverse)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        if torch.is_grad_enabled():  # with create_graph=True
            refuse_second_derivatives()
        x, weight, bias = ctx.saved_tensors
        gradients = c_library.convolution_backward(grad_y, x, weight, bias, ctx.reverse)
        return (*gradients[:2], None if bias is None else gradients[2], None)


def _checkpoints(u: Tensor, A: Tensor, B: Tensor, keep: bool) -> Tensor:
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
    checkpoints = _checkpoints(u, A, B, keep)
    inputs = (u, dt, A, B, C, D, None, None)
    return c_library.scan_forward(inputs, reverse, checkpoints), checkpoints


def _compute_gradients(
    grad_y: Tensor,
    u: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    checkpoints: Tensor,
    reverse: int,
) -> list[Tensor]:
    inputs = (u, dt, A, B, C, D, None, None)
    return c_library.scan_backward(grad_y, inputs, reverse, checkpoints)[:6]


_forward = torch.library.custom_op(
    "sciseq::c_scan", _compute, mutates_args=(), device_types="cpu"
)
_backward = torch.library.custom_op(
    "sciseq::c_scan_backward", _compute_gradients, mutates_args=(), device_types="cpu"
)


@_forward.register_fake
def _(
    u: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    reverse: int,
    keep: bool,
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(u), _checkpoints(u, A, B, keep)


@_backward.register_fake
def _(
    grad_y: Tensor,
    u: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    checkpoints: Tensor,
    reverse: int,
) -> list[Tensor]:
    return [
        torch.empty_like(u),
        torch.empty_like(dt),
        torch.empty_like(A, memory_format=torch.contiguous_format),
        c_library.room_for_map(B, 1),
        c_library.room_for_map(C, 1),
        u.new_empty(u.shape[1]),
    ]


def _keep_inputs(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    *tensors, ctx.reverse, _ = inputs
    ctx.save_for_backward(*tensors, output[1])


def _gradients(ctx: Any, grad_y: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    *inputs, checkpoints = ctx.saved_tensors
    grads = _backward(grad_y, *inputs, checkpoints, ctx.reverse)
    return (*grads[:5], grads[5] if inputs[5] is not None else None, None, None)


def refuse_second_derivatives(*arguments: Any) -> Any:
    """Say that the compiled code has first derivatives only, and what to do.

    Raises
    ------
    CapabilityError
        Always.
    """
    raise CapabilityError(
        "the compiled scan has first derivatives only",
        where="selective_scan, backend 'c'",
        hint="Use backend='reference' (or SCISEQ_SCAN=reference) for higher ones.",
    )


_forward.register_autograd(_gradients, setup_context=_keep_inputs)
_backward.register_autograd(refuse_second_derivatives)
