"""Quantiles and intervals of any forecaster, calibrated on held-out windows.

Axis legend: n windows, H horizon, T targets, Q quantile levels of the method.

A method forecasts one value for each step and target, or Q quantiles of it. Either way
the residuals of held-out windows, at the wanted level, are added: to the value, or to
the quantile of that level (conformalised quantile regression, one level at a time).
"""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sciseq.data.panel import FloatArray, Panel
from sciseq.data.scaling import SeriesScaler
from sciseq.data.timeline import Step
from sciseq.data.windows import WindowInputs, WindowSet
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
        def _scaler_for(self, panel: Panel) -> SeriesScaler: ...
        def _targets_of(self, panel: Panel) -> list[int]: ...
        def _forecast(self, inputs: WindowInputs) -> FloatArray: ...
        def _first_inputs(
            self, panel: Panel, future: FutureRows, n_rows: int
        ) -> WindowInputs: ...
        def _in_data_units(self, panel: Panel, scaled: FloatArray) -> FloatArray: ...
        def _write(
            self, panel: Panel, forecasts: list[FloatArray], future: FutureRows
        ) -> Any: ...

    def _levels(self) -> tuple[float, ...] | None:
        """Levels of the quantiles that the method itself forecasts; None: a value."""
        return None

    def _forecast_levels(self, inputs: WindowInputs) -> FloatArray:
        """Map scaled inputs to forecasts of every level, (n, H, T, Q)."""
        return self._forecast(inputs)[..., None]

    def _calibrate(self, held_out: WindowSet | None) -> None:
        """Keep residuals of held-out windows, scaled, for conformal intervals."""
        self.calibration_residuals_: npt.NDArray[np.float32] | None = None
        if held_out is None or len(held_out) == 0:
            return
        per_window = self.horizon * len(self.target_positions_)
        per_window *= len(self._levels() or (0.5,))
        count = max(2, min(CALIBRATION_WINDOWS, CALIBRATION_VALUES // per_window))
        windows = held_out.evenly(count)
        residuals = []
        for chunk in windows.chunks(CALIBRATION_WINDOWS):
            forecast = self._forecast_levels(windows.inputs(chunk))
            truth = windows.targets(chunk)[..., self.target_positions_, None]
            residuals.append(truth - forecast)
        kept = np.concatenate(residuals).astype(np.float32)
        self.calibration_residuals_ = kept if self._levels() else kept[..., 0]

    def _rescale_residuals(self, factor: FloatArray) -> None:
        """Express residuals in the units of a new scaler."""
        if self.calibration_residuals_ is not None:
            if self.calibration_residuals_.ndim == 4:
                factor = factor[:, None]
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
        the forecast, or to the quantile that a network trained with
        ``loss="quantile"`` forecasts itself. Residuals of the early-stopping tail are
        used when no other rows were held out, so intervals can come out slightly
        narrow.

        Parameters
        ----------
        X : same kinds of container as in fit, optional
            As in :meth:`predict`.
        quantiles : array-like of float, default=(0.1, 0.5, 0.9)
            Levels between 0 and 1; with ``loss="quantile"`` some of those trained.
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
        wanted = [float(level) for level in np.sort(levels)]
        for level in wanted:
            self._place_of(level)
        panel, forecast, future = self._calibrated_forecast(X, horizon)
        all_levels = self._levels() or wanted
        shifted = [
            forecast[..., self._place_of(level)]
            + self._residual_quantile(level, forecast.shape[1])
            for level in all_levels
        ]
        chosen = np.stack(shifted)  # (levels, n, H, T)
        if self._levels():
            # A network may cross its quantiles: sorted, whichever are asked for.
            chosen = np.sort(chosen, axis=0)[[self._place_of(one) for one in wanted]]
        return {
            level: self._write(panel, list(self._in_data_units(panel, one)), future)
            for level, one in zip(wanted, chosen, strict=True)
        }

    def _place_of(self, level: float) -> int:
        """Position of the forecast that a level starts from."""
        trained = self._levels()
        if trained is None:
            return 0
        near = np.flatnonzero(np.isclose(trained, level, rtol=0, atol=1e-9))
        if not len(near):
            raise CapabilityError(
                f"the network was trained for the quantiles {list(trained)}, "
                f"{level:g} is not among them",
                where="quantiles",
                hint=f"Fit with quantiles={sorted({*trained, level})}.",
            )
        return int(near[0])

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
    ) -> tuple[Panel, FloatArray, FutureRows]:
        """Scaled forecasts (n, n_rows, T, Q) of every series, all in one pass."""
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
        inputs = self._first_inputs(panel, future, n_rows)
        if inputs.marks is not None:
            inputs = replace(inputs, marks=inputs.marks[:, : inputs.values.shape[1]])
        return panel, self._forecast_levels(inputs)[:, :n_rows], future

    def _residual_quantile(self, level: float, n_rows: int) -> FloatArray:
        """Conformal quantile of the residuals, scaled, (H, T): ranks out of n + 1."""
        residuals = self.calibration_residuals_
        assert residuals is not None
        if residuals.ndim == 4:
            residuals = residuals[..., self._place_of(level)]
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
        return np.asarray(low + (high - low) * (ranks - below))


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
