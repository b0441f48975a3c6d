"""Scores of quantiles and intervals, accumulated over batches of windows.

Axis legend: n windows, H horizon, T targets, Q levels. Sums are kept per (step,
target), so that the way in which windows come in changes results by rounding only.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sciseq.error_sums import FloatArray, as_float64, check_batch, ratio
from sciseq.errors import DataQualityError, InputError
from sciseq.metrics.probabilistic import (
    central_levels,
    check_levels,
    interval_coverage,
    interval_score,
    pinball_loss,
)

__all__ = ["QuantileErrors", "QuantileSummary"]


@dataclass(frozen=True)
class QuantileSummary:
    """Scores of quantiles and intervals over everything that was seen.

    Parameters
    ----------
    overall : dict of str to float
        One value per metric.
    per_step : dict of str to ndarray of shape (H,)
        One value per step of the horizon.
    per_target : dict of str to ndarray of shape (T,)
        One value per target.
    n_windows : int
        Number of windows.
    n_observed, n_unobserved : int
        Values of the truth that were counted, and that were not.
    """

    overall: dict[str, float]
    per_step: dict[str, FloatArray]
    per_target: dict[str, FloatArray]
    n_windows: int
    n_observed: int
    n_unobserved: int


class QuantileErrors:
    """Accumulate scores of quantiles and intervals over batches of windows.

    Parameters
    ----------
    quantiles : array-like of float, default=()
        Levels that are scored by ``pinball`` (mean over the levels) and ``crps``
        (twice that: give evenly spread levels).
    coverage : float or sequence of float, default=()
        Central intervals that are scored by ``interval_score`` and ``coverage``. With
        a sequence each has columns of its own, such as ``coverage_0.9``.

    Attributes
    ----------
    levels : tuple of float
        All levels that :meth:`update` needs, in rising order.
    metrics : tuple of str
        Names of the results.

    Raises
    ------
    InputError
        When nothing is to be scored, or for levels outside 0 to 1.

    Examples
    --------
    >>> import numpy as np
    >>> scores = QuantileErrors(coverage=0.8)
    >>> scores.levels
    (0.1, 0.9)
    >>> truth = np.array([[[0.5]], [[2.0]]])  # (window, step, target)
    >>> quantiles = np.array([[[[0.0, 1.0]]], [[[0.0, 1.0]]]])
    >>> scores.update(truth, quantiles).result().overall["coverage"]
    0.5
    """

    def __init__(
        self,
        quantiles: npt.ArrayLike = (),
        *,
        coverage: float | Sequence[float] = (),
    ) -> None:
        self._quantiles = _sorted(check_levels(quantiles, "quantiles"))
        shares = check_levels(np.atleast_1d(np.asarray(coverage)), "coverage")
        suffixed = np.ndim(coverage) > 0
        self._intervals = {
            f"_{share:g}" if suffixed else "": share for share in _sorted(shares)
        }
        ends = [central_levels(share) for share in self._intervals.values()]
        self.levels = _sorted([*self._quantiles, *(one for two in ends for one in two)])
        if not self.levels:
            raise InputError(
                "neither quantiles nor coverage are to be scored",
                where="QuantileErrors",
                hint="Give quantiles=[0.1, 0.5, 0.9], or coverage=0.9.",
            )
        of_intervals = [
            f"{name}{suffix}"
            for name in ("interval_score", "coverage")
            for suffix in self._intervals
        ]
        of_quantiles = ["pinball", "crps"] if self._quantiles else []
        self.metrics = (*of_quantiles, *of_intervals)
        self._totals: dict[str, FloatArray] = {}
        self._count: npt.NDArray[np.int64] | None = None
        self._n_windows = 0

    def update(
        self, truth: npt.ArrayLike, quantiles: npt.ArrayLike
    ) -> "QuantileErrors":
        """Add a batch of windows.

        Parameters
        ----------
        truth : array-like of shape (n, H, T)
            What happened; NaN where it was not observed.
        quantiles : array-like of shape (n, H, T, Q)
            Forecasts of the quantiles at ``levels``; finite everywhere.

        Returns
        -------
        QuantileErrors
            This object.

        Raises
        ------
        InputError
            When shapes differ from each other or from earlier batches.
        DataQualityError
            When a quantile, or an observed truth, is not finite.
        """
        q = as_float64(quantiles, "quantiles")
        if q.ndim != 4 or q.shape[-1] != len(self.levels):
            raise InputError(
                f"quantiles have shape {q.shape}, must be (n_windows, horizon, "
                f"n_targets, {len(self.levels)})",
                where="quantiles",
                hint=f"The last axis follows the levels {list(self.levels)}.",
            )
        if not np.isfinite(q).all():
            first = np.argwhere(~np.isfinite(q))[0].tolist()
            raise DataQualityError(
                f"quantiles hold {int((~np.isfinite(q)).sum())} values that are not "
                "finite",
                where="window {}, step {}, target {}, level {}".format(*first),
            )
        y, _, seen = check_batch(truth, q[..., 0], None)
        self._check_axes(y.shape[1:])
        for name, values in self._scores(np.where(seen, y, np.nan), q).items():
            total = np.where(seen, values, 0.0).sum(axis=0)  # (H, T)
            self._totals[name] = self._totals.get(name, 0.0) + total
        count = seen.sum(axis=0)
        self._count = count if self._count is None else self._count + count
        self._n_windows += len(y)
        return self

    def _check_axes(self, shape: tuple[int, ...]) -> None:
        if self._count is not None and self._count.shape != shape:
            raise InputError(
                f"this batch has (horizon, n_targets) = {shape}, earlier ones had "
                f"{self._count.shape}",
                where="truth",
                hint="Use one accumulator per horizon and set of targets.",
            )

    def _scores(self, y: FloatArray, q: FloatArray) -> dict[str, FloatArray]:
        """Every metric of every value, (n, H, T)."""
        at = {level: q[..., place] for place, level in enumerate(self.levels)}
        scores: dict[str, FloatArray] = {}
        if self._quantiles:
            chosen = np.stack([at[level] for level in self._quantiles], axis=-1)
            loss = pinball_loss(y, chosen, self._quantiles).mean(axis=-1)
            scores = {"pinball": loss, "crps": 2.0 * loss}
        for suffix, share in self._intervals.items():
            low, high = (at[level] for level in central_levels(share))
            scores[f"interval_score{suffix}"] = interval_score(y, low, high, share)
            scores[f"coverage{suffix}"] = interval_coverage(y, low, high)
        return scores

    def result(self) -> QuantileSummary:
        """Return the scores over all batches so far.

        Returns
        -------
        QuantileSummary
            Means over the observed values; NaN where nothing was observed.

        Raises
        ------
        InputError
            When no batch was given.
        """
        if self._count is None:
            raise InputError(
                "no batch was given yet", where="result", hint="Call update first."
            )
        count, n_observed = self._count, int(self._count.sum())

        def means(axis: int | None) -> dict[str, FloatArray]:
            return {
                name: ratio(self._totals[name].sum(axis=axis), count.sum(axis=axis))
                for name in self.metrics
            }

        return QuantileSummary(
            overall={name: float(value) for name, value in means(None).items()},
            per_step=means(1),
            per_target=means(0),
            n_windows=self._n_windows,
            n_observed=n_observed,
            n_unobserved=self._n_windows * count.size - n_observed,
        )


def _sorted(levels: Iterable[float]) -> tuple[float, ...]:
    return tuple(sorted(set(levels)))
