"""One run of a job, from its source to its record."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from sciseq import __version__
from sciseq.errors import DataQualityError, InputError
from sciseq.files import temporary_path
from sciseq.jobs.destinations import destination_of
from sciseq.jobs.executors import Failure, run_parts
from sciseq.jobs.exit_codes import DONE, GATE, SOME_FAILED
from sciseq.jobs.frames import without
from sciseq.jobs.hindsight import drift_since, realised_until
from sciseq.jobs.job_file import Job
from sciseq.jobs.logbook import Logbook
from sciseq.jobs.logical_dates import check_same_clocks
from sciseq.jobs.model_settings import build_model
from sciseq.jobs.models import (
    Decision,
    decide,
    fit_candidate,
    given_model,
    given_path,
    judge,
)
from sciseq.jobs.sources import read_inputs
from sciseq.jobs.state import JobState, file_digest, moment, short_hash
from sciseq.jobs.work import left_to_do, work_of
from sciseq.persistence import load

__all__ = ["Execution", "RunResult"]


@dataclass(frozen=True)
class RunResult:
    """How a run ended.

    Parameters
    ----------
    exit_code : int
        One of :data:`sciseq.jobs.exit_codes.EXIT_CODES`.
    record : dict
        What was done, without any time of the clock.
    is_repeated : bool
        Whether everything was there already, and nothing was done.
    """

    exit_code: int
    record: dict[str, Any]
    is_repeated: bool = False


class Execution:
    """One run of a job: read, decide, fit, judge, work, write, record.

    Parameters
    ----------
    job : Job
        What to do.
    state : JobState
        What earlier runs have left.
    log : Logbook
        Where to tell what happens.
    scheduler : str or None
        Goes before that of the job.
    """

    def __init__(
        self, job: Job, state: JobState, log: Logbook, scheduler: str | None
    ) -> None:
        self.job, self.state, self.log = job, state, log
        self.scheduler = scheduler or job["work"]["scheduler"]
        self.errors: Any = None

    # -------------------------------------------------------------- what is to be done

    def _look(self, as_of: Any) -> None:
        """Read the source, and find out which run this is."""
        self.history = read_inputs(self.job, as_of)
        self.as_of = self.history.as_of
        self.source = self.history.facts()
        # A model that this very run makes is not what it starts from.
        self._check_state()
        self.card = self._newest_model()
        version = self.card and self.card["version"]
        if self.job["model"]["method"] is None:
            version = file_digest(given_path(self.job))[:16]
        self.version = version
        self.run_id = short_hash(
            self.job.digest, self.source["digest"], str(self.as_of), version,
            __version__,
        )  # fmt: skip
        self.run = self.state.run(self.run_id)
        self.place = destination_of(self.job, self.as_of, self.run_id)

    def _check_state(self) -> None:
        """Refuse to go on from what another job knows, or at another clock."""
        records = self.state.records()
        for one in records:
            if one["job"] != self.job.name:
                raise InputError(
                    f"the state folder is that of the job {one['job']!r}",
                    where="state",
                    hint="Give each job a folder of its own.",
                )
        dates = [one["as_of"] for one in records]
        dates += [one["trained_as_of"] for one in self.state.models()]
        check_same_clocks(self.as_of, map(moment, dict.fromkeys(dates)))

    def _newest_model(self) -> dict[str, Any] | None:
        """Return the card of the newest model that is earlier than this run."""
        for card in self.state.models_before(self.as_of):
            if self.state.holds(card):
                return card
            self.log.warning("a model is damaged and not used", version=card["version"])
        return None

    def plan(self, as_of: Any) -> RunResult:
        """Say what a run would do."""
        self._look(as_of)
        decision = self._decide(None)
        if decision.is_fit:
            build_model(self.job["model"])  # are its settings right?
        record = self._record(decision)
        if self.place is not None:
            self.place.check()
        self.log.info("would read", **self.source)
        self.log.info("model", decision="fit" if decision.is_fit else "keep",
                      reason=decision.reason)  # fmt: skip
        self.log.info("would write", where=self.place.where if self.place else "model")
        return RunResult(DONE, record)

    # ------------------------------------------------------------------------ doing it

    def execute(self, as_of: Any) -> RunResult:
        """Do what has not been done yet."""
        self._look(as_of)
        self.log.info("run", run_id=self.run_id, as_of=str(self.as_of))
        self.log.info("read", **self.source)
        for note in self.history.notes:
            self.log.warning(note)
        self.state.clean(self.run)
        finished = self.run.record()
        if finished is not None:
            self.run.clean()  # it may have been stopped right after its record
        if finished is not None and self._is_whole(finished):
            self.log.info("nothing to do", status=finished["status"])
            return RunResult(finished["exit_code"], finished, is_repeated=True)
        if self.place is not None:
            self.place.check()
        self.run.prepare()
        late = self._late_rows()
        drift = self._drift()
        decision = self._decide(drift)
        self.log.info("fits" if decision.is_fit else "keeps", reason=decision.reason)
        record = self._record(decision)
        record["source"]["late_rows"] = late
        record["drift"] = drift
        model, passed = self._model(decision, record)
        if not passed:
            record |= {"status": "stopped by a gate", "exit_code": GATE}
            return self._finish(record, None)
        frame = None
        if self.place is not None:
            frame = self._work(model, record)
            self._write(frame, record)
        is_partial = bool(record["failed_series"])
        record |= {
            "status": "done with failures" if is_partial else "done",
            "exit_code": SOME_FAILED if is_partial else DONE,
        }
        return self._finish(record, frame)

    def _record(self, decision: Decision) -> dict[str, Any]:
        return {
            "job": self.job.name,
            "task": self.job.task,
            "run_id": self.run_id,
            "as_of": str(self.as_of),
            "model_version": None,
            "trained_as_of": None,
            "source": {**self.source, "late_rows": None},
            "parts": {"total": 0},
            "failed_series": [],
            "retrain": {
                "decision": "fitted" if decision.is_fit else "kept",
                "reason": decision.reason,
            },
            "gates": [],
            "drift": None,
            "destination": None,
            "notes": list(self.history.notes),
        }

    def _finish(self, record: dict[str, Any], frame: Any) -> RunResult:
        self._report(record, frame)
        self.run.finish(record)
        # A date that is filled in later must not be forgotten at once.
        if self.state.records()[-1]["run_id"] == self.run_id:
            for dropped in self.state.keep_runs(self.job["keep"]["runs"]):
                self.log.info("forgot an old run", run_id=dropped)
            if self.place is not None:
                self.place.forget()
        self.log.info(record["status"], exit_code=record["exit_code"])
        return RunResult(record["exit_code"], record)

    def _is_whole(self, record: Mapping[str, Any]) -> bool:
        """Tell whether what a finished run wrote is still there, by its hashes."""
        written = record["destination"]
        if self.place is None and record["model_version"] is not None:
            version = record["model_version"]
            return any(
                self.state.holds(one)
                for one in self.state.models()
                if one["version"] == version
            )
        if written is None or self.place is None:
            return True
        if self.place.holds(written["digest"], self.run_id):
            return True
        self.log.warning("the result is missing or was changed, it is made anew")
        return self._restore(record)

    # ------------------------------------------------------------ the rows, and drift

    def _late_rows(self) -> int | None:
        """Return how many rows came after the run before had read their time."""
        if self.source["first"] is None:
            return None  # files that hold no times
        before = [
            one for one in self.state.records() if moment(one["as_of"]) < self.as_of
        ]
        if not before:
            return 0
        known, date = before[-1]["source"], moment(before[-1]["as_of"])
        now = self.history.facts(date)
        n_late = now["rows"] - int(known["rows"])
        if now["digest"] == known["digest"]:
            return 0
        what = f"{n_late} rows came late" if n_late > 0 else "rows were changed"
        if n_late < 0:
            what = f"{-n_late} rows are gone"
        if self.job["source"]["late_rows"] == "refuse":
            raise DataQualityError(
                f"{what}: they are before {date}, which an earlier run had read",
                where=self.history.where,
                hint='Set source.late_rows = "use", or mend the source.',
            )
        self.log.warning(what, before=str(date))
        return int(n_late)

    def _drift(self) -> dict[str, Any] | None:
        """Compare the realised errors of earlier forecasts with those expected."""
        if self.job.task != "forecast":
            return None
        self.errors = realised_until(self.state, self.history, self.as_of, self.log)
        found = drift_since(self.errors, self.card, self.job["retrain"])
        if found is not None:
            self.log.info("drift", **found)
        return found

    def _decide(self, drift: Mapping[str, Any] | None) -> Decision:
        ratio = None if drift is None else drift["ratio"]
        return decide(self.job, self.card, self.as_of, ratio)

    # ---------------------------------------------------------------------- the model

    def _model(self, decision: Decision, record: dict[str, Any]) -> tuple[Any, bool]:
        """Return the model to use, and whether its gates let it pass."""
        if self.job["model"]["method"] is None:
            record["model_version"] = self.version
            return given_model(self.job), True
        if self.job.task == "backtest":
            return build_model(self.job["model"]), True  # fitted at its origins
        previous = self.card and self._load(self.card)
        if not decision.is_fit:
            assert self.card is not None
            record["model_version"] = self.card["version"]
            record["trained_as_of"] = self.card["trained_as_of"]
            return previous, True
        frame = self.history.frame
        card, folder = fit_candidate(self.job, frame, self.as_of, self.run, self.log)
        model = load(folder)
        self._note_left_out(card["left_out"], record)
        is_judged = self.job["gates"]["against"] or self.job["retrain"]["drift"]
        if is_judged:
            left_out = [one["series"] for one in card["left_out"]]
            rows = without(frame, left_out)
            record["gates"], card["expected"] = judge(self.job, rows, model, previous)
        for gate in record["gates"]:
            self.log.info("gate", **gate)
        if not all(gate["passed"] for gate in record["gates"]):
            self.log.error("the new model is worse than what it must not be worse than")
            if self.job["gates"]["on_failure"] == "stop" or previous is None:
                return None, False
            assert self.card is not None
            record["model_version"] = self.card["version"]
            record["trained_as_of"] = self.card["trained_as_of"]
            record["retrain"]["decision"] = "kept"
            record["notes"].append("the new model did not pass its gates")
            return previous, True
        self.state.add_model(card, folder)
        record["model_version"] = card["version"]
        record["trained_as_of"] = card["trained_as_of"]
        return model, True

    def _note_left_out(
        self, left_out: list[dict[str, str]], record: dict[str, Any]
    ) -> None:
        """Tell of series that were not learnt from; most can be forecast all the same.

        They are failures only where nothing but a model was asked for.
        """
        if self.place is None:
            record["failed_series"] = list(left_out)
        record["notes"] += [
            f"{one['series']} was left out of the fit: {one['error']}"
            for one in left_out
        ]

    def _load(self, card: Mapping[str, Any]) -> Any:
        return load(self.state.model_path(card["version"]))

    # ----------------------------------------------------------------------- the work

    def _work(self, model: Any, record: dict[str, Any]) -> Any:
        """Do the parts that are not there yet, and join all."""
        work = work_of(self.job, self.history, model)
        reused = self.run.keep_parts_of(work.plan)
        numbers: list[int] = []
        todo = left_to_do(work.parts(), reused, numbers)
        settings = self.job["work"]
        done = run_parts(
            work.function,
            work.shared,
            todo,
            n_jobs=settings["n_jobs"],
            threads=settings["threads"],
            scheduler=self.scheduler,
        )
        for position, result in done:
            number = numbers[position]
            if isinstance(result, Failure):
                result = work.failed(number, result)
            facts = {"failures": result.failures, "notes": result.notes}
            self.run.store_part(number, result.frame, facts)
            self.log.info("part done", part=number, rows=len(result.frame))
        finished = self.run.finished_parts()
        if reused:
            self.log.info("parts of an earlier attempt were used", parts=len(reused))
        record["parts"] = {"total": len(finished)}
        frames = []
        for number in finished:
            frame, facts = self.run.read_part(number)
            frames.append(frame)
            record["failed_series"] += facts["failures"]
            record["notes"] += [
                one for one in facts["notes"] if one not in record["notes"]
            ]
        for one in record["failed_series"]:
            self.log.error("failed", **one)
        frames = [one for one in frames if len(one)]
        if not frames:
            errors = [one["error"] for one in record["failed_series"]]
            raise DataQualityError(
                f"nothing could be done: {(errors or ['there is nothing to do'])[0]}",
                where=self.history.where,
            )
        return pd.concat(frames, ignore_index=work.is_numbered)

    def _write(self, frame: Any, record: dict[str, Any]) -> None:
        """Write the result; the run keeps a copy, to know later how good it was."""
        assert self.place is not None
        with temporary_path(self.run.output) as temporary:
            frame.to_parquet(temporary)
        record["output"] = file_digest(self.run.output)
        if self.job.task == "forecast":
            record["ends"] = str(frame.index.get_level_values(-1).max())
        digest = self._put(frame, record)
        record["destination"] = {
            "where": self.place.name,
            "rows": len(frame),
            "digest": digest,
        }
        self.log.info("wrote", where=self.place.where, rows=len(frame))

    def _put(self, frame: Any, record: dict[str, Any]) -> str:
        assert self.place is not None
        suffix = "" if self.place.path is None else self.place.path.suffix.lower()
        return self.place.write(self.history.as_result(frame, suffix), record)

    def _restore(self, record: Mapping[str, Any]) -> bool:
        """Write a result again from the copy of its run, when that is whole."""
        if not self.run.has_output(record):
            return False
        assert self.place is not None
        self.place.check()
        self._put(pd.read_parquet(self.run.output), dict(record))
        return True

    def _report(self, record: Mapping[str, Any], frame: Any) -> None:
        """Write the report, one file to look at."""
        if self.job["log"]["report"]:
            from sciseq.jobs.report import write_report

            is_forecast = self.job.task == "forecast"
            write_report(
                self.run.report,
                record,
                history=self.history.shown() if is_forecast else None,
                forecast=frame if is_forecast else None,
                errors=self.errors,
            )
