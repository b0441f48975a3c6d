"""Key/value caches: cached decoding equals the full forward pass."""

import math
from functools import partial

import pytest
import torch
from torch import nn

from sciseq.decoding.beam_search import beam_search
from sciseq.decoding.kv_cache import CrossAttentionCache, SelfAttentionCache
from sciseq.errors import InputError
from sciseq.nn import build_network
from sciseq.nn.decoder import DecoderLayer, KeysAndValues

STOP, D_MODEL, HEADS, LAYERS = 5, 16, 2, 3


class Toy(nn.Module):
    """A small transformer decoder; row 0 of the embedding starts a sequence."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(STOP + 1, D_MODEL)
        self.positions = nn.Embedding(32, D_MODEL)
        self.layers = nn.ModuleList(
            DecoderLayer(D_MODEL, HEADS, 32, 0.0) for _ in range(LAYERS)
        )
        self.head = nn.Linear(D_MODEL, STOP + 1)

    def initialize_parameters(self, generator):
        for one in (self.embedding, self.positions):
            nn.init.normal_(one.weight, generator=generator)

    def embed(self, tokens, first):
        places = torch.arange(first, first + tokens.shape[-1])
        return self.embedding(tokens) + self.positions(places)

    def log_probs(self, x):
        scores = 4 * self.head(x)
        scores[..., STOP] -= 3.0  # for sequences of some length
        return scores.log_softmax(-1)


class Uncached:
    """Runs all tokens of every beam at every step, with the memory copied per beam."""

    def __init__(self, toy, memory, is_token):
        self.toy, self.memory, self.is_token = toy, memory, is_token

    def start(self, n_items, n_beams, max_length):
        self.items = torch.arange(n_items)

    def step(self, tokens):
        n_items, n_beams, length = tokens.shape
        shifted = nn.functional.pad(tokens + 1, (1, 0)).flatten(0, 1)
        x = self.toy.embed(shifted, 0)
        causal = torch.ones(length + 1, length + 1, dtype=torch.bool).tril()
        memory = self.memory[self.items].repeat_interleave(n_beams, dim=0)
        is_token = self.is_token[self.items].repeat_interleave(n_beams, dim=0)
        for layer in self.toy.layers:
            read = layer.cross_attention.project(memory)
            x = layer(x, read, causal, is_token[:, None, None])
        return self.toy.log_probs(x[:, -1]).unflatten(0, (n_items, n_beams))

    def reorder(self, parents):
        pass

    def keep(self, items):
        self.items = self.items[items]


class Cached:
    """Runs the newest token only."""

    def __init__(self, toy, memory, is_token):
        self.toy, self.memory, self.is_token = toy, memory, is_token

    def start(self, n_items, n_beams, max_length):
        self.cross = CrossAttentionCache(
            [one.cross_attention.project(self.memory) for one in self.toy.layers],
            self.is_token,
        )
        self.own = SelfAttentionCache(
            LAYERS,
            n_items,
            n_beams,
            HEADS,
            max_length=max_length + 1,
            width=D_MODEL // HEADS,
            dtype=self.memory.dtype,
        )

    def step(self, tokens):
        newest = torch.zeros(*tokens.shape[:2], 1, dtype=torch.int64)
        if tokens.shape[2]:
            newest = tokens[..., -1:] + 1
        x = self.toy.embed(newest, tokens.shape[2]).squeeze(2)  # (item, beam, d_model)
        for number, layer in enumerate(self.toy.layers):
            x = layer.step(
                x, partial(self.own.attend, number), partial(self.cross.attend, number)
            )
        return self.toy.log_probs(x)

    def reorder(self, parents):
        self.own.reorder(parents)

    def keep(self, items):
        self.own.keep(items)
        self.cross.keep(items)


class Unordered(Cached):
    def reorder(self, parents):
        pass


class Unmasked(Cached):
    def start(self, n_items, n_beams, max_length):
        self.is_token = torch.ones_like(self.is_token)
        super().start(n_items, n_beams, max_length)


class Undropped(Cached):
    def keep(self, items):
        first = torch.arange(len(items))
        self.own.keep(first)
        self.cross.keep(first)


def setting(n_items, dtype=torch.float64, seed=0):
    toy = build_network(Toy, torch.Generator().manual_seed(seed)).to(dtype).eval()
    generator = torch.Generator().manual_seed(seed + 1)
    memory = torch.randn(n_items, 7, D_MODEL, generator=generator, dtype=torch.float64)
    lengths = torch.randint(2, 8, (n_items,), generator=generator)
    return toy, 3 * memory.to(dtype), torch.arange(7) < lengths[:, None]


def search(decoder, n_items, beam_size, max_length=9, n_best=1):
    return beam_search(
        decoder,
        n_items=n_items,
        beam_size=beam_size,
        max_length=max_length,
        stop=STOP,
        n_best=n_best,
    )


@pytest.mark.parametrize(
    ("dtype", "atol"), [(torch.float32, 1e-5), (torch.float64, 1e-12)]
)
@pytest.mark.parametrize(("beam_size", "n_best"), [(1, 1), (4, 3)])
def test_cached_equals_uncached(dtype, atol, beam_size, n_best):
    parts = setting(10, dtype)
    cached = search(Cached(*parts), 10, beam_size, n_best=n_best)
    full = search(Uncached(*parts), 10, beam_size, n_best=n_best)
    assert torch.equal(cached.tokens, full.tokens)
    torch.testing.assert_close(cached.log_probs, full.log_probs, rtol=0, atol=atol)
    assert len(set(cached.lengths.flatten().tolist())) > 2


@pytest.mark.parametrize("wrong", [Unordered, Unmasked, Undropped])
def test_wrong_caches_are_caught(wrong):
    parts = setting(10)
    full = search(Uncached(*parts), 10, 4)
    off = search(wrong(*parts), 10, 4)
    assert (off.totals - full.totals).abs().max() > 1e-3


def test_an_item_does_not_depend_on_its_batch():
    toy, memory, is_token = setting(6)
    together = search(Cached(toy, memory, is_token), 6, 3)
    for item in range(6):
        # Without its own padding, too.
        length = int(is_token[item].sum())
        part = memory[item : item + 1, :length], is_token[item : item + 1, :length]
        alone = search(Cached(toy, *part), 1, 3)
        assert torch.equal(alone.tokens[0], together.tokens[item])
        torch.testing.assert_close(
            alone.log_probs[0], together.log_probs[item], rtol=0, atol=1e-12
        )


def normal(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def read_by_hand(query, keys, values):
    """One query (width,) reads keys (token, width)."""
    weights = (keys @ query / math.sqrt(len(query))).softmax(0)
    return weights @ values


def test_cross_attention_one_by_one():
    keys, values, query = (
        normal(2, 3, 5, 4),
        normal(2, 3, 5, 4, seed=1),
        normal(2, 6, 3, 4),
    )
    is_token = torch.tensor([[True] * 5, [True] * 2 + [False] * 3])
    cache = CrossAttentionCache([KeysAndValues(keys, values)], is_token)
    got = cache.attend(0, query)
    for item, n_tokens in enumerate((5, 2)):
        for beam in range(6):
            for head in range(3):
                want = read_by_hand(
                    query[item, beam, head],
                    keys[item, head, :n_tokens],
                    values[item, head, :n_tokens],
                )
                torch.testing.assert_close(got[item, beam, head], want)


def filled_cache(n_tokens=3):
    """A cache of 3 items and 4 beams; its keys (token, item, beam, head, width)."""
    cache = SelfAttentionCache(2, 3, 4, 2, max_length=6, width=5, dtype=torch.float64)
    keys = normal(n_tokens, 3, 4, 2, 5)
    for key in keys:
        for layer in range(2):
            cache.append(layer, (layer + 1) * key, -key)
    return cache, keys


def test_keys_follow_their_beams():
    cache, keys = filled_cache()
    parents = torch.tensor([[0, 0, 3, 1], [3, 2, 1, 0], [0, 1, 2, 3]])
    cache.reorder(parents)
    new = normal(3, 4, 2, 5, seed=1)
    for layer in range(2):
        got = cache.append(layer, new, new)
        for item in range(3):
            for beam, parent in enumerate(parents[item].tolist()):
                row = item * 4 + beam
                want = (layer + 1) * keys[:, item, parent].transpose(0, 1)
                assert torch.equal(got.keys[row, :, :3], want)
                assert torch.equal(
                    got.values[row, :, :3], -keys[:, item, parent].transpose(0, 1)
                )
                assert torch.equal(got.keys[row, :, 3], new[item, beam])
    assert cache.length == 4


def test_items_are_dropped_with_their_memory():
    cache, keys = filled_cache()
    cache.keep(torch.tensor([2, 0]))
    assert cache.n_items == 2
    new = normal(2, 4, 2, 5, seed=1)
    got = cache.append(0, new, new)
    assert got.keys.shape == (8, 2, 4, 5)
    want = keys[:, [2, 0]].permute(1, 2, 3, 0, 4).flatten(0, 1)
    assert torch.equal(got.keys[:, :, :3], want)
    assert got.keys.untyped_storage().nbytes() == 2 * 8 * 2 * 6 * 5 * 8


def test_appending_copies_nothing():
    cache, _ = filled_cache()
    new = normal(3, 4, 2, 5, seed=1)
    first = cache.append(0, new, new).keys.data_ptr()
    assert cache.append(0, new, new).keys.data_ptr() == first


def test_beams_share_the_memory_of_their_item():
    keys, values = normal(2, 3, 5, 4), normal(2, 3, 5, 4, seed=1)
    cache = CrossAttentionCache([KeysAndValues(keys, values)])
    assert torch.equal(cache.memory(0).keys, keys)
    held = cache.memory(0).keys.data_ptr(), values.data_ptr()
    for beams in (1, 40):
        cache.attend(0, normal(2, beams, 3, 4))
        assert tuple(one.data_ptr() for one in cache.memory(0)) == held


def test_a_full_cache_says_so():
    cache, _ = filled_cache(6)
    with pytest.raises(InputError, match="token 7"):
        cache.append(0, normal(3, 4, 2, 5), normal(3, 4, 2, 5))
    cache, _ = filled_cache(1)
    with pytest.raises(InputError, match=r"\(3, 5, 2, 5\)"):
        cache.append(0, normal(3, 5, 2, 5), normal(3, 5, 2, 5))


def test_sizes_are_checked():
    with pytest.raises(InputError, match="at least 1"):
        SelfAttentionCache(1, 0, 1, 1, max_length=1, width=1)
    layer = KeysAndValues(normal(2, 3, 5, 4), normal(2, 3, 6, 4))
    with pytest.raises(InputError, match="one shape"):
        CrossAttentionCache([layer])
    with pytest.raises(InputError, match="is_token"):
        CrossAttentionCache(
            [KeysAndValues(normal(2, 3, 5, 4), normal(2, 3, 5, 4))],
            torch.ones(2, 6, dtype=torch.bool),
        )
