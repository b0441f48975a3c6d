"""Series cut into patches, and tokens made of them.

Axes: ``batch`` (B), ``time`` (look-back L), ``variate`` (V), ``series`` (B V, one
variate of one window), ``patch`` (J), ``step`` (P, within a patch), ``d_model`` (D).
"""

import math

import torch
from torch import Tensor, nn

from sciseq.errors import InputError
from sciseq.nn.attention import TransformerEncoder
from sciseq.nn.dropout import Dropout

__all__ = [
    "PatchEmbedding",
    "PatchSeriesEmbedding",
    "count_patches",
    "sinusoidal_positions",
]


def count_patches(lookback: int, patch_length: int, stride: int) -> int:
    r"""Count the patches of a series that is padded by one stride at its end.

    .. math:: J = \lfloor (L - P) / S \rfloor + 2

    Parameters
    ----------
    lookback : int
        Length L of the series.
    patch_length : int
        Length P of a patch, at most L.
    stride : int
        Distance S from one patch to the next.

    Returns
    -------
    int
        Number of patches J, at least 2.

    Raises
    ------
    InputError
        When a length is below 1 or the patch is longer than the series.

    Examples
    --------
    >>> count_patches(96, 8, 8), count_patches(96, 16, 8)
    (13, 12)
    """
    if not (1 <= patch_length <= lookback and stride >= 1):
        raise InputError(
            f"patch_length is {patch_length}, stride {stride} and lookback {lookback}; "
            "1 <= patch_length <= lookback and stride >= 1 are needed",
            where="patches of a series",
            hint="Shorten the patches or lengthen the look-back.",
        )
    return (lookback - patch_length) // stride + 2


def sinusoidal_positions(n_positions: int, d_model: int) -> Tensor:
    r"""Return a fixed code of positions: sines and cosines of falling frequency.

    .. math::

        p_{j, 2i} = \sin(j \, 10000^{-2i/D}), \qquad
        p_{j, 2i+1} = \cos(j \, 10000^{-2i/D})

    Parameters
    ----------
    n_positions : int
        Number of positions.
    d_model : int
        Number of channels D.

    Returns
    -------
    Tensor, shape (n_positions, d_model)
        The code.

    Examples
    --------
    >>> sinusoidal_positions(2, 3)[0].tolist()
    [0.0, 1.0, 0.0]
    """
    # In numbers also where a network is built on the meta device: to compute there,
    # torch imports hundreds of modules, for seconds.
    with torch.device("cpu"):
        even = torch.arange(0, d_model, 2, dtype=torch.float64)
        rates = torch.exp(even * (-math.log(10_000.0) / d_model))
        angles = torch.arange(n_positions, dtype=torch.float64).unsqueeze(1) * rates
        code = torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)
        return code[:, :d_model].to(torch.get_default_dtype())


class PatchEmbedding(nn.Module):
    r"""Cut each series into patches and turn each patch into one token.

    .. math:: E_j = \mathrm{Drop}(W\, x_{jS : jS + P} + p_j)

    Parameters
    ----------
    lookback : int
        Length L of a series.
    patch_length : int
        Length P of a patch.
    stride : int
        Distance S from one patch to the next.
    d_model : int
        Width D of a token.
    dropout : float, default 0.1
        Probability of the dropout on the tokens.

    Attributes
    ----------
    n_patches : int
        Number of patches J.

    Notes
    -----
    Card: forecasting §3.1 and §6 (Nie et al., arXiv:2211.14730). The last value of a
    series is repeated S times at its end before cutting. The map has no bias;
    positions are those of :func:`sinusoidal_positions`. Series do not see each other.

    Examples
    --------
    >>> import torch
    >>> embed = PatchEmbedding(12, patch_length=4, stride=4, d_model=6, dropout=0.0)
    >>> embed(torch.zeros(2, 12, 3)).shape  # 2 windows of 3 series, of 4 patches each
    torch.Size([6, 4, 6])
    """

    positions: Tensor

    def __init__(
        self,
        lookback: int,
        patch_length: int,
        stride: int,
        d_model: int,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.n_patches = count_patches(lookback, patch_length, stride)
        self.patch_length = patch_length
        self.stride = stride
        self.linear = nn.Linear(patch_length, d_model, bias=False)
        # Fixed by the sizes, so no part of what is saved.
        self.register_buffer(
            "positions", sinusoidal_positions(self.n_patches, d_model), persistent=False
        )
        self.dropout = Dropout(dropout)

    @torch.no_grad()
    def initialize_parameters(self, generator: torch.Generator) -> None:
        """Set the positions.

        Parameters
        ----------
        generator : torch.Generator
            Not used: positions are fixed.
        """
        self.positions.copy_(sinusoidal_positions(*self.positions.shape))

    def forward(self, x: Tensor) -> Tensor:
        """Embed every series of windows.

        Parameters
        ----------
        x : Tensor, shape (batch, lookback, n_variates)
            Windows.

        Returns
        -------
        Tensor, shape (batch * n_variates, n_patches, d_model)
            Tokens; the series of one window follow each other.
        """
        series = x.transpose(1, 2).flatten(0, 1)  # (series, time)
        padding = series[:, -1:].expand(-1, self.stride)
        padded = torch.cat([series, padding], dim=1)
        patches = padded.unfold(1, self.patch_length, self.stride)
        tokens: Tensor = self.dropout(self.linear(patches) + self.positions)
        return tokens  # (series, patch, d_model)


class PatchSeriesEmbedding(nn.Module):
    r"""One token per series, from attention over its patches.

    .. math::

        p = \mathrm{Drop}\bigl(W\, \mathrm{flatten}_{D \times J}
        (\mathrm{Encoder}(\mathrm{Patches}(x))) + b\bigr)

    Parameters
    ----------
    lookback : int
        Length L of a series.
    patch_length : int
        Length P of a patch.
    stride : int
        Distance S from one patch to the next.
    n_layers, d_model, n_heads, d_ff, dropout
        As in :class:`sciseq.nn.TransformerEncoder`.

    Notes
    -----
    Card: forecasting §3.1, temporal branch: pre-norm layers with ReLU that start
    equal, no norm after the last. Series do not see each other.

    Examples
    --------
    >>> import torch
    >>> embed = PatchSeriesEmbedding(
    ...     12, 4, 4, n_layers=1, d_model=8, n_heads=2, d_ff=8, dropout=0.0)
    >>> embed(torch.zeros(2, 12, 3)).shape
    torch.Size([2, 3, 8])
    """

    def __init__(
        self,
        lookback: int,
        patch_length: int,
        stride: int,
        *,
        n_layers: int,
        d_model: int,
        n_heads: int,
        d_ff: int,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.patches = PatchEmbedding(lookback, patch_length, stride, d_model, dropout)
        self.encoder = TransformerEncoder(
            n_layers,
            d_model,
            n_heads,
            d_ff,
            dropout,
            activation="relu",
            pre_norm=True,
            equal_start=True,
        )
        self.linear = nn.Linear(d_model * self.patches.n_patches, d_model)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Embed every series of windows.

        Parameters
        ----------
        x : Tensor, shape (batch, lookback, n_variates)
            Windows.

        Returns
        -------
        Tensor, shape (batch, n_variates, d_model)
            One token per series.
        """
        tokens = self.encoder(self.patches(x))  # (series, patch, d_model)
        flat = tokens.transpose(1, 2).flatten(1)  # (series, d_model * patch)
        embedded: Tensor = self.dropout(self.linear(flat))
        return embedded.view(x.shape[0], x.shape[2], -1)
