"""Tables that the pictures of a backtest draw.

Axis legend: n windows, H horizon.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from sciseq.data.panel import FloatArray
from sciseq.errors import CapabilityError
from sciseq.metrics import ForecastErrors
from sciseq.model_selection import Backtest

__all__ = ["forecasts_of", "groups_of", "step_errors"]


def forecasts_of(backtest: Backtest, where: str) -> pd.DataFrame:
    """Forecasts of a backtest, or an error that says how to keep them."""
    if backtest.forecasts is None:
        raise CapabilityError(
            "the backtest kept no forecasts, so there are none to draw",
            where=where,
            hint="Call backtest(..., keep_forecasts=True).",
        )
    return backtest.forecasts


def groups_of(table: pd.DataFrame) -> Iterator[tuple[Any, pd.DataFrame]]:
    """Rows of each series by its label; one group, labelled 0, without series."""
    if "series" not in table.index.names:
        yield 0, table
        return
    for series, rows in table.groupby(level="series", sort=False):
        yield series, rows.droplevel("series")


def step_errors(rows: pd.DataFrame, target: Any, horizon: int) -> dict[str, FloatArray]:
    """Errors of one target at each step by metric, each of shape (H,)."""
    truth, forecast = (
        rows[part][target].to_numpy(np.float64).reshape(-1, horizon, 1)
        for part in ("truth", "forecast")
    )
    return dict(ForecastErrors().update(truth, forecast).result().per_step)
