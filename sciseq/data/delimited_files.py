"""CSV and other delimited text: separators, headers and encodings, checked first.

pandas reads nearly any text as some table. What it would bend silently (repeated
names, surplus fields, a missing header) is looked for beforehand and refused.
"""

import csv
import gzip
import io
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from sciseq.data.time_columns import date_readings
from sciseq.errors import FileFormatError, InputError, UnsafeFileError

__all__ = ["FlatTable", "read_delimited", "write_delimited"]

_SEPARATORS = ",;\t|"
_SAMPLE_BYTES = 2**18
_SAMPLE_ROWS = 50
# Numbers as text shrink to a tenth or so; a file that grows further is a trap.
_MAX_RATIO = 200
_FREE_BYTES = 2**24


class FlatTable(NamedTuple):
    """A table as its file lists it: no index, all columns side by side."""

    frame: Any
    row_labels: str | None = None
    """Column that labelled the rows in the file."""
    has_label_name: bool = True
    """False when that column has no name of its own."""


def read_delimited(file: Path, text_columns: Sequence[str] = ()) -> FlatTable:
    """Read delimited text, plain or compressed with gzip.

    Parameters
    ----------
    file : Path
        UTF-8 text whose first row names the columns.
    text_columns : sequence of str
        Columns to keep as text, whatever they hold.

    Returns
    -------
    FlatTable

    Raises
    ------
    FileFormatError
        For another encoding, no rows, or rows of unequal length.
    InputError
        For repeated or missing column names.
    UnsafeFileError
        For a compressed file that grows out of all proportion.
    """
    if file.suffix.lower() == ".gz":
        _check_inflation(file)
    try:
        separator, header = _inspect(file)
        frame = pd.read_csv(
            file,
            sep=separator,
            header=0,
            index_col=False,
            encoding="utf-8-sig",
            skipinitialspace=True,
            dtype={name: "str" for name in text_columns if name in header},
            low_memory=False,
        )
    except UnicodeDecodeError as error:
        raise FileFormatError(
            f"{file.name} is not UTF-8 text: {error.reason}",
            where=f"{file}, byte {error.start}",
            hint="Save it again with the encoding UTF-8.",
        ) from error
    except (pd.errors.ParserError, csv.Error) as error:
        raise FileFormatError(
            f"{file.name} cannot be read as a table: {str(error).strip()}",
            where=str(file),
            hint="Every row needs as many fields as the header.",
        ) from error
    if frame.empty:
        raise FileFormatError(
            f"{file.name} holds a header and no rows", where=str(file)
        )
    # pandas renames empty names; the rows were counted against the header above.
    frame.columns = pd.Index(header)
    return _name_columns(frame, file)


def write_delimited(frame: Any, target: Any, *, separator: str = ",") -> None:
    """Write a table with its index as leading columns.

    Parameters
    ----------
    frame : pandas.DataFrame
        Table to write.
    target : path-like or text stream
        A path that ends in ``.gz`` is compressed.
    separator : str, default=","
        Between fields.
    """
    if not str(target).lower().endswith(".gz"):
        frame.to_csv(target, sep=separator, lineterminator="\n")
        return
    # Without name and time in its head, the same table gives the same bytes.
    with (
        Path(target).open("wb") as raw,
        gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as stream,
    ):
        frame.to_csv(stream, sep=separator, lineterminator="\n")


def _check_inflation(file: Path) -> None:
    allowed = max(_FREE_BYTES, _MAX_RATIO * file.stat().st_size)
    total = 0
    try:
        with gzip.open(file) as stream:
            while chunk := stream.read(2**20):
                total += len(chunk)
                if total > allowed:
                    raise UnsafeFileError(
                        f"{file.name} grows more than {_MAX_RATIO}-fold when it is "
                        "decompressed",
                        where=str(file),
                        hint="Decompress it yourself if you trust it.",
                    )
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise FileFormatError(
            f"{file.name} is damaged or cut off: {error}",
            where=str(file),
            hint="Copy or download it again.",
        ) from error


def _inspect(file: Path) -> tuple[str, list[str]]:
    """Separator and header of a file, from its first rows."""
    opened: Any = gzip.open if file.suffix.lower() == ".gz" else open
    with opened(file, "rb") as stream:
        sample = stream.read(_SAMPLE_BYTES)
    is_whole = len(sample) < _SAMPLE_BYTES
    # A character may be cut in two at the end of the sample.
    decoder = io.TextIOWrapper(
        io.BytesIO(sample), "utf-8-sig", "strict" if is_whole else "ignore", newline=""
    )
    lines = [line for line in decoder.read().splitlines() if line.strip()]
    if not is_whole:
        lines.pop()
    if not lines:
        raise FileFormatError(f"{file.name} holds no text", where=str(file))
    separator = _separator(lines[:_SAMPLE_ROWS], file)
    rows = _rows(lines[:_SAMPLE_ROWS], separator)
    _check_header(rows, file)
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(rows[0]):
            raise FileFormatError(
                f"row {number} of {file.name} has {len(row)} fields, the header has "
                f"{len(rows[0])}",
                where=f"{file}, row {number}",
                hint="Every row needs as many fields as the header; quote text that "
                "holds the separator.",
            )
    return separator, [name.strip() for name in rows[0]]


def _rows(lines: Sequence[str], separator: str) -> list[list[str]]:
    return list(csv.reader(lines, delimiter=separator, skipinitialspace=True))


def _separator(lines: Sequence[str], file: Path) -> str:
    """Find the separator that splits every row into as many fields."""
    if ".tsv" in (suffix.lower() for suffix in file.suffixes):
        return "\t"
    best = (False, 1)
    found = ","
    for separator in _SEPARATORS:
        counts = [len(row) for row in _rows(lines, separator)]
        score = (len(set(counts)) == 1 and counts[0] > 1, counts[0])
        if score > best:
            best, found = score, separator
    return found


def _check_header(rows: list[list[str]], file: Path) -> None:
    header = [name.strip() for name in rows[0]]
    repeated = [name for name, count in Counter(header).items() if count > 1 and name]
    if repeated:
        raise InputError(
            f"column names must be unique, {repeated[:5]} appear more than once",
            where=f"{file}, header",
            hint="Rename them; columns are matched by name.",
        )
    values = pd.to_numeric(pd.Series(header), errors="coerce")
    is_fraction = values.notna() & (values % 1 != 0)
    is_date = [bool(date_readings(pd.Series([name]))) for name in header]
    if any(is_date) or is_fraction.any():
        raise InputError(
            f"the first row of {file.name} holds values, not the names of columns: "
            f"{header[:5]}",
            where=f"{file}, row 1",
            hint="Add a row with the names of the columns.",
        )


def _name_columns(frame: Any, file: Path) -> FlatTable:
    """Deal with columns without a name: row labels first, nothing at all last."""
    unnamed = [place for place, name in enumerate(frame.columns) if not name]
    labels = unnamed[:1] == [0]
    rest = unnamed[1:] if labels else unnamed
    filled = [place for place in rest if frame.iloc[:, place].notna().any()]
    if filled:
        raise InputError(
            f"column {filled[0] + 1} of {file.name} has values and no name",
            where=f"{file}, header",
            hint="Give every column a name.",
        )
    # Spreadsheets write separators after the last column.
    frame = frame.iloc[:, [one for one in range(frame.shape[1]) if one not in rest]]
    if not labels:
        return FlatTable(frame)
    return FlatTable(frame, row_labels="", has_label_name=False)
