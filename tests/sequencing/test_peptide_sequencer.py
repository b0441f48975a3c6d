"""The estimator: fit, predict, tables, scores, and scikit-learn's habits."""

import pickle
import warnings

import numpy as np
import pytest
import torch
from peptide_toys import PEPTIDES, VOCABULARY, spectrum
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

import sciseq
from sciseq import PeptideSequencer
from sciseq.errors import DataQualityError, InputError, SciSeqWarning
from sciseq.sequencing.prediction import COLUMNS
from sciseq.sequencing.spectra import SkippedSpectrum
from sciseq.sequencing.training_spectra import split_by_peptide

TINY = {
    "d_model": 16, "d_ff": 16, "n_layers": 1, "n_heads": 2, "n_peaks": 40,
    "most_residues": 12, "max_epochs": 2, "cross_epochs": 1, "batch_size": 4,
    "random_state": 0, "device": "cpu", "dropout": 0.1,
}  # fmt: skip
SPECTRA = [
    spectrum(one, charge, identifier=f"index={number}", index=number)
    for number, (one, charge) in enumerate(
        (one, charge) for one in PEPTIDES for charge in (2, 3)
    )
]


@pytest.fixture(scope="module")
def fitted():
    return PeptideSequencer(**TINY).fit(SPECTRA)


def test_learns_to_read_what_it_saw():
    model = PeptideSequencer(
        **{**TINY, "d_model": 32, "max_epochs": 60, "dropout": 0.0, "batch_size": 8},
        decoder="autoregressive",
        learning_rate=3e-3,
        validation_fraction=0.0,
    )
    model.fit(SPECTRA)
    found = model.predict(SPECTRA)
    assert list(found) == [one.peptide for one in SPECTRA]
    assert model.score(SPECTRA) == 1.0
    table = model.predict_table(SPECTRA)
    assert (table["error_ppm"].abs() < 1).all()
    assert (table["score"] > 0.5).all()
    # Other spectra than the peptides' own teach nothing of these.
    shuffled = [one.peptide for one in SPECTRA][::-1]
    assert model.score(SPECTRA, shuffled) < 0.5


def test_nonautoregressive_learns_too():
    model = PeptideSequencer(
        **{**TINY, "d_model": 32, "max_epochs": 150, "dropout": 0.0, "batch_size": 8},
        decoder="nonautoregressive",
        learning_rate=3e-3,
        validation_fraction=0.0,
    )
    model.fit(SPECTRA)
    assert model.score(SPECTRA) >= 0.75


def test_both_stages_are_in_the_history(fitted):
    assert [row["epoch"] for row in fitted.history_] == [1, 2, 3]
    assert fitted.network_.reads_slots
    assert fitted.is_crossed_
    assert all(np.isfinite(row["validation_loss"]) for row in fitted.history_)
    joint = PeptideSequencer(**{**TINY, "cross_epochs": 0}).fit(SPECTRA)
    assert len(joint.history_) == 2
    assert not joint.network_.reads_slots


def test_the_rate_rises_and_falls(fitted, monkeypatch):
    rates = []
    from sciseq.training.epochs import Epochs

    real = Epochs._set_rate

    def recorded(self, rate):
        rates.append(rate)
        real(self, rate)

    monkeypatch.setattr(Epochs, "_set_rate", recorded)
    PeptideSequencer(**{**TINY, "max_epochs": 20, "cross_epochs": 0}).fit(SPECTRA)
    assert np.argmax(rates[1:]) < len(rates) / 5
    assert rates[-1] < 0.1 * max(rates)


def test_table_accounts_for_every_spectrum(fitted):
    records = [
        *SPECTRA[:2],
        SkippedSpectrum("no_peaks", "the peak list is empty", "index=2", index=2),
        spectrum("PEPTLDEK", 2, identifier="index=3", charge=None),
        spectrum("PEPTLDEK", 2, identifier="index=4", precursor_mz=61.0),
    ]
    table = fitted.predict_table(records)
    assert list(table.columns) == list(COLUMNS)
    assert list(table["identifier"])[2:] == ["index=2", "index=3", "index=4"]
    assert table["reason"][2] == "the peak list is empty"
    missing = table["peptide"].isna()
    assert (table["reason"][missing] != "").all()
    assert (table["reason"][~missing] == "").all()
    assert list(fitted.predict(records)) == [
        None if one else peptide
        for one, peptide in zip(missing, table["peptide"], strict=True)
    ]
    # A missing charge was tried as 2, 3 and 4.
    assert table["charge"][3] in (2, 3, 4) or missing[3]


