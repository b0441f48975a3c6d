"""`sciseq sequence calibrate`, and `predict` with `--fdr` and decoys."""

import re

import numpy as np
import pandas as pd
import pytest
from command_toys import names, write_spectra

import sciseq
import sciseq.cli.sequence_prediction
from sciseq import PeptideSequencer
from sciseq.cli.sequence_rates import DecoyScores
from sciseq.sequencing.calibration import ScoreCalibration
from sciseq.sequencing.demo import random_spectra
from sciseq.sequencing.mgf_files import read_mgf, write_mgf


def read(path):
    return pd.read_csv(path)


def same(one, other):
    return (pd.isna(one) & pd.isna(other) | (one == other)).all()


# --- calibrate, then predict ----------------------------------------------------------


def test_calibrate_then_keep_what_is_probably_right(run, tmp_path) -> None:
    known, others, out = (tmp_path / one for one in ("k.mgf", "o.mgf", "out.csv"))
    write_mgf(random_spectra(24, seed=5), known)
    write_mgf(random_spectra(16, seed=6), others)
    model = tmp_path / "model"
    result = run("calibrate", known, "-m", "pretrained", "-o", model, "--beam-size", 1)
    assert result.code == 0, result.err
    assert re.search(r"probabilities: 0\.\d+ to 0\.\d+\nmodel: ", result.err)
    expected = PeptideSequencer.pretrained(beam_size=1).calibrate(known)
    loaded = sciseq.load(model)
    assert loaded.calibration_.to_dict() == expected.calibration_.to_dict()
    assert (loaded.beam_size, loaded.device) == (1, "auto")
    assert len(set(loaded.calibration_.probabilities)) > 1

    table = expected.predict_table(others)
    fdr = sorted(table["q_value"].unique())[-2]
    result = run("predict", others, "-m", model, "-o", out, "--fdr", fdr)
    assert result.code == 0, result.err
    found, accepted = read(out), table["q_value"] <= fdr
    assert 0 < accepted.sum() < len(table)
    assert same(found["peptide"], table["peptide"].where(accepted))
    assert same(found["score"], table["score"].where(accepted))
    assert same(found["q_value"], table["q_value"])
    reasons = found["reason"][~accepted]
    assert reasons.str.fullmatch(r"the q-value 0\.\d+ is above 0\.\d+").all()
    assert f"{accepted.sum()} peptides, {(~accepted).sum()} skipped" in result.err
    # The bound is one of q-values, not of each peptide's own probability.
    assert not accepted.equals(1 - table["probability"] <= fdr)


@pytest.fixture(scope="module")
def calibrated(fitted, tmp_path_factory):
    """A tiny model whose calibration somebody made up, and its folder."""
    model = sciseq.load(fitted[1])
    place = write_spectra(tmp_path_factory.mktemp("calibration") / "run.mgf")
    scores = model.predict_table(place)["score"].dropna()
    knots = np.array([scores.min(), scores.max()])
    model.calibration_ = ScoreCalibration(knots, np.array([0.1, 0.9]))
    folder = tmp_path_factory.mktemp("calibrated") / "model"
    model.save(folder)
    return model, folder


@pytest.mark.parametrize("suffix", [".mztab", ".mzid", ".pin", ".mgf", ".parquet"])
def test_every_format_leaves_them_out(
    run, tmp_path, spectra, calibrated, suffix
) -> None:
    model, saved = calibrated
    table = model.predict_table(spectra)
    fdr = float(table["q_value"].median())
    kept = set(table["peptide"][table["q_value"] <= fdr])
    gone = set(table["peptide"].dropna()) - kept
    assert kept and gone
    out = tmp_path / f"out{suffix}"
    result = run("predict", spectra, "-m", saved, "-o", out, "-q", "--fdr", fdr)
    assert result.code == 0, result.err
    if suffix == ".parquet":
        assert set(pd.read_parquet(out)["peptide"].dropna()) == kept
    elif suffix == ".mgf":
        assert {one.peptide for one in read_mgf(out)} - {None} == kept
    else:
        bare = [re.sub(r"\[.*?\]-?", "", one) for one in (*kept, *gone)]
        text = re.sub(r"\[[^\[\]]*\]-?", "", out.read_text())
        for place, one in enumerate(bare):
            assert (one in text) == (place < len(kept)), one


# --- decoys ---------------------------------------------------------------------------


