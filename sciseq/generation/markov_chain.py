r"""Markov chains of any order: the baseline of every generator of sequences.

Axis legend: n rows (places in sequences), M order, V symbols with the end symbol.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np

from sciseq.base import SequenceEstimator
from sciseq.errors import InputError
from sciseq.generation.alphabet import as_sequences
from sciseq.generation.context_counts import ContextCounts, IntArray
from sciseq.generation.method_card import MethodCard
from sciseq.generation.numbering import number_symbols, sorted_symbols
from sciseq.parameters import AnyOf, Boolean, Integer, Nothing, Option, Real
from sciseq.parameters import Rule as ParameterRule

__all__ = ["MarkovChain"]

# A chain without an end in sight is stopped at this many times the longest sequence.
_PATIENCE = 10


class MarkovChain(SequenceEstimator):
    r"""Markov chain of any order on strings or lists of tokens.

    .. math:: \log p(x) = \sum_{i=1}^{|x|+1} \log p_M(x_i \mid x_{i-M}, \dots, x_{i-1})

    where :math:`x_{|x|+1}` is an end symbol, and places before the start hold a start
    symbol. With interpolated smoothing, the counts :math:`n` of each context are
    completed by those of the context without its oldest symbol:

    .. math:: p_m(x \mid c) = \frac{n(c, x) + \alpha_m\, p_{m-1}(x \mid c')}
                                   {n(c) + \alpha_m}, \qquad p_{-1} = \tfrac1V

    Parameters
    ----------
    order : int, default=5
        Symbols M that the next one depends on.
    smoothing : {"interpolated", "add"}, default="interpolated"
        ``"add"`` counts only the longest contexts and adds :math:`\alpha_M / V` to
        each count.
    strength : float, optional
        Weight :math:`\alpha_m` of what smooths, at all lengths m; by default each is
        the one of 21 between 0.01 and 1000 under which the validation part is
        likeliest, chosen in turn until none gets better.
    end_symbol : bool, optional
        Whether the chain says where a sequence ends. By default it does unless all
        training sequences are equally long; without it, all sequences scored or
        sampled have that length.
    alphabet : str or sequence, optional
        Symbols that may occur; by default those of the training sequences.
    validation_fraction : float, default=0.1
        Share of the sequences on which strengths are chosen; the chain then learns from
        all of them.
    random_state : int, default=0
        Chooses the validation part.

    Attributes
    ----------
    alphabet_ : list
        Symbols by number.
    strengths_ : ndarray of shape (order + 1,) or (1,)
        Weights that are used, of the shortest contexts first; one alone holds for all.
    length_ : int or None
        Length of all sequences, when there is no end symbol.
    n_training_ : int
        Number of training sequences.

    References
    ----------
    MacKay and Peto, A hierarchical Dirichlet language model, Natural Language
    Engineering 1 (1995): the interpolation, here with strengths chosen on held-out
    sequences.

    Examples
    --------
    >>> chain = MarkovChain(order=1, strength=1e-9).fit(["AB", "AB", "AC"])
    >>> np.exp(chain.score_samples(["AB", "AC"])).round(3)
    array([0.667, 0.333])
    >>> chain.sample(4, random_state=0)
    ['AB', 'AB', 'AC', 'AC']
    """

    method_card: ClassVar[MethodCard] = MethodCard(
        idea="Counts of what followed each context, smoothed by shorter contexts. The "
        "baseline of all generators.",
        order="From left to right, one token at a time.",
        mask="A token reads the few before it.",
        corruption="Nothing.",
        objective="Counts; nothing is trained by steps.",
        decoder="Draws from the counts of the context.",
        cache="none",
        score="exact",
        good_for="Always, first: it takes seconds, and short or few sequences hold "
        "little more.",
        not_for="What depends on tokens far apart.",
        picture=None,
    )

    _parameter_rules: ClassVar[dict[str, ParameterRule]] = {
        "order": Integer(0),
        "smoothing": Option("interpolated", "add"),
        "strength": AnyOf(Nothing(), Real(0.0, open_low=True)),
        "end_symbol": AnyOf(Nothing(), Boolean()),
        "validation_fraction": Real(0.0, 1.0, open_low=True, open_high=True),
        "random_state": Integer(0),
    }

    def __init__(
        self,
        order: int = 5,
        *,
        smoothing: str = "interpolated",
        strength: float | None = None,
        end_symbol: bool | None = None,
        alphabet: Any = None,
        validation_fraction: float = 0.1,
        random_state: int = 0,
    ) -> None:
        self.order = order
        self.smoothing = smoothing
        self.strength = strength
        self.end_symbol = end_symbol
        self.alphabet = alphabet
        self.validation_fraction = validation_fraction
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> Self:
        """Count, and choose the strength of the smoothing.

        Parameters
        ----------
        X : sequence of str or of lists of tokens, array of integers, or path
            Training sequences; a path to a FASTA, SMILES or text file (also ``.gz``)
            stands for those in it.
        y : None
            Ignored.

        Returns
        -------
        self

        Raises
        ------
        InputError
            For parameters that are not allowed, no sequences, a symbol outside
            `alphabet`, or too few sequences to choose the strength.
        """
        self._check_parameters()
        sequences, kind = _sequences(X)
        alphabet = (
            sorted_symbols(sequences) if self.alphabet is None else list(self.alphabet)
        )
        numbered = number_symbols(sequences, alphabet)
        lengths = {len(sequence) for sequence in numbered}
        has_end = len(lengths) > 1 if self.end_symbol is None else self.end_symbol
        if not has_end and (len(lengths) > 1 or lengths == {0}):
            raise InputError(
                f"sequences have {min(lengths)} to {max(lengths)} symbols; without an "
                "end symbol all need the same length, at least 1",
                where="X",
                hint="Set end_symbol=True.",
            )
        parts = self._parts(len(numbered)) if self.strength is None else []
        self._forget()
        self.alphabet_ = alphabet
        self.kind_ = kind
        self.length_ = None if has_end else max(lengths)
        self.longest_ = max(lengths)
        self.n_training_ = len(numbered)
        self.order_ = int(self.order)
        self.interpolates_ = self.smoothing == "interpolated"
        if self.strength is not None:
            self.strengths_ = np.array([float(self.strength)])
        else:
            training, held_out = ([numbered[i] for i in part] for part in parts)
            contexts, symbols, _ = self._places(held_out)
            counts = self._count(training)
            self.strengths_ = counts.best_strengths(contexts, symbols)
        self.counts_ = self._count(numbered)
        return self

    def score_samples(self, X: Any, *, return_std: bool = False) -> Any:
        """Return the exact log-probability of each sequence.

        Parameters
        ----------
        X : n sequences
            As in fit.
        return_std : bool, default=False
            Also return the standard errors, which are 0.

        Returns
        -------
        ndarray of shape (n,), or two of them
            Natural logarithms.

        Raises
        ------
        InputError
            For a symbol that is not in the alphabet, or, without an end symbol, another
            length than in training.
        """
        self._check_is_fitted()
        sequences, _ = _sequences(X)
        numbered = number_symbols(sequences, self.alphabet_)
        contexts, symbols, sequence = self._places(numbered)
        p = self.counts_.probability(contexts, symbols, self.strengths_)
        total = np.bincount(sequence, weights=np.log(p), minlength=len(numbered))
        total = total.astype(np.float64)
        return (total, np.zeros_like(total)) if return_std else total

    def score(self, X: Any, y: Any = None) -> float:
        """Return the mean log-probability of a sequence.

        Parameters
        ----------
        X : sequences
            As in fit.
        y : None
            Ignored.

        Returns
        -------
        float
            Greater is better.
        """
        return float(self.score_samples(X).mean())

    def sample(
        self,
        n: int = 1,
        *,
        max_length: int | None = None,
        random_state: int | np.random.Generator | None = None,
    ) -> Any:
        """Draw sequences from the chain.

        Parameters
        ----------
        n : int, default=1
            Number of sequences.
        max_length : int, optional
            Sequences are cut there. Without it, a sequence that has not ended is cut at
            ten times the longest training sequence.
        random_state : int or numpy.random.Generator, optional
            Source of randomness. A sequence does not depend on how many are drawn
            after it.

        Returns
        -------
        list of str, list of lists, or array of int, as in fit

        Raises
        ------
        InputError
            For fewer than one sequence.
        """
        self._check_is_fitted()
        if not Integer(1).allows(n):
            raise InputError(f"n is {n!r}, must be {Integer(1).describe()}", where="n")
        usual = self.length_ or _PATIENCE * max(1, self.longest_)
        limit = usual if max_length is None else min(usual, max_length)
        thresholds = np.random.default_rng(random_state).random((n, limit))
        end, start = self._end, self._n_symbols
        drawn = np.full((n, limit), end, dtype=np.int64)
        contexts = np.full((n, self.order_), start, dtype=np.int64)
        going = np.arange(n)
        for place in range(limit):
            p = self.counts_.distribution(contexts[going], self.strengths_)
            # The number of sums that lie below the threshold is the symbol.
            u = thresholds[going, place, None] * p.sum(axis=1, keepdims=True)
            symbol = (np.cumsum(p, axis=1)[:, :-1] <= u).sum(axis=1)
            drawn[going, place] = symbol
            contexts[going] = np.column_stack([symbol, contexts[going]])[
                :, : self.order_
            ]
            going = going[symbol != end]
        return self._decoded(drawn)

    # ---------------------------------------------------------------------- inside

    def _decoded(self, drawn: IntArray) -> Any:
        if self.kind_ == "array" and self.length_ is not None:
            return np.array(self.alphabet_)[drawn]
        rows = [
            [self.alphabet_[number] for number in row[row != self._end]]
            for row in drawn
        ]
        return ["".join(row) for row in rows] if self.kind_ == "string" else rows

    @property
    def _n_symbols(self) -> int:
        return len(self.alphabet_) + (self.length_ is None)

    @property
    def _end(self) -> int:
        """Number of the end symbol; without one, a number that never occurs."""
        return len(self.alphabet_) if self.length_ is None else -1

    def _count(self, numbered: Sequence[IntArray]) -> ContextCounts:
        contexts, symbols, _ = self._places(numbered)
        return ContextCounts.of(
            contexts, symbols, self._n_symbols, interpolates=self.interpolates_
        )

    def _places(self, numbered: Sequence[IntArray]) -> tuple[IntArray, ...]:
        """Contexts (n, M), most recent first, symbols (n,) and their sequences (n,)."""
        M, start = self.order_, self._n_symbols
        end = [] if self.length_ is not None else [self._end]
        if self.length_ is not None:
            self._check_lengths(numbered)
        before = np.full(M, start, dtype=np.int64)
        padded = [
            np.concatenate([before, one, end]).astype(np.int64) for one in numbered
        ]
        text = np.concatenate(padded)
        # Places of symbols, not of the start symbols before each sequence.
        lengths = np.array([len(one) for one in padded])
        own = np.arange(len(text)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        at = np.flatnonzero(own >= M)
        contexts = text[at[:, None] - np.arange(1, M + 1)]
        return contexts, text[at], np.repeat(np.arange(len(padded)), lengths)[at]

    def _check_lengths(self, numbered: Sequence[IntArray]) -> None:
        for place, sequence in enumerate(numbered):
            if len(sequence) != self.length_:
                raise InputError(
                    f"the sequence has {len(sequence)} symbols, without an end symbol "
                    f"all have {self.length_}",
                    where=f"X[{place}]",
                    hint="Fit with end_symbol=True for sequences of several lengths.",
                )

    def _parts(self, n_sequences: int) -> list[IntArray]:
        """Sequences to learn from, and those to choose the strengths on."""
        n_held_out = round(self.validation_fraction * n_sequences)
        if not 0 < n_held_out < n_sequences:
            raise InputError(
                f"{n_sequences} sequences cannot be split to choose the strengths",
                where="X",
                hint="Give strength=, or more sequences.",
            )
        order = np.random.default_rng(self.random_state).permutation(n_sequences)
        return [order[n_held_out:], order[:n_held_out]]

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "counts_")

    def _get_saved_state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        attributes, weights = super()._get_saved_state()
        if "counts_" in attributes:
            attributes["counts_"] = [tuple(one) for one in self.counts_.levels]
        return attributes, weights

    def _set_saved_state(
        self, attributes: Mapping[str, Any], weights: Mapping[str, Any]
    ) -> None:
        super()._set_saved_state(attributes, weights)
        self.counts_ = ContextCounts(
            attributes["counts_"], self._n_symbols, interpolates=self.interpolates_
        )


def _sequences(X: Any) -> tuple[list[Any], str]:
    sequences, kind = as_sequences(X)
    if not sequences:
        raise InputError("there are no sequences", where="X")
    return sequences, kind
