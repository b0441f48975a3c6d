"""Peptide-spectrum matches as rows with checked types, which all writers read."""

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias, Union

from sciseq.errors import InputError, InputTypeError, nearest_name
from sciseq.sequencing.proforma import Peptidoform, delta_mass, parse_proforma
from sciseq.sequencing.unimod import Modification, find_modification

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "MassShift",
    "PsmRow",
    "PsmRows",
    "Psms",
    "mass_shifts",
    "psm_rows",
    "vocabulary_shifts",
]

Psms: TypeAlias = Union["pd.DataFrame", Iterable[Mapping[str, Any]]]
"""Peptide-spectrum matches: a table, or rows that can be read more than once."""

REQUIRED = (
    "source",
    "identifier",
    "index",
    "precursor_mz",
    "charge",
    "peptide",
    "score",
    "residue_scores",
    "calculated_mz",
    "error_ppm",
    "retention_time",
    "reason",
)
OPTIONAL = ("title", "scan", "probability", "q_value")


@dataclass(frozen=True)
class PsmRow:
    """One row: a spectrum with its peptide, or with the reason why it has none.

    Parameters
    ----------
    source, identifier, index, precursor_mz, charge, retention_time, title, scan
        As in :class:`sciseq.sequencing.spectra.Spectrum`; None where unknown.
    peptide : str, optional
        ProForma; None when no peptide was found.
    score : float, optional
        Score of the peptide.
    residue_scores : tuple of float
        Scores of the residues, N to C.
    calculated_mz : float, optional
        m/z of the peptide.
    error_ppm : float, optional
        Error of the precursor in parts per million.
    reason : str
        Why there is no peptide; empty when there is one.
    probability, q_value : float, optional
        Of a calibrated model: how probable the peptide is right, and the share of wrong
        ones among all that are at least as probable.
    """

    source: str
    identifier: str
    index: int
    precursor_mz: float | None
    charge: int | None
    peptide: str | None
    score: float | None
    residue_scores: tuple[float, ...]
    calculated_mz: float | None
    error_ppm: float | None
    retention_time: float | None
    reason: str
    title: str | None = None
    scan: int | None = None
    probability: float | None = None
    q_value: float | None = None

    @property
    def key(self) -> tuple[str, str]:
        """Source and identifier."""
        return self.source, self.identifier


class PsmRows:
    """Peptide-spectrum matches with checked types, a row at a time.

    Every iteration reads the rows anew, so that a writer may pass over them as often as
    its format needs, and holds none of them.

    Parameters
    ----------
    psms : DataFrame, or iterable of mappings
        As in :func:`psm_rows`. An iterable must give all its rows each time it is
        asked: a list, or an object that reads them from a file.

    Raises
    ------
    InputTypeError
        When it is neither, or can be read only once.
    InputError
        When a column is missing; while iterating, when a row lacks a value or a charge
        is no positive integer.

    Examples
    --------
    >>> row = dict.fromkeys(REQUIRED) | {"identifier": "scan=3", "index": 0}
    >>> rows = PsmRows([row])
    >>> [one.identifier for one in rows], [one.identifier for one in rows]
    (['scan=3'], ['scan=3'])
    """

    def __init__(self, psms: Psms) -> None:
        self._psms = psms
        if hasattr(psms, "columns"):
            _check_names([str(name) for name in psms.columns], "psms")
        elif not isinstance(psms, Iterable) or isinstance(psms, Iterator):
            raise InputTypeError(
                f"psms is a {type(psms).__name__}, must be a pandas data frame or rows "
                "that can be read more than once",
                where="psms",
            )

    def __iter__(self) -> Iterator[PsmRow]:
        """Read the rows."""
        is_frame = hasattr(self._psms, "columns")
        rows: Iterable[Any] = _frame_rows(self._psms) if is_frame else self._psms
        for number, row in enumerate(rows):
            if not isinstance(row, Mapping):
                raise InputTypeError(
                    f"a {type(row).__name__} among psms, must be a mapping",
                    where=f"psms, row {number}",
                )
            _check_names(row, f"psms, row {number}")
            yield _row(row, number)


def psm_rows(psms: Psms) -> list[PsmRow]:
    """Check a table of peptide-spectrum matches and return its rows.

    Parameters
    ----------
    psms : DataFrame, or iterable of mappings
        Columns source, identifier, index, precursor_mz, charge, peptide (ProForma, or
        None), score, residue_scores (list of floats), calculated_mz, error_ppm,
        retention_time (seconds), reason (why there is no peptide, or empty), and, if
        there are, title, scan, probability and q_value. NaN and None mean unknown.

    Returns
    -------
    list of PsmRow
        In the order of the table.

    Raises
    ------
    InputTypeError
        When it is no data frame and no rows.
    InputError
        When a column is missing, or a charge is no positive integer.

    Examples
    --------
    >>> import pandas as pd
    >>> table = pd.DataFrame({
    ...     "source": ["a.mgf"], "identifier": ["index=0"], "index": [0],
    ...     "precursor_mz": [450.2], "charge": [2.0], "peptide": ["PEPTLDE"],
    ...     "score": [0.9], "residue_scores": [[0.9] * 7], "calculated_mz": [450.2],
    ...     "error_ppm": [0.1], "retention_time": [float("nan")], "reason": [""],
    ... })
    >>> row = psm_rows(table)[0]
    >>> row.charge, row.retention_time
    (2, None)
    """
    return list(PsmRows(psms))