def test_scores_are_probabilities(fitted):
    table = fitted.predict_table(SPECTRA).dropna(subset="peptide")
    assert len(table) >= 2
    for row in table.itertuples():
        residues = [one for one in VOCABULARY.encode(row.peptide)]
        n_residues = int((~VOCABULARY.is_terminal[residues]).sum())
        assert len(row.residue_scores) == n_residues
        assert all(0 <= one <= 1 for one in row.residue_scores)
        assert row.score <= min(row.residue_scores) + 1e-9
        assert abs(row.error_ppm) <= 20.5


def test_order_and_batch_do_not_matter(fitted):
    whole = fitted.predict(SPECTRA)
    assert list(fitted.predict(SPECTRA[::-1])) == list(whole[::-1])
    assert [fitted.predict([one])[0] for one in SPECTRA] == list(whole)


def test_equal_seeds_equal_weights(fitted):
    again = clone(fitted).fit(SPECTRA)
    for name, one in fitted.network_.state_dict().items():
        assert torch.equal(one, again.network_.state_dict()[name]), name
    other = clone(fitted).set_params(random_state=1).fit(SPECTRA)
    assert not torch.equal(other.network_.codes.vectors, fitted.network_.codes.vectors)


def test_no_global_random_state(fitted):
    torch.manual_seed(5)
    np.random.seed(5)
    states = torch.random.get_rng_state(), np.random.get_state()[1]
    clone(fitted).fit(SPECTRA).predict(SPECTRA)
    assert torch.equal(states[0], torch.random.get_rng_state())
    assert np.array_equal(states[1], np.random.get_state()[1])


@pytest.mark.parametrize("way", ["pickle", "folder", "file"])
def test_saved_models_are_the_same(fitted, tmp_path, way):
    expected = fitted.predict_table(SPECTRA)
    if way == "pickle":
        again = pickle.loads(pickle.dumps(fitted))
    else:
        path = tmp_path / ("model" if way == "folder" else "model.zip")
        fitted.save(path)
        again = sciseq.load(path)
    assert type(again) is PeptideSequencer
    assert again.vocabulary_ == fitted.vocabulary_
    assert again.network_.reads_slots
    found = again.predict_table(SPECTRA)
    assert list(found["peptide"]) == list(expected["peptide"])
    np.testing.assert_array_equal(found["score"], expected["score"])


def test_resumes_from_checkpoints(tmp_path):
    settings = {**TINY, "max_epochs": 3, "cross_epochs": 1}
    whole = PeptideSequencer(**settings).fit(SPECTRA)
    folder = tmp_path / "run"
    PeptideSequencer(**settings, checkpoint_dir=folder).fit(SPECTRA)
    for one in (folder / "cross").glob("*"):
        one.unlink()  # as if killed before the second stage
    again = PeptideSequencer(**settings, checkpoint_dir=folder).fit(SPECTRA)
    for name, one in whole.network_.state_dict().items():
        assert torch.equal(one, again.network_.state_dict()[name]), name


def test_peptides_can_be_given(fitted):
    bare = [spectrum(one.peptide, one.charge, peptide=None) for one in SPECTRA]
    model = clone(fitted).fit(bare, [one.peptide for one in SPECTRA])
    assert list(model.predict(SPECTRA)) == list(fitted.predict(SPECTRA))
    with pytest.raises(InputError, match="8 spectra and 1 peptides"):
        clone(fitted).fit(bare, ["PEPTLDEK"])
    with pytest.raises(InputError, match="0 peptides"):
        model.score(bare)


def test_what_cannot_be_used_is_counted(fitted):
    odd = spectrum("PEPTLDEK", 2, peptide="PEPS[Phospho]K", identifier="index=9")
    with pytest.warns(SciSeqWarning, match=r"1 of 9 spectra.*vocabulary.*index=9"):
        model = clone(fitted).fit([*SPECTRA, odd])
    assert model.skipped_[0][0] == "index=9"
    with pytest.raises(DataQualityError, match="no spectrum can be trained on"):
        clone(fitted).fit([odd])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        new = clone(fitted).set_params(modifications=["Phospho@S"])
        new.fit([*SPECTRA, odd])
    assert len(new.vocabulary_) == len(VOCABULARY) + 1


def test_peptides_without_a_path_are_counted():
    # Eleven residues and two blanks, where there are twelve symbols.
    odd = [spectrum("GGLLAVSTEDK", z, identifier=f"odd={z}") for z in (2, 3)]
    fits = spectrum("GGLAVSTEDPK", 2, identifier="even=1")
    short = {**TINY, "max_epochs": 1, "cross_epochs": 0}
    message = r"nothing from 2 of 11 spectra.*12 symbols.*odd=2, odd=3.*=13 would be"
    for decoder in ("hybrid", "nonautoregressive"):
        with pytest.warns(SciSeqWarning, match=message):
            model = PeptideSequencer(**short, decoder=decoder)
            model.fit([*SPECTRA, *odd, fits])
        assert model.skipped_ == []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        PeptideSequencer(**short).fit([*SPECTRA, fits])
        PeptideSequencer(**{**short, "most_residues": 13}).fit([*SPECTRA, *odd])
        PeptideSequencer(**short, decoder="autoregressive").fit([*SPECTRA, *odd])


