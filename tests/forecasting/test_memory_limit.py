"""Every network forecaster within a limit of memory: the same model, said aloud."""

import copy
import json
import os
import pickle
import re
import subprocess
import sys

import numpy as np
import pytest

import sciseq
from sciseq import (
    GateformerForecaster,
    ITransformerForecaster,
    MambaMixerForecaster,
    PatchTSTForecaster,
    SMambaForecaster,
)
from sciseq.errors import InputError
from sciseq.forecasting.shared_parameters import SHARED_ATTRIBUTES

RNG = np.random.default_rng(0)
TABLE = np.sin(np.arange(90)[:, None] * [0.3, 0.5, 0.7]) + RNG.normal(size=(90, 3)) / 3

HEADS = {"n_heads": 2}
FORECASTERS = [
    (SMambaForecaster, {}),
    (ITransformerForecaster, HEADS),
    (GateformerForecaster, HEADS),
    (MambaMixerForecaster, {}),
    (PatchTSTForecaster, HEADS),
]
NAMES = [cls.__name__ for cls, _ in FORECASTERS]


def make(cls=SMambaForecaster, **changes):
    settings = {
        "lookback": 12,
        "horizon": 3,
        "d_model": 8,
        "n_layers": 2,
        "max_epochs": 2,
        "learning_rate": 1e-3,
        "random_state": 0,
        "device": "cpu",
        "precision": "float64",
    }
    return cls(**(settings | changes))


def losses(model):
    return [[one["train_loss"], one["validation_loss"]] for one in model.history_]


@pytest.mark.parametrize(("cls", "settings"), FORECASTERS, ids=NAMES)
def test_a_limit_changes_no_result(cls, settings):
    free = make(cls, **settings).fit(TABLE)
    assert free.micro_batch_size_ == 32
    assert not free.recomputed_layers_
    assert free.estimated_memory_ is None
    roomy = make(cls, memory_limit="1 GB", **settings).fit(TABLE)
    assert roomy.micro_batch_size_ == 32
    needed = roomy.estimated_memory_
    assert 10_000 < needed < 10_000_000
    limit = int(0.85 * needed)
    tight = make(cls, memory_limit=limit, **settings).fit(TABLE)
    assert tight.estimated_memory_ <= limit
    # A batch norm looks at the whole batch: there layers are computed twice instead.
    has_batch_norm = cls is PatchTSTForecaster
    assert (tight.micro_batch_size_ < 32) == (not has_batch_norm)
    assert tight.recomputed_layers_ == has_batch_norm
    for model in (roomy, tight):
        np.testing.assert_allclose(losses(model), losses(free), rtol=1e-12)
        # Adam blows up the rounding of gradients that are next to nothing.
        forecasts = model.predict(), free.predict()
        np.testing.assert_allclose(*forecasts, rtol=1e-7, atol=1e-9)


