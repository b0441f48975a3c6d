"""Writing files so that a reader finds the old content or the new, never a part.

The order is fixed: write a temporary file in the same folder, flush, fsync, rename
over the target, fsync the folder. Any failure removes the temporary file, leaves the
target as it was, and propagates.
"""

import contextlib
import hashlib
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path

__all__ = [
    "remove_all_leftovers",
    "remove_leftovers",
    "sha256_of",
    "temporary_path",
    "write_atomic",
]

# As temporary_path names them: the stem, random digits, the suffix.
_LEFTOVER = re.compile(r"\..*\.[0-9a-f]{12}\.part(\.[^.]*)?")


def write_atomic(path: str | os.PathLike[str], data: bytes) -> None:
    """Write ``data`` to ``path`` atomically and durably.

    Parameters
    ----------
    path : path-like
        Target; its folder must exist.
    data : bytes
        Whole content.

    Raises
    ------
    OSError
        When the folder is missing, full or not writable; the target is unchanged.
    """
    with temporary_path(path) as temporary:
        temporary.write_bytes(data)


@contextlib.contextmanager
def temporary_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that becomes ``path`` on success.

    For writers that want a file name (NetCDF, PNG, Parquet). The temporary name keeps
    the suffix of the target because writers choose their format by it.
    """
    target = Path(path)
    name = f".{target.stem}.{secrets.token_hex(6)}.part{target.suffix}"
    temporary = target.with_name(name)
    try:
        yield temporary
        _sync(temporary)
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if os.name == "posix":  # elsewhere a folder cannot be opened
        _sync(target.parent)


def remove_leftovers(path: str | os.PathLike[str]) -> None:
    """Remove the temporary files that killed writers of ``path`` have left beside it.

    Only for who knows that nobody else is writing it.

    Parameters
    ----------
    path : path-like
        Target, as given to :func:`temporary_path`.
    """
    target = Path(path)
    stem, suffix = re.escape(target.stem), re.escape(target.suffix)
    # More than once where a writer was given a temporary name, and made one of it.
    pattern = re.compile(rf"\.+{stem}(\.[0-9a-f]{{12}}\.part)+{suffix}")
    for one in target.parent.iterdir():
        if pattern.fullmatch(one.name):
            one.unlink(missing_ok=True)


def remove_all_leftovers(folder: str | os.PathLike[str]) -> None:
    """Remove what killed writers have left in a folder, whatever they were to write.

    Only for folders in which nobody writes now.
    """
    for item in Path(folder).glob(".*.part*"):
        if _LEFTOVER.fullmatch(item.name):
            item.unlink(missing_ok=True)


def sha256_of(data: bytes) -> str:
    """Return the SHA-256 of ``data`` in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
