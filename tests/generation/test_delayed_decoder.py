"""dKV-Cache: decoded tokens come from the cache, one pass late."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from masked_toys import ready, run, toy_condition, toy_network

from sciseq.errors import InputError, InputTypeError
from sciseq.generation.parts.delayed_decoder import VARIANTS, DelayedDecoder
from sciseq.generation.parts.drawing import Drawing
from sciseq.generation.parts.layout import NOTHING, Layout
from sciseq.generation.parts.masks import full
from sciseq.generation.parts.reveal import Reveal, equal_amounts
from sciseq.generation.parts.whole_decoder import WholeDecoder
from sciseq.generation.sequences.autoregressive import AutoregressiveSequence
from sciseq.generation.sequences.delayed_cache import DelayedCacheDiffusion
from sciseq.generation.sequences.masked_diffusion import MaskedDiffusionSequence

LENGTH = 8
OPEN = [[-1] * LENGTH] * 4
PARTLY = [
    [-1, 0, -1, -1, 2, -1, -1, -1],
    [-1] * 8,
    [1, 1, -1, -1, -1, -1, 0, 0],
    [0, -1, -1, -1, -1, -1, -1, 2],
]


class Trace:
    """Keeps the scores of all hidden positions, and what was computed, of each pass."""

    def start(self, requests):
        super().start(requests)
        self.passes = []

    def commit(self, requests, rows, scores):
        is_row = rows.layout.segment != NOTHING
        found = {
            (int(number), int(place)): one
            for number, places, of, is_one in zip(
                requests.number, rows.layout.position, scores, is_row, strict=True
            )
            for place, one, yes in zip(places, of, is_one, strict=True)
            if yes
        }
        before = requests.tokens.clone()
        super().commit(requests, rows, scores)
        self.passes.append((requests.number.clone(), found, before))


class Traced(Trace, DelayedDecoder):
    pass


class TracedWhole(Trace, WholeDecoder):
    pass


class NoDelay(Traced):
    """Wrong: a token is taken from the cache at once, where it still is a mask."""

    def commit(self, requests, rows, scores):
        super().commit(requests, rows, scores)
        requests.memory["is_settled"] = requests.is_filled.clone()


def delayed(cls=Traced, *, drawing=None, order="confidence", n_steps=None, **params):
    reveal = Reveal(order, equal_amounts(n_steps))
    return cls(drawing or Drawing(), reveal, **params)


def hidden_scores(decoder, network):
    """Scores of computed hidden positions, by pass, request and position."""
    return {
        (i, *key): scores
        for i, (numbers, found, before) in enumerate(decoder.passes)
        for key, scores in found.items()
        if before[numbers.tolist().index(key[0]), key[1]] == network.mask
    }


def difference(one, other, network):
    """Largest difference of the scores that both decoders have."""
    first, second = hidden_scores(one, network), hidden_scores(other, network)
    both = first.keys() & second.keys()
    assert len(both) > 40
    return max(float((first[key] - second[key]).abs().max()) for key in both)


def laws_of(decoder):
    """The laws of hidden tokens that a decoder chooses by, filled as it runs."""
    reveal, seen = decoder.reveal, []

    def spy(logs, tokens, is_hidden, *others):
        seen.append(logs[is_hidden])
        return reveal(logs, tokens, is_hidden, *others)

    decoder.reveal = spy
    return seen


@pytest.mark.parametrize("order", ["confidence", "random", "entropy"])
@pytest.mark.parametrize("n_steps", [None, 4])
def test_refresh_in_every_pass_equals_no_cache(order, n_steps):
    network = toy_network(4, LENGTH, n_layers=3, n_features=2)
    told = toy_condition(4)
    decoder = delayed(order=order, n_steps=n_steps, refresh=1)
    plain = TracedWhole(Drawing(), Reveal(order, equal_amounts(n_steps)))
    laws, plain_laws = laws_of(decoder), laws_of(plain)
    cached, work = run(network, decoder, PARTLY, condition=told)
    expected, plain_work = run(network, plain, PARTLY, condition=told)
    assert torch.equal(cached, expected)
    assert torch.equal(work.n_rows, plain_work.n_rows)
    assert decoder.is_exact
    # T07: not the tokens alone, but all scores of what is hidden.
    mine, its = hidden_scores(decoder, network), hidden_scores(plain, network)
    assert mine.keys() == its.keys()
    assert difference(decoder, plain, network) < 1e-12
    torch.testing.assert_close(laws, plain_laws, rtol=0, atol=1e-12)


def test_scores_that_are_not_refreshed_are_others():
    """The wrong version of the test before: tokens may be equal, scores are not."""
    network = toy_network(4, LENGTH, n_layers=3)
    order, drawing = "left_to_right", Drawing(temperature=0)
    late = delayed(order=order, drawing=drawing, refresh=100)
    plain = TracedWhole(drawing, Reveal(order))
    run(network, late, PARTLY)
    run(network, plain, PARTLY)
    assert difference(late, plain, network) > 1e-6


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("refresh", [3, 100])
def test_one_layer_is_exact(variant, refresh):
    network = toy_network(4, LENGTH, n_layers=1, n_features=2)
    told = toy_condition(4)
    cached = delayed(variant=variant, refresh=refresh, n_layers=1)
    anew = delayed(variant="greedy" if variant == "greedy" else "decode", refresh=1)
    found, work = run(network, cached, PARTLY, condition=told)
    expected, plain_work = run(network, anew, PARTLY, condition=told)
    assert torch.equal(found, expected)
    assert difference(cached, anew, network) < 1e-12
    assert bool((work.n_rows < plain_work.n_rows).all())
    assert cached.is_exact


def test_without_the_delay_one_layer_is_not_exact():
    network = toy_network(4, LENGTH, n_layers=1)
    anew = delayed(order="left_to_right", refresh=1, n_layers=1)
    with_delay = delayed(order="left_to_right", refresh=100, n_layers=1)
    without = delayed(NoDelay, order="left_to_right", refresh=100, n_layers=1)
    for one in (anew, with_delay, without):
        run(network, one, OPEN)
    assert difference(with_delay, anew, network) < 1e-12
    assert difference(without, anew, network) > 0.1


@pytest.mark.parametrize("variant", ["decode", "greedy", "prefill", "prefill_decode"])
def test_more_layers_are_an_approximation(variant):
    network = toy_network(4, LENGTH, n_layers=3, n_features=2)
    told = toy_condition(4)
    cached = delayed(order="left_to_right", variant=variant, refresh=100, n_layers=3)
    anew = delayed(
        order="left_to_right",
        variant="greedy" if variant == "greedy" else "decode",
        refresh=1,
    )
    run(network, cached, PARTLY, condition=told)
    run(network, anew, PARTLY, condition=told)
    assert not cached.is_exact
    assert difference(cached, anew, network) > 1e-6


@pytest.mark.parametrize(
    ("variant", "refresh", "n_layers", "is_exact"),
    [
        ("decode", 1, 3, True),
        ("decode", 2, 3, False),
        ("decode", 2, 1, True),
        ("greedy", 1, 3, True),
        ("greedy", 2, 3, False),
        ("prefill", 1, 3, False),
        ("prefill_decode", 1, 3, False),
        ("prefill", 5, 1, True),
    ],
)
def test_exactness_is_declared(variant, refresh, n_layers, is_exact):
    model = DelayedCacheDiffusion(variant=variant, refresh=refresh, n_layers=n_layers)
    assert model.is_exact == is_exact


def test_rows_in_any_order_say_the_same():
    network = toy_network(4, LENGTH, n_layers=3)
    tokens = torch.tensor([[0, 5, 2, 5, 1, 1, 5, 3]])
    order = torch.randperm(LENGTH, generator=torch.Generator().manual_seed(1))
    layout = Layout.of(LENGTH)
    moved = layout.take(order.unsqueeze(0))
    with torch.no_grad():
        plain = network(network.embed(tokens, layout), layout, full)
        mixed = network(network.embed(tokens[:, order], moved), moved, full)
        # Wrong: rows that lost their positions.
        lost = network(network.embed(tokens[:, order], layout), layout, full)
    torch.testing.assert_close(mixed, plain[:, order], rtol=0, atol=1e-12)
    assert float((lost - plain[:, order]).abs().max()) > 1e-2


# --- Counts of work -------------------------------------------------------------------


def test_work_of_decode_by_hand():
    network = toy_network(4, LENGTH)
    decoder = delayed(refresh=100)
    _, work = run(network, decoder, OPEN)
    # Begin and all positions twice; then pass i has 8 - i hidden and one decoded last.
    cached = [LENGTH - i + 1 for i in range(2, LENGTH)]
    assert work.n_passes.tolist() == [LENGTH] * 4
    assert work.n_rows.tolist() == [2 * (LENGTH + 1) + sum(cached)] * 4
    assert work.n_read.tolist() == [sum(LENGTH + 1 - n for n in cached)] * 4
    total = LENGTH * (LENGTH + 1)
    read = sum(LENGTH + 1 - n for n in cached)
    assert torch.allclose(work.cache_share, torch.tensor(read / total))
    assert work.tokens_per_pass.tolist() == [1.0] * 4


@pytest.mark.parametrize(("refresh", "n_steps"), [(2, None), (3, None), (3, 4)])
def test_work_of_decode_from_the_plan(refresh, n_steps):
    network = toy_network(4, LENGTH)
    decoder = delayed(refresh=refresh, n_steps=n_steps)
    _, work = run(network, decoder, OPEN)
    per_pass = LENGTH // (n_steps or LENGTH)
    rows = 0
    for i in range(n_steps or LENGTH):
        is_full = i < 2 or i % refresh == 0
        hidden = LENGTH - i * per_pass
        rows += LENGTH + 1 if is_full else hidden + per_pass
    assert work.n_rows.tolist() == [rows] * 4


def test_work_of_greedy_is_bounded():
    network = toy_network(4, LENGTH)
    for window in (0, 2, 3):
        decoder = delayed(variant="greedy", refresh=100, window=window)
        _, work = run(network, decoder, OPEN)
        sizes = [len(found) // len(n) for n, found, _ in decoder.passes]
        # One to decode, one decoded last, and the window while as many are hidden.
        expected = [min(2 + window, LENGTH - i + 1) for i in range(2, LENGTH)]
        assert sizes == [LENGTH, LENGTH, *expected]
        assert work.n_rows.tolist() == [2 * (LENGTH + 1) + sum(expected)] * 4


def test_window_lies_around_what_was_decoded_last():
    decoder = delayed(variant="greedy", window=3)
    last = torch.tensor([[0, 0, 0, 1, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0, 0, 1]]).bool()
    free = torch.tensor([[1, 1, 0, 0, 1, 1, 1, 0], [1, 0, 0, 1, 0, 1, 1, 0]]).bool()
    assert decoder._near(last, free).int().tolist() == [
        [0, 1, 0, 0, 1, 1, 0, 0],
        [1, 0, 0, 1, 0, 0, 1, 0],
    ]


@given(st.data())
def test_the_window_is_that_of_all_distances(data):
    n = data.draw(st.integers(1, 12))
    last = torch.tensor([data.draw(st.lists(st.booleans(), min_size=n, max_size=n))])
    free = ~last & torch.tensor(
        [data.draw(st.lists(st.booleans(), min_size=n, max_size=n))]
    )
    window = data.draw(st.integers(0, 4))
    found = delayed(variant="greedy", window=window)._near(last, free)[0]
    place = range(n)

    def distance(i):
        return min((abs(i - j) for j in place if last[0, j]), default=n)

    order = sorted((i for i in place if free[0, i]), key=lambda i: (distance(i), i))
    assert found.nonzero().flatten().tolist() == sorted(order[:window])


def test_work_of_prefill():
    network = toy_network(4, LENGTH, n_features=2)
    told = toy_condition(4)
    decoder = delayed(variant="prefill")
    _, work = run(network, decoder, PARTLY, condition=told)
    n_given = torch.tensor([sum(one >= 0 for one in row) for row in PARTLY])
    n_prefix = 1 + told.is_row.sum(dim=1)
    n_free = LENGTH - n_given
    # All of them once, then what is generated, in each of as many passes.
    rows = n_prefix + LENGTH + (n_free - 1) * n_free
    assert work.n_passes.tolist() == n_free.tolist()
    assert work.n_rows.tolist() == rows.tolist()


@pytest.mark.parametrize("variant", VARIANTS)
def test_settled_positions_only_grow_and_never_change(variant):
    class Watched(Traced):
        def commit(self, requests, rows, scores):
            before = requests.memory["is_settled"].clone()
            tokens, filled = requests.tokens.clone(), requests.is_filled.clone()
            number = requests.number.clone()
            super().commit(requests, rows, scores)
            assert torch.equal(number, requests.number)
            after = requests.memory["is_settled"]
            assert bool((after | ~before).all())
            # One pass late: only what was known before this pass.
            assert bool((filled | ~after).all())
            assert torch.equal(tokens[filled], requests.tokens[filled])

    network = toy_network(4, LENGTH)
    decoder = delayed(Watched, variant=variant, refresh=3)
    tokens, _ = run(network, decoder, PARTLY)
    given = torch.tensor(PARTLY)
    assert torch.equal(tokens[given >= 0], given[given >= 0])


# --- The estimator --------------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS)
def test_samples_are_whole_reproducible_and_of_themselves(variant):
    model = ready(
        DelayedCacheDiffusion, 4, 7, with_ends=True, variant=variant, refresh=3
    )
    four = model.sample(4, template="?B", random_state=3)
    assert four == model.sample(4, template="?B", random_state=3)
    assert four[:2] == model.sample(2, template="?B", random_state=3)
    assert four != model.sample(4, template="?B", random_state=4)
    assert all(set(one) <= set("ABC") for one in four)


def test_a_cache_around_a_fitted_model():
    plain = ready(MaskedDiffusionSequence, 4, LENGTH, order="entropy")
    model = DelayedCacheDiffusion.from_masked_diffusion(plain, refresh=1)
    assert model.sample(3, random_state=0) == plain.sample(3, random_state=0)
    assert model.network_ is plain.network_
    X = ["ABCDABCD", "AAAABBBB"]
    assert (model.score_samples(X) == plain.score_samples(X)).all()
    with pytest.raises(InputTypeError, match="MaskedDiffusionSequence is needed"):
        DelayedCacheDiffusion.from_masked_diffusion(
            ready(AutoregressiveSequence, 4, LENGTH)
        )
    with pytest.raises(InputError, match="refresh"):
        DelayedCacheDiffusion.from_masked_diffusion(plain, refresh=0)
