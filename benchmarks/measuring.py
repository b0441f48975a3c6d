"""What the speed benchmarks share: times, memory, fresh processes, cells and pages.

A benchmark is a list of cells (dicts of what determines a figure) and a function that
measures one. Every cell runs in a process of its own with the stated number of threads,
and is cached under ``benchmarks/cache/<name>``; the page is made from what is cached.
With ``--add`` what the recorded page was made from counts as cached, on any machine.
"""

import argparse
import gc
import hashlib
import json
import math
import multiprocessing
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from importlib.metadata import version
from pathlib import Path
from typing import Any

import sciseq

HERE = Path(__file__).parent
RESULTS = HERE / "results"
MIB = 2**20
# What measuring adds to a cell.
ADDED = ("found", "threads", "busy_cores", "date", "processor")

Cell = dict[str, Any]


# ------------------------------------------------------------------- measuring


def interleaved(
    tasks: Mapping[str, Callable[[], Any]],
    repeats: int,
    *,
    calls: int | None = None,
    least_seconds: float = 0.05,
) -> dict[str, list[float]]:
    """Return seconds per call of each task, one entry per round.

    Tasks take turns, and every other round in the opposite order, so that a change of
    the machine's load meets all of them. A round times ``calls`` calls, or as many as
    fill ``least_seconds``; two calls of each come first and do not count.
    """
    numbers = {}
    for name, task in tasks.items():
        task()
        seconds = elapsed(task)
        numbers[name] = calls or max(1, math.ceil(least_seconds / seconds))
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for index in range(repeats):
        for name in list(tasks) if index % 2 == 0 else reversed(list(tasks)):
            times[name].append(elapsed(tasks[name], numbers[name]))
    return times


def elapsed(task: Callable[[], Any], calls: int = 1) -> float:
    """Return seconds per call."""
    start = time.perf_counter()
    for _ in range(calls):
        task()
    return (time.perf_counter() - start) / calls


class PeakMemory:
    """Peak resident memory of a ``with`` block above what was resident before it.

    On Linux the kernel's high-water mark is set back first; elsewhere the block counts
    only as far as it exceeds everything before it. Enter it after a small call of the
    same kind, so that libraries loaded on first use do not count.
    """

    extra_mib: float

    def __enter__(self) -> "PeakMemory":
        gc.collect()
        try:
            Path("/proc/self/clear_refs").write_text("5")
            self.before = memory_mib("VmRSS")
        except OSError:
            self.before = memory_mib("VmHWM")
        return self

    def __exit__(self, *exception: object) -> None:
        self.extra_mib = memory_mib("VmHWM") - self.before


