"""Training by real processes: what they learn, and how they end."""

import importlib.util
import os
import pickle
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch
from torch import nn

import sciseq
from sciseq.errors import InputError, MissingDependencyError, ProcessError
from sciseq.nn import Dropout, build_network
from sciseq.training import (
    TrainingOptions,
    distributed,
    generator_for,
    processes,
    train,
)
from sciseq.training.checkpoints import CheckpointStore
from sciseq.training.distributed import TrainingTask, train_distributed

CPU = torch.device("cpu")
FABRIC = importlib.util.find_spec("lightning_fabric")
NEEDS_FABRIC = pytest.mark.skipif(FABRIC is None, reason="Lightning Fabric is missing")

RNG = np.random.default_rng(0)
TABLE = np.sin(np.arange(90)[:, None] * [0.3, 0.5, 0.7]) + RNG.normal(size=(90, 3)) / 3


class Items:
    """13 items (x, y): batches of 4, and one of 1 that leaves a process without any."""

    def __init__(self, device):
        self.x = torch.randn(13, 3, generator=generator_for(0, "x")).to(device)
        self.n_items = len(self.x)

    def gather(self, indices):
        return self.x[indices]


def both(device):
    return Items(device), Items(device)


def perceptron():
    def build():
        layers = nn.Linear(3, 8), nn.ReLU(), Dropout(0.2), nn.Linear(8, 1)
        return nn.Sequential(*layers)

    return build_network(build, generator_for(0, "weights"))


class Loss:
    """Squared error, and an action of one process at one step, counted from 1."""

    def __init__(self, action=None, *, rank=1, step=6):
        self.action, self.rank, self.at, self.step = action, rank, step, 0

    def __call__(self, network, x):
        self.step += network.training
        here = int(os.environ.get("LOCAL_RANK", -1))
        if self.action and self.step == self.at and here == self.rank:
            self.action()
        error = network(x) - x.sum(dim=1, keepdim=True)
        return error.square().sum(), torch.tensor(error.numel())


def options(**changes):
    settings = {"learning_rate": 0.02, "batch_size": 4, "max_epochs": 4}
    settings |= {"patience": None, "schedule": lambda epoch: 1.0, "seed": 0}
    return TrainingOptions(**(settings | {"device": CPU} | changes))


def run(loss, **changes):
    network = perceptron()
    result = train_distributed(network, loss, both, options(**changes), n_devices=2)
    return network, result


@pytest.fixture
def by_value():
    """Let the processes know what this file defines: they cannot import it."""
    cloudpickle = pytest.importorskip("cloudpickle")
    module = sys.modules[__name__]
    cloudpickle.register_pickle_by_value(module)
    yield
    cloudpickle.unregister_pickle_by_value(module)


def children():
    """Processes of trainings that are still there."""
    listed = subprocess.run(
        ["ps", "-o", "args", "--ppid", str(os.getpid())], capture_output=True, text=True
    )
    return [line for line in listed.stdout.splitlines() if "training.worker" in line]


def forecaster(**changes):
    settings = {"lookback": 12, "horizon": 3, "d_model": 8, "n_heads": 2}
    settings |= {"n_layers": 1, "max_epochs": 3, "batch_size": 20, "device": "cpu"}
    settings |= {"learning_rate": 1e-3, "random_state": 0, "precision": "float64"}
    return sciseq.ITransformerForecaster(**(settings | changes))


def assert_equal_models(found, wanted):
    for one, other in zip(found.history_, wanted.history_, strict=True):
        for name in ("train_loss", "validation_loss", "learning_rate"):
            assert one[name] == pytest.approx(other[name], rel=1e-12)
    weights = wanted.network_.state_dict()
    for name, one in found.network_.state_dict().items():
        torch.testing.assert_close(one, weights[name], rtol=1e-8, atol=1e-9)
    assert found.best_epoch_ == wanted.best_epoch_
    np.testing.assert_allclose(found.predict(), wanted.predict(), rtol=1e-8, atol=1e-9)


# --- Without starting any ------------------------------------------------------------


