"""The backends of the scan: which there are, which is taken, and whether to trust it.

A backend is one line in ``_ACCELERATED``: its name and a loader, as a rule the ``load``
of a module of its own. The loader takes a device type and returns a ``Scan``
(groups.py) with the dtype rules of
:func:`~sciseq.ops.selective_scan.reference.selective_scan_reference`, or raises
:class:`~sciseq.errors.MissingDependencyError` saying why it cannot run there. Before
its first use a backend must equal the reference on a tiny input.
"""

import importlib
import os
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from sciseq.errors import (
    CapabilityError,
    InputError,
    MissingDependencyError,
    NumericalError,
    SciSeqError,
    SciSeqWarning,
    nearest_name,
)
from sciseq.ops.selective_scan.exported import scan_operator
from sciseq.ops.selective_scan.groups import Scan, scan_by_group
from sciseq.ops.selective_scan.reference import selective_scan_reference

__all__ = ["available_backends", "choose", "chosen_backend", "is_fused"]

ENVIRONMENT_VARIABLE = "SCISEQ_SCAN"


def _from_module(name: str) -> Callable[[str], Scan]:
    # Loaded when it is first asked for.
    def load(device_type: str) -> Scan:
        module = importlib.import_module(f"sciseq.ops.selective_scan.{name}")
        scan: Scan = module.load(device_type)
        return scan

    return load


# Backends to prefer over the reference, the best first. Triton before mamba_ssm: its
# gradients repeat bit by bit, both directions are one launch without flips or copies,
# it takes float64 and needs no compilation on installation.
_ACCELERATED: dict[str, Callable[[str], Scan]] = {
    "c": _from_module("c_backend"),
    "triton": _from_module("triton_backend"),
    "mamba_ssm": _from_module("mamba_ssm_backend"),
}

_REFERENCE = scan_by_group(selective_scan_reference)
_EXPORTED = scan_by_group(scan_operator)

# What became of each (backend, device type) that was tried: the function, or the error.
_VERDICTS: dict[tuple[str, str], Scan | SciSeqError] = {}

_TOLERANCE = 1e-4  # float32, relative to the largest entry


def available_backends(device_type: str = "cpu") -> tuple[str, ...]:
    """Return the names of the backends that work on a kind of device, best first.

    Parameters
    ----------
    device_type : str, default "cpu"
        ``"cpu"``, ``"cuda"`` or ``"mps"``.

    Returns
    -------
    tuple of str
        Always ends in ``"reference"``.

    Examples
    --------
    >>> from sciseq.ops.selective_scan import available_backends
    >>> available_backends("cpu")[-1]
    'reference'
    """
    trusted = (
        name
        for name in _ACCELERATED
        if not isinstance(_verdict(name, device_type), SciSeqError)
    )
    return (*trusted, "reference")


def chosen_backend(device_type: str, backend: str | None = None) -> str:
    """Name of the backend that a scan on a kind of device takes.

    Parameters
    ----------
    device_type : str
        ``"cpu"``, ``"cuda"`` or ``"mps"``.
    backend : str, optional
        As in :func:`~sciseq.ops.selective_scan.selective_scan`.

    Returns
    -------
    str
        One of :func:`available_backends`.

    Raises
    ------
    InputError, MissingDependencyError, CapabilityError, NumericalError
        When the wanted one is unknown, missing, fails, or differs from the reference.

    Examples
    --------
    >>> from sciseq.ops.selective_scan import chosen_backend
    >>> chosen_backend("cpu", "reference")
    'reference'
    """
    where = "backend"
    if backend is None:
        backend, where = os.environ.get(ENVIRONMENT_VARIABLE), ENVIRONMENT_VARIABLE
    if not backend:
        return _best(device_type)
    if backend == "reference":
        return backend
    if backend not in _ACCELERATED:
        allowed = (*_ACCELERATED, "reference")
        raise InputError(
            f"scan backend is {backend!r}, must be one of {', '.join(allowed)}",
            where=where,
            hint=nearest_name(backend, allowed) or None,
        )
    verdict = _verdict(backend, device_type)
    if isinstance(verdict, SciSeqError):
        working = ", ".join(available_backends(device_type))
        raise type(verdict)(
            verdict.message, where=where, hint=f"Backends that work here: {working}."
        )
    return backend


# What torch.compiler.assume_constant_result does, which would load the compiler for it.
chosen_backend._dynamo_marked_constant = True  # type: ignore[attr-defined]


