"""T06: what is cached equals what would be computed anew, whatever the decoder."""

import pytest
import torch
from sequence_toys import conditions, request, run, steps, tiny_network

from sciseq.generation.parts.block_decoder import BlockDecoder
from sciseq.generation.parts.cache import KeyValueCache
from sciseq.generation.parts.drawing import Drawing
from sciseq.generation.parts.layout import NOTHING, Layout
from sciseq.generation.parts.masks import causal, two_copy
from sciseq.generation.parts.reveal import Reveal
from sciseq.generation.sequences.autoregressive import AutoregressiveDecoder
from sciseq.generation.sequences.draft_verify import DraftVerifyDecoder

LENGTH = 7
RULE = two_copy(clean="block")
DECODERS = {
    "append": lambda: AutoregressiveDecoder(Drawing()),
    "block": lambda: BlockDecoder(Drawing(), Reveal(), RULE, 3),
    "shifted block": lambda: BlockDecoder(
        Drawing(), Reveal(), two_copy(clean="causal"), 3, is_shifted=True
    ),
    "draft": lambda: DraftVerifyDecoder(Drawing(), 3),
}
# Requests of one batch are at different places from the start.
ROWS = [
    [-1] * LENGTH,
    [0, 1, 2, 1, -1, -1, -1],
    [-1, 2, -1, -1, 0, -1, 1],
    [2] + [-1] * 6,
]


def stand_alone(network, decoder, tokens, layout, condition, seen):
    """Scores of one request's rows, from its whole prefix without a cache."""
    size = getattr(decoder, "block_size", 1)
    clean = Layout.of(seen, block=size)
    x, before = network.prefix(1, condition)
    parts = [x, network.embed(tokens[0], clean), network.embed(tokens[1], layout)]
    rows = before.followed_by(clean).followed_by(layout)
    states = network(torch.cat(parts, dim=1), rows, decoder.rule)
    return network.scores(states[:, -layout.n_rows :])


def worst(network, decoder, requests, at_least):
    """Largest difference from stand-alone passes, over all passes and rows.

    There must be so many rows at least.
    """
    found, n_compared = [], 0
    for rows, scores, tokens, _ in steps(network, decoder, requests):
        is_row = rows.layout.segment.expand(len(tokens), -1) != NOTHING
        for i in range(len(tokens)):
            mine = is_row[i].nonzero().flatten()[None]
            layout = rows.layout.expand(len(tokens)).requests(torch.tensor([i]))
            layout = layout.take(mine)
            first = int(layout.position.min())  # all before is stored
            told = requests.condition and requests.condition.take(torch.tensor([i]))
            symbols = (tokens[i : i + 1, :first], rows.tokens[i : i + 1, mine[0]])
            alone = stand_alone(network, decoder, symbols, layout, told, first)
            found.append((alone - scores[i : i + 1, mine[0]]).abs().max())
            n_compared += mine.shape[1]
    assert n_compared >= at_least
    return max(float(one) for one in found)


@pytest.mark.parametrize("n_layers", [1, 3])
@pytest.mark.parametrize("name", DECODERS)
def test_cached_is_uncached_at_any_depth(name, n_layers):
    network = tiny_network(3, LENGTH, n_layers=n_layers, n_features=2, seed=3)
    condition = conditions(len(ROWS), n_rows=2)
    condition.is_row[1, 1] = False  # a condition of one row, padded
    requests = request(ROWS, network.mask, condition=condition)
    # All tokens before the last gap are read once; other decoders compute more.
    n_rows = 6 + 6 + 5 + 6
    assert worst(network, DECODERS[name](), requests, n_rows) < 1e-12


class Forgetful(AutoregressiveDecoder):
    """Wrong: the first token is not kept."""

    def commit(self, requests, rows, scores):
        super().commit(requests, rows, scores)
        is_first = torch.arange(requests.n_positions) == 0
        requests.cache.forget(is_first.expand(len(requests), -1))


class Displaced(AutoregressiveDecoder):
    """Wrong: what is stored last is the begin once more, not the token."""

    def commit(self, requests, rows, scores):
        super().commit(requests, rows, scores)
        for room in requests.cache._rooms:
            room[:, :, :, int(requests.memory["at"].min())] = room[:, :, :, 0]


@pytest.mark.parametrize("cls", [Forgetful, Displaced])
def test_what_is_appended_wrongly_is_seen(cls):
    network = tiny_network(3, LENGTH, seed=3)
    requests = request([[-1] * LENGTH] * 2, network.mask)
    assert worst(network, cls(Drawing()), requests, 2 * (LENGTH - 1)) > 1e-3


def test_what_is_stored_too_early_is_seen():
    """The wrong version: a block is stored while it is still noisy."""

    class Early(BlockDecoder):
        def commit(self, requests, rows, scores):
            super().commit(requests, rows, scores)
            start = requests.memory["start"]
            if not bool((rows.layout.copy == 1).any()):
                requests.cache.store(rows.layout.segment != NOTHING)
                full = requests.is_filled[:, :3].all(dim=1)
                requests.memory["start"] = start.where(~full, start.clamp_min(3))

    network = tiny_network(3, LENGTH, seed=3)
    requests = request([[-1] * LENGTH] * 2, network.mask)
    early = Early(Drawing(), Reveal(), RULE, 3)
    assert worst(network, early, requests, 2 * LENGTH) > 1e-3


