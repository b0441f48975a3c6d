"""What sequences are generated for, as rows of numbers.

Axes: n sequences, r rows of a condition, f numbers in a row.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from sciseq.errors import DataQualityError, InputError, InputTypeError
from sciseq.generation.numbering import is_missing
from sciseq.generation.parts.network import Condition

__all__ = ["ConditionCoding"]


@dataclass(frozen=True)
class ConditionCoding:
    """How conditions become rows of numbers.

    Parameters
    ----------
    classes : list, optional
        Labels, when conditions are classes.
    mean, scale : list of float, optional
        By which numbers are standardised.
    columns : list of str, optional
        Names of the numbers, when they came in a table with names.
    has_several_rows : bool, default=False
        Whether a condition is an array of several rows.

    Examples
    --------
    >>> coding = ConditionCoding.of(["on", "off", "on"])
    >>> coding.encode(["on"], torch.float32).rows
    tensor([[[0., 1.]]])
    """

    classes: list[Any] | None = None
    mean: list[float] | None = None
    scale: list[float] | None = None
    columns: list[str] | None = None
    has_several_rows: bool = False

    @classmethod
    def of(cls, y: Any) -> "ConditionCoding":
        """Learn from conditions: labels, rows of numbers, or lists of several rows.

        Parameters
        ----------
        y : array-like
            One-dimensional: labels of classes, or one number for each where they are
            floats. Two-dimensional numbers: one row for each. A list of two-dimensional
            arrays: several rows for each.

        Raises
        ------
        DataQualityError
            When numbers are not finite, or labels are missing.
        InputError
            When rows are of several widths.
        """
        rows = _number_rows(y)
        if rows is None:
            return cls(classes=_different(y))
        _check_widths(rows, {rows[0].shape[1]} if rows else None)
        joined = np.concatenate(rows)
        _check_finite(joined)
        scale = joined.std(axis=0)
        return cls(
            mean=joined.mean(axis=0).tolist(),
            scale=np.where(scale > 0, scale, 1.0).tolist(),
            columns=_columns_of_fit(y),
            has_several_rows=_has_several_rows(y),
        )

    @property
    def n_features(self) -> int:
        """Numbers in a row."""
        return len(self.classes if self.classes is not None else self.mean or [])

    def encode(self, y: Any, dtype: torch.dtype) -> Condition:
        """Return conditions as padded rows.

        Parameters
        ----------
        y : array-like
            As in :meth:`of`; also a single label, number or row. Columns with names
            may come in any order.
        dtype : torch.dtype
            Of the numbers.

        Raises
        ------
        InputError
            For an unknown label, rows of another width, other columns, or a table
            where a condition has several rows.
        DataQualityError
            When numbers are not finite.
        """
        if self.classes is not None:
            return self._encode_classes(y, dtype)
        y = self._in_order(_as_list(y))
        if self.has_several_rows and not _has_several_rows(y):
            raise InputError(
                "conditions of fit are arrays (row, feature); this is a single table "
                "or row",
                where="condition",
                hint="Give a list of arrays, such as [condition] for a single one.",
            )
        if _is_numbers(y):
            y = np.asarray(y, dtype=np.float64).reshape(-1, 1)
            y = y if self.n_features == 1 else y.T
        rows = _number_rows(y) or []
        _check_widths(rows, {self.n_features})
        _check_finite(np.concatenate(rows))
        n_rows = max(len(one) for one in rows)
        table = np.zeros((len(rows), n_rows, self.n_features))
        is_row = np.zeros((len(rows), n_rows), dtype=bool)
        mean, scale = np.array(self.mean), np.array(self.scale)
        for number, one in enumerate(rows):
            table[number, : len(one)] = (one - mean) / scale
            is_row[number, : len(one)] = True
        return Condition(torch.from_numpy(table).to(dtype), torch.from_numpy(is_row))

    def _in_order(self, y: Any) -> Any:
        """Return tables with the columns of fit in their order."""
        if self.has_several_rows and isinstance(y, list | tuple):
            return [self._one_in_order(one) for one in y]
        return self._one_in_order(y)

    def _one_in_order(self, y: Any) -> Any:
        names = _columns(y)
        if self.columns is None or names is None:
            return y
        is_same = sorted(names) == sorted(self.columns)
        if not is_same and y.ndim == 1:  # a column, whose index names no numbers
            return y
        if not is_same:
            raise InputError(
                f"conditions have the columns {names[:20]}, those of fit are "
                f"{self.columns[:20]}",
                where="condition",
                hint="Give these columns, in any order.",
            )
        return y[self.columns]

    def _encode_classes(self, y: Any, dtype: torch.dtype) -> Condition:
        labels = np.atleast_1d(np.asarray(y))
        known: list[Any] = self.classes or []
        unknown = sorted({str(one) for one in labels.tolist() if one not in known})
        if labels.ndim != 1 or unknown:
            raise InputError(
                f"conditions {unknown[:5]} are no classes of fit",
                where="condition",
                hint=f"Classes are {known[:20]!r}.",
            )
        numbers = torch.tensor([known.index(one) for one in labels.tolist()])
        rows = torch.nn.functional.one_hot(numbers, len(known)).to(dtype).unsqueeze(1)
        return Condition(rows, torch.ones(rows.shape[:2], dtype=torch.bool))

    def to_dict(self) -> dict[str, Any]:
        """Return what :meth:`from_dict` takes, for saving."""
        return dict(vars(self))

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> "ConditionCoding":
        """Return a coding that was saved."""
        return cls(**saved)


def _is_numbers(y: Any) -> bool:
    """Tell whether y is one number, or a flat row of them."""
    if isinstance(y, str) or (isinstance(y, list | tuple) and np.ndim(y[:1]) != 1):
        return False
    array = np.asarray(y)
    return array.ndim <= 1 and np.issubdtype(array.dtype, np.number)


def _columns(y: Any) -> list[str] | None:
    """Names of the numbers of a table or row, or None where they have none."""
    names = getattr(y, "columns", getattr(y, "index", None))
    if not hasattr(y, "to_numpy") or names is None:
        return None
    found = list(names)
    # Numbers and names that come twice tell nothing apart.
    is_told = all(isinstance(one, str) for one in found)
    return found if found and is_told and len(set(found)) == len(found) else None


def _as_list(y: Any) -> Any:
    """Return a column of arrays as a list of them, and anything else as it is."""
    kind = getattr(getattr(y, "dtype", None), "kind", "")
    return y.tolist() if kind == "O" and y.ndim == 1 else y


def _columns_of_fit(y: Any) -> list[str] | None:
    """Names of the columns of a table, or of the first of several."""
    y = _as_list(y)
    first = y[0] if isinstance(y, list | tuple) and y else y
    return _columns(first) if getattr(first, "ndim", 0) == 2 else None


def _has_several_rows(y: Any) -> bool:
    """Tell whether each condition is an array of rows."""
    y = _as_list(y)
    if isinstance(y, list | tuple):
        return bool(y) and np.ndim(y[0]) == 2
    return getattr(y, "ndim", 0) == 3


def _different(y: Any) -> list[Any]:
    if hasattr(y, "tolist"):
        y = y.tolist()
    labels = y if isinstance(y, list | tuple) else list(y)
    if not labels or any(np.ndim(one) for one in labels):
        raise DataQualityError("there are no conditions", where="y")
    for row, one in enumerate(labels):
        if is_missing(one):
            raise DataQualityError(
                f"the label of sequence {row} is missing",
                where=f"y[{row}]",
                hint="Leave the sequence out, or give it a label such as 'unknown'.",
            )
    if len({isinstance(one, str) for one in labels}) > 1:
        raise DataQualityError(
            "labels are of several types", where="y", hint="Make all of them strings."
        )
    return list(np.unique(np.asarray(labels)).tolist())


def _check_widths(rows: list[npt.NDArray[np.float64]], wanted: set[int] | None) -> None:
    widths = {one.shape[1] for one in rows}
    if widths != wanted:
        raise InputError(
            f"conditions have {sorted(widths) or 'no'} numbers in a row, "
            f"{sorted(wanted or []) or 'some'} are needed",
            where="condition",
        )


def _number_rows(y: Any) -> list[npt.NDArray[np.float64]] | None:
    """Conditions as arrays (row, feature), or None when they are labels."""
    y = _as_list(y)
    if getattr(y, "ndim", 0) == 2:
        y = _as_numbers(y)
    if hasattr(y, "to_numpy"):
        y = y.to_numpy()
    if not hasattr(y, "__getitem__"):
        return None
    if np.ndim(y[:1]) == 1 and np.asarray(y).dtype.kind == "f":
        y = np.asarray(y)[:, None]
    if isinstance(y, np.ndarray) and y.ndim in (2, 3):
        array = _as_numbers(y)
        return [one if y.ndim == 3 else one[None] for one in array]
    if isinstance(y, list | tuple) and len(y) and np.ndim(y[0]) == 2:
        return [_as_numbers(one) for one in y]
    if isinstance(y, list | tuple) and len(y) and np.ndim(y[0]) == 1:
        return [_as_numbers(one)[None] for one in y]
    return None


def _as_numbers(values: Any) -> npt.NDArray[np.float64]:
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputTypeError(
            f"conditions in rows must be numbers: {error}",
            where="condition",
            hint="Write classes as labels, one for each sequence, or as 0 and 1.",
        ) from error


def _check_finite(numbers: npt.NDArray[np.float64]) -> None:
    if not np.isfinite(numbers).all():
        raise DataQualityError("conditions have missing or infinite numbers", where="y")
