"""Conformance, counted: scikit-learn's checks, then ours, then that ours can fail."""

import functools
import warnings
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import Ridge
from sklearn.utils.estimator_checks import check_estimator as check_by_sklearn

from sciseq import (
    ARNetForecaster,
    ForecastEnsemble,
    GateformerForecaster,
    ITransformerForecaster,
    LinearForecaster,
    MambaMixerForecaster,
    NaiveForecaster,
    PatchTSTForecaster,
    SMambaForecaster,
    StatsmodelsForecaster,
    WindowForecaster,
)
from sciseq.errors import InputError
from sciseq.testing import check_estimator, checks_for

# Rows are ordered in time: a forecast is no function of single rows.
DECLARED_FAILURES = {
    "check_methods_sample_order_invariance": "rows are ordered in time",
    "check_methods_subset_invariance": "a forecast needs all rows of the lookback",
}

TINY = {"d_model": 8, "n_layers": 1, "max_epochs": 1, "random_state": 0}
HEADS = {**TINY, "n_heads": 2}

ON_TABLES = {
    "gateformer": GateformerForecaster(lookback=3, horizon=2, **HEADS),
    "mambamixer": MambaMixerForecaster(lookback=3, horizon=2, **TINY),
    "ar-net": ARNetForecaster(lookback=3, horizon=2),
    "itransformer": ITransformerForecaster(lookback=3, horizon=2, **HEADS),
    "patchtst": PatchTSTForecaster(lookback=3, horizon=2, **HEADS),
    "statsmodels": StatsmodelsForecaster(
        model="autoreg", lookback=3, horizon=2, season_length=1
    ),
    "window": WindowForecaster(lookback=3, horizon=2, regressor=Ridge()),
    "ensemble": ForecastEnsemble(
        forecasters=[
            ("last", NaiveForecaster(lookback=3, horizon=2)),
            ("linear", LinearForecaster(lookback=3, horizon=2)),
        ],
        horizon=2,
    ),
    "naive-last": NaiveForecaster(lookback=3, horizon=2),
    "naive-seasonal": NaiveForecaster(
        strategy="seasonal", season_length=2, lookback=3, horizon=2
    ),
    "rlinear": LinearForecaster(lookback=3, horizon=2),
    "dlinear": LinearForecaster(kind="dlinear", lookback=3, horizon=2),
    "s-mamba": SMambaForecaster(
        lookback=3, horizon=2, d_model=8, n_layers=1, max_epochs=1, random_state=0
    ),
}

