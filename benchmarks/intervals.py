"""Interval benchmark: coverage at every step of the horizon, and the interval score.

Each cell is one (data set, horizon, model, calibration): fit on the rows before the
test rows, then forecast from every test origin in one pass. How quantiles are
calibrated was chosen on the validation rows of ETTh1 and ETTh2 and on another series
(``--choose``); the test rows are run once per recorded cell. Finished cells are cached
under ``benchmarks/cache`` by what determines them.

    python benchmarks/intervals.py                          # all cells, then the table
    python benchmarks/intervals.py --datasets ETTh1         # some of them
    python benchmarks/intervals.py --choose                 # the choice, anew
    python benchmarks/intervals.py --table-only             # from what is cached

Results are written to ``benchmarks/results/intervals.{json,md}``. Needs the data sets
in ``$SCISEQ_DATA``.
"""

import argparse
import hashlib
import json
import os
import platform
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import sciseq
from sciseq.model_selection import Backtest, backtest, error_history

HERE = Path(__file__).parent
CACHE = HERE / "cache" / "intervals"
RESULTS = HERE / "results"
LOOKBACK = 96
COVERAGES = (0.8, 0.9)
# Points by which coverage may miss at any step.
ALLOWED = 0.02
CALIBRATIONS = ("fixed", "rolling", "adaptive")
# What was chosen.
N_WINDOWS = 2000
SPEED = error_history.SPEED
MODELS = ("RLinear (exact)", "seasonal naive")
# Rows of a season; rows used, and how many of them, at the end, are forecast.
SEGMENTS = {
    "ETTh1": (24, 14400, 2880),
    "ETTh2": (24, 14400, 2880),
    "exchange_rate": (7, 7588, 1517),
}
CHOICE_SEGMENTS = {
    "ETTh1": (24, 11520, 2880),
    "ETTh2": (24, 11520, 2880),
    "monash_saugeenday": (7, 23741, 3741),
}
CHOICE_GRID = [
    (n_windows, speed)
    for n_windows in (500, 2000)
    for speed in (0.0, 0.001, 0.002, 0.005)
]

Cell = dict[str, Any]


def model_of(cell: Cell) -> Any:
    """Make the model of a cell."""
    if cell["model"] == "seasonal naive":
        return sciseq.NaiveForecaster(
            strategy="seasonal",
            season_length=cell["season"],
            horizon=cell["horizon"],
            lookback=LOOKBACK,
        )
    return sciseq.LinearForecaster(lookback=LOOKBACK, horizon=cell["horizon"])


def test_cells(datasets: list[str], horizons: list[int]) -> Iterator[Cell]:
    """Cells of the table."""
    for dataset in datasets:
        season, rows, test_rows = SEGMENTS[dataset]
        for horizon in horizons:
            for model in MODELS:
                for calibration in CALIBRATIONS:
                    yield {
                        "part": "test",
                        "dataset": dataset,
                        "season": season,
                        "rows": rows,
                        "test_rows": test_rows,
                        "horizon": horizon,
                        "model": model,
                        "calibration": calibration,
                        "n_windows": N_WINDOWS,
                        "speed": SPEED,
                    }


def choice_cells() -> Iterator[Cell]:
    """Cells on which the calibration was chosen: validation rows, another series."""
    for dataset, (season, rows, test_rows) in CHOICE_SEGMENTS.items():
        for n_windows, speed in CHOICE_GRID:
            yield {
                "part": "choice",
                "dataset": dataset,
                "season": season,
                "rows": rows,
                "test_rows": test_rows,
                "horizon": 96,
                "model": "RLinear (exact)",
                "calibration": "adaptive" if speed else "rolling",
                "n_windows": n_windows,
                "speed": speed,
            }


def cache_path(cell: Cell) -> Path:
    """File of a cell; its name depends on everything that determines the result."""
    params = {key: repr(value) for key, value in model_of(cell).get_params().items()}
    text = json.dumps([cell, sorted(params.items())])
    return CACHE / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"


