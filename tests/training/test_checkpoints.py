"""Checkpoint files: old or new, never broken, and never trusted blindly."""

import os
from pathlib import Path

import pytest
import safetensors
import torch

from sciseq.errors import CheckpointError, SciSeqWarning
from sciseq.training import checkpoints, train
from sciseq.training.checkpoints import CheckpointStore

TENSORS = {
    "float": torch.linspace(0, 1, 6).reshape(2, 3),
    "half": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
    "scalar": torch.tensor(3.0, dtype=torch.float64),
    "empty": torch.zeros(0, 2),
    "flags": torch.tensor([True, False]),
    "counts": torch.arange(4),
}


def store_in(folder, *, epochs=(1,), fingerprint="f"):
    store = CheckpointStore(folder, fingerprint)
    for epoch in epochs:
        store.save(epoch, {"epoch": epoch, "loss": 0.1 + 0.2}, TENSORS)
    return store


def file_of(folder, epoch):
    return folder / f"epoch-{epoch:06d}.safetensors"


def test_round_trip(tmp_path):
    store_in(tmp_path / "new" / "folder")
    record, tensors = CheckpointStore(tmp_path / "new" / "folder", "f").load()
    assert record == {"epoch": 1, "loss": 0.1 + 0.2}
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert tensors[name].dtype == tensor.dtype
        assert torch.equal(tensors[name], tensor)


def test_nothing_there_gives_none(tmp_path):
    assert CheckpointStore(tmp_path, "f").load() is None
    assert CheckpointStore(tmp_path / "absent", "f").load() is None
    assert not (tmp_path / "absent").exists()


def test_files_are_ordinary_safetensors(tmp_path):
    store_in(tmp_path)
    with safetensors.safe_open(file_of(tmp_path, 1), framework="pt") as opened:
        assert set(opened.keys()) == set(TENSORS)
        assert set(opened.metadata()) == {"record", "sha256"}


def test_bad_25_every_truncation_is_found(tmp_path):
    store_in(tmp_path)
    path = file_of(tmp_path, 1)
    whole = path.read_bytes()
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=f"{path.name} is damaged"):
            CheckpointStore(tmp_path, "f").load()


def test_bad_25_every_flipped_bit_is_found(tmp_path):
    store_in(tmp_path)
    path = file_of(tmp_path, 1)
    whole = path.read_bytes()
    for place in range(0, len(whole), 3):
        altered = bytearray(whole)
        altered[place] ^= 1 << (place % 8)
        path.write_bytes(altered)
        with pytest.raises(CheckpointError, match=f"{path.name} is damaged"):
            CheckpointStore(tmp_path, "f").load()


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 8, b"\xff" * 64, b"\2\0\0\0\0\0\0\0[]", b"[" * 100_000]
)
def test_bad_26_foreign_content_is_damage(tmp_path, content):
    file_of(tmp_path, 1).write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        CheckpointStore(tmp_path, "f").load()
    assert str(tmp_path) in str(caught.value)
    assert "Delete this folder" in str(caught.value)


def test_bad_25_the_previous_one_is_used_and_not_pushed_out(tmp_path):
    store_in(tmp_path, epochs=(8, 9, 10))
    file_of(tmp_path, 10).write_bytes(b"broken")
    store = CheckpointStore(tmp_path, "f")
    with pytest.warns(SciSeqWarning, match=r"epoch-000010.*goes on from epoch-000009"):
        checkpoint = store.load()
    assert checkpoint.record["epoch"] == 9
    store.save(12, {"epoch": 12}, TENSORS)
    assert sorted(tmp_path.iterdir()) == [file_of(tmp_path, 9), file_of(tmp_path, 12)]


def test_newest_is_by_number_not_by_name(tmp_path):
    store_in(tmp_path, epochs=(999_999, 1_000_000))
    assert CheckpointStore(tmp_path, "f").load().record["epoch"] == 1_000_000


def test_bad_28_a_newer_format_asks_for_an_upgrade(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "FORMAT_VERSION", 2)
    store_in(tmp_path)
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match=r"format 2; .* up to format 1.*Upgrade"):
        CheckpointStore(tmp_path, "f").load()


def test_another_torch_is_warned_of(tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "__version__", "0.1")
    store_in(tmp_path)
    monkeypatch.undo()
    with pytest.warns(SciSeqWarning, match=r"torch 0\.1.*may differ"):
        assert CheckpointStore(tmp_path, "f").load().record["epoch"] == 1


def test_bad_30_a_file_that_may_not_be_read_is_no_damage(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    store_in(tmp_path)
    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(PermissionError):
        CheckpointStore(tmp_path, "f").load()


def test_bad_40_leftovers_of_a_killed_run_are_removed(tmp_path):
    store_in(tmp_path)
    leftover = tmp_path / ".epoch-000002.0123456789ab.part.safetensors"
    foreign = tmp_path / ".epoch-notes.part.safetensors"
    leftover.write_bytes(b"half")
    foreign.write_bytes(b"mine")
    assert CheckpointStore(tmp_path, "f").load().record["epoch"] == 1
    assert not leftover.exists()
    assert foreign.exists()


class FailAt:
    """Calls through, except that call number ``n`` fails as a full disk does."""

    def __init__(self, n, call):
        self.n = n
        self.call = call
        self.n_calls = 0

    def __call__(self, *args):
        self.n_calls += 1
        if self.n_calls != self.n:
            return self.call(*args)
        if self.call is WRITE:  # a full disk leaves a part behind
            WRITE(args[0], args[1][: len(args[1]) // 2])
        raise OSError(28, "No space left on device")


WRITE = Path.write_bytes
PLACES = {
    "write": (Path, "write_bytes", WRITE, 3),
    "fsync": (os, "fsync", os.fsync, 6),  # each file, and each time the folder
    "replace": (os, "replace", os.replace, 3),
}


@pytest.mark.parametrize(
    ("place", "n"),
    [(place, n) for place, entry in PLACES.items() for n in range(1, entry[3] + 1)],
)
def test_bad_30_and_40_every_failing_write_leaves_old_or_new(
    toys, make_options, tmp_path, monkeypatch, place, n
):
    data, loss = toys.Regression(20), toys.squared_error
    whole = toys.perceptron()
    train(whole, loss, data, data, make_options(max_epochs=3))

    options = make_options(max_epochs=3, checkpoint_dir=tmp_path)
    owner, name, call, _ = PLACES[place]
    failing = FailAt(n, call)
    # A plain function binds as a method where one is replaced.
    monkeypatch.setattr(owner, name, lambda *args: failing(*args))
    with pytest.raises(OSError, match="No space left"):
        train(toys.perceptron(), loss, data, data, options)
    assert failing.n_calls >= n
    monkeypatch.undo()

    assert all(".part" not in path.name for path in tmp_path.iterdir())
    for path in tmp_path.iterdir():
        checkpoints._decode(path)  # raises on a broken file
    resumed = toys.perceptron()
    train(resumed, loss, data, data, options)
    assert toys.is_same(toys.bits(resumed), toys.bits(whole))


def test_the_fault_injection_reaches_every_write(
    toys, make_options, tmp_path, monkeypatch
):
    for owner, name, call, n_calls in PLACES.values():
        counting = FailAt(0, call)
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, lambda *args, c=counting: c(*args))
            options = make_options(max_epochs=3, checkpoint_dir=tmp_path / name)
            train(toys.linear(), toys.squared_error, toys.Regression(5), None, options)
        assert counting.n_calls == n_calls
