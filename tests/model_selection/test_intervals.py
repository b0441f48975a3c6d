"""Intervals in backtests: brute force, no leak, coverage under drift."""

import numpy as np
import pandas as pd
import pytest
from sklearn.preprocessing import FunctionTransformer

import sciseq
from sciseq.errors import CapabilityError, InputError
from sciseq.metrics import QuantileErrors
from sciseq.model_selection import backtest, error_history
from sciseq.model_selection.error_history import SPEED
from sciseq.model_selection.sorted_errors import SortedErrors, ranked_quantiles

LEVELS = [0.05, 0.1, 0.5, 0.9, 0.95]
ASKED = {"coverage": [0.8, 0.9], "quantiles": [0.1, 0.5, 0.9]}
H = 3


@pytest.fixture(scope="module")
def macro() -> pd.DataFrame:
    return sciseq.load_dataset("macrodata")[["infl", "unemp", "tbilrate"]]


def linear(**parameters):
    defaults = {"lookback": 8, "horizon": H, "alpha": 0.1, "validation_fraction": 0.3}
    return sciseq.LinearForecaster(**defaults | parameters)


def by_rank(errors, level):
    """The error of a rank out of n + 1, by hand."""
    errors = np.sort(errors[~np.isnan(errors)])
    rank = min(max(level * (len(errors) + 1), 1), len(errors))
    return np.interp(rank, np.arange(1, len(errors) + 1), errors)


def block(result, name, n_targets=3):
    return result.forecasts[name].to_numpy().reshape(result.n_windows, -1, n_targets)


def by_hand(result, start, n_windows, rows, *, speed=0.0, n_targets=3):
    """Quantiles (n, H, T, Q) by plain loops over what each origin knows."""
    truth, forecast = (block(result, name, n_targets) for name in ("truth", "forecast"))
    n, horizon, _ = truth.shape
    quantiles = np.empty((*truth.shape, len(LEVELS)))
    for step, target, place in np.ndindex(horizon, n_targets, len(LEVELS)):
        level, learnt = LEVELS[place], 0
        for window in range(n):
            known = [one for one in range(n) if rows[one] + step < rows[window]]
            for one in known[learnt:]:
                y = truth[one, step, target]
                if not np.isnan(y):
                    below = y <= quantiles[one, step, target, place]
                    level += speed * (LEVELS[place] - below)
            learnt = len(known)
            errors = (truth - forecast)[known, step, target]
            looked_at = np.concatenate([start[:, step, target], errors])[-n_windows:]
            quantiles[window, step, target, place] = forecast[
                window, step, target
            ] + by_rank(looked_at, level)
    return np.sort(quantiles, axis=-1)


def residuals_of(model, frame):
    model.fit(frame)
    return model.calibration_residuals_ * model._target_scaler().scale


# --- One window at a time ------------------------------------------------------------


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("kind", "n_windows"), [("rolling", 25), ("adaptive", 60)])
def test_equals_plain_loops(macro, monkeypatch, kind, n_windows, stride) -> None:
    # Fast enough for levels to move in a short series.
    monkeypatch.setattr(error_history, "SPEED", 0.05)
    first = len(macro) - 60
    result = backtest(
        linear(),
        macro,
        test_size=60,
        stride=stride,
        calibration=kind,
        calibration_windows=n_windows,
        **ASKED,
    )
    start = residuals_of(linear(), macro.iloc[:first])
    rows = np.arange(first, len(macro) - H + 1, stride)
    speed = 0.05 if kind == "adaptive" else 0.0
    expected = by_hand(result, start, n_windows, rows, speed=speed)
    for place, level in enumerate(LEVELS):
        np.testing.assert_allclose(block(result, level), expected[..., place])
    # Neither the fixed residuals nor other levels would do.
    fixed = backtest(linear(), macro, test_size=60, stride=stride, coverage=0.8,
                     calibration="fixed")  # fmt: skip
    assert not np.allclose(block(fixed, 0.9), expected[..., 3])


def test_missing_truth_teaches_nothing(macro) -> None:
    frame = macro.copy()
    frame.iloc[-40:-30, 1] = np.nan
    frame.iloc[-12, 0] = np.nan
    first = len(frame) - 50
    result = backtest(
        linear(missing="mask"), frame, test_size=50, calibration_windows=40, **ASKED
    )
    start = residuals_of(linear(missing="mask"), frame.iloc[:first])
    rows = np.arange(first, len(frame) - H + 1)
    expected = by_hand(result, start, 40, rows, speed=SPEED)
    for place, level in enumerate(LEVELS):
        np.testing.assert_allclose(block(result, level), expected[..., place])


def test_many_batches_are_one(macro) -> None:
    """More windows than go through a model at once, and fewer errors than windows."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(1300, 1)).cumsum(axis=0)
    model = sciseq.NaiveForecaster(horizon=2)
    result = backtest(
        model, X, test_size=1100, calibration_windows=30, calibration="rolling", **ASKED
    )
    start = residuals_of(model, X[:200])
    rows = np.arange(200, 1299)
    for window in (0, 1, 511, 512, 513, 1098):
        known = [rows[:window], rows[: max(window - 1, 0)]]
        for step in range(2):
            errors = X[known[step] + step, 0] - X[known[step] - 1, 0]
            looked_at = np.concatenate([start[:, step, 0], errors])[-30:]
            for level in LEVELS:
                assert block(result, level, 1)[window, step, 0] == pytest.approx(
                    X[rows[window] - 1, 0] + by_rank(looked_at, level), rel=1e-6
                )


class NonNegative(sciseq.LinearForecaster):
    """Clips what falls below zero."""

    nonnegative = True


@pytest.mark.parametrize("kind", [sciseq.LinearForecaster, NonNegative])
def test_fixed_intervals_are_those_of_the_model(macro, kind) -> None:
    first = len(macro) - 20
    model = kind(lookback=8, horizon=H, alpha=0.1, targets=["unemp", "infl"])
    model.fit(macro.iloc[:first])
    result = backtest(
        model, macro, test_size=20, fit=False, calibration="fixed", **ASKED
    )
    for window, row in enumerate(range(first, len(macro) - H + 1)):
        expected = model.predict_quantiles(macro.iloc[:row], quantiles=LEVELS)
        for level in LEVELS:
            np.testing.assert_allclose(
                block(result, level, 2)[window], expected[level], rtol=1e-5
            )
    is_clipped = (result.forecasts["forecast"] == 0).any(axis=None)
    assert is_clipped == (kind is NonNegative)
    lower, upper = result.interval(0.9)
    pd.testing.assert_frame_equal(lower, result.forecasts[0.05])
    pd.testing.assert_frame_equal(upper, result.forecasts[0.95])


def test_refitted_models_bring_their_own_residuals(macro) -> None:
    first = len(macro) - 8
    result = backtest(
        linear(), macro, test_size=8, refit=True, calibration="fixed", **ASKED
    )
    for window, row in enumerate(range(first, len(macro) - H + 1)):
        model = linear().fit(macro.iloc[:row])
        expected = model.predict_quantiles(quantiles=LEVELS)
        for level in LEVELS:
            np.testing.assert_allclose(
                block(result, level)[window], expected[level], rtol=1e-5
            )
    rolling = backtest(
        linear(), macro, test_size=30, refit=True, calibration="rolling", **ASKED
    )
    start = residuals_of(linear(), macro.iloc[:-30])
    rows = np.arange(len(macro) - 30, len(macro) - H + 1)
    expected = by_hand(rolling, start, 2000, rows)
    np.testing.assert_allclose(block(rolling, 0.9), expected[..., 3], rtol=1e-6)


def test_metrics_are_those_of_the_quantiles(macro) -> None:
    scaled = [
        backtest(linear(), macro, test_size=30, scaled=scaled, **ASKED)
        for scaled in (False, True)
    ]
    spread = macro.iloc[:-30].std(ddof=0).to_numpy()
    for result, scale in zip(scaled, (1.0, spread), strict=True):
        scores = QuantileErrors(ASKED["quantiles"], coverage=ASKED["coverage"])
        quantiles = np.stack([block(result, level) for level in LEVELS], axis=-1)
        divisor = np.reshape(scale, (-1, 1))
        scores.update(block(result, "truth") / scale, quantiles / divisor)
        summary = scores.result()
        names = list(summary.overall)
        assert list(result.metrics)[-6:] == names
        assert result.metrics[names].iloc[0].to_dict() == pytest.approx(summary.overall)
        for name in names:
            np.testing.assert_allclose(result.per_step[name], summary.per_step[name])
            np.testing.assert_allclose(
                result.per_target[name], summary.per_target[name]
            )
        one = QuantileErrors(ASKED["quantiles"], coverage=ASKED["coverage"]).update(
            block(result, "truth")[7:8] / scale, quantiles[7:8] / divisor
        )
        assert result.per_window[names].iloc[7].to_dict() == pytest.approx(
            one.result().overall
        )
    # Without quantiles nothing has changed.
    plain = backtest(linear(), macro, test_size=30)
    pd.testing.assert_frame_equal(plain.metrics, scaled[0].metrics[list(plain.metrics)])
    both = scaled[0].forecasts[["truth", "forecast"]]
    np.testing.assert_array_equal(plain.forecasts.to_numpy(), both.to_numpy())


# --- Panels, pipelines, networks that forecast quantiles ------------------------------


def test_series_of_a_panel_learn_from_themselves(panel) -> None:
    axis = panel.index.get_level_values("time").unique().sort_values()
    loud = panel.copy()
    is_loud = loud.index.get_level_values("time") >= axis[-90]
    is_loud &= loud.index.get_level_values("series") == "west"
    loud[is_loud] *= 10.0
    before, after = (
        backtest(sciseq.NaiveForecaster(horizon=H), X, test_size=90, coverage=0.8)
        for X in (panel, loud)
    )
    for name in ("north", "south"):
        one, two = before.forecasts.loc[name], after.forecasts.loc[name]
        pd.testing.assert_frame_equal(one, two)
    width = [
        (one.forecasts[0.9] - one.forecasts[0.1]).loc["west"].iloc[-30:].mean()
        for one in (before, after)
    ]
    assert (width[1] > 1.5 * width[0]).all()


def own_levels(levels):
    """A forecaster that, like a network of the quantile loss, forecasts quantiles."""

    class Quantiles(sciseq.NaiveForecaster):
        def _levels(self):
            return levels

        def _forecast_levels(self, inputs):
            forecast = self._forecast(inputs)
            return np.stack([forecast + level - 0.5 for level in levels], axis=-1)

    return Quantiles(horizon=H)


def test_quantiles_of_a_model_are_corrected_once_enough_is_known() -> None:
    rng = np.random.default_rng(1)
    X = rng.normal(size=(400, 1))
    model = own_levels((0.1, 0.9))
    first = 200
    fixed, rolling = (
        backtest(model, X, test_size=200, coverage=0.8, calibration=kind)
        for kind in ("fixed", "rolling")
    )
    fitted = model.fit(X[:first])
    for window, row in ((0, first), (150, first + 150)):
        expected = fitted.predict_quantiles(X[:row], quantiles=[0.1, 0.9])
        for level in (0.1, 0.9):
            np.testing.assert_allclose(
                block(fixed, level, 1)[window], expected[level], rtol=1e-6
            )
    truth = block(fixed, "truth", 1)
    for step in range(H):
        n_known = 100 + step  # windows before the first origin that knows 100 errors
        for level in (0.1, 0.9):
            base, after = block(fixed, level, 1), block(rolling, level, 1)
            np.testing.assert_allclose(after[:n_known, step], base[:n_known, step])
            errors = (truth - base)[:100, step, 0]
            expected = base[n_known, step, 0] + by_rank(errors, level)
            assert after[n_known, step, 0] == pytest.approx(expected)
            assert expected != pytest.approx(base[n_known, step, 0], rel=1e-3)


def test_a_pipeline_forecasts_its_quantiles_through_its_steps(hourly_frame) -> None:
    log = FunctionTransformer(np.log, inverse_func=np.exp, check_inverse=False)
    model = sciseq.ForecastPipeline(
        [("log", log), ("model", linear(lookback=24, scaler=None))]
    )
    first = len(hourly_frame) - 40
    result = backtest(
        model, hourly_frame, test_size=40, calibration="fixed", coverage=0.8
    )
    fitted = model.fit(hourly_frame.iloc[:first])
    for window, row in ((0, first), (20, first + 20)):
        expected = fitted.predict_quantiles(
            hourly_frame.iloc[:row], quantiles=[0.1, 0.9]
        )
        for level in (0.1, 0.9):
            np.testing.assert_allclose(
                block(result, level)[window], expected[level], rtol=1e-6
            )
    # Residuals added to the forecast in the units of the data would be another thing.
    ratio = block(result, 0.9) / block(result, "forecast")
    np.testing.assert_allclose(ratio, np.broadcast_to(ratio[:1], ratio.shape))


# --- Leaks ---------------------------------------------------------------------------


def unfinished_windows(rows, row, horizon):
    """Wrong: windows whose last steps lie in the future count as known."""
    return np.full(horizon, np.searchsorted(rows, row, side="left"))


@pytest.mark.parametrize("kind", ["rolling", "adaptive"])
@pytest.mark.parametrize("is_wrong", [False, True])
def test_rows_after_an_origin_change_no_interval(
    macro, monkeypatch, kind, is_wrong
) -> None:
    if is_wrong:
        monkeypatch.setattr(error_history, "known_windows", unfinished_windows)
    asked = {"coverage": 0.8, "calibration": kind, "calibration_windows": 20}
    first = len(macro) - 30

    def quantiles(frame):
        result = backtest(linear(), frame, test_size=30, **asked)
        return np.stack([block(result, level) for level in (0.1, 0.9)], axis=-1)

    before = quantiles(macro)
    same = []
    for row in range(first + 5, len(macro) - H + 1, 6):
        changed = macro.copy()
        changed.iloc[row:] = changed.iloc[row:] * -3.0 + 100.0
        after = quantiles(changed)
        n_before = row - first + 1
        same.append(np.array_equal(after[:n_before], before[:n_before]))
        assert not np.isclose(after[n_before:], before[n_before:]).all(axis=None)
    assert all(same) is not is_wrong


# --- What it is good for --------------------------------------------------------------


def drifting(n_rows=1800):
    """Noise whose spread grows threefold after the training rows."""
    rng = np.random.default_rng(2)
    scale = np.where(np.arange(n_rows) < 600, 1.0, 3.0)
    season = 5.0 * np.sin(np.arange(n_rows) * 2 * np.pi / 24)
    return (season + scale * rng.normal(size=n_rows))[:, None]


def test_coverage_follows_drift_where_fixed_residuals_do_not() -> None:
    model = sciseq.NaiveForecaster(strategy="seasonal", season_length=24, horizon=4)
    coverage = {
        kind: backtest(
            model,
            drifting(),
            test_size=1200,
            coverage=[0.8, 0.9],
            calibration=kind,
            calibration_windows=300,
            keep_forecasts=False,
        ).per_step
        for kind in ("fixed", "rolling", "adaptive")
    }
    for share in (0.8, 0.9):
        name = f"coverage_{share}"
        assert (coverage["fixed"][name] < share - 0.3).all()
        assert (coverage["adaptive"][name] - share).abs().max() < 0.02
        gap = {kind: (one[name] - share).abs().max() for kind, one in coverage.items()}
        assert gap["adaptive"] < gap["rolling"] < 0.08


# --- Sorted samples -------------------------------------------------------------------


def test_sorted_samples_are_those_of_a_plain_sort() -> None:
    rng = np.random.default_rng(3)
    values = rng.integers(0, 9, size=(4, 6)).astype(float)  # with ties
    values[1, 2:] = np.nan
    kept = [one[~np.isnan(one)].tolist() for one in values]
    samples = SortedErrors(values)
    for _ in range(200):
        chosen = np.sort(rng.choice(4, size=3, replace=False))
        new = np.where(rng.random(3) < 0.2, np.nan, rng.integers(0, 9, 3))
        goes = [bool(kept[one]) and rng.random() < 0.5 for one in chosen]
        old = np.array(
            [
                kept[one].pop(rng.integers(len(kept[one]))) if leaves else np.nan
                for one, leaves in zip(chosen, goes, strict=True)
            ]
        )
        for one, value in zip(chosen, new, strict=True):
            kept[one] += [] if np.isnan(value) else [value]
        samples.replace(chosen, old, new)
        for one in range(4):
            assert samples.count[one] == len(kept[one])
            np.testing.assert_array_equal(
                samples.ordered[one, : len(kept[one])], sorted(kept[one])
            )
            assert np.isinf(samples.ordered[one, len(kept[one]) :]).all()


def test_ranks_out_of_one_more_cover_at_least_what_was_asked() -> None:
    rng = np.random.default_rng(4)
    held = {"ours": 0, "plain": 0}
    for _ in range(2000):
        *errors, new = rng.normal(size=10)
        ours = ranked_quantiles(np.sort(errors), np.array(9), np.array([0.9]))
        held["ours"] += new <= ours[0]
        held["plain"] += new <= np.quantile(errors, 0.9)
    assert held["ours"] / 2000 == pytest.approx(0.9, abs=0.02)
    # Quantiles of nine errors as they are cover clearly less.
    assert held["plain"] / 2000 < 0.87


# --- Refusals ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"coverage": 1.0}, "between 0 and 1"),
        ({"quantiles": [0.5, 2.0]}, "between 0 and 1"),
        ({"coverage": 0.9, "calibration": "roling"}, "Did you mean 'rolling'"),
        ({"coverage": 0.9, "calibration_windows": 0}, "calibration_windows=0"),
        ({"metrics": ["mae", "crps"]}, "'crps' judges quantiles, and none"),
        ({"metrics": "coverage", "quantiles": [0.5]}, "'coverage' judges interval"),
        ({"metrics": [], "quantiles": ()}, "neither quantiles nor coverage"),
    ],
)
def test_what_is_refused(macro, arguments, message) -> None:
    with pytest.raises(InputError, match=message):
        backtest(linear(), macro, **arguments)


def test_names_of_quantile_metrics_may_be_given(macro) -> None:
    result = backtest(linear(), macro, test_size=20, metrics=["crps", "mae"],
                      quantiles=[0.5], keep_forecasts=False)  # fmt: skip
    assert list(result.metrics) == ["mae", "pinball", "crps"]
    with pytest.raises(InputError, match="hold no quantiles"):
        result.interval(0.8)


def test_nothing_held_out_means_no_intervals(macro) -> None:
    with pytest.raises(CapabilityError, match="held out"):
        backtest(linear(validation_fraction=0.0), macro, coverage=0.9)


def test_intervals_leave_global_state_alone(macro, no_global_side_effects) -> None:
    with no_global_side_effects():
        backtest(linear(), macro, n_origins=4, coverage=0.9)
