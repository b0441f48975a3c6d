"""mzTab 1.0 for identifications: what was searched, and one row per peptide."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence

from sciseq import __version__
from sciseq.errors import InputError
from sciseq.files import temporary_path
from sciseq.sequencing.cv_terms import Term, file_uri, format_terms
from sciseq.sequencing.proforma import parse_proforma
from sciseq.sequencing.psm_rows import (
    MassShift,
    PsmRow,
    PsmRows,
    Psms,
    mass_shifts,
    vocabulary_shifts,
)

__all__ = ["write_mztab"]

_NO_FIXED = "[MS, MS:1002453, No fixed modifications searched, ]"
_NO_VARIABLE = "[MS, MS:1002454, No variable modifications searched, ]"
_SCORES = {
    "score": "MS:1001143, PSM-level search engine specific statistic",
    "probability": "MS:1002357, PSM-level probability",
    "q_value": "MS:1002354, PSM-level q-value",
}
_COLUMNS = (
    "sequence",
    "PSM_ID",
    "accession",
    "unique",
    "database",
    "database_version",
    "search_engine",
    "modifications",
    "retention_time",
    "charge",
    "exp_mass_to_charge",
    "calc_mass_to_charge",
    "spectra_ref",
    "pre",
    "post",
    "start",
    "end",
    "opt_global_cv_MS:1003169_proforma_peptidoform_sequence",
    "opt_global_aa_scores",
    "opt_global_mass_error_ppm",
    "opt_global_title",
    "opt_global_cv_MS:1003057_scan_number",
)


def write_mztab(
    psms: Psms,
    path: str | os.PathLike[str],
    *,
    mode: str = "Summary",
    description: str = "De novo peptide sequencing",
    fixed_modifications: Sequence[str] = (),
    variable_modifications: Sequence[str] = (),
    settings: Mapping[str, object] | None = None,
) -> None:
    """Write peptide-spectrum matches as mzTab 1.0.0, type Identification.

    Parameters
    ----------
    psms : DataFrame, or iterable of mappings
        See :class:`sciseq.sequencing.psm_rows.PsmRows`: rows are passed over three
        times and never held together.
    path : path-like
        File to write.
    mode : {"Summary", "Complete"}, default="Summary"
        What the file says of itself; the fields that either needs are there.
    description : str, default="De novo peptide sequencing"
        One line about the analysis.
    fixed_modifications, variable_modifications : sequence of str, default=()
        Tokens that the model knows: ``"C[Carbamidomethyl]"``, ``"[Acetyl]-"``.
    settings : mapping, optional
        What the analysis was run with, written as settings of the software.

    Raises
    ------
    InputError
        For another mode, a table without a needed column, and a modification that is
        neither in the table of Unimod nor a mass.

    Notes
    -----
    Spectra without a peptide have no row: a comment line (``COM``) behind the table
    gives the identifier of each and the reason. There are no proteins, so the columns
    about them are ``null``. Residue scores, ProForma, the mass error, and the title and
    the number of the scan where the table has them, are optional columns. Probability
    and q-value, where the table has them, are the second and the third score.

    The file is written whole or not at all.
    """
    if mode not in {"Summary", "Complete"}:
        raise InputError(
            f"mode is {mode!r}, must be 'Summary' or 'Complete'", where="mode"
        )
    rows = PsmRows(psms)
    runs, scores = _overview(rows)
    head = [
        ("mzTab-version", "1.0.0"),
        ("mzTab-mode", mode),
        ("mzTab-type", "Identification"),
        ("description", " ".join(description.split()) or "null"),
        ("software[1]", _software()),
        *_settings(settings or {}),
        *(
            (f"psm_search_engine_score[{number}]", f"[MS, {_SCORES[name]}, ]")
            for number, name in enumerate(scores, start=1)
        ),
        *_modifications("fixed_mod", fixed_modifications, _NO_FIXED),
        *_modifications("variable_mod", variable_modifications, _NO_VARIABLE),
        *(entry for source, number in runs.items() for entry in _run(source, number)),
    ]
    with temporary_path(path) as temporary, temporary.open("wb") as file:
        for key, value in head:
            file.write(f"MTD\t{key}\t{value}\n".encode())
        file.write(b"\n")
        for line in _table(rows, runs, scores):
            file.write(f"{line}\n".encode())


def _overview(rows: Iterable[PsmRow]) -> tuple[dict[str, int], list[str]]:
    """Return the number of each file, and the kinds of scores that there are."""
    runs: dict[str, int] = {}
    found = {"score"}
    for row in rows:
        runs.setdefault(row.source, len(runs) + 1)
        found.update(name for name in _SCORES if getattr(row, name) is not None)
    # An empty table, too, must name a run.
    return runs or {"": 1}, [name for name in _SCORES if name in found]


def _software() -> str:
    return f"[, , sciseq, {__version__}]"


def _settings(settings: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    for number, (name, value) in enumerate(settings.items(), start=1):
        text = " ".join(f"{name} = {value}".split())
        yield f"software[1]-setting[{number}]", text


def _modifications(
    kind: str, tokens: Sequence[str], none: str
) -> Iterator[tuple[str, str]]:
    shifts = vocabulary_shifts(tokens)
    if not shifts:
        yield f"{kind}[1]", none
    for number, shift in enumerate(shifts, start=1):
        name = shift.modification.name if shift.modification else ""
        vocabulary = "UNIMOD" if shift.modification else "CHEMMOD"
        yield f"{kind}[{number}]", f"[{vocabulary}, {_accession(shift)}, {name}, ]"
        yield f"{kind}[{number}]-site", shift.site
        anywhere = shift.site != "N-term"
        yield f"{kind}[{number}]-position", "Anywhere" if anywhere else "Any N-term"


def _accession(shift: MassShift) -> str:
    if shift.modification is None:
        return f"CHEMMOD:{shift.mass:+.12g}"
    return f"UNIMOD:{shift.modification.accession}"


def _run(source: str, number: int) -> Iterator[tuple[str, str]]:
    file_format, id_format = format_terms(source)
    yield f"ms_run[{number}]-format", _parameter(file_format)
    yield f"ms_run[{number}]-location", file_uri(source) or "null"
    yield f"ms_run[{number}]-id_format", _parameter(id_format)


def _parameter(term: Term) -> str:
    return f"[MS, {term.accession}, {term.name}, ]"


def _table(
    rows: Iterable[PsmRow], runs: Mapping[str, int], scores: Sequence[str]
) -> Iterator[str]:
    columns = list(_COLUMNS)
    place = columns.index("modifications")
    columns[place:place] = [_score_column(n) for n in range(1, len(scores) + 1)]
    yield "\t".join(("PSH", *columns))
    number = 0
    for row in rows:
        if row.peptide is not None:
            number += 1
            cells = _cells(row, number, runs, scores)
            yield "\t".join(("PSM", *(cells.get(name, "null") for name in columns)))
    for row in rows:
        if row.peptide is None:
            yield f"COM\tno peptide: {_reference(row, runs)}: {row.reason}"


def _score_column(number: int) -> str:
    return f"search_engine_score[{number}]"


def _cells(
    row: PsmRow, number: int, runs: Mapping[str, int], scores: Sequence[str]
) -> dict[str, str]:
    """Return the cells of a row by column; what is absent is unknown."""
    peptide = parse_proforma(row.peptide or "")
    shifts = mass_shifts(peptide)
    known = {
        "sequence": peptide.residues,
        "PSM_ID": number,
        "search_engine": _software(),
        **{_score_column(n): getattr(row, s) for n, s in enumerate(scores, start=1)},
        "modifications": ",".join(f"{s.position}-{_accession(s)}" for s in shifts),
        "retention_time": row.retention_time,
        "charge": row.charge,
        "exp_mass_to_charge": row.precursor_mz,
        "calc_mass_to_charge": row.calculated_mz,
        "spectra_ref": _reference(row, runs),
        "opt_global_cv_MS:1003169_proforma_peptidoform_sequence": row.peptide,
        "opt_global_aa_scores": ",".join(f"{s:.6g}" for s in row.residue_scores),
        "opt_global_mass_error_ppm": row.error_ppm,
        "opt_global_title": row.title,
        "opt_global_cv_MS:1003057_scan_number": row.scan,
    }
    return {
        name: str(value) for name, value in known.items() if value not in (None, "")
    }


def _reference(row: PsmRow, runs: Mapping[str, int]) -> str:
    return f"ms_run[{runs[row.source]}]:{row.identifier}"
