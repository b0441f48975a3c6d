"""Covariates that are known ahead: every forecast sees them, and nothing else."""

import numpy as np
import pandas as pd
import pytest

from sciseq.errors import InputError
from sciseq.forecasting.base import BaseForecaster
from sciseq.model_selection import backtest, evaluation, forecast_scorer

H = 3
COLUMNS = ["y", "past", "known"]


class Known(BaseForecaster):
    """The last value of y, plus what is known ahead, plus a tenth of "past"."""

    _covariates = frozenset({"past", "future"})
    _parameter_rules = {}  # noqa: RUF012

    def __init__(self, *, lookback=4, horizon=H, missing="error"):
        self.lookback = lookback
        self.horizon = horizon
        self.missing = missing

    targets = ("y",)
    past_covariates = ("past",)
    future_covariates = ("known",)

    def _fit(self, training, validation):
        pass

    def _calibration_windows(self, training, validation):
        return training

    def _forecast(self, inputs):
        last = dict(
            zip(self.columns_, np.moveaxis(inputs.values[:, -1:], 2, 0), strict=True)
        )
        y, past = (np.nan_to_num(last[name])[..., None] for name in ("y", "past"))
        return y + inputs.known[..., :1] + 0.1 * past


def frame(n_rows=60, seed=0):
    values = np.random.default_rng(seed).normal(size=(n_rows, 3))
    index = pd.date_range("2026-01-01", periods=n_rows, freq="h", name="time")
    return pd.DataFrame(values, index=index, columns=COLUMNS)


def with_gap(table):
    """No target in the rows before some origins."""
    table = table.copy()
    table.iloc[-12:-9, 0] = np.nan
    return table


def by_hand(table, first):
    """Forecasts (n, H) from the definition of the model."""
    last = table["y"].ffill().to_numpy()
    past = table["past"].to_numpy()
    known = table["known"].to_numpy()
    return np.stack(
        [
            last[row - 1] + known[row : row + H] + 0.1 * past[row - 1]
            for row in range(first, len(table) - H + 1)
        ]
    )


@pytest.mark.parametrize("refit", [False, True])
@pytest.mark.parametrize("missing", ["error", "interpolate"])
def test_every_origin_knows_the_future_of_its_covariates(refit, missing) -> None:
    table = frame() if missing == "error" else with_gap(frame())
    result = backtest(
        Known(missing=missing), table, test_size=20, refit=refit, coverage=0.8
    )
    found = result.forecasts["forecast"].to_numpy().reshape(-1, H)
    np.testing.assert_allclose(found, by_hand(table, 40))
    assert result.n_unobserved == (0 if missing == "error" else 9)
    # Columns in another order are the same columns.
    turned = backtest(
        Known(missing=missing), table[COLUMNS[::-1]], test_size=20, refit=refit
    )
    np.testing.assert_allclose(
        turned.forecasts["forecast"].to_numpy().reshape(-1, H), found
    )


@pytest.mark.parametrize("refit", [False, True])
def test_series_of_a_panel_know_their_own_future(refit) -> None:
    panel = {"a": frame(60, 1), "b": frame(50, 2)}
    result = backtest(Known(), panel, test_size=20, refit=refit)
    for name, table in panel.items():
        found = result.forecasts.loc[name, "forecast"].to_numpy().reshape(-1, H)
        expected = by_hand(table, 40)
        np.testing.assert_allclose(found, expected[: len(found)])
        assert len(found) == len(table) - 40 - H + 1


def test_rows_without_any_target_at_the_end_are_no_truth() -> None:
    """They may be there to say what is known ahead; series differ in how many."""
    panel = {"a": frame(60, 1), "b": frame(60, 2)}
    panel["a"].iloc[-7:, 0] = np.nan
    result = backtest(Known(missing="mask"), panel, test_size=20)
    for name, table in panel.items():
        block = result.forecasts.loc[name]
        found = block["forecast"].to_numpy().reshape(-1, H)
        np.testing.assert_allclose(found, by_hand(table, 40)[: len(found)])
        np.testing.assert_array_equal(
            block["truth"].to_numpy().ravel(),
            table["y"].loc[block.index.get_level_values("time")],
        )
    assert result.per_window.groupby(level="series").size().to_dict() == {
        "a": 20 - 7 - H + 1,
        "b": 20 - H + 1,
    }


@pytest.mark.parametrize("refit", [False, True])
def test_the_future_of_other_columns_stays_hidden(refit) -> None:
    table = with_gap(frame())
    model = Known(missing="interpolate")

    def forecasts(X):
        result = backtest(model, X, test_size=20, refit=refit)
        return result.forecasts["forecast"].to_numpy().reshape(-1, H)

    before = forecasts(table)
    row = 52  # the origin after the second of three rows without a target
    changed = table.copy()
    changed.iloc[row:, :2] += 100.0
    after = forecasts(changed)
    np.testing.assert_array_equal(after[: row - 40 + 1], before[: row - 40 + 1])
    assert not np.isclose(after[row - 40 + 1 :], before[row - 40 + 1 :]).any()
    known = table.copy()
    known.iloc[row:, 2] += 100.0
    assert not np.isclose(forecasts(known)[row - 40], before[row - 40]).any()


def everything(model, panel, series, row, **options):
    """Wrong: all columns of the rows of the horizon are shown."""
    stop = row + model.horizon
    return panel.values[series][:stop], panel.times[series][:stop]


def test_rows_that_show_everything_are_caught(monkeypatch) -> None:
    table = frame()
    right = by_hand(table, 40)
    monkeypatch.setattr(evaluation, "_known", everything)
    # Nothing tells the model where the past ends: it looks for later rows.
    with pytest.raises(InputError, match="known for 0 rows"):
        backtest(Known(), table, test_size=20, refit=True)
    monkeypatch.undo()
    result = backtest(Known(), table, test_size=20, refit=True)
    np.testing.assert_allclose(
        result.forecasts["forecast"].to_numpy().reshape(-1, H), right
    )


def test_the_scorer_shows_the_same_future() -> None:
    for table in (frame(), with_gap(frame())):
        model = Known(missing="interpolate").fit(table.iloc[:30])
        score = forecast_scorer("mse", context=10)(model, table)
        truth = np.stack(
            [table["y"].to_numpy()[row : row + H] for row in range(10, 58)]
        )
        expected = -np.nanmean((truth - by_hand(table, 10)) ** 2)
        assert score == pytest.approx(expected)


def test_quantiles_know_the_same_future() -> None:
    """Asked for quantiles window by window, the model sees what it sees in predict."""
    table = frame()
    result = backtest(
        NonNegative(), table, test_size=20, coverage=0.8, calibration="fixed"
    )
    fitted = NonNegative().fit(table.iloc[:40])
    for window, row in enumerate(range(40, 58)):
        shown = table.iloc[: row + H].copy()
        shown.iloc[row:, :2] = np.nan
        expected = fitted.predict_quantiles(shown, quantiles=[0.1, 0.9])
        for level in (0.1, 0.9):
            found = result.forecasts[level].to_numpy().reshape(-1, H)[window]
            np.testing.assert_allclose(found, expected[level]["y"], rtol=1e-6)


class NonNegative(Known):
    """Has to be asked for its quantiles, since it clips them."""

    nonnegative = True
