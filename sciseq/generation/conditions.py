"""What sequences are generated for, as rows of numbers.

Axes: n sequences, r rows of a condition, f numbers in a row.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from sciseq.errors import DataQualityError, InputError
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

    Examples
    --------
    >>> coding = ConditionCoding.of(["on", "off", "on"])
    >>> coding.encode(["on"], torch.float32).rows
    tensor([[[0., 1.]]])
    """

    classes: list[Any] | None = None
    mean: list[float] | None = None
    scale: list[float] | None = None

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
            As in :meth:`of`; also a single label, number or row.
        dtype : torch.dtype
            Of the numbers.

        Raises
        ------
        InputError
            For an unknown label, or rows of another width.
        """
        if self.classes is not None:
            return self._encode_classes(y, dtype)
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


def _different(y: Any) -> list[Any]:
    try:
        labels = np.unique(np.asarray(y))
    except TypeError:  # None among strings
        raise DataQualityError(
            "labels are missing or of several types", where="y"
        ) from None
    if labels.ndim != 1 or not len(labels):
        raise DataQualityError("there are no conditions", where="y")
    return list(labels.tolist())


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
    if hasattr(y, "to_numpy"):
        y = y.to_numpy()
    if isinstance(y, np.ndarray) and y.dtype == object and y.ndim == 1:
        y = y.tolist()
    if not hasattr(y, "__getitem__"):
        return None
    if np.ndim(y[:1]) == 1 and np.asarray(y).dtype.kind == "f":
        y = np.asarray(y)[:, None]
    if isinstance(y, np.ndarray) and y.ndim in (2, 3):
        array = y.astype(np.float64)
        return [one if y.ndim == 3 else one[None] for one in array]
    if isinstance(y, list | tuple) and len(y) and np.ndim(y[0]) == 2:
        return [np.asarray(one, dtype=np.float64) for one in y]
    if isinstance(y, list | tuple) and len(y) and np.ndim(y[0]) == 1:
        return [np.asarray(one, dtype=np.float64)[None] for one in y]
    return None


def _check_finite(numbers: npt.NDArray[np.float64]) -> None:
    if not np.isfinite(numbers).all():
        raise DataQualityError("conditions have missing or infinite numbers", where="y")
