"""iTransformer as an estimator, plain or with the gates of Gateformer.

The network is in :mod:`sciseq.forecasting.itransformer_network`. Symbols of the card: L
lookback, H horizon, D d_model, F d_ff, E n_layers, P patch_length, S stride.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

from torch import nn

from sciseq.errors import CapabilityError
from sciseq.forecasting.attention_parameters import ATTENTION_RULES, head_problems
from sciseq.forecasting.gate_values import GatedForecaster
from sciseq.forecasting.itransformer_network import ITransformerNetwork
from sciseq.forecasting.published import HOURLY, LONG, SHORT, PublishedSettings
from sciseq.forecasting.torch_forecaster import TORCH_FORECASTER_RULES
from sciseq.parameters import AnyOf, Boolean, Integer, Nothing
from sciseq.parameters import Rule as ParameterRule

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ITransformerForecaster"]

# The published scripts, per data set: horizons, then E, D, learning rate, batch size
# (one value, or one per horizon), epochs, instance normalisation, and calendar marks,
# which are the hourly ones on every set with dates. Everywhere F = D, 8 heads,
# dropout 0.1, L = 96.
_PUBLISHED = PublishedSettings(
    fields=(
        "n_layers", "d_model", "learning_rate", "batch_size", "max_epochs", "use_norm",
        "calendar",
    ),
    rows={
        "ETTh1": (LONG, 2, (256, 256, 512, 512), 1e-4, 32, 10, True, HOURLY),
        "ETTh2": (LONG, 2, 128, 1e-4, 32, 10, True, HOURLY),
        "ETTm1": (LONG, 2, 128, 1e-4, 32, 10, True, HOURLY),
        "ETTm2": (LONG, 2, 128, 1e-4, 32, 10, True, HOURLY),
        "exchange_rate": (LONG, 2, 128, 1e-4, 32, (10, 10, 1, 10), True, HOURLY),
        "weather": (LONG, 3, 512, 1e-4, 32, 10, True, HOURLY),
        "solar": (LONG, 2, 512, 5e-4, 32, 10, True, None),
        "electricity": (LONG, 3, 512, 5e-4, 16, 10, True, HOURLY),
        "traffic": (LONG, 4, 512, 1e-3, 16, 10, True, HOURLY),
        "PEMS03": (SHORT, 4, 512, 1e-3, 32, 10, True, None),
        "PEMS04": (SHORT, 4, 1024, 5e-4, 32, 10, False, None),
        "PEMS07": (
            SHORT, (2, 2, 4, 4), 512, 1e-3, (32, 32, 16, 16), 10, False, None,
        ),
        "PEMS08": (
            SHORT, (2, 2, 4, 4), 512, (1e-4, 1e-4, 1e-3, 1e-3), (32, 32, 16, 16), 10,
            (True, True, False, False), None,
        ),
    },
)  # fmt: skip


@dataclass(kw_only=True, eq=False, repr=False)
class ITransformerForecaster(GatedForecaster):
    r"""Forecast many related series by attention over the variates.

    Each series of a window becomes one token, every token reads all others, and a
    feed-forward network works on each token alone:

    .. math::

        a = \mathrm{LN}_1(x + \mathrm{Attn}(x)), \qquad
        out = \mathrm{LN}_2(a + \mathrm{FFN}(a))

    With ``gated=True`` the patches of each series give a second token, and the two
    gates of Gateformer stand before and after this encoder.

    Parameters
    ----------
    d_model : int, default=128
        Width of a token D; a multiple of ``n_heads``.
    d_ff : int, optional
        Width of the feed-forward networks F; ``d_model`` by default.
    n_layers : int, default=2
        Encoder layers E.
    n_heads : int, default=8
        Heads of the attention.
    gated : bool, default=False
        Add the gated dual embedding of :class:`~sciseq.GateformerForecaster`. A
        training step then costs several times as much.
    patch_length : int, default=8
        Steps of a patch P of the gated form; cut to ``lookback`` where that is shorter.
    stride : int, default=8
        Steps S from one patch to the next of the gated form.
    use_norm : bool, default=True
        Normalise each window by its own mean and deviation.
    {shared_parameters}

    Attributes
    ----------
    network_ : ITransformerNetwork
        The trained network.
    history_ : list of dict
        Epoch, losses, learning rate and seconds.
    best_epoch_, n_epochs_, stopped_
        Epoch of the weights, epochs run, and why training ended.
    n_parameters_ : int
        Number of weights.
    calendar_ : tuple of str
        Calendar features in use.
    constant_targets_ : tuple
        Targets that never change in the training data.

    Raises
    ------
    InputError
        For parameters out of range, too few rows, or unknown columns.
    DataQualityError
        For NaN, infinity or irregular times.

    Notes
    -----
    Card: forecasting §6 and §3. Calendar marks and covariates become tokens beside the
    variates. The order of the columns does not matter, and their number may change
    (``variates="any"``).

    References
    ----------
    Liu et al., iTransformer: inverted transformers are effective for time series
    forecasting, arXiv:2310.06625. The gates: Gateformer, arXiv:2505.00307.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.sin(np.arange(120)[:, None] / 3 + np.arange(3))
    >>> model = ITransformerForecaster(lookback=12, horizon=4, d_model=8, max_epochs=1,
    ...                                random_state=0)
    >>> model.fit(X).predict().shape
    (4, 3)
    """

    _parameter_rules: ClassVar[dict[str, ParameterRule]] = {
        **TORCH_FORECASTER_RULES,
        **ATTENTION_RULES,
        "d_ff": AnyOf(Nothing(), Integer(1)),
        "gated": Boolean(),
    }

    d_model: int = 128
    d_ff: int | None = None
    n_layers: int = 2
    n_heads: int = 8
    gated: bool = False
    patch_length: int = 8
    stride: int = 8
    use_norm: bool = True

    @classmethod
    def published(cls, dataset: str, *, horizon: int = 96, **changes: Any) -> Self:
        """Return the published settings for a benchmark data set.

        Parameters
        ----------
        dataset : str
            ETTh1, ETTh2, ETTm1, ETTm2, exchange_rate, weather, solar, electricity,
            traffic, PEMS03, PEMS04, PEMS07 or PEMS08.
        horizon : int, default=96
            One of the published horizons: 96, 192, 336, 720 (PEMS: 12, 24, 48, 96).
        **changes : dict
            Parameters to set otherwise, ``gated=True`` among them.

        Returns
        -------
        ITransformerForecaster
            Not fitted.

        Examples
        --------
        >>> ITransformerForecaster.published("ETTh1", horizon=336).d_model
        512
        """
        settings = _PUBLISHED.look_up(dataset, horizon, cls.__name__)
        return cls(lookback=96, horizon=horizon, **{**settings, **changes})

    def gate_values(self, X: Any = None) -> "pd.DataFrame":  # noqa: D102 (inherited)
        self._check_is_fitted()
        if not self.gated:
            raise CapabilityError(
                "the model has no gates",
                where=f"{type(self).__name__}.gate_values",
                hint="Fit with gated=True.",
            )
        return super().gate_values(X)

    def _parameter_relations(self) -> list[str]:
        problems = super()._parameter_relations()
        problems += head_problems(self.d_model, self.n_heads)
        return problems

    def _make_network(self) -> nn.Module:
        return ITransformerNetwork(
            self.lookback,
            self._n_outputs,
            d_model=self.d_model,
            d_ff=self.d_model if self.d_ff is None else self.d_ff,
            n_layers=self.n_layers,
            n_heads=self.n_heads,
            dropout=self.dropout,
            use_norm=self.use_norm,
            gated=self.gated,
            patch_length=min(self.patch_length, self.lookback),
            stride=self.stride,
            horizon=self.horizon,
            n_known=self._n_known,
            n_static=self._n_static,
        )

    def _n_tokens(self, n_columns: int) -> int:
        extra = self._n_known + bool(self._n_static)
        return n_columns + len(self.calendar_) + extra
