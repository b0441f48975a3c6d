"""The scan in Triton's language as an operator of torch, for GPUs.

Axes: ``batch``, ``group``, ``channel`` (of all groups), ``state``, ``length`` (tokens).

``triton`` is imported when :func:`load` is called. Tiles follow from the shapes alone
and no sum is taken by atomic additions, so that results repeat on one kind of GPU.
"""

import contextlib
import os
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sciseq.errors import MissingDependencyError
from sciseq.ops.selective_scan.operators import ScanOperator

__all__ = ["load"]

# Tokens of a chunk: the forward pass keeps the state before each chunk but the first.
CHUNK = 8
# Entries of the state that a program carries, and its channels, at most. A program is a
# warp, and the backward pass holds a chunk of states and decays in its registers.
ENTRIES, CHANNELS = 256, 32
# Where there are few channels, blocks are made smaller until there are as many programs
# as a large GPU has multiprocessors.
PROGRAMS, FEWEST_CHANNELS = 128, 4
WARPS = 1


class _Tiles(NamedTuple):
    tokens: int
    channels: int
    states: int
    blocks: int  # of channels, in a group


def load(device_type: str) -> Any:
    """Return the scan of this backend.

    Parameters
    ----------
    device_type : str
        ``"cuda"``, or ``"cpu"`` where Triton interprets its kernels, that is where
        ``TRITON_INTERPRET=1`` was set before ``triton`` was imported.

    Returns
    -------
    callable
        A ``Scan`` as in ``groups.py``.

    Raises
    ------
    MissingDependencyError
        On another device, without a GPU, or when ``triton`` cannot be imported.

    Notes
    -----
    Equations as in :func:`~sciseq.ops.selective_scan.selective_scan` (Gu and Dao,
    arXiv:2312.00752).

    Examples
    --------
    >>> from sciseq.ops.selective_scan.triton_backend import load
    >>> load("mps")
    Traceback (most recent call last):
    sciseq.errors.MissingDependencyError: it computes on NVIDIA and AMD GPUs
    """
    if device_type not in ("cuda", "cpu"):
        raise MissingDependencyError("it computes on NVIDIA and AMD GPUs")
    # Importing triton takes long, so what can be said without comes first.
    if device_type == "cuda" and not torch.cuda.is_available():
        raise MissingDependencyError("torch finds no GPU")
    may_interpret = bool(os.environ.get("TRITON_INTERPRET"))
    if device_type == "cpu" and not (may_interpret and _is_interpreted()):
        raise MissingDependencyError(
            "it computes on GPUs; on the processor, which is for tests, only where "
            "TRITON_INTERPRET=1 was set before triton was imported"
        )
    _is_interpreted()  # as a check that it can be imported
    return _OPERATOR


def _is_interpreted() -> bool:
    try:
        from triton.runtime.interpreter import InterpretedFunction

        from sciseq.ops.selective_scan import triton_kernel
    except Exception as error:
        # Versions that do not fit torch or the system fail in ways of their own.
        raise MissingDependencyError(
            f"triton cannot be imported ({error})", hint="Try `pip install triton`."
        ) from error
    return isinstance(triton_kernel.scan_forward, InterpretedFunction)


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
    y, checkpoints = torch.empty_like(u), _checkpoints(u, A, keep)
    if u.numel():
        tiles = _tiles(u, A, B)
        _launch(
            "scan_forward",
            tiles,
            u,
            B.shape[1],
            *_with_strides(u, dt, A, B, C),
            *((u, 0) if D is None else (D, D.stride(0))),  # unused without a skip
            *_with_strides(y),
            checkpoints,
            *_sizes(u, A, B),
            reverse,
            has_skip=D is not None,
            keeps=keep,
        )
    return y, checkpoints


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
    batch, tiles = u.shape[0], _tiles(u, A, B)
    grad_u, grad_dt = torch.empty_like(u), torch.empty_like(dt)
    # Sums over samples and blocks are taken here, in a fixed order.
    make = u.new_empty if u.numel() else u.new_zeros
    grad_A, grad_D = make(batch, *A.T.shape), make(batch, u.shape[1])
    grad_B, grad_C = (make(tiles.blocks, *one.mT.shape) for one in (B, C))
    if u.numel():
        _launch(
            "scan_backward",
            tiles,
            u,
            B.shape[1],
            *_with_strides(grad_y, u, dt, A, B, C),
            *((u, 0) if D is None else (D, D.stride(0))),
            checkpoints,
            *_with_strides(grad_u, grad_dt),
            grad_A,
            grad_B,
            grad_C,
            grad_D,
            batch,
            *_sizes(u, A, B),
            reverse,
            has_skip=D is not None,
        )
    grad_B, grad_C = (
        one[0] if tiles.blocks == 1 else one.sum(0) for one in (grad_B, grad_C)
    )
    grad_A = grad_A.sum(0).T.contiguous()
    return [grad_u, grad_dt, grad_A, grad_B.mT, grad_C.mT, grad_D.sum(0)]


def _launch(
    name: str, tiles: _Tiles, u: Tensor, n_groups: int, *arguments: Any, **options: Any
) -> None:
    from sciseq.ops.selective_scan import triton_kernel

    kernel = getattr(triton_kernel, name)
    grid = (u.shape[0] * n_groups * tiles.blocks,)
    # Triton launches on the current device, which need not be that of the tensors.
    with torch.cuda.device(u.device) if u.is_cuda else contextlib.nullcontext():
        kernel[grid](
            *arguments,
            **options,
            block_size=tiles.channels,
            chunk_size=tiles.tokens,
            state_size=tiles.states,
            num_warps=WARPS,
            enable_fp_fusion=True,
        )


def _tiles(u: Tensor, A: Tensor, B: Tensor) -> _Tiles:
    states, n_channels = _power_of_two(A.shape[1]), u.shape[1] // B.shape[1]
    channels = min(CHANNELS, max(ENTRIES // states, 1), _power_of_two(n_channels))
    n_programs = u.shape[0] * u.shape[1] // channels
    while channels > FEWEST_CHANNELS and n_programs < PROGRAMS:
        channels, n_programs = channels // 2, n_programs * 2
    tokens = min(CHUNK, _power_of_two(u.shape[2]))
    return _Tiles(tokens, channels, states, -(-n_channels // channels))


def _power_of_two(number: int) -> int:
    """Return the least power of two that is not below a number."""
    return 1 << max(0, number - 1).bit_length()


def _with_strides(*tensors: Tensor) -> tuple[Any, ...]:
    return tuple(one for tensor in tensors for one in (tensor, tensor.stride()))


def _sizes(u: Tensor, A: Tensor, B: Tensor) -> tuple[int, ...]:
    n_groups = B.shape[1]
    return n_groups, u.shape[1] // n_groups, A.shape[1], u.shape[2]


def _checkpoints(u: Tensor, A: Tensor, keep: bool) -> Tensor:
    batch, channel, length = u.shape
    n_kept = max(-(-length // CHUNK) - 1, 0) if keep else 0
    return u.new_empty(batch, n_kept, A.shape[1], channel)


_OPERATOR = ScanOperator(
    "triton",
    compute=_compute,
    compute_gradients=_compute_gradients,
    empty_kept=lambda u, A, B, keep: _checkpoints(u, A, keep),
    empty_map=lambda one: one.new_empty(one.mT.shape).mT,
    device_types=("cpu", "cuda"),
)
