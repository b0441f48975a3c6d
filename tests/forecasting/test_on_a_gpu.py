"""Networks learn on a GPU what they learn on the processor."""

import numpy as np
import pytest
import torch

from sciseq import (
    GateformerForecaster,
    ITransformerForecaster,
    MambaMixerForecaster,
    PatchTSTForecaster,
    SMambaForecaster,
)

SMALL = {"lookback": 24, "horizon": 6, "d_model": 16, "n_layers": 2, "dropout": 0.0}
TRAINING = {"max_epochs": 3, "batch_size": 16, "learning_rate": 1e-3, "patience": None}


@pytest.mark.gpu
@pytest.mark.parametrize("known", [False, True], ids=["plain", "known-ahead"])
@pytest.mark.parametrize(
    "cls",
    [
        SMambaForecaster,
        ITransformerForecaster,
        GateformerForecaster,
        MambaMixerForecaster,
        PatchTSTForecaster,
    ],
)
def test_losses_and_forecasts_are_those_of_the_processor(cls, known):
    if not torch.cuda.is_available():
        pytest.skip("this machine has no CUDA device")
    X = np.random.default_rng(0).normal(size=(300, 4)).cumsum(axis=0)
    heads = {} if "Mamba" in cls.__name__ else {"n_heads": 2}
    if known and cls is PatchTSTForecaster:
        pytest.skip("it reads each column alone")
    roles = {"targets": [0, 1], "future_covariates": [3]} if known else {}
    here, there = (
        cls(**SMALL, **TRAINING, **heads, **roles, random_state=0, device=device).fit(X)
        for device in ("cpu", "cuda")
    )
    # The gradients of what stands before PatchTST's batch normalisation are rounding
    # errors, which Adam makes steps of: a forecast notices, the training does not.
    tolerance = 1e-2 if cls is PatchTSTForecaster else 1e-4
    for name, rtol in {"train_loss": 1e-4, "validation_loss": tolerance}.items():
        losses = [[row[name] for row in model.history_] for model in (here, there)]
        np.testing.assert_allclose(*losses, rtol=rtol)
    if known:  # the last six rows are the future: of them the driver alone is known
        X[-6:, :3] = np.nan
    forecasts = [model.predict(X) for model in (here, there)]
    scale = np.nanstd(X, axis=0).max()
    np.testing.assert_allclose(*forecasts, rtol=0, atol=10 * tolerance * scale)
