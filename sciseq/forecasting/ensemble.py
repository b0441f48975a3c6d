"""Several forecasters as one: the weighted mean of their forecasts.

Axis legend: n windows, L lookback, H horizon, C columns, T targets, J members,
M calendar features, K channels known ahead.
"""

import warnings
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from sklearn.base import clone

from sciseq.data.calendar import calendar_for_step
from sciseq.data.panel import FloatArray, Panel, located
from sciseq.data.scaling import ColumnScaler
from sciseq.data.windows import WindowInputs, WindowSet
from sciseq.errors import CapabilityError, SciSeqWarning
from sciseq.forecasting import training_table as table
from sciseq.forecasting.base import FORECASTER_RULES, BaseForecaster
from sciseq.forecasting.combination_weights import by_inverse_error, stacked
from sciseq.forecasting.linear import LinearForecaster
from sciseq.forecasting.naive import NaiveForecaster
from sciseq.forecasting.named_members import Members, NamedMembers
from sciseq.forecasting.panel_windows import UNSEEN, PanelForecaster, PanelWindows
from sciseq.forecasting.roles import ROLES
from sciseq.parameters import AnyOf, Instance, Nothing, Option
from sciseq.parameters import Rule as ParameterRule

__all__ = ["ForecastEnsemble"]

WINDOWS_PER_CHUNK = 512

# What belongs to the table, and so to the ensemble; members take it over.
SHARED = ("horizon", *ROLES, "time_decay", "missing")


