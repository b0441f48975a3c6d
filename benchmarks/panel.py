"""Panel benchmark: 400 hourly series of the M4 competition in one global fit.

Every model forecasts the official 48 test rows of each series once. MASE is the mean
over series of the mean absolute error divided by the in-sample error of the seasonal
naive forecast (season 24). The global model is compared with seasonal naive, with the
same model fitted to each series alone; its settings were chosen on the 48 rows before
the test rows. Each row is measured in a process of its own, for its memory.

The model scales each series by its own deviation, while MASE divides errors by the
seasonal differences of the series. A column of weights, the square of their ratio,
makes least squares count errors as MASE does (with squares in the place of sizes).

    python benchmarks/panel.py            # the table, written to benchmarks/results
    python benchmarks/panel.py --choose   # validation errors of other settings

Needs ``$SCISEQ_DATA``.
"""

import argparse
import json
import multiprocessing
import platform
import resource
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import sciseq

RESULTS = Path(__file__).parent / "results"
N_SERIES, H, SEASON = 400, 48, 24

# Chosen by `--choose`, on the 48 rows before the test rows.
CHOSEN: dict[str, Any] = {"lookback": 336, "centre": "mean", "scaler": "series"}


# A first run used the settings of the row "not weighted" before any were chosen by
# weight: the naive rows and the two fits without weights were seen once more.
TEST_EVALUATIONS = {
    "last value": 2,
    "seasonal naive": 2,
    "AR-Net, one global fit": 1,
    "AR-Net, one global fit, not weighted": 2,
    "AR-Net, fitted per series": 2,
}


def model(**changes: Any) -> Any:
    """Build the model that is fitted globally and per series."""
    settings = {"horizon": H, "alpha": "auto", "refit_on_all": True, **CHOSEN}
    settings["sample_weight"] = "weight"
    return sciseq.ARNetForecaster(**{**settings, **changes})


def load(n_held_out: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows to learn from, and the 48 rows after them, of each series."""
    panel = sciseq.load_dataset("m4_hourly")
    names = panel.index.get_level_values(0).unique()[:N_SERIES]
    groups = panel.loc[names].groupby(level=0, sort=False)
    position = groups.cumcount(ascending=False)
    part = panel.loc[names]
    known = part[position >= n_held_out]
    truth = part[(position >= n_held_out - H) & (position < n_held_out)]
    return known, truth


def mase(known: pd.DataFrame, truth: pd.DataFrame, forecast: pd.DataFrame) -> float:
    """Mean over series of scaled errors."""
    scores = []
    for name, history in known.groupby(level=0, sort=False):
        values = history["value"].to_numpy()
        scale = np.abs(values[SEASON:] - values[:-SEASON]).mean()
        error = truth.loc[name]["value"].to_numpy() - forecast.loc[name]["value"]
        scores.append(np.abs(error).mean() / scale)
    return float(np.mean(scores))


def weighted(known: pd.DataFrame) -> pd.DataFrame:
    """Add the column of weights: one number per series."""
    groups = known.groupby(level=0, sort=False)["value"]
    deviation = groups.transform("std", ddof=0)
    season = groups.transform(lambda one: one.diff(SEASON).abs().mean())
    weight = (deviation / season) ** 2
    return known.assign(weight=weight / weight.mean())


def fit_global(known: pd.DataFrame, forecaster: Any) -> pd.DataFrame:
    """Fit one model to all series and forecast them together."""
    return forecaster.fit(known).predict()


def fit_each(known: pd.DataFrame, forecaster: Any) -> pd.DataFrame:
    """Fit the same model to each series alone."""
    parts = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sciseq.errors.SciSeqWarning)
        for name, rows in known.groupby(level=0, sort=False):
            parts[name] = forecaster.fit(rows.droplevel(0)).predict()
    return pd.concat(parts, names=known.index.names)


def rows() -> dict[str, Callable[[pd.DataFrame], pd.DataFrame]]:
    """Every row of the table."""
    naive = sciseq.NaiveForecaster(horizon=H)
    seasonal = sciseq.NaiveForecaster(
        strategy="seasonal", season_length=SEASON, horizon=H
    )
    return {
        "last value": lambda known: fit_global(known, naive),
        "seasonal naive": lambda known: fit_global(known, seasonal),
        "AR-Net, one global fit": lambda known: fit_global(weighted(known), model()),
        "AR-Net, one global fit, not weighted": lambda known: fit_global(
            known, model(sample_weight=None)
        ),
        "AR-Net, fitted per series": lambda known: fit_each(weighted(known), model()),
    }


def measure(name: str) -> dict[str, Any]:
    """Run one row, with seconds and peak memory of this process."""
    known, truth = load(H)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    start = time.perf_counter()
    forecast = rows()[name](known)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "model": name,
        "mase": mase(known, truth, forecast),
        "seconds": round(seconds, 2),
        "extra_mib": round(peak - before, 1),
        "test_evaluations": TEST_EVALUATIONS[name],
    }


def choose() -> None:
    """Print validation errors; reads no test row."""
    known, truth = load(2 * H)
    for lookback in (24, 48, 168, 336, 504):
        for centre in ("none", "mean", "last"):
            one = model(lookback=lookback, centre=centre)
            forecast = fit_global(weighted(known), one)
            write(f"lookback {lookback}, centre {centre}: "
                  f"{mase(known, truth, forecast):.4f}\n")  # fmt: skip


def report(results: list[dict[str, Any]]) -> str:
    """Write the results files and return the page."""
    found = {one["model"]: one["mase"] for one in results}
    ours = found["AR-Net, one global fit"]
    lines = [
        "# One global fit for a panel",
        "",
        f"Command: `python benchmarks/panel.py`. {N_SERIES} hourly series of M4, "
        f"horizon {H}, official test rows; test runs {TEST_EVALUATIONS}. Settings "
        f"chosen on the rows before: {CHOSEN}. {time.strftime('%Y-%m-%d')}, Python "
        f"{platform.python_version()}, shared machine: the seconds are no speed "
        "figures.",
        "",
        "| model | MASE | fit and predict, s | extra memory, MiB |",
        "| --- | ---: | ---: | ---: |",
        *(
            f"| {one['model']} | {one['mase']:.4f} | {one['seconds']} | "
            f"{one['extra_mib']} |"
            for one in results
        ),
        "",
        *(
            f"- Below {name}: {'kept' if ours < found[name] else 'MISSED'}"
            for name in ("seasonal naive", "AR-Net, fitted per series")
        ),
        "",
    ]
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "panel.json").write_text(json.dumps(results, indent=1) + "\n")
    (RESULTS / "panel.md").write_text("\n".join(lines))
    return "\n".join(lines)


def write(text: str) -> None:
    """Show text at once."""
    sys.stdout.write(text)
    sys.stdout.flush()


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--choose", action="store_true")
    if parser.parse_args().choose:
        choose()
        return 0
    context = multiprocessing.get_context("spawn")
    with context.Pool(1, maxtasksperchild=1) as pool:
        results = [pool.apply(measure, (name,)) for name in rows()]
    write(report(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
