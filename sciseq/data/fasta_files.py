"""FASTA files of proteins, genes and peptides, streamed."""

import os
import re
from collections.abc import Iterator
from typing import NamedTuple

from sciseq.data.text_lines import numbered_lines
from sciseq.errors import FileFormatError, UnsafeFileError

__all__ = ["FastaEntry", "numbered_entries", "read_fasta"]

_RESIDUES = re.compile(r"[A-Za-z*\-]*")
# No known protein comes near it (titin has 35 000); compressed files can hold anything.
_MOST_RESIDUES = 1_000_000


class FastaEntry(NamedTuple):
    """One entry of a FASTA file.

    Parameters
    ----------
    header : str
        The line after ``>``.
    sequence : str
        Residues or bases in capital letters, without a final ``*``.
    """

    header: str
    sequence: str


def read_fasta(path: str | os.PathLike[str]) -> Iterator[FastaEntry]:
    r"""Yield the entries of a FASTA file, plain or gzip, in its order.

    Parameters
    ----------
    path : path-like
        The file. Whether it is compressed is seen from its content.

    Yields
    ------
    FastaEntry
        An entry without residues has an empty sequence.

    Raises
    ------
    FileFormatError
        When there is no entry, text before the first ``>``, a sign that is no residue,
        or a damaged compression.
    UnsafeFileError
        When one entry has more than a million residues.
    OSError
        When the file cannot be opened.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder, "one.fasta")
    ...     _ = file.write_text(">P1 of nothing\nMKAL\nGGR*\n")
    ...     list(read_fasta(file))
    [FastaEntry(header='P1 of nothing', sequence='MKALGGR')]
    """
    for _, entry in numbered_entries(path):
        yield entry


def numbered_entries(
    path: str | os.PathLike[str],
) -> Iterator[tuple[int, FastaEntry]]:
    """Yield the entries as :func:`read_fasta` does, with the line where each starts."""
    header: str | None = None
    start = n_residues = 0
    parts: list[str] = []
    for number, line in numbered_lines(path):
        where = f"{os.fspath(path)}:{number}"
        if line.startswith(">"):
            if header is not None:
                yield start, FastaEntry(header, _join(parts))
            header, start, parts, n_residues = line[1:].strip(), number, [], 0
        elif line and not line.startswith(";"):
            _check_line(line, has_header=header is not None, where=where)
            n_residues += len(line)
            if n_residues > _MOST_RESIDUES:
                raise UnsafeFileError(
                    f"an entry has more than {_MOST_RESIDUES} residues",
                    where=where,
                    hint="Give a file of proteins or genes, not of chromosomes.",
                )
            parts.append(line)
    if header is None:
        raise FileFormatError(
            "there is no entry; a FASTA file has lines '>name' and residues below them",
            where=os.fspath(path),
        )
    yield start, FastaEntry(header, _join(parts))


def _check_line(line: str, *, has_header: bool, where: str) -> None:
    if not has_header:
        raise FileFormatError(
            f"{line[:40]!r} stands before the first '>'; is this a FASTA file?",
            where=where,
        )
    if not _RESIDUES.fullmatch(line):
        bad = next(sign for sign in line if not _RESIDUES.fullmatch(sign))
        raise FileFormatError(
            f"{bad!r} is no residue; allowed are letters, '*' and '-'", where=where
        )


def _join(parts: list[str]) -> str:
    return "".join(parts).upper().removesuffix("*")
