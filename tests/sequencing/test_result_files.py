"""Annotated MGF, Percolator tables and mzIdentML."""

import numpy as np
import pandas as pd
import pytest
from lxml import etree

from sciseq.errors import InputError, InputTypeError
from sciseq.sequencing.mgf_files import read_mgf, write_mgf
from sciseq.sequencing.mzid_files import write_mzid
from sciseq.sequencing.pin_files import write_pin
from sciseq.sequencing.spectra import SkippedSpectrum, Spectrum
from sciseq.sequencing.spectrum_files import read_spectra

NATIVE = "controllerType=0 controllerNumber=1 scan=17"


def psms(**changes) -> pd.DataFrame:
    nan = float("nan")
    table = pd.DataFrame(
        {
            "source": "run.mgf",
            "identifier": ["index=0", "index=1", "index=2"],
            "index": [0, 1, 2],
            "precursor_mz": [500.25, 600.5, 700.75],
            "charge": [2, 2, 3],
            "peptide": [
                "PEC[Carbamidomethyl]K",
                None,
                "[Carbamyl][Ammonia-loss]-M[Oxidation]AN[+0.984016]K",
            ],
            "score": [0.91, nan, 0.5],
            "residue_scores": [[0.9, 0.8, 0.7, 0.6], [], [0.5] * 4],
            "calculated_mz": [500.2501, nan, 700.7501],
            "error_ppm": [-0.2, nan, 0.1],
            "retention_time": [12.5, nan, nan],
            "reason": ["", "too_few_peaks: 3 peaks", ""],
        }
    )
    return table.assign(**changes)


# ------------------------------------------------------------------ annotated MGF


def spectra() -> list[Spectrum]:
    return [
        Spectrum([100.1, 200.2], [1.0, 2.5], 500.25 + n, charge=2, source="run.mgf",
                 identifier=f"index={n}", index=n, title=f"t{n}", peptide="OLD", scan=n)
        for n in range(3)
    ]  # fmt: skip


def test_predictions_are_written_beside_their_spectra(tmp_path):
    path = tmp_path / "out.mgf"
    # The rows stand in another order than the spectra.
    write_mgf(spectra(), path, psms().iloc[::-1])
    found = list(read_mgf(path))
    assert [one.peptide for one in found] == [
        "PEC[Carbamidomethyl]K",
        None,
        "[Carbamyl][Ammonia-loss]-M[Oxidation]AN[+0.984016]K",
    ]
    assert [one.title for one in found] == ["t0", "t1", "t2"]
    assert [one.scan for one in found] == [0, 1, 2]
    assert "SCORE=0.91\n" in path.read_text()
    np.testing.assert_array_equal(found[0].mz, [100.1, 200.2])


def test_without_predictions_annotations_stay(tmp_path):
    path = tmp_path / "out.mgf"
    skipped = SkippedSpectrum("no_peaks", "it is empty")
    write_mgf([*spectra(), skipped], path)
    assert [one.peptide for one in read_mgf(path)] == ["OLD"] * 3


def test_several_charges_survive(tmp_path):
    path = tmp_path / "out.mgf"
    write_mgf([Spectrum([100.0], [1.0], 450.0, charges=(2, 3))], path)
    assert next(read_mgf(path)).charges == (2, 3)


def test_a_failure_while_writing_leaves_the_old_file(tmp_path):
    path = tmp_path / "out.mgf.gz"
    path.write_text("old")

    def broken():
        yield spectra()[0]
        raise RuntimeError("the disk is gone")

    with pytest.raises(RuntimeError, match="gone"):
        write_mgf(broken(), path)
    with pytest.raises(InputTypeError, match="str"):
        write_mgf(["index=0"], path)
    twice = pd.concat([psms(), psms()])
    with pytest.raises(InputError, match="index=0"):
        write_mgf(spectra(), path, twice)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


# -------------------------------------------------------------------- Percolator


