"""Training a network: one loop, its seeds, devices, checkpoints and progress.

Nothing in here knows what the items of a data source mean. Public names load on first
use, so that :func:`resolve_seed` serves estimators that never import torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sciseq.training.devices import available_devices, resolve_device
    from sciseq.training.loop import train
    from sciseq.training.options import (
        Batches,
        LossFunction,
        TrainingOptions,
        TrainingResult,
    )
    from sciseq.training.seeds import generator_for, resolve_seed

_LAZY: dict[str, str] = {
    "Batches": "options",
    "LossFunction": "options",
    "TrainingOptions": "options",
    "TrainingResult": "options",
    "available_devices": "devices",
    "generator_for": "seeds",
    "resolve_device": "devices",
    "resolve_seed": "seeds",
    "train": "loop",
}

__all__ = [
    "Batches",
    "LossFunction",
    "TrainingOptions",
    "TrainingResult",
    "available_devices",
    "generator_for",
    "resolve_device",
    "resolve_seed",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        value = getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(_LAZY))
