"""Full fit benchmark: S-Mamba on ETTh1, 96 to 96, beside the original protocol.

Ours is ``SMambaForecaster.published("ETTh1")``: at most 10 epochs, early stopping on
the validation rows, and the test windows run once at the end. The original protocol is
written out here: windows one by one from a data loader, the loss read after every step,
validation and the whole test set (in batches of one window) after every epoch, a
checkpoint at each best epoch, and the test once more at the end. It runs with our
network, which shows what the protocol costs, and with the untuned network and the scan
in the shape of the published reference (plain_smamba.py), which is what it was.

Every run is a process of its own and has its own seed. Test errors are printed to show
that the runs train the same thing; nothing is chosen by them. Needs ``$SCISEQ_DATA``.

    python benchmarks/full_fit.py                # all cells, then the table
    python benchmarks/full_fit.py --again        # measure anew
    python benchmarks/full_fit.py --table-only   # from what is cached
"""

import io
import sys
import time
from typing import Any

import numpy as np
import pandas as pd
import torch
from measuring import Cell, digits, median, parser, report, run_cells, table, write
from plain_smamba import PlainSMamba, published_scan
from torch import nn
from torch.utils.data import DataLoader, Dataset

import sciseq
from sciseq.data.calendar import calendar_features
from sciseq.data.protocol import long_horizon_split
from sciseq.forecasting.published import HOURLY
from sciseq.forecasting.smamba_network import load_published_state_dict
from sciseq.model_selection import backtest
from sciseq.nn import set_dropout_generator

DATASET, L, H, BATCH, EPOCHS, PATIENCE, RATE = "ETTh1", 96, 96, 32, 10, 3, 7e-5
N_TEST = 2880
OURS = "ours"
OUR_NETWORK = "original protocol, our network"
ORIGINAL = "original protocol, published scan"
PARTS = (OURS, OUR_NETWORK, ORIGINAL)

Segments = dict[str, pd.DataFrame]


