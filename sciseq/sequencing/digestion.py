"""Peptides of a proteome: reading FASTA and cutting proteins by the rules of enzymes.

Everything streams: a file is read line by line, proteins are cut one by one, and a
sample of peptides holds no more than the sample.
"""

import hashlib
import heapq
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from sciseq.data.fasta_files import FastaEntry, read_fasta
from sciseq.errors import InputError, nearest_name

__all__ = [
    "ENZYMES",
    "Digestion",
    "FastaEntry",
    "count_missed_cleavages",
    "digest",
    "peptides_of",
    "read_fasta",
    "sample_peptides",
]

ENZYMES: Mapping[str, str] = MappingProxyType(
    {
        "trypsin": r"(?<=[KR])(?!P)",
        "trypsin/p": r"(?<=[KR])",
        "lys-c": r"(?<=K)(?!P)",
        "lys-c/p": r"(?<=K)",
        "lys-n": r"(?=K)",
        "arg-c": r"(?<=R)(?!P)",
        "asp-n": r"(?=D)",
        "glu-c": r"(?<=E)(?!P)",
        "glu-c/de": r"(?<=[DE])(?!P)",
        "chymotrypsin": r"(?<=[FWYL])(?!P)",
        "chymotrypsin/high": r"(?<=[FWY])(?!P)",
        "cnbr": r"(?<=M)",
        "none": r"(?!)",
        "unspecific": r"",
    }
)
"""Enzyme to the places where it cuts, as a regular expression of width zero.

``"none"`` leaves proteins whole; ``"unspecific"`` cuts everywhere and ignores the
number of missed cleavages.
"""

_STANDARD = re.compile("[ACDEFGHIKLMNPQRSTVWY]+")


class Digestion(NamedTuple):
    """How proteins become peptides.

    Parameters
    ----------
    enzyme : str, default="trypsin"
        A name of :data:`ENZYMES`.
    missed_cleavages : int, default=1
        Most places inside a peptide where the enzyme could have cut.
    shortest, longest : int, default=6 and 40
        Residues of a peptide.
    leucine : bool, default=False
        Read isoleucine as leucine, which weighs the same.
    """

    enzyme: str = "trypsin"
    missed_cleavages: int = 1
    shortest: int = 6
    longest: int = 40
    leucine: bool = False


def digest(sequence: str, digestion: Digestion | None = None) -> Iterator[str]:
    """Yield the peptides of one protein, as often as they occur.

    Parameters
    ----------
    sequence : str
        Residues in capital letters.
    digestion : Digestion, optional
        Enzyme, missed cleavages and lengths; default ``Digestion()``.

    Yields
    ------
    str
        By place of the first residue, then by length. Peptides with a letter other than
        the 20 usual ones (B, J, O, U, X, Z, ``*``) are left out.

    Raises
    ------
    InputError
        For an unknown enzyme, or limits that exclude each other.

    Examples
    --------
    >>> list(digest("MAGKPLRGGK", Digestion(missed_cleavages=1, shortest=2)))
    ['MAGKPLR', 'MAGKPLRGGK', 'GGK']
    """
    rule = digestion or Digestion()
    _check(rule)
    if rule.leucine:
        sequence = sequence.replace("I", "L")
    cuts = [match.start() for match in re.finditer(ENZYMES[rule.enzyme], sequence)]
    places = sorted({0, len(sequence), *cuts})
    reach = len(places) if rule.enzyme == "unspecific" else rule.missed_cleavages + 1
    for first, start in enumerate(places[:-1]):
        for end in places[first + 1 : first + 1 + reach]:
            if end - start > rule.longest:
                break
            peptide = sequence[start:end]
            if end - start >= rule.shortest and _STANDARD.fullmatch(peptide):
                yield peptide


def count_missed_cleavages(peptide: str, enzyme: str = "trypsin") -> int:
    """Return how often the enzyme could have cut inside a peptide.

    Parameters
    ----------
    peptide : str
        Residues in capital letters.
    enzyme : str, default="trypsin"
        A name of :data:`ENZYMES`.

    Examples
    --------
    >>> count_missed_cleavages("MAGKPLRGGK")
    1
    """
    places = re.finditer(ENZYMES[enzyme], peptide)
    return sum(0 < match.start() < len(peptide) for match in places)


