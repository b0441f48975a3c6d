"""`sciseq sequence evaluate`, `annotate` and `train`."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from command_toys import (
    SETTINGS,
    Result,
    make_spectrum,
    names,
    write_spectra,
)

import sciseq
import sciseq.cli.sequence_annotation
import sciseq.cli.sequence_evaluation
import sciseq.cli.sequence_prediction
import sciseq.cli.sequence_progress
import sciseq.files
import sciseq.plotting
from sciseq.sequencing.mgf_files import write_mgf
from sciseq.sequencing.residues import Vocabulary
from sciseq.sequencing.sequencer import PeptideSequencer
from sciseq.sequencing.spectrum_files import read_spectra

# --- evaluate -------------------------------------------------------------------------


def test_the_measures_of_a_model(run, spectra, stub) -> None:
    stub()
    result = run("evaluate", spectra, "--model", "s", "--json")
    assert result.code == 0, result.err
    found = json.loads(result.out)
    # The poor spectrum counts in recall and coverage, not in precision.
    n_residues = sum(len(one.peptide) for one in read_spectra(spectra))
    assert found["aa_precision"] == 1.0
    assert found["aa_recall"] == pytest.approx(1 - 4 / n_residues, abs=1e-12)
    assert found["peptide_recall"] == found["coverage"] == pytest.approx(30 / 31)
    # Precision is 1 up to 30/31, then falls to 30/31.
    assert found["precision_coverage_area"] == pytest.approx(
        (30 + (1 + 30 / 31) / 2) / 31, abs=1e-12
    )
    assert (found["n_spectra"], found["n_predicted"], found["n_matched"]) == (
        31,
        30,
        30,
    )
    table = run("evaluate", spectra, "--model", "s").out.splitlines()
    assert table[0].split() == ["amino-acid", "precision", "1.0000"]
    assert table[2].split() == ["peptide", "recall", "0.9677"]
    assert table[-1].split() == ["matched", "30"]


def test_predictions_from_a_table_give_the_same_measures(
    run, tmp_path, spectra, stub, monkeypatch
) -> None:
    stub()
    expected = run("evaluate", spectra, "--model", "s", "--json").out
    for suffix in (".csv", ".tsv", ".parquet"):
        out = tmp_path / f"out{suffix}"
        assert run("predict", spectra, "-m", "s", "-o", out).code == 0
        # Another folder, another working directory: the name of the file decides.
        monkeypatch.chdir(tmp_path)
        result = run("evaluate", "run.mgf", "--predictions", out, "--json")
        assert (result.code, result.out) == (0, expected), result.err


def test_the_peptides_na_and_nan_are_peptides(run, tmp_path) -> None:
    rng = np.random.default_rng(0)
    peptides = ["NA", "NAN", "NK"]
    spectra = [make_spectrum(one, place, rng) for place, one in enumerate(peptides)]
    write_mgf(spectra, tmp_path / "a.mgf")
    table = {
        "source": ["a.mgf"] * 2,
        "identifier": ["index=0", "index=1"],
        "peptide": ["NA", "NAN"],
    }
    pd.DataFrame(table).to_csv(tmp_path / "p.csv", index=False)
    result = run(
        "evaluate", tmp_path / "a.mgf", "--predictions", tmp_path / "p.csv", "--json"
    )
    found = json.loads(result.out)
    assert found["n_matched"] == 2
    assert found["coverage"] == pytest.approx(2 / 3)
    assert found["precision_coverage_area"] is None  # without scores


def test_spectra_without_a_peptide_do_not_count(run, tmp_path, stub) -> None:
    stub()
    rng = np.random.default_rng(0)
    known = make_spectrum("PEPTGASVLK", 0, rng)
    write_mgf([known], tmp_path / "a.mgf")
    text = (tmp_path / "a.mgf").read_text()
    (tmp_path / "b.mgf").write_text(text.replace("SEQ=PEPTGASVLK\n", ""))
    result = run("evaluate", tmp_path / "b.mgf", "--model", "s")
    assert result.code == 2
    assert "none of 1 spectra has a known peptide (at: SPECTRA)" in result.err
    pd.DataFrame(
        {"source": ["a.mgf"], "identifier": ["index=0"], "peptide": ["PEPTGASVLK"]}
    ).to_csv(tmp_path / "p.csv", index=False)
    result = run(
        "evaluate", tmp_path / "a.mgf", tmp_path / "b.mgf", "--json",
        "--predictions", tmp_path / "p.csv",
    )  # fmt: skip
    assert "warning: 1 of 2 spectra have no known peptide" in result.err
    assert json.loads(result.out)["peptide_recall"] == 1.0


BAD_TABLES = {
    "column": ("source,identifier,peptid\nrun.mgf,index=0,GK\n", "mean 'peptid'"),
    "strange": ("source,identifier,peptide\nx.mgf,index=0,GK\n", "none of the 1 pred"),
    "twice": (
        "source,identifier,peptide\na/run.mgf,index=0,GK\nb/run.mgf,index=0,GK\n",
        "run.mgf index=0 is there twice",
    ),
    "score": (
        "source,identifier,peptide,score\nrun.mgf,index=0,GK,high\n",
        "a score is no number",
    ),
    "residue": ("source,identifier,peptide\nrun.mgf,index=0,G?K\n", r"G\?K"),
    "empty": ("", "this is no table"),
}


@pytest.mark.parametrize("name", BAD_TABLES)
def test_tables_that_cannot_be_used(run, tmp_path, spectra, name) -> None:
    content, message = BAD_TABLES[name]
    (tmp_path / "p.csv").write_text(content)
    result = run("evaluate", spectra, "--predictions", tmp_path / "p.csv")
    assert (result.code, result.out) == (2, "")
    assert re.search(message, result.err), result.err
    assert len(result.err.splitlines()) == 1


# --- annotate -------------------------------------------------------------------------


@pytest.fixture
def drawn(monkeypatch):
    """Collect what is drawn instead of drawing it."""
    calls = []

    def plot_spectrum(spectrum, peptide, *, vocabulary=None, tolerance_ppm=20, ax=None):
        from matplotlib.figure import Figure

        calls.append((spectrum, peptide, vocabulary, tolerance_ppm))
        return Figure().add_subplot()

    monkeypatch.setattr(sciseq.plotting, "plot_spectrum", plot_spectrum, raising=False)
    return calls


@pytest.mark.parametrize("scan", ["index=3", "1003", "spectrum 3"])
def test_a_spectrum_is_found_by_any_of_its_names(
    run, tmp_path, spectra, drawn, scan
) -> None:
    out = tmp_path / "a.png"
    result = run("annotate", spectra, "--scan", scan, "-o", out)
    assert result.code == 0, result.err
    ((spectrum, peptide, vocabulary, tolerance),) = drawn
    assert (spectrum.index, peptide) == (3, spectrum.peptide)
    assert (vocabulary, tolerance) == (None, 20.0)
    assert out.read_bytes().startswith(b"\x89PNG")
    lines = result.err.splitlines()
    assert lines[0] == f"index=3: {peptide}"
    # All b and y ions are peaks; a ions are the rest of the intensity.
    assert lines[1].startswith(f"b and y ions: {2 * len(peptide) - 2}, ")


def test_the_peptide_given_or_predicted(run, tmp_path, spectra, drawn, stub) -> None:
    stub()
    out = tmp_path / "a.svg"
    command = ("annotate", spectra, "--scan", "index=3", "-o", out, "-q")
    options = ("--peptide", "GASPVK", "--tolerance", "5")
    assert run(*command, *options) == Result(0, "", "")
    assert run(*command, "--model", "s") == Result(0, "", "")
    assert drawn[0][1:] == ("GASPVK", None, 5.0)
    assert drawn[1][1:] == (drawn[1][0].peptide, Vocabulary(), 20.0)


ANNOTATE_REFUSED = {
    "scan": (["--scan", "17"], "called '17'; the first ones are index=0, index=1"),
    "peptide": (["--scan", "index=3", "--peptide", "GA?K"], "'?'"),
    "tolerance": (["--scan", "index=3", "--tolerance", "0"], "must be above 0"),
    "both": (
        ["--scan", "1", "--peptide", "G", "--model", "m"],
        "contradict each other",
    ),
    "no peptide": (["--scan", "index=30", "--model", "m"], "2 peaks are left"),
    "suffix": (["--scan", "1", "-o", "{}/a.gif"], "pictures end in"),
    "folder": (["--scan", "1", "-o", "{}/no/a.png"], "there is no folder"),
}


@pytest.mark.parametrize("name", ANNOTATE_REFUSED)
def test_annotate_refuses(run, tmp_path, spectra, drawn, stub, name) -> None:
    stub()
    options, message = ANNOTATE_REFUSED[name]
    out = ("-o", tmp_path / "a.png")
    result = run("annotate", spectra, *out, *(one.format(tmp_path) for one in options))
    assert result.code == 2
    assert message in result.err
    assert "Traceback" not in result.err
    assert names(tmp_path) == ["run.mgf"]


def test_two_spectra_of_one_name(run, tmp_path, spectra, drawn) -> None:
    other = write_spectra(tmp_path / "other.mgf", n=1)
    out = tmp_path / "a.png"
    result = run("annotate", spectra, other, "--scan", "index=0", "-o", out)
    assert result.code == 2
    assert f"2 spectra are called 'index=0': {spectra} index=0, {other}" in result.err


# --- train ----------------------------------------------------------------------------


def test_training_gives_the_model_of_python(run, tmp_path, spectra, fitted) -> None:
    saved = tmp_path / "model"
    held_out = write_spectra(tmp_path / "held.mgf", n=4, seed=5)
    result = run(
        "train", spectra, "-o", saved, *SETTINGS, "--epochs", 1, "--seed", 0,
        "--validation", held_out,
    )  # fmt: skip
    assert result.code == 0, result.err
    model = sciseq.load(saved)
    expected, _ = fitted
    assert model.get_params() == expected.get_params()
    for name, weight in expected.network_.state_dict().items():
        assert (model.network_.state_dict()[name] == weight).all(), name
    lines = result.err.splitlines()
    assert lines[0].startswith("sciseq: warning: 1 of 31 spectra were left out")
    assert lines[1].startswith("epochs: 1, in the last one train loss ")
    assert lines[2:] == [f"weights: {model.n_parameters_}", f"model: {saved}"]
    assert result.out.splitlines()[5].split() == ["spectra", "5"]


def test_options_of_training(run, tmp_path, spectra) -> None:
    saved = tmp_path / "model.zip"
    options = (
        "--decoder", "nonautoregressive", "--modifications", "Phospho@S",
        "--modifications", "TMT6plex@K,N-term", "--device", "cpu", "-q",
    )  # fmt: skip
    command = ("train", spectra, "-o", saved, *SETTINGS, "--epochs", 1)
    assert run(*command, *options).code == 0
    model = sciseq.load(saved)
    assert (model.decoder, model.device) == ("nonautoregressive", "cpu")
    assert model.modifications == ["Phospho@S", "TMT6plex@K,N-term"]
    assert {"S[Phospho]", "[TMT6plex]-"} < set(model.vocabulary_.tokens)
    assert run(*command).code == 0  # a saved model may be replaced


def test_ctrl_c_in_training_leaves_nothing(run, tmp_path, spectra, monkeypatch) -> None:
    def pressed(self, X):
        self.stopped_ = "interrupted"
        return self

    monkeypatch.setattr(PeptideSequencer, "fit", pressed)
    result = run("train", spectra, "-o", tmp_path / "model")
    assert result == Result(130, "", "sciseq: interrupted, nothing was written\n")
    assert names(tmp_path) == ["run.mgf"]


TRAIN_REFUSED = {
    "decoder": (["--decoder", "hybri"], "decoder='hybri' is not allowed"),
    "modification": (["--modifications", "Phosfo@S"], "Phosfo"),
    "setting": (["--set", "dmodel=8"], "no parameter 'dmodel'.*mean 'd_model'"),
    "own option": (["--set", "max_epochs=8"], "Use --epochs"),
    "no setting": (["--set", "d_model"], "'d_model' is not a setting"),
    "epochs": (["--epochs", "0"], "max_epochs=0 is not allowed"),
    "out": (["-o", "{}/taken"], "taken is there already.*at: --out"),
    "folder": (["-o", "{}/no/model"], "there is no folder.*at: --out"),
    "quiet": (["-q", "-v"], "contradict each other"),
    "validation": (["--validation", "{}/no.mgf"], "there is no such file"),
    "training data": (["--validation", "{}/run.mgf"], "given twice .at: --validation"),
}


@pytest.mark.parametrize("name", TRAIN_REFUSED)
def test_train_refuses(run, tmp_path, spectra, name) -> None:
    options, message = TRAIN_REFUSED[name]
    (tmp_path / "taken").write_text("precious")
    out = ("-o", tmp_path / "model")
    result = run("train", spectra, *out, *(one.format(tmp_path) for one in options))
    assert result.code == 2, result.err
    assert re.search(message, result.err), result.err
    assert "Traceback" not in result.err
    assert names(tmp_path) == ["run.mgf", "taken"]
