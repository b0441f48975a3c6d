"""Gateformer as an estimator.

The network is in :mod:`sciseq.forecasting.gateformer_network`. Symbols of the card: L
lookback, H horizon, D d_model, F d_ff, E n_layers, P patch_length, S stride.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Self

from torch import nn

from sciseq.forecasting.attention_parameters import ATTENTION_RULES, head_problems
from sciseq.forecasting.gate_values import GatedForecaster
from sciseq.forecasting.gateformer_network import GateformerNetwork
from sciseq.forecasting.published import LONG, PublishedSettings
from sciseq.forecasting.torch_forecaster import TORCH_FORECASTER_RULES
from sciseq.parameters import AnyOf, Integer, Nothing
from sciseq.parameters import Rule as ParameterRule

__all__ = ["GateformerForecaster"]

# The published scripts, per data set: horizons, then E, D, F (None: as D), heads and
# learning rate, one value or one per horizon. Everywhere L = 96, P = S = 8, dropout
# 0.1, batches of 8, 10 epochs, no calendar marks. The horizons on the traffic sets of
# PEMS are not those of S-Mamba.
_PEMS = (3, 6, 12, 24)
_PUBLISHED = PublishedSettings(
    fields=("n_layers", "d_model", "d_ff", "n_heads", "learning_rate"),
    rows={
        "ETTh1": (
            LONG, (1, 2, 2, 2), (64, 64, 128, 64), None, 4, (1e-4, 5e-4, 5e-4, 5e-4),
        ),
        "ETTh2": (
            LONG, (2, 1, 2, 1), (128, 64, 64, 128), None, 4, (5e-4, 5e-4, 1e-4, 1e-4),
        ),
        "ETTm1": (LONG, 1, (64, 128, 128, 64), None, 4, (5e-4, 5e-4, 1e-4, 5e-4)),
        "ETTm2": (LONG, (1, 1, 2, 2), 64, None, 4, (5e-4, 1e-4, 5e-4, 5e-4)),
        "exchange_rate": (
            LONG, (1, 1, 1, 2), (64, 64, 64, 128), None, 4, (1e-4, 1e-3, 1e-4, 1e-3),
        ),
        "weather": (
            LONG, 2, (512, 512, 256, 256), (1024, 1024, 256, 512), 8,
            (1e-4, 1e-4, 5e-4, 1e-4),
        ),
        "solar": (LONG, (3, 2, 2, 2), 512, None, 8, 1e-4),
        "electricity": (LONG, (2, 4, 2, 2), 512, (512, 1024, 1024, 1024), 8, 5e-4),
        "traffic": (LONG, (2, 2, 3, 3), 512, (1024, 1024, 1024, 512), 8, 5e-4),
        "PEMS03": (_PEMS, 2, 512, None, 8, 5e-4),
        "PEMS04": (_PEMS, 2, 512, None, 8, 5e-4),
        "PEMS07": (_PEMS, 2, 512, None, 8, 5e-4),
        "PEMS08": (_PEMS, 2, 512, None, 8, 5e-4),
    },
)  # fmt: skip


@dataclass(kw_only=True, eq=False, repr=False)
class GateformerForecaster(GatedForecaster):
    r"""Forecast many related series by attention over time and variates, with gates.

    Each series becomes two tokens: g from the whole look-back, p from attention over
    its patches. A gate mixes them; attention over the variates follows, and a second
    gate decides how much of it a series takes up:

    .. math::

        s_1 &= \sigma(W_1 g + W_2 p), \qquad v = s_1 \odot g + (1 - s_1) \odot p \\
        c &= \mathrm{Encoder}(v) \\
        s_2 &= \sigma(W_3 v + W_4 c), \qquad o = s_2 \odot v + (1 - s_2) \odot c

    Parameters
    ----------
    d_model : int, default=64
        Width of a token D; a multiple of ``n_heads``.
    d_ff : int, optional
        Width of the feed-forward networks F; ``d_model`` by default.
    n_layers : int, default=1
        Layers E of each of the two encoders.
    n_heads : int, default=4
        Heads of the attention.
    patch_length : int, default=8
        Steps of a patch P; cut to ``lookback`` where that is shorter.
    stride : int, default=8
        Steps S from one patch to the next.
    use_norm : bool, default=True
        Normalise each window by its own mean and deviation.
    calendar : None
        The network reads no calendar of the look-back; name calendar features among
        ``future_covariates`` to let it read those of the horizon.
    learning_rate : float, default=5e-4
        Rate of Adam.
    {shared_parameters}

    Attributes
    ----------
    network_ : GateformerNetwork
        The trained network.
    history_ : list of dict
        Epoch, losses, learning rate and seconds.
    best_epoch_, n_epochs_, stopped_
        Epoch of the weights, epochs run, and why training ended.
    n_parameters_ : int
        Number of weights.
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
    Card: forecasting §3. Covariates become tokens beside the variates. The order of
    the columns does not matter, and their number may change (``variates="any"``).

    References
    ----------
    Gateformer, arXiv:2505.00307.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.sin(np.arange(120)[:, None] / 3 + np.arange(3))
    >>> model = GateformerForecaster(lookback=16, horizon=4, d_model=8, max_epochs=1,
    ...                              random_state=0)
    >>> model.fit(X).predict().shape
    (4, 3)
    >>> model.gate_values().shape
    (3, 2)
    """

    _parameter_rules: ClassVar[dict[str, ParameterRule]] = {
        **TORCH_FORECASTER_RULES,
        **ATTENTION_RULES,
        "d_ff": AnyOf(Nothing(), Integer(1)),
    }

    d_model: int = 64
    d_ff: int | None = None
    n_layers: int = 1
    n_heads: int = 4
    patch_length: int = 8
    stride: int = 8
    use_norm: bool = True
    calendar: Any = None
    learning_rate: float = 5e-4

    @classmethod
    def published(cls, dataset: str, *, horizon: int = 96, **changes: Any) -> Self:
        """Return the published settings for a benchmark data set.

        Parameters
        ----------
        dataset : str
            ETTh1, ETTh2, ETTm1, ETTm2, exchange_rate, weather, solar, electricity,
            traffic, PEMS03, PEMS04, PEMS07 or PEMS08.
        horizon : int, default=96
            One of the published horizons: 96, 192, 336, 720 (PEMS: 3, 6, 12, 24).
        **changes : dict
            Parameters to set otherwise.

        Returns
        -------
        GateformerForecaster
            Not fitted.

        Examples
        --------
        >>> GateformerForecaster.published("ETTh1", horizon=192).learning_rate
        0.0005
        """
        settings = _PUBLISHED.look_up(dataset, horizon, cls.__name__)
        fixed = {"lookback": 96, "horizon": horizon, "batch_size": 8}
        return cls(**{**fixed, **settings, **changes})

    def _parameter_relations(self) -> list[str]:
        problems = super()._parameter_relations()
        problems += head_problems(self.d_model, self.n_heads)
        if self.calendar is not None:
            problems.append(
                f"calendar={self.calendar!r} is not read by this method: set it to "
                "None, and name calendar features among future_covariates"
            )
        return problems

    def _make_network(self) -> nn.Module:
        return GateformerNetwork(
            self.lookback,
            self._n_outputs,
            d_model=self.d_model,
            d_ff=self.d_model if self.d_ff is None else self.d_ff,
            n_layers=self.n_layers,
            n_heads=self.n_heads,
            patch_length=min(self.patch_length, self.lookback),
            stride=self.stride,
            dropout=self.dropout,
            use_norm=self.use_norm,
            horizon=self.horizon,
            n_known=self._n_known,
            n_static=self._n_static,
        )

    def _n_tokens(self, n_columns: int) -> int:
        # The patches of a series are read together, so a series counts as one: on a
        # CPU, passes of fewer windows would mostly cost calls.
        return n_columns + self._n_known + bool(self._n_static)
