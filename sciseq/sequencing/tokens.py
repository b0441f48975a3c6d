"""One token of a vocabulary as text, and the key under which its spellings meet.

A key is the site (a residue letter, or ``N-term``) and the names of its modifications.
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sciseq.errors import InputError, nearest_name
from sciseq.sequencing.masses import RESIDUE_MASSES
from sciseq.sequencing.proforma import delta_mass, format_proforma, parse_proforma
from sciseq.sequencing.unimod import find_modification, modifications

__all__ = [
    "N_TERM",
    "READ_AS",
    "Key",
    "Tags",
    "TokenIndex",
    "canonical",
    "name_hint",
    "read_modification",
    "read_token",
    "write_token",
]

Tags = tuple[str, ...]
Key = tuple[str, Tags]

N_TERM = "N-term"
READ_AS = {"I": "L", "J": "L"}

# A mass names a token when it is this near, in Da. Other tools write two decimals.
_NEAR = 0.005 + 1e-6


class TokenIndex:
    """Where the tokens of a vocabulary stand, by name and by mass.

    Parameters
    ----------
    tokens : sequence of str
        As they are written.
    keys : sequence of tuple
        Key of each token.
    masses : ndarray of shape (n_tokens,)
        Da.

    Raises
    ------
    InputError
        For a mass that is not finite, or not positive for a residue, and for two
        tokens with the same key.
    """

    def __init__(
        self,
        tokens: Sequence[str],
        keys: Sequence[Key],
        masses: npt.NDArray[np.float64],
    ) -> None:
        self._masses: list[float] = masses.tolist()
        self._numbers: dict[Key, int] = {}
        for number, (token, key) in enumerate(zip(tokens, keys, strict=True)):
            mass = self._masses[number]
            if not math.isfinite(mass) or (mass <= 0 and key[0] != N_TERM):
                raise InputError(
                    f"the mass of {token!r} is {mass}; a finite number of Da is "
                    "needed, above zero for a residue",
                    where="masses",
                )
            first = self._numbers.setdefault(key, number)
            if first != number:
                raise InputError(
                    f"{tokens[first]!r} and {token!r} are the same token",
                    where="masses",
                )

    def __contains__(self, key: Key) -> bool:
        return key in self._numbers

    def __getitem__(self, key: Key) -> int:
        return self._numbers[key]

    def at_site(self, site: str) -> list[int]:
        """Return the tokens of one residue letter, or of the N-terminus."""
        return [number for key, number in self._numbers.items() if key[0] == site]

    def find(self, key: Key) -> int | None:
        """Return the token of these names or, for modifications, of this mass."""
        number = self._numbers.get(key)
        return self.nearest(key) if number is None and key[1] else number

    def nearest(self, key: Key) -> int | None:
        """Return the token of the same site that weighs the same, if any does."""
        mass = self.mass_of(key)
        if mass is None:
            return None
        distances = [(abs(self._masses[n] - mass), n) for n in self.at_site(key[0])]
        distance, number = min(distances, default=(math.inf, -1))
        return number if distance <= _NEAR else None

    def mass_of(self, key: Key) -> float | None:
        """Return residue plus modifications in Da, None when a part is not known."""
        site, tags = key
        bare = self._numbers.get((site, ()))
        usual = RESIDUE_MASSES.get(site, 0.0 if site == N_TERM else None)
        total = usual if bare is None else self._masses[bare]
        for tag in tags:
            modification = find_modification(tag)
            change = delta_mass(tag) if modification is None else modification.mass
            if total is None or change is None:
                return None
            total += change
        return total


def read_token(token: str) -> tuple[str, Key]:
    """Return a token as ProForma, and its key."""
    is_residue = token[:1].isalpha()
    peptide = parse_proforma(token if is_residue else f"{token}G")
    one_kind = not peptide.n_terminal if is_residue else not peptide.modifications[0]
    if len(peptide.residues) != 1 or not one_kind or peptide.residues in READ_AS:
        raise InputError(
            f"{token!r} is no token; it must be one residue other than I, or a "
            "modification of the N-terminus",
            where="masses",
            hint="Write it like 'G', 'M[Oxidation]' or '[Acetyl]-'.",
        )
    text = format_proforma(peptide)
    if is_residue:
        return text, (peptide.residues, canonical(peptide.modifications[0]))
    return text.removesuffix("G"), (N_TERM, canonical(peptide.n_terminal))


def write_token(key: Key) -> str:
    """Return the token of a key as ProForma."""
    site, tags = key
    names = "".join(f"[{tag}]" for tag in tags)
    return f"{names}-" if site == N_TERM else site + names


def canonical(tags: Tags) -> Tags:
    """Return names as the table writes them, in one order."""
    found = [(find_modification(tag), tag) for tag in tags]
    return tuple(sorted(tag if known is None else known.name for known, tag in found))


def name_hint(tags: Tags) -> str:
    """Return the name that a tag without mass was probably meant to be, if any."""
    names = [one.name for one in modifications()]
    unknown = [t for t in tags if find_modification(t) is None and not delta_mass(t)]
    return "".join(nearest_name(tag, names) for tag in unknown[:1])


def read_modification(name: str) -> tuple[str, list[str]]:
    """Return the tag and the sites of ``"Phospho@STY"``."""
    tag, _, sites = name.partition("@")
    known = find_modification(tag)
    mass = delta_mass(tag)
    if known is None and (mass is None or not sites):
        raise InputError(
            f"modification {name!r} is not known",
            where="modifications",
            hint=name_hint((tag,))
            or "Give its mass and its sites, as in '+79.966331@STY'.",
        )
    parts = sites.split(",") if sites or known is None else list(known.sites)
    split = [[part] if part == N_TERM else list(part) for part in parts]
    letters = [READ_AS.get(site, site) for part in split for site in part]
    return f"{mass:+.6f}" if known is None else known.name, letters
