"""The picture of a protein: what is covered, bricks that stay apart, names."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from sciseq.errors import InputError, InputTypeError
from sciseq.plotting import plot_protein_coverage, proteins
from sciseq.sequencing.protein_matches import match_proteins

FASTA = ">sp|P1|ONE first\nMAGIVKLLEDRAGLVKW\n>sp|P2|TWO\nGGGGLVK\n"


@pytest.fixture
def matches(tmp_path):
    path = tmp_path / "some.fasta"
    path.write_text(FASTA)
    return match_proteins(["AGLVK", "LVK", "KLLEDR", "GGG"], path)


def bars_of(axis):
    """Left and right end, and height, of each brick by its group."""
    return {
        container.get_label(): [
            (one.get_x(), one.get_x() + one.get_width(), one.get_y())
            for one in container
        ]
        for container in axis.containers
    }


def test_the_bar_is_what_is_covered_and_bricks_are_peptides(matches) -> None:
    axis = plot_protein_coverage(matches)
    whole, covered = (
        [tuple(path.get_extents().intervalx) for path in one.get_paths()]
        for one in axis.collections
    )
    assert whole == [(0.5, 17.5)]
    assert covered == [(1.5, 16.5)]  # residues 2 to 16
    bricks = bars_of(axis)
    own, shared = proteins._UNIQUE, proteins._SHARED
    assert {one[:2] for one in bricks[own]} == {
        (1.5, 6.5),
        (11.5, 16.5),
        (5.5, 11.5),
    }
    assert {one[:2] for one in bricks[shared]} == {(3.5, 6.5), (13.5, 16.5)}
    assert axis.get_title("left") == "sp|P1|ONE   17 residues, 3 peptides, 88% covered"
    assert axis.get_xlim() == (0.5, 17.5)


def test_a_protein_is_named_by_a_part(matches) -> None:
    for name in ("sp|P2|TWO", "P2", "TWO"):
        title = plot_protein_coverage(matches, name).get_title("left")
        assert title.startswith("sp|P2|TWO   7 residues")
    with pytest.raises(InputError, match="2 proteins with a peptide are called 'sp'"):
        plot_protein_coverage(matches, "sp")
    with pytest.raises(InputError, match="no protein with a peptide is called 'P3'"):
        plot_protein_coverage(matches, "P3")


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 20)), min_size=1))
def test_bricks_of_one_row_stay_apart(places) -> None:
    starts = np.array([start for start, _ in places])
    ends = starts + np.array([more for _, more in places])
    levels = proteins._levels(starts, ends, gap=2)
    for level in range(levels.max() + 1):
        row = sorted(zip(starts[levels == level], ends[levels == level], strict=True))
        assert row
        for (_, end), (start, _) in itertools.pairwise(row):
            assert start > end + 2
    # No more rows than peptides, widened by the gap, that share one residue.
    most = max(((starts <= x) & (x <= ends + 2)).sum() for x in range(100))
    assert levels.max() + 1 == most


def test_axes_of_the_caller_are_drawn_on(matches) -> None:
    axis = Figure().subplots()
    assert plot_protein_coverage(matches, ax=axis) is axis
    assert not axis.figure.legends
    assert plot_protein_coverage(matches).figure.legends


def test_what_is_no_match_is_refused(matches, tmp_path) -> None:
    with pytest.raises(InputTypeError, match="must be ProteinMatches"):
        plot_protein_coverage(matches.peptides)
    none = match_proteins(["WWW"], tmp_path / "some.fasta")
    with pytest.raises(InputError, match="no protein has a peptide"):
        plot_protein_coverage(none)
