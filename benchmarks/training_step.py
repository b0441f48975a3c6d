"""Training step benchmark: one step of S-Mamba and its relatives, beside plain code.

A step is the forward pass, the mean squared error, the backward pass and Adam. S-Mamba
runs at its published ETTh1 settings (7 variates and 4 marks are 11 tokens, width 256, 2
layers, state 2, batch 32), beside the same network written without tuning
(plain_smamba.py) with two scans: the compiled one, called once per direction, and one
in the shape of the published reference. Networks hold the same weights, and their
outputs and gradients are compared first.

The other methods run at their published settings (MambaMixer at those of the
forecasting benchmark). Beside each step stands the share of it that torch's profiler
counts for matrix products: no step with these products can be faster.

    python benchmarks/training_step.py                # all cells, then the tables
    python benchmarks/training_step.py --again        # measure anew
    python benchmarks/training_step.py --table-only   # from what is cached
"""

import functools
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import torch
from forecasting_models import MAMBAMIXER
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
from plain_smamba import PlainSMamba, published_scan
from torch import Tensor, nn

import sciseq
from sciseq.forecasting.smamba_network import load_published_state_dict
from sciseq.nn import set_dropout_generator
from sciseq.ops.selective_scan import selective_scan
from sciseq.training.adam import FusedAdam

L, H, N_VARIATES, N_MARKS = 96, 96, 7, 4
STEPS_PER_BLOCK = 20
OVER_PUBLISHED, OVER_UNTUNED = 3.0, 1.5

OURS = "ours"
UNTUNED = "untuned, C scan"
PUBLISHED = "untuned, published scan"
VARIANTS = (OURS, UNTUNED, PUBLISHED)
METHODS: dict[str, Callable[..., Any]] = {
    "S-Mamba": functools.partial(sciseq.SMambaForecaster.published, "ETTh1"),
    "iTransformer": functools.partial(sciseq.ITransformerForecaster.published, "ETTh1"),
    "Gateformer": functools.partial(sciseq.GateformerForecaster.published, "ETTh1"),
    "MambaMixer (TSM2)": functools.partial(
        sciseq.MambaMixerForecaster, lookback=L, **MAMBAMIXER
    ),
}
# What the profiler calls a matrix product, attention among them.
PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm")
ATTENTION = "aten::_scaled_dot_product"


def table_of(n_rows: int) -> pd.DataFrame:
    """Make up an hourly table of seven columns."""
    noise = np.random.default_rng(0).normal(size=(n_rows, N_VARIATES))
    index = pd.date_range("2020-01-01", periods=n_rows, freq="h")
    columns = [f"x{number}" for number in range(N_VARIATES)]
    return pd.DataFrame(noise.cumsum(axis=0), index=index, columns=columns)


def fitted(method: str, n_windows: int) -> Any:
    """Forecaster after one epoch on some windows."""
    model = METHODS[method](
        horizon=H, max_epochs=1, validation_fraction=0.0, random_state=0, device="cpu"
    )
    return model.fit(table_of(L + H - 1 + n_windows))


class Step:
    """One training step of a network on one made-up batch."""

    def __init__(
        self,
        network: nn.Module,
        n_windows: int,
        has_marks: bool,
        optimizer: Callable[..., torch.optim.Optimizer] = FusedAdam,
    ) -> None:
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randn(n_windows, L, N_VARIATES, generator=generator).cumsum(1)
        self.truth = torch.randn(n_windows, H, N_VARIATES, generator=generator)
        marks = torch.rand(n_windows, L, N_MARKS, generator=generator) - 0.5
        self.marks = marks if has_marks else None
        self.network = network
        self.optimizer = optimizer(network.parameters(), lr=1e-4)
        set_dropout_generator(network, generator)
        network.train()

    def __call__(self) -> None:
        """Take the step."""
        self.optimizer.zero_grad()
        self.loss().backward()
        self.optimizer.step()

    def loss(self) -> Tensor:
        """Mean squared error of the batch."""
        return nn.functional.mse_loss(self.network(self.x, self.marks), self.truth)


# -------------------------------------------------------------------- measuring


