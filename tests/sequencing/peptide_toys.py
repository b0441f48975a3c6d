"""Small spectra and networks that several test files share."""

import numpy as np
import torch

from sciseq.nn import build_network
from sciseq.sequencing.fragments import fragment_ladder
from sciseq.sequencing.masses import mz_of
from sciseq.sequencing.network import PeptideNetwork
from sciseq.sequencing.objective import PeptideBatch
from sciseq.sequencing.peptide_batches import stack_peaks, stack_targets
from sciseq.sequencing.residues import Vocabulary
from sciseq.sequencing.spectra import Spectrum

VOCABULARY = Vocabulary()
PEPTIDES = ("PEPTLDEK", "AAGLLEVK", "[Acetyl]-SSM[Oxidation]TAR", "LDKGGFWYK")
SIZES = {"d_model": 16, "d_ff": 16, "n_layers": 2, "n_heads": 2, "n_slots": 12}


def ladder(peptide, noise=12, seed=0):
    """All b and y ions of a peptide, and some peaks that mean nothing."""
    masses = VOCABULARY.token_masses(peptide)
    if VOCABULARY.is_terminal[VOCABULARY.encode(peptide)[0]]:
        masses = np.append(masses[0] + masses[1], masses[2:])
    rng = np.random.default_rng(seed)
    mz = np.append(fragment_ladder(masses).mz, rng.uniform(120, 900, noise))
    return mz, rng.uniform(0.1, 1.0, len(mz))


def spectrum(name, z=2, /, **changes):
    """A spectrum of a peptide, at one charge."""
    mz, intensity = ladder(name)
    precursor = float(mz_of(VOCABULARY.mass(VOCABULARY.encode(name)), z))
    fields = {"peptide": name, "charge": z, "identifier": name}
    return Spectrum(mz, intensity, **{"precursor_mz": precursor, **fields, **changes})


def batch(peptides=PEPTIDES, dtype=torch.float64):
    """Peaks and targets of some peptides."""
    tokens = [VOCABULARY.encode(one) for one in peptides]
    spectra = []
    for one in peptides:
        mz, intensity = ladder(one)
        order = np.argsort(mz)
        spectra.append((mz[order], intensity[order]))
    masses = np.array([VOCABULARY.mass(one) for one in tokens])
    charges = np.full(len(tokens), 2)
    peaks = stack_peaks(spectra, masses, charges, dtype=dtype)
    return PeptideBatch(peaks, stack_targets(tokens))


def network(seed=0, vocabulary=VOCABULARY, **changes):
    """A small network in float64."""
    settings = {**SIZES, "most_residues": 12, **changes}
    made = build_network(
        lambda: PeptideNetwork(vocabulary, **settings),
        torch.Generator().manual_seed(seed),
    )
    return made.double().eval()
