"""Small seeded tables for the checks, and helpers to compare results."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from sciseq.errors import SciSeqError, SciSeqWarning
from sciseq.testing.samples import Samples

__all__ = ["SAMPLES", "close", "frame", "panel", "quiet", "refuses", "same", "values"]

N_ROWS = 60


def values(n_rows: int = N_ROWS, n_columns: int = 3) -> npt.NDArray[np.float64]:
    """Return smooth series with a season of six rows, a trend and some noise."""
    generator = np.random.default_rng(7)
    rows = np.arange(n_rows)[:, None]
    phase = np.arange(n_columns)[None, :]
    noise = generator.normal(scale=0.1, size=(n_rows, n_columns))
    season = np.sin(2 * np.pi * rows / 6 + phase)
    return np.asarray(season + 0.02 * rows + 10.0 * phase + noise)


def frame(n_rows: int = N_ROWS, **index: Any) -> pd.DataFrame:
    """Return an hourly table with the columns a, b and c."""
    options = {"start": "2024-03-01", "freq": "h", **index}
    times = pd.date_range(periods=n_rows, name="when", **options)
    return pd.DataFrame(values(n_rows), index=times, columns=["a", "b", "c"])


def panel() -> pd.DataFrame:
    """Return two series of unequal length with a (series, time) index."""
    parts = {"north": frame(60), "south": frame(50) * 2 + 1}
    return pd.concat(parts, names=["site"])


@contextmanager
def quiet() -> Iterator[None]:
    """Ignore sciseq's own warnings where a check is not about them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SciSeqWarning)
        yield


@contextmanager
def refuses(*fragments: str) -> Iterator[None]:
    """Expect a SciSeqError whose message holds all fragments."""
    try:
        yield
    except SciSeqError as error:
        text = str(error)
        missing = [part for part in fragments if part.lower() not in text.lower()]
        if missing:
            raise AssertionError(f"message lacks {missing}: {text}") from error
        return
    raise AssertionError(f"no error was raised; expected one about {fragments}")


def same(first: Any, second: Any) -> None:
    """Expect equal values, bit for bit."""
    np.testing.assert_array_equal(np.asarray(first), np.asarray(second))


def close(first: Any, second: Any) -> None:
    """Expect values equal up to the rounding of float32 matrix products."""
    np.testing.assert_allclose(
        np.asarray(first), np.asarray(second), rtol=1e-5, atol=1e-6
    )


def _locked() -> npt.NDArray[np.float64]:
    table = values()
    table.setflags(write=False)
    return table


def _same_forecasts(first: Any, second: Any) -> None:
    same(first, second)
    assert first.index.equals(second.index)


SAMPLES = Samples(
    training=frame,
    locked=_locked,
    others=lambda: frame(40),
    empty=lambda: frame().iloc[:0],
    broken=lambda: frame().assign(a=np.inf),
    fault="inf",
    predict=lambda model, *data: model.predict(*data),
    same=_same_forecasts,
    contents=lambda table: table.to_dict("tight"),
)
"""Tables for the checks that every kind of estimator shares."""
