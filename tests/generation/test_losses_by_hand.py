"""What each estimator's training minimises, as a sum over passes of single blocks.

Every test also has the losses that a forgotten parameter would give: they are others.
"""

from functools import partial

import pytest
import torch
from sequence_toys import fitted, tiny_network

from sciseq.generation.parts.batches import SequenceBatch
from sciseq.generation.parts.layout import Layout
from sciseq.generation.parts.masks import block_causal, full
from sciseq.generation.sequences.autoregressive import (
    AutoregressiveSequence,
    next_token_scores,
)
from sciseq.generation.sequences.block_diffusion import (
    BlockDiffusionSequence,
    one_level,
)
from sciseq.generation.sequences.conditional_diffusion import (
    ConditionalDiffusionSequence,
)
from sciseq.generation.sequences.delayed_cache import DelayedCacheDiffusion
from sciseq.generation.sequences.draft_verify import DraftVerifySequence
from sciseq.generation.sequences.efficient_block import (
    EfficientBlockDiffusion,
    late_tokens,
)
from sciseq.generation.sequences.energy_diffusion import EnergyDiffusionSequence
from sciseq.generation.sequences.mask_enhanced import MaskEnhancedAutoregressor
from sciseq.generation.sequences.masked_diffusion import MaskedDiffusionSequence
from sciseq.generation.sequences.next_block import NextBlockSequence
from sciseq.generation.sequences.reordered_causal import (
    ReorderedCausalDiffusion,
    known_before_hidden,
)

LENGTH, END, LEAST = 7, 2, 1e-3
NETWORK = tiny_network(3, LENGTH)
# The second sequence has four letters, the third one, the last none.
TOKENS = torch.tensor([
    [0, 1, 1, 0, 1, 0, 0],
    [1, 0, 0, 1, END, END, END],
    [1, END, END, END, END, END, END],
    [END] * LENGTH,
])  # fmt: skip
BATCH = SequenceBatch(TOKENS, torch.arange(4) + 3, None)
COUNTED = (7, 5, 2, 1)  # letters and the first end


@pytest.fixture(params=[True, False], ids=["training", "validation"])
def is_training(request):
    NETWORK.train(request.param)
    yield request.param
    NETWORK.eval()


def loss_of(cls, **params):
    """The loss of an estimator in a step at a quarter of the training."""
    loss = fitted(cls, 3, LENGTH, network=NETWORK, with_ends=True, **params)._loss(4)
    loss.on_step(2, 8)
    return loss


@torch.no_grad()
def value(loss, **changes):
    """Its sum over the batch, or that of the loss with other attributes."""
    kept = {name: getattr(loss, name) for name in changes}
    vars(loss).update(changes)
    try:
        return loss(NETWORK, BATCH)
    finally:
        vars(loss).update(kept)


def check(loss, expected, count, *wrong):
    """The loss is what is expected, and the wrong ones are not."""
    total, n = value(loss)
    assert float(total) == pytest.approx(float(expected), rel=1e-11)
    assert int(n) == count
    for changes in wrong:
        other = value(loss, **changes)
        assert abs(float(other[0] / other[1] - total / n)) > 1e-4, changes


def noise(loss, n_blocks):
    """Uniform numbers of tokens and of blocks."""
    return (loss.noise(NETWORK, BATCH, i, n) for i, n in enumerate((LENGTH, n_blocks)))


def level_of(u):
    return LEAST + (1 - LEAST) * u


def starts(size):
    return [(one, min(one + size, LENGTH)) for one in range(0, LENGTH, size)]


def token_logs(states, tokens):
    logs = NETWORK.scores(states).log_softmax(-1)
    return logs.gather(-1, tokens.unsqueeze(-1)).squeeze(-1)


@torch.no_grad()
def block_logs(tokens, hidden, size, *, clean="block", shift=0):
    """Log-probabilities (position,), each block alone behind the clean past.

    The past is read by blocks, or causally. Rows say what they are, or (shift 1) what
    the next one is.
    """
    found = []
    for start, end in starts(size):
        shown = tokens[:end].clone()
        shown[start:][hidden[start:end]] = NETWORK.mask
        place = torch.arange(end)
        group = place // size * size if clean == "block" else place.clamp_max(start)
        layout = Layout.at(place[None], group=group[None])
        states = NETWORK.read(shown[None], layout, block_causal, None)[0]
        rows = states[1 + start - shift : 1 + end - shift]  # the begin stands first
        found.append(token_logs(rows, tokens[start:end]))
    return torch.cat(found)


@torch.no_grad()
def next_token_loss(shown=TOKENS, counted=COUNTED):
    """Sum over tokens up to the first end, each from what is shown before it."""
    scores = next_token_scores(NETWORK, shown, None).log_softmax(-1)
    logs = scores.gather(2, TOKENS.unsqueeze(2)).squeeze(2)
    return -sum(logs[row, :n].sum() for row, n in enumerate(counted))


