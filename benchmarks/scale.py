"""Scale benchmark: what a training step costs against variates, look-back and series.

Networks with their default settings on made-up numbers, horizon 96, no calendar marks:

- variates 7 to 2000 at look-back 96, batches of 8;
- look-back 96 to 4096 at 7 variates, batches of 32;
- panels of 1 to 10 000 series of one column, 32 windows each, in a whole ``fit`` of one
  epoch, so that an epoch has as many steps of 32 windows as there are series.

Seconds are medians of steps; memory is the peak above the built network and its batch
(above the table for panels), in a process of its own. Exponents are slopes of the
logarithms over the largest three sizes. At last a table as wide as Traffic (862
variates, 17 000 rows, made up) is trained for some steps with published settings, with
and without ``memory_limit``, and the largest resident memory of the whole process is
read.

    python benchmarks/scale.py                # all cells, the tables and the picture
    python benchmarks/scale.py --again        # measure anew
    python benchmarks/scale.py --table-only   # from what is cached
"""

import ctypes
import os
import resource
import sys
from typing import Any

import numpy as np
import pandas as pd
import torch
from measuring import (
    RESULTS,
    Cell,
    PeakMemory,
    digits,
    elapsed,
    median,
    parser,
    report,
    run_cells,
    table,
    write,
)
from wide_table import measure_wide, wide_cells, wide_table, wide_verdicts

import sciseq
from sciseq.nn import set_dropout_generator
from sciseq.training.adam import FusedAdam

H = 96
NETWORKS = {
    "S-Mamba": sciseq.SMambaForecaster,
    "iTransformer": sciseq.ITransformerForecaster,
    "Gateformer": sciseq.GateformerForecaster,
    "MambaMixer (TSM2)": sciseq.MambaMixerForecaster,
    "PatchTST": sciseq.PatchTSTForecaster,
}
PANEL_NETWORKS = ("S-Mamba", "iTransformer", "PatchTST")
AXES: dict[str, tuple[int, ...]] = {
    "variates": (7, 21, 70, 210, 700, 2000),
    "lookback": (96, 256, 512, 1024, 2048, 4096),
    "series": (1, 10, 100, 1000, 10_000),
}
BATCH = {"variates": 8, "lookback": 32, "series": 32}
WINDOWS_PER_SERIES = 32
# A cell stops repeating a step after so many seconds.
SECONDS_PER_CELL = 20.0
N_FITTED = 3


# -------------------------------------------------------------------- measuring


def measure(cell: Cell) -> Cell:
    """Measure one cell; want of memory is a result."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    parts = {"step": measure_step, "panel": measure_panel, "traffic": measure_wide}
    try:
        return parts[cell["part"]](cell)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, MemoryError) or "memory" in str(error):
            return {"failed": "out of memory"}
        raise


def measure_step(cell: Cell) -> Cell:
    """Take steps of one network on one batch."""
    is_lookback = cell["axis"] == "lookback"
    lookback, n_variates = (cell["size"], 7) if is_lookback else (96, cell["size"])
    network = network_of(cell["method"], lookback, n_variates)
    optimizer = FusedAdam(network.parameters(), lr=1e-4)
    generator = torch.Generator().manual_seed(0)
    set_dropout_generator(network, generator)
    network.train()
    n_windows = BATCH[cell["axis"]]
    x = torch.randn(n_windows, lookback, n_variates, generator=generator)
    truth = torch.randn(n_windows, H, n_variates, generator=generator)

    def step() -> None:
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(network(x), truth).backward()
        optimizer.step()

    with PeakMemory() as peak:
        first = elapsed(step)
    repeats = max(1, min(cell["repeats"], int(SECONDS_PER_CELL / first)))
    times = [elapsed(step) for _ in range(repeats)]
    return {"seconds": median(times), "steps": times, "extra_mib": peak.extra_mib}


def network_of(method: str, lookback: int, n_variates: int) -> Any:
    """Network for windows of some shape: that of a forecaster fitted to one window."""
    values = np.random.default_rng(0).normal(size=(lookback + H, n_variates))
    model = NETWORKS[method](
        lookback=lookback,
        horizon=H,
        calendar=None,
        batch_size=1,
        max_epochs=1,
        validation_fraction=0.0,
        random_state=0,
        device="cpu",
    )
    network = model.fit(values).network_
    release_memory()
    return network


def release_memory() -> None:
    """Hand freed memory back to the system, where the C library can do it."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError):
        return


def panel_of(n_series: int, lookback: int) -> pd.DataFrame:
    """Make up a panel with 32 windows in each series."""
    n_rows = lookback + H - 1 + WINDOWS_PER_SERIES
    noise = np.random.default_rng(0).normal(size=(n_series, n_rows))
    times = pd.date_range("2024-01-01", periods=n_rows, freq="h")
    ids = [f"s{number}" for number in range(n_series)]
    index = pd.MultiIndex.from_product([ids, times], names=["series", "time"])
    return pd.DataFrame({"value": noise.cumsum(axis=1).ravel()}, index=index)


def panel_model(method: str) -> Any:
    """Forecaster for panels, exact or trained for one epoch."""
    shared = {"lookback": 96, "horizon": H, "validation_fraction": 0.0}
    if method == "AR-Net (exact)":
        return sciseq.ARNetForecaster(alpha=1.0, **shared)
    return NETWORKS[method](
        calendar=None,
        max_epochs=1,
        batch_size=BATCH["series"],
        random_state=0,
        device="cpu",
        **shared,
    )


