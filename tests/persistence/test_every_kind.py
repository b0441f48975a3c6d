"""Every kind of estimator is saved whole; what cannot be saved is refused before.

Kinds come from the registry and from the public names, so that a new one is tested
without a line here.
"""

import importlib
import inspect
import json
import os
import pkgutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.tree import DecisionTreeRegressor
from tiny_kinds import NAMES, WORDS, answers, class_of, data_for, fit, fitted, unfitted

import sciseq
from sciseq import ForecastPipeline
from sciseq.errors import CapabilityError, NotFittedError
from sciseq.generation.conversion import Converted
from sciseq.model_selection import OptunaSearch, RollingOriginSplit, forecast_scorer
from sciseq.persistence import load, save
from sciseq.registry import METHODS, method_by_name, savable_estimators

LABELS = ["on", "off"] * 6


@cache
def asked(name: str) -> Any:
    return answers(fitted(name))


def contents(path: Path) -> dict[str, bytes]:
    if path.is_file():
        return {"": path.read_bytes()}
    return {item.name: item.read_bytes() for item in path.iterdir()}


@pytest.mark.parametrize("name", NAMES)
def test_every_method_comes_back_with_the_same_answers(tmp_path, name):
    model = fitted(name)
    before = repr(model)
    loaded = saved_and_loaded(model, tmp_path)
    assert type(loaded) is type(model) and repr(loaded) == before
    assert loaded.get_params().keys() == model.get_params().keys()
    assert answers(loaded) == asked(name)
    assert repr(model) == before


def saved_and_loaded(model: Any, folder: Path) -> Any:
    """Save in every way; the same model gives the same bytes, also from a file."""
    for file in ("model", "model.zip"):
        save(model, folder / file)
        first = contents(folder / file)
        save(model, folder / file, overwrite=True)
        assert contents(folder / file) == first
        save(load(folder / "model"), folder / file, overwrite=True)
        assert contents(folder / file) == first
    return load(folder / "model.zip")


@pytest.mark.parametrize("name", NAMES)
def test_every_method_is_saved_before_fit(tmp_path, name):
    model = unfitted(name)
    model.save(tmp_path / "model.zip")
    loaded = sciseq.load(tmp_path / "model.zip")
    assert repr(loaded) == repr(model)
    with pytest.raises(NotFittedError):
        answers(loaded)
    assert answers(fit(loaded)) == asked(name)


def test_a_state_that_is_lost_would_be_seen(tmp_path, monkeypatch):
    cls = class_of(method_by_name("block-diffusion"))
    original = cls._set_saved_state

    def careless(self, attributes, weights):
        kept = {k: np.nextafter(v, np.float32(9)) for k, v in weights.items()}
        original(self, attributes, kept)

    monkeypatch.setattr(cls, "_set_saved_state", careless)
    fitted("block-diffusion").save(tmp_path / "model")
    assert answers(load(tmp_path / "model")) != asked("block-diffusion")


# ------------------------------------------------------------ other states than plain


def pipeline(**params: Any) -> Any:
    steps = [
        ("scale", StandardScaler()),
        ("nothing", "passthrough"),
        ("forecast", unfitted("linear")),
    ]
    return ForecastPipeline(steps, **params)


def calibrated() -> Any:
    model = fit(unfitted("peptide-sequencer"))
    return model.calibrate(data_for(model) * 8)


def method(name: str, **params: Any) -> Any:
    return fit(unfitted(name, **params))


def cached_sampler() -> Any:
    cls = class_of(method_by_name("delayed-cache"))
    return cls.from_masked_diffusion(fitted("masked-diffusion"), refresh=2)


def sampler_around() -> Any:
    cls = class_of(method_by_name("sequential-prompt"))
    return cls.around(fitted("masked-diffusion"), keep=2)


