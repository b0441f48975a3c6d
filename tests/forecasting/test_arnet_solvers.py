"""Moments and solutions of autoregressions, against windows written out."""

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from scipy import linalg
from scipy.signal import lfilter

from sciseq.errors import DataQualityError, NumericalError
from sciseq.forecasting import arnet_solvers
from sciseq.forecasting.arnet_moments import (
    design_moments,
    difference_moments,
    differences,
    lag_chunks,
    lag_moments,
)
from sciseq.forecasting.arnet_solvers import (
    characteristic_roots,
    is_stable,
    least_squares,
    stpe,
    yule_walker,
)

TRUE = np.array([0.2, 0.3, -0.5])


def simulate(weights, n_rows, seed):
    """An autoregression with unit noise, after its start has been forgotten."""
    noise = np.random.default_rng(seed).normal(size=n_rows + 1000)
    return lfilter([1.0], np.concatenate([[1.0], -np.asarray(weights)]), noise)[1000:]


def windows(series, L, H):
    """All windows of some series: inputs (n, L), oldest first, and truths (n, H)."""
    rows = [sliding_window_view(one, L + H) for one in series if len(one) >= L + H]
    rows = np.concatenate(rows)
    return rows[:, :L], rows[:, L:]


def reference(series, L, H=1):
    """Weights (L, H) and constants (H,) of least squares on centred windows."""
    X, Y = windows(series, L, H)
    centred = X - X.mean(axis=0)
    centred -= centred.mean(axis=0)  # the first mean was rounded
    weights = np.linalg.lstsq(centred, Y - Y.mean(axis=0), rcond=1e-13)[0]
    return weights, Y.mean(axis=0) - X.mean(axis=0) @ weights


def solve(series, L, H=1, **options):
    return least_squares(
        lag_moments(series, L, H), lambda: lag_chunks(series, L, H), **options
    )


RNG = np.random.default_rng(0)
SERIES = [RNG.normal(size=n).cumsum() for n in (40, 9, 25, 25, 3)]


# Moments


def brute_force(series, L, H):
    X, Y = windows(series, L, H)
    X, Y = X - X.mean(axis=0), Y - Y.mean(axis=0)
    return X.T @ X, X.T @ Y, (Y**2).sum(axis=0)


