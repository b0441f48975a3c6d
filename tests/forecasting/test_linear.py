"""Exact linear forecasters: least squares on the design matrix, written out again."""

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from sciseq import LinearForecaster
from sciseq.errors import DataQualityError
from sciseq.forecasting import linear
from sciseq.forecasting.linear import ALPHAS, _moving_average

L, H, KERNEL = 8, 3, 5
RNG = np.random.default_rng(0)
TABLE = np.sin(np.arange(90)[:, None] * [0.3, 0.7, 1.1]) + RNG.normal(size=(90, 3)) / 3
PLAIN = {"lookback": L, "horizon": H, "scaler": None, "kernel_size": KERNEL}
FIXED = PLAIN | {"validation_fraction": 0.0}


def windows(table, column):
    """Inputs (n, L) and truths (n, H) of one column."""
    view = sliding_window_view(table[:, column], L + H)
    return view[:, :L].copy(), view[:, L:].copy()


def decompose(x, kernel_size=KERNEL):
    """Trend of windows (n, L): a moving average with repeated ends."""
    half = (kernel_size - 1) // 2
    padded = np.pad(x, ((0, 0), (half, half)), mode="edge")
    ones = np.ones(kernel_size) / kernel_size
    return np.stack([np.convolve(row, ones, mode="valid") for row in padded])


def design(kind, x):
    """Features (n, F) with the bias last, and what is added back (n, 1)."""
    if kind == "dlinear":
        trend = decompose(x)
        return np.hstack([x - trend, trend, np.ones((len(x), 1))]), 0.0
    mean = x.mean(axis=1, keepdims=True)
    deviation = np.sqrt(x.var(axis=1, keepdims=True) + 1e-5)
    return np.hstack([x - mean, deviation]), mean


def system(kind, table, columns=(0, 1, 2)):
    """Features and centred truths of several columns, one below the other."""
    parts = []
    for column in columns:
        x, y = windows(table, column)
        features, centre = design(kind, x)
        parts.append((features, y - centre))
    return tuple(np.concatenate(one) for one in zip(*parts, strict=True))


def ridge(features, truth, alpha):
    """Least squares with extra rows that pull every weight but the bias to zero."""
    pull = np.sqrt(alpha * len(features)) * np.eye(features.shape[1])[:-1]
    zeros = np.zeros((len(pull), truth.shape[1]))
    stacked = np.vstack([features, pull]), np.vstack([truth, zeros])
    return np.linalg.lstsq(*stacked, rcond=None)[0]


def predict(model, x):
    """Forecasts (n, H) of windows (n, L) in a model's first column."""
    block = np.repeat(x[:, :, None], model.n_features_in_, axis=2)
    return model.predict(block)[:, :, 0]


# The minimum


@pytest.mark.parametrize("kind", ["rlinear", "dlinear"])
@pytest.mark.parametrize("individual", [False, True])
def test_unpenalised_forecasts_are_those_of_least_squares(kind, individual):
    model = LinearForecaster(**FIXED, kind=kind, alpha=0.0, individual=individual)
    model.fit(TABLE)
    x, _ = windows(TABLE, 0)
    features, truth = system(kind, TABLE, (0,) if individual else (0, 1, 2))
    # Both maps have more features than degrees of freedom: forecasts are unique.
    weights = np.linalg.lstsq(features, truth, rcond=None)[0]
    own, centre = design(kind, x)
    np.testing.assert_allclose(predict(model, x), own @ weights + centre, atol=1e-6)


