"""Modules of forecasters that are linear in the window, for their export.

Axes: ``batch`` (B), lookback L, horizon H, targets T, known K, static S, groups G (1
when all targets share one map, else T).
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sciseq.data.panel import FloatArray
from sciseq.data.windows import WindowInputs
from sciseq.errors import CapabilityError

__all__ = ["LinearCore", "affine_core"]

_PROBES_PER_CHUNK = 64


class LinearCore(nn.Module):
    r"""A linear map of each target's window, in float64.

    .. math:: \hat y_h = \sum_l w_{hl} x_l + b_h + \sum_{jk} \beta_{hjk} z_{jk}
              + \sum_s \gamma_{hs} c_s

    Centred maps take the mean :math:`\mu` from the window and add it again, and the
    bias counts in units of the deviation of the window:
    :math:`\hat y = \mu + W (x - \mu) + b \sqrt{\mathrm{var}\,x + \epsilon}`.

    Parameters
    ----------
    coef : ndarray of shape (G, H, L)
        Weights of the window, oldest row first.
    intercept : ndarray of shape (G, H)
        The bias.
    targets : sequence of int
        Positions of the targets among the columns.
    known_coef : ndarray of shape (G, H, H K), optional
        Weights of what is known ahead, step by step. Where forecasts feed on earlier
        ones, earlier steps count too.
    static : sequence of int
        Positions of the static covariates among the columns.
    static_coef : ndarray of shape (G, H, S), optional
        Weights of the static covariates.
    epsilon : float, optional
        Under the root of the deviation; None: the map is not centred.
    has_gaps : bool
        NaN in a window stands for the mean of its other values.
    """

    coef: Tensor
    intercept: Tensor
    targets: Tensor
    static: Tensor
    known_coef: Tensor | None
    static_coef: Tensor | None

    def __init__(
        self,
        coef: FloatArray,
        intercept: FloatArray,
        targets: Any,
        *,
        known_coef: FloatArray | None = None,
        static: Any = (),
        static_coef: FloatArray | None = None,
        epsilon: float | None = None,
        has_gaps: bool = False,
    ) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.has_gaps = has_gaps
        for name, values in (
            ("coef", coef),
            ("intercept", intercept[:, None]),
            ("known_coef", known_coef),
            ("static_coef", static_coef),
        ):
            # Kept as factors of products: (G, L, H), (G, H, 1), ...
            kept = None if values is None else torch.from_numpy(np.array(values)).mT
            self.register_buffer(name, kept)
        for name, positions in (("targets", targets), ("static", static)):
            chosen = torch.tensor([int(one) for one in positions], dtype=torch.int64)
            self.register_buffer(name, chosen)

    def forward(self, z: Tensor, marks: Tensor | None, known: Tensor | None) -> Tensor:
        """Map scaled windows (B, L, C) to scaled forecasts (B, H, T, 1)."""
        x = z.index_select(2, self.targets).mT.unsqueeze(2)  # (B, T, 1, L)
        mean = x.mean(dim=3, keepdim=True)
        if self.has_gaps:
            observed = ~x.isnan()
            count = observed.double().sum(3, keepdim=True).clamp(min=1.0)
            mean = torch.where(observed, x, 0.0).sum(3, keepdim=True) / count
            x = torch.where(observed, x, mean)
        intercept = self.intercept.mT  # (G, 1, H)
        if self.epsilon is None:
            y = x @ self.coef + intercept  # (B, T, 1, H)
        else:
            x = x - mean
            deviation = (x.square().mean(3, keepdim=True) + self.epsilon).sqrt()
            y = mean + x @ self.coef + intercept * deviation
        if self.known_coef is not None and known is not None:
            flat = known.flatten(1)[:, None, None]  # (B, 1, 1, H K)
            y = y + flat @ self.known_coef
        if self.static_coef is not None:
            static = z[:, :1].index_select(2, self.static)[:, None]  # (B, 1, 1, S)
            y = y + static @ self.static_coef
        return y.permute(0, 3, 1, 2)


def affine_core(model: Any) -> LinearCore:
    """Read a linear forecaster's weights off its forecasts of unit windows.

    For methods whose scaled forecast of a target is an affine map of the target's own
    window, of what is known ahead of the same step, and of the static covariates.

    Parameters
    ----------
    model : forecaster
        A fitted forecaster.

    Returns
    -------
    LinearCore
        With one group for each target.

    Raises
    ------
    CapabilityError
        With ``missing="mask"``: filling gaps is no linear map.
    """
    if model.missing == "mask":
        raise CapabilityError(
            f"{type(model).__name__} fills gaps in ways that a linear map cannot",
            where="missing='mask'",
            hint="Fit with missing='interpolate', and interpolate before forecasting.",
        )
    L, n_known = model._context_length, int(model.horizon) * model._n_known
    S = len(model.static_positions_)
    responses = _responses(model, L, n_known, S)  # (1 + L + H K + S, H, T)
    bias = responses[0]
    slopes = np.moveaxis(responses[1:] - bias, 0, 2).swapaxes(0, 1)
    window, known, static = np.split(slopes, [L, L + n_known], axis=2)  # (T, H, ...)
    return LinearCore(
        window,
        bias.T,
        model.target_positions_,
        known_coef=known if n_known else None,
        static=model.static_positions_,
        static_coef=static if S else None,
    )


def _responses(model: Any, L: int, n_known: int, S: int) -> FloatArray:
    """Scaled forecasts of inputs of zeros, then of inputs with a single one."""
    parts = []
    n_inputs = L + n_known + S
    for start in range(0, 1 + n_inputs, _PROBES_PER_CHUNK):
        probes = np.arange(start, min(start + _PROBES_PER_CHUNK, 1 + n_inputs))
        is_one = (probes[:, None] == 1 + np.arange(n_inputs)).astype(np.float64)
        window, ahead, static = np.split(is_one, [L, L + n_known], axis=1)
        values = np.zeros((len(probes), L, model.n_features_in_))
        values[..., model.target_positions_] = window[:, :, None]
        values[..., model.static_positions_] = static[:, None]
        known = ahead.reshape(len(probes), int(model.horizon), -1) if n_known else None
        series = np.zeros(len(probes), dtype=np.int64)
        parts.append(model._forecast(WindowInputs(values, None, known, series)))
    return np.concatenate(parts)