@pytest.mark.parametrize(("L", "H"), [(1, 1), (4, 1), (4, 3), (6, 2), (2, 7), (20, 5)])
def test_moments_of_lags_are_those_of_all_windows(L, H):
    moments = lag_moments(SERIES, L, H)
    found = moments.gram, moments.cross, moments.square
    for one, expected in zip(found, brute_force(SERIES, L, H), strict=True):
        np.testing.assert_allclose(one, expected, rtol=1e-9, atol=1e-9)
    X, Y = windows(SERIES, L, H)
    assert moments.count == len(X)
    np.testing.assert_allclose(moments.feature_mean, X.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(moments.truth_mean, Y.mean(axis=0), rtol=1e-12)
    if L > 1:
        # Stationary sums, without the two ends of each series, are something else.
        toeplitz = linalg.toeplitz(moments.gram[0])
        assert not np.allclose(toeplitz, moments.gram, rtol=1e-3)


def test_many_short_series_are_as_one_design():
    many = list(np.random.default_rng(1).normal(size=(300, 9)))
    moments = lag_moments(many, 6, 3)  # one window each
    other = design_moments(lag_chunks(many, 6, 3))
    for name in ("gram", "cross", "square", "feature_mean", "truth_mean", "count"):
        np.testing.assert_allclose(
            getattr(moments, name), getattr(other, name), rtol=1e-9, atol=1e-9
        )


@pytest.mark.parametrize("level", [1e3, 1e7, -1e9])
def test_a_common_level_costs_no_digits(level):
    x = simulate(TRUE, 3000, 0)
    moved = x + level
    for moments in (lag_moments([moved], 5), design_moments(lag_chunks([moved], 5))):
        # The series itself is rounded to level * eps, and nothing worse happens.
        expected = lag_moments([moved - level], 5)
        np.testing.assert_allclose(moments.gram, expected.gram, rtol=1e-10, atol=1e-7)
    X, _ = windows([moved], 5, 1)
    naive = X.T @ X - len(X) * np.outer(X.mean(axis=0), X.mean(axis=0))
    if abs(level) > 1e6:
        assert not np.allclose(naive, expected.gram, rtol=1e-10, atol=1e-7)


def test_weights_count_rows_several_times():
    rng = np.random.default_rng(2)
    X, Y = rng.normal(size=(30, 4)), rng.normal(size=(30, 2))
    weight = rng.integers(0, 4, size=30)
    weighted = design_moments([(X, Y, weight.astype(float))])
    repeated = design_moments([(X.repeat(weight, 0), Y.repeat(weight, 0), None)])
    for name in ("count", "gram", "cross", "square", "feature_mean", "truth_mean"):
        np.testing.assert_allclose(
            getattr(weighted, name), getattr(repeated, name), rtol=1e-9, atol=1e-12
        )
    assert not np.allclose(weighted.gram, design_moments([(X, Y, None)]).gram)


def test_mean_square_is_that_of_the_residuals():
    X, Y = windows(SERIES, 4, 2)
    moments = lag_moments(SERIES, 4, 2)
    weights = np.random.default_rng(3).normal(size=(4, 2))
    residuals = Y - X @ weights
    expected = (residuals - residuals.mean(axis=0)) ** 2
    np.testing.assert_allclose(
        moments.mean_square(weights), expected.mean(axis=0), rtol=1e-9
    )


def test_too_short_and_too_large_series_are_refused():
    with pytest.raises(DataQualityError, match="41 rows"):
        lag_moments(SERIES, 40)
    with pytest.raises(DataQualityError, match="no window is complete"):
        design_moments(iter([]))
    with pytest.raises(NumericalError, match="overflow"):
        lag_moments([np.array([1e200, -1e200, 3e200, 1.0])], 1)
    with pytest.raises(NumericalError, match="overflow"):
        yule_walker([np.array([1e200, -1e200, 3e200, 1.0])], 1)


# Least squares


@pytest.mark.parametrize(("L", "H"), [(1, 1), (5, 1), (5, 3)])
def test_weights_are_those_of_least_squares(L, H):
    solution = solve(SERIES, L, H)
    weights, intercept = reference(SERIES, L, H)
    np.testing.assert_allclose(solution.weights, weights, rtol=1e-10, atol=1e-11)
    np.testing.assert_allclose(solution.intercept, intercept, rtol=1e-9, atol=1e-10)
    assert solution.rank == L
    # One series alone, or the stationary equations, give other weights.
    assert not np.allclose(solve(SERIES[:1], L, H).weights, weights, rtol=1e-3)
    assert not np.allclose(yule_walker(SERIES, L, H).weights, weights, rtol=1e-3)


@pytest.mark.parametrize(("n_rows", "p"), [(500, 3), (3000, 60)])
def test_equal_to_statsmodels(n_rows, p):
    from statsmodels.tsa.ar_model import AutoReg

    x = 5 + simulate(TRUE, n_rows, 1)
    expected = np.asarray(AutoReg(x, p, trend="c").fit().params)
    solution = solve([x], p)
    assert solution.method == "cholesky"
    np.testing.assert_allclose(solution.weights[::-1, 0], expected[1:], atol=1e-8)
    np.testing.assert_allclose(solution.intercept, expected[:1], atol=1e-8)


T = np.arange(3000.0)
ILL = {
    "trend": 0.5 * T + simulate(TRUE, 3000, 1),
    "steep trend": 1e3 * T + simulate(TRUE, 3000, 1),
    "near unit root": simulate([0.99995], 3000, 1),
    "twice integrated": np.random.default_rng(1).normal(size=3000).cumsum().cumsum(),
    "smooth": np.sin(T / 50) + 1e-6 * np.random.default_rng(1).normal(size=3000),
    "vast trend": 1e8 * T + simulate(TRUE, 3000, 1),
}


@pytest.mark.parametrize("name", ILL)
def test_ill_conditioned_series_keep_their_digits(name):
    x, p = ILL[name], 12
    solution = solve([x], p)
    # Beyond the condition that refinement can bear, orthogonal factors take over.
    ways = {"vast trend": "qr", "near unit root": "cholesky"}
    assert solution.method == ways.get(name, "refined")
    expected, _ = reference([x], p)
    tolerance = 1e-4 if name == "vast trend" else 1e-8
    np.testing.assert_allclose(solution.weights, expected, atol=tolerance)


def test_moments_alone_lose_the_digits_that_refinement_keeps(monkeypatch):
    x, p = ILL["twice integrated"], 12
    expected, _ = reference([x], p)
    monkeypatch.setattr(arnet_solvers, "ACCEPTED", np.inf)
    plain = solve([x], p)
    assert plain.method == "cholesky"
    assert np.abs(plain.weights - expected).max() > 1e-5


def test_as_exact_as_statsmodels_on_ill_conditioned_series():
    from statsmodels.tsa.ar_model import AutoReg

    for name in ("trend", "near unit root", "twice integrated", "smooth"):
        params = np.asarray(AutoReg(ILL[name], 12, trend="c").fit().params)
        weights = solve([ILL[name]], 12).weights[::-1, 0]
        np.testing.assert_allclose(weights, params[1:], atol=1e-6)


def test_orthogonal_factors_by_chunks_are_those_of_all_rows(monkeypatch):
    x = [simulate(TRUE, 400, 4)]
    moments = lag_moments(x, 6, 2)
    active = np.ones(6, dtype=bool)
    ridge = 7.0 * np.eye(6)
    for pull in (None, ridge):
        found, rank = arnet_solvers._orthogonal(
            moments, lambda: lag_chunks(x, 6, 2, size=11), pull, active
        )
        gram = moments.gram + (0 if pull is None else ridge)
        expected = np.linalg.solve(gram, moments.cross)
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)
        assert rank == 6


