"""Tables of features for Percolator (``.pin``)."""

import os
from collections.abc import Sequence

from sciseq.errors import InputError
from sciseq.files import temporary_path
from sciseq.sequencing.proforma import Peptidoform, parse_proforma
from sciseq.sequencing.psm_rows import (
    PsmRow,
    PsmRows,
    Psms,
    mass_shifts,
    sources_of,
)

__all__ = ["write_pin"]

_CHARGES = (1, 2, 3, 4, 5)
_COLUMNS = (
    "SpecId",
    "Label",
    "ScanNr",
    "ExpMass",
    "CalcMass",
    "score",
    "mean_residue_score",
    "lowest_residue_score",
    "absolute_error_ppm",
    "peptide_length",
    *(f"charge_{charge}" for charge in _CHARGES),
    "Peptide",
    "Proteins",
)


def write_pin(psms: Psms, path: str | os.PathLike[str]) -> None:
    """Write peptide-spectrum matches as a table for Percolator or mokapot.

    Parameters
    ----------
    psms : DataFrame, or iterable of mappings
        See :class:`sciseq.sequencing.psm_rows.PsmRows`, all of one source: rows are
        passed over twice and never held together. Those without a peptide are left out.
    path : path-like
        File to write.

    Raises
    ------
    InputError
        When the table lacks a column, mixes sources, or a peptide lacks a number that
        is a feature.

    Notes
    -----
    Every row is a target (``Label`` 1) of the protein ``denovo``: sequencing has no
    decoys. Join the rows with those of a decoy run before Percolator learns from them.
    ``ScanNr`` is the number of the scan, or the place in the file where there is none;
    ``ExpMass`` and ``CalcMass`` are m/z. The charges are features of 0 and 1.

    The file is written whole or not at all.
    """
    rows = PsmRows(psms)
    sources = sources_of(row for row in rows if row.peptide is not None)
    if len(sources) > 1:
        # Percolator lets rows of equal scan number compete.
        raise InputError(
            f"psms holds {len(sources)} sources, a .pin file holds one",
            where="psms",
            hint="Write one file per source.",
        )
    with temporary_path(path) as temporary, temporary.open("wb") as file:
        file.write(("\t".join(_COLUMNS) + "\n").encode())
        for row in rows:
            if row.peptide is not None:
                file.write(f"{_line(row)}\n".encode())


def _line(row: PsmRow) -> str:
    peptide = parse_proforma(row.peptide or "")
    numbers = {
        "score": row.score,
        "precursor_mz": row.precursor_mz,
        "calculated_mz": row.calculated_mz,
        "error_ppm": row.error_ppm,
        "charge": row.charge,
    }
    missing = [name for name, value in numbers.items() if value is None]
    if missing or not row.residue_scores:
        raise InputError(
            f"{', '.join(missing) or 'residue_scores'} is missing; Percolator reads "
            "numbers only",
            where=f"psms, {row.identifier}",
        )
    scores = row.residue_scores
    features = [
        row.precursor_mz,
        row.calculated_mz,
        row.score,
        sum(scores) / len(scores),
        min(scores),
        abs(row.error_ppm or 0.0),
        len(peptide.residues),
        *(int(row.charge == charge) for charge in _CHARGES),
    ]
    scan = row.index if row.scan is None else row.scan
    name = f"{row.identifier.replace(' ', '_')}_{row.charge}"
    cells: Sequence[object] = (name, 1, scan, *features, _flanked(peptide), "denovo")
    return "\t".join(str(cell) for cell in cells)


def _flanked(peptide: Peptidoform) -> str:
    """Return the peptide with masses in brackets, between unknown neighbours."""
    masses: dict[int, str] = {}
    for shift in mass_shifts(peptide):
        before = masses.get(shift.position, "")
        masses[shift.position] = f"{before}[{shift.mass:+.6f}]"
    front = f"n{masses[0]}" if 0 in masses else ""
    body = "".join(
        letter + masses.get(place, "")
        for place, letter in enumerate(peptide.residues, start=1)
    )
    return f"-.{front}{body}.-"
