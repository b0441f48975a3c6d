"""Scores of quantiles, samples and intervals, value by value.

Axis legend: Q levels, m samples; ... stands for any axes. A truth that is NaN is
unobserved, and its scores are NaN.
"""

import numpy as np
import numpy.typing as npt

from sciseq.error_sums import FloatArray, as_float64
from sciseq.errors import InputError
from sciseq.parameters import Real

__all__ = [
    "central_levels",
    "check_levels",
    "crps_from_quantiles",
    "crps_from_samples",
    "interval_coverage",
    "interval_score",
    "pinball_loss",
]

# Levels that differ by rounding only, as 0.05 and (1 - 0.9) / 2 do, are the same.
_DIGITS = 12
_SHARE = Real(0.0, 1.0, open_low=True, open_high=True)


def pinball_loss(
    truth: npt.ArrayLike, quantiles: npt.ArrayLike, levels: npt.ArrayLike
) -> FloatArray:
    r"""Return the quantile loss of every truth and level.

    .. math:: \rho_\tau(y, q) = \max\{\tau (y - q),\ (\tau - 1)(y - q)\}

    Parameters
    ----------
    truth : array-like of shape (...)
        What happened; NaN where it was not observed.
    quantiles : array-like of shape (..., Q)
        Forecasts of the quantiles, in the same units.
    levels : array-like of shape (Q,)
        Levels :math:`\tau` between 0 and 1.

    Returns
    -------
    ndarray of shape (..., Q)
        At least zero; NaN for an unobserved truth.

    Raises
    ------
    InputError
        For levels outside 0 to 1, or shapes that do not fit.

    Notes
    -----
    Its mean is smallest at the true quantile: the loss is a proper score of one
    quantile (Koenker and Bassett, Regression quantiles, Econometrica 46, 1978).

    Examples
    --------
    >>> pinball_loss([10.0], [[8.0, 13.0]], [0.1, 0.9]).round(3)
    array([[0.2, 0.3]])
    """
    y, q = as_float64(truth, "truth"), as_float64(quantiles, "quantiles")
    tau = np.array(check_levels(levels, "levels"))
    _check_last_axis(y, q, "quantiles", len(tau))
    above = y[..., None] - q  # (..., Q)
    return np.asarray(np.maximum(tau * above, (tau - 1) * above))


def crps_from_quantiles(
    truth: npt.ArrayLike, quantiles: npt.ArrayLike, levels: npt.ArrayLike
) -> FloatArray:
    r"""Return the continuous ranked probability score that quantiles approximate.

    .. math:: \mathrm{CRPS}(F, y) = 2 \int_0^1 \rho_\tau(y, F^{-1}(\tau))\, d\tau
              \approx \frac{2}{Q} \sum_{k=1}^{Q} \rho_{\tau_k}(y, q_k)

    Parameters
    ----------
    truth : array-like of shape (...)
        What happened; NaN where it was not observed.
    quantiles : array-like of shape (..., Q)
        Forecasts of the quantiles.
    levels : array-like of shape (Q,)
        Evenly spread levels, such as 0.05, 0.15, ..., 0.95: every level counts the
        same, so that the sum is the integral only for these.

    Returns
    -------
    ndarray of shape (...)
        In the units of the data.

    Raises
    ------
    InputError
        For levels outside 0 to 1, or shapes that do not fit.

    Notes
    -----
    Gneiting and Ranjan, Comparing density forecasts using threshold- and
    quantile-weighted scoring rules, J. Business & Economic Statistics 29 (2011).

    Examples
    --------
    >>> float(crps_from_quantiles(0.0, [-1.0, 0.0, 1.0], [0.25, 0.5, 0.75]).round(3))
    0.333
    """
    return np.asarray(2.0 * pinball_loss(truth, quantiles, levels).mean(axis=-1))


def crps_from_samples(truth: npt.ArrayLike, samples: npt.ArrayLike) -> FloatArray:
    r"""Return the exact CRPS of the distribution that puts equal weight on samples.

    .. math:: \mathrm{CRPS} = \frac{1}{m} \sum_i |x_i - y|
              - \frac{1}{2 m^2} \sum_{i,j} |x_i - x_j|

    Parameters
    ----------
    truth : array-like of shape (...)
        What happened; NaN where it was not observed.
    samples : array-like of shape (..., m)
        Members of an ensemble, or a forecast plus residuals.

    Returns
    -------
    ndarray of shape (...)
        In the units of the data; with one sample the absolute error.

    Raises
    ------
    InputError
        For shapes that do not fit.

    Notes
    -----
    The double sum is one pass over the sorted samples. Gneiting and Raftery, Strictly
    proper scoring rules, prediction, and estimation, JASA 102 (2007).

    Examples
    --------
    >>> float(crps_from_samples(0.0, [-1.0, 1.0]))
    0.5
    """
    y, x = as_float64(truth, "truth"), as_float64(samples, "samples")
    _check_last_axis(y, x, "samples", None)
    m = x.shape[-1]
    distance = np.abs(x - y[..., None]).mean(axis=-1)
    # Sorted, the k-th of m samples (from 1) is above k - 1 others and below m - k.
    rank = 2.0 * np.arange(1, m + 1) - m - 1
    spread = (np.sort(x, axis=-1) * rank).sum(axis=-1) / m**2
    return np.asarray(distance - spread)


