"""The roles of columns: targets, covariates of three kinds, weights.

Roles are settled once, in ``fit``, as positions in the table. Covariates that are
known ahead are given as rows after the last observed target; these rows are parted
from the series here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sciseq.data.calendar import is_calendar_feature
from sciseq.data.panel import FloatArray, Panel, describe_row
from sciseq.errors import CapabilityError, DataQualityError, InputError, nearest_name

__all__ = [
    "ROLES",
    "Roles",
    "check_known_ahead",
    "check_static",
    "is_given",
    "row_weights",
    "settle",
    "split_ahead",
]

IntArray = npt.NDArray[np.int64]

ROLES = (
    "targets",
    "past_covariates",
    "future_covariates",
    "static_covariates",
    "sample_weight",
)


class Roles(NamedTuple):
    """Positions of the columns of each role, in the table of fit.

    Parameters
    ----------
    targets : ndarray of int
        Columns to forecast, in the order asked for.
    inputs : ndarray of int
        Columns that enter as variates: targets, past and future covariates.
    future : ndarray of int
        Columns known ahead.
    static : ndarray of int
        Columns that are constant in each series.
    weight : int or None
        Column of the weights of rows.
    future_calendar : tuple of str
        Calendar features that are known ahead.
    """

    targets: IntArray
    inputs: IntArray
    future: IntArray
    static: IntArray
    weight: int | None
    future_calendar: tuple[str, ...]


def settle(
    panel: Panel, parameters: Mapping[str, Any], can_use: frozenset[str], owner: str
) -> Roles:
    """Settle the role of every column.

    Parameters
    ----------
    panel : Panel
        The training table.
    parameters : mapping
        The parameters in ``ROLES``: labels, or None.
    can_use : frozenset of str
        Kinds of covariates that the method can use, of "past", "future", "static".
    owner : str
        Class name, for messages.

    Raises
    ------
    InputError
        For unknown labels, a column of two roles, or no target left.
    CapabilityError
        For covariates that the method cannot use, and roles in ready-made windows.
    """
    calendar, future_labels = _split_calendar(panel, parameters["future_covariates"])
    named = {
        "targets": _find(panel, parameters["targets"], "targets"),
        "past_covariates": _find(
            panel, parameters["past_covariates"], "past_covariates"
        ),
        "future_covariates": _find(panel, future_labels, "future_covariates"),
        "static_covariates": _find(
            panel, parameters["static_covariates"], "static_covariates"
        ),
        "sample_weight": _find(panel, parameters["sample_weight"], "sample_weight"),
    }
    _check_capabilities(panel, parameters, can_use, owner)
    _check_disjoint(panel, named)
    taken = {one for positions in named.values() for one in positions or ()}
    others = [one for one in range(panel.n_columns) if one not in taken]
    targets = named["targets"]
    if targets is None:
        # Without other roles every column is a target; so is what no role names.
        targets = others
        others = []
    if not targets:
        raise InputError(
            f"targets={parameters['targets']!r} leaves no column to forecast: at "
            "least one column is needed, each once",
            where="targets",
            hint="Leave out repeated labels; targets=None forecasts every column "
            "without another role.",
        )
    past = named["past_covariates"]
    if past is None:
        past = others if parameters["targets"] is not None else []
    future = named["future_covariates"] or []
    weight = named["sample_weight"] or []
    return Roles(
        targets=np.array(targets, dtype=np.int64),
        inputs=np.array(sorted({*targets, *past, *future}), dtype=np.int64),
        future=np.array(future, dtype=np.int64),
        static=np.array(named["static_covariates"] or [], dtype=np.int64),
        weight=weight[0] if weight else None,
        future_calendar=calendar,
    )


def _labels(panel: Panel) -> list[Any]:
    return list(range(panel.n_columns) if panel.columns is None else panel.columns)


def _as_list(panel: Panel, given: Any) -> list[Any]:
    if not isinstance(given, list | tuple):
        return [given]
    # A tuple may be the one label of a two-level column.
    if isinstance(given, tuple) and given in (panel.columns or ()):
        return [given]
    return list(given)


def _find(panel: Panel, given: Any, role: str) -> list[int] | None:
    """Positions of the labels of a role; None when the role was not given."""
    if given is None:
        return None
    labels = _labels(panel)
    positions = []
    for label in _as_list(panel, given):
        if label not in labels:
            kind = "target" if role == "targets" else f"{role} name"
            raise InputError(
                f"{kind} {label!r} is not a column, the table has {labels[:20]}",
                where=role,
                hint=(nearest_name(label, labels) if isinstance(label, str) else "")
                or "Columns are matched by name, or by position from 0 in arrays.",
            )
        positions.append(labels.index(label))
    if len(set(positions)) != len(positions):
        raise InputError(
            f"{role}={given!r} is not allowed: must name at least one column, each "
            "once",
            where=role,
            hint="Leave out repeated labels; targets=None forecasts every column.",
        )
    if role == "sample_weight" and len(positions) != 1:
        raise InputError(
            f"sample_weight={given!r} is not allowed: must name one column",
            where=role,
            hint="Give the label of the column that holds the weight of each row.",
        )
    return positions


def _split_calendar(panel: Panel, given: Any) -> tuple[tuple[str, ...], Any]:
    """Part the names of calendar features from the labels of columns."""
    if given is None:
        return (), None
    labels = _labels(panel)
    wanted = _as_list(panel, given)
    calendar = tuple(
        one for one in wanted if one not in labels and is_calendar_feature(one)
    )
    return calendar, [one for one in wanted if one not in calendar]


def _check_capabilities(
    panel: Panel, parameters: Mapping[str, Any], can_use: frozenset[str], owner: str
) -> None:
    for kind in ("past", "future", "static"):
        role = f"{kind}_covariates"
        if is_given(parameters[role]) and kind not in can_use:
            raise CapabilityError(
                f"{owner} cannot use {kind} covariates",
                where=role,
                hint=f"Leave out {role}, or take a method that uses them: see the "
                "table of methods in the documentation.",
            )
    if panel.is_windows and any(is_given(parameters[role]) for role in ROLES[2:]):
        raise CapabilityError(
            "ready-made windows (3-D) carry no rows of the future, no static values "
            "and no weights",
            where="X",
            hint="Give the table that they were cut from.",
        )


def is_given(labels: Any) -> bool:
    """Tell whether some column has a role; 0 is the label of one."""
    return labels is not None and not (isinstance(labels, list | tuple) and not labels)


def _check_disjoint(panel: Panel, named: Mapping[str, list[int] | None]) -> None:
    owner: dict[int, str] = {}
    for role, positions in named.items():
        for position in positions or ():
            if position in owner:
                raise InputError(
                    f"{panel.column_label(position)} has two roles: "
                    f"{owner[position]} and {role}",
                    where=role,
                    hint="Give each column one role; past values of a future "
                    "covariate are used without naming it twice.",
                )
            owner[position] = role


def split_ahead(panel: Panel, targets: Sequence[int], future: Sequence[int]) -> Panel:
    """Part the rows after the last observed target from each series.

    Parameters
    ----------
    panel : Panel
        Series, with rows at the end in which every target is NaN.
    targets, future : sequence of int
        Positions of the targets, and of the columns known ahead.

    Returns
    -------
    Panel
        Ends with the last row in which some target is observed; what stood after it
        is ``ahead``. Unchanged when no column is known ahead.
    """
    if not len(future) or panel.is_windows:
        return panel
    ends = [
        _last_observed(values[:, list(targets)]) + 1 or len(values)
        for values in panel.values
    ]
    return replace(
        panel,
        values=tuple(one[:end] for one, end in zip(panel.values, ends, strict=True)),
        times=tuple(
            None if index is None else index[:end]
            for index, end in zip(panel.times, ends, strict=True)
        ),
        ahead=tuple(one[end:] for one, end in zip(panel.values, ends, strict=True)),
    )


def _last_observed(values: FloatArray) -> int:
    """Position of the last row with some value; -1 when there is none."""
    rows = np.flatnonzero(~np.isnan(values).all(axis=1))
    return int(rows[-1]) if len(rows) else -1


def check_known_ahead(panel: Panel, future: IntArray, n_rows: int) -> None:
    """Refuse series whose future covariates are not known far enough.

    Raises
    ------
    InputError
        Naming series and the rows that are there.
    DataQualityError
        Naming the first value that is missing.
    """
    if not len(future):
        return
    ahead = panel.ahead or (np.empty((0, panel.n_columns)),) * panel.n_series
    for series, values in enumerate(ahead):
        if len(values) < n_rows:
            raise InputError(
                f"future covariates are known for {len(values)} rows after the last "
                f"observed target, {n_rows} are needed",
                where=f"{panel.series_label(series)}X",
                hint="Append make_future() with their values filled in: "
                "pandas.concat([X, future]).",
            )
        bad = ~np.isfinite(values[:n_rows, future])
        if bad.any():
            row, column = (int(one[0]) for one in np.nonzero(bad))
            raise DataQualityError(
                f"the future covariate is {values[row, future[column]]} in row "
                f"{row + 1} after the last observed target",
                where=panel.series_label(series)
                + panel.column_label(int(future[column])),
                hint="Fill in its value for every row of the horizon.",
            )


def check_static(panel: Panel, static: IntArray) -> None:
    """Refuse static covariates that change within a series.

    Raises
    ------
    DataQualityError
        Naming series, column and the first row that differs.
    """
    for series, values in enumerate(panel.values):
        for column in static:
            # A missing value differs from everything, itself included.
            changed = np.flatnonzero(values[:, column] != values[0, column])
            if len(changed):
                raise DataQualityError(
                    f"a static covariate is missing or changes: {values[0, column]}, "
                    f"then {values[changed[0], column]}",
                    where=panel.series_label(series)
                    + panel.column_label(int(column))
                    + ", "
                    + describe_row(panel, series, int(changed[0])),
                    hint="Fill it in, or name the column in past_covariates instead.",
                )


def row_weights(
    panel: Panel,
    weight: int | None,
    half_life: float | None,
    *,
    can_be_zero: bool = False,
) -> list[FloatArray] | None:
    """Weights of the rows of each series as truths.

    Parameters
    ----------
    panel : Panel
        Series in data units.
    weight : int or None
        Column that holds weights.
    half_life : float or None
        Rows after which a weight has halved, counted back from the end of its series.
    can_be_zero : bool, default=False
        Whether all weights may be 0; they then count as equal.

    Returns
    -------
    list of ndarray of shape (n_rows,), or None
        None when all rows weigh the same.

    Raises
    ------
    DataQualityError
        For negative or missing weights, or weights that are all zero.
    """
    if weight is None and half_life is None:
        return None
    weights = []
    for series, values in enumerate(panel.values):
        one = np.ones(len(values)) if weight is None else values[:, weight].copy()
        bad = np.flatnonzero(~(one >= 0))
        if weight is not None and len(bad):
            raise DataQualityError(
                f"a weight is {one[bad[0]]}, must be at least 0",
                where=panel.series_label(series)
                + panel.column_label(weight)
                + ", "
                + describe_row(panel, series, int(bad[0])),
                hint="Give every row a weight; 0 leaves it out of the loss.",
            )
        if half_life is not None:
            age = np.arange(len(values))[::-1]
            one = one * 0.5 ** (age / half_life)
        weights.append(one)
    if not any(one.any() for one in weights):
        if can_be_zero:
            return None
        raise DataQualityError(
            "every weight is 0",
            where="sample_weight",
            hint="Give the rows to learn from a weight above 0.",
        )
    return weights
