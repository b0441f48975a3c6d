r"""How often each configuration of an objective is trained on, steered by rewards.

Axes: ``configuration`` (k of K). After each evaluation a controller is told the loss of
every configuration and answers with an action: the probabilities of the configurations
until the next evaluation. The controller that learns a model of the rewards is in
:mod:`sciseq.generation.parts.reward_model`.
"""

import math
from collections.abc import Sequence
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sciseq.errors import InputError

__all__ = [
    "BanditMixture",
    "FixedMixture",
    "MixtureController",
    "checked_losses",
    "class_rewards",
    "configuration_rewards",
    "evaluation_steps",
    "total_reward_weights",
    "uniform_mixture",
]

FloatArray: TypeAlias = NDArray[np.float64]


def configuration_rewards(old: ArrayLike, new: ArrayLike) -> FloatArray:
    r"""Reward the change of each loss between two evaluations.

    .. math::

        \Delta_k = \frac{old_k - new_k}{old_k}, \quad S_k = \sqrt{old_k\, new_k}, \quad
        r_k = \mathrm{clip}(100 \tanh(e\, S_k \Delta_k^3), -1, 1)

    Parameters
    ----------
    old, new : array_like, shape (configuration,)
        Losses at the earlier and the later evaluation, positive.

    Returns
    -------
    ndarray, shape (configuration,)
        Positive where the loss fell, negative where it rose, 0 where it is equal.

    Raises
    ------
    InputError
        When shapes differ or a loss is not positive and finite.

    Notes
    -----
    Card: sequences §10 (Birdie, arXiv:2411.01030). The printed formula has a minus in
    front, which would punish a falling loss; it is left out here.

    Examples
    --------
    >>> configuration_rewards([2.0, 2.0, 2.0], [1.0, 2.0, 2.2]).round(2).tolist()
    [1.0, 0.0, -0.57]
    """
    old, new = np.asarray(old, dtype=float), np.asarray(new, dtype=float)
    if old.shape != new.shape or not all(map(_are_losses, (old, new))):
        raise InputError(
            f"losses {old.tolist()} and {new.tolist()} must be positive and finite, "
            "as many at both evaluations",
            where="configuration_rewards",
        )
    change, size = (old - new) / old, np.sqrt(old * new)
    rewards: FloatArray = np.clip(100 * np.tanh(math.e * size * change**3), -1, 1)
    return rewards


def class_rewards(rewards: ArrayLike, classes: Sequence[str]) -> dict[str, float]:
    """Average the rewards of the configurations of each class.

    Parameters
    ----------
    rewards : array_like, shape (configuration,)
        Reward of each configuration.
    classes : sequence of str
        The class of each: its objective.

    Returns
    -------
    dict of str to float
        Mean reward of each class, in the order of the first configurations. Their sum
        is the total reward.

    Raises
    ------
    InputError
        When there are not as many classes as rewards.

    Examples
    --------
    >>> class_rewards([1.0, 0.0, -1.0], ["infilling", "infilling", "copying"])
    {'infilling': 0.5, 'copying': -1.0}
    """
    rewards = np.asarray(rewards, dtype=float)
    weights = total_reward_weights(classes)
    if rewards.shape != weights.shape:
        raise InputError(
            f"rewards of shape {rewards.shape} for {len(classes)} classes",
            where="class_rewards",
        )
    means = dict.fromkeys(classes, 0.0)
    for name, part in zip(classes, (weights * rewards).tolist(), strict=True):
        means[name] += part
    return means


def total_reward_weights(classes: Sequence[str]) -> FloatArray:
    """Return the weight of each configuration in the total, 1 / size of its class.

    Parameters
    ----------
    classes : sequence of str
        The class of each configuration.

    Returns
    -------
    ndarray, shape (configuration,)
        Weights; the total reward is their product with the rewards.

    Examples
    --------
    >>> total_reward_weights(["infilling", "infilling", "copying"]).tolist()
    [0.5, 0.5, 1.0]
    """
    return np.array([1 / classes.count(name) for name in classes], dtype=float)


def evaluation_steps(n_steps: int) -> list[int]:
    """Return the training steps after which the losses are evaluated.

    Parameters
    ----------
    n_steps : int
        Steps of the whole training.

    Returns
    -------
    list of int
        10, 50, 250, 500, 1000, 1500, 2000, and then every 1000.

    Examples
    --------
    >>> evaluation_steps(3000)
    [10, 50, 250, 500, 1000, 1500, 2000, 3000]
    """
    steps = [10, 50, 250, 500, 1000, 1500, *range(2000, n_steps + 1, 1000)]
    return [step for step in steps if step <= n_steps]


class MixtureController(Protocol):
    """What chooses the probabilities of the configurations."""

    @property
    def action(self) -> FloatArray:
        """Probabilities (configuration,) until the next evaluation."""

    def observe(self, step: int, losses: ArrayLike) -> None:
        """Take the losses (configuration,) evaluated after a training step."""


