"""Scores of quantiles, samples and intervals: closed forms, brute force, properness."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from sciseq.errors import DataQualityError, InputError, InputTypeError
from sciseq.metrics import (
    QuantileErrors,
    crps_from_quantiles,
    crps_from_samples,
    interval_coverage,
    interval_score,
    pinball_loss,
)
from sciseq.metrics.probabilistic import central_levels

LEVELS = (0.05, 0.1, 0.5, 0.9, 0.95)
SHAPE = (23, 4, 3)  # window, step, target


def example(seed=0):
    """Truths of a standard normal, and its quantiles shifted by some noise."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=SHAPE)
    shift = rng.normal(scale=0.3, size=SHAPE)
    return truth, shift[..., None] + stats.norm.ppf(LEVELS)


def gaussian_crps(y, mean, deviation):
    """Closed form (Gneiting et al. 2005)."""
    z = (y - mean) / deviation
    density = 2 * stats.norm.pdf(z) - 1 / np.sqrt(np.pi)
    return deviation * (z * (2 * stats.norm.cdf(z) - 1) + density)


# ------------------------------------------------------------------------ one by one


def test_pinball_loss_by_its_two_branches():
    rng = np.random.default_rng(1)
    y, q = rng.normal(size=(6, 5)), rng.normal(size=(6, 5, 3))
    levels = [0.1, 0.5, 0.75]
    loss = pinball_loss(y, q, levels)
    for index in np.ndindex(q.shape):
        tau, above = levels[index[-1]], y[index[:-1]] - q[index]
        expected = tau * above if above >= 0 else (1 - tau) * -above
        assert loss[index] == pytest.approx(expected, rel=1e-14)
    # The median loses half the absolute error.
    np.testing.assert_allclose(loss[..., 1], np.abs(y - q[..., 1]) / 2)


def test_crps_from_quantiles_tends_to_the_gaussian_closed_form():
    y = np.array([-3.0, -0.4, 0.0, 1.1, 5.0])
    exact = gaussian_crps(y, 0.5, 2.0)
    errors = []
    for count in (10, 100, 1000):
        levels = (np.arange(count) + 0.5) / count
        quantiles = np.tile(stats.norm.ppf(levels, 0.5, 2.0), (5, 1))
        errors.append(np.abs(crps_from_quantiles(y, quantiles, levels) - exact).max())
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-2
    # Without the factor of two the limit is another number.
    half = pinball_loss(y, quantiles, levels).mean(axis=-1)
    assert np.abs(half - exact).min() > 0.1


def test_crps_from_samples_by_brute_force():
    rng = np.random.default_rng(2)
    y, x = rng.normal(size=(4, 3)), rng.normal(size=(4, 3, 17))
    x[0, 0] = 1.5  # ties
    pairs = np.abs(x[..., :, None] - x[..., None, :]).mean(axis=(-1, -2))
    expected = np.abs(x - y[..., None]).mean(axis=-1) - pairs / 2
    np.testing.assert_allclose(crps_from_samples(y, x), expected, rtol=1e-12)
    # The definition: squared distance of two distribution functions.
    sample, value = np.sort(x[1, 1]), y[1, 1]
    edges = np.sort([*sample, value])
    squared = [
        (b - a) * ((sample <= a).mean() - (value <= a)) ** 2 for a, b in pairwise(edges)
    ]
    assert crps_from_samples(value, sample) == pytest.approx(sum(squared), rel=1e-12)
    # Ranks that count from the middle of another sample size miss it.
    wrong = np.abs(x - y[..., None]).mean(-1) - pairs * 17 / 16 / 2
    assert not np.allclose(wrong, expected)


def test_crps_of_many_samples_is_the_gaussian_closed_form():
    m = 20000
    sample = stats.norm.ppf((np.arange(m) + 0.5) / m, 1.0, 3.0)
    for y in (-4.0, 1.0, 2.5):
        expected = gaussian_crps(y, 1.0, 3.0)
        assert crps_from_samples(y, sample) == pytest.approx(expected, rel=1e-3)


def test_crps_of_one_sample_is_the_absolute_error():
    y, x = np.array([1.0, -2.0]), np.array([[4.0], [4.0]])
    np.testing.assert_array_equal(crps_from_samples(y, x), [3.0, 6.0])


def test_interval_score_is_two_pinball_losses():
    rng = np.random.default_rng(3)
    y, ends = rng.normal(size=50), np.sort(rng.normal(size=(50, 2)), axis=1)
    for share in (0.5, 0.8, 0.95):
        score = interval_score(y, ends[:, 0], ends[:, 1], share)
        losses = pinball_loss(y, ends, central_levels(share)).sum(axis=1)
        np.testing.assert_allclose(score, 2 / (1 - share) * losses, rtol=1e-12)


