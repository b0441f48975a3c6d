"""The mamba_ssm backend, with a stand-in of the published signature and demands."""

import sys
from types import ModuleType

import pytest
import torch

from sciseq.errors import CapabilityError, MissingDependencyError
from sciseq.ops.selective_scan import backends as backends_module
from sciseq.ops.selective_scan import mamba_ssm_backend, selective_scan
from sciseq.ops.selective_scan.groups import scan_by_group
from sciseq.ops.selective_scan.reference import selective_scan_reference

reference = scan_by_group(selective_scan_reference)
INTERFACE = "mamba_ssm.ops.selective_scan_interface"


class StandIn:
    """The recurrence as mamba_ssm defines it, and what it refuses."""

    def __init__(self):
        self.calls = []
        self.dtypes = set()
        self.wrong = None

    def __call__(
        self, u, delta, A, B, C, D=None, z=None, delta_bias=None, delta_softplus=False,
        return_last_state=False,
    ):  # fmt: skip
        self.calls.append(tuple(B.shape))
        self.dtypes.add(delta.dtype)
        assert u.dtype in (torch.float32, torch.float16, torch.bfloat16)
        assert delta.dtype == B.dtype == C.dtype == u.dtype
        assert A.dtype == torch.float32
        assert D is None or D.dtype == torch.float32
        assert A.shape[1] <= 256
        assert u.numel()
        B, C = (one[:, None] if one.ndim == 3 else one for one in (B, C))
        share = u.shape[1] // B.shape[1]
        if self.wrong == "groups":  # all channels use the maps of the first group
            B, C, share = B[:, :1], C[:, :1], u.shape[1]
        B, C = (one.float().repeat_interleave(share, 1) for one in (B, C))
        h = torch.zeros(*u.shape[:2], A.shape[1])
        outputs = []
        for t in range(u.shape[2]):
            step, x = delta[..., t].float(), u[..., t].float()
            h = torch.exp(step[..., None] * A) * h + (step * x)[..., None] * B[..., t]
            outputs.append((h * C[..., t]).sum(-1))
        y = torch.stack(outputs, -1)
        y = y if D is None else y + D[:, None] * u.float()
        return y.to(u.dtype)


@pytest.fixture
def stand_in(monkeypatch):
    made = StandIn()
    for name in ("mamba_ssm", "mamba_ssm.ops", INTERFACE):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    sys.modules[INTERFACE].selective_scan_fn = made
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    return made


@pytest.fixture
def scan(stand_in):
    return mamba_ssm_backend.load("cuda")


