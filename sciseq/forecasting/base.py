"""The forecaster contract: what every forecaster does, whatever its method.

Axis legend: n windows or series, L lookback, H horizon, C columns, T targets,
M calendar features, K channels known ahead.

A method implements two hooks on scaled values: ``_fit`` learns from a
:class:`~sciseq.data.windows.WindowSet`, and ``_forecast`` maps
:class:`~sciseq.data.windows.WindowInputs` to forecasts (n, H, T). Containers, roles,
time, missing values, scaling, weights and validation tails live here, once;
forecasting is in :mod:`sciseq.forecasting.predicting`.
"""

import warnings
from abc import ABCMeta, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from sciseq.base import SequenceEstimator
from sciseq.data.containers import ManyLayout, read_panel
from sciseq.data.missing import apply_missing_choice
from sciseq.data.panel import FloatArray, Panel, located, once_each
from sciseq.data.scaling import ColumnScaler, SeriesScaler
from sciseq.data.timeline import Step
from sciseq.data.windows import WindowInputs, WindowSet
from sciseq.errors import CapabilityError, InputError, SciSeqWarning
from sciseq.forecasting import roles
from sciseq.forecasting import training_table as table
from sciseq.forecasting.predicting import Predicting
from sciseq.parameters import AnyOf, Boolean, Instance, Integer, Nothing, Option, Real
from sciseq.parameters import Rule as ParameterRule

__all__ = ["FORECASTER_RULES", "BaseForecaster"]

_LABELS = AnyOf(
    Nothing(), Instance("a column label or a list of them", str, int, list, tuple)
)

FORECASTER_RULES: dict[str, ParameterRule] = {
    "lookback": Integer(1),
    "horizon": Integer(1),
    "targets": _LABELS,
    "past_covariates": _LABELS,
    "future_covariates": _LABELS,
    "static_covariates": _LABELS,
    "sample_weight": AnyOf(Nothing(), Instance("a column label", str, int, tuple)),
    "time_decay": AnyOf(Nothing(), Real(0.0, open_low=True)),
    "calendar": AnyOf(
        Nothing(),
        Option("auto"),
        Instance("a list of calendar features", list, tuple),
    ),
    "missing": Option("error", "mask", "interpolate"),
    "scaler": AnyOf(Nothing(), Option("standard", "series")),
    "variates": Option("fixed", "any"),
    "validation_fraction": Real(0.0, 1.0, open_high=True),
    "refit_on_all": Boolean(),
    "nonnegative": Boolean(),
}


