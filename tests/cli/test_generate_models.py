"""``sciseq generate`` with models of any kind: files that are read again as they were
written, classes that are no strings, and models without a device."""

import gzip
import json
from functools import partial

import numpy as np
import pytest

import sciseq
from sciseq import (
    AutoregressiveSequence,
    AxialAutoregressor,
    MarkovChain,
    MaskedDiffusionSequence,
    SequentialPromptSampler,
)
from sciseq.data.sequence_files import read_sequences

TINY = {"d_model": 8, "d_ff": 8, "n_layers": 1, "n_heads": 2, "max_epochs": 1,
        "device": "cpu", "random_state": 0}  # fmt: skip
TINY_OPTIONS = ("--set", "d_model=8", "--set", "d_ff=8", "--set", "n_layers=1",
                "--set", "n_heads=2", "--epochs", "1", "--device", "cpu")  # fmt: skip
STRINGS = ["ACGTA", "TTGAC", "GATTA", "CCCCC", "AGCTA", "TATAA"] * 2
TOKENS = [[1, 12], [11, 2], [1, 2]] * 4
TABLES = np.arange(60).reshape(10, 2, 3) % 4


def autoregressive(X, y=None, **options):
    return AutoregressiveSequence(**TINY, **options).fit(X, y)


MAKERS = {
    "strings": lambda: autoregressive(STRINGS),
    "strings with empty ones": lambda: autoregressive(["", "A", "", "AC"] * 6),
    "small letters": lambda: autoregressive(["acg", "gta"] * 6),
    "spaces": lambda: autoregressive([" a ", "b a"] * 6),
    "tokens": lambda: autoregressive(TOKENS),
    "words": lambda: autoregressive([["ab", "c"], ["c"]] * 6),
    "array": lambda: autoregressive(np.array(TOKENS)),
    "array with ends": lambda: autoregressive(np.array(TOKENS), max_length=4),
    "tables": lambda: AxialAutoregressor(**TINY).fit(TABLES),
    "chain": lambda: MarkovChain(order=1, strength=1.0).fit(STRINGS),
    "chain of tokens": lambda: MarkovChain(order=1, strength=1.0).fit(TOKENS),
    "sampler": lambda: SequentialPromptSampler.around(
        MaskedDiffusionSequence(**TINY).fit(STRINGS)
    ),
    "bools": lambda: autoregressive(STRINGS, [True, False] * 6),
    "integers": lambda: autoregressive(STRINGS, [1, 2] * 6),
    "numbers": lambda: autoregressive(STRINGS, [1.5, 2.0] * 6),
    "rows": lambda: autoregressive(STRINGS, np.arange(24.0).reshape(12, 2)),
}


