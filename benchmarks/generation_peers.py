"""Generation benchmark: tokens per second beside `generate` of transformers.

``AutoregressiveSequence.sample`` against ``model.generate`` of transformers 5.24.0 at
equal layers, width, heads, inner width, vocabulary, length and batch: a GPT-2 (plain
feed-forward networks, as ours) and a Llama (rotary positions, as ours). Weights are
random on both sides; every sequence has the full length; tokens are drawn from all of
the vocabulary at temperature 1, with a cache of keys and values. Runs take turns.

Ours takes its seeds per sequence and draws in float64; the peer draws in float32 from
one generator. Rates are per second of processor time, so that other programs on the
machine matter less; seconds on the clock are in the JSON file.

The peer runs in a process and an environment of its own, which this script makes under
``benchmarks/environments`` when it is missing (some minutes); ``--python`` names the
interpreter of another one.

    python benchmarks/generation_peers.py                # all cells, then the tables
    python benchmarks/generation_peers.py --table-only   # from what is cached
"""

import functools
import os
import subprocess
import sys
import time
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
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

ENVIRONMENT = HERE / "environments" / "transformers"
TORCH, PEER = "torch==2.13.0", "transformers==5.24.0"
VOCABULARY, HEADS = 32, 4
SIZES = ((2, 64), (4, 128), (4, 256))  # layers, width; the inner width is four times it
BATCHES, LENGTHS = (1, 8, 64), (128, 512)
KINDS = ("GPT-2", "Llama")
LEAST_RATIO = 2.0
# Runs of the largest cells take tens of seconds.
MANY_TOKENS, FEW_REPEATS = 8 * 512, 2


# ------------------------------------------------------------------------ peer


def environment() -> Path:
    """Return the peer's interpreter, and make its environment when it is missing."""
    python = ENVIRONMENT / ("Scripts" if os.name == "nt" else "bin") / "python"
    stamp = ENVIRONMENT / ".installed"
    if stamp.exists() and stamp.read_text() == f"{TORCH} {PEER}":
        return python
    write(f"making the environment of {PEER}, which takes some minutes\n")
    venv.create(ENVIRONMENT, with_pip=True, symlinks=os.name != "nt")
    # torch first: the same build as ours, whatever the peer would ask for.
    for packages in ([TORCH], [TORCH, PEER]):
        subprocess.run([python, "-m", "pip", "install", "-q", *packages], check=True)
    stamp.write_text(f"{TORCH} {PEER}")
    return python


# ------------------------------------------------------------------- measuring


def request_of(cell: Cell) -> dict[str, Any]:
    """Everything that determines one run."""
    asked = {name: cell[name] for name in ("layers", "d_model", "batch", "length")}
    return {**asked, "d_ff": 4 * cell["d_model"], "heads": HEADS,
            "vocabulary": VOCABULARY}  # fmt: skip


def our_model(request: dict[str, Any]) -> Any:
    """Return an estimator of the size; a rate of nothing leaves the weights random."""
    rng = np.random.default_rng(0)
    X = rng.integers(request["vocabulary"], size=(8, request["length"]))
    X[0, : request["vocabulary"]] = np.arange(request["vocabulary"])
    return sciseq.AutoregressiveSequence(
        d_model=request["d_model"], d_ff=request["d_ff"], n_layers=request["layers"],
        n_heads=request["heads"], max_epochs=1, learning_rate=1e-12,
        validation_fraction=0.0, random_state=0, device="cpu",
    ).fit(X)  # fmt: skip


def run_ours(model: Any, request: dict[str, Any]) -> Cell:
    """Generate once."""
    begun = time.perf_counter(), time.process_time()
    tokens = model.sample(request["batch"], random_state=0)
    ended = time.perf_counter(), time.process_time()
    assert tokens.shape == (request["batch"], request["length"]), tokens.shape
    return {
        "wall": ended[0] - begun[0],
        "processor": ended[1] - begun[1],
        "parameters": model.n_parameters_,
        "different": len({tuple(one) for one in tokens.tolist()}),
    }


