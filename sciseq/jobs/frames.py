"""Small things that jobs do with tables over time, or over (series, time)."""

import hashlib
from collections.abc import Collection
from typing import Any

import numpy as np
import pandas as pd

__all__ = [
    "count_series",
    "digest_of_rows",
    "flat",
    "labels_of",
    "longest_series",
    "rows_before",
    "select_rows",
    "without",
]


def select_rows(frame: Any, mask: Any) -> Any:
    """Return some rows of a table; series without any are forgotten by its index."""
    kept = frame[mask]
    if kept.index.nlevels == 2:
        kept.index = kept.index.remove_unused_levels()
    return kept


# A level of ten million rows is not written out: its codes say enough, and are counted.


def labels_of(frame: Any, level: int) -> Any:
    """Return the labels of a level of the index that have rows, in their order."""
    if frame.index.nlevels == 1:
        return frame.index
    labels, codes = frame.index.levels[level], frame.index.codes[level]
    return labels[np.bincount(codes, minlength=len(labels)) > 0]


def count_series(frame: Any) -> int:
    """Return the number of series that have rows."""
    return 1 if frame.index.nlevels == 1 else len(labels_of(frame, 0))


def longest_series(frame: Any) -> Any:
    """Return the times of the series that has most rows."""
    if frame.index.nlevels == 1:
        return frame.index
    codes = frame.index.codes[0]
    rows = np.flatnonzero(codes == np.bincount(codes).argmax())
    return frame.index.levels[1][frame.index.codes[1][rows]]


def rows_before(frame: Any, date: Any) -> Any:
    """Return the rows of a table before a date; series without any are left out."""
    if frame.index.nlevels == 1:
        is_known = frame.index < date
    else:
        is_early = np.asarray(frame.index.levels[1] < date)
        if is_early.all():
            return frame
        is_known = is_early[frame.index.codes[1]]
    return frame if is_known.all() else select_rows(frame, is_known)


def digest_of_rows(frame: Any) -> str:
    """Return a hash of the names, times and values of a table.

    Examples
    --------
    >>> table = pd.DataFrame({"load": [1.0, 2.0]})
    >>> digest_of_rows(table) == digest_of_rows(table + 0.0)
    True
    >>> digest_of_rows(table) == digest_of_rows(table + 1e-9)
    False
    """
    total = hashlib.sha256()
    total.update(repr([list(map(str, frame.columns)), frame.index.nlevels]).encode())
    if frame.index.nlevels == 2:
        labels = labels_of(frame, 0)
        total.update(repr([str(one) for one in labels]).encode())
        for level in (0, 1):
            total.update(_dense_codes(frame, level).tobytes())
    times = labels_of(frame, -1)
    if isinstance(times, pd.DatetimeIndex):
        total.update(str(times.tz).encode())
        times = times.as_unit("ns").asi8
    total.update(np.ascontiguousarray(np.asarray(times)).tobytes())
    for position in range(frame.shape[1]):
        values = np.ascontiguousarray(frame.iloc[:, position].to_numpy())
        total.update(str(values.dtype).encode())
        total.update(values.tobytes())
    return total.hexdigest()


def _dense_codes(frame: Any, level: int) -> Any:
    """Return the codes of a level without those of labels that have no rows."""
    codes, n_labels = frame.index.codes[level], len(frame.index.levels[level])
    is_there = np.bincount(codes, minlength=n_labels) > 0
    if not is_there.all():
        codes = (np.cumsum(is_there) - 1)[codes]
    # One width, whatever pandas chose for the number of labels.
    return codes.astype(np.int32, copy=False)


def without(frame: Any, labels: Collection[str]) -> Any:
    """Return a panel without some series, which are named by their text."""
    if not labels or not isinstance(frame, pd.DataFrame) or frame.index.nlevels == 1:
        return frame
    series = frame.index.get_level_values(0).astype(str)
    return select_rows(frame, ~series.isin(labels))


def flat(frame: Any) -> Any:
    """Return a table whose index has become columns ``series`` and ``time``.

    Examples
    --------
    >>> flat(pd.DataFrame({"load": [1.0]}, index=pd.Index([7]))).columns.tolist()
    ['time', 'load']
    """
    if isinstance(frame.index, pd.RangeIndex) and "sequence" in frame.columns:
        return frame
    if frame.index.nlevels == 2:
        return frame.rename_axis(index=["series", "time"]).reset_index()
    return frame.rename_axis(index="time").reset_index()
