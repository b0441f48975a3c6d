"""Reading spectra from files and from objects of other libraries."""

import base64
import gzip
import tracemalloc
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pyteomics.mgf
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sciseq.errors import FileFormatError, InputError, InputTypeError, UnsafeFileError
from sciseq.sequencing import byte_streams, guarded_xml, mgf_files, mzml_files
from sciseq.sequencing.mgf_files import parse_charges, read_mgf, write_mgf
from sciseq.sequencing.peak_text import parse_peaks
from sciseq.sequencing.spectra import SkippedSpectrum, Spectrum
from sciseq.sequencing.spectrum_files import read_spectra


def mgf(tmp_path: Path, text: str, name: str = "a.mgf") -> list:
    path = tmp_path / name
    path.write_bytes(text.encode())
    return list(read_spectra(path))


PEAKS = "100.5 7\n200.25 8\n"


def block(*headers: str, peaks: str = PEAKS, end: str = "END IONS\n") -> str:
    return "\n".join(["BEGIN IONS", *headers, ""]) + peaks + end


# ---------------------------------------------------------------------------- MGF


@pytest.mark.parametrize(
    ("line", "charge", "charges"),
    [
        ("CHARGE=2+", 2, ()),
        ("CHARGE=2.0+", 2, ()),
        ("CHARGE=2", 2, ()),
        ("CHARGE=+3", 3, ()),
        ("CHARGE=2+ and 3+", None, (2, 3)),
        ("CHARGE=2+, 3+ and 4+", None, (2, 3, 4)),
        ("CHARGE=0", None, ()),
        ("CHARGE=", None, ()),
        ("TITLE=no charge at all", None, ()),
    ],
)
def test_mgf_charges(tmp_path, line, charge, charges):
    (spectrum,) = mgf(tmp_path, block(line, "PEPMASS=450.2"))
    assert (spectrum.charge, spectrum.charges) == (charge, charges)


def test_mgf_charge_of_the_file_is_a_default(tmp_path):
    text = "CHARGE=2+ and 3+\n" + block("PEPMASS=1") + block("PEPMASS=1", "CHARGE=4+")
    first, second = mgf(tmp_path, text)
    assert (first.charges, first.charge) == ((2, 3), None)
    assert (second.charges, second.charge) == ((), 4)


@pytest.mark.parametrize("text", ["two", "2+-", "2.5+", "2+3+", "+2+"])
def test_what_is_no_charge_is_refused(text):
    with pytest.raises(ValueError, match="no charge"):
        parse_charges(text)


def test_mgf_fields(tmp_path):
    text = block(
        "# a comment",
        "TITLE=run.17.17.2 = first",
        "PEPMASS=450.25 1234.5",
        "CHARGE=2+",
        "RTINSECONDS=64.5",
        "SCANS=17",
        "SEQ=[+42.010565]-PEPTM[+15.994915]IDE",
    )
    (spectrum,) = mgf(tmp_path, text)
    assert spectrum.title == "run.17.17.2 = first"
    assert spectrum.precursor_mz == 450.25
    assert spectrum.retention_time == 64.5
    assert spectrum.scan == 17
    assert spectrum.peptide == "[+42.010565]-PEPTM[+15.994915]IDE"
    assert (spectrum.identifier, spectrum.index) == ("index=0", 0)
    assert spectrum.source == str(tmp_path / "a.mgf")
    np.testing.assert_array_equal(spectrum.mz, [100.5, 200.25])
    np.testing.assert_array_equal(spectrum.intensity, [7.0, 8.0])


@pytest.mark.parametrize(
    "peaks",
    [
        PEAKS,
        "100.5\t7\n200.25\t8\n",
        "100.5 7 2+\n200.25 8 1+\n",
        "100.5 7\n200.25 8 1+\n",
        '100.5 7 "y1/0.02 ppm"\n200.25 8 "b2=3"\n',
        "\n100.5 7\n\n# peak = none\n200.25 8\n\n",
        "  100.5   7  \n 200.25 8",
        "200.25 8\n100.5 7\n",
        "1.005e2 7.0\n200.25 +8\n",
        "100.5 7\nRAWSCANS=sn1\n200.25 8\n",
    ],
)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_mgf_peaks_in_every_style(tmp_path, peaks, newline):
    if not peaks.endswith("\n"):
        peaks += "\n"
    text = block("PEPMASS=450.2", "CHARGE=2+", peaks=peaks).replace("\n", newline)
    (spectrum,) = mgf(tmp_path, text)
    np.testing.assert_array_equal(spectrum.mz, [100.5, 200.25])
    np.testing.assert_array_equal(spectrum.intensity, [7.0, 8.0])
    assert (spectrum.charge, spectrum.precursor_mz) == (2, 450.2)


