"""Estimation of a classical model on many series, one after the other or side by side.

Axis legend: n series, P parameters, F future covariates.
"""

import threading
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import joblib
import numpy as np

from sciseq.data.panel import FloatArray
from sciseq.errors import DataQualityError
from sciseq.forecasting.classical_models import ClassicalModel

__all__ = ["Estimates", "check_positive", "estimate_all", "interpolated"]

# statsmodels warns of its own first guesses; filters of warnings are global in Python,
# and only one thread at a time may change them.
_LOCK = threading.Lock()

# What its estimators raise on series that carry too little information.
_FAILURES = (ArithmeticError, IndexError, ValueError, np.linalg.LinAlgError)

_FALLBACK = "its forecasts repeat the last value"


class Estimates(NamedTuple):
    """Of n series: parameters (n, P), what is subtracted and divided by (n,)."""

    parameters: FloatArray
    centre: FloatArray
    spread: FloatArray


def estimate_all(
    model: ClassicalModel,
    columns: Sequence[tuple[FloatArray, FloatArray | None]],
    names: Sequence[str],
    standardize: bool,
    n_jobs: int | None = None,
) -> tuple[Estimates, list[str]]:
    """Estimate a model on each of some series.

    Parameters
    ----------
    model : ClassicalModel
        What to estimate.
    columns : sequence of (ndarray of shape (n_rows,), ndarray of (n_rows, F) or None)
        Values, and regressors.
    names : sequence of str
        Names of the series, for messages.
    standardize : bool
        Whether to estimate on standardised values.
    n_jobs : int, optional
        Processes, as in joblib.

    Returns
    -------
    estimates : Estimates
        NaN where the series is constant or statsmodels failed.
    problems : list of str
        What went wrong, with the name of the series.

    Raises
    ------
    DataQualityError
        For values that are not positive where the model needs them so.
    """
    for (y, _), name in zip(columns, names, strict=True):
        check_positive(model, y, name)
    n, n_parameters = len(columns), len(model.names)
    call = joblib.delayed(_estimate_one)
    found: list[Any] = joblib.Parallel(n_jobs=n_jobs if n > 1 else 1)(
        call(model, n_parameters, standardize, *one) for one in columns
    )
    estimates = Estimates(
        np.array([one[0] for one in found]).reshape(n, n_parameters),
        np.array([one[1] for one in found]),
        np.array([one[2] for one in found]),
    )
    problems = [
        f"{name}: {problem}"
        for name, (*_, problem) in zip(names, found, strict=True)
        if problem
    ]
    return estimates, problems


def _estimate_one(
    model: ClassicalModel,
    n_parameters: int,
    standardize: bool,
    y: FloatArray,
    exog: FloatArray | None,
) -> tuple[FloatArray, float, float, str]:
    """Estimate on one series: parameters or NaN, centre, spread, what went wrong."""
    nothing = np.full(n_parameters, np.nan)
    known = y[~np.isnan(y)]
    if not len(known) or known.min() == known.max():
        return nothing, 0.0, 1.0, ""
    centre = float(known.mean()) if standardize and model.can_shift else 0.0
    spread = float(known.std()) if standardize else 1.0
    y = (y - centre) / spread
    if not model.handles_gaps:
        y = interpolated(y[None])[0]
    with _LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            parameters, is_done = model.estimate(y, exog)
        except _FAILURES as error:
            return nothing, centre, spread, f"{error}; {_FALLBACK}"
    if not np.isfinite(parameters).all():
        problem = f"parameters are not finite; {_FALLBACK}"
        return nothing, centre, spread, problem
    return parameters, centre, spread, "" if is_done else "did not converge"


def check_positive(model: ClassicalModel, x: FloatArray, where: str) -> None:
    """Refuse values that the components of a model cannot take, naming the place."""
    if model.needs_positive and (x <= 0).any():
        raise DataQualityError(
            f"a value is {np.nanmin(x):g}, and errors, trends or seasons that multiply "
            "need positive values",
            where=where,
            hint='Use "add" for error, trend and seasonal.',
        )


def interpolated(x: FloatArray) -> FloatArray:
    """Fill gaps of windows (n, L) by lines; the ends repeat the nearest value."""
    gaps = np.isnan(x)
    if not gaps.any():
        return x
    filled, rows = x.copy(), np.arange(x.shape[1])
    for one in np.flatnonzero(gaps.any(axis=1)):
        known = ~gaps[one]
        if known.any():
            filled[one] = np.interp(rows, rows[known], x[one, known])
    return filled