@pytest.mark.parametrize("kind", ["rlinear", "dlinear"])
@pytest.mark.parametrize("individual", [False, True])
@pytest.mark.parametrize("alpha", [1e-3, 1.0])
def test_ridge_weights_are_those_of_least_squares_with_a_pull(kind, individual, alpha):
    model = LinearForecaster(**FIXED, kind=kind, alpha=alpha, individual=individual)
    model.fit(TABLE)
    groups = [(0,), (1,), (2,)] if individual else [(0, 1, 2)]
    M = _moving_average(L, KERNEL)
    for coef, intercept, columns in zip(
        model.coef_, model.intercept_, groups, strict=True
    ):
        weights = ridge(*system(kind, TABLE, columns), alpha).T  # (H, F)
        window = weights[:, :L]
        if kind == "dlinear":
            window = weights[:, :L] @ (np.eye(L) - M) + weights[:, L:-1] @ M
        np.testing.assert_allclose(coef, window, rtol=1e-6, atol=1e-8)
        np.testing.assert_allclose(intercept, weights[:, -1], rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("alpha", [0.0, 0.1])
def test_the_gradient_of_the_objective_is_zero(alpha):
    model = LinearForecaster(**FIXED, alpha=alpha).fit(TABLE)
    features, truth = system("rlinear", TABLE)
    weights = np.vstack([model.coef_[0].T, model.intercept_[0]])  # (F, H)

    def gradient(weights):
        penalty = alpha * weights
        penalty[-1] = 0.0
        return features.T @ (features @ weights - truth) / len(features) + penalty

    assert np.abs(gradient(weights)).max() < 1e-8
    assert np.abs(gradient(weights + 1e-3)).max() > 1e-4


def test_the_same_as_gradient_descent_in_torch():
    import torch

    tables = torch.from_numpy(TABLE[:40, :1])
    view = tables[:, 0].unfold(0, 6, 1)  # (n, 4 + 2)
    x, y = view[:, :4], view[:, 4:]
    trend = torch.from_numpy(decompose(x.numpy(), 3))
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, 4), (2, 4), (2,)]
    parameters = [
        torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()
        for shape in shapes
    ]

    def forecast():
        W_s, W_t, b = parameters
        return (x - trend) @ W_s.T + trend @ W_t.T + b

    optimizer = torch.optim.Adam(parameters, lr=0.05)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.998)
    for _ in range(4000):
        optimizer.zero_grad()
        loss = (forecast() - y).square().mean()
        loss.backward()
        optimizer.step()
        scheduler.step()
    model = LinearForecaster(
        kind="dlinear",
        lookback=4,
        horizon=2,
        kernel_size=3,
        alpha=0.0,
        scaler=None,
        validation_fraction=0.0,
    ).fit(TABLE[:40, :1])
    exact = predict(model, x.numpy())
    np.testing.assert_allclose(forecast().detach().numpy(), exact, atol=1e-3)
    assert np.mean((exact - y.numpy()) ** 2) <= loss.item() + 1e-12


def test_sums_do_not_depend_on_chunks(monkeypatch):
    whole = LinearForecaster(**FIXED, alpha=0.1).fit(TABLE).coef_
    monkeypatch.setattr(linear, "WINDOWS_PER_CHUNK", 7)
    chunked = LinearForecaster(**FIXED, alpha=0.1).fit(TABLE).coef_
    np.testing.assert_allclose(chunked, whole, rtol=1e-9, atol=1e-12)


def test_individual_maps_are_maps_of_single_columns():
    many = LinearForecaster(**FIXED, alpha=0.1, individual=True).fit(TABLE)
    for column in range(3):
        one = LinearForecaster(**FIXED, alpha=0.1).fit(TABLE[:, [column]])
        np.testing.assert_allclose(many.coef_[column], one.coef_[0], rtol=1e-9)
        np.testing.assert_allclose(
            many.predict()[:, column], one.predict()[:, 0], rtol=1e-9
        )


def test_other_columns_have_no_influence():
    model = LinearForecaster(**FIXED, targets=[1], alpha=0.1).fit(TABLE)
    changed = TABLE.copy()
    changed[:, [0, 2]] **= 2
    other = LinearForecaster(**FIXED, targets=[1], alpha=0.1).fit(changed)
    np.testing.assert_array_equal(model.coef_, other.coef_)


# The parts of the two maps