@pytest.mark.parametrize(
    ("damaged", "reason"),
    [
        (block("PEPMASS=450.2", peaks=""), "no_peaks"),
        (block("PEPMASS=450.2", peaks="-100 7\n"), "malformed_peaks"),
        (block("PEPMASS=450.2", peaks="nan 7\n"), "malformed_peaks"),
        (block("PEPMASS=450.2", peaks="inf 7\n"), "malformed_peaks"),
        (block("PEPMASS=450.2", peaks="100 nan\n"), "malformed_peaks"),
        (block("PEPMASS=450.2", peaks="100 7\nabc def\n"), "malformed_peaks"),
        (block("PEPMASS=450.2", peaks="100 7 3 200\n300\n"), "malformed_peaks"),
        (block("PEPMASS=450.2", peaks="100 7\n200\n"), "malformed_peaks"),
        (block("PEPMASS=450.2", peaks="1_000 7\n"), "malformed_peaks"),
        (block("PEPMASS=450.2", peaks="100 7\x00\n"), "malformed_peaks"),
        (block("PEPMASS=450.2", peaks="100,5 7\n"), "malformed_peaks"),
        (block("PEPMASS=450.2", "a line without a sign"), "malformed_peaks"),
        (block("CHARGE=2+"), "missing_precursor"),
        (block("PEPMASS=abc"), "missing_precursor"),
        (block("PEPMASS=0"), "missing_precursor"),
        (block("PEPMASS=-5"), "missing_precursor"),
        (block("PEPMASS=450.2", "CHARGE=x"), "malformed_header"),
        (block("PEPMASS=450.2", "CHARGE=2-"), "negative_mode"),
        (block("PEPMASS=450.2", end=""), "unterminated"),
    ],
)
def test_a_damaged_mgf_spectrum_costs_only_itself(tmp_path, damaged, reason):
    good = block("PEPMASS=450.2", "CHARGE=2+")
    before, record, after = mgf(tmp_path, good + damaged + good)
    assert isinstance(record, SkippedSpectrum)
    assert (record.reason, record.identifier, record.index) == (reason, "index=1", 1)
    assert record.source.endswith("a.mgf")
    assert isinstance(before, Spectrum) and isinstance(after, Spectrum)
    assert after.identifier == "index=2"


def test_an_mgf_that_ends_early_tells_so(tmp_path):
    good = block("PEPMASS=450.2")
    _, last = mgf(tmp_path, good + block("TITLE=cut", "PEPMASS=450.2", end=""))
    assert (last.reason, last.title) == ("unterminated", "cut")
    _, last = mgf(tmp_path, good + "BEGIN IONS")
    assert last.reason == "unterminated"


@given(st.lists(st.integers(0, 5), min_size=1, max_size=30), st.integers(1, 400))
def test_blocks_are_found_wherever_the_stream_is_cut(tmp_path_factory, sizes, chunk):
    path = tmp_path_factory.mktemp("cut") / "a.mgf"
    peaks = ["".join(f"{100 + n}.5 {n + 1}\n" for n in range(size)) for size in sizes]
    path.write_text(
        "# head\n\n"
        + "\n\n".join(
            block(f"PEPMASS={450 + n}", peaks=one) for n, one in enumerate(peaks)
        )
    )
    # The head must lie in the first piece, as it does in the first MiB of a file.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(byte_streams.ByteStream.read, "__defaults__", (chunk + 30,))
        records = list(read_mgf(path))
    assert [r.precursor_mz for r in records] == [450.0 + n for n in range(len(sizes))]
    found = [len(r.mz) if isinstance(r, Spectrum) else 0 for r in records]
    assert found == sizes


def test_the_check_of_columns_is_needed():
    # Read as one stream of numbers, these lines would make three wrong peaks.
    text = b"100 1 200\n300 2\n400\n"
    assert len(text.split()) % 2 == 0
    with pytest.raises(ValueError, match="line 3"):
        parse_peaks(text)


def test_pyteomics_and_this_reader_agree_on_an_mgf(data_dir):
    path = data_dir / "peptides" / "massivekb_500.mgf.gz"
    ours = list(read_spectra(path))
    with gzip.open(path, "rt") as file:
        theirs = list(pyteomics.mgf.MGF(file, convert_arrays=1))
    assert len(ours) == len(theirs) == 488
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one.mz, other["m/z array"])
        np.testing.assert_array_equal(one.intensity, other["intensity array"])
        assert one.title == other["params"]["title"]
        assert one.peptide == other["params"]["seq"]
        assert one.precursor_mz == other["params"]["pepmass"][0]
        assert [one.charge] == [int(c) for c in other["params"]["charge"]]


def test_every_spectrum_of_the_training_file_is_read(data_dir):
    records = read_mgf(data_dir / "peptides" / "mass_simulator_experimental_hcd.mgf.gz")
    kinds = Counter((type(one), one.charge is None) for one in records)
    assert kinds == {(Spectrum, False): 4795}


def test_mgf_written_and_read_again_is_the_same(tmp_path, data_dir):
    source = data_dir / "peptides" / "pepnet_sample.mgf.gz"
    spectra = list(read_spectra(source))
    for name in ("copy.mgf", "copy.mgf.gz"):
        write_mgf(spectra, tmp_path / name)
        for one, other in zip(spectra, read_spectra(tmp_path / name), strict=True):
            np.testing.assert_array_equal(one.mz, other.mz)
            np.testing.assert_array_equal(one.intensity, other.intensity)
            for field in ("precursor_mz", "charge", "title", "peptide", "scan"):
                assert getattr(one, field) == getattr(other, field)
    again = tmp_path / "again.mgf.gz"
    write_mgf(spectra, again)
    assert again.read_bytes() == (tmp_path / "copy.mgf.gz").read_bytes()


# ------------------------------------------------------------------- mzML and mzXML


