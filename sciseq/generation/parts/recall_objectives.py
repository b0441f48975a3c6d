"""Training rows of objectives that demand recall, from plain sequences.

A row has inputs, which become the prefix, and labels, which alone are predicted; how
they are laid out is told in :mod:`sciseq.generation.parts.recall_rows`. Sequences hold
the symbols 0, ..., V - 1; further ids stand for what :class:`RecallVocabulary` lists.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from sciseq.errors import InputError, nearest_name
from sciseq.generation.parts.recall_rows import BoolArray, IntegerArray, RecallRow
from sciseq.generation.parts.recall_spans import draw_delimited_spans, hide_spans

__all__ = [
    "OBJECTIVES",
    "ObjectiveConfiguration",
    "RecallVocabulary",
    "build_row",
    "default_configurations",
]


@dataclass(frozen=True)
class RecallVocabulary:
    """Ids of the symbols and of the tokens that speak about them.

    Parameters
    ----------
    n_symbols : int
        Size V of the alphabet of the sequences.

    Raises
    ------
    InputError
        When ``n_symbols`` is below 1.

    Examples
    --------
    >>> vocabulary = RecallVocabulary(4)
    >>> vocabulary.begin, vocabulary.paradigm("next_token"), vocabulary.size
    (4, 9, 16)
    """

    n_symbols: int

    def __post_init__(self) -> None:
        if self.n_symbols < 1:
            raise InputError(
                f"n_symbols is {self.n_symbols}, must be at least 1",
                where="RecallVocabulary",
            )

    @property
    def begin(self) -> int:
        """Opens the causal area."""
        return self.n_symbols

    @property
    def done(self) -> int:
        """Ends the labels."""
        return self.n_symbols + 1

    @property
    def separator(self) -> int:
        """Stands between the parts of inputs or labels."""
        return self.n_symbols + 2

    @property
    def mask(self) -> int:
        """Stands for one hidden span."""
        return self.n_symbols + 3

    @property
    def padding(self) -> int:
        """Fills what is behind a sample."""
        return self.n_symbols + 4

    @property
    def size(self) -> int:
        """Number of ids, paradigm tokens included."""
        return self.n_symbols + 5 + len(OBJECTIVES)

    def paradigm(self, objective: str) -> int:
        """Return the id of the token that names an objective."""
        return self.n_symbols + 5 + list(OBJECTIVES).index(objective)


@dataclass(frozen=True)
class ObjectiveConfiguration:
    """An objective with its settings. Those that an objective does not name are unused.

    Parameters
    ----------
    objective : str
        A name of ``OBJECTIVES``: the class of the configuration.
    rate : float, default 1.0
        Part of the tokens that is hidden (infilling, autoencoding) or takes part in the
        shuffle (deshuffling), in (0, 1].
    mean_span : int, default 1
        Mean length of hidden spans (infilling, autoencoding).
    is_shuffled : bool, default False
        Whether what stays visible is shuffled (autoencoding).
    lengths : (int, int), default (1, 128)
        Least and greatest length of what is copied (copying, selective copying).
    n_spans : int, default 1
        Number of requested spans, fewer where a sequence does not have as many
        (selective copying).
    delimiters : (int, int), default (1, 4)
        Least and greatest length of a delimiter (selective copying).
    query_first : bool, default False
        Whether the query stands before the context (selective copying).

    Raises
    ------
    InputError
        When the objective is unknown or a setting out of range.

    Examples
    --------
    >>> ObjectiveConfiguration("infilling", rate=0.15, mean_span=4).objective
    'infilling'
    """

    objective: str
    rate: float = 1.0
    mean_span: int = 1
    is_shuffled: bool = False
    lengths: tuple[int, int] = (1, 128)
    n_spans: int = 1
    delimiters: tuple[int, int] = (1, 4)
    query_first: bool = False

    def __post_init__(self) -> None:
        if self.objective not in OBJECTIVES:
            raise InputError(
                f"objective is {self.objective!r}, must be one of {list(OBJECTIVES)}",
                where="ObjectiveConfiguration",
                hint=nearest_name(self.objective, OBJECTIVES),
            )
        ranges = (self.lengths, self.delimiters)
        if (
            not 0 < self.rate <= 1
            or min(self.mean_span, self.n_spans) < 1
            or any(not 1 <= low <= high for low, high in ranges)
        ):
            raise InputError(
                f"{self}: rate must be in (0, 1], mean_span and n_spans at least 1, "
                "lengths and delimiters ranges from at least 1",
                where="ObjectiveConfiguration",
            )


def default_configurations() -> list[ObjectiveConfiguration]:
    """Return every objective with its settings, for sequences of up to 128 symbols.

    Returns
    -------
    list of ObjectiveConfiguration
        Next-token and prefix language modelling; infilling of 5, 15 and 50 % in spans
        of 2, 4 and 8; autoencoding of 15 and 85 % in the same spans, shuffled or not;
        copying of 4 to 16 and of 16 to 64 symbols; deshuffling of 50 and 100 %;
        selective copying of 1, 2 and 4 spans of 2 to 8 symbols, asked before or after
        the context.

    Notes
    -----
    The paper has sequences of 128 to 2048 tokens with spans of 3, 8 and 32, copies 64
    to 2048 tokens, and requests spans of 4 to 32 between delimiters of 1 to 8. These
    are scaled down.

    Examples
    --------
    >>> len(default_configurations())
    33
    """
    make = ObjectiveConfiguration
    spans = (2, 4, 8)
    return [
        make("next_token"),
        make("prefix_lm"),
        *(make("infilling", r, span) for r in (0.05, 0.15, 0.5) for span in spans),
        *(
            make("autoencoding", rate, span, shuffled)
            for rate in (0.15, 0.85)
            for span in spans
            for shuffled in (False, True)
        ),
        *(make("copying", lengths=lengths) for lengths in ((4, 16), (16, 64))),
        *(make("deshuffling", rate) for rate in (0.5, 1.0)),
        *(
            make("selective_copying", lengths=(2, 8), n_spans=n, query_first=first)
            for n in (1, 2, 4)
            for first in (False, True)
        ),
    ]


def build_row(
    configuration: ObjectiveConfiguration,
    sequence: Sequence[int] | IntegerArray,
    vocabulary: RecallVocabulary,
    generator: np.random.Generator,
) -> RecallRow:
    """Make a training row of one sequence.

    Parameters
    ----------
    configuration : ObjectiveConfiguration
        What is asked.
    sequence : sequence of int
        At least two symbols in 0, ..., V - 1.
    vocabulary : RecallVocabulary
        Ids of the other tokens.
    generator : numpy.random.Generator
        Source of every draw.

    Returns
    -------
    RecallRow
        Inputs and labels. The paradigm token stands before the inputs, or behind them
        in half of the cases; DONE ends the labels.

    Raises
    ------
    InputError
        When the sequence is too short or holds other ids, or no span of a selective
        copy has delimiters that single it out.

    Notes
    -----
    Card: sequences §10 (Birdie, arXiv:2411.01030). Our choices: one mask token for each
    hidden span, a separator between the parts of a label, DONE at the end of all labels
    (not of selective copies alone), and a paradigm token per objective, not per
    configuration.

    Examples
    --------
    >>> import numpy as np
    >>> vocabulary, generator = RecallVocabulary(10), np.random.default_rng(1)
    >>> row = build_row(
    ...     ObjectiveConfiguration("copying"), [3, 1, 4], vocabulary, generator
    ... )
    >>> row.labels.tolist()[-1] == vocabulary.done
    True
    """
    symbols = np.asarray(sequence, dtype=np.int64)
    if (
        symbols.ndim != 1
        or len(symbols) < 2
        or symbols.min() < 0
        or symbols.max() >= vocabulary.n_symbols
    ):
        raise InputError(
            f"sequence of shape {symbols.shape} must be one-dimensional and hold at "
            f"least two symbols from 0 to {vocabulary.n_symbols - 1}",
            where="build_row, sequence",
        )
    build = OBJECTIVES[configuration.objective]
    inputs, labels = build(symbols, configuration, vocabulary, generator)
    paradigm = vocabulary.paradigm(configuration.objective)
    place = 0 if generator.random() < 0.5 else len(inputs)
    return RecallRow(
        np.insert(inputs, place, paradigm), np.append(labels, vocabulary.done)
    )


def _next_token(
    symbols: IntegerArray,
    configuration: ObjectiveConfiguration,
    vocabulary: RecallVocabulary,
    generator: np.random.Generator,
) -> tuple[IntegerArray, IntegerArray]:
    return symbols[:0], symbols


def _prefix_lm(
    symbols: IntegerArray,
    configuration: ObjectiveConfiguration,
    vocabulary: RecallVocabulary,
    generator: np.random.Generator,
) -> tuple[IntegerArray, IntegerArray]:
    cut = generator.integers(1, len(symbols))
    return symbols[:cut], symbols[cut:]


def _infilling(
    symbols: IntegerArray,
    configuration: ObjectiveConfiguration,
    vocabulary: RecallVocabulary,
    generator: np.random.Generator,
) -> tuple[IntegerArray, IntegerArray]:
    rate, mean_span = configuration.rate, configuration.mean_span
    visible, hidden = hide_spans(symbols, rate, mean_span, generator)
    inputs = _separated(visible, vocabulary.mask)
    return inputs, _separated(hidden, vocabulary.separator)


def _autoencoding(
    symbols: IntegerArray,
    configuration: ObjectiveConfiguration,
    vocabulary: RecallVocabulary,
    generator: np.random.Generator,
) -> tuple[IntegerArray, IntegerArray]:
    rate, mean_span = configuration.rate, configuration.mean_span
    visible, _ = hide_spans(symbols, rate, mean_span, generator)
    inputs = _separated(visible, vocabulary.mask)
    if configuration.is_shuffled:
        inputs = _shuffled(inputs, inputs != vocabulary.mask, generator)
    return inputs, symbols


def _copying(
    symbols: IntegerArray,
    configuration: ObjectiveConfiguration,
    vocabulary: RecallVocabulary,
    generator: np.random.Generator,
) -> tuple[IntegerArray, IntegerArray]:
    least, greatest = (min(one, len(symbols)) for one in configuration.lengths)
    length = generator.integers(least, greatest + 1)
    first = generator.integers(len(symbols) - length + 1)
    part = symbols[first : first + length]
    return part, part


def _deshuffling(
    symbols: IntegerArray,
    configuration: ObjectiveConfiguration,
    vocabulary: RecallVocabulary,
    generator: np.random.Generator,
) -> tuple[IntegerArray, IntegerArray]:
    n_moved = math.ceil(configuration.rate * len(symbols))
    moves = np.zeros(len(symbols), dtype=np.bool_)
    moves[generator.choice(len(symbols), n_moved, replace=False)] = True
    return _shuffled(symbols, moves, generator), symbols


def _selective_copying(
    symbols: IntegerArray,
    configuration: ObjectiveConfiguration,
    vocabulary: RecallVocabulary,
    generator: np.random.Generator,
) -> tuple[IntegerArray, IntegerArray]:
    spans = draw_delimited_spans(
        symbols,
        configuration.n_spans,
        configuration.lengths,
        configuration.delimiters,
        generator,
    )
    requests = [_separated(span.delimiters(symbols), vocabulary.mask) for span in spans]
    query = _separated(requests, vocabulary.separator)
    parts = [query, symbols] if configuration.query_first else [symbols, query]
    labels = [symbols[span.first : span.stop] for span in spans]
    return (
        _separated(parts, vocabulary.separator),
        _separated(labels, vocabulary.separator),
    )


_Builder: TypeAlias = Callable[
    [IntegerArray, ObjectiveConfiguration, RecallVocabulary, np.random.Generator],
    tuple[IntegerArray, IntegerArray],
]

OBJECTIVES: dict[str, _Builder] = {
    "next_token": _next_token,
    "prefix_lm": _prefix_lm,
    "infilling": _infilling,
    "autoencoding": _autoencoding,
    "copying": _copying,
    "deshuffling": _deshuffling,
    "selective_copying": _selective_copying,
}
"""Builders of inputs and labels, by the name of the objective."""


def _separated(parts: Sequence[IntegerArray], between: int) -> IntegerArray:
    mark = np.array([between], dtype=np.int64)
    pieces = [piece for part in parts for piece in (mark, part)]
    return np.concatenate(pieces[1:])


def _shuffled(
    tokens: IntegerArray, moves: BoolArray, generator: np.random.Generator
) -> IntegerArray:
    result = tokens.copy()
    result[moves] = generator.permutation(tokens[moves])
    return result
