"""Generators of sequences: bits on real data, and what parallel generation costs.

Real data: promoters of two bacteria and antimicrobial peptides, split into training,
validation and test parts (70, 10 and 20 % of the families). Sequences that share a
long run are a family and stay together, such as promoters that overlap in the genome.
The 839 promoters of E. coli are 761 families, and in a split by sequence chains of high
order would gain by copying. Settings were chosen on a
validation part of the E. coli promoters; test parts are scored once for every recorded
cell. Beside the networks stand Markov chains of order 5 and of the order that is best
on validation data.

Parallel generation: sequences of a chain of states whose law is known. An
autoregressive model is fitted, then converted into each method for the same number of
passes over the data. Samples are judged by the known law, beside the passes and the
rows that they took.

    python benchmarks/sequences.py                 # all cells, then the tables
    python benchmarks/sequences.py --parts real    # bits only
    python benchmarks/sequences.py --table-only    # from what is cached

Needs ``$SCISEQ_DATA``.
"""

import math
import sys
import time
from typing import Any

import numpy as np
from measuring import Cell, digits, median, parser, report, run_cells, table, write

import sciseq
from sciseq.generation.synthetic_chain import KnownChain, random_chain
from sciseq.model_selection import sequence_groups

# Data set, label, and the run of symbols that relatives share.
DATA = {
    "E. coli promoters": ("dna_ecoli_promoters", None, 20),
    "Bacillus promoters": ("dna_bacillus_promoters", None, 20),
    "antimicrobial peptides": ("peptides_amp_uniprot", "1", 6),
}
LARGE = 0.05  # families with a larger share of all sequences train
NETWORKS = {
    "autoregressive": "AutoregressiveSequence",
    "mask-enhanced (MEAP)": "MaskEnhancedAutoregressor",
}
SIZES: dict[str, Any] = {
    "d_model": 32, "d_ff": 64, "n_layers": 1, "dropout": 0.2, "max_epochs": 40,
    "learning_rate": 2e-3, "batch_size": 32, "device": "cpu",
}  # fmt: skip
ORDERS = (0, 1, 2, 3, 4, 5)
CHAINS = ("fixed", "best")  # order 5, or the one that is best on validation data
CHAIN_STATES, CHAIN_LENGTH, N_CHAINS, N_SAMPLES = 8, 32, 1500, 200
CHAIN_SIZES: dict[str, Any] = {
    "d_model": 32, "d_ff": 64, "n_layers": 2, "n_heads": 2, "dropout": 0.0,
    "learning_rate": 2e-3, "device": "cpu",
}  # fmt: skip
AUTOREGRESSIVE = "autoregressive"
CONVERTED: dict[str, tuple[str, dict[str, Any]]] = {
    "TiDAR, 3 drafts": ("DraftVerifySequence", {"n_drafts": 3}),
    "SDAR, blocks of 4, threshold 0.5": (
        "BlockDiffusionSequence",
        {"block_size": 4, "threshold": 0.5, "order": "confidence"}),
    "SDAR, blocks of 4, 2 passes": (
        "BlockDiffusionSequence",
        {"block_size": 4, "n_steps": 2, "order": "confidence"}),
    "SDAR, blocks of 4, random order": ("BlockDiffusionSequence", {"block_size": 4}),
    "SDAR, blocks of 4, 2 passes, random order": (
        "BlockDiffusionSequence", {"block_size": 4, "n_steps": 2}),
    "NBDiff, blocks of 4, threshold 0.5": (
        "NextBlockSequence",
        {"block_size": 4, "threshold": 0.5, "order": "confidence"}),
    "NBDiff, blocks of 4, random order": (
        "NextBlockSequence", {"block_size": 4, "threshold": None}),
    "WeDLM, window of 4": (
        "ReorderedCausalDiffusion", {"block_size": 4, "window": 4}),
    "masked diffusion, 16 passes": ("MaskedDiffusionSequence", {"n_steps": 16}),
}  # fmt: skip