def test_three_formats_of_one_run_give_the_same_spectra(data_dir):
    folder = data_dir / "peptides"
    runs = [
        list(read_spectra(folder / f"format_TMT10-Trial-8.{kind}.gz", levels=(2, 3)))
        for kind in ("mgf", "mzML", "mzXML")
    ]
    assert [len(run) for run in runs] == [7, 7, 7]
    for of_mgf, *others in zip(*runs, strict=True):
        for other in others:
            assert other.precursor_mz == pytest.approx(of_mgf.precursor_mz, abs=1e-9)
            assert other.charge == of_mgf.charge
            assert other.retention_time == pytest.approx(
                of_mgf.retention_time, abs=1e-3
            )
            # The MGF file holds ten digits.
            np.testing.assert_allclose(other.mz, of_mgf.mz, rtol=0, atol=6e-7)
            np.testing.assert_allclose(other.intensity, of_mgf.intensity, rtol=1e-7)
    _, of_mzml, of_mzxml = runs
    assert [one.scan for one in of_mzml] == [501, 502, 504, 505, 507, 508, 510]
    assert [one.scan for one in of_mzxml] == [501, 502, 504, 505, 507, 508, 510]
    assert of_mzml[0].identifier == "controllerType=0 controllerNumber=1 scan=501"
    assert of_mzxml[0].identifier == "scan=501"
    assert [one.index for one in of_mzml] == [1, 2, 4, 5, 7, 8, 10]
    assert [one.index for one in of_mzxml] == [1, 2, 4, 5, 7, 8, 10]


@pytest.mark.parametrize("kind", ["mzML", "mzXML"])
def test_by_default_level_three_is_skipped_with_its_reason(data_dir, kind):
    path = data_dir / "peptides" / f"format_TMT10-Trial-8.{kind}.gz"
    records = list(read_spectra(path))
    kept = [one.scan for one in records if isinstance(one, Spectrum)]
    skipped = [one for one in records if isinstance(one, SkippedSpectrum)]
    assert kept == [501, 504, 507, 510]
    assert [one.scan for one in skipped] == [502, 505, 508]
    assert {one.reason for one in skipped} == {"ms_level"}


@pytest.mark.parametrize(
    ("name", "n_scans", "n_spectra"),
    [("yeast_qe_small", 142, 118), ("proteometools_pool1_small", 101, 94)],
)
def test_every_scan_is_accounted_for(data_dir, name, n_scans, n_spectra):
    path = data_dir / "peptides" / f"{name}.mzML.gz"
    records = list(read_spectra(path))
    assert len(records) == n_spectra
    assert all(isinstance(one, Spectrum) for one in records)
    surveys = [
        one for one in read_spectra(path, levels=(1,)) if one.reason != "ms_level"
    ]
    # A survey has no precursor, so it is read and then skipped for that.
    assert {one.reason for one in surveys} == {"missing_precursor"}
    assert sorted(one.index for one in [*records, *surveys]) == list(range(n_scans))


def test_mzml_agrees_with_the_annotated_copy(data_dir):
    folder = data_dir / "peptides"
    by_scan = {one.scan: one for one in read_spectra(folder / "yeast_qe_small.mzML.gz")}
    annotated = list(read_spectra(folder / "yeast_qe_small_annotated.mgf.gz"))
    assert len(annotated) == 65
    for one in annotated:
        other = by_scan[one.scan]
        mz = other.mz[other.intensity > 0]
        np.testing.assert_allclose(one.mz, mz, rtol=0, atol=6e-6)
        # Charges may differ: the copy has those of the identifications.
        assert other.retention_time == pytest.approx(one.retention_time, abs=1e-3)


class NoTypes:
    """A vocabulary that knows no types of values: pyteomics then reads numbers."""

    relationship: tuple = ()

    def __getitem__(self, _: str) -> "NoTypes":
        return self


@pytest.fixture
def pyteomics_mzml(monkeypatch):
    mzml = pytest.importorskip("pyteomics.mzml")
    xml = pytest.importorskip("pyteomics.xml")
    # It asks for the package psims only to type values.
    monkeypatch.setattr(xml, "_has_psims", True)
    return lambda file: mzml.MzML(file, use_index=False, cv=NoTypes())


@pytest.mark.parametrize(
    "name", ["yeast_qe_small", "proteometools_pool1_small", "format_TMT10-Trial-8"]
)
def test_pyteomics_and_this_reader_agree_on_mzml(data_dir, pyteomics_mzml, name):
    path = data_dir / "peptides" / f"{name}.mzML.gz"
    ours = list(read_spectra(path, levels=(2, 3)))
    with gzip.open(path) as file:
        theirs = [one for one in pyteomics_mzml(file) if one["ms level"] > 1]
    converted = list(read_spectra(theirs, levels=(2, 3)))
    assert len(ours) == len(theirs) == len(converted) > 0
    for one, other in zip(ours, converted, strict=True):
        np.testing.assert_array_equal(one.mz, other.mz)
        np.testing.assert_array_equal(one.intensity, other.intensity)
        for field in ("identifier", "index", "scan", "precursor_mz", "charge", "title"):
            assert getattr(one, field) == getattr(other, field)
        assert one.retention_time == pytest.approx(other.retention_time)


def packed(values, kind: str, compression: str) -> str:
    data = np.asarray(values, kind).tobytes()
    return base64.b64encode(
        zlib.compress(data) if compression == "zlib" else data
    ).decode()


