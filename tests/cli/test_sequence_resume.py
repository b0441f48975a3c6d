"""Runs of `sciseq sequence predict` that were stopped."""

import shutil

import pandas as pd
import pytest
from command_toys import TINY, Result, names

import sciseq
import sciseq.cli.sequence_annotation
import sciseq.cli.sequence_evaluation
import sciseq.cli.sequence_prediction
import sciseq.cli.sequence_progress
import sciseq.files
import sciseq.plotting
from sciseq.sequencing.sequencer import PeptideSequencer

# --- resuming -------------------------------------------------------------------------


@pytest.fixture
def stopped(run, tmp_path, stub, spectra):
    """Stop a run after so many spectra; return its output and what it said."""

    def stopped(n_good: int, error: type[BaseException] = OSError):
        stub(n_good, error)
        out = tmp_path / "out.mztab"
        return out, run("predict", spectra, "-m", "stub", "-o", out)

    return stopped


def test_a_resumed_run_gives_the_bytes_of_a_whole_one(
    run, tmp_path, stub, stopped, spectra
) -> None:
    stub()
    whole = tmp_path / "whole.mztab"
    assert run("predict", spectra, "-m", "stub", "-o", whole).code == 0
    for n_good in range(8, 32, 5):
        out, result = stopped(n_good)
        n_kept = n_good - n_good % 8
        assert result.code == 2
        kept, last = result.err.splitlines()
        assert kept == (
            f"sciseq: {n_kept} spectra are done and kept in {out}.partial; "
            "the same command with --resume goes on"
        )
        assert last == "sciseq: error: stopped"
        assert not out.exists()
        model = stub()
        result = run("predict", spectra, "-m", "stub", "-o", out, "--resume")
        assert result.code == 0, result.err
        assert result.err.splitlines()[0] == f"{n_kept} of 31 spectra were done before"
        assert model.n_done == 31 - n_kept
        assert out.read_bytes() == whole.read_bytes()
        assert names(tmp_path) == ["out.mztab", "run.mgf", "whole.mztab"]
        out.unlink()


@pytest.mark.parametrize("cut", [1, 40, 200, 10**6])
def test_a_torn_end_is_dropped_wherever_it_is(
    run, tmp_path, stub, stopped, spectra, cut
) -> None:
    out, _ = stopped(24)
    partial = tmp_path / "out.mztab.partial"
    content = partial.read_bytes()
    partial.write_bytes(content[: max(len(content) - cut, 20)])
    model = stub()
    result = run("predict", spectra, "-m", "stub", "-o", out, "--resume")
    assert result.code == 0, result.err
    # A cut of the last row takes its chunk with it, one of nearly all takes everything.
    assert model.n_done == (31 if cut == 10**6 else 31 - 16)
    assert out.read_text().count("\nPSM\t") == 30
    assert not partial.exists()


def test_zeros_of_a_lost_block_are_dropped(run, tmp_path, stub, stopped, spectra):
    out, _ = stopped(16)
    partial = tmp_path / "out.mztab.partial"
    partial.write_bytes(partial.read_bytes() + b"\0" * 50 + b"\n" + b"\0" * 9)
    model = stub()
    assert run("predict", spectra, "-m", "s", "-o", out, "--resume").code == 0
    assert model.n_done == 31 - 16


def test_a_partial_file_is_not_overwritten_without_resume(
    run, tmp_path, stub, stopped, spectra
) -> None:
    out, _ = stopped(8)
    before = (tmp_path / "out.mztab.partial").read_bytes()
    stub()
    result = run("predict", spectra, "-m", "stub", "-o", out)
    assert result.code == 2
    assert "out.mztab.partial holds the rows of a run that was stopped" in result.err
    assert "--resume takes them" in result.err
    assert (tmp_path / "out.mztab.partial").read_bytes() == before


def test_rows_of_another_model_or_other_spectra_are_refused(
    run, tmp_path, stub, stopped, spectra
) -> None:
    out, _ = stopped(8)
    partial = tmp_path / "out.mztab.partial"
    before = partial.read_bytes()
    command = ("predict", spectra, "-m", "stub", "-o", out, "--resume")
    stub(identity="another")
    result = run(*command)
    assert result.code == 2
    assert "the rows there were made with other model (at:" in result.err
    stub()
    result = run(*command, "--beam-size", "2")
    assert "the rows there were made with other beam size (at:" in result.err
    # One digit of one peak.
    stub()
    text = spectra.read_text()
    spectra.write_text(text[:-30] + text[-30:].replace("300.0", "301.0"))
    result = run(*command)
    assert "the rows there were made with other spectra (at:" in result.err
    assert partial.read_bytes() == before
    partial.write_text("a letter\n")
    result = run(*command)
    assert "this is no file of rows of a stopped run" in result.err
    assert partial.read_text() == "a letter\n"


