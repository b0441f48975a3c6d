r"""Ranking metrics of recommendations, over all items and against sampled negatives.

Axis legend: U users (or other entities), V items, n negatives. Ranks r count from 0.
Ties share the mean of their ranks, which is the expected rank when ties are broken at
random: a model that scores all items alike is in the middle, never first.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sciseq.errors import DataQualityError, InputError
from sciseq.metrics.negative_sampling import check_items, history_mask

__all__ = [
    "hit_rate",
    "ndcg",
    "rank_in_batches",
    "ranking_summary",
    "reciprocal_rank",
    "target_ranks",
]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Scorer = Callable[[Sequence[IntArray]], npt.ArrayLike]


def target_ranks(
    scores: npt.ArrayLike,
    targets: npt.ArrayLike,
    *,
    candidates: npt.ArrayLike | None = None,
    excluded: npt.ArrayLike | None = None,
) -> FloatArray:
    r"""Return the rank of each user's target, from 0.

    .. math:: r = \#\{j : s_j > s_t\} + \tfrac12 \#\{j \ne t : s_j = s_t\}

    Parameters
    ----------
    scores : array-like of shape (U, V)
        Greater is better. Minus infinity stands for an item that is never recommended.
    targets : array-like of int, shape (U,)
        The item that came next.
    candidates : array-like of int, shape (U, n), optional
        Negatives that the target is ranked with, each once; by default all items.
    excluded : array-like of bool, shape (U, V), optional
        Items that do not count, such as those of the history. The target counts always.

    Returns
    -------
    ndarray of float64, shape (U,)
        Whole or half numbers, from 0 to the number of items that the target is ranked
        with.

    Raises
    ------
    InputError
        For shapes that do not fit, an item that does not exist, or a target among its
        own negatives.
    DataQualityError
        For scores that are NaN.

    Examples
    --------
    >>> target_ranks([[0.1, 0.9, 0.5], [1.0, 1.0, 1.0]], [2, 0])
    array([1., 1.])
    """
    s = np.asarray(scores, dtype=np.float64)
    target = np.asarray(targets)
    _check_scores(s, target)
    user = np.arange(len(target))
    own = s[user, target][:, None]
    ignored = None
    if excluded is not None:
        ignored = np.array(np.broadcast_to(excluded, s.shape), dtype=bool)
        ignored[user, target] = False
    if candidates is not None:
        negatives = np.asarray(candidates)
        _check_negatives(negatives, target, s.shape[1])
        s = np.take_along_axis(s, negatives, 1)
        if ignored is not None:
            ignored = np.take_along_axis(ignored, negatives, 1)
    is_above, is_level = s > own, s == own
    if ignored is not None:
        is_above &= ~ignored
        is_level &= ~ignored
    n_level = np.count_nonzero(is_level, axis=1) - (candidates is None)  # but itself
    return np.asarray(np.count_nonzero(is_above, axis=1) + 0.5 * n_level)


def hit_rate(ranks: npt.ArrayLike, k: int) -> FloatArray:
    r"""Return 1 where the target is among the first `k` (HR@k), else 0.

    .. math:: \mathrm{HR@}k = [r < k]

    Parameters
    ----------
    ranks : array-like of shape (...)
        Ranks from 0, as of :func:`target_ranks`.
    k : int
        Length of the list of recommendations.

    Returns
    -------
    ndarray of shape (...)
        One value per user; the mean is the hit rate.

    Raises
    ------
    InputError
        For negative ranks, or a `k` below 1.

    Examples
    --------
    >>> hit_rate([0, 9, 9.5, 10], 10)
    array([1., 1., 1., 0.])
    """
    r = _checked_ranks(ranks)
    return np.asarray((r < _checked_k(k)).astype(np.float64))


def ndcg(ranks: npt.ArrayLike, k: int) -> FloatArray:
    r"""Return the normalised discounted cumulative gain of one target (NDCG@k).

    .. math:: \mathrm{NDCG@}k = \frac{[r < k]}{\log_2(r + 2)}

    Parameters
    ----------
    ranks : array-like of shape (...)
        Ranks from 0, as of :func:`target_ranks`.
    k : int
        Length of the list of recommendations.

    Returns
    -------
    ndarray of shape (...)
        One value per user, 1 at rank 0.

    Raises
    ------
    InputError
        For negative ranks, or a `k` below 1.

    Examples
    --------
    >>> ndcg([0, 2, 10], 10)
    array([1. , 0.5, 0. ])
    """
    r = _checked_ranks(ranks)
    return np.asarray((r < _checked_k(k)) / np.log2(r + 2))


def reciprocal_rank(ranks: npt.ArrayLike) -> FloatArray:
    r"""Return the reciprocal rank, whose mean is the MRR.

    .. math:: \mathrm{RR} = \frac{1}{r + 1}

    Parameters
    ----------
    ranks : array-like of shape (...)
        Ranks from 0, as of :func:`target_ranks`.

    Returns
    -------
    ndarray of shape (...)
        One value per user.

    Raises
    ------
    InputError
        For negative ranks.

    Examples
    --------
    >>> reciprocal_rank([0, 3])
    array([1.  , 0.25])
    """
    return np.asarray(1.0 / (_checked_ranks(ranks) + 1.0))


def ranking_summary(
    ranks: npt.ArrayLike, cutoffs: Sequence[int] = (5, 10)
) -> dict[str, float]:
    """Return the means of all ranking metrics.

    Parameters
    ----------
    ranks : array-like of shape (U,)
        Ranks from 0, as of :func:`target_ranks`.
    cutoffs : sequence of int, default=(5, 10)
        Lengths of the lists of recommendations.

    Returns
    -------
    dict of str to float
        ``hr@k`` and ``ndcg@k`` for each cutoff, and ``mrr``.

    Raises
    ------
    InputError
        Without ranks, for negative ranks, or a cutoff below 1.

    Examples
    --------
    >>> ranking_summary([0, 2], cutoffs=[1])
    {'hr@1': 0.5, 'ndcg@1': 0.5, 'mrr': 0.6666666666666666}
    """
    r = _checked_ranks(ranks)
    if not r.size:
        raise InputError("there are no ranks", where="ranks")
    values: dict[str, FloatArray] = {f"hr@{k}": hit_rate(r, k) for k in cutoffs}
    values |= {f"ndcg@{k}": ndcg(r, k) for k in cutoffs}
    values["mrr"] = reciprocal_rank(r)
    return {name: float(value.mean()) for name, value in values.items()}


def rank_in_batches(
    score: Scorer,
    histories: Sequence[IntArray],
    targets: npt.ArrayLike,
    *,
    negatives: npt.ArrayLike | None = None,
    exclude_history: bool = False,
    batch_size: int = 256,
) -> dict[str, FloatArray]:
    """Rank each user's target, without the scores of all users in memory at once.

    Parameters
    ----------
    score : callable
        Takes a list of histories and returns their scores (users, V).
    histories : sequence of U arrays of int
        Items of each user, oldest first.
    targets : array-like of int, shape (U,)
        The item that came next.
    negatives : array-like of int, shape (U, n), optional
        As of :func:`~sciseq.metrics.negative_sampling.sample_negatives`.
    exclude_history : bool, default=False
        Leave the items of the history out of the full ranking.
    batch_size : int, default=256
        Users that are scored together.

    Returns
    -------
    dict of str to ndarray of shape (U,)
        Ranks among all items (``"full"``), and with negatives also among these
        (``"sampled"``).

    Raises
    ------
    InputError, DataQualityError
        As :func:`target_ranks`.

    Examples
    --------
    >>> def popular(histories):
    ...     return np.tile([3.0, 2.0, 1.0, 0.0], (len(histories), 1))
    >>> rank_in_batches(popular, [[0], [3]], [2, 1], negatives=[[3], [0]],
    ...                 exclude_history=True)
    {'full': array([1., 1.]), 'sampled': array([0., 1.])}
    """
    target = np.asarray(targets)
    drawn = None if negatives is None else np.asarray(negatives)
    ranks: dict[str, list[FloatArray]] = {"full": []}
    if drawn is not None:
        ranks["sampled"] = []
    for start in range(0, len(target), batch_size):
        part = slice(start, start + batch_size)
        known = histories[part]
        s = np.asarray(score(known), dtype=np.float64)
        excluded = history_mask(known, s.shape[-1]) if exclude_history else None
        ranks["full"].append(target_ranks(s, target[part], excluded=excluded))
        if drawn is not None:
            ranks["sampled"].append(
                target_ranks(s, target[part], candidates=drawn[part])
            )
    return {name: np.concatenate(parts) for name, parts in ranks.items()}


# ------------------------------------------------------------------------- checks


def _check_scores(s: FloatArray, target: npt.NDArray[Any]) -> None:
    if s.ndim != 2 or target.shape != s.shape[:1]:
        raise InputError(
            f"scores have shape {s.shape} and targets {target.shape}, must be "
            "(users, items) and (users,)",
            where="scores",
        )
    check_items(target, s.shape[1], "targets")
    if np.isnan(s).any():
        user, item = np.argwhere(np.isnan(s))[0]
        raise DataQualityError(
            f"{np.isnan(s).sum()} scores are NaN", where=f"user {user}, item {item}"
        )


def _check_negatives(
    negatives: npt.NDArray[Any], target: npt.NDArray[Any], n_items: int
) -> None:
    if negatives.ndim != 2 or len(negatives) != len(target):
        raise InputError(
            f"candidates have shape {negatives.shape}, must be ({len(target)}, n)",
            where="candidates",
        )
    check_items(negatives, n_items, "candidates")
    is_target = (negatives == target[:, None]).any(axis=1)
    if is_target.any():
        raise InputError(
            "the target is among its own negatives",
            where=f"user {is_target.argmax()}",
            hint="Draw them with sample_negatives: it keeps targets out.",
        )


def _checked_ranks(ranks: npt.ArrayLike) -> FloatArray:
    r = np.asarray(ranks, dtype=np.float64)
    if not (r >= 0).all():
        raise InputError(
            f"ranks hold {r[~(r >= 0)].flat[0]:g}, must be at least 0",
            where="ranks",
            hint="Ranks count from 0.",
        )
    return r


def _checked_k(k: int) -> int:
    if k < 1:
        raise InputError(f"k is {k}, must be at least 1", where="k")
    return k
