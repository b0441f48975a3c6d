"""The forecaster contract: what every forecaster does, whatever its method.

Axis legend: n windows or series, L lookback, H horizon, C columns, T targets,
M calendar features.

A method implements two hooks on scaled values: ``_fit`` learns from a
:class:`~sciseq.data.windows.WindowSet`, and ``_forecast`` maps windows of inputs
(n, L, C) to forecasts (n, H, T). Containers, roles, time, missing values, scaling,
validation tails, rolling forward and intervals live here, once.
"""

import warnings
from abc import ABCMeta, abstractmethod
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from sciseq.base import SequenceEstimator
from sciseq.data.containers import read_panel
from sciseq.data.missing import apply_missing_choice
from sciseq.data.panel import FloatArray, Panel, located
from sciseq.data.scaling import ColumnScaler
from sciseq.data.timeline import Step
from sciseq.data.windows import WindowSet, window_starts
from sciseq.errors import (
    CapabilityError,
    InputError,
    NumericalError,
    SciSeqWarning,
)
from sciseq.forecasting import training_table as table
from sciseq.forecasting.future import FutureRows
from sciseq.forecasting.intervals import ConformalIntervals
from sciseq.metrics import ForecastErrors
from sciseq.parameters import AnyOf, Boolean, Instance, Integer, Nothing, Option, Real
from sciseq.parameters import Rule as ParameterRule

__all__ = ["FORECASTER_RULES", "BaseForecaster"]

# Windows per step of a long evaluation: large enough to be fast, small enough that a
# year of hourly data never stands in memory as windows.
WINDOWS_PER_CHUNK = 512

FORECASTER_RULES: dict[str, ParameterRule] = {
    "lookback": Integer(1),
    "horizon": Integer(1),
    "targets": AnyOf(
        Nothing(), Instance("a column label or a list of them", str, int, list, tuple)
    ),
    "calendar": AnyOf(
        Nothing(),
        Option("auto"),
        Instance("a list of calendar features", list, tuple),
    ),
    "missing": Option("error", "mask", "interpolate"),
    "scaler": AnyOf(Nothing(), Option("standard")),
    "variates": Option("fixed", "any"),
    "validation_fraction": Real(0.0, 1.0, open_high=True),
    "refit_on_all": Boolean(),
}


