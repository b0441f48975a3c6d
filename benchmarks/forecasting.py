"""Long-horizon forecasting benchmark: test errors under the published protocol.

Each cell is one (data set, horizon, model, seed): fit on the train rows, choose on the
validation rows, and evaluate the test windows once. Finished cells are cached under
``benchmarks/cache`` by what determines them, and an interrupted training resumes from
its checkpoints, so the command can be stopped and started again. The test split is run
once per recorded cell; ``--again`` measures a cell anew, and the record counts it.

    python benchmarks/forecasting.py                        # all cells, then the table
    python benchmarks/forecasting.py --datasets ETTh1       # some of them
    python benchmarks/forecasting.py --table-only           # from what is cached

Results are written to ``benchmarks/results/forecasting.{json,md}``. Needs the data
sets in ``$SCISEQ_DATA``.
"""

import argparse
import hashlib
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import sciseq
from sciseq.data.protocol import long_horizon_split
from sciseq.forecasting.base import BaseForecaster
from sciseq.metrics import ForecastErrors

HERE = Path(__file__).parent
CACHE = HERE / "cache" / "forecasting"
RESULTS = HERE / "results"
LOOKBACK = 96
SEASONS = {"ETTh1": 24, "ETTh2": 24, "ETTm1": 96, "exchange_rate": 7}
SEEDED = ("S-Mamba",)

# Published (MSE, MAE) of S-Mamba at lookback 96, and the bounds that our mean over
# seeds has to keep where there are any.
PUBLISHED = {("ETTh1", 96): (0.386, 0.405), ("ETTm1", 96): (0.333, 0.368),
             ("exchange_rate", 96): (0.086, 0.207)}  # fmt: skip
BOUNDS = {("ETTh1", 96): (0.392, 0.411), ("ETTm1", 96): (0.343, None)}

Cell = dict[str, Any]
IDENTITY = ("dataset", "horizon", "model", "seed")


def models(dataset: str, horizon: int) -> dict[str, Callable[[int], BaseForecaster]]:
    """Every model of the table, by name, from a seed."""
    shared = {"lookback": LOOKBACK, "horizon": horizon}
    return {
        "last value": lambda seed: sciseq.NaiveForecaster(**shared),
        "seasonal naive": lambda seed: sciseq.NaiveForecaster(
            strategy="seasonal", season_length=SEASONS[dataset], **shared
        ),
        "RLinear (exact)": lambda seed: sciseq.LinearForecaster(**shared),
        "DLinear (exact)": lambda seed: sciseq.LinearForecaster(
            kind="dlinear", **shared
        ),
        "S-Mamba": lambda seed: sciseq.SMambaForecaster.published(
            dataset, horizon=horizon, random_state=seed, device="cpu", verbose=1
        ),
    }


def cells(datasets: list[str], horizons: list[int], seeds: list[int]) -> Iterator[Cell]:
    """All cells, in the order of the table."""
    for dataset in datasets:
        for horizon in horizons:
            for model in models(dataset, horizon):
                for seed in seeds if model in SEEDED else [0]:
                    yield {
                        "dataset": dataset,
                        "horizon": horizon,
                        "model": model,
                        "seed": seed,
                    }


def cache_path(cell: Cell) -> Path:
    """File of a cell; its name depends on everything that determines the result."""
    forecaster = models(cell["dataset"], cell["horizon"])[cell["model"]](cell["seed"])
    params = {key: repr(value) for key, value in forecaster.get_params().items()}
    text = json.dumps([cell, sorted(params.items())])
    return CACHE / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"


def measure(cell: Cell, path: Path) -> Cell:
    """Fit one model and run the test windows once."""
    frame = sciseq.load_dataset(cell["dataset"])
    split = long_horizon_split(frame, cell["dataset"], lookback=LOOKBACK)
    model = models(cell["dataset"], cell["horizon"])[cell["model"]](cell["seed"])
    if cell["model"] in SEEDED:
        model.set_params(checkpoint_dir=path.with_suffix(""))
    start = time.perf_counter()
    model.fit(split.train, validation_data=split.validation)
    fit_seconds = time.perf_counter() - start
    start = time.perf_counter()
    errors, n_windows = test_errors(model, split)
    before = json.loads(path.read_text()) if path.exists() else {}
    return {
        **cell,
        **errors,
        "test_windows": n_windows,
        "test_evaluations": before.get("test_evaluations", 0) + 1,
        "fit_seconds": round(fit_seconds, 2),
        "test_seconds": round(time.perf_counter() - start, 2),
        "epochs": getattr(model, "n_epochs_", None),
        "best_epoch": getattr(model, "best_epoch_", None),
        "parameters": getattr(model, "n_parameters_", None),
        "threads": threads(),
        "date": time.strftime("%Y-%m-%d"),
        "versions": versions(),
    }


def test_errors(model: BaseForecaster, split: Any) -> tuple[dict[str, float], int]:
    """MSE and MAE over every test window, on values standardised by the train rows."""
    train = split.train.to_numpy()
    mean, scale = train.mean(axis=0), train.std(axis=0)
    errors = ForecastErrors()
    panel = model._evaluation_panel(split.test)
    for _, truth, forecast in model._evaluate_panel(panel):
        errors.update((truth - mean) / scale, (forecast - mean) / scale)
    summary = errors.result()
    overall = {name: summary.overall[name] for name in ("mse", "mae")}
    return overall, summary.n_windows


def threads() -> int:
    """Threads that torch computes with."""
    import torch

    return torch.get_num_threads()


