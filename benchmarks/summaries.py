"""Summary benchmark: sentences of scientific abstracts against human summaries.

Each cell is one (part of SciTLDR, budget, selection, settings): sentences of the
abstract are taken under the budget, and ROUGE is measured against the summaries, the
best of several. No language model takes part. Words are weighted by the abstracts of
the train part, on which the settings were chosen (``--choose``): the highest mean of
ROUGE-1, ROUGE-2 and ROUGE-L per budget. The dev part is run once per recorded cell.
Finished cells are cached under ``benchmarks/cache`` by what determines them.

    python benchmarks/summaries.py                  # dev part, then the table
    python benchmarks/summaries.py --choose         # the choice, anew, first
    python benchmarks/summaries.py --table-only     # from what is cached

Results are written to ``benchmarks/results/summaries.{json,md}``. Needs the folder
``sequences`` with ``scitldr_a_{train,dev}.jsonl.gz`` in ``$SCISEQ_DATA``.
"""

import argparse
import gzip
import hashlib
import json
import os
import platform
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import sciseq
from sciseq.generation.summarizer import DocumentSummarizer
from sciseq.metrics.rouge import rouge_l, rouge_n, rouge_scores

HERE = Path(__file__).parent
CACHE = HERE / "cache" / "summaries"
RESULTS = HERE / "results"
KINDS = ("rouge1", "rouge2", "rougeL")
SEEDS = (0, 1, 2)
RESAMPLES = 2000
# Summaries of the train part have 19 words on average, and are one sentence.
BUDGETS: dict[str, dict[str, Any]] = {
    "1 sentence": {"max_sentences": 1, "budget": 1000},
    "40 words": {"budget": 40},
}
GRID = [
    {"weighting": weighting, "threshold": threshold}
    for weighting in ("counts", "tf-idf")
    for threshold in (0.0, 0.1, 0.2, 0.3)
]
# What was chosen.
CHOSEN: dict[str, dict[str, Any]] = {
    "1 sentence": {"weighting": "tf-idf", "threshold": 0.0},
    "40 words": {"weighting": "tf-idf", "threshold": 0.0},
}

Cell = dict[str, Any]


def read(part: str) -> tuple[list[list[str]], list[list[str]]]:
    """Sentences of the abstracts of a part, and their summaries."""
    folder = Path(os.environ["SCISEQ_DATA"]) / "sequences"
    with gzip.open(folder / f"scitldr_a_{part}.jsonl.gz", "rt", encoding="utf-8") as f:
        rows = [json.loads(line) for line in f]
    return [one["source"] for one in rows], [one["target"] for one in rows]


def dev_cells() -> Iterator[Cell]:
    """Cells of the table."""
    for budget in BUDGETS:
        yield cell("dev", budget, "lexrank", **CHOSEN[budget])
        yield cell("dev", budget, "lead")
        for seed in SEEDS:
            yield cell("dev", budget, "random", seed=seed)
    yield cell("dev", "1 sentence", "best sentence")


def choice_cells() -> Iterator[Cell]:
    """Cells on which the settings were chosen."""
    for budget in BUDGETS:
        for settings in GRID:
            yield cell("train", budget, "lexrank", **settings)
        yield cell("train", budget, "lead")


def cell(part: str, budget: str, selection: str, **settings: Any) -> Cell:
    """Make one cell."""
    return {"part": part, "budget": budget, "selection": selection, **settings}


def cache_path(one: Cell) -> Path:
    """File of a cell; its name depends on everything that determines the result."""
    text = json.dumps([one, BUDGETS[one["budget"]], sciseq.__version__], sort_keys=True)
    return CACHE / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"


