"""The iTransformer network: attention over the variates of a window.

Axes: ``batch`` (B), ``time`` (look-back L), ``variate`` (V), ``token`` (N = V + M with
M time marks, and those of covariates), ``d_model`` (D), ``output`` (O).

Symbols of the gated form as in :mod:`sciseq.forecasting.gateformer_network`.
"""

import torch
from torch import Tensor, nn

from sciseq.errors import CapabilityError
from sciseq.forecasting.window_network import WindowNetwork
from sciseq.nn import (
    CovariateTokens,
    ElementwiseGate,
    InvertedEmbedding,
    PatchSeriesEmbedding,
    TransformerEncoder,
)

__all__ = ["ITransformerNetwork"]


class ITransformerNetwork(WindowNetwork):
    r"""Full attention over tokens that are whole series.

    .. math::

        x = \mathrm{Drop}([Z, M]^\top W + b), \qquad
        c = \mathrm{LN}(\mathrm{Encoder}(x))_{1..V}, \qquad
        \hat Y = W_H\, c + b_H

    With ``gated=True`` the dual embedding and the gates of Gateformer stand around the
    same encoder:

    .. math::

        v = \mathrm{Gate}_1(x_{1..V}, \mathrm{PatchSeriesEmbedding}(Z)), \qquad
        c = \mathrm{LN}(\mathrm{Encoder}([v, x_{V+1..N}]))_{1..V}, \qquad
        \hat Y = W_H\, \mathrm{Gate}_2(v, c) + b_H

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
    n_heads : int, default 8
        Heads of the attention.
    dropout : float, default 0.1
        Probability of every dropout.
    use_norm : bool, default True
        Normalise each window by its own statistics and undo it on the forecast.
    gated : bool, default False
        Add the gated dual embedding.
    patch_length, stride : int, default 8
        Length of a patch and distance between patches of the gated form.
    horizon : int, optional
        Steps over which channels are known ahead; ``n_outputs`` by default.
    n_known, n_static : int, default 0
        Number of channels known ahead and of static values, which become tokens after
        the variates and marks.

    Notes
    -----
    Card: forecasting §6 and §0.4 (Liu et al., arXiv:2310.06625); the gates §3.1
    (arXiv:2505.00307). Layers are post-norm with GELU, with a last norm after them. The
    temporal branch of the gated form is that of Gateformer, with the sizes given here.
    Cost grows with the square of the number of tokens. No weight depends on it, so a
    fitted network runs on more, fewer or other variates, and their order does not
    matter. Covariate tokens are an addition.

    Examples
    --------
    >>> import torch
    >>> from sciseq.nn import build_network
    >>> network = build_network(
    ...     lambda: ITransformerNetwork(24, 6, d_model=16, d_ff=16, n_layers=1),
    ...     torch.Generator().manual_seed(0),
    ... ).eval()
    >>> network(torch.zeros(2, 24, 5), marks=torch.zeros(2, 24, 4)).shape
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
        n_heads: int = 8,
        dropout: float = 0.1,
        use_norm: bool = True,
        gated: bool = False,
        patch_length: int = 8,
        stride: int = 8,
        horizon: int | None = None,
        n_known: int = 0,
        n_static: int = 0,
    ) -> None:
        super().__init__(lookback, use_norm)
        self.gated = gated
        self.embedding = InvertedEmbedding(lookback, d_model, dropout)
        steps_ahead = n_outputs if horizon is None else horizon
        self.covariates = CovariateTokens(steps_ahead, n_known, n_static, d_model)
        self.encoder = TransformerEncoder(n_layers, d_model, n_heads, d_ff, dropout)
        self.norm = nn.LayerNorm(d_model)
        self.projector = nn.Linear(d_model, n_outputs)
        if gated:
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
            self.gate2 = ElementwiseGate(d_model)

    def forecast_normalized(
        self,
        z: Tensor,
        marks: Tensor | None,
        known: Tensor | None,
        static: Tensor | None,
    ) -> Tensor:
        """Map normalised windows (B, L, V) to forecasts (B, O, V) of their scale."""
        n_variates = z.shape[2]
        tokens = self.embedding(z, marks)  # (batch, token, d_model)
        if self.gated:
            v = self.gate1(tokens[:, :n_variates], self.temporal(z))
            tokens = torch.cat([v, tokens[:, n_variates:]], dim=1)
            o = self.gate2(v, self._attend(tokens, n_variates, known, static))
        else:
            o = self._attend(tokens, n_variates, known, static)
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
            Share of a series' own token against what the other tokens add.

        Raises
        ------
        CapabilityError
            When the network was built without gates.
        """
        if not self.gated:
            raise CapabilityError(
                "the network has no gates",
                where="ITransformerNetwork.gate_values",
                hint="Build it with gated=True.",
            )
        z, _, _ = self.normalize(x, marks, observed)
        n_variates = z.shape[2]
        tokens, p = self.embedding(z, marks), self.temporal(z)
        g, others = tokens[:, :n_variates], tokens[:, n_variates:]
        v = self.gate1(g, p)
        tokens = torch.cat([v, others], dim=1)
        c = self._attend(tokens, n_variates, known, static)
        return self.gate1.values(g, p), self.gate2.values(v, c)

    def _attend(
        self,
        tokens: Tensor,
        n_variates: int,
        known: Tensor | None,
        static: Tensor | None,
    ) -> Tensor:
        tokens = self.encoder(self.covariates(tokens, known, static))
        # Tokens of marks and covariates have served; what follows treats each alone.
        variates: Tensor = self.norm(tokens[:, :n_variates])
        return variates
