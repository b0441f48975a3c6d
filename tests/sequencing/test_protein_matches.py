"""Peptides in proteins: places against a plain scan, coverage, and what is read."""

import gzip
import re
import tracemalloc

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sciseq.errors import FileFormatError, InputError, InputTypeError
from sciseq.sequencing import peptide_index, protein_matches
from sciseq.sequencing.digestion import (
    ENZYMES,
    Digestion,
    digest,
    read_fasta,
    sample_peptides,
)
from sciseq.sequencing.peptide_index import PeptideIndex, fold
from sciseq.sequencing.protein_matches import bare_sequence, match_proteins

# Few letters, so that there are matches; I, J and L count as one.
PROTEINS = st.lists(st.text("AIJLKM*-", max_size=30), max_size=5)
PEPTIDES = st.lists(st.text("AILKM", min_size=1, max_size=13), max_size=6)


def write(folder, proteins, name="some.fasta"):
    """A FASTA file of proteins, named P0, P1 and so on where they have no name."""
    if not isinstance(proteins, dict):
        proteins = {f"P{row}": one for row, one in enumerate(proteins)}
    path = folder / name
    path.write_text("".join(f">{key}\n{one}\n" for key, one in proteins.items()))
    return path


def plain_scan(peptides, proteins):
    """The places of peptides, letter by letter."""
    return [
        (row, start, number)
        for row, protein in enumerate(proteins)
        for start in range(len(protein))
        for number, peptide in enumerate(peptides)
        if fold(protein)[start : start + len(peptide)] == fold(peptide)
    ]


def flat(index, proteins):
    return [(row, *place) for row, places in index.find(proteins) for place in places]


# --- the index ------------------------------------------------------------------------


@given(PEPTIDES, PROTEINS)
def test_the_index_finds_what_a_plain_scan_finds(peptides, proteins) -> None:
    peptides = list(dict.fromkeys(map(fold, peptides)))
    found = flat(PeptideIndex(peptides), proteins)
    assert found == plain_scan(peptides, proteins)


def test_letters_behind_the_seed_are_compared() -> None:
    seed = "ACDEFGHK"
    index = PeptideIndex([f"{seed}MM", f"{seed}MW", seed])
    assert flat(index, [f"{seed}MW"]) == [(0, 0, 1), (0, 0, 2)]


def test_an_index_that_forgets_a_rule_is_caught(monkeypatch) -> None:
    proteins, peptides = ["ACDEFGHKMM", "AIK"], ["ACDEFGHKWW", "ALK"]
    assert flat(PeptideIndex(peptides), proteins) == plain_scan(peptides, proteins)
    seeds_alone = PeptideIndex(peptides)
    seeds_alone.peptides = ["", ""]  # nothing is compared behind the seeds
    assert flat(seeds_alone, proteins) != plain_scan(peptides, proteins)
    expected = plain_scan(peptides, proteins)
    monkeypatch.setattr(peptide_index, "fold", str)  # isoleucine is no leucine
    assert flat(PeptideIndex(peptides), proteins) != expected


def test_no_peptide_runs_from_one_protein_into_the_next() -> None:
    assert flat(PeptideIndex(["KAAK"]), ["GGKA", "AKGG"]) == []
    # What is put between proteins is no letter of any peptide.
    assert flat(PeptideIndex(["A"]), ["", "", "A", ""]) == [(2, 0, 0)]


def test_real_peptides_in_a_real_proteome(data_dir) -> None:
    path = data_dir / "peptides" / "fasta_mouse_casanovo_subset.fasta.gz"
    proteins = [one.sequence for one in read_fasta(path)]
    rng = np.random.default_rng(0)
    real = sample_peptides(path, 150, rng, Digestion())
    shuffled = ["".join(rng.permutation(list(one))) for one in real]
    peptides = list(dict.fromkeys(map(fold, real + shuffled)))
    expected = []
    for row, protein in enumerate(map(fold, proteins)):
        for number, one in enumerate(peptides):
            start = protein.find(one)
            while start >= 0:
                expected.append((row, start, number))
                start = protein.find(one, start + 1)
    assert len(expected) >= 150
    assert flat(PeptideIndex(peptides), proteins) == sorted(expected)


# --- tables ---------------------------------------------------------------------------


