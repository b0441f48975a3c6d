"""The picture of sequence_steps.py: one panel for each claim."""

from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

# Colours that people with colour blindness can tell apart, and marks for print.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#595959", "#E69F00", "#56B4E9")
MARKS = ("o", "s", "^", "D", "v", "X", "P")
PARITY = "parity of 6 bits"


def draw(joint: dict[str, Any], parts: dict[str, Any], path: Path) -> None:
    """Draw medians over seeds.

    Parameters
    ----------
    joint : dict
        What the cells of part joint found, by data.
    parts : dict
        What those of the other parts found.
    path : Path
        Picture to write.
    """
    figure, panels = plt.subplots(2, 3, figsize=(15, 8.5), layout="constrained")
    for panel, fill in zip(
        panels.flat,
        (_joint, _steps, _cache, _examples, _plans, _conversion),
        strict=True,
    ):
        fill(panel, joint if fill is _joint else parts)
        panel.grid(color="#dddddd", linewidth=0.6)
        panel.spines[["top", "right"]].set_visible(False)
        panel.legend(fontsize=7, frameon=False, handlelength=3.5)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _line(
    panel: Axes, index: int, x: Any, y: Any, label: str, style: str = "-"
) -> None:
    panel.plot(x, y, style, color=COLOURS[index % 7], marker=MARKS[index % 7],
               markersize=5, label=label)  # fmt: skip


def _steps_axis(panel: Axes, steps: list[int], label: str) -> None:
    panel.set_xscale("log", base=2)
    panel.set_xticks(steps, [str(one) for one in steps])
    panel.set_xlabel(label)


def _joint(panel: Axes, joint: dict[str, Any]) -> None:
    curves = {name: one["curve"] for name, one in joint[PARITY].items()
              if isinstance(one, dict)}  # fmt: skip
    for index, (name, curve) in enumerate(curves.items()):
        x = [one["steps"] for one in curve]
        _line(panel, index, x, [one["kept"] for one in curve], name)
    panel.axhline(0.5, color="black", linewidth=0.7, linestyle=":")
    _steps_axis(panel, x, "passes of the denoiser")
    panel.set_ylabel("share of right checksums")
    panel.set_title(f"Joint dependence: {PARITY}")


def _steps(panel: Axes, parts: dict[str, Any]) -> None:
    colours: dict[str, int] = {}
    for name, curve in parts["steps"]["quality"].items():
        # Both orders of a method have its colour.
        base = name.removesuffix(", random").removesuffix(", confidence")
        index = colours.setdefault(base, len(colours))
        style = "--" if name.endswith("confidence") else "-"
        x, y = ([one[key] for one in curve] for key in ("rows", "distance"))
        _line(panel, index, x, y, name, style)
    panel.set_xscale("log")
    panel.set_xlabel("rows computed for a sequence, all networks")
    panel.set_ylabel("distance of pairs from the law")
    panel.set_title("Quality against work: chain of 8 states")


def _cache(panel: Axes, parts: dict[str, Any]) -> None:
    found = parts["cache"]
    for index, start in enumerate(("no cache", "decode", "no delay", "greedy")):
        runs = sorted(
            ((one["rows"], one["pairs"]) for name, one in found.items()
             if name.startswith(start)),
        )  # fmt: skip
        _line(panel, index, *zip(*runs, strict=True), start)
    panel.set_xlabel("rows computed for a sequence")
    panel.set_ylabel("share of paired bases")
    panel.set_title("Delayed cache: hairpins")


def _examples(panel: Axes, parts: dict[str, Any]) -> None:
    found = parts["tokens"]["examples"]
    x = [one["examples"] for one in found]
    for index, name in enumerate(key for key in found[0] if key != "examples"):
        _line(panel, index, x, [one[name]["agreeing"] for one in found], name)
    panel.set_xscale("log")
    panel.set_xticks(x, [f"{one:,.0f}" for one in x])
    panel.minorticks_off()
    panel.set_xlabel("examples shown in training")
    panel.set_ylabel("share of right segments")
    panel.set_title("Complementary masks")


def _plans(panel: Axes, parts: dict[str, Any]) -> None:
    for index, (name, by_order) in enumerate(parts["tokens"]["plans"].items()):
        for order, style in (("confidence", "-"), ("random", "--")):
            _line(panel, index, (1, 2, 4, 8, 16), by_order[order],
                  f"{name}, {order}", style)  # fmt: skip
    _steps_axis(panel, [1, 2, 4, 8, 16], "passes")
    panel.set_ylabel("share of right segments")
    panel.set_title("Plans of how much is uncovered")


def _conversion(panel: Axes, parts: dict[str, Any]) -> None:
    found, index = parts["conversion"], 0
    for method in dict.fromkeys(one["method"] for one in found["bound"]):
        runs = [one for one in found["bound"] if one["method"] == method]
        for key, style in (("converted", "-"), ("scratch", "--"),
                           ("scratch, all passes", ":")):  # fmt: skip
            _line(panel, index, [one["passes"] for one in runs],
                  [one[key] for one in runs], f"{method}, {key}", style)  # fmt: skip
        index += 1
    panel.axhline(found["truth"], color="black", linewidth=0.7, linestyle=":")
    panel.set_xticks([one["passes"] for one in runs])
    panel.set_xlabel("passes over the data")
    panel.set_ylabel("bound, nats per token")
    panel.set_title("Conversion against scratch")
