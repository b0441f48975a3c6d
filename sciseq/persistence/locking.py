"""A lock on a folder: one process writes at a time, and a reader can wait for it."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

if sys.platform != "win32":
    import fcntl

__all__ = ["folder_lock"]


@contextlib.contextmanager
def folder_lock(folder: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold a lock on ``folder``; wait until it is free.

    The system frees the lock when a process ends, so none is ever left behind. Without
    such locks (Windows, some network file systems) one writer at a time is assumed.

    Parameters
    ----------
    folder : Path
        A folder that is there.
    shared : bool, default=False
        Whether other holders of a shared lock may be there at once: readers.
    """
    if sys.platform == "win32":
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
