import copy
import pickle

import joblib
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.decomposition import PCA
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.preprocessing import (
    FunctionTransformer,
    MinMaxScaler,
    PowerTransformer,
    StandardScaler,
)

from sciseq import ForecastPipeline, LinearForecaster, NaiveForecaster
from sciseq.errors import CapabilityError, InputError, InputTypeError, NotFittedError
from sciseq.model_selection import RollingOriginSplit, backtest, forecast_scorer
from sciseq.testing import check_estimator
from sciseq.testing.tables import frame, panel, values


def linear(**params):
    return LinearForecaster(
        **{"lookback": 6, "horizon": 3, "alpha": 1e-3, "scaler": None, **params}
    )


def pipeline(*steps, forecaster=None):
    named = [(f"step{number}", step) for number, step in enumerate(steps)]
    return ForecastPipeline([*named, ("forecaster", forecaster or linear())])


def affine(scale, shift):
    return FunctionTransformer(
        lambda x: x * scale + shift,
        inverse_func=lambda z: (z - shift) / scale,
        check_inverse=False,
    )


class CentredBySeries(TransformerMixin, BaseEstimator):
    """Takes away the mean of each series, found again by the label of the series."""

    def fit(self, X, y=None):
        self.means_ = X.groupby(level=0).mean()
        return self

    def _means(self, X):
        return self.means_.loc[X.index.get_level_values(0)].to_numpy()

    def transform(self, X):
        return X - self._means(X)

    def inverse_transform(self, X):
        return X + self._means(X)


class CountingScaler(StandardScaler):
    def inverse_transform(self, X, copy=None):
        self.n_undone_ = getattr(self, "n_undone_", 0) + 1
        return super().inverse_transform(X, copy)


LOG = FunctionTransformer(np.log, inverse_func=np.exp)


class TestForecast:
    def test_equals_the_steps_by_hand(self):
        model = pipeline(LOG, StandardScaler()).fit(frame() + 5)
        scaler = StandardScaler().set_output(transform="pandas")
        inner = scaler.fit_transform(np.log(frame() + 5))
        ahead = linear().fit(inner).predict()
        by_hand = np.exp(scaler.inverse_transform(ahead))
        np.testing.assert_allclose(model.predict(), by_hand, rtol=1e-12)
        # Without the last inverse the numbers are far off, so the check can fail.
        assert not np.allclose(model.predict(), scaler.inverse_transform(ahead), 0.1)

    @settings(max_examples=20, deadline=None)
    @given(
        scale=arrays(float, 3, elements=st.floats(0.01, 100)),
        shift=arrays(float, 3, elements=st.floats(-100, 100)),
    )
    def test_affine_steps_change_nothing_for_an_equivariant_forecaster(
        self, scale, shift
    ):
        naive = NaiveForecaster(strategy="seasonal", season_length=6, horizon=3)
        model = pipeline(affine(scale, shift), forecaster=naive).fit(frame())
        plain = clone(naive).fit(frame()).predict()
        np.testing.assert_allclose(model.predict(), plain, rtol=1e-7, atol=1e-7)

    @settings(max_examples=20, deadline=None)
    @given(
        scale=arrays(float, 3, elements=st.floats(0.01, 100)),
        shift=arrays(float, 3, elements=st.floats(-100, 100)),
        order=st.permutations(["a", "b", "c"]),
        targets=st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, unique=True),
    )
    def test_random_steps_targets_and_column_orders(self, scale, shift, order, targets):
        scale, shift = (
            pd.Series(one, ["a", "b", "c"])[order].to_numpy() for one in (scale, shift)
        )
        table = frame()[order]
        # A strong penalty: the forecast does not commute with the steps.
        forecaster = linear(kind="dlinear", kernel_size=3, alpha=1.0, targets=targets)
        model = pipeline(affine(scale, shift), forecaster=forecaster).fit(table)
        inner = clone(forecaster).fit(table * scale + shift).predict()
        places = [order.index(one) for one in targets]
        by_hand = (inner - shift[places]) / scale[places]
        for given_order in (order, order[::-1]):
            forecast = model.predict(frame()[given_order])
            assert list(forecast.columns) == targets
            np.testing.assert_allclose(forecast, by_hand, rtol=1e-7, atol=1e-7)

    def test_columns_are_matched_by_name(self):
        model = pipeline(StandardScaler()).fit(frame())
        shuffled = model.predict(frame()[["c", "a", "b"]])
        pd.testing.assert_frame_equal(shuffled, model.predict())
        with pytest.raises(InputError, match=r"missing \['b'\]"):
            model.predict(frame().drop(columns="b"))

    def test_targets_are_put_back_into_full_width(self):
        model = pipeline(MinMaxScaler(), forecaster=linear(targets=["c", "a"])).fit(
            frame()
        )
        scaler = MinMaxScaler().set_output(transform="pandas").fit(frame())
        inner = linear(targets=["c", "a"]).fit(scaler.transform(frame())).predict()
        low, span = frame().min(), frame().max() - frame().min()
        by_hand = inner * span[["c", "a"]] + low[["c", "a"]]
        pd.testing.assert_frame_equal(model.predict(), by_hand, check_freq=False)

    def test_mixing_steps_are_undone(self):
        model = pipeline(PCA(3)).fit(frame())
        pca = PCA(3).fit(frame().to_numpy())
        inner = linear().fit(pca.transform(frame().to_numpy())).predict()
        np.testing.assert_allclose(
            model.predict(), pca.inverse_transform(inner), rtol=1e-9
        )

    def test_horizon(self):
        model = pipeline(StandardScaler()).fit(frame())
        np.testing.assert_array_equal(model.predict(horizon=1), model.predict()[:1])
        with pytest.warns(UserWarning, match="rolling forward"):
            assert len(model.predict(horizon=7)) == 7

    def test_no_steps_at_all(self):
        model = pipeline("passthrough").fit(frame())
        pd.testing.assert_frame_equal(model.predict(), linear().fit(frame()).predict())


