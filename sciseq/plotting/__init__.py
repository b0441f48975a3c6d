"""Pictures of forecasts, errors, explanations, spectra and training.

Every picture takes ``ax``: it draws there and gives back what it was given. Without
``ax`` it makes a figure of its own, without pyplot, and gives back the new axes, whose
``.figure`` is the figure. A picture with one panel per column takes and gives an array.

>>> import numpy as np
>>> axes = plot_forecast(np.zeros((20, 2)), np.zeros((5, 2)))
>>> len(axes), axes.figure.axes == list(axes)
(2, True)
"""

from sciseq.plotting.canvas import (
    FIGURE_SUFFIXES,
    check_figure_path,
    save_figure,
)
from sciseq.plotting.errors import plot_error_by_step, plot_variate_heatmap
from sciseq.plotting.explanations import (
    plot_coefficients,
    plot_gates,
    plot_importance,
)
from sciseq.plotting.fans import plot_backtest_fan
from sciseq.plotting.forecasts import plot_forecast
from sciseq.plotting.panels import MAX_PANELS, AxesArray
from sciseq.plotting.peptides import (
    plot_precision_coverage,
    plot_residue_confidence,
)
from sciseq.plotting.proteins import plot_protein_coverage
from sciseq.plotting.spectra import plot_mirror, plot_spectrum
from sciseq.plotting.training import plot_history

__all__ = [
    "FIGURE_SUFFIXES",
    "MAX_PANELS",
    "AxesArray",
    "check_figure_path",
    "plot_backtest_fan",
    "plot_coefficients",
    "plot_error_by_step",
    "plot_forecast",
    "plot_gates",
    "plot_history",
    "plot_importance",
    "plot_mirror",
    "plot_precision_coverage",
    "plot_protein_coverage",
    "plot_residue_confidence",
    "plot_spectrum",
    "plot_variate_heatmap",
    "save_figure",
]
