"""Generation of long sequences: seconds against the length, with structured attention.

A transformer, Combiner with the plan "fixed" (spans are rows), and axial layers draw
four sequences of random weights, token by token, at equal widths and depth. Processor
seconds, the least of some runs that take turns; the slope is that between the two
longest lengths, in double logarithms: what a doubling costs.

    python benchmarks/long_sampling.py --threads 1          # all cells, then the table
    python benchmarks/long_sampling.py --table-only         # from what is cached
"""

import math
import sys
import time
from typing import Any

import numpy as np
from measuring import Cell, digits, parser, report, run_cells, table, write

import sciseq

EDGES = (16, 32, 64, 128)
N_SAMPLES, TOKENS = 4, 8
DENSE, COMBINER, AXIAL = "dense", "Combiner, fixed", "axial layers"
METHODS = (DENSE, COMBINER, AXIAL)
LONGEST = {DENSE: 64, COMBINER: 128, AXIAL: 128}  # minutes above
FEW_RUNS = 64  # from this edge on a run counts that is made once
SIZES: dict[str, Any] = {
    "d_model": 64, "d_ff": 128, "n_layers": 2, "n_heads": 4, "max_epochs": 1,
    "learning_rate": 1e-12, "batch_size": 2, "validation_fraction": 0.0,
    "random_state": 0, "device": "cpu",
}  # fmt: skip


def model_of(name: str, edge: int) -> Any:
    """Return a model whose weights are all but random."""
    X = np.random.default_rng(0).integers(TOKENS, size=(2, edge, edge))
    if name == AXIAL:
        return sciseq.AxialAutoregressor(**SIZES).fit(X)
    rows = X.reshape(len(X), -1)
    if name == COMBINER:
        return sciseq.CombinerSequence(**SIZES, plan="fixed", span=edge).fit(rows)
    return sciseq.AutoregressiveSequence(**SIZES).fit(rows)


def measure(cell: Cell) -> Cell:
    """Sample some times."""
    model, seconds = model_of(cell["method"], cell["edge"]), []
    for _ in range(1 if cell["edge"] >= FEW_RUNS else 3):
        started = time.process_time()
        made = model.sample(N_SAMPLES, random_state=0)
        seconds.append(time.process_time() - started)
    assert np.size(made) == N_SAMPLES * cell["edge"] ** 2
    work = model.last_work
    return {"seconds": min(seconds), "parameters": model.n_parameters_,
            "rows": float(work.n_rows.double().mean())}  # fmt: skip


def page(results: list[Cell]) -> list[str]:
    """Return the table, by length."""
    seconds = {(one["edge"], one["method"]): one["found"]["seconds"] for one in results}
    rows = [
        [edge**2, *(digits(seconds[edge, name], 3) if (edge, name) in seconds else ""
                    for name in METHODS)]
        for edge in EDGES if any((edge, name) in seconds for name in METHODS)
    ]  # fmt: skip
    slopes = ["slope"]
    for name in METHODS:
        two = [edge for edge in EDGES if (edge, name) in seconds][-2:]
        times = [seconds[edge, name] for edge in two]
        is_there = len(two) == 2
        slope = math.log2(times[-1] / times[0]) / 2 if is_there else math.nan
        slopes.append(f"{slope:.2f}")
    return [
        f"Processor seconds for {N_SAMPLES} sequences. Two layers 64 wide; axial "
        "layers have more parameters.", "",
        *table(["length", *METHODS], [*rows, slopes]), "",
    ]  # fmt: skip


def main() -> int:
    """Run the command line."""
    options = parser(__doc__)
    options.set_defaults(threads=1)
    chosen = options.parse_args()
    wanted: list[Cell] = [
        {"method": name, "edge": edge}
        for edge in (EDGES[:1] if chosen.quick else EDGES)
        for name in METHODS
        if edge <= LONGEST[name]
    ]
    results = run_cells("long_sampling", wanted, measure, chosen)
    if not results:
        write("long_sampling: nothing is cached yet\n")
        return 1
    report("long_sampling", "Generation of long sequences", page(results), [], results,
           chosen)  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
