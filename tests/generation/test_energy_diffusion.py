"""EDLM: candidates are weighed by an energy."""

import itertools
import math
import pickle

import numpy as np
import pytest
import torch
from masked_toys import every_row, ready, run, toy_network
from scipy import stats
from sequence_toys import every_string_up_to
from torch import nn

from sciseq.generation.parts.batches import SequenceBatch
from sciseq.generation.parts.drawing import Drawing, log_probabilities
from sciseq.generation.parts.energy_decoder import EnergyDecoder, log_partition
from sciseq.generation.parts.reveal import Reveal, equal_amounts
from sciseq.generation.parts.whole_decoder import WholeDecoder
from sciseq.generation.sequences.autoregressive import next_token_scores
from sciseq.generation.sequences.energy_diffusion import (
    EnergyDiffusionSequence,
    EnergyNetwork,
    NoiseContrastiveLoss,
    autoregressive_energy,
    energy_bound,
)
from sciseq.generation.sequences.masked_diffusion import (
    MaskedDiffusionSequence,
    denoising_scores,
    whole_bound,
)
from sciseq.nn import build_network

V, L = 3, 3
ROWS = every_row(V, L)
PLACES = torch.tensor([V**2, V, 1])
TABLE = 2.0 * torch.randn(V**L, generator=torch.Generator().manual_seed(3)).double()


def table_energy(clean, shown, log_mu, condition):
    return TABLE[(clean * PLACES).sum(dim=1)]


def constant(clean, shown, log_mu, condition):
    return torch.full((len(clean),), 7.0, dtype=torch.float64)


def decoder(energy=table_energy, *, n_candidates=2, n_steps=1, window=1.0, **params):
    reveal = Reveal("random", equal_amounts(n_steps))
    return EnergyDecoder(Drawing(), reveal, energy, n_candidates=n_candidates,
                         window=window, **params)  # fmt: skip


def mu_law(network):
    """Probabilities of all strings, drawn in one pass from nothing."""
    shown = torch.full((1, L), network.mask)
    with torch.no_grad():
        logs = denoising_scores(network, shown, None).log_softmax(dim=2)[0]
    return logs[torch.arange(L), ROWS].sum(dim=1).exp()


def pair_law(mu, weight):
    """Law of the better of two draws, exactly."""
    share = weight[:, None] / (weight[:, None] + weight[None, :])
    return 2 * mu * (share * mu[None, :]).sum(dim=1)


def counts(network, one, n=4000):
    tokens, _ = run(network, one, [[-1] * L] * n, seeds=torch.arange(n) * 3 + 1)
    return torch.bincount((tokens * PLACES).sum(dim=1), minlength=V**L)


def p_value(found, law):
    """Chi-square over cells of at least five expected; the rest is one cell."""
    law, found = law.numpy(), found.numpy()
    expected = law * found.sum()
    big = expected >= 5
    expected = np.append(expected[big], expected[~big].sum() + 1e-9)
    observed = np.append(found[big], found[~big].sum())
    statistic = ((observed - expected) ** 2 / expected)[expected > 1].sum()
    return stats.chi2.sf(statistic, len(expected) - 1)


# --- Laws -----------------------------------------------------------------------------


def test_law_of_two_candidates_is_exact():
    network = toy_network(V, L)
    law = pair_law(mu_law(network), (-TABLE).exp())
    torch.testing.assert_close(law.sum(), torch.tensor(1.0).double())
    assert p_value(counts(network, decoder()), law) > 1e-3
    # Wrong: high energies are preferred, as in the published code.
    wrong = decoder(lambda *args: -table_energy(*args))
    assert p_value(counts(network, wrong), law) < 1e-9
    assert p_value(counts(network, decoder(n_candidates=3)), law) < 1e-9


def test_temperature_divides_the_energy():
    network = toy_network(V, L)
    law = pair_law(mu_law(network), (-TABLE / 3).exp())
    assert p_value(counts(network, decoder(temperature=3.0)), law) > 1e-3
    assert p_value(counts(network, decoder()), law) < 1e-9


def test_many_candidates_reach_the_reweighed_law():
    network = toy_network(V, L)
    mu = mu_law(network)
    target = mu * (-TABLE).exp()
    target = target / target.sum()

    def distance(n_candidates):
        found = counts(network, decoder(n_candidates=n_candidates), 2000)
        return 0.5 * float((found / 2000 - target).abs().sum())

    far, near = distance(1), distance(100)
    assert near < 0.06 < 0.2 < far


