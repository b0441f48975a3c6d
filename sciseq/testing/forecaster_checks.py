"""Checks of what a forecaster promises: rows, columns, time, units, no leaks."""

import warnings
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import clone

from sciseq.errors import CapabilityError, SciSeqWarning
from sciseq.testing.tables import (
    close,
    frame,
    panel,
    quiet,
    refuses,
    same,
    values,
)

__all__ = [
    "check_column_order_restored",
    "check_columns_extra",
    "check_columns_missing",
    "check_constant_series",
    "check_duplicate_times",
    "check_empty_table",
    "check_future_cannot_leak",
    "check_horizon_longer_rolls",
    "check_horizon_shorter_is_cut",
    "check_horizon_zero",
    "check_infinite_values",
    "check_interval_holds_forecast",
    "check_irregular_times",
    "check_make_future",
    "check_missing_values",
    "check_missing_values_masked",
    "check_object_column",
    "check_one_variate",
    "check_only_context_counts",
    "check_predict_equals_predict_of_training_data",
    "check_score",
    "check_series_are_independent",
    "check_target_subset",
    "check_too_short_to_fit",
    "check_too_short_to_predict",
    "check_units",
    "check_unsorted_times",
    "check_windows_alone_equal_together",
    "check_y_is_ignored_with_warning",
]


def _fit(estimator: Any, table: Any, **params: Any) -> Any:
    with quiet():
        return clone(estimator).set_params(**params).fit(table)


def check_predict_equals_predict_of_training_data(estimator: Any) -> None:
    """``predict()`` continues the training data."""
    model = _fit(estimator, frame())
    pd.testing.assert_frame_equal(model.predict(), model.predict(frame()))


def check_horizon_shorter_is_cut(estimator: Any) -> None:
    """A shorter horizon is the beginning of the fitted one."""
    model = _fit(estimator, frame())
    same(model.predict(horizon=1), model.predict().iloc[:1])


def check_horizon_longer_rolls(estimator: Any) -> None:
    """A longer horizon rolls on the model's own forecasts, and says so."""
    model = _fit(estimator, frame())
    rows = 2 * model.horizon + 1
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        longer = model.predict(horizon=rows)
    assert any(issubclass(one.category, SciSeqWarning) for one in caught)
    first = model.predict()
    same(longer.iloc[: model.horizon], first)
    second = model.predict(pd.concat([frame(), first]))
    np.testing.assert_allclose(
        longer.iloc[model.horizon : 2 * model.horizon], second, rtol=1e-5, atol=1e-5
    )
    assert len(longer) == rows and longer.index.is_unique


def check_horizon_zero(estimator: Any) -> None:
    """Horizon 0 is refused in ``fit`` and in ``predict``."""
    with refuses("horizon=0", "at least 1"):
        clone(estimator).set_params(horizon=0).fit(frame())
    with refuses("horizon=0", "at least 1"):
        _fit(estimator, frame()).predict(horizon=0)


def check_column_order_restored(estimator: Any) -> None:
    """Columns are matched by name, whatever their order."""
    model = _fit(estimator, frame())
    shuffled = frame()[["c", "a", "b"]]
    pd.testing.assert_frame_equal(model.predict(shuffled), model.predict(frame()))


def check_columns_missing(estimator: Any) -> None:
    """A missing column is named."""
    with refuses("missing ['b']"):
        _fit(estimator, frame()).predict(frame().drop(columns="b"))


def check_columns_extra(estimator: Any) -> None:
    """An unexpected column is named."""
    with refuses("unexpected ['extra']"):
        _fit(estimator, frame()).predict(frame().assign(extra=1.0))


def check_object_column(estimator: Any) -> None:
    """A column of text is named."""
    with refuses("'b'", "encode"), quiet():
        estimator.fit(frame().assign(b="text"))


def check_missing_values(estimator: Any) -> None:
    """NaN is refused by name and row, in ``fit`` and in ``predict``."""
    table = frame()
    table.iloc[55, 1] = np.nan
    with refuses("NaN", "'b'", "row 55", "missing="), quiet():
        clone(estimator).fit(table)
    with refuses("NaN", "'b'"):
        _fit(estimator, frame()).predict(table)


def check_missing_values_masked(estimator: Any) -> None:
    """``missing="mask"`` and ``"interpolate"`` fit and forecast finite values."""
    table = frame()
    table.iloc[[10, 30, 58], 1] = np.nan
    table.iloc[57:60, 2] = np.nan
    for choice in ("mask", "interpolate"):
        model = _fit(estimator, table, missing=choice)
        assert np.isfinite(model.predict().to_numpy()).all(), choice


def check_infinite_values(estimator: Any) -> None:
    """Infinity is refused whatever the choice about missing values."""
    table = frame()
    table.iloc[5, 2] = -np.inf
    for choice in ("error", "mask", "interpolate"):
        with refuses("infinity", "'c'", "row 5"), quiet():
            clone(estimator).set_params(missing=choice).fit(table)


def check_duplicate_times(estimator: Any) -> None:
    """Repeated times are refused and shown."""
    table = frame()
    table.index = table.index[:-1].append(table.index[-2:-1])
    with refuses("duplicate", "2024-03-03"), quiet():
        estimator.fit(table)


def check_unsorted_times(estimator: Any) -> None:
    """Unsorted times are refused, with the way to sort them."""
    with refuses("not sorted", "sort_index"), quiet():
        estimator.fit(frame().iloc[::-1])


def check_irregular_times(estimator: Any) -> None:
    """A gap in time is refused and shown."""
    with refuses("irregular", "2024-03-01 19:00:00 to 2024-03-01 21:00:00"), quiet():
        estimator.fit(frame().drop(index=pd.Timestamp("2024-03-01 20:00")))


