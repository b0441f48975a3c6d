"""PatchTST as an estimator.

The network is in :mod:`sciseq.forecasting.patchtst_network`. Symbols of the card: L
lookback, H horizon, D d_model, F d_ff, E n_layers, P patch_length, S stride.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from torch import nn

from sciseq.data.panel import Panel
from sciseq.forecasting.attention_parameters import ATTENTION_RULES, head_problems
from sciseq.forecasting.patchtst_network import PatchTSTNetwork
from sciseq.forecasting.torch_forecaster import TORCH_FORECASTER_RULES, TorchForecaster
from sciseq.parameters import Integer
from sciseq.parameters import Rule as ParameterRule

__all__ = ["PatchTSTForecaster"]


@dataclass(kw_only=True, eq=False, repr=False)
class PatchTSTForecaster(TorchForecaster):
    r"""Forecast each series from attention over its own patches.

    One network serves all series, and each is forecast from its own past alone:

    .. math::

        \hat y = W_H\, \mathrm{flatten}(\mathrm{BN}(\mathrm{Encoder}(
        W x_{jS : jS + P} + p_j)_{j = 0 \dots J - 1})) + b_H

    Parameters
    ----------
    d_model : int, default=64
        Width of a token D; a multiple of ``n_heads``.
    d_ff : int, default=128
        Width of the feed-forward networks F.
    n_layers : int, default=2
        Encoder layers E.
    n_heads : int, default=4
        Heads of the attention.
    patch_length : int, default=16
        Steps of a patch P; cut to ``lookback`` where that is shorter.
    stride : int, default=8
        Steps S from one patch to the next.
    use_norm : bool, default=True
        Normalise each window by its own mean and deviation.
    calendar : None
        The network reads no calendar features.
    dropout : float, default=0.2
        Probability of every dropout.
    {shared_parameters}

    Attributes
    ----------
    network_ : PatchTSTNetwork
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
    CapabilityError
        For covariates, which have no place in a forecast of each series alone.
    DataQualityError
        For NaN, infinity or irregular times.

    Notes
    -----
    Card: forecasting §6. Columns that are not targets are not read. The number of
    columns may change (``variates="any"``).

    References
    ----------
    Nie et al., A time series is worth 64 words: long-term forecasting with
    transformers, arXiv:2211.14730.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.sin(np.arange(120)[:, None] / 3 + np.arange(3))
    >>> model = PatchTSTForecaster(lookback=24, horizon=4, d_model=8, max_epochs=1,
    ...                            random_state=0)
    >>> model.fit(X).predict().shape
    (4, 3)
    """

    _parameter_rules: ClassVar[dict[str, ParameterRule]] = {
        **TORCH_FORECASTER_RULES,
        **ATTENTION_RULES,
        "d_ff": Integer(1),
    }
    _covariates: ClassVar[frozenset[str]] = frozenset()

    d_model: int = 64
    d_ff: int = 128
    n_layers: int = 2
    n_heads: int = 4
    patch_length: int = 16
    stride: int = 8
    use_norm: bool = True
    calendar: Any = None
    dropout: float = 0.2

    def _parameter_relations(self) -> list[str]:
        problems = super()._parameter_relations()
        problems += head_problems(self.d_model, self.n_heads)
        if self.calendar is not None:
            problems.append(
                f"calendar={self.calendar!r} is not read by this method: set it to None"
            )
        return problems

    def _settle_roles(self, panel: Panel) -> None:
        super()._settle_roles(panel)
        # What other columns say cannot reach a target; leave them out of the batches.
        self.input_positions_ = np.sort(self.target_positions_)

    def _make_network(self) -> nn.Module:
        return PatchTSTNetwork(
            self.lookback,
            self._n_outputs,
            d_model=self.d_model,
            d_ff=self.d_ff,
            n_layers=self.n_layers,
            n_heads=self.n_heads,
            patch_length=min(self.patch_length, self.lookback),
            stride=self.stride,
            dropout=self.dropout,
            use_norm=self.use_norm,
        )

    def _n_tokens(self, n_columns: int) -> int:
        # The patches of a series are read together, so a series counts as one: on a
        # CPU, passes of fewer windows would mostly cost calls.
        return n_columns
