"""Scheduled jobs: one file says what to read, fit, forecast and write.

``sciseq run job.toml`` on the command line, or

>>> from sciseq.jobs import read_job, run_job

A run is determined by its inputs and its logical date: the same run twice writes the
same bytes and does no work the second time, and a killed run goes on where it was.
"""

from typing import Any

__all__ = ["Job", "read_job", "run_job"]

_HOMES = {
    "Job": "sciseq.jobs.job_file",
    "read_job": "sciseq.jobs.job_file",
    "run_job": "sciseq.jobs.run",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
