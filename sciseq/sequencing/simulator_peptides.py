"""The peptides that a simulator draws from, and the modifications it puts on them.

Axes: ``spectrum`` (n), ``token`` (N to C, padded).
"""

import os
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from sciseq.errors import InputError, nearest_name
from sciseq.sequencing.digestion import (
    Digestion,
    count_missed_cleavages,
    peptides_of,
)
from sciseq.sequencing.proforma import parse_proforma
from sciseq.sequencing.residues import Vocabulary

__all__ = ["Modifications", "Pool", "Proteins", "checked_shares"]

FloatArray = npt.NDArray[np.float64]
IndexArray = npt.NDArray[np.int64]

Proteins = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]

# Chance per site; other modified tokens of a vocabulary get `_OTHER_FREQUENCY`.
_FREQUENCIES = {
    "M[Oxidation]": 0.2,
    "N[Deamidated]": 0.02,
    "Q[Deamidated]": 0.01,
    "[Acetyl]-": 0.02,
    "[Carbamyl]-": 0.01,
    "[Ammonia-loss]-": 0.005,
    "[Carbamyl][Ammonia-loss]-": 0.003,
}
_OTHER_FREQUENCY = 0.05


def checked_shares(shares: Sequence[float], where: str) -> FloatArray:
    """Return shares divided by their sum."""
    values = np.asarray(shares, np.float64)
    if values.ndim != 1 or not np.all(np.isfinite(values)) or np.any(values < 0):
        raise InputError(f"shares are {shares}; they must be at least 0", where=where)
    if values.sum() <= 0:
        raise InputError(f"shares are {shares}; one must be above 0", where=where)
    return np.asarray(values / values.sum())


class Pool:
    """Peptides as tokens, packed one behind the other, in groups of known share.

    Parameters
    ----------
    flat : ndarray of int of shape (all tokens,)
        Tokens of all peptides; those of a group stand together.
    lengths : ndarray of int of shape (n_peptides,)
        Tokens of each.
    sizes : ndarray of int of shape (n_groups,)
        Peptides of each group.
    shares : ndarray of shape (n_groups,)
        Share of draws that each group gets.
    """

    def __init__(
        self,
        flat: IndexArray,
        lengths: IndexArray,
        sizes: IndexArray,
        shares: FloatArray,
    ) -> None:
        filled = sizes > 0
        self._sizes = sizes[filled]
        self._shares = checked_shares(shares[filled].tolist(), "missed_cleavages")
        self._starts = np.cumsum(self._sizes) - self._sizes
        self._offsets = np.cumsum(lengths) - lengths
        # Half a million peptides are held as long as the simulator lives.
        self._flat, self._lengths = flat.astype(np.int16), lengths
        self.n_peptides = len(lengths)

    @property
    def arrays(self) -> tuple[npt.NDArray[np.generic], ...]:
        """All that draws depend on."""
        return self._flat, self._lengths, self._sizes, self._shares

    @classmethod
    def read(
        cls,
        proteins: Proteins,
        digestion: Digestion,
        shares: FloatArray,
        exclude: Collection[str],
        vocabulary: Vocabulary,
    ) -> "Pool":
        """Make the pool of FASTA files, grouped by missed cleavages, or of peptides."""
        peptides, groups = _read(proteins, digestion)
        unwanted = {_bare(peptide) for peptide in exclude}
        kept = np.ones(len(peptides), bool)
        if unwanted:
            kept = np.array([_bare(one) not in unwanted for one in peptides], bool)
        if not kept.any():
            raise InputError(
                f"no peptide is left: {len(peptides)} found, {len(unwanted)} excluded",
                where="proteins",
                hint="Allow other lengths, or give more proteins.",
            )
        order = np.argsort(groups[kept], kind="stable")
        chosen = [peptides[place] for place in np.flatnonzero(kept)[order].tolist()]
        sizes = np.bincount(groups[kept])
        weights = shares[: len(sizes)] if len(sizes) > 1 else np.ones(1)
        return cls(*_encoded(chosen, vocabulary), sizes, weights)

    def draw(self, n: int, rng: np.random.Generator) -> tuple[IndexArray, IndexArray]:
        """Draw `n` peptides; return tokens (n, most_tokens) and numbers of tokens (n,).

        Behind the last token of a peptide stands 0.
        """
        group = rng.choice(len(self._sizes), n, p=self._shares)
        place = (rng.random(n) * self._sizes[group]).astype(np.int64)
        chosen = self._starts[group] + place
        counts = self._lengths[chosen]
        inside = np.arange(counts.max()) < counts[:, None]
        tokens = np.zeros(inside.shape, np.int64)
        where = self._offsets[chosen][:, None] + np.arange(counts.max())
        tokens[inside] = self._flat[where[inside]]
        return tokens, counts


