"""Atomic writes: a reader finds the old content or the new, never a part."""

import hashlib
import os
import stat
import threading
from pathlib import Path

import pytest

from sciseq import files
from sciseq.files import sha256_of, temporary_path, write_atomic

OLD, NEW = b"old content", b"new content, longer than the old one"


@pytest.fixture
def target(tmp_path):
    path = tmp_path / "model.json"
    path.write_bytes(OLD)
    return path


def names(path):
    return sorted(one.name for one in path.parent.iterdir())


def test_the_content_is_replaced_and_nothing_else_is_left(target):
    write_atomic(target, NEW)
    assert target.read_bytes() == NEW
    assert names(target) == ["model.json"]
    write_atomic(str(target.with_name("other")), OLD)  # text paths, new files
    assert target.with_name("other").read_bytes() == OLD
    write_atomic(target, b"")
    assert target.read_bytes() == b""


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), KeyboardInterrupt()]
)
@pytest.mark.parametrize("name", ["write_bytes", "fsync", "replace"])
def test_a_failure_at_any_step_leaves_the_old_content(target, name, error, monkeypatch):
    def fail(*arguments, **keywords):
        raise error

    if name == "write_bytes":  # half of the content gets through
        write = Path.write_bytes
        monkeypatch.setattr(
            Path, name, lambda path, data: (write(path, data[:10]), fail())
        )
    elif name == "fsync":
        monkeypatch.setattr(os, name, fail)
    else:
        monkeypatch.setattr(Path, name, fail)
    with pytest.raises(type(error)):
        write_atomic(target, NEW)
    monkeypatch.undo()
    assert target.read_bytes() == OLD
    assert names(target) == ["model.json"]


def test_the_content_is_on_the_disk_before_its_name_and_the_name_before_return(
    target, monkeypatch
):
    steps = []
    sync, replace = os.fsync, Path.replace

    def record_sync(descriptor):
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        steps.append("sync folder" if is_folder else "sync file")
        sync(descriptor)

    def record_replace(path, other):
        steps.append("rename")
        return replace(path, other)

    monkeypatch.setattr(os, "fsync", record_sync)
    monkeypatch.setattr(Path, "replace", record_replace)
    write_atomic(target, NEW)
    assert steps == ["sync file", "rename", "sync folder"]


def test_the_temporary_file_stands_beside_the_target_with_its_suffix(target):
    with temporary_path(target) as path:
        assert path.parent == target.parent  # a rename must not cross file systems
        assert path.suffix == ".json"
        assert path.name.startswith(".")
        assert not path.exists()
        path.write_bytes(NEW)
        assert target.read_bytes() == OLD
    assert target.read_bytes() == NEW
    with temporary_path(target) as first, temporary_path(target) as second:
        assert first != second
        first.write_bytes(OLD)
        second.write_bytes(OLD)


def test_a_block_that_fails_or_writes_nothing_changes_nothing(target):
    with pytest.raises(ZeroDivisionError), temporary_path(target) as path:
        path.write_bytes(NEW)
        _ = 1 / 0
    with pytest.raises(FileNotFoundError), temporary_path(target):
        pass
    assert target.read_bytes() == OLD
    assert names(target) == ["model.json"]


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_atomic(tmp_path / "missing" / "file", NEW)
    assert list(tmp_path.iterdir()) == []


def test_readers_never_see_a_part(target):
    """Two writers of long contents and a reader, all at once."""
    contents = [bytes([letter]) * 200_000 for letter in b"ab"]
    write_atomic(target, contents[0])

    def write(content):
        for _ in range(20):
            write_atomic(target, content)

    writers = [threading.Thread(target=write, args=[one]) for one in contents]
    for writer in writers:
        writer.start()
    seen = set()
    while any(writer.is_alive() for writer in writers):
        seen.add(target.read_bytes())
    assert seen <= set(contents)
    assert names(target) == ["model.json"]


def test_the_hash_is_sha_256():
    assert (
        sha256_of(b"")
        == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    )
    assert sha256_of(NEW) == hashlib.sha256(NEW).hexdigest()
    assert files.__all__ == [
        "remove_all_leftovers",
        "remove_leftovers",
        "sha256_of",
        "temporary_path",
        "write_atomic",
    ]


def test_leftovers_of_a_killed_writer_go_and_nothing_else(tmp_path):
    target = tmp_path / "run.mztab"
    with pytest.raises(KeyError), files.temporary_path(target) as place:
        left = tmp_path / place.name
        raise KeyError
    others = ["run.mztab", ".run.part.mztab", ".other.0123456789ab.part.mztab",
              ".run.0123456789ab.part.csv", "notes.txt"]  # fmt: skip
    for name in (*others, left.name):
        (tmp_path / name).write_text("x")
    files.remove_leftovers(target)
    assert sorted(one.name for one in tmp_path.iterdir()) == sorted(others)


def test_leftovers_of_a_writer_inside_a_writer_go_too(tmp_path):
    target = tmp_path / "out.parquet"
    with files.temporary_path(target) as outer:
        with pytest.raises(KeyError), files.temporary_path(outer) as inner:
            raise KeyError
        outer.write_text("whole")
    inner.write_text("a part")  # as a kill leaves it
    files.remove_leftovers(target)
    assert [one.name for one in tmp_path.iterdir()] == ["out.parquet"]


def test_all_leftovers_of_a_folder_go_and_nothing_else(tmp_path):
    kept = [".hidden.part", ".a.part.csv", "b.0123456789ab.part.csv", "out.csv"]
    gone = [".out.0123456789ab.part.csv", ".x.y.0123456789ab.part"]
    for name in kept + gone:
        (tmp_path / name).write_text("")
    files.remove_all_leftovers(tmp_path)
    assert sorted(one.name for one in tmp_path.iterdir()) == sorted(kept)
