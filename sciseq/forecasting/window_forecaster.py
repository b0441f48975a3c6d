"""Any regressor of scikit-learn as a multi-step forecaster.

Axis legend: n windows, L lookback, H horizon, C columns, T targets, F features,
K channels known ahead, G groups (1 when all targets share their regressors, else T).
"""

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from numpy.random import Generator, RandomState
from sklearn.base import clone, is_regressor
from sklearn.linear_model import Ridge
from sklearn.utils import get_tags
from sklearn.utils.validation import has_fit_parameter

from sciseq.data.panel import FloatArray
from sciseq.data.windows import WindowInputs, WindowSet
from sciseq.errors import CapabilityError, DataQualityError
from sciseq.forecasting.base import FORECASTER_RULES, BaseForecaster
from sciseq.forecasting.roles import is_given
from sciseq.forecasting.window_features import WindowFeatures, join_known
from sciseq.parameters import AnyOf, Boolean, Instance, Integer, Nothing, Option
from sciseq.parameters import Rule as ParameterRule
from sciseq.training.seeds import resolve_seed

__all__ = ["WindowForecaster"]

IntArray = npt.NDArray[np.int64]


class _Regressor:
    """The rule for a regressor of scikit-learn, not its class."""

    def allows(self, value: Any) -> bool:
        if isinstance(value, type) or not hasattr(value, "get_params"):
            return False
        return hasattr(value, "fit") and bool(is_regressor(value))

    def describe(self) -> str:
        return "a regressor of scikit-learn, such as Ridge()"


