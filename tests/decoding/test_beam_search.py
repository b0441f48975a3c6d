"""Beam search: exhaustive comparison, greedy, constraints, batches, ending early."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sciseq.decoding.beam_search import beam_search
from sciseq.errors import InputError, NumericalError

STOP = 3  # of the tokens 0, 1, 2 and 3


class Table:
    """A toy whose log-probabilities follow from the whole prefix, item by item.

    It follows ``reorder`` and ``keep`` by what it remembers, as a cache does.
    """

    def __init__(self, seeds, n_tokens=4, scale=2.0, dtype=torch.float64):
        self.seeds = torch.as_tensor(seeds)
        self.n_tokens = n_tokens
        self.scale = scale
        self.dtype = dtype
        self.steps = []

    def start(self, n_items, n_beams, max_length):
        assert n_items == len(self.seeds)
        self.alive = torch.arange(n_items)
        self.remembered = torch.zeros(n_items, n_beams, 0, dtype=torch.int64)
        self.steps = []

    def step(self, tokens):
        self.steps.append(tuple(tokens.shape))
        newest = tokens[..., -1:]
        self.remembered = torch.cat([self.remembered, newest], dim=2)
        assert not (tokens == STOP).any()
        rows = [
            [self.log_probs(int(self.seeds[item]), beam) for beam in beams]
            for item, beams in zip(
                self.alive.tolist(), self.remembered.tolist(), strict=True
            )
        ]
        return torch.stack([torch.stack(row) for row in rows])

    def log_probs(self, seed, prefix):
        number = seed
        for token in prefix:
            number = (number * 31 + token + 1) % 1_000_003
        generator = torch.Generator().manual_seed(number)
        scores = torch.randn(self.n_tokens, generator=generator, dtype=torch.float64)
        return (self.scale * scores).log_softmax(0).to(self.dtype)

    def reorder(self, parents):
        index = parents.unsqueeze(2).expand_as(self.remembered)
        self.remembered = self.remembered.gather(1, index)

    def keep(self, items):
        self.alive = self.alive[items]
        self.remembered = self.remembered[items]


def total_of(table, seed, tokens):
    prefix, total = [], 0.0
    for token in (*tokens, STOP):
        total += float(table.log_probs(seed, prefix)[token])
        prefix.append(token)
    return total


def exhaustive(table, seed, max_length, allowed=lambda tokens: True):
    """All sequences with their totals, best first."""
    sequences = [
        tokens
        for length in range(max_length + 1)
        for tokens in itertools.product(range(STOP), repeat=length)
        if allowed(tokens)
    ]
    totals = [(total_of(table, seed, tokens), tokens) for tokens in sequences]
    return sorted(totals, reverse=True)


def sequences(decoded, item):
    return [
        tuple(tokens[:length])
        for tokens, length in zip(
            decoded.tokens[item].tolist(), decoded.lengths[item].tolist(), strict=True
        )
    ]


@pytest.mark.parametrize("n_best", [1, 5])
def test_a_beam_as_wide_as_the_tree_finds_the_best(n_best):
    seeds = list(range(6))
    table = Table(seeds)
    found = beam_search(
        table, n_items=6, beam_size=3**3, max_length=3, stop=STOP, n_best=n_best
    )
    for item, seed in enumerate(seeds):
        want = exhaustive(table, seed, 3)[:n_best]
        assert sequences(found, item) == [tokens for _, tokens in want]
        for got, (total, _) in zip(found.totals[item].tolist(), want, strict=True):
            assert got == pytest.approx(total, abs=1e-12)


def test_result_parts_belong_together():
    table = Table(range(8))
    found = beam_search(
        table, n_items=8, beam_size=4, max_length=5, stop=STOP, n_best=3
    )
    torch.testing.assert_close(found.log_probs.sum(-1), found.totals)
    assert (found.totals.diff(dim=1) <= 0).all()
    for item in range(8):
        for rank, tokens in enumerate(sequences(found, item)):
            prefix = []
            for place, token in enumerate((*tokens, STOP)):
                want = table.log_probs(item, prefix)[token]
                assert found.log_probs[item, rank, place] == want
                prefix.append(token)
            assert (found.tokens[item, rank, len(tokens) :] == STOP).all()
            assert (found.log_probs[item, rank, len(tokens) + 1 :] == 0).all()


def test_the_best_total_never_falls_as_the_beam_widens():
    table = Table(range(20))
    totals = torch.stack(
        [
            beam_search(
                table, n_items=20, beam_size=beam_size, max_length=4, stop=STOP
            ).totals[:, 0]
            for beam_size in (1, 2, 3, 5, 9, 27, 81)
        ]
    )
    assert (totals.diff(dim=0) >= -1e-12).all()
    assert (totals[-1] > totals[0] + 1e-3).any(), "greedy was never beaten"
    best = [exhaustive(table, seed, 4)[0][0] for seed in range(20)]
    torch.testing.assert_close(totals[-1], torch.tensor(best, dtype=torch.float64))


def greedy_by_hand(table, seed, max_length):
    prefix = []
    while len(prefix) < max_length:
        token = int(table.log_probs(seed, prefix).argmax())
        if token == STOP:
            break
        prefix.append(token)
    return tuple(prefix)


def test_beam_1_is_greedy():
    table = Table(range(30))
    found = beam_search(table, n_items=30, beam_size=1, max_length=6, stop=STOP)
    for item in range(30):
        (tokens,) = sequences(found, item)
        assert tokens == greedy_by_hand(table, item, 6)
        want = total_of(table, item, tokens)
        assert float(found.totals[item, 0]) == pytest.approx(want, abs=1e-12)
        torch.testing.assert_close(found.log_probs[item].sum(), found.totals[item, 0])
    assert len({int(one) for one in found.lengths}) > 3


def test_stops_compete_with_the_open_beams():
    # The second beam is never any good, so that the search equals beam 1 unless a stop
    # outside the best two was taken.
    likely = torch.tensor([0.5, 0.3, 0.05, 0.15], dtype=torch.float64).log()
    end = torch.tensor([0.02, 0.02, 0.02, 0.94], dtype=torch.float64).log()

    class Fixed(Table):
        def log_probs(self, seed, prefix):
            return end if len(prefix) == 3 else likely

    found = beam_search(
        Fixed([0]), n_items=1, beam_size=2, max_length=5, stop=STOP, n_best=2
    )
    # An empty sequence, p = 0.15, would be second among all; at its step the tokens 0
    # and 1 are better, and it is not taken.
    assert sequences(found, 0)[0] == (0, 0, 0)
    assert () not in sequences(found, 0)


@pytest.mark.parametrize("beam_size", [1, 3])
def test_an_item_does_not_depend_on_its_batch(beam_size):
    seeds = list(range(12))
    n_best = min(beam_size, 2)
    settings = dict(beam_size=beam_size, max_length=6, stop=STOP, n_best=n_best)
    together = beam_search(Table(seeds), n_items=12, **settings)
    alone = [beam_search(Table([seed]), n_items=1, **settings) for seed in seeds]
    turned = beam_search(Table(seeds[::-1]), n_items=12, **settings)
    for part in ("tokens", "log_probs", "lengths", "totals"):
        want = getattr(together, part)
        assert torch.equal(want, torch.cat([getattr(one, part) for one in alone]))
        assert torch.equal(want, getattr(turned, part).flip(0))


class Unordered(Table):
    """Forgets that its beams change their places."""

    def reorder(self, parents):
        pass


class Undropped(Table):
    """Drops items, but other ones than it is told."""

    def keep(self, items):
        super().keep(torch.arange(len(items)))


@pytest.mark.parametrize("wrong", [Unordered, Undropped])
def test_a_decoder_that_does_not_follow_is_caught(wrong):
    settings = dict(n_items=12, beam_size=4, max_length=6, stop=STOP)
    right = beam_search(Table(range(12)), **settings)
    off = beam_search(wrong(range(12)), **settings)
    assert not torch.equal(right.tokens, off.tokens)


def test_ended_items_leave_the_batch():
    table = Table(range(16))
    found = beam_search(table, n_items=16, beam_size=2, max_length=30, stop=STOP)
    sizes = [shape[0] for shape in table.steps]
    assert sizes == sorted(sizes, reverse=True) and sizes[-1] < sizes[0]
    assert [shape[2] for shape in table.steps] == list(range(len(sizes)))
    # The search ends when nothing can improve, not at the greatest length.
    assert len(sizes) < 31
    assert len(sizes) > int(found.lengths.max())


def test_ending_early_changes_nothing():
    class Patient(Table):
        """An item in the batch that never ends keeps all the others going."""

        def keep(self, items):
            raise AssertionError("nothing may be dropped")

        def log_probs(self, seed, prefix):
            if seed >= 100:
                return torch.tensor([-0.01, -9.0, -9.0, -50.0], dtype=torch.float64)
            return super().log_probs(seed, prefix)

    settings = dict(beam_size=3, max_length=8, stop=STOP, n_best=2)
    short = beam_search(Table([0, 1, 2]), n_items=3, **settings)
    patient = Patient([0, 1, 2, 100, 101, 102, 103])
    long = beam_search(patient, n_items=7, **settings)
    assert torch.equal(short.tokens, long.tokens[:3])
    assert torch.equal(short.totals, long.totals[:3])


class EvenSum:
    """Allows only sequences whose tokens sum to an even number, without 2 after 1."""

    def __init__(self, offsets):
        self.offsets = torch.as_tensor(offsets)

    def start(self, n_items, n_beams, device):
        parity = self.offsets[:, None].expand(n_items, n_beams).clone()
        return parity, torch.zeros_like(parity)

    def mask(self, state):
        parity, last = state
        allowed = torch.ones(*parity.shape, 4, dtype=torch.bool)
        allowed[..., STOP] = parity % 2 == 0
        allowed[..., 2] = last != 1
        return allowed

    def advance(self, state, tokens):
        return state[0] + tokens, tokens


def is_allowed(tokens, offset):
    pairs = itertools.pairwise(tokens)
    return (sum(tokens) + offset) % 2 == 0 and (1, 2) not in pairs


@pytest.mark.parametrize("n_best", [1, 4])
def test_a_constraint_with_a_state_per_beam(n_best):
    offsets = [0, 1, 0, 1, 1, 0]
    table = Table(range(6))
    found = beam_search(
        table,
        n_items=6,
        beam_size=27,
        max_length=3,
        stop=STOP,
        allowed=EvenSum(offsets),
        n_best=n_best,
    )
    for item, offset in enumerate(offsets):
        want = exhaustive(table, item, 3, lambda t, o=offset: is_allowed(t, o))
        assert sequences(found, item) == [tokens for _, tokens in want[:n_best]]


@pytest.mark.parametrize("beam_size", [1, 2, 5])
def test_narrow_beams_keep_to_the_constraint(beam_size):
    offsets = [item % 2 for item in range(12)]
    found = beam_search(
        Table(range(12)),
        n_items=12,
        beam_size=beam_size,
        max_length=6,
        stop=STOP,
        allowed=EvenSum(offsets),
    )
    is_found = found.totals[:, 0] > -torch.inf
    assert is_found.float().mean() > 0.5
    for item in torch.nonzero(is_found).flatten().tolist():
        assert is_allowed(sequences(found, item)[0], offsets[item])


@pytest.mark.parametrize("beam_size", [1, 3])
def test_no_way_out_gives_an_empty_result(beam_size):
    class Nothing(EvenSum):
        def mask(self, state):
            allowed = super().mask(state)
            allowed[..., STOP] = state[0] < 1000  # items that start higher never end
            return allowed

    found = beam_search(
        Table([0, 1]),
        n_items=2,
        beam_size=beam_size,
        max_length=3,
        stop=STOP,
        allowed=Nothing([0, 1000]),
    )
    assert found.totals[0, 0] > -torch.inf
    assert found.totals[1, 0] == -torch.inf
    assert found.lengths[1, 0] == 0
    assert (found.tokens[1] == STOP).all() and (found.log_probs[1] == 0).all()


@given(seed=st.integers(0, 10_000), beam_size=st.integers(1, 6))
def test_a_total_is_never_above_the_best(seed, beam_size):
    table = Table([seed], scale=1.0)
    found = beam_search(table, n_items=1, beam_size=beam_size, max_length=3, stop=STOP)
    assert float(found.totals) <= exhaustive(table, seed, 3)[0][0] + 1e-12


@pytest.mark.parametrize("beam_size", [1, 3])
def test_types_follow_the_network(beam_size):
    for dtype in (torch.float32, torch.float64):
        table = Table([0, 1], dtype=dtype)
        found = beam_search(
            table, n_items=2, beam_size=beam_size, max_length=3, stop=STOP
        )
        assert found.log_probs.dtype == found.totals.dtype == dtype
        assert not found.totals.requires_grad


@pytest.mark.parametrize("beam_size", [1, 2])
def test_nan_is_refused(beam_size):
    class Broken(Table):
        def log_probs(self, seed, prefix):
            return torch.full((4,), math.nan, dtype=torch.float64)

    with pytest.raises(NumericalError, match="NaN"):
        beam_search(Broken([0]), n_items=1, beam_size=beam_size, max_length=3, stop=0)


@pytest.mark.parametrize(
    "change",
    [dict(n_items=0), dict(beam_size=0), dict(max_length=0), dict(n_best=3)],
)
def test_sizes_are_checked(change):
    settings = dict(n_items=1, beam_size=2, max_length=3, stop=STOP) | change
    with pytest.raises(InputError, match="at least 1"):
        beam_search(Table([0]), **settings)


def test_a_stop_outside_the_vocabulary_is_refused():
    with pytest.raises(InputError, match="scores 4 tokens"):
        beam_search(Table([0]), n_items=1, beam_size=2, max_length=3, stop=4)


def test_global_state_stays(no_global_side_effects):
    with no_global_side_effects():
        beam_search(Table([0, 1]), n_items=2, beam_size=2, max_length=3, stop=STOP)
