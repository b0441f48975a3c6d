r"""Gaps filled by weighing candidates: how methods that write forwards read backwards.

Axes: ``batch`` (B), ``position`` (L), ``token`` (V).
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from sciseq.generation.base import SequenceGenerator, request_seeds
from sciseq.generation.calls import TOGETHER
from sciseq.generation.parts.drawing import Drawing
from sciseq.generation.parts.network import Condition
from sciseq.generation.parts.next_token import next_token_scores
from sciseq.generation.parts.noise import gumbel
from sciseq.generation.parts.requests import is_counted
from sciseq.parameters import Integer
from sciseq.parameters import Rule as ParameterRule

__all__ = ["WeighedCandidates"]

# Draws at position -1 choose among candidates.
_CHOICE = -1


@dataclass(kw_only=True, eq=False, repr=False)
class WeighedCandidates(SequenceGenerator):
    r"""A generator with an autoregressive law, whose gaps read what is right of them.

    Candidates are drawn from left to right with the given tokens G forced, and one is
    taken by its weight (importance resampling):

    .. math:: w(x) = \prod_{i \in G} p(x_i \mid x_{<i})
        \prod_{i \notin G} Z_i(x_{<i})

    with :math:`Z_i` the probability of all legal tokens. For many candidates this is
    the exact law of the gaps.

    Parameters
    ----------
    n_candidates : int, default=16
        Sequences drawn for each one that :meth:`infill` returns.

    Notes
    -----
    One candidate is enough, and the law exact, where all gaps are at the end. At
    temperature 0 all candidates would be the same, so that nothing right of a gap is
    read.
    """

    n_candidates: int = 16

    _parameter_rules: ClassVar[dict[str, ParameterRule]] = {
        **SequenceGenerator._parameter_rules,
        "n_candidates": Integer(1),
    }

    def _infill_some(
        self,
        rows: Tensor,
        condition: Condition | None,
        legal: Tensor | None,
        drawing: Drawing,
        seed: int,
        numbers: Tensor,
    ) -> Tensor:
        """Draw candidates from left to right, and take one of each row by weight."""
        n = torch.where(
            _needs_candidates(rows, legal, self.alphabet_.end), self.n_candidates, 1
        )
        if drawing.temperature == 0:  # all would be the same
            n = torch.ones_like(n)
        first = n.cumsum(0) - n
        owner = torch.arange(len(rows)).repeat_interleave(n)
        place = torch.arange(len(owner)) - first[owner]
        seeds = request_seeds(seed, numbers[owner] * self.n_candidates + place)
        made = []
        for start in range(0, len(owner), TOGETHER):
            some = slice(start, start + TOGETHER)
            told = condition and condition.take(owner[some])
            made.append(
                self._candidates(rows[owner[some]], told, legal, drawing, seeds[some])
            )
        tokens, weights = (torch.cat(one).cpu() for one in zip(*made, strict=True))
        table = torch.full((len(rows), int(n.max())), -torch.inf, dtype=weights.dtype)
        table[owner, place] = weights + gumbel(seeds, _CHOICE)
        return tokens[first + table.argmax(dim=1)]

    def _candidates(
        self,
        rows: Tensor,
        condition: Condition | None,
        legal: Tensor | None,
        drawing: Drawing,
        seeds: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Return filled rows, and the logarithms of their weights (batch,).

        What was drawn had probability p / Z among legal tokens of mass Z, what is given
        1; the weight is the product of all p over that of these.
        """
        tokens, _ = self._generate_some(rows, condition, legal, drawing, seeds)
        told = condition and Condition(*(one.to(tokens.device) for one in condition))
        device = tokens.device
        with torch.no_grad(), self._autocast(device):
            scores = next_token_scores(self._network(), tokens, told)
        law = drawing.law(scores)
        mass = law if legal is None else law.masked_fill(~legal.to(device), -torch.inf)
        given = law.gather(2, tokens.unsqueeze(2)).squeeze(2)
        logs = given.where((rows >= 0).to(device), mass.logsumexp(dim=2))
        counted = is_counted(tokens, self.alphabet_.end)
        return tokens, logs.where(counted, 0.0).sum(dim=1)


def _needs_candidates(rows: Tensor, legal: Tensor | None, end: int | None) -> Tensor:
    """Tell where candidates differ in weight (batch,): something is behind a gap."""
    is_gap = rows < 0
    behind = (is_gap.cumsum(dim=1) - is_gap.long()) > 0
    is_read = behind & ~is_gap & is_counted(rows, end)
    if legal is not None:  # the mass of what is legal there depends on the first gap
        is_read |= behind & is_gap
    return is_read.any(dim=1)
