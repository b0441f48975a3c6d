"""The dullest forecasts: the last value, and the value one season ago.

Axis legend: n windows, L lookback, H horizon, C columns, T targets.
"""

from typing import Any, ClassVar

import numpy as np

from sciseq.data.calendar import season_for_step
from sciseq.data.missing import forward_fill
from sciseq.data.panel import FloatArray
from sciseq.data.windows import WindowInputs, WindowSet
from sciseq.errors import InputError
from sciseq.forecasting.base import FORECASTER_RULES, BaseForecaster
from sciseq.parameters import AnyOf, Integer, Nothing, Option
from sciseq.parameters import Rule as ParameterRule

__all__ = ["NaiveForecaster"]


class NaiveForecaster(BaseForecaster):
    r"""Repeat the last value, or the last season.

    .. math:: \hat y_{t+h} = x_t \quad\text{or}\quad
              \hat y_{t+h} = x_{t+h-m\lceil h/m\rceil}

    with season length :math:`m`. Nothing is learnt; these are the baselines that any
    model has to beat.

    Parameters
    ----------
    strategy : {"last", "seasonal"}, default="last"
        What to repeat.
    horizon : int, default=24
        Rows to forecast.
    season_length : int, optional
        Rows of one season, for ``"seasonal"``; by default the usual one for the step
        of the index (24 for hours, 7 for days, 12 for months, ...).
    lookback : int, optional
        Rows of context; by default as few as the strategy needs. More rows change
        nothing unless values are missing.
    targets : label or list of labels, optional
        Columns to forecast; all by default.
    missing : {"error", "mask", "interpolate"}, default="error"
        What to do with NaN. ``"mask"`` repeats the last value that is known.

    Attributes
    ----------
    season_length_ : int
        Season used; 1 for ``"last"``.
    fallback_ : ndarray of shape (n_columns,)
        Training means, used where a window holds no value at all.

    References
    ----------
    Hyndman and Athanasopoulos, Forecasting: principles and practice, §5.2.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.arange(6.0).reshape(-1, 1)
    >>> model = NaiveForecaster(strategy="seasonal", season_length=2, horizon=3)
    >>> model.fit(X).predict().ravel().tolist()
    [4.0, 5.0, 4.0]
    """

    _parameter_rules: ClassVar[dict[str, ParameterRule]] = {
        "strategy": Option("last", "seasonal"),
        "season_length": AnyOf(Nothing(), Integer(1)),
        "lookback": AnyOf(Nothing(), Integer(1)),
        **{name: FORECASTER_RULES[name] for name in ("horizon", "targets", "missing")},
    }

    def __init__(
        self,
        *,
        strategy: str = "last",
        horizon: int = 24,
        season_length: int | None = None,
        lookback: int | None = None,
        targets: Any = None,
        missing: str = "error",
    ) -> None:
        self.strategy = strategy
        self.horizon = horizon
        self.season_length = season_length
        self.lookback = lookback
        self.targets = targets
        self.missing = missing

    def _parameter_relations(self) -> list[str]:
        if self.lookback is None or self.season_length is None:
            return []
        if self.strategy == "seasonal" and self.lookback < self.season_length:
            return [
                f"lookback={self.lookback} is shorter than "
                f"season_length={self.season_length}"
            ]
        return []

    def _prepare(self) -> None:
        if self.strategy == "last":
            self.season_length_ = 1
            return
        length = self.season_length or season_for_step(self.step_)
        if length is None:
            raise InputError(
                "the season cannot be told from the index"
                + ("" if self.step_ is None else f" (step {self.step_})"),
                where="season_length",
                hint="Give season_length=, the number of rows of one season.",
            )
        self.season_length_ = int(length)

    @property
    def _context_length(self) -> int:
        return max(self.lookback or 1, self.season_length_)

    def _fit(self, training: WindowSet, validation: WindowSet | None) -> None:
        self.fallback_ = np.nan_to_num(np.nanmean(training.values, axis=0))

    def _calibration_windows(
        self, training: WindowSet, validation: WindowSet | None
    ) -> WindowSet | None:
        # Nothing was learnt from the training rows, so their errors are honest.
        return training

    def _forecast(self, inputs: WindowInputs) -> FloatArray:
        m, H = self.season_length_, self.horizon
        values = inputs.values
        if np.isnan(values).any():
            values = forward_fill(values)
            values = np.where(np.isnan(values), self.fallback_, values)
        season = values[:, -m:, self.target_positions_]  # (n, m, T)
        return season[:, np.arange(H) % m]