def interval_score(
    truth: npt.ArrayLike,
    lower: npt.ArrayLike,
    upper: npt.ArrayLike,
    coverage: float,
) -> FloatArray:
    r"""Return the interval (Winkler) score of central intervals.

    .. math:: S = (u - l) + \frac{2}{\alpha} (l - y)_+ + \frac{2}{\alpha} (y - u)_+,
              \qquad \alpha = 1 - \text{coverage}

    Parameters
    ----------
    truth, lower, upper : array-like of shape (...)
        What happened (NaN: not observed), and the ends of the intervals.
    coverage : float
        Share of truths that the intervals should hold.

    Returns
    -------
    ndarray of shape (...)
        In the units of the data.

    Raises
    ------
    InputError
        For a coverage outside 0 to 1, or shapes that differ.

    Notes
    -----
    It is :math:`2/\alpha` times the pinball losses of both ends, so that an interval
    gains neither from being wide nor from missing truths. Gneiting and Raftery, JASA
    102 (2007), §6.2.

    Examples
    --------
    >>> interval_score([0.5, 3.0], [0.0, 0.0], [1.0, 1.0], coverage=0.8).round(3)
    array([ 1., 21.])
    """
    y, low, high = _same_shape(truth, lower, upper)
    (share,) = check_levels([coverage], "coverage")
    missed = np.maximum(low - y, 0.0) + np.maximum(y - high, 0.0)
    return np.asarray(high - low + 2.0 / (1.0 - share) * missed)


def interval_coverage(
    truth: npt.ArrayLike, lower: npt.ArrayLike, upper: npt.ArrayLike
) -> FloatArray:
    """Return 1 where the interval holds the truth, ends included, else 0.

    Parameters
    ----------
    truth, lower, upper : array-like of shape (...)
        What happened (NaN: not observed), and the ends of the intervals.

    Returns
    -------
    ndarray of shape (...)
        NaN for an unobserved truth; its mean is the coverage.

    Raises
    ------
    InputError
        For shapes that differ.

    Examples
    --------
    >>> interval_coverage([0.5, 3.0, float("nan")], [0.0] * 3, [1.0] * 3)
    array([ 1.,  0., nan])
    """
    y, low, high = _same_shape(truth, lower, upper)
    return np.where(np.isnan(y), np.nan, (low <= y) & (y <= high))


def central_levels(coverage: float) -> tuple[float, float]:
    """Return the levels of the ends of a central interval.

    Parameters
    ----------
    coverage : float
        Share of truths between them.

    Returns
    -------
    tuple of float
        Lower and upper level.

    Examples
    --------
    >>> central_levels(0.9)
    (0.05, 0.95)
    """
    (share,) = check_levels([coverage], "coverage")
    return round((1 - share) / 2, _DIGITS), round((1 + share) / 2, _DIGITS)


def check_levels(levels: npt.ArrayLike, where: str) -> tuple[float, ...]:
    """Return levels as plain floats, in the order in which they were given.

    Raises
    ------
    InputError
        For anything but numbers between 0 and 1.
    """
    given = np.atleast_1d(np.asarray(levels))
    values = given.tolist()
    if given.ndim > 1 or not all(_SHARE.allows(one) for one in values):
        raise InputError(
            f"{where}={values} is not allowed: must lie between 0 and 1",
            where=where,
            hint="Levels are shares, such as 0.1, 0.5 and 0.9.",
        )
    return tuple(round(float(one), _DIGITS) for one in values)


def _check_last_axis(
    y: FloatArray, other: FloatArray, name: str, length: int | None
) -> None:
    wanted = "m" if length is None else length
    fits = other.ndim == y.ndim + 1 and other.shape[:-1] == y.shape
    if not fits or other.shape[-1] == 0 or length not in (None, other.shape[-1]):
        raise InputError(
            f"truth has shape {y.shape}, so {name} must have shape "
            f"{(*y.shape, wanted)}, got {other.shape}",
            where=name,
            hint="The last axis holds levels or samples.",
        )


def _same_shape(*arrays: npt.ArrayLike) -> list[FloatArray]:
    names = ("truth", "lower", "upper")
    values = [as_float64(one, name) for one, name in zip(arrays, names, strict=True)]
    if len({one.shape for one in values}) > 1:
        shapes = ", ".join(
            f"{name} {one.shape}" for one, name in zip(values, names, strict=True)
        )
        raise InputError(f"shapes differ: {shapes}", where="lower, upper")
    return values
