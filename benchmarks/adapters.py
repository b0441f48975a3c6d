"""Adapter benchmark: training over domains, judged on domains never seen.

Each cell is one (weights that are trained, training, seed). Domains are sine waves of
random amplitude and phase, the usual toy of meta-learning. A small network is first
fitted to one wave, the base; then all its weights, or low-rank adapters alone, are
trained on 30 waves, by mixing or by Reptile, with as many gradient steps on as many
points. What counts is the error on 50 other waves after a few steps on 10 points of
each. Finished cells are cached under ``benchmarks/cache``.

    python benchmarks/adapters.py               # all cells, then the table
    python benchmarks/adapters.py --table-only  # from what is cached

Results are written to ``benchmarks/results/adapters.{json,md}``. Needs no data.
"""

import argparse
import hashlib
import json
import math
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import sciseq
from sciseq.generation.parts.lora import insert_adapters
from sciseq.generation.parts.meta_learning import reptile_step, sgd_steps
from sciseq.nn import build_network
from sciseq.training import generator_for

HERE = Path(__file__).parent
CACHE = HERE / "cache" / "adapters"
RESULTS = HERE / "results"
SETTINGS: dict[str, Any] = {
    "width": 32,
    "n_domains": 30,
    "n_held_out": 50,
    "points": 10,
    "base_steps": 3000,
    "outer_steps": 500,
    "domains_per_step": 5,
    "inner_steps": 5,
    "outer_step": 0.5,
    "rate": 0.02,
    "adaptation_steps": (0, 5, 20),
}
# Adapters of rank 8 diverge while they adapt, with this rate and scale: left out.
WEIGHTS = ("all", "rank 2")
TRAININGS = ("none", "mixing", "reptile")
SEEDS = (0, 1, 2)

Cell = dict[str, Any]
Wave = tuple[float, float]  # amplitude, phase
Points = tuple[Tensor, Tensor]


def cells() -> Iterator[Cell]:
    """Cells of the table."""
    for weights in WEIGHTS:
        for training in TRAININGS:
            for seed in SEEDS:
                yield {"weights": weights, "training": training, "seed": seed}


def wave(generator: torch.Generator) -> Wave:
    """Draw a domain."""
    amplitude, phase = torch.rand(2, generator=generator).tolist()
    return 0.1 + 4.9 * amplitude, math.pi * phase


def points_of(one: Wave, n: int, generator: torch.Generator) -> Points:
    """Draw points of a wave."""
    x = 10 * torch.rand(n, 1, generator=generator) - 5
    return x, one[0] * torch.sin(x - one[1])


def error(network: nn.Module, points: Points) -> Tensor:
    """Mean squared error on some points."""
    return (network(points[0]) - points[1]).square().mean()


def base_network(seed: int) -> nn.Module:
    """Fit a network to one wave."""
    width = SETTINGS["width"]
    network = build_network(
        lambda: nn.Sequential(
            nn.Linear(1, width),
            nn.Tanh(),
            nn.Linear(width, width),
            nn.Tanh(),
            nn.Linear(width, 1),
        ),
        generator_for(seed, "weights"),
    )
    generator = generator_for(seed, "base")
    steps = range(SETTINGS["base_steps"])
    drawn = (points_of((2.5, 0.0), SETTINGS["points"], generator) for _ in steps)
    losses = (partial(error, network, points) for points in drawn)
    sgd_steps(dict(network.named_parameters()), losses, SETTINGS["rate"])
    return network


def train_on_domains(
    network: nn.Module, parameters: dict[str, Tensor], training: str, seed: int
) -> None:
    """Train by mixing or by Reptile, with as many steps on as many points."""
    generator = generator_for(seed, "domains")
    waves = [wave(generator) for _ in range(SETTINGS["n_domains"])]
    n_points, rate = SETTINGS["points"], SETTINGS["rate"]

    def one_wave() -> Wave:
        return waves[int(torch.randint(len(waves), (), generator=generator))]

    def mixed() -> Points:
        parts = [points_of(one_wave(), 1, generator) for _ in range(n_points)]
        return torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts])

    def steps(draw: Callable[[], Points]) -> None:
        losses = (
            partial(error, network, draw()) for _ in range(SETTINGS["inner_steps"])
        )
        sgd_steps(parameters, losses, rate)

    def one_domain() -> None:
        chosen = one_wave()
        steps(lambda: points_of(chosen, n_points, generator))

    for _ in range(SETTINGS["outer_steps"]):
        if training == "reptile":
            inner = [one_domain] * SETTINGS["domains_per_step"]
            reptile_step(parameters, inner, SETTINGS["outer_step"])
        else:
            for _ in range(SETTINGS["domains_per_step"]):
                steps(mixed)


