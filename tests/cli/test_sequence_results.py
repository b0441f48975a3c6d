"""Results of `sciseq sequence predict`: streamed, and the same after any kill."""

import gc
import json
import os
import signal
import subprocess
import sys
import tracemalloc
from pathlib import Path

import killed_runs
import numpy as np
import pandas as pd
import pytest
from command_toys import Stub, names, write_spectra
from killed_runs import CHUNK, N_SYNCS
from lxml import etree

import sciseq.cli.sequence_prediction
import sciseq.cli.sequence_results
from sciseq.cli.partial_rows import PartialRows
from sciseq.cli.sequence_prediction import summarize
from sciseq.cli.sequence_results import RESULT_SUFFIXES, write_result
from sciseq.errors import InputError
from sciseq.sequencing.calibration import ScoreCalibration, q_values
from sciseq.sequencing.mgf_files import read_mgf, write_mgf
from sciseq.sequencing.prediction import COLUMNS
from sciseq.sequencing.psm_rows import PsmRows

# --- kills ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def calibrated(fitted, tmp_path_factory):
    """The tiny model with a calibration, and the folder where it is saved."""
    model, _ = fitted
    place = write_spectra(tmp_path_factory.mktemp("calibration") / "run.mgf")
    scores = model.predict_table(place)["score"].dropna()
    knots = np.array([scores.min(), scores.max()])
    model.calibration_ = ScoreCalibration(knots, np.array([0.1, 0.9]))
    folder = tmp_path_factory.mktemp("calibrated") / "model"
    model.save(folder)
    yield model, folder
    del model.calibration_


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.parametrize(
    "suffixes",
    [[".mztab"], pytest.param(list(RESULT_SUFFIXES), marks=pytest.mark.slow)],
    ids=["mztab", "all"],
)
def test_a_kill_at_any_moment_changes_no_byte(
    tmp_path, calibrated, spectra, suffixes
) -> None:
    program = Path(killed_runs.__file__)
    place = tmp_path / "runs"
    place.mkdir()
    command = [sys.executable, program, spectra, calibrated[1], place, *suffixes]
    threads = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env=threads
    )
    *runs, wrong = json.loads(done.stdout)
    whole = {one["suffix"]: one["result"] for one in runs if not one["moment"]}
    assert list(whole) == suffixes
    moments = {}
    for one in runs:
        suffix, moment = one["suffix"], one["moment"]
        if not moment:
            assert one["code"] == 0
            continue
        moments.setdefault(suffix, []).append(moment)
        assert one["killed"] == -signal.SIGKILL
        assert one["had_partial"]
        # The result is there when, and only when, it had got its name.
        assert one["had_output"] == (moment == N_SYNCS)
        assert one["had_leftover"] == (moment == N_SYNCS - 1)
        assert one["resumed"] == 0
        assert one["result"] == whole[suffix], (suffix, moment)
        assert one["left"] == [f"out{suffix}"]
    assert moments.pop(".mztab") == list(range(1, N_SYNCS + 1))
    assert list(moments.values()) == [[N_SYNCS - 1]] * (len(whole) - 1)
    # A run that goes on behind a torn row does not pass for a good one.
    assert wrong["code"] == 1


def test_two_runs_never_share_a_file_of_rows(tmp_path) -> None:
    pytest.importorskip("fcntl")
    place = tmp_path / "out.csv.partial"
    first, second = (PartialRows(place, {}, chunk=2) for _ in range(2))
    with first:
        first.start()
        first.append([{"a": 1}, {"a": 2}])
        with pytest.raises(InputError, match="another run is writing"):
            second.resume()
        first.append([{"a": 3}, {"a": 4}])
    with second:
        second.resume()
        assert second.n_rows == 4
    assert [row["a"] for row in second.rows()] == [1, 2, 3, 4]


# --- scores that need all rows --------------------------------------------------------


def test_probabilities_are_those_of_all_rows(
    run, tmp_path, calibrated, spectra, monkeypatch
) -> None:
    monkeypatch.setattr(sciseq.cli.sequence_prediction, "_CHUNK", CHUNK)
    model, saved = calibrated
    expected = model.predict_table(spectra)
    has_peptide = expected["peptide"].notna()
    assert 10 < has_peptide.sum() < len(expected)
    # Chunk by chunk they would be others.
    parts = [expected["probability"][i : i + CHUNK] for i in range(0, 31, CHUNK)]
    wrong = np.concatenate([q_values(part.to_numpy()) for part in parts])
    assert not np.allclose(wrong, expected["q_value"], equal_nan=True, atol=1e-6)
    for suffix in RESULT_SUFFIXES:
        out = tmp_path / f"out{suffix}"
        result = run("predict", spectra, "-m", saved, "-o", out, "-q")
        assert result.code == 0, result.err
    tables = {
        ".csv": pd.read_csv(tmp_path / "out.csv", float_precision="round_trip"),
        ".tsv": pd.read_csv(
            tmp_path / "out.tsv", sep="\t", float_precision="round_trip"
        ),
        ".parquet": pd.read_parquet(tmp_path / "out.parquet"),
    }
    for table in tables.values():
        assert list(table) == [*COLUMNS, "probability", "q_value"]
        for name in ("score", "probability", "q_value"):
            np.testing.assert_array_equal(
                table[name].to_numpy(float), expected[name].to_numpy(float)
            )
    found = expected[has_peptide]
    mztab = (tmp_path / "out.mztab").read_text().splitlines()
    assert (
        "MTD\tpsm_search_engine_score[2]\t[MS, MS:1002357, PSM-level probability, ]"
    ) in mztab
    (head,) = (line.split("\t") for line in mztab if line.startswith("PSH"))
    cells = [line.split("\t") for line in mztab if line.startswith("PSM")]
    tree = etree.parse(tmp_path / "out.mzid")
    for number, (name, accession) in enumerate(
        [("score", "1001143"), ("probability", "1002357"), ("q_value", "1002354")], 1
    ):
        place = head.index(f"search_engine_score[{number}]")
        assert [float(one[place]) for one in cells] == found[name].tolist()
        values = tree.xpath(f"//*[@accession='MS:{accession}']/@value")
        assert [float(one) for one in values] == found[name].tolist()