def _check_names(names: Collection[str], where: str) -> None:
    for name in REQUIRED:
        if name not in names:
            raise InputError(
                f"psms has no column {name!r}; needed are {', '.join(REQUIRED)}",
                where=where,
                hint=nearest_name(name, names) or None,
            )


def _frame_rows(psms: Any) -> Iterator[dict[str, Any]]:
    columns = [str(name) for name in psms.columns]
    names = [name for name in (*REQUIRED, *OPTIONAL) if name in columns]
    cells = zip(*(psms[name].tolist() for name in names), strict=True)
    for values in cells:
        yield dict(zip(names, values, strict=True))


def _row(cells: Mapping[str, Any], number: int) -> PsmRow:
    peptide = _text(cells["peptide"]) or None
    reason = _text(cells["reason"])
    scores = cells["residue_scores"]
    return PsmRow(
        source=_text(cells["source"]),
        identifier=_text(cells["identifier"]),
        index=_integer(cells["index"], "index", number) or 0,
        precursor_mz=_number(cells["precursor_mz"]),
        charge=_charge(cells["charge"], number),
        peptide=peptide,
        score=_number(cells["score"]),
        residue_scores=() if _is_missing(scores) else tuple(map(float, scores)),
        calculated_mz=_number(cells["calculated_mz"]),
        error_ppm=_number(cells["error_ppm"]),
        retention_time=_number(cells["retention_time"]),
        reason=reason if peptide else reason or "no peptide was found",
        title=_text(cells.get("title")) or None,
        scan=_integer(cells.get("scan"), "scan", number),
        probability=_number(cells.get("probability")),
        q_value=_number(cells.get("q_value")),
    )


def _is_missing(value: Any) -> bool:
    # NaN, NaT and pandas.NA differ from themselves, or refuse to say.
    if value is None or isinstance(value, (str, list, tuple)):
        return value is None
    if getattr(value, "ndim", 0):
        return False
    return type(value).__name__ == "NAType" or bool(value != value)


def _text(value: Any) -> str:
    # Tabs and ends of lines would break every text format, control characters XML.
    if _is_missing(value):
        return ""
    text = "".join(c if c.isprintable() else " " for c in str(value))
    return " ".join(text.split())


def _number(value: Any) -> float | None:
    number = math.nan if _is_missing(value) else float(value)
    return number if math.isfinite(number) else None


def _integer(value: Any, name: str, row: int) -> int | None:
    if _is_missing(value):
        return None
    if float(value) != int(value):
        raise InputError(
            f"{name} is {value!r}, must be an integer", where=f"psms, row {row}"
        )
    return int(value)


def _charge(value: Any, row: int) -> int | None:
    charge = _integer(value, "charge", row)
    if charge is not None and charge < 1:
        raise InputError(
            f"charge is {charge}, must be at least 1", where=f"psms, row {row}"
        )
    return charge


@dataclass(frozen=True)
class MassShift:
    """A modification at its place.

    Parameters
    ----------
    position : int
        0 for the N-terminus, 1 for the first residue, and so on.
    site : str
        Letter of the residue, or ``"N-term"``.
    name : str
        As written.
    modification : Modification, optional
        Its entry in the table of Unimod; None for a mass.
    mass : float
        Change of mass in Da.
    """

    position: int
    site: str
    name: str
    modification: Modification | None
    mass: float


def mass_shifts(peptide: Peptidoform) -> list[MassShift]:
    """Return the modifications of a peptide, N to C.

    Raises
    ------
    InputError
        When a name is not in the table of Unimod.

    Examples
    --------
    >>> [(s.position, s.site, s.name) for s in mass_shifts(
    ...     parse_proforma("[Acetyl]-PEC[+57.02]K"))]
    [(0, 'N-term', 'Acetyl'), (3, 'C', '+57.02')]
    """
    places = [(0, "N-term", tag) for tag in peptide.n_terminal]
    for position, (letter, tags) in enumerate(
        zip(peptide.residues, peptide.modifications, strict=True), start=1
    ):
        places += [(position, letter, tag) for tag in tags]
    return [MassShift(*place, *_meaning(place[2])) for place in places]


@cache
def _meaning(tag: str) -> tuple[Modification | None, float]:
    mass = delta_mass(tag)
    if mass is not None:
        return None, mass
    modification = find_modification(tag)
    if modification is None:
        raise InputError(
            f"the modification {tag!r} is not in the table of Unimod",
            hint="Result files need its Unimod name, its number, or its mass: "
            "'C[+57.021464]'.",
        )
    return modification, modification.mass


def vocabulary_shifts(tokens: Iterable[str]) -> list[MassShift]:
    """Return the modifications that tokens of a vocabulary stand for, each once.

    Parameters
    ----------
    tokens : iterable of str
        ``"M[Oxidation]"``, ``"[Acetyl]-"``; bare residues add nothing.

    Examples
    --------
    >>> shifts = vocabulary_shifts(["G", "M[Oxidation]", "[Acetyl]-"])
    >>> [(shift.site, shift.name) for shift in shifts]
    [('M', 'Oxidation'), ('N-term', 'Acetyl')]
    """
    found: dict[tuple[str, str], MassShift] = {}
    for token in tokens:
        # A terminal token is no peptide until a residue follows.
        peptide = parse_proforma(f"{token}G" if token.endswith("-") else token)
        for shift in mass_shifts(peptide):
            found.setdefault((shift.site, shift.name), shift)
    return list(found.values())


def sources_of(rows: Iterable[PsmRow]) -> list[str]:
    """Return the files of the rows, in their order, each once."""
    return list(dict.fromkeys(row.source for row in rows))
