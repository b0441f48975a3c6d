"""Combiner, token by token: what is remembered of spans, and what a token costs.

Axes: as in the modules.
"""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from sciseq.generation.base import SequenceGenerator
from sciseq.generation.parts import (
    combiner_cached,
    combiner_lockstep,
    combiner_plans,
    lockstep,
)
from sciseq.generation.parts.cache import KeyValueCache
from sciseq.generation.parts.combiner_backbone import CombinerTransformer
from sciseq.generation.parts.combiner_cached import SpanReader, packed
from sciseq.generation.parts.drawing import Drawing
from sciseq.generation.parts.layout import Layout
from sciseq.generation.parts.masks import causal
from sciseq.generation.parts.network import Condition, SequenceNetwork
from sciseq.generation.parts.requests import Requests, generate
from sciseq.generation.sequences.autoregressive import (
    AutoregressiveDecoder,
    next_token_scores,
)
from sciseq.generation.sequences.combiner import CombinerSequence
from sciseq.generation.serving import ContinuousBatcher
from sciseq.nn import build_network

N_TOKENS, LENGTH, N_BATCH = 3, 12, 3
N_HEADS, WIDTH, N_LAYERS = 2, 4, 2
# With the begin there are 13 places: spans that divide them, that do not, and limits.
SPANS = [1, 3, 4, 13, 14, 1000]
CONDITIONS = [0, 1, 3]  # rows


def network(span=None, length=LENGTH, n_features=0):
    sizes = (N_TOKENS, length, N_HEADS * WIDTH, 12, N_LAYERS, N_HEADS, 0.0)
    made = build_network(
        lambda: SequenceNetwork(CombinerTransformer(*sizes, span=span), 8, n_features),
        torch.Generator().manual_seed(0),
    )
    made = made.double().eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(1)
    for one in made.parameters():  # far from the start, where all tokens look alike
        one += 0.5 * torch.randn(one.shape, generator=generator, dtype=one.dtype)
    return made


def some_tokens(n=N_BATCH, length=LENGTH):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, N_TOKENS, (n, length), generator=generator)


def condition_of(n_rows, n=N_BATCH):
    """The last one is padded."""
    if not n_rows:
        return None
    generator = torch.Generator().manual_seed(5)
    is_row = torch.ones(n, n_rows, dtype=torch.bool)
    is_row[-1, 1:] = False
    return Condition(torch.randn(n, n_rows, 2, generator=generator).double(), is_row)


def tensors(key, value):
    torch.testing.assert_close(key, value, rtol=0, atol=1e-12)


# --- Passes of any rows ---------------------------------------------------------------


def in_passes(made, tokens, condition, counts, n_lost=0):
    """States of all rows, computed by passes of so many rows for each request.

    The last ``n_lost`` rows of a pass are computed, not kept, and computed once more.
    """
    n_batch, n_rows = tokens.shape
    x, layout = made.prefix(n_batch, condition)
    cache = KeyValueCache(layout.n_rows, n_rows)
    made(x, layout, causal, cache)
    cache.store()
    found = torch.full((n_batch, n_rows, 8), math.nan, dtype=torch.float64)
    at = torch.zeros(n_batch, dtype=torch.int64)
    for each in counts:
        end = (at + torch.tensor(each)).clamp_max(n_rows)
        position = at[:, None] + torch.arange(max(int((end - at).max()), 1))
        is_row = position < end[:, None]
        rows = Layout.at(position, is_row=is_row)
        symbols = tokens.gather(1, position.clamp_max(n_rows - 1))
        states = made(made.embed(symbols, rows), rows, causal, cache)
        is_kept = is_row & (position < (end - n_lost).clamp_min(at + 1)[:, None])
        cache.store(None if bool(is_kept.all()) else is_kept)
        for request, place in is_kept.nonzero().tolist():
            found[request, position[request, place]] = states[request, place]
        at = at + is_kept.sum(dim=1)
    return found


def at_once(made, tokens, condition):
    return made.read(tokens, Layout.of(tokens.shape[1]), causal, condition)[:, 1:]


ONE_BY_ONE = [[1, 1, 1]] * LENGTH
WHOLE = [[LENGTH] * 3]
APART = [[5, 1, 3], [1, 1, 1], [1, 4, 2]] + [[1, 1, 1]] * LENGTH
ACROSS = [[2, 2, 2], [7, 7, 7], [3, 3, 3]]


@pytest.mark.parametrize("n_told", CONDITIONS)
@pytest.mark.parametrize("span", SPANS)
@pytest.mark.parametrize("counts", [ONE_BY_ONE, WHOLE, APART, ACROSS])
def test_rows_find_in_passes_what_they_find_at_once(counts, span, n_told) -> None:
    made = network(span, n_features=2 if n_told else 0)
    tokens, condition = some_tokens(), condition_of(n_told)
    found = in_passes(made, tokens, condition, counts)
    tensors(found, at_once(made, tokens, condition))


