"""The Gateformer network: two views of each series, mixed by gates.

Axes: ``batch`` (B), ``time`` (look-back L), ``variate`` (V), ``patch`` (J), ``token``
(V, and those of covariates), ``d_model`` (D), ``output`` (O).

Symbols of the card: g global token of a series, p token of its patches, v their mix by
gate 1, c what attention over the variates makes of v, o the mix of v and c by gate 2.
"""

from torch import Tensor, nn

from sciseq.forecasting.window_network import WindowNetwork
from sciseq.nn import (
    CovariateTokens,
    ElementwiseGate,
    InvertedEmbedding,
    PatchSeriesEmbedding,
    TransformerEncoder,
)

__all__ = ["GateformerNetwork"]


class GateformerNetwork(WindowNetwork):
    r"""Attention over the patches of a series, then over the variates, with gates.

    .. math::

        g &= \mathrm{Drop}(W Z^\top + b), \qquad
        p = \mathrm{PatchSeriesEmbedding}(Z) \\
        v &= \mathrm{Gate}_1(g, p), \qquad
        c = \mathrm{Encoder}(v), \qquad
        o = \mathrm{Gate}_2(v, c), \qquad \hat Y = W_H\, o + b_H

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
        Number of layers E of each of the two encoders.
    n_heads : int, default 4
        Heads of the attention.
    patch_length : int, default 8
        Length P of a patch.
    stride : int, default 8
        Distance S between patches; the last value is repeated S times at the end.
    dropout : float, default 0.1
        Probability of every dropout.
    use_norm : bool, default True
        Normalise each window by its own statistics and undo it on the forecast. The
        published network always does.
    horizon : int, optional
        Steps over which channels are known ahead; ``n_outputs`` by default.
    n_known, n_static : int, default 0
        Number of channels known ahead and of static values, which become tokens after
        the variates.

    Notes
    -----
    Card: forecasting §3.1 (arXiv:2505.00307). Layers are pre-norm with ReLU; the layers
    of one encoder start from equal weights. Time marks are accepted and not used, as
    published. Cost grows with the square of the number of variates. No weight depends
    on it, so a fitted network runs on more, fewer or other variates, and their order
    does not matter. Covariate tokens are an addition.

    Examples
    --------
    >>> import torch
    >>> from sciseq.nn import build_network
    >>> network = build_network(
    ...     lambda: GateformerNetwork(24, 6, d_model=16, d_ff=16, n_layers=1),
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
        patch_length: int = 8,
        stride: int = 8,
        dropout: float = 0.1,
        use_norm: bool = True,
        horizon: int | None = None,
        n_known: int = 0,
        n_static: int = 0,
    ) -> None:
        super().__init__(lookback, use_norm)
        self.embedding = InvertedEmbedding(lookback, d_model, dropout)
        self.temporal = PatchSeriesEmbedding(
            lookback,
            patch_length,
            stride,
            n_layers=n_layers,
            d_model=d_model,
            n_heads=n_heads,
            d_ff=d_ff,
            dropout=dropout,
        )
        self.gate1 = ElementwiseGate(d_model)
        steps_ahead = n_outputs if horizon is None else horizon
        self.covariates = CovariateTokens(steps_ahead, n_known, n_static, d_model)
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
        self.gate2 = ElementwiseGate(d_model)
        self.projector = nn.Linear(d_model, n_outputs)

    def forecast_normalized(
        self,
        z: Tensor,
        marks: Tensor | None,
        known: Tensor | None,
        static: Tensor | None,
    ) -> Tensor:
        """Map normalised windows (B, L, V) to forecasts (B, O, V) of their scale."""
        v = self.gate1(self.embedding(z), self.temporal(z))
        o = self.gate2(v, self._attend(v, known, static))
        y: Tensor = self.projector(o)
        return y.transpose(1, 2)  # (batch, output, variate)

    def gate_values(
        self,
        x: Tensor,
        marks: Tensor | None = None,
        observed: Tensor | None = None,
        known: Tensor | None = None,
        static: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return the values of both gates for some windows.

        Parameters
        ----------
        x, marks, observed, known, static : Tensor
            As in :meth:`forward`.

        Returns
        -------
        gate1 : Tensor, shape (batch, n_variates, d_model)
            Share of the global token against that of the patches.
        gate2 : Tensor, shape (batch, n_variates, d_model)
            Share of a series' own token against what the other variates add.
        """
        z, _, _ = self.normalize(x, marks, observed)
        g, p = self.embedding(z), self.temporal(z)
        v = self.gate1(g, p)
        c = self._attend(v, known, static)
        return self.gate1.values(g, p), self.gate2.values(v, c)

    def _attend(self, v: Tensor, known: Tensor | None, static: Tensor | None) -> Tensor:
        tokens: Tensor = self.encoder(self.covariates(v, known, static))
        return tokens[:, : v.shape[1]]  # (batch, variate, d_model)
