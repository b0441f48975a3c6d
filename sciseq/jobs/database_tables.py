"""The two tables that runs are written to: their columns, and who may write."""

import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from sciseq.errors import InputError, InputTypeError, nearest_name
from sciseq.jobs.database_access import schema_and_name

if TYPE_CHECKING:
    from sqlalchemy import Column, ColumnElement, Connection, Dialect, Table

__all__ = [
    "Tables",
    "find_tables",
    "hold_table",
    "key_columns",
    "make_tables",
    "stored_moment",
]

_RUNS = "sciseq_runs"


@dataclass(frozen=True)
class Tables:
    """The table of forecasts, and that of runs in the same schema."""

    forecasts: "Table"
    runs: "Table"

    @property
    def names(self) -> list[str]:
        """Names of the columns of the forecasts that a run fills."""
        return [one for one in self.forecasts.columns.keys() if one != "run_id"]

    def is_run(self, run_id: str) -> "ColumnElement[bool]":
        """Return the condition that a row of the table of runs is this run's."""
        import sqlalchemy

        return sqlalchemy.and_(
            self.runs.c.table_name == self.forecasts.name, self.runs.c.run_id == run_id
        )


def _hold(connection: "Connection", *words: str) -> None:
    """Keep every other writer of the same thing waiting until the transaction ends.

    SQLite has one writer at a time anyway.

    Parameters
    ----------
    connection : sqlalchemy.Connection
        Inside a transaction.
    *words : str
        What is held.
    """
    import sqlalchemy

    if connection.dialect.name == "postgresql":
        key = sqlalchemy.func.hashtextextended(json.dumps(["sciseq", *words]), 0)
        connection.execute(
            sqlalchemy.select(sqlalchemy.func.pg_advisory_xact_lock(key))
        )


def hold_table(connection: "Connection", table: str) -> None:
    """Keep every other writer of a table waiting until the transaction ends."""
    import sqlalchemy

    schema, name = schema_and_name(table)
    # "sales" and "public.sales" are one table.
    schema = schema or sqlalchemy.inspect(connection).default_schema_name
    _hold(connection, str(schema), name)


def find_tables(connection: "Connection", table: str) -> Tables | None:
    """Return both tables as they are, or None unless both are there.

    Parameters
    ----------
    connection : sqlalchemy.Connection
        Inside a transaction.
    table : str
        Table of forecasts, with its schema or without.
    """
    import sqlalchemy

    schema, name = schema_and_name(table)
    inspector = sqlalchemy.inspect(connection)
    if not (inspector.has_table(name, schema) and inspector.has_table(_RUNS, schema)):
        return None
    metadata = sqlalchemy.MetaData()
    forecasts = sqlalchemy.Table(
        name, metadata, schema=schema, autoload_with=connection
    )
    return Tables(forecasts, _runs(metadata, schema))


def make_tables(connection: "Connection", table: str, rows: Any) -> Tables:
    """Return both tables, after making those that are missing.

    Parameters
    ----------
    connection : sqlalchemy.Connection
        Inside a transaction that writes.
    table : str
        Table of forecasts, with its schema or without.
    rows : pandas.DataFrame
        Forecasts in the form that is stored; they give names and types.

    Raises
    ------
    InputError
        When the table is there and its columns are others.
    """
    import sqlalchemy

    schema, name = schema_and_name(table)
    if find_tables(connection, table) is None:
        _hold(connection, "tables")
        metadata = sqlalchemy.MetaData()
        wanted = [_forecasts(metadata, schema, name, rows), _runs(metadata, schema)]
        _check_lengths(wanted[0], connection.dialect)
        metadata.create_all(connection, wanted, checkfirst=True)
    found = find_tables(connection, table)
    assert found is not None  # made above
    expected = _forecasts(sqlalchemy.MetaData(), schema, name, rows)
    _check_columns(found.forecasts, expected, connection.dialect)
    return found


def _runs(metadata: Any, schema: str | None) -> "Table":
    import sqlalchemy
    from sqlalchemy import BigInteger, Column, Text

    return sqlalchemy.Table(
        _RUNS,
        metadata,
        Column("table_name", Text, primary_key=True),
        Column("run_id", Text, primary_key=True),
        Column("job", Text, nullable=False),
        Column("as_of", _time_type(has_zone=True), nullable=False),
        Column("model_version", Text, nullable=False),
        Column("rows", BigInteger, nullable=False),
        Column("digest", Text, nullable=False),
        schema=schema,
    )


