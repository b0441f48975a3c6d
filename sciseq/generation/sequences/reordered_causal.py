r"""Masked diffusion under causal attention: what is known comes first (WeDLM).

Axes: ``batch`` (B), ``position`` (L), ``block``, ``row`` (of a pass, known tokens
first), ``token`` (V).

Training shows every sequence twice. In a noisy block known tokens rank before hidden
ones, and rows read those of no later rank; each keeps the logical position of its
token. So a hidden token reads all known ones, while what is at the left is final as
soon as it is known: it can be cached at once. Card: sequences §6.
"""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from sciseq.generation.base import SequenceGenerator
from sciseq.generation.conversion import Converted
from sciseq.generation.method_card import MethodCard
from sciseq.generation.parts.batches import NoisyLoss
from sciseq.generation.parts.block_masks import block_share_mask, of_tokens
from sciseq.generation.parts.drawing import Drawing
from sciseq.generation.parts.layout import NOISY, Layout
from sciseq.generation.parts.masks import two_copy
from sciseq.generation.parts.network import Condition
from sciseq.generation.parts.requests import Decoder, Requests, Rows
from sciseq.generation.parts.selection import negative_entropy, threshold
from sciseq.generation.parts.two_copy_loss import Broken, TwoCopyLoss
from sciseq.generation.sequences.autoregressive import next_token_log_likelihood
from sciseq.parameters import Boolean, Integer, Option, Real
from sciseq.parameters import Rule as ParameterRule

__all__ = ["ReorderedCausalDiffusion", "StreamingDecoder", "known_first"]

_LEAST_LEVEL = 1e-3


def known_first(is_known: Tensor, group: Tensor) -> Tensor:
    """Return ranks within groups: known tokens first, each kind in order.

    Parameters
    ----------
    is_known : Tensor of bool, shape (batch, position)
        Tokens that are not hidden.
    group : Tensor of int64, shape (batch, position)
        First positions of their groups, which do not fall.

    Returns
    -------
    Tensor of int64, shape (batch, position)

    Examples
    --------
    >>> import torch
    >>> is_known = torch.tensor([[False, True, False, True, True]])
    >>> known_first(is_known, torch.tensor([[0, 0, 0, 3, 3]])).tolist()
    [[1, 0, 2, 0, 1]]
    """
    order = (2 * group + (~is_known).long()).argsort(dim=1, stable=True)
    return order.argsort(dim=1) - group  # place of each token, counted in its group


def known_before_hidden(
    u: Tensor, u_block: Tensor, size: int, *, normalise_weights: bool = False
) -> Broken:
    r"""Hide exactly round(g n) tokens of each block, and rank them behind the others.

    .. math:: \gamma \sim U(0, 1], \qquad w_i = 1 / \gamma_{b(i)}

    Parameters
    ----------
    u : Tensor, shape (batch, position)
        Uniform numbers.
    u_block : Tensor, shape (batch, block)
        Uniform numbers that say the level of each block.
    size : int
        Tokens of a block.
    normalise_weights : bool, default=False
        Make the weights of the hidden tokens of a sequence sum to one.
    """
    length = u.shape[1]
    level = (1 - _LEAST_LEVEL) * u_block + _LEAST_LEVEL
    mask = block_share_mask(u, level, size)
    weight = of_tokens(1 / level, size, length)
    if normalise_weights:
        # The loss divides by the length.
        total = weight.where(mask, 0.0).sum(dim=1, keepdim=True)
        weight = weight * (length / total)
    group = Layout.of(length, block=size, device=u.device).group
    return Broken(mask, weight, known_first(~mask, group))


