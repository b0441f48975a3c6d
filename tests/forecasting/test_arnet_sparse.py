"""The sparse objective of AR-Net: its regulariser, and its minimum by two ways."""

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from scipy.optimize import minimize
from scipy.signal import lfilter

from sciseq.forecasting import arnet_sparse
from sciseq.forecasting.arnet_moments import lag_chunks, lag_moments
from sciseq.forecasting.arnet_solvers import least_squares, stpe
from sciseq.forecasting.arnet_sparse import (
    coordinate_descent,
    penalty_strength,
    regularizer,
    stochastic_descent,
)

TRUE = np.array([0.2, 0.3, -0.5])
SCATTERED = np.array([0.2, 0, 0.3, 0, 0, 0, 0, 0, 0, -0.5])  # lags 1, 3 and 10


def simulate(weights, n_rows, seed):
    noise = np.random.default_rng(seed).normal(size=n_rows + 1000)
    return lfilter([1.0], np.concatenate([[1.0], -np.asarray(weights)]), noise)[1000:]


def problem(weights, n_rows, p, seed=0):
    """Moments of one series, and its least squares."""
    x = [simulate(weights, n_rows, seed)]
    moments = lag_moments(x, p)
    return moments, least_squares(moments, lambda: lag_chunks(x, p)).weights


def sparse(moments, start, strength):
    everywhere = np.ones(len(start), dtype=bool)
    strengths = np.full(start.shape[1], strength)
    return coordinate_descent(moments, start, strengths, everywhere)


def objective(moments, weights, strength):
    """MSE + lambda R of one column, from the definition."""
    size = np.abs(weights[:, 0]) + 1e-4
    R = np.mean(np.tanh(1.5 * size ** (1 / 3)))
    return moments.mean_square(weights)[0] + strength * R


def error(weights, true):
    return stpe(weights[::-1, 0], true)


# The regulariser


@pytest.mark.parametrize(
    ("c", "values"),
    [
        (
            3,
            {
                0: 0,
                1e-3: 0.149,
                0.01: 0.312,
                0.1: 0.602,
                0.3: 0.763,
                0.5: 0.831,
                1: 0.905,
            },
        ),
        (2, {1e-3: 0.032, 0.1: 0.306, 0.5: 0.609, 1: 0.762}),
    ],
)
def test_regulariser_has_the_values_of_the_card(c, values):
    for w, expected in values.items():
        assert regularizer(np.array([w]), c1=c, c2=c) == pytest.approx(
            expected, abs=5e-4
        )
        # the other way to write it
        logistic = 2 / (1 + np.exp(-c * abs(w) ** (1 / c))) - 1
        assert regularizer(np.array([w]), c1=c, c2=c) == pytest.approx(logistic)


@pytest.mark.parametrize("floor", [0.0, 1e-4])
def test_regulariser_rises_from_zero_to_below_one(floor):
    w = np.geomspace(1e-6, 1e3, 200)
    values = [regularizer(np.array([one]), floor=floor) for one in w]
    assert (np.diff(values) >= 0).all()
    assert (np.diff(values[:100]) > 0).all()
    assert 0 < values[0] < values[-1] <= 1
    assert regularizer(np.zeros(4), floor=floor) == 0
    signs = np.array([0.3, -0.2, 0.01, -1.0])
    assert regularizer(signs, floor=floor) == regularizer(-signs, floor=floor)
    singles = [regularizer(np.array([one]), floor=floor) for one in signs]
    assert regularizer(signs, floor=floor) == pytest.approx(np.mean(singles))


def test_slope_is_the_derivative():
    w = np.array([0.0, 1e-5, 1e-3, 0.1, 0.5, 2.0])
    step = 1e-7
    height = arnet_sparse._height
    expected = (height(w + step) - height(np.abs(w - step) * (w > 0) + 0)) / step
    expected[1:] /= 2
    np.testing.assert_allclose(arnet_sparse._slope(w), expected, rtol=1e-3)
    # At zero it is steep, and finite thanks to the floor.
    assert 100 < arnet_sparse._slope(np.zeros(1))[0] < 1000
    assert arnet_sparse._slope(np.zeros(1), floor=1e-9)[0] > 1e5


