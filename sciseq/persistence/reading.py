"""Opening a saved model, folder or ZIP, without trusting it.

Nothing is followed (no links inside the model), nothing is decompressed, and no size
is believed before it is compared. Pickles and other files that run code when opened
are told apart by content and name and refused; there is no second way of reading.
"""

import os
import stat
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from sciseq.errors import CheckpointError, FileFormatError, UnsafeFileError
from sciseq.files import sha256_of
from sciseq.persistence.locking import folder_lock
from sciseq.persistence.manifest import (
    MANIFEST_LIMIT,
    MANIFEST_NAME,
    is_member_name,
    parse_manifest,
)
from sciseq.persistence.tensors import DAMAGE_HINT

__all__ = ["read_manifest_of", "read_model"]

# Formats that run code when they are opened, or may hold objects that do.
_UNSAFE_SUFFIXES = (
    *(".pkl", ".pickle", ".joblib", ".dill", ".cloudpickle", ".sav", ".skops"),
    *(".pt", ".pth", ".ckpt", ".bin"),
    *(".npy", ".npz"),
)
_UNSAFE_STARTS = (b"\x80", b"\x93NUMPY")
_ZIP_ERRORS = (
    zipfile.BadZipFile,
    EOFError,
    OSError,
    NotImplementedError,
    OverflowError,
    ValueError,
)


class _Source(Protocol):
    where: str

    def size(self, name: str) -> int: ...

    def read(self, name: str) -> bytes: ...

    def check_names(self, allowed: set[str]) -> None: ...


def read_manifest_of(path: Path) -> dict[str, Any]:
    """Read and check the manifest of the model at ``path``, and nothing else."""
    with _open_source(path) as source:
        return parse_manifest(_manifest_bytes(source), f"{path}/{MANIFEST_NAME}")


