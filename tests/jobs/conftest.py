"""A job to try, and databases: SQLite, and a real PostgreSQL server of our own."""

import contextlib
import getpass
import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from workshop import Workshop

USER, PASSWORD = "clerk", "hunter2 & co"


def postgres_programs() -> Path | None:
    """The folder of the newest server programs: Debian keeps them out of PATH."""
    found = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"),
        key=lambda one: int(one.parts[-3]),
    )
    on_path = shutil.which("initdb")
    return found[-1].parent if found else on_path and Path(on_path).parent


def unprivileged_user() -> str | None:
    """Who may run the server: it refuses root."""
    import pwd  # not on every system

    if os.getuid():
        return getpass.getuser()
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    return None


@contextlib.contextmanager
def running_server(programs: Path, user: str) -> Iterator[str]:
    """Run a server that listens on a socket in a folder of its own; yield its URL."""
    import pwd

    account = pwd.getpwnam(user)
    as_user = {}
    if not os.getuid():
        as_user = {"user": user, "group": account.pw_gid, "extra_groups": []}

    def call(program: str, *arguments: str) -> None:
        done = subprocess.run(
            [programs / program, *arguments],
            **as_user,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    # Not in pytest's folder: the path of a socket has at most 107 characters.
    with tempfile.TemporaryDirectory(prefix="sciseq-pg-") as folder:
        data, password = Path(folder, "data"), Path(folder, "password")
        password.write_text(PASSWORD)
        if as_user:
            for one in (folder, password):
                os.chown(one, account.pw_uid, account.pw_gid)
        # Every connection must give the password, and no write waits for the disk.
        settings = "--auth=scram-sha-256", "-E", "UTF8", "--locale=C", "--no-sync"
        call("initdb", "-D", str(data), "-U", USER, f"--pwfile={password}", *settings)
        options = (
            f"-c listen_addresses= -c unix_socket_directories={folder} -c fsync=off"
        )
        call("pg_ctl", "-D", str(data), "-w", "-l", f"{folder}/log", "-o", options,
             "start")  # fmt: skip
        try:
            yield f"postgresql://{USER}:{quote(PASSWORD)}@/postgres?host={folder}"
        finally:
            call("pg_ctl", "-D", str(data), "-m", "immediate", "stop")


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """URL of a PostgreSQL server that runs as long as the tests do."""
    programs = postgres_programs()
    if programs is None:
        pytest.skip("no PostgreSQL server here: initdb is not installed")
    user = unprivileged_user()
    if user is None:
        pytest.skip("no PostgreSQL server here: there is only root to run it")
    pytest.importorskip("psycopg", reason="no PostgreSQL here: no psycopg")
    with running_server(programs, user) as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """URL of an empty database of each kind."""
    pytest.importorskip("sqlalchemy")
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'test.db'}"
        return
    import psycopg
    from psycopg.sql import SQL, Identifier

    server: str = request.getfixturevalue("postgres")
    # A schema is as good as a database, and made far sooner.
    schema = f"test_{secrets.token_hex(6)}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(SQL("CREATE SCHEMA {}").format(Identifier(schema)))
        yield f"{server}&options=-csearch_path%3D{schema}"
        connection.execute(SQL("DROP SCHEMA {} CASCADE").format(Identifier(schema)))


@pytest.fixture
def engine(url: str, make_engine: Callable[[str], object]) -> object:
    """Engine of an empty database of each kind."""
    return make_engine(url)


@pytest.fixture
def make_engine(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], object]:
    """Engines as jobs get them, through an environment variable."""
    from sciseq.jobs.database import engine_of

    def make(url: str) -> object:
        monkeypatch.setenv("SCISEQ_TEST_DB", url)
        return engine_of("SCISEQ_TEST_DB")

    return make


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    """A folder with a table and a job file."""
    return Workshop(tmp_path)
