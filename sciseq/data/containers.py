"""Read any container into a :class:`~sciseq.data.panel.Panel`.

NumPy arrays, lists and dicts are read here; pandas and xarray objects by their own
modules, imported only when such an object comes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sciseq.data.panel import FloatArray, Layout, Panel, as_float64, located
from sciseq.errors import InputError, InputTypeError

__all__ = [
    "ArrayLayout",
    "ManyLayout",
    "WindowsLayout",
    "read_panel",
    "read_windows",
]


def read_panel(X: Any, *, last_rows: int | None = None) -> Panel:
    """Read a container of one or many series.

    Parameters
    ----------
    X : DataFrame, Series, DataArray, Dataset, ndarray, or list or dict of these
        Rows are time, columns are variates. A two-level index, a ``series``
        dimension, a list or a dict holds many series. A 3-D array is a stack of
        ready-made windows of shape (n_windows, n_rows, n_columns).
    last_rows : int, optional
        Rows from the end of each series that are needed: lazy (Dask-backed) arrays
        are computed for these alone. Tables in memory are read whole.

    Returns
    -------
    Panel
        float64 values, row labels, and a writer back to the same kind of container.

    Raises
    ------
    InputError
        For empty, wrongly shaped or unequal tables.
    InputTypeError
        For values that are not numbers, or a container of an unknown kind.
    """
    panel = _read(X, last_rows)
    _check_size(panel)
    return panel


def _read(X: Any, last_rows: int | None) -> Panel:
    origin = type(X).__module__.partition(".")[0]
    if origin == "pandas":
        from sciseq.data.pandas_tables import read_pandas

        return read_pandas(X)
    if origin == "xarray":
        from sciseq.data.xarray_tables import read_xarray

        return read_xarray(X, last_rows)
    if origin == "scipy" and hasattr(X, "toarray"):
        raise InputTypeError(
            "Sparse data was passed, but dense values are required: a gap in a "
            "sparse table is not a zero in time",
            where="X",
            hint="Convert with X.toarray().",
        )
    if isinstance(X, Mapping):
        return _read_many(list(X.values()), tuple(X), last_rows, as_dict=True)
    if isinstance(X, list | tuple) and (not X or _is_container(X[0])):
        return _read_many(X, tuple(range(len(X))), last_rows, as_dict=False)
    is_array = isinstance(X, Sequence) or hasattr(X, "__array__")
    if isinstance(X, str | bytes) or not is_array:
        raise InputTypeError(
            f"a table was expected, got {type(X).__name__}",
            where="X",
            hint="Give a pandas or xarray object or a 2-D array; files are read with "
            "pandas.read_csv or the command `sciseq forecast`.",
        )
    return _read_array(X)


def _is_container(item: Any) -> bool:
    origin = type(item).__module__.partition(".")[0]
    try:
        return origin in ("pandas", "xarray") or np.ndim(item) == 2
    except ValueError:  # rows of unequal length
        return False


def _as_array(X: Any, where: str) -> Any:
    if isinstance(X, np.ndarray):
        return X
    try:
        return np.asarray(X)
    except (RuntimeError, TypeError, ValueError) as error:
        raise InputTypeError(
            f"{type(X).__name__} cannot be read as an array of numbers: {error}",
            where=where,
            hint="Give X.detach().float().cpu().numpy()."
            if hasattr(X, "detach")
            else "All rows of a table need the same number of values; many series are "
            "a list of 2-D arrays.",
        ) from None


def _read_array(X: Any) -> Panel:
    array = _as_array(X, "X")
    if array.ndim == 3:
        return read_windows(array)
    if array.ndim != 2:
        raise InputError(
            f"Expected 2D array with axes (time, variate), got {array.ndim}D array of "
            f"shape {array.shape}",
            where="X",
            hint="Reshape your data using array.reshape(-1, 1) if it is one variate. "
            "A 3D array (window, time, variate) holds ready-made windows.",
        )
    values = as_float64(array, where="X")
    return Panel(
        values=(values,),
        times=(None,),
        series_ids=(0,),
        columns=None,
        layout=ArrayLayout(),
    )


@dataclass(frozen=True)
class ArrayLayout:
    """A 2-D array: the forecast is the array of its rows."""

    def write(
        self,
        panel: Panel,
        forecasts: Sequence[FloatArray],
        times: Sequence[Any],
        targets: Sequence[int],
    ) -> FloatArray:
        """Build the container from forecasts."""
        return forecasts[0]


def read_windows(X: Any, where: str = "X") -> Panel:
    """Read ready-made windows of shape (n_windows, n_rows, n_columns)."""
    array = _as_array(X, where)
    if array.ndim != 3:
        raise InputError(
            "ready-made windows have axes (window, time, variate), got an array of "
            f"shape {array.shape}",
            where=where,
            hint="Give y of shape (n_windows, horizon, n_targets) with windows X.",
        )
    n_windows, n_rows, n_columns = array.shape
    flat = as_float64(array.reshape(n_windows * n_rows, n_columns), where=where)
    windows = flat.reshape(array.shape)
    return Panel(
        values=tuple(windows),
        times=(None,) * len(windows),
        series_ids=tuple(range(len(windows))),
        columns=None,
        layout=WindowsLayout(),
        is_windows=True,
    )


@dataclass(frozen=True)
class WindowsLayout:
    """A 3-D array of windows: one forecast per window."""

    def write(
        self,
        panel: Panel,
        forecasts: Sequence[FloatArray],
        times: Sequence[Any],
        targets: Sequence[int],
    ) -> FloatArray:
        """Build the container from forecasts."""
        return np.stack(list(forecasts))


def _read_many(
    items: Sequence[Any], labels: tuple[Any, ...], last_rows: int | None, as_dict: bool
) -> Panel:
    if not items:
        raise InputError(
            "the container holds no series: Found array with 0 sample(s)",
            where="X",
            hint="Give at least one table.",
        )
    parts = []
    for label, item in zip(labels, items, strict=True):
        with located(f"series {label!r}"):
            parts.append(_read_one(item, last_rows))
    for label, part in zip(labels, parts, strict=True):
        if part.n_columns != parts[0].n_columns or not _has_same_labels(part, parts[0]):
            raise InputError(
                f"series have different columns: {_labels(part)} against "
                f"{_labels(parts[0])} in series {labels[0]!r}",
                where=f"series {label!r}",
                hint="All series of a panel need the same columns; columns of one "
                "table are joined with pandas.DataFrame(X).",
            )
    ordered = [_order_like(part, parts[0]) for part in parts]
    return Panel(
        values=tuple(part.values[0] for part in ordered),
        times=_shared([part.times[0] for part in ordered]),
        series_ids=labels,
        columns=ordered[0].columns,
        layout=ManyLayout(
            layouts=tuple(part.layout for part in ordered), as_dict=as_dict
        ),
    )


def _shared(indexes: Sequence[Any]) -> tuple[Any, ...]:
    """Row labels per series, one object for neighbours with the same labels."""
    shared: list[Any] = []
    for index in indexes:
        last = shared[-1] if shared else None
        is_same = last is not None and index is not None and last.identical(index)
        shared.append(last if is_same else index)
    return tuple(shared)


def _read_one(item: Any, last_rows: int | None) -> Panel:
    part = _read(item, last_rows) if _is_container(item) else None
    if part is None or part.n_series != 1 or part.is_windows:
        raise InputError(
            "each item of a list or dict must be one series (a 2-D table), got "
            f"{type(item).__name__}",
            hint="Many series are a list of tables or one table with a two-level "
            "index; columns of one table are joined with pandas.DataFrame(X).",
        )
    return part


def _has_same_labels(part: Panel, first: Panel) -> bool:
    if part.columns == first.columns:
        return True
    if part.columns is None or first.columns is None:
        return False
    return frozenset(part.columns) == frozenset(first.columns)


def _labels(panel: Panel) -> Any:
    return panel.n_columns if panel.columns is None else list(panel.columns)


def _order_like(part: Panel, first: Panel) -> Panel:
    if part.columns == first.columns or part.columns is None:
        return part
    assert first.columns is not None
    position = {label: number for number, label in enumerate(part.columns)}
    return part.select_columns([position[label] for label in first.columns])


@dataclass(frozen=True)
class ManyLayout:
    """A list or dict of containers, one per series."""

    layouts: tuple[Layout, ...]
    as_dict: bool

    def write(
        self,
        panel: Panel,
        forecasts: Sequence[FloatArray],
        times: Sequence[Any],
        targets: Sequence[int],
    ) -> Any:
        """Build the container from forecasts."""
        written = [
            layout.write(panel, [forecast], [index], targets)
            for layout, forecast, index in zip(
                self.layouts, forecasts, times, strict=True
            )
        ]
        if self.as_dict:
            return dict(zip(panel.series_ids, written, strict=True))
        return written


def _check_size(panel: Panel) -> None:
    if panel.n_series == 0:
        raise InputError(
            "Found array with 0 sample(s) (no series)",
            where="X",
            hint="Check the filter that made this table.",
        )
    if panel.n_columns == 0:
        shape = (int(panel.lengths[0]), 0)
        raise InputError(
            f"Found array with 0 feature(s) (shape={shape}) while a minimum of 1 is "
            "required",
            where="X",
            hint="Check the columns that were selected.",
        )
    for series, n_rows in enumerate(panel.lengths):
        if n_rows == 0:
            raise InputError(
                f"Found array with 0 sample(s) (shape=(0, {panel.n_columns})) while a "
                "minimum of 1 is required",
                where=f"{panel.series_label(series)}X",
                hint="Check the filter that made this table.",
            )
