"""The bad calls of a first day, and what each of them gets: one table.

``test_bad_calls.py`` makes every call and compares the error word by word, and
``docs/errors.md`` shows the table: after a change, run this file as a script to write
the page anew. In the texts "…" stands for anything. Where an entry meets a fault of the
reliability list, its name carries that fault's number.
"""

import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import torch
import xarray as xr
from scipy import sparse

import sciseq
from sciseq import (
    LinearForecaster,
    NaiveForecaster,
    PatchTSTForecaster,
    SMambaForecaster,
)
from sciseq.data import from_long, load_dataset, long_horizon_split, to_long
from sciseq.errors import (
    CapabilityError,
    CheckpointError,
    DataQualityError,
    FileFormatError,
    InputError,
    InputTypeError,
    NotFittedError,
    NumericalError,
    UnsafeFileError,
)
from sciseq.model_selection import RollingOriginSplit, forecast_scorer
from sciseq.testing.tables import frame, panel, values


@dataclass(frozen=True)
class BadCall:
    """One bad call: what was done, how to do it, and the error word by word.

    A call of ``method`` "fit" gets ``given()`` as X; any other method is called on a
    model that was fitted on ``trained()`` before. Without a method, ``run`` is called
    with an empty folder.
    """

    name: str
    did: str
    error: type[Exception]
    where: str
    message: str
    hint: str
    method: str = ""
    model: Any = None
    given: Callable[[], Any] = lambda: None
    options: Callable[[], dict[str, Any]] = dict
    trained: Callable[[], Any] = frame
    run: Callable[[Path], Any] = field(default=lambda folder: None)


def linear(**params: Any) -> LinearForecaster:
    return LinearForecaster(**{"lookback": 6, "horizon": 3, **params})


def naive(**params: Any) -> NaiveForecaster:
    return NaiveForecaster(**{"horizon": 3, **params})


def mamba(**params: Any) -> SMambaForecaster:
    small = {"lookback": 6, "horizon": 3, "d_model": 8, "n_layers": 1, "max_epochs": 1}
    return SMambaForecaster(**{**small, "random_state": 0, **params})


def fit(
    name: str, did: str, given: Any, *error: Any, model: Any = None, also: Any = dict
) -> BadCall:
    model = linear() if model is None else model
    return BadCall(
        name, did, *error, method="fit", model=model, given=given, options=also
    )


def use(name: str, did: str, given: Any, *error: Any, **how: Any) -> BadCall:
    """Use a fitted model; ``predict`` unless ``how`` says otherwise."""
    how = {"method": "predict", "model": linear(), **how}
    return BadCall(name, did, *error, given=given, **how)


def do(name: str, did: str, run: Any, *error: Any) -> BadCall:
    return BadCall(name, did, *error, run=run)


def table(column: str, row: int, value: Any) -> pd.DataFrame:
    changed = frame().astype(object) if isinstance(value, str) else frame()
    changed.loc[changed.index[row], column] = value
    return changed


def known_ahead() -> pd.DataFrame:
    """Rows after the end in which only column b is known."""
    rows = frame(63)
    rows.loc[rows.index[60:], ["a", "c"]] = np.nan
    return rows


def windows(n_rows: int = 6, n_columns: int = 3) -> np.ndarray:
    return np.zeros((5, n_rows, n_columns))


def truth(*where: int) -> np.ndarray:
    y = np.zeros((5, 3, 3))
    y[where] = np.nan if where else 0.0
    return y


def with_index(index: Any) -> pd.DataFrame:
    return frame().set_axis(index)


def mixed_zones() -> pd.DataFrame:
    east, west = (
        [pd.Timestamp(hour * 3600, unit="s", tz=zone) for hour in range(30)]
        for zone in ("Asia/Tokyo", "Europe/Berlin")
    )
    return with_index(pd.Index([*east, *west], dtype=object))


def unlabelled_series() -> pd.DataFrame:
    rows = panel().reset_index()
    rows.loc[0, "site"] = None
    return rows.set_index(["site", "when"])


def long() -> pd.DataFrame:
    return panel().reset_index().rename(columns={"site": "unique_id", "when": "ds"})


def two_times() -> xr.DataArray:
    days = pd.date_range("2024-03-01", periods=9)
    return xr.DataArray(
        np.zeros((9, 9)), dims=["run", "valid"], coords={"run": days, "valid": days}
    )


def on_a_machine_without_gpu(model: Any) -> None:
    with mock.patch("sciseq.training.devices.available_devices", return_value=["cpu"]):
        model.fit(frame())


def resume_with_other_data(folder: Path) -> None:
    mamba(checkpoint_dir=folder).fit(frame())
    mamba(checkpoint_dir=folder).fit(frame(50))


def save_over_notes(folder: Path) -> None:
    (folder / "notes.txt").write_text("keep me")
    linear().save(folder)


def save_twice(folder: Path) -> None:
    linear().save(folder / "model")
    linear().save(folder / "model")


def load_pickle(folder: Path) -> None:
    path = folder / "model.pkl"
    path.write_bytes(pickle.dumps(linear()))
    sciseq.load(path)


def load_notes(folder: Path) -> None:
    (folder / "notes.txt").write_text("no model")
    sciseq.load(folder)


def load_damaged(folder: Path) -> None:
    linear().fit(frame()).save(folder / "model")
    member = next((folder / "model").glob("state-*"))
    content = bytearray(member.read_bytes())
    content[-1] ^= 1
    member.write_bytes(bytes(content))
    sciseq.load(folder / "model")


# Ways to mend that several calls share.
FILL = "Choose missing='mask' or missing='interpolate', or fill the gaps."
NEVER_REPAIRED = "Remove or replace them; infinite values are never repaired."
NO_VALUE = "Drop the column, or the series, or give a longer history."
ENCODE = (
    "Drop or encode the column (for example with "
    "sklearn.preprocessing.OrdinalEncoder), or use it as the index."
)
LONGER = "Give a longer history, or lower lookback or horizon."
COLUMNS = "Give exactly the columns of fit, in any order."
TABLE = (
    "Give a pandas or xarray object or a 2-D array; files are read with "
    "pandas.read_csv or the command `sciseq forecast`."
)
RESHAPE = (
    "Reshape your data using array.reshape(-1, 1) if it is one variate. A 3D array "
    "(window, time, variate) holds ready-made windows."
)
MANY = (
    "Many series are a list of tables or one table with a two-level index; columns "
    "of one table are joined with pandas.DataFrame(X)."
)
GRID = (
    "Bring them onto a grid with frame.resample(...) or frame.asfreq(...), or drop "
    "the times with frame.reset_index(drop=True)."
)
RESAMPLE = "Bring the data onto the same step with frame.resample(...)."
ONCE = (
    "Keep one row per time, for example frame[~frame.index.duplicated()] or "
    "frame.groupby(level=0).mean()."
)
PARTS = "Give real and imaginary parts as columns of their own."
NO_CALENDAR = "Fit with calendar=None, or give a table with dates as index."
EACH_ONCE = "Leave out repeated labels; targets=None forecasts every column."
LEVELS = "Give levels such as [0.1, 0.5, 0.9]."


