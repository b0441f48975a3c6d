"""``python -m sciseq.demo``: forecast the United States economy, beside simple methods.

Eight quarterly series come with statsmodels: growth of output, consumption,
investment, government spending and income, and the interest, unemployment and
inflation rates. Every method forecasts two years from each quarter. The rows are used
like this, in order of time:

- training, 1959Q2 to 1989Q3: candidates learn from these;
- validation, 1989Q4 to 1999Q3: the candidate with the least error here is taken;
- test, 1999Q4 to 2009Q3: forecast once, after the choice, by the chosen candidates,
  which are fitted anew on training and validation rows together.

Every method has its settings chosen the same way, and is scored on the same windows.
At the end the pretrained sequencer reads simulated spectra of random peptides.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sciseq import LinearForecaster, NaiveForecaster, SMambaForecaster, load_dataset
from sciseq.data.table_files import write_table
from sciseq.model_selection import backtest
from sciseq.peptide_demo import read_peptides
from sciseq.plotting import plot_forecast, save_figure

__all__ = ["candidates", "load_economy", "main"]

HORIZON = 8
SEASON = 4
VALIDATION_ROWS = 40
TEST_ROWS = 40
# Context that all candidates are given, so that all are scored on the same windows.
LONGEST_LOOKBACK = 16
GROWING = {
    "realgdp": "output growth",
    "realcons": "consumption growth",
    "realinv": "investment growth",
    "realgovt": "government growth",
    "realdpi": "income growth",
}
RATES = {
    "tbilrate": "interest rate",
    "unemp": "unemployment rate",
    "infl": "inflation rate",
}


def load_economy() -> Any:
    """Return the table of the demo: quarterly growth and rates, in per cent.

    Returns
    -------
    pandas.DataFrame
        202 quarters from 1959Q2 on, eight columns.

    Examples
    --------
    >>> load_economy().shape
    (202, 8)
    """
    import numpy as np

    levels = load_dataset("macrodata")
    # Levels grow without end; what a forecast can get right is how fast.
    growth: Any = 100.0 * np.log(levels[list(GROWING)])
    table = growth.diff().join(levels[list(RATES)]).iloc[1:]
    table = table.rename(columns=GROWING | RATES)
    table.attrs = {"units": dict.fromkeys(table.columns, "%")}
    return table


def candidates() -> dict[str, list[Any]]:
    """Return the settings to choose from, per method."""
    shared: dict[str, Any] = {"horizon": HORIZON, "refit_on_all": True}
    trained: dict[str, Any] = {
        **shared,
        "d_model": 32,
        "batch_size": 16,
        "learning_rate": 1e-3,
        "learning_rate_schedule": "cosine",
        "max_epochs": 30,
        "patience": None,
        "random_state": 0,
        "device": "cpu",
    }
    lookbacks = (4, 8, LONGEST_LOOKBACK)
    return {
        "S-Mamba": [
            SMambaForecaster(lookback=lookback, use_norm=use_norm, **trained)
            for lookback in lookbacks[:2]
            for use_norm in (True, False)
        ],
        "RLinear": [
            LinearForecaster(kind="rlinear", lookback=lookback, **shared)
            for lookback in lookbacks
        ],
        "DLinear": [
            LinearForecaster(kind="dlinear", lookback=lookback, **shared)
            for lookback in lookbacks
        ],
        "last value": [NaiveForecaster(horizon=HORIZON)],
        "seasonal naive": [
            NaiveForecaster(strategy="seasonal", season_length=SEASON, horizon=HORIZON)
        ],
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the demo, print its table, and write a forecast and its picture.

    Parameters
    ----------
    arguments : sequence of str, optional
        By default those of the process.
    """
    parser = argparse.ArgumentParser(prog="python -m sciseq.demo", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "--out", type=Path, default=Path("demo-output"), help="folder to write to"
    )
    folder: Path = parser.parse_args(arguments).out
    folder.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()

    table = load_economy()
    known = table.iloc[:-TEST_ROWS]
    _describe(table)
    chosen = {
        name: _choose(name, models, known) for name, models in candidates().items()
    }
    # The only use of the test rows.
    results = {name: _test(model, table) for name, model in chosen.items()}
    _print_errors(results)

    first = results["S-Mamba"].forecasts.index[0][0]
    forecast = results["S-Mamba"].forecasts.loc[first]["forecast"]
    forecast.attrs = dict(table.attrs)
    axes = plot_forecast(
        known,
        forecast,
        truth=table.iloc[-TEST_ROWS:],
        max_history=6 * HORIZON,
        title="Eight quarters from the end of the known rows, S-Mamba",
    )
    write_table(forecast, folder / "forecast.csv")
    save_figure(axes, folder / "forecast.png")
    _say(f"\nWritten: {folder / 'forecast.csv'}, {folder / 'forecast.png'}")
    read_peptides(folder)
    _say(f"{time.perf_counter() - started:.0f} s")


def _choose(name: str, models: list[Any], known: Any) -> Any:
    """Return the candidate with the least error on the validation rows."""
    if len(models) == 1:
        return models[0]
    errors = [_mase(_score(model, known, VALIDATION_ROWS)) for model in models]
    best = models[errors.index(min(errors))]
    _say(f"{name}: lookback {best.lookback} is best of {len(models)} candidates")
    return best


def _test(model: Any, table: Any) -> Any:
    return _score(model, table, TEST_ROWS)


def _score(model: Any, table: Any, n_rows: int) -> Any:
    """Forecast from every origin in the last rows, learning from those before."""
    return backtest(
        model,
        table,
        test_size=n_rows,
        context=LONGEST_LOOKBACK,
        season_length=SEASON,
        metrics=["mase", "mae", "mse"],
        scaled=True,
    )


def _mase(result: Any) -> float:
    return float(result.metrics["mase"].iloc[0])


def _describe(table: Any) -> None:
    bounds = [0, -TEST_ROWS - VALIDATION_ROWS, -TEST_ROWS, len(table)]
    _say("Quarterly series of the United States (statsmodels, public domain)")
    for part, begin, end in zip(
        ("training", "validation", "test"), bounds[:-1], bounds[1:], strict=True
    ):
        times = table.index[begin:end].to_period("Q")
        _say(f"  {part:<11}{times[0]} to {times[-1]}  {len(times)} rows")
    _say("\nSettings, chosen on the validation rows:")


def _print_errors(results: dict[str, Any]) -> None:
    ranked = sorted(results, key=lambda name: _mase(results[name]))
    n_windows = results[ranked[0]].n_windows
    _say(
        f"\nErrors on the test rows, {n_windows} forecasts of {HORIZON} quarters each "
        "(standardised MAE and MSE):"
    )
    _say(f"  {'':<16}{'MASE':>8}{'MAE':>8}{'MSE':>8}")
    for name in ranked:
        row = results[name].metrics.iloc[0]
        values = "".join(f"{row[metric]:>8.3f}" for metric in ("mase", "mae", "mse"))
        _say(f"  {name:<16}{values}")
    lead = 1.0 - _mase(results[ranked[0]]) / _mase(results[ranked[1]])
    _say(f"{ranked[0]} has the least MASE, {lead:.1%} below {ranked[1]}.")
    _say("This is one data set and one seed: a small lead says little.")


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