FORECASTERS = {
    "gateformer": GateformerForecaster(lookback=6, horizon=3, **HEADS),
    "mambamixer": MambaMixerForecaster(lookback=6, horizon=3, **TINY),
    "ar-net": ARNetForecaster(lookback=6, horizon=3),
    "ar-net-recursive": ARNetForecaster(
        lookback=6, horizon=2, strategy="recursive", sparsity=0.5, refit_on_all=True
    ),
    "itransformer": ITransformerForecaster(lookback=6, horizon=3, **HEADS),
    "itransformer-gated": ITransformerForecaster(
        lookback=6, horizon=3, gated=True, loss="quantile", **HEADS
    ),
    "patchtst": PatchTSTForecaster(lookback=6, horizon=3, **HEADS),
    "statsmodels": StatsmodelsForecaster(
        model="autoreg", lags=2, lookback=6, horizon=3
    ),
    "window": WindowForecaster(lookback=6, horizon=3, regressor=Ridge()),
    "ensemble": ForecastEnsemble(
        forecasters=[
            ("last", NaiveForecaster(lookback=4, horizon=3)),
            ("linear", LinearForecaster(lookback=6, horizon=3)),
        ],
        weights="inverse_error",
        horizon=3,
    ),
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


# A model per series cannot tell which series a table without labels is.
KNOWN_FAILURES = {
    "statsmodels": {
        "check_series_are_independent": "a series alone does not say which it is"
    }
}


@pytest.mark.parametrize("name", FORECASTERS)
def test_own_battery(name):
    declared = KNOWN_FAILURES.get(name, {})
    results = check_estimator(FORECASTERS[name], expected_failures=declared)
    counts = Counter(result.status for result in results)
    assert counts["passed"] == len(checks_for("forecaster")) - len(declared)
    failed = {one.name for one in results if one.status != "passed"}
    assert failed == set(declared)
    assert counts["passed"] >= 60 - len(declared)


# Users may exclude checks by name: names stay, and a new one is added here.
CHECKS = """
check_clone_keeps_parameters check_deepcopy check_failed_first_fit_stays_unfitted
check_failed_fit_changes_nothing check_fit_keeps_input check_fit_keeps_parameters
check_fit_returns_self check_fit_twice check_global_random_state check_html_repr
check_joblib check_misspelt_constructor_argument check_misspelt_parameter check_pickle
check_predict_before_fit check_predict_keeps_state check_save_and_load check_threads

check_column_order_restored check_columns_extra check_columns_missing
check_constant_series check_duplicate_times check_empty_table check_future_cannot_leak
check_horizon_longer_rolls check_horizon_shorter_is_cut check_horizon_zero
check_infinite_values check_interval_holds_forecast check_irregular_times
check_make_future check_missing_values check_missing_values_masked check_object_column
check_one_variate check_only_context_counts
check_predict_equals_predict_of_training_data check_score check_series_are_independent
check_target_subset check_too_short_to_fit check_too_short_to_predict check_units
check_unsorted_times check_windows_alone_equal_together
check_y_is_ignored_with_warning

check_array check_dict_of_frames check_integer_index check_list_of_arrays
check_numpy_for_a_calendar check_panel check_period_index check_series
check_time_zone_and_summer_time check_windows check_windows_need_truth
check_xarray_array check_xarray_dataset
""".split()


def test_names_of_the_checks():
    checks = checks_for("forecaster")
    assert list(checks) == CHECKS
    assert all(check.__doc__ for check in checks.values())


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
    def _forecast(self, inputs):
        return super()._forecast(inputs) + inputs.values[:, :1].mean()

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
    def _forecast(self, inputs):
        return super()._forecast(inputs) + 1.0


class LeaksBetweenSeries(NaiveForecaster):
    def _forecast(self, inputs):
        return super()._forecast(inputs) + inputs.values.mean() * 1e-3


class IsNeverTheSame(NaiveForecaster):
    def _fit(self, training, validation):
        super()._fit(training, validation)
        self.jitter_ = np.random.default_rng().normal()

    def _forecast(self, inputs):
        return super()._forecast(inputs) + self.jitter_


class RepairsSilently(NaiveForecaster):
    def _clean(self, panel, truth):
        filled = [np.nan_to_num(one, posinf=0, neginf=0) for one in panel.values]
        return super()._clean(panel.with_values(filled), truth)


class ChangesItsInput(NaiveForecaster):
    def fit(self, X, y=None, *, validation_data=None):
        super().fit(X, y, validation_data=validation_data)
        if isinstance(X, pd.DataFrame):
            X.iloc[0, 0] = 0.0
        return self


class ReturnsNothing(NaiveForecaster):
    def fit(self, X, y=None, *, validation_data=None):
        super().fit(X, y, validation_data=validation_data)


class NeedsNoFit(NaiveForecaster):
    def _check_is_fitted(self):
        if not hasattr(self, "columns_"):
            self.fit(np.zeros((60, 3)))


class RemembersForecasts(NaiveForecaster):
    def predict(self, X=None, *, horizon=None):
        self.latest_ = super().predict(X, horizon=horizon)
        return self.latest_


class LosesItsStateInPickles(NaiveForecaster):
    def __getstate__(self):
        return {name: getattr(self, name) for name in self.get_params()}


class KeepsStateInItsClass(NaiveForecaster):
    n_fits = 0

    def _fit(self, training, validation):
        super()._fit(training, validation)
        type(self).n_fits += 1
        self.offset_ = 1e-3 * self.n_fits

    def _forecast(self, inputs):
        return super()._forecast(inputs) + self.offset_


class TakesAnyName(NaiveForecaster):
    def set_params(self, **params):
        known = self.get_params()
        given = {name: one for name, one in params.items() if name in known}
        return super().set_params(**given)


class RollsInSilence(NaiveForecaster):
    def predict(self, X=None, *, horizon=None):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return super().predict(X, horizon=horizon)


class ScoresOneWindow(NaiveForecaster):
    def _evaluate_panel(self, panel, *, stride=1):
        yield next(super()._evaluate_panel(panel.rows(-self._context_length - 3)))


class CrossesItsQuantiles(NaiveForecaster):
    def _residual_quantile(self, level, n_rows):
        return super()._residual_quantile(1 - level, n_rows)


class LosesTheZone(NaiveForecaster):
    def _write(self, panel, forecasts, future):
        written = super()._write(panel, forecasts, future)
        if isinstance(getattr(written, "index", None), pd.DatetimeIndex):
            written = written.tz_localize(None)
        return written


class LosesAttributes(NaiveForecaster):
    def _write(self, panel, forecasts, future):
        written = super()._write(panel, forecasts, future)
        return written.drop_attrs() if hasattr(written, "drop_attrs") else written


class IgnoresTheOrderOfRows(NaiveForecaster):
    def fit(self, X, y=None, *, validation_data=None):
        X = X.sort_index() if isinstance(X, pd.DataFrame) else X
        return super().fit(X, y, validation_data=validation_data)


class CannotFit(NaiveForecaster):
    def fit(self, X, y=None, *, validation_data=None):
        raise RuntimeError("no fit today")


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
    (ChangesItsInput, "check_fit_keeps_input"),
    (ReturnsNothing, "check_fit_returns_self"),
    (NeedsNoFit, "check_predict_before_fit"),
    (RemembersForecasts, "check_predict_keeps_state"),
    (LosesItsStateInPickles, "check_pickle"),
    (LosesItsStateInPickles, "check_deepcopy"),
    (LosesItsStateInPickles, "check_joblib"),
    (KeepsStateInItsClass, "check_threads"),
    (TakesAnyName, "check_misspelt_parameter"),
    (RollsInSilence, "check_horizon_longer_rolls"),
    (ScoresOneWindow, "check_score"),
    (CrossesItsQuantiles, "check_interval_holds_forecast"),
    (LosesTheZone, "check_time_zone_and_summer_time"),
    (LosesAttributes, "check_xarray_array"),
    (LosesAttributes, "check_xarray_dataset"),
    (IgnoresTheOrderOfRows, "check_unsorted_times"),
]


