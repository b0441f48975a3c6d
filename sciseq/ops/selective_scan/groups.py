"""Scans of several groups, each in its direction, by scans of one group forwards.

Axes: ``batch``, ``group``, ``channel`` (of all groups, one after the other), ``state``,
``length`` (tokens).
"""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

__all__ = ["OneGroupScan", "Scan", "scan_by_group"]

OneGroupScan: TypeAlias = Callable[
    [Tensor, Tensor, Tensor, Tensor, Tensor, Tensor | None], Tensor
]
# The same with B and C (batch, group, state, length), and whether each group is
# reversed.
Scan: TypeAlias = Callable[
    [Tensor, Tensor, Tensor, Tensor, Tensor, Tensor | None, Sequence[bool]], Tensor
]


def scan_by_group(scan: OneGroupScan) -> Scan:
    """Make a scan of several groups from one that knows neither groups nor directions.

    Parameters
    ----------
    scan : callable
        From ``u, dt, A, B, C, D`` with B and C (batch, state, length).

    Returns
    -------
    callable
        From the same with B and C (batch, group, state, length), and a flag for each
        group: whether it runs from the last token to the first.

    Examples
    --------
    >>> import torch
    >>> from sciseq.ops.selective_scan.reference import selective_scan_reference
    >>> scan = scan_by_group(selective_scan_reference)
    >>> u, B = torch.tensor([[[1.0, 2.0], [1.0, 2.0]]]), torch.ones(1, 2, 1, 2)
    >>> dt, A = torch.full((1, 2, 2), 0.5), torch.zeros(2, 1)
    >>> scan(u, dt, A, B, B, None, (False, True)).tolist()
    [[[0.5, 1.5], [1.5, 1.0]]]
    """

    def grouped(
        u: Tensor,
        dt: Tensor,
        A: Tensor,
        B: Tensor,
        C: Tensor,
        D: Tensor | None,
        reverse: Sequence[bool],
    ) -> Tensor:
        if len(reverse) == 1 and not reverse[0]:
            return scan(u, dt, A, B[:, 0], C[:, 0], D)
        n_groups = B.shape[1]
        skips = [None] * n_groups if D is None else D.chunk(n_groups)
        outputs = []
        for u_g, dt_g, A_g, B_g, C_g, D_g, is_reversed in zip(
            u.chunk(n_groups, 1),
            dt.chunk(n_groups, 1),
            A.chunk(n_groups),
            B.unbind(1),
            C.unbind(1),
            skips,
            reverse,
            strict=True,
        ):
            tokens = (u_g, dt_g, B_g, C_g)
            if is_reversed:
                u_g, dt_g, B_g, C_g = (one.flip(-1) for one in tokens)
            y = scan(u_g, dt_g, A_g, B_g, C_g, D_g)
            outputs.append(y.flip(-1) if is_reversed else y)
        return torch.cat(outputs, 1)

    return grouped
