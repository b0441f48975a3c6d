"""Reading FASTA, cutting proteins, sampling peptides."""

import gzip
import re
import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sciseq.errors import FileFormatError, InputError, UnsafeFileError
from sciseq.sequencing import digestion
from sciseq.sequencing.digestion import (
    ENZYMES,
    Digestion,
    FastaEntry,
    count_missed_cleavages,
    digest,
    peptides_of,
    read_fasta,
    sample_peptides,
)

PROTEINS = st.lists(st.text("ACDEFGHIKLMNPQRSTVWYX", max_size=60), max_size=5)


def written(folder: Path, text: str, *, compressed: bool = False) -> Path:
    file = folder / "some.fasta"
    data = text.encode("utf-8")
    file.write_bytes(gzip.compress(data) if compressed else data)
    return file


@pytest.mark.parametrize("compressed", [False, True])
def test_fasta_is_read_plain_and_gzip(tmp_path: Path, compressed: bool) -> None:
    text = ">P1 first\r\nMKA\r\nLGG\r\n\r\n;a remark\n>P2\nmkw*\n>empty\n"
    assert list(read_fasta(written(tmp_path, text, compressed=compressed))) == [
        FastaEntry("P1 first", "MKALGG"),
        FastaEntry("P2", "MKW"),
        FastaEntry("empty", ""),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no entry"),
        ("MKAL\n", "before the first"),
        ("BEGIN IONS\nPEPMASS=1\n", "before the first"),
        (">P1\nMK1L\n", "'1' is no residue"),
        (">P1\nMK L\n", "' ' is no residue"),
    ],
)
def test_files_that_are_no_fasta_are_refused(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(FileFormatError, match=message) as caught:
        list(read_fasta(written(tmp_path, text)))
    assert "some.fasta" in str(caught.value)


def test_damaged_compression_is_named(tmp_path: Path) -> None:
    file = written(tmp_path, ">P1\n" + "MKAL" * 1000, compressed=True)
    file.write_bytes(file.read_bytes()[:-12])
    with pytest.raises(FileFormatError, match="damaged"):
        list(read_fasta(file))


@pytest.mark.parametrize("line_break", ["", "\n"])
def test_an_endless_sequence_is_refused_in_little_memory(
    tmp_path: Path, line_break: str
) -> None:
    text = ">P1\n" + ("A" * 60 + line_break) * 700_000
    file = written(tmp_path, text, compressed=True)
    assert file.stat().st_size < 200_000
    del text
    tracemalloc.start()
    with pytest.raises(UnsafeFileError, match="more than"):
        list(read_fasta(file))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16e6  # the file unpacks to 42 MB


@pytest.mark.parametrize(
    ("enzyme", "sequence", "expected"),
    [
        ("trypsin", "AKPGRGKA", ["AKPGR", "GK", "A"]),
        ("trypsin/p", "AKPGRGKA", ["AK", "PGR", "GK", "A"]),
        ("lys-c", "AKGRKPA", ["AK", "GRKPA"]),
        ("lys-c/p", "AKGRKPA", ["AK", "GRK", "PA"]),
        ("lys-n", "AKGRKPA", ["A", "KGR", "KPA"]),
        ("arg-c", "AKGRARPA", ["AKGR", "ARPA"]),
        ("asp-n", "ADGED", ["A", "DGE", "D"]),
        ("glu-c", "WDGEAEPD", ["WDGE", "AEPD"]),
        ("glu-c/de", "ADGEAEPD", ["AD", "GE", "AEPD"]),
        ("chymotrypsin", "AFGLPYW", ["AF", "GLPY", "W"]),
        ("chymotrypsin/high", "AFGLLY", ["AF", "GLLY"]),
        ("cnbr", "MAMA", ["M", "AM", "A"]),
        ("none", "AKGR", ["AKGR"]),
    ],
)
def test_enzymes_cut_where_they_should(
    enzyme: str, sequence: str, expected: list[str]
) -> None:
    rule = Digestion(enzyme, missed_cleavages=0, shortest=1)
    assert list(digest(sequence, rule)) == expected


def test_unspecific_digestion_gives_every_window() -> None:
    rule = Digestion("unspecific", 0, shortest=2, longest=3)
    assert list(digest("WGSV", rule)) == ["WG", "WGS", "GS", "GSV", "SV"]


def test_isoleucine_is_kept_or_read_as_leucine() -> None:
    assert peptides_of(["AIK", "ALK"], Digestion(shortest=3)) == ["AIK", "ALK"]
    assert peptides_of(["AIK", "ALK"], Digestion(shortest=3, leucine=True)) == ["ALK"]


@given(
    PROTEINS, st.integers(0, 3), st.integers(1, 8), st.integers(0, 20), st.booleans()
)
def test_digestion_equals_the_definition(
    proteins: list[str], missed: int, shortest: int, more: int, leucine: bool
) -> None:
    rule = Digestion("trypsin", missed, shortest, shortest + more, leucine)
    assert peptides_of(proteins, rule) == slow_peptides(proteins, rule)


def slow_peptides(proteins: list[str], rule: Digestion) -> list[str]:
    """Try every window of every protein."""
    found = set()
    for protein in proteins:
        text = protein.replace("I", "L") if rule.leucine else protein
        for start in range(len(text)):
            for end in range(start + rule.shortest, len(text) + 1):
                window = text[start:end]
                sites = [is_cut(text, place) for place in range(start + 1, end)]
                if (
                    len(window) <= rule.longest
                    and "X" not in window
                    and sum(sites) <= rule.missed_cleavages
                    and (start == 0 or is_cut(text, start))
                    and (end == len(text) or is_cut(text, end))
                ):
                    found.add(window)
    return sorted(found)


def is_cut(text: str, place: int) -> bool:
    return text[place - 1] in "KR" and text[place : place + 1] != "P"


def test_a_rule_that_forgets_proline_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    rule, proteins = Digestion(shortest=1), ["AKPG"]
    monkeypatch.setattr(digestion, "ENZYMES", {"trypsin": ENZYMES["trypsin/p"]})
    assert peptides_of(proteins, rule) != slow_peptides(proteins, rule)


@given(st.text("AGKRP", min_size=1, max_size=30))
def test_missed_cleavages_are_counted_as_digestion_makes_them(sequence: str) -> None:
    for missed in range(3):
        few = set(digest(sequence, Digestion("trypsin", missed, 1, 99)))
        assert max(map(count_missed_cleavages, few)) <= missed
        more = set(digest(sequence, Digestion("trypsin", missed + 1, 1, 99))) - few
        assert {count_missed_cleavages(peptide) for peptide in more} <= {missed + 1}


def test_the_sample_does_not_depend_on_order_and_repeats() -> None:
    proteins = [f"{letter}{letter}GGAAK" for letter in "ACDEFGHLMNQSTVWY"]
    one = sample_peptides(proteins, 5, np.random.default_rng(3))
    same = sample_peptides(
        (protein for protein in reversed([*proteins, *proteins[:9]])),
        5,
        np.random.default_rng(3),
    )
    assert one == same
    assert len(set(one)) == 5
    assert set(one) < set(peptides_of(proteins))
    assert one != sample_peptides(proteins, 5, np.random.default_rng(4))
    assert sample_peptides(proteins, 99, np.random.default_rng(3)) == peptides_of(
        proteins
    )


def test_every_peptide_is_equally_likely() -> None:
    # The first peptide occurs fifty times as often as the others.
    proteins = ["CCGGAAK"] * 50 + [f"{letter}{letter}GGAAK" for letter in "DEFGHLMNQS"]
    counts = Counter(
        peptide
        for seed in range(1100)
        for peptide in sample_peptides(proteins, 1, np.random.default_rng(seed))
    )
    assert len(counts) == 11
    # 100 expected of each, standard deviation 9.5.
    assert all(60 < count < 140 for count in counts.values())
    assert abs(counts["CCGGAAK"] - 100) < 40


def test_a_plain_reservoir_would_be_caught() -> None:
    proteins = ["CCGGAAK"] * 50 + [f"{letter}{letter}GGAAK" for letter in "DEFGHLMNQS"]
    rng = np.random.default_rng(0)
    chosen = Counter(proteins[int(rng.integers(60))] for _ in range(1100))
    assert chosen["CCGGAAK"] > 140


def test_a_sample_holds_no_more_than_it_needs() -> None:
    rule = Digestion("unspecific", 0, 8, 12)

    def peak(n_proteins: int) -> int:
        letters = np.random.default_rng(0).choice(list("ACDEFGHLMN"), (n_proteins, 100))
        stream = ("".join(row) for row in letters)
        tracemalloc.start()
        sample_peptides(stream, 50, np.random.default_rng(0), rule)
        result = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return result

    assert peak(80) < peak(10) + 20_000  # 36 000 peptides against 4500


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (Digestion("tripsin"), "Did you mean 'trypsin'"),
        (Digestion(shortest=9, longest=8), "9 to 8"),
        (Digestion(shortest=0), "0 to 40"),
        (Digestion(missed_cleavages=-1), "-1"),
    ],
)
def test_wrong_rules_are_refused(rule: Digestion, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        list(digest("AKGR", rule))
    with pytest.raises(InputError, match=re.escape(message)):
        peptides_of([], rule)


def test_an_empty_sample_is_refused() -> None:
    with pytest.raises(InputError, match="n is 0"):
        sample_peptides(["AAAAAAK"], 0, np.random.default_rng(0))


def test_a_real_proteome(data_dir: Path) -> None:
    file = data_dir / "peptides" / "fasta_mouse_casanovo_subset.fasta.gz"
    entries = list(read_fasta(file))
    assert len(entries) == 148
    peptides = peptides_of(file, Digestion(missed_cleavages=0))
    text = "".join(entry.sequence for entry in entries)
    assert all(peptide in text for peptide in peptides)
    assert all(6 <= len(peptide) <= 40 for peptide in peptides)
    assert len(peptides) > 5000
    assert sum(peptide[-1] in "KR" for peptide in peptides) > 0.97 * len(peptides)
