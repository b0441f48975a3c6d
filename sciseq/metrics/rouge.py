"""ROUGE-1, ROUGE-2 and ROUGE-L: how much of a reference text a summary holds.

Axes: m words of the candidate, n words of the reference.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sciseq.errors import InputError

__all__ = ["RougeScore", "rouge_l", "rouge_n", "rouge_scores"]

_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True)
class RougeScore:
    """Overlap of a candidate with a reference.

    Parameters
    ----------
    precision : float
        Share of the candidate that the reference holds.
    recall : float
        Share of the reference that the candidate holds.
    """

    precision: float
    recall: float

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        total = self.precision + self.recall
        return 2 * self.precision * self.recall / total if total else 0.0


def rouge_n(candidate: str, reference: str, n: int) -> RougeScore:
    r"""Overlap of runs of n words.

    .. math::

        P = \frac{\sum_g \min(c_g, r_g)}{\sum_g c_g}, \qquad
        R = \frac{\sum_g \min(c_g, r_g)}{\sum_g r_g}

    with counts :math:`c_g` and :math:`r_g` of the run g in candidate and reference.

    Parameters
    ----------
    candidate, reference : str
        Texts. Words are runs of letters and digits in lower case; they are not stemmed.
    n : int
        Words of a run, at least 1.

    Returns
    -------
    RougeScore
        Where neither text has as many words, equal texts score 1 and others 0.

    Raises
    ------
    InputError
        When ``n`` is below 1.

    References
    ----------
    Lin, ROUGE: a package for automatic evaluation of summaries, W04-1013 (2004).

    Examples
    --------
    >>> score = rouge_n("the cat sat", "the cat slept well", 2)
    >>> score.precision, round(score.recall, 3), score.f1
    (0.5, 0.333, 0.4)
    """
    if n < 1:
        raise InputError(f"n is {n}, must be at least 1", where="rouge_n")
    ours, theirs = _words(candidate), _words(reference)
    runs, wanted = _runs(ours, n), _runs(theirs, n)
    n_runs, n_wanted = runs.total(), wanted.total()
    if not n_runs and not n_wanted:
        return _equality(ours, theirs)
    return _score((runs & wanted).total(), n_runs, n_wanted)


def rouge_l(candidate: str, reference: str) -> RougeScore:
    r"""Longest common subsequence of words, over whole texts.

    .. math:: P = \mathrm{LCS} / m, \qquad R = \mathrm{LCS} / n

    Parameters
    ----------
    candidate, reference : str
        Texts; words as in :func:`rouge_n`. A text counts as one sequence, whatever its
        sentences (the sentence-level ROUGE-L).

    Returns
    -------
    RougeScore
        1 for two texts without words.

    Examples
    --------
    >>> score = rouge_l("police kill the gunman", "police killed the gunman")
    >>> score.precision, score.recall
    (0.75, 0.75)
    """
    ours, theirs = _words(candidate), _words(reference)
    if not ours and not theirs:
        return _equality(ours, theirs)
    return _score(_common_subsequence(ours, theirs), len(ours), len(theirs))


_KINDS: Mapping[str, Callable[[str, str], RougeScore]] = {
    "rouge1": lambda candidate, reference: rouge_n(candidate, reference, 1),
    "rouge2": lambda candidate, reference: rouge_n(candidate, reference, 2),
    "rougeL": rouge_l,
}


def rouge_scores(
    candidates: Sequence[str], references: Sequence[str | Sequence[str]]
) -> dict[str, float]:
    """Mean F1 of ROUGE-1, ROUGE-2 and ROUGE-L over texts.

    Parameters
    ----------
    candidates : sequence of str
        One summary per text.
    references : sequence of str or of sequences of str
        Reference summaries, one or several per text. Of several, the one that scores
        best counts, for each kind of ROUGE by itself.

    Returns
    -------
    dict of str to float
        ``rouge1``, ``rouge2`` and ``rougeL``, between 0 and 1.

    Raises
    ------
    InputError
        When there is no text, a text has no reference, or the numbers differ.

    Examples
    --------
    >>> rouge_scores(["a b"], [["a c", "a b"]])
    {'rouge1': 1.0, 'rouge2': 1.0, 'rougeL': 1.0}
    """
    if len(candidates) != len(references) or not len(candidates):
        raise InputError(
            f"there are {len(candidates)} candidates and {len(references)} references; "
            "as many of both are needed, and at least 1",
            where="rouge_scores",
        )
    lists = [[one] if isinstance(one, str) else list(one) for one in references]
    for row, texts in enumerate(lists):
        if not texts:
            raise InputError("no reference is given", where=f"references[{row}]")
    return {
        name: sum(
            max(score(candidate, one).f1 for one in texts)
            for candidate, texts in zip(candidates, lists, strict=True)
        )
        / len(candidates)
        for name, score in _KINDS.items()
    }


def _words(text: str) -> list[str]:
    return [match.group().lower() for match in _WORD.finditer(text)]


def _runs(words: list[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))


def _equality(ours: list[str], theirs: list[str]) -> RougeScore:
    share = float(ours == theirs)
    return RougeScore(share, share)


def _score(n_common: int, n_ours: int, n_theirs: int) -> RougeScore:
    if not n_ours or not n_theirs:
        return RougeScore(0.0, 0.0)
    return RougeScore(n_common / n_ours, n_common / n_theirs)


def _common_subsequence(ours: list[str], theirs: list[str]) -> int:
    """Length of the longest common subsequence, by bits (Hyyrö, AWOCA 2004).

    One integer holds a row of the usual table: bit i is 0 where it grows at word i.
    """
    places: dict[str, int] = {}
    for i, word in enumerate(ours):
        places[word] = places.get(word, 0) | 1 << i
    full = (1 << len(ours)) - 1
    row = full
    for word in theirs:
        matched = row & places.get(word, 0)
        row = (row + matched | row - matched) & full
    return len(ours) - row.bit_count()
