"""The Triton kernels under Triton's interpreter, run by test_triton_backend.py.

The interpreter must be chosen before triton is imported, which another test of the same
process may have done; so these run in a process of their own:

    TRITON_INTERPRET=1 pytest tests/ops/triton_cases.py
"""

import os

import pytest
import torch

from sciseq.errors import CapabilityError
from sciseq.ops.selective_scan import backends as backends_module
from sciseq.ops.selective_scan import selective_scan, triton_backend
from sciseq.ops.selective_scan.groups import scan_by_group
from sciseq.ops.selective_scan.reference import selective_scan_reference

reference = scan_by_group(selective_scan_reference)
pytestmark = pytest.mark.skipif(
    os.environ.get("TRITON_INTERPRET") != "1", reason="run by test_triton_backend.py"
)
NAMES = ("y", "u", "dt", "A", "B", "C", "D")


def scan(*arguments):
    return triton_backend.load("cpu")(*arguments)


def make_inputs(batch, channel, state, length, group, dtype=torch.float64):
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
    gradients = torch.autograd.grad((y * weights).sum(), given)
    return [y.detach(), *gradients]


def worst_errors(function, inputs, reverse):
    """Largest difference to a float64 run over its largest entry, by name."""
    exact = [
        None if one is None else one.detach().double().requires_grad_()
        for one in inputs
    ]
    truths = values_and_gradients(reference, exact, reverse)
    found = values_and_gradients(function, inputs, reverse)
    return {
        name: float((got.double() - want).abs().max() / want.abs().max())
        for name, got, want in zip(NAMES, found, truths, strict=False)
    }


@pytest.fixture
def small_tiles(monkeypatch):
    monkeypatch.setattr(triton_backend, "CHUNK", 4)
    monkeypatch.setattr(triton_backend, "CHANNELS", 2)
    monkeypatch.setattr(triton_backend, "FEWEST_CHANNELS", 2)


def test_several_chunks_blocks_states_and_directions(small_tiles):
    inputs, reverse = make_inputs(1, 6, 3, 6, 2), (False, True)
    assert max(worst_errors(scan, inputs, reverse).values()) < 1e-13


def test_lost_checkpoints_and_blocks_are_noticed(small_tiles, monkeypatch):
    inputs = make_inputs(1, 3, 1, 5, 1)
    with torch.no_grad():
        inputs[2].mul_(0.1)  # so that the state outlives a chunk
    compute = triton_backend._compute_gradients

    def without_state(*arguments):
        *others, checkpoints, reverse = arguments
        return compute(*others, torch.zeros_like(checkpoints), reverse)

    monkeypatch.setattr(triton_backend._OPERATOR, "compute_gradients", without_state)
    errors = worst_errors(scan, inputs, (False,))
    assert errors["C"] > 1e-3 and errors["A"] > 1e-3 and errors["y"] < 1e-13

    def first_block(*arguments):  # its gradients of B and C are not the sum
        part = [one[..., :2, :] for one in arguments[:3]]
        A, B, C, D, checkpoints, reverse = arguments[3:]
        halves = compute(*part, A[:2], B, C, D[:2], checkpoints[..., :2], reverse)
        whole = compute(*arguments)
        return [*whole[:3], *halves[3:5], whole[5]]

    monkeypatch.setattr(triton_backend._OPERATOR, "compute_gradients", first_block)
    errors = worst_errors(scan, inputs, (False,))
    assert errors["B"] > 1e-3 and errors["C"] > 1e-3 and errors["A"] < 1e-13


def test_several_samples_and_three_groups():
    inputs, reverse = make_inputs(2, 3, 1, 5, 3), (True, False, True)
    assert max(worst_errors(scan, inputs, reverse).values()) < 1e-13

    def forwards(*arguments):  # follows no direction
        return scan(*arguments[:6], (False, False, False))

    errors = worst_errors(forwards, inputs, reverse)
    errors.pop("D")  # the skip has no direction
    assert min(errors.values()) > 1e-3


@pytest.mark.parametrize("reverse", [False, True])
def test_one_token(reverse):
    inputs = make_inputs(2, 1, 2, 1, 1)
    errors = worst_errors(scan, inputs, (reverse,))
    errors.pop("A")  # zero: there is no state to decay
    assert max(errors.values()) < 1e-13


@pytest.mark.parametrize("shape", [(2, 3, 2, 0), (0, 3, 2, 4), (2, 0, 2, 4)])
def test_nothing_to_scan(shape):
    inputs = make_inputs(*shape, group=1)
    y = scan(*inputs, (True,))
    assert y.shape == inputs[0].shape
    for one, gradient in zip(inputs, torch.autograd.grad(y.sum(), inputs), strict=True):
        assert gradient.shape == one.shape
        assert not gradient.any()


