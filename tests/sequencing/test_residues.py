"""Vocabularies: encoding and masses, by name, number and mass."""

import copy
import gzip
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sciseq.errors import InputError, InputTypeError
from sciseq.sequencing.proforma import parse_proforma
from sciseq.sequencing.residues import (
    C13,
    PROTON,
    WATER,
    Vocabulary,
    mz_of,
    neutral_mass,
    ppm_error,
)
from sciseq.sequencing.unimod import find_modification

DEFAULT = Vocabulary()
RESIDUES = np.flatnonzero(~DEFAULT.is_terminal).tolist()
TERMINAL = np.flatnonzero(DEFAULT.is_terminal).tolist()

PEPTIDES = st.tuples(
    st.lists(st.sampled_from(TERMINAL), max_size=1),
    st.lists(st.sampled_from(RESIDUES), min_size=1, max_size=40),
).map(lambda parts: parts[0] + parts[1])


def test_the_default_is_the_usual_vocabulary() -> None:
    assert len(DEFAULT) == 26
    assert len(RESIDUES) == 22
    assert DEFAULT.tokens[-4:] == (
        "[Acetyl]-",
        "[Carbamyl]-",
        "[Ammonia-loss]-",
        "[Carbamyl][Ammonia-loss]-",
    )
    assert "I" not in DEFAULT.tokens
    assert "C" not in DEFAULT.tokens
    assert DEFAULT.fixed == {"C": "C[Carbamidomethyl]"}


def test_masses_agree_with_pyteomics() -> None:
    from pyteomics import mass

    for token, ours in zip(DEFAULT.tokens, DEFAULT.masses, strict=True):
        terminal = token.endswith("-")
        parsed = parse_proforma(f"{token}G" if terminal else token)
        tags = parsed.n_terminal if terminal else parsed.modifications[0]
        expected = 0.0 if terminal else mass.std_aa_mass[parsed.residues]
        for tag in tags:
            modification = find_modification(tag)
            assert modification is not None
            expected += modification.mass
        assert ours == pytest.approx(expected, abs=1.1e-6), token


@given(PEPTIDES)
def test_decoding_undoes_encoding(indices: list[int]) -> None:
    text = DEFAULT.decode(indices)
    assert DEFAULT.encode(text).tolist() == indices
    assert DEFAULT.encode(text.replace("L", "I")).tolist() == indices


@given(PEPTIDES)
def test_the_mass_is_that_of_proforma(indices: list[int]) -> None:
    from pyteomics import proforma

    parsed = parse_proforma(DEFAULT.decode(indices))

    # With masses instead of names, because pyteomics would load names from the network.
    def as_masses(tags: tuple[str, ...]) -> str:
        found = [find_modification(tag) for tag in tags]
        total = sum(one.mass for one in found if one is not None)
        return f"[{total:+.6f}]" if tags else ""

    front = as_masses(parsed.n_terminal)
    text = (f"{front}-" if front else "") + "".join(
        letter + as_masses(tags)
        for letter, tags in zip(parsed.residues, parsed.modifications, strict=True)
    )
    assert DEFAULT.mass(indices) == pytest.approx(
        proforma.ProForma.parse(text).mass, abs=1e-4
    )
    assert DEFAULT.encode(text).tolist() == indices


def test_a_mass_without_water_is_caught() -> None:
    from pyteomics import mass

    indices = DEFAULT.encode("GAVK")
    expected = mass.calculate_mass(sequence="GAVK")
    assert DEFAULT.mass(indices) == pytest.approx(expected, abs=1e-4)
    assert DEFAULT.mass(indices) - WATER != pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("C", "C[Carbamidomethyl]"),
        ("C[UNIMOD:4]J", "C[Carbamidomethyl]L"),
        ("C[+57.0215]", "C[Carbamidomethyl]"),
        ("C(+57.02)M(+15.99)N(+.98)Q(+.98)", None),
        ("M+15.995K", "M[Oxidation]K"),
        ("m[oxidation]", "refused"),
        ("M[oxidation]K", "M[Oxidation]K"),
        # As Casanovo writes it.
        ("[+25.980265]-GK", "[Carbamyl][Ammonia-loss]-GK"),
        ("[Ammonia-loss][Carbamyl]-GK", "[Carbamyl][Ammonia-loss]-GK"),
        ("+43.006-17.027GK", "[Carbamyl][Ammonia-loss]-GK"),
        ("A(+42.01)K", "[Acetyl]-AK"),
        ("M(+15.99)(+42.01)K", "[Acetyl]-M[Oxidation]K"),
        ("C(+57.02)(+42.01)K", "[Acetyl]-C[Carbamidomethyl]K"),
        ("Q[Gln->pyro-Glu]K", "[Ammonia-loss]-QK"),
        ("[Carbamyl]-Q[Gln->pyro-Glu]K", "[Carbamyl][Ammonia-loss]-QK"),
    ],
)
def test_spellings_of_a_modification_meet(text: str, expected: str | None) -> None:
    if expected == "refused":
        with pytest.raises(InputError):
            DEFAULT.encode(text)
        return
    expected = expected or "C[Carbamidomethyl]M[Oxidation]N[Deamidated]Q[Deamidated]"
    assert DEFAULT.decode(DEFAULT.encode(text)) == expected


