r"""Masked diffusion for a condition, with a template (LaViDa, ViLaD).

Axes: ``batch`` (B), ``position`` (L), ``token`` (V), ``step`` (K).

Every sequence is shown twice in training, hidden in one half of its tokens and in the
other. At sampling the condition is computed once, and a plan says how many tokens each
pass uncovers. Positions that a template fixes are never hidden. Card: sequences §16 and
§17.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from sciseq.errors import DataQualityError, InputError
from sciseq.generation.method_card import MethodCard
from sciseq.generation.parts.batches import NoisyLoss, SequenceBatch
from sciseq.generation.parts.corruption import (
    bernoulli_mask,
    complement,
    ensure_one,
    exact_count_mask,
)
from sciseq.generation.parts.drawing import Drawing, log_probabilities
from sciseq.generation.parts.estimates import mean_and_error
from sciseq.generation.parts.masks import prefix_bidirectional
from sciseq.generation.parts.network import Condition, SequenceNetwork
from sciseq.generation.parts.noise import content_keys, uniform
from sciseq.generation.parts.plans import PLANS, transfer_plan
from sciseq.generation.parts.reveal import Amount, Reveal
from sciseq.generation.parts.whole_decoder import WholeDecoder
from sciseq.generation.sequences.masked_diffusion import (
    MaskedDiffusionLoss,
    MaskedDiffusionSequence,
    denoising_scores,
)
from sciseq.parameters import AnyOf, Boolean, Instance, Nothing, Option, Real
from sciseq.parameters import Rule as ParameterRule

__all__ = ["ConditionalDiffusionSequence", "PrefixDecoder", "planned_amounts"]

_LEAST_LEVEL = 1e-3


class FreeTokenLoss(MaskedDiffusionLoss):
    r"""Cross-entropy of free tokens, each predicted in one of two copies.

    .. math::

        \frac1n \sum_{i \in S} -w \log p(x_i \mid x_{\setminus S})
        + \frac1n \sum_{i \in A \setminus S} -\bar w \log p(x_i \mid x_S)

    over the n free tokens A, with the weights 1, or 1/2p and 1/2(1 - p), which bound
    the likelihood.

    Parameters
    ----------
    seed : int
        Seed of the noise.
    is_free : Tensor of bool, shape (position,)
        Positions that the template leaves open.
    is_complementary : bool, default=True
        Whether there is a second copy.
    is_bound : bool, default=False
        Whether losses are weighted so that they bound the likelihood.
    """

    def __init__(
        self,
        seed: int,
        is_free: Tensor,
        *,
        is_complementary: bool = True,
        is_bound: bool = False,
    ) -> None:
        super().__init__(seed, is_complementary=is_complementary)
        self.is_free, self.is_bound = is_free, is_bound

    def masks(
        self, network: nn.Module, batch: SequenceBatch
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return what is hidden, all that may be (batch, position), and levels."""
        tokens = batch.tokens
        maskable = self.is_free.to(tokens.device).expand_as(tokens)
        u = self.noise(network, batch, 0, tokens.shape[1])
        level = self.noise(network, batch, 1, 1)[:, 0]
        # The level of the second copy, 1 - p, has the same law and the same bounds.
        p = (1 - 2 * _LEAST_LEVEL) * level + _LEAST_LEVEL
        mask = bernoulli_mask(maskable, p, u)
        if not self.is_bound:  # a weight 1/p would be biased by this
            mask = ensure_one(mask, maskable, u)
        return mask, maskable, p

    def __call__(
        self, network: nn.Module, batch: SequenceBatch
    ) -> tuple[Tensor, Tensor]:
        """Return the sum of losses, and the number of tokens."""
        assert isinstance(network, SequenceNetwork)
        mask, maskable, p = self.masks(network, batch)
        one = torch.ones_like(p)
        total = self._part(network, batch, mask, p if self.is_bound else one)
        if self.is_complementary:
            rest = complement(mask, maskable)
            other = self._part(network, batch, rest, 1 - p if self.is_bound else one)
            total = total + other
        if self.is_bound:
            n = maskable.sum() * (2 if self.is_complementary else 1)
        else:
            n = maskable.sum() if self.is_complementary else mask.sum()
        return total, n.clamp_min(1)


