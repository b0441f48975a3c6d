"""backtest: the same numbers as a plain loop of predict, in one pass, without leaks."""

import warnings

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LinearRegression

import sciseq
from sciseq.data.protocol import SPLIT_RULES, count_windows, long_horizon_split
from sciseq.errors import DataQualityError, InputError, InputTypeError, SciSeqWarning
from sciseq.metrics import METRICS, forecast_errors, seasonal_scale
from sciseq.model_selection import backtest

ALL = tuple(n for n, metric in METRICS.items() if metric.judges == "forecast")


@pytest.fixture(scope="module")
def macro() -> pd.DataFrame:
    return sciseq.load_dataset("macrodata")[["infl", "unemp", "tbilrate"]]


def linear(lookback=8, horizon=3, **parameters):
    defaults = {"alpha": 0.1, "validation_fraction": 0.0}
    return sciseq.LinearForecaster(
        lookback=lookback, horizon=horizon, **defaults | parameters
    )


def naive(horizon=3, **parameters):
    return sciseq.NaiveForecaster(horizon=horizon, **parameters)


class Spy(sciseq.NaiveForecaster):
    """Records the tables that it is fitted on."""

    tables: list = []  # noqa: RUF012 - shared by the clones on purpose

    def fit(self, X, y=None, *, validation_data=None):
        Spy.tables.append(X)
        return super().fit(X, y, validation_data=validation_data)


def plain_loop(model, frame, first, stride=1, refit=False, gap=0, train_size=None):
    """Truths and forecasts (n, H, T), origin by origin, by fit and predict alone."""
    H = model.horizon
    truth, forecast = [], []
    for row in range(first, len(frame) - H + 1, stride):
        if refit or row == first:
            start = 0 if train_size is None else row - gap - train_size
            model.fit(frame.iloc[start : row - gap])
        forecast.append(np.asarray(model.predict(frame.iloc[:row])))
        truth.append(frame.iloc[row : row + H].to_numpy())
    return np.stack(truth), np.stack(forecast)