def test_unobserved_truth_has_no_score():
    y = np.array([np.nan, 1.0])
    ends = np.zeros(2), np.ones(2)
    assert np.isnan(pinball_loss(y, np.zeros((2, 1)), [0.5])[:, 0]).tolist() == [1, 0]
    assert np.isnan(crps_from_samples(y, np.zeros((2, 4)))).tolist() == [1, 0]
    assert np.isnan(interval_score(y, *ends, 0.9)).tolist() == [1, 0]
    np.testing.assert_array_equal(interval_coverage(y, *ends), [np.nan, 1.0])


# ------------------------------------------------------------------------ properness

finite = st.floats(-5.0, 5.0)
levels_between = st.floats(0.05, 0.95)


@st.composite
def distributions(draw):
    """Values and weights of a distribution with a few values."""
    values = draw(st.lists(finite, min_size=2, max_size=6, unique=True))
    weights = draw(
        st.lists(st.integers(1, 9), min_size=len(values), max_size=len(values))
    )
    return np.sort(values), np.array(weights) / sum(weights)


def quantile(values, weights, level):
    return values[np.searchsorted(np.cumsum(weights) - 1e-9, level)]


@given(distribution=distributions(), level=levels_between, other=finite)
@settings(max_examples=150)
def test_no_forecast_is_expected_to_beat_the_true_quantile(distribution, level, other):
    values, weights = distribution

    def expected(q):
        loss = pinball_loss(values, np.full((len(values), 1), q), [level])
        return float(weights @ loss[:, 0])

    assert expected(quantile(*distribution, level)) <= expected(other) + 1e-9


@given(
    distribution=distributions(), share=levels_between, ends=st.tuples(finite, finite)
)
@settings(max_examples=150)
def test_no_interval_is_expected_to_beat_the_true_one(distribution, share, ends):
    values, weights = distribution

    def expected(low, high):
        score = interval_score(
            values, np.full_like(values, low), np.full_like(values, high), share
        )
        return float(weights @ score)

    best = [quantile(*distribution, level) for level in central_levels(share)]
    assert expected(*best) <= expected(*sorted(ends)) + 1e-9


@given(distribution=distributions(), ensemble=st.lists(finite, min_size=1, max_size=8))
@settings(max_examples=150)
def test_no_ensemble_is_expected_to_beat_the_true_distribution(distribution, ensemble):
    values, weights = distribution

    def expected(samples):
        repeated = np.tile(samples, (len(values), 1))
        return float(weights @ crps_from_samples(values, repeated))

    # The true distribution as an ensemble: every value as often as its weight says.
    counts = np.rint(weights / weights.min() * 60).astype(int)
    weights = counts / counts.sum()
    assert expected(np.repeat(values, counts)) <= expected(ensemble) + 1e-9


def test_width_alone_or_coverage_alone_would_not_be_proper():
    values = stats.norm.ppf((np.arange(999) + 0.5) / 999)
    lower, upper = stats.norm.ppf(central_levels(0.8))

    def expected(score, low, high):
        low, high = np.full_like(values, low), np.full_like(values, high)
        return score(values, low, high)

    def narrow(y, low, high):
        return (high - low).mean()

    def misses(y, low, high):
        return 1 - interval_coverage(y, low, high).mean()

    assert expected(narrow, 0.0, 0.0) < expected(narrow, lower, upper)
    assert expected(misses, -9.0, 9.0) < expected(misses, lower, upper)
    best = interval_score(values, *np.full((2, 999), [[lower], [upper]]), 0.8).mean()
    for low, high in ((0.0, 0.0), (-9.0, 9.0), (lower - 0.2, upper), (lower, 1.1)):
        ends = np.full((2, 999), [[low], [high]])
        assert interval_score(values, *ends, 0.8).mean() > best


def test_crps_is_the_integral_of_the_pinball_loss():
    sample = np.array([-1.0, 0.3, 0.4, 2.0])

    def loss(level):
        q = sample[min(int(level * 4), 3)]
        return pinball_loss(0.7, [q], [level]).item()

    parts = [integrate.quad(loss, k / 4, (k + 1) / 4)[0] for k in range(4)]
    assert crps_from_samples(0.7, sample) == pytest.approx(2 * sum(parts), rel=1e-9)


# ------------------------------------------------------------------------ accumulator


