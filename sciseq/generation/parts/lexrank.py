"""Central sentences of a text (LexRank), and a selection of them under a budget.

Axes: n sentences (or other nodes of a graph), V distinct words. Only the first two
functions know of text: :func:`centrality` ranks the nodes of any graph of similarities,
such as spectra, windows of a long series or events.
"""

import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from sciseq.errors import InputError, NumericalError

__all__ = [
    "centrality",
    "cosine_similarities",
    "inverse_document_frequencies",
    "rank_order",
    "select_in_budget",
    "sentence_vectors",
    "split_sentences",
    "words_of",
]

FloatArray = npt.NDArray[np.float64]

# Quotes written as \u201d and so on look too much like others to be told apart here.
_SENTENCE_END = re.compile("[.!?…][\"'\u201d\u2019»)\\]]*\\s+")
_BLANK_LINE = re.compile(r"\n\s*\n")
_OPENING = "\"'\u201c\u2018«(["
_INITIAL = re.compile(r"[^\W\d_]\.")
_WORD = re.compile(r"[^\W_]+")
# Behind these a full stop ends no sentence, even before a capital letter or a number.
_ABBREVIATIONS = frozenset(
    "al. approx. ca. cf. dr. e.g. ed. eds. eq. eqs. fig. figs. i.e. mr. mrs. ms. no. "
    "nos. p. pp. prof. ref. refs. resp. sec. sect. st. tab. viz. vol. vs. "
    "w.r.t.".split()
)
# Centralities are known to about this many decimals; what differs less is a tie.
_DECIMALS = 9


def split_sentences(text: str) -> list[str]:
    """Split a text into sentences.

    A sentence ends at a blank line, or behind ``.``, ``!``, ``?`` or ``…`` (and closing
    quotes or brackets) where white space and then a capital letter or a digit follow.
    It does not end behind a known abbreviation or a single letter, as in "J. Smith".

    Parameters
    ----------
    text : str
        Any text. For languages that end sentences in another way, split beforehand.

    Returns
    -------
    list of str
        Sentences in their order, white space inside made single blanks. Nothing but
        white space is lost.

    Examples
    --------
    >>> split_sentences("See Fig. 2 (Smith et al. 2019). It rises by 0.5 %! Why?")
    ['See Fig. 2 (Smith et al. 2019).', 'It rises by 0.5 %!', 'Why?']
    """
    sentences = []
    for paragraph in _BLANK_LINE.split(text):
        start = 0
        for match in _SENTENCE_END.finditer(paragraph):
            if _ends_sentence(paragraph, start, match):
                sentences.append(paragraph[start : match.end()])
                start = match.end()
        sentences.append(paragraph[start:])
    cleaned = (" ".join(one.split()) for one in sentences)
    return [one for one in cleaned if one]


def _ends_sentence(text: str, start: int, match: re.Match[str]) -> bool:
    following = text[match.end() :].lstrip(_OPENING)[:1]
    if following and not (following.isupper() or following.isdigit()):
        return False
    before = text[start : match.start() + 1].split()
    last = before[-1].lstrip(_OPENING) if before else ""
    return last.lower() not in _ABBREVIATIONS and not _INITIAL.fullmatch(last)


def words_of(text: str, stop_words: Collection[str] = ()) -> list[str]:
    """Return the words of a text in lower case, without stop words.

    A word is a run of letters and digits of any script.

    Parameters
    ----------
    text : str
        Any text.
    stop_words : collection of str, optional
        Words, in lower case, to leave out.

    Returns
    -------
    list of str
        Words in their order, repeated ones included.

    Examples
    --------
    >>> words_of("The state-space model", stop_words={"the"})
    ['state', 'space', 'model']
    """
    found = (match.group().lower() for match in _WORD.finditer(text))
    return [word for word in found if word not in stop_words]


