"""Picture of a protein and the peptides that were found in it."""

from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from sciseq.errors import InputError, InputTypeError, nearest_name
from sciseq.plotting.canvas import SERIES_COLORS, place_legend, single_axes, tint
from sciseq.sequencing.protein_matches import ProteinMatches

__all__ = ["plot_protein_coverage"]

_COVERED, _UNIQUE, _SHARED = "covered", "in no other protein", "in other proteins too"
_COLORS = {
    _COVERED: "0.35",
    _UNIQUE: SERIES_COLORS[0],
    _SHARED: SERIES_COLORS[4],
}
_BARE = "0.88"

# Heights: the protein lies between 0 and 1, a row of bricks takes one more each.
_GAP, _BRICK = 0.5, 0.7
_MARGIN, _ROW, _HIGHEST = 1.5, 0.22, 9.0  # inches


def plot_protein_coverage(
    matches: ProteinMatches, protein: str | None = None, *, ax: Axes | None = None
) -> Axes:
    r"""Draw a protein as a bar, what peptides cover of it, and the peptides as bricks.

    Parameters
    ----------
    matches : ProteinMatches
        Result of :func:`sciseq.sequencing.protein_matches.match_proteins`.
    protein : str, optional
        Name of the protein, or one of the parts of a name as in
        ``sp|P02769|ALBU_BOVIN``; by default the one with most peptides.
    ax : Axes, optional
        Where to draw; by default on a new figure, as high as the bricks need.

    Returns
    -------
    Axes
        ``.figure`` is its figure. In a notebook it shows itself.

    Raises
    ------
    InputError
        When no protein has a peptide, or none or several have that name.
    InputTypeError
        When `matches` is something else.

    Notes
    -----
    A peptide that stands at two places has two bricks. Bricks lie in the lowest row
    that is free. On axes of your own there is no legend, ``ax.legend()`` makes one.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from sciseq.sequencing.protein_matches import match_proteins
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder, "one.fasta")
    ...     _ = file.write_text(">P1\nMAGIVKLLEDR\n")
    ...     matches = match_proteins(["AGLVK", "LVKLLEDR"], file)
    >>> axis = plot_protein_coverage(matches)
    >>> axis.get_title("left")
    'P1   11 residues, 2 peptides, 91% covered'
    """
    if not isinstance(matches, ProteinMatches):
        raise InputTypeError(
            f"matches is a {type(matches).__name__}, must be ProteinMatches",
            where="matches",
            hint="match_proteins gives them.",
        )
    row = _row_of(matches, protein)
    bricks = matches.peptides[matches.peptides["protein"] == row["protein"]]
    starts = bricks["start"].to_numpy(np.int64)
    ends = bricks["end"].to_numpy(np.int64)
    levels = _levels(starts, ends, gap=max(1, round(0.002 * row["length"])))
    n_levels = int(levels.max()) + 1
    axis = single_axes(ax, min(_MARGIN + _ROW * n_levels, _HIGHEST))
    _draw_protein(axis, row)
    is_unique = bricks["n_proteins"].to_numpy() == 1
    for name, chosen in ((_UNIQUE, is_unique), (_SHARED, ~is_unique)):
        if chosen.any():
            places = (starts[chosen], ends[chosen], levels[chosen])
            _draw_bricks(axis, *places, color=_COLORS[name], name=name)
    _name_axes(axis, row, n_levels)
    if ax is None:
        place_legend([axis], list(_COLORS), is_own=True)
    return axis


def _row_of(matches: ProteinMatches, protein: str | None) -> Any:
    table = matches.proteins
    if not len(table):
        raise InputError("no protein has a peptide", where="matches")
    if protein is None:
        return table.iloc[0]
    names = table["protein"].tolist()
    found = [place for place, name in enumerate(names) if name == protein]
    if not found:
        found = [
            place for place, name in enumerate(names) if protein in name.split("|")
        ]
    if len(found) != 1:
        number = f"{len(found)} proteins with a peptide are" if found else "no protein"
        verb = "called" if found else "with a peptide is called"
        raise InputError(
            f"{number} {verb} {protein!r}",
            where="protein",
            hint=nearest_name(protein, names),
        )
    return table.iloc[found[0]]


def _levels(
    starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64], gap: int
) -> npt.NDArray[np.int64]:
    """Return the lowest row in which each brick is clear of those before it."""
    levels = np.zeros(len(starts), np.int64)
    taken: list[int] = []  # last residue of each row
    for place in np.lexsort((-ends, starts)):
        free = (row for row, last in enumerate(taken) if last + gap < starts[place])
        level = next(free, len(taken))
        taken[level : level + 1] = [int(ends[place])]
        levels[place] = level
    return levels


def _draw_protein(axis: Axes, row: Any) -> None:
    axis.broken_barh([(0.5, row["length"])], (0, 1), color=_BARE, linewidth=0)
    spans = [(start - 0.5, end - start + 1) for start, end in row["intervals"]]
    axis.broken_barh(
        spans, (0, 1), color=_COLORS[_COVERED], linewidth=0, label=_COVERED
    )


def _draw_bricks(
    axis: Axes,
    starts: npt.NDArray[np.int64],
    ends: npt.NDArray[np.int64],
    levels: npt.NDArray[np.int64],
    *,
    color: str,
    name: str,
) -> None:
    axis.barh(
        1 + _GAP + levels,
        ends - starts + 1,
        left=starts - 0.5,
        height=_BRICK,
        align="edge",
        color=tint(color, 0.75),
        edgecolor=color,
        linewidth=0.6,
        label=name,
    )


def _name_axes(axis: Axes, row: Any, n_levels: int) -> None:
    axis.set_xlim(0.5, row["length"] + 0.5)
    axis.set_ylim(-0.3, 1 + _GAP + n_levels)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axis.set_xlabel("residue")
    axis.set_yticks([])
    axis.spines[["top", "right", "left"]].set_visible(False)
    one = row["n_peptides"] == 1
    axis.set_title(
        f"{row['protein']}   {row['length']} residues, {row['n_peptides']} "
        f"peptide{'' if one else 's'}, {row['coverage']:.0%} covered",
        loc="left",
        fontsize="medium",
    )
