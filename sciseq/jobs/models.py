"""Which model a run uses: the one there is, or a new one that passes its gates."""

import contextlib
import warnings
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from sciseq.data.containers import read_panel
from sciseq.data.timeline import Step, infer_step
from sciseq.errors import InputError, SciSeqError, SciSeqWarning
from sciseq.jobs.exit_codes import TemporaryError
from sciseq.jobs.frames import rows_before, without
from sciseq.jobs.job_file import Job
from sciseq.jobs.logbook import Logbook
from sciseq.jobs.model_settings import build_model
from sciseq.jobs.state import (
    RunFolder,
    file_digest,
    moment,
    read_json,
    short_hash,
    write_json,
)
from sciseq.persistence import load

__all__ = [
    "Decision",
    "decide",
    "fit_candidate",
    "given_model",
    "given_path",
    "judge",
]


class Decision(NamedTuple):
    """Whether a run fits a model.

    Parameters
    ----------
    is_fit : bool
        Whether it does.
    reason : str
        Why, or why not.
    """

    is_fit: bool
    reason: str


def decide(
    job: Job, card: Mapping[str, Any] | None, as_of: Any, drift: float | None
) -> Decision:
    """Say whether a run fits a new model.

    Parameters
    ----------
    job : Job
        With its retrain policy.
    card : mapping or None
        Of the newest model that saw no row after the logical date.
    as_of : pandas.Timestamp or int
        Logical date.
    drift : float or None
        Realised errors as a multiple of those expected.

    Raises
    ------
    InputError
        When there is no model, and none may be fitted.
    """
    policy = job["retrain"]
    if job["model"]["method"] is None:
        return Decision(False, "a saved model is used")
    if card is None:
        if policy["when"] == "never":
            raise InputError(
                "there is no model yet, and none may be fitted",
                where="retrain.when",
                hint='Set retrain.when = "missing".',
            )
        return Decision(True, "there is no model yet")
    if card["settings"] != short_hash(job["model"]):
        return Decision(True, "the method or its settings have changed")
    if policy["when"] == "always":
        return Decision(True, "every run fits")
    age = as_of - moment(card["trained_as_of"])
    if policy["every"] is not None:
        if not isinstance(age, pd.Timedelta):
            raise InputError(
                "the rows carry no dates, so that models have no age",
                where="retrain.every",
                hint='Use retrain.when = "always", or name source.time_column.',
            )
        if age >= pd.Timedelta(policy["every"]):
            return Decision(True, f"the model is {age} old")
    if policy["drift"] is not None and drift is not None and drift > policy["drift"]:
        return Decision(True, f"errors are {drift:.3g} times those expected")
    return Decision(False, f"the model of {card['trained_as_of']} is kept")


def given_path(job: Job) -> Path:
    """Return where the saved model of a job is.

    Raises
    ------
    TemporaryError
        When it is not there.
    """
    if job["model"]["path"] is None:
        from sciseq.sequencing.pretrained_model import PRETRAINED

        return PRETRAINED
    path = job.path(job["model"]["path"])
    if not path.exists():
        raise TemporaryError(
            "the saved model is not there",
            where=str(path),
            hint="Mend model.path, or make the model.",
        )
    return path


def given_model(job: Job) -> Any:
    """Load the saved model that a job names; for spectra the pretrained one else."""
    if job["model"]["path"] is None:
        from sciseq.sequencing.sequencer import PeptideSequencer

        return PeptideSequencer.pretrained()
    return load(given_path(job))


# --------------------------------------------------------------------- a new model


def fit_candidate(
    job: Job, frame: Any, as_of: Any, run: RunFolder, log: Logbook
) -> tuple[dict[str, Any], Path]:
    """Fit a new model, or take the one that a killed run had fitted.

    Parameters
    ----------
    job : Job
        What to fit.
    frame : pandas.DataFrame
        Rows before the logical date.
    as_of : pandas.Timestamp or int
        Logical date.
    run : RunFolder
        Where the candidate and its checkpoints are kept.
    log : Logbook
        Told of series that are left out.

    Returns
    -------
    card : dict
        What is known of the model.
    folder : Path
        Where it is saved.
    """
    folder, note = run.candidate / "model", run.candidate / "card.json"
    card = read_json(note)
    if card is not None and folder.is_dir() and card["digest"] == file_digest(folder):
        log.info("goes on with the model that was fitted", version=card["version"])
        return card, folder
    model = build_model(job["model"])
    failed: list[dict[str, str]] = []
    if isinstance(frame, pd.DataFrame):
        rows, failed = without_broken_series(frame, model)
        start = judged_from(job, rows, model)
        if start is not None:
            rows, short = without_broken_series(rows_before(rows, start), model)
            failed += short
        for one in failed:
            log.warning("series left out of the fit", **one)
        _fit(model, (rows,), run)
    else:
        _fit(model, (frame.sequences, frame.labels), run)
    run.candidate.mkdir(exist_ok=True)
    model.save(folder, overwrite=True)
    digest = file_digest(folder)
    card = {
        "version": digest[:16],
        "digest": digest,
        "settings": short_hash(job["model"]),
        "trained_as_of": str(as_of),
        "left_out": failed,
    }
    write_json(note, card)
    return card, folder


def _fit(model: Any, data: tuple[Any, ...], run: RunFolder) -> None:
    has_checkpoints = "checkpoint_dir" in model.get_params()
    if has_checkpoints and model.checkpoint_dir is None:
        run.checkpoints.mkdir(exist_ok=True)
        model.set_params(checkpoint_dir=str(run.checkpoints))
        model.fit(*data)
        model.set_params(checkpoint_dir=None)
    else:
        model.fit(*data)
    if getattr(model, "stopped_", "") == "interrupted":
        raise KeyboardInterrupt
    _forget_the_clock(model)


