"""The past is autoregressive, a block is denoised behind it, and blocks grow."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sequence_toys import every_row, fitted, request, run, steps, tiny_network

from sciseq.errors import InputError
from sciseq.generation.parts.batches import SequenceBatch
from sciseq.generation.parts.block_decoder import BlockDecoder
from sciseq.generation.parts.drawing import Drawing
from sciseq.generation.parts.layout import CLEAN, Layout
from sciseq.generation.parts.masks import causal, two_copy
from sciseq.generation.parts.reveal import Reveal
from sciseq.generation.parts.two_copy_loss import Broken, two_copy_scores
from sciseq.generation.sequences.autoregressive import (
    AutoregressiveDecoder,
    AutoregressiveSequence,
    NextTokenLoss,
    next_token_scores,
)
from sciseq.generation.sequences.next_block import (
    NextBlockSequence,
    grown_block_size,
    level_of_block,
)

RULE, BLOCKWISE = two_copy(clean="causal"), two_copy(clean="block")
LENGTH = 7  # blocks of 3: the last one is short
NETWORK = tiny_network(3, LENGTH, n_layers=3)


def batch_of(n, length=LENGTH, seed=0):
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(3, (n, length), generator=generator)
    return SequenceBatch(tokens, torch.arange(n), None)


def hidden_at(places, n=1):
    mask = torch.zeros(n, LENGTH, dtype=torch.bool)
    mask[:, places] = True
    return Broken(mask, torch.ones(n, 1))


def close(a, b, atol=1e-12):
    torch.testing.assert_close(a, b, rtol=0, atol=atol)


def differ(a, b):
    return bool((a - b).abs().max() > 1e-6)


def model(**params):
    network = params.pop("network", NETWORK)
    return fitted(NextBlockSequence, 3, LENGTH, network=network, **params)


def total_of(loss, batch, *, progress=1.0, train=True):
    loss.progress = progress
    NETWORK.train(train)
    try:
        return loss(NETWORK, batch)[0]
    finally:
        NETWORK.eval()


# --- T05: the clean copy is the autoregressive model ----------------------------------


@pytest.mark.parametrize("size", [1, 3, 7])
def test_the_clean_copy_is_the_autoregressive_model(size):
    batch = batch_of(4)
    plain = next_token_scores(NETWORK, batch.tokens, None)
    for places in ([], [1, 2, 5], list(range(LENGTH))):
        broken = hidden_at(places, 4)
        _, clean = two_copy_scores(NETWORK, batch, broken, size, RULE)
        close(clean, plain)
        _, blocks = two_copy_scores(NETWORK, batch, broken, size, BLOCKWISE)
        assert differ(blocks, plain) == (size > 1)  # in blocks it is not


def test_scores_are_exact():
    network = tiny_network(3, 4)
    ours = fitted(NextBlockSequence, network=network, block_size=3)
    strings = ours.alphabet_.decode(every_row(3, 4).numpy())
    scores, errors = ours.score_samples(strings, return_std=True)
    assert abs(torch.tensor(scores).exp().sum() - 1) < 1e-12 and not errors.any()
    plain = fitted(AutoregressiveSequence, network=network)
    assert (scores == plain.score_samples(strings)).all()


# --- The loss -------------------------------------------------------------------------


def test_blocks_of_one_leave_the_autoregressive_loss():
    batch, weight = batch_of(4), 0.5
    plain = NextTokenLoss(0, None)(NETWORK, batch)[0]
    loss = model(block_size=1, autoregressive_weight=weight)._loss(0)
    torch.testing.assert_close(total_of(loss, batch), weight * plain)
    # So it is at the start of a training whose blocks grow.
    loss = model(block_size=4, autoregressive_weight=weight)._loss(0)
    torch.testing.assert_close(total_of(loss, batch, progress=0.0), weight * plain)
    assert total_of(loss, batch, progress=0.6) > weight * plain + 1


def test_without_its_weight_there_is_no_autoregressive_gradient():
    batch = batch_of(4)
    losses = [
        total_of(model(block_size=3, autoregressive_weight=one)._loss(0), batch)
        for one in (0.0, 0.5, 1.0)
    ]
    plain = NextTokenLoss(0, None)(NETWORK, batch)[0]
    torch.testing.assert_close(losses[1] - losses[0], 0.5 * plain)
    torch.testing.assert_close(losses[2] - losses[0], plain)
    NETWORK.zero_grad()
    total_of(model(block_size=1, autoregressive_weight=0.0)._loss(0), batch).backward()
    assert all(not one.grad.any() for one in NETWORK.parameters())
    NETWORK.zero_grad()
    total_of(model(block_size=1)._loss(0), batch).backward()
    assert all(one.grad.any() for one in NETWORK.backbone.layers[0].parameters())
    NETWORK.zero_grad()


def test_the_noisy_term_by_hand():
    """Each hidden token but the first of a block, from the row before it."""
    batch, size = batch_of(3), 3
    loss = model(block_size=size, autoregressive_weight=0.0)._loss(2)
    total = total_of(loss, batch, train=False)
    u = loss.noise(NETWORK, batch, 0, LENGTH)
    level = 1e-3 + (1 - 1e-3) * loss.noise(NETWORK, batch, 1, 3)
    expected, aligned = 0.0, 0.0
    for row in range(3):
        tokens, p = batch.tokens[row], level[row].repeat_interleave(size)[:LENGTH]
        is_hidden = u[row] < p
        for start in range(0, LENGTH, size):
            end = min(start + size, LENGTH)
            shown = tokens[:end].clone()
            shown[start:][is_hidden[start:end]] = NETWORK.mask
            # One sequence: the past is causal, the block reads all of both.
            position = torch.arange(end)[None]
            layout = Layout.at(position, group=position.clamp_max(start))
            rule = lambda q, k: k.group <= q.group  # noqa: E731
            states = NETWORK.read(shown[None], layout, rule, None)[0]
            logs = NETWORK.scores(states).log_softmax(-1)  # the begin stands first
            for i in range(start, end):
                if is_hidden[i] and i > start:
                    expected = expected - logs[i, tokens[i]] / p[i]
                if is_hidden[i]:
                    aligned = aligned - logs[i + 1, tokens[i]] / p[i]
    torch.testing.assert_close(total, expected, rtol=1e-10, atol=0)
    assert differ(total, torch.as_tensor(aligned))


def test_levels_belong_to_blocks():
    u = torch.rand(2000, 8, generator=torch.Generator().manual_seed(0)).double()
    u_block = torch.tensor([[0.2, 0.9]]).double().expand(2000, 2)
    broken = level_of_block(u, u_block, 4)
    often = broken.mask.double().mean(dim=0)
    level = (1e-3 + (1 - 1e-3) * u_block[0]).repeat_interleave(4)
    assert (often - level).abs().max() < 4 * (0.25 / 2000) ** 0.5
    close(broken.weight[0], 1 / level)


# --- T24: growth, and the shifted readout ---------------------------------------------


def test_table_of_growth():
    def sizes(*steps, **kwargs):
        return [grown_block_size(one, 16, interval=50, **kwargs) for one in steps]

    assert sizes(0, 49, 50, 100, 150, 199, 200, 900) == [1, 1, 2, 4, 8, 8, 16, 16]
    assert sizes(0, 99, 100, 149, 150, start=100) == [1, 1, 1, 1, 2]
    assert sizes(0, 50, 100, factor=3, first=2) == [2, 6, 16]


@given(largest=st.integers(1, 70), growth=st.floats(0.01, 1), progress=st.floats(0, 1))
def test_blocks_are_grown_when_growth_is_over(largest, growth, progress):
    size = model(block_size=largest, growth=growth)._block_size_at
    assert size(0.0) == 1 and size(growth) == size(1.0) == largest
    assert size(growth * progress) <= size(growth * min(1, progress + 0.1))
    assert model(block_size=largest, growth=0.0)._block_size_at(0.0) == largest


def test_the_default_growth_is_that_of_the_card():
    size = NextBlockSequence()._block_size_at
    shares = (0.0, 0.29, 0.31, 0.59, 0.6, 1.0)
    assert [size(one) for one in shares] == [1, 1, 2, 2, 4, 4]


def test_validation_has_grown_blocks_at_any_time():
    loss, batch = model(block_size=4)._loss(0), batch_of(4)
    early = total_of(loss, batch, progress=0.0, train=False)
    assert torch.equal(early, total_of(loss, batch, progress=1.0, train=False))
    assert differ(early, total_of(loss, batch, progress=0.0))


class Spy(Drawing):
    """Keeps the scores that tokens are drawn from."""

    def __call__(self, scores, seeds, position, allowed=None, purpose=0):
        seen.append((position.clone(), scores.clone()))
        return super().__call__(scores, seeds, position, allowed, purpose)


seen: list = []


def test_a_block_reads_each_row_for_the_next_one():
    """[., l0, l1, ...] inside, and the clean row before it for the first token."""
    size = 3
    decoder = BlockDecoder(Spy(), Reveal(), RULE, size, is_shifted=True)
    template = batch_of(1).tokens.clone()
    template[0, 3:] = -1
    requests = request(template, NETWORK.mask)
    seen.clear()
    passes = steps(NETWORK, decoder, requests)
    next(passes)  # reads the given block, and draws the first token of the next
    position, scores = seen[-1]
    assert position.tolist() == [[3]]
    plain = next_token_scores(NETWORK, requests.tokens[:, :4], None)
    close(scores[:, 0], plain[:, 3])
    _, raw, tokens, _ = next(passes)
    position, scores = seen[-1]
    assert position.tolist() == [[3, 4, 5]]
    assert torch.equal(scores[:, 1:], raw[:, :-1])
    # They are what training shows, given the clean past.
    batch = SequenceBatch(tokens.clamp_max(2), torch.arange(1), None)
    noisy, _ = two_copy_scores(NETWORK, batch, hidden_at([4, 5, 6]), size, RULE)
    close(scores[:, 1:], noisy[:, 3:5])
    blocks, _ = two_copy_scores(NETWORK, batch, hidden_at([4, 5, 6]), size, BLOCKWISE)
    assert differ(blocks[:, 3:5], scores[:, 1:])


# --- Decoding -------------------------------------------------------------------------


def decoder_of(size, rule=RULE, drawing=None, **kwargs):
    reveal = Reveal(**kwargs)
    return BlockDecoder(drawing or Drawing(), reveal, rule, size, is_shifted=True)


def test_blocks_of_one_are_autoregressive_decoding():
    template = torch.full((9, LENGTH), -1)
    template[3, :4] = torch.tensor([1, 0, 2, 2])
    template[4, 5] = 1
    tokens, work = run(NETWORK, decoder_of(1), template)
    plain, its_work = run(NETWORK, AutoregressiveDecoder(Drawing()), template)
    assert torch.equal(tokens, plain)
    assert torch.equal(work.n_rows, its_work.n_rows)
    assert torch.equal(work.n_passes, its_work.n_passes)
    larger, _ = run(NETWORK, decoder_of(3), template)
    assert not torch.equal(larger, plain)


def largest_error_of_cache(decoder):
    requests = request(torch.full((5, LENGTH), -1), NETWORK.mask)
    states, result = [], requests.tokens.clone()
    for _ in steps(NETWORK, decoder, requests):
        layers = [one.clone() for one in requests.cache._rooms]
        states.append((requests.number, requests.cache.is_stored, layers))
        result[requests.number] = requests.tokens
    fresh = request(torch.full((5, LENGTH), -1), NETWORK.mask)
    next(steps(NETWORK, AutoregressiveDecoder(Drawing()), fresh))
    with torch.no_grad():
        layout = Layout.of(LENGTH, copy=CLEAN).expand(5)
        NETWORK(NETWORK.embed(result, layout), layout, causal, fresh.cache)
        fresh.cache.store()
    error = 0.0
    for number, is_stored, layers in states:
        for mine, its in zip(layers, fresh.cache._rooms, strict=True):
            gap = (mine - its[:, number])[:, :, :, 1:].abs().amax(dim=(0, 2, 4))
            error = max(error, float(gap.where(is_stored, 0.0).max()))
    assert states[-1][1].sum(dim=1).tolist() == [6] * len(states[-1][0])
    return error


def test_what_is_stored_is_that_of_a_causal_pass():
    assert largest_error_of_cache(decoder_of(3)) < 1e-12
    assert largest_error_of_cache(decoder_of(2, threshold=0.4)) < 1e-12
    # A clean block whose rows read each other is another past.
    assert largest_error_of_cache(decoder_of(3, BLOCKWISE)) > 1e-3


def test_a_prompt_may_be_read_in_any_parts():
    """The clean past does not know of blocks: later tokens change no earlier row."""
    tokens = batch_of(1).tokens
    for n in range(1, LENGTH):
        cut = next_token_scores(NETWORK, tokens[:, :n], None)
        close(cut, next_token_scores(NETWORK, tokens, None)[:, :n])


def test_counters_by_hand():
    empty = torch.full((2, LENGTH), -1)
    # The begin draws token 0. Block 1: two passes of three rows, then it is read clean,
    # which draws token 3; the same again; token 6 ends it.
    _, work = run(NETWORK, decoder_of(3), empty)
    assert work.n_passes.tolist() == [1 + 3 + 3] * 2
    assert work.n_rows.tolist() == [1 + 9 + 9] * 2
    # All tokens of a block in one pass.
    _, work = run(NETWORK, decoder_of(3, threshold=0.0), empty)
    assert work.n_passes.tolist() == [1 + 2 + 2] * 2
    assert work.n_tokens.tolist() == [LENGTH] * 2
    close(work.tokens_per_pass, torch.full((2,), LENGTH / 5))


# --- The estimator --------------------------------------------------------------------


@pytest.mark.parametrize("with_ends", [False, True])
def test_masks_are_never_drawn_and_batches_do_not_matter(with_ends):
    network = tiny_network(3, LENGTH)
    with torch.no_grad():  # even where the mask resembles everything
        network.backbone.symbols[network.mask] = network.backbone.head.weight.sum(0)
    ours = model(network=network, block_size=3, threshold=0.5, with_ends=with_ends)
    many = ours.sample(40, random_state=1)
    assert set("".join(many)) <= set("ABC"[: 3 - with_ends])
    assert many == ours.sample(40, random_state=1)
    assert many[:3] == ours.sample(3, random_state=1)
    assert many != ours.sample(40, random_state=2)


def test_given_and_illegal_tokens():
    filled = model(block_size=3).infill(["A?BC??A"] * 9, random_state=0)
    assert all(one[0] + one[2:4] + one[6] == "ABCA" for one in filled)
    allowed = model(block_size=3).sample(9, allowed="AC", random_state=0)
    assert set("".join(allowed)) <= {"A", "C"}


def test_it_goes_on_from_an_autoregressive_model():
    data = ["ABCABCA", "BCABCAB", "CABCABC"] * 12
    params = dict(d_model=8, d_ff=16, n_layers=1, n_heads=2, learning_rate=1e-2,
                  validation_fraction=0.0, random_state=0, device="cpu")  # fmt: skip
    base = AutoregressiveSequence(**params, max_epochs=15).fit(data)
    ours = NextBlockSequence.from_autoregressive(
        base, max_epochs=1, learning_rate=1e-9, random_state=0, device="cpu",
        validation_fraction=0.0, dropout=0.0,
    ).fit(data)  # fmt: skip
    assert abs(ours.score(data) - base.score(data)) < 1e-3


@pytest.mark.parametrize("bad", [{"growth": 1.5}, {"autoregressive_weight": -1.0}])
def test_parameters_out_of_range_are_refused(bad):
    with pytest.raises(InputError, match=next(iter(bad))):
        NextBlockSequence(**bad).fit(["AB", "BA"])
