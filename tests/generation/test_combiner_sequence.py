"""Combiner sequences: invariants of card §13 in a generator (tests T13, T14, T06, T25).

Axes: as in the module.
"""

import itertools
import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone

import sciseq
from sciseq.errors import CapabilityError, InputError
from sciseq.generation.parts import combiner_backbone
from sciseq.generation.parts.backbone import TokenTransformer
from sciseq.generation.parts.combiner_backbone import CombinerTransformer
from sciseq.generation.parts.drawing import Drawing
from sciseq.generation.parts.layout import Layout
from sciseq.generation.parts.masks import full
from sciseq.generation.parts.network import Condition, SequenceNetwork
from sciseq.generation.parts.requests import Requests, generate
from sciseq.generation.sequences.autoregressive import (
    AutoregressiveDecoder,
    next_token_scores,
)
from sciseq.generation.sequences.combiner import CombinerSequence
from sciseq.nn import build_network

N_TOKENS, LENGTH = 3, 10
PLANS = ["fixed", "logsparse", "axial_vertical", "axial_row_major"]
SMALL = {
    "d_model": 8, "d_ff": 8, "n_layers": 1, "n_heads": 2, "max_epochs": 1,
    "batch_size": 8, "random_state": 0, "device": "cpu", "precision": "float64",
}  # fmt: skip


def network(backbone_type=CombinerTransformer, n_features=0, **others):
    sizes = (N_TOKENS, LENGTH, 8, 12, 2, 2, 0.0)
    made = build_network(
        lambda: SequenceNetwork(backbone_type(*sizes, **others), 8, n_features),
        torch.Generator().manual_seed(0),
    )
    made = made.double().eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(1)
    for one in made.parameters():  # far from the start, where all tokens look alike
        one += 0.5 * torch.randn(one.shape, generator=generator, dtype=one.dtype)
    return made


def some_tokens(n, length=LENGTH, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, N_TOKENS, (n, length), generator=generator)


def peaks(*counts, seed=0):
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(len(counts), max(counts), 2, generator=generator).double()
    is_row = torch.arange(max(counts)) < torch.tensor(counts)[:, None]
    return Condition(rows, is_row)


def equal(a, b):
    torch.testing.assert_close(a, b, rtol=0, atol=1e-11)


# --- Limits ---------------------------------------------------------------------------


@pytest.mark.parametrize("span", [1, LENGTH + 2])
@pytest.mark.parametrize("n_features", [0, 2])
def test_dense_limit(span, n_features) -> None:
    combiner = network(span=span, n_features=n_features)
    dense = network(TokenTransformer, n_features=n_features)
    dense.backbone.load_state_dict(combiner.backbone.transformer.state_dict())
    rest = {k: v for k, v in combiner.state_dict().items() if "backbone" not in k}
    dense.load_state_dict(rest, strict=False)
    condition = peaks(1, 1, 1) if n_features else None
    tokens = some_tokens(3)
    wanted = next_token_scores(dense, tokens, condition)
    equal(next_token_scores(combiner, tokens, condition), wanted)
    between = network(span=3, n_features=n_features)
    between.load_state_dict(combiner.state_dict())
    assert (next_token_scores(between, tokens, condition) - wanted).abs().max() > 1e-3


@pytest.mark.parametrize("plan", [*PLANS, ["fixed", "axial_row_major"]])
def test_each_score_rests_on_all_that_is_before_and_nothing_behind(plan) -> None:
    made = network(plan=plan, span=3)
    tokens = some_tokens(1)
    embedded = made.embed(tokens, Layout.of(LENGTH)).requires_grad_()
    made.embed = lambda tokens, layout: embedded[:, : tokens.shape[1]]
    scores = next_token_scores(made, tokens, None)
    mixture = torch.tensor([0.3, -1.1, 0.7], dtype=torch.float64)
    for i, value in enumerate((scores[0] * mixture).sum(-1)):
        (gradient,) = torch.autograd.grad(value, embedded, retain_graph=True)
        is_read = gradient[0].abs().amax(-1) > 0
        assert is_read.tolist() == [j < i for j in range(LENGTH)]


# --- What is cached -------------------------------------------------------------------


class Watched(AutoregressiveDecoder):
    """Keeps the scores behind every position."""

    def __init__(self):
        super().__init__(Drawing())
        self.seen = {}

    def _draw(self, requests):
        at = requests.memory["at"]
        for number, place, scores in zip(
            requests.number.tolist(), at.tolist(), requests.memory["next"], strict=True
        ):
            self.seen[number, place] = scores
        super()._draw(requests)