class FixedMixture:
    """Probabilities that never change.

    Parameters
    ----------
    weights : array_like, shape (configuration,)
        Weights, not negative; they are divided by their sum.

    Raises
    ------
    InputError
        When a weight is negative or not finite, or all are 0.

    Examples
    --------
    >>> FixedMixture([1, 3]).action.tolist()
    [0.25, 0.75]
    """

    def __init__(self, weights: ArrayLike) -> None:
        values = np.asarray(weights, dtype=float)
        if (
            values.ndim != 1
            or not np.isfinite(values).all()
            or (values < 0).any()
            or values.sum() <= 0
        ):
            raise InputError(
                f"weights are {values.tolist()}, must be a vector of finite numbers, "
                "none below 0 and not all 0",
                where="FixedMixture",
            )
        self._action: FloatArray = values / values.sum()

    @property
    def action(self) -> FloatArray:
        """Probabilities (configuration,)."""
        return self._action.copy()

    def observe(self, step: int, losses: ArrayLike) -> None:
        """Change nothing."""


def uniform_mixture(n_configurations: int) -> FixedMixture:
    """Return the mixture of equal probabilities.

    Parameters
    ----------
    n_configurations : int
        Number of configurations, at least 1.

    Returns
    -------
    FixedMixture
        The controller.

    Examples
    --------
    >>> uniform_mixture(4).action.tolist()
    [0.25, 0.25, 0.25, 0.25]
    """
    return FixedMixture(np.ones(n_configurations))


class BanditMixture:
    r"""Prefer the configurations whose losses have fallen lately.

    .. math::

        Q_k \leftarrow (1 - \beta) Q_k + \beta\, r_k, \qquad
        p_k = (1 - \varepsilon)\, \mathrm{softmax}(Q / \tau)_k + \varepsilon / K

    Parameters
    ----------
    n_configurations : int
        Number K of configurations.
    rate : float, default 0.3
        Weight :math:`\beta` of the newest reward, in (0, 1].
    temperature : float, default 0.5
        Temperature :math:`\tau`, positive; low ones prefer more strongly.
    exploration : float, default 0.1
        Share :math:`\varepsilon` of the uniform mixture, in [0, 1].

    Raises
    ------
    InputError
        When a setting is out of range.

    Notes
    -----
    Our own baseline for the learned model: every configuration is evaluated, so that
    all values are updated each time. Before two evaluations the mixture is uniform.

    Examples
    --------
    >>> bandit = BanditMixture(2)
    >>> bandit.observe(10, [3.0, 3.0])
    >>> bandit.observe(50, [2.0, 3.0])
    >>> bool(bandit.action[0] > bandit.action[1])
    True
    """

    def __init__(
        self,
        n_configurations: int,
        *,
        rate: float = 0.3,
        temperature: float = 0.5,
        exploration: float = 0.1,
    ) -> None:
        if (
            n_configurations < 1
            or not 0 < rate <= 1
            or not temperature > 0
            or not 0 <= exploration <= 1
        ):
            raise InputError(
                f"n_configurations is {n_configurations}, rate {rate}, temperature "
                f"{temperature}, exploration {exploration}; allowed are at least 1, "
                "(0, 1], above 0, [0, 1]",
                where="BanditMixture",
            )
        self.rate, self.temperature = rate, temperature
        self.exploration = exploration
        self._values = np.zeros(n_configurations)
        self._losses: FloatArray | None = None

    @property
    def action(self) -> FloatArray:
        """Probabilities (configuration,) until the next evaluation."""
        scores = np.exp((self._values - self._values.max()) / self.temperature)
        share, n_configurations = self.exploration, len(scores)
        action: FloatArray = (1 - share) * scores / scores.sum()
        action += share / n_configurations
        return action

    def observe(self, step: int, losses: ArrayLike) -> None:
        """Take the losses (configuration,) evaluated after a training step."""
        new = checked_losses(losses, len(self._values))
        if self._losses is not None:
            rewards = configuration_rewards(self._losses, new)
            self._values += self.rate * (rewards - self._values)
        self._losses = new


def checked_losses(losses: ArrayLike, n_configurations: int) -> FloatArray:
    """Return the losses of all configurations as an array.

    Parameters
    ----------
    losses : array_like, shape (configuration,)
        Positive losses.
    n_configurations : int
        How many there must be.

    Returns
    -------
    ndarray, shape (configuration,)
        A copy.

    Raises
    ------
    InputError
        When the shape is another, or a loss is not positive and finite.

    Examples
    --------
    >>> checked_losses([1, 2], 2).tolist()
    [1.0, 2.0]
    """
    values = np.array(losses, dtype=float)
    if values.shape != (n_configurations,) or not _are_losses(values):
        raise InputError(
            f"losses are {values.tolist()}; {n_configurations} positive and finite "
            "numbers are needed",
            where="observe, losses",
        )
    return values


def _are_losses(values: FloatArray) -> bool:
    return bool(np.isfinite(values).all() and (values > 0).all())