class PrefixDecoder(WholeDecoder):
    """Predict all hidden tokens in each pass; conditions are computed once.

    They read nothing but each other, so that what is stored of them is exact.

    Parameters
    ----------
    drawing : Drawing
        How tokens are drawn.
    reveal : Reveal
        Which of them are kept.
    """

    keeps_prefix = True

    def __init__(self, drawing: Drawing, reveal: Reveal) -> None:
        super().__init__(drawing, reveal)
        self.rule = prefix_bidirectional


def planned_amounts(
    length: int, n_steps: int | None, plan: str = "shifted", alpha: float = 1 / 3
) -> Amount:
    r"""Return the amounts that follow a plan of how many tokens are hidden.

    With fewer hidden tokens than the plan begins with, as where some are given, it is
    entered later: at :math:`t = L_M / L`.

    Parameters
    ----------
    length : int
        Tokens L that are hidden when nothing is given.
    n_steps : int or None
        Passes K of the whole plan, at most ``length``; None: one for each token.
    plan, alpha
        As in :func:`~sciseq.generation.parts.plans.transfer_plan`.

    Examples
    --------
    >>> amount, step = planned_amounts(32, 8), torch.zeros(3)
    >>> amount(torch.tensor([32, 22, 20]), step).tolist()
    [10, 6, 4]
    """
    n_steps = length if n_steps is None else min(n_steps, length)
    levels = torch.zeros(1, dtype=torch.int64)
    if length:
        amounts = transfer_plan(length, n_steps, plan=plan, alpha=alpha)
        levels = length - amounts.cumsum(dim=0)  # hidden after each step, down to 0

    def amount(n_hidden: Tensor, step: Tensor) -> Tensor:
        below = levels.to(n_hidden.device).expand(len(n_hidden), -1)
        below = below.where(below < n_hidden.unsqueeze(1), 0)
        return n_hidden - below.amax(dim=1)

    return amount


