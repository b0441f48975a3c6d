"""Choosing the device that a computation runs on."""

import re

import torch

from sciseq.errors import InputError, InputTypeError, nearest_name

__all__ = ["available_devices", "resolve_device"]

# A GPU pays back what it costs to start (context, first kernels: some seconds) when the
# same work would keep a CPU busy for longer. Training steps of small networks reach
# 2e10 to 4e10 floating-point operations per second on one CPU core.
_WORK_WORTH_A_GPU = 2e11

_KINDS = ("auto", "cpu", "cuda", "mps")


def available_devices() -> list[str]:
    """Return the names of the devices of this machine that torch can use.

    Examples
    --------
    >>> "cpu" in available_devices()
    True
    """
    names = ["cpu"]
    if torch.cuda.is_available():
        names += [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        names.append("mps")
    return names


def resolve_device(
    device: str | torch.device,
    *,
    work: float | None = None,
    precision: str = "float32",
) -> torch.device:
    """Return the torch device that ``device`` stands for on this machine.

    Parameters
    ----------
    device : str or torch.device
        ``"cpu"``, ``"cuda"`` (the current one), ``"cuda:1"``, ``"mps"``, or ``"auto"``:
        a GPU when there is one and the work is large enough to gain from it.
    work : float, optional
        Estimated floating-point operations of the whole computation; with None,
        ``"auto"`` takes a GPU whenever there is one.
    precision : str, default="float32"
        Precision of the computation; ``"auto"`` leaves out ``mps`` for ``"float64"``,
        which that kind of device lacks.

    Returns
    -------
    torch.device
        A device that this machine has; CUDA devices carry their index.

    Raises
    ------
    InputTypeError
        When ``device`` is neither a string nor a ``torch.device``.
    InputError
        When the name is unknown, the device is not there, or it lacks ``precision``.

    Examples
    --------
    >>> resolve_device("cpu")
    device(type='cpu')
    >>> resolve_device("auto", work=1e6)
    device(type='cpu')
    """
    kind, index = _parse(device)
    if kind == "auto":
        return _pick(work, precision)
    if kind == "cpu":
        return torch.device("cpu")
    available = available_devices()
    if kind == "cuda" and index is None and "cuda:0" in available:
        index = torch.cuda.current_device()
    name = kind if index is None else f"{kind}:{index}"
    if name not in available:
        raise _unavailable(name, available)
    if kind == "mps" and precision == "float64":
        raise InputError(
            "the computation needs float64, which the device 'mps' does not have",
            where="device",
            hint="Use device='cpu', or precision='float32' if float64 was set.",
        )
    return torch.device(name)


def _parse(device: str | torch.device) -> tuple[str, int | None]:
    if not isinstance(device, (str, torch.device)):
        raise InputTypeError(
            f"device is {device!r} of type {type(device).__name__}; allowed are a "
            "string and a torch.device",
            where="device",
            hint="Give for example device='auto'.",
        )
    match = re.fullmatch(r"(auto|cpu|cuda|mps)|(cuda):(\d+)|(cpu|mps):0", str(device))
    if match is None:
        raise InputError(
            f"device is {str(device)!r}; allowed are 'auto', 'cpu', 'cuda', 'cuda:1' "
            f"and so on, and 'mps'. This machine has {', '.join(available_devices())}",
            where="device",
            hint=_hint_for(str(device)),
        )
    plain, cuda, index, first = match.groups()
    return plain or cuda or first, None if index is None else int(index)


def _hint_for(name: str) -> str:
    # By its letters alone, "gpu" is closest to "cpu", the opposite of what was meant.
    if "gpu" in name.lower():
        return "GPUs are called 'cuda' (NVIDIA, AMD) or 'mps' (Apple)."
    return nearest_name(name, _KINDS) or "Give for example device='auto'."


def _pick(work: float | None, precision: str) -> torch.device:
    # Asking for CUDA starts its driver, so small work is decided first.
    if work is not None and work < _WORK_WORTH_A_GPU:
        return torch.device("cpu")
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    if torch.backends.mps.is_available() and precision != "float64":
        return torch.device("mps")
    return torch.device("cpu")


def _unavailable(name: str, available: list[str]) -> InputError:
    hint = "Use device='auto' to take what is there."
    if name.startswith("cuda") and torch.version.cuda is None:
        hint += " The installed torch is built without CUDA."
    return InputError(
        f"device is {name!r}, which this machine does not have; "
        f"it has {', '.join(available)}",
        where="device",
        hint=hint,
    )
