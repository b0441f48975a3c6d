"""What the checks that all kinds of estimators share know of one kind of data."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["Samples"]


@dataclass(frozen=True)
class Samples:
    """Makers of small data of one kind, and how predictions are made and compared.

    Every call of a maker returns new objects.

    Parameters
    ----------
    training : callable
        Data to fit.
    locked : callable
        The same values, read-only.
    others : callable
        Other data to predict from.
    empty : callable
        Data without a single item.
    broken : callable
        Data that ``fit`` refuses.
    fault : str
        What the refusal of the broken data names.
    predict : callable
        Of a model and, optionally, data; else of the training data.
    same : callable
        Raises AssertionError when two predictions are not equal to the bit.
    contents : callable
        All values and labels of data, to be compared with ``==``.
    """

    training: Callable[[], Any]
    locked: Callable[[], Any]
    others: Callable[[], Any]
    empty: Callable[[], Any]
    broken: Callable[[], Any]
    fault: str
    predict: Callable[..., Any]
    same: Callable[[Any, Any], None]
    contents: Callable[[Any], Any]
