"""Sequences in text files: FASTA, SMILES, columns of CSV, JSON lines, one per line.

Files are read line by line, plain or compressed with gzip; every error names the file
and the line.
"""

import csv
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from sciseq.data.fasta_files import numbered_entries
from sciseq.data.text_lines import numbered_lines
from sciseq.errors import FileFormatError, InputError, nearest_name

__all__ = ["NamedSequences", "read_sequences", "smiles_tokens"]

# An atom, a bond, a branch or a ring closure of OpenSMILES.
_SMILES_TOKEN = re.compile(
    r"\[[^\[\]\s]+\]|Br|Cl|%\d{2}|[BCNOPSFI]|[bcnops]|\d|[-=#$:/\\.()*~]"
)
_FORMATS = {
    ".fa": "fasta",
    ".faa": "fasta",
    ".fasta": "fasta",
    ".fna": "fasta",
    ".smi": "smiles",
    ".smiles": "smiles",
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "lines",
    ".jsonl": "jsonl",
}

Column = str | int


@dataclass(frozen=True)
class NamedSequences:
    """Sequences of a file, in its order.

    Parameters
    ----------
    ids : list of str
        Names; numbers from 1 where the file has none.
    sequences : list of str
        The sequences; of JSON lines also lists of tokens, or of rows of tokens.
    labels : list of str, optional
        What a column of labels says of each.
    """

    ids: list[str]
    sequences: list[Any]
    labels: list[str] | None = None

    def __len__(self) -> int:
        return len(self.sequences)


class _Row(NamedTuple):
    """A sequence on its way from a file, with the line where it starts."""

    line: int
    name: str
    sequence: Any
    label: str | None = None


def read_sequences(
    path: str | os.PathLike[str],
    *,
    file_format: str | None = None,
    column: Column | None = None,
    id_column: Column | None = None,
    label_column: Column | None = None,
    alphabet: str | None = None,
) -> NamedSequences:
    r"""Read sequences of letters from a text file, plain or compressed with gzip.

    Parameters
    ----------
    path : path-like
        The file.
    file_format : {"fasta", "smiles", "csv", "lines", "jsonl"}, optional
        By default what the suffix says: ``.fa``, ``.faa``, ``.fasta`` and ``.fna``;
        ``.smi`` and ``.smiles``; ``.csv`` and ``.tsv``; ``.txt``; ``.jsonl``, each also
        with ``.gz``. In ``"smiles"`` a name may follow each SMILES after white space;
        in ``"jsonl"`` each line is a string, which may be empty, a list of tokens, or a
        list of rows of tokens.
    column, id_column, label_column : str or int, optional
        Columns of a CSV file that hold the sequences, their names and their labels, by
        name in the first row or by place from 0. The sequences may be left out when
        there is a single column.
    alphabet : str, optional
        The letters that are allowed.

    Returns
    -------
    NamedSequences
        In FASTA, the name is the first word of the header.

    Raises
    ------
    InputError
        For an unknown format or column.
    FileFormatError
        For an empty sequence, letters that are not allowed, text that is no SMILES, or
        a file that does not have its format.
    UnsafeFileError
        For a file made to exhaust memory.
    OSError
        When the file cannot be opened.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder, "two.csv")
    ...     _ = file.write_text("peptide,active\nGLWSK,1\nAAGAA,0\n")
    ...     found = read_sequences(file, column="peptide", label_column="active")
    >>> found.sequences, found.labels
    (['GLWSK', 'AAGAA'], ['1', '0'])
    """
    source = Path(path)
    kind = _format_of(source) if file_format is None else file_format
    columns = {
        "column": column,
        "id_column": id_column,
        "label_column": label_column,
    }
    found = _rows_of(kind, source, columns)
    if kind != "jsonl":  # it tells nothing and an empty sequence apart
        found = _filled(found, source)
    rows = list(_allowed(found, source, alphabet))
    if not rows:
        raise FileFormatError(f"{source.name} holds no sequence", where=str(source))
    names = [row.name.split()[0] if row.name.split() else "" for row in rows]
    return NamedSequences(
        ids=[name or str(place) for place, name in enumerate(names, start=1)],
        sequences=[row.sequence for row in rows],
        labels=None if label_column is None else [row.label or "" for row in rows],
    )


def smiles_tokens(smiles: str) -> list[str]:
    """Split a SMILES string into atoms, bonds, branches and ring closures.

    Parameters
    ----------
    smiles : str
        A molecule. An atom in brackets is one token, and so are ``Cl`` and ``Br``.

    Returns
    -------
    list of str
        They join to the string.

    Raises
    ------
    InputError
        At the first sign that belongs to no token.

    Notes
    -----
    Only the spelling is checked; whether brackets pair and valences fit is not.

    Examples
    --------
    >>> smiles_tokens("C[C@@H](Cl)C(=O)O")
    ['C', '[C@@H]', '(', 'Cl', ')', 'C', '(', '=', 'O', ')', 'O']
    """
    tokens, place = [], 0
    while place < len(smiles):
        match = _SMILES_TOKEN.match(smiles, place)
        if match is None:
            raise InputError(
                f"{smiles[place : place + 10]!r} is no SMILES, from character "
                f"{place + 1} of {smiles[:40]!r}",
                where="smiles",
            )
        tokens.append(match.group())
        place = match.end()
    return tokens


# ------------------------------------------------------------------------- formats


def _format_of(source: Path) -> str:
    suffixes = [suffix.lower() for suffix in source.suffixes]
    ending = next((one for one in reversed(suffixes) if one != ".gz"), "")
    if ending in _FORMATS:
        return _FORMATS[ending]
    raise InputError(
        f"the suffix of {source.name!r} does not tell what it holds; known are "
        f"{', '.join(_FORMATS)}",
        where=str(source),
        hint="Give file_format=.",
    )


