"""Toy estimators that stand in the registry while a test runs."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from sciseq import registry
from sciseq.persistence import save
from sciseq.persistence.manifest import parse_manifest, render_manifest


class Toy:
    def __init__(self, *, horizon: Any = 3, inner: Any = None) -> None:
        self.horizon = horizon
        self.inner = inner

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        return {"horizon": self.horizon, "inner": self.inner}

    def _get_saved_state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        state = {k: v for k, v in vars(self).items() if k.endswith("_")}
        weights = state.pop("weights_", {})
        return state, weights

    def _set_saved_state(self, attributes: Any, weights: Any) -> None:
        vars(self).update(attributes)
        if weights:
            self.weights_ = dict(weights)


class Stranger(Toy):
    """Not in the registry."""


def _fitted(scale: float = 1.0) -> Toy:
    toy = Toy(horizon=5)
    toy.mean_ = scale * np.linspace(0.1, 0.7, 7)
    toy.coef_ = np.asfortranarray(scale * np.arange(6.0).reshape(2, 3))
    toy.feature_names_in_ = np.array(["north", "süd"], dtype=object)
    toy.index_ = pd.date_range(
        "2026-03-28", periods=4, freq="D", tz="Europe/Berlin", name="time"
    )
    toy.score_ = float("nan")
    toy.lags_ = (1, 2, 2**70)
    toy.weights_ = {
        "encoder.weight": (scale * np.arange(12)).reshape(3, 4).astype(np.float32),
        "encoder.bias": np.full(3, scale, dtype=np.float32),
        "steps": np.array(7),
    }
    return toy


def _same(one: Any, other: Any) -> bool:
    """Tell whether two values are equal in type, dtype and every value."""
    if type(one) is not type(other):
        return False
    if isinstance(one, Toy):
        return _same(vars(one), vars(other))
    if isinstance(one, dict):
        return list(one) == list(other) and all(_same(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, np.ndarray):
        if one.dtype != other.dtype or one.shape != other.shape:
            return False
        if one.dtype.kind == "O":
            return _same(one.tolist(), other.tolist())
        if one.flags.f_contiguous != other.flags.f_contiguous:
            return False
        return one.tobytes() == other.tobytes()
    if isinstance(one, np.generic):
        if one != one:
            return one.dtype == other.dtype and bool(other != other)
        return one.dtype == other.dtype and one.tobytes() == other.tobytes()
    if isinstance(one, pd.Index):
        frequencies = [getattr(index, "freq", None) for index in (one, other)]
        return one.identical(other) and frequencies[0] == frequencies[1]
    if one is pd.NaT:
        return True
    if isinstance(one, float):
        # Tells -0.0 from 0.0, and takes NaN as equal to itself.
        return repr(one) == repr(other)
    if isinstance(one, pd.Timestamp | pd.Timedelta):
        settings = [(v.unit, str(getattr(v, "tz", None))) for v in (one, other)]
        return one == other and settings[0] == settings[1]
    return one == other


def _edit(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change the manifest of a saved folder and give it a valid hash again."""
    path = folder / "manifest.json"
    content = parse_manifest(path.read_bytes(), "manifest")
    content = json.loads(json.dumps(content))
    change(content)
    path.write_bytes(render_manifest(content))


@pytest.fixture(autouse=True)
def toy_method(monkeypatch: pytest.MonkeyPatch) -> None:
    method = registry.Method(
        name="toy",
        target=f"{Toy.__module__}:Toy",
        title="",
        paper="",
        card="",
        data="forecasting",
    )
    monkeypatch.setattr(registry, "METHODS", (*registry.METHODS, method))


@pytest.fixture
def toy_class() -> type[Toy]:
    return Toy


@pytest.fixture
def stranger_class() -> type[Stranger]:
    return Stranger


@pytest.fixture
def fitted() -> Callable[..., Toy]:
    return _fitted


@pytest.fixture(scope="session")
def same() -> Callable[[Any, Any], bool]:
    return _same


@pytest.fixture
def edit() -> Callable[[Path, Callable[[dict[str, Any]], Any]], None]:
    return _edit


@pytest.fixture
def saved(tmp_path: Path) -> Iterator[Path]:
    """A fitted toy saved as a folder."""
    path = tmp_path / "saved"
    save(_fitted(), path)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def saved_zip(tmp_path: Path) -> Path:
    """A fitted toy saved as one file."""
    path = tmp_path / "saved.zip"
    save(_fitted(), path)
    return path