def _check(rule: Digestion) -> None:
    if rule.enzyme not in ENZYMES:
        raise InputError(
            f"enzyme {rule.enzyme!r} is not known; there are {', '.join(ENZYMES)}",
            where="enzyme",
            hint=nearest_name(rule.enzyme, ENZYMES),
        )
    if not 1 <= rule.shortest <= rule.longest or rule.missed_cleavages < 0:
        raise InputError(
            f"lengths are {rule.shortest} to {rule.longest} and missed cleavages "
            f"{rule.missed_cleavages}; 1 <= shortest <= longest and at least 0 "
            "missed cleavages are needed",
            where="digestion",
        )


def _stream(
    source: str | os.PathLike[str] | Iterable[str], rule: Digestion
) -> Iterator[str]:
    _check(rule)
    if isinstance(source, (str, os.PathLike)):
        source = (one.sequence for one in read_fasta(source))
    for sequence in source:
        yield from digest(sequence, rule)


def peptides_of(
    source: str | os.PathLike[str] | Iterable[str], digestion: Digestion | None = None
) -> list[str]:
    """Return the distinct peptides of a proteome, in alphabetical order.

    Parameters
    ----------
    source : path-like or iterable of str
        A FASTA file, or sequences of proteins.
    digestion : Digestion, optional
        Enzyme, missed cleavages and lengths; default ``Digestion()``.

    Returns
    -------
    list of str
        The same for any order of the proteins.

    Raises
    ------
    InputError, FileFormatError, UnsafeFileError
        As :func:`digest` and :func:`read_fasta`.

    Examples
    --------
    >>> peptides_of(["GGGKAAAK", "AAAK"], Digestion(missed_cleavages=0, shortest=3))
    ['AAAK', 'GGGK']
    """
    return sorted(set(_stream(source, digestion or Digestion())))


def sample_peptides(
    source: str | os.PathLike[str] | Iterable[str],
    n: int,
    rng: np.random.Generator,
    digestion: Digestion | None = None,
) -> list[str]:
    """Draw `n` distinct peptides of a proteome, each equally likely.

    Every peptide gets a number from a hash whose key is drawn from `rng`, and those
    with the smallest numbers are kept. So a peptide that occurs often is no likelier
    than others, the order of the proteins does not matter, and no more than `n`
    peptides are held.

    Parameters
    ----------
    source : path-like or iterable of str
        A FASTA file, or sequences of proteins.
    n : int
        Number of peptides; all of them when there are fewer.
    rng : numpy.random.Generator
        Gives the key: equal states give equal samples.
    digestion : Digestion, optional
        Enzyme, missed cleavages and lengths; default ``Digestion()``.

    Returns
    -------
    list of str
        In alphabetical order.

    Raises
    ------
    InputError
        When `n` is below 1; also as :func:`digest`.
    FileFormatError, UnsafeFileError
        As :func:`read_fasta`.

    Examples
    --------
    >>> proteins = ["MAAAKGGGGKLLLLLK", "GGGGK"]
    >>> rule = Digestion(missed_cleavages=0, shortest=5)
    >>> sample_peptides(proteins, 2, np.random.default_rng(0), rule)
    ['GGGGK', 'MAAAK']
    """
    if n < 1:
        raise InputError(f"n is {n}, must be at least 1", where="n")
    key = rng.bytes(16)
    # The largest number is on top of the heap, hence the sign.
    heap: list[tuple[int, str]] = []
    kept: set[str] = set()
    for peptide in _stream(source, digestion or Digestion()):
        if peptide in kept:
            continue
        entry = (-_keyed_number(peptide, key), peptide)
        if len(heap) < n:
            heapq.heappush(heap, entry)
            kept.add(peptide)
        elif entry[0] > heap[0][0]:
            kept.remove(heapq.heapreplace(heap, entry)[1])
            kept.add(peptide)
    return sorted(kept)


def _keyed_number(peptide: str, key: bytes) -> int:
    hashed = hashlib.blake2b(peptide.encode("ascii"), digest_size=8, key=key)
    return int.from_bytes(hashed.digest(), "big")
