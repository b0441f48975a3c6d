"""What a backtest gives back: tables of errors, and the forecasts.

Axis legend: n windows, H horizon, T targets, P kinds of values (truth, forecast and
quantiles).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from sciseq.data.panel import FloatArray
from sciseq.errors import InputError
from sciseq.metrics.probabilistic import central_levels
from sciseq.model_selection.error_tables import ErrorTables
from sciseq.model_selection.evaluation import WindowForecasts
from sciseq.model_selection.origins import OriginPlan
from sciseq.model_selection.time_axis import IntArray

__all__ = ["Backtest", "Record", "no_window", "write_result"]


@dataclass(frozen=True, repr=False, eq=False)
class Backtest:
    """Errors and forecasts of a backtest.

    Parameters
    ----------
    metrics : pandas.DataFrame
        One row (named after the model), one column per metric: errors over all windows.
        Rows of several backtests make a comparison: ``pandas.concat``.
    per_step, per_target : pandas.DataFrame
        One row per step of the horizon (from 1), or per target.
    per_window : pandas.DataFrame
        One row per window. Its index is the origin, that is the label of the last row
        before the forecast (with the series before it, for a panel).
    forecasts : pandas.DataFrame, or None
        One row per forecast row, with index levels ``origin`` and ``time`` (and
        ``series`` before them, for a panel). Columns are two-level:
        ``forecasts["forecast"]`` and ``forecasts["truth"]`` have one column per target;
        so has ``forecasts[0.9]``, and each other level that was asked for.
    n_unobserved : int
        Values of the truth that are missing, and not counted.
    """

    metrics: pd.DataFrame
    per_step: pd.DataFrame
    per_target: pd.DataFrame
    per_window: pd.DataFrame
    forecasts: pd.DataFrame | None
    n_unobserved: int

    @property
    def n_windows(self) -> int:
        """Number of forecasts made, each of ``horizon`` rows."""
        return len(self.per_window)

    @property
    def horizon(self) -> int:
        """Rows of each forecast."""
        return len(self.per_step)

    def interval(self, coverage: float) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return the ends of the central intervals, in the rows of ``forecasts``.

        Parameters
        ----------
        coverage : float
            One of those that the backtest was asked for.

        Returns
        -------
        lower, upper : pandas.DataFrame
            One column per target.

        Raises
        ------
        InputError
            When the backtest was not asked for it, or kept no forecasts.
        """
        levels = central_levels(coverage)
        table: Any = self.forecasts
        known = [] if table is None else table.columns.get_level_values(0)
        if not set(levels) <= set(known):
            raise InputError(
                f"the forecasts hold no quantiles {levels[0]:g} and {levels[1]:g}",
                where="interval",
                hint=f"Use backtest(..., coverage={coverage}).",
            )
        return table[levels[0]], table[levels[1]]

    def __repr__(self) -> str:
        origins = self.per_window.index.get_level_values("origin")
        return (
            f"Backtest: {self.n_windows} windows of {self.horizon} rows, origins "
            f"{origins.min()} to {origins.max()}\n"
            f"{self.metrics.to_string(float_format='{:.6g}'.format)}"
        )


def no_window(plan: OriginPlan) -> InputError:
    """Make the error for a plan in which no series has a window."""
    return InputError(
        "no window: no series has both the rows to look back on and the "
        f"{plan.horizon} rows to forecast at any of {len(plan.origins)} origins",
        where="X",
        hint="Choose later origins, or a shorter lookback, context or horizon.",
    )


class Record:
    """Where the windows are, and what was forecast.

    Parameters
    ----------
    keep_forecasts : bool
        Whether forecasts are kept, or only where they are.
    levels : sequence of float
        Levels of the quantiles.
    """

    def __init__(self, keep_forecasts: bool, levels: Sequence[float]) -> None:
        self.names: list[Any] = ["truth", "forecast", *levels]
        self.series: list[IntArray] = []
        self.rows: list[IntArray] = []
        self.blocks: list[FloatArray] | None = [] if keep_forecasts else None

    def add(self, batch: WindowForecasts) -> None:
        """Add a batch of windows."""
        self.series.append(batch.series)
        self.rows.append(batch.rows)
        if self.blocks is None:
            return
        parts = [batch.truth[..., None], batch.forecast[..., None]]
        if batch.quantiles is not None:
            parts.append(batch.quantiles)
        # axes: (n, H, T, P) -> (n, H, P, T), P kinds of values
        self.blocks.append(np.swapaxes(np.concatenate(parts, axis=3), 2, 3))


def write_result(
    model: Any, plan: OriginPlan, tables: ErrorTables, record: Record
) -> Backtest:
    """Write what was accumulated and recorded as tables."""
    if not record.series:
        raise no_window(plan)
    series, rows = np.concatenate(record.series), np.concatenate(record.rows)
    # Refitting goes origin by origin, batches go series by series.
    order = np.lexsort((rows, series))
    labels = plan.panel.columns or range(plan.panel.n_columns)
    targets = [labels[position] for position in model._targets_of(plan.panel)]
    forecasts = None
    if record.blocks is not None:
        block = np.concatenate(record.blocks)[order]
        forecasts = pd.DataFrame(
            block.reshape(-1, len(record.names) * len(targets)),  # (n H, P T)
            index=plan.forecast_index(series[order], rows[order]),
            columns=pd.MultiIndex.from_product([record.names, targets]),
        )
    per_window = tables.per_window(plan.window_index(series, rows))
    return Backtest(
        metrics=tables.overall(type(model).__name__),
        per_step=tables.per_step(),
        per_target=tables.per_target(targets),
        per_window=per_window.iloc[order],
        forecasts=forecasts,
        n_unobserved=tables.n_unobserved,
    )
