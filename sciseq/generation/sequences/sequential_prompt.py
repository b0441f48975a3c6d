r"""Generation from left to right by a model of masked tokens (SAP).

Axes: ``batch`` (B), ``position`` (L), ``row`` (of a pass), ``token`` (V).

A span of masks stands behind what there is. The model fills it, only its first tokens
are kept, and everything is read again with them. Card: sequences §12.
"""

from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
from sklearn.base import clone
from torch import Tensor

from sciseq.base import SequenceEstimator
from sciseq.errors import InputTypeError
from sciseq.generation.base import SequenceGenerator
from sciseq.generation.method_card import MethodCard
from sciseq.generation.parts.drawing import Drawing, log_probabilities
from sciseq.generation.parts.layout import NOISY, NOTHING, Layout
from sciseq.generation.parts.masks import full
from sciseq.generation.parts.network import Condition, SequenceNetwork
from sciseq.generation.parts.requests import Requests, Rows, is_counted
from sciseq.generation.parts.reveal import Reveal
from sciseq.generation.parts.whole_decoder import WholeDecoder
from sciseq.generation.sequences.energy_diffusion import EnergyDiffusionSequence
from sciseq.generation.sequences.masked_diffusion import MaskedDiffusionSequence
from sciseq.parameters import AnyOf, Instance, Integer, Nothing
from sciseq.parameters import Rule as ParameterRule

__all__ = ["SequentialDecoder", "SequentialPromptSampler"]


class SequentialDecoder(WholeDecoder):
    """Fill a span of masks in each pass, and keep its first tokens.

    Parameters
    ----------
    drawing : Drawing
        How tokens are drawn.
    keep : int, default=1
        Tokens that are kept of a pass. Behind an end nothing is.
    window : int, optional
        Masks of a span; by default all that is hidden.
    """

    def __init__(
        self, drawing: Drawing, *, keep: int = 1, window: int | None = None
    ) -> None:
        super().__init__(drawing, Reveal("left_to_right"))
        self.keep, self.window = keep, window

    def rows(self, requests: Requests) -> Rows:
        """Compute all that is known, and the span."""
        is_row = torch.ones_like(requests.is_filled)
        if self.window is not None:
            is_row = requests.is_filled | (_rank(~requests.is_filled) <= self.window)
        width = int(is_row.sum(dim=1).max())
        order = is_row.to(torch.int8).argsort(dim=1, descending=True, stable=True)
        position = order[:, :width]
        layout = Layout.at(
            position,
            group=torch.zeros_like(position),
            copy=NOISY,
            is_row=is_row.gather(1, position),
        )
        return Rows(requests.tokens.gather(1, position), layout)

    def commit(self, requests: Requests, rows: Rows, scores: Tensor) -> None:
        """Keep the first tokens of the span."""
        step, position = requests.memory["n_steps"], rows.layout.position
        tokens = self.drawing(
            scores, requests.seeds, position, requests.allowed_at(position),
            purpose=step + 1,
        )  # fmt: skip
        is_hidden = (rows.tokens == requests.mask) & (rows.layout.segment != NOTHING)
        kept = is_hidden & (_rank(is_hidden) <= self.keep)
        if requests.end is not None:
            is_end = kept & (tokens == requests.end)
            kept = kept & (is_end.cumsum(dim=1) - is_end.long() == 0)
        requests.fill(position, tokens, kept)
        requests.memory["n_steps"] = step + 1


def _rank(which: Tensor) -> Tensor:
    """Return the number of each true one, from 1."""
    return which.cumsum(dim=1)


