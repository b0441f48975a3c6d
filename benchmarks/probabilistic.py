"""Probabilistic forecasts from generated paths, beside conformal quantiles.

A generator of tokens (AutoregressiveSequence in a GenerativeForecaster) against the
last value, the value one season ago and one linear map, whose quantiles are conformal:
forecast plus residuals. Every model sees the same rows, is fitted once on those before
the test rows and forecasts from the same origins; values are standardised by the rows
before. CRPS is twice the mean pinball loss over the same ten levels for all.

Sizes of the generator are chosen on validation rows, which come before the test rows
and are learnt from afterwards; the best of CHOICES there is what the test rows are
forecast with, once for every recorded cell. (The births were first recorded with 8
passes, too few for one column: CRPS 0.393 to 0.555.)

    python benchmarks/probabilistic.py --threads 1     # choose, test, then the page
    python benchmarks/probabilistic.py --table-only    # from what is cached

Needs ``$SCISEQ_DATA``.
"""

import sys
import time
from typing import Any

from measuring import Cell, median, parser, report, run_cells, table, write

import sciseq
from sciseq.model_selection import backtest

LEVELS = tuple(round(0.05 + 0.1 * place, 2) for place in range(10))
COVERAGE = 0.8
# Rows of a season, of a forecast, and used; how many of these are test rows. Validation
# rows are as many, right before them.
DATA = {
    "ETTh1": {"season": 24, "horizon": 24, "rows": 14400, "test_rows": 2880},
    "ETTh2": {"season": 24, "horizon": 24, "rows": 14400, "test_rows": 2880},
    "monash_us_births": {"season": 7, "horizon": 14, "rows": 7305, "test_rows": 1461},
}
GENERATIVE = "generative"
BASELINES = ("last value", "seasonal naive", "linear map")
CALIBRATIONS = ("fixed", "adaptive")
SIZES: dict[str, Any] = {
    "d_model": 32, "d_ff": 64, "n_layers": 2, "n_heads": 2, "dropout": 0.1,
    "learning_rate": 2e-3, "batch_size": 64, "max_epochs": 8,
    "n_samples": 100, "max_windows": 1000,
}  # fmt: skip
CHOICES: dict[str, dict[str, Any]] = {
    "32 bins, 2 seasons": {"n_bins": 32, "seasons": 2},
    "32 bins, 4 seasons": {"n_bins": 32, "seasons": 4},
    "64 bins, 4 seasons": {"n_bins": 64, "seasons": 4},
}
# One column has a seventh of the windows of the others: as many steps as those take.
MORE_CHOICES: dict[str, dict[str, dict[str, Any]]] = {
    "monash_us_births": {
        "32 bins, 2 seasons, 56 epochs": {
            "n_bins": 32, "seasons": 2, "max_epochs": 56},
        "32 bins, 4 seasons, 56 epochs": {
            "n_bins": 32, "seasons": 4, "max_epochs": 56},
    },
}  # fmt: skip
CONTEXT = 4  # seasons that every model could look back on


def model_of(cell: Cell) -> Any:
    """Make the model of a cell."""
    season, horizon = DATA[cell["data"]]["season"], DATA[cell["data"]]["horizon"]
    if cell["model"] == "linear map":
        return sciseq.LinearForecaster(lookback=CONTEXT * season, horizon=horizon)
    if cell["model"] != GENERATIVE:
        strategy = "seasonal" if cell["model"] == "seasonal naive" else "last"
        length = season if strategy == "seasonal" else None
        return sciseq.NaiveForecaster(
            strategy=strategy, season_length=length, horizon=horizon
        )
    sizes = dict(cell["settings"])
    ours = {name: sizes.pop(name) for name in ("n_bins", "n_samples", "max_windows")}
    lookback = sizes.pop("seasons") * season
    return sciseq.GenerativeForecaster(
        generator=sciseq.AutoregressiveSequence(**sizes, device="cpu"),
        **ours,
        lookback=lookback,
        horizon=horizon,
        random_state=cell["seed"],
    )


def choices_of(data: str) -> dict[str, dict[str, Any]]:
    """Return what is chosen from."""
    return {**CHOICES, **MORE_CHOICES.get(data, {})}


def settings_of(data: str, choice: str, quick: bool) -> dict[str, Any]:
    """Return the settings of a generator."""
    small = {"max_epochs": 1, "n_samples": 10, "max_windows": 20} if quick else {}
    return {**SIZES, **choices_of(data)[choice], **small}


def measure(cell: Cell) -> Cell:
    """Forecast the validation or the test rows of a cell."""
    facts = DATA[cell["data"]]
    # A quick try does not look at test rows.
    is_test = cell["part"] == "test" and not cell["quick"]
    last = facts["rows"] - (0 if is_test else facts["test_rows"])
    frame = sciseq.load_dataset(cell["data"]).iloc[:last]
    # A quarter of the origins is enough to choose by.
    stride = facts["horizon"] * (4 if cell["part"] == "choice" else 1)
    started = time.process_time()
    result = backtest(
        model_of(cell),
        frame,
        test_size=facts["test_rows"],
        stride=stride * 10 if cell["quick"] else stride,
        context=CONTEXT * facts["season"],
        metrics=["mae"],
        quantiles=LEVELS,
        coverage=COVERAGE,
        calibration=cell["calibration"],
        scaled=True,
        keep_forecasts=False,
    )
    scores = result.metrics.iloc[0]
    return {
        **{name: float(scores[name]) for name in ("crps", "mae", "coverage")},
        "windows": result.n_windows,
        "seconds": time.process_time() - started,
    }


# ------------------------------------------------------------------------ choosing


