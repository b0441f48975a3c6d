"""The Cloze recommender: padding, masks, windows, permuted items, no leak, ranks."""

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from torch.testing import assert_close

from sciseq.errors import InputError
from sciseq.generation.baselines import PopularityRecommender
from sciseq.generation.parts.batches import SequenceBatch
from sciseq.generation.parts.cloze_rows import (
    ClozeBatches,
    cloze_mask,
    history_windows,
)
from sciseq.generation.sequences.cloze_recommender import (
    ClozeLoss,
    ClozeNetwork,
    ClozeRecommender,
)
from sciseq.generation.synthetic_series import event_histories
from sciseq.metrics.ranking import ranking_summary
from sciseq.nn import build_network

V, N = 5, 6
TINY = dict(
    max_length=N, d_model=8, d_ff=8, n_layers=1, n_heads=2, dropout=0.0,
    n_duplicates=2, max_epochs=1, random_state=0, device="cpu", precision="float64",
)  # fmt: skip


def tiny_network(n_items=V):
    network = build_network(
        lambda: ClozeNetwork(n_items, N, 8, 16, 2, 2, 0.0),
        torch.Generator().manual_seed(0),
    ).double()
    with torch.no_grad():  # at the start all scores are nearly equal
        network.symbols.mul_(50)
        network.item_bias.copy_(torch.arange(n_items) / 10)
    return network.eval()


def padded(*events):
    return torch.tensor([[V] * (N - len(events)) + list(events)])


# ------------------------------------------------------------------------- padding


@torch.no_grad()
def test_padding_is_never_attended():
    network = tiny_network()
    row = padded(1, 3, V + 1)
    scores = network.scores(network.states(row))[:, -3:]
    network.symbols[network.padding] = 7.0
    assert_close(network.scores(network.states(row))[:, -3:], scores, rtol=0, atol=0)
    # Were it read, it would matter: another symbol in its place does.
    wrong = row.clone()
    wrong[row == V] = 0
    assert not torch.allclose(network.scores(network.states(wrong))[:, -3:], scores)


@torch.no_grad()
def test_events_are_read_in_both_directions():
    network = tiny_network()
    state = network.states(padded(1, V + 1, 3))[0, -2]
    assert not torch.allclose(network.states(padded(2, V + 1, 3))[0, -2], state)
    assert not torch.allclose(network.states(padded(1, V + 1, 4))[0, -2], state)


@given(
    st.integers(1, 12),
    st.floats(0.01, 1.0),
    st.none() | st.integers(1, 4),
    st.integers(0, 99),
)
def test_as_many_events_are_hidden_as_the_rate_says(length, rate, limit, seed):
    is_event = torch.arange(12) >= 12 - length
    u = torch.rand(3, 12, generator=torch.Generator().manual_seed(seed))
    mask = cloze_mask(is_event.expand(3, -1), u, rate, limit)
    count = max(1, round(rate * length))
    assert mask.sum(1).tolist() == [count if limit is None else min(limit, count)] * 3
    assert not mask[:, ~is_event].any()


def test_hiding_each_event_by_itself_has_another_count():
    u = torch.rand(50, 12, generator=torch.Generator().manual_seed(0))
    assert set(cloze_mask(u > -1, u, 0.25).sum(1).tolist()) == {3}
    assert len(set((u < 0.25).sum(1).tolist())) > 1


def test_all_events_are_hidden_equally_often():
    u = torch.rand(20_000, 6, generator=torch.Generator().manual_seed(0))
    share = cloze_mask(torch.arange(6).expand(20_000, -1) > 1, u, 0.5).double().mean(0)
    assert_close(share, torch.tensor([0, 0, 0.5, 0.5, 0.5, 0.5]).double(), atol=0.02,
                 rtol=0)  # fmt: skip


# ------------------------------------------------------------------------ training


@given(st.lists(st.integers(0, 15), min_size=1, max_size=4), st.integers(1, 6))
def test_windows_hold_all_events_and_no_others(lengths, step):
    histories = [np.arange(n) + 100 * i for i, n in enumerate(lengths)]
    windows = history_windows(histories, N, step, padding=-1)
    found = set(windows[windows >= 0].tolist())
    assert found == {int(x) for one in histories for x in one}
    ends = {int(row[-1]) for row in windows}
    assert {int(one[-1]) for one in histories if len(one)} <= ends
    for row in windows.tolist():
        events = [one for one in row if one >= 0]
        assert row == [-1] * (N - len(events)) + events
        assert events == list(range(events[0], events[0] + len(events)))