def versions() -> dict[str, str]:
    """Versions that results depend on."""
    import torch

    return {
        "sciseq": sciseq.__version__,
        "torch": torch.__version__.partition("+")[0],
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def run(wanted: list[Cell], *, again: bool) -> None:
    """Measure what is not cached."""
    CACHE.mkdir(parents=True, exist_ok=True)
    for cell in wanted:
        path = cache_path(cell)
        if path.exists() and not again:
            continue
        result = measure(cell, path)
        path.write_text(json.dumps(result, indent=1))
        write(f"{result['dataset']} {result['horizon']} {result['model']} seed "
              f"{result['seed']}: MSE {result['mse']:.4f} MAE {result['mae']:.4f} "
              f"({result['fit_seconds']} s)\n")  # fmt: skip


def table(results: list[Cell]) -> str:
    """Markdown table: mean over seeds, with what was published and what is asked."""
    lines = [
        "| data, horizon | model | MSE | MAE | seeds (MSE) | best epochs | fit, s |",
        "| --- | --- | ---: | ---: | --- | --- | ---: |",
    ]
    groups: dict[tuple[str, int, str], list[Cell]] = {}
    for one in results:
        groups.setdefault((one["dataset"], one["horizon"], one["model"]), []).append(
            one
        )
    for (dataset, horizon, model), members in groups.items():
        means = [statistics.mean(one[key] for one in members) for key in ("mse", "mae")]
        lines.append(
            f"| {dataset}, {horizon} | {model} | {means[0]:.4f} | {means[1]:.4f} | "
            + ", ".join(f"{one['mse']:.4f}" for one in members)
            + " | "
            + ", ".join(str(one["best_epoch"] or "") for one in members)
            + f" | {statistics.median(one['fit_seconds'] for one in members):.1f} |"
        )
        if model == "S-Mamba" and (dataset, horizon) in PUBLISHED:
            mse, mae = PUBLISHED[dataset, horizon]
            lines.append(
                f"| {dataset}, {horizon} | S-Mamba, published | {mse:.3f} | {mae:.3f} "
                "| | | |"
            )
    return "\n".join(lines)


def verdicts(results: list[Cell]) -> list[str]:
    """One line per bound: kept or missed, by the mean over seeds."""
    lines = []
    for (dataset, horizon), bounds in BOUNDS.items():
        members = [
            one
            for one in results
            if (one["dataset"], one["horizon"], one["model"])
            == (dataset, horizon, "S-Mamba")
        ]
        for key, bound in zip(("mse", "mae"), bounds, strict=True):
            if bound is None or not members:
                continue
            mean = statistics.mean(one[key] for one in members)
            word = "kept" if mean <= bound else "MISSED"
            lines.append(
                f"{dataset} {horizon}: mean {key.upper()} of {len(members)} seeds "
                f"{mean:.4f}, bound {bound}: {word}"
            )
    return lines


def merged(done: list[Cell]) -> list[Cell]:
    """Finished cells together with those that the results file already records."""
    path = RESULTS / "forecasting.json"
    recorded = json.loads(path.read_text())["cells"] if path.exists() else []
    named = {tuple(one[key] for key in IDENTITY): one for one in [*recorded, *done]}
    return [named[key] for key in sorted(named, key=order)]


def order(identity: tuple[Any, ...]) -> tuple[Any, ...]:
    """Sort cells by data set, horizon, place of the model in the table, and seed."""
    dataset, horizon, model, seed = identity
    return dataset, horizon, list(models(dataset, horizon)).index(model), seed


def report(results: list[Cell], command: str) -> None:
    """Write the results file and print the table."""
    RESULTS.mkdir(exist_ok=True)
    facts = {
        "command": command,
        "protocol": "lookback 96; scaler on train rows; every test window; "
        "errors on standardised values",
        "processor_cores": os.cpu_count(),
        "machine": platform.machine(),
        "verdicts": verdicts(results),
        "cells": results,
    }
    (RESULTS / "forecasting.json").write_text(json.dumps(facts, indent=1) + "\n")
    counts = {one["test_evaluations"] for one in results}
    seeds = sorted({one["seed"] for one in results if one["model"] in SEEDED})
    dates = sorted({one["date"] for one in results})
    page = [
        "# Forecasting under the long-horizon protocol",
        "",
        f"Command: `{command}`. Seeds of S-Mamba: {seeds}. Lookback {LOOKBACK}; "
        "standardised by the train rows; every test window counts. Test runs per "
        f"recorded cell: {sorted(counts)}. Measured {dates[0]} to {dates[-1]} with "
        f"{results[0]['versions']} on {os.cpu_count()} shared cores, "
        f"{sorted({one['threads'] for one in results})} thread(s).",
        "",
        table(results),
        "",
        *[f"- {line}" for line in verdicts(results)],
        "",
    ]
    (RESULTS / "forecasting.md").write_text("\n".join(page))
    write("\n".join(page) + f"\nwritten to {RESULTS / 'forecasting.md'}\n")


def write(text: str) -> None:
    """Show text at once."""
    sys.stdout.write(text)
    sys.stdout.flush()


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--datasets", nargs="+", default=["ETTh1", "ETTm1", "exchange_rate"]
    )
    parser.add_argument("--horizons", nargs="+", type=int, default=[96])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--again", action="store_true", help="measure anew")
    parser.add_argument("--table-only", action="store_true", help="what is cached")
    chosen = parser.parse_args()
    wanted = list(cells(chosen.datasets, chosen.horizons, chosen.seeds))
    if not chosen.table_only:
        run(wanted, again=chosen.again)
    done = [
        json.loads(path.read_text())
        for path in (cache_path(cell) for cell in wanted)
        if path.exists()
    ]
    if done:
        command = " ".join(["python", "benchmarks/forecasting.py", *sys.argv[1:]])
        report(merged(done), command)
    return 0 if len(done) == len(wanted) else 1


if __name__ == "__main__":
    sys.exit(main())