STATES = {
    "pipeline": lambda: fit(pipeline()),
    "pipeline-of-arrays": lambda: pipeline().fit(data_for(pipeline()).to_numpy()),
    "sequencer-calibrated": calibrated,
    "forecasts-by-blocks": lambda: method(
        "generative", generator=unfitted("block-diffusion")
    ),
    "ensemble-of-networks": lambda: method(
        "ensemble",
        forecasters=[(name, unfitted(name)) for name in ("generative", "s-mamba")],
    ),
    "birdie-by-bandit": lambda: method("prefix-state-space", objectives="bandit"),
    "energy-of-autoregression": lambda: method("energy-diffusion", energy="carry_over"),
    # No sequence is empty: the first place has no end.
    "legal-tokens": lambda: method("conditional-diffusion", legal={0: list("ACGT")}),
    "chain-added": lambda: method("markov-chain", smoothing="add", strength=0.5),
    "shared-network": cached_sampler,
    "sampler-around": sampler_around,
    "device-object": lambda: method("autoregressive", device=torch.device("cpu")),
    "double-precision": lambda: method("next-block", precision="float64"),
}


@pytest.mark.parametrize("state", STATES)
def test_other_states_come_back(tmp_path, state):
    model = STATES[state]()
    expected = answers(model)
    loaded = saved_and_loaded(model, tmp_path)
    assert repr(loaded) == repr(model)
    assert answers(loaded) == expected


@pytest.mark.parametrize(
    "name",
    [one.name for one in METHODS if issubclass(class_of(one), Converted)],
)
def test_conditions_and_what_a_conversion_starts_from(tmp_path, name):
    told = fit(unfitted(name), LABELS)
    told.save(tmp_path / "told")
    assert answers(load(tmp_path / "told"), LABELS[:2]) == answers(told, LABELS[:2])

    settings = unfitted(name).get_params(deep=False)
    some = {key: settings[key] for key in ("batch_size", "random_state", "device")}
    start = type(told).from_autoregressive(
        fitted("autoregressive"), **some, max_epochs=1, learning_rate=1e-12
    )
    start.save(tmp_path / "start.zip")
    loaded = load(tmp_path / "start.zip")
    with pytest.raises(NotFittedError):
        answers(loaded)
    both = [fit(one) for one in (start, loaded)]
    weights = [one.network_.state_dict() for one in both]
    base = fitted("autoregressive").network_.state_dict()
    for key, one in weights[0].items():
        assert torch.equal(one, weights[1][key])
        # Without the start they would be new ones.
        assert torch.allclose(one, base[key], atol=1e-6)
    loaded.save(tmp_path / "fitted")
    again = load(tmp_path / "fitted")
    assert answers(again) == answers(loaded)
    assert answers(fit(again)) == answers(loaded)


# --------------------------------------------------------------------- a new process

FOREIGN = {"joblib", "lxml", "pandas", "pyteomics", "scipy", "sklearn", "statsmodels"}

