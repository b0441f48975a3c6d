"""The scan against a plain NumPy loop, its limits, and the trust in backends."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from sciseq.errors import (
    CapabilityError,
    InputError,
    InputTypeError,
    MissingDependencyError,
    NumericalError,
    SciSeqWarning,
)
from sciseq.ops.selective_scan import available_backends, selective_scan
from sciseq.ops.selective_scan import backends as backends_module
from sciseq.ops.selective_scan.groups import scan_by_group
from sciseq.ops.selective_scan.reference import selective_scan_reference

grouped_reference = scan_by_group(selective_scan_reference)

SHAPES = [(2, 3, 7, 4), (1, 1, 1, 1), (2, 5, 1, 3), (3, 2, 6, 1), (2, 3, 0, 2)]


def make_inputs(batch, channel, length, state, *, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    u = normal(batch, channel, length)
    dt = torch.nn.functional.softplus(normal(batch, channel, length))
    A = -torch.exp(normal(channel, state))
    B, C = normal(batch, state, length), normal(batch, state, length)
    D = normal(channel)
    return [tensor.to(dtype) for tensor in (u, dt, A, B, C, D)]


def naive_scan(u, dt, A, B, C, D=None):
    """Card §1 step 7, one number at a time."""
    u, dt, A, B, C = (np.asarray(t, dtype=np.float64) for t in (u, dt, A, B, C))
    n_batch, n_channel, n_length = u.shape
    y = np.zeros_like(u)
    for b, c in itertools.product(range(n_batch), range(n_channel)):
        h = [0.0] * A.shape[1]
        for t in range(n_length):
            for n in range(A.shape[1]):
                decay = math.exp(dt[b, c, t] * A[c, n])
                h[n] = decay * h[n] + dt[b, c, t] * u[b, c, t] * B[b, n, t]
                y[b, c, t] += h[n] * C[b, n, t]
            if D is not None:
                y[b, c, t] += float(D[c]) * u[b, c, t]
    return y


def relative_error(got, want):
    want = torch.as_tensor(want, dtype=torch.float64)
    return float((got.double() - want).abs().max() / want.abs().max())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("has_skip", [True, False])
def test_equals_the_step_by_step_loop(shape, has_skip):
    *inputs, D = make_inputs(*shape)
    D = D if has_skip else None
    y = selective_scan(*inputs, D)
    np.testing.assert_allclose(y, naive_scan(*inputs, D), rtol=1e-12, atol=1e-12)


def test_wrong_discretisation_is_seen():
    # The exact zero-order hold that the papers print is another recurrence.
    u, dt, A, B, C, D = make_inputs(2, 1, 7, 1)
    exact = torch.expm1(dt * A[0]) / (dt * A[0])
    want = torch.as_tensor(naive_scan(u, dt, A, B, C, D))
    assert torch.allclose(selective_scan(u, dt, A, B, C, D), want, atol=1e-12)
    other = selective_scan(u, dt, A, B * exact, C, D)
    assert not torch.allclose(other, want, atol=1e-3)


@pytest.mark.parametrize("step", [1e-6, 1e-2, 1.0, 1e3])
def test_float32_is_close_for_any_step_size(step):
    u, dt, A, B, C, D = make_inputs(2, 4, 33, 5, dtype=torch.float32)
    dt = dt * step
    assert (
        relative_error(selective_scan(u, dt, A, B, C, D), naive_scan(u, dt, A, B, C, D))
        < 1e-5
    )


@pytest.mark.parametrize("shape", [(2, 2, 3, 2), (1, 2, 1, 1), (1, 1, 4, 1)])
def test_gradients_equal_finite_differences(shape):
    inputs = [tensor.requires_grad_() for tensor in make_inputs(*shape)]
    assert torch.autograd.gradcheck(selective_scan, inputs)


def test_gradient_of_an_empty_sequence():
    inputs = [tensor.requires_grad_() for tensor in make_inputs(2, 3, 0, 2)]
    y = selective_scan(*inputs)
    assert y.shape == (2, 3, 0)
    y.sum().backward()
    assert inputs[0].grad.shape == (2, 3, 0)


def test_is_causal():
    u, dt, A, B, C, D = make_inputs(2, 3, 8, 2)
    t = 5

    def change(scan):
        changed = []
        for index in (0, 1, 3, 4):  # u, dt, B, C
            inputs = [tensor.clone() for tensor in (u, dt, A, B, C, D)]
            inputs[index][..., t] *= 1.5
            changed.append((scan(*inputs) - scan(u, dt, A, B, C, D)).abs())
        return torch.stack(changed).amax((0, 1, 2))  # (length,)

    difference = change(selective_scan)
    assert torch.all(difference[:t] == 0)
    assert torch.all(difference[t:] > 1e-6)

    def shifted(u, *rest):  # looks one token ahead
        return selective_scan(u.roll(-1, -1), *rest)

    assert change(shifted)[t - 1] > 1e-6


def test_constant_parameters_make_a_convolution():
    u, dt, A, B, C, D = make_inputs(2, 3, 9, 4)
    dt, B, C = (tensor[..., :1].expand_as(tensor) for tensor in (dt, B, C))
    y = selective_scan(u, dt, A, B, C, D)
    powers = torch.arange(9.0)
    decay = torch.exp(dt[..., 0, None] * A)  # (batch, channel, state)
    kernel = torch.einsum(
        "bn,bcnj,bc,bn->bcj",
        C[..., 0],
        decay[..., None] ** powers,
        dt[..., 0],
        B[..., 0],
    )
    want = D[:, None] * u
    for t, j in itertools.combinations_with_replacement(range(9), 2):
        t, j = j, j - t  # every lag j up to token t
        want[..., t] += kernel[..., j] * u[..., t - j]
    torch.testing.assert_close(y, want, rtol=1e-12, atol=1e-12)


def test_without_output_map_only_the_skip_remains():
    u, dt, A, B, C, D = make_inputs(2, 3, 6, 2)
    y = selective_scan(u, dt, A, B, torch.zeros_like(C), D)
    assert torch.equal(y, D[:, None] * u)


def test_vanishing_steps_leave_the_state_empty():
    u, dt, A, B, C, _ = make_inputs(2, 3, 6, 2)
    assert torch.equal(selective_scan(u, dt * 0, A, B, C), torch.zeros_like(u))
    small = selective_scan(u, dt * 1e-9, A, B, C)
    assert 0 < small.abs().max() < 1e-6


def test_state_is_bounded_for_bounded_input():
    # |h| <= dt / (1 - exp(dt A)) for |u B| <= 1: the geometric series.
    length = 500
    u = torch.ones(1, 1, length, dtype=torch.float64)
    B = C = torch.ones(1, 1, length, dtype=torch.float64)
    A = torch.tensor([[-0.3]], dtype=torch.float64)
    dt = torch.full_like(u, 0.1)
    bound = 0.1 / (1 - math.exp(-0.03))
    h = selective_scan(u, dt, A, B, C)
    assert torch.all(h.diff() >= 0)
    assert 0.999 * bound < h.max() <= bound * (1 + 1e-12)
    unstable = selective_scan(u, dt, -A, B, C)
    assert unstable.max() > 1e3 * bound


def test_extreme_steps_stay_finite_with_gradients():
    inputs = make_inputs(2, 3, 6, 4, dtype=torch.float32)
    inputs[1] = torch.logspace(-30, 30, 36).reshape(2, 3, 6)
    inputs[0] = inputs[0] / inputs[1]
    inputs = [tensor.requires_grad_() for tensor in inputs]
    y = selective_scan(*inputs)
    assert torch.isfinite(y).all()
    gradients = torch.autograd.grad(y.sum(), inputs)
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


def test_dtype_of_the_input_is_kept():
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        inputs = make_inputs(2, 3, 5, 2, dtype=dtype)
        y = selective_scan(*inputs)
        assert y.dtype == dtype
        # Nothing is lost but the rounding of the result itself.
        want = torch.as_tensor(naive_scan(*(t.double() for t in inputs)))
        assert relative_error(y, want) < 2 * torch.finfo(dtype).eps + 1e-13


def low_precision_state_scan(u, dt, A, B, C, D):
    """The same loop with everything in bfloat16: what must not happen."""
    u, dt, A, B, C, D = (t.bfloat16() for t in (u, dt, A, B, C, D))
    h = torch.zeros(*u.shape[:2], A.shape[1], dtype=torch.bfloat16)
    outputs = []
    for t in range(u.shape[2]):
        decay = torch.exp(dt[..., t, None] * A)
        h = decay * h + (dt[..., t] * u[..., t])[..., None] * B[:, None, :, t]
        outputs.append((h * C[:, None, :, t]).sum(-1))
    return torch.stack(outputs, -1) + D[:, None] * u


@pytest.mark.parametrize("all_low", [False, True])
@pytest.mark.parametrize("is_autocast", [False, True])
def test_state_stays_in_float32(all_low, is_autocast):
    u, dt, A, B, C, D = make_inputs(1, 4, 400, 2, dtype=torch.float32)
    u, B, C = (tensor.abs().bfloat16() for tensor in (u, B, C))
    dt, A, D = dt * 1e-2, A * 0.1, torch.zeros_like(D)
    if all_low:
        dt, A, D = (tensor.bfloat16() for tensor in (dt, A, D))
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=is_autocast):
        y = selective_scan(u, dt, A, B, C, D)
        worse = low_precision_state_scan(u, dt, A, B, C, D)
    assert y.dtype == torch.bfloat16
    want = naive_scan(*(tensor.double() for tensor in (u, dt, A, B, C)))
    assert relative_error(y, want) < 2**-8
    assert relative_error(worse, want) > 10 * relative_error(y, want)


class CountingMode(TorchDispatchMode):
    """Count the entries that operations write."""

    def __init__(self):
        super().__init__()
        self.total = self.largest = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        tensors = result if isinstance(result, tuple | list) else [result]
        for tensor in tensors:
            if isinstance(tensor, torch.Tensor) and not function.is_view:
                self.total += tensor.numel()
                self.largest = max(self.largest, tensor.numel())
        return result


def entries_written(scan, length):
    inputs = make_inputs(1, 4, length, 8, dtype=torch.float32)
    inputs = [tensor.requires_grad_() for tensor in inputs]
    with CountingMode() as mode:
        y = scan(*inputs)
        largest_forward = mode.largest
        y.sum().backward()
    return mode.total, largest_forward


def indexing_scan(u, dt, A, B, C, D):
    """A scan that indexes full tensors: quadratic in backward."""
    decay = torch.exp(dt[..., None] * A[:, None])  # (batch, channel, length, state)
    drive = (dt * u)[..., None] * B.mT[:, None]
    h, outputs = torch.zeros_like(decay[:, :, 0]), []
    for t in range(u.shape[2]):
        h = decay[:, :, t] * h + drive[:, :, t]
        outputs.append((h * C[:, None, :, t]).sum(-1))
    return torch.stack(outputs, -1) + D[:, None] * u


def test_work_and_memory_grow_linearly():
    short, _ = entries_written(selective_scan_reference, 32)
    long, largest = entries_written(selective_scan_reference, 64)
    assert long / short < 2.05
    assert largest < 4 * 64 * 8  # no (batch, channel, length, state) tensor
    short, _ = entries_written(indexing_scan, 32)
    long, largest = entries_written(indexing_scan, 64)
    assert long / short > 3
    assert largest >= 4 * 64 * 8


@pytest.mark.parametrize(
    ("index", "axis", "name"),
    [
        (0, 2, "length"),
        (1, 0, "batch"),
        (2, 0, "channel"),
        (3, 1, "state"),
        (4, 2, "length"),
        (5, 0, "channel"),
    ],
)
def test_wrong_shape_names_the_axis(index, axis, name):
    inputs = make_inputs(2, 3, 5, 4)
    inputs[index] = torch.cat([inputs[index], inputs[index]], axis)
    with pytest.raises(InputError, match=f"axis {name}|along {name}"):
        selective_scan(*inputs)


def test_wrong_number_of_axes_and_dtype():
    u, dt, A, B, C, D = make_inputs(2, 3, 5, 4)
    with pytest.raises(InputError, match=r"B has shape \(4, 5\).*batch, state, length"):
        selective_scan(u, dt, A, B[0], C, D)
    with pytest.raises(InputTypeError, match=r"u has dtype torch\.int64"):
        selective_scan(u.long(), dt, A, B, C, D)


# Backends


@pytest.fixture
def backends(monkeypatch):
    """An empty table of backends, with nothing remembered."""
    table = {}
    monkeypatch.setattr(backends_module, "_ACCELERATED", table)
    monkeypatch.setattr(backends_module, "_VERDICTS", {})
    monkeypatch.delenv("SCISEQ_SCAN", raising=False)
    return table


def wrong_value(u, dt, A, B, C, D, reverse):
    return grouped_reference(u, dt, A, B, C, D, reverse) * 1.001


def wrong_gradient(u, dt, A, B, C, D, reverse):
    return grouped_reference(u, dt, A.detach(), B, C, D, reverse) + 0 * A.sum()


def no_gradient(u, dt, A, B, C, D, reverse):
    return grouped_reference(u, dt, A, B, C, D, reverse).detach()


def not_a_number(u, dt, A, B, C, D, reverse):
    return grouped_reference(u, dt, A, B, C, D, reverse) * math.nan


def wrong_shape(u, dt, A, B, C, D, reverse):
    return grouped_reference(u, dt, A, B, C, D, reverse)[..., :1]


@pytest.mark.parametrize(
    "scan", [wrong_value, wrong_gradient, no_gradient, not_a_number, wrong_shape]
)
def test_wrong_backend_is_refused(backends, scan):
    backends["wrong"] = lambda device_type: scan
    inputs = make_inputs(2, 3, 5, 4)
    with pytest.raises(NumericalError, match=r"'wrong' differs.*work here: reference"):
        selective_scan(*inputs, backend="wrong")
    # Chosen automatically it is passed over, and said so.
    with pytest.warns(SciSeqWarning, match="'wrong' differs"):
        y = selective_scan(*inputs)
    assert torch.equal(y, selective_scan_reference(*inputs))
    assert available_backends() == ("reference",)


def test_right_backend_is_checked_once_and_used(backends, monkeypatch):
    calls = []

    def right(u, dt, A, B, C, D, reverse):
        calls.append(u.shape)
        return grouped_reference(u, dt, A, B, C, D, reverse) * 1.0

    backends["right"] = lambda device_type: right
    inputs = make_inputs(2, 3, 5, 4)
    with torch.inference_mode():  # the check needs gradients all the same
        selective_scan(*inputs)
    assert calls == [(2, 6, 7), (2, 3, 5)]
    selective_scan(*inputs, backend="right")
    assert len(calls) == 3
    selective_scan(*inputs, backend="reference")
    assert len(calls) == 3
    monkeypatch.setenv("SCISEQ_SCAN", "reference")
    selective_scan(*inputs)
    assert len(calls) == 3
    selective_scan(*inputs, backend="right")
    assert len(calls) == 4
    assert available_backends() == ("right", "reference")


def test_backend_that_cannot_run_is_skipped_or_refused(backends, monkeypatch):
    def load(device_type):
        raise MissingDependencyError(f"needs cuda, not {device_type}")

    backends["fast"] = load
    inputs = make_inputs(2, 3, 5, 4)
    assert torch.equal(selective_scan(*inputs), selective_scan_reference(*inputs))
    monkeypatch.setenv("SCISEQ_SCAN", "fast")
    with pytest.raises(
        MissingDependencyError,
        match=r"'fast' cannot run on cpu: needs cuda.*SCISEQ_SCAN.*reference",
    ):
        selective_scan(*inputs)


def test_backend_that_fails_is_passed_over_aloud(backends):
    def broken(*inputs):
        raise RuntimeError("no kernel image")

    backends["broken"] = lambda device_type: broken
    inputs = make_inputs(2, 3, 5, 4)
    with pytest.raises(CapabilityError, match=r"'broken' cannot run on cpu.*no kernel"):
        selective_scan(*inputs, backend="broken")
    with pytest.warns(SciSeqWarning, match="no kernel image"):
        y = selective_scan(*inputs)
    assert torch.equal(y, selective_scan_reference(*inputs))


def test_unknown_backend_names_the_allowed_ones(backends, monkeypatch):
    backends["fast"] = lambda device_type: grouped_reference
    inputs = make_inputs(2, 3, 5, 4)
    with pytest.raises(
        InputError, match=r"must be one of fast, reference.*mean 'reference'"
    ):
        selective_scan(*inputs, backend="referenze")
    monkeypatch.setenv("SCISEQ_SCAN", "quick")
    with pytest.raises(InputError, match=r"'quick'.*SCISEQ_SCAN"):
        selective_scan(*inputs)
