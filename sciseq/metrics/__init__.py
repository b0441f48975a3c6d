"""Forecast metrics: of point forecasts, of quantiles and of intervals."""

from sciseq.metrics.names import METRICS, Metric
from sciseq.metrics.point import (
    ErrorSummary,
    ForecastErrors,
    SeasonalScale,
    forecast_errors,
    seasonal_scale,
)
from sciseq.metrics.probabilistic import (
    crps_from_quantiles,
    crps_from_samples,
    interval_coverage,
    interval_score,
    pinball_loss,
)
from sciseq.metrics.quantile_errors import QuantileErrors, QuantileSummary

__all__ = [
    "METRICS",
    "ErrorSummary",
    "ForecastErrors",
    "Metric",
    "QuantileErrors",
    "QuantileSummary",
    "SeasonalScale",
    "crps_from_quantiles",
    "crps_from_samples",
    "forecast_errors",
    "interval_coverage",
    "interval_score",
    "pinball_loss",
    "seasonal_scale",
]