TERMS = {
    "<f8": "MS:1000523",
    "<f4": "MS:1000521",
    "zlib": "MS:1000574",
    "none": "MS:1000576",
}


def term(accession: str, value: object = "") -> str:
    return f'<cvParam cvRef="MS" accession="{accession}" name="x" value="{value}"/>'


def mzml_spectrum(
    index: int = 0,
    *,
    mz=(100.0, 200.0),
    level: int = 2,
    kind: str = "<f8",
    compression: str = "zlib",
    head: str = "",
    ion: str = "",
    length: int | None = None,
    binary: str | None = None,
    extra: str = "",
) -> str:
    precursor = (
        "<precursorList><precursor><selectedIonList><selectedIon>"
        f"{ion or term('MS:1000744', 450.25) + term('MS:1000041', 2)}"
        "</selectedIon></selectedIonList></precursor></precursorList>"
    )
    arrays = "".join(
        f"<binaryDataArray>{term(TERMS[kind])}{term(TERMS[compression])}{term(array)}"
        f"{extra}<binary>"
        f"{packed(values, kind, compression) if binary is None else binary}"
        "</binary></binaryDataArray>"
        for array, values in (("MS:1000514", mz), ("MS:1000515", range(1, len(mz) + 1)))
    )
    return (
        f'<spectrum index="{index}" id="scan={index + 1}" '
        f'defaultArrayLength="{len(mz) if length is None else length}">'
        f"{term('MS:1000511', level)}{head}{precursor}"
        f"<binaryDataArrayList>{arrays}</binaryDataArrayList></spectrum>"
    )


def mzml(
    *spectra: str, prolog: str = "", namespace: bool = True, head: str = ""
) -> str:
    space = ' xmlns="http://psi.hupo.org/ms/mzml"' if namespace else ""
    return (
        f'<?xml version="1.0"?>{prolog}<mzML{space}>{head}<run><spectrumList>'
        f"{''.join(spectra)}</spectrumList></run></mzML>"
    )


def read_text(tmp_path: Path, text: str, name: str = "a.mzML", **options) -> list:
    path = tmp_path / name
    path.write_bytes(text.encode())
    return list(read_spectra(path, **options))


@pytest.mark.parametrize("kind", ["<f4", "<f8"])
@pytest.mark.parametrize("compression", ["none", "zlib"])
@pytest.mark.parametrize("namespace", [True, False])
def test_mzml_arrays_in_every_packing(tmp_path, kind, compression, namespace):
    text = mzml(mzml_spectrum(kind=kind, compression=compression), namespace=namespace)
    (spectrum,) = read_text(tmp_path, text)
    np.testing.assert_array_equal(spectrum.mz, [100.0, 200.0])
    np.testing.assert_array_equal(spectrum.intensity, [1.0, 2.0])
    assert (spectrum.precursor_mz, spectrum.charge) == (450.25, 2)


def test_mzml_terms_may_stand_in_groups(tmp_path):
    head = (
        '<referenceableParamGroupList><referenceableParamGroup id="g">'
        f"{term('MS:1000128')}{term('MS:1000511', 2)}</referenceableParamGroup>"
        "</referenceableParamGroupList>"
    )
    spectrum = mzml_spectrum(head='<referenceableParamGroupRef ref="g"/>')
    text = mzml(spectrum.replace(term("MS:1000511", 2), ""), head=head)
    (found,) = read_text(tmp_path, text)
    assert found.is_profile


def test_mzml_charges_and_precursors_in_every_form(tmp_path):
    possible = term("MS:1000744", 500) + term("MS:1000633", 2) + term("MS:1000633", 3)
    spectra = [
        mzml_spectrum(0, ion=possible),
        mzml_spectrum(1, ion=term("MS:1000744", 500) + term("MS:1000633", 3)),
        mzml_spectrum(2, ion=term("MS:1000744", 500)),
    ]
    several, one, none = read_text(tmp_path, mzml(*spectra))
    assert (several.charge, several.charges) == (None, (2, 3))
    assert (one.charge, one.charges) == (3, ())
    assert (none.charge, none.charges) == (None, ())


@pytest.mark.parametrize(
    ("damaged", "reason"),
    [
        (mzml_spectrum(1, mz=()), "no_peaks"),
        (mzml_spectrum(1, mz=(-100.0, 200.0)), "malformed_peaks"),
        (mzml_spectrum(1, mz=(float("nan"), 200.0)), "malformed_peaks"),
        (mzml_spectrum(1, length=3), "malformed_peaks"),
        (mzml_spectrum(1, length=1), "malformed_peaks"),
        (mzml_spectrum(1, binary="%%%="), "malformed_peaks"),
        (mzml_spectrum(1, binary="AAAA"), "malformed_peaks"),
        (mzml_spectrum(1, ion=term("MS:1000041", 2)), "missing_precursor"),
        (mzml_spectrum(1, level=3), "ms_level"),
        (mzml_spectrum(1, head=term("MS:1000129")), "negative_mode"),
        (
            mzml_spectrum(1).replace(TERMS["zlib"], "MS:1002312"),
            "encoding",
        ),
        (mzml_spectrum(1).replace("MS:1000514", "MS:1000516"), "no_peaks"),
    ],
)
def test_a_damaged_mzml_spectrum_costs_only_itself(tmp_path, damaged, reason):
    text = mzml(mzml_spectrum(0), damaged, mzml_spectrum(2))
    before, record, after = read_text(tmp_path, text)
    assert isinstance(record, SkippedSpectrum)
    assert (record.reason, record.identifier, record.index) == (reason, "scan=2", 1)
    assert isinstance(before, Spectrum) and isinstance(after, Spectrum)
    assert after.identifier == "scan=3"


def test_packed_arrays_do_not_grow_beyond_what_is_stated(tmp_path):
    bomb = base64.b64encode(zlib.compress(bytes(2**26), 9)).decode()
    text = mzml(mzml_spectrum(0, binary=bomb))
    tracemalloc.start()
    (record,) = read_text(tmp_path, text)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert record.reason == "malformed_peaks"
    assert peak < 2**24


def mzxml(*scans: str) -> str:
    return f'<?xml version="1.0"?><mzXML><msRun>{"".join(scans)}</msRun></mzXML>'


def mzxml_scan(
    number: int,
    inner: str = "",
    *,
    level: int = 2,
    precision: int = 32,
    compression: str = "zlib",
    count: int = 2,
    attributes: str = "",
) -> str:
    pairs = packed([100, 1, 200, 2], f">f{precision // 8}", compression)
    ion = '<precursorMz precursorCharge="2">450.25</precursorMz>' if level > 1 else ""
    return (
        f'<scan num="{number}" msLevel="{level}" peaksCount="{count}" '
        f'retentionTime="PT1M4.5S" {attributes}>{ion}'
        f'<peaks precision="{precision}" compressionType="{compression}">{pairs}'
        f"</peaks>{inner}</scan>"
    )


@pytest.mark.parametrize("precision", [32, 64])
@pytest.mark.parametrize("compression", ["none", "zlib"])
def test_mzxml_peaks_in_every_packing(tmp_path, precision, compression):
    scan = mzxml_scan(7, precision=precision, compression=compression)
    (spectrum,) = read_text(tmp_path, mzxml(scan), "a.mzXML")
    np.testing.assert_array_equal(spectrum.mz, [100.0, 200.0])
    assert spectrum.identifier == "scan=7"
    assert spectrum.retention_time == 64.5
    assert (spectrum.precursor_mz, spectrum.charge) == (450.25, 2)


def test_mzxml_scans_within_scans_keep_their_places(tmp_path):
    nested = mzxml_scan(1, mzxml_scan(2) + mzxml_scan(3), level=1) + mzxml_scan(4)
    records = read_text(tmp_path, mzxml(nested), "a.mzXML")
    assert [(one.identifier, one.index) for one in records] == [
        ("scan=2", 1),
        ("scan=3", 2),
        ("scan=4", 3),
    ]
    assert all(isinstance(one, Spectrum) for one in records)


@pytest.mark.parametrize(
    ("scan", "reason"),
    [
        (mzxml_scan(2, count=3), "malformed_peaks"),
        (mzxml_scan(2, count=3).replace('"3"', '"²"'), "no_peaks"),
        (mzxml_scan(2).replace('"zlib"', '"lzma"'), "encoding"),
        (mzxml_scan(2, attributes='polarity="-"'), "negative_mode"),
        (mzxml_scan(2, level=3), "ms_level"),
        (mzxml_scan(2).replace(">450.25<", "><"), "missing_precursor"),
    ],
)
def test_a_damaged_mzxml_scan_costs_only_itself(tmp_path, scan, reason):
    records = read_text(tmp_path, mzxml(mzxml_scan(1), scan, mzxml_scan(3)), "a.mzXML")
    assert [getattr(one, "reason", "") for one in records] == ["", reason, ""]


def test_mzxml_profile_mode_is_told(tmp_path):
    scans = mzxml_scan(1, attributes='centroided="0"'), mzxml_scan(2)
    records = read_text(tmp_path, mzxml(*scans), "a.mzXML")
    assert [one.is_profile for one in records] == [True, False]


# ------------------------------------------------------------------------ safety

LAUGHS = (
    '<!DOCTYPE lolz [<!ENTITY a "lol">'
    + "".join(
        f'<!ENTITY {name} "{f"&{before};" * 10}">'
        for before, name in zip("abcdefgh", "bcdefghi", strict=True)
    )
    + "]>"
)
OUTSIDE = '<!DOCTYPE x [<!ENTITY out SYSTEM "file:///etc/hostname">]>'


