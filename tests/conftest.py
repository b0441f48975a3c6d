"""Fixtures that several test files share."""

import contextlib
import logging
import os
import random
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import settings

# A shared machine may stall at any moment: no example fails for the time it takes.
settings.register_profile("sciseq", deadline=None)
settings.load_profile("sciseq")

# Before anything imports matplotlib: no test opens a window.
os.environ.setdefault("MPLBACKEND", "Agg")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of the real data sets; tests that need it are skipped without."""
    folder = os.environ.get("SCISEQ_DATA")
    if not folder:
        pytest.skip("SCISEQ_DATA is not set: no real data sets here")
    return Path(folder)


def daily_season(
    n_rows: int, n_variates: int, seed: int, start: str = "2026-01-05"
) -> pd.DataFrame:
    """Hourly variates: level, shifted daily sine and small noise, in own units."""
    rng = np.random.default_rng(seed)
    hour = np.arange(n_rows)[:, None]
    variate = np.arange(n_variates)[None, :]
    season = np.sin(2 * np.pi * (hour - 3 * variate) / 24)
    noise = rng.normal(scale=0.1, size=(n_rows, n_variates))
    values = 10.0 * (variate + 1) + (variate + 1) * (season + noise)
    index = pd.date_range(start, periods=n_rows, freq="h", name="time")
    columns = [f"variate_{number}" for number in range(n_variates)]
    return pd.DataFrame(values, index=index, columns=columns)


@pytest.fixture
def hourly_frame() -> pd.DataFrame:
    """Ten days of three hourly variates with a daily season, no gaps."""
    return daily_season(n_rows=240, n_variates=3, seed=0)


@pytest.fixture
def panel() -> pd.DataFrame:
    """Three series of unequal length and start, index (series, time), two variates."""
    series = {
        "north": daily_season(160, 2, seed=1),
        "south": daily_season(120, 2, seed=2, start="2026-01-06"),
        "west": daily_season(200, 2, seed=3),
    }
    return pd.concat(series, names=["series", "time"])


def global_state() -> dict[str, Any]:
    """What a library call must leave as it was."""
    root = logging.getLogger()
    _, key, position, *cached = np.random.get_state()
    state: dict[str, Any] = {
        "random": random.getstate(),
        "numpy.random": (key.tobytes(), position, cached),
        "numpy.errstate": np.geterr(),
        "working directory": Path.cwd(),
        "environment": dict(os.environ),
        "warnings.filters": list(warnings.filters),
        "logging level": (root.level, logging.root.manager.disable),
        "logging handlers": list(root.handlers),
    }
    # Taken only where it is loaded already: a fast test must not pay for the import.
    torch = sys.modules.get("torch")
    if torch is not None:
        state |= {
            "torch random": torch.get_rng_state().numpy().tobytes(),
            "torch threads": torch.get_num_threads(),
            "torch default dtype": torch.get_default_dtype(),
            "torch gradients": torch.is_grad_enabled(),
            "torch deterministic": torch.are_deterministic_algorithms_enabled(),
            "torch matmul precision": torch.get_float32_matmul_precision(),
        }
    return state


@pytest.fixture
def no_global_side_effects() -> Callable[[], AbstractContextManager[None]]:
    """A context inside which global state must not change: wrap library calls in it.

    A test may use global random states itself, so this cannot watch whole tests.
    """

    @contextlib.contextmanager
    def watch() -> Iterator[None]:
        before = global_state()
        yield
        after = global_state()
        changed = [name for name in before if before[name] != after[name]]
        if changed:
            pytest.fail(f"global state changed: {', '.join(changed)}")

    return watch
