"""Event tables (entity, time, item) as one sequence of items per entity.

Within an entity, events are in the order of their times; events of the same time keep
the order of the table.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sciseq.data.event_sequences import (
    EventSequences,
    FloatArray,
    IntArray,
    offsets_of,
)
from sciseq.data.text_lines import numbered_lines
from sciseq.errors import (
    DataQualityError,
    FileFormatError,
    InputError,
    InputTypeError,
    nearest_name,
)

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["read_events"]


def read_events(
    source: Any,
    *,
    entity: str = "entity",
    time: str | None = "time",
    item: str = "item",
    vocabulary: npt.ArrayLike | None = None,
) -> EventSequences:
    r"""Read an event table into one sequence of items per entity.

    Parameters
    ----------
    source : pandas.DataFrame or path-like
        A table with one row per event; a CSV file (``.csv``, ``.tsv``, also ``.gz``);
        or a text file (``.txt``, ``.txt.gz``) without a header whose lines hold an
        entity and an item, already in the order of time.
    entity, time, item : str
        Names of the columns. ``time=None``: the rows of each entity are in the order of
        time already. Text files have no columns, and these names do not matter.
    vocabulary : array-like, optional
        Labels of items to number by, such as ``training.vocabulary``; by default all
        items of the table in rising order.

    Returns
    -------
    EventSequences
        Events of the same time keep the order of the table.

    Raises
    ------
    InputError
        For a missing column, labels of several types, or an item that is not in
        `vocabulary`.
    DataQualityError
        When an entity, time or item is missing; the message names the row.
    FileFormatError, UnsafeFileError, OSError
        For files that cannot be read as said above; the message names the line.

    Examples
    --------
    >>> import pandas as pd
    >>> table = pd.DataFrame({"user": ["b", "a", "a"], "day": [3, 9, 2],
    ...                       "item": ["tea", "tea", "milk"]})
    >>> events = read_events(table, entity="user", time="day")
    >>> events.entities.tolist(), [one.tolist() for one in events]
    (['a', 'b'], [[0, 1], [1]])
    """
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        place = str(path)
        if ".txt" in (suffix.lower() for suffix in path.suffixes):
            table, time = _read_pairs(path, entity, item), None
        else:
            from sciseq.data.delimited_files import read_delimited

            table = read_delimited(path, text_columns=[entity, item]).frame
            for name in {entity, item} & set(table.columns):
                table[name] = _as_labels(table[name])
    else:
        table, place = source, "events"
    columns = [entity, item] if time is None else [entity, time, item]
    _check_table(table, columns, place)
    order_by, seconds = _times(table, time)
    labels, of_entity = _numbered(table[entity], place)
    names, of_item = _numbered(table[item], place)
    if vocabulary is not None:
        names, of_item = _renumbered(table[item], np.asarray(vocabulary), place)
    # lexsort is stable: what is equal in entity and time keeps its order.
    order = np.lexsort([of_entity] if order_by is None else [order_by, of_entity])
    return EventSequences(
        items=of_item[order],
        offsets=offsets_of(np.bincount(of_entity, minlength=len(labels))),
        entities=labels,
        vocabulary=names,
        times=None if seconds is None else seconds[order],
    )


# ------------------------------------------------------------------------- reading


def _read_pairs(path: Path, entity: str, item: str) -> "pd.DataFrame":
    import pandas as pd

    entities: list[str] = []
    items: list[str] = []
    for number, line in numbered_lines(path):
        fields = line.split()
        if len(fields) == 2:
            entities.append(fields[0])
            items.append(fields[1])
        elif fields:
            raise FileFormatError(
                f"the line has {len(fields)} fields, an entity and an item are needed",
                where=f"{path}:{number}",
                hint="Tables with a header and more columns end in .csv or .tsv.",
            )
    if not entities:
        raise FileFormatError(f"{path.name} holds no events", where=str(path))
    return pd.DataFrame(
        {entity: _as_labels(pd.Series(entities)), item: _as_labels(pd.Series(items))}
    )


def _as_labels(text: "pd.Series[Any]") -> "pd.Series[Any]":
    """Make numbers of labels, so that 2 comes before 10, where nothing is lost by it.

    Labels such as 007 and 7 stay two.
    """
    import pandas as pd

    text = text.str.strip()
    numbers = pd.to_numeric(text, errors="coerce")
    is_same = numbers.notna() & (numbers.map(str) == text)
    return numbers if bool(is_same.all()) else text


def _check_table(table: Any, columns: Sequence[str], place: str) -> None:
    if not hasattr(table, "columns") or not hasattr(table, "isna"):
        raise InputTypeError(
            f"events are of type {type(table).__name__}, must be a data frame or the "
            "path of a file",
            where="source",
        )
    for name in columns:
        if list(table.columns).count(name) != 1:
            raise InputError(
                f"there is no single column {name!r}, the table has "
                f"{list(table.columns)[:20]}",
                where=place,
                hint=nearest_name(name, table.columns)
                or "Name the columns with entity=, time= and item=.",
            )
    if not len(table):
        raise InputError("there are no events", where=place)
    for name in columns:
        is_missing = table[name].isna().to_numpy()
        if is_missing.any():
            raise DataQualityError(
                f"{is_missing.sum()} of {len(table)} events have no value in column "
                f"{name!r}",
                where=f"{place}, row {is_missing.argmax()} (from 0)",
                hint="Fill the values or remove these rows.",
            )


def _times(table: Any, time: str | None) -> tuple[Any, FloatArray | None]:
    """Return what to sort by, in full precision, and the times as numbers."""
    if time is None:
        return None, None
    from sciseq.data.time_columns import find_times

    found = find_times(table, named=time)
    column = table[time] if found is None else found[1]
    values = column.to_numpy()
    if values.dtype.kind != "O" and values.dtype.kind not in "mM":
        seconds = values.astype(np.float64)
        if np.isinf(seconds).any():
            raise DataQualityError(
                f"a time in column {time!r} is infinite",
                where=f"row {np.isinf(seconds).argmax()} (from 0)",
            )
        return values, seconds
    import pandas as pd

    if isinstance(column.dtype, pd.PeriodDtype):
        column = column.dt.to_timestamp()
    stamps = pd.DatetimeIndex(column.array)
    stamps = stamps.tz_convert("UTC").tz_localize(None) if stamps.tz else stamps
    since = stamps.to_numpy() - np.datetime64(0, "s")
    return stamps.to_numpy(), since / np.timedelta64(1, "s")


def _numbered(column: Any, place: str) -> tuple[npt.NDArray[Any], IntArray]:
    """Labels in rising order, and the number of each row's label."""
    values = column.to_numpy()
    try:
        labels, numbers = np.unique(values, return_inverse=True)
    except TypeError:
        first = type(values[0])
        row = next(row for row, one in enumerate(values) if type(one) is not first)
        raise InputTypeError(
            f"column {column.name!r} mixes types: {values[0]!r} and {values[row]!r}",
            where=f"{place}, row {row} (from 0)",
            hint="Make all labels text or all of them numbers.",
        ) from None
    return _as_text(labels), numbers.reshape(-1).astype(np.int64)


def _renumbered(
    column: Any, vocabulary: npt.NDArray[Any], place: str
) -> tuple[npt.NDArray[Any], IntArray]:
    number_of = {label: number for number, label in enumerate(vocabulary.tolist())}
    numbers = [number_of.get(label, -1) for label in column.tolist()]
    if -1 in numbers:
        row = numbers.index(-1)
        raise InputError(
            f"item {column.iloc[row]!r} is not in the vocabulary of "
            f"{len(vocabulary)} items",
            where=f"{place}, row {row} (from 0)",
            hint="Remove events with items that are not known.",
        )
    return vocabulary, np.array(numbers, dtype=np.int64)


def _as_text(labels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Labels of text as such, not as objects, so that they can be saved."""
    is_text = labels.dtype.kind == "O" and all(isinstance(one, str) for one in labels)
    return labels.astype(np.str_) if is_text else labels
