"""LaViDa and ViLaD: complementary masks, a stored prefix, plans and templates."""

import itertools
import math

import numpy as np
import pytest
import torch
from masked_toys import GREEDY, ready, run, toy_condition, toy_network

from sciseq.errors import DataQualityError, InputError
from sciseq.generation.parts.batches import SequenceBatch
from sciseq.generation.parts.drawing import Drawing, log_probabilities
from sciseq.generation.parts.masks import full, prefix_bidirectional
from sciseq.generation.parts.plans import transfer_plan
from sciseq.generation.parts.reveal import Reveal
from sciseq.generation.parts.whole_decoder import WholeDecoder
from sciseq.generation.sequences.conditional_diffusion import (
    ConditionalDiffusionSequence,
    FreeTokenLoss,
    PrefixDecoder,
    free_bound,
    planned_amounts,
)
from sciseq.generation.sequences.masked_diffusion import denoising_scores
from sciseq.generation.sequences.sequential_prompt import SequentialPromptSampler

LENGTH = 6
OPEN = [[-1] * LENGTH] * 4
PARTLY = [[-1, 0, -1, -1, 2, -1], [-1] * 6, [1, 1, -1, -1, 0, 0], [0, 0, 0, 0, 0, -1]]
FREE = torch.tensor([True, True, False, True, True, False])

# --- Training -------------------------------------------------------------------------


def toy_batch(n=200, seed=0):
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(3, (1, LENGTH), generator=generator).expand(n, -1)
    return SequenceBatch(tokens, torch.arange(n), None)


def seen_masks(loss, batch, monkeypatch):
    network, seen = toy_network(3, LENGTH), []
    monkeypatch.setattr(
        FreeTokenLoss,
        "_part",
        lambda self, network, batch, mask, p: (seen.append((mask, p)), p.sum())[1],
    )
    _, n = loss(network, batch)
    return seen, int(n)


@pytest.mark.parametrize("is_bound", [False, True])
def test_complementary_masks_part_the_free_tokens(is_bound, monkeypatch):
    loss = FreeTokenLoss(3, FREE, is_bound=is_bound)
    ((one, p), (other, q)), n = seen_masks(loss, toy_batch(), monkeypatch)
    assert not (one & other).any()
    assert torch.equal(one | other, FREE.expand_as(one))
    assert 0 < int(one.sum()) < one.numel()
    if is_bound:
        torch.testing.assert_close(p + q, torch.ones_like(p))
        assert n == 2 * 4 * 200
    else:
        assert bool(one.any(dim=1).all())
        assert p.tolist() == q.tolist() == [1.0] * 200
        assert n == 4 * 200  # each of them once


def exact_bound(network, tokens, free):
    """Sum over counts k of the mean over masks of log-likelihoods over k."""
    places, total = free.nonzero().flatten().tolist(), 0.0
    for count in range(1, len(places) + 1):
        some = list(itertools.combinations(places, count))
        for chosen in some:
            mask = torch.zeros(1, LENGTH, dtype=torch.bool)
            mask[0, list(chosen)] = True
            shown = tokens.masked_fill(mask, network.mask)
            with torch.no_grad():
                scores = denoising_scores(network, shown, None)
            logs = log_probabilities(scores, tokens).where(mask, 0.0).sum()
            total += float(logs) / count / len(some)
    return total


@pytest.mark.parametrize("is_complementary", [True, False])
def test_weights_make_a_bound_and_uniform_ones_do_not(is_complementary, monkeypatch):
    network, batch = toy_network(3, LENGTH), toy_batch(20_000)

    def part(self, network, batch, mask, p):
        """Each of k hidden tokens loses k^2."""
        return (mask.sum(dim=1).double() ** 3 / p).sum()

    monkeypatch.setattr(FreeTokenLoss, "_part", part)
    expected = sum(k**2 for k in range(1, 5)) / 4  # the mean over counts of k^2

    def mean(is_bound):
        loss = FreeTokenLoss(1, FREE, is_complementary=is_complementary,
                             is_bound=is_bound)  # fmt: skip
        total, n = loss(network, batch)
        return float(total) / int(n)

    assert mean(True) == pytest.approx(expected, rel=0.03)
    assert abs(mean(False) - expected) > 0.06 * expected


def test_estimates_of_the_bound_are_unbiased():
    network, tokens, n = toy_network(3, LENGTH), toy_batch().tokens[:1], 400
    with torch.no_grad():
        found = torch.cat([
            free_bound(network, tokens, FREE, None, (2, i, n)) for i in range(n)
        ])  # fmt: skip
    error = float(found.std()) / n**0.5
    exact = exact_bound(network, tokens, FREE)
    assert float(found.mean()) == pytest.approx(exact, abs=4 * error)
    everything = torch.ones_like(FREE)
    assert abs(exact_bound(network, tokens, everything) - exact) > 10 * error


# --- Sampling -------------------------------------------------------------------------


class Traced:
    def commit(self, requests, rows, scores):
        self.seen = [*getattr(self, "seen", []), scores.clone()]
        super().commit(requests, rows, scores)


