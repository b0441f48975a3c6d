"""The scan of the package ``mamba_ssm``, on GPUs where it is installed.

Axes: ``batch``, ``group``, ``channel`` (of all groups), ``state``, ``length`` (tokens).

The package takes groups, but one direction only, and 32 bits at most. Reversed groups
are flipped before and after. Inputs of float64, empty ones and more than 256 states go
to the reference: nothing is rounded behind the caller's back. It wants the tokens next
to each other in memory and copies what is laid out otherwise.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from sciseq.errors import MissingDependencyError
from sciseq.ops.selective_scan.groups import scan_by_group
from sciseq.ops.selective_scan.operators import refuse_second_derivatives
from sciseq.ops.selective_scan.reference import selective_scan_reference

__all__ = ["load"]

_MOST_STATES = 256
_REFERENCE = scan_by_group(selective_scan_reference)


def load(device_type: str) -> Any:
    """Return the scan of this backend.

    Parameters
    ----------
    device_type : str
        Only ``"cuda"`` will do.

    Returns
    -------
    callable
        A ``Scan`` as in ``groups.py``.

    Raises
    ------
    MissingDependencyError
        On another device, without a GPU, or when ``mamba_ssm`` cannot be imported.

    Notes
    -----
    ``mamba_ssm.ops.selective_scan_interface.selective_scan_fn`` of
    https://github.com/state-spaces/mamba (Gu and Dao, arXiv:2312.00752). Its backward
    pass adds atomically, in an order that varies: gradients need not repeat bit by bit.

    Examples
    --------
    >>> from sciseq.ops.selective_scan.mamba_ssm_backend import load
    >>> load("cpu")
    Traceback (most recent call last):
    sciseq.errors.MissingDependencyError: it computes on NVIDIA and AMD GPUs
    """
    if device_type != "cuda":
        raise MissingDependencyError("it computes on NVIDIA and AMD GPUs")
    if not torch.cuda.is_available():
        raise MissingDependencyError("torch finds no GPU")
    try:
        from mamba_ssm.ops.selective_scan_interface import selective_scan_fn
    except Exception as error:
        # Builds that do not fit torch or the system fail in ways of their own.
        raise MissingDependencyError(
            f"mamba_ssm cannot be imported ({error})",
            hint="Try `pip install --no-build-isolation mamba-ssm`.",
        ) from error
    return functools.partial(_scan, selective_scan_fn)


def _scan(
    function: Callable[..., Tensor],
    u: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    reverse: Sequence[bool],
) -> Tensor:
    weights = (A,) if D is None else (A, D)
    is_double = any(one.dtype == torch.float64 for one in (u, dt, B, C, *weights))
    if is_double or not u.numel() or not 1 <= A.shape[1] <= _MOST_STATES:
        return _REFERENCE(u, dt, A, B, C, D, reverse)
    of_y = u.dtype
    A, D = A.float(), None if D is None else D.float()
    if len({one.dtype for one in (u, dt, B, C)}) > 1:
        u, dt, B, C = (one.float() for one in (u, dt, B, C))
    if any(reverse) and not all(reverse):
        y = scan_by_group(function)(u, dt, A, B, C, D, reverse)
    else:
        tokens = [one.flip(-1) if any(reverse) else one for one in (u, dt, B, C)]
        y = function(*tokens[:2], A, *tokens[2:], D)
        y = y.flip(-1) if any(reverse) else y
    return _FirstDerivatives.apply(y).to(of_y)  # type: ignore[no-any-return, no-untyped-call]


class _FirstDerivatives(torch.autograd.Function):
    # The package's backward pass has no derivatives, and would not say so.
    @staticmethod
    def forward(ctx: Any, y: Tensor) -> Tensor:
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Tensor:
        if torch.is_grad_enabled():  # with create_graph=True
            refuse_second_derivatives("mamba_ssm")
        return grad_y
