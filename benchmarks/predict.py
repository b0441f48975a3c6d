"""Predict benchmark: what forecasting costs above the bare network, and imports.

A fitted S-Mamba at its published ETTh1 settings (look-back and horizon 96, 7 variates
and 4 marks, width 256), on made-up hourly tables:

- one forecast, warm: from a frame of exactly 96 rows, from one of 17 000 rows, and from
  the end of the training data, beside the bare forward pass of one window;
- one forecast, cold: in a new process after ``sciseq.load``, beside the first bare
  forward pass of another new process;
- many forecasts: of 1000 series in one table, and of all windows of a table as long as
  the test rows of ETTh1 (forecasts alone, and ``score``), beside bare passes over the
  same windows on prepared tensors, at the fastest of several batch sizes;
- ``import sciseq``, ``sciseq --help`` and ``from sciseq import SMambaForecaster``
  beside ``import torch``, each as a new process less an empty one. Estimators inherit
  from scikit-learn's, so ``import torch, sklearn.base`` is the least that the last one
  can cost.

    python benchmarks/predict.py                # all cells, then the tables
    python benchmarks/predict.py --again        # measure anew
    python benchmarks/predict.py --table-only   # from what is cached
"""

import functools
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from measuring import (
    Cell,
    digits,
    interleaved,
    median,
    parser,
    report,
    run_cells,
    table,
    verdict,
    write,
)

import sciseq

L, H, N_VARIATES = 96, 96, 7
N_LONG, N_SERIES, N_TEST = 17_000, 1000, 2880
BATCHES = (32, 64, 128, 256, 1024)
CALLS = 20
MOST_ABOVE, MOST_BATCHED = 5.0, 1.3  # milliseconds, ratio
MOST_IMPORT, MOST_HELP, MOST_OVER_TORCH = 0.3, 1.0, 0.5

FRAMES = {
    "frame of 96 rows": "predict(frame)",
    "frame of 17 000 rows": "predict(frame)",
    "end of the training data": "predict()",
}
SKLEARN = "import torch, sklearn.base"
OURS = "from sciseq import SMambaForecaster"
IMPORTS = {
    "empty process": ["-c", "pass"],
    "import sciseq": ["-c", "import sciseq"],
    "sciseq --help": ["-c", "from sciseq.cli import main; main()", "--help"],
    "import torch": ["-c", "import torch"],
    SKLEARN: ["-c", SKLEARN],
    OURS: ["-c", OURS],
}


def hourly(n_rows: int, seed: int = 0) -> pd.DataFrame:
    """Make up an hourly table of seven columns."""
    noise = np.random.default_rng(seed).normal(size=(n_rows, N_VARIATES))
    times = pd.date_range("2020-01-01", periods=n_rows, freq="h", name="time")
    columns = [f"x{number}" for number in range(N_VARIATES)]
    return pd.DataFrame(noise.cumsum(axis=0), index=times, columns=columns)


def series_table(n_series: int) -> pd.DataFrame:
    """Make up many series, index (series, time)."""
    return pd.concat(
        {f"s{one}": hourly(L + H, one) for one in range(n_series)},
        names=["series", "time"],
    )


def fitted(rows: pd.DataFrame) -> Any:
    """S-Mamba after one epoch."""
    model = sciseq.SMambaForecaster.published(
        "ETTh1",
        horizon=H,
        max_epochs=1,
        validation_fraction=0.0,
        random_state=0,
        device="cpu",
    )
    return model.fit(rows)


def passes(model: Any, n_windows: int, batch: int) -> Callable[[], None]:
    """Return bare passes of the network over prepared windows."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n_windows, L, N_VARIATES, generator=generator)
    marks = torch.rand(n_windows, L, len(model.calendar_), generator=generator) - 0.5

    def run() -> None:
        with torch.inference_mode():
            for start in range(0, n_windows, batch):
                part = slice(start, start + batch)
                model.network_(x[part], marks[part])

    return run


# -------------------------------------------------------------------- measuring


def measure(cell: Cell) -> Cell:
    """Measure one cell."""
    parts = {
        "one": measure_one,
        "cold": measure_cold,
        "series": measure_series,
        "windows": measure_windows,
        "imports": measure_imports,
    }
    return parts[cell["part"]](cell)


def medians(tasks: dict[str, Callable[[], Any]], repeats: int, calls: int) -> Cell:
    """Seconds per call of tasks that take turns."""
    times = interleaved(tasks, repeats, calls=calls)
    return {name: median(values) for name, values in times.items()}


def measure_one(cell: Cell) -> Cell:
    """Seconds of one warm forecast, by what it is made from."""
    model = fitted(hourly(L + H + 31))
    short, long = hourly(L), hourly(cell["rows"])
    tasks = {
        "bare forward": passes(model, 1, 1),
        "frame of 96 rows": lambda: model.predict(short),
        "frame of 17 000 rows": lambda: model.predict(long),
        "end of the training data": model.predict,
    }
    return medians(tasks, cell["repeats"], CALLS)


LOAD = """
import sys, time
start = time.perf_counter()
import pandas as pd
import sciseq
model = sciseq.load(sys.argv[1])
loaded = time.perf_counter()
"""
FORECAST = """
frame = pd.read_pickle(sys.argv[2])
work = lambda: model.predict(frame)
"""
FORWARD = """
import torch
x, marks = torch.randn(1, 96, 7), torch.randn(1, 96, len(model.calendar_))
def work():
    with torch.inference_mode():
        model.network_(x, marks)
