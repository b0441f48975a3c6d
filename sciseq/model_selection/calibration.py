"""Quantiles for the forecasts of a backtest, batch by batch.

Axis legend: n windows, H horizon, T targets, Q levels, M residuals of fit.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from sciseq.data.panel import FloatArray, Panel
from sciseq.model_selection.error_history import ErrorHistory, check_known
from sciseq.model_selection.evaluation import WindowForecasts
from sciseq.model_selection.own_quantiles import (
    calibrates_by_residuals,
    own_quantiles,
    residual_scale,
)
from sciseq.model_selection.sorted_errors import SortedErrors, ranked_quantiles

__all__ = ["CALIBRATIONS", "Calibrator"]

CALIBRATIONS = ("adaptive", "rolling", "fixed")


class Calibrator:
    """Add quantiles to batches of forecasts.

    Parameters
    ----------
    levels : sequence of float
        Levels, rising.
    kind : {"adaptive", "rolling", "fixed"}
        Which errors are looked at; see :func:`~sciseq.model_selection.backtest`.
    n_windows : int
        Latest windows whose errors are looked at, unless fixed.
    """

    def __init__(self, levels: Sequence[float], kind: str, n_windows: int) -> None:
        self.levels = np.array(levels)
        self.kind = kind
        self.n_windows = n_windows
        self._histories: dict[int, ErrorHistory] = {}

    def add(self, model: Any, raw: Panel, batch: WindowForecasts) -> WindowForecasts:
        """Return the batch with its quantiles, (n, H, T, Q).

        Parameters
        ----------
        model : forecaster
            The fitted model that made the forecasts.
        raw : Panel
            All series, as they were read, with the columns in the order of fit.
        batch : WindowForecasts
            Windows that come after those of earlier batches, in each series.

        Raises
        ------
        CapabilityError
            When no error is known to calibrate on.
        """
        is_fixed = self.kind == "fixed"
        is_clipped = getattr(model, "nonnegative", False)
        # What a model clips it clips after its residuals are added.
        if calibrates_by_residuals(model) and not (is_fixed and is_clipped):
            base = batch.forecast[..., None]  # (n, H, T, 1)
            scale = residual_scale(model, raw, batch.series)  # (n, 1, T)
            residuals = model.calibration_residuals_.astype(np.float64)  # (M, H, T)
            if is_fixed:
                quantiles = base + self._shift(residuals) * scale[..., None]
            else:
                quantiles = self._follow(batch, base, residuals, scale)
        else:
            quantiles = own_quantiles(model, raw, batch, self.levels)
            if not is_fixed:
                quantiles = self._follow(batch, quantiles)
        if is_clipped:
            quantiles = np.maximum(quantiles, 0.0)
        # Corrections of their own may let quantiles cross.
        return batch._replace(quantiles=np.sort(quantiles, axis=-1))

    def _shift(self, residuals: FloatArray) -> FloatArray:
        """Quantiles (H, T, Q) of residuals (M, H, T)."""
        M, H, T = residuals.shape
        errors = SortedErrors(residuals.reshape(M, H * T).T)
        shift = ranked_quantiles(
            errors.ordered.reshape(H, T, -1),
            errors.count.reshape(H, T),
            np.broadcast_to(self.levels, (H, T, len(self.levels))),
        )
        check_known(shift)
        return shift

    def _follow(
        self,
        batch: WindowForecasts,
        base: FloatArray,
        residuals: FloatArray | None = None,
        scale: FloatArray | None = None,
    ) -> FloatArray:
        """Quantiles from what each origin knows of earlier windows of its series."""
        quantiles = np.empty((*batch.forecast.shape, len(self.levels)))
        for series in np.unique(batch.series).tolist():
            chosen = np.flatnonzero(batch.series == series)
            if series not in self._histories:
                start = None
                if residuals is not None and scale is not None:
                    start = residuals * scale[chosen[0]]
                self._histories[series] = ErrorHistory(
                    self.levels,
                    self.n_windows,
                    base.shape[1:],
                    start,
                    is_adaptive=self.kind == "adaptive",
                )
            quantiles[chosen] = self._histories[series].follow(
                batch.rows[chosen], batch.truth[chosen], base[chosen]
            )
        return quantiles
