"""Which device is taken, and what is said when it is not there."""

import pytest
import torch

import sciseq
from sciseq import torch_base
from sciseq.errors import InputError, InputTypeError
from sciseq.training import available_devices, resolve_device

BIG, SMALL = 1e15, 1e6


@pytest.fixture
def machine(monkeypatch):
    """Let the machine have so many CUDA devices, and MPS or not."""

    def pretend(n_cuda=0, has_mps=False, current=0):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: n_cuda > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: n_cuda)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: current)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: has_mps)

    return pretend


@pytest.mark.parametrize(
    ("n_cuda", "has_mps", "device", "options", "expected"),
    [
        (0, False, "auto", {"work": BIG}, "cpu"),
        (2, False, "auto", {"work": BIG}, "cuda:0"),
        (2, False, "auto", {"work": SMALL}, "cpu"),
        (2, False, "auto", {}, "cuda:0"),
        (1, True, "auto", {}, "cuda:0"),
        (0, True, "auto", {"work": BIG}, "mps"),
        (0, True, "auto", {"work": SMALL}, "cpu"),
        (0, True, "auto", {"precision": "float64"}, "cpu"),
        (2, True, "cpu", {"work": BIG}, "cpu"),
        (2, False, "cuda", {"work": SMALL}, "cuda:0"),
        (2, False, "cuda:1", {}, "cuda:1"),
        (2, False, torch.device("cuda", 1), {}, "cuda:1"),
        (0, True, "mps", {}, "mps"),
        (0, True, torch.device("mps", 0), {}, "mps"),
        (0, False, torch.device("cpu", 0), {}, "cpu"),
    ],
)
def test_choice(machine, n_cuda, has_mps, device, options, expected):
    machine(n_cuda, has_mps)
    assert str(resolve_device(device, **options)) == expected


def test_cuda_is_the_current_one(machine):
    machine(n_cuda=3, current=2)
    assert resolve_device("cuda") == torch.device("cuda", 2)
    assert resolve_device("auto") == torch.device("cuda", 2)


def test_small_work_never_wakes_a_gpu(machine, monkeypatch):
    def fail():
        raise AssertionError("asked for CUDA")

    monkeypatch.setattr(torch.cuda, "is_available", fail)
    assert resolve_device("auto", work=SMALL) == torch.device("cpu")


@pytest.mark.parametrize(
    ("device", "fragments"),
    [
        ("cuda:2", ["device is 'cuda:2'", "has cpu, cuda:0, cuda:1", "device='auto'"]),
        ("mps", ["device is 'mps'", "it has cpu, cuda:0, cuda:1"]),
        ("gpu", ["device is 'gpu'; allowed are", "has cpu, cuda:0, cuda:1"]),
        ("cdua", ["Did you mean 'cuda'?"]),
        ("cuda:", ["allowed are"]),
        ("cpu:1", ["allowed are"]),
        (torch.device("meta"), ["device is 'meta'"]),
    ],
)
def test_what_is_not_there(machine, device, fragments):
    machine(n_cuda=2)
    with pytest.raises(InputError) as caught:
        resolve_device(device)
    for fragment in fragments:
        assert fragment in str(caught.value)


def test_a_torch_without_cuda_says_so(machine, monkeypatch):
    machine()
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(InputError, match=r"it has cpu .*built without CUDA"):
        resolve_device("cuda")


def test_mps_has_no_float64(machine):
    machine(has_mps=True)
    with pytest.raises(InputError, match="needs float64"):
        resolve_device("mps", precision="float64")


def test_other_types():
    with pytest.raises(InputTypeError, match="device is 0 of type int"):
        resolve_device(0)


def test_this_machine():
    assert available_devices()[0] == "cpu"
    for name in available_devices():
        assert str(resolve_device(name)) == name


def test_networks_that_draw_do_not_take_a_device_without_float64(machine, monkeypatch):
    machine(has_mps=True)
    asked, resolve = [], torch_base.resolve_device

    def spy(device, **options):
        asked.append(options["precision"])
        return resolve(device, **options)

    monkeypatch.setattr(torch_base, "resolve_device", spy)
    sequences = ["ACGT", "ACGG"] * 4
    for cls, X in ((sciseq.MaskedDiffusionSequence, sequences),
                   (sciseq.ClozeRecommender, [["a", "b", "c"]] * 4)):  # fmt: skip
        with pytest.raises(InputError, match="needs float64"):
            cls(device="mps", max_epochs=1).fit(X)
        cls(device="auto", max_epochs=1, d_model=8, d_ff=8, n_heads=2).fit(X)
    assert asked == ["float64"] * 4
    # What is worth a GPU stays on the processor where it lacks float64.
    assert str(resolve_device("auto", work=BIG, precision="float64")) == "cpu"
