"""Birdie's generator: who reads whom, states = passes, laws, mixtures (T16, T17, T25).

Axes: as in the module.
"""

import itertools
import pickle
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sequence_toys import every_string, every_string_up_to, fitted, follows
from sklearn.base import clone

import sciseq
from sciseq.errors import CapabilityError, InputError
from sciseq.generation.parts.batches import SequenceBatch
from sciseq.generation.parts.drawing import Drawing
from sciseq.generation.parts.label_generation import continuation, infilling
from sciseq.generation.parts.layout import NOTHING
from sciseq.generation.parts.masks import causal, full
from sciseq.generation.parts.mixture_loss import MixtureLoss, rows_loss, training_row
from sciseq.generation.parts.network import Condition, SequenceNetwork
from sciseq.generation.parts.objective_mixture import FixedMixture
from sciseq.generation.parts.prefix_network import (
    PrefixNetwork,
    PrefixRecurrence,
    layout_carry,
    row_layout,
)
from sciseq.generation.parts.recall_objectives import (
    ObjectiveConfiguration,
    RecallVocabulary,
    default_configurations,
)
from sciseq.generation.parts.recall_rows import RecallRow, collate_rows, pack_rows
from sciseq.generation.sequences.autoregressive import next_token_scores
from sciseq.generation.sequences.prefix_state_space import PrefixStateSpace
from sciseq.nn import build_network

N_TOKENS, LENGTH = 3, 5
WORDS = RecallVocabulary(N_TOKENS)
SMALL = {
    "d_model": 8, "d_ff": 8, "n_layers": 2, "dropout": 0.0, "max_epochs": 1,
    "batch_size": 8, "random_state": 0, "device": "cpu", "precision": "float64",
}  # fmt: skip
EXACT = {"rtol": 0, "atol": 1e-11}
KINDS = ["gated_ssm", "rg_lru"]
OBJECTIVES = ["next_token", "uniform", "bandit", "reward_model"]


def network(n_tokens=N_TOKENS, *, n_features=0, seed=0, **others):
    """Random weights, far from the start, where all tokens look alike."""
    made = build_network(
        lambda: PrefixNetwork(
            PrefixRecurrence(n_tokens, 8, 12, 3, 0.0, **others), 8, n_features
        ),
        torch.Generator().manual_seed(seed),
    )
    made = made.double().eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(seed + 1)
    for one in made.parameters():
        one += 0.5 * torch.randn(one.shape, generator=generator, dtype=one.dtype)
    return made


def model(objectives="uniform", *, with_ends=False, n_tokens=N_TOKENS, classes=None,
          length=LENGTH, **params):  # fmt: skip
    made = network(n_tokens, n_features=len(classes or []))
    return fitted(PrefixStateSpace, n_tokens, length, network=made,
                  with_ends=with_ends, classes=classes, objectives=objectives,
                  **params)  # fmt: skip


def some_tokens(n, length, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, N_TOKENS, (n, length), generator=generator)


def peaks(*counts, seed=0):
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(len(counts), max(counts), 2, generator=generator).double()
    is_row = torch.arange(max(counts)) < torch.tensor(counts)[:, None]
    return Condition(rows, is_row)


def laid_out(n_inputs, n_labels):
    """Random rows [inputs | BEGIN | labels], and which are inputs."""
    tokens = some_tokens(1, n_inputs + 1 + n_labels)
    tokens[0, n_inputs] = WORDS.begin
    return tokens, (torch.arange(tokens.shape[1]) < n_inputs)[None]


# --- Who reads whom (T14, T16) --------------------------------------------------------


def reads(made, n_inputs, n_labels, in_prefix=None, condition=None):
    """Which state rests on which embedded row, conditions first."""
    tokens, right = laid_out(n_inputs, n_labels)
    x, layout = made.rows(tokens, right if in_prefix is None else in_prefix, condition)
    x.requires_grad_()
    states = made(x, layout, causal)
    mixture = torch.linspace(-1, 2, states.shape[2], dtype=torch.float64)
    rows = [
        torch.autograd.grad(one, x, retain_graph=True)[0][0].abs().amax(-1) > 0
        for one in (states[0] @ mixture)
    ]
    return torch.stack(rows)