def test_what_the_data_do_not_tell_is_the_shortest_solution():
    x = [np.sin(np.arange(300.0) / 3)]
    solution = solve(x, 8)
    assert (solution.method, solution.rank) == ("least norm", 2)
    X, Y = windows(x, 8, 1)
    np.testing.assert_allclose(X @ solution.weights + solution.intercept, Y, atol=1e-8)
    # x_t = 2 cos(1/3) x_{t-1} - x_{t-2} fits as well, and is longer.
    other = np.zeros(8)
    other[-1], other[-2] = 2 * np.cos(1 / 3), -1
    np.testing.assert_allclose(X @ other[:, None], Y, atol=1e-8)
    assert np.linalg.norm(solution.weights) < np.linalg.norm(other)


def test_fewer_windows_than_weights():
    x = [np.random.default_rng(5).normal(size=12)]
    solution = solve(x, 8)
    assert (solution.method, solution.rank) == ("least norm", 3)  # 4 rows, less a mean
    X, Y = windows(x, 8, 1)
    np.testing.assert_allclose(X @ solution.weights + solution.intercept, Y, atol=1e-8)


def test_a_constant_series_has_no_weights():
    for value in (0.0, 0.1, -3e7):
        solution = solve([np.full(50, value)], 4)
        np.testing.assert_array_equal(solution.weights, 0.0)
        np.testing.assert_allclose(solution.intercept, value, rtol=1e-15)
        levinson = yule_walker([np.full(50, value)], 4)
        np.testing.assert_array_equal(levinson.weights, 0.0)


