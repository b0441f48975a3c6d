"""Writing a saved model so that the old one or the new one is there, never a part.

In a folder, members carry their hash in their name: new ones are written beside the
old ones, the manifest is replaced last, and only then are members removed that it no
longer names. A ZIP file is replaced as a whole.
"""

import contextlib
import os
import re
import sys
import zipfile
from pathlib import Path

from sciseq.errors import CheckpointError, FileFormatError, InputError, UnsafeFileError
from sciseq.files import temporary_path, write_atomic
from sciseq.persistence.locking import folder_lock
from sciseq.persistence.manifest import MANIFEST_NAME, is_member_name, parse_manifest
from sciseq.persistence.reading import read_manifest_of

__all__ = ["write_folder", "write_zip"]

# What a killed save may leave: temporary files of sciseq.files for our own names.
_LEFTOVER = re.compile(
    r"\.(manifest|(weights|state)-[0-9a-f]{8})\.[0-9a-f]{12}\.part\.(json|safetensors)"
)
# The earliest date that ZIP can express: the same model gives the same bytes.
_ZIP_DATE = (1980, 1, 1, 0, 0, 0)


def write_folder(
    folder: Path, members: dict[str, bytes], manifest: bytes, *, overwrite: bool
) -> None:
    """Write a model into ``folder``, which is made when it is not there.

    Parameters
    ----------
    folder : Path
        New, empty, or (with ``overwrite``) a model saved before.
    members : dict of str to bytes
        Content by name.
    manifest : bytes
        Content of the manifest.
    overwrite : bool
        Whether a model that is there may be replaced.

    Raises
    ------
    InputError
        When something is there that may not be replaced.
    OSError
        When writing fails; what was there is intact.
    """
    if os.path.lexists(folder) and not folder.is_dir():
        raise InputError(
            f"{folder} is a file",
            where="path",
            hint="Give a new folder, or a name that ends in .zip or .sciseq.",
        )
    is_new = not folder.exists()
    folder.mkdir(exist_ok=True)
    try:
        # Two saves at once could each remove the members of the other.
        with folder_lock(folder):
            _check_folder(folder, overwrite)
            _replace_model(folder, members, manifest)
    except BaseException:
        if is_new:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise
    if is_new:
        _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    """Bring the entry of a new folder to disk; Windows has no such call."""
    if sys.platform == "win32":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _replace_model(folder: Path, members: dict[str, bytes], manifest: bytes) -> None:
    try:
        for name, content in members.items():
            write_atomic(folder / name, content)
        write_atomic(folder / MANIFEST_NAME, manifest)
    except BaseException:
        # After the manifest is replaced, both sets of members stay: until the folder
        # is on disk, a power cut may bring back either manifest.
        if _current_manifest(folder) != manifest:
            _remove_unreferenced(folder)
        raise
    _remove_unreferenced(folder)


def _remove_unreferenced(folder: Path) -> None:
    raw = _current_manifest(folder)
    try:
        kept = set(parse_manifest(raw, str(folder))["members"]) if raw else set()
    except (CheckpointError, FileFormatError, UnsafeFileError):
        return
    for item in list(folder.iterdir()):
        is_ours = is_member_name(item.name) or _LEFTOVER.fullmatch(item.name)
        if is_ours and item.name not in kept:
            # The model is complete either way; a later save removes what stays now.
            with contextlib.suppress(OSError):
                item.unlink()


def _current_manifest(folder: Path) -> bytes | None:
    try:
        return (folder / MANIFEST_NAME).read_bytes()
    except FileNotFoundError:
        return None


def _check_folder(folder: Path, overwrite: bool) -> None:
    if os.path.lexists(folder / MANIFEST_NAME):
        _check_replaceable(folder, overwrite)
        return
    foreign = sorted(
        item.name
        for item in folder.iterdir()
        if not (is_member_name(item.name) or _LEFTOVER.fullmatch(item.name))
    )
    if foreign:
        raise _not_ours(folder, f"it holds {foreign[0]!r}")


def _check_replaceable(path: Path, overwrite: bool) -> None:
    try:
        read_manifest_of(path)
    except CheckpointError:
        # A damaged model, or one of another version, is a model still.
        pass
    except (FileFormatError, UnsafeFileError) as error:
        raise _not_ours(path, str(error)) from error
    if not overwrite:
        raise InputError(
            f"a saved model is already at {path}",
            where="path",
            hint="Give another path, or overwrite=True to replace the model.",
        )


def _not_ours(path: Path, reason: str) -> InputError:
    return InputError(
        f"{path} is not a model saved by sciseq and is left as it is: {reason}",
        where="path",
        hint="Give a new or empty folder.",
    )


def write_zip(
    path: Path, members: dict[str, bytes], manifest: bytes, *, overwrite: bool
) -> None:
    """Write a model as one ZIP file without compression.

    Raises
    ------
    InputError
        When something is there that may not be replaced.
    OSError
        When writing fails; what was there is intact.
    """
    if os.path.lexists(path):
        if not path.is_file():
            raise _not_ours(path, "it is not a file")
        _check_replaceable(path, overwrite)
    with (
        temporary_path(path.resolve()) as temporary,
        zipfile.ZipFile(temporary, "w") as archive,
    ):
        for name, content in {MANIFEST_NAME: manifest, **members}.items():
            entry = zipfile.ZipInfo(name, _ZIP_DATE)
            # The same on every system: regular file, readable by all.
            entry.create_system = 3
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, content)
