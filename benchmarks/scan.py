"""Selective scan benchmark: seconds, memory and errors beside a loop in plain torch.

Forward and backward of the backends ``c`` and ``reference`` and of a lean torch loop
that is written out here and never changes, at the widths and lengths of published
settings, in both memory layouts. Times are medians of interleaved rounds; memory is the
peak above the inputs in a process of its own; errors are relative to the largest entry
of a float64 run, for the values and every gradient (on some of the samples where the
tensors are long).

The floor of a state update is the number of vector operations of the C kernel over the
rate at which this machine runs vector multiply-adds; another one is the memory traffic
of the tensors that a scan must read and write.

    python benchmarks/scan.py                # all cells, then the tables
    python benchmarks/scan.py --again        # measure anew
    python benchmarks/scan.py --table-only   # from what is cached
"""

import functools
import sys
from collections.abc import Callable
from typing import Any

import torch
from measuring import (
    Cell,
    PeakMemory,
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
from peak_rate import LANES, measure_floor
from torch import Tensor

from sciseq.ops.selective_scan import selective_scan

# batch B, channels D, states N, length L
SHAPES: dict[str, tuple[int, int, int, int]] = {
    "S-Mamba, ETTh1": (32, 256, 2, 11),
    "L 21": (32, 512, 16, 21),
    "L 137": (32, 512, 16, 137),
    "L 321": (32, 512, 16, 321),
    "L 862": (32, 512, 16, 862),
    "L 4096": (4, 256, 16, 4096),
}
QUICK = {"S-Mamba, ETTh1": (32, 256, 2, 11), "L 21": (4, 64, 16, 21)}
# Channels next to each other in memory, as the blocks make them, or tokens.
LAYOUTS = ("channels", "tokens")
COMPARED = ("L 21", "L 137", "L 321", "L 862", "L 4096")
LARGEST = "L 862"
NAMES = ("y", "u", "dt", "A", "B", "C", "D")  # the values, then the gradients

MOST_NS, LEAST_RATIO, MOST_MEMORY, MOST_ERROR = 1.2, 10.0, 0.1, 1e-5
# The C library reuses what a loop frees in one run and not in the next: its peak is the
# median of some processes.
MEMORY_RUNS = 3
# Entries of the state over all tokens in a float64 run with its gradients.
MOST_EXACT_UPDATES = 2**25

# Vector operations of the C kernel (vectors.h and recurrence.h) per vector of updates:
# multiply-adds, products, sums, minima and integer operations all take one slot of the
# same units; loads, stores and broadcasts use others and are not counted.
_EXP2 = 13  # 2 limits, 3 to split off the integer part, 6 of the polynomial, 2 integer
OPERATIONS = {
    # dt A; exp2; x B; h = a h + x B; y += h C
    "forward": 1 + _EXP2 + 1 + 1 + 1,
    # dt A; exp2; x B; h = a h + x B
    "backward, states again": 1 + _EXP2 + 1 + 1,
    # g += gy C; gC += gy h; gB += g x; gx += g B; g *= a; w = g h; gdt += w A;
    # gA += w dt
    "backward, gradients": 8,
}
# Per vector of tokens, shared by all its states: y = D u and x = dt u forward; x = dt
# u, gD, two of gdt, two of gu backward. What sums gB and gC over channels is left out.
OPERATIONS_PER_TOKEN = 8

Scan = Callable[..., Tensor]


def pinned_loop(
    u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor
) -> Any:
    """Scan token by token; a frozen copy of the reference, so that ratios compare."""
    x = dt * u  # (batch, channel, length)
    A = A.T.contiguous()  # (state, channel)
    h = x.new_zeros(u.shape[0], *A.shape)  # (batch, state, channel)
    outputs = []
    tokens = (one.mT.unbind(1) for one in (x, dt, B, C))
    for x_t, dt_t, B_t, C_t in zip(*tokens, strict=True):
        h = torch.exp(dt_t[:, None, :] * A) * h + x_t[:, None, :] * B_t[:, :, None]
        outputs.append((h * C_t[:, :, None]).sum(1))
    return torch.stack(outputs, 1).mT + D[:, None] * u


METHODS: dict[str, Scan] = {
    "c": functools.partial(selective_scan, backend="c"),
    "reference": functools.partial(selective_scan, backend="reference"),
    "pinned loop": pinned_loop,
}


def make_inputs(
    shape: tuple[int, int, int, int], layout: str, seed: int = 0
) -> tuple[list[Tensor], Tensor]:
    """Made-up inputs with gradients, and the gradient of the output."""
    b, d, n, length = shape
    generator = torch.Generator().manual_seed(seed)

    def sequence(width: int) -> Tensor:
        values = torch.randn(b, length, width, generator=generator)
        return values.mT if layout == "channels" else values.mT.contiguous()

    u, grad_y, B, C = sequence(d), sequence(d), sequence(n), sequence(n)
    # Step sizes from 0.001 to 0.1, as networks begin with.
    dt = (sequence(d).sigmoid() * 4.6 - 6.9).exp()
    A = -torch.arange(1.0, n + 1).expand(d, n).contiguous()
    D = torch.randn(d, generator=generator)
    return [one.requires_grad_() for one in (u, dt, A, B, C, D)], grad_y


def run_scan(scan: Scan, inputs: list[Tensor], grad_y: Tensor) -> list[Tensor]:
    """Values and gradients."""
    y = scan(*inputs)
    return [y.detach(), *torch.autograd.grad(y, inputs, grad_y)]


# -------------------------------------------------------------------- measuring


def measure(cell: Cell) -> Cell:
    """Measure one cell."""
    return {"time": measure_time, "memory": measure_memory, "floor": measure_floor}[
        cell["part"]
    ](cell)


def measure_time(cell: Cell) -> Cell:
    """Seconds of all methods in turn."""
    inputs, grad_y = make_inputs(tuple(cell["shape"]), cell["layout"])
    tasks = {
        name: functools.partial(run_scan, scan, inputs, grad_y)
        for name, scan in METHODS.items()
    }
    times = interleaved(tasks, cell["repeats"])
    return {
        name: {"median": median(values), "least": min(values), "most": max(values)}
        for name, values in times.items()
    }


def measure_memory(cell: Cell) -> Cell:
    """Peak memory above the inputs, then the errors."""
    scan, shape = METHODS[cell["method"]], tuple(cell["shape"])
    # What is loaded or made on first use does not count.
    run_scan(scan, *make_inputs((2, 32, shape[2], 64), cell["layout"]))
    inputs, grad_y = make_inputs(shape, cell["layout"])
    with PeakMemory() as peak:
        results = run_scan(scan, inputs, grad_y)
    del results
    return {"extra_mib": peak.extra_mib, **measure_errors(cell)}


def measure_errors(cell: Cell) -> Cell:
    """Largest difference to a float64 run, over its largest entry."""
    b, d, n, length = cell["shape"]
    n_samples = max(1, min(b, MOST_EXACT_UPDATES // (d * n * length)))
    inputs, grad_y = make_inputs((n_samples, d, n, length), cell["layout"], seed=1)
    exact = [one.detach().double().requires_grad_() for one in inputs]
    truths = run_scan(pinned_loop, exact, grad_y.double())
    found = run_scan(METHODS[cell["method"]], inputs, grad_y)
    errors = {
        name: float((got - want).abs().max() / want.abs().max())
        for name, got, want in zip(NAMES, found, truths, strict=True)
    }
    return {"errors": errors, "samples_with_errors": n_samples}


# ---------------------------------------------------------------------- results


def cells(shapes: dict[str, Any], repeats: int, *, quick: bool) -> list[Cell]:
    """All cells, in the order of the table."""
    sizes = {"size": 512, "mib": 16, "tries": 1} if quick else {}
    wanted: list[Cell] = [
        {"part": "floor", "size": 2048, "mib": 256, "tries": 7, **sizes}
    ]
    for name, shape in shapes.items():
        for layout in LAYOUTS:
            place = {"name": name, "shape": list(shape), "layout": layout}
            wanted.append({"part": "time", **place, "repeats": repeats})
            wanted += [
                {"part": "memory", **place, "method": method, "run": run}
                for method in METHODS
                for run in range(1 if quick else MEMORY_RUNS)
            ]
    return wanted


def n_updates(one: Cell) -> int:
    """State updates of a scan."""
    b, d, n, length = one["shape"]
    return b * d * n * length


def arithmetic_floor(one: Cell, rate: float) -> float:
    """Seconds of the kernel's vector operations at the highest rate."""
    per_update = sum(OPERATIONS.values()) + OPERATIONS_PER_TOKEN / one["shape"][2]
    return n_updates(one) * per_update / LANES / rate


def traffic_floor(one: Cell, bytes_per_second: float) -> float:
    """Seconds to move u, dt, y forward and u, dt and three gradients backward."""
    b, d, _, length = one["shape"]
    return 8 * 4 * b * d * length / bytes_per_second


def facts_of(results: list[Cell]) -> list[Cell]:
    """Everything known of a shape in a layout, one dict for each."""
    floors = [one["found"] for one in results if one["part"] == "floor"]
    rows = []
    for one in results:
        if one["part"] != "time":
            continue
        beside = memory_of(one, results)
        seconds = {name: times["median"] for name, times in one["found"].items()}
        row = {**one, "seconds": seconds, "beside": beside}
        row["ns"] = seconds["c"] / n_updates(one) * 1e9
        row["ratio"] = seconds["pinned loop"] / seconds["c"]
        if floors:
            row["floor"] = arithmetic_floor(one, best_rate(floors[0]))
            row["traffic"] = traffic_floor(one, floors[0]["bytes_per_second"])
        rows.append(row)
    return rows


def memory_of(one: Cell, results: list[Cell]) -> dict[str, Cell]:
    """Median peak and the errors of each method at a shape in a layout."""
    runs: dict[str, list[Cell]] = {}
    for other in results:
        place = other.get("name"), other.get("layout")
        if other["part"] == "memory" and place == (one["name"], one["layout"]):
            runs.setdefault(other["method"], []).append(other["found"])
    return {
        method: {**found[0], "extra_mib": median([run["extra_mib"] for run in found])}
        for method, found in runs.items()
    }


def best_rate(floor: Cell) -> float:
    """64-byte multiply-adds per second."""
    return max(floor["from_matrix_product"], floor.get("from_c_probe", 0.0))


def time_table(rows: list[Cell]) -> list[str]:
    """Make the table of the times and the floors."""
    head = ["shape (B, D, N, L)", "next to each other", "c, ms", "ns per update",
            "arithmetic floor, ns", "traffic floor, ns", "pinned loop, ms",
            "loop / c", "reference / c"]  # fmt: skip
    lines = []
    for row in rows:
        seconds, n = row["seconds"], n_updates(row)
        floors = (row.get("floor"), row.get("traffic"))
        lines.append([
            tuple(row["shape"]), row["layout"], digits(1e3 * seconds["c"]),
            digits(row["ns"]), *(digits(one and one / n * 1e9) for one in floors),
            digits(1e3 * seconds["pinned loop"]), f"{row['ratio']:.1f}",
            f"{seconds['reference'] / seconds['c']:.1f}",
        ])  # fmt: skip
    return table(head, lines, 2)


def memory_table(rows: list[Cell]) -> list[str]:
    """Make the table of memory and errors."""
    head = ["shape (B, D, N, L)", "next to each other",
            *(f"{one}, extra MiB" for one in METHODS),
            *(f"{one}, worst error" for one in METHODS), "worst of c in"]  # fmt: skip
    lines = []
    for row in rows:
        beside = row["beside"]
        if len(beside) < len(METHODS):
            continue
        errors = {name: beside[name]["errors"] for name in METHODS}
        lines.append([
            tuple(row["shape"]), row["layout"],
            *(f"{beside[name]['extra_mib']:.1f}" for name in METHODS),
            *(f"{max(errors[name].values()):.1e}" for name in METHODS),
            max(errors["c"], key=errors["c"].__getitem__),
        ])  # fmt: skip
    return table(head, lines, 2)


def verdicts(rows: list[Cell]) -> list[str]:
    """Say what was asked of the scan, and whether it was reached."""
    lines, worst = [], 0.0
    for row in rows:
        place = f"{tuple(row['shape'])}, {row['layout']} next to each other"
        beside = row["beside"]
        if row["name"] == LARGEST:
            lines.append(verdict(f"ns per update at {place}", row["ns"], MOST_NS))
            if {"c", "pinned loop"} <= beside.keys():
                share = beside["c"]["extra_mib"] / beside["pinned loop"]["extra_mib"]
                lines.append(
                    verdict(
                        f"extra memory over the loop's, {place}", share, MOST_MEMORY
                    )
                )
        if row["name"] in COMPARED:
            what = f"times the loop, {place}"
            lines.append(verdict(what, row["ratio"], LEAST_RATIO, at_least=True))
        if "c" in beside:
            worst = max(worst, *beside["c"]["errors"].values())
    if worst:
        lines.append(verdict("worst error of c, relative", worst, MOST_ERROR))
    shares = [row["floor"] / row["seconds"]["c"] for row in rows if "floor" in row]
    if shares:
        lines.append(
            f"c runs at {min(shares):.0%} to {max(shares):.0%} of the speed of its "
            "arithmetic floor."
        )
    return lines


def floor_lines(results: list[Cell]) -> list[str]:
    """How the floors come about."""
    counts = ", ".join(f"{count} {name}" for name, count in OPERATIONS.items())
    lines = [
        f"Arithmetic floor: vector operations of the C kernel per {LANES} updates "
        f"({counts}; and {OPERATIONS_PER_TOKEN} per token, shared by its states), each "
        "in the slot of a multiply-add, over the measured rate of 64-byte "
        "multiply-adds on all threads. Traffic floor: 8 passes over (B, D, L) at the "
        "bytes per second of a large copy, reads and writes counted.",
    ]
    for one in results:
        if one["part"] == "floor":
            rates = {key: f"{value:.3g}" for key, value in one["found"].items()}
            lines += [
                "",
                f"Measured per second, best of {one['tries']} to 10 tries: 64-byte "
                "multiply-adds of independent chains in a small C program "
                f"{rates.get('from_c_probe', '(no compiler)')}, from `torch.mm` of "
                f"{one['size']} x {one['size']} {rates['from_matrix_product']} (the "
                f"larger counts); bytes of a copy of {one['mib']} MiB "
                f"{rates['bytes_per_second']}.",
            ]
    return lines


def main() -> int:
    """Run the command line."""
    chosen = parser(__doc__).parse_args()
    repeats = 2 if chosen.quick else chosen.repeats
    wanted = cells(QUICK if chosen.quick else SHAPES, repeats, quick=chosen.quick)
    results = run_cells("scan", wanted, measure, chosen)
    rows = facts_of(results)
    if not rows:
        write("nothing is measured yet\n")
        return 1
    lines = [
        "Forward and backward in float32, gradients of all inputs; medians of "
        f"{repeats} interleaved rounds. `pinned loop` is a frozen copy of the lean "
        "torch loop. A state update is one of B D N L.",
        "",
        *time_table(rows),
        "",
        *floor_lines(results),
        "",
        "Peak memory above the inputs, gradients included (median of "
        f"{MEMORY_RUNS} processes), and the largest error relative to the largest "
        "entry of a float64 run, over the values y and all gradients.",
        "",
        *memory_table(rows),
    ]
    title = "Selective scan on a processor"
    report("scan", title, lines, verdicts(rows), results, chosen)
    return 0 if len(results) == len(wanted) else 1


if __name__ == "__main__":
    sys.exit(main())