def always_one(size):
    """Wrong: blocks of one token, but in validation."""
    return lambda progress: size if progress == 1 else 1


def unweighted(corrupt):
    return lambda *args: corrupt(*args)._replace(weight=torch.ones(4, 1).double())


# --- Two copies -----------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0.5, 3.0])
def test_draft_and_verify(is_training, alpha):
    size = 3
    loss = loss_of(DraftVerifySequence, n_drafts=size, autoregressive_weight=alpha)
    everything = torch.ones(LENGTH, dtype=torch.bool)
    drafted = -sum(
        block_logs(row, everything, size, clean="causal").sum() for row in TOKENS
    )
    expected = (drafted + alpha * next_token_loss()) / (1 + alpha)
    wrong = [{"noisy_weight": 0.0}, {"noisy_weight": 1.0}, {"end": None},
             {"clean_weight": alpha}, {"block_size": lambda progress: 1}]  # fmt: skip
    if is_training:
        wrong.append({"block_size": always_one(size)})
    check(loss, expected, TOKENS.numel(), *wrong)


def test_block_diffusion(is_training):
    size = 3
    loss = loss_of(BlockDiffusionSequence, block_size=size)
    u, u_block = noise(loss, 3)
    level, expected = level_of(u_block[:, 0]), 0.0  # one for a sequence
    for row, p in enumerate(level):
        hidden = u[row] < p
        expected = expected - block_logs(TOKENS[row], hidden, size)[hidden].sum() / p
    wrong = [{"corrupt": unweighted(one_level)}, {"block_size": lambda progress: 1}]
    if is_training:
        wrong.append({"block_size": always_one(size)})
    check(loss, expected, TOKENS.numel(), *wrong)


@pytest.mark.parametrize("half_life", [0.1, 2.0])
def test_block_diffusion_that_hides_late_tokens(is_training, half_life):
    size = 3
    loss = loss_of(EfficientBlockDiffusion, block_size=size, half_life=half_life)
    u, u_block = noise(loss, 3)
    share, expected = level_of(u_block), 0.0
    beta = torch.tensor(2.0).double().log() / (half_life * size)
    for row, tokens in enumerate(TOKENS):
        hidden = torch.zeros(LENGTH, dtype=torch.bool)
        for block, (start, end) in enumerate(starts(size)):
            m, n = float(share[row, block]), end - start
            k = min(n, max(1, int(m * n + 0.5)))
            keys = beta * (1 - m) * torch.arange(n) - (-u[row, start:end].log()).log()
            hidden[start + keys.argsort(descending=True)[:k]] = True
        logs = block_logs(tokens, hidden, size) / share[row].repeat_interleave(3)[:7]
        expected = expected - logs[hidden].sum()
    wrong = [{"corrupt": late_tokens}, {"block_size": lambda progress: 1}]
    check(loss, expected, TOKENS.numel(), *wrong)


