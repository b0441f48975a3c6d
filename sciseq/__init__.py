"""sciseq: recent sequence models as real scikit-learn estimators.

Public names load on first use, so that ``import sciseq`` costs milliseconds and
imports neither torch nor pandas.
"""

import importlib
from typing import TYPE_CHECKING, Any

from sciseq.registry import METHODS as _METHODS

__version__ = "0.1.0.dev0"

if TYPE_CHECKING:
    from sciseq.data.datasets import list_datasets, load_dataset
    from sciseq.forecasting.linear import LinearForecaster
    from sciseq.forecasting.naive import NaiveForecaster
    from sciseq.forecasting.smamba import SMambaForecaster
    from sciseq.persistence import load
    from sciseq.pipeline import ForecastPipeline

_LAZY: dict[str, str] = {
    **{method.class_name: method.module_name for method in _METHODS},
    "ForecastPipeline": "sciseq.pipeline",
    "list_datasets": "sciseq.data.datasets",
    "load": "sciseq.persistence",
    "load_dataset": "sciseq.data.datasets",
}

__all__ = [
    "ForecastPipeline",
    "LinearForecaster",
    "NaiveForecaster",
    "SMambaForecaster",
    "__version__",
    "list_datasets",
    "load",
    "load_dataset",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        value = getattr(importlib.import_module(_LAZY[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'sciseq' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(_LAZY))