def test_resuming_without_a_partial_file_starts(run, tmp_path, stub, spectra) -> None:
    stub()
    result = run("predict", spectra, "-m", "s", "-o", tmp_path / "a.csv", "--resume")
    assert result.code == 0
    assert result.err.splitlines()[0] == "0 of 31 spectra were done before"


def test_the_model_is_known_again_by_its_weights(
    run, tmp_path, spectra, fitted, monkeypatch
) -> None:
    """A real model this time: another seed is another model, a copy is the same."""
    _, saved = fitted
    monkeypatch.setattr(sciseq.cli.sequence_prediction, "_CHUNK", 8)
    out = tmp_path / "out.csv"
    real = PeptideSequencer.iter_rows
    calls = []

    def stopping(self, X):
        calls.append(1)
        if len(calls) == 3:
            raise MemoryError
        return real(self, X)

    with monkeypatch.context() as patch:
        patch.setattr(PeptideSequencer, "iter_rows", stopping)
        assert run("predict", spectra, "-m", saved, "-o", out).code == 1
    other = PeptideSequencer(**TINY, max_epochs=1, random_state=1)
    with pytest.warns(match="left out"):
        other.fit(spectra).save(tmp_path / "other")
    result = run("predict", spectra, "-m", tmp_path / "other", "-o", out, "--resume")
    assert "made with other model" in result.err
    shutil.copytree(saved, tmp_path / "copy")
    result = run("predict", spectra, "-m", tmp_path / "copy", "-o", out, "--resume")
    assert result.code == 0, result.err
    assert "16 of 31 spectra were done before" in result.err
    assert run("predict", spectra, "-m", saved, "-o", tmp_path / "b.csv").code == 0
    assert out.read_bytes() == (tmp_path / "b.csv").read_bytes()


def test_ctrl_c_keeps_the_rows_and_is_130(tmp_path, stopped) -> None:
    _, result = stopped(9, KeyboardInterrupt)
    assert result.code == 130
    assert "8 spectra are done and kept in" in result.err
    assert result.err.splitlines()[-1] == "sciseq: interrupted"
    assert names(tmp_path) == ["out.mztab.partial", "run.mgf"]


def test_ctrl_c_before_the_first_chunk_leaves_nothing(tmp_path, stopped) -> None:
    _, result = stopped(7, KeyboardInterrupt)
    assert result == Result(130, "", "sciseq: interrupted, nothing was written\n")
    assert names(tmp_path) == ["run.mgf"]


def test_rows_that_do_not_belong_are_never_written(
    run, tmp_path, stub, spectra, monkeypatch
) -> None:
    """A model that leaves a spectrum out, or swaps two, is caught."""
    model = stub()
    real = model.iter_rows
    for wrong in (
        lambda X: list(real(X))[1:],
        lambda X: list(real(X))[::-1],
        lambda X: [*real(X), {}],
    ):
        monkeypatch.setattr(model, "iter_rows", wrong)
        result = run("predict", spectra, "-m", "s", "-o", tmp_path / "out.csv")
        assert result.code == 1
        assert names(tmp_path) == ["run.mgf"]


def test_a_full_disk_keeps_the_old_output_and_the_rows(
    run, tmp_path, stub, spectra, monkeypatch
) -> None:
    stub()
    out = tmp_path / "out.csv"
    out.write_text("old")

    def full(path):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(sciseq.files, "_sync", full)
        result = run("predict", spectra, "-m", "s", "-o", out)
    assert result.code == 2
    assert result.err.endswith("sciseq: error: No space left on device\n")
    assert out.read_text() == "old"
    assert names(tmp_path) == ["out.csv", "out.csv.partial", "run.mgf"]
    assert run("predict", spectra, "-m", "s", "-o", out, "--resume").code == 0
    assert len(pd.read_csv(out)) == 31
