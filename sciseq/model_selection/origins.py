"""Where a backtest forecasts from, and what may be learnt from before.

Times are positions on the time axis that all series share; rows are counted within a
series. An origin is known by its first target time.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd

from sciseq.data.containers import read_panel
from sciseq.data.panel import Panel
from sciseq.errors import InputError
from sciseq.model_selection.evaluation import as_container
from sciseq.model_selection.time_axis import IntArray, panel_times, training_rows

__all__ = ["OriginPlan"]

_PASSED_ON = ("stride", "gap", "window", "train_size", "context")
# Share of the times that is forecast when the caller does not say.
TEST_SHARE = 0.2


@dataclass(frozen=True)
class OriginPlan:
    """Origins over a panel, and their training rows.

    Parameters
    ----------
    panel : Panel
        All series, as they were read.
    offsets : ndarray of int, shape (n_series,)
        Time of the first row of each series.
    axis : pandas.Index
        Labels of all times.
    horizon : int
        Times to forecast from each origin.
    first : int
        First target time of the first origin.
    stride, gap : int
        Times between origins, and between training rows and targets.
    window : {"expanding", "sliding"}
        Which of the earlier times are learnt from.
    train_size, context : int or None
        Times of a sliding window; rows that a series must have before an origin.
    """

    panel: Panel
    offsets: IntArray
    axis: Any
    horizon: int
    first: int
    stride: int
    gap: int
    window: str
    train_size: int | None
    context: int | None

    @classmethod
    def over(cls, X: Any, horizon: int, arguments: Mapping[str, Any]) -> Self:
        """Read a container, and place the origins that the arguments ask for."""
        panel = read_panel(X)
        if panel.is_windows:
            raise InputError(
                "ready-made windows (a 3-D X) follow no time axis, so they have no "
                "origins",
                where="X",
                hint="Give the table that they were cut from, or use "
                "cross_val_score with RollingOriginSplit.",
            )
        offsets, axis = panel_times(panel)
        return cls(
            panel,
            offsets,
            axis,
            horizon,
            first=_first_target(len(axis), horizon, arguments),
            **{name: arguments[name] for name in _PASSED_ON},
        )

    @property
    def origins(self) -> range:
        """First target times of all origins."""
        return range(self.first, len(self.axis) - self.horizon + 1, self.stride)

    def training_bounds(self, origin: int) -> tuple[IntArray, IntArray]:
        """Rows of each series to learn from at an origin; none where too few."""
        times = training_rows(
            origin - self.gap, self.first - self.gap, self.window, self.train_size
        )
        starts, stops = (
            np.clip(time - self.offsets, 0, self.panel.lengths)
            for time in (times.start, times.stop)
        )
        if self.context is not None:
            needed = min(self.context + self.horizon, times.stop - times.start)
            stops = np.where(stops - starts < needed, starts, stops)
        return starts, stops

    def training_data(self, origin: int) -> Any:
        """Rows to learn from at an origin, in the caller's kind of container."""
        starts, stops = self.training_bounds(origin)
        if not (stops > starts).any():
            raise InputError(
                f"no training rows before {self.axis[origin]!r}",
                where="X",
                hint="Choose later origins, or a smaller gap or context.",
            )
        return as_container(self.panel, starts, stops)

    def first_rows(self, context: int) -> IntArray:
        """First target row of the first window of each series."""
        missing = self.offsets + context - self.first
        skipped = np.maximum(-(-missing // self.stride), 0)
        return np.asarray(self.first + skipped * self.stride - self.offsets)

    def rows_at(self, origin: int, context: int) -> IntArray:
        """First target row of each series at one origin; 0 where it has no window."""
        rows = origin - self.offsets
        fits = (rows >= context) & (rows + self.horizon <= self.panel.lengths)
        return np.where(fits, rows, 0)

    def window_index(self, series: IntArray, rows: IntArray) -> pd.Index:
        """Labels of windows: their origin, after the series in a panel."""
        return self._index(series, [("origin", self.offsets[series] + rows - 1)])

    def forecast_index(self, series: IntArray, rows: IntArray) -> pd.Index:
        """Labels of forecast rows, window by window."""
        H = self.horizon
        times = (self.offsets[series] + rows)[:, None] + np.arange(H)  # (n, H)
        origins = np.repeat(times[:, 0] - 1, H)
        levels = [("origin", origins), ("time", times.ravel())]
        return self._index(np.repeat(series, H), levels)

    def _index(self, series: IntArray, times: list[tuple[str, IntArray]]) -> pd.Index:
        names: list[str] = [name for name, _ in times]
        codes: list[Any] = [positions for _, positions in times]
        levels = [self.axis] * len(times)
        if self.panel.n_series > 1:
            ids = pd.Index(list(self.panel.series_ids), tupleize_cols=False)
            names, codes, levels = ["series", *names], [series, *codes], [ids, *levels]
        if len(codes) == 1:
            single: pd.Index = self.axis[codes[0]].rename(names[0])
            return single
        # Built from codes: a label takes four bytes, however often it appears.
        return pd.MultiIndex(levels=levels, codes=codes, names=names)


def _first_target(n_times: int, horizon: int, arguments: Mapping[str, Any]) -> int:
    """First target time of the first origin."""
    test_size, n_origins = arguments["test_size"], arguments["n_origins"]
    if test_size is not None and n_origins is not None:
        raise InputError(
            f"test_size={test_size} and n_origins={n_origins} both place the origins",
            where="backtest",
            hint="Give one of them.",
        )
    if n_origins is not None:
        test_size = horizon + (n_origins - 1) * arguments["stride"]
    elif test_size is None:
        test_size = max(horizon, int(TEST_SHARE * n_times))
    if test_size < horizon:
        raise InputError(
            f"test_size={test_size} holds no horizon of {horizon} rows",
            where="test_size",
            hint=f"Give at least {horizon}, or a model with a shorter horizon.",
        )
    before = arguments["gap"] + (arguments["train_size"] or 1)
    if n_times < before + test_size:
        raise InputError(
            f"{n_times} times are too few: {test_size} are to be forecast, and at "
            f"least {before} come before them",
            where="X",
            hint="Forecast fewer times, or lower gap or train_size.",
        )
    return int(n_times - test_size)