class Cached(Traced, PrefixDecoder):
    pass


class Anew(Traced, PrefixDecoder):
    keeps_prefix = False


class Full(Traced, PrefixDecoder):
    """Wrong: the stored prefix is not what it would be if it read the sequence."""

    def __init__(self, *args):
        super().__init__(*args)
        self.rule = full


@pytest.mark.parametrize("n_layers", [1, 3])
def test_a_stored_prefix_is_exact_under_its_mask(n_layers):
    network = toy_network(4, LENGTH, n_layers=n_layers, n_features=2)
    told = toy_condition(4)

    def made(cls):
        # One order for all, whatever is drawn.
        one = cls(Drawing(), Reveal("left_to_right", planned_amounts(LENGTH, 3)))
        tokens, work = run(network, one, PARTLY, condition=told)
        return tokens, work, one.seen

    tokens, work, seen = made(Cached)
    expected, more, again = made(Anew)
    assert torch.equal(tokens, expected)
    for one, other in zip(seen, again, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)
    n_prefix = 1 + told.is_row.sum(dim=1)
    n_passes = more.n_passes
    assert work.n_passes.tolist() == (n_passes + 1).tolist()
    assert work.n_rows.tolist() == (n_prefix + n_passes * LENGTH).tolist()
    assert more.n_rows.tolist() == (n_passes * (n_prefix + LENGTH)).tolist()
    # Under full attention the same cache is wrong, but with one layer.

    class FullAnew(Full):
        keeps_prefix = False

    first, second = made(Full)[2][0], made(FullAnew)[2][0]
    gap = float((first - second).abs().max())
    assert (gap < 1e-12) if n_layers == 1 else (gap > 1e-3)


def test_prefix_rule_hides_the_sequence_from_the_prefix():
    network = toy_network(4, LENGTH, n_features=2)
    _, before = network.prefix(1, toy_condition(1))
    one = WholeDecoder(GREEDY, Reveal())
    assert one.rule is full and PrefixDecoder(GREEDY, Reveal()).rule is (
        prefix_bidirectional
    )
    assert not before.maskable.any()


def test_plan_is_followed_and_entered_where_tokens_are_given():
    amount, step = planned_amounts(32, 8), torch.zeros(1)
    golden, hidden = [], torch.tensor([32])
    while int(hidden):
        golden.append(int(amount(hidden, step)))
        hidden = hidden - golden[-1]
    assert golden == [10, 6, 5, 3, 3, 2, 2, 1]
    # 20 of 32 hidden: t = 20/32, so that the plan goes on at its next level, 16.
    assert int(amount(torch.tensor([20]), step)) == 4
    ones = planned_amounts(9, 9)
    assert [int(ones(torch.tensor([n]), step)) for n in range(1, 10)] == [1] * 9
    more = planned_amounts(3, 10)  # no more passes than tokens
    assert [int(more(torch.tensor([n]), step)) for n in (1, 2, 3)] == [1, 1, 1]


@pytest.mark.parametrize("order", ["confidence", "random", "margin", "entropy"])
@pytest.mark.parametrize("n_steps", [2, 4, LENGTH])
def test_passes_are_those_of_the_plan(order, n_steps):
    model = ready(ConditionalDiffusionSequence, 4, LENGTH, order=order,
                  n_steps=n_steps)  # fmt: skip
    model.sample(3, random_state=0)
    assert model.last_work.n_passes.tolist() == [1 + n_steps] * 3
    if n_steps == LENGTH:
        assert transfer_plan(LENGTH, n_steps).tolist() == [1] * LENGTH


def test_orders_differ():
    found = {
        order: tuple(
            ready(ConditionalDiffusionSequence, 4, LENGTH, order=order).sample(
                8, random_state=0
            )
        )
        for order in ("confidence", "random", "margin", "entropy")
    }
    assert len(set(found.values())) == 4


# --- Templates ------------------------------------------------------------------------


def with_template(**params):
    return ready(
        ConditionalDiffusionSequence, 4, LENGTH,
        **{"template": "??D??D", "legal": {0: "AB", 4: "C"}, "n_steps": 2, **params},
    )  # fmt: skip


def test_samples_keep_to_template_and_legal_tokens():
    found = with_template().sample(40, random_state=0)
    assert all(one[2] == one[5] == "D" and one[0] in "AB" for one in found)
    assert {one[4] for one in found} == {"C"}
    assert len(set(found)) > 3
    # Wrong: without them other tokens come.
    free = with_template(template=None, legal=None).sample(40, random_state=0)
    assert not all(one[2] == one[5] == "D" for one in free)


def test_a_template_of_a_call_completes_that_of_the_model():
    found = with_template().sample(4, template="A?????", random_state=0)
    assert all(one[0] == "A" and one[2] == "D" for one in found)
    with pytest.raises(InputError, match="contradicts"):
        with_template().sample(template="??A???")
    with pytest.raises(InputError, match="no token is legal at position 4"):
        with_template().sample(allowed="AB")
    both = with_template().sample(9, allowed={0: "BC"}, random_state=0)
    assert {one[0] for one in both} == {"B"}


