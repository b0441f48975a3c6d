"""A fitted forecaster as one module: from data units to data units.

Axes: ``batch`` (B), lookback L, horizon H, columns C, targets T, marks M, known K,
trained levels and quantiles Q.
"""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["ForecastModule", "NetworkCore"]


class NetworkCore(nn.Module):
    """The network of a forecaster between scaled windows and scaled forecasts.

    Parameters
    ----------
    model : TorchForecaster
        A fitted forecaster. Its network is copied, in float32 on the CPU.
    """

    inputs: Tensor | None
    targets: Tensor | None
    static: Tensor | None

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.network = deepcopy(model.network_).cpu().float().eval()
        self.network.requires_grad_(requires_grad=False)
        self.has_gaps = model.missing == "mask"
        self.horizon = int(model.horizon)
        self.n_levels = len(model._levels() or (0.5,))
        places = {int(one): place for place, one in enumerate(model.input_positions_)}
        targets = [places[int(one)] for one in model.target_positions_]
        _keep_positions(self, "inputs", model.input_positions_, model.n_features_in_)
        _keep_positions(self, "targets", targets, len(places))
        _keep_positions(self, "static", model.static_positions_, None)

    def forward(self, z: Tensor, marks: Tensor | None, known: Tensor | None) -> Tensor:
        """Map scaled windows (B, L, C) to scaled forecasts (B, H, T, Q)."""
        options = {}
        if known is not None:
            options["known"] = known.float()
        if self.static is not None:
            options["static"] = z[:, 0].index_select(1, self.static).float()
        x = (z if self.inputs is None else z.index_select(2, self.inputs)).float()
        observed = None
        if self.has_gaps:
            observed = ~x.isnan()
            x = torch.where(observed, x, 0.0)
        y: Tensor = self.network(x, marks, observed, **options)  # (B, H Q, V)
        if self.targets is not None:
            y = y.index_select(2, self.targets)
        # (batch, horizon and level, target) -> (batch, horizon, target, level)
        return y.reshape(-1, self.horizon, self.n_levels, y.shape[2]).transpose(2, 3)


class ForecastModule(nn.Module):
    """Scaling, a forecaster's own map of scaled windows, and the way back.

    Scaling is computed in float64: data far from zero keep their digits.

    Parameters
    ----------
    model : forecaster
        A fitted forecaster, whose scaler is the same for all series.
    core : nn.Module
        Maps ``z`` (B, L, C), ``marks`` and ``known``, all scaled, to (B, H, T, Q).
    quantiles : sequence of float
        Levels of the second output, calibrated as in ``predict_quantiles``.
    """

    mean: Tensor
    scale: Tensor
    known_mean: Tensor
    known_scale: Tensor
    target_mean: Tensor
    target_scale: Tensor
    shift: Tensor

    def __init__(self, model: Any, core: nn.Module, quantiles: Sequence[float]) -> None:
        super().__init__()
        self.core = core
        self.is_nonnegative = bool(model.nonnegative)
        levels = model._levels()
        self.median = 0 if levels is None else levels.index(0.5)
        self.places = [model._place_of(level) for level in quantiles]
        scaler, targets = model.scaler_, model.target_positions_
        calendar = np.zeros(len(model.future_calendar_))
        known = model.future_positions_
        self._keep("mean", scaler.mean)
        self._keep("scale", scaler.scale)
        self._keep("known_mean", np.concatenate([scaler.mean[known], calendar]))
        self._keep("known_scale", np.concatenate([scaler.scale[known], calendar + 1]))
        self._keep("target_mean", scaler.mean[targets])
        self._keep("target_scale", scaler.scale[targets])
        shifts = [
            model._residual_quantile(level, int(model.horizon)) for level in quantiles
        ]
        self._keep("shift", np.stack(shifts, axis=-1) if shifts else np.zeros(0))

    def _keep(self, name: str, values: Any) -> None:
        self.register_buffer(name, torch.from_numpy(np.array(values, dtype=np.float64)))

    def forward(
        self,
        x: Tensor,
        marks: Tensor | None = None,
        known: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """Forecast the rows after each window, in the units of the data.

        Parameters
        ----------
        x : Tensor, shape (batch, lookback, n_columns)
            Windows, float64.
        marks : Tensor, shape (batch, lookback, n_marks), optional
            Calendar features of the window.
        known : Tensor, shape (batch, horizon, n_known), optional
            Future covariates, then calendar features of the horizon, float64.

        Returns
        -------
        forecast : Tensor, shape (batch, horizon, n_targets)
            The forecast, as ``predict`` gives it.
        quantiles : Tensor, shape (batch, horizon, n_targets, n_quantiles)
            Only where levels are asked for.
        """
        z = (x - self.mean) / self.scale
        if known is not None:
            known = (known - self.known_mean) / self.known_scale
        levels = self.core(z, marks, known).double()  # (B, H, T, Q)
        forecast = self._restore(levels[..., self.median])
        if not self.places:
            return (forecast,)
        shifted = levels[..., self.places] + self.shift
        ordered = shifted.sort(dim=-1).values.movedim(-1, 0)  # (Q, B, H, T)
        return forecast, self._restore(ordered).movedim(0, -1)

    def _restore(self, z: Tensor) -> Tensor:
        y = z * self.target_scale + self.target_mean
        return y.clamp(min=0.0) if self.is_nonnegative else y


def _keep_positions(
    module: nn.Module, name: str, positions: Any, n_columns: int | None
) -> None:
    """Keep positions as a buffer, or None where there is nothing to choose."""
    chosen = [int(one) for one in positions]
    is_trivial = chosen == (list(range(n_columns)) if n_columns is not None else [])
    module.register_buffer(name, None if is_trivial else torch.tensor(chosen))
