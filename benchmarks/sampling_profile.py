"""Where the time of autoregressive sampling goes: products of matrices, and the rest.

Shares of torch's own profiler (self time on the processor) while the models of
generation_peers.py sample, for the sizes and batches given there. ``bmm`` reads the
stored keys and values, ``addmm`` and ``linear`` the weights: what must be done by
whoever samples in float32 with a cache.

    python benchmarks/sampling_profile.py --threads 1
"""

import sys
from typing import Any

import torch
from generation_peers import BATCHES, SIZES, our_model, run_ours
from measuring import Cell, parser, report, run_cells, table, write
from torch.profiler import ProfilerActivity, profile

LENGTH = 128
PRODUCTS = {"aten::bmm": "stored rows", "aten::addmm": "weights", "aten::mm": "weights"}
KINDS = ("stored rows", "weights", "the rest")


def measure(cell: Cell) -> Cell:
    """Sample under the profiler, after a run that does not count."""
    request: dict[str, Any] = {
        "layers": cell["layers"], "d_model": cell["d_model"], "batch": cell["batch"],
        "length": LENGTH, "d_ff": 4 * cell["d_model"], "heads": 4, "vocabulary": 32,
    }  # fmt: skip
    model = our_model(request)
    run_ours(model, request)
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        run_ours(model, request)
    shares = dict.fromkeys(KINDS, 0.0)
    events = seen.key_averages()
    total = sum(one.self_cpu_time_total for one in events)
    for one in events:
        kind = PRODUCTS.get(one.key, "the rest")
        shares[kind] += one.self_cpu_time_total / total
    return shares


def main() -> int:
    """Run the command line."""
    options = parser(__doc__)
    options.set_defaults(threads=1)
    chosen = options.parse_args()
    wanted: list[Cell] = [
        {"layers": layers, "d_model": d_model, "batch": batch}
        for layers, d_model in (SIZES[:1] if chosen.quick else SIZES)
        for batch in BATCHES
    ]
    results = run_cells("sampling_profile", wanted, measure, chosen)
    if not results:
        write("sampling_profile: nothing is cached yet\n")
        return 1
    rows = [
        [f"{one['layers']} x {one['d_model']}", one["batch"],
         *(f"{100 * one['found'][kind]:.0f} %" for kind in KINDS)]
        for one in results
    ]  # fmt: skip
    lines = [
        f"Sampling {LENGTH} tokens with a cache, float32, torch {torch.__version__}.",
        "", *table(["layers x width", "batch", *KINDS], rows), "",
    ]  # fmt: skip
    title = "Where the time of sampling goes"
    report("sampling_profile", title, lines, [], results, chosen)
    return 0


if __name__ == "__main__":
    sys.exit(main())