def test_next_blocks_at_a_quarter_of_the_training(is_training):
    weight = 0.7
    loss = loss_of(NextBlockSequence, block_size=4, growth=0.5,
                   autoregressive_weight=weight)  # fmt: skip
    size = 2 if is_training else 4  # two doublings until one half
    u, u_block = noise(loss, -(-LENGTH // size))
    p = level_of(u_block).repeat_interleave(size, dim=1)[:, :LENGTH]
    expected = weight * next_token_loss()
    is_inside = torch.arange(LENGTH) % size > 0
    for row, tokens in enumerate(TOKENS):
        hidden = u[row] < p[row]
        logs = block_logs(tokens, hidden, size, clean="causal", shift=1) / p[row]
        expected = expected - logs[hidden & is_inside].sum()
    wrong = [{"clean_weight": 0.0}, {"is_shifted": False}, {"end": None},
             {"block_size": lambda progress: 3}]  # fmt: skip
    check(loss, expected, TOKENS.numel(), *wrong)


@pytest.mark.parametrize("is_scaled", [False, True])
def test_reordered_blocks(is_training, is_scaled):
    size, weight = 3, 0.7
    loss = loss_of(
        ReorderedCausalDiffusion, block_size=size, autoregressive_weight=weight,
        normalise_weights=is_scaled,
    )  # fmt: skip
    u, u_block = noise(loss, 3)
    level, expected = level_of(u_block), weight * next_token_loss()
    for row, tokens in enumerate(TOKENS):
        losses, weights = [], []
        for block, (start, end) in enumerate(starts(size)):
            n = min(end - start, max(1, int(level[row, block] * (end - start) + 0.5)))
            places = sorted(range(start, end), key=lambda i: -u[row, i])
            hidden, known = sorted(places[:n]), sorted(places[n:])
            order = [*range(start), *known, *hidden]
            shown = tokens[order].masked_fill(torch.arange(end) >= end - n, 4)
            layout = Layout.at(torch.tensor([order]), group=torch.arange(end)[None])
            with torch.no_grad():  # each row reads those that stand before it
                states = NETWORK.read(shown[None], layout, block_causal, None)[0, -n:]
                losses.append(-token_logs(states, tokens[hidden]))
            weights.append((1 / level[row, block]).expand(n))
        losses, weights = torch.cat(losses), torch.cat(weights)
        if is_scaled:
            weights = weights * LENGTH / weights.sum()
        expected = expected + (losses * weights).sum()
    other = partial(known_before_hidden, normalise_weights=not is_scaled)
    wrong = [{"corrupt": other}, {"clean_weight": 0.0}, {"end": None}]
    if is_training:
        wrong.append({"block_size": always_one(size)})
    check(loss, expected, TOKENS.numel(), *wrong)


# --- One copy -------------------------------------------------------------------------


def test_autoregression_counts_up_to_the_first_end(is_training):
    loss = loss_of(AutoregressiveSequence)
    check(loss, next_token_loss(), sum(COUNTED), {"end": None})


def test_an_autoregressive_energy_counts_all_ends(is_training):
    """They are ordinary tokens of both networks."""
    for energy in ("autoregressive", "carry_over"):
        loss = loss_of(EnergyDiffusionSequence, energy=energy)
        expected = next_token_loss(counted=[LENGTH] * 4)
        check(loss, expected, TOKENS.numel(), {"end": END})


@pytest.mark.parametrize("is_shared", [False, True])
def test_hidden_inputs(is_training, is_shared):
    share = 0.4
    loss = loss_of(MaskEnhancedAutoregressor, mask_share=share,
                   same_positions=is_shared)  # fmt: skip
    same = BATCH._replace(number=torch.zeros_like(BATCH.number))
    u = loss.noise(NETWORK, same if is_shared else BATCH, 0, LENGTH)
    shown = TOKENS.clone()
    for row, n in enumerate(COUNTED):
        n = LENGTH if is_shared else n
        k = min(n - 1, max(1, int(share * n)))  # of the n - 1 inputs of n labels
        hidden = u[row, : n - 1].argsort(descending=True)[:k]
        shown[row, hidden] = NETWORK.mask
    expected = next_token_loss(shown if is_training else TOKENS)
    wrong = [{"end": None}]
    if is_training:
        wrong += [{"share": 0.0}, {"share": 0.15}, {"is_shared": not is_shared}]
    check(loss, expected, sum(COUNTED), *wrong)


@torch.no_grad()
def masked_loss(mask, weight):
    """Sum over hidden tokens, from all that is shown."""
    shown = TOKENS.masked_fill(mask, NETWORK.mask)
    states = NETWORK.read(shown, Layout.of(LENGTH), full, None)[:, 1:]
    return -(token_logs(states, TOKENS) * weight[:, None])[mask].sum()


@pytest.mark.parametrize("cls", [MaskedDiffusionSequence, DelayedCacheDiffusion])
@pytest.mark.parametrize("is_twice", [False, True])
def test_masked_diffusion(is_training, cls, is_twice):
    loss = loss_of(cls, complementary=is_twice)
    u, u_level = noise(loss, 1)
    p = level_of(u_level[:, 0])
    mask = u < p[:, None]
    expected = masked_loss(mask, 1 / p)
    if is_twice:
        expected = expected + masked_loss(~mask, 1 / (1 - p).clamp_min(LEAST))
    count = TOKENS.numel() * (1 + is_twice)
    check(loss, expected, count, {"is_complementary": not is_twice})


@pytest.mark.parametrize("is_twice", [False, True])
@pytest.mark.parametrize("is_bound", [False, True])
def test_conditional_diffusion(is_training, is_twice, is_bound):
    loss = loss_of(ConditionalDiffusionSequence, complementary=is_twice,
                   weighting="bound" if is_bound else "uniform",
                   template="?A???B?")  # fmt: skip
    u, u_level = noise(loss, 1)
    p = (1 - 2 * LEAST) * u_level[:, 0] + LEAST
    is_free = torch.tensor([1, 0, 1, 1, 1, 0, 1]).bool().expand(4, -1)
    mask = (u < p[:, None]) & is_free
    one = torch.ones_like(p)
    if not is_bound:  # at least one: the lowest number
        none = ~mask.any(dim=1)
        mask[none, u.where(is_free, 2.0).argmin(dim=1)[none]] = True
    expected = masked_loss(mask, 1 / p if is_bound else one)
    rest = is_free & ~mask
    if is_twice:
        expected = expected + masked_loss(rest, 1 / (1 - p) if is_bound else one)
    n_free = int(is_free.sum())
    if is_bound:
        count = n_free * (1 + is_twice)
    else:
        count = n_free if is_twice else int(mask.sum())
    wrong = [{"is_complementary": not is_twice}, {"is_bound": not is_bound},
             {"is_free": torch.ones(LENGTH, dtype=torch.bool)}]  # fmt: skip
    check(loss, expected, count, *wrong)