def test_weights_missing_values_and_quantiles_in_parts():
    """Parts with other numbers of known values and other weights add up right."""
    table = np.column_stack([TABLE, RNG.random(90)])
    table[20:40, 0] = table[25:50, 1] = np.nan
    settings = {
        "missing": "mask",
        "loss": "quantile",
        "targets": [2, 0],
        "past_covariates": [1],
        "sample_weight": 3,
        "time_decay": 30,
    }
    free = make(**settings).fit(table)
    needed = make(**settings, memory_limit="1GB").fit(table).estimated_memory_
    tight = make(**settings, memory_limit=needed // 2).fit(table)
    assert tight.micro_batch_size_ < 16
    np.testing.assert_allclose(losses(tight), losses(free), rtol=1e-12)


def test_a_checkpoint_goes_on_with_another_limit(tmp_path):
    settings = {"learning_rate_schedule": "constant", "patience": None}
    whole = make(**settings, max_epochs=4).fit(TABLE)
    make(**settings, checkpoint_dir=tmp_path).fit(TABLE)
    needed = make(memory_limit="1GB", max_epochs=1).fit(TABLE).estimated_memory_
    resumed = make(
        **settings,
        max_epochs=4,
        checkpoint_dir=tmp_path,
        memory_limit=int(0.8 * needed),
    )
    resumed.fit(TABLE)
    assert resumed.micro_batch_size_ < 32
    assert resumed.history_[0]["seconds"] != whole.history_[0]["seconds"]
    np.testing.assert_allclose(losses(resumed), losses(whole), rtol=1e-11)


def test_an_impossible_limit_is_refused_and_names_the_knobs():
    model = make().fit(TABLE)
    before = model.predict()
    with pytest.raises(InputError) as caught:
        model.set_params(memory_limit="20kB").fit(TABLE)
    assert "memory_limit is 20 kB" in str(caught.value)
    assert "d_model" in str(caught.value)
    np.testing.assert_array_equal(model.predict(), before)
    assert model.micro_batch_size_ == 32


@pytest.mark.parametrize("limit", ["4", "4 apples", 0, -1, 1.5, True])
def test_what_is_no_limit(limit):
    with pytest.raises(InputError, match="an amount of memory such as '4GB'"):
        make(memory_limit=limit).fit(TABLE)


def test_what_was_chosen_is_kept(tmp_path):
    model = make(memory_limit=np.int64(10**8)).fit(TABLE)
    model.save(tmp_path / "model")
    for other in (
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),
        sciseq.load(tmp_path / "model"),
    ):
        assert other.memory_limit == model.memory_limit
        assert other.estimated_memory_ == model.estimated_memory_ > 0
        assert other.micro_batch_size_ == 32
        np.testing.assert_array_equal(other.predict(TABLE), model.predict(TABLE))


@pytest.mark.parametrize("cls", [cls for cls, _ in FORECASTERS], ids=NAMES)
def test_the_attributes_are_documented(cls):
    _, _, section = cls.__doc__.partition("Attributes\n----------\n")
    attributes, _, after = section.partition("\n\n")
    assert attributes.startswith("network_ :")
    assert attributes.endswith(SHARED_ATTRIBUTES.rstrip())
    assert re.match(r"\w+\n-+\n", after)
    for name in re.findall(r"^(\w+_) :", SHARED_ATTRIBUTES, flags=re.MULTILINE):
        assert attributes.count(f"\n{name} :") == 1
    assert cls.__doc__.count("\nmemory_limit : ") == 1
    assert cls.__doc__.count("\ncompile : bool") == 1


RESIDENT = """
import json, re, sys
import numpy as np
import sciseq

def status(name):
    # Not getrusage: its peak starts from that of the process that started this one.
    with open("/proc/self/status") as file:
        return 1024 * int(re.search(name + r":\\s+(\\d+) kB", file.read())[1])

def make(**changes):
    return sciseq.MambaMixerForecaster(
        lookback=96, horizon=24, max_epochs=1, random_state=0, device="cpu",
        validation_fraction=0.0, **changes)

X = np.random.default_rng(0).normal(size=(96 + 24 + 31, 200))
make(d_model=8, batch_size=2).fit(X[:122, :4])  # loads what is loaded once
before = status("VmRSS")
model = make(d_model=64, memory_limit=sys.argv[1]).fit(X)
print(json.dumps([status("VmHWM") - before, model.estimated_memory_]))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="how memory is counted differs")
@pytest.mark.parametrize("limit", ["4GB", "300MB"])
def test_the_process_grows_by_what_was_estimated(limit):
    # Otherwise the allocator of the C library keeps small pieces that were freed.
    done = subprocess.run(
        [sys.executable, "-c", RESIDENT, limit],
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"},
        capture_output=True,
        text=True,
        check=True,
    )
    grown, estimated = json.loads(done.stdout)
    assert 0.7 * estimated < grown < 1.15 * estimated
    assert (estimated > 900_000_000) == (limit == "4GB")
