"""Markov chains of which everything is known: samples, likelihoods and posteriors.

Axes: ``sample``, ``place`` (t of a sequence), ``state`` (i, j of n).
"""

from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sciseq.errors import DataQualityError, InputError

__all__ = ["GAP", "KnownChain", "random_chain"]

FloatArray: TypeAlias = NDArray[np.float64]
IntegerArray: TypeAlias = NDArray[np.int64]

GAP = -1
"""Stands for a symbol that is not known."""


class KnownChain:
    r"""A chain of states of which each depends on the one before alone.

    .. math:: P(x) = \pi_{x_1} \prod_{t > 1} T_{x_{t-1} x_t}

    Parameters
    ----------
    transition : array_like, shape (state, state)
        Probabilities :math:`T_{ij}` of state j after state i; rows sum to 1.
    initial : array_like, shape (state,), optional
        Probabilities :math:`\pi` of the first state; the stationary ones, with
        :math:`\pi = \pi T`, when None.

    Attributes
    ----------
    transition, initial : ndarray
        As given.
    n_states : int
        Number n of states.

    Raises
    ------
    InputError
        When shapes do not fit or rows are no probabilities.

    Notes
    -----
    Card: sequences §0.6, S4.

    Examples
    --------
    >>> import numpy as np
    >>> chain = KnownChain([[0.9, 0.1], [0.5, 0.5]])
    >>> chain.initial.round(3).tolist()
    [0.833, 0.167]
    >>> chain.log_prob(np.array([[0, 0, 1]])).round(3).tolist()
    [-2.59]
    >>> chain.posterior(np.array([[0, -1, 0]]))[0, 1].round(3).tolist()
    [0.942, 0.058]
    """

    def __init__(self, transition: ArrayLike, initial: ArrayLike | None = None) -> None:
        self.transition: FloatArray = np.asarray(transition, dtype=float)
        n_states = len(self.transition) if self.transition.ndim else 0
        if n_states < 1 or self.transition.shape != (n_states, n_states):
            raise InputError(
                f"transition has shape {self.transition.shape}, must be square",
                where="KnownChain",
            )
        _check_probabilities("transition", self.transition)
        self.n_states = n_states
        if initial is None:
            initial = _stationary(self.transition)
        self.initial: FloatArray = np.asarray(initial, dtype=float)
        if self.initial.shape != (n_states,):
            raise InputError(
                f"initial has shape {self.initial.shape}, must be ({n_states},)",
                where="KnownChain",
            )
        _check_probabilities("initial", self.initial)

    def sample(
        self, n_samples: int, length: int, generator: np.random.Generator
    ) -> IntegerArray:
        """Draw sequences.

        Parameters
        ----------
        n_samples, length : int
            How many, and how long.
        generator : numpy.random.Generator
            Source of the draws.

        Returns
        -------
        ndarray of int64, shape (sample, place)
            States.
        """
        draws = generator.random((n_samples, length))
        states = np.empty((n_samples, length), dtype=np.int64)
        for t in range(length):
            law = self.transition[states[:, t - 1]] if t else self.initial
            # The last sum may fall short of 1 by rounding.
            sums = law.cumsum(axis=-1)[..., :-1]
            states[:, t] = (draws[:, t, None] >= sums).sum(axis=-1)
        return states

    def log_prob(self, sequences: ArrayLike) -> FloatArray:
        """Return the exact log-probability of what is known of each sequence.

        Parameters
        ----------
        sequences : array_like of int, shape (sample, place)
            States, and -1 where one is not known; over those it is summed.

        Returns
        -------
        ndarray, shape (sample,)
            In nats, minus infinity for what the chain cannot do.

        Raises
        ------
        InputError
            When the sequences are no states of the chain.
        """
        with np.errstate(divide="ignore"):
            logs = np.log(self._filter(self._evidence(sequences))[1])
        total: FloatArray = logs.sum(axis=1)
        return total

    def posterior(self, sequences: ArrayLike) -> FloatArray:
        """Return the exact probabilities of every state, given what is known.

        Parameters
        ----------
        sequences : array_like of int, shape (sample, place)
            States, and -1 where one is not known.

        Returns
        -------
        ndarray, shape (sample, place, state)
            Probabilities given the known states on both sides.

        Raises
        ------
        InputError
            When the sequences are no states of the chain.
        DataQualityError
            When a sequence has probability 0.
        """
        evidence = self._evidence(sequences)
        forward, totals = self._filter(evidence)
        if (totals == 0).any():
            impossible = int(np.flatnonzero((totals == 0).any(axis=1))[0])
            raise DataQualityError(
                "the chain cannot produce what is known of the sequence",
                where=f"KnownChain.posterior, sample {impossible}",
            )
        backward = np.ones_like(forward)
        for t in reversed(range(forward.shape[1] - 1)):
            # P(what is known after t | state at t), up to a factor
            later = (backward[:, t + 1] * evidence[:, t + 1]) @ self.transition.T
            backward[:, t] = later / later.max(axis=1, keepdims=True)
        joint: FloatArray = forward * backward
        joint /= joint.sum(axis=-1, keepdims=True)
        return joint

    def _evidence(self, sequences: ArrayLike) -> FloatArray:
        # (sample, place, state): 1 where a state agrees with what is known
        states = np.asarray(sequences)
        if (
            states.ndim != 2
            or states.dtype.kind not in "iu"
            or states.size == 0
            or states.min() < GAP
            or states.max() >= self.n_states
        ):
            raise InputError(
                f"sequences of shape {states.shape} and type {states.dtype} must be "
                f"whole numbers of shape (sample, place), from {GAP} (not known) to "
                f"{self.n_states - 1}",
                where="KnownChain",
            )
        one_of = states[..., None] == np.arange(self.n_states)
        evidence: FloatArray = (one_of | (states == GAP)[..., None]).astype(float)
        return evidence

    def _filter(self, evidence: FloatArray) -> tuple[FloatArray, FloatArray]:
        # Law of each state given what is known up to it, and the probability of what
        # is known at each place given what is known before.
        forward, totals = np.empty_like(evidence), np.empty(evidence.shape[:2])
        predicted = np.broadcast_to(self.initial, evidence[:, 0].shape)
        for t in range(evidence.shape[1]):
            joint = predicted * evidence[:, t]
            totals[:, t] = joint.sum(axis=1)
            safe = np.where(totals[:, t] > 0, totals[:, t], 1)
            forward[:, t] = joint / safe[:, None]
            predicted = forward[:, t] @ self.transition
        return forward, totals


