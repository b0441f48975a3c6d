"""Pictures: what is drawn where, and that nothing else changes."""

import sys

import matplotlib
import numpy as np
import pytest
import xarray as xr
from matplotlib.collections import PolyCollection
from matplotlib.dates import ConciseDateFormatter, num2date

from sciseq import LinearForecaster, NaiveForecaster, SMambaForecaster
from sciseq.errors import CapabilityError, FileFormatError, InputError
from sciseq.plotting import MAX_PANELS, plot_forecast, plot_history, save_figure


def lines(axis) -> dict:
    """Drawn lines by name."""
    return {line.get_label(): line for line in axis.get_lines()}


@pytest.fixture
def known(hourly_frame):
    return hourly_frame[:-6]


@pytest.fixture
def model(known):
    return LinearForecaster(lookback=24, horizon=6).fit(known)


def test_lines_are_the_data(hourly_frame, known, model) -> None:
    forecast, interval = model.predict(), model.predict_interval()
    figure = plot_forecast(known, forecast, truth=hourly_frame, interval=interval)
    assert [axis.get_title("left") for axis in figure.axes] == list(hourly_frame)
    drawn = lines(figure.axes[1])
    np.testing.assert_array_equal(
        drawn["history"].get_ydata(), known["variate_1"][-24:]
    )
    np.testing.assert_array_equal(drawn["forecast"].get_ydata(), forecast["variate_1"])
    # The truth starts at the last known row, and is cut to the forecast.
    np.testing.assert_array_equal(
        drawn["truth"].get_ydata(), hourly_frame["variate_1"][-7:]
    )
    np.testing.assert_array_equal(
        drawn["forecast"].get_xdata(), forecast.index.to_numpy()
    )
    (band,) = (
        one for one in figure.axes[1].collections if isinstance(one, PolyCollection)
    )
    corners = band.get_paths()[0].vertices[:, 1]
    assert corners.min() == interval[0]["variate_1"].min()
    assert corners.max() == interval[1]["variate_1"].max()


def test_the_legend_names_what_is_there(known, model, hourly_frame) -> None:
    def legend(figure) -> list[str]:
        return [text.get_text() for text in figure.legends[0].get_texts()]

    forecast = model.predict()
    assert legend(plot_forecast(known, forecast)) == ["history", "forecast"]
    full = plot_forecast(
        known, forecast, truth=hourly_frame, interval=model.predict_interval()
    )
    assert legend(full) == ["history", "truth", "forecast", "interval"]
    colours = {
        line.get_color()
        for line in lines(full.axes[0]).values()
        if line.get_label()[0] != "_"
    }
    assert len(colours) == 3


def test_history_is_cut_as_asked(known, model) -> None:
    for asked, drawn in ((None, 24), (10, 10), (1000, len(known))):
        figure = plot_forecast(known, model.predict(), max_history=asked)
        assert len(lines(figure.axes[0])["history"].get_ydata()) == drawn


def test_dates_are_dates_in_local_time(known) -> None:
    local = known.tz_localize("UTC").tz_convert("Asia/Tokyo")
    forecast = NaiveForecaster(horizon=3).fit(local).predict()
    axis = plot_forecast(local, forecast).axes[0]
    assert isinstance(axis.xaxis.get_major_formatter(), ConciseDateFormatter)
    first = num2date(axis.convert_xunits(lines(axis)["forecast"].get_xdata()[0]))
    assert first.hour == forecast.index[0].hour
    periods = known.to_period("h")
    figure = plot_forecast(periods, NaiveForecaster(horizon=3).fit(periods).predict())
    assert isinstance(figure.axes[0].xaxis.get_major_formatter(), ConciseDateFormatter)


def test_units_stand_at_the_axes(known, model) -> None:
    known.attrs["units"] = {"variate_1": "MW"}
    figure = plot_forecast(known, model.predict())
    assert [axis.get_ylabel() for axis in figure.axes] == ["", "MW", ""]
    known.attrs["units"] = "degC"
    assert plot_forecast(known, model.predict()).axes[0].get_ylabel() == "degC"
    known.attrs = {}
    data = known.to_xarray()
    data["variate_2"].attrs["units"] = "hPa"
    forecast = LinearForecaster(lookback=24, horizon=6).fit(data).predict()
    assert isinstance(forecast, xr.Dataset)
    figure = plot_forecast(data, forecast)
    assert [axis.get_ylabel() for axis in figure.axes] == ["", "", "hPa"]