def test_percolator_table(tmp_path):
    path = tmp_path / "a.pin"
    write_pin(psms(), path)
    table = pd.read_csv(path, sep="\t")
    assert table.columns[:3].tolist() == ["SpecId", "Label", "ScanNr"]
    assert table.columns[-2:].tolist() == ["Peptide", "Proteins"]
    assert table["SpecId"].tolist() == ["index=0_2", "index=2_3"]
    assert table["Label"].tolist() == [1, 1]
    assert table["ScanNr"].tolist() == [0, 2]
    assert table["Peptide"].tolist() == [
        "-.PEC[+57.021464]K.-",
        "-.n[+43.005814][-17.026549]M[+15.994915]AN[+0.984016]K.-",
    ]
    assert table["mean_residue_score"].tolist() == pytest.approx([0.75, 0.5])
    assert table["lowest_residue_score"].tolist() == [0.6, 0.5]
    assert table["absolute_error_ppm"].tolist() == [0.2, 0.1]
    assert table["peptide_length"].tolist() == [4, 4]
    assert table["charge_2"].tolist() == [1, 0]
    assert table["charge_3"].tolist() == [0, 1]
    features = table.drop(columns=["SpecId", "Peptide", "Proteins"])
    assert np.isfinite(features.to_numpy(float)).all()


def test_percolator_scan_numbers(tmp_path):
    path = tmp_path / "a.pin"
    table = psms(identifier=NATIVE, scan=[17, 18, 19])
    write_pin(table, path)
    read = pd.read_csv(path, sep="\t")
    assert read["ScanNr"].tolist() == [17, 19]
    assert not read["SpecId"].str.contains(" ").any()


def test_percolator_tables_refuse_what_they_cannot_hold(tmp_path):
    path = tmp_path / "a.pin"
    with pytest.raises(InputError, match="2 sources"):
        write_pin(psms(source=["a", "a", "b"]), path)
    with pytest.raises(InputError, match="score"):
        write_pin(psms(score=float("nan")), path)
    assert not path.exists()


# --------------------------------------------------------------------- mzIdentML


class NoTypes:
    """A vocabulary that knows no types of values: pyteomics then reads numbers."""

    relationship: tuple = ()

    def __getitem__(self, _: str) -> "NoTypes":
        return self


@pytest.fixture
def read_mzid(monkeypatch):
    mzid = pytest.importorskip("pyteomics.mzid")
    xml = pytest.importorskip("pyteomics.xml")
    # It asks for the package psims only to type values.
    monkeypatch.setattr(xml, "_has_psims", True)

    def read(path, **options):
        with mzid.MzIdentML(str(path), cv=NoTypes(), **options) as reader:
            return list(reader)

    return read


def test_pyteomics_reads_mzidentml_back(tmp_path, read_mzid):
    path = tmp_path / "a.mzid"
    write_mzid(
        psms(),
        path,
        fixed_modifications=["C[Carbamidomethyl]"],
        variable_modifications=["M[Oxidation]", "[Acetyl]-", "N[+0.984016]"],
        settings={"beam": 5},
    )
    first, second = read_mzid(path)
    assert (first["spectrumID"], second["spectrumID"]) == ("index=0", "index=2")
    assert first["scan start time"] == 12.5
    assert first["location"].endswith("/run.mgf")
    (match,) = first["SpectrumIdentificationItem"]
    assert match["PeptideSequence"] == "PECK"
    assert (match["chargeState"], match["rank"]) == (2, 1)
    assert match["experimentalMassToCharge"] == 500.25
    assert match["calculatedMassToCharge"] == 500.2501
    assert match["PSM-level search engine specific statistic"] == 0.91
    assert match["residue scores"] == "0.9 0.8 0.7 0.6"
    (change,) = match["Modification"]
    assert (change["location"], change["residues"]) == (3, ["C"])
    assert change["name"] == "Carbamidomethyl"
    assert change["monoisotopicMassDelta"] == pytest.approx(57.021464, abs=1e-6)
    (match,) = second["SpectrumIdentificationItem"]
    places = [(one["location"], one["name"]) for one in match["Modification"]]
    assert places == [
        (0, "Carbamyl"),
        (0, "Ammonia-loss"),
        (1, "Oxidation"),
        (3, "unknown modification"),
    ]
    assert match["ProForma"] == psms()["peptide"][2]