def measure(cell: Cell) -> Cell:
    """Measure one cell."""
    parts = {"S-Mamba": measure_variants, "method": measure_method, "fit": measure_fit}
    return parts[cell["part"]](cell)


def smamba_steps() -> dict[str, Step]:
    """Build the steps of all variants, from the same weights."""
    torch.manual_seed(0)
    scans = {
        UNTUNED: functools.partial(selective_scan, backend="c"),
        PUBLISHED: published_scan,
    }
    plain = {name: PlainSMamba(L, H, scan=scan) for name, scan in scans.items()}
    weights = plain[UNTUNED].published_state_dict()
    plain[PUBLISHED].load_state_dict(plain[UNTUNED].state_dict())
    ours = fitted("S-Mamba", 1).network_
    load_published_state_dict(ours, weights)
    return {
        OURS: Step(ours, 32, has_marks=True),
        **{
            name: Step(network, 32, has_marks=True, optimizer=torch.optim.Adam)
            for name, network in plain.items()
        },
    }


def measure_variants(cell: Cell) -> Cell:
    """Seconds of the variants of S-Mamba in turn, and their profiles."""
    steps = smamba_steps()
    differences = {name: difference(steps[name], steps[OURS]) for name in VARIANTS[1:]}
    times = interleaved(steps, cell["repeats"], calls=STEPS_PER_BLOCK)
    return {
        name: {
            "seconds": median(times[name]),
            "blocks": times[name],
            "difference": differences.get(name, 0.0),
            **profile(step),
        }
        for name, step in steps.items()
    }


def difference(plain: Step, ours: Step) -> float:
    """Largest relative difference of outputs and of the gradient of the embedding."""
    found = []
    for step in (plain, ours):
        step.network.eval()
        step.network.zero_grad()
        forecast = step.network(step.x, step.marks)
        nn.functional.mse_loss(forecast, step.truth).backward()
        # Under both sets of names it is the only weight of this shape.
        gradient = next(
            one.grad for one in step.network.parameters() if one.shape == (256, L)
        )
        found.append((forecast.detach(), gradient.clone()))
        step.network.train()
    pairs = zip(*found, strict=True)
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)


def profile(step: Step) -> Cell:
    """Share of the matrix products in a step, and seconds of the largest operations."""
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU]
    ) as profiler:
        for _ in range(STEPS_PER_BLOCK):
            step()
    own = {
        one.key: one.self_cpu_time_total / 1e6 / STEPS_PER_BLOCK
        for one in profiler.key_averages()
    }
    products = sum(
        seconds
        for name, seconds in own.items()
        if name in PRODUCTS or name.startswith(ATTENTION)
    )
    largest = sorted(own, key=own.__getitem__, reverse=True)[:12]
    return {
        "products": products / sum(own.values()),
        "largest": {name: own[name] for name in largest},
    }


def measure_method(cell: Cell) -> Cell:
    """Seconds of one method's step, and its profile."""
    model = fitted(cell["method"], 1)
    network = model.network_
    has_marks = bool(model.calendar_)
    step = Step(network, model.batch_size, has_marks)
    times = interleaved({"step": step}, cell["repeats"], calls=STEPS_PER_BLOCK)["step"]
    facts = {"seconds": median(times), "blocks": times}
    facts |= {"batch": model.batch_size, "parameters": model.n_parameters_}
    return {**facts, **profile(step)}


def measure_fit(cell: Cell) -> Cell:
    """Seconds per step inside ``fit``: gathering windows, checks and all."""
    model = METHODS[cell["method"]](horizon=H).batch_size
    fits = [
        fitted(cell["method"], cell["steps"] * model).history_[0]["seconds"]
        for _ in range(cell["repeats"])
    ]
    return {"seconds": median(fits) / cell["steps"], "epochs": fits}


# ---------------------------------------------------------------------- results


