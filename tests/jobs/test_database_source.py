"""Reading from databases: types, times, order, cuts, chunks, and one snapshot."""

import random
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sciseq.errors import DataQualityError, InputError
from sciseq.jobs.database import read_rows
from sciseq.jobs.database_frames import instants

pytest.importorskip("sqlalchemy")
pytest.importorskip("psycopg")

BERLIN = "Europe/Berlin"


def run_sql(engine, *statements):
    with engine.begin() as connection:
        for one in statements:
            connection.exec_driver_sql(one)


def is_sqlite(engine):
    return engine.dialect.name == "sqlite"


def make_table(engine, columns, *rows):
    """Make the table ``sales``; rows are the text of SQL."""
    run_sql(engine, f"CREATE TABLE sales ({columns})")
    for row in rows:
        run_sql(engine, f"INSERT INTO sales VALUES ({row})")


def read(engine, **options):
    options = {"table": "sales", "time_column": "day", **options}
    return pd.concat(list(read_rows(engine, **options)), ignore_index=True)


# ------------------------------------------------------------------------------ types


def test_numbers_are_float64_and_null_is_nan(engine):
    make_table(
        engine,
        "day date, whole bigint, exact numeric(9, 2), double double precision,"
        " yes boolean, note text, empty double precision",
        "'2026-01-01', 7, 1.25, 0.1, true, 'é', NULL",
        "'2026-01-02', NULL, NULL, NULL, NULL, NULL, NULL",
    )
    frame = read(engine)
    assert list(frame.columns) == [
        "day", "whole", "exact", "double", "yes", "note", "empty",
    ]  # fmt: skip
    assert frame["day"].tolist() == [
        pd.Timestamp("2026-01-01"),
        pd.Timestamp("2026-01-02"),
    ]
    expected = {"whole": 7.0, "exact": 1.25, "double": 0.1, "yes": 1.0}
    for name, value in expected.items():
        assert frame[name].dtype == np.float64
        assert frame[name][0] == value
        assert np.isnan(frame[name][1])
    assert frame["note"][0] == "é"
    assert frame["empty"].dtype == np.float64
    assert frame["empty"].isna().all()


@pytest.mark.skipif(pd.__version__ < "3", reason="text of its own type")
def test_series_are_integers_or_text(engine):
    make_table(engine, "shop integer, day date", "10, '2026-01-01'", "9, '2026-01-01'")
    frame = read(engine, series_column="shop")
    assert frame["shop"].tolist() == [9, 10]
    assert frame["shop"].dtype == np.int64
    words = read(
        engine,
        table=None,
        query="SELECT CAST(shop AS text) AS shop, day FROM sales",
        series_column="shop",
    )
    assert words["shop"].tolist() == ["10", "9"]


def test_an_empty_table_gives_one_empty_chunk(engine):
    make_table(engine, "shop text, day date, sold integer")
    (frame,) = read_rows(engine, table="sales", time_column="day", series_column="shop")
    assert list(frame.columns) == ["shop", "day", "sold"]
    assert not len(frame)
    assert frame["day"].dtype.kind == "M"


# ------------------------------------------------------------------------------ times


def test_instants_at_the_change_of_clocks(engine):
    """Both 02:30 of the night when the clocks go back, in their true order."""
    kind = "text" if is_sqlite(engine) else "timestamptz"
    make_table(
        engine,
        f"day {kind}, sold integer",
        "'2026-10-25 02:30:00+01:00', 3",
        "'2026-10-25T02:45:00+02:00', 2",
        "'2026-10-25 00:30:00+00:00', 1",
    )
    frame = read(engine)
    assert frame["sold"].tolist() == [1, 2, 3]
    assert frame["day"].tolist() == list(
        pd.to_datetime(
            ["2026-10-25 00:30", "2026-10-25 00:45", "2026-10-25 01:30"]
        ).tz_localize("UTC")
    )
    cut = pd.Timestamp("2026-10-25 02:45", tz="UTC+02:00")
    assert read(engine, before=cut)["sold"].tolist() == [1]
    # The order of texts, which is not that of time, puts the last one first.
    assert sorted(["2026-10-25 02:30:00+01:00", "2026-10-25T02:45:00+02:00"])[0] != (
        "2026-10-25T02:45:00+02:00"
    )


@pytest.mark.parametrize(
    ("before", "zone", "sold"),
    [
        ("2026-01-05 00:00", "UTC", [1]),
        ("2026-01-05 01:00", "UTC", [1, 2]),
        ("2026-01-05 00:00", "America/New_York", [1, 2, 3]),
        ("2026-01-05 00:00+01:00", "UTC", []),
        ("2026-01-05 00:00+01:00", BERLIN, []),
    ],
)
def test_a_date_without_zone_is_one_of_the_time_zone(engine, before, zone, sold):
    kind = "text" if is_sqlite(engine) else "timestamptz"
    make_table(
        engine,
        f"day {kind}, sold integer",
        "'2026-01-04T23:00:00Z', 1",
        "'2026-01-05T00:00:00Z', 2",
        "'2026-01-05T04:59:59.999999Z', 3",
        "'2026-01-05T05:00:00Z', 4",
    )
    frame = read(engine, before=pd.Timestamp(before), time_zone=zone)
    assert frame["sold"].tolist() == sold


