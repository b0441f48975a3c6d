"""Exit codes of ``sciseq run``, and the errors that stand for them.

Schedulers tell apart what a person must mend (1, 2, 4), what has been done but for
some series (3), and what may go away by itself (5, 6: run it again).
"""

import errno

from sciseq.errors import ProcessError, SciSeqError

__all__ = ["EXIT_CODES", "LockedError", "TemporaryError", "exit_code_of"]

DONE, FAULT, REFUSED, SOME_FAILED, GATE, LOCKED, TEMPORARY = range(7)
INTERRUPTED = 130

EXIT_CODES: dict[int, str] = {
    DONE: "done, or there was nothing left to do",
    FAULT: "a fault in sciseq or below it",
    REFUSED: "the job cannot be done as it is: a wrong job file, model or input",
    SOME_FAILED: "done, but for some series: the record names them and their errors",
    GATE: "stopped by a quality gate: nothing was written to the destination",
    LOCKED: "another run of the job holds the lock",
    TEMPORARY: "the source changed while it was read, the destination could not be "
    "written, or the disk is full: run it again",
    INTERRUPTED: "interrupted with Ctrl-C; the next run goes on where it was",
}
"""What each exit code of ``sciseq run`` means."""

_TEMPORARY = {
    errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO,
    errno.EFBIG, errno.ENOENT, errno.EBUSY, errno.ESTALE, errno.ETIMEDOUT,
}  # fmt: skip
# A file where a folder should be, or the other way round: a person must mend it.
_REFUSED = {errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG}


class LockedError(SciSeqError):
    """Another run of the same job is under way."""


class TemporaryError(SciSeqError):
    """Something that may go away by itself: run the job again."""


def exit_code_of(error: BaseException) -> int:
    """Return the exit code for an error that ended a run.

    Examples
    --------
    >>> exit_code_of(OSError(28, "No space left on device"))
    6
    >>> exit_code_of(ZeroDivisionError())
    1
    """
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    if isinstance(error, LockedError):
        return LOCKED
    if isinstance(error, TemporaryError | ProcessError):
        return TEMPORARY
    if isinstance(error, SciSeqError):
        return REFUSED
    if isinstance(error, OSError) and error.errno in _TEMPORARY:
        return TEMPORARY
    if isinstance(error, OSError) and error.errno in _REFUSED:
        return REFUSED
    return FAULT
