"""Peers benchmark: training windows per second, and one forecast, beside others.

iTransformer and TSMixer of neuralforecast 3.3.0 against our iTransformer and S-Mamba at
equal width and depth: 7 series, look-back and horizon 96, 32 windows a step, width 128,
2 layers, no calendar marks, 150 steps on the same made-up rows. Two rates are given: a
whole ``fit`` with its set-up, after a first short one that loads the libraries, and the
steps alone (neuralforecast: from step 10 on; ours: the whole epoch). Fits take turns.

The peer runs in a process and an environment of its own, which this script makes under
``benchmarks/environments`` when it is missing (1.7 GB, some minutes).

    python benchmarks/peers.py                # all cells, then the tables
    python benchmarks/peers.py --again        # measure anew
    python benchmarks/peers.py --table-only   # from what is cached
"""

import functools
import os
import subprocess
import sys
import time
import venv
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from measuring import (
    HERE,
    Cell,
    digits,
    median,
    parser,
    report,
    run_cells,
    table,
    verdict,
    write,
)
from peer_process import PeerProcess

import sciseq

ENVIRONMENT = HERE / "environments" / "neuralforecast"
TORCH, PEER = "torch==2.13.0", "neuralforecast==3.3.0"
SETTINGS: dict[str, Any] = {
    "lookback": 96,
    "horizon": 96,
    "n_series": 7,
    "batch": 32,
    "d_model": 128,
    "n_layers": 2,
}
STEPS, PREDICTIONS = 150, 5
LEAST_RATIO = 2.0
# Name in the table, and who runs what.
OURS = {
    "our iTransformer": sciseq.ITransformerForecaster,
    "our S-Mamba": sciseq.SMambaForecaster,
}
PEERS = {
    "neuralforecast iTransformer": "iTransformer",
    "neuralforecast TSMixer": "TSMixer",
}


def environment() -> Path:
    """Return the peer's interpreter, and make its environment when it is missing."""
    python = ENVIRONMENT / ("Scripts" if os.name == "nt" else "bin") / "python"
    stamp = ENVIRONMENT / ".installed"
    if stamp.exists() and stamp.read_text() == f"{TORCH} {PEER}":
        return python
    write(f"making the environment of {PEER}, which takes some minutes\n")
    venv.create(ENVIRONMENT, with_pip=True, symlinks=os.name != "nt")
    pip = [python, "-m", "pip", "install", "-q", "-c", HERE.parent / "constraints.txt"]
    # torch first: the same build as ours, whatever the peer would ask for.
    subprocess.run([*pip, TORCH], check=True)
    subprocess.run([*pip, TORCH, PEER], check=True)
    stamp.write_text(f"{TORCH} {PEER}")
    return python


def request_of(cell: Cell, model: str) -> dict[str, Any]:
    """Everything that determines one fit."""
    n_rows = cell["steps"] * SETTINGS["batch"] + 2 * 96 - 1
    return {
        **SETTINGS,
        "model": model,
        "steps": cell["steps"],
        "n_rows": n_rows,
        "threads": torch.get_num_threads(),
        "predictions": PREDICTIONS,
    }


def fit_ours(kind: Any, request: dict[str, Any]) -> Cell:
    """Fit one of our models, and forecast with it."""
    n_rows, n_series = request["n_rows"], request["n_series"]
    values = np.random.default_rng(0).normal(size=(n_rows, n_series)).cumsum(axis=0)
    times = pd.date_range("2020-01-01", periods=n_rows, freq="h")
    frame = pd.DataFrame(values, times, [f"x{number}" for number in range(n_series)])
    model = kind(
        lookback=request["lookback"],
        horizon=request["horizon"],
        d_model=request["d_model"],
        n_layers=request["n_layers"],
        batch_size=request["batch"],
        calendar=None,
        max_epochs=1,
        validation_fraction=0.0,
        random_state=0,
        device="cpu",
    )
    start = time.perf_counter()
    model.fit(frame)
    seconds = time.perf_counter() - start
    predictions = []
    for _ in range(request["predictions"]):
        begun = time.perf_counter()
        model.predict()
        predictions.append(time.perf_counter() - begun)
    return {
        "fit_seconds": seconds,
        "steps": request["steps"],
        "steady_seconds_per_step": model.history_[0]["seconds"] / request["steps"],
        "parameters": model.n_parameters_,
        "predict_seconds": predictions,
    }


