"""What a step must be, so that forecasts can be made behind it and undone before it.

Axis legend: R rows, C columns, K probe rows.

A transformer does not say what it does to rows and columns. A few rows of the training
table tell, at the cost of a few small transforms.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from sciseq.data.panel import FloatArray
from sciseq.errors import CapabilityError, DataQualityError, SciSeqError
from sciseq.pipeline.step_chain import StepChain, take

__all__ = ["check_invertible", "check_step", "is_column_wise"]

PROBE_ROWS = 256
MIXING_ROWS = 8
# Far above the rounding of float32 steps, far below what a wrong inverse leaves.
TOLERANCE = 1e-5

# What transformers raise when they cannot undo after all; indexing errors of pandas
# derive from Exception alone.
UNDO_ERRORS = (
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
    pd.errors.InvalidIndexError,
)

INVERSE_HINT = (
    "Use transformers with inverse_transform (FunctionTransformer takes "
    "inverse_func=); missing values are the forecaster's own choice, missing=."
)


def check_invertible(name: str, step: Any) -> None:
    """Refuse a step without an inverse, before anything is fitted."""
    if not hasattr(step, "inverse_transform"):
        raise CapabilityError(
            f"{type(step).__name__} has no inverse_transform, and a forecast comes "
            "back in the units of the data only through the inverse of every step",
            where=f"step {name!r}",
            hint=INVERSE_HINT,
        )


def check_step(
    chain: StepChain, rows: FloatArray, output: FloatArray, labels: Any
) -> None:
    """Refuse one fitted step whose forecasts could not be undone.

    Parameters
    ----------
    chain : StepChain
        The step alone.
    rows : ndarray of shape (R, C)
        Its training table.
    output : ndarray of shape (R, C')
        What it made of the table.
    labels : pandas.Index or None
        Labels of the rows.

    Raises
    ------
    CapabilityError
        When the output at a row depends on other rows, when the inverse does not
        lead back, or when a column is lost.
    DataQualityError
        For output that is not finite where the table is.
    """
    name, step = chain.steps[0]
    where = f"step {name!r} ({type(step).__name__})"
    _check_row_wise(chain, rows, output, labels, where)
    _check_finite(rows, output, labels, where)
    chosen = _evenly(len(rows), PROBE_ROWS)
    rows, output, labels = rows[chosen], output[chosen], take(labels, chosen)
    try:
        restored = chain.undo(output, labels)
    except SciSeqError:
        raise
    except UNDO_ERRORS as error:
        raise CapabilityError(
            f"the step cannot be undone: {error}", where=where, hint=INVERSE_HINT
        ) from error
    _check_way_back(chain, rows, restored, labels, where)


def _check_row_wise(
    chain: StepChain, rows: FloatArray, output: FloatArray, labels: Any, where: str
) -> None:
    tail = slice(-min(PROBE_ROWS, len(rows) // 2 or 1), None)
    alone = chain.transform(rows[tail], take(labels, tail))
    if not _agree(alone, output[tail]):
        raise CapabilityError(
            "the output at a row depends on other rows: the last rows alone are "
            "transformed differently than at the end of the table",
            where=where,
            hint="Use steps that treat each row by itself; differences, moving "
            "averages and lags belong before the pipeline.",
        )


def _check_finite(
    rows: FloatArray, output: FloatArray, labels: Any, where: str
) -> None:
    bad = np.isfinite(rows).all(axis=1) & ~np.isfinite(output).all(axis=1)
    if bad.any():
        first = int(np.argmax(bad))
        label = first if labels is None else f"{first} ({labels[first]})"
        raise DataQualityError(
            f"the step makes NaN or infinity of finite values, in {int(bad.sum())} "
            "rows",
            where=f"{where}, row {label}",
            hint="A logarithm of zero is a usual cause: consider log1p.",
        )


def _check_way_back(
    chain: StepChain, rows: FloatArray, restored: FloatArray, labels: Any, where: str
) -> None:
    if restored.shape != rows.shape:
        raise CapabilityError(
            f"inverse_transform gives {restored.shape[1]} columns, the step was "
            f"given {rows.shape[1]}",
            where=where,
            hint=INVERSE_HINT,
        )
    # A step may drop detail, as a principal component analysis does; but what its
    # inverse gives must stand for what was forecast.
    again = chain.undo(chain.transform(restored, labels), labels)
    if not _agree(again, restored):
        raise CapabilityError(
            "inverse_transform does not undo transform: applied to its own result, "
            "the step leads elsewhere",
            where=where,
            hint=INVERSE_HINT,
        )
    is_constant = (restored == restored[0]).all(axis=0)
    lost = np.flatnonzero(is_constant & ~_near(restored, rows).all(axis=0))
    if len(lost):
        label = lost[0] if chain.columns[0] is None else chain.columns[0][lost[0]]
        raise CapabilityError(
            f"the step loses {len(lost)} columns, first {label!r}: undone, it is "
            f"{restored[0, lost[0]]:g} in every row",
            where=where,
            hint="Select the columns before the pipeline, or name what to forecast "
            "with targets=.",
        )


def is_column_wise(chain: StepChain, inner: FloatArray, labels: Any) -> bool:
    """Tell whether undoing the chain treats each column by itself, in place.

    Half of the columns take their values from other rows; a column-wise inverse then
    gives just these columns other values. Halves by the binary digits of the column
    numbers separate every pair of columns in few trials.

    Parameters
    ----------
    chain : StepChain
        All steps.
    inner : ndarray of shape (R, C)
        The transformed training table.
    labels : pandas.Index or None
        Labels of the rows.
    """
    chosen = _evenly(len(inner), MIXING_ROWS)
    labels = take(labels, chosen)
    own = inner[chosen]
    other = np.roll(own, 1, axis=0)
    n_columns = inner.shape[1]
    digits = np.arange(max(1, (n_columns - 1).bit_length()))
    halves = (np.arange(n_columns) >> digits[:, None] & 1).astype(bool)
    from_own, from_other = chain.undo(own, labels), chain.undo(other, labels)
    if from_own.shape[1] != n_columns:
        return False
    for half in (*halves, *~halves):
        mixed = chain.undo(np.where(half, other, own), labels)
        if not _agree(mixed, np.where(half, from_other, from_own)):
            return False
    return True


def _evenly(n_rows: int, count: int) -> npt.NDArray[np.int64]:
    if n_rows <= count:
        return np.arange(n_rows)
    return np.linspace(0, n_rows - 1, count).round().astype(np.int64)


def _agree(first: FloatArray, second: FloatArray) -> bool:
    return first.shape == second.shape and bool(_near(first, second).all())


def _near(first: FloatArray, second: FloatArray) -> npt.NDArray[np.bool_]:
    """Tell which values are equal up to rounding, at the scale of their column."""
    size = np.abs(np.where(np.isfinite(second), second, 0.0)).max(axis=0)
    # Steps that mix columns leave the rounding of the largest in all of them.
    slack = TOLERANCE * size + 1e-12 * size.max()
    with np.errstate(invalid="ignore"):
        near = (first == second) | (np.abs(first - second) <= slack)
    return np.asarray(near | (np.isnan(first) & np.isnan(second)))
