"""Reaching a database: its URL, its transactions, and its errors in plain words.

A URL holds a password. It is read from an environment variable and nowhere else, and
no message, log or ``repr`` repeats it: what SQLAlchemy or a driver says is put into one
line of our own, without the statement and its values.
"""

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sciseq.errors import (
    InputError,
    MissingDependencyError,
    SciSeqError,
    nearest_name,
)
from sciseq.jobs.exit_codes import TemporaryError

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection, Engine

__all__ = [
    "engine_of",
    "has_no_file",
    "missing_table",
    "place_of",
    "plain_errors",
    "schema_and_name",
    "transaction",
]

# Seconds for which a writer of SQLite waits for another one.
_PATIENCE = 60.0
_LONGEST_MESSAGE = 400
_EXAMPLES = "postgresql://user:password@host/database or sqlite:///folder/file.db"


# ------------------------------------------------------------------------------- URLs


def engine_of(variable_name: str) -> "Engine":
    """Return the SQLAlchemy engine of the database whose URL a variable holds.

    Parameters
    ----------
    variable_name : str
        Name of an environment variable, such as ``"SALES_DB"``. Its value is a URL:
        ``postgresql://user:password@host/database`` (always through psycopg 3) or
        ``sqlite:///folder/file.db``, relative to the working directory. A password
        with ``@``, ``/`` or ``:`` is percent-encoded: ``%40``, ``%2F``, ``%3A``.

    Returns
    -------
    sqlalchemy.Engine
        Nothing has been connected yet. It keeps no connection open between calls.

    Raises
    ------
    InputError
        When the variable is not set, or holds no URL that can be used.
    MissingDependencyError
        When SQLAlchemy or the driver is not installed.

    Examples
    --------
    >>> import os
    >>> os.environ["SALES_DB"] = "postgresql://clerk:hunter2@db.example/sales"
    >>> engine_of("SALES_DB")
    Engine(postgresql+psycopg://clerk:***@db.example/sales)
    >>> del os.environ["SALES_DB"]
    """
    # Whoever writes the URL here by mistake does not see it in a log.
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", variable_name):
        raise InputError(
            "a database is given by the name of an environment variable that holds "
            "its URL, and this is no such name",
            where="url_env",
            hint='Write url_env = "SALES_DB", and set SALES_DB where the job runs.',
        )
    text = os.environ.get(variable_name, "").strip()
    if not text:
        raise InputError(
            f"the environment variable {variable_name} is not set",
            where="url_env",
            hint=f"Set it to the URL of the database: {_EXAMPLES}.",
        )
    return _engine(text, variable_name)


def _engine(text: str, variable_name: str) -> "Engine":
    sqlalchemy = _sqlalchemy()
    url = _checked(_parsed(text, variable_name), variable_name)
    arguments = {}
    if url.get_backend_name() == "sqlite" and "timeout" not in url.query:
        arguments["timeout"] = _PATIENCE
    try:
        # A job connects a few times in all: nothing is kept open, nor shared by forks.
        engine = sqlalchemy.create_engine(
            url,
            poolclass=sqlalchemy.NullPool,
            connect_args=arguments,
            hide_parameters=True,
        )
    except sqlalchemy.exc.NoSuchModuleError:
        raise InputError(
            f"{url.drivername!r} is no kind of database that SQLAlchemy knows here",
            where=variable_name,
            hint=f"Write {_EXAMPLES}.",
        ) from None
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"{url.get_backend_name()} is reached through {error.name}, which is not "
            "installed",
            where=variable_name,
            hint="Install it: pip install 'sciseq[database]'.",
        ) from None
    return _typed(engine)


def _typed(engine: Any) -> "Engine":
    made: Engine = engine
    return made


def _sqlalchemy() -> Any:
    try:
        import sqlalchemy
    except ModuleNotFoundError:
        raise MissingDependencyError(
            "databases are reached through SQLAlchemy, which is not installed",
            hint="Install it: pip install 'sciseq[database]'.",
        ) from None
    return sqlalchemy


def _parsed(text: str, variable_name: str) -> "URL":
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        return make_url(text)
    except (ArgumentError, ValueError):
        pass  # The messages may quote the URL: not even the context keeps them.
    raise InputError(
        f"the value of {variable_name} is no URL of a database",
        where=variable_name,
        hint=f"Write {_EXAMPLES}; in a password @ is %40, / is %2F and : is %3A.",
    )


def _checked(url: "URL", variable_name: str) -> "URL":
    """Refuse URLs that would show a secret later, or keep nothing."""
    # "user:p@ss@host": what stands behind the first @ is part of the password.
    if "@" in (url.host or ""):
        raise InputError(
            f"the URL in {variable_name} has more than one @",
            where=variable_name,
            hint="In a password @ is %40, / is %2F and : is %3A.",
        )
    # Of a URL only the password's own place is hidden wherever the URL is shown.
    if any("password" in key.lower() for key in url.query):
        raise InputError(
            f"the URL in {variable_name} has a password behind the question mark",
            where=variable_name,
            hint="Write it as in postgresql://user:password@host/database.",
        )
    if url.get_backend_name() == "sqlite" and url.database in (None, "", ":memory:"):
        raise InputError(
            f"the URL in {variable_name} names no file; SQLite would keep nothing",
            where=variable_name,
            hint="Write sqlite:///folder/file.db, with three slashes or, for an "
            "absolute path, four.",
        )
    if url.get_backend_name() in ("postgresql", "postgres"):
        return url.set(drivername="postgresql+psycopg")
    return url


