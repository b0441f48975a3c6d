"""How much a forecast rests on each variate: permute it, and see the error rise.

Axis legend: n windows, L lookback, H horizon, C columns, T targets, K channels known
ahead.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from sklearn.utils.validation import check_is_fitted

from sciseq.data.panel import FloatArray
from sciseq.data.windows import WindowInputs, WindowSet
from sciseq.errors import InputError, InputTypeError
from sciseq.metrics import ForecastErrors
from sciseq.model_selection.time_axis import IntArray
from sciseq.parameters import Integer, Option, Rule, check_parameters
from sciseq.training import resolve_seed

__all__ = ["permutation_importance"]

WINDOWS_PER_CALL = 512
_RULES: dict[str, Rule] = {
    "metric": Option("mse", "mae"),
    "n_repeats": Integer(1),
    "n_windows": Integer(2),
}


def permutation_importance(
    model: Any,
    X: Any,
    y: Any = None,
    *,
    metric: str = "mse",
    n_repeats: int = 5,
    n_windows: int = 1000,
    per_target: bool = False,
    random_state: int | np.random.RandomState | np.random.Generator | None = None,
) -> pd.DataFrame:
    r"""Measure how the error rises when windows exchange the look-back of one variate.

    With the windows of a table in random order :math:`\pi`, for variate c:

    .. math:: I_c = \mathrm{error}(x_{\pi, c},\ x_{\cdot, -c})
              - \mathrm{error}(x)

    All L rows of the variate move together, and the rows of the horizon with them where
    its future is known. Nothing is fitted anew.

    Parameters
    ----------
    model : forecaster
        Fitted. Of a pipeline give the last step, and the table that comes to it.
    X : same kinds of container as in ``fit``
        Rows that the model has not learnt from, or the importance is that for what it
        remembers; at least ``lookback + horizon + 1`` rows.
    y : ndarray of shape (n_windows, horizon, n_targets), optional
        Truth for ready-made windows.
    metric : {"mse", "mae"}, default="mse"
        Error of the values as the model scales them, so that targets in different
        units count alike.
    n_repeats : int, default=5
        Random orders for each variate.
    n_windows : int, default=1000
        Windows at most, evenly spread.
    per_target : bool, default=False
        One row for each variate and target, instead of the mean over targets.
    random_state : int, RandomState, Generator or None, default=None
        Where the random orders come from.

    Returns
    -------
    pandas.DataFrame
        Index ``variate``, or (``variate``, ``target``); columns ``mean`` and ``sd``
        over the repeats. Zero: the forecast does not use the variate.

    Raises
    ------
    InputTypeError
        For an object that is no forecaster.
    InputError
        For arguments out of range, or fewer than two windows.

    Notes
    -----
    Breiman, Random forests, Machine Learning 45 (2001); Fisher, Rudin and Dominici,
    All models are wrong, but many are useful, JMLR 20 (2019). Variates that say the
    same share their importance: each can be exchanged while the other stays. Static
    covariates and calendar features are left as they are.

    Examples
    --------
    >>> from sciseq import LinearForecaster
    >>> from sciseq.inspection import permutation_importance
    >>> X = np.random.default_rng(0).normal(size=(200, 2)).cumsum(axis=0)
    >>> model = LinearForecaster(lookback=8, horizon=2).fit(X[:100])
    >>> table = permutation_importance(model, X[100:], per_target=True, random_state=0)
    >>> (table["mean"] > 0).tolist()  # each column is forecast from itself alone
    [True, False, False, True]
    """
    given = {"metric": metric, "n_repeats": n_repeats, "n_windows": n_windows}
    check_parameters(given, _RULES, owner="permutation_importance")
    _check_model(model)
    windows = model._windows(model._evaluation_panel(X, y)).evenly(n_windows)
    if len(windows) < 2:
        raise InputError(
            "one window cannot be exchanged with another",
            where="X",
            hint="Give at least one row more than lookback + horizon.",
        )
    random = np.random.default_rng(resolve_seed(random_state))
    before = _errors(model, windows, metric, lambda inputs, chunk: inputs)
    rises: dict[int, FloatArray] = {}
    for column in _variates(model, windows).tolist():
        repeats = []
        for _ in range(n_repeats):
            order = random.permutation(len(windows))
            exchange = _exchange(model, windows, column, order)
            repeats.append(_errors(model, windows, metric, exchange) - before)
        rises[column] = np.stack(repeats)  # (n_repeats, T)
    return _table(model, windows, rises, per_target)


def _check_model(model: Any) -> None:
    names = ("_windows", "_forecast", "_evaluation_panel")
    if not all(hasattr(type(model), name) for name in names):
        raise InputTypeError(
            f"a forecaster of sciseq is needed, {type(model).__name__} is not one",
            where="model",
            hint="Of a pipeline give model[-1] and model[:-1].transform(X).",
        )
    check_is_fitted(model)


def _variates(model: Any, windows: WindowSet) -> IntArray:
    """Positions of the columns that enter as variates."""
    if model.variates == "any":
        return np.arange(windows.values.shape[1])
    return np.asarray(model.input_positions_)


_Change = Callable[[WindowInputs, slice], WindowInputs]


def _exchange(model: Any, windows: WindowSet, column: int, order: IntArray) -> _Change:
    """Give each window the values that another one has of one column."""
    future = model.future_positions_.tolist()

    def change(inputs: WindowInputs, chunk: slice) -> WindowInputs:
        other = windows.inputs(order[chunk])
        values = inputs.values.copy()
        values[..., column] = other.values[..., column]
        known = inputs.known
        if column in future and known is not None and other.known is not None:
            channel = future.index(column)
            known = known.copy()
            known[..., channel] = other.known[..., channel]
        return replace(inputs, values=values, known=known)

    return change


def _errors(model: Any, windows: WindowSet, metric: str, change: _Change) -> FloatArray:
    """Error of each target, (T,), when the inputs are changed."""
    targets: Any = model.target_positions_
    if model.variates == "any":
        targets = np.arange(windows.values.shape[1])
    errors = ForecastErrors()
    for chunk in windows.chunks(WINDOWS_PER_CALL):
        forecast = model._forecast(change(windows.inputs(chunk), chunk))
        errors.update(windows.targets(chunk)[..., targets], forecast)
    return errors.result().per_target[metric]


def _table(
    model: Any, windows: WindowSet, rises: dict[int, FloatArray], per_target: bool
) -> pd.DataFrame:
    n_columns = windows.values.shape[1]
    labels = list(range(n_columns) if model.columns_ is None else model.columns_)
    variates = [labels[column] for column in rises]
    index = pd.Index(variates, name="variate", tupleize_cols=False)
    repeats = np.stack(list(rises.values()))  # (C, n_repeats, T)
    if per_target:
        targets = [labels[one] for one in model.target_positions_]
        index = pd.MultiIndex.from_product(
            [variates, targets], names=["variate", "target"]
        )
        values = np.swapaxes(repeats, 1, 2).reshape(len(index), -1)
    else:
        # A target without any truth has no error.
        values = np.nanmean(repeats, axis=2)
    spread = values.std(axis=1, ddof=1) if values.shape[1] > 1 else np.nan
    return pd.DataFrame({"mean": values.mean(axis=1), "sd": spread}, index=index)
