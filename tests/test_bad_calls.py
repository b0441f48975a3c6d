"""Bad calls of the first day: each a typed error that says what, where and how to mend.

The table of calls is ``bad_calls.py``; the documentation shows the same one.
"""

import importlib.util
import pickle
import re
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.base import clone

import sciseq
from sciseq import LinearForecaster, NaiveForecaster
from sciseq.errors import NotFittedError, SciSeqError, SciSeqWarning
from sciseq.testing.tables import frame, panel, values

ROOT = Path(__file__).parent.parent


def load_table() -> ModuleType:
    # Test folders are no packages, so the file beside this one is found by its path.
    path = Path(__file__).with_name("bad_calls.py")
    spec = importlib.util.spec_from_file_location("bad_calls", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["bad_calls"] = module
    spec.loader.exec_module(module)
    return module


TABLE = load_table()
CALLS = [call for section in TABLE.BAD_CALLS.values() for call in section]
WITH_ESTIMATOR = [call for call in CALLS if call.method]


def named(calls: list[Any]) -> Any:
    return pytest.mark.parametrize("call", calls, ids=[call.name for call in calls])


def differs(text: str, expected: str) -> str:
    """Say how a text differs from what the table expects, if it does."""
    pattern = ".*".join(map(re.escape, expected.split("…")))
    return "" if re.fullmatch(pattern, text) else f"got {text!r}, expected {expected!r}"


def model_of(call: Any) -> Any:
    model = clone(call.model)
    return model if call.method == "fit" else model.fit(call.trained())


def error_of(call: Any, act: Callable[[], Any]) -> Exception:
    with pytest.raises(call.error) as caught:
        act()
    assert type(caught.value) is call.error
    return caught.value


def error_in(call: Any, folder: Path) -> Exception:
    if not call.method:
        return error_of(call, lambda: call.run(folder))
    use = getattr(model_of(call), call.method)
    return error_of(call, lambda: use(call.given(), **call.options()))


# --- The errors ----------------------------------------------------------------------


@named(CALLS)
def test_bad_call(call, tmp_path):
    error = error_in(call, tmp_path)
    if not isinstance(error, SciSeqError):
        assert not differs(str(error), call.message), differs(str(error), call.message)
        return
    for part in ("message", "where", "hint"):
        text, expected = getattr(error, part), getattr(call, part)
        assert text and expected, f"no {part} in: {error}"
        assert not differs(text, expected), f"{part}: {differs(text, expected)}"
        assert "\n" not in text
    # A traceback of the inside, or another cause, would hide what the user did.
    assert error.__cause__ is None
    assert error.__context__ is None or error.__suppress_context__
    copied = pickle.loads(pickle.dumps(error))
    assert type(copied) is type(error) and str(copied) == str(error)
    assert (copied.message, copied.where, copied.hint) == (
        error.message,
        error.where,
        error.hint,
    )


def test_a_wrong_text_is_seen():
    assert not differs("row 7 (2024)", "row 7 (…)")
    assert differs("row 7 (2024)", "row 8 (…)")
    assert differs("row 7 (2024) and more", "row 7 (2024)")
    assert differs("row 7", "row 7 (…)")


def check_same(one: Any, two: Any) -> None:
    """Check that two containers agree in every value and label."""
    assert type(one) is type(two)
    if isinstance(one, dict):
        assert list(one) == list(two)
        check_same(list(one.values()), list(two.values()))
    elif isinstance(one, list):
        assert len(one) == len(two)
        for first, second in zip(one, two, strict=True):
            check_same(first, second)
    elif isinstance(one, pd.DataFrame):
        pd.testing.assert_frame_equal(one, two, check_freq=True)
    elif isinstance(one, pd.Index):
        pd.testing.assert_index_equal(one, two)
    elif isinstance(one, xr.DataArray | xr.Dataset | xr.Variable):
        xr.testing.assert_identical(one, two)
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, two) and one.requires_grad == two.requires_grad
    elif sparse.issparse(one):
        check_same(one.toarray(), two.toarray())
    elif isinstance(one, np.ndarray):
        np.testing.assert_array_equal(np.ma.getmaskarray(one), np.ma.getmaskarray(two))
        np.testing.assert_array_equal(np.ma.getdata(one), np.ma.getdata(two))
    else:
        assert one == two


@named(WITH_ESTIMATOR)
def test_refused_call_changes_nothing(call):
    model, given = model_of(call), call.given()
    before = None if call.method == "fit" else model.predict()
    with pytest.raises(call.error):
        getattr(model, call.method)(given, **call.options())
    check_same(given, call.given())
    if call.method != "fit":
        check_same(model.predict(), before)
        return
    assert not [name for name in vars(model) if name.endswith("_")]
    with pytest.raises(NotFittedError):
        model.predict()


def test_the_table_is_large_and_names_no_call_twice():
    names = [call.name for call in CALLS]
    assert len(names) == len(set(names)) >= 140
    assert len(WITH_ESTIMATOR) >= 110
    ours = [call for call in CALLS if issubclass(call.error, SciSeqError)]
    assert len(ours) >= len(CALLS) - 5
    # The faults of values, tables, parameters and model files, by their numbers.
    faults = {int(name[4:6]) for name in names if name.startswith("bad_")}
    assert faults >= {
        1,
        2,
        3,
        5,
        6,
        7,
        8,
        9,
        10,
        11,
        12,
        13,
        16,
        17,
        18,
        20,
        24,
        25,
        30,
    }


