"""Forecasts by continuing tokens: bins, paths, quantiles, and the common checks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from sciseq.errors import InputError, SciSeqWarning
from sciseq.forecasting.generative import GenerativeForecaster, _bins
from sciseq.generation.sequences.autoregressive import AutoregressiveSequence
from sciseq.testing import check_estimator


def tiny(max_epochs=1, batch_size=64, **params):
    generator = AutoregressiveSequence(
        d_model=8, d_ff=16, n_layers=1, n_heads=2, dropout=0.0, max_epochs=max_epochs,
        learning_rate=1e-2, batch_size=batch_size, device="cpu", precision="float64",
    )  # fmt: skip
    given = {"n_bins": 6, "n_samples": 5, "lookback": 8, "horizon": 3, **params}
    return GenerativeForecaster(generator=generator, random_state=0, **given)


@pytest.fixture(scope="module")
def wave():
    return np.stack([np.sin(np.arange(60) * 0.8), np.cos(np.arange(60) * 0.5)], 1)


@pytest.fixture(scope="module")
def model(wave):
    return tiny().fit(wave)


@given(st.lists(st.integers(-4, 4), min_size=1, max_size=40), st.integers(2, 9))
def test_no_bin_is_empty_and_levels_lie_inside(values, n_bins):
    z = np.array(values, dtype=float)[None]
    edges, levels = _bins(z, n_bins)
    bins = np.digitize(z, edges)
    assert set(bins.ravel().tolist()) == set(range(len(levels)))
    assert len(levels) == len(edges) + 1 <= n_bins
    assert (np.diff(levels) > 0).all()
    assert (np.digitize(levels, edges) == np.arange(len(levels))).all()
    assert levels[bins].mean() == pytest.approx(z.mean(), abs=1e-12)


def test_bins_hold_equal_shares():
    z = np.random.default_rng(0).normal(size=(10, 100))
    counts = np.bincount(np.digitize(z, _bins(z, 8)[0]).ravel())
    assert counts.max() - counts.min() <= 2
    widths = np.histogram(z, 8)[0]  # bins of equal widths do not
    assert widths.max() - widths.min() > 100


def test_forecasts_are_those_of_the_paths(model, wave):
    found = model.predict_quantiles(quantiles=[0.9, 0.1, 0.5])
    assert list(found) == [0.1, 0.5, 0.9]
    assert (found[0.1] <= found[0.5]).all() and (found[0.5] <= found[0.9]).all()
    median = tiny(point="median").fit(wave)
    assert_allclose(median.predict(), found[0.5], rtol=1e-12)
    assert not np.allclose(model.predict(), found[0.5])
    low, high = model.predict_interval(coverage=0.8)
    assert_allclose(low, found[0.1], rtol=0, atol=1e-12)
    assert_allclose(high, found[0.9], rtol=0, atol=1e-12)


def test_longer_quantiles_begin_like_shorter_ones(model):
    longer = model.predict_quantiles(horizon=7)[0.9]
    assert longer.shape == (7, 2)
    assert_allclose(longer[:3], model.predict_quantiles()[0.9], rtol=0, atol=1e-12)


def test_forecasts_move_and_stretch_with_the_look_back(model, wave):
    there = wave[-8:] * [5.0, 0.25] + [100.0, -3.0]
    expected = model.predict(wave) * [5.0, 0.25] + [100.0, -3.0]
    assert_allclose(model.predict(there), expected, rtol=1e-9)


def test_columns_do_not_read_each_other(model, wave):
    other = wave.copy()
    other[:, 1] = np.random.default_rng(0).normal(size=60)
    assert_allclose(model.predict(other)[:, 0], model.predict(wave)[:, 0], rtol=1e-12)
    assert not np.allclose(model.predict(other)[:, 1], model.predict(wave)[:, 1])


def test_a_season_is_learnt():
    x = np.tile([0.0, 1.0, 3.0, 2.0], 40)[:, None]
    model = tiny(max_epochs=12, batch_size=8, horizon=4, n_samples=10).fit(x[:156])
    error = np.abs(model.predict() - x[156:]).mean()
    assert error < 0.3 < np.abs(x[156:] - x[155]).mean(), error


@pytest.mark.parametrize("params", [{"generator": 3}, {"n_bins": 1}, {"point": "mode"}])
def test_what_is_refused(params, wave):
    with pytest.raises(InputError, match=next(iter(params))):
        GenerativeForecaster(**params).fit(wave)


MASKED = "there is no missing='mask': a gap has no token"
EXPECTED = {"check_infinite_values": MASKED, "check_missing_values_masked": MASKED}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::sciseq.errors.SciSeqWarning")
def test_common_checks():
    check_estimator(tiny(), kind="forecaster", expected_failures=EXPECTED)


def test_a_generator_with_ends_goes_on_to_the_end():
    """A larger ``max_length`` gives the generator an end, which no path may draw."""
    y = np.sin(np.arange(80.0) / 3)[:, None]
    generator = AutoregressiveSequence(
        max_length=64, d_model=8, d_ff=8, n_layers=1, max_epochs=1, random_state=0,
        device="cpu",
    )  # fmt: skip
    model = GenerativeForecaster(
        generator=generator, lookback=8, horizon=3, n_bins=8, n_samples=20,
        random_state=0,
    ).fit(y)  # fmt: skip
    assert model.generator_.alphabet_.end is not None
    assert np.isfinite(model.predict()).all()
    with pytest.warns(SciSeqWarning, match="rolling"):
        assert np.isfinite(model.predict(horizon=7)).all()