class BaseForecaster(Predicting, SequenceEstimator, metaclass=ABCMeta):
    """Base of all forecasters; see the contract page of the documentation."""

    _parameter_rules: ClassVar[dict[str, ParameterRule]] = FORECASTER_RULES

    # Kinds of covariates that a method can use: "past", "future", "static".
    _covariates: ClassVar[frozenset[str]] = frozenset({"past"})

    # Parameters that every forecaster has; a method sets its own defaults.
    lookback: Any
    horizon: int
    missing: str
    targets: Any
    past_covariates: Any = None
    future_covariates: Any = None
    static_covariates: Any = None
    sample_weight: Any = None
    time_decay: float | None = None
    calendar: Any = None
    scaler: str | None = None
    variates: str = "fixed"
    validation_fraction: float = 0.0
    refit_on_all: bool = False
    nonnegative: bool = False

    # ------------------------------------------------------------------ hooks

    @abstractmethod
    def _fit(self, training: WindowSet, validation: WindowSet | None) -> None:
        """Learn from windows of scaled values."""

    @abstractmethod
    def _forecast(self, inputs: WindowInputs) -> FloatArray:
        """Map scaled inputs to scaled forecasts (n, H, T)."""

    @property
    def _context_length(self) -> int:
        """Rows that a forecast looks back on."""
        return int(self.lookback)

    @property
    def _n_known(self) -> int:
        """Number of channels K that are known ahead; 0 before fit."""
        return sum(
            len(getattr(self, name, ()))
            for name in ("future_positions_", "future_calendar_")
        )

    @property
    def _n_static(self) -> int:
        """Number of static covariates S; 0 before fit."""
        return len(getattr(self, "static_positions_", ()))

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
            self._begin_from(before)
            self._fit_panel(X, y, validation_data)
        except BaseException:
            # A failed fit leaves the estimator as it was.
            self._forget()
            for name, value in before.items():
                setattr(self, name, value)
            raise
        finally:
            self._begin_from({})
        return self

    def _begin_from(self, before: Mapping[str, Any]) -> None:
        """Take up what an earlier fit learnt, or let it go; by default nothing."""

    def _fit_panel(self, X: Any, y: Any, validation_data: Any) -> None:
        panel, truth = table.read_training(X, y)
        self._set_features(panel.columns, panel.n_columns)
        self._settle_roles(panel)
        self._check_variates()
        self.columns_ = panel.columns
        self.step_: Step | None = table.common_step(panel)
        self.calendar_ = table.calendar_names(self.calendar, self.step_, panel)
        self._prepare()
        panel = self._clean(self._part_ahead(panel), truth)
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
            self._learn_again(panel)
        self.context_ = None if panel.is_windows else _own(panel.rows(-L))
        self.constant_targets_ = table.constant_columns(panel, self.target_positions_)

    def _learn_again(self, panel: Panel) -> None:
        """Learn from all rows; a second training that is stopped leaves the first."""
        first = self._fitted_attributes()
        before = self._target_scaler().scale
        # Residuals of many series have no one scale: there the scaler stays.
        if self.series_scaler_ is None:
            self._set_scaler(panel)
        try:
            self._refit(self._training_windows(panel))
        except KeyboardInterrupt:
            self.__dict__.update(first)
            warnings.warn(
                "the training on all rows was interrupted: the model is that of the "
                "training rows, without the validation tail",
                SciSeqWarning,
                stacklevel=4,
            )
            return
        if not self._is_complete():
            self.__dict__.update(first)
            return
        if self.series_scaler_ is None:
            self._rescale_residuals(before / self._target_scaler().scale)

    def _settle_roles(self, panel: Panel) -> None:
        if panel.is_windows and self.time_decay is not None:
            raise CapabilityError(
                "time_decay needs rows that follow each other in time, ready-made "
                "windows carry none",
                where="time_decay",
                hint="Give the table that the windows were cut from.",
            )
        given = {role: getattr(self, role) for role in roles.ROLES}
        settled = roles.settle(panel, given, self._covariates, type(self).__name__)
        self.target_positions_ = settled.targets
        self.input_positions_ = settled.inputs
        self.future_positions_ = settled.future
        self.static_positions_ = settled.static
        self.weight_position_ = settled.weight
        self.future_calendar_ = settled.future_calendar

    def _part_ahead(self, panel: Panel) -> Panel:
        """Part the rows in which only covariates are known from the series."""
        return roles.split_ahead(
            panel, self.target_positions_.tolist(), self.future_positions_.tolist()
        )

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
        roles.check_static(panel, self.static_positions_)
        return panel

    def _learn(self, training: Panel, validation: Panel | None) -> None:
        self._set_scaler(training)
        rows = self._training_windows(training)
        held_out = None
        if validation is not None:
            held_out = self._windows(
                validation, weights=self._row_weights(validation, is_training=False)
            )
        self._fit(rows, held_out)
        self._calibrate(self._calibration_windows(rows, held_out))

    def _calibration_windows(
        self, training: WindowSet, validation: WindowSet | None
    ) -> WindowSet | None:
        """Windows whose errors are honest: by default those held out."""
        return validation

    def _set_scaler(self, panel: Panel) -> None:
        self.series_scaler_: SeriesScaler | None = None
        self.series_ids_: tuple[Any, ...] = ()
        if self.scaler is None:
            self.scaler_ = ColumnScaler.identity(panel.n_columns)
            return
        self.scaler_ = ColumnScaler.fit(panel.values)
        if self.scaler == "series":
            self._check_series_have_names(panel)
            self.series_scaler_ = self._keep_static(SeriesScaler.fit(panel.values))
            # A window is no series that comes again.
            self.series_ids_ = () if panel.is_windows else panel.series_ids

    def _check_series_have_names(self, panel: Panel) -> None:
        if isinstance(panel.layout, ManyLayout) and not panel.layout.as_dict:
            raise CapabilityError(
                "scaler='series' finds each series again by its name, and a list "
                "gives none",
                where="X",
                hint="Give a dict of tables, or one table with a (series, time) index.",
            )

    def _keep_static(self, scaler: SeriesScaler) -> SeriesScaler:
        """Scale static covariates alike in all series: alone they would vanish."""
        mean, scale = scaler.mean.copy(), scaler.scale.copy()
        mean[:, self.static_positions_] = self.scaler_.mean[self.static_positions_]
        scale[:, self.static_positions_] = self.scaler_.scale[self.static_positions_]
        return SeriesScaler(mean, scale)

    def _scaler_for(self, panel: Panel) -> SeriesScaler:
        """Scaler of the series of a panel.

        With ``scaler="series"`` a series that fit has not seen, and every ready-made
        window, is scaled by the first ``lookback`` rows given, which is all that is
        known before its first forecast.
        """
        if self.variates == "any" and self.scaler is None:
            return SeriesScaler.shared(ColumnScaler.identity(panel.n_columns))
        if self.series_scaler_ is None:
            return SeriesScaler.shared(self.scaler_)
        place = {label: number for number, label in enumerate(self.series_ids_)}
        places = [
            None if panel.is_windows else place.get(one) for one in panel.series_ids
        ]
        known = [one or 0 for one in places]
        mean, scale = self.series_scaler_.mean[known], self.series_scaler_.scale[known]
        for series, values in enumerate(panel.values):
            if places[series] is None:
                one = ColumnScaler.fit([values[: self._context_length]])
                mean[series], scale[series] = one.mean, one.scale
        return self._keep_static(SeriesScaler(mean, scale))

    def _target_scaler(self) -> ColumnScaler:
        return self.scaler_.select([int(one) for one in self.target_positions_])

    def _training_windows(self, panel: Panel) -> WindowSet:
        return self._windows(panel, weights=self._row_weights(panel, is_training=True))

    def _row_weights(self, panel: Panel, *, is_training: bool) -> Any:
        """Weights of rows as truths; those to validate on do not decay."""
        half_life = self.time_decay if is_training else None
        return roles.row_weights(
            panel, self.weight_position_, half_life, can_be_zero=not is_training
        )

    def _windows(self, panel: Panel, *, weights: Any = None) -> WindowSet:
        """Windows of scaled values over all rows of a panel."""
        scaler = self._scaler_for(panel)
        return WindowSet.over(
            [scaler.transform(values, one) for one, values in enumerate(panel.values)],
            self._context_length,
            self.horizon,
            marks=self._marks(panel, self.calendar_),
            known_columns=self.future_positions_.tolist(),
            future_marks=self._marks(panel, self.future_calendar_),
            weights=weights,
        )

    def _marks(
        self, panel: Panel, names: tuple[str, ...]
    ) -> list[npt.NDArray[np.float32]] | None:
        if not names:
            return None
        return list(once_each(lambda index: table.marks(index, names), panel.times))

    # ---------------------------------------------------------------- reading

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
        # Where the last observed target stands, and what fills a gap, is known only
        # from all rows.
        is_whole = len(self.future_positions_) or self.missing == "interpolate"
        panel = self._match(read_panel(X, last_rows=None if is_whole else L))
        if len(self.future_positions_):
            self._step_of(panel)  # the rows ahead follow in time
        panel = self._part_ahead(panel)
        table.check_context(panel, L)
        panel = apply_missing_choice(panel, self.missing).rows(-L)
        roles.check_static(panel, self.static_positions_)
        return panel

    def _evaluation_panel(self, X: Any, y: Any = None) -> Panel:
        """Read rows that hold both context and truth, as scoring needs them."""
        panel, truth = table.read_training(X, y, warn=False)
        panel = self._part_ahead(self._match(panel))
        self._step_of(panel)
        return self._clean(panel, truth)

    def _match(self, panel: Panel) -> Panel:
        """Bring columns into the order of fit, and check that time steps agree."""
        self._check_variates()
        if self.variates != "any":
            panel = table.match_columns(panel, self.columns_, self._check_n_features)
        if (self.calendar_ or self.future_calendar_) and panel.times[0] is None:
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
        if panel is getattr(self, "context_", None):  # its times were checked in fit
            return self.step_
        return table.common_step(panel, expected=self.step_)

    def _targets_of(self, panel: Panel) -> list[int]:
        if self.variates == "any":
            return list(range(panel.n_columns))
        return [int(position) for position in self.target_positions_]

    # ----------------------------------------------------------------- saving

    def _set_saved_state(
        self, attributes: Mapping[str, Any], weights: Mapping[str, Any]
    ) -> None:
        if "target_positions_" in attributes:
            # Files of older versions know neither covariates nor weights.
            none = np.array([], dtype=np.int64)
            later = {
                "input_positions_": np.arange(attributes["n_features_in_"]),
                "future_positions_": none,
                "static_positions_": none,
                "weight_position_": None,
                "future_calendar_": (),
                "series_scaler_": None,
                "series_ids_": (),
            }
            # In the order of the file, so that it is saved again as the same bytes.
            missing = {key: one for key, one in later.items() if key not in attributes}
            attributes = {**attributes, **missing}
        super()._set_saved_state(attributes, weights)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = self.missing != "error"
        tags.input_tags.three_d_array = True
        tags.target_tags.required = False
        return tags


def _own(panel: Panel) -> Panel:
    """Copy the values: what the caller later writes into his table is not ours."""
    panel = panel.with_values([values.copy() for values in panel.values])
    if panel.ahead is None:
        return panel
    return replace(panel, ahead=tuple(values.copy() for values in panel.ahead))