class TestContainers:
    def test_two_level_panel(self):
        forecast = pipeline(StandardScaler()).fit(panel()).predict()
        assert forecast.index.names == ["site", "when"]
        assert len(forecast) == 6

    def test_steps_see_the_labels_of_the_series(self):
        model = pipeline(CentredBySeries()).fit(panel())
        means = panel().groupby(level=0).mean()
        inner = linear().fit(panel() - means.reindex(panel().index, level=0)).predict()
        by_hand = inner + means.reindex(inner.index, level=0)
        pd.testing.assert_frame_equal(model.predict(), by_hand)

    def test_array(self):
        forecast = pipeline(StandardScaler()).fit(values()).predict()
        assert type(forecast) is np.ndarray
        framed = pipeline(StandardScaler()).fit(frame()).predict()
        np.testing.assert_allclose(forecast, framed, rtol=1e-12)

    def test_dataset_keeps_attributes(self):
        dataset = frame().rename_axis("time").to_xarray()
        dataset["b"].attrs["units"] = "Pa"
        forecast = pipeline(StandardScaler()).fit(dataset).predict()
        assert forecast["b"].attrs == {"units": "Pa"}

    def test_dict_of_tables(self):
        forecast = pipeline(StandardScaler()).fit({"x": frame(), "y": frame(50)})
        assert list(forecast.predict()) == ["x", "y"]

    def test_windows_are_refused(self):
        with pytest.raises(CapabilityError, match="windows"):
            pipeline(StandardScaler()).fit(np.zeros((4, 6, 2)))

    def test_future_rows(self):
        future = pipeline(StandardScaler()).fit(frame()).make_future()
        assert future.shape == (3, 3)
        assert future.index[0] == frame(61).index[-1]


class TestRefusals:
    @pytest.mark.parametrize(
        ("step", "words"),
        [
            (FunctionTransformer(np.square, check_inverse=False), "undo"),
            (
                FunctionTransformer(
                    lambda x: x - x.shift(1, fill_value=0),
                    inverse_func=lambda x: x,
                    check_inverse=False,
                ),
                "depends on other rows",
            ),
            (
                FunctionTransformer(
                    lambda x: x * np.array([1.0, 0.0, 1.0]),
                    inverse_func=lambda x: x,
                    check_inverse=False,
                ),
                "loses",
            ),
        ],
        ids=["no inverse", "mixes rows", "loses a column"],
    )
    def test_steps_that_cannot_be_undone(self, step, words):
        with pytest.raises(CapabilityError, match=words):
            pipeline(step).fit(frame())

    def test_last_step_is_no_forecaster(self):
        with pytest.raises(InputTypeError, match="no forecaster"):
            pipeline(forecaster=StandardScaler()).fit(frame())

    def test_targets_behind_a_mixing_step(self):
        with pytest.raises(CapabilityError, match="mix"):
            pipeline(PCA(3), forecaster=linear(targets=["a"])).fit(frame())

    def test_transform_input(self):
        steps = [("scale", StandardScaler()), ("forecast", linear())]
        with pytest.raises(InputError, match="transform_input"):
            ForecastPipeline(steps, transform_input=["validation_data"]).fit(frame())

    def test_before_fit(self):
        with pytest.raises(NotFittedError):
            pipeline(StandardScaler()).predict(frame())

    def test_misspelt_parameter(self):
        with pytest.raises(InputError, match="Did you mean 'forecaster'"):
            pipeline(StandardScaler()).set_params(forecastr__lookback=3)


