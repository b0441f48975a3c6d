"""The selective scan as one operator, so that an exported graph holds one loop.

A traced Python loop over tokens makes a graph that grows with the number of tokens.
Exporters meet ``torch.ops.sciseq.selective_scan`` instead, whose values are those of
the reference, and write a loop of their own for it (:mod:`sciseq.export`).
"""

import torch
from torch import Tensor

from sciseq.ops.selective_scan.reference import selective_scan_reference

__all__ = ["scan_operator"]


@torch.library.custom_op("sciseq::selective_scan", mutates_args=())
def _scan(
    u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None = None
) -> Tensor:
    # The result of an operator may not share memory with its inputs.
    return selective_scan_reference(u, dt, A, B, C, D).clone()


@_scan.register_fake
def _(
    u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None = None
) -> Tensor:
    return torch.empty_like(u, memory_format=torch.contiguous_format)


def scan_operator(
    u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None = None
) -> Tensor:
    """Run the reference as one operator; arguments as in the reference."""
    y: Tensor = torch.ops.sciseq.selective_scan(u, dt, A, B, C, D)
    return y