# Each model is loaded in a process of its own, in which nobody asked for its class.
FRESH = """
import contextlib, importlib, json, os, sys
import numpy, pandas, torch
from sciseq.persistence import load, save
from sciseq.registry import method_by_name
import tiny_kinds

folder, names, *foreign = sys.argv[1:]
for module in foreign:  # once, and not in every process
    with contextlib.suppress(ImportError):
        importlib.import_module(module)
for name in names.split():
    child = os.fork()
    if child:
        assert os.waitpid(child, 0)[1] == 0, name
        continue
    try:
        assert method_by_name(name).module_name not in sys.modules
        model = load(f"{folder}/{name}")
        save(model, f"{folder}/{name}-again")
        with open(f"{folder}/{name}.json", "w") as file:
            json.dump(tiny_kinds.answers(model), file)
    except BaseException:
        import traceback
        traceback.print_exc()
        os._exit(1)
    os._exit(0)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
@pytest.mark.parametrize(
    "names",
    [
        pytest.param(["block-diffusion"], id="one"),
        pytest.param(NAMES, id="all", marks=pytest.mark.slow),
    ],
)
def test_methods_load_where_their_class_was_never_imported(tmp_path, names):
    for name in names:
        fitted(name).save(tmp_path / name)
    foreign = [one for one in sys.modules if one.partition(".")[0] in FOREIGN]
    done = subprocess.run(
        [sys.executable, "-c", FRESH, str(tmp_path), " ".join(names), *foreign],
        capture_output=True,
        text=True,
        check=False,
        env=environment(),
    )
    assert done.returncode == 0, done.stderr
    for name in names:
        found = json.loads((tmp_path / f"{name}.json").read_text())
        assert found == json.loads(json.dumps(asked(name))), name
        # Nor do the bytes depend on the process and its hashes.
        assert contents(tmp_path / name) == contents(tmp_path / f"{name}-again"), name


def environment() -> dict[str, str]:
    here = [str(Path(__file__).parent), str(Path(sciseq.__file__).parents[1])]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(here),
        "PYTHONHASHSEED": "7",
        "OMP_NUM_THREADS": "1",
    }


# ------------------------------------------------------------- what is not saved, why

REASONS = {
    "OptunaSearch": "holds a study of Optuna and a scorer, which is a function",
}


def public_estimators() -> dict[str, type[Any]]:
    """Every class with a fit that a package of sciseq lists as public."""
    found = {}
    for package in pkgutil.iter_modules(sciseq.__path__, "sciseq."):
        if not package.ispkg or package.name == "sciseq.cli":
            continue
        module = importlib.import_module(package.name)
        for name in getattr(module, "__all__", ()):
            one = getattr(module, name)
            if inspect.isclass(one) and issubclass(one, BaseEstimator):
                found[name] = one
    return found


def test_what_is_public_is_saved_or_has_a_reason_not_to_be():
    savable = {target.partition(":")[2] for target in savable_estimators().values()}
    public = {
        name for name, one in public_estimators().items() if not inspect.isabstract(one)
    }
    assert {"OptunaSearch", "ForecastPipeline"} <= public
    assert public - savable == set(REASONS)


def search() -> Any:
    cv = RollingOriginSplit(n_splits=2, test_size=3, context=8)
    score = forecast_scorer("mae", context=8)
    return OptunaSearch(unfitted("linear"), {"alpha": (0.1, 1)}, cv=cv, scoring=score)


def subclass() -> Any:
    return type("MarkovChain", (class_of(method_by_name("markov-chain")),), {})()


REFUSED = {
    # A scorer is a function, a study holds Optuna's own objects.
    "search": (search, "OptunaSearch", "estimator"),
    # Code of the user, of which a file could only name the place.
    "subclass": (subclass, "MarkovChain", "estimator"),
    "function": (
        lambda: ForecastPipeline(
            [
                ("log", FunctionTransformer(np.log, inverse_func=np.exp)),
                ("forecast", unfitted("linear")),
            ]
        ),
        "FunctionTransformer",
        "parameters.steps[0][1]",
    ),
    # A cache is a folder of pickles.
    "cache": (lambda: pipeline(memory="cache"), "cache", "parameters.memory"),
    # A tree is no array.
    "tree": (
        lambda: unfitted("window", regressor=DecisionTreeRegressor()),
        "DecisionTreeRegressor",
        "parameters.regressor",
    ),
    # Where a stream of random numbers stands is nothing to begin another run with.
    "stream": (
        lambda: unfitted("autoregressive", random_state=np.random.default_rng(0)),
        "Generator",
        "parameters.random_state",
    ),
    "stream-inside": (
        lambda: unfitted(
            "generative",
            generator=unfitted("autoregressive", random_state=np.random.RandomState(0)),
        ),
        "RandomState",
        "parameters.generator.parameters.random_state",
    ),
    # A network of somebody else's code; by its name or folder it can be saved.
    "network": (
        lambda: unfitted("document-summarizer", model=torch.nn.Linear(1, 1)),
        "Linear",
        "parameters.model",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_saved_is_refused_before_anything_is_written(tmp_path, what):
    make, kind, where = REFUSED[what]
    for file in ("model", "model.zip"):
        with pytest.raises(CapabilityError, match=kind) as caught:
            save(make(), tmp_path / file)
        assert caught.value.where == where
        assert caught.value.hint
    assert not list(tmp_path.iterdir())
    if what == "search":
        assert caught.value.hint.startswith("Save its best_estimator_.")


def test_a_model_that_was_saved_stays_when_the_next_is_refused(tmp_path):
    fitted("markov-chain").save(tmp_path / "model")
    before = contents(tmp_path / "model")
    with pytest.raises(CapabilityError):
        save(REFUSED["stream"][0](), tmp_path / "model", overwrite=True)
    assert contents(tmp_path / "model") == before
    assert load(tmp_path / "model").score(WORDS) < 0
