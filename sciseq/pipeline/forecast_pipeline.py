"""A scikit-learn pipeline that ends in a forecaster.

Axis legend: n windows or series, R rows, H horizon, C columns of the data, C' columns
after the steps, T targets.
"""

import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.base import clone
from sklearn.pipeline import Pipeline
from sklearn.utils._user_interface import _print_elapsed_time
from sklearn.utils.validation import check_is_fitted, check_memory

from sciseq.data.calendar import is_calendar_feature
from sciseq.data.containers import read_panel
from sciseq.data.missing import apply_missing_choice
from sciseq.data.panel import FloatArray, Panel
from sciseq.errors import (
    CapabilityError,
    InputError,
    InputTypeError,
    NumericalError,
    SciSeqWarning,
    nearest_name,
)
from sciseq.forecasting.future import FutureRows
from sciseq.forecasting.intervals import central_levels
from sciseq.forecasting.roles import is_given
from sciseq.forecasting.training_table import (
    check_context,
    check_lengths,
    match_columns,
)
from sciseq.metrics import ForecastErrors
from sciseq.pipeline.step_chain import (
    StepChain,
    as_container,
    as_table,
    columns_after,
    join_rows,
    row_labels,
    rows_of,
    split_rows,
    take,
)
from sciseq.pipeline.step_checks import check_invertible, check_step, is_column_wise

__all__ = ["ForecastPipeline"]

# Points between the lowest and the highest quantile at which the inverse of the steps
# is looked at, to see whether it rises or falls.
GRID_POINTS = 65