@pytest.mark.parametrize(
    ("text", "message", "where"),
    [
        ("GGS[Phospho]K", "'S[Phospho]'", "residue 3"),
        ("GBK", "'B'", "residue 2"),
        ("GM[+16]K", "'M[+16]'", "residue 2"),
        ("GM[+15.98]K", "'M[+15.98]'", "residue 2"),
        ("GK[Acetyl]", "'K[Acetyl]'", "residue 2"),
        ("[Formyl]-GK", "'[Formyl]-'", "N-terminus"),
        ("GM[Oxidaton]K", "Did you mean 'Oxidation'", "residue 2"),
    ],
)
def test_what_the_vocabulary_lacks_is_named(
    text: str, message: str, where: str
) -> None:
    with pytest.raises(InputError) as refused:
        DEFAULT.encode(text)
    assert message in str(refused.value)
    assert (refused.value.where or "").startswith(where)


def test_masses_are_known_beyond_the_vocabulary() -> None:
    masses = DEFAULT.token_masses("[Formyl]-GS[Phospho]C[-33.987721]K")
    expected = [27.994915, 57.021464, 166.998359, 69.021464, 128.094963]
    assert masses == pytest.approx(expected, abs=2e-6)
    with pytest.raises(InputError, match="Unobtainium"):
        DEFAULT.token_masses("GS[Unobtainium]K")


# --- More modifications --------------------------------------------------------------


def test_modifications_are_appended() -> None:
    wider = DEFAULT.with_modifications(
        ["Phospho@STY", "TMT6plex@K,N-term", "+100.5@C", "UNIMOD:121@K"]
    )
    assert wider.tokens[: len(DEFAULT)] == DEFAULT.tokens
    assert wider.tokens[len(DEFAULT) :] == (
        "S[Phospho]",
        "T[Phospho]",
        "Y[Phospho]",
        "K[TMT6plex]",
        "[TMT6plex]-",
        "C[+100.500000]",
        "K[GG]",
    )
    expected = [166.998359, 181.014009, 243.029660, 357.257895, 229.162932]
    assert wider.masses[26:31] == pytest.approx(expected, abs=5e-6)
    # A modification replaces the one that a bare C is read with.
    assert wider.masses[31] == pytest.approx(203.509185, abs=1e-9)
    assert wider.is_terminal[26:].tolist() == [0, 0, 0, 0, 1, 0, 0]
    assert wider.decode(wider.encode("[+229.163]-CS[+79.966]K")) == (
        "[TMT6plex]-C[Carbamidomethyl]S[Phospho]K"
    )


def test_sites_come_from_the_table_and_known_tokens_are_left_out() -> None:
    wider = DEFAULT.with_modifications(["Phospho", "Oxidation", "Phospho@S"])
    assert wider.tokens[26:] == ("S[Phospho]", "T[Phospho]", "Y[Phospho]")
    assert DEFAULT.with_modifications(["Acetyl@N-term"]) == DEFAULT
    assert DEFAULT.with_modifications(["Methyl@I"]).tokens[-1] == "L[Methyl]"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Phosho@STY", "Did you mean 'Phospho'"),
        ("+79.966331", "sites"),
        ("UNIMOD:999999@S", "not known"),
        ("Phospho@STB", "'B' is no site"),
        ("Phospho@C-term", "no site"),
        ("Phospho@sty", "no site"),
        ("+15.9949@M", "has it as 'M[Oxidation]'"),
    ],
)
def test_wrong_modifications_are_refused(name: str, message: str) -> None:
    with pytest.raises(InputError) as refused:
        DEFAULT.with_modifications([name])
    assert message in str(refused.value)


# --- Own vocabularies ----------------------------------------------------------------


def test_own_masses_in_own_notation() -> None:
    own = Vocabulary(
        {
            "G": 57.02,
            "C": 103.009,
            "C+57.021": 160.03,
            "M+15.995": 147.04,
            "+42.011": 42.011,
        }
    )
    assert own.tokens == ("G", "C", "C[+57.021]", "M[+15.995]", "[+42.011]-")
    assert own.fixed == {}
    assert own.encode("[Acetyl]-GCC[Carbamidomethyl]").tolist() == [4, 0, 1, 2]
    label = Vocabulary({"G": 57.02, "K[Label]": 140.5}, fixed={"K": "K[Label]"})
    assert label.decode(label.encode("GK")) == "GK[Label]"
    assert label.mass(label.encode("GK")) == pytest.approx(197.52 + WATER, abs=1e-9)


@pytest.mark.parametrize(
    ("masses", "message"),
    [
        ({"G": 57.0, "I": 113.0}, "'I' is no token"),
        ({"GA": 128.0}, "'GA' is no token"),
        ({"[Acetyl]-G": 99.0}, "no token"),
        ({"G": float("nan")}, "finite"),
        ({"G": 0.0}, "above zero"),
        ({"M[Oxidation]": 147.0, "M[UNIMOD:35]": 147.0}, "same token"),
        ({"g": 57.0}, "cannot be read"),
    ],
)
def test_wrong_tokens_are_refused(masses: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message.replace("[", r"\[")):
        Vocabulary(masses)