def _forecasts(metadata: Any, schema: str | None, name: str, rows: Any) -> "Table":
    import sqlalchemy
    from sqlalchemy import BigInteger, Column, Double, Text

    columns: list[Column[Any]] = [Column("run_id", Text, primary_key=True)]
    for label in rows.columns:
        if label == "series":
            kind = BigInteger() if rows["series"].dtype.kind == "i" else Text()
            columns.append(Column(label, kind, primary_key=True, autoincrement=False))
        elif label == "time":
            kind = _time_type(has_zone=rows["time"].dt.tz is not None)
            columns.append(Column(label, kind, primary_key=True))
        else:
            columns.append(Column(label, Double))
    return sqlalchemy.Table(name, metadata, *columns, schema=schema)


def _time_type(*, has_zone: bool) -> Any:
    """Return the type of times: SQLite has none, and keeps text."""
    from sqlalchemy import TIMESTAMP, Text

    return Text().with_variant(TIMESTAMP(timezone=has_zone), "postgresql")


def _check_lengths(table: "Table", dialect: "Dialect") -> None:
    for column in table.columns:
        if len(column.name.encode()) > dialect.max_identifier_length:
            raise InputError(
                f"the column {column.name!r} is longer than the "
                f"{dialect.max_identifier_length} bytes that {dialect.name} keeps",
                hint="Rename the target.",
            )


def _check_columns(found: "Table", expected: "Table", dialect: "Dialect") -> None:
    where = f"table {found.name}"
    have, need = list(found.columns.keys()), list(expected.columns.keys())
    for name in need:
        if name not in have:
            raise InputError(
                f"the table has no column {name!r}, and the forecasts have",
                where=where,
                hint=nearest_name(name, [one for one in have if one not in need])
                or "Write to another table, or add the column to this one.",
            )
    for name in have:
        if name not in need:
            raise InputError(
                f"the table has a column {name!r}, and the forecasts have not",
                where=where,
                hint="Write to another table.",
            )
        types = [_type_name(one.c[name], dialect) for one in (found, expected)]
        if types[0] != types[1]:
            raise InputError(
                f"the column {name!r} is of type {types[0]}, must be {types[1]}",
                where=where,
                hint="Write to another table.",
            )


def _type_name(column: "Column[Any]", dialect: "Dialect") -> str:
    return str(column.type.compile(dialect=dialect)).partition(" COLLATE")[0]


def stored_moment(connection: "Connection", as_of: Any) -> Any:
    """Return a logical date as the table of runs keeps it: an instant in UTC.

    Parameters
    ----------
    connection : sqlalchemy.Connection
        Of either database.
    as_of : pandas.Timestamp or str
        Without a zone it is in UTC.

    Raises
    ------
    InputError
        For anything but a date.
    """
    date: Any = pd.NaT
    if not isinstance(as_of, int | float):
        with contextlib.suppress(TypeError, ValueError):
            date = pd.Timestamp(as_of)
    if date is pd.NaT:
        raise InputTypeError(
            f"the logical date is {as_of!r}, must be a date",
            where="as_of",
            hint="Forecasts over numbered rows go to files.",
        )
    if date.tz is None:
        date = date.tz_localize("UTC")
    moment = date.tz_convert("UTC").floor("us").to_pydatetime()
    if connection.dialect.name == "sqlite":
        return moment.isoformat(" ", "microseconds")
    return moment


def key_columns(forecasts: Any, dialect: "Dialect") -> Sequence[Any]:
    """Return what orders the rows of a run as they were sorted: series, then time."""
    import sqlalchemy

    order: list[Any] = [forecasts.c.time]
    if "series" in forecasts.c:
        series: Any = forecasts.c.series
        # Languages have orders of their own; "C" is that of code points.
        if dialect.name == "postgresql" and isinstance(series.type, sqlalchemy.Text):
            series = sqlalchemy.collate(series, "C")
        order.insert(0, series)
    return order
