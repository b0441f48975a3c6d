"""Spectra, residue scores and precision: what is drawn, and that names stay apart."""

import itertools

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import same_color
from matplotlib.figure import Figure
from matplotlib.text import Text

from sciseq.errors import InputError, InputTypeError
from sciseq.plotting import (
    ion_labels,
    plot_mirror,
    plot_precision_coverage,
    plot_residue_confidence,
    plot_spectrum,
)
from sciseq.sequencing.evaluation import evaluate
from sciseq.sequencing.fragments import annotate, fragment_ladder, residue_masses
from sciseq.sequencing.residues import Vocabulary, mz_of
from sciseq.sequencing.spectra import SkippedSpectrum, Spectrum
from sciseq.sequencing.spectrum_files import read_spectra

BLUE, RED = ion_labels.ION_COLORS["b"], ion_labels.ION_COLORS["y"]
PEPTIDE = "[Acetyl]-GM[Oxidation]LVDEFK"


def spectrum_of(peptide: str, *, charge: int = 2, noise: int = 30) -> Spectrum:
    """All b and y ions of charge 1, the first b ion left out, and noise."""
    rng = np.random.default_rng(0)
    masses = residue_masses(peptide, Vocabulary())
    ladder = fragment_ladder(masses).mz[1:]
    mz = np.concatenate([ladder, rng.uniform(100, 900, noise)])
    intensity = rng.uniform(10, 100, len(mz)) * np.repeat(
        [1, 0.2], [len(ladder), noise]
    )
    return Spectrum(
        mz,
        intensity,
        float(mz_of(masses.sum() + 18.010565, charge)),
        charge,
        identifier="index=3",
    )


def drawn(axis, label):
    """The stems of a group as rows (m/z, height), and their colour."""
    found = [one for one in axis.collections if one.get_label() == label]
    (group,) = found
    segments = np.array(group.get_segments()).reshape(-1, 2, 2)
    np.testing.assert_array_equal(segments[:, 0, 0], segments[:, 1, 0])
    np.testing.assert_array_equal(segments[:, 0, 1], 0)
    return segments[:, 1], group.get_colors()[0]


def names_of(axis):
    return [text for text in axis.texts if text.get_text()[0] in "by"]


def hooks_of(axis):
    return {line.get_gid() for line in axis.get_lines() if line.get_gid()}


def test_ions_have_their_colours_and_all_peaks_are_drawn() -> None:
    spectrum = spectrum_of(PEPTIDE)
    axis = plot_spectrum(spectrum, PEPTIDE)
    table = annotate(spectrum, PEPTIDE, types="by")
    heights = spectrum.intensity / spectrum.intensity.max() * 100
    left = set(range(len(spectrum.mz)))
    for kind, color in (("b", BLUE), ("y", RED)):
        peaks = np.sort(table["peak"][table["type"] == kind].to_numpy())
        stems, own = drawn(axis, f"{kind} ions")
        np.testing.assert_allclose(stems[:, 0], spectrum.mz[peaks])
        np.testing.assert_allclose(stems[:, 1], heights[peaks])
        assert same_color(own, color)
        left -= set(peaks.tolist())
    stems, own = drawn(axis, "other peaks")
    np.testing.assert_allclose(stems[:, 0], spectrum.mz[sorted(left)])
    assert same_color(own, "0.72")
    assert len(left) == 30
    (legend,) = axis.figure.legends
    assert [one.get_text() for one in legend.get_texts()] == [
        "b ions",
        "y ions",
        "other peaks",
    ]
    assert axis.get_xlabel() == "m/z"
    assert (
        axis.get_title("left") == f"index=3   precursor {spectrum.precursor_mz:.4f}, 2+"
    )


def test_the_peptide_stands_above_with_a_hook_at_each_bond_found() -> None:
    axis = plot_spectrum(spectrum_of(PEPTIDE), PEPTIDE)
    assert hooks_of(axis) == {f"b{n}" for n in range(2, 8)} | {
        f"y{n}" for n in range(1, 8)
    }
    letters = [one for one in axis.texts if one.get_text() in "GMLVDEFK"]
    assert "".join(one.get_text() for one in letters) == "GMLVDEFK"
    shifts = [one for one in axis.texts if one.get_text() in {"+42", "+16"}]
    for shift, letter in zip(shifts, letters[:2], strict=True):
        assert shift.get_position()[0] == letter.get_position()[0]
        assert shift.get_position()[1] > letter.get_position()[1]
    # b3 and y5 break the same bond: below and to the left, above and to the right.
    lines = {line.get_gid(): line.get_xydata() for line in axis.get_lines()}
    assert lines["b3"][0, 0] == lines["y5"][0, 0]
    assert (
        letters[2].get_position()[0] < lines["b3"][0, 0] < letters[3].get_position()[0]
    )
    assert lines["b3"][2, 0] < lines["b3"][1, 0] < lines["y5"][2, 0]
    assert lines["b3"][2, 1] < letters[2].get_position()[1] < lines["y5"][2, 1]


