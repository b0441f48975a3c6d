"""Mixtures of objectives: rewards, actions on the simplex, the learned model."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sciseq.errors import InputError
from sciseq.generation.parts.objective_mixture import (
    BanditMixture,
    FixedMixture,
    class_rewards,
    configuration_rewards,
    evaluation_steps,
    total_reward_weights,
    uniform_mixture,
)
from sciseq.generation.parts.reward_model import RewardModel, RewardModelMixture
from sciseq.nn import build_network

LOSSES = st.floats(1e-3, 50)
CLASSES = ["copying", "infilling", "infilling"]


def small_mixture(seed=0, classes=CLASSES, **options):
    sizes = {"width": 8, "n_layers": 1, "n_candidates": 64, "n_updates": 2, **options}
    return RewardModelMixture(classes, np.random.default_rng(seed), **sizes)


def on_the_simplex(action):
    return action.min() >= 0 and abs(action.sum() - 1) < 1e-12


# Rewards


def check_signs(reward, old, new):
    change = (old - new) / old
    if abs(change) > 1e-3:
        assert np.sign(reward) == np.sign(change)
    assert reward * change >= 0
    assert -1 <= reward <= 1


@given(LOSSES, LOSSES)
def test_falling_losses_are_rewarded(old, new):
    (reward,) = configuration_rewards([old], [new])
    check_signs(reward, old, new)
    raw = 100 * math.tanh(math.e * math.sqrt(old * new) * ((old - new) / old) ** 3)
    assert reward == pytest.approx(max(-1, min(1, raw)), rel=1e-12, abs=1e-300)
    if abs((old - new) / old) > 1e-3:
        with pytest.raises(AssertionError):  # the formula as printed
            check_signs(-reward, old, new)


def test_equal_losses_have_no_reward_and_large_changes_are_clipped():
    rewards = configuration_rewards([2, 4, 4, 0.5], [2, 1, 9, 0.499])
    assert rewards[:3].tolist() == [0.0, 1.0, -1.0]
    assert 0 < rewards[3] < 1e-5


def test_class_rewards_are_means_and_the_total_their_sum():
    rewards = [1.0, 0.5, -1.0]
    assert class_rewards(rewards, CLASSES) == {"copying": 1.0, "infilling": -0.25}
    total = total_reward_weights(CLASSES) @ rewards
    assert total == sum(class_rewards(rewards, CLASSES).values()) == 0.75
    assert total != sum(rewards)  # a class does not count more for its size


def test_evaluations_thin_out():
    assert evaluation_steps(9) == []
    assert evaluation_steps(4100) == [10, 50, 250, 500, 1000, 1500, 2000, 3000, 4000]


# Controllers


@given(st.lists(st.tuples(LOSSES, LOSSES, LOSSES), min_size=1, max_size=5))
@settings(max_examples=5)
def test_actions_are_probabilities(evaluations):
    controllers = [
        uniform_mixture(3),
        FixedMixture([0, 1, 3]),
        BanditMixture(3),
        BanditMixture(3, temperature=1e-3, exploration=0.0),
        small_mixture(n_warm_up=0),
    ]
    for controller in controllers:
        assert on_the_simplex(controller.action)
        for step, losses in enumerate(evaluations):
            controller.observe(step, losses)
            assert on_the_simplex(controller.action)


def test_fixed_mixture_keeps_its_probabilities():
    mixture = FixedMixture([1, 0, 3])
    mixture.observe(10, [1.0, 2.0, 3.0])
    action = mixture.action
    assert action.tolist() == [0.25, 0.0, 0.75]
    action[:] = 0  # a copy
    assert mixture.action.tolist() == [0.25, 0.0, 0.75]


def test_bandit_follows_its_equation():
    bandit = BanditMixture(3, rate=0.5, temperature=0.5, exploration=0.1)
    assert bandit.action.tolist() == pytest.approx([1 / 3] * 3)
    values = np.zeros(3)
    losses = [np.array(x) for x in ([3.0, 3.0, 3.0], [2.8, 3.0, 3.1], [2.0, 2.9, 3.1])]
    bandit.observe(0, losses[0])
    assert bandit.action.tolist() == pytest.approx([1 / 3] * 3)
    for step, (old, new) in enumerate(pairwise(losses)):
        bandit.observe(step, new)
        values = 0.5 * values + 0.5 * configuration_rewards(old, new)
        weights = np.exp(values / 0.5)
        expected = 0.9 * weights / weights.sum() + 0.1 / 3
        np.testing.assert_allclose(bandit.action, expected, rtol=1e-12)
    first, second, third = bandit.action
    assert first > second > third > 0.1 / 3


# The learned model


def test_reward_model_reads_no_later_evaluation():
    model = build_network(
        lambda: RewardModel(3, width=8, n_layers=2), torch.Generator().manual_seed(0)
    ).double()
    generator = torch.Generator().manual_seed(1)
    losses = 1 + torch.rand(1, 6, 3, generator=generator, dtype=torch.float64)
    actions = torch.rand(1, 6, 3, generator=generator, dtype=torch.float64)
    predicted = model(losses, actions)
    assert predicted.abs().max() < 1
    changed = actions.clone()
    changed[:, 3:] = 0.5
    found = model(losses, changed)
    torch.testing.assert_close(found[:, :3], predicted[:, :3], rtol=0, atol=1e-12)
    assert not torch.allclose(found[:, 3:], predicted[:, 3:], atol=1e-4)
    # Candidates are scored as in a pass over everything.
    candidates = torch.rand(4, 3, generator=generator, dtype=torch.float64)
    scored = model.score(losses[0], actions[0, :-1], candidates)
    for candidate, rewards in zip(candidates, scored, strict=True):
        changed = torch.cat([actions[:, :-1], candidate[None, None]], dim=1)
        expected = model(losses, changed)[0, -1]
        torch.testing.assert_close(rewards, expected, rtol=0, atol=1e-12)
    assert not torch.allclose(scored[0], scored[1], atol=1e-4)


def test_mixture_is_uniform_until_the_warm_up_ends():
    mixture, losses = small_mixture(), np.array([3.0, 3.0, 3.0])
    for step in (0, 10, 50, 249):
        mixture.observe(step, losses)
        assert mixture.action.tolist() == [1 / 3] * 3
        losses = 0.9 * losses
    mixture.observe(250, losses)
    assert mixture.action.tolist() != [1 / 3] * 3
    late = small_mixture()  # one evaluation tells nothing of rewards
    late.observe(500, losses)
    assert late.action.tolist() == [1 / 3] * 3


def test_action_is_the_mean_of_the_best_candidates(monkeypatch):
    seen = []

    def promise(losses, actions, candidates):
        assert losses.shape == (2, 3)
        assert actions.shape == (1, 3)
        seen.append(candidates.numpy())
        # The infillings count half each, together as much as the copies.
        return candidates * torch.tensor([0.9, 0.0, 2.0])

    mixture = small_mixture(n_warm_up=0, n_candidates=500, n_best=8)
    monkeypatch.setattr(mixture.model, "score", promise)
    mixture.observe(0, [3.0, 3.0, 3.0])
    mixture.observe(1, [2.0, 2.0, 2.0])
    (candidates,) = seen
    assert candidates.shape == (500, 3)
    np.testing.assert_allclose(candidates.sum(1), 1, atol=1e-6)
    scores = candidates @ [0.9, 0.0, 1.0]
    best = candidates[np.argsort(-scores)[:8]].mean(axis=0)
    np.testing.assert_allclose(mixture.action, best, atol=1e-6)
    unweighted = candidates @ [0.9, 0.0, 2.0]
    wrong = candidates[np.argsort(-unweighted)[:8]].mean(axis=0)
    assert not np.allclose(mixture.action, wrong, atol=1e-3)


def test_model_learns_which_action_pays():
    # Only training on the first configuration lowers the losses.
    mixture = small_mixture(
        n_warm_up=0, n_updates=20, n_candidates=256, learning_rate=2e-2
    )
    losses, chosen = np.full(3, 3.0), []
    for step in range(10):
        mixture.observe(step, losses)
        chosen.append(mixture.action[0])
        losses = losses * (1.15 - 0.45 * chosen[-1])
    assert np.mean(chosen[-4:]) > 0.6
    assert chosen[0] == 1 / 3


def test_generator_decides_everything(no_global_side_effects):
    def run(seed):
        mixture = small_mixture(seed, n_warm_up=0)
        for step, losses in enumerate(np.linspace([3, 3, 3], [1, 2, 3], 4)):
            mixture.observe(step, losses)
        return mixture.action.tolist()

    with no_global_side_effects():
        first = run(0)
    assert first == run(0)
    assert first != run(1)


# Errors


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: configuration_rewards([1.0], [0.0]), "must be positive"),
        (lambda: configuration_rewards([1.0, 2.0], [1.0]), "as many at both"),
        (lambda: class_rewards([1.0], CLASSES), "for 3 classes"),
        (lambda: FixedMixture([-1, 2]), "none below 0"),
        (lambda: FixedMixture([0, 0]), "not all 0"),
        (lambda: FixedMixture([[1.0]]), "a vector"),
        (lambda: BanditMixture(2, rate=0), "rate 0"),
        (lambda: BanditMixture(2).observe(1, [1.0]), "2 positive and finite"),
        (lambda: BanditMixture(1).observe(1, [math.nan]), "positive and finite"),
        (lambda: small_mixture(classes=[]), "at least one class"),
        (lambda: small_mixture(n_best=65), "n_best 65"),
    ],
)
def test_wrong_arguments_are_told(make, told):
    with pytest.raises(InputError, match=told):
        make()
