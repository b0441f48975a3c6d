"""The one internal form of every container: a panel of numeric series.

A :class:`Panel` holds one float64 array of shape (n_rows, n_columns) per series,
beside the row labels and what is needed to give results back in the caller's own
container. Estimators see panels only; containers are read and written at the door.
"""

import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from sciseq.errors import DataQualityError, InputError, InputTypeError, SciSeqError

__all__ = [
    "FloatArray",
    "Layout",
    "Panel",
    "as_float64",
    "check_finite",
    "describe_row",
    "located",
    "once_each",
]

FloatArray = npt.NDArray[np.float64]


class Layout(Protocol):
    """How the caller's container is rebuilt; plain data, so that it can be saved."""

    def write(
        self,
        panel: "Panel",
        forecasts: Sequence[FloatArray],
        times: Sequence[Any],
        targets: Sequence[int],
    ) -> Any:
        """Build the container from forecasts.

        Parameters
        ----------
        panel : Panel
            The panel that was read.
        forecasts : sequence of ndarray of shape (horizon, n_targets)
            One array per series.
        times : sequence of pandas.Index or None
            Labels of the forecast rows, per series.
        targets : sequence of int
            Positions of the targets among the columns of the panel.
        """
        ...


@dataclass(frozen=True)
class Panel:
    """Numeric series of the same columns, with their row labels.

    Parameters
    ----------
    values : tuple of ndarray of shape (n_rows, n_columns)
        One float64 array per series; NaN marks a missing value.
    times : tuple of pandas.Index or None
        Row labels per series; None for plain arrays. Series with the same labels share
        one object wherever the container tells.
    series_ids : tuple
        One label per series.
    columns : tuple of hashable, or None
        Column labels; None for plain arrays.
    layout : Layout
        Builds the caller's container from forecasts.
    is_windows : bool
        True for ready-made windows (3-D arrays), which carry no time.
    ahead : tuple of ndarray of shape (n_rows_ahead, n_columns), or None
        Rows after the end of each series in which only covariates are known.
    """

    values: tuple[FloatArray, ...]
    times: tuple[Any, ...]
    series_ids: tuple[Hashable, ...]
    columns: tuple[Hashable, ...] | None
    layout: Layout
    is_windows: bool = False
    ahead: tuple[FloatArray, ...] | None = None

    @property
    def n_series(self) -> int:
        """Number of series."""
        return len(self.values)

    @property
    def n_columns(self) -> int:
        """Number of columns, the same in every series."""
        return int(self.values[0].shape[1])

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Number of rows of each series."""
        return np.array([len(values) for values in self.values], dtype=np.int64)

    def column_label(self, position: int) -> str:
        """Name of a column for messages."""
        if self.columns is None:
            return f"column {position}"
        return f"column {self.columns[position]!r}"

    def series_label(self, position: int) -> str:
        """Name of a series for messages; empty for a single one."""
        if self.n_series == 1:
            return ""
        return f"series {self.series_ids[position]!r}, "

    def rows(self, start: int | None, stop: int | None = None) -> "Panel":
        """Cut the same row range from every series."""
        return replace(
            self,
            values=tuple(values[start:stop] for values in self.values),
            times=once_each(
                lambda index: None if index is None else index[start:stop], self.times
            ),
        )

    def with_values(self, values: Sequence[FloatArray]) -> "Panel":
        """Return the same panel with other values of the same shapes."""
        return replace(self, values=tuple(values))

    def select_columns(self, positions: Sequence[int]) -> "Panel":
        """Reorder or cut the columns by position."""
        chosen = list(positions)
        return replace(
            self,
            values=tuple(values[:, chosen] for values in self.values),
            ahead=None
            if self.ahead is None
            else tuple(values[:, chosen] for values in self.ahead),
            columns=None
            if self.columns is None
            else tuple(self.columns[position] for position in chosen),
        )


def once_each(
    function: Callable[[Any], Any], indexes: Sequence[Any]
) -> tuple[Any, ...]:
    """Map the row labels of each series, once where series share one object.

    Parameters
    ----------
    function : callable
        From row labels, or None, to anything.
    indexes : sequence of pandas.Index or None
        Row labels per series.

    Returns
    -------
    tuple
        One result per series, shared as the labels are.

    Examples
    --------
    >>> labels = range(3)
    >>> first, second = once_each(list, [labels, labels])
    >>> first is second
    True
    """
    made: dict[int, Any] = {}
    for index in indexes:
        if id(index) not in made:
            made[id(index)] = function(index)
    return tuple(made[id(index)] for index in indexes)


@contextmanager
def located(place: str) -> Iterator[None]:
    """Name the argument or series to which errors raised inside belong."""
    try:
        yield
    except SciSeqError as error:
        error.where = f"{place}, {error.where}" if error.where else place
        raise


def as_float64(array: Any, *, where: str, column_names: Any = None) -> FloatArray:
    """Convert an array to float64, or say which values cannot be numbers.

    Read-only and memory-mapped input is left as it is; a copy is made only where the
    type has to change. Masked values become NaN.

    Raises
    ------
    InputTypeError
        For values that are not numbers (text, dates, objects, booleans).
    InputError
        For complex values.
    """
    if isinstance(array, np.ma.MaskedArray):
        # NumPy drops the mask: what stands behind it would count as measured.
        known = as_float64(array.data, where=where, column_names=column_names)
        return np.where(np.ma.getmaskarray(array), np.nan, known)
    values = np.asarray(array)
    if values.dtype.kind == "c":
        raise InputError(
            "Complex data not supported: values must be real numbers",
            where=where,
            hint="Give real and imaginary parts as columns of their own.",
        )
    if values.dtype.kind == "b":
        raise InputTypeError(
            "values are booleans, numbers are needed",
            where=where,
            hint="Convert with .astype(float).",
        )
    if values.dtype.kind in "SU":
        raise InputTypeError(
            f"values are text (first {values.flat[0].item()!r}), numbers are needed"
            if values.size
            else "values are text, numbers are needed",
            where=where,
            hint="Convert with .astype(float).",
        )
    if values.dtype.kind in "mM":
        raise InputTypeError(
            f"values are of type {values.dtype}, numbers are needed",
            where=where,
            hint="Give times as the index of a pandas table.",
        )
    if values.dtype.kind in "fiu":
        return np.asarray(values, dtype=np.float64)
    if values.dtype.kind == "O":
        try:
            return values.astype(np.float64)
        except (TypeError, ValueError):
            pass
    row, column, value = _first_non_number(values)
    named = f"column {column}"
    if column_names is not None and column is not None:
        named = f"column {column_names[column]!r}"
    raise InputTypeError(
        f"{named} holds {value!r} ({type(value).__name__}): the argument must be a "
        "number, or a string that reads as a number",
        where=f"{where}, {named}, row {row}",
        hint="Drop or encode the column (for example with "
        "sklearn.preprocessing.OrdinalEncoder), or use it as the index.",
    )


def _first_non_number(values: npt.NDArray[Any]) -> tuple[int, int, Any]:
    table = values.reshape(len(values), -1) if values.ndim else values.reshape(1, 1)
    for row, cells in enumerate(table):
        for column, value in enumerate(cells):
            try:
                float(value)
            except (TypeError, ValueError):
                return row, column, value
    return 0, 0, table.flat[0] if table.size else None


def describe_row(panel: Panel, series: int, row: int) -> str:
    """Name a row for messages: its label when it has one, else its position."""
    index = panel.times[series]
    return f"row {row}" if index is None else f"row {row} ({index[row]})"


def check_finite(panel: Panel, *, allow_missing: bool) -> None:
    """Refuse infinite values, and NaN unless missing values are a stated choice.

    Raises
    ------
    DataQualityError
        Naming series, column, the first five rows and the count.
    """
    # One pass tells the usual case apart: a finite sum means all are finite.
    with np.errstate(over="ignore", invalid="ignore"):
        sums = [float(values.sum()) for values in panel.values]
    for series, values in enumerate(panel.values):
        if math.isfinite(sums[series]):
            continue
        for is_bad, kind in ((np.isinf, "infinite"), (np.isnan, "NaN")):
            if kind == "NaN" and allow_missing:
                continue
            bad = is_bad(values)
            if bad.any():
                _refuse(panel, series, bad, kind)


def _refuse(panel: Panel, series: int, bad: npt.NDArray[np.bool_], kind: str) -> None:
    column = int(np.flatnonzero(bad.any(axis=0))[0])
    rows = np.flatnonzero(bad[:, column])
    first = ", ".join(describe_row(panel, series, int(row)) for row in rows[:5])
    more = f" and {len(rows) - 5} more" if len(rows) > 5 else ""
    where = f"{panel.series_label(series)}{panel.column_label(column)}, {first}{more}"
    if kind == "NaN":
        raise DataQualityError(
            f"the values contain NaN: {_count(bad, 'missing')}",
            where=where,
            hint="Choose missing='mask' or missing='interpolate', or fill the gaps.",
        )
    raise DataQualityError(
        f"the values contain infinity (inf): {_count(bad, 'infinite')}",
        where=where,
        hint="Remove or replace them; infinite values are never repaired.",
    )


def _count(bad: npt.NDArray[np.bool_], kind: str) -> str:
    number = int(bad.sum())
    return f"{number} {kind} value{'' if number == 1 else 's'}"
