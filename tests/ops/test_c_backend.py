"""The compiled scan and convolution: equal to plain torch, in every instruction set."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sciseq.errors import CapabilityError, InputError, MissingDependencyError
from sciseq.ops.causal_convolution import (
    causal_convolution_silu,
    causal_depthwise_convolution,
)
from sciseq.ops.selective_scan import (
    available_backends,
    c_backend,
    c_library,
    chosen_backend,
    gated_selective_scan,
    selective_scan,
)

# Batch, groups, channels, states, length: single ones, rests of vectors (16 floats,
# 8 doubles), of blocks of states (8) and of chunks (32), and nothing at all.
SHAPES = [
    (2, 1, 3, 2, 7),
    (1, 1, 1, 1, 1),
    (3, 2, 40, 5, 33),
    (2, 1, 37, 16, 70),
    (1, 1, 150, 13, 65),
    (2, 2, 2, 64, 3),
    (2, 1, 4, 2, 0),
    (0, 1, 4, 2, 5),
]
DIRECTIONS = {1: [(False,), (True,)], 2: [(False, True), (True, True)]}
CASES = [(shape, reverse) for shape in SHAPES for reverse in DIRECTIONS[shape[1]]]


def make_inputs(shape, dtype=torch.float64, *, by_tokens=True, seed=0):
    """u, d, A, B, C, D, dt_bias and z."""
    batch, group, channel, state, length = shape
    generator = torch.Generator().manual_seed(seed)

    def normal(*sizes):
        one = torch.randn(*sizes, generator=generator, dtype=torch.float64).to(dtype)
        # Channels or states next to each other in memory, as the blocks give them.
        return one.mT.contiguous().mT if by_tokens and len(sizes) > 2 else one

    sequence, maps = (batch, channel, length), (batch, group, state, length)
    return [
        normal(*sequence),
        normal(*sequence),
        -torch.exp(normal(channel, state)),
        normal(*maps),
        normal(*maps),
        normal(channel),
        normal(channel),
        normal(*sequence),
    ]


def values_and_gradients(scan, inputs, weight):
    inputs = [one.detach().clone().requires_grad_() for one in inputs]
    y = scan(*inputs)
    loss = (y * weight).sum()
    gradients = torch.autograd.grad(loss, inputs, materialize_grads=True)
    return [y, *gradients]


def assert_all_close(got, want, tolerance):
    for index, (a, b) in enumerate(zip(got, want, strict=True)):
        assert a.shape == b.shape, index
        if a.numel():
            error = (a.double() - b.double()).abs().max()
            assert error <= tolerance * b.abs().max(), (index, float(error))


def test_it_was_built_and_is_taken():
    # Where tests run there is a compiler.
    assert available_backends("cpu")[0] == "c"
    assert chosen_backend("cpu") == "c"
    assert c_library.library().sciseq_scan_has_threads()


@pytest.mark.parametrize("by_tokens", [True, False])
@pytest.mark.parametrize(("shape", "reverse"), CASES)
def test_scan_equals_the_reference(shape, reverse, by_tokens):
    u, d, *rest = make_inputs(shape, by_tokens=by_tokens)[:6]
    inputs = [u, F.softplus(d), *rest]
    weight = make_inputs(shape, seed=1)[0]

    def scan(backend):
        return lambda *x: selective_scan(*x, reverse=reverse, backend=backend)

    got, want = (
        values_and_gradients(scan(backend), inputs, weight)
        for backend in ("c", "reference")
    )
    assert_all_close(got, want, 1e-12)
    if shape[4] > 1 and shape[0]:  # the other way round is another result
        other = tuple(not one for one in reverse)
        wrong = selective_scan(*inputs, reverse=other, backend="c")
        assert not torch.allclose(wrong, want[0], atol=1e-3)


@pytest.mark.parametrize(("shape", "reverse"), CASES)
def test_gated_scan_equals_the_composition(shape, reverse):
    inputs, weight = make_inputs(shape), make_inputs(shape, seed=1)[0]

    def scan(backend):
        return lambda *x: gated_selective_scan(*x, reverse=reverse, backend=backend)

    got, want = (
        values_and_gradients(scan(backend), inputs, weight)
        for backend in ("c", "reference")
    )
    assert_all_close(got, want, 1e-12)


@pytest.mark.parametrize("instructions", [0, 1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_instruction_set(instructions, dtype, monkeypatch):
    if instructions > c_library.newest_instructions():
        pytest.skip("this processor has no such instructions")
    monkeypatch.setattr(c_library, "newest_instructions", lambda: instructions)
    shape = (2, 2, 40, 13, 70)
    inputs, weight = make_inputs(shape, dtype), make_inputs(shape, seed=1)[0]
    results = []
    for backend, type_ in (("c", dtype), ("reference", torch.float64)):

        def scan(*x, backend=backend):
            return gated_selective_scan(*x, reverse=(False, True), backend=backend)

        results.append(
            values_and_gradients(
                scan, [one.to(type_) for one in inputs], weight.to(type_)
            )
        )
    assert_all_close(*results, 1e-5 if dtype == torch.float32 else 1e-12)


@pytest.mark.parametrize("n_taps", [1, 2, 4, 40])
@pytest.mark.parametrize(("channel", "length"), [(3, 7), (37, 70), (5, 1), (16, 0)])
@pytest.mark.parametrize("reverse", [False, True])
def test_convolution_equals_the_composition(n_taps, channel, length, reverse):
    generator = torch.Generator().manual_seed(n_taps)

    def normal(*sizes):
        return torch.randn(*sizes, generator=generator, dtype=torch.float64)

    inputs = [normal(2, length, channel), normal(channel, 1, n_taps), normal(channel)]
    weight = normal(2, length, channel)

    def fused(*x):
        return causal_convolution_silu(*x, reverse=reverse)

    def composed(*x):
        return F.silu(causal_depthwise_convolution(*x, reverse=reverse))

    got = values_and_gradients(fused, inputs, weight)
    want = values_and_gradients(composed, inputs, weight)
    assert_all_close(got, want, 1e-12)
    if length > 1 and n_taps > 1:
        wrong = causal_convolution_silu(*inputs, reverse=not reverse)
        assert not torch.allclose(wrong, want[0], atol=1e-3)


def test_results_do_not_follow_the_number_of_threads():
    inputs = make_inputs((3, 1, 300, 4, 50), torch.float32)
    weight = torch.ones(3, 300, 50)
    before, results = torch.get_num_threads(), []
    try:
        for n_threads in (1, 2, 3):
            torch.set_num_threads(n_threads)
            results.append(values_and_gradients(gated_selective_scan, inputs, weight))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(map(torch.equal, results[0], other))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_is_computed_in_float32(dtype):
    inputs = [one.to(dtype) for one in make_inputs((2, 1, 20, 4, 40))]
    y = gated_selective_scan(*inputs)
    assert y.dtype == dtype
    want = gated_selective_scan(*(one.double() for one in inputs))
    assert (y.double() - want).abs().max() < 2 * torch.finfo(
        dtype
    ).eps * want.abs().max()


def test_any_strides():
    shape = (2, 1, 6, 3, 9)
    u, d, A, B, C, D, bias, z = make_inputs(shape)
    inputs = [
        u[:, ::2],
        d[:, ::2].flip(2)[..., :1].expand(2, 3, 9),
        A[::2].T.contiguous().T,
        B.flip(1),
        C[..., :1].expand_as(C),
        D[::2],
        bias[::2],
        z[:, ::2],
    ]
    got = gated_selective_scan(*inputs)
    want = gated_selective_scan(*(one.contiguous() for one in inputs))
    torch.testing.assert_close(got, want, rtol=1e-13, atol=1e-14)
    weight = torch.ones(()).double().expand(got.shape)  # as sum() gives
    gradient = torch.autograd.grad(
        gated_selective_scan(u.requires_grad_(), d, A, B, C, D, bias, z).sum(), u
    )[0]
    assert gradient.shape == u.shape and weight.stride() == (0, 0, 0)


def test_extreme_values_as_in_plain_torch():
    values = torch.tensor([-1e30, -200.0, -50.0, -1e-30, 0.0, 1e-30, 15.0, 90.0, 1e4])
    d, z = (
        one.reshape(1, -1, 1) for one in torch.meshgrid(values, values, indexing="ij")
    )
    n = d.numel()
    u, maps = torch.ones(1, n, 1), torch.ones(1, 1, 1, 1)
    rest = (-torch.ones(n, 1), maps, maps, torch.zeros(n), torch.zeros(n), z)
    got = gated_selective_scan(u, d, *rest, backend="c")
    want = gated_selective_scan(u, d, *rest, backend="reference")
    torch.testing.assert_close(got, want, rtol=2e-6, atol=1e-30)
    for index in range(5):
        inputs = make_inputs((1, 1, 2, 2, 3))
        inputs[index][(0,) * inputs[index].ndim] = torch.nan
        assert gated_selective_scan(*inputs).isnan().any()


def test_nothing_is_kept_without_gradients():
    sizes = []

    inputs = make_inputs((2, 1, 4, 2, 100))
    u, A, B = inputs[0], inputs[2], inputs[3]
    assert c_library.checkpoint_size(u, A, B.shape[1]) > 0
    with torch.no_grad():
        for one in inputs:
            one.requires_grad_()
        y = gated_selective_scan(*inputs)
    assert y.grad_fn is None
    with torch.autograd.graph.saved_tensors_hooks(
        lambda one: sizes.append(one.numel()) or one, lambda one: one
    ):
        y = gated_selective_scan(*inputs)
    # One state for every chunk but the first, and no (batch, channel, length, state).
    kept = c_library.checkpoint_size(u, A, B.shape[1])
    assert sum(sizes) == sum(one.numel() for one in inputs) + kept
    assert kept == 3 * 2 * 8 * 2


def test_second_derivatives_are_refused_with_a_way_out(monkeypatch):
    inputs = [one.requires_grad_() for one in make_inputs((1, 1, 2, 2, 3))]
    y = gated_selective_scan(*inputs)
    with pytest.raises(CapabilityError, match=r"first derivatives.*reference"):
        torch.autograd.grad(y.sum(), inputs, create_graph=True)
    y = causal_convolution_silu(inputs[0].mT, torch.ones(2, 1, 2).double())
    with pytest.raises(CapabilityError, match="first derivatives"):
        torch.autograd.grad(y.sum(), inputs[0], create_graph=True)
    monkeypatch.setenv("SCISEQ_SCAN", "reference")
    y = gated_selective_scan(*inputs)
    torch.autograd.grad(y.sum(), inputs, create_graph=True)


def test_the_operator_for_the_compiler():
    u, d, *rest = make_inputs((2, 1, 4, 3, 40))[:6]
    inputs = [one.requires_grad_() for one in (u, d.exp().detach(), *rest)]
    arguments = (*inputs, 1, True)
    torch.library.opcheck(torch.ops.sciseq.c_scan.default, arguments)
    y, checkpoints = torch.ops.sciseq.c_scan(*arguments)
    want = selective_scan(*inputs, reverse=True, backend="reference")
    torch.testing.assert_close(y, want, rtol=1e-12, atol=1e-13)
    assert checkpoints.numel() == c_library.checkpoint_size(u, inputs[2], 1)
    got = torch.autograd.grad(y.sum(), inputs)
    assert_all_close(got, torch.autograd.grad(want.sum(), inputs), 1e-12)


@pytest.mark.slow
def test_compiled_code_meets_one_operator():
    inputs = make_inputs((2, 1, 4, 2, 5), torch.float32)
    compiled = torch.compile(gated_selective_scan, fullgraph=True)
    weight = torch.ones_like(inputs[0])
    assert_all_close(
        values_and_gradients(compiled, inputs, weight),
        values_and_gradients(gated_selective_scan, inputs, weight),
        1e-5,
    )


def test_wrong_groups_are_named():
    u, d, A, B, C, D, bias, z = make_inputs((2, 2, 4, 3, 5))
    with pytest.raises(InputError, match="reverse has 3 directions, B and C have 2"):
        selective_scan(u, d, A, B, C, D, reverse=(True, False, True))
    with pytest.raises(InputError, match="3 channels cannot be shared equally by 2"):
        selective_scan(u[:, :3], d[:, :3], A[:3], B, C, D[:3])
    with pytest.raises(InputError, match="dt_bias has 3 along channel"):
        gated_selective_scan(u, d, A, B, C, D, bias[:3], z)
    many = torch.ones(1, 64, 1, 2)
    with pytest.raises(CapabilityError, match="64 groups, this backend takes 63"):
        selective_scan(many[:, :, 0], many[:, :, 0], many[0, :, 0, :1], many, many)
    with pytest.raises(InputError, match="C has 1 along group, B has 2"):
        selective_scan(u, d, A, C, B[:, 0], D)


def test_other_devices_and_missing_libraries_are_refused(monkeypatch):
    with pytest.raises(MissingDependencyError, match="processor"):
        c_backend.load("cuda")
    c_library.library.cache_clear()
    monkeypatch.setattr(c_library, "__file__", "/nowhere/c_library.py")
    try:
        with pytest.raises(MissingDependencyError, match="without a C compiler"):
            c_backend.load("cpu")
    finally:
        c_library.library.cache_clear()


def test_steps_are_softplus_of_their_inputs():
    # Two tokens by hand: h_1 = dt_1 u_1 B_1, y_1 = h_1 C_1 SiLU(z_1), and on.
    one = torch.ones(1, 1, 2, dtype=torch.float64)
    y = gated_selective_scan(
        one, 0 * one, -one[0, :, :1], one, one, None, torch.zeros(1).double(), one
    )
    dt = torch.log(torch.tensor(2.0, dtype=torch.float64))
    gate = torch.sigmoid(torch.ones(1).double())
    want = torch.cat([(dt * gate), (dt / 2 + dt) * gate]).reshape(1, 1, 2)
    torch.testing.assert_close(y, want, rtol=1e-14, atol=0)


def test_all_combinations_of_missing_inputs():
    u, d, A, B, C, D, *_ = make_inputs((2, 1, 3, 2, 4))
    for skip, needs in itertools.product((D, None), (True, False)):
        inputs: list[Tensor | None] = [u, d.exp(), A, B, C, skip]
        if needs:
            inputs = [None if x is None else x.clone().requires_grad_() for x in inputs]
        got = selective_scan(*inputs, backend="c")
        want = selective_scan(*inputs, backend="reference")
        torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-13)
        if needs:
            given = [x for x in inputs if x is not None]
            assert_all_close(
                torch.autograd.grad(got.sum(), given),
                torch.autograd.grad(want.sum(), given),
                1e-12,
            )
