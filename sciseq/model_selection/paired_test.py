"""Test whether the losses of two forecasts of the same windows differ by chance.

Axis legend: n windows in order of time, k lag between windows.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats

from sciseq.error_sums import FloatArray, as_float64
from sciseq.errors import InputError
from sciseq.parameters import Integer

__all__ = ["PairedTest", "diebold_mariano", "holm_adjusted"]


class PairedTest(NamedTuple):
    """Result of a paired test.

    Parameters
    ----------
    statistic : float
        Above zero when the first losses are larger.
    p_value : float
        Two-sided.
    """

    statistic: float
    p_value: float


def diebold_mariano(
    losses: npt.ArrayLike, others: npt.ArrayLike, *, lags: int
) -> PairedTest:
    r"""Test whether two forecasts lose the same on average.

    With :math:`d_t` the difference of the losses of window t, its autocovariances
    :math:`\hat\gamma_k` and h = ``lags`` + 1,

    .. math:: S = \sqrt{\frac{n + 1 - 2h + h(h - 1) / n}{n}}\;
              \frac{\bar d}{\sqrt{(\hat\gamma_0 + 2 \sum_{k=1}^{h-1} \hat\gamma_k) / n}}

    is compared with Student's t of n - 1 degrees of freedom.

    Parameters
    ----------
    losses, others : array-like of shape (n,)
        Losses of both forecasts, window by window in order of time. Windows with a NaN
        in either are left out.
    lags : int
        Lags at which differences may be correlated: neighbouring windows share rows,
        windows of h rows, one row apart, up to lag h - 1.

    Returns
    -------
    PairedTest
        Statistic and p-value; NaN when there are no more than h windows.

    Raises
    ------
    InputError
        For arrays of other shapes.

    Notes
    -----
    Diebold and Mariano, Comparing predictive accuracy, J. Business & Economic
    Statistics 13 (1995), with the correction of Harvey, Leybourne and Newbold, Testing
    the equality of prediction mean squared errors, Int. J. Forecasting 13 (1997). The
    sum of autocovariances can come out negative; the weights 1 - k/h of Newey and West
    are taken then, with which it cannot.

    Examples
    --------
    >>> losses = [1.0, 3.0, 2.0, 4.0, 3.0, 5.0]
    >>> test = diebold_mariano(losses, [1.0] * 6, lags=0)
    >>> round(test.statistic, 2), round(test.p_value, 3)
    (3.46, 0.018)
    """
    first, second = as_float64(losses, "losses"), as_float64(others, "others")
    if first.ndim != 1 or first.shape != second.shape:
        raise InputError(
            f"losses have shapes {first.shape} and {second.shape}, both must be "
            "(n_windows,)",
            where="losses, others",
        )
    if not Integer(0).allows(lags):
        raise InputError(
            f"lags={lags!r} is not allowed: must be an integer of at least 0",
            where="lags",
            hint="Windows of h rows, one row apart, share rows up to lag h - 1.",
        )
    difference = first - second
    difference = difference[~np.isnan(difference)]
    n, h = len(difference), lags + 1
    if n <= h:
        return PairedTest(np.nan, np.nan)
    mean = float(difference.mean())
    if mean == 0.0:
        return PairedTest(0.0, 1.0)
    deviation = float(np.sqrt(_long_run_variance(difference - mean, h) / n))
    corrected = np.sqrt((n + 1 - 2 * h + h * (h - 1) / n) / n)
    statistic = corrected * mean / deviation if deviation else np.inf * np.sign(mean)
    return PairedTest(
        float(statistic), float(2 * stats.t.sf(np.abs(statistic), df=n - 1))
    )


def _long_run_variance(centred: FloatArray, h: int) -> float:
    """Variance times n of the mean of values that are correlated up to lag h - 1."""
    n = len(centred)
    covariance = np.array([centred[k:] @ centred[: n - k] / n for k in range(h)])
    plain = covariance[0] + 2 * covariance[1:].sum()
    if plain > 0:
        return float(plain)
    weights = 1 - np.arange(1, h) / h
    return max(float(covariance[0] + 2 * weights @ covariance[1:]), 0.0)


def holm_adjusted(p_values: npt.ArrayLike) -> FloatArray:
    """Adjust p-values of several tests, so that no true one is called false by chance.

    Parameters
    ----------
    p_values : array-like of shape (n_tests,)
        NaN stands for a test that could not be made.

    Returns
    -------
    ndarray of shape (n_tests,)
        Adjusted p-values, in the order given.

    Notes
    -----
    Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal
    of Statistics 6 (1979): it bounds the probability of any false rejection, whatever
    the tests have to do with each other.

    Examples
    --------
    >>> holm_adjusted([0.01, 0.04, 0.03]).round(2)
    array([0.03, 0.06, 0.06])
    """
    p = as_float64(p_values, "p_values")
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    steps = (len(order) - np.arange(len(order))) * p[order]
    adjusted = np.full(len(p), np.nan)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted
