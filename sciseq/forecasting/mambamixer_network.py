"""The TSM2 network (MambaMixer for series): scans over patches and over variates.

Axes: ``batch`` (B), ``time`` (look-back L or horizon H), ``variate`` (V, and the M time
marks after them), ``known`` (K channels known ahead), ``patch`` (J, of P steps each),
``d_model`` (D), ``output`` (O).
"""

from functools import partial

import torch
from torch import Tensor, nn

from sciseq.errors import InputError
from sciseq.forecasting.window_network import WindowNetwork
from sciseq.nn import (
    BidirectionalMixer,
    CausalConvolution,
    Dropout,
    MixerStack,
    SelectiveChannelMixer,
    SelectiveTokenMixer,
)

__all__ = ["MambaMixerNetwork"]

_POSITION_DEVIATION = 0.02


class PatchTokens(nn.Module):
    r"""Cut each series into overlapping patches and make a token of each.

    .. math:: E_j = \mathrm{Drop}(W\,x_{o + jS : o + jS + P} + b + p_j)

    Parameters
    ----------
    n_steps : int
        Steps of a series.
    patch_length, stride : int
        Steps P of a patch, and steps S from one to the next. The last patch ends with
        the series; what does not fill a patch is left out at its beginning (o steps).
    d_model : int
        Width D of a token.
    dropout : float
        Probability of the dropout on the tokens.
    """

    def __init__(
        self, n_steps: int, patch_length: int, stride: int, d_model: int, dropout: float
    ) -> None:
        super().__init__()
        self.patch_length = patch_length
        self.stride = stride
        self.n_patches = (n_steps - patch_length) // stride + 1
        self.n_skipped = (n_steps - patch_length) % stride
        self.linear = nn.Linear(patch_length, d_model)
        self.positions = nn.Parameter(torch.empty(self.n_patches, d_model))
        self.dropout = Dropout(dropout)

    @torch.no_grad()
    def initialize_parameters(self, generator: torch.Generator) -> None:
        """Draw the learned positions with deviation 0.02."""
        self.positions.normal_(0.0, _POSITION_DEVIATION, generator=generator)

    def forward(self, series: Tensor) -> Tensor:
        """Map series (..., n_steps) to tokens (..., patch, d_model)."""
        used = series[..., self.n_skipped :]
        patches = used.unfold(-1, self.patch_length, self.stride)
        tokens: Tensor = self.dropout(self.linear(patches) + self.positions)
        return tokens


