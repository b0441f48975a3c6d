r"""Draft by diffusion, verify by autoregression, in one pass (TiDAR).

Axes: ``batch`` (B), ``position`` (L), ``draft`` (K), ``replica`` (K), ``row``,
``token`` (V).

A clean causal copy learns the next token; a copy of masks in blocks of K learns the
tokens behind what a block reads. A pass verifies K drafts and, for every number of them
that may be accepted, drafts the next ones. Card: sequences §7; the accounting of drafts
is ours, and exact.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from sciseq.generation.candidates import WeighedCandidates
from sciseq.generation.conversion import Converted
from sciseq.generation.method_card import MethodCard
from sciseq.generation.parts.batches import NoisyLoss
from sciseq.generation.parts.drawing import Drawing
from sciseq.generation.parts.layout import NOISY, Layout
from sciseq.generation.parts.masks import two_copy
from sciseq.generation.parts.network import Condition
from sciseq.generation.parts.next_token import next_token_log_likelihood
from sciseq.generation.parts.noise import uniform
from sciseq.generation.parts.requests import Decoder, Requests, Rows
from sciseq.generation.parts.two_copy_loss import Broken, TwoCopyLoss
from sciseq.parameters import Integer, Real
from sciseq.parameters import Rule as ParameterRule

__all__ = ["DraftVerifyDecoder", "DraftVerifySequence"]

# Different draws at one position in one pass.
_DRAFT, _TEST, _AGAIN = 1, 2, 3


def all_hidden(u: Tensor, u_block: Tensor, size: int) -> Broken:
    """Hide everything."""
    return Broken(torch.ones_like(u, dtype=torch.bool), torch.ones_like(u_block[:, :1]))


class DraftVerifyDecoder(Decoder):
    r"""Verify drafts and make the next ones, for every number of accepted drafts.

    The first draft comes from the autoregressive law. A later one, drawn from q, is
    accepted with probability :math:`\min(1, p / q)`; at the first rejection the token
    is drawn from :math:`(p - q)_+`. So what comes out has the law p.

    Parameters
    ----------
    drawing : Drawing
        How tokens are drawn.
    n_drafts : int
        Drafts K of a pass, which has K (K + 1) rows.
    trust : float, default=1.0
        Weight of the autoregressive scores in p; the rest is of those that drafted.
    """

    def __init__(self, drawing: Drawing, n_drafts: int, trust: float = 1.0) -> None:
        self.drawing, self.n_drafts, self.trust = drawing, n_drafts, trust
        self.rule = two_copy(clean="causal")

    def start(self, requests: Requests) -> None:
        """Draw the first token; nothing else is drafted yet."""
        memory, k = requests.memory, self.n_drafts
        n_tokens = memory["next"].shape[1]
        memory["at"] = torch.zeros_like(requests.seeds)
        memory["n_steps"] = torch.zeros_like(requests.seeds)
        memory["n_drafts"] = torch.ones_like(requests.seeds)
        memory["drafts"] = requests.seeds.new_zeros(len(requests), k)
        memory["scores"] = memory["next"].new_zeros(len(requests), k, n_tokens)
        position = memory["at"].unsqueeze(1)
        tokens = self.drawing(
            memory["next"].unsqueeze(1), requests.seeds, position,
            requests.allowed_at(position),
        )  # fmt: skip
        requests.fill(position, tokens, torch.ones_like(tokens, dtype=torch.bool))
        self._take(requests)

    def _take(self, requests: Requests) -> None:
        """Let given and accepted tokens stand among the drafts."""
        drafts = requests.memory["drafts"]
        position = requests.memory["at"][:, None] + self._places(requests)
        last = requests.n_positions - 1
        place = position.clamp_max(last)
        is_known = requests.is_filled.gather(1, place) & (position <= last)
        known = requests.tokens.gather(1, place)
        requests.memory["drafts"] = known.where(is_known, drafts)
        requests.memory["is_known"] = is_known

    def _places(self, requests: Requests) -> Tensor:
        return torch.arange(self.n_drafts, device=requests.seeds.device)

    def rows(self, requests: Requests) -> Rows:
        """Compute the drafts, and a replica of masks behind each of them."""
        memory, k, length = requests.memory, self.n_drafts, requests.n_positions
        place = self._places(requests)
        at, n_batch = memory["at"][:, None], len(requests)
        position = at + place
        is_draft = (place < memory["n_drafts"][:, None]) & (position < length)
        behind = (place[:, None] + 1 + place).flatten()  # replica r at p + r ...
        masks = at + behind
        group = at + (place + 1).repeat_interleave(k)
        is_mask = is_draft.repeat_interleave(k, dim=1) & (masks < length)
        layout = Layout.at(position, is_row=is_draft).followed_by(
            Layout.at(masks, group=group, copy=NOISY, is_row=is_mask)
        )
        hidden = torch.full((n_batch, k * k), requests.mask, device=at.device)
        return Rows(torch.cat([memory["drafts"], hidden], dim=1), layout)

    def commit(self, requests: Requests, rows: Rows, scores: Tensor) -> None:
        """Accept drafts, draw the token behind them, and take the drafts behind it."""
        memory, k = requests.memory, self.n_drafts
        next_scores, n_accepted = self._accepted(requests, scores[:, :k])
        every = torch.arange(len(requests), device=scores.device)
        position = memory["at"][:, None] + self._places(requests)
        is_accepted = self._places(requests) < n_accepted[:, None]
        if requests.end is not None:  # nothing follows an end
            is_end = memory["drafts"] == requests.end
            is_accepted &= (is_end.cumsum(dim=1) - is_end.long()) == 0
            is_closed = (is_end & is_accepted).any(dim=1)
        else:
            is_closed = torch.zeros_like(n_accepted, dtype=torch.bool)
        requests.cache.store(
            torch.cat([is_accepted, is_accepted.new_zeros(len(every), k * k)], dim=1)
        )
        requests.fill(position, memory["drafts"], is_accepted)
        behind = (memory["at"] + n_accepted).unsqueeze(1)
        requests.fill(behind, self._next(requests, next_scores, n_accepted),
                      ~is_closed[:, None])  # fmt: skip
        replicas = scores[:, k:].view(len(every), k, k, -1)
        self._draft(requests, replicas[every, n_accepted - 1], behind)
        self._take(requests)

    def _accepted(self, requests: Requests, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Return the scores p behind each draft, and how many drafts are accepted."""
        memory, place = requests.memory, self._places(requests)
        drafted = memory["scores"].roll(-1, dims=1)  # of the next draft
        has_next = place[:-1] + 1 < memory["n_drafts"][:, None]
        if self.trust < 1:
            mixed = self.trust * scores + (1 - self.trust) * drafted
            is_drafted = torch.cat([has_next, has_next.new_zeros(len(scores), 1)], 1)
            scores = mixed.where(is_drafted.unsqueeze(2), scores)
        position = memory["at"][:, None] + place + 1
        allowed = requests.allowed_at(position)
        target = self.drawing.law(scores, allowed)[:, :-1]
        source = self.drawing.law(drafted, allowed)[:, :-1]
        drafts = memory["drafts"][:, 1:, None]
        ratio = (target.gather(2, drafts) - source.gather(2, drafts)).squeeze(2)
        u = uniform(requests.seeds, self._purpose(requests, _TEST)[:, None],
                    position[:, :-1])  # fmt: skip
        passes = memory["is_known"][:, 1:] | (u.log() < ratio)
        is_accepted = passes & has_next & (position[:, :-1] < requests.n_positions)
        return scores, 1 + is_accepted.long().cumprod(dim=1).sum(dim=1)

    def _next(self, requests: Requests, scores: Tensor, n_accepted: Tensor) -> Tensor:
        """Draw the token behind the accepted drafts (batch, 1)."""
        memory = requests.memory
        every = torch.arange(len(requests), device=scores.device)
        position = (memory["at"] + n_accepted).unsqueeze(1)
        allowed = requests.allowed_at(position)
        law = self.drawing.law(scores[every, n_accepted - 1].unsqueeze(1), allowed)
        # A draft that was tested and refused leaves what p has above q.
        was_refused = n_accepted < memory["n_drafts"]
        drafted = memory["scores"][every, n_accepted.clamp_max(self.n_drafts - 1)]
        source = self.drawing.law(drafted.unsqueeze(1), allowed)
        left = (law.exp() - source.exp()).clamp_min(0)
        rest = left.sum(dim=2, keepdim=True)
        left = torch.where(rest > 0, left.log(), law)
        law = left.where(was_refused[:, None, None], law)
        return Drawing()(law, requests.seeds, position,
                         purpose=self._purpose(requests, _AGAIN))  # fmt: skip

    def _draft(self, requests: Requests, scores: Tensor, behind: Tensor) -> None:
        """Draft the tokens behind the newest one, from the replica that fits."""
        memory = requests.memory
        position = behind + self._places(requests)
        tokens = self.drawing(
            scores, requests.seeds, position, requests.allowed_at(position),
            purpose=self._purpose(requests, _DRAFT),
        )  # fmt: skip
        memory["drafts"], memory["scores"] = tokens, scores
        memory["at"] = behind.squeeze(1)
        left = requests.n_positions - memory["at"]
        memory["n_drafts"] = left.clamp(1, self.n_drafts)
        memory["n_steps"] = memory["n_steps"] + 1

    def _purpose(self, requests: Requests, kind: int) -> Tensor:
        return 4 * requests.memory["n_steps"] + kind


