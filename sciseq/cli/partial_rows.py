"""Rows of a run that has not ended, kept in a file beside its output.

The first line says what the rows were made from; each other line is one row, in JSON.
Lines are appended and synced a chunk at a time. After a kill the file holds whole
chunks, and perhaps a torn rest, which is cut off when the run goes on: chunks begin
where they would have begun, so the numbers are those of a run in one go. While a run
goes on, it holds a lock on the file, where the system has such.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Self

from sciseq.errors import FileFormatError, InputError

__all__ = ["PartialRows"]

_FORMAT = "sciseq partial rows 1"
_HINT = "Delete it to start again, or give another --out."


class PartialRows:
    """A file of rows that grows.

    Parameters
    ----------
    path : Path
        The file.
    fingerprint : mapping
        What the rows are made from, as JSON values by name.
    chunk : int
        Rows that are appended at once.

    Attributes
    ----------
    n_rows : int
        Rows in the file.
    """

    def __init__(
        self, path: Path, fingerprint: Mapping[str, Any], *, chunk: int
    ) -> None:
        self.path = path
        self.n_rows = 0
        self._chunk = chunk
        self._header = {"format": _FORMAT, **fingerprint}
        self._file: BinaryIO | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def start(self) -> None:
        """Make the file.

        Raises
        ------
        InputError
            When it is there already.
        """
        try:
            self._file = self.path.open("xb")
        except FileExistsError:
            raise InputError(
                f"{self.path} is there: a run with this output was stopped, or goes on",
                where="--out",
                hint="--resume takes its rows and computes the rest; without it, "
                "delete the file.",
            ) from None
        self._lock()
        self._write([self._header])

    def resume(self) -> None:
        """Open the file of a stopped run and drop what is not whole.

        Raises
        ------
        FileFormatError
            When it is no file of rows.
        InputError
            When its rows were made from something else, or the run goes on.
        """
        self._file = self.path.open("r+b")
        try:
            self._lock()
            end = self._check_header(self._file.readline())
            for number, _ in enumerate(_whole_lines(self._file), start=1):
                if number % self._chunk == 0:
                    self.n_rows, end = number, self._file.tell()
        except BaseException:
            self.__exit__()
            raise
        self._file.truncate(end)
        self._file.seek(end)
        if not end:
            self._write([self._header])

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add rows; when this returns they survive a kill, and a loss of power."""
        self._write(rows)
        self.n_rows += len(rows)

    def rows(self) -> Iterator[dict[str, Any]]:
        """Read the rows, all or with an error at the end."""
        number = 0
        with self.path.open("rb") as file:
            file.readline()
            for row in _whole_lines(file):
                number += 1
                yield row
        if number != self.n_rows:
            raise RuntimeError(f"{self.path} has {number} rows, not {self.n_rows}")

    def _lock(self) -> None:
        assert self._file is not None
        try:
            from fcntl import LOCK_EX, LOCK_NB, flock
        except ImportError:  # Windows
            return
        try:
            flock(self._file, LOCK_EX | LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"another run is writing to {self.path}",
                where="--out",
                hint="Wait for it, or give another --out.",
            ) from None
        except OSError:
            return  # some network file systems know no locks

    def _write(self, values: Sequence[Mapping[str, Any]]) -> None:
        assert self._file is not None
        text = "".join(f"{json.dumps(one, default=_plain)}\n" for one in values)
        self._file.write(text.encode())
        self._file.flush()
        os.fsync(self._file.fileno())

    def _check_header(self, line: bytes) -> int:
        """Return where the first row begins; 0 when the run had not come so far."""
        own = f"{json.dumps(self._header, default=_plain)}\n".encode()
        if line == own:
            return len(line)
        if own.startswith(line):
            return 0
        try:
            found = json.loads(line)
        except ValueError:
            found = None
        if not isinstance(found, dict) or found.get("format") != _FORMAT:
            raise FileFormatError(
                "this is no file of rows of a stopped run",
                where=str(self.path),
                hint=_HINT,
            )
        # As JSON gives them back: tuples have become lists.
        known = json.loads(own)
        names = [name for name in known if found.get(name) != known[name]]
        raise InputError(
            f"the rows there were made with other {' and '.join(names)}",
            where=str(self.path),
            hint=_HINT,
        )


def _whole_lines(file: BinaryIO) -> Iterator[dict[str, Any]]:
    """Yield the rows up to the first that is not whole."""
    while (line := file.readline()).endswith(b"\n"):
        try:
            row = json.loads(line)
        except ValueError:
            return
        if not isinstance(row, dict):
            return
        yield row


def _plain(value: Any) -> Any:
    """Return NumPy's numbers and arrays as Python's."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"a {type(value).__name__} has no place in JSON")