class ForecastEnsemble(NamedMembers, PanelForecaster):
    r"""Combine the forecasts of several forecasters in the units of the data.

    .. math:: \hat y = \sum_j w_j\, \hat y^{(j)}, \qquad w_j \ge 0, \quad \sum_j w_j = 1

    Parameters
    ----------
    forecasters : list of (str, forecaster), optional
        The members, with a name each; a linear map and the last value by default. They
        are cloned, never fitted themselves. Their parameters are set as
        ``name__parameter``.
    weights : {"equal", "inverse_error", "stack"} or list of float, default="equal"
        ``"inverse_error"``: as one over the mean squared error on the validation tail.
        ``"stack"``: those with the least squared error of the combination on the
        validation tail. Numbers are divided by their sum.
    horizon : int, default=24
        Rows to forecast.
    targets, past_covariates, future_covariates, static_covariates, sample_weight
        Roles of the columns, as in any forecaster. Each member gets the covariates
        that it can use.
    time_decay : float, optional
        Rows after which a weight has halved, for members that weigh rows.
    missing : {"error", "mask", "interpolate"}, default="error"
        What to do with NaN; each member treats it as it does alone.
    validation_fraction : float, default=0.1
        Share of the rows, at the end, that stops members early, chooses the weights
        and calibrates intervals.
    refit_on_all : bool, default=False
        Fit the members again on all rows and keep the weights.
    nonnegative : bool, default=False
        Raise negative forecasts to zero.

    Attributes
    ----------
    forecasters_ : dict of str to forecaster
        The fitted members.
    weights_ : ndarray of shape (J,)
        Weight of each.
    validation_errors_ : ndarray of shape (J,) or None
        Mean squared error of each on the validation tail, of targets divided by their
        standard deviation in the training rows; None without a tail.

    Notes
    -----
    What belongs to the table is said once: the members take over ``horizon``, roles,
    ``time_decay``, ``missing`` and the validation tail of the ensemble. Look-backs stay
    their own; the ensemble needs the rows of the longest.

    References
    ----------
    Bates and Granger, The combination of forecasts, 1969. Breiman, Stacked
    regressions, 1996.

    Examples
    --------
    >>> import numpy as np
    >>> from sciseq import LinearForecaster, NaiveForecaster
    >>> X = np.arange(40.0).reshape(-1, 1)
    >>> model = ForecastEnsemble(
    ...     forecasters=[
    ...         ("line", LinearForecaster(lookback=4, alpha=1e-6)),
    ...         ("last", NaiveForecaster()),
    ...     ],
    ...     weights="stack",
    ...     horizon=2,
    ... )
    >>> model.fit(X).predict().ravel().round(2).tolist()
    [40.0, 41.0]
    >>> model.weights_.round(2).tolist()
    [1.0, 0.0]
    """

    _covariates: ClassVar[frozenset[str]] = frozenset({"past", "future", "static"})
    _parameter_rules: ClassVar[dict[str, ParameterRule]] = {
        "forecasters": AnyOf(Nothing(), Members()),
        "weights": AnyOf(
            Option("equal", "inverse_error", "stack"),
            Instance("a list of numbers", list, tuple, np.ndarray),
        ),
        **{
            name: FORECASTER_RULES[name]
            for name in (*SHARED, "validation_fraction", "refit_on_all", "nonnegative")
        },
    }

    def __init__(
        self,
        *,
        forecasters: Sequence[tuple[str, BaseForecaster]] | None = None,
        weights: str | Sequence[float] = "equal",
        horizon: int = 24,
        targets: Any = None,
        past_covariates: Any = None,
        future_covariates: Any = None,
        static_covariates: Any = None,
        sample_weight: Any = None,
        time_decay: float | None = None,
        missing: str = "error",
        validation_fraction: float = 0.1,
        refit_on_all: bool = False,
        nonnegative: bool = False,
    ) -> None:
        self.forecasters = forecasters
        self.weights = weights
        self.horizon = horizon
        self.targets = targets
        self.past_covariates = past_covariates
        self.future_covariates = future_covariates
        self.static_covariates = static_covariates
        self.sample_weight = sample_weight
        self.time_decay = time_decay
        self.missing = missing
        self.validation_fraction = validation_fraction
        self.refit_on_all = refit_on_all
        self.nonnegative = nonnegative

    def _parameter_relations(self) -> list[str]:
        names = [name for name, _ in self._members()]
        problems = [
            f"the member name {name!r} is not allowed: must be unique, without '__', "
            "and no name of a parameter"
            for name in sorted(set(names))
            if names.count(name) > 1 or "__" in name or name in self.get_params(False)
        ]
        problems += [
            f"{role}={getattr(member, role)!r} of the member {name!r} is not read: "
            "roles belong to the ensemble"
            for name, member in self._members()
            for role in ROLES
            if getattr(member, role) is not None
        ]
        if isinstance(self.weights, str):
            return problems
        weights = np.asarray(self.weights)
        is_number = weights.dtype.kind in "fiu" and weights.shape == (len(names),)
        if not is_number or not (np.isfinite(weights) & (weights >= 0)).all():
            is_number = False
        if not is_number or not weights.any():
            problems.append(
                f"weights={self.weights!r} is not allowed: must be one number of at "
                f"least 0 for each of {len(names)} members, not all 0"
            )
        return problems

    def _members(self) -> list[tuple[str, BaseForecaster]]:
        if self.forecasters is None:
            return [("linear", LinearForecaster()), ("last", NaiveForecaster())]
        return list(self.forecasters)

    # -------------------------------------------------------------------- fit

    def _settle_roles(self, panel: Panel) -> None:
        super()._settle_roles(panel)
        self.forecasters_: dict[str, Any] = {}
        for name, given in self._members():
            member = clone(given)
            with located(f"member {name!r}"):
                member.set_params(**self._table_parameters(member, panel))
                member._check_parameters()
                member._set_features(panel.columns, panel.n_columns)
                member._settle_roles(panel)
                member._check_variates()
                member.columns_ = panel.columns
                # Checked here, where the times are known; chosen in _prepare.
                table.calendar_names(member.calendar, None, panel)
            self.forecasters_[name] = member
        self._check_covariates_used()

    def _table_parameters(self, member: BaseForecaster, panel: Panel) -> dict[str, Any]:
        """Give what the table asks of a member: targets, and covariates it can use."""
        labels = panel.columns or range(panel.n_columns)

        def named(positions: npt.NDArray[np.int64]) -> list[Any]:
            return [labels[position] for position in positions]

        past = np.setdiff1d(
            self.input_positions_, [*self.target_positions_, *self.future_positions_]
        )
        shared = {name: getattr(self, name) for name in SHARED}
        if len(self.target_positions_) < panel.n_columns or self.targets is not None:
            shared |= {
                "targets": named(self.target_positions_),
                # Columns of roles that a member cannot use are no inputs either.
                "past_covariates": named(past) if "past" in _usable(member) else [],
            }
        for kind in ("future", "static"):
            if kind not in _usable(member):
                shared[f"{kind}_covariates"] = None
        own = member.get_params(deep=False)
        return {name: value for name, value in shared.items() if name in own}

    def _check_covariates_used(self) -> None:
        for kind in ("past", "future", "static"):
            role = f"{kind}_covariates"
            users = [
                member
                for member in self.forecasters_.values()
                if kind in _usable(member) and role in member.get_params(deep=False)
            ]
            if getattr(self, role) and not users:
                raise CapabilityError(
                    f"no member can use {kind} covariates",
                    where=role,
                    hint=f"Leave out {role}, or add a member that uses them.",
                )

    def _prepare(self) -> None:
        looked_at: dict[str, None] = {}
        ahead = dict.fromkeys(self.future_calendar_)
        for member in self.forecasters_.values():
            calendar = member.calendar
            if calendar == "auto":
                calendar = calendar_for_step(self.step_)
            member.step_, member.calendar_ = self.step_, tuple(calendar or ())
            member._prepare()
            looked_at |= dict.fromkeys(member.calendar_)
            ahead |= dict.fromkeys(member.future_calendar_)
        # All that some member looks at; each picks its own.
        self.calendar_, self.future_calendar_ = tuple(looked_at), tuple(ahead)

    @property
    def _context_length(self) -> int:
        """Rows of the member that looks back furthest."""
        return max(int(one._context_length) for one in self.forecasters_.values())

    def _is_complete(self) -> bool:
        return all(member._is_complete() for member in self.forecasters_.values())

    def _fit_panel(self, X: Any, y: Any, validation_data: Any) -> None:
        super()._fit_panel(X, y, validation_data)
        self._pass_on(self.context_)

    def _pass_on(self, context: Panel | None) -> None:
        """Let members too continue the training data."""
        for member in self.forecasters_.values():
            L = member._context_length
            member.context_ = None if context is None else context.rows(-L)
            member.constant_targets_ = self.constant_targets_
            if isinstance(member, ForecastEnsemble):
                member._pass_on(member.context_)

    def _fit(self, training: WindowSet, validation: WindowSet | None) -> None:
        for name, member in self.forecasters_.items():
            tail = None if validation is None else self._tail(member, validation)
            with located(f"member {name!r}"):
                member._learn(self._rows(member, training), tail)
        products, count = np.zeros((len(self.forecasters_),) * 2), 0.0
        if validation is not None:
            scale = ColumnScaler.fit([training.values]).scale[self.target_positions_]
            products, count = self._products(validation, scale)
        self.validation_errors_ = np.diag(products) / count if count else None
        self.weights_ = self._choose_weights(products, count)

    def _refit(self, training: WindowSet) -> None:
        for name, member in self.forecasters_.items():
            panel = self._rows(member, training)
            before = member._target_scaler().scale
            # Residuals of many series have no one scale: there the scaler stays.
            if member.series_scaler_ is None:
                member._set_scaler(panel)
            with located(f"member {name!r}"):
                member._refit(member._training_windows(panel))
            if member.series_scaler_ is None:
                member._rescale_residuals(before / member._target_scaler().scale)

    def _rows(self, member: BaseForecaster, windows: WindowSet) -> Panel:
        """Training rows for a member: all, or ready-made windows of its length."""
        panel = _panel_of(windows)
        return self._tail(member, windows) if panel.is_windows else panel

    def _tail(self, member: BaseForecaster, windows: WindowSet) -> Panel:
        """Rows whose first context is that of a member: all have the same truths."""
        return _panel_of(windows).rows(self._context_length - member._context_length)

    # ---------------------------------------------------------------- weights

    def _products(
        self, validation: WindowSet, scale: FloatArray
    ) -> tuple[FloatArray, float]:
        """Sum the products of the members' errors, (J, J); and what they count."""
        J, count = len(self.forecasters_), 0.0
        products = np.zeros((J, J))
        for chunk in validation.chunks(WINDOWS_PER_CHUNK):
            truth = validation.targets(chunk)[..., self.target_positions_]
            forecasts = self._member_forecasts(validation.inputs(chunk))
            weights = validation.target_weights(chunk)
            weight = np.ones(truth.shape[:2]) if weights is None else weights
            # Truths that are missing weigh nothing.
            known = np.where(np.isnan(truth), 0.0, weight[..., None])  # (n, H, T)
            errors = np.nan_to_num((truth - forecasts) / scale) * np.sqrt(known)
            errors = errors.reshape(J, -1)
            products += errors @ errors.T
            count += float(known.sum())
        return products, count

    def _choose_weights(self, products: FloatArray, count: float) -> FloatArray:
        if not isinstance(self.weights, str):
            given = np.asarray(self.weights, dtype=np.float64)
            return np.asarray(given / given.sum())
        if self.weights != "equal" and not count:
            warnings.warn(
                f"nothing was held out to choose weights={self.weights!r} on: all "
                "members weigh the same",
                SciSeqWarning,
                stacklevel=6,
            )
        if self.weights == "equal" or not count:
            return np.full(len(products), 1 / len(products))
        choose = stacked if self.weights == "stack" else by_inverse_error
        return choose(products)

    # --------------------------------------------------------------- forecast

    def _forecast(self, inputs: WindowInputs) -> FloatArray:
        forecasts = self._member_forecasts(inputs)
        return np.asarray(np.tensordot(self.weights_, forecasts, axes=1))

    def _member_forecasts(self, inputs: WindowInputs) -> FloatArray:
        """Forecasts of every member in data units, (J, n, H, T)."""
        return np.stack(
            [self._forecast_of(one, inputs) for one in self.forecasters_.values()]
        )

    def _forecast_of(self, member: Any, inputs: WindowInputs) -> FloatArray:
        L = member._context_length
        values = inputs.values[:, -L:]
        mean, scale = _scaling(member, values, inputs.series)  # (n or 1, C)
        marks = known = None
        if member.calendar_ and inputs.marks is not None:
            places = [self.calendar_.index(name) for name in member.calendar_]
            marks = inputs.marks[:, -L:, places]
        if member._n_known and inputs.known is not None:
            future = member.future_positions_
            known = inputs.known[..., self._known_places(member)]
            # Covariates are scaled by the member; calendar features are as they are.
            covariates = (known[..., : len(future)] - mean[:, None, future]) / (
                scale[:, None, future]
            )
            known = np.concatenate([covariates, known[..., len(future) :]], axis=2)
        scaled = (values - mean[:, None]) / scale[:, None]
        forecast = member._forecast(WindowInputs(scaled, marks, known, inputs.series))
        targets = member.target_positions_
        restored = forecast * scale[:, None, targets] + mean[:, None, targets]
        return np.asarray(member._clip(restored))

    def _known_places(self, member: BaseForecaster) -> list[int]:
        """Channels of what is known ahead that a member knows, in its order."""
        covariates = self.future_positions_.tolist()
        places = [covariates.index(one) for one in member.future_positions_]
        return places + [
            len(covariates) + self.future_calendar_.index(name)
            for name in member.future_calendar_
        ]


def _usable(member: BaseForecaster) -> frozenset[str]:
    """Kinds of covariates that a forecaster can use with its settings."""
    return getattr(member, "_usable_covariates", member._covariates)


def _panel_of(windows: WindowSet) -> Panel:
    if not isinstance(windows, PanelWindows):
        raise CapabilityError(
            "an ensemble learns from the windows of a panel only",
            where="ForecastEnsemble",
            hint="Call fit with a table.",
        )
    return windows.panel


def _scaling(
    member: Any, values: FloatArray, places: npt.NDArray[np.int64] | None
) -> tuple[FloatArray, FloatArray]:
    """Mean and scale of a member for each window, (n, C), or for all, (1, C)."""
    scaler = member.series_scaler_
    if scaler is None or places is None:
        return member.scaler_.mean[None], member.scaler_.scale[None]
    mean, scale = scaler.mean[places].copy(), scaler.scale[places].copy()
    for row in np.flatnonzero(places == UNSEEN):
        # A series that fit has not seen is scaled by the rows of its window.
        one = ColumnScaler.fit([values[row]])
        mean[row], scale[row] = one.mean, one.scale
    kept = member._keep_static(type(scaler)(mean, scale))
    return kept.mean, kept.scale