def test_rows_without_zone_keep_their_clock(engine):
    kind = "text" if is_sqlite(engine) else "timestamp"
    make_table(
        engine,
        f"day {kind}, sold integer",
        "'2026-07-04 23:59:59.999999', 1",
        "'2026-07-05 00:00:00', 2",
    )
    for zone in ("UTC", BERLIN, "America/New_York"):
        for before in ("2026-07-05", pd.Timestamp("2026-07-05", tz=zone)):
            frame = read(engine, before=before, time_zone=zone)
            assert frame["sold"].tolist() == [1]
            assert frame["day"][0] == pd.Timestamp("2026-07-04 23:59:59.999999")
    # One nanosecond later is later.
    later = pd.Timestamp("2026-07-05") + pd.Timedelta(1, "ns")
    assert read(engine, before=later)["sold"].tolist() == [1, 2]


@given(
    st.lists(
        st.datetimes(datetime(1950, 1, 1), datetime(2150, 1, 1)), min_size=1, max_size=9
    )
)
@settings(max_examples=40)
def test_texts_and_datetimes_are_the_same_instants(times):
    expected = pd.Series(np.array(times, dtype="datetime64[us]"))
    assert instants(times, "t").equals(expected)
    assert instants([str(one) for one in times], "t").equals(expected)
    aware = [one.replace(tzinfo=UTC) for one in times]
    texts = [one.isoformat() for one in aware]
    assert instants(texts, "t").equals(expected.dt.tz_localize("UTC"))
    assert instants(aware, "t").equals(expected.dt.tz_localize("UTC"))


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        ("NULL", DataQualityError, "1 rows have no time"),
        ("'soon'", DataQualityError, "a time cannot be read: .*'soon'"),
        ("20260102", InputError, "20260102 is no time"),
        ("'2026-01-02 00:00:00+01:00'", DataQualityError, "some times have a zone"),
    ],
)
@pytest.mark.parametrize("before", [None, pd.Timestamp("2026-02-01")])
@pytest.mark.parametrize("chunk_rows", [1, 10])
def test_a_time_that_is_none_is_never_left_out(
    make_engine, tmp_path, value, error, message, before, chunk_rows
):
    engine = make_engine(f"sqlite:///{tmp_path}/test.db")
    make_table(engine, "day, sold", "'2026-01-01', 1", f"{value}, 2")
    with pytest.raises(error, match=message):
        read(engine, before=before, chunk_rows=chunk_rows)


def test_postgresql_too_leaves_no_row_without_time_out(postgres, make_engine):
    engine = make_engine(postgres)
    for before in (None, pd.Timestamp("2026-02-01")):
        with pytest.raises(DataQualityError, match="1 rows have no time"):
            read(
                engine,
                table=None,
                query="SELECT NULL::timestamptz AS day",
                before=before,
            )


# ------------------------------------------------------------------- order and chunks


