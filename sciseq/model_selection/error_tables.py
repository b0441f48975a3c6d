"""Tables of forecast errors: overall, per step, per target and per window.

Axis legend: n windows, H horizon, T targets, S series.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from sciseq.data.panel import FloatArray
from sciseq.data.scaling import ColumnScaler
from sciseq.errors import InputError
from sciseq.metrics import METRICS, ForecastErrors, SeasonalScale, seasonal_scale
from sciseq.model_selection.evaluation import WindowForecasts

__all__ = ["ErrorTables"]


@dataclass(frozen=True)
class _View:
    """Metrics that look at the values through one scale: (x - centre) / scale."""

    metrics: tuple[str, ...]
    centre: FloatArray  # (S, T)
    scale: FloatArray  # (S, T); 0 or NaN where there is none
    errors: ForecastErrors
    per_window: list[pd.DataFrame]

    @classmethod
    def of(cls, names: Sequence[str], centre: FloatArray, scale: FloatArray) -> "_View":
        return cls(tuple(names), centre, scale, _unit_errors(scale.shape[1]), [])

    def update(self, batch: WindowForecasts) -> None:
        scale = self.scale[batch.series][:, None]  # (n, 1, T)
        centre = self.centre[batch.series][:, None]
        has_scale = scale > 0
        divisor = np.where(has_scale, scale, 1.0)
        truth = np.where(has_scale, (batch.truth - centre) / divisor, np.nan)
        forecast = (batch.forecast - centre) / divisor
        self.errors.update(truth, forecast)
        # Accumulators keep steps apart: with windows in their place, windows are.
        apart = _unit_errors(scale.shape[2])
        apart.update(np.swapaxes(truth, 0, 1), np.swapaxes(forecast, 0, 1))
        values = apart.result().per_step
        self.per_window.append(
            pd.DataFrame({name: values[name] for name in self.metrics})
        )


def _unit_errors(n_targets: int) -> ForecastErrors:
    """Accumulator for values that are scaled already."""
    ones = np.ones(n_targets)
    return ForecastErrors(SeasonalScale(ones, ones))


class ErrorTables:
    """Accumulate the errors of windows, and write them as tables.

    MASE and RMSSE divide the errors of each series by its own scale, so that large
    series do not drown small ones; all else is in the units of the data, or of their
    spread.

    Parameters
    ----------
    metrics : sequence of str
        Names in ``METRICS``, in the order of the columns.
    training : sequence of ndarray of shape (n_rows, T)
        Training rows of each series, targets only; NaN where missing.
    season_length : int
        Rows of one season, for MASE and RMSSE.
    scaled : bool
        Whether truth and forecasts are standardised with the training rows.
    """

    def __init__(
        self,
        metrics: Sequence[str],
        training: Sequence[FloatArray],
        season_length: int,
        scaled: bool,
    ) -> None:
        self.metrics = list(metrics)
        n_targets = training[0].shape[1]
        units = ColumnScaler.fit(training) if scaled else None
        units = units or ColumnScaler.identity(n_targets)
        shape = (len(training), n_targets)
        plain = [name for name in metrics if not METRICS[name].needs_scale]
        self._views = [
            _View.of(
                plain,
                np.broadcast_to(units.mean, shape),
                np.broadcast_to(units.scale, shape),
            )
        ]
        if len(plain) < len(self.metrics):
            scales = _seasonal_scales(training, season_length)
            own = {"mase": scales.absolute, "rmsse": np.sqrt(scales.squared)}
            self._views += [
                _View.of([name], np.zeros(shape), own[name])
                for name in metrics
                if name in own
            ]

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
        return self._views[0].errors.result().n_unobserved

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
