"""Forecasts of a fitted forecaster: after the end of a table, and over its windows.

Axis legend: n windows or series, L lookback, H horizon, C columns, T targets,
Q quantile levels, K channels known ahead.
"""

import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sciseq.data.panel import FloatArray, Panel
from sciseq.data.scaling import SeriesScaler
from sciseq.data.windows import WindowInputs, WindowSet, window_starts
from sciseq.errors import CapabilityError, InputError, NumericalError, SciSeqWarning
from sciseq.forecasting import roles
from sciseq.forecasting.future import FutureRows
from sciseq.forecasting.intervals import ConformalIntervals
from sciseq.metrics import ForecastErrors
from sciseq.parameters import Integer

__all__ = ["Predicting"]

# Windows per step of a long evaluation: large enough to be fast, small enough that a
# year of hourly data never stands in memory as windows.
WINDOWS_PER_CHUNK = 512


class Predicting(ConformalIntervals):
    """The part of a forecaster that forecasts: ``predict``, ``score`` and their kin."""

    if TYPE_CHECKING:
        # What the forecaster brings.
        calendar_: tuple[str, ...]
        future_calendar_: tuple[str, ...]
        future_positions_: npt.NDArray[np.int64]
        static_positions_: npt.NDArray[np.int64]
        nonnegative: bool

        @property
        def _context_length(self) -> int: ...
        @property
        def _n_known(self) -> int: ...
        def _forecast(self, inputs: WindowInputs) -> FloatArray: ...
        def _check_is_fitted(self) -> None: ...
        def _is_all_columns(self) -> bool: ...
        def _evaluation_panel(self, X: Any, y: Any = None) -> Panel: ...
        def _scaler_for(self, panel: Panel) -> SeriesScaler: ...
        def _targets_of(self, panel: Panel) -> list[int]: ...
        def _windows(self, panel: Panel, *, weights: Any = None) -> WindowSet: ...

    def predict(self, X: Any = None, *, horizon: int | None = None) -> Any:
        """Forecast the rows after the end of the training data, or of ``X``.

        Parameters
        ----------
        X : same kinds of container as in fit, optional
            At least ``lookback`` rows with the columns of fit, matched by name. By
            default the forecast continues the training data. With future covariates
            their values follow as rows after the last observed target, the other
            columns NaN there; see :meth:`make_future`.
        horizon : int, optional
            Rows to forecast. A longer horizon than the fitted one rolls forward on
            the model's own forecasts, with a warning.

        Returns
        -------
        Same kind of container as X (or as the training data)
            ``horizon`` rows of the targets per series, in the units of the data,
            with the labels of the future rows.

        Raises
        ------
        NotFittedError
            Before fit.
        InputError
            For too few rows, other columns than in fit, or future covariates that
            are not known far enough.
        DataQualityError
            For NaN, infinity or irregular times.
        """
        panel = self._prediction_panel(X)
        n_rows = self._check_horizon(horizon)
        future = FutureRows.after(panel, self._step_of(panel), n_rows)
        forecasts = self._roll_forward(panel, future, n_rows)
        return self._write(panel, forecasts, future)

    def _check_horizon(self, horizon: int | None) -> int:
        if horizon is None:
            return int(self.horizon)
        if not Integer(1).allows(horizon):
            raise InputError(
                f"horizon={horizon!r} is not allowed: must be an integer of at least 1",
                where="predict",
                hint=f"Give a number of rows; by default {self.horizon}, as in fit.",
            )
        return int(horizon)

    def _roll_forward(
        self, panel: Panel, future: FutureRows, n_rows: int
    ) -> list[FloatArray]:
        """Forecasts (n_rows, T) of each series, in data units."""
        L, H = self._context_length, self.horizon
        if n_rows > H:
            self._check_can_roll(n_rows, panel)
        inputs = self._first_inputs(panel, future, n_rows)
        marks, known = inputs.marks, inputs.known
        history = inputs.values
        forecasts = []
        for done in range(0, n_rows, H):
            step = WindowInputs(
                history[:, -L:],
                None if marks is None else marks[:, done : done + L],
                None if known is None else known[:, done : done + H],
                inputs.series,
            )
            forecast = self._forecast(step)
            forecasts.append(forecast)
            if done + H < n_rows:
                # All columns are targets here, in the order of ``targets``.
                columns = forecast[..., np.argsort(self._targets_of(panel))]
                history = np.concatenate([history, columns], axis=1)[:, -L:]
        is_one = len(forecasts) == 1
        joined = forecasts[0] if is_one else np.concatenate(forecasts, axis=1)
        joined = joined[:, :n_rows]
        return list(self._in_data_units(panel, joined))

    def _first_inputs(
        self, panel: Panel, future: FutureRows, n_rows: int
    ) -> WindowInputs:
        """Scaled look-back of each series, with marks over all rows to forecast."""
        scaler = self._scaler_for(panel)
        series = np.arange(panel.n_series)
        marks = future.marks(panel, self.calendar_) if self.calendar_ else None
        return WindowInputs(
            scaler.transform_windows(np.stack(panel.values), series),
            marks,
            self._known_ahead(panel, scaler, future, n_rows),
            series,
        )

    def _known_ahead(
        self, panel: Panel, scaler: SeriesScaler, future: FutureRows, n_rows: int
    ) -> FloatArray | None:
        """Scaled channels known ahead, over as many whole horizons: (n, rows, K)."""
        if self._n_known == 0:
            return None
        n_steps = -(-n_rows // self.horizon) * self.horizon
        roles.check_known_ahead(panel, self.future_positions_, n_steps)
        parts = []
        if len(self.future_positions_):
            ahead = np.stack([rows[:n_steps] for rows in panel.ahead or ()])
            scaled = scaler.transform_windows(ahead, np.arange(panel.n_series))
            parts.append(scaled[..., self.future_positions_])
        if self.future_calendar_:
            if n_steps > n_rows:
                future = FutureRows.after(panel, self._step_of(panel), n_steps)
            marks = future.marks(panel, self.future_calendar_)
            parts.append(marks[:, -n_steps:].astype(np.float64))
        return np.concatenate(parts, axis=2)

    def _in_data_units(self, panel: Panel, scaled: FloatArray) -> FloatArray:
        """Undo the scaling of forecasts (n, rows, T), one per series of a panel."""
        targets = self._scaler_for(panel).select(self._targets_of(panel))
        restored = targets.inverse_transform(scaled, np.arange(len(scaled)))
        if not np.isfinite(restored).all():
            series = int(np.flatnonzero(~np.isfinite(restored).all(axis=(1, 2)))[0])
            raise NumericalError(
                "the forecast is not finite",
                where=f"{panel.series_label(series)}{type(self).__name__}.predict",
                hint="The values may be far from those of the training data; look at "
                "the last rows, and consider scaler='standard'.",
            )
        return self._clip(restored)

    def _clip(self, forecast: FloatArray) -> FloatArray:
        return np.maximum(forecast, 0.0) if self.nonnegative else forecast

    def _check_can_roll(self, n_rows: int, panel: Panel) -> None:
        if len(self._targets_of(panel)) != panel.n_columns:
            raise CapabilityError(
                f"horizon {n_rows} is longer than the fitted {self.horizon}, and "
                "rolling forward needs the future of the columns that are not targets",
                where="predict",
                hint=f"Fit with horizon={n_rows}, or make every column a target.",
            )
        warnings.warn(
            f"horizon {n_rows} is longer than the fitted {self.horizon}: rolling "
            "forward on the model's own forecasts",
            SciSeqWarning,
            stacklevel=4,
        )

    def _write(
        self, panel: Panel, forecasts: list[FloatArray], future: FutureRows
    ) -> Any:
        return panel.layout.write(
            panel, forecasts, future.times, self._targets_of(panel)
        )

    def make_future(self, X: Any = None, *, horizon: int | None = None) -> Any:
        """Rows after the end of the data, labelled in time and filled with NaN.

        Parameters
        ----------
        X : same kinds of container as in fit, optional
            By default the training data.
        horizon : int, optional
            Number of rows; the fitted horizon by default.

        Returns
        -------
        Same kind of container as X
            All columns, ready to take what is known of the future. Static covariates
            are filled in, and future covariates where the data hold them already.
        """
        panel = self._prediction_panel(X)
        n_rows = self._check_horizon(horizon)
        future = FutureRows.after(panel, self._step_of(panel), n_rows)
        empty = np.full((panel.n_series, n_rows, panel.n_columns), np.nan)
        for series, values in enumerate(panel.values):
            static = self.static_positions_
            empty[series][:, static] = values[-1, static]
            ahead = panel.ahead[series][:n_rows] if panel.ahead else values[:0]
            known = self.future_positions_
            empty[series, : len(ahead), known] = ahead[:, known].T
        return panel.layout.write(
            panel, list(empty), future.times, range(panel.n_columns)
        )

    # ------------------------------------------------------------------ score

    def score(self, X: Any, y: Any = None) -> float:
        """R² over every rolling window, in the units of the data.

        Sums run over all windows and steps for each target; the mean is over the
        targets that are not constant. With ``missing="interpolate"`` the rows are
        interpolated before they are scored, truths among them;
        :func:`~sciseq.model_selection.backtest` leaves such truths out.

        Parameters
        ----------
        X : same kinds of container as in fit
            At least ``lookback + horizon`` rows; the first ``lookback`` are context.
        y : ndarray of shape (n_windows, horizon, n_targets), optional
            Truth for ready-made windows; ignored otherwise.

        Returns
        -------
        float
            1 is perfect; 0 is as good as the mean of the truths.
        """
        self._check_is_fitted()
        errors = ForecastErrors()
        for _, truth, forecast in self._evaluate_panel(self._evaluation_panel(X, y)):
            errors.update(truth, forecast)
        return float(errors.result().overall["r2"])

    def _evaluate_panel(
        self, panel: Panel, *, stride: int = 1
    ) -> Iterator[tuple[npt.NDArray[np.int64], FloatArray, FloatArray]]:
        """First target rows, truths and forecasts, chunk by chunk, in data units."""
        windows = self._windows(panel)
        if stride > 1:
            # Counted anew in each series: a panel is cut at the same times in all.
            L, H = windows.lookback, windows.horizon
            starts = window_starts(panel.lengths, L, H, stride=stride)
            windows = replace(windows, starts=starts)
        scaler = self._scaler_for(panel).select(self._targets_of(panel))
        done = 0
        for starts, truth, forecast in self._evaluate(windows):
            series = windows.series_of(slice(done, done + len(starts)))
            done += len(starts)
            yield (
                starts + windows.lookback,
                scaler.inverse_transform(truth, series),
                self._clip(scaler.inverse_transform(forecast, series)),
            )

    def _evaluate(
        self, windows: WindowSet
    ) -> Iterator[tuple[npt.NDArray[np.int64], FloatArray, FloatArray]]:
        """Window starts, truths (n, H, T) and forecasts (n, H, T), scaled."""
        is_whole = self.variates == "any" or self._is_all_columns()
        for chunk in windows.chunks(WINDOWS_PER_CHUNK):
            forecast = self._forecast(windows.inputs(chunk))
            truth = windows.targets(chunk)
            if not is_whole:
                truth = truth[..., self.target_positions_]
            yield windows.starts[chunk], truth, forecast