def test_strength_of_the_penalty():
    assert penalty_strength(1.0, 0.02) == 0
    assert penalty_strength(3 / 1000, 0.01) == pytest.approx(0.01 * (1000 / 3 - 1))
    assert penalty_strength(0.1, 0.01) > penalty_strength(0.5, 0.01)


# One weight


@pytest.mark.parametrize("height", [1e-4, 1e-2, 0.3])
@pytest.mark.parametrize("curvature", [0.2, 3.0])
def test_one_weight_goes_to_its_global_minimum(height, curvature):
    grid = np.concatenate([[0.0], np.geomspace(1e-7, 3, 200_000)])
    rise = arnet_sparse._height(grid)
    kinds = set()
    for free in np.concatenate([np.geomspace(1e-3, 2, 40), [0.0]]):
        values = curvature * (grid - free) ** 2 + height * rise
        best = grid[values.argmin()]
        for sign in (1, -1):
            found = arnet_sparse._shrink(sign * free, curvature, height)
            value = curvature * (abs(found) - free) ** 2
            value += height * float(arnet_sparse._height(np.abs(np.array(found))))
            assert value <= values.min() + 1e-9
            assert found == pytest.approx(sign * best, abs=1e-4)
        kinds.add(best == 0)
        assert abs(found) <= free
    assert kinds == {True, False}


def test_bounds_skip_only_what_stays_zero():
    diagonal = np.array([0.5, 1.0, 4.0])
    heights = np.array([1e-3, 1e-2, 0.5])
    bounds = arnet_sparse._zero_bounds(diagonal, heights)
    for q, height, bound in zip(diagonal, heights, bounds, strict=True):
        assert arnet_sparse._shrink(bound / q, q, height) == 0
        assert arnet_sparse._shrink(1.05 * bound / q, q, height) > 0
    assert (arnet_sparse._zero_bounds(diagonal, np.zeros(3)) == 0).all()


# The minimum


def test_no_penalty_is_least_squares():
    moments, start = problem(TRUE, 2000, 10)
    np.testing.assert_array_equal(sparse(moments, start, 0.0), start)


@pytest.mark.parametrize("strength", [1e-3, 0.05, 0.5])
def test_no_weight_alone_can_lower_the_objective(strength):
    moments, start = problem(SCATTERED, 1000, 20)
    found = sparse(moments, start, strength)
    lowest = objective(moments, found, strength)
    assert lowest < objective(moments, start, strength)
    assert lowest <= objective(moments, np.zeros_like(start), strength)

    def best_single_move(weights):
        values = []
        for lag in range(20):
            for value in np.linspace(-1, 1, 101):
                moved = weights.copy()
                moved[lag] = value
                values.append(objective(moments, moved, strength))
        return min(values)

    assert best_single_move(found) >= lowest - 1e-12
    cut = np.where(np.abs(start) > 0.1, start, 0.0)  # a threshold is no minimum
    assert best_single_move(cut) < objective(moments, cut, strength) - 1e-6
    # Weights that are not zero stand where the derivative is.
    S = found[:, 0] != 0
    gradient = 2 * (moments.gram @ found - moments.cross)[:, 0] / moments.count
    gradient += (
        strength / 20 * arnet_sparse._slope(np.abs(found[:, 0])) * np.sign(found[:, 0])
    )
    assert np.abs(gradient[S]).max() < 1e-6
    assert 0 < S.sum() < 20 or strength == 1e-3


def test_lower_than_a_general_minimiser_from_the_same_start():
    moments, start = problem(SCATTERED, 1000, 20)
    strength = penalty_strength(3 / 20, 0.01)
    found = sparse(moments, start, strength)
    other = minimize(
        lambda w: objective(moments, w[:, None], strength), start[:, 0], method="BFGS"
    )
    assert objective(moments, found, strength) <= other.fun + 1e-12


def test_steps_are_solved_one_by_one():
    x = [simulate(TRUE, 3000, 1)]
    moments = lag_moments(x, 8, 3)
    start = least_squares(moments, lambda: lag_chunks(x, 8, 3)).weights
    strength = np.array([0.01, 0.1, 0.03])
    everywhere = np.ones(8, dtype=bool)
    found = coordinate_descent(moments, start, strength, everywhere)
    for h in range(3):
        cross = moments.cross[:, [h]]
        alone = type(moments)(
            moments.count,
            moments.gram,
            cross,
            moments.square[[h]],
            moments.feature_mean,
            moments.truth_mean[[h]],
            moments.rounding,
        )
        one = coordinate_descent(alone, start[:, [h]], strength[[h]], everywhere)
        np.testing.assert_allclose(found[:, [h]], one, atol=1e-12)


