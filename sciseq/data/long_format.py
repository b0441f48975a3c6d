"""The long format (one row per series and time) to a two-level table and back."""

from typing import Any

from sciseq.errors import InputError, InputTypeError, nearest_name

__all__ = ["from_long", "to_long"]


def from_long(
    frame: Any,
    *,
    series: str = "unique_id",
    time: str = "ds",
    value: str | None = None,
) -> Any:
    """Turn a long table into one with a two-level (series, time) index.

    Parameters
    ----------
    frame : pandas.DataFrame
        One row per series and time, in any order.
    series : str, default="unique_id"
        Column that names the series.
    time : str, default="ds"
        Column that holds the time; text is read as dates.
    value : str, optional
        The only column to keep; by default all other columns are kept.

    Returns
    -------
    pandas.DataFrame
        Sorted by series and time, ready for ``fit`` and ``predict``.

    Examples
    --------
    >>> import pandas as pd
    >>> long = pd.DataFrame(
    ...     {"unique_id": ["b", "a"], "ds": ["2024-01-01"] * 2, "y": [1.0, 2.0]}
    ... )
    >>> from_long(long)["y"].tolist()
    [2.0, 1.0]
    """
    import pandas as pd

    _check_table(frame, pd.DataFrame)
    wanted = [series, time] + ([] if value is None else [value])
    for name in wanted:
        if name not in frame.columns:
            raise InputError(
                f"column {name!r} is missing, the table has {list(frame.columns)}",
                where="frame.columns",
                hint=nearest_name(name, frame.columns)
                or "Name the columns with series=, time= and value=.",
            )
    table = frame if value is None else frame[wanted]
    if not pd.api.types.is_numeric_dtype(table[time].dtype):
        table = table.assign(**{time: _as_dates(table[time], time)})
    table = table.set_index([series, time])
    return table if _is_sorted(table.index) else table.sort_index()


def _is_sorted(index: Any) -> bool:
    """Tell whether rows are in the order of series and times already.

    Levels are sorted, so that codes say it; asking pandas costs as much as sorting.
    """
    import numpy as np

    series, times = index.codes
    if not all(one.is_monotonic_increasing for one in index.levels):
        return False
    step = np.diff(series.astype(np.int64))
    return bool(((step > 0) | ((step == 0) & (np.diff(times) >= 0))).all())


def _check_table(frame: Any, allowed: Any) -> None:
    if not isinstance(frame, allowed):
        raise InputTypeError(
            f"a pandas table is needed, {type(frame).__name__} was given",
            where="frame",
            hint="Read files with pandas.read_csv, and arrays with pandas.DataFrame.",
        )


def _as_dates(column: Any, name: str) -> Any:
    import pandas as pd

    if pd.api.types.is_datetime64_any_dtype(column.dtype) or isinstance(
        column.dtype, pd.PeriodDtype
    ):
        return column
    dates = pd.to_datetime(column, errors="coerce")
    bad = column[dates.isna()]
    if len(bad):
        raise InputError(
            f"{len(bad)} values of column {name!r} are not dates, first "
            f"{bad.iloc[0]!r}",
            where=f"row {bad.index[0]}",
            hint="Convert the column with pandas.to_datetime and its format.",
        )
    return dates


def to_long(frame: Any, *, series: str = "unique_id", time: str = "ds") -> Any:
    """Turn a table with a two-level (series, time) index into the long format.

    Parameters
    ----------
    frame : pandas.DataFrame or pandas.Series
        Table with a (series, time) index, such as a panel forecast.
    series, time : str
        Names of the two columns that the index becomes.

    Returns
    -------
    pandas.DataFrame
        One row per series and time.

    Examples
    --------
    >>> import pandas as pd
    >>> index = pd.MultiIndex.from_product([["a"], [0, 1]])
    >>> to_long(pd.DataFrame({"y": [1.0, 2.0]}, index=index)).columns.tolist()
    ['unique_id', 'ds', 'y']
    """
    import pandas as pd

    _check_table(frame, pd.DataFrame | pd.Series)
    if frame.index.nlevels != 2:
        raise InputError(
            f"the index has {frame.index.nlevels} level(s), two are needed "
            "(series, time)",
            where="frame.index",
            hint="Give a panel, or put a single table into the long format with "
            "frame.reset_index().",
        )
    table = frame.to_frame() if frame.ndim == 1 else frame
    return table.rename_axis([series, time]).reset_index()
