"""What the tasks do with one part of the work; each is a pure function of its input.

Workers call these: they log nothing and write nothing. What went wrong with a series,
and what was warned of, comes back beside the rows.
"""

import warnings
from typing import Any, NamedTuple

import pandas as pd

from sciseq.errors import SciSeqError, SciSeqWarning
from sciseq.jobs.frames import without

__all__ = ["PartResult", "forecast_part", "generate_part", "sequence_part"]


class PartResult(NamedTuple):
    """What came of a part.

    Parameters
    ----------
    frame : pandas.DataFrame
        Its rows.
    failed : list of dict
        ``series`` and ``error`` of what could not be done.
    warned : list of str
        What a person should know, each once.
    """

    frame: Any
    failed: list[dict[str, str]]
    warned: list[str]


def forecast_part(shared: tuple[Any, float | None], rows: Any) -> PartResult:
    """Forecast the series of a part; when one spoils it, each by itself.

    Parameters
    ----------
    shared : tuple
        Fitted forecaster; coverage of an interval, or None.
    rows : pandas.DataFrame
        History of the series.
    """
    model, coverage = shared
    failed: list[dict[str, str]] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", SciSeqWarning)
        try:
            frames = [_forecast(model, rows, coverage)]
        except (SciSeqError, ArithmeticError, ValueError) as error:
            if rows.index.nlevels == 1:
                raise
            frames, failed = _one_by_one(model, rows, coverage, error)
    warned = sorted(
        {str(one.message) for one in caught if issubclass(one.category, SciSeqWarning)}
    )
    frame = pd.concat(frames) if frames else pd.DataFrame()
    return PartResult(frame, failed, warned)


def _one_by_one(
    model: Any, rows: Any, coverage: float | None, whole: Exception
) -> tuple[list[Any], list[dict[str, str]]]:
    failed, n_good = [], 0
    for label, series in rows.groupby(level=0, sort=False):
        try:
            _forecast(model, series, coverage)
            n_good += 1
        except (SciSeqError, ArithmeticError, ValueError) as error:
            failed.append({"series": str(label), "error": str(error)})
    if not failed:  # it is not the fault of a series
        raise whole
    if not n_good:
        return [], failed
    # Together again, so that a forecast does not depend on whether a part was spoilt.
    kept = without(rows, [one["series"] for one in failed])
    return [_forecast(model, kept, coverage)], failed


def _forecast(model: Any, rows: Any, coverage: float | None) -> Any:
    forecast = model.predict(rows)
    if coverage is None:
        return forecast
    low, high = model.predict_interval(rows, coverage=coverage)
    columns = {}
    for name in forecast.columns:
        columns[name] = forecast[name]
        columns[f"{name}_lower"], columns[f"{name}_upper"] = low[name], high[name]
    return pd.DataFrame(columns)


def sequence_part(model: Any, part: Any) -> PartResult:
    """Read the peptides of a part of the spectra.

    Parameters
    ----------
    model : PeptideSequencer
        Fitted.
    part : list of records
        Spectra, and those that were skipped.
    """
    table = model.predict_table(part)
    reasons = table["reason"].dropna()
    reasons = reasons[reasons != ""]
    failed = [
        {"series": str(table["identifier"][row]), "error": str(reason)}
        for row, reason in reasons.items()
    ]
    return PartResult(table, failed, [])


def generate_part(model: Any, part: tuple[int, int]) -> PartResult:
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


def backtest_part(shared: tuple[Any, dict[str, Any], bool], frame: Any) -> PartResult:
    """Forecast from rolling origins, and compare.

    Parameters
    ----------
    shared : tuple
        Forecaster; settings of the backtest; whether it is to be fitted.
    frame : pandas.DataFrame
        History.
    """
    from sciseq.model_selection import backtest

    model, settings, is_fitted = shared
    found = backtest(
        model,
        frame,
        n_origins=settings["origins"],
        stride=settings["stride"],
        metrics=settings["metrics"],
        fit=is_fitted,
        keep_forecasts=False,
    )
    total = found.metrics.assign(target="all")
    table = pd.concat([total, found.per_target.reset_index()], ignore_index=True)
    return PartResult(table[["target", *settings["metrics"]]], [], [])
