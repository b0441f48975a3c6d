"""The side of jobs.py that runs neuralforecast, in an environment of its own.

Reads one JSON request and answers with a line that begins with ``ANSWER``; imports
nothing of sciseq.
"""

import json
import logging
import statistics
import sys
import time
import warnings

import pandas as pd
import torch
from neuralforecast import NeuralForecast
from neuralforecast.losses.pytorch import MSE
from neuralforecast.models import PatchTST


def main() -> None:
    """Fit one step on a few series, then forecast all of them."""
    warnings.simplefilter("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    request = json.load(sys.stdin)
    torch.set_num_threads(request["threads"])
    model = PatchTST(
        h=request["horizon"],
        input_size=request["lookback"],
        encoder_layers=request["n_layers"],
        n_heads=request["n_heads"],
        hidden_size=request["d_model"],
        linear_hidden_size=request["d_ff"],
        patch_len=request["patch_length"],
        stride=request["stride"],
        loss=MSE(),
        max_steps=1,
        valid_batch_size=request["batch"],
        inference_windows_batch_size=request["batch"],
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        logger=False,
    )
    frame = pd.read_parquet(request["panel"])
    names = frame["unique_id"].unique()[:50]
    forecaster = NeuralForecast(models=[model], freq="h")
    forecaster.fit(frame[frame["unique_id"].isin(names)])
    seconds = []
    for _ in range(request["repeats"]):
        begun = time.perf_counter()
        forecast = forecaster.predict(df=frame)
        seconds.append(time.perf_counter() - begun)
    answer = {"predict": statistics.median(seconds), "rows": len(forecast)}
    sys.stdout.write(f"ANSWER {json.dumps(answer)}\n")


if __name__ == "__main__":
    main()
