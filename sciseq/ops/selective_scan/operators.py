"""A compiled scan as an operator of torch: autograd, fake tensors, compilation.

Axes: ``batch``, ``group``, ``channel`` (of all groups), ``state``, ``length`` (tokens).
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from sciseq.errors import CapabilityError

__all__ = ["ScanOperator", "promoted", "refuse_second_derivatives", "reversed_bits"]

# Directions travel as the bits of a signed 64-bit number.
MOST_GROUPS = 63


class ScanOperator:
    """The operator ``sciseq::{name}_scan`` of a backend, a ``Scan`` as in groups.py.

    Parameters
    ----------
    name : str
        Name of the backend.
    compute : callable
        From ``u, dt, A, B, C, D`` of one dtype, the bits of the reversed groups, and
        whether to keep what the gradients need, to y and what was kept (a tensor). Its
        annotations become the schema of the operator.
    compute_gradients : callable
        From the gradient of y, the inputs, what was kept and the bits, to the gradients
        of the six inputs; that of D is always there.
    empty_kept : callable
        From ``u, A, B`` and whether to keep to an empty tensor like what is kept.
    empty_map : callable
        From B or C to an empty tensor like its gradient.
    device_types : sequence of str
        Where it computes.
    """

    def __init__(
        self,
        name: str,
        *,
        compute: Callable[..., tuple[Tensor, Tensor]],
        compute_gradients: Callable[..., list[Tensor]],
        empty_kept: Callable[[Tensor, Tensor, Tensor, bool], Tensor],
        empty_map: Callable[[Tensor], Tensor],
        device_types: Sequence[str],
    ) -> None:
        self.name = name
        self.compute = compute
        self.compute_gradients = compute_gradients
        options: Any = {"mutates_args": (), "device_types": device_types}
        forward = torch.library.custom_op(f"sciseq::{name}_scan", compute, **options)
        backward = torch.library.custom_op(
            f"sciseq::{name}_scan_backward", compute_gradients, **options
        )

        @forward.register_fake
        def _(
            u: Tensor,
            dt: Any,
            A: Tensor,
            B: Tensor,
            C: Any,
            D: Any,
            bits: int,
            keep: bool,
        ) -> tuple[Tensor, Tensor]:
            return torch.empty_like(u), empty_kept(u, A, B, keep)

        @backward.register_fake
        def _(
            grad_y: Any,
            u: Tensor,
            dt: Tensor,
            A: Tensor,
            B: Tensor,
            C: Tensor,
            *rest: Any,
        ) -> list[Tensor]:
            return [
                torch.empty_like(u),
                torch.empty_like(dt),
                u.new_empty(A.shape),
                empty_map(B),
                empty_map(C),
                u.new_empty(u.shape[1]),
            ]

        def keep_inputs(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
            *tensors, ctx.reverse, _ = inputs
            ctx.save_for_backward(*tensors, output[1])

        def gradients(ctx: Any, grad_y: Tensor, _: Tensor) -> tuple[Any, ...]:
            return (*_wanted(backward, ctx, grad_y), None, None)

        def refuse(ctx: Any, *gradients: Any) -> Any:
            refuse_second_derivatives(name)

        forward.register_autograd(gradients, setup_context=keep_inputs)
        backward.register_autograd(refuse)
        self._forward = forward

    def __call__(
        self,
        u: Tensor,
        dt: Tensor,
        A: Tensor,
        B: Tensor,
        C: Tensor,
        D: Tensor | None,
        reverse: Sequence[bool],
    ) -> Tensor:
        """Scan; y has the dtype of ``u`` and is computed in float32 at least."""
        inputs = promoted(u, dt, A, B, C, D)
        bits = reversed_bits(reverse, self.name)
        keep = torch.is_grad_enabled() and any(
            one is not None and one.requires_grad for one in inputs
        )
        if torch.compiler.is_compiling() or type(u) is not Tensor:
            y: Tensor = self._forward(*inputs, bits, keep)[0]
        else:
            # The same without the dispatcher, whose way to an operator written in
            # Python takes longer than a short scan.
            y = _EagerScan.apply(self, *inputs, bits, keep)  # type: ignore[no-untyped-call]
        return y.to(u.dtype)


class _EagerScan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, operator: ScanOperator, *arguments: Any) -> Tensor:
        y, kept = operator.compute(*arguments)
        *inputs, ctx.reverse, keep = arguments
        ctx.operator = operator
        if keep:
            ctx.save_for_backward(*inputs, kept)
        return y

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        if torch.is_grad_enabled():  # with create_graph=True
            refuse_second_derivatives(ctx.operator.name)
        return (
            None,
            *_wanted(ctx.operator.compute_gradients, ctx, grad_y),
            None,
            None,
        )


def _wanted(backward: Any, ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
    saved = ctx.saved_tensors  # u, dt, A, B, C, D, what was kept
    *gradients, grad_D = backward(grad_y, *saved, ctx.reverse)
    return (*gradients, None if saved[5] is None else grad_D)


def promoted(*tensors: Tensor | None) -> tuple[Tensor | None, ...]:
    """Bring tensors to their widest dtype, and to float32 at least.

    Examples
    --------
    >>> import torch
    >>> x, nothing = promoted(torch.zeros(1, dtype=torch.bfloat16), None)
    >>> x.dtype, nothing
    (torch.float32, None)
    """
    dtypes = (one.dtype for one in tensors if one is not None)
    dtype = functools.reduce(torch.promote_types, dtypes, torch.float32)
    return tuple(None if one is None else one.to(dtype) for one in tensors)


def reversed_bits(reverse: Sequence[bool], name: str) -> int:
    """Directions of the groups as a number: bit g is set when group g is reversed.

    Raises
    ------
    CapabilityError
        When there are more groups than bits.

    Examples
    --------
    >>> reversed_bits([False, True], "c")
    2
    """
    if len(reverse) > MOST_GROUPS:
        raise CapabilityError(
            f"B and C have {len(reverse)} groups, this backend takes {MOST_GROUPS}",
            where=f"selective_scan, backend {name!r}",
            hint="Use backend='reference', or several calls.",
        )
    return sum(flag << group for group, flag in enumerate(reverse))


def refuse_second_derivatives(name: str) -> None:
    """Say that a backend has first derivatives only, and what to do.

    Raises
    ------
    CapabilityError
        Always.
    """
    raise CapabilityError(
        f"the scan of backend {name!r} has first derivatives only",
        where=f"selective_scan, backend {name!r}",
        hint="Use backend='reference' (or SCISEQ_SCAN=reference) for higher ones.",
    )
