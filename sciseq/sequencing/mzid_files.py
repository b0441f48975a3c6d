"""mzIdentML 1.2: peptide-spectrum matches of a search without a database."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from lxml import etree

from sciseq import __version__
from sciseq.errors import InputError
from sciseq.files import temporary_path
from sciseq.sequencing.cv_terms import file_uri, format_terms
from sciseq.sequencing.proforma import parse_proforma
from sciseq.sequencing.psm_rows import (
    MassShift,
    PsmRow,
    PsmRows,
    Psms,
    mass_shifts,
    vocabulary_shifts,
)

__all__ = ["write_mzid"]

_NAMESPACE = "http://psidev.info/psi/pi/mzIdentML/1.2"
_VOCABULARIES = {
    "MS": (
        "Proteomics Standards Initiative Mass Spectrometry Vocabularies",
        "https://raw.githubusercontent.com/HUPO-PSI/psi-ms-CV/master/psi-ms.obo",
    ),
    "UNIMOD": ("UNIMOD", "http://www.unimod.org/obo/unimod.obo"),
    "UO": (
        "Unit Ontology",
        "https://raw.githubusercontent.com/bio-ontology-research-group/"
        "unit-ontology/master/unit.obo",
    ),
}
# The schema wants a database even of a search that used none.
_NO_DATABASE = "no database (de novo)"
_SCORES = {
    "score": ("MS:1001143", "PSM-level search engine specific statistic"),
    "probability": ("MS:1002357", "PSM-level probability"),
    "q_value": ("MS:1002354", "PSM-level q-value"),
}


def write_mzid(
    psms: Psms,
    path: str | os.PathLike[str],
    *,
    fixed_modifications: Sequence[str] = (),
    variable_modifications: Sequence[str] = (),
    settings: Mapping[str, object] | None = None,
) -> None:
    """Write peptide-spectrum matches as mzIdentML 1.2.0.

    Parameters
    ----------
    psms : DataFrame, or iterable of mappings
        See :class:`sciseq.sequencing.psm_rows.PsmRows`: rows are passed over twice and
        never held together. Those without a peptide have no place in this format and
        are left out.
    path : path-like
        File to write.
    fixed_modifications, variable_modifications : sequence of str, default=()
        Tokens that the model knows: ``"C[Carbamidomethyl]"``, ``"[Acetyl]-"``.
    settings : mapping, optional
        What the analysis was run with.

    Raises
    ------
    InputError
        When the table lacks a column, or holds no peptide at all; when a peptide has
        no charge or precursor; and for a modification that is neither in the table of
        Unimod nor a mass.

    Notes
    -----
    Version 1.2 is written because 1.1 asks for a protein behind every peptide. Every
    peptide must stand in the file once, so the different ones (not the rows) are kept
    in memory. The file is written whole or not at all.
    """
    rows = PsmRows(psms)
    peptides, runs = _overview(rows)
    fixed = vocabulary_shifts(fixed_modifications)
    variable = vocabulary_shifts(variable_modifications)
    attributes = {"id": "sciseq", "version": "1.2.0"}
    with (
        temporary_path(path) as temporary,
        etree.xmlfile(str(temporary), encoding="utf-8") as file,
    ):
        file.write_declaration()
        with file.element("MzIdentML", attributes, nsmap={None: _NAMESPACE}):
            file.write(_vocabulary_list(), _software(), pretty_print=True)
            with file.element("SequenceCollection"):
                for peptide, name in peptides.items():
                    file.write(_peptide(peptide, name), pretty_print=True)
            file.write(_analysis(runs), pretty_print=True)
            file.write(_protocol(fixed, variable, settings or {}), pretty_print=True)
            with file.element("DataCollection"):
                file.write(_inputs(runs), pretty_print=True)
                with (
                    file.element("AnalysisData"),
                    file.element("SpectrumIdentificationList", {"id": "matches"}),
                ):
                    for number, row in enumerate(_found(rows), start=1):
                        result = _result(row, number, runs, peptides)
                        file.write(result, pretty_print=True)


def _found(rows: Iterable[PsmRow]) -> Iterator[PsmRow]:
    return (row for row in rows if row.peptide is not None)


def _overview(rows: Iterable[PsmRow]) -> tuple[dict[str, str], dict[str, str]]:
    """Return what peptides and files are called, when all rows can be written."""
    peptides: dict[str, str] = {}
    runs: dict[str, str] = {}
    for number, row in enumerate(_found(rows), start=1):
        if row.charge is None or row.precursor_mz is None:
            raise InputError(
                "a peptide has no charge or no precursor_mz; mzIdentML needs both",
                where=f"psms, peptide {number}, {row.identifier}",
            )
        peptides.setdefault(row.peptide or "", f"peptide_{number}")
        runs.setdefault(row.source, f"spectra_{len(runs)}")
    if not peptides:
        raise InputError(
            "psms holds no peptide; mzIdentML cannot be empty",
            hint="mzTab and plain tables can say why there is none.",
        )
    return peptides, runs


def _element(tag: str, /, *children: Any, **attributes: object) -> Any:
    made = etree.Element(
        f"{{{_NAMESPACE}}}{tag}",
        {key: str(value) for key, value in attributes.items() if value is not None},
        nsmap={None: _NAMESPACE},
    )
    made.extend(children)
    return made


def _term(accession: str, name: str, value: object = None, **unit: str) -> Any:
    vocabulary = accession.partition(":")[0]
    return _element(
        "cvParam",
        cvRef=vocabulary,
        accession=accession,
        name=name,
        value=value,
        **unit,
    )


def _note(name: str, value: object) -> Any:
    return _element("userParam", name=name, value=value)


def _vocabulary_list() -> Any:
    return _element(
        "cvList",
        *(
            _element("cv", id=name, fullName=full_name, uri=uri)
            for name, (full_name, uri) in _VOCABULARIES.items()
        ),
    )


def _software() -> Any:
    name = _element("SoftwareName", _note("sciseq", None))
    software = _element(
        "AnalysisSoftware", name, id="software", name="sciseq", version=__version__
    )
    return _element("AnalysisSoftwareList", software)


def _peptide(text: str, name: str) -> Any:
    peptide = parse_proforma(text)
    sequence = _element("PeptideSequence")
    sequence.text = peptide.residues
    return _element(
        "Peptide",
        sequence,
        *(
            _element(
                "Modification",
                _modification_term(shift),
                location=shift.position,
                residues=shift.site if shift.position else None,
                monoisotopicMassDelta=shift.mass,
            )
            for shift in mass_shifts(peptide)
        ),
        _note("ProForma", text),
        id=name,
    )


def _modification_term(shift: MassShift) -> Any:
    if shift.modification is None:
        return _term("MS:1001460", "unknown modification")
    return _term(f"UNIMOD:{shift.modification.accession}", shift.modification.name)


def _analysis(runs: Mapping[str, str]) -> Any:
    return _element(
        "AnalysisCollection",
        _element(
            "SpectrumIdentification",
            *(_element("InputSpectra", spectraData_ref=name) for name in runs.values()),
            _element("SearchDatabaseRef", searchDatabase_ref="database"),
            id="analysis",
            spectrumIdentificationProtocol_ref="protocol",
            spectrumIdentificationList_ref="matches",
        ),
    )


def _protocol(
    fixed: Sequence[MassShift],
    variable: Sequence[MassShift],
    settings: Mapping[str, object],
) -> Any:
    searched = [
        *(_searched(shift, fixed=True) for shift in fixed),
        *(_searched(shift, fixed=False) for shift in variable),
    ]
    notes = [_note(name, value) for name, value in settings.items()]
    parts = [_element("SearchType", _term("MS:1001010", "de novo search"))]
    if notes:
        parts.append(_element("AdditionalSearchParams", *notes))
    if searched:
        parts.append(_element("ModificationParams", *searched))
    parts.append(_element("Threshold", _term("MS:1001494", "no threshold")))
    protocol = _element(
        "SpectrumIdentificationProtocol",
        *parts,
        id="protocol",
        analysisSoftware_ref="software",
    )
    return _element("AnalysisProtocolCollection", protocol)


def _searched(shift: MassShift, *, fixed: bool) -> Any:
    is_terminal = shift.site == "N-term"
    rules = [
        _element(
            "SpecificityRules",
            _term("MS:1001189", "modification specificity peptide N-term"),
        )
    ]
    return _element(
        "SearchModification",
        *(rules if is_terminal else []),
        _modification_term(shift),
        fixedMod=str(fixed).lower(),
        massDelta=shift.mass,
        residues="." if is_terminal else shift.site,
    )


def _inputs(runs: Mapping[str, str]) -> Any:
    database = _element(
        "SearchDatabase",
        _element("FileFormat", _term("MS:1001348", "FASTA format")),
        _element("DatabaseName", _note(_NO_DATABASE, None)),
        id="database",
        location="",
    )
    spectra = []
    for source, name in runs.items():
        file_format, id_format = format_terms(source)
        spectra.append(
            _element(
                "SpectraData",
                _element("FileFormat", _term(*file_format)),
                _element("SpectrumIDFormat", _term(*id_format)),
                id=name,
                location=file_uri(source),
            )
        )
    return _element("Inputs", database, *spectra)


def _result(
    row: PsmRow,
    number: int,
    runs: Mapping[str, str],
    peptides: Mapping[str, str],
) -> Any:
    values = {name: getattr(row, name) for name in _SCORES}
    notes = [
        _term(*_SCORES[n], value) for n, value in values.items() if value is not None
    ]
    if row.residue_scores:
        text = " ".join(f"{score:.6g}" for score in row.residue_scores)
        notes.append(_note("residue scores", text))
    item = _element(
        "SpectrumIdentificationItem",
        *notes,
        id=f"match_{number}",
        chargeState=row.charge,
        experimentalMassToCharge=row.precursor_mz,
        calculatedMassToCharge=row.calculated_mz,
        peptide_ref=peptides[row.peptide or ""],
        rank=1,
        passThreshold="true",
    )
    details = []
    if row.retention_time is not None:
        second = {
            "unitCvRef": "UO",
            "unitAccession": "UO:0000010",
            "unitName": "second",
        }
        time = _term("MS:1000016", "scan start time", row.retention_time, **second)
        details.append(time)
    if row.title is not None:
        details.append(_term("MS:1000796", "spectrum title", row.title))
    return _element(
        "SpectrumIdentificationResult",
        item,
        *details,
        id=f"result_{number}",
        spectrumID=row.identifier,
        spectraData_ref=runs[row.source],
    )