def test_one_device_needs_no_other_package():
    code = (
        "import sys, numpy, sciseq\n"
        "sciseq.ITransformerForecaster(lookback=6, horizon=2, max_epochs=1, d_model=8,"
        " n_heads=2, n_layers=1, device='cpu')"
        ".fit(numpy.random.default_rng(0).normal(size=(60, 2)))\n"
        "names = {'lightning_fabric', 'sciseq.training.distributed'}\n"
        "print(sorted(names & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("missing", ["lightning_fabric", "cloudpickle"])
def test_a_missing_package_is_named(monkeypatch, missing):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        distributed.importlib.util,
        "find_spec",
        lambda name: None if name == missing else find(name),
    )
    with pytest.raises(MissingDependencyError, match=missing) as caught:
        forecaster(n_devices=2).fit(TABLE)
    assert "sciseq[distributed]" in str(caught.value)


@pytest.mark.parametrize("device", ["cuda:1", torch.device("cpu", 0), "mps"])
def test_a_single_device_is_not_several(device):
    with pytest.raises(InputError, match="is one device, and n_devices=2"):
        forecaster(n_devices=2, device=device).fit(TABLE)


def test_the_number_of_processes_is_checked():
    with pytest.raises(InputError, match="n_devices=0 is not allowed"):
        forecaster(n_devices=0).fit(TABLE)


def test_it_is_no_part_of_what_a_run_is():
    one, two = forecaster(), forecaster(n_devices=2, n_nodes=3)
    assert one._fingerprint("data") == two._fingerprint("data")
    assert one._fingerprint("data") != forecaster(d_model=16)._fingerprint("data")


