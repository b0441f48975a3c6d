"""What networks that forecast a window share: checks and normalisation.

Axes: ``batch`` (B), ``time`` (look-back L), ``variate`` (V), ``output`` (O, a multiple
of the horizon H).
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from sciseq.errors import InputError
from sciseq.nn import instance_normalize

__all__ = ["WindowNetwork"]


class WindowNetwork(nn.Module, ABC):
    """Base of networks that normalise a window, forecast it and undo the scale.

    A subclass gives :meth:`forecast_normalized`.

    Parameters
    ----------
    lookback : int
        Number of input steps L.
    use_norm : bool, default True
        Normalise each window by its own statistics and undo it on the forecast.

    Notes
    -----
    Card: forecasting §0.1. With ``use_norm=True`` outputs and gradients stay finite
    for inputs between 1e-30 and 1e30; without it, standardise the inputs.
    """

    def __init__(self, lookback: int, use_norm: bool = True) -> None:
        super().__init__()
        self.lookback = lookback
        self.use_norm = use_norm

    @abstractmethod
    def forecast_normalized(
        self,
        z: Tensor,
        marks: Tensor | None,
        known: Tensor | None,
        static: Tensor | None,
    ) -> Tensor:
        """Map normalised windows (B, L, V) to forecasts (B, O, V) of their scale."""

    def forward(
        self,
        x: Tensor,
        marks: Tensor | None = None,
        observed: Tensor | None = None,
        known: Tensor | None = None,
        static: Tensor | None = None,
    ) -> Tensor:
        """Forecast the steps after each window.

        Parameters
        ----------
        x : Tensor, shape (batch, lookback, n_variates)
            Windows.
        marks : Tensor, shape (batch, lookback, n_marks), optional
            Time marks of the input steps; they are never normalised.
        observed : bool Tensor, shape (batch, lookback, n_variates), optional
            False where a value of ``x`` is missing; there it enters as the mean of
            its window (as zero with ``use_norm=False``).
        known : Tensor, shape (batch, horizon, n_known), optional
            Channels known over the horizon, in a network built for them.
        static : Tensor, shape (batch, n_static), optional
            Static values of the series, in a network built for them.

        Returns
        -------
        Tensor, shape (batch, n_outputs, n_variates)
            Forecasts, in the units of ``x``.

        Raises
        ------
        InputError
            When a shape does not fit, or ``observed`` is not boolean.
        """
        z, mean, scale = self.normalize(x, marks, observed)
        y = self.forecast_normalized(z, marks, known, static)
        return y if mean is None or scale is None else torch.addcmul(mean, y, scale)

    def normalize(
        self, x: Tensor, marks: Tensor | None, observed: Tensor | None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Check the inputs; return them normalised, with mean and scale if used."""
        self._check_shapes(x, marks, observed)
        if self.use_norm:
            return instance_normalize(x, observed)
        return x if observed is None else torch.where(observed, x, 0.0), None, None

    def _check_shapes(
        self, x: Tensor, marks: Tensor | None, observed: Tensor | None
    ) -> None:
        place = type(self).__name__
        if x.ndim != 3 or x.shape[1] != self.lookback:
            raise InputError(
                f"x has shape {tuple(x.shape)}, must be (batch, {self.lookback}, "
                "n_variates)",
                where=f"{place}, x",
            )
        if marks is not None and (marks.ndim != 3 or marks.shape[:2] != x.shape[:2]):
            raise InputError(
                f"marks has shape {tuple(marks.shape)}, must be ({x.shape[0]}, "
                f"{self.lookback}, n_marks)",
                where=f"{place}, marks",
                hint="Give the marks of the input rows only.",
            )
        if observed is not None and (
            observed.shape != x.shape or observed.dtype != torch.bool
        ):
            raise InputError(
                f"observed has shape {tuple(observed.shape)} and dtype "
                f"{observed.dtype}, must be {tuple(x.shape)} like x and torch.bool",
                where=f"{place}, observed",
            )
