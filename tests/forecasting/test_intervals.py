"""Conformal intervals: ranks, coverage, and which rows they are calibrated on."""

import math
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sciseq import LinearForecaster, NaiveForecaster, SMambaForecaster
from sciseq.errors import CapabilityError
from sciseq.forecasting import intervals
from sciseq.forecasting.base import FORECASTER_RULES, BaseForecaster

RNG = np.random.default_rng(0)
TABLE = np.sin(np.arange(120)[:, None] * [0.3, 0.7]) + RNG.normal(size=(120, 2)) / 3


class Zero(BaseForecaster):
    """Forecasts zero: its errors are the values of the table."""

    _parameter_rules: ClassVar = {
        name: FORECASTER_RULES[name]
        for name in ("horizon", "missing", "validation_fraction")
    }

    def __init__(self, horizon=1, missing="error", validation_fraction=0.5):
        self.horizon = horizon
        self.missing = missing
        self.validation_fraction = validation_fraction

    lookback, targets = 1, None

    def _fit(self, training, validation):
        pass

    def _forecast(self, inputs):
        return np.zeros((len(inputs), self.horizon, inputs.values.shape[2]))


def calibrated_on(values, **settings):
    """A model whose residuals are exactly the rows of some values."""
    table = np.vstack([np.full_like(values, 1e6), values])
    fraction = len(values) / len(table)
    return Zero(validation_fraction=fraction, **settings).fit(table)


def by_definition(values, level):
    """The residual of rank level * (n + 1), between two ranks in proportion."""
    ordered, n = sorted(values), len(values)
    rank = level * (n + 1)
    if rank <= 1:
        return ordered[0]
    if rank >= n:
        return ordered[-1]
    low = math.floor(rank)
    return ordered[low - 1] + (rank - low) * (ordered[low] - ordered[low - 1])


# Ranks


@given(
    st.lists(st.integers(-100, 100), min_size=2, max_size=40),
    st.lists(st.floats(0.01, 0.99), min_size=1, max_size=3, unique=True),
)
def test_quantiles_are_ranks_out_of_n_plus_one(values, levels):
    rows = np.array(values, dtype=float)[:, None]
    found = calibrated_on(rows).predict_quantiles(quantiles=levels)
    assert list(found) == sorted(levels)
    for level, forecast in found.items():
        assert forecast.item() == pytest.approx(by_definition(values, level), abs=1e-4)


def test_nine_residuals_are_the_nine_tenths():
    rows = np.random.default_rng(1).permutation(np.arange(1.0, 10.0))[:, None]
    levels = [0.1, 0.2, 0.5, 0.8, 0.9]
    found = calibrated_on(rows).predict_quantiles(quantiles=levels)
    assert [round(one.item(), 5) for one in found.values()] == [1, 2, 5, 8, 9]
    # Ranks out of n - 1, as numpy.quantile takes by default, lie too far inside.
    assert np.quantile(rows, 0.9) < 9


def test_missing_truths_leave_fewer_ranks():
    rows = np.column_stack([np.arange(1.0, 20.0), np.arange(1.0, 20.0)])
    rows[9:, 1] = np.nan
    model = calibrated_on(rows, missing="mask")
    found = model.predict_quantiles(np.zeros((1, 2)), quantiles=[0.5, 0.9])
    assert found[0.5].round(5).tolist() == [[10, 5]]
    assert found[0.9].round(5).tolist() == [[18, 9]]


def test_a_step_without_any_known_error_is_refused():
    rows = np.column_stack([np.arange(10.0), np.full(10, np.nan)])
    model = calibrated_on(rows, missing="mask")
    with pytest.raises(CapabilityError, match="truth is missing") as caught:
        model.predict_quantiles(np.zeros((1, 2)))
    assert "step 1, target 1" in caught.value.where


# Coverage


@pytest.mark.parametrize("n", [9, 19, 99])
@pytest.mark.parametrize("coverage", [0.8, 0.6])
def test_coverage_of_exchangeable_errors(n, coverage):
    """Each column is one experiment: n errors to calibrate on, and a new one."""
    n_columns = 4000
    rows = np.random.default_rng(n).standard_cauchy(size=(n + 1, n_columns))
    model = calibrated_on(rows[:n])
    lower, upper = model.predict_interval(coverage=coverage)

    def covered(lower, upper):
        return np.mean((rows[n] >= lower) & (rows[n] <= upper))

    tolerance = 4 * math.sqrt(coverage * (1 - coverage) / n_columns)
    assert covered(lower, upper) == pytest.approx(coverage, abs=tolerance)
    levels = (1 - coverage) / 2, (1 + coverage) / 2
    if n < 99:
        wrong = np.quantile(rows[:n], levels, axis=0)
        assert covered(*wrong) < coverage - tolerance


def test_each_step_and_target_has_its_own_width():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(400, 2)) * [1.0, 50.0]
    lower, upper = calibrated_on(rows, horizon=3).predict_interval(coverage=0.9)
    assert lower.shape == upper.shape == (3, 2)
    np.testing.assert_allclose((upper - lower)[0], [3.3, 165], rtol=0.15)


# Which rows


