"""Sequences that users have, as numbers, and back.

Axes: n sequences, L positions. Sequences are strings of characters, lists of tokens, or
rows of an array of integers.
"""

import os
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sciseq.errors import DataQualityError, InputError, InputTypeError

__all__ = ["GAP", "Alphabet", "as_sequences"]

GAP = "?"
"""Character of a string that stands for an unknown one."""

_GAPS = {"string": GAP, "list": None, "array": -1}

_MOST_TOKENS = 100_000


@dataclass(frozen=True)
class Alphabet:
    """The tokens of sequences, in order, and how long sequences are.

    Parameters
    ----------
    tokens : tuple
        All tokens: strings or integers.
    kind : {"string", "list", "array"}
        What sequences come as, and are given back as.
    max_length : int
        Longest sequence.
    is_fixed : bool
        Whether all sequences have this length. Else an end follows the last token of
        those that are shorter.

    Examples
    --------
    >>> alphabet = Alphabet.of(["ACG", "TT"])
    >>> alphabet.encode(["GA"])
    array([[2, 0, 4]])
    >>> alphabet.decode(np.array([[3, 4, 4]]))
    ['T']
    """

    tokens: tuple[Any, ...]
    kind: str
    max_length: int
    is_fixed: bool

    @classmethod
    def of(cls, X: Any, max_length: int | None = None) -> "Alphabet":
        """Learn the tokens of sequences.

        Parameters
        ----------
        X : sequence of str, of lists, or array of integers
            Sequences.
        max_length : int, optional
            Longest sequence that is wanted; by default the longest of `X`.

        Raises
        ------
        InputError
            When a sequence is longer.
        DataQualityError
            When there is nothing to learn from.
        """
        sequences, kind = as_sequences(X)
        lengths = {len(one) for one in sequences}
        if not sequences or lengths == {0}:
            raise DataQualityError(
                f"{len(sequences)} sequences without a token", where="X",
                hint="Give sequences of at least one token.",
            )  # fmt: skip
        longest = max(lengths)
        if max_length is not None and longest > max_length:
            row = next(i for i, one in enumerate(sequences) if len(one) > max_length)
            raise InputError(
                f"sequence {row} has {len(sequences[row])} tokens, max_length is "
                f"{max_length}",
                where=f"X[{row}]",
                hint="Cut it, or raise max_length.",
            )
        found = _found(sequences)
        if None in found or _GAPS[kind] in found:
            raise DataQualityError(
                f"training sequences have gaps ({_GAPS[kind]!r})", where="X",
                hint="Fit on whole sequences; gaps are for infill.",
            )  # fmt: skip
        is_fixed = len(lengths) == 1 and max_length in (None, longest)
        return cls(_ordered(found), kind, max_length or longest, is_fixed)

    @property
    def n_tokens(self) -> int:
        """Tokens that may be predicted, the end included."""
        return len(self.tokens) + (not self.is_fixed)

    @property
    def end(self) -> int | None:
        """Number of the end, if sequences have one."""
        return None if self.is_fixed else len(self.tokens)

    @property
    def n_positions(self) -> int:
        """Positions of an encoded sequence; the longest ones need no end."""
        return self.max_length

    def encode(self, X: Any, *, gap: int | None = None) -> npt.NDArray[np.int64]:
        """Return sequences as numbers, (n, L), ends behind them.

        Parameters
        ----------
        X : sequences
            As in :meth:`of`.
        gap : int, optional
            What stands for gaps: ``"?"`` in strings, None in lists, -1 in arrays. By
            default they are refused.

        Raises
        ------
        InputError
            For an unknown token, or a sequence of a wrong length.
        """
        sequences, kind = as_sequences(X)
        # Rows of several lengths, which decode may give, are lists and no array.
        if kind != self.kind and (kind, self.kind) != ("list", "array"):
            raise InputTypeError(
                f"sequences are of kind {kind!r}, in fit they were {self.kind!r}",
                where="X",
                hint="Give the same kind of sequences as in fit.",
            )
        fill = -1 if self.end is None else self.end
        table = np.full((len(sequences), self.n_positions), fill, dtype=np.int64)
        numbers: dict[Any, int] = {one: i for i, one in enumerate(self.tokens)}
        if gap is not None:
            numbers[_GAPS[self.kind]] = gap
        for row, sequence in enumerate(sequences):
            self._check_length(row, len(sequence))
            try:
                table[row, : len(sequence)] = [numbers[one] for one in sequence]
            except KeyError:
                self._refuse(row, sequence, numbers)
        return table

    def _check_length(self, row: int, length: int) -> None:
        if length > self.max_length or (self.is_fixed and length != self.max_length):
            wanted = "" if self.is_fixed else "at most "
            raise InputError(
                f"sequence {row} has {length} tokens, {wanted}{self.max_length} are "
                "needed",
                where=f"X[{row}]",
                hint="All sequences of fit had one length."
                if self.is_fixed
                else "Fit with a larger max_length.",
            )

    def _refuse(self, row: int, sequence: Any, numbers: dict[Any, int]) -> None:
        place, token = next(
            (i, one) for i, one in enumerate(sequence) if one not in numbers
        )
        shown = ", ".join(map(repr, self.tokens[:20]))
        raise InputError(
            f"sequence {row} has an unknown token {token!r} at place {place}",
            where=f"X[{row}]",
            hint=f"Tokens of fit: {shown}{', ...' if len(self.tokens) > 20 else ''}.",
        )

    def decode(self, table: npt.NDArray[np.int64]) -> Any:
        """Return sequences of the kind of fit, cut at their first end."""
        if self.kind == "array" and self.is_fixed:
            return np.array(self.tokens)[table]
        rows = []
        for numbers in table.tolist():
            if self.end in numbers:
                numbers = numbers[: numbers.index(self.end)]
            rows.append([self.tokens[one] for one in numbers])
        return ["".join(one) for one in rows] if self.kind == "string" else rows

    def to_dict(self) -> dict[str, Any]:
        """Return what :meth:`from_dict` takes, for saving."""
        return {**vars(self), "tokens": list(self.tokens)}

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> "Alphabet":
        """Return an alphabet that was saved."""
        return cls(**{**saved, "tokens": tuple(saved["tokens"])})


