"""Three more claims of generators, each with its baseline: order, template, attention.

- order: grids of 4 by 4 numbers as in Sudoku (S10), with some cells given. A masked
  diffusion model fills the others one by one: which ones first? As many passes for all.
  The autoregressive model of the same size fills from left to right.
- template: paths as text, such as "1,2;2,2;3,3", told by where they begin and in which
  direction they go. How many samples can be read, and how far are they off, with and
  without a template, in how many passes?
- attention: grids of 4 kinds of cells in raster order, each like the cell on the left
  and the one above (S7). Nats per cell on new grids, by what the attention costs:
  dense, own row only (sparse), plans of Combiner, axial layers, at equal widths, depth
  and training.

Medians over seeds.

    python benchmarks/sequence_claims.py --threads 1          # all cells, the tables
    python benchmarks/sequence_claims.py --parts order        # one part only
    python benchmarks/sequence_claims.py --table-only         # from what is cached
"""

import itertools
import re
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from measuring import (
    Cell,
    claim,
    digits,
    median,
    parser,
    report,
    run_cells,
    span,
    table,
    write,
)
from torch import Tensor

import sciseq
from sciseq.generation.parts.combiner_attention import combiner_multiplications
from sciseq.generation.parts.combiner_plans import PLANS, Heads, Plan

SIZES: dict[str, Any] = {
    "d_model": 32, "d_ff": 64, "n_layers": 2, "n_heads": 2, "dropout": 0.0,
    "learning_rate": 3e-3, "validation_fraction": 0.0, "device": "cpu",
}  # fmt: skip
ORDERS = ("confidence", "margin", "entropy", "left_to_right", "random")
GIVEN = (4, 6, 8)  # cells of a grid that are given
N_GRIDS, N_PATHS, N_POINTS = 100, 400, 4
TEMPLATE = ";".join(["?,?"] * N_POINTS)
EDGES = (8, 16, 32)  # of the grids whose cells are foretold
STATES, COUPLING = 4, 1.2
N_CELLS, PASSES = 2**17, 16
SPARSE, AXIAL = "own row only", "axial layers"
PLANS_OF: dict[str, Any] = {
    SPARSE: SPARSE,
    "Combiner, fixed": "fixed",
    "Combiner, axial_vertical": "axial_vertical",
    "Combiner, axial_row_major": "axial_row_major",
    "Combiner, row_major and vertical": ["axial_row_major", "axial_vertical"],
}
ATTENTION = ("dense", *PLANS_OF, AXIAL)


def epochs(cell: Cell, wanted: int) -> int:
    """Return the passes over the data; one in a quick run."""
    return 1 if cell["quick"] else wanted


# ------------------------------------------------------------------- S10, order


def all_grids() -> Any:
    """Return all grids (288, 16) whose rows, columns and quarters hold 0 to 3 once."""
    rows = list(itertools.permutations(range(4)))
    return np.array([
        np.ravel(four) for four in itertools.product(rows, repeat=4)
        if is_right(np.ravel(four)[None])[0]
    ])  # fmt: skip


def is_right(grids: Any) -> Any:
    """Tell which grids (n, 16) keep the rules."""
    cells = np.asarray(grids).reshape(-1, 2, 2, 2, 2)  # (n, band, row, stack, column)
    rows = cells.reshape(-1, 4, 4)
    quarters = cells.transpose(0, 1, 3, 2, 4).reshape(-1, 4, 4)
    parts = np.concatenate([rows, rows.transpose(0, 2, 1), quarters], axis=1)
    return (np.sort(parts, axis=2) == np.arange(4)).all(axis=(1, 2))