def memory_mib(entry: str) -> float:
    """Return resident memory of this process: ``"VmRSS"`` now, ``"VmHWM"`` at most."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (MIB if sys.platform == "darwin" else 1024)
    return (
        float(next(line for line in lines if line.startswith(entry)).split()[1]) / 1024
    )


def in_fresh_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a module-level function in a new interpreter and return its result.

    Raises
    ------
    BrokenProcessPool
        When that process was killed, as a rule for want of memory.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *arguments).result()


# ----------------------------------------------------------------------- cells


def parser(description: str) -> argparse.ArgumentParser:
    """Return the options that all speed benchmarks have."""
    made = argparse.ArgumentParser(description=description.splitlines()[0])
    made.add_argument("--threads", type=int, default=2)
    made.add_argument("--repeats", type=int, default=7)
    made.add_argument("--again", action="store_true", help="measure anew")
    made.add_argument("--table-only", action="store_true", help="what is cached")
    made.add_argument(
        "--add", action="store_true", help="keep what is recorded, measure the rest"
    )
    made.add_argument(
        "--quick", action="store_true", help="small settings; nothing is kept"
    )
    return made


def run_cells(
    name: str,
    wanted: list[Cell],
    measure: Callable[[Cell], Any],
    chosen: argparse.Namespace,
) -> list[Cell]:
    """Measure the cells that are not cached, and return all that are there."""
    # Libraries read these when a process starts.
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = str(chosen.threads)
    if chosen.add and not chosen.quick:
        _cache_recorded(name)
    done = []
    for cell in wanted:
        path = _cache_path(name, cell, chosen.threads)
        is_cached = path.exists() and not chosen.quick
        known = json.loads(path.read_text()) if is_cached else None
        # What was killed may have been killed by a person: it is tried again.
        is_done = known is not None and not (chosen.again or _has_failed(known))
        if is_done or (known is not None and chosen.table_only):
            done.append(known)
        elif not chosen.table_only:
            result = _run_cell(cell, measure, chosen.threads)
            write(f"{cell}: {json.dumps(result['found'])[:200]}\n")
            done.append(result)
            if not chosen.quick:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps(result, indent=1) + "\n")
    return done


def _cache_recorded(name: str) -> None:
    """Put the recorded cells into the cache, where it lacks them."""
    page = RESULTS / f"{name}.json"
    facts = json.loads(page.read_text()) if page.exists() else {"cells": []}
    if facts["cells"] and facts["versions"]["sciseq"] != sciseq.__version__:
        return
    for result in facts["cells"]:
        cell = {key: one for key, one in result.items() if key not in ADDED}
        path = _cache_path(name, cell, result["threads"])
        result.setdefault("processor", facts["processor"])
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(result, indent=1) + "\n")


def _has_failed(result: Cell) -> bool:
    found = result["found"]
    return isinstance(found, dict) and "failed" in found


def _run_cell(cell: Cell, measure: Callable[[Cell], Any], threads: int) -> Cell:
    busy = busy_cores()
    try:
        found = in_fresh_process(_measure, measure, cell, threads)
    except BrokenProcessPool:
        found = {"failed": "the process was killed, as a rule for want of memory"}
    facts = {"found": found, "threads": threads, "busy_cores": round(busy, 2)}
    where = {"date": time.strftime("%Y-%m-%d"), "processor": processor()}
    return {**cell, **facts, **where}


def busy_cores(seconds: float = 0.5) -> float:
    """Return how many cores other programs keep busy while this one sleeps."""

    def ticks() -> tuple[int, int]:
        line = Path("/proc/stat").read_text().splitlines()[0]
        values = [int(one) for one in line.split()[1:]]
        return sum(values), values[3] + values[4]  # idle, and waiting for a disk

    try:
        before, idle_before = ticks()
        time.sleep(seconds)
        after, idle_after = ticks()
    except OSError:
        return os.getloadavg()[0]
    share = 1 - (idle_after - idle_before) / max(1, after - before)
    return share * (os.cpu_count() or 1)


def _measure(measure: Callable[[Cell], Any], cell: Cell, threads: int) -> Any:
    import torch

    torch.set_num_threads(threads)
    return measure(cell)


def _cache_path(name: str, cell: Cell, threads: int) -> Path:
    text = json.dumps([cell, sciseq.__version__, threads])
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    return HERE / "cache" / name / f"{digest}.json"


# ----------------------------------------------------------------------- pages


def verdict(what: str, value: float, bound: float, *, at_least: bool = False) -> str:
    """Say whether a bound is kept."""
    is_kept = value >= bound if at_least else value <= bound
    kind = "at least" if at_least else "at most"
    word = "kept" if is_kept else "MISSED"
    return f"{what}: {value:.4g}, {kind} {bound:g} is asked for: {word}"


def span(values: list[float], places: int = 3) -> str:
    """Write the median, and the range over seeds."""
    low, high = min(values), max(values)
    return f"{median(values):.{places}f} ({low:.{places}f} to {high:.{places}f})"


def claim(what: str, gains: list[float]) -> list[str]:
    """Say in a line whether a claim shows, by its gain with each seed, if there are."""
    if not gains:
        return []
    n = sum(one > 0 for one in gains)
    shown = {len(gains): "shows", 0: "does NOT show"}.get(n, "unclear")
    return [f"{what}: {shown} ({n} of {len(gains)} seeds; difference {span(gains)})"]


def table(head: list[str], rows: list[list[Any]], n_text: int = 1) -> list[str]:
    """Return the lines of a Markdown table; the first columns are text."""
    rule = [" --- " if i < n_text else " ---: " for i in range(len(head))]
    lines = [f"| {' | '.join(head)} |", f"|{'|'.join(rule)}|"]
    return [*lines, *(f"| {' | '.join(map(str, row))} |" for row in rows)]


def digits(value: float | None, n: int = 3) -> str:
    """Write a number with some significant digits and no exponent."""
    if value is None:
        return ""
    if value == 0 or not math.isfinite(value):
        return str(value)
    places = max(0, n - 1 - math.floor(math.log10(abs(value))))
    return f"{value:.{places}f}"


def report(
    name: str,
    title: str,
    lines: list[str],
    verdicts: list[str],
    results: list[Cell],
    chosen: argparse.Namespace,
    packages: tuple[str, ...] = ("torch", "numpy"),
) -> None:
    """Write ``results/<name>.{json,md}``, and show the page."""
    versions = {"sciseq": sciseq.__version__, "python": platform.python_version()}
    versions |= {one: version(one) for one in packages}
    by_cell = dict.fromkeys(one.get("processor", processor()) for one in results)
    processors = ", ".join(by_cell)
    facts = {
        # How to measure this, not how the page was written from what is cached.
        "command": f"python benchmarks/{name}.py --threads {chosen.threads} "
        f"--repeats {chosen.repeats}",
        "processor": processors,
        "processor_cores": os.cpu_count(),
        "machine": platform.machine(),
        "versions": versions,
        "verdicts": verdicts,
        "cells": results,
    }
    dates = sorted({one["date"] for one in results})
    busy = [one["busy_cores"] for one in results]
    page = [
        f"# {title}",
        "",
        f"Command: `{facts['command']}`. Measured {dates[0]} to {dates[-1]} with "
        f"{versions} on {os.cpu_count()} cores ({processors}), {chosen.threads} "
        f"threads. Cores that other programs kept busy when a cell began: "
        f"{median(busy):.2f} (median), {max(busy):.2f} (most).",
        "",
        *lines,
        "",
        *[f"- {line}" for line in verdicts],
        "",
    ]
    if not chosen.quick:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{name}.json").write_text(json.dumps(facts, indent=1) + "\n")
        (RESULTS / f"{name}.md").write_text("\n".join(page))
    write("\n".join(page))


def processor() -> str:
    """Return the name of the processor, as far as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2] for line in lines if line.startswith("model name")]
    return names[0].strip() if names else platform.processor()


def median(values: list[float]) -> float:
    """Return the median."""
    return statistics.median(values)


def write(text: str) -> None:
    """Show text at once."""
    sys.stdout.write(text)
    sys.stdout.flush()
