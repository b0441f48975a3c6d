"""Peptides as text: ProForma, older notations, and what is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sciseq.errors import InputError, InputTypeError
from sciseq.sequencing.masses import AMMONIA, CARBON_MONOXIDE, WATER
from sciseq.sequencing.proforma import (
    Peptidoform,
    delta_mass,
    format_proforma,
    parse_proforma,
)
from sciseq.sequencing.unimod import (
    composition_mass,
    find_modification,
    modifications,
)


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("PEPTIDE", "PEPTIDE"),
        (" PEPTIDE\n", "PEPTIDE"),
        ("[Acetyl]-M[Oxidation]C[+57.021464]K", "[Acetyl]-M[Oxidation]C[+57.021464]K"),
        ("[UNIMOD:1]-M[U:Oxidation]K/2", "[UNIMOD:1]-M[Oxidation]K"),
        ("K[Label:13C(6)15N(2)]", "K[Label:13C(6)15N(2)]"),
        ("Q[Gln->pyro-Glu]K", "Q[Gln->pyro-Glu]K"),
        ("+42.011PEPTIDE", "[+42.011]-PEPTIDE"),
        ("+43.006-17.027PEPTIDE", "[+43.006][-17.027]-PEPTIDE"),
        ("(+42.01)PEPTIDE", "[+42.01]-PEPTIDE"),
        ("M+15.995K-17.027", "M[+15.995]K[-17.027]"),
        ("M(+15.99)N(+.98)K/3", "M[+15.99]N[+.98]K"),
        ("A(+42.01)M(+15.99)(+14.02)K", "A[+42.01]M[+15.99][+14.02]K"),
    ],
)
def test_what_is_read_is_written_as_proforma(text: str, written: str) -> None:
    parsed = parse_proforma(text)
    assert format_proforma(parsed) == written
    assert parse_proforma(written) == parsed


@pytest.mark.parametrize(
    ("text", "place", "hint"),
    [
        ("PEPtIDE", "character 4", "capital"),
        ("PEP TIDE", "character 4", "Write it like"),
        ("[Acetyl]PEPTIDE", "character 9", "[Acetyl]-PEPTIDE"),
        ("[Phospho]?PEPTIDE", "character 10", "[Acetyl]-PEPTIDE"),
        ("PEPTIDE-[Amidated]", "character 8", "C-terminus"),
        ("PEP(TIDE)[+10]", "character 4", "round brackets"),
        ("(?DQ)NGTK", "character 1", "round brackets"),
        ("<[Carbamidomethyl]@C>PEPTIDE", "character 1", "behind its residue"),
        ("{Glycan:Hex}PEPTIDE", "character 1", "Labile"),
        ("PEPTIDE/2[+2Na+]", "character 8", "charge"),
        ("K.PEPTIDE.R", "character 2", "before and behind"),
        ("PEPS[Phospho#g1]TK", "character 5", "Unimod name"),
        ("PEPS[Obs:+79.97]TK", "character 5", "Unimod name"),
        ("PEPS[Oxidation|Info:x]TK", "character 5", "Unimod name"),
        ("PEPS[]TK", "character 5", "Write it like"),
        ("PEPS[Phospho", "character 5", "Write it like"),
        ("M(Oxidation)K", "character 2", "round brackets"),
    ],
)
def test_what_is_not_read_is_refused_with_its_place(
    text: str, place: str, hint: str
) -> None:
    with pytest.raises(InputError) as refused:
        parse_proforma(text)
    assert refused.value.where == place
    assert hint in (refused.value.hint or "")


@pytest.mark.parametrize("text", ["", "  ", "/2", "[Acetyl]-", "+42.011"])
def test_a_peptide_needs_a_residue(text: str) -> None:
    with pytest.raises(InputError, match=r"no residue|cannot be read"):
        parse_proforma(text)


def test_only_text_is_read() -> None:
    with pytest.raises(InputTypeError, match="None"):
        parse_proforma(None)  # type: ignore[arg-type]


def test_names_have_no_mass_and_numbers_have() -> None:
    assert delta_mass("+15.9949") == 15.9949
    assert delta_mass("-17.03") == -17.03
    assert delta_mass("+.98") == 0.98
    assert delta_mass("Oxidation") is None
    assert delta_mass("UNIMOD:35") is None
    assert delta_mass("15.99") is None


TAGS = st.sampled_from(["Oxidation", "UNIMOD:21", "+57.021464", "-17.03", "Cation:Na"])
TAG_LISTS = st.lists(TAGS, max_size=2).map(tuple)


@given(
    st.lists(st.tuples(st.sampled_from("ACDEFGHIKLMNPQRSTVWY"), TAG_LISTS), min_size=1),
    TAG_LISTS,
)
def test_reading_undoes_writing(
    residues: list[tuple[str, tuple[str, ...]]], front: tuple[str, ...]
) -> None:
    letters, tags = zip(*residues, strict=True)
    peptide = Peptidoform("".join(letters), tags, front)
    assert parse_proforma(format_proforma(peptide)) == peptide


@given(st.text(alphabet="PEKx[]()+-.1/#{}<>?~ ", max_size=12))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        parsed = parse_proforma(text)
    except InputError:
        return
    assert parse_proforma(format_proforma(parsed)) == parsed


# --- Modifications -------------------------------------------------------------------

# Monoisotopic masses as Unimod prints them.
PRINTED = {
    "Acetyl": (1, 42.010565),
    "Carbamidomethyl": (4, 57.021464),
    "Carbamyl": (5, 43.005814),
    "Deamidated": (7, 0.984016),
    "Phospho": (21, 79.966331),
    "Gln->pyro-Glu": (28, -17.026549),
    "Cation:Na": (30, 21.981943),
    "Oxidation": (35, 15.994915),
    "Trimethyl": (37, 42.046950),
    "Sulfo": (40, 79.956815),
    "HexNAc": (43, 203.079373),
    "Glutathione": (55, 305.068156),
    "GG": (121, 114.042927),
    "Label:13C(6)": (188, 6.020129),
    "iTRAQ4plex": (214, 144.102063),
    "Label:13C(6)15N(2)": (259, 8.014199),
    "Label:13C(6)15N(4)": (267, 10.008269),
    "Dimethyl:2H(6)13C(2)": (330, 36.075670),
    "Ammonia-loss": (385, -17.026549),
    "iTRAQ8plex": (730, 304.205360),
    "TMT6plex": (737, 229.162932),
    "TMTpro": (2016, 304.207146),
}


@pytest.mark.parametrize("name", PRINTED)
def test_masses_are_those_that_unimod_prints(name: str) -> None:
    accession, mass = PRINTED[name]
    found = find_modification(name)
    assert found is not None
    assert found.accession == accession
    assert found.mass == pytest.approx(mass, abs=2e-6)
    assert find_modification(f"UNIMOD:{accession}") is found


def test_a_wrong_count_of_atoms_is_caught() -> None:
    wrong = composition_mass("H(20) C(9) 13C(3) N 15N O(2)")
    assert wrong != pytest.approx(PRINTED["TMT6plex"][1], abs=2e-6)


@pytest.mark.parametrize(
    ("mass", "composition"),
    [(WATER, "H(2) O"), (AMMONIA, "H(3) N"), (CARBON_MONOXIDE, "C O")],
)
def test_losses_weigh_what_their_atoms_do(mass: float, composition: str) -> None:
    assert mass == pytest.approx(composition_mass(composition), abs=1e-9)
    # Six digits are not enough.
    assert round(mass, 6) != pytest.approx(composition_mass(composition), abs=1e-9)


@pytest.mark.parametrize("modification", modifications(), ids=lambda one: one.name)
def test_masses_agree_with_pyteomics(modification: object) -> None:
    from pyteomics import mass

    counts: dict[str, int] = {}
    for part in modification.composition.split():  # type: ignore[attr-defined]
        symbol, _, count = part.rstrip(")").partition("(")
        element = symbol.lstrip("0123456789")
        heavy = symbol.removesuffix(element)
        key = f"{element}[{heavy}]" if heavy else element
        counts[key] = int(count or 1)
    expected = mass.calculate_mass(composition=mass.Composition(counts))
    # The two tables of isotopes are of different years.
    assert modification.mass == pytest.approx(  # type: ignore[attr-defined]
        expected, abs=3e-6
    )


def test_names_and_accessions_are_unique() -> None:
    table = modifications()
    keys = [
        key.casefold()
        for one in table
        for key in (one.name, str(one.accession), *one.synonyms)
    ]
    assert len(set(keys)) == len(keys)
    assert [one.accession for one in table] == sorted(one.accession for one in table)
    allowed = {*"ACDEFGHKLMNPQRSTVWY", "N-term"}
    assert all(set(one.sites) <= allowed for one in table)


def test_synonyms_are_found() -> None:
    assert find_modification("GlyGly") is find_modification("GG")
    assert find_modification("tmt10PLEX") is find_modification("TMT6plex")
    assert find_modification("no such name") is None


@pytest.mark.parametrize("composition", ["Xx(2)", "H(2", "H2", "14C"])
def test_an_unknown_composition_is_refused(composition: str) -> None:
    with pytest.raises(InputError, match="no isotope"):
        composition_mass(composition)