# --- One table -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "variant",
    [
        {},
        {"stride": 4},
        {"gap": 5},
        {"refit": True},
        {"refit": True, "stride": 3, "gap": 2},
        {"refit": True, "window": "sliding", "train_size": 60},
        {"window": "sliding", "train_size": 60},
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["pandas", "numpy"])
def test_equals_a_plain_loop(macro, variant, kind) -> None:
    X = macro if kind == "pandas" else macro.to_numpy()
    result = backtest(linear(), X, test_size=30, metrics=ALL, **variant)
    loop = {name: value for name, value in variant.items() if name != "window"}
    truth, forecast = plain_loop(linear(), macro, len(macro) - 30, **loop)

    expected_windows = -(-(30 - 3 + 1) // variant.get("stride", 1))
    assert result.n_windows == len(truth) == expected_windows
    np.testing.assert_array_equal(
        result.forecasts["truth"].to_numpy(), truth.reshape(-1, 3)
    )
    np.testing.assert_allclose(
        result.forecasts["forecast"].to_numpy(), forecast.reshape(-1, 3), rtol=1e-9
    )

    train = macro.iloc[: len(macro) - 30 - variant.get("gap", 0)]
    train = train.iloc[-variant.get("train_size", len(train)) :]
    season = 4 if kind == "pandas" else 1  # quarters, but NumPy does not know
    scale = seasonal_scale(train.to_numpy(), season)

    def errors(*axes):
        return forecast_errors(truth[axes], forecast[axes], metrics=ALL, scale=scale)

    overall = result.metrics.loc["LinearForecaster"]
    assert overall.to_dict() == pytest.approx(errors(), rel=1e-9)
    for step in range(3):
        expected = errors(slice(None), slice(step, step + 1))
        assert result.per_step.loc[step + 1].to_dict() == pytest.approx(expected)
    for window in (0, len(truth) - 1):
        expected = errors(slice(window, window + 1))
        assert result.per_window.iloc[window].to_dict() == pytest.approx(expected)
    names = list(macro) if kind == "pandas" else [0, 1, 2]
    assert result.per_target.index.tolist() == names
    mae = np.abs(truth - forecast).mean(axis=(0, 1))
    np.testing.assert_allclose(result.per_target["mae"], mae, rtol=1e-9)
    np.testing.assert_allclose(result.per_target["mase"], mae / scale.absolute)


def test_labels_are_those_of_the_rows(macro) -> None:
    result = backtest(naive(), macro, n_origins=5, stride=2)
    last = len(macro) - 3
    origins = macro.index[[last - 1 - 2 * back for back in (4, 3, 2, 1, 0)]]
    assert result.per_window.index.tolist() == origins.tolist()
    assert result.forecasts.index.names == ["origin", "time"]
    block = result.forecasts.loc[origins[1]]
    pd.testing.assert_frame_equal(
        block["truth"], macro.iloc[last - 6 : last - 3], check_freq=False
    )
    # The last value, known at the origin.
    assert (block["forecast"] == macro.loc[origins[1]]).all(axis=None)
    numbered = backtest(naive(), macro.to_numpy(), n_origins=5, stride=2)
    assert numbered.per_window.index.tolist() == [last - 9 + 2 * i for i in range(5)]
    assert numbered.forecasts.loc[last - 1].index.tolist() == [last, last + 1, last + 2]


def test_default_region_is_the_last_fifth(macro) -> None:
    result = backtest(naive(), macro)
    assert result.n_windows == int(0.2 * len(macro)) - 3 + 1
    assert result.horizon == 3
    short = macro.iloc[:8]
    assert backtest(naive(), short, metrics="mae").n_windows == 1


def test_horizon_is_set_on_a_clone(macro) -> None:
    model = naive()
    result = backtest(model, macro, horizon=5, test_size=20)
    assert (result.horizon, result.n_windows) == (5, 16)
    assert model.horizon == 3
    assert not hasattr(model, "n_features_in_")


def test_targets_are_a_subset_of_the_columns(macro) -> None:
    model = linear(targets=["unemp", "infl"])
    result = backtest(model, macro, test_size=20)
    assert result.forecasts["truth"].columns.tolist() == ["unemp", "infl"]
    truth, forecast = [], []
    model.fit(macro.iloc[:-20])
    for row in range(len(macro) - 20, len(macro) - 2):
        forecast.append(model.predict(macro.iloc[:row]).to_numpy())
        truth.append(macro[["unemp", "infl"]].iloc[row : row + 3].to_numpy())
    error = np.abs(np.stack(truth) - np.stack(forecast))
    assert result.metrics["mae"].item() == pytest.approx(error.mean(), rel=1e-9)
    np.testing.assert_allclose(result.per_target["mae"], error.mean(axis=(0, 1)))


@pytest.mark.parametrize("n_rows", [513, 2 * 512, 1100])
def test_no_window_of_the_last_batch_is_dropped(n_rows) -> None:
    X = np.arange(float(n_rows + 12)).reshape(-1, 1) ** 2
    result = backtest(naive(horizon=2), X, test_size=n_rows + 1, metrics=["mae"])
    assert result.n_windows == n_rows
    assert result.per_window.index.is_unique
    row = np.arange(11, n_rows + 11)[:, None] + np.arange(2)
    error = row**2 - (row[:, :1] - 1.0) ** 2
    np.testing.assert_allclose(result.per_window["mae"], error.mean(axis=1))
    assert result.metrics["mae"].item() == pytest.approx(error.mean(), rel=1e-12)


def test_forecasts_may_be_dropped(macro) -> None:
    kept = backtest(linear(), macro, test_size=20, metrics=ALL)
    dropped = backtest(linear(), macro, test_size=20, metrics=ALL, keep_forecasts=False)
    assert dropped.forecasts is None
    for name in ("metrics", "per_step", "per_target", "per_window"):
        pd.testing.assert_frame_equal(getattr(dropped, name), getattr(kept, name))


# --- Missing values ------------------------------------------------------------------


@pytest.fixture
def gappy(macro) -> pd.DataFrame:
    frame = macro.copy()
    rng = np.random.default_rng(0)
    holes = rng.random(frame.shape) < 0.15
    holes[:5] = False
    return frame.mask(holes)


@pytest.mark.parametrize("missing", ["interpolate", "mask"])
@pytest.mark.parametrize("refit", [False, True])
def test_missing_truth_is_not_counted_nor_invented(gappy, missing, refit) -> None:
    def model():
        return linear(missing=missing)

    result = backtest(model(), gappy, test_size=25, refit=refit, metrics=["mse"])
    truth, forecast = plain_loop(model(), gappy, len(gappy) - 25, refit=refit)
    assert result.n_unobserved == np.isnan(truth).sum() > 0
    # Interpolation by the loop never sees a row after its origin; neither do we.
    np.testing.assert_allclose(
        result.forecasts["forecast"].to_numpy(), forecast.reshape(-1, 3), rtol=1e-9
    )
    expected = np.nanmean((truth - forecast) ** 2)
    assert result.metrics["mse"].item() == pytest.approx(expected, rel=1e-9)


# --- Leaks ---------------------------------------------------------------------------


@pytest.mark.parametrize("missing", ["error", "mask", "interpolate"])
@pytest.mark.parametrize("refit", [False, True])
def test_rows_after_an_origin_never_change_its_forecast(
    macro, gappy, missing, refit
) -> None:
    frame = macro if missing == "error" else gappy
    first = len(frame) - 20

    def forecasts(table):
        result = backtest(linear(missing=missing), table, test_size=20, refit=refit)
        return result.forecasts["forecast"].to_numpy().reshape(-1, 3, 3)

    before = forecasts(frame)
    for row in range(first, len(frame) - 2, 4):
        changed = frame.copy()
        changed.iloc[row:] = changed.iloc[row:] * -3.0 + 100.0
        after = forecasts(changed)
        n_before = row - first + 1
        np.testing.assert_array_equal(after[:n_before], before[:n_before])
        # The test can fail: later forecasts do change.
        assert not np.isclose(after[n_before:], before[n_before:]).all(axis=None)


@pytest.mark.parametrize("gap", [0, 4])
@pytest.mark.parametrize("refit", [False, True])
def test_training_rows_end_before_the_targets(macro, gap, refit) -> None:
    Spy.tables.clear()
    backtest(Spy(horizon=3), macro, test_size=12, gap=gap, refit=refit)
    first = len(macro) - 12
    rows = range(first, len(macro) - 2) if refit else [first]
    assert len(Spy.tables) == len(rows)
    for table, row in zip(Spy.tables, rows, strict=True):
        pd.testing.assert_frame_equal(table, macro.iloc[: row - gap])


def test_training_rows_of_a_sliding_window(macro) -> None:
    Spy.tables.clear()
    backtest(Spy(horizon=3), macro, test_size=12, refit=True, window="sliding")
    first = len(macro) - 12
    for start, table in enumerate(Spy.tables):
        pd.testing.assert_frame_equal(table, macro.iloc[start : first + start])


def test_a_fitted_model_is_used_as_it_is(macro) -> None:
    first = len(macro) - 20
    model = linear().fit(macro.iloc[:first])
    weights = model.coef_
    result = backtest(model, macro, test_size=20, fit=False)
    fitted = backtest(linear(), macro, test_size=20)
    pd.testing.assert_frame_equal(result.metrics, fitted.metrics)
    pd.testing.assert_frame_equal(result.forecasts, fitted.forecasts)
    assert model.coef_ is weights
    # Columns are matched by name, tables are in the model's order.
    turned = backtest(model, macro[macro.columns[::-1]], test_size=20, fit=False)
    pd.testing.assert_frame_equal(turned.forecasts, fitted.forecasts)
    pd.testing.assert_frame_equal(turned.per_target, fitted.per_target)


def test_a_model_that_has_seen_the_future_is_told_of(macro) -> None:
    first = len(macro) - 20
    with pytest.warns(SciSeqWarning, match="it has seen"):
        backtest(linear().fit(macro.iloc[: first + 1]), macro, test_size=20, fit=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        backtest(linear().fit(macro.iloc[:first]), macro, test_size=20, fit=False)


# --- Panels --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stride", "refit"), [(1, False), (7, False), (7, True)], ids=str
)
def test_panel_windows_are_cut_at_the_same_times(panel, stride, refit) -> None:
    model = linear(lookback=24, horizon=6)
    result = backtest(model, panel, test_size=90, stride=stride, refit=refit)
    axis = panel.index.get_level_values("time").unique().sort_values()
    times = [axis[row] for row in range(len(axis) - 90, len(axis) - 5, stride)]

    expected = {}
    for time in times:
        if refit or time == times[0]:
            known = panel[panel.index.get_level_values("time") < time]
            model.fit(known)
        for name, one in panel.groupby(level=0):
            series = one.droplevel(0)
            past, future = series[series.index < time], series[series.index >= time]
            if len(past) >= 24 and len(future) >= 6:
                origin = past.index[-1]
                expected[name, origin] = np.asarray(model.predict(past))
    # Series end at different times: north has 44 windows, south 28, west all 85.
    if stride == 1:
        counts = result.per_window.groupby(level="series").size()
        assert counts.to_dict() == {"north": 45, "south": 29, "west": 85}
    assert result.per_window.index.tolist() == sorted(expected)
    for key, forecast in expected.items():
        block = result.forecasts.loc[key]
        np.testing.assert_allclose(block["forecast"].to_numpy(), forecast, rtol=1e-9)
        np.testing.assert_array_equal(
            block["truth"].to_numpy(), panel.loc[key[0]].loc[block.index].to_numpy()
        )


def test_mase_divides_each_series_by_its_own_scale(panel) -> None:
    both = panel.loc[["north", "west"]]
    large = both.copy()
    large.loc["west"] = large.loc["west"].to_numpy() * 1000.0
    metrics = ["mae", "mase", "rmsse"]
    results = [
        backtest(naive(horizon=6), X, test_size=90, metrics=metrics)
        for X in (both, large)
    ]
    for name in ("mase", "rmsse"):
        values = [result.metrics[name].item() for result in results]
        assert values[0] == pytest.approx(values[1], rel=1e-9)
    # The large series drowns the other one in errors that are not scaled.
    mae = [result.metrics["mae"].item() for result in results]
    assert mae[1] > 100 * mae[0]

    axis = panel.index.get_level_values("time").unique().sort_values()
    ratios = []
    for name in ("north", "west"):
        train = both.loc[name][both.loc[name].index < axis[-90]].to_numpy()
        scale = seasonal_scale(train, 24).absolute
        block = results[0].forecasts.loc[name]
        error = (block["forecast"] - block["truth"]).abs().to_numpy()
        ratios.append(error / scale)
    expected = np.concatenate(ratios).mean()
    assert results[0].metrics["mase"].item() == pytest.approx(expected, rel=1e-9)


def test_panel_leaks_nothing_in_time(panel) -> None:
    Spy.tables.clear()
    backtest(Spy(horizon=6), panel, test_size=70, stride=9, refit=True)
    axis = panel.index.get_level_values("time").unique().sort_values()
    for number, table in enumerate(Spy.tables):
        time = axis[len(axis) - 70 + 9 * number]
        assert table.index.get_level_values("time").max() < time
        expected = panel[panel.index.get_level_values("time") < time]
        pd.testing.assert_frame_equal(table, expected)


def test_context_gives_models_of_different_lookback_the_same_windows() -> None:
    rng = np.random.default_rng(0)
    late = pd.DataFrame(rng.normal(size=(40, 1)), index=range(80, 120))
    early = pd.DataFrame(rng.normal(size=(120, 1)))
    panel = pd.concat({"early": early, "late": late}, names=["series", "time"])

    def windows(lookback, **arguments):
        model = naive(horizon=2, lookback=lookback)
        return backtest(model, panel, test_size=30, **arguments)

    # Ten rows of the late series come before the first origin, 15 before time 95.
    assert windows(2).n_windows == windows(8).n_windows == 29 + 29
    one, two = windows(2, context=15), windows(15, context=15)
    assert one.n_windows == two.n_windows == 29 + 24
    pd.testing.assert_frame_equal(one.forecasts, two.forecasts)
    for refit in (False, True):
        sparse = windows(2, context=15, stride=4, refit=refit).per_window
        assert sparse.loc["early"].index.tolist() == list(range(89, 118, 4))
        assert sparse.loc["late"].index.tolist() == list(range(97, 118, 4))
    with pytest.raises(InputError, match="15 rows, context is 14"):
        windows(15, context=14)
    # Too short to learn from: refused by the model, left out when context is given.
    with pytest.raises(InputError, match="'late', 10 samples"):
        windows(15)


def test_series_of_a_panel_need_one_grid(panel) -> None:
    shifted = panel.loc[["north"]].copy()
    shifted.index = shifted.index.set_levels(
        shifted.index.levels[1] + pd.Timedelta("30min"), level=1
    )
    both = pd.concat([shifted.rename({"north": "shifted"}), panel.loc[["west"]]])
    with pytest.raises(DataQualityError, match="one cut in time"):
        backtest(naive(), both)


# --- Containers ----------------------------------------------------------------------


def test_every_container_gives_the_same_numbers(hourly_frame) -> None:
    wide = hourly_frame
    halves = {"a": wide * 2.0, "b": wide + 1.0}
    two_level = pd.concat(halves, names=["series", "time"])
    stacked = xr.DataArray(
        np.stack([one.to_numpy() for one in halves.values()], axis=1),
        dims=["time", "series", "variate"],
        coords={"time": wide.index, "series": list(halves), "variate": list(wide)},
    )
    dataset = stacked.to_dataset(dim="variate")
    arrays = [one.to_numpy() for one in halves.values()]
    gap_free = [two_level, halves, list(halves.values()), stacked, dataset, arrays]
    for refit in (False, True):
        results = [
            backtest(
                linear(24, 4), X, n_origins=3, stride=5, refit=refit, season_length=24
            )
            for X in gap_free
        ]
        for result in results[1:]:
            assert result.n_windows == 6
            np.testing.assert_allclose(
                result.metrics.to_numpy(), results[0].metrics.to_numpy(), rtol=1e-9
            )
            np.testing.assert_allclose(
                result.forecasts.to_numpy(), results[0].forecasts.to_numpy(), rtol=1e-9
            )
        pd.testing.assert_frame_equal(results[1].forecasts, results[0].forecasts)
        pd.testing.assert_frame_equal(
            results[3].forecasts,
            results[0].forecasts,
            check_freq=False,
            check_column_type=False,
            check_index_type=False,
        )


def test_a_gap_at_the_origin_in_every_container(hourly_frame) -> None:
    frame = hourly_frame.iloc[:, :2].copy()
    frame.iloc[-8:-5, 0] = np.nan
    two_level = pd.concat({"a": frame, "b": frame * 2.0}, names=["series", "time"])
    stacked = xr.DataArray(
        np.stack([frame, frame * 2.0]),
        dims=["series", "time", "variate"],
        coords={"series": ["a", "b"], "time": frame.index, "variate": list(frame)},
    )
    model = linear(24, 2, missing="interpolate")
    model.fit(two_level[two_level.index.get_level_values(1) < frame.index[-9]])
    results = [
        backtest(model, X, test_size=9, fit=False, season_length=1)
        for X in (two_level, stacked, [frame, frame * 2.0])
    ]
    for row in range(len(frame) - 9, len(frame) - 1):
        expected = model.predict(frame.iloc[:row]).to_numpy()
        for result in results:
            block = result.forecasts["forecast"].to_numpy().reshape(2, 8, 2, 2)
            window = block[0, row - len(frame) + 9]
            np.testing.assert_allclose(window, expected, rtol=1e-9)


def test_lists_of_unequal_arrays_start_together() -> None:
    arrays = [np.arange(30.0).reshape(-1, 1), np.arange(40.0).reshape(-1, 1) * 2.0]
    result = backtest(naive(horizon=2), arrays, test_size=15, metrics=["mae"])
    # Time 25 is the first target: rows 25 to 29 of the short series, 25 to 39 of the
    # other.
    counts = result.per_window.groupby(level="series").size()
    assert counts.to_dict() == {0: 4, 1: 14}
    assert result.per_window.loc[0].index.tolist() == [24, 25, 26, 27]


def test_periods_text_and_zones_as_labels(macro) -> None:
    values = macro.iloc[:60]
    expected = backtest(linear(), values, season_length=1, n_origins=4)
    for index in (
        values.index.to_period("Q"),
        pd.Index([f"quarter {number}" for number in range(60)]),
        pd.date_range("2026-03-20", periods=60, freq="D", tz="Europe/Berlin"),
    ):
        table = values.set_axis(index)
        result = backtest(linear(), table, season_length=1, n_origins=4)
        np.testing.assert_allclose(
            result.forecasts.to_numpy(), expected.forecasts.to_numpy(), rtol=1e-9
        )
        assert result.per_window.index.tolist() == index[53:57].tolist()
        assert "4 windows of 3 rows" in repr(result)


def test_labels_that_are_tuples(macro) -> None:
    columns = pd.MultiIndex.from_tuples([("a", 1), ("a", 2), ("b", 1)])
    result = backtest(naive(), macro.set_axis(columns, axis=1), n_origins=2)
    assert result.per_target.index.tolist() == columns.tolist()
    expected = backtest(naive(), macro, n_origins=2)
    np.testing.assert_array_equal(
        result.forecasts["truth"].to_numpy(), expected.forecasts["truth"].to_numpy()
    )


# --- The published protocol ----------------------------------------------------------


@pytest.mark.parametrize("n_rows", [1000, 1003])
def test_windows_are_counted_as_in_the_protocol(n_rows) -> None:
    X = np.random.default_rng(0).normal(size=(n_rows, 1))
    *_, test = SPLIT_RULES["ratio"].segments(n_rows, 96)
    n_windows = count_windows(test.stop - test.start, 96, 24)
    # The default region is that of the protocol: the last fifth.
    result = backtest(naive(horizon=24, lookback=96), X, metrics=["mse"])
    assert result.n_windows == n_windows


def test_etth1_gives_the_published_counts_and_scale(data_dir) -> None:
    frame = sciseq.load_dataset("ETTh1").iloc[:14400]
    model = sciseq.LinearForecaster(lookback=96, horizon=96, validation_fraction=0.0)
    # Validation rows lie in the gap: the scaler sees the 8640 training rows alone.
    result = backtest(
        model, frame, test_size=2880, gap=2880, scaled=True, metrics=["mse", "mae"]
    )
    assert result.n_windows == 2785

    train, _, test = long_horizon_split(frame, "ETTh1", lookback=96)
    scale = train.std(ddof=0).to_numpy()
    fitted = model.fit(train)
    error = result.forecasts["forecast"] - result.forecasts["truth"]
    error = error[frame.columns].to_numpy() / frame.iloc[:8640].std(ddof=0).to_numpy()
    assert result.metrics["mse"].item() == pytest.approx(np.mean(error**2), rel=1e-9)
    assert result.metrics["mae"].item() == pytest.approx(np.abs(error).mean(), rel=1e-9)
    # One window by hand, in the protocol's own segments.
    window = (fitted.predict(test.iloc[:196]) - test.iloc[196:292].to_numpy()) / scale
    assert result.per_window["mse"].iloc[100] == pytest.approx(
        np.mean(window.to_numpy() ** 2), rel=1e-9
    )
    # Published for RLinear: MSE 0.386 (arXiv:2305.10721, as quoted by S-Mamba).
    assert result.metrics["mse"].item() == pytest.approx(0.386, abs=0.01)


# --- Refusals and conduct ------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"stride": 0}, "stride=0"),
        ({"horizon": 0}, "horizon=0"),
        ({"refit": "each"}, "refit='each'"),
        ({"window": "expand"}, "Did you mean 'expanding'"),
        ({"train_size": 9}, "needs window='sliding'"),
        ({"test_size": 9, "n_origins": 2}, "both place the origins"),
        ({"test_size": 2}, "holds no horizon of 3 rows"),
        ({"metrics": ["mse", "maes"]}, "Did you mean 'mae"),
        ({"metrics": []}, "no metric was given"),
        ({"test_size": 300}, "203 times are too few"),
        ({"gap": 200}, "203 times are too few"),
        ({"season_length": 190}, "more than season_length=190 training rows"),
        ({"test_size": 197}, "too few rows: 6 samples"),
        ({"fit": False}, "fitted"),
    ],
)
def test_what_is_refused(macro, arguments, message) -> None:
    with pytest.raises((InputError, NotFittedError), match=message):
        backtest(linear(), macro, **arguments)


