"""Bad calls of the first day: each a typed error that says what, where and how to mend.

``CALLS`` is one table. Where an entry meets a fault of the reliability list, its id
carries that fault's number.
"""

import pickle
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import sparse

import sciseq
from sciseq import LinearForecaster, NaiveForecaster, SMambaForecaster
from sciseq.data import from_long, load_dataset, to_long
from sciseq.errors import (
    CapabilityError,
    CheckpointError,
    DataQualityError,
    FileFormatError,
    InputError,
    InputTypeError,
    NotFittedError,
    NumericalError,
    SciSeqError,
    SciSeqWarning,
    UnsafeFileError,
)
from sciseq.model_selection import RollingOriginSplit, forecast_scorer
from sciseq.testing.tables import frame, panel, values


def linear(**params: Any) -> LinearForecaster:
    return LinearForecaster(**{"lookback": 6, "horizon": 3, **params})


def naive(**params: Any) -> NaiveForecaster:
    return NaiveForecaster(**{"horizon": 3, **params})


def mamba(**params: Any) -> SMambaForecaster:
    small = {"lookback": 6, "horizon": 3, "d_model": 8, "n_layers": 1, "max_epochs": 1}
    return SMambaForecaster(**{**small, "random_state": 0, **params})


def fitted(**params: Any) -> LinearForecaster:
    return linear(**params).fit(frame())


def table(column: str, row: Any, value: Any) -> pd.DataFrame:
    changed = frame()
    changed.loc[changed.index[row], column] = value
    return changed


def windows(n_rows: int = 6, n_columns: int = 3) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros((5, n_rows, n_columns)), np.zeros((5, 3, n_columns))


def two_steps() -> dict[str, pd.DataFrame]:
    return {"hours": frame(), "days": frame(freq="D")}


def unlabelled_series() -> pd.DataFrame:
    rows = panel().reset_index()
    rows.loc[0, "site"] = None
    return rows.set_index(["site", "when"])


def checkpointed(folder: Any) -> None:
    mamba(checkpoint_dir=folder).fit(frame())
    mamba(checkpoint_dir=folder).fit(frame(50))


def over_existing(folder: Any) -> None:
    (folder / "notes.txt").write_text("keep me")
    fitted().save(folder)


def load_pickle(folder: Any) -> None:
    path = folder / "model.pkl"
    path.write_bytes(pickle.dumps(fitted()))
    sciseq.load(path)


def load_other(folder: Any) -> None:
    path = folder / "model"
    path.mkdir()
    (path / "readme.txt").write_text("no model")
    sciseq.load(path)


def load_damaged(folder: Any) -> None:
    fitted().save(folder / "model")
    member = next((folder / "model").glob("state-*"))
    content = bytearray(member.read_bytes())
    content[-1] ^= 1
    member.write_bytes(bytes(content))
    sciseq.load(folder / "model")


@dataclass(frozen=True)
class Call:
    """One bad call: what raises, and words that its message has to hold."""

    name: str
    run: Callable[..., Any]
    error: type[Exception]
    fragments: tuple[str, ...]
    needs_folder: bool = False


def call(
    name: str,
    run: Callable[..., Any],
    error: type[Exception],
    *fragments: str,
    needs_folder: bool = False,
) -> Call:
    return Call(name, run, error, fragments, needs_folder)


