"""Files that must not be loaded: pickles, damage, crafted archives, other versions."""

import os
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest

import sciseq
from sciseq import registry
from sciseq.errors import CheckpointError, FileFormatError, UnsafeFileError
from sciseq.files import sha256_of
from sciseq.persistence import load, manifest, read_manifest, save


class Canary:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


# 24: files that run code


def _torch_zip(canary: Canary, path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(canary))
        archive.writestr("archive/version", "3\n")


UNSAFE_FILES = {
    **{
        f"pickle-{protocol}{suffix}": lambda canary, path, protocol=protocol: (
            path.write_bytes(pickle.dumps(canary, protocol))
        )
        for protocol in range(2, 6)
        for suffix in (".pkl", ".sciseq", "")
    },
    "pickle-0.pickle": lambda canary, path: path.write_bytes(pickle.dumps(canary, 0)),
    "model.joblib": lambda canary, path: joblib.dump(canary, path),
    "compressed.joblib": lambda canary, path: joblib.dump(canary, path, compress=3),
    "model.pt": lambda canary, path: _torch_zip(canary, path),
    "torch.sciseq": lambda canary, path: _torch_zip(canary, path),
    "object.npy": lambda canary, path: np.save(path, np.array([canary, 1], object)),
    "object.npz": lambda canary, path: np.savez(path, a=np.array([canary, 1], object)),
    "npz-inside.zip": lambda canary, path: _torch_zip(canary, path),
}


@pytest.mark.parametrize("name", UNSAFE_FILES)
def test_bad_24_pickles_are_refused_unopened(tmp_path, name):
    canary = Canary(tmp_path / "executed")
    folder = tmp_path / "folder"
    folder.mkdir()
    path = folder / name
    UNSAFE_FILES[name](canary, path)
    for read in (load, read_manifest):
        with pytest.raises(UnsafeFileError) as caught:
            read(path)
        message = str(caught.value)
        assert "can run code" in message
        assert "Nothing was run" in message
        assert "estimator.save(path)" in message
        assert str(path) in message
    assert not canary.path.exists()


def test_bad_24_the_canary_would_sing(tmp_path):
    canary = Canary(tmp_path / "executed")
    pickle.loads(pickle.dumps(canary))
    assert canary.path.exists()


@pytest.mark.parametrize("name", ["model.pkl", "pytorch_model.bin", "A.JOBLIB"])
def test_bad_24_folders_of_pickles(tmp_path, name):
    canary = Canary(tmp_path / "executed")
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / name).write_bytes(pickle.dumps(canary))
    with pytest.raises(UnsafeFileError, match="can run code") as caught:
        load(folder)
    assert name in str(caught.value)
    assert not canary.path.exists()


def test_bad_24_pickle_as_member_with_a_valid_hash(tmp_path, saved, edit):
    canary = Canary(tmp_path / "executed")
    content = pickle.dumps(canary)
    (old,) = saved.glob("state-*")
    old.unlink()
    name = manifest.member_name("state", sha256_of(content))
    (saved / name).write_bytes(content)

    def swap(tree: dict[str, Any]) -> None:
        tree["members"].pop(old.name)
        tree["members"][name] = {"sha256": sha256_of(content), "bytes": len(content)}

    edit(saved, swap)
    with pytest.raises(CheckpointError, match="safetensors data is not valid"):
        load(saved)
    assert not canary.path.exists()


def test_bad_24_pickle_as_manifest(tmp_path, saved):
    canary = Canary(tmp_path / "executed")
    (saved / "manifest.json").write_bytes(pickle.dumps(canary))
    with pytest.raises(FileFormatError, match="not a model saved by sciseq"):
        load(saved)
    assert not canary.path.exists()


