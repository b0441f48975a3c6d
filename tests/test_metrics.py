"""Forecast metrics: values against scikit-learn, batches, missing truth, refusals."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from sciseq.errors import (
    DataQualityError,
    InputError,
    InputTypeError,
    NumericalError,
)
from sciseq.metrics import (
    METRICS,
    ForecastErrors,
    SeasonalScale,
    forecast_errors,
    point,
    seasonal_scale,
)

POINT = [name for name, metric in METRICS.items() if metric.judges == "forecast"]
SHAPE = (37, 5, 3)  # window, step, target


def example(shape=SHAPE, seed=0, offset=0.0):
    rng = np.random.default_rng(seed)
    truth = offset + rng.normal(size=shape)
    return truth, truth + rng.normal(scale=0.5, size=shape)


def in_batches(truth, forecast, sizes, scale=None):
    errors = ForecastErrors(scale)
    start = 0
    for size in sizes:
        errors.update(truth[start : start + size], forecast[start : start + size])
        start += size
    assert start == len(truth)
    return errors.result()


def assert_same(one, two, rtol=1e-12):
    assert one.overall.keys() == two.overall.keys()
    for kind in ("overall", "per_step", "per_target"):
        for name, value in getattr(one, kind).items():
            np.testing.assert_allclose(
                value, getattr(two, kind)[name], rtol=rtol, atol=rtol, err_msg=name
            )
    for count in ("n_windows", "n_observed", "n_unobserved", "n_constant_targets"):
        assert getattr(one, count) == getattr(two, count)


# ------------------------------------------------------------------------ values


def test_values_equal_those_of_scikit_learn():
    truth, forecast = example()
    summary = ForecastErrors().update(truth, forecast).result()
    # (window, step, target) -> (window and step, target)
    rows = truth.reshape(-1, 3), forecast.reshape(-1, 3)
    mse = reference.mean_squared_error(*rows, multioutput="raw_values")
    mae = reference.mean_absolute_error(*rows, multioutput="raw_values")
    r2 = reference.r2_score(*rows, multioutput="raw_values")
    np.testing.assert_allclose(summary.per_target["mse"], mse, rtol=1e-13)
    np.testing.assert_allclose(summary.per_target["mae"], mae, rtol=1e-13)
    np.testing.assert_allclose(summary.per_target["rmse"], np.sqrt(mse), rtol=1e-13)
    np.testing.assert_allclose(summary.per_target["r2"], r2, rtol=1e-12)
    assert summary.overall["mse"] == pytest.approx(mse.mean(), rel=1e-13)
    assert summary.overall["rmse"] == pytest.approx(np.sqrt(mse.mean()), rel=1e-13)
    assert summary.overall["r2"] == pytest.approx(r2.mean(), rel=1e-12)
    for step in range(SHAPE[1]):
        rows = truth[:, step], forecast[:, step]
        expected = reference.r2_score(*rows)
        assert summary.per_step["r2"][step] == pytest.approx(expected, rel=1e-12)
        expected = reference.mean_absolute_error(*rows)
        assert summary.per_step["mae"][step] == pytest.approx(expected, rel=1e-13)


def test_values_by_hand():
    truth = np.array([[[0.0], [2.0]], [[4.0], [0.0]]])
    forecast = np.array([[[0.0], [1.0]], [[8.0], [1.0]]])
    summary = ForecastErrors().update(truth, forecast).result()
    assert summary.overall["bias"] == (0 - 1 + 4 + 1) / 4
    assert summary.overall["mse"] == (0 + 1 + 16 + 1) / 4
    assert summary.overall["mae"] == 1.5
    # Nothing against nothing is no error; one against nothing is the largest.
    assert summary.overall["smape"] == pytest.approx((0 + 200 / 3 + 200 / 3 + 200) / 4)
    assert summary.per_step["bias"].tolist() == [2.0, 0.0]
    # Mean 1.5, squares around it 2.25 + 0.25 + 6.25 + 2.25.
    assert summary.overall["r2"] == 1 - 18 / 11
    assert summary.n_windows == 2
    assert summary.n_observed == 4


def test_scaled_errors_by_hand():
    history = np.array([[1.0, 5.0], [3.0, 5.0], [2.0, 5.0], [6.0, 5.0]])
    scale = seasonal_scale(history, season_length=2)
    np.testing.assert_array_equal(scale.absolute, [2.0, 0.0])
    np.testing.assert_array_equal(scale.squared, [5.0, 0.0])
    truth = np.zeros((1, 2, 2))
    forecast = np.array([[[1.0, 1.0], [3.0, 1.0]]])
    summary = ForecastErrors(scale).update(truth, forecast).result()
    np.testing.assert_array_equal(summary.per_target["mase"], [1.0, np.nan])
    np.testing.assert_array_equal(summary.per_target["rmsse"], [1.0, np.nan])
    np.testing.assert_allclose(summary.per_step["mase"], [0.5, 1.5])
    assert summary.overall["mase"] == 1.0
    assert summary.n_unscaled_targets == 1


def test_seasonal_naive_forecast_in_sample_has_scaled_errors_of_one():
    rng = np.random.default_rng(3)
    history = rng.normal(size=(200, 2)).cumsum(axis=0)
    truth, forecast = history[24:], history[:-24]
    errors = ForecastErrors(seasonal_scale(history, 24))
    overall = errors.update(truth[:, None], forecast[:, None]).result().overall
    assert overall["mase"] == pytest.approx(1.0, rel=1e-12)
    assert overall["rmsse"] == pytest.approx(1.0, rel=1e-12)


def test_scale_leaves_out_differences_with_a_gap():
    scale = seasonal_scale([[1.0, 1.0], [np.nan, np.nan], [2.0, 3.0], [5.0, np.nan]])
    np.testing.assert_array_equal(scale.absolute, [3.0, np.nan])
    np.testing.assert_array_equal(scale.squared, [9.0, np.nan])


# ------------------------------------------------------------------------ batches


@st.composite
def batch_sizes(draw, total=SHAPE[0]):
    cuts = draw(st.sets(st.integers(1, total - 1)))
    edges = [0, *sorted(cuts), total]
    return [b - a for a, b in pairwise(edges)]


@given(sizes=batch_sizes(), offset=st.sampled_from([0.0, 1e6]))
@settings(max_examples=30, deadline=None)
def test_batches_of_any_sizes_equal_one_batch(sizes, offset):
    truth, forecast = example(offset=offset)
    truth[3:9, 1] = np.nan
    scale = SeasonalScale(np.array([1.0, 2.0, 0.0]), np.array([1.0, 5.0, 0.0]))
    whole = ForecastErrors(scale).update(truth, forecast).result()
    parts = in_batches(truth, forecast, sizes, scale)
    assert_same(parts, whole, rtol=1e-12 if offset == 0 else 1e-9)


def test_mean_of_batch_means_would_be_wrong():
    truth, forecast = example()
    truth[:32] = forecast[:32]
    sizes = [32, 5]
    right = in_batches(truth, forecast, sizes).overall["mse"]
    means = [
        np.square(truth - forecast)[rows].mean() for rows in np.split(range(37), [32])
    ]
    assert right == pytest.approx(np.square(truth - forecast).mean(), rel=1e-12)
    assert np.mean(means) > 3 * right


def test_large_batches_are_pooled_in_pieces(monkeypatch):
    truth, forecast = example()
    whole = ForecastErrors().update(truth, forecast).result()
    monkeypatch.setattr(point, "_PIECE", 16)
    assert_same(ForecastErrors().update(truth, forecast).result(), whole)


@pytest.mark.parametrize("sizes", [[37], [1] * 37, [30, 7]])
def test_r2_far_from_zero_keeps_its_digits(sizes):
    # Eighths are exact at this offset, so the shifted data have the same R².
    rng = np.random.default_rng(5)
    truth = rng.integers(-40, 40, size=SHAPE) / 8
    forecast = truth + rng.integers(-8, 8, size=SHAPE) / 8
    expected = in_batches(truth, forecast, [37]).per_target["r2"]
    far = in_batches(truth + 1e8, forecast + 1e8, sizes).per_target["r2"]
    np.testing.assert_allclose(far, expected, rtol=1e-9)
    # The difference of raw sums of squares, which we do not use, loses them all.
    shifted = (truth + 1e8).reshape(-1, 3)
    raw = np.square(shifted).sum(0) - len(shifted) * np.square(shifted.mean(0))
    around = np.square(truth - truth.mean((0, 1))).sum((0, 1))
    assert np.abs(raw / around - 1).max() > 1e-3


def test_order_of_windows_does_not_matter():
    truth, forecast = example()
    one = ForecastErrors().update(truth, forecast).result()
    two = ForecastErrors().update(truth[::-1], forecast[::-1]).result()
    assert_same(one, two)


# ------------------------------------------------------------------------ missing


def test_unobserved_truth_is_never_counted():
    truth, forecast = example()
    rng = np.random.default_rng(1)
    missing = rng.random(SHAPE) < 0.3
    with_nan = np.where(missing, np.nan, truth)
    masked = np.where(missing, np.inf, truth)
    one = ForecastErrors().update(with_nan, forecast).result()
    two = ForecastErrors().update(masked, forecast, observed=~missing).result()
    assert_same(one, two, rtol=0)
    error = (forecast - truth)[~missing]
    assert one.overall["mse"] == pytest.approx(np.square(error).mean(), rel=1e-13)
    assert one.n_unobserved == missing.sum()
    assert one.n_observed == (~missing).sum()
    target = 1
    seen = ~missing[..., target]
    expected = reference.r2_score(truth[..., target][seen], forecast[..., target][seen])
    assert one.per_target["r2"][target] == pytest.approx(expected, rel=1e-12)


def test_steps_and_targets_without_truth_are_nan_without_warnings(recwarn):
    truth, forecast = example()
    truth[:, 2] = np.nan
    truth[:, :, 0] = np.nan
    summary = ForecastErrors().update(truth, forecast).result()
    assert np.isnan(summary.per_step["mse"]).tolist() == [0, 0, 1, 0, 0]
    assert np.isnan(summary.per_target["r2"]).tolist() == [1, 0, 0]
    assert np.isfinite(summary.overall["r2"])
    # Without any truth nothing is known; that is not a constant target.
    assert summary.n_constant_targets == 0
    nothing = ForecastErrors().update(np.full((2, 3, 1), np.nan), np.zeros((2, 3, 1)))
    assert np.isnan(nothing.result().overall["mse"])
    assert nothing.result().n_observed == 0
    assert not recwarn.list


@pytest.mark.parametrize("value", [0.1, 1e8 + 0.1, 1e-300])
def test_constant_targets_have_no_r2_and_are_counted(value):
    truth, forecast = example()
    truth[..., 1] = value
    for sizes in ([37], [10, 20, 7]):
        summary = in_batches(truth, forecast, sizes)
        assert np.isnan(summary.per_target["r2"]).tolist() == [0, 1, 0]
        assert summary.n_constant_targets == 1
        kept = summary.per_target["r2"][[0, 2]].mean()
        assert summary.overall["r2"] == pytest.approx(kept, rel=1e-14)
    alone = ForecastErrors().update(truth[..., 1:2], forecast[..., 1:2]).result()
    assert np.isnan(alone.overall["r2"])


# ------------------------------------------------------------------------ dtypes


def test_half_and_single_precision_are_summed_in_float64():
    truth, forecast = example((3000, 1, 1))
    single = truth.astype(np.float32), forecast.astype(np.float32)
    found = ForecastErrors().update(*single).result().overall["mse"]
    exact = np.square(single[1].astype(float) - single[0].astype(float)).mean()
    assert found == pytest.approx(exact, rel=1e-14)
    whole = ForecastErrors().update(np.arange(4).reshape(4, 1, 1), np.ones((4, 1, 1)))
    assert whole.result().overall["bias"] == -0.5


def test_inputs_are_not_changed_and_may_be_read_only(no_global_side_effects):
    truth, forecast = example()
    truth[0] = np.nan
    truth.setflags(write=False)
    forecast.setflags(write=False)
    with no_global_side_effects():
        ForecastErrors().update(truth, forecast).result()


def test_large_values_stay_finite_and_overflow_is_told():
    truth, forecast = example()
    summary = ForecastErrors().update(truth * 1e150, forecast * 1e150).result()
    assert np.isfinite(summary.overall["mse"])
    errors = ForecastErrors().update(truth, forecast)
    with pytest.raises(NumericalError, match="step 0, target 0"):
        errors.update(truth * 1e200, forecast * 1e200)
    # The refused batch has left no trace.
    assert_same(errors.result(), ForecastErrors().update(truth, forecast).result())


# ------------------------------------------------------------------------ refusals


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_forecasts_that_are_not_finite_are_refused_by_position(bad):
    truth, forecast = example()
    truth[4, 3, 2] = np.nan
    forecast[4, 3, 2] = bad
    forecast[7, 0, 0] = bad
    with pytest.raises(DataQualityError, match="window 4, step 3, target 2") as caught:
        ForecastErrors().update(truth, forecast)
    assert "forecast holds 2 values" in str(caught.value)


def test_infinite_truth_is_refused_unless_masked():
    truth, forecast = example()
    truth[1, 0, 2] = np.inf
    with pytest.raises(DataQualityError, match=r"truth.*window 1, step 0, target 2"):
        ForecastErrors().update(truth, forecast)


@pytest.mark.parametrize(
    ("truth", "forecast"),
    [
        (np.zeros((4, 3, 2)), np.zeros((4, 2, 3))),
        (np.zeros((4, 3)), np.zeros((4, 3))),
        (np.zeros((4, 3, 2)), np.zeros((1, 3, 2))),
        (np.zeros((0, 3, 2)), np.zeros((0, 3, 2))),
    ],
)
def test_shapes_are_refused_with_the_expected_axes(truth, forecast):
    with pytest.raises(
        InputError, match=r"\(n_windows, horizon, n_targets\)"
    ) as caught:
        ForecastErrors().update(truth, forecast)
    assert str(truth.shape) in str(caught.value)
    assert str(forecast.shape) in str(caught.value)


def test_batches_of_another_shape_are_refused():
    errors = ForecastErrors().update(np.zeros((4, 3, 2)), np.zeros((4, 3, 2)))
    with pytest.raises(InputError, match=r"\(2, 2\).*\(3, 2\)"):
        errors.update(np.zeros((4, 2, 2)), np.zeros((4, 2, 2)))
    scaled = ForecastErrors(seasonal_scale(np.eye(3)))
    with pytest.raises(InputError, match="scale has 3 targets"):
        scaled.update(np.zeros((4, 3, 2)), np.zeros((4, 3, 2)))


@pytest.mark.parametrize("dtype", [bool, complex, object, "U3"])
def test_other_dtypes_are_refused(dtype):
    good = np.zeros((1, 1, 1))
    with pytest.raises(InputTypeError, match="truth"):
        ForecastErrors().update(good.astype(dtype), good)
    with pytest.raises(InputTypeError, match="forecast"):
        ForecastErrors().update(good, good.astype(dtype))


def test_masks_must_be_boolean_and_of_the_same_shape():
    good = np.zeros((2, 1, 1))
    with pytest.raises(InputTypeError, match="observed"):
        ForecastErrors().update(good, good, observed=np.ones((2, 1, 1)))
    with pytest.raises(InputError, match="observed"):
        ForecastErrors().update(good, good, observed=np.ones((1, 1, 1), dtype=bool))


def test_result_needs_a_batch():
    with pytest.raises(InputError, match="update"):
        ForecastErrors().result()


@pytest.mark.parametrize(
    ("history", "season_length", "kind"),
    [
        (np.zeros(5), 1, InputError),
        (np.zeros((5, 1)), 5, InputError),
        (np.zeros((5, 1)), 0, InputError),
        (np.zeros((5, 1)), 1.0, InputTypeError),
        (np.full((5, 1), np.inf), 1, DataQualityError),
        ([["a"], ["b"]], 1, InputTypeError),
    ],
)
def test_scale_refuses_other_histories(history, season_length, kind):
    with pytest.raises(kind):
        seasonal_scale(history, season_length)


@pytest.mark.parametrize("scale", [1.0, np.ones(3), (np.ones(3), np.ones(3))])
def test_scale_must_be_made_by_seasonal_scale(scale):
    with pytest.raises(InputTypeError, match="seasonal_scale"):
        ForecastErrors(scale)


# ------------------------------------------------------------------------ function


def test_forecast_errors_returns_what_was_asked_for():
    truth, forecast = example()
    scale = seasonal_scale(truth.reshape(-1, 3))
    found = forecast_errors(truth, forecast, metrics=POINT, scale=scale)
    expected = ForecastErrors(scale).update(truth, forecast).result().overall
    assert found == expected
    assert list(found) == POINT
    assert list(forecast_errors(truth, forecast, metrics=["mae"])) == ["mae"]


def test_forecast_errors_takes_one_forecast():
    truth, forecast = example((1, 5, 3))
    one = forecast_errors(truth[0], forecast[0])
    assert one == forecast_errors(truth, forecast)


def test_forecast_errors_refuses_unknown_metrics_and_missing_scales():
    with pytest.raises(InputError, match="Did you mean 'rmse'"):
        forecast_errors([[1.0]], [[1.0]], metrics=["rmses"])
    with pytest.raises(InputError, match="seasonal_scale"):
        forecast_errors([[1.0]], [[1.0]], metrics=["mase"])
    with pytest.raises(InputError, match=r"judges quantiles.*QuantileErrors"):
        forecast_errors([[1.0]], [[1.0]], metrics=["crps"])


def test_metric_table_says_which_direction_is_better():
    directions = {name: METRICS[name].direction for name in METRICS}
    assert directions.pop("r2") == "greater"
    assert directions.pop("coverage") == "nominal"
    assert directions.pop("bias") == "zero"
    assert set(directions.values()) == {"lower"}
    scaled = {name for name in METRICS if METRICS[name].needs_scale}
    assert scaled == {"mase", "rmsse"}
    # A worse forecast must move every metric in the other direction.
    truth, forecast = example()
    scale = seasonal_scale(truth.reshape(-1, 3))
    good = forecast_errors(truth, forecast, metrics=POINT, scale=scale)
    worse = truth + 3 * np.abs(forecast - truth)
    bad = forecast_errors(truth, worse, metrics=POINT, scale=scale)
    for name in POINT:
        if METRICS[name].direction == "greater":
            assert bad[name] < good[name]
        else:
            assert abs(bad[name]) > abs(good[name])
