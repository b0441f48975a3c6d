"""The steps before a forecaster as one map of rows, and its inverse.

Axis legend: R rows, C columns; C may change from step to step.

Transformers see the table that the caller gave: a DataFrame with row and column labels,
or an array where the data have no column labels. What they return is brought back into
that form before the next step.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from sciseq.data.pandas_tables import TwoLevelLayout
from sciseq.data.panel import FloatArray, Panel, as_float64
from sciseq.errors import CapabilityError

__all__ = [
    "StepChain",
    "as_container",
    "as_table",
    "columns_after",
    "join_rows",
    "row_labels",
    "rows_of",
    "split_rows",
    "take",
]


@dataclass(frozen=True)
class StepChain:
    """Fitted transformers, applied in order and undone in reverse.

    Parameters
    ----------
    steps : tuple of (str, transformer)
        Names and fitted transformers.
    columns : tuple of pandas.Index or None
        Column labels before the first step and after each one; None for arrays.
    """

    steps: tuple[tuple[str, Any], ...]
    columns: tuple[Any, ...]

    def transform(self, rows: FloatArray, labels: Any) -> FloatArray:
        """Apply the steps to rows (R, C) with their labels."""
        for (name, step), before in zip(self.steps, self.columns[:-1], strict=True):
            table = as_table(rows, labels, before)
            rows = rows_of(step.transform(table), table, name)
        return rows

    def undo(self, rows: FloatArray, labels: Any) -> FloatArray:
        """Undo the steps on rows with their labels, the last step first."""
        backwards = zip(self.steps[::-1], self.columns[:0:-1], strict=True)
        for (name, step), after in backwards:
            table = as_table(rows, labels, after)
            rows = rows_of(step.inverse_transform(table), table, name)
        return rows


def as_table(rows: FloatArray, labels: Any, columns: Any) -> Any:
    """Give rows to a step as its own copy, which it may write into."""
    # Sums over columns depend on the order in memory: row by row, as in an array, a
    # DataFrame gives the same bits.
    copied = np.array(rows, order="C")
    if columns is None:
        return copied
    return pd.DataFrame(copied, index=labels, columns=columns, copy=False)


def rows_of(output: Any, table: Any, name: str) -> FloatArray:
    """Read what a step returned for a table: dense numbers, one row for each row.

    Raises
    ------
    CapabilityError
        For a sparse table, or other rows than the step was given.
    """
    where = f"step {name!r}"
    if hasattr(output, "toarray"):
        raise CapabilityError(
            "the step gives a sparse table, forecasters need a dense one",
            where=where,
            hint="Set sparse_output=False, or its like, on the step.",
        )
    rows = as_float64(output, where=where)
    is_moved = (
        isinstance(output, pd.DataFrame)
        and isinstance(table, pd.DataFrame)
        and not output.index.equals(table.index)
    )
    if rows.ndim != 2 or len(rows) != len(table) or is_moved:
        raise CapabilityError(
            f"the step turns a table of shape {table.shape} into {rows.shape}"
            + (" with other row labels" if is_moved else "")
            + "; a forecast needs one row for each row, in the same order",
            where=where,
            hint="Drop or resample rows before the pipeline.",
        )
    return np.ascontiguousarray(rows)


def columns_after(step: Any, output: Any, before: Any, n_columns: int) -> Any:
    """Labels of the columns that a step gives; None where the data have none."""
    if before is None:
        return None
    if hasattr(output, "columns"):
        return pd.Index(list(output.columns))
    # Without text labels scikit-learn makes up names, and the caller's would be lost.
    if before.inferred_type == "string" and hasattr(step, "get_feature_names_out"):
        return pd.Index(list(step.get_feature_names_out()))
    return before if len(before) == n_columns else pd.RangeIndex(n_columns)


def row_labels(panel: Panel) -> Any:
    """Labels of the joined rows of a panel, two-level where it holds many series."""
    times = [
        pd.RangeIndex(len(values)) if index is None else index
        for values, index in zip(panel.values, panel.times, strict=True)
    ]
    layout = panel.layout
    if panel.n_series == 1 and not isinstance(layout, TwoLevelLayout):
        return times[0]
    joined = times[0].append(times[1:])
    series = pd.Index(list(panel.series_ids)).repeat(panel.lengths)
    names = ("series", joined.name)
    if isinstance(layout, TwoLevelLayout):
        names = layout.names
    return pd.MultiIndex.from_arrays([series, joined], names=names)


def join_rows(panel: Panel) -> FloatArray:
    """All series of a panel, one after the other."""
    return np.concatenate(panel.values) if panel.n_series > 1 else panel.values[0]


def split_rows(rows: FloatArray, panel: Panel) -> list[FloatArray]:
    """Cut joined rows into the series of a panel."""
    return np.split(rows, np.cumsum(panel.lengths)[:-1])


def take(labels: Any, rows: Any) -> Any:
    """Labels of some rows; None where there are none."""
    return None if labels is None else labels[rows]


def as_container(panel: Panel, columns: Any) -> Any:
    """Write a panel as a forecaster reads it, each series with its own row labels.

    A two-level table stays one, any other panel of many series becomes a dict of
    tables. Series without row labels become arrays.
    """
    if columns is None:
        columns = pd.RangeIndex(panel.n_columns)
    if isinstance(panel.layout, TwoLevelLayout):
        return as_table(join_rows(panel), row_labels(panel), columns)
    tables = [
        as_table(values, index, None if index is None else columns)
        for values, index in zip(panel.values, panel.times, strict=True)
    ]
    if panel.n_series == 1:
        return tables[0]
    return dict(zip(panel.series_ids, tables, strict=True))
