"""Files, notebooks, and that nothing global changes."""

import pickle
import sys

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

from sciseq.errors import FileFormatError
from sciseq.plotting import plot_forecast, plot_importance, save_figure

VALUES = np.random.default_rng(0).normal(size=(30, 2))


def picture():
    return plot_forecast(VALUES[:-5], VALUES[-5:])


@pytest.mark.parametrize(
    ("suffix", "start"), [(".png", b"\x89PNG"), (".pdf", b"%PDF"), (".svg", b"<?xml")]
)
def test_saved_pictures(tmp_path, suffix, start) -> None:
    save_figure(picture(), tmp_path / f"f{suffix}")
    assert (tmp_path / f"f{suffix}").read_bytes().startswith(start)


def test_axes_arrays_and_figures_are_saved_whole(tmp_path) -> None:
    contents = set()
    # The layout is worked out anew on each saving, so each time on a new picture.
    for name, one in (
        ("array", picture()),
        ("axes", picture()[1]),
        ("figure", picture().figure),
    ):
        save_figure(one, tmp_path / f"{name}.png")
        contents.add((tmp_path / f"{name}.png").read_bytes())
    assert len(contents) == 1
    # Part of a figure is saved with the figure around it.
    outer = Figure()
    left, _ = outer.subfigures(1, 2)
    ax = plot_forecast(VALUES[:-5], VALUES[-5:], columns=[0], ax=left.subplots())
    save_figure(ax, tmp_path / "part.png")
    save_figure(outer, tmp_path / "outer.png")
    assert (tmp_path / "part.png").read_bytes() == (tmp_path / "outer.png").read_bytes()


def test_a_picture_is_whole_or_not_there(tmp_path, monkeypatch) -> None:
    (tmp_path / "f.png").write_text("old")

    def half(self, path, **options) -> None:
        path.write_bytes(b"\x89PN")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", half)
    with pytest.raises(OSError, match="No space left"):
        save_figure(picture(), tmp_path / "f.png")
    assert [file.name for file in tmp_path.iterdir()] == ["f.png"]
    assert (tmp_path / "f.png").read_text() == "old"
    with pytest.raises(FileFormatError, match=r"'f.gif' ends in '.gif'"):
        save_figure(picture(), tmp_path / "f.gif")


def test_nothing_global_is_touched(tmp_path, no_global_side_effects) -> None:
    settings, figures = dict(matplotlib.rcParams), open_figures()
    with no_global_side_effects():
        save_figure(picture(), tmp_path / "f.png")
    assert dict(matplotlib.rcParams) == settings
    # Examples of the docs, run in the same process, may have left figures of their own.
    assert open_figures() == figures


def open_figures() -> list[int]:
    pyplot = sys.modules.get("matplotlib.pyplot")
    return [] if pyplot is None else pyplot.get_fignums()


def test_a_notebook_shows_new_pictures_and_not_those_on_given_axes() -> None:
    formatters = pytest.importorskip("IPython.core.formatters")
    show = formatters.PNGFormatter()
    table = {"mean": [0.2], "sd": [0.1]}
    pandas = pytest.importorskip("pandas")
    single = plot_importance(pandas.DataFrame(table))
    axes = picture()
    for one in (single, axes, axes[0]):
        assert show(one).startswith(b"\x89PNG")
    # The caller's figure is shown by whoever made it.
    given = Figure().subplots(2)
    assert show(plot_forecast(VALUES[:-5], VALUES[-5:], ax=given)) is None
    assert show(axes == axes[0]) is None


def test_axes_can_be_pickled() -> None:
    axes = pickle.loads(pickle.dumps(picture()))
    assert len(axes) == 2
    assert axes.figure.axes == list(axes)