def random_chain(
    n_states: int, generator: np.random.Generator, concentration: float = 0.5
) -> KnownChain:
    """Draw a chain whose rows come from a symmetric Dirichlet law.

    Parameters
    ----------
    n_states : int
        Number of states, at least 1.
    generator : numpy.random.Generator
        Source of the draws.
    concentration : float, default 0.5
        Parameter of the law, positive; small ones make few successors likely.

    Returns
    -------
    KnownChain
        It starts from its stationary law.

    Raises
    ------
    InputError
        When a number is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> random_chain(5, np.random.default_rng(0)).transition.shape
    (5, 5)
    """
    if n_states < 1 or not concentration > 0:
        raise InputError(
            f"n_states is {n_states} and concentration {concentration}; allowed are at "
            "least 1 and above 0",
            where="random_chain",
        )
    alpha = np.full(n_states, concentration)
    return KnownChain(generator.dirichlet(alpha, size=n_states))


def _check_probabilities(name: str, values: FloatArray) -> None:
    sums = values.sum(axis=-1)
    if not (values >= 0).all() or not np.allclose(sums, 1, rtol=0, atol=1e-8):
        raise InputError(
            f"{name} must hold numbers from 0 whose sum is 1; sums are {sums.tolist()}",
            where="KnownChain",
        )


def _stationary(transition: FloatArray) -> FloatArray:
    # pi (T - 1) = 0 and sum(pi) = 1, by least squares: one of them is redundant.
    n = len(transition)
    equations = np.vstack([transition.T - np.eye(n), np.ones(n)])
    target = np.append(np.zeros(n), 1.0)
    solution = np.linalg.lstsq(equations, target)[0].clip(0)
    law: FloatArray = solution / solution.sum()
    return law