def test_accumulated_scores_are_means_of_single_scores():
    truth, quantiles = example()
    truth[np.random.default_rng(4).random(SHAPE) < 0.2] = np.nan
    scores = QuantileErrors([0.1, 0.5, 0.9], coverage=[0.8, 0.9])
    assert scores.levels == LEVELS
    for rows in (slice(0, 5), slice(5, 23)):
        scores.update(truth[rows], quantiles[rows])
    summary = scores.result()

    pinball = pinball_loss(truth, quantiles[..., 1:4], [0.1, 0.5, 0.9]).mean(-1)
    single = {
        "pinball": pinball,
        "crps": crps_from_quantiles(truth, quantiles[..., 1:4], [0.1, 0.5, 0.9]),
        "interval_score_0.8": interval_score(
            truth, quantiles[..., 1], quantiles[..., 3], 0.8
        ),
        "interval_score_0.9": interval_score(
            truth, quantiles[..., 0], quantiles[..., 4], 0.9
        ),
        "coverage_0.8": interval_coverage(truth, quantiles[..., 1], quantiles[..., 3]),
        "coverage_0.9": interval_coverage(truth, quantiles[..., 0], quantiles[..., 4]),
    }
    assert list(summary.overall) == list(single)
    for name, values in single.items():
        assert summary.overall[name] == pytest.approx(np.nanmean(values), rel=1e-12)
        for kind, axes in (("per_step", (0, 2)), ("per_target", (0, 1))):
            np.testing.assert_allclose(
                getattr(summary, kind)[name], np.nanmean(values, axis=axes), rtol=1e-12
            )
    assert summary.n_unobserved == np.isnan(truth).sum()
    assert summary.n_observed + summary.n_unobserved == truth.size
    assert summary.n_windows == 23
    # A mean of the means of both batches is another number.
    halves = [np.nanmean(pinball[:5]), np.nanmean(pinball[5:])]
    assert summary.overall["pinball"] != pytest.approx(np.mean(halves), rel=1e-6)


def test_names_tell_one_interval_from_several():
    assert QuantileErrors(coverage=0.9).metrics == ("interval_score", "coverage")
    assert QuantileErrors(coverage=[0.9]).metrics == (
        "interval_score_0.9",
        "coverage_0.9",
    )
    assert QuantileErrors([0.5]).metrics == ("pinball", "crps")
    # 0.05 and (1 - 0.9) / 2 are the same level.
    assert QuantileErrors([0.95, 0.05], coverage=0.9).levels == (0.05, 0.95)


def test_what_was_never_observed_is_nan(recwarn):
    truth, quantiles = example()
    truth[:, 1] = np.nan
    result = QuantileErrors(coverage=[0.8, 0.9], quantiles=[0.5])
    summary = result.update(truth, quantiles).result()
    assert np.isnan(summary.per_step["crps"]).tolist() == [0, 1, 0, 0]
    assert np.isfinite(summary.overall["crps"])
    assert not recwarn.list


# ------------------------------------------------------------------------ refusals


@pytest.mark.parametrize("levels", [0.0, 1.0, [0.5, 1.5], ["a"], [[0.5]], True])
def test_levels_must_be_shares(levels):
    for call in (
        lambda: QuantileErrors(levels),
        lambda: pinball_loss(0.0, [0.0], levels),
    ):
        with pytest.raises(InputError, match="between 0 and 1"):
            call()


def test_shapes_and_types_are_refused():
    with pytest.raises(InputError, match=r"must have shape \(2, 3\), got \(3, 2\)"):
        pinball_loss([0.0, 1.0], np.zeros((3, 2)), [0.1, 0.5, 0.9])
    with pytest.raises(InputError, match=r"must have shape \(2, 'm'\)"):
        crps_from_samples([0.0, 1.0], [0.0, 1.0])
    with pytest.raises(InputError, match="shapes differ"):
        interval_score([0.0, 1.0], [0.0], [1.0], 0.9)
    with pytest.raises(InputError, match="between 0 and 1"):
        interval_score([0.0], [0.0], [1.0], 1.0)
    with pytest.raises(InputTypeError, match="samples"):
        crps_from_samples([0.0], [["a"]])


def test_accumulator_refuses_what_it_cannot_count():
    truth, quantiles = example()
    scores = QuantileErrors([0.5], coverage=[0.8, 0.9])
    with pytest.raises(InputError, match="update"):
        scores.result()
    with pytest.raises(InputError, match="neither"):
        QuantileErrors()
    with pytest.raises(InputError, match="last axis follows the levels"):
        scores.update(truth, quantiles[..., :3])
    quantiles[3, 2, 1, 0] = np.nan
    with pytest.raises(
        DataQualityError, match="window 3, step 2, target 1, level 0"
    ) as caught:
        scores.update(truth, quantiles)
    assert "1 values" in str(caught.value)
    scores.update(truth[:3], quantiles[:3])
    with pytest.raises(InputError, match=r"\(4, 2\), earlier ones had \(4, 3\)"):
        scores.update(truth[:3, :, :2], quantiles[:3, :, :2])
