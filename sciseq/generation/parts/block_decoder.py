"""Generation block by block: a block is denoised, then read clean and stored.

Axes: ``batch`` (B), ``row`` (of a pass), ``position`` (L), ``token`` (V).
"""

import torch
from torch import Tensor

from sciseq.generation.parts.drawing import Drawing
from sciseq.generation.parts.layout import CLEAN, NOISY, NOTHING, Layout
from sciseq.generation.parts.masks import Rule
from sciseq.generation.parts.requests import Decoder, Requests, Rows
from sciseq.generation.parts.reveal import Reveal

__all__ = ["BlockDecoder"]


class BlockDecoder(Decoder):
    """Denoise a block, reading what is stored; then compute it clean, and store it.

    Requests are at blocks and phases of their own: some may be denoised while others
    are read clean, in one pass.

    Parameters
    ----------
    drawing : Drawing
        How tokens are drawn.
    reveal : Reveal
        Which of them are kept in each pass.
    rule : callable
        Who reads whom, from :func:`~sciseq.generation.parts.masks.two_copy`.
    block_size : int
        Tokens of a block.
    is_shifted : bool, default=False
        Whether a row says what the next one is. The first token of a block then comes
        from the clean row before it.
    """

    def __init__(
        self,
        drawing: Drawing,
        reveal: Reveal,
        rule: Rule,
        block_size: int,
        *,
        is_shifted: bool = False,
    ) -> None:
        self.drawing, self.reveal, self.rule = drawing, reveal, rule
        self.block_size, self.is_shifted = block_size, is_shifted

    def start(self, requests: Requests) -> None:
        """Begin at position 0."""
        requests.memory["start"] = torch.zeros_like(requests.seeds)
        requests.memory["n_steps"] = torch.zeros_like(requests.seeds)
        if self.is_shifted:
            every = torch.ones_like(requests.seeds, dtype=torch.bool)
            self._draw_first(requests, every)

    def rows(self, requests: Requests) -> Rows:
        """Compute the block at hand, or all complete ones that are not stored."""
        size, start = self.block_size, requests.memory["start"]
        length = requests.n_positions
        gap = requests.first_gap()
        # Complete blocks from here on; a request without any is being denoised.
        n_full = gap.div(size, rounding_mode="floor") - start // size
        is_clean = n_full > 0
        width = size * int(n_full.clamp_min(1).max())
        position = start[:, None] + torch.arange(width, device=start.device)
        n_rows = size * n_full.where(is_clean, 1)
        is_row = (position < (start + n_rows)[:, None]) & (position < length)
        layout = Layout.at(
            position,
            group=position.div(size, rounding_mode="floor") * size,
            copy=torch.where(is_clean, CLEAN, NOISY)[:, None],
            is_row=is_row,
        )
        return Rows(requests.tokens.gather(1, position.clamp_max(length - 1)), layout)

    def commit(self, requests: Requests, rows: Rows, scores: Tensor) -> None:
        """Keep some tokens of noisy blocks; store clean ones and go on behind them."""
        is_row = rows.layout.segment != NOTHING
        is_clean = rows.layout.copy[:, 0] == CLEAN
        if bool((~is_clean).any()):
            self._denoise(requests, rows, scores, ~is_clean)
        if not bool(is_clean.any()):
            return
        requests.cache.store(is_row & is_clean[:, None])
        n_rows = is_row.sum(dim=1)
        memory = requests.memory
        memory["start"] = memory["start"] + n_rows.where(is_clean, 0)
        memory["n_steps"] = memory["n_steps"].where(~is_clean, 0)
        if self.is_shifted:
            every = torch.arange(len(scores), device=scores.device)
            last = scores[every, n_rows - 1]
            memory["next"] = last.where(is_clean[:, None], memory["next"])
            self._draw_first(requests, is_clean)

    def _denoise(
        self, requests: Requests, rows: Rows, scores: Tensor, which: Tensor
    ) -> None:
        size, memory = self.block_size, requests.memory
        position, scores = rows.layout.position[:, :size], scores[:, :size]
        if self.is_shifted:
            scores = scores.roll(1, dims=1)
        is_masked = rows.tokens[:, :size] == requests.mask
        is_masked &= (rows.layout.segment[:, :size] != NOTHING) & which[:, None]
        allowed = requests.allowed_at(position)
        tokens = self.drawing(
            scores, requests.seeds, position, allowed, purpose=memory["n_steps"] + 1
        )
        kept = self.reveal(
            Drawing().law(scores, allowed),
            tokens,
            is_masked,
            memory["n_steps"],
            requests.seeds,
            position,
        )
        requests.fill(position, tokens, kept)
        memory["n_steps"] = memory["n_steps"] + which.long()

    def _draw_first(self, requests: Requests, which: Tensor) -> None:
        position = requests.memory["start"].unsqueeze(1)
        tokens = self.drawing(
            requests.memory["next"].unsqueeze(1),
            requests.seeds,
            position,
            requests.allowed_at(position),
        )
        requests.fill(position, tokens, which[:, None])
