"""In which proteins of a FASTA file peptides stand, and how much of each they cover.

Isoleucine and leucine weigh the same, so they count as one letter; modifications are
ignored. All else must agree letter by letter.
"""

import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from sciseq.errors import InputError, InputTypeError, nearest_name
from sciseq.sequencing.digestion import ENZYMES, FastaEntry, read_fasta
from sciseq.sequencing.peptide_index import PeptideIndex, fold
from sciseq.sequencing.proforma import parse_proforma

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ProteinMatches", "bare_sequence", "match_proteins"]

Interval = tuple[int, int]
Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]

# Residues that are looked through at once: enough to forget the cost of calls.
_TOGETHER = 1_000_000

_END = "-"  # what stands before the first residue of a protein and behind the last one


class ProteinMatches(NamedTuple):
    """Places of peptides in proteins.

    Parameters
    ----------
    peptides : DataFrame
        One row per peptide and place, in the order in which peptides were given; one
        row for a peptide without place. Columns: ``peptide`` (letters, I as L),
        ``n_spectra`` (how often it was given), ``n_proteins``, ``protein``, ``start``,
        ``end`` (counted from 1, both included), ``before``, ``after`` (the residues
        beside it, ``-`` at the ends of the protein), ``sequence`` (as it stands in the
        protein), ``fits_enzyme`` (whether the enzyme cuts at both ends).
    proteins : DataFrame
        One row per protein with a peptide, those with most peptides first. Columns:
        ``protein`` (first word of the header), ``description`` (the rest), ``length``,
        ``n_peptides`` (different ones), ``n_unique_peptides`` (those that stand in no
        other protein), ``n_spectra``, ``coverage`` (share of residues that stand in a
        peptide), ``intervals`` (list of covered ``(start, end)``).
    """

    peptides: "pd.DataFrame"
    proteins: "pd.DataFrame"


class _Place(NamedTuple):
    peptide: int
    protein: int
    start: int  # counted from 0
    before: str
    after: str
    sequence: str
    fits_enzyme: bool


@dataclass
class _Found:
    """Places so far, and the proteins that have one."""

    places: list[_Place] = field(default_factory=list)
    proteins: list[FastaEntry] = field(default_factory=list)
    number_of: dict[str, int] = field(default_factory=dict)


def bare_sequence(peptide: str) -> str:
    """Return the letters of a peptide, without modifications and with I as L.

    Parameters
    ----------
    peptide : str
        ProForma, or an older notation.

    Raises
    ------
    InputError
        When it cannot be read.

    Examples
    --------
    >>> bare_sequence("[Acetyl]-M[Oxidation]PEPTIDEK")
    'MPEPTLDEK'
    """
    return fold(parse_proforma(peptide).residues)


