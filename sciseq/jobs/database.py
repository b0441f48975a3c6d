"""Databases of jobs: rows are read from them, and forecasts written to them.

PostgreSQL and SQLite, through SQLAlchemy. Their URLs hold passwords, and therefore
stand in environment variables only. Reading sees one state of the database, however
long it takes; a run is written whole or not at all, and once.
"""

from sciseq.jobs.database_access import engine_of
from sciseq.jobs.database_rows import digest_of_forecasts
from sciseq.jobs.database_runs import (
    Run,
    Stored,
    delete_runs,
    has_run,
    newest,
    write_run,
)
from sciseq.jobs.database_source import read_rows

__all__ = [
    "Run",
    "Stored",
    "delete_runs",
    "digest_of_forecasts",
    "engine_of",
    "has_run",
    "newest",
    "read_rows",
    "write_run",
]
