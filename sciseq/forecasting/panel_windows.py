"""Windows that know which of the fitted series each of them belongs to.

Methods with parameters of their own for each series, and ensembles that pass whole
panels on to their members, need more than rows: the panel, and the place of its series
among those of fit.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sciseq.data.panel import Panel
from sciseq.data.windows import WindowInputs, WindowSet
from sciseq.forecasting.base import BaseForecaster
from sciseq.forecasting.future import FutureRows

__all__ = ["UNSEEN", "PanelForecaster", "PanelWindows"]

IntArray = npt.NDArray[np.int64]

# Place of a series that fit has not seen.
UNSEEN = -1


@dataclass(frozen=True, kw_only=True)
class PanelWindows(WindowSet):
    """Windows of a panel.

    Parameters
    ----------
    panel : Panel
        What the windows were cut from, in data units.
    places : ndarray of shape (n_series,)
        Place of each of its series among those of fit, or ``UNSEEN``.
    """

    panel: Panel
    places: IntArray

    def inputs(self, windows: IntArray | slice) -> WindowInputs:
        """As ever, with the places of the series in fit instead of in the panel."""
        places = self.places[self.series_of(windows)]
        return replace(super().inputs(windows), series=places)


class PanelForecaster(BaseForecaster):
    """Base of forecasters whose hooks see places of series among those of fit.

    ``_fit`` gets :class:`PanelWindows`, and ``inputs.series`` holds places. A model
    fitted on one series takes any series for that one. A series of several is known
    again by its label; ready-made windows are all unseen.
    """

    if TYPE_CHECKING:
        fitted_ids_: tuple[Any, ...]

    def _set_scaler(self, panel: Panel) -> None:
        # The first that sees the training rows, before windows are cut from them.
        self.fitted_ids_ = () if panel.is_windows else panel.series_ids
        super()._set_scaler(panel)

    def _places(self, labels: Sequence[Any]) -> IntArray:
        if len(self.fitted_ids_) == 1:
            return np.zeros(len(labels), dtype=np.int64)
        known = {label: place for place, label in enumerate(self.fitted_ids_)}
        return np.array([known.get(one, UNSEEN) for one in labels], dtype=np.int64)

    def _windows(self, panel: Panel, *, weights: Any = None) -> PanelWindows:
        plain = super()._windows(panel, weights=weights)
        places = self._places(panel.series_ids)
        return PanelWindows(**vars(plain), panel=panel, places=places)

    def _first_inputs(
        self, panel: Panel, future: FutureRows, n_rows: int
    ) -> WindowInputs:
        inputs = super()._first_inputs(panel, future, n_rows)
        return replace(inputs, series=self._places(panel.series_ids))
