"""The compiled scan: finding the library, and calling it with tensors.

The package build compiles ``kernel/scan.c`` where a C compiler is at hand. Where it is
not, :func:`library` says so and other backends serve.

Axes: ``batch``, ``group``, ``channel`` (of all groups), ``state``, ``length`` (tokens).
"""

import ctypes
import functools
import importlib.machinery
from pathlib import Path

import torch
from torch import Tensor

from sciseq.errors import MissingDependencyError

__all__ = ["library", "run_backward", "run_forward"]

# Tokens of a chunk: the forward pass keeps the state before each chunk but the first,
# the backward pass the states of one chunk.
CHUNK = 32
# Tasks to aim at when samples and groups alone are few: channels are cut then. It may
# not follow the number of threads, or results would.
_TASKS = 8
# State updates below which a second thread costs more than it saves.
_SMALL = 1 << 15
_LANE_BYTES = 64


class _Array(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("stride", ctypes.c_int64 * 4)]


_SIZES = (
    "batch", "group", "channel", "state", "length", "part", "chunk", "reversed",
    "threads", "is_double", "instructions",
)  # fmt: skip
_INPUTS = ("u", "dt", "A", "B", "C", "D", "y")
_GRADIENTS = ("grad_y", "grad_u", "grad_dt", "grad_A", "grad_B", "grad_C", "grad_D")


class _Problem(ctypes.Structure):
    # As `Problem` in scan.c.
    _fields_ = [
        *((name, ctypes.c_int64) for name in _SIZES),
        *((name, _Array) for name in _INPUTS),
        ("checkpoints", ctypes.c_void_p),
        *((name, _Array) for name in _GRADIENTS),
        ("next_task", ctypes.c_int64),
        ("failed", ctypes.c_int64),
    ]


@functools.cache
def library() -> ctypes.CDLL:
    """Load the compiled scan.

    Returns
    -------
    ctypes.CDLL
        The library.

    Raises
    ------
    MissingDependencyError
        When it was not built, does not load, or belongs to another version.
    """
    # A file beside this one: the module would be found by its name as well, but it
    # holds no Python to import.
    finder = importlib.machinery.FileFinder(
        str(Path(__file__).parent),
        (
            importlib.machinery.ExtensionFileLoader,
            importlib.machinery.EXTENSION_SUFFIXES,
        ),
    )
    spec = finder.find_spec("_scan")
    if spec is None or spec.origin is None:
        raise MissingDependencyError(
            "the compiled scan is missing, sciseq was installed without a C compiler"
        )
    try:
        loaded = ctypes.CDLL(spec.origin)
        loaded.sciseq_scan_problem_size.restype = ctypes.c_int64
        size = loaded.sciseq_scan_problem_size()
    except (OSError, AttributeError) as error:
        raise MissingDependencyError(
            f"the compiled scan does not load ({error})"
        ) from error
    if size != ctypes.sizeof(_Problem):
        raise MissingDependencyError(
            "the compiled scan belongs to another version of sciseq; install it again"
        )
    for name in ("sciseq_scan_forward", "sciseq_scan_backward"):
        getattr(loaded, name).argtypes = [ctypes.POINTER(_Problem)]
    return loaded


@functools.cache
def newest_instructions() -> int:
    """Newest instruction set of this processor: 0 baseline, 1 AVX2, 2 AVX-512."""
    return int(library().sciseq_scan_instructions())


