"""Who may read whom: predicates over layouts, the one source of every mask.

The same predicate makes the mask of training, of cached decoding (queries are the new
rows, keys the stored rows and the new ones) and of the tests for leaks.

Axes: ``batch``, ``query``, ``key``. A predicate is given fields of shape
(batch, query, 1) and (batch, 1, key).
"""

from collections.abc import Callable

import torch
from torch import Tensor

from sciseq.generation.parts.layout import CLEAN, NOISY, Layout

__all__ = [
    "Rule",
    "attention_mask",
    "block_causal",
    "causal",
    "full",
    "local",
    "prefix_bidirectional",
    "prefix_causal",
    "two_copy",
]

Rule = Callable[[Layout, Layout], Tensor]
"""Tells from the layouts of query and key whether the query may read the key."""


def attention_mask(rule: Rule, queries: Layout, keys: Layout | None = None) -> Tensor:
    """Return who reads whom, bool of shape (batch, 1, query, key).

    Rows of different segments never read each other, whatever the rule.

    Parameters
    ----------
    rule : callable
        One of the predicates of this module.
    queries : Layout
        Rows that read.
    keys : Layout, optional
        Rows that are read; the same ones by default.

    Examples
    --------
    >>> attention_mask(causal, Layout.of(3)).int()[0, 0].tolist()
    [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
    """
    q = queries.map(lambda one: one.unsqueeze(2))
    k = (queries if keys is None else keys).map(lambda one: one.unsqueeze(1))
    allowed = (q.segment == k.segment) & rule(q, k)
    return allowed.unsqueeze(1)


def full(q: Layout, k: Layout) -> Tensor:
    """Everybody reads everybody."""
    return torch.ones_like(q.position == k.position)


def causal(q: Layout, k: Layout) -> Tensor:
    """Nobody reads later positions."""
    return k.position <= q.position


def block_causal(q: Layout, k: Layout) -> Tensor:
    """Nobody reads later groups."""
    return k.group <= q.group


def local(width: int) -> Rule:
    """Return the rule by which positions at most ``width`` apart read each other."""

    def rule(q: Layout, k: Layout) -> Tensor:
        return (q.position - k.position).abs() <= width

    return rule


def prefix_causal(q: Layout, k: Layout) -> Tensor:
    """All read the prefix, which is what is not maskable; the rest is causal."""
    return ~k.maskable | (k.position <= q.position)


def prefix_bidirectional(q: Layout, k: Layout) -> Tensor:
    """All read the prefix, and what is maskable reads everything.

    The prefix, computed once, stays what it is: this is LaViDa's Prefix-DLM.
    """
    return ~k.maskable | q.maskable


def two_copy(*, clean: str = "block", noisy: str = "bidirectional") -> Rule:
    r"""Return the rule of sequences that stand there twice, noisy and clean.

    A noisy row reads its own noisy block, and clean rows of earlier blocks:

    .. math:: BD \cup OBC \cup BC \quad \text{or} \quad BD \cup OBC \cup CC
        \quad \text{or} \quad RC \cup OBC \cup CC

    Parameters
    ----------
    clean : {"block", "causal"}, default="block"
        How clean rows read clean ones: by blocks (SDAR), or by tokens (NBDiff, TiDAR).
    noisy : {"bidirectional", "reordered"}, default="bidirectional"
        How rows of one noisy block read each other: all of them, or those of no later
        rank (WeDLM).

    Notes
    -----
    Card: sequences §0.2. Clean rows never read noisy ones.
    """
    clean_rule = {"block": block_causal, "causal": causal}[clean]
    is_reordered = {"bidirectional": False, "reordered": True}[noisy]

    def rule(q: Layout, k: Layout) -> Tensor:
        is_noisy, reads_clean = q.copy == NOISY, k.copy == CLEAN
        within = is_noisy & (k.copy == NOISY) & (k.group == q.group)
        if is_reordered:
            within = within & (k.rank <= q.rank)
        before = is_noisy & reads_clean & (k.position < q.group)
        return within | before | (~is_noisy & reads_clean & clean_rule(q, k))

    return rule