@pytest.mark.parametrize("name", DECODERS)
def test_other_requests_change_nothing(name):
    network = tiny_network(3, LENGTH, seed=3)
    seeds = torch.tensor([5, 6, 7, 8])
    together, work = run(network, DECODERS[name](), ROWS, seeds=seeds)
    for i, row in enumerate(ROWS):
        alone, its_work = run(network, DECODERS[name](), [row], seeds=seeds[i : i + 1])
        assert alone[0].equal(together[i])
        for name_of, value in vars(its_work).items():
            assert int(value[0]) == int(getattr(work, name_of)[i]), name_of


def rows(n, value, n_batch=1):
    return torch.full((n_batch, 2, n, 4), float(value))


def test_each_request_stores_where_it_is():
    cache = KeyValueCache(n_prefix=1, n_positions=4)
    cache.begin(Layout.of(1, start=-1))
    cache.read(0, rows(1, 9, 2), rows(1, 9, 2))
    cache.store()
    layout = Layout.at(torch.tensor([[0, 1], [0, 1]]))
    cache.begin(layout)
    cache.read(0, rows(2, 1, 2), rows(2, 1, 2))
    cache.store(torch.tensor([[True, False], [True, True]]))
    assert cache.is_stored.tolist() == [[True, False, False, False],
                                        [True, True, False, False]]  # fmt: skip
    # The first goes on at 1, the second at 2.
    keys = cache.begin(Layout.at(torch.tensor([[1], [2]])))
    assert cache.n_read.tolist() == [2, 3]
    assert (keys.segment != NOTHING).sum(dim=1).tolist() == [3, 4]
    new = torch.stack([rows(1, 3)[0], rows(1, 4)[0]])
    key, _ = cache.read(0, new, new)
    assert key[:, 0, -1, 0].tolist() == [3, 4]
    cache.store()
    cache.begin(Layout.at(torch.tensor([[2], [3]])))
    key, _ = cache.read(0, rows(1, 5, 2), rows(1, 5, 2))
    stored = cache.layout.segment[:, : key.shape[2] - 1] != NOTHING
    values = [
        one[0, :-1, 0][keep].tolist() for one, keep in zip(key, stored, strict=True)
    ]
    assert values == [[9, 1, 3], [9, 1, 1, 4]]


def test_a_row_that_is_computed_anew_replaces_the_stored_one():
    cache = KeyValueCache(n_prefix=0, n_positions=3)
    cache.begin(Layout.of(3))
    cache.read(0, rows(3, 1), rows(3, 1))
    cache.store()
    keys = cache.begin(Layout.at(torch.tensor([[1]])))
    assert keys.segment.tolist() == [[0, NOTHING, 0, 0]]
    assert cache.n_read.tolist() == [2]
    cache.read(0, rows(1, 2), rows(1, 2))
    cache.store()
    cache.begin(Layout.at(torch.tensor([[0]])))
    key, _ = cache.read(0, rows(1, 3), rows(1, 3))
    assert key[0, 0, :, 0].tolist() == [1, 2, 1, 3]


def test_padding_hides_nothing():
    """Padding stands anywhere, also at a stored position or behind the last one."""
    for position in (0, 2, 3, 8):
        cache = KeyValueCache(n_prefix=0, n_positions=4)
        cache.begin(Layout.of(3))
        cache.read(0, rows(3, 1), rows(3, 1))
        cache.store()
        is_row = torch.tensor([[True, False]])
        cache.begin(Layout.at(torch.tensor([[1, position]]), is_row=is_row))
        assert cache.n_read.tolist() == [2]


def test_one_layout_for_all_hides_the_rows_of_all():
    cache = KeyValueCache(n_prefix=0, n_positions=3)
    cache.begin(Layout.of(3).expand(2))
    cache.read(0, rows(3, 1, 2), rows(3, 1, 2))
    cache.store()
    cache.begin(Layout.of(1, start=1))
    assert cache.n_read.tolist() == [2, 2]


def test_forgotten_positions_are_not_read():
    cache = KeyValueCache(n_prefix=1, n_positions=3)
    cache.begin(Layout.of(4, start=-1))
    cache.read(0, rows(4, 1), rows(4, 1))
    cache.store()
    cache.forget(torch.tensor([[False, True, True]]))
    assert cache.is_stored.tolist() == [[True, False, False]]
    cache.begin(Layout.of(1, start=1))
    assert cache.n_read.tolist() == [2]  # the prefix and position 0


def test_kept_requests_take_their_rows_along():
    cache = KeyValueCache(n_prefix=0, n_positions=2)
    cache.begin(Layout.of(1).expand(3))
    cache.read(0, *2 * [torch.arange(3.0).view(3, 1, 1, 1).expand(3, 2, 1, 4)])
    cache.store(torch.tensor([[True], [False], [True]]))
    cache.keep(torch.tensor([2, 1]))
    assert cache.is_stored.tolist() == [[True, False], [False, False]]
    cache.begin(Layout.of(1, start=1).expand(2))
    key, _ = cache.read(0, rows(1, 7, 2), rows(1, 7, 2))
    assert key[0, 0, :, 0].tolist() == [2, 7]


def test_a_causal_pass_may_be_split_anywhere():
    network = tiny_network(3, 6, n_layers=3)
    tokens = torch.tensor([[0, 2, 1, 1, 0, 2]])
    layout = Layout.of(6)
    with torch.no_grad():
        whole = network(network.embed(tokens, layout), layout, causal)
        for cut in range(1, 6):
            cache = KeyValueCache(0, 6)
            parts = []
            for first, end in ((0, cut), (cut, 6)):
                some = Layout.of(end - first, start=first)
                x = network.embed(tokens[:, first:end], some)
                parts.append(network(x, some, causal, cache))
                cache.store()
            assert torch.cat(parts, dim=1).sub(whole).abs().max() < 1e-12
