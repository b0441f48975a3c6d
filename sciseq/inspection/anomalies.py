"""Rows that forecasts did not see coming, scored by the errors of usual rows.

Axis legend: n windows, H horizon, T targets, R rows of a series, M windows of usual
errors.
"""

from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from sciseq.data.containers import read_panel
from sciseq.data.panel import FloatArray, Panel, located
from sciseq.errors import CapabilityError, InputError
from sciseq.model_selection.evaluation import (
    check_forecaster,
    forecast_windows,
    future_columns,
    known_panel,
    match_to,
)
from sciseq.model_selection.own_quantiles import residual_scale
from sciseq.parameters import AnyOf, Integer, Nothing, Option, Rule, check_parameters

__all__ = ["anomaly_scores"]

_RULES: dict[str, Rule] = {
    "method": Option("z", "p_value"),
    "steps": AnyOf(Nothing(), Integer(1)),
}
# Of a normal distribution, the deviation in median absolute deviations.
_DEVIATIONS_PER_MAD = 1.4826022185056018


def anomaly_scores(
    model: Any,
    X: Any,
    *,
    method: str = "z",
    steps: int | None = None,
    reference: Any = None,
) -> Any:
    r"""Score each row by how far the forecasts of it were off.

    A row is a target of up to H forecasts, made 1 to H rows before it. The error e of
    each is compared with usual errors of the same step and target: with their median m
    and median absolute deviation s,

    .. math:: z = \frac{e - m}{1.4826\, s}, \qquad
              p = \frac{1 + \#\{|e_i - m| \ge |e - m|\}}{M + 1}

    and the score of the row is the median over its forecasts (for p-values twice the
    median, at most 1, which is a p-value again).

    Parameters
    ----------
    model : forecaster or ForecastPipeline
        Fitted.
    X : same kinds of container as in ``fit``
        Rows to score, after at least as many rows of context as the model looks back.
    method : {"z", "p_value"}, default="z"
        ``"z"`` is positive above and negative below what was expected; sizes above 4
        or so are anomalous. A ``"p_value"`` is anomalous when small; M usual errors
        give no less than 2 / (M + 1).
    steps : int, optional
        Count forecasts made at most so many rows before; by default all. Fewer are
        more accurate, but where an anomaly goes on, they get used to it.
    reference : same kind of container as X, optional
        Usual rows, which the model has not learnt from. By default the errors on those
        that were held out in fit are the usual ones.

    Returns
    -------
    Same kind of container as X
        Scores in the rows of X, one column per target; NaN for rows of context, and
        where X is NaN.

    Raises
    ------
    InputError
        For arguments out of range, or too few rows.
    CapabilityError
        When there are no usual errors: nothing was held out, or the model is a
        pipeline, and no ``reference`` is given.

    Notes
    -----
    Forecasts made after an anomaly have it in their look-back and may be off
    themselves. The median over forecasts made at different times passes them over,
    unless the anomaly lasts longer than half the horizon.

    The mean and, as here, the median of dependent p-values are p-values again when
    doubled: Vovk and Wang, Combining p-values via averaging, Biometrika 107 (2020).

    Examples
    --------
    >>> from sciseq import LinearForecaster
    >>> from sciseq.inspection import anomaly_scores
    >>> noise = np.random.default_rng(0).normal(scale=0.1, size=(300, 1))
    >>> X = np.sin(np.arange(300.0) / 4)[:, None] + noise
    >>> model = LinearForecaster(lookback=16, horizon=4).fit(X[:200])
    >>> X[250] += 2.0
    >>> scores = anomaly_scores(model, X[200:])
    >>> int(np.nanargmax(np.abs(scores))), bool(np.isnan(scores[:16]).all())
    (50, True)
    """
    check_parameters({"method": method, "steps": steps}, _RULES, owner="anomaly_scores")
    check_forecaster(model)
    check_is_fitted(model)
    raw, errors = _errors_of_rows(model, X)
    n_steps = errors[0].shape[1] if steps is None else steps
    usual, scale = _usual_errors(model, raw, reference)  # (M, H, T), (S, 1, T)
    rate = _robust_z if method == "z" else _p_values
    scores = [
        rate(rows[:, :n_steps] / scale[series], usual[:, :n_steps])
        for series, rows in enumerate(errors)
    ]
    return raw.layout.write(raw, scores, raw.times, model._targets_of(raw))