# --- memory ---------------------------------------------------------------------------


class Rows:
    """Rows of a result, made when they are asked for."""

    def __init__(self, n: int, source: str) -> None:
        self.n, self.source = n, source
        self.names = list(COLUMNS)

    def __iter__(self):
        for index in range(self.n):
            row = dict.fromkeys(COLUMNS)
            yield row | {
                "source": self.source,
                "identifier": f"index={index}",
                "index": index,
                "title": f"a title that is not shared {index}",
                "precursor_mz": 500.0 + index,
                "charge": 2,
                "peptide": ("PEPTLDEK", "GAVM[Oxidation]LK", None)[index % 3],
                "score": 1 / (1 + index),
                # More than the tuples that Python itself keeps for later have.
                "residue_scores": [1 / (2 + index + one) for one in range(24)],
                "calculated_mz": 500.0,
                "error_ppm": 0.1 * index,
                "reason": "" if index % 3 < 2 else f"no mass of {index}",
            }


def growth(folder: Path, suffix: str, sizes=(100, 500)) -> float:
    """Peak memory of Python per row, between two numbers of rows."""
    peaks = []
    for n in (sizes[1], *sizes):  # what is made once does not count
        source = folder / f"{n}.mgf"
        block = "BEGIN IONS\nPEPMASS=500.5\nCHARGE=2+\n{}\nEND IONS\n"
        lines = "\n".join(f"{place + 0.5} 1.0" for place in range(100, 130))
        source.write_text(block.format(lines) * n)
        gc.collect()
        tracemalloc.start()
        write_result(Rows(n, str(source)), folder / f"out{suffix}", Stub(), [source])
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    return (peaks[2] - peaks[1]) / (sizes[1] - sizes[0])


@pytest.mark.parametrize("suffix", RESULT_SUFFIXES)
def test_memory_does_not_grow_with_the_rows(tmp_path, suffix, monkeypatch) -> None:
    monkeypatch.setattr(sciseq.cli.sequence_results, "_TOGETHER", 32)
    monkeypatch.setattr(
        "sciseq.sequencing.byte_streams.ByteStream.read.__defaults__", (4096,)
    )
    assert growth(tmp_path, suffix) < 40
    assert names(tmp_path) == ["100.mgf", "500.mgf", f"out{suffix}"]


def test_a_writer_that_holds_rows_is_noticed(tmp_path, monkeypatch) -> None:
    real = PsmRows.__iter__
    monkeypatch.setattr(PsmRows, "__iter__", lambda self: iter(list(real(self))))
    assert growth(tmp_path, ".mztab") > 400


def test_equal_rows_from_a_table_and_from_a_stream(tmp_path) -> None:
    from sciseq.sequencing.mzid_files import write_mzid
    from sciseq.sequencing.mztab_files import write_mztab
    from sciseq.sequencing.pin_files import write_pin

    rows = Rows(30, "a.mgf")
    for number, write in enumerate((write_mzid, write_mztab, write_pin)):
        paths = [tmp_path / f"{number}{kind}" for kind in "ab"]
        write(rows, paths[0])
        write(pd.DataFrame(list(rows)), paths[1])
        assert paths[0].read_bytes() == paths[1].read_bytes()


# --- the last line --------------------------------------------------------------------


def test_the_summary_counts_everything() -> None:
    rows = [{"peptide": "GAVLK", "reason": ""}] * 3
    reasons = ["no charge", "2 peaks", "3 peaks", "no mass", "profile", "empty", "cut"]
    rows += [{"peptide": None, "reason": reason} for reason in reasons]
    assert summarize(iter(rows), 0, 2.0) == (
        "10 spectra, 3 peptides, 7 skipped (2: 2 to 3 peaks; 1: no charge; 1: no mass; "
        "1: profile; 2: other reasons); 2 s, 5 spectra/s"
    )
    assert summarize(rows[:3], 3, 0.25) == (
        "3 spectra, 3 peptides, 0 skipped; 0.25 s, 0 spectra/s"
    )


def test_titles_of_an_mgf_result_are_those_of_the_spectra(run, tmp_path, stub, spectra):
    """An annotated MGF predicted again gives the same peptides."""
    stub()
    first = tmp_path / "first.mgf"
    assert run("predict", spectra, "-m", "s", "-o", first, "-q").code == 0
    write_mgf(read_mgf(first), tmp_path / "again.mgf")
    kept = [(one.title, one.peptide, one.scan) for one in read_mgf(first)]
    again = [
        (one.title, one.peptide, one.scan) for one in read_mgf(tmp_path / "again.mgf")
    ]
    assert kept == again and len(kept) == 31
