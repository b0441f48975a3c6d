"""AR-Net benchmark: true lags found, seconds, and how exact least squares is.

Simulated autoregressions with unit noise, as in the paper: the symmetric total
percentage error (sTPE) between true and fitted weights for model orders far above the
true one; small data with scattered lags; seconds at order 1000 on 100 000 points; and
the weights beside those of statsmodels' AutoReg, also on ill-conditioned series.

    python benchmarks/arnet.py                # all cells, then the tables
    python benchmarks/arnet.py --seeds 0 1    # fewer series
    python benchmarks/arnet.py --table-only   # from what is cached
    python benchmarks/arnet.py --again seconds   # best on an idle machine

Finished cells are cached under ``benchmarks/cache/arnet``, so the command can be
stopped and started again. Results go to ``benchmarks/results/arnet.{json,md}``. AutoReg
at order 1000 needs 4 GB and a minute or two.
"""

import argparse
import hashlib
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.signal import lfilter

import sciseq
from sciseq.forecasting.arnet import ARNetForecaster, stpe
from sciseq.forecasting.arnet_moments import lag_chunks, lag_moments
from sciseq.forecasting.arnet_solvers import least_squares, yule_walker

HERE = Path(__file__).parent
CACHE = HERE / "cache" / "arnet"
RESULTS = HERE / "results"

TRUE = (0.2, 0.3, -0.5)
SCATTERED = (0.2, 0, 0.3, 0, 0, 0, 0, 0, 0, -0.5)  # lags 1, 3 and 10
N_TRAIN, N_TEST = 100_000, 25_000
ORDERS = (3, 20, 100, 1000)
SOLVERS: dict[str, dict[str, Any]] = {
    "least squares": {},
    "Levinson": {"solver": "levinson"},
    "sparse": {"sparsity": True},
    "sparse, Adam": {"solver": "sgd", "sparsity": True, "random_state": 0},
}
STRENGTHS = (0.01, 0.02, 0.05)
REPEATS = 7

# What the method card measured, on one series: sTPE of least squares and sparse.
CARD = {3: (0.41, None), 20: (3.0, None), 100: (14.8, 0.28), 1000: (61, 0.19)}

Cell = dict[str, Any]


def simulate(weights: Any, n_rows: int, seed: int) -> np.ndarray:
    """Autoregression with unit noise, whose start has been forgotten."""
    noise = np.random.default_rng(seed).normal(size=n_rows + 2000)
    return lfilter([1.0], np.r_[1.0, -np.asarray(weights)], noise)[2000:]


def forecaster(p: int, share: float, options: dict[str, Any]) -> ARNetForecaster:
    """One-step model of order p; ``share`` is the sparsity where it is asked for."""
    options = dict(options)
    if options.get("sparsity"):
        options["sparsity"] = share
    return ARNetForecaster(
        lookback=p, horizon=1, scaler=None, validation_fraction=0.0, **options
    )


def test_error(model: ARNetForecaster, x: np.ndarray) -> float:
    """Mean squared one-step error over all rows after the first p."""
    weights = model.coef_[0, 0]
    fitted = np.convolve(x[:-1], weights, mode="valid") + model.intercept_[0, 0]
    return float(np.mean((x[len(weights) :] - fitted) ** 2))


def measure_recovery(cell: Cell) -> Cell:
    """Errors of all ways to the weights, on one series."""
    weights = TRUE if cell["case"] == "long" else SCATTERED
    n_train, n_test = (N_TRAIN, N_TEST) if cell["case"] == "long" else (1000, 1000)
    x = simulate(weights, n_train + n_test, cell["seed"])
    ways = {name: (options, None) for name, options in SOLVERS.items()}
    if cell["case"] == "small":
        ways = {"least squares": ({}, None)} | {
            f"sparse, {c}": ({"sparsity": True, "sparsity_strength": c}, c)
            for c in STRENGTHS
        }
    p = cell["p"]
    share = sum(one != 0 for one in weights) / p
    found: Cell = {}
    for name, (options, _) in ways.items():
        model = forecaster(p, share, options)
        start = time.perf_counter()
        model.fit(x[:n_train, None])
        coef = model.coef_[0, 0]
        true = np.pad(weights, (0, max(0, p - len(weights))))[:p]
        found[name] = {
            "stpe": stpe(coef, np.asarray(weights)),
            "test_mse": test_error(model, x[n_train - p :]),
            "non_zero": int((coef != 0).sum()),
            "worst_true_lag": float(np.abs(coef - true)[true != 0].max()),
            "seconds": time.perf_counter() - start,
        }
    return found


