"""From the caller's table to training rows: roles, steps, lengths, and splits.

Pure functions on panels; each refuses what it cannot use, naming series and column.
"""

import re
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sciseq.data.calendar import calendar_features, calendar_for_step
from sciseq.data.containers import read_panel, read_windows
from sciseq.data.panel import Panel
from sciseq.data.timeline import Step, infer_step
from sciseq.errors import InputError, SciSeqWarning, nearest_name

__all__ = [
    "calendar_names",
    "check_context",
    "check_lengths",
    "common_step",
    "constant_columns",
    "join_windows",
    "marks",
    "match_columns",
    "read_training",
    "split_tail",
    "target_positions",
]


def read_training(X: Any, y: Any, *, warn: bool = True) -> tuple[Panel, Panel | None]:
    """Read X, and y when X is a stack of ready-made windows; else y is ignored."""
    panel = read_panel(X)
    if not panel.is_windows:
        if y is not None and warn:
            warnings.warn(
                "y is ignored: a table holds both inputs and targets; name the "
                "targets with targets=[...]",
                SciSeqWarning,
                stacklevel=4,
            )
        return panel, None
    if y is None:
        raise InputError(
            "ready-made windows (a 3-D X) need their truth",
            where="y",
            hint="Give y of shape (n_windows, horizon, n_targets).",
        )
    truth = read_windows(y, "y")
    if truth.n_series != panel.n_series:
        raise InputError(
            f"X has {panel.n_series} windows, y has {truth.n_series}",
            where="y, axis 0 (window)",
            hint="Give one truth for each window, in the same order.",
        )
    return panel, truth


def join_windows(
    panel: Panel,
    truth: Panel,
    targets: npt.NDArray[np.int64],
    lookback: int,
    horizon: int,
) -> Panel:
    """Join ready-made windows with their truth into rows of lookback + horizon."""
    if panel.lengths[0] != lookback:
        raise InputError(
            f"windows have {panel.lengths[0]} rows, lookback is {lookback}",
            where="X, axis 1 (time)",
            hint=f"Set lookback={panel.lengths[0]} or cut the windows.",
        )
    if truth.lengths[0] != horizon:
        raise InputError(
            f"y has {truth.lengths[0]} rows per window, horizon is {horizon}",
            where="y, axis 1 (time)",
            hint=f"Set horizon={truth.lengths[0]} or cut y.",
        )
    if truth.n_columns != len(targets):
        raise InputError(
            f"y has {truth.n_columns} columns for {len(targets)} targets",
            where="y, axis 2 (target)",
            hint="Name the target columns of X with targets=[...].",
        )
    joined = []
    for past, future in zip(panel.values, truth.values, strict=True):
        # The future of columns that are not targets is unknown, and never read.
        rows = np.full((len(future), panel.n_columns), np.nan)
        rows[:, targets] = future
        joined.append(np.concatenate([past, rows]))
    return panel.with_values(joined)


def target_positions(panel: Panel, targets: Any) -> npt.NDArray[np.int64]:
    """Positions of the target columns; all columns when ``targets`` is None."""
    if targets is None:
        return np.arange(panel.n_columns)
    wanted = list(targets) if isinstance(targets, list | tuple) else [targets]
    if panel.columns is not None and isinstance(targets, tuple):
        # A tuple may be the one label of a two-level column.
        wanted = [targets] if targets in panel.columns else wanted
    labels = list(range(panel.n_columns)) if panel.columns is None else panel.columns
    positions = []
    for label in wanted:
        if label not in labels:
            raise InputError(
                f"target {label!r} is not a column, the table has {list(labels)[:20]}",
                where="targets",
                hint=(nearest_name(label, labels) if isinstance(label, str) else "")
                or "Columns are matched by name, or by position from 0 in arrays.",
            )
        positions.append(list(labels).index(label))
    if not positions or len(set(positions)) != len(positions):
        raise InputError(
            f"targets={targets!r} is not allowed: must name at least one column, each "
            "once",
            where="targets",
            hint="Leave out repeated labels; targets=None forecasts every column.",
        )
    return np.array(positions, dtype=np.int64)