"""
FIRST = """
begun = time.perf_counter()
work()
first = time.perf_counter()
work()
print(loaded - start, first - begun, time.perf_counter() - first)
"""


def measure_cold(cell: Cell) -> Cell:
    """Seconds in new processes: imports and load, the first call, the second."""
    scripts = {"predict": FORECAST, "forward": FORWARD}
    runs: dict[str, list[list[float]]] = {name: [] for name in scripts}
    with tempfile.TemporaryDirectory() as folder:
        path, rows = Path(folder, "model"), Path(folder, "rows.pkl")
        fitted(hourly(L + H + 31)).save(path)
        hourly(L).to_pickle(rows)
        for _ in range(cell["repeats"]):
            for name, script in scripts.items():
                code = LOAD + script + FIRST
                command = [sys.executable, "-c", code, str(path), str(rows)]
                done = subprocess.run(
                    command, capture_output=True, text=True, check=True
                )
                runs[name].append([float(one) for one in done.stdout.split()])
    return {
        name: [median(list(part)) for part in zip(*times, strict=True)]
        for name, times in runs.items()
    }


def measure_series(cell: Cell) -> Cell:
    """Seconds for many series in one table."""
    panel = series_table(cell["n"])
    model = fitted(panel.loc[["s0", "s1"]])
    return beside_passes(model, {"predict": lambda: model.predict(panel)}, cell)


def measure_windows(cell: Cell) -> Cell:
    """Seconds for every window of a table: forecasts alone, and the score."""
    model = fitted(hourly(L + H + 31))
    test = hourly(L + cell["n"] + H - 1)

    def forecast() -> None:
        for _ in model._evaluate_panel(model._evaluation_panel(test)):
            pass

    tasks = {"forecasts": forecast, "score": lambda: model.score(test)}
    return beside_passes(model, tasks, cell)


def beside_passes(model: Any, tasks: dict[str, Callable[[], Any]], cell: Cell) -> Cell:
    """Seconds of tasks, and of the fastest bare passes over as many windows."""
    bare = {str(batch): passes(model, cell["n"], batch) for batch in BATCHES}
    found = medians({**tasks, **bare}, cell["repeats"], 1)
    fastest = min(bare, key=found.__getitem__)
    kept = {name: found[name] for name in tasks}
    return {**kept, "bare": found[fastest], "batch": int(fastest), "all": found}


def measure_imports(cell: Cell) -> Cell:
    """Seconds of new processes, in turn."""

    def runner(arguments: list[str]) -> Callable[[], Any]:
        command = [sys.executable, *arguments]
        return functools.partial(
            subprocess.run, command, stdout=subprocess.DEVNULL, check=True
        )

    tasks = {name: runner(arguments) for name, arguments in IMPORTS.items()}
    return medians(tasks, cell["repeats"], 1)


# ---------------------------------------------------------------------- results


def cells(repeats: int, *, quick: bool) -> list[Cell]:
    """All cells, in the order of the tables."""
    return [
        {"part": "one", "rows": N_LONG, "repeats": repeats},
        {"part": "cold", "repeats": repeats},
        {"part": "series", "n": 64 if quick else N_SERIES, "repeats": repeats},
        {"part": "windows", "n": 64 if quick else N_TEST, "repeats": repeats},
        {"part": "imports", "repeats": repeats},
    ]


def one_table(results: list[Cell]) -> list[str]:
    """Make the table of single forecasts."""
    rows = []
    for cell in results:
        found = cell["found"]
        if cell["part"] == "one":
            bare = found["bare forward"]
            rows += [
                [f"{call}, {name}, warm", *in_ms(found[name], bare)]
                for name, call in FRAMES.items()
            ]
        if cell["part"] == "cold":
            predict, forward = found["predict"], found["forward"]
            rows.append(["first predict of a process", *in_ms(predict[1], forward[1])])
            rows.append(["second predict", *in_ms(predict[2], forward[2])])
    head = ["one forecast", "ms", "bare forward, ms", "above it, ms"]
    return table(head, rows)


def in_ms(seconds: float, bare: float) -> list[str]:
    """Milliseconds, those of the bare forward, and their difference."""
    return [digits(1e3 * one) for one in (seconds, bare, seconds - bare)]


def many_table(results: list[Cell]) -> list[str]:
    """Make the table of many forecasts."""
    rows = []
    for cell in results:
        if cell["part"] in ("series", "windows"):
            found = cell["found"]
            what = "series" if cell["part"] == "series" else "windows"
            rows += [
                [f"{name}, {cell['n']} {what}", digits(1e3 * found[name]),
                 digits(1e3 * found["bare"]), found["batch"],
                 f"{found[name] / found['bare']:.2f}"]
                for name in ("predict", "forecasts", "score") if name in found
            ]  # fmt: skip
    head = ["many forecasts", "ms", "bare passes, ms", "of windows", "ratio"]
    return table(head, rows)


def import_table(results: list[Cell]) -> list[str]:
    """Make the table of new processes."""
    rows = []
    for cell in results:
        if cell["part"] == "imports":
            empty = cell["found"]["empty process"]
            rows = [
                [name, digits(seconds), digits(seconds - empty)]
                for name, seconds in cell["found"].items()
            ]
    return table(["new process", "s", "less an empty one, s"], rows)


def verdicts(results: list[Cell]) -> list[str]:
    """Say what was asked of the costs, and whether it was reached."""
    lines = []
    for cell in results:
        found = cell["found"]
        if cell["part"] == "one":
            for name, call in FRAMES.items():
                above = 1e3 * (found[name] - found["bare forward"])
                what = f"{call}, {name}, above the bare forward, ms"
                lines.append(verdict(what, above, MOST_ABOVE))
        if cell["part"] == "series":
            ratio = found["predict"] / found["bare"]
            lines.append(verdict(f"predict of {cell['n']} series over bare passes",
                                 ratio, MOST_BATCHED))  # fmt: skip
        if cell["part"] == "windows":
            ratio = found["forecasts"] / found["bare"]
            lines.append(verdict(f"forecasts of {cell['n']} windows over bare passes",
                                 ratio, MOST_BATCHED))  # fmt: skip
        if cell["part"] == "imports":
            lines += import_verdicts(found)
    return lines


def import_verdicts(found: Cell) -> list[str]:
    """Say how imports stand, and what share of them is scikit-learn's."""
    empty, over_torch = found["empty process"], found[OURS] - found["import torch"]
    least = found[SKLEARN] - found["import torch"]
    return [
        verdict("import sciseq, s", found["import sciseq"] - empty, MOST_IMPORT),
        verdict("sciseq --help, s", found["sciseq --help"], MOST_HELP),
        verdict(f"{OURS} above torch, s", over_torch, MOST_OVER_TORCH),
        f"of these, scikit-learn's own import takes {digits(least)} s, sciseq "
        f"{digits(over_torch - least)} s",
    ]


def main() -> int:
    """Run the command line."""
    chosen = parser(__doc__).parse_args()
    repeats = 2 if chosen.quick else chosen.repeats
    wanted = cells(repeats, quick=chosen.quick)
    results = run_cells("predict", wanted, measure, chosen)
    if not results:
        write("nothing is measured yet\n")
        return 1
    lines = [
        f"S-Mamba at its published ETTh1 settings. Medians of {repeats} rounds in "
        f"which the rows of a table take turns ({CALLS} calls a round for one warm "
        "forecast, new processes for a cold one). Bare passes: the network alone on "
        f"prepared tensors, at the fastest of {BATCHES} windows a pass.",
        "",
        *one_table(results),
        "",
        *many_table(results),
        "",
        *import_table(results),
    ]
    report("predict", "What predict costs above the bare network", lines,
           verdicts(results), results, chosen,
           ("torch", "numpy", "pandas", "scikit-learn"))  # fmt: skip
    return 0 if len(results) == len(wanted) else 1


if __name__ == "__main__":
    sys.exit(main())