def cells(repeats: int, *, quick: bool) -> list[Cell]:
    """All cells, in the order of the tables."""
    methods = ["S-Mamba", "Gateformer"] if quick else list(METHODS)
    wanted: list[Cell] = [{"part": "S-Mamba", "repeats": repeats}]
    for name in methods:
        wanted.append({"part": "method", "method": name, "repeats": repeats})
        steps = 5 if quick else 100
        wanted.append(
            {"part": "fit", "method": name, "steps": steps, "repeats": repeats}
        )
    return wanted


def variant_table(found: Cell) -> list[str]:
    """Make the table of the variants of S-Mamba."""
    head = ["S-Mamba step", "ms", "least", "most", "times ours", "products alone, ms",
            "difference to ours"]  # fmt: skip
    rows = []
    for name in VARIANTS:
        one = found[name]
        seconds = one["seconds"]
        times = (seconds, min(one["blocks"]), max(one["blocks"]))
        rows.append([
            name,
            *(digits(1e3 * time) for time in times),
            f"{seconds / found[OURS]['seconds']:.2f}",
            digits(1e3 * seconds * one["products"]),
            f"{one['difference']:.0e}",
        ])  # fmt: skip
    return table(head, rows)


def method_table(results: list[Cell]) -> list[str]:
    """Make the table of the methods."""
    head = ["method", "batch", "weights", "step, ms", "products alone, ms",
            "their share", "step inside fit, ms", "windows/s inside fit"]  # fmt: skip
    inside = {one["method"]: one["found"] for one in results if one["part"] == "fit"}
    rows = []
    for cell in results:
        if cell["part"] != "method":
            continue
        one, fit = cell["found"], inside.get(cell["method"])
        rows.append([
            cell["method"],
            one["batch"],
            f"{one['parameters']:,}",
            digits(1e3 * one["seconds"]),
            digits(1e3 * one["seconds"] * one["products"]),
            f"{one['products']:.0%}",
            digits(fit and 1e3 * fit["seconds"]),
            f"{one['batch'] / fit['seconds']:.0f}" if fit else "",
        ])  # fmt: skip
    return table(head, rows)


def profile_lines(found: Cell) -> list[str]:
    """Name the largest operations of our S-Mamba step."""
    largest = found[OURS]["largest"]
    listed = ", ".join(f"{name} {1e3 * s:.2f}" for name, s in largest.items())
    return [f"Largest operations of our S-Mamba step, profiled, ms: {listed}."]


def verdicts(found: Cell) -> list[str]:
    """Say what was asked of the S-Mamba step, and whether it was reached."""
    lines = []
    for name, bound in ((PUBLISHED, OVER_PUBLISHED), (UNTUNED, OVER_UNTUNED)):
        ratio = found[name]["seconds"] / found[OURS]["seconds"]
        what = f"S-Mamba step, times ours: {name}"
        lines.append(verdict(what, ratio, bound, at_least=True))
    return lines


def main() -> int:
    """Run the command line."""
    chosen = parser(__doc__).parse_args()
    repeats = 2 if chosen.quick else chosen.repeats
    wanted = cells(repeats, quick=chosen.quick)
    results = run_cells("training_step", wanted, measure, chosen)
    variants = [one["found"] for one in results if one["part"] == "S-Mamba"]
    if not variants:
        write("nothing is measured yet\n")
        return 1
    lines = [
        f"Medians of {repeats} interleaved blocks of {STEPS_PER_BLOCK} steps on one "
        "batch. S-Mamba at its published ETTh1 settings; the untuned network holds the "
        "same weights, calls two blocks a layer and flips the tokens of one, and "
        "trains with Adam as torch has it by default. The difference is the largest of "
        "outputs and the gradient of the embedding, relative to the largest entry.",
        "",
        *variant_table(variants[0]),
        "",
        "Products alone: the share of a step that torch's profiler counts for matrix "
        "products and attention, times the step; its floor. Inside fit: an epoch over "
        "its steps, with gathering of windows, the norm of the gradient and the "
        "checks.",
        "",
        *method_table(results),
        "",
        *profile_lines(variants[0]),
    ]
    title = "One training step"
    report("training_step", title, lines, verdicts(variants[0]), results, chosen)
    return 0 if len(results) == len(wanted) else 1


if __name__ == "__main__":
    sys.exit(main())
