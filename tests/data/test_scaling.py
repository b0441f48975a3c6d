"""Column-wise standardisation against scikit-learn, and where that is hard."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.preprocessing import StandardScaler

from sciseq import LinearForecaster
from sciseq.data.scaling import ColumnScaler, SeriesScaler
from sciseq.errors import InputError, NumericalError

NORMAL = np.random.default_rng(0).normal(size=(50, 3)) * [1.0, 1e-8, 1e8] + [0, 5, -3]


@given(
    hnp.arrays(
        np.float64,
        st.tuples(st.integers(2, 20), st.integers(1, 3)),
        # A grid of values: spreads are either zero or far above rounding.
        elements=st.integers(-1000, 1000).map(lambda one: one / 8)
        | st.just(float("nan")),
    )
)
def test_same_as_scikit_learn(table):
    table[0] = 3.0
    scaler, theirs = ColumnScaler.fit([table]), StandardScaler().fit(table)
    np.testing.assert_allclose(scaler.mean, theirs.mean_, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(scaler.scale, theirs.scale_, rtol=1e-12)
    np.testing.assert_allclose(
        scaler.transform(table), theirs.transform(table), rtol=1e-9, atol=1e-9
    )
    back = scaler.inverse_transform(scaler.transform(table))
    np.testing.assert_allclose(back, table, rtol=1e-12, atol=1e-9)


@given(st.lists(st.integers(0, 49), max_size=4))
def test_many_series_count_as_one_table(cuts):
    parts = [part for part in np.split(NORMAL, sorted(cuts)) if len(part)]
    scaler, whole = ColumnScaler.fit(parts), ColumnScaler.fit([NORMAL])
    np.testing.assert_allclose(scaler.mean, whole.mean, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(scaler.scale, whole.scale, rtol=1e-12)


def test_a_mean_of_means_would_be_wrong():
    parts = [np.zeros((1, 1)), np.ones((3, 1))]
    assert ColumnScaler.fit(parts).mean.item() == 0.75
    assert np.mean([part.mean() for part in parts]) == 0.5


@pytest.mark.parametrize(("offset", "rtol"), [(1e6, 1e-12), (1e9, 1e-9), (1e12, 1e-4)])
def test_a_large_offset_costs_few_digits_of_the_spread(offset, rtol):
    # Steps of 1/8 stay exact at these offsets.
    spread = np.round(8 * np.random.default_rng(0).normal(size=(10_000, 2))) / 8
    scaler, plain = ColumnScaler.fit([offset + spread]), ColumnScaler.fit([spread])
    np.testing.assert_allclose(scaler.scale, plain.scale, rtol=rtol)
    values = offset + spread[:, 0]
    exact = math.fsum(spread[:, 0]) / len(spread)
    assert scaler.mean[0] - offset == pytest.approx(exact, abs=1e4 * np.spacing(offset))
    # Squares first, as in one pass over the data, lose the spread.
    one_pass = np.mean(values**2) - np.mean(values) ** 2
    if offset > 1e7:
        assert one_pass != pytest.approx(plain.scale[0] ** 2, rel=1e-2)


@pytest.mark.parametrize("value", [0.0, 0.1, -1 / 3, 1e-300, 1e15, 1e300])
@pytest.mark.parametrize("shape", [(2, 2), (1000, 1), (300_000, 2)])
def test_constant_columns_scale_by_one(value, shape):
    table = np.full(shape, value)
    scaler = ColumnScaler.fit([table[:1], table[1:]])
    assert scaler.scale.tolist() == [1.0] * shape[1]
    assert scaler.mean.tolist() == [value] * shape[1]
    assert not scaler.transform(table).any()


def test_the_mean_of_many_equal_values_is_not_their_value():
    """Why equality is asked for, and not a spread below rounding alone."""
    table = np.full((300_000, 2), 0.1)
    deviation = np.abs(table.sum(axis=0) / len(table) - 0.1)
    assert (deviation > 10 * np.finfo(float).eps * 0.1).all()


def test_noise_of_rounding_is_constant_and_a_small_spread_is_not():
    rng = np.random.default_rng(0)
    noise = 0.1 * (1 + rng.integers(-1, 2, size=100) * np.finfo(float).eps)
    small = 0.1 * (1 + rng.integers(-1, 2, size=100) * 1e-12)
    scaler = ColumnScaler.fit([np.stack([noise, small], axis=1)])
    assert scaler.scale[0] == 1.0
    assert scaler.scale[1] == pytest.approx(small.std(), rel=1e-3)


def test_missing_values_are_left_out():
    table = NORMAL.copy()
    table[::3, 1] = np.nan
    scaler = ColumnScaler.fit([table])
    known = NORMAL[~np.isnan(table[:, 1]), 1]
    assert scaler.mean[1] == pytest.approx(known.mean(), rel=1e-12)
    assert scaler.scale[1] == pytest.approx(known.std(), rel=1e-12)
    np.testing.assert_array_equal(np.isnan(scaler.transform(table)), np.isnan(table))
    constant = np.array([[np.nan], [2.0], [np.nan], [2.0]])
    assert ColumnScaler.fit([constant]).scale.item() == 1.0


def test_selected_columns_and_any_leading_axes():
    scaler = ColumnScaler.fit([NORMAL])
    block = NORMAL[:40].reshape(4, 5, 2, 3)
    np.testing.assert_array_equal(
        scaler.select([2, 0]).transform(block[..., [2, 0]]),
        scaler.transform(block)[..., [2, 0]],
    )
    identity = ColumnScaler.identity(3)
    np.testing.assert_array_equal(identity.transform(block), block)
    np.testing.assert_array_equal(identity.inverse_transform(block), block)
    with pytest.raises(InputError, match="2 columns were given, the scaler knows 3"):
        scaler.transform(block[..., :2])


@pytest.mark.parametrize("is_shared", [True, False])
def test_windows_are_scaled_as_the_rows_of_their_series(is_shared):
    rows = [NORMAL[:20], 5 * NORMAL[20:40] + 1]
    scaler = SeriesScaler.fit(rows)
    if is_shared:
        scaler = SeriesScaler.shared(ColumnScaler.fit(rows))
    series = np.array([1, 0, 1])
    windows = np.stack([rows[one] for one in series])
    before = windows.copy()
    scaled = scaler.transform_windows(windows, series)
    for window, found, one in zip(windows, scaled, series, strict=True):
        np.testing.assert_array_equal(found, scaler.transform(window, one))
    np.testing.assert_allclose(scaler.inverse_transform(scaled, series), windows)
    np.testing.assert_array_equal(windows, before)
    assert scaler.scale_of(series).shape == (3, 1, 3)
    wrong = scaler.transform_windows(windows, series[::-1] - 1)
    assert np.array_equal(wrong, scaled) == is_shared


def test_a_spread_beyond_float64_is_refused():
    with pytest.raises(NumericalError, match="overflows"):
        ColumnScaler.fit([np.array([[0.0, 1e300], [1.0, -1e300]])])


def test_statistics_come_from_training_rows_only():
    """The card, §8.11: rows held out for validation do not count."""
    table = np.random.default_rng(0).normal(size=(100, 2))
    table[90:] += 50.0
    model = LinearForecaster(lookback=4, horizon=2, validation_fraction=0.1).fit(table)
    np.testing.assert_allclose(model.scaler_.mean, table[:90].mean(axis=0), rtol=1e-12)
    assert not np.allclose(model.scaler_.mean, table.mean(axis=0), atol=1.0)
    model.set_params(refit_on_all=True).fit(table)
    np.testing.assert_allclose(model.scaler_.mean, table.mean(axis=0), rtol=1e-12)
