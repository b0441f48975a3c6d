r"""From the next token to the next block: a causal past, a block at a time (NBDiff).

Axes: ``batch`` (B), ``position`` (L), ``block`` (of b tokens), ``token`` (V).

Training shows every sequence twice. The clean copy stays strictly causal, so that it is
the autoregressive model, and is trained as such; a noisy block reads itself and the
clean tokens before it. Both copies say what the next token is (shifted). Blocks grow
during training from one token, which is the autoregressive model. Card: sequences §5.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from sciseq.generation.base import SequenceGenerator
from sciseq.generation.conversion import Converted
from sciseq.generation.method_card import MethodCard
from sciseq.generation.parts.batches import NoisyLoss
from sciseq.generation.parts.block_decoder import BlockDecoder
from sciseq.generation.parts.block_masks import of_tokens
from sciseq.generation.parts.corruption import bernoulli_mask
from sciseq.generation.parts.drawing import Drawing
from sciseq.generation.parts.masks import two_copy
from sciseq.generation.parts.network import Condition
from sciseq.generation.parts.requests import Decoder
from sciseq.generation.parts.reveal import ORDERS, Reveal, equal_amounts
from sciseq.generation.parts.two_copy_loss import Broken, TwoCopyLoss
from sciseq.generation.sequences.autoregressive import next_token_log_likelihood
from sciseq.parameters import AnyOf, Integer, Nothing, Option, Real
from sciseq.parameters import Rule as ParameterRule

__all__ = ["NextBlockSequence", "grown_block_size"]

_LEAST_LEVEL = 1e-3


def level_of_block(u: Tensor, u_block: Tensor, size: int) -> Broken:
    """Hide each token with the probability p of its block, at weight 1/p."""
    p = (1 - _LEAST_LEVEL) * u_block + _LEAST_LEVEL
    p = of_tokens(p, size, u.shape[1])
    mask = bernoulli_mask(torch.ones_like(u, dtype=torch.bool), p, u)
    return Broken(mask, 1 / p)


def grown_block_size(
    s: float,
    largest: int,
    *,
    first: int = 1,
    factor: int = 2,
    start: float = 0.0,
    interval: float,
) -> int:
    r"""Return the block size at a point of the training.

    .. math:: b(s) = \min(b_{max},\ b_0\, r^{\lfloor \max(0, s - s_0) / \Delta \rfloor})

    Parameters
    ----------
    s : float
        Steps, or the share of the training, that is done.
    largest : int
        Largest size :math:`b_{max}`.
    first : int, default=1
        Size :math:`b_0` at the start.
    factor : int, default=2
        Growth r.
    start, interval : float
        When growth begins, :math:`s_0`, and how long a size lasts, :math:`\Delta`; in
        the units of s. An interval of 0: growth is over at once.

    Examples
    --------
    >>> [grown_block_size(s, 6, start=10, interval=5) for s in (0, 14, 15, 20, 25, 99)]
    [1, 1, 2, 4, 6, 6]
    """
    if not interval:
        return largest if s >= start else min(first, largest)
    n_times = int(max(0.0, s - start) / interval + 1e-9)
    size = first
    for _ in range(n_times):
        if size >= largest:
            break
        size *= factor
    return min(size, largest)


@dataclass(kw_only=True, eq=False, repr=False)
class NextBlockSequence(Converted, SequenceGenerator):
    r"""Generate block by block with an autoregressive model of the past (NBDiff).

    .. math:: L = L_{diff} + \lambda L_{AR}, \qquad
        L_{diff} = \frac1L \sum_{i \in S} \frac1p \cdot
        -\log p(x_i \mid x_t^{b(i)}, x^{<b(i)})

    The row before a hidden token predicts it. The first token of a block has no such
    row in its block: it is the autoregressive model's, in training and in generation.

    Parameters
    ----------
    block_size : int, default=4
        Tokens b of a block, when it is grown. 1 is autoregressive.
    autoregressive_weight : float, default=0.5
        Weight :math:`\lambda` of the loss of the next token.
    growth : float, default=0.6
        Share of the training in which blocks grow: from one token, doubling at equal
        intervals. 0 has blocks of the final size from the start.
    n_steps : int, optional
        Passes for a block; by default one for each token.
    order : str, default="random"
        Which tokens of a block come first: ``"confidence"``, ``"margin"``,
        ``"entropy"``, ``"left_to_right"`` or ``"random"``.
    threshold : float, optional, default=0.9
        Tokens of a higher probability are kept at once.
    **others
        As in :class:`AutoregressiveSequence`.

    Notes
    -----
    :meth:`score_samples` is exact, the law of the causal copy. Samples of blocks of
    more than one token follow another law, as tokens of a block are drawn in parallel.
    What is cached is exact.

    One level p for each block, and the weight 1/p, are those of the bound of the
    likelihood. Validation always has blocks of the final size.

    ``order="confidence"`` is the recipe of the paper, and makes samples more alike than
    the law.

    Card: sequences §5. The method converts autoregressive models:
    :meth:`from_autoregressive`. Paper: arXiv:2512.06776.

    Examples
    --------
    >>> model = NextBlockSequence(max_epochs=2, random_state=0, device="cpu")
    >>> model = model.fit(["ACGTAC", "ACGGTT"] * 20)
    >>> len(model.sample(3, random_state=0))
    3
    """

    method_card: ClassVar[MethodCard] = MethodCard(
        idea="The past stays strictly causal and remains a trained autoregressive "
        "model; only the newest block is denoised. Blocks grow during training from "
        "one token.",
        order="Blocks from left to right; the first token of a block is the "
        "autoregressive model's; all above a threshold, else any of the others.",
        mask="A noisy block reads itself and the clean tokens before it; clean tokens "
        "read earlier ones only.",
        corruption="Each token of a block with probability t, one t for a block.",
        objective="Cross-entropy of hidden tokens from the row before them (shifted), "
        "plus the loss of the next token.",
        decoder="Denoises one block, then computes it causally and stores it.",
        cache="exact",
        score="exact",
        good_for="Several tokens in a pass from a model that must stay an "
        "autoregressive one, with exact scores of that one.",
        not_for="Samples that must follow the scored law: tokens of a block are drawn "
        "in parallel, and follow another.",
        picture={"block_size": 4, "threshold": 0.6},
    )

    block_size: int = 4
    autoregressive_weight: float = 0.5
    growth: float = 0.6
    n_steps: int | None = None
    order: str = "random"
    threshold: float | None = 0.9

    _parameter_rules: ClassVar[dict[str, ParameterRule]] = {
        **SequenceGenerator._parameter_rules,
        "block_size": Integer(1),
        "autoregressive_weight": Real(0.0),
        "growth": Real(0.0, 1.0),
        "n_steps": AnyOf(Nothing(), Integer(1)),
        "order": Option(*ORDERS),
        "threshold": AnyOf(Nothing(), Real(0.0, 1.0)),
    }

    def _loss(self, seed: int) -> NoisyLoss:
        return TwoCopyLoss(
            seed,
            rule=two_copy(clean="causal"),
            corrupt=level_of_block,
            block_size=self._block_size_at,
            clean_weight=float(self.autoregressive_weight),
            end=self.alphabet_.end,
            is_shifted=True,
        )

    def _block_size_at(self, progress: float) -> int:
        """Block size at a share of the training: the last one from ``growth`` on."""
        largest = int(self.block_size)
        n_doublings = max(1, (largest - 1).bit_length())
        interval = float(self.growth) / n_doublings
        return grown_block_size(progress, largest, interval=interval)

    def _decoder(self, drawing: Drawing) -> Decoder:
        reveal = Reveal(self.order, equal_amounts(self.n_steps), self.threshold)
        rule = two_copy(clean="causal")
        return BlockDecoder(
            drawing, reveal, rule, int(self.block_size), is_shifted=True
        )

    def _log_likelihood(
        self, tokens: Tensor, condition: Condition | None, seed: int
    ) -> tuple[Tensor, Tensor]:
        end = self.alphabet_.end
        return next_token_log_likelihood(self._network(), tokens, condition, end)