CALLS = [
    # ------------------------------------------------------------ values of the table
    call("bad_01_nan", lambda: linear().fit(table("b", 7, np.nan)),
         DataQualityError, "NaN", "'b'", "row 7", "missing="),
    call("bad_01_nan_in_predict", lambda: fitted().predict(table("c", -1, np.nan)),
         DataQualityError, "NaN", "'c'", "missing="),
    call("bad_02_infinity", lambda: linear().fit(table("a", 3, np.inf)),
         DataQualityError, "infinity", "'a'", "row 3"),
    call("bad_02_infinity_masked",
         lambda: linear(missing="mask").fit(table("a", 3, -np.inf)),
         DataQualityError, "infinity", "never repaired"),
    call("bad_03_column_all_nan",
         lambda: linear(missing="mask").fit(frame().assign(b=np.nan)),
         DataQualityError, "no value at all", "'b'", "Drop the column"),
    call("bad_05_too_short", lambda: linear().fit(frame(8)),
         InputError, "8 samples", "9 (lookback 6 + horizon 3)", "lower lookback"),
    call("bad_05_one_series_too_short",
         lambda: linear().fit({"long": frame(), "short": frame(5)}),
         InputError, "series 'short'", "5 samples"),
    call("bad_05_too_short_to_predict", lambda: fitted().predict(frame(5)),
         InputError, "5 samples", "6 (lookback)"),
    call("bad_05_validation_too_short",
         lambda: linear().fit(frame(), validation_data=frame(5)),
         InputError, "5 samples", "at least 9"),
    call("bad_06_no_rows", lambda: linear().fit(frame().iloc[:0]),
         InputError, "0 sample", "filter"),
    call("bad_06_no_columns", lambda: linear().fit(frame()[[]]),
         InputError, "0 feature", "columns that were selected"),
    call("bad_06_empty_list", lambda: linear().fit([]),
         InputError, "0 sample", "at least one table"),
    call("bad_07_duplicate_times",
         lambda: linear().fit(pd.concat([frame(), frame().iloc[-1:]])),
         DataQualityError, "duplicate", "2024-03-03", "duplicated()"),
    call("bad_08_unsorted", lambda: linear().fit(frame().iloc[::-1]),
         DataQualityError, "not sorted", "sort_index"),
    call("bad_08_missing_time",
         lambda: linear().fit(frame().set_axis([pd.NaT, *frame().index[1:]])),
         DataQualityError, "missing labels", "Drop these rows"),
    call("bad_09_gap", lambda: linear().fit(frame().drop(index=frame().index[20])),
         DataQualityError, "irregular", "2024-03-01 19:00:00", "resample"),
    call("bad_09_steps_differ", lambda: linear().fit(two_steps()),
         InputError, "'days'", "resample"),
    call("bad_09_predict_on_days", lambda: fitted().predict(frame(freq="D")),
         InputError, "D apart", "fitted with a step of h", "resample"),
    call("bad_12_text_column", lambda: linear().fit(frame().assign(b="high")),
         InputTypeError, "'b'", "encode"),
    call("bad_12_object_column",
         lambda: linear().fit(frame().assign(b=[{}] * 60)),
         InputTypeError, "'b'", "number"),
    call("bad_12_date_column", lambda: linear().fit(frame().reset_index()),
         InputTypeError, "'when'", "set_index('when')"),
    call("bad_12_boolean_column", lambda: linear().fit(frame().assign(b=True)),
         InputTypeError, "'b'", "bool", "astype(float)"),
    call("bad_12_complex", lambda: linear().fit(values() + 1j),
         InputError, "Complex data not supported", "real and imaginary"),
    call("bad_13_overflow", lambda: linear().fit(values() * 1e300),
         NumericalError, "overflow", "power of ten"),
    # ----------------------------------------------------------------------- columns
    call("bad_10_missing_column", lambda: fitted().predict(frame().drop(columns="b")),
         InputError, "missing ['b']", "any order"),
    call("bad_10_renamed_column",
         lambda: fitted().predict(frame().rename(columns={"b": "bb"})),
         InputError, "missing ['b']", "unexpected ['bb']", "Did you mean"),
    call("bad_10_extra_column", lambda: fitted().predict(frame().assign(d=0.0)),
         InputError, "unexpected ['d']"),
    call("bad_10_array_of_two", lambda: fitted().predict(values(60, 2)),
         InputError, "X has 2 features", "expecting 3 features"),
    call("bad_10_repeated_names",
         lambda: linear().fit(frame().set_axis(["a", "a", "c"], axis=1)),
         InputError, "unique", "'a'", "Rename"),
    call("bad_10_series_differ",
         lambda: linear().fit({"x": frame(), "y": frame().rename(columns={"a": "z"})}),
         InputError, "different columns", "series 'y'"),
    call("targets_unknown", lambda: linear(targets=["tempp"]).fit(
             frame().rename(columns={"a": "temp"})),
         InputError, "'tempp'", "Did you mean 'temp'"),
    call("targets_twice", lambda: linear(targets=["a", "a"]).fit(frame()),
         InputError, "targets=", "once"),
    call("targets_rolled", lambda: fitted(targets=["a"]).predict(horizon=9),
         CapabilityError, "horizon 9", "not targets", "Fit with horizon=9"),
    # ------------------------------------------------------------------------ shapes
    call("bad_11_one_dimension", lambda: linear().fit(values()[:, 0]),
         InputError, "Expected 2D array", "Reshape your data"),
    call("bad_11_four_dimensions", lambda: linear().fit(np.zeros((2, 2, 2, 2))),
         InputError, "4D", "windows"),
    call("bad_11_path", lambda: linear().fit("data.csv"),
         InputTypeError, "str", "read_csv"),
    call("bad_11_sparse", lambda: linear().fit(sparse.eye(20).tocsr()),
         InputTypeError, "Sparse", "toarray"),
    call("bad_11_three_levels",
         lambda: linear().fit(pd.concat({"x": panel()})),
         InputError, "3 levels", "Join the leading levels"),
    call("bad_11_series_without_label", lambda: linear().fit(unlabelled_series()),
         InputError, "no series label", "first level"),
    call("windows_without_y", lambda: linear().fit(windows()[0]),
         InputError, "truth", "y of shape"),
    call("windows_of_other_length", lambda: linear().fit(*windows(n_rows=7)),
         InputError, "7 rows, lookback is 6", "lookback=7"),
    call("windows_y_of_other_count",
         lambda: linear().fit(windows()[0], windows()[1][:4]),
         InputError, "5 windows, y has 4"),
    call("windows_y_two_dimensional",
         lambda: linear().fit(windows()[0], windows()[1][:, 0]),
         InputError, "(window, time, variate)", "n_targets"),
    call("windows_y_of_other_width",
         lambda: linear().fit(windows()[0], windows()[1][..., :2]),
         InputError, "2 columns for 3 targets", "targets="),
    call("windows_for_a_calendar",
         lambda: mamba().fit(frame()).predict(windows()[0]),
         InputError, "no time", "calendar=None"),
    call("windows_have_no_end",
         lambda: linear().fit(*windows()).predict(),
         InputError, "ready-made windows", "predict(X)"),
    call("xarray_scalar", lambda: linear().fit(xr.DataArray(1.0)),
         InputError, "time dimension"),
    call("xarray_other_dimensions",
         lambda: linear().fit(xr.Dataset({"a": ("time", [1.0]), "b": ("x", [1.0])})),
         InputError, "'b'", "DataArray"),
    # -------------------------------------------------------------------- parameters
    call("bad_16_misspelt_argument", lambda: LinearForecaster(lokback=6),
         TypeError, "lokback"),
    call("bad_16_misspelt_set_params", lambda: linear().set_params(lokback=6),
         InputError, "'lokback'", "Did you mean 'lookback'"),
    call("bad_17_horizon_zero", lambda: linear(horizon=0).fit(frame()),
         InputError, "horizon=0", "at least 1"),
    call("bad_17_horizon_float", lambda: fitted().predict(horizon=2.5),
         InputError, "horizon=2.5", "integer"),
    call("bad_17_lookback_text", lambda: linear(lookback="96").fit(frame()),
         InputError, "lookback='96'", "integer"),
    call("bad_17_fraction_one", lambda: linear(validation_fraction=1.0).fit(frame()),
         InputError, "validation_fraction=1.0", "[0, 1)"),
    call("bad_17_kind", lambda: linear(kind="rlinaer").fit(frame()),
         InputError, "'rlinaer'", "Did you mean 'rlinear'"),
    call("bad_17_even_kernel",
         lambda: linear(kind="dlinear", kernel_size=4).fit(frame()),
         InputError, "kernel_size=4", "odd"),
    call("bad_17_all_at_once",
         lambda: mamba(d_model=0, dropout=1.0, batch_size=-1).fit(frame()),
         InputError, "d_model=0", "dropout=1.0", "batch_size=-1"),
    call("bad_17_variates_and_scaler", lambda: mamba(variates="any").fit(frame()),
         InputError, "variates='any'", "scaler=None"),
    call("missing_choice", lambda: linear(missing="drop").fit(frame()),
         InputError, "missing='drop'", "interpolate"),
    call("device_unknown", lambda: mamba(device="gpu").fit(frame()),
         InputError, "gpu", "cpu"),
    call("device_not_here", lambda: mamba(device="cuda:7").fit(frame()),
         InputError, "cuda:7", "cpu"),
    call("precision", lambda: mamba(precision="half").fit(frame()),
         InputError, "precision='half'", "bfloat16"),
    call("random_state", lambda: mamba(random_state="abc").fit(frame()),
         InputError, "random_state='abc'", "integer"),
    call("checkpoints_without_seed",
         lambda: mamba(random_state=None, checkpoint_dir="somewhere").fit(frame()),
         InputError, "random_state=None", "checkpoint_dir"),
    call("calendar_unknown", lambda: mamba(calendar=["hours"]).fit(frame()),
         InputError, "'hours'", "Did you mean 'hour'"),
    call("calendar_without_dates", lambda: mamba(calendar=["hour"]).fit(values()),
         InputError, "need dates", "calendar=None"),
    call("season_unknown", lambda: naive(strategy="seasonal").fit(values()),
         InputError, "season", "season_length="),
    call("published_data_set", lambda: SMambaForecaster.published("ETTh3"),
         InputError, "'ETTh3'", "Did you mean"),
    call("published_horizon", lambda: SMambaForecaster.published("ETTh1", horizon=100),
         InputError, "100", "(96, 192, 336, 720)"),
    # ------------------------------------------------------------------ order of calls
    call("bad_18_predict_before_fit", lambda: linear().predict(frame()),
         NotFittedError, "not fitted", "fit"),
    call("bad_18_score_before_fit", lambda: mamba().score(frame()),
         NotFittedError, "not fitted"),
    call("quantiles_outside", lambda: fitted().predict_quantiles(quantiles=[0.5, 1.0]),
         InputError, "quantiles", "between 0 and 1"),
    call("coverage_one", lambda: fitted().predict_interval(coverage=1.0),
         InputError, "coverage=1.0", "between 0 and 1"),
    call("interval_without_rows",
         lambda: fitted(validation_fraction=0.0).predict_interval(),
         CapabilityError, "nothing was held out", "validation_data="),
    call("interval_of_longer_horizon", lambda: fitted().predict_interval(horizon=5),
         CapabilityError, "fitted columns and horizon", "horizon=5"),
    # --------------------------------------------------------- models, files, helpers
    call("bad_24_pickle", load_pickle, UnsafeFileError, "pickle", needs_folder=True),
    call("bad_25_damaged", load_damaged, CheckpointError, "state-", needs_folder=True),
    call("load_other_folder", load_other, FileFormatError, "model", needs_folder=True),
    call("bad_30_save_over_folder", over_existing, InputError, needs_folder=True),
    call("resume_other_data", checkpointed,
         CheckpointError, "other data", "checkpoint_dir", needs_folder=True),
    call("data_set_unknown", lambda: load_dataset("macrodat"),
         InputError, "macrodat", "macrodata"),
    call("long_format_columns", lambda: from_long(frame().reset_index()),
         InputError, "'unique_id'", "series="),
    call("long_format_of_a_table", lambda: to_long(frame()),
         InputError, "1 level", "two are needed"),
    call("metric_unknown", lambda: forecast_scorer("msee", context=6),
         InputError, "msee", "mse"),
    call("context_below_lookback",
         lambda: forecast_scorer("mse", context=3)(fitted(), frame()),
         InputError, "looks back on 6 rows", "Raise context"),
    call("folds_too_many",
         lambda: list(RollingOriginSplit(9, test_size=10, context=6).split(frame())),
         InputError, "60"),
]  # fmt: skip

