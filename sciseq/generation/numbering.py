"""Symbols of sequences as numbers: letters, tokens or items."""

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sciseq.errors import DataQualityError, InputError

__all__ = ["is_missing", "number_symbols", "sorted_symbols"]


def is_missing(value: Any) -> bool:
    """Tell whether a label or symbol stands for none: None, nan, or one of pandas.

    Examples
    --------
    >>> [is_missing(one) for one in (None, float("nan"), "nan", 0)]
    [True, True, False, False]
    """
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    # Numbers are equal to themselves, but for those that are none.
    return bool(value != value)


def sorted_symbols(sequences: Sequence[Sequence[Hashable]]) -> list[Any]:
    """Return the different symbols of sequences, in rising order if they have one.

    Raises
    ------
    DataQualityError
        When a symbol is missing.

    Examples
    --------
    >>> sorted_symbols(["TA", "CA"]), sorted_symbols([["b", 1], []])
    (['A', 'C', 'T'], ['b', 1])
    """
    symbols = dict.fromkeys(symbol for sequence in sequences for symbol in sequence)
    if any(is_missing(symbol) for symbol in symbols):
        raise DataQualityError(
            "symbols are missing (None or nan)",
            where="X",
            hint="Leave them out, or write another symbol for them.",
        )
    try:
        return sorted(symbols)
    except TypeError:
        return list(symbols)


def number_symbols(
    X: Sequence[Sequence[Hashable]], symbols: Sequence[Any]
) -> list[npt.NDArray[np.int64]]:
    """Return each sequence as the places of its symbols in a list.

    Raises
    ------
    InputError
        For a symbol that is not in the list; the message says where.

    Examples
    --------
    >>> number_symbols(["TA"], ["A", "C", "T"])
    [array([2, 0])]
    """
    number_of = {symbol: number for number, symbol in enumerate(symbols)}
    numbered = []
    for place, sequence in enumerate(X):
        numbers = [number_of.get(symbol, -1) for symbol in sequence]
        if -1 in numbers:
            at = numbers.index(-1)
            raise InputError(
                f"{sequence[at]!r} is none of the {len(symbols)} symbols of fit",
                where=f"X[{place}], symbol {at}",
                hint="Fit with all symbols that may occur, or leave it out.",
            )
        numbered.append(np.array(numbers, dtype=np.int64))
    return numbered
