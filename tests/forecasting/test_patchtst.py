"""PatchTST through the estimator: each series alone, and its batch norm kept.

Numbers in test names refer to the list of checks in the card, forecasting §8.
"""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch

import sciseq
from sciseq.errors import CapabilityError, InputError
from sciseq.forecasting.linear import LinearForecaster
from sciseq.forecasting.patchtst import PatchTSTForecaster

RNG = np.random.default_rng(0)
TABLE = (
    np.sin(np.arange(100)[:, None] * [0.3, 0.5, 0.7]) + RNG.normal(size=(100, 3)) / 3
)
SMALL = {
    "lookback": 12,
    "horizon": 3,
    "d_model": 8,
    "d_ff": 8,
    "patch_length": 4,
    "stride": 2,
    "random_state": 0,
}


def make(**changes):
    return PatchTSTForecaster(**(SMALL | {"max_epochs": 2} | changes))


def windows(n, seed=1, n_columns=3):
    return np.random.default_rng(seed).normal(size=(n, SMALL["lookback"], n_columns))


def dated(n_rows=100):
    index = pd.date_range("2024-03-29", periods=n_rows, freq="h")
    return pd.DataFrame(TABLE[:n_rows], index=index, columns=["a", "b", "c"])


def test_check_05_each_column_is_forecast_from_itself():
    model = make().fit(TABLE)
    X = windows(4)
    forecast = model.predict(X)
    changed = X.copy()
    changed[..., 0] = X[..., 0] ** 3
    difference = np.abs(model.predict(changed) - forecast)
    assert difference[..., 0].min() > 1e-6
    assert difference[..., 1:].max() == 0
    # Statistics of the batch would let columns meet.
    model.network_.norm.train()
    assert np.abs(model.predict(changed) - model.predict(X))[..., 1:].max() > 1e-6


def test_check_06_forecasts_move_and_scale_with_their_columns():
    a, b = np.array([0.5, 20.0, 3.0]), np.array([-5.0, 100.0, 0.0])
    X = windows(20)
    model = make(precision="float64").fit(TABLE)
    expected = a * model.predict(X) + b
    np.testing.assert_allclose(model.predict(a * X + b), expected, rtol=1e-4, atol=1e-3)
    plain = make(use_norm=False, precision="float64").fit(TABLE)
    wrong = plain.predict(a * X + b)
    assert np.abs(wrong - a * plain.predict(X) - b).max() > 1.0


def test_check_06_a_constant_window_goes_on_near_its_constant():
    forecast = make().fit(TABLE).predict(np.full((1, 12, 3), 42.0))
    np.testing.assert_allclose(forecast, 42.0, atol=0.05)


@pytest.mark.parametrize("n_columns", [1, 2, 30])
def test_check_12_other_numbers_of_columns(n_columns):
    model = make(variates="any", scaler=None).fit(TABLE)
    table = np.random.default_rng(0).normal(size=(40, n_columns)) + 10
    forecast = model.predict(table)
    assert forecast.shape == (3, n_columns)
    assert np.abs(forecast - 10).max() < 5


# The batch norm


def test_running_statistics_are_kept(tmp_path):
    model = make().fit(TABLE)
    norm = model.network_.norm
    # They are those of the epoch whose weights were kept.
    n_steps = -(-len(model_windows(model)) // 32)
    assert norm.num_batches_tracked == model.best_epoch_ * n_steps
    assert not torch.equal(norm.running_var, torch.ones(8))
    forecast = model.predict()
    model.save(tmp_path / "model")
    for again in (pickle.loads(pickle.dumps(model)), sciseq.load(tmp_path / "model")):
        np.testing.assert_array_equal(again.predict(), forecast)
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            assert torch.equal(getattr(again.network_.norm, name), getattr(norm, name))
    # The forecast depends on them.
    norm.running_mean += 1
    assert np.abs(model.predict() - forecast).max() > 1e-4


def model_windows(model):
    seen = []

    class Spy(PatchTSTForecaster):
        def _fit(self, training, validation):
            seen.append(training)
            raise InterruptedError

    with pytest.raises(InterruptedError):
        Spy(**model.get_params()).fit(TABLE)
    return seen[0]


def test_a_resumed_fit_equals_a_whole_one(tmp_path):
    whole = make(max_epochs=4, patience=None).fit(TABLE)
    for n_epochs in (2, 4):
        part = make(max_epochs=n_epochs, patience=None, checkpoint_dir=tmp_path)
        part.fit(TABLE)
    np.testing.assert_array_equal(part.predict(), whole.predict())


# Parameters and roles


def test_parameters_that_do_not_fit_are_named_together():
    with pytest.raises(InputError, match=r"(?s)multiple of n_heads=3.*is not read"):
        make(n_heads=3, calendar="auto").fit(TABLE)


def test_patches_are_cut_to_the_lookback():
    model = make(lookback=3).fit(TABLE)
    assert model.network_.patches.patch_length == 3


@pytest.mark.parametrize(
    "role", ["past_covariates", "future_covariates", "static_covariates"]
)
def test_covariates_are_refused(role):
    with pytest.raises(CapabilityError, match="PatchTSTForecaster cannot use"):
        make(**{role: ["b"]}).fit(dated())


def test_columns_that_are_no_targets_are_not_read():
    frame = dated()
    model = make(targets=["c", "a"]).fit(frame)
    alone = make(targets=["c", "a"]).fit(frame[["a", "c"]])
    pd.testing.assert_frame_equal(model.predict(), alone.predict())
    assert list(model.predict().columns) == ["c", "a"]
    assert model.score(frame) == pytest.approx(alone.score(frame[["a", "c"]]))
    changed = frame.assign(b=frame["b"] * 100)
    pd.testing.assert_frame_equal(model.predict(changed), model.predict(frame))


def test_quantiles_are_learnt():
    model = make(loss="quantile", max_epochs=3).fit(TABLE)
    lower, upper = model.predict_interval(coverage=0.8)
    assert (lower < upper).all()
    assert model.network_.projector.out_features == 3 * 7


def test_it_learns_what_repeats():
    rng = np.random.default_rng(0)
    hours = np.arange(900)[:, None]
    shapes = np.sin(2 * np.pi * hours / 24) + 0.5 * np.sin(2 * np.pi * hours / 8 + 1)
    table = 20 + 5 * shapes * [1.0, -1.0] + 0.3 * rng.normal(size=(900, 2))
    model = PatchTSTForecaster(
        lookback=48,
        horizon=12,
        d_model=16,
        d_ff=16,
        n_layers=1,
        patch_length=8,
        dropout=0.0,
        learning_rate=5e-3,
        max_epochs=4,
        random_state=0,
    ).fit(table[:700])
    score = model.score(table[700 - 48 :])
    exact = LinearForecaster(lookback=48, horizon=12).fit(table[:700])
    assert score > 0.97
    assert score > exact.score(table[700 - 48 :]) - 0.02
    # Without the positions of the patches it does not know where it is.
    model.network_.patches.positions.zero_()
    assert model.score(table[700 - 48 :]) < score - 0.02