@pytest.mark.parametrize("n_steps", [1, None])
def test_one_candidate_is_masked_diffusion(n_steps):
    network = toy_network(V, L)
    plain = WholeDecoder(Drawing(), Reveal("random", equal_amounts(n_steps)))
    one = decoder(n_candidates=1, n_steps=n_steps)
    rows = [[-1] * L] * 20
    assert torch.equal(run(network, one, rows)[0], run(network, plain, rows)[0])
    closed = decoder(n_candidates=4, n_steps=n_steps, window=0.0)
    more = [[-1] * L, [1, -1, -1]] * 10
    found, expected = run(network, closed, more)[0], run(network, plain, more)[0]
    # A window of 0 is open while all is hidden.
    assert torch.equal(found[1::2], expected[1::2])


def test_constant_energy_has_the_law_of_masked_diffusion():
    network = toy_network(V, L)
    mu = mu_law(network)
    found = counts(network, decoder(constant, n_candidates=4))
    assert p_value(found, mu) > 1e-3
    assert p_value(counts(network, decoder(n_candidates=4)), mu) < 1e-9


def test_raising_the_energy_of_a_string_lowers_its_frequency():
    network = toy_network(V, L)
    string = int(mu_law(network).argmax())

    def raised(by):
        def energy(clean, shown, log_mu, condition):
            is_it = (clean * PLACES).sum(dim=1) == string
            return torch.where(is_it, by, 0.0).double()

        return int(counts(network, decoder(energy, n_candidates=4), 1000)[string])

    found = [raised(by) for by in (-2.0, 0.0, 1.0, math.inf)]
    assert found == sorted(found, reverse=True)
    assert len(set(found)) == 4


def test_a_request_does_not_depend_on_its_batch():
    network = toy_network(V, L)
    rows, seeds = [[-1] * L, [-1, 2, -1], [-1] * L, [0, -1, -1]], torch.arange(4) + 11

    def together_and_alone(energy):
        def made(which):
            one = decoder(energy, n_candidates=3, n_steps=None)
            some = [rows[i] for i in which]
            return run(network, one, some, seeds=seeds[which])[0]

        alone = torch.cat([made([i]) for i in range(4)])
        return made([0, 1, 2, 3]), alone

    together, alone = together_and_alone(table_energy)
    assert torch.equal(together, alone)

    def tiled(*args):
        # Wrong: candidates of the whole batch, one after the other.
        return table_energy(*args).view(3, -1).T.flatten()

    differs = False
    for shift in range(20):
        seeds = torch.arange(4) + 50 * shift
        together, alone = together_and_alone(tiled)
        differs = differs or not torch.equal(together, alone)
        if differs:
            break
    assert differs


def test_given_tokens_never_change_and_work_is_counted():
    network = toy_network(V, 4)

    def energy(clean, shown, log_mu, condition):
        is_shown = shown != network.mask
        assert torch.equal(clean[is_shown], shown[is_shown])
        return clean.sum(dim=1).double()

    one = decoder(energy, n_candidates=3, n_steps=None, window=0.5)
    tokens, work = run(network, one, [[-1] * 4, [-1, 2, -1, 0]])
    assert tokens[1, [1, 3]].tolist() == [2, 0]
    # Shares hidden are 1, 3/4, 1/2 and 1/4: three comparisons; and 1/2, 1/4: one.
    assert work.n_passes.tolist() == [4 + 3, 2 + 1]
    assert work.n_rows.tolist() == [4 * 5 + 3 * 3 * 4, 2 * 5 + 1 * 3 * 4]


# --- Autoregressive energies ----------------------------------------------------------


def every_mask(length):
    return torch.tensor(list(itertools.product([False, True], repeat=length)))


