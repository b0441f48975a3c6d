"""mzTab: what validators and readers ask for."""

import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pyteomics.mztab import MzTab

from sciseq import __version__
from sciseq.errors import InputError, InputTypeError
from sciseq.sequencing.mztab_files import write_mztab
from sciseq.sequencing.psm_rows import psm_rows

FIXED = ["C[Carbamidomethyl]"]
MODIFIED = "[Acetyl]-M[Oxidation]AN[+0.984016]K"
VARIABLE = ["G", "M[Oxidation]", "N[+0.984016]", "[Acetyl]-"]
VARIABLE += ["[Carbamyl][Ammonia-loss]-"]
NATIVE = "controllerType=0 controllerNumber=1 scan=17"
PROFORMA = "opt_global_cv_MS:1003169_proforma_peptidoform_sequence"


def psms() -> pd.DataFrame:
    """Two files; of the five spectra one has no charge, one has no peptide."""
    names = ["source", "identifier", "index", "precursor_mz", "charge", "peptide",
             "score", "residue_scores", "calculated_mz", "error_ppm",
             "retention_time", "reason"]  # fmt: skip
    nan = float("nan")
    rows = [
        ("/data/run a.mgf", "index=0", 0, 500.25, 2.0, "PEC[Carbamidomethyl]K", 0.91,
         [0.99, 0.98, 0.97, 0.96], 500.2501, 0.2, 12.5, ""),
        ("/data/run a.mgf", "index=1", 1, 600.5, nan, None, nan, [], nan, nan, nan,
         "missing_charge: the charge is not known"),
        ("/data/run a.mgf", "index=2", 2, 700.75, 3.0, MODIFIED,
         0.5, [0.9, 0.8, 0.7, 0.6], 700.7501, 0.1, nan, ""),
        ("/data/b.mzML.gz", NATIVE, 16, 400.1, 2.0, "LLLK", nan, np.ones(4), nan, nan,
         3.0, ""),
        ("/data/b.mzML.gz", NATIVE.replace("17", "18"), 17, nan, 2.0, None, nan, None,
         nan, nan, nan, ""),
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=names)


@pytest.fixture
def written(tmp_path) -> Path:
    path = tmp_path / "out.mztab"
    write_mztab(
        psms(),
        path,
        fixed_modifications=FIXED,
        variable_modifications=VARIABLE,
        settings={"beam": 5, "model": "a\tb"},
    )
    return path


def lines_of(path: Path, kind: str) -> list[list[str]]:
    rows = [line.split("\t") for line in path.read_text().splitlines()]
    return [row for row in rows if row[0] == kind]


def test_pyteomics_reads_it_back(written):
    read = MzTab(str(written))
    table = read.spectrum_match_table
    assert read.version == "1.0.0"
    assert read.type == "Identification"
    assert table["sequence"].tolist() == ["PECK", "MANK", "LLLK"]
    assert table["charge"].tolist() == [2, 3, 2]
    assert table["exp_mass_to_charge"].tolist() == [500.25, 700.75, 400.1]
    assert table["search_engine_score[1]"].tolist()[:2] == [0.91, 0.5]
    assert table[PROFORMA].tolist() == [
        "PEC[Carbamidomethyl]K",
        MODIFIED,
        "LLLK",
    ]
    assert table["modifications"].tolist()[:2] == [
        "3-UNIMOD:4",
        "0-UNIMOD:1,1-UNIMOD:35,3-CHEMMOD:+0.984016",
    ]
    assert table["spectra_ref"].tolist() == [
        "ms_run[1]:index=0",
        "ms_run[1]:index=2",
        f"ms_run[2]:{NATIVE}",
    ]
    scores = [float(one) for one in table["opt_global_aa_scores"].iloc[0].split(",")]
    assert scores == [0.99, 0.98, 0.97, 0.96]


def assert_valid(path: Path) -> None:
    """What the specification demands of a file with a PSM section."""
    entries = {row[1]: row[2] for row in lines_of(path, "MTD")}
    needed = ["mzTab-version", "mzTab-mode", "mzTab-type", "description",
              "software[1]", "psm_search_engine_score[1]", "fixed_mod[1]",
              "variable_mod[1]", "ms_run[1]-location"]  # fmt: skip
    assert not [name for name in needed if not entries.get(name)]
    parameter = re.compile(r"\[[^,\[\]]*, [^,\[\]]*, [^,\[\]]*, [^,\[\]]*\]")
    for name, value in entries.items():
        if re.fullmatch(r"(software|psm_search_engine_score|\w+_mod)\[\d+\]", name):
            assert parameter.fullmatch(value), (name, value)
    (header,) = lines_of(path, "PSH")
    runs = {int(n) for n in re.findall(r"ms_run\[(\d+)\]-location", "\n".join(entries))}
    assert runs == set(range(1, len(runs) + 1))
    seen = set()
    for row in lines_of(path, "PSM"):
        assert len(row) == len(header)
        assert all(cell and cell == cell.strip() for cell in row)
        cells = dict(zip(header, row, strict=True))
        assert cells["PSM_ID"] not in seen
        seen.add(cells["PSM_ID"])
        assert re.fullmatch(r"[A-Z]+", cells["sequence"])
        assert re.fullmatch(r"[1-9]\d*|null", cells["charge"])
        change = r"\d+-(UNIMOD:\d+|CHEMMOD:[+-][\d.e-]+)"
        assert re.fullmatch(rf"null|{change}(,{change})*", cells["modifications"])
        run = re.fullmatch(r"ms_run\[(\d+)\]:\S.*", cells["spectra_ref"])
        assert run and int(run[1]) in runs
        for name in ("exp_mass_to_charge", "calc_mass_to_charge", "retention_time"):
            assert cells[name] == "null" or math.isfinite(float(cells[name]))
    assert all(n.startswith("opt_global_") for n in header[header.index("end") + 1 :])