def test_bad_24_code_named_in_the_manifest_is_not_run(tmp_path, saved, edit):
    target = tmp_path / "executed"
    for node in (
        {"$": "estimator", "name": "pathlib:Path.touch", "parameters": {}},
        {"$": "pathlib.Path.touch", "items": [str(target)]},
        {"__reduce__": ["pathlib:Path.touch", [str(target)]]},
    ):
        edit(saved, lambda tree, node=node: tree.update(estimator=node))
        with pytest.raises(CheckpointError):
            load(saved)
    assert not target.exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [("model.zip", b"text"), ("model", b"text"), ("m.csv", b"a,b\n"), ("m.zip", b"PK")],
)
def test_other_files_are_no_models(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FileFormatError, match="not a model saved by sciseq") as caught:
        load(tmp_path / name)
    assert "estimator.save(path) wrote" in caught.value.hint


def test_other_folders_and_archives_are_no_models(tmp_path):
    (tmp_path / "notes.txt").write_text("text")
    with pytest.raises(FileFormatError, match="the folder has no manifest"):
        load(tmp_path)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("notes.txt", "text")
    with pytest.raises(FileFormatError, match="the archive has no manifest"):
        load(tmp_path / "a.zip")


def test_nothing_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "missing")


# 25: damage


def members(folder: Path) -> list[Path]:
    return sorted(item for item in folder.iterdir() if item.suffix != ".json")


@pytest.mark.parametrize("kind", ["state", "weights"])
@pytest.mark.parametrize("keep", [0, 1, 50, -1])
def test_bad_25_truncated_member(saved, kind, keep):
    (path,) = saved.glob(f"{kind}-*")
    content = path.read_bytes()
    path.write_bytes(content[:keep])
    with pytest.raises(CheckpointError) as caught:
        load(saved)
    message = str(caught.value)
    assert f"member {path.name} has {len(content[:keep])} bytes" in message
    assert f"the manifest says {len(content)}" in message
    assert "load an earlier save" in message
    assert str(saved) in message


@pytest.mark.parametrize("kind", ["state", "weights"])
@pytest.mark.parametrize("place", [0, 60, -1])
def test_bad_25_flipped_bit(saved, kind, place):
    (path,) = saved.glob(f"{kind}-*")
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        load(saved)
    assert f"member {path.name} is damaged: its SHA-256" in str(caught.value)
    assert "load an earlier save" in str(caught.value)


def test_bad_25_missing_member(saved):
    (path,) = saved.glob("state-*")
    path.unlink()
    with pytest.raises(CheckpointError, match=f"member {path.name} is missing"):
        load(saved)


def test_bad_25_missing_manifest(saved):
    (saved / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match=r"manifest\.json is missing"):
        load(saved)


@pytest.mark.parametrize("keep", [0, 40, 200, -1])
def test_bad_25_truncated_manifest(saved, keep):
    path = saved / "manifest.json"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"manifest is (damaged|empty)") as caught:
        load(saved)
    assert "load an earlier save" in str(caught.value)


def test_bad_25_edited_manifest(saved):
    path = saved / "manifest.json"
    text = path.read_bytes()
    assert b'"horizon": 5' in text
    path.write_bytes(text.replace(b'"horizon": 5', b'"horizon": 6'))
    with pytest.raises(CheckpointError, match="damaged or was edited"):
        load(saved)


@pytest.mark.parametrize("keep", [0, 5, 500, -1])
def test_bad_25_truncated_zip(saved_zip, keep):
    saved_zip.write_bytes(saved_zip.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"truncated or damaged|empty") as caught:
        load(saved_zip)
    assert "load an earlier save" in str(caught.value)


def test_bad_25_arrays_exchanged_for_others(saved, edit, tmp_path, fitted):
    def swap(tree: dict[str, Any]) -> None:
        tree["estimator"]["weights"].pop("steps")

    edit(saved, swap)
    with pytest.raises(CheckpointError, match="1 arrays belong to nothing"):
        load(saved)


# 27: crafted archives and links