def test_carry_over_has_partition_one_and_the_autoregressive_bound():
    denoiser, causal = toy_network(V, L), toy_network(V, L, seed=9)
    with torch.no_grad():
        logs = log_probabilities(next_token_scores(causal, ROWS, None), ROWS)
    energies = {
        over: autoregressive_energy(causal, carries_over=over) for over in (True, False)
    }
    bound, partitions = torch.zeros(len(ROWS)).double(), {True: [], False: []}
    for mask in every_mask(L):
        count = int(mask.sum())
        if not count:
            continue
        shown = ROWS.masked_fill(mask, denoiser.mask)
        with torch.no_grad():
            scores = denoising_scores(denoiser, shown, None)
        log_mu = log_probabilities(scores, ROWS).where(mask, 0.0).sum(dim=1)
        for over, energy in energies.items():
            with torch.no_grad():
                log_p = log_mu - energy(ROWS, shown, log_mu, None)
            # Strings with the same shown tokens are completions of one another.
            same = (shown[:, None] == shown[None]).all(dim=2)
            partitions[over].append(same.double() @ log_p.exp())
            if over:
                bound += log_p * (L / count) / (L * math.comb(L, count))
            else:  # the law of what is hidden, given what is shown
                law = log_p.exp() / partitions[over][-1]
                joint = logs.sum(dim=1).exp()
                torch.testing.assert_close(law, joint / (same.double() @ joint))
    for one in partitions[True]:
        torch.testing.assert_close(one, torch.ones_like(one))
    # Wrong: without the carry-over, Z is the probability of what is shown.
    assert any(float((one - 1).abs().max()) > 0.1 for one in partitions[False])
    torch.testing.assert_close(bound, logs.sum(dim=1))


def energy_model(energy, *, n_tokens=V, length=L, with_ends=False, **params):
    model = ready(
        EnergyDiffusionSequence,
        n_tokens,
        length,
        energy=energy,
        with_ends=with_ends,
        **params,
    )
    model.proposal_ = ready(
        MaskedDiffusionSequence,
        n_tokens,
        length,
        with_ends=with_ends,
        network=toy_network(n_tokens, length, seed=4),
    )
    if energy == "nce":
        model.network_ = build_network(
            model._make_network, torch.Generator().manual_seed(5)
        ).double()
    return model


def test_carry_over_scores_are_those_of_the_autoregressive_model():
    model = energy_model("carry_over")
    strings = ["".join("ABC"[i] for i in row) for row in ROWS.tolist()]
    values, errors = model.score_samples(strings, return_std=True)
    scores = next_token_scores(model.network_, ROWS, None)
    logs = log_probabilities(scores, ROWS).sum(dim=1)
    np.testing.assert_allclose(values, logs.detach().numpy(), atol=1e-12)
    assert not errors.any()
    assert np.exp(values).sum() == pytest.approx(1.0, abs=1e-12)


def test_carry_over_scores_are_a_law_of_strings_of_any_length():
    model = energy_model("carry_over", n_tokens=3, length=3, with_ends=True)
    values = model.score_samples(every_string_up_to("AB", 3))
    assert np.exp(values).sum() == pytest.approx(1.0, abs=1e-12)


# --- The partition function and the bound ---------------------------------------------


def test_partition_is_bounded_from_both_sides():
    # -E is 0 or 2, with probability one half: all expectations are finite sums.
    values, k = torch.tensor([0.0, 2.0]).double(), 6
    log_z = math.log((1 + math.exp(2)) / 2)
    draws = values[every_row(2, k)]
    lower, upper = log_partition(draws)
    assert float(lower.mean()) < log_z - 0.01
    assert log_z < float(upper.mean()) < log_z + 0.1
    smaller, _ = log_partition(values[every_row(2, 3)])
    assert float(smaller.mean()) < float(lower.mean())


def test_a_constant_energy_leaves_the_bound_of_masked_diffusion():
    network, tokens = toy_network(V, L), ROWS[:5]
    with torch.no_grad():
        for number in range(3):
            draw = (1, number, 3)
            found = energy_bound(network, constant, tokens, None, draw, 4)
            expected = whole_bound(network, tokens, None, draw)
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_the_bound_is_the_one_of_the_reweighed_law():
    network, n = toy_network(V, L), 100
    tokens = ROWS[[5]]
    exact = 0.0
    for mask in every_mask(L)[1:]:
        shown = tokens.masked_fill(mask, network.mask)
        with torch.no_grad():
            logs = denoising_scores(network, shown, None).log_softmax(dim=2)[0]
        log_mu = logs[torch.arange(L), ROWS].where(mask, 0.0).sum(dim=1)
        fits = (ROWS == tokens)[:, ~mask].all(dim=1)
        log_z = (log_mu - TABLE)[fits].logsumexp(dim=0)
        count = int(mask.sum())
        weight = 1 / (count * math.comb(L, count))
        exact += weight * float((log_mu - TABLE)[5] - log_z)
    with torch.no_grad():
        found = torch.cat([
            energy_bound(network, table_energy, tokens, None, (0, i, n), 20)
            for i in range(n)
        ])  # fmt: skip
    error = float(found.std()) / n**0.5
    assert abs(float(found.mean()) - exact) < 4 * error + 0.05
    assert error < 0.3