def errors_of(model, table):
    """Truth minus forecast over all windows of a table, in units of the data."""
    panel = model._evaluation_panel(table)
    return np.concatenate([y - f for _, y, f in model._evaluate_panel(panel)])


@pytest.mark.parametrize("targets", [None, [1]])
def test_linear_models_are_calibrated_on_the_tail_alone(targets):
    settings = {"lookback": 6, "horizon": 3, "alpha": 0.1, "targets": targets}
    model = LinearForecaster(**settings, validation_fraction=0.25).fit(TABLE)
    places = targets or [0, 1]
    scale = model.scaler_.scale[places]
    tail = errors_of(model, TABLE[90 - 6 :])
    np.testing.assert_allclose(model.calibration_residuals_ * scale, tail, atol=1e-6)
    assert len(errors_of(model, TABLE)) > len(tail)
    with pytest.raises(CapabilityError, match="nothing was held out"):
        LinearForecaster(**settings, validation_fraction=0).fit(
            TABLE
        ).predict_interval()


def test_neural_models_are_calibrated_on_the_tail_alone():
    settings = {"d_model": 8, "n_layers": 1, "max_epochs": 1, "random_state": 0}
    model = SMambaForecaster(
        lookback=6, horizon=3, validation_fraction=0.25, **settings
    )
    model.fit(TABLE)
    tail = errors_of(model, TABLE[90 - 6 :]) / model.scaler_.scale
    np.testing.assert_allclose(model.calibration_residuals_, tail, atol=1e-6)
    rows = TABLE[:60], TABLE[60:]
    model.fit(rows[0], validation_data=rows[1])
    tail = errors_of(model, rows[1]) / model.scaler_.scale
    np.testing.assert_allclose(model.calibration_residuals_, tail, atol=1e-6)


def test_naive_models_learn_nothing_so_every_training_window_counts():
    model = NaiveForecaster(horizon=3).fit(TABLE)
    residuals = errors_of(model, TABLE)
    np.testing.assert_allclose(model.calibration_residuals_, residuals, rtol=1e-6)


def test_many_windows_are_thinned_out_evenly(monkeypatch):
    whole = NaiveForecaster(horizon=1).fit(TABLE).calibration_residuals_
    monkeypatch.setattr(intervals, "CALIBRATION_WINDOWS", 40)
    few = NaiveForecaster(horizon=1).fit(TABLE).calibration_residuals_
    places = [int(np.flatnonzero((whole == one).all(axis=(1, 2)))[0]) for one in few]
    assert (len(few), places[0], places[-1]) == (40, 0, len(whole) - 1)
    assert set(np.diff(places)) <= {2, 3, 4}


def test_refitting_on_all_rows_keeps_the_errors_in_units_of_the_data():
    """The last rows widen the scale; the errors that were measured stay as they are."""
    table = TABLE.copy()
    table[90:] *= 10
    settings = {"lookback": 6, "horizon": 3, "alpha": 0.1, "validation_fraction": 0.25}
    widths = []
    for refit_on_all in (False, True):
        model = LinearForecaster(**settings, refit_on_all=refit_on_all).fit(table)
        lower, upper = model.predict_interval(coverage=0.8)
        widths.append(upper - lower)
    np.testing.assert_allclose(*widths, rtol=1e-5)


# What comes back


def test_quantiles_come_back_as_forecasts_do():
    index = pd.date_range("2024-03-30", periods=120, freq="h", tz="Europe/Berlin")
    table = pd.DataFrame(TABLE, index=index, columns=["a", "b"])
    model = LinearForecaster(lookback=6, horizon=4, targets=["b"]).fit(table)
    found = model.predict_quantiles(table, quantiles=(0.9, 0.1, 0.5), horizon=2)
    assert list(found) == [0.1, 0.5, 0.9]
    forecast = model.predict(table, horizon=2)
    for one in found.values():
        pd.testing.assert_index_equal(one.index, forecast.index)
        assert list(one.columns) == ["b"]
    stacked = np.stack(list(found.values()))
    assert (np.diff(stacked, axis=0) > 0).all()
    lower, upper = model.predict_interval(table, coverage=0.8, horizon=2)
    pd.testing.assert_frame_equal(lower, found[0.1], rtol=1e-9)
    pd.testing.assert_frame_equal(upper, found[0.9], rtol=1e-9)


@pytest.mark.parametrize("factor", [1e-3, 1e6])
def test_widths_are_in_units_of_the_data(factor):
    settings = {"lookback": 6, "horizon": 2, "alpha": 0.1}
    widths = []
    for one in (1.0, factor):
        lower, upper = LinearForecaster(**settings).fit(TABLE * one).predict_interval()
        widths.append((upper - lower) / one)
    np.testing.assert_allclose(*widths, rtol=1e-4)


def test_a_coverage_next_to_nothing_is_the_median():
    model = calibrated_on(np.arange(9.0)[:, None])
    lower, upper = model.predict_interval(coverage=1e-20)
    assert lower.item() == upper.item() == pytest.approx(4.0)


def test_intervals_do_not_reach_beyond_what_was_calibrated():
    model = NaiveForecaster(horizon=2).fit(TABLE)
    with pytest.raises(CapabilityError, match="fitted columns and horizon"):
        model.predict_interval(horizon=3)