def make_inputs(batch, channel, state, length, group, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    u = normal(batch, channel, length)
    dt = torch.nn.functional.softplus(normal(batch, channel, length))
    A = -torch.exp(normal(channel, state))
    B, C = (normal(batch, group, state, length) for _ in "BC")
    return [one.to(dtype).requires_grad_() for one in (u, dt, A, B, C, normal(channel))]


def values_and_gradients(function, inputs, reverse):
    y = function(*inputs, reverse)
    weights = torch.cos(torch.arange(y.numel(), dtype=torch.float64)).reshape(y.shape)
    given = [one for one in inputs if one is not None]
    return [y.detach(), *torch.autograd.grad((y * weights).sum(), given)]


def worst_error(function, inputs, reverse):
    """Largest difference to a float64 run, over its largest entry."""
    exact = [
        None if one is None else one.detach().double().requires_grad_()
        for one in inputs
    ]
    truths = values_and_gradients(reference, exact, reverse)
    found = values_and_gradients(function, inputs, reverse)
    given = [one for one in inputs if one is not None]
    assert [one.dtype for one in found[1:]] == [one.dtype for one in given]
    return max(
        float((got.double() - want).abs().max() / want.abs().max())
        for got, want in zip(found, truths, strict=True)
    )


@pytest.mark.parametrize(
    ("reverse", "calls"),
    [
        ((False,), [(2, 1, 3, 7)]),
        ((True,), [(2, 1, 3, 7)]),
        ((False, False), [(2, 2, 3, 7)]),  # groups are taken as they are
        ((True, True, True), [(2, 3, 3, 7)]),
        ((False, True), [(2, 3, 7)] * 2),  # directions that differ are not
    ],
)
@pytest.mark.parametrize("has_skip", [True, False])
def test_equals_float64(scan, stand_in, reverse, calls, has_skip):
    inputs = make_inputs(2, 6, 3, 7, len(reverse))
    if not has_skip:
        inputs[5] = None
    assert worst_error(scan, inputs, reverse) < 1e-6
    assert stand_in.calls == calls


def test_wrong_groups_or_directions_are_noticed(scan, stand_in):
    inputs = make_inputs(2, 6, 3, 7, 2)
    stand_in.wrong = "groups"
    assert worst_error(scan, inputs, (False, False)) > 1e-2
    stand_in.wrong = None

    def forwards(*arguments):
        return scan(*arguments[:6], (False, False))

    assert worst_error(forwards, inputs, (False, True)) > 1e-2


def test_is_examined_and_chosen(stand_in, monkeypatch):
    monkeypatch.setattr(backends_module, "_VERDICTS", {})
    # Examined on this processor, as if it were a GPU.
    table = {"mamba_ssm": lambda device_type: mamba_ssm_backend.load("cuda")}
    monkeypatch.setattr(backends_module, "_ACCELERATED", table)
    u, dt, A, B, C, D = make_inputs(2, 3, 2, 5, 1)
    y = selective_scan(u, dt, A, B, C, D, backend="mamba_ssm")
    assert stand_in.calls[-1] == (2, 1, 2, 5)
    torch.testing.assert_close(y, reference(u, dt, A, B[:, :1], C[:, :1], D, (False,)))


@pytest.mark.parametrize("shape", [(1, 1, 1, 2, 1), (2, 4, 5, 3, 2)])
def test_odd_sizes(scan, shape):
    assert worst_error(scan, make_inputs(*shape), (True,) * shape[-1]) < 1e-6


def test_one_token(scan):
    inputs = make_inputs(2, 3, 2, 1, 1)
    y, *gradients = values_and_gradients(scan, inputs, (True,))
    torch.testing.assert_close(y, reference(*inputs, (True,)).detach())
    assert not gradients[2].any()  # there is no state to decay


@pytest.mark.parametrize("shape", [(2, 3, 2, 0), (0, 3, 2, 4), (2, 3, 257, 2)])
def test_what_the_package_refuses_goes_to_the_reference(scan, stand_in, shape):
    inputs = make_inputs(*shape, group=1)
    y = scan(*inputs, (True,))
    assert torch.equal(y, reference(*inputs, (True,)))
    assert not stand_in.calls


@pytest.mark.parametrize("index", range(6))
def test_float64_is_never_rounded(scan, stand_in, index):
    inputs = make_inputs(1, 2, 2, 5, 1)
    inputs[index] = inputs[index].detach().double().requires_grad_()
    assert worst_error(scan, inputs, (False,)) < 1e-6
    assert not stand_in.calls
    everything = make_inputs(1, 2, 2, 5, 1, torch.float64)
    assert worst_error(scan, everything, (False,)) == 0


def test_low_precision(scan, stand_in):
    inputs = make_inputs(1, 2, 2, 9, 1, torch.bfloat16)
    assert scan(*inputs, (False,)).dtype == torch.bfloat16
    assert worst_error(scan, inputs, (False,)) < 2**-7
    assert stand_in.dtypes == {torch.bfloat16}  # nothing is copied, it sums in float32
    # Step sizes in float32 keep their digits: nothing is brought down to bfloat16.
    stand_in.dtypes.clear()
    inputs[1] = inputs[1].detach().float().requires_grad_()
    assert scan(*inputs, (False,)).dtype == torch.bfloat16
    assert stand_in.dtypes == {torch.float32}


def test_second_derivatives_are_refused(scan):
    inputs = make_inputs(1, 2, 2, 3, 1)
    y = scan(*inputs, (False,))
    with pytest.raises(CapabilityError, match=r"first derivatives.*'reference'"):
        torch.autograd.grad(y.sum(), inputs[0], create_graph=True)


def test_cannot_run_here(monkeypatch, stand_in):
    with pytest.raises(MissingDependencyError, match="NVIDIA and AMD"):
        mamba_ssm_backend.load("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(MissingDependencyError, match="no GPU"):
        mamba_ssm_backend.load("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setitem(sys.modules, INTERFACE, None)
    with pytest.raises(MissingDependencyError, match=r"imported.*pip install"):
        mamba_ssm_backend.load("cuda")


@pytest.mark.gpu
@pytest.mark.parametrize("reverse", [(False,), (False, True), (True, True)])
def test_equals_float64_on_a_gpu(reverse):
    pytest.importorskip(INTERFACE, reason="mamba_ssm is not installed")
    if not torch.cuda.is_available():
        pytest.skip("torch finds no GPU")
    scan = mamba_ssm_backend.load("cuda")
    inputs = make_inputs(3, 60, 16, 333, len(reverse))

    def on_gpu(*arguments):
        tensors = [one.to("cuda", torch.float32) for one in arguments[:6]]
        return scan(*tensors, arguments[6]).cpu()

    assert worst_error(on_gpu, inputs, reverse) < 1e-5
