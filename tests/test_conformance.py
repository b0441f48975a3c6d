"""Conformance, counted: scikit-learn's checks, then ours, then that ours can fail."""

import warnings
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from sklearn.utils.estimator_checks import check_estimator as check_by_sklearn

from sciseq import LinearForecaster, NaiveForecaster, SMambaForecaster
from sciseq.errors import InputError
from sciseq.testing import check_estimator, checks_for

# Rows are ordered in time: a forecast is no function of single rows.
DECLARED_FAILURES = {
    "check_methods_sample_order_invariance": "rows are ordered in time",
    "check_methods_subset_invariance": "a forecast needs all rows of the lookback",
}

ON_TABLES = {
    "naive-last": NaiveForecaster(lookback=3, horizon=2),
    "naive-seasonal": NaiveForecaster(strategy="seasonal", season_length=3, horizon=2),
    "rlinear": LinearForecaster(lookback=3, horizon=2),
    "dlinear": LinearForecaster(kind="dlinear", lookback=3, horizon=2),
    "s-mamba": SMambaForecaster(
        lookback=3, horizon=2, d_model=8, n_layers=1, max_epochs=1, random_state=0
    ),
}

FORECASTERS = {
    "naive-last": NaiveForecaster(lookback=4, horizon=2),
    "naive-seasonal": NaiveForecaster(strategy="seasonal", season_length=6, horizon=3),
    "rlinear": LinearForecaster(lookback=6, horizon=3),
    "dlinear": LinearForecaster(
        kind="dlinear", lookback=6, horizon=3, individual=True, refit_on_all=True
    ),
    "s-mamba": SMambaForecaster(
        lookback=6, horizon=3, d_model=8, n_layers=1, max_epochs=1, random_state=0
    ),
    "s-mamba-refitted": SMambaForecaster(
        lookback=6,
        horizon=2,
        d_model=8,
        n_layers=1,
        max_epochs=2,
        random_state=1,
        loss="mae",
        learning_rate_schedule="cosine",
        refit_on_all=True,
    ),
}


@pytest.mark.filterwarnings("ignore::sciseq.errors.SciSeqWarning")
@pytest.mark.parametrize("name", ON_TABLES)
def test_scikit_learn_checks(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = check_by_sklearn(
            ON_TABLES[name],
            on_fail=None,
            on_skip=None,
            expected_failed_checks=DECLARED_FAILURES,
        )
    counts = Counter(result["status"] for result in results)
    failed = [one for one in results if one["status"] == "failed"]
    assert not failed, [(one["check_name"], one["exception"]) for one in failed]
    declared = {one["check_name"] for one in results if one["status"] == "xfail"}
    assert declared == set(DECLARED_FAILURES)
    # A green run that ran nothing must not pass.
    assert counts["passed"] >= 38, counts
    skipped = [one["check_name"] for one in results if one["status"] == "skipped"]
    assert skipped in ([], ["check_array_api_input"])


@pytest.mark.parametrize("name", FORECASTERS)
def test_own_battery(name):
    results = check_estimator(FORECASTERS[name])
    counts = Counter(result.status for result in results)
    assert counts == {"passed": len(checks_for("forecaster"))}
    assert counts["passed"] >= 60


def test_unknown_kind_is_refused():
    with pytest.raises(InputError, match="forecaster"):
        checks_for("forcaster")


class ReturnsArrays(NaiveForecaster):
    def _write(self, panel, forecasts, future):
        return np.concatenate(forecasts)


class MatchesByPosition(NaiveForecaster):
    def _match(self, panel):
        return panel


class ReadsTheFuture(NaiveForecaster):
    def _evaluate(self, windows):
        for starts, truth, forecast in super()._evaluate(windows):
            yield starts, truth, forecast + 1e-6 * truth.mean()


class ChangesParameters(NaiveForecaster):
    def _fit(self, training, validation):
        self.horizon = int(self.horizon)
        self.lookback = 1
        super()._fit(training, validation)


class MovesGlobalState(NaiveForecaster):
    def _fit(self, training, validation):
        np.random.rand()
        super()._fit(training, validation)


class LooksTooFarBack(NaiveForecaster):
    def _forecast(self, inputs, marks):
        return super()._forecast(inputs, marks) + inputs[:, :1].mean()

    @property
    def _context_length(self):
        return 5

    def _prediction_panel(self, X):
        panel = super()._prediction_panel(X)
        if X is None or not isinstance(X, pd.DataFrame):
            return panel
        return panel.with_values(
            [values + 1e-3 * X.iloc[0, 0] for values in panel.values]
        )


class KeepsNothingOnFailure(NaiveForecaster):
    def fit(self, X, y=None, *, validation_data=None):
        self._forget()
        return super().fit(X, y, validation_data=validation_data)


class ForgetsUnits(NaiveForecaster):
    def _forecast(self, inputs, marks):
        return super()._forecast(inputs, marks) + 1.0


class LeaksBetweenSeries(NaiveForecaster):
    def _forecast(self, inputs, marks):
        return super()._forecast(inputs, marks) + inputs.mean() * 1e-3


class IsNeverTheSame(NaiveForecaster):
    def _fit(self, training, validation):
        super()._fit(training, validation)
        self.jitter_ = np.random.default_rng().normal()

    def _forecast(self, inputs, marks):
        return super()._forecast(inputs, marks) + self.jitter_


class RepairsSilently(NaiveForecaster):
    def _clean(self, panel, truth):
        filled = [np.nan_to_num(one, posinf=0, neginf=0) for one in panel.values]
        return super()._clean(panel.with_values(filled), truth)


WRONG = [
    (ReturnsArrays, "check_time_zone_and_summer_time"),
    (MatchesByPosition, "check_column_order_restored"),
    (ReadsTheFuture, "check_future_cannot_leak"),
    (ChangesParameters, "check_fit_keeps_parameters"),
    (MovesGlobalState, "check_global_random_state"),
    (LooksTooFarBack, "check_only_context_counts"),
    (KeepsNothingOnFailure, "check_failed_fit_changes_nothing"),
    (ForgetsUnits, "check_units"),
    (LeaksBetweenSeries, "check_series_are_independent"),
    (LeaksBetweenSeries, "check_windows_alone_equal_together"),
    (IsNeverTheSame, "check_fit_twice"),
    (RepairsSilently, "check_missing_values"),
    (RepairsSilently, "check_infinite_values"),
]


@pytest.mark.parametrize(
    ("wrong", "check"),
    WRONG,
    ids=[f"{wrong.__name__}-{check}" for wrong, check in WRONG],
)
def test_battery_finds_wrong_estimators(wrong, check):
    estimator = wrong(lookback=4, horizon=3)
    results = check_estimator(estimator, raise_on_failure=False)
    failed = {result.name for result in results if result.status == "failed"}
    assert check in failed
    with pytest.raises(AssertionError, match=check):
        check_estimator(estimator)


def test_expected_failures_are_declared_and_stay_true():
    right = NaiveForecaster(lookback=4, horizon=3)
    with pytest.raises(AssertionError, match="expected to fail, and passed"):
        check_estimator(right, expected_failures={"check_score": "not yet"})
    wrong = ForgetsUnits(lookback=4, horizon=3)
    results = check_estimator(
        wrong, expected_failures={"check_units": "a demonstration"}
    )
    kept = next(one for one in results if one.name == "check_units")
    assert (kept.status, kept.reason) == ("expected failure", "a demonstration")
