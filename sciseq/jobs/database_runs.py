"""Writing the forecasts of a run to a database: whole or not at all, and once.

Two tables. The forecasts are in the user's own: run_id, series (when there are
several), time, and one column per target or bound; its primary key is what stands
before the values. ``sciseq_runs``, beside it in the same schema, has one row per run
and table, with a digest of the rows that belong to it. The digest is that of the
values: it tells whether what is stored still is what was written.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sciseq.errors import CapabilityError, InputError
from sciseq.jobs.database_access import has_no_file, missing_table, transaction
from sciseq.jobs.database_frames import frames_of, instants
from sciseq.jobs.database_rows import RowDigest, forecast_rows, stored_tuples
from sciseq.jobs.database_tables import (
    Tables,
    find_tables,
    hold_table,
    key_columns,
    make_tables,
    stored_moment,
)

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine, Select, Table

__all__ = ["Run", "Stored", "delete_runs", "has_run", "newest", "write_run"]

_CHUNK_ROWS = 50_000
_READ_ROWS = 200_000


@dataclass(frozen=True)
class Run:
    """What is recorded of a run beside its forecasts.

    Parameters
    ----------
    run_id : str
        From the inputs of the run: the same inputs give the same.
    job : str
        Name of the job.
    model_version : str
        Model that made the forecasts.
    as_of : pandas.Timestamp
        Logical date; without a zone it is in UTC.
    """

    run_id: str
    job: str
    model_version: str
    as_of: Any


@dataclass(frozen=True)
class Stored:
    """What a database holds of a run.

    Parameters
    ----------
    rows : int
        Number of rows.
    digest : str
        :func:`~sciseq.jobs.database.digest_of_forecasts` of them.
    is_new : bool
        Whether this call wrote them; otherwise they were there.
    """

    rows: int
    digest: str
    is_new: bool


def write_run(engine: "Engine", table: str, frame: Any, run: Run) -> Stored:
    """Write the forecasts of a run in one transaction, unless they are there.

    Parameters
    ----------
    engine : sqlalchemy.Engine
        Of PostgreSQL or SQLite, from :func:`~sciseq.jobs.database.engine_of`.
    table : str
        Table of forecasts, as ``"forecasts"`` or ``"schema.forecasts"``. It is made
        when it is missing, and so is ``sciseq_runs``.
    frame : pandas.DataFrame
        Columns ``series`` (when there are several), ``time``, and numbers. NaN is
        stored as NULL; times with a zone as the instants that they are.
    run : Run
        What is recorded beside them.

    Returns
    -------
    Stored
        Rows that are there with the same digest are left alone. Rows of the same run
        with another digest, whoever changed them, are replaced.

    Raises
    ------
    InputError
        When the table has other columns (with the nearest name) or other types.
    DataQualityError
        For missing or repeated times.
    TemporaryError
        When the database cannot be reached, its disk is full, or another writer does
        not come to an end. Nothing of the run is stored then.
    CapabilityError
        For other databases.

    Notes
    -----
    Writers of one table wait for each other. A writer that is killed leaves nothing.

    Examples
    --------
    >>> import os, tempfile
    >>> import pandas as pd
    >>> from sciseq.jobs.database import engine_of
    >>> folder = tempfile.TemporaryDirectory()
    >>> os.environ["PLANNING_DB"] = f"sqlite:///{folder.name}/planning.db"
    >>> engine = engine_of("PLANNING_DB")
    >>> days = pd.date_range("2026-01-05", periods=3)
    >>> frame = pd.DataFrame({"time": days, "load": [5.0, 6.0, float("nan")]})
    >>> run = Run("0f3a", "load", "91bc", pd.Timestamp("2026-01-05"))
    >>> stored = write_run(engine, "forecasts", frame, run)
    >>> stored.rows, stored.is_new
    (3, True)
    >>> write_run(engine, "forecasts", frame, run).is_new
    False
    >>> has_run(engine, "forecasts", "0f3a", stored.digest)
    True
    >>> for rows in newest(engine, "forecasts", "load"):
    ...     print(rows[["time", "load", "run_id"]])
            time  load run_id
    0 2026-01-05   5.0   0f3a
    1 2026-01-06   6.0   0f3a
    2 2026-01-07   NaN   0f3a
    >>> del os.environ["PLANNING_DB"]
    >>> folder.cleanup()
    """
    if engine.dialect.name not in ("postgresql", "sqlite"):
        raise CapabilityError(
            f"forecasts are written to PostgreSQL and SQLite, not {engine.dialect.name}"
        )
    rows = forecast_rows(frame)
    digest = RowDigest(rows.columns)
    digest.add(rows)
    stored = Stored(len(rows), digest.hexdigest(), is_new=True)
    with transaction(engine, reads_only=False) as connection:
        hold_table(connection, table)
        tables = make_tables(connection, table, rows)
        if _is_stored(connection, tables, run.run_id, stored.digest):
            return Stored(stored.rows, stored.digest, is_new=False)
        _delete(connection, tables, run.run_id)
        names = list(tables.forecasts.columns.keys())
        chunks = stored_tuples(rows, names, run.run_id, _CHUNK_ROWS)
        _insert(connection, tables.forecasts, chunks)
        connection.execute(
            tables.runs.insert().values(
                table_name=tables.forecasts.name,
                run_id=run.run_id,
                job=run.job,
                as_of=stored_moment(connection, run.as_of),
                model_version=run.model_version,
                rows=stored.rows,
                digest=stored.digest,
            )
        )
    return stored


def has_run(engine: "Engine", table: str, run_id: str, digest: str) -> bool:
    """Tell whether all rows of a run are stored, by reading and hashing them.

    Parameters
    ----------
    engine : sqlalchemy.Engine
        Of PostgreSQL or SQLite.
    table : str
        Table of forecasts; it may be missing.
    run_id : str
        The run.
    digest : str
        What :func:`write_run` returned, or
        :func:`~sciseq.jobs.database.digest_of_forecasts`.

    Returns
    -------
    bool
        False as well when somebody changed a row since.

    Raises
    ------
    TemporaryError
        When the database cannot be reached.
    """
    if has_no_file(engine):
        return False
    with transaction(engine, reads_only=True) as connection:
        tables = find_tables(connection, table)
        return tables is not None and _is_stored(connection, tables, run_id, digest)


def delete_runs(engine: "Engine", table: str, job: str, keep: int) -> int:
    """Delete all but the newest runs of a job, in one transaction.

    Parameters
    ----------
    engine : sqlalchemy.Engine
        Of PostgreSQL or SQLite.
    table : str
        Table of forecasts; it may be missing.
    job : str
        Name of the job; runs of others in the same table stay.
    keep : int
        Runs to keep, at least 1: those of the latest logical dates.

    Returns
    -------
    int
        Number of runs deleted.

    Raises
    ------
    InputError
        When ``keep`` is below 1.
    TemporaryError
        When the database cannot be reached, or another writer does not come to an end.
    """
    import sqlalchemy

    if isinstance(keep, bool) or keep < 1:
        raise InputError(f"keep is {keep!r}, must be at least 1", where="keep")
    if has_no_file(engine):
        return 0
    with transaction(engine, reads_only=False) as connection:
        hold_table(connection, table)
        tables = find_tables(connection, table)
        if tables is None:
            return 0
        runs = tables.runs
        old = connection.scalars(
            sqlalchemy.select(runs.c.run_id)
            .where(runs.c.table_name == tables.forecasts.name, runs.c.job == job)
            .order_by(runs.c.as_of.desc(), runs.c.run_id.desc())
            .offset(keep)
        ).all()
        for run_id in old:
            _delete(connection, tables, run_id)
    return len(old)


def newest(
    engine: "Engine",
    table: str,
    job: str,
    as_of: Any = None,
    *,
    chunk_rows: int = _READ_ROWS,
) -> Iterator[Any]:
    """Read, for each series and time, what the latest run said of it.

    Parameters
    ----------
    engine : sqlalchemy.Engine
        Of PostgreSQL or SQLite.
    table : str
        Table of forecasts.
    job : str
        Name of the job.
    as_of : pandas.Timestamp, optional
        Runs of later logical dates are left out; without a zone it is in UTC.
    chunk_rows : int, default 200_000
        Most rows of a chunk.

    Yields
    ------
    pandas.DataFrame
        The columns of the table, and ``as_of`` of the run (in UTC); ordered by series
        and time. At least one chunk.

    Raises
    ------
    InputError
        When the table is not there, or not made by :func:`write_run`.
    TemporaryError
        When the database cannot be reached.
    """
    with transaction(engine, reads_only=True) as connection:
        tables = find_tables(connection, table)
        if tables is None:
            raise missing_table(connection, table)
        if not {"run_id", "time"} <= set(tables.forecasts.columns.keys()):
            raise InputError(f"the table {table!r} is not one of forecasts")
        statement = _newest(connection, tables, job, as_of)
        series = "series" if "series" in tables.forecasts.c else None
        for rows in frames_of(connection, statement, "time", series, chunk_rows):
            yield rows.assign(as_of=instants(rows["as_of"].tolist(), "as_of"))


def _newest(
    connection: "Connection", tables: Tables, job: str, as_of: Any
) -> "Select[Any]":
    import sqlalchemy

    forecasts, runs = tables.forecasts, tables.runs
    key = [forecasts.c[name] for name in ("series", "time") if name in forecasts.c]
    rank = sqlalchemy.func.row_number().over(
        partition_by=key, order_by=[runs.c.as_of.desc(), runs.c.run_id.desc()]
    )
    ranked = (
        sqlalchemy.select(forecasts, runs.c.as_of, rank.label("sciseq_rank"))
        .join(runs, runs.c.run_id == forecasts.c.run_id)
        .where(runs.c.table_name == forecasts.name, runs.c.job == job)
    )
    if as_of is not None:
        ranked = ranked.where(runs.c.as_of <= stored_moment(connection, as_of))
    chosen = ranked.subquery()
    shown = [one for one in chosen.c if one.name != "sciseq_rank"]
    return (
        sqlalchemy.select(*shown)
        .where(chosen.c.sciseq_rank == 1)
        .order_by(*key_columns(chosen, connection.dialect))
    )


# ------------------------------------------------------------------------------- rows


def _is_stored(
    connection: "Connection", tables: Tables, run_id: str, digest: str
) -> bool:
    """Compare a run with its digest: as recorded, and as computed from its rows."""
    import sqlalchemy

    recorded = connection.execute(
        sqlalchemy.select(tables.runs.c.digest).where(tables.is_run(run_id))
    ).scalar_one_or_none()
    if recorded != digest:
        return False
    forecasts = tables.forecasts
    statement = (
        sqlalchemy.select(*(forecasts.c[name] for name in tables.names))
        .where(forecasts.c.run_id == run_id)
        .order_by(*key_columns(forecasts, connection.dialect))
    )
    series = "series" if "series" in forecasts.c else None
    found = RowDigest(tables.names)
    for rows in frames_of(connection, statement, "time", series, _READ_ROWS):
        found.add(rows)
    return found.hexdigest() == digest


def _delete(connection: "Connection", tables: Tables, run_id: str) -> None:
    forecasts = tables.forecasts
    connection.execute(forecasts.delete().where(forecasts.c.run_id == run_id))
    connection.execute(tables.runs.delete().where(tables.is_run(run_id)))


def _insert(
    connection: "Connection", table: "Table", chunks: Iterable[list[tuple[Any, ...]]]
) -> None:
    if connection.dialect.name == "postgresql":
        _copy(connection, table, chunks)
        return
    # All columns in the order of the table, as the tuples have them.
    statement = str(table.insert().compile(dialect=connection.dialect))
    for chunk in chunks:
        connection.exec_driver_sql(statement, chunk)


def _copy(
    connection: "Connection", table: "Table", chunks: Iterable[list[tuple[Any, ...]]]
) -> None:
    """Send rows with COPY, which is many times faster than INSERT."""
    from psycopg.sql import SQL, Identifier

    name = [one for one in (table.schema, table.name) if one is not None]
    columns = SQL(", ").join(Identifier(one) for one in table.columns.keys())
    command = SQL("COPY {} ({}) FROM STDIN").format(Identifier(*name), columns)
    driver_connection: Any = connection.connection.driver_connection
    with driver_connection.cursor() as cursor, cursor.copy(command) as copy:
        for chunk in chunks:
            for row in chunk:
                copy.write_row(row)
