"""Scorers for scikit-learn's searches that score the same rows for every lookback."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.utils.validation import check_is_fitted

from sciseq.data.containers import read_panel
from sciseq.data.panel import FloatArray
from sciseq.error_sums import as_float64
from sciseq.errors import CapabilityError, InputError
from sciseq.metrics import METRICS, ForecastErrors
from sciseq.model_selection.evaluation import (
    Forecaster,
    check_context,
    check_forecaster,
    forecast_windows,
    match_to,
)
from sciseq.model_selection.metric_choice import check_metric
from sciseq.parameters import Integer

__all__ = ["ForecastScorer", "forecast_scorer"]


def forecast_scorer(
    metric: str = "mse", *, context: int, scale: npt.ArrayLike | None = None
) -> "ForecastScorer":
    """Make a scorer of forecasts for ``cross_val_score``, ``GridSearchCV`` and others.

    Only windows whose targets all lie at or after row ``context`` of their series are
    scored, so that models of different lookback are judged on exactly the same rows.
    Give the same ``context`` to :class:`RollingOriginSplit`.

    Parameters
    ----------
    metric : str, default="mse"
        Name in ``sciseq.metrics.METRICS``, over all windows, steps and targets.
        ``"mase"`` and ``"rmsse"`` need training rows, which a scorer never sees: use
        :func:`backtest`.
    context : int
        Rows at the start of each series that are context only; at least the lookback
        of every model to be compared.
    scale : float or array-like of shape (n_targets,), optional
        What truth and forecast are divided by, per target. By default errors are in
        the units of the data, and targets with large numbers dominate. The standard
        deviation of the training rows is the usual scale of published results. It
        is one fixed number per target, the same for every model and fold.

    Returns
    -------
    callable
        ``scorer(estimator, X, y=None)`` gives a float, greater is better: errors are
        negated, and of ``"bias"`` it is the size. ``estimator`` is a fitted forecaster,
        ``ForecastPipeline`` or search over these; ready-made windows (3-D `X` with `y`)
        are all scored.

    Raises
    ------
    InputError
        For an unknown metric, or a context below 1. When scoring: for a model with a
        longer lookback than ``context``, or a table without a single window.
    CapabilityError
        For a metric that needs training rows.

    Examples
    --------
    >>> import numpy as np
    >>> from sciseq import NaiveForecaster
    >>> X = np.arange(30.0).reshape(-1, 1)
    >>> scorer = forecast_scorer("mae", context=20)
    >>> for lookback in (1, 15):
    ...     model = NaiveForecaster(horizon=2, lookback=lookback).fit(X)
    ...     print(scorer(model, X))
    -1.5
    -1.5
    """
    check_metric(metric)
    if METRICS[metric].judges != "forecast":
        raise CapabilityError(
            f"metric {metric!r} judges {METRICS[metric].judges}, a scorer judges "
            "forecasts",
            where="metric",
            hint="Use backtest(model, X, quantiles=[...]) or coverage=0.9.",
        )
    if METRICS[metric].needs_scale:
        raise CapabilityError(
            f"metric {metric!r} compares with the training rows, which a scorer does "
            "not see",
            where="metric",
            hint="Use backtest(model, X, metrics=[...]), or metric='mae' with scale=.",
        )
    if not Integer(1).allows(context):
        raise InputError(
            f"context={context!r} is not allowed: must be an integer of at least 1",
            where="context",
            hint="Give the longest lookback among the models.",
        )
    return ForecastScorer(metric, int(context), _check_scale(scale))


class ForecastScorer:
    """Callable made by :func:`forecast_scorer`; plain data, so that it pickles.

    Parameters
    ----------
    metric : str
        Name in ``sciseq.metrics.METRICS``.
    context : int
        Rows at the start of each series that are context only.
    scale : ndarray, or None
        What truth and forecast are divided by.
    """

    def __init__(self, metric: str, context: int, scale: FloatArray | None) -> None:
        self.metric = metric
        self.context = context
        self.scale = scale

    def __repr__(self) -> str:
        scale = "" if self.scale is None else f", scale={self.scale.tolist()}"
        return f"forecast_scorer({self.metric!r}, context={self.context}{scale})"

    def __call__(self, estimator: Any, X: Any, y: Any = None) -> float:
        """Score a fitted forecaster; greater is better."""
        # A search inside a search is scored as the model that it found.
        model = getattr(estimator, "best_estimator_", estimator)
        check_forecaster(model)
        check_is_fitted(model)
        value = self._errors(model, X, y).result().overall[self.metric]
        direction = METRICS[self.metric].direction
        if direction == "zero":
            value = abs(value)
        return value if direction == "greater" else -value

    def _errors(self, model: Forecaster, X: Any, y: Any) -> ForecastErrors:
        errors = ForecastErrors()
        divisor = np.ones(1) if self.scale is None else self.scale
        n_windows = 0
        for truth, forecast in self._windows(model, X, y):
            if divisor.size not in (1, truth.shape[2]):
                raise InputError(
                    f"scale has {divisor.size} values for {truth.shape[2]} targets",
                    where="scale",
                    hint="Give one per target, or a single number.",
                )
            errors.update(truth / divisor, forecast / divisor)
            n_windows += len(truth)
        if n_windows == 0:
            raise InputError(
                f"no window to score: after {self.context} rows of context no series "
                f"has the {model.horizon} rows of a horizon",
                where="X",
                hint="Raise test_size in the splitter to at least the horizon.",
            )
        return errors

    def _windows(
        self, model: Forecaster, X: Any, y: Any
    ) -> Iterator[tuple[FloatArray, FloatArray]]:
        """Truths and forecasts, batch by batch."""
        raw = read_panel(X)
        if raw.is_windows:
            panel = model._evaluation_panel(X, y)
            for _, truth, forecast in model._evaluate_panel(panel):
                yield truth, forecast
            return
        check_context(model, self.context, "forecast_scorer")
        cleaned = model._evaluation_panel(X, y)
        windows = forecast_windows(model, match_to(cleaned, raw), cleaned, self.context)
        for batch in windows:
            yield batch.truth, batch.forecast


def _check_scale(scale: npt.ArrayLike | None) -> FloatArray | None:
    if scale is None:
        return None
    divisor = as_float64(scale, "scale")
    if divisor.ndim > 1 or not (np.isfinite(divisor) & (divisor > 0)).all():
        raise InputError(
            f"scale={divisor.tolist()} is not allowed: must be positive numbers, one "
            "per target or one for all",
            where="scale",
            hint="A constant target has no spread: give it 1.",
        )
    return divisor
