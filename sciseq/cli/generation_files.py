"""Files of sequences that ``sciseq generate`` reads and writes.

What is written is read again before it gets its name, so that ``fit`` and ``score``
find in it what ``sample`` has made. JSON lines hold any sequence.
"""

import contextlib
import csv
import gzip
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from sciseq.errors import (
    DataQualityError,
    FileFormatError,
    InputError,
    UnsafeFileError,
    nearest_name,
)
from sciseq.files import temporary_path

if TYPE_CHECKING:
    from sciseq.data.sequence_files import NamedSequences

__all__ = [
    "output_kind",
    "read_found",
    "write_sequences",
    "write_table",
]

_OUTPUTS = {
    ".csv": "csv",
    ".fa": "fasta",
    ".fasta": "fasta",
    ".jsonl": "jsonl",
    ".txt": "lines",
}
# What programs write where there is no value; Na is sodium.
_MISSING = frozenset(
    {"", "#N/A", "<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"}
)


# ---------------------------------------------------------------------------- reading


def read_found(
    path: Path, column: str | None, condition: str | None
) -> "NamedSequences":
    """Read sequences, and their classes if a column is named.

    Parameters
    ----------
    path : Path
        FASTA, SMILES, text, CSV or JSON lines.
    column, condition : str, optional
        Columns of a table, as named by the options of these names.

    Raises
    ------
    InputError
        For an unknown suffix or column.
    DataQualityError
        For a missing class.
    FileFormatError
        For a file that does not hold what its name says.
    """
    kind = _suffix(path.name.lower())
    options = {"--column": column, "--condition": condition}
    named = {option: name for option, name in options.items() if name is not None}
    if kind in (".csv", ".tsv"):
        _check_columns(path, kind, options)
    elif named:
        raise InputError(
            f"{path.name} has no columns",
            where=", ".join(named),
            hint="Leave the option out, or give a .csv or .tsv file.",
        )
    from sciseq.data.sequence_files import read_sequences

    try:
        found = read_sequences(path, column=column, label_column=condition)
    except InputError as error:
        error.hint = "Rename it to what it holds."
        raise
    if found.labels is not None:
        _check_labels(path, str(condition), found.sequences, found.labels)
    return found


def _suffix(name: str) -> str:
    return Path(name.removesuffix(".gz")).suffix


def _check_columns(path: Path, kind: str, options: dict[str, str | None]) -> None:
    from sciseq.data.text_lines import numbered_lines

    lines = (line for _, line in numbered_lines(path))
    reader = csv.reader(lines, delimiter="\t" if kind == ".tsv" else ",")
    try:
        header = [name.strip() for name in next(reader, [])]
    except csv.Error as error:
        raise FileFormatError(
            f"{path.name} cannot be read as a table: {error}", where=f"{path}:1"
        ) from error
    for option, name in options.items():
        if name is None and (option != "--column" or len(header) == 1):
            continue
        if name is None or header.count(name) != 1:
            is_named = f"is {name!r}, which" if name is not None else "is not given; it"
            raise InputError(
                f"{option} {is_named} names no single column; {path.name} has "
                f"{header[:20]}",
                where=f"{path}:1",
                hint=nearest_name(name or "", header)
                or f"Give {option} the name of a column.",
            )


def _check_labels(
    path: Path, column: str, sequences: Sequence[str], labels: Sequence[str]
) -> None:
    for row, (sequence, label) in enumerate(zip(sequences, labels, strict=True), 1):
        if label in _MISSING:
            raise DataQualityError(
                f"the class of row {row} ({sequence[:20]}) is missing: column "
                f"{column!r} has {label!r}",
                where=str(path),
                hint="Leave the row out, or write a class such as 'unknown'.",
            )


# ---------------------------------------------------------------------------- writing


def output_kind(path: Path, allowed: Sequence[str] = tuple(_OUTPUTS)) -> str:
    """Return what format the name of an output asks for.

    Parameters
    ----------
    path : Path
        Output.
    allowed : sequence of str
        Suffixes that are possible.

    Raises
    ------
    InputError
        For another suffix.
    """
    suffix = _suffix(path.name.lower())
    if suffix not in allowed:
        raise InputError(
            f"{path.name} has an unknown suffix",
            where="--out",
            hint=f"Known are {', '.join(allowed)}, each also with .gz.",
        )
    return _OUTPUTS[suffix]


def write_sequences(path: Path, kind: str, sequences: Sequence[Any]) -> None:
    """Write sequences so that they are read again as they are.

    Parameters
    ----------
    path : Path
        File to write, whole or not at all.
    kind : {"csv", "fasta", "jsonl", "lines"}
        Its format.
    sequences : sequence of str or of lists
        Sequences.

    Raises
    ------
    InputError
        When the format cannot hold them.
    """
    if kind != "jsonl":
        _refuse(path, _obstacle(sequences))
    with temporary_path(path) as place:
        with _opened(place) as text:
            _write_rows(text, kind, sequences)
        _refuse(path, _difference(place, kind, sequences))


def write_table(path: Path, head: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table as CSV.

    Parameters
    ----------
    path : Path
        File to write, whole or not at all.
    head : sequence of str
        Names of the columns.
    rows : iterable of sequences
        Rows.
    """
    with temporary_path(path) as place, _opened(place) as text:
        csv.writer(text, lineterminator="\n").writerows([head, *rows])


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[TextIO]:
    """Open a file for text, compressed where its name says so."""
    with path.open("wb") as raw, contextlib.ExitStack() as stack:
        binary: Any = raw
        if path.suffix.lower() == ".gz":  # no name and no time: equal bytes each run
            binary = stack.enter_context(gzip.GzipFile("", "wb", 9, raw, 0))
        yield stack.enter_context(io.TextIOWrapper(binary, "utf-8", newline=""))


def _write_rows(text: TextIO, kind: str, sequences: Sequence[Any]) -> None:
    if kind == "csv":
        rows = [("sequence",), *((one,) for one in sequences)]
        csv.writer(text, lineterminator="\n").writerows(rows)
        return
    for number, one in enumerate(sequences, start=1):
        before = f">sample{number}\n" if kind == "fasta" else ""
        text.write(f"{before}{json.dumps(one) if kind == 'jsonl' else one}\n")


def _obstacle(sequences: Sequence[Any]) -> str | None:
    """Say what no format of strings can hold, if there is such."""
    for number, one in enumerate(sequences, start=1):
        if not isinstance(one, str):
            return "they are tokens, which would run together"
        if not one:
            return f"sequence {number} is empty"
    return None


def _difference(place: Path, kind: str, sequences: Sequence[Any]) -> str | None:
    """Say what is read otherwise than it was written, if anything is."""
    from sciseq.data.sequence_files import read_sequences

    try:
        found = read_sequences(place, file_format=kind).sequences
    except (FileFormatError, UnsafeFileError) as error:
        return error.message
    for number, (own, read) in enumerate(zip_longest(sequences, found), start=1):
        if own != read:
            return f"sequence {number}, {own!r}, would be read as {read!r}"
    return None


def _refuse(path: Path, reason: str | None) -> None:
    if reason is not None:
        raise InputError(
            f"{path.name} cannot hold these sequences: {reason}",
            where="--out",
            hint="A name that ends in .jsonl (JSON lines) holds all sequences.",
        )
