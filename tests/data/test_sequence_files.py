"""Sequences in files: FASTA, SMILES, CSV, one per line; what errors name."""

import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sciseq
from sciseq.data import text_lines
from sciseq.data.sequence_files import read_sequences, smiles_tokens
from sciseq.data.text_lines import numbered_lines
from sciseq.errors import FileFormatError, InputError, UnsafeFileError


@pytest.fixture
def written(tmp_path):
    def write(name, text):
        file = tmp_path / name
        data = text if isinstance(text, bytes) else text.encode()
        file.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return file

    return write


# ------------------------------------------------------------------- formats


@pytest.mark.parametrize(
    ("name", "text", "ids", "sequences"),
    [
        ("a.fa", ">p1 of E\nac\nGT\n\n>p2\nTT\n", ["p1", "p2"], ["ACGT", "TT"]),
        ("a.fasta.gz", ">p1\nMKA*\n>\nML", ["p1", "2"], ["MKA", "ML"]),
        ("a.smi", "CCO ethanol (1)\nC[Cl]\n", ["ethanol", "2"], ["CCO", "C[Cl]"]),
        ("a.txt.gz", "\ufeffACGT\r\n\n TT \n", ["1", "2"], ["ACGT", "TT"]),
        ("a.csv", "seq\nGLW\nAAG\n", ["1", "2"], ["GLW", "AAG"]),
    ],
)
def test_formats_by_suffix(written, name, text, ids, sequences):
    found = read_sequences(written(name, text))
    assert (found.ids, found.sequences, found.labels) == (ids, sequences, None)
    assert len(found) == 2


def test_columns_by_name_and_by_place(written):
    text = 'name,"note, long",peptide,label\np1,"a\nb",GLW, 1\n\np2,,AAG,0\n'
    file = written("a.csv", text)
    by_name = read_sequences(
        file, column="peptide", id_column="name", label_column="label"
    )
    assert (by_name.ids, by_name.sequences) == (["p1", "p2"], ["GLW", "AAG"])
    assert by_name.labels == ["1", "0"]
    assert read_sequences(file, column=2, id_column=0, label_column=3) == by_name
    tabbed = written("a.tsv.gz", "a\tb\nx,y\tz\n")
    assert read_sequences(tabbed, column="a").sequences == ["x,y"]


def test_the_format_may_be_given(written):
    file = written("molecules.dat", "CCO\n")
    with pytest.raises(InputError, match="does not tell what it holds"):
        read_sequences(file)
    assert read_sequences(file, file_format="smiles").sequences == ["CCO"]


# ------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("name", "text", "options", "message", "line"),
    [
        ("a.fa", ">p\nAC\nA1\n", {}, "'1' is no residue", 3),
        ("a.fa", ">p\nAC\n>q\n>r\nA\n", {}, "sequence is empty", 3),
        ("a.fa", "\n>p\nACN\n", {"alphabet": "ACGT"}, "'N' in 'ACN' is not in", 2),
        ("a.txt", "AC\n\nAN\n", {"alphabet": "ACGT"}, "'N'", 3),
        ("a.txt", b"AC\nA\xffC\n", {}, "not UTF-8", 2),
        ("a.smi", "CCO\nsmiles\n", {}, "'miles' is no SMILES, from character 2", 2),
        ("a.csv", "a,b\nx,y\nx\n", {"column": "b"}, "row has 1 fields", 3),
        ("a.csv", "a,b\nx,y\nx,\n", {"column": "b"}, "sequence is empty", 3),
        ("a.csv", "a,b\nx,y\n", {"column": "c"}, "names no single column", 1),
        ("a.csv", "a,b\nx,y\n", {}, "column=None names no single column", 1),
        ("a.csv", "a,b\nx,y\n", {"column": 2}, "names no single column", 1),
        ("a.csv", "a,a\nx,y\n", {"column": "a"}, "names no single column", 1),
    ],
)
def test_errors_name_file_and_line(written, name, text, options, message, line):
    with pytest.raises((FileFormatError, InputError), match=message) as caught:
        read_sequences(written(name, text), **options)
    assert caught.value.where.endswith(f"{name}:{line}")


@pytest.mark.parametrize(
    ("name", "text", "options", "message"),
    [
        ("a.txt", "\n\n", {}, "holds no sequence"),
        ("a.csv", "a\n", {}, "holds no sequence"),
        ("a.csv", "", {}, "names no single column"),
        ("a.txt", "AC\n", {"column": "a"}, "columns are named"),
        ("a.txt", "AC\n", {"file_format": "fast"}, "Did you mean 'fasta'"),
    ],
)
def test_other_errors(written, name, text, options, message):
    with pytest.raises((FileFormatError, InputError), match=message):
        read_sequences(written(name, text), **options)


