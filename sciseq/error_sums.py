"""The statistics behind forecast metrics, and the one rule that pools them.

Axes: window, step (of the horizon), target. A group of values is described by sums of
its errors, and by mean, spread and minimum of its truth. Single values are groups of
one; windows, batches, steps and targets are all merged by :meth:`ErrorSums.pool`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from sciseq.errors import DataQualityError, InputError, InputTypeError, NumericalError

__all__ = [
    "BoolArray",
    "ErrorSums",
    "FloatArray",
    "as_float64",
    "check_batch",
    "ratio",
]

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class ErrorSums:
    """Statistics of groups of values; every field has the shape of the groups.

    Parameters
    ----------
    count : ndarray of int
        Observed values.
    error, absolute, squared, symmetric : ndarray
        Sums of the error (forecast minus truth), of its size, of its square, and of
        200 × size / (size of truth + size of forecast).
    mean, scatter, low : ndarray
        Of the truth: mean, sum of squares around it, and minimum.

    Examples
    --------
    >>> import numpy as np
    >>> y = np.array([1.0, 2.0, 6.0])
    >>> group = ErrorSums.of_values(y, y + 1, np.array([True, True, True])).pool(0)
    >>> float(group.mean), float(group.scatter), float(group.squared)
    (3.0, 14.0, 3.0)
    """

    count: npt.NDArray[np.int64]
    error: FloatArray
    absolute: FloatArray
    squared: FloatArray
    symmetric: FloatArray
    mean: FloatArray
    scatter: FloatArray
    low: FloatArray

    @classmethod
    def stack(cls, parts: Sequence["ErrorSums"]) -> "ErrorSums":
        """Put groups side by side on a new first axis.

        Parameters
        ----------
        parts : sequence of ErrorSums
            Groups of the same shape.

        Returns
        -------
        ErrorSums
            Fields with one more axis.
        """
        names = [field.name for field in fields(cls)]
        return cls(
            **{name: np.stack([getattr(one, name) for one in parts]) for name in names}
        )

    @classmethod
    def of_values(
        cls, y: FloatArray, y_hat: FloatArray, seen: BoolArray
    ) -> "ErrorSums":
        """Describe each value as a group of its own.

        Parameters
        ----------
        y, y_hat : ndarray
            Truth and forecast.
        seen : ndarray of bool
            Values that count.

        Returns
        -------
        ErrorSums
            Fields of the shape of `y`.
        """
        with np.errstate(over="ignore"):
            y = np.where(seen, y, 0.0)
            error = np.where(seen, y_hat - y, 0.0)
            absolute = np.abs(error)
            size = 0.5 * np.abs(y) + 0.5 * np.abs(y_hat)
            return cls(
                count=seen.astype(np.int64),
                error=error,
                absolute=absolute,
                squared=np.square(error),
                symmetric=100.0 * absolute / np.where(size > 0, size, 1.0),
                mean=y,
                scatter=np.zeros_like(y),
                low=np.where(seen, y, np.inf),
            )

    def pool(self, axis: int) -> "ErrorSums":
        r"""Merge the groups along one axis.

        .. math:: \bar y = \frac{1}{n} \sum_i n_i \bar y_i, \qquad
                  S = \sum_i S_i + n_i (\bar y_i - \bar y)^2

        Parameters
        ----------
        axis : int
            Axis that goes.

        Returns
        -------
        ErrorSums
            Fields without that axis.

        Notes
        -----
        Chan, Golub and LeVeque, Updating formulae and a pairwise algorithm for
        computing sample variances, Stanford STAN-CS-79-773 (1979). The difference of
        raw sums of squares would cancel for data far from zero.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            count = self.count.sum(axis)
            low = self.low.min(axis)
            # Means are averaged as differences from a value of the data: their size may
            # be far above their spread, and equal values must give a scatter of zero.
            origin = np.where(np.isfinite(low), low, 0.0)
            shift = self.count * (self.mean - np.expand_dims(origin, axis))
            mean = origin + shift.sum(axis) / np.maximum(count, 1)
            apart = self.count * np.square(self.mean - np.expand_dims(mean, axis))
            return ErrorSums(
                count=count,
                error=self.error.sum(axis),
                absolute=self.absolute.sum(axis),
                squared=self.squared.sum(axis),
                symmetric=self.symmetric.sum(axis),
                mean=mean,
                scatter=(self.scatter + apart).sum(axis),
                low=low,
            )

    @property
    def is_constant(self) -> BoolArray:
        """Groups without spread, also those with no value at all."""
        return np.equal(self.scatter, 0.0)

    def check_range(self) -> None:
        """Refuse sums that have left the finite numbers.

        Raises
        ------
        NumericalError
            Naming the first step and target.
        """
        bad = ~np.isfinite(self.squared) | ~np.isfinite(self.scatter)
        if bad.any():
            step, target = (int(part[0]) for part in np.nonzero(bad))
            raise NumericalError(
                "squares overflow float64",
                where=f"step {step}, target {target}",
                hint="Compute the errors in larger units.",
            )