@NEEDS_FABRIC
def test_nodes_must_know_each_other(monkeypatch):
    monkeypatch.setenv("MASTER_ADDR", "somewhere")
    for name in ("MASTER_PORT", "NODE_RANK"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(InputError, match="n_nodes=2 needs MASTER_PORT, NODE_RANK"):
        forecaster(n_nodes=2).fit(TABLE)


def test_places_of_processes(monkeypatch):
    monkeypatch.setenv("MASTER_ADDR", "first.example")
    monkeypatch.setenv("MASTER_PORT", "1234")
    monkeypatch.setenv("NODE_RANK", "1")
    before = dict(os.environ)
    task = TrainingTask(perceptron(), Loss(), both, options(), 3, 2, 1.0)
    places = processes._environments(task)
    assert [one["LOCAL_RANK"] for one in places] == ["0", "1", "2"]
    assert {one["MASTER_ADDR"] for one in places} == {"first.example"}
    assert {one["NODE_RANK"] for one in places} == {"1"}
    alone = TrainingTask(perceptron(), Loss(), both, options(), 1, 1, 1.0)
    assert processes._environments(alone)[0]["MASTER_ADDR"] == "127.0.0.1"
    assert dict(os.environ) == before


@pytest.mark.parametrize(
    ("errors", "codes", "expected"),
    [
        # That others lost it comes after what happened.
        ({0: ProcessError("lost"), 1: KeyError("x")}, [1, 1], KeyError),
        ({0: ProcessError("lost")}, [1, -9], "process 1 of 2 .* signal 9 .SIGKILL"),
        ({0: ProcessError("lost")}, [1, None], "lost"),
        ({}, [3, 0], "process 0 of 2 .* with exit code 3, having written: oh no"),
        ({}, [0, 0], "no process brought back a result"),
    ],
)
def test_the_cause_is_told_from_what_follows(tmp_path, errors, codes, expected):
    for rank, error in errors.items():
        failure = pickle.dumps(error), "text"
        processes.error_path(tmp_path, rank).write_bytes(pickle.dumps(failure))
    for rank in range(2):
        processes._log_path(tmp_path, rank).write_text("oh no\n")
    with pytest.raises(Exception) as caught:
        raise processes._cause(tmp_path, codes)
    if isinstance(expected, str):
        assert isinstance(caught.value, ProcessError)
        caught.match(expected)
    else:
        assert isinstance(caught.value, expected)


def test_an_error_that_cannot_travel_comes_as_text(tmp_path):
    error = processes._loaded(1, processes.Failure(None, "Traceback: it broke"))
    assert "process 1 of the training failed" in str(error)
    assert "it broke" in str(error)


# --- With two processes --------------------------------------------------------------


@NEEDS_FABRIC
@pytest.mark.slow
def test_two_processes_learn_what_one_learns():
    # 59 windows in batches of 20: the last one has shares of 9 and 10.
    wanted = forecaster().fit(TABLE)
    environment, n_threads = dict(os.environ), torch.get_num_threads()
    handler, state = signal.getsignal(signal.SIGINT), torch.get_rng_state()
    found = forecaster(n_devices=2).fit(TABLE)
    assert_equal_models(found, wanted)
    assert found.micro_batch_size_ == 10
    assert found.get_params()["n_devices"] == 2
    assert dict(os.environ) == environment
    assert torch.get_num_threads() == n_threads
    assert signal.getsignal(signal.SIGINT) is handler
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.distributed.is_initialized()
    assert not children()


@NEEDS_FABRIC
@pytest.mark.slow
def test_bad_40_a_killed_process_ends_all_and_the_run_resumes(tmp_path, by_value):
    def die():
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(ProcessError, match=r"process 1 of 2 .*SIGKILL"):
        run(Loss(die, step=10), checkpoint_dir=tmp_path)
    assert not children()
    saved = sorted(one.name for one in tmp_path.iterdir())
    assert saved == ["epoch-000001.safetensors", "epoch-000002.safetensors"]
    stored = CheckpointStore(tmp_path, "").load()
    network, result = run(Loss(), checkpoint_dir=tmp_path)
    # Seconds and all: taken up, and not trained again.
    assert result.history[:2] == stored.record["history"]
    whole = perceptron()
    wanted = train(whole, Loss(), *both(CPU), options())
    assert [one["epoch"] for one in result.history] == [1, 2, 3, 4]
    for one, other in zip(result.history, wanted.history, strict=True):
        assert one["validation_loss"] == pytest.approx(other["validation_loss"], 1e-5)
    for one, other in zip(network.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@NEEDS_FABRIC
@pytest.mark.slow
def test_the_error_of_a_process_is_that_of_the_training(by_value):
    def refuse():
        raise InputError("it broke", where="row 3", hint="Mend it.")

    with pytest.raises(InputError, match="it broke") as caught:
        run(Loss(refuse))
    assert (caught.value.where, caught.value.hint) == ("row 3", "Mend it.")
    assert not children()


@NEEDS_FABRIC
@pytest.mark.slow
def test_a_process_that_does_not_answer_is_not_waited_for(by_value, monkeypatch):
    def sleep():
        time.sleep(600)

    monkeypatch.setattr(distributed, "TIMEOUT", 20.0)
    started = time.monotonic()
    with pytest.raises(ProcessError, match="did not answer for 20 s"):
        run(Loss(sleep))
    assert time.monotonic() - started < 500
    assert not children()


@NEEDS_FABRIC
@pytest.mark.slow
def test_ctrl_c_keeps_the_best_weights(tmp_path, by_value):
    mark = tmp_path / "mark"

    def slow():
        mark.touch()
        time.sleep(3)

    def interrupt():
        while not mark.exists():
            time.sleep(0.02)
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt, daemon=True)
    # A shell that starts the tests in the background has them ignore Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    thread.start()
    try:
        with pytest.warns(sciseq.errors.SciSeqWarning, match="interrupted in epoch 3"):
            network, result = run(Loss(slow, step=10))
    finally:
        signal.signal(signal.SIGINT, before)
    thread.join()
    assert result.stopped == "interrupted"
    assert len(result.history) == 2
    whole = perceptron()
    train(whole, Loss(), *both(CPU), options(max_epochs=2))
    for one, other in zip(network.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


SCRIPT = """
import sys, numpy
import sciseq
rng = numpy.random.default_rng(0)
table = numpy.sin(numpy.arange(90)[:, None] * [0.3, 0.5, 0.7])
table = table + rng.normal(size=(90, 3)) / 3
model = sciseq.ITransformerForecaster(
    lookback=12, horizon=3, d_model=8, n_heads=2, n_layers=1, max_epochs=3,
    batch_size=20, device="cpu", learning_rate=1e-3, random_state=0,
    precision="float64", n_devices=2,
)
model.fit(table)
import os
model.save(sys.argv[1] + os.environ.get("RANK", ""))
"""


@NEEDS_FABRIC
@pytest.mark.slow
@pytest.mark.parametrize("launcher", [["-m", "torch.distributed.run"], []])
def test_a_script_alone_or_under_torchrun(tmp_path, launcher):
    """A script without a guard around its main part."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    if launcher:
        launcher = [*launcher, "--nproc-per-node=2", f"--master-port={_port()}"]
    subprocess.run(
        [sys.executable, *launcher, str(script), str(tmp_path / "model")],
        check=True, timeout=300,
    )  # fmt: skip
    saved = sorted(one.name for one in tmp_path.glob("model*"))
    assert saved == (["model0", "model1"] if launcher else ["model"])
    wanted = forecaster().fit(TABLE)
    for name in saved:
        assert_equal_models(sciseq.load(tmp_path / name), wanted)


def _port():
    return processes._free_port()
