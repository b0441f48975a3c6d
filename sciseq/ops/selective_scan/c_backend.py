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

__all__ = ["load"]


def load(device_type: str) -> Any:
    """Return the scan of this backend.

    Parameters
    ----------
    device_type : str
        Only ``"cpu"`` will do.

    Returns
    -------
    callable
        A :data:`~sciseq.ops.selective_scan.groups.Scan`.

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
    inputs = (u, dt, A, B, C) if D is None else (u, dt, A, B, C, D)
    dtypes = (tensor.dtype for tensor in inputs)
    dtype = functools.reduce(torch.promote_types, dtypes, torch.float32)
    bits = sum(flag << group for group, flag in enumerate(reverse))
    if any(one.dtype != dtype for one in inputs):
        u, dt, A, B, C = (one.to(dtype) for one in (u, dt, A, B, C))
        D = None if D is None else D.to(dtype)
    keep = torch.is_grad_enabled() and any(one.requires_grad for one in inputs)
    if torch.compiler.is_compiling() or type(u) is not Tensor:
        y: Tensor = _forward(u, dt, A, B, C, D, bits, keep)[0]
    else:
        # The same without the dispatcher, whose way to an operator written in Python
        # takes longer than a short scan.
        y = _EagerScan.apply(u, dt, A, B, C, D, bits, keep)  # type: ignore[no-untyped-call]
    return y.to(inputs[0].dtype)


class _EagerScan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        y, checkpoints = _compute(*arguments)
        *inputs, ctx.reverse, keep = arguments
        if keep:
            ctx.save_for_backward(*inputs, checkpoints)
        return y

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        if torch.is_grad_enabled():  # with create_graph=True
            _refuse(ctx)
        saved = ctx.saved_tensors  # u, dt, A, B, C, D, checkpoints
        grads = _compute_gradients(grad_y, *saved, ctx.reverse)
        return (*grads[:5], grads[5] if saved[5] is not None else None, None, None)


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
    inputs = (u, dt, A, B, C) if D is None else (u, dt, A, B, C, D)
    checkpoints = u.new_empty(
        c_library.checkpoint_size(u, A, B.shape[1]) if keep else 0
    )
    return c_library.run_forward(inputs, reverse, checkpoints), checkpoints


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
    inputs = (u, dt, A, B, C) if D is None else (u, dt, A, B, C, D)
    return [*c_library.run_backward(grad_y, inputs, reverse, checkpoints)]


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
    size = c_library.checkpoint_size(u, A, B.shape[1]) if keep else 0
    return torch.empty_like(u), u.new_empty(size)


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


def _refuse(ctx: Any, *grads: Any) -> Any:
    raise CapabilityError(
        "the compiled scan has first derivatives only",
        where="selective_scan, backend 'c'",
        hint="Use backend='reference' (or SCISEQ_SCAN=reference) for higher ones.",
    )


_forward.register_autograd(_gradients, setup_context=_keep_inputs)
_backward.register_autograd(_refuse)