def measure_order(cell: Cell) -> Cell:
    """Fill new grids in each order."""
    rng, seed = np.random.default_rng([10, cell["seed"]]), cell["seed"]
    grids = rng.permutation(all_grids())
    train, test = grids[N_GRIDS:], grids[:N_GRIDS]
    params = {**SIZES, "n_layers": 3, "d_model": 64, "d_ff": 128, "random_state": seed}
    masked = sciseq.MaskedDiffusionSequence(**params, max_epochs=epochs(cell, 300))
    plain = sciseq.AutoregressiveSequence(**params, max_epochs=epochs(cell, 300))
    masked.fit(train)
    plain.fit(train)
    places = rng.permuted(np.tile(np.arange(16), (len(test), 1)), axis=1)
    found: Cell = {}
    for n in GIVEN:
        gaps = np.full_like(test, -1)
        rows = np.arange(len(test))[:, None]
        gaps[rows, places[:, :n]] = test[rows, places[:, :n]]
        asked = {"temperature": 0, "random_state": seed}
        made = {
            order: masked.set_params(order=order).infill(gaps, **asked)
            for order in ORDERS
        }
        made["autoregressive"] = plain.infill(gaps, **asked)
        made["autoregressive, 16 candidates"] = plain.infill(gaps, random_state=seed)
        found[str(n)] = {
            name: float(is_right(one).mean()) for name, one in made.items()
        }
    return found


# ---------------------------------------------------------------------- template


def paths(n: int, rng: np.random.Generator) -> tuple[list[str], Any, Any]:
    """Draw paths as text, what they are told by (n, 4), and the paths (n, point, 2)."""
    start = rng.uniform(2, 7, size=(n, 1, 2))
    speed = rng.uniform(-1, 1, size=(n, 1, 2))
    steps = np.arange(1, N_POINTS + 1)[:, None]
    noise = rng.normal(scale=0.2, size=(n, N_POINTS, 2))
    points = np.clip(np.rint(start + speed * steps + noise), 0, 9).astype(int)
    text = [";".join(f"{x},{y}" for x, y in one) for one in points.tolist()]
    return text, np.concatenate([start, speed], axis=2)[:, 0], points


def distances(made: list[str], points: Any) -> tuple[float, float]:
    """Return the share that cannot be read, and the mean distance of the others."""
    is_path = [re.fullmatch(r"\d,\d(;\d,\d)*", one) is not None
               and one.count(";") == N_POINTS - 1 for one in made]  # fmt: skip
    far = [
        np.linalg.norm(np.array([part.split(",") for part in one.split(";")], int) - of,
                       axis=1).mean()
        for one, of, yes in zip(made, points, is_path, strict=True) if yes
    ]  # fmt: skip
    return 1 - float(np.mean(is_path)), float(np.mean(far)) if far else float("nan")


def measure_template(cell: Cell) -> Cell:
    """Write paths with and without a template."""
    rng, seed = np.random.default_rng([17, cell["seed"]]), cell["seed"]
    X, y, _ = paths(N_PATHS, rng)
    _, told, points = paths(200, rng)
    params = {**SIZES, "random_state": seed, "max_epochs": epochs(cell, 60)}
    digit = list("0123456789")
    legal = {i: digit for i, one in enumerate(TEMPLATE) if one == "?"}
    models: dict[str, tuple[Any, Cell, Cell]] = {
        "autoregressive": (sciseq.AutoregressiveSequence, {}, {}),
        "autoregressive, template in sampling": (
            sciseq.AutoregressiveSequence, {},
            {"template": TEMPLATE, "allowed": legal}),
        "masked diffusion": (sciseq.MaskedDiffusionSequence, {}, {}),
        "template in training too (ViLaD)": (
            sciseq.ConditionalDiffusionSequence,
            {"template": TEMPLATE, "legal": legal}, {}),
    }  # fmt: skip
    found: Cell = {}
    for name, (kind, changes, call) in models.items():
        model = kind(**params, **changes).fit(X, y)
        for steps in (None,) if "auto" in name else (2, 4, None):
            if steps is not None or "auto" not in name:
                model.set_params(n_steps=steps)
            made = model.sample(condition=told, random_state=seed, **call)
            failed, distance = distances(made, points)
            assert model.last_work is not None
            passes = float(model.last_work.n_passes.double().mean())
            key = name if steps is None else f"{name}, {steps} passes"
            found[key] = {"failed": failed, "distance": distance, "passes": passes}
    return found


# --------------------------------------------------------------- S7, attention


def read_own_row(heads: Heads, span: int, causal: bool) -> Tensor:
    """Read the own span alone: what Combiner adds the other spans to."""
    n_tokens = heads.q.shape[1]
    padded = heads.map(
        lambda x: F.pad(x, (0, 0, 0, -n_tokens % span)).view(
            len(x), -1, span, x.shape[2]
        )
    )
    y = F.scaled_dot_product_attention(*padded, is_causal=causal)
    return y.flatten(1, 2)[:, :n_tokens]


