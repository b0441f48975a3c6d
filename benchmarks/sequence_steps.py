"""Parallel generation: quality against steps, and what each method claims for itself.

Every claim is a table with its baseline, medians over seeds, on tiny networks:

- joint: strings with a checksum (S5). Masked diffusion draws the tokens of a pass
  independently; an energy of whole candidates (EDLM) tells which go together. Also
  broken checksums, repaired by infilling.
- steps: a chain whose law is known (S4), quality against passes: masked diffusion,
  EDLM, Efficient-DLM, an autoregressive model; and dKV-Cache on the same model.
- blocks: hairpins (S3), block diffusion beside the autoregressive model it began from.
- cache: hairpins (S3), dKV-Cache with and without its delay.
- tokens: LaViDa, complementary masks against single ones at equal examples and at equal
  work, and plans of how much is uncovered when.
- conversion: SDAR and masked diffusion from an autoregressive model or from scratch;
  NBDiff and SDAR, the autoregressive likelihood after conversion.

    python benchmarks/sequence_steps.py                 # all cells, then the tables
    python benchmarks/sequence_steps.py --parts joint   # one part only
    python benchmarks/sequence_steps.py --table-only    # from what is cached
"""

import sys
from collections.abc import Callable
from typing import Any

from measuring import (
    RESULTS,
    Cell,
    claim,
    median,
    parser,
    report,
    run_cells,
    span,
    table,
    write,
)
from sequence_steps_picture import draw
from sequence_steps_runs import CHECKSUMS, MEASURES, measure
from sequences import AUTOREGRESSIVE

Lines = list[str]
PARTS = tuple(MEASURES)
# Samples are as good where no more pairs fail, and as different.
EQUAL, LESS_DIFFERENT = 0.005, 0.05


def middle(runs: list[Any]) -> Any:
    """Medians over seeds, of numbers in dicts and lists of the same shape."""
    first = runs[0]
    if isinstance(first, dict):
        return {key: middle([one[key] for one in runs]) for key in first}
    if isinstance(first, list):
        return [middle(list(some)) for some in zip(*runs, strict=True)]
    return None if None in runs else median(runs)


def found_in(results: list[Cell], part: str, data: str | None = None) -> list[Cell]:
    """Return what the cells of a part found, one for each seed."""
    return [
        one["found"]
        for one in results
        if one["part"] == part and one.get("data") == data
    ]


def number(value: float | None, places: int = 3) -> str:
    """Write a number, or nothing."""
    return "" if value is None else f"{value:.{places}f}"


# --------------------------------------------------------------------- tables


def joint_lines(results: list[Cell]) -> Lines:
    """Checksums kept, and repaired."""
    lines: Lines = []
    for data, (base, length) in CHECKSUMS.items():
        runs = found_in(results, "joint", data)
        if not runs:
            continue
        found, rows = middle(runs), []
        names = [name for name, one in found.items() if isinstance(one, dict)]
        for name in names:
            curve = found[name]["curve"]
            rows.append([
                name,
                *(span([one[name]["curve"][i]["kept"] for one in runs])
                  for i in range(len(curve))),
                number(curve[0]["different"]), f"{curve[0]['rows']:.0f}",
                f"{curve[-1]['rows']:.0f}",
                span([one[name]["repaired"] for one in runs]),
            ])  # fmt: skip
        head = ["method", *(f"{one['steps']} passes" for one in curve),
                "different, 1 pass", "rows, 1 pass", f"rows, {length} passes",
                "repaired"]  # fmt: skip
        lines += [
            f"### Joint dependence: {data}", "",
            f"Share of 1000 samples with a right checksum (chance {1 / base:.2f}), "
            f"median and range of {len(runs)} seeds; `different`: different right "
            "strings "
            f"over the {base ** (length - 1)} that there are; rows: computed by both "
            "networks for a string. `repaired`: strings with a wrong symbol, of which "
            "this and another one are hidden and filled in one pass.", "",
            *table(head, rows), "",
        ]  # fmt: skip
    return lines


