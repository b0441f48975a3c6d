"""Lines of text files, plain or compressed with gzip, with the number of each.

A line is bounded and so is what a compressed file may grow to, so that a small file
made to exhaust memory is refused instead of read.
"""

import gzip
import io
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from sciseq.errors import FileFormatError, UnsafeFileError

__all__ = ["numbered_lines"]

LONGEST_LINE = 2**21
# The most that deflate can reach is about 1000; text with meaning stays below 50.
MAX_RATIO = 200
FREE_BYTES = 2**28


def numbered_lines(path: str | os.PathLike[str]) -> Iterator[tuple[int, str]]:
    r"""Yield the lines of a text file with their numbers, from 1.

    Parameters
    ----------
    path : path-like
        UTF-8 text. Whether it is compressed is seen from its content.

    Yields
    ------
    (int, str)
        Number, and text without the white space at both ends; a byte that is not
        UTF-8 becomes U+FFFD. Blank lines are among them.

    Raises
    ------
    OSError
        When the file cannot be opened.
    FileFormatError
        When its compression is damaged.
    UnsafeFileError
        For a line of more than 2 MiB, and for a compressed file of more than 256 MiB
        that grows more than 200-fold.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder, "two.txt")
    ...     _ = file.write_bytes(gzip.compress(b"ACGT\r\n\nTT"))
    ...     list(numbered_lines(file))
    [(1, 'ACGT'), (2, ''), (3, 'TT')]
    """
    source = Path(path)
    with source.open("rb") as raw:
        is_gzip = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        # A buffer of its own spares gzip's checks at every line.
        handle: BinaryIO = io.BufferedReader(gzip.open(raw)) if is_gzip else raw
        allowed = max(FREE_BYTES, MAX_RATIO * source.stat().st_size)
        number = total = 0
        try:
            # In bounded pieces: a small file may unpack to one huge line.
            while line := handle.readline(LONGEST_LINE):
                number += 1
                total += len(line)
                if len(line) == LONGEST_LINE or (is_gzip and total > allowed):
                    raise _too_large(source, number, len(line))
                text = line.decode("utf-8", errors="replace")
                yield number, text.removeprefix("\ufeff").strip()
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise FileFormatError(
                f"the compressed content is damaged: {error}",
                where=f"{source}:{number + 1}",
                hint="Fetch the file again.",
            ) from error


def _too_large(source: Path, number: int, length: int) -> UnsafeFileError:
    reason = (
        f"the line has more than {LONGEST_LINE // 2**20} MiB"
        if length == LONGEST_LINE
        else f"{source.name} grows more than {MAX_RATIO}-fold when it is decompressed"
    )
    return UnsafeFileError(
        reason,
        where=f"{source}:{number}",
        hint="Look at the file; decompress it yourself if you trust it.",
    )