def test_the_documentation_shows_this_table():
    page = TABLE.PAGE.read_text(encoding="utf-8")
    assert page.count(TABLE.BEGIN) == page.count(TABLE.END) == 1
    assert page == TABLE.page(), "run: python tests/bad_calls.py"
    assert page.count("\n| ") >= len(CALLS)


# --- Legal calls ---------------------------------------------------------------------


@named(TABLE.DOUBTFUL_CALLS)
def test_doubtful_call_warns(call):
    with pytest.warns(SciSeqWarning) as caught:
        call.run()
    (only,) = [one for one in caught if issubclass(one.category, SciSeqWarning)]
    assert not differs(str(only.message), call.message)
    # The warning points to the line that made the call.
    assert Path(only.filename).name == "bad_calls.py"


GOOD: dict[str, Callable[[], Any]] = {
    "tensor": lambda: torch.tensor(values()),
    "lists": lambda: values().tolist(),
    "integers": lambda: (100 * frame()).round().astype("int16"),
    "nullable": lambda: frame().convert_dtypes(),
    "numbers_as_objects": lambda: frame().astype(object),
    "constant": lambda: frame().assign(b=1.0),
    "numbered_columns": lambda: frame().set_axis([0, 1, 2], axis=1),
    "text_labels": lambda: frame().set_axis([f"scan {row}" for row in range(60)]),
    "panel": panel,
    "dict_of_series": lambda: {"x": frame()["a"], "y": frame()["a"] + 1},
    "tiny": lambda: frame() * 1e-300,
    "large": lambda: frame() * 1e150,
}


@pytest.mark.parametrize("name", GOOD)
def test_good_call_is_not_refused(name):
    forecast = LinearForecaster(lookback=6, horizon=3).fit(GOOD[name]()).predict()
    parts = forecast.values() if isinstance(forecast, dict) else [forecast]
    for part in parts:
        assert np.isfinite(np.asarray(part, dtype=np.float64)).all()


def test_unfitted_estimator_is_saved(tmp_path):
    LinearForecaster(horizon=3).save(tmp_path / "model")
    loaded = sciseq.load(tmp_path / "model")
    assert loaded.get_params() == LinearForecaster(horizon=3).get_params()
    with pytest.raises(NotFittedError):
        loaded.predict()


# --- Any defect ----------------------------------------------------------------------


def with_cell(rows: pd.DataFrame, at: int, value: Any) -> pd.DataFrame:
    changed = rows.copy()
    if changed.size:
        changed.iloc[at % len(rows), at % rows.shape[1]] = value
    return changed


# In this order: what needs numbers comes before text.
DEFECTS: dict[str, Callable[[pd.DataFrame, int], pd.DataFrame]] = {
    "huge": lambda rows, at: rows * 10.0**at,
    "tiny": lambda rows, at: rows * 10.0**-at,
    "constant": lambda rows, at: rows.assign(b=float(at)),
    "nan": lambda rows, at: with_cell(rows, at, np.nan),
    "infinity": lambda rows, at: with_cell(rows, at, -np.inf),
    "empty_column": lambda rows, at: rows.assign(c=np.nan),
    "nullable": lambda rows, at: rows.astype("Float64"),
    "objects": lambda rows, at: with_cell(rows.astype(object), at, None),
    "text": lambda rows, at: with_cell(rows.astype(object), at, "x"),
    "columns": lambda rows, at: rows.iloc[:, : at % 3],
    "renamed": lambda rows, at: rows.rename(columns={"a": "A"}),
    "short": lambda rows, at: rows.iloc[: at % 12],
    "gap": lambda rows, at: rows.drop(index=rows.index[at % 40 : at % 40 + 1]),
    "duplicate": lambda rows, at: pd.concat([rows, rows.iloc[at % 40 : at % 40 + 1]]),
    "reversed": lambda rows, at: rows.iloc[::-1],
    "zone": lambda rows, at: rows.tz_localize("UTC").tz_convert("Europe/Berlin"),
    "no_times": lambda rows, at: rows.reset_index(drop=True),
    "time_column": lambda rows, at: rows.reset_index(),
}

FUZZED = {
    "rlinear": LinearForecaster(lookback=6, horizon=3),
    "dlinear": LinearForecaster(kind="dlinear", lookback=6, horizon=3, scaler=None),
    "last": NaiveForecaster(horizon=3),
    "seasonal": NaiveForecaster(strategy="seasonal", season_length=6, horizon=3),
}


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    chosen=st.dictionaries(
        st.sampled_from(list(DEFECTS)), st.integers(0, 300), max_size=3
    ),
    kind=st.sampled_from(list(FUZZED)),
    missing=st.sampled_from(["error", "mask", "interpolate"]),
    fits=st.booleans(),
)
@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
def test_any_defect_gives_a_forecast_or_our_own_error(chosen, kind, missing, fits):
    rows = frame(40)
    for name, defect in DEFECTS.items():
        if name in chosen:
            rows = defect(rows, chosen[name])
    model = clone(FUZZED[kind]).set_params(missing=missing)
    if not fits:
        model.fit(frame(40))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SciSeqWarning)
        try:
            forecast = model.fit(rows).predict() if fits else model.predict(rows)
        except SciSeqError:
            return
    assert len(forecast) == 3 and np.isfinite(forecast.to_numpy()).all()
