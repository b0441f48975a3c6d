"""Recall from a list, by how long the list is: input masks, and training that recalls.

S1: pairs of a key and a value, then all the keys in another order, each with its value
again. S2: the same with names and numbers of two digits. One model learns lists of all
lengths, of which nothing but what is repeated can be foretold. It is then shown new
lists and one key, and writes the most probable answer; a number is right when all its
digits are.

Two claims are put to the test. Hiding inputs in training improves recall (MEAP against
next-token training of the same transformer). And recall of state-space models is a
matter of training (Birdie): layers left to right or with prefixes read in both
directions, trained on next tokens, on a uniform mixture of objectives, or on a mixture
steered by a learned model of rewards. All train on the same lists for as many steps of
as many lists; a step of a mixture costs about twice the time, as its rows are longer.

    python benchmarks/recall.py            # 30 to 45 minutes on one core
    python benchmarks/recall.py --quick    # seconds; nothing is kept
"""

import sys
import time
from typing import Any

import numpy as np
from measuring import Cell, digits, median, parser, report, run_cells, table, write

import sciseq
from sciseq.generation.synthetic import RecallTask, associative_recall, phone_book

PAIRS = (1, 2, 4, 8)
ENTRIES = (1, 2, 4, 6)
DATA: dict[str, tuple[int, ...]] = {"S1 pairs": PAIRS, "S2 phone book": ENTRIES}
N_TRAINING, N_TEST = 16384, 256
EPOCHS, BATCH = 6, 64
SIZES: dict[str, Any] = {
    "d_model": 32, "d_ff": 64, "n_layers": 2, "n_heads": 2, "dropout": 0.0,
    "learning_rate": 1e-2, "batch_size": BATCH, "validation_fraction": 0.0,
    "device": "cpu",
}  # fmt: skip

Method = tuple[str, dict[str, Any]]
ATTENTION: dict[str, Method] = {
    "transformer, next tokens": ("AutoregressiveSequence", {}),
    "transformer, 15 % hidden (MEAP)": ("MaskEnhancedAutoregressor", {}),
}
TRAINED = {"next tokens": "next_token", "uniform mixture": "uniform",
           "mixture by rewards": "reward_model"}  # fmt: skip
STATE_SPACE: dict[str, Method] = {
    f"state space, {way}, {name}": (
        "PrefixStateSpace",
        {"prefix_bidirectional": way == "both ways", "objectives": objectives},
    )
    for name, objectives in TRAINED.items()
    for way in ("causal", "both ways")
}
METHODS: dict[str, Method] = {**ATTENTION, **STATE_SPACE}


def lists(data: str, n: int, size: int, n_queries: int, *seed: int) -> RecallTask:
    """Draw lists of one length."""
    generator = np.random.default_rng([*seed, size])
    if data.startswith("S1"):
        return associative_recall(
            n, size, generator, n_keys=8, n_values=8, n_queries=n_queries
        )
    return phone_book(n, size, generator, n_names=8, n_digits=2, n_queries=n_queries)


def texts(task: RecallTask, n_queries: int) -> list[list[int]]:
    """Write each list, and then every query with its answer behind it."""
    pairs, asked = np.split(task.inputs, [task.inputs.shape[1] - n_queries], axis=1)
    answers = task.labels.reshape(len(asked), n_queries, -1)
    ends = np.concatenate([asked[..., None], answers], axis=2)
    whole = np.concatenate([pairs, ends.reshape(len(asked), -1)], axis=1)
    made: list[list[int]] = whole.tolist()
    return made


