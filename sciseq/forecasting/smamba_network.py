"""The S-Mamba network: two opposite Mamba blocks scan the variates of a window.

Axes: ``batch`` (B), ``time`` (look-back L or horizon H), ``variate`` (V), ``token``
(N = V + M with M time marks), ``d_model`` (D).
"""

from collections.abc import Mapping

from torch import Tensor, nn

from sciseq.errors import CheckpointError
from sciseq.forecasting.window_network import WindowNetwork
from sciseq.nn import CovariateTokens, FeedForward, InvertedEmbedding, MambaBlock

__all__ = ["SMambaNetwork", "load_published_state_dict", "published_name_map"]


class SMambaLayer(nn.Module):
    r"""One encoder layer: a Mamba block in each direction, then a feed-forward network.

    .. math::

        m &= f(x) + \mathrm{flip}(g(\mathrm{flip}(x))) \\
        x_1 &= \mathrm{LN}_1(x + m), \qquad out = \mathrm{LN}_2(x_1 + \mathrm{FFN}(x_1))

    Parameters
    ----------
    d_model, d_ff, d_state, d_conv, expand, dropout
        As in :class:`SMambaNetwork`.
    """

    def __init__(
        self,
        d_model: int,
        d_ff: int,
        d_state: int,
        d_conv: int,
        expand: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.forward_block = MambaBlock(d_model, d_state, d_conv, expand)
        self.backward_block = MambaBlock(d_model, d_state, d_conv, expand)
        self.norm1 = nn.LayerNorm(d_model)
        self.feed_forward = FeedForward(d_model, d_ff, dropout)
        self.norm2 = nn.LayerNorm(d_model)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (batch, token, d_model) to tokens of the same shape."""
        m = self.forward_block(x) + self.backward_block(x, reverse=True)
        x1 = self.norm1(x + m)
        output: Tensor = self.norm2(x1 + self.feed_forward(x1))
        return output


class SMambaNetwork(WindowNetwork):
    """Bidirectional selective state space over the variates of a window.

    Parameters
    ----------
    lookback : int
        Number of input steps L.
    n_outputs : int
        Number of rows to forecast: the steps H, or H times the quantile levels.
    d_model : int
        Width D of a token.
    d_ff : int
        Inner width F of the feed-forward networks.
    n_layers : int
        Number of encoder layers E.
    d_state : int
        State size n of the scans.
    d_conv : int, default 2
        Width k of the causal convolution over tokens.
    expand : int, default 1
        Expansion e of the Mamba blocks.
    dropout : float, default 0.1
        Probability of every dropout: embedding and feed-forward networks.
    use_norm : bool, default True
        Normalise each window by its own statistics and undo it on the forecast.
    covariates : tuple of int, default (0, 0, 0)
        Steps H of channels known ahead, their number K, and the number S of static
        values: each channel becomes one more token after the marks, the static values
        another.

    Notes
    -----
    Card: forecasting §2.1 (Wang et al., arXiv:2403.11144). A window becomes
    ``n_tokens = n_variates + n_marks`` tokens, one per whole series, and cost grows
    linearly with them. No weight depends on the number of variates, so a fitted
    network runs on more, fewer or other variates; their order matters. With
    ``use_norm=True`` outputs and gradients stay finite for inputs between 1e-30 and
    1e30; without it, standardise the inputs.

    Examples
    --------
    >>> import torch
    >>> from sciseq.nn import build_network
    >>> network = build_network(
    ...     lambda: SMambaNetwork(24, 6, d_model=16, d_ff=16, n_layers=1, d_state=2),
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
        d_state: int,
        d_conv: int = 2,
        expand: int = 1,
        dropout: float = 0.1,
        use_norm: bool = True,
        covariates: tuple[int, int, int] = (0, 0, 0),
    ) -> None:
        super().__init__(lookback, use_norm)
        self.embedding = InvertedEmbedding(lookback, d_model, dropout)
        self.layers = nn.ModuleList(
            SMambaLayer(d_model, d_ff, d_state, d_conv, expand, dropout)
            for _ in range(n_layers)
        )
        self.norm = nn.LayerNorm(d_model)
        self.projector = nn.Linear(d_model, n_outputs)
        self.covariates = CovariateTokens(*covariates, d_model)

    def forecast_normalized(
        self,
        z: Tensor,
        marks: Tensor | None,
        known: Tensor | None,
        static: Tensor | None,
    ) -> Tensor:
        """Map normalised windows (B, L, V) to forecasts (B, O, V) of their scale."""
        tokens = self.embedding(z, marks)  # (batch, token, d_model)
        tokens = self.covariates(tokens, known, static)
        for layer in self.layers:
            tokens = layer(tokens)
        # Tokens of marks and covariates have served: norm and projector treat each
        # token alone.
        variates = self.norm(tokens[:, : z.shape[2]])
        y: Tensor = self.projector(variates).transpose(1, 2)  # (batch, output, variate)
        return y


_OUTER_NAMES = {
    "enc_embedding.value_embedding.weight": "embedding.linear.weight",
    "enc_embedding.value_embedding.bias": "embedding.linear.bias",
    "encoder.norm.weight": "norm.weight",
    "encoder.norm.bias": "norm.bias",
    "projector.weight": "projector.weight",
    "projector.bias": "projector.bias",
}
_BLOCK_NAMES = {"attention": "forward_block", "attention_r": "backward_block"}
_BLOCK_PARAMETERS = (
    "A_log",
    "D",
    "in_proj.weight",
    "conv1d.weight",
    "conv1d.bias",
    "x_proj.weight",
    "dt_proj.weight",
    "dt_proj.bias",
    "out_proj.weight",
)
_TOKENWISE_NAMES = {
    "conv1": "feed_forward.W1",
    "conv2": "feed_forward.W2",
    "norm1": "norm1",
    "norm2": "norm2",
}
# Modules that the published layers build and never call.
_UNUSED_MODULES = ("man", "man2", "a")


def published_name_map(n_layers: int) -> dict[str, str]:
    """Map the parameter names of published S-D-Mamba checkpoints onto ours.

    Parameters
    ----------
    n_layers : int
        Number of encoder layers.

    Returns
    -------
    dict
        Published name to the name in ``SMambaNetwork.state_dict()``, one to one.

    Examples
    --------
    >>> published_name_map(1)["encoder.attn_layers.0.attention_r.A_log"]
    'layers.0.backward_block.A_log'
    """
    layer = {
        f"{theirs}.{parameter}": f"{ours}.{parameter}"
        for theirs, ours in _BLOCK_NAMES.items()
        for parameter in _BLOCK_PARAMETERS
    } | {
        f"{theirs}.{parameter}": f"{ours}.{parameter}"
        for theirs, ours in _TOKENWISE_NAMES.items()
        for parameter in ("weight", "bias")
    }
    return _OUTER_NAMES | {
        f"encoder.attn_layers.{index}.{theirs}": f"layers.{index}.{ours}"
        for index in range(n_layers)
        for theirs, ours in layer.items()
    }


def load_published_state_dict(
    network: SMambaNetwork, state_dict: Mapping[str, Tensor]
) -> None:
    """Load the weights of a published S-D-Mamba checkpoint, all or nothing.

    Parameters
    ----------
    network : SMambaNetwork
        Network with the settings of the checkpoint; changed in place.
    state_dict : mapping of str to Tensor
        State dict of the original model. The modules that it builds but never calls
        (``man``, ``man2`` and ``a`` of each layer) are passed over.

    Raises
    ------
    CheckpointError
        When names are missing or unexpected, or shapes differ; the first ten are
        listed and the network is unchanged.

    Examples
    --------
    >>> network = SMambaNetwork(8, 2, d_model=4, d_ff=4, n_layers=1, d_state=2)
    >>> load_published_state_dict(network, {})
    Traceback (most recent call last):
        ...
    sciseq.errors.CheckpointError: ...
    """
    names = published_name_map(len(network.layers))
    unused = tuple(
        f"encoder.attn_layers.{index}.{module}."
        for index in range(len(network.layers))
        for module in _UNUSED_MODULES
    )
    given = {name for name in state_dict if not name.startswith(unused)}
    _refuse("missing", sorted(names.keys() - given))
    _refuse("unexpected", sorted(given - names.keys()))
    own = network.state_dict()
    shapes = {name: _published_shape(name, own[ours]) for name, ours in names.items()}
    _refuse(
        "of another shape",
        [
            f"{name} {tuple(state_dict[name].shape)} instead of {shape}"
            for name, shape in shapes.items()
            if state_dict[name].shape != shape
        ],
    )
    network.load_state_dict(
        {
            ours: state_dict[name].reshape(own[ours].shape)
            for name, ours in names.items()
        }
    )


def _published_shape(name: str, own: Tensor) -> tuple[int, ...]:
    # The published feed-forward maps are convolutions of width one.
    is_pointwise = name.endswith(("conv1.weight", "conv2.weight"))
    return (*own.shape, 1) if is_pointwise else tuple(own.shape)


def _refuse(problem: str, names: list[str]) -> None:
    if not names:
        return
    shown = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
    raise CheckpointError(
        f"{len(names)} parameters are {problem}: {shown}",
        where="published S-D-Mamba state dict",
        hint="Compare lookback, horizon, d_model, d_ff, n_layers and d_state with the "
        "checkpoint's, and remove a 'module.' prefix left by parallel training.",
    )
