"""Spectrum files as streams of bytes, plain or compressed with gzip.

Nothing is read as a whole. What lies between two spectra is bounded, so that a file
made to exhaust memory (a line or an element without end, a compressed file that grows
a thousandfold) is refused instead.
"""

import contextlib
import gzip
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from sciseq.errors import FileFormatError, UnsafeFileError

__all__ = ["ByteStream", "open_stream", "text_lines"]

CHUNK = 2**20
# One spectrum of a million points in 64-bit numbers, uncompressed, takes a third.
LIMIT = 2**26


class Readable(Protocol):
    """What bytes can be read from."""

    def read(self, size: int, /) -> bytes: ...


class ByteStream:
    """Bytes of a file, unpacked, with a limit on what one spectrum may take.

    Parameters
    ----------
    raw : file object
        Where the bytes come from.
    name : str
        What errors call the file.
    """

    def __init__(self, raw: Readable, name: str) -> None:
        self.name = name
        self._raw = raw
        self._ahead = b""
        self._since_last = 0

    def read(self, size: int = CHUNK) -> bytes:
        """Return up to `size` further bytes; none at the end.

        Raises
        ------
        FileFormatError
            When compressed data are damaged or cut short.
        UnsafeFileError
            When one spectrum takes more than 64 MiB.
        """
        if self._ahead:
            data, self._ahead = self._ahead[:size], self._ahead[size:]
            return data
        try:
            data = self._raw.read(size)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise FileFormatError(
                f"the compressed file is damaged or cut short: {error}",
                where=self.name,
                hint="Fetch the file again.",
            ) from error
        self._since_last += len(data)
        if self._since_last > LIMIT:
            raise UnsafeFileError(
                f"one spectrum takes more than {LIMIT // 2**20} MiB",
                where=self.name,
                hint="No instrument writes such spectra; look at the file.",
            )
        return data

    def peek(self, size: int) -> bytes:
        """Return up to `size` further bytes without taking them."""
        self._ahead = self.read(size) if not self._ahead else self._ahead
        return self._ahead

    def mark(self) -> None:
        """Say that a spectrum is done: the limit counts from here."""
        self._since_last = 0


@contextlib.contextmanager
def open_stream(path: str | os.PathLike[str]) -> Iterator[ByteStream]:
    """Open a file for reading; gzip is known by its first bytes, not by its name."""
    with Path(path).open("rb") as file:
        is_gzip = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        raw: Readable = gzip.open(file) if is_gzip else file
        yield ByteStream(raw, os.fspath(path))


def text_lines(stream: ByteStream) -> Iterator[bytes]:
    """Yield lines without their ends."""
    rest = b""
    while chunk := stream.read():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line.rstrip(b"\r")
    if rest:
        yield rest.rstrip(b"\r")