def test_what_validators_complain_about(written):
    assert_valid(written)
    text = written.read_text()
    assert text.endswith("\n") and "nan" not in text.lower() and "None" not in text


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("\t2\t500.25\t", "\t2.0\t500.25\t"),
        ("MTD\tpsm_search_engine_score[1]", "COM\tpsm_search_engine_score[1]"),
        ("3-UNIMOD:4\t", "UNIMOD:4-3\t"),
        ("\tnull\tnull\tnull\tnull\tPEC", "\t\tnull\tnull\tnull\tPEC"),
        ("PSM\tMANK\t2", "PSM\tMANK\t1"),
        ("ms_run[2]:", "ms_run[3]:"),
        ("PSM\tMANK", "PSM\tM[Oxidation]ANK"),
    ],
)
def test_the_check_of_validity_sees_what_is_wrong(written, right, wrong):
    text = written.read_text()
    assert right in text
    written.write_text(text.replace(right, wrong, 1))
    with pytest.raises(AssertionError):
        assert_valid(written)


def test_metadata(written):
    entries = {row[1]: row[2] for row in lines_of(written, "MTD")}
    assert entries["software[1]"] == f"[, , sciseq, {__version__}]"
    assert entries["software[1]-setting[1]"] == "beam = 5"
    assert entries["software[1]-setting[2]"] == "model = a b"
    assert entries["fixed_mod[1]"] == "[UNIMOD, UNIMOD:4, Carbamidomethyl, ]"
    assert entries["fixed_mod[1]-site"] == "C"
    assert entries["variable_mod[2]"] == "[CHEMMOD, CHEMMOD:+0.984016, , ]"
    assert entries["variable_mod[3]"] == "[UNIMOD, UNIMOD:1, Acetyl, ]"
    assert entries["variable_mod[3]-site"] == "N-term"
    assert entries["variable_mod[3]-position"] == "Any N-term"
    assert "variable_mod[5]" in entries and "variable_mod[6]" not in entries
    assert entries["ms_run[1]-location"] == "file:///data/run%20a.mgf"
    assert "MS:1000774" in entries["ms_run[1]-id_format"]
    assert "MS:1000584" in entries["ms_run[2]-format"]
    assert "MS:1001530" in entries["ms_run[2]-id_format"]


def test_every_spectrum_is_in_the_file(written):
    matches = lines_of(written, "PSM")
    comments = [row[1] for row in lines_of(written, "COM")]
    assert len(matches) + len(comments) == len(psms())
    assert comments[0] == (
        "no peptide: ms_run[1]:index=1: missing_charge: the charge is not known"
    )
    assert comments[1].startswith("no peptide: ms_run[2]:controllerType=0")


def test_without_modifications_the_file_says_so(tmp_path):
    path = tmp_path / "a.mztab"
    write_mztab(psms().assign(source=""), path, mode="Complete")
    entries = {row[1]: row[2] for row in lines_of(path, "MTD")}
    assert entries["mzTab-mode"] == "Complete"
    assert "MS:1002453" in entries["fixed_mod[1]"]
    assert "MS:1002454" in entries["variable_mod[1]"]
    assert entries["ms_run[1]-location"] == "null"
    assert_valid(path)


def test_an_empty_table_gives_a_valid_file(tmp_path):
    path = tmp_path / "a.mztab"
    write_mztab(psms().head(0), path)
    assert_valid(path)
    assert lines_of(path, "PSM") == []


def test_titles_and_scans_are_written_where_there_are(tmp_path):
    path = tmp_path / "a.mztab"
    table = psms().assign(title="run\t1\nx", scan=[5.0, 6.0, 7.0, np.nan, 9.0])
    write_mztab(table, path)
    assert_valid(path)
    read = MzTab(str(path)).spectrum_match_table
    assert read["opt_global_title"].tolist() == ["run 1 x"] * 3
    scans = read["opt_global_cv_MS:1003057_scan_number"].tolist()
    assert scans[:2] == [5, 7]


def test_bad_input_leaves_no_file(tmp_path):
    path = tmp_path / "a.mztab"
    with pytest.raises(InputError, match="mode is 'Short'"):
        write_mztab(psms(), path, mode="Short")
    with pytest.raises(InputError, match="Unobtainium"):
        write_mztab(psms().assign(peptide="M[Unobtainium]K"), path)
    with pytest.raises(InputError, match="'score'"):
        write_mztab(psms().drop(columns="score"), path)
    with pytest.raises(InputTypeError):
        write_mztab([1], path)
    assert list(tmp_path.iterdir()) == []
    path.write_text("old")
    with pytest.raises(InputError, match="Unobtainium"):
        write_mztab(psms().assign(peptide="M[Unobtainium]K"), path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_rows_have_checked_types():
    rows = psm_rows(psms())
    assert [row.charge for row in rows] == [2, None, 3, 2, 2]
    assert all(isinstance(row.charge, int | None) for row in rows)
    assert rows[1].score is None and rows[1].peptide is None
    assert rows[4].reason == "no peptide was found"
    assert rows[3].residue_scores == (1.0, 1.0, 1.0, 1.0)
    nullable = psms().convert_dtypes()
    assert psm_rows(nullable) == rows
    for wrong, named in [(2.5, "integer"), (0, "at least 1"), (-2, "at least 1")]:
        with pytest.raises(InputError, match=f"{named}.*row 0"):
            psm_rows(psms().assign(charge=wrong))
