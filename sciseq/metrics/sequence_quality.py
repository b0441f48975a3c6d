r"""How generated sequences compare with real ones: k-mers, novelty, diversity.

Axis legend: n sequences, m training sequences, L length of the longest of these. A
sequence is a string, or a list or tuple of tokens.
"""

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence

import numpy as np
import numpy.typing as npt

from sciseq.errors import InputError

__all__ = [
    "bits_per_token",
    "kmer_distance",
    "kmer_spectrum",
    "nearest_edit_distance",
    "novelty",
    "token_entropy",
    "uniqueness",
]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Tokens = Sequence[Hashable]

# Cells of the edit distance table that are worked on together: 64 MiB.
_CELLS_AT_ONCE = 2**23


def bits_per_token(
    log_probabilities: npt.ArrayLike, sequences: Sequence[Tokens]
) -> float:
    r"""Return the bits that a model needs per token (per base, per residue).

    .. math:: \frac{-\sum_i \log p(x_i)}{\ln 2\ \sum_i |x_i|}

    Parameters
    ----------
    log_probabilities : array-like of shape (n,)
        Natural logarithm of the probability of each sequence, such as
        ``score_samples`` gives.
    sequences : sequence of n sequences
        What was scored. An end symbol counts in the probability, not in the length.

    Returns
    -------
    float
        Smaller is better; 2 for bases that are all equally likely.

    Raises
    ------
    InputError
        When the numbers differ, or there is no token.

    Examples
    --------
    >>> bits_per_token([4 * np.log(1 / 4)], ["ACGT"])
    2.0
    """
    log_p = np.asarray(log_probabilities, dtype=np.float64)
    n_tokens = sum(map(len, sequences))
    if log_p.shape != (len(sequences),) or n_tokens == 0:
        raise InputError(
            f"log_probabilities have shape {log_p.shape} for {len(sequences)} "
            f"sequences of {n_tokens} tokens together",
            where="log_probabilities",
            hint="One value per sequence is needed, and at least one token.",
        )
    return float(-log_p.sum() / (n_tokens * math.log(2)))


def kmer_spectrum(sequences: Iterable[Tokens], k: int) -> dict[Hashable, float]:
    r"""Return the share of each k-mer among all runs of `k` tokens.

    Parameters
    ----------
    sequences : iterable of sequences
        Overlapping runs are counted within each sequence.
    k : int
        Length of the runs.

    Returns
    -------
    dict
        From k-mer (a string, or a tuple of tokens) to its share, in order of first
        appearance; the shares sum to 1.

    Raises
    ------
    InputError
        When no sequence has `k` tokens, or `k` is below 1.

    Examples
    --------
    >>> kmer_spectrum(["ACAC"], 2)
    {'AC': 0.6666666666666666, 'CA': 0.3333333333333333}
    """
    if k < 1:
        raise InputError(f"k is {k}, must be at least 1", where="k")
    counts: Counter[Hashable] = Counter()
    for sequence in sequences:
        x = _hashable(sequence)
        counts.update(x[start : start + k] for start in range(len(x) - k + 1))
    total = counts.total()
    if not total:
        raise InputError(
            f"no sequence has {k} tokens", where="sequences", hint="Choose a smaller k."
        )
    return {kmer: count / total for kmer, count in counts.items()}


def kmer_distance(first: Iterable[Tokens], second: Iterable[Tokens], k: int) -> float:
    r"""Return the Jensen-Shannon distance between two k-mer spectra.

    .. math:: d = \sqrt{\tfrac12 \mathrm{KL}(p \| m) + \tfrac12 \mathrm{KL}(q \| m)},
              \qquad m = \tfrac12 (p + q)

    with logarithms to base 2.

    Parameters
    ----------
    first, second : iterable of sequences
        For instance generated and held-out sequences.
    k : int
        Length of the k-mers.

    Returns
    -------
    float
        Between 0 (equal spectra) and 1 (no k-mer in common); a metric.

    Raises
    ------
    InputError
        As :func:`kmer_spectrum`.

    Notes
    -----
    Two finite samples of one distribution are apart as well: compare with the distance
    between two halves of the real sequences. Endres and Schindelin, A new metric for
    probability distributions, IEEE Trans. Information Theory 49 (2003).

    Examples
    --------
    >>> kmer_distance(["ACAC"], ["CACA"], 1), kmer_distance(["AAA"], ["CCC"], 2)
    (0.0, 1.0)
    """
    p, q = kmer_spectrum(first, k), kmer_spectrum(second, k)
    # Both shares of every k-mer; a k-mer that one of them lacks is none to log over.
    shares = np.array([(p.get(kmer, 0.0), q.get(kmer, 0.0)) for kmer in p | q])
    ratio = shares / shares.mean(axis=1, keepdims=True)
    terms = shares * np.log2(np.where(ratio > 0, ratio, 1.0))
    return float(np.sqrt(max(0.0, terms.sum() / 2)))