def _forget_the_clock(model: Any) -> None:
    """Take how long epochs took out of a model: the same fit gives the same bytes."""
    for row in getattr(model, "history_", None) or ():
        if isinstance(row, dict):
            row.pop("seconds", None)
    members = getattr(model, "estimators_", None) or ()
    for one in members.values() if isinstance(members, dict) else members:
        _forget_the_clock(one[-1] if isinstance(one, tuple) else one)


def without_broken_series(frame: Any, model: Any) -> tuple[Any, list[dict[str, str]]]:
    """Leave out the series that no model could learn from, and say why.

    Parameters
    ----------
    frame : pandas.DataFrame
        One table, or a panel.
    model : forecaster
        Whose rules for missing values hold.

    Returns
    -------
    kept : pandas.DataFrame
        The others.
    failed : list of dict
        ``series`` and ``error`` of those left out.

    Raises
    ------
    SciSeqError
        When none is left, or a single table is broken.
    """
    if frame.index.nlevels == 1 or _is_whole(frame, model):
        return frame, []
    step = _usual_step(frame)
    failed, n_good = [], 0
    for label, rows in frame.groupby(level=0, sort=False):
        try:
            _check(rows, model, step)
            n_good += 1
        except SciSeqError as error:
            failed.append({"series": str(label), "error": str(error)})
            last = error
    if not n_good:
        raise last
    return without(frame, [one["series"] for one in failed]), failed


def _is_whole(frame: Any, model: Any) -> bool:
    try:
        _check(frame, model)
    except SciSeqError:
        return False
    return True


def _usual_step(frame: Any) -> Any:
    """Return the step of most series: those with another one are broken."""
    steps: list[Step] = []
    for _, rows in frame.groupby(level=0, sort=False):
        with contextlib.suppress(SciSeqError):
            found = infer_step(rows.index.get_level_values(1))
            steps += [] if found is None else [found]
    return Counter(steps).most_common(1)[0][0] if steps else None


def _check(rows: Any, model: Any, step: Any = None) -> None:
    from sciseq.data.panel import check_finite
    from sciseq.forecasting.training_table import common_step

    panel = read_panel(rows)
    common_step(panel, expected=step)
    check_finite(panel, allow_missing=getattr(model, "missing", "error") != "error")
    shortest = int(panel.lengths.min())
    needed = (getattr(model, "lookback", None) or 1) + getattr(model, "horizon", 1)
    if shortest < needed:
        raise InputError(
            f"the series has {shortest} rows, {needed} are needed to learn from",
            where="source",
        )


# ---------------------------------------------------------------------------- gates


def judged_from(job: Job, frame: Any, model: Any) -> Any:
    """Return the first time that gates judge: a candidate must not have seen it."""
    if not job["gates"]["against"] and job["retrain"]["drift"] is None:
        return None
    times = frame.index.get_level_values(-1).unique().sort_values()
    n_judged = job["gates"]["origins"] + model.horizon - 1
    if n_judged >= len(times):
        raise InputError(
            f"the gates judge the last {n_judged} times, the source has {len(times)}",
            where="gates.origins",
            hint="Judge fewer origins, or forecast fewer rows.",
        )
    return times[-n_judged]


def errors_of(job: Job, model: Any, frame: Any, *, fit: bool = False) -> Any:
    """Return the errors of a model on the rows that gates judge, by target."""
    from sciseq.model_selection import backtest

    metrics = sorted({"mae", job["gates"]["metric"]})
    with warnings.catch_warnings():
        # The previous model has learnt from some of the rows that are judged, when it
        # is young: that is to its advantage, and the gate the stricter for it.
        warnings.simplefilter("ignore", SciSeqWarning)
        return backtest(
            model,
            frame,
            horizon=model.horizon,
            n_origins=job["gates"]["origins"],
            fit=fit,
            metrics=metrics,
            keep_forecasts=False,
        )


def judge(
    job: Job, frame: Any, candidate: Any, previous: Any
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Compare a new model with what its gates name.

    Parameters
    ----------
    job : Job
        With its gates.
    frame : pandas.DataFrame
        Rows before the logical date.
    candidate, previous : forecaster
        The new model; the one before, or None.

    Returns
    -------
    gates : list of dict
        A row for each comparison.
    expected : dict
        Mean absolute error of the new model by target.
    """
    rules = job["gates"]
    found = errors_of(job, candidate, frame)
    new = float(found.metrics[rules["metric"]].iloc[0])
    gates = []
    for name in rules["against"]:
        other = _rival(name, candidate, previous)
        if other is None:
            continue
        result = errors_of(job, other, frame, fit=name != "previous")
        error = float(result.metrics[rules["metric"]].iloc[0])
        gates.append(
            {
                "against": name,
                "metric": rules["metric"],
                "new": new,
                "other": error,
                # An error that is no number passes no gate.
                "passed": bool(new <= error * (1 + rules["tolerance"])),
            }
        )
    expected = {str(k): float(v) for k, v in found.per_target["mae"].items()}
    return gates, expected


def _rival(name: str, candidate: Any, previous: Any) -> Any:
    if name == "previous":
        return previous
    from sciseq.forecasting.naive import NaiveForecaster

    shared = {key: getattr(candidate, key) for key in ("horizon", "targets", "missing")}
    strategy = "seasonal" if name == "seasonal-naive" else "last"
    return NaiveForecaster(strategy=strategy, **shared)