def as_sequences(X: Any) -> tuple[list[Any], str]:
    """Return sequences as a list, and their kind: "string", "list" or "array".

    Parameters
    ----------
    X : sequence of str or of lists, pandas Series, or array of integers
        A path to a FASTA or text file stands for what is in it.

    Raises
    ------
    InputError
        For a string that is no path.
    InputTypeError
        For anything else.
    """
    if isinstance(X, str) and not (Path(X).suffix or _exists(X)):
        raise InputError(
            f"X is the string {X[:40]!r}, and there is no such file",
            where="X",
            hint="A single sequence is a list of one: [X].",
        )
    if isinstance(X, str | os.PathLike):
        from sciseq.data.sequence_files import read_sequences

        X = read_sequences(X).sequences
    if getattr(X, "ndim", None) == 2:
        X = np.asarray(X)
        if not np.issubdtype(X.dtype, np.integer):
            raise InputTypeError(
                f"X is an array of {X.dtype}; tokens in arrays are integers", where="X"
            )
        return X.tolist(), "array"
    is_ordered = not isinstance(X, Mapping | Set)
    if not (hasattr(X, "__iter__") and hasattr(X, "__len__") and is_ordered):
        raise InputTypeError(
            f"X is a {type(X).__name__}; strings, lists of tokens or an array of "
            "integers are needed",
            where="X",
        )
    sequences = list(X)
    if all(isinstance(one, str) for one in sequences):
        return sequences, "string"
    is_text = isinstance(sequences[0], str)
    for row, one in enumerate(sequences):
        is_list = isinstance(one, Sequence | np.ndarray) and not isinstance(one, str)
        if not is_list or is_text:
            if isinstance(one, str) and is_text:
                continue
            raise InputTypeError(
                f"sequence {row} is {one!r}; all must be strings, or all lists of "
                "tokens",
                where=f"X[{row}]",
            )
    # Numbers of NumPy cannot be saved.
    return [
        one.tolist()
        if isinstance(one, np.ndarray)
        else [x.item() if isinstance(x, np.generic) else x for x in one]
        for one in sequences
    ], "list"


def _exists(path: str) -> bool:
    try:
        return Path(path).exists()
    except OSError:  # too long for a name
        return False


def _found(sequences: list[Any]) -> set[Any]:
    try:
        found = {token for one in sequences for token in one}
    except TypeError:
        found = {None}
    if any(isinstance(one, bool) or not isinstance(one, str | int) for one in found):
        raise InputTypeError(
            "tokens are neither strings nor integers", where="X",
            hint="Give sequences of tokens: strings, or lists of strings or integers.",
        )  # fmt: skip
    return found


def _ordered(found: set[Any]) -> tuple[Any, ...]:
    if len(found) > _MOST_TOKENS:
        raise DataQualityError(
            f"{len(found)} different tokens, at most {_MOST_TOKENS} can be learned",
            where="X",
            hint="Quantise numbers, or join rare tokens.",
        )
    try:
        return tuple(sorted(found))
    except TypeError:
        raise InputTypeError(
            "tokens are of several types that have no order", where="X",
            hint="Make all tokens strings, or all integers.",
        ) from None  # fmt: skip