def test_no_free_position_takes_no_pass():
    model = with_template(template="ABDACD")
    assert model.sample(2, random_state=0) == ["ABDACD"] * 2
    assert model.last_work.n_passes.tolist() == [0, 0]
    assert model.score_samples(["ABDACD"]).tolist() == [0.0]


def test_an_empty_template_changes_nothing():
    plain = with_template(template=None, legal=None)
    empty = with_template(template="??????", legal={})
    assert plain.sample(5, random_state=0) == empty.sample(5, random_state=0)
    X = ["ABCDAB"]
    assert plain.score_samples(X) == empty.score_samples(X)


@pytest.mark.parametrize("prefix_cache", [True, False])
def test_given_tokens_never_change(prefix_cache):
    model = ready(ConditionalDiffusionSequence, 4, LENGTH, prefix_cache=prefix_cache)
    found = model.infill(["A??B?C", "??????", "ABCDAB"], random_state=0)
    assert [found[0][i] for i in (0, 3, 5)] == ["A", "B", "C"]
    assert found[2] == "ABCDAB"


def test_samples_are_whole_reproducible_and_of_themselves():
    model = ready(ConditionalDiffusionSequence, 4, 7, with_ends=True, n_steps=3,
                  classes=["on", "off"])  # fmt: skip
    told = ["on", "off", "on", "off"]
    four = model.sample(condition=told, template="?B", random_state=3)
    assert four == model.sample(condition=told, template="?B", random_state=3)
    two = model.sample(condition=told[:2], template="?B", random_state=3)
    assert four[:2] == two
    assert four != model.sample(condition=told, template="?B", random_state=4)
    assert all(set(one) <= set("ABC") for one in four)


# --- Learning -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fitted():
    rng = np.random.default_rng(0)
    y = rng.choice(["A", "B"], 60).tolist()
    X = [f"{one}{rng.choice(list('AB'))}-{one}{one}" for one in y]
    model = ConditionalDiffusionSequence(
        template="??-??", legal={0: "AB", 1: "AB", 3: "AB", 4: "AB"}, d_model=16,
        d_ff=32, n_heads=2, max_epochs=40, batch_size=30, dropout=0.0, n_steps=2,
        learning_rate=1e-2, validation_fraction=0.0, random_state=0, device="cpu",
    )  # fmt: skip
    return model.fit(X, y), X, y


def test_a_wrong_condition_lowers_the_likelihood(fitted):
    model, X, y = fitted
    other = ["B" if one == "A" else "A" for one in y]
    assert model.score(X, y) > model.score(X, other) + 3
    assert model.score(X, y) > -math.log(2) - 0.5


def test_samples_parse_and_belong_to_their_condition(fitted):
    model, _, _ = fitted
    found = model.sample(condition=["A"] * 20 + ["B"] * 20, random_state=0)
    assert all(one[2] == "-" and "-" not in one[:2] + one[3:] for one in found)
    right = [one[0] == "AB"[i // 20] for i, one in enumerate(found)]
    assert np.mean(right) > 0.9


def test_gaps_are_filled_within_the_template(fitted):
    model, _, _ = fitted
    for one in (model, SequentialPromptSampler.around(model)):
        made = one.infill(["?????", "A??B?"], condition=["A", "B"], random_state=0)
        assert all(one[2] == "-" and "-" not in one[:2] + one[3:] for one in made)
        assert made[1].startswith("A")
        assert made[1][3] == "B"
        with pytest.raises(InputError, match=r"sequence 1 contradicts .* position 2"):
            one.infill(["?????", "??A??"], condition=["A", "B"])


def test_what_the_template_fixes_is_legal():
    model = ready(ConditionalDiffusionSequence, 3, 5, template="??C??")
    for legal in (None, dict.fromkeys(range(5), "AB")):
        model.set_params(legal=legal)
        for made in (
            model.sample(4, allowed="AB", random_state=0),
            model.infill(["?????"] * 4, random_state=0) if legal else [],
        ):
            assert all(one[2] == "C" and "C" not in one[:2] + one[3:] for one in made)
    with pytest.raises(InputError, match="gives 'C' at position 0"):
        model.sample(2, template="C????", allowed="AB")


def test_a_fitted_model_is_kept_whole(fitted):
    model, _, _ = fitted
    read = ConditionalDiffusionSequence(**model.get_params())
    read._set_saved_state(*model._get_saved_state())
    expected = model.sample(condition=["A", "B"], random_state=1)
    assert read.sample(condition=["A", "B"], random_state=1) == expected


def test_sequences_that_break_the_template_are_refused():
    model = ConditionalDiffusionSequence(template="??-", device="cpu")
    with pytest.raises(DataQualityError, match="'A-A' has an illegal token at place 2"):
        model.fit(["AA-", "A-A"])
    model = ConditionalDiffusionSequence(legal={0: "A"}, device="cpu")
    with pytest.raises(DataQualityError, match="place 0"):
        model.fit(["AA", "BA"])
