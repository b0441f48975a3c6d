"""MambaMixer for series (TSM2) as an estimator.

The network is in :mod:`sciseq.forecasting.mambamixer_network`. Symbols of the card: L
lookback, H horizon, D d_model, E n_layers, n d_state, k d_conv, e expand, P patch
length, S stride.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Self

from torch import nn

from sciseq.forecasting.mambamixer_network import MambaMixerNetwork
from sciseq.forecasting.published import LONG, PublishedSettings
from sciseq.forecasting.torch_forecaster import TORCH_FORECASTER_RULES, TorchForecaster
from sciseq.parameters import Boolean, Integer
from sciseq.parameters import Rule as ParameterRule

__all__ = ["MambaMixerForecaster"]

# The authors published no settings. These are those of a public replication, at L = 512
# with D = 32, E = 2, n = 16, k = 4, P = 16, S = 8, AdamW 1e-4 with decay 0.01, cosine
# schedule; of its ranges for epochs (8 to 20) and patience (3 to 5) the upper ends.
_PUBLISHED = PublishedSettings(
    fields=("expand", "dropout", "batch_size"),
    rows={
        "ETTh1": (LONG, 2, 0.3, 128),
        "ETTh2": (LONG, 2, 0.3, 128),
        "ETTm1": (LONG, 2, 0.3, 128),
        "ETTm2": (LONG, 2, 0.3, 128),
        "exchange_rate": (LONG, 2, 0.3, 32),
        "weather": (LONG, 2, 0.3, 64),
        "electricity": (LONG, 2, 0.2, 8),
        "traffic": (LONG, 1, 0.2, 4),
    },
)
_PUBLISHED_EVERYWHERE: dict[str, Any] = {
    "lookback": 512,
    "d_model": 32,
    "n_layers": 2,
    "d_state": 16,
    "d_conv": 4,
    "patch_length": 16,
    "stride": 8,
    "learning_rate": 1e-4,
    "learning_rate_schedule": "cosine",
    "weight_decay": 0.01,
    "max_epochs": 20,
    "patience": 5,
    "calendar": None,
}


@dataclass(kw_only=True, eq=False, repr=False)
class MambaMixerForecaster(TorchForecaster):
    r"""Forecast related series with selective scans over time and over the variates.

    Each series of a window is cut into patches, and every layer mixes them twice: a
    causal scan over the patches of each variate, then a scan in both directions over
    the variates at each patch. Instead of residuals, each mixer reads a learned
    weighted sum of all outputs before it:

    .. math::

        y_T^{(l)} &= T_l\Bigl(\sum_{i<l} \alpha_{l,i}\,y_T^{(i)}
        + \beta_{l,i}\,y_C^{(i)}\Bigr) \\
        y_C^{(l)} &= C_l\Bigl(\sum_{i\le l} \theta_{l,i}\,y_T^{(i)}
        + \sum_{i<l} \gamma_{l,i}\,y_C^{(i)}\Bigr)

    Parameters
    ----------
    d_model : int, default=32
        Width of a token D.
    n_layers : int, default=2
        Layers E, of a time mixer and a variate mixer each.
    d_state : int, default=2
        State size n of the scans; their cost is proportional to it.
    d_conv : int, default=4
        Width k of the causal convolutions.
    expand : int, default=1
        Expansion e of the mixers.
    patch_length : int, default=16
        Steps of a patch P; cut to ``lookback`` where that is shorter.
    stride : int, default=8
        Steps S from one patch to the next, at most ``patch_length``.
    use_norm : bool, default=True
        Normalise each window by its own mean and deviation.
    calendar : "auto", None or list of str, default=None
        Calendar features of the look-back, which enter as further variates: those that
        suit the step of the index, none, or some by name.
    learning_rate : float, default=1e-3
        Rate of Adam.
    {shared_parameters}

    Attributes
    ----------
    network_ : MambaMixerNetwork
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
    Card: forecasting §4.2. Calendar features are off by default, as each costs as much
    as a variate. Of all future covariates together one series is made, and one of the
    static ones; both follow every variate in time.

    References
    ----------
    Behrouz et al., MambaMixer: efficient selective state space models with dual token
    and channel selection, arXiv:2403.19888.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.sin(np.arange(120)[:, None] / 3 + np.arange(3))
    >>> model = MambaMixerForecaster(lookback=24, horizon=4, d_model=8, max_epochs=1,
    ...                              random_state=0)
    >>> model.fit(X).predict().shape
    (4, 3)
    """

    _parameter_rules: ClassVar[dict[str, ParameterRule]] = {
        **TORCH_FORECASTER_RULES,
        "d_model": Integer(1),
        "n_layers": Integer(1),
        "d_state": Integer(1),
        "d_conv": Integer(1),
        "expand": Integer(1),
        "patch_length": Integer(1),
        "stride": Integer(1),
        "use_norm": Boolean(),
    }

    d_model: int = 32
    n_layers: int = 2
    d_state: int = 2
    d_conv: int = 4
    expand: int = 1
    patch_length: int = 16
    stride: int = 8
    use_norm: bool = True
    calendar: Any = None
    learning_rate: float = 1e-3

    @classmethod
    def published(cls, dataset: str, *, horizon: int = 96, **changes: Any) -> Self:
        """Return the settings of a public replication for a benchmark data set.

        The authors published neither settings nor a program. The replication reports
        errors 3 % above the paper's on average, at a look-back of 512.

        Parameters
        ----------
        dataset : str
            ETTh1, ETTh2, ETTm1, ETTm2, exchange_rate, weather, electricity or traffic.
        horizon : int, default=96
            96, 192, 336 or 720.
        **changes : dict
            Parameters to set otherwise.

        Returns
        -------
        MambaMixerForecaster
            Not fitted.

        Examples
        --------
        >>> MambaMixerForecaster.published("ETTh1", horizon=192).lookback
        512
        """
        settings = _PUBLISHED.look_up(dataset, horizon, cls.__name__)
        return cls(horizon=horizon, **{**_PUBLISHED_EVERYWHERE, **settings, **changes})

    def _parameter_relations(self) -> list[str]:
        problems = super()._parameter_relations()
        if self.stride > self.patch_length:
            problems.append(
                f"stride={self.stride} must be at most patch_length="
                f"{self.patch_length}: steps between patches would not be read"
            )
        return problems

    def _make_network(self) -> nn.Module:
        return MambaMixerNetwork(
            self.lookback,
            self._n_outputs,
            d_model=self.d_model,
            n_layers=self.n_layers,
            d_state=self.d_state,
            d_conv=self.d_conv,
            expand=self.expand,
            patch_length=min(self.patch_length, self.lookback),
            stride=min(self.stride, self.lookback),
            dropout=self.dropout,
            use_norm=self.use_norm,
            horizon=self.horizon,
            n_known=self._n_known,
            n_static=self._n_static,
        )

    def _n_tokens(self, n_columns: int) -> int:
        # The patches of a variate are scanned together, so a variate counts as one:
        # on a CPU, passes of fewer windows would mostly cost calls.
        return n_columns + len(self.calendar_)
