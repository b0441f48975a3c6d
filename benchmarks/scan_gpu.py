"""Selective scan on a GPU: errors, times and memory of all backends that work there.

Values and gradients are compared with a float64 run of the reference; times are medians
of CUDA events around the forward pass and around forward and backward, the backends in
turn; memory is the peak above the inputs. The floor of a pass is the traffic of what
any scan must read and write, over the measured bandwidth of a large copy.

    python benchmarks/scan_gpu.py            # all shapes, then the tables
    python benchmarks/scan_gpu.py --sweep    # also times of other tiles of the kernel
    python benchmarks/scan_gpu.py --quick    # small shapes; nothing is kept

Results go to ``benchmarks/results/scan_gpu.{json,md}``. Without a CUDA GPU the command
says so and leaves what is there as it is.
"""

import argparse
import itertools
import json
import platform
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from measuring import MIB, Cell, digits, median, table, verdict, write
from torch import Tensor

import sciseq
from sciseq.ops.selective_scan import available_backends, selective_scan, triton_backend

RESULTS = Path(__file__).parent / "results"
DEVICE = "cuda"

# batch B, channels D, states N, length L, whether each group is reversed
SHAPES: dict[str, tuple[int, int, int, int, tuple[bool, ...]]] = {
    "S-Mamba, ETTh1, both directions": (32, 512, 2, 11, (False, True)),
    "L 21": (32, 512, 16, 21, (False,)),
    "L 137": (32, 512, 16, 137, (False,)),
    "L 321": (32, 512, 16, 321, (False,)),
    "L 862": (32, 512, 16, 862, (False,)),
    "L 862, both directions": (32, 1024, 16, 862, (False, True)),
    "L 4096": (4, 256, 16, 4096, (False,)),
    "64 states": (8, 256, 64, 321, (False,)),
}
QUICK = {
    "one direction": (2, 48, 16, 70, (False,)),
    "both directions": (2, 96, 3, 33, (False, True)),
}
# Channels next to each other in memory, as the blocks make them, or tokens.
LAYOUTS = ("channels", "tokens")
NAMES = ("y", "u", "dt", "A", "B", "C", "D")  # the values, then the gradients
# Tokens of a chunk, entries of the state in a tile, and its channels at most.
TILES = (
    (8, 256, 32), (16, 256, 32), (8, 512, 32), (16, 128, 32), (8, 128, 32),
    (4, 512, 32),
)  # fmt: skip
SWEPT = ("L 862", "L 4096")

MOST_ERROR = 1e-5
# Entries of the state over all tokens in a float64 run with its gradients.
MOST_EXACT_UPDATES = 2**26
COPY_MIB = 1024
WARM_UP = 3
# The reference, one kernel after the other for every token, takes seconds; its first
# run is like its others.
SLOW_REPEATS = 2


# -------------------------------------------------------------------- measuring


def make_inputs(
    shape: Sequence[Any], layout: str, seed: int = 0
) -> tuple[list[Tensor], Tensor]:
    """Made-up inputs with gradients, and the gradient of the output."""
    b, d, n, length, reverse = shape
    generator = torch.Generator().manual_seed(seed)

    def sequence(*width: int) -> Tensor:
        values = torch.randn(b, *width[:-1], length, width[-1], generator=generator)
        values = values.to(DEVICE).mT
        return values if layout == "channels" else values.contiguous()

    u, grad_y = sequence(d), sequence(d)
    B, C = sequence(len(reverse), n), sequence(len(reverse), n)
    # Step sizes from 0.001 to 0.1, as networks begin with.
    dt = (sequence(d).sigmoid() * 4.6 - 6.9).exp()
    A = -torch.arange(1.0, n + 1, device=DEVICE).expand(d, n).contiguous()
    D = torch.randn(d, generator=generator).to(DEVICE)
    return [one.requires_grad_() for one in (u, dt, A, B, C, D)], grad_y


def forward(
    backend: str, inputs: list[Tensor], reverse: tuple[bool, ...]
) -> Callable[[], Tensor]:
    """Values alone, without what gradients would need."""

    def run() -> Tensor:
        with torch.no_grad():
            return selective_scan(*inputs, reverse=reverse, backend=backend)

    return run


def both_passes(
    backend: str, inputs: list[Tensor], grad_y: Tensor, reverse: tuple[bool, ...]
) -> Callable[[], list[Tensor]]:
    """Values and gradients."""

    def run() -> list[Tensor]:
        y = selective_scan(*inputs, reverse=reverse, backend=backend)
        return [y.detach(), *torch.autograd.grad(y, inputs, grad_y)]

    return run


def milliseconds(task: Callable[[], Any]) -> float:
    """Time of one call on the GPU."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    task()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end))


def medians(tasks: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Medians over rounds in which the tasks take turns; the reference in some."""
    for name, task in tasks.items():
        for _ in range(0 if name == "reference" else WARM_UP):
            task()
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for index in range(repeats):
        for name, task in tasks.items():
            if name != "reference" or index < SLOW_REPEATS:
                times[name].append(milliseconds(task))
    return {name: median(values) for name, values in times.items()}