def measure(cell: Cell) -> Cell:
    """Run one cell."""
    frame = sciseq.load_dataset(cell["dataset"]).iloc[: cell["rows"]]
    error_history.SPEED = cell["speed"] or SPEED
    start = time.perf_counter()
    result = backtest(
        model_of(cell),
        frame,
        test_size=cell["test_rows"],
        metrics=["mse"],
        coverage=COVERAGES,
        calibration=cell["calibration"],
        calibration_windows=cell["n_windows"],
        scaled=True,
        keep_forecasts=False,
    )
    return {
        **cell,
        **summary(result),
        "seconds": round(time.perf_counter() - start, 1),
        "date": time.strftime("%Y-%m-%d"),
        "versions": {
            "sciseq": sciseq.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
    }


def summary(result: Backtest) -> dict[str, Any]:
    """Coverage and score, overall and where coverage misses most."""
    facts: dict[str, Any] = {"test_windows": result.n_windows}
    for share in COVERAGES:
        name, score = f"coverage_{share:g}", f"interval_score_{share:g}"
        facts[name] = {
            "overall": float(result.metrics[name].iloc[0]),
            "steps": [round(float(one), 4) for one in result.per_step[name]],
            "targets": [round(float(one), 4) for one in result.per_target[name]],
            "score": float(result.metrics[score].iloc[0]),
        }
    return facts


def run(wanted: list[Cell], *, again: bool) -> None:
    """Measure what is not cached."""
    CACHE.mkdir(parents=True, exist_ok=True)
    for cell in wanted:
        path = cache_path(cell)
        if path.exists() and not again:
            continue
        result = measure(cell)
        path.write_text(json.dumps(result, indent=1))
        write(f"{row(result)}\n")


def row(one: Cell) -> str:
    """One row of the table."""
    parts = [f"{one['dataset']}, {one['horizon']}", one["model"], one["calibration"]]
    if one["part"] == "choice":
        parts = [parts[0], f"{one['n_windows']}", f"{one['speed']:g}"]
    for share in COVERAGES:
        facts = one[f"coverage_{share:g}"]
        steps, targets = facts["steps"], facts["targets"]
        mark = "" if misses(one, share) <= ALLOWED else " ✗"
        parts += [
            f"{facts['overall']:.3f}",
            f"{min(steps):.3f} to {max(steps):.3f}{mark}",
            f"{min(targets):.3f} to {max(targets):.3f}",
            f"{facts['score']:.3f}",
        ]
    return f"| {' | '.join(parts)} |"


def misses(one: Cell, share: float) -> float:
    """Largest distance from the nominal coverage at any step."""
    steps = np.array(one[f"coverage_{share:g}"]["steps"])
    # A count that lies exactly on the bound keeps it.
    return round(float(np.abs(steps - share).max()), 4)


def table(results: list[Cell], first: str) -> str:
    """Markdown table."""
    columns = [
        f"{share:.0%} {what}"
        for share in COVERAGES
        for what in ("held", "by step", "by target", "score")
    ]
    heads = [*first.split(", "), *columns]
    lines = [
        f"| {' | '.join(heads)} |",
        f"| {' | '.join(['---'] * 3 + ['---:'] * len(columns))} |",
    ]
    return "\n".join([*lines, *map(row, results)])


def verdicts(results: list[Cell]) -> list[str]:
    """One line per data set, horizon and coverage, for adaptive intervals."""
    at = {
        (one["dataset"], one["horizon"], one["model"], one["calibration"]): one
        for one in results
    }
    lines = []
    for (dataset, horizon, model, calibration), one in at.items():
        if (model, calibration) != (MODELS[0], "adaptive"):
            continue
        for share in COVERAGES:
            name = f"coverage_{share:g}"
            score = one[name]["score"]
            naive = {
                kind: at[dataset, horizon, MODELS[1], kind][name]["score"]
                for kind in CALIBRATIONS
                if (dataset, horizon, MODELS[1], kind) in at
            }
            worst = misses(one, share)
            lines.append(
                f"{dataset} {horizon}, {share:.0%}: coverage misses by at most "
                f"{100 * worst:.1f} points at any step "
                f"({'kept' if worst <= ALLOWED else 'MISSED'}); interval score "
                f"{score:.3f}, seasonal naive "
                + ", ".join(f"{kind} {value:.3f}" for kind, value in naive.items())
                + f" (below that of the same calibration: {score <= naive[calibration]}"
                f", below all: {score <= min(naive.values())})"
            )
    return lines


def report(test: list[Cell], choice: list[Cell], command: str) -> None:
    """Write the results files and print the page."""
    RESULTS.mkdir(exist_ok=True)
    facts = {
        "command": command,
        "processor_cores": os.cpu_count(),
        "machine": platform.machine(),
        "verdicts": verdicts(test),
        "cells": test,
        "choice": choice,
    }
    (RESULTS / "intervals.json").write_text(json.dumps(facts, indent=1) + "\n")
    dates = sorted({one["date"] for one in [*test, *choice]})
    page = [
        "# Intervals: coverage at every step, interval score",
        "",
        f"Command: `{command}`. Lookback {LOOKBACK}; values standardised by the rows "
        "before the test rows; every test window counts; nothing here is random. "
        f"Measured {dates[0]} to {dates[-1]} with {[*test, *choice][0]['versions']}. "
        "“by step” and “by target” are the lowest and highest coverage of any step or "
        f"target; ✗: some step misses by more than {100 * ALLOWED:g} points.",
        "",
        table(test, "data and horizon, model, calibration"),
        "",
        *[f"- {line}" for line in verdicts(test)],
        "",
        "## The choice",
        "",
        "Windows looked at and speed of the levels (0: rolling), on the validation "
        "rows of ETTh1 and ETTh2 and on the last rows of another series. "
        "Taken: the lowest interval scores among those that keep coverage within "
        f"{100 * ALLOWED:g} points at every step of all three, {N_WINDOWS} windows and "
        f"speed {SPEED:g}.",
        "",
        table(choice, "data and horizon, windows, speed"),
        "",
    ]
    (RESULTS / "intervals.md").write_text("\n".join(page), encoding="utf-8")
    write("\n".join(page) + f"\nwritten to {RESULTS / 'intervals.md'}\n")


def write(text: str) -> None:
    """Show text at once."""
    sys.stdout.write(text)
    sys.stdout.flush()


def finished(cells: list[Cell]) -> list[Cell]:
    """Read the cells that are there."""
    paths = map(cache_path, cells)
    return [json.loads(path.read_text()) for path in paths if path.exists()]


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--datasets", nargs="+", default=list(SEGMENTS))
    parser.add_argument("--horizons", nargs="+", type=int, default=[24, 96])
    parser.add_argument("--choose", action="store_true", help="run the choice as well")
    parser.add_argument("--again", action="store_true", help="measure anew")
    parser.add_argument("--table-only", action="store_true", help="what is cached")
    asked = parser.parse_args()
    test = list(test_cells(asked.datasets, asked.horizons))
    choice = list(choice_cells())
    if not asked.table_only:
        run([*(choice if asked.choose else []), *test], again=asked.again)
    command = " ".join(["python", "benchmarks/intervals.py", *sys.argv[1:]])
    report(finished(test), finished(choice), command)
    return 0 if len(finished(test)) == len(test) else 1


if __name__ == "__main__":
    sys.exit(main())