# --- Learning -------------------------------------------------------------------------


class Told(nn.Module):
    """An energy that knows which sequences are true."""

    def __init__(self, true, low):
        super().__init__()
        self.true, self.low = true, low

    def forward(self, clean, shown, condition):
        is_true = (clean == self.true).all(dim=1)
        return torch.where(is_true, self.low, -self.low).double()


def test_the_loss_makes_energies_of_true_sequences_low():
    proposal = toy_network(V, 6)
    tokens = torch.zeros(8, 6, dtype=torch.int64)
    batch = SequenceBatch(tokens, torch.arange(8), None)
    good, n = NoiseContrastiveLoss(0, proposal)(Told(0, -4.0), batch)
    bad, _ = NoiseContrastiveLoss(0, proposal)(Told(0, 4.0), batch)
    assert int(n) == 8
    assert float(good) < float(bad) - 20
    flat, _ = NoiseContrastiveLoss(0, proposal)(Told(0, 0.0), batch)
    assert float(flat) == pytest.approx(8 * 2 * math.log(2))


SMALL = {"d_model": 16, "d_ff": 32, "n_layers": 2, "n_heads": 2, "dropout": 0.0,
         "batch_size": 40, "learning_rate": 1e-2, "validation_fraction": 0.0,
         "random_state": 0, "device": "cpu"}  # fmt: skip


def share_equal(strings):
    return float(np.mean([len(set(one)) == 1 for one in strings]))


@pytest.fixture(scope="module", params=["nce", "autoregressive"])
def twins(request):
    """One pass of masked diffusion draws each token by itself; the energy helps."""
    model = EnergyDiffusionSequence(
        energy=request.param, max_epochs=75, n_steps=1, n_candidates=16, window=1.0,
        n_estimates=4, **SMALL,
    )  # fmt: skip
    return model.fit(["AAAA", "BBBB"] * 40)


def test_the_energy_repairs_what_tokens_have_in_common(twins):
    assert share_equal(twins.proposal_.sample(200, random_state=1)) < 0.25
    assert share_equal(twins.sample(200, random_state=1)) > 0.6
    values = twins.score_samples(["AAAA", "ABAB"])
    assert values[0] > values[1] + 2


def test_a_fitted_model_is_kept_whole(twins):
    read = EnergyDiffusionSequence(**twins.get_params())
    attributes, weights = twins._get_saved_state()
    assert isinstance(attributes["proposal_"], MaskedDiffusionSequence)
    read._set_saved_state(attributes, weights)
    for one in (read, pickle.loads(pickle.dumps(twins))):
        assert one.sample(5, random_state=2) == twins.sample(5, random_state=2)


def test_training_starts_from_the_denoiser_with_no_energy():
    model = energy_model("nce", random_state=0)
    weights = model._initial_weights()
    model.network_.load_state_dict(weights)
    assert isinstance(model.network_, EnergyNetwork)
    for name, one in model.proposal_.network_.state_dict().items():
        assert torch.equal(weights[f"network.{name}"], one)
    assert not model.network_(ROWS, ROWS, None).any()


@pytest.mark.parametrize("energy", ["nce", "autoregressive", "carry_over"])
def test_samples_are_whole_reproducible_and_of_themselves(energy):
    model = energy_model(energy, n_tokens=4, length=6, with_ends=True)
    four = model.sample(4, template="?B", random_state=3)
    assert four == model.sample(4, template="?B", random_state=3)
    assert four[:2] == model.sample(2, template="?B", random_state=3)
    assert four != model.sample(4, template="?B", random_state=4)
    assert all(set(one) <= set("ABC") for one in four)
    assert np.isfinite(model.score_samples(["ABC", "B"])).all()
