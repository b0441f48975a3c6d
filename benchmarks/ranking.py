"""Recommending the next item: BERT4Rec, an autoregressive ranker, and plain baselines.

Leave-last-out: of every user the last event is test, the one before it validation, all
others training; users with fewer than three events are learnt from only. Models are
fitted on training events alone; the validation event joins the history that the test
event is told from. The target is ranked among all items, among all that are not in the
history, and among 100 negatives drawn by popularity; ties count in the middle.

The autoregressive ranker is the transformer of BERT4Rec with causal attention that
tells each event from those before it (SASRec with cross-entropy); it has the same
width, layers and drawn competitors.

Settings are chosen on validation events alone, by NDCG@10 among all items: the best of
CHOICES there is scored on test events, once for every recorded cell.

    python benchmarks/ranking.py --threads 1               # choose, test, the page
    python benchmarks/ranking.py --threads 1 --datasets MovieLens-small
    python benchmarks/ranking.py --table-only              # from what is cached

Needs ``$SCISEQ_DATA``.
"""

import os
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from measuring import HERE, Cell, median, parser, report, run_cells, table, write
from torch import Tensor, nn

import sciseq
from sciseq.data.event_sequences import EventSequences, LeaveOneOut, leave_one_out
from sciseq.data.event_tables import read_events
from sciseq.generation.parts.batches import SequenceBatch
from sciseq.generation.parts.masks import Rule, causal
from sciseq.generation.sequences.cloze_recommender import (
    ClozeLoss,
    ClozeNetwork,
    ClozeRecommender,
)
from sciseq.metrics.negative_sampling import history_mask, sample_negatives
from sciseq.metrics.ranking import hit_rate, ndcg, target_ranks

FILES: dict[str, tuple[str, dict[str, str]]] = {
    "MovieLens-small": (
        "ml_small_ratings.csv.gz",
        {"entity": "userId", "time": "timestamp", "item": "movieId"},
    ),
    "Amazon Beauty": ("amazon_beauty_bert4rec.txt.gz", {}),
}
POPULARITY, TRANSITIONS = "popularity", "transitions"
CAUSAL, CLOZE = "autoregressive", "BERT4Rec"
BASELINES, NETWORKS = (POPULARITY, TRANSITIONS), (CAUSAL, CLOZE)
RANKINGS = {
    "full": "all items",
    "new": "items not in the history",
    "sampled": "100 negatives",
}
CUTOFF, N_NEGATIVES = 10, 100
JUDGED_FOR_CHOICE = 5000  # users
TOGETHER = 256  # users that are scored at once
SIZES: dict[str, Any] = {
    "d_model": 64, "d_ff": 128, "n_layers": 1, "n_heads": 2, "n_competitors": 1024,
    "weight_decay": 0.01,
}  # fmt: skip
# Window lengths N, steps between windows (in events) and rates of hiding: those of the
# paper, and short windows that end at every event, which the last item rows then hide.
MOVIES: dict[str, Any] = {"batch_size": 256, "learning_rate": 3e-3, "dropout": 0.2}
BEAUTY: dict[str, Any] = {"batch_size": 1024, "learning_rate": 5e-3, "dropout": 0.2}
CHOICES: dict[tuple[str, str], dict[str, dict[str, Any]]] = {
    ("MovieLens-small", CAUSAL): {
        "N 10": {**MOVIES, "max_length": 10, "batch_size": 64, "max_epochs": 30},
        "N 50": {**MOVIES, "max_length": 50, "batch_size": 16, "max_epochs": 30},
        "N 10, all items": {
            **MOVIES, "max_length": 10, "batch_size": 64, "max_epochs": 30,
            "n_competitors": None},
    },
    ("MovieLens-small", CLOZE): {
        "N 50, step 25, rho 0.2": {
            **MOVIES, "max_length": 50, "window_step": 0.5, "mask_rate": 0.2,
            "n_duplicates": 3, "max_epochs": 20, "batch_size": 64},
        "N 5, step 1, rho 0.2, all items": {
            **MOVIES, "max_length": 5, "window_step": 0.2, "mask_rate": 0.2,
            "n_duplicates": 1, "max_epochs": 15, "n_competitors": None},
    },
    ("Amazon Beauty", CAUSAL): {
        "N 12": {**BEAUTY, "max_length": 12, "batch_size": 256, "max_epochs": 12},
    },
    ("Amazon Beauty", CLOZE): {
        "N 12, step 6, rho 0.6": {
            **BEAUTY, "max_length": 12, "window_step": 0.5, "mask_rate": 0.6,
            "n_duplicates": 2, "max_epochs": 10},
        "N 6, step 1, rho 0.4": {
            **BEAUTY, "max_length": 6, "window_step": 0.16, "mask_rate": 0.4,
            "n_duplicates": 1, "max_epochs": 10},
        "N 6, step 1, rho 0.4, rate 0.01": {
            **BEAUTY, "max_length": 6, "window_step": 0.16, "mask_rate": 0.4,
            "n_duplicates": 1, "max_epochs": 10, "learning_rate": 1e-2,
            "dropout": 0.1},
    },
}  # fmt: skip