@dataclass(kw_only=True, eq=False, repr=False)
class DraftVerifySequence(Converted, WeighedCandidates):
    r"""Generate with the autoregressive law, several tokens in a pass (TiDAR).

    .. math::

        L = \frac{1}{1 + \alpha} \left[ \alpha L_{AR} + L_{diff} \right]

    Parameters
    ----------
    n_drafts : int, default=4
        Drafts K that a pass verifies; it has K (K + 1) rows.
    trust : float, default=1.0
        Weight of the autoregressive scores in what decides; below 1 the law is no
        longer exactly the autoregressive one.
    autoregressive_weight : float, default=1.0
        Weight :math:`\alpha` of the loss of the next token.
    n_candidates : int, default=16
        Sequences drawn for each one that :meth:`infill` returns.
    **others
        As in :class:`AutoregressiveSequence`.

    Notes
    -----
    :meth:`score_samples` is exact. With ``trust=1`` samples have exactly that law,
    whatever the drafts; better drafts only save passes.

    :meth:`infill` weighs candidates as :class:`AutoregressiveSequence` does, since with
    ``trust=1`` candidates have the law that it needs. Below 1 the weights are still
    those of the autoregressive law, and what comes out is an approximation for any
    number of candidates. This is ours: the paper has no gaps.

    Card: sequences §7.

    Examples
    --------
    >>> model = DraftVerifySequence(max_epochs=2, random_state=0, device="cpu")
    >>> model = model.fit(["ACGTAC", "ACGGTT"] * 20)
    >>> len(model.sample(3, random_state=0))
    3
    """

    method_card: ClassVar[MethodCard] = MethodCard(
        idea="One pass verifies drafts by autoregression and drafts the next ones by "
        "diffusion, for every number of drafts that may hold. What comes out has "
        "exactly the autoregressive law.",
        order="From left to right, in a pass all drafts that hold and one more.",
        mask="Clean tokens read earlier ones; masks read their own block and the "
        "clean tokens before it.",
        corruption="All tokens of the second copy.",
        objective="Loss of the next token, and of hidden tokens in blocks as long as "
        "the drafts.",
        decoder="Accepts a draft with probability min(1, p / q); the first that fails "
        "is drawn anew.",
        cache="exact",
        score="exact",
        good_for="Fewer passes at an unchanged law, where passes cost more than rows "
        "(accelerators, small batches): 1.8 tokens for a pass in our benchmark.",
        not_for="A CPU: a pass of K drafts has K (K + 1) rows, and took six times the "
        "processor time there.",
        picture={"n_drafts": 3, "max_epochs": 150},
    )

    n_drafts: int = 4
    trust: float = 1.0
    autoregressive_weight: float = 1.0

    _parameter_rules: ClassVar[dict[str, ParameterRule]] = {
        **WeighedCandidates._parameter_rules,
        "n_drafts": Integer(1),
        "trust": Real(0.0, 1.0),
        "autoregressive_weight": Real(0.0),
    }

    def _loss(self, seed: int) -> NoisyLoss:
        size, alpha = int(self.n_drafts), float(self.autoregressive_weight)
        return TwoCopyLoss(
            seed,
            rule=two_copy(clean="causal"),
            corrupt=all_hidden,
            block_size=lambda progress: size,
            noisy_weight=1 / (1 + alpha),
            clean_weight=alpha / (1 + alpha),
            end=self.alphabet_.end,
        )

    def _decoder(self, drawing: Drawing) -> Decoder:
        return DraftVerifyDecoder(drawing, int(self.n_drafts), float(self.trust))

    def _log_likelihood(
        self, tokens: Tensor, condition: Condition | None, seed: int
    ) -> tuple[Tensor, Tensor]:
        end = self.alphabet_.end
        return next_token_log_likelihood(self._network(), tokens, condition, end)