@settings(max_examples=40, deadline=None)
@given(
    span=st.integers(1, 15),
    counts=st.lists(
        st.lists(st.integers(1, 8), min_size=N_BATCH, max_size=N_BATCH), max_size=3
    ),
    n_lost=st.integers(0, 5),
    n_told=st.sampled_from(CONDITIONS),
)
def test_rows_that_are_not_kept_leave_nothing(span, counts, n_lost, n_told) -> None:
    made = network(span, n_features=2 if n_told else 0)
    tokens, condition = some_tokens(), condition_of(n_told)
    found = in_passes(made, tokens, condition, counts + ONE_BY_ONE, n_lost)
    tensors(found, at_once(made, tokens, condition))


def test_rows_may_be_forgotten_and_replaced() -> None:
    made, tokens, cache = network(3), some_tokens(), KeyValueCache(1, LENGTH)
    other = tokens.clone()
    other[:, 4:] = (other[:, 4:] + 1) % N_TOKENS
    x, layout = made.prefix(N_BATCH, None)
    made(x, layout, causal, cache)
    cache.store()
    for symbols, first in ((tokens, 0), (other, 4)):
        rows = Layout.of(LENGTH - first, start=first)
        found = made(made.embed(symbols[:, first:], rows), rows, causal, cache)
        cache.store()
        tensors(found, at_once(made, symbols, None)[:, first:])
        # The last row of a span is forgotten, and all behind it.
        cache.forget(torch.arange(LENGTH).unsqueeze(0) >= 4)


def test_rows_without_a_begin() -> None:
    """Their place 0 is empty, stored or not."""
    made, tokens, cache = network(3), some_tokens(), KeyValueCache(0, LENGTH)
    whole, found = Layout.of(LENGTH), []
    for first in range(0, LENGTH, 2):
        rows = Layout.of(2, start=first)
        x = made.embed(tokens[:, first : first + 2], rows)
        found.append(made(x, rows, causal, cache))
        cache.store()
    tensors(torch.cat(found, dim=1), made(made.embed(tokens, whole), whole, causal))


def unfinished(monkeypatch):
    """Wrong: every row leaves the summary of its span so far."""
    right = SpanReader.__init__

    def wrong(self, cache, places, n_places, span):
        right(self, cache, places, n_places, span)
        self._is_last, self._completes = places < n_places, True

    monkeypatch.setattr(SpanReader, "__init__", wrong)


def no_summary(monkeypatch):
    """Wrong: the row that completes a span leaves what is its own."""
    monkeypatch.setattr(SpanReader, "_with_summaries", lambda self, x, spans: packed(x))


def summary_of_the_own_span(monkeypatch):
    """Wrong: in one pass, rows read the summary of the span they are in."""
    right = SpanReader._mask_of_queries

    def wrong(self, start):
        mask = right(self, start)
        if mask is not None and self._n_spans > 1:
            number = torch.arange(self._n_spans - 1)
            mask[:, 0, number, :, -(self._n_spans - 1) + number] = True
        return mask

    monkeypatch.setattr(SpanReader, "_mask_of_queries", wrong)


@pytest.mark.parametrize("counts", [APART, ACROSS])
@pytest.mark.parametrize("wrong", [unfinished, no_summary, summary_of_the_own_span])
def test_wrong_summaries_are_seen(wrong, counts, monkeypatch) -> None:
    made, tokens = network(3), some_tokens()
    wrong(monkeypatch)
    found = in_passes(made, tokens, None, counts)
    assert (found - at_once(made, tokens, None)).abs().max() > 1e-3


def test_requests_join_and_leave(monkeypatch) -> None:
    """At unequal places, behind conditions of unequal lengths."""
    words = ["abba", "ab", "babab", "aabbab"] * 6
    peaks = [np.full((1 + i % 3, 2), float(i % 4)) for i in range(24)]
    model = CombinerSequence(span=2, **SMALL).fit(words, peaks)
    asks = [
        {"condition": [peaks[i]], "random_state": i, "template": template}
        for i, template in enumerate(["ab????", "??????", "b?a???", "?????"])
    ]
    batcher, tickets, joined = ContinuousBatcher(model, max_active=3), [], []
    monkeypatch.setattr(
        SpanReader, "__init__", spied(SpanReader.__init__, joined, lambda x: len(x[2]))
    )
    for ask in asks:
        tickets.append(batcher.submit(**ask))
        batcher.advance()
    batcher.run()
    for ticket, ask in zip(tickets, asks, strict=True):
        assert batcher.result(ticket) == model.sample(**ask)
    assert max(joined) > 1