def measure_guess(cell: Cell) -> Cell:
    """Sparse errors where the guess of the share is wrong by a factor."""
    x = simulate(TRUE, N_TRAIN, cell["seed"])
    errors = {}
    for factor in (0.1, 0.3, 1.0, 3.0, 10.0):
        model = forecaster(100, 0.03 * factor, {"sparsity": True}).fit(x[:, None])
        errors[str(factor)] = stpe(model.coef_[0, 0], np.asarray(TRUE))
    return errors


def measure_seconds(cell: Cell) -> Cell:
    """Wall and processor seconds at order 1000, each way several times."""
    x, p = simulate(TRUE, N_TRAIN, 0), 1000

    def ols() -> None:
        least_squares(lag_moments([x], p), lambda: lag_chunks([x], p))

    tasks: dict[str, Callable[[], Any]] = {
        "least squares, solver alone": ols,
        "Levinson, solver alone": lambda: yule_walker([x], p),
    }
    for name in ("least squares", "Levinson", "sparse"):
        model = forecaster(p, 3 / p, SOLVERS[name])
        tasks[f"{name}, whole fit"] = lambda model=model: model.fit(x[:, None])
    found: Cell = {}
    for name, task in tasks.items():
        task()
        wall, processor = [], []
        for _ in range(REPEATS):
            start, ticks = time.perf_counter(), time.process_time()
            task()
            wall.append(time.perf_counter() - start)
            processor.append(time.process_time() - ticks)
        found[name] = {
            "wall": statistics.median(wall),
            "least_wall": min(wall),
            "processor": statistics.median(processor),
        }
    found["load"] = os.getloadavg()[0]
    return found


def series_by_name(name: str) -> tuple[np.ndarray, int]:
    """Series and order of a comparison with AutoReg."""
    slope = np.arange(float(N_TRAIN))
    noise = simulate(TRUE, N_TRAIN, 1)
    walk = np.random.default_rng(1).normal(size=N_TRAIN).cumsum()
    cases: dict[str, tuple[np.ndarray, int]] = {
        "stationary, p = 1000": (simulate(TRUE, N_TRAIN, 0), 1000),
        "stationary, p = 20": (noise, 20),
        "trend of 0.01 a row": (0.01 * slope + noise, 20),
        "trend of 100 a row": (100 * slope + noise, 20),
        "near unit root (0.99999)": (simulate([0.99999], N_TRAIN, 1), 20),
        "random walk": (walk, 20),
        "twice integrated": (walk.cumsum(), 20),
        "sine and noise of 1e-6": (np.sin(slope / 50) + 1e-6 * noise, 20),
        "level of 1e9": (1e9 + noise, 20),
    }
    return cases[name]


EQUALITY = (
    "stationary, p = 1000",
    "stationary, p = 20",
    "trend of 0.01 a row",
    "trend of 100 a row",
    "near unit root (0.99999)",
    "random walk",
    "twice integrated",
    "sine and noise of 1e-6",
    "level of 1e9",
)


def measure_equality(cell: Cell) -> Cell:
    """Largest difference to AutoReg's weights, and how each fits the rows."""
    from statsmodels.tsa.ar_model import AutoReg

    x, p = series_by_name(cell["case"])
    start = time.perf_counter()
    solution = least_squares(lag_moments([x], p), lambda: lag_chunks([x], p))
    seconds = time.perf_counter() - start
    start = time.perf_counter()
    params = np.asarray(AutoReg(x, p, trend="c").fit().params)
    weights = solution.weights[::-1, 0]
    return {
        "method": solution.method,
        "weights": float(np.abs(weights - params[1:]).max()),
        "constant": float(abs(solution.intercept[0] - params[0])),
        "seconds": seconds,
        "seconds_autoreg": time.perf_counter() - start,
        "residual": residual(x, weights),
        "residual_autoreg": residual(x, params[1:]),
    }


def residual(x: np.ndarray, weights: np.ndarray) -> float:
    """Variance of what the lags leave, with the best constant for these weights."""
    x = x - x.mean()
    rest = x[len(weights) :] - np.convolve(x[:-1], weights, mode="valid")
    return float(np.var(rest))


MEASURES = {
    "recovery": measure_recovery,
    "guess": measure_guess,
    "seconds": measure_seconds,
    "equality": measure_equality,
}


def cells(seeds: list[int]) -> list[Cell]:
    """All cells, in the order of the tables."""
    wanted: list[Cell] = [{"kind": "seconds"}]
    wanted += [{"kind": "equality", "case": case} for case in EQUALITY]
    for p in ORDERS:
        wanted += [
            {"kind": "recovery", "case": "long", "p": p, "seed": seed} for seed in seeds
        ]
    wanted += [
        {"kind": "recovery", "case": "small", "p": 20, "seed": seed} for seed in seeds
    ]
    wanted += [{"kind": "guess", "seed": seed} for seed in seeds]
    return wanted


