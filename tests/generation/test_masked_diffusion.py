"""Masked diffusion: conditionals, orders, the bound, and what a pass counts."""

import itertools
import math

import numpy as np
import pytest
import torch
from sequence_toys import every_row, every_string, fitted, follows, run, tiny_network
from torch.testing import assert_close

from sciseq.generation.parts.batches import SequenceBatch
from sciseq.generation.parts.drawing import Drawing
from sciseq.generation.parts.reveal import Reveal, equal_amounts
from sciseq.generation.parts.whole_decoder import WholeDecoder
from sciseq.generation.sequences import masked_diffusion
from sciseq.generation.sequences.conditional_diffusion import (
    ConditionalDiffusionSequence,
)
from sciseq.generation.sequences.masked_diffusion import (
    MaskedDiffusionLoss,
    MaskedDiffusionSequence,
    denoising_scores,
    whole_bound,
)

N_TOKENS, LENGTH = 3, 3


def conditionals(network, rows):
    """log p(x_i | x without S) for all S, (subset, string, position)."""
    found = {}
    for hidden in itertools.product([False, True], repeat=rows.shape[1]):
        mask = torch.tensor(hidden)
        shown = rows.masked_fill(mask, network.mask)
        logs = denoising_scores(network, shown, None).log_softmax(-1)
        found[hidden] = logs.gather(2, rows.unsqueeze(2)).squeeze(2)
    return found


def by_orders(network, rows):
    """log p of each string along each order of its positions (order, string)."""
    table, length = conditionals(network, rows), rows.shape[1]
    paths = []
    for order in itertools.permutations(range(length)):
        hidden, total = [True] * length, torch.zeros(len(rows), dtype=torch.float64)
        for i in order:
            total = total + table[tuple(hidden)][:, i]
            hidden[i] = False
        paths.append(total)
    return torch.stack(paths)


@torch.no_grad()
def test_samples_have_the_law_of_random_orders():
    network = tiny_network(N_TOKENS, LENGTH)
    model = fitted(MaskedDiffusionSequence, N_TOKENS, LENGTH, network=network)
    rows = every_row(N_TOKENS, LENGTH)
    law = by_orders(network, rows).exp().mean(dim=0)
    strings = every_string("ABC", LENGTH)
    found = model.sample(4000, random_state=1)
    counts = [found.count(one) for one in strings]
    assert sum(counts) == 4000
    assert follows(counts, law)
    # One order alone is another law, and so is all at once.
    assert not follows(counts, by_orders(network, rows)[0].exp())
    at_once = conditionals(network, rows)[(True,) * LENGTH].sum(dim=1).exp()
    assert not follows(counts, at_once)
    model.set_params(n_steps=1)
    found = model.sample(4000, random_state=1)
    assert follows([found.count(one) for one in strings], at_once)


@torch.no_grad()
def test_left_to_right_has_the_law_of_that_order():
    network = tiny_network(N_TOKENS, LENGTH)
    model = fitted(MaskedDiffusionSequence, N_TOKENS, LENGTH, network=network,
                   order="left_to_right")  # fmt: skip
    found = model.sample(4000, random_state=1)
    law = by_orders(network, every_row(N_TOKENS, LENGTH))[0].exp()
    assert follows([found.count(one) for one in every_string("ABC", LENGTH)], law)


@torch.no_grad()
def test_the_bound_is_the_mean_over_orders():
    """Card (2): the mean left-to-right likelihood of uniformly random orders."""
    network = tiny_network(N_TOKENS, LENGTH)
    rows = every_row(N_TOKENS, LENGTH)
    paths = by_orders(network, rows)
    model = fitted(MaskedDiffusionSequence, N_TOKENS, LENGTH, network=network,
                   n_estimates=90)  # fmt: skip
    strings = every_string("ABC", LENGTH)
    values, errors = model.score_samples(strings, return_std=True)
    exact = paths.mean(dim=0).numpy()
    assert (np.abs(values - exact) < 4.5 * errors).all()
    assert (exact <= paths.exp().mean(dim=0).log().numpy() + 1e-12).all()  # a bound
    model.set_params(n_estimates=2)
    first = model.score_samples(strings)
    assert (model.score_samples(strings) == first).all()
    assert (model.score_samples(strings, random_state=1) != first).any()


@torch.no_grad()
def test_counts_are_spread_evenly_over_the_draws():
    network = tiny_network(2, 6)
    tokens = torch.zeros(1, 6, dtype=torch.int64)
    seen = []

    def read(shown, *args):
        seen.append(int((shown == network.mask).sum()))
        return original(shown, *args)

    original, network.read = network.read, read
    for number in range(6):
        whole_bound(network, tokens, None, (3, number, 6))
    assert sorted(seen) == [1, 2, 3, 4, 5, 6]


@torch.no_grad()
def test_one_gap_is_filled_by_its_conditional():
    network = tiny_network(N_TOKENS, LENGTH)
    model = fitted(MaskedDiffusionSequence, N_TOKENS, LENGTH, network=network)
    law = conditionals(network, torch.tensor([[0, t, 2] for t in range(3)]))
    law = law[(False, True, False)][:, 1].exp()
    found = model.infill(["A?C"] * 3000, random_state=0)
    assert follows([found.count(f"A{x}C") for x in "ABC"], law)
    assert model.infill(["A?C"], temperature=0) == [f"A{'ABC'[int(law.argmax())]}C"]


