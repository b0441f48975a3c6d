"""Checks that hold for every kind of estimator, run here on small tables."""

import copy
import pickle
import random
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from sciseq.errors import InputError
from sciseq.persistence import load
from sciseq.testing.runner import SkipCheck
from sciseq.testing.tables import frame, quiet, refuses, same

__all__ = [
    "check_clone_keeps_parameters",
    "check_deepcopy",
    "check_failed_first_fit_stays_unfitted",
    "check_failed_fit_changes_nothing",
    "check_fit_keeps_input",
    "check_fit_keeps_parameters",
    "check_fit_returns_self",
    "check_fit_twice",
    "check_global_random_state",
    "check_html_repr",
    "check_joblib",
    "check_misspelt_constructor_argument",
    "check_misspelt_parameter",
    "check_pickle",
    "check_predict_before_fit",
    "check_predict_keeps_state",
    "check_save_and_load",
    "check_threads",
]


def _fitted(estimator: Any) -> Any:
    with quiet():
        return clone(estimator).fit(frame())


def check_clone_keeps_parameters(estimator: Any) -> None:
    """A clone has the same parameters and nothing learnt."""
    copied = clone(_fitted(estimator))
    assert repr(copied.get_params()) == repr(estimator.get_params())
    learnt = [name for name in vars(copied) if name.endswith("_")]
    assert not learnt, f"a clone holds {learnt}"


def check_fit_returns_self(estimator: Any) -> None:
    """``fit`` returns the estimator itself."""
    with quiet():
        assert estimator.fit(frame()) is estimator


def check_fit_keeps_parameters(estimator: Any) -> None:
    """``fit`` changes no parameter."""
    before = repr(estimator.get_params())
    with quiet():
        estimator.fit(frame())
    assert repr(estimator.get_params()) == before


def check_fit_keeps_input(estimator: Any) -> None:
    """``fit`` and ``predict`` change neither values nor labels, and take read-only."""
    table = frame()
    before = table.copy(deep=True)
    _with_read_only = table.to_numpy()
    _with_read_only.setflags(write=False)
    with quiet():
        estimator.fit(table).predict(table)
        clone(estimator).fit(_with_read_only).predict(_with_read_only)
    assert table.equals(before) and table.index.equals(before.index)


def check_predict_before_fit(estimator: Any) -> None:
    """Prediction before ``fit`` raises scikit-learn's NotFittedError."""
    for call in (estimator.predict, lambda: estimator.score(frame())):
        try:
            call()
        except NotFittedError:
            continue
        raise AssertionError("no NotFittedError before fit")


def check_failed_first_fit_stays_unfitted(estimator: Any) -> None:
    """After a failed first ``fit`` the estimator is not fitted."""
    with refuses():
        estimator.fit(frame().iloc[:0])
    check_predict_before_fit(estimator)


def check_failed_fit_changes_nothing(estimator: Any) -> None:
    """A failed second ``fit`` leaves the first one in place."""
    model = _fitted(estimator)
    before = model.predict()
    broken = frame().assign(a=np.inf)
    with refuses("inf"), quiet():
        model.fit(broken)
    same(model.predict(), before)


def check_fit_twice(estimator: Any) -> None:
    """The same data and seed give the same bits, on a used estimator too."""
    model = _fitted(estimator)
    first = model.predict()
    with quiet():
        same(model.fit(frame()).predict(), first)
    same(_fitted(estimator).predict(), first)


def check_threads(estimator: Any) -> None:
    """Fits in several threads at once give the bits of a fit alone."""
    alone = _fitted(estimator).predict()
    with ThreadPoolExecutor(2) as pool:
        for result in pool.map(_fitted, [estimator] * 4):
            same(result.predict(), alone)


def check_global_random_state(estimator: Any) -> None:
    """No call reads or moves a global random state."""
    state = repr(np.random.get_state(legacy=False))
    drawn = random.getstate()
    _fitted(estimator).predict()
    assert repr(np.random.get_state(legacy=False)) == state
    assert random.getstate() == drawn


def check_pickle(estimator: Any) -> None:
    """A pickled model predicts the same bits."""
    model = _fitted(estimator)
    same(pickle.loads(pickle.dumps(model)).predict(), model.predict())


def check_deepcopy(estimator: Any) -> None:
    """A deep copy predicts the same bits."""
    model = _fitted(estimator)
    same(copy.deepcopy(model).predict(frame()), model.predict(frame()))


def check_joblib(estimator: Any) -> None:
    """A model dumped by joblib predicts the same bits."""
    model = _fitted(estimator)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.joblib"
        joblib.dump(model, path)
        same(joblib.load(path).predict(), model.predict())


def check_save_and_load(estimator: Any) -> None:
    """A saved model predicts the same bits, with and without new data."""
    from sciseq.registry import method_by_class_name

    if method_by_class_name(type(estimator).__name__) is None:
        raise SkipCheck("only registered methods can be saved")
    model = _fitted(estimator)
    with tempfile.TemporaryDirectory() as folder:
        for name in ("model", "model.sciseq"):
            path = Path(folder) / name
            model.save(path)
            loaded = load(path)
            same(loaded.predict(), model.predict())
            same(loaded.predict(frame(40)), model.predict(frame(40)))
            assert loaded.predict().index.equals(model.predict().index)


def check_predict_keeps_state(estimator: Any) -> None:
    """``predict`` changes nothing that the estimator holds."""
    model = _fitted(estimator)
    before = list(vars(model))
    first = model.predict()
    model.predict(frame(40))
    assert list(vars(model)) == before
    same(model.predict(), first)


def check_misspelt_parameter(estimator: Any) -> None:
    """``set_params`` refuses an unknown name and suggests the nearest."""
    with refuses("horizn", "did you mean 'horizon'"):
        estimator.set_params(horizn=3)


def check_misspelt_constructor_argument(estimator: Any) -> None:
    """A misspelt constructor argument stays Python's TypeError."""
    try:
        type(estimator)(horizn=3)
    except InputError as error:
        raise AssertionError("expected Python's own TypeError") from error
    except TypeError:
        return
    raise AssertionError("no TypeError for a misspelt constructor argument")


def check_html_repr(estimator: Any) -> None:
    """Notebooks show the estimator with its name and parameters."""
    assert type(estimator).__name__ in estimator._repr_html_()
    assert type(estimator).__name__ in repr(_fitted(estimator))
