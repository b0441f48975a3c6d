"""Choosing and judging: splits in time and by families, scorers, backtests."""

from sciseq.model_selection.backtest_result import Backtest
from sciseq.model_selection.backtesting import backtest
from sciseq.model_selection.comparison import Comparison, compare
from sciseq.model_selection.optuna_search import OptunaSearch
from sciseq.model_selection.paired_test import PairedTest, diebold_mariano
from sciseq.model_selection.scoring import forecast_scorer
from sciseq.model_selection.sequence_groups import sequence_groups
from sciseq.model_selection.splitting import RollingOriginSplit

__all__ = [
    "Backtest",
    "Comparison",
    "OptunaSearch",
    "PairedTest",
    "RollingOriginSplit",
    "backtest",
    "compare",
    "diebold_mariano",
    "forecast_scorer",
    "sequence_groups",
]