def test_features_without_penalty_are_left_alone():
    moments, start = problem(TRUE, 2000, 10)
    penalised = np.arange(10) < 7  # the three true lags are the newest
    found = coordinate_descent(moments, start, np.array([50.0]), penalised)[:, 0]
    assert (found[:7] == 0).all()
    # What is left is least squares on those features.
    expected = np.linalg.solve(moments.gram[7:, 7:], moments.cross[7:, 0])
    np.testing.assert_allclose(found[7:], expected, rtol=1e-6)


def test_a_quadratic_penalty_beside_the_regulariser():
    moments, start = problem(TRUE, 2000, 6)
    everywhere, none = np.ones(6, dtype=bool), np.zeros(1)
    penalty = 0.5 * np.eye(6)
    ridge = np.linalg.solve(moments.gram + moments.count * penalty, moments.cross)
    strength = np.array([1e-9])
    found = coordinate_descent(moments, ridge, strength, everywhere, penalty)
    np.testing.assert_allclose(found, ridge, atol=1e-5)
    assert not np.allclose(
        coordinate_descent(moments, start, none, everywhere), ridge, atol=1e-2
    )


# The figures of the card


@pytest.mark.parametrize("p", [100, 400])
def test_few_lags_among_many(p):
    for seed in (0, 2):
        moments, start = problem(TRUE, 100_000, p, seed)
        found = sparse(moments, start, penalty_strength(3 / p, 0.01))
        assert error(found, TRUE) < 1 < 10 < error(start, TRUE)
        np.testing.assert_allclose(found[::-1, 0][:3], TRUE, atol=0.01)
        assert (found[:-3] == 0).all()  # no lag too many


def test_the_guess_of_sparsity_may_be_wrong_by_a_factor_of_ten():
    moments, start = problem(TRUE, 100_000, 100)
    for factor in (0.3, 1, 3):
        found = sparse(moments, start, penalty_strength(3 / 100 * factor, 0.01))
        assert error(found, TRUE) < 1


def test_small_data():
    plain, weak, strong = [], [], []
    for seed in range(6):
        moments, start = problem(SCATTERED, 1000, 20, seed)
        plain.append(error(start, SCATTERED))
        for errors, c_lambda in ((weak, 0.01), (strong, 0.05)):
            found = sparse(moments, start, penalty_strength(3 / 20, c_lambda))
            errors.append(error(found, SCATTERED))
    assert 15 < np.mean(plain) < 30  # the card: 16-33
    assert np.mean(weak) < 0.75 * np.mean(plain)  # 10-14 against 22
    assert np.mean(strong) < 8  # 7.6


# On batches


def batches(x, p, size=128):
    rows = sliding_window_view(x, p + 1)

    def epoch(generator):
        order = generator.permutation(len(rows))
        for start in range(0, len(order), size):
            chosen = rows[order[start : start + size]]
            yield chosen[:, :p], chosen[:, p:], None

    return epoch


def descend(x, p, start, strength, seed=0, **options):
    moments = lag_moments([x], p)
    return stochastic_descent(
        batches(x, p),
        start,
        (moments.feature_mean, moments.truth_mean),
        np.array([strength]),
        np.ones(p, dtype=bool),
        generator=np.random.default_rng(seed),
        **options,
    )


def test_batches_from_zero_arrive_at_least_squares():
    x = 4 + simulate(TRUE, 20_000, 3)
    moments = lag_moments([x], 3)
    expected = np.linalg.solve(moments.gram, moments.cross)
    options = {"learning_rate": 5e-3, "decay": 0.6, "n_epochs": 14}
    found = descend(x, 3, np.zeros((3, 1)), 0.0, **options)
    assert error(found, expected[::-1, 0]) < 0.1
    early = descend(x, 3, np.zeros((3, 1)), 0.0, n_epochs=1)
    assert error(early, expected[::-1, 0]) > 1