def test_names_say_the_ion_and_stand_at_their_peaks() -> None:
    spectrum = spectrum_of(PEPTIDE, noise=0)
    axis = plot_spectrum(spectrum, PEPTIDE)
    table = annotate(spectrum, PEPTIDE, types="by").set_index("ion")
    named = names_of(axis)
    assert {one.get_text() for one in named} == set(table.index)
    for text in named:
        assert text.xy[0] == table["peak_mz"][text.get_text()]
        assert same_color(text.get_color(), {"b": BLUE, "y": RED}[text.get_text()[0]])


def test_higher_charges_are_written_small() -> None:
    ladder = fragment_ladder(residue_masses(PEPTIDE, Vocabulary()), "y", (2,))
    spectrum = Spectrum(ladder.mz, np.ones(7), 350.0, charge=3)
    names = {one.get_text() for one in names_of(plot_spectrum(spectrum, PEPTIDE))}
    assert "y4²⁺" in names
    assert ion_labels.ion_name("b", 10, 3) == "b10³⁺"


def overlaps(axis) -> list[tuple[str, str]]:
    """Pairs of names that cover each other in the finished picture."""
    figure = axis.figure
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    # The text alone: an annotation's extent has its line in it.
    extents = [
        (text.get_text(), Text.get_window_extent(text, renderer))
        for text in names_of(axis)
    ]
    return [
        (one, other)
        for (one, box), (other, second) in itertools.combinations(extents, 2)
        if min(box.x1, second.x1) - max(box.x0, second.x0) > 1
        and min(box.y1, second.y1) - max(box.y0, second.y0) > 1
    ]


def crowded_spectrum() -> Spectrum:
    peptide = "SPNLLMSDADMDWAVEQAHFALFFNQGQAGSR"
    masses = residue_masses(peptide, Vocabulary())
    ladder = fragment_ladder(masses, charges=(1, 2))
    heights = np.random.default_rng(1).uniform(5, 100, len(ladder))
    return Spectrum(ladder.mz, heights, 1180.0, charge=3, peptide=peptide)


def test_names_stay_apart() -> None:
    axis = plot_spectrum(crowded_spectrum())
    assert len(names_of(axis)) > 30
    assert overlaps(axis) == []


def test_names_put_anywhere_would_be_seen_to_overlap(monkeypatch) -> None:
    def anywhere(half, peak, x, tops, boxes, limits):
        return ion_labels._box(half, float(x[peak]), float(tops[peak]) + 2, 0), 0

    monkeypatch.setattr(ion_labels, "_free_room", anywhere)
    assert len(overlaps(plot_spectrum(crowded_spectrum()))) > 10


def test_a_name_covers_no_higher_peak_and_stays_below_the_peptide() -> None:
    spectrum = crowded_spectrum()
    axis = plot_spectrum(spectrum)
    FigureCanvasAgg(axis.figure).draw()
    renderer = axis.figure.canvas.get_renderer()
    heights = spectrum.intensity / spectrum.intensity.max() * 100
    pixels = axis.transData.transform(np.column_stack([spectrum.mz, heights]))
    for text in names_of(axis):
        box = Text.get_window_extent(text, renderer)
        x = axis.transData.transform(text.xy)[0]
        inside = (pixels[:, 0] > box.x0 + 1) & (pixels[:, 0] < box.x1 - 1)
        inside &= np.abs(pixels[:, 0] - x) > 0.01
        assert not (inside & (pixels[:, 1] > box.y0 + 2)).any(), text.get_text()
        assert axis.transData.inverted().transform((box.x0, box.y1))[1] < 120


def test_peaks_alone_have_one_colour_and_no_names() -> None:
    spectrum = spectrum_of(PEPTIDE)
    axis = plot_spectrum(spectrum)
    (stems,) = axis.collections
    assert len(stems.get_segments()) == len(spectrum.mz)
    assert not axis.texts
    assert not axis.figure.legends
    annotated = crowded_spectrum()
    assert names_of(plot_spectrum(annotated))
    assert not names_of(plot_spectrum(annotated, ""))


