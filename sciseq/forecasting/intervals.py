"""Quantiles and intervals of any forecaster, calibrated on held-out windows.

Axis legend: n windows, H horizon, T targets.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sciseq.data.panel import FloatArray, Panel
from sciseq.data.scaling import ColumnScaler
from sciseq.data.timeline import Step
from sciseq.data.windows import WindowSet
from sciseq.errors import CapabilityError, InputError
from sciseq.forecasting.future import FutureRows
from sciseq.parameters import Real

__all__ = ["ConformalIntervals", "central_levels"]

# Calibration windows and values kept for intervals.
CALIBRATION_WINDOWS = 512
CALIBRATION_VALUES = 2**24


class ConformalIntervals:
    """The part of a forecaster that turns errors of held-out windows into intervals."""

    if TYPE_CHECKING:
        # What the forecaster brings.
        horizon: int
        variates: str
        target_positions_: npt.NDArray[np.int64]

        def _prediction_panel(self, X: Any) -> Panel: ...
        def _check_horizon(self, horizon: int | None) -> int: ...
        def _step_of(self, panel: Panel) -> Step | None: ...
        def _target_scaler(self) -> ColumnScaler: ...
        def _roll_forward(
            self, panel: Panel, future: FutureRows, n_rows: int
        ) -> list[FloatArray]: ...
        def _write(
            self, panel: Panel, forecasts: list[FloatArray], future: FutureRows
        ) -> Any: ...
        def _evaluate(
            self, windows: WindowSet
        ) -> Iterator[tuple[npt.NDArray[np.int64], FloatArray, FloatArray]]: ...

    def _calibrate(self, held_out: WindowSet | None) -> None:
        """Keep residuals of held-out windows, scaled, for conformal intervals."""
        self.calibration_residuals_: npt.NDArray[np.float32] | None = None
        if held_out is None or len(held_out) == 0:
            return
        per_window = self.horizon * len(self.target_positions_)
        count = max(2, min(CALIBRATION_WINDOWS, CALIBRATION_VALUES // per_window))
        windows = held_out.evenly(count)
        residuals = [truth - forecast for _, truth, forecast in self._evaluate(windows)]
        self.calibration_residuals_ = np.concatenate(residuals).astype(np.float32)

    def _rescale_residuals(self, factor: FloatArray) -> None:
        """Express residuals in the units of a new scaler."""
        if self.calibration_residuals_ is not None:
            scaled = self.calibration_residuals_ * factor
            self.calibration_residuals_ = scaled.astype(np.float32)

    def predict_quantiles(
        self,
        X: Any = None,
        *,
        quantiles: npt.ArrayLike = (0.1, 0.5, 0.9),
        horizon: int | None = None,
    ) -> dict[float, Any]:
        """Forecast quantiles by split-conformal calibration on held-out windows.

        The residuals of held-out windows, per horizon step and target, are added to
        the forecast. Residuals of the early-stopping tail are used when no other rows
        were held out, so intervals can come out slightly narrow.

        Parameters
        ----------
        X : same kinds of container as in fit, optional
            As in :meth:`predict`.
        quantiles : array-like of float, default=(0.1, 0.5, 0.9)
            Levels between 0 and 1.
        horizon : int, optional
            At most the fitted horizon.

        Returns
        -------
        dict
            For each level the forecast, as :meth:`predict` would return it.

        Raises
        ------
        CapabilityError
            When nothing was held out, or the horizon is longer than the fitted one.
        """
        levels = np.atleast_1d(np.asarray(quantiles))
        is_number = levels.dtype.kind in "fiu"
        if not is_number or not levels.size or not ((levels > 0) & (levels < 1)).all():
            raise InputError(
                f"quantiles={quantiles!r} are not allowed: must lie between 0 and 1",
                where="quantiles",
                hint="Give levels such as [0.1, 0.5, 0.9].",
            )
        panel, forecasts, future = self._calibrated_forecast(X, horizon)
        results = {}
        for level in np.sort(levels):
            shift = self._residual_quantile(float(level), len(forecasts[0]))
            moved = [forecast + shift for forecast in forecasts]
            results[float(level)] = self._write(panel, moved, future)
        return results

    def predict_interval(
        self, X: Any = None, *, coverage: float = 0.9, horizon: int | None = None
    ) -> tuple[Any, Any]:
        """Forecast central intervals by split-conformal calibration.

        Parameters
        ----------
        X : same kinds of container as in fit, optional
            As in :meth:`predict`.
        coverage : float, default=0.9
            Share of truths that the interval should hold, at each step.
        horizon : int, optional
            At most the fitted horizon.

        Returns
        -------
        lower, upper
            Two forecasts, as :meth:`predict` would return them.
        """
        levels = central_levels(coverage)
        both = self.predict_quantiles(X, quantiles=levels, horizon=horizon)
        return both[levels[0]], both[levels[1]]

    def _calibrated_forecast(
        self, X: Any, horizon: int | None
    ) -> tuple[Panel, list[FloatArray], FutureRows]:
        panel = self._prediction_panel(X)
        n_rows = self._check_horizon(horizon)
        if self.calibration_residuals_ is None:
            raise CapabilityError(
                "nothing was held out in fit, so there are no errors to calibrate on",
                where=type(self).__name__,
                hint="Fit with validation_data= or a larger validation_fraction.",
            )
        if n_rows > self.horizon or self.variates == "any":
            raise CapabilityError(
                "intervals are calibrated for the fitted columns and horizon "
                f"({self.horizon}) only",
                where="predict_quantiles",
                hint=f"Fit with horizon={n_rows} and variates='fixed'.",
            )
        future = FutureRows.after(panel, self._step_of(panel), n_rows)
        return panel, self._roll_forward(panel, future, n_rows), future

    def _residual_quantile(self, level: float, n_rows: int) -> FloatArray:
        """Conformal quantile of the residuals, (H, T): ranks out of n + 1."""
        residuals = self.calibration_residuals_
        assert residuals is not None
        count = np.isfinite(residuals[:, :n_rows]).sum(axis=0)
        if (count == 0).any():
            step, target = (int(one[0]) for one in np.nonzero(count == 0))
            raise CapabilityError(
                "the truth is missing in every held-out window, so there are no "
                "errors to calibrate on",
                where=f"step {step + 1}, target {target}",
                hint="Fit with validation_data= or a larger validation_fraction.",
            )
        # The k-th of n residuals covers k / (n + 1): the correction that makes the
        # coverage of split-conformal intervals at least nominal.
        ranks = np.clip(level * (count + 1) - 1, 0, np.maximum(count - 1, 0))
        ordered = np.sort(residuals[:, :n_rows], axis=0)
        below = np.floor(ranks).astype(np.int64)
        above = np.ceil(ranks).astype(np.int64)
        low = np.take_along_axis(ordered, below[None], axis=0)[0]
        high = np.take_along_axis(ordered, above[None], axis=0)[0]
        scaled = low + (high - low) * (ranks - below)
        return np.asarray(scaled * self._target_scaler().scale)


def central_levels(coverage: float) -> tuple[float, float]:
    """Quantile levels of the central interval that holds a share of the truths.

    Examples
    --------
    >>> central_levels(0.5)
    (0.25, 0.75)
    """
    if not Real(0.0, 1.0, open_low=True, open_high=True).allows(coverage):
        raise InputError(
            f"coverage={coverage!r} is not allowed: must lie between 0 and 1",
            where="coverage",
            hint="0.9 means that nine in ten truths should lie inside.",
        )
    return (1 - coverage) / 2, (1 + coverage) / 2
