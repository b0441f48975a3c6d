"""Known tokens first, causal attention: what is at the left is final, and is stored."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sequence_toys import (
    every_row,
    fitted,
    prefix_pass,
    request,
    run,
    steps,
    tiny_network,
)

from sciseq.errors import InputError
from sciseq.generation.parts.batches import SequenceBatch
from sciseq.generation.parts.drawing import Drawing
from sciseq.generation.parts.layout import CLEAN, NOISY, Layout
from sciseq.generation.parts.masks import causal, two_copy
from sciseq.generation.parts.noise import uniform
from sciseq.generation.parts.two_copy_loss import (
    Broken,
    TwoCopyLoss,
    two_copy_scores,
)
from sciseq.generation.sequences.autoregressive import (
    AutoregressiveSequence,
    NextTokenLoss,
    next_token_scores,
)
from sciseq.generation.sequences.reordered_causal import (
    ReorderedCausalDiffusion,
    StreamingDecoder,
    known_before_hidden,
    known_first,
)

RULE = two_copy(clean="causal", noisy="reordered")
LENGTH = 8
NETWORK = tiny_network(3, LENGTH, n_layers=3)
TOKENS = torch.randint(3, (1, LENGTH), generator=torch.Generator().manual_seed(4))


def streaming(window=4, threshold=1.05, weight=0.02, before=True, drawing=None):
    return StreamingDecoder(
        drawing or Drawing(), window, threshold, weight, refills_before=before
    )


def window_scores(places, hidden, rule=RULE, network=NETWORK):
    """Scores of rows at places in a physical order, some of them masks."""
    position = torch.tensor([places])
    layout = Layout.at(position, group=torch.zeros_like(position), copy=NOISY,
                       rank=torch.arange(len(places)).unsqueeze(0))  # fmt: skip
    symbols = TOKENS[:, places].clone()
    symbols[:, [place in hidden for place in places]] = network.mask
    with torch.no_grad():
        return network.scores(network.read(symbols, layout, rule, None)[:, 1:])[0]


def close(a, b):
    torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def differ(a, b):
    return bool((a - b).abs().max() > 1e-6)


# --- What rows read -------------------------------------------------------------------


def test_a_window_without_masks_is_a_plain_causal_pass():
    scores = window_scores(range(LENGTH), ())
    plain = NETWORK.scores(
        NETWORK.read(TOKENS, Layout.of(LENGTH), causal, None)[:, 1:]
    )[0]
    close(scores, plain)
    bidirectional = two_copy(clean="causal")
    assert differ(window_scores(range(LENGTH), (), bidirectional), plain)


def test_known_rows_do_not_depend_on_masks():
    known = [0, 2, 3, 6]
    alone = window_scores(known, ())
    for hidden in ([1], [1, 4], [1, 4, 5, 7]):
        close(window_scores(known + hidden, hidden)[:4], alone)
    # In logical order, or where everybody reads everybody, they do.
    assert differ(window_scores([0, 1, 2, 3, 6], [1])[[0, 2, 3, 4]], alone)
    rule = two_copy(clean="causal")
    assert differ(window_scores([*known, 1], [1], rule)[:4], window_scores(known, ()))


def test_the_order_of_masks_changes_only_masks_behind():
    known, hidden = [0, 3], [1, 2, 5, 6]
    one = window_scores(known + hidden, hidden)
    other = window_scores([*known, 1, 5, 2, 6], hidden)
    close(one[:3], other[:3])
    assert differ(one[3], other[4])  # place 2 now also reads the mask at 5
    close(other[3], window_scores([0, 3, 1, 5], [1, 5])[3])


def test_a_mask_at_the_right_edge_is_an_autoregressive_query():
    scores = window_scores(range(5), [4])
    symbols = TOKENS[:, :5].clone()
    symbols[0, 4] = NETWORK.mask
    states = NETWORK.read(symbols, Layout.of(5), causal, None)
    close(scores[4], NETWORK.scores(states)[0, -1])
    # A row keeps its logical place: counted by rows it would be another.
    close(window_scores([0, 1, 3, 2], [2])[2], window_scores([0, 1, 3], ())[2])
    assert differ(window_scores([0, 1, 3], ())[2], window_scores([0, 1, 2], ())[2])


# --- Decoding -------------------------------------------------------------------------


def fresh_cache(tokens):
    requests, decoder = request(tokens, NETWORK.mask), streaming()
    with torch.no_grad():
        prefix_pass(NETWORK, decoder, requests)
        layout = Layout.of(tokens.shape[1], copy=CLEAN).expand(len(tokens))
        NETWORK(NETWORK.embed(tokens, layout), layout, causal, requests.cache)
        requests.cache.store()
    return requests


def largest_error_of_cache(decoder, n=6, template=None):
    """Compare what is stored, after each pass, with a causal pass over the result."""
    rows = torch.full((n, LENGTH), -1) if template is None else template
    requests = request(rows, NETWORK.mask)
    seen, result = [], requests.tokens.clone()
    for _ in steps(NETWORK, decoder, requests):
        layers = [one.clone() for one in requests.cache._rooms]
        seen.append((requests.number, requests.cache.is_stored, layers))
        result[requests.number] = requests.tokens
    truth, error = fresh_cache(result).cache._rooms, 0.0
    for number, is_stored, layers in seen:
        for mine, its in zip(layers, truth, strict=True):
            gap = (mine - its[:, number])[:, :, :, 1:].abs().amax(dim=(0, 2, 4))
            error = max(error, float(gap.where(is_stored, 0.0).max()))
    assert seen[-1][1].any()
    return error


class StoresBehindGaps(StreamingDecoder):
    """Wrong: stores all known rows, gaps included."""

    def commit(self, requests, rows, scores):
        super().commit(requests, rows, scores)
        is_known = rows.tokens != requests.mask
        requests.cache.store(
            is_known & (rows.layout.segment == 0), Layout.at(rows.layout.position)
        )


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("window", [1, 3, 5])
def test_what_is_stored_is_that_of_a_causal_pass(window, before):
    assert largest_error_of_cache(streaming(window, before=before)) < 1e-12


def test_with_given_tokens_too():
    template = torch.tensor([[1, 2, -1, -1, 0, 2, -1, -1], [-1] * 7 + [1]])
    assert largest_error_of_cache(streaming(5), template=template) < 1e-12


def test_what_stands_behind_a_gap_is_not_final():
    wrong = StoresBehindGaps(Drawing(), 5, 0.0, 0.0)
    assert largest_error_of_cache(wrong) > 1e-3


def test_each_window_is_what_training_showed():
    """Scores of hidden tokens equal those of the loss, given the clean past."""
    size, hidden = 4, [4, 6]
    mask = torch.zeros(1, LENGTH, dtype=torch.bool)
    mask[0, hidden] = True
    group = Layout.of(LENGTH, block=size).group
    broken = Broken(mask, torch.ones(1, 1), known_first(~mask, group))
    batch = SequenceBatch(TOKENS, torch.arange(1), None)
    trained, _ = two_copy_scores(NETWORK, batch, broken, size, RULE)
    decoder = streaming(size, before=False)
    requests = request(TOKENS.masked_fill(mask, -1), NETWORK.mask)
    passes = steps(NETWORK, decoder, requests)
    next(passes)  # stores the first block
    rows, scores, _, memory = next(passes)
    assert memory["at"].item() == 4
    assert rows.layout.position.tolist() == [[5, 7, 4, 6]]
    close(scores[0], trained[0, [5, 7, 4, 6]])
    # Without the order of rows the noisy copy is another.
    plain, _ = two_copy_scores(NETWORK, batch, Broken(mask, mask), size, RULE)
    assert differ(plain[0, hidden], trained[0, hidden])


@pytest.mark.parametrize(
    ("threshold", "weight"), [(0.0, 0.0), (0.0, 0.5), (1.05, 0.01)]
)
def test_the_surest_tokens_are_kept(threshold, weight):
    decoder = streaming(4, threshold, weight)
    requests = request(torch.full((1, LENGTH), -1), NETWORK.mask)
    n_kept = []
    for rows, scores, tokens, _ in steps(NETWORK, decoder, requests):
        is_mask = (tokens == NETWORK.mask)[0, rows.layout.position[0].clamp_max(7)]
        hidden = rows.layout.position[0][is_mask & (rows.layout.segment[0] == 0)]
        scores = scores[0][is_mask & (rows.layout.segment[0] == 0)]
        p = scores.softmax(-1)
        adjusted = -(p * p.log()).sum(-1) + weight * (hidden - hidden.min())
        expected = set(hidden[adjusted < threshold].tolist())
        expected = expected or {int(hidden[adjusted.argmin()])}
        now = requests.tokens[0] != NETWORK.mask
        filled = set((now & (tokens[0] == NETWORK.mask)).nonzero().flatten().tolist())
        assert filled == expected
        n_kept.append(len(filled))
    assert sum(n_kept) == LENGTH and (threshold > 0) == (max(n_kept) > 1)


@pytest.mark.parametrize("before", [True, False])
def test_counters_of_a_window_of_one(before):
    decoder = streaming(1, before=before)
    _, work = run(NETWORK, decoder, torch.full((3, LENGTH), -1))
    # The begin is a row. Refilled before: a mask, then a known token and a mask in each
    # pass. Refilled after: a mask, and then the token to be stored, but for the last.
    n_passes = 1 + LENGTH if before else 1 + 2 * LENGTH - 1
    assert work.n_passes.tolist() == [n_passes] * 3
    assert work.n_rows.tolist() == [2 * LENGTH] * 3
    assert work.tokens_per_row.tolist() == [0.5] * 3


def test_counters_when_all_or_only_the_first_is_sure():
    empty = torch.full((1, LENGTH), -1)

    def count(*args, **kwargs):
        work = run(NETWORK, streaming(*args, **kwargs), empty)[1]
        return int(work.n_passes), int(work.n_rows), int(work.n_read)

    # Four masks; then they are stored, beside four more.
    assert count(4, 99.0, 0.0) == (3, 1 + 4 + 8, 1 + 1)
    # Refilled after: one pass more, which only stores.
    assert count(4, 99.0, 0.0, before=False) == (4, 1 + 4 + 4 + 4, 1 + 1 + 5)
    # Distance forbids all but the first: W masks and the token that is stored.
    rows = [3] + [1 + min(3, LENGTH - filled) for filled in range(1, LENGTH)]
    assert count(3, 99.0, 100.0)[:2] == (1 + LENGTH, 1 + sum(rows))


class StoresAll(StreamingDecoder):
    """Goes on until everything is stored."""

    def is_done(self, requests):
        return requests.memory["at"] == requests.n_positions


@settings(max_examples=15)
@given(
    window=st.integers(1, 9),
    threshold=st.floats(0, 1.2),
    before=st.booleans(),
    seed=st.integers(0, 99),
)
def test_all_is_stored_once_and_no_token_takes_less_than_a_row(
    window, threshold, before, seed
):
    decoder = StoresAll(Drawing(), window, threshold, 0.05, refills_before=before)
    seeds, empty = torch.arange(2) + seed, torch.full((2, LENGTH), -1)
    requests = request(empty, NETWORK.mask, seeds=seeds)
    stored, result = torch.zeros(2, dtype=torch.int64), empty.clone()
    for _, _, _, memory in steps(NETWORK, decoder, requests):
        n_new = requests.memory["at"] - memory["at"]
        assert (n_new >= 0).all()
        stored[requests.number] += n_new
        assert requests.cache.is_stored.sum(dim=1).equal(stored[requests.number])
        result[requests.number] = requests.tokens
    assert stored.tolist() == [LENGTH, LENGTH]
    usual = streaming(window, threshold, 0.05, before)
    tokens, work = run(NETWORK, usual, empty, seeds=seeds)
    assert torch.equal(tokens, result)
    assert (work.n_tokens == LENGTH).all() and (work.tokens_per_row <= 1).all()


# --- The loss -------------------------------------------------------------------------


def batch_of(n, length=LENGTH, seed=0):
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(3, (n, length), generator=generator)
    return SequenceBatch(tokens, torch.arange(n), None)


def nothing_hidden(u, u_block, size):
    return Broken(torch.zeros_like(u, dtype=torch.bool), torch.ones_like(u))


def test_the_clean_copy_is_the_autoregressive_model():
    batch = batch_of(4)
    u, u_block = (uniform(batch.number, n, torch.arange(n)[None]) for n in (8, 2))
    broken = known_before_hidden(u, u_block, 4)
    _, clean = two_copy_scores(NETWORK, batch, broken, 4, RULE)
    plain = next_token_scores(NETWORK, batch.tokens, None)
    torch.testing.assert_close(clean, plain, rtol=0, atol=1e-12)
    blocks = two_copy(clean="block", noisy="reordered")
    _, clean = two_copy_scores(NETWORK, batch, broken, 4, blocks)
    assert differ(clean, plain)


def test_with_everything_known_it_is_the_loss_of_the_next_token():
    batch = batch_of(4)
    loss = TwoCopyLoss(0, rule=RULE, corrupt=nothing_hidden,
                       block_size=lambda progress: 4, clean_weight=1.0)  # fmt: skip
    ours, plain = loss(NETWORK, batch), NextTokenLoss(0, None)(NETWORK, batch)
    torch.testing.assert_close(ours, plain, rtol=1e-12, atol=0)


def test_the_estimators_loss_by_hand():
    batch, weight = batch_of(3), 0.7
    model = fitted(ReorderedCausalDiffusion, block_size=3, network=NETWORK,
                   length=LENGTH, autoregressive_weight=weight)  # fmt: skip
    loss = model._loss(5)
    total, count = loss(NETWORK, batch)
    u = loss.noise(NETWORK, batch, 0, LENGTH)
    level = 1e-3 + (1 - 1e-3) * loss.noise(NETWORK, batch, 1, 3)
    expected = NextTokenLoss(0, None)(NETWORK, batch)[0] * weight
    for row in range(3):
        tokens = batch.tokens[row]
        for number, start in enumerate((0, 3, 6)):
            places = list(range(start, min(start + 3, LENGTH)))
            n = max(1, int(level[row, number] * len(places) + 0.5))
            hidden = sorted(places, key=lambda i: -u[row, i])[:n]
            known = [i for i in places if i not in hidden]
            order = list(range(start)) + known + sorted(hidden)
            symbols = tokens[order].clone()
            symbols[len(order) - n :] = NETWORK.mask
            position = torch.tensor([order])
            layout = Layout.at(position, rank=1 + torch.arange(len(order))[None])
            in_order = lambda q, k: k.rank <= q.rank  # noqa: E731
            # The past alone is read in its own order, which is the same.
            states = NETWORK.read(symbols[None], layout, in_order, None)[0, -n:]
            logs = NETWORK.scores(states).log_softmax(-1)
            truth = tokens[sorted(hidden)].unsqueeze(1)
            expected = expected - logs.gather(1, truth).sum() / level[row, number]
    assert count == batch.tokens.numel()
    torch.testing.assert_close(total, expected, rtol=1e-10, atol=0)


@given(flags=st.lists(st.booleans(), min_size=1, max_size=12), size=st.integers(1, 5))
def test_ranks_are_known_tokens_first(flags, size):
    is_known = torch.tensor([flags])
    group = Layout.of(len(flags), block=size).group
    ranks = known_first(is_known, group)[0].tolist()
    for start in range(0, len(flags), size):
        places = range(start, min(start + size, len(flags)))
        order = sorted(places, key=lambda i: (not flags[i], i))
        assert [ranks[i] for i in order] == list(range(len(places)))


@settings(max_examples=30)
@given(length=st.integers(1, 20), size=st.integers(1, 6), seed=st.integers(0, 99))
def test_counts_and_weights_of_each_block(length, size, seed):
    seeds, n_blocks = torch.arange(4) + seed, -(-length // size)
    u = uniform(seeds, 0, torch.arange(length)[None])
    u_block = uniform(seeds, 1, torch.arange(n_blocks)[None])
    broken = known_before_hidden(u, u_block, size)
    level = 1e-3 + (1 - 1e-3) * u_block
    for block in range(n_blocks):
        part = slice(block * size, (block + 1) * size)
        n = len(range(length)[part])
        expected = (level[:, block] * n + 0.5).floor().clamp(1, n).long()
        assert broken.mask[:, part].sum(1).equal(expected)
        weights = (broken.weight[:, part] * level[:, block : block + 1]).flatten()
        close(weights, torch.ones_like(weights))
    scaled = known_before_hidden(u, u_block, size, normalise_weights=True)
    sums = scaled.weight.where(scaled.mask, 0.0).sum(1) / length
    close(sums, torch.ones_like(sums))
    ratio = scaled.weight / broken.weight
    close(ratio, ratio[:, :1].expand_as(ratio))


# --- The estimator --------------------------------------------------------------------


def test_scores_are_exact():
    network = tiny_network(3, 4)
    model = fitted(ReorderedCausalDiffusion, network=network)
    strings = model.alphabet_.decode(every_row(3, 4).numpy())
    scores, errors = model.score_samples(strings, return_std=True)
    assert abs(torch.tensor(scores).exp().sum() - 1) < 1e-12 and not errors.any()
    plain = fitted(AutoregressiveSequence, network=network)
    assert (scores == plain.score_samples(strings)).all()


@pytest.mark.parametrize("refill", ["before", "after"])
@pytest.mark.parametrize("with_ends", [False, True])
def test_masks_are_never_drawn_and_batches_do_not_matter(refill, with_ends):
    network = tiny_network(3, LENGTH)
    with torch.no_grad():  # even where the mask resembles everything
        network.backbone.symbols[network.mask] = network.backbone.head.weight.sum(0)
    model = fitted(
        ReorderedCausalDiffusion, 3, LENGTH, network=network, with_ends=with_ends,
        window=3, entropy_threshold=1.0, refill=refill,
    )  # fmt: skip
    many = model.sample(40, random_state=1)
    assert set("".join(many)) <= set("ABC"[: 3 - with_ends])
    assert len({len(one) for one in many}) == 1 or with_ends
    assert many == model.sample(40, random_state=1)
    assert many[:3] == model.sample(3, random_state=1)
    assert many != model.sample(40, random_state=2)


def test_given_and_illegal_tokens():
    model = fitted(ReorderedCausalDiffusion, 3, LENGTH, network=NETWORK, window=3)
    filled = model.infill(["A??C??BA"] * 9, random_state=0)
    assert all(one[0] + one[3] + one[6:] == "ACBA" for one in filled)
    assert set("".join(model.sample(9, allowed="AC", random_state=0))) <= {"A", "C"}


def test_it_learns_and_goes_on_from_an_autoregressive_model():
    data = ["ABCABC", "BCABCA", "CABCAB"] * 12
    params = dict(d_model=8, d_ff=16, n_layers=1, n_heads=2, learning_rate=1e-2,
                  validation_fraction=0.0, random_state=0, device="cpu")  # fmt: skip
    base = AutoregressiveSequence(**params, max_epochs=25).fit(data)
    model = ReorderedCausalDiffusion.from_autoregressive(
        base, max_epochs=1, learning_rate=1e-9, block_size=3, random_state=0,
        device="cpu", validation_fraction=0.0, dropout=0.0,
    ).fit(data)  # fmt: skip
    assert abs(model.score(data) - base.score(data)) < 1e-3
    assert base.score(data) > -3  # independent letters have -6.6


@pytest.mark.parametrize(
    "bad", [{"window": 0}, {"refill": "never"}, {"entropy_threshold": -1.0}]
)
def test_parameters_out_of_range_are_refused(bad):
    with pytest.raises(InputError, match=next(iter(bad))):
        ReorderedCausalDiffusion(**bad).fit(["AB", "BA"])
