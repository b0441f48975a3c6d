"""What residues do in the collision cell, and what lies on both sides of each bond.

Axes: ``spectrum`` (B), ``residue`` (L, N to C, padded), ``bond`` (N = L - 1, from the
N-terminus), ``site`` (kinds of residues that are counted), ``token`` (V).

The numbers are coefficients of a censored regression of measured peak heights on the
position, the charge and the residues at a bond, in annotated Orbitrap HCD spectra.
"""

import numpy as np
import numpy.typing as npt

from sciseq.sequencing.masses import CARBON_MONOXIDE, PROTON, RESIDUE_MASSES, WATER
from sciseq.sequencing.residues import Vocabulary

__all__ = [
    "AMINE",
    "BASIC",
    "HYDROXYL",
    "PHOSPHATE",
    "PHOSPHORIC_ACID",
    "Chemistry",
    "Peptides",
]

FloatArray = npt.NDArray[np.float64]
IndexArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

PHOSPHORIC_ACID = 97.976895570  # Da
_PHOSPHO = 79.966330890

BASIC, HYDROXYL, AMINE, PHOSPHATE = range(4)  # rows of `Chemistry.sites`

# ln strength of a bond by the residue before it and behind it, for y and for b ions,
# and the height of the immonium ion over that of phenylalanine. Proline behind a bond
# has a knob of its own; the b entry takes that back, as only y ions gain.
_RESIDUES = {
    # y before, y behind, b before, b behind, immonium
    "G": (-0.7, 0.65, 0.1, -0.25, 0.0),
    "A": (0.0, 0.15, 0.6, 0.15, 0.0),
    "S": (-0.5, 0.35, -0.4, -0.45, 0.0),
    "P": (-0.7, 0.0, -1.6, -1.2, 0.6),
    "V": (0.6, -0.15, 0.5, 0.65, 0.7),
    "T": (-0.2, 0.05, -0.3, -0.45, 0.0),
    "C": (-0.1, 0.15, 0.0, -0.25, 0.05),
    "L": (0.5, -0.15, 0.5, 0.75, 1.2),
    "N": (-0.3, -0.05, 0.2, -0.35, 0.1),
    "D": (0.2, -0.05, 0.2, -0.75, 0.1),
    "Q": (0.1, -0.55, 0.5, -0.05, 0.15),
    "K": (0.7, -0.75, -0.2, -0.55, 0.15),
    "E": (0.2, -0.25, 0.5, -0.25, 0.15),
    "M": (0.2, 0.05, 0.2, 0.55, 0.1),
    "H": (0.3, 0.05, -0.8, -0.75, 0.5),
    "F": (0.0, 0.15, 0.2, 0.15, 1.0),
    "R": (-0.5, -0.35, -1.5, -1.25, 0.1),
    "Y": (0.1, 0.25, 0.0, 0.05, 0.8),
    "W": (0.2, 0.15, 0.4, 0.25, 0.35),
}
_UNKNOWN = (0.0, 0.0, 0.0, 0.0, 0.0)

# Other low-mass ions of unmodified residues: letter, m/z, height.
_RELATED = (
    ("K", 84.0808, 0.5),
    ("K", 129.1022, 0.75),
    ("Q", 129.0659, 0.15),
    ("R", 70.0657, 0.3),
    ("R", 112.0869, 0.2),
    ("R", 158.0924, 0.25),
)


