r"""Recommenders of the next item: the shared interface, and the plain baselines.

Axis legend: n histories, V items, k recommendations.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from sciseq.base import SequenceEstimator
from sciseq.data.event_sequences import EventSequences
from sciseq.errors import InputError, InputTypeError
from sciseq.generation.context_counts import ContextCounts, FloatArray, IntArray
from sciseq.generation.method_card import MethodCard
from sciseq.generation.numbering import number_symbols, sorted_symbols
from sciseq.metrics.negative_sampling import history_mask
from sciseq.metrics.ranking import rank_in_batches
from sciseq.parameters import Integer, Real
from sciseq.parameters import Rule as ParameterRule

__all__ = ["BaseRecommender", "PopularityRecommender", "TransitionRecommender"]

Histories = EventSequences | Sequence[Sequence[Any]]


class BaseRecommender(SequenceEstimator):
    """What all recommenders share: items by label, ranks and recommendations.

    Subclasses write ``_fit(histories, n_items)`` and ``_score(histories)``; both take
    histories of item numbers, oldest first.
    """

    vocabulary_: npt.NDArray[Any]

    @abstractmethod
    def _fit(self, histories: Sequence[IntArray], n_items: int) -> None:
        """Learn from histories of item numbers."""

    @abstractmethod
    def _score(self, histories: Sequence[IntArray]) -> FloatArray:
        """Score all items (n, V) as the next of each history; greater is likelier."""

    def fit(self, X: Histories, y: Any = None) -> Self:
        """Learn from the sequences of events.

        Parameters
        ----------
        X : EventSequences, or sequence of sequences of items
            Training events of each entity, oldest first.
        y : None
            Ignored.

        Returns
        -------
        self

        Raises
        ------
        InputError
            For parameters that are not allowed, or no events.
        """
        self._check_parameters()
        if isinstance(X, EventSequences):
            vocabulary = X.vocabulary
            histories = list(X)
        else:
            _check_lists(X)
            vocabulary = _vocabulary(X)
            histories = number_symbols(X, vocabulary.tolist())
        if not any(len(history) for history in histories):
            raise InputError("there are no events", where="X")
        self._forget()
        self._fit(histories, len(vocabulary))
        self.vocabulary_ = vocabulary
        return self

    def score_items(self, X: Histories) -> FloatArray:
        """Score every item as the next one.

        Parameters
        ----------
        X : EventSequences, or sequence of n sequences of items
            What each entity had, oldest first.

        Returns
        -------
        ndarray of shape (n, V)
            In the order of ``vocabulary_``; greater is likelier.

        Raises
        ------
        InputError
            For an item that was not there in fit.
        """
        return self._score(self._numbers(X))

    def rank(
        self,
        X: Histories,
        targets: Sequence[Any] | npt.NDArray[Any],
        *,
        negatives: npt.ArrayLike | None = None,
        exclude_history: bool = False,
        batch_size: int = 256,
    ) -> dict[str, FloatArray]:
        """Return the rank of the item that came next, from 0, ties in the middle.

        Parameters
        ----------
        X : EventSequences, or sequence of n sequences of items
            What each entity had before, oldest first.
        targets : sequence of n items
            What came next: numbers in the vocabulary when `X` is EventSequences, as
            :func:`~sciseq.data.event_sequences.leave_one_out` gives, else items.
        negatives : array-like of int, shape (n, n_negatives), optional
            Numbers of items, as of
            :func:`~sciseq.metrics.negative_sampling.sample_negatives`.
        exclude_history : bool, default=False
            Leave the items of the history out of the full ranking.
        batch_size : int, default=256
            Histories that are scored together.

        Returns
        -------
        dict of str to ndarray of shape (n,)
            ``"full"``: among all items; with negatives ``"sampled"``: among these.

        Raises
        ------
        InputError
            For an item that was not there in fit, or a target among its negatives.
        """
        histories = self._numbers(X)
        if not Integer(1).allows(batch_size):
            raise InputError(
                f"batch_size is {batch_size!r}, must be {Integer(1).describe()}",
                where="batch_size",
            )
        if len(targets) != len(histories):
            raise InputError(
                f"there are {len(targets)} targets for {len(histories)} histories",
                where="targets",
            )
        numbers = np.asarray(targets)
        if not isinstance(X, EventSequences):
            (numbers,) = number_symbols([list(targets)], self.vocabulary_.tolist())
        return rank_in_batches(
            self._score,
            histories,
            numbers,
            negatives=negatives,
            exclude_history=exclude_history,
            batch_size=batch_size,
        )

    def recommend(
        self, X: Histories, k: int = 10, *, exclude_history: bool = True
    ) -> list[list[Any]]:
        """Recommend the items that are likeliest to come next.

        Parameters
        ----------
        X : EventSequences, or sequence of n sequences of items
            What each entity had, oldest first.
        k : int, default=10
            Items per entity.
        exclude_history : bool, default=True
            Recommend only what is new to the entity.

        Returns
        -------
        list of n lists of items
            Best first, ties in the order of ``vocabulary_``; fewer than `k` when no
            more are left.

        Raises
        ------
        InputError
            For an item that was not there in fit, or a `k` below 1.
        """
        histories = self._numbers(X)
        if not Integer(1).allows(k):
            raise InputError(f"k is {k!r}, must be {Integer(1).describe()}", where="k")
        scores = np.array(self._score(histories), dtype=np.float64)
        if exclude_history:
            scores[history_mask(histories, scores.shape[1])] = -np.inf
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        best = np.take_along_axis(scores, order, 1)
        return [
            self.vocabulary_[row[value > -np.inf]].tolist()
            for row, value in zip(order, best, strict=True)
        ]

    def _numbers(self, X: Histories) -> list[IntArray]:
        self._check_is_fitted()
        if not isinstance(X, EventSequences):
            _check_lists(X)
            return number_symbols(X, self.vocabulary_.tolist())
        if not np.array_equal(X.vocabulary, self.vocabulary_):
            raise InputError(
                "the events number their items otherwise than those in fit",
                where="X.vocabulary",
                hint="Read them with read_events(..., vocabulary=model.vocabulary_).",
            )
        return list(X)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "vocabulary_")


class PopularityRecommender(BaseRecommender):
    """Recommend what occurred most often, to everyone alike.

    Attributes
    ----------
    vocabulary_ : ndarray of shape (V,)
        Items.
    item_counts_ : ndarray of shape (V,)
        Training events of each.

    Examples
    --------
    >>> model = PopularityRecommender().fit([["tea", "milk"], ["tea"]])
    >>> model.recommend([["milk"], []])
    [['tea'], ['tea', 'milk']]
    >>> model.rank([[], []], ["tea", "milk"])
    {'full': array([0., 1.])}
    """

    method_card: ClassVar[MethodCard] = MethodCard(
        idea="What occurred most often, for everyone alike.",
        order="No order.",
        mask="Nothing is read.",
        corruption="Nothing.",
        objective="Counts of items.",
        decoder="Ranks items by their counts.",
        cache="none",
        score="none",
        good_for="A baseline that any recommender has to beat.",
        not_for="Anything personal.",
        picture=None,
    )

    def _fit(self, histories: Sequence[IntArray], n_items: int) -> None:
        self.item_counts_ = np.bincount(np.concatenate(histories), minlength=n_items)

    def _score(self, histories: Sequence[IntArray]) -> FloatArray:
        share = self.item_counts_ / self.item_counts_.sum()
        return np.broadcast_to(share, (len(histories), len(share)))


class TransitionRecommender(BaseRecommender):
    r"""Recommend what most often followed the last item: a first-order Markov chain.

    .. math:: p(j \mid i) = \frac{n_{ij} + \alpha\, p(j)}{n_i + \alpha}, \qquad
              p(j) = \frac{n_j + \alpha / V}{n + \alpha}

    with :math:`n_{ij}` events of item j right after item i. An empty history stands for
    the place before the first event, which has counts as well.

    Parameters
    ----------
    strength : float, default=1.0
        Weight :math:`\alpha` of the popularity. While it is small, whatever followed
        the last item stands before all that did not.

    Attributes
    ----------
    vocabulary_ : ndarray of shape (V,)
        Items.

    Examples
    --------
    >>> events = [["tea", "milk", "cake"], ["tea", "milk"], ["cake", "tea"]]
    >>> model = TransitionRecommender(strength=1.0).fit(events)
    >>> model.recommend([["tea"]], k=1)
    [['milk']]
    """

    method_card: ClassVar[MethodCard] = MethodCard(
        idea="What most often followed the last item: a first-order Markov chain.",
        order="The next item.",
        mask="The next item reads the last one.",
        corruption="Nothing.",
        objective="Counts of pairs, smoothed by popularity.",
        decoder="Ranks items by their counts after the last one.",
        cache="none",
        score="none",
        good_for="A baseline that is hard to beat where the last event says most.",
        not_for="Tastes that show over a whole history.",
        picture=None,
    )

    _parameter_rules: ClassVar[dict[str, ParameterRule]] = {
        "strength": Real(0.0, open_low=True)
    }

    def __init__(self, *, strength: float = 1.0) -> None:
        self.strength = strength

    def _fit(self, histories: Sequence[IntArray], n_items: int) -> None:
        before, after = _transitions(histories, n_items)
        self.strength_ = float(self.strength)
        self.counts_ = ContextCounts.of(before, after, n_items)

    def _score(self, histories: Sequence[IntArray]) -> FloatArray:
        start = self.counts_.n_symbols
        last = [history[-1] if len(history) else start for history in histories]
        contexts = np.array(last, dtype=np.int64).reshape(-1, 1)
        return self.counts_.distribution(contexts, self.strength_)

    def _get_saved_state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        attributes, weights = super()._get_saved_state()
        if "counts_" in attributes:
            attributes["counts_"] = [tuple(one) for one in self.counts_.levels]
        return attributes, weights

    def _set_saved_state(
        self, attributes: Mapping[str, Any], weights: Mapping[str, Any]
    ) -> None:
        super()._set_saved_state(attributes, weights)
        self.counts_ = ContextCounts(attributes["counts_"], len(self.vocabulary_))


def _transitions(
    histories: Sequence[IntArray], start: int
) -> tuple[IntArray, IntArray]:
    """Items before (n, 1) and after (n,) each step."""
    filled = [history for history in histories if len(history)]
    after = np.concatenate(filled).astype(np.int64)
    before = np.concatenate([[start], after[:-1]]).astype(np.int64)
    before[np.cumsum([len(history) for history in filled])[:-1]] = start
    return before[:, None], after


def _check_lists(X: Any) -> None:
    if not hasattr(X, "__len__") or any(isinstance(one, str) for one in X):
        raise InputTypeError(
            f"X is of type {type(X).__name__}, must be EventSequences or a list of "
            "lists of items",
            where="X",
            hint="Read event tables with sciseq.data.event_tables.read_events.",
        )


def _vocabulary(X: Sequence[Sequence[Any]]) -> npt.NDArray[Any]:
    items = sorted_symbols(X)
    vocabulary = np.array(items)
    if vocabulary.ndim != 1 or vocabulary.tolist() != items:
        one = items[0]
        other = next((x for x in items if type(x) is not type(one)), items[-1])
        raise InputTypeError(
            f"items are of several types, such as {one!r} and {other!r}",
            where="X",
            hint="Make all items text or all of them numbers.",
        )
    return vocabulary