@pytest.mark.parametrize("chunk_rows", [1, 7, 40, 1000])
def test_chunks_are_ordered_bounded_and_whole(engine, chunk_rows):
    rng = random.Random(0)
    rows = [
        f"'{shop}', '2026-01-{day:02d}', {day}"
        for shop in "cab"
        for day in range(1, 14)
    ]
    rng.shuffle(rows)
    make_table(engine, "shop text, day date, sold integer")
    run_sql(engine, "INSERT INTO sales VALUES " + ", ".join(f"({one})" for one in rows))
    chunks = list(
        read_rows(
            engine,
            table="sales",
            time_column="day",
            series_column="shop",
            before=pd.Timestamp("2026-01-12"),
            chunk_rows=chunk_rows,
        )
    )
    assert [len(one) for one in chunks[:-1]] == [chunk_rows] * (len(chunks) - 1)
    assert len(chunks) == -(-33 // chunk_rows)
    frame = pd.concat(chunks, ignore_index=True)
    assert frame["shop"].tolist() == [one for one in "abc" for _ in range(11)]
    assert frame["sold"].tolist() == [*range(1, 12)] * 3


@pytest.mark.parametrize("is_done", [True, False])
def test_a_reader_sees_one_state(engine, make_engine, url, is_done):
    """Rows that others commit between two chunks are not read."""
    if is_sqlite(engine):  # which otherwise lets nobody write meanwhile
        run_sql(engine, "PRAGMA journal_mode=WAL")
    make_table(
        engine,
        "day date, sold integer",
        *(f"'2026-01-{d:02d}', 0" for d in range(1, 9)),
    )
    rows = read_rows(engine, table="sales", time_column="day", chunk_rows=2)
    seen = [next(rows)]
    other = make_engine(url)
    run_sql(
        other,
        "INSERT INTO sales VALUES ('2026-01-01', 1), ('2026-01-20', 1)",
        "UPDATE sales SET sold = 1",
    )
    if not is_done:
        rows.close()  # ends the transaction: the next reader sees the new state
        assert read(other)["sold"].eq(1).all()
        assert len(read(other)) == 10
        return
    frame = pd.concat([*seen, *rows])
    assert len(frame) == 8
    assert frame["sold"].eq(0).all()
    assert len(read(engine)) == 10


def test_a_reader_can_change_nothing(postgres, make_engine):
    engine = make_engine(postgres)
    query = "SELECT now() AS day, setval('counter', 5) AS n"
    run_sql(engine, "CREATE SEQUENCE counter")
    try:
        with pytest.raises(InputError, match="read-only transaction"):
            read(engine, table=None, query=query)
    finally:
        run_sql(engine, "DROP SEQUENCE counter")


# ------------------------------------------------------------------ tables and queries


def test_a_query_is_taken_as_it_stands(engine):
    make_table(engine, "day date, sold integer", "'2026-01-01', 7", "'2026-01-02', 8")
    query = (
        "SELECT day, sold % 4 AS rest, ':day %(x)s \\: ?' AS note FROM sales"
        " WHERE sold > 0; -- the end"
    )
    with pytest.raises(InputError):  # the semicolon is inside
        read(engine, table=None, query=query)
    frame = read(engine, table=None, query=query.replace(";", ""))
    assert frame["rest"].tolist() == [3.0, 0.0]
    assert frame["note"][0] == ":day %(x)s \\: ?"
    assert len(read(engine, table=None, query="SELECT day FROM sales ; \n")) == 2


@pytest.mark.parametrize(
    "name", ["Day of sale", 'a"b', "a;b", "select", "a.b", "x:y%s"]
)
def test_names_are_identifiers_whatever_is_in_them(engine, name):
    quoted = '"' + name.replace('"', '""') + '"'
    with engine.begin() as connection:
        # Doubled for the driver, as it takes parameters.
        escaped = quoted if is_sqlite(engine) else quoted.replace("%", "%%")
        table = quoted.replace(".", "_")
        connection.exec_driver_sql(
            f"CREATE TABLE {table if is_sqlite(engine) else table.replace('%', '%%')}"
            f" ({escaped} date, sold integer)"
        )
    frame = read(engine, table=name.replace(".", "_"), time_column=name)
    assert list(frame.columns) == [name, "sold"]


def test_a_table_of_another_schema(postgres, make_engine):
    engine = make_engine(postgres)
    run_sql(engine, "CREATE SCHEMA planning", "CREATE TABLE planning.sales (day date)")
    try:
        assert list(read(engine, table="planning.sales").columns) == ["day"]
        with pytest.raises(InputError, match=r"no table 'planning\.sale'"):
            read(engine, table="planning.sale")
    finally:
        run_sql(engine, "DROP SCHEMA planning CASCADE")


def test_a_view_is_read_like_a_table(engine):
    make_table(engine, "day date, sold integer", "'2026-01-01', 7")
    run_sql(engine, "CREATE VIEW good AS SELECT * FROM sales")
    assert read(engine, table="good")["sold"].tolist() == [7.0]


@pytest.mark.parametrize(
    ("options", "message", "hint"),
    [
        ({"table": "sale"}, "no table 'sale'", "Did you mean 'sales'?"),
        ({"table": "zzz"}, "no table 'zzz'", "It has sales."),
        ({"time_column": "days"}, "no column 'days'", "Did you mean 'day'?"),
        ({"series_column": "shp"}, "no column 'shp'", "Did you mean 'shop'?"),
        ({"time_column": "zzz"}, "no column 'zzz'", "There are shop, day."),
        ({"query": "SELECT 1"}, "either table or query", None),
        ({"table": None}, "either table or query", None),
        ({"before": "soon"}, "'soon' is no date", None),
        ({"chunk_rows": 0}, "chunk_rows is 0", None),
        ({"time_zone": "Mars"}, "'Mars' is no time zone", None),
    ],
)
def test_wrong_names_and_values(engine, options, message, hint):
    make_table(engine, "shop text, day date", "'a', '2026-01-01'")
    with pytest.raises(InputError, match=message) as caught:
        read(engine, **options)
    assert hint is None or caught.value.hint == hint


def test_two_columns_of_one_name(postgres, make_engine):
    with pytest.raises(InputError, match="more than one column 'day'"):
        read(make_engine(postgres), table=None, query="SELECT now() AS day, 1 AS day")


def test_a_row_without_a_series(engine):
    make_table(engine, "shop text, day date", "NULL, '2026-01-01'")
    with pytest.raises(DataQualityError, match="1 rows have no series"):
        read(engine, series_column="shop")