@dataclass(kw_only=True, eq=False, repr=False)
class SequentialPromptSampler(SequenceEstimator):
    r"""Samples and likelihoods from left to right of a model of masked tokens.

    .. math:: p(x) = \prod_{u} \prod_{i \in u} p(x_i \mid x_{<u}, \text{masks from } u
        \text{ on})

    over units u of ``keep`` tokens.

    Parameters
    ----------
    generator : MaskedDiffusionSequence or EnergyDiffusionSequence, optional
        The model, of which a copy is fitted; of the second, its denoiser is used. By
        default a MaskedDiffusionSequence.
    keep : int, default=1
        Tokens k that are kept of a pass.
    window : int, optional
        Masks that stand behind what there is, at least ``keep``; by default as many as
        the longest sequence has room for, as in the training of the model.

    Attributes
    ----------
    generator_ : estimator
        The fitted model.
    last_work : Work
        What the last call of :meth:`sample` took.

    Notes
    -----
    A sequence of n tokens and an end takes :math:`\lceil (n + 1) / k \rceil` passes:
    for k = 1, as many as tokens and one more. Nothing is cached, as everything changes
    with each token. :meth:`score_samples` is exact: probabilities of all sequences sum
    to 1 (where ``legal`` of the model restricts nothing).

    Left out is the choice of demonstrations by scores: there are no prompts of several
    examples here.

    Card: sequences §12.

    References
    ----------
    Bidirectional language models are also few-shot learners, arXiv:2209.14500, 2022.

    Examples
    --------
    >>> from sciseq.generation.sequences.masked_diffusion import MaskedDiffusionSequence
    >>> model = MaskedDiffusionSequence(max_epochs=2, random_state=0, device="cpu")
    >>> model = model.fit(["ACGTAC", "ACGGTT"] * 20)
    >>> sampler = SequentialPromptSampler.around(model, keep=2)
    >>> len(sampler.sample(3, random_state=0)), sampler.last_work.n_passes.tolist()
    (3, [3, 3, 3])
    """

    method_card: ClassVar[MethodCard] = MethodCard(
        idea="A model of masked tokens writes from left to right: masks behind what "
        "there is are told together, and only the first is kept.",
        order="From left to right, `keep` tokens in a pass.",
        mask="That of the model: everybody reads everybody.",
        corruption="That of the model.",
        objective="That of the model; nothing is trained besides.",
        decoder="Draws all masks behind the text, keeps the first ones.",
        cache="none",
        score="exact",
        good_for="Exact probabilities and ends from a fitted model of masked tokens.",
        not_for="Speed: every token takes a pass over everything. Probabilities are "
        "those of this order, not of the model's others.",
    )

    generator: Any = None
    keep: int = 1
    window: int | None = None

    _parameter_rules: ClassVar[dict[str, ParameterRule]] = {
        "generator": AnyOf(
            Nothing(),
            Instance(
                "a MaskedDiffusionSequence or EnergyDiffusionSequence",
                MaskedDiffusionSequence,
                EnergyDiffusionSequence,
            ),
        ),
        "keep": Integer(1),
        "window": AnyOf(Nothing(), Integer(1)),
    }

    def _parameter_relations(self) -> list[str]:
        if self.window is None or self.window >= self.keep:
            return []
        return [f"window={self.window!r} must be at least keep={self.keep!r}"]

    @classmethod
    def around(cls, fitted: SequenceGenerator, **params: Any) -> Self:
        """Return a fitted sampler of a fitted model.

        Parameters
        ----------
        fitted : MaskedDiffusionSequence or EnergyDiffusionSequence
            Fitted; it is neither copied nor changed.
        **params
            ``keep`` and ``window``.

        Raises
        ------
        InputTypeError
            For another kind of generator.
        """
        if not isinstance(fitted, MaskedDiffusionSequence | EnergyDiffusionSequence):
            raise InputTypeError(
                f"fitted is a {type(fitted).__name__}; a MaskedDiffusionSequence or an "
                "EnergyDiffusionSequence is needed",
                where="around",
                hint="Other models do not predict masked tokens from both sides.",
            )
        fitted._check_is_fitted()
        model = cls(generator=fitted, **params)
        model._check_parameters()
        model.generator_, model.n_features_in_ = fitted, 1
        return model

    def fit(self, X: Any, y: Any = None) -> Self:
        """Fit a copy of the model.

        Parameters
        ----------
        X, y : sequences and conditions
            As in :meth:`MaskedDiffusionSequence.fit`.

        Returns
        -------
        self
        """
        self._check_parameters()
        model = self.generator
        model = MaskedDiffusionSequence() if model is None else clone(model)
        self.generator_ = model.fit(X, y)
        self.n_features_in_ = 1
        return self

    def _host(self) -> SequenceGenerator:
        """Return the model with this decoder instead of its own."""
        self._check_is_fitted()
        host: SequenceGenerator = copy(self.generator_)
        keep, window = int(self.keep), self.window

        def decoder(drawing: Drawing) -> SequentialDecoder:
            return SequentialDecoder(drawing, keep=keep, window=window)

        host.__dict__["_decoder"] = decoder  # of this copy alone
        return host

    def sample(
        self, n: int | None = None, condition: Any = None, **options: Any
    ) -> Any:
        """Generate sequences.

        Parameters
        ----------
        n, condition, **options
            As in :meth:`MaskedDiffusionSequence.sample`.
        """
        host = self._host()
        made = host.sample(n, condition, **options)
        self.last_work = host.last_work
        return made

    def infill(self, X: Any, condition: Any = None, **options: Any) -> Any:
        """Fill the gaps of sequences, from left to right.

        Parameters
        ----------
        X, condition, **options
            As in :meth:`MaskedDiffusionSequence.infill`.
        """
        return self._host().infill(X, condition, **options)

    def score_samples(
        self,
        X: Any,
        condition: Any = None,
        *,
        return_std: bool = False,
        random_state: Any = 0,
    ) -> Any:
        """Return the log-likelihood of each sequence under the chain, in nats: exact.

        Parameters
        ----------
        X : sequences
            As in fit.
        condition : array-like, optional
            One condition for each sequence, or one for all, as in fit.
        return_std : bool, default=False
            Also return the standard errors, which are 0.
        random_state : int, RandomState or None, default=0
            Ignored: nothing is drawn.

        Returns
        -------
        ndarray of shape (n,), or two of them
        """
        host = self._host()
        network, given = host._network(), host._template_rows(None)

        def chain(tokens: Tensor, told: Condition | None) -> tuple[Tensor, Tensor]:
            free = torch.ones(tokens.shape[1]).bool() if given is None else given[0] < 0
            logs = chain_log_probabilities(
                network, tokens, told, free, int(self.keep), self.window
            )
            counted = is_counted(tokens, host.alphabet_.end)
            total = logs.where(counted, 0.0).sum(dim=1)
            return total, torch.zeros_like(total)

        values, errors = host._score_parts(X, condition, chain)
        return (values, errors) if return_std else values

    def score(self, X: Any, y: Any = None) -> float:
        """Return the mean log-likelihood of sequences under the chain, in nats.

        Parameters
        ----------
        X : sequences
            As in fit.
        y : array-like, optional
            Condition of each sequence.
        """
        return float(np.mean(self.score_samples(X, y)))