class Chemistry:
    """What the tokens of a vocabulary do in the collision cell.

    Parameters
    ----------
    vocabulary : Vocabulary
        A residue with a modification behaves as without, but for its mass; modified
        lysine is not basic, and phosphorylated residues lose phosphoric acid.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.masses = vocabulary.masses
        self.is_terminal = vocabulary.is_terminal
        self.letters = [
            "" if terminal else token[0]
            for token, terminal in zip(
                vocabulary.tokens, vocabulary.is_terminal, strict=True
            )
        ]
        delta = self.masses - [RESIDUE_MASSES.get(one, 0.0) for one in self.letters]
        delta[self.is_terminal] = 0.0
        table = np.array([_RESIDUES.get(one, _UNKNOWN) for one in self.letters]).T
        self.y_before, self.y_behind, self.b_before, self.b_behind = table[:4]
        self.is_proline = self._holds("P")
        self.is_acid = self._holds("DE")
        self.sites = self._sites(delta)
        self.immonium_token, self.immonium_mz, self.immonium_ln = self._immonium(
            delta, table[4]
        )
        self.is_plain = self._plain(vocabulary)

    def _holds(self, letters: str) -> FloatArray:
        return np.array([one != "" and one in letters for one in self.letters], float)

    def _sites(self, delta: FloatArray) -> FloatArray:
        phosphate = np.abs(delta - _PHOSPHO) < 0.01
        acylated = self._holds("K") * (np.abs(delta) > 12.0)
        return np.stack(
            [
                self._holds("RKH") - acylated,
                self._holds("STED"),
                self._holds("RKNQ"),
                phosphate * (self._holds("ST") + 0.1 * self._holds("Y")),
            ]
        )

    def _immonium(
        self, delta: FloatArray, heights: FloatArray
    ) -> tuple[IndexArray, FloatArray, FloatArray]:
        """Return token, m/z and ln height of the low-mass ions."""
        found: list[tuple[int, float, float]] = [
            (token, self.masses[token] - CARBON_MONOXIDE + PROTON, heights[token])
            for token in np.flatnonzero(heights).tolist()
        ]
        found += [
            (token, mz, height)
            for letter, mz, height in _RELATED
            for token, other in enumerate(self.letters)
            if other == letter and abs(delta[token]) < 0.01
        ]
        rows = np.array(found).reshape(-1, 3)
        return rows[:, 0].astype(np.int64), rows[:, 1], np.log(rows[:, 2])

    def _plain(self, vocabulary: Vocabulary) -> BoolArray:
        """Tell which tokens are read from a letter alone."""
        fixed = set(vocabulary.fixed.values())
        return np.array([len(one) == 1 or one in fixed for one in vocabulary.tokens])


class Peptides:
    """Peptides in a batch, and what lies on both sides of their bonds.

    Parameters
    ----------
    chemistry : Chemistry
        Of the vocabulary.
    residues : ndarray of int of shape (n_spectra, n_residues)
        Tokens N to C, without tokens of the N-terminus; anything behind the end.
    lengths : ndarray of int of shape (n_spectra,)
        Number of residues.
    terminal : ndarray of shape (n_spectra,)
        Mass of the modification of the N-terminus, Da.
    charge : ndarray of int of shape (n_spectra,)
        Charge of the precursor.
    """

    def __init__(
        self,
        chemistry: Chemistry,
        residues: IndexArray,
        lengths: IndexArray,
        terminal: FloatArray,
        charge: IndexArray,
    ) -> None:
        self.chemistry, self.residues, self.charge = chemistry, residues, charge
        self.lengths = lengths
        places = np.arange(residues.shape[1])
        self.inside = places < lengths[:, None]
        self.is_bond = places[:-1] < lengths[:, None] - 1
        # Residues to the N-terminus and to the C-terminus, (1, bond) and (B, bond).
        self.k_n = places[None, 1:].astype(float)
        self.k_c = lengths[:, None] - self.k_n
        masses = chemistry.masses[residues] * self.inside
        masses[:, 0] += terminal
        sums = masses.cumsum(axis=1)
        self.mass = sums[:, -1] + WATER
        self.b, self.y = sums[:, :-1], self.mass[:, None] - sums[:, :-1]
        counts = (chemistry.sites[:, residues] * self.inside).cumsum(axis=2)
        self.total_sites = counts[:, :, -1]
        # (site, spectrum, bond), on the side of the N-terminus and of the C-terminus.
        self.b_sites = counts[:, :, :-1]
        self.y_sites = self.total_sites[:, :, None] - self.b_sites

    @property
    def precursor_mz(self) -> FloatArray:
        """Exact m/z of the precursors, (spectrum,)."""
        return np.asarray(self.mass / self.charge + PROTON)
