"""``sciseq sequence train-default``: checked before work, and a model at the end."""

import pytest

import sciseq
from sciseq.sequencing import default_model


@pytest.fixture
def tiny(monkeypatch):
    """The recipe at a size that takes seconds."""
    sizes = {
        "d_model": 16, "d_ff": 16, "n_layers": 1, "n_heads": 2, "n_peaks": 40,
        "batch_size": 16, "precision": "float32",
    }  # fmt: skip
    settings = {**default_model._SETTINGS, **sizes}
    monkeypatch.setattr(default_model, "_SETTINGS", settings)
    seen = []
    monkeypatch.setattr(
        default_model.PeptideSequencer,
        "fit_reranker",
        lambda self, spectra: seen.append(len(spectra)),
    )
    return seen


@pytest.fixture
def proteins(tmp_path):
    path = tmp_path / "proteins.fasta"
    path.write_text(">one\nAAGLLEVKPEPTIDEKGASPVTLKLDKGGFWYKVVLNDQEKSSMTAR\n")
    return path


def test_train_default_saves_a_model(run, proteins, tmp_path, tiny):
    out = tmp_path / "model"
    result = run(
        "train-default", proteins, "--out", out, "--spectra", 120,
        "--device", "cpu",
    )  # fmt: skip
    assert result.code == 0, result.err
    assert str(out) in result.err
    model = sciseq.load(out)
    assert (model.decoder, model.precision, model.d_model) == ("hybrid", "float32", 16)
    assert tiny == [120]
    assert len(model.history_) == model.max_epochs + model.cross_epochs


def test_train_default_refuses_before_it_works(run, proteins, tmp_path, tiny):
    out = tmp_path / "model"
    calls = {
        "there is no file": ("nothing.fasta", "--out", out),
        "--spectra is 3": (proteins, "--out", out, "--spectra", 3),
        "ends in '.fasta'": (proteins, "--out", out, "--exclude", proteins),
        "contradict": (proteins, "--out", out, "-q", "-v"),
    }
    for message, arguments in calls.items():
        result = run("train-default", *arguments)
        assert result.code != 0
        assert message in result.err
        assert "Traceback" not in result.err
    assert not out.exists()
    assert not tiny