def test_a_constant_feature_has_no_weight_and_changes_nothing():
    rng = np.random.default_rng(6)
    X, Y = rng.normal(size=(40, 3)), rng.normal(size=(40, 1))
    wide = np.hstack([X, np.full((40, 1), 0.3)])
    found = least_squares(design_moments([(wide, Y, None)]), lambda: iter([]))
    alone = least_squares(design_moments([(X, Y, None)]), lambda: iter([]))
    np.testing.assert_allclose(found.weights[:3], alone.weights, rtol=1e-12)
    assert found.weights[3, 0] == 0.0


@pytest.mark.parametrize("name", ["plain", "twice integrated"])
def test_a_penalty_is_as_further_rows(name):
    x = [simulate(TRUE, 300, 7)] if name == "plain" else [ILL[name]]
    L, alpha = 5, 0.3 if name == "plain" else 0.1
    penalty = alpha * (np.eye(L) + 1.0)
    solution = solve(x, L, penalty=penalty)
    X, Y = windows(x, L, 1)
    X, Y = X - X.mean(axis=0), Y - Y.mean(axis=0)
    pull = np.linalg.cholesky(len(X) * penalty).T
    rows = np.vstack([X, pull]), np.vstack([Y, np.zeros((L, 1))])
    expected = np.linalg.lstsq(*rows, rcond=None)[0]
    np.testing.assert_allclose(solution.weights, expected, rtol=1e-7, atol=1e-9)
    assert not np.allclose(solve(x, L).weights, expected, atol=1e-8)


# Differences


OFFSETS = {"last": np.eye(5)[-1], "mean": np.full(5, 0.2)}


@pytest.mark.parametrize("centre", OFFSETS)
def test_moments_of_differences(centre):
    offset = OFFSETS[centre]
    rng = np.random.default_rng(8)
    for n_beside in (0, 2):
        design = rng.normal(size=(60, 5 + n_beside)), rng.normal(size=(60, 3)), None
        found = difference_moments(design_moments([design]), 5, offset)
        expected = design_moments([differences(design, 5, offset)])
        for name in ("gram", "cross", "square", "feature_mean", "truth_mean"):
            np.testing.assert_allclose(
                getattr(found, name), getattr(expected, name), rtol=1e-9, atol=1e-9
            )


@pytest.mark.parametrize("centre", OFFSETS)
def test_differences_are_least_squares_under_a_constraint(centre):
    x, offset = [simulate(TRUE, 400, 9)], OFFSETS[centre]
    moments = lag_moments(x, 5)
    found = least_squares(difference_moments(moments, 5, offset), lambda: iter([]))
    u = found.weights[:, 0]
    weights = offset + np.append(u, -u.sum())
    # Lagrange: gram w - cross = multiplier, and sum w = 1
    system = np.block([[moments.gram, np.ones((5, 1))], [np.ones((1, 5)), 0.0]])
    expected = np.linalg.solve(system, np.append(moments.cross[:, 0], 1.0))[:5]
    np.testing.assert_allclose(weights, expected, rtol=1e-9)
    assert not np.isclose(solve(x, 5).weights.sum(), 1.0, atol=0.1)


# Yule–Walker


def test_levinson_solves_the_yule_walker_equations():
    from statsmodels.tsa.stattools import acovf

    x = 3 + simulate(TRUE, 800, 10)
    solution = yule_walker([x], 7)
    covariance = acovf(x, adjusted=False, fft=False, nlag=7)
    expected = np.linalg.solve(linalg.toeplitz(covariance[:7]), covariance[1:])
    np.testing.assert_allclose(solution.weights[::-1, 0], expected, atol=1e-10)
    mean = x.mean()
    np.testing.assert_allclose(
        solution.intercept, mean * (1 - solution.weights.sum()), rtol=1e-10
    )
    np.testing.assert_allclose(solution.weights, solve([x], 7).weights, atol=0.02)


