"""Spans of a sequence: hidden ones, and ones that their delimiters single out.

Axes: ``place`` (of a sequence). Randomness comes from the generator that is passed.
"""

from typing import NamedTuple

import numpy as np

from sciseq.errors import InputError
from sciseq.generation.parts.recall_rows import IntegerArray

__all__ = ["DelimitedSpan", "count_readings", "draw_delimited_spans", "hide_spans"]

_ATTEMPTS = 200  # at drawing a span with delimiters that single it out


def hide_spans(
    symbols: IntegerArray, rate: float, mean_span: int, generator: np.random.Generator
) -> tuple[list[IntegerArray], list[IntegerArray]]:
    """Cut a sequence into visible parts and hidden spans between them.

    Parameters
    ----------
    symbols : ndarray of int64, shape (place,)
        The sequence, at least two symbols.
    rate : float
        Part of the symbols to hide, in (0, 1]. The number is exact, rounded to the
        nearest, and leaves at least one symbol hidden and one visible.
    mean_span : int
        Mean length of a hidden span, where there is room for as many spans.
    generator : numpy.random.Generator
        Source of the cuts; every choice of lengths is equally likely.

    Returns
    -------
    visible, hidden : list of ndarray of int64
        The parts in order, one more visible than hidden. Hidden spans are not empty and
        do not touch; the first and the last visible part may be empty.

    Examples
    --------
    >>> import numpy as np
    >>> visible, hidden = hide_spans(np.arange(8), 0.5, 2, np.random.default_rng(0))
    >>> sum(map(len, visible)), sum(map(len, hidden)), len(hidden)
    (4, 4, 2)
    """
    n_hidden = min(max(round(rate * len(symbols)), 1), len(symbols) - 1)
    n_visible = len(symbols) - n_hidden
    n_spans = max(round(n_hidden / mean_span), 1)
    n_spans = min(n_spans, n_hidden, n_visible + 1)
    hidden = _composition(n_hidden, n_spans, generator)
    # One is lent to each end, which may be empty.
    visible = _composition(n_visible + 2, n_spans + 1, generator)
    visible[[0, -1]] -= 1
    lengths = np.zeros(2 * n_spans + 1, dtype=np.int64)
    lengths[::2], lengths[1::2] = visible, hidden
    parts = np.split(symbols, lengths.cumsum()[:-1])
    return parts[::2], parts[1::2]


class DelimitedSpan(NamedTuple):
    """A span, and how many symbols before and behind it are its delimiters.

    Parameters
    ----------
    first, stop : int
        Place of its first symbol, and of the first behind it.
    n_left, n_right : int
        Lengths of the delimiters.
    """

    first: int
    stop: int
    n_left: int
    n_right: int

    def delimiters(self, symbols: IntegerArray) -> list[IntegerArray]:
        """Return the left and the right delimiter, cut from the sequence."""
        left = symbols[self.first - self.n_left : self.first]
        return [left, symbols[self.stop : self.stop + self.n_right]]


def draw_delimited_spans(
    symbols: IntegerArray,
    n_spans: int,
    lengths: tuple[int, int],
    delimiters: tuple[int, int],
    generator: np.random.Generator,
) -> list[DelimitedSpan]:
    """Draw spans that do not overlap, each singled out by its delimiters.

    Parameters
    ----------
    symbols : ndarray of int64, shape (place,)
        The sequence.
    n_spans : int
        How many to draw. Fewer are returned where no more are found.
    lengths, delimiters : (int, int)
        Least and greatest length of a span, cut to what fits, and of a delimiter.
    generator : numpy.random.Generator
        Source of the draws.

    Returns
    -------
    list of DelimitedSpan
        In the order drawn, at least one.

    Raises
    ------
    InputError
        When not one is found.

    Examples
    --------
    >>> import numpy as np
    >>> symbols, generator = np.array([1, 2, 3, 4, 5]), np.random.default_rng(0)
    >>> (span,) = draw_delimited_spans(symbols, 1, (1, 2), (1, 1), generator)
    >>> count_readings(symbols, *span.delimiters(symbols))
    1
    """
    spans: list[DelimitedSpan] = []
    for _ in range(_ATTEMPTS):
        span = _draw_span(len(symbols), lengths, delimiters, generator)
        if (
            span is not None
            and all(span.stop <= one.first or one.stop <= span.first for one in spans)
            and count_readings(symbols, *span.delimiters(symbols)) == 1
        ):
            spans.append(span)
        if len(spans) == n_spans:
            break
    if not spans:
        raise InputError(
            f"no span of {len(symbols)} symbols is singled out by delimiters of "
            f"{delimiters} symbols",
            where="draw_delimited_spans",
            hint="Allow longer delimiters, or take another sequence.",
        )
    return spans


def count_readings(
    symbols: IntegerArray, left: IntegerArray, right: IntegerArray
) -> int:
    """Count the spans that stand between two delimiters in a sequence.

    Parameters
    ----------
    symbols : ndarray of int64, shape (place,)
        The sequence.
    left, right : ndarray of int64
        The delimiters, no longer than the sequence.

    Returns
    -------
    int
        Pairs of a left delimiter and a right one with at least one symbol between.

    Examples
    --------
    >>> import numpy as np
    >>> count_readings(np.array([1, 5, 2, 6, 2]), np.array([1]), np.array([2]))
    2
    """
    earliest = _places(symbols, left) + len(left) + 1
    return int((_places(symbols, right) >= earliest[:, None]).sum())


def _composition(
    total: int, n_parts: int, generator: np.random.Generator
) -> IntegerArray:
    # Every way to write the total as positive parts is equally likely.
    cuts = 1 + np.sort(generator.choice(total - 1, n_parts - 1, replace=False))
    return np.diff(cuts, prepend=0, append=total)


def _draw_span(
    n_symbols: int,
    lengths: tuple[int, int],
    delimiters: tuple[int, int],
    generator: np.random.Generator,
) -> DelimitedSpan | None:
    low, high = delimiters
    n_left, n_right = generator.integers(low, high + 1, size=2).tolist()
    room = n_symbols - n_left - n_right
    if room < 1:
        return None
    least, greatest = (min(one, room) for one in lengths)
    length = int(generator.integers(least, greatest + 1))
    first = n_left + int(generator.integers(room - length + 1))
    return DelimitedSpan(first, first + length, n_left, n_right)


def _places(symbols: IntegerArray, pattern: IntegerArray) -> IntegerArray:
    windows = np.lib.stride_tricks.sliding_window_view(symbols, len(pattern))
    return np.flatnonzero((windows == pattern).all(axis=1))