def choice_cells(datasets: list[str], quick: bool) -> list[Cell]:
    """Cells on validation rows."""
    return [
        {"part": "choice", "data": data, "model": GENERATIVE, "choice": choice,
         "settings": settings_of(data, choice, quick), "calibration": "fixed",
         "seed": 0, "quick": quick}
        for data in datasets
        for choice in list(choices_of(data))[: 2 if quick else None]
    ]  # fmt: skip


def best_choices(results: list[Cell]) -> dict[str, str]:
    """Return what has the lowest CRPS on the validation rows of each data set."""
    best: dict[str, Cell] = {}
    for one in results:
        before = best.setdefault(one["data"], one)
        if one["found"]["crps"] < before["found"]["crps"]:
            best[one["data"]] = one
    return {data: one["choice"] for data, one in best.items()}


def test_cells(best: dict[str, str], seeds: list[int], quick: bool) -> list[Cell]:
    """Cells on test rows."""
    cells: list[Cell] = []
    for data, choice in best.items():
        of: Cell = {"part": "test", "data": data, "quick": quick}
        cells += [
            {**of, "model": model, "calibration": calibration}
            for model in BASELINES
            for calibration in CALIBRATIONS
        ]
        cells += [
            {**of, "model": GENERATIVE, "choice": choice,
             "settings": settings_of(data, choice, quick), "calibration": "fixed",
             "seed": seed}
            for seed in seeds
        ]  # fmt: skip
    return cells


# ------------------------------------------------------------------------- results


def found_of(results: list[Cell], data: str, model: str, calibration: str) -> Cell:
    """Return the scores of all runs of a model, by name of the score."""
    runs = [
        one["found"]
        for one in results
        if (one["data"], one["model"], one["calibration"]) == (data, model, calibration)
    ]
    return {name: [one[name] for one in runs] for name in runs[0]} if runs else {}


def page(tests: list[Cell], choices: list[Cell]) -> list[str]:
    """Lines of the results page."""
    rows = []
    for data in DATA:
        for model in (*BASELINES, GENERATIVE):
            for calibration in CALIBRATIONS:
                found = found_of(tests, data, model, calibration)
                if not found:
                    continue
                crps, name = found["crps"], f"{model}, conformal ({calibration})"
                if model == GENERATIVE:
                    name = "generated paths"
                rows.append([data, name, f"{median(crps):.4f}",
                             f"{min(crps):.4f} to {max(crps):.4f}"
                             if len(crps) > 1 else "", len(crps),
                             f"{median(found['mae']):.4f}",
                             f"{100 * median(found['coverage']):.1f} %",
                             found["windows"][0],
                             f"{median(found['seconds']):.0f}"])  # fmt: skip
    chosen = best_choices(choices)
    choice_rows = [
        [one["data"], one["choice"], f"{one['found']['crps']:.4f}",
         "taken" if chosen[one["data"]] == one["choice"] else ""]
        for one in choices
    ]  # fmt: skip
    return [
        "Test rows, standardised by the rows before them. CRPS: lower is better; "
        f"coverage: share of truths within the central interval of {100 * COVERAGE:g} "
        "%. Medians over seeds. Fixed: residuals held out in fit, as "
        "`predict_quantiles` uses them; adaptive: rolling residuals at moving levels, "
        "as `backtest` does by default. Paths are not calibrated.", "",
        *table(["data", "model", "CRPS", "seeds from, to", "runs", "MAE", "coverage",
                "windows", "processor seconds"], rows, 2), "",
        "Validation rows: what was chosen.", "",
        *table(["data", "generator", "CRPS", ""], choice_rows, 2),
    ]  # fmt: skip


def verdicts(tests: list[Cell]) -> list[str]:
    """Say where the generator is below the baselines."""
    lines, n_below = [], 0
    for data in DATA:
        ours = found_of(tests, data, GENERATIVE, "fixed")
        if not ours:
            continue
        others = {
            f"{model} ({calibration})": found["crps"][0]
            for model in BASELINES
            for calibration in CALIBRATIONS
            if (found := found_of(tests, data, model, calibration))
        }
        worst, middle = max(ours["crps"]), median(ours["crps"])
        naive = min(one for name, one in others.items() if name.startswith("seasonal"))
        n_below += worst < naive
        lines.append(
            f"{data}: CRPS {middle:.4f} (highest of {len(ours['crps'])} seeds "
            f"{worst:.4f}); below: "
            + (", ".join(name for name, one in others.items() if worst < one) or "none")
            + "; not below: "
            + (", ".join(name for name, one in others.items() if worst >= one)
               or "none")
        )  # fmt: skip
    asked = "asked for on two"
    word = "kept" if n_below >= 2 else "MISSED"
    lines.append(
        "below conformal seasonal naive of either calibration with every seed on "
        f"{n_below} sets, {asked}: {word}"
    )
    return lines


def main() -> int:
    """Run the command line."""
    options = parser(__doc__)
    options.add_argument("--datasets", nargs="+", default=list(DATA), choices=DATA)
    options.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    options.add_argument("--choose", action="store_true", help="only choose settings")
    chosen = options.parse_args()
    quick = chosen.quick
    datasets = chosen.datasets[:1] if quick else chosen.datasets
    seeds = chosen.seeds[:1] if quick else chosen.seeds
    choices = run_cells("probabilistic", choice_cells(datasets, quick), measure, chosen)
    if chosen.choose:
        return 0
    wanted = test_cells(best_choices(choices), seeds, quick)
    tests = run_cells("probabilistic", wanted, measure, chosen)
    if not tests:
        write("probabilistic: nothing is cached yet\n")
        return 1
    report(
        "probabilistic",
        "Probabilistic forecasts: CRPS",
        page(tests, choices),
        verdicts(tests),
        [*choices, *tests],
        chosen,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
