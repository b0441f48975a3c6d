"""Combiner attention: invariants of card §13 (tests T13 and T14), cost, memory."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import scaled_dot_product_attention
from torch.utils._python_dispatch import TorchDispatchMode

from sciseq.errors import InputError
from sciseq.generation.parts import combiner_plans
from sciseq.generation.parts.combiner_attention import (
    combiner_attention,
    combiner_multiplications,
    default_span,
)
from sciseq.generation.parts.combiner_plans import PLANS
from sciseq.generation.parts.combiner_reference import (
    combiner_spans,
    combiner_weights,
)

WITH_MIXTURE = [*PLANS, ("axial_vertical", "axial_row_major")]


def normal(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def heads(n_tokens, width=3, seed=0):
    return normal(3, 2, 2, n_tokens, width, seed=seed).unbind()


def matrix(q, k, **settings):
    """What the fast path multiplies values with: its output for unit vectors."""
    unit = torch.eye(q.shape[2], dtype=q.dtype)
    return combiner_attention(q, k, unit.expand(*q.shape[:2], -1, -1), **settings)


def allowed(n_tokens, causal):
    every = torch.ones(n_tokens, n_tokens, dtype=torch.bool)
    return every.tril() if causal else every


def pool_means(x, is_real):
    return x.mean(2)


def pool_first(x, is_real):
    return x[:, :, 0]


class Watch(TorchDispatchMode):
    """Count multiplications of tensors, and remember the largest tensor made."""

    def __init__(self):
        super().__init__()
        self.multiplications = self.largest = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        name = operation.overloadpacket.__name__
        if name in ("mm", "bmm"):
            self.multiplications += args[0].numel() * args[1].shape[-1]
        elif name == "mul" and all(torch.is_tensor(one) and one.ndim for one in args):
            self.multiplications += result.numel()
        elif name == "_scaled_dot_product_flash_attention_for_cpu":
            q, k, v = args[:3]
            self.multiplications += (
                q.numel() // q.shape[-1] * k.shape[2] * (k.shape[3] + v.shape[3])
            )
        if torch.is_tensor(result):
            self.largest = max(self.largest, result.numel())
        return result


# --- The matrix and the fast computation ---------------------------------------------


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("plan", WITH_MIXTURE, ids=str)
@pytest.mark.parametrize(("n_tokens", "span"), [(1, None), (7, 3), (12, 4), (13, None)])
def test_equals_the_matrix_in_values_and_gradients(n_tokens, span, plan, causal):
    settings = {"plan": plan, "span": span, "causal": causal}
    inputs = [one.requires_grad_() for one in heads(n_tokens)]
    q, k, v = inputs
    weights = normal(*v.shape, seed=1)
    fast = combiner_attention(q, k, v, **settings)
    slow = combiner_weights(q, k, **settings) @ v
    torch.testing.assert_close(fast, slow, rtol=1e-12, atol=1e-13)
    of_fast = torch.autograd.grad((fast * weights).sum(), inputs, allow_unused=True)
    of_slow = torch.autograd.grad((slow * weights).sum(), inputs)
    for got, want in zip(of_fast, of_slow, strict=True):
        got = torch.zeros_like(want) if got is None else got  # one token: no scores
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("causal", [False, True])
def test_another_pooling_is_another_matrix(causal, monkeypatch):
    q, k, v = heads(12)
    want = combiner_weights(q, k, causal=causal) @ v
    monkeypatch.setattr(combiner_plans, "_pool", pool_means)
    assert not torch.allclose(combiner_attention(q, k, v, causal=causal), want)


@settings(max_examples=40, deadline=None)
@given(
    n_tokens=st.integers(1, 14),
    span=st.integers(1, 16),
    plan=st.sampled_from(list(PLANS)),
    causal=st.booleans(),
    seed=st.integers(0, 99),
)
def test_rows_are_positive_on_all_allowed_tokens_and_sum_to_one(
    n_tokens, span, plan, causal, seed
):
    q, k, _ = heads(n_tokens, seed=seed)
    found = matrix(q, k, plan=plan, span=span, causal=causal)
    assert torch.equal(found > 0, allowed(n_tokens, causal).expand_as(found))
    assert found.min() >= 0
    torch.testing.assert_close(found.sum(-1), torch.ones_like(found[..., 0]))


def test_sparse_attention_misses_allowed_tokens():
    q, k, _ = heads(12)
    span = torch.arange(12) // 4
    scores = (q @ k.mT).masked_fill(span[:, None] != span, -math.inf)
    assert not torch.equal(scores.softmax(-1) > 0, allowed(12, False).expand_as(scores))


@settings(max_examples=60, deadline=None)
@given(
    n_tokens=st.integers(1, 40),
    span=st.none() | st.integers(1, 45),
    plan=st.sampled_from(list(PLANS)),
    causal=st.booleans(),
    data=st.data(),
)
def test_direct_tokens_and_spans_part_what_is_allowed(
    n_tokens, span, plan, causal, data
):
    i = data.draw(st.integers(0, n_tokens - 1))
    direct, spans = combiner_spans(i, n_tokens, plan=plan, span=span, causal=causal)
    assert i in direct
    assert all(spans)
    every = sorted(direct + [j for one in spans for j in one])
    assert every == list(range(i + 1 if causal else n_tokens))


def test_logsparse_spans_are_the_binary_expansion():
    for i in range(64):
        _, spans = combiner_spans(i, 64, plan="logsparse", causal=True)
        assert sum(len(one) for one in spans) == i
        assert len(spans) == i.bit_count()
        assert all(len(one).bit_count() == 1 for one in spans)
        # Aligned: a span is the same for all that read it, and computed once.
        assert all(one[0] % len(one) == 0 for one in spans)


# --- Limits --------------------------------------------------------------------------


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(
    ("plan", "span"),
    [
        ("fixed", 1),
        ("fixed", 11),
        ("fixed", 99),
        ("axial_vertical", 1),
        ("axial_vertical", 11),
        ("axial_row_major", 11),
    ],
)
def test_dense_limits(plan, span, causal):
    q, k, v = heads(11)
    dense = scaled_dot_product_attention(q, k, v, is_causal=causal)
    found = combiner_attention(q, k, v, plan=plan, span=span, causal=causal)
    torch.testing.assert_close(found, dense, rtol=1e-12, atol=1e-13)
    between = combiner_attention(q, k, v, plan=plan, span=4, causal=causal)
    assert (between - dense).abs().max() > 1e-2


def test_a_mixture_is_the_mean():
    q, k, v = heads(10)
    first, second = (
        combiner_attention(q, k, v, plan=one, causal=True)
        for one in ("logsparse", "fixed")
    )
    found = combiner_attention(q, k, v, plan=["logsparse", "fixed"], causal=True)
    torch.testing.assert_close(found, (first + second) / 2, rtol=1e-13, atol=1e-14)
    assert not torch.allclose(first, second)


# --- Who influences whom -------------------------------------------------------------


def influences(**settings):
    """Whether token j (last axis) changes output i at all, by the Jacobian."""
    n_tokens = 9
    maps = normal(3, 3, 3, seed=5)

    def attention(x):
        q, k, v = (x @ one for one in maps)
        return combiner_attention(*(y[None, None] for y in (q, k, v)), **settings)[0, 0]

    jacobian = torch.autograd.functional.jacobian(attention, normal(n_tokens, 3))
    return jacobian.abs().amax((1, 3)) != 0


@pytest.mark.parametrize("plan", WITH_MIXTURE, ids=str)
def test_causal_jacobian(plan):
    found = influences(plan=plan, causal=True)
    assert torch.equal(found, allowed(9, True))
    assert influences(plan=plan, causal=False).all()


def test_a_summary_of_the_own_span_leaks(monkeypatch):
    original = combiner_plans._lower

    def with_own(size, device, diagonal=0):
        return original(size, device, max(diagonal, 0))

    monkeypatch.setattr(combiner_plans, "_lower", with_own)
    found = influences(plan="fixed", span=3, causal=True)
    assert (found & ~allowed(9, True)).any()


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(
    ("plan", "readers", "span"),
    [
        ("fixed", [9, 10, 11, 12, 13, 14, 15], [4, 5, 6, 7]),
        ("logsparse", [12, 13, 14, 15], [8, 9, 10, 11]),
        ("axial_row_major", [8, 9, 10, 11], [1, 5]),
        ("axial_vertical", [10, 11], [1, 5, 9]),
    ],
)
def test_tokens_outside_see_a_span_in_the_same_proportions(plan, readers, span, causal):
    q, k, _ = heads(16)
    if plan == "axial_vertical" and not causal:
        span = [*span, 13]
    found = matrix(q, k, plan=plan, span=4, causal=causal)
    inside = found[:, :, readers][..., span]
    shares = inside / inside.sum(-1, keepdim=True)
    q_span = q[:, :, span].amax(2, keepdim=True)
    scores = (q_span * k[:, :, span]).sum(-1) / math.sqrt(q.shape[-1])
    want = scores.softmax(-1).unsqueeze(2).expand_as(shares)
    torch.testing.assert_close(shares, want, rtol=1e-11, atol=1e-13)
    dense = (q @ k.mT / math.sqrt(3)).softmax(-1)[:, :, readers][..., span]
    rank = [torch.linalg.matrix_rank(one, rtol=1e-9) for one in (inside, dense)]
    assert rank[0].eq(1).all()
    assert rank[1].gt(1).all()


@pytest.mark.parametrize("causal", [False, True])
def test_order_within_a_span_does_not_matter_outside(causal, monkeypatch):
    inputs = heads(12)
    order = [0, 1, 2, 3, 6, 4, 7, 5, 8, 9, 10, 11]
    others = [0, 1, 2, 3, 8, 9, 10, 11]

    def both():
        moved = [one[:, :, order] for one in inputs]
        found = [
            combiner_attention(*one, span=4, causal=causal) for one in (inputs, moved)
        ]
        return [one[:, :, others] for one in found]

    torch.testing.assert_close(*both(), rtol=1e-13, atol=1e-14)
    monkeypatch.setattr(combiner_plans, "_pool", pool_first)
    assert not torch.allclose(*both())


# --- Cost and memory -----------------------------------------------------------------


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("plan", WITH_MIXTURE, ids=str)
@pytest.mark.parametrize(("n_tokens", "span"), [(64, None), (50, 6), (33, 16)])
def test_the_counter_counts_what_is_done(n_tokens, span, plan, causal):
    settings = {"plan": plan, "span": span, "causal": causal}
    q, k, v = heads(n_tokens, width=4)
    with Watch() as watch:
        combiner_attention(q, k, v, **settings)
    n_items = 4
    counted = combiner_multiplications(n_tokens, 4, **settings)
    assert watch.multiplications == n_items * counted
    with Watch() as watch:
        (q @ k.mT).softmax(-1) @ v
    assert watch.multiplications == n_items * 2 * 4 * n_tokens**2


@settings(max_examples=60, deadline=None)
@given(n_tokens=st.integers(1, 5000), span=st.integers(1, 200))
def test_the_fixed_plan_costs_what_the_card_says(n_tokens, span):
    span = min(span, n_tokens)
    padded = span * math.ceil(n_tokens / span)
    scores = padded * (span + padded // span + 1)
    assert combiner_multiplications(n_tokens, 8, span=span) == 2 * 8 * scores
    assert padded - n_tokens < span
    # The card's L (s + 2 L / s) is reached at s = L, and never passed.
    card = padded * (span + 2 * (padded // span))
    assert card / 2 < scores <= card


@pytest.mark.parametrize("plan", ["fixed", "axial_vertical", "axial_row_major"])
def test_the_default_span_is_a_good_one(plan):
    n_tokens = 900
    least = min(
        combiner_multiplications(n_tokens, 1, plan=plan, span=span, causal=True)
        for span in range(1, n_tokens + 1)
    )
    found = combiner_multiplications(n_tokens, 1, plan=plan, causal=True)
    assert found <= 1.1 * least


@pytest.mark.parametrize(
    ("plan", "most"),
    [("fixed", 1.5), ("axial_vertical", 1.5), ("axial_row_major", 1.5),
     ("logsparse", 1.2)],
)  # fmt: skip
def test_cost_grows_slower_than_the_square(plan, most):
    few, many = (
        combiner_multiplications(n, 1, plan=plan, causal=True) for n in (2**12, 2**16)
    )
    assert math.log(many / few, 16) <= most


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("plan", PLANS)
def test_no_square_matrix_is_made(plan, causal):
    n_tokens = 256
    q, k, v = (one[:1, :1].requires_grad_() for one in heads(n_tokens, width=2))
    with Watch() as watch:
        combiner_attention(q, k, v, plan=plan, causal=causal).sum().backward()
    assert watch.largest <= n_tokens**2 / 4
    with Watch() as watch:
        (q @ k.mT).softmax(-1) @ v
    assert watch.largest == n_tokens**2


# --- Inputs --------------------------------------------------------------------------


@pytest.mark.parametrize("plan", PLANS)
def test_large_scores_stay_finite(plan):
    inputs = [(100 * one.float()).requires_grad_() for one in heads(10)]
    found = combiner_attention(*inputs, plan=plan, causal=True)
    found.sum().backward()
    assert found.isfinite().all()
    assert all(one.grad.isfinite().all() for one in inputs)


@pytest.mark.parametrize("n_tokens", [1, 2, 4, 5, 9, 10, 16, 17])
def test_default_span(n_tokens):
    assert default_span(n_tokens) == math.ceil(math.sqrt(n_tokens))
    q, k, v = heads(n_tokens)
    named = combiner_attention(q, k, v, span=default_span(n_tokens))
    assert torch.equal(combiner_attention(q, k, v), named)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"plan": "fixd"}, "Did you mean 'fixed'"),
        ({"plan": ()}, "one or several of"),
        ({"span": 0}, "span is 0, must be at least 1"),
        ({"k": normal(2, 2, 5, 3)}, "q and k of one width"),
        ({"v": normal(2, 2, 5, 3)}, "q and k of one width"),
        ({"q": normal(2, 6, 3), "k": normal(2, 6, 3)}, "must be"),
        (dict.fromkeys("qkv", normal(1, 1, 0, 3)), "length is 0"),
    ],
)
def test_wrong_arguments(changes, words):
    q, k, v = heads(6)
    with pytest.raises(InputError, match=words):
        combiner_attention(**{"q": q, "k": k, "v": v, **changes})
