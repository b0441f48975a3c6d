"""A search with Optuna, as a scikit-learn meta-estimator."""

import time
from collections.abc import Callable, Mapping
from typing import Any, Self, TypeVar, cast

import numpy as np
from sklearn.base import BaseEstimator, MetaEstimatorMixin, clone
from sklearn.utils.metaestimators import _safe_split, available_if
from sklearn.utils.validation import check_is_fitted

from sciseq.errors import InputError
from sciseq.model_selection.search_space import SearchSpace, import_optuna
from sciseq.parameters import (
    AnyOf,
    Boolean,
    Integer,
    Nothing,
    Real,
    Rule,
    check_parameters,
)
from sciseq.training import resolve_seed

__all__ = ["OptunaSearch"]

_RULES: dict[str, Rule] = {
    "n_trials": Integer(1),
    "timeout": AnyOf(Nothing(), Real(0.0, open_low=True)),
    "prune": Boolean(),
    "refit": Boolean(),
}
# Trials that run to their end before others are held against them.
TRIALS_BEFORE_PRUNING = 5


_Method = TypeVar("_Method", bound=Callable[..., Any])


def _if_found_has(name: str) -> Callable[[_Method], _Method]:
    """Give a search a method only when its estimator has it."""

    def check(search: Any) -> bool:
        getattr(getattr(search, "best_estimator_", search.estimator), name)
        return True

    return cast(Callable[[_Method], _Method], available_if(check))


