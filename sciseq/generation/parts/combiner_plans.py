"""The plans of Combiner attention: which spans there are, read and counted.

Axes: ``item`` (batch times head), ``token`` (L), ``width`` (d, of one head), ``block``
(spans of a plan that cuts the sequence), ``row`` (R) and ``column`` (C, the span) of a
plan that folds the sequence.

What is masked never holds a whole matrix of tokens by tokens, and keys, values and
weights of padding are finite, so that no masked entry can spoil a gradient.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from sciseq.nn.attention import attend

__all__ = ["PLANS", "Heads", "Plan", "summarize_spans"]


class Heads(NamedTuple):
    """Queries, keys and values, of axes that the place of use names."""

    q: Tensor
    k: Tensor
    v: Tensor

    def map(self, change: Callable[[Tensor], Tensor]) -> "Heads":
        """Change all three alike."""
        return Heads(change(self.q), change(self.k), change(self.v))


@dataclass(frozen=True)
class Plan:
    """One way to divide what a token reads into single tokens and spans.

    Parameters
    ----------
    read : callable
        From heads (item, token, width), the span, and whether only earlier tokens are
        read, to what was found.
    cost : callable
        From the length, the span, and whether only earlier tokens are read, to the
        number of products of a number with a vector of the head's width.
    """

    read: Callable[[Heads, int, bool], Tensor]
    cost: Callable[[int, int, bool], int]


# --- Spans and their summaries -------------------------------------------------------


def _fold(x: Tensor, span: int) -> Tensor:
    """Cut (item, token, width) into (item, block, token, width), padded with zeros."""
    padded = F.pad(x, (0, 0, 0, -x.shape[1] % span))
    return padded.reshape(len(x), -1, span, x.shape[2])


def _is_real(n_tokens: int, span: int, device: torch.device) -> Tensor:
    """Tell tokens from padding, bool (block, token)."""
    n_blocks = -(-n_tokens // span)
    places = torch.arange(n_blocks * span, device=device)
    return (places < n_tokens).view(n_blocks, span)


def _lower(size: int, device: torch.device, diagonal: int = 0) -> Tensor:
    return torch.ones(size, size, dtype=torch.bool, device=device).tril(diagonal)


def _pool(x: Tensor, is_real: Tensor) -> Tensor:
    """Maxima of the spans (item, block, width); zero where a span is all padding."""
    maxima = x.masked_fill(~is_real.unsqueeze(-1), -math.inf).amax(2)
    return maxima.masked_fill(~is_real.any(1).unsqueeze(-1), 0)


def _pool_above(x: Tensor, is_real: Tensor) -> Tensor:
    """Maxima down to each row (item, row, column, width); zero above all tokens."""
    rows = x.masked_fill(~is_real.unsqueeze(-1), -math.inf).unbind(1)
    # Row by row: on a CPU torch's cummax along this axis is slower.
    maxima = torch.stack(list(accumulate(rows, torch.maximum)), 1)
    return maxima.masked_fill(~_has_begun(is_real).unsqueeze(-1), 0)


def _has_begun(is_real: Tensor) -> Tensor:
    return is_real.long().cumsum(0) > 0


def _span_values(q_span: Tensor, x: Heads, is_real: Tensor) -> Tensor:
    """Return what spans (item, block, token, width) hold, (item, block, width).

    What one that is all padding holds is finite, and must not be read.
    """
    readable = is_real | ~is_real.any(1, keepdim=True)
    # Spans may be short and many, which torch's kernel is not made for.
    scores = (q_span.unsqueeze(2) * x.k).sum(-1) / math.sqrt(x.k.shape[-1])
    weights = scores.masked_fill(~readable, -math.inf).softmax(2)
    return (weights.unsqueeze(3) * x.v).sum(2)


def summarize_spans(x: Heads, is_real: Tensor) -> tuple[Tensor, Tensor]:
    """Return keys and values of spans, each (item, block, width).

    Parameters
    ----------
    x : Heads
        Of the tokens in the spans, each (item, block, token, width).
    is_real : Tensor of bool, shape (block, token)
        False at padding.
    """
    return _pool(x.k, is_real), _span_values(_pool(x.q, is_real), x, is_real)


def _summarize_above(x: Heads, is_real: Tensor) -> tuple[Tensor, Tensor]:
    """Return keys and values of the part of each column down to each row.

    All axes are (item, row, column, width). This is causal attention along the columns,
    whose queries are running maxima.
    """
    # (column, row that ends the part, row); a part of padding alone reads that.
    readable = is_real.T.unsqueeze(1) | ~_has_begun(is_real).T.unsqueeze(2)
    mask = (_lower(len(is_real), x.q.device) & readable).unsqueeze(0)
    columns = Heads(_pool_above(x.q, is_real), x.k, x.v).map(_transpose)
    return _pool_above(x.k, is_real), attend(*columns, mask).transpose(1, 2)


def _shift_down(x: Tensor) -> Tensor:
    """Give each row (second axis) what the row above it holds; the first gets zeros."""
    return F.pad(x[:, :-1], (0, 0, 0, 0, 1, 0))


def _transpose(x: Tensor) -> Tensor:
    return x.transpose(1, 2)


# --- Plans ---------------------------------------------------------------------------


def _read_fixed(x: Heads, span: int, causal: bool) -> Tensor:
    n_tokens = x.q.shape[1]
    is_real = _is_real(n_tokens, span, x.q.device)
    found = _read_blocks(x.map(partial(_fold, span=span)), is_real, causal)
    return found.flatten(1, 2)[:, :n_tokens]


def _read_blocks(x: Heads, is_real: Tensor, causal: bool) -> Tensor:
    """Read the own block directly and the others' summaries, in one softmax."""
    n_blocks, size = is_real.shape
    own = is_real.unsqueeze(1).expand(-1, size, -1)  # (block, query, key)
    others = ~torch.eye(n_blocks, dtype=torch.bool, device=x.q.device)  # (block, block)
    if causal:
        own = own & _lower(size, x.q.device)
        others = _lower(n_blocks, x.q.device, -1)
    mask = torch.cat([own, others.unsqueeze(1).expand(-1, size, -1)], 2).unsqueeze(0)
    k_span, v_span = (
        one.unsqueeze(1).expand(-1, n_blocks, -1, -1)
        for one in summarize_spans(x, is_real)
    )
    return attend(x.q, torch.cat([x.k, k_span], 2), torch.cat([x.v, v_span], 2), mask)


