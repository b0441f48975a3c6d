"""Forecasts after their history: what is drawn where, on which axes."""

import matplotlib
import numpy as np
import pytest
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.dates import ConciseDateFormatter, num2date
from matplotlib.figure import Figure

from sciseq import LinearForecaster, NaiveForecaster
from sciseq.errors import InputError, InputTypeError
from sciseq.plotting import MAX_PANELS, AxesArray, plot_forecast


def lines(axis: Axes) -> dict:
    """Drawn lines by name."""
    return {line.get_label(): line for line in axis.get_lines()}


def bands(axis: Axes) -> list[PolyCollection]:
    return [one for one in axis.collections if isinstance(one, PolyCollection)]


@pytest.fixture
def known(hourly_frame):
    return hourly_frame[:-6]


@pytest.fixture
def model(known):
    return LinearForecaster(lookback=24, horizon=6).fit(known)


def check_is_data(axis: Axes, name: str, known, forecast, whole) -> None:
    drawn = lines(axis)
    np.testing.assert_array_equal(drawn["history"].get_ydata(), known[name][-24:])
    np.testing.assert_array_equal(drawn["forecast"].get_ydata(), forecast[name])
    # The truth starts at the last known row, and is cut to the forecast.
    np.testing.assert_array_equal(drawn["truth"].get_ydata(), whole[name][-7:])
    times = forecast.index.to_numpy()
    np.testing.assert_array_equal(drawn["forecast"].get_xdata(), times)


def test_lines_are_the_data(hourly_frame, known, model) -> None:
    forecast, interval = model.predict(), model.predict_interval()
    axes = plot_forecast(known, forecast, truth=hourly_frame, interval=interval)
    assert [axis.get_title("left") for axis in axes] == list(hourly_frame)
    check_is_data(axes[1], "variate_1", known, forecast, hourly_frame)
    with pytest.raises(AssertionError):
        check_is_data(axes[1], "variate_2", known, forecast, hourly_frame)
    (band,) = bands(axes[1])
    corners = band.get_paths()[0].vertices[:, 1]
    assert corners.min() == interval[0]["variate_1"].min()
    assert corners.max() == interval[1]["variate_1"].max()


def test_of_several_intervals_the_narrower_is_darker_and_above(known, model) -> None:
    intervals = {share: model.predict_interval(coverage=share) for share in (0.5, 0.9)}
    axes = plot_forecast(known, model.predict(), interval=intervals)
    wide, narrow = bands(axes[0])
    assert [wide.get_label(), narrow.get_label()] == ["90 % interval", "50 % interval"]
    widths = [np.ptp(one.get_paths()[0].vertices[:, 1]) for one in (wide, narrow)]
    assert widths[0] > widths[1]
    assert narrow.get_facecolor().sum() < wide.get_facecolor().sum()
    assert wide.get_zorder() < narrow.get_zorder()
    assert narrow.get_zorder() < lines(axes[0])["forecast"].get_zorder()


def test_the_legend_names_what_is_there(known, model, hourly_frame) -> None:
    def legend(axes) -> list[str]:
        return [text.get_text() for text in axes.figure.legends[0].get_texts()]

    forecast = model.predict()
    assert legend(plot_forecast(known, forecast)) == ["history", "forecast"]
    full = plot_forecast(
        known, forecast, truth=hourly_frame, interval=model.predict_interval()
    )
    assert legend(full) == ["history", "truth", "forecast", "interval"]
    named = [line for name, line in lines(full[0]).items() if name[0] != "_"]
    assert len({line.get_color() for line in named}) == 3


def test_history_is_cut_as_asked(known, model) -> None:
    for asked, drawn in ((None, 24), (10, 10), (1000, len(known))):
        axes = plot_forecast(known, model.predict(), max_history=asked)
        assert len(lines(axes[0])["history"].get_ydata()) == drawn


def test_dates_are_dates_in_local_time(known) -> None:
    local = known.tz_localize("UTC").tz_convert("Asia/Tokyo")
    forecast = NaiveForecaster(horizon=3).fit(local).predict()
    axis = plot_forecast(local, forecast)[0]
    assert isinstance(axis.xaxis.get_major_formatter(), ConciseDateFormatter)
    first = num2date(axis.convert_xunits(lines(axis)["forecast"].get_xdata()[0]))
    assert first.hour == forecast.index[0].hour
    periods = known.to_period("h")
    axes = plot_forecast(periods, NaiveForecaster(horizon=3).fit(periods).predict())
    assert isinstance(axes[0].xaxis.get_major_formatter(), ConciseDateFormatter)


def test_units_stand_at_the_axes(known, model) -> None:
    known.attrs["units"] = {"variate_1": "MW"}
    axes = plot_forecast(known, model.predict())
    assert [axis.get_ylabel() for axis in axes] == ["", "MW", ""]
    known.attrs["units"] = "degC"
    assert plot_forecast(known, model.predict())[0].get_ylabel() == "degC"
    known.attrs = {}
    data = known.to_xarray()
    data["variate_2"].attrs["units"] = "hPa"
    forecast = LinearForecaster(lookback=24, horizon=6).fit(data).predict()
    assert isinstance(forecast, xr.Dataset)
    axes = plot_forecast(data, forecast)
    assert [axis.get_ylabel() for axis in axes] == ["", "", "hPa"]


