"""The table of realised errors that a job keeps: one file for all runs."""

import os
from pathlib import Path

import numpy as np
import pandas as pd

from sciseq.errors import FileFormatError, InputError
from sciseq.files import temporary_path
from sciseq.jobs.realised_errors import (
    ERROR_COLUMNS,
    TIME_COLUMNS,
    WHOLE_NUMBERS,
    ZONED_DATES,
    check_columns,
    check_same_clock,
    clock_of,
    in_microseconds,
)

__all__ = ["read_errors", "update_errors"]

MOST_ROWS = 3_000_000
# The order of the rows in the file; together these columns name a row.
_ORDER = ["as_of", "run_id", "series", "target", "time"]


def update_errors(
    path: str | os.PathLike[str],
    new: pd.DataFrame,
    *,
    most_rows: int = MOST_ROWS,
) -> pd.DataFrame:
    """Put realised errors into the table of all runs, and return that table.

    A row of the same run, series, time and target is replaced, so that a repeated run
    changes nothing and a late correction of the truth is taken over. The file is
    written whole or not at all, and depends only on what was put in.

    Parameters
    ----------
    path : path-like
        Parquet file; made when it is missing.
    new : DataFrame
        Rows of :func:`realised_errors`; without any, the file is left as it is.
    most_rows : int, default=3_000_000
        Runs of the earliest logical dates are dropped while the table has more rows;
        the latest run always stays. Three million rows are twelve runs of 10 000 series
        and 24 steps.

    Returns
    -------
    DataFrame
        The whole table, sorted by logical date, run, series, target and time.

    Raises
    ------
    InputError
        When columns are missing, or times cannot be compared with those in the file.
    FileFormatError
        When the file is no table of realised errors.
    OSError
        When the folder is missing, full or not writable; the file is unchanged.

    Examples
    --------
    >>> import tempfile
    >>> from sciseq.jobs.realised_errors import realised_errors
    >>> day = pd.date_range("2026-03-01", periods=1)
    >>> errors = realised_errors(
    ...     pd.DataFrame({"load": [5.0]}, day),
    ...     pd.DataFrame({"load": [4.0]}, day),
    ...     as_of=day[0],
    ...     run_id="a1",
    ... )
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder, "errors.parquet")
    ...     once, twice = (update_errors(file, errors) for _ in range(2))
    >>> once.equals(twice), len(twice)
    (True, 1)
    """
    check_columns(new, "new")
    old = read_errors(Path(path))
    if new.empty:  # it may not know what its times are
        return new[list(ERROR_COLUMNS)] if old is None else old
    parts = [in_microseconds(new[list(ERROR_COLUMNS)])]
    if old is not None:
        old = _in_zones_of(old, parts[0])
        # Rows of other runs are neither replaced nor out of order: they are most rows.
        is_touched = old["run_id"].isin(new["run_id"].unique())
        parts = [old[~is_touched], pd.concat([old[is_touched], parts[0]])]
    parts[-1] = _sorted_once(parts[-1])
    table = _latest_runs(parts, most_rows)
    _write_errors(table, path)
    return table


def _sorted_once(errors: pd.DataFrame) -> pd.DataFrame:
    """Sort rows; of those that say the same thing the last one stays."""
    errors = errors.drop_duplicates(_ORDER, keep="last")
    return errors.sort_values(_ORDER, kind="stable")


def _latest_runs(parts: list[pd.DataFrame], most_rows: int) -> pd.DataFrame:
    """Put sorted tables that share no run into one, the earliest run first."""
    runs = [
        run
        for part in parts
        for run in part.groupby(["as_of", "run_id"], observed=True, sort=False)
    ]
    runs.sort(key=lambda run: run[0])
    n_later = np.cumsum([len(rows) for _, rows in runs][::-1])
    n_kept = max(int((n_later <= most_rows).sum()), 1)
    kept = [rows for _, rows in runs[-n_kept:]]
    return pd.concat(kept, ignore_index=True)


def read_errors(path: Path) -> pd.DataFrame | None:
    """Return the table of realised errors, None when there is none yet.

    Raises
    ------
    FileFormatError
        When the file is no such table.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.exists():
        return None
    try:
        table = pq.read_table(path).to_pandas()
        check_columns(table, str(path))
    except (pa.ArrowInvalid, InputError) as error:
        raise FileFormatError(
            f"this is no table of realised errors: {error}",
            where=str(path),
            hint="Move the file away; the next run begins a new one.",
        ) from error
    return in_microseconds(table)


def _in_zones_of(old: pd.DataFrame, new: pd.DataFrame) -> pd.DataFrame:
    """Show old times in the zones of the new ones: a column has one zone."""
    shown = {}
    for name in TIME_COLUMNS:
        check_same_clock(new[name], old[name], f"{name} of new rows and of the file")
        is_zoned = clock_of(new[name]) == ZONED_DATES
        zone = new[name].dt.tz if is_zoned else None
        shown[name] = old[name].dt.tz_convert(zone) if is_zoned else old[name]
    return old.assign(**shown)


def _write_errors(table: pd.DataFrame, path: str | os.PathLike[str]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = dict.fromkeys(("run_id", "series", "target"), pa.string())
    kinds |= dict.fromkeys(("forecast", "observed", "error"), pa.float64())
    kinds["lead"] = pa.int32()
    for name in TIME_COLUMNS:
        clock = clock_of(table[name])
        zone = str(table[name].dt.tz) if clock == ZONED_DATES else None
        is_number = clock == WHOLE_NUMBERS
        kinds[name] = pa.int64() if is_number else pa.timestamp("us", tz=zone)
    # Column by column, without the notes of pandas, which tell how the rows came about.
    columns = {name: pa.array(table[name], kinds[name]) for name in ERROR_COLUMNS}
    with temporary_path(path) as temporary:
        pq.write_table(pa.table(columns), temporary, compression="zstd")
