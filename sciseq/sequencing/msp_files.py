"""NIST MSP: libraries of spectra, blocks of ``Name:`` to the last peak."""

import os
import re
from collections.abc import Iterator
from typing import Any

from sciseq.errors import FileFormatError
from sciseq.sequencing.byte_streams import CHUNK, ByteStream, open_stream, text_lines
from sciseq.sequencing.peak_text import parse_peaks
from sciseq.sequencing.spectrum_records import (
    SkippedSpectrum,
    Spectrum,
    spectrum_or_skip,
)

__all__ = ["read_msp"]

_HEADER = re.compile(r"(?P<key>[A-Za-z][\w ./#-]*?)\s*:\s*(?P<value>.*)")
# Values of comments stand bare or in quotes: Parent=536.58 Protein="sp|P02769 ..."
_COMMENT_ENTRY = re.compile(r'(?P<key>[\w-]+)=(?:"(?P<quoted>[^"]*)"|(?P<bare>\S*))')
# Residues may carry a short sign, as in TVM(O)ENFVAFVDK/2.
_NAME = re.compile(r"(?P<peptide>(?:[A-Z](?:\([^()]*\))?)+)/(?P<charge>\d+)(?:_.*)?")
_MODIFICATION = re.compile(r"(?P<place>-?\d+),(?P<site>[^,]+),(?P<name>[^/(),]+)")
_NAMES = {"CAM": "Carbamidomethyl"}
# Of these, place 0 means the N-terminus, whatever residue is named with it.
_TERMINAL = {"Acetyl", "Carbamyl"}


def read_msp(path: str | os.PathLike[str]) -> Iterator[Spectrum | SkippedSpectrum]:
    """Read the spectra of an MSP library one after the other.

    Parameters
    ----------
    path : path-like
        File, plain or compressed with gzip.

    Yields
    ------
    Spectrum or SkippedSpectrum
        One for each ``Name:``, with ``index=0`` and so on as identifier. What cannot
        be read is a record with the reason.

    Raises
    ------
    FileFormatError
        When the file holds no ``Name:``, or compressed data are damaged.
    UnsafeFileError
        When one spectrum takes more than 64 MiB.

    Notes
    -----
    The precursor is ``PrecursorMZ:``, else ``Parent=`` or ``Mz_exact=`` of the comment;
    the charge is ``Charge:``, else ``Charge=`` of the comment, else what follows the
    peptide in ``Name: PEPTIDE/2``. Modifications are those of ``Mods=`` of the comment.
    """
    source = os.fspath(path)
    with open_stream(path) as stream:
        for index, (header, peaks) in enumerate(_blocks(stream)):
            fields = {"identifier": f"index={index}", "source": source, "index": index}
            yield _read_block(header, peaks, fields)
            stream.mark()


def _blocks(stream: ByteStream) -> Iterator[tuple[dict[str, str], list[bytes]]]:
    """Yield the header, with keys in small letters, and the peak lines of each."""
    header: dict[str, str] | None = None
    peaks: list[bytes] = []
    n_passed = 0
    for line in text_lines(stream):
        if line[:5].lower() == b"name:":
            if header is not None:
                yield header, peaks
            header, peaks = {}, []
        if header is None:
            n_passed += len(line)
            if n_passed > CHUNK:
                break
        elif "num peaks" in header:
            if line.strip():
                peaks.append(line)
        else:
            match = _HEADER.match(line.decode("utf-8", errors="replace"))
            if match:
                header.setdefault(match["key"].lower(), match["value"].strip())
    if header is None:
        raise FileFormatError(
            "no line 'Name:' at the start", where=stream.name, hint="Is it an MSP file?"
        )
    yield header, peaks


def _read_block(
    header: dict[str, str], peaks: list[bytes], fields: dict[str, Any]
) -> Spectrum | SkippedSpectrum:
    comment = {
        match["key"].lower(): match["quoted"] or match["bare"] or ""
        for match in _COMMENT_ENTRY.finditer(
            header.get("comment", header.get("comments", ""))
        )
    }
    name = _NAME.fullmatch(header.get("name", ""))
    fields["title"] = header.get("name") or None
    precursor_mz = _first_number(
        header.get("precursormz"), comment.get("parent"), comment.get("mz_exact")
    )
    charge = _first_number(
        header.get("charge"), comment.get("charge"), name and name["charge"]
    )
    fields["charge"] = int(charge) if charge else None
    try:
        fields["peptide"] = _peptide(name["peptide"], comment) if name else None
        # Several peaks in a line are set apart by semicolons.
        text = b"\n".join(peaks).replace(b";", b"\n")
        mz, intensity = parse_peaks(text)
        _check_number(header.get("num peaks"), len(mz))
    except ValueError as error:
        return SkippedSpectrum(
            "malformed_peaks", str(error), precursor_mz=precursor_mz, **fields
        )
    return spectrum_or_skip(mz, intensity, precursor_mz, **fields)


def _check_number(stated: str | None, n_peaks: int) -> None:
    if stated is None:
        raise ValueError("the line 'Num peaks:' is missing")
    if stated != str(n_peaks):
        raise ValueError(f"'Num peaks: {stated}' is followed by {n_peaks} peaks")


def _first_number(*texts: str | None) -> float | None:
    for text in texts:
        match = re.match(r"\s*(\d+\.?\d*)", text or "")
        if match:
            return float(match[1])
    return None


def _peptide(name: str, comment: dict[str, str]) -> str | None:
    """Return the peptide with its modifications as ProForma, None if they are unknown.

    The comment has all of them by name; the signs in the name are some of them.
    """
    residues = re.sub(r"\(.*?\)", "", name)
    if residues != name and "mods" not in comment:
        return None
    front, behind = "", [""] * len(residues)
    for match in _MODIFICATION.finditer(comment.get("mods", "")):
        name = _NAMES.get(match["name"], match["name"])
        place = int(match["place"])
        if place >= len(residues):
            continue
        if place < 0 or (place == 0 and name in _TERMINAL):
            front += f"[{name}]"
        else:
            behind[place] += f"[{name}]"
    body = "".join(map("".join, zip(residues, behind, strict=True)))
    return f"{front}-{body}" if front else body