def steps_lines(results: list[Cell]) -> Lines:
    """Quality against passes on the chain."""
    runs = found_in(results, "steps")
    if not runs:
        return []
    rows = []
    for name, curve in middle(runs)["quality"].items():
        rows += [
            [name, f"{one['passes']:.1f}", f"{one['rows']:.0f}",
             span([run["quality"][name][i]["distance"] for run in runs]),
             number(one["nats"])]
            for i, one in enumerate(curve)
        ]  # fmt: skip
    head = ["method", "passes", "rows", "distance of pairs", "nats per token"]
    return [
        "### Quality against steps: chain of 8 states, 32 tokens", "",
        "Total variation between pairs of neighbours in 500 samples and the true law, "
        "median and range over seeds; nats per token by the true law (true sequences "
        "have 1.424). Passes and rows are those of all networks.", "",
        *table(head, rows), "",
    ]  # fmt: skip


def delayed_table(runs: list[Cell], key: str, what: str) -> Lines:
    """Accuracy, rows and cache share of all ways to sample."""
    found = middle(runs)
    rows = [
        [name, span([run[name][key] for run in runs]), f"{one['rows']:.0f}",
         number(one["tokens_per_row"]), number(one["cache"])]
        for name, one in found.items()
    ]  # fmt: skip
    return table(["sampling", what, "rows", "tokens per row (p_cache)",
                  "share from cache"], rows)  # fmt: skip


def blocks_lines(results: list[Cell]) -> Lines:
    """Pairs and passes of block diffusion, beside an autoregressive model."""
    runs = found_in(results, "blocks")
    if not runs:
        return []
    rows = [
        [name, f"{one['passes']:.1f}", f"{one['rows']:.0f}",
         span([run[name]["pairs"] for run in runs]), f"{one['different']:.0f}"]
        for name, one in middle(runs).items()
    ]  # fmt: skip
    head = ["method", "passes", "rows", "paired", "different first arms"]
    return [
        "### Several tokens in one pass: hairpins, 16 bases", "",
        "Share of bases of the first arm that have their complement (chance 0.25), "
        "median and range over seeds; different first arms among 500 samples. Passes "
        "are those for a sequence, those that store a block counted in.", "",
        *table(head, rows), "",
    ]  # fmt: skip


def cache_lines(results: list[Cell]) -> Lines:
    """dKV-Cache with its control."""
    lines: Lines = []
    runs = found_in(results, "cache")
    if runs:
        lines += [
            "### Delayed cache: hairpins, 16 bases", "",
            "Share of bases of the first arm that have their complement (chance 0.25), "
            "three layers, one pass for each token unless said; rows computed for a "
            "sequence.", "",
            *delayed_table(runs, "pairs", "paired"), "",
        ]  # fmt: skip
    runs = [one["delayed"] for one in found_in(results, "steps")]
    if runs:
        lines += [
            "### Delayed cache: chain of 8 states", "",
            *delayed_table(runs, "distance", "distance of pairs (lower is better)"), "",
        ]  # fmt: skip
    return lines


def tokens_lines(results: list[Cell]) -> Lines:
    """Complementary masks, and plans."""
    runs = found_in(results, "tokens")
    if not runs:
        return []
    found = middle(runs)
    names = [name for name in found["examples"][0] if name != "examples"]
    rows = []
    for i, one in enumerate(found["examples"]):
        cells = [span([run["examples"][i][name]["agreeing"] for run in runs])
                 for name in names]  # fmt: skip
        seconds = [f"{one[name]['seconds']:.1f}" for name in names]
        rows.append([int(one["examples"]), *cells, " / ".join(seconds)])
    plans = []
    for name, by_order in found["plans"].items():
        for order in by_order:
            columns = zip(*(run["plans"][name][order] for run in runs), strict=True)
            plans.append([name, order, *(span(list(some), 2) for some in columns)])
    return [
        "### Token efficiency and step shift: strings for a condition (LaViDa)", "",
        "A condition tells the two letters of each of 8 segments, not their order. "
        "Share of segments with the right letters, on 300 new conditions, one pass for "
        "each token; medians and ranges over seeds.", "",
        *table(["examples shown", *names, "processor seconds"], rows), "",
        "Plans, with the longest of the complementary trainings:", "",
        *table(["plan", "order", *(f"{k} passes" for k in (1, 2, 4, 8, 16))], plans, 2),
        "",
    ]  # fmt: skip