def novelty(sequences: Sequence[Tokens], training: Iterable[Tokens]) -> float:
    """Return the share of sequences that are not among the training sequences.

    Parameters
    ----------
    sequences : sequence of sequences
        Generated sequences.
    training : iterable of sequences
        What the generator has learnt from.

    Returns
    -------
    float
        Between 0 (all copied) and 1.

    Raises
    ------
    InputError
        Without sequences.

    Examples
    --------
    >>> novelty(["AC", "GG"], ["AC", "AT"])
    0.5
    """
    _check_not_empty(sequences)
    known = {_hashable(one) for one in training}
    return sum(_hashable(one) not in known for one in sequences) / len(sequences)


def uniqueness(sequences: Sequence[Tokens]) -> float:
    """Return the number of different sequences over the number of sequences.

    Parameters
    ----------
    sequences : sequence of sequences
        Generated sequences.

    Returns
    -------
    float
        1 when no two are equal.

    Raises
    ------
    InputError
        Without sequences.

    Examples
    --------
    >>> uniqueness(["AC", "AC", "GG", "T"])
    0.75
    """
    _check_not_empty(sequences)
    return len({_hashable(one) for one in sequences}) / len(sequences)


def token_entropy(sequences: Sequence[Tokens]) -> FloatArray:
    r"""Return the entropy of the tokens within each sequence (sample entropy).

    .. math:: H(x) = -\sum_a f_a \ln f_a, \qquad f_a = \tfrac1{|x|} \#\{i : x_i = a\}

    Parameters
    ----------
    sequences : sequence of n sequences
        Generated sequences.

    Returns
    -------
    ndarray of shape (n,)
        In nats; 0 for a sequence that repeats one token, and for an empty one.

    Notes
    -----
    A sampler that falls into repetition scores well by likelihood and low here: report
    the mean beside any figure of quality. It is not the "sample entropy" (SampEn) of
    physiological time series.

    Examples
    --------
    >>> token_entropy(["AAAA", "ACAC"]).round(4)
    array([0.    , 0.6931])
    """
    return np.array([_entropy(Counter(sequence)) for sequence in sequences])


def nearest_edit_distance(
    sequences: Sequence[Tokens], training: Sequence[Tokens]
) -> IntArray:
    r"""Return the fewest edits from each sequence to any training sequence.

    Parameters
    ----------
    sequences : sequence of n sequences
        Generated sequences.
    training : sequence of m sequences
        What the generator has learnt from.

    Returns
    -------
    ndarray of int64, shape (n,)
        Insertions, deletions and substitutions (Levenshtein); 0 for a copy.

    Raises
    ------
    InputError
        Without training sequences.

    Notes
    -----
    All training sequences are compared at once. A row of the table is
    :math:`D_{ij} = \min_{k \le j} (c_k + j - k)` with :math:`c_k = \min(D_{i-1,k} + 1,
    D_{i-1,k-1} + [x_i \ne y_k])`, so that the running minimum over insertions is one
    ``minimum.accumulate`` of :math:`c_k - k`.

    Examples
    --------
    >>> nearest_edit_distance(["GLWSK", "AAA"], ["GLWK", "GIWSK", "AAA"]).tolist()
    [1, 0]
    """
    _check_not_empty(training, "training")
    numbers: dict[Hashable, int] = {}
    length = max(map(len, training))
    y = np.full((len(training), length), -1, dtype=np.int64)  # (m, L)
    for row, sequence in enumerate(training):
        y[row, : len(sequence)] = [
            numbers.setdefault(token, len(numbers)) for token in sequence
        ]
    lengths = np.array([len(sequence) for sequence in training])
    step = max(1, _CELLS_AT_ONCE // (length + 1))
    parts = [slice(start, start + step) for start in range(0, len(y), step)]
    return np.array(
        [
            min(_least_distance(x, y[part], lengths[part]) for part in parts)
            for x in ([numbers.get(token, -2) for token in one] for one in sequences)
        ],
        dtype=np.int64,
    )


def _least_distance(x: list[int], y: IntArray, lengths: npt.NDArray[np.int64]) -> int:
    place = np.arange(y.shape[1] + 1, dtype=np.int32)
    row = np.repeat(place[None], len(y), axis=0)  # D_{i,j} of all training sequences
    for token in x:
        c = row + 1
        np.minimum(c[:, 1:], row[:, :-1] + (y != token), out=c[:, 1:])
        row = np.minimum.accumulate(c - place, axis=1) + place
    return int(row[np.arange(len(y)), lengths].min())


def _entropy(counts: Counter[Hashable]) -> float:
    f = np.array(list(counts.values())) / max(1, counts.total())
    return float(abs((f * np.log(f)).sum()))


def _hashable(sequence: Tokens) -> str | tuple[Hashable, ...]:
    return sequence if isinstance(sequence, str) else tuple(sequence)


def _check_not_empty(sequences: Sequence[Tokens], where: str = "sequences") -> None:
    if not len(sequences):
        raise InputError("there are no sequences", where=where)
