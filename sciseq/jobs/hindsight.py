"""How good earlier forecasts were, as far as it is known at a logical date."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from sciseq.errors import FileFormatError, SciSeqError
from sciseq.jobs.drift import drift_of, realised_errors, update_errors
from sciseq.jobs.error_table import read_errors
from sciseq.jobs.logbook import Logbook
from sciseq.jobs.state import JobState, moment

__all__ = ["drift_since", "realised_until"]


def realised_until(state: JobState, history: Any, as_of: Any, log: Logbook) -> Any:
    """Store the errors that have become known, and return those known by a date.

    Parameters
    ----------
    state : JobState
        Of the job: its runs, and the table of errors.
    history : History or FieldHistory
        Rows before the logical date; they are only read when a forecast waits for them.
    as_of : pandas.Timestamp or int
        Logical date. Later runs, and what came true later, do not count, so that a
        date which is filled in is judged as it would have been then.
    log : Logbook
        Told of forecasts that cannot be compared any more.

    Returns
    -------
    pandas.DataFrame or None
        None before the first forecast has come true.
    """
    file = state.errors_file
    new = _new_errors(state, history, as_of, log, is_first=not file.exists())
    try:
        errors = update_errors(file, pd.concat(new)) if new else read_errors(file)
    except FileFormatError as error:
        log.warning("the table of errors is damaged and made anew", error=str(error))
        file.unlink()
        return realised_until(state, history, as_of, log)
    if errors is None:
        return None
    return errors[(errors["time"] < as_of) & (errors["as_of"] < as_of)]


def _new_errors(
    state: JobState, history: Any, as_of: Any, log: Logbook, *, is_first: bool
) -> list[Any]:
    """Return the errors of forecasts that have come true since the run before.

    When there is no table yet they are those of all forecasts that are kept.
    """
    before = [
        one
        for one in state.records()
        if moment(one["as_of"]) < as_of and one.get("ends") is not None
    ]
    # What had come true by then, that run has seen.
    seen = moment(before[-1]["as_of"]) if before else None
    found = []
    for one in before:
        if not is_first and moment(one["ends"]) < seen:
            continue
        run = state.run(one["run_id"])
        date = moment(one["as_of"])
        if not run.has_output(one):
            log.warning("the kept forecast is lost or damaged", run_id=run.path.name)
            continue
        forecast = pd.read_parquet(run.output)
        try:
            new = realised_errors(
                forecast, history.frame, as_of=date, run_id=run.path.name
            )
        except SciSeqError as error:  # the source has other columns by now
            log.warning("a forecast cannot be compared", run_id=run.path.name,
                        error=str(error))  # fmt: skip
            continue
        found.append(new)
    return found


def drift_since(
    errors: Any, card: Mapping[str, Any] | None, policy: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Return the drift of the model in use; None when it is unknown.

    Parameters
    ----------
    errors : pandas.DataFrame or None
        Realised errors.
    card : mapping or None
        Of the model, with the errors that it showed when it was fitted.
    policy : mapping
        Section ``retrain`` of the job.

    Returns
    -------
    dict or None
        ``ratio``, ``runs`` and ``threshold``.
    """
    expected = (card or {}).get("expected")
    if policy["drift"] is None or errors is None or not expected:
        return None
    # A new model is not judged by the errors of the one before.
    own = errors[errors["as_of"] >= moment((card or {})["trained_as_of"])]
    found = drift_of(own, expected, last_runs=policy["drift_runs"])
    return found and {**found, "threshold": policy["drift"]}