def cache_path(cell: Cell) -> Path:
    """File of a cell, named by what determines it."""
    text = json.dumps([cell, sciseq.__version__, N_TRAIN, STRENGTHS])
    return CACHE / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"


def run(wanted: list[Cell], again: str | None) -> None:
    """Measure what is not cached, or is asked for again."""
    CACHE.mkdir(parents=True, exist_ok=True)
    for cell in wanted:
        path = cache_path(cell)
        if path.exists() and cell["kind"] != again:
            continue
        before = json.loads(path.read_text()) if path.exists() else {}
        result = {
            **cell,
            "times_measured": before.get("times_measured", 0) + 1,
            "found": MEASURES[cell["kind"]](cell),
            "date": time.strftime("%Y-%m-%d"),
            "threads": os.environ.get("OMP_NUM_THREADS", "all"),
        }
        path.write_text(json.dumps(result, indent=1))
        write(f"{cell}: {json.dumps(result['found'])[:160]}\n")


def mean(members: list[Cell], way: str, key: str) -> float:
    """Mean over seeds."""
    return statistics.mean(one["found"][way][key] for one in members)


def spread(members: list[Cell], way: str) -> str:
    """Least and largest sTPE over seeds."""
    values = [one["found"][way]["stpe"] for one in members]
    return f"{min(values):.2f}-{max(values):.2f}"


