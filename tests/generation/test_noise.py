"""Noise from counters: its law, its independence of the batch, the open interval."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from sciseq.errors import InputError, InputTypeError
from sciseq.generation.parts import noise
from sciseq.generation.parts.noise import gumbel, uniform

WORD = 2**64 - 1
INT64 = st.integers(-(2**63), 2**63 - 1)
N = 256


def finalised(word):
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & WORD
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & WORD
    return word ^ (word >> 31)


def reference(seed, *counters):
    """The docstring's equation in Python's integers."""
    g = 0x9E3779B97F4A7C15
    state = finalised((seed + g) & WORD)
    for counter in counters:
        state = finalised((state + counter + g) & WORD)
    word = finalised((finalised(state) + g) & WORD)
    return ((word >> 12) + 0.5) / 2**52


def grid(law=uniform, seed_step=1, counter_step=1):
    seeds = torch.arange(N) * seed_step - 5
    return law(seeds, torch.arange(N).unsqueeze(0) * counter_step)


def added(seeds, counters):
    """Wrong: the keys are added before they are mixed."""
    return noise._to_unit(noise._finalise(seeds.unsqueeze(1) + counters))


def unmixed(seeds, counters):
    """Wrong: one multiplication, no finaliser."""
    word = (seeds.unsqueeze(1) * 3 + counters) * noise.INCREMENT
    return noise._to_unit(word)


# --- The hash ------------------------------------------------------------------------


def test_finaliser_gives_the_published_numbers_of_splitmix64():
    state = torch.arange(1, 4) * noise.INCREMENT + 1234567
    words = [word & WORD for word in noise._finalise(state).tolist()]
    assert words == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@given(seed=INT64, counters=st.lists(INT64, max_size=3))
def test_equals_the_equation_in_integers_of_any_size(seed, counters):
    keys = [torch.tensor([counter]) for counter in counters]
    value = uniform(torch.tensor([seed]), *keys)
    assert value.dtype == torch.float64
    assert value.tolist() == [reference(seed, *counters)]


def test_a_shift_that_repeats_the_sign_is_caught(monkeypatch):
    monkeypatch.setattr(noise, "_shift_right", lambda word, n: word >> n)
    values = [float(uniform(torch.tensor([seed]), 0)) for seed in range(8)]
    assert values != [reference(seed, 0) for seed in range(8)]
    assert float(noise._to_unit(torch.tensor(-1))) < 0


def test_order_and_number_of_counters_matter():
    seed = torch.tensor([3])
    keys = [(), (0,), (0, 0), (1, 2), (2, 1), (1,), (2,)]
    assert len({float(uniform(seed, *one)) for one in keys}) == len(keys)


def test_ints_are_counters_like_tensors():
    seeds = torch.tensor([1, 2])
    for counter in (0, -1, 2**63 - 1, -(2**63)):
        same = uniform(seeds, torch.tensor([counter]))
        assert torch.equal(uniform(seeds, counter), same)


# --- The law -------------------------------------------------------------------------


@pytest.mark.parametrize("seed_step", [1, 2**20, 2**40 + 1])
@pytest.mark.parametrize("counter_step", [1, 2**32, 2**55])
def test_uniform_over_bins(seed_step, counter_step):
    values = grid(seed_step=seed_step, counter_step=counter_step)
    counts = torch.histc(values, 256, 0, 1).numpy()
    assert 1e-4 < stats.chisquare(counts).pvalue < 1 - 1e-4
    # The last bits that are kept are random as well.
    low = torch.histc(values * 2**40 % 1, 256, 0, 1).numpy()
    assert 1e-4 < stats.chisquare(low).pvalue < 1 - 1e-4


def pair_p_value(first, second, n_bins=16):
    first, second = ((one.flatten() * n_bins).long() for one in (first, second))
    counts = torch.bincount(first * n_bins + second, minlength=n_bins**2)
    return stats.chisquare(counts.numpy()).pvalue


def neighbours(values):
    yield values[:, :-1], values[:, 1:]  # counters
    yield values[:-1], values[1:]  # seeds
    yield values[1:, :-1], values[:-1, 1:]  # the same sum of seed and counter
    yield values[:-1, :-1], values[1:, 1:]


def is_independent(values):
    for first, second in neighbours(values):
        r = np.corrcoef(first.flatten(), second.flatten())[0, 1]
        p_value = pair_p_value(first, second)
        if abs(r) > 4 / math.sqrt(first.numel()) or not 1e-4 < p_value < 1 - 1e-4:
            return False
    return values.unique().numel() == values.numel()


def test_neighbouring_counters_and_seeds_are_independent():
    assert is_independent(grid())
    assert is_independent(grid(counter_step=2**40))
    assert is_independent(grid(seed_step=2**40))


def test_keys_that_are_added_or_unmixed_are_caught():
    assert not is_independent(grid(law=added))
    assert not is_independent(grid(law=unmixed))


def flip_rates(flip_seed):
    """How often each bit of the number changes with each bit of a key (key, bit)."""
    n = 2000
    generator = torch.Generator().manual_seed(0)
    words = torch.randint(-(2**62), 2**62, (2, n), generator=generator)
    flips = torch.tensor([noise._signed(1 << bit) for bit in range(64)]).unsqueeze(1)
    seeds, counters = words[0].repeat(64), words[1].repeat(64)
    flipped = (words[0] ^ flips, words[1] ^ flips)
    before = uniform(seeds, counters)
    if flip_seed:
        after = uniform(flipped[0].flatten(), counters)
    else:
        after = uniform(seeds, flipped[1].flatten())
    changed = (before * 2**52).long() ^ (after * 2**52).long()
    bits = (changed.unsqueeze(1) >> torch.arange(52)) & 1
    return bits.reshape(64, n, 52).double().mean(dim=1)


@pytest.mark.parametrize("flip_seed", [True, False], ids=["seed", "counter"])
def test_avalanche(flip_seed):
    # 64 * 52 rates with a standard deviation of 0.0112 each.
    assert (flip_rates(flip_seed) - 0.5).abs().max() < 5 * 0.5 / math.sqrt(2000)


def test_avalanche_misses_with_one_finaliser_step(monkeypatch):
    monkeypatch.setattr(noise, "_finalise", lambda word: word * noise.MULTIPLIERS[0])
    assert (flip_rates(False) - 0.5).abs().max() > 0.4


def test_gumbel_has_its_moments():
    values = gumbel(torch.arange(400), torch.arange(400).unsqueeze(0)).flatten()
    assert stats.kstest(values.numpy(), "gumbel_r").pvalue > 1e-4
    assert float(values.mean()) == pytest.approx(np.euler_gamma, abs=0.02)
    assert float(values.var()) == pytest.approx(math.pi**2 / 6, abs=0.05)


def test_largest_of_gumbel_and_log_p_has_the_law_p():
    p = torch.tensor([0.5, 0.3, 0.15, 0.05], dtype=torch.float64)
    noises = gumbel(torch.arange(20_000), 0, torch.arange(4).unsqueeze(0))
    counts = (p.log() + noises).argmax(dim=1).bincount(minlength=4).numpy()
    assert stats.chisquare(counts, 20_000 * p.numpy()).pvalue > 1e-4


# --- The open interval ---------------------------------------------------------------


def test_extreme_bits_stay_inside_the_open_interval():
    extremes = noise._to_unit(torch.tensor([0, -1]))
    assert extremes.tolist() == [2.0**-53, 1 - 2.0**-53]
    assert torch.isfinite(-torch.log(-torch.log(extremes))).all()


def test_one_more_bit_would_reach_one(monkeypatch):
    monkeypatch.setattr(noise, "N_BITS", 53)
    assert float(noise._to_unit(torch.tensor(-1))) == 1


# --- Batches -------------------------------------------------------------------------


@given(
    seeds=st.lists(INT64, min_size=1, max_size=6),
    steps=st.data(),
    order=st.randoms(use_true_random=False),
)
def test_a_value_depends_on_its_own_keys_only(seeds, steps, order):
    n = len(seeds)
    step = torch.tensor(steps.draw(st.lists(INT64, min_size=n, max_size=n)))
    positions = torch.arange(5).unsqueeze(0)
    together = uniform(torch.tensor(seeds), step.unsqueeze(1), positions)
    rows = list(range(n))
    order.shuffle(rows)
    for row in rows:
        alone = uniform(torch.tensor(seeds[row : row + 1]), step[row], positions[:, 2:])
        assert torch.equal(alone[0], together[row, 2:])


def test_seeds_are_rows_whatever_the_axes_of_the_counters():
    seeds = torch.tensor([4, 9])
    tokens, words = torch.arange(3), torch.arange(4)
    values = uniform(seeds, 1, tokens.reshape(1, 3, 1), words.reshape(1, 1, 4))
    assert values.shape == (2, 3, 4)
    assert float(values[1, 2, 3]) == reference(9, 1, 2, 3)
    same = uniform(seeds.reshape(2, 1, 1), 1, tokens.reshape(3, 1), words)
    assert torch.equal(same, values)
    assert uniform(seeds).shape == (2,)
    assert uniform(seeds[:0], tokens.reshape(1, 3)).shape == (0, 3)


@pytest.mark.parametrize("shape", [(3,), (3, 1), (3, 4)])
@pytest.mark.parametrize("batch", [1, 2])
def test_counters_that_are_no_rows_are_refused(batch, shape):
    with pytest.raises(InputError, match="first axis"):
        uniform(torch.zeros(batch, dtype=torch.int64), torch.zeros(shape).long())


def test_keys_of_other_types_are_refused():
    with pytest.raises(InputTypeError, match=r"torch\.int32"):
        uniform(torch.zeros(1, dtype=torch.int32))
    with pytest.raises(InputTypeError, match="float32"):
        uniform(torch.zeros(1, dtype=torch.int64), torch.zeros(1))
    with pytest.raises(InputError, match="one per request"):
        uniform(torch.tensor(3))


@pytest.mark.gpu
def test_devices_give_the_same_numbers():
    seeds = torch.arange(-50, 50)
    positions = torch.arange(70).unsqueeze(0)
    there = uniform(seeds.cuda(), 3, positions.cuda()).cpu()
    assert torch.equal(there, uniform(seeds, 3, positions))