def test_validation_peptides_are_not_trained_on():
    names = ["PEPTLDEK", "PEPTLDEK", "AAGLLEVK", "AAM[Oxidation]K", "AAMK", "LLGGK"]
    peptides = [VOCABULARY.encode(one) for one in names]
    for seed in range(20):
        rng = np.random.default_rng(seed)
        training, held = split_by_peptide(peptides, VOCABULARY, 0.4, rng)
        assert sorted(training + held) == list(range(6))
        assert training and held
        for pair in ((0, 1), (3, 4)):
            assert len({one in held for one in pair}) == 1


def test_parameters_are_checked():
    with pytest.raises(InputError, match="multiple of 8"):
        PeptideSequencer(d_model=20).fit(SPECTRA)
    with pytest.raises(InputError, match="at least 16 with decoder='hybrid'"):
        PeptideSequencer(d_model=8).fit(SPECTRA)
    with pytest.raises(InputError, match="decoder"):
        PeptideSequencer(decoder="both").fit(SPECTRA)
    with pytest.raises(InputError, match="charges"):
        PeptideSequencer(charges=()).fit(SPECTRA)
    with pytest.raises(InputError, match="minimum_mz"):
        PeptideSequencer(minimum_mz=900.0, maximum_mz=100.0).fit(SPECTRA)
    with pytest.raises(NotFittedError, match="not fitted"):
        PeptideSequencer().predict(SPECTRA)
    with pytest.raises(InputError, match="beam_size"):
        PeptideSequencer().set_params(beam_sice=3)


def test_real_files_go_through(fitted, data_dir):
    path = data_dir / "peptides" / "proteometools_pool1_small_annotated.mgf.gz"
    table = fitted.predict_table(path)
    assert len(table) == 73
    assert table["identifier"].is_unique
    assert set(table["source"]) == {str(path)} or table["source"].nunique() == 1


def test_goes_on_with_more_modifications():
    model = PeptideSequencer(**{**TINY, "cross_epochs": 0}, warm_start=True)
    before = model.fit(SPECTRA).network_.state_dict()
    model.set_params(modifications=["Phospho@ST"], learning_rate=1e-12)
    odd = [
        spectrum("PEPTLDEK", 2, peptide="PEPT[Phospho]LDEK", precursor_mz=496.723),
        *SPECTRA,
    ]
    after = model.fit(odd).network_.state_dict()
    V = len(VOCABULARY)
    n_old, n_new = 22, 24  # residues; four tokens are terminal
    vectors = before["codes.vectors"], after["codes.vectors"]
    assert len(vectors[1]) == len(vectors[0]) + 2
    torch.testing.assert_close(vectors[1][:V], vectors[0][:V], rtol=0, atol=1e-6)
    torch.testing.assert_close(vectors[1][-2:], vectors[0][-2:], rtol=0, atol=1e-6)
    name = "encoder.evidence.weight"
    old, new = before[name], after[name]
    torch.testing.assert_close(new[:, : 2 + n_old], old[:, : 2 + n_old], rtol=0,
                               atol=1e-6)  # fmt: skip
    heavier = new[:, 2 + n_new : 2 + n_new + n_old]
    torch.testing.assert_close(heavier, old[:, 2 + n_old :], rtol=0, atol=1e-6)
    # Another network cannot go on.
    with pytest.raises(InputError, match="warm_start"):
        model.set_params(d_model=24).fit(SPECTRA)


def test_calibrated_probabilities(fitted, tmp_path):
    model = pickle.loads(pickle.dumps(fitted))
    with pytest.raises(DataQualityError, match="at least 10"):
        model.calibrate(SPECTRA[:4])
    model.calibrate(SPECTRA * 3)
    table = model.predict_table(SPECTRA)
    has_peptide = table["peptide"].notna()
    assert table["probability"].notna().equals(has_peptide)
    assert table["q_value"].notna().equals(has_peptide)
    model.save(tmp_path / "model")
    again = sciseq.load(tmp_path / "model").predict_table(SPECTRA)
    np.testing.assert_array_equal(again["probability"], table["probability"])
    assert "probability" not in fitted.predict_table(SPECTRA)
