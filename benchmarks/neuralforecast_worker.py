"""The side of peers.py that runs neuralforecast, in an environment of its own.

Reads one JSON request per line and answers each with one line that begins with
``ANSWER``; imports nothing of sciseq.
"""

import json
import logging
import sys
import time
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytorch_lightning
import torch
from neuralforecast import NeuralForecast
from neuralforecast.losses.pytorch import MSE
from neuralforecast.models import TSMixer, iTransformer

# Steps at the start that the steady rate leaves out.
N_FIRST = 10


# When each training step ended; not in the callback, which is copied with its model.
ENDS: list[float] = []


class Clock(pytorch_lightning.Callback):
    """Notes when each training step ended."""

    def on_train_batch_end(self, *arguments: Any, **options: Any) -> None:
        """Note the time."""
        ENDS.append(time.perf_counter())


def make_model(request: dict[str, Any]) -> Any:
    """Build a model at the width and depth that were asked for."""
    shared = {
        "h": request["horizon"],
        "input_size": request["lookback"],
        "n_series": request["n_series"],
        "dropout": 0.1,
        "loss": MSE(),
        "max_steps": request["steps"],
        "val_check_steps": request["steps"],
        "windows_batch_size": request["batch"],
        "learning_rate": 1e-4,
        "callbacks": [Clock()],
        "accelerator": "cpu",
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "logger": False,
    }
    width, depth = request["d_model"], request["n_layers"]
    if request["model"] == "iTransformer":
        return iTransformer(
            hidden_size=width, d_ff=width, n_heads=8, e_layers=depth, **shared
        )
    return TSMixer(ff_dim=width, n_block=depth, **shared)


def table_of(n_rows: int, n_series: int) -> pd.DataFrame:
    """Make the table of peers.py in the long format."""
    values = np.random.default_rng(0).normal(size=(n_rows, n_series)).cumsum(axis=0)
    times = pd.date_range("2020-01-01", periods=n_rows, freq="h")
    parts = [
        pd.DataFrame({"unique_id": f"x{number}", "ds": times, "y": values[:, number]})
        for number in range(n_series)
    ]
    return pd.concat(parts, ignore_index=True)


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Fit one model, and forecast with it."""
    torch.set_num_threads(request["threads"])
    ENDS.clear()
    model = make_model(request)
    frame = table_of(request["n_rows"], request["n_series"])
    forecaster = NeuralForecast(models=[model], freq="h")
    start = time.perf_counter()
    forecaster.fit(frame)
    seconds = time.perf_counter() - start
    first = min(N_FIRST, len(ENDS) - 1)
    predictions = []
    for _ in range(request["predictions"]):
        begun = time.perf_counter()
        forecaster.predict()
        predictions.append(time.perf_counter() - begun)
    return {
        "fit_seconds": seconds,
        "steps": len(ENDS),
        "steady_seconds_per_step": (ENDS[-1] - ENDS[first - 1]) / (len(ENDS) - first),
        "parameters": sum(one.numel() for one in forecaster.models[0].parameters()),
        "predict_seconds": predictions,
    }


def main() -> None:
    """Answer requests until the input ends."""
    warnings.simplefilter("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    for line in sys.stdin:
        sys.stdout.write(f"ANSWER {json.dumps(answer(json.loads(line)))}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