def measure(cell: Cell) -> Cell:
    """Generate with all in turn, after a run that does not count."""
    request = request_of(cell)
    command = [cell["python"], HERE / "transformers_worker.py", torch.get_num_threads()]
    worker = PeerProcess(command, "transformers")
    model = our_model(request)
    tasks: dict[str, Callable[[], Cell]] = {
        "ours": functools.partial(run_ours, model, request)
    }
    for kind in KINDS:
        tasks[kind] = functools.partial(worker, {**request, "kind": kind})
    found: dict[str, list[Cell]] = {name: [] for name in tasks}
    for task in tasks.values():
        task()
    for index in range(cell["repeats"]):
        for name in tasks if index % 2 == 0 else reversed(list(tasks)):
            found[name].append(tasks[name]())
    worker.close()
    return found


def measure_with(python: str, cell: Cell) -> Cell:
    """Measure one cell with the peer's interpreter, which is not part of the cell."""
    return measure({**cell, "python": python})


# --------------------------------------------------------------------- results


def rates(cell: Cell) -> dict[str, float]:
    """Tokens per second of processor time, medians over the runs."""
    n_tokens = cell["batch"] * cell["length"]
    return {
        name: n_tokens / median([one["processor"] for one in runs])
        for name, runs in cell["found"].items()
    }


def least_ratio(cell: Cell, kind: str) -> float:
    """Our slowest run against the fastest of the peer."""
    seconds = {name: [one["processor"] for one in runs]
               for name, runs in cell["found"].items()}  # fmt: skip
    return float(min(seconds[kind]) / max(seconds["ours"]))


def rate_table(results: list[Cell]) -> list[str]:
    """Make the table of all cells."""
    head = ["layers x width", "batch", "length", "ours, tokens/s"]
    for kind in KINDS:
        head += [f"{kind}, tokens/s", "times", "least"]
    rows = []
    for cell in results:
        found = rates(cell)
        row = [f"{cell['layers']} x {cell['d_model']}", cell["batch"], cell["length"],
               f"{found['ours']:.0f}"]  # fmt: skip
        for kind in KINDS:
            row += [f"{found[kind]:.0f}", digits(found["ours"] / found[kind]),
                    digits(least_ratio(cell, kind))]  # fmt: skip
        rows.append(row)
    return table(head, rows)


def verdicts(results: list[Cell]) -> list[str]:
    """Say what was asked for, and whether it was reached."""
    lines = []
    for kind in KINDS:
        for cell in results:
            found = rates(cell)
            text = f"ours over {kind}, {cell['layers']} x {cell['d_model']}, batch "
            text += f"{cell['batch']}, length {cell['length']}"
            ratio = found["ours"] / found[kind]
            lines.append(verdict(text, ratio, LEAST_RATIO, at_least=True))
    return lines


def page(results: list[Cell]) -> list[str]:
    """Lines of the results page."""
    weights = {
        f"{one['layers']} x {one['d_model']}": ", ".join(
            f"{name} {runs[0]['parameters']:,}" for name, runs in one["found"].items()
        )
        for one in results
    }
    return [
        f"{PEER} with {TORCH}; {VOCABULARY} tokens, {HEADS} heads, inner width four "
        "times the width, float32, random weights, no token ends a sequence. Medians "
        "of runs in turn, per second of processor time; `least` is our slowest run "
        "against the peer's fastest.",
        "",
        *rate_table(results),
        "",
        *[f"- weights, {size}: {text}" for size, text in weights.items()],
        "- Llama has gated feed-forward networks: three matrices where ours and GPT-2 "
        "have two.",
    ]


def main() -> int:
    """Run the command line."""
    options = parser(__doc__)
    options.set_defaults(threads=1, repeats=5)
    options.add_argument("--python", help="interpreter that has transformers")
    chosen = options.parse_args()
    wanted: list[Cell] = [
        {"layers": layers, "d_model": width, "batch": batch, "length": length,
         "repeats": min(chosen.repeats, FEW_REPEATS)
         if batch * length > MANY_TOKENS else chosen.repeats}
        for layers, width in SIZES
        for length in LENGTHS
        for batch in BATCHES
    ]  # fmt: skip
    if chosen.quick:
        wanted = [{**one, "repeats": 1, "length": 32} for one in wanted[:3]]
    python = chosen.python or ("" if chosen.table_only else str(environment()))
    measured = functools.partial(measure_with, python)
    results = run_cells("generation_peers", wanted, measured, chosen)
    if not results:
        write("generation_peers: nothing is measured yet\n")
        return 1
    report("generation_peers", "Tokens per second beside transformers",
           page(results), verdicts(results), results, chosen)  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