@dataclass(kw_only=True, eq=False, repr=False)
class ConditionalDiffusionSequence(MaskedDiffusionSequence):
    r"""Generate sequences for a condition, in few passes, along a template.

    .. math::

        \min_{0 = F_0 < \dots < F_K = L} \sum_i \left(F_i - L s_\alpha(i / K)\right)^2,
        \qquad s_\alpha(t) = \frac{\alpha t}{1 + (\alpha - 1) t}

    with :math:`F_i` hidden tokens when i passes are to come.

    Parameters
    ----------
    n_steps : int, optional
        Passes K of a sequence of which nothing is given; by default one for each token.
    order : str, default="random"
        Which tokens come first: ``"confidence"``, ``"margin"``, ``"entropy"``,
        ``"random"`` or ``"left_to_right"``.
    complementary : bool, default=True
        Show each sequence twice in training: every token is predicted once.
    weighting : {"uniform", "bound"}, default="uniform"
        Of the losses: all alike, or so that they bound the likelihood.
    plan : {"shifted", "linear", "cosine"}, default="shifted"
        How many tokens are hidden at which pass.
    alpha : float, default=1/3
        Of the shifted plan. Below 1 more tokens are uncovered early; 1 is linear.
    prefix_cache : bool, default=True
        Compute conditions once, which then do not read the sequence. In training they
        do; the difference is accepted.
    template : sequence with gaps, optional
        What all sequences have in common: never hidden in training, and always given at
        sampling. Gaps as in :meth:`sample`.
    legal : dict of int to sequences of tokens, optional
        Tokens that are legal at some positions.
    **others
        As in :class:`MaskedDiffusionSequence`.

    Notes
    -----
    :meth:`score_samples` estimates a lower bound of the log-likelihood of the free
    tokens given the template, as trained: conditions read the sequence.

    ``order="confidence"`` is the recipe of the papers, and makes samples more alike
    than the law.

    Left out are the infilling of gaps of unknown length by a control token, and
    code-books of way-points.

    Card: sequences §16 and §17.

    References
    ----------
    LaViDa: a large diffusion language model for multimodal understanding,
    arXiv:2505.16839, 2025. ViLaD: a large vision language diffusion framework for
    end-to-end autonomous driving, arXiv:2508.12603, 2025.

    Examples
    --------
    >>> model = ConditionalDiffusionSequence(
    ...     template="??-??", max_epochs=2, random_state=0, device="cpu"
    ... )
    >>> model = model.fit(["AC-GT", "CA-TG"] * 20, ["up", "down"] * 20)
    >>> [one[2] for one in model.sample(condition=["up", "down"], random_state=0)]
    ['-', '-']
    """

    method_card: ClassVar[MethodCard] = MethodCard(
        idea="Masked diffusion for a condition (a class, numbers, peaks) and a "
        "template. A plan says how many tokens are uncovered in which pass.",
        order="Any order, amounts by a plan that uncovers more tokens early.",
        mask="Tokens read everything; with a cache, the condition reads only itself.",
        corruption="A share of the free tokens, then the others: each is told once.",
        objective="Cross-entropy of hidden tokens, all alike, or weighted as a bound.",
        decoder="Draws all hidden tokens and keeps the planned number.",
        cache="exact",
        score="bound",
        good_for="Sequences for a condition, of a fixed form, in few passes: spectra, "
        "classes, tables with fixed separators.",
        not_for="Unconditional sampling, where masked diffusion does the same with "
        "less. Training lets the condition read the sequence, the cached pass does "
        "not: a difference that is accepted.",
        picture={"n_steps": 4},
    )

    order: str = "random"
    complementary: bool = True
    weighting: str = "uniform"
    plan: str = "shifted"
    alpha: float = 1 / 3
    prefix_cache: bool = True
    template: Any = None
    legal: Any = None

    _parameter_rules: ClassVar[dict[str, ParameterRule]] = {
        **MaskedDiffusionSequence._parameter_rules,
        "weighting": Option("uniform", "bound"),
        "plan": Option(*PLANS),
        "alpha": Real(0.0, open_low=True),
        "prefix_cache": Boolean(),
        "template": AnyOf(
            Nothing(), Instance("a sequence with gaps", str, list, tuple, np.ndarray)
        ),
        "legal": AnyOf(Nothing(), Instance("a dict of positions to tokens", dict)),
    }

    # ---------------------------------------------------------------- template

    def _fixed(self) -> Tensor:
        """Return the template (position,), -1 at gaps."""
        rows = super()._template_rows(self.template)
        if rows is None:
            return torch.full((self.alphabet_.n_positions,), -1)
        return rows[0]

    def _fit_parts(self, parts: list[tuple[Tensor, Condition | None]]) -> None:
        fixed, legal = self._fixed(), super()._legal(self.legal)
        for tokens, _ in parts:
            fits = (fixed < 0) | (tokens == fixed)
            if legal is not None:
                places = torch.arange(tokens.shape[1])
                fits &= legal[places, tokens] | (fixed >= 0)
            if not bool(fits.all()):
                row, place = (~fits).nonzero()[0].tolist()
                found = self.alphabet_.decode(tokens[[row]].numpy())[0]
                raise DataQualityError(
                    f"{found!r} has an illegal token at place {place}",
                    where="X",
                    hint="All sequences of fit must keep to template and legal.",
                )
        super()._fit_parts(parts)

    def _template_rows(self, template: Any) -> Tensor:
        """Return templates of a call, completed by that of the estimator."""
        rows = super()._template_rows(template)
        return self._fixed().unsqueeze(0) if rows is None else self._completed(rows)

    def _completed(self, rows: Tensor) -> Tensor:
        fixed = self._fixed()
        differs = (rows >= 0) & (fixed >= 0) & (rows != fixed)
        if bool(differs.any()):
            row, place = differs.nonzero()[0].tolist()
            raise InputError(
                f"sequence {row} contradicts the estimator's "
                f"template={self.template!r} at position {place}",
                where="template or X",
                hint="Leave fixed positions open, or give the same tokens.",
            )
        return fixed.where(rows < 0, rows)

    def _legal(self, allowed: Any) -> Tensor | None:
        always, now = super()._legal(self.legal), super()._legal(allowed)
        fixed = self._fixed()
        at = (fixed >= 0).nonzero().flatten()
        for one in (always, now):
            if one is not None:  # what the template fixes is legal there
                one[at, fixed[at]] = True
        if always is None or now is None:
            return now if always is None else always
        both = always & now
        if not bool(both.any(dim=1).all()):
            place = int((~both.any(dim=1)).nonzero()[0])
            raise InputError(
                f"no token is legal at position {place}",
                where="allowed",
                hint=f"The estimator has legal={self.legal!r}.",
            )
        return both

    # ------------------------------------------------- training, sampling, scores

    def _loss(self, seed: int) -> NoisyLoss:
        return FreeTokenLoss(
            seed,
            self._fixed() < 0,
            is_complementary=bool(self.complementary),
            is_bound=self.weighting == "bound",
        )

    def _decoder(self, drawing: Drawing) -> WholeDecoder:
        n_free = int((self._fixed() < 0).sum())
        amount = planned_amounts(n_free, self.n_steps, self.plan, float(self.alpha))
        reveal = Reveal(self.order, amount, self.threshold)
        decoder = PrefixDecoder if self.prefix_cache else WholeDecoder
        return decoder(drawing, reveal)

    def _log_likelihood(
        self, tokens: Tensor, condition: Condition | None, seed: int
    ) -> tuple[Tensor, Tensor]:
        n, is_free = int(self.n_estimates), (self._fixed() < 0).to(tokens.device)
        return mean_and_error(
            free_bound(self._network(), tokens, is_free, condition, (seed, number, n))
            for number in range(n)
        )


