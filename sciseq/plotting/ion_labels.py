"""Names at peaks that stay apart, and a peptide with its cleavages.

Sizes are in points on the paper, so that they hold for any range of m/z.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath

from sciseq.sequencing.fragments import residue_masses
from sciseq.sequencing.proforma import parse_proforma
from sciseq.sequencing.residues import RESIDUE_MASSES, Vocabulary

__all__ = ["ION_COLORS", "draw_ion_names", "draw_sequence", "ion_name", "shift_texts"]

FloatArray = npt.NDArray[np.float64]

ION_COLORS = {"b": "#0072b2", "y": "#d55e00"}

_NAME_SIZE = 7.0
_HEIGHT = 1.3 * _NAME_SIZE
_GAP = 1.5  # around a name, at each side
_LEAST_RISE, _LARGEST_RISE, _RISE_STEP = 2.0, 46.0, 3.0

_SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


def ion_name(kind: str, number: int, charge: int) -> str:
    """Return the short name of an ion.

    Examples
    --------
    >>> ion_name("b", 3, 1), ion_name("y", 12, 2)
    ('b3', 'y12²⁺')
    """
    sign = "" if charge == 1 else f"{charge}".translate(_SUPERSCRIPTS) + "⁺"
    return f"{kind}{number}{sign}"


def shift_texts(peptide: str, vocabulary: Vocabulary | None) -> list[tuple[str, str]]:
    """Return the letter of each residue, and by how many Da it is heavier than usual.

    Examples
    --------
    >>> shift_texts("[Acetyl]-SM[Oxidation]C", None)
    [('S', '+42'), ('M', '+16'), ('C', '+57')]
    """
    letters = parse_proforma(peptide).residues
    masses = residue_masses(peptide, vocabulary or Vocabulary())
    leucine = RESIDUE_MASSES["L"]
    usual = {**RESIDUE_MASSES, "I": leucine, "J": leucine}
    found = []
    for letter, mass in zip(letters, masses, strict=True):
        shift = round(float(mass) - usual.get(letter, float(mass)))
        found.append((letter, f"{shift:+d}" if shift else ""))
    return found


class _Box(NamedTuple):
    """A rectangle on the paper, in points."""

    left: float
    bottom: float
    right: float
    top: float

    def meets(self, other: "_Box") -> bool:
        return (
            self.left < other.right
            and other.left < self.right
            and self.bottom < other.top
            and other.bottom < self.top
        )


def draw_ion_names(
    axis: Axes,
    peaks: tuple[FloatArray, FloatArray],
    named: Sequence[int],
    names: Sequence[str],
    colors: Sequence[str],
    *,
    ceiling: float,
) -> None:
    """Write names above peaks, the highest first; what has no room is left out.

    Parameters
    ----------
    axis : Axes
        With its final limits and size.
    peaks : tuple of two ndarray of shape (n_peaks,)
        m/z and heights of all peaks, none of which a name may cover.
    named : sequence of int
        Peaks that have a name.
    names, colors : sequence of str
        Their names and the colours of these.
    ceiling : float
        Height up to which names may stand.
    """
    x, tops = _on_paper(axis, *peaks)
    tops = tops.copy()
    _, highest = _on_paper(axis, np.zeros(1), np.array([ceiling]))
    width = axis.get_window_extent().width * 72 / axis.figure.dpi
    boxes: list[_Box] = []
    for place in sorted(range(len(named)), key=lambda one: -tops[named[one]]):
        peak = named[place]
        half = _half_width(names[place])
        room = _free_room(half, peak, x, tops, boxes, (width, highest[0]))
        if room is None:
            continue
        box, side = room
        rise, boxes = box.bottom - float(tops[peak]), [*boxes, box]
        tops[peak] = box.bottom  # the line up to the name is in the way as well
        # Dotted, lest it be taken for a peak.
        line: dict[str, Any] = {
            "arrowstyle": "-",
            "linestyle": ":",
            "linewidth": 0.8,
            "shrinkB": 0,
        }
        line |= {"color": colors[place], "relpos": (0.5 - side / 2, 0)}
        axis.annotate(
            names[place],
            (peaks[0][peak], peaks[1][peak]),
            xytext=((box.left + box.right) / 2 - x[peak], rise),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=_NAME_SIZE,
            color=colors[place],
            arrowprops=line if rise > 6 else None,
        )


def _half_width(name: str) -> float:
    # Outlines of the letters: their size is known before anything is drawn.
    font = FontProperties(size=_NAME_SIZE)
    outlines = np.asarray(TextPath((0, 0), name, prop=font).vertices)
    return float(np.ptp(outlines[:, 0])) / 2


def _free_room(
    half: float,
    peak: int,
    x: FloatArray,
    tops: FloatArray,
    boxes: Sequence[_Box],
    limits: tuple[float, float],
) -> tuple[_Box, int] | None:
    """Return where above its peak a name has room, and to which side of it."""
    others = np.arange(len(x)) != peak
    for rise in np.arange(_LEAST_RISE, _LARGEST_RISE, _RISE_STEP):
        bottom = float(tops[peak] + rise)
        line = _Box(x[peak] - 0.5, tops[peak], x[peak] + 0.5, bottom)
        if bottom + _HEIGHT > limits[1] or any(line.meets(one) for one in boxes):
            return None
        for side in (0, 1, -1):
            box = _box(half, float(x[peak]), bottom, side)
            is_outside = box.left < -_NAME_SIZE or box.right > limits[0] + _NAME_SIZE
            is_crossed = others & (x > box.left) & (x < box.right) & (tops > bottom)
            if is_outside or is_crossed.any() or any(box.meets(one) for one in boxes):
                continue
            return box, side
    return None


def _box(half: float, x: float, bottom: float, side: int) -> _Box:
    left, right = x + (side - 1) * half, x + (side + 1) * half
    return _Box(left - _GAP, bottom, right + _GAP, bottom + _HEIGHT)


def _on_paper(
    axis: Axes, x: FloatArray, y: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return places in points from the lower left corner of the axes."""
    pixels = axis.transData.transform(np.column_stack([x, y]))
    corner = axis.get_window_extent()
    points = (pixels - (corner.x0, corner.y0)) * 72 / axis.figure.dpi
    return points[:, 0], points[:, 1]


