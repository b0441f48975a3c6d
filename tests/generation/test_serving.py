"""Continuous batching: invariants of card §15 (test T20)."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sequence_toys import fitted, tiny_network

from sciseq.errors import CapabilityError, InputError, InputTypeError
from sciseq.generation import serving
from sciseq.generation.conditions import ConditionCoding
from sciseq.generation.markov_chain import MarkovChain
from sciseq.generation.parts.combiner_backbone import CombinerTransformer
from sciseq.generation.parts.delayed_decoder import VARIANTS, DelayedDecoder
from sciseq.generation.parts.joining import SeatedCache
from sciseq.generation.parts.layout import NOTHING
from sciseq.generation.parts.network import SequenceNetwork
from sciseq.generation.sequences.autoregressive import AutoregressiveSequence
from sciseq.generation.sequences.axial import AxialAutoregressor
from sciseq.generation.sequences.block_diffusion import BlockDiffusionSequence
from sciseq.generation.sequences.combiner import CombinerSequence
from sciseq.generation.sequences.delayed_cache import DelayedCacheDiffusion
from sciseq.generation.sequences.draft_verify import DraftVerifySequence
from sciseq.generation.sequences.energy_diffusion import EnergyDiffusionSequence
from sciseq.generation.sequences.masked_diffusion import MaskedDiffusionSequence
from sciseq.generation.sequences.next_block import NextBlockSequence
from sciseq.generation.sequences.reordered_causal import ReorderedCausalDiffusion
from sciseq.generation.serving import ContinuousBatcher
from sciseq.nn import build_network

LENGTH = 7

# What may be asked for: lengths, places of gaps and ways to draw are unequal.
ASKS = [
    {"n": 2, "random_state": 0},
    {"n": 3, "temperature": 0.5, "random_state": 1},
    {"template": "AB?A", "random_state": 2},
    {"template": ["?B", "ABAB?AA", "A?A?A"], "temperature": 2.0, "random_state": 3},
    {"n": 2, "allowed": "A", "random_state": 4},
    {"n": 1, "top_k": 1, "random_state": 5},
    {"n": 1, "allowed": {0: "B"}, "template": "?A", "random_state": 6},
    {"template": "ABABABA", "random_state": 7},  # nothing is to be done
]
FIXED = [
    {"template": "A??????", "random_state": 0},
    {"template": "ABABA??", "random_state": 1},  # complete before the others
    {"template": "?B?????", "random_state": 2},
    {"template": "???ABAB", "random_state": 3},
]


def autoregressive():
    return fitted(AutoregressiveSequence, 3, LENGTH, with_ends=True)


def block_diffusion():
    """Sequences need unequal numbers of passes: certain tokens are kept at once."""
    return fitted(
        BlockDiffusionSequence, 3, LENGTH, with_ends=True, block_size=3, threshold=0.6
    )


def combiner():
    network = build_network(
        lambda: SequenceNetwork(
            CombinerTransformer(3, LENGTH, 8, 12, 2, 2, 0.0, span=3), 8
        ),
        torch.Generator().manual_seed(0),
    )
    network = network.double().eval().requires_grad_(False)
    network.backbone.transformer.symbols *= 20
    network.backbone.transformer.places *= 20
    return fitted(CombinerSequence, 3, LENGTH, network=network, with_ends=True)


def of(cls):
    return lambda: fitted(cls, 3, LENGTH, with_ends=True)


def energy_diffusion(energy="autoregressive"):
    model = fitted(
        EnergyDiffusionSequence, 3, LENGTH, with_ends=True, energy=energy, window=0.7
    )
    model.proposal_ = fitted(
        MaskedDiffusionSequence, 3, LENGTH, with_ends=True,
        network=tiny_network(3, LENGTH, seed=4),
    )  # fmt: skip
    return model


def delayed(variant):
    """A cache that is an approximation: what is read depends on the pass."""
    return lambda: fitted(
        DelayedCacheDiffusion, 3, LENGTH, with_ends=True, variant=variant, refresh=7,
        n_layers=3, network=tiny_network(3, LENGTH, n_layers=3),
    )  # fmt: skip


MAKERS = {
    "autoregressive": autoregressive,
    "block diffusion": block_diffusion,
    "masked diffusion": of(MaskedDiffusionSequence),
    "draft and verify": of(DraftVerifySequence),
    "next block": of(NextBlockSequence),
    "reordered causal": of(ReorderedCausalDiffusion),
    "combiner": combiner,
    "energy": energy_diffusion,
    **{f"delayed cache, {one}": delayed(one) for one in VARIANTS},
}


class Known:
    """What a model gives for every ask on its own, and in how many passes."""

    def __init__(self, model):
        self.model, self._samples, self._passes = model, {}, {}

    def samples(self, number):
        if number not in self._samples:
            self._samples[number] = self.model.sample(**ASKS[number])
        return self._samples[number]

    def n_passes(self, number):
        if number not in self._passes:
            alone = ContinuousBatcher(self.model)
            alone.submit(**ASKS[number])
            alone.run()
            self._passes[number] = alone.served.n_passes
        return self._passes[number]


@pytest.fixture(scope="module", params=["autoregressive", "block diffusion"])
def known(request):
    return Known(MAKERS[request.param]())


def serve(batcher, arrivals, asks):
    """Submit asks at their times; return tickets, and passes and pauses until done."""
    tickets, now, waiting = {}, 0, sorted(enumerate(arrivals), key=lambda one: one[1])
    is_left = True
    while is_left or waiting:
        while waiting and waiting[0][1] <= now:
            place, _ = waiting.pop(0)
            tickets[place] = batcher.submit(**asks[place])
        is_left = batcher.advance()
        now += 1
        check_memory(batcher)
    return [tickets[place] for place in range(len(asks))], now


def check_memory(batcher):
    """Seats are side by side, and hold as much as the active sequences need."""
    network = batcher._model.network_.backbone
    n_slots, width = (
        LENGTH + 1,
        getattr(network, "transformer", network).symbols.shape[1],
    )
    n_layers = len(getattr(network, "transformer", network).layers)
    pool = batcher._pool
    seats = [pool.slot_of(one) for one in pool.requests]
    assert seats == list(range(pool.active.start, pool.active.stop))
    n_tensors = 3 if isinstance(network, CombinerTransformer) else 2
    each = n_tensors * n_layers * n_slots * width * 8
    assert batcher.cache_bytes == batcher.n_active * each
    assert batcher.n_active <= pool.capacity


class Together(ContinuousBatcher):
    """Reads nothing but conditions and begins apart."""

    def _widens(self, new, running):
        return False


@settings(max_examples=20)
@given(
    asked=st.lists(
        st.tuples(st.integers(0, 9), st.integers(0, len(ASKS) - 1)),
        min_size=1,
        max_size=6,
    ),
    max_active=st.sampled_from([1, 2, 3, 5, 64]),
    batcher_type=st.sampled_from([ContinuousBatcher, Together]),
)
def test_every_arrival_pattern_gives_what_each_request_gives(
    known, asked, max_active, batcher_type
) -> None:
    arrivals, numbers = zip(*asked, strict=True)
    batcher = batcher_type(known.model, max_active)
    tickets, n = serve(batcher, arrivals, [ASKS[number] for number in numbers])
    for ticket, number in zip(tickets, numbers, strict=True):
        assert batcher.result(ticket) == known.samples(number)
    assert batcher.cache_bytes == 0
    assert batcher._running is None  # no memory is kept
    assert not (batcher._sequences or batcher._made or batcher._n_missing)
    if max_active == 64:  # there was always room
        own = [max(known.n_passes(number), 1) for number in numbers]
        most = max(a + b for a, b in zip(arrivals, own, strict=True))
        # A first pass that is read apart is no pass of all.
        assert most - (batcher_type is ContinuousBatcher) <= n <= most


@pytest.mark.parametrize("name", list(MAKERS))
def test_every_decoder_can_be_served(name) -> None:
    model = MAKERS[name]()
    batcher = ContinuousBatcher(model, 3)
    asks = [*ASKS, *FIXED]
    tickets, _ = serve(batcher, range(len(asks)), asks)
    for ticket, ask in zip(tickets, asks, strict=True):
        assert batcher.result(ticket) == model.sample(**ask)
    assert batcher.served.most_active == 3


def test_passes_are_shared() -> None:
    batcher = ContinuousBatcher(fitted(AutoregressiveSequence, 3, LENGTH))
    for number in range(4):
        batcher.submit(2, random_state=number)
        batcher.advance()
    batcher.run()
    # A sequence needs a pass for each token but the first; the last joins third.
    assert batcher.served.n_passes == 3 + LENGTH - 1
    assert batcher.served.n_prefills == 4
    assert batcher.served.n_tokens == 8 * LENGTH
    assert batcher.served.n_rows == 8 * (LENGTH - 1)
    assert batcher.served.tokens_per_pass == 8 * LENGTH / (LENGTH + 2)
    assert batcher.served.tokens_per_second > 0


def test_first_come_first_served() -> None:
    batcher = ContinuousBatcher(autoregressive(), 1)
    tickets = [batcher.submit(**ask) for ask in (ASKS[0], ASKS[2], ASKS[1])]
    finished = []
    while batcher.advance():
        finished += [t for t in tickets if batcher.is_done(t) and t not in finished]
    assert finished == tickets[: len(finished)]
    assert batcher.served.most_active == 1


def test_conditions_of_unequal_lengths_join() -> None:
    model = fitted(
        AutoregressiveSequence, 3, LENGTH,
        network=tiny_network(3, LENGTH, n_features=2),
    )  # fmt: skip
    model.condition_coding_ = ConditionCoding(mean=[0.0, 0.0], scale=[1.0, 1.0])
    generator = torch.Generator().manual_seed(0)
    asks = [
        {"condition": [torch.randn(n, 2, generator=generator).numpy()],
         "n": 2, "random_state": n}
        for n in (2, 1, 4, 3, 2)
    ]  # fmt: skip
    batcher = ContinuousBatcher(model, 5)
    tickets = []
    for ask in asks:
        tickets.append(batcher.submit(**ask))
        batcher.advance()
    batcher.run()
    wanted = [model.sample(**ask) for ask in asks]
    assert [batcher.result(one) for one in tickets] == wanted
    # The conditions matter, so that a mistake would have been seen.
    other = {"condition": asks[1]["condition"]}
    assert wanted != [model.sample(**{**ask, **other}) for ask in asks]


# --- What is wrong is seen ------------------------------------------------------------


def is_right():
    model = fitted(AutoregressiveSequence, 3, LENGTH)
    batcher = ContinuousBatcher(model, 4)
    asks = [dict(one, random_state=seed) for seed in range(6) for one in FIXED]
    tickets = [batcher.submit(**ask) for ask in asks]
    batcher.run()
    made = [batcher.result(one) for one in tickets]
    return made == [model.sample(**ask) for ask in asks]


def test_rows_that_do_not_move_are_seen(monkeypatch) -> None:
    assert is_right()

    def stays(cache, items):
        cache._show()
        cache.layout = cache.layout.requests(items)
        is_used = (cache.layout.segment != NOTHING).any(dim=0)
        cache._used = int(is_used.nonzero().max()) + 1

    monkeypatch.setattr(SeatedCache, "keep", stays)
    assert not is_right()


@pytest.mark.parametrize("variant", VARIANTS)
def test_refreshes_of_the_oldest_request_are_seen(variant, monkeypatch) -> None:
    """Wrong: the pass of the first request counts for all."""
    full, prefix = DelayedDecoder.is_full, DelayedDecoder.computes_prefix

    def of_the_first(method):
        return lambda self, requests: method(self, requests)[:1].expand(len(requests))

    model = delayed(variant)()
    asks = [{"n": 2, "random_state": one} for one in range(12)]

    def is_served_right():
        batcher = Together(model, 4)  # all join in a common pass, however wide
        tickets, _ = serve(batcher, range(len(asks)), asks)
        return [batcher.result(one) for one in tickets] == [
            model.sample(**ask) for ask in asks
        ]

    assert is_served_right()
    monkeypatch.setattr(DelayedDecoder, "is_full", of_the_first(full))
    monkeypatch.setattr(DelayedDecoder, "computes_prefix", of_the_first(prefix))
    assert not is_served_right()


def test_an_order_that_is_not_that_of_the_seats_is_seen(monkeypatch) -> None:
    join = serving.join

    def at_the_end(requests, others, order):
        seeds = torch.cat([requests.seeds, others.seeds])
        join(requests, others, order)
        requests.seeds = seeds

    monkeypatch.setattr(serving, "join", at_the_end)
    assert not is_right()


def test_noise_that_is_shared_is_seen(monkeypatch) -> None:
    """Seeds that follow the batch, as one generator for all would."""
    begun = ContinuousBatcher._begun

    def by_place(self, sequences):
        requests = begun(self, sequences)
        requests.seeds = torch.arange(len(sequences)) + self.n_active
        return requests

    monkeypatch.setattr(ContinuousBatcher, "_begun", by_place)
    assert not is_right()


# --- For callers ----------------------------------------------------------------------


def test_results_are_handed_over_once() -> None:
    batcher = ContinuousBatcher(autoregressive())
    ticket = batcher.submit(3, random_state=0)
    with pytest.raises(InputError, match="not complete"):
        batcher.result(ticket)
    batcher.run()
    assert len(batcher.result(ticket)) == 3
    with pytest.raises(InputError, match="handed over"):
        batcher.result(ticket)
    with pytest.raises(InputError, match="unknown"):
        batcher.is_done(9)
    assert not batcher.advance()  # nothing is left


def test_wrong_models_and_arguments() -> None:
    with pytest.raises(InputTypeError, match="MarkovChain"):
        ContinuousBatcher(MarkovChain())
    with pytest.raises(InputError, match="0"):
        ContinuousBatcher(autoregressive(), 0)
    with pytest.raises(CapabilityError, match="row by row"):
        ContinuousBatcher(fitted(AxialAutoregressor))
    with pytest.raises(Exception, match="not fitted"):
        ContinuousBatcher(AutoregressiveSequence())
    batcher = ContinuousBatcher(autoregressive())
    for wrong in ({"temperature": -1}, {"n": 0}, {"template": "Z"}, {"allowed": "Z"}):
        with pytest.raises(InputError):
            batcher.submit(**wrong)
    assert not batcher.n_waiting
    assert not batcher.advance()


def test_progress_is_told(capsys) -> None:
    batcher = ContinuousBatcher(autoregressive(), verbose=1)
    batcher.submit(2, random_state=0)
    batcher.run()
    last = capsys.readouterr().err.splitlines()[-1]
    assert "active 0  waiting 0  done 2" in last
    assert "tokens per second" in last
    quiet = ContinuousBatcher(autoregressive())
    quiet.submit(1, random_state=0)
    quiet.run()
    assert capsys.readouterr().err == ""


def test_a_ticket_can_be_cancelled() -> None:
    model = fitted(AutoregressiveSequence, 3, LENGTH)
    batcher = ContinuousBatcher(model, 3)
    kept = [batcher.submit(2, random_state=one) for one in range(2)]
    gone = [batcher.submit(2, random_state=one) for one in range(2, 4)]
    kept.append(batcher.submit(1, random_state=4))
    batcher.advance()  # three active, of which one is cancelled, and four wait
    batcher.cancel(kept.pop(1))
    for one in gone:
        batcher.cancel(one)
    with pytest.raises(InputError, match="unknown"):
        batcher.cancel(gone[0])
    assert (batcher.n_active, batcher.n_waiting) == (2, 1)
    batcher.run()
    for ticket, seed, n in zip(kept, (0, 4), (2, 1), strict=True):
        assert batcher.result(ticket) == model.sample(n, random_state=seed)
    assert not (batcher._sequences or batcher._made or batcher._n_missing)


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize("name", ["begin", "join", "step"])
def test_an_interrupted_pass_changes_nothing(name, error, monkeypatch) -> None:
    model = fitted(AutoregressiveSequence, 3, LENGTH)
    batcher = ContinuousBatcher(model, 2)
    tickets = [batcher.submit(2, random_state=one) for one in range(3)]
    original, calls = getattr(serving, name), []

    def failing(*args):
        calls.append(original(*args))  # half of the work is done
        if len(calls) == 2:
            raise error

    monkeypatch.setattr(serving, name, failing)
    with pytest.raises(error):
        batcher.run()
    batcher.run()
    for seed, ticket in enumerate(tickets):
        assert batcher.result(ticket) == model.sample(2, random_state=seed)


def test_a_model_that_is_fitted_again_is_served_as_it_was() -> None:
    model = AutoregressiveSequence(
        d_model=8, d_ff=8, n_layers=1, n_heads=2, max_epochs=2, random_state=0,
        device="cpu",
    ).fit(["ACGT", "AGGT"] * 4)  # fmt: skip
    expected = model.sample(3, random_state=0)
    batcher = ContinuousBatcher(model)
    ticket = batcher.submit(3, random_state=0)
    batcher.advance()
    model.fit(["WXYZ", "WYYZ"] * 4)
    batcher.run()
    assert batcher.result(ticket) == expected


def test_wrong_ways_to_draw_are_refused_before_they_reach_others() -> None:
    batcher = ContinuousBatcher(autoregressive())
    good = batcher.submit(2, random_state=0)
    for bad in (
        {"top_k": 2.5}, {"top_k": 0}, {"temperature": "a"}, {"top_p": None},
        {"temperature": float("nan")}, {"top_p": 0.0}, {"allowed": 5},
        {"template": "A", "allowed": {0: "B"}},
    ):  # fmt: skip
        with pytest.raises(InputError):
            batcher.submit(1, **bad)
    batcher.run()
    assert batcher.is_done(good)
    assert batcher.served.n_sequences == 2


def test_a_long_beginning_is_read_apart_from_the_passes_of_others(monkeypatch) -> None:
    model = fitted(AutoregressiveSequence, 3, LENGTH)
    step, widths = serving.step, []

    def counted(network, decoder, requests, work):
        widths.append((len(requests), decoder.rows(requests).tokens.shape[1]))
        step(network, decoder, requests, work)

    monkeypatch.setattr(serving, "step", counted)
    batcher = ContinuousBatcher(model, 4)
    first = batcher.submit(2, random_state=0)
    batcher.advance()
    second = batcher.submit(template="ABCAB??", random_state=1)
    batcher.run()
    assert batcher.result(first) == model.sample(2, random_state=0)
    assert batcher.result(second) == [
        model.sample(template="ABCAB??", random_state=1)[0]
    ]
    # Two sequences alone; five given tokens alone; then one row each, three together.
    assert widths[:3] == [(2, 1), (1, 5), (3, 1)]
    assert {width for _, width in widths[2:]} == {1}
    assert batcher.served.n_prefills == 3
    # Without others a beginning is read in an ordinary pass.
    widths.clear()
    alone = ContinuousBatcher(model, 4)
    alone.submit(template="ABCAB??", random_state=1)
    alone.run()
    assert widths == [(1, 5), (1, 1)]