def common_step(panel: Panel, *, expected: Step | None = None) -> Step | None:
    """Step between rows, the same in all series, and as expected when that is known."""
    step, kind = expected, None
    checked: set[int] = set()
    for series, index in enumerate(panel.times):
        if index is None or id(index) in checked:
            continue
        checked.add(id(index))
        where = panel.series_label(series)
        found = infer_step(index, where=where, expected=step)
        if found is None:
            continue
        if found.kind == "label" and expected is None and series == 0:
            _warn_of_dates_as_text(index[0])
        if kind not in (None, found.kind):
            raise InputError(
                f"the rows are labelled by a {found.kind}, those of other series by a "
                f"{kind}",
                where=f"{where}index",
                hint="Give all series the same kind of index.",
            )
        kind = found.kind
        comparable = step is not None and found.kind == step.kind
        if step is not None and comparable and not found.is_same(step):
            if kind == "datetime" and len(index) < 3:
                continue  # two rows do not tell 31 days from a month
            source = "the model was fitted with" if expected else "other series have"
            raise InputError(
                f"the rows are {found} apart, {source} a step of {step}",
                where=f"{where}index",
                hint="Bring the data onto the same step with frame.resample(...).",
            )
        if step is None or not comparable:
            step = found
    return step


_DATE = re.compile(r"\d{4}[-/.]\d{1,2}\b|\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4}\b")


def _warn_of_dates_as_text(label: Any) -> None:
    if isinstance(label, str) and _DATE.match(label):
        warnings.warn(
            f"the row labels are text, first {label!r}, and are not read as times: no "
            "gaps are seen, and forecasts are numbered 1, 2, ... If they are dates, "
            "convert them with frame.index = pandas.to_datetime(frame.index)",
            SciSeqWarning,
            stacklevel=5,
        )


def calendar_names(calendar: Any, step: Step | None, panel: Panel) -> tuple[str, ...]:
    """Names of the calendar features to use."""
    if calendar is None:
        return ()
    if calendar == "auto":
        return () if panel.is_windows else calendar_for_step(step)
    names = tuple(calendar)
    calendar_features(panel.times[0][:1] if panel.times[0] is not None else None, names)
    return names


def marks(index: Any, names: Sequence[str]) -> npt.NDArray[np.float32]:
    """Calendar features of one index."""
    return calendar_features(index, names)


def check_lengths(panel: Panel, lookback: int, horizon: int) -> None:
    """Refuse series too short for a single window, listing the first ones."""
    needed = lookback + horizon
    short = np.flatnonzero(panel.lengths < needed)
    if len(short):
        _refuse_short(
            panel, short, f"{needed} (lookback {lookback} + horizon {horizon})"
        )


def check_context(panel: Panel, lookback: int) -> None:
    """Refuse series too short to forecast from."""
    short = np.flatnonzero(panel.lengths < lookback)
    if not len(short):
        return
    if panel.is_windows:
        raise InputError(
            f"windows have {panel.lengths[0]} rows, at least {lookback} (lookback) are "
            "needed",
            where="X, axis 1 (time)",
            hint="Give longer windows, or fit with a shorter lookback.",
        )
    _refuse_short(panel, short, f"{lookback} (lookback)")


def _refuse_short(panel: Panel, short: npt.NDArray[np.int64], needed: str) -> None:
    shown = ", ".join(
        f"{panel.series_label(int(one))}{_samples(int(panel.lengths[one]))}"
        for one in short[:5]
    )
    more = f" and {len(short) - 5} more series" if len(short) > 5 else ""
    raise InputError(
        f"too few rows: {shown}{more}; at least {needed} are needed",
        where="X",
        hint="Give a longer history, or lower lookback or horizon.",
    )