# --- Requests in step -----------------------------------------------------------------


SMALL = {
    "d_model": 8, "d_ff": 8, "n_layers": 2, "n_heads": 2, "max_epochs": 2,
    "batch_size": 8, "random_state": 0, "device": "cpu", "precision": "float64",
}  # fmt: skip
VARIED = ["ACGTACGTAC", "ACG", "TTGACA", "GAT", "CCCAAGTGA"] * 4
FIXED = ["ACGTACG", "TTGACAT", "GATTACA", "CCCCGGG", "AGCTAGC"] * 4
PEAKS = [np.full((1 + i % 3, 2), float(i % 2)) for i in range(20)]
LABELS = ["on", "off"] * 10


class OneByOne(CombinerSequence):
    """Samples by the general loop."""

    def _run_requests(self, network, drawing, requests):
        return SequenceGenerator._run_requests(self, network, drawing, requests)


def spied(function, seen, what):
    """Return a function, what of whose arguments is kept."""

    def spy(*args, **others):
        seen.append(what(args))
        return function(*args, **others)

    return spy


@pytest.mark.parametrize("span", [1, 2, 3, None, 99])
def test_samples_in_step_are_those_of_the_loop(span) -> None:
    for X, template in ((VARIED, ["A?G", "????T", "AC"]), (FIXED, ["A?G????"] * 3)):
        fast, slow = (
            cls(span=span, **SMALL).fit(X) for cls in (CombinerSequence, OneByOne)
        )
        for call in ({"n": 30}, {"n": 9, "top_k": 2}, {"n": 9, "temperature": 0}):
            made = [one.sample(random_state=1, **call) for one in (fast, slow)]
            assert made[0] == made[1]
            works = [vars(one.last_work) for one in (fast, slow)]
            assert all(one.equal(works[1][name]) for name, one in works[0].items())
        made = [one.sample(template=template, random_state=3) for one in (fast, slow)]
        assert made[0] == made[1]


@pytest.mark.parametrize("y", [LABELS, PEAKS], ids=["one", "padded"])
def test_conditions_in_step(y) -> None:
    template = ["ACGTA?G", "ACGT?AA", "TTTT???", "ACGT???"]
    fast, slow = (
        cls(span=3, **SMALL).fit(FIXED, y) for cls in (CombinerSequence, OneByOne)
    )
    for others in ({}, {"template": template}, {"template": "ACGT???"}):
        made = [
            one.sample(condition=y[:4], random_state=3, **others)
            for one in (fast, slow)
        ]
        assert made[0] == made[1]


def asked(made, tokens, n_given, condition):
    """Requests that give their first tokens, unequally many but for some of all."""
    is_filled = torch.zeros_like(tokens, dtype=torch.bool)
    is_filled[:, :n_given] = is_filled[1, 7:9] = True
    return Requests(
        tokens.where(is_filled, made.mask), is_filled, torch.arange(len(tokens)),
        made.mask, condition,
    )  # fmt: skip


def scores_in_step(made, n_given, condition, monkeypatch):
    """Tokens, and what was said before each of them (batch, position, token)."""
    seen = []
    draw = lockstep.GenerationInStep._draw
    with monkeypatch.context() as patch:
        spy = spied(draw, seen, lambda x: x[0].scores)
        patch.setattr(lockstep.GenerationInStep, "_draw", spy)
        requests = asked(made, some_tokens(), n_given, condition)
        tokens, _ = combiner_lockstep.generate_spans_in_step(made, Drawing(), requests)
    return tokens, torch.stack(seen, dim=1)


@pytest.mark.parametrize("n_told", CONDITIONS)
@pytest.mark.parametrize("n_given", [0, 1, 2, 6])
@pytest.mark.parametrize("span", SPANS)
def test_scores_in_step_are_those_of_one_pass(
    span, n_given, n_told, monkeypatch
) -> None:
    made = network(span, n_features=2 if n_told else 0)
    condition = condition_of(n_told)
    tokens, found = scores_in_step(made, n_given, condition, monkeypatch)
    wanted = next_token_scores(made, tokens, condition)
    tensors(found, wanted[:, n_given:])


def too_early(monkeypatch):
    """Wrong: a summary is made one row before the last."""
    right = combiner_lockstep._SpanLayer._complete

    def wrong(self, heads, number):
        right(self, heads.index_copy(3, torch.tensor([0]), heads[:, :, :, 1:2]), number)

    monkeypatch.setattr(combiner_lockstep._SpanLayer, "_complete", wrong)