def test_what_a_fitted_model_cannot_do(macro) -> None:
    model = linear().fit(macro.iloc[:100])
    for arguments in ({"refit": True}, {"horizon": 2}):
        with pytest.raises(InputError, match="fit=False"):
            backtest(model, macro, fit=False, **arguments)
    assert backtest(model, macro, fit=False, horizon=3).horizon == 3


def test_other_objects_are_refused(macro) -> None:
    with pytest.raises(InputTypeError, match="LinearRegression is not one"):
        backtest(LinearRegression(), macro)
    with pytest.raises(InputError, match="no time axis"):
        backtest(naive(), np.zeros((9, 4, 2)))
    spans = {"a": range(10), "b": range(10, 50)}
    panel = {name: pd.DataFrame({"x": 1.0}, index=span) for name, span in spans.items()}
    with pytest.raises(InputError, match="no training rows before 30"):
        backtest(naive(), panel, test_size=20, context=25)
    spans = {"a": range(40), "b": range(35, 60)}
    panel = {name: pd.DataFrame({"x": 1.0}, index=span) for name, span in spans.items()}
    for refit in (False, True):
        with pytest.raises(InputError, match="no window"):
            backtest(naive(), panel, test_size=20, context=30, refit=refit)


def test_representation(macro) -> None:
    text = repr(backtest(naive(), macro, n_origins=2, metrics=["mae", "mase"]))
    assert text.splitlines()[0] == (
        "Backtest: 2 windows of 3 rows, origins 2008-07-01 00:00:00 to "
        "2008-10-01 00:00:00"
    )
    assert "mase" in text
    assert "NaiveForecaster" in text


def test_backtest_leaves_global_state_alone(macro, no_global_side_effects) -> None:
    with no_global_side_effects():
        backtest(linear(), macro, n_origins=4, refit=True)
