"""Vocabularies of peptides: residues, modifications and their masses.

A token is written in ProForma: a residue with its modifications (``"M[Oxidation]"``) or
a modification of the N-terminus (``"[Acetyl]-"``). Masses are monoisotopic, in Da.
Isoleucine weighs the same as leucine and is read as ``L``.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sciseq.errors import InputError
from sciseq.sequencing.masses import (
    C13,
    DEFAULT_MASSES,
    PROTON,
    RESIDUE_MASSES,
    WATER,
    mz_of,
    neutral_mass,
    ppm_error,
)
from sciseq.sequencing.proforma import parse_proforma
from sciseq.sequencing.tokens import (
    N_TERM,
    READ_AS,
    Key,
    Tags,
    TokenIndex,
    canonical,
    name_hint,
    read_modification,
    read_token,
    write_token,
)

__all__ = [
    "C13",
    "PROTON",
    "RESIDUE_MASSES",
    "WATER",
    "Vocabulary",
    "mz_of",
    "neutral_mass",
    "ppm_error",
]

FloatArray = npt.NDArray[np.float64]
IndexArray = npt.NDArray[np.int64]

_Split = tuple[Tags, Tags]


class Vocabulary:
    """Tokens of a peptide and their monoisotopic masses; immutable.

    Two vocabularies are equal when their tokens, masses and `fixed` are.

    Parameters
    ----------
    masses : mapping of str to float, optional
        Token to mass in Da, in the order of the indices. Tokens are ``"G"``,
        ``"M[Oxidation]"``, ``"[Acetyl]-"``. Default: 19 residues (I as L, C with
        carbamidomethyl), oxidised M, deamidated N and Q, and at the N-terminus
        acetyl, carbamyl, loss of ammonia, and the last two together.
    fixed : mapping of str to str, optional
        How a letter without modification is read. Default
        ``{"C": "C[Carbamidomethyl]"}`` where that token exists and ``"C"`` does not.

    Raises
    ------
    InputError
        For a token that is neither form, for ``I``, for the same token in two
        spellings, for a mass that is not finite, or not positive for a residue, and
        for a `fixed` entry without its token.

    Examples
    --------
    >>> vocabulary = Vocabulary()
    >>> len(vocabulary)
    26
    >>> vocabulary.decode(vocabulary.encode("+42.011M(+15.99)CIK"))
    '[Acetyl]-M[Oxidation]C[Carbamidomethyl]LK'
    >>> round(vocabulary.mass(vocabulary.encode("GK")), 4)
    203.127
    """

    def __init__(
        self,
        masses: Mapping[str, float] | None = None,
        *,
        fixed: Mapping[str, str] | None = None,
    ) -> None:
        masses = DEFAULT_MASSES if masses is None else masses
        parsed = [read_token(token) for token in masses]
        self._tokens = tuple(token for token, _ in parsed)
        self._masses = np.array([float(mass) for mass in masses.values()], np.float64)
        self._index = TokenIndex(self._tokens, [key for _, key in parsed], self._masses)
        self._is_terminal = np.array([key[0] == N_TERM for _, key in parsed], bool)
        self._masses.flags.writeable = self._is_terminal.flags.writeable = False
        if fixed is None:
            usual = self._index.find(("C", ("Carbamidomethyl",)))
            is_open = usual is not None and ("C", ()) not in self._index
            fixed = {"C": self._tokens[usual]} if usual is not None and is_open else {}
        self._fixed = {
            letter: self._fixed_key(letter, fixed[letter]) for letter in fixed
        }

    @property
    def tokens(self) -> tuple[str, ...]:
        """Tokens in the order of the indices."""
        return self._tokens

    @property
    def masses(self) -> FloatArray:
        """Masses in Da, shape (n_tokens,)."""
        return self._masses

    @property
    def is_terminal(self) -> npt.NDArray[np.bool_]:
        """Which tokens are modifications of the N-terminus, shape (n_tokens,)."""
        return self._is_terminal

    @property
    def fixed(self) -> Mapping[str, str]:
        """Letter to the token as which it is read without modification."""
        return {
            letter: self._tokens[self._index[key]]
            for letter, key in self._fixed.items()
        }

    def __len__(self) -> int:
        return len(self._tokens)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Vocabulary):
            return NotImplemented
        return (
            self._tokens == other._tokens
            and np.array_equal(self._masses, other._masses)
            and self._fixed == other._fixed
        )

    def __hash__(self) -> int:
        return hash((self._tokens, self._masses.tobytes()))

    def __repr__(self) -> str:
        return f"<Vocabulary of {len(self)} tokens>"

    def __reduce__(self) -> tuple[Any, ...]:
        # NumPy forgets on the way that an array is read-only.
        return Vocabulary.from_dict, (self.to_dict(),)

    def encode(self, peptide: str) -> IndexArray:
        """Return the tokens of a peptide as indices, N to C.

        Parameters
        ----------
        peptide : str
            ProForma or an older notation, see
            :func:`~sciseq.sequencing.proforma.parse_proforma`. A modification is found
            by its name, its ``UNIMOD:`` number, or its mass (nearest token within
            0.005 Da). One behind the first residue that no residue token has is taken
            as one of the N-terminus.

        Returns
        -------
        ndarray of int64 of shape (n_tokens_of_peptide,)
            A token of the N-terminus comes first.

        Raises
        ------
        InputError
            When the text cannot be read, or a residue is not in the vocabulary; it
            names the residue and its position, counted from 1.

        Examples
        --------
        >>> Vocabulary().encode("GAI").tolist()
        [0, 1, 6]
        """
        indices = []
        for key, position in self._keys_of(peptide):
            index = self._index.find(key)
            if index is None:
                raise self._unknown(key, position, peptide)
            indices.append(index)
        return np.array(indices, np.int64)

    def token_masses(self, peptide: str) -> FloatArray:
        """Return the masses of a peptide's tokens, also of those not in the vocabulary.

        Parameters
        ----------
        peptide : str
            As for :meth:`encode`.

        Returns
        -------
        ndarray of shape (n_tokens_of_peptide,)
            Da, N to C, a modification of the N-terminus first.

        Raises
        ------
        InputError
            When the text cannot be read, or a mass is known neither to the vocabulary
            nor to the table of modifications.

        Examples
        --------
        >>> Vocabulary().token_masses("GS[Phospho]").round(4).tolist()
        [57.0215, 166.9984]
        """
        masses = []
        for key, position in self._keys_of(peptide):
            index = self._index.find(key)
            mass = (
                self._index.mass_of(key)
                if index is None
                else float(self._masses[index])
            )
            if mass is None:
                raise self._unknown(key, position, peptide)
            masses.append(mass)
        return np.array(masses, np.float64)

    def decode(self, indices: Sequence[int] | IndexArray) -> str:
        """Return the peptide of these tokens as ProForma.

        Parameters
        ----------
        indices : sequence of int
            N to C; a token of the N-terminus may stand first and nowhere else.

        Raises
        ------
        InputError
            For an index outside the vocabulary, or a misplaced terminal token.

        Examples
        --------
        >>> Vocabulary().decode([0, 1, 6])
        'GAL'
        """
        numbers = self._checked(indices)
        misplaced = np.flatnonzero(self._is_terminal[numbers[1:]])
        if len(misplaced):
            position = int(misplaced[0]) + 1
            raise InputError(
                f"{self._tokens[numbers[position]]!r} stands behind another token; "
                "at most one token of the N-terminus is allowed, in first place",
                where=f"place {position + 1} of {len(numbers)}",
            )
        return "".join(self._tokens[number] for number in numbers)

    def mass(self, indices: Sequence[int] | IndexArray) -> float:
        """Return the neutral mass of a peptide in Da: its tokens and one water.

        Parameters
        ----------
        indices : sequence of int
            Tokens in any order.
        """
        return float(self._masses[self._checked(indices)].sum() + WATER)

    def with_modifications(self, names: Sequence[str]) -> "Vocabulary":
        """Return a vocabulary with more tokens, appended at the end.

        Parameters
        ----------
        names : sequence of str
            Modification and sites: ``"Phospho@STY"``, ``"TMT6plex@K,N-term"``,
            ``"UNIMOD:21@S"``, ``"+79.966331@T"``. Without ``@`` the sites of the table
            are taken. What is there already is left out.

        Raises
        ------
        InputError
            For a name that is not in the table, a site that is neither a residue nor
            ``N-term``, and a token that the same site has under another name.

        Examples
        --------
        >>> Vocabulary().with_modifications(["Phospho@ST"]).tokens[-2:]
        ('S[Phospho]', 'T[Phospho]')
        """
        wider = self
        for name in names:
            tag, sites = read_modification(name)
            for site in sites:
                wider = wider._with_token(name, (site, (tag,)))
        return wider

    def to_dict(self) -> dict[str, Any]:
        """Return what :meth:`from_dict` makes the vocabulary from, fit for JSON."""
        masses = dict(zip(self._tokens, self._masses.tolist(), strict=True))
        return {"masses": masses, "fixed": dict(self.fixed)}

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> "Vocabulary":
        """Return the vocabulary of :meth:`to_dict`."""
        return cls(state["masses"], fixed=state["fixed"])

    def _keys_of(self, peptide: str) -> Iterator[tuple[Key, int]]:
        """Yield the key and the residue's number of each token; the terminus is 0."""
        parsed = parse_proforma(peptide)
        letters = [READ_AS.get(letter, letter) for letter in parsed.residues]
        first, terminal = self._split_first(
            letters[0], parsed.modifications[0], parsed.n_terminal
        )
        if terminal:
            yield (N_TERM, canonical(terminal)), 0
        yield self._key(letters[0], first), 1
        rest = zip(letters[1:], parsed.modifications[1:], strict=True)
        for position, (letter, tags) in enumerate(rest, start=2):
            yield self._key(letter, tags), position

    def _split_first(self, letter: str, tags: Tags, terminal: Tags) -> _Split:
        """Move tags behind the first residue to the N-terminus where they only fit so.

        Several tools write a modification of the N-terminus behind the first residue.
        """
        if not tags or self._index.find(self._key(letter, tags)) is not None:
            return tags, terminal
        single = [(tags[:i] + tags[i + 1 :], tags[i : i + 1]) for i in range(len(tags))]
        for kept, moved in [((), tags), *single]:
            front = (N_TERM, canonical(terminal + moved))
            both = self._index.find(self._key(letter, kept)), self._index.find(front)
            if None not in both:
                return kept, terminal + moved
        return tags, terminal

    def _key(self, letter: str, tags: Tags) -> Key:
        if not tags and letter in self._fixed:
            return self._fixed[letter]
        return letter, canonical(tags)

    def _with_token(self, name: str, key: Key) -> "Vocabulary":
        if key in self._index:
            return self
        twin, mass = self._index.nearest(key), self._index.mass_of(key)
        if mass is None:
            raise InputError(
                f"{name!r}: {key[0]!r} is no site; sites are "
                f"{', '.join(RESIDUE_MASSES)} and {N_TERM}",
                where="modifications",
                hint="Write it like 'Phospho@STY' or 'TMT6plex@K,N-term'.",
            )
        if twin is not None:
            raise InputError(
                f"{name!r}: the vocabulary has it as {self._tokens[twin]!r}",
                where="modifications",
                hint="Leave it out.",
            )
        state = self.to_dict()
        masses = {**state["masses"], write_token(key): mass}
        return Vocabulary(masses, fixed=state["fixed"])

    def _checked(self, indices: Sequence[int] | IndexArray) -> IndexArray:
        numbers = np.asarray(indices)
        if numbers.ndim != 1 or (numbers.size and numbers.dtype.kind not in "iu"):
            raise InputError(
                f"indices have shape {numbers.shape} and type {numbers.dtype}; "
                "a one-dimensional sequence of integers is needed",
                where="indices",
            )
        outside = (numbers < 0) | (numbers >= len(self))
        if outside.any():
            raise InputError(
                f"index {numbers[outside][0]} is outside 0 to {len(self) - 1}",
                where="indices",
            )
        return numbers.astype(np.int64)

    def _fixed_key(self, letter: str, token: str) -> Key:
        key = read_token(token)[1]
        if key not in self._index or key[0] != letter or (letter, ()) in self._index:
            raise InputError(
                f"{letter!r} cannot be read as {token!r}: that must be a token of "
                f"{letter!r}, and {letter!r} itself must be none",
                where="fixed",
                hint="Write it like {'C': 'C[Carbamidomethyl]'}.",
            )
        return key

    def _unknown(self, key: Key, position: int, peptide: str) -> InputError:
        known = [self._tokens[number] for number in self._index.at_site(key[0])]
        place = f"residue {position}" if position else "N-terminus"
        return InputError(
            f"{write_token(key)!r} is not in the vocabulary; tokens of {key[0]} are "
            f"{', '.join(known) or 'none'}",
            where=f"{place} of {peptide!r}",
            hint=name_hint(key[1]) or "Vocabulary.with_modifications adds tokens.",
        )
