"""Drift: whether the errors of forecasts have grown since the model was fitted.

Once the truth of a forecast is observed, its errors are stored in one table, a row for
each run, series, time and target. Drift compares the latest of them with the error that
the model showed when it was fitted.

Axis legend: T targets, H leads, e errors.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from sciseq.errors import InputError
from sciseq.jobs.error_table import update_errors
from sciseq.jobs.realised_errors import ERROR_COLUMNS, check_columns, realised_errors

__all__ = [
    "ERROR_COLUMNS",
    "drift_of",
    "realised_errors",
    "recent_sums",
    "update_errors",
]

# Values of a target below which a mean error says nothing.
ENOUGH_VALUES = 10
# No target's ratio counts as more than this, or as less than its inverse: one sensor
# that is stuck, or was when the model was fitted, must not outweigh all the others.
WIDEST_RATIO = 100.0


def drift_of(
    errors: pd.DataFrame, expected: Mapping[str, float], *, last_runs: int
) -> dict[str, Any] | None:
    r"""Return the ratio of the latest errors to those shown when the model was fitted.

    .. math::
        \text{ratio} = \exp \frac{1}{T} \sum_{t=1}^{T} \log
        \frac{\text{MAE}_t}{\text{expected}_t}, \qquad
        \text{MAE}_t = \frac{1}{H} \sum_{h=1}^{H} \text{mean}\, |e_{t,h}|

    At each lead h the mean is over the last runs whose truth is known there, so that
    leads count alike although the long ones become known later.

    Parameters
    ----------
    errors : DataFrame
        Realised errors **of the model in use**: leave out runs before it was trained
        (``errors[errors["as_of"] >= trained_as_of]``), or a new model would be judged
        by the errors of the old one.
    expected : mapping of str to float
        Mean absolute error of each target in the backtest of the fitted model, over the
        same leads and series.
    last_runs : int
        Runs that count at each lead.

    Returns
    -------
    dict or None
        ``ratio``, and ``runs``: the most runs that counted at any lead. None when no
        target has ten values, and an expected error above zero.

    Raises
    ------
    InputError
        When ``last_runs`` is below one or columns are missing.

    Notes
    -----
    The geometric mean, and not the largest ratio: a model is retrained as a whole, and
    among many targets the largest ratio is large by chance. No ratio counts as more
    than 100 or as less than 1/100. What a geometric mean hides, one bad target among
    many, the table by target in the report shows.

    Examples
    --------
    >>> days = pd.date_range("2026-03-01", periods=10)
    >>> errors = realised_errors(
    ...     pd.DataFrame({"load": 5.0}, days),
    ...     pd.DataFrame({"load": 3.0}, days),
    ...     as_of=days[0],
    ...     run_id="a1",
    ... )
    >>> drift_of(errors, {"load": 1.0}, last_runs=7)
    {'ratio': 2.0, 'runs': 1}
    """
    if last_runs < 1:
        raise InputError(
            f"last_runs is {last_runs}, must be at least 1", where="last_runs"
        )
    recent = recent_sums(errors, last_runs)
    at_lead = recent.groupby(["target", "lead"], observed=True)
    sums = at_lead[["size", "count"]].sum()
    by_target = (sums["size"] / sums["count"]).groupby("target", observed=True)
    shown = pd.Series(expected, dtype=np.float64)
    ratios = by_target.mean() / shown[np.isfinite(shown) & (shown > 0)]
    values = sums["count"].groupby("target", observed=True).sum()
    ratios = ratios[values.reindex(ratios.index) >= ENOUGH_VALUES].dropna()
    if ratios.empty:
        return None
    size = np.log(ratios.clip(1 / WIDEST_RATIO, WIDEST_RATIO))
    counted = at_lead.size()[ratios.index]
    return {"ratio": float(np.exp(size.mean())), "runs": int(counted.max())}


def recent_sums(errors: pd.DataFrame, last_runs: int | None = None) -> pd.DataFrame:
    """Sum the sizes of errors by target, lead and run.

    Parameters
    ----------
    errors : DataFrame
        Realised errors; NaN is passed over.
    last_runs : int, optional
        Runs that are kept at each lead, the latest ones; by default all.

    Returns
    -------
    DataFrame
        Columns ``target``, ``lead``, ``as_of``, ``run_id``, ``size`` (sum of the
        absolute errors) and ``count``, sorted by them.
    """
    check_columns(errors, "errors")
    keys = ["target", "lead", "as_of", "run_id"]
    known = errors[errors["error"].notna()]
    sizes = known[keys].assign(size=known["error"].abs())
    sums = sizes.groupby(keys, observed=True)["size"].agg(["sum", "count"])
    table = sums.rename(columns={"sum": "size"}).reset_index()
    if last_runs is None:
        return table
    return table.groupby(["target", "lead"], observed=True).tail(last_runs)
