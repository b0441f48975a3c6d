"""Negatives for sampled ranking metrics, none of them known to the user.

Axis legend: U users, V items, n negatives.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sciseq.errors import InputError

__all__ = ["check_items", "history_mask", "sample_negatives"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

# Random numbers drawn at once: 64 MiB.
_NUMBERS_AT_ONCE = 2**23


def sample_negatives(
    histories: Sequence[npt.ArrayLike],
    targets: npt.ArrayLike,
    n_items: int,
    *,
    n_negatives: int = 100,
    popularity: npt.ArrayLike | None = None,
    generator: np.random.Generator,
) -> IntArray:
    r"""Draw negatives for each user, none of them the target or in the history.

    Parameters
    ----------
    histories : sequence of U array-like of int
        Items that each user had, of any number.
    targets : array-like of int, shape (U,)
        The item to be ranked.
    n_items : int
        Number V of items.
    n_negatives : int, default=100
        Items to draw, each at most once per user.
    popularity : array-like of shape (V,), optional
        Weights of the items, such as their counts in the training events; by default
        all are equally likely. Items of weight 0 are never drawn.
    generator : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    ndarray of int64, shape (U, n)
        In random order.

    Raises
    ------
    InputError
        When an item does not exist, weights are negative or do not fit, or fewer than
        `n_negatives` items are left for a user.

    Notes
    -----
    Draws one after the other, each in proportion to the weights of what is left: with
    independent exponential times :math:`E_j / w_j`, these are the first to come
    (Efraimidis and Spirakis, Weighted random sampling with a reservoir, Information
    Processing Letters 97, 2006).

    Sampled metrics can order models otherwise than the full ranking does (Krichene and
    Rendle, On sampled metrics for item recommendation, KDD 2020): report both.

    Examples
    --------
    >>> sample_negatives([[0, 1], [4]], [2, 3], 5, n_negatives=2,
    ...                  generator=np.random.default_rng(0)).tolist()
    [[3, 4], [1, 2]]
    """
    target = np.asarray(targets)
    if len(histories) != len(target):
        raise InputError(
            f"there are {len(histories)} histories and {len(target)} targets",
            where="histories",
        )
    weights = _checked_weights(popularity, n_items)
    drawn = np.empty((len(target), n_negatives), dtype=np.int64)
    step = max(1, _NUMBERS_AT_ONCE // n_items)
    for start in range(0, len(target), step):
        part = slice(start, start + step)
        is_known = history_mask(histories[part], n_items, first=start)
        check_items(target[part], n_items, "targets", start)
        is_known[np.arange(len(is_known)), target[part]] = True
        left = (~is_known & (weights > 0)).sum(axis=1)
        if left.min() < n_negatives:
            raise InputError(
                f"{n_negatives} negatives are asked for, {left.min()} items are left",
                where=f"user {start + left.argmin()}",
                hint="Ask for fewer, or leave out users who had nearly everything.",
            )
        drawn[part] = _first_to_come(is_known, weights, n_negatives, generator)
    return drawn


def history_mask(
    histories: Sequence[npt.ArrayLike], n_items: int, *, first: int = 0
) -> BoolArray:
    """Return where each user (U) had each item (V)."""
    mask = np.zeros((len(histories), n_items), dtype=bool)
    for row, history in enumerate(histories):
        items = np.asarray(history)
        check_items(items, n_items, f"history of user {first + row}")
        mask[row, items.astype(np.int64)] = True
    return mask


def check_items(
    items: npt.NDArray[Any], n_items: int, where: str, first: int = 0
) -> None:
    """Refuse items that do not exist; rows of an array are counted from `first`."""
    if items.size and items.dtype.kind not in "iu":
        raise InputError(
            f"items are {items.dtype}, must be integers",
            where=where,
            hint="Number them by their place in the vocabulary.",
        )
    bad = (items < 0) | (items >= n_items)
    if bad.any():
        raise InputError(
            f"item {items[bad][0]} does not exist, there are items 0 to {n_items - 1}",
            where=f"{where}, row {first + int(np.argwhere(bad)[0, 0])}",
        )


def _first_to_come(
    is_known: BoolArray,
    weights: FloatArray,
    n_negatives: int,
    generator: np.random.Generator,
) -> IntArray:
    time = generator.standard_exponential(is_known.shape)  # (U, V)
    with np.errstate(divide="ignore"):
        time /= weights
    time[is_known] = np.inf
    nearest = np.argpartition(time, n_negatives - 1, axis=1)[:, :n_negatives]
    order = np.take_along_axis(time, nearest, 1).argsort(axis=1)
    return np.take_along_axis(nearest, order, 1)


def _checked_weights(popularity: npt.ArrayLike | None, n_items: int) -> FloatArray:
    if popularity is None:
        return np.ones(n_items)
    weights = np.asarray(popularity, dtype=np.float64)
    fits = weights.shape == (n_items,)
    if not fits or not np.isfinite(weights).all() or weights.min(initial=0) < 0:
        raise InputError(
            f"popularity must be {n_items} finite numbers of at least 0, has shape "
            f"{weights.shape}",
            where="popularity",
        )
    return weights