def may_read(n_rows, n_inputs):
    t, k = torch.arange(n_rows)[:, None], torch.arange(n_rows)[None]
    return (k <= t) | ((t < n_inputs) & (k <= n_inputs))


@pytest.mark.parametrize("kind", KINDS)
def test_the_prefix_is_read_both_ways_and_no_label_leaks(kind):
    made = network(kind=kind)
    assert torch.equal(reads(made, 0, 4), may_read(5, 0))  # P = 0: causal
    assert torch.equal(reads(made, 3, 4), may_read(8, 3))
    late = (torch.arange(8) < 4)[None]  # wrong: BEGIN among the inputs
    assert reads(made, 3, 4, late)[3, 4]
    one_way = network(kind=kind, prefix_bidirectional=False)
    assert torch.equal(reads(one_way, 3, 4), may_read(8, 0))


def test_conditions_are_part_of_the_prefix():
    made = network(n_features=2)
    assert torch.equal(reads(made, 2, 3, condition=peaks(3)), may_read(9, 5))


def test_padding_of_conditions_is_not_read_and_their_order_is():
    made, condition = network(n_features=2), peaks(2, 5, 1)
    tokens = some_tokens(3, LENGTH)
    together = next_token_scores(made, tokens, condition)
    for one, n_rows in enumerate([2, 5, 1]):
        rows, is_row = condition.rows[[one], :n_rows], condition.is_row[[one], :n_rows]
        alone = next_token_scores(made, tokens[[one]], Condition(rows, is_row))
        torch.testing.assert_close(together[[one]], alone, **EXACT)
    # Wrong: padding behind the rows, where it cuts the flow of states.
    x, layout = SequenceNetwork.prefix(made, 3, condition)
    wrong = made(x, layout, causal)[0, -1]
    x, layout = SequenceNetwork.prefix(made, 1, condition.take(torch.tensor([0])))
    x, layout = x[:, [0, 1, 5]], layout.map(lambda one: one[:, [0, 1, 5]])
    assert (made(x, layout, causal)[0, -1] - wrong).abs().max() > 1e-3
    turned = Condition(condition.rows[[1]].flip(1), condition.is_row[[1]])
    other = next_token_scores(made, tokens[[1]], turned)
    assert (other - together[[1]]).abs().max() > 1e-3


def test_packed_rows_equal_rows_alone():
    made, generator = network(), np.random.default_rng(0)
    rows = [
        training_row(one, generator.integers(N_TOKENS, size=9), WORDS, generator)
        for one in default_configurations()[::3]
    ]
    ids = {"begin": WORDS.begin, "padding": WORDS.padding}
    found = []
    for batch in (collate_rows(rows, **ids), pack_rows(rows, **ids, n_tokens=60)):
        tokens, targets, is_scored, in_prefix, sample = map(torch.from_numpy, batch)
        layout = row_layout(in_prefix)
        position = torch.where(in_prefix, -2, torch.zeros_like(sample))
        segment = sample.where(sample >= 0, NOTHING)
        layout = replace(layout, position=position, segment=segment)
        states = made(made.embed(tokens, layout), layout, causal)[is_scored]
        wanted = made.recurrent.label_number(targets[is_scored])
        logs = made.recurrent.label_scores(states).log_softmax(-1)
        found.append(logs.gather(1, wanted[:, None]).sort(0).values)
        forgotten = replace(layout, segment=torch.zeros_like(segment))
    assert len(batch.tokens) < len(rows)
    torch.testing.assert_close(found[1], found[0], **EXACT)
    total, count = rows_loss(made, rows, None)  # what training minimises
    torch.testing.assert_close(-found[0].sum(), total, **EXACT)
    assert count == len(found[0])
    # Wrong: states that go on from one sample to the next.
    states = made(made.embed(tokens, layout), forgotten, causal)[is_scored]
    logs = made.recurrent.label_scores(states).log_softmax(-1)
    wrong = logs.gather(1, wanted[:, None]).sort(0).values
    assert (wrong - found[0]).abs().max() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_features", [0, 2])