class BaseForecaster(ConformalIntervals, SequenceEstimator, metaclass=ABCMeta):
    """Base of all forecasters; see the contract page of the documentation."""

    _parameter_rules: ClassVar[dict[str, ParameterRule]] = FORECASTER_RULES

    # Parameters that every forecaster has; a method sets its own defaults.
    lookback: Any
    horizon: int
    missing: str
    targets: Any
    calendar: Any = None
    scaler: str | None = None
    variates: str = "fixed"
    validation_fraction: float = 0.0
    refit_on_all: bool = False

    # ------------------------------------------------------------------ hooks

    @abstractmethod
    def _fit(self, training: WindowSet, validation: WindowSet | None) -> None:
        """Learn from windows of scaled values."""

    @abstractmethod
    def _forecast(
        self, inputs: FloatArray, marks: npt.NDArray[np.float32] | None
    ) -> FloatArray:
        """Map scaled inputs (n, L, C) to scaled forecasts (n, H, T)."""

    @property
    def _context_length(self) -> int:
        """Rows that a forecast looks back on."""
        return int(self.lookback)

    def _is_complete(self) -> bool:
        """Tell whether learning came to its own end."""
        return True

    def _refit(self, training: WindowSet) -> None:
        """Learn again from all rows, with the choices that validation made."""
        self._fit(training, None)

    # -------------------------------------------------------------------- fit

    def fit(self, X: Any, y: Any = None, *, validation_data: Any = None) -> Self:
        """Fit the forecaster.

        Parameters
        ----------
        X : DataFrame, Series, DataArray, Dataset, ndarray, or list or dict of these
            Rows are time, columns are variates; all are inputs, and all are targets
            unless ``targets`` names some. A two-level (series, time) index, a
            ``series`` dimension, a list or a dict holds many series for one global
            model. An array of shape (n_windows, lookback, n_columns) holds
            ready-made windows.
        y : ndarray of shape (n_windows, horizon, n_targets), optional
            Truth for ready-made windows; ignored, with a warning, for tables.
        validation_data : same kind of container as X, optional
            Rows to validate on instead of the tail of X; the first ``lookback`` rows
            are context only.

        Returns
        -------
        self

        Raises
        ------
        InputError
            For parameters out of range, too few rows, or unknown columns.
        DataQualityError
            For NaN (with ``missing="error"``), infinity, or irregular times.
        """
        self._check_parameters()
        before = self._fitted_attributes()
        try:
            self._forget()
            self._fit_panel(X, y, validation_data)
        except BaseException:
            # A failed fit leaves the estimator as it was.
            self._forget()
            for name, value in before.items():
                setattr(self, name, value)
            raise
        return self

    def _fit_panel(self, X: Any, y: Any, validation_data: Any) -> None:
        panel, truth = table.read_training(X, y)
        self._set_features(panel.columns, panel.n_columns)
        self.target_positions_ = table.target_positions(panel, self.targets)
        self._check_variates()
        self.columns_ = panel.columns
        self.step_: Step | None = table.common_step(panel)
        self.calendar_ = table.calendar_names(self.calendar, self.step_, panel)
        self._prepare()
        panel = self._clean(panel, truth)
        L = self._context_length
        if validation_data is None:
            training, validation = table.split_tail(
                panel, L, self.horizon, self.validation_fraction
            )
        else:
            with located("validation_data"):
                training, validation = panel, self._evaluation_panel(validation_data)
        self._learn(training, validation)
        has_tail = validation is not None and validation_data is None
        if self.refit_on_all and has_tail and self._is_complete():
            before = self._target_scaler().scale
            self._set_scaler(panel)
            self._refit(self._windows(panel))
            self._rescale_residuals(before / self._target_scaler().scale)
        self.context_ = None if panel.is_windows else _own(panel.rows(-L))
        self.constant_targets_ = table.constant_columns(panel, self.target_positions_)

    def _prepare(self) -> None:
        """Settle what depends on the data's step, before rows are counted."""

    def _clean(self, panel: Panel, truth: Panel | None) -> Panel:
        """Apply the choice about missing values, join windows, check lengths."""
        panel = apply_missing_choice(panel, self.missing)
        # Sums depend on the order of the values in memory: the same table must give
        # the same bits from pandas (column by column) and from NumPy (row by row).
        panel = panel.with_values([np.ascontiguousarray(one) for one in panel.values])
        if truth is not None:
            with located("y"):
                truth = apply_missing_choice(truth, self.missing)
            panel = table.join_windows(
                panel,
                truth,
                self.target_positions_,
                self._context_length,
                self.horizon,
            )
        table.check_lengths(panel, self._context_length, self.horizon)
        return panel

    def _learn(self, training: Panel, validation: Panel | None) -> None:
        self._set_scaler(training)
        rows = self._windows(training)
        held_out = None if validation is None else self._windows(validation)
        self._fit(rows, held_out)
        self._calibrate(self._calibration_windows(rows, held_out))

    def _calibration_windows(
        self, training: WindowSet, validation: WindowSet | None
    ) -> WindowSet | None:
        """Windows whose errors are honest: by default those held out."""
        return validation

    def _set_scaler(self, panel: Panel) -> None:
        if self.scaler is None:
            self.scaler_ = ColumnScaler.identity(panel.n_columns)
        else:
            self.scaler_ = ColumnScaler.fit(panel.values)

    def _windows(self, panel: Panel, *, horizon: int | None = None) -> WindowSet:
        """Windows of scaled values over all rows of a panel."""
        scaler = self._scaler_for(panel)
        marks = None
        if self.calendar_:
            marks = [table.marks(index, self.calendar_) for index in panel.times]
        return WindowSet.over(
            [scaler.transform(values) for values in panel.values],
            self._context_length,
            self.horizon if horizon is None else horizon,
            marks=marks,
        )

    def _target_scaler(self) -> ColumnScaler:
        return self.scaler_.select([int(one) for one in self.target_positions_])

    def _scaler_for(self, panel: Panel) -> ColumnScaler:
        if self.variates == "any" and self.scaler is None:
            return ColumnScaler.identity(panel.n_columns)
        return self.scaler_

    # ---------------------------------------------------------------- predict

    def predict(self, X: Any = None, *, horizon: int | None = None) -> Any:
        """Forecast the rows after the end of the training data, or of ``X``.

        Parameters
        ----------
        X : same kinds of container as in fit, optional
            At least ``lookback`` rows with the columns of fit, matched by name. By
            default the forecast continues the training data.
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
            For too few rows, or other columns than in fit.
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

    def _prediction_panel(self, X: Any) -> Panel:
        self._check_is_fitted()
        L = self._context_length
        if X is None:
            if self.context_ is None:
                raise InputError(
                    "the model was fitted on ready-made windows, which have no end "
                    "to continue",
                    where="X",
                    hint="Give the windows to forecast from: predict(X).",
                )
            return self.context_
        panel = self._match(read_panel(X, last_rows=L))
        table.check_context(panel, L)
        return apply_missing_choice(panel, self.missing).rows(-L)

    def _match(self, panel: Panel) -> Panel:
        """Bring columns into the order of fit, and check that time steps agree."""
        self._check_variates()
        if self.variates != "any":
            panel = table.match_columns(panel, self.columns_, self._check_n_features)
        if self.calendar_ and panel.times[0] is None:
            raise InputError(
                "the model uses calendar features and this X carries no time",
                where="X",
                hint="Fit with calendar=None, or give a table with dates as index.",
            )
        return panel

    def _check_variates(self) -> None:
        if self.variates == "any" and not self._is_all_columns():
            raise CapabilityError(
                "variates='any' needs every column to be a target",
                where="targets",
                hint="Fit with targets=None.",
            )

    def _is_all_columns(self) -> bool:
        """Tell whether the targets are all columns, in their order."""
        return np.array_equal(self.target_positions_, np.arange(self.n_features_in_))

    def _step_of(self, panel: Panel) -> Step | None:
        return table.common_step(panel, expected=self.step_)

    def _targets_of(self, panel: Panel) -> list[int]:
        if self.variates == "any":
            return list(range(panel.n_columns))
        return [int(position) for position in self.target_positions_]

    def _roll_forward(
        self, panel: Panel, future: FutureRows, n_rows: int
    ) -> list[FloatArray]:
        L, H = self._context_length, self.horizon
        if n_rows > H:
            self._check_can_roll(n_rows, panel)
        scaler = self._scaler_for(panel)
        history = scaler.transform(np.stack(panel.values))  # (n, L, C)
        marks = future.marks(panel, self.calendar_) if self.calendar_ else None
        done = 0
        forecasts = []
        while done < n_rows:
            window = None if marks is None else marks[:, done : done + L]
            forecast = self._forecast(history[:, -L:], window)
            forecasts.append(forecast)
            done += H
            if done < n_rows:
                # All columns are targets here, in the order of ``targets``.
                columns = forecast[..., np.argsort(self._targets_of(panel))]
                history = np.concatenate([history, columns], axis=1)[:, -L:]
        joined = np.concatenate(forecasts, axis=1)[:, :n_rows]
        targets = scaler.select(self._targets_of(panel))
        restored = targets.inverse_transform(joined)
        if not np.isfinite(restored).all():
            series = int(np.flatnonzero(~np.isfinite(restored).all(axis=(1, 2)))[0])
            raise NumericalError(
                "the forecast is not finite",
                where=f"{panel.series_label(series)}{type(self).__name__}.predict",
                hint="The values may be far from those of the training data; look at "
                "the last rows, and consider scaler='standard'.",
            )
        return list(restored)

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
            All columns, ready to take what is known of the future.
        """
        panel = self._prediction_panel(X)
        n_rows = self._check_horizon(horizon)
        future = FutureRows.after(panel, self._step_of(panel), n_rows)
        empty = [np.full((n_rows, panel.n_columns), np.nan)] * panel.n_series
        return panel.layout.write(panel, empty, future.times, range(panel.n_columns))

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

    def _evaluation_panel(self, X: Any, y: Any = None) -> Panel:
        """Read rows that hold both context and truth, as scoring needs them."""
        panel, truth = table.read_training(X, y, warn=False)
        panel = self._match(panel)
        self._step_of(panel)
        return self._clean(panel, truth)

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
        for starts, truth, forecast in self._evaluate(windows):
            yield (
                starts + windows.lookback,
                scaler.inverse_transform(truth),
                scaler.inverse_transform(forecast),
            )

    def _evaluate(
        self, windows: WindowSet
    ) -> Iterator[tuple[npt.NDArray[np.int64], FloatArray, FloatArray]]:
        """Window starts, truths (n, H, T) and forecasts (n, H, T), scaled."""
        n_columns = windows.values.shape[1]
        targets: Any = self.target_positions_
        if self.variates == "any":
            targets = np.arange(n_columns)
        for chunk in windows.chunks(WINDOWS_PER_CHUNK):
            forecast = self._forecast(windows.inputs(chunk), windows.input_marks(chunk))
            yield windows.starts[chunk], windows.targets(chunk)[..., targets], forecast

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = self.missing != "error"
        tags.input_tags.three_d_array = True
        tags.target_tags.required = False
        return tags


def _own(panel: Panel) -> Panel:
    """Copy the values: what the caller later writes into his table is not ours."""
    return panel.with_values([values.copy() for values in panel.values])