def measure(one: Cell) -> Cell:
    """Run one cell."""
    documents, summaries = read(one["part"])
    start = time.perf_counter()
    written = summaries_of(one, documents, summaries)
    seconds = time.perf_counter() - start
    rows = [
        rouge_scores([text], [references])
        for text, references in zip(written, summaries, strict=True)
    ]
    return {
        **one,
        "documents": len(documents),
        "words": float(np.mean([len(text.split()) for text in written])),
        **{kind: float(np.mean([row[kind] for row in rows])) for kind in KINDS},
        "rows": {kind: [round(row[kind], 4) for row in rows] for kind in KINDS},
        "seconds": round(seconds, 1),
        "date": time.strftime("%Y-%m-%d"),
        "versions": {
            "sciseq": sciseq.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
    }


def summaries_of(
    one: Cell, documents: list[list[str]], summaries: list[list[str]]
) -> list[str]:
    """Summaries by the selection of a cell."""
    if one["selection"] == "best sentence":
        return [
            max(document, key=lambda sentence: likeness(sentence, references))
            for document, references in zip(documents, summaries, strict=True)
        ]
    model = DocumentSummarizer(
        selection=one["selection"],
        order="document",
        random_state=one.get("seed", 0),
        **BUDGETS[one["budget"]],
        **{name: one[name] for name in ("weighting", "threshold") if name in one},
    )
    return model.fit(read("train")[0]).predict(documents)


def likeness(sentence: str, references: list[str]) -> float:
    """Mean of the three kinds of ROUGE, against the reference that is nearest."""
    return max(
        rouge_n(sentence, text, 1).f1
        + rouge_n(sentence, text, 2).f1
        + rouge_l(sentence, text).f1
        for text in references
    )


def run(wanted: list[Cell], *, again: bool) -> None:
    """Measure what is not cached."""
    CACHE.mkdir(parents=True, exist_ok=True)
    for one in wanted:
        path = cache_path(one)
        if path.exists() and not again:
            continue
        result = measure(one)
        path.write_text(json.dumps(result, indent=1))
        write(f"{row_of(result)}\n")


def mean_rouge(one: Cell) -> float:
    """Mean of the three kinds: what settings were chosen by."""
    return sum(one[kind] for kind in KINDS) / len(KINDS)


def row_of(one: Cell) -> str:
    """One row of a table."""
    settings = [f"{one[name]}" for name in ("weighting", "threshold") if name in one]
    name = " ".join([one["selection"], *settings])
    if "seed" in one:
        name += f" (seed {one['seed']})"
    figures = [f"{100 * one[kind]:.1f}" for kind in KINDS]
    figures += [f"{100 * mean_rouge(one):.2f}", f"{one['words']:.1f}"]
    return f"| {one['budget']} | {name} | {' | '.join(figures)} |"


def table(results: list[Cell]) -> list[str]:
    """Lines of a Markdown table."""
    heads = ["budget", "selection", "ROUGE-1", "ROUGE-2", "ROUGE-L", "mean", "words"]
    rule = ["---"] * 2 + ["---:"] * (len(heads) - 2)
    lines = [f"| {' | '.join(heads)} |", f"| {' | '.join(rule)} |"]
    return [*lines, *map(row_of, results)]


def verdicts(results: list[Cell]) -> list[str]:
    """Differences between LexRank and the baselines, with their uncertainty."""
    lines = []
    for budget in BUDGETS:
        here = [one for one in results if one["budget"] == budget]
        ours = [one for one in here if one["selection"] == "lexrank"]
        for baseline in ("lead", "random"):
            theirs = [one for one in here if one["selection"] == baseline]
            if ours and theirs:
                lines.append(comparison(budget, ours[0], theirs, baseline))
    return lines


def comparison(budget: str, ours: Cell, theirs: list[Cell], baseline: str) -> str:
    """One line: mean differences of ROUGE F1 in points, and 95 % intervals."""
    rng = np.random.default_rng(0)
    picks = rng.integers(ours["documents"], size=(RESAMPLES, ours["documents"]))
    parts = []
    for kind in KINDS:
        other = np.mean([one["rows"][kind] for one in theirs], axis=0)
        difference = 100 * (np.array(ours["rows"][kind]) - other)
        low, high = np.quantile(difference[picks].mean(axis=1), [0.025, 0.975])
        winner = "LexRank" if low > 0 else baseline if high < 0 else "neither"
        parts.append(
            f"{kind} {difference.mean():+.1f} [{low:+.1f}, {high:+.1f}] ({winner})"
        )
    return f"{budget}, LexRank minus {baseline}: {', '.join(parts)}"


def choices(results: list[Cell]) -> dict[str, dict[str, Any]]:
    """Best settings of each budget."""
    best = {}
    for budget in BUDGETS:
        graphs = [
            one
            for one in results
            if one["budget"] == budget and one["selection"] == "lexrank"
        ]
        if graphs:
            found = max(graphs, key=mean_rouge)
            best[budget] = {name: found[name] for name in ("weighting", "threshold")}
    return best


def report(dev: list[Cell], choice: list[Cell], command: str) -> None:
    """Write the results files and print the page."""
    RESULTS.mkdir(exist_ok=True)
    bare = [
        {name: value for name, value in one.items() if name != "rows"}
        for one in [*dev, *choice]
    ]
    facts = {
        "command": command,
        "processor_cores": os.cpu_count(),
        "machine": platform.machine(),
        "verdicts": verdicts(dev),
        "cells": bare[: len(dev)],
        "choice": bare[len(dev) :],
    }
    (RESULTS / "summaries.json").write_text(json.dumps(facts, indent=1) + "\n")
    dates = sorted({one["date"] for one in [*dev, *choice]})
    best = choices(choice)
    page = [
        "# Summaries: sentences of abstracts, by centrality and by baselines",
        "",
        f"Command: `{command}`. SciTLDR-A, dev part ({dev[0]['documents']} abstracts). "
        "ROUGE F1 in per cent, best of the references, words not stemmed; mean: of the "
        "three kinds. “best sentence” looks at the references: the most that one "
        f"sentence can reach. Measured {dates[0]} to {dates[-1]} with "
        f"{dev[0]['versions']}.",
        "",
        *table(dev),
        "",
        "Differences in points, with 95 % intervals over the abstracts (bootstrap); "
        "random: mean of its seeds.",
        "",
        *[f"- {line}" for line in verdicts(dev)],
        "",
        "## The choice",
        "",
        "Weights of words and threshold of similarity, on the train part. Taken: the "
        f"highest mean per budget, {best}"
        + ("." if best == CHOSEN else f", WHICH IS NOT WHAT IS RUN: {CHOSEN}."),
        "",
        *table(choice),
        "",
    ]
    (RESULTS / "summaries.md").write_text("\n".join(page), encoding="utf-8")
    write("\n".join(page) + f"\nwritten to {RESULTS / 'summaries.md'}\n")


def write(text: str) -> None:
    """Show text at once."""
    sys.stdout.write(text)
    sys.stdout.flush()


def finished(cells: list[Cell]) -> list[Cell]:
    """Read the cells that are there."""
    paths = map(cache_path, cells)
    return [json.loads(path.read_text()) for path in paths if path.exists()]


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--choose", action="store_true", help="run the choice as well")
    parser.add_argument("--again", action="store_true", help="measure anew")
    parser.add_argument("--table-only", action="store_true", help="what is cached")
    asked = parser.parse_args()
    dev, choice = list(dev_cells()), list(choice_cells())
    if not asked.table_only:
        run([*(choice if asked.choose else []), *dev], again=asked.again)
    command = " ".join(["python", "benchmarks/summaries.py", *sys.argv[1:]])
    report(finished(dev), finished(choice), command)
    return 0 if len(finished(dev)) == len(dev) else 1


if __name__ == "__main__":
    sys.exit(main())
