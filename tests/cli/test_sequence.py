"""`sciseq sequence predict`, the files of options, errors, and what is left behind."""

import gzip
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from command_toys import TINY, Result, names, write_spectra

import sciseq
import sciseq.cli.sequence_annotation
import sciseq.cli.sequence_evaluation
import sciseq.cli.sequence_prediction
import sciseq.cli.sequence_progress
import sciseq.files
import sciseq.plotting
from sciseq.cli.sequence_prediction import count_reasons
from sciseq.sequencing.prediction import COLUMNS
from sciseq.sequencing.sequencer import PeptideSequencer
from sciseq.sequencing.spectrum_files import read_spectra

SUFFIXES = [".mztab", ".csv", ".tsv", ".parquet", ".mzid", ".pin", ".mgf"]

# --- predict --------------------------------------------------------------------------


def test_the_prediction_is_that_of_python(run, tmp_path, spectra, fitted) -> None:
    model, saved = fitted
    out = tmp_path / "out.parquet"
    result = run("predict", spectra, "--model", saved, "-o", out)
    assert result.code == 0, result.err
    found, expected = pd.read_parquet(out), model.predict_table(spectra)
    assert found["scan"].tolist()[:30] == list(range(1000, 1030))
    for name in COLUMNS:
        for one, other in zip(found[name], expected[name], strict=True):
            if isinstance(other, list):
                np.testing.assert_array_equal(one, other)
            else:
                assert (pd.isna(one) and pd.isna(other)) or one == other, name
    n_found = int(expected["peptide"].notna().sum())
    start, _, rest = result.err.splitlines()[-1].partition(" skipped (")
    assert start == f"{out}: 31 spectra, {n_found} peptides, {31 - n_found}"
    why, _, speed = rest.partition("); ")
    assert "1: 2 peaks are left after the filters, 20 are needed" in why
    assert re.fullmatch(r"\S+ s, \S+ spectra/s", speed)
    assert names(tmp_path) == ["out.parquet", "run.mgf"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_format_holds_every_peptide(run, tmp_path, spectra, stub, suffix) -> None:
    stub()
    out = tmp_path / f"out{suffix}"
    result = run("predict", spectra, "--model", "stub", "-o", out)
    assert result.code == 0, result.err
    peptides = [one.peptide for one in read_spectra(spectra)][:-1]
    if suffix in (".csv", ".tsv"):
        table = pd.read_csv(out, sep="\t" if suffix == ".tsv" else ",")
        assert table["peptide"].tolist()[:-1] == peptides
        assert table["score"].tolist()[:-1] == [1 / (3 + one) for one in range(30)]
        assert table["charge"].tolist() == [2] * 31
        assert table["reason"].tolist()[-1] == "2 peaks are left, 5 are needed"
        scores = table["residue_scores"][0].split()
        assert [float(one) for one in scores] == [0.1 + 0.2] * len(peptides[0])
    elif suffix == ".parquet":
        found = pd.read_parquet(out)["peptide"]
        assert found.tolist()[:-1] == peptides
        assert pd.isna(found[30])
    elif suffix == ".mgf":
        assert [one.peptide for one in read_spectra(out)] == [*peptides, None]
    else:
        text = out.read_text()
        for peptide in peptides:
            assert peptide in text, peptide
        assert "GAVK" not in text
    assert names(tmp_path) == sorted([out.name, "run.mgf"])


def test_modifications_are_told_as_fixed_or_variable(
    run, tmp_path, spectra, fitted
) -> None:
    out = tmp_path / "out.mztab"
    assert run("predict", spectra, "-m", fitted[1], "-o", out, "-q").code == 0
    lines = out.read_text().splitlines()
    assert "MTD\tfixed_mod[1]\t[UNIMOD, UNIMOD:4, Carbamidomethyl, ]" in lines
    assert "MTD\tvariable_mod[1]\t[UNIMOD, UNIMOD:35, Oxidation, ]" in lines
    assert "MTD\tsoftware[1]-setting[2]\tbeam_size = 2" in lines
    assert not any(line.startswith("MTD\tfixed_mod[2]") for line in lines)


def test_several_files_and_options(run, tmp_path, stub, spectra) -> None:
    model = stub()
    other = write_spectra(tmp_path / "other.mgf", n=3, seed=1)
    out = tmp_path / "out.csv"
    options = ("--beam-size", 1, "--device", "cpu", "--quiet")
    result = run("predict", spectra, other, "-m", "stub", "-o", out, *options)
    assert result == Result(0, "", "")
    assert pd.read_csv(out)["source"].tolist() == [str(spectra)] * 31 + [str(other)] * 4
    assert model.parameters["beam_size"] == 1
    assert model.parameters["device"] == "cpu"


def test_reasons_that_differ_in_numbers_alone_count_together() -> None:
    reasons = ["12 peaks, 20 needed", "no mass", "7.5 peaks, 20 needed", "no charge 5"]
    assert count_reasons(reasons) == [
        ("7.5 to 12 peaks, 20 needed", 2),
        ("no mass", 1),
        ("no charge 5", 1),
    ]


# --- progress -------------------------------------------------------------------------


def test_plain_lines_when_there_is_no_terminal(
    run, tmp_path, stub, spectra, monkeypatch
) -> None:
    stub()
    monkeypatch.setattr(sciseq.cli.sequence_progress, "_PAUSE", 0.0)
    out = tmp_path / "out.csv"
    lines = run("predict", spectra, "-m", "s", "-o", out).err.splitlines()
    shown = [line.split("  ")[0] for line in lines if line.endswith(" left")]
    assert shown == [f"{n}/31 spectra" for n in (8, 16, 24, 31)]
    assert lines[0].endswith("spectra/s  0:00:00 left")
    assert run("predict", spectra, "-m", "s", "-o", out, "-q").err == ""


def test_a_bar_on_a_terminal(run, tmp_path, stub, spectra, monkeypatch) -> None:
    stub()
    monkeypatch.setattr(
        "sciseq.cli.sequence_progress.sys.stderr.isatty", lambda: True, raising=False
    )
    result = run("predict", spectra, "-m", "s", "-o", tmp_path / "out.csv")
    assert result.code == 0
    assert "31/31 spectra" in result.err


# --- errors ---------------------------------------------------------------------------


PREDICT_REFUSED = {
    "suffix": (["-o", "{}/a.mztb"], "ends in '.mztb', results end in.*mean '.mztab'"),
    "no suffix": (["-o", "{}/a"], "'a' has no suffix"),
    "folder": (["-o", "{}/no/a.csv"], "there is no folder .*at: --out"),
    "out is input": (["-o", "{}/run.mgf"], "would be replaced .at: --out"),
    "out is a folder": (["-o", "{}/taken.csv"], "taken.csv is a folder"),
    "model": (["-m", "{}/no"], "No such file or directory: .*no$"),
    "not a model": (["-m", "{}/run.mgf"], "not a model"),
    "other model": (["-m", "{}/linear"], "LinearForecaster, which reads no spectra"),
    "unfitted": (["-m", "{}/unfitted"], "unfitted is not fitted .at: --model"),
    "device": (["--device", "gpu"], "gpu.*at: device"),
    "beam": (["--beam-size", "0"], "Invalid value for '--beam-size': .*1"),
    "input": (["{}/no.mgf"], "there is no such file .at: .*no.mgf"),
    "input suffix": (["{}/a.mzm"], "'a.mzm' ends in '.mzm'; read are"),
    "twice": (["{}/run.mgf"], "run.mgf is given twice .at: SPECTRA"),
    "pin": (["{}/b.mgf", "-o", "{}/a.pin"], "holds one file of spectra, 2 were given"),
    "no spectra": (["{}/bad.mgf"], "no line 'BEGIN IONS'"),
    "usage": (["--beam-size", "x"], "Invalid value for '--beam-size'"),
}


@pytest.mark.parametrize("name", PREDICT_REFUSED)
def test_predict_refuses_and_leaves_nothing(
    run, tmp_path, spectra, fitted, hourly_frame, name
) -> None:
    options, message = PREDICT_REFUSED[name]
    (tmp_path / "taken.csv").mkdir()
    (tmp_path / "bad.mgf").write_text("not an MGF file")
    write_spectra(tmp_path / "b.mgf", n=1)
    if name == "unfitted":
        PeptideSequencer().save(tmp_path / "unfitted")
    if name == "other model":
        sciseq.LinearForecaster(lookback=24, horizon=6).fit(hourly_frame).save(
            tmp_path / "linear"
        )
    before = names(tmp_path)
    result = run(
        "predict", spectra, "-m", fitted[1], "-o", tmp_path / "out.csv",
        *(one.format(tmp_path) for one in options),
    )  # fmt: skip
    assert result.code == 2, result.err
    last = result.err.splitlines()[-1]
    assert re.search(message, last), result.err
    assert last.startswith(("sciseq: error: ", "Error: "))
    assert "Traceback" not in result.err
    assert result.out == ""
    assert names(tmp_path) == before


def test_a_damaged_file_is_found_before_the_work(run, tmp_path, stub, spectra) -> None:
    model = stub()
    packed = tmp_path / "cut.mgf.gz"
    packed.write_bytes(gzip.compress(spectra.read_bytes())[:-200])
    result = run("predict", spectra, packed, "-m", "s", "-o", tmp_path / "out.csv")
    assert result.code == 2
    assert model.n_done == 0
    assert names(tmp_path) == ["cut.mgf.gz", "run.mgf"]


def test_evaluate_wants_one_source_of_predictions(run, spectra) -> None:
    for options in ([], ["--model", "a", "--predictions", "b.csv"]):
        result = run("evaluate", spectra, *options)
        assert result.code == 2
        assert "either --model or --predictions is needed" in result.err


# --- --config -------------------------------------------------------------------------


@pytest.fixture
def config(tmp_path):
    def config(text: str) -> Path:
        (tmp_path / "options.toml").write_text(text)
        return tmp_path / "options.toml"

    return config


def test_options_from_a_file(run, tmp_path, spectra, stub, config) -> None:
    model = stub()
    text = f"""
    spectra = ["{spectra}"]
    model = "stub"
    out = "{tmp_path}/out.csv"
    beam_size = 3
    quiet = true
    """
    assert run("predict", "--config", config(text)) == Result(0, "", "")
    assert model.parameters["beam_size"] == 3
    assert len(pd.read_csv(tmp_path / "out.csv")) == 31
    # The command line counts more, wherever it stands.
    for options in (["--beam-size", 4], ["--beam-size=4"]):
        result = run("predict", *options, "--config", config(text))
        assert result.code == 0
        assert model.parameters["beam_size"] == 4


def test_options_of_training_from_a_file(run, tmp_path, spectra, config) -> None:
    text = f"""
    out = "{tmp_path}/model"
    modifications = ["Phospho@S", "TMT6plex@K"]
    epochs = 1
    quiet = true
    [set]
    {"".join(f"{name} = {value}" + chr(10) for name, value in TINY.items())}
    learning_rate = 1e-3
    """
    assert run("train", spectra, "--config", config(text)).code == 0
    model = sciseq.load(tmp_path / "model")
    assert model.modifications == ["Phospho@S", "TMT6plex@K"]
    assert {name: getattr(model, name) for name in TINY} == TINY
    assert model.learning_rate == 1e-3


BAD_CONFIGS = {
    "name": ("beam-sizes = 3", "called 'beam-sizes', there are.*mean 'beam-size'"),
    "toml": ("beam-size 3", "this is no TOML"),
    "text": ('beam-size = "many"', "Invalid value for '--beam-size'"),
    "fraction": ("beam-size = 2.5", "Invalid value for '--beam-size'"),
    "truth": ("beam-size = true", "must be one text or number"),
    "list": ("beam-size = [1, 2]", "must be one text or number"),
    "flag": ("resume = 1", "must be true or false"),
    "table": ("[predict]\nbeam-size = 3", "no option is called 'predict'"),
    "config": ('config = "a.toml"', "no option is called 'config'"),
    "short": ('m = "a"', "no option is called 'm'"),
}


@pytest.mark.parametrize("name", BAD_CONFIGS)
def test_bad_configs(run, tmp_path, spectra, stub, config, name) -> None:
    stub()
    text, message = BAD_CONFIGS[name]
    out = tmp_path / "out.csv"
    result = run("predict", spectra, "-m", "s", "-o", out, "--config", config(text))
    assert result.code == 2, result.err
    assert re.search(message, result.err), result.err
    assert "Traceback" not in result.err
    assert not out.exists()


def test_a_config_that_is_not_there(run, tmp_path, spectra) -> None:
    result = run("predict", spectra, "--config", tmp_path / "no.toml")
    assert result.code == 2
    assert result.err.startswith("sciseq: error: No such file or directory")


# --- help -----------------------------------------------------------------------------


def test_help(run) -> None:
    shown = run("--help")
    assert shown.code == 0
    for command in ("predict", "evaluate", "annotate", "train", "calibrate"):
        assert command in shown.out
        assert run(command, "--help").code == 0
    assert run("predicts").code == 2


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom sciseq.cli import main\n"
        "try:\n    main(['sequence', 'predict', '--help'])\n"
        "except SystemExit as stopped:\n    assert not stopped.code\n"
        "sys.stderr.write(' '.join({name.split('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    heavy = {"lxml", "matplotlib", "numpy", "pandas", "scipy", "torch"}
    assert not heavy & set(done.stderr.split())