def inverse_document_frequencies(
    documents: Iterable[Iterable[str]],
) -> tuple[dict[str, float], float]:
    r"""Return how rare each word is, and what a word that never occurs is given.

    .. math:: \mathrm{idf}_w = \ln \frac{1 + N}{1 + N_w} + 1

    with N documents, of which :math:`N_w` hold the word; it is never 0.

    Parameters
    ----------
    documents : iterable of iterables of str
        Words of each document.

    Returns
    -------
    tuple of (dict of str to float, float)
        Value of each word, and of any other.

    Examples
    --------
    >>> known, other = inverse_document_frequencies([["a", "b"], ["a"]])
    >>> known["a"], round(known["b"], 3), round(other, 3)
    (1.0, 1.405, 2.099)
    """
    counts: Counter[str] = Counter()
    n_documents = 0
    for words in documents:
        counts.update(set(words))
        n_documents += 1
    known = {
        word: math.log((1 + n_documents) / (1 + count)) + 1
        for word, count in counts.items()
    }
    return known, math.log(1 + n_documents) + 1


def sentence_vectors(
    sentences: Sequence[Sequence[str]],
    weights: Mapping[str, float] | None = None,
    other_weight: float = 1.0,
) -> sparse.csr_array:
    r"""Return bag-of-words vectors of length 1.

    .. math:: x_{iw} \propto \mathrm{tf}_{iw} \, \mathrm{idf}_w, \qquad \|x_i\|_2 = 1

    Parameters
    ----------
    sentences : sequence of sequences of str
        Words of each sentence.
    weights : mapping of str to float, optional
        Inverse document frequencies; without them plain counts are taken.
    other_weight : float, default=1.0
        Weight of words that have none.

    Returns
    -------
    scipy.sparse.csr_array of float64, shape (n, V)
        A sentence without words is a row of zeros.

    Examples
    --------
    >>> sentence_vectors([["a", "a"], ["a", "b"], []]).toarray().round(3).tolist()
    [[1.0, 0.0], [0.707, 0.707], [0.0, 0.0]]
    """
    columns: dict[str, int] = {}
    rows, places, values = [], [], []
    for row, words in enumerate(sentences):
        counts = Counter(words)
        entries = {
            word: count * (weights.get(word, other_weight) if weights else 1.0)
            for word, count in counts.items()
        }
        length = math.sqrt(math.fsum(value * value for value in entries.values()))
        for word, value in entries.items():
            rows.append(row)
            places.append(columns.setdefault(word, len(columns)))
            values.append(value / length)
    shape = (len(sentences), len(columns))
    return sparse.csr_array((values, (rows, places)), shape=shape, dtype=np.float64)


def cosine_similarities(
    vectors: sparse.csr_array, threshold: float = 0.0
) -> sparse.csr_array:
    r"""Return the graph of similarities of vectors of length 1.

    .. math::

        S_{ij} = \begin{cases} x_i^\top x_j & i \ne j,\; x_i^\top x_j > \theta \\
        0 & \text{else} \end{cases}

    Parameters
    ----------
    vectors : scipy.sparse.csr_array, shape (n, V)
        Vectors of length 1 or 0, without negative entries.
    threshold : float, default=0.0
        Similarity :math:`\theta` that must be exceeded; what is weaker is no edge.

    Returns
    -------
    scipy.sparse.csr_array of float64, shape (n, n)
        Symmetric. The diagonal is 0: no sentence speaks for itself. Its size is the
        number of pairs that share a word and exceed the threshold.

    Examples
    --------
    >>> vectors = sentence_vectors([["a"], ["a", "b"], ["c"]])
    >>> cosine_similarities(vectors, threshold=0.1).toarray().round(3).tolist()
    [[0.0, 0.707, 0.0], [0.707, 0.0, 0.0], [0.0, 0.0, 0.0]]
    """
    similarity = sparse.coo_array(vectors @ vectors.T)
    kept = (similarity.row != similarity.col) & (similarity.data > threshold)
    places = (similarity.row[kept], similarity.col[kept])
    return sparse.csr_array((similarity.data[kept], places), shape=similarity.shape)