def test_loop_of_steps_equals_the_scan(kind, n_features):
    made = network(kind=kind, n_features=n_features)
    condition = peaks(2, 4) if n_features else None
    rows = [RecallRow(np.array([2, 0, 1]), np.array([1, 0, 2, 2, 0])),
            RecallRow(np.array([1]), np.array([0, 1, 1, 2, 1]))]  # fmt: skip
    batch = collate_rows(rows, begin=WORDS.begin, padding=WORDS.padding)
    tokens, in_prefix = map(torch.from_numpy, (batch.tokens, batch.in_prefix))
    whole = made.scores(made.label_states(tokens, in_prefix, condition))
    every, n_rows = torch.arange(2), torch.tensor([4, 2])
    scores, state = made.prefill(tokens, in_prefix, n_rows, condition)
    for t in range(4):
        torch.testing.assert_close(scores, whole[every, n_rows - 1 + t], **EXACT)
        scores, state = made.step(tokens[every, n_rows + t], state)
    torch.testing.assert_close(scores, whole[every, n_rows + 3], **EXACT)


# --- Laws -----------------------------------------------------------------------------


@pytest.mark.parametrize("objectives", ["next_token", "uniform"])
@pytest.mark.parametrize("with_ends", [False, True])
def test_probabilities_sum_to_one_behind_every_prefix(objectives, with_ends):
    made = model(objectives, with_ends=with_ends, length=4)
    letters = "AB" if with_ends else "ABC"
    every = (every_string_up_to if with_ends else every_string)(letters, 4)
    assert np.exp(made.score_samples(every)).sum() == pytest.approx(1, abs=1e-10)
    behind = [one for one in every if one.startswith("BA")]
    law = np.exp(made.score_samples(behind, prefix_length=2))
    assert law.sum() == pytest.approx(1, abs=1e-10)
    # Samples that go on from this prefix have this law.
    template = "BA" if with_ends else "BA??"
    found = made.sample(2000, template=template, random_state=0)
    assert follows([found.count(one) for one in behind], law)
    other = np.exp(made.score_samples(behind))
    assert not follows([found.count(one) for one in behind], other / other.sum()) or (
        objectives == "next_token"
    )


def test_samples_follow_the_law_that_is_scored():
    made = model("uniform", length=3)
    every = every_string("ABC", 3)
    found = made.sample(3000, random_state=1)
    law = np.exp(made.score_samples(every))
    assert follows([found.count(one) for one in every], law)


def test_left_to_right_a_prefix_changes_nothing():
    made = model("next_token")
    words = ["ABCAB", "CCBAA"]
    parts = made.score_samples(words, prefix_length=3)
    other = made.score_samples([one[:3] + "AAA"[:2] for one in words], prefix_length=3)
    whole = made.score_samples(words)
    starts = [one[:3] + "AA" for one in words]
    np.testing.assert_allclose(whole - parts, made.score_samples(starts) - other,
                               atol=1e-11)  # fmt: skip
    assert (made.score_samples(words, prefix_length=5) == 0).all()


# --- Generation: states = passes ------------------------------------------------------


def drawn_anew(made, row, seed, inputs, places):
    """Fill gaps of one row by a pass over everything for each of them."""
    net, row = made.network_, row.clone()
    words = net.recurrent.vocabulary
    labels: list[int] = []
    for place in places:
        if place < 0:
            labels.append(words.separator)
            continue
        read = RecallRow(np.array(inputs), np.array([*labels, words.padding]))
        batch = collate_rows([read], begin=words.begin, padding=words.padding)
        tokens, in_prefix = map(torch.from_numpy, (batch.tokens, batch.in_prefix))
        scores = net.scores(net.label_states(tokens, in_prefix, None)[:, -1:])
        if row[place] < 0:
            at = torch.tensor([[place]])
            row[place] = Drawing()(scores, torch.tensor([seed]), at)
        labels.append(int(row[place]))
    return row.tolist()


