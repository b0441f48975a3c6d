"""Masks of whole spans, as infilling and recall objectives hide them.

Axes: ``batch`` (rows), ``token``. Symbols: n maskable tokens of a row, k masked ones, s
spans. Randomness comes in as in ``sciseq.generation.parts.corruption``.
"""

import torch
from torch import Tensor

from sciseq.generation.parts.tables import (
    check_range,
    check_rows,
    check_table,
    largest,
)

__all__ = ["span_mask"]


def span_mask(maskable: Tensor, count: Tensor, n_spans: Tensor, u: Tensor) -> Tensor:
    r"""Mask exactly ``count`` tokens in exactly ``n_spans`` separate spans.

    All :math:`\binom{k-1}{s-1} \binom{n-k+1}{s}` such masks are equally probable: s - 1
    of the k - 1 borders between masked tokens become borders of spans, and the spans go
    into s of the n - k + 1 gaps around the tokens that stay.

    Parameters
    ----------
    maskable : Tensor of bool, shape (batch, token)
        Tokens that may be masked. Others do not count: a span may go on behind them.
    count : Tensor of int64, shape (batch,)
        Masks k, from 0 to the number n of maskable tokens.
    n_spans : Tensor of int64, shape (batch,)
        Spans s, from 1 to the smaller of k and n - k + 1; 0 where k is 0.
    u : Tensor, shape (batch, token)
        Uniform numbers in (0, 1): n of them for k - 1 borders and n - k + 1 gaps.

    Returns
    -------
    Tensor of bool, shape (batch, token)
        Masked tokens.

    Raises
    ------
    InputError, InputTypeError
        When the tensors do not fit or a number is out of range.

    Examples
    --------
    >>> import torch
    >>> maskable = torch.ones(1, 6, dtype=torch.bool)
    >>> u = torch.tensor([[0.2, 0.9, 0.8, 0.1, 0.3, 0.7]])
    >>> span_mask(maskable, torch.tensor([3]), torch.tensor([2]), u).int().tolist()
    [[1, 1, 0, 0, 0, 1]]
    """
    check_table("maskable", maskable, u=u)
    check_rows(maskable, count=count, n_spans=n_spans)
    n = maskable.sum(dim=1)
    check_range("count", count, torch.zeros_like(n), n)
    check_range("n_spans", n_spans, count.clamp(max=1), count.minimum(n - count + 1))
    # Maskable tokens first, so that those of a row are 0 .. n-1.
    order = maskable.to(torch.uint8).argsort(dim=1, descending=True, stable=True)
    places = _places(n, count, n_spans, u.gather(1, order))
    # The last column takes what is not there.
    is_masked = maskable.new_zeros(len(maskable), maskable.shape[1] + 1)
    is_masked = is_masked.scatter(1, places, True)[:, :-1]
    return torch.zeros_like(maskable).scatter(1, order, is_masked)


def _places(n: Tensor, count: Tensor, n_spans: Tensor, u: Tensor) -> Tensor:
    """Places (batch, masked token) among maskable ones; behind the last, token."""
    i = torch.arange(u.shape[1], device=u.device)
    n_borders = (count - 1).clamp(min=0).unsqueeze(1)
    # Numbers 0 .. k-2 are those of the borders, k-1 .. n-1 those of the gaps.
    is_border = largest(i < n_borders, (n_spans - 1).clamp(min=0), u)
    is_gap = largest((i >= n_borders) & (i < n.unsqueeze(1)), n_spans, u)
    # As many tokens stay before a gap as there are gaps before it.
    first = is_gap.to(torch.uint8).argsort(dim=1, descending=True, stable=True)
    n_before = first - n_borders  # (batch, span)
    # A masked token belongs to the span behind all borders before it.
    span = is_border.cumsum(dim=1) - is_border.to(torch.int64)
    return (i + n_before.gather(1, span)).where(i < count.unsqueeze(1), u.shape[1])
