"""Dropout of a batch that is computed in parts: the masks of the whole batch.

A part restores the state that the generator had before the batch. Its dropouts then
pass over the draws of the rows before it, and afterwards over those of the rows behind
it, so that the generator ends where the whole batch would leave it.
"""

import contextlib
import functools
import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from sciseq.nn.dropout import Dropout

__all__ = ["DropoutRows"]

# How ``Dropout`` draws on a CPU: one 64-bit word for four entries.
_ENTRIES_PER_WORD = 4
_WORDS_AT_ONCE = 2**13


class DropoutRows:
    """Some rows of a batch, for the dropouts of a network on a CPU.

    Parameters
    ----------
    network : nn.Module
        Network whose :class:`~sciseq.nn.dropout.Dropout` modules see tensors whose
        first axis is the batch, or the batch times something (rows stay together).

    Examples
    --------
    >>> import torch
    >>> from sciseq.nn import Dropout
    >>> dropout, x = Dropout(0.5), torch.ones(6, 5)
    >>> dropout.generator = torch.Generator().manual_seed(0)
    >>> start = dropout.generator.get_state()
    >>> whole = dropout(x)
    >>> rows = DropoutRows(dropout)
    >>> _ = dropout.generator.set_state(start)
    >>> with rows.known(), rows.part(4, 2, n_rows=6):
    ...     torch.equal(dropout(x[4:]), whole[4:])
    True
    """

    def __init__(self, network: nn.Module) -> None:
        self._dropouts = [
            one for one in network.modules() if isinstance(one, Dropout) and one.p > 0
        ]
        self._first = self._n_here = self._n_rows = 0

    @contextlib.contextmanager
    def known(self) -> Iterator[None]:
        """Let the dropouts ask, inside, which rows they see."""
        for dropout in self._dropouts:
            dropout.forward = functools.partial(self._forward, dropout)  # type: ignore[method-assign]
        try:
            yield
        finally:
            for dropout in self._dropouts:
                del dropout.forward

    @contextlib.contextmanager
    def part(self, first: int, n_here: int, *, n_rows: int) -> Iterator[None]:
        """Say that the network sees the rows ``first`` to ``first + n_here`` only.

        Parameters
        ----------
        first, n_here : int
            First row, and number of rows.
        n_rows : int
            Rows of the whole batch.
        """
        self._first, self._n_here, self._n_rows = first, n_here, n_rows
        try:
            yield
        finally:
            self._n_rows = 0

    def _forward(self, dropout: Dropout, x: Tensor) -> Tensor:
        n_rows, n_here = self._n_rows, self._n_here
        # What does not grow with the batch is drawn whole in every part: the same.
        if not dropout.training or n_rows == 0 or len(x) % n_here or x.numel() == 0:
            return Dropout.forward(dropout, x)
        per_row = x.numel() // n_here
        before, lead = divmod(self._first * per_row, _ENTRIES_PER_WORD)
        _pass_over(before, dropout.generator)
        # The first word may begin with entries of the row before.
        entries = x.new_ones(()).expand(lead + x.numel())
        factors = Dropout.forward(dropout, entries)[lead:]
        drawn = _n_words(lead + x.numel())
        _pass_over(_n_words(n_rows * per_row) - before - drawn, dropout.generator)
        return x * factors.view(x.shape)


def _n_words(n_entries: int) -> int:
    return math.ceil(n_entries / _ENTRIES_PER_WORD)


def _pass_over(n_words: int, generator: torch.Generator | None) -> None:
    for start in range(0, n_words, _WORDS_AT_ONCE):
        words = torch.empty(min(n_words - start, _WORDS_AT_ONCE), dtype=torch.int64)
        words.random_(-(2**63), None, generator=generator)