# -------------------------------------------------------- the autoregressive ranker


class CausalNetwork(ClozeNetwork):
    """The network of BERT4Rec, but events read earlier ones alone."""

    @property
    def rule(self) -> Rule:
        """Who reads whom: events those before them."""
        return causal

    def asked(self, tokens: Tensor) -> Tensor:
        """Return the state of the last event; there is no mask to ask by."""
        return self.states(tokens[:, :-1])[:, -1]


class NextItemLoss(ClozeLoss):
    """Cross-entropy of every event given those before it."""

    def __call__(
        self, network: nn.Module, batch: SequenceBatch
    ) -> tuple[Tensor, Tensor]:
        """Return the sum of losses, and the number of events told."""
        assert isinstance(network, ClozeNetwork)
        before, after = batch.tokens[:, :-1], batch.tokens[:, 1:]
        is_told = before != network.padding  # events stand on the right
        states = network.states(before)
        return self.compared(network, states[is_told], after[is_told])


class CausalRecommender(ClozeRecommender):
    """Recommend by the scores of the next event, read from left to right."""

    _network_type: ClassVar[type[ClozeNetwork]] = CausalNetwork
    _loss_type: ClassVar[type[ClozeLoss]] = NextItemLoss


def model_of(cell: Cell) -> Any:
    """Make the model of a cell."""
    if cell["model"] == POPULARITY:
        return sciseq.PopularityRecommender()
    if cell["model"] == TRANSITIONS:
        return sciseq.TransitionRecommender()
    settings = {**cell["settings"], "random_state": cell["seed"], "device": "cpu"}
    if cell["model"] == CLOZE:
        return sciseq.ClozeRecommender(**settings)
    # Windows overlap in one event: all but the very first are told once.
    step = 1 - 1 / settings["max_length"]
    rows = {"window_step": step, "n_duplicates": 1, "last_item_rows": False}
    return CausalRecommender(**settings, **rows)


# ----------------------------------------------------------------------- measuring


@cache
def split_of(data: str, quick: bool) -> LeaveOneOut:
    """Return the split of a data set."""
    file, columns = FILES[data]
    events = read_events(Path(os.environ["SCISEQ_DATA"]) / "events" / file, **columns)
    return leave_one_out(events.take(np.arange(60)) if quick else events)


def measure(cell: Cell) -> Cell:
    """Fit on training events, and rank validation or test events."""
    split = split_of(cell["data"], cell["quick"])
    started = time.process_time()
    model = model_of(cell).fit(split.training)
    facts: Cell = {"fit_seconds": time.process_time() - started}
    if cell["model"] in NETWORKS:
        facts |= {
            "parameters": model.n_parameters_,
            "losses": [round(one["train_loss"], 3) for one in model.history_],
        }
    started = time.process_time()
    users = np.arange(len(split.judged))
    if cell["part"] == "choice":
        some = np.random.default_rng(0).permutation(users)[:JUDGED_FOR_CHOICE]
        users = np.sort(some)
        histories, targets = split.training, split.validation[users]
        negatives = None
    else:
        histories, targets = split.test_history, split.test
        negatives = negatives_of(cell["data"], cell["quick"])
    known = histories.take(split.judged[users])
    ranks = ranks_of(model, known, targets, negatives)
    facts["scores"] = {name: scores_of(one) for name, one in ranks.items()}
    return {
        **facts,
        "users": len(users),
        "rank_seconds": time.process_time() - started,
    }


