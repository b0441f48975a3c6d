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
    windows_of,
)
from sciseq.sequencing.masses import PROTON, WATER
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


def crowded(seed, n_peaks=300):
    """Spectra with peaks closer than the tolerance, and some in the same place."""
    rng = np.random.default_rng(seed)
    mz = rng.uniform(80, 900, (2, n_peaks))
    mz[:, 1::3] = mz[:, ::3] + rng.uniform(0, 0.01, mz[:, ::3].shape)
    mz[:, 2::6] = mz[:, ::6]
    spectra = [(np.sort(one), rng.uniform(0.1, 1, n_peaks)) for one in mz]
    mass = VOCABULARY.mass(VOCABULARY.encode("LDKGGFWYK"))
    return stack_peaks(spectra, [mass, mass + 100], [2, 2], dtype=torch.float64)


def highest_ahead(peaks, prefix, token):
    """The three last features, from every second residue by itself."""
    found = np.zeros(3)
    mz, M = peaks.mz.numpy(), float(peaks.precursor_mass)
    relative = (peaks.intensity / peaks.intensity.max()).numpy()
    for second in MASSES.tolist():
        r = prefix + float(MASSES[token]) + second
        y = r + WATER
        b = M - WATER - r
        for kind, neutral, charge in ((0, y, 1), (1, b, 1), (2, y, 2)):
            place = neutral / charge + PROTON
            nearest = np.abs(mz[0] - place).argmin()
            if mz[0, nearest] < place:  # of peaks in one place the last one then
                nearest = np.searchsorted(mz[0], mz[0, nearest], side="right") - 1
            tolerance = max(abs(place) * 15e-6, 0.006) + (kind == 1) * M * 4e-6
            if abs(mz[0, nearest] - place) < tolerance:
                found[kind] = max(found[kind], relative[0, nearest])
    return found


@pytest.mark.parametrize("seed", range(3))
def test_two_residues_ahead_one_by_one(seed):
    peaks = crowded(seed)
    prefix = MASSES[torch.tensor([[0, 3], [9, 12]])].cumsum(1)
    found = candidate_evidence(peaks, prefix, CANDIDATES)[..., 14:]
    hits = 0
    for item in range(2):
        one = Peaks(*(each[item : item + 1] for each in peaks))
        for place in range(2):
            for token in range(len(VOCABULARY)):
                want = highest_ahead(one, float(prefix[item, place]), token)
                np.testing.assert_array_equal(found[item, place, token].numpy(), want)
                hits += (want > 0).sum()
    assert hits >= 15


def test_windows_may_be_made_before():
    peaks = crowded(0)
    prefix = MASSES[torch.tensor([[0, 3], [9, 12]])].cumsum(1)
    windows = windows_of(peaks)
    made = candidate_evidence(peaks, prefix, CANDIDATES)
    assert torch.equal(candidate_evidence(peaks, prefix, CANDIDATES, windows), made)
    # Those of another spectrum are noticed.
    other = windows._replace(edges=windows.edges.flip(0))
    assert not torch.equal(candidate_evidence(peaks, prefix, CANDIDATES, other), made)
