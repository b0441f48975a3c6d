"""Structured attention benchmark: multiplications and seconds against the length.

Dense attention (torch's own kernel), the plans of Combiner attention, and the two
attentions of a pair of axial layers, forward and with all gradients, at lengths up to
16384, bidirectional and causal. One thread by default. Times are medians of interleaved
rounds; multiplications are counted, not measured: scores and weighted sums, padding and
masked entries included, except that dense causal attention is counted without its
masked half.

Combiner gives every allowed token a weight in one layer, as dense attention does; one
axial attention does not, a pair of them does if not causal. What that is worth in
quality is not measured here.

    python benchmarks/structured_attention.py               # all cells, then the tables
    python benchmarks/structured_attention.py --again       # measure anew
    python benchmarks/structured_attention.py --table-only  # from what is cached
"""

import functools
import math
import sys
from collections.abc import Callable
from typing import Any

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
from torch import Tensor

from sciseq.generation.parts.combiner_attention import (
    combiner_attention,
    combiner_multiplications,
    default_span,
)
from sciseq.generation.parts.combiner_plans import PLANS

LENGTHS = tuple(2**level for level in range(8, 15))
QUICK = (64, 100)
N_HEADS, WIDTH = 2, 32
# Longer than this, a dense call takes seconds.
LONG, LONG_REPEATS = 4096, 3
DENSE, AXIAL = "dense", "axial pair"
METHODS = (DENSE, *PLANS, AXIAL)
PASSES = ("forward", "with gradients")
# Slopes between the two longest lengths, in double logarithms.
MOST_GROWTH = {
    "fixed": 1.6,
    "logsparse": 1.3,
    "axial_vertical": 1.6,
    "axial_row_major": 1.6,
}

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]


# ------------------------------------------------------------------------ methods


def dense_attention(q: Tensor, k: Tensor, v: Tensor, *, causal: bool) -> Tensor:
    """Dense attention; the kernel skips blocks that are masked."""
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal)