def match_proteins(
    peptides: Any, fasta: Paths, *, enzyme: str = "trypsin"
) -> ProteinMatches:
    r"""Find the proteins that peptides come from.

    Parameters
    ----------
    peptides : DataFrame, or iterable of str or None
        Peptides in ProForma; a table has them in the column ``peptide``, as that of
        :meth:`~sciseq.PeptideSequencer.predict_table`. Rows without a peptide are
        passed over.
    fasta : path-like, or sequence of path-like
        One or more FASTA files, plain or gzip.
    enzyme : str, default="trypsin"
        A name of :data:`~sciseq.sequencing.digestion.ENZYMES`. Places that do not fit
        are found too: the rule fills the column ``fits_enzyme`` only.

    Returns
    -------
    ProteinMatches
        The tables ``peptides`` and ``proteins``.

    Raises
    ------
    InputError
        For an unknown enzyme, a peptide that cannot be read, a table without the
        column, no file, or two different proteins of one name that both have a peptide.
    InputTypeError
        When `peptides` is a single text, or holds something else.
    FileFormatError, UnsafeFileError, OSError
        As :func:`~sciseq.sequencing.digestion.read_fasta`.

    Notes
    -----
    The first letters of the peptides, at most eight, are an index; the proteins are
    read once, in parts, and looked up in it. So the time grows with the proteome and
    hardly with the number of peptides. Only peptides, places and proteins that have
    one are held in memory. `I`, `L` and `J` are one letter. No peptide runs
    across a ``*`` or ``-`` of a protein.

    An end fits the enzyme where it cuts, at the ends of the protein, and behind a
    methionine at its start, which many proteins lose.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder, "two.fasta")
    ...     _ = file.write_text(">P1 first\nMAGIVKLLEDR\n>P2\nGGGGLVKAA\n")
    ...     matches = match_proteins(["AGLVK", "[Acetyl]-LVK", "WWW"], file)
    >>> matches.peptides[["peptide", "protein", "start", "sequence", "fits_enzyme"]]
      peptide protein  start sequence  fits_enzyme
    0   AGLVK      P1      2    AGIVK         True
    1     LVK      P1      4      IVK        False
    2     LVK      P2      5      LVK        False
    3     WWW    None   <NA>     None         <NA>
    >>> matches.proteins[["protein", "n_peptides", "n_unique_peptides", "intervals"]]
      protein  n_peptides  n_unique_peptides intervals
    0      P1           2                  1  [(2, 6)]
    1      P2           1                  0  [(5, 7)]
    """
    if enzyme not in ENZYMES:
        raise InputError(
            f"enzyme {enzyme!r} is not known; there are {', '.join(ENZYMES)}",
            where="enzyme",
            hint=nearest_name(enzyme, ENZYMES),
        )
    paths = _checked_paths(fasta)
    counts = Counter(_bare_sequences(peptides))
    index = PeptideIndex(list(counts))
    found = _Found()
    entries = (entry for path in paths for entry in read_fasta(path))
    for batch in _batches(entries):
        _look_up(batch, index, re.compile(ENZYMES[enzyme]), found)
    return _tables(counts, found)


def _checked_paths(fasta: Paths) -> list[str | os.PathLike[str]]:
    paths = [fasta] if isinstance(fasta, (str, os.PathLike)) else list(fasta)
    if not paths:
        raise InputError("no file is given, at least one is needed", where="fasta")
    return paths


def _bare_sequences(peptides: Any) -> Iterator[str]:
    """Yield the letters of all peptides that are there."""
    if isinstance(peptides, (str, bytes)):
        raise InputTypeError(
            f"peptides is the text {peptides!r}, must be a table or a list of texts",
            where="peptides",
            hint="Give [peptide].",
        )
    if hasattr(peptides, "columns"):
        if "peptide" not in peptides.columns:
            raise InputError(
                "there is no column 'peptide', there are "
                f"{', '.join(map(str, peptides.columns))}",
                where="peptides",
            )
        peptides = peptides["peptide"]
    known: dict[str, str] = {}
    for row, peptide in enumerate(peptides):
        if _is_missing(peptide):
            continue
        if not isinstance(peptide, str):
            raise InputTypeError(
                f"a peptide is {peptide!r}, must be text, or None where there is none",
                where=f"peptides, row {row}",
            )
        if peptide not in known:
            try:
                known[peptide] = bare_sequence(peptide)
            except InputError as error:
                raise InputError(
                    error.message, where=f"peptides, row {row}", hint=error.hint
                ) from error
        yield known[peptide]


def _is_missing(peptide: Any) -> bool:
    if isinstance(peptide, float):
        return math.isnan(peptide)
    # pandas has a missing value of its own, which cannot be compared.
    return peptide is None or repr(peptide) in ("''", "<NA>")


# --------------------------------------------------------------------------- search


def _batches(entries: Iterable[FastaEntry]) -> Iterator[list[FastaEntry]]:
    batch: list[FastaEntry] = []
    n_residues = 0
    for entry in entries:
        batch.append(entry)
        n_residues += len(entry.sequence)
        if n_residues >= _TOGETHER:
            yield batch
            batch, n_residues = [], 0
    if batch:
        yield batch


def _look_up(
    batch: list[FastaEntry], index: PeptideIndex, rule: re.Pattern[str], found: _Found
) -> None:
    """Add the places in some proteins to those that were found."""
    for row, places in index.find([entry.sequence for entry in batch]):
        entry = batch[row]
        protein = _number(entry, found)
        if protein is None:
            continue
        ends = _fitting_ends(entry.sequence, rule)
        around = f"{_END}{entry.sequence}{_END}"
        for start, peptide in places:
            end = start + len(index.peptides[peptide])
            found.places.append(
                _Place(
                    peptide,
                    protein,
                    start,
                    around[start],
                    around[end + 1],
                    entry.sequence[start:end],
                    start in ends and end in ends,
                )
            )


