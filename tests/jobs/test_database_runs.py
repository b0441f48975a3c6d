"""Writing runs: whole or not at all, once, and one writer at a time."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest

from sciseq.errors import CapabilityError, InputError, InputTypeError
from sciseq.jobs import database_runs
from sciseq.jobs.database import (
    Run,
    delete_runs,
    digest_of_forecasts,
    engine_of,
    has_run,
    newest,
    read_rows,
    write_run,
)
from sciseq.jobs.exit_codes import TemporaryError

pytest.importorskip("sqlalchemy")
pytest.importorskip("psycopg")


def forecasts(n_series=3, n_times=4, seed=0, start="2026-01-05", zone=None):
    rng = np.random.default_rng(seed)
    times = pd.date_range(start, periods=n_times, freq="D", tz=zone)
    frame = pd.DataFrame(
        {
            "series": np.repeat([f"s{one:03d}" for one in range(n_series)], n_times),
            "time": np.tile(times, n_series),
        }
    )
    for name in ("load", "load_lower", "load_upper"):
        frame[name] = rng.normal(size=len(frame))
    return frame


def run_of(run_id="0f3a", as_of="2026-01-05", job="nightly"):
    return Run(run_id, job, "91bc", pd.Timestamp(as_of))


def sql(engine, statement):
    with engine.begin() as connection:
        return connection.exec_driver_sql(statement)


def rows_of(engine, statement):
    with engine.connect() as connection:
        return [tuple(one) for one in connection.exec_driver_sql(statement)]


def count(engine, table="forecasts"):
    return rows_of(engine, f"SELECT count(*) FROM {table}")[0][0]


def tables(engine):
    import sqlalchemy

    return set(sqlalchemy.inspect(engine).get_table_names())


# ------------------------------------------------------------------------- round trip


@pytest.mark.parametrize("zone", [None, "UTC", "Europe/Berlin"])
def test_what_is_written_is_read(engine, zone):
    frame = forecasts(start="2026-10-24", zone=zone)
    frame.loc[[0, 5], "load"] = np.nan
    frame.loc[1, "load"] = np.inf
    frame.loc[2, "load"] = 5e-324
    frame.loc[3, "load"] = 1.7976931348623157e308
    frame.loc[4, "load"] = 0.1 + 0.2
    stored = write_run(engine, "forecasts", frame.sample(frac=1, random_state=0),
                       run_of())  # fmt: skip
    assert (stored.rows, stored.is_new) == (12, True)
    assert stored.digest == digest_of_forecasts(frame)
    (found,) = read_rows(
        engine, table="forecasts", time_column="time", series_column="series"
    )
    expected = frame if zone is None else frame.assign(
        time=frame["time"].dt.tz_convert("UTC")
    )  # fmt: skip
    assert found.pop("run_id").eq("0f3a").all()
    pd.testing.assert_frame_equal(found, expected, check_exact=True, check_dtype=False)
    assert found["load"].dtype == np.float64
    assert (found["time"].dt.tz is None) == (zone is None)
    assert rows_of(engine, "SELECT count(*) FROM forecasts WHERE load IS NULL") == [
        (2,)
    ]


def test_both_instants_of_a_repeated_hour_are_stored(engine):
    hours = pd.date_range("2026-10-25", periods=5, freq="h", tz="Europe/Berlin")
    assert hours[2].strftime("%H:%M") == hours[3].strftime("%H:%M") == "02:00"
    frame = pd.DataFrame({"time": hours, "load": np.arange(5.0)})
    write_run(engine, "forecasts", frame, run_of())
    (found,) = newest(engine, "forecasts", "nightly")
    assert found["time"].tolist() == hours.tz_convert("UTC").tolist()
    assert found["load"].tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]
    # By the clock alone they are one time, and the key refuses them.
    clock = frame.assign(time=hours.tz_localize(None))
    with pytest.raises(InputError.__mro__[1], match="repeat the time"):
        write_run(engine, "forecasts", clock, run_of())


def test_the_tables_that_are_made(engine):
    import sqlalchemy

    write_run(engine, "forecasts", forecasts(zone="UTC"), run_of())
    assert tables(engine) == {"forecasts", "sciseq_runs"}
    inspector = sqlalchemy.inspect(engine)
    key = inspector.get_pk_constraint("forecasts")["constrained_columns"]
    assert key == ["run_id", "series", "time"]
    types = {
        one["name"]: str(one["type"].compile(dialect=engine.dialect))
        for one in inspector.get_columns("forecasts")
    }
    expected = {"run_id": "TEXT", "series": "TEXT"}
    if engine.dialect.name == "postgresql":
        expected |= {"time": "TIMESTAMP WITH TIME ZONE", "load": "DOUBLE PRECISION"}
    else:
        expected |= {"time": "TEXT", "load": "DOUBLE"}
    assert expected.items() <= types.items()
    ((name, run_id, job, version, rows, digest),) = rows_of(
        engine,
        "SELECT table_name, run_id, job, model_version, rows, digest FROM sciseq_runs",
    )
    assert (name, run_id, job, version) == ("forecasts", "0f3a", "nightly", "91bc")
    assert (rows, digest) == (12, digest_of_forecasts(forecasts(zone="UTC")))


def test_series_may_be_numbers_and_there_may_be_none(engine):
    numbers = forecasts().assign(series=np.repeat([10, 9, -1], 4))
    stored = write_run(engine, "numbers", numbers, run_of())
    assert has_run(engine, "numbers", "0f3a", stored.digest)
    (found,) = newest(engine, "numbers", "nightly")
    assert found["series"].unique().tolist() == [-1, 9, 10]
    single = forecasts(1).drop(columns="series")
    stored = write_run(engine, "single", single, run_of())
    assert has_run(engine, "single", "0f3a", stored.digest)
    # One run in three tables, and each is its own.
    assert count(engine, "sciseq_runs") == 2


def test_text_of_all_languages_is_hashed_in_one_order(engine):
    labels = ["é", "z", "Z", "a b", "😀", "\uffee", "ß", ""]
    frame = pd.DataFrame(
        {"series": labels, "time": pd.Timestamp("2026-01-05"), "load": 1.0}
    )
    stored = write_run(engine, "forecasts", frame, run_of())
    assert has_run(engine, "forecasts", "0f3a", stored.digest)


def test_the_order_of_a_language_does_not_matter(postgres, make_engine):
    engine = make_engine(postgres)
    known = "SELECT count(*) FROM pg_collation WHERE collname = 'und-x-icu'"
    if rows_of(engine, known) == [(0,)]:
        pytest.skip("this server was built without ICU")
    labels = ["é", "z", "Z", "a", "f"]
    frame = pd.DataFrame(
        {"series": labels, "time": pd.Timestamp("2026-01-05"), "load": np.arange(5.0)}
    )
    sql(engine, 'CREATE TABLE words (run_id text, series text COLLATE "und-x-icu",'
                " time timestamp, load double precision)")  # fmt: skip
    try:
        stored = write_run(engine, "words", frame, run_of())
        (found,) = newest(engine, "words", "nightly")
        assert found["series"].tolist() == sorted(labels)
        natural = rows_of(engine, "SELECT series FROM words ORDER BY series")
        assert [one for (one,) in natural] != sorted(labels)
        assert has_run(engine, "words", "0f3a", stored.digest)
    finally:
        sql(engine, "DROP TABLE words, sciseq_runs")


def test_small_chunks_write_the_same(engine, monkeypatch):
    monkeypatch.setattr(database_runs, "_CHUNK_ROWS", 5)
    monkeypatch.setattr(database_runs, "_READ_ROWS", 4)
    stored = write_run(engine, "forecasts", forecasts(), run_of())
    assert count(engine) == 12
    assert has_run(engine, "forecasts", "0f3a", stored.digest)
    assert not write_run(engine, "forecasts", forecasts(), run_of()).is_new


def test_a_run_without_rows_is_a_run(engine):
    stored = write_run(engine, "forecasts", forecasts()[:0], run_of())
    assert stored.rows == 0
    assert has_run(engine, "forecasts", "0f3a", stored.digest)
    assert not write_run(engine, "forecasts", forecasts()[:0], run_of()).is_new


# ------------------------------------------------------------------------------- once


def test_the_same_run_again_does_nothing(engine):
    first = write_run(engine, "forecasts", forecasts(), run_of())
    again = write_run(engine, "forecasts", forecasts(), run_of())
    assert (again.rows, again.digest, again.is_new) == (12, first.digest, False)
    assert (count(engine), count(engine, "sciseq_runs")) == (12, 1)


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM forecasts WHERE {} AND series = 's001'",
        "DELETE FROM forecasts WHERE {}",
        "UPDATE forecasts SET load = load + 1e-9 WHERE {} AND series = 's001'",
        "UPDATE forecasts SET load = NULL WHERE {} AND series = 's001'",
        "UPDATE forecasts SET series = 's009' WHERE {} AND series = 's001'",
        "DELETE FROM sciseq_runs WHERE {}",
        "UPDATE sciseq_runs SET digest = 'other' WHERE {}",
    ],
)
def test_a_run_that_was_changed_is_seen_and_written_again(engine, damage):
    first = write_run(engine, "forecasts", forecasts(), run_of())
    other = write_run(engine, "forecasts", forecasts(seed=1), run_of("77"))
    sql(engine, damage.format("run_id = '0f3a'"))
    assert not has_run(engine, "forecasts", "0f3a", first.digest)
    again = write_run(engine, "forecasts", forecasts(), run_of())
    assert again.is_new
    assert has_run(engine, "forecasts", "0f3a", first.digest)
    assert has_run(engine, "forecasts", "77", other.digest)
    assert (count(engine), count(engine, "sciseq_runs")) == (24, 2)


def test_a_check_by_existence_would_not_see_it(engine, monkeypatch):
    write_run(engine, "forecasts", forecasts(), run_of())
    sql(engine, "UPDATE forecasts SET load = 0 WHERE series = 's001'")
    monkeypatch.setattr(
        database_runs,
        "_is_stored",
        lambda connection, tables, run_id, digest: bool(
            connection.execute(tables.runs.select().where(tables.is_run(run_id))).all()
        ),
    )
    assert not write_run(engine, "forecasts", forecasts(), run_of()).is_new
    monkeypatch.undo()
    assert write_run(engine, "forecasts", forecasts(), run_of()).is_new


def test_has_run_asks_for_this_run_and_digest(engine):
    assert not has_run(engine, "forecasts", "0f3a", "00")
    stored = write_run(engine, "forecasts", forecasts(), run_of())
    assert has_run(engine, "forecasts", "0f3a", stored.digest)
    assert not has_run(engine, "forecasts", "0f3b", stored.digest)
    assert not has_run(engine, "forecasts", "0f3a", "00")
    assert not has_run(engine, "other", "0f3a", stored.digest)


# ---------------------------------------------------------------------- whole or none


def test_a_failed_write_leaves_nothing_not_even_tables(engine, monkeypatch):
    def broken(*arguments):
        yield from list(whole(*arguments))[:2]
        raise OSError("the cable was pulled")

    whole = database_runs.stored_tuples
    monkeypatch.setattr(database_runs, "_CHUNK_ROWS", 5)
    monkeypatch.setattr(database_runs, "stored_tuples", broken)
    with pytest.raises(OSError, match="cable"):
        write_run(engine, "forecasts", forecasts(), run_of())
    assert tables(engine) == set()
    monkeypatch.setattr(database_runs, "stored_tuples", whole)
    first = write_run(engine, "forecasts", forecasts(), run_of())
    # What is replaced stays as it was when the replacement fails.
    monkeypatch.setattr(database_runs, "stored_tuples", broken)
    with pytest.raises(OSError, match="cable"):
        write_run(engine, "forecasts", forecasts(seed=1), run_of())
    assert has_run(engine, "forecasts", "0f3a", first.digest)


WRITER = """
import sys, time
import numpy as np, pandas as pd
from sciseq.jobs import database_runs
from sciseq.jobs.database import Run, engine_of, write_run

