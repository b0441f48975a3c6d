"""Errors by step and by variate, against plain NumPy."""

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.figure import Figure

from sciseq import LinearForecaster, NaiveForecaster
from sciseq.errors import CapabilityError, InputError
from sciseq.model_selection import backtest
from sciseq.plotting import plot_error_by_step, plot_variate_heatmap

HORIZON = 4


@pytest.fixture
def result(hourly_frame):
    hourly_frame.iloc[-7, 1] = np.nan
    model = LinearForecaster(lookback=24, horizon=HORIZON, missing="mask")
    return backtest(model, hourly_frame, test_size=40)


def errors_of(result, column: str) -> np.ndarray:
    """Forecast minus truth, (n, H)."""
    table = result.forecasts
    difference = table["forecast"][column] - table["truth"][column]
    return difference.to_numpy().reshape(-1, HORIZON)


# ------------------------------------------------------------------------- by step


def test_the_line_is_the_error_of_each_step(result) -> None:
    axis = plot_error_by_step(result, metric="rmse")
    (line,) = axis.get_lines()
    assert line.get_xdata().tolist() == [1, 2, 3, 4]
    np.testing.assert_array_equal(line.get_ydata(), result.per_step["rmse"])
    assert axis.get_ylabel() == "root mean squared error"
    assert axis.get_xlabel() == "steps ahead"
    assert axis.get_ylim()[0] == 0
    assert not axis.figure.legends


def test_one_column_in_its_own_units(result) -> None:
    def check(column: str) -> None:
        axis = plot_error_by_step(result, metric="mae", column="variate_1")
        expected = np.nanmean(np.abs(errors_of(result, column)), axis=0)
        np.testing.assert_allclose(axis.get_lines()[0].get_ydata(), expected)

    check("variate_1")
    with pytest.raises(AssertionError):
        check("variate_0")
    result.forecasts.attrs["units"] = {"variate_1": "MW"}
    axis = plot_error_by_step(result, column="variate_1")
    assert axis.get_title("left") == "variate_1"
    assert axis.get_ylabel() == "mean absolute error (MW)"
    axis = plot_error_by_step(result, metric="bias", column="variate_1")
    expected = np.nanmean(errors_of(result, "variate_1"), axis=0)
    np.testing.assert_allclose(axis.get_lines()[0].get_ydata(), expected)


def test_models_are_told_apart_and_named(result) -> None:
    named = {f"model {number}": result for number in range(8)}
    axis = plot_error_by_step(named)
    looks = {(line.get_color(), line.get_linestyle()) for line in axis.get_lines()}
    assert len(looks) == 8
    (legend,) = axis.figure.legends
    assert [text.get_text() for text in legend.get_texts()] == list(named)


def test_by_step_on_given_axes(result) -> None:
    ax = Figure().subplots()
    assert plot_error_by_step({"linear": result}, ax=ax) is ax
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["linear"]
    assert not ax.figure.legends


def test_by_step_refuses_what_is_not_there(result) -> None:
    with pytest.raises(InputError, match=r"metric 'smape' is not among.*'mse', 'mae'"):
        plot_error_by_step(result, metric="smape")
    with pytest.raises(InputError, match="'mase' is not among those of one column"):
        plot_error_by_step(result, metric="mase", column="variate_0")
    with pytest.raises(InputError, match="column 'x' is not among the forecasts"):
        plot_error_by_step(result, column="x")
    with pytest.raises(CapabilityError, match="keep_forecasts=True"):
        plot_error_by_step(replace(result, forecasts=None), column="variate_0")


# ---------------------------------------------------------------------- by variate


def cells(axis) -> np.ndarray:
    return axis.get_images()[0].get_array().filled(np.nan)


def test_cells_are_errors_in_units_of_the_spread(result) -> None:
    def expected(show: str, *, is_scaled: bool = True) -> np.ndarray:
        rows = []
        for column in ("variate_0", "variate_1", "variate_2"):
            error = errors_of(result, column)
            mean = {
                "mae": lambda error: np.nanmean(np.abs(error), axis=0),
                "rmse": lambda error: np.sqrt(np.nanmean(error**2, axis=0)),
                "bias": lambda error: np.nanmean(error, axis=0),
            }[show](error)
            spread = np.nanstd(result.forecasts["truth"][column])
            rows.append(mean / spread if is_scaled else mean)
        return np.array(rows)

    for show in ("mae", "rmse", "bias"):
        drawn = cells(plot_variate_heatmap(result, show=show))
        np.testing.assert_allclose(drawn, expected(show))
        with pytest.raises(AssertionError):
            np.testing.assert_allclose(drawn, expected(show, is_scaled=False))


