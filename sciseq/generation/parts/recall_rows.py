"""Rows of inputs and labels as one batch of arrays: padded, or packed.

Axes: ``row``, ``token``. A sample is laid out as [inputs | BEGIN | labels without the
last]. From BEGIN on each token predicts the next label: the target at the place of
BEGIN is the first label, and what stands before BEGIN predicts nothing.
"""

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sciseq.errors import InputError

__all__ = ["RecallBatch", "RecallRow", "collate_rows", "pack_rows"]

IntegerArray: TypeAlias = NDArray[np.int64]
BoolArray: TypeAlias = NDArray[np.bool_]


class RecallRow(NamedTuple):
    """One training sample.

    Parameters
    ----------
    inputs : ndarray of int64, shape (P,)
        The prefix: what may be read in both directions. It may be empty.
    labels : ndarray of int64, shape (n,)
        What is predicted, left to right; at least one.
    """

    inputs: IntegerArray
    labels: IntegerArray

    @property
    def n_tokens(self) -> int:
        """Tokens of the sample: inputs, BEGIN and the labels without the last."""
        return len(self.inputs) + len(self.labels)


class RecallBatch(NamedTuple):
    """Samples in arrays of shape (row, token).

    Parameters
    ----------
    tokens : ndarray of int64
        What the network reads.
    targets : ndarray of int64
        What each token predicts; padding where it predicts nothing.
    is_scored : ndarray of bool
        True where the loss counts: from BEGIN to the last label.
    in_prefix : ndarray of bool
        True at inputs.
    sample : ndarray of int64
        Number of the sample within its row; -1 at padding.
    """

    tokens: IntegerArray
    targets: IntegerArray
    is_scored: BoolArray
    in_prefix: BoolArray
    sample: IntegerArray


def collate_rows(
    rows: Sequence[RecallRow], *, begin: int, padding: int, n_tokens: int | None = None
) -> RecallBatch:
    """Put one sample into each row of a batch.

    Parameters
    ----------
    rows : sequence of RecallRow
        The samples.
    begin, padding : int
        Ids of BEGIN and of padding.
    n_tokens : int, optional
        Tokens of a row; those of the longest sample when None.

    Returns
    -------
    RecallBatch
        With padding behind each sample.

    Raises
    ------
    InputError
        When there is no sample, one has no label, or one is longer than ``n_tokens``.

    Examples
    --------
    >>> import numpy as np
    >>> row = RecallRow(np.array([5, 6]), np.array([1, 2, 3]))
    >>> batch = collate_rows([row], begin=8, padding=9, n_tokens=6)
    >>> batch.tokens.tolist(), batch.targets.tolist()
    ([[5, 6, 8, 1, 2, 9]], [[9, 9, 1, 2, 3, 9]])
    """
    return _fill([[row] for row in rows], begin, padding, n_tokens)


def pack_rows(
    rows: Sequence[RecallRow], *, begin: int, padding: int, n_tokens: int
) -> RecallBatch:
    """Put samples one after the other into rows, each into the first with room.

    Parameters
    ----------
    rows : sequence of RecallRow
        The samples.
    begin, padding : int
        Ids of BEGIN and of padding.
    n_tokens : int
        Tokens of a row.

    Returns
    -------
    RecallBatch
        ``sample`` tells the samples of a row apart.

    Raises
    ------
    InputError
        As :func:`collate_rows`.

    Examples
    --------
    >>> import numpy as np
    >>> row = RecallRow(np.array([5]), np.array([1, 2]))
    >>> pack_rows([row, row, row], begin=8, padding=9, n_tokens=7).sample.tolist()
    [[0, 0, 0, 1, 1, 1, -1], [0, 0, 0, -1, -1, -1, -1]]
    """
    packed: list[list[RecallRow]] = []
    room: list[int] = []
    for row in rows:
        place = next((i for i, free in enumerate(room) if free >= row.n_tokens), None)
        if place is None:
            place = len(packed)
            packed.append([])
            room.append(n_tokens)
        packed[place].append(row)
        room[place] -= row.n_tokens
    return _fill(packed, begin, padding, n_tokens)


def _fill(
    packed: Sequence[Sequence[RecallRow]],
    begin: int,
    padding: int,
    n_tokens: int | None,
) -> RecallBatch:
    needed = max((sum(row.n_tokens for row in rows) for rows in packed), default=0)
    has_labels = all(len(row.labels) for rows in packed for row in rows)
    n_tokens = needed if n_tokens is None else n_tokens
    if needed < 1 or not has_labels or needed > n_tokens:
        raise InputError(
            f"{len(packed)} rows of up to {needed} tokens; at least one row, labels in "
            f"each, and at most n_tokens={n_tokens} are needed",
            where="RecallBatch",
        )
    shape = len(packed), n_tokens
    tokens, targets = np.full(shape, padding), np.full(shape, padding)
    in_prefix, sample = np.zeros(shape, dtype=np.bool_), np.full(shape, -1)
    for i, rows in enumerate(packed):
        first = 0
        for number, (inputs, labels) in enumerate(rows):
            middle, stop = first + len(inputs), first + len(inputs) + len(labels)
            tokens[i, first:stop] = np.concatenate([inputs, [begin], labels[:-1]])
            targets[i, middle:stop] = labels
            in_prefix[i, first:middle] = True
            sample[i, first:stop] = number
            first = stop
    return RecallBatch(tokens, targets, (sample >= 0) & ~in_prefix, in_prefix, sample)