@torch.no_grad()
def test_work_is_counted():
    """T26: nothing is cached, every pass computes begin and all positions."""
    network = tiny_network(3, 6)
    free = [[-1] * 6, [0, -1, -1, 1, 2, -1], [0, 1, 2, 0, 1, 2]]
    decoder = WholeDecoder(Drawing(), Reveal("random"))
    _, work = run(network, decoder, free)
    assert work.n_passes.tolist() == [6, 3, 0]
    assert work.n_rows.tolist() == [6 * 7, 3 * 7, 0]
    assert work.n_read.tolist() == [0, 0, 0]
    assert work.n_tokens.tolist() == [6, 3, 0]
    assert work.tokens_per_pass.tolist() == [1, 1, 0]
    assert_close(work.tokens_per_row[0], torch.tensor(1 / 7))
    decoder = WholeDecoder(Drawing(), Reveal("confidence", equal_amounts(2)))
    _, work = run(network, decoder, free)
    assert work.n_passes.tolist() == [2, 2, 0]
    assert work.tokens_per_pass.tolist() == [3, 1.5, 0]


@torch.no_grad()
def test_confidence_means_the_model_also_at_temperature_0():
    """The most certain token comes first, and a threshold does not keep all."""
    network, greedy = tiny_network(3, 5, seed=1), Drawing(temperature=0)
    scores = denoising_scores(network, torch.full((1, 5), network.mask), None)
    best = scores.softmax(-1).amax(-1)[0]
    if int(best.argmax()) == 0:  # where all seem certain, the first comes first
        pytest.fail("choose another seed")
    decoder = WholeDecoder(greedy, Reveal("confidence"))
    first = []
    commit = decoder.commit

    def spy(requests, rows, scores):
        commit(requests, rows, scores)
        first.append(requests.is_filled[0].clone())

    decoder.commit = spy
    run(network, decoder, [[-1] * 5])
    assert first[0].nonzero().flatten().tolist() == [int(best.argmax())]
    decoder = WholeDecoder(greedy, Reveal("confidence", threshold=0.9999))
    _, work = run(network, decoder, [[-1] * 5])
    assert int(work.n_passes) > 1


@pytest.fixture
def parts(monkeypatch):
    """Masks and levels of the parts of a loss, as they come."""
    seen = []

    def part(network, batch, mask, p):
        seen.append((mask, p))
        return p.sum()

    monkeypatch.setattr(MaskedDiffusionLoss, "_part", staticmethod(part))
    return seen


def some_batch(n=200, length=6):
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(3, (n, length), generator=generator)
    return SequenceBatch(tokens, torch.arange(n), None)


def test_complementary_masks_part_all_tokens(parts, monkeypatch):
    """T10: no token twice, every token once, at the levels p and 1 - p."""
    network, loss = tiny_network(3, 6), MaskedDiffusionLoss(3, is_complementary=True)
    _, count = loss(network, some_batch())
    (one, p), (other, q) = parts
    assert not (one & other).any() and (one | other).all()
    assert one.any() and other.any()
    assert_close(p + q, torch.ones_like(p))
    assert p.min() < 0.1 and p.max() > 0.9 and p.unique().numel() == 200
    assert (one.sum(dim=1) - 6 * p).abs().mean() < 1.2  # not the other way round
    assert (one.sum(dim=1) - 6 * q).abs().mean() > 2
    assert int(count) == 2 * one.numel()
    # Wrong: the first mask again.
    monkeypatch.setattr(masked_diffusion, "complement", lambda mask, maskable: mask)
    parts.clear()
    loss(network, some_batch())
    (one, _), (other, _) = parts
    assert (one & other).any() and not (one | other).all()


@pytest.mark.parametrize("template", [None, "?A??B?"])
@pytest.mark.parametrize("is_twice", [False, True])
def test_the_estimators_show_as_many_copies_as_they_are_told(parts, is_twice, template):
    cls, params, is_free = MaskedDiffusionSequence, {}, [True] * 6
    if template is not None:
        cls, params = ConditionalDiffusionSequence, {"template": template}
        is_free = [one == "?" for one in template]
    network = tiny_network(3, 6)
    model = fitted(cls, 3, 6, network=network, complementary=is_twice, **params)
    model._loss(3)(network, some_batch())
    assert len(parts) == 1 + is_twice
    shown = sum(mask.long() for mask, _ in parts)
    assert int(shown.max()) == 1  # hidden in one copy only
    always = (shown == 1).all(dim=0).tolist()
    assert always == (is_free if is_twice else [False] * 6)


def test_training_learns_a_law():
    data = ["AAB"] * 96 + ["CCB"] * 32
    model = MaskedDiffusionSequence(
        d_model=8, d_ff=8, n_layers=1, n_heads=2, dropout=0.0, max_epochs=25,
        learning_rate=0.05, batch_size=32, random_state=0, device="cpu",
        validation_fraction=0.0, n_estimates=12,
    ).fit(data)  # fmt: skip
    scores = model.score_samples(["AAB", "CCB", "ACB"])
    assert scores[0] == pytest.approx(math.log(0.75), abs=0.35)
    assert scores[0] > scores[1] > scores[2]
