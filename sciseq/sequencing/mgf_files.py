"""Mascot generic format: blocks of ``KEY=value`` lines and peaks."""

import contextlib
import gzip
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

from sciseq.errors import FileFormatError, InputError, InputTypeError
from sciseq.files import temporary_path
from sciseq.sequencing.byte_streams import CHUNK, ByteStream, open_stream
from sciseq.sequencing.peak_text import parse_peaks
from sciseq.sequencing.psm_rows import PsmRow, PsmRows, Psms
from sciseq.sequencing.spectrum_records import (
    SkippedSpectrum,
    Spectrum,
    spectrum_or_skip,
)

__all__ = ["Match", "parse_charges", "read_mgf", "write_matches", "write_mgf"]

_BEGIN = b"\nBEGIN IONS"
_END = b"\nEND IONS"
_COMMENTS = b"#;!/"
_FIRST_OF_NUMBER = b"0123456789.+-"
_LATE_PARAMETER = re.compile(rb"[A-Za-z_]\w*=")
_CHARGE = re.compile(r"(?P<before>[+-]?)(?P<number>\d+)(?:\.0*)?(?P<after>[+-]?)")


def read_mgf(path: str | os.PathLike[str]) -> Iterator[Spectrum | SkippedSpectrum]:
    """Read the spectra of an MGF file one after the other.

    Parameters
    ----------
    path : path-like
        File, plain or compressed with gzip.

    Yields
    ------
    Spectrum or SkippedSpectrum
        One for each ``BEGIN IONS``, with ``index=0`` and so on as identifier. What
        cannot be read is a record with the reason.

    Raises
    ------
    FileFormatError
        When the file holds no ``BEGIN IONS``, or compressed data are damaged.
    UnsafeFileError
        When one spectrum takes more than 64 MiB.
    """
    source = os.fspath(path)
    with open_stream(path) as stream:
        defaults: dict[str, str] = {}
        for index, (block, is_complete) in enumerate(_blocks(stream, defaults)):
            fields = {"identifier": f"index={index}", "source": source, "index": index}
            yield _read_block(block, is_complete, fields, defaults)


def parse_charges(text: str) -> tuple[int, ...]:
    """Return the charges that a text names, negative ones with their sign.

    Parameters
    ----------
    text : str
        ``"2+"``, ``"2"``, ``"2.0+"``, ``"2+ and 3+"``, ``"2+, 3+"``, ``"0"`` for an
        unknown charge.

    Raises
    ------
    ValueError
        For anything else.

    Examples
    --------
    >>> parse_charges("2+ and 3+"), parse_charges("2.0+"), parse_charges("2-")
    ((2, 3), (2,), (-2,))
    """
    charges = []
    for part in re.split(r"\s*,\s*|\s+and\s+|\s+", text.strip()):
        match = _CHARGE.fullmatch(part)
        if part and (match is None or (match["before"] and match["after"])):
            raise ValueError(f"{text!r} is no charge")
        if match is not None and int(match["number"]):
            sign = -1 if "-" in match["before"] + match["after"] else 1
            charges.append(sign * int(match["number"]))
    return tuple(charges)


def _blocks(
    stream: ByteStream, defaults: dict[str, str]
) -> Iterator[tuple[bytes, bool]]:
    """Yield what stands between the marks, and whether the end was there.

    Parameters of the whole file, before the first block, go into `defaults`.
    """
    buffer = b"\n" + stream.read()
    begin = buffer.find(_BEGIN)
    if begin < 0:
        raise FileFormatError(
            f"no line 'BEGIN IONS' in the first {CHUNK // 2**20} MiB",
            where=stream.name,
            hint="Is it an MGF file?",
        )
    defaults.update(_parameters(buffer[:begin])[0])
    position = begin + len(_BEGIN)
    while True:
        end = buffer.find(_END, position)
        following = buffer.find(_BEGIN, position, end if end >= 0 else len(buffer))
        if end < 0 and following < 0:
            chunk = stream.read()
            if chunk:
                buffer, position = buffer[position:] + chunk, 0
                continue
            yield buffer[position:], False
            return
        is_complete = following < 0
        yield buffer[position : end if is_complete else following + 1], is_complete
        stream.mark()
        if is_complete:
            buffer, following = _next_begin(stream, buffer, end + 1)
            if following < 0:
                return
        position = following + len(_BEGIN)


