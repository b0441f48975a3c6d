"""False discovery rates from decoys: the count, its assumption, and the spectra."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from peptide_toys import PEPTIDES, SIZES, spectrum

from sciseq.errors import InputError
from sciseq.sequencing.decoys import decoy_q_values, decoy_spectra
from sciseq.sequencing.masses import PROTON
from sciseq.sequencing.sequencer import PeptideSequencer
from sciseq.sequencing.spectra import SkippedSpectrum, Spectrum

# Few values, so that some are equal.
SCORES = st.sampled_from([0.0, 0.1, 0.2, 0.3, 0.5, 1.0, float("nan")])
PAIRS = st.lists(st.tuples(SCORES, SCORES), max_size=25)


@given(PAIRS)
def test_q_values_equal_their_definition(pairs):
    own, other = (np.array([pair[side] for pair in pairs]) for side in (0, 1))
    q = decoy_q_values(own, other)

    def rate(least):
        return min(1.0, (1 + int((other >= least).sum())) / int((own >= least).sum()))

    for row, value in enumerate(own):
        if np.isnan(value):
            assert np.isnan(q[row])
        else:
            lower = [one for one in own if one <= value]
            assert q[row] == pytest.approx(min(map(rate, lower)), abs=1e-12)


@given(PAIRS)
def test_better_scores_have_no_larger_q_values(pairs):
    own, other = (np.array([pair[side] for pair in pairs]) for side in (0, 1))
    q = decoy_q_values(own, other)
    order = np.argsort(-own, kind="stable")[: int((~np.isnan(own)).sum())]
    assert (np.diff(q[order]) >= 0).all()


def share_of_wrong(n, *, more=0):
    """Mean share of wrong ones at q <= 0.2, where wrong ones resemble the decoys."""
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(1500):
        is_right = rng.random(n) < 0.1
        own = rng.normal(size=n) + 4.0 * is_right
        other = rng.normal(size=n)
        if more:  # as if the 1 in the numerator were forgotten
            n_decoys = (other >= own[:, None]).sum(axis=1)
            n_accepted = (own >= own[:, None]).sum(axis=1)
            good = own[n_decoys / n_accepted <= 0.2]
            accepted = own >= good.min(initial=np.inf)
        else:
            accepted = decoy_q_values(own, other) <= 0.2
        shares.append((accepted & ~is_right).sum() / max(accepted.sum(), 1))
    return float(np.mean(shares))


def test_the_rate_holds_where_wrong_peptides_resemble_those_of_decoys():
    assert share_of_wrong(40) < 0.2
    assert share_of_wrong(40, more=1) > 0.23
    # With more spectra it is no longer far below.
    assert 0.16 < share_of_wrong(500) < 0.2


def test_the_rate_is_too_small_where_wrong_peptides_score_higher_than_decoys():
    rng = np.random.default_rng(0)
    is_right = rng.random(4000) < 0.5
    own = rng.normal(size=4000) + np.where(is_right, 2.5, 1.5)
    accepted = decoy_q_values(own, rng.normal(size=4000)) <= 0.1
    assert (~is_right[accepted]).mean() > 0.25


def test_shapes_must_agree():
    with pytest.raises(InputError, match=r"scores have shape \(2,\)"):
        decoy_q_values([0.1, 0.2], [0.1])
    assert decoy_q_values([], []).shape == (0,)


# --- spectra --------------------------------------------------------------------------


def test_a_decoy_has_the_peaks_and_another_mass():
    spectra = [spectrum("PEPTLDEK"), spectrum("AAGLLEVK", 3), spectrum("LDKGGFWYK", 1)]
    decoys = decoy_spectra(spectra)
    for one, decoy in zip(spectra, decoys, strict=True):
        assert decoy.mz is one.mz
        assert decoy.intensity is one.intensity
        assert (decoy.identifier, decoy.charge) == (one.identifier, one.charge)
        assert decoy.peptide is None
        shift = abs(decoy.precursor_mz - one.precursor_mz) * one.charge
        assert 4.5 <= shift <= 11.5
    assert len({one.precursor_mz for one in decoys}) == 3


def test_no_ion_of_a_decoy_has_its_complement():
    """The b and y ions of a bond add up to the mass; those of a decoy do not."""

    def n_pairs(one):
        total = (one.precursor_mz - PROTON) * one.charge + 2 * PROTON
        return int((np.abs(one.mz[:, None] + one.mz - total) < 0.01).sum())

    spectra = [spectrum(name) for name in PEPTIDES]
    assert all(n_pairs(one) >= 2 * 5 for one in spectra)
    assert sum(map(n_pairs, decoy_spectra(spectra))) == 0


def test_decoys_depend_on_the_seed_and_the_place_alone():
    spectra = [spectrum("PEPTLDEK"), spectrum("AAGLLEVK")]
    skipped = SkippedSpectrum("no_peaks", "the peak list is empty", "index=0")
    first, again = decoy_spectra(spectra), decoy_spectra([skipped, spectra[1]])
    assert again[0] is skipped
    assert again[1].precursor_mz == first[1].precursor_mz
    other = decoy_spectra(spectra, random_state=1)
    assert other[0].precursor_mz != first[0].precursor_mz


def test_a_precursor_of_unknown_charge():
    one = spectrum("PEPTLDEK", charge=None)
    several = spectrum("PEPTLDEK", charge=None, charges=(3, 4))
    distances = [
        abs(decoy_spectra([given])[0].precursor_mz - given.precursor_mz)
        for given in (one, several)
    ]
    assert distances[0] == pytest.approx(distances[1] * 3 / 2)


# --- the table ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fitted():
    sizes = {name: SIZES[name] for name in ("d_model", "d_ff", "n_layers", "n_heads")}
    model = PeptideSequencer(
        **sizes, max_epochs=1, cross_epochs=0, beam_size=2, random_state=0
    )
    return model.fit([spectrum(one) for one in PEPTIDES] * 2)


def test_the_table_has_the_scores_of_decoys_on_demand(fitted):
    spectra = [spectrum(one) for one in PEPTIDES]
    poor = Spectrum([200.0, 300.0], [1.0, 2.0], precursor_mz=450.2, charge=2)
    plain = fitted.predict_table([*spectra, poor])
    table = fitted.predict_table(iter([*spectra, poor]), fdr="decoy")
    assert not {"decoy_score", "decoy_q_value"} & set(plain.columns)
    pd.testing.assert_frame_equal(table[plain.columns], plain)
    decoys = fitted.predict_table(decoy_spectra([*spectra, poor]))
    np.testing.assert_array_equal(
        table["decoy_score"], decoys["score"].astype(np.float64)
    )
    expected = decoy_q_values(table["score"].astype(float), table["decoy_score"])
    np.testing.assert_array_equal(table["decoy_q_value"], expected)
    assert np.isnan(table["decoy_q_value"].iloc[-1])
    with pytest.raises(InputError, match="must be 'calibrated' or 'decoy'"):
        fitted.predict_table(spectra, fdr="decoys")
