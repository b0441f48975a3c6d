"""Options that all torch forecasters share: quantiles, fine-tuning, scaling, signs."""

import numpy as np
import pandas as pd
import pytest
import torch

from sciseq import SMambaForecaster, load
from sciseq.data.scaling import ColumnScaler, SeriesScaler
from sciseq.errors import CapabilityError, CheckpointError, InputError
from sciseq.forecasting.torch_forecaster import Batch, NetworkInputs

RNG = np.random.default_rng(0)
TABLE = np.sin(np.arange(150)[:, None] * [0.3, 0.5]) + RNG.normal(size=(150, 2)) / 3


def make(**settings):
    small = {
        "lookback": 8,
        "horizon": 3,
        "d_model": 8,
        "n_layers": 1,
        "max_epochs": 2,
        "random_state": 0,
        "device": "cpu",
        "calendar": None,
    }
    return SMambaForecaster(**(small | settings))


# Quantiles


LEVELS = (0.1, 0.5, 0.9)


def pinball(error, level):
    """Loss of a forecast minus truth, by its definition."""
    return level * max(-error, 0) + (1 - level) * max(error, 0)


def test_the_quantile_loss_is_the_mean_pinball_loss():
    model = make(loss="quantile", quantiles=LEVELS, max_epochs=1).fit(TABLE)
    forecast = RNG.normal(size=(4, 3 * len(LEVELS), 2))  # (B, H Q, V)
    truth = RNG.normal(size=(4, 3, 2))
    inputs = NetworkInputs(torch.zeros(4, 8, 2))
    total, count = model._make_loss()(
        lambda **_: torch.from_numpy(forecast), Batch(inputs, torch.from_numpy(truth))
    )
    expected = [
        pinball(forecast[b, h * len(LEVELS) + q, v] - truth[b, h, v], level)
        for b in range(4)
        for h in range(3)
        for q, level in enumerate(LEVELS)
        for v in range(2)
    ]
    assert count.item() == len(expected)
    assert total.item() == pytest.approx(sum(expected), rel=1e-12)
    # The levels upside down are another loss.
    upside_down = [
        pinball(forecast[0, q, 0] - truth[0, 0, 0], 1 - level)
        for q, level in enumerate(LEVELS)
    ]
    assert sum(upside_down) != pytest.approx(sum(expected[:6:2]))


def test_the_median_is_the_forecast_and_levels_do_not_cross():
    model = make(loss="quantile", quantiles=[0.9, 0.5, 0.1]).fit(TABLE)
    assert model._levels() == (0.1, 0.5, 0.9)
    quantiles = model.predict_quantiles(quantiles=LEVELS)
    low, middle, high = (quantiles[one] for one in LEVELS)
    assert (low <= middle).all() and (middle <= high).all()
    assert (low < high).any()
    assert model.predict().shape == middle.shape == (3, 2)


def test_calibrated_quantiles_cover_what_they_say():
    """Noise whose spread changes with its level: the network learns the spread."""
    level = np.repeat(RNG.choice([0.2, 2.0], size=120), 10)
    noise = (RNG.normal(size=1200) * level)[:, None]
    X = np.concatenate([noise, level[:, None]], axis=1)
    model = make(
        loss="quantile",
        quantiles=LEVELS,
        targets=[0],
        horizon=1,
        d_model=16,
        batch_size=16,
        max_epochs=15,
        learning_rate=1e-2,
        learning_rate_schedule="cosine",
        use_norm=False,
    ).fit(X[:800])
    covered, widths = [], {0.2: [], 2.0: []}
    for row in range(800, 1190):
        if level[row] != level[row - 1]:
            continue
        low, high = model.predict_interval(X[:row], coverage=0.8)
        covered.append(low[0, 0] <= X[row, 0] <= high[0, 0])
        widths[level[row]].append(high[0, 0] - low[0, 0])
    assert np.mean(covered) == pytest.approx(0.8, abs=0.06)
    # Residuals alone would give one width for both.
    assert np.mean(widths[2.0]) > 2 * np.mean(widths[0.2])