def choose(backend: str | None, device_type: str) -> Scan:
    """Return the scan of the backend that is taken, or what exporters shall meet.

    Parameters
    ----------
    backend : str or None
        As in :func:`~sciseq.ops.selective_scan.selective_scan`.
    device_type : str
        As in :func:`chosen_backend`.
    """
    if torch.compiler.is_exporting():
        # Whatever computes here, an exported graph holds the reference.
        return _EXPORTED
    name = chosen_backend(device_type, backend)
    if name == "reference":
        return _REFERENCE
    scan = _VERDICTS[name, device_type]
    assert not isinstance(scan, SciSeqError)
    return scan


def _best(device_type: str) -> str:
    for name in _ACCELERATED:
        verdict = _verdict(name, device_type)
        if not isinstance(verdict, SciSeqError):
            return name
        if not isinstance(verdict, MissingDependencyError):
            # A missing backend is normal; one that fails deserves to be known.
            warnings.warn(str(verdict), SciSeqWarning, stacklevel=5)
    return "reference"


def _verdict(name: str, device_type: str) -> Scan | SciSeqError:
    key = (name, device_type)
    if key not in _VERDICTS:
        _VERDICTS[key] = _examine(name, device_type)
    return _VERDICTS[key]


def _examine(name: str, device_type: str) -> Scan | SciSeqError:
    try:
        scan = _ACCELERATED[name](device_type)
    except ImportError as error:
        return MissingDependencyError(
            f"scan backend {name!r} cannot run on {device_type}: {error}"
        )
    try:
        difference = _difference_from_reference(scan, device_type)
    except Exception as error:
        # No compiler for its launcher, too old a GPU: others then serve.
        return CapabilityError(
            f"scan backend {name!r} cannot run on {device_type}: "
            f"{type(error).__name__}: {error}"
        )
    # Written so that a NaN counts as wrong.
    if not difference <= _TOLERANCE:
        return NumericalError(
            f"scan backend {name!r} differs from the reference by {difference:.1e} of "
            f"the largest entry on {device_type}, {_TOLERANCE:.0e} is allowed; it is "
            "not used"
        )
    return scan


def _difference_from_reference(scan: Scan, device_type: str) -> float:
    # The caller may run without gradients or under autocast; the check may not.
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.autocast(device_type, enabled=False),
    ):
        inputs = _tiny_inputs(device_type)
        pairs = zip(
            _values_and_gradients(scan, inputs),
            _values_and_gradients(_REFERENCE, inputs),
            strict=True,
        )
        return float(torch.stack([_relative(got, want) for got, want in pairs]).max())


def _tiny_inputs(device_type: str) -> list[Tensor]:
    batch, group, channel, length, state = 2, 2, 6, 7, 2
    shapes = [
        (batch, channel, length),
        (batch, channel, length),
        (channel, state),
        (batch, group, state, length),
        (batch, group, state, length),
        (channel,),
    ]
    inputs = []
    for index, shape in enumerate(shapes):
        size = torch.Size(shape).numel()
        # A fixed irregular sequence: nothing is drawn from a random state.
        phase = torch.arange(size, dtype=torch.float32, device=device_type)
        inputs.append(torch.sin((2.0 + index) * phase + index).reshape(shape))
    inputs[1] = 0.5 + 0.4 * inputs[1]
    inputs[2] = -1.5 + inputs[2]
    return [tensor.requires_grad_() for tensor in inputs]


def _values_and_gradients(scan: Scan, inputs: list[Tensor]) -> list[Tensor | None]:
    u, dt, A, B, C, D = inputs
    y = scan(u, dt, A, B, C, D, (False, True))
    if not y.requires_grad or y.shape != inputs[0].shape:
        return [None] * (len(inputs) + 1)
    weights = torch.cos(torch.arange(y.numel(), dtype=y.dtype, device=y.device))
    loss = (y * weights.reshape(y.shape)).sum()
    return [y.detach(), *torch.autograd.grad(loss, inputs, allow_unused=True)]


def _relative(got: Tensor | None, want: Tensor | None) -> Tensor:
    if got is None or want is None:
        return torch.tensor(float("inf"))
    return ((got - want).abs().max() / want.abs().max()).cpu()


def is_fused(x: Tensor, backend: str | None = None) -> bool:
    """Whether what stands around a scan of ``x`` is computed with it, in C.

    Parameters
    ----------
    x : Tensor
        What is scanned.
    backend : str, optional
        As in :func:`~sciseq.ops.selective_scan.selective_scan`.

    Returns
    -------
    bool
        False under a compiler, which fuses by itself.

    Examples
    --------
    >>> import torch
    >>> is_fused(torch.zeros(1, 1, 1), backend="reference")
    False
    """
    return (
        type(x) is Tensor
        and not torch.compiler.is_compiling()
        and chosen_backend(x.device.type, backend) == "c"
    )