def test_given_axes_are_used_and_have_no_legend() -> None:
    figure = Figure(figsize=(10, 6), layout="constrained")
    axes = figure.subplots(1, 2)
    spectrum = crowded_spectrum()
    assert plot_spectrum(spectrum, ax=axes[0]) is axes[0]
    assert plot_mirror(spectrum, spectrum.peptide, ax=axes[1]) is axes[1]
    for axis in axes:
        assert axis.get_legend() is None
        assert len(names_of(axis)) > 3
        assert overlaps(axis) == []
    assert not figure.legends
    with pytest.raises(InputTypeError, match="must be matplotlib Axes"):
        plot_spectrum(spectrum, ax=figure)


def test_long_titles_are_cut_in_the_middle() -> None:
    spectrum = Spectrum([100.0], [1.0], 450.2, 2, title="first" + 90 * "-" + "last")
    title = plot_spectrum(spectrum).get_title("left")
    assert title.startswith("first---")
    assert title.endswith("--last   precursor 450.2000, 2+")
    assert len(title.split("   ")[0]) == 60


def test_what_is_no_spectrum_is_refused() -> None:
    with pytest.raises(InputTypeError, match="spectrum is a str"):
        plot_spectrum("a.mgf")
    skipped = SkippedSpectrum("no_peaks", "the peak list is empty", "index=3")
    with pytest.raises(InputError, match="the peak list is empty"):
        plot_spectrum(skipped)
    with pytest.raises(InputTypeError, match="other is a list"):
        plot_mirror(crowded_spectrum(), [])
    with pytest.raises(InputError, match="labels is 'ab'"):
        plot_mirror(crowded_spectrum(), "GAK", labels="ab")


def test_the_tolerance_decides_what_is_an_ion() -> None:
    ladder = fragment_ladder(residue_masses(PEPTIDE, Vocabulary()))
    spectrum = Spectrum(ladder.mz * (1 + 30e-6), np.ones(14), 450.0, charge=2)
    assert not names_of(plot_spectrum(spectrum, PEPTIDE))
    assert len(hooks_of(plot_spectrum(spectrum, PEPTIDE, tolerance_ppm=40))) == 14


def test_two_spectra_mirror_each_other() -> None:
    upper = Spectrum([200.0, 300.0, 400.0], [1.0, 2.0, 4.0], 450.0, 2, "index=0")
    lower = Spectrum([200.002, 350.0, 400.02], [5.0, 10.0, 5.0], 450.0, 2, "index=1")
    axis = plot_mirror(upper, lower)
    groups = {}
    for one in axis.collections:
        rows = [tuple(segment[1].tolist()) for segment in one.get_segments()]
        groups.setdefault(one.get_label(), []).extend(rows)
        is_grey = same_color(one.get_colors()[0], "0.72")
        assert is_grey == (one.get_label() == "other peaks")
    # 400 and 400.02 are 50 ppm apart.
    assert groups["in both"] == [(200.0, 25.0), (200.002, -50.0)]
    assert sorted(groups["other peaks"]) == [
        (300.0, 50.0),
        (350.0, -100.0),
        (400.0, 100.0),
        (400.02, -50.0),
    ]
    assert [one.get_text()[:7] for one in axis.texts] == ["index=0", "index=1"]
    low, high = axis.get_ylim()
    assert low == -high
    axis.figure.canvas.draw()
    assert [one.get_text() for one in axis.get_yticklabels()][::2] == [
        *("100", "50", "0", "50", "100")
    ]


def test_a_peptide_is_mirrored_as_its_ladder() -> None:
    spectrum = spectrum_of(PEPTIDE, charge=3)
    axis = plot_mirror(spectrum, PEPTIDE, labels=("measured", "calculated"))
    ladder = fragment_ladder(residue_masses(PEPTIDE, Vocabulary()), charges=(1, 2))
    drawn_down = [
        (segment[1, 0], segment[1, 1], tuple(one.get_colors()[0]))
        for one in axis.collections
        for segment in one.get_segments()
        if segment[1, 1] < 0
    ]
    by_mz = {mz: (height, color) for mz, height, color in drawn_down}
    assert sorted(by_mz) == sorted(ladder.mz.tolist())
    found = set(annotate(spectrum, PEPTIDE, types="by")["ion"])
    for name, mz, kind, charge in zip(
        ladder.names, ladder.mz, ladder.type, ladder.charge, strict=True
    ):
        height, color = by_mz[mz]
        assert height == -100 / charge
        assert same_color(color, ion_labels.ION_COLORS[kind]) == (name in found), name
    texts = [one.get_text() for one in axis.texts]
    assert texts[:2] == ["measured", "calculated"]
    assert set(texts[2:]) <= {one for one in found}