class TestQuantiles:
    def test_pass_through_rising_steps(self):
        model = pipeline(LOG).fit(frame() + 5)
        inner = linear().fit(np.log(frame() + 5)).predict_quantiles()
        for level, forecast in model.predict_quantiles().items():
            np.testing.assert_allclose(forecast, np.exp(inner[level]), rtol=1e-9)

    def test_interval_grows_with_coverage(self):
        model = pipeline(StandardScaler()).fit(frame())
        low, high = model.predict_interval(coverage=0.9)
        inner_low, inner_high = model.predict_interval(coverage=0.5)
        assert ((low <= inner_low) & (inner_high <= high)).all(axis=None)

    def test_all_series_are_undone_at_once(self):
        counts = []
        for n_series in (2, 10):
            tables = {f"s{number}": frame(40) + number for number in range(n_series)}
            model = pipeline(CountingScaler()).fit(pd.concat(tables))
            before = model[0].n_undone_
            model.predict_quantiles()
            model.score(pd.concat(tables))
            counts.append(model[0].n_undone_ - before)
        assert counts[0] == counts[1]

    def test_refused_through_falling_steps(self):
        falling = FunctionTransformer(np.negative, inverse_func=np.negative)
        with pytest.raises(CapabilityError, match="falls"):
            pipeline(falling).fit(frame()).predict_quantiles()

    def test_refused_through_mixing_steps(self):
        with pytest.raises(CapabilityError, match="mix"):
            pipeline(PCA(3)).fit(frame()).predict_quantiles()


class TestScore:
    def test_is_in_data_units_and_batched(self):
        model = pipeline(LOG).fit(frame() + 5)
        rows = frame() + 5
        truth, forecast = [], []
        for start in range(len(rows) - 8):
            forecast.append(model.predict(rows.iloc[start : start + 6]).to_numpy())
            truth.append(rows.iloc[start + 6 : start + 9].to_numpy())
        error = ((np.array(truth) - forecast) ** 2).sum(axis=(0, 1))
        spread = ((np.array(truth) - np.mean(truth, (0, 1))) ** 2).sum(axis=(0, 1))
        assert model.score(rows) == pytest.approx(np.mean(1 - error / spread))

    def test_scorer_and_backtest_take_a_pipeline(self):
        score = forecast_scorer("mse", context=6)(
            pipeline("passthrough").fit(frame()), frame()
        )
        plain = forecast_scorer("mse", context=6)(linear().fit(frame()), frame())
        assert score == pytest.approx(plain, rel=1e-12)
        result = backtest(pipeline(StandardScaler()), frame(), test_size=12)
        assert result.n_windows == 10


