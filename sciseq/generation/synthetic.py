"""Small synthetic sequences whose law is known, for tests and comparisons.

Axes: ``sample``, ``place`` (t of a sequence). Every draw comes from the generator that
is passed. The numbers S1 to S8 are those of the card, sequences §0.6. The others are in
:mod:`sciseq.generation.synthetic_chain` (S4) and
:mod:`sciseq.generation.synthetic_series` (S6, S8).
"""

from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sciseq.errors import InputError

__all__ = [
    "RecallTask",
    "associative_recall",
    "check_at_least_one",
    "checksum_strings",
    "hairpins",
    "has_checksum",
    "is_paired",
    "phone_book",
]

BoolArray: TypeAlias = NDArray[np.bool_]
IntegerArray: TypeAlias = NDArray[np.int64]


class RecallTask(NamedTuple):
    """Questions whose answers stand in their inputs.

    Attributes
    ----------
    inputs : ndarray of int64, shape (sample, place)
        Keys, each with its value behind it, and then the keys that are asked for.
    labels : ndarray of int64, shape (sample, place)
        The values of those keys, in the order asked.
    n_symbols : int
        Size of the alphabet: keys first, values after them.
    """

    inputs: IntegerArray
    labels: IntegerArray
    n_symbols: int


def associative_recall(
    n_samples: int,
    n_pairs: int,
    generator: np.random.Generator,
    *,
    n_keys: int = 32,
    n_values: int = 32,
    n_queries: int = 1,
) -> RecallTask:
    """Draw lists of pairs of a key and a value, then some of the keys (S1).

    Parameters
    ----------
    n_samples, n_pairs : int
        How many lists, and pairs in each; the keys of a list differ.
    generator : numpy.random.Generator
        Source of the draws.
    n_keys, n_values : int, default 32
        How many keys and values there are.
    n_queries : int, default 1
        How many different keys are asked for.

    Returns
    -------
    RecallTask
        Inputs have ``2 * n_pairs + n_queries`` places, labels ``n_queries``.

    Raises
    ------
    InputError
        When a number is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> task = associative_recall(2, 3, np.random.default_rng(0), n_keys=5, n_values=4)
    >>> task.inputs.shape, task.labels.shape, task.n_symbols
    ((2, 7), (2, 1), 9)
    """
    sizes = n_samples, n_pairs, n_queries
    return _recall(sizes, n_keys, n_values, width=1, generator=generator)


def phone_book(
    n_samples: int,
    n_entries: int,
    generator: np.random.Generator,
    *,
    n_names: int = 64,
    n_digits: int = 4,
    n_queries: int = 1,
) -> RecallTask:
    """Draw lists of names with numbers of several digits, then some names (S2).

    Parameters
    ----------
    n_samples, n_entries : int
        How many lists, and entries in each; the names of a list differ.
    generator : numpy.random.Generator
        Source of the draws.
    n_names : int, default 64
        How many names there are, one symbol each. The ten digits follow them.
    n_digits : int, default 4
        Digits of a number.
    n_queries : int, default 1
        How many different names are asked for.

    Returns
    -------
    RecallTask
        Inputs have ``(1 + n_digits) * n_entries + n_queries`` places, labels
        ``n_digits * n_queries``.

    Raises
    ------
    InputError
        When a number is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> book = phone_book(2, 3, np.random.default_rng(0), n_queries=2)
    >>> book.inputs.shape, book.labels.shape, book.n_symbols
    ((2, 17), (2, 8), 74)
    """
    sizes = n_samples, n_entries, n_queries
    return _recall(sizes, n_names, 10, width=n_digits, generator=generator)


def _recall(
    sizes: tuple[int, int, int],
    n_keys: int,
    n_values: int,
    width: int,
    generator: np.random.Generator,
) -> RecallTask:
    n_samples, n_pairs, n_queries = sizes
    check_at_least_one(
        n_samples=n_samples, queries=n_queries, values=n_values, width=width
    )
    if not n_queries <= n_pairs <= n_keys:
        raise InputError(
            f"{n_queries} queries for {n_pairs} pairs with {n_keys} keys; queries "
            "must not be more than pairs, and pairs not more than keys",
            where="synthetic sequences",
        )
    every_key = np.broadcast_to(np.arange(n_keys), (n_samples, n_keys))
    keys = generator.permuted(every_key, axis=1)[:, :n_pairs, None]
    shape = n_samples, n_pairs, width
    values = generator.integers(n_keys, n_keys + n_values, size=shape)
    places = np.broadcast_to(np.arange(n_pairs), (n_samples, n_pairs))
    asked = generator.permuted(places, axis=1)[:, :n_queries, None]
    entries = np.concatenate([keys, values], axis=2).reshape(n_samples, -1)
    queries = np.take_along_axis(keys, asked, axis=1)[..., 0]
    answers = np.take_along_axis(values, asked, axis=1).reshape(n_samples, -1)
    inputs = np.concatenate([entries, queries], axis=1)
    return RecallTask(inputs, answers, n_keys + n_values)