def _rows_of(
    kind: str, source: Path, columns: Mapping[str, Column | None]
) -> Iterator[_Row]:
    if kind == "csv":
        return _csv_rows(source, columns)
    readers: dict[str, Callable[[Path], Iterator[_Row]]] = {
        "fasta": _fasta_rows,
        "smiles": _smiles_rows,
        "lines": _line_rows,
        "jsonl": _json_rows,
    }
    if kind not in readers:
        raise InputError(
            f"file_format={kind!r} is not known; there are 'csv', "
            f"{', '.join(map(repr, readers))}",
            where="file_format",
            hint=nearest_name(kind, ["csv", *readers]) or None,
        )
    if any(one is not None for one in columns.values()):
        raise InputError(
            f"columns are named, but {source.name} is read as {kind!r}",
            where=", ".join(columns),
            hint="Only file_format='csv' has columns.",
        )
    return readers[kind](source)


def _fasta_rows(source: Path) -> Iterator[_Row]:
    for number, entry in numbered_entries(source):
        yield _Row(number, entry.header, entry.sequence)


def _smiles_rows(source: Path) -> Iterator[_Row]:
    for number, line in _filled_lines(source):
        smiles, *name = line.split(maxsplit=1)
        try:
            smiles_tokens(smiles)
        except InputError as error:
            raise FileFormatError(
                error.message,
                where=f"{source}:{number}",
                hint="A line holds a SMILES and, after white space, a name.",
            ) from None
        yield _Row(number, "".join(name), smiles)


def _line_rows(source: Path) -> Iterator[_Row]:
    for number, line in _filled_lines(source):
        yield _Row(number, "", line)


def _json_rows(source: Path) -> Iterator[_Row]:
    first: Any = None
    for number, line in _filled_lines(source):
        try:
            one = json.loads(line)
        except (ValueError, RecursionError):
            one = None
        first = one if first is None else first
        problem = _problem(one, first)
        if "\ufffd" in line:
            problem = "the line is not UTF-8 text"
        if problem is not None:
            raise FileFormatError(
                problem,
                where=f"{source}:{number}",
                hint='A line is a string as "ACGT", or tokens as [1, 12].',
            )
        yield _Row(number, "", one)


def _problem(one: Any, first: Any) -> str | None:
    """Say what is wrong with a sequence in JSON, if anything is."""
    if not isinstance(one, str | list):
        return "the line is no sequence in JSON"
    if isinstance(one, str) != isinstance(first, str):
        return "strings and lists of tokens are mixed"
    rows = one if all(isinstance(row, list) for row in one) else [one]
    tokens = (token for row in rows for token in row)
    if any(isinstance(one, bool) or not isinstance(one, str | int) for one in tokens):
        return "a token is neither a string nor an integer"
    return None


def _filled_lines(source: Path) -> Iterator[tuple[int, str]]:
    return ((number, line) for number, line in numbered_lines(source) if line)


def _csv_rows(source: Path, columns: Mapping[str, Column | None]) -> Iterator[_Row]:
    is_tabbed = ".tsv" in (suffix.lower() for suffix in source.suffixes)
    lines = (line for _, line in numbered_lines(source))
    reader = csv.reader(lines, delimiter="\t" if is_tabbed else ",")
    try:
        header = [name.strip() for name in next(reader, [])]
        if columns["column"] is None and len(header) == 1:
            columns = {**columns, "column": 0}
        at = {
            name: _place(column, header, name, source)
            for name, column in columns.items()
            if column is not None or name == "column"
        }
        for row in filter(None, reader):
            if len(row) <= max(at.values()):
                raise FileFormatError(
                    f"the row has {len(row)} fields, the columns asked for need "
                    f"{max(at.values()) + 1}",
                    where=f"{source}:{reader.line_num}",
                )
            cell = {name: row[place].strip() for name, place in at.items()}
            name, label = cell.get("id_column", ""), cell.get("label_column")
            yield _Row(reader.line_num, name, cell["column"], label)
    except csv.Error as error:
        raise FileFormatError(
            f"{source.name} cannot be read as a table: {error}",
            where=f"{source}:{reader.line_num}",
        ) from error


def _place(column: Column | None, header: list[str], name: str, source: Path) -> int:
    if isinstance(column, int) and 0 <= column < len(header):
        return column
    if isinstance(column, str) and header.count(column) == 1:
        return header.index(column)
    raise InputError(
        f"{name}={column!r} names no single column; {source.name} has {header[:20]}",
        where=f"{source}:1",
        hint=nearest_name(str(column), header) or f"Give {name}= a name or a place.",
    )


# ------------------------------------------------------------------------- checks


def _filled(rows: Iterator[_Row], source: Path) -> Iterator[_Row]:
    for row in rows:
        where = f"{source}:{row.line}"
        if not row.sequence:
            raise FileFormatError("the sequence is empty", where=where)
        if "\ufffd" in row.sequence:
            raise FileFormatError("the sequence is not UTF-8 text", where=where)
        yield row


def _allowed(
    rows: Iterator[_Row], source: Path, alphabet: str | None
) -> Iterator[_Row]:
    allowed = None if alphabet is None else frozenset(alphabet)
    for row in rows:
        where = f"{source}:{row.line}"
        if allowed is not None and not allowed.issuperset(row.sequence):
            bad = next(sign for sign in row.sequence if sign not in allowed)
            raise FileFormatError(
                f"{bad!r} in {row.sequence[:40]!r} is not in the alphabet {alphabet!r}",
                where=where,
                hint="Remove the sequence, or allow the letter.",
            )
        yield row