def rewritten(path: Path, change: Any) -> Path:
    """A copy of a saved ZIP whose entries went through ``change``."""
    with zipfile.ZipFile(path) as archive:
        entries = [(info.filename, archive.read(info)) for info in archive.infolist()]
    result = path.with_name("crafted.zip")
    with zipfile.ZipFile(result, "w") as archive:
        for name, content in entries:
            archive.writestr(name, content)
        change(archive)
    return result


@pytest.mark.parametrize(
    "name",
    [
        "../evil",
        "/etc/evil",
        "C:\\evil",
        "a/state-00000000.safetensors",
        "state-00000000.safetensors\n",
        "STATE-00000000.safetensors",
        "evil/",
        "..",
    ],
)
def test_bad_27_names_with_paths(saved_zip, name):
    path = rewritten(saved_zip, lambda archive: archive.writestr(name, "x"))
    with pytest.raises(UnsafeFileError, match="is no name of a member") as caught:
        load(path)
    assert "Do not unpack this file" in str(caught.value)
    assert sorted(item.name for item in path.parent.iterdir()) == [
        "crafted.zip",
        "saved.zip",
    ]


def test_bad_27_rewriting_alone_is_harmless(saved_zip, same, fitted):
    assert same(load(rewritten(saved_zip, lambda archive: None)), fitted())


def test_bad_27_bomb(saved_zip):
    def bomb(archive: zipfile.ZipFile) -> None:
        archive.writestr(
            "state-00000000.safetensors", bytes(10_000_000), zipfile.ZIP_DEFLATED
        )

    with pytest.raises(UnsafeFileError, match="compressed"):
        load(rewritten(saved_zip, bomb))


def test_bad_27_duplicates(saved_zip):
    with pytest.warns(UserWarning, match="Duplicate name"):
        path = rewritten(
            saved_zip, lambda archive: archive.writestr("manifest.json", "{}")
        )
    with pytest.raises(UnsafeFileError, match="two members of the same name"):
        load(path)


def test_bad_27_member_that_is_not_listed(saved_zip):
    path = rewritten(
        saved_zip, lambda archive: archive.writestr("state-00000000.safetensors", "x")
    )
    with pytest.raises(UnsafeFileError, match="which its manifest does not list"):
        load(path)


def test_bad_27_link_in_an_archive(saved_zip):
    def link(archive: zipfile.ZipFile) -> None:
        entry = zipfile.ZipInfo("state-00000000.safetensors")
        entry.create_system = 3
        entry.external_attr = 0o120777 << 16
        archive.writestr(entry, "/etc/passwd")

    with pytest.raises(UnsafeFileError, match="symbolic link"):
        load(rewritten(saved_zip, link))


def directory_entry(data: bytearray, name: bytes) -> int:
    position = data.find(b"PK\x01\x02")
    while data[position + 46 : position + 46 + len(name)] != name:
        position = data.index(b"PK\x01\x02", position + 1)
    return position


@pytest.mark.parametrize(
    ("offset", "kind", "value", "fragment"),
    [
        (24, "<I", 2**31, "declares 2147483648 bytes"),
        (20, "<I", 2**31, "and stores 2147483648"),
        (8, "<H", 1, "encrypted"),
        (10, "<H", 99, "compressed"),
    ],
)
def test_bad_27_declared_sizes_that_lie(saved_zip, offset, kind, value, fragment):
    data = bytearray(saved_zip.read_bytes())
    struct.pack_into(kind, data, directory_entry(data, b"state-") + offset, value)
    saved_zip.write_bytes(data)
    with pytest.raises(UnsafeFileError, match=fragment):
        load(saved_zip)