IDS = [one.name for one in CALLS]


def error_of(one: Call, folder: Any) -> Exception:
    with pytest.raises(one.error) as caught:
        one.run(folder) if one.needs_folder else one.run()
    return caught.value


def test_there_are_enough_calls_and_no_name_twice():
    assert len(CALLS) >= 80
    assert len(set(IDS)) == len(IDS)


@pytest.mark.parametrize("one", CALLS, ids=IDS)
def test_bad_call(one, tmp_path):
    error = error_of(one, tmp_path)
    text = str(error)
    missing = [part for part in one.fragments if part not in text]
    assert not missing, f"{missing} not in: {text}"
    assert "\n" not in text
    if isinstance(error, SciSeqError):
        assert error.where, f"no place in: {text}"
        assert error.hint, f"no way to mend in: {text}"
        copied = pickle.loads(pickle.dumps(error))
        assert (str(copied), type(copied)) == (text, type(error))


@pytest.mark.parametrize("choice", ["error", "mask", "interpolate"])
def test_refused_fit_leaves_input_and_estimator(choice):
    broken = table("a", 3, np.inf)
    before = broken.copy()
    model = linear(missing=choice)
    with pytest.raises(DataQualityError):
        model.fit(broken)
    pd.testing.assert_frame_equal(broken, before)
    with pytest.raises(NotFittedError):
        model.predict()