def extra_mib(task: Callable[[], Any]) -> float:
    """Peak memory of a call above what was there before, results included."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    results = task()
    peak = torch.cuda.max_memory_allocated()
    del results
    return (peak - before) / MIB


def errors(
    backends: Sequence[str], shape: Sequence[Any], layout: str
) -> dict[str, dict[str, float]]:
    """Largest difference to a float64 run, over its largest entry, by backend."""
    b, d, n, length, reverse = shape
    n_samples = max(1, min(b, MOST_EXACT_UPDATES // (d * n * length)))
    inputs, grad_y = make_inputs((n_samples, *shape[1:]), layout, seed=1)
    exact = [one.detach().double().requires_grad_() for one in inputs]
    truths = both_passes("reference", exact, grad_y.double(), reverse)()
    worst = {}
    for backend in backends:
        found = both_passes(backend, inputs, grad_y, reverse)()
        worst[backend] = {
            name: float((got.double() - want).abs().max() / want.abs().max())
            for name, got, want in zip(NAMES, found, truths, strict=True)
        }
    return worst


def copy_bandwidth(repeats: int) -> float:
    """Bytes per second of a large copy, reads and writes counted."""
    here = torch.empty(COPY_MIB * MIB // 4, device=DEVICE).normal_()
    there = torch.empty_like(here)
    time_of = medians({"copy": lambda: there.copy_(here)}, repeats)
    return 2 * here.numel() * 4 / (time_of["copy"] / 1e3)


def measure(name: str, shape: Sequence[Any], layout: str, repeats: int) -> Cell:
    """Everything about one shape in one layout."""
    backends, reverse = available_backends(DEVICE), shape[-1]
    inputs, grad_y = make_inputs(shape, layout)
    values = {one: forward(one, inputs, reverse) for one in backends}
    gradients = {one: both_passes(one, inputs, grad_y, reverse) for one in backends}
    cell = {
        "name": name,
        "shape": list(shape[:-1]),
        "reverse": list(reverse),
        "layout": layout,
        "forward_ms": medians(values, repeats),
        "both_ms": medians(gradients, repeats),
        "extra_mib": {one: extra_mib(task) for one, task in gradients.items()},
        "errors": errors(backends, shape, layout),
        "bytes": traffic(shape),
    }
    write(f"{name}, {layout}: {json.dumps(cell['both_ms'])}\n")
    return cell


def traffic(shape: Sequence[Any]) -> dict[str, int]:
    """Bytes that any scan in float32 must move."""
    b, d, n, length, reverse = shape
    sequence, map_ = 4 * b * d * length, 4 * b * len(reverse) * n * length
    # Forward u, dt, B, C in and y out; backward those and the gradient of y in, the
    # gradients of u, dt, B and C out.
    return {"forward": 3 * sequence + 2 * map_, "both": 8 * sequence + 6 * map_}


def sweep(shapes: dict[str, tuple[Any, ...]], repeats: int) -> list[Cell]:
    """Time the Triton kernels with other tiles."""
    found, backend = [], triton_backend
    before = backend.CHUNK, backend.ENTRIES, backend.CHANNELS
    for name, layout, tiles in itertools.product(shapes, LAYOUTS, TILES):
        backend.CHUNK, backend.ENTRIES, backend.CHANNELS = tiles
        inputs, grad_y = make_inputs(shapes[name], layout)
        reverse = shapes[name][-1]
        tasks = {
            "forward_ms": forward("triton", inputs, reverse),
            "both_ms": both_passes("triton", inputs, grad_y, reverse),
        }
        cell = dict(zip(("tokens", "entries", "channels"), tiles, strict=True))
        times = medians(tasks, repeats)
        found.append({"name": name, "layout": layout, **cell, **times})
        write(f"{found[-1]}\n")
    backend.CHUNK, backend.ENTRIES, backend.CHANNELS = before
    return found


# ---------------------------------------------------------------------- results


def place(cell: Cell) -> list[Any]:
    """First columns of a row."""
    return [cell["name"], tuple(cell["shape"]), cell["layout"]]


def time_table(cells: list[Cell], bandwidth: float) -> list[str]:
    """Milliseconds and the share of the roofline."""
    head = ["shape", "(B, D, N, L)", "next to each other", "backend", "forward, ms",
            "its floor, ms", "share", "both passes, ms", "their floor, ms",
            "share"]  # fmt: skip
    rows = []
    for cell in cells:
        for backend, both in cell["both_ms"].items():
            row = [*place(cell), backend]
            times = {"forward": cell["forward_ms"][backend], "both": both}
            for which, found in times.items():
                floor = cell["bytes"][which] / bandwidth * 1e3
                row += [digits(found), digits(floor), f"{floor / found:.0%}"]
            rows.append(row)
    return table(head, rows, 4)


def memory_table(cells: list[Cell]) -> list[str]:
    """Memory and the worst error."""
    head = ["shape", "(B, D, N, L)", "next to each other", "backend", "extra MiB",
            "worst error", "in"]  # fmt: skip
    rows = []
    for cell in cells:
        for backend, found in cell["errors"].items():
            worst = max(found, key=found.__getitem__)
            extra = f"{cell['extra_mib'][backend]:.1f}"
            rows.append([*place(cell), backend, extra, f"{found[worst]:.1e}", worst])
    return table(head, rows, 4)


def sweep_table(swept: list[Cell]) -> list[str]:
    """Rows of the sweep."""
    head = ["shape", "next to each other", "tokens of a chunk", "entries of a tile",
            "its channels at most", "forward, ms", "both passes, ms"]  # fmt: skip
    rows = [
        [one["name"], one["layout"], one["tokens"], one["entries"], one["channels"],
         digits(one["forward_ms"]), digits(one["both_ms"])]
        for one in swept
    ]  # fmt: skip
    return table(head, rows, 2)


def verdicts(cells: list[Cell]) -> list[str]:
    """Errors against their bound, and which backend is the faster one."""
    lines = []
    for backend in cells[0]["errors"]:
        worst = max(max(cell["errors"][backend].values()) for cell in cells)
        lines.append(verdict(f"worst error of {backend}", worst, MOST_ERROR))
    for other in ("mamba_ssm", "reference"):
        ratios = [
            cell["both_ms"][other] / cell["both_ms"]["triton"]
            for cell in cells
            if {"triton", other} <= cell["both_ms"].keys()
        ]
        if ratios:
            lines.append(
                f"both passes, time of {other} over that of triton: {min(ratios):.2f} "
                f"to {max(ratios):.2f}, median {median(ratios):.2f}"
            )
    return lines


def versions() -> dict[str, str]:
    """Versions that results depend on."""
    found = {"sciseq": sciseq.__version__, "python": platform.python_version()}
    for package in ("torch", "triton", "mamba-ssm"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return {**found, "cuda": str(torch.version.cuda)}


def report(
    cells: list[Cell], swept: list[Cell], bandwidth: float, repeats: int, *, keep: bool
) -> None:
    """Write the results files, and show the page."""
    facts = {
        "command": "python benchmarks/scan_gpu.py" + " --sweep" * bool(swept),
        "date": time.strftime("%Y-%m-%d"),
        "gpu": torch.cuda.get_device_name(),
        "versions": versions(),
        "repeats": repeats,
        "copy_bytes_per_second": bandwidth,
        "verdicts": verdicts(cells),
        "cells": cells,
        "sweep": swept,
    }
    page = [
        "# Selective scan on a GPU",
        "",
        f"Command: `{facts['command']}`. Measured {facts['date']} on one "
        f"{facts['gpu']} with {facts['versions']}.",
        "",
        f"float32, gradients of all inputs; medians of {repeats} rounds between CUDA "
        f"events, in which the backends take turns (the reference in {SLOW_REPEATS}). "
        "Floor: bytes that a scan must move "
        "(forward u, dt, B, C in and y out; backward those and the gradient of y in, "
        "the gradients of u, dt, B and C out) at the bandwidth of a copy of "
        f"{COPY_MIB} MiB, {bandwidth / 1e9:.0f} GB/s with reads and writes counted. "
        "Share: floor over time.",
        "",
        *time_table(cells, bandwidth),
        "",
        "Peak memory above the inputs, gradients included, and the largest error "
        "relative to the largest entry of a float64 run of the reference, over the "
        "values y and all gradients.",
        "",
        *memory_table(cells),
        "",
    ]
    if swept:
        page += ["Other tiles of the Triton kernels.", ""]
        page += [*sweep_table(swept), ""]
    page += [*[f"- {line}" for line in facts["verdicts"]], ""]
    write("\n".join(page))
    if keep:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "scan_gpu.json").write_text(json.dumps(facts, indent=1) + "\n")
        (RESULTS / "scan_gpu.md").write_text("\n".join(page))


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=15, help="at least 10 to keep")
    parser.add_argument("--sweep", action="store_true", help="try other tiles")
    parser.add_argument("--quick", action="store_true", help="nothing is kept")
    chosen = parser.parse_args()
    if not torch.cuda.is_available():
        write("scan_gpu: torch finds no CUDA GPU here, so nothing is measured.\n")
        return 0
    shapes = QUICK if chosen.quick else SHAPES
    bandwidth = copy_bandwidth(chosen.repeats)
    cells = [
        measure(name, shape, layout, chosen.repeats)
        for name, shape in shapes.items()
        for layout in LAYOUTS
    ]
    swept = []
    if chosen.sweep and "triton" in available_backends(DEVICE):
        names = list(shapes)[:1] if chosen.quick else SWEPT
        swept = sweep({name: shapes[name] for name in names}, chosen.repeats)
    keep = not chosen.quick and chosen.repeats >= 10
    report(cells, swept, bandwidth, chosen.repeats, keep=keep)
    return 0


if __name__ == "__main__":
    sys.exit(main())
