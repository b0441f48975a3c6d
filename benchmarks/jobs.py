"""Jobs benchmark: 10 000 series from file to file, and runs that are killed.

A saved PatchTST, at the sizes of its authors (look-back 336) or a small one (look-back
96, width 32), forecasts 24 hours of 10 000 series of 1000 rows, from Parquet to
Parquet:

- what a job costs, in one warm process, beside the bare batched forward pass over ready
  windows and the write of its result; the two take turns;
- ``sciseq run`` from start to end, with the memory of all its processes together: one
  process, two, and a Dask cluster of two workers; all must write the same bytes;
- neuralforecast's ``predict`` on the same panel with a PatchTST of the same size, in an
  environment of its own (made by ``peers.py``);
- ``sciseq run`` killed with SIGKILL at random moments of its run, and started again:
  the result must be that of an undisturbed run, byte for byte; so too when one of two
  workers is killed.

    python benchmarks/jobs.py                # all cells, then the table
    python benchmarks/jobs.py --table-only   # from what is cached
"""

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from measuring import (
    HERE,
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
from peers import PEER, environment

import sciseq
from sciseq.jobs import read_job, run_job

H = 24
MODELS: dict[str, dict[str, Any]] = {
    "published": {"lookback": 336, "d_model": 128, "d_ff": 256, "n_layers": 3,
                  "n_heads": 16},
    "small": {"lookback": 96, "d_model": 32, "d_ff": 64, "n_layers": 2, "n_heads": 4},
}  # fmt: skip
PATCHES = {"patch_length": 16, "stride": 8}
BATCH = 256
SPREADS: dict[str, list[str]] = {
    "1 process": ["n_jobs = 1"],
    "2 processes": ["n_jobs = 2"],
    "Dask, 2 workers": ["n_jobs = 2", 'scheduler = "local"'],
}
MOST_COST = 1.5
KILLS, KILLED_SERIES = 20, 1500


# ------------------------------------------------------------------------ the panel


def place_of(cell: Cell) -> Path:
    """Return the folder of a panel and its model, made when it is missing."""
    folder = (
        HERE / "cache" / "jobs" / f"{cell['series']}x{cell['rows']}-{cell['model']}"
    )
    if not (folder / "ready").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        make(folder, cell["series"], cell["rows"], MODELS[cell["model"]])
        (folder / "ready").touch()
    return folder


def make(folder: Path, n_series: int, n_rows: int, sizes: dict[str, Any]) -> None:
    """Write daily cycles with noise, and a model fitted on a few of them."""
    generator = np.random.default_rng(0)
    times = pd.date_range("2024-01-01", periods=n_rows, freq="h")
    phase = generator.uniform(0, 2 * np.pi, size=(n_series, 1))
    values = 10 + np.sin(np.arange(n_rows) * 2 * np.pi / 24 + phase)
    values += 0.1 * generator.normal(size=values.shape)
    names = np.array([f"s{one:06d}" for one in range(n_series)], dtype=object)
    frame = pd.DataFrame(
        {
            "unique_id": np.repeat(names, n_rows),
            "ds": np.tile(times, n_series),
            "y": values.reshape(-1),
        }
    )
    frame.to_parquet(folder / "panel.parquet", index=False)
    some = frame[: 50 * n_rows].set_index(["unique_id", "ds"])
    model = sciseq.PatchTSTForecaster(
        horizon=H, max_epochs=1, random_state=0, device="cpu", dropout=0.0,
        **PATCHES, **sizes,
    )  # fmt: skip
    model.fit(some).save(folder / "model")


def job_file(folder: Path, name: str, work: list[str]) -> Path:
    """Write a job."""
    lines = [
        f'name = "{name}"',
        '[source]\npath = "panel.parquet"',
        'time_column = "ds"\nseries_column = "unique_id"',
        '[model]\npath = "model"',
        f'[destination]\npath = "{name}.parquet"',
        "[work]\nseries_per_part = 500",
        *work,
    ]
    path = folder / f"{name}.toml"
    path.write_text("\n".join(lines) + "\n")
    return path


def forget(folder: Path, name: str) -> None:
    """Remove what a job has written."""
    shutil.rmtree(folder / f"{name}.state", ignore_errors=True)
    (folder / f"{name}.parquet").unlink(missing_ok=True)


def digest(path: Path) -> str:
    """Return a hash of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


# ------------------------------------------------------------------------ measuring


def measure(cell: Cell) -> Cell:
    """Measure one cell."""
    parts = {
        "cost": measure_cost,
        "command": measure_command,
        "peer": measure_peer,
        "kills": measure_kills,
    }
    return parts[cell["part"]](cell)


def measure_cost(cell: Cell) -> Cell:
    """Seconds of a job in this process, beside the bare forward pass and the write."""
    folder = place_of(cell)
    job = read_job(job_file(folder, "cost", SPREADS["1 process"]))
    model = sciseq.load(folder / "model")
    run_job(job)
    result = pd.read_parquet(folder / "cost.parquet")
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(cell["series"], model.lookback, 1, generator=generator)

    def bare() -> None:
        with torch.inference_mode():
            for part in x.split(BATCH):
                model.network_(part, None)
        result.to_parquet(folder / "bare.parquet")

    def whole() -> None:
        forget(folder, "cost")
        run_job(job)

    def again() -> None:
        run_job(job)

    tasks = {"bare": bare, "job": whole, "again": again}
    found = interleaved(tasks, cell["repeats"], calls=1)
    return {name: median(values) for name, values in found.items()}


class Watched:
    """A command, and the most memory of it and of all that it starts."""

    def __init__(self, command: list[Any], **options: Any) -> None:
        start = time.perf_counter()
        process = subprocess.Popen(command, **options)
        self.peak_mib = 0.0
        while process.poll() is None:
            self.peak_mib = max(self.peak_mib, tree_mib(process.pid))
            time.sleep(0.1)
        self.code = process.returncode
        self.seconds = time.perf_counter() - start


def tree_mib(root: int) -> float:
    """Return the resident memory of a process and its descendants."""
    parents, sizes = {}, {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            pages = int((entry / "statm").read_text().split()[1])
        except (OSError, IndexError):
            continue  # it has ended
        parents[int(entry.name)] = int(fields[1])
        sizes[int(entry.name)] = pages * os.sysconf("SC_PAGE_SIZE") / 2**20
    inside = {root}
    while more := {one for one, up in parents.items() if up in inside} - inside:
        inside |= more
    return sum(sizes.get(one, 0.0) for one in inside)


def command(path: Path) -> list[Any]:
    """Return the command that runs a job, as users type it."""
    main = "from sciseq.cli import main; main()"
    return [sys.executable, "-c", main, "run", path, "--quiet"]


def measure_command(cell: Cell) -> Cell:
    """Seconds and memory of the command from start to end."""
    folder = place_of(cell)
    path = job_file(folder, "command", SPREADS[cell["spread"]])
    runs = []
    for _ in range(cell["repeats"]):
        forget(folder, "command")
        runs.append(Watched(command(path)))
        assert runs[-1].code == 0, runs[-1].code
    return {
        "seconds": median([one.seconds for one in runs]),
        "peak_mib": max(one.peak_mib for one in runs),
        "digest": digest(folder / "command.parquet"),
    }


def measure_peer(cell: Cell) -> Cell:
    """Seconds of neuralforecast on the same panel."""
    folder = place_of(cell)
    request = {**PATCHES, **MODELS[cell["model"]],
               "panel": str(folder / "panel.parquet"), "horizon": H, "batch": BATCH,
               "repeats": cell["repeats"],
               "threads": torch.get_num_threads()}  # fmt: skip
    done = subprocess.run(
        [environment(), HERE / "jobs_peer.py"],
        input=json.dumps(request), capture_output=True, text=True, check=True,
    )  # fmt: skip
    answer = done.stdout.rpartition("ANSWER ")[2]
    return dict(json.loads(answer))


def measure_kills(cell: Cell) -> Cell:
    """Kill the command at random moments; count the results that differ afterwards."""
    folder = place_of(cell)
    path = job_file(folder, "kills", SPREADS[cell["spread"]])
    text = path.read_text().replace("series_per_part = 500", "series_per_part = 50")
    path.write_text(text)
    forget(folder, "kills")
    whole = Watched(command(path))
    expected = digest(folder / "kills.parquet")
    chance = random.Random(0)
    wrong, unfinished = 0, 0
    for _ in range(cell["kills"]):
        forget(folder, "kills")
        process = subprocess.Popen(command(path), start_new_session=True)
        time.sleep(chance.uniform(0.1, 1.0) * whole.seconds)
        victim = process.pid
        if cell["victim"] == "a worker":
            workers = children(process.pid)
            victim = chance.choice(workers) if workers else victim
        if process.poll() is None:
            unfinished += 1
        kill(victim)
        if cell["victim"] == "all":
            kill(-process.pid)
        process.wait()
        seen = folder / "kills.parquet"
        if seen.exists():  # what was visible was whole
            wrong += digest(seen) != expected
        again = subprocess.run(command(path), check=False)
        wrong += again.returncode != 0 or digest(seen) != expected
    return {"kills": cell["kills"], "during": unfinished, "wrong": wrong}


def kill(number: int) -> None:
    """Kill a process, or with a negative number its group, if it is there."""
    try:
        os.kill(number, signal.SIGKILL)
    except ProcessLookupError:
        return


def children(pid: int) -> list[int]:
    """Return the processes that a process has started and that do work."""
    found = subprocess.run(
        ["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False
    )
    return [int(one) for one in found.stdout.split()]


# --------------------------------------------------------------------------- results


def page(results: list[Cell]) -> tuple[list[str], list[str]]:
    """Lines of the results page, and what was asked for."""
    lines, verdicts = [], []
    by_part: dict[str, list[Cell]] = {}
    for one in results:
        by_part.setdefault(one["part"], []).append(one)
    for one in by_part.get("cost", []):
        found = one["found"]
        lines += [
            f"{one['model']} model, {one['series']:,} series of {one['rows']:,} rows, "
            "one warm process: the "
            f"job {digits(found['job'])} s, the bare forward pass and the write "
            f"{digits(found['bare'])} s, the same run again {digits(found['again'])} "
            "s.",
            "",
        ]
        verdicts.append(
            verdict(f"{one['model']} model: job, times the bare pass and the write",
                    found["job"] / found["bare"], MOST_COST)
        )  # fmt: skip
        verdicts += [
            f"{PEER} `predict` on the same panel: {digits(peer['found']['predict'])} "
            f"s, {peer['found']['predict'] / found['job']:.2f} times the job, which "
            "reads and writes too"
            for peer in by_part.get("peer", [])
            if peer["model"] == one["model"]
        ]
    commands = by_part.get("command", [])
    if commands:
        rows = [
            [one["spread"], digits(one["found"]["seconds"]),
             f"{one['found']['peak_mib']:,.0f}"]
            for one in commands
        ]  # fmt: skip
        head = ["`sciseq run`, from start to end", "seconds", "MiB, all processes"]
        lines += [*table(head, rows), ""]
        same = len({one["found"]["digest"] for one in commands}) == 1
        verdicts.append(
            f"{len(commands)} ways of spreading the work: "
            + ("the same bytes" if same else "OTHER BYTES")
        )
    verdicts += [
        f"killed ({one['victim']}, {one['spread']}) {one['found']['kills']} times, "
        f"{one['found']['during']} of them before the end: {one['found']['wrong']} "
        "results that differ after the next run"
        for one in by_part.get("kills", [])
    ]
    return lines, verdicts


def main() -> int:
    """Run the command line."""
    options = parser(__doc__)
    options.add_argument("--parts", nargs="+",
                         default=["cost", "command", "peer", "kills"])  # fmt: skip
    chosen = options.parse_args()
    n_series, n_rows = (200, 500) if chosen.quick else (10_000, 1000)
    size = {"series": n_series, "rows": n_rows, "repeats": min(chosen.repeats, 3)}
    n_kills = 2 if chosen.quick else KILLS
    small = {"series": 200 if chosen.quick else KILLED_SERIES, "rows": 300,
             "model": "small"}  # fmt: skip
    wanted: list[Cell] = [
        *({"part": "cost", "model": one, **size} for one in MODELS),
        *({"part": "command", "spread": one, "model": "published", **size}
          for one in SPREADS),
        *({"part": "peer", "model": one, **size} for one in MODELS),
        {"part": "kills", "spread": "1 process", "victim": "all", **small,
         "kills": n_kills},
        {"part": "kills", "spread": "2 processes", "victim": "a worker", **small,
         "kills": n_kills},
    ]  # fmt: skip
    wanted = [one for one in wanted if one["part"] in chosen.parts]
    results = run_cells("jobs", wanted, measure, chosen)
    if not results:
        write("jobs: nothing is cached yet\n")
        return 1
    lines, verdicts = page(results)
    report("jobs", "Jobs", lines, verdicts, results, chosen, ("torch", "pandas"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