def test_places_neighbours_and_the_rule_of_the_enzyme(tmp_path) -> None:
    path = write(tmp_path, {"P1 first": "MAGIVKPLLEDRW", "P2": "GGAGLVK"})
    found = match_proteins(["LLEDR", "AGLVK", "W", "AGIVKP", "YYY"], path).peptides
    rows = found.drop(columns=["n_spectra", "n_proteins"]).to_dict("split")["data"]
    assert rows[:-1] == [
        ["LLEDR", "P1", 8, 12, "P", "W", "LLEDR", False],  # K is not cut before P
        ["AGLVK", "P1", 2, 6, "M", "P", "AGIVK", False],
        ["AGLVK", "P2", 3, 7, "G", "-", "AGLVK", False],
        ["W", "P1", 13, 13, "R", "-", "W", True],
        ["AGLVKP", "P1", 2, 7, "M", "L", "AGIVKP", False],
    ]
    assert rows[-1][:2] == ["YYY", None]
    assert all(pd.isna(one) for one in rows[-1][1:])
    assert found["n_proteins"].tolist() == [1, 2, 2, 1, 1, 0]


@pytest.mark.parametrize("enzyme", [one for one in ENZYMES if one != "unspecific"])
def test_what_the_enzyme_cuts_fits_it_and_the_rest_does_not(tmp_path, enzyme) -> None:
    rng = np.random.default_rng(3)
    protein = "A" + "".join(rng.choice(list("ADEFGKLMPRSWY"), 150))
    rule = Digestion(enzyme, missed_cleavages=3, shortest=1, longest=150)
    made = set(digest(protein, rule))
    others = {protein[start : start + 12] for start in range(130)} - made
    path = write(tmp_path, [protein])
    found = match_proteins(sorted(made | others), path, enzyme=enzyme).peptides
    # By place: a short peptide can stand where the enzyme cuts, and elsewhere too.
    ends = {0, len(protein)} | {
        one.start() for one in re.finditer(ENZYMES[enzyme], protein)
    }
    expected = (found["start"] - 1).isin(ends) & found["end"].isin(ends)
    assert found["fits_enzyme"].tolist() == expected.tolist()
    fitting = set(found.loc[found["fits_enzyme"], "sequence"])
    assert made <= fitting
    assert len(others - fitting) > 50


def test_a_methionine_at_the_start_may_be_lost(tmp_path) -> None:
    path = write(tmp_path, ["MAGK", "GAGK"])
    found = match_proteins(["AGK"], path).peptides
    assert found["fits_enzyme"].tolist() == [True, False]


@given(PEPTIDES, PROTEINS)
def test_coverage_is_the_share_of_residues_that_stand_in_a_peptide(
    tmp_path_factory, peptides, proteins
) -> None:
    folder = tmp_path_factory.mktemp("fasta")
    path = write(folder, [*proteins, "W"])
    read = [one.sequence for one in read_fasta(path)]
    found = match_proteins(peptides, path)
    table = found.proteins.set_index("protein")
    distinct = list(dict.fromkeys(map(fold, peptides)))
    places = plain_scan(distinct, read)
    for row, protein in enumerate(read):
        own = [(start, number) for one, start, number in places if one == row]
        if not own:
            assert f"P{row}" not in table.index
            continue
        covered = np.zeros(len(protein), bool)
        for start, number in own:
            covered[start : start + len(distinct[number])] = True
        line = table.loc[f"P{row}"]
        assert line["coverage"] == covered.mean()
        drawn = np.zeros(len(protein), bool)
        for start, end in line["intervals"]:
            assert not drawn[max(start - 2, 0) : end + 1].any()  # apart from others
            drawn[start - 1 : end] = True
        np.testing.assert_array_equal(drawn, covered)
        numbers = {number for _, number in own}
        shared = {number for one, _, number in places if one != row}
        assert line["n_peptides"] == len(numbers)
        assert line["n_unique_peptides"] == len(numbers - shared)
        assert line["n_spectra"] == sum(
            fold(one) in {distinct[number] for number in numbers} for one in peptides
        )
    lengths = found.proteins["n_peptides"].tolist()
    assert lengths == sorted(lengths, reverse=True)


def test_modifications_and_isoleucine_do_not_count(tmp_path) -> None:
    path = write(tmp_path, ["MPEPTIDEK"])
    given = ["[Acetyl]-M[Oxidation]PEPTIDEK", "MPEPTLDEK", "+42.011MPEPTJDEK", None]
    (row,) = match_proteins(given, path).peptides.to_dict("records")
    assert (row["peptide"], row["n_spectra"]) == ("MPEPTLDEK", 3)
    assert row["sequence"] == "MPEPTIDEK"
    assert {bare_sequence(one) for one in given[:3]} == {"MPEPTLDEK"}