def _read_logsparse(x: Heads, span: int, causal: bool) -> Tensor:
    n_tokens, n_levels = x.q.shape[1], (x.q.shape[1] - 1).bit_length()
    is_real = _is_real(n_tokens, 1 << n_levels, x.q.device)  # (1, token)
    x = x.map(lambda one: _fold(one, 1 << n_levels).squeeze(1))
    scores, values = [(x.q * x.k).sum(-1)], []
    q_span, k_span = x.q, x.k  # (item, block, width)
    for level in range(n_levels):
        real = is_real.view(-1, 1 << level)
        score, v_span = _read_siblings(x, q_span, k_span, real, causal)
        scores.append(score)
        values.append(v_span)
        q_span, k_span = (_pool_pairs(one, real.any(1)) for one in (q_span, k_span))
    weights = (torch.stack(scores) / math.sqrt(x.q.shape[-1])).softmax(0)
    found = weights[0].unsqueeze(-1) * x.v  # weights: (level, item, token)
    for level, v_span in enumerate(values):
        weight = _siblings(weights[level + 1].unsqueeze(-1), 1 << level)
        part = weight[:, :, -v_span.shape[2] :] * v_span
        found = found + _filled(part.flatten(3), 0.0).view(found.shape)
    return found[:, :n_tokens]


def _read_siblings(
    x: Heads, q_span: Tensor, k_span: Tensor, is_real: Tensor, causal: bool
) -> tuple[Tensor, Tensor]:
    """Let each block read its sibling or, if causal, the second of two the first.

    Returns unscaled scores (item, token), and what is read (item, pair, sibling, 1,
    width).
    """
    n_read, size = 1 if causal else 2, is_real.shape[1]
    spans = x.map(lambda one: _siblings(one, size)[:, :, :n_read].flatten(1, 2))
    q_span, k_span = (_siblings(one, 1)[:, :, :n_read] for one in (q_span, k_span))
    real = is_real.view(-1, 2, size)[:, :n_read]
    v_span = _span_values(q_span.flatten(1, 3), spans, real.flatten(0, 1))
    v_span = v_span.view(k_span.shape[:-1] + v_span.shape[2:])
    score = (_siblings(x.q, size)[:, :, -n_read:] * k_span.flip(2)).sum(-1)
    score = score.masked_fill(~real.any(2, keepdim=True).flip(1), -math.inf)
    return _filled(score, -math.inf).flatten(1), v_span.flip(2)


def _pool_pairs(x: Tensor, is_real: Tensor) -> Tensor:
    """Maxima of two blocks each (item, block, width); padding does not count."""
    first, second = x.view(len(x), -1, 2, x.shape[2]).unbind(2)
    is_second = is_real.view(-1, 2, 1)[:, 1]
    return torch.maximum(first, second.where(is_second, first))


def _siblings(x: Tensor, size: int) -> Tensor:
    """View (item, token, width) as (item, pair, sibling, token, width)."""
    return x.view(len(x), -1, 2, size, x.shape[2])


def _filled(x: Tensor, value: float) -> Tensor:
    """Give both siblings of a pair an entry (item, pair, sibling, any)."""
    return F.pad(x, (0, 0, 2 - x.shape[2], 0), value=value)