class StreamingDecoder(Decoder):
    r"""Fill a sliding window in any order; store what is complete at its left.

    A pass computes the window, known tokens first, on top of the stored ones. The known
    tokens at the left edge, up to the first gap, are stored: no earlier row stands
    behind them in the sequence, so their keys and values are final. Of the hidden ones
    those with

    .. math:: H_i + \lambda d_i < \tau

    are kept, or the best one, where H is the entropy and d the distance from the
    leftmost of them.

    Parameters
    ----------
    drawing : Drawing
        How tokens are drawn.
    window : int
        Positions W of the window.
    entropy_threshold : float
        Threshold :math:`\tau`, in nats.
    distance_weight : float
        Weight :math:`\lambda` of a place.
    refills_before : bool, default=True
        Whether new masks come for what a pass is about to store (W hidden or later
        places behind the first gap), or only behind what is stored (W places in all).

    Notes
    -----
    Given tokens are known as soon as the window reaches them.
    """

    def __init__(
        self,
        drawing: Drawing,
        window: int,
        entropy_threshold: float,
        distance_weight: float,
        *,
        refills_before: bool = True,
    ) -> None:
        self.drawing, self.window = drawing, window
        self.entropy_threshold = entropy_threshold
        self.distance_weight, self.refills_before = distance_weight, refills_before
        self.rule = two_copy(clean="causal", noisy="reordered")

    def start(self, requests: Requests) -> None:
        """Begin at position 0, with nothing stored."""
        requests.memory["at"] = torch.zeros_like(requests.seeds)
        requests.memory["n_steps"] = torch.zeros_like(requests.seeds)

    def rows(self, requests: Requests) -> Rows:
        """Compute the window: known tokens, then hidden ones, each kind in order."""
        at, gap = requests.memory["at"], requests.first_gap()
        if self.refills_before:
            end = gap + self.window
        else:
            end = (at + self.window).maximum(gap)
        end = end.clamp_max(requests.n_positions)
        place = torch.arange(int((end - at).max()), device=at.device)
        position = at[:, None] + place
        is_row = position < end[:, None]
        inside = position.clamp_max(requests.n_positions - 1)
        is_hidden = ~requests.is_filled.gather(1, inside)
        # Known, hidden, padding.
        kind = is_hidden.long().where(is_row, 2)
        order = kind.argsort(dim=1, stable=True)
        layout = Layout.at(
            position.gather(1, order),
            group=at[:, None],
            copy=NOISY,
            rank=place.expand_as(position),
            is_row=is_row,  # padding stays behind
        )
        return Rows(requests.tokens.gather(1, inside.gather(1, order)), layout)

    def commit(self, requests: Requests, rows: Rows, scores: Tensor) -> None:
        """Store the known tokens at the left edge, and fill some of the hidden ones."""
        memory, position = requests.memory, rows.layout.position
        is_row = rows.layout.segment == 0
        gap = requests.first_gap()
        # Known rows come first: those up to the gap are the first of all.
        is_final = is_row & (rows.layout.rank < (gap - memory["at"])[:, None])
        final = Layout.at(position, is_row=is_row)
        requests.cache.store(is_final, final)
        memory["at"] = gap
        is_hidden = is_row & (rows.tokens == requests.mask)
        allowed = requests.allowed_at(position)
        if allowed is not None:
            scores = scores.masked_fill(~allowed, -torch.inf)
        purpose = memory["n_steps"] + 1
        tokens = self.drawing(scores, requests.seeds, position, purpose=purpose)
        distance = position - gap[:, None]
        sureness = negative_entropy(scores) - self.distance_weight * distance
        kept = threshold(sureness, is_hidden, -self.entropy_threshold)
        requests.fill(position, tokens, kept)
        memory["n_steps"] = memory["n_steps"] + 1