def change(name: str) -> str:
    return f"Change with {name}(...) or set_params(...)."


BAD_CALLS: dict[str, list[BadCall]] = {
    "Values": [
        fit("bad_01_nan", "a NaN in a column", lambda: table("b", 7, np.nan),
            DataQualityError, "column 'b', row 7 (2024-03-01 07:00:00)",
            "the values contain NaN: 1 missing value", FILL),
        fit("bad_01_nan_behind_a_mask", "a masked array",
            lambda: np.ma.masked_less(values(), 0.0),
            DataQualityError,
            "column 0, row 3, row 4, row 5, row 6, row 10 and 11 more",
            "the values contain NaN: 16 missing values", FILL),
        fit("bad_01_pandas_na", "a `pandas.NA` in a nullable column",
            lambda: table("c", 9, pd.NA).astype("Float64"),
            DataQualityError, "column 'c', row 9 (2024-03-01 09:00:00)",
            "the values contain NaN: 1 missing value", FILL),
        fit("bad_01_nan_in_validation_data", "a NaN in the validation rows", frame,
            DataQualityError,
            "validation_data, column 'a', row 30 (2024-03-02 06:00:00)",
            "the values contain NaN: 1 missing value", FILL,
            also=lambda: {"validation_data": table("a", 30, np.nan)}),
        use("bad_01_nan_in_predict", "a NaN in the rows to forecast from",
            lambda: table("c", -1, np.nan),
            DataQualityError, "column 'c', row 59 (2024-03-03 11:00:00)",
            "the values contain NaN: 1 missing value", FILL),
        fit("bad_02_infinity", "an infinite value", lambda: table("a", 3, np.inf),
            DataQualityError, "column 'a', row 3 (2024-03-01 03:00:00)",
            "the values contain infinity (inf): 1 infinite value", NEVER_REPAIRED),
        fit("bad_02_infinity_masked", "an infinite value, with `missing=\"mask\"`",
            lambda: table("a", 3, -np.inf),
            DataQualityError, "column 'a', row 3 (2024-03-01 03:00:00)",
            "the values contain infinity (inf): 1 infinite value", NEVER_REPAIRED,
            model=linear(missing="mask")),
        fit("bad_03_column_all_nan", "a column without any value",
            lambda: frame().assign(b=np.nan),
            DataQualityError, "column 'b'",
            "no value at all in 60 rows: NaN throughout", NO_VALUE,
            model=linear(missing="mask")),
        fit("bad_03_series_all_nan", "a series of a panel without any value",
            lambda: {"north": frame(), "south": frame() * np.nan},
            DataQualityError, "series 'south', column 'a'",
            "no value at all in 60 rows: NaN throughout", NO_VALUE,
            model=linear(missing="interpolate")),
        fit("bad_12_text_column", "a column of text",
            lambda: frame().assign(b="high"),
            InputTypeError, "X, column 'b', row 0",
            "column 'b' holds 'high' (str): the argument must be a number, or a "
            "string that reads as a number", ENCODE),
        fit("bad_12_text_cell", "one cell of text",
            lambda: table("b", 7, "n/a"),
            InputTypeError, "X, column 'b', row 7",
            "column 'b' holds 'n/a' (str): the argument must be a number, or a "
            "string that reads as a number", ENCODE),
        fit("bad_12_categories", "a column of categories",
            lambda: frame().assign(b=pd.Categorical(["low", "high"] * 30)),
            InputTypeError, "X, column 'b', row 0",
            "column 'b' holds 'low' (str): the argument must be a number, or a "
            "string that reads as a number", ENCODE),
        fit("bad_12_objects", "a column of Python objects",
            lambda: frame().assign(b=[{}] * 60),
            InputTypeError, "X, column 'b', row 0",
            "column 'b' holds {} (dict): the argument must be a number, or a string "
            "that reads as a number", ENCODE),
        fit("bad_12_date_column", "times left as a column",
            lambda: frame().reset_index(),
            InputTypeError, "X, column 'when'",
            "column 'when' holds datetime64[…] values, numbers are needed",
            "Use it as the index: frame.set_index('when')."),
        fit("bad_12_duration_column", "a column of durations",
            lambda: frame().assign(b=pd.Timedelta("1h")),
            InputTypeError, "X, column 'b'",
            "column 'b' holds timedelta64[…] values, numbers are needed",
            "Give seconds: frame['b'].dt.total_seconds()."),
        fit("bad_12_long_format", "the long format, one row per series and time",
            long,
            InputTypeError, "X, column 'unique_id', row 0",
            "column 'unique_id' holds 'north' (str): the argument must be a number, "
            "or a string that reads as a number",
            "Drop or encode the column (for example with "
            "sklearn.preprocessing.OrdinalEncoder), or use it as the index. A table "
            "with one row per series and time is turned with sciseq.data.from_long."),
        fit("bad_12_boolean_column", "a column of True and False",
            lambda: frame().assign(b=frame()["b"] > 10),
            InputTypeError, "X, column 'b'",
            "column 'b' holds bool values, numbers are needed",
            "Drop it, encode it as numbers, or convert with .astype(float)."),
        fit("bad_12_boolean_array", "an array of True and False",
            lambda: values() > 10,
            InputTypeError, "X",
            "values are booleans, numbers are needed",
            "Convert with .astype(float)."),
        fit("bad_12_complex_column", "a column of complex numbers",
            lambda: frame().assign(b=1j),
            InputError, "X, column 'b'",
            "Complex data not supported: values must be real numbers", PARTS),
        fit("bad_12_complex_array", "an array of complex numbers",
            lambda: values() + 1j,
            InputError, "X",
            "Complex data not supported: values must be real numbers", PARTS),
        fit("bad_12_text_array", "an array of text",
            lambda: values().round(1).astype(str),
            InputTypeError, "X",
            "values are text (first '0.0'), numbers are needed",
            "Convert with .astype(float)."),
        fit("bad_12_date_array", "an array of dates",
            lambda: np.zeros((60, 2), dtype="datetime64[s]"),
            InputTypeError, "X",
            "values are of type datetime64[s], numbers are needed",
            "Give times as the index of a pandas table."),
        fit("bad_13_overflow", "values near the end of float64",
            lambda: frame() * 1e300,
            NumericalError, "scaler, column 0",
            "the spread of a column overflows float64",
            "Divide the column by a power of ten before fitting."),
        fit("bad_13_overflow_unscaled", "the same without a scaler",
            lambda: frame() * 1e160,
            NumericalError, "LinearForecaster.fit",
            "sums of squares over the windows overflow float64",
            "Set scaler='standard', or give the values in larger units.",
            model=linear(scaler=None)),
        fit("bad_20_loss", "a learning rate far too large", frame,
            NumericalError, "epoch 1, learning rate 1e+30",
            "the training loss became nan in step …, on items …",
            "Look for extreme values in these items, or lower learning_rate.",
            model=mamba(learning_rate=1e30, max_epochs=2)),
    ],
    "Times": [
        fit("bad_07_duplicate_times", "the same time twice",
            lambda: pd.concat([frame(), frame().iloc[-1:]]),
            DataQualityError, "2024-03-03 11:00:00",
            "the index has duplicate labels: 1 appear more than once", ONCE),
        fit("bad_07_long_format_twice", "a long table with its rows twice",
            lambda: from_long(pd.concat([long(), long()])),
            DataQualityError,
            "series 'north', 2024-03-01 00:00:00, 2024-03-01 01:00:00, 2024-03-01 "
            "02:00:00, 2024-03-01 03:00:00, 2024-03-01 04:00:00",
            "the index has duplicate labels: 60 appear more than once", ONCE),
        fit("bad_08_unsorted", "the newest row first", lambda: frame().iloc[::-1],
            DataQualityError,
            "row 1 (2024-03-03 10:00:00) comes after 2024-03-03 11:00:00",
            "the rows are not sorted in time",
            "Sort with frame.sort_index()."),
        fit("bad_08_mixed_zones", "times of two zones", mixed_zones,
            DataQualityError, "X.index",
            "the index mixes the time zones ['Asia/Tokyo', 'Europe/Berlin']",
            "Bring all times into one zone: frame.index = "
            "pandas.to_datetime(frame.index, utc=True)."),
        fit("bad_08_missing_time", "a row without a time",
            lambda: with_index([*frame().index[:-1], pd.NaT]),
            DataQualityError, "rows [59]",
            "the index has 1 missing labels",
            "Drop these rows or give them a time."),
        fit("bad_09_gap", "one row left out",
            lambda: frame().drop(index=frame().index[20]),
            DataQualityError, "2024-03-01 19:00:00 to 2024-03-01 21:00:00",
            "the rows are irregular in time: 1 of 58 steps differ from the usual "
            "step (0 days 01:00:00)", GRID),
        fit("bad_09_gap_in_numbers", "one row left out, numbered rows",
            lambda: with_index(range(60)).drop(index=1),
            DataQualityError, "0 to 2",
            "the rows are irregular in time: 1 of 58 steps differ from the usual "
            "step (1)", GRID),
        fit("bad_09_jitter", "times that are not exactly on a grid",
            lambda: with_index(frame().index + pd.to_timedelta([0, 9] * 30, "s")),
            DataQualityError,
            "2024-03-01 01:00:09 to 2024-03-01 02:00:00; 2024-03-01 03:00:09 to "
            "2024-03-01 04:00:00; 2024-03-01 05:00:09 to 2024-03-01 06:00:00",
            "the rows are irregular in time: 29 of 59 steps differ from the usual "
            "step (0 days 01:00:09)", GRID),
        use("bad_09_other_step", "fitted on hours, asked for days",
            lambda: frame(freq="D"),
            InputError, "index",
            "the rows are D apart, the model was fitted with a step of h", RESAMPLE),
        fit("bad_09_validation_step", "validation rows with another step", frame,
            InputError, "validation_data, index",
            "the rows are 2h apart, the model was fitted with a step of h", RESAMPLE,
            also=lambda: {"validation_data": frame().iloc[::2]}),
        use("bad_09_one_row", "a single row, with no step to continue",
            lambda: frame().iloc[-1:].reset_index(drop=True).set_axis([3.5]),
            InputError, "index ending at 3.5",
            "one row does not tell the step between rows",
            "Give at least two rows, or set index.freq.",
            model=naive(), trained=values),
        use("calendar_for_an_array", "a model with calendar features, and an array",
            values,
            InputError, "X",
            "the model uses calendar features and this X carries no time", NO_CALENDAR,
            model=mamba()),
        fit("calendar_without_dates", "calendar features asked for, rows numbered",
            lambda: frame().reset_index(drop=True),
            InputError, "calendar",
            "calendar features need dates, and these rows carry none (RangeIndex)",
            "Fit with calendar=None, or give a table with a DatetimeIndex.",
            model=mamba(calendar=["hour"])),
        fit("season_unknown", "a season asked for, no dates to tell it from",
            values,
            InputError, "season_length",
            "the season cannot be told from the index",
            "Give season_length=, the number of rows of one season.",
            model=naive(strategy="seasonal")),
    ],
    "Rows and columns": [
        fit("bad_05_too_short", "fewer rows than one window needs",
            lambda: frame(8),
            InputError, "X",
            "too few rows: 8 samples (rows); at least 9 (lookback 6 + horizon 3) are "
            "needed", LONGER),
        use("bad_05_too_short_to_predict", "fewer rows than the lookback",
            lambda: frame(5),
            InputError, "X",
            "too few rows: 5 samples (rows); at least 6 (lookback) are needed", LONGER),
        use("bad_05_too_short_to_score", "no truth behind the context",
            lambda: frame(6),
            InputError, "X",
            "too few rows: 6 samples (rows); at least 9 (lookback 6 + horizon 3) are "
            "needed", LONGER,
            method="score"),
        fit("bad_05_validation_too_short", "too few validation rows", frame,
            InputError, "validation_data, X",
            "too few rows: 5 samples (rows); at least 9 (lookback 6 + horizon 3) are "
            "needed", LONGER,
            also=lambda: {"validation_data": frame(5)}),
        fit("bad_06_no_rows", "a filter that left no rows",
            lambda: frame().iloc[:0],
            InputError, "X",
            "Found array with 0 sample(s) (shape=(0, 3)) while a minimum of 1 is "
            "required",
            "Check the filter that made this table."),
        fit("bad_06_no_columns", "a selection that left no columns",
            lambda: frame()[[]],
            InputError, "X",
            "Found array with 0 feature(s) (shape=(60, 0)) while a minimum of 1 is "
            "required",
            "Check the columns that were selected."),
        use("bad_10_missing_column", "a column forgotten",
            lambda: frame().drop(columns="b"),
            InputError, "X.columns",
            "the columns differ from those of fit: missing ['b'], unexpected []",
            COLUMNS),
        use("bad_10_renamed_column", "a column renamed",
            lambda: frame().rename(columns={"b": "B"}),
            InputError, "X.columns",
            "the columns differ from those of fit: missing ['b'], unexpected ['B']",
            "Did you mean 'B'? Give exactly the columns of fit, in any order."),
        use("bad_10_extra_column", "a column too many",
            lambda: frame().assign(d=0.0),
            InputError, "X.columns",
            "the columns differ from those of fit: missing [], unexpected ['d']",
            COLUMNS),
        use("bad_10_array_of_two", "an array with too few columns",
            lambda: values(60, 2),
            InputError, "X.columns",
            "X has 2 features, but LinearForecaster is expecting 3 features as input",
            "Give the same columns as in fit."),
        use("bad_10_columns_to_score", "scoring on some of the columns",
            lambda: frame()[["a"]],
            InputError, "X.columns",
            "the columns differ from those of fit: missing ['b', 'c'], unexpected []",
            COLUMNS,
            method="score"),
        fit("bad_10_repeated_names", "two columns of one name",
            lambda: frame().set_axis(["a", "b", "a"], axis=1),
            InputError, "X.columns",
            "column names must be unique, ['a'] appear more than once",
            "Rename them; columns are matched by name."),
        fit("bad_10_validation_columns", "validation rows with other columns",
            frame,
            InputError, "validation_data, X.columns",
            "the columns differ from those of fit: missing ['c'], unexpected []",
            COLUMNS,
            also=lambda: {"validation_data": frame()[["a", "b"]]}),
        fit("targets_unknown", "a target misspelt",
            lambda: frame().rename(columns={"a": "temperature"}),
            InputError, "targets",
            "target 'temprature' is not a column, the table has ['temperature', 'b', "
            "'c']",
            "Did you mean 'temperature'?",
            model=linear(targets=["temprature"])),
        fit("targets_by_position", "a target beyond the last column of an array",
            values,
            InputError, "targets",
            "target 3 is not a column, the table has [0, 1, 2]",
            "Columns are matched by name, or by position from 0 in arrays.",
            model=linear(targets=[3])),
        fit("targets_twice", "a target named twice", frame,
            InputError, "targets",
            "targets=['a', 'a'] is not allowed: must name at least one column, each "
            "once", EACH_ONCE,
            model=linear(targets=["a", "a"])),
        fit("targets_none", "an empty list of targets", frame,
            InputError, "targets",
            "targets=[] leaves no column to forecast: at least one column is needed, "
            "each once",
            "Leave out repeated labels; targets=None forecasts every column without "
            "another role.",
            model=linear(targets=[])),
    ],
    "Covariates and weights": [
        fit("role_unknown", "a covariate misspelt",
            lambda: frame().rename(columns={"a": "temperature"}),
            InputError, "future_covariates",
            "future_covariates name 'temprature' is not a column, the table has "
            "['temperature', 'b', 'c']",
            "Did you mean 'temperature'?",
            model=mamba(future_covariates="temprature")),
        fit("role_twice", "a column of two roles", frame,
            InputError, "static_covariates",
            "column 'a' has two roles: targets and static_covariates",
            "Give each column one role; past values of a future covariate are used "
            "without naming it twice.",
            model=mamba(targets="a", static_covariates="a")),
        fit("role_not_usable", "future covariates for a method that has no use for any",
            frame,
            CapabilityError, "future_covariates",
            "PatchTSTForecaster cannot use future covariates",
            "Leave out future_covariates, or take a method that uses them: see the "
            "table of methods in the documentation.",
            model=PatchTSTForecaster(
                lookback=6, horizon=3, targets="a", future_covariates="b"
            )),
        fit("static_changes", "a static covariate that changes in time", frame,
            DataQualityError, "column 'c', row 1 (2024-03-01 01:00:00)",
            "a static covariate is missing or changes: …, then …",
            "Fill it in, or name the column in past_covariates instead.",
            model=mamba(targets="a", static_covariates="c")),
        fit("weight_negative", "a negative weight",
            lambda: frame().assign(c=-1.0),
            DataQualityError, "column 'c', row 0 (2024-03-01 00:00:00)",
            "a weight is -1.0, must be at least 0",
            "Give every row a weight; 0 leaves it out of the loss.",
            model=mamba(sample_weight="c")),
        fit("weights_all_zero", "weights that are all zero",
            lambda: frame().assign(c=0.0),
            DataQualityError, "sample_weight",
            "every weight is 0",
            "Give the rows to learn from a weight above 0.",
            model=mamba(sample_weight="c")),
        use("future_unknown", "no rows with the future covariates", frame,
            InputError, "X",
            "future covariates are known for 0 rows after the last observed target, 3 "
            "are needed",
            "Append make_future() with their values filled in: "
            "pandas.concat([X, future]).",
            model=mamba(targets="a", future_covariates="b"), trained=known_ahead),
        fit("holiday_unknown", "holidays of a country that there is not", frame,
            InputError, "calendar",
            "no holidays are known for 'XX': Country XX not available",
            "Give an ISO code such as 'holiday:DE' or 'holiday:US-CA'.",
            model=mamba(calendar=["holiday:XX"])),
        fit("quantiles_without_median", "quantiles without the median", frame,
            InputError, "parameters of SMambaForecaster",
            "quantiles=(0.1, 0.9) must hold 0.5, which predict returns",
            "Change with SMambaForecaster(...) or set_params(...).",
            model=mamba(loss="quantile", quantiles=(0.1, 0.9))),
        use("quantile_not_trained", "a quantile that the network was not trained for",
            lambda: None,
            CapabilityError, "quantiles",
            "the network was trained for the quantiles [0.1, 0.5, 0.9], 0.3 is not "
            "among them",
            "Fit with quantiles=[0.1, 0.3, 0.5, 0.9].",
            method="predict_quantiles",
            options=lambda: {"quantiles": [0.3]},
            model=mamba(loss="quantile", quantiles=(0.1, 0.5, 0.9))),
    ],
    "Containers": [
        fit("bad_11_path", "the name of a file", lambda: "data.csv",
            InputTypeError, "X",
            "a table was expected, got str", TABLE),
        fit("bad_11_number", "a single number", lambda: 3.0,
            InputTypeError, "X",
            "a table was expected, got float", TABLE),
        fit("bad_11_set", "a set", lambda: {1.0, 2.0},
            InputTypeError, "X",
            "a table was expected, got set", TABLE),
        fit("bad_11_zero_dimensions", "a 0-D array", lambda: np.array(3.0),
            InputError, "X",
            "Expected 2D array with axes (time, variate), got 0D array of shape ()",
            RESHAPE),
        fit("bad_11_one_dimension", "a 1-D array", lambda: values()[:, 0],
            InputError, "X",
            "Expected 2D array with axes (time, variate), got 1D array of shape (60,)",
            RESHAPE),
        fit("bad_11_four_dimensions", "a 4-D array",
            lambda: np.zeros((2, 2, 2, 2)),
            InputError, "X",
            "Expected 2D array with axes (time, variate), got 4D array of shape (2, "
            "2, 2, 2)", RESHAPE),
        fit("bad_11_ragged", "rows of unequal length", lambda: [[1.0, 2.0], [3.0]],
            InputTypeError, "X",
            "list cannot be read as an array of numbers: …",
            "All rows of a table need the same number of values; many series are a "
            "list of 2-D arrays."),
        fit("bad_11_sparse", "a sparse matrix", lambda: sparse.csr_array(values()),
            InputTypeError, "X",
            "Sparse data was passed, but dense values are required: a gap in a "
            "sparse table is not a zero in time",
            "Convert with X.toarray()."),
        fit("bad_11_tensor", "a tensor that still has its gradient",
            lambda: torch.zeros(60, 2, requires_grad=True),
            InputTypeError, "X",
            "Tensor cannot be read as an array of numbers: …",
            "Give X.detach().float().cpu().numpy()."),
        fit("bad_11_index", "the columns instead of the table",
            lambda: frame().columns,
            InputTypeError, "X",
            "a DataFrame or Series was expected, got pandas Index",
            "Give the table itself, with times as its index."),
        fit("bad_06_empty_list", "an empty list", list,
            InputError, "X",
            "the container holds no series: Found array with 0 sample(s)",
            "Give at least one table."),
        fit("bad_11_dict_of_columns", "a dict of columns",
            lambda: {"a": [1.0, 2.0], "b": [3.0, 4.0]},
            InputError, "series 'a'",
            "each item of a list or dict must be one series (a 2-D table), got list",
            MANY),
        fit("bad_11_list_of_panels", "a list of panels", lambda: [panel(), panel()],
            InputError, "series 0",
            "each item of a list or dict must be one series (a 2-D table), got "
            "DataFrame", MANY),
        fit("bad_11_three_levels", "an index of three levels",
            lambda: pd.concat({"europe": panel()}),
            InputError, "X.index",
            "the index has 3 levels, allowed are one (time) or two (series, time)",
            "Join the leading levels into one series name."),
        fit("bad_11_levels_swapped", "the levels (time, series)",
            lambda: panel().swaplevel(),
            InputError, "X.index, levels ['when', 'site']",
            "the index has the levels (time, series), needed are (series, time)",
            "Swap them with frame.swaplevel().sort_index()."),
        fit("bad_11_series_without_label", "a row whose series has no name",
            unlabelled_series,
            InputError, "X.index, first level",
            "1 rows have no series label",
            "Drop these rows or name their series."),
        fit("bad_05_one_series_too_short", "one short series among others",
            lambda: {"long": frame(), "short": frame(5)},
            InputError, "X",
            "too few rows: series 'short', 5 samples (rows); at least 9 (lookback 6 "
            "+ horizon 3) are needed", LONGER),
        fit("bad_09_series_steps_differ", "series with different steps",
            lambda: {"hours": frame(), "days": frame(freq="D")},
            InputError, "series 'days', index",
            "the rows are D apart, other series have a step of h", RESAMPLE),
        fit("bad_10_series_columns_differ", "series with different columns",
            lambda: {"x": frame(), "y": frame().rename(columns={"a": "z"})},
            InputError, "series 'y'",
            "series have different columns: ['z', 'b', 'c'] against ['a', 'b', 'c'] "
            "in series 'x'",
            "All series of a panel need the same columns; columns of one table are "
            "joined with pandas.DataFrame(X)."),
        fit("xarray_scalar", "a DataArray without dimensions",
            lambda: xr.DataArray(1.0),
            InputError, "X.dims",
            "the DataArray has no dimension, a time dimension is needed",
            "Give data with a dimension called 'time'."),
        fit("xarray_time_unclear", "a DataArray with two dimensions of dates",
            two_times,
            InputError, "X.dims",
            "the time dimension is not clear among ['run', 'valid']",
            "Rename it: X.rename({'...': 'time'})."),
        fit("xarray_variable", "an xarray Variable",
            lambda: xr.Variable(("time", "x"), values()),
            InputTypeError, "X",
            "a DataArray or Dataset was expected, got xarray Variable",
            "Give one DataArray, or one Dataset whose variables are columns."),
        fit("xarray_other_dimensions", "a Dataset whose variables differ in dims",
            lambda: xr.Dataset({"a": ("time", [1.0]), "b": ("x", [1.0])}),
            InputError, "X.data_vars",
            "each variable of a Dataset must have the dimensions ['time'], ['b'] "
            "have others",
            "Drop them, or give a DataArray, whose other dimensions are columns."),
        fit("xarray_no_variables", "a Dataset without variables",
            lambda: xr.Dataset(coords={"time": range(9)}),
            InputError, "X.data_vars",
            "the Dataset holds no variable",
            "Drop them, or give a DataArray, whose other dimensions are columns."),
    ],
    "Ready-made windows": [
        fit("windows_without_y", "windows without their truth", windows,
            InputError, "y",
            "ready-made windows (a 3-D X) need their truth",
            "Give y of shape (n_windows, horizon, n_targets)."),
        fit("windows_of_other_length", "windows longer than the lookback",
            lambda: windows(n_rows=7),
            InputError, "X, axis 1 (time)",
            "windows have 7 rows, lookback is 6",
            "Set lookback=7 or cut the windows.",
            also=lambda: {"y": truth()}),
        fit("windows_y_of_other_length", "truth shorter than the horizon",
            windows,
            InputError, "y, axis 1 (time)",
            "y has 2 rows per window, horizon is 3",
            "Set horizon=2 or cut y.",
            also=lambda: {"y": truth()[:, :2]}),
        fit("windows_y_of_other_count", "fewer truths than windows",
            windows,
            InputError, "y, axis 0 (window)",
            "X has 5 windows, y has 4",
            "Give one truth for each window, in the same order.",
            also=lambda: {"y": truth()[:4]}),
        fit("windows_y_two_dimensional", "truth without the axis of targets",
            windows,
            InputError, "y",
            "ready-made windows have axes (window, time, variate), got an array of "
            "shape (5, 3)",
            "Give y of shape (n_windows, horizon, n_targets) with windows X.",
            also=lambda: {"y": truth()[:, 0]}),
        fit("windows_y_of_other_width", "truth with fewer columns than targets",
            windows,
            InputError, "y, axis 2 (target)",
            "y has 2 columns for 3 targets",
            "Name the target columns of X with targets=[...].",
            also=lambda: {"y": truth()[..., :2]}),
        fit("bad_01_nan_in_y", "a NaN in the truth",
            windows,
            DataQualityError, "y, series 4, column 2, row 1",
            "the values contain NaN: 1 missing value", FILL,
            also=lambda: {"y": truth(4, 1, 2)}),
        fit("bad_06_no_windows", "no windows at all",
            lambda: windows()[:0],
            InputError, "X",
            "Found array with 0 sample(s) (no series)",
            "Check the filter that made this table.",
            also=lambda: {"y": truth()[:0]}),
        use("windows_shorter", "windows shorter than the lookback",
            lambda: windows(n_rows=5),
            InputError, "X, axis 1 (time)",
            "windows have 5 rows, at least 6 (lookback) are needed",
            "Give longer windows, or fit with a shorter lookback."),
        use("windows_of_other_width", "windows with another number of columns",
            lambda: windows(n_columns=2),
            InputError, "X.columns",
            "X has 2 features, but LinearForecaster is expecting 3 features as input",
            "Give the same columns as in fit."),
        use("windows_for_a_calendar", "a model with calendar features, and windows",
            windows,
            InputError, "X",
            "the model uses calendar features and this X carries no time", NO_CALENDAR,
            model=mamba()),
        do("windows_have_no_end", "`predict()` after a fit on windows",
           lambda folder: linear().fit(windows(), truth()).predict(),
           InputError, "X",
           "the model was fitted on ready-made windows, which have no end to continue",
           "Give the windows to forecast from: predict(X)."),
    ],
    "Parameters": [
        do("bad_16_misspelt_argument", "`LinearForecaster(lokback=96)`",
           lambda folder: LinearForecaster(lokback=96),
           TypeError, "",
           "LinearForecaster.__init__() got an unexpected keyword argument 'lokback'…",
           "This is Python's own error; get_params() shows all names."),
        do("bad_16_positional_argument", "`LinearForecaster(96)`",
           lambda folder: LinearForecaster(96),
           TypeError, "",
           "LinearForecaster.__init__() takes 1 positional argument but 2 were given",
           "This is Python's own error; name each parameter."),
        do("bad_16_misspelt_set_params", "`set_params(lokback=96)`",
           lambda folder: naive().set_params(lokback=96),
           InputError, "set_params",
           "Invalid parameter 'lokback' for estimator NaiveForecaster; valid "
           "parameters are: ['horizon', 'lookback', 'missing', 'season_length', "
           "'strategy', 'targets']",
           "Did you mean 'lookback'?"),
        fit("bad_17_horizon_zero", "`horizon=0`", frame,
            InputError, "parameters of LinearForecaster",
            "horizon=0 is not allowed: must be an integer of at least 1",
            change("LinearForecaster"),
            model=linear(horizon=0)),
        fit("bad_17_horizon_negative", "`horizon=-3`", frame,
            InputError, "parameters of NaiveForecaster",
            "horizon=-3 is not allowed: must be an integer of at least 1",
            change("NaiveForecaster"),
            model=naive(horizon=-3)),
        fit("bad_17_horizon_float", "`horizon=24.0`", frame,
            InputError, "parameters of LinearForecaster",
            "horizon=24.0 is not allowed: must be an integer of at least 1",
            change("LinearForecaster"),
            model=linear(horizon=24.0)),
        fit("bad_17_lookback_text", "`lookback=\"96\"`", frame,
            InputError, "parameters of LinearForecaster",
            "lookback='96' is not allowed: must be an integer of at least 1",
            change("LinearForecaster"),
            model=linear(lookback="96")),
        fit("bad_17_fraction_one", "`validation_fraction=1`", frame,
            InputError, "parameters of LinearForecaster",
            "validation_fraction=1 is not allowed: must be a number in [0, 1)",
            change("LinearForecaster"),
            model=linear(validation_fraction=1)),
        fit("bad_17_strategy", "`strategy=\"sesonal\"`", frame,
            InputError, "parameters of NaiveForecaster",
            "strategy='sesonal' is not allowed: must be one of 'last', 'seasonal'. "
            "Did you mean 'seasonal'?", change("NaiveForecaster"),
            model=naive(strategy="sesonal")),
        fit("bad_17_missing", "`missing=\"drop\"`", frame,
            InputError, "parameters of LinearForecaster",
            "missing='drop' is not allowed: must be one of 'error', 'mask', "
            "'interpolate'", change("LinearForecaster"),
            model=linear(missing="drop")),
        fit("bad_17_scaler", "`scaler=\"standrad\"`", frame,
            InputError, "parameters of LinearForecaster",
            "scaler='standrad' is not allowed: must be None or one of 'standard', "
            "'series'. Did you mean 'standard'?", change("LinearForecaster"),
            model=linear(scaler="standrad")),
        fit("bad_17_alpha", "`alpha=-1`", frame,
            InputError, "parameters of LinearForecaster",
            "alpha=-1 is not allowed: must be 'auto' or a number of at least 0",
            change("LinearForecaster"),
            model=linear(alpha=-1)),
        fit("bad_17_even_kernel", "`kernel_size=24`", frame,
            InputError, "parameters of LinearForecaster",
            "kernel_size=24 must be odd", change("LinearForecaster"),
            model=linear(kind="dlinear", kernel_size=24)),
        fit("bad_17_batch_size", "`batch_size=0`", frame,
            InputError, "parameters of SMambaForecaster",
            "batch_size=0 is not allowed: must be an integer of at least 1",
            change("SMambaForecaster"),
            model=mamba(batch_size=0)),
        fit("bad_17_learning_rate", "`learning_rate=0`", frame,
            InputError, "parameters of SMambaForecaster",
            "learning_rate=0 is not allowed: must be a number above 0",
            change("SMambaForecaster"),
            model=mamba(learning_rate=0)),
        fit("bad_17_precision", "`precision=\"float16\"`", frame,
            InputError, "parameters of SMambaForecaster",
            "precision='float16' is not allowed: must be one of 'float32', "
            "'bfloat16', 'float64'. Did you mean 'bfloat16'?",
            change("SMambaForecaster"),
            model=mamba(precision="float16")),
        fit("bad_17_all_at_once", "several wrong parameters at once", frame,
            InputError, "parameters of SMambaForecaster",
            "d_model=0 is not allowed: must be an integer of at least 1; dropout=1.0 "
            "is not allowed: must be a number in [0, 1); loss='rmse' is not allowed: "
            "must be one of 'mse', 'mae', 'huber', 'quantile'. Did you mean 'mse'?",
            change("SMambaForecaster"),
            model=mamba(d_model=0, dropout=1.0, loss="rmse")),
        fit("bad_17_season_and_lookback", "a season longer than the lookback", frame,
            InputError, "parameters of NaiveForecaster",
            "lookback=12 is shorter than season_length=24", change("NaiveForecaster"),
            model=naive(strategy="seasonal", season_length=24, lookback=12)),
        fit("bad_17_variates_and_scaler", "`variates=\"any\"` with the scaler", frame,
            InputError, "parameters of SMambaForecaster",
            "variates='any' does not go with scaler='standard', whose statistics "
            "belong to the columns of fit: set scaler=None",
            change("SMambaForecaster"),
            model=mamba(variates="any")),
        fit("variates_any_and_targets", "`variates=\"any\"` with some targets only",
            frame,
            CapabilityError, "targets",
            "variates='any' needs every column to be a target",
            "Fit with targets=None.",
            model=mamba(variates="any", scaler=None, targets=["a"])),
        fit("calendar_unknown", "`calendar=[\"hours\"]`", frame,
            InputError, "calendar",
            "calendar feature 'hours' is unknown, allowed are ['day', 'dayofweek', "
            "'dayofyear', 'hour', 'minute', 'month', 'second', 'week']",
            "Did you mean 'hour'?",
            model=mamba(calendar=["hours"])),
        fit("calendar_text", "`calendar=\"hour\"`", frame,
            InputError, "parameters of SMambaForecaster",
            "calendar='hour' is not allowed: must be None or 'auto' or a list of "
            "calendar features", change("SMambaForecaster"),
            model=mamba(calendar="hour")),
        fit("random_state", "`random_state=\"abc\"`", frame,
            InputError, "parameters of SMambaForecaster",
            "random_state='abc' is not allowed: must be None or an integer of at "
            "least 0 or a NumPy generator", change("SMambaForecaster"),
            model=mamba(random_state="abc")),
        fit("device_number", "`device=0`", frame,
            InputError, "parameters of SMambaForecaster",
            "device=0 is not allowed: must be a device name such as 'cpu' or "
            "'cuda:1', or a torch.device", change("SMambaForecaster"),
            model=mamba(device=0)),
        do("device_unknown", "`device=\"gpu\"`",
           lambda folder: on_a_machine_without_gpu(mamba(device="gpu")),
           InputError, "device",
           "device is 'gpu'; allowed are 'auto', 'cpu', 'cuda', 'cuda:1' and so on, "
           "and 'mps'. This machine has cpu",
           "GPUs are called 'cuda' (NVIDIA, AMD) or 'mps' (Apple)."),
        do("device_not_here", "`device=\"cuda\"` without a GPU",
           lambda folder: on_a_machine_without_gpu(mamba(device="cuda")),
           InputError, "device",
           "device is 'cuda', which this machine does not have; it has cpu",
           "Use device='auto' to take what is there.…"),
        fit("checkpoints_without_seed", "`checkpoint_dir` without an integer seed",
            frame,
            InputError, "parameters of SMambaForecaster",
            "random_state=None must be an integer with checkpoint_dir: a resumed run "
            "needs the same draws", change("SMambaForecaster"),
            model=mamba(random_state=None, checkpoint_dir="checkpoints")),
        do("checkpoints_of_other_data", "resuming with other data",
           resume_with_other_data,
           CheckpointError, "…",
           "the checkpoints belong to a run with other settings or other data "
           "(fingerprint …, this run has …)",
           "Give another checkpoint_dir, or delete this folder to train from the "
           "start."),
        do("published_data_set", "`SMambaForecaster.published(\"etth3\")`",
           lambda folder: SMambaForecaster.published("etth3"),
           InputError, "dataset",
           "no settings were published for 'etth3', only for ['ETTh1', 'ETTh2', "
           "'ETTm1', 'ETTm2', 'exchange_rate', 'weather', 'solar', 'electricity', "
           "'traffic', 'PEMS03', 'PEMS04', 'PEMS07', 'PEMS08']",
           "Did you mean 'ETTh2'?"),
        do("published_horizon", "`published(\"ETTh1\", horizon=100)`",
           lambda folder: SMambaForecaster.published("ETTh1", horizon=100),
           InputError, "horizon",
           "horizon 100 was not published for ETTh1, only (96, 192, 336, 720)",
           "Take the nearest and change it: .set_params(horizon=100)."),
    ],
    "Forecasts, intervals and scores": [
        do("bad_18_predict_before_fit", "`predict` before `fit`",
           lambda folder: linear().predict(frame()),
           NotFittedError, "",
           "This LinearForecaster is not fitted yet. Call 'fit' with training data "
           "first.",
           "Call fit first."),
        do("bad_18_score_before_fit", "`score` before `fit`",
           lambda folder: mamba().score(frame()),
           NotFittedError, "",
           "This SMambaForecaster is not fitted yet. Call 'fit' with training data "
           "first.",
           "Call fit first."),
        use("horizon_zero", "`predict(horizon=0)`", lambda: None,
            InputError, "predict",
            "horizon=0 is not allowed: must be an integer of at least 1",
            "Give a number of rows; by default 3, as in fit.",
            options=lambda: {"horizon": 0}),
        use("horizon_float", "`predict(horizon=2.5)`", frame,
            InputError, "predict",
            "horizon=2.5 is not allowed: must be an integer of at least 1",
            "Give a number of rows; by default 3, as in fit.",
            options=lambda: {"horizon": 2.5}),
        use("targets_rolled", "a longer horizon, with columns that are no targets",
            frame,
            CapabilityError, "predict",
            "horizon 9 is longer than the fitted 3, and rolling forward needs the "
            "future of the columns that are not targets",
            "Fit with horizon=9, or make every column a target.",
            model=linear(targets=["a"]), options=lambda: {"horizon": 9}),
        use("quantiles_outside", "`quantiles=[10, 90]`", frame,
            InputError, "quantiles",
            "quantiles=[10, 90] are not allowed: must lie between 0 and 1", LEVELS,
            method="predict_quantiles", options=lambda: {"quantiles": [10, 90]}),
        use("quantiles_text", "`quantiles=\"median\"`", frame,
            InputError, "quantiles",
            "quantiles='median' are not allowed: must lie between 0 and 1", LEVELS,
            method="predict_quantiles", options=lambda: {"quantiles": "median"}),
        use("coverage_one", "`coverage=1`", frame,
            InputError, "coverage",
            "coverage=1 is not allowed: must lie between 0 and 1",
            "0.9 means that nine in ten truths should lie inside.",
            method="predict_interval", options=lambda: {"coverage": 1}),
        use("interval_without_rows", "intervals, and nothing held out", frame,
            CapabilityError, "LinearForecaster",
            "nothing was held out in fit, so there are no errors to calibrate on",
            "Fit with validation_data= or a larger validation_fraction.",
            method="predict_interval", model=linear(validation_fraction=0.0)),
        use("interval_of_longer_horizon", "intervals beyond the fitted horizon",
            frame,
            CapabilityError, "predict_quantiles",
            "intervals are calibrated for the fitted columns and horizon (3) only",
            "Fit with horizon=9 and variates='fixed'.",
            method="predict_interval", options=lambda: {"horizon": 9}),
        do("metric_unknown", "`forecast_scorer(\"msee\", context=6)`",
           lambda folder: forecast_scorer("msee", context=6),
           InputError, "metric",
           "no metric is called 'msee'. Did you mean 'mse'?",
           "Metrics are mse, mae, rmse, smape, bias, r2, mase, rmsse, pinball, crps, "
           "interval_score, coverage."),
        do("context_below_lookback", "a scorer with less context than the lookback",
           lambda folder: forecast_scorer("mse", context=3)(
               linear().fit(frame()), frame()),
           InputError, "forecast_scorer",
           "LinearForecaster looks back on 6 rows, context is 3",
           "Raise context (here and in the splitter) to the longest lookback."),
        do("folds_too_many", "more folds than the rows allow",
           lambda folder: list(
               RollingOriginSplit(9, test_size=10, context=6).split(frame())),
           InputError, "X",
           "60 times are too few: 6 come before the first rows to score, then 9 "
           "folds of 10; 96 are needed",
           "Lower n_splits, test_size, context, gap or train_size."),
    ],
    "Saved models": [
        do("bad_24_pickle", "`load` of a pickle", load_pickle,
           UnsafeFileError, "…/model.pkl",
           "model.pkl is a pickle, joblib or NumPy file; such files can run code "
           "when they are opened, and sciseq.load reads only what "
           "estimator.save(path) wrote. Nothing was run",
           "If you made the file yourself, open it with the tool that wrote it and "
           "save the estimator with estimator.save(path)."),
        do("bad_25_damaged", "`load` of a damaged model", load_damaged,
           CheckpointError, "…/model",
           "member state-….safetensors is damaged: its SHA-256 is not the one in the "
           "manifest",
           "Copy the model again from where it was made, or load an earlier save."),
        do("load_other_folder", "`load` of some other folder", load_notes,
           FileFormatError, "…",
           "this is not a model saved by sciseq: the folder has no manifest.json",
           "Give the folder or file that estimator.save(path) wrote."),
        do("load_nothing", "`load` of a path that is not there",
           lambda folder: sciseq.load(folder / "model"),
           FileNotFoundError, "",
           "…/model…",
           "This is Python's own error; give the path that save was given."),
        do("bad_30_save_over_folder", "`save` into a folder with other files",
           save_over_notes,
           InputError, "path",
           "… is not a model saved by sciseq and is left as it is: it holds "
           "'notes.txt'",
           "Give a new or empty folder."),
        do("bad_30_save_twice", "`save` where a model is already", save_twice,
           InputError, "path",
           "a saved model is already at …/model",
           "Give another path, or overwrite=True to replace the model."),
        do("save_a_function", "`save` with a function among the parameters",
           lambda folder: linear(targets=[print]).save(folder / "model"),
           CapabilityError, "parameters.targets[0]",
           "cannot save a value of type builtins.builtin_function_or_method",
           "Model files hold numbers, text, lists, tuples, dicts, NumPy arrays of "
           "numbers, dates or text, and pandas indexes: convert the value to one of "
           "these."),
    ],
    "Data sets and tables": [
        do("data_set_unknown", "`load_dataset(\"macrodat\")`",
           lambda folder: load_dataset("macrodat"),
           InputError, "name",
           "no data set is called 'macrodat'. Did you mean 'macrodata'?",
           "sciseq.list_datasets() shows all names."),
        do("split_unknown", "`long_horizon_split(frame, \"etth\", lookback=96)`",
           lambda folder: long_horizon_split(frame(), "etth", lookback=96),
           InputError, "name_or_rule",
           "'etth' is neither a data set nor a split rule. Did you mean 'ETTh2'?",
           "Rules are ett_hourly, ett_quarter_hourly, ratio, pems; or pass a "
           "SplitRule."),
        do("split_too_short", "a published split of a short table",
           lambda folder: long_horizon_split(frame(), "ett_hourly", lookback=96),
           InputError, "n_rows",
           "60 rows are too few for SplitRule(train=8640, validation=2880, "
           "test=2880, borrow_history=True)",
           "The rule would end train, validation and test at rows 8640, 11520 and "
           "14400: give more rows, or a SplitRule of shares."),
        do("long_format_columns", "`from_long` of a table with other names",
           lambda folder: from_long(frame().reset_index()),
           InputError, "frame.columns",
           "column 'unique_id' is missing, the table has ['when', 'a', 'b', 'c']",
           "Name the columns with series=, time= and value=."),
        do("long_format_dates", "`from_long` with text that is no date",
           lambda folder: from_long(long().assign(ds="noon")),
           InputError, "row 0",
           "110 values of column 'ds' are not dates, first 'noon'",
           "Convert the column with pandas.to_datetime and its format."),
        do("long_format_of_an_array", "`from_long` of an array",
           lambda folder: from_long(values()),
           InputTypeError, "frame",
           "a pandas table is needed, ndarray was given",
           "Read files with pandas.read_csv, and arrays with pandas.DataFrame."),
        do("long_format_of_a_table", "`to_long` of a table without series",
           lambda folder: to_long(frame()),
           InputError, "frame.index",
           "the index has 1 level(s), two are needed (series, time)",
           "Give a panel, or put a single table into the long format with "
           "frame.reset_index()."),
    ],
}  # fmt: skip


