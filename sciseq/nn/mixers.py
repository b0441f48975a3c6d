"""Selective mixers: state spaces that mix tokens, or channels, in chosen orders.

The mixers of MambaMixer (TSM2 for series, ViM2 for fields). Nothing here knows what a
token is: series scan patches or variates one after the other, fields scan the cells of
a grid in several orders.

Axes: ``batch`` (B), ``token`` (N), ``d_model`` (C, the channels of a token),
``channel`` (inner width Di = e C), ``state`` (n), ``r`` (rank of the step sizes).
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sciseq.errors import InputError
from sciseq.nn.scan_geometry import CausalConvolution, ScanOrder
from sciseq.ops.selective_scan import gated_selective_scan

__all__ = [
    "BidirectionalMixer",
    "SelectiveChannelMixer",
    "SelectiveSSM",
    "SelectiveTokenMixer",
]

_STEP_RANGE = (1e-3, 1e-1)  # step sizes at initialisation
_STEP_FLOOR = 1e-4


class SelectiveSSM(nn.Module):
    r"""The gated state space of a mixer: its tokens choose step sizes and maps (S6).

    .. math::

        [d, B, C] = s W_x, \quad dt = \mathrm{softplus}(d W_{dt} + b_{dt}), \quad
        y = \mathrm{scan}(x, dt, -\exp(A_{log}), B, C, D) \odot \mathrm{SiLU}(z)

    Parameters
    ----------
    n_channels : int
        Channels Di of the scanned tokens.
    d_state : int, default 16
        State size n per channel.
    dt_rank : int, default 1
        Rank r of the step sizes.
    n_source : int, optional
        Width of the source ``s``; ``n_channels`` by default.

    Notes
    -----
    Card: forecasting §1, steps 3 to 7. Step sizes, decay rates and the state stay in
    float32 under autocast.

    Examples
    --------
    >>> import torch
    >>> from sciseq.nn import build_network
    >>> ssm = build_network(lambda: SelectiveSSM(4), torch.Generator().manual_seed(0))
    >>> ssm(torch.ones(2, 5, 4), torch.ones(2, 5, 4)).shape
    torch.Size([2, 5, 4])
    """

    no_weight_decay: ClassVar[tuple[str, ...]] = ("A_log", "D")

    def __init__(
        self,
        n_channels: int,
        d_state: int = 16,
        dt_rank: int = 1,
        n_source: int | None = None,
    ) -> None:
        super().__init__()
        self.sizes = [dt_rank, d_state, d_state]
        self.x_proj = nn.Linear(n_source or n_channels, sum(self.sizes), bias=False)
        self.dt_proj = nn.Linear(dt_rank, n_channels)
        self.A_log = nn.Parameter(torch.full((n_channels, d_state), math.nan))
        self.D = nn.Parameter(torch.full((n_channels,), math.nan))

    @torch.no_grad()
    def initialize_parameters(self, generator: torch.Generator) -> None:
        """Set decay rates -1 to -n, the skip to 1, and step sizes in [1e-3, 1e-1]."""
        states = torch.arange(1, self.A_log.shape[1] + 1, dtype=self.A_log.dtype)
        self.A_log.copy_(torch.log(states).expand_as(self.A_log))
        self.D.fill_(1.0)
        low, high = (math.log(step) for step in _STEP_RANGE)
        draws = torch.rand(self.D.shape, generator=generator, dtype=self.D.dtype)
        dt = torch.exp(low + draws * (high - low)).clamp(min=_STEP_FLOOR)
        self.dt_proj.bias.copy_(dt + torch.log(-torch.expm1(-dt)))

    def forward(
        self,
        x: Tensor,
        z: Tensor,
        source: Tensor | None = None,
        *,
        reverse: bool = False,
    ) -> Tensor:
        """Scan tokens in the order in which they are given, and gate the result.

        Parameters
        ----------
        x, z : Tensor, shape (batch, token, n_channels)
            Tokens, and gates before their SiLU.
        source : Tensor, shape (batch, token, n_source), optional
            What step sizes and maps are computed from; ``x`` by default.
        reverse : bool, default False
            Scan from the last token to the first.

        Returns
        -------
        Tensor, shape (batch, token, n_channels)
            Token ``t`` depends on tokens up to ``t`` only.
        """
        d, B, C = self.x_proj(x if source is None else source).split(self.sizes, -1)
        with torch.autocast(x.device.type, enabled=False):
            d = F.linear(d.to(self.dt_proj.weight.dtype), self.dt_proj.weight)
            # The scan wants (batch, channel or state, length).
            return gated_selective_scan(
                x.mT,
                d.mT,
                -torch.exp(self.A_log),
                B.mT,
                C.mT,
                self.D,
                self.dt_proj.bias,
                z.mT,
                reverse=reverse,
            ).mT


class SelectiveTokenMixer(nn.Module):
    r"""Mix tokens by gated state spaces, one for each order in which they are visited.

    .. math::

        [x, z] = u W_{in}, \quad x' = \mathrm{SiLU}(\mathrm{conv}(x)), \quad
        out = \Bigl(\sum_o P_o^\top\,\mathrm{SSM}_o(P_o x') \odot \mathrm{SiLU}(z)
        \Bigr) W_{out}

    Parameters
    ----------
    d_model : int
        Width C of a token.
    d_state : int, default 16
        State size n per channel.
    expand : int, default 2
        Expansion e; the inner width is ``expand * d_model``.
    convolution : callable, default CausalConvolution
        From the inner width to a module on (batch, token, channel): convolution and
        SiLU of the tokens as they are stored.
    orders : sequence of ScanOrder, default one, as stored
        Orders P_o of the scans; each has a state space of its own.
    select_from : {"convolution", "input"}, default "convolution"
        Whether step sizes and maps are computed from the convolved x' or from u.

    Notes
    -----
    Card: forecasting §4.1 (Behrouz et al., arXiv:2403.19888). With a causal convolution
    and one order this is the Mamba block. The paper's equations select from the input;
    as its programs are not public, the default is the form of the Mamba block.

    Examples
    --------
    >>> import torch
    >>> from functools import partial
    >>> from sciseq.nn import GridConvolution, build_network, cross_scan
    >>> build = lambda: SelectiveTokenMixer(
    ...     8, convolution=partial(GridConvolution, n_rows=3), orders=cross_scan(3)
    ... )
    >>> mixer = build_network(build, torch.Generator().manual_seed(0))
    >>> mixer(torch.zeros(2, 12, 8)).shape  # a field of 3 x 4 cells
    torch.Size([2, 12, 8])
    """

    def __init__(
        self,
        d_model: int,
        d_state: int = 16,
        expand: int = 2,
        *,
        convolution: Callable[[int], nn.Module] = CausalConvolution,
        orders: Sequence[ScanOrder] = (ScanOrder(),),
        select_from: str = "convolution",
    ) -> None:
        super().__init__()
        if select_from not in ("convolution", "input"):
            raise InputError(
                f"select_from is {select_from!r}, must be 'convolution' or 'input'",
                where="SelectiveTokenMixer, select_from",
            )
        n_channels, dt_rank = expand * d_model, math.ceil(d_model / 16)
        self.selects_from_input = select_from == "input"
        n_source = d_model if self.selects_from_input else n_channels
        self.orders = tuple(orders)
        self.in_proj = nn.Linear(d_model, 2 * n_channels, bias=False)
        self.convolution = convolution(n_channels)
        self.ssms = nn.ModuleList(
            SelectiveSSM(n_channels, d_state, dt_rank, n_source) for _ in self.orders
        )
        self.out_proj = nn.Linear(n_channels, d_model, bias=False)

    def forward(self, u: Tensor, *, reverse: bool = False) -> Tensor:
        """Map tokens (batch, token, d_model) to tokens of the same shape.

        With ``reverse=True`` as if the tokens were flipped before and after, for
        convolutions that know directions.
        """
        x, z = self.in_proj(u).chunk(2, dim=-1)  # (batch, token, channel) each
        x = self.convolution(x, reverse=True) if reverse else self.convolution(x)
        output: Tensor = self.out_proj(
            sum(
                self._scan(
                    order, ssm, (x, z, u if self.selects_from_input else x), reverse
                )
                for order, ssm in zip(self.orders, self.ssms, strict=True)
            )
        )
        return output

    @staticmethod
    def _scan(
        order: ScanOrder, ssm: nn.Module, tokens: tuple[Tensor, ...], reverse: bool
    ) -> Tensor:
        # The scan itself runs backwards; only columns are laid out anew.
        columns = ScanOrder(order.n_rows)
        arranged = (columns.arrange(one) for one in tokens)
        return columns.restore(ssm(*arranged, reverse=order.is_reversed != reverse))


class BidirectionalMixer(nn.Module):
    r"""Two causal mixers, one in each direction: every token sees all others.

    .. math:: y = f(x) + \mathrm{flip}(g(\mathrm{flip}(x)))

    Parameters
    ----------
    d_model, d_state, expand
        As in :class:`SelectiveTokenMixer`.
    d_conv : int, default 4
        Width of both causal convolutions.

    Notes
    -----
    Card: forecasting §4.1. The paper shares one gate between both directions; here each
    direction is a block of its own, as in S-Mamba.

    Examples
    --------
    >>> import torch
    >>> from sciseq.nn import build_network
    >>> mixer = build_network(
    ...     lambda: BidirectionalMixer(8), torch.Generator().manual_seed(0)
    ... )
    >>> mixer(torch.zeros(2, 5, 8)).shape
    torch.Size([2, 5, 8])
    """

    def __init__(
        self, d_model: int, d_state: int = 16, expand: int = 2, d_conv: int = 4
    ) -> None:
        super().__init__()
        convolution = partial(CausalConvolution, width=d_conv)
        self.forward_block, self.backward_block = (
            SelectiveTokenMixer(d_model, d_state, expand, convolution=convolution)
            for _ in range(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (batch, token, d_model) to tokens of the same shape."""
        mixed: Tensor = self.forward_block(x) + self.backward_block(x, reverse=True)
        return mixed


class SelectiveChannelMixer(nn.Module):
    """Mix the channels of tokens: a bidirectional mixer along the channel axis.

    Parameters
    ----------
    n_tokens : int
        Number of tokens N, the width of what is scanned; any number of channels goes.
    d_state, expand, d_conv
        As in :class:`BidirectionalMixer`.

    Notes
    -----
    Card: forecasting §4.1, the block on the transposed tokens. TSM2 mixes variates with
    a :class:`BidirectionalMixer` whose tokens are the variates.

    Examples
    --------
    >>> import torch
    >>> from sciseq.nn import build_network
    >>> mixer = build_network(
    ...     lambda: SelectiveChannelMixer(5), torch.Generator().manual_seed(0)
    ... )
    >>> mixer(torch.zeros(2, 5, 3)).shape
    torch.Size([2, 5, 3])
    """

    def __init__(
        self, n_tokens: int, d_state: int = 16, expand: int = 2, d_conv: int = 4
    ) -> None:
        super().__init__()
        self.mixer = BidirectionalMixer(n_tokens, d_state, expand, d_conv)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (batch, n_tokens, channel) to the same shape."""
        mixed: Tensor = self.mixer(x.mT).mT
        return mixed
