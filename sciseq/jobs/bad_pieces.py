"""One bad series or spectrum must not cost its neighbours their results."""

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

__all__ = ["collected_warnings", "run_good_pieces"]

Piece = TypeVar("Piece")
Whole = TypeVar("Whole")
Result = TypeVar("Result")


def run_good_pieces(
    run: Callable[[Whole], Result],
    pieces: Iterable[tuple[Any, Piece]],
    joined: Callable[[list[Piece]], Whole],
) -> tuple[list[Result], list[tuple[Any, str]]]:
    """Try each piece alone, then run those that can be done together.

    The last bits of a result may depend on how many are computed together: what is
    returned are the bits of a part that never had the bad pieces.

    Parameters
    ----------
    run : callable
        From pieces that are joined to a result; raises for bad ones.
    pieces : iterable of (label, piece)
        The parts of what could not be run as a whole.
    joined : callable
        From a list of pieces to what ``run`` takes.

    Returns
    -------
    results : list
        One for all good pieces; one for each of them when they cannot be run together;
        none when all are bad.
    failures : list of (label, text)
        The bad pieces and their errors.

    Examples
    --------
    >>> def total(numbers):
    ...     return sum(1 / one for one in numbers)
    >>> run_good_pieces(total, [("a", 1), ("b", 0), ("c", 2)], list)
    ([1.5], [('b', 'ZeroDivisionError: division by zero')])
    """
    good, alone, failures = [], [], []
    for label, piece in pieces:
        try:
            alone.append(run(joined([piece])))
            good.append(piece)
        except Exception as error:
            failures.append((label, f"{type(error).__name__}: {error}"))
    if not good:
        return [], failures
    try:
        return [run(joined(good))], failures
    except Exception:
        return alone, failures


@contextmanager
def collected_warnings() -> Iterator[list[str]]:
    """Collect warnings instead of printing them, each text once.

    Examples
    --------
    >>> with collected_warnings() as notes:
    ...     for _ in range(2):
    ...         warnings.warn("the last value is repeated", stacklevel=1)
    >>> notes
    ['UserWarning: the last value is repeated']
    """
    notes: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield notes
    texts = (f"{one.category.__name__}: {one.message}" for one in caught)
    notes.extend(dict.fromkeys(texts))