def test_generation_from_states_equals_passes_over_everything():
    templates = ["?????", "AB???", "ABCA?", "A??C?", "??B??", "?BC?A"]
    paradigm = WORDS.paradigm
    mask, a, b, c = WORDS.mask, 0, 1, 2
    prompts = [
        ([paradigm("next_token")], [0, 1, 2, 3, 4]),
        ([paradigm("prefix_lm"), a, b], [2, 3, 4]),
        ([paradigm("prefix_lm"), a, b, c, a], [4]),
        ([paradigm("infilling"), a, mask, c, mask], [1, 2, -1, 4]),
        ([paradigm("infilling"), mask, b, mask], [0, 1, -1, 3, 4]),
        ([paradigm("infilling"), mask, b, c, mask, a], [0, -1, 3]),
    ]
    rows = torch.tensor([["ABC?".index(x) for x in one] for one in templates])
    rows = rows.where(rows < 3, -1)
    mixed, plain = model("uniform"), model("next_token")
    for made in (mixed, plain):
        found = made.sample(template=templates, random_state=3)
        for number, (row, (inputs, places)) in enumerate(
            zip(rows, prompts, strict=True)
        ):
            if made is plain:
                inputs, places = [paradigm("next_token")], range(LENGTH)
            wanted = drawn_anew(made, row, number + 3 * 2**31, inputs, places)
            assert found[number] == "".join("ABC"[x] for x in wanted)
    n_gaps = torch.tensor([5, 3, 1, 3, 4, 2])
    mixed.sample(template=templates, random_state=3)
    assert mixed.last_work.n_tokens.equal(n_gaps)
    # The first pass draws a token, and a separator takes one of its own.
    separators = torch.tensor([0, 0, 0, 1, 1, 1])
    assert mixed.last_work.n_passes.equal(n_gaps + separators)
    assert mixed.last_work.n_rows.tolist() == [6, 6, 6, 9, 9, 9]


@pytest.mark.parametrize("objectives", ["next_token", "uniform"])
@pytest.mark.parametrize("with_ends", [False, True])
def test_nothing_depends_on_the_batch(objectives, with_ends):
    made = model(objectives, with_ends=with_ends, classes=["x", "y"])
    labels = ["x", "y", "x", "y"]
    templates = ["A?B??", "?????", "AB???", "A??B?"]
    if with_ends:
        templates = ["A?B", "?", "AB", "A??B"]
    for options in ({}, {"template": templates}):
        found = made.sample(4, labels, random_state=2, **options)
        first = {key: one[:2] for key, one in options.items()}
        assert made.sample(2, labels[:2], random_state=2, **first) == found[:2]
    filled = made.infill(templates, labels, random_state=0)
    assert made.infill(templates[:2], labels[:2], random_state=0) == filled[:2]
    assert [len(one) for one in filled] == [len(one) for one in templates]
    assert all(x in ("?", y) for one, two in zip(templates, filled, strict=True)
               for x, y in zip(one, two, strict=True))  # fmt: skip
    values = made.score_samples(filled, labels)
    alone = [made.score_samples([one], [y])[0]
             for one, y in zip(filled, labels, strict=True)]  # fmt: skip
    np.testing.assert_allclose(values, alone, rtol=0, atol=1e-11)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([(0.15, 1), (0.5, 2), (0.85, 4)]))