def test_a_missing_file_is_the_usual_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_sequences(tmp_path / "none.fa")


def test_a_file_that_grows_out_of_proportion_is_refused(written, monkeypatch):
    monkeypatch.setattr(text_lines, "FREE_BYTES", 1000)
    file = written("a.txt.gz", "A\n" * 200_000)
    with pytest.raises(UnsafeFileError, match="200-fold"):
        read_sequences(file)
    plain = written("a.txt", "A\n" * 2000)  # what is not compressed cannot grow
    assert len(read_sequences(plain)) == 2000


def test_an_endless_line_is_refused(written, monkeypatch):
    monkeypatch.setattr(text_lines, "LONGEST_LINE", 2**10)
    lines = numbered_lines(written("a.txt.gz", "AC\n" + "A" * 2000))
    assert next(lines) == (1, "AC")
    with pytest.raises(UnsafeFileError, match=r"a\.txt\.gz:2"):
        next(lines)


# ------------------------------------------------------------------- SMILES


def test_tokens_of_smiles():
    text = "C[C@@H](N)C%12=C(Br)c1[nH]cc1C%12/C=C\\Cl.[Na+]"
    expected = "C [C@@H] ( N ) C %12 = C ( Br ) c 1 [nH] c c 1 C %12 / C = C \\ Cl . "
    assert smiles_tokens(text) == [*expected.split(), "[Na+]"]


@given(st.text("CNOclBr[]H()=#12%", max_size=20))
def test_tokens_join_to_the_string_or_are_refused(text):
    try:
        tokens = smiles_tokens(text)
    except InputError:
        return
    assert "".join(tokens) == text


# ------------------------------------------------------------------- real files


def test_real_promoters(data_dir):
    folder = data_dir / "sequences"
    found = read_sequences(folder / "dna_ecoli_prom.fa.gz", alphabet="ACGT")
    assert len(found) == 839
    assert {len(sequence) for sequence in found.sequences} == {81}
    assert found.ids[0] == "ECK120010467__accAp__forward__208411"


def test_real_peptides(data_dir):
    file = data_dir / "sequences" / "peptide_ampvsuniprot.csv"
    found = read_sequences(file, column=0, label_column=1)
    lengths = [len(sequence) for sequence in found.sequences]
    assert (len(found), min(lengths), max(lengths)) == (5200, 7, 174)
    assert {label: found.labels.count(label) for label in "01"} == {
        "0": 2600,
        "1": 2600,
    }


def test_real_molecules(data_dir):
    folder = data_dir / "sequences"
    with pytest.raises(InputError, match="columns"):
        read_sequences(folder / "smiles_zinc250k_test.txt.gz", column="smiles")
    found = read_sequences(folder / "smiles_zinc250k_test.txt.gz", file_format="smiles")
    assert len(found) == 5000
    assert found.sequences[0] == "CC(C)(C)c1ccc2occ(CC(=O)Nc3ccccc3F)c2c1"
    csv = read_sequences(folder / "smiles_solubility500.csv", column="smiles")
    assert len(csv) == 500
    assert "".join(smiles_tokens(csv.sequences[0])) == csv.sequences[0]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (['"AC"', "", '""'], ["AC", ""]),
        (["[1, 12]", "[11]", "[]"], [[1, 12], [11], []]),
        (["[[1, 2], [3, 4]]"], [[[1, 2], [3, 4]]]),
    ],
)
def test_json_lines_hold_any_sequence(tmp_path, lines, expected):
    file = tmp_path / "some.jsonl"
    file.write_text("\n".join(lines) + "\n")
    found = read_sequences(file)
    assert found.sequences == expected
    assert found.ids == [str(i + 1) for i in range(len(expected))]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "no sequence in JSON"), ("[1.5]", "neither a string nor an integer"),
        ("[true]", "neither a string"), ('"A"\n[1]', "are mixed"), ("[", "no sequence"),
        ("", "holds no sequence"),
    ],
)  # fmt: skip
def test_lines_that_are_no_sequence_are_refused(tmp_path, text, message):
    file = tmp_path / "some.jsonl"
    file.write_text(text)
    with pytest.raises(FileFormatError, match=message):
        read_sequences(file)


def test_a_generator_is_fitted_on_json_lines(tmp_path):
    file = tmp_path / "some.jsonl"
    file.write_text("[1, 12]\n[11, 2]\n" * 10)
    model = sciseq.AutoregressiveSequence(
        d_model=8, d_ff=8, n_layers=1, n_heads=2, max_epochs=1, device="cpu"
    ).fit(file)
    assert all(set(one) <= {1, 2, 11, 12} for one in model.sample(5, random_state=0))