@pytest.mark.parametrize(
    "fixed", [{"M": "M[Oxidation]"}, {"C": "M[Oxidation]"}, {"K": "K[Acetyl]"}]
)
def test_fixed_needs_its_token_and_no_bare_one(fixed: dict[str, str]) -> None:
    with pytest.raises(InputError, match="cannot be read as"):
        Vocabulary(fixed=fixed)


def test_vocabularies_are_values() -> None:
    wider = DEFAULT.with_modifications(["Phospho", "GG@K"])
    assert Vocabulary() == DEFAULT
    assert hash(Vocabulary()) == hash(DEFAULT)
    assert wider != DEFAULT
    assert Vocabulary(fixed={}) != DEFAULT
    assert DEFAULT != "vocabulary"
    state = json.loads(json.dumps(wider.to_dict()))
    for same in (
        Vocabulary.from_dict(state),
        pickle.loads(pickle.dumps(wider)),
        copy.deepcopy(wider),
    ):
        assert same == wider
        with pytest.raises(ValueError, match="read-only"):
            same.masses[0] = 1.0
    with pytest.raises(AttributeError):
        DEFAULT.tokens = ()  # type: ignore[misc]


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        ([0, 26], "index 26 is outside 0 to 25"),
        ([-1], "index -1"),
        ([[0]], "one-dimensional"),
        ([0.5], "integers"),
        ([0, 22], "stands behind another token"),
        ([22, 23, 0], "place 2 of 3"),
    ],
)
def test_wrong_indices_are_refused(indices: list[int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        DEFAULT.decode(indices)


def test_empty_and_wrongly_typed_input() -> None:
    assert DEFAULT.decode([]) == ""
    assert DEFAULT.mass([]) == WATER
    with pytest.raises(InputTypeError):
        DEFAULT.encode(5)  # type: ignore[arg-type]


# --- m/z -----------------------------------------------------------------------------


@given(st.floats(100, 5000), st.integers(1, 6))
def test_mz_and_mass_undo_each_other(mass: float, charge: int) -> None:
    assert neutral_mass(mz_of(mass, charge), charge) == pytest.approx(mass, rel=1e-12)


def test_mass_errors() -> None:
    mass = 1000.0
    mz = mz_of(mass, 2)
    assert mz == pytest.approx(500.0 + PROTON, abs=1e-12)
    assert ppm_error(mz, mass, 2) == pytest.approx(0.0, abs=1e-9)
    # The second peak of the isotope pattern was picked.
    assert ppm_error(mz + C13 / 2, mass, 2, isotope=1) == pytest.approx(0, abs=1e-6)
    assert ppm_error(mz * (1 - 5e-6), mass, 2) == pytest.approx(5.0, abs=1e-4)
    both = ppm_error(np.array([mz, mz + C13 / 2]), mass, 2, isotope=np.array([0, 1]))
    assert both == pytest.approx([0.0, 0.0], abs=1e-6)


# --- Real spectra --------------------------------------------------------------------


def annotations(path: Path) -> list[tuple[str, float, int]]:
    """Peptide, m/z and charge of every spectrum of an MGF file."""
    found = []
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            if line.startswith("BEGIN IONS"):
                entry = {}
            elif line.startswith(("SEQ=", "PEPMASS=", "CHARGE=")):
                name, _, value = line.strip().partition("=")
                entry[name] = value
            elif line.startswith("END IONS"):
                mz = float(entry["PEPMASS"].split()[0])
                found.append((entry["SEQ"], mz, int(entry["CHARGE"].rstrip("+"))))
    return found


@pytest.mark.parametrize(
    ("name", "n_expressed", "n_all"),
    [
        ("massivekb_500", 488, 488),
        ("mass_simulator_experimental_hcd", 3827, 4795),
    ],
)
def test_annotated_peptides_explain_their_precursor(
    data_dir: Path, name: str, n_expressed: int, n_all: int
) -> None:
    entries = annotations(data_dir / "peptides" / f"{name}.mgf.gz")
    wider = DEFAULT.with_modifications(["Phospho"])
    n_default = 0
    for peptide, mz, charge in entries:
        try:
            indices = DEFAULT.encode(peptide)
            n_default += 1
        except InputError as lacking:
            assert "[+79.966331]" in lacking.message
            indices = wider.encode(peptide)
        decoded = wider.decode(indices)
        assert wider.encode(decoded).tolist() == indices.tolist()
        assert parse_proforma(decoded).residues == (
            parse_proforma(peptide).residues.replace("I", "L")
        )
        isotopes = np.array([-1, 0, 1, 2])
        errors = ppm_error(mz, wider.mass(indices), charge, isotopes)
        assert np.abs(errors).min() < 100
    assert (n_default, len(entries)) == (n_expressed, n_all)
