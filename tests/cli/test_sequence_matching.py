"""`sciseq sequence match`: tables, what is said, and what is refused."""

from pathlib import Path

import pandas as pd
import pytest

import sciseq.cli.sequence_matching
from sciseq.cli.sequence_matching import MatchRequest, run_match
from sciseq.sequencing.protein_matches import match_proteins

PEPTIDES = ["AGLVK", "M[Oxidation]AGLVK", "AGIVK", "", "WWWWWW", "NA"]
FASTA = ">sp|P1|ONE first\nMAGIVKLLEDR\n>P2\nGGGGLVKAAGLVK\n"


@pytest.fixture
def files(tmp_path) -> tuple[Path, Path]:
    predictions, fasta = tmp_path / "found.csv", tmp_path / "some.fasta"
    rows = [f"run.mgf,index={place},{one}" for place, one in enumerate(PEPTIDES)]
    predictions.write_text("\n".join(["source,identifier,peptide", *rows, ""]))
    fasta.write_text(FASTA)
    return predictions, fasta


def names(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()} - {"found.csv", "some.fasta"}


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet"])
def test_the_tables_are_those_of_python(run, tmp_path, files, suffix) -> None:
    predictions, fasta = files
    out, proteins = tmp_path / f"out{suffix}", tmp_path / f"proteins{suffix}"
    result = run(
        "match", predictions, "--fasta", fasta, "-o", out, "--proteins", proteins
    )
    assert (result.code, result.out) == (0, "")
    assert result.err.splitlines() == [
        "peptides: 2 of 4 stand in a protein",
        "spectra: 3 of 5 with a peptide",
        "proteins: 2",
        f"places: {out}",
        f"coverage: {proteins}",
    ]
    expected = match_proteins([one or None for one in PEPTIDES], fasta)
    if suffix == ".parquet":
        found, covered = pd.read_parquet(out), pd.read_parquet(proteins)
    else:
        separator = "\t" if suffix == ".tsv" else ","
        found, covered = (
            pd.read_csv(one, sep=separator, keep_default_na=False, na_values=[""])
            for one in (out, proteins)
        )
    assert found["peptide"].tolist() == ["AGLVK", "AGLVK", "MAGLVK", "WWWWWW", "NA"]
    for name in expected.peptides.columns:
        for one, other in zip(found[name], expected.peptides[name], strict=True):
            assert (pd.isna(one) and pd.isna(other)) or one == other, name
    assert covered["protein"].tolist() == ["sp|P1|ONE", "P2"]
    assert covered["intervals"].tolist() == ["1-6", "9-13"]
    assert covered["coverage"].tolist() == expected.proteins["coverage"].tolist()
    assert names(tmp_path) == {out.name, proteins.name}


def test_several_files_another_enzyme_and_silence(run, tmp_path, files) -> None:
    predictions, fasta = files
    other = tmp_path / "other.fasta"
    other.write_text(">P3\nKAGLVK\n")
    out = tmp_path / "out.csv"
    options = ("--fasta", fasta, "--fasta", other, "-o", out, "-q")
    result = run("match", predictions, *options, "--enzyme", "lys-n")
    assert result == (0, "", "")
    table = pd.read_csv(out, index_col="protein")
    assert table.loc["P3", "n_proteins"] == 3
    assert not table.loc["P3", "fits_enzyme"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"out": "out.txt"}, "must end in one of .csv, .tsv, .parquet"),
        ({"out": "found.csv"}, "holds the data"),
        ({"out": "some.fasta"}, "must end in"),
        ({"proteins": "out.csv"}, "both tables would be written"),
        ({"out": "nowhere/out.csv"}, "there is no folder"),
        ({"fasta": "missing.fasta"}, "No such file"),
        ({"fasta": "found.csv"}, "is this a FASTA file"),
        ({"enzyme": "tripsin"}, "did you mean 'trypsin'"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    run, tmp_path, files, change, message
) -> None:
    given = {"fasta": "some.fasta", "out": "out.csv"} | change
    arguments = []
    for name, value in given.items():
        is_file = name != "enzyme"
        arguments += [f"--{name}", tmp_path / value if is_file else value]
    result = run("match", files[0], *arguments)
    assert result.code == 2
    assert message.lower() in result.err.lower()
    assert len(result.err.splitlines()) == 1
    assert names(tmp_path) == set()
    assert files[1].read_text() == FASTA


def test_a_table_without_peptides_is_refused(run, tmp_path, files) -> None:
    files[0].write_text("source,identifier,peptide\na,b,\n")
    result = run("match", files[0], "--fasta", files[1], "-o", tmp_path / "out.csv")
    assert result.code == 2
    assert "none of 1 rows has a peptide" in result.err


def test_neither_table_is_written_when_the_second_one_fails(
    tmp_path, files, monkeypatch
) -> None:
    write = sciseq.cli.sequence_matching._write

    def failing(table, path):
        if "coverage" in table.columns:
            raise OSError("the disk is full")
        write(table, path)

    monkeypatch.setattr(sciseq.cli.sequence_matching, "_write", failing)
    request = MatchRequest(
        files[0], [files[1]], tmp_path / "out.csv", tmp_path / "proteins.csv"
    )
    with pytest.raises(OSError, match="the disk is full"):
        run_match(request)
    assert names(tmp_path) == set()