def test_bars_stand_at_their_residues() -> None:
    scores = [0.9, 0.2, 1.0, 0.0, 0.5, 0.6, 0.7, 0.8]
    axis = plot_residue_confidence(PEPTIDE, scores)
    assert [bar.get_height() for bar in axis.patches] == scores
    texts = [one.get_text() for one in axis.get_xticklabels()]
    assert texts == ["G\n+42", "M\n+16", *(f"{one}\n" for one in "LVDEFK")]
    assert axis.get_ylim() == (0, 1)
    row = pd.DataFrame(
        {"peptide": ["GAK"], "residue_scores": [[0.5, 0.25, 1.0]], "score": [0.125]}
    ).iloc[0]
    axis = plot_residue_confidence(row)
    assert [bar.get_height() for bar in axis.patches] == [0.5, 0.25, 1.0]
    assert axis.get_title("left") == "GAK   score 0.125"
    mine = Figure().subplots()
    assert plot_residue_confidence(row, [0.1, 0.2, 0.3], ax=mine) is mine
    assert [bar.get_height() for bar in mine.patches] == [0.1, 0.2, 0.3]


def test_scores_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match=r"shape \(2,\), 'GAK' has 3 residues"):
        plot_residue_confidence("GAK", [0.5, 0.5])
    with pytest.raises(InputError, match=r"reach from 0\.5 to 1\.5"):
        plot_residue_confidence("GAK", [0.5, 1.5, 1.0])
    with pytest.raises(InputError, match="must be in"):
        plot_residue_confidence("GAK", [0.5, np.nan, 1.0])
    row = {"peptide": None, "residue_scores": None, "reason": "the charge is not known"}
    with pytest.raises(InputError, match="the charge is not known"):
        plot_residue_confidence(row)
    with pytest.raises(InputTypeError, match="a int is neither"):
        plot_residue_confidence(3)


def test_precision_is_drawn_over_coverage() -> None:
    truths = ["GAVK", "PEPTK", "LLDEK", "SSMK"]
    good = evaluate(truths, [*truths[:3], None], [0.9, 0.8, 0.7, 0.0])
    poor = evaluate(truths, ["AGVK", "PEPTK", None, None], [0.9, 0.8, 0.0, 0.0])
    axis = plot_precision_coverage({"good": good, "poor": poor})
    curves = [line for line in axis.get_lines() if len(line.get_xdata()) > 1]
    for line, one in zip(curves, (good, poor), strict=True):
        np.testing.assert_array_equal(line.get_xdata(), [0.25, 0.5, 0.75, 1.0])
        np.testing.assert_array_equal(
            line.get_ydata(), one.precision_coverage.precision
        )
    ends = [line for line in axis.get_lines() if len(line.get_xdata()) == 1]
    assert [(*one.get_xdata(), *one.get_ydata()) for one in ends] == [
        (0.75, 1.0),
        (0.5, 0.5),
    ]
    (legend,) = axis.figure.legends
    assert [one.get_text() for one in legend.get_texts()] == [
        f"good (area {good.precision_coverage.area:.3f})",
        f"poor (area {poor.precision_coverage.area:.3f})",
    ]


def test_evaluations_that_cannot_be_drawn_are_refused() -> None:
    result = evaluate(["GAVK"], ["GAVK"])
    with pytest.raises(InputError, match="'ours' was made without scores"):
        plot_precision_coverage({"ours": result})
    with pytest.raises(InputError, match="0 evaluations were given"):
        plot_precision_coverage({})
    scored = evaluate(["GAVK"], ["GAVK"], [1.0])
    with pytest.raises(InputError, match="7 evaluations were given, 1 to 6"):
        plot_precision_coverage({str(number): scored for number in range(7)})
    mine = Figure().subplots()
    assert plot_precision_coverage({"ours": scored}, ax=mine) is mine
    assert mine.get_legend() is not None


def test_names_stay_apart_on_measured_spectra(data_dir) -> None:
    path = data_dir / "peptides" / "massivekb_500.mgf.gz"
    spectra = itertools.islice(read_spectra(path), 100, 104)
    n_named = 0
    for spectrum in spectra:
        axis = plot_spectrum(spectrum)
        assert overlaps(axis) == [], spectrum.identifier
        n_named += len(names_of(axis))
        found = annotate(spectrum, spectrum.peptide, types="by")
        kinds = zip(found["type"], found["number"], strict=True)
        assert hooks_of(axis) == {f"{kind}{number}" for kind, number in kinds}
    assert n_named > 20