def ranks_of(
    model: Any,
    known: EventSequences,
    targets: Any,
    negatives: Any,
) -> dict[str, Any]:
    """Rank each target in all ways, scoring every user once."""
    found: dict[str, list[Any]] = {name: [] for name in RANKINGS}
    for first in range(0, len(targets), TOGETHER):
        part = np.arange(first, min(first + TOGETHER, len(targets)))
        some, target = known.take(part), targets[part]
        scores = model.score_items(some)
        found["full"].append(target_ranks(scores, target))
        if negatives is not None:
            had = history_mask(list(some), scores.shape[1])
            found["new"].append(target_ranks(scores, target, excluded=had))
            found["sampled"].append(
                target_ranks(scores, target, candidates=negatives[part])
            )
    return {name: np.concatenate(parts) for name, parts in found.items() if parts}


def scores_of(ranks: Any) -> Cell:
    """Mean scores, and the standard error of NDCG over users."""
    gain = ndcg(ranks, CUTOFF)
    return {
        "ndcg": float(gain.mean()),
        "hr": float(hit_rate(ranks, CUTOFF).mean()),
        "error": float(gain.std() / np.sqrt(len(gain))),
    }


def negatives_of(data: str, quick: bool) -> Any:
    """Return the negatives of the test events, the same for all models."""
    split = split_of(data, quick)
    path = HERE / "cache" / "ranking" / f"negatives of {data}.npy"
    if path.exists() and not quick:
        return np.load(path)
    counts = split.training.item_counts()
    drawn = sample_negatives(
        list(split.test_history.take(split.judged)),
        split.test,
        len(counts),
        n_negatives=N_NEGATIVES,
        popularity=counts,
        generator=np.random.default_rng(0),
    )
    if not quick:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, drawn)
    return drawn


# ------------------------------------------------------------------------ choosing


def settings_of(data: str, model: str, choice: str, quick: bool) -> dict[str, Any]:
    """Return the settings of a network."""
    small = {"max_epochs": 1, "n_competitors": 16, "d_model": 8} if quick else {}
    return {**SIZES, **CHOICES[data, model][choice], **small}


def network_cell(data: str, model: str, choice: str, quick: bool) -> Cell:
    """Return what determines a network, but for the part and the seed."""
    settings = settings_of(data, model, choice, quick)
    return {"data": data, "model": model, "choice": choice, "settings": settings,
            "quick": quick}  # fmt: skip


def choice_cells(datasets: list[str], quick: bool) -> list[Cell]:
    """Cells on validation events; baselines stand beside the networks."""
    cells: list[Cell] = []
    for data in datasets:
        of: Cell = {"part": "choice", "data": data, "quick": quick}
        cells += [{**of, "model": model} for model in BASELINES]
        cells += [
            {"part": "choice", **network_cell(data, model, choice, quick), "seed": 0}
            for model in NETWORKS
            for choice in list(CHOICES[data, model])[: 1 if quick else None]
        ]
    return cells


def best_choices(results: list[Cell]) -> dict[tuple[str, str], str]:
    """Return what has the highest NDCG on the validation events."""
    best: dict[tuple[str, str], Cell] = {}
    for one in results:
        if one["model"] in NETWORKS:
            before = best.setdefault((one["data"], one["model"]), one)
            if validated(one) > validated(before):
                best[one["data"], one["model"]] = one
    return {where: one["choice"] for where, one in best.items()}


def validated(one: Cell) -> float:
    """NDCG among all items on validation events."""
    return float(one["found"]["scores"]["full"]["ndcg"])


def test_cells(
    best: dict[tuple[str, str], str], seeds: list[int], quick: bool
) -> list[Cell]:
    """Cells on test events."""
    cells: list[Cell] = []
    for data in dict.fromkeys(data for data, _ in best):
        of: Cell = {"part": "test", "data": data, "quick": quick}
        cells += [{**of, "model": model} for model in BASELINES]
    for (data, model), choice in best.items():
        network = network_cell(data, model, choice, quick)
        cells += [{"part": "test", **network, "seed": seed} for seed in seeds]
    return cells


# ------------------------------------------------------------------------- results


def scores_by(results: list[Cell], data: str, model: str, ranking: str) -> Cell:
    """Return the scores of all runs, by name of the score."""
    runs = [
        one["found"]["scores"][ranking]
        for one in results
        if one["data"] == data and one["model"] == model
    ]
    return {name: [one[name] for one in runs] for name in runs[0]} if runs else {}