def test_prompts_are_laid_out_as_training_rows(seed, hidden):
    generator = np.random.default_rng(seed)
    x = generator.integers(N_TOKENS, size=generator.integers(2, 15))
    asked = ObjectiveConfiguration("infilling", *hidden)
    inputs, labels = training_row(asked, x, WORDS, generator)
    visible = inputs[inputs != WORDS.paradigm("infilling")]
    spans = np.split(labels[:-1], np.flatnonzero(labels == WORDS.separator))
    lengths = iter([len(one) - (number > 0) for number, one in enumerate(spans)])
    is_gap = np.concatenate(
        [[True] * next(lengths) if one == WORDS.mask else [False] for one in visible]
    ).astype(bool)
    prompt = infilling(x, is_gap, WORDS)
    assert prompt.inputs[1:].tolist() == visible.tolist()
    written = np.where(prompt.places < 0, WORDS.separator, x[prompt.places])
    assert written.tolist() == labels[:-1].tolist()  # but for DONE
    inputs, labels = training_row(
        ObjectiveConfiguration("prefix_lm"), x, WORDS, generator
    )
    start = inputs[inputs != WORDS.paradigm("prefix_lm")]
    prompt = continuation(start, len(x), WORDS, as_input=True)
    assert sorted(prompt.inputs) == sorted(inputs)
    assert x[prompt.places].tolist() == labels[:-1].tolist()


def test_infilling_reads_what_stands_behind_the_gap():
    gaps = [f"A?{x}{y}A" for x, y in itertools.product("ABCDEF", repeat=2)]
    for objectives, n_least in (("uniform", 2), ("next_token", 1)):
        made = model(objectives, n_tokens=6)
        found = {one[1] for one in made.infill(gaps, temperature=0)}
        # Left to right, what is most probable is one and the same.
        assert len(found) >= n_least
        assert (len(found) == 1) == (objectives == "next_token")


# --- Objectives and their mixture -----------------------------------------------------


def batch_of(n=40, length=12):
    return SequenceBatch(some_tokens(n, length), torch.arange(n), None)


def asked(loss, net, batch):
    """Objectives of the rows of a step."""
    names = {WORDS.paradigm(one.objective): one.objective
             for one in loss.configurations}  # fmt: skip
    return [next(names[x] for x in (row.inputs[0], row.inputs[-1]) if x in names)
            for row in loss.rows(net, batch)]  # fmt: skip


def test_rows_are_drawn_by_the_action_and_in_validation_uniformly():
    configurations, net = default_configurations(), network()
    weights = [one.objective == "copying" for one in configurations]
    loss = MixtureLoss(0, None, configurations, FixedMixture(weights), None, 100)
    assert set(asked(loss, net.train(), batch_of())) == {"copying"}
    first = loss.rows(net, batch_of())
    loss.on_step(1, 100)
    again = loss.rows(net, batch_of())
    assert any(len(x.labels) != len(y.labels)
               for x, y in zip(first, again, strict=True))  # fmt: skip
    found = asked(loss, net.eval(), batch_of(400))
    assert len(set(found)) == 7
    assert found[:40] == asked(loss, net, batch_of())  # a row is its sequence's own


@pytest.mark.parametrize("objectives", OBJECTIVES)
def test_all_mixtures_train(objectives):
    both_ways = objectives in ("next_token", "bandit")
    rng = np.random.default_rng(0)
    X = ["".join(rng.choice(list("AB"), 3 + i % 4)) for i in range(24)]
    params = {**SMALL, "max_epochs": 5, "batch_size": 8, "n_layers": 1}
    made = PrefixStateSpace(
        objectives=objectives, prefix_bidirectional=both_ways, **params
    ).fit(X)
    losses = [one["train_loss"] for one in made.history_]
    assert losses[-1] < losses[0]
    steered = objectives in ("bandit", "reward_model")
    assert [one["step"] for one in made.mixture_history_] == [10] * steered
    for one in made.mixture_history_:
        action = np.array(one["probabilities"])
        assert (action >= 0).all()
        assert action.sum() == pytest.approx(1)
        assert min(one["losses"]) > 0


def halt(params, X, monkeypatch):
    """A run that loses power behind five sixths of its steps."""
    original = PrefixStateSpace._loss

    def loss(self, seed):
        made = original(self, seed)
        on_step = made.on_step

        def stop(step, n_steps):
            if step >= 5 * n_steps // 6 + 2:
                raise RuntimeError("power cut")
            on_step(step, n_steps)

        made.on_step = stop
        return made

    with monkeypatch.context() as patch:
        patch.setattr(PrefixStateSpace, "_loss", loss)
        with pytest.raises(RuntimeError, match="power cut"):
            PrefixStateSpace(**params).fit(X)


