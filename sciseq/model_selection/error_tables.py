"""Tables of forecast errors: overall, per step, per target and per window.

Axis legend: n windows, H horizon, T targets, S series.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from sciseq.data.panel import FloatArray
from sciseq.data.scaling import ColumnScaler
from sciseq.errors import InputError
from sciseq.metrics import (
    METRICS,
    ForecastErrors,
    QuantileErrors,
    SeasonalScale,
    seasonal_scale,
)
from sciseq.model_selection.evaluation import WindowForecasts

__all__ = ["ErrorTables"]


class _View(ABC):
    """Metrics of one kind, that look at values through one scale.

    Parameters
    ----------
    metrics : sequence of str
        Names, in the order of the columns.
    centre, scale : ndarray of shape (S, T)
        Values are (x - centre) / scale; scale is 0 or NaN where there is none.
    """

    def __init__(
        self, metrics: Sequence[str], centre: FloatArray, scale: FloatArray
    ) -> None:
        self.metrics = tuple(metrics)
        self.centre = centre
        self.scale = scale
        self.errors = self.accumulator()
        self.per_window: list[pd.DataFrame] = []

    @abstractmethod
    def accumulator(self) -> Any:
        """Return an empty accumulator."""

    @abstractmethod
    def forecasts(self, batch: WindowForecasts) -> FloatArray:
        """Return what is compared with the truth, (n, H, T) or (n, H, T, Q)."""

    def update(self, batch: WindowForecasts) -> None:
        scale = self.scale[batch.series][:, None]  # (n, 1, T)
        centre = self.centre[batch.series][:, None]
        has_scale = scale > 0
        divisor = np.where(has_scale, scale, 1.0)
        truth = np.where(has_scale, (batch.truth - centre) / divisor, np.nan)
        forecast = self.forecasts(batch)
        if forecast.ndim == 4:
            centre, divisor = centre[..., None], divisor[..., None]
        forecast = (forecast - centre) / divisor
        self.errors.update(truth, forecast)
        # Accumulators keep steps apart: with windows in their place, windows are.
        apart = self.accumulator()
        apart.update(np.swapaxes(truth, 0, 1), np.swapaxes(forecast, 0, 1))
        values = apart.result().per_step
        self.per_window.append(
            pd.DataFrame({name: values[name] for name in self.metrics})
        )


class _PointView(_View):
    """Metrics of the forecasts themselves."""

    def accumulator(self) -> ForecastErrors:
        ones = np.ones(self.scale.shape[1])  # what comes in is scaled already
        return ForecastErrors(SeasonalScale(ones, ones))

    def forecasts(self, batch: WindowForecasts) -> FloatArray:
        return batch.forecast


class _QuantileView(_View):
    """Metrics of quantiles and intervals."""

    def __init__(
        self, make: Callable[[], QuantileErrors], centre: FloatArray, scale: FloatArray
    ) -> None:
        self.make = make
        super().__init__(make().metrics, centre, scale)

    def accumulator(self) -> QuantileErrors:
        return self.make()

    def forecasts(self, batch: WindowForecasts) -> FloatArray:
        assert batch.quantiles is not None
        return batch.quantiles


class ErrorTables:
    """Accumulate the errors of windows, and write them as tables.

    MASE and RMSSE divide the errors of each series by its own scale, so that large
    series do not drown small ones; all else is in the units of the data, or of their
    spread.

    Parameters
    ----------
    metrics : sequence of str
        Names in ``METRICS`` that judge forecasts, in the order of the columns.
    training : sequence of ndarray of shape (n_rows, T)
        Training rows of each series, targets only; NaN where missing.
    season_length : int
        Rows of one season, for MASE and RMSSE.
    scaled : bool
        Whether truth and forecasts are standardised with the training rows.
    quantile_errors : callable, optional
        Makes empty accumulators for quantiles, whose metrics follow.
    """

    def __init__(
        self,
        metrics: Sequence[str],
        training: Sequence[FloatArray],
        season_length: int,
        scaled: bool,
        quantile_errors: Callable[[], QuantileErrors] | None = None,
    ) -> None:
        self.metrics = list(metrics)
        n_targets = training[0].shape[1]
        units = ColumnScaler.fit(training) if scaled else None
        units = units or ColumnScaler.identity(n_targets)
        shape = (len(training), n_targets)
        centre = np.broadcast_to(units.mean, shape)
        scale = np.broadcast_to(units.scale, shape)
        plain = [name for name in metrics if not METRICS[name].needs_scale]
        self._views: list[_View] = [_PointView(plain, centre, scale)]
        if len(plain) < len(self.metrics):
            scales = _seasonal_scales(training, season_length)
            own = {"mase": scales.absolute, "rmsse": np.sqrt(scales.squared)}
            self._views += [
                _PointView([name], np.zeros(shape), own[name])
                for name in metrics
                if name in own
            ]
        if quantile_errors is not None:
            self._views.append(_QuantileView(quantile_errors, centre, scale))
            self.metrics += self._views[-1].metrics

    def update(self, batch: WindowForecasts) -> None:
        """Add a batch of windows."""
        for view in self._views:
            view.update(batch)

    def overall(self, label: str) -> pd.DataFrame:
        """One row: the errors over everything."""
        return self._table("overall", [label], "model")

    def per_step(self) -> pd.DataFrame:
        """One row per step of the horizon, from 1."""
        errors = self._views[0].errors.result().per_step["mse"]
        return self._table("per_step", range(1, len(errors) + 1), "step")

    def per_target(self, labels: Any) -> pd.DataFrame:
        """One row per target."""
        return self._table("per_target", labels, "target")

    def per_window(self, index: pd.Index) -> pd.DataFrame:
        """One row per window, in the order in which they came."""
        parts = [
            pd.concat(view.per_window, ignore_index=True)
            for view in self._views
            if view.metrics
        ]
        return pd.concat(parts, axis=1)[self.metrics].set_axis(index)

    @property
    def n_unobserved(self) -> int:
        """Values of the truth that were not observed, and not counted."""
        return int(self._views[0].errors.result().n_unobserved)

    def _table(self, kind: str, labels: Any, name: str) -> pd.DataFrame:
        values: dict[str, Any] = {}
        for view in self._views:
            of_kind = getattr(view.errors.result(), kind)
            values |= {metric: of_kind[metric] for metric in view.metrics}
        index = pd.Index(list(labels), name=name, tupleize_cols=False)
        return pd.DataFrame(values, index=index)[self.metrics]


def _seasonal_scales(
    training: Sequence[FloatArray], season_length: int
) -> SeasonalScale:
    """Scales of every series, each of shape (S, T); NaN for series too short."""
    if max(map(len, training)) <= season_length:
        raise InputError(
            f"MASE and RMSSE need more than season_length={season_length} training "
            f"rows, the longest series has {max(map(len, training))} before the first "
            "origin",
            where="season_length",
            hint="Choose later origins, a shorter season, or other metrics.",
        )
    unknown = SeasonalScale(*np.full((2, training[0].shape[1]), np.nan))
    scales = [
        seasonal_scale(rows, season_length) if len(rows) > season_length else unknown
        for rows in training
    ]
    return SeasonalScale(
        np.stack([scale.absolute for scale in scales]),
        np.stack([scale.squared for scale in scales]),
    )