def measure(cell: Cell) -> Cell:
    """Fit all models in turn, several times."""
    worker = PeerProcess(
        [environment(), HERE / "neuralforecast_worker.py"], "neuralforecast"
    )
    runs = {name: functools.partial(fit_ours, kind) for name, kind in OURS.items()}
    runs |= dict.fromkeys(PEERS, worker)
    names = list(runs)
    for name in names:  # what is loaded on first use does not count
        runs[name](request_of({"steps": 3}, PEERS.get(name, "")))
    found: dict[str, list[Cell]] = {name: [] for name in names}
    for index in range(cell["repeats"]):
        for name in names if index % 2 == 0 else reversed(names):
            found[name].append(runs[name](request_of(cell, PEERS.get(name, ""))))
    worker.close()
    return found


def summary(runs: list[Cell]) -> Cell:
    """Medians over the fits of a model."""
    batch = SETTINGS["batch"]
    whole = [one["steps"] * batch / one["fit_seconds"] for one in runs]
    predictions = [seconds for one in runs for seconds in one["predict_seconds"]]
    return {
        "whole": median(whole),
        "least": min(whole),
        "most": max(whole),
        "steady": median([batch / one["steady_seconds_per_step"] for one in runs]),
        "predict": median(predictions),
        "parameters": runs[0]["parameters"],
        "steps": runs[0]["steps"],
    }


def rate_table(found: dict[str, Cell]) -> list[str]:
    """Make the table of all models."""
    head = ["model", "weights", "windows/s, whole fit", "least", "most",
            "windows/s, steps alone", "predict, ms"]  # fmt: skip
    rows = [
        [
            name,
            f"{one['parameters']:,}",
            *(f"{one[key]:.0f}" for key in ("whole", "least", "most", "steady")),
            digits(1e3 * one["predict"]),
        ]
        for name, one in found.items()
    ]
    return table(head, rows)


def verdicts(found: dict[str, Cell]) -> list[str]:
    """Say what was asked of the rates, and whether it was reached."""
    peer = found["neuralforecast iTransformer"]
    lines = []
    for key, what in (("whole", "whole fit"), ("steady", "steps alone")):
        for name, bound in (("our iTransformer", LEAST_RATIO), ("our S-Mamba", 1.0)):
            ratio = found[name][key] / peer[key]
            text = f"{name} over neuralforecast iTransformer, {what}"
            lines.append(verdict(text, ratio, bound, at_least=True))
    return lines


def main() -> int:
    """Run the command line."""
    chosen = parser(__doc__).parse_args()
    repeats = 1 if chosen.quick else chosen.repeats
    wanted = [{"steps": 10 if chosen.quick else STEPS, "repeats": repeats}]
    if not chosen.table_only:
        environment()
    results = run_cells("peers", wanted, measure, chosen)
    if not results:
        write("nothing is measured yet\n")
        return 1
    found = {name: summary(runs) for name, runs in results[0]["found"].items()}
    steps = next(iter(found.values()))["steps"]
    lines = [
        f"{SETTINGS}, {steps} steps, no calendar marks, Adam, squared error, dropout "
        f"0.1; {PEER} with {TORCH}. Medians of {repeats} fits in turn. TSMixer has no "
        "width but that of its feed-forward map. Predict: the 96 rows after the table, "
        f"median of {PREDICTIONS} calls after each fit.",
        "",
        *rate_table(found),
    ]
    report("peers", "Training and forecasting beside neuralforecast", lines,
           verdicts(found), results, chosen)  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
