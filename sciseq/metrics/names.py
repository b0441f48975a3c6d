"""The names of all forecast metrics, and what callers need to know about each."""

from dataclasses import dataclass
from typing import Any

__all__ = ["METRICS", "Metric"]


@dataclass(frozen=True)
class Metric:
    """What callers need to know about a forecast metric.

    Parameters
    ----------
    name : str
        Key in results.
    title : str
        What it is, in one line.
    direction : str
        ``"lower"`` or ``"greater"`` is better; ``"zero"``: nearest to zero is best;
        ``"nominal"``: nearest to what was asked for is best.
    needs_scale : bool
        Whether a seasonal scale must be given.
    judges : str
        What is compared with the truth: the ``"forecast"``, its ``"quantiles"``, or an
        ``"interval"``.
    """

    name: str
    title: str
    direction: str
    needs_scale: bool = False
    judges: str = "forecast"


_SCALED = {"needs_scale": True}
_QUANTILES = {"judges": "quantiles"}
_INTERVAL = {"judges": "interval"}
_TABLE: tuple[tuple[str, str, str, dict[str, Any]], ...] = (
    ("mse", "mean squared error", "lower", {}),
    ("mae", "mean absolute error", "lower", {}),
    ("rmse", "root mean squared error", "lower", {}),
    ("smape", "symmetric absolute percentage error, 0 to 200", "lower", {}),
    ("bias", "mean of forecast minus truth", "zero", {}),
    ("r2", "coefficient of determination, mean over targets", "greater", {}),
    ("mase", "mean absolute scaled error", "lower", _SCALED),
    ("rmsse", "root mean squared scaled error", "lower", _SCALED),
    ("pinball", "quantile loss, mean over levels", "lower", _QUANTILES),
    ("crps", "continuous ranked probability score", "lower", _QUANTILES),
    ("interval_score", "width plus penalty for misses", "lower", _INTERVAL),
    ("coverage", "share of truths inside the interval", "nominal", _INTERVAL),
)

METRICS: dict[str, Metric] = {
    name: Metric(name, title, direction, **more)
    for name, title, direction, more in _TABLE
}
"""All metrics by name."""