def _next_begin(stream: ByteStream, buffer: bytes, position: int) -> tuple[bytes, int]:
    """Return the buffer and the place of the next block, -1 when there is none."""
    while (place := buffer.find(_BEGIN, position)) < 0:
        chunk = stream.read()
        stream.mark()
        if not chunk:
            return buffer, -1
        # The mark itself may be cut in two.
        buffer, position = buffer[max(position, len(buffer) - len(_BEGIN)) :] + chunk, 0
    return buffer, place


def _parameters(block: bytes) -> tuple[dict[str, str], bytes]:
    """Return the parameters of a block and the text of its peaks."""
    parameters: dict[str, str] = {}
    # The block starts behind the mark, in the middle of its line.
    position = block.find(b"\n") + 1
    while 0 < position < len(block):
        end = block.find(b"\n", position)
        line = block[position : end if end >= 0 else len(block)].strip()
        if line and line[0] not in _COMMENTS:
            key, equals, value = line.partition(b"=")
            if line[0] in _FIRST_OF_NUMBER or not equals:
                break
            parameters[_text(key).strip().upper()] = _text(value).strip()
        position = end + 1
    else:
        return parameters, b""
    peaks = block[position:]
    if any(mark in peaks for mark in (b"=", b"#", b";", b"!", b"/")):
        peaks = _without_text_lines(peaks, parameters)
    return parameters, peaks


def _without_text_lines(peaks: bytes, parameters: dict[str, str]) -> bytes:
    """Return the peaks alone; parameters between them are added to the others."""
    kept = []
    for line in peaks.split(b"\n"):
        stripped = line.strip()
        if _LATE_PARAMETER.match(stripped):
            key, _, value = stripped.partition(b"=")
            parameters[_text(key).upper()] = _text(value).strip()
        elif stripped and stripped[0] not in _COMMENTS:
            kept.append(line)
    return b"\n".join(kept)


def _read_block(
    block: bytes,
    is_complete: bool,
    fields: dict[str, Any],
    defaults: Mapping[str, str],
) -> Spectrum | SkippedSpectrum:
    parameters, peak_text = _parameters(block)
    precursor_mz = _number(parameters.get("PEPMASS", ""))
    fields |= {
        "title": parameters.get("TITLE"),
        "peptide": parameters.get("SEQ") or None,
        "retention_time": _number(parameters.get("RTINSECONDS", "")),
        "scan": _scan(parameters.get("SCANS", "")),
    }
    reason = "malformed_header"
    try:
        charges = parse_charges(parameters.get("CHARGE", defaults.get("CHARGE", "")))
        fields["charge"] = charges[0] if len(charges) == 1 else None
        reason = "unterminated"
        if not is_complete:
            raise ValueError("'END IONS' is missing")
        reason = "negative_mode"
        if min(charges, default=1) < 0:
            raise ValueError(f"the charge is {charges[0]}")
        reason = "malformed_peaks"
        mz, intensity = parse_peaks(peak_text)
    except ValueError as error:
        return SkippedSpectrum(reason, str(error), precursor_mz=precursor_mz, **fields)
    fields["charges"] = charges if len(charges) > 1 else ()
    return spectrum_or_skip(mz, intensity, precursor_mz, **fields)


def _text(data: bytes) -> str:
    return data.decode("utf-8", errors="replace")


def _number(text: str) -> float | None:
    """Return the first number of a text: the others are an intensity, or a range."""
    match = re.match(r"\s*(\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+)", text)
    return float(match[1]) if match else None


def _scan(text: str) -> int | None:
    return int(text) if re.fullmatch(r"\d{1,18}", text) else None


class Match(NamedTuple):
    """A spectrum and what to write as its peptide and score."""

    spectrum: Spectrum
    peptide: str | None = None
    score: float | None = None