DEFECTS: dict[str, Callable[[pd.DataFrame, int], pd.DataFrame]] = {
    "none": lambda rows, at: rows,
    "nan": lambda rows, at: rows.drop(index=rows.index[at % len(rows)]).reindex(
        rows.index
    ),
    "infinity": lambda rows, at: rows.replace(rows.iloc[at % len(rows), 0], np.inf),
    "duplicate": lambda rows, at: pd.concat([rows, rows.iloc[[at % len(rows)]]]),
    "gap": lambda rows, at: rows.drop(index=rows.index[at % len(rows)]),
    "text": lambda rows, at: rows.assign(b="x"),
    "constant": lambda rows, at: rows.assign(b=float(at)),
    "huge": lambda rows, at: rows * 10.0**at,
    "tiny": lambda rows, at: rows * 10.0**-at,
    "reversed": lambda rows, at: rows.iloc[::-1],
    "short": lambda rows, at: rows.iloc[: at % 12],
    "columns": lambda rows, at: rows.iloc[:, : at % 3],
    "zone": lambda rows, at: rows.tz_localize("UTC").tz_convert("Europe/Berlin"),
}


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    defects=st.lists(
        st.tuples(st.sampled_from(sorted(DEFECTS)), st.integers(0, 300)), max_size=3
    ),
    missing=st.sampled_from(["error", "mask", "interpolate"]),
    kind=st.sampled_from(["rlinear", "dlinear", "naive"]),
)
def test_any_defect_gives_a_forecast_or_our_own_error(defects, missing, kind):
    rows = frame(40)
    for name, at in defects:
        if len(rows) and rows.shape[1]:
            try:
                rows = DEFECTS[name](rows, at)
            except (TypeError, KeyError):  # two defects that do not go together
                return
    model = naive(missing=missing)
    if kind != "naive":
        model = linear(kind=kind, missing=missing)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SciSeqWarning)
        try:
            forecast = model.fit(rows).predict()
        except SciSeqError:
            return
    assert np.isfinite(forecast.to_numpy()).all()
