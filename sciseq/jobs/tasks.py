"""What the tasks do with one part of the work; each is a pure function of its input.

Workers call these: they log nothing and write nothing. What went wrong with a series,
and what was warned of, comes back beside the rows.
"""

from typing import Any, NamedTuple

import pandas as pd

from sciseq.jobs.panel_parts import PartForecast, forecast_part

__all__ = ["PartResult", "backtest_rows", "forecast_rows", "generate_rows"]


class PartResult(NamedTuple):
    """What came of a part.

    Parameters
    ----------
    frame : pandas.DataFrame
        Its rows.
    failures : list of dict
        ``series`` and ``error`` of what could not be done.
    notes : list of str
        What a person should know, each once.
    """

    frame: Any
    failures: list[dict[str, Any]]
    notes: list[str]


def forecast_rows(shared: tuple[Any, float | None], part: Any) -> PartForecast:
    """Forecast the series of a part.

    Parameters
    ----------
    shared : tuple
        Fitted forecaster; coverage of an interval, or None.
    part : pandas.DataFrame or FieldPart
        History of the series.
    """
    model, coverage = shared
    return forecast_part(model, part, coverage=coverage)


def generate_rows(model: Any, part: tuple[int, int]) -> PartResult:
    """Draw sequences.

    Parameters
    ----------
    model : generator
        Fitted.
    part : tuple of int
        Number of sequences, and seed.
    """
    number, seed = part
    drawn = model.sample(number, random_state=seed)
    texts = ["".join(map(str, one)) for one in drawn]
    return PartResult(pd.DataFrame({"sequence": texts}), [], [])


def backtest_rows(shared: tuple[Any, dict[str, Any], bool], frame: Any) -> PartResult:
    """Forecast from rolling origins, and compare; broken series are left out.

    Parameters
    ----------
    shared : tuple
        Forecaster; settings of the backtest; whether it is to be fitted.
    frame : pandas.DataFrame
        History.
    """
    from sciseq.jobs.models import without_broken_series
    from sciseq.model_selection import backtest

    model, settings, is_fitted = shared
    rows, failed = without_broken_series(frame, model)
    found = backtest(
        model,
        rows,
        n_origins=settings["origins"],
        stride=settings["stride"],
        metrics=settings["metrics"],
        fit=is_fitted,
        keep_forecasts=False,
    )
    total = found.metrics.assign(target="all")
    table = pd.concat([total, found.per_target.reset_index()], ignore_index=True)
    return PartResult(table[["target", *settings["metrics"]]], failed, [])
