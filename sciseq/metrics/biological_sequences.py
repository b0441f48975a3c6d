r"""Physico-chemical descriptors of peptides, and the GC content of DNA.

Axis legend: n sequences, N residues of a peptide.
"""

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from sciseq.errors import InputError

__all__ = [
    "EISENBERG",
    "KYTE_DOOLITTLE",
    "PK",
    "gc_content",
    "gravy",
    "hydrophobic_moment",
    "net_charge",
    "peptide_descriptors",
]

FloatArray = npt.NDArray[np.float64]

# fmt: off
KYTE_DOOLITTLE: Mapping[str, float] = MappingProxyType({
    "A": 1.8, "C": 2.5, "D": -3.5, "E": -3.5, "F": 2.8, "G": -0.4, "H": -3.2,
    "I": 4.5, "K": -3.9, "L": 3.8, "M": 1.9, "N": -3.5, "P": -1.6, "Q": -3.5,
    "R": -4.5, "S": -0.8, "T": -0.7, "V": 4.2, "W": -0.9, "Y": -1.3,
})
"""Hydropathy (Kyte and Doolittle, J. Mol. Biol. 157, 1982)."""

EISENBERG: Mapping[str, float] = MappingProxyType({
    "A": 0.62, "C": 0.29, "D": -0.90, "E": -0.74, "F": 1.19, "G": 0.48, "H": -0.40,
    "I": 1.38, "K": -1.50, "L": 1.06, "M": 0.64, "N": -0.78, "P": 0.12, "Q": -0.85,
    "R": -2.53, "S": -0.18, "T": -0.05, "V": 1.08, "W": 0.81, "Y": 0.26,
})
"""Normalised consensus hydrophobicity: mean 0, standard deviation 1 (Eisenberg et al.,
J. Mol. Biol. 179, 1984)."""

PK: Mapping[str, float] = MappingProxyType({
    "N-terminus": 8.6, "C-terminus": 3.6, "K": 10.8, "R": 12.5, "H": 6.5,
    "D": 3.9, "E": 4.1, "C": 8.5, "Y": 10.1,
})
"""Acid dissociation constants of termini and side chains, those of EMBOSS (Rice et al.,
Trends in Genetics 16, 2000)."""
# fmt: on

_BASIC = ("N-terminus", "K", "R", "H")


def peptide_descriptors(
    peptides: Sequence[str], *, ph: float = 7.0
) -> dict[str, FloatArray]:
    """Return length, net charge, hydrophobic moment and GRAVY of each peptide.

    Parameters
    ----------
    peptides : sequence of n str
        One-letter code, the 20 usual residues.
    ph : float, default=7.0
        Acidity for the charge.

    Returns
    -------
    dict of str to ndarray of shape (n,)
        ``length``, ``net_charge``, ``hydrophobic_moment`` and ``gravy``.

    Raises
    ------
    InputError
        For an empty peptide or another letter.

    Examples
    --------
    >>> found = peptide_descriptors(["GLWSKIKEVGKEAAKAAAKAAGKAALGAVSEAV"])
    >>> {name: round(float(value[0]), 2) for name, value in found.items()}
    {'length': 33.0, 'net_charge': 2.98, 'hydrophobic_moment': 0.28, 'gravy': 0.2}
    """
    return {
        "length": np.array([float(len(peptide)) for peptide in peptides]),
        "net_charge": np.array([net_charge(peptide, ph=ph) for peptide in peptides]),
        "hydrophobic_moment": np.array([hydrophobic_moment(one) for one in peptides]),
        "gravy": np.array([gravy(peptide) for peptide in peptides]),
    }