n_rows, pause_after = int(sys.argv[1]), int(sys.argv[2])
whole = database_runs.stored_tuples

def watched(*arguments):
    for number, chunk in enumerate(whole(*arguments)):
        if number == pause_after:
            print("middle", flush=True)
            time.sleep(600)
        yield chunk

database_runs.stored_tuples = watched
database_runs._CHUNK_ROWS = n_rows // 10
times = pd.date_range("2026-01-05", periods=n_rows, freq="min")
frame = pd.DataFrame({"time": times, "load": np.arange(float(n_rows))})
print("ready", flush=True)
run = Run("dead", "nightly", "91bc", pd.Timestamp("2026-01-05"))
write_run(engine_of("SCISEQ_TEST_DB"), "forecasts", frame, run)
print("done", flush=True)
"""


def start_writer(url, n_rows, pause_after):
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(n_rows), str(pause_after)],
        env={**os.environ, "SCISEQ_TEST_DB": url},
        stdout=subprocess.PIPE,
        text=True,
    )


def kill(writer):
    writer.send_signal(signal.SIGKILL)
    writer.communicate()


def test_a_writer_that_is_killed_leaves_nothing(engine, url):
    """In the middle: most rows have been sent, and the process is gone."""
    kept = write_run(engine, "other", forecasts(), run_of("kept"))
    writer = start_writer(url, n_rows=50_000, pause_after=7)
    try:
        assert [writer.stdout.readline() for _ in range(2)] == ["ready\n", "middle\n"]
    finally:
        kill(writer)
    assert not has_run(engine, "forecasts", "dead", "00")
    assert "forecasts" not in tables(engine)
    assert rows_of(engine, "SELECT run_id FROM sciseq_runs") == [("kept",)]
    # The next writer gets in, and what was there before is whole.
    stored = write_run(engine, "forecasts", forecasts(), run_of())
    assert has_run(engine, "forecasts", "0f3a", stored.digest)
    assert has_run(engine, "other", "kept", kept.digest)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_killed_at_any_moment_a_run_is_whole_or_not_there(engine, url, seed):
    write_run(engine, "forecasts", forecasts(1)[["time", "load"]], run_of("kept"))
    writer = start_writer(url, n_rows=50_000, pause_after=-1)
    try:
        assert writer.stdout.readline() == "ready\n"
        time.sleep(random.Random(seed).uniform(0.0, 2.0))
    finally:
        kill(writer)
    n_dead = rows_of(engine, "SELECT count(*) FROM forecasts WHERE run_id = 'dead'")
    runs = rows_of(engine, "SELECT rows FROM sciseq_runs WHERE run_id = 'dead'")
    assert (n_dead, runs) in [([(0,)], []), ([(50_000,)], [(50_000,)])]
    times = pd.date_range("2026-01-05", periods=50_000, freq="min")
    frame = pd.DataFrame({"time": times, "load": np.arange(50_000.0)})
    stored = write_run(engine, "forecasts", frame, run_of("dead"))
    assert stored.is_new == (not runs)
    assert has_run(engine, "forecasts", "dead", stored.digest)


# ------------------------------------------------------------------------ two writers


def test_no_writer_gets_between_the_rows_of_another(
    engine, url, make_engine, monkeypatch
):
    """The second waits; told to be impatient, it fails and leaves nothing."""
    in_the_middle, go_on = threading.Event(), threading.Event()
    whole = database_runs.stored_tuples

    def paused(*arguments):
        for chunk in whole(*arguments):
            yield chunk
            in_the_middle.set()
            assert go_on.wait(60)

    impatient = make_engine(
        f"{url}?timeout=0.1"
        if engine.dialect.name == "sqlite"
        else url.replace("options=", "options=-clock_timeout%3D100%20")
    )
    with ThreadPoolExecutor(1) as pool:
        monkeypatch.setattr(database_runs, "stored_tuples", paused)
        first = pool.submit(write_run, engine, "forecasts", forecasts(), run_of())
        try:
            assert in_the_middle.wait(60)
            monkeypatch.setattr(database_runs, "stored_tuples", whole)
            for run in (run_of(), run_of("other")):
                with pytest.raises(TemporaryError, match="lock"):
                    write_run(impatient, "forecasts", forecasts(), run)
            with pytest.raises(TemporaryError, match="lock"):
                delete_runs(impatient, "forecasts", "nightly", 1)
            # Readers see nothing of it, and are not kept waiting.
            assert not has_run(impatient, "forecasts", "0f3a", "00")
        finally:
            go_on.set()
        assert first.result(60).is_new
    assert not write_run(impatient, "forecasts", forecasts(), run_of()).is_new
    assert (count(engine), count(engine, "sciseq_runs")) == (12, 1)


def test_many_writers_at_once(url, make_engine):
    """Also of the very first run, when the tables are not there yet."""
    start = threading.Barrier(6)

    def write(number):
        engine = engine_of("SCISEQ_TEST_DB")
        start.wait(60)
        table, seed = ("forecasts", number % 2) if number < 4 else ("other", 5)
        frame = forecasts(n_series=40, seed=seed)
        return write_run(engine, table, frame, run_of(f"r{seed}"))

    engine = make_engine(url)
    with ThreadPoolExecutor(6) as pool:
        results = list(pool.map(write, range(6)))
    # Of two writers of the same run one has written, and the other found it.
    for one, two in ((0, 2), (1, 3), (4, 5)):
        assert results[one].is_new != results[two].is_new
        assert results[one].digest == results[two].digest
    assert (count(engine), count(engine, "other")) == (320, 160)
    assert count(engine, "sciseq_runs") == 3


# ----------------------------------------------------------------- tables that differ


@pytest.mark.parametrize(
    ("change", "message", "hint"),
    [
        (
            {"load": "loaded"},
            "no column 'loaded'",
            "Did you mean 'load'?",
        ),
        ({"load_lower": None}, "a column 'load_lower', and the forecasts have", None),
        ({None: "price"}, "no column 'price'", None),
    ],
)
def test_other_columns_are_named_with_the_nearest(engine, change, message, hint):
    write_run(engine, "forecasts", forecasts(), run_of())
    frame = forecasts()
    for old, new in change.items():
        if old is None:
            frame[new] = 1.0
        elif new is None:
            frame = frame.drop(columns=old)
        else:
            frame = frame.rename(columns={old: new})
    with pytest.raises(InputError, match=message) as caught:
        write_run(engine, "forecasts", frame, run_of("new"))
    assert caught.value.where == "table forecasts"
    assert hint is None or caught.value.hint == hint
    assert (count(engine), count(engine, "sciseq_runs")) == (12, 1)


def test_other_types_are_refused(engine):
    write_run(engine, "forecasts", forecasts(), run_of())
    numbers = forecasts().assign(series=np.repeat([1, 2, 3], 4))
    with pytest.raises(InputError, match="'series' is of type TEXT, must be BIGINT"):
        write_run(engine, "forecasts", numbers, run_of("new"))
    if engine.dialect.name == "postgresql":
        with pytest.raises(InputError, match=r"'time' is of type .* WITHOUT TIME ZONE"):
            write_run(engine, "forecasts", forecasts(zone="UTC"), run_of("new"))


@pytest.mark.parametrize("name", ["Day ahead", 'a"b;', "select", "x:y%s(z)"])
def test_names_are_identifiers_whatever_is_in_them(engine, name):
    frame = forecasts().rename(columns={"load": name})
    stored = write_run(engine, name, frame, run_of())
    assert has_run(engine, name, "0f3a", stored.digest)
    (found,) = newest(engine, name, "nightly")
    assert found[name].tolist() == frame[name].tolist()
    assert delete_runs(engine, name, "nightly", 1) == 0


def test_a_name_that_would_be_cut_is_refused(postgres, make_engine):
    frame = forecasts().rename(columns={"load": "x" * 64})
    with pytest.raises(InputError, match="longer than the 63 bytes"):
        write_run(make_engine(postgres), "cut", frame, run_of())


def test_both_names_of_a_table_are_one_table(engine):
    schema = "main"
    if engine.dialect.name == "postgresql":
        schema = rows_of(engine, "SELECT current_schema()")[0][0]
    write_run(engine, "forecasts", forecasts(), run_of())
    again = write_run(engine, f"{schema}.forecasts", forecasts(), run_of())
    assert not again.is_new


@pytest.mark.parametrize("as_of", [7, None, "soon", pd.NaT])
def test_a_logical_date_that_is_no_date(engine, as_of):
    run = Run("0f3a", "nightly", "91bc", as_of)
    with pytest.raises(InputTypeError, match="must be a date"):
        write_run(engine, "forecasts", forecasts(), run)
    assert tables(engine) == set()


def test_other_databases_are_refused():
    import sqlalchemy

    class Fake:
        dialect = sqlalchemy.dialects.registry.load("mysql")()

    with pytest.raises(CapabilityError, match="not mysql"):
        write_run(Fake(), "forecasts", forecasts(), run_of())


# --------------------------------------------------------------- retention and newest


def test_retention_keeps_the_latest_logical_dates(engine):
    # Written in another order than that of their dates, as after backfilling.
    dates = {"a": "2026-01-03", "b": "2026-01-01", "c": "2026-01-05", "d": "2026-01-04"}
    for run_id, as_of in dates.items():
        write_run(engine, "forecasts", forecasts(1, 2), run_of(run_id, as_of))
    write_run(engine, "forecasts", forecasts(1, 2), run_of("e", "2020-01-01", "other"))
    write_run(engine, "elsewhere", forecasts(1, 2), run_of("b", "2026-01-01"))
    assert delete_runs(engine, "forecasts", "nightly", 2) == 2
    left = [(one,) for one in ("c", "d", "e")]
    kept = "SELECT DISTINCT run_id FROM forecasts ORDER BY run_id"
    assert rows_of(engine, kept) == left
    assert rows_of(
        engine,
        "SELECT run_id FROM sciseq_runs WHERE table_name = 'forecasts' ORDER BY run_id",
    ) == left  # fmt: skip
    assert count(engine, "elsewhere") == 2
    assert delete_runs(engine, "forecasts", "nightly", 2) == 0
    assert delete_runs(engine, "missing", "nightly", 2) == 0
    with pytest.raises(InputError, match="keep is 0"):
        delete_runs(engine, "forecasts", "nightly", 0)


def test_newest_is_the_latest_run_that_says_something(engine):
    for day, run_id in ((5, "b"), (6, "a"), (7, "c")):
        frame = forecasts(2, 3, start=f"2026-01-{day:02d}").assign(load=float(day))
        write_run(engine, "forecasts", frame, run_of(run_id, f"2026-01-{day:02d}"))
    write_run(engine, "forecasts", forecasts(2, 9), run_of("x", "2026-02-01", "other"))
    found = pd.concat(newest(engine, "forecasts", "nightly", chunk_rows=3))
    assert found["series"].tolist() == ["s000"] * 5 + ["s001"] * 5
    assert found["load"].tolist() == [5.0, 6.0, 7.0, 7.0, 7.0] * 2
    assert found["as_of"].dt.day.tolist() == [5, 6, 7, 7, 7] * 2
    assert found["time"].dt.day.tolist() == [5, 6, 7, 8, 9] * 2
    (early,) = newest(engine, "forecasts", "nightly", pd.Timestamp("2026-01-06"))
    assert early["load"].tolist() == [5.0, 6.0, 6.0, 6.0] * 2
    (none,) = newest(engine, "forecasts", "nightly", "2026-01-01")
    assert not len(none)
    with pytest.raises(InputError, match="no table 'forecast'") as caught:
        list(newest(engine, "forecast", "nightly"))
    assert caught.value.hint == "Did you mean 'forecasts'?"
    sql(engine, "CREATE TABLE sales (day date)")
    with pytest.raises(InputError, match="'sales' is not one of forecasts"):
        list(newest(engine, "sales", "nightly"))