def measure(cell: Cell) -> Cell:
    """Fit on lists of all lengths, and ask about new ones."""
    data, seed, is_quick = cell["data"], cell["seed"], cell["quick"]
    sizes = DATA[data]
    n = (256 if is_quick else N_TRAINING) // len(sizes)
    X = []
    for size in sizes:
        X += texts(lists(data, n, size, size, seed, 0), size)
    name, changes = METHODS[cell["method"]]
    model = getattr(sciseq, name)(
        **SIZES, **changes, max_epochs=1 if is_quick else EPOCHS, random_state=seed
    )
    started = time.process_time()
    model.fit(X)
    seconds = time.process_time() - started
    recall, nats = [], []
    for size in sizes:
        recall.append(recalled(model, lists(data, N_TEST, size, 1, seed, 1)))
        whole = texts(lists(data, N_TEST, size, size, seed, 2), size)
        nats.append(-model.score(whole) / len(whole[0]))
    return {"recall": recall, "nats": float(np.mean(nats)), "seconds": seconds,
            "parameters": model.n_parameters_}  # fmt: skip


def recalled(model: Any, task: RecallTask) -> float:
    """Return the share of answers that are right."""
    made = model.sample(template=task.inputs.tolist(), temperature=0.0, random_state=0)
    first = task.inputs.shape[1]
    end = first + task.labels.shape[1]
    pairs = zip(made, task.labels.tolist(), strict=True)
    return float(np.mean([one[first:end] == wanted for one, wanted in pairs]))


# ---------------------------------------------------------------------- results


def recall_table(data: str, results: list[Cell]) -> list[str]:
    """Medians over seeds, least and greatest in brackets."""
    rows = []
    for method in METHODS:
        runs = [one["found"] for one in results
                if one["data"] == data and one["method"] == method]  # fmt: skip
        if runs:
            shown = [_spread([one["recall"][i] for one in runs])
                     for i in range(len(DATA[data]))]  # fmt: skip
            rows.append([method, len(runs), *shown,
                         f"{median([one['nats'] for one in runs]):.3f}",
                         digits(median([one["seconds"] for one in runs]), 2),
                         runs[0]["parameters"]])  # fmt: skip
    head = ["method", "seeds", *(f"{size} in the list" for size in DATA[data]),
            "nats per token", "seconds of training", "parameters"]  # fmt: skip
    return table(head, rows)


def _spread(values: list[float]) -> str:
    middle = f"{100 * median(values):.0f} %"
    if len(values) < 2:
        return middle
    return f"{middle} ({100 * min(values):.0f} to {100 * max(values):.0f})"


def page(results: list[Cell]) -> list[str]:
    """Lines of the results page."""
    n_steps = EPOCHS * N_TRAINING // BATCH
    made = [
        f"Share of right answers for {N_TEST} new lists of each length: median over "
        f"seeds (least to greatest). {n_steps} steps of {BATCH} lists, two layers "
        f"{SIZES['d_model']} wide. Without reading the key, the best that can be "
        "done is to name a value of the list, right once in as many as are in it (in "
        "S1 somewhat more often, as values come twice). State-space models trained on "
        "mixtures read list and key as a prefix, the other models from left to right. "
        "Nats per token are those of whole new lists with all their repetitions, "
        "scored from left to right.",
        "",
    ]
    for data in dict.fromkeys(one["data"] for one in results):
        made += [f"## {data}", "", *recall_table(data, results), ""]
    return made


def main() -> int:
    """Run the command line."""
    options = parser(__doc__)
    options.add_argument("--data", nargs="+", default=list(DATA), choices=list(DATA))
    options.add_argument("--methods", nargs="+", default=list(METHODS))
    options.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    chosen = options.parse_args()
    seeds = chosen.seeds[:1] if chosen.quick else chosen.seeds
    wanted: list[Cell] = [
        {"data": data, "method": method, "seed": seed, "quick": chosen.quick}
        for seed in seeds
        for data in chosen.data
        for method in chosen.methods
    ]
    results = run_cells("recall", wanted, measure, chosen)
    if not results:
        write("recall: nothing is cached yet\n")
        return 1
    title = "Recall from lists, by their length"
    report("recall", title, page(results), [], results, chosen)
    return 0


if __name__ == "__main__":
    sys.exit(main())