def ratio(total: npt.ArrayLike, count: npt.ArrayLike) -> FloatArray:
    """Divide, giving NaN where nothing was counted.

    Parameters
    ----------
    total, count : array-like
        Sums, and how many values went into them.

    Returns
    -------
    ndarray
        Means.
    """
    count = np.asarray(count, dtype=np.float64)
    return np.asarray(total) / np.where(count > 0, count, np.nan)


def check_batch(
    truth: npt.ArrayLike, forecast: npt.ArrayLike, observed: npt.ArrayLike | None
) -> tuple[FloatArray, FloatArray, BoolArray]:
    """Check one batch of windows, and tell which values count.

    Parameters
    ----------
    truth, forecast : array-like of shape (n_windows, horizon, n_targets)
        What happened (NaN: not observed) and what was forecast.
    observed : array-like of bool, same shape, optional
        False where the truth must not be counted.

    Returns
    -------
    tuple of ndarray
        Truth and forecast as float64, and a mask of the values that count.

    Raises
    ------
    InputTypeError, InputError, DataQualityError
        For arrays of other kinds, of other shapes, or with values that are not finite.
    """
    y, y_hat = as_float64(truth, "truth"), as_float64(forecast, "forecast")
    seen = ~np.isnan(y)
    if observed is not None:
        mask = np.asarray(observed)
        if mask.dtype != np.bool_:
            raise InputTypeError(
                f"observed has dtype {mask.dtype}, must be bool", where="observed"
            )
        _check_shapes(y, mask, "observed")
        seen &= mask
    _check_shapes(y, y_hat, "forecast")
    _check_finite(y_hat, np.ones_like(seen), "forecast")
    _check_finite(y, seen, "truth")
    return y, y_hat, seen


def _check_shapes(y: FloatArray, other: npt.NDArray[Any], name: str) -> None:
    if y.ndim != 3 or y.shape != other.shape or y.size == 0:
        raise InputError(
            f"truth has shape {y.shape} and {name} has shape {other.shape}; both must "
            "be (n_windows, horizon, n_targets), the same and not empty",
            where=name,
            hint="One forecast of shape (horizon, n_targets) is array[None].",
        )


def _check_finite(values: FloatArray, seen: BoolArray, name: str) -> None:
    bad = seen & ~np.isfinite(values)
    if bad.any():
        first = np.unravel_index(int(np.argmax(bad)), bad.shape)
        window, step, target = (int(position) for position in first)
        raise DataQualityError(
            f"{name} holds {int(bad.sum())} values that are not finite, "
            f"the first is {values[first]}",
            where=f"window {window}, step {step}, target {target}",
            hint="Unobserved truth is NaN; a forecast is never repaired here.",
        )


def as_float64(values: npt.ArrayLike, name: str) -> FloatArray:
    """Return real numbers as float64, without a copy where none is needed.

    Parameters
    ----------
    values : array-like
        Integers or floats.
    name : str
        Argument, for the message.

    Returns
    -------
    ndarray
        The same numbers.

    Raises
    ------
    InputTypeError
        For booleans, complex numbers, strings and objects.
    """
    array = np.asarray(values)
    if array.dtype.kind not in "iuf":
        raise InputTypeError(
            f"{name} has dtype {array.dtype}, must be real numbers", where=name
        )
    return array.astype(np.float64, copy=False)
