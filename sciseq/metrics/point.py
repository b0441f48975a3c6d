"""Forecast errors, accumulated over batches without depending on them.

Axes: window, step (of the horizon), target. Sums are kept per (step, target), so that
the way in which windows come in changes results by rounding only.

A truth that is NaN is unobserved: it is never counted, and how many there were is part
of the result.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sciseq.error_sums import ErrorSums, FloatArray, as_float64, check_batch, ratio
from sciseq.errors import DataQualityError, InputError, InputTypeError, nearest_name
from sciseq.metrics.names import METRICS

__all__ = [
    "ErrorSummary",
    "ForecastErrors",
    "SeasonalScale",
    "forecast_errors",
    "seasonal_scale",
]

# Windows are pooled in pieces of about this many values, which bounds the memory that
# one large batch takes.
_PIECE = 1 << 18


class SeasonalScale(NamedTuple):
    """In-sample error of the seasonal naive forecast, per target.

    Parameters
    ----------
    absolute : ndarray of shape (n_targets,)
        Mean absolute seasonal difference, in the units of the data.
    squared : ndarray of shape (n_targets,)
        Mean squared seasonal difference.
    """

    absolute: FloatArray
    squared: FloatArray


def seasonal_scale(history: npt.ArrayLike, season_length: int = 1) -> SeasonalScale:
    r"""Return the scale of MASE and RMSSE from the training rows.

    .. math:: s_1 = \operatorname{mean}_t |x_t - x_{t-m}|, \qquad
              s_2 = \operatorname{mean}_t (x_t - x_{t-m})^2

    Parameters
    ----------
    history : array-like of shape (n_rows, n_targets)
        Training rows in time order; differences with a NaN are left out.
    season_length : int, default=1
        Rows m of one season; 1 compares with the last value.

    Returns
    -------
    SeasonalScale
        ``absolute`` and ``squared``, each of shape (n_targets,); NaN for a target
        without a single difference.

    Raises
    ------
    InputError
        When `history` is not 2-D or has no row that is one season after another.
    InputTypeError
        When `history` is not numeric or `season_length` is not an integer.
    DataQualityError
        When `history` holds infinite values.

    Notes
    -----
    Hyndman and Koehler, Another look at measures of forecast accuracy, International
    Journal of Forecasting 22 (2006).

    Examples
    --------
    >>> seasonal_scale([[1.0], [2.0], [4.0]]).absolute
    array([1.5])
    """
    rows = as_float64(history, "history")
    if not isinstance(season_length, (int, np.integer)):
        raise InputTypeError(
            f"season_length is {season_length!r}, must be an integer",
            where="season_length",
        )
    if rows.ndim != 2 or not 1 <= season_length < len(rows):
        raise InputError(
            f"history has shape {rows.shape} and season_length is {season_length}; "
            "(n_rows, n_targets) is needed with n_rows above season_length, "
            "season_length at least 1",
            where="history",
        )
    if np.isinf(rows).any():
        raise DataQualityError(
            "history holds infinite values",
            where=f"row {int(np.argmax(np.isinf(rows).any(axis=-1)))}",
            hint="Mark missing values as NaN.",
        )
    difference = rows[season_length:] - rows[:-season_length]
    known = ~np.isnan(difference)
    difference = np.where(known, difference, 0.0)
    count = known.sum(axis=0)
    return SeasonalScale(
        ratio(np.abs(difference).sum(axis=0), count),
        ratio(np.square(difference).sum(axis=0), count),
    )


@dataclass(frozen=True)
class ErrorSummary:
    """Forecast errors over everything that was seen.

    Parameters
    ----------
    overall : dict of str to float
        One value per metric.
    per_step : dict of str to ndarray of shape (horizon,)
        One value per step of the horizon; R² compares with the mean truth of the step.
    per_target : dict of str to ndarray of shape (n_targets,)
        One value per target.
    n_windows : int
        Number of windows.
    n_observed, n_unobserved : int
        Values of the truth that were counted, and that were not.
    n_constant_targets : int
        Targets whose observed truth never changes: their R² is NaN and is left out of
        the mean over targets.
    n_unscaled_targets : int
        Targets whose seasonal scale is zero or unknown: their MASE and RMSSE are NaN
        and are left out of the mean over targets.
    """

    overall: dict[str, float]
    per_step: dict[str, FloatArray]
    per_target: dict[str, FloatArray]
    n_windows: int
    n_observed: int
    n_unobserved: int
    n_constant_targets: int
    n_unscaled_targets: int


class ForecastErrors:
    r"""Accumulate forecast errors over batches of windows.

    With error :math:`e = \hat y - y` over all observed values:

    .. math:: \mathrm{MSE} = \overline{e^2}, \quad \mathrm{MAE} = \overline{|e|}, \quad
              \mathrm{RMSE} = \sqrt{\mathrm{MSE}}, \quad \mathrm{bias} = \overline{e},
              \quad \mathrm{sMAPE} = 200\, \overline{|e| / (|y| + |\hat y|)}

    and per target, then averaged over targets:

    .. math:: R^2 = 1 - \frac{\sum e^2}{\sum (y - \overline y)^2}, \quad
              \mathrm{MASE} = \frac{\mathrm{MAE}}{s_1}, \quad
              \mathrm{RMSSE} = \sqrt{\frac{\mathrm{MSE}}{s_2}}

    Parameters
    ----------
    scale : SeasonalScale, optional
        Scale per target from :func:`seasonal_scale`; needed for MASE and RMSSE.

    Notes
    -----
    A mean of batch means weighs the windows of a small last batch more than others;
    sums do not. Sums of squares for R² are taken around the mean, so that an offset
    far above the spread of the data does no harm. Where truth and forecast are both
    zero, sMAPE counts zero.

    Examples
    --------
    >>> import numpy as np
    >>> errors = ForecastErrors()
    >>> truth = np.arange(12.0).reshape(3, 2, 2)  # (window, step, target)
    >>> for rows in (slice(0, 2), slice(2, 3)):
    ...     _ = errors.update(truth[rows], truth[rows] + [1.0, 3.0])
    >>> summary = errors.result()
    >>> summary.overall["mse"], summary.per_target["mae"].tolist()
    (5.0, [1.0, 3.0])
    """

    def __init__(self, scale: SeasonalScale | None = None) -> None:
        self._scale = None if scale is None else _check_scale(scale)
        self._sums: ErrorSums | None = None
        self._n_windows = 0

    def update(
        self,
        truth: npt.ArrayLike,
        forecast: npt.ArrayLike,
        observed: npt.ArrayLike | None = None,
    ) -> "ForecastErrors":
        """Add a batch of windows.

        Parameters
        ----------
        truth : array-like of shape (n_windows, horizon, n_targets)
            What happened; NaN where it was not observed.
        forecast : array-like of shape (n_windows, horizon, n_targets)
            What was forecast, in the same units; finite everywhere.
        observed : array-like of bool, same shape, optional
            False where `truth` must not be counted, whatever stands there.

        Returns
        -------
        ForecastErrors
            This object.

        Raises
        ------
        InputError
            When shapes differ from each other, from earlier batches, or from the scale.
        InputTypeError
            When an array is not numeric, or `observed` is not boolean.
        DataQualityError
            When a forecast, or an observed truth, is not finite.
        NumericalError
            When squared errors overflow float64.
        """
        y, y_hat, seen = check_batch(truth, forecast, observed)
        n_windows, horizon, n_targets = y.shape
        self._check_axes(horizon, n_targets)
        parts = [] if self._sums is None else [self._sums]
        length = max(1, _PIECE // (horizon * n_targets))
        for start in range(0, n_windows, length):
            rows = slice(start, start + length)
            # (window, step, target) -> (step, target)
            piece = ErrorSums.of_values(y[rows], y_hat[rows], seen[rows]).pool(0)
            parts = [ErrorSums.stack([*parts, piece]).pool(0)]
        # Checked before it is kept, so that a refused batch leaves no trace.
        parts[0].check_range()
        self._sums = parts[0]
        self._n_windows += n_windows
        return self

    def result(self) -> ErrorSummary:
        """Return the errors over all batches so far.

        Returns
        -------
        ErrorSummary
            Values overall, per step and per target. NaN where nothing was observed.

        Raises
        ------
        InputError
            When no batch was given.
        """
        if self._sums is None:
            raise InputError(
                "no batch was given yet", where="result", hint="Call update first."
            )
        cells = self._sums
        # (step, target) -> (target,), (step,)
        targets, steps = cells.pool(0), cells.pool(1)
        by_target, by_cell = self._per_target(targets), self._per_target(cells)
        overall = _plain(targets.pool(0)) | _mean_over_targets(by_target)
        n_observed = int(targets.count.sum())
        return ErrorSummary(
            overall={name: float(value) for name, value in overall.items()},
            per_step=_plain(steps) | _mean_over_targets(by_cell),
            per_target=_plain(targets) | by_target,
            n_windows=self._n_windows,
            n_observed=n_observed,
            n_unobserved=self._n_windows * cells.count.size - n_observed,
            n_constant_targets=int((targets.is_constant & (targets.count > 0)).sum()),
            n_unscaled_targets=self._count_unscaled(),
        )

    def _per_target(self, sums: ErrorSums) -> dict[str, FloatArray]:
        """Metrics that are computed per target and then averaged over targets."""
        scatter = np.where(sums.is_constant, np.nan, sums.scatter)
        metrics = {"r2": 1.0 - sums.squared / scatter}
        if self._scale is not None:
            absolute, squared = (
                np.where(scale > 0, scale, np.nan) for scale in self._scale
            )
            plain = _plain(sums)
            metrics["mase"] = plain["mae"] / absolute
            metrics["rmsse"] = np.sqrt(plain["mse"] / squared)
        return metrics

    def _count_unscaled(self) -> int:
        if self._scale is None:
            return 0
        return int((~(self._scale.absolute > 0)).sum())

    def _check_axes(self, horizon: int, n_targets: int) -> None:
        if self._sums is not None and self._sums.count.shape != (horizon, n_targets):
            raise InputError(
                f"this batch has (horizon, n_targets) = {(horizon, n_targets)}, "
                f"earlier ones had {self._sums.count.shape}",
                where="truth",
                hint="Use one accumulator per horizon and set of targets.",
            )
        if self._scale is not None and len(self._scale.absolute) != n_targets:
            raise InputError(
                f"the scale has {len(self._scale.absolute)} targets, "
                f"the batch has {n_targets}",
                where="scale",
                hint="Compute it with seasonal_scale from the same columns.",
            )


def forecast_errors(
    truth: npt.ArrayLike,
    forecast: npt.ArrayLike,
    *,
    metrics: Sequence[str] = ("mse", "mae", "rmse", "smape", "bias", "r2"),
    scale: SeasonalScale | None = None,
) -> dict[str, float]:
    """Return overall forecast errors of arrays that are all there at once.

    Parameters
    ----------
    truth, forecast : array-like of shape (n_windows, horizon, n_targets)
        What happened (NaN: not observed) and what was forecast, matched by position;
        (horizon, n_targets) counts as one window.
    metrics : sequence of str
        Names in ``METRICS`` that judge a forecast.
    scale : SeasonalScale, optional
        Scale from :func:`seasonal_scale`; needed for "mase" and "rmsse".

    Returns
    -------
    dict of str to float
        One value per name in `metrics`, defined as in :class:`ForecastErrors`.

    Raises
    ------
    InputError
        When a metric is unknown, its scale is missing, or shapes differ.
    InputTypeError
        When an array is not numeric.
    DataQualityError
        When a forecast, or an observed truth, is not finite.

    Examples
    --------
    >>> forecast_errors([[1.0], [3.0]], [[2.0], [5.0]], metrics=["mse", "bias"])
    {'mse': 2.5, 'bias': 1.5}
    """
    for name in metrics:
        if name not in METRICS:
            raise InputError(
                f"no metric is called {name!r}. {nearest_name(name, METRICS)}".rstrip(),
                where="metrics",
                hint=f"Metrics are {', '.join(METRICS)}.",
            )
        if METRICS[name].judges != "forecast":
            raise InputError(
                f"metric {name!r} judges {METRICS[name].judges}, here are forecasts",
                where="metrics",
                hint="Use QuantileErrors, or backtest with quantiles= or coverage=.",
            )
        if METRICS[name].needs_scale and scale is None:
            raise InputError(
                f"metric {name!r} needs a scale",
                where="scale",
                hint="Pass scale=seasonal_scale(train, season_length).",
            )
    one_window = [
        array[np.newaxis] if array.ndim == 2 else array
        for array in (np.asarray(truth), np.asarray(forecast))
    ]
    overall = ForecastErrors(scale).update(*one_window).result().overall
    return {name: overall[name] for name in metrics}


def _plain(sums: ErrorSums) -> dict[str, FloatArray]:
    """Metrics in which every observed value counts the same."""
    mse = ratio(sums.squared, sums.count)
    return {
        "mse": mse,
        "mae": ratio(sums.absolute, sums.count),
        "rmse": np.sqrt(mse),
        "smape": ratio(sums.symmetric, sums.count),
        "bias": ratio(sums.error, sums.count),
    }


def _mean_over_targets(metrics: dict[str, FloatArray]) -> dict[str, FloatArray]:
    """Average over the last axis, leaving out NaN; NaN where nothing is left."""
    return {
        name: ratio(np.nansum(values, axis=-1), (~np.isnan(values)).sum(axis=-1))
        for name, values in metrics.items()
    }


def _check_scale(scale: SeasonalScale) -> SeasonalScale:
    if not isinstance(scale, SeasonalScale):
        raise InputTypeError(
            f"the scale is a {type(scale).__name__}, must be a SeasonalScale",
            where="scale",
            hint="Compute it with seasonal_scale.",
        )
    absolute, squared = (as_float64(part, "scale") for part in scale)
    if absolute.ndim != 1 or absolute.shape != squared.shape:
        raise InputError(
            f"the scale has shapes {absolute.shape} and {squared.shape}, both must be "
            "(n_targets,)",
            where="scale",
            hint="Compute it with seasonal_scale.",
        )
    return SeasonalScale(absolute, squared)
