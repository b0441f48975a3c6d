"""Which sequences belong together when data are split.

Axis legend: n sequences.
"""

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from sciseq.errors import InputError

__all__ = ["sequence_groups"]


def sequence_groups(
    sequences: Sequence[Sequence[Any]], shared_length: int
) -> npt.NDArray[np.int64]:
    """Return the families of sequences, to keep each in one part of a split.

    Two sequences that share a run of ``shared_length`` tokens are relatives, and so
    are relatives of relatives. Left in two parts of a split, a model that remembers
    long runs is judged by what it has seen.

    Parameters
    ----------
    sequences : sequence of str, or of sequences of hashable tokens
        The sequences (n,). Those shorter than ``shared_length`` are relatives of equal
        ones only.
    shared_length : int
        Tokens in a row that relatives share, at least 1. Long enough that chance does
        not join everything: 6 residues for some thousand peptides, 20 bases for DNA.

    Returns
    -------
    ndarray of int64, shape (n,)
        Family of each sequence, numbered from 0 by first appearance: the ``groups`` of
        :class:`~sklearn.model_selection.GroupShuffleSplit` and
        :class:`~sklearn.model_selection.GroupKFold`.

    Raises
    ------
    InputError
        For a length below 1.

    Examples
    --------
    >>> sequence_groups(["AACGT", "GGGTT", "ACGTC", "GTCCC"], shared_length=3)
    array([0, 1, 0, 0])
    """
    if shared_length < 1:
        raise InputError(
            f"shared_length is {shared_length}, it must be at least 1",
            where="sequence_groups",
            hint="Give the number of tokens in a row that relatives share.",
        )
    first: dict[Hashable, int] = {}
    pairs: set[tuple[int, int]] = set()
    for number, one in enumerate(sequences):
        tokens = one if isinstance(one, str) else tuple(one)
        for start in range(max(len(tokens) - shared_length, 0) + 1):
            run = tokens[start : start + shared_length]
            pairs.add((first.setdefault(run, number), number))
    n = len(sequences)
    rows, columns = np.array(sorted(pairs), dtype=np.int64).reshape(-1, 2).T
    graph = coo_array((np.ones(len(rows), bool), (rows, columns)), shape=(n, n))
    _, label = connected_components(graph, directed=False)
    _, at, inverse = np.unique(label, return_index=True, return_inverse=True)
    return np.asarray(np.argsort(np.argsort(at))[inverse], dtype=np.int64)
