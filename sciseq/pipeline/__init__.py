"""scikit-learn's transformers before a forecaster, undone on the forecast."""

from sciseq.pipeline.forecast_pipeline import ForecastPipeline

__all__ = ["ForecastPipeline"]
