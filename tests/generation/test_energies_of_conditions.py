"""Each candidate is weighed with the condition of its own request."""

import pytest
import torch
from masked_toys import run, toy_network

from sciseq.generation.parts.drawing import Drawing
from sciseq.generation.parts.energy_decoder import EnergyDecoder
from sciseq.generation.parts.network import Condition
from sciseq.generation.parts.reveal import Reveal, equal_amounts

N_TOKENS, LENGTH, K = 4, 6, 3
NETWORK = toy_network(N_TOKENS, LENGTH, n_features=N_TOKENS)
# One class for each request, in no order; of the third too little is hidden to choose.
CLASSES = torch.tensor([2, 0, 3, 1])
ROWS = torch.full((4, LENGTH), -1)
ROWS[2, 1:] = torch.tensor([0, 1, 2, 3, 0])
SEEDS = torch.arange(4) * 17 + 3


def told(which):
    rows = torch.eye(N_TOKENS).double()[CLASSES[which]].unsqueeze(1)
    return Condition(rows, torch.ones(len(which), 1, dtype=torch.bool))


def strangers(clean, shown, log_mu, condition):
    """Energy of tokens that are not the one of the class."""
    own = condition.rows[:, 0].argmax(dim=1)
    return 9.0 * (clean != own.unsqueeze(1)).sum(dim=1).double()


def of_other_requests(clean, shown, log_mu, condition):
    """Wrong: conditions of all requests in turn, and that for each candidate."""
    n = len(clean) // K
    in_turn = torch.arange(n).repeat(K) * K
    return strangers(clean, shown, log_mu, condition.take(in_turn))


def made(energy, which, n_steps=None):
    which = torch.as_tensor(which)
    decoder = EnergyDecoder(
        Drawing(), Reveal("random", equal_amounts(n_steps)), energy,
        n_candidates=K, window=0.8,
    )  # fmt: skip
    tokens, _ = run(
        NETWORK, decoder, ROWS[which], seeds=SEEDS[which], condition=told(which)
    )
    return tokens


@pytest.mark.parametrize("n_steps", [1, 2, None])
def test_together_requests_are_what_they_are_alone(n_steps):
    together = made(strangers, range(4), n_steps)
    alone = torch.cat([made(strangers, [i], n_steps) for i in range(4)])
    assert torch.equal(together, alone)
    wrong = made(of_other_requests, range(4), n_steps)
    assert not torch.equal(wrong, alone)
    # A request alone cannot tell.
    assert torch.equal(made(of_other_requests, [1], n_steps)[0], alone[1])


def test_the_energy_is_told_the_condition_of_each_candidate():
    seen = []

    def spy(clean, shown, log_mu, condition):
        seen.append((shown, condition.rows[:, 0].argmax(dim=1)))
        return strangers(clean, shown, log_mu, condition)

    made(spy, range(4))
    shown, own = seen[0]
    assert own.tolist() == [2] * K + [0] * K + [1] * K  # the third is not compared
    assert all(torch.equal(one, shown[0]) for one in shown)
    assert {tuple(one.tolist()) for _, one in seen[1:]} == {tuple(own.tolist())}


def test_tokens_of_the_class_come_more_often():
    which = torch.arange(4).repeat(50)
    seeds = torch.arange(200)
    found = {}
    for energy in (strangers, of_other_requests):
        decoder = EnergyDecoder(
            Drawing(), Reveal("random"), energy, n_candidates=K, window=1.0
        )
        tokens, _ = run(NETWORK, decoder, [[-1] * LENGTH] * 200, seeds=seeds,
                        condition=told(which))  # fmt: skip
        found[energy] = float((tokens == CLASSES[which][:, None]).double().mean())
    assert found[strangers] > found[of_other_requests] + 0.05