def hairpins(
    n_samples: int, arm: int, loop: int, generator: np.random.Generator
) -> IntegerArray:
    """Draw a random arm, a random loop, and the arm's reverse complement (S3).

    Parameters
    ----------
    n_samples : int
        How many sequences.
    arm, loop : int
        Lengths of an arm and of the loop, which may be 0.
    generator : numpy.random.Generator
        Source of the draws.

    Returns
    -------
    ndarray of int64, shape (sample, 2 * arm + loop)
        Bases 0 to 3, as A, C, G, T: the complement of x is 3 - x.

    Raises
    ------
    InputError
        When a number is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> sequences = hairpins(3, arm=4, loop=2, generator=np.random.default_rng(0))
    >>> bool(is_paired(sequences, arm=4).all())
    True
    """
    check_at_least_one(n_samples=n_samples, arm=arm)
    if loop < 0:
        raise InputError(f"loop is {loop}, must be at least 0", where="hairpins")
    first = generator.integers(4, size=(n_samples, arm + loop))
    return np.concatenate([first, 3 - first[:, arm - 1 :: -1]], axis=1)


def is_paired(sequences: ArrayLike, arm: int) -> BoolArray:
    """Tell which bases of the first arm have their complement in the other.

    Parameters
    ----------
    sequences : array_like of int, shape (sample, place)
        Sequences as :func:`hairpins` draws them.
    arm : int
        Length of an arm.

    Returns
    -------
    ndarray of bool, shape (sample, arm)
        True where the bases at t and at the t-th place from the end pair.

    Examples
    --------
    >>> is_paired([[0, 1, 2, 0]], arm=2).tolist()
    [[False, True]]
    """
    values = np.asarray(sequences)
    paired: BoolArray = values[:, :arm] == 3 - values[:, ::-1][:, :arm]
    return paired


def checksum_strings(
    n_samples: int, length: int, generator: np.random.Generator, base: int = 2
) -> IntegerArray:
    r"""Draw strings whose last symbol makes the sum a multiple of the base (S5).

    .. math:: \sum_t x_t \equiv 0 \pmod{base}

    Parameters
    ----------
    n_samples, length : int
        How many strings, and how long.
    generator : numpy.random.Generator
        Source of the draws; all symbols but the last are uniform and independent.
    base : int, default 2
        Number of symbols; 2 is the parity.

    Returns
    -------
    ndarray of int64, shape (sample, place)
        The strings.

    Raises
    ------
    InputError
        When a number is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> strings = checksum_strings(4, 6, np.random.default_rng(0), base=5)
    >>> bool(has_checksum(strings, base=5).all())
    True
    """
    check_at_least_one(n_samples=n_samples, length=length, base=base)
    free = generator.integers(base, size=(n_samples, length - 1))
    last = -free.sum(axis=1, keepdims=True) % base
    return np.concatenate([free, last], axis=1)


def has_checksum(sequences: ArrayLike, base: int = 2) -> BoolArray:
    """Tell which strings have a sum that is a multiple of the base.

    Parameters
    ----------
    sequences : array_like of int, shape (sample, place)
        The strings.
    base : int, default 2
        As in :func:`checksum_strings`.

    Returns
    -------
    ndarray of bool, shape (sample,)
        True where the sum agrees.

    Examples
    --------
    >>> has_checksum([[1, 1, 0], [1, 0, 0]]).tolist()
    [True, False]
    """
    agrees: BoolArray = np.asarray(sequences).sum(axis=1) % base == 0
    return agrees


def check_at_least_one(**sizes: int) -> None:
    """Refuse sizes below 1.

    Parameters
    ----------
    **sizes : int
        Sizes by name.

    Raises
    ------
    InputError
        When one is below 1.

    Examples
    --------
    >>> check_at_least_one(n_samples=1)
    """
    if min(sizes.values()) < 1:
        raise InputError(
            f"numbers are {sizes}; all must be at least 1",
            where="synthetic sequences",
        )
