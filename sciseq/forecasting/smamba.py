"""S-Mamba as an estimator; the network is in :mod:`sciseq.forecasting.smamba_network`.

Symbols of the card: L lookback, H horizon, D d_model, F d_ff, E n_layers, n d_state,
k d_conv, e expand.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Self

from torch import nn

from sciseq.forecasting.published import HOURLY, LONG, SHORT, PublishedSettings
from sciseq.forecasting.smamba_network import SMambaNetwork
from sciseq.forecasting.torch_forecaster import TORCH_FORECASTER_RULES, TorchForecaster
from sciseq.parameters import AnyOf, Boolean, Integer, Nothing
from sciseq.parameters import Rule as ParameterRule

__all__ = ["SMambaForecaster"]

# The published scripts, per data set: horizons, then E, D, n, learning rate, batch size
# (one value, or one per horizon), epochs, instance normalisation, and whether calendar
# marks are read. The scripts never pass the step of the data, so every set with dates
# has the four hourly marks. F = D, k = 2, e = 1, dropout 0.1, L = 96.
_PUBLISHED = PublishedSettings(
    fields=(
        "n_layers", "d_model", "d_state", "learning_rate", "batch_size", "max_epochs",
        "use_norm", "calendar",
    ),
    rows={
        "ETTh1": (LONG, 2, 256, 2, (7e-5, 7e-5, 5e-5, 5e-5), 32, 10, True, HOURLY),
        "ETTh2": (LONG, 2, 256, 2, (4e-5, 4e-5, 3e-5, 7e-5), 32, 10, True, HOURLY),
        "ETTm1": (LONG, 2, (256, 128, 128, 128), 2, 5e-5, 32, 10, True, HOURLY),
        "ETTm2": (
            LONG, 2, (256, 128, 128, 128), 2, (5e-5, 5e-5, 3e-5, 5e-5), 32, 10, True,
            HOURLY,
        ),
        "exchange_rate": (
            LONG, 2, 128, 32, (1e-4, 1e-4, 5e-5, 5e-5), (16, 32, 32, 32), 10, True,
            HOURLY,
        ),
        "weather": (LONG, 3, 512, 2, 5e-5, 32, 5, True, HOURLY),
        "solar": (LONG, 2, 512, 32, 1e-4, 32, 10, True, None),
        "electricity": (
            LONG, 3, 512, (16, 32, 32, 32), (1e-3, 5e-4, 5e-4, 5e-4), 16, 5, True,
            HOURLY,
        ),
        "traffic": (LONG, 4, 512, 32, (1e-3, 1e-3, 2e-3, 8e-4), 16, 10, True, HOURLY),
        "PEMS03": (
            SHORT, (4, 4, 5, 4), 512, 32, (1e-3, 1e-3, 1e-4, 1.5e-3), 32,
            (5, 10, 10, 10), True, None,
        ),
        "PEMS04": (SHORT, 4, 1024, 32, 3e-4, 32, 10, False, None),
        "PEMS07": (
            SHORT, (2, 2, 4, 4), 512, 32, (7e-4, 7e-4, 5e-4, 5e-4), (16, 32, 16, 16),
            10, False, None,
        ),
        "PEMS08": (
            SHORT, (2, 2, 4, 4), (512, 512, 256, 256), 32, (1e-3, 7e-4, 1e-3, 1e-3),
            (32, 32, 16, 16), 10, True, None,
        ),
    },
)  # fmt: skip


@dataclass(kw_only=True, eq=False, repr=False)
class SMambaForecaster(TorchForecaster):
    r"""Forecast many related series with selective scans over the variates.

    Each series of a window becomes one token; two Mamba blocks with their own weights
    scan the tokens, one in each direction, and a feed-forward network works on each
    token alone:

    .. math::

        m = f(x) + \mathrm{flip}(g(\mathrm{flip}(x))), \quad
        x_1 = \mathrm{LN}_1(x + m), \quad
        x_2 = \mathrm{LN}_2(x_1 + \mathrm{FFN}(x_1))

    Parameters
    ----------
    d_model : int, default=128
        Width of a token D.
    d_ff : int, optional
        Width of the feed-forward network F; ``d_model`` by default.
    n_layers : int, default=2
        Encoder layers E.
    d_state : int, default=2
        State size n of the scans; 2 served narrow tables (7 to 21 columns) and 32 wide
        ones in the published settings.
    d_conv : int, default=2
        Width k of the causal convolution over the variates.
    expand : int, default=1
        Expansion e of the Mamba blocks.
    use_norm : bool, default=True
        Normalise each window by its own mean and deviation.
    {shared_parameters}

    Attributes
    ----------
    network_ : SMambaNetwork
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

    References
    ----------
    Wang et al., Is Mamba effective for time series forecasting?, arXiv:2403.11144.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.sin(np.arange(120)[:, None] / 3 + np.arange(3))
    >>> model = SMambaForecaster(lookback=12, horizon=4, d_model=8, max_epochs=1,
    ...                          random_state=0)
    >>> model.fit(X).predict().shape
    (4, 3)
    """

    _parameter_rules: ClassVar[dict[str, ParameterRule]] = {
        **TORCH_FORECASTER_RULES,
        "d_model": Integer(1),
        "d_ff": AnyOf(Nothing(), Integer(1)),
        "n_layers": Integer(1),
        "d_state": Integer(1),
        "d_conv": Integer(1),
        "expand": Integer(1),
        "use_norm": Boolean(),
    }

    d_model: int = 128
    d_ff: int | None = None
    n_layers: int = 2
    d_state: int = 2
    d_conv: int = 2
    expand: int = 1
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
            Parameters to set otherwise.

        Returns
        -------
        SMambaForecaster
            Not fitted.

        Examples
        --------
        >>> SMambaForecaster.published("ETTh1", horizon=192).learning_rate
        7e-05
        """
        settings = _PUBLISHED.look_up(dataset, horizon, cls.__name__)
        return cls(lookback=96, horizon=horizon, **{**settings, **changes})

    def _make_network(self) -> nn.Module:
        return SMambaNetwork(
            self.lookback,
            self._n_outputs,
            d_model=self.d_model,
            d_ff=self.d_model if self.d_ff is None else self.d_ff,
            n_layers=self.n_layers,
            d_state=self.d_state,
            d_conv=self.d_conv,
            expand=self.expand,
            dropout=self.dropout,
            use_norm=self.use_norm,
            covariates=(self.horizon, self._n_known, self._n_static),
        )

    def _n_tokens(self, n_columns: int) -> int:
        extra = self._n_known + bool(self._n_static)
        return n_columns + len(self.calendar_) + extra
