"""sciseq: recent sequence models as real scikit-learn estimators.

Public names load on first use, so that ``import sciseq`` costs milliseconds and
imports neither torch nor pandas.
"""

import importlib
from typing import Any

from sciseq.registry import public_names as _public_names

__version__ = "0.1.0.dev0"

_LAZY = _public_names()

__all__ = sorted([*_LAZY, "__version__"])


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        value = getattr(importlib.import_module(_LAZY[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'sciseq' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(_LAZY))
