"""A tiny fitted instance of every registered kind, and all that it answers.

A class of the registry is built from settings by the names of its parameters, and
fitted on the data that its base class reads.
"""

import contextlib
import functools
import importlib
import io
import warnings
from typing import Any

import numpy as np
import pandas as pd

from sciseq.registry import METHODS, Method, method_by_name

NAMES = [method.name for method in METHODS]

# For any class that has a parameter of this name.
SETTINGS: dict[str, Any] = {
    "lookback": 8,
    "horizon": 3,
    "d_model": 16,
    "d_ff": 8,
    "n_layers": 1,
    "n_heads": 2,
    "max_epochs": 1,
    "cross_epochs": 0,
    "batch_size": 8,
    "n_peaks": 20,
    "most_residues": 12,
    "beam_size": 2,
    "n_bins": 5,
    "n_samples": 3,
    "n_steps": 2,
    "n_estimates": 2,
    "n_candidates": 2,
    "n_partition": 2,
    "max_sentences": 1,
    "random_state": 0,
    "device": "cpu",
}

WORDS = ["ACG", "ACGT", "TTGACA", "GATTA", "CCC", "AGCT"] * 2
HISTORIES = [["a", "b", "c"], ["b", "c"], ["c", "a", "b", "d"], ["d", "a", "b"]]
DOCUMENTS = [
    "The sea is calm. The sea of sand is near. Nobody knows the harbour.",
    ["Ships leave.", "Ships come back with sand.", "The harbour is calm."],
]


def frame(n_rows: int = 40) -> pd.DataFrame:
    """Hourly rows of two series."""
    rng = np.random.default_rng(0)
    time = pd.date_range("2024-03-30", periods=n_rows, freq="h", name="time")
    season = np.sin(np.arange(n_rows)[:, None] / 3 + np.arange(2))
    noise = rng.normal(scale=0.1, size=(n_rows, 2))
    return pd.DataFrame(season + noise, index=time, columns=["a", "b"])


def arrays() -> np.ndarray:
    """Tables of integers (n, 2, 3)."""
    return np.random.default_rng(0).integers(0, 3, (12, 2, 3))


def class_of(method: Method) -> type[Any]:
    return getattr(importlib.import_module(method.module_name), method.class_name)


def unfitted(name: str, **params: Any) -> Any:
    """An instance with tiny settings, also of the estimators inside it."""
    method = method_by_name(name)
    assert method is not None
    cls = class_of(method)
    known = cls().get_params(deep=False)
    chosen = {key: one for key, one in SETTINGS.items() if key in known}
    if "forecasters" in known:
        members = ("naive", "linear")
        chosen["forecasters"] = [(one, unfitted(one)) for one in members]
    if "generator" in known:
        inner = "autoregressive" if "lookback" in known else "masked-diffusion"
        chosen["generator"] = unfitted(inner)
    return cls(**{**chosen, **params})


def data_for(model: Any) -> Any:
    """Something that ``model`` can be fitted on."""
    # By names: a new process should load the class of the model, and no other.
    bases = {base.__name__ for base in type(model).__mro__}
    if bases & {"BaseForecaster", "ForecastPipeline"}:
        return frame()
    if "PeptideSequencer" in bases:
        import sciseq.testing.spectra as peaks

        return peaks.spectra()
    if "BaseRecommender" in bases:
        return HISTORIES
    if "DocumentSummarizer" in bases:
        return DOCUMENTS
    return arrays() if "AxialAutoregressor" in bases else WORDS


def fit(model: Any, y: Any = None) -> Any:
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        data = data_for(model)
        return model.fit(data) if y is None else model.fit(data, y)


@functools.cache
def fitted(name: str) -> Any:
    """The same instance for every test, which must not change it."""
    return fit(unfitted(name))


def answers(model: Any, condition: Any = None) -> dict[str, Any]:
    """Everything that a fitted model can be asked, each value by its bits."""
    data = data_for(model)
    few = data if condition is None else data[: len(condition)]
    n = 3 if condition is None else len(condition)
    more = () if condition is None else (condition,)
    questions = {
        "predict": lambda: model.predict() if is_forecaster(model) else None,
        "predict_new": lambda: model.predict(data),
        "predict_quantiles": lambda: model.predict_quantiles(quantiles=[0.2, 0.7]),
        "predict_table": lambda: model.predict_table(data),
        "sample": lambda: model.sample(n, *more, random_state=1),
        "infill": lambda: model.infill(gaps(data), *more, random_state=1),
        "score_samples": lambda: model.score_samples(few, *more),
        "score_items": lambda: model.score_items(data),
        "rank": lambda: model.rank(data, ["a"] * len(data)),
        "recommend": lambda: model.recommend(data, 2),
        "extract": lambda: model.extract(data),
        "sentence_scores": lambda: model.sentence_scores(data),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {
            name: bits(ask())
            for name, ask in questions.items()
            if callable(getattr(model, name.removesuffix("_new"), None))
        }


def is_forecaster(model: Any) -> bool:
    return hasattr(model, "predict_quantiles")


def gaps(data: Any) -> Any:
    """The first two sequences, each with a gap."""
    if isinstance(data, np.ndarray):
        holes = data[:2].copy()
        holes[:, 0, 1] = -1
        return holes
    return [one[0] + "?" + one[2:] for one in data[:2]]


def bits(value: Any) -> Any:
    """Plain JSON that is equal only for values of equal type and bits."""
    if isinstance(value, pd.DataFrame):
        labels = [str(value.index.dtype), [str(one) for one in value.index]]
        return [labels, {str(name): bits(list(value[name])) for name in value}]
    if isinstance(value, np.ndarray) and value.dtype != object:
        return [value.dtype.str, list(value.shape), value.tobytes().hex()]
    if isinstance(value, dict):
        return {str(name): bits(one) for name, one in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [type(value).__name__, [bits(one) for one in value]]
    if isinstance(value, float | np.floating):
        return [type(value).__name__, float(value).hex()]
    if isinstance(value, np.generic):
        return [type(value).__name__, str(value)]
    assert value is None or isinstance(value, bool | int | str), type(value)
    return value
