"""OptunaSearch: scores of plain cross-validation, no leak, pruning, refusals."""

import pickle
import sys

import numpy as np
import optuna
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import cross_val_score
from sklearn.preprocessing import StandardScaler

import sciseq
from sciseq.errors import InputError, MissingDependencyError
from sciseq.model_selection import (
    OptunaSearch,
    RollingOriginSplit,
    backtest,
    forecast_scorer,
)

SPLITS = RollingOriginSplit(n_splits=3, test_size=12, context=12)
SCORING = forecast_scorer("mae", context=12)
SPACE = {"lookback": (2, 12), "alpha": (1e-4, 10.0, "log"), "kind": ["rlinear"]}


@pytest.fixture(scope="module")
def macro() -> pd.DataFrame:
    return sciseq.load_dataset("macrodata")[["infl", "unemp", "tbilrate"]]


def linear(**parameters):
    defaults = {"horizon": 4, "validation_fraction": 0.0}
    return sciseq.LinearForecaster(**defaults | parameters)


def search(estimator=None, space=None, **options):
    defaults = {"cv": SPLITS, "scoring": SCORING, "n_trials": 6, "random_state": 0}
    return OptunaSearch(
        linear() if estimator is None else estimator,
        SPACE if space is None else space,
        **defaults | options,
    )


class Spy(sciseq.NaiveForecaster):
    """Records what it is fitted on."""

    tables: list = []  # noqa: RUF012 - shared by the clones on purpose

    def fit(self, X, y=None, *, validation_data=None):
        Spy.tables.append(X)
        return super().fit(X, y, validation_data=validation_data)


# --- Scores --------------------------------------------------------------------------


def test_scores_are_those_of_cross_validation(macro) -> None:
    found = search(prune=False).fit(macro)
    table = pd.DataFrame(found.cv_results_)
    assert len(table) == 6
    assert not table["is_pruned"].any()
    for row in table.itertuples():
        scores = cross_val_score(
            linear(**row.params), macro, cv=SPLITS, scoring=SCORING
        )
        np.testing.assert_allclose(
            [row.split0_test_score, row.split1_test_score, row.split2_test_score],
            scores,
        )
        assert row.mean_test_score == pytest.approx(scores.mean())
        assert row.std_test_score == pytest.approx(scores.std())
    best = table["mean_test_score"].idxmax()
    assert found.best_index_ == best
    assert found.best_score_ == table["mean_test_score"].max()
    assert found.best_params_ == table["params"][best]
    assert table["rank_test_score"][best] == 1
    assert found.study_.best_value == found.best_score_
    assert found.n_splits_ == 3
    refitted = linear(**found.best_params_).fit(macro)
    pd.testing.assert_frame_equal(found.predict(), refitted.predict())
    assert found.score(macro) == SCORING(refitted, macro)
    assert found.n_features_in_ == 3


def test_draws_stay_in_the_space(macro) -> None:
    choices = [["infl"], ["infl", "unemp"]]
    space = {
        "lookback": (2, 12),
        "alpha": optuna.distributions.FloatDistribution(1e-3, 1e-2),
        "targets": choices,
        "individual": [True, False],
    }
    found = search(space=space, n_trials=10, refit=False).fit(macro)
    for params in found.cv_results_["params"]:
        assert type(params["lookback"]) is int
        assert 2 <= params["lookback"] <= 12
        assert 1e-3 <= params["alpha"] <= 1e-2
        assert params["targets"] in choices
    seen = {str(one["targets"]) for one in found.cv_results_["params"]}
    assert seen == {str(one) for one in choices}


def test_the_same_seed_gives_the_same_search(macro, no_global_side_effects) -> None:
    with no_global_side_effects():
        one, two, three = (
            search(random_state=seed, refit=False).fit(macro) for seed in (0, 0, 1)
        )
    assert one.best_params_ == two.best_params_
    for name in ("params", "mean_test_score"):
        np.testing.assert_array_equal(one.cv_results_[name], two.cv_results_[name])
    assert list(one.cv_results_["params"]) != list(three.cv_results_["params"])


def test_nothing_is_printed(macro, capfd) -> None:
    before = optuna.logging.get_verbosity()
    search(n_trials=2).fit(macro)
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")
    assert optuna.logging.get_verbosity() == before


# --- Leaks ---------------------------------------------------------------------------


def rows_that_leak(macro, splits):
    """Rows that are scored in some fold and reach the fit of that fold."""
    Spy.tables.clear()
    model = Spy(horizon=4)
    OptunaSearch(
        model, {"lookback": [1, 12]}, cv=splits, scoring=SCORING, n_trials=4,
        prune=False, refit=False, random_state=0,
    ).fit(macro)  # fmt: skip
    folds = list(splits.split(macro))
    assert len(Spy.tables) == 4 * len(folds)
    leaks = set()
    for number, table in enumerate(Spy.tables):
        _, test = folds[number % len(folds)]
        scored = macro.index[test[12:]]
        leaks |= set(table.index[table.index >= scored[0]])
    return leaks


class Leaky(RollingOriginSplit):
    """Wrong: the training part reaches into the rows to score."""

    def split(self, X, y=None, groups=None):
        for train, test in super().split(X, y, groups):
            yield np.append(train, train[-1] + 1), test


def test_no_row_to_score_reaches_a_fit(macro) -> None:
    assert not rows_that_leak(macro, SPLITS)
    assert rows_that_leak(macro, Leaky(n_splits=3, test_size=12, context=12))


