"""One time axis for many series, and which of its rows are learnt from.

A single series keeps its rows as they are: row number is time. Several series are
laid on the sorted times of all of them, so that a cut in time is the same cut for all.
Series without labels start together.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from sciseq.data.panel import Panel
from sciseq.errors import DataQualityError, InputError
from sciseq.parameters import AnyOf, Integer, Nothing, Option, Rule, check_parameters

__all__ = [
    "TRAINING_RULES",
    "IntArray",
    "check_arguments",
    "joint_times",
    "panel_times",
    "training_rows",
]

IntArray = npt.NDArray[np.int64]

TRAINING_RULES: dict[str, Rule] = {
    "gap": Integer(0),
    "window": Option("expanding", "sliding"),
    "train_size": AnyOf(Nothing(), Integer(1)),
}


def joint_times(series: IntArray, labels: Any) -> tuple[IntArray, Any]:
    """Lay the rows of several series on one time axis.

    Parameters
    ----------
    series : ndarray of int, shape (n_rows,)
        Series that each row belongs to.
    labels : pandas.Index of length n_rows
        Time of each row.

    Returns
    -------
    positions : ndarray of int, shape (n_rows,)
        Position of each row on the axis.
    axis : pandas.Index
        All times, sorted.

    Raises
    ------
    DataQualityError
        When times are missing, repeated within a series, or out of order.
    """
    codes, axis = pd.factorize(labels, sort=True)
    if (codes < 0).any():
        raise DataQualityError(
            f"{int((codes < 0).sum())} rows have no time",
            where=f"X.index, row {int(np.argmax(codes < 0))}",
            hint="Drop these rows or give them a time.",
        )
    order = np.argsort(series, kind="stable")
    is_same = np.diff(series[order]) == 0
    wrong = np.flatnonzero(is_same & (np.diff(codes[order]) <= 0))
    if len(wrong):
        earlier, later = (int(order[wrong[0] + step]) for step in (0, 1))
        raise DataQualityError(
            "the rows of a series are not in order of time, or repeat a time: "
            f"{labels[earlier]} is followed by {labels[later]}",
            where=f"X.index, row {later}",
            hint="Sort with frame.sort_index() and drop repeated rows; text does not "
            "sort as numbers or dates do.",
        )
    return codes.astype(np.int64), axis


def panel_times(panel: Panel) -> tuple[IntArray, Any]:
    """Position of the first row of each series on the time axis, and the axis.

    Raises
    ------
    DataQualityError
        When a series lacks times between its ends that other series have.
    """
    labels = [
        pd.RangeIndex(len(values)) if index is None else index
        for values, index in zip(panel.values, panel.times, strict=True)
    ]
    if panel.n_series == 1:
        return np.zeros(1, dtype=np.int64), labels[0]
    joined = labels[0].append(labels[1:])
    positions, axis = joint_times(
        np.repeat(np.arange(panel.n_series), panel.lengths), joined
    )
    first = np.concatenate([[0], np.cumsum(panel.lengths)[:-1]])
    offsets = positions[first]
    spans = positions[first + panel.lengths - 1] - offsets + 1
    broken = np.flatnonzero(spans != panel.lengths)
    if len(broken):
        series = int(broken[0])
        raise DataQualityError(
            f"{int(spans[series] - panel.lengths[series])} times that other series "
            "have are missing between its first and last row: one cut in time would "
            "not be the same number of rows for all",
            where=f"{panel.series_label(series)}index",
            hint="Bring all series onto one grid with resample(...) or asfreq(...).",
        )
    return offsets, axis


def training_rows(
    end: int, first_end: int, window: str, train_size: int | None
) -> slice:
    """Rows of the time axis that are learnt from.

    Parameters
    ----------
    end, first_end : int
        End of this training part, and of the first one.
    window : {"expanding", "sliding"}
        Whether all earlier rows are used, or as many as in the first part.
    train_size : int or None
        Rows of a sliding window, if not those of the first part.
    """
    if window == "expanding":
        return slice(0, end)
    return slice(end - (train_size or first_end), end)


def check_arguments(
    owner: str, arguments: Mapping[str, Any], rules: Mapping[str, Rule]
) -> None:
    """Check arguments against their rules, and raise every problem together.

    Raises
    ------
    InputError
        With one line per violation.
    """

    def relations() -> list[str]:
        if arguments["train_size"] is None or arguments["window"] == "sliding":
            return []
        return [
            f"train_size={arguments['train_size']} needs window='sliding': an "
            "expanding window takes all earlier rows"
        ]

    try:
        check_parameters(arguments, rules, owner=owner, relations=relations)
    except InputError as error:
        # Functions and splitters have no set_params, which the general hint offers.
        raise InputError(
            error.message, where=error.where, hint=f"See the help of {owner}."
        ) from None