def conversion_lines(results: list[Cell]) -> Lines:
    """Conversion against scratch."""
    runs = found_in(results, "conversion")
    if not runs:
        return []
    found = middle(runs)
    keys = ("converted", "scratch", "scratch, all passes")
    rows = [
        [one["method"], one["passes"],
         *(span([run["bound"][i][key] for run in runs]) for key in keys)]
        for i, one in enumerate(found["bound"])
    ]  # fmt: skip
    after = [
        [*name.rpartition(", ")[::2], span([run["causal"][name] for run in runs])]
        for name in found["causal"]
    ]
    return [
        "### Conversion: chain of 8 states, 32 tokens", "",
        f"Bound of the nats per token on new sequences (truth {found['truth']:.3f}). "
        f"Converted: from an autoregressive model after 15 passes over the data, which "
        f"has {found['before']:.3f}. `scratch`: as many passes; `all passes`: 15 more.",
        "",
        *table(["method", "passes over the data", *keys], rows), "",
        "The network read causally, as an autoregressive model, after conversion "
        f"(before: {found['before, read causally']:.3f} nats per token):", "",
        *table(["method", "passes over the data", "nats per token"], after), "",
    ]  # fmt: skip


PAGES: dict[str, Callable[[list[Cell]], Lines]] = {
    "joint": joint_lines,
    "steps": steps_lines,
    "blocks": blocks_lines,
    "cache": cache_lines,
    "tokens": tokens_lines,
    "conversion": conversion_lines,
}


# -------------------------------------------------------------------- verdicts


def block_claims(runs: list[Cell]) -> Lines:
    """Say how many times fewer passes block diffusion takes at equal quality."""
    lines: Lines = []
    for kind in ("SDAR", "NBDiff"):
        equal = [
            name for name in (runs[0] if runs else ())
            if name.startswith(kind)
            and all(one[name]["pairs"] >= one[AUTOREGRESSIVE]["pairs"] - EQUAL
                    and one[name]["different"]
                    >= (1 - LESS_DIFFERENT) * one[AUTOREGRESSIVE]["different"]
                    for one in runs)
        ]  # fmt: skip
        if equal:
            best = min(equal, key=lambda name: runs[0][name]["passes"])
            times = [one[AUTOREGRESSIVE]["passes"] / one[best]["passes"]
                     for one in runs]  # fmt: skip
            lines.append(
                f"hairpins, {best}: pairs within {EQUAL} of the autoregressive model's "
                f"and as different, with every seed, with {span(times, 1)} times fewer "
                "passes"
            )
        elif runs:
            lines.append(f"hairpins: {kind} at equal quality does NOT show")
    return lines