@pytest.fixture
def run(console):
    return partial(console, "generate")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Return the place of a model, which is fitted when it is first asked for."""
    folder = tmp_path_factory.mktemp("models")

    def saved(name):
        place = folder / name
        if not place.exists():
            MAKERS[name]().save(place)
        return place

    return saved


def refused(result, *words):
    assert result.code == 2, result
    assert "Traceback" not in result.err
    for word in words:
        assert word in result.err


# ------------------------------------------------------------------------------ files


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz"])
@pytest.mark.parametrize("name", list(MAKERS)[:12])
def test_json_lines_hold_all_sequences(run, saved, tmp_path, name, suffix):
    model, new = saved(name), tmp_path / f"new{suffix}"
    made = sciseq.load(model).sample(20, random_state=0)
    made = made.tolist() if isinstance(made, np.ndarray) else made
    assert run("sample", model, "-o", new, "-n", 20).code == 0
    text = new.read_bytes()
    text = gzip.decompress(text) if suffix.endswith(".gz") else text
    assert [json.loads(line) for line in text.splitlines()] == made
    result = run("score", model, new, "-o", tmp_path / "scores.csv")
    assert result.code == 0, result
    assert "sequences: 20," in result.err
    scores = np.genfromtxt(tmp_path / "scores.csv", delimiter=",", skip_header=1)
    assert scores.shape == (20, 4)
    assert np.isfinite(scores).all()


@pytest.mark.parametrize(
    "name", ["tokens", "words", "tables", "strings with empty ones"]
)
def test_a_model_is_fitted_on_what_another_has_sampled(run, saved, tmp_path, name):
    new, method = tmp_path / "new.jsonl", "axial" if name == "tables" else "combiner"
    assert run("sample", saved(name), "-o", new, "-n", 40).code == 0
    result = run("fit", new, "-o", tmp_path / "model", "-m", method, *TINY_OPTIONS)
    assert result.code == 0, result
    assert "sequences: 40;" in result.err


@pytest.mark.parametrize("suffix", [".txt", ".fasta", ".csv", ".csv.gz"])
@pytest.mark.parametrize("name", list(MAKERS)[:12])
def test_other_formats_hold_what_they_give_back(run, saved, tmp_path, name, suffix):
    model, new = saved(name), tmp_path / f"new{suffix}"
    result = run("sample", model, "-o", new, "-n", 20)
    if name in ("strings", "chain", "sampler") or (
        name == "small letters" and suffix != ".fasta"
    ):
        assert result.code == 0, result
        assert read_sequences(new).sequences == sciseq.load(model).sample(
            20, random_state=0
        )
        return
    refused(result, "cannot hold", "--out", ".jsonl")
    assert not list(tmp_path.iterdir())


def test_what_stops_a_format_is_said(run, saved, tmp_path):
    new = tmp_path / "new.txt"
    found = sciseq.load(saved("strings with empty ones")).sample(20, random_state=0)
    number = found.index("") + 1
    result = run("sample", saved("strings with empty ones"), "-o", new, "-n", 20)
    refused(result, f"sequence {number} is empty")
    refused(run("sample", saved("tokens"), "-o", new), "run together")
    fasta = tmp_path / "new.fa"
    refused(run("sample", saved("small letters"), "-o", fasta), "would be read as")


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ('"AC"\n{"a": 1}\n', ":2"),
        ('"AC"\n[1, 2]\n', "mixed"),
        ("[1, null]\n", "token"),
        ("[1, 2\n", "JSON"),
        (f"{'[' * 100000}\n", "JSON"),
        ("\n", "no sequence"),
    ],
)
def test_lines_that_hold_no_sequence_are_refused(run, saved, tmp_path, text, word):
    data = tmp_path / "some.jsonl"
    data.write_text(text, encoding="utf-8")
    out = tmp_path / "scores.csv"
    refused(run("score", saved("strings"), data, "-o", out), "some.jsonl", word)
    assert not out.exists()


def test_outputs_are_replaced_as_those_of_other_commands(run, saved, tmp_path):
    new = tmp_path / "new.txt"
    new.write_text("before\n", encoding="utf-8")
    assert run("sample", saved("strings"), "-o", new).code == 0
    assert "before" not in new.read_text(encoding="utf-8")
    before = new.read_bytes()
    data = tmp_path / "data.csv"
    data.write_text("text\nACGTA\n", encoding="utf-8")
    refused(run("score", saved("strings"), data, "-o", data), "would be replaced")
    refused(run("sample", saved("strings"), "-o", new, "--template", "??"), "tokens")
    assert new.read_bytes() == before


# ------------------------------------------------------------------ columns and classes


@pytest.mark.parametrize("label", ["", "NA", "nan", "None"])
def test_a_missing_class_is_refused(run, saved, tmp_path, label):
    data = tmp_path / "some.csv"
    rows = ["ACGTA,a", "TTGAC,b", f"GATTA,{label}", "CCCCC,a"]
    data.write_text("\n".join(["text,kind", *rows]), encoding="utf-8")
    columns = ("--column", "text", "--condition", "kind")
    result = run("fit", data, "-o", tmp_path / "model", *columns, *TINY_OPTIONS)
    refused(result, "row 3", "GATTA", "'kind'")
    assert not (tmp_path / "model").exists()
    result = run("score", saved("bools"), data, "-o", tmp_path / "s.csv", *columns)
    refused(result, "row 3")


def test_sodium_is_a_class(run, tmp_path):
    data = tmp_path / "some.csv"
    rows = [f"{one},{'Na' if i % 2 else 'K'}" for i, one in enumerate(STRINGS)]
    data.write_text("\n".join(["text,kind", *rows]), encoding="utf-8")
    columns = ("--column", "text", "--condition", "kind")
    result = run("fit", data, "-o", tmp_path / "model", *columns, *TINY_OPTIONS)
    assert result.code == 0, result


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), ("--column is not given", "Give --column the name of a column.")),
        (("--column", "tex"), ("--column is 'tex'", "'text'")),
        (("--column", "text", "--condition", "kin"), ("--condition is 'kin'", "kind")),
    ],
)
def test_errors_about_columns_name_the_options(run, tmp_path, options, words):
    data = tmp_path / "some.csv"
    data.write_text("text,kind\nACGTA,a\n", encoding="utf-8")
    result = run("fit", data, "-o", tmp_path / "model", *options)
    refused(result, *words)
    assert "column=" not in result.err


def test_other_errors_name_options_too(run, saved, tmp_path):
    data, out = tmp_path / "some.txt", tmp_path / "s.csv"
    data.write_text("ACGTA\nAXGTA\n", encoding="utf-8")
    refused(run("score", saved("strings"), data, "-o", out), "some.txt, sequence 2")
    result = run("score", saved("strings"), data, "-o", out, "--column", "a")
    refused(result, "no columns (at: --column)")
    other = tmp_path / "some.abc"
    other.write_text("ACGTA\n", encoding="utf-8")
    result = run("score", saved("strings"), other, "-o", out)
    refused(result, ".txt, .jsonl (at: ")
    assert "file_format" not in result.err
    new = ("-o", tmp_path / "new.txt")
    result = run("sample", saved("strings"), *new, "--condition", "a")
    refused(result, "(at: --condition). Fit with --condition.")
    result = run("sample", saved("strings"), *new, "--template", "AX???")
    refused(result, "(at: --template")
    result = run("sample", saved("strings"), *new, "--device", "gpu")
    refused(result, "(at: --device)")


@pytest.mark.parametrize(
    ("name", "word", "value"),
    [
        ("bools", "True", True),
        ("bools", "false", False),
        ("integers", "2", 2),
        ("integers", "1.0", 1),
        ("numbers", "1.5", [[1.5]]),
        ("rows", "3,4.5", [[3.0, 4.5]]),
    ],
)
def test_words_are_read_as_classes_of_the_model(
    run, saved, tmp_path, name, word, value
):
    model, new = saved(name), tmp_path / "new.csv"
    result = run("sample", model, "-o", new, "-n", 4, "--condition", word)
    assert result.code == 0, result
    loaded = sciseq.load(model)
    made = loaded.sample(4, value, random_state=0)
    assert read_sequences(new).sequences == made
    rows = [f'{one},"{word}"' for one in made]
    new.write_text("\n".join(["text,kind", *rows]), encoding="utf-8")
    columns = ("--column", "text", "--condition", "kind")
    result = run("score", model, new, "-o", tmp_path / "s.csv", *columns)
    assert result.code == 0, result
    scores = np.genfromtxt(tmp_path / "s.csv", delimiter=",", skip_header=1)
    np.testing.assert_allclose(scores[:, 1], loaded.score_samples(made, value))


@pytest.mark.parametrize(
    ("name", "word", "hint"),
    [
        ("bools", "1", "Classes are [False, True]"),
        ("integers", "3", "Classes are [1, 2]"),
        ("numbers", "much", "1 number"),
        ("rows", "1.5", "2 numbers"),
    ],
)
def test_words_that_are_no_class_are_refused(run, saved, tmp_path, name, word, hint):
    new = tmp_path / "new.txt"
    result = run("sample", saved(name), "-o", new, "--condition", word)
    refused(result, repr(word), "(at: --condition)", hint)
    assert not new.exists()


# --------------------------------------------------------------- methods and devices


@pytest.mark.parametrize("name", ["chain", "sampler"])
def test_models_without_a_device_are_served(run, saved, tmp_path, name):
    new, scores = tmp_path / "new.txt", tmp_path / "scores.csv"
    for device in ((), ("--device", "cpu")):
        result = run("sample", saved(name), "-o", new, "--seed", 3, *device)
        assert result.code == 0, result
        assert run("score", saved(name), new, "-o", scores, *device).code == 0
    loaded = sciseq.load(saved(name))
    made = loaded.sample(10, random_state=3)
    assert read_sequences(new).sequences == made
    found = np.genfromtxt(scores, delimiter=",", skip_header=1)
    np.testing.assert_allclose(found[:, 1], loaded.score_samples(made), rtol=1e-6)
    assert not found[:, 2].any()


@pytest.mark.parametrize(
    "options",
    [
        ("--device", "cuda"),
        ("--template", "A????"),
        ("--temperature", "0.5"),
        ("--condition", "a"),
    ],
)
def test_what_a_chain_does_not_take_is_refused(run, saved, tmp_path, options):
    new = tmp_path / "new.txt"
    refused(run("sample", saved("chain"), "-o", new, *options), f"(at: {options[0]})")
    assert not new.exists()


def test_only_methods_that_can_be_fitted_are_listed(run, tmp_path):
    data, out = tmp_path / "some.txt", tmp_path / "model"
    data.write_text("ACGTA\n" * 9, encoding="utf-8")
    result = run("fit", data, "-o", out, "-m", "nothing")
    refused(result, "there are autoregressive, ")
    listed = result.err.partition("there are ")[2].partition(" (at:")[0].split(", ")
    assert {"axial", "combiner", "masked-diffusion"} <= set(listed)
    for name in ("sequential-prompt", "bert4rec", "markov-chain"):
        assert name not in listed
        refused(run("fit", data, "-o", out, "-m", name), "fitted in Python")
