"""The compiled scan: finding the library, and calling it with tensors.

The package build compiles ``kernel/scan.c`` where a C compiler is at hand. Where it is
not, :func:`library` says so and other backends serve.

Axes: ``batch``, ``group``, ``channel`` (of all groups), ``state``, ``length`` (tokens).
"""

import ctypes
import functools
import importlib.machinery
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor

from sciseq.errors import MissingDependencyError

__all__ = [
    "checkpoint_size",
    "convolution_backward",
    "convolution_forward",
    "library",
    "newest_instructions",
    "room_for_map",
    "scan_backward",
    "scan_forward",
]

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
    "threads", "is_double", "instructions", "has_softplus",
)  # fmt: skip
_INPUTS = ("u", "dt", "A", "B", "C", "D", "dt_bias", "z")
_GRADIENTS = (
    "grad_y", "grad_u", "grad_dt", "grad_A", "grad_B", "grad_C", "grad_D",
    "grad_dt_bias", "grad_z",
)  # fmt: skip

_ENTRIES = (
    "sciseq_scan_forward", "sciseq_scan_backward",
    "sciseq_convolution_forward", "sciseq_convolution_backward",
)  # fmt: skip

Inputs: TypeAlias = tuple[Tensor | None, ...]


class _Problem(ctypes.Structure):
    # As `Problem` in scan.c.
    _fields_ = [
        *((name, ctypes.c_int64) for name in _SIZES),
        *((name, _Array) for name in (*_INPUTS, "y")),
        ("checkpoints", ctypes.c_void_p),
        *((name, _Array) for name in _GRADIENTS),
        ("constants", ctypes.c_void_p),
        ("sums", ctypes.c_void_p),
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
    for name in _ENTRIES:
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


def scan_forward(
    inputs: Inputs,
    reversed_groups: int,
    checkpoints: Tensor | None,
    *,
    has_softplus: bool = False,
) -> Tensor:
    """Run the recurrence.

    Parameters
    ----------
    inputs : tuple
        ``u, dt, A, B, C, D, dt_bias, z`` of one dtype, as in
        :func:`~sciseq.ops.selective_scan.gated_selective_scan`, with B and C of shape
        (batch, group, state, length). The last three may be None.
    reversed_groups : int
        Bit g is set when group g runs from the last token to the first.
    checkpoints : Tensor, optional
        Room for :func:`checkpoint_size` entries.
    has_softplus : bool, default False
        Whether step sizes are ``softplus(dt + dt_bias)``.

    Returns
    -------
    Tensor, shape (batch, channel, length)
        y.
    """
    problem = _scan_problem(inputs, reversed_groups, has_softplus)
    u = inputs[0]
    assert u is not None
    y = torch.empty_like(u)
    _set(problem.y, y)
    if checkpoints is not None and checkpoints.numel():
        problem.checkpoints = checkpoints.data_ptr()
    _run("sciseq_scan_forward", problem)
    return y


def scan_backward(
    grad_y: Tensor,
    inputs: Inputs,
    reversed_groups: int,
    checkpoints: Tensor,
    *,
    has_softplus: bool = False,
    rooms: Mapping[str, Tensor] | None = None,
) -> list[Tensor]:
    """Gradients of the inputs in their order; those of None mean nothing.

    ``rooms`` names tensors, of the shape of their input, to write gradients of B, C and
    z into.
    """
    rooms = rooms or {}
    problem = _scan_problem(inputs, reversed_groups, has_softplus)
    problem.checkpoints = checkpoints.data_ptr() if checkpoints.numel() else None
    u, dt, A, B, C, _, dt_bias, z = inputs
    assert u is not None and dt is not None and A is not None
    assert B is not None and C is not None
    n_parts, batch = problem.part, u.shape[0]
    nothing = u.new_empty(0)
    results = [
        torch.empty_like(u),
        torch.empty_like(dt),
        u.new_empty(A.shape),
        _room_for_parts(B, n_parts, rooms.get("B")),
        _room_for_parts(C, n_parts, rooms.get("C")),
        u.new_empty(u.shape[1]),
        nothing if dt_bias is None else u.new_empty(u.shape[1]),
        nothing if z is None else _room_like(z, rooms.get("z")),
    ]
    for name, tensor in zip(_GRADIENTS, (grad_y, *results), strict=True):
        if tensor is not nothing:
            _set(getattr(problem, name), tensor)
    _run("sciseq_scan_backward", problem)
    if n_parts > 1:
        for index in (3, 4):
            parts = results[index].view(n_parts, batch, *results[index].shape[1:])
            room = rooms.get(_INPUTS[index])
            results[index] = parts.sum(0) if room is None else room.copy_(parts.sum(0))
    return results


def convolution_forward(
    x: Tensor, weight: Tensor, bias: Tensor | None, is_reversed: bool
) -> Tensor:
    """SiLU of a causal depthwise convolution.

    Parameters
    ----------
    x : Tensor, shape (batch, channel, length)
        Tokens.
    weight : Tensor, shape (channel, tap)
        Kernels; the last tap meets the present token.
    bias : Tensor, shape (channel,), optional
        Offsets.
    is_reversed : bool
        Whether the past of a token are those after it.
    """
    problem = _convolution_problem(x, weight, bias, is_reversed)
    y = torch.empty_like(x)
    _set(problem.y, y)
    _run("sciseq_convolution_forward", problem)
    return y


def convolution_backward(
    grad_y: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    is_reversed: bool,
    *,
    room: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x (written into ``room`` where given), kernels and offsets."""
    problem = _convolution_problem(x, weight, bias, is_reversed)
    grad_x = _room_like(x, room)
    grad_weight, grad_bias = x.new_empty(weight.shape), x.new_empty(len(weight))
    for array, tensor in (
        (problem.grad_y, grad_y),
        (problem.grad_u, grad_x),
        (problem.grad_A, grad_weight),
        (problem.grad_D, grad_bias),
    ):
        _set(array, tensor)
    _run("sciseq_convolution_backward", problem)
    return grad_x, grad_weight, grad_bias


def _run(entry: str, problem: _Problem) -> None:
    if getattr(library(), entry)(problem):
        raise MemoryError("the selective scan found no memory for its work space")


def _room_like(tensor: Tensor, room: Tensor | None) -> Tensor:
    return torch.empty_like(tensor) if room is None else room


def _room_for_parts(like: Tensor, n_parts: int, room: Tensor | None) -> Tensor:
    return room if room is not None and n_parts == 1 else room_for_map(like, n_parts)


def room_for_map(like: Tensor, n_parts: int = 1) -> Tensor:
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


def _scan_problem(inputs: Inputs, reversed_groups: int, has_softplus: bool) -> _Problem:
    u, A, B = inputs[0], inputs[2], inputs[3]
    assert u is not None and A is not None and B is not None
    problem = _problem(u, B.shape[1], A.shape[1], reversed_groups)
    problem.has_softplus = has_softplus
    for name, tensor in zip(_INPUTS, inputs, strict=True):
        if tensor is not None:
            _set(getattr(problem, name), tensor)
    return problem


def _convolution_problem(
    x: Tensor, weight: Tensor, bias: Tensor | None, is_reversed: bool
) -> _Problem:
    problem = _problem(x, 1, weight.shape[1], is_reversed)
    _set(problem.u, x)
    _set(problem.A, weight)
    if bias is not None:
        _set(problem.D, bias)
    return problem


def _problem(u: Tensor, n_groups: int, n_states: int, reversed_groups: int) -> _Problem:
    batch, channel, length = u.shape
    return _Problem(
        batch,
        n_groups,
        channel // n_groups,
        n_states,
        length,
        _parts(u, n_groups)[0],
        CHUNK,
        reversed_groups,
        1 if u.numel() * n_states < _SMALL else torch.get_num_threads(),
        u.dtype == torch.float64,
        newest_instructions(),
    )


def _set(array: _Array, tensor: Tensor) -> None:
    array.data = tensor.data_ptr()
    array.stride[: tensor.ndim] = tensor.stride()