def assert_well_built(path) -> None:
    """Order of the parts, unique names, and references that lead somewhere."""
    root = etree.parse(str(path)).getroot()
    names = [etree.QName(one).localname for one in root]
    assert names == ["cvList", "AnalysisSoftwareList", "SequenceCollection",
                     "AnalysisCollection", "AnalysisProtocolCollection",
                     "DataCollection"]  # fmt: skip
    assert root.get("version") == "1.2.0"
    everything = list(root.iter())
    identifiers = [one.get("id") for one in everything if one.get("id")]
    assert len(identifiers) == len(set(identifiers))
    for one in everything:
        for key, value in one.attrib.items():
            if key.endswith("_ref") or key in {"cvRef", "unitCvRef"}:
                assert value in identifiers, (key, value)
        if etree.QName(one).localname == "cvParam":
            assert {"accession", "cvRef", "name"} <= set(one.attrib)
        if etree.QName(one).localname == "SpectrumIdentificationItem":
            needed = {"id", "chargeState", "experimentalMassToCharge", "peptide_ref",
                      "rank", "passThreshold"}  # fmt: skip
            assert needed <= set(one.attrib)
            assert one.get("chargeState").isdecimal()


def test_mzidentml_is_well_built(tmp_path):
    path = tmp_path / "a.mzid"
    table = psms(source=["a.mgf", "b.mgf", "b.mzML"], title="x & <y> \x01")
    write_mzid(table, path, variable_modifications=["[Acetyl]-"])
    assert_well_built(path)
    text = path.read_text()
    broken = tmp_path / "b.mzid"
    for right, wrong in [
        ('peptide_ref="peptide_1"', 'peptide_ref="peptide_9"'),
        ('id="match_2"', 'id="match_1"'),
        ('cvRef="UNIMOD"', 'cvRef="unimod"'),
        ('chargeState="2"', 'chargeState="2.0"'),
    ]:
        assert right in text
        broken.write_text(text.replace(right, wrong, 1))
        with pytest.raises(AssertionError):
            assert_well_built(broken)


def test_equal_peptides_share_one_entry(tmp_path, read_mzid):
    path = tmp_path / "a.mzid"
    write_mzid(psms(peptide="PEPTLDEK"), path)
    assert_well_built(path)
    assert path.read_text().count("<PeptideSequence>") == 1
    assert len(read_mzid(path)) == 3


def test_mzidentml_refuses_what_it_cannot_hold(tmp_path):
    path = tmp_path / "a.mzid"
    with pytest.raises(InputError, match="no peptide"):
        write_mzid(psms(peptide=None), path)
    with pytest.raises(InputError, match=r"charge.*index=0"):
        write_mzid(psms(charge=float("nan")), path)
    with pytest.raises(InputError, match="Unobtainium"):
        write_mzid(psms(peptide="M[Unobtainium]K"), path)
    assert list(tmp_path.iterdir()) == []


def test_references_lead_back_to_the_spectra(tmp_path, data_dir, read_mzid):
    source = data_dir / "peptides" / "yeast_qe_small.mzML.gz"
    kept = [one for one in read_spectra(source) if isinstance(one, Spectrum)][:5]
    table = pd.concat([psms().iloc[:1]] * 5, ignore_index=True).assign(
        source=[one.source for one in kept],
        identifier=[one.identifier for one in kept],
        precursor_mz=[one.precursor_mz for one in kept],
    )
    path = tmp_path / "a.mzid"
    write_mzid(table, path)
    by_identifier = {one.identifier: one for one in kept}
    results = read_mzid(path)
    assert len(results) == 5
    for result in results:
        spectrum = by_identifier[result["spectrumID"]]
        (match,) = result["SpectrumIdentificationItem"]
        assert match["experimentalMassToCharge"] == spectrum.precursor_mz