def checkpoint_size(u: Tensor, A: Tensor, n_groups: int) -> int:
    """Entries that the forward pass keeps for the backward pass."""
    n_chunks = -(-u.shape[2] // CHUNK)
    n_parts, blocks = _parts(u, n_groups)
    lanes = _LANE_BYTES // u.element_size()
    n_tasks = u.shape[0] * n_groups * n_parts
    return max(n_chunks - 1, 0) * n_tasks * blocks * A.shape[1] * lanes


def run_forward(
    inputs: tuple[Tensor, ...],
    reversed_groups: int,
    checkpoints: Tensor | None,
    instructions: int | None = None,
) -> Tensor:
    """Scan ``u, dt, A, B, C`` and, where given, ``D``, all of one dtype.

    Parameters
    ----------
    inputs : tuple of Tensor
        As in :func:`~sciseq.ops.selective_scan.selective_scan`, with B and C of shape
        (batch, group, state, length).
    reversed_groups : int
        Bit g is set when group g runs from the last token to the first.
    checkpoints : Tensor, optional
        Room for :func:`checkpoint_size` entries.
    instructions : int, optional
        Instruction set to use; the newest by default.

    Returns
    -------
    Tensor, shape (batch, channel, length)
        y.
    """
    problem = _problem(inputs, reversed_groups, instructions)
    y = torch.empty_like(inputs[0])
    _set(problem.y, y)
    if checkpoints is not None and checkpoints.numel():
        problem.checkpoints = checkpoints.data_ptr()
    if library().sciseq_scan_forward(problem):
        raise MemoryError("selective scan: no memory for its work space")
    return y


def run_backward(
    grad_y: Tensor,
    inputs: tuple[Tensor, ...],
    reversed_groups: int,
    checkpoints: Tensor,
    instructions: int | None = None,
) -> tuple[Tensor, ...]:
    """Gradients of all inputs, in their order; that of ``D`` is always there."""
    u, dt, A, B, C = inputs[:5]
    problem = _problem(inputs, reversed_groups, instructions)
    problem.checkpoints = checkpoints.data_ptr() if checkpoints.numel() else None
    n_parts, batch = problem.part, u.shape[0]
    # Sums over samples and parts are taken here, in a fixed order.
    results = (
        torch.empty_like(u),
        torch.empty_like(dt),
        u.new_empty(batch, *A.shape),
        room_for_map(B, n_parts),
        room_for_map(C, n_parts),
        u.new_empty(batch, u.shape[1]),
    )
    for name, tensor in zip(_GRADIENTS, (grad_y, *results), strict=True):
        _set(getattr(problem, name), tensor)
    if library().sciseq_scan_backward(problem):
        raise MemoryError("selective scan: no memory for its work space")
    grad_u, grad_dt, grad_A, grad_B, grad_C, grad_D = results
    if n_parts > 1:
        grad_B, grad_C = (
            one.view(n_parts, batch, *one.shape[1:]).sum(0) for one in (grad_B, grad_C)
        )
    return grad_u, grad_dt, grad_A.sum(0), grad_B, grad_C, grad_D.sum(0)


def room_for_map(like: Tensor, n_parts: int) -> Tensor:
    """Room for the gradient of B or C, of each part of the channels."""
    # (part x batch, group, state, length), stored by tokens where B and C are.
    batch, group, state, length = like.shape
    if like.stride(2) == 1:
        return like.new_empty(n_parts * batch, group, length, state).mT
    return like.new_empty(n_parts * batch, group, state, length)


def _parts(u: Tensor, n_groups: int) -> tuple[int, int]:
    """Parts into which the channels of a group are cut, and blocks of a part."""
    lanes = _LANE_BYTES // u.element_size()
    n_blocks = -(-u.shape[1] // n_groups // lanes)
    n_parts = max(1, min(n_blocks, _TASKS // max(1, u.shape[0] * n_groups)))
    return n_parts, -(-n_blocks // n_parts)


def _problem(
    inputs: tuple[Tensor, ...], reversed_groups: int, instructions: int | None
) -> _Problem:
    u, A, B = inputs[0], inputs[2], inputs[3]
    n_groups = B.shape[1]
    n_updates = u.numel() * A.shape[1]
    problem = _Problem(
        u.shape[0],
        n_groups,
        u.shape[1] // n_groups,
        A.shape[1],
        u.shape[2],
        _parts(u, n_groups)[0],
        CHUNK,
        reversed_groups,
        1 if n_updates < _SMALL else torch.get_num_threads(),
        u.dtype == torch.float64,
        newest_instructions() if instructions is None else instructions,
    )
    for name, tensor in zip(_INPUTS, inputs, strict=False):
        _set(getattr(problem, name), tensor)
    return problem


def _set(array: _Array, tensor: Tensor) -> None:
    array.data = tensor.data_ptr()
    array.stride[: tensor.ndim] = tensor.stride()