@dataclass(kw_only=True, eq=False, repr=False)
class ReorderedCausalDiffusion(Converted, SequenceGenerator):
    r"""Generate several tokens at a time under causal attention (WeDLM).

    .. math:: L = \frac1L \sum_{i \in S} \frac{1}{\gamma_{b(i)}} \cdot
        -\log p(x_i \mid x_{known}^{b(i)}, x^{<b(i)}) + \lambda_{AR} L_{AR}

    A hidden token also reads the hidden ones that rank before it.

    Parameters
    ----------
    block_size : int, default=8
        Tokens of a block in training.
    normalise_weights : bool, default=False
        Make the weights :math:`1 / \gamma` of the hidden tokens of a sequence sum to
        one.
    autoregressive_weight : float, default=1.0
        Weight :math:`\lambda_{AR}` of the loss of the next token, of the clean copy.
    window : int, default=6
        Places W of the window that is filled in generation.
    entropy_threshold : float, default=0.4
        Tokens are kept when their entropy and the penalty of their distance are below.
    distance_weight : float, default=0.02
        Penalty of each place behind the first gap.
    refill : {"before", "after"}, default="before"
        Whether a pass has W places behind the first gap, besides those that it stores;
        or W places in all.
    **others
        As in :class:`AutoregressiveSequence`.

    Notes
    -----
    :meth:`score_samples` is exact, the law of the clean copy; samples follow another
    law, as tokens are drawn in parallel. What is cached is exact. :meth:`infill` sees
    what is given behind a gap as far as the window reaches.

    A level :math:`\gamma` is at least 0.001, and at least one token of a block is
    hidden.

    Card: sequences §6. The method converts autoregressive models:
    :meth:`from_autoregressive`. Paper: arXiv:2512.22737.

    Examples
    --------
    >>> model = ReorderedCausalDiffusion(max_epochs=2, random_state=0, device="cpu")
    >>> model = model.fit(["ACGTAC", "ACGGTT"] * 20)
    >>> len(model.sample(3, random_state=0))
    3
    """

    method_card: ClassVar[MethodCard] = MethodCard(
        idea="Denoising under causal attention: known tokens are put first, at the "
        "positions they have. What is complete at the left of a sliding window is "
        "final and stored at once.",
        order="A window slides to the right; in it all tokens that are sure, near "
        "ones preferred.",
        mask="Noisy rows read those of no later rank (known ones first) of their "
        "block, and clean tokens before it; clean tokens read earlier ones.",
        corruption="An exact count of each block, one level for a block.",
        objective="Cross-entropy of hidden tokens, weighted by one over the level "
        "(aligned), plus the loss of the next token.",
        decoder="Keeps tokens whose entropy, with a penalty of the distance, is below "
        "a threshold.",
        cache="exact",
        score="exact",
        good_for="Streams: no block has to be complete before the next one begins.",
        not_for="Samples that must follow the scored law, or little training: in ours "
        "it needed no fewer passes than tokens.",
        picture={"block_size": 8, "window": 4, "entropy_threshold": 0.9},
    )

    block_size: int = 8
    normalise_weights: bool = False
    autoregressive_weight: float = 1.0
    window: int = 6
    entropy_threshold: float = 0.4
    distance_weight: float = 0.02
    refill: str = "before"

    _parameter_rules: ClassVar[dict[str, ParameterRule]] = {
        **SequenceGenerator._parameter_rules,
        "block_size": Integer(1),
        "normalise_weights": Boolean(),
        "autoregressive_weight": Real(0.0),
        "window": Integer(1),
        "entropy_threshold": Real(0.0),
        "distance_weight": Real(0.0),
        "refill": Option("before", "after"),
    }

    def _loss(self, seed: int) -> NoisyLoss:
        size, is_scaled = int(self.block_size), bool(self.normalise_weights)
        return TwoCopyLoss(
            seed,
            rule=two_copy(clean="causal", noisy="reordered"),
            corrupt=partial(known_before_hidden, normalise_weights=is_scaled),
            block_size=lambda progress: size,
            clean_weight=float(self.autoregressive_weight),
            end=self.alphabet_.end,
        )

    def _decoder(self, drawing: Drawing) -> Decoder:
        return StreamingDecoder(
            drawing,
            int(self.window),
            float(self.entropy_threshold),
            float(self.distance_weight),
            refills_before=self.refill == "before",
        )

    def _log_likelihood(
        self, tokens: Tensor, condition: Condition | None, seed: int
    ) -> tuple[Tensor, Tensor]:
        end = self.alphabet_.end
        return next_token_log_likelihood(self._network(), tokens, condition, end)