@dataclass(frozen=True)
class DoubtfulCall:
    """A call that is allowed and warned about: what was done, and the warning."""

    name: str
    did: str
    run: Callable[[], Any]
    message: str


DOUBTFUL_CALLS = [
    DoubtfulCall(
        "y_beside_a_table",
        "`fit(frame, y)` with a table",
        lambda: linear().fit(frame(), frame()["a"]),
        "y is ignored: a table holds both inputs and targets; name the targets with "
        "targets=[...]",
    ),
    DoubtfulCall(
        "dates_as_text",
        "dates that were read as text",
        lambda: linear().fit(with_index(frame().index.astype(str))),
        "the row labels are text, first '2024-03-01 00:00:00', and are not read as "
        "times: no gaps are seen, and forecasts are numbered 1, 2, ... If they are "
        "dates, convert them with frame.index = pandas.to_datetime(frame.index)",
    ),
    DoubtfulCall(
        "nothing_held_out",
        "a table so short that nothing can be held out",
        lambda: linear().fit(frame(10)),
        "the series are too short to hold out a validation tail of 0.1 of the rows: "
        "training uses every row, without early stopping or calibrated intervals",
    ),
    DoubtfulCall(
        "longer_horizon",
        "`predict(horizon=9)` after a fit with `horizon=3`",
        lambda: linear().fit(frame()).predict(horizon=9),
        "horizon 9 is longer than the fitted 3: rolling forward on the model's own "
        "forecasts",
    ),
    DoubtfulCall(
        "digits_lost",
        "large values in `SMambaForecaster(scaler=None)`",
        lambda: mamba(scaler=None).fit(frame() * 1e7),
        "values up to 2.2e+08 lose digits in float32, which is exact for integers up "
        "to 16777216: set scaler='standard' or precision='float64'",
    ),
]


