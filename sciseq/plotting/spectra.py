"""Pictures of fragment spectra, and of which peaks a peptide explains."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter

from sciseq.errors import InputError, InputTypeError
from sciseq.plotting.canvas import SERIES_COLORS, place_legend, single_axes, tidy, tint
from sciseq.plotting.ion_labels import (
    ION_COLORS,
    draw_ion_names,
    draw_sequence,
    ion_name,
    shift_texts,
)
from sciseq.sequencing.fragments import annotate, fragment_ladder, residue_masses
from sciseq.sequencing.residues import Vocabulary
from sciseq.sequencing.spectra import SkippedSpectrum, Spectrum

__all__ = ["plot_mirror", "plot_spectrum"]

FloatArray = npt.NDArray[np.float64]

_OTHER, _OTHER_COLOR = "other peaks", "0.72"
# Heights in percent: names stand up to the second, the peptide between it and the end.
_NAMES_UP_TO, _END = 116.0, 152.0
_MIRROR_NAMES_UP_TO, _MIRROR_END = 114.0, 126.0


def plot_spectrum(
    spectrum: Spectrum,
    peptide: str | None = None,
    *,
    vocabulary: Vocabulary | None = None,
    tolerance_ppm: float = 20.0,
    ax: Axes | None = None,
) -> Axes:
    """Draw a fragment spectrum, and which of its peaks a peptide explains.

    Parameters
    ----------
    spectrum : Spectrum
        The spectrum.
    peptide : str, optional
        ProForma. By default the annotation of the spectrum; ``""`` draws the peaks
        alone.
    vocabulary : Vocabulary, optional
        How letters and names are read; default ``Vocabulary()``.
    tolerance_ppm : float, default=20.0
        Largest distance of a peak from its ion, in parts per million.
    ax : Axes, optional
        Where to draw; by default on a new figure.

    Returns
    -------
    Axes
        ``.figure`` is its figure. In a notebook it shows itself.

    Raises
    ------
    InputTypeError
        When it is no spectrum.
    InputError
        When the spectrum was skipped, or the peptide cannot be read.

    Notes
    -----
    b and y ions are those of :func:`sciseq.sequencing.fragments.annotate`, a peak that
    is near several ions has the name of the nearest. Above stands the peptide; a hook
    below the letters marks a b ion, one above them a y ion, and a small number by how
    many Da a residue is heavier than usual. Names without room are left out, those of
    low peaks first. On axes of your own there is no legend, ``ax.legend()`` makes one.

    Examples
    --------
    >>> from sciseq.sequencing.spectra import Spectrum
    >>> spectrum = Spectrum([58.0288, 100.0], [5.0, 1.0], precursor_mz=102.57, charge=2)
    >>> axis = plot_spectrum(spectrum, "GK")
    >>> [text.get_text() for text in axis.texts]
    ['G', 'K', '1', 'b1']
    """
    _check_spectrum(spectrum, "spectrum")
    peptide = spectrum.peptide if peptide is None else peptide
    heights = _percent(spectrum)
    axis = single_axes(ax, 4.2)
    if not peptide:
        axis.vlines(spectrum.mz, 0, heights, color="0.3", linewidth=0.9)
        _name_axes(axis, spectrum.mz, (0, 105))
        axis.set_title(_title(spectrum), loc="left", fontsize="medium")
        return axis
    residues = shift_texts(peptide, vocabulary)
    table = annotate(spectrum, peptide, vocabulary, tolerance_ppm, types="by")
    ions = _nearest_ions(table)
    _draw_peaks(axis, spectrum.mz, heights, ions)
    _name_axes(axis, spectrum.mz, (0, _END))
    axis.set_title(_title(spectrum), loc="left", fontsize="medium")
    _settle(axis, ["b ions", "y ions", _OTHER], is_own=ax is None)
    numbers = table.groupby("type")["number"]
    found = {str(kind): set(ones.tolist()) for kind, ones in numbers}
    # Below the middle: above the letters stands more than below them.
    draw_sequence(
        axis, residues, found, height=(0.6 * _NAMES_UP_TO + 0.4 * _END) / _END
    )
    _name_ions(axis, spectrum.mz, heights, ions, _NAMES_UP_TO)
    return axis


def plot_mirror(
    spectrum: Spectrum,
    other: Spectrum | str,
    *,
    labels: Sequence[str] | None = None,
    vocabulary: Vocabulary | None = None,
    tolerance_ppm: float = 20.0,
    ax: Axes | None = None,
) -> Axes:
    """Draw two spectra against each other, the second one upside down.

    Parameters
    ----------
    spectrum : Spectrum
        Drawn upwards.
    other : Spectrum or str
        Drawn downwards: a spectrum, or a peptide in ProForma, of which the b and y
        ions are drawn, all of one height.
    labels : sequence of two str, optional
        Names of the two; by default identifier or title, and the peptide.
    vocabulary : Vocabulary, optional
        How letters and names are read; default ``Vocabulary()``.
    tolerance_ppm : float, default=20.0
        Largest distance of two peaks that are the same, in parts per million.
    ax : Axes, optional
        Where to draw; by default on a new figure.

    Returns
    -------
    Axes
        ``.figure`` is its figure. In a notebook it shows itself.

    Raises
    ------
    InputTypeError
        When an argument is neither a spectrum nor, the second one, a peptide.
    InputError
        When a spectrum was skipped, the peptide cannot be read, or there are not two
        labels.

    Notes
    -----
    Peaks without a partner on the other side are grey, ions without one are pale.
    Ions of charge z are drawn to 1/z of the height. On axes of your own there is no
    legend, ``ax.legend()`` makes one.

    Examples
    --------
    >>> from sciseq.sequencing.spectra import Spectrum
    >>> spectrum = Spectrum([58.0288, 100.0], [5.0, 1.0], precursor_mz=102.57, charge=2)
    >>> axis = plot_mirror(spectrum, "GK")
    >>> axis.get_ylim() == (-126.0, 126.0)
    True
    """
    _check_spectrum(spectrum, "spectrum")
    if not isinstance(other, str):
        _check_spectrum(other, "other")
    names = _two_labels(labels, spectrum, other)
    upper = _percent(spectrum)
    axis = single_axes(ax, 4.6)
    ions: dict[int, tuple[str, str]] = {}
    if isinstance(other, str):
        table = annotate(spectrum, other, vocabulary, tolerance_ppm, types="by")
        ions = _nearest_ions(table)
        _draw_peaks(axis, spectrum.mz, upper, ions)
        lower_mz = _draw_ladder(axis, spectrum, other, vocabulary, ions)
        shown = ["b ions", "y ions", _OTHER]
    else:
        lower_mz = other.mz
        pair = ((spectrum.mz, upper), (other.mz, -_percent(other)))
        _draw_pair(axis, pair, tolerance_ppm)
        shown = ["in both", _OTHER]
    axis.axhline(0, color="0.3", linewidth=0.8)
    both = np.concatenate([spectrum.mz, lower_mz])
    _name_axes(axis, both, (-_MIRROR_END, _MIRROR_END))
    for name, height, va in zip(names, (0.985, 0.015), ("top", "bottom"), strict=True):
        style: dict[str, Any] = {"ha": "right", "va": va, "fontsize": "small"}
        axis.text(0.995, height, name, transform=axis.transAxes, **style)
    _settle(axis, shown, is_own=ax is None)
    _name_ions(axis, spectrum.mz, upper, ions, _MIRROR_NAMES_UP_TO)
    return axis


def _check_spectrum(spectrum: Any, name: str) -> None:
    if isinstance(spectrum, SkippedSpectrum):
        raise InputError(
            f"the spectrum was skipped: {spectrum.explanation}",
            where=f"{name}, {spectrum.identifier}",
        )
    if not isinstance(spectrum, Spectrum):
        raise InputTypeError(
            f"{name} is a {type(spectrum).__name__}, must be a Spectrum",
            where=name,
            hint="read_spectra gives them.",
        )


def _percent(spectrum: Spectrum) -> FloatArray:
    heights = np.maximum(spectrum.intensity, 0.0)
    return heights / max(float(heights.max()), np.finfo(float).tiny) * 100


def _nearest_ions(table: Any) -> dict[int, tuple[str, str]]:
    """Return kind and name of the ion nearest to each peak that has one."""
    order = table["error_ppm"].abs().sort_values(kind="stable").index
    nearest = table.loc[order].drop_duplicates("peak")
    columns = (nearest[one] for one in ("peak", "type", "number", "charge"))
    return {
        int(peak): (str(kind), ion_name(str(kind), int(number), int(charge)))
        for peak, kind, number, charge in zip(*columns, strict=True)
    }


def _draw_peaks(
    axis: Axes,
    mz: FloatArray,
    heights: FloatArray,
    ions: Mapping[int, tuple[str, str]],
) -> None:
    """Draw stems, those of ions in their colours."""
    kinds = np.array([ions.get(peak, ("", ""))[0] for peak in range(len(mz))])
    groups = [("", _OTHER_COLOR, _OTHER)]
    groups += [(kind, color, f"{kind} ions") for kind, color in ION_COLORS.items()]
    for kind, color, label in groups:
        at = kinds == kind
        width = 1.3 if kind else 0.8
        axis.vlines(mz[at], 0, heights[at], color=color, linewidth=width, label=label)


def _draw_ladder(
    axis: Axes,
    spectrum: Spectrum,
    peptide: str,
    vocabulary: Vocabulary | None,
    ions: Mapping[int, tuple[str, str]],
) -> FloatArray:
    """Draw all ions of a peptide downwards, and return their m/z."""
    masses = residue_masses(peptide, vocabulary or Vocabulary())
    charges = range(1, max(2, spectrum.charge or 1))
    ladder = fragment_ladder(masses, "by", charges)
    parts = zip(ladder.type, ladder.number, ladder.charge, strict=True)
    found = {name for _, name in ions.values()}
    is_found = np.array(
        [ion_name(str(t), int(n), int(z)) in found for t, n, z in parts]
    )
    # Ions of higher charge are rarer: shorter, so that both can be seen.
    depths = -100 / ladder.charge
    for kind, color in ION_COLORS.items():
        for at, shade in ((~is_found, tint(color, 0.35)), (is_found, color)):
            at = at & (ladder.type == kind)
            axis.vlines(ladder.mz[at], 0, depths[at], color=shade, linewidth=1.0)
    return ladder.mz


def _draw_pair(
    axis: Axes,
    pair: tuple[tuple[FloatArray, FloatArray], tuple[FloatArray, FloatArray]],
    tolerance_ppm: float,
) -> None:
    (upper, _), (lower, _) = pair
    for (mz, heights), partner in zip(pair, (lower, upper), strict=True):
        right = np.searchsorted(partner, mz).clip(0, len(partner) - 1)
        left = (right - 1).clip(0)
        distance = np.minimum(np.abs(mz - partner[left]), np.abs(mz - partner[right]))
        is_shared = distance <= mz * tolerance_ppm * 1e-6
        for at, color, width, label in (
            (~is_shared, _OTHER_COLOR, 0.8, _OTHER),
            (is_shared, SERIES_COLORS[0], 1.3, "in both"),
        ):
            axis.vlines(
                mz[at], 0, heights[at], color=color, linewidth=width, label=label
            )


def _name_axes(axis: Axes, mz: FloatArray, limits: tuple[float, float]) -> None:
    margin = 0.02 * float(mz.max() - mz.min()) + 2.0
    axis.set_xlim(float(mz.min()) - margin, float(mz.max()) + margin)
    axis.set_ylim(*limits)
    axis.set_xlabel("m/z")
    axis.set_ylabel("intensity (% of the highest)")
    lowest = -100 if limits[0] < 0 else 0
    axis.yaxis.set_major_locator(FixedLocator(list(range(lowest, 101, 25))))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{abs(y):.0f}"))
    tidy(axis)


def _settle(axis: Axes, names: Sequence[str], *, is_own: bool) -> None:
    """Give an own figure its legend and its final layout, on which names depend.

    On the axes of a caller a legend would cover peaks.
    """
    if is_own:
        assert isinstance(axis.figure, Figure)
        place_legend([axis], names, is_own=True)
        axis.figure.draw_without_rendering()


def _name_ions(
    axis: Axes,
    mz: FloatArray,
    heights: FloatArray,
    ions: Mapping[int, tuple[str, str]],
    ceiling: float,
) -> None:
    names = [name for _, name in ions.values()]
    colors = [ION_COLORS[kind] for kind, _ in ions.values()]
    draw_ion_names(axis, (mz, heights), list(ions), names, colors, ceiling=ceiling)


def _title(spectrum: Spectrum) -> str:
    name = _short(spectrum.title or spectrum.identifier, 60)
    charge = f", {spectrum.charge}+" if spectrum.charge else ""
    parts = [name, f"precursor {spectrum.precursor_mz:.4f}{charge}"]
    return "   ".join(part for part in parts if part)


def _short(text: str, most: int) -> str:
    """Cut the middle out of a text that is too long for the picture."""
    half = most // 2
    return text if len(text) <= most else f"{text[: half - 1]}…{text[-half:]}"


def _two_labels(
    labels: Sequence[str] | None, spectrum: Spectrum, other: Spectrum | str
) -> tuple[str, str]:
    if labels is None:
        lower = _short(other, 100) if isinstance(other, str) else _title(other)
        return _title(spectrum), lower
    if isinstance(labels, str) or len(labels) != 2:
        raise InputError(
            f"labels is {labels!r}, must be two texts, upper and lower", where="labels"
        )
    return str(labels[0]), str(labels[1])