class OptunaSearch(MetaEstimatorMixin, BaseEstimator):
    """Search for good parameters with Optuna, fold by fold in time.

    Each trial draws parameters, and fits and scores a clone on every fold. A trial
    that after some folds is worse than half of the others were there is given up.

    Parameters
    ----------
    estimator : forecaster or ForecastPipeline
        Never fitted itself.
    space : dict of str to object
        For each parameter a tuple ``(low, high)`` or ``(low, high, "log")`` of integers
        or floats, both ends included, a list of choices, or a distribution of Optuna.
    cv : splitter
        Such as ``RollingOriginSplit``: what it gives as a test part reaches no fit.
    scoring : callable
        ``scoring(estimator, X, y)``, greater is better: made by ``forecast_scorer``,
        with the context of ``cv``.
    n_trials : int, default=20
        Number of trials.
    timeout : float, optional
        Seconds after which no further trial begins.
    prune : bool, default=True
        Give up hopeless trials between folds.
    refit : bool, default=True
        Fit a clone with the best parameters on all rows at the end.
    random_state : int, RandomState, Generator or None, default=None
        Seeds the sampler (a tree-structured Parzen estimator). The same seed gives the
        same trials when the scores are the same and no ``timeout`` cuts them short.

    Attributes
    ----------
    best_estimator_ : estimator
        Fitted on all rows; with ``refit=True``.
    best_params_ : dict
        Parameters with the highest mean score.
    best_score_ : float
        That score.
    best_index_ : int
        Its row in ``cv_results_``.
    cv_results_ : dict of str to ndarray
        One entry per trial, as in scikit-learn's searches: ``params``,
        ``mean_test_score`` (NaN where given up), ``std_test_score``,
        ``split0_test_score`` and so on, ``rank_test_score``, ``is_pruned`` and
        ``time``, in seconds. ``pandas.DataFrame(search.cv_results_)`` is a table.
    study_ : optuna.Study
        The study, for Optuna's own analyses.
    n_splits_ : int
        Number of folds.

    Raises
    ------
    MissingDependencyError
        In fit, when Optuna is not installed.

    See Also
    --------
    RollingOriginSplit : Folds in time with rows of context.
    forecast_scorer : Scores the same rows whatever the lookback.

    Notes
    -----
    Akiba et al., Optuna: a next-generation hyperparameter optimization framework,
    KDD 2019. The score of the best of many trials is too good, because some are good by
    luck: judge the model that was found on rows that the search has not seen.

    Examples
    --------
    >>> import numpy as np
    >>> from sciseq import LinearForecaster
    >>> from sciseq.model_selection import RollingOriginSplit, forecast_scorer
    >>> X = np.sin(np.arange(200.0) / 4).reshape(-1, 1)
    >>> search = OptunaSearch(
    ...     LinearForecaster(horizon=4),
    ...     {"lookback": (2, 16), "alpha": (1e-6, 1.0, "log")},
    ...     cv=RollingOriginSplit(n_splits=2, test_size=20, context=16),
    ...     scoring=forecast_scorer("mae", context=16),
    ...     n_trials=5,
    ...     random_state=0,
    ... )
    >>> sorted(search.fit(X).best_params_)
    ['alpha', 'lookback']
    >>> search.predict().shape
    (4, 1)
    """

    def __init__(
        self,
        estimator: Any,
        space: Mapping[str, Any],
        *,
        cv: Any,
        scoring: Callable[..., float],
        n_trials: int = 20,
        timeout: float | None = None,
        prune: bool = True,
        refit: bool = True,
        random_state: int | np.random.RandomState | np.random.Generator | None = None,
    ) -> None:
        self.estimator = estimator
        self.space = space
        self.cv = cv
        self.scoring = scoring
        self.n_trials = n_trials
        self.timeout = timeout
        self.prune = prune
        self.refit = refit
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> Self:
        """Search, and fit the best on all rows.

        Parameters
        ----------
        X : DataFrame, Series, ndarray, or DataArray whose first dimension is time
            What ``cv`` can split.
        y : ndarray, optional
            Truth, for ready-made windows.

        Returns
        -------
        self

        Raises
        ------
        MissingDependencyError
            When Optuna is not installed.
        InputError
            For parameters out of range, an unknown name in ``space``, or no finished
            trial.
        """
        self._check()
        space = SearchSpace(self.space, self.estimator.get_params())
        folds = list(self.cv.split(X, y))
        study = self._make_study()
        records: list[dict[str, Any]] = []
        end = None if self.timeout is None else time.monotonic() + self.timeout
        while len(records) < self.n_trials:
            if records and end is not None and time.monotonic() >= end:
                break
            trial = study.ask(space.distributions)
            records.append(self._run(study, trial, space, X, y, folds))
        self._keep(study, records, len(folds))
        if self.refit:
            self.best_estimator_ = clone(self.estimator).set_params(**self.best_params_)
            self.best_estimator_.fit(X, y)
        return self

    def _check(self) -> None:
        given = {name: getattr(self, name) for name in _RULES}
        check_parameters(given, _RULES, owner=type(self).__name__)
        for name, method, hint in (
            ("cv", "split", "Give RollingOriginSplit(n_splits, test_size=, context=)."),
            ("scoring", "__call__", "Give forecast_scorer(metric, context=)."),
        ):
            if not hasattr(getattr(self, name), method):
                raise InputError(
                    f"{name}={getattr(self, name)!r} is not allowed",
                    where=f"parameters of {type(self).__name__}",
                    hint=hint,
                )

    def _make_study(self) -> Any:
        optuna = import_optuna()
        pruner = optuna.pruners.NopPruner()
        if self.prune:
            pruner = optuna.pruners.MedianPruner(TRIALS_BEFORE_PRUNING)
        seed = resolve_seed(self.random_state) % 2**32
        # A new study announces itself on stderr, unless told not to.
        verbosity = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        try:
            return optuna.create_study(
                direction="maximize",
                sampler=optuna.samplers.TPESampler(seed=seed),
                pruner=pruner,
            )
        finally:
            optuna.logging.set_verbosity(verbosity)

    def _run(
        self,
        study: Any,
        trial: Any,
        space: SearchSpace,
        X: Any,
        y: Any,
        folds: list[Any],
    ) -> dict[str, Any]:
        """Run one trial, and tell the study how it went."""
        states = import_optuna().trial.TrialState
        start = time.perf_counter()
        params = space.values(trial.params)
        scores: list[float] = []
        try:
            for number, (train, test) in enumerate(folds):
                scores.append(self._score(params, X, y, train, test))
                trial.report(float(np.mean(scores)), number)
                if len(scores) < len(folds) and trial.should_prune():
                    break
        except BaseException as error:
            study.tell(trial, state=states.FAIL)
            error.add_note(f"trial {trial.number}, parameters {params}")
            raise
        is_pruned = len(scores) < len(folds)
        mean = np.nan if is_pruned else float(np.mean(scores))
        if is_pruned:
            study.tell(trial, state=states.PRUNED)
        else:
            study.tell(trial, mean)
        return {
            "params": params,
            "scores": scores,
            "mean": mean,
            "is_pruned": is_pruned,
            "time": time.perf_counter() - start,
        }

    def _score(
        self, params: dict[str, Any], X: Any, y: Any, train: Any, test: Any
    ) -> float:
        model = clone(self.estimator).set_params(**params)
        model.fit(*_safe_split(model, X, y, train))
        score = float(self.scoring(model, *_safe_split(model, X, y, test, train)))
        if not np.isfinite(score):
            raise InputError(
                f"the score is {score}, must be finite",
                where="scoring",
                hint="Look at the fold: no truth may be observed in it.",
            )
        return score

    def _keep(self, study: Any, records: list[dict[str, Any]], n_splits: int) -> None:
        means = np.array([one["mean"] for one in records])
        scores = np.full((len(records), n_splits), np.nan)
        for row, one in zip(scores, records, strict=True):
            row[: len(one["scores"])] = one["scores"]
        order = np.argsort(-means, kind="stable")  # NaN last
        self.study_, self.n_splits_ = study, n_splits
        self.best_index_ = int(order[0])
        self.best_score_ = float(means[self.best_index_])
        self.best_params_ = records[self.best_index_]["params"]
        rank = 1 + np.array([(means > one).sum() for one in means])
        self.cv_results_ = {
            "params": np.array([one["params"] for one in records], dtype=object),
            "mean_test_score": means,
            "std_test_score": np.where(np.isnan(means), np.nan, scores.std(axis=1)),
            **{f"split{one}_test_score": scores[:, one] for one in range(n_splits)},
            "rank_test_score": np.where(np.isnan(means), len(means), rank),
            "is_pruned": np.array([one["is_pruned"] for one in records]),
            "time": np.array([one["time"] for one in records]),
        }

    # ------------------------------------------------------- the model that was found

    @_if_found_has("predict")
    def predict(self, X: Any = None, **options: Any) -> Any:
        """Forecast with the best model; see its ``predict``.

        Parameters
        ----------
        X : same kinds of container as in fit, optional
            By default the forecast continues the rows of fit.
        **options
            Passed on.

        Returns
        -------
        Same kind of container as X
        """
        return self._found().predict(X, **options)

    @_if_found_has("predict_quantiles")
    def predict_quantiles(self, X: Any = None, **options: Any) -> Any:
        """Forecast quantiles with the best model; see its ``predict_quantiles``.

        Parameters
        ----------
        X : same kinds of container as in fit, optional
            As in :meth:`predict`.
        **options
            Passed on.

        Returns
        -------
        dict
            A forecast for each level.
        """
        return self._found().predict_quantiles(X, **options)

    @_if_found_has("predict_interval")
    def predict_interval(self, X: Any = None, **options: Any) -> Any:
        """Forecast intervals with the best model; see its ``predict_interval``.

        Parameters
        ----------
        X : same kinds of container as in fit, optional
            As in :meth:`predict`.
        **options
            Passed on.

        Returns
        -------
        lower, upper
        """
        return self._found().predict_interval(X, **options)

    def score(self, X: Any, y: Any = None) -> float:
        """Score the best model with ``scoring``.

        Parameters
        ----------
        X : same kinds of container as in fit
            Rows of context, then rows to score.
        y : ndarray, optional
            Truth, for ready-made windows.

        Returns
        -------
        float
            Greater is better.
        """
        return float(self.scoring(self._found(), X, y))

    @property
    def n_features_in_(self) -> int:
        """Number of columns of the rows of fit."""
        if not hasattr(self, "best_estimator_"):
            raise AttributeError("n_features_in_ is known after fit with refit=True")
        return int(self.best_estimator_.n_features_in_)

    def _found(self) -> Any:
        check_is_fitted(self, "study_")
        if not hasattr(self, "best_estimator_"):
            raise InputError(
                "with refit=False no model was kept",
                where="OptunaSearch",
                hint="Fit clone(estimator).set_params(**search.best_params_) yourself.",
            )
        return self.best_estimator_
