"""A mixture of objectives that is chosen by a learned model of its rewards.

Axes: ``row`` (histories), ``evaluation`` (e), ``configuration`` (k of K).
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike
from torch import Tensor, nn

from sciseq.errors import InputError
from sciseq.generation.parts.gated_recurrence import GatedRecurrence
from sciseq.generation.parts.linear_recurrence import prefix_carry
from sciseq.generation.parts.objective_mixture import (
    FloatArray,
    checked_losses,
    configuration_rewards,
    total_reward_weights,
)
from sciseq.nn.initialization import build_network
from sciseq.training.adam import FusedAdam

__all__ = ["RewardModel", "RewardModelMixture"]


class RewardModel(nn.Module):
    r"""Predicts the reward of each configuration from the losses and actions so far.

    .. math::

        \hat r_e = \tanh(W\, \mathrm{SSM}([\log losses_j, action_j]_{j \le e}) + b)

    The prediction at evaluation e is of the rewards between e and e + 1, during which
    the action of e holds.

    Parameters
    ----------
    n_configurations : int
        Number K of configurations.
    width : int
        Width of the recurrent layers.
    n_layers : int
        Number of gated state-space layers, left to right.

    Examples
    --------
    >>> import torch
    >>> generator = torch.Generator().manual_seed(0)
    >>> model = build_network(lambda: RewardModel(3, width=8, n_layers=2), generator)
    >>> model(torch.ones(1, 5, 3), torch.full((1, 5, 3), 1 / 3)).shape
    torch.Size([1, 5, 3])
    """

    def __init__(self, n_configurations: int, width: int, n_layers: int) -> None:
        super().__init__()
        self.embedding = nn.Linear(2 * n_configurations, width)
        self.backbone = GatedRecurrence(n_layers, width, prefix_bidirectional=False)
        self.head = nn.Linear(width, n_configurations)

    def forward(self, losses: Tensor, actions: Tensor) -> Tensor:
        """Predict rewards (row, evaluation, configuration) after each evaluation.

        ``losses`` and ``actions`` have the same shape.
        """
        x = self._embed(losses, actions)
        carry = prefix_carry(torch.zeros(len(x), dtype=torch.int64), x.shape[1])
        return self._rewards(self.backbone(x, carry))

    def score(self, losses: Tensor, actions: Tensor, candidates: Tensor) -> Tensor:
        """Predict the rewards of candidates for the action of the last evaluation.

        Parameters
        ----------
        losses : Tensor, shape (evaluation, configuration)
            All losses so far, of two evaluations or more.
        actions : Tensor, shape (evaluation - 1, configuration)
            Actions of all evaluations but the last.
        candidates : Tensor, shape (candidate, configuration)
            What the action of the last one might be.

        Returns
        -------
        Tensor, shape (candidate, configuration)
            Predicted rewards.
        """
        past = self._embed(losses[None, :-1], actions[None])
        carry = prefix_carry(torch.zeros(1, dtype=torch.int64), len(actions))
        last = torch.tensor([len(actions) - 1])
        _, state = self.backbone.prefill(past, carry, last)
        # The past is read once; only the newest token differs between candidates.
        state = state.select(torch.zeros(len(candidates), dtype=torch.int64))
        x = self._embed(losses[-1].expand_as(candidates), candidates)
        return self._rewards(self.backbone.step(x, state)[0])

    def _embed(self, losses: Tensor, actions: Tensor) -> Tensor:
        embedded: Tensor = self.embedding(torch.cat([losses.log(), actions], dim=-1))
        return embedded

    def _rewards(self, hidden: Tensor) -> Tensor:
        rewards: Tensor = self.head(hidden)
        return rewards.tanh()


class RewardModelMixture:
    """Choose the action that a learned model promises the greatest total reward.

    At each evaluation the model is trained on all rewards so far, random actions are
    scored, and the mean of the best is taken.

    Parameters
    ----------
    classes : sequence of str
        Class of each configuration: its objective. The total reward is the sum over
        classes of their mean rewards.
    generator : numpy.random.Generator
        Source of the first weights and of the random actions.
    width : int, default 64
        Width of the model.
    n_layers : int, default 4
        Layers of the model.
    n_warm_up : int, default 250
        Training steps before which the mixture stays uniform.
    n_candidates : int, default 2048
        Random actions, uniform on the simplex.
    n_best : int, default 8
        Best actions, whose mean is taken.
    n_updates : int, default 200
        Training steps of the model at each evaluation.
    learning_rate : float, default 1e-3
        Learning rate of Adam for the model.

    Raises
    ------
    InputError
        When there is no class, or a number is out of range.

    Notes
    -----
    Card: sequences §10 (Birdie, arXiv:2411.01030). There the model is 256 wide. While
    the mixture is uniform the model cannot tell what an action does, so that the first
    choices are close to random.

    Examples
    --------
    >>> import numpy as np
    >>> mixture = RewardModelMixture(
    ...     ["copying", "infilling"], np.random.default_rng(0), width=8, n_updates=5
    ... )
    >>> mixture.observe(0, [3.0, 3.0])
    >>> mixture.action.tolist()
    [0.5, 0.5]
    >>> mixture.observe(250, [2.0, 3.0])
    >>> round(float(mixture.action.sum()), 6)
    1.0
    """

    def __init__(
        self,
        classes: Sequence[str],
        generator: np.random.Generator,
        *,
        width: int = 64,
        n_layers: int = 4,
        n_warm_up: int = 250,
        n_candidates: int = 2048,
        n_best: int = 8,
        n_updates: int = 200,
        learning_rate: float = 1e-3,
    ) -> None:
        if not classes or not 1 <= n_best <= n_candidates or n_updates < 1:
            raise InputError(
                f"{len(classes)} classes, n_best {n_best}, n_candidates "
                f"{n_candidates}, n_updates {n_updates}; allowed are at least one "
                "class, n_best from 1 to n_candidates and n_updates from 1",
                where="RewardModelMixture",
            )
        self.n_warm_up, self.n_updates = n_warm_up, n_updates
        self.n_candidates, self.n_best = n_candidates, n_best
        self._generator = generator
        self._weights = total_reward_weights(classes)
        self.model = build_network(
            lambda: RewardModel(len(classes), width, n_layers),
            torch.Generator().manual_seed(int(generator.integers(2**63))),
        )
        self._optimizer = FusedAdam(self.model.parameters(), lr=learning_rate)
        self._losses: list[FloatArray] = []
        self._actions: list[FloatArray] = []

    @property
    def action(self) -> FloatArray:
        """Probabilities (configuration,) until the next evaluation."""
        n = len(self._weights)
        return self._actions[-1].copy() if self._actions else np.full(n, 1 / n)

    def observe(self, step: int, losses: ArrayLike) -> None:
        """Take the losses (configuration,) evaluated after a training step."""
        uniform = np.full(len(self._weights), 1 / len(self._weights))
        self._losses.append(checked_losses(losses, len(uniform)))
        is_early = step < self.n_warm_up or len(self._losses) < 2
        self._actions.append(uniform if is_early else self._choose())

    def _choose(self) -> FloatArray:
        losses, actions = (_tensor(one) for one in (self._losses, self._actions))
        self._train(losses, actions)
        n = len(self._weights)
        candidates = self._generator.dirichlet(np.ones(n), size=self.n_candidates)
        with torch.no_grad():
            rewards = self.model.score(losses, actions, _tensor(candidates)).numpy()
        best = np.argsort(-(rewards @ self._weights), kind="stable")[: self.n_best]
        action: FloatArray = candidates[best].mean(axis=0)
        action /= action.sum()  # the sum may be off by the last bits
        return action

    @torch.enable_grad()
    def _train(self, losses: Tensor, actions: Tensor) -> None:
        pairs = zip(self._losses, self._losses[1:], strict=False)
        rewards = _tensor([configuration_rewards(*pair) for pair in pairs])[None]
        for _ in range(self.n_updates):
            self._optimizer.zero_grad()
            predicted = self.model(losses[None, :-1], actions[None])
            loss = F.mse_loss(predicted, rewards)
            torch.autograd.backward(loss)
            self._optimizer.step()


def _tensor(values: Sequence[FloatArray] | FloatArray) -> Tensor:
    return torch.from_numpy(np.asarray(values)).float()
