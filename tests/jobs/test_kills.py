"""Whatever stops a run, the next one ends with the bytes of an undisturbed run."""

import errno
import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from sciseq.jobs import run_job
from sciseq.jobs.exit_codes import TEMPORARY, exit_code_of

pytestmark = pytest.mark.skipif(
    not hasattr(os, "fork"), reason="this system cannot fork"
)
SETTINGS = {"gates__against": ["seasonal-naive"], "retrain__when": "always"}
# Two runs: the second finds a model and the forecasts of the first.
DATES = ("2024-01-10", "2024-01-11")


class Steps:
    """Counts writes, syncs and renames, and does something at one of them."""

    def __init__(self, stop: int, action: Any) -> None:
        self.count, self.stop, self.action = 0, stop, action

    def watch(self) -> None:
        for owner, name in (
            (os, "fsync"),
            (Path, "replace"),
            (Path, "rename"),
            (Path, "write_bytes"),
            (Path, "unlink"),
        ):
            self._wrap(owner, name)

    def _wrap(self, owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def watched(*args: Any, **kwargs: Any) -> Any:
            self.count += 1
            if self.count == self.stop:
                self.action()
            return original(*args, **kwargs)

        setattr(owner, name, watched)


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def fill_the_disk() -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def _child(job: Any, stop: int, action: Any, counted: Any) -> None:
    steps = Steps(stop, action)
    steps.watch()
    code = 0
    try:
        for date in DATES:
            run_job(job, date)
    except OSError as error:
        code = exit_code_of(error)
    counted.value = steps.count
    os._exit(code)


def run_in_child(job: Any, stop: int, action: Any) -> tuple[int, int]:
    """Exit code of a child that runs the job, and the steps that it made."""
    context = multiprocessing.get_context("fork")
    counted = context.Value("i", 0)
    child = context.Process(target=_child, args=(job, stop, action, counted))
    child.start()
    child.join()
    return child.exitcode, counted.value


def undisturbed(make: Any) -> tuple[dict[str, bytes], int]:
    shop = make("undisturbed")
    code, n_steps = run_in_child(shop.job(**SETTINGS), 0, kill)
    assert code == 0
    return written(shop), n_steps


def written(shop: Any) -> dict[str, bytes]:
    """What a run leaves; a cache of plans is none of it."""
    return {name: one for name, one in shop.files().items() if name != "job.toml"}


@pytest.fixture
def make(tmp_path):
    from workshop import Workshop

    def made(name: str) -> Workshop:
        folder = tmp_path / name
        folder.mkdir()
        return Workshop(folder)

    return made


def check(make: Any, stops: Any, action: Any, expected: dict[str, bytes]) -> None:
    for stop in stops:
        shop = make(f"stop{stop}")
        job = shop.job(**SETTINGS)
        code, _ = run_in_child(job, stop, action)
        assert code == (-signal.SIGKILL if action is kill else TEMPORARY)
        partial = written(shop)
        for date in DATES:
            run_job(job, date)
        found = written(shop)
        assert set(found) == set(expected)
        for name, content in expected.items():
            assert found[name] == content, (stop, name)
        # A result that was visible at the kill was whole.
        for name, content in partial.items():
            if name.startswith("out-"):
                assert content == expected[name]


@pytest.mark.parametrize("action", [kill, fill_the_disk], ids=["kill", "full disk"])
def test_some_moments(make, action):
    expected, n_steps = undisturbed(make)
    assert n_steps > 40
    check(make, range(2, n_steps, n_steps // 3), action, expected)


@pytest.mark.slow
@pytest.mark.parametrize("action", [kill, fill_the_disk], ids=["kill", "full disk"])
def test_every_moment(make, action):
    expected, n_steps = undisturbed(make)
    check(make, range(1, n_steps + 1), action, expected)


def test_a_part_that_was_damaged_is_made_anew(make):
    expected, n_steps = undisturbed(make)
    shop = make("damaged")
    job = shop.job(**SETTINGS)
    code, _ = run_in_child(job, n_steps // 4, kill)
    assert code == -signal.SIGKILL
    parts = list(shop.folder.rglob("parts/*.parquet"))
    assert parts
    for one in parts:
        one.write_bytes(one.read_bytes()[:-1] + b"\0")
    for date in DATES:
        run_job(job, date)
    assert written(shop) == expected


def test_a_fit_that_is_killed_goes_on_from_its_checkpoint(make):
    """The network that comes of it has the bits of an undisturbed fit."""
    settings = {
        "model__method": "s-mamba",
        "model__settings": "{lookback = 24, horizon = 6, d_model = 8, max_epochs = 4}",
    }

    def after_the_first_epoch() -> None:
        """Kill at the first write that finds a whole checkpoint."""
        if list(shop.folder.rglob("checkpoints/epoch-*.safetensors")):
            kill()

    class Watching(Steps):
        def _wrap(self, owner: Any, name: str) -> None:
            self.stop = -1
            original = getattr(owner, name)

            def watched(*args: Any, **kwargs: Any) -> Any:
                after_the_first_epoch()
                return original(*args, **kwargs)

            setattr(owner, name, watched)

    def child(job: Any) -> None:
        Watching(0, None).watch()
        run_job(job, DATES[0])
        os._exit(0)

    whole = make("whole")
    run_job(whole.job(**settings), DATES[0])
    shop = make("killed")
    job = shop.job(**settings)
    process = multiprocessing.get_context("fork").Process(target=child, args=(job,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert list(shop.folder.rglob("checkpoints/epoch-*.safetensors"))
    assert not list(shop.folder.rglob("models/*.json"))
    run_job(job, DATES[0])
    assert written(shop) == written(whole)
