"""The Mamba block: a gated selective state space over a sequence of tokens.

Axes: ``batch``, ``token`` (N, the ``length`` of the scan), ``d_model`` (D),
``channel`` (inner width Di = e D), ``state`` (n), ``r`` (rank of the step sizes).
"""

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from sciseq.ops.mamba_inner import mamba_inner

__all__ = ["MambaBlock"]

_STEP_RANGE = (1e-3, 1e-1)  # step sizes at initialisation
_STEP_FLOOR = 1e-4


class MambaBlock(nn.Module):
    r"""Selective state-space block with a causal convolution and a gate.

    .. math::

        [x, z] &= u W_{in}, \quad x' = \mathrm{SiLU}(\mathrm{conv}_k(x)), \quad
        [d, B, C] = x' W_x \\
        dt &= \mathrm{softplus}(d W_{dt} + b_{dt}), \quad A = -\exp(A_{log}) \\
        y &= \mathrm{scan}(x', dt, A, B, C, D), \quad
        out = (y \odot \mathrm{SiLU}(z)) W_{out}

    Parameters
    ----------
    d_model : int
        Width D of a token.
    d_state : int, default 16
        State size n per channel.
    d_conv : int, default 4
        Width k of the causal convolution.
    expand : int, default 2
        Expansion e; the inner width is ``expand * d_model``.

    Notes
    -----
    Card: forecasting §1 (Gu and Dao, arXiv:2312.00752). Parameters carry the names of
    the published blocks. Build it through :func:`sciseq.nn.build_network`, or load
    weights: until then ``A_log`` and ``D`` are NaN. Step sizes, decay rates and the
    state stay in float32 under autocast.

    Examples
    --------
    >>> import torch
    >>> from sciseq.nn import MambaBlock, build_network
    >>> block = build_network(lambda: MambaBlock(8), torch.Generator().manual_seed(0))
    >>> block(torch.zeros(2, 5, 8)).shape
    torch.Size([2, 5, 8])
    """

    no_weight_decay: ClassVar[tuple[str, ...]] = ("A_log", "D")

    def __init__(
        self, d_model: int, d_state: int = 16, d_conv: int = 4, expand: int = 2
    ) -> None:
        super().__init__()
        d_inner = expand * d_model
        self.d_state = d_state
        self.dt_rank = math.ceil(d_model / 16)
        self.in_proj = nn.Linear(d_model, 2 * d_inner, bias=False)
        # Holds the weights under their published names; forward computes with them
        # directly, which is faster for kernels of a few tokens.
        self.conv1d = nn.Conv1d(d_inner, d_inner, d_conv, groups=d_inner)
        self.x_proj = nn.Linear(d_inner, self.dt_rank + 2 * d_state, bias=False)
        self.dt_proj = nn.Linear(self.dt_rank, d_inner)
        self.A_log = nn.Parameter(torch.full((d_inner, d_state), math.nan))
        self.D = nn.Parameter(torch.full((d_inner,), math.nan))
        self.out_proj = nn.Linear(d_inner, d_model, bias=False)

    @torch.no_grad()
    def initialize_parameters(self, generator: torch.Generator) -> None:
        """Set ``A_log``, ``D`` and the bias of the step sizes.

        Parameters
        ----------
        generator : torch.Generator
            Source of the initial step sizes, log-uniform in [1e-3, 1e-1].
        """
        states = torch.arange(1, self.d_state + 1, dtype=self.A_log.dtype)
        self.A_log.copy_(torch.log(states).expand_as(self.A_log))
        self.D.fill_(1.0)
        # The weight W_dt needs nothing: its fan-in is r, so the rule for linear layers
        # already is U(-r^-1/2, r^-1/2).
        low, high = (math.log(step) for step in _STEP_RANGE)
        draws = torch.rand(self.D.shape, generator=generator, dtype=self.D.dtype)
        dt = torch.exp(low + draws * (high - low)).clamp(min=_STEP_FLOOR)
        self.dt_proj.bias.copy_(dt + torch.log(-torch.expm1(-dt)))

    def forward(self, u: Tensor, *, reverse: bool = False) -> Tensor:
        """Mix tokens causally along the token axis.

        Parameters
        ----------
        u : Tensor, shape (batch, token, d_model)
            Tokens.
        reverse : bool, default False
            Run from the last token to the first: what flipping the tokens before and
            after would give, without a copy.

        Returns
        -------
        Tensor, shape (batch, token, d_model)
            Token ``t`` depends on input tokens up to ``t`` only.
        """
        y = mamba_inner(
            self.in_proj(u),
            (self.conv1d.weight, self.conv1d.bias),
            self.x_proj.weight,
            self.dt_proj.weight,
            self.dt_proj.bias,
            self.A_log,
            self.D,
            reverse=reverse,
        )
        output: Tensor = self.out_proj(y)
        return output
