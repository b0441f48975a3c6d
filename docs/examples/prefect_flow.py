"""Prefect (3): a job every night, its exit codes as states of the flow."""

import subprocess
from typing import Any

from prefect import flow, task
from prefect.runtime import flow_run
from prefect.states import Completed, State

JOB = "/var/lib/sciseq/load.toml"

DONE, FAULT, REFUSED, SOME_FAILED, GATE, LOCKED, TEMPORARY = range(7)
INTERRUPTED = 130


class TemporaryError(RuntimeError):
    """What may go away by itself."""


async def may_go_away(task: Any, task_run: Any, state: State) -> bool:
    """Tell whether to try again; what a person must mend is not tried again."""
    error = await state.aresult(raise_on_failure=False)
    return isinstance(error, TemporaryError)


@task(retries=3, retry_delay_seconds=600, retry_condition_fn=may_go_away)
def run_job(job: str, as_of: str) -> int:
    """Run `sciseq run JOB --as-of DATE`, and return codes that are no failure."""
    code = subprocess.run(
        ["sciseq", "run", job, "--as-of", as_of], check=False
    ).returncode
    if code in (DONE, SOME_FAILED, LOCKED):
        return code
    if code in (TEMPORARY, INTERRUPTED) or code < 0:  # below zero: killed
        raise TemporaryError(f"exit code {code}: tried again, goes on where it was")
    # FAULT, REFUSED, GATE: a person has to look; another try would end alike.
    raise RuntimeError(f"exit code {code}: see the log and the report")


@flow
def sciseq_load(job: str = JOB, as_of: str | None = None) -> State:
    """Forecast for the day that the run was scheduled for, or for a given one."""
    code = run_job(job, as_of or f"{flow_run.scheduled_start_time:%Y-%m-%d}")
    if code == LOCKED:
        return Completed(name="Skipped", message="another run holds the lock")
    if code == SOME_FAILED:
        return Completed(
            name="SomeFailed", message="some series failed: see the report"
        )
    return Completed()


if __name__ == "__main__":
    sciseq_load.serve(name="nightly", cron="0 2 * * *")
