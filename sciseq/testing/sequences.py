"""Sequences for the checks of generators, and how to fit and compare them."""

from typing import Any

import numpy as np
from sklearn.base import clone

from sciseq.testing.samples import Samples
from sciseq.testing.tables import quiet, same

__all__ = ["SAMPLES", "fit", "fixed", "results", "strings"]

_ALPHABET = "ACGT"


def strings() -> list[str]:
    """Return twelve strings of three to six letters, the first half equal to others."""
    made = ["ACG", "ACGT", "TTGACA", "GATTA", "CCC", "AGCT"]
    return made + made


def fixed() -> list[str]:
    """Return twelve strings of five letters."""
    return ["ACGTA", "TTGAC", "GATTA", "CCCCC", "AGCTA", "TATAA"] * 2


def fit(estimator: Any, X: Any = None, y: Any = None) -> Any:
    """Return a fitted clone, by default of :func:`strings`."""
    with quiet():
        return clone(estimator).fit(strings() if X is None else X, y)


def results(model: Any, X: Any = None) -> list[Any]:
    """Return scores of sequences and some new ones, as numbers and strings."""
    scores = np.asarray(model.score_samples(strings() if X is None else X))
    return [*scores.tolist(), *map(str, model.sample(3, random_state=0))]


SAMPLES = Samples(
    training=strings,
    locked=lambda: tuple(strings()),
    others=lambda: ["GACT", "TTTTTA"],
    empty=list,
    broken=lambda: ["AC?G", "ACGG"],
    fault="gap",
    predict=results,
    same=same,
    contents=list,
)
"""Sequences for the checks that every kind of estimator shares."""