def _number(entry: FastaEntry, found: _Found) -> int | None:
    """Return the number of a protein, None for one that stands there a second time."""
    name = entry.header.split(maxsplit=1)[0] if entry.header else ""
    number = found.number_of.setdefault(name, len(found.proteins))
    if number == len(found.proteins):
        found.proteins.append(entry)
        return number
    if found.proteins[number].sequence != entry.sequence:
        raise InputError(
            f"two different proteins are called {name!r}",
            where="fasta",
            hint="Give every protein a name of its own, the first word of its header.",
        )
    return None


def _fitting_ends(sequence: str, rule: re.Pattern[str]) -> set[int]:
    ends = {match.start() for match in rule.finditer(sequence)} | {0, len(sequence)}
    return ends | {1} if sequence.startswith("M") else ends


# --------------------------------------------------------------------------- tables


def _tables(counts: Counter[str], found: _Found) -> ProteinMatches:
    proteins_of: list[set[int]] = [set() for _ in counts]
    for place in found.places:
        proteins_of[place.peptide].add(place.protein)
    names = list(found.number_of)
    peptides = [
        (letters, count, len(proteins_of[number]))
        for number, (letters, count) in enumerate(counts.items())
    ]
    places = sorted(found.places)
    rows: list[tuple[Any, ...]] = [
        (
            *peptides[one.peptide],
            names[one.protein],
            one.start + 1,
            one.start + len(one.sequence),
            *one[3:],
        )
        for one in places
    ]
    numbers = [one.peptide for one in places]
    for number, one in enumerate(peptides):
        if not proteins_of[number]:
            rows.append((*one, None, None, None, None, None, None, None))
            numbers.append(number)
    order = sorted(range(len(rows)), key=numbers.__getitem__)
    table = _table([rows[one] for one in order], _PEPTIDE_COLUMNS)
    return ProteinMatches(table, _protein_table(counts, found, proteins_of))


def _table(rows: list[Any], kinds: dict[str, Any]) -> "pd.DataFrame":
    import pandas as pd

    # As objects first: None stays None where no kind says otherwise.
    return pd.DataFrame(rows, columns=list(kinds), dtype=object).astype(kinds)


_PEPTIDE_COLUMNS: dict[str, Any] = {
    "peptide": object,
    "n_spectra": "int64",
    "n_proteins": "int64",
    "protein": object,
    "start": "Int64",
    "end": "Int64",
    "before": object,
    "after": object,
    "sequence": object,
    "fits_enzyme": "boolean",
}
_PROTEIN_COLUMNS: dict[str, Any] = {
    "protein": object,
    "description": object,
    "length": "int64",
    "n_peptides": "int64",
    "n_unique_peptides": "int64",
    "n_spectra": "int64",
    "coverage": "float64",
    "intervals": object,
}


def _protein_table(
    counts: Counter[str], found: _Found, proteins_of: list[set[int]]
) -> "pd.DataFrame":
    n_given = list(counts.values())
    own: list[set[int]] = [set() for _ in found.proteins]
    stretches: list[list[Interval]] = [[] for _ in found.proteins]
    for place in found.places:
        own[place.protein].add(place.peptide)
        stretches[place.protein].append(
            (place.start + 1, place.start + len(place.sequence))
        )
    rows = []
    for number, (name, entry) in enumerate(
        zip(found.number_of, found.proteins, strict=True)
    ):
        intervals = _merged(stretches[number])
        length = len(entry.sequence)
        rows.append((
            name,
            entry.header.removeprefix(name).strip(),
            length,
            len(own[number]),
            sum(len(proteins_of[one]) == 1 for one in own[number]),
            sum(n_given[one] for one in own[number]),
            sum(end - start + 1 for start, end in intervals) / length,
            intervals,
        ))  # fmt: skip
    rows.sort(key=lambda row: (-row[3], -row[6]))
    return _table(rows, _PROTEIN_COLUMNS)


def _merged(stretches: list[Interval]) -> list[Interval]:
    """Return what stretches cover together; those that touch are one."""
    merged: list[Interval] = []
    for start, end in sorted(stretches):
        if merged and start <= merged[-1][1] + 1:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((start, end))
    return merged