def batch_of(windows, n_times):
    batches = ClozeBatches(windows, n_times, torch.device("cpu"))
    return batches.gather(torch.arange(batches.n_items))


def test_rows_hide_by_the_rate_or_the_last_event_alone():
    windows = history_windows([np.array([0, 1, 2, 3]), np.array([4])], N, 2, padding=V)
    batch = batch_of(windows, 3)
    network = tiny_network().train()
    loss = ClozeLoss(0, 0.5, None, first_last=4)
    mask = loss.mask(network, batch)
    assert mask.sum(1).tolist() == [2, 1, 2, 1, 1, 1]
    assert mask[4:, -1].all()
    assert not mask[batch.tokens == V].any()
    seen = set()
    for step in range(40):  # other masks at each step, and for each duplicate
        loss.on_step(step, 40)
        mask = loss.mask(network, batch)
        seen.add(tuple(mask[0].tolist()))
        assert mask[4:, -1].all()
    assert len(seen) == 6


@torch.no_grad()
def test_the_loss_is_the_mean_over_hidden_events():
    network = tiny_network()
    windows = history_windows([np.array([0, 1, 2, 3]), np.array([4])], N, 2, padding=V)
    batch, loss = batch_of(windows, 2), ClozeLoss(0, 0.5, None, first_last=2)
    total, count = loss(network, batch)
    mask, expected = loss.mask(network, batch), 0.0
    for row, hidden in zip(batch.tokens, mask, strict=True):
        shown = row.masked_fill(hidden, V + 1)[None]
        states = network.states(shown)[0]
        for i in hidden.nonzero()[:, 0]:
            h = torch.nn.functional.gelu(network.head(states[i]))
            logits = network.symbols[:V] @ h + network.item_bias
            expected -= float(logits.log_softmax(0)[row[i]])
    assert int(count) == int(mask.sum()) == 5
    assert float(total) == pytest.approx(expected, rel=1e-12)


@torch.no_grad()
@pytest.mark.parametrize("last_item_rows", [True, False])
def test_the_estimators_rows_and_loss_by_hand(last_item_rows, monkeypatch):
    """Two windows of eight events and one of a single one, each shown twice or more."""
    seen = []
    monkeypatch.setattr(
        ClozeRecommender,
        "_train",
        lambda self, loss, make_batches, **_: seen.append((loss, make_batches)),
    )
    model = ClozeRecommender(
        **TINY, mask_rate=0.8, max_predictions=3, last_item_rows=last_item_rows
    )
    model.fit([[0, 1, 2, 3, 4, 0, 1, 3], [4]])
    (loss, make_batches) = seen[0]
    batches, network = make_batches(torch.device("cpu"))[0], tiny_network()
    assert batches.n_items == (9 if last_item_rows else 6)
    batch = batches.gather(torch.arange(batches.n_items))
    events = [[2, 3, 4, 0, 1, 3], [0, 1, 2, 3, 4, 0], [4]]
    u, expected, n = loss.noise(network, batch, 0, N), 0.0, 0
    for number in range(batches.n_items):
        row = padded(*events[number % 3])[0]
        assert batch.tokens[number].tolist() == row.tolist()
        first = N - len(events[number % 3])
        order = first + u[number, first:].argsort()  # 3 of 6, or the only one
        hidden = order[: 3 if first == 0 else 1] if number < 6 else [N - 1]
        shown = row.clone()
        shown[hidden] = V + 1
        logs = network.scores(network.states(shown[None]))[0].log_softmax(1)
        expected -= float(logs[hidden, row[hidden]].sum())
        n += len(hidden)
    total, count = loss(network, batch)
    assert int(count) == n == (3 + 3 + 1) * 2 + 3 * last_item_rows
    assert float(total) == pytest.approx(expected, rel=1e-12)
    # Wrong: rows of the last event are as all others, or all others as they.
    for loss.first_last in (99, 0):
        other = float(loss(network, batch)[0])
        is_same = loss.first_last == 99 and not last_item_rows
        assert (abs(other - expected) < 1e-9) == is_same