def chain_log_probabilities(
    network: SequenceNetwork,
    tokens: Tensor,
    condition: Condition | None,
    is_free: Tensor,
    keep: int,
    window: int | None,
) -> Tensor:
    """Return the log-probability of each token (batch, position) where it is kept.

    Parameters
    ----------
    network : SequenceNetwork
        Denoiser.
    tokens : Tensor of int64, shape (batch, position)
        Sequences.
    condition : Condition or None
        Of them.
    is_free : Tensor of bool, shape (position,)
        Positions that are generated; the others are given, at 0.
    keep : int
        Tokens of a unit.
    window : int or None
        Masks of a span.
    """
    found = torch.zeros(tokens.shape, dtype=torch.float64, device=tokens.device)
    for unit, columns, is_hidden in _units(is_free, keep, window):
        places = columns.to(tokens.device)
        symbols, hidden = tokens[:, places], is_hidden[columns].to(tokens.device)
        position = places.unsqueeze(0)
        layout = Layout.at(position, group=torch.zeros_like(position), copy=NOISY)
        shown = symbols.masked_fill(hidden, network.mask)
        states = network.read(shown, layout, full, condition)[:, 1:]
        logs = log_probabilities(network.scores(states).double(), symbols)
        found[:, unit] = logs[:, torch.isin(columns, unit).to(logs.device)]
    return found


def _units(
    is_free: Tensor, keep: int, window: int | None
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Positions of each unit, those of its pass, and which of all are hidden then."""
    free = is_free.nonzero().flatten()
    for first in range(0, len(free), keep):
        is_hidden = torch.zeros_like(is_free)
        is_hidden[free[first:]] = True
        is_row = torch.ones_like(is_free)
        if window is not None:
            is_row[free[first + window :]] = False
        yield free[first : first + keep], is_row.nonzero().flatten(), is_hidden