def test_table(tests: list[Cell], data: str) -> list[str]:
    """Medians over seeds, and the range of NDCG."""
    rows = []
    for ranking, name in RANKINGS.items():
        for model in (*BASELINES, *NETWORKS):
            found = scores_by(tests, data, model, ranking)
            if found:
                values = found["ndcg"]
                rows.append([name, model, f"{median(values):.4f}",
                             f"{min(values):.4f} to {max(values):.4f}"
                             if len(values) > 1 else "",
                             f"{found['error'][0]:.4f}", f"{median(found['hr']):.4f}",
                             len(values)])  # fmt: skip
    return table(["target ranked among", "model", f"NDCG@{CUTOFF}", "seeds from, to",
                  "standard error over users", f"HR@{CUTOFF}", "runs"],
                 rows, 2)  # fmt: skip


def cost_table(tests: list[Cell]) -> list[str]:
    """Processor seconds and sizes of the networks."""
    rows = []
    for data, model in dict.fromkeys((one["data"], one["model"]) for one in tests):
        runs = [
            one["found"]
            for one in tests
            if one["data"] == data and one["model"] == model
        ]
        rows.append([data, model, runs[0].get("parameters", ""),
                     f"{median([one['fit_seconds'] for one in runs]):.1f}",
                     f"{median([one['rank_seconds'] for one in runs]):.1f}",
                     runs[0]["users"]])  # fmt: skip
    return table(["data", "model", "parameters", "processor seconds to fit",
                  "to rank", "users"], rows, 2)  # fmt: skip


def page(tests: list[Cell], choices: list[Cell]) -> list[str]:
    """Lines of the results page."""
    lines = [
        f"Test events. HR@{CUTOFF}: share of users whose target is among the first "
        f"{CUTOFF}. Medians over seeds; the standard error is that of one run.", "",
    ]  # fmt: skip
    for data in dict.fromkeys(one["data"] for one in tests):
        lines += [f"## {data}", "", *test_table(tests, data), ""]
    best = best_choices(choices)
    rows = []
    for one in choices:
        choice = one.get("choice", "")
        is_taken = best.get((one["data"], one["model"])) == choice
        rows.append([one["data"], one["model"], choice, f"{validated(one):.4f}",
                     f"{one['found']['fit_seconds']:.0f}", one["found"]["users"],
                     "taken" if choice and is_taken else ""])  # fmt: skip
    return [
        *lines, "## Work", "", *cost_table(tests), "",
        "## Validation events: what was chosen", "",
        *table(["data", "model", "choice", f"NDCG@{CUTOFF} among all items",
                "processor seconds to fit", "users", ""], rows, 3), "",
        "All settings are in CHOICES and SIZES of the benchmark's file.",
    ]  # fmt: skip


def verdicts(tests: list[Cell]) -> list[str]:
    """Say where BERT4Rec is above the others, with every seed."""
    lines = []
    for data in dict.fromkeys(one["data"] for one in tests):
        for ranking, name in RANKINGS.items():
            ours = scores_by(tests, data, CLOZE, ranking)
            if not ours:
                continue
            least = min(ours["ndcg"])
            others = {
                model: max(found["ndcg"])
                for model in (*BASELINES, CAUSAL)
                if (found := scores_by(tests, data, model, ranking))
            }
            above = [model for model, value in others.items() if least > value]
            rest = [model for model in others if model not in above]
            word = "kept" if set(BASELINES) <= set(above) else "MISSED"
            lines.append(
                f"{data}, among {name}: BERT4Rec with every seed above "
                f"{', '.join(above) or 'none'}; not above {', '.join(rest) or 'none'}; "
                f"above both baselines is asked for: {word}"
            )
    return lines


def main() -> int:
    """Run the command line."""
    options = parser(__doc__)
    options.add_argument("--datasets", nargs="+", default=list(FILES), choices=FILES)
    options.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    options.add_argument("--choose", action="store_true", help="only choose settings")
    chosen = options.parse_args()
    quick = chosen.quick
    seeds = chosen.seeds[:1] if quick else chosen.seeds
    choices = run_cells(
        "ranking", choice_cells(chosen.datasets, quick), measure, chosen
    )
    if chosen.choose:
        return 0
    wanted = test_cells(best_choices(choices), seeds, quick)
    tests = run_cells("ranking", wanted, measure, chosen)
    if not tests:
        write("ranking: nothing is cached yet\n")
        return 1
    report(
        "ranking",
        "Recommending the next item",
        page(tests, choices),
        verdicts(tests),
        [*choices, *tests],
        chosen,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
