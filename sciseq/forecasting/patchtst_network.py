"""The PatchTST network: attention over the patches of each series alone.

Axes: ``batch`` (B), ``time`` (look-back L), ``variate`` (V), ``series`` (B V),
``patch`` (J), ``d_model`` (D), ``output`` (O).
"""

from torch import Tensor, nn

from sciseq.errors import InputError
from sciseq.forecasting.window_network import WindowNetwork
from sciseq.nn import Dropout, PatchEmbedding, TransformerEncoder

__all__ = ["PatchTSTNetwork"]


class PatchTSTNetwork(WindowNetwork):
    r"""A transformer over the patches of each series; variates never meet.

    .. math::

        \hat Y = \mathrm{Drop}\bigl(W_H\, \mathrm{flatten}_{D \times J}
        (\mathrm{BN}(\mathrm{Encoder}(\mathrm{Patches}(Z)))) + b_H\bigr)

    Parameters
    ----------
    lookback : int
        Number of input steps L.
    n_outputs : int
        Length O of the forecast of a variate: the horizon H, times the number of
        quantiles where several are forecast.
    d_model : int
        Width D of a token; a multiple of ``n_heads``.
    d_ff : int
        Inner width F of the feed-forward networks.
    n_layers : int
        Number of layers E.
    n_heads : int, default 4
        Heads of the attention.
    patch_length : int, default 16
        Length P of a patch.
    stride : int, default 8
        Distance S between patches; the last value is repeated S times at the end.
    dropout : float, default 0.1
        Probability of every dropout.
    use_norm : bool, default True
        Normalise each window by its own statistics and undo it on the forecast.

    Notes
    -----
    Card: forecasting §6 and §0.4 (Nie et al., arXiv:2211.14730). Layers are post-norm
    with GELU; the last norm is over the batch, so that a training step sees all its
    series at once, and forecasts use the running statistics of training. Time marks are
    accepted and not used. Covariates have no place in a network whose channels are
    independent: they are refused.

    Examples
    --------
    >>> import torch
    >>> from sciseq.nn import build_network
    >>> network = build_network(
    ...     lambda: PatchTSTNetwork(24, 6, d_model=16, d_ff=16, n_layers=1),
    ...     torch.Generator().manual_seed(0),
    ... ).eval()
    >>> network(torch.zeros(2, 24, 5)).shape
    torch.Size([2, 6, 5])
    """

    def __init__(
        self,
        lookback: int,
        n_outputs: int,
        *,
        d_model: int,
        d_ff: int,
        n_layers: int,
        n_heads: int = 4,
        patch_length: int = 16,
        stride: int = 8,
        dropout: float = 0.1,
        use_norm: bool = True,
    ) -> None:
        super().__init__(lookback, use_norm)
        self.patches = PatchEmbedding(lookback, patch_length, stride, d_model, dropout)
        self.encoder = TransformerEncoder(n_layers, d_model, n_heads, d_ff, dropout)
        self.norm = nn.BatchNorm1d(d_model)
        self.projector = nn.Linear(d_model * self.patches.n_patches, n_outputs)
        self.dropout = Dropout(dropout)

    def forecast_normalized(
        self,
        z: Tensor,
        marks: Tensor | None,
        known: Tensor | None,
        static: Tensor | None,
    ) -> Tensor:
        """Map normalised windows (B, L, V) to forecasts (B, O, V) of their scale."""
        for name, block in (("known", known), ("static", static)):
            if block is not None:
                raise InputError(
                    f"{name} is of shape {tuple(block.shape)}, but PatchTST treats "
                    "each series alone and has no place for covariates",
                    where=f"PatchTSTNetwork, {name}",
                    hint="Leave it out, or take another method.",
                )
        tokens = self.encoder(self.patches(z))  # (series, patch, d_model)
        # Every token is one sample of the batch norm.
        normed = self.norm(tokens.flatten(0, 1)).view_as(tokens)
        flat = normed.transpose(1, 2).flatten(1)  # (series, d_model * patch)
        y: Tensor = self.dropout(self.projector(flat))
        # (series, output) to (batch, output, variate)
        return y.view(z.shape[0], z.shape[2], -1).transpose(1, 2)
