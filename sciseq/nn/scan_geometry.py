"""Where tokens stand: the orders in which scans visit them, and what goes before them.

Axes: ``batch``, ``token`` (N; the cells of a grid row by row), ``channel``.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sciseq.ops.causal_convolution import causal_convolution_silu

__all__ = ["CausalConvolution", "GridConvolution", "ScanOrder", "cross_scan"]


@dataclass(frozen=True)
class ScanOrder:
    """The order in which a scan visits the tokens.

    Parameters
    ----------
    n_rows : int, optional
        Tokens are the cells of a grid with so many rows, stored row by row, and are
        visited column by column. None visits them as they are stored.
    is_reversed : bool, default False
        Visit them from the last to the first.

    Examples
    --------
    >>> import torch
    >>> grid = torch.arange(6.0).reshape(1, 6, 1)  # two rows of three cells
    >>> ScanOrder(n_rows=2).arrange(grid).flatten().tolist()
    [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]
    """

    n_rows: int | None = None
    is_reversed: bool = False

    def arrange(self, x: Tensor) -> Tensor:
        """Return the tokens (batch, token, channel) as they are visited."""
        if self.n_rows is not None:
            x = _transposed(x, self.n_rows)
        return x.flip(1) if self.is_reversed else x

    def restore(self, y: Tensor) -> Tensor:
        """Return visited tokens (batch, token, channel) as they are stored."""
        if self.is_reversed:
            y = y.flip(1)
        if self.n_rows is not None:
            y = _transposed(y, y.shape[1] // self.n_rows)
        return y


def cross_scan(n_rows: int) -> tuple[ScanOrder, ...]:
    """Return the four orders of a grid: by rows and by columns, each in both ways.

    Parameters
    ----------
    n_rows : int
        Rows of the grid whose cells are the tokens.

    Returns
    -------
    tuple of ScanOrder
        Rows, reversed rows, columns, reversed columns.

    Examples
    --------
    >>> len(cross_scan(8))
    4
    """
    return tuple(
        ScanOrder(rows, is_reversed)
        for rows in (None, n_rows)
        for is_reversed in (False, True)
    )


class CausalConvolution(nn.Conv1d):
    """Depthwise convolution over the present and past tokens, then SiLU.

    Parameters
    ----------
    n_channels : int
        Channels, each with its own kernel.
    width : int, default 4
        Tokens k under a kernel.

    Examples
    --------
    >>> import torch
    >>> CausalConvolution(3)(torch.zeros(2, 5, 3)).shape
    torch.Size([2, 5, 3])
    """

    def __init__(self, n_channels: int, width: int = 4) -> None:
        super().__init__(n_channels, n_channels, width, groups=n_channels)

    def forward(self, x: Tensor, *, reverse: bool = False) -> Tensor:
        """Map (batch, token, channel) to the same shape, causally in a direction."""
        return causal_convolution_silu(x, self.weight, self.bias, reverse=reverse)


class GridConvolution(nn.Conv2d):
    """Depthwise convolution of tokens that are the cells of a grid, then SiLU.

    Parameters
    ----------
    n_channels : int
        Channels, each with its own kernel.
    n_rows : int
        Rows of the grid; cells are stored row by row.
    width : int, default 3
        Odd side of the square kernel; the grid is continued with zeros.

    Examples
    --------
    >>> import torch
    >>> GridConvolution(3, n_rows=2)(torch.zeros(2, 8, 3)).shape
    torch.Size([2, 8, 3])
    """

    def __init__(self, n_channels: int, n_rows: int, width: int = 3) -> None:
        super().__init__(
            n_channels, n_channels, width, padding=width // 2, groups=n_channels
        )
        self.n_rows = n_rows

    @torch.no_grad()
    def initialize_parameters(self, generator: torch.Generator) -> None:
        """Draw kernels and offsets uniformly within one over the kernel's side."""
        bound = 1 / math.sqrt(self.weight[0].numel())
        self.weight.uniform_(-bound, bound, generator=generator)
        if self.bias is not None:
            self.bias.uniform_(-bound, bound, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, token, channel) to the same shape."""
        # (batch, channel, row, column)
        grid = x.mT.reshape(len(x), x.shape[2], self.n_rows, -1)
        return F.silu(super().forward(grid)).flatten(2).mT


def _transposed(tokens: Tensor, n_rows: int) -> Tensor:
    # Cells (batch, row x column, channel) -> (batch, column x row, channel)
    grid = tokens.reshape(len(tokens), n_rows, -1, tokens.shape[2])
    return grid.transpose(1, 2).flatten(1, 2)