PAGE = Path(__file__).parent.parent / "docs" / "errors.md"
BEGIN = "<!-- begin: written by tests/bad_calls.py -->\n"
END = "<!-- end -->\n"


def page() -> str:
    """Return the page of the documentation with this table between its marks."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    return f"{before}{BEGIN}{_tables()}{END}{after}"


def _tables() -> str:
    parts = []
    for title, calls in BAD_CALLS.items():
        rows = [("what you did", "what you get", "how to mend it"), ("---",) * 3]
        rows += [(call.did, _what(call), _code(call.hint)) for call in calls]
        parts.append(f"\n### {title}\n\n{_lines(rows)}")
    rows = [("what you did", "what the warning says"), ("---",) * 2]
    rows += [(call.did, _code(call.message)) for call in DOUBTFUL_CALLS]
    parts.append(f"\n### Allowed, with a warning\n\n{_lines(rows)}")
    return "".join(parts) + "\n"


def _lines(rows: list[tuple[str, ...]]) -> str:
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _what(call: BadCall) -> str:
    text = f"`{call.error.__name__}`: {_code(call.message)}"
    return f"{text} at {_code(call.where)}" if call.where else text


def _code(text: str) -> str:
    # As code, so that quotes stay straight and can be copied.
    return f"`` {text} ``" if "`" in text else f"`{text}`"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