def read(n_rows: int | None) -> Segments:
    """Train, validation and test rows, standardised by the train rows."""
    split = long_horizon_split(sciseq.load_dataset(DATASET), DATASET, lookback=L)
    mean, scale = split.train.mean(), split.train.std(ddof=0)
    segments = {name: (rows - mean) / scale for name, rows in split._asdict().items()}
    if n_rows is not None:  # only for trying this script out
        segments["train"] = segments["train"].iloc[-n_rows:]
        segments["validation"] = segments["validation"].iloc[:n_rows]
        segments["test"] = segments["test"].iloc[: n_rows // 2]
    return segments


class Windows(Dataset[tuple[np.ndarray, np.ndarray, np.ndarray]]):
    """Windows with stride 1, cut one at a time."""

    def __init__(self, rows: pd.DataFrame) -> None:
        self.values = rows.to_numpy(dtype=np.float32)
        self.marks = calendar_features(rows.index, HOURLY).astype(np.float32)

    def __len__(self) -> int:
        return len(self.values) - L - H + 1

    def __getitem__(self, start: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        middle = start + L
        past = slice(start, middle)
        return self.values[past], self.marks[past], self.values[middle : middle + H]


def loaders(segments: Segments, seed: int) -> dict[str, DataLoader[Any]]:
    """Loaders as the original has them: the test set in batches of one window."""
    generator = torch.Generator().manual_seed(seed)
    shuffled: dict[str, Any] = {
        "batch_size": BATCH,
        "shuffle": True,
        "drop_last": True,
        "generator": generator,
    }
    return {
        "train": DataLoader(Windows(segments["train"]), **shuffled),
        "validation": DataLoader(Windows(segments["validation"]), **shuffled),
        "test": DataLoader(Windows(segments["test"]), batch_size=1),
    }


def scan_loss(network: nn.Module, loader: DataLoader[Any]) -> float:
    """Mean over batches of the mean squared error."""
    network.eval()
    losses = []
    with torch.no_grad():
        for x, marks, truth in loader:
            losses.append(nn.functional.mse_loss(network(x, marks), truth).item())
    network.train()
    return float(np.mean(losses))


def train_by_protocol(
    network: nn.Module, segments: Segments, seed: int, epochs: int, fused: bool
) -> Cell:
    """Train as the original does, and say how long it took."""
    start = time.perf_counter()
    data = loaders(segments, seed)
    optimizer = torch.optim.Adam(network.parameters(), lr=RATE, fused=fused or None)
    best, n_worse, checkpoint, scanning, n_epochs = np.inf, 0, io.BytesIO(), 0.0, 0
    network.train()
    for n_epochs in range(1, epochs + 1):
        for group in optimizer.param_groups:
            group["lr"] = RATE * 0.5 ** max(0, n_epochs - 2)
        for x, marks, truth in data["train"]:
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(network(x, marks), truth)
            loss.item()
            loss.backward()
            optimizer.step()
        validation = scan_loss(network, data["validation"])
        begun = time.perf_counter()
        scan_loss(network, data["test"])
        scanning += time.perf_counter() - begun
        n_worse = 0 if validation <= best else n_worse + 1
        if validation <= best:
            best, checkpoint = validation, io.BytesIO()
            torch.save(network.state_dict(), checkpoint)
        if n_worse >= PATIENCE:
            break
    checkpoint.seek(0)
    network.load_state_dict(torch.load(checkpoint, weights_only=True))
    fitted = time.perf_counter()
    test_mse = scan_loss(network, data["test"])
    return {
        "fit_seconds": fitted - start,
        "test_scans_seconds": scanning,
        "final_test_seconds": time.perf_counter() - fitted,
        "epochs": n_epochs,
        "test_mse": test_mse,
    }


# -------------------------------------------------------------------- measuring


def measure(cell: Cell) -> Cell:
    """Train once, in one of the ways."""
    segments = read(cell["rows"])
    seed, epochs = cell["seed"], cell["epochs"]
    torch.manual_seed(seed)
    plain = PlainSMamba(L, H, scan=published_scan)
    # Made for every way: its short fit loads what is loaded on first use.
    network = our_network(plain, segments["train"], seed)
    if cell["part"] == OURS:
        return measure_ours(cell, segments)
    if cell["part"] == ORIGINAL:
        return train_by_protocol(plain, segments, seed, epochs, fused=False)
    return train_by_protocol(network, segments, seed, epochs, fused=True)


def our_network(plain: PlainSMamba, rows: pd.DataFrame, seed: int) -> nn.Module:
    """Build our network with the weights of the plain one."""
    model = published_model(seed, epochs=1).set_params(validation_fraction=0.0)
    network: nn.Module = model.fit(rows.iloc[: L + H]).network_
    load_published_state_dict(network, plain.published_state_dict())
    set_dropout_generator(network, torch.Generator().manual_seed(seed))
    return network


def published_model(seed: int, epochs: int) -> sciseq.SMambaForecaster:
    """Forecaster with the published settings."""
    return sciseq.SMambaForecaster.published(
        DATASET, horizon=H, max_epochs=epochs, random_state=seed, device="cpu"
    )


def measure_ours(cell: Cell, segments: Segments) -> Cell:
    """Fit the forecaster, then run the test windows once."""
    model = published_model(cell["seed"], cell["epochs"])
    start = time.perf_counter()
    model.fit(segments["train"], validation_data=segments["validation"])
    fitted = time.perf_counter()
    n_targets = len(segments["test"]) - L
    found = backtest(
        model,
        segments["test"],
        test_size=n_targets,
        metrics=["mse"],
        season_length=1,
        fit=False,
        keep_forecasts=False,
    )
    return {
        "fit_seconds": fitted - start,
        "test_scans_seconds": 0.0,
        "final_test_seconds": time.perf_counter() - fitted,
        "epochs": model.n_epochs_,
        "test_mse": float(found.metrics["mse"].iloc[0]),
    }


# ---------------------------------------------------------------------- results


def cells(repeats: int, *, quick: bool) -> list[Cell]:
    """All cells; the ways take turns."""
    sizes = {"epochs": 1, "rows": 400} if quick else {"epochs": EPOCHS, "rows": None}
    return [
        {"part": part, "seed": seed, **sizes}
        for seed in range(repeats)
        for part in PARTS
    ]


def summary(results: list[Cell], part: str) -> dict[str, Any]:
    """Medians over the runs of one way."""
    runs = [one["found"] for one in results if one["part"] == part]
    found = {key: median([one[key] for one in runs]) for key in runs[0]}
    found["all_fits"] = [one["fit_seconds"] for one in runs]
    found["all_epochs"] = [one["epochs"] for one in runs]
    found["all_mse"] = [one["test_mse"] for one in runs]
    found["per_epoch"] = median([one["fit_seconds"] / one["epochs"] for one in runs])
    return found


def fit_table(found: dict[str, dict[str, Any]]) -> list[str]:
    """Make the table of all ways."""
    head = ["way", "fit, s", "all runs, s", "epochs", "s per epoch",
            "of it test scans, s", "final test, s", "fit and test, times ours",
            "test MSE"]  # fmt: skip

    def whole(one: dict[str, Any]) -> float:
        return float(one["fit_seconds"] + one["final_test_seconds"])

    rows = []
    for part, one in found.items():
        ratio = whole(one) / whole(found[OURS]) if OURS in found else None
        rows.append([
            part,
            digits(one["fit_seconds"]),
            ", ".join(digits(value) for value in one["all_fits"]),
            ", ".join(str(value) for value in one["all_epochs"]),
            digits(one["per_epoch"]),
            digits(one["test_scans_seconds"]),
            digits(one["final_test_seconds"]),
            digits(ratio),
            ", ".join(f"{value:.4f}" for value in one["all_mse"]),
        ])  # fmt: skip
    return table(head, rows)


def main() -> int:
    """Run the command line."""
    options = parser(__doc__)
    options.set_defaults(repeats=3)
    chosen = options.parse_args()
    wanted = cells(1 if chosen.quick else chosen.repeats, quick=chosen.quick)
    results = run_cells("full_fit", wanted, measure, chosen)
    parts = [part for part in PARTS if any(one["part"] == part for one in results)]
    if not parts:
        write("nothing is measured yet\n")
        return 1
    found = {part: summary(results, part) for part in parts}
    lines = [
        f"{DATASET}, look-back {L}, horizon {H}, published settings: at most {EPOCHS} "
        f"epochs of {BATCH} windows a step, patience {PATIENCE}. Wall seconds from the "
        "standardised table to the best weights, and of the test windows at the end; "
        "medians of the runs, one seed each.",
        "",
        *fit_table(found),
        "",
        f"The original protocol scans the test set ({N_TEST} rows) after every epoch, "
        "one window at a time; ours runs it once.",
    ]
    title = "A full fit of S-Mamba beside the original protocol"
    report("full_fit", title, lines, [], results, chosen)
    return 0 if len(results) == len(wanted) else 1


if __name__ == "__main__":
    sys.exit(main())
