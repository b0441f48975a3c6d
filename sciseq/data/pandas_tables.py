"""pandas objects to panels and back: data frames, series, two-level indexes."""

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from sciseq.data.panel import FloatArray, Panel, as_float64
from sciseq.errors import DataQualityError, InputError, InputTypeError

__all__ = ["FrameLayout", "TwoLevelLayout", "read_pandas"]

_FLOAT64 = np.dtype(np.float64)


def read_pandas(X: Any) -> Panel:
    """Read a DataFrame, a Series, or a DataFrame with a (series, time) index."""
    if isinstance(X, pd.Series):
        frame, is_series = X.to_frame(), True
    elif isinstance(X, pd.DataFrame):
        frame, is_series = X, False
    else:
        raise InputTypeError(
            f"a DataFrame or Series was expected, got pandas {type(X).__name__}",
            where="X",
            hint="Give the table itself, with times as its index.",
        )
    labels = _labels(frame.columns)
    if frame.index.nlevels == 1:
        return _read_single(frame, labels, X if is_series else None)
    if frame.index.nlevels == 2:
        return _read_two_levels(frame, labels, X if is_series else None)
    raise InputError(
        f"the index has {frame.index.nlevels} levels, allowed are one (time) or two "
        "(series, time)",
        where="X.index",
        hint="Join the leading levels into one series name.",
    )


def _labels(columns: Any) -> tuple[Any, ...]:
    """Column labels, each of which must be there once."""
    labels = tuple(columns.tolist())
    # A set of strings is far cheaper than the hash table that pandas would build; what
    # else is equal (1 and 1.0, one NaN and another) is for pandas to say.
    is_text = all(type(label) is str for label in labels)
    if len(set(labels)) == len(labels) if is_text else columns.is_unique:
        return labels
    repeated = columns[columns.duplicated()].unique().tolist()
    raise InputError(
        f"column names must be unique, {repeated[:5]} appear more than once",
        where="X.columns",
        hint="Rename them; columns are matched by name.",
    )


def _read_single(frame: Any, labels: tuple[Any, ...], series: Any) -> Panel:
    return Panel(
        values=(_values(frame, "X"),),
        times=(_time_index(frame.index),),
        series_ids=(0,),
        columns=labels,
        layout=FrameLayout(
            columns=frame.columns[:0],
            series_name=None if series is None else (series.name,),
        ),
    )


def _values(frame: Any, where: str) -> FloatArray:
    dtypes = frame.dtypes
    if set(dtypes) == {_FLOAT64}:
        return np.asarray(frame.to_numpy())  # usually a view
    bad = [
        column
        for column, dtype in dtypes.items()
        if not pd.api.types.is_numeric_dtype(dtype)
        or pd.api.types.is_bool_dtype(dtype)
        or pd.api.types.is_complex_dtype(dtype)
    ]
    for column in bad:
        _check_column(frame, column, where)
    # Missing values of nullable columns become NaN; among objects, pandas only does so
    # when asked for objects.
    has_objects = any(map(pd.api.types.is_object_dtype, dtypes))
    kind = object if has_objects else np.float64
    return np.asarray(frame.to_numpy(dtype=kind, na_value=np.nan), dtype=np.float64)


def _check_column(frame: Any, column: Any, where: str) -> None:
    """Refuse a column whose type is not one of numbers, unless its cells are."""
    position = frame.columns.get_loc(column)
    cells = frame.iloc[:, [position]].to_numpy()
    if cells.dtype.kind == "O":  # numbers stored as objects are still numbers
        cells = frame.iloc[:, [position]].to_numpy(dtype=object, na_value=np.nan)
    if cells.dtype.kind == "c":
        as_float64(cells, where=f"{where}, column {column!r}")
    if cells.dtype.kind == "O":
        try:
            as_float64(cells, where=where, column_names=[column])
        except InputTypeError as error:
            if any(dtype.kind == "M" for dtype in frame.dtypes):
                error.hint = (
                    f"{error.hint} A table with one row per series and time is turned "
                    "with sciseq.data.from_long."
                )
            raise
        return
    hint = "Drop it, encode it as numbers, or convert with .astype(float)."
    if cells.dtype.kind == "M":
        hint = f"Use it as the index: frame.set_index({column!r})."
    if cells.dtype.kind == "m":
        hint = f"Give seconds: frame[{column!r}].dt.total_seconds()."
    raise InputTypeError(
        f"column {column!r} holds {frame.dtypes.iloc[position]} values, numbers are "
        "needed",
        where=f"{where}, column {column!r}",
        hint=hint,
    )


def _time_index(index: Any) -> Any:
    """Dates stored as objects become a DatetimeIndex; all else stays as it is."""
    if index.dtype != object or not len(index):
        return index
    if not all(isinstance(label, datetime.date) for label in index):
        return index
    try:
        return pd.DatetimeIndex(index, name=index.name)
    except (TypeError, ValueError) as error:
        zones = sorted({str(getattr(label, "tzinfo", None)) for label in index})
        raise DataQualityError(
            f"the index mixes the time zones {zones[:5]}"
            if len(zones) > 1
            else f"the index holds dates that pandas cannot read: {error}",
            where="X.index",
            hint="Bring all times into one zone: "
            "frame.index = pandas.to_datetime(frame.index, utc=True).",
        ) from None


