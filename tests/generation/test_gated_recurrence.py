"""Gated linear recurrences: the scan, both directions in the prefix, no leak, steps."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from sciseq.errors import InputError
from sciseq.generation.parts.gated_recurrence import (
    GatedRecurrence,
    GatedRecurrenceMixer,
)
from sciseq.generation.parts.linear_recurrence import (
    StateCarry,
    linear_recurrence,
    prefix_carry,
    state_carry,
)
from sciseq.generation.parts.recall_objectives import (
    RecallVocabulary,
    build_row,
    default_configurations,
)
from sciseq.generation.parts.recall_rows import collate_rows, pack_rows
from sciseq.nn import build_network, set_dropout_generator

D_MODEL, D_STATE, KINDS = 8, 6, ["gated_ssm", "rg_lru"]
EXACT = {"rtol": 0.0, "atol": 1e-12}


def build(factory, seed=0):
    network = build_network(factory, torch.Generator().manual_seed(seed))
    return network.double().eval()


def backbone(kind="gated_ssm", n_layers=3, **options):
    return build(
        lambda: GatedRecurrence(n_layers, D_MODEL, D_STATE, 12, kind=kind, **options)
    )


def normal(*shape, seed=3):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def loop(a, b, reverse=False):
    """The definition: one token after the other."""
    h, states = torch.zeros_like(b[:, 0]), [None] * b.shape[1]
    order = range(b.shape[1])
    for t in reversed(order) if reverse else order:
        h = a[:, t] * h + b[:, t]
        states[t] = h
    return torch.stack(states, 1)


def dependence(network, x, carry):
    """Entry (t, k) is the size of the derivative of output t by token k."""
    x = x.clone().requires_grad_()
    rows = [
        torch.autograd.grad(y.square().sum(), x, retain_graph=True)[0].abs().sum((0, 2))
        for y in network(x, carry)[0]
    ]
    return torch.stack(rows)


# The scan


@given(
    st.integers(1, 40), st.booleans(), st.sampled_from([0.0, 0.3]), st.integers(0, 99)
)
@settings(max_examples=15)
def test_scan_equals_the_loop_in_values_and_gradients(n_tokens, reverse, zeros, seed):
    a = torch.sigmoid(normal(2, n_tokens, 3, seed=seed))
    a = a * (torch.sigmoid(normal(2, n_tokens, 3, seed=seed + 1)) > zeros)
    b, weight = normal(2, n_tokens, 3, seed=seed + 2), normal(2, n_tokens, 3, seed=7)
    results = []
    for run in (loop, linear_recurrence):
        inputs = a.clone().requires_grad_(), b.clone().requires_grad_()
        h = run(*inputs, reverse=reverse)
        results.append((h, *torch.autograd.grad((weight * h.square()).sum(), inputs)))
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, **EXACT)
    if n_tokens > 1 and zeros == 0:  # the other direction and a late decay are seen
        assert not torch.allclose(loop(a, b, not reverse), results[1][0])
        assert not torch.allclose(loop(a.roll(1, 1), b, reverse), results[1][0])


def test_second_derivatives_of_the_scan_equal_finite_differences():
    a = torch.sigmoid(normal(1, 5, 2)).requires_grad_()
    b = normal(1, 5, 2, seed=4).requires_grad_()
    assert torch.autograd.gradcheck(linear_recurrence, (a, b))
    assert torch.autograd.gradgradcheck(linear_recurrence, (a, b))


# Where states go on


def test_carry_of_prefixes_and_packed_samples():
    carry = prefix_carry(torch.tensor([0, 2, 4]), 4)
    assert carry.forward.int().tolist() == [[0, 1, 1, 1]] * 3
    # The last token has nothing behind it, also where it belongs to the prefix.
    assert carry.backward.int().tolist() == [[0, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0]]
    cut = prefix_carry(torch.tensor([2]), 4, has_begin=False)
    assert cut.backward.int().tolist() == [[1, 0, 0, 0]]

    in_prefix = torch.tensor([[1, 1, 0, 0, 1, 1, 0]], dtype=torch.bool)
    packed = state_carry(in_prefix, torch.tensor([[0, 0, 0, 0, 1, 1, 1]]))
    assert packed.forward.int().tolist() == [[0, 1, 1, 1, 0, 1, 1]]
    assert packed.backward.int().tolist() == [[1, 1, 0, 0, 1, 1, 0]]
    # A sample that ends inside its prefix does not read the next one.
    closed = state_carry(torch.ones(1, 4).bool(), torch.tensor([[0, 0, 1, 1]]))
    assert closed.backward.int().tolist() == [[1, 0, 1, 0]]


# One layer


def terms(mixer, kind, x, keep):
    """Decay, input and gate by the equations of the card; ``keep`` zeroes the decay."""
    if kind == "gated_ssm":
        i, z, o, f = mixer.cell.projection(x).chunk(4, -1)
        return f.sigmoid() * keep, i.sigmoid() * z, F.gelu(o)
    x, o = mixer.cell.projection(x).chunk(2, -1)
    i, r = mixer.cell.gates(x).chunk(2, -1)
    a = mixer.cell.Lambda.sigmoid() ** (8 * r.sigmoid()) * keep
    return a, (1 - a**2).sqrt() * i.sigmoid() * x, F.gelu(o)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_layer_equals_its_equations_token_by_token(kind, bidirectional):
    mixer = build(
        lambda: GatedRecurrenceMixer(
            D_MODEL, D_STATE, kind, bidirectional=bidirectional
        )
    )
    x, prefix, half = normal(3, 7, D_MODEL), torch.tensor([0, 3, 6]), D_STATE // 2
    keep = torch.ones(3, 7, D_STATE)
    keep[:, 0] = 0  # there is no state before the first token
    if bidirectional:
        keep[..., half:] = (torch.arange(7) < prefix[:, None])[..., None]
    a, b, o = terms(mixer, kind, x, keep)
    h = loop(a, b)
    if bidirectional:
        back = loop(a[..., half:], b[..., half:], reverse=True)
        h = torch.cat([h[..., :half], back], -1)
    y, found = mixer(x, prefix_carry(prefix, 7))
    torch.testing.assert_close(found, h, **EXACT)
    torch.testing.assert_close(y, mixer.out(o * h), **EXACT)


@pytest.mark.parametrize("kind", KINDS)
def test_reverse_state_in_the_causal_area_is_the_input_alone(kind):
    mixer = build(
        lambda: GatedRecurrenceMixer(D_MODEL, D_STATE, kind, bidirectional=True)
    )
    x, half = normal(1, 8, D_MODEL), D_STATE // 2
    _, h = mixer(x, prefix_carry(torch.tensor([3]), 8))
    zero_gate = terms(mixer, kind, x, 0.0)[1]
    torch.testing.assert_close(h[:, 3:, half:], zero_gate[:, 3:, half:], **EXACT)
    assert not torch.allclose(h[:, :3, half:], zero_gate[:, :3, half:], atol=1e-3)
    if kind == "rg_lru":  # the root keeps the size of the input only for a zero gate
        scaled = terms(mixer, kind, x, 1.0)[1]
        assert not torch.allclose(h[:, 3:, half:], scaled[:, 3:, half:], atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_first_decays_and_gradients_are_finite(kind):
    mixer = build(lambda: GatedRecurrenceMixer(D_MODEL, 64, kind, bidirectional=True))
    if kind == "gated_ssm":
        decay = mixer.cell.projection.bias.chunk(4)[3].sigmoid()
    else:
        decay = mixer.cell.Lambda.sigmoid() ** 8
    assert 0.9 <= decay.min() < 0.92 < 0.97 < decay.max() <= 0.999 + 1e-12
    x = 100 * normal(2, 6, D_MODEL)  # gates saturate
    mixer(x, prefix_carry(torch.tensor([0, 3]), 6))[0].square().sum().backward()
    for name, parameter in mixer.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


# Who depends on whom


@pytest.mark.parametrize("kind", KINDS)
def test_without_prefix_the_network_is_causal(kind):
    x = normal(1, 7, D_MODEL)
    sizes = dependence(backbone(kind), x, prefix_carry(torch.tensor([0]), 7))
    causal = torch.ones(7, 7, dtype=torch.bool).tril()
    assert torch.equal(sizes > 0, causal)
    # With the prefix over everything it is not.
    sizes = dependence(backbone(kind), x, prefix_carry(torch.tensor([7]), 7))
    assert torch.all(sizes > 0)


def test_without_prefix_half_of_the_state_has_no_memory():
    network, x = backbone(), normal(2, 7, D_MODEL)
    outputs = network(x, prefix_carry(torch.tensor([0, 0]), 7))
    # The same layers, run forward only, with the decays of the second half at zero.
    y, half = x, D_STATE // 2
    for layer in network.layers:
        keep = torch.ones(D_STATE)
        if layer.mixer.n_backward:
            keep[half:] = 0
        a, b, o = terms(layer.mixer, "gated_ssm", layer.norm1(y), keep)
        y = y + layer.mixer.out(o * loop(a, b))
        y = y + layer.feed_forward(layer.norm2(y))
    torch.testing.assert_close(network.norm(y), outputs, **EXACT)


def allowed(n_tokens, prefix):
    """Who may read whom: all of the prefix and BEGIN, or nothing later."""
    t, k = torch.arange(n_tokens)[:, None], torch.arange(n_tokens)[None]
    return (k <= t) | ((t < prefix) & (k <= prefix))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("prefix", [1, 4])
def test_no_label_leaks_into_the_prefix_or_backwards(kind, prefix):
    network, x = backbone(kind), normal(1, 8, D_MODEL)
    sizes = dependence(network, x, prefix_carry(torch.tensor([prefix]), 8))
    assert torch.equal(sizes > 0, allowed(8, prefix))
    # Wrong: a causal area that starts behind BEGIN lets BEGIN read the first label.
    late = dependence(network, x, prefix_carry(torch.tensor([prefix + 1]), 8))
    assert late[prefix, prefix + 1] > 0
    # Without BEGIN token P is a label, which the prefix must not read.
    cut = prefix_carry(torch.tensor([prefix]), 8, has_begin=False)
    sizes = dependence(network, x, cut)
    assert torch.equal(sizes > 0, allowed(8, prefix) & ~_reads_begin(8, prefix))


def _reads_begin(n_tokens, prefix):
    t, k = torch.arange(n_tokens)[:, None], torch.arange(n_tokens)[None]
    return (t < prefix) & (k == prefix)


def test_a_net_of_one_direction_is_causal_whatever_the_prefix():
    network, x = backbone(prefix_bidirectional=False), normal(1, 6, D_MODEL)
    sizes = dependence(network, x, prefix_carry(torch.tensor([4]), 6))
    assert torch.equal(sizes > 0, torch.ones(6, 6, dtype=torch.bool).tril())
    directions = [layer.mixer.n_backward for layer in network.layers]
    assert directions == [0, 0, 0]
    both = [layer.mixer.n_backward for layer in backbone(n_layers=4).layers]
    assert both == [D_STATE // 2, 0, D_STATE // 2, 0]  # half of the layers


# Rows: own prefixes, padding, packing


@pytest.mark.parametrize("kind", KINDS)
def test_rows_have_prefixes_of_their_own_and_padding_is_not_read(kind):
    network, x, prefix = backbone(kind), normal(3, 9, D_MODEL), torch.tensor([0, 2, 5])
    outputs = network(x, prefix_carry(prefix, 9))
    for row, n_tokens in enumerate([4, 7, 9]):
        alone = network(
            x[row : row + 1, :n_tokens], prefix_carry(prefix[row : row + 1], n_tokens)
        )
        torch.testing.assert_close(outputs[row, :n_tokens], alone[0], **EXACT)


@pytest.mark.parametrize("kind", KINDS)
def test_packed_samples_equal_samples_alone(kind):
    network, samples = backbone(kind), [(3, 6), (0, 2), (2, 5)]
    x = normal(1, 13, D_MODEL)
    in_prefix = torch.cat([torch.arange(n) < p for p, n in samples])[None]
    sample = torch.cat([torch.full((n,), i) for i, (_, n) in enumerate(samples)])[None]
    outputs = network(x, state_carry(in_prefix, sample))
    forgetful = network(x, state_carry(in_prefix))  # wrong: no reset
    first = 0
    for number, (prefix, n_tokens) in enumerate(samples):
        part = slice(first, first + n_tokens)
        alone = network(x[:, part], prefix_carry(torch.tensor([prefix]), n_tokens))
        torch.testing.assert_close(outputs[:, part], alone, **EXACT)
        if number:
            assert not torch.allclose(forgetful[:, part], alone, atol=1e-4)
        first += n_tokens


def test_packed_and_padded_training_rows_have_the_same_scores():
    generator, words = np.random.default_rng(0), RecallVocabulary(5)
    rows = [
        build_row(one, generator.integers(5, size=12), words, generator)
        for one in default_configurations()[:15]
    ]
    options = {"begin": words.begin, "padding": words.padding, "n_tokens": 60}
    network, embedding = backbone(), normal(words.size, D_MODEL)
    scores = []
    for batch in (collate_rows(rows, **options), pack_rows(rows, **options)):
        tokens, in_prefix, sample = map(
            torch.from_numpy, (batch.tokens, batch.in_prefix, batch.sample)
        )
        outputs = network(embedding[tokens], state_carry(in_prefix, sample))
        logits = (outputs @ embedding.T)[torch.from_numpy(batch.is_scored)]
        targets = torch.from_numpy(batch.targets[batch.is_scored])
        losses = F.cross_entropy(logits, targets, reduction="none")
        scores.append((len(batch.tokens), losses.sort().values))
    (n_padded, padded), (n_packed, packed) = scores
    assert n_packed < n_padded == 15
    torch.testing.assert_close(packed, padded, **EXACT)


# Generation


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("has_begin", [True, False])
def test_steps_equal_the_pass_over_all_tokens(kind, has_begin):
    network, x, prefix = backbone(kind), normal(3, 9, D_MODEL), torch.tensor([1, 2, 4])
    outputs = network(x, prefix_carry(prefix, 9, has_begin=has_begin))
    last = prefix if has_begin else prefix - 1
    rows, n_prompt = torch.arange(3), int(last.max()) + 1
    # What stands behind the prompts must not matter.
    prompt = x[:, :n_prompt].clone()
    prompt[torch.arange(n_prompt) > last[:, None]] = 1e3
    carry = prefix_carry(prefix, n_prompt, has_begin=has_begin)
    found, state = network.prefill(prompt, carry, last)
    torch.testing.assert_close(found, outputs[rows, last], **EXACT)
    for t in range(1, 5):
        found, state = network.step(x[rows, last + t], state)
        torch.testing.assert_close(found, outputs[rows, last + t], **EXACT)
    # Wrong: the state of the longest prompt for all rows.
    _, late = network.prefill(prompt, carry, last.max().expand(3))
    wrong, _ = network.step(x[rows, last + 1], late)
    assert not torch.allclose(wrong[0], outputs[0, last[0] + 1], atol=1e-4)


def test_selected_rows_go_on_on_their_own():
    network, x = backbone(), normal(2, 4, D_MODEL)
    prefix, rows = torch.tensor([1, 2]), torch.tensor([1, 1, 0])
    _, state = network.prefill(x, prefix_carry(prefix, 4), prefix)
    token = normal(3, D_MODEL, seed=5)
    found, _ = network.step(token, state.select(rows))
    for number, row in enumerate(rows):
        alone = state.select(row[None])
        expected, _ = network.step(token[number : number + 1], alone)
        torch.testing.assert_close(found[number], expected[0], **EXACT)


def test_states_are_held_in_32_bits_under_autocast():
    mixer = build(lambda: GatedRecurrenceMixer(D_MODEL, D_STATE)).float()
    x, carry = normal(1, 5, D_MODEL).float(), prefix_carry(torch.tensor([0]), 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, h = mixer(x, carry)
    assert h.dtype == torch.float32
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(h, mixer(x, carry)[1], rtol=0.05, atol=0.02)


def test_dropout_draws_from_its_generator():
    network = backbone(dropout=0.5).train()
    x, carry = normal(1, 5, D_MODEL), prefix_carry(torch.tensor([2]), 5)
    outputs = []
    for seed in (0, 0, 1):
        set_dropout_generator(network, torch.Generator().manual_seed(seed))
        outputs.append(network(x, carry))
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.allclose(outputs[0], outputs[2])
    assert math.isfinite(outputs[0].sum().item())


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: GatedRecurrenceMixer(8, 5, bidirectional=True), "d_state 5"),
        (lambda: GatedRecurrenceMixer(8, 0), "d_state 0"),
        (lambda: GatedRecurrenceMixer(8, 4, "rg_lur"), "Did you mean 'rg_lru'"),
        (lambda: GatedRecurrence(0, 8), "n_layers is 0"),
    ],
)
def test_wrong_sizes_are_told(make, told):
    with pytest.raises(InputError, match=told):
        make()


def test_carry_is_what_it_says():
    carry = prefix_carry(torch.tensor([1]), 3)
    assert isinstance(carry, StateCarry)
    assert carry.forward.dtype == carry.backward.dtype == torch.bool
