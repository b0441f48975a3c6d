"""Whatever stops a save, the old model or the new one is there, and whole."""

import errno
import os
import shutil
import tempfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sciseq.persistence import load, reading, save

NAMES = ["model", "model.zip"]


class Steps:
    """Every write, sync and rename of a save, with a hook before each."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.names: list[str] = []
        self.hook: Callable[[int], None] = lambda number: None
        for owner, name in (
            (os, "fsync"),
            (os, "replace"),
            (Path, "write_bytes"),
            (Path, "mkdir"),
            (zipfile.ZipFile, "writestr"),
        ):
            self._watch(monkeypatch, owner, name)

    def _watch(self, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def watched(*args: Any, **kwargs: Any) -> Any:
            self.names.append(name)
            self.hook(len(self.names) - 1)
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, watched)

    @contextmanager
    def recording(self, hook: Callable[[int], None]) -> Iterator[None]:
        self.names.clear()
        self.hook = hook
        try:
            yield
        finally:
            self.hook = lambda number: None


@pytest.fixture
def steps(monkeypatch):
    with pytest.MonkeyPatch.context() as patch:
        yield Steps(patch)


def names_in(path: Path) -> list[str]:
    return sorted(item.name for item in path.iterdir())


def fail_at(position: int, error: BaseException) -> Callable[[int], None]:
    def hook(number: int) -> None:
        if number == position:
            raise error

    return hook


FAULTS = {
    "full-disk": OSError(errno.ENOSPC, "No space left on device"),
    "no-permission": PermissionError(errno.EACCES, "Permission denied"),
    "interrupt": KeyboardInterrupt(),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", NAMES)
def test_bad_30_fault_at_every_step(tmp_path, fitted, same, steps, name, fault):
    error = FAULTS[fault]
    old, new = fitted(), fitted(2.0)
    path = tmp_path / "work" / name
    path.parent.mkdir()
    with steps.recording(lambda number: None):
        save(old, path)
        save(new, path, overwrite=True)
    second_save = steps.names[len(steps.names) // 2 :]
    assert {"fsync", "replace"} <= set(second_save)

    survivors = set()
    for position in range(20):
        save(old, path, overwrite=True)
        before = names_in(path.parent if path.is_file() else path)
        try:
            with steps.recording(fail_at(position, error)):
                save(new, path, overwrite=True)
        except type(error) as caught:
            assert caught is error
        else:
            break
        result = load(path)
        is_old = same(result, old)
        assert is_old or same(result, new)
        survivors.add("old" if is_old else "new")
        if is_old:
            assert names_in(path.parent if path.is_file() else path) == before
        # The next save works and leaves nothing behind.
        save(new, path, overwrite=True)
        assert same(load(path), new)
        assert not [item for item in names_in(path.parent) if ".part" in item]
    assert position >= 3
    assert position == len(steps.names)
    # The last step is the sync after the rename: the new model is there by then.
    assert survivors == {"old", "new"}


@pytest.mark.parametrize("name", NAMES)
def test_bad_30_fault_in_a_first_save(tmp_path, fitted, same, steps, name):
    error = OSError(errno.ENOSPC, "No space left on device")
    for position in range(20):
        path = tmp_path / f"{position}-{name}"
        try:
            with steps.recording(fail_at(position, error)):
                save(fitted(), path)
        except OSError as caught:
            assert caught is error
        else:
            break
        if path.exists():
            assert same(load(path), fitted())
            save(fitted(2.0), path, overwrite=True)
        else:
            save(fitted(2.0), path)
        assert same(load(path), fitted(2.0))
    assert position >= 3
    assert not [item for item in names_in(tmp_path) if ".part" in item]


@pytest.mark.parametrize("name", NAMES)
def test_bad_30_power_cut_at_every_step(tmp_path, fitted, same, steps, name):
    """A copy of the disk at any step holds a whole model, and can be saved over."""
    old, new = fitted(), fitted(2.0)
    work = tmp_path / "work"
    work.mkdir()
    save(old, work / name)
    copies = []

    def copy(number: int) -> None:
        copies.append(tmp_path / f"copy-{number}")
        shutil.copytree(work, copies[-1])

    with steps.recording(copy):
        save(new, work / name, overwrite=True)
    found = []
    for path in (*copies, work):
        result = load(path / name)
        found.append("old" if same(result, old) else "new")
        assert found[-1] == "old" or same(result, new)
        save(old, path / name, overwrite=True)
        assert same(load(path / name), old)
        if name == "model":
            # Leftovers of the killed save are gone.
            assert len(names_in(path / name)) == 3
    assert found == sorted(found, reverse=True)
    assert set(found) == {"old", "new"}
    order = steps.names
    assert order.index("fsync") < order.index("replace")


def test_bad_30_power_cut_in_a_first_save(tmp_path, fitted, same, steps):
    copies = []

    def copy(number: int) -> None:
        copies.append(tmp_path / f"copy-{number}")
        shutil.copytree(tmp_path / "work", copies[-1])

    (tmp_path / "work").mkdir()
    with steps.recording(copy):
        save(fitted(), tmp_path / "work" / "model")
    assert len(copies) > 6
    for path in copies:
        save(fitted(2.0), path / "model", overwrite=True)
        assert same(load(path / "model"), fitted(2.0))
        assert len(names_in(path / "model")) == 3


def test_bad_30_an_unsafe_order_would_be_seen(tmp_path, fitted, same, saved):
    """Writing the manifest before the members, as a naive save does, is no model."""
    save(fitted(2.0), tmp_path / "new")
    shutil.copy(tmp_path / "new" / "manifest.json", saved / "manifest.json")
    with pytest.raises(ValueError, match="is missing"):
        load(saved)


@pytest.mark.parametrize("name", NAMES)
def test_bad_30_writes_that_the_system_refuses(tmp_path, fitted, same, name):
    """A real limit on file sizes stops the write at any byte of the file."""
    resource = pytest.importorskip("resource")
    path = tmp_path / name
    save(fitted(), path)
    folder = tmp_path if path.is_file() else path
    before = names_in(folder)
    largest = max(item.stat().st_size for item in folder.iterdir())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in (*range(0, largest, largest // 20), largest - 1):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            with pytest.raises(OSError) as caught:
                save(fitted(2.0), path, overwrite=True)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert caught.value.errno == errno.EFBIG
        assert names_in(folder) == before
        assert same(load(path), fitted())


@pytest.fixture
def own_folder(saved_zip):
    """A folder of a user whom permissions bind: not root.

    A model is loaded before, so that nothing is imported without the rights to.
    """
    load(saved_zip)
    if not hasattr(os, "seteuid"):
        pytest.skip("this system has no such permissions")
    with tempfile.TemporaryDirectory() as folder:
        if os.geteuid() == 0:
            os.chown(folder, 65534, 65534)
            os.seteuid(65534)
        try:
            yield Path(folder)
        finally:
            os.seteuid(os.getuid())


@pytest.mark.parametrize("name", NAMES)
def test_bad_30_read_only_folder(own_folder, fitted, same, name):
    path = own_folder / name
    save(fitted(), path)
    folder = own_folder if path.is_file() else path
    before = names_in(folder)
    folder.chmod(0o555)
    try:
        with pytest.raises(PermissionError):
            save(fitted(2.0), path, overwrite=True)
        with pytest.raises(PermissionError):
            save(fitted(2.0), folder / f"another-{name}")
        assert same(load(path), fitted())
        assert names_in(folder) == before
    finally:
        folder.chmod(0o755)
    save(fitted(2.0), path, overwrite=True)
    assert same(load(path), fitted(2.0))


def test_saves_from_several_threads_at_once(tmp_path, fitted, same):
    """Saves wait for each other, and a reader meets whole models only."""
    path = tmp_path / "model"
    models = [fitted(float(number)) for number in range(1, 4)]
    save(models[0], path)
    problems: list[Any] = []

    def write(model: Any) -> None:
        try:
            for _ in range(8):
                save(model, path, overwrite=True)
        except Exception as error:
            problems.append(error)

    threads = [threading.Thread(target=write, args=(model,)) for model in models]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        result = load(path)
        assert any(same(result, model) for model in models)
    for thread in threads:
        thread.join()
    assert problems == []
    assert len(names_in(path)) == 3


def test_a_reader_between_saves_of_the_same_model(tmp_path, fitted, same, monkeypatch):
    """The manifest may be the same before and after, and its members gone meanwhile."""
    path = tmp_path / "model"
    first, second = fitted(), fitted(2.0)
    save(first, path)
    original = reading._read_members
    misses = []

    def interrupted(*args: Any) -> Any:
        if misses:
            return original(*args)
        save(second, path, overwrite=True)
        with pytest.raises(ValueError, match="is missing") as caught:
            original(*args)
        misses.append(caught.value)
        save(first, path, overwrite=True)
        raise caught.value

    monkeypatch.setattr(reading, "_read_members", interrupted)
    assert same(load(path), first)
    assert len(misses) == 1