def test_arrays_are_numbered_on(known) -> None:
    values = known.to_numpy()
    forecast = NaiveForecaster(horizon=6).fit(values[:-6]).predict()
    # As many rows of history as of forecast: nothing tells them apart but their role.
    figure = plot_forecast(values[-12:-6], forecast, truth=values[-6:])
    drawn = lines(figure.axes[0])
    assert drawn["history"].get_xdata().tolist() == [0, 1, 2, 3, 4, 5]
    assert drawn["forecast"].get_xdata().tolist() == [6, 7, 8, 9, 10, 11]
    assert drawn["truth"].get_xdata().tolist() == [5, 6, 7, 8, 9, 10, 11]


def test_many_panels_are_cut_and_this_is_said(panel) -> None:
    forecast = NaiveForecaster(horizon=3).fit(panel).predict()
    figure = plot_forecast(panel, forecast)
    titles = [axis.get_title("left") for axis in figure.axes]
    assert titles[:3] == ["north: variate_0", "north: variate_1", "south: variate_0"]
    assert not figure.texts
    wide = np.random.default_rng(0).normal(size=(30, 20))
    figure = plot_forecast(wide[:-3], wide[-3:], title="wide")
    assert len(figure.axes) == MAX_PANELS
    assert [text.get_text() for text in figure.texts] == [
        "wide",
        "12 of 20 panels are shown",
    ]
    chosen = plot_forecast(wide[:-3], wide[-3:], columns=[19, 0])
    assert [axis.get_title("left") for axis in chosen.axes] == ["19", "0"]


def test_one_series(known) -> None:
    series = known["variate_0"]
    figure = plot_forecast(series, NaiveForecaster(horizon=3).fit(series).predict())
    assert figure.axes[0].get_title("left") == "variate_0"


def test_what_does_not_fit_is_refused(known, model) -> None:
    with pytest.raises(InputError, match=r"'variate_9' is not in.*'variate_0'"):
        plot_forecast(known, model.predict(), columns=["variate_9"])
    with pytest.raises(InputError, match="column 'variate_2' of series 0"):
        plot_forecast(known[["variate_0", "variate_1"]], model.predict())


def test_losses_and_the_best_epoch(known) -> None:
    model = SMambaForecaster(
        lookback=12, horizon=4, d_model=4, max_epochs=3, random_state=0
    ).fit(known)
    axis = plot_history(model).axes[0]
    train, validation, best = axis.get_lines()
    assert train.get_xdata().tolist() == [1, 2, 3]
    assert train.get_ydata().tolist() == [one["train_loss"] for one in model.history_]
    assert validation.get_ydata()[-1] == model.history_[-1]["validation_loss"]
    assert set(best.get_xdata()) == {model.best_epoch_}
    assert [text.get_text() for text in axis.texts] == ["train", "validation"]
    with pytest.raises(CapabilityError, match="NaiveForecaster was not trained"):
        plot_history(NaiveForecaster(horizon=1).fit(known))
    from sciseq.errors import NotFittedError

    with pytest.raises(NotFittedError):
        plot_history(SMambaForecaster())


@pytest.mark.parametrize(
    ("suffix", "start"), [(".png", b"\x89PNG"), (".pdf", b"%PDF"), (".svg", b"<?xml")]
)
def test_saved_pictures(tmp_path, known, model, suffix, start) -> None:
    figure = plot_forecast(known, model.predict(), columns=["variate_0"])
    save_figure(figure, tmp_path / f"f{suffix}")
    assert (tmp_path / f"f{suffix}").read_bytes().startswith(start)


def test_a_picture_is_whole_or_not_there(tmp_path, known, model, monkeypatch) -> None:
    figure = plot_forecast(known, model.predict(), columns=["variate_0"])
    (tmp_path / "f.png").write_text("old")

    def half(self, path, **options) -> None:
        path.write_bytes(b"\x89PN")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(figure), "savefig", half)
    with pytest.raises(OSError, match="No space left"):
        save_figure(figure, tmp_path / "f.png")
    assert [file.name for file in tmp_path.iterdir()] == ["f.png"]
    assert (tmp_path / "f.png").read_text() == "old"
    with pytest.raises(FileFormatError, match=r"'f.gif' ends in '.gif'"):
        save_figure(figure, tmp_path / "f.gif")


def test_nothing_global_is_touched(
    tmp_path, known, model, no_global_side_effects
) -> None:
    settings, figures = dict(matplotlib.rcParams), open_figures()
    with no_global_side_effects():
        save_figure(plot_forecast(known, model.predict()), tmp_path / "f.png")
    assert dict(matplotlib.rcParams) == settings
    # Examples of the docs, run in the same process, may have left figures of their own.
    assert open_figures() == figures


def open_figures() -> list[int]:
    pyplot = sys.modules.get("matplotlib.pyplot")
    return [] if pyplot is None else pyplot.get_fignums()