def axial_pair(q: Tensor, k: Tensor, v: Tensor, *, causal: bool) -> Tensor:
    """Attention along rows, then along columns, as in a pair of axial layers.

    Causal, both are masked. In a network each would have projections of its own.
    """
    n_heads, n_tokens, width = q.shape[1:]
    n_columns = default_span(n_tokens)
    n_rows = -(-n_tokens // n_columns)
    padding = (0, 0, 0, n_rows * n_columns - n_tokens)
    # (head, row, column, width); padding is read, which costs as much as a mask.
    grids = [
        torch.nn.functional.pad(one[0], padding).view(n_heads, n_rows, n_columns, width)
        for one in (q, k, v)
    ]
    q, k, v = grids
    found = dense_attention(q, k, v, causal=causal)
    columns = (one.transpose(1, 2) for one in (q, k, found))
    found = dense_attention(*columns, causal=causal).transpose(1, 2)
    return found.flatten(1, 2)[None, :, :n_tokens]


def method(name: str, *, causal: bool) -> Attention:
    """Return the attention of this name."""
    if name == DENSE:
        return functools.partial(dense_attention, causal=causal)
    if name == AXIAL:
        return functools.partial(axial_pair, causal=causal)
    return functools.partial(combiner_attention, plan=name, causal=causal)


def multiplications(name: str, n_tokens: int, *, causal: bool) -> int:
    """Multiplications of all heads, forward."""
    if name == DENSE:
        n_read = (n_tokens + 1) / 2 if causal else n_tokens
        return N_HEADS * round(2 * WIDTH * n_tokens * n_read)
    if name == AXIAL:
        n_columns = default_span(n_tokens)
        n_rows = -(-n_tokens // n_columns)
        n_read = n_rows + n_columns
        if causal:
            n_read = n_read / 2 + 1
        return N_HEADS * round(2 * WIDTH * n_rows * n_columns * n_read)
    return N_HEADS * combiner_multiplications(n_tokens, WIDTH, plan=name, causal=causal)


# ---------------------------------------------------------------------- measuring


def measure(cell: Cell) -> Cell:
    """Seconds of all methods in turn."""
    n_tokens, causal = cell["length"], cell["causal"]
    generator = torch.Generator().manual_seed(0)
    shape = (1, N_HEADS, n_tokens, WIDTH)
    inputs = [torch.randn(shape, generator=generator) for _ in range(4)]
    grad_y = inputs.pop()
    for one in inputs:
        one.requires_grad_()
    runs = {"forward": run_forward, "with gradients": run_with_gradients}
    found: Cell = {}
    for name_of_pass, run in runs.items():
        tasks = {
            name: functools.partial(run, method(name, causal=causal), inputs, grad_y)
            for name in METHODS
        }
        times = interleaved(tasks, cell["repeats"])
        found[name_of_pass] = {
            name: {"median": median(values), "least": min(values), "most": max(values)}
            for name, values in times.items()
        }
    return found


@torch.no_grad()
def run_forward(attention: Attention, inputs: list[Tensor], _: Tensor) -> Tensor:
    """Values."""
    return attention(*inputs)


def run_with_gradients(
    attention: Attention, inputs: list[Tensor], grad_y: Tensor
) -> Any:
    """Values and the gradients of all inputs."""
    return torch.autograd.grad(attention(*inputs), inputs, grad_y)


# ------------------------------------------------------------------------ results


def cells(lengths: tuple[int, ...], repeats: int) -> list[Cell]:
    """All cells, in the order of the tables."""
    return [
        {
            "length": n_tokens,
            "causal": causal,
            "repeats": min(repeats, LONG_REPEATS) if n_tokens > LONG else repeats,
        }
        for causal in (False, True)
        for n_tokens in lengths
    ]


def seconds(one: Cell, name: str, name_of_pass: str) -> float:
    """Return the median of a method in a cell."""
    return float(one["found"][name_of_pass][name]["median"])


def direction(one: Cell) -> str:
    """Say which tokens are read."""
    return "causal" if one["causal"] else "bidirectional"


def multiplication_table(results: list[Cell]) -> list[str]:
    """Make the table of the counts."""
    head = ["reads", "L", *(f"{name}, 10⁶" for name in METHODS)]
    rows = []
    for one in results:
        counts = [
            multiplications(name, one["length"], causal=one["causal"])
            for name in METHODS
        ]
        rows.append([direction(one), one["length"], *(digits(n / 1e6) for n in counts)])
    return table(head, rows)


def time_table(results: list[Cell], name_of_pass: str) -> list[str]:
    """Make the table of the times of one pass."""
    head = ["reads", "L", *(f"{name}, ms" for name in METHODS)]
    rows = [
        [
            direction(one),
            one["length"],
            *(digits(1e3 * seconds(one, name, name_of_pass)) for name in METHODS),
        ]
        for one in results
    ]
    return table(head, rows)


def first_faster(results: list[Cell], name: str, name_of_pass: str) -> str:
    """Say from which length on a method is faster than dense attention."""
    faster_from = None
    for one in sorted(results, key=lambda one: one["length"], reverse=True):
        times = [seconds(one, which, name_of_pass) for which in (name, DENSE)]
        if times[0] >= times[1]:
            break
        faster_from = one["length"]
    return "at no length" if faster_from is None else f"from L {faster_from}"


def crossing_table(results: list[Cell]) -> list[str]:
    """Make the table of where structured attention begins to pay."""
    head = ["reads", "pass", *METHODS[1:]]
    rows = []
    for causal in (False, True):
        chosen = [one for one in results if one["causal"] == causal]
        if not chosen:
            continue
        rows += [
            [
                direction(chosen[0]),
                name_of_pass,
                *(first_faster(chosen, name, name_of_pass) for name in METHODS[1:]),
            ]
            for name_of_pass in PASSES
        ]
    return table(head, rows, 2)


def verdicts(results: list[Cell]) -> list[str]:
    """Say how the costs grow, and whether the longest is faster than dense."""
    lines = []
    for causal in (False, True):
        chosen = [one for one in results if one["causal"] == causal]
        if len(chosen) < 2:
            continue
        *_, shorter, longest = sorted(chosen, key=lambda one: one["length"])
        steps = math.log(longest["length"] / shorter["length"])
        where = f"{direction(longest)}, L {shorter['length']} to {longest['length']}"
        for name, most in MOST_GROWTH.items():
            few, many = (
                multiplications(name, one["length"], causal=causal)
                for one in (shorter, longest)
            )
            what = f"exponent of multiplications, {name}, {where}"
            lines.append(verdict(what, math.log(many / few) / steps, most))
        for name in PLANS:
            for name_of_pass in PASSES:
                ratio = seconds(longest, DENSE, name_of_pass) / seconds(
                    longest, name, name_of_pass
                )
                what = (
                    f"dense seconds over {name}, {direction(longest)}, "
                    f"L {longest['length']}, {name_of_pass}"
                )
                lines.append(verdict(what, ratio, 1.0, at_least=True))
    return lines


def main() -> int:
    """Run the command line."""
    options = parser(__doc__)
    options.set_defaults(threads=1)
    chosen = options.parse_args()
    repeats = 2 if chosen.quick else chosen.repeats
    wanted = cells(QUICK if chosen.quick else LENGTHS, repeats)
    results = run_cells("structured_attention", wanted, measure, chosen)
    if not results:
        write("nothing is measured yet\n")
        return 1
    lines = [
        f"One sequence, {N_HEADS} heads of width {WIDTH}, float32; medians of "
        f"{repeats} interleaved rounds ({min(repeats, LONG_REPEATS)} above L {LONG}). "
        "The span is the square root of the length, rounded up. `axial pair`: "
        "attention along rows, then along columns.",
        "",
        "Multiplications, forward (counted):",
        "",
        *multiplication_table(results),
    ]
    for name_of_pass in PASSES:
        lines += ["", f"Time, {name_of_pass}:", "", *time_table(results, name_of_pass)]
    lines += [
        "",
        "Faster than dense attention, at this length and all longer ones:",
        "",
        *crossing_table(results),
    ]
    title = "Structured attention on a processor"
    report("structured_attention", title, lines, verdicts(results), results, chosen)
    return 0 if len(results) == len(wanted) else 1


if __name__ == "__main__":
    sys.exit(main())