def free_bound(
    network: SequenceNetwork,
    tokens: Tensor,
    is_free: Tensor,
    condition: Condition | None,
    draw: tuple[int, int, int],
) -> Tensor:
    r"""Return one estimate of the bound of log-likelihoods (batch,) of free tokens.

    .. math:: \frac{n}{k} \sum_{i \in S} \log p(x_i \mid x_{\setminus S}),
        \qquad S \subseteq A, |S| = k \sim U\{1..n\}

    Parameters
    ----------
    network : SequenceNetwork
        Network.
    tokens : Tensor of int64, shape (batch, position)
        Sequences.
    is_free : Tensor of bool, shape (position,)
        The n positions A.
    condition : Condition or None
        Of the sequences.
    draw : tuple of int
        Seed, number of this draw, and how many there are: counts are stratified.
    """
    seed, number, n_draws = draw
    n_free = int(is_free.sum())
    if not n_free:
        return torch.zeros(len(tokens), dtype=torch.float64, device=tokens.device)
    item = content_keys(tokens)
    seeds = torch.full_like(item, seed)
    place = torch.arange(tokens.shape[1], device=tokens.device).unsqueeze(0)
    level = (uniform(seeds, item, -2) + number / n_draws) % 1.0
    count = (level * n_free).floor().long() + 1
    u = uniform(seeds, item.unsqueeze(1), number, place)
    mask = exact_count_mask(is_free.expand_as(tokens), count, u)
    shown = tokens.masked_fill(mask, network.mask)
    logs = log_probabilities(denoising_scores(network, shown, condition), tokens)
    return logs.where(mask, 0.0).sum(dim=1) * (n_free / count)