# -------------------------------------------------------------------- real data


def parts_of(data: str) -> list[list[str]]:
    """Return training, validation and test sequences."""
    name, label, n_shared = DATA[data]
    frame = sciseq.load_dataset(name)
    if label is not None:
        frame = frame[frame["label"].astype(str) == label]
    sequences = sorted(set(frame["sequence"]))
    family = sequence_groups(sequences, n_shared)
    n_families = family.max() + 1
    order = np.random.default_rng(0).permutation(n_families)
    place = np.argsort(order) / n_families
    # A family of half of all peptides would be no part of a tenth.
    place[np.bincount(family) > LARGE * len(sequences)] = 0
    parts: list[list[str]] = [[], [], []]
    for one, at in zip(sequences, place[family], strict=True):
        parts[int(np.searchsorted((0.7, 0.8), at, side="right"))].append(one)
    return parts


def measure_real(cell: Cell) -> Cell:
    """Fit on the training part, and score the test part once."""
    training, validation, test = parts_of(cell["data"])
    n_symbols = sum(map(len, test))
    facts: Cell = {"training": len(training), "test": len(test)}
    if cell["method"] in NETWORKS:
        model = getattr(sciseq, NETWORKS[cell["method"]])(
            **SIZES, random_state=cell["seed"]
        )
        letters = sorted(set("".join(training)))
        held = [one for one in validation if set(one) <= set(letters)]
        longest = max(map(len, training + validation + test))
        is_fixed = len({len(one) for one in training}) == 1
        model.set_params(max_length=None if is_fixed else longest)
        model.fit(training, validation_data=held)
        facts["parameters"] = model.n_parameters_
    else:
        orders = ORDERS if cell["method"].startswith("best") else (5,)
        chains = [
            sciseq.MarkovChain(order=one, random_state=0).fit(training)
            for one in orders
        ]
        model = max(chains, key=lambda one: float(one.score(validation)))
        facts["order"] = int(model.order)
    total = float(np.sum(model.score_samples(test)))
    return {**facts, "bits": -total / math.log(2) / n_symbols}


# ---------------------------------------------------------- parallel generation


def chain() -> KnownChain:
    """Return the chain whose law is known."""
    return random_chain(CHAIN_STATES, np.random.default_rng(0), concentration=0.3)


def measure_parallel(cell: Cell) -> Cell:
    """Fit, convert, and judge samples by the known law."""
    known, seed = chain(), cell["seed"]
    X = known.sample(N_CHAINS, CHAIN_LENGTH, np.random.default_rng([1, seed]))
    epochs = (1, 1) if cell["quick"] else (15, 10)
    model = sciseq.AutoregressiveSequence(
        **CHAIN_SIZES, max_epochs=epochs[0], random_state=seed
    ).fit(X)
    if cell["method"] == AUTOREGRESSIVE:
        model = sciseq.AutoregressiveSequence(
            **CHAIN_SIZES, max_epochs=sum(epochs), random_state=seed
        ).fit(X)
    else:
        name, changes = CONVERTED[cell["method"]]
        others = {key: value for key, value in CHAIN_SIZES.items()
                  if key in ("dropout", "learning_rate", "device")}  # fmt: skip
        model = getattr(sciseq, name).from_autoregressive(
            model, **others, **changes, max_epochs=epochs[1], random_state=seed
        )
        model.fit(X)
    started = time.process_time()
    samples = model.sample(N_SAMPLES, random_state=seed)
    seconds = time.process_time() - started
    work = model.last_work
    logs = known.log_prob(samples)
    return {
        "nats_per_token": float(-np.mean(logs[np.isfinite(logs)]) / CHAIN_LENGTH),
        "impossible": float(np.mean(~np.isfinite(logs))),
        "tokens_per_pass": float(work.tokens_per_pass.double().mean()),
        "tokens_per_row": float(work.tokens_per_row.double().mean()),
        "seconds": seconds,
    }


