"""The model that comes with the package."""

import numpy as np
import pytest
from safetensors import safe_open

import sciseq
from sciseq import PeptideSequencer
from sciseq.errors import InputError
from sciseq.persistence import read_manifest
from sciseq.sequencing.demo import random_peptides, random_spectra
from sciseq.sequencing.evaluation import evaluate
from sciseq.sequencing.pretrained_model import PRETRAINED


@pytest.fixture(scope="module")
def model():
    return PeptideSequencer.pretrained(device="cpu", beam_size=5)


def test_it_is_small_and_nothing_but_weights():
    files = {one.name: one.stat().st_size for one in PRETRAINED.iterdir()}
    weights = [name for name in files if name.endswith(".safetensors")]
    assert sum(files[name] for name in weights) < 10e6
    assert set(files) == {"manifest.json", *weights}
    manifest = read_manifest(PRETRAINED)
    assert manifest["estimator"]["name"] == "peptide-sequencer"
    with safe_open(PRETRAINED / max(weights, key=files.get), "numpy") as tensors:
        kinds = {tensors.get_tensor(name).dtype.name for name in tensors.keys()}
    assert kinds == {"float16"}


def test_it_reads_simulated_spectra(model):
    spectra = random_spectra(24, seed=5)
    table = model.predict_table(spectra)
    truths = [one.peptide for one in spectra]
    found = evaluate(truths, list(table["peptide"]), list(table["score"]))
    # A network that knows nothing finds none of these, the search alone few.
    assert found.peptide_recall >= 0.35
    assert found.aa_precision >= 0.6
    order = np.argsort(-table["score"].to_numpy(np.float64))
    is_match = np.asarray(found.is_match)[order]
    assert is_match[:12].mean() > is_match[12:].mean() + 0.2
    reversed_ = [one[::-1] for one in random_peptides(24, seed=5)]
    assert evaluate(reversed_, list(table["peptide"])).peptide_recall < 0.1


def test_it_comes_with_the_parameters_that_may_change(model):
    assert model.decoder == "hybrid"
    assert model.network_.reads_slots
    other = PeptideSequencer.pretrained(beam_size=2, isotope_errors=(0,))
    assert (other.beam_size, other.isotope_errors) == (2, (0,))
    with pytest.raises(InputError, match="d_model cannot be changed"):
        PeptideSequencer.pretrained(d_model=32)


def test_it_goes_on_learning_new_modifications(tmp_path):
    model = PeptideSequencer.pretrained(device="cpu").set_params(
        warm_start=True, modifications=["Phospho@STY"], max_epochs=1, cross_epochs=1,
        validation_fraction=0.0, random_state=0, batch_size=8,
    )  # fmt: skip
    spectra = random_spectra(8, seed=1)
    before = evaluate([one.peptide for one in spectra], list(model.predict(spectra)))
    model.fit(spectra)
    assert "S[Phospho]" in model.vocabulary_.tokens
    after = evaluate(
        [one.peptide for one in spectra], list(model.predict(spectra)),
        vocabulary=model.vocabulary_,
    )  # fmt: skip
    # What was learned is not lost.
    assert after.aa_precision > before.aa_precision - 0.2
    model.save(tmp_path / "model")
    assert sciseq.load(tmp_path / "model").vocabulary_ == model.vocabulary_