def place_of(engine: "Engine") -> str:
    """Return where a database is, without user and password."""
    url = engine.url
    host = f" at {url.host}" if url.host else ""
    return f"{url.get_backend_name()} {url.database}{host}"


def has_no_file(engine: "Engine") -> bool:
    """Tell whether this is SQLite, and its file is not there.

    SQLite makes an empty file of any name that is opened, even to read.
    """
    url = engine.url
    return (
        url.get_backend_name() == "sqlite"
        and "uri" not in url.query
        and not Path(url.database or "").exists()
    )


# ----------------------------------------------------------------------- transactions


@contextlib.contextmanager
def transaction(
    engine: "Engine", *, reads_only: bool, time_zone: str = "UTC"
) -> Iterator["Connection"]:
    """Yield a connection inside one transaction, which any error undoes.

    A reader sees one state of the database from its first statement to the end, and
    can change nothing; of SQLite's writers there is one at a time.

    Parameters
    ----------
    engine : sqlalchemy.Engine
        Of PostgreSQL or SQLite; others can be read, as their defaults will have it.
    reads_only : bool
        Whether nothing is written.
    time_zone : str, default "UTC"
        What PostgreSQL takes for the zone of times without one.

    Yields
    ------
    sqlalchemy.Connection
        Inside the transaction.

    Raises
    ------
    TemporaryError, InputError
        For what the database or its driver refuses.
    """
    name = engine.dialect.name
    if reads_only and has_no_file(engine):
        raise InputError(f"no database file is called {engine.url.database}")
    with plain_errors(engine), engine.connect() as connection:
        if name == "sqlite":
            # The driver's own BEGIN comes late, and not at all before CREATE TABLE.
            connection.execution_options(isolation_level="AUTOCOMMIT")
            with _spelt_out(connection, "BEGIN" if reads_only else "BEGIN IMMEDIATE"):
                yield connection
            return
        if name == "postgresql":
            connection.execution_options(
                isolation_level="REPEATABLE READ" if reads_only else "READ COMMITTED",
                postgresql_readonly=reads_only,
            )
        with connection.begin():
            if name == "postgresql":
                _set_time_zone(connection, time_zone)
            yield connection


@contextlib.contextmanager
def _spelt_out(connection: "Connection", begin: str) -> Iterator[None]:
    connection.exec_driver_sql(begin)
    try:
        yield
        connection.exec_driver_sql("COMMIT")
    except BaseException:
        # A full disk may have ended the transaction already.
        if _driver_connection(connection).in_transaction:
            connection.exec_driver_sql("ROLLBACK")
        raise


def _driver_connection(connection: "Connection") -> Any:
    return connection.connection.driver_connection


def _set_time_zone(connection: "Connection", time_zone: str) -> None:
    import sqlalchemy

    local = sqlalchemy.func.set_config("TimeZone", time_zone, True)
    connection.execute(sqlalchemy.select(local))


# ----------------------------------------------------------------------------- errors


@contextlib.contextmanager
def plain_errors(engine: "Engine") -> Iterator[None]:
    """Put the errors of SQLAlchemy and of the driver into one line of our own."""
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (SQLAlchemyError, engine.dialect.loaded_dbapi.Error) as error:
        raise _plain(error, engine) from None


def _plain(error: Exception, engine: "Engine") -> SciSeqError:
    cause = getattr(error, "orig", None) or error
    words = " ".join(str(cause.args[0] if cause.args else type(cause).__name__).split())
    if engine.url.password:
        words = words.replace(str(engine.url.password), "***")
    if len(words) > _LONGEST_MESSAGE:
        words = f"{words[:_LONGEST_MESSAGE]} ..."
    if _may_pass(cause, engine):
        return TemporaryError(words, where=place_of(engine))
    return InputError(words, where=place_of(engine))


def _may_pass(cause: BaseException, engine: "Engine") -> bool:
    """Tell whether the same call may do later: no connection, a lock, a full disk."""
    if not isinstance(cause, engine.dialect.loaded_dbapi.OperationalError):
        return False
    # sqlite3 gives errors in a statement the same class; their code is 1. psycopg does
    # not tell why a connection was refused: a wrong password counts as what may pass.
    return getattr(cause, "sqlite_errorcode", None) != 1


# ----------------------------------------------------------------------------- tables


def schema_and_name(table: str) -> tuple[str | None, str]:
    """Split ``"schema.table"``; without a dot the schema is the database's own choice.

    Examples
    --------
    >>> schema_and_name("forecasts")
    (None, 'forecasts')
    >>> schema_and_name("planning.forecasts")
    ('planning', 'forecasts')
    """
    schema, _, name = table.rpartition(".")
    return schema or None, name


def missing_table(connection: "Connection", table: str) -> InputError:
    """Return the error for a table that is not there, with the nearest name."""
    import sqlalchemy

    schema, name = schema_and_name(table)
    inspector = sqlalchemy.inspect(connection)
    known = inspector.get_table_names(schema) + inspector.get_view_names(schema)
    return InputError(
        f"the database has no table {table!r}",
        where=place_of(connection.engine),
        hint=nearest_name(name, known) or f"It has {_listed(known)}.",
    )


def _listed(names: list[str], most: int = 10) -> str:
    shown = ", ".join(sorted(names)[:most])
    return f"{shown}{', ...' if len(names) > most else ''}" if names else "none"