def held_out_errors(
    network: nn.Module, parameters: dict[str, Tensor], seed: int
) -> list[float]:
    """Mean error on waves never seen, after each number of steps on a few points."""
    generator = generator_for(seed, "held out")
    start = {name: one.detach().clone() for name, one in parameters.items()}
    sums = [0.0] * len(SETTINGS["adaptation_steps"])
    for _ in range(SETTINGS["n_held_out"]):
        one = wave(generator)
        few = points_of(one, SETTINGS["points"], generator)
        many = points_of(one, 200, generator)
        done = 0
        for place, n_steps in enumerate(SETTINGS["adaptation_steps"]):
            losses = [partial(error, network, few)] * (n_steps - done)
            sgd_steps(parameters, losses, SETTINGS["rate"])
            done = n_steps
            with torch.no_grad():
                sums[place] += float(error(network, many))
        with torch.no_grad():
            for name, tensor in parameters.items():
                tensor.copy_(start[name])
    return [total / SETTINGS["n_held_out"] for total in sums]


def measure(cell: Cell) -> Cell:
    """Run one cell."""
    start, seed = time.perf_counter(), cell["seed"]
    network = base_network(seed)
    trained: nn.Module = network
    if cell["weights"] != "all":
        rank = int(cell["weights"].split()[1])
        trained = insert_adapters(
            network,
            generator_for(seed, "adapters"),
            rank=rank,
            alpha=2.0 * rank,
            dropout=0.0,
        )
    parameters = dict(trained.named_parameters())
    if cell["training"] != "none":
        train_on_domains(network, parameters, cell["training"], seed)
    return {
        **cell,
        "n_parameters": sum(one.numel() for one in parameters.values()),
        "errors": held_out_errors(network, parameters, seed),
        "seconds": round(time.perf_counter() - start, 1),
        "date": time.strftime("%Y-%m-%d"),
    }


def cache_path(cell: Cell) -> Path:
    """File of a cell; its name depends on everything that determines the result."""
    text = json.dumps([cell, SETTINGS, sciseq.__version__])
    return CACHE / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"


def table(results: list[Cell]) -> list[str]:
    """Lines of a Markdown table: mean and range over the seeds."""
    steps = [f"{one} steps" for one in SETTINGS["adaptation_steps"]]
    lines = [
        f"| weights | number | training | {' | '.join(steps)} |",
        f"| --- | ---: | --- | {' | '.join(['---:'] * len(steps))} |",
    ]
    for weights in WEIGHTS:
        for training in TRAININGS:
            here = [
                one
                for one in results
                if (one["weights"], one["training"]) == (weights, training)
            ]
            if not here:
                continue
            columns = list(zip(*[one["errors"] for one in here], strict=True))
            figures = [
                f"{statistics.mean(one):.2f} ({min(one):.2f} to {max(one):.2f})"
                for one in columns
            ]
            head = f"| {weights} | {here[0]['n_parameters']} | {training} |"
            lines.append(f"{head} {' | '.join(figures)} |")
    return lines


def report(results: list[Cell], command: str) -> None:
    """Write the results files and print the page."""
    RESULTS.mkdir(exist_ok=True)
    versions = {
        "sciseq": sciseq.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    facts = {"command": command, "settings": SETTINGS, "versions": versions}
    text = json.dumps({**facts, "cells": results}, indent=1)
    (RESULTS / "adapters.json").write_text(text + "\n")
    page = [
        "# Adapters: training over domains, judged on domains never seen",
        "",
        f"Command: `{command}`. Mean squared error on {SETTINGS['n_held_out']} waves "
        "never seen, before and after gradient steps on "
        f"{SETTINGS['points']} points of each; mean of {len(SEEDS)} seeds and their "
        "range. Adapters of rank 8 diverged with the same learning rate. A wave has "
        "amplitude 0.1 to 5, so that 0 everywhere errs by about 4. "
        f"Measured {max(one['date'] for one in results)} with {versions}.",
        "",
        *table(results),
        "",
    ]
    (RESULTS / "adapters.md").write_text("\n".join(page), encoding="utf-8")
    write("\n".join(page) + f"\nwritten to {RESULTS / 'adapters.md'}\n")


def write(text: str) -> None:
    """Show text at once."""
    sys.stdout.write(text)
    sys.stdout.flush()


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--again", action="store_true", help="measure anew")
    parser.add_argument("--table-only", action="store_true", help="what is cached")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    CACHE.mkdir(parents=True, exist_ok=True)
    results = []
    for cell in cells():
        path = cache_path(cell)
        if path.exists() and not asked.again:
            results.append(json.loads(path.read_text()))
        elif not asked.table_only:
            results.append(measure(cell))
            path.write_text(json.dumps(results[-1], indent=1))
            write(f"{results[-1]}\n")
    report(results, "python benchmarks/adapters.py")  # how to measure, not to show
    return 0 if len(results) == len(list(cells())) else 1


if __name__ == "__main__":
    sys.exit(main())