@pytest.mark.parametrize("prolog", [LAUGHS, OUTSIDE, "<!DOCTYPE mzML>"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize("name", ["a.mzML", "a.mzXML"])
def test_document_types_are_refused(tmp_path, prolog, encoding, name):
    body = mzml(mzml_spectrum(), prolog=prolog, head="<x>&i;&out;</x>")
    text = body.replace('version="1.0"', f'version="1.0" encoding="{encoding}"')
    path = tmp_path / name
    path.write_bytes(text.encode(encoding))
    with pytest.raises(UnsafeFileError, match="document type"):
        list(read_spectra(path))


def test_a_document_type_behind_a_long_comment_is_refused(tmp_path):
    comment = f"<!-- {'x' * 2**20} -->"
    text = mzml(mzml_spectrum(), prolog=comment + LAUGHS)
    with pytest.raises((UnsafeFileError, FileFormatError)):
        read_text(tmp_path, text)


def test_nesting_without_end_is_refused(tmp_path):
    deep = mzml(mzml_spectrum(), head="<a>" * 100_000 + "</a>" * 100_000)
    with pytest.raises(UnsafeFileError, match="deep"):
        read_text(tmp_path, deep)


@pytest.mark.parametrize(
    ("name", "start", "filling"),
    [
        ("a.mzML", mzml(mzml_spectrum()).partition("</spectrum>")[0], "<a/>"),
        ("a.mgf", "BEGIN IONS\nPEPMASS=450\n", "100 1\n"),
        ("a.msp", "Name: PEPTIDE/2\nNum peaks: 1\n", "100 1\n"),
    ],
)
def test_a_spectrum_without_end_is_refused(tmp_path, monkeypatch, name, start, filling):
    monkeypatch.setattr(byte_streams, "LIMIT", 2**20)
    path = tmp_path / f"{name}.gz"
    with gzip.open(path, "wt") as file:
        file.write(start + filling * 2**19)
    with pytest.raises(UnsafeFileError, match="one spectrum takes more"):
        list(read_spectra(path))


@pytest.mark.parametrize("name", ["a.mgf", "a.mzML", "a.mzXML", "a.msp"])
@pytest.mark.parametrize(
    "content",
    [b"", b"\n\n", b"time,value\n1,2\n", b"\x00\x01\x02" * 99, b"<html></html>", b"{}"],
)
def test_what_is_no_spectrum_file_is_refused(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(FileFormatError):
        list(read_spectra(path))


@pytest.mark.parametrize("name", ["a.mzML", "a.mzXML"])
def test_an_xml_file_cut_short_is_refused_after_its_whole_spectra(tmp_path, name):
    text = (
        mzml(mzml_spectrum(0), mzml_spectrum(1))
        if name == "a.mzML"
        else mzxml(mzxml_scan(1), mzxml_scan(2))
    )
    path = tmp_path / name
    path.write_text(text[: int(0.8 * len(text))])
    reading = read_spectra(path)
    assert isinstance(next(reading), Spectrum)
    with pytest.raises(FileFormatError, match="cut short"):
        next(reading)


def test_compressed_data_cut_short_are_refused(tmp_path):
    data = gzip.compress(block("PEPMASS=450.2").encode() * 10)
    path = tmp_path / "a.mgf.gz"
    path.write_bytes(data[:-12])
    with pytest.raises(FileFormatError, match="cut short"):
        list(read_spectra(path))


def test_gzip_is_known_by_its_bytes(tmp_path):
    path = tmp_path / "a.mgf"
    path.write_bytes(gzip.compress(block("PEPMASS=450.2").encode()))
    assert len(list(read_spectra(path))) == 1
    plain = tmp_path / "b.mgf.gz"
    plain.write_text(block("PEPMASS=450.2"))
    assert len(list(read_spectra(plain))) == 1


SAMPLES = {
    "a.mgf": block("TITLE=t", "PEPMASS=450.2 9", "CHARGE=2+", "RTINSECONDS=1") * 3,
    "a.msp": "Name: PEPTIDE/2\nComment: Parent=400.2 Mods=1/1,E,Acetyl\n"
    "Num peaks: 1\n100 1\n\n" * 3,
    "a.mzML": mzml(*[mzml_spectrum(n, compression="none") for n in range(3)]),
    "a.mzXML": mzxml(*[mzxml_scan(n, compression="none") for n in range(3)]),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_any_damage_gives_records_or_a_named_error(tmp_path, name):
    rng = np.random.default_rng(20)
    sample = SAMPLES[name].encode()
    path = tmp_path / name
    outcomes = Counter()
    for _ in range(300):
        data = bytearray(sample)
        for _ in range(rng.integers(1, 6)):
            at = int(rng.integers(len(data)))
            kind = rng.integers(3)
            if kind == 0:
                data[at] = rng.integers(256)
            elif kind == 1:
                del data[at : at + int(rng.integers(1, 30))]
            else:
                data[at:at] = data[at // 2 : at // 2 + int(rng.integers(1, 30))]
        path.write_bytes(data)
        try:
            records = list(read_spectra(path))
        except (FileFormatError, UnsafeFileError) as error:
            outcomes[type(error)] += 1
        else:
            outcomes.update(type(one) for one in records)
    # Each kind of outcome must have come up, or the test tries too little.
    assert {Spectrum, SkippedSpectrum, FileFormatError} - set(outcomes) <= (
        {FileFormatError} if name in {"a.mgf", "a.msp"} else set()
    )


# ------------------------------------------------------------------------ memory


def peak_memory(path: Path) -> int:
    tracemalloc.start()
    for _ in read_spectra(path):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


@pytest.mark.parametrize("name", ["a.mgf", "a.msp", "a.mzML", "a.mzXML"])
def test_memory_does_not_grow_with_the_number_of_spectra(tmp_path, name, monkeypatch):
    # Small files will do when the pieces that are read at once are small.
    monkeypatch.setattr(byte_streams.ByteStream.read, "__defaults__", (2**14,))
    monkeypatch.setattr(guarded_xml, "_PROLOG", 2**12)
    peaks = "".join(f"{100 + n}.5 {n + 1}\n" for n in range(40))
    one = {
        "a.mgf": block("PEPMASS=450.2", peaks=peaks),
        "a.msp": f"Name: PEPTIDE/2\nComment: Parent=400.2\nNum peaks: 40\n{peaks}\n",
        "a.mzML": mzml_spectrum(mz=np.linspace(100, 900, 40)),
        "a.mzXML": mzxml_scan(1),
    }[name]
    peaks_of = {}
    for n in (150, 600):
        texts = {"a.mzML": mzml, "a.mzXML": mzxml}
        wrap = texts.get(name, lambda *spectra: "".join(spectra))
        path = tmp_path / name
        path.write_text(wrap(*[one] * n))
        peaks_of[n] = peak_memory(path)
    assert peaks_of[600] < 1.2 * peaks_of[150] + 2**14


def largest_tree(tmp_path: Path, n_spectra: int, forget, monkeypatch) -> int:
    """Return how many elements stand side by side at most while a file is read."""
    sizes = []

    def counting(element):
        forget(element)
        sizes.append(len(element.getparent()))

    with monkeypatch.context() as patch:
        patch.setattr(mzml_files, "_forget", counting)
        read_text(tmp_path, mzml(*[mzml_spectrum(n) for n in range(n_spectra)]))
    return max(sizes)


def test_the_tree_of_an_xml_file_does_not_grow(tmp_path, monkeypatch):
    # lxml allocates outside of Python's sight, so the elements are counted. It reads
    # 32 KiB ahead, which is some 40 of these spectra.
    good, bad = mzml_files._forget, lambda element: element.clear()
    assert largest_tree(tmp_path, 200, good, monkeypatch) < 60
    assert largest_tree(tmp_path, 400, good, monkeypatch) < 60
    assert largest_tree(tmp_path, 400, bad, monkeypatch) == 400


# --------------------------------------------------------------------------- MSP


def test_all_three_libraries_are_read(data_dir):
    folder = data_dir / "peptides"
    sizes = {
        "nist_bsa_consensus_iontrap": 725,
        "ftms_hcd20_annotated_82": 82,
        "cptac_consensus_head": 20,
    }
    for name, size in sizes.items():
        records = list(read_spectra(folder / f"{name}.msp.gz"))
        assert len(records) == size
        assert [one.index for one in records] == list(range(size))
        assert all(isinstance(one, Spectrum) and one.charge for one in records)


def test_msp_fields(data_dir):
    path = data_dir / "peptides" / "nist_bsa_consensus_iontrap.msp.gz"
    first = next(read_spectra(path))
    assert first.title == "AADDKEACFAVEGPK/3"
    assert first.peptide == "AADDKEAC[Carbamidomethyl]FAVEGPK"
    assert (first.charge, first.precursor_mz) == (3, 536.584)
    assert len(first.mz) == 110
    assert (first.mz[0], first.intensity[0]) == (175.2, 139.0)
    cluster = next(read_spectra(path.with_name("cptac_consensus_head.msp.gz")))
    assert (cluster.charge, cluster.precursor_mz) == (2, 582.3537)
    assert cluster.peptide is None


@pytest.mark.parametrize(
    ("name", "mods", "peptide"),
    [
        ("PEPTMIDE/2", "Mods=0", "PEPTMIDE"),
        ("PEPTMIDE/2", "Mods=1/4,M,Oxidation", "PEPTM[Oxidation]IDE"),
        ("PEPTMIDE/2", "Mods=1/0,P,Acetyl", "[Acetyl]-PEPTMIDE"),
        ("PEPTMIDE/2", "Mods=1/-1,P,Acetyl", "[Acetyl]-PEPTMIDE"),
        ("QEPC/2", "Mods=2/0,Q,Gln->pyro-Glu/3,C,CAM",
         "Q[Gln->pyro-Glu]EPC[Carbamidomethyl]"),
        ("PEPTMIDE/2_1(4,M,Oxidation)", "Mods=1(4,M,Oxidation)", "PEPTM[Oxidation]IDE"),
        ("PEPTM(O)IDE/2", "Mods=1/4,M,Oxidation", "PEPTM[Oxidation]IDE"),
        ("PEPTM(O)IDE/2", "", None),
        ("glucose/2", "Mods=0", None),
    ],
)  # fmt: skip
def test_msp_modifications(tmp_path, name, mods, peptide):
    text = f"NAME: {name}\nComment: Parent=400.2 {mods}\nNum Peaks: 1\n100 1\n\n"
    (spectrum,) = read_text(tmp_path, text, "a.msp")
    assert spectrum.peptide == peptide


def test_msp_several_peaks_in_a_line(tmp_path):
    text = "Name: x\nPrecursorMZ: 300.5\nNum Peaks: 3\n100 1; 200 2;\n250 3\n"
    (spectrum,) = read_text(tmp_path, text, "a.msp")
    np.testing.assert_array_equal(spectrum.mz, [100.0, 200.0, 250.0])
    assert spectrum.precursor_mz == 300.5


@pytest.mark.parametrize(
    ("damaged", "reason"),
    [
        ("Name: A/2\nComment: Parent=400\nNum peaks: 2\n100 1\n\n", "malformed_peaks"),
        ("Name: A/2\nComment: Parent=400\nNum peaks: 1\nx y\n\n", "malformed_peaks"),
        ("Name: A/2\nComment: Parent=400\n\n", "malformed_peaks"),
        ("Name: A/2\nComment: Parent=400\nNum peaks: 0\n\n", "no_peaks"),
        ("Name: A/2\nNum peaks: 1\n100 1\n\n", "missing_precursor"),
    ],
)
def test_a_damaged_msp_spectrum_costs_only_itself(tmp_path, damaged, reason):
    good = "Name: A/2\nComment: Parent=400\nNum peaks: 1\n100 1\n\n"
    records = read_text(tmp_path, good + damaged + good, "a.msp")
    assert [getattr(one, "reason", "") for one in records] == ["", reason, ""]
    assert records[1].identifier == "index=1"


# ------------------------------------------------------------------ other sources


def test_sources_can_be_mixed(tmp_path):
    path = tmp_path / "a.mgf"
    path.write_text(block("PEPMASS=450.2") * 2)
    spectrum = Spectrum([100.0], [1.0], 451.0, identifier="mine")
    skipped = SkippedSpectrum("profile", "it is")
    found = list(read_spectra([path, spectrum, skipped, str(path)]))
    assert [one.identifier for one in found] == [
        "index=0",
        "index=1",
        "mine",
        "",
        "index=0",
        "index=1",
    ]
    assert found[2] is spectrum and found[3] is skipped
    assert list(read_spectra(spectrum)) == [spectrum]
    assert list(read_spectra(iter([spectrum]))) == [spectrum]


def test_pyteomics_dicts(tmp_path):
    path = tmp_path / "a.mgf"
    path.write_text(
        block("TITLE=t", "PEPMASS=450.2 9", "CHARGE=2+ and 3+", "RTINSECONDS=5",
              "SCANS=7", "SEQ=PEPTIDE")
        + block("PEPMASS=450.2", "CHARGE=2-")
    )  # fmt: skip
    with pyteomics.mgf.MGF(str(path)) as reader:
        spectrum, negative = read_spectra(reader)
    (ours, _) = read_mgf(path)
    for name in ("charges", "title", "peptide", "scan", "retention_time", "identifier"):
        assert getattr(spectrum, name) == getattr(ours, name)
    assert negative.reason == "negative_mode"
    mzxml_dict = {
        "m/z array": [100.0],
        "intensity array": [1.0],
        "num": "17",
        "msLevel": 2,
        "retentionTime": 1.5,
        "precursorMz": [{"precursorMz": 450.2, "precursorCharge": 3}],
    }
    (of_mzxml,) = read_spectra([mzxml_dict])
    assert (of_mzxml.identifier, of_mzxml.charge) == ("scan=17", 3)
    assert of_mzxml.retention_time == 90.0
    assert list(read_spectra([mzxml_dict | {"msLevel": 1}])) == []
    (third,) = read_spectra([mzxml_dict | {"msLevel": 3}])
    assert third.reason == "ms_level"
    peaks = {"m/z array": [100.0], "intensity array": [1.0]}
    for params in ({"charge": "two"}, {"charge": 2}, {"pepmass": ("x", None)}):
        (record,) = read_spectra([peaks | {"params": params}])
        assert record.reason == "malformed_header"
    with pytest.raises(InputError, match="m/z array"):
        list(read_spectra([{"intensity array": [1.0]}]))


def test_data_frames():
    frame = pd.DataFrame(
        {
            "mz": [[200.0, 100.0], np.array([1.0]), np.array([])],
            "intensity": [[1.0, 2.0], np.array([1.0]), np.array([])],
            "precursor_mz": [450.2, np.nan, 450.2],
            "charge": [2.0, 3.0, np.nan],
            "peptide": ["PEPTIDE", None, None],
        }
    )
    first, second, third = read_spectra(frame)
    np.testing.assert_array_equal(first.mz, [100.0, 200.0])
    assert (first.charge, first.identifier, first.peptide) == (2, "index=0", "PEPTIDE")
    assert isinstance(first.charge, int)
    assert second.reason == "missing_precursor"
    assert (third.reason, third.charge) == ("no_peaks", None)
    named = frame.head(1).assign(identifier="scan=5", source="x.raw")
    (one,) = read_spectra(named)
    assert (one.identifier, one.source) == ("scan=5", "x.raw")
    with pytest.raises(InputError, match="'precursor_mz'"):
        list(read_spectra(frame.drop(columns="precursor_mz")))


def test_wrong_sources_are_refused_at_the_call(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_spectra(tmp_path / "a.mgf")
    with pytest.raises(FileFormatError, match=r"\.mzML"):
        read_spectra(tmp_path / "a.mzm")
    with pytest.raises(FileFormatError, match=r"\.raw"):
        read_spectra([tmp_path / "a.raw"])
    for wrong in (3, None, b"a.mgf"):
        with pytest.raises(InputTypeError):
            read_spectra(wrong)


# ------------------------------------------------------------------------ speed


@pytest.mark.slow
def test_thousands_of_spectra_a_second_and_core(data_dir):
    import time

    path = data_dir / "peptides" / "mass_simulator_experimental_hcd.mgf.gz"
    times = []
    for _ in range(3):
        start = time.process_time()
        n_spectra = sum(1 for _ in mgf_files.read_mgf(path))
        times.append(time.process_time() - start)
    # Half of what a core does, so that a busy machine does not fail.
    assert n_spectra / min(times) > 2500
