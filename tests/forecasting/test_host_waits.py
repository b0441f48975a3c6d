"""A training step never asks for a value: on a GPU the host would wait for it."""

from collections import Counter

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from sciseq import (
    GateformerForecaster,
    ITransformerForecaster,
    MambaMixerForecaster,
    PatchTSTForecaster,
    SMambaForecaster,
)
from sciseq.training.epochs import Epochs

# What reads a value, what brings one from the host, and what has a result whose shape
# depends on values.
WAITING = {
    "aten._local_scalar_dense.default",
    "aten.lift_fresh.default",
    "aten.lift_fresh_copy.default",
    "aten.nonzero.default",
    "aten.masked_select.default",
    "aten.is_nonzero.default",
    "aten.equal.default",
}


class Operators(TorchDispatchMode):
    """Counts the operators that run inside."""

    def __init__(self):
        super().__init__()
        self.names = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names[str(func)] += 1
        return func(*args, **(kwargs or {}))


@pytest.fixture
def steps(monkeypatch):
    """Operators of every training step that a test does."""
    found = []
    step = Epochs._step

    def counted(self, *args):
        with Operators() as operators:
            result = step(self, *args)
        found.append(operators.names)
        return result

    monkeypatch.setattr(Epochs, "_step", counted)
    return found


def fit(cls, **changes):
    X = np.random.default_rng(0).normal(size=(60, 4))
    if changes.get("missing") == "mask":
        X[5, 2] = np.nan
    heads = {} if "Mamba" in cls.__name__ else {"n_heads": 2}
    settings = {"lookback": 8, "horizon": 2, "d_model": 8, "n_layers": 1}
    settings |= {"max_epochs": 1, "random_state": 0, "device": "cpu", "batch_size": 16}
    cls(**(settings | heads | changes)).fit(X)


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
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"targets": [2, 0], "missing": "mask", "loss": "quantile", "weight_decay": 0.1},
    ],
    ids=["plain", "masked-quantiles"],
)
def test_no_step_waits_for_a_value(cls, changes, steps):
    fit(cls, **changes)
    # Constants are brought to the device in the first step.
    for names in steps[1:]:
        assert not WAITING & set(names)
        # All weights move in one go; Adam by parts would divide one by one.
        assert any("fused_adam" in name for name in names)
        assert not any("addcdiv" in name for name in names)
    assert len(steps) > 2


@pytest.mark.parametrize(
    "wait",
    [
        lambda error: error.abs() * error.max().item() / error.max().item(),
        lambda error: error.abs() * error.new_tensor([1.0, 2.0])[:1],
        lambda error: error.abs()[..., [0, 1]],
    ],
    ids=["reads a value", "brings constants", "brings places"],
)
def test_a_wait_would_be_noticed(wait, steps, monkeypatch):
    monkeypatch.setattr(SMambaForecaster, "_make_penalty", lambda self: wait)
    fit(SMambaForecaster)
    assert WAITING & set(steps[1])


@pytest.mark.gpu
@pytest.mark.parametrize("cls", [SMambaForecaster, ITransformerForecaster])
def test_no_step_synchronises_a_gpu(cls, monkeypatch):
    if not torch.cuda.is_available():
        pytest.skip("this machine has no CUDA device")
    step, done = Epochs._step, []

    def watched(self, *args):
        if done:
            torch.cuda.set_sync_debug_mode("error")
        try:
            result = step(self, *args)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        done.append(result)
        return result

    monkeypatch.setattr(Epochs, "_step", watched)
    fit(cls, device="cuda", loss="quantile", targets=[2, 0])
    assert len(done) > 2
