"""Names, numbers and masses of common modifications.

The table ``unimod.csv`` is our own. Names and accession numbers are those of Unimod
(https://www.unimod.org). Each composition is the change of formula that the reaction
makes, written as Unimod writes them, and every mass is computed from it with the
masses of the isotopes of the atomic mass evaluation (AME 2012).
"""

import csv
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from sciseq.errors import InputError

__all__ = ["Modification", "composition_mass", "find_modification", "modifications"]

# Da. The bare symbol is the isotope that makes up most of the element.
ISOTOPE_MASSES = {
    "H": 1.00782503223,
    "2H": 2.01410177812,
    "C": 12.0,
    "13C": 13.00335483507,
    "N": 14.00307400443,
    "15N": 15.00010889888,
    "O": 15.99491461957,
    "18O": 17.99915961286,
    "Na": 22.9897692820,
    "P": 30.97376199842,
    "S": 31.9720711744,
    "K": 38.9637064864,
}

_ATOMS = re.compile(r"(?P<isotope>\d*[A-Z][a-z]?)(?:\((?P<count>-?\d+)\))?")


@dataclass(frozen=True)
class Modification:
    """One modification.

    Parameters
    ----------
    name : str
        Name in Unimod, such as ``"Phospho"``.
    accession : int
        Number in Unimod, 21 for ``UNIMOD:21``.
    composition : str
        Change of formula, such as ``"H O(3) P"``.
    sites : tuple of str
        Where it is common: residue letters, and ``"N-term"``.
    synonyms : tuple of str
        Other names in use.
    mass : float
        Monoisotopic change of mass in Da.
    """

    name: str
    accession: int
    composition: str
    sites: tuple[str, ...]
    synonyms: tuple[str, ...]
    mass: float


def composition_mass(composition: str) -> float:
    """Return the monoisotopic mass of a change of formula in Da.

    Parameters
    ----------
    composition : str
        Isotopes with their counts, separated by blanks: ``"H(-1) N(-1) O"``.
        Heavy isotopes carry their number: ``"13C(6)"``.

    Returns
    -------
    float
        Mass in Da; negative when more is lost than gained.

    Raises
    ------
    InputError
        When a part is no isotope with a count, or its mass is not known.

    Examples
    --------
    >>> round(composition_mass("H O(3) P"), 6)
    79.966331
    """
    mass = 0.0
    for part in composition.split():
        atoms = _ATOMS.fullmatch(part)
        if atoms is None or atoms["isotope"] not in ISOTOPE_MASSES:
            raise InputError(
                f"{part!r} is no isotope with a count; isotopes are "
                f"{', '.join(ISOTOPE_MASSES)}",
                where=f"composition {composition!r}",
                hint="Write it like 'H(2) 13C(2) O'.",
            )
        mass += ISOTOPE_MASSES[atoms["isotope"]] * int(atoms["count"] or 1)
    return mass


@cache
def modifications() -> tuple[Modification, ...]:
    """Return all modifications of the table, by accession number.

    Examples
    --------
    >>> modifications()[0].name
    'Acetyl'
    """
    text = files("sciseq.sequencing").joinpath("unimod.csv").read_text("utf-8")
    return tuple(
        Modification(
            name=row["name"],
            accession=int(row["accession"]),
            composition=row["composition"],
            sites=tuple(row["sites"].split(",")),
            synonyms=tuple(filter(None, row["synonyms"].split(","))),
            mass=composition_mass(row["composition"]),
        )
        for row in csv.DictReader(text.splitlines())
    )


def find_modification(name: str) -> Modification | None:
    """Return the modification of this name or accession, None when not in the table.

    Parameters
    ----------
    name : str
        Name or synonym, capitals or not, or ``"UNIMOD:21"``.

    Examples
    --------
    >>> find_modification("UNIMOD:21").name
    'Phospho'
    >>> find_modification("oxidation").accession
    35
    >>> find_modification("Unobtainium") is None
    True
    """
    return _by_name().get(name.casefold())


@cache
def _by_name() -> dict[str, Modification]:
    return {
        key.casefold(): modification
        for modification in modifications()
        for key in (
            modification.name,
            f"UNIMOD:{modification.accession}",
            *modification.synonyms,
        )
    }
