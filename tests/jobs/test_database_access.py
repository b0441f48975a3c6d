"""Reaching databases: URLs from the environment, and no secret in any message."""

import logging
import subprocess
import sys
import traceback

import pandas as pd
import pytest

from sciseq.errors import InputError, MissingDependencyError
from sciseq.jobs.database import (
    Run,
    delete_runs,
    engine_of,
    has_run,
    newest,
    read_rows,
    write_run,
)
from sciseq.jobs.exit_codes import TemporaryError

pytest.importorskip("sqlalchemy")
pytest.importorskip("psycopg")

SECRET = "s3cr3t"
FRAME = pd.DataFrame({"time": pd.date_range("2026-01-01", periods=2), "load": 1.0})
RUN = Run("0f", "job", "91", pd.Timestamp("2026-01-01"))


def everything_said(error):
    """The traceback as it is printed, and the text of every error behind it."""
    said = traceback.format_exception(error)
    seen = error
    while seen is not None:
        said += [str(seen), repr(seen), repr(seen.args)]
        seen = seen.__context__ or seen.__cause__
    return "\n".join(said)


def calls(engine):
    """Every way to reach a database."""
    return [
        lambda: list(read_rows(engine, table="sales", time_column="day")),
        lambda: list(read_rows(engine, query="SELECT 1 AS day", time_column="day")),
        lambda: write_run(engine, "forecasts", FRAME, RUN),
        lambda: has_run(engine, "forecasts", "0f", "00"),
        lambda: delete_runs(engine, "forecasts", "job", 1),
        lambda: list(newest(engine, "forecasts", "job")),
    ]


@pytest.mark.parametrize("value", [None, "", "  "])
def test_a_variable_that_is_not_set(monkeypatch, value):
    monkeypatch.delenv("SALES_DB", raising=False)
    if value is not None:
        monkeypatch.setenv("SALES_DB", value)
    with pytest.raises(InputError, match="variable SALES_DB is not set") as caught:
        engine_of("SALES_DB")
    assert "postgresql://user:password@host/database" in caught.value.hint


def test_a_url_in_place_of_a_name_is_not_repeated():
    with pytest.raises(InputError, match="name of an environment variable") as caught:
        engine_of(f"postgresql://clerk:{SECRET}@host/sales")
    assert SECRET not in everything_said(caught.value)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (f"clerk:{SECRET}@host/sales", "no URL of a database"),
        # Without "@host" the password stands where the port is expected.
        (f"postgresql://clerk:{SECRET}", "no URL of a database"),
        (f"postgresql://clerk:p@{SECRET}@host/sales", "more than one @"),
        (f"postgresql://host/sales?user=clerk&password={SECRET}", "question mark"),
        (f"oracel://clerk:{SECRET}@host/sales", "'oracel' is no kind of database"),
        ("sqlite://", "names no file"),
        ("sqlite:///:memory:", "names no file"),
    ],
)
def test_urls_that_cannot_be_used(monkeypatch, url, message):
    monkeypatch.setenv("SALES_DB", url)
    with pytest.raises(InputError, match=message) as caught:
        engine_of("SALES_DB")
    assert caught.value.where == "SALES_DB"
    assert SECRET not in everything_said(caught.value)


@pytest.mark.parametrize("kind", ["postgresql", "postgres", "postgresql+psycopg2"])
def test_every_spelling_of_postgresql_is_psycopg(make_engine, kind):
    engine = make_engine(f"{kind}://clerk:{SECRET}@host/sales")
    assert engine.driver == "psycopg"
    assert SECRET not in repr(engine)
    assert SECRET not in repr(engine.url)


def test_a_wrong_password_is_not_repeated(postgres, make_engine, caplog):
    caplog.set_level(logging.DEBUG)
    right = "hunter2%20%26%20co"
    assert right in postgres
    engine = make_engine(postgres.replace(right, SECRET))
    for call in calls(engine):
        with pytest.raises(TemporaryError, match="password authentication fai") as one:
            call()
        assert SECRET not in everything_said(one.value)
        assert "\n" not in str(one.value)
    assert SECRET not in caplog.text


def test_an_unreachable_host_is_named_without_the_password(make_engine, caplog):
    caplog.set_level(logging.DEBUG)
    # Nobody listens on port 1.
    engine = make_engine(f"postgresql://clerk:{SECRET}@127.0.0.1:1/sales")
    for call in calls(engine):
        with pytest.raises(TemporaryError, match=r"127\.0\.0\.1") as caught:
            call()
        assert SECRET not in everything_said(caught.value)
        assert "\n" not in str(caught.value)
    assert SECRET not in caplog.text


def test_a_password_that_the_database_repeats_is_covered(postgres, make_engine):
    # The name of a missing database comes back in the message.
    secret = "hunter2%20%26%20co"
    engine = make_engine(postgres.replace("/postgres?", f"/{secret}?"))
    with pytest.raises(TemporaryError, match=r'database "\*\*\*" does not') as caught:
        list(read_rows(engine, table="sales", time_column="day"))
    assert "hunter2" not in caught.value.message


def test_values_are_not_shown_when_a_statement_fails(engine):
    secret_row = FRAME.assign(series=["north", "so\0uth"])
    if engine.dialect.name == "postgresql":
        with pytest.raises(InputError, match=r"0x00|NUL") as caught:
            write_run(engine, "forecasts", secret_row, RUN)
        assert "INSERT" not in str(caught.value)
        assert not has_run(engine, "forecasts", "0f", "00")
    write_run(engine, "forecasts", FRAME, RUN)
    with pytest.raises(InputError) as caught:
        list(read_rows(engine, query="SELEC 7 AS day", time_column="day"))
    assert "\n" not in str(caught.value)
    assert "syntax error" in str(caught.value)


def test_reading_makes_no_file(make_engine, tmp_path):
    engine = make_engine(f"sqlite:///{tmp_path}/none.db")
    with pytest.raises(InputError, match=r"no database file is called .*none\.db"):
        list(read_rows(engine, table="sales", time_column="day"))
    assert not has_run(engine, "forecasts", "0f", "00")
    assert delete_runs(engine, "forecasts", "job", 1) == 0
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_not_there_may_come(make_engine, tmp_path):
    engine = make_engine(f"sqlite:///{tmp_path}/no/such.db")
    with pytest.raises(TemporaryError, match="unable to open"):
        write_run(engine, "forecasts", FRAME, RUN)


@pytest.mark.parametrize(
    ("missing", "url"),
    [("sqlalchemy", "sqlite:///a.db"), ("psycopg", "postgresql://host/sales")],
)
def test_without_the_extra_the_error_names_it(monkeypatch, missing, url):
    monkeypatch.setenv("SALES_DB", url)
    # None in sys.modules is what import takes for a package that is not there.
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(MissingDependencyError, match=r"sciseq\[database\]"):
        engine_of("SALES_DB")


def test_importing_needs_neither_package():
    code = (
        "import sys; sys.modules.update(sqlalchemy=None, psycopg=None); "
        "import sciseq.jobs.database"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
