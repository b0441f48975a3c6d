r"""Masked diffusion: predict hidden tokens from all others (MDLM, LLaDA).

Axes: ``batch`` (B), ``position`` (L), ``token`` (V).

Everybody reads everybody, and the row of a hidden token predicts it. Card: sequences §1
and §0.3.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from sciseq.generation.base import SequenceGenerator
from sciseq.generation.conversion import Converted
from sciseq.generation.method_card import MethodCard
from sciseq.generation.parts.batches import NoisyLoss, SequenceBatch
from sciseq.generation.parts.corruption import bernoulli_mask, complement
from sciseq.generation.parts.drawing import Drawing, log_probabilities
from sciseq.generation.parts.estimates import mean_and_error
from sciseq.generation.parts.layout import NOISY, Layout
from sciseq.generation.parts.masks import full
from sciseq.generation.parts.network import Condition, SequenceNetwork
from sciseq.generation.parts.noise import content_keys, uniform
from sciseq.generation.parts.requests import Decoder
from sciseq.generation.parts.reveal import ORDERS, Reveal, equal_amounts
from sciseq.generation.parts.two_copy_loss import token_losses
from sciseq.generation.parts.whole_decoder import WholeDecoder
from sciseq.parameters import AnyOf, Boolean, Integer, Nothing, Option, Real
from sciseq.parameters import Rule as ParameterRule

__all__ = ["MaskedDiffusionLoss", "MaskedDiffusionSequence", "denoising_scores"]

_LEAST_LEVEL = 1e-3


def denoising_scores(
    network: SequenceNetwork, shown: Tensor, condition: Condition | None
) -> Tensor:
    """Return scores (batch, position, token) of all positions, which read all others.

    Parameters
    ----------
    network : SequenceNetwork
        Network.
    shown : Tensor of int64, shape (batch, position)
        Symbols, masks where tokens are hidden.
    condition : Condition or None
        Of the sequences.
    """
    length = shown.shape[1]
    layout = Layout.of(length, block=length, copy=NOISY, device=shown.device)
    states = network.read(shown, layout, full, condition)
    return network.scores(states[:, 1:])


class MaskedDiffusionLoss(NoisyLoss):
    r"""Cross-entropy of hidden tokens, weighted so that it bounds the likelihood.

    .. math:: E_t \left[ \frac1p \sum_{i \in S} -\log p(x_i \mid x_t) \right],
        \quad p = (1 - \epsilon) t + \epsilon

    Parameters
    ----------
    seed : int
        Seed of the noise.
    is_complementary : bool, default=False
        Show each sequence twice, with what the first time hid and with the rest.
    """

    def __init__(self, seed: int, *, is_complementary: bool = False) -> None:
        super().__init__(seed)
        self.is_complementary = is_complementary

    def __call__(
        self, network: nn.Module, batch: SequenceBatch
    ) -> tuple[Tensor, Tensor]:
        """Return the sum of losses, and the number of tokens."""
        assert isinstance(network, SequenceNetwork)
        tokens = batch.tokens
        maskable = torch.ones_like(tokens, dtype=torch.bool)
        u = self.noise(network, batch, 0, tokens.shape[1])
        level = self.noise(network, batch, 1, 1)[:, 0]
        p = (1 - _LEAST_LEVEL) * level + _LEAST_LEVEL
        mask = bernoulli_mask(maskable, p, u)
        total = self._part(network, batch, mask, p)
        if not self.is_complementary:
            return total, torch.tensor(tokens.numel())
        other = (1 - p).clamp_min(_LEAST_LEVEL)
        total = total + self._part(network, batch, complement(mask, maskable), other)
        return total, torch.tensor(2 * tokens.numel())

    @staticmethod
    def _part(
        network: SequenceNetwork, batch: SequenceBatch, mask: Tensor, p: Tensor
    ) -> Tensor:
        shown = batch.tokens.masked_fill(mask, network.mask)
        scores = denoising_scores(network, shown, batch.condition)
        losses = token_losses(scores, batch.tokens)
        weighted = losses / p.to(losses.dtype).unsqueeze(1)
        return weighted.where(mask, 0.0).sum()


@dataclass(kw_only=True, eq=False, repr=False)
class MaskedDiffusionSequence(Converted, SequenceGenerator):
    r"""Generate sequences by uncovering tokens in any order, several at a time.

    .. math::

        -\log p(x) \le E_{t} E_{x_t} \left[ \frac1t \sum_{i \in S}
        -\log p(x_i \mid x_t) \right]

    Parameters
    ----------
    n_steps : int, optional
        Passes for a sequence; by default one for each token.
    order : str, default="random"
        Which tokens come first: ``"random"`` (the law that was trained),
        ``"confidence"``, ``"margin"``, ``"entropy"`` or ``"left_to_right"``.
    threshold : float, optional
        Tokens of a higher probability are kept at once.
    complementary : bool, default=False
        Show each sequence twice in training: hidden tokens, and all others.
    n_estimates : int, default=32
        Draws for an estimate of the likelihood.
    **others
        As in :class:`AutoregressiveSequence`.

    Notes
    -----
    :meth:`score_samples` estimates a lower bound of the log-likelihood. Ends behind a
    sequence are ordinary tokens: the model knows its length.

    Card: sequences §1.

    Examples
    --------
    >>> model = MaskedDiffusionSequence(max_epochs=2, random_state=0, device="cpu")
    >>> model = model.fit(["ACGTAC", "ACGGTT"] * 20)
    >>> len(model.infill(["AC??AC"], random_state=0)[0])
    6
    """

    method_card: ClassVar[MethodCard] = MethodCard(
        idea="Tokens are hidden at random and told from all others. Generation starts "
        "with everything hidden and uncovers several tokens in a pass, in any order.",
        order="Any order: random, or the surest first; as many passes as wanted.",
        mask="Everybody reads everybody.",
        corruption="Each token with probability t, where t is uniform and differs "
        "between sequences.",
        objective="Cross-entropy of hidden tokens, weighted by 1/t: it bounds the "
        "likelihood.",
        decoder="Draws all hidden tokens and keeps some: equal amounts, or all that "
        "are sure.",
        cache="none",
        score="bound",
        good_for="Gaps anywhere, templates, both sides of a token; fewer passes than "
        "tokens.",
        not_for="Exact likelihoods, or speed on a CPU: every pass computes all "
        "positions. Few passes draw tokens independently that belong together.",
        picture={"n_steps": 4, "order": "confidence"},
    )

    n_steps: int | None = None
    order: str = "random"
    threshold: float | None = None
    complementary: bool = False
    n_estimates: int = 32

    _parameter_rules: ClassVar[dict[str, ParameterRule]] = {
        **SequenceGenerator._parameter_rules,
        "n_steps": AnyOf(Nothing(), Integer(1)),
        "order": Option(*ORDERS),
        "threshold": AnyOf(Nothing(), Real(0.0, 1.0)),
        "complementary": Boolean(),
        "n_estimates": Integer(1),
    }

    def _loss(self, seed: int) -> NoisyLoss:
        return MaskedDiffusionLoss(seed, is_complementary=bool(self.complementary))

    def _decoder(self, drawing: Drawing) -> Decoder:
        reveal = Reveal(self.order, equal_amounts(self.n_steps), self.threshold)
        return WholeDecoder(drawing, reveal)

    def _log_likelihood(
        self, tokens: Tensor, condition: Condition | None, seed: int
    ) -> tuple[Tensor, Tensor]:
        n = int(self.n_estimates)
        return mean_and_error(
            whole_bound(self._network(), tokens, condition, (seed, number, n))
            for number in range(n)
        )


def whole_bound(
    network: SequenceNetwork,
    tokens: Tensor,
    condition: Condition | None,
    draw: tuple[int, int, int],
) -> Tensor:
    r"""Return one estimate of the bound of log-likelihoods (batch,), from exact counts.

    .. math:: \frac{L}{k} \sum_{i \in S} \log p(x_i \mid x_{\setminus S}),
        \qquad |S| = k \sim U\{1..L\}

    Parameters
    ----------
    network : SequenceNetwork
        Network.
    tokens : Tensor of int64, shape (batch, position)
        Sequences.
    condition : Condition or None
        Of them.
    draw : tuple of int
        Seed, number of this draw, and how many there are: counts are stratified.
    """
    seed, number, n_draws = draw
    length = tokens.shape[1]
    item = content_keys(tokens)
    seeds = torch.full_like(item, seed)
    place = torch.arange(length, device=tokens.device).unsqueeze(0)
    level = (uniform(seeds, item, -2) + number / n_draws) % 1.0
    count = (level * length).floor().long() + 1
    u = uniform(seeds, item.unsqueeze(1), number, place)
    mask = u.argsort(dim=1).argsort(dim=1) < count.unsqueeze(1)
    shown = tokens.masked_fill(mask, network.mask)
    logs = log_probabilities(denoising_scores(network, shown, condition), tokens)
    return logs.where(mask, 0.0).sum(dim=1) * (length / count)