def _columns_of(columns: Any, panel: Panel, targets: Sequence[int]) -> Any:
    assert panel.columns is not None
    labels: list[Any] = [panel.columns[position] for position in targets]
    if columns.nlevels > 1:
        return pd.MultiIndex.from_tuples(labels, names=columns.names)
    return pd.Index(labels, name=columns.name, dtype=columns.dtype)


@dataclass(frozen=True)
class FrameLayout:
    """A DataFrame, or a Series when ``series_name`` is given."""

    columns: Any
    series_name: tuple[Any, ...] | None = None

    def write(
        self,
        panel: Panel,
        forecasts: Sequence[FloatArray],
        times: Sequence[Any],
        targets: Sequence[int],
    ) -> Any:
        """Build the container from forecasts."""
        if self.series_name is not None:
            return pd.Series(
                forecasts[0][:, 0], index=times[0], name=self.series_name[0]
            )
        labels = _columns_of(self.columns, panel, targets)
        return pd.DataFrame(forecasts[0], index=times[0], columns=labels)


def _read_two_levels(frame: Any, columns: tuple[Any, ...], series: Any) -> Panel:
    index = frame.index
    missing = int((index.codes[0] < 0).sum())
    if missing:
        raise InputError(
            f"{missing} rows have no series label",
            where="X.index, first level",
            hint="Drop these rows or name their series.",
        )
    # By the codes of the index: integers, where labels may be text.
    codes, places = pd.factorize(index.codes[0], sort=False)
    labels = index.levels[0].take(places).rename(None)
    if isinstance(labels, pd.RangeIndex):  # a range by chance, if at all
        labels = pd.Index(labels.to_numpy())
    _check_level_order(index)
    # A stable sort keeps the order of rows inside each series.
    order = np.argsort(codes, kind="stable")
    ends = np.cumsum(np.bincount(codes, minlength=len(labels)))
    starts = np.concatenate([[0], ends[:-1]])
    if len(order) and (np.diff(order) != 1).any():
        frame = frame.iloc[order]
    values = _values(frame, "X")
    bounds = list(zip(starts.tolist(), ends.tolist(), strict=True))
    return Panel(
        values=tuple(values[a:b] for a, b in bounds),
        times=_times_of_series(frame.index, bounds),
        series_ids=tuple(labels.tolist()),
        columns=columns,
        layout=TwoLevelLayout(
            columns=frame.columns[:0],
            names=tuple(index.names),
            labels=labels,
            series_name=None if series is None else (series.name,),
        ),
    )


def _times_of_series(index: Any, bounds: Sequence[tuple[int, int]]) -> tuple[Any, ...]:
    """Row labels of each series; those with the same labels share one index."""
    times = _time_index(index.get_level_values(1))
    codes = np.ascontiguousarray(index.codes[1])
    made: dict[bytes, Any] = {}
    keys = [codes[a:b].tobytes() for a, b in bounds]
    for key, (a, b) in zip(keys, bounds, strict=True):
        if key not in made:
            made[key] = times[a:b]
    return tuple(made[key] for key in keys)


def _check_level_order(index: Any) -> None:
    first, second = index.levels
    is_time = isinstance(first, pd.DatetimeIndex | pd.PeriodIndex)
    if is_time and pd.api.types.infer_dtype(second) == "string":
        raise InputError(
            "the index has the levels (time, series), needed are (series, time)",
            where=f"X.index, levels {list(index.names)}",
            hint="Swap them with frame.swaplevel().sort_index().",
        )


@dataclass(frozen=True)
class TwoLevelLayout:
    """A table with a (series, time) index."""

    columns: Any
    names: tuple[Any, ...]
    labels: Any
    series_name: tuple[Any, ...] | None = None

    def write(
        self,
        panel: Panel,
        forecasts: Sequence[FloatArray],
        times: Sequence[Any],
        targets: Sequence[int],
    ) -> Any:
        """Build the container from forecasts."""
        index = self._index(times)
        values = np.concatenate(list(forecasts))
        if self.series_name is not None:
            return pd.Series(values[:, 0], index=index, name=self.series_name[0])
        labels = _columns_of(self.columns, panel, targets)
        return pd.DataFrame(values, index=index, columns=labels)

    def _index(self, times: Sequence[Any]) -> Any:
        """Labels of the series above the labels of their rows."""
        first = times[0]
        if len(times) > 1 and all(one is first for one in times):
            # A product of the labels is cheap. Appended once, they lose what the joined
            # ones cannot keep: a frequency, or being a range.
            plain = first.append(first)[: len(first)]
            return pd.MultiIndex.from_product([self.labels, plain], names=self.names)
        joined = first.append(list(times[1:])) if len(times) > 1 else first
        lengths = [len(one) for one in times]
        return pd.MultiIndex.from_arrays(
            [self.labels.repeat(lengths), joined], names=self.names
        )