def test_arrays_are_numbered_on(known) -> None:
    values = known.to_numpy()
    forecast = NaiveForecaster(horizon=6).fit(values[:-6]).predict()
    # As many rows of history as of forecast: nothing tells them apart but their role.
    axes = plot_forecast(values[-12:-6], forecast, truth=values[-6:])
    drawn = lines(axes[0])
    assert drawn["history"].get_xdata().tolist() == [0, 1, 2, 3, 4, 5]
    assert drawn["forecast"].get_xdata().tolist() == [6, 7, 8, 9, 10, 11]
    assert drawn["truth"].get_xdata().tolist() == [5, 6, 7, 8, 9, 10, 11]
    assert axes[0].get_xlabel() == "row"


def test_many_panels_are_cut_and_this_is_said(panel) -> None:
    forecast = NaiveForecaster(horizon=3).fit(panel).predict()
    axes = plot_forecast(panel, forecast)
    titles = [axis.get_title("left") for axis in axes]
    assert titles[:3] == ["north: variate_0", "north: variate_1", "south: variate_0"]
    assert not axes.figure.texts
    wide = np.random.default_rng(0).normal(size=(30, 20))
    axes = plot_forecast(wide[:-3], wide[-3:], title="wide")
    assert len(axes) == MAX_PANELS
    assert [text.get_text() for text in axes.figure.texts] == [
        "wide",
        "12 of 20 panels are shown",
    ]
    # Who brings axes decides how many there are.
    given = Figure().subplots(4, 5)
    assert plot_forecast(wide[:-3], wide[-3:], ax=given) is given
    assert not given[0, 0].figure.texts


def test_columns_and_series_are_chosen(panel) -> None:
    forecast = NaiveForecaster(horizon=3).fit(panel).predict()
    axes = plot_forecast(panel, forecast, series=["west"], columns=["variate_1"])
    assert [axis.get_title("left") for axis in axes] == ["west: variate_1"]
    np.testing.assert_array_equal(
        lines(axes[0])["forecast"].get_ydata(), forecast.loc["west"]["variate_1"]
    )


def test_one_series(known) -> None:
    series = known["variate_0"]
    axes = plot_forecast(series, NaiveForecaster(horizon=3).fit(series).predict())
    assert axes[0].get_title("left") == "variate_0"


def test_what_does_not_fit_is_refused(known, model) -> None:
    forecast = model.predict()
    with pytest.raises(InputError, match=r"'variate_9' is not in.*'variate_0'"):
        plot_forecast(known, forecast, columns=["variate_9"])
    with pytest.raises(InputError, match="series 'x' is not in the forecast"):
        plot_forecast(known, forecast, series=["x"])
    with pytest.raises(InputError, match="column 'variate_2' of series 0"):
        plot_forecast(known[["variate_0", "variate_1"]], forecast)
    with pytest.raises(InputError, match="columns is empty"):
        plot_forecast(known, forecast, columns=[])


def test_it_draws_on_the_axes_it_is_given_and_nowhere_else(known, model) -> None:
    figure = Figure()
    left, right = figure.subplots(1, 2)
    forecast = model.predict()
    chosen = {"columns": ["variate_1"], "ax": right}
    assert plot_forecast(known, forecast, **chosen) is right
    np.testing.assert_array_equal(
        lines(right)["forecast"].get_ydata(), forecast["variate_1"]
    )
    assert not left.get_lines()
    # The figure is the caller's: no legend, title or layout is put on it.
    assert not figure.legends and not figure.texts and figure.axes == [left, right]
    names = [text.get_text() for text in right.get_legend().get_texts()]
    assert names == ["history", "forecast"]
    pair = [left, right]
    columns = ["variate_0", "variate_2"]
    assert plot_forecast(known, forecast, columns=columns, ax=pair) is pair


def test_wrong_axes_are_refused(known, model) -> None:
    forecast = model.predict()
    with pytest.raises(InputError, match=r"1 axes were given for 3 panels \(variate_0"):
        plot_forecast(known, forecast, ax=Figure().subplots())
    with pytest.raises(InputTypeError, match="ax holds a Figure"):
        plot_forecast(known, forecast, columns=["variate_0"], ax=Figure())
    with pytest.raises(InputError, match="title names a new figure"):
        plot_forecast(known, forecast, ax=Figure().subplots(3), title="mine")


def test_new_axes_are_an_array_with_its_figure(known, model) -> None:
    axes = plot_forecast(known, model.predict())
    assert isinstance(axes, AxesArray)
    assert axes.figure.axes == list(axes)
    assert axes.figure is axes[0].figure is axes[1:].figure


def test_settings_of_the_caller_are_read(known, model) -> None:
    with matplotlib.rc_context({"font.size": 20.0}):
        axes = plot_forecast(known, model.predict())
    assert axes[0].xaxis.label.get_size() == 20.0
