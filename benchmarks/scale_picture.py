"""The picture of scale.py: cost against size, one curve for each method."""

from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

Curves = dict[str, dict[int, float]]

# Colours that people with colour blindness can tell apart, and marks for print.
STYLES = {
    "S-Mamba": ("#0072B2", "o"),
    "iTransformer": ("#D55E00", "s"),
    "Gateformer": ("#009E73", "^"),
    "MambaMixer (TSM2)": ("#CC79A7", "D"),
    "PatchTST": ("#595959", "v"),
    "AR-Net (exact)": ("#E69F00", "X"),
}
AXES = {
    "variates": "variates (look-back 96, batch 8)",
    "lookback": "look-back, rows (7 variates, batch 32)",
    "series": "series of a panel (batch 32)",
}
ROWS = {"seconds": "seconds per step", "extra_mib": "extra memory at most, MiB"}


def draw(curves: dict[tuple[str, str], Curves], path: Path) -> None:
    """Draw all curves on logarithmic axes.

    Parameters
    ----------
    curves : dict
        From (axis, key) to costs by method and size.
    path : Path
        Picture to write.
    """
    figure, panels = plt.subplots(
        2, 3, figsize=(11, 6.5), sharex="col", sharey="row", layout="constrained"
    )
    for row, key in zip(panels, ROWS, strict=True):
        for panel, axis in zip(row, AXES, strict=True):
            _draw_panel(panel, curves[axis, key])
        row[0].set_ylabel(ROWS[key])
    for panel, axis in zip(panels[1], AXES, strict=True):
        panel.set_xlabel(AXES[axis])
    found = {
        label: handle
        for panel in panels.flat
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        found.values(), found, loc="outside upper center", ncols=6, frameon=False
    )
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _draw_panel(panel: Axes, curves: Curves) -> None:
    for method, curve in curves.items():
        colour, mark = STYLES[method]
        sizes = sorted(curve)
        costs = [curve[size] for size in sizes]
        panel.plot(sizes, costs, color=colour, marker=mark, markersize=5, label=method)
    panel.set_xscale("log")
    panel.set_yscale("log")
    measured = sorted({size for curve in curves.values() for size in curve})
    panel.set_xticks(measured, [f"{size:,}" for size in measured])
    panel.minorticks_off()
    panel.grid(color="#dddddd", linewidth=0.6)
    panel.spines[["top", "right"]].set_visible(False)