def test_levels_that_were_not_trained_are_refused():
    model = make(loss="quantile", quantiles=LEVELS).fit(TABLE)
    with pytest.raises(CapabilityError, match=r"trained for the quantiles.*0\.3"):
        model.predict_quantiles(quantiles=[0.3])


@pytest.mark.parametrize(
    ("quantiles", "message"),
    [([0.1, 0.9], "must hold 0.5"), ([0.5, 0.5], "different"), ([0.5, 1.5], "between")],
)
def test_levels_that_make_no_sense_are_refused(quantiles, message):
    with pytest.raises(InputError, match=message):
        make(loss="quantile", quantiles=quantiles).fit(TABLE)


def test_quantile_models_are_saved_whole(tmp_path):
    model = make(loss="quantile", quantiles=list(LEVELS)).fit(TABLE)
    model.save(tmp_path / "model")
    copy = load(tmp_path / "model")
    for level in LEVELS:
        np.testing.assert_array_equal(
            copy.predict_quantiles(quantiles=[level])[level],
            model.predict_quantiles(quantiles=[level])[level],
        )


# Fine-tuning


def weights(model):
    return torch.cat([one.detach().ravel() for one in model.network_.parameters()])


def test_warm_start_goes_on_from_the_weights_and_scaling_of_before():
    model = make(warm_start=True, learning_rate=1e-30, max_epochs=1).fit(TABLE)
    first, scaler = weights(model), model.scaler_
    model.fit(3 * TABLE + 7)
    # With a vanishing rate the weights stay what they were.
    assert torch.allclose(weights(model), first, rtol=0, atol=1e-20)
    assert model.scaler_ is scaler
    cold = make(learning_rate=1e-30, max_epochs=1, random_state=1).fit(TABLE)
    assert not torch.allclose(weights(cold), first, rtol=0, atol=1e-3)
    assert not any(name.startswith("_start") for name in vars(model))


def test_warm_start_needs_the_same_columns_and_network():
    model = make(warm_start=True).fit(TABLE)
    before = model.predict()
    with pytest.raises(InputError, match="other columns"):
        model.fit(TABLE[:, :1])
    with pytest.raises(InputError, match="another shape"):
        model.set_params(d_model=4).fit(TABLE)
    model.set_params(d_model=8)
    np.testing.assert_array_equal(model.predict(), before)


def test_a_checkpointed_run_from_other_weights_is_another_run(tmp_path):
    settings = {"warm_start": True, "max_epochs": 1, "checkpoint_dir": tmp_path}
    model = make(**settings).fit(TABLE)
    with pytest.raises(CheckpointError):
        model.fit(TABLE)


def test_fine_tuning_helps_on_a_short_series_like_the_long_one():
    index = np.arange(700)
    long = np.sin(index / 4)[:, None] + RNG.normal(scale=0.05, size=(700, 1))
    short = long[:60] * 2 + 1
    settings = {"max_epochs": 15, "learning_rate": 3e-3, "validation_fraction": 0.2}
    tuned = make(warm_start=True, **settings).fit(long[100:]).fit(short)
    alone = make(**settings).fit(short)
    test = long[40:100] * 2 + 1
    assert tuned.score(test) > alone.score(test) + 0.02


# Scaling by series


def test_each_series_is_scaled_by_itself():
    series = [np.array([[1.0, 5.0], [3.0, 5.0]]), np.array([[10.0, 0.0], [30.0, 4.0]])]
    scaler = SeriesScaler.fit(series)
    for number, values in enumerate(series):
        alone = ColumnScaler.fit([values])
        np.testing.assert_array_equal(
            scaler.transform(values, number), alone.transform(values)
        )
        np.testing.assert_allclose(
            scaler.inverse_transform(
                scaler.transform(values, number)[None], np.array([number])
            )[0],
            values,
        )
    shared = SeriesScaler.shared(ColumnScaler.fit(series))
    assert not np.allclose(
        shared.transform(series[1], 1), scaler.transform(series[1], 1)
    )


