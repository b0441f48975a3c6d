r"""Combiner: attention to every allowed token at less than quadratic cost.

Axes: ``batch``, ``head``, ``token`` (L), ``width`` (d, of one head), ``item`` (batch
times head).

Symbols of the card: :math:`\Omega_0` tokens that are read directly, :math:`\Omega_r`
disjoint spans that hold the others, :math:`q_\Omega, k_\Omega` maxima over a span.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sciseq.errors import InputError, nearest_name
from sciseq.generation.parts.combiner_plans import PLANS, Heads

__all__ = ["combiner_attention", "combiner_multiplications", "default_span"]


def combiner_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    plan: str | Sequence[str] = "fixed",
    span: int | None = None,
    causal: bool = False,
) -> Tensor:
    r"""Let every token read all allowed tokens, the far ones through their spans.

    .. math::

        A(x_i) &= \sum_{j \in \Omega_0} \tilde p(j \mid i)\, v_j
            + \sum_r \tilde p(\Omega_r \mid i)
              \sum_{j \in \Omega_r} p(j \mid \Omega_r)\, v_j \\
        \tilde p(\cdot \mid i) &= \mathrm{softmax}
            \bigl[\, q_i k_j / \sqrt d \;(j \in \Omega_0), \;
            q_i k_{\Omega_r} / \sqrt d \;(\text{all } r) \,\bigr] \\
        p(j \mid \Omega_r) &= \mathrm{softmax}_{j \in \Omega_r}
            \bigl( q_{\Omega_r} k_j / \sqrt d \bigr)

    What a span holds is computed once and shared by all tokens that read it.

    Parameters
    ----------
    q, k : Tensor, shape (batch, head, token, width)
        Queries and keys.
    v : Tensor, shape (batch, head, token, any width)
        Values.
    plan : str or sequence of str, default "fixed"
        How the tokens that token i reads are divided. Several names give the mean of
        their outputs.

        - ``"fixed"``: spans of equal length; directly the own span.
        - ``"logsparse"``: directly token i alone; spans of length :math:`2^t`, at each
          level t the sibling of the block that holds i. Before i these are the spans
          of the binary expansion of i.
        - ``"axial_vertical"``: the sequence is folded into rows; directly the own
          column; spans are the other columns.
        - ``"axial_row_major"``: directly the own row; spans are the columns above the
          row and, unless causal, those below.
    span : int, optional
        Length of a span (``"fixed"``) or of a row (axial plans); the square root of
        the number of tokens, rounded up, by default. Not used by ``"logsparse"``.
    causal : bool, default False
        Let token i read tokens up to i only.

    Returns
    -------
    Tensor, of the shape of ``v``
        What the tokens found.

    Raises
    ------
    InputError
        When the plan is unknown, the span below 1 or the shapes do not fit.

    Notes
    -----
    Card: sequences §13 (Ren et al., arXiv:2107.05768). Summaries are maxima; other
    pooling is not offered. Of the axial plans, the columns above a token are summarised
    by running maxima. The card gives no logsparse plan that reads ahead; siblings on
    both sides are ours. Lengths that are no multiple of the span are padded inside, and
    padding is never read.

    See Also
    --------
    sciseq.generation.parts.combiner_reference.combiner_weights : The same, as a matrix.

    Examples
    --------
    >>> import torch
    >>> q, k, v = torch.randn(3, 1, 2, 10, 4)
    >>> combiner_attention(q, k, v, span=4, causal=True).shape
    torch.Size([1, 2, 10, 4])

    A span of one token, or of all, is dense attention:

    >>> dense = torch.nn.functional.scaled_dot_product_attention(q, k, v)
    >>> torch.allclose(combiner_attention(q, k, v, span=1), dense, atol=1e-6)
    True
    """
    if q.ndim != 4 or q.shape != k.shape or q.shape[:3] != v.shape[:3]:
        raise InputError(
            f"q has shape {tuple(q.shape)}, k {tuple(k.shape)}, v {tuple(v.shape)}; "
            "all must be (batch, head, token, width), q and k of one width",
            where="combiner_attention",
        )
    plans = check_plan(plan)
    span = check_span(span, q.shape[2])
    items = Heads(q, k, v).map(lambda one: one.flatten(0, 1))  # (item, token, width)
    found = [PLANS[name].read(items, span, causal) for name in plans]
    mean = found[0] if len(found) == 1 else torch.stack(found).mean(0)
    return mean.view(v.shape)


def combiner_multiplications(
    n_tokens: int,
    width: int,
    *,
    plan: str | Sequence[str] = "fixed",
    span: int | None = None,
    causal: bool = False,
) -> int:
    r"""Count the multiplications of :func:`combiner_attention`, one sequence and head.

    For the fixed plan these are :math:`2 d L (s + L / s + 1)`: scores and weighted sums
    of the own span, of the summaries, and inside the spans.

    Parameters
    ----------
    n_tokens : int
        Length L of the sequence.
    width : int
        Width d of a head, of queries, keys and values.
    plan, span, causal
        As in :func:`combiner_attention`.

    Returns
    -------
    int
        Multiplications that are carried out, padding and masked scores included. The
        scaling of the scores and the exponentials are not counted.

    Notes
    -----
    Card: sequences §13 states :math:`L (s + 2 L / s)` scores for the fixed plan. Spans
    whose inside is computed once need :math:`L (s + L / s + 1)`, never more.

    Examples
    --------
    >>> combiner_multiplications(1024, 8, span=32)  # 2 * 8 * 1024 * (32 + 32 + 1)
    1064960
    >>> 2 * 8 * 1024**2  # dense
    16777216
    """
    span = check_span(span, n_tokens)
    counts = [PLANS[name].cost(n_tokens, span, causal) for name in check_plan(plan)]
    return width * sum(counts)


def default_span(n_tokens: int) -> int:
    r"""Return the span that is used by default, :math:`\lceil \sqrt{L} \rceil`.

    Examples
    --------
    >>> default_span(100), default_span(101)
    (10, 11)
    """
    return math.isqrt(n_tokens - 1) + 1


def check_plan(plan: str | Sequence[str]) -> tuple[str, ...]:
    """Return the names of the plans, when all are known."""
    names = (plan,) if isinstance(plan, str) else tuple(plan)
    wrong = [name for name in names if name not in PLANS]
    if wrong or not names:
        raise InputError(
            f"plan is {plan!r}, must be one or several of {list(PLANS)}",
            where="plan",
            hint=nearest_name(wrong[0], PLANS) if wrong else None,
        )
    return names


def check_span(span: int | None, n_tokens: int) -> int:
    """Return the span, at most the length: more would only add padding."""
    if n_tokens < 1:
        raise InputError(f"the length is {n_tokens}, must be at least 1", where="q")
    if span is None:
        return default_span(n_tokens)
    if span < 1:
        raise InputError(f"span is {span}, must be at least 1", where="span")
    return min(span, n_tokens)
