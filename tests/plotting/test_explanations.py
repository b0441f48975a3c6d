"""Coefficients, gates, importances and training: what is drawn."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from sciseq import NaiveForecaster, SMambaForecaster
from sciseq.errors import CapabilityError, InputError, InputTypeError, NotFittedError
from sciseq.plotting import (
    plot_coefficients,
    plot_gates,
    plot_history,
    plot_importance,
)


def lag_table(n_lags: int, *columns: str) -> pd.DataFrame:
    values = np.random.default_rng(0).normal(size=(n_lags, len(columns)))
    index = pd.RangeIndex(1, n_lags + 1, name="lag")
    return pd.DataFrame(values, index=index, columns=list(columns))


@pytest.mark.parametrize("n_lags", [5, 200])
def test_each_coefficient_stands_at_its_lag(n_lags: int) -> None:
    table = lag_table(n_lags, "load")
    axis = plot_coefficients(table)
    (stems,) = axis.collections
    for lag, value, stem in zip(
        table.index, table["load"], stems.get_segments(), strict=True
    ):
        np.testing.assert_array_equal(stem, [[lag, 0.0], [lag, value]])
    np.testing.assert_array_equal(axis.get_lines()[0].get_ydata(), table["load"])
    assert axis.get_title("left") == "load"
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("lag (steps back)", "coefficient")


def test_columns_stand_beside_each_other_within_a_lag() -> None:
    axis = plot_coefficients(lag_table(4, "a", "b", "c"))
    places = np.stack([line.get_xdata() for line in axis.get_lines()[:3]])
    assert len(np.unique(places)) == 12
    np.testing.assert_array_equal(places.round(), np.tile([1, 2, 3, 4], (3, 1)))
    (legend,) = axis.figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["a", "b", "c"]


def test_coefficients_are_chosen_or_refused() -> None:
    table = lag_table(4, *"abcdefgh")
    with pytest.raises(InputError, match="8 columns are too many"):
        plot_coefficients(table)
    axis = plot_coefficients(table, columns=["h"])
    np.testing.assert_array_equal(axis.get_lines()[0].get_ydata(), table["h"])
    with pytest.raises(InputError, match="column 'x' is not in the table"):
        plot_coefficients(table, columns=["x"])
    with pytest.raises(InputTypeError, match="a list was given"):
        plot_coefficients([0.1, 0.2])


def test_gates_stand_in_their_rows() -> None:
    index = ["HUFL", "HULL", "OT"]
    gates = pd.DataFrame({"one": [0.2, 0.4, 0.9], "two": [0.5, 0.1, 0.8]}, index=index)
    axis = plot_gates(gates)
    for line, name in zip(axis.get_lines(), gates, strict=True):
        np.testing.assert_array_equal(line.get_xdata(), gates[name])
        assert [index[row] for row in line.get_ydata()] == index
    assert axis.get_xlim() == (0, 1)
    bottom, top = axis.get_ylim()
    assert bottom > top, "the first variate is on top"


def test_importances_are_ordered_and_cut() -> None:
    table = pd.DataFrame(
        {"mean": [0.1, -0.2, 0.7], "sd": [0.01, 0.02, 0.03]}, index=["a", "b", "c"]
    )
    axis = plot_importance(table, max_rows=2)
    assert [bar.get_width() for bar in axis.patches] == [0.7, 0.1]
    assert [text.get_text() for text in axis.get_yticklabels()] == ["c", "a"]
    assert axis.get_title("left") == "the largest 2 of 3"
    (spread,) = axis.collections
    ends = [np.ptp(segment[:, 0]) for segment in spread.get_segments()]
    np.testing.assert_allclose(ends, [0.06, 0.02])
    with pytest.raises(InputError, match="column 'sd' is not in the table"):
        plot_importance(table[["mean"]])


class Trained:
    best_epoch_ = 2
    history_ = (
        {"epoch": 1, "train_loss": 0.9, "validation_loss": 0.8},
        {"epoch": 2, "train_loss": 0.5, "validation_loss": 0.6},
        {"epoch": 3, "train_loss": 0.4, "validation_loss": 0.7},
    )


def test_losses_and_the_best_epoch() -> None:
    axis = plot_history(Trained())
    train, validation, best = axis.get_lines()
    assert train.get_xdata().tolist() == [1, 2, 3]
    assert train.get_ydata().tolist() == [0.9, 0.5, 0.4]
    assert validation.get_ydata().tolist() == [0.8, 0.6, 0.7]
    assert set(best.get_xdata()) == {2}
    assert [text.get_text() for text in axis.texts] == ["train", "validation"]


def test_losses_of_a_forecaster(hourly_frame) -> None:
    model = SMambaForecaster(
        lookback=12, horizon=4, d_model=4, max_epochs=2, random_state=0
    ).fit(hourly_frame)
    train, *_ = plot_history(model).get_lines()
    assert train.get_ydata().tolist() == [one["train_loss"] for one in model.history_]


def test_what_was_not_trained_is_refused(hourly_frame) -> None:
    with pytest.raises(CapabilityError, match="NaiveForecaster was not trained"):
        plot_history(NaiveForecaster(horizon=1).fit(hourly_frame))
    with pytest.raises(NotFittedError):
        plot_history(SMambaForecaster())


@pytest.mark.parametrize(
    ("draw", "data"),
    [
        (plot_coefficients, lag_table(4, "a", "b")),
        (plot_gates, pd.DataFrame({"one": [0.2], "two": [0.5]})),
        (plot_importance, pd.DataFrame({"mean": [0.2], "sd": [0.5]})),
        (plot_history, Trained()),
    ],
)
def test_given_axes_are_used_and_given_back(draw, data) -> None:
    figure = Figure()
    left, right = figure.subplots(1, 2)
    assert draw(data, ax=right) is right
    assert right.has_data() and not left.has_data()
    assert not figure.legends and not figure.texts
    with pytest.raises(InputTypeError, match="ax holds a Figure"):
        draw(data, ax=figure)
