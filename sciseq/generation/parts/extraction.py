"""Which sentences of a document to take: by centrality, by place, or at random.

Axes: n sentences of a document.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

from sciseq.errors import DataQualityError, InputError, InputTypeError
from sciseq.generation.parts.lexrank import (
    FloatArray,
    centrality,
    cosine_similarities,
    rank_order,
    select_in_budget,
    sentence_vectors,
    split_sentences,
    words_of,
)
from sciseq.training import generator_for

__all__ = ["Document", "SentenceSelector", "sentences_of"]

Document: TypeAlias = str | Sequence[str]
"""A text, or its sentences."""


@dataclass(frozen=True, kw_only=True)
class SentenceSelector:
    """Ranks the sentences of a document and takes the best ones.

    Parameters
    ----------
    selection : {"lexrank", "lead", "random"}
        How sentences are ranked.
    order : {"rank", "document"}
        Order of the sentences taken.
    max_sentences : int, optional
        Most sentences.
    threshold : float
        Similarity that neighbours in the graph must exceed.
    damping : float
        Share of centrality that comes from neighbours.
    stop_words : "english", collection of str, or None
        Words that are not compared.
    seed : int
        Of the random ranking.
    weights : mapping of str to float, optional
        Inverse document frequencies of words; without, words are counted.
    other_weight : float
        That of words that ``weights`` lacks.

    Examples
    --------
    >>> selector = SentenceSelector(selection="lead", max_sentences=1)
    >>> selector.select(["First one.", "Second."], sizes=[2, 1], budget=1)
    ['Second.']
    """

    selection: str = "lexrank"
    order: str = "rank"
    max_sentences: int | None = None
    threshold: float = 0.0
    damping: float = 0.85
    stop_words: str | Collection[str] | None = "english"
    seed: int = 0
    weights: Mapping[str, float] | None = field(default=None, repr=False)
    other_weight: float = 1.0

    def words(self, sentence: str) -> list[str]:
        """Return the words of a sentence that are compared."""
        known = self.stop_words
        if known == "english":
            known = ENGLISH_STOP_WORDS
        return words_of(sentence, frozenset(known or ()))

    def scores(self, sentences: Sequence[str]) -> FloatArray:
        """Return what sentences are ranked by, the best one highest."""
        n = len(sentences)
        if self.selection == "lead":
            return -np.arange(n, dtype=np.float64)
        if self.selection == "random":
            import torch

            # Named by the text: other documents do not matter.
            generator = generator_for(self.seed, "selection", *sentences)
            order = torch.randperm(n, generator=generator)
            return np.asarray(order.numpy(), dtype=np.float64)
        words = [self.words(one) for one in sentences]
        vectors = sentence_vectors(words, self.weights, self.other_weight)
        graph = cosine_similarities(vectors, self.threshold)
        return centrality(graph, damping=self.damping)

    def select(
        self, sentences: Sequence[str], sizes: Sequence[int], budget: int
    ) -> list[str]:
        """Return the best sentences whose sizes fit into the budget, or none.

        Parameters
        ----------
        sentences : sequence of str
            All sentences of the document.
        sizes : sequence of int
            Size of each.
        budget : int
            Most that the sizes may sum up to.

        Returns
        -------
        list of str
            The sentences taken.
        """
        ranking = rank_order(self.scores(sentences))
        chosen = select_in_budget(ranking, sizes, budget, max_items=self.max_sentences)
        if self.order == "document":
            chosen.sort()
        return [sentences[position] for position in chosen]

    def best(self, sentences: Sequence[str]) -> str:
        """Return the best sentence, whatever its size."""
        return sentences[rank_order(self.scores(sentences))[0]]


def sentences_of(documents: Sequence[Document]) -> list[list[str]]:
    """Return the sentences of each document.

    Parameters
    ----------
    documents : sequence of str or of sequences of str
        Texts, which are split, or sentences.

    Returns
    -------
    list of list of str
        At least one sentence per document, none of white space.

    Raises
    ------
    InputTypeError
        When ``documents`` is a single string, or a document no text.
    InputError
        When there is no document.
    DataQualityError
        When a document is empty.

    Examples
    --------
    >>> sentences_of(["It rains. It pours.", ["Given. As one."]])
    [['It rains.', 'It pours.'], ['Given. As one.']]
    """
    if isinstance(documents, str):
        raise InputTypeError(
            "documents is a single string",
            where="documents",
            hint="Give a list of documents, [document] for one.",
        )
    if not hasattr(documents, "__len__"):
        raise InputTypeError(
            f"documents is a {type(documents).__name__}, must be a list of documents",
            where="documents",
        )
    if not len(documents):
        raise InputError("there is no document, at least 1 is needed")
    return [_sentences(one, row) for row, one in enumerate(documents)]


def _sentences(document: Document, row: int) -> list[str]:
    where = f"documents[{row}]"
    if isinstance(document, str):
        sentences = split_sentences(document)
    else:
        is_list = isinstance(document, Sequence)
        if not is_list or not all(isinstance(one, str) for one in document):
            raise InputTypeError(
                f"the document is a {type(document).__name__}, must be a string or a "
                "list of strings",
                where=where,
            )
        sentences = [one for one in document if one.strip()]
    if not sentences:
        raise DataQualityError("the document is empty", where=where)
    return sentences
