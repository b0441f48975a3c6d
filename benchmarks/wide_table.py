"""The part of scale.py that trains on a table as wide as Traffic, for its memory."""

import time
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from measuring import Cell, digits, median, memory_mib, table, verdict
from torch.optim.optimizer import register_optimizer_step_post_hook

import sciseq

H = 96
METHODS = {
    "S-Mamba": sciseq.SMambaForecaster,
    "iTransformer": sciseq.ITransformerForecaster,
}
# Method, and what training may take; the libraries and the table come on top.
CASES: tuple[tuple[str, str | None], ...] = (
    ("S-Mamba", None),
    ("S-Mamba", "2GB"),
    ("iTransformer", None),
    ("iTransformer", "2GB"),
)
N_ROWS, N_VARIATES, N_STEPS = 17_000, 862, 4
MOST_BYTES = 4e9


class StopAfter:
    """Interrupts a fit after some steps of its optimiser."""

    def __init__(self, n_steps: int) -> None:
        self.n_steps = n_steps
        self.ends: list[float] = []

    def __call__(self, *arguments: Any) -> None:
        """Note the time of a step."""
        self.ends.append(time.perf_counter())
        if len(self.ends) == self.n_steps:
            raise KeyboardInterrupt


def traffic_like(n_rows: int, n_variates: int) -> pd.DataFrame:
    """Make up shares of occupied road: daily and weekly waves, noise, rush hours."""
    generator = np.random.default_rng(0)
    hours = np.arange(n_rows)
    values = np.empty((n_rows, n_variates))
    for column in range(n_variates):
        phase, height = generator.uniform(0, 6.3), generator.uniform(0.02, 0.2)
        day = np.sin(2 * np.pi * hours / 24 + phase)
        week = np.sin(2 * np.pi * hours / 168 + phase)
        noise = generator.normal(scale=0.1, size=n_rows)
        values[:, column] = height * np.exp(day + 0.3 * week + noise)
    times = pd.date_range("2015-01-01", periods=n_rows, freq="h")
    columns = [f"x{number}" for number in range(n_variates)]
    return pd.DataFrame(values, index=times, columns=columns)


def measure_wide(cell: Cell) -> Cell:
    """Begin a fit with published settings, and read what became resident."""
    frame = traffic_like(cell["rows"], cell["variates"])
    before = memory_mib("VmRSS")
    limit = cell["memory_limit"]
    model = METHODS[cell["method"]].published(
        "traffic",
        horizon=H,
        random_state=0,
        device="cpu",
        **({} if limit is None else {"memory_limit": limit}),
    )
    stop = StopAfter(cell["n_steps"])
    handle = register_optimizer_step_post_hook(stop)
    start = time.perf_counter()
    try:
        model.fit(frame)
    except KeyboardInterrupt:
        pass
    finally:
        handle.remove()
    ends = stop.ends
    return {
        "steps": len(ends),
        "seconds_to_first_step": ends[0] - start,
        "seconds": median([b - a for a, b in pairwise(ends)]),
        "table_and_libraries_mib": before,
        "resident_mib": memory_mib("VmHWM"),
        "batch": model.batch_size,
    }


def wide_cells(*, quick: bool) -> list[Cell]:
    """All cells of this part."""
    rows, variates = (1000, 20) if quick else (N_ROWS, N_VARIATES)
    return [
        {"part": "traffic", "method": method, "memory_limit": limit, "rows": rows,
         "variates": variates, "n_steps": N_STEPS}
        for method, limit in CASES
    ]  # fmt: skip


def wide_table(results: list[Cell]) -> list[str]:
    """Make the table of this part."""
    head = ["made-up Traffic", "memory_limit", "variates", "rows", "batch", "steps",
            "s per step", "libraries and table, MiB",
            "resident at most, MiB"]  # fmt: skip
    rows = [
        [
            one["method"],
            one["memory_limit"] or "",
            one["variates"],
            one["rows"],
            one["found"]["batch"],
            one["found"]["steps"],
            digits(one["found"]["seconds"]),
            f"{one['found']['table_and_libraries_mib']:.0f}",
            f"{one['found']['resident_mib']:.0f}",
        ]
        for one in results
        if one["part"] == "traffic" and "failed" not in one["found"]
    ]
    return table(head, rows)


def wide_verdicts(results: list[Cell]) -> list[str]:
    """Say what was asked of the wide table, and whether it was reached."""
    lines = []
    for one in results:
        # Attention over 866 tokens keeps its square of weights: without a limit it
        # is shown, not judged.
        if one["part"] != "traffic" or not (
            one["memory_limit"] or one["method"] == "S-Mamba"
        ):
            continue
        limit = f", memory_limit={one['memory_limit']}" if one["memory_limit"] else ""
        what = (
            f"{one['method']}, {one['variates']} variates x {one['rows']} rows{limit}"
        )
        found = one["found"]
        if "failed" in found:
            lines.append(f"{what}: {found['failed']}: MISSED")
        else:
            gigabytes = found["resident_mib"] * 2**20 / 1e9
            lines.append(verdict(f"{what}: GB resident", gigabytes, MOST_BYTES / 1e9))
    return lines