def _errors_of_rows(model: Any, X: Any) -> tuple[Panel, list[FloatArray]]:
    """Errors by row and step of the forecast that targets it, (R, H, T) each."""
    raw = read_panel(X)
    if raw.is_windows:
        raise InputError(
            "ready-made windows (a 3-D X) have no rows to score",
            where="X",
            hint="Give the table that they were cut from.",
        )
    cleaned = model._evaluation_panel(X)
    raw = match_to(cleaned, raw)
    L, H = model._context_length, model.horizon
    n_targets = len(model._targets_of(cleaned))
    errors = [np.full((rows, H, n_targets), np.nan) for rows in raw.lengths]
    steps = np.arange(H)
    for batch in forecast_windows(model, raw, cleaned, L):
        for series in np.unique(batch.series):
            chosen = batch.series == series
            rows = batch.rows[chosen][:, None] + steps  # (n, H)
            error = batch.truth[chosen] - batch.forecast[chosen]
            errors[series][rows, steps] = error
    if not future_columns(model):
        _add_last_rows(model, raw, errors)
    return raw, errors


def _add_last_rows(model: Any, raw: Panel, errors: list[FloatArray]) -> None:
    """Forecasts whose horizon reaches beyond the last row: the newest rows count."""
    targets = model._targets_of(raw)
    for left in range(1, model.horizon):  # rows that are left after the origin
        origins = raw.lengths - left
        forecasts = read_panel(model.predict(known_panel(model, raw, origins))).values
        for series, forecast in enumerate(forecasts):
            truth = raw.values[series][-left:, targets]
            rows, steps = np.arange(-left, 0), np.arange(left)
            errors[series][rows, steps] = truth - forecast[:left]


def _usual_errors(
    model: Any, raw: Panel, reference: Any
) -> tuple[FloatArray, FloatArray]:
    """Usual errors (M, H, T), and what the errors of each series are divided by."""
    if reference is not None:
        with located("reference"):
            _, errors = _errors_of_rows(model, reference)
        # One row is one window here: rows of context and the last ones have gaps.
        return np.concatenate(errors), np.ones((raw.n_series, 1, 1))
    residuals = getattr(model, "calibration_residuals_", None)
    if residuals is None:
        raise CapabilityError(
            f"{type(model).__name__} holds no errors of usual rows to compare with",
            where="anomaly_scores",
            hint="Give reference=, rows that were not learnt from, or fit a forecaster "
            "with a validation_fraction.",
        )
    if residuals.ndim == 4:
        # A network that forecasts quantiles: its forecast is the median.
        residuals = residuals[..., model._place_of(0.5)]
    scale = residual_scale(model, raw, np.arange(raw.n_series))
    return residuals.astype(np.float64), scale


def _robust_z(errors: FloatArray, usual: FloatArray) -> FloatArray:
    """Median over steps of the robust z of errors (R, H, T)."""
    centre = np.nanmedian(usual, axis=0)  # (H, T)
    spread = _DEVIATIONS_PER_MAD * np.nanmedian(np.abs(usual - centre), axis=0)
    away = errors - centre
    with np.errstate(divide="ignore", invalid="ignore"):
        # Where usual errors are all the same, any other is infinitely far.
        z = np.where(away == 0, 0.0, away / np.where(spread > 0, spread, 0.0))
    return _median_over_steps(z)


def _p_values(errors: FloatArray, usual: FloatArray) -> FloatArray:
    """Twice the median over steps of conformal p-values of errors (R, H, T)."""
    centre = np.nanmedian(usual, axis=0)
    away, others = np.abs(errors - centre), np.sort(np.abs(usual - centre), axis=0)
    p = np.full_like(away, np.nan)
    for step, target in np.ndindex(centre.shape):
        known = others[:, step, target]
        known = known[~np.isnan(known)]
        as_far = len(known) - np.searchsorted(known, away[:, step, target])
        p[:, step, target] = (1 + as_far) / (len(known) + 1)
    doubled = 2 * _median_over_steps(np.where(np.isnan(away), np.nan, p))
    return np.minimum(doubled, 1.0)


def _median_over_steps(values: FloatArray) -> FloatArray:
    """Median over the forecasts of each row, NaN where there is none: (R, T)."""
    ordered = np.sort(values, axis=1)  # NaN last
    count = np.sum(~np.isnan(values), axis=1)[:, None]  # (R, 1, T)
    low, high = (
        np.take_along_axis(ordered, np.maximum(place, 0), axis=1)
        for place in ((count - 1) // 2, count // 2)
    )
    middle = np.where(low == high, low, (low + high) / 2)
    return np.asarray(np.where(count > 0, middle, np.nan)[:, 0])