def test_bad_27_links_in_a_folder(saved, tmp_path):
    for path in (*members(saved), saved / "manifest.json"):
        target = tmp_path / f"target-{path.name}"
        path.rename(target)
        path.symlink_to(target)
        with pytest.raises(UnsafeFileError, match=f"{path.name} is a symbolic link"):
            load(saved)
        path.unlink()
        target.rename(path)
    load(saved)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_bad_27_pipes_do_not_block(saved, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UnsafeFileError, match="not a regular file"):
        load(tmp_path / "pipe")
    (path,) = saved.glob("state-*")
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(UnsafeFileError, match="not a regular file"):
        load(saved)


def test_bad_27_manifest_beyond_the_limit(saved):
    with (saved / "manifest.json").open("ab") as file:
        file.truncate(17 * 2**20)
    with pytest.raises(UnsafeFileError, match="16777216 are allowed"):
        load(saved)


def test_bad_27_member_beyond_the_limit(saved, edit):
    def grow(tree: dict[str, Any]) -> None:
        next(iter(tree["members"].values()))["bytes"] = 2**60

    edit(saved, grow)
    with pytest.raises(UnsafeFileError, match="are allowed"):
        load(saved)


@pytest.mark.parametrize("name", ["../state.safetensors", "/etc/passwd", "notes.txt"])
def test_bad_27_member_names_in_the_manifest(saved, edit, name):
    def rename(tree: dict[str, Any]) -> None:
        tree["members"][name] = next(iter(tree["members"].values()))

    edit(saved, rename)
    with pytest.raises(UnsafeFileError, match="is no name of a model file"):
        load(saved)


# 28: versions, classes and the form of the manifest


@pytest.mark.parametrize(
    ("major", "minor", "fragment"),
    [
        (2, 0, "pip install --upgrade sciseq"),
        (1, 1, "pip install --upgrade sciseq"),
        (0, 9, "Load it with sciseq 9.8.7"),
    ],
)
def test_bad_28_other_formats(saved, edit, major, minor, fragment):
    def change(tree: dict[str, Any]) -> None:
        tree["format"].update(major=major, minor=minor)
        tree["versions"]["sciseq"] = "9.8.7"
        # A later format may look quite different.
        tree["novelty"] = [1, 2, 3]

    edit(saved, change)
    for read in (load, read_manifest):
        with pytest.raises(CheckpointError) as caught:
            read(saved)
        message = str(caught.value)
        assert f"format {major}.{minor}, written by sciseq 9.8.7" in message
        assert f"this is sciseq {sciseq.__version__}, which reads format 1.0" in message
        assert fragment in message


def test_bad_28_unknown_class(saved, monkeypatch):
    monkeypatch.setattr(registry, "METHODS", registry.METHODS[:-1])
    with pytest.raises(CheckpointError) as caught:
        load(saved)
    message = str(caught.value)
    assert f"is a 'toy', written by sciseq {sciseq.__version__}" in message
    assert "which knows no such method" in message
    assert "pip install --upgrade sciseq" in message


def test_bad_28_class_with_other_parameters(saved, edit):
    edit(saved, lambda tree: tree["estimator"]["parameters"].update(lookback=3))
    with pytest.raises(CheckpointError, match="does not fit Toy") as caught:
        load(saved)
    assert "lookback" in str(caught.value)
    assert f"Load it with sciseq {sciseq.__version__}" in str(caught.value)


