r"""Block diffusion: autoregressive over blocks, denoising inside (SDAR).

Axes: ``batch`` (B), ``position`` (L), ``block``, ``token`` (V).

Training shows every sequence twice, noisy and clean; a noisy block reads itself and the
clean blocks before it. One level t for a sequence, aligned targets, weight 1/p. Card:
sequences §4.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from sciseq.generation.base import SequenceGenerator
from sciseq.generation.conversion import Converted
from sciseq.generation.method_card import MethodCard
from sciseq.generation.parts.batches import NoisyLoss, SequenceBatch
from sciseq.generation.parts.block_decoder import BlockDecoder
from sciseq.generation.parts.corruption import bernoulli_mask
from sciseq.generation.parts.drawing import Drawing, log_probabilities
from sciseq.generation.parts.estimates import mean_and_error
from sciseq.generation.parts.masks import two_copy
from sciseq.generation.parts.network import Condition
from sciseq.generation.parts.noise import content_keys, uniform
from sciseq.generation.parts.requests import Decoder, is_counted
from sciseq.generation.parts.reveal import ORDERS, Reveal, equal_amounts
from sciseq.generation.parts.two_copy_loss import Broken, TwoCopyLoss, two_copy_scores
from sciseq.parameters import AnyOf, Integer, Nothing, Option, Real
from sciseq.parameters import Rule as ParameterRule

__all__ = ["BlockDiffusionSequence"]

_LEAST_LEVEL = 1e-3


def one_level(u: Tensor, u_block: Tensor, size: int) -> Broken:
    """Hide each token with the probability p of its sequence, at weight 1/p."""
    p = (1 - _LEAST_LEVEL) * u_block[:, 0] + _LEAST_LEVEL
    mask = bernoulli_mask(torch.ones_like(u, dtype=torch.bool), p, u)
    return Broken(mask, (1 / p).unsqueeze(1))


@dataclass(kw_only=True, eq=False, repr=False)
class BlockDiffusionSequence(Converted, SequenceGenerator):
    r"""Generate sequences block by block, the tokens of a block in parallel.

    .. math::

        L = \frac1L \sum_{i \in S} \frac1p \cdot -\log p(x_i \mid x_t^{b(i)}, x^{<b(i)})

    Parameters
    ----------
    block_size : int, default=4
        Tokens of a block. 1 is autoregressive; the whole length is masked diffusion.
    n_steps : int, optional
        Passes for a block; by default one for each token.
    order : str, default="random"
        Which tokens of a block come first: ``"confidence"``, ``"margin"``,
        ``"entropy"``, ``"left_to_right"`` or ``"random"``.
    threshold : float, optional
        Tokens of a higher probability are kept at once (dynamic selection).
    n_estimates : int, default=32
        Draws for an estimate of the likelihood.
    **others
        As in :class:`AutoregressiveSequence`.

    Notes
    -----
    :meth:`score_samples` estimates a lower bound of the log-likelihood, exact for
    blocks of one token. What is cached is exact.

    ``order="confidence"`` is the recipe of the paper. It keeps probable tokens first
    and makes samples more alike than the law; take it with ``temperature=0``, or where
    only the best sequence is asked for. A ``threshold`` does the same to a lesser
    degree.

    Card: sequences §4. The method converts autoregressive models:
    :meth:`from_autoregressive`.

    Examples
    --------
    >>> model = BlockDiffusionSequence(max_epochs=2, random_state=0, device="cpu")
    >>> model = model.fit(["ACGTAC", "ACGGTT"] * 20)
    >>> len(model.sample(3, random_state=0))
    3
    """

    method_card: ClassVar[MethodCard] = MethodCard(
        idea="Autoregressive over blocks, masked diffusion inside a block. Finished "
        "blocks are cached, and sequences may end at any block.",
        order="Blocks from left to right; inside a block in any order.",
        mask="A noisy block reads itself and the clean blocks before it; clean blocks "
        "read themselves and earlier ones.",
        corruption="Tokens of the noisy copy with probability t, one t for a sequence.",
        objective="Cross-entropy of hidden tokens, weighted by 1/t (aligned).",
        decoder="Denoises one block in a few passes, then stores it by one more.",
        cache="exact",
        score="bound",
        good_for="Fitted autoregressive models that should draw several tokens in a "
        "pass (`from_autoregressive`); gaps inside a block.",
        not_for="Short training: in our ten epochs, fewer passes gave worse samples. "
        "A block does not read what stands right of it.",
        picture={"block_size": 4, "n_steps": 2},
    )

    block_size: int = 4
    n_steps: int | None = None
    order: str = "random"
    threshold: float | None = None
    n_estimates: int = 32

    _parameter_rules: ClassVar[dict[str, ParameterRule]] = {
        **SequenceGenerator._parameter_rules,
        "block_size": Integer(1),
        "n_steps": AnyOf(Nothing(), Integer(1)),
        "order": Option(*ORDERS),
        "threshold": AnyOf(Nothing(), Real(0.0, 1.0)),
        "n_estimates": Integer(1),
    }

    def _loss(self, seed: int) -> NoisyLoss:
        size = int(self.block_size)
        return TwoCopyLoss(
            seed,
            rule=two_copy(clean="block"),
            corrupt=one_level,
            block_size=lambda progress: size,
        )

    def _decoder(self, drawing: Drawing) -> Decoder:
        reveal = Reveal(self.order, equal_amounts(self.n_steps), self.threshold)
        return BlockDecoder(
            drawing, reveal, two_copy(clean="block"), int(self.block_size)
        )

    def _log_likelihood(
        self, tokens: Tensor, condition: Condition | None, seed: int
    ) -> tuple[Tensor, Tensor]:
        n, size = int(self.n_estimates), int(self.block_size)

        def draw(number: int) -> Tensor:
            return block_bound(self._network(), tokens, condition, size,
                               (seed, number, n), self.alphabet_.end)  # fmt: skip

        if size == 1:  # exact: nothing is drawn
            exact = draw(0)
            return exact, torch.zeros_like(exact)
        return mean_and_error(draw(number) for number in range(n))


def block_bound(
    network: Any,
    tokens: Tensor,
    condition: Condition | None,
    size: int,
    draw: tuple[int, int, int],
    end: int | None = None,
) -> Tensor:
    r"""Return one estimate of the bound of log-likelihoods (batch,), from exact counts.

    .. math:: \sum_b \frac{B}{k_b} \sum_{i \in S_b} \log p(x_i \mid x_{b \setminus S_b},
        x^{<b}), \qquad |S_b| = k_b \sim U\{1..B\}

    over the blocks up to that of the first end: those behind it say nothing.

    Parameters
    ----------
    network : SequenceNetwork
        Network.
    tokens : Tensor of int64, shape (batch, position)
        Sequences.
    condition : Condition or None
        Of them.
    size : int
        Tokens of a block.
    draw : tuple of int
        Seed, number of this draw, and how many there are: counts are stratified.
    end : int, optional
        Token behind which everything is an end.
    """
    seed, number, n_draws = draw
    length = tokens.shape[1]
    n_blocks = -(-length // size)
    place = torch.arange(n_blocks * size, device=tokens.device).view(n_blocks, size)
    inside = place < length
    n_inside = inside.sum(dim=1)
    item = content_keys(tokens)
    seeds = torch.full_like(item, seed)
    level = uniform(seeds, item.view(-1, 1), -2, torch.arange(
        n_blocks, device=tokens.device).unsqueeze(0))  # fmt: skip
    level = (level + number / n_draws) % 1.0
    count = (level * n_inside).floor().long() + 1  # (batch, block)
    u = uniform(seeds, item.view(-1, 1, 1), number, place.unsqueeze(0))
    u = u.where(inside, torch.inf)
    rank = u.argsort(dim=2).argsort(dim=2)
    mask = (rank < count.unsqueeze(2)).flatten(1)[:, :length]
    weight = (n_inside / count).repeat_interleave(size, dim=1)[:, :length]
    batch = SequenceBatch(tokens, item, condition)
    broken = Broken(mask, weight)
    noisy, _ = two_copy_scores(network, batch, broken, size, two_copy(clean="block"))
    logs = log_probabilities(noisy, tokens)
    counted = is_counted(tokens, end)[:, ::size]  # by the first token of a block
    told = mask & counted.repeat_interleave(size, dim=1)[:, :length]
    return (logs * weight).where(told, 0.0).sum(dim=1)