def measure(cell: Cell) -> Cell:
    """Measure a cell of either part."""
    return measure_real(cell) if cell["part"] == "real" else measure_parallel(cell)


# ---------------------------------------------------------------------- results


def real_table(results: list[Cell]) -> list[str]:
    """Medians over seeds, and the range."""
    rows = []
    for data in DATA:
        for method in (*(f"{one} Markov chain" for one in CHAINS), *NETWORKS):
            runs = [one["found"] for one in results
                    if one.get("data") == data and one["method"] == method]  # fmt: skip
            if not runs:
                continue
            bits = [one["bits"] for one in runs]
            spread = f"{min(bits):.3f} to {max(bits):.3f}" if len(bits) > 1 else ""
            order = f" (order {runs[0]['order']})" if "order" in runs[0] else ""
            rows.append([data, method + order, f"{median(bits):.3f}", spread,
                         len(bits), runs[0]["training"], runs[0]["test"]])  # fmt: skip
    return table(["data", "method", "bits per symbol", "seeds from, to", "runs",
                  "training", "test"], rows, 2)  # fmt: skip


def parallel_table(results: list[Cell]) -> list[str]:
    """Medians over seeds."""
    rows = []
    for method in (AUTOREGRESSIVE, *CONVERTED):
        runs = [one["found"] for one in results
                if one["part"] == "parallel" and one["method"] == method]  # fmt: skip
        if runs:
            middle = {key: median([one[key] for one in runs]) for key in runs[0]}
            rows.append([method, len(runs), f"{middle['tokens_per_pass']:.2f}",
                         f"{middle['tokens_per_row']:.2f}",
                         f"{middle['nats_per_token']:.3f}",
                         f"{100 * middle['impossible']:.1f} %",
                         digits(middle["seconds"])])  # fmt: skip
    return table(["method", "seeds", "tokens per pass", "tokens per row",
                  "nats per token by the true law", "impossible sequences",
                  f"processor seconds for {N_SAMPLES}"], rows)  # fmt: skip


def page(results: list[Cell]) -> list[str]:
    """Lines of the results page."""
    known = chain()
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(known.transition > 0,
                         known.transition * np.log(known.transition), 0.0)  # fmt: skip
    rate = float(-(known.initial[:, None] * terms).sum())
    return [
        "Test parts of real data, log-likelihood in bits per symbol (ends of peptides "
        "counted in):", "", *real_table(results), "",
        f"Sequences of {CHAIN_LENGTH} from a chain of {CHAIN_STATES} states: its true "
        f"sequences have {rate:.3f} nats per token; lower values are samples that are "
        "too alike, higher ones are wrong. Sequences that the chain cannot make are "
        "counted apart.", "", *parallel_table(results), "",
    ]  # fmt: skip


def main() -> int:
    """Run the command line."""
    options = parser(__doc__)
    options.add_argument("--parts", nargs="+", default=["real", "parallel"])
    options.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    chosen = options.parse_args()
    seeds = chosen.seeds[:1] if chosen.quick else chosen.seeds
    wanted: list[Cell] = []
    if "real" in chosen.parts:
        for data in list(DATA)[:1] if chosen.quick else DATA:
            of: Cell = {"part": "real", "data": data, "together": DATA[data][2]}
            wanted += [{**of, "method": f"{one} Markov chain"} for one in CHAINS]
            wanted += [
                {**of, "method": method, "seed": seed}
                for method in NETWORKS
                for seed in seeds
            ]
    if "parallel" in chosen.parts:
        of = {"part": "parallel", "quick": chosen.quick}
        wanted += [
            {**of, "method": method, "seed": seed}
            for seed in seeds
            for method in (AUTOREGRESSIVE, *CONVERTED)
        ]
    results = run_cells("sequences", wanted, measure, chosen)
    if not results:
        write("sequences: nothing is cached yet\n")
        return 1
    report("sequences", "Generators of sequences", page(results), [], results, chosen)
    return 0


if __name__ == "__main__":
    sys.exit(main())