def check_empty_table(estimator: Any) -> None:
    """No rows and no columns are refused."""
    with refuses("0 sample"):
        clone(estimator).fit(frame().iloc[:0])
    with refuses("0 feature"):
        clone(estimator).fit(frame()[[]])


def check_too_short_to_fit(estimator: Any) -> None:
    """Too few rows are refused with the numbers given and needed."""
    with refuses("1 sample", "needed"), quiet():
        estimator.fit(frame(1))


def check_too_short_to_predict(estimator: Any) -> None:
    """Fewer rows than the lookback are refused."""
    model = _fit(estimator, frame())
    if model._context_length > 1:
        with refuses("rows", "lookback"):
            model.predict(frame(model._context_length - 1))


def check_one_variate(estimator: Any) -> None:
    """One column is enough."""
    forecast = _fit(estimator, frame()[["a"]]).predict()
    assert forecast.shape == (estimator.horizon, 1)


def check_constant_series(estimator: Any) -> None:
    """A constant column is forecast as itself, and flagged."""
    model = _fit(estimator, frame().assign(b=4.0))
    assert model.constant_targets_ == ("b",)
    forecast = model.predict()["b"].to_numpy()
    np.testing.assert_allclose(forecast, 4.0, atol=1.0)


def check_target_subset(estimator: Any) -> None:
    """``targets`` names what is forecast; the rest is input only."""
    model = _fit(estimator, frame(), targets=["c", "a"])
    assert list(model.predict().columns) == ["c", "a"]
    same(model.predict(frame()[["b", "c", "a"]]), model.predict())
    with refuses("'z'"), quiet():
        clone(estimator).set_params(targets=["z"]).fit(frame())


def check_units(estimator: Any) -> None:
    """Forecasts come back in the units of the data."""
    scale = np.array([1000.0, 0.001, 1.0])
    plain = _fit(estimator, frame()).predict().to_numpy()
    scaled = _fit(estimator, frame() * scale).predict().to_numpy()
    np.testing.assert_allclose(scaled / scale, plain, rtol=1e-2, atol=1e-2)


def check_only_context_counts(estimator: Any) -> None:
    """Rows before the context change nothing in a forecast."""
    model = _fit(estimator, frame())
    changed = frame()
    changed.iloc[: -model._context_length] *= 3.0
    same(model.predict(changed), model.predict(frame()))


def check_future_cannot_leak(estimator: Any) -> None:
    """Scoring forecasts of a window never reads the rows it is scored on."""
    model = _fit(estimator, frame())
    rows = model._context_length + model.horizon
    other = frame(rows)
    other.iloc[-model.horizon :] += 100.0
    forecasts = [
        next(model._evaluate_panel(model._evaluation_panel(table)))[2]
        for table in (frame(rows), other)
    ]
    same(*forecasts)


def check_windows_alone_equal_together(estimator: Any) -> None:
    """A forecast does not depend on what it is computed together with."""
    params = {"calendar": None} if "calendar" in estimator.get_params() else {}
    model = _fit(estimator, values(), **params)
    L = model._context_length
    windows = np.stack([values()[start : start + L] for start in range(20)])
    together = model.predict(windows)
    for number in (0, 7, 19):
        close(model.predict(windows[number : number + 1])[0], together[number])


def check_series_are_independent(estimator: Any) -> None:
    """Each series of a panel is forecast as it would be alone."""
    model = _fit(estimator, panel())
    together = model.predict(panel())
    alone = model.predict(panel().loc["south"])
    close(together.loc["south"], alone)


def check_score(estimator: Any) -> None:
    """``score`` is R² of the rolling windows in the units of the data."""
    model = _fit(estimator, frame())
    table = frame()
    L, H = model._context_length, model.horizon
    truth, forecast = [], []
    for start in range(len(table) - L - H + 1):
        forecast.append(model.predict(table.iloc[start : start + L]).to_numpy())
        truth.append(table.iloc[start + L : start + L + H].to_numpy())
    error = ((np.array(truth) - np.array(forecast)) ** 2).sum(axis=(0, 1))
    spread = ((np.array(truth) - np.mean(truth, axis=(0, 1))) ** 2).sum(axis=(0, 1))
    np.testing.assert_allclose(
        model.score(table), np.mean(1 - error / spread), rtol=1e-6
    )


def check_y_is_ignored_with_warning(estimator: Any) -> None:
    """``y`` beside a table is ignored with a warning that points to targets."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        estimator.fit(frame(), np.zeros(len(frame())))
    messages = [str(one.message) for one in caught]
    assert any("targets=" in message for message in messages), messages


def check_make_future(estimator: Any) -> None:
    """``make_future`` gives the labels that ``predict`` uses, and all columns."""
    model = _fit(estimator, frame(), targets=["b"])
    future = model.make_future()
    assert list(future.columns) == ["a", "b", "c"] and future.isna().all(axis=None)
    assert future.index.equals(model.predict().index)


def check_interval_holds_forecast(estimator: Any) -> None:
    """Quantiles grow with their level, and intervals with their coverage."""
    model = _fit(estimator, frame())
    try:
        low, middle, high = model.predict_quantiles(quantiles=[0.1, 0.5, 0.9]).values()
    except CapabilityError:
        return
    assert (low <= middle).all(axis=None) and (middle <= high).all(axis=None)
    narrow = model.predict_interval(coverage=0.5)
    wide = model.predict_interval(coverage=0.9)
    assert (wide[0] <= narrow[0]).all(axis=None)
    assert (wide[1] >= narrow[1]).all(axis=None)
