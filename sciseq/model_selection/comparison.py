"""Several forecasters on the same windows: a ranking, and a test against the best."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import clone

from sciseq.errors import InputError, nearest_name
from sciseq.metrics import METRICS
from sciseq.model_selection.backtest_result import Backtest
from sciseq.model_selection.backtesting import backtest
from sciseq.model_selection.evaluation import as_container, check_forecaster
from sciseq.model_selection.origins import OriginPlan
from sciseq.model_selection.paired_test import diebold_mariano, holm_adjusted

__all__ = ["Comparison", "compare"]

# Metrics that are no mean of losses over windows, with the one that ranks the same.
_LOSS_OF = {"rmse": "mse"}
_NO_LOSS = ("bias", "coverage", "r2", "rmsse")


@dataclass(frozen=True, repr=False, eq=False)
class Comparison:
    """Ranking of several forecasters.

    Parameters
    ----------
    table : pandas.DataFrame
        One row per model, the best first: all metrics, then ``difference`` (of the
        metric that ranks, to the best), ``rank``, ``statistic`` and ``p_value`` of the
        paired test against the best, and ``p_adjusted`` for the number of tests.
    backtests : dict of str to Backtest
        By the name of the model, in the order given.
    metric : str
        The metric that ranks.
    """

    table: pd.DataFrame
    backtests: dict[str, Backtest]
    metric: str

    @property
    def best(self) -> str:
        """Name of the best model."""
        return str(self.table.index[0])

    def __repr__(self) -> str:
        n_windows = self.backtests[self.best].n_windows
        table = self.table.to_string(float_format="{:.6g}".format, na_rep="")
        return (
            f"Comparison of {len(self.backtests)} models by {self.metric}, {n_windows} "
            f"windows\n{table}"
        )


def compare(
    models: Mapping[str, Any] | Sequence[Any],
    X: Any,
    *,
    metric: str | None = None,
    horizon: int | None = None,
    context: int | None = None,
    metrics: str | Sequence[str] = ("mse", "mae", "rmse", "mase"),
    **options: Any,
) -> Comparison:
    """Backtest several forecasters on the same windows, and rank them.

    Parameters
    ----------
    models : dict of str to forecaster, or list of forecasters
        At least two. A list is named after the classes.
    X : same kinds of container as in ``fit``
        One or many series.
    metric : str, optional
        What ranks: by default the first of ``metrics``. A metric of quantiles needs
        ``quantiles=`` or ``coverage=``, as in :func:`backtest`.
    horizon : int, optional
        Rows to forecast; by default that of the models, which must agree.
    context : int, optional
        Rows before an origin that a series must have; by default the longest look-back
        among the models, so that all are judged on the same windows.
    metrics : str or sequence of str, default=("mse", "mae", "rmse", "mase")
        Further columns of the table.
    **options
        All else that :func:`backtest` takes.

    Returns
    -------
    Comparison
        The ranking, and the backtests.

    Raises
    ------
    InputError
        For fewer than two models, unequal horizons, or a metric that does not rank.
    InputTypeError
        For an object that is no forecaster.

    Notes
    -----
    The losses of each model and of the best are compared window by window with the
    test of :func:`~sciseq.model_selection.diebold_mariano`, at as many lags as
    neighbouring windows share rows. In a panel the losses of one origin are averaged
    over the series first. P-values are adjusted after Holm. The best was chosen on
    these windows: near ties it is the best partly by luck, so that p-values are
    somewhat too small.

    Examples
    --------
    >>> import numpy as np
    >>> from sciseq import LinearForecaster, NaiveForecaster
    >>> noise = np.random.default_rng(0).normal(scale=0.1, size=(300, 1))
    >>> X = np.sin(np.arange(300.0) / 4)[:, None] + noise
    >>> result = compare(
    ...     {"linear": LinearForecaster(lookback=16, horizon=4),
    ...      "last value": NaiveForecaster(horizon=4)},
    ...     X,
    ...     metrics="mae",
    ... )
    >>> result.best
    'linear'
    >>> bool(result.table.loc["last value", "p_adjusted"] < 0.01)
    True
    """
    named = _named(models)
    names = [metrics] if isinstance(metrics, str) else list(metrics)
    metric = metric or names[0]
    loss = _loss_of(metric)
    wanted = [*names, *(one for one in (metric, loss) if one in METRICS)]
    arguments = {**_defaults(), **options, "horizon": _common_horizon(named, horizon)}
    if context is None:
        context = max(_context_of(one, X, arguments) for one in named.values())
    arguments |= {"context": context, "metrics": list(dict.fromkeys(wanted))}
    results = {name: backtest(one, X, **arguments) for name, one in named.items()}
    lags = -(-results[next(iter(results))].horizon // arguments["stride"]) - 1
    return Comparison(_table(results, metric, loss, lags), results, metric)


def _named(models: Mapping[str, Any] | Sequence[Any]) -> dict[str, Any]:
    """Models by name, each checked."""
    if isinstance(models, Mapping):
        named = {str(name): model for name, model in models.items()}
    else:
        kinds = [type(model).__name__ for model in models]
        counts: dict[str, int] = {}
        named = {}
        for kind, model in zip(kinds, models, strict=True):
            counts[kind] = counts.get(kind, 0) + 1
            is_single = kinds.count(kind) == 1
            named[kind if is_single else f"{kind}-{counts[kind]}"] = model
    if len(named) < 2:
        raise InputError(
            f"{len(named)} models cannot be compared, at least two are needed",
            where="models",
            hint="Add a baseline, such as sciseq.NaiveForecaster.",
        )
    for model in named.values():
        check_forecaster(model)
    return named


def _loss_of(metric: str) -> str:
    """Name of the losses of single windows that rank as the metric does."""
    if metric.partition("_0")[0] in _NO_LOSS:
        raise InputError(
            f"metric {metric!r} is no mean of losses over windows, so it does not rank",
            where="metric",
            hint="Rank by mse, mae, mase, pinball, crps or interval_score.",
        )
    return _LOSS_OF.get(metric, metric)


def _defaults() -> dict[str, Any]:
    """Arguments of a backtest and their defaults."""
    parameters = inspect.signature(backtest).parameters.values()
    return {
        one.name: one.default
        for one in parameters
        if one.default is not inspect.Parameter.empty
    }


def _common_horizon(models: Mapping[str, Any], horizon: int | None) -> int:
    horizons = {name: int(model.horizon) for name, model in models.items()}
    if horizon is None and len(set(horizons.values())) > 1:
        raise InputError(
            f"the models have different horizons: {horizons}",
            where="models",
            hint="Give horizon=, the number of rows to forecast.",
        )
    return next(iter(horizons.values())) if horizon is None else horizon


def _context_of(model: Any, X: Any, arguments: Mapping[str, Any]) -> int:
    """Rows that a model looks back on; some know only after a fit."""
    try:
        return int(model._context_length)
    except AttributeError:
        plan = OriginPlan.over(X, arguments["horizon"], {**arguments, "context": None})
        starts, stops = plan.training_bounds(plan.first)
        # The longest series tells as much as all, of which some may be too short.
        stops = np.where(stops - starts == (stops - starts).max(), stops, starts)
        fitted = clone(model).fit(as_container(plan.panel, starts, stops))
        return int(fitted._context_length)


def _table(results: Mapping[str, Backtest], metric: str, loss: str, lags: int) -> Any:
    table = _metrics(results)
    if metric not in table:
        raise InputError(
            f"no column is called {metric!r}. {nearest_name(metric, table)}".rstrip(),
            where="metric",
            hint=f"Columns are {', '.join(table)}.",
        )
    table = table.sort_values(metric, kind="stable")
    best = str(table.index[0])
    losses = {
        name: _by_origin(result.per_window[loss]) for name, result in results.items()
    }
    tests = {
        name: diebold_mariano(losses[name], losses[best], lags=lags)
        for name in table.index
        if name != best
    }
    table["difference"] = table[metric] - table.loc[best, metric]
    table["rank"] = table[metric].rank(method="min").astype("Int64")
    for column in ("statistic", "p_value"):
        values = {name: getattr(test, column) for name, test in tests.items()}
        table[column] = pd.Series(values, dtype=np.float64)
    others = table.index[1:]
    table["p_adjusted"] = pd.Series(
        holm_adjusted(table.loc[others, "p_value"]), index=others
    )
    return table


def _metrics(results: Mapping[str, Backtest]) -> Any:
    """One row per model, one column per metric."""
    rows = {name: result.metrics.iloc[0] for name, result in results.items()}
    return pd.DataFrame(rows).T.rename_axis("model")


def _by_origin(losses: pd.Series) -> Any:
    """Loss of each origin: mean over the series that have a window there."""
    if losses.index.nlevels == 1:
        return losses.to_numpy()
    return losses.groupby(level="origin", sort=True).mean().to_numpy()