def test_a_small_series_counts_as_much_as_a_large_one():
    """Scaled by series, forecasts of a panel do not depend on the units of one."""
    parts = {"a": TABLE[:70], "b": TABLE[70:] + 3}
    for scaler, is_invariant in (("series", True), ("standard", False)):
        model = make(scaler=scaler, use_norm=False).fit(parts)
        large = {"a": parts["a"], "b": 2.0**10 * parts["b"]}
        other = make(scaler=scaler, use_norm=False).fit(large)
        same = np.allclose(other.predict()["a"], model.predict()["a"], rtol=1e-4)
        assert same is is_invariant
        if is_invariant:
            np.testing.assert_allclose(
                other.predict()["b"], 2.0**10 * model.predict()["b"], rtol=1e-3
            )


def test_series_without_names_are_refused():
    with pytest.raises(CapabilityError, match="by its name"):
        make(scaler="series").fit([TABLE[:70], TABLE[70:]])


def test_each_window_is_scaled_by_its_own_past():
    """Windows alone or together, and never by what they are to forecast."""
    starts = range(0, 100, 5)
    X = np.stack([TABLE[one : one + 8] * (one + 1) for one in starts])
    y = np.stack([TABLE[one + 8 : one + 11] * (one + 1) for one in starts])
    model = make(scaler="series", use_norm=False).fit(X, y)
    np.testing.assert_allclose(model.predict(X)[3:], model.predict(X[3:]), rtol=1e-5)
    panel = model._evaluation_panel(X, y)
    other = model._evaluation_panel(X, y * 100)
    first, second = (model._windows(one).inputs([4]).values for one in (panel, other))
    np.testing.assert_array_equal(first, second)


def test_a_new_series_is_scaled_by_its_first_rows_alone():
    frames = {
        name: pd.DataFrame(TABLE[rows] * scale, columns=["a", "b"])
        for name, rows, scale in (("x", slice(0, 70), 1.0), ("y", slice(70, 140), 9.0))
    }
    model = make(scaler="series").fit(frames)
    new = {"z": pd.DataFrame(TABLE[:40] * 1e4, columns=["a", "b"])}
    forecast = model.predict(new)["z"]
    assert forecast.abs().to_numpy().max() > 1e3
    # No later row has a part in the scaling: forecasts of first windows stay.
    changed = {"z": new["z"].copy()}
    changed["z"].iloc[20:] *= 50
    first = [
        next(model._evaluate_panel(model._evaluation_panel(one)))[2][:5]
        for one in (new, changed)
    ]
    np.testing.assert_array_equal(*first)


def test_intervals_of_scaled_series_have_the_units_of_each():
    parts = {"a": TABLE[:70], "b": TABLE[70:] * 100}
    for refit in (False, True):
        model = make(scaler="series", validation_fraction=0.3, refit_on_all=refit)
        low, high = model.fit(parts).predict_interval()
        widths = [np.mean(high[name] - low[name]) for name in parts]
        assert widths[1] == pytest.approx(100 * widths[0], rel=0.5)


# Signs


def test_nonnegative_forecasts_and_intervals():
    X = np.abs(TABLE) ** 4
    plain, cut = (make(nonnegative=one, max_epochs=1).fit(X) for one in (False, True))
    low, _ = plain.predict_interval(coverage=0.95)
    assert (low < 0).any()
    cut_low, cut_high = cut.predict_interval(coverage=0.95)
    np.testing.assert_array_equal(cut_low, np.maximum(low, 0))
    assert (cut.predict() >= 0).all() and (cut_high >= cut_low).all()
    _, _, forecast = next(cut._evaluate_panel(cut._evaluation_panel(X)))
    assert (forecast >= 0).all()