def net_charge(peptide: str, *, ph: float = 7.0) -> float:
    r"""Return the mean charge of a peptide with free termini.

    .. math:: \sum_{b} \frac{1}{1 + 10^{\mathrm{pH} - \mathrm{p}K_b}}
              - \sum_{a} \frac{1}{1 + 10^{\mathrm{p}K_a - \mathrm{pH}}}

    over basic groups :math:`b` and acidic groups :math:`a` (Henderson and Hasselbalch),
    each with the constant of :data:`PK`.

    Parameters
    ----------
    peptide : str
        One-letter code.
    ph : float, default=7.0
        Acidity.

    Returns
    -------
    float
        In elementary charges.

    Raises
    ------
    InputError
        For an empty peptide or another letter than the 20 usual ones.

    Notes
    -----
    Groups do not feel each other, and cysteines are taken as free.

    Examples
    --------
    >>> round(net_charge("KKK"), 3), round(net_charge("DDD"), 3)
    (2.975, -3.022)
    """
    _check_peptide(peptide)
    groups = {name: peptide.count(name) for name in PK if len(name) == 1}
    groups |= {"N-terminus": 1, "C-terminus": 1}
    return sum(_charge(name, ph) * count for name, count in groups.items())


def hydrophobic_moment(peptide: str, *, angle: float = 100.0) -> float:
    r"""Return the mean hydrophobic moment of a peptide as a helix.

    .. math:: \mu_H = \frac1N \Big| \sum_{n=1}^{N} H_n e^{i \delta n} \Big|

    Parameters
    ----------
    peptide : str
        One-letter code.
    angle : float, default=100.0
        Degrees :math:`\delta` between residues: 100 in an alpha helix, about 170 in a
        beta strand.

    Returns
    -------
    float
        Large where one side is hydrophobic and the other is not, in units of
        :data:`EISENBERG`, over the whole peptide.

    Raises
    ------
    InputError
        For an empty peptide or another letter than the 20 usual ones.

    Notes
    -----
    Eisenberg, Weiss and Terwilliger, The helical hydrophobic moment, Nature 299 (1982).

    Examples
    --------
    >>> round(hydrophobic_moment("LKKLLKLLKKLLKL"), 3)
    0.79
    """
    _check_peptide(peptide)
    H = np.array([EISENBERG[residue] for residue in peptide])
    turn = np.exp(1j * math.radians(angle) * np.arange(len(H)))
    return float(abs((H * turn).mean()))


def gravy(peptide: str) -> float:
    """Return the grand average of hydropathy.

    Parameters
    ----------
    peptide : str
        One-letter code.

    Returns
    -------
    float
        Mean of :data:`KYTE_DOOLITTLE` over the residues.

    Raises
    ------
    InputError
        For an empty peptide or another letter than the 20 usual ones.

    Examples
    --------
    >>> gravy("IR")
    0.0
    """
    _check_peptide(peptide)
    return sum(KYTE_DOOLITTLE[residue] for residue in peptide) / len(peptide)


def gc_content(sequences: Sequence[str]) -> FloatArray:
    """Return the share of guanine and cytosine in each DNA or RNA sequence.

    Parameters
    ----------
    sequences : sequence of n str
        Letters A, C, G, T and U, in capitals or not.

    Returns
    -------
    ndarray of shape (n,)
        Between 0 and 1.

    Raises
    ------
    InputError
        For an empty sequence or another letter.

    Examples
    --------
    >>> gc_content(["ATGC", "aaau"])
    array([0.5, 0. ])
    """
    shares = []
    for place, sequence in enumerate(sequences):
        bases = sequence.upper()
        _check_letters(bases, "ACGTU", "DNA or RNA", f"sequence {place}")
        shares.append((bases.count("G") + bases.count("C")) / len(bases))
    return np.array(shares)


def _charge(group: str, ph: float) -> float:
    if group in _BASIC:
        return float(1 / (1 + 10 ** (ph - PK[group])))
    return float(-1 / (1 + 10 ** (PK[group] - ph)))


def _check_peptide(peptide: str) -> None:
    _check_letters(peptide, "".join(KYTE_DOOLITTLE), "peptides", f"{peptide[:40]!r}")


def _check_letters(text: str, allowed: str, kind: str, where: str) -> None:
    bad = next((letter for letter in text if letter not in allowed), None)
    if bad is not None or not text:
        given = (
            "a sequence is empty" if bad is None else f"{bad!r} is no letter of {kind}"
        )
        raise InputError(
            f"{given}; allowed are {allowed}",
            where=where,
            hint="Leave such sequences out.",
        )
