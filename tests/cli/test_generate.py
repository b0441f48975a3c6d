"""The commands ``sciseq generate fit``, ``sample`` and ``score``, as they are typed."""

import csv
import gzip
from functools import partial

import numpy as np
import pytest

import sciseq

TINY = ("--set", "d_model=8", "--set", "d_ff=8", "--set", "n_layers=1",
        "--set", "n_heads=2", "--epochs", "1", "--device", "cpu")  # fmt: skip
STRINGS = ["ACGTA", "TTGAC", "GATTA", "CCCCC", "AGCTA", "TATAA"] * 2


@pytest.fixture
def run(console):
    return partial(console, "generate")


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "some.fasta"
    lines = [f">s{i}\n{one}\n" for i, one in enumerate(STRINGS)]
    path.write_text("".join(lines), encoding="utf-8")
    return path


@pytest.fixture
def model(run, data, tmp_path):
    place = tmp_path / "model"
    result = run("fit", data, "-o", place, *TINY)
    assert (result.code, result.out) == (0, "")
    assert "sequences: 12; epochs: 1, train loss" in result.err
    return place


def test_samples_are_those_of_the_saved_model(run, model, tmp_path):
    expected = sciseq.load(model).sample(4, random_state=7)
    texts = {}
    for name in ("new.txt", "new.fasta", "new.csv", "new.txt.gz"):
        out = tmp_path / name
        result = run("sample", model, "-o", out, "-n", 4, "--seed", 7)
        assert (result.code, result.out) == (0, "")
        texts[name] = out.read_bytes()
    assert texts["new.txt"].decode().split() == expected
    assert gzip.decompress(texts["new.txt.gz"]) == texts["new.txt"]
    fasta = texts["new.fasta"].decode().split()
    assert fasta[:4] == [">sample1", expected[0], ">sample2", expected[1]]
    assert texts["new.csv"].decode().split() == ["sequence", *expected]


def test_equal_runs_write_equal_bytes(run, model, tmp_path):
    found = []
    for name in ("a.txt.gz", "b.txt.gz"):
        run("sample", model, "-o", tmp_path / name, "-n", 3, "-q")
        found.append((tmp_path / name).read_bytes())
    assert found[0] == found[1]


def test_a_template_is_kept(run, model, tmp_path):
    out = tmp_path / "new.txt"
    assert run("sample", model, "-o", out, "--template", "A???T").code == 0
    lines = out.read_text(encoding="utf-8").split()
    assert len(lines) == 10
    assert all(one[0] == "A" and one[4] == "T" for one in lines)


def test_scores_are_log_likelihoods(run, model, data, tmp_path):
    out = tmp_path / "scores.csv"
    result = run("score", model, data, "-o", out)
    assert (result.code, result.out) == (0, "")
    assert "bits per token" in result.err
    with out.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    values = sciseq.load(model).score_samples(STRINGS)
    assert [row["id"] for row in rows] == [f"s{i}" for i in range(12)]
    np.testing.assert_allclose(
        [float(row["log_likelihood"]) for row in rows], values, rtol=1e-6
    )
    bits = [float(row["bits_per_token"]) for row in rows]
    np.testing.assert_allclose(bits, -values / np.log(2) / 5, rtol=1e-6)


def test_classes_come_from_a_column(run, tmp_path):
    table = tmp_path / "some.csv"
    lines = [f"{one},{'ab'[i % 2]}" for i, one in enumerate(STRINGS)]
    table.write_text("\n".join(["text,kind", *lines]), encoding="utf-8")
    columns = ("--column", "text", "--condition", "kind")
    place = tmp_path / "model"
    result = run("fit", table, "-o", place, *columns, "-m", "block-diffusion", *TINY)
    assert (result.code, result.out) == (0, "")
    out = tmp_path / "new.txt"
    assert run("sample", place, "-o", out, "-n", 2, "--condition", "a").code == 0
    result = run("sample", place, "-o", out, "-n", 2, "--condition", "c")
    assert result.code == 2
    assert "Classes are ['a', 'b']" in result.err
    result = run("score", place, table, "-o", tmp_path / "scores.csv", *columns)
    assert (result.code, result.out) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("fit", "{data}", "-o", "{new}", "-m", "autoregresive"), "autoregressive"),
        (("fit", "{data}", "-o", "{new}", "--set", "d_modle=8"), "d_model"),
        (("fit", "{data}", "-o", "{new}", "--set", "max_epochs=8"), "--epochs"),
        (("fit", "{data}.gone", "-o", "{new}", *TINY), "gone"),
        (("sample", "{model}", "-o", "{new}.doc"), ".fasta"),
        (("sample", "{data}", "-o", "{new}.txt"), "some.fasta"),
        (("score", "{model}", "{data}", "-o", "{new}.txt"), ".csv"),
    ],
)
def test_what_cannot_be_done_is_said(run, model, data, tmp_path, arguments, word):
    places = {"data": data, "model": model, "new": tmp_path / "new"}
    result = run(*(str(one).format(**places) for one in arguments))
    assert result.code == 2, result
    assert word in result.err
    assert "Traceback" not in result.err
    assert not list(tmp_path.glob("new*"))