def test_batches_bring_the_objective_near_the_minimum():
    x, p = simulate(TRUE, 20_000, 4), 60
    moments = lag_moments([x], p)
    start = np.linalg.solve(moments.gram, moments.cross)
    strength = penalty_strength(3 / p, 0.01)
    exact = sparse(moments, start, strength)
    found = descend(x, p, start, strength, n_epochs=30, decay=0.95)
    values = [objective(moments, one, strength) for one in (exact, found, start)]
    assert values[0] <= values[1] < values[2]
    assert values[1] - values[0] < 0.2 * (values[2] - values[0])
    assert error(found, TRUE) < 3 < 10 < error(start, TRUE)


def test_a_tiny_floor_freezes_adam(monkeypatch):
    x, p = simulate(TRUE, 20_000, 5), 60
    moments = lag_moments([x], p)
    start = np.linalg.solve(moments.gram, moments.cross)
    strength = penalty_strength(3 / p, 0.01)
    options = {"n_epochs": 15, "decay": 0.9}
    good = error(descend(x, p, start, strength, **options), TRUE)
    # The slope at the floor of the derivative is what freezes, so set it there.
    slope = arnet_sparse._slope
    monkeypatch.setattr(arnet_sparse, "_slope", lambda size: slope(size, floor=1e-9))
    frozen = error(descend(x, p, start, strength, **options), TRUE)
    assert good < 5 < frozen


def test_gradient_of_batches_is_that_of_torch():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(6)
    X, Y = rng.normal(size=(30, 5)), rng.normal(size=(30, 2))
    weight = rng.uniform(size=30)
    start = rng.normal(size=(5, 2))
    penalised = np.array([True, True, True, False, False])
    penalty = 0.1 * np.eye(5)
    strength = np.array([0.3, 0.7])

    w = torch.from_numpy(start).clone().requires_grad_()
    optimizer = torch.optim.Adam([w], lr=0.01)
    data = [torch.from_numpy(one) for one in (X - X.mean(0), Y - Y.mean(0), weight)]
    for _ in range(5):
        optimizer.zero_grad()
        square = (data[1] - data[0] @ w) ** 2
        mse = (data[2][:, None] * square).sum(0) / data[2].sum()
        R = torch.tanh(1.5 * (w[:3].abs() + 1e-4) ** (1 / 3)).mean(0)
        ridge = (w * (torch.from_numpy(penalty) @ w)).sum()
        (mse + torch.from_numpy(strength) * R).sum().add(ridge).backward()
        optimizer.step()

    def epoch(generator):
        for _ in range(5):
            yield X, Y, weight

    found = stochastic_descent(
        epoch,
        start,
        (X.mean(0), Y.mean(0)),
        strength,
        penalised,
        generator=np.random.default_rng(0),
        learning_rate=0.01,
        n_epochs=1,
        penalty=penalty,
    )
    np.testing.assert_allclose(found, w.detach().numpy(), rtol=1e-9)


def test_rate_falls_and_strength_rises_by_epoch(monkeypatch):
    seen = []

    class Spy:
        def __init__(self, shape):
            pass

        def direction(self, gradient):
            seen.append(gradient.copy())
            return np.ones_like(gradient)

    monkeypatch.setattr(arnet_sparse, "_Adam", Spy)

    def epoch(generator):
        yield np.zeros((3, 1)), np.zeros((3, 1)), None

    start = np.full((1, 1), 9.0)
    found = stochastic_descent(
        epoch,
        start,
        (np.zeros(1), np.zeros(1)),
        np.array([2.0]),
        np.ones(1, dtype=bool),
        generator=np.random.default_rng(0),
        learning_rate=0.1,
        decay=0.5,
        n_epochs=4,
    )
    assert found[0, 0] == pytest.approx(9 - 0.1 * (1 + 0.5 + 0.25 + 0.125))
    at = [9.0, 8.9, 8.85, 8.825]
    slopes = arnet_sparse._slope(np.array(at))
    expected = 2.0 * slopes * [0.25, 0.5, 0.75, 1.0]
    np.testing.assert_allclose([one[0, 0] for one in seen], expected, rtol=1e-12)
    assert start[0, 0] == 9.0  # not changed in place


def test_the_same_generator_gives_the_same_bits():
    x = simulate(TRUE, 2000, 7)
    start = np.zeros((4, 1))
    first, again = (descend(x, 4, start, 0.1, n_epochs=2) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, descend(x, 4, start, 0.1, seed=1, n_epochs=2))