def scaled_twice(monkeypatch):
    """Wrong: queries that are scaled already are pooled as they are."""
    right = combiner_lockstep.summarize_spans

    def wrong(x, is_real):
        return right(x._replace(q=x.q / 2), is_real)

    monkeypatch.setattr(combiner_lockstep, "summarize_spans", wrong)


@pytest.mark.parametrize("wrong", [too_early, scaled_twice])
@pytest.mark.parametrize("n_given", [0, 6])
def test_wrong_summaries_in_step_are_seen(wrong, n_given, monkeypatch) -> None:
    made = network(3)
    wrong(monkeypatch)
    tokens, found = scores_in_step(made, n_given, None, monkeypatch)
    wanted = next_token_scores(made, tokens, None)[:, n_given:]
    assert (found - wanted).abs().max() > 1e-3


@pytest.mark.parametrize("cls", [CombinerSequence, OneByOne])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_less_precision_generates(cls, precision) -> None:
    model = cls(span=2, **{**SMALL, "precision": precision}).fit(VARIED)
    made = model.sample(20, random_state=1)
    assert len(made) == 20 and set("".join(made)) <= set("ACGT")


# --- Cost -----------------------------------------------------------------------------


class Multiplications(TorchDispatchMode):
    """Count those of batched products, which are those of the attention alone."""

    n = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        if operation.overloadpacket.__name__ == "bmm":
            self.n += args[0].numel() * args[1].shape[-1]
        return operation(*args, **(kwargs or {}))


def cost_of_a_row(length):
    """Multiplications of the last of so many tokens, and rows that it gathers."""
    made, tokens = network(length=length), some_tokens(1, length)
    x, layout = made.prefix(1, None)
    cache = KeyValueCache(1, length)
    rows = Layout.of(length - 1)
    x = torch.cat([x, made.embed(tokens[:, :-1], rows)], dim=1)
    made(x, layout.followed_by(rows), causal, cache)
    cache.store()
    last, gathered, stored = Layout.of(1, start=length - 1), [], cache.stored
    cache.stored = spied(stored, gathered, lambda x: x[1].shape[1])
    with Multiplications() as count:
        made(made.embed(tokens[:, -1:], last), last, causal, cache)
    return count.n, gathered


@pytest.mark.parametrize("span", [8, 16, 32])
def test_a_row_costs_its_span_and_the_summaries(span) -> None:
    n_places = span * span  # the begin among them; the default is this span
    found, gathered = cost_of_a_row(n_places - 1)
    # All of the last span, summaries of those before, and one row more for padding.
    n_read = span + (span - 1)
    assert gathered == [n_read + 1] * N_LAYERS
    assert found == N_LAYERS * N_HEADS * 2 * WIDTH * n_read
    assert found < N_LAYERS * N_HEADS * 2 * WIDTH * n_places * 2 / span


def read_in_step(length, span, monkeypatch):
    """Rows that each pass behind the first one reads in a layer."""
    made, seen = network(span, length=length), []
    requests = Requests(
        torch.full((2, length), made.mask), torch.zeros(2, length, dtype=torch.bool),
        torch.arange(2), made.mask,
    )  # fmt: skip
    with monkeypatch.context() as patch:
        spy = spied(lockstep.attend_stored, seen, lambda x: x[1].shape[3])
        patch.setattr(combiner_lockstep, "attend_stored", spy)
        combiner_lockstep.generate_spans_in_step(made, Drawing(), requests)
    return seen


@pytest.mark.parametrize(("length", "span"), [(40, 7), (48, 7), (20, 1), (20, 99)])
def test_rows_read_in_step(length, span, monkeypatch) -> None:
    found = read_in_step(length, span, monkeypatch)
    places = [place for place in range(1, length) for _ in range(N_LAYERS)]
    assert found == [place % span + 1 + place // span for place in places]


@pytest.mark.parametrize("is_in_step", [False, True])
def test_each_span_is_summarised_once(is_in_step, monkeypatch) -> None:
    made, seen, length, span = network(4, length=30), [], 30, 4
    made_by = combiner_lockstep if is_in_step else combiner_cached
    spy = spied(combiner_plans.summarize_spans, seen, lambda x: x[0].k.shape[1])
    monkeypatch.setattr(made_by, "summarize_spans", spy)
    requests = Requests(
        torch.full((2, length), made.mask), torch.zeros(2, length, dtype=torch.bool),
        torch.arange(2), made.mask,
    )  # fmt: skip
    if is_in_step:
        combiner_lockstep.generate_spans_in_step(made, Drawing(), requests)
    else:
        generate(made, AutoregressiveDecoder(Drawing()), requests)
    # The last token is not read; the begin is.
    n_places = length if is_in_step else length + 1
    assert seen == [1] * (N_LAYERS * (n_places // span))
