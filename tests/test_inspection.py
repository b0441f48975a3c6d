"""Anomaly scores and permutation importance, against hand-made and known answers."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from sklearn.linear_model import LinearRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

import sciseq
from sciseq.errors import CapabilityError, InputError, InputTypeError
from sciseq.forecasting.base import BaseForecaster
from sciseq.inspection import anomaly_scores, permutation_importance
from sciseq.inspection import importance as importance_module

H = 4


def linear(**parameters):
    defaults = {"lookback": 24, "horizon": H, "alpha": 1e-3, "validation_fraction": 0.3}
    return sciseq.LinearForecaster(**defaults | parameters)


@pytest.fixture(scope="module")
def series() -> pd.DataFrame:
    """Forty days of two hourly variates with a season and some noise."""
    rng = np.random.default_rng(0)
    hour = np.arange(960)[:, None]
    season = np.sin(2 * np.pi * (hour - [[0, 6]]) / 24) * [[1.0, 5.0]]
    values = season + rng.normal(scale=[[0.1, 0.5]], size=(960, 2))
    index = pd.date_range("2026-01-01", periods=960, freq="h", name="time")
    return pd.DataFrame(values, index=index, columns=["a", "b"])


@pytest.fixture(scope="module")
def fitted(series) -> sciseq.LinearForecaster:
    return linear().fit(series.iloc[:600])


# --- Anomaly scores: the numbers -----------------------------------------------------


def errors_by_hand(model, frame):
    """Errors (R, H, T) of every forecast that targets a row, by predict alone."""
    errors = np.full((len(frame), H, frame.shape[1]), np.nan)
    for row in range(model.lookback, len(frame)):
        forecast = model.predict(frame.iloc[:row]).to_numpy()
        truth = frame.iloc[row : row + H].to_numpy()
        for step in range(len(truth)):
            errors[row + step, step] = truth[step] - forecast[step]
    return errors


@pytest.mark.parametrize("steps", [None, 1, 3])
def test_scores_by_hand(series, fitted, steps) -> None:
    frame = series.iloc[600:680]
    errors = errors_by_hand(fitted, frame)[:, :steps]
    usual = fitted.calibration_residuals_ * fitted._target_scaler().scale
    z = anomaly_scores(fitted, frame, steps=steps)
    p = anomaly_scores(fitted, frame, steps=steps, method="p_value")
    assert z.isna().sum().tolist() == [24, 24]
    for row, target in np.ndindex(frame.shape):
        zs, ps = [], []
        for step, error in enumerate(errors[row, :, target]):
            if np.isnan(error):
                continue
            others = usual[:, step, target]
            centre = np.median(others)
            distances = np.abs(others - centre)
            zs.append((error - centre) / (1.4826022 * np.median(distances)))
            as_far = (distances >= abs(error - centre)).sum()
            ps.append((1 + as_far) / (len(others) + 1))
        if row < 24:
            assert not zs
            continue
        assert z.iloc[row, target] == pytest.approx(np.median(zs), rel=1e-4)
        assert p.iloc[row, target] == pytest.approx(min(1, 2 * np.median(ps)))


def test_p_values_of_usual_rows_are_p_values(series, fitted) -> None:
    p = anomaly_scores(fitted, series.iloc[576:], method="p_value").to_numpy()[24:]
    for level in (0.02, 0.1, 0.3):
        assert (p <= level).mean() <= level + 0.03
    # Not because they are all large: unusual rows have the smallest that there is.
    odd = series.iloc[576:] + 100.0 * (np.arange(384) == 200)[:, None]
    scores = anomaly_scores(fitted, odd, method="p_value")
    floor = 2 / (len(fitted.calibration_residuals_) + 1)
    np.testing.assert_allclose(scores.iloc[200], floor)
    # The median as it is, not doubled, is no p-value in the worst case.
    worst = np.concatenate([np.full(60, 0.2), np.ones(40)])  # median 0.2 in 60 %
    assert (worst <= 0.2).mean() > 0.2
    assert (np.minimum(2 * worst, 1) <= 0.2).mean() <= 0.2


def test_the_sign_tells_above_from_below(series, fitted) -> None:
    frame = series.iloc[600:].copy()
    frame.iloc[100, 0] += 1.0
    frame.iloc[200, 1] -= 5.0
    z = anomaly_scores(fitted, frame)
    assert z.iloc[100, 0] > 5
    assert z.iloc[200, 1] < -5
    assert z.drop(frame.index[[100, 200]]).abs().max().max() < 6


# --- Anomaly scores: what they are good for ------------------------------------------


def injected(series, seed=1):
    """Rows 600 on, some of them moved by four deviations of the noise."""
    rng = np.random.default_rng(seed)
    frame = series.iloc[576:].copy()
    labels = np.zeros(frame.shape, dtype=bool)
    rows = np.arange(30, len(frame) - 5, 12)
    labels[rows, rng.integers(2, size=len(rows))] = True
    size = np.array([0.4, 2.0]) * rng.choice([-1, 1], size=frame.shape)
    return frame + np.where(labels, size, 0.0), labels


def test_injected_anomalies_are_found_better_than_by_a_naive_forecast(series) -> None:
    frame, labels = injected(series)
    area = {}
    for name, model in {
        "linear": linear(),
        "last value": sciseq.NaiveForecaster(horizon=H, lookback=24),
    }.items():
        scores = anomaly_scores(model.fit(series.iloc[:576]), frame).to_numpy()
        seen = ~np.isnan(scores)
        area[name] = roc_auc_score(labels[seen], np.abs(scores[seen]))
    assert area["linear"] > 0.97
    assert area["linear"] > area["last value"] + 0.15


def test_rows_after_an_anomaly_are_not_blamed_for_it(series, fitted) -> None:
    frame = series.iloc[600:].copy()
    frame.iloc[100] += [3.0, 15.0]
    away = anomaly_scores(fitted, frame).abs().max(axis=1)
    assert away.iloc[100] > 15
    assert away.iloc[101:105].max() < 5
    # One step ahead, the last value takes the anomaly for what goes on.
    noise = series[["a"]] - series[["a"]].shift(24)
    model = sciseq.NaiveForecaster(horizon=H).fit(noise.iloc[24:600])
    frame = noise.iloc[600:].copy()
    frame.iloc[100] += 3.0
    for steps, blames in ((None, False), (1, True)):
        away = anomaly_scores(model, frame, steps=steps).abs()["a"]
        assert away.iloc[100] > 8
        assert (away.iloc[101] > 8) == blames


def test_what_never_varies_is_anomalous_when_it_does() -> None:
    X = np.full((80, 1), 3.0)
    model = sciseq.NaiveForecaster(horizon=1).fit(X)
    assert (anomaly_scores(model, X)[1:] == 0).all()
    X[50] = 3.5
    scores = anomaly_scores(model, X).ravel()
    assert scores[50] == np.inf
    assert scores[51] == -np.inf
    assert (scores[52:] == 0).all()


# --- Anomaly scores: containers, gaps, models ----------------------------------------


def test_every_container_comes_back(series, fitted) -> None:
    frame = series.iloc[600:700]
    expected = anomaly_scores(fitted, frame)
    pd.testing.assert_index_equal(expected.index, frame.index)
    assert list(expected.columns) == ["a", "b"]
    both = pd.concat({"x": frame, "y": frame.iloc[30:]}, names=["series", "time"])
    scores = anomaly_scores(fitted, both)
    pd.testing.assert_index_equal(scores.index, both.index)
    pd.testing.assert_frame_equal(scores.loc["x"], expected, check_freq=False)
    grid = xr.DataArray(
        frame.to_numpy(),
        dims=["time", "variate"],
        coords={"time": frame.index, "variate": list(frame)},
    )
    found = anomaly_scores(fitted, grid)
    assert found.dims == grid.dims
    np.testing.assert_allclose(found.to_numpy(), expected.to_numpy())
    array = linear().fit(series.iloc[:600].to_numpy())
    np.testing.assert_allclose(
        anomaly_scores(array, frame.to_numpy()), expected.to_numpy(), rtol=1e-6
    )


def test_targets_alone_are_scored(series) -> None:
    model = linear(targets=["b"]).fit(series.iloc[:600])
    assert list(anomaly_scores(model, series.iloc[600:])) == ["b"]


def test_missing_values_are_not_scored_and_stop_nothing(series) -> None:
    frame = series.iloc[600:].copy()
    frame.iloc[80:90, 0] = np.nan
    for missing in ("mask", "interpolate"):
        model = linear(missing=missing).fit(series.iloc[:600])
        scores = anomaly_scores(model, frame)
        assert scores["a"].isna().sum() == 24 + 10
        assert scores["b"].isna().sum() == 24
        by_predict = errors_by_hand(model, frame.iloc[:100])
        assert np.isnan(by_predict[80:90, :, 0]).all()
        assert scores.abs().max().max() < 10


def test_a_pipeline_needs_usual_rows(series) -> None:
    model = sciseq.ForecastPipeline([("scale", StandardScaler()), ("model", linear())])
    model.fit(series.iloc[:400])
    with pytest.raises(CapabilityError, match="reference="):
        anomaly_scores(model, series.iloc[600:])
    scores = anomaly_scores(model, series.iloc[600:], reference=series.iloc[400:600])
    plain = linear().fit(series.iloc[:400])
    expected = anomaly_scores(plain, series.iloc[600:], reference=series.iloc[400:600])
    np.testing.assert_allclose(scores, expected, rtol=1e-6)


def test_what_anomaly_scores_refuse(series, fitted) -> None:
    for arguments, message in (
        ({"method": "zscore"}, "method='zscore'"),
        ({"steps": 0}, "steps=0"),
    ):
        with pytest.raises(InputError, match=message):
            anomaly_scores(fitted, series, **arguments)
    with pytest.raises(InputTypeError, match="LinearRegression is not one"):
        anomaly_scores(LinearRegression(), series)
    with pytest.raises(InputError, match="no rows to score"):
        anomaly_scores(fitted, np.zeros((3, 24, 2)))
    with pytest.raises(InputError, match="reference, "):
        anomaly_scores(fitted, series, reference=series.iloc[:10])
    unheld = linear(validation_fraction=0.0).fit(series.iloc[:200])
    with pytest.raises(CapabilityError, match="no errors of usual rows"):
        anomaly_scores(unheld, series)


# --- Permutation importance ----------------------------------------------------------


class Sum(BaseForecaster):
    """Forecasts the last column as two times the first plus the second, one row on."""

    _covariates = frozenset({"past", "future"})

    def __init__(
        self, *, lookback=3, horizon=1, targets=("y",), future_covariates=None
    ):
        self.lookback = lookback
        self.horizon = horizon
        self.targets = targets
        self.future_covariates = future_covariates

    _parameter_rules = {}  # noqa: RUF012

    missing = "error"

    def _fit(self, training, validation):
        pass

    def _forecast(self, inputs):
        if len(self.future_positions_):
            return inputs.known[..., :1] * 3.0
        last = inputs.values[:, -1:]
        return 2.0 * last[..., :1] + last[..., 1:2]


def constructed(n_rows=900):
    """Independent columns, of which the target follows one row behind."""
    rng = np.random.default_rng(3)
    frame = pd.DataFrame(
        rng.normal(size=(n_rows, 3)) * [1.0, 3.0, 1.0], columns=["u", "v", "w"]
    )
    frame["y"] = (2.0 * frame["u"] + frame["v"]).shift(1).fillna(0.0)
    return frame


def test_a_constructed_model_gives_the_known_importance() -> None:
    frame = constructed()
    model = Sum(targets=["y"]).fit(frame)
    table = permutation_importance(model, frame, n_repeats=20, random_state=0)
    assert table.index.tolist() == ["u", "v", "w", "y"]
    # Exchanged at random, two values differ by twice their variance in the square.
    expected = [2 * 4 * frame["u"].var(), 2 * frame["v"].var(), 0.0, 0.0]
    np.testing.assert_allclose(table["mean"], expected, rtol=0.04)
    assert (table["mean"].iloc[2:] == 0).all()
    assert (table["sd"].iloc[:2] > 0).all()
    absolute = permutation_importance(model, frame, metric="mae", random_state=0)
    np.testing.assert_allclose(
        absolute["mean"].iloc[:2],
        [2 * 2 * frame["u"].std() / np.sqrt(np.pi), 2 * frame["v"].std() / np.pi**0.5],
        rtol=0.06,
    )


def test_each_repeat_is_a_plain_exchange_of_windows() -> None:
    frame = constructed(60)
    model = Sum(targets=["y"]).fit(frame)
    table = permutation_importance(
        model, frame, n_repeats=1, n_windows=20, random_state=5
    )
    rows = np.linspace(0, 60 - 4, 20).round().astype(int) + 2  # last row of look-backs
    random = np.random.default_rng(5)
    for name, factor in (("u", 2.0), ("v", 1.0)):
        values = frame[name].to_numpy()[rows]
        moved = values[random.permutation(20)]
        expected = np.mean((factor * (moved - values)) ** 2)
        assert table.loc[name, "mean"] == pytest.approx(expected)
    assert table["sd"].isna().all()


def test_the_known_future_of_a_covariate_moves_with_it(monkeypatch) -> None:
    frame = constructed()
    frame["y"] = 3.0 * frame["w"]
    model = Sum(targets=["y"], future_covariates=["w"]).fit(frame)
    table = permutation_importance(model, frame, n_repeats=10, random_state=0)
    expected = 2 * 9 * frame["w"].var()
    assert table.loc["w", "mean"] == pytest.approx(expected, rel=0.06)

    def look_back_alone(model, windows, column, order):
        def change(inputs, chunk):
            values = inputs.values.copy()
            values[..., column] = windows.inputs(order[chunk]).values[..., column]
            return replace(inputs, values=values)

        return change

    monkeypatch.setattr(importance_module, "_exchange", look_back_alone)
    wrong = permutation_importance(model, frame, random_state=0)
    assert wrong.loc["w", "mean"] == 0.0


def test_a_model_of_single_columns_rests_on_no_other(series, fitted) -> None:
    weights = fitted.coef_.copy()
    table = permutation_importance(
        fitted, series.iloc[600:], per_target=True, random_state=0
    )
    assert table.index.names == ["variate", "target"]
    mean = table["mean"].unstack()
    assert (np.diag(mean) > 0.5).all()
    assert mean.loc["a", "b"] == mean.loc["b", "a"] == 0.0
    overall = permutation_importance(fitted, series.iloc[600:], random_state=0)
    np.testing.assert_allclose(overall["mean"], mean.mean(axis=1))
    np.testing.assert_array_equal(fitted.coef_, weights)


def test_networks_of_single_columns_rest_on_no_other(series) -> None:
    model = sciseq.PatchTSTForecaster(
        lookback=24, horizon=H, d_model=8, n_layers=1, max_epochs=1, random_state=0
    ).fit(series.iloc[:300])
    table = permutation_importance(
        model, series.iloc[600:700], per_target=True, n_repeats=1, random_state=0
    )
    mean = table["mean"].unstack()
    assert (np.diag(mean) != 0).all()
    assert mean.loc["a", "b"] == mean.loc["b", "a"] == 0.0


def test_the_same_seed_gives_the_same_importance(
    series, fitted, no_global_side_effects
) -> None:
    X = series.iloc[600:]
    with no_global_side_effects():
        one, two, three = (
            permutation_importance(fitted, X, n_windows=50, random_state=seed)
            for seed in (0, np.random.default_rng(0), 1)
        )
        again = permutation_importance(fitted, X, n_windows=50, random_state=0)
    pd.testing.assert_frame_equal(one, again)
    assert not np.allclose(one["mean"], three["mean"])
    assert not np.allclose(two["mean"], three["mean"])


def test_ready_made_windows_and_panels(series, fitted) -> None:
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(40, 6, 2)), rng.normal(size=(40, 2, 2))
    model = linear(lookback=6, horizon=2).fit(X, y)
    table = permutation_importance(model, X, y, random_state=0)
    assert table.index.tolist() == [0, 1]
    both = {"x": series.iloc[600:700], "y": series.iloc[650:800]}
    table = permutation_importance(fitted, both, random_state=0)
    assert (table["mean"] > 0.5).all()


def test_what_importance_refuses(series, fitted) -> None:
    for arguments, message in (
        ({"metric": "r2"}, "metric='r2'"),
        ({"n_repeats": 0}, "n_repeats=0"),
        ({"n_windows": 1}, "n_windows=1"),
    ):
        with pytest.raises(InputError, match=message):
            permutation_importance(fitted, series, **arguments)
    with pytest.raises(InputError, match="cannot be exchanged"):
        permutation_importance(fitted, series.iloc[: 24 + H])
    pipeline = sciseq.ForecastPipeline([("s", StandardScaler()), ("m", linear())])
    with pytest.raises(InputTypeError, match=r"model\[-1\]"):
        permutation_importance(pipeline, series)
