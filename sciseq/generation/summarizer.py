"""Summaries of long documents: central sentences first, then a text written from them.

Axes: documents, sentences of a document. The extractive half is
:mod:`sciseq.generation.parts.lexrank`, the abstractive one
:mod:`sciseq.generation.parts.text_model` with the adapters of
:mod:`sciseq.generation.parts.lora`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch

from sciseq.base import SequenceEstimator
from sciseq.errors import InputError
from sciseq.generation.method_card import MethodCard
from sciseq.generation.parts.adapter_training import (
    hold_out,
    precision_of,
    text_pairs,
    train_adapters,
)
from sciseq.generation.parts.extraction import Document, SentenceSelector, sentences_of
from sciseq.generation.parts.lexrank import FloatArray, inverse_document_frequencies
from sciseq.generation.parts.lora import insert_adapters
from sciseq.generation.parts.text_model import TextModel, load_text_model
from sciseq.metrics.rouge import rouge_scores
from sciseq.parameters import AnyOf, Instance, Integer, Nothing, Option, Real
from sciseq.parameters import Rule as ParameterRule
from sciseq.torch_base import TRAINING_RULES
from sciseq.training import (
    TrainingOptions,
    generator_for,
    resolve_device,
    resolve_seed,
)

__all__ = ["DocumentSummarizer"]

# Budgets by default: that of the published method, and one for summaries to read.
_TOKENS = 1024
_WORDS = 100


@dataclass(kw_only=True, eq=False, repr=False)
class DocumentSummarizer(SequenceEstimator):
    r"""Summarise documents: extract central sentences, then write from them.

    Sentences are ranked by their centrality in the graph of their similarities
    (LexRank) and taken until a budget is used up:

    .. math::

        \pi = \frac{1 - \gamma}{n} \mathbf 1 + \gamma M^\top \pi, \qquad
        M_{ij} = S_{ij} \Big/ \sum_k S_{ik}, \qquad S_{ij} = \cos(x_i, x_j)

    With a ``model``, an encoder-decoder of ``transformers`` reads them and writes the
    summary. It is fine-tuned by low-rank adapters alone,
    :math:`W' = W + \frac{\alpha}{r} B A`. Without one, the sentences are the summary,
    and nothing but the rarity of words is learnt.

    Parameters
    ----------
    model : str, path or transformers.PreTrainedModel, optional
        Encoder-decoder, by the name or folder that ``transformers`` loads, or itself;
        it is not changed. Needs ``pip install "sciseq[text]"``. None extracts only.
    tokenizer : str, path or tokenizer, optional
        By default the one beside ``model``; needed when that is no name or path.
    instruction : str, default=""
        Put before the sentences that the model reads.
    selection : {"lexrank", "lead", "random"}, default="lexrank"
        How sentences are ranked: by centrality, or, the baselines, by their place or at
        random.
    budget : int, optional
        Most words of the selection (split at white space), or, with a model, most
        tokens of what it reads. By default 100 words, or 1024 tokens or as many as the
        model can read.
    max_sentences : int, optional
        Most sentences of the selection.
    order : {"rank", "document"}, default="rank"
        Order of the sentences selected.
    weighting : {"tf-idf", "counts"}, default="tf-idf"
        Weights of the words of a sentence: counts, times inverse document frequencies
        of the training documents or not.
    threshold : float, default=0.0
        Similarity that two sentences must exceed to be neighbours.
    damping : float, default=0.85
        Share :math:`\gamma` of centrality that comes from neighbours, in [0, 1).
    stop_words : "english", list of str or None, default="english"
        Words left out before sentences are compared; ``"english"`` is the list of
        scikit-learn.
    rank : int, default=16
        Rank r of the adapters.
    alpha : float, default=32.0
        Scale :math:`\alpha` of the adapters.
    dropout : float, default=0.05
        Dropout of the adapters in training. The model's own dropout stays off.
    adapted_layers : list of str, default=("q_proj", "k_proj", "v_proj")
        Linear layers with an adapter, by the last part of their name; the default
        names the projections of the attention in BART and its kin.
    domain_training : {"mixing", "reptile"}, default="mixing"
        How to train with several domains: on all documents together by AdamW, or by
        first-order meta-learning, where all domains weigh the same.
    inner_steps : int, default=5
        Steps of plain gradient descent per domain and outer step of Reptile.
    inner_learning_rate : float, default=0.05
        Their learning rate.
    outer_step : float, default=1.0
        Share of the mean move of the domains that an outer step of Reptile takes.
    learning_rate : float, default=1e-4
        Of AdamW, for mixing.
    batch_size : int, default=16
        Documents per step, and at once when writing.
    max_epochs : int, default=100
        Most passes over the training documents.
    patience : int, optional, default=7
        Stop after so many epochs without a better validation loss.
    validation_fraction : float, default=0.1
        Share of the training documents that epochs are chosen by; 0 for none.
    top_p : float or None, default=0.9
        Probability that the words sampled from have together; None writes the most
        probable word each time.
    max_length : int, default=512
        Most tokens of a summary.
    random_state : int, optional
        Seed of adapters, shuffling, dropout and samples. Samples depend on it and on
        the document, and on no other document.
    device : str, default="auto"
        Where to compute.
    verbose : int, default=0
        1 shows the progress of training.

    Attributes
    ----------
    idf_ : dict of str to float
        Inverse document frequency of each word of the training documents.
    other_idf_ : float
        That of any other word.
    network_ : transformers.PreTrainedModel
        The model with its adapters; only with ``model``.
    adapters_ : nn.ModuleDict
        The adapters alone; only after training.
    history_ : list of dict
        Losses of the epochs; only after training.
    best_epoch_ : int
        Epoch whose adapters are kept; only after training.

    Notes
    -----
    Card: sequences §18. The graph has no loops, a sentence without neighbours points at
    all sentences alike, and a sentence that no longer fits into the budget is left out
    while later ones are still tried. When not one fits, the best is cut. The published
    text speaks of meta-learning and does not say which; Reptile is our choice.
    ``save`` keeps the adapters, and the name of the model, never its weights.

    References
    ----------
    arXiv:2503.10354; Erkan and Radev, LexRank, JAIR 22 (2004); Hu et al., LoRA,
    arXiv:2106.09685; Nichol et al., arXiv:1803.02999 (Reptile).

    Examples
    --------
    >>> document = (
    ...     "Tides move the sea. The moon moves the sea with its tides. Ships sail. "
    ...     "Tides follow the moon."
    ... )
    >>> DocumentSummarizer(max_sentences=1).fit([document]).predict([document])
    ['The moon moves the sea with its tides.']
    """

    _parameter_rules: ClassVar[dict[str, ParameterRule]] = {
        "instruction": Instance("a string", str),
        "selection": Option("lexrank", "lead", "random"),
        "budget": AnyOf(Nothing(), Integer(1)),
        "max_sentences": AnyOf(Nothing(), Integer(1)),
        "order": Option("rank", "document"),
        "weighting": Option("tf-idf", "counts"),
        "threshold": Real(0.0, 1.0),
        "damping": Real(0.0, 1.0, open_high=True),
        "stop_words": AnyOf(
            Nothing(), Option("english"), Instance("a list", list, tuple, frozenset)
        ),
        "rank": Integer(1),
        "alpha": Real(0.0, open_low=True),
        "adapted_layers": Instance("a list of names", list, tuple),
        "domain_training": Option("mixing", "reptile"),
        "inner_steps": Integer(1),
        "inner_learning_rate": Real(0.0, open_low=True),
        "outer_step": Real(0.0, open_low=True),
        "validation_fraction": Real(0.0, 1.0, open_high=True),
        "top_p": AnyOf(Nothing(), Real(0.0, 1.0, open_low=True)),
        "max_length": Integer(1),
        **{
            name: TRAINING_RULES[name]
            for name in (
                "dropout",
                "learning_rate",
                "batch_size",
                "max_epochs",
                "patience",
                "random_state",
                "device",
                "verbose",
            )
        },
    }

    method_card: ClassVar[MethodCard] = MethodCard(
        idea="Central sentences of a long document are chosen by a walk over similar "
        "ones; a language model of yours may write the summary from them.",
        order="Sentences by rank or as in the document; written tokens from left to "
        "right.",
        mask="That of the language model (encoder and decoder).",
        corruption="Nothing.",
        objective="Loss of the next token of summaries, over low-rank adapters alone.",
        decoder="Takes sentences within a budget; `generate` of the model writes.",
        cache="exact",
        score="none",
        good_for="Long documents, without or with training; summaries whose sentences "
        "can be traced.",
        not_for="Documents whose one important sentence resembles no other.",
        picture=None,
    )

    model: Any = None
    tokenizer: Any = None
    instruction: str = ""
    selection: str = "lexrank"
    budget: int | None = None
    max_sentences: int | None = None
    order: str = "rank"
    weighting: str = "tf-idf"
    threshold: float = 0.0
    damping: float = 0.85
    stop_words: Any = "english"
    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.05
    adapted_layers: Any = ("q_proj", "k_proj", "v_proj")
    domain_training: str = "mixing"
    inner_steps: int = 5
    inner_learning_rate: float = 0.05
    outer_step: float = 1.0
    learning_rate: float = 1e-4
    batch_size: int = 16
    max_epochs: int = 100
    patience: int | None = 7
    validation_fraction: float = 0.1
    top_p: float | None = 0.9
    max_length: int = 512
    random_state: Any = None
    device: Any = "auto"
    verbose: int = 0

    # ------------------------------------------------------------------ fitting

    def fit(
        self,
        documents: Sequence[Document],
        summaries: Sequence[str | Sequence[str]] | None = None,
        domains: Sequence[Any] | None = None,
    ) -> Self:
        """Learn the rarity of words and, with a model and summaries, the adapters.

        Parameters
        ----------
        documents : sequence of str or of lists of str
            Texts, or their sentences.
        summaries : sequence of str or of lists of str, optional
            One or several summaries per document. Without them a model is used as it
            is; without a model they have no effect.
        domains : sequence, optional
            Domain of each document: any labels. Needed for ``"reptile"``, without
            effect for ``"mixing"``.

        Returns
        -------
        self
        """
        self._check_parameters()
        texts = sentences_of(documents)
        targets = None if summaries is None else _references(summaries, len(texts))
        labels = _domain_labels(domains, len(texts))
        is_trained = self.model is not None and targets is not None
        if is_trained and self.domain_training == "reptile" and labels is None:
            raise InputError(
                "domain_training is 'reptile' and there are no domains",
                where="domains",
                hint="Give the domain of each document, or domain_training='mixing'.",
            )
        before = self._fitted_attributes()
        self._forget()
        try:
            self.seed_ = resolve_seed(self.random_state)
            selector = SentenceSelector(stop_words=self.stop_words)
            self.idf_, self.other_idf_ = inverse_document_frequencies(
                [word for one in text for word in selector.words(one)] for text in texts
            )
            if self.model is not None:
                self._load_model()
                if targets is not None:
                    self._insert_adapters()
                    self._train(texts, targets, labels)
        except BaseException:
            self._forget()
            for name, value in before.items():
                setattr(self, name, value)
            raise
        self.n_features_in_ = 1  # a document is one thing
        return self

    def _load_model(self) -> None:
        text_model = load_text_model(self.model, self.tokenizer)
        limit = text_model.max_positions
        if limit is not None and self.budget is not None and self.budget > limit:
            raise InputError(
                f"budget is {self.budget}, the model reads {limit} tokens at most",
                where="budget",
                hint=f"Set budget to at most {limit}.",
            )
        self.network_ = text_model.network
        self.tokenizer_ = text_model.tokenizer

    def _insert_adapters(self) -> None:
        self.adapters_ = insert_adapters(
            self.network_,
            generator_for(self.seed_, "adapters"),
            rank=int(self.rank),
            alpha=float(self.alpha),
            dropout=float(self.dropout),
            layers=list(self.adapted_layers),
        ).eval()

    def _train(
        self,
        texts: list[list[str]],
        targets: list[list[str]],
        labels: list[Any] | None,
    ) -> None:
        is_meta = self.domain_training == "reptile"
        groups = labels if is_meta and labels else [None] * len(texts)
        rng = np.random.default_rng([self.seed_, 0])
        rows_of_domains, held = hold_out(groups, self.validation_fraction, rng)
        self._move()
        batches = [
            text_pairs(
                self._text_model,
                [self._source(texts[row]) for row in rows],
                [targets[row] for row in rows],
                max_source=self._budget,
                max_target=int(self.max_length),
            )
            for rows in [*rows_of_domains, held]
            if rows
        ]
        result = train_adapters(
            self._text_model,
            self.adapters_,
            batches[: len(rows_of_domains)],
            batches[-1] if held else None,
            self._training_options(is_meta),
            inner_steps=int(self.inner_steps) if is_meta else None,
            step_size=float(self.outer_step),
        )
        self.history_ = result.history
        self.best_epoch_ = result.best_epoch
        self.stopped_ = result.stopped

    def _training_options(self, is_meta: bool) -> TrainingOptions:
        rate = self.inner_learning_rate if is_meta else self.learning_rate
        return TrainingOptions(
            learning_rate=float(rate),
            batch_size=int(self.batch_size),
            max_epochs=int(self.max_epochs),
            patience=self.patience,
            schedule=lambda epoch: 1.0,
            seed=self.seed_,
            device=self.network_.device,
            precision=precision_of(self.network_),
            verbose=int(self.verbose),
        )

    # ------------------------------------------------------------- summarising

    def predict(self, documents: Sequence[Document]) -> list[str]:
        """Summarise documents.

        Parameters
        ----------
        documents : sequence of str or of lists of str
            Texts, or their sentences.

        Returns
        -------
        list of str
            A summary per document.
        """
        self._check_is_fitted()
        sources = [self._source(text) for text in sentences_of(documents)]
        if self.model is None:
            return sources
        self._move()
        return self._text_model.write(
            sources,
            max_source=self._budget,
            max_length=int(self.max_length),
            batch_size=int(self.batch_size),
            top_p=self.top_p,
            seed=self.seed_,
        )

    def extract(self, documents: Sequence[Document]) -> list[list[str]]:
        """Return the sentences that the summary of each document is made from.

        Parameters
        ----------
        documents : sequence of str or of lists of str
            Texts, or their sentences.

        Returns
        -------
        list of list of str
            Sentences under the budget; a single one that is cut when none fits.
        """
        self._check_is_fitted()
        return [self._selection(text) for text in sentences_of(documents)]

    def sentence_scores(
        self, documents: Sequence[Document]
    ) -> list[tuple[list[str], FloatArray]]:
        """Return the sentences of each document and what they are ranked by.

        Parameters
        ----------
        documents : sequence of str or of lists of str
            Texts, or their sentences.

        Returns
        -------
        list of (list of str, ndarray of shape (n,))
            All sentences in their order, and the scores: centralities, which sum up to
            1, or, with another ``selection``, numbers that give the same order.
        """
        self._check_is_fitted()
        selector = self._selector
        return [(text, selector.scores(text)) for text in sentences_of(documents)]

    def score(
        self,
        documents: Sequence[Document],
        summaries: Sequence[str | Sequence[str]],
    ) -> float:
        """Return the mean ROUGE-1 F1 of the summaries written.

        Parameters
        ----------
        documents : sequence of str or of lists of str
            Texts, or their sentences.
        summaries : sequence of str or of lists of str
            One or several reference summaries per document; the nearest counts.

        Returns
        -------
        float
            Between 0 and 1. :func:`sciseq.metrics.rouge.rouge_scores` has the others.
        """
        references = _references(summaries, len(documents))
        return rouge_scores(self.predict(documents), references)["rouge1"]

    def _source(self, text: list[str]) -> str:
        chosen = " ".join(self._selection(text))
        if self.model is None or not self.instruction:
            return chosen
        return f"{self.instruction} {chosen}"

    def _selection(self, text: list[str]) -> list[str]:
        budget = self._budget
        if self.model is None:
            sizes = [len(one.split()) for one in text]
        else:
            # A blank stands before each sentence but the first, and tokens know it.
            sizes = self._text_model.n_tokens([f" {one}" for one in text])
            budget -= len(self._text_model.encode([self.instruction], budget)[0])
        chosen = self._selector.select(text, sizes, budget)
        if chosen:
            return chosen
        best = self._selector.best(text)
        # A model's tokenizer cuts by itself.
        return [" ".join(best.split()[:budget]) if self.model is None else best]

    @property
    def _selector(self) -> SentenceSelector:
        return SentenceSelector(
            selection=self.selection,
            order=self.order,
            max_sentences=self.max_sentences,
            threshold=float(self.threshold),
            damping=float(self.damping),
            stop_words=self.stop_words,
            seed=self.seed_,
            weights=self.idf_ if self.weighting == "tf-idf" else None,
            other_weight=self.other_idf_,
        )

    @property
    def _budget(self) -> int:
        if self.budget is not None:
            return int(self.budget)
        if self.model is None:
            return _WORDS
        return min(_TOKENS, self._text_model.max_positions or _TOKENS)

    # ------------------------------------------------------- device and saving

    @property
    def _text_model(self) -> TextModel:
        return TextModel(self.network_, self.tokenizer_)

    def _move(self) -> None:
        device = resolve_device(self.device)
        if device != self.network_.device:
            self.network_.to(device)

    def _get_saved_state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        attributes, _ = super()._get_saved_state()
        adapters = attributes.pop("adapters_", None)
        for name in ("network_", "tokenizer_"):
            attributes.pop(name, None)
        if adapters is None:
            return attributes, {}
        return attributes, {
            name: one.detach().cpu().numpy()
            for name, one in adapters.state_dict().items()
        }

    def _set_saved_state(
        self, attributes: Mapping[str, Any], weights: Mapping[str, Any]
    ) -> None:
        super()._set_saved_state(attributes, {})
        if self.model is None:
            return
        self._load_model()
        if not weights:
            return
        from sciseq.persistence import check_weights

        self._insert_adapters()
        own = self.adapters_.state_dict()
        check_weights({name: tuple(one.shape) for name, one in own.items()}, weights)
        self.adapters_.load_state_dict(
            {
                name: torch.from_numpy(np.array(weights[name])).to(one.dtype)
                for name, one in own.items()
            }
        )


def _references(
    summaries: Sequence[str | Sequence[str]], n_documents: int
) -> list[list[str]]:
    lists = [[one] if isinstance(one, str) else list(one) for one in summaries]
    if isinstance(summaries, str) or len(lists) != n_documents or not all(lists):
        raise InputError(
            f"there are {n_documents} documents and {len(lists)} summaries; each "
            "document needs a summary, or a list of some",
            where="summaries",
        )
    return lists


def _domain_labels(domains: Sequence[Any] | None, n_documents: int) -> list[Any] | None:
    if domains is None:
        return None
    labels = list(domains)
    if len(labels) != n_documents:
        raise InputError(
            f"there are {n_documents} documents and {len(labels)} domains",
            where="domains",
            hint="Give one label per document.",
        )
    return labels