def _samples(count: int) -> str:
    return f"{count} sample{'' if count == 1 else 's'} (rows)"


def match_columns(
    panel: Panel,
    columns: tuple[Any, ...] | None,
    check_count: Callable[[int], None],
) -> Panel:
    """Bring the columns into the order of fit; names count wherever both have them."""
    if panel.columns is None or columns is None:
        check_count(panel.n_columns)
        return panel
    if panel.columns == columns:
        return panel
    given = {label: position for position, label in enumerate(panel.columns)}
    missing = [label for label in columns if label not in given]
    extra = [label for label in panel.columns if label not in set(columns)]
    if missing or extra:
        guess = nearest_name(missing[0], extra) if missing else ""
        raise InputError(
            f"the columns differ from those of fit: missing {missing[:10]}, "
            f"unexpected {extra[:10]}",
            where="X.columns",
            hint=f"{guess} Give exactly the columns of fit, in any order.".lstrip(),
        )
    return panel.select_columns([given[label] for label in columns])


def split_tail(
    panel: Panel, lookback: int, horizon: int, fraction: float
) -> tuple[Panel, Panel | None]:
    """Hold out the last rows of each series (or the last windows), in time order.

    The held-out part starts ``lookback`` rows early, so that its first target row is
    the first row that training never sees. Series too short for both are used for
    training alone.
    """
    if fraction <= 0:
        return panel, None
    if panel.is_windows:
        return _split_windows(panel, fraction)
    sizes = np.maximum(np.rint(panel.lengths * fraction), horizon).astype(np.int64)
    fits = panel.lengths - sizes >= lookback + horizon
    if not fits.any():
        warnings.warn(
            "the series are too short to hold out a validation tail of "
            f"{fraction:g} of the rows: training uses every row, without early "
            "stopping or calibrated intervals",
            SciSeqWarning,
            stacklevel=4,
        )
        return panel, None
    cuts = np.where(fits, panel.lengths - sizes, panel.lengths)
    training = _cut(panel, range(panel.n_series), [(0, int(cut)) for cut in cuts])
    kept = np.flatnonzero(fits)
    validation = _cut(
        panel,
        kept.tolist(),
        [(int(cuts[one]) - lookback, int(panel.lengths[one])) for one in kept],
    )
    return training, validation


def _split_windows(panel: Panel, fraction: float) -> tuple[Panel, Panel | None]:
    held_out = round(panel.n_series * fraction)
    if held_out == 0 or held_out == panel.n_series:
        return panel, None
    first = panel.n_series - held_out
    whole = (0, int(panel.lengths[0]))
    training = _cut(panel, range(first), [whole] * first)
    return training, _cut(panel, range(first, panel.n_series), [whole] * held_out)


def _cut(
    panel: Panel, series: Sequence[int], bounds: Sequence[tuple[int, int]]
) -> Panel:
    from dataclasses import replace

    made: dict[Any, Any] = {}
    times = []
    for one, (a, b) in zip(series, bounds, strict=True):
        index = panel.times[one]
        key = (id(index), a, b)  # series that share their labels go on sharing them
        if key not in made:
            made[key] = None if index is None else index[a:b]
        times.append(made[key])
    return replace(
        panel,
        values=tuple(
            panel.values[one][a:b] for one, (a, b) in zip(series, bounds, strict=True)
        ),
        times=tuple(times),
        series_ids=tuple(panel.series_ids[one] for one in series),
    )


def constant_columns(panel: Panel, targets: npt.NDArray[np.int64]) -> tuple[Any, ...]:
    """Labels of the targets that never change in the training data."""
    constant = []
    for position in targets:
        low = min(np.nanmin(values[:, position]) for values in panel.values)
        high = max(np.nanmax(values[:, position]) for values in panel.values)
        if low == high:
            label = position if panel.columns is None else panel.columns[position]
            constant.append(label if not isinstance(label, np.integer) else int(label))
    return tuple(constant)