def cost_of_own_row(n_tokens: int, span: int, causal: bool) -> int:
    """Count products with a vector: scores and sums of the own span."""
    return 2 * n_tokens * span


def cells_of(edge: int, n: int, rng: np.random.Generator) -> tuple[Any, float]:
    """Draw grids (n, edge, edge), and return their nats per cell by the true law."""
    grids = np.zeros((n, edge, edge), dtype=np.int64)
    total = 0.0
    for i, j in itertools.product(range(edge), repeat=2):
        scores = np.zeros((n, STATES))
        for neighbour in ([grids[:, i, j - 1]] if j else []) + (
            [grids[:, i - 1, j]] if i else []
        ):
            scores[np.arange(n), neighbour] += COUPLING
        p = np.exp(scores)
        p /= p.sum(axis=1, keepdims=True)
        drawn = (rng.random((n, 1)) > p.cumsum(axis=1)[:, :-1]).sum(axis=1)
        grids[:, i, j] = drawn
        total -= float(np.log(p[np.arange(n), drawn]).sum())
    return grids, total / grids.size


def measure_attention(cell: Cell) -> Cell:
    """Fit on grids in raster order, and score new ones."""
    PLANS[SPARSE] = Plan(read_own_row, cost_of_own_row)
    edge, name, seed = cell["edge"], cell["method"], cell["seed"]
    rng = np.random.default_rng([7, edge, seed])
    n_training = N_CELLS // edge**2
    (X, _), (test, truth) = cells_of(edge, n_training, rng), cells_of(edge, 64, rng)
    params = {**SIZES, "random_state": seed, "max_epochs": epochs(cell, PASSES),
              "batch_size": 4096 // edge**2}  # fmt: skip
    length = edge * edge
    width = SIZES["d_model"] // SIZES["n_heads"]
    each = SIZES["n_layers"] * SIZES["n_heads"]
    if name == AXIAL:
        model: Any = sciseq.AxialAutoregressor(**params)
        cost = 2 * width * length * edge * each
    else:
        X, test = X.reshape(len(X), -1), test.reshape(len(test), -1)
        if name == "dense":
            model, cost = sciseq.AutoregressiveSequence(**params), 2 * width * length**2
        else:
            plan = PLANS_OF[name]
            model = sciseq.CombinerSequence(**params, plan=plan, span=edge)
            cost = combiner_multiplications(
                length + 1, width, plan=plan, span=edge, causal=True
            )
        cost *= each
    started = time.process_time()
    model.fit(X)
    seconds = time.process_time() - started
    with torch.no_grad():
        nats = -float(np.mean(model.score_samples(test))) / length
    return {"nats": nats, "truth": truth, "multiplications": cost,
            "parameters": model.n_parameters_, "seconds": seconds}  # fmt: skip


# ---------------------------------------------------------------------- results


def found_in(results: list[Cell], **wanted: Any) -> list[Cell]:
    """Return what the cells of some kind found."""
    return [one["found"] for one in results
            if all(one.get(key) == value for key, value in wanted.items())]  # fmt: skip


def order_lines(results: list[Cell]) -> list[str]:
    """Right grids, by order and by how much is given."""
    runs = found_in(results, part="order")
    if not runs:
        return []
    rows = [
        [name, *(span([run[str(n)][name] for run in runs], 2) for n in GIVEN)]
        for name in runs[0][str(GIVEN[0])]
    ]
    return [
        "## Order: grids of 4 by 4 numbers", "",
        f"Share of {N_GRIDS} new grids that keep all rules once filled, the most "
        f"probable number in each cell, one cell in a pass; {288 - N_GRIDS} grids in "
        "training. Candidates are drawn at temperature 1, and the likeliest is taken "
        "by its likelihood.", "",
        *table(["order", *(f"{n} of 16 given" for n in GIVEN)], rows), "",
    ]  # fmt: skip


def template_lines(results: list[Cell]) -> list[str]:
    """Share that can be read, and how far off it is."""
    runs = found_in(results, part="template")
    if not runs:
        return []
    rows = [
        [name, f"{median([run[name]['passes'] for run in runs]):.1f}",
         *(span([run[name][key] for run in runs]) for key in ("failed", "distance"))]
        for name in runs[0]
    ]  # fmt: skip
    return [
        "## Template: paths as text", "",
        f"Paths of {N_POINTS} points, {N_PATHS} in training. Share of 200 samples that "
        "are no path of so many points, and the mean distance of the points of the "
        "others from the true ones, in cells.", "",
        *table(["method", "passes", "cannot be read", "distance"], rows), "",
    ]  # fmt: skip


def attention_lines(results: list[Cell]) -> list[str]:
    """Nats per cell, by the cost of the attention."""
    rows = []
    for edge, name in itertools.product(EDGES, ATTENTION):
        runs = found_in(results, part="attention", edge=edge, method=name)
        if runs:
            over = [one["nats"] - one["truth"] for one in runs]
            rows.append([
                edge * edge, name, digits(runs[0]["multiplications"] / 1e6),
                span([one["nats"] for one in runs]), span(over),
                runs[0]["parameters"],
                digits(median([one["seconds"] for one in runs]), 2),
            ])  # fmt: skip
    if not rows:
        return []
    head = ["length", "reads", "multiplications, 10⁶", "nats per cell",
            "above the true law", "parameters", "seconds of training"]  # fmt: skip
    return [
        "## Attention: grids in raster order", "",
        f"New grids of square shape; {PASSES} passes over {N_CELLS} training cells, in "
        "as many steps for all. Multiplications of the attention of all layers, for "
        "one grid. The span is the row. Axial layers have more parameters.", "",
        *table(head, rows, 2), "",
    ]  # fmt: skip


def claims(results: list[Cell]) -> list[str]:
    """Say of each claim whether it shows, seed by seed."""
    lines: list[str] = []

    def say(what: str, gains: list[float]) -> None:
        lines.extend(claim(what, gains))

    runs = found_in(results, part="order")
    for n in GIVEN if runs else ():
        for better, worse in (("confidence", "left_to_right"),
                              ("left_to_right", "random")):  # fmt: skip
            say(
                f"grids, {n} given: {better} is right more often than {worse}",
                [run[str(n)][better] - run[str(n)][worse] for run in runs],
            )
    runs = found_in(results, part="template")
    vilad = "template in training too (ViLaD)"
    for other in ("autoregressive", "masked diffusion"):
        say(
            f"paths: with the template more can be read than by {other}",
            [run[other]["failed"] - run[vilad]["failed"] for run in runs],
        )
    for edge in EDGES:
        nats = {
            name: [one["nats"] for one in
                   found_in(results, part="attention", edge=edge, method=name)]
            for name in ATTENTION
        }  # fmt: skip
        for name in (*list(PLANS_OF)[1:], AXIAL):
            pairs = zip(nats[SPARSE], nats[name], strict=True)
            say(
                f"length {edge * edge}: {name} is better than {SPARSE}",
                [one - other for one, other in pairs],
            )
    return lines


MEASURES: dict[str, Callable[[Cell], Cell]] = {
    "order": measure_order, "template": measure_template,
    "attention": measure_attention,
}  # fmt: skip


def measure(cell: Cell) -> Cell:
    """Measure a cell."""
    return MEASURES[cell["part"]](cell)


def main() -> int:
    """Run the command line."""
    options = parser(__doc__)
    options.set_defaults(threads=1)
    options.add_argument("--parts", nargs="+", default=list(MEASURES))
    options.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    chosen = options.parse_args()
    seeds = chosen.seeds[:1] if chosen.quick else chosen.seeds
    edges = EDGES[:1] if chosen.quick else EDGES
    wanted: list[Cell] = []
    for seed in seeds:
        of: Cell = {"seed": seed, "quick": chosen.quick}
        wanted += [{"part": part, **of} for part in ("order", "template")
                   if part in chosen.parts]  # fmt: skip
        if "attention" in chosen.parts:
            wanted += [
                {"part": "attention", "edge": edge, "method": name, **of}
                for edge in edges
                for name in ATTENTION
            ]
    results = run_cells("sequence_claims", wanted, measure, chosen)
    if not results:
        write("sequence_claims: nothing is cached yet\n")
        return 1
    lines = [*order_lines(results), *template_lines(results), *attention_lines(results)]
    title = "Order, templates and structured attention"
    report("sequence_claims", title, lines, claims(results), results, chosen)
    return 0


if __name__ == "__main__":
    sys.exit(main())