def draw_sequence(
    axis: Axes,
    residues: Sequence[tuple[str, str]],
    found: dict[str, set[int]],
    *,
    height: float,
) -> None:
    """Write a peptide with a mark at every bond whose ions were found.

    A hook below the letters, to the left, stands for a b ion, one above them, to the
    right, for a y ion.

    Parameters
    ----------
    axis : Axes
        With its final size.
    residues : sequence of (str, str)
        See :func:`shift_texts`.
    found : dict of str to set of int
        Numbers of the ions found, for ``"b"`` and ``"y"``.
    height : float
        Where the letters stand, in heights of the axes.
    """
    size = axis.get_window_extent()
    wide, high = size.width * 72 / axis.figure.dpi, size.height * 72 / axis.figure.dpi
    n, spacing = len(residues), min(22.0, 0.96 * wide / len(residues))
    font = float(np.clip(0.62 * spacing, 5.0, 11.0))
    small = float(np.clip(0.36 * spacing, 4.0, 6.5))
    places = 0.5 + (np.arange(n) - (n - 1) / 2) * spacing / wide
    style: dict[str, Any] = {
        "transform": axis.transAxes,
        "ha": "center",
        "va": "center",
    }
    for place, (letter, shift) in zip(places, residues, strict=True):
        axis.text(place, height, letter, fontsize=font, **style)
        if shift:
            top = height + (0.75 * font + 2.2 * small) / high
            axis.text(place, top, shift, fontsize=small, color="0.35", **style)
    for kind, side in (("b", -1), ("y", 1)):
        tip = height + side * 0.85 * font / high
        hook = side * 0.32 * spacing / wide
        for number in sorted(found.get(kind, ())):
            bond = number if kind == "b" else n - number
            x = float(places[bond - 1] + places[bond]) / 2
            axis.plot(
                [x, x, x + hook],
                [height, tip, tip],
                transform=axis.transAxes,
                color=ION_COLORS[kind],
                linewidth=1.1,
                gid=f"{kind}{number}",
            )
            if spacing >= 13:
                axis.text(
                    x + hook / 2,
                    tip + side * 0.75 * small / high,
                    str(number),
                    fontsize=small,
                    color=ION_COLORS[kind],
                    **style,
                )
