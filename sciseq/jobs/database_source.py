"""Reading a table or a query of a database in chunks, up to a date, in constant memory.

Times. PostgreSQL's ``timestamptz`` comes out in UTC, ``timestamp`` and ``date`` without
a zone. SQLite has no type for times: its texts are parsed (ISO 8601, such as
``2026-01-05``, ``2026-01-05 06:00:00`` or ``2026-01-05T06:00+01:00``), compared and
ordered as the instants that they mean, whichever way each is written; those with an
offset come out in UTC.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pandas as pd

from sciseq.errors import InputError, nearest_name
from sciseq.jobs.database_access import missing_table, schema_and_name, transaction
from sciseq.jobs.database_frames import frames_of

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection, Engine, FromClause, Select

__all__ = ["read_rows"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_REMEMBERED_TIMES = 20_000


@dataclass(frozen=True)
class _Wanted:
    """What to read: the parameters of :func:`read_rows`."""

    table: str | None
    query: str | None
    time_column: str
    series_column: str | None
    before: Any
    time_zone: str
    chunk_rows: int


def read_rows(
    engine: "Engine",
    *,
    table: str | None = None,
    query: str | None = None,
    time_column: str,
    series_column: str | None = None,
    before: Any = None,
    time_zone: str = "UTC",
    chunk_rows: int = 200_000,
) -> Iterator[Any]:
    """Read a table or a query by chunks, ordered by series and time.

    The database orders and cuts the rows, and keeps what is not yet needed: memory is
    that of one chunk. All chunks show one state of the database, whatever others write
    meanwhile (PostgreSQL: ``REPEATABLE READ READ ONLY``).

    Parameters
    ----------
    engine : sqlalchemy.Engine
        From :func:`~sciseq.jobs.database.engine_of`.
    table : str, optional
        Table or view, as ``"sales"`` or ``"schema.sales"``. Either this or ``query``.
    query : str, optional
        A ``SELECT`` without parameters, used as a subquery.
    time_column : str
        Column of times.
    series_column : str, optional
        Column that names the series.
    before : pandas.Timestamp, optional
        Only rows with a time before it are read; all by default.
    time_zone : str, default "UTC"
        What times without a zone stand for where they meet times with one: rows when
        ``before`` has a zone, or ``before`` when the rows have one.
    chunk_rows : int, default 200_000
        Most rows of a chunk.

    Yields
    ------
    pandas.DataFrame
        The columns of the table or query, at least one chunk even if it has no row.
        Numbers of any kind are float64, and NULL is NaN. The series are integers or
        text; their order is that of the database.

    Raises
    ------
    InputError
        For a table or column that is not there (with the nearest name), numbers in
        the column of times, or what the database refuses.
    DataQualityError
        For rows without a time or series, and times that cannot be read or have a
        zone in some rows only.
    TemporaryError
        When the database cannot be reached, or a lock is not given up.

    Notes
    -----
    Unless SQLite's file is in WAL mode, nobody can write to it while it is read.

    Examples
    --------
    >>> import os, sqlite3, tempfile
    >>> from sciseq.jobs.database import engine_of
    >>> folder = tempfile.TemporaryDirectory()
    >>> file = f"{folder.name}/sales.db"
    >>> with sqlite3.connect(file) as connection:
    ...     _ = connection.execute("CREATE TABLE sales (day, sold)")
    ...     _ = connection.execute(
    ...         "INSERT INTO sales VALUES ('2026-01-02', 5), ('2026-01-01', NULL)"
    ...     )
    >>> os.environ["SALES_DB"] = f"sqlite:///{file}"
    >>> for rows in read_rows(engine_of("SALES_DB"), table="sales", time_column="day"):
    ...     print(rows)
             day  sold
    0 2026-01-01   NaN
    1 2026-01-02   5.0
    >>> del os.environ["SALES_DB"]
    >>> folder.cleanup()
    """
    if (table is None) == (query is None):
        raise InputError("give either table or query", where="table, query")
    if isinstance(chunk_rows, bool) or chunk_rows < 1:
        raise InputError(f"chunk_rows is {chunk_rows!r}, must be at least 1")
    wanted = _Wanted(
        table, query, time_column, series_column, before, time_zone, chunk_rows
    )
    return _read(engine, wanted)


def _read(engine: "Engine", wanted: _Wanted) -> Iterator[Any]:
    zone = _zone(wanted.time_zone)
    # Nested, so that a reader who stops early ends the transaction as well.
    with (
        transaction(engine, reads_only=True, time_zone=wanted.time_zone) as connection,
        contextlib.closing(
            frames_of(
                connection,
                _statement(connection, wanted, zone),
                wanted.time_column,
                wanted.series_column,
                wanted.chunk_rows,
            )
        ) as frames,
    ):
        yield from frames


# -------------------------------------------------------------------------- statement


def _statement(
    connection: "Connection", wanted: _Wanted, zone: ZoneInfo
) -> "Select[Any]":
    """Compose the query; names get into it as identifiers, values as parameters."""
    import sqlalchemy

    rows = _rows_to_read(connection, wanted)
    time = rows.c[_known_name(wanted.time_column, rows, "time_column")]
    key: ColumnElement[Any] = time
    if connection.dialect.name == "sqlite":
        _define_instants(connection, zone)
        key = sqlalchemy.func.sciseq_instant(time)
    order = [key]
    if wanted.series_column is not None:
        name = _known_name(wanted.series_column, rows, "series_column")
        order.insert(0, rows.c[name])
    chosen = sqlalchemy.select(rows).order_by(*order)
    if wanted.before is None:
        return chosen
    limit = _limit(wanted.before, zone)
    if connection.dialect.name == "sqlite":
        bound = sqlalchemy.literal((limit - _EPOCH) // _MICROSECOND)
    else:
        bound = sqlalchemy.literal(limit, sqlalchemy.DateTime(timezone=True))
    # Rows without a readable time are read as well: they are an error, never left out.
    return chosen.where(sqlalchemy.or_(key < bound, key.is_(None)))


def _rows_to_read(connection: "Connection", wanted: _Wanted) -> "FromClause":
    """Return the table or subquery with the names of its columns, but not their types.

    SQLAlchemy's types would parse SQLite's dates in the one way that it writes them.
    """
    import sqlalchemy

    make: Callable[..., FromClause]
    if wanted.table is not None:
        schema, name = schema_and_name(wanted.table)
        if not sqlalchemy.inspect(connection).has_table(name, schema):
            raise missing_table(connection, wanted.table)

        def make(*columns: Any) -> "FromClause":
            return sqlalchemy.table(name, *columns, schema=schema)
    else:
        # A colon starts no parameter; a comment at the end must not go on behind it.
        text = (wanted.query or "").strip().rstrip(";").replace(":", r"\:") + "\n"

        def make(*columns: Any) -> "FromClause":
            return sqlalchemy.text(text).columns(*columns).subquery("chosen")

    everything: Select[Any] = sqlalchemy.select(
        sqlalchemy.literal_column("*")
    ).select_from(make())
    names = list(connection.execute(everything.where(sqlalchemy.false())).keys())
    if len(set(names)) < len(names):
        twice = sorted({one for one in names if names.count(one) > 1})
        raise InputError(
            f"the query has more than one column {twice[0]!r}",
            where="query",
            hint=f"Rename one: SELECT ... AS other_{twice[0]}.",
        )
    return make(*(sqlalchemy.column(one) for one in names))


def _known_name(name: str, rows: "FromClause", where: str) -> str:
    known = list(rows.c.keys())
    if name not in known:
        raise InputError(
            f"there is no column {name!r}",
            where=where,
            hint=nearest_name(name, known) or f"There are {', '.join(known)}.",
        )
    return name


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise InputError(
            f"{name!r} is no time zone that is known here",
            where="time_zone",
            hint='Write a name such as "Europe/Berlin".',
        ) from None


def _limit(before: Any, zone: ZoneInfo) -> datetime:
    """Return the first microsecond that is not before a time."""
    time: Any = pd.NaT
    with contextlib.suppress(TypeError, ValueError):
        time = pd.Timestamp(before)
    if time is pd.NaT:
        raise InputError(f"{before!r} is no date", where="before")
    if time.tz is None:
        time = time.tz_localize(zone, ambiguous=True, nonexistent="shift_forward")
    limit: datetime = time.tz_convert("UTC").ceil("us").to_pydatetime()
    return limit


def _define_instants(connection: "Connection", zone: ZoneInfo) -> None:
    """Let SQLite compare texts by the microseconds since 1970 that they mean."""

    # Series mostly share their times, and the order asks again for what the cut asked.
    @functools.lru_cache(maxsize=_REMEMBERED_TIMES)
    def microseconds(text: Any) -> int | None:
        try:
            time = datetime.fromisoformat(text)
        except (TypeError, ValueError):
            return None
        if time.tzinfo is None:
            time = time.replace(tzinfo=zone)
        return (time - _EPOCH) // _MICROSECOND

    driver_connection: Any = connection.connection.driver_connection
    driver_connection.create_function(
        "sciseq_instant", 1, microseconds, deterministic=True
    )