@pytest.mark.parametrize(
    ("wrong", "check"),
    WRONG,
    ids=[f"{wrong.__name__}-{check}" for wrong, check in WRONG],
)
def test_battery_finds_wrong_estimators(wrong, check):
    assert check in failed_checks(wrong)


@functools.cache
def failed_checks(wrong: type[NaiveForecaster]) -> set[str]:
    results = check_estimator(wrong(lookback=4, horizon=3), raise_on_failure=False)
    return {result.name for result in results if result.status == "failed"}


def test_failures_are_raised_together():
    with pytest.raises(AssertionError, match="3 of 60 checks failed") as caught:
        check_estimator(RepairsSilently(lookback=4, horizon=3))
    assert "\n  check_missing_values: " in str(caught.value)
    assert "\n  check_infinite_values: " in str(caught.value)


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


def test_no_check_passes_for_an_estimator_that_cannot_fit():
    results = check_estimator(CannotFit(lookback=4, horizon=3), raise_on_failure=False)
    others = {one.name: one.status for one in results if one.status != "failed"}
    assert others == {
        # These do not fit at all.
        "check_predict_before_fit": "passed",
        "check_misspelt_parameter": "passed",
        "check_misspelt_constructor_argument": "passed",
        # Only registered classes are saved, and this one is not.
        "check_save_and_load": "skipped",
    }
    skipped = next(one for one in results if one.status == "skipped")
    assert skipped.reason == "only registered methods can be saved"
    broken = next(one for one in results if one.name == "check_score")
    assert "no fit today" in broken.reason
    assert isinstance(broken.exception, RuntimeError)