@pytest.mark.parametrize("n_rows", [1, 7, 24, 25, 96])
def test_the_trend_repeats_each_edge_twelve_times(n_rows):
    x = np.random.default_rng(1).normal(size=(4, n_rows))
    padded = np.hstack([np.repeat(x[:, :1], 12, 1), x, np.repeat(x[:, -1:], 12, 1)])
    expected = [[row[i : i + 25].mean() for i in range(n_rows)] for row in padded]
    M = _moving_average(n_rows, 25)
    np.testing.assert_allclose(x @ M.T, expected, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(M.sum(axis=1), 1.0, rtol=1e-12)
    if n_rows > 1:
        zeros = np.array(
            [np.convolve(row, np.ones(25) / 25, "full")[12:-12] for row in x]
        )
        assert not np.allclose(zeros, expected)  # zeros beyond the edges


def test_dlinear_is_linear_up_to_its_bias():
    model = LinearForecaster(**FIXED, kind="dlinear", alpha=0.1).fit(TABLE)
    x, y = windows(TABLE, 0)[0][:20], windows(TABLE, 1)[0][:20]
    zero = predict(model, np.zeros((1, L)))
    np.testing.assert_allclose(zero[0], model.intercept_[0], rtol=1e-12)
    combined = predict(model, 2.5 * x - 7.0 * y) - zero
    parts = 2.5 * (predict(model, x) - zero) - 7.0 * (predict(model, y) - zero)
    np.testing.assert_allclose(combined, parts, rtol=1e-10, atol=1e-12)
    assert np.abs(zero).max() > 1e-6  # there is a bias to subtract


def test_rlinear_moves_and_scales_with_its_window():
    x = windows(TABLE, 0)[0][:20]
    model = LinearForecaster(**FIXED, alpha=0.1).fit(TABLE)
    for a, b in ((3.0, 0.0), (0.5, 40.0), (20.0, -1e3)):
        np.testing.assert_allclose(
            predict(model, a * x + b),
            a * predict(model, x) + b,
            rtol=1e-4,
            atol=1e-4 * a,
        )
    other = LinearForecaster(**FIXED, kind="dlinear", alpha=0.1).fit(TABLE)
    assert not np.allclose(predict(other, x + 40), predict(other, x) + 40, atol=0.1)


def test_a_constant_window_goes_on_constant():
    model = LinearForecaster(**FIXED, alpha=0.1).fit(TABLE)
    forecast = predict(model, np.full((1, L), 7.0))
    np.testing.assert_allclose(forecast, 7.0, atol=np.sqrt(1e-5))


def test_a_line_is_continued_exactly():
    table = 3.0 * np.arange(60.0)[:, None] - 20
    for kind in ("rlinear", "dlinear"):
        model = LinearForecaster(**FIXED, kind=kind, alpha=0.0).fit(table)
        np.testing.assert_allclose(model.predict().ravel(), [160, 163, 166], atol=1e-3)


# The choice of alpha


def validation_error(alpha, table, **settings):
    """Mean squared error on the held-out windows, in scaled units."""
    model = LinearForecaster(**settings, alpha=alpha).fit(table)
    tail = table[-(round(0.2 * len(table)) + L) :]
    errors = [
        (truth - forecast) ** 2
        for _, truth, forecast in model._evaluate_panel(model._evaluation_panel(tail))
    ]
    return np.mean(np.concatenate(errors) / model.scaler_.scale**2)


@pytest.mark.parametrize("kind", ["rlinear", "dlinear"])
def test_alpha_is_the_best_on_the_validation_tail(kind):
    settings = PLAIN | {"kind": kind, "validation_fraction": 0.2, "scaler": "standard"}
    errors = [validation_error(alpha, TABLE, **settings) for alpha in ALPHAS]
    best = ALPHAS[int(np.argmin(errors))]
    model = LinearForecaster(**settings).fit(TABLE)
    assert model.alpha_ == best
    # The training error alone always asks for the smallest penalty.
    assert best > ALPHAS[0]
    # Refitting keeps the choice, and solves again on all rows.
    again = LinearForecaster(**settings, refit_on_all=True).fit(TABLE)
    fixed = LinearForecaster(**(settings | {"validation_fraction": 0.0}), alpha=best)
    assert again.alpha_ == best
    np.testing.assert_allclose(again.coef_, fixed.fit(TABLE).coef_, rtol=1e-12)
    assert not np.allclose(again.coef_, model.coef_)


def test_alpha_follows_the_rows_held_out():
    train, tail = TABLE[:70], TABLE[60:]
    noise = np.random.default_rng(1).normal(size=tail.shape)
    model = LinearForecaster(**PLAIN)
    chosen = model.fit(train, validation_data=tail).alpha_
    assert model.fit(train, validation_data=noise).alpha_ > chosen


def test_without_validation_alpha_is_small():
    assert LinearForecaster(**FIXED).fit(TABLE).alpha_ == 1e-3


# Missing values


def test_windows_with_missing_truths_are_left_out():
    x, y = windows(TABLE, 0)
    holes = y.copy()
    holes[5, 1] = holes[20] = holes[33, 2] = np.nan
    keep = ~np.isnan(holes).any(axis=1)
    settings = FIXED | {"alpha": 0.1, "missing": "mask"}
    # A window whose truth is missing throughout cannot be given ready-made.
    rows = np.arange(len(x)) != 20
    model = LinearForecaster(**settings)
    model.fit(x[rows, :, None], holes[rows, :, None])
    dropped = LinearForecaster(**settings).fit(x[keep, :, None], y[keep, :, None])
    np.testing.assert_allclose(model.coef_, dropped.coef_, rtol=1e-12, atol=1e-15)
    whole = LinearForecaster(**settings).fit(x[:, :, None], y[:, :, None])
    assert not np.allclose(model.coef_, whole.coef_, rtol=1e-6)


def test_missing_inputs_are_the_mean_of_their_window():
    x, y = windows(TABLE, 0)
    holes, filled = x.copy(), x.copy()
    holes[4:30, 2] = holes[7:12, 5] = np.nan
    gaps = np.isnan(holes)
    filled[gaps] = np.broadcast_to(np.nanmean(holes, axis=1, keepdims=True), x.shape)[
        gaps
    ]
    for kind in ("rlinear", "dlinear"):
        settings = FIXED | {"alpha": 0.1, "missing": "mask", "kind": kind}
        model = LinearForecaster(**settings).fit(holes[:, :, None], y[:, :, None])
        same = LinearForecaster(**settings).fit(filled[:, :, None], y[:, :, None])
        np.testing.assert_allclose(model.coef_, same.coef_, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(
            predict(model, holes), predict(model, filled), rtol=1e-12
        )


def test_no_complete_truth_at_all_is_refused():
    table = TABLE[:, :1].copy()
    table[::3] = np.nan
    with pytest.raises(DataQualityError, match="no window has a complete truth"):
        LinearForecaster(**FIXED, missing="mask").fit(table)