class WindowForecaster(BaseForecaster):
    r"""Turn any regressor of scikit-learn into a multi-step forecaster.

    With the features :math:`\phi` of a window and what is known of the row to forecast,

    .. math:: \hat y_{t+h} = c + f_h\bigl(\phi(x_{t-L+1 \dots t} - c),\; z_{t+h}\bigr)

    where :math:`f_h` is a regressor, :math:`c` the centre of the window, and
    :math:`z_{t+h}` holds future covariates and calendar features of the target row.

    Parameters
    ----------
    regressor : regressor of scikit-learn, optional
        For example ``HistGradientBoostingRegressor()``; ``Ridge()`` by default. It is
        cloned, never fitted itself; its parameters are set as ``regressor__alpha``.
    strategy : {"direct", "multioutput", "recursive"}, default="direct"
        ``"direct"`` fits one regressor for each step. ``"multioutput"`` fits one for
        all steps together, which sees what is known of the whole horizon, for
        regressors with several outputs. ``"recursive"`` fits one for the next row and
        goes on from its own forecasts.
    lookback : int, default=96
        Rows of context.
    horizon : int, default=24
        Rows to forecast.
    lags_of : {"own", "all"}, default="own"
        Whether a target is forecast from its own rows, or from those of every input
        column too.
    individual : bool, default=False
        Regressors for each target by itself instead of shared ones, which learn from
        the windows of all targets.
    centre : {"mean", "last", None}, default="mean"
        What is taken from the rows of each column of a window, and added back to the
        forecast. Without it trees cannot forecast levels that they have not seen.
    max_windows : int, optional
        Fit on at most this many windows, evenly spread. All windows of a fit stand in
        memory, as rows of a table.
    targets : label or list of labels, optional
        Columns to forecast; by default all that have no other role.
    past_covariates : label or list of labels, optional
        Columns that are inputs only; they need ``lags_of="all"``.
    future_covariates : label or list of labels, optional
        Columns known ahead; features are their values in the row to forecast.
    static_covariates : label or list of labels, optional
        Columns that hold one constant for each series.
    sample_weight : label, optional
        Column with the weight of each row, for regressors that take weights.
    time_decay : float, optional
        Rows after which a weight has halved, counted back from the end of the series.
    calendar : "auto", None or list of str, default="auto"
        Calendar features of the row to forecast.
    missing : {"error", "mask", "interpolate"}, default="error"
        What to do with NaN. ``"mask"`` passes missing inputs on to regressors that
        allow NaN, and reads them as the mean of their window for others; rows without
        truth are left out.
    scaler : {"standard", "series", None}, default="standard"
        Standardise columns inside; forecasts come back in the units of the data.
    validation_fraction : float, default=0.1
        Share of the rows, at the end, that calibrate intervals.
    refit_on_all : bool, default=False
        Fit again on all rows.
    nonnegative : bool, default=False
        Raise negative forecasts to zero.
    random_state : int, RandomState, Generator or None, default=None
        Seed of regressors whose own ``random_state`` is None.

    Attributes
    ----------
    regressors_ : list of list of regressors
        For each group of targets one regressor per step (``"direct"``), or one.
    feature_names_ : list of tuple of str
        Names of the features, for each group of targets.

    Notes
    -----
    ``save`` holds linear regressors and pipelines of scalers before them. Others live
    in pickles only: ``save`` refuses them and points to joblib.

    References
    ----------
    Ben Taieb et al., A review and comparison of strategies for multi-step ahead time
    series forecasting, arXiv:1108.3259.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import LinearRegression
    >>> X = np.sin(np.arange(80.0) / 3).reshape(-1, 1)
    >>> model = WindowForecaster(regressor=LinearRegression(), lookback=8, horizon=2)
    >>> bool(np.allclose(model.fit(X[:60]).predict(), X[60:62]))
    True
    """

    _covariates: ClassVar[frozenset[str]] = frozenset({"past", "future", "static"})
    _parameter_rules: ClassVar[dict[str, ParameterRule]] = {
        "regressor": AnyOf(Nothing(), _Regressor()),
        "strategy": Option("direct", "multioutput", "recursive"),
        "lags_of": Option("own", "all"),
        "individual": Boolean(),
        "centre": AnyOf(Nothing(), Option("mean", "last")),
        "max_windows": AnyOf(Nothing(), Integer(1)),
        "random_state": AnyOf(
            Nothing(),
            Integer(0),
            Instance("a NumPy random source", RandomState, Generator),
        ),
        **{name: rule for name, rule in FORECASTER_RULES.items() if name != "variates"},
    }

    def __init__(
        self,
        *,
        regressor: Any = None,
        strategy: str = "direct",
        lookback: int = 96,
        horizon: int = 24,
        lags_of: str = "own",
        individual: bool = False,
        centre: str | None = "mean",
        max_windows: int | None = None,
        targets: Any = None,
        past_covariates: Any = None,
        future_covariates: Any = None,
        static_covariates: Any = None,
        sample_weight: Any = None,
        time_decay: float | None = None,
        calendar: Any = "auto",
        missing: str = "error",
        scaler: str | None = "standard",
        validation_fraction: float = 0.1,
        refit_on_all: bool = False,
        nonnegative: bool = False,
        random_state: Any = None,
    ) -> None:
        self.regressor = regressor
        self.strategy = strategy
        self.lookback = lookback
        self.horizon = horizon
        self.lags_of = lags_of
        self.individual = individual
        self.centre = centre
        self.max_windows = max_windows
        self.targets = targets
        self.past_covariates = past_covariates
        self.future_covariates = future_covariates
        self.static_covariates = static_covariates
        self.sample_weight = sample_weight
        self.time_decay = time_decay
        self.calendar = calendar
        self.missing = missing
        self.scaler = scaler
        self.validation_fraction = validation_fraction
        self.refit_on_all = refit_on_all
        self.nonnegative = nonnegative
        self.random_state = random_state

    def _parameter_relations(self) -> list[str]:
        if is_given(self.past_covariates) and self.lags_of == "own":
            return [
                "past_covariates= are features only with lags_of='all', lags_of='own' "
                "would leave them out"
            ]
        return []

    @property
    def _usable_covariates(self) -> frozenset[str]:
        """Kinds of covariates that these settings can use."""
        return self._covariates - ({"past"} if self.lags_of == "own" else set())

    # -------------------------------------------------------------------- fit

    def _prepare(self) -> None:
        # Calendar features are those of the row to forecast, not of the look-back.
        names = (*self.future_calendar_, *self.calendar_)
        self.future_calendar_, self.calendar_ = tuple(dict.fromkeys(names)), ()
        allowed = {*self.target_positions_, *self.future_positions_}
        past = set(self.input_positions_) - allowed
        if self.strategy == "recursive" and self.lags_of == "all" and past:
            raise CapabilityError(
                "strategy='recursive' needs the coming rows of every column whose lags "
                f"it reads, and {len(past)} past covariates are not forecast",
                where="strategy",
                hint="Use strategy='direct', lags_of='own', or make them targets.",
            )

    def _fit(self, training: WindowSet, validation: WindowSet | None) -> None:
        self._check_regressor(training)
        self.feature_names_ = [self._names(group) for group in self._groups]
        if self.max_windows is not None:
            training = training.evenly(int(self.max_windows))
        every = slice(None)
        inputs, weights = training.inputs(every), training.target_weights(every)
        features, centre = self._features.of(inputs.values)
        truth = training.targets(every)[..., self.target_positions_]  # (n, H, T)
        truth = truth - centre[:, None]
        self.regressors_: list[list[Any]] = [[] for _ in self._groups]
        seeds = np.random.default_rng(resolve_seed(self.random_state))
        for step in range(self._n_fits):
            X = self._with_known(features, inputs.known, step)
            if self.strategy == "multioutput":
                y = np.moveaxis(truth, 1, 2)  # (n, T, H)
                weight = None if weights is None else weights.mean(axis=1)
            else:
                y = truth[:, step]
                weight = None if weights is None else weights[:, step]
            for number, group in enumerate(self._groups):
                regressor = _seeded(clone(self._regressor), seeds)
                _fit_one(regressor, X[:, group], y[:, group], weight)
                self.regressors_[number].append(regressor)

    def _check_regressor(self, training: WindowSet) -> None:
        regressor = self._regressor
        name = type(regressor).__name__
        if self.strategy == "multioutput":
            if not get_tags(regressor).target_tags.multi_output:
                raise CapabilityError(
                    f"{name} has one output, and strategy='multioutput' needs "
                    f"{self.horizon}",
                    where="regressor",
                    hint="Use strategy='direct', which fits one for each step.",
                )
        if training.weights is not None and not has_fit_parameter(
            regressor, "sample_weight"
        ):
            raise CapabilityError(
                f"{name} takes no weights",
                where="regressor",
                hint="Leave out sample_weight= and time_decay=, or take a regressor "
                "whose fit has sample_weight.",
            )

    @property
    def _regressor(self) -> Any:
        return Ridge() if self.regressor is None else self.regressor

    @property
    def _allows_nan(self) -> bool:
        return bool(get_tags(self._regressor).input_tags.allow_nan)

    @property
    def _n_fits(self) -> int:
        return int(self.horizon) if self.strategy == "direct" else 1

    @property
    def _groups(self) -> list[list[int]]:
        """Targets, counted from 0, that share their regressors."""
        every = list(range(len(self.target_positions_)))
        return [[target] for target in every] if self.individual else [every]

    def _others(self, target: int) -> IntArray:
        """Columns whose lags are features of one target beside its own."""
        inputs: IntArray = self.input_positions_
        if self.lags_of == "own":
            return inputs[:0]
        if len(self.target_positions_) > 1 and not self.individual:
            # A shared regressor finds each column in the same place for all targets.
            return inputs
        return np.setdiff1d(inputs, self.target_positions_[[target]])

    @property
    def _features(self) -> WindowFeatures:
        return WindowFeatures(
            self.target_positions_,
            tuple(self._others(one) for one in range(len(self.target_positions_))),
            self.static_positions_,
            self.centre,
            self._allows_nan,
        )

    def _with_known(
        self, features: FloatArray, known: FloatArray | None, step: int
    ) -> FloatArray:
        """Append what is known of the row of a step, or of all rows."""
        if known is not None:
            n = len(known)
            is_whole = self.strategy == "multioutput"
            known = known.reshape(n, -1) if is_whole else known[:, step]
        return join_known(features, known, allow_nan=self._allows_nan)

    def _names(self, group: list[int]) -> tuple[str, ...]:
        columns = self.columns_ or range(self.n_features_in_)
        lags = range(int(self.lookback), 0, -1)
        names = [f"lag {lag}" for lag in lags]
        for other in self._others(group[0]):
            names += [f"{columns[other]} lag {lag}" for lag in lags]
        names += [str(columns[one]) for one in self.static_positions_]
        known = [str(columns[one]) for one in self.future_positions_]
        known += self.future_calendar_
        if self.strategy != "multioutput":
            return (*names, *known)
        steps = range(1, int(self.horizon) + 1)
        return (*names, *(f"{one} +{step}" for step in steps for one in known))

    # --------------------------------------------------------------- forecast

    def _forecast(self, inputs: WindowInputs) -> FloatArray:
        if self.strategy == "recursive":
            return self._forecast_rows(inputs)
        n, H, T = len(inputs), int(self.horizon), len(self.target_positions_)
        features, centre = self._features.of(inputs.values)
        forecast = np.empty((n, H, T))
        for step in range(self._n_fits):
            X = self._with_known(features, inputs.known, step)
            if self.strategy == "multioutput":
                forecast[:] = np.moveaxis(self._predict(X, 0), 2, 1)
            else:
                forecast[:, step] = self._predict(X, step)[..., 0]
        return forecast + centre[:, None]

    def _forecast_rows(self, inputs: WindowInputs) -> FloatArray:
        """Forecast row by row, each from the rows before it."""
        L, H = int(self.lookback), int(self.horizon)
        n_future = len(self.future_positions_)
        rows = inputs.values
        for step in range(H):
            features, centre = self._features.of(rows[:, -L:])
            X = self._with_known(features, inputs.known, step)
            following = rows[:, -1].copy()  # static covariates go on as they are
            if inputs.known is not None:
                following[:, self.future_positions_] = inputs.known[:, step, :n_future]
            following[:, self.target_positions_] = self._predict(X, 0)[..., 0] + centre
            rows = np.concatenate([rows, following[:, None]], axis=1)
        return rows[:, L:, self.target_positions_]

    def _predict(self, X: FloatArray, step: int) -> FloatArray:
        """Ask the regressors of a step, features (n, T, F), outputs (n, T, O)."""
        n, _, F = X.shape
        outputs = []
        for regressors, group in zip(self.regressors_, self._groups, strict=True):
            rows = X[:, group].reshape(n * len(group), F)
            output = np.asarray(regressors[step].predict(rows), dtype=np.float64)
            outputs.append(output.reshape(n, len(group), -1))
        return np.concatenate(outputs, axis=1)


def _seeded(regressor: Any, seeds: Generator) -> Any:
    """Give seeds where scikit-learn would draw from NumPy's global random state."""
    given = regressor.get_params(deep=True)
    missing = [
        name
        for name, value in sorted(given.items())
        if name.rpartition("__")[2] == "random_state" and value is None
    ]
    return regressor.set_params(
        **{name: int(seeds.integers(2**31)) for name in missing}
    )


def _fit_one(
    regressor: Any, X: FloatArray, y: FloatArray, weight: FloatArray | None
) -> None:
    """Fit on features (n, t, F) and truths (n, t) or (n, t, H)."""
    n, t, F = X.shape
    X, y = X.reshape(n * t, F), y.reshape(n * t, *y.shape[2:])
    known = np.isfinite(y.reshape(n * t, -1)).all(axis=1)
    if not known.any():
        raise DataQualityError(
            "no window has a complete truth: values are missing in every one",
            where="targets",
            hint="Use missing='interpolate', or a shorter horizon.",
        )
    options = {}
    if weight is not None:
        options["sample_weight"] = np.repeat(weight, t)[known]
    regressor.fit(X[known], y[known], **options)