def decoded(made, condition):
    """Tokens of requests at unequal places, and what was said before each."""
    tokens = some_tokens(3)
    is_filled = torch.zeros(3, LENGTH, dtype=torch.bool)
    is_filled[1, :4] = is_filled[2, 3:6] = True
    requests = Requests(
        tokens.where(is_filled, made.mask), is_filled, torch.arange(3), made.mask,
        condition,
    )  # fmt: skip
    decoder = Watched()
    return generate(made, decoder, requests)[0], decoder.seen


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("n_features", [0, 2])
def test_cached_scores_are_those_of_one_pass(plan, n_features) -> None:
    made = network(plan=plan, span=3, n_features=n_features)
    condition = peaks(2, 4, 1) if n_features else None
    tokens, seen = decoded(made, condition)
    scores = next_token_scores(made, tokens, condition)
    places = [(number, place) for number, place in seen if place < LENGTH]
    assert len(places) > 20
    for number, place in places:
        equal(seen[number, place], scores[number, place])


def test_rows_in_the_order_of_the_cache_are_seen(monkeypatch) -> None:
    def unordered(rows, n_told):
        place = torch.arange(rows.n_rows).expand_as(rows.position)
        return place, rows.n_rows

    made = network(span=3)
    monkeypatch.setattr(combiner_backbone, "_places", unordered)
    tokens, seen = decoded(made, None)
    scores = next_token_scores(made, tokens, None)
    worst = max(
        float((seen[n, i] - scores[n, i]).abs().max()) for n, i in seen if i < LENGTH
    )
    assert worst > 1e-3


def test_padding_of_conditions_is_not_read() -> None:
    made, tokens = network(span=3, n_features=2), some_tokens(3)
    condition = peaks(2, 5, 1)
    together = next_token_scores(made, tokens, condition)
    for one, n_rows in enumerate([2, 5, 1]):
        alone = Condition(
            condition.rows[[one], :n_rows], condition.is_row[[one], :n_rows]
        )
        equal(next_token_scores(made, tokens[[one]], alone), together[[one]])
    turned = Condition(condition.rows[[1]].flip(1), condition.is_row[[1]])
    equal(next_token_scores(made, tokens[[1]], turned), together[[1]])


def test_what_it_cannot_do_is_said() -> None:
    made, layout = network(span=3), Layout.of(4)
    x = made.embed(some_tokens(1, 4), layout)
    with pytest.raises(CapabilityError, match="causal"):
        made(x, layout, full)
    with pytest.raises(InputError, match="span"):
        network(span=0)
    with pytest.raises(InputError, match="plan"):
        network(plan="fix")
    assert made(x, layout, combiner_backbone.causal).shape == (1, 4, 8)


# --- The generator --------------------------------------------------------------------


def texts(length=6, n=24, seed=0):
    rng = np.random.default_rng(seed)
    return ["".join(rng.choice(list("ab"), length)) for _ in range(n)]


@pytest.mark.parametrize("plan", PLANS)
def test_probabilities_of_all_sequences_sum_to_one(plan) -> None:
    model = CombinerSequence(plan=plan, span=2, **SMALL).fit(texts())
    everything = ["".join(one) for one in itertools.product("ab", repeat=6)]
    assert np.exp(model.score_samples(everything)).sum() == pytest.approx(1, abs=1e-9)


def test_samples_do_not_depend_on_their_number_and_keep_templates() -> None:
    words = [one[: 1 + i % 6] for i, one in enumerate(texts())]
    labels = ["x" if i % 2 else "y" for i in range(len(words))]
    model = CombinerSequence(plan=["fixed", "axial_vertical"], **SMALL)
    model.fit(words, labels)
    many = model.sample(5, condition="x", random_state=3)
    assert many[:2] == model.sample(2, condition="x", random_state=3)
    assert all(set(one) <= {"a", "b"} and len(one) <= 6 for one in many)
    assert model.infill(["a?b?"], condition="y", random_state=0)[0][::2] == "ab"


def test_saved_copied_and_pickled(tmp_path) -> None:
    data = texts()
    model = CombinerSequence(plan=["fixed", "logsparse"], span=2, **SMALL).fit(data)
    wanted = model.score_samples(data)
    model.save(tmp_path / "model.sciseq")
    for other in (
        sciseq.load(tmp_path / "model.sciseq"),
        pickle.loads(pickle.dumps(model)),
        clone(model).fit(data),
    ):
        np.testing.assert_array_equal(other.score_samples(data), wanted)
        assert other.sample(3, random_state=0) == model.sample(3, random_state=0)


@pytest.mark.parametrize(
    "wrong", [{"plan": "fix"}, {"plan": []}, {"plan": 3}, {"span": 0}]
)
def test_wrong_parameters(wrong) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        CombinerSequence(**{**SMALL, **wrong}).fit(texts())