def claims(results: list[Cell]) -> Lines:
    """Say of each claim whether it shows, seed by seed."""
    lines: Lines = []

    def say(what: str, gains: list[float]) -> None:
        lines.extend(claim(what, gains))

    for data in CHECKSUMS:
        runs = found_in(results, "joint", data)
        for energy in ("learned", "autoregressive"):
            name = f"EDLM, {energy} energy, k = 8"
            say(
                f"{data}: one pass, {name} keeps the checksum more often than masked "
                "diffusion",
                [
                    one[name]["curve"][0]["kept"]
                    - one["masked diffusion"]["curve"][0]["kept"]
                    for one in runs
                ],
            )
        say(
            f"{data}: masked diffusion is worse in one pass than in as many as tokens",
            [
                one["masked diffusion"]["curve"][-1]["kept"]
                - one["masked diffusion"]["curve"][0]["kept"]
                for one in runs
            ],
        )
        say(
            f"{data}: learned energy repairs more than masked diffusion",
            [
                one["EDLM, learned energy, k = 8"]["repaired"]
                - one["masked diffusion"]["repaired"]
                for one in runs
            ],
        )
    runs = found_in(results, "steps")
    for name in ("EDLM, learned energy, k = 4", "EDLM, autoregressive energy, k = 4"):
        # A step of EDLM takes a pass of the energy besides: 4 steps are 8 passes.
        for index, steps in ((2, "4 steps"), (3, "8 passes of all networks")):
            say(
                f"chain, {steps}: {name}, is nearer to the law than masked diffusion "
                "with as much training",
                [
                    one["quality"]["masked diffusion, twice the training"][index][
                        "distance"
                    ]
                    - one["quality"][name][2]["distance"]
                    for one in runs
                ],
            )
    lines += block_claims(found_in(results, "blocks"))
    runs = found_in(results, "cache")
    say(
        "hairpins: decode (N = 8) is better than half the passes",
        [
            one["decode, N = 8"]["pairs"] - one["no cache, 1/2 of the passes"]["pairs"]
            for one in runs
        ],
    )
    say(
        "hairpins: without refresh, decode is better than without the delay",
        [
            one["decode, N = 16"]["pairs"] - one["no delay, N = 16"]["pairs"]
            for one in runs
        ],
    )
    runs = found_in(results, "tokens")
    for i in range(len(runs[0]["examples"]) if runs else 0):
        shown = runs[0]["examples"][i]["examples"]
        for name in ("single", "single, twice the steps"):
            say(
                f"complementary masks are better than {name}, {shown} examples",
                [
                    one["examples"][i]["complementary"]["agreeing"]
                    - one["examples"][i][name]["agreeing"]
                    for one in runs
                ],
            )
    for i, steps in ((1, 2), (2, 4), (3, 8)):
        say(
            f"alpha 1/3 is better than linear, {steps} passes, confidence",
            [
                one["plans"]["shifted, alpha = 1/3"]["confidence"][i]
                - one["plans"]["linear"]["confidence"][i]
                for one in runs
            ],
        )
    runs = found_in(results, "conversion")
    for i, one in enumerate(runs[0]["bound"] if runs else []):
        for key in ("scratch", "scratch, all passes"):
            say(
                f"{one['method']}, {one['passes']} passes: converted is below {key}",
                [run["bound"][i][key] - run["bound"][i]["converted"] for run in runs],
            )
    say(
        "20 passes: NBDiff (weight 0.5) keeps the autoregressive law better than SDAR",
        [
            one["causal"]["SDAR, 20"] - one["causal"]["NBDiff, weight 0.5, 20"]
            for one in runs
        ],
    )
    return lines


def main() -> int:
    """Run the command line."""
    options = parser(__doc__)
    options.set_defaults(threads=1)
    options.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    options.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    chosen = options.parse_args()
    seeds = chosen.seeds[:1] if chosen.quick else chosen.seeds
    wanted: list[Cell] = []
    for part in PARTS:
        if part in chosen.parts:
            data = CHECKSUMS if part == "joint" else [None]
            wanted += [
                {"part": part, "seed": seed, "quick": chosen.quick}
                | ({} if one is None else {"data": one})
                for seed in seeds
                for one in data
            ]
    results = run_cells("sequence_steps", wanted, measure, chosen)
    if not results:
        write("sequence_steps: nothing is cached yet\n")
        return 1
    lines = [line for page in PAGES.values() for line in page(results)]
    title = "Parallel generation: quality against steps"
    report("sequence_steps", title, lines, claims(results), results, chosen)
    if not chosen.quick and set(PARTS) <= {one["part"] for one in results}:
        by_part = {
            part: middle(found_in(results, part)) for part in PARTS if part != "joint"
        }
        joint = {data: middle(found_in(results, "joint", data)) for data in CHECKSUMS}
        draw(joint, by_part, RESULTS / "sequence_steps.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