def test_units_do_not_matter(hourly_frame) -> None:
    def drawn(frame):
        model = LinearForecaster(lookback=24, horizon=HORIZON)
        return cells(plot_variate_heatmap(backtest(model, frame, test_size=40)))

    np.testing.assert_allclose(
        drawn(hourly_frame), drawn(hourly_frame * 1e6), rtol=1e-6
    )


def test_correlation_is_that_of_the_errors(result) -> None:
    error = np.stack([errors_of(result, f"variate_{one}").ravel() for one in range(3)])
    known = ~np.isnan(error).any(axis=0)
    drawn = cells(plot_variate_heatmap(result, show="correlation"))
    assert drawn[0, 2] == pytest.approx(np.corrcoef(error[0], error[2])[0, 1])
    assert drawn[0, 1] == pytest.approx(np.corrcoef(error[:2, known])[0, 1])
    np.testing.assert_allclose(np.diag(drawn), 1.0)


def test_correlation_matches_windows_of_series_by_time(panel) -> None:
    # South ends before the others, and its windows stand opposite to other origins.
    result = backtest(NaiveForecaster(horizon=HORIZON), panel, test_size=60)
    names = list(result.forecasts.index.unique("series"))
    table = result.forecasts["forecast"] - result.forecasts["truth"]
    first, second = (table.loc[one]["variate_0"] for one in names[-2:])
    both = first.to_frame("a").join(second.to_frame("b"), how="inner")
    axis = plot_variate_heatmap(result, show="correlation")
    labels = [text.get_text() for text in axis.get_yticklabels()]
    row = labels.index(f"{names[-2]}: variate_0")
    column = labels.index(f"{names[-1]}: variate_0")
    assert cells(axis)[row, column] == pytest.approx(both.corr().loc["a", "b"])


def test_rows_are_named_and_written(result) -> None:
    axis = plot_variate_heatmap(result)
    names = [text.get_text() for text in axis.get_yticklabels()]
    assert names == ["variate_0", "variate_1", "variate_2"]
    assert [text.get_text() for text in axis.get_xticklabels()] == ["1", "2", "3", "4"]
    written = [float(text.get_text()) for text in axis.texts]
    np.testing.assert_allclose(written, cells(axis).ravel(), atol=0.005)
    assert axis.get_title("left") == "mean absolute error / spread of the truth"


def test_a_variate_that_never_changes_is_grey(hourly_frame) -> None:
    hourly_frame["variate_1"] = 5.0
    result = backtest(NaiveForecaster(horizon=HORIZON), hourly_frame, test_size=40)
    axis = plot_variate_heatmap(result)
    assert np.isnan(cells(axis)[1]).all()
    assert len(axis.texts) == 2 * HORIZON


def test_many_variates_have_few_labels() -> None:
    X = np.random.default_rng(0).normal(size=(60, 100)).cumsum(axis=0)
    result = backtest(NaiveForecaster(horizon=3), X, test_size=10)
    axis = plot_variate_heatmap(result)
    labels = [text.get_text() for text in axis.get_yticklabels()]
    assert len(labels) <= 40
    assert labels == [str(int(place)) for place in axis.get_yticks()]
    assert not axis.texts
    assert axis.figure.get_size_inches()[1] <= 8


def test_heat_map_on_given_axes(result) -> None:
    figure = Figure()
    left, right = figure.subplots(1, 2)
    assert plot_variate_heatmap(result, ax=right) is right
    assert not left.get_images()


def test_heat_map_refuses_what_it_cannot_show(result) -> None:
    with pytest.raises(InputError, match=r"show 'mea' .*Did you mean 'mae'"):
        plot_variate_heatmap(result, show="mea")
    with pytest.raises(CapabilityError, match="keep_forecasts=True"):
        plot_variate_heatmap(replace(result, forecasts=None))
