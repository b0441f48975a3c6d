"""Which metrics a call asks for."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy.typing as npt

from sciseq.errors import InputError, nearest_name
from sciseq.metrics import METRICS, QuantileErrors

__all__ = ["check_metric", "metric_names", "quantile_errors"]


def quantile_errors(
    quantiles: npt.ArrayLike | None, coverage: float | Sequence[float] | None
) -> Callable[[], QuantileErrors] | None:
    """Return a maker of accumulators for what is asked about quantiles.

    Parameters
    ----------
    quantiles, coverage
        As in :func:`~sciseq.model_selection.backtest`.

    Returns
    -------
    callable or None
        None when nothing is asked.

    Raises
    ------
    InputError
        For levels outside 0 to 1.
    """
    if quantiles is None and coverage is None:
        return None
    make = partial(
        QuantileErrors,
        () if quantiles is None else quantiles,
        coverage=() if coverage is None else coverage,
    )
    make()  # refuses levels that are none
    return make


def metric_names(
    metrics: str | Sequence[str], make_errors: Callable[[], QuantileErrors] | None
) -> list[str]:
    """Return the metrics of the forecasts themselves, and check all names.

    Those of quantiles are there when quantiles are asked for, named or not.

    Raises
    ------
    InputError
        For an unknown name, or one that judges what is not asked for.
    """
    names = [metrics] if isinstance(metrics, str) else list(dict.fromkeys(metrics))
    if not names and make_errors is None:
        raise InputError(
            "no metric was given",
            where="metrics",
            hint=f"Metrics are {', '.join(METRICS)}.",
        )
    for name in names:
        check_metric(name)
        _check_is_judged(name, make_errors)
    return [name for name in names if METRICS[name].judges == "forecast"]


def _check_is_judged(
    name: str, make_errors: Callable[[], QuantileErrors] | None
) -> None:
    judges = METRICS[name].judges
    given = () if make_errors is None else make_errors().metrics
    if judges == "forecast" or any(one.startswith(name) for one in given):
        return
    argument = "quantiles=[0.1, 0.5, 0.9]" if judges == "quantiles" else "coverage=0.9"
    raise InputError(
        f"metric {name!r} judges {judges}, and none are asked for",
        where="metrics",
        hint=f"Give {argument}; then it is there without being named.",
    )


def check_metric(metric: Any) -> None:
    """Refuse names that are no metric.

    Raises
    ------
    InputError
        With the nearest name.
    """
    if not isinstance(metric, str) or metric not in METRICS:
        raise InputError(
            f"no metric is called {metric!r}. {nearest_name(metric, METRICS)}".rstrip(),
            where="metric",
            hint=f"Metrics are {', '.join(METRICS)}.",
        )