def test_decoys_are_those_of_python(
    run, tmp_path, spectra, fitted, monkeypatch
) -> None:
    monkeypatch.setattr(sciseq.cli.sequence_prediction, "_CHUNK", 8)
    model, saved = fitted
    expected = model.predict_table(spectra, fdr="decoy")
    outs = [tmp_path / one for one in ("all.csv", "some.csv")]
    options = ["-m", saved, "--fdr-method", "decoy"]
    result = run("predict", spectra, *options, "-o", outs[0])
    assert result.code == 0, result.err
    assert "warning: rates from decoys are far too small" in result.err
    found = read(outs[0])
    assert list(found) == list(expected)
    for name in ("peptide", "score", "decoy_score", "decoy_q_value"):
        assert same(found[name], expected[name]), name
    assert found["decoy_score"].notna().any()
    fdr = float(expected["decoy_q_value"].min())
    result = run("predict", spectra, *options, "-o", outs[1], "--fdr", fdr)
    assert result.code == 0, result.err
    accepted = expected["decoy_q_value"] <= fdr
    assert same(read(outs[1])["peptide"], expected["peptide"].where(accepted))


class StoppedError(OSError):
    pass


def test_a_resumed_run_has_the_decoys_of_a_whole_one(
    run, tmp_path, spectra, fitted, monkeypatch
) -> None:
    monkeypatch.setattr(sciseq.cli.sequence_prediction, "_CHUNK", 8)
    options = ["-m", fitted[1], "--fdr-method", "decoy", "-q"]
    whole, out = tmp_path / "whole.csv", tmp_path / "out.csv"
    assert run("predict", spectra, *options, "-o", whole).code == 0
    real = DecoyScores.iter_rows

    def stopping(self, records):
        if records[0].index == 16:
            raise StoppedError
        return real(self, records)

    def stop_and_resume(*more):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(DecoyScores, "iter_rows", stopping)
            assert run("predict", spectra, *options, "-o", out).code == 2
        return run("predict", spectra, *(more or options), "-o", out, "--resume")

    # Rows without decoys are of no use to a run with them.
    refused = stop_and_resume("-m", fitted[1])
    assert "made with other decoys" in refused.err
    out.with_name("out.csv.partial").unlink()
    assert stop_and_resume().code == 0
    assert out.read_bytes() == whole.read_bytes()
    out.unlink()
    monkeypatch.setattr(DecoyScores, "skip", lambda self, record: None)
    assert stop_and_resume().code == 0
    assert out.read_bytes() != whole.read_bytes()


# --- errors ---------------------------------------------------------------------------


REFUSED = {
    "not calibrated": (["--fdr", "0.05"], r"not calibrated.*sequence calibrate"),
    "percent": (["--fdr", "5"], "Invalid value for '--fdr': .*1$"),
    "method": (["--fdr-method", "decoys"], "at: --fdr-method.*mean 'decoy'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_rates_that_cannot_be_told_are_refused(
    run, tmp_path, spectra, fitted, name
) -> None:
    options, message = REFUSED[name]
    out = tmp_path / "out.csv"
    result = run("predict", spectra, "-m", fitted[1], "-o", out, *options)
    assert result.code == 2
    assert re.search(message, result.err.splitlines()[-1]), result.err
    assert names(tmp_path) == ["run.mgf"]


def test_calibrate_refuses_and_leaves_nothing(run, tmp_path, spectra, fitted) -> None:
    few, bare = tmp_path / "few.mgf", tmp_path / "bare.mgf"
    write_spectra(few, n=5)
    bare.write_text(re.sub("SEQ=.*\n", "", few.read_text()))
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "notes.txt").write_text("mine")
    before = names(tmp_path)
    calls = {
        "none of 6 spectra has a known peptide": (bare, tmp_path / "m"),
        "at least 10, are needed": (few, tmp_path / "m"),
        "is no saved model (at: --out)": (spectra, tmp_path / "taken"),
        "there is no folder": (spectra, tmp_path / "no" / "m"),
    }
    for message, (given, out) in calls.items():
        result = run("calibrate", given, "-m", fitted[1], "-o", out)
        assert result.code == 2
        assert message in result.err, result.err
        assert "Traceback" not in result.err
    assert names(tmp_path) == before


def test_calibrate_counts_spectra_without_a_peptide(
    run, tmp_path, spectra, fitted
) -> None:
    text = spectra.read_text()
    spectra.write_text(text.replace(re.search("SEQ=.*\n", text)[0], "", 1))
    # The model that was read may be the one that is written.
    model = tmp_path / "model"
    sciseq.load(fitted[1]).save(model)
    result = run("calibrate", spectra, "-m", model, "-o", model)
    assert result.code == 0, result.err
    assert "warning: 1 of 31 spectra have no known peptide" in result.err
    assert "reading 30 annotated spectra" in result.err
    assert hasattr(sciseq.load(model), "calibration_")
