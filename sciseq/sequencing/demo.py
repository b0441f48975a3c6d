"""Spectra of random peptides, to try things on."""

import numpy as np

from sciseq.sequencing.residues import Vocabulary
from sciseq.sequencing.simulator import Simulator
from sciseq.sequencing.spectra import Spectrum

__all__ = ["random_peptides", "random_spectra"]

# Shares of residues in proteins, roughly; I counts as L, and K and R end peptides.
_SHARES = {
    "A": 8.3, "D": 5.5, "E": 6.7, "F": 3.9, "G": 7.1, "H": 2.3, "L": 15.6, "M": 2.4,
    "N": 4.1, "P": 4.7, "Q": 3.9, "S": 6.6, "T": 5.4, "V": 6.9, "W": 1.1, "Y": 2.9,
    "C": 1.4,
}  # fmt: skip


def random_peptides(n: int, seed: int = 0) -> list[str]:
    """Return peptides as trypsin would cut them from proteins that do not exist.

    Parameters
    ----------
    n : int
        How many.
    seed : int, default=0
        Of the draws.

    Examples
    --------
    >>> random_peptides(2)
    ['FAATVNSLVTATASER', 'LGLADPR']
    """
    rng = np.random.default_rng(seed)
    letters = list(_SHARES)
    shares = np.array(list(_SHARES.values()))
    made = []
    for _ in range(n):
        inner = rng.choice(letters, rng.integers(6, 17), p=shares / shares.sum())
        made.append("".join(inner) + str(rng.choice(["K", "R"])))
    return made


def random_spectra(n: int, seed: int = 0) -> list[Spectrum]:
    """Return simulated HCD spectra of :func:`random_peptides`, one of each.

    Parameters
    ----------
    n : int
        How many.
    seed : int, default=0
        Of the draws.
    """
    rng = np.random.default_rng([seed, 1])
    vocabulary = Vocabulary()
    return [
        Simulator([peptide], vocabulary=vocabulary).sample(1, rng)[0]
        for peptide in random_peptides(n, seed)
    ]