@torch.no_grad()
def test_a_hidden_event_does_not_tell_itself():
    network, number = tiny_network(), torch.arange(1)
    loss = ClozeLoss(0, 0.2, None, first_last=0)
    shown = []
    network.register_forward_pre_hook(lambda _, given: shown.append(given[0]))
    for last in (1, 2):
        loss(network, SequenceBatch(padded(3, 0, last), number, None))
    assert_close(shown[0], shown[1], rtol=0, atol=0)


def test_the_test_event_is_in_no_training_row():
    histories = [np.array([0, 1, 2, 9]), np.array([*range(8), 9])]
    training = history_windows([one[:-1] for one in histories], N, 2, padding=10)
    assert not (training == 9).any()
    assert (history_windows(histories, N, 2, padding=10) == 9).any()  # the leak


# ---------------------------------------------------------------------- recommending


@torch.no_grad()
def test_permuting_items_permutes_scores():
    model = ClozeRecommender(**TINY).fit([[0, 1, 2, 3, 4], [2, 1, 0]])
    network = model.network_
    network.symbols.mul_(50)
    network.item_bias.copy_(torch.arange(V))
    scores = model.score_items([[0, 1], [4, 3, 2]])
    order = torch.tensor([3, 0, 4, 1, 2])  # old item of each new one
    new = {int(old): number for number, old in enumerate(order)}
    network.symbols[:V] = network.symbols[:V][order]
    asked = [[new[0], new[1]], [new[4], new[3], new[2]]]
    # The bias of the items belongs to them as well.
    assert not np.allclose(model.score_items(asked), scores[:, order])
    network.item_bias.copy_(network.item_bias[order])
    assert_allclose(model.score_items(asked), scores[:, order], rtol=1e-10)
    assert not np.allclose(model.score_items([[0, 1], [4, 3, 2]]), scores[:, order])


def test_only_the_last_events_are_read_and_histories_do_not_mix():
    model = ClozeRecommender(**TINY).fit([[0, 1, 2, 3, 4], [2, 1, 0]])
    with torch.no_grad():
        model.network_.symbols.mul_(50)
    long = [0, 0, 1, 2, 3, 4, 1, 2]
    scores = model.score_items([long, long[-(N - 1) :], [3], []])
    assert_allclose(scores[0], scores[1], rtol=0, atol=1e-12)
    assert_allclose(scores[2:], model.score_items([[3], []]), rtol=0, atol=1e-12)
    assert not np.allclose(scores[0], model.score_items([long[-(N - 2) :]])[0])
    assert model.score_items([]).shape == (0, V)


def test_habits_beat_popularity():
    events = event_histories(
        150, np.random.default_rng(0), n_items=10, n_types=1, lengths=(6, 12),
        habit=0.9,
    )  # fmt: skip
    histories = [one.tolist() for one in events.histories]
    before, after = [one[:-1] for one in histories], [one[-1] for one in histories]
    model = ClozeRecommender(
        max_length=8, mask_rate=0.3, d_model=16, d_ff=32, n_layers=1, dropout=0.0,
        learning_rate=1e-2, batch_size=64, n_duplicates=2, max_epochs=12,
        random_state=0, device="cpu",
    ).fit(before)  # fmt: skip
    negatives = np.array([[i for i in range(10) if i != a][:5] for a in after])
    ranks = model.rank(before, after, negatives=negatives)
    popular = PopularityRecommender().fit(before).rank(before, after)
    ours = ranking_summary(ranks["full"])
    theirs = ranking_summary(popular["full"])
    assert ours["mrr"] > theirs["mrr"] + 0.2, (ours, theirs)
    assert (ranks["sampled"] <= ranks["full"]).all()
    assert len(model.recommend(before[:1], k=2, exclude_history=False)[0]) == 2
    again = pickle.loads(pickle.dumps(model))
    assert_allclose(again.score_items(before[:3]), model.score_items(before[:3]))
    saved = ClozeRecommender(**model.get_params())
    saved._set_saved_state(*model._get_saved_state())
    assert_allclose(saved.score_items(before[:3]), model.score_items(before[:3]))


def test_wrong_parameters_and_unknown_items_are_named():
    with pytest.raises(InputError, match="mask_rate"):
        ClozeRecommender(mask_rate=0.0).fit([[0, 1]])
    model = ClozeRecommender(**TINY).fit([[0, 1, 2]])
    with pytest.raises(InputError):
        model.score_items([[17]])