class ForecastPipeline(Pipeline):
    r"""Transform, forecast, and undo the transforms on the forecast.

    With steps :math:`f = f_k \circ \dots \circ f_1` and a forecaster :math:`m`,

    .. math:: \hat y = f_1^{-1}(\dots f_k^{-1}(m(f(X)))) .

    A :class:`sklearn.pipeline.Pipeline` as ever (nested parameters, ``named_steps``,
    ``memory``), except that each step sees a table with the labels of the caller's,
    and that forecasts and scores are in the units of the data.

    Parameters
    ----------
    steps : list of (str, estimator)
        Transformers, and a forecaster at the end. Each transformer needs an
        ``inverse_transform``, and treats each row by itself; ``"passthrough"`` and
        None stand for no transformer.
    transform_input : None
        Not used: ``validation_data`` is always transformed.
    memory : str or object with the interface of joblib.Memory, optional
        Where fitted transformers are cached.
    verbose : bool, default=False
        Print the time that each step took to fit.

    Attributes
    ----------
    columns_ : tuple or None
        Labels of the columns.
    is_column_wise_ : bool
        Whether the steps treat each column by itself, as quantiles and ``targets=``
        of the forecaster need.
    context_ : Panel
        The last rows of the training data, which ``predict()`` continues.

    Notes
    -----
    The steps learn from all rows given to ``fit``, those included on which the
    forecaster validates. Missing values are treated as the forecaster's ``missing=``
    says, before the first step.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.preprocessing import FunctionTransformer
    >>> from sciseq import NaiveForecaster
    >>> X = np.array([[1.0], [10.0], [100.0], [1000.0]])
    >>> model = ForecastPipeline([
    ...     ("log", FunctionTransformer(np.log10, inverse_func=lambda z: 10.0**z)),
    ...     ("forecast", NaiveForecaster(horizon=2)),
    ... ])
    >>> model.fit(X).predict().ravel().tolist()
    [1000.0, 1000.0]
    """

    # ------------------------------------------------------------- parameters

    def set_params(self, **params: Any) -> Self:
        """Set parameters of the pipeline and, as ``step__parameter``, of its steps.

        Parameters
        ----------
        **params : dict
            Names and values.

        Returns
        -------
        self

        Raises
        ------
        InputError
            For an unknown name, with the nearest valid one.
        """
        steps = params.get("steps") or self.steps
        valid = [*self.get_params(deep=False), *(name for name, _ in steps)]
        for name in params:
            if name.partition("__")[0] not in valid:
                raise InputError(
                    f"Invalid parameter {name!r} for estimator {type(self).__name__}; "
                    f"valid parameters are: {valid}",
                    where="set_params",
                    hint=nearest_name(name, valid)
                    or "Parameters of a step are written step__parameter.",
                )
        super().set_params(**params)
        return self

    @property
    def horizon(self) -> int:
        """Rows that the forecaster forecasts."""
        return int(self._forecaster.horizon)

    @property
    def n_features_in_(self) -> int:
        """Number of columns of the training data."""
        return int(getattr(self, "_n_columns", None) or super().n_features_in_)

    @property
    def feature_names_in_(self) -> npt.NDArray[Any]:
        """Names of the columns of the training data."""
        columns = getattr(self, "columns_", None)
        if columns is None or not all(isinstance(label, str) for label in columns):
            raise AttributeError("the training data had no names of columns")
        return np.array(columns, dtype=object)

    # -------------------------------------------------------------------- fit

    def fit(self, X: Any, y: Any = None, *, validation_data: Any = None) -> Self:
        """Fit the steps on the rows of X, and the forecaster on what they make of it.

        Parameters
        ----------
        X : DataFrame, Series, DataArray, Dataset, ndarray, or list or dict of these
            As for any forecaster; ready-made windows are refused.
        y : None
            Ignored, with a warning that points to ``targets=``.
        validation_data : same kind of container as X, optional
            Passed to the forecaster, transformed.

        Returns
        -------
        self

        Raises
        ------
        CapabilityError
            For a step that cannot be undone, mixes rows, or loses columns.
        InputTypeError
            When the last step is no forecaster.
        """
        self._check_steps()
        if y is not None:
            warnings.warn(
                "y is ignored: a table holds both inputs and targets; name the targets "
                "with targets=[...] of the forecaster",
                SciSeqWarning,
                stacklevel=2,
            )
        # A failed fit leaves pipeline and steps as they were: a new scaler before an
        # old forecaster would give wrong numbers without a word.
        owners = [self, *(step for _, step in self._transformers())]
        before = [dict(vars(owner)) for owner in owners]
        try:
            self._fit_panel(self._read(X), validation_data)
        except BaseException:
            for owner, state in zip(owners, before, strict=True):
                vars(owner).clear()
                vars(owner).update(state)
            raise
        return self

    def _check_steps(self) -> None:
        self._validate_steps()
        name, forecaster = self.steps[-1]
        if not hasattr(type(forecaster), "_evaluate_panel"):
            raise InputTypeError(
                f"the last step is a {type(forecaster).__name__}, which is no "
                "forecaster",
                where=f"step {name!r}",
                hint="End the pipeline with a forecaster of sciseq.",
            )
        if self.transform_input is not None:
            raise InputError(
                f"transform_input={self.transform_input!r} is not allowed: must be "
                "None",
                where="parameters of ForecastPipeline",
                hint="Give fit(X, validation_data=...), which is always transformed.",
            )
        self._check_roles()
        for name, step in self._transformers():
            check_invertible(name, step)

    def _check_roles(self) -> None:
        """Refuse options of the forecaster that steps before it would distort."""
        name, forecaster = self.steps[-1]
        future = getattr(forecaster, "future_covariates", None)
        wanted = future if isinstance(future, list | tuple) else [future]
        columns = [one for one in wanted if not is_calendar_feature(one)]
        given = {
            "future_covariates": is_given(future) and bool(columns),
            "static_covariates": is_given(
                getattr(forecaster, "static_covariates", None)
            ),
            "sample_weight": is_given(getattr(forecaster, "sample_weight", None)),
            "nonnegative": bool(getattr(forecaster, "nonnegative", False)),
        }
        wrong = [option for option, is_used in given.items() if is_used]
        if wrong:
            raise CapabilityError(
                f"{wrong[0]} of the forecaster does not go through a pipeline: its "
                "steps would transform it with the targets",
                where=f"step {name!r}",
                hint="Use the forecaster alone; scaler= scales inside.",
            )

    def _fit_panel(self, panel: Panel, validation_data: Any) -> None:
        forecaster = self._forecaster
        # The caller's own list stays as it is.
        self.steps: list[tuple[str, Any]] = list(self.steps)
        self._n_columns, self.columns_ = panel.n_columns, panel.columns
        chain, inner = self._fit_steps(panel)
        self._chain = chain
        labels = self._labels(panel)
        self.is_column_wise_ = is_column_wise(chain, inner, labels)
        if (
            getattr(forecaster, "targets", None) is not None
            and not self.is_column_wise_
        ):
            raise CapabilityError(
                "targets= needs steps that treat each column by itself, and these mix "
                "columns",
                where="steps",
                hint="Make every column a target, or leave out the mixing step.",
            )
        held_out = None
        if validation_data is not None:
            held_out = self._inner_container(self._match(self._read(validation_data)))
        forecaster.fit(self._container(panel, inner), validation_data=held_out)
        context = panel.rows(-forecaster._context_length)
        # The caller may go on to write into the training table.
        self.context_ = context.with_values([one.copy() for one in context.values])

    def _fit_steps(self, panel: Panel) -> tuple[StepChain, FloatArray]:
        """Fit one step after the other; give the chain and the transformed rows."""
        fit_transform = check_memory(self.memory).cache(_fit_transform)
        rows, labels = join_rows(panel), self._labels(panel)
        columns = None if panel.columns is None else pd.Index(list(panel.columns))
        steps, after = [], [columns]
        for place, (name, step) in enumerate(self.steps[:-1]):
            if step is None or step == "passthrough":
                continue
            with _print_elapsed_time("Pipeline", self._log_message(place)):
                fitted, output = fit_transform(
                    clone(step) if self.memory is not None else step,
                    as_table(rows, labels, after[-1]),
                )
            self.steps[place] = (name, fitted)
            made = rows_of(output, as_table(rows, labels, after[-1]), name)
            columns = columns_after(fitted, output, after[-1], made.shape[1])
            alone = StepChain(((name, fitted),), (after[-1], columns))
            check_step(alone, rows, made, labels)
            steps.append((name, fitted))
            after.append(columns)
            rows = made
        return StepChain(tuple(steps), tuple(after)), rows

    @property
    def _forecaster(self) -> Any:
        return self.steps[-1][1]

    def _transformers(self) -> list[tuple[str, Any]]:
        return [
            (name, step)
            for name, step in self.steps[:-1]
            if step is not None and step != "passthrough"
        ]

    # ---------------------------------------------------------------- reading

    def _read(self, X: Any, last_rows: int | None = None) -> Panel:
        panel = read_panel(X, last_rows=last_rows)
        if panel.is_windows:
            raise CapabilityError(
                "a pipeline transforms rows in time; ready-made windows repeat them",
                where="X",
                hint="Give the table, or transform before cutting windows and use the "
                "forecaster alone.",
            )
        return apply_missing_choice(panel, self._forecaster.missing)

    def _match(self, panel: Panel) -> Panel:
        return match_columns(panel, self.columns_, self._check_n_features)

    def _check_n_features(self, given: int) -> None:
        if given != self._n_columns:
            raise InputError(
                f"X has {given} features, but {type(self).__name__} is expecting "
                f"{self._n_columns} features as input",
                where="X.columns",
                hint="Give the same columns as in fit.",
            )

    def _labels(self, panel: Panel) -> Any:
        return None if panel.columns is None else row_labels(panel)

    def _inner_rows(self, panel: Panel) -> FloatArray:
        return self._chain.transform(join_rows(panel), self._labels(panel))

    def _container(self, panel: Panel, inner: FloatArray) -> Any:
        """Write transformed rows in a form that the forecaster reads."""
        columns = self._chain.columns[-1]
        made = replace(
            panel,
            values=tuple(split_rows(inner, panel)),
            columns=None if columns is None else tuple(columns),
        )
        return as_container(made, columns)

    def _inner_container(self, panel: Panel) -> Any:
        return self._container(panel, self._inner_rows(panel))

    def _prediction_panel(self, X: Any) -> Panel:
        check_is_fitted(self)
        L = self._context_length
        if X is None:
            return self.context_
        panel = self._match(self._read(X, last_rows=L))
        check_context(panel, L)
        return panel.rows(-L)

    # ------------------------------------------------------------- predicting

    def predict(self, X: Any = None, *, horizon: int | None = None) -> Any:
        """Forecast the rows after the end of the training data, or of X.

        Parameters
        ----------
        X : same kinds of container as in fit, optional
            At least ``lookback`` rows, columns matched by name.
        horizon : int, optional
            As in the forecaster.

        Returns
        -------
        Same kind of container as X (or as the training data)
            In the units of the data.
        """
        panel = self._prediction_panel(X)
        inner = self._inner_container(panel)
        return self._undone(panel, self._forecaster.predict(inner, horizon=horizon))

    def _undone(self, panel: Panel, forecast: Any) -> Any:
        ahead = read_panel(forecast)
        future = replace(panel, values=ahead.values, times=ahead.times)
        around = self._around(panel, future.lengths)
        restored = split_rows(
            self._undo(join_rows(future), around, self._labels(future)), future
        )
        return panel.layout.write(panel, restored, ahead.times, self._targets_of(panel))

    def _around(self, panel: Panel, counts: Any) -> FloatArray | None:
        """Full rows for forecasts of some columns: the last row of each series."""
        if self._inner_targets() is None:
            return None
        return np.repeat(self._inner_rows(panel.rows(-1)), counts, axis=0)

    def _undo(
        self, forecast: FloatArray, around: FloatArray | None, labels: Any
    ) -> FloatArray:
        """Undo the steps on forecast rows (R, T), inside full rows (R, C')."""
        targets = self._inner_targets()
        whole = forecast
        if targets is not None:
            whole = np.array(around)
            whole[:, targets] = forecast
        if self._chain.columns[0] is None:
            labels = None
        restored = self._chain.undo(whole, labels)
        if not np.isfinite(restored[:, self._targets_of_fit()]).all():
            raise NumericalError(
                "undoing the steps on the forecast gives values that are not finite",
                where="inverse_transform",
                hint="The forecast may lie outside what the inverse can take.",
            )
        return restored if targets is None else restored[:, targets]

    def _inner_targets(self) -> list[int] | None:
        if getattr(self._forecaster, "targets", None) is None:
            return None
        return [int(one) for one in self._forecaster.target_positions_]

    def _targets_of_fit(self) -> list[int]:
        return self._inner_targets() or list(range(self._n_columns))

    def _targets_of(self, panel: Panel) -> list[int]:
        return self._targets_of_fit()

    @property
    def _context_length(self) -> int:
        return int(self._forecaster._context_length)

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
        """
        panel = self._prediction_panel(X)
        n_rows = self._forecaster._check_horizon(horizon)
        future = FutureRows.after(panel, self._forecaster._step_of(panel), n_rows)
        empty = [np.full((n_rows, panel.n_columns), np.nan)] * panel.n_series
        return panel.layout.write(panel, empty, future.times, range(panel.n_columns))

    def predict_quantiles(
        self,
        X: Any = None,
        *,
        quantiles: npt.ArrayLike = (0.1, 0.5, 0.9),
        horizon: int | None = None,
    ) -> dict[float, Any]:
        """Forecast quantiles, through steps that rise in each column by itself.

        Parameters
        ----------
        X, quantiles, horizon
            As in the forecaster.

        Returns
        -------
        dict
            For each level the forecast, as :meth:`predict` would return it.

        Raises
        ------
        CapabilityError
            When the steps mix columns or do not rise, so that a quantile of the
            transformed values is no quantile of the values.
        """
        panel = self._prediction_panel(X)
        if not self.is_column_wise_:
            raise CapabilityError(
                "quantiles pass only through steps that treat each column by itself, "
                "and these mix columns",
                where="steps",
                hint="Leave out the mixing step, or use predict.",
            )
        inner = self._forecaster.predict_quantiles(
            self._inner_container(panel), quantiles=quantiles, horizon=horizon
        )
        self._check_rising(panel, list(inner.values()))
        return {level: self._undone(panel, one) for level, one in inner.items()}

    def _check_rising(self, panel: Panel, forecasts: list[Any]) -> None:
        """Look at the inverse between the lowest and the highest quantile."""
        low, high = read_panel(forecasts[0]), read_panel(forecasts[-1])
        bottom, top = join_rows(low).min(axis=0), join_rows(high).max(axis=0)
        # One level of one row has no width: look at a hundredth of its size around it.
        width = np.where(
            top > bottom, top - bottom, 0.01 * np.maximum(np.abs(bottom), 1e-12)
        )
        grid = bottom + np.linspace(0.0, 1.0, GRID_POINTS)[:, None] * width  # (R, T)
        around = self._around(panel, GRID_POINTS)
        if around is not None:
            around = around[:GRID_POINTS]  # those of the first series
        labels = self._labels(replace(panel, values=low.values, times=low.times))
        if labels is not None:
            labels = labels[:1].repeat(GRID_POINTS)
        if not (np.diff(self._undo(grid, around, labels), axis=0) >= 0).all():
            raise CapabilityError(
                "quantiles pass only through steps that rise, and the inverse of "
                "these falls somewhere between the lowest and the highest quantile",
                where="steps",
                hint="Leave out the falling step, or use predict.",
            )

    def predict_interval(
        self, X: Any = None, *, coverage: float = 0.9, horizon: int | None = None
    ) -> tuple[Any, Any]:
        """Forecast central intervals.

        Parameters
        ----------
        X, coverage, horizon
            As in the forecaster.

        Returns
        -------
        lower, upper
            Two forecasts, as :meth:`predict` would return them.
        """
        levels = central_levels(coverage)
        lower, upper = self.predict_quantiles(
            X, quantiles=levels, horizon=horizon
        ).values()
        return lower, upper

    # ---------------------------------------------------------------- scoring

    def score(self, X: Any, y: Any = None) -> float:
        """R² over every rolling window, in the units of the data.

        Parameters
        ----------
        X : same kinds of container as in fit
            At least ``lookback + horizon`` rows.
        y : None
            Ignored.

        Returns
        -------
        float
        """
        check_is_fitted(self)
        errors = ForecastErrors()
        for _, truth, forecast in self._evaluate_panel(self._evaluation_panel(X, y)):
            errors.update(truth, forecast)
        return float(errors.result().overall["r2"])

    def _evaluation_panel(self, X: Any, y: Any = None) -> Panel:
        panel = self._match(self._read(X))
        self._forecaster._step_of(panel)
        check_lengths(panel, self._context_length, self.horizon)
        return panel

    def _evaluate_panel(
        self, panel: Panel, *, stride: int = 1
    ) -> Iterator[tuple[npt.NDArray[np.int64], FloatArray, FloatArray]]:
        """First target rows, truths and forecasts, chunk by chunk, in data units."""
        rows, labels = join_rows(panel), self._labels(panel)
        inner_rows = self._inner_rows(panel)
        inner = panel.with_values(split_rows(inner_rows, panel))
        targets, steps = self._targets_of_fit(), np.arange(self.horizon)
        for first, _, forecast in self._forecaster._evaluate_panel(
            inner, stride=stride
        ):
            ahead = first[:, None] + steps  # (n, H)
            around = np.repeat(inner_rows[first - 1], self.horizon, axis=0)
            restored = self._undo(
                forecast.reshape(-1, forecast.shape[2]),
                around,
                take(labels, ahead.ravel()),
            )
            shape = (*ahead.shape, len(targets))
            yield first, rows[ahead][..., targets], restored.reshape(shape)

    # ----------------------------------------------------------------- saving

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Save the pipeline without pickle, to be read by :func:`sciseq.load`.

        Parameters
        ----------
        path : path-like
            A folder, or a single file when the name ends in ``.zip`` or ``.sciseq``.
        overwrite : bool, default=False
            Replace a model that is already there.

        Raises
        ------
        CapabilityError
            For a step that is not one of those that :func:`sciseq.persistence.save`
            knows, as scalers of scikit-learn, and for ``memory``.
        InputError
            When the path exists and ``overwrite`` is False.
        """
        from sciseq.persistence import save

        save(self, path, overwrite=overwrite)

    def _get_saved_state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return what fit has learnt; the fitted steps are parameters."""
        if not hasattr(self, "context_"):
            return {}, {}
        return {
            "n_columns": self._n_columns,
            "columns_": self.columns_,
            "chain_columns": self._chain.columns,
            "is_column_wise_": self.is_column_wise_,
            "context_": self.context_,
        }, {}

    def _set_saved_state(
        self, attributes: Mapping[str, Any], weights: Mapping[str, Any]
    ) -> None:
        self._n_columns = attributes["n_columns"]
        self.columns_ = attributes["columns_"]
        self._chain = StepChain(
            tuple(self._transformers()), attributes["chain_columns"]
        )
        if len(self._chain.columns) != len(self._chain.steps) + 1:
            raise ValueError("the labels of the columns do not fit the steps")
        self.is_column_wise_ = attributes["is_column_wise_"]
        self.context_ = attributes["context_"]

    def __sklearn_is_fitted__(self) -> bool:
        # The transformers of a pipeline, pipe[:-1], are as fitted as they are.
        if self.steps and not hasattr(type(self._forecaster), "_evaluate_panel"):
            return bool(super().__sklearn_is_fitted__())
        return hasattr(self, "context_")


def _fit_transform(step: Any, table: Any) -> tuple[Any, Any]:
    """Fit a transformer and apply it; apart, so that it can be cached."""
    return step, step.fit(table).transform(table)
