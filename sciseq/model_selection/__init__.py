"""Choosing and judging forecasters: splits in time, scorers, backtests."""

from sciseq.model_selection.backtesting import Backtest, backtest
from sciseq.model_selection.scoring import forecast_scorer
from sciseq.model_selection.splitting import RollingOriginSplit

__all__ = ["Backtest", "RollingOriginSplit", "backtest", "forecast_scorer"]