def read_model(path: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Read the manifest and all members, checked against their hashes.

    Returns
    -------
    manifest : dict
        Content of the manifest.
    members : dict of str to bytes
        Content of each member by name.
    """
    with _open_source(path) as source:
        try:
            return _read_all(source)
        except CheckpointError:
            if not path.is_dir():
                raise
        # Another process may be saving over the folder: with its lock held, what is
        # there is a whole model, or damaged.
        with folder_lock(path, shared=True):
            return _read_all(source)


def _read_all(source: _Source) -> tuple[dict[str, Any], dict[str, bytes]]:
    manifest = parse_manifest(
        _manifest_bytes(source), f"{source.where}/{MANIFEST_NAME}"
    )
    return manifest, _read_members(source, manifest["members"])


def _manifest_bytes(source: _Source) -> bytes:
    size = source.size(MANIFEST_NAME)
    if size > MANIFEST_LIMIT:
        raise UnsafeFileError(
            f"the manifest has {size} bytes, {MANIFEST_LIMIT} are allowed",
            where=source.where,
        )
    return source.read(MANIFEST_NAME)


def _read_members(source: _Source, members: dict[str, Any]) -> dict[str, bytes]:
    source.check_names({MANIFEST_NAME, *members})
    contents = {}
    for name, member in members.items():
        size = source.size(name)
        if size != member["bytes"]:
            raise CheckpointError(
                f"member {name} has {size} bytes, the manifest says {member['bytes']}: "
                "it is truncated or not the one that was saved",
                where=source.where,
                hint=DAMAGE_HINT,
            )
        contents[name] = source.read(name)
        if sha256_of(contents[name]) != member["sha256"]:
            raise CheckpointError(
                f"member {name} is damaged: its SHA-256 is not the one in the manifest",
                where=source.where,
                hint=DAMAGE_HINT,
            )
    return contents


@contextmanager
def _open_source(path: Path) -> Iterator[_Source]:
    if path.is_dir():
        if not os.path.lexists(path / MANIFEST_NAME):
            raise _foreign_folder(path)
        yield _Folder(path)
        return
    with _open_regular(path, follow=True) as file:
        # A link given by the caller is the caller's choice; links inside are not.
        start = file.read(8)
        if not start:
            raise CheckpointError(
                "the file is empty (0 bytes)", where=str(path), hint=DAMAGE_HINT
            )
        if not start.startswith((b"PK\x03\x04", b"PK\x05\x06")):
            raise _foreign_file(path, start)
        try:
            archive = zipfile.ZipFile(file)
        except _ZIP_ERRORS as error:
            raise _damaged_zip(path, error) from error
        with archive:
            yield _Zip(path, archive)


@contextmanager
def _open_regular(path: Path, *, follow: bool) -> Iterator[BinaryIO]:
    kind = path.stat(follow_symlinks=follow).st_mode
    if not stat.S_ISREG(kind):
        what = "a symbolic link" if stat.S_ISLNK(kind) else "not a regular file"
        raise UnsafeFileError(
            f"{path.name} is {what}",
            where=str(path),
            hint="Copy the model with its real files.",
        )
    # The flag closes the gap between looking and opening; not all systems have it.
    flags = os.O_RDONLY | getattr(os, "O_BINARY", 0)
    if not follow:
        flags |= getattr(os, "O_NOFOLLOW", 0)
    with os.fdopen(os.open(path, flags), "rb") as file:
        yield file


class _Folder:
    """A model in a folder. Other files may lie beside it; they are never opened."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.where = str(path)

    def size(self, name: str) -> int:
        with self._open(name) as file:
            return os.fstat(file.fileno()).st_size

    def read(self, name: str) -> bytes:
        with self._open(name) as file:
            return file.read(os.fstat(file.fileno()).st_size)

    def check_names(self, allowed: set[str]) -> None:
        """Members left by an interrupted save are no harm; they are not read."""

    @contextmanager
    def _open(self, name: str) -> Iterator[BinaryIO]:
        try:
            with _open_regular(self._path / name, follow=False) as file:
                yield file
        except FileNotFoundError as error:
            raise CheckpointError(
                f"member {name} is missing", where=self.where, hint=DAMAGE_HINT
            ) from error


class _Zip:
    """A model in one ZIP file, whose directory is checked before anything is read."""

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self._path = path
        self._archive = archive
        self.where = str(path)
        entries = archive.infolist()
        names = [entry.orig_filename for entry in entries]
        if MANIFEST_NAME not in names:
            raise _foreign_archive(path, names)
        for entry in entries:
            self._check_entry(entry)
        if len(set(names)) != len(names):
            raise self._unsafe("holds two members of the same name")

    def _check_entry(self, entry: zipfile.ZipInfo) -> None:
        name = entry.orig_filename
        if name != MANIFEST_NAME and not is_member_name(name):
            raise self._unsafe(f"holds {name[:200]!r}, which is no name of a member")
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise self._unsafe(f"holds {name} as a symbolic link")
        if entry.flag_bits & 0x1:
            raise self._unsafe(f"holds {name} encrypted")
        if entry.compress_type != zipfile.ZIP_STORED:
            raise self._unsafe(f"holds {name} compressed")
        if entry.compress_size != entry.file_size:
            raise self._unsafe(
                f"declares {entry.file_size} bytes for {name} and stores "
                f"{entry.compress_size}"
            )

    def _unsafe(self, problem: str) -> UnsafeFileError:
        return UnsafeFileError(
            f"the archive {problem}; a saved model holds {MANIFEST_NAME} and its "
            "members once each, stored without compression",
            where=self.where,
            hint="Do not unpack this file. To pack a model folder, load it and save "
            "it to a name that ends in .zip.",
        )

    def check_names(self, allowed: set[str]) -> None:
        for name in self._archive.namelist():
            if name not in allowed:
                raise self._unsafe(f"holds {name}, which its manifest does not list")

    def size(self, name: str) -> int:
        if name not in self._archive.NameToInfo:
            raise CheckpointError(
                f"member {name} is missing", where=self.where, hint=DAMAGE_HINT
            )
        return self._archive.getinfo(name).file_size

    def read(self, name: str) -> bytes:
        try:
            return self._archive.read(name)
        except _ZIP_ERRORS as error:
            raise _damaged_zip(self._path, error, name) from error


def _damaged_zip(path: Path, error: Exception, name: str = "") -> CheckpointError:
    part = f"member {name} of the archive" if name else "the archive"
    return CheckpointError(
        f"{part} is truncated or damaged: {error}", where=str(path), hint=DAMAGE_HINT
    )


def _foreign_folder(path: Path) -> Exception:
    names = sorted(item.name for item in path.iterdir())
    unsafe = [name for name in names if Path(name).suffix.lower() in _UNSAFE_SUFFIXES]
    if unsafe:
        return _unsafe_format(path, f"the folder holds {unsafe[0]}")
    if any(is_member_name(name) for name in names):
        return CheckpointError(
            f"{MANIFEST_NAME} is missing: the save was interrupted, or the copy is not "
            "complete",
            where=str(path),
            hint=DAMAGE_HINT,
        )
    return _not_a_model(path, f"the folder has no {MANIFEST_NAME}")


def _foreign_archive(path: Path, names: list[str]) -> Exception:
    unsafe = [name for name in names if Path(name).suffix.lower() in _UNSAFE_SUFFIXES]
    if unsafe:
        return _unsafe_format(path, f"the archive holds {unsafe[0]!r}")
    return _not_a_model(path, f"the archive has no {MANIFEST_NAME}")


def _foreign_file(path: Path, start: bytes) -> Exception:
    if path.suffix.lower() in _UNSAFE_SUFFIXES or start.startswith(_UNSAFE_STARTS):
        return _unsafe_format(path, f"{path.name} is a pickle, joblib or NumPy file")
    return _not_a_model(path, f"{path.name} is no ZIP file")


def _unsafe_format(path: Path, found: str) -> UnsafeFileError:
    return UnsafeFileError(
        f"{found}; such files can run code when they are opened, and sciseq.load reads "
        "only what estimator.save(path) wrote. Nothing was run",
        where=str(path),
        hint="If you made the file yourself, open it with the tool that wrote it and "
        "save the estimator with estimator.save(path).",
    )


def _not_a_model(path: Path, found: str) -> FileFormatError:
    return FileFormatError(
        f"this is not a model saved by sciseq: {found}",
        where=str(path),
        hint="Give the folder or file that estimator.save(path) wrote.",
    )