def _read_row_major(x: Heads, span: int, causal: bool) -> Tensor:
    n_tokens = x.q.shape[1]
    is_real = _is_real(n_tokens, span, x.q.device)  # (row, column)
    x = x.map(partial(_fold, span=span))  # (item, row, column, width)
    own = is_real.unsqueeze(1).expand(-1, span, -1)  # (row, query, key)
    if causal:
        own = own & _lower(span, x.q.device)
    keys, values, masks = [x.k], [x.v], [own]
    for is_below in (False,) if causal else (False, True):
        # Below a row is above it, upside down.
        turned, real = x, is_real
        if is_below:
            turned, real = x.map(lambda one: one.flip(1)), is_real.flip(0)
        k_span, v_span = map(_shift_down, _summarize_above(turned, real))
        is_read = F.pad(_has_begun(real)[:-1], (0, 0, 1, 0))
        if is_below:
            k_span, v_span, is_read = k_span.flip(1), v_span.flip(1), is_read.flip(0)
        keys.append(k_span)
        values.append(v_span)
        masks.append(is_read.unsqueeze(1).expand(-1, span, -1))
    mask = torch.cat(masks, 2).unsqueeze(0)
    found = attend(x.q, torch.cat(keys, 2), torch.cat(values, 2), mask)
    return found.flatten(1, 2)[:, :n_tokens]


def _read_vertical(x: Heads, span: int, causal: bool) -> Tensor:
    n_tokens = x.q.shape[1]
    is_real = _is_real(n_tokens, span, x.q.device)  # (row, column)
    x = x.map(partial(_fold, span=span))  # (item, row, column, width)
    if causal:
        found = _read_columns_before(x, is_real)
    else:  # the columns are the blocks
        found = _read_blocks(x.map(_transpose), is_real.T, False).transpose(1, 2)
    return found.flatten(1, 2)[:, :n_tokens]


def _read_columns_before(x: Heads, is_real: Tensor) -> Tensor:
    """Read the own column directly, the others down to the last token before.

    Columns on the left have a token of the own row before this one, those on the right
    end one row above. The scores of own column and summaries are batched along
    different axes, so that one kernel cannot do both.
    """
    n_rows, n_columns = is_real.shape
    k_left, v_left = _summarize_above(x, is_real)
    k_right, v_right = _shift_down(k_left), _shift_down(v_left)
    left = _lower(n_columns, x.q.device, -1)
    own = _lower(n_rows, x.q.device) & is_real.T.unsqueeze(1)  # (column, row, row)
    by_column = _transpose(x.q) @ _transpose(x.k).mT  # (item, column, row, row)
    by_column = by_column.masked_fill(~own, -math.inf).transpose(1, 2)
    # (item, row, column, column)
    by_row = (x.q @ k_left.mT).where(left, x.q @ k_right.mT)
    is_read = (left | left.T).repeat(n_rows, 1, 1)
    is_read[0] = left  # nothing is above the first row
    by_row = by_row.masked_fill(~is_read, -math.inf)
    scores = torch.cat([by_column, by_row], 3) / math.sqrt(x.q.shape[-1])
    weights = scores.softmax(3)
    of_own, of_others = weights[..., :n_rows], weights[..., n_rows:]
    found = (of_own.transpose(1, 2) @ _transpose(x.v)).transpose(1, 2)
    of_left, of_right = of_others.where(left, 0.0), of_others.where(left.T, 0.0)
    found = found + of_left @ v_left + of_right @ v_right
    return found


# --- Costs, in products of a number with a whole vector -------------------------------


def _cost_of_fixed(n_tokens: int, span: int, causal: bool) -> int:
    n_blocks = -(-n_tokens // span)
    return 2 * n_blocks * span * (span + n_blocks + 1)


def _cost_of_logsparse(n_tokens: int, span: int, causal: bool) -> int:
    n_levels = (n_tokens - 1).bit_length()
    n_reads = 1 if causal else 2  # of a pair of siblings
    return 2 * (1 << n_levels) * (1 + n_reads * n_levels)


def _cost_of_row_major(n_tokens: int, span: int, causal: bool) -> int:
    n_rows, n_sides = -(-n_tokens // span), 1 if causal else 2
    return 2 * n_rows * span * (span + n_sides * (span + n_rows))


def _cost_of_vertical(n_tokens: int, span: int, causal: bool) -> int:
    n_rows = -(-n_tokens // span)
    per_token = 2 * (n_rows + span) if causal else n_rows + span + 1
    return 2 * n_rows * span * per_token


PLANS = {
    "fixed": Plan(_read_fixed, _cost_of_fixed),
    "logsparse": Plan(_read_logsparse, _cost_of_logsparse),
    "axial_vertical": Plan(_read_vertical, _cost_of_vertical),
    "axial_row_major": Plan(_read_row_major, _cost_of_row_major),
}
"""What each name of a plan stands for."""
