"""S-Mamba as it is written down, without any tuning: what steps are compared with.

The network of the card (forecasting §1 and §2.1) with the modules of torch: each layer
calls two Mamba blocks and flips the tokens of one, each block calls the convolution,
the softplus, the scan, the gate and the projections one after the other. The scan is
an argument: the shape of the published reference, or any other.

Axes: batch (B), time (L or H), variate (V), token (N = V + M), d_model (D), channel
(Di), state (n).
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Scan = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


def published_scan(
    u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor
) -> Tensor:
    """Scan in the shape of the published reference.

    All decays and inputs of the state are made at once, as tensors of shape (batch,
    channel, length, state), and the loop over tokens indexes them.
    """
    decay = torch.exp(dt[..., None] * A[:, None])
    entering = (dt * u)[..., None] * B.mT[:, None]
    h = u.new_zeros(u.shape[0], *A.shape)
    outputs = []
    for t in range(u.shape[2]):
        h = decay[:, :, t] * h + entering[:, :, t]
        outputs.append(torch.einsum("bdn,bn->bd", h, C[:, :, t]))
    return torch.stack(outputs, dim=2) + D[:, None] * u


class PlainMambaBlock(nn.Module):
    """The block of the card, one operation after the other."""

    def __init__(
        self, d_model: int, d_state: int, d_conv: int, expand: int, scan: Scan
    ) -> None:
        super().__init__()
        d_inner, self.rank, self.d_state = expand * d_model, -(-d_model // 16), d_state
        self.in_proj = nn.Linear(d_model, 2 * d_inner, bias=False)
        self.conv1d = nn.Conv1d(
            d_inner, d_inner, d_conv, groups=d_inner, padding=d_conv - 1
        )
        self.x_proj = nn.Linear(d_inner, self.rank + 2 * d_state, bias=False)
        self.dt_proj = nn.Linear(self.rank, d_inner)
        states = torch.arange(1.0, d_state + 1)
        self.A_log = nn.Parameter(states.log().repeat(d_inner, 1))
        self.D = nn.Parameter(torch.ones(d_inner))
        self.out_proj = nn.Linear(d_inner, d_model, bias=False)
        self.scan = scan
        low, high = math.log(1e-3), math.log(1e-1)
        dt = torch.exp(low + torch.rand(d_inner) * (high - low))
        with torch.no_grad():
            self.dt_proj.bias.copy_(dt + torch.log(-torch.expm1(-dt)))

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens (batch, token, d_model) to tokens of the same shape."""
        x, z = self.in_proj(tokens).chunk(2, dim=-1)
        x = self.conv1d(x.transpose(1, 2))[..., : tokens.shape[1]]  # cut the padding
        x = F.silu(x)  # (batch, channel, token)
        sizes = [self.rank, self.d_state, self.d_state]
        d, B, C = self.x_proj(x.transpose(1, 2)).split(sizes, dim=-1)
        dt = F.softplus(self.dt_proj(d))
        A = -torch.exp(self.A_log)
        y = self.scan(x, dt.mT, A, B.mT, C.mT, self.D)
        output: Tensor = self.out_proj(y.transpose(1, 2) * F.silu(z))
        return output


class PlainLayer(nn.Module):
    """Two opposite blocks, then a feed-forward network."""

    def __init__(
        self,
        d_model: int,
        d_ff: int,
        d_state: int,
        d_conv: int,
        expand: int,
        dropout: float,
        scan: Scan,
    ) -> None:
        super().__init__()
        block = (d_model, d_state, d_conv, expand, scan)
        self.attention = PlainMambaBlock(*block)
        self.attention_r = PlainMambaBlock(*block)
        self.conv1 = nn.Linear(d_model, d_ff)
        self.conv2 = nn.Linear(d_ff, d_model)
        self.norm1, self.norm2 = nn.LayerNorm(d_model), nn.LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (batch, token, d_model) to tokens of the same shape."""
        mixed = self.attention(x) + self.attention_r(x.flip(dims=[1])).flip(dims=[1])
        x = self.norm1(x + mixed)
        hidden = self.dropout(F.gelu(self.conv1(x)))
        output: Tensor = self.norm2(x + self.dropout(self.conv2(hidden)))
        return output


class PlainSMamba(nn.Module):
    """The whole network; parameters carry the names of published checkpoints."""

    def __init__(
        self,
        lookback: int,
        horizon: int,
        *,
        scan: Scan,
        d_model: int = 256,
        d_ff: int = 256,
        n_layers: int = 2,
        d_state: int = 2,
        d_conv: int = 2,
        expand: int = 1,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.enc_embedding = nn.Module()
        self.enc_embedding.value_embedding = nn.Linear(lookback, d_model)
        self.encoder = nn.Module()
        self.encoder.attn_layers = nn.ModuleList(
            PlainLayer(d_model, d_ff, d_state, d_conv, expand, dropout, scan)
            for _ in range(n_layers)
        )
        self.encoder.norm = nn.LayerNorm(d_model)
        self.projector = nn.Linear(d_model, horizon)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, marks: Tensor | None = None) -> Tensor:
        """Map windows (B, L, V) and marks (B, L, M) to forecasts (B, H, V)."""
        mean = x.mean(1, keepdim=True).detach()
        x = x - mean
        scale = torch.sqrt(x.var(1, keepdim=True, unbiased=False) + 1e-5)
        x = x / scale
        series = x if marks is None else torch.cat([x, marks], dim=2)
        tokens = self.dropout(
            self.enc_embedding.value_embedding(series.permute(0, 2, 1))
        )
        for layer in self.encoder.attn_layers:
            tokens = layer(tokens)
        y = self.projector(self.encoder.norm(tokens)).permute(0, 2, 1)
        output: Tensor = y[:, :, : x.shape[2]] * scale + mean
        return output

    def published_state_dict(self) -> dict[str, Tensor]:
        """Return the weights as a published checkpoint holds them."""
        # There the feed-forward maps are convolutions of width one.
        return {
            name: one[..., None] if one.ndim == 2 and ".conv" in name else one
            for name, one in self.state_dict().items()
        }
