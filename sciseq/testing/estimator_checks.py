"""Checks that hold for every kind of estimator, on the samples of that kind.

The runner gives each check its samples: a check of :func:`checks_for` takes the
estimator alone.
"""

import copy
import pickle
import random
import tempfile
from collections.abc import Callable
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
from sciseq.testing.samples import Samples
from sciseq.testing.tables import quiet, refuses

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


def _fitted(estimator: Any, samples: Samples) -> Any:
    with quiet():
        return clone(estimator).fit(samples.training())


def check_clone_keeps_parameters(estimator: Any, samples: Samples) -> None:
    """A clone has the same parameters and nothing learnt."""
    copied = clone(_fitted(estimator, samples))
    assert repr(copied.get_params()) == repr(estimator.get_params())
    learnt = [name for name in vars(copied) if name.endswith("_")]
    assert not learnt, f"a clone holds {learnt}"


def check_fit_returns_self(estimator: Any, samples: Samples) -> None:
    """``fit`` returns the estimator itself."""
    with quiet():
        assert estimator.fit(samples.training()) is estimator


def check_fit_keeps_parameters(estimator: Any, samples: Samples) -> None:
    """``fit`` changes no parameter."""
    before = repr(estimator.get_params())
    with quiet():
        estimator.fit(samples.training())
    assert repr(estimator.get_params()) == before


def check_fit_keeps_input(estimator: Any, samples: Samples) -> None:
    """``fit`` and ``predict`` change neither values nor labels, and take read-only."""
    data, locked = samples.training(), samples.locked()
    before = samples.contents(data)
    with quiet():
        samples.predict(estimator.fit(data), data)
        samples.predict(clone(estimator).fit(locked), locked)
    assert samples.contents(data) == before


def check_predict_before_fit(estimator: Any, samples: Samples) -> None:
    """Prediction before ``fit`` raises scikit-learn's NotFittedError."""
    calls: list[Callable[[], Any]] = [
        lambda: samples.predict(estimator),
        lambda: estimator.score(samples.training()),
    ]
    for call in calls:
        try:
            call()
        except NotFittedError:
            continue
        raise AssertionError("no NotFittedError before fit")


def check_failed_first_fit_stays_unfitted(estimator: Any, samples: Samples) -> None:
    """After a failed first ``fit`` the estimator is not fitted."""
    with refuses():
        estimator.fit(samples.empty())
    check_predict_before_fit(estimator, samples)


def check_failed_fit_changes_nothing(estimator: Any, samples: Samples) -> None:
    """A failed second ``fit`` leaves the first one in place."""
    model = _fitted(estimator, samples)
    before = samples.predict(model)
    with refuses(samples.fault), quiet():
        model.fit(samples.broken())
    samples.same(samples.predict(model), before)


def check_fit_twice(estimator: Any, samples: Samples) -> None:
    """The same data and seed give the same bits, on a used estimator too."""
    model = _fitted(estimator, samples)
    first = samples.predict(model)
    with quiet():
        samples.same(samples.predict(model.fit(samples.training())), first)
    samples.same(samples.predict(_fitted(estimator, samples)), first)


def check_threads(estimator: Any, samples: Samples) -> None:
    """Fits in several threads at once give the bits of a fit alone."""
    alone = samples.predict(_fitted(estimator, samples))
    with ThreadPoolExecutor(2) as pool:
        for result in pool.map(_fitted, [estimator] * 4, [samples] * 4):
            samples.same(samples.predict(result), alone)


def check_global_random_state(estimator: Any, samples: Samples) -> None:
    """No call reads or moves a global random state."""
    state = repr(np.random.get_state(legacy=False))
    drawn = random.getstate()
    samples.predict(_fitted(estimator, samples))
    assert repr(np.random.get_state(legacy=False)) == state
    assert random.getstate() == drawn


def check_pickle(estimator: Any, samples: Samples) -> None:
    """A pickled model predicts the same bits."""
    model = _fitted(estimator, samples)
    copied = pickle.loads(pickle.dumps(model))
    samples.same(samples.predict(copied), samples.predict(model))


def check_deepcopy(estimator: Any, samples: Samples) -> None:
    """A deep copy predicts the same bits."""
    model, data = _fitted(estimator, samples), samples.training()
    copied = copy.deepcopy(model)
    samples.same(samples.predict(copied, data), samples.predict(model, data))


def check_joblib(estimator: Any, samples: Samples) -> None:
    """A model dumped by joblib predicts the same bits."""
    model = _fitted(estimator, samples)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.joblib"
        joblib.dump(model, path)
        samples.same(samples.predict(joblib.load(path)), samples.predict(model))


def check_save_and_load(estimator: Any, samples: Samples) -> None:
    """A saved model predicts the same bits, with and without new data."""
    from sciseq.registry import method_by_class_name

    if method_by_class_name(type(estimator).__name__) is None:
        raise SkipCheck("only registered methods can be saved")
    model, others = _fitted(estimator, samples), samples.others()
    with tempfile.TemporaryDirectory() as folder:
        for name in ("model", "model.sciseq"):
            path = Path(folder) / name
            model.save(path)
            loaded = load(path)
            samples.same(samples.predict(loaded), samples.predict(model))
            samples.same(
                samples.predict(loaded, others), samples.predict(model, others)
            )


def check_predict_keeps_state(estimator: Any, samples: Samples) -> None:
    """``predict`` changes nothing that the estimator holds."""
    model = _fitted(estimator, samples)
    before = list(vars(model))
    first = samples.predict(model)
    samples.predict(model, samples.others())
    assert list(vars(model)) == before, f"{before} became {list(vars(model))}"
    samples.same(samples.predict(model), first)


def check_misspelt_parameter(estimator: Any, samples: Samples) -> None:
    """``set_params`` refuses an unknown name and suggests the nearest."""
    name = max(estimator.get_params(deep=False), key=len)
    misspelt = name[:-2] + name[-1]
    with refuses(misspelt, f"did you mean '{name}'"):
        estimator.set_params(**{misspelt: 3})


def check_misspelt_constructor_argument(estimator: Any, samples: Samples) -> None:
    """A misspelt constructor argument stays Python's TypeError."""
    try:
        type(estimator)(no_such_parameter=3)
    except InputError as error:
        raise AssertionError("expected Python's own TypeError") from error
    except TypeError:
        return
    raise AssertionError("no TypeError for a misspelt constructor argument")


def check_html_repr(estimator: Any, samples: Samples) -> None:
    """Notebooks show the estimator with its name and parameters."""
    assert type(estimator).__name__ in estimator._repr_html_()
    assert type(estimator).__name__ in repr(_fitted(estimator, samples))
