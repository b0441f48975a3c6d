"""Evidence of the ions of candidate residues."""

import numpy as np
import pytest
import torch
from peptide_toys import VOCABULARY

from sciseq.sequencing.fragments import fragment_ladder
from sciseq.sequencing.ion_evidence import (
    N_FEATURES,
    Peaks,
    candidate_evidence,
    candidates_of,
    peak_evidence,
)
from sciseq.sequencing.peptide_batches import stack_peaks

MASSES = torch.from_numpy(np.array(VOCABULARY.masses))
CANDIDATES = candidates_of(MASSES)


def peaks_at(mz, peptide, intensity=None):
    mz = np.sort(np.asarray(mz, float))
    intensity = np.ones(len(mz)) if intensity is None else np.asarray(intensity)
    mass = VOCABULARY.mass(VOCABULARY.encode(peptide))
    return stack_peaks([(mz, intensity)], [mass], [2], dtype=torch.float64)


def prefixes(peptide):
    """Masses of the residues behind each place, from the C-terminus."""
    masses = MASSES[VOCABULARY.encode(peptide)[::-1].copy()]
    return torch.nn.functional.pad(masses.cumsum(0), (1, 0))[:-1][None]


@pytest.mark.parametrize(("kind", "feature"), [("y", 0), ("b", 8)])
def test_the_true_residue_has_its_ion(kind, feature):
    peptide = "PEPTLDEK"
    tokens = VOCABULARY.encode(peptide)
    ions = fragment_ladder(MASSES[tokens].numpy(), kind).mz
    peaks = peaks_at(ions, peptide)
    found = candidate_evidence(peaks, prefixes(peptide), CANDIDATES)
    assert found.shape == (1, 8, len(VOCABULARY), N_FEATURES)
    for place, token in enumerate(tokens[::-1][:-1]):
        intensity, closeness = found[0, place, token, feature : feature + 2]
        assert intensity == 1
        assert closeness > 0.999
        # No other residue of another mass has one there.
        others = (MASSES - MASSES[token]).abs() > 0.05
        assert found[0, place, others, feature].max() <= 1
        assert found[0, place, others, feature].sum() <= 1  # an accident at most


def test_two_residues_ahead():
    peptide = "PEPTLDEK"
    y = fragment_ladder(MASSES[VOCABULARY.encode(peptide)].numpy(), "y").mz
    peaks = peaks_at(y[[1]], peptide)  # y2 alone, of EK
    found = candidate_evidence(peaks, prefixes(peptide)[:, :1], CANDIDATES)[0, 0]
    K, E, G = (VOCABULARY.encode(one)[0] for one in "KEG")
    assert found[K, 0] == found[E, 0] == 0
    ahead = found[:, 14]
    assert ahead[K] == ahead[E] == 1
    assert ahead[G] == 0


def test_tolerance_is_relative_and_grows_with_the_precursor():
    peptide = "PEPTLDEK"
    tokens = VOCABULARY.encode(peptide)
    y = fragment_ladder(MASSES[tokens].numpy(), "y").mz[6]  # y7
    K = VOCABULARY.encode("E")[0]
    start = prefixes(peptide)[:, 6:7]
    for ppm, is_found in ((14, True), (16, False)):
        peaks = peaks_at([y * (1 + ppm * 1e-6)], peptide)
        found = candidate_evidence(peaks, start, CANDIDATES)[0, 0, K, 0]
        assert bool(found) == is_found


def test_padding_and_scale_do_not_matter():
    peptide, rng = "LDKGGFWYK", np.random.default_rng(0)
    mz = np.sort(rng.uniform(100, 1000, 30))
    intensity = rng.uniform(0.1, 1, 30)
    peaks = peaks_at(mz, peptide, intensity)
    padded = Peaks(
        torch.nn.functional.pad(peaks.mz, (0, 7), value=torch.inf),
        torch.nn.functional.pad(peaks.intensity * 3, (0, 7)),
        *peaks[2:],
    )
    for one in (
        lambda peaks: candidate_evidence(peaks, prefixes(peptide), CANDIDATES),
        lambda peaks: peak_evidence(peaks, MASSES[:19])[:, :30],
    ):
        torch.testing.assert_close(one(padded), one(peaks), rtol=0, atol=1e-12)


def test_complements_and_ladders_of_peaks():
    peptide = "PEPTLDEK"
    masses = MASSES[VOCABULARY.encode(peptide)].numpy()
    b, y = fragment_ladder(masses, "b").mz, fragment_ladder(masses, "y").mz
    peaks = peaks_at([b[2], y[4], y[5]], peptide)  # b3 and y5 are one bond
    residues = MASSES[:19]
    found = peak_evidence(peaks, residues)[0]
    at = {float(mz): row for mz, row in zip(peaks.mz[0], found, strict=True)}
    assert at[b[2]][0] == at[y[4]][0] == 1
    assert at[y[5]][0] == 0
    P = VOCABULARY.encode("P")[0]
    lighter, heavier = at[y[5]][2 : 2 + 19], at[y[4]][2 + 19 :]
    assert lighter[P] == heavier[P] == 1
    assert lighter.sum() == heavier.sum() == 1