def test_any_strides_in_float32_without_skip(monkeypatch):
    monkeypatch.setattr(triton_backend, "CHUNK", 4)
    u, dt, A, B, C, _ = make_inputs(2, 3, 2, 5, 1, torch.float32)
    inputs = [
        u.detach().mT.contiguous().mT,  # channels next to each other
        dt.detach()[:1, :, ::2].repeat_interleave(2, -1)[..., :5].expand(2, 3, 5),
        A.detach().T.contiguous().T,
        torch.stack([B.detach(), C.detach()], -1)[..., 0],
        C.detach().mT.contiguous().mT,
    ]
    inputs = [one.requires_grad_() for one in inputs]
    assert not any(one.is_contiguous() for one in inputs)
    errors = worst_errors(scan, [*inputs, None], (True,))
    assert len(errors) == 6
    assert 0 < max(errors.values()) < 1e-6


def test_strong_decay_leaves_digits_in_the_gradients():
    # h_t - x_t B_t would have none left here: decays are below float32's resolution.
    inputs = make_inputs(1, 2, 1, 6, 1, torch.float32)
    with torch.no_grad():
        inputs[1].fill_(1.0)
        inputs[2].fill_(-25.0)
    errors = worst_errors(scan, inputs, (False,))
    assert max(errors.values()) < 1e-5

    def by_difference(u, dt, A, B, C, D, reverse):
        x = dt * u
        decay = torch.exp(dt * A)
        h = [x[..., 0] * B[:, 0, :, 0]]
        for t in range(1, 6):
            h.append(decay[..., t] * h[-1] + x[..., t] * B[:, 0, :, t])
        m = torch.stack(h, -1) - x * B[:, 0]
        return float((m.double()[..., 1:] - exact).abs().max() / exact.abs().max())

    u, B = inputs[0].detach().double(), inputs[3].detach().double()
    exact = (torch.exp(torch.tensor(-25.0).double()) * u * B[:, 0])[..., :-1]
    with torch.no_grad():
        assert by_difference(*inputs, (False,)) > 1e-3


def test_low_precision_keeps_a_float32_state():
    inputs = make_inputs(1, 2, 1, 9, 1, torch.bfloat16)
    with torch.no_grad():
        y = scan(*inputs, (False,))
        want = reference(*(one.double() for one in inputs), (False,))
    assert y.dtype == torch.bfloat16
    assert (y.double() - want).abs().max() < 2**-8 * want.abs().max()


def test_second_derivatives_are_refused():
    inputs = make_inputs(1, 1, 1, 2, 1)
    y = scan(*inputs, (False,))
    with pytest.raises(CapabilityError, match=r"first derivatives.*'reference'"):
        torch.autograd.grad(y.sum(), inputs[0], create_graph=True)


def test_more_groups_than_bits_are_refused():
    inputs = make_inputs(1, 64, 1, 1, 64)
    with pytest.raises(CapabilityError, match=r"64 groups.*takes 63"):
        scan(*inputs, (True,) * 64)


@pytest.mark.slow
def test_operator_keeps_the_rules_of_torch():
    inputs = make_inputs(1, 2, 1, 3, 2)
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    operator = torch.ops.sciseq.triton_scan.default
    torch.library.opcheck(operator, (*inputs, 0b10, True), test_utils=checks)
    y, checkpoints = operator(*inputs, 0b10, True)
    backward = torch.ops.sciseq.triton_scan_backward.default
    arguments = [one.detach() for one in (y, *inputs, checkpoints)]
    torch.library.opcheck(backward, (*arguments, 0b10), test_utils=checks[::2])


@pytest.mark.slow
def test_compiled_graph_holds_one_operator():
    inputs, reverse = make_inputs(1, 2, 1, 2, 2), (False, True)
    compiled = torch.compile(scan, backend="aot_eager", fullgraph=True)
    assert max(worst_errors(compiled, inputs, reverse).values()) < 1e-13


def test_is_examined_and_chosen(monkeypatch):
    monkeypatch.setattr(backends_module, "_VERDICTS", {})
    monkeypatch.setattr(
        backends_module, "_ACCELERATED", {"triton": triton_backend.load}
    )
    u, dt, A, B, C, D = make_inputs(1, 2, 1, 3, 1)
    y = selective_scan(u, dt, A, B, C, D, backend="triton")
    assert type(y.grad_fn).__name__ == "_EagerScanBackward"
    torch.testing.assert_close(y, reference(u, dt, A, B, C, D, (False,)))
