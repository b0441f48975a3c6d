r"""The loss of sequences that stand there twice: a noisy copy to predict, a clean one.

Axes: ``batch`` (B), ``position`` (L), ``token`` (V).

.. math:: L = \frac1L \sum_{i \in S} w_i \cdot -\log p(x_i \mid x_t^{b(i)}, x^{<b(i)})
    + \lambda \frac1L \sum_{i \le e} -\log p(x_i \mid x_{<i})

with the first end e of the sequence, behind which no token is told from left to right.
The noisy row of a masked token predicts it, aligned (SDAR, TiDAR, WeDLM), or the row
before it does (shifted, NBDiff). The second term is that of the clean copy, where that
is causal.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sciseq.generation.parts.batches import NoisyLoss, SequenceBatch
from sciseq.generation.parts.layout import Layout, two_copies
from sciseq.generation.parts.masks import Rule
from sciseq.generation.parts.network import SequenceNetwork
from sciseq.generation.parts.requests import is_counted

__all__ = ["Broken", "Corruption", "TwoCopyLoss", "token_losses"]


class Broken(NamedTuple):
    """What is done to sequences.

    Parameters
    ----------
    mask : Tensor of bool, shape (batch, position)
        Tokens that are hidden, and predicted.
    weight : Tensor, shape (batch, position) or (batch, 1)
        Of their losses.
    rank : Tensor of int64, shape (batch, position), optional
        Physical order within a block; that of the positions by default.
    """

    mask: Tensor
    weight: Tensor
    rank: Tensor | None = None


Corruption = Callable[[Tensor, Tensor, int], Broken]
"""From uniform numbers of each token (batch, position), others of each block (batch,
block), and the block size."""


def token_losses(scores: Tensor, tokens: Tensor) -> Tensor:
    """Return the cross-entropy of each token (batch, position).

    Parameters
    ----------
    scores : Tensor, shape (batch, position, token)
        Scores.
    tokens : Tensor of int64, shape (batch, position)
        Truth.
    """
    losses = F.cross_entropy(scores.flatten(0, 1), tokens.flatten(), reduction="none")
    return losses.view(tokens.shape)


class TwoCopyLoss(NoisyLoss):
    """Weighted cross-entropy of the noisy copy, and of the clean one where causal.

    Parameters
    ----------
    seed : int
        Seed of the noise.
    rule : callable
        Who reads whom, from :func:`~sciseq.generation.parts.masks.two_copy`.
    corrupt : callable
        What is hidden, see ``Corruption``.
    block_size : callable
        From the share of the training that is done to the tokens of a block. Validation
        always has those of the end, so that its losses compare.
    noisy_weight, clean_weight : float, default=1.0, 0.0
        Of the two terms.
    end : int, optional
        Token behind which everything is an end.
    is_shifted : bool, default=False
        Whether the row before a masked token predicts it. First tokens of blocks then
        have no noisy term.
    """

    def __init__(
        self,
        seed: int,
        *,
        rule: Rule,
        corrupt: Corruption,
        block_size: Callable[[float], int],
        noisy_weight: float = 1.0,
        clean_weight: float = 0.0,
        end: int | None = None,
        is_shifted: bool = False,
    ) -> None:
        super().__init__(seed)
        self.rule, self.corrupt, self.block_size = rule, corrupt, block_size
        self.noisy_weight, self.clean_weight = noisy_weight, clean_weight
        self.end, self.is_shifted = end, is_shifted

    def __call__(
        self, network: nn.Module, batch: SequenceBatch
    ) -> tuple[Tensor, Tensor]:
        """Return the sum of losses, and the number of tokens."""
        assert isinstance(network, SequenceNetwork)
        tokens = batch.tokens
        size = self.block_size(self.progress if network.training else 1.0)
        length = tokens.shape[1]
        n_blocks = -(-length // size)
        u = self.noise(network, batch, 0, length)
        broken = self.corrupt(u, self.noise(network, batch, 1, n_blocks), size)
        noisy, clean = two_copy_scores(network, batch, broken, size, self.rule)
        losses = self._noisy(noisy, tokens, broken, size)
        total = self.noisy_weight * losses.sum()
        if self.clean_weight:
            counted = is_counted(tokens, self.end)
            losses = token_losses(clean, tokens).where(counted, 0.0)
            total = total + self.clean_weight * losses.sum()
        return total, torch.tensor(tokens.numel())

    def _noisy(
        self, scores: Tensor, tokens: Tensor, broken: Broken, size: int
    ) -> Tensor:
        mask = broken.mask
        if self.is_shifted:
            scores = scores.roll(1, dims=1)
            place = torch.arange(tokens.shape[1], device=tokens.device)
            mask = mask & (place % size != 0)
        losses = token_losses(scores, tokens)
        return (losses * broken.weight.to(losses.dtype)).where(mask, 0.0)


def two_copy_scores(
    network: SequenceNetwork,
    batch: SequenceBatch,
    broken: Broken,
    size: int,
    rule: Rule,
) -> tuple[Tensor, Tensor]:
    """Return the scores of the noisy copy, and those of the next token of the clean.

    Parameters
    ----------
    network : SequenceNetwork
        Network.
    batch : SequenceBatch
        Sequences.
    broken : Broken
        What is hidden of them.
    size : int
        Tokens of a block.
    rule : callable
        Who reads whom.

    Returns
    -------
    noisy : Tensor, shape (batch, position, token)
        Scores at the noisy rows.
    clean : Tensor, shape (batch, position, token)
        Scores of each token at the clean row before it.
    """
    tokens, length = batch.tokens, batch.tokens.shape[1]
    clean = Layout.of(length, block=size, device=tokens.device)
    layout = two_copies(clean).expand(len(tokens))
    if broken.rank is not None:
        rank = torch.cat([broken.rank, layout.rank[:, length:]], dim=1)
        layout = replace(layout, rank=rank)
    shown = torch.cat([tokens.masked_fill(broken.mask, network.mask), tokens], dim=1)
    states = network.read(shown, layout, rule, batch.condition)
    before = torch.cat([states[:, :1], states[:, length + 1 : -1]], dim=1)
    return network.scores(states[:, 1 : length + 1]), network.scores(before)