class TestScikitLearn:
    def test_search_over_nested_parameters(self):
        cv = RollingOriginSplit(3, test_size=9, context=12)
        scorer = forecast_scorer("mse", context=12)
        lookbacks = [4, 8, 12]
        search = GridSearchCV(
            pipeline(StandardScaler()),
            {"forecaster__lookback": lookbacks, "step0__with_mean": [True, False]},
            cv=cv,
            scoring=scorer,
        ).fit(frame())
        by_hand = [
            cross_val_score(
                pipeline(StandardScaler(), forecaster=linear(lookback=one)),
                frame(),
                cv=cv,
                scoring=scorer,
            ).mean()
            for one in lookbacks
        ]
        best = lookbacks[int(np.argmax(by_hand))]
        assert search.best_params_["forecaster__lookback"] == best
        assert search.best_score_ == pytest.approx(max(by_hand), rel=1e-6)

    def test_clone_pickle_joblib_deepcopy(self, tmp_path):
        model = pipeline(StandardScaler(), PowerTransformer()).fit(frame())
        expected = model.predict()
        joblib.dump(model, tmp_path / "model")
        for copied in (
            pickle.loads(pickle.dumps(model)),
            copy.deepcopy(model),
            joblib.load(tmp_path / "model"),
            clone(model).fit(frame()),
        ):
            pd.testing.assert_frame_equal(copied.predict(), expected)

    def test_later_writes_into_the_table_change_nothing(self):
        table = values().copy()
        model = pipeline(StandardScaler()).fit(table)
        before = model.predict()
        table[:] = 0.0
        np.testing.assert_array_equal(model.predict(), before)

    def test_a_failed_fit_changes_nothing(self):
        model = pipeline(StandardScaler()).fit(frame())
        before, mean = model.predict(), model[0].mean_.copy()
        with pytest.raises(InputError, match="too few rows"):
            model.fit(50 * frame(7))
        np.testing.assert_array_equal(model[0].mean_, mean)
        pd.testing.assert_frame_equal(model.predict(frame()), before)

    def test_the_list_of_steps_stays_the_callers(self, tmp_path):
        steps = [("scale", StandardScaler()), ("forecast", linear())]
        given_steps = list(steps)
        ForecastPipeline(steps, memory=str(tmp_path)).fit(frame())
        assert all(one is two for one, two in zip(steps, given_steps, strict=True))

    def test_slices(self):
        model = pipeline(StandardScaler(), MinMaxScaler()).fit(frame())
        inner = model[:-1].set_output(transform="pandas").transform(frame())
        assert not hasattr(model[:-1], "horizon")
        pd.testing.assert_frame_equal(
            model[-1].predict(inner), model[-1].predict(), check_freq=False
        )

    def test_attributes_and_repr(self):
        model = pipeline(StandardScaler()).fit(frame())
        assert model.n_features_in_ == 3
        assert model.feature_names_in_.tolist() == ["a", "b", "c"]
        assert model.named_steps["forecaster"] is model[-1]
        assert "ForecastPipeline" in model._repr_html_()

    def test_set_output_and_memory(self, tmp_path):
        plain = pipeline(StandardScaler()).fit(frame()).predict()
        framed = pipeline(StandardScaler()).set_output(transform="pandas")
        pd.testing.assert_frame_equal(framed.fit(frame()).predict(), plain)
        cached = pipeline(StandardScaler()).set_params(memory=str(tmp_path))
        pd.testing.assert_frame_equal(cached.fit(frame()).predict(), plain)

    def test_validation_data_are_transformed(self):
        seen = pipeline(StandardScaler(), forecaster=linear(alpha="auto"))
        seen.fit(frame().iloc[:40], validation_data=frame().iloc[34:])
        scaler = StandardScaler().set_output(transform="pandas")
        scaler.fit(frame().iloc[:40])
        by_hand = linear(alpha="auto").fit(
            scaler.transform(frame().iloc[:40]),
            validation_data=scaler.transform(frame().iloc[34:]),
        )
        assert seen[-1].alpha_ == by_hand.alpha_
        np.testing.assert_allclose(
            seen[-1].calibration_residuals_, by_hand.calibration_residuals_, rtol=1e-5
        )


class PipelineForecaster(ForecastPipeline):
    """A pipeline with the parameters of its forecaster, for the common checks."""

    transform_input, memory, verbose = None, None, False
    steps, horizon = (), 3

    def __init__(self, *, lookback=6, horizon=3, targets=None, missing="error"):
        self.lookback, self.horizon = lookback, horizon
        self.targets, self.missing = targets, missing

    get_params = BaseEstimator.get_params

    def fit(self, X, y=None, *, validation_data=None):
        self.steps = self.steps or [("scale", StandardScaler()), ("linear", linear())]
        self[-1].set_params(**self.get_params())
        return super().fit(X, y, validation_data=validation_data)


def test_keeps_the_contract_of_forecasters():
    refused = "ready-made windows do not pass through steps"
    results = check_estimator(
        PipelineForecaster(),
        expected_failures={
            "check_constant_series": "constant_targets_ belongs to the forecaster",
            "check_windows": refused,
            "check_windows_alone_equal_together": refused,
            "check_windows_need_truth": refused,
        },
        raise_on_failure=False,
    )
    failed = {one.name: one.reason for one in results if one.status == "failed"}
    assert not failed
    assert sum(one.status == "passed" for one in results) >= 50