def write_mgf(
    spectra: Iterable[Spectrum | SkippedSpectrum],
    path: str | os.PathLike[str],
    psms: Psms | None = None,
) -> None:
    """Write spectra as MGF, with their peptides as ``SEQ``.

    Parameters
    ----------
    spectra : iterable of Spectrum
        Written one after the other; a SkippedSpectrum has no peaks and is left out.
    path : path-like
        File; a name that ends in ``.gz`` is compressed.
    psms : DataFrame, or iterable of mappings, optional
        Peptide-spectrum matches in any order (see
        :class:`sciseq.sequencing.psm_rows.PsmRows`). A spectrum gets the peptide and
        the score of the row of its `source` and `identifier`; all rows are held in
        memory. Without them, it keeps its own annotation.

    Raises
    ------
    InputError
        When a column is missing or a spectrum is there twice.
    InputTypeError
        When something else than a spectrum is given.

    Notes
    -----
    The file is written whole or not at all.
    """
    write_matches(_matches(spectra, psms), path)


def write_matches(matches: Iterable[Match], path: str | os.PathLike[str]) -> None:
    """Write spectra as MGF with the peptides that stand beside them, in one pass.

    Parameters
    ----------
    matches : iterable of Match
        Written one after the other and not held.
    path : path-like
        File; a name that ends in ``.gz`` is compressed. Written whole or not at all.
    """
    with temporary_path(path) as temporary, _open_for_writing(temporary) as file:
        for match in matches:
            file.write(_block_text(match).encode())


def _matches(
    spectra: Iterable[Spectrum | SkippedSpectrum], psms: Psms | None
) -> Iterator[Match]:
    rows = {} if psms is None else _by_spectrum(psms)
    for spectrum in spectra:
        if isinstance(spectrum, SkippedSpectrum):
            continue
        if not isinstance(spectrum, Spectrum):
            raise InputTypeError(
                f"a {type(spectrum).__name__} among the spectra, must be a Spectrum"
            )
        row = rows.get((spectrum.source, spectrum.identifier))
        if row is not None:
            yield Match(spectrum, row.peptide, row.score)
        else:
            yield Match(spectrum, spectrum.peptide if psms is None else None)


def _by_spectrum(psms: Psms) -> dict[tuple[str, str], PsmRow]:
    rows: dict[tuple[str, str], PsmRow] = {}
    for row in PsmRows(psms):
        if row.key in rows:
            raise InputError(
                "psms holds a spectrum twice; MGF has room for one peptide each",
                where=f"psms, {row.source} {row.identifier}".replace("  ", " "),
                hint="Keep the best row of each spectrum.",
            )
        rows[row.key] = row
    return rows


@contextlib.contextmanager
def _open_for_writing(path: Path) -> Iterator[IO[bytes]]:
    with path.open("wb") as file:
        if path.suffix != ".gz":
            yield file
            return
        # No name and no time in the header: equal spectra give equal files.
        with gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed:
            yield cast(IO[bytes], packed)  # it has all methods of IO[bytes]


def _block_text(match: Match) -> str:
    spectrum, peptide, score = match
    charges = spectrum.charges or (spectrum.charge,)
    entries = {
        "TITLE": spectrum.title or spectrum.identifier,
        "PEPMASS": float(spectrum.precursor_mz),
        "CHARGE": " and ".join(f"{charge}+" for charge in charges if charge),
        "SCANS": spectrum.scan,
        "RTINSECONDS": spectrum.retention_time,
        "SEQ": peptide,
        "SCORE": score,
    }
    lines = ["BEGIN IONS"]
    lines += [
        f"{key}={' '.join(str(value).split())}"
        for key, value in entries.items()
        if value not in (None, "")
    ]
    lines += [
        f"{mz} {intensity}"
        for mz, intensity in zip(
            spectrum.mz.tolist(), spectrum.intensity.tolist(), strict=True
        )
    ]
    return "\n".join([*lines, "END IONS", "", ""])
