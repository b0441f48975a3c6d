r"""Combiner as a matrix, token by token: what its fast computation is checked against.

Axes: ``batch``, ``head``, ``query`` and ``key`` (tokens, L), ``width`` (d, of a head).
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sciseq.generation.parts.combiner_attention import check_plan, check_span

__all__ = ["combiner_spans", "combiner_weights"]


def combiner_spans(
    position: int,
    n_tokens: int,
    *,
    plan: str = "fixed",
    span: int | None = None,
    causal: bool = False,
) -> tuple[list[int], list[list[int]]]:
    r"""Say which tokens one token reads directly, and which through which span.

    Parameters
    ----------
    position : int
        The token that reads, from 0.
    n_tokens : int
        Length L of the sequence.
    plan : str, default "fixed"
        One plan.
    span, causal
        As in :func:`~sciseq.generation.parts.combiner_attention.combiner_attention`.

    Returns
    -------
    direct : list of int
        Tokens :math:`\Omega_0`.
    spans : list of list of int
        Tokens of each span :math:`\Omega_r`; none is empty.

    Examples
    --------
    >>> combiner_spans(6, 8, plan="fixed", span=3, causal=True)
    ([6], [[0, 1, 2], [3, 4, 5]])
    >>> combiner_spans(6, 8, plan="logsparse", causal=True)  # 6 = 4 + 2
    ([6], [[0, 1, 2, 3], [4, 5]])
    """
    (name,) = check_plan(plan)
    tokens = range(position + 1 if causal else n_tokens)
    label = _LABELS[name](position, check_span(span, n_tokens))
    spans: dict[tuple[int, int], list[int]] = {}
    for j in tokens:
        spans.setdefault(label(j), []).append(j)
    direct = spans.pop((0, 0))
    return direct, list(spans.values())


def combiner_weights(
    q: Tensor,
    k: Tensor,
    *,
    plan: str | Sequence[str] = "fixed",
    span: int | None = None,
    causal: bool = False,
) -> Tensor:
    r"""Return the matrix that Combiner attention multiplies the values with.

    .. math::

        W_{ij} = \tilde p(j \mid i) \;(j \in \Omega_0), \qquad
        W_{ij} = \tilde p(\Omega_r \mid i)\, p(j \mid \Omega_r) \;(j \in \Omega_r)

    Parameters
    ----------
    q, k : Tensor, shape (batch, head, token, width)
        Queries and keys.
    plan, span, causal
        As in :func:`~sciseq.generation.parts.combiner_attention.combiner_attention`.

    Returns
    -------
    Tensor, shape (batch, head, query, key)
        Weights; each row sums to 1.

    Notes
    -----
    Slow on purpose: every span is looked up and summarised anew for each token, from
    :func:`combiner_spans` alone.

    Examples
    --------
    >>> import torch
    >>> q, k = torch.randn(2, 1, 1, 6, 4)
    >>> combiner_weights(q, k, span=2).sum(-1).shape
    torch.Size([1, 1, 6])
    """
    n_tokens = q.shape[2]
    matrices = []
    for name in check_plan(plan):
        rows = []
        for i in range(n_tokens):
            direct, spans = combiner_spans(
                i, n_tokens, plan=name, span=span, causal=causal
            )
            rows.append(_weights_of(q, k, i, direct, spans))
        matrices.append(torch.stack(rows, 2))
    return torch.stack(matrices).mean(0)


def _weights_of(
    q: Tensor, k: Tensor, i: int, direct: list[int], spans: list[list[int]]
) -> Tensor:
    """Return the weights (batch, head, key) of one token."""
    scale = 1 / math.sqrt(q.shape[-1])
    keys = [k[:, :, j] for j in direct] + [k[:, :, one].amax(2) for one in spans]
    scores = torch.stack([(q[:, :, i] * key).sum(-1) * scale for key in keys], -1)
    of_direct, of_spans = torch.split(
        scores.softmax(-1), [len(direct), len(spans)], dim=-1
    )
    weights = q.new_zeros(k.shape[:3])
    weights = weights.index_add(2, torch.tensor(direct), of_direct)
    for r, one in enumerate(spans):
        q_span = q[:, :, one].amax(2, keepdim=True)
        inside = ((q_span * k[:, :, one]).sum(-1) * scale).softmax(-1)
        weights = weights.index_add(
            2, torch.tensor(one), of_spans[..., r, None] * inside
        )
    return weights


# --- Which span holds token j, for token i; (0, 0): token i reads j directly ----------

Label = Callable[[int], tuple[int, int]]


def _label_fixed(i: int, span: int) -> Label:
    return lambda j: (0, 0) if j // span == i // span else (1, j // span)


def _label_logsparse(i: int, span: int) -> Label:
    # The highest bit in which i and j differ is the level of the siblings that part.
    return lambda j: (0, 0) if j == i else (1, (i ^ j).bit_length())


def _label_vertical(i: int, span: int) -> Label:
    return lambda j: (0, 0) if j % span == i % span else (1, j % span)


def _label_row_major(i: int, span: int) -> Label:
    def label(j: int) -> tuple[int, int]:
        if j // span == i // span:
            return 0, 0
        return 1 if j < i else 2, j % span

    return label


_LABELS: dict[str, Callable[[int, int], Label]] = {
    "fixed": _label_fixed,
    "logsparse": _label_logsparse,
    "axial_vertical": _label_vertical,
    "axial_row_major": _label_row_major,
}