def test_a_controller_goes_on_from_a_checkpoint(tmp_path, monkeypatch):
    X = ["ABCA", "ABCB", "CBAA", "CAAB", "BBAC", "AACB", "BCBA", "CCAB"] * 3
    params = {**SMALL, "objectives": "bandit", "max_epochs": 6, "batch_size": 2}
    params |= {"n_layers": 1, "learning_rate": 0.02, "validation_fraction": 0.0}
    whole = PrefixStateSpace(**params).fit(X)
    assert [one["step"] for one in whole.mixture_history_] == [10, 50]
    assert whole.mixture_history_[1]["probabilities"] != [1 / 33] * 33
    right, wrong = tmp_path / "right", tmp_path / "wrong"
    halt({**params, "checkpoint_dir": right}, X, monkeypatch)
    shutil.copytree(right, wrong)
    # The rest of the run, and then the complete run once more.
    for _ in range(2):
        again = PrefixStateSpace(**params, checkpoint_dir=right).fit(X)
        assert again.mixture_history_ == whole.mixture_history_
        for name, one in whole.network_.state_dict().items():
            assert torch.equal(again.network_.state_dict()[name], one), name
    # Wrong: a controller that forgot what it was told.
    monkeypatch.setattr(MixtureLoss, "inform", lambda self, network: None)
    other = PrefixStateSpace(**params, checkpoint_dir=wrong).fit(X).network_
    symbols = whole.network_.recurrent.symbols
    assert not torch.equal(other.recurrent.symbols, symbols)


# --- The generator --------------------------------------------------------------------


@pytest.mark.parametrize("objectives", ["next_token", "bandit"])
def test_saved_copied_and_pickled(objectives, tmp_path):
    X = ["ABCA", "ABC", "CB", "CAAB"] * 6
    labels = [[0.1 * i, 1.0] for i in range(len(X))]
    params = {**SMALL, "max_epochs": 4, "n_layers": 1, "d_state": 6}
    made = PrefixStateSpace(objectives=objectives, recurrence="rg_lru", **params)
    made.fit(X, labels)
    wanted = made.score_samples(X, labels)
    samples = made.sample(3, labels[0], template="A", random_state=0)
    made.save(tmp_path / "model.sciseq")
    for other in (
        sciseq.load(tmp_path / "model.sciseq"),
        pickle.loads(pickle.dumps(made)),
        clone(made).fit(X, labels),
    ):
        np.testing.assert_array_equal(other.score_samples(X, labels), wanted)
        assert other.sample(3, labels[0], template="A", random_state=0) == samples
        assert other.mixture_history_ == made.mixture_history_


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"objectives": "reward"}, "objectives"),
        ({"recurrence": "lru"}, "recurrence"),
        ({"d_state": 5}, "d_state"),
        ({"d_model": 7}, "d_state"),
        ({"prefix_bidirectional": "no"}, "prefix_bidirectional"),
    ],
)
def test_wrong_parameters(wrong, told):
    with pytest.raises(InputError, match=told):
        PrefixStateSpace(**{**SMALL, **wrong}).fit(["AB"] * 8)
    PrefixStateSpace(
        **{**SMALL, "d_state": 5, "n_layers": 1}, prefix_bidirectional=False,
        objectives="next_token",
    ).fit(["AB", "BA"] * 4)  # fmt: skip


def test_what_it_cannot_do_is_said():
    made = model(with_ends=True)
    with pytest.raises(InputError, match="2 tokens, prefix_length is 3"):
        made.score_samples(["ABA", "AB"], prefix_length=3)
    with pytest.raises(InputError, match="prefix_length"):
        made.score_samples(["AB"], prefix_length=-1)
    with pytest.raises(CapabilityError, match="states"):
        made._decoder(Drawing())
    net = network()
    layout = row_layout(torch.zeros(1, 3, dtype=torch.bool))
    with pytest.raises(CapabilityError, match="order"):
        net(net.embed(some_tokens(1, 3), layout), layout, full)
    assert layout_carry(layout).backward.any().item() is False