def test_levinson_over_several_steps_and_series():
    series = [one - one.mean() for one in (simulate(TRUE, n, 11) for n in (90, 60, 4))]
    L, H = 4, 3
    level = np.concatenate(series).mean()
    covariance = np.zeros(L + H)
    for one in series:
        x = one - level
        for lag in range(min(L + H, len(x))):
            covariance[lag] += x[lag:] @ x[: len(x) - lag]
    expected = np.stack(
        [
            np.linalg.solve(linalg.toeplitz(covariance[:L]), covariance[1 + h :][:L])
            for h in range(H)
        ],
        axis=1,
    )
    solution = yule_walker(series, L, H)
    np.testing.assert_allclose(solution.weights[::-1], expected, rtol=1e-9)


def test_levinson_is_always_stable():
    explosive = [1.05 ** np.arange(60.0)]
    assert is_stable(yule_walker(explosive, 3).weights[::-1, 0])
    assert not is_stable(solve(explosive, 1).weights[::-1, 0])


# What weights mean


def test_roots_are_those_of_the_characteristic_polynomial():
    rng = np.random.default_rng(12)
    for p in (1, 2, 5, 12):
        w = rng.normal(size=p) / p
        roots = characteristic_roots(w)
        assert (np.diff(np.abs(roots)) < 1e-9).all()
        # z^p = w_1 z^(p-1) + ... + w_p at each root
        powers = roots[:, None] ** np.arange(p - 1, -1, -1)
        np.testing.assert_allclose(powers @ w, roots**p, atol=1e-9)
        if p > 1:
            assert not np.allclose(powers @ w[::-1], roots**p, atol=1e-3)


def test_step_down_tells_what_the_roots_tell():
    rng = np.random.default_rng(13)
    found = []
    for _ in range(300):
        w = rng.normal(size=rng.integers(1, 9)) / 2
        largest = np.abs(characteristic_roots(w)[0])
        if abs(largest - 1) > 1e-6:
            assert is_stable(w) == (largest < 1)
            found.append(is_stable(w))
    assert 50 < sum(found) < 250
    assert is_stable(np.zeros(4))
    assert not is_stable(np.array([1.0]))


def test_stpe():
    rng = np.random.default_rng(14)
    a, b = rng.normal(size=(2, 6))
    assert stpe(a, b) == stpe(b, a) > 0
    assert stpe(a, a) == 0
    assert stpe(a, -a) == pytest.approx(100)
    assert stpe([1.0, 0.0], [0.0, 2.0]) == 100  # no overlap
    assert stpe(np.append(a, [0.0, 0.0]), b) == stpe(a, b)  # padded with zeros
    assert stpe([0.0], [0.0, 0.0]) == 0
    assert 0 <= stpe(a, b) <= 100
    assert stpe(3 * a, 3 * b) == pytest.approx(stpe(a, b))
    expected = 100 * (0.1 + 0.2) / (0.5 + 0.4 + 0.1 + 0.3)
    assert stpe([0.5, 0.1], [0.4, 0.3]) == pytest.approx(expected)


# The figures of the card


def test_long_series_with_the_right_order():
    errors, levinson = [], []
    for seed in range(4):
        x = [simulate(TRUE, 100_000, seed)]
        errors.append(stpe(solve(x, 3).weights[::-1, 0], TRUE))
        levinson.append(stpe(yule_walker(x, 3).weights[::-1, 0], TRUE))
    assert 0.1 < np.mean(errors) < 1  # the card: 0.41
    np.testing.assert_allclose(levinson, errors, atol=0.1)


def test_least_squares_spreads_over_too_many_lags():
    x = [simulate(TRUE, 100_000, 0)]
    assert 1 < stpe(solve(x, 20).weights[::-1, 0], TRUE) < 6  # the card: 3.0
    assert 9 < stpe(solve(x, 100).weights[::-1, 0], TRUE) < 20  # 14.8


def test_chunks_cover_every_window_once():
    rows = [X for X, _, _ in lag_chunks(SERIES, 4, 2, size=7)]
    np.testing.assert_array_equal(np.vstack(rows), windows(SERIES, 4, 2)[0])
    assert max(map(len, rows)) == 7
