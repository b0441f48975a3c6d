"""Peptides as an index, and the search of whole proteomes in it.

Every letter is five bits, so that eight letters are one exact number of 40 bits. The
seed of a peptide is the number of its first letters, at most eight; only where a window
of a protein has the same number are the other letters compared.

Axes: p peptides, n letters of the proteins that are searched together.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import itemgetter

import numpy as np
import numpy.typing as npt

__all__ = ["PeptideIndex", "fold"]

IndexArray = npt.NDArray[np.int64]

# Eight letters by chance agree once in 10^10 windows; more would only cost time.
_BITS, _SEED = 5, 8
_FOLDING = str.maketrans("IJ", "LL")
_FILTER_BITS = 20
# Multiplicative hashing with 2^64 divided by the golden ratio, for the filter only.
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


def _numbers() -> npt.NDArray[np.uint8]:
    """Return the number of every byte: letters from 1 on, all else is 0."""
    numbers = np.zeros(256, np.uint8)
    numbers[ord("A") : ord("Z") + 1] = np.arange(1, 27)
    numbers[[ord("I"), ord("J")]] = numbers[ord("L")]
    return numbers


_NUMBERS = _numbers()


def fold(letters: str) -> str:
    """Write isoleucine, and J that stands for either, as leucine.

    Examples
    --------
    >>> fold("PEPTIDE")
    'PEPTLDE'
    """
    return letters.translate(_FOLDING)


class _Seeds:
    """Peptides whose seeds have one length.

    Parameters
    ----------
    codes : ndarray, shape (p,)
        Numbers of the seeds.
    peptides : ndarray, shape (p,)
        Numbers of the peptides.
    """

    def __init__(self, codes: IndexArray, peptides: IndexArray) -> None:
        order = np.argsort(codes, kind="stable")
        self.codes, self.peptides = codes[order], peptides[order]
        self.filter = np.zeros(1 << _FILTER_BITS, bool)
        self.filter[_place(codes)] = True

    def find(self, windows: IndexArray) -> tuple[IndexArray, IndexArray]:
        """Return starts of windows and numbers of peptides with the same seed."""
        # Most windows start no peptide, and most of them leave here.
        starts = np.flatnonzero(self.filter[_place(windows)])
        first = np.searchsorted(self.codes, windows[starts], side="left")
        last = np.searchsorted(self.codes, windows[starts], side="right")
        counts = last - first
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        peptides = self.peptides[np.repeat(first, counts) + within]
        return np.repeat(starts, counts), peptides


def _place(codes: IndexArray) -> npt.NDArray[np.uint64]:
    hashed: npt.NDArray[np.uint64] = codes.view(np.uint64) * _MULTIPLIER
    return hashed >> np.uint64(64 - _FILTER_BITS)


class PeptideIndex:
    """Finds all places of many peptides in proteins, reading each protein once.

    Parameters
    ----------
    peptides : sequence of str
        Capital letters, at least one each, all different; I and J count as L.

    Examples
    --------
    >>> index = PeptideIndex(["AGL", "GLV"])
    >>> list(index.find(["WWW", "AGIVAGL"]))
    [(1, [(0, 0), (1, 1), (4, 0)])]
    """

    def __init__(self, peptides: Sequence[str]) -> None:
        self.peptides = [fold(one) for one in peptides]
        lengths = np.array([min(len(one), _SEED) for one in self.peptides], np.int64)
        self._seeds: dict[int, _Seeds] = {}
        for length in np.unique(lengths).tolist():
            rows = np.flatnonzero(lengths == length)
            text = "".join(self.peptides[row][:length] for row in rows)
            *_, codes = _codes(_as_numbers(text), length)
            self._seeds[length] = _Seeds(codes[::length].copy(), rows)

    def find(
        self, proteins: Sequence[str]
    ) -> Iterator[tuple[int, list[tuple[int, int]]]]:
        """Yield the proteins with a peptide, in order, and the places in them.

        Parameters
        ----------
        proteins : sequence of str
            Residues in capital letters.

        Yields
        ------
        protein : int
            Number of the protein.
        places : list of (start, peptide)
            Starts, counted from 0, and numbers of peptides, sorted.
        """
        # One sign more behind each: no window runs from one protein into the next.
        text = fold("-".join([*proteins, ""]))
        offsets = np.cumsum([0, *(len(one) + 1 for one in proteins)])
        found: list[tuple[int, int, int]] = []
        for starts, peptides in self._candidates(_as_numbers(text)):
            rows = np.searchsorted(offsets, starts, side="right") - 1
            cells = zip(starts, rows, starts - offsets[rows], peptides, strict=True)
            found += [
                (int(row), int(place), int(peptide))
                for start, row, place, peptide in cells
                if text.startswith(self.peptides[peptide], start)
            ]
        for row, group in groupby(sorted(found), key=itemgetter(0)):
            yield row, [(place, peptide) for _, place, peptide in group]

    def _candidates(
        self, numbers: npt.NDArray[np.uint8]
    ) -> Iterator[tuple[IndexArray, IndexArray]]:
        longest = max(self._seeds, default=0)
        for length, codes in enumerate(_codes(numbers, longest), 1):
            if length in self._seeds:
                yield self._seeds[length].find(codes)


def _as_numbers(text: str) -> npt.NDArray[np.uint8]:
    return _NUMBERS[np.frombuffer(text.encode("latin-1", "replace"), np.uint8)]


def _codes(numbers: npt.NDArray[np.uint8], longest: int) -> Iterator[IndexArray]:
    """Yield the numbers of all windows of one letter, of two, and so on."""
    codes = np.zeros(len(numbers) + 1, np.int64)
    for length in range(1, min(longest, len(numbers)) + 1):
        codes = (codes[:-1] << _BITS) | numbers[length - 1 :]
        yield codes
