"""Airflow (3.1 or newer): a job every night, its exit codes as states of the task."""

import subprocess
from datetime import UTC, datetime, timedelta

from airflow.sdk import dag, task
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

JOB = "/var/lib/sciseq/load.toml"

DONE, FAULT, REFUSED, SOME_FAILED, GATE, LOCKED, TEMPORARY = range(7)
INTERRUPTED = 130


@dag(
    schedule="0 2 * * *",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,  # True fills in the dates since start_date, one after another
    max_active_runs=1,
)
def sciseq_load():
    """Forecast, and tell of series that failed without holding up what comes after."""

    @task(retries=3, retry_delay=timedelta(minutes=10))
    def forecast(ds: str | None = None) -> int:
        """Run `sciseq run JOB --as-of {{ ds }}`."""
        code = subprocess.run(
            ["sciseq", "run", JOB, "--as-of", str(ds)], check=False
        ).returncode
        if code in (DONE, SOME_FAILED):
            return code
        if code == LOCKED:
            raise AirflowSkipException("another run of the job is under way")
        if code in (TEMPORARY, INTERRUPTED) or code < 0:  # below zero: killed
            raise RuntimeError(f"exit code {code}: tried again, goes on where it was")
        # FAULT, REFUSED, GATE: a person has to look; another try would end alike.
        raise AirflowFailException(f"exit code {code}: see the log and the report")

    @task
    def tell_of_failed_series(code: int) -> None:
        """Fail, beside the tasks that use the forecast."""
        if code == SOME_FAILED:
            raise AirflowFailException("some series failed: see the report")

    tell_of_failed_series(forecast())


sciseq_load()