def _read(proteins: Proteins, digestion: Digestion) -> tuple[list[str], IndexArray]:
    """Return peptides, and for digested ones their missed cleavages."""
    if isinstance(proteins, (str, os.PathLike)):
        files: list[str | os.PathLike[str]] = [proteins]
    else:
        files = [one for one in proteins if isinstance(one, os.PathLike)]
        if len(files) < len(proteins):
            peptides = [str(one) for one in proteins]
            return peptides, np.zeros(len(peptides), np.int64)
    found = sorted({one for file in files for one in peptides_of(file, digestion)})
    missed = [count_missed_cleavages(one, digestion.enzyme) for one in found]
    # Where every bond is cut, the number of cleavages says nothing.
    groups = np.minimum(np.array(missed, np.int64), digestion.missed_cleavages)
    return found, groups


def _bare(peptide: str) -> str:
    """Return the residues without modifications, I as L."""
    letters = peptide if peptide.isalpha() else parse_proforma(peptide).residues
    return letters.upper().replace("I", "L")


def _encoded(
    peptides: Sequence[str], vocabulary: Vocabulary
) -> tuple[IndexArray, IndexArray]:
    """Return all tokens one behind the other, and the number of each peptide's."""
    if not all(one.isalpha() for one in peptides):
        rows = [vocabulary.encode(one) for one in peptides]
        return np.concatenate(rows), np.array([len(row) for row in rows], np.int64)
    # Letters go through a table, which is a hundred times as fast.
    text = "".join(peptides)
    table = np.zeros(128, np.int64)
    for letter in set(text):
        table[ord(letter)] = vocabulary.encode(letter)[0]
    lengths = np.array([len(one) for one in peptides], np.int64)
    return table[np.frombuffer(text.encode("ascii"), np.uint8)], lengths


class Modifications:
    """Variable modifications and their chances.

    Parameters
    ----------
    vocabulary : Vocabulary
        Holds the modified tokens.
    chances : mapping of str to float, optional
        Token to its chance per site.
    """

    def __init__(
        self, vocabulary: Vocabulary, chances: Mapping[str, float] | None
    ) -> None:
        self._is_terminal = vocabulary.is_terminal
        variable = _variable_tokens(vocabulary)
        if chances is None:
            chances = {
                token: _FREQUENCIES.get(token, _OTHER_FREQUENCY) for token in variable
            }
        # (token, the token that it replaces, chance)
        self._residues: list[tuple[int, int, float]] = []
        self._terminal: list[tuple[int, float]] = []
        for token, chance in chances.items():
            _check_chance(token, chance, variable)
            index = vocabulary.tokens.index(token)
            if self._is_terminal[index]:
                self._terminal.append((index, chance))
            else:
                plain = int(vocabulary.encode(token[0])[0])
                self._residues.append((index, plain, chance))
        if sum(chance for _, chance in self._terminal) > 1:
            raise InputError(
                "the chances of modifications of the N-terminus add up to more than 1",
                where="modifications",
            )

    @property
    def chances(self) -> tuple[list[tuple[int, int, float]], list[tuple[int, float]]]:
        """Tokens and chances, of residues and of the N-terminus."""
        return self._residues, self._terminal

    def apply(
        self, tokens: IndexArray, n_tokens: IndexArray, rng: np.random.Generator
    ) -> tuple[IndexArray, IndexArray]:
        """Return tokens and their numbers after modification."""
        original = tokens.copy()
        # One number per site decides between all its modifications.
        chance, start = rng.random(tokens.shape), np.zeros(tokens.shape)
        for index, plain, share in self._residues:
            at_site = original == plain
            hit = at_site & (chance >= start) & (chance < start + share)
            tokens = np.where(hit, index, tokens)
            start = start + at_site * share
        return self._apply_terminal(tokens, n_tokens, rng.random(len(tokens)))

    def _apply_terminal(
        self, tokens: IndexArray, n_tokens: IndexArray, chance: FloatArray
    ) -> tuple[IndexArray, IndexArray]:
        bare = ~self._is_terminal[tokens[:, 0]]
        bounds = np.cumsum([share for _, share in self._terminal])
        place = np.searchsorted(bounds, chance, side="right")
        hit = bare & (place < len(bounds))
        if not hit.any():
            return tokens, n_tokens
        shifted = np.pad(tokens, ((0, 0), (1, 0)))
        shifted[:, 0] = np.array([*(index for index, _ in self._terminal), 0])[place]
        wide = np.pad(tokens, ((0, 0), (0, 1)))
        return np.where(hit[:, None], shifted, wide), n_tokens + hit


def _variable_tokens(vocabulary: Vocabulary) -> list[str]:
    fixed = set(vocabulary.fixed.values())
    return [one for one in vocabulary.tokens if len(one) > 1 and one not in fixed]


def _check_chance(token: str, chance: float, variable: Sequence[str]) -> None:
    if token not in variable:
        raise InputError(
            f"modification {token!r} is no variable token of the vocabulary; "
            f"there are {', '.join(variable) or 'none'}",
            where="modifications",
            hint=nearest_name(token, variable)
            or "Vocabulary.with_modifications adds tokens.",
        )
    if not 0 <= chance <= 1:
        raise InputError(
            f"the chance of {token!r} is {chance}, must be in [0, 1]",
            where="modifications",
        )