class AxisMixer(nn.Module):
    """Normalise tokens and mix them along one axis, each line of it by itself.

    Parameters
    ----------
    mixer : nn.Module
        Maps (batch, token, d_model) to the same shape.
    d_model : int
        Width D of a token.
    dropout : float
        Probability of the dropout on the output.
    axis : {1, 2}
        Mix along the variates (1) or along the patches (2).
    """

    def __init__(
        self, mixer: nn.Module, d_model: int, dropout: float, *, axis: int
    ) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(d_model)
        self.mixer = mixer
        self.dropout = Dropout(dropout)
        self.axis = axis

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (batch, variate, patch, d_model) to the same shape."""
        # (batch, axis kept apart, axis mixed, d_model)
        lines = self.norm(x) if self.axis == 2 else self.norm(x).transpose(1, 2)
        mixed = self.mixer(lines.flatten(0, 1)).reshape(lines.shape)
        y: Tensor = self.dropout(mixed)
        return y if self.axis == 2 else y.transpose(1, 2)


class KnownSeries(nn.Module):
    """Make one series over the look-back of the channels known over the horizon.

    Parameters
    ----------
    lookback, horizon : int
        Steps L of the series, and steps H over which channels are known.
    n_known : int
        Number of channels K.
    d_state, d_conv : int
        As in :class:`MambaMixerNetwork`.
    """

    def __init__(
        self, lookback: int, horizon: int, n_known: int, d_state: int, d_conv: int
    ) -> None:
        super().__init__()
        self.shape = (horizon, n_known)
        self.mixer = SelectiveChannelMixer(horizon, d_state, expand=1, d_conv=d_conv)
        self.linear = nn.Linear(horizon * n_known, lookback)

    def forward(self, known: Tensor) -> Tensor:
        """Map channels (batch, horizon, known) to series (batch, time)."""
        mixed = self.mixer(known.to(self.linear.weight.dtype))
        series: Tensor = self.linear(mixed.flatten(1))
        return series


class MambaMixerNetwork(WindowNetwork):
    r"""Selective mixers over the patches of each variate and over the variates.

    .. math::

        x_T^{(l)} &= \sum_{i<l} \alpha_{l,i}\,y_T^{(i)} + \beta_{l,i}\,y_C^{(i)}, \qquad
        y_T^{(l)} = \mathrm{Mixer}_{time}(\mathrm{LN}(x_T^{(l)})) \\
        x_C^{(l)} &= \sum_{i\le l} \theta_{l,i}\,y_T^{(i)}
        + \sum_{i<l} \gamma_{l,i}\,y_C^{(i)}, \qquad
        y_C^{(l)} = \mathrm{Mixer}_{variate}(\mathrm{LN}(x_C^{(l)}))

    Parameters
    ----------
    lookback : int
        Number of input steps L.
    n_outputs : int
        Length O of the forecast of a variate: the horizon H, times the number of
        quantiles where several are forecast.
    d_model : int
        Width D of a token.
    n_layers : int
        Number of layers E.
    d_state : int
        State size n of the scans.
    d_conv : int, default 4
        Width k of the causal convolutions.
    expand : int, default 2
        Expansion e of the mixers.
    patch_length, stride : int, default 16 and 8
        Steps P of a patch, at most ``lookback``, and steps S from one to the next.
    dropout : float, default 0.1
        Probability of every dropout: on tokens, after each mixer, before the head.
    use_norm : bool, default True
        Normalise each window by its own statistics and undo it on the forecast.
    horizon : int, optional
        Steps over which channels are known ahead; ``n_outputs`` by default.
    n_known, n_static : int, default 0
        Number of channels known ahead and of static values.

    Notes
    -----
    Card: forecasting §4.1 and §4.2 (Behrouz et al., arXiv:2403.19888); no program of
    the authors is public. A layer norm over patches and features together and a linear
    map make the forecast of the averaged outputs ``[y_T, y_C]`` of all layers. Time
    marks enter as further variates, whose tokens are dropped before that. Channels
    known ahead and static values become one series each, which follow every variate in
    time: ``[x | Z | S]``. No weight depends on the number of variates; their order
    matters.

    The card normalises before the head over features, then over patches. With few
    patches the second norm leaves little of the signal, and nothing with one.

    Examples
    --------
    >>> import torch
    >>> from sciseq.nn import build_network
    >>> network = build_network(
    ...     lambda: MambaMixerNetwork(48, 6, d_model=8, n_layers=1, d_state=2),
    ...     torch.Generator().manual_seed(0),
    ... ).eval()
    >>> network(torch.zeros(2, 48, 5)).shape
    torch.Size([2, 6, 5])
    """

    def __init__(
        self,
        lookback: int,
        n_outputs: int,
        *,
        d_model: int,
        n_layers: int,
        d_state: int,
        d_conv: int = 4,
        expand: int = 2,
        patch_length: int = 16,
        stride: int = 8,
        dropout: float = 0.1,
        use_norm: bool = True,
        horizon: int | None = None,
        n_known: int = 0,
        n_static: int = 0,
    ) -> None:
        super().__init__(lookback, use_norm)
        if not 1 <= patch_length <= lookback or stride < 1:
            raise InputError(
                f"patch_length is {patch_length}, stride {stride} and lookback "
                f"{lookback}; 1 <= patch_length <= lookback and stride >= 1 are needed",
                where="MambaMixerNetwork",
                hint="Shorten the patches or lengthen the look-back.",
            )
        self.horizon = n_outputs if horizon is None else horizon
        self.n_known = n_known
        self.n_static = n_static
        if n_known:
            self.known = KnownSeries(lookback, self.horizon, n_known, d_state, d_conv)
        if n_static:
            self.static = nn.Linear(n_static, lookback)
        n_steps = lookback * (1 + bool(n_known) + bool(n_static))
        self.embedding = PatchTokens(n_steps, patch_length, stride, d_model, dropout)
        convolution = partial(CausalConvolution, width=d_conv)
        time_mixers = [
            SelectiveTokenMixer(d_model, d_state, expand, convolution=convolution)
            for _ in range(n_layers)
        ]
        variate_mixers = [
            BidirectionalMixer(d_model, d_state, expand, d_conv)
            for _ in range(n_layers)
        ]
        self.layers = MixerStack(
            [AxisMixer(one, d_model, dropout, axis=2) for one in time_mixers],
            [AxisMixer(one, d_model, dropout, axis=1) for one in variate_mixers],
        )
        n_patches = self.embedding.n_patches
        self.norm = nn.LayerNorm((n_patches, d_model))
        self.dropout = Dropout(dropout)
        self.head = nn.Linear(n_patches * d_model, n_outputs)

    def forecast_normalized(
        self,
        z: Tensor,
        marks: Tensor | None,
        known: Tensor | None,
        static: Tensor | None,
    ) -> Tensor:
        """Map normalised windows (B, L, V) to forecasts (B, O, V) of their scale."""
        n_variates = z.shape[2]
        if marks is not None:
            z = torch.cat([z, marks.to(z.dtype)], dim=2)
        series = self._with_side_information(z.mT, known, static)
        tokens = self.layers(self.embedding(series))  # (batch, variate, patch, d_model)
        # Tokens of marks have served; what follows treats each variate alone.
        features = self.norm(tokens[:, :n_variates]).flatten(2)
        y: Tensor = self.head(self.dropout(features))
        return y.mT  # (batch, output, variate)

    def _with_side_information(
        self, series: Tensor, known: Tensor | None, static: Tensor | None
    ) -> Tensor:
        n_batch = len(series)
        _check("known", known, (n_batch, self.horizon, self.n_known), self.n_known)
        _check("static", static, (n_batch, self.n_static), self.n_static)
        parts = [series]  # each (batch, variate, time)
        if known is not None:
            parts.append(self.known(known).unsqueeze(1).expand_as(series))
        if static is not None:
            values = self.static(static.to(series.dtype))
            parts.append(values.unsqueeze(1).expand_as(series))
        return series if len(parts) == 1 else torch.cat(parts, dim=2)


def _check(
    name: str, block: Tensor | None, shape: tuple[int, ...], n_channels: int
) -> None:
    if block is None and n_channels == 0:
        return
    where = f"MambaMixerNetwork, {name}"
    found = "missing" if block is None else f"of shape {tuple(block.shape)}"
    if n_channels == 0:
        raise InputError(
            f"{name} is {found}, but the network was built without such channels",
            where=where,
            hint=f"Leave {name} out, or build the network with n_{name}.",
        )
    if block is None or block.shape != shape:
        raise InputError(f"{name} is {found}, must have shape {shape}", where=where)
