"""Prefix beam search for connectionist temporal classification.

Axes: ``batch``, ``position`` (T), ``symbol`` (V, the blank among them), ``beam``
(prefixes of one item, best first).
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from sciseq.decoding.finished_sequences import gather_beams
from sciseq.errors import InputError

__all__ = ["CTCSequences", "prefix_beam_search"]

# Odd, without structure; prefixes are told apart by polynomials in it, modulo 2**64.
_MULTIPLIER = 0x5851F42D4C957F2D


class CTCSequences(NamedTuple):
    """The best sequences of each item, best first.

    Parameters
    ----------
    tokens : Tensor of int64, shape (batch, n_best, position)
        Sequences, filled with blanks at the end.
    lengths : Tensor of int64, shape (batch, n_best)
        Number of tokens.
    totals : Tensor, shape (batch, n_best)
        Log-probability of all paths to the sequence that stayed in the beam; minus
        infinity where there is no such sequence.
    """

    tokens: Tensor
    lengths: Tensor
    totals: Tensor


def prefix_beam_search(
    log_probs: Tensor, *, blank: int, beam_size: int, n_best: int = 1
) -> CTCSequences:
    r"""Find sequences of a high probability, summed over their paths.

    .. math::

        b_t(y) &= p_t(\_) (b_{t-1}(y) + c_{t-1}(y)) \\
        c_t(y s) &= p_t(s) (c_{t-1}(y s) + b_{t-1}(y) + [s \ne y_{-1}]\, c_{t-1}(y))

    for paths that end in a blank (b) and in a token (c). After each position the
    ``beam_size`` prefixes with the largest b + c stay.

    Parameters
    ----------
    log_probs : Tensor, shape (batch, position, symbol)
        Log-probabilities.
    blank : int
        Symbol that stands for nothing.
    beam_size : int
        Prefixes that are kept per item, at least 1.
    n_best : int, default 1
        Sequences returned per item, at most ``beam_size``.

    Returns
    -------
    CTCSequences
        Tokens, lengths and totals.

    Raises
    ------
    InputError
        When a number is out of range or the shape is another.

    Notes
    -----
    Graves et al., ICML 2006, as a beam search on prefixes.
    The search is exact when ``beam_size`` reaches the number of prefixes.

    Examples
    --------
    The best path is "nothing", the best sequence is not:

    >>> import torch
    >>> log_probs = torch.tensor([[[0.6, 0.4], [0.6, 0.4]]]).log()
    >>> found = prefix_beam_search(log_probs, blank=0, beam_size=4, n_best=2)
    >>> found.tokens.tolist(), [round(one, 2) for one in found.totals[0].exp().tolist()]
    ([[[1, 0], [0, 0]]], [0.64, 0.36])
    """
    if log_probs.ndim != 3 or not 0 <= blank < log_probs.shape[2]:
        raise InputError(
            f"log_probs has shape {tuple(log_probs.shape)} and blank is {blank}; "
            "(batch, position, symbol) with the blank among the symbols is needed",
            where="log_probs",
        )
    if not 1 <= n_best <= beam_size:
        raise InputError(
            f"beam_size is {beam_size} and n_best {n_best}; 1 <= n_best <= beam_size "
            "is needed",
            where="prefix_beam_search",
        )
    beams = _Prefixes.start(log_probs, blank, beam_size)
    for position in range(log_probs.shape[1]):
        beams = beams.step(log_probs[:, position], position)
    totals, order = torch.logaddexp(beams.b, beams.c).topk(n_best)
    tokens = gather_beams(beams.tokens, order)
    return CTCSequences(tokens, beams.lengths.gather(1, order), totals)


@dataclass(frozen=True)
class _Prefixes:
    """Prefixes of every item; all but ``tokens`` have shape (batch, beam)."""

    tokens: Tensor  # (batch, beam, position), blanks behind the end
    lengths: Tensor
    last: Tensor  # last token, the blank for the empty prefix
    key: Tensor  # hash of the prefix
    parent_key: Tensor  # hash of the prefix without its last token
    b: Tensor  # log-probability of paths that end in a blank
    c: Tensor  # log-probability of paths that end in a token
    blank: int

    @classmethod
    def start(cls, log_probs: Tensor, blank: int, n_beams: int) -> "_Prefixes":
        n_batch, n_positions, _ = log_probs.shape
        shape = (n_batch, n_beams)
        zeros = torch.zeros(shape, dtype=torch.int64, device=log_probs.device)
        tokens = zeros.new_full((*shape, n_positions), blank)
        c = log_probs.new_full(shape, -torch.inf)
        b = c.clone()
        b[:, 0] = 0.0  # one prefix is there, the empty one
        return cls(tokens, zeros, zeros + blank, zeros, zeros - 1, b, c, blank)

    def step(self, log_probs: Tensor, position: int) -> "_Prefixes":
        """Read the log-probabilities (batch, symbol) of one position."""
        n_beams, n_symbols = self.b.shape[1], log_probs.shape[1]
        total = torch.logaddexp(self.b, self.c)
        b = total + log_probs[:, self.blank].unsqueeze(1)
        of_last = log_probs.gather(1, self.last)
        c = (self.c + of_last).where(self.last != self.blank, -torch.inf)
        # (batch, beam, symbol): a token again needs a blank before it
        longer = total.unsqueeze(2) + log_probs.unsqueeze(1)
        again = (self.b + of_last).unsqueeze(2)
        longer = longer.scatter(2, self.last.unsqueeze(2), again)
        longer[:, :, self.blank] = -torch.inf
        c, longer = self._merge(c, longer.flatten(1), total > -torch.inf)
        candidates = torch.cat([torch.logaddexp(b, c), longer], dim=1)
        best, chosen = candidates.topk(n_beams)
        stays = chosen < n_beams
        place = (chosen - n_beams).clamp(min=0)  # among beam * symbol
        parent = chosen.where(stays, place // n_symbols)
        token = place % n_symbols
        return self._follow(
            parent,
            token,
            stays,
            b.gather(1, parent).where(stays, -torch.inf),
            c.gather(1, parent).where(stays, best),
        )

    def _merge(
        self, c: Tensor, longer: Tensor, is_there: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Add extensions that are prefixes of the beam already to these."""
        n_symbols = longer.shape[1] // c.shape[1]
        # (batch, beam, beam): the second is the first without its last token
        is_parent = self.parent_key.unsqueeze(2) == self.key.unsqueeze(1)
        is_parent &= self.lengths.unsqueeze(2) == self.lengths.unsqueeze(1) + 1
        # Free places of the beam hold anything, copies of its prefixes too.
        is_parent &= is_there.unsqueeze(2) & is_there.unsqueeze(1)
        has_parent = is_parent.any(dim=2)
        place = is_parent.to(torch.uint8).argmax(dim=2) * n_symbols + self.last
        c = torch.logaddexp(c, longer.gather(1, place).where(has_parent, -torch.inf))
        taken = torch.zeros_like(longer).scatter_add(1, place, has_parent.to(longer))
        return c, longer.where(taken == 0, -torch.inf)

    def _follow(
        self, parent: Tensor, token: Tensor, stays: Tensor, b: Tensor, c: Tensor
    ) -> "_Prefixes":
        """Take over prefixes of the beam, longer by a token where they do not stay."""
        lengths, key = self.lengths.gather(1, parent), self.key.gather(1, parent)
        tokens = gather_beams(self.tokens, parent)
        end = lengths.clamp(max=tokens.shape[2] - 1).unsqueeze(2)
        old = tokens.gather(2, end)
        new = old.where(stays.unsqueeze(2), token.unsqueeze(2))
        return _Prefixes(
            tokens.scatter(2, end, new),
            lengths + (~stays).to(lengths),
            self.last.gather(1, parent).where(stays, token),
            key.where(stays, key * _MULTIPLIER + token + 1),
            self.parent_key.gather(1, parent).where(stays, key),
            b,
            c,
            self.blank,
        )