def recovery_table(results: list[Cell]) -> list[str]:
    """STPE by order and way."""
    lines = [
        "| p | way | sTPE, mean | least-largest | card | weights not zero | worst true "
        "lag | test MSE | fit, s |",
        "| ---: | --- | ---: | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for p in ORDERS:
        members = [
            one
            for one in results
            if one["kind"] == "recovery" and (one["case"], one["p"]) == ("long", p)
        ]
        for way in SOLVERS if members else ():
            dense = way in ("least squares", "Levinson")
            card = CARD[p][0 if dense else 1]
            found = [one["found"][way] for one in members]
            worst = max(one["worst_true_lag"] for one in found)
            seconds = statistics.median(one["seconds"] for one in found)
            lines.append(
                f"| {p} | {way} | {mean(members, way, 'stpe'):.2f} | "
                f"{spread(members, way)} | {'' if card is None else card} | "
                f"{mean(members, way, 'non_zero'):.1f} | {worst:.4f} | "
                f"{mean(members, way, 'test_mse'):.4f} | {seconds:.3f} |"
            )
    return lines


def small_table(results: list[Cell]) -> list[str]:
    """STPE on small data."""
    members = [one for one in results if one.get("case") == "small"]
    lines = [
        "| way | sTPE, mean | least-largest | weights not zero | test MSE |",
        "| --- | ---: | --- | ---: | ---: |",
    ]
    lines += [
        f"| {way} | {mean(members, way, 'stpe'):.1f} | {spread(members, way)} | "
        f"{mean(members, way, 'non_zero'):.1f} | "
        f"{mean(members, way, 'test_mse'):.4f} |"
        for way in (members[0]["found"] if members else ())
    ]
    return lines


def guess_table(results: list[Cell]) -> list[str]:
    """STPE against the guess of the share."""
    members = [one for one in results if one["kind"] == "guess"]
    if not members:
        return []
    factors = list(members[0]["found"])
    means = [
        statistics.mean(one["found"][factor] for one in members) for factor in factors
    ]
    return [
        "| guess / true share | " + " | ".join(factors) + " |",
        "| --- |" + " ---: |" * len(factors),
        "| sTPE, mean | " + " | ".join(f"{one:.2f}" for one in means) + " |",
    ]


def seconds_table(results: list[Cell]) -> list[str]:
    """Seconds at order 1000."""
    lines = [
        "| what | wall, s | least wall, s | processor, s |",
        "| --- |" + " ---: |" * 3,
    ]
    for one in results:
        if one["kind"] == "seconds":
            lines += [
                f"| {name} | {cost['wall']:.4f} | {cost['least_wall']:.4f} | "
                f"{cost['processor']:.4f} |"
                for name, cost in one["found"].items()
                if name != "load"
            ]
    return lines


def equality_table(results: list[Cell]) -> list[str]:
    """Differences to AutoReg."""
    lines = [
        "| series | way taken | weights: largest difference | residual variance | "
        "AutoReg's | s | AutoReg, s |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for one in results:
        if one["kind"] == "equality":
            found = one["found"]
            lines.append(
                f"| {one['case']} | {found['method']} | {found['weights']:.1e} | "
                f"{found['residual']:.6g} | {found['residual_autoreg']:.6g} | "
                f"{found['seconds']:.3f} | {found['seconds_autoreg']:.2f} |"
            )
    return lines


def verdicts(results: list[Cell]) -> list[str]:
    """One line per bound: kept or missed."""
    lines = []

    def say(text: str, value: float, bound: float) -> None:
        word = "kept" if value <= bound else "MISSED"
        lines.append(f"{text}: {value:.3g}, bound {bound:g}: {word}")

    for one in results:
        if one["kind"] == "seconds":
            cost = one["found"]["least squares, solver alone"]
            what = "least squares at p = 1000 on 100,000 points"
            say(f"{what}, processor s (one thread)", cost["processor"], 0.1)
            say(f"{what}, wall s", cost["wall"], 0.1)
        if one["kind"] == "equality":
            found, what = one["found"], f"difference to AutoReg, {one['case']}"
            bound = 1e-8 if one["case"].startswith("stationary") else 1e-5
            better = found["residual"] < (1 - 1e-6) * found["residual_autoreg"]
            if found["weights"] > bound and better:
                lines.append(
                    f"{what}: {found['weights']:.3g}: AutoReg is the inexact one, by "
                    "its residual variance"
                )
            else:
                say(what, found["weights"], bound)
    for p in (100, 1000):
        members = [one for one in results if one.get("p") == p]
        if members:
            say(f"sparse sTPE at p = {p}", mean(members, "sparse", "stpe"), 1.0)
            worst = max(one["found"]["sparse"]["worst_true_lag"] for one in members)
            say(f"worst true lag at p = {p}", worst, 0.01)
    return lines


def report(results: list[Cell], command: str) -> None:
    """Write the results files and print the tables."""
    RESULTS.mkdir(exist_ok=True)
    facts = {
        "command": command,
        "processor_cores": os.cpu_count(),
        "machine": platform.machine(),
        "versions": versions(),
        "verdicts": verdicts(results),
        "cells": results,
    }
    (RESULTS / "arnet.json").write_text(json.dumps(facts, indent=1) + "\n")
    dates = sorted({one["date"] for one in results})
    seeds = sorted({one["seed"] for one in results if "seed" in one})
    costs = [one for one in results if one["kind"] == "seconds"]
    load = [one["found"]["load"] for one in costs]
    times = [one.get("times_measured", 1) for one in costs]
    page = [
        "# AR-Net on simulated autoregressions",
        "",
        f"Command: `{command}`. Seeds {seeds}; unit noise. Measured {dates[0]} to "
        f"{dates[-1]} with {versions()} on {os.cpu_count()} shared cores, OMP threads "
        f"{sorted({one['threads'] for one in results})}.",
        "",
        f"## Order far above the truth ({N_TRAIN:,} rows, weights {list(TRUE)})",
        "",
        "The card's figures are of one series each; means here are over the seeds. The "
        "last column is wall seconds (median) on a busy machine, no speed figure.",
        "",
        *recovery_table(results),
        "",
        "## Small data (1,000 rows, p = 20, lags 1, 3 and 10)",
        "",
        "Number after the comma: `sparsity_strength`.",
        "",
        *small_table(results),
        "",
        "## Wrong guess of the share (p = 100)",
        "",
        *guess_table(results),
        "",
        "## Seconds at p = 1000 on 100,000 points",
        "",
        f"Median of {REPEATS}; measured {times} time(s), the last one counts. The load "
        f"of the machine was {load[0] if load else 0:.1f}: where that is above the "
        "number of cores, wall seconds are longer than on an idle machine.",
        "",
        *seconds_table(results),
        "",
        "## Weights beside those of statsmodels' AutoReg (100,000 points)",
        "",
        "Where AutoReg leaves the larger residual variance, the difference is its own.",
        "",
        *equality_table(results),
        "",
        *[f"- {line}" for line in verdicts(results)],
        "",
    ]
    (RESULTS / "arnet.md").write_text("\n".join(page))
    write("\n".join(page) + f"\nwritten to {RESULTS / 'arnet.md'}\n")


def versions() -> dict[str, str]:
    """Versions that results depend on."""
    import scipy
    import statsmodels

    return {
        "sciseq": sciseq.__version__,
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "statsmodels": statsmodels.__version__,
        "python": platform.python_version(),
    }


def write(text: str) -> None:
    """Show text at once."""
    sys.stdout.write(text)
    sys.stdout.flush()


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", nargs="+", type=int, default=list(range(10)))
    parser.add_argument("--again", choices=list(MEASURES), help="measure anew")
    parser.add_argument("--table-only", action="store_true", help="what is cached")
    chosen = parser.parse_args()
    wanted = cells(chosen.seeds)
    if not chosen.table_only:
        run(wanted, chosen.again)
    paths = [path for path in map(cache_path, wanted) if path.exists()]
    done = [json.loads(path.read_text()) for path in paths]
    if done:
        report(done, " ".join(["python", "benchmarks/arnet.py", *sys.argv[1:]]))
    return 0 if len(done) == len(wanted) else 1


if __name__ == "__main__":
    sys.exit(main())