SCHEMA_CHANGES = {
    "no-format-minor": lambda tree: tree["format"].pop("minor"),
    "format-text": lambda tree: tree["format"].update(major="1"),
    "format-boolean": lambda tree: tree["format"].update(major=True),
    "format-more": lambda tree: tree["format"].update(patch=1),
    "no-versions": lambda tree: tree.pop("versions"),
    "versions-list": lambda tree: tree.update(versions=[]),
    "version-number": lambda tree: tree["versions"].update(sciseq=1),
    "no-sciseq-version": lambda tree: tree["versions"].pop("sciseq"),
    "no-estimator": lambda tree: tree.pop("estimator"),
    "estimator-list": lambda tree: tree.update(estimator=[]),
    "estimator-plain": lambda tree: tree.update(estimator={}),
    "estimator-value": lambda tree: tree.update(estimator={"$": "tuple", "items": []}),
    "estimator-field": lambda tree: tree["estimator"].pop("weights"),
    "estimator-name": lambda tree: tree["estimator"].update(name=3),
    "parameters-list": lambda tree: tree["estimator"].update(parameters=[]),
    "parameters-tagged": lambda tree: tree["estimator"].update(
        parameters={"$": "tuple", "items": []}
    ),
    "weight-number": lambda tree: tree["estimator"]["weights"].update(steps=1),
    "weight-unknown": lambda tree: tree["estimator"]["weights"].update(steps="x"),
    "weight-twice": lambda tree: tree["estimator"]["weights"].update(more="steps"),
    "no-members": lambda tree: tree.update(members={}),
    "members-list": lambda tree: tree.update(members=[]),
    "member-text": lambda tree: tree["members"].update(
        {"state-00000000.safetensors": "x"}
    ),
    "member-hash": lambda tree: next(iter(tree["members"].values())).update(sha256="0"),
    "member-other-hash": lambda tree: next(iter(tree["members"].values())).update(
        sha256="0" * 64
    ),
    "member-size": lambda tree: next(iter(tree["members"].values())).update(bytes=-1),
    "member-size-real": lambda tree: next(iter(tree["members"].values())).update(
        bytes=1.5
    ),
    "two-states": lambda tree: tree["members"].update(
        {"state-00000000.safetensors": {"sha256": "0" * 64, "bytes": 0}}
    ),
    "extra-field": lambda tree: tree.update(hook="x"),
}


@pytest.mark.parametrize("name", SCHEMA_CHANGES)
def test_bad_28_manifest_of_another_form(saved, edit, name):
    edit(saved, SCHEMA_CHANGES[name])
    with pytest.raises(CheckpointError):
        load(saved)


def test_nothing_to_change_is_no_error(saved, edit, same, fitted):
    edit(saved, lambda tree: None)
    assert same(load(saved), fitted())


@pytest.mark.parametrize(
    "text",
    [
        b'{"format": {"name": "sciseq-estimator", "major": 1, "minor": 0}, "a": 1e999}',
        b'{"format": {"name": "sciseq-estimator", "major": 1, "minor": 0}, "a": NaN}',
        b'{"format": {"name": "sciseq-estimator", "major": 1, "minor": 0}}',
        b'{"format": {"name": "sciseq-estimator"}, "a": ' + b"[" * 100_000,
        b'{"format": {"name": "sciseq-estimator"}, "a": ' + b"9" * 5000 + b"}",
        b'{"format": {"name": "sciseq-estimator"}, "a": "\xff"}',
        b'{"format": {"name": "sciseq-estimator", "major": 1, "minor": 0}, "sha256": 1,'
        b'"sha256": 2}',
    ],
)
def test_bad_28_json_that_bites(saved, text):
    (saved / "manifest.json").write_bytes(text)
    with pytest.raises(CheckpointError, match=r"manifest|not as it must be"):
        load(saved)


@pytest.mark.parametrize("text", [b"[]", b'{"format": 1}', b"3", b"not json", b"{}"])
def test_manifest_of_something_else(saved, text):
    (saved / "manifest.json").write_bytes(text)
    with pytest.raises(FileFormatError, match="not a model saved by sciseq"):
        load(saved)


def test_a_save_that_comes_between_is_seen(saved, same, fitted, monkeypatch):
    """Reading starts again when another process replaces the model meanwhile."""
    from sciseq.persistence import reading

    original = reading._read_members
    calls = []

    def slow(source: Any, listed: Any) -> Any:
        if not calls:
            save(fitted(2.0), saved, overwrite=True)
        calls.append(listed)
        return original(source, listed)

    monkeypatch.setattr(reading, "_read_members", slow)
    assert same(load(saved), fitted(2.0))
    assert len(calls) == 2