def test_a_table_joins_its_matches_by_letters(tmp_path) -> None:
    path = write(tmp_path, ["MPEPTIDEK"])
    peptides = ["PEPTIDEK", None, "C[Carbamidomethyl]K", np.nan, pd.NA, ""]
    table = pd.DataFrame({"peptide": peptides, "score": np.arange(6.0)})
    found = match_proteins(table, path).peptides
    table["letters"] = table["peptide"].replace("", None).map(
        bare_sequence, na_action="ignore"
    )  # fmt: skip
    joined = table.merge(found, left_on="letters", right_on="peptide", how="left")
    assert joined["protein"].fillna("").tolist() == ["P0", "", "", "", "", ""]
    assert found["peptide"].tolist() == ["PEPTLDEK", "CK"]


def test_no_peptides_are_two_empty_tables(tmp_path) -> None:
    path = write(tmp_path, ["MPEPTIDEK"])
    some = match_proteins(["PEP"], path)
    none = match_proteins([None, "", np.float64(np.nan), pd.NA], path)
    for one, other in zip(some, none, strict=True):
        assert len(other) == 0
        assert one.dtypes.to_dict() == other.dtypes.to_dict()


def test_several_files_and_a_protein_that_stands_in_both(tmp_path) -> None:
    first = write(tmp_path, {"P1": "MPEPTIDEK", "P2": "GGG"}, "first.fasta")
    second = tmp_path / "second.fasta.gz"
    second.write_bytes(gzip.compress(b">P1 again\nMPEPTIDEK\n>P3\nAAPEPTLDEK\n"))
    found = match_proteins(["PEPTIDEK"], [first, second])
    assert found.peptides["protein"].tolist() == ["P1", "P3"]
    assert found.proteins["n_unique_peptides"].tolist() == [0, 0]
    other = write(tmp_path, {"P1": "PEPTLDEK"}, "other.fasta")
    with pytest.raises(InputError, match="two different proteins are called 'P1'"):
        match_proteins(["PEPTIDEK"], [first, other])
    # A protein without a peptide does no harm.
    assert len(match_proteins(["GGG"], [first, other]).proteins) == 1


def test_parts_of_a_proteome_do_not_show(tmp_path, monkeypatch) -> None:
    rng = np.random.default_rng(0)
    proteins = ["".join(rng.choice(list("AGKLR"), 40)) for _ in range(30)]
    peptides = [one[5:11] for one in proteins]
    path = write(tmp_path, proteins)
    whole = match_proteins(peptides, path)
    monkeypatch.setattr(protein_matches, "_TOGETHER", 100)
    for one, other in zip(whole, match_proteins(peptides, path), strict=True):
        pd.testing.assert_frame_equal(one, other)


def test_memory_does_not_grow_with_the_proteome(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(protein_matches, "_TOGETHER", 20_000)
    rng = np.random.default_rng(0)
    protein = "".join(rng.choice(list("ADEFGHKLMNPQRSTVWY"), 2000))
    peaks = []
    for n in (30, 300):
        path = write(tmp_path, [protein] * n)
        match_proteins(["WWWWWW"], path)
        tracemalloc.start()
        match_proteins(["WWWWWW"], path)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.3 * peaks[0]


# --- what is refused ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("peptides", "error", "message"),
    [
        ("PEPTIDE", InputTypeError, "must be a table or a list"),
        (["PEP", 3], InputTypeError, "a peptide is 3.*row 1"),
        (["PEP", "PEPt"], InputError, "row 1"),
        (pd.DataFrame({"sequence": ["PEP"]}), InputError, "no column 'peptide'"),
    ],
)
def test_what_is_no_peptide_is_refused(tmp_path, peptides, error, message) -> None:
    with pytest.raises(error, match=message):
        match_proteins(peptides, write(tmp_path, ["MPEPTIDEK"]))


def test_no_file_another_file_and_another_enzyme(tmp_path) -> None:
    path = write(tmp_path, ["MPEPTIDEK"])
    with pytest.raises(InputError, match="Did you mean 'trypsin'"):
        match_proteins(["PEP"], path, enzyme="trypsine")
    with pytest.raises(InputError, match="no file is given"):
        match_proteins(["PEP"], [])
    path.write_text("no fasta")
    with pytest.raises(FileFormatError, match="is this a FASTA file"):
        match_proteins(["PEP"], path)