def test_the_refit_sees_all_rows_and_the_estimator_none(macro) -> None:
    Spy.tables.clear()
    model = Spy(horizon=4)
    search(model, {"lookback": [1, 2]}, n_trials=1).fit(macro)
    pd.testing.assert_frame_equal(Spy.tables[-1], macro)
    assert not hasattr(model, "n_features_in_")


# --- Pruning and time ----------------------------------------------------------------


def test_hopeless_trials_are_given_up_between_folds(macro) -> None:
    # A huge penalty forecasts the mean of each window, which is far off.
    space = {"alpha": (1e-3, 1e6, "log"), "lookback": [12]}
    found = search(space=space, n_trials=14).fit(macro)
    table = pd.DataFrame(found.cv_results_)
    pruned = table[table["is_pruned"]]
    assert 0 < len(pruned) < 9
    assert pruned.index.min() >= 5
    assert pruned["mean_test_score"].isna().all()
    assert pruned["split2_test_score"].isna().all()
    assert (pruned["rank_test_score"] == len(table)).all()
    complete = search(space=space, n_trials=14, prune=False).fit(macro)
    assert found.best_score_ == pytest.approx(complete.best_score_, rel=0.02)
    states = [trial.state.name for trial in found.study_.trials]
    assert states.count("PRUNED") == len(pruned)


def test_no_trial_begins_after_the_timeout(macro) -> None:
    found = search(n_trials=10_000, timeout=1e-9).fit(macro)
    assert len(found.study_.trials) == 1
    assert found.predict().shape == (4, 3)


# --- As an estimator -----------------------------------------------------------------


def test_clone_pickle_and_the_searches_of_scikit_learn(macro) -> None:
    model = search(n_trials=2)
    copy = clone(model)
    assert copy.get_params()["n_trials"] == 2
    assert copy.set_params(estimator__horizon=2).estimator.horizon == 2
    fitted = pickle.loads(pickle.dumps(model.fit(macro)))
    pd.testing.assert_frame_equal(fitted.predict(), model.predict())
    # The search itself is cross-validated: its folds lie within each training part.
    nested = cross_val_score(search(n_trials=2), macro, cv=SPLITS, scoring=SCORING)
    assert np.isfinite(nested).all()


def test_a_pipeline_and_a_panel_are_searched(panel) -> None:
    pipeline = sciseq.ForecastPipeline([("scale", StandardScaler()), ("m", linear())])
    found = search(pipeline, {"m__lookback": (2, 12)}, n_trials=2).fit(panel)
    assert set(found.best_params_) == {"m__lookback"}
    assert found.predict().shape == (12, 2)
    result = backtest(found.best_estimator_, panel, test_size=20, metrics="mae")
    assert result.n_windows > 0


def test_intervals_come_from_the_best_model(macro) -> None:
    found = search(linear(validation_fraction=0.3), n_trials=2).fit(macro)
    lower, upper = found.predict_interval(coverage=0.8)
    assert (lower <= upper).all(axis=None)
    assert list(found.predict_quantiles(quantiles=[0.5])) == [0.5]


# --- Refusals ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"lookbak": (1, 2)}, "Did you mean 'lookback'"),
        ({}, "must be a dict of parameters"),
        ([("lookback", 1)], "must be a dict of parameters"),
        ({"lookback": (5, 2)}, "Low must be below high"),
        ({"alpha": (0.0, 1.0, "log")}, "above 0"),
        ({"alpha": (0.1, 1.0, "logs")}, "is not allowed"),
        ({"alpha": (0.1,)}, "is not allowed"),
        ({"kind": ("rlinear", "dlinear")}, "a list of choices"),
        ({"individual": (False, True)}, "a list of choices"),
        ({"lookback": []}, "is not allowed"),
        ({"lookback": 4}, "is not allowed"),
    ],
)
def test_spaces_that_are_refused(macro, space, message) -> None:
    with pytest.raises(InputError, match=message):
        search(space=space).fit(macro)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_trials": 0}, "n_trials=0"),
        ({"timeout": -1.0}, "timeout=-1.0"),
        ({"cv": 3}, "RollingOriginSplit"),
        ({"scoring": "mae"}, "forecast_scorer"),
    ],
)
def test_parameters_that_are_refused(macro, options, message) -> None:
    with pytest.raises(InputError, match=message):
        search(**options).fit(macro)


def test_errors_of_a_trial_name_its_parameters(macro) -> None:
    with pytest.raises(InputError, match="context is 12") as caught:
        search(space={"lookback": [13]}).fit(macro)
    assert caught.value.__notes__ == ["trial 0, parameters {'lookback': 13}"]
    gappy = macro.copy()
    gappy.iloc[-12:] = np.nan
    with pytest.raises(InputError, match="the score is nan"):
        search(linear(missing="mask")).fit(gappy)


def test_before_fit_and_without_refit(macro) -> None:
    with pytest.raises(NotFittedError):
        search().predict()
    found = search(refit=False, n_trials=1).fit(macro)
    with pytest.raises(InputError, match="refit=False"):
        found.predict()
    assert not hasattr(found, "n_features_in_")
    assert hasattr(found, "predict_interval")
    assert not hasattr(search(StandardScaler()), "predict")


def test_without_optuna_the_error_says_what_to_install(macro, monkeypatch) -> None:
    model = search()
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'sciseq\[tuning\]'"):
        model.fit(macro)