def centrality(
    similarity: Any,
    *,
    damping: float = 0.85,
    tolerance: float = 1e-6,
    max_iterations: int = 100,
) -> FloatArray:
    r"""Return how central each node of a graph is (LexRank, PageRank).

    .. math::

        \pi = \frac{1 - \gamma}{n} \mathbf 1 + \gamma M^\top \pi, \qquad
        M_{ij} = S_{ij} \Big/ \sum_k S_{ik}

    found by power iteration from the uniform distribution. A node without edges points
    at all nodes alike (:math:`M_{ij} = 1 / n`), so that nothing is lost; no node is
    less central.

    Parameters
    ----------
    similarity : array or sparse array, shape (n, n)
        Weights S of the edges, none negative. It need not be symmetric.
    damping : float, default=0.85
        Share :math:`\gamma` that follows the edges, in [0, 1).
    tolerance : float, default=1e-6
        Largest change of a step, summed over the nodes, that counts as none.
    max_iterations : int, default=100
        Steps allowed. 100 are enough for the defaults, whatever the graph: a step
        shrinks the change by the factor ``damping`` at least.

    Returns
    -------
    ndarray of float64, shape (n,)
        Non-negative, with sum 1. The equation holds to ``tolerance``.

    Raises
    ------
    InputError
        When the graph is no square of non-negative finite numbers, or ``damping`` is
        out of range.
    NumericalError
        When ``max_iterations`` steps were not enough.

    References
    ----------
    Erkan and Radev, LexRank, JAIR 22 (2004), doi:10.1613/jair.1523.

    Examples
    --------
    >>> star = np.array([[0.0, 1, 1], [1, 0, 0], [1, 0, 0]])
    >>> centrality(star).round(3).tolist()
    [0.486, 0.257, 0.257]
    """
    S = sparse.csr_array(similarity, dtype=np.float64)
    _check_graph(S, damping)
    n = S.shape[0]
    if n == 0:
        return np.zeros(0)
    degree = np.asarray(S.sum(axis=1)).ravel()
    is_dangling = degree == 0
    inverse = 1 / np.where(is_dangling, 1.0, degree)
    S_transposed = S.T.tocsr()
    pi: FloatArray = np.full(n, 1 / n)
    for _ in range(max_iterations):
        flow = S_transposed @ (pi * inverse) + pi[is_dangling].sum() / n
        following = (1 - damping) / n + damping * flow
        following /= following.sum()  # rounding only
        change = float(np.abs(following - pi).sum())
        pi = following
        if change < tolerance:
            return pi
    raise NumericalError(
        f"the centralities still change by {change:.3g} after {max_iterations} steps, "
        f"tolerance is {tolerance:g}",
        where="centrality",
        hint="Allow more max_iterations, or lower damping.",
    )


def _check_graph(S: sparse.csr_array, damping: float) -> None:
    if S.ndim != 2 or S.shape[0] != S.shape[1]:
        raise InputError(
            f"similarity has shape {S.shape}, must be square", where="centrality"
        )
    if not (np.isfinite(S.data).all() and (S.data >= 0).all()):
        raise InputError(
            "similarity holds values that are negative or not finite",
            where="centrality",
            hint="Clip it at 0; a correlation, for instance, may be negative.",
        )
    if not 0 <= damping < 1:
        raise InputError(f"damping is {damping}, must be in [0, 1)", where="centrality")


def rank_order(scores: FloatArray) -> list[int]:
    """Return positions from the highest score to the lowest.

    Scores that agree to nine decimals are a tie, and the earlier position comes first:
    rounding never decides.

    Examples
    --------
    >>> rank_order(np.array([0.2, 0.4 - 1e-15, 0.4]))
    [1, 2, 0]
    """
    rounded = np.round(np.asarray(scores, dtype=np.float64), _DECIMALS)
    return [int(one) for one in np.argsort(-rounded, kind="stable")]


def select_in_budget(
    order: Iterable[int],
    sizes: Sequence[int],
    budget: int,
    *,
    max_items: int | None = None,
) -> list[int]:
    """Take items in a given order as long as their sizes fit into a budget.

    An item that does not fit any more is left out, and the next ones are still tried.

    Parameters
    ----------
    order : iterable of int
        Positions, the most wanted first.
    sizes : sequence of int
        Size of the item at each position, such as its number of words.
    budget : int
        Most that the sizes of the selected items may sum up to.
    max_items : int, optional
        Most items.

    Returns
    -------
    list of int
        Selected positions in the given order; empty when not one item fits.

    Examples
    --------
    >>> select_in_budget([2, 0, 1], sizes=[5, 2, 4], budget=7)
    [2, 1]
    """
    chosen: list[int] = []
    left = budget
    for position in order:
        if max_items is not None and len(chosen) == max_items:
            break
        if sizes[position] <= left:
            chosen.append(position)
            left -= sizes[position]
    return chosen