def measure_panel(cell: Cell) -> Cell:
    """Fit one epoch to a panel: seconds per step, of setting up, and memory."""
    panel_model(cell["method"]).fit(panel_of(1, 96))
    frame = panel_of(cell["size"], 96)
    model = panel_model(cell["method"])

    def fit() -> tuple[float, float]:
        seconds = elapsed(lambda: model.fit(frame))
        history = getattr(model, "history_", [{"seconds": 0.0}])
        return seconds, history[0]["seconds"]

    release_memory()
    with PeakMemory() as peak:
        runs = [fit()]
    repeats = min(cell["repeats"], int(SECONDS_PER_CELL / runs[0][0]))
    runs += [fit() for _ in range(repeats - 1)]
    found = {
        "fit_seconds": median([whole for whole, _ in runs]),
        "extra_mib": peak.extra_mib,
        "runs": runs,
    }
    if runs[0][1]:
        found["seconds"] = median([epoch for _, epoch in runs]) / cell["size"]
        found["set_up_seconds"] = median([whole - epoch for whole, epoch in runs])
    return found


# ---------------------------------------------------------------------- results


def cells(repeats: int, *, quick: bool) -> list[Cell]:
    """All cells, in the order of the tables."""
    wanted: list[Cell] = []
    for axis, sizes in AXES.items():
        methods = (*PANEL_NETWORKS, "AR-Net (exact)") if axis == "series" else NETWORKS
        for method in [*methods][:2] if quick else methods:
            part = "panel" if axis == "series" else "step"
            wanted += [
                {"part": part, "axis": axis, "method": method, "size": size,
                 "repeats": repeats}
                for size in (sizes[:3] if quick else sizes)
            ]  # fmt: skip
    return [*wanted, *wide_cells(quick=quick)]


def curves(results: list[Cell], axis: str, key: str) -> dict[str, dict[int, float]]:
    """Costs by method and size."""
    found: dict[str, dict[int, float]] = {}
    for one in results:
        if one.get("axis") == axis and key in one["found"]:
            found.setdefault(one["method"], {})[one["size"]] = one["found"][key]
    return found


def exponent(curve: dict[int, float]) -> float | None:
    """Slope of log cost over log size, at the largest sizes."""
    sizes = sorted(size for size, cost in curve.items() if cost > 0)[-N_FITTED:]
    if len(sizes) < N_FITTED:
        return None
    costs = [curve[size] for size in sizes]
    return float(np.polyfit(np.log(sizes), np.log(costs), 1)[0])


def cost_table(
    results: list[Cell], axis: str, key: str, factor: float, unit: str
) -> list[str]:
    """One row for each method, one column for each size."""
    found = curves(results, axis, key)
    sizes = sorted({one["size"] for one in results if one.get("axis") == axis})
    failed = {
        (one["method"], one["size"])
        for one in results
        if one.get("axis") == axis and "failed" in one["found"]
    }
    head = [f"{unit} at {axis}", *map(str, sizes), "exponent"]
    rows = []
    for method, curve in found.items():
        entries = [
            "no memory" if (method, size) in failed
            else digits(curve[size] * factor) if size in curve else ""
            for size in sizes
        ]  # fmt: skip
        rows.append([method, *entries, digits(exponent(curve))])
    return table(head, rows)


def pages(results: list[Cell]) -> list[str]:
    """All tables."""
    lines: list[str] = []
    for axis in AXES:
        lines += [*cost_table(results, axis, "seconds", 1e3, "ms per step"), ""]
        if axis == "series":
            lines += [
                *cost_table(results, axis, "set_up_seconds", 1.0, "set-up, s"),
                "",
            ]
            lines += [*cost_table(results, axis, "fit_seconds", 1.0, "fit, s"), ""]
        lines += [*cost_table(results, axis, "extra_mib", 1.0, "extra MiB"), ""]
    return [*lines, *wide_table(results)]


def main() -> int:
    """Run the command line."""
    chosen = parser(__doc__).parse_args()
    repeats = 2 if chosen.quick else chosen.repeats
    wanted = cells(repeats, quick=chosen.quick)
    results = run_cells("scale", wanted, measure, chosen)
    if not results:
        write("nothing is measured yet\n")
        return 1
    lines = [
        "Default settings of each method, horizon 96, no calendar marks. Variates: "
        f"look-back 96, batches of {BATCH['variates']}; look-back: 7 variates, batches "
        f"of {BATCH['lookback']}; series: a fit of one epoch to a panel of one column, "
        f"as many steps of {BATCH['series']} windows as series. Medians of up to "
        f"{repeats} steps, fewer where they take long. Exponents over the largest "
        f"{N_FITTED} sizes. Extra MiB: the peak above network and batch, or table.",
        "",
        "![Cost against size](scale.png)",
        "",
        *pages(results),
    ]
    if not chosen.quick:
        from scale_picture import draw

        RESULTS.mkdir(exist_ok=True)
        draw(
            {
                (axis, key): curves(results, axis, key)
                for axis in AXES
                for key in ("seconds", "extra_mib")
            },
            RESULTS / "scale.png",
        )
    title = "Cost against variates, look-back and series"
    report("scale", title, lines, wide_verdicts(results), results, chosen,
           packages=("torch", "numpy", "pandas"))  # fmt: skip
    return 0 if len(results) == len(wanted) else 1


if __name__ == "__main__":
    sys.exit(main())
