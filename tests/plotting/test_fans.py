"""Forecasts of a backtest over the truth."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sciseq import LinearForecaster, NaiveForecaster
from sciseq.errors import CapabilityError, InputError
from sciseq.model_selection import backtest
from sciseq.plotting import plot_backtest_fan

HORIZON = 6


@pytest.fixture
def result(hourly_frame):
    return backtest(LinearForecaster(lookback=24, horizon=HORIZON), hourly_frame)


def drawn(axis: Axes, name: str) -> list[tuple[np.ndarray, np.ndarray]]:
    return [
        (line.get_xdata(), line.get_ydata())
        for line in axis.get_lines()
        if line.get_label() == name
    ]


def check_forecasts(axis: Axes, result, column: str) -> None:
    """Every line is the forecast from one origin."""
    table = result.forecasts["forecast"][column]
    for times, values in drawn(axis, "forecast"):
        origin = table.index[table.index.get_level_values("time") == times[0]]
        lines = [table.loc[one].to_numpy() for one in origin.unique("origin")]
        assert any(np.array_equal(values, line) for line in lines)


def check_do_not_cross(axis: Axes) -> None:
    lines = drawn(axis, "forecast")
    ends = [times[-1] for times, _ in lines]
    starts = [times[0] for times, _ in lines]
    assert all(start > end for start, end in zip(starts[1:], ends, strict=False))


def test_lines_are_the_forecasts_and_the_truth(result, hourly_frame) -> None:
    axes = plot_backtest_fan(result)
    assert [axis.get_title("left") for axis in axes] == list(hourly_frame)
    axis = axes[1]
    check_forecasts(axis, result, "variate_1")
    with pytest.raises(AssertionError):
        check_forecasts(axis, result, "variate_2")
    ((times, values),) = drawn(axis, "truth")
    truth = hourly_frame["variate_1"][-48:]
    np.testing.assert_array_equal(times, truth.index.to_numpy())
    np.testing.assert_array_equal(values, truth)


def test_by_default_forecasts_do_not_cross(result) -> None:
    axis = plot_backtest_fan(result)[0]
    check_do_not_cross(axis)
    # 48 rows hold 8 forecasts of 6 rows, one after the other.
    assert len(drawn(axis, "forecast")) == 48 // HORIZON
    crowded = plot_backtest_fan(result, every=4)[0]
    assert len(drawn(crowded, "forecast")) == -(-result.n_windows // 4)
    check_forecasts(crowded, result, "variate_0")
    with pytest.raises(AssertionError):
        check_do_not_cross(crowded)


def test_the_truth_is_not_drawn_across_gaps(hourly_frame) -> None:
    model = NaiveForecaster(horizon=3)
    apart = backtest(model, hourly_frame, test_size=43, stride=10)
    pieces = drawn(plot_backtest_fan(apart)[0], "truth")
    assert [len(values) for _, values in pieces] == [3] * 5
    joined = backtest(model, hourly_frame, test_size=43, stride=3)
    ((_, values),) = drawn(plot_backtest_fan(joined)[0], "truth")
    assert len(values) == 42


def test_text_labels_keep_their_order(hourly_frame) -> None:
    labels = [f"run {number}" for number in range(len(hourly_frame))]
    table = hourly_frame.set_axis(pd.Index(labels))
    result = backtest(NaiveForecaster(horizon=3), table, test_size=12)
    axis = plot_backtest_fan(result)[0]
    # As text, "run 99" would come after "run 230".
    check_do_not_cross_by_row = [
        [labels.index(one) for one in times] for times, _ in drawn(axis, "forecast")
    ]
    assert check_do_not_cross_by_row == [
        list(range(start, start + 3)) for start in (228, 231, 234, 237)
    ]


def test_series_of_a_panel_have_their_own_panels(panel) -> None:
    result = backtest(NaiveForecaster(horizon=4), panel, test_size=80)
    axes = plot_backtest_fan(result, columns=["variate_1"])
    titles = [axis.get_title("left") for axis in axes]
    assert titles == ["north: variate_1", "south: variate_1", "west: variate_1"]
    (axis,) = plot_backtest_fan(result, series=["west"], columns=["variate_1"])
    ((_, values),) = drawn(axis, "truth")
    np.testing.assert_array_equal(values, panel.loc["west"]["variate_1"][-80:])


def test_units_come_from_the_table(result) -> None:
    result.forecasts.attrs["units"] = {"variate_0": "MW"}
    assert [axis.get_ylabel() for axis in plot_backtest_fan(result)] == ["MW", "", ""]


def test_given_axes_are_used_and_given_back(result) -> None:
    figure = Figure()
    axes = figure.subplots(3)
    assert plot_backtest_fan(result, ax=axes) is axes
    assert not figure.legends
    one = Figure().subplots()
    assert plot_backtest_fan(result, columns=["variate_0"], ax=one) is one
    check_forecasts(one, result, "variate_0")


def test_what_cannot_be_drawn_is_refused(result) -> None:
    with pytest.raises(CapabilityError, match="keep_forecasts=True"):
        plot_backtest_fan(replace(result, forecasts=None))
    with pytest.raises(InputError, match="every=0 is not allowed"):
        plot_backtest_fan(result, every=0)
    with pytest.raises(
        InputError, match=r"column 'variat_0'.*Did you mean 'variate_0'"
    ):
        plot_backtest_fan(result, columns=["variat_0"])
