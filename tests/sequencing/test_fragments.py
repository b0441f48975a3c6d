"""Fragment ions against the mass of the peptide, pyteomics and real spectra."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sciseq.errors import DataQualityError, InputError
from sciseq.sequencing.fragments import (
    Fragments,
    annotate,
    fragment_ladder,
    residue_masses,
)
from sciseq.sequencing.masses import CARBON_MONOXIDE
from sciseq.sequencing.residues import PROTON, WATER, Vocabulary, mz_of, neutral_mass
from sciseq.sequencing.spectra import Spectrum

VOCABULARY = Vocabulary().with_modifications(["Phospho", "TMT6plex@K,N-term"])
RESIDUES = np.flatnonzero(~VOCABULARY.is_terminal).tolist()
TERMINAL = np.flatnonzero(VOCABULARY.is_terminal).tolist()
PEPTIDES = st.tuples(
    st.lists(st.sampled_from(TERMINAL), max_size=1),
    st.lists(st.sampled_from(RESIDUES), min_size=2, max_size=30),
).map(lambda parts: VOCABULARY.decode(parts[0] + parts[1]))


def grid(ions: Fragments, types: str, charges: tuple[int, ...]) -> np.ndarray:
    return ions.mz.reshape(len(types), len(charges), -1)


def complement_error(peptide: str, charge: int, water: float = WATER) -> float:
    """Largest departure of b_i + y_(n-i) from the whole peptide, in Da."""
    masses = residue_masses(peptide, VOCABULARY)
    ions = grid(fragment_ladder(masses, "by", (charge,)), "by", (charge,))[:, 0]
    b, y = neutral_mass(ions[0], charge), neutral_mass(ions[1], charge) - WATER + water
    whole = VOCABULARY.mass(VOCABULARY.encode(peptide))
    singly = (b + PROTON) + (y[::-1] + PROTON)
    return float(np.abs(singly - (whole + 2 * PROTON)).max())


@given(PEPTIDES, st.integers(1, 4))
def test_b_and_y_add_up_to_the_peptide(peptide: str, charge: int) -> None:
    assert complement_error(peptide, charge) < 1e-6


def test_y_ions_without_water_are_caught() -> None:
    assert complement_error("GAVK", 1) < 1e-6
    assert complement_error("GAVK", 1, water=0.0) > 1e-6


@pytest.mark.parametrize("kind", ["a", "b", "y"])
@pytest.mark.parametrize("charge", [1, 2])
def test_ions_agree_with_pyteomics(kind: str, charge: int) -> None:
    from pyteomics import mass

    peptide = "PEPTWDEHK"
    ions = fragment_ladder(residue_masses(peptide, Vocabulary()), kind, (charge,))
    for number, mz in zip(ions.number, ions.mz, strict=True):
        piece = peptide[-number:] if kind == "y" else peptide[:number]
        expected = mass.fast_mass(piece, ion_type=kind, charge=charge)
        assert mz == pytest.approx(expected, abs=1e-5)


def test_ions_by_hand() -> None:
    ions = fragment_ladder([100.0, 20.0, 3.0], "aby", (1, 2))
    assert ions.names == [
        *("a1", "a2", "a1^2", "a2^2"),
        *("b1", "b2", "b1^2", "b2^2"),
        *("y1", "y2", "y1^2", "y2^2"),
    ]
    values = grid(ions, "aby", (1, 2)) - PROTON
    assert values[1] == pytest.approx(np.array([[100, 120], [50, 60]]), abs=1e-9)
    assert values[2] == pytest.approx(
        np.array([[3 + WATER, 23 + WATER], [1.5 + WATER / 2, 11.5 + WATER / 2]]),
        abs=1e-9,
    )
    assert values[1, 0] - values[0, 0] == pytest.approx(
        np.full(2, CARBON_MONOXIDE), abs=1e-9
    )
    assert len(ions) == 12
    assert len(fragment_ladder([100.0])) == 0


def test_the_terminus_belongs_to_the_first_residue() -> None:
    plain = residue_masses("GAK", Vocabulary())
    assert residue_masses("[Acetyl]-GAK", Vocabulary()) == pytest.approx(
        plain + np.array([42.010565, 0, 0]), abs=1e-9
    )
    # Not in the vocabulary, and written behind the first residue.
    assert residue_masses("[Formyl]-GAK", Vocabulary()) == pytest.approx(
        plain + np.array([27.994915, 0, 0]), abs=1e-6
    )
    assert residue_masses("G(+42.01)AK", Vocabulary()) == pytest.approx(
        plain + np.array([42.010565, 0, 0]), abs=1e-9
    )


@pytest.mark.parametrize(
    ("masses", "types", "charges", "error"),
    [
        ([], "by", (1,), InputError),
        ([[57.0]], "by", (1,), InputError),
        ([57.0, np.nan], "by", (1,), DataQualityError),
        ([57.0, 71.0], "bz", (1,), InputError),
        ([57.0, 71.0], "", (1,), InputError),
        ([57.0, 71.0], "by", (0,), InputError),
        ([57.0, 71.0], "by", (), InputError),
    ],
)
def test_wrong_input_is_refused(
    masses: list[float], types: str, charges: tuple[int, ...], error: type[Exception]
) -> None:
    with pytest.raises(error):
        fragment_ladder(masses, types, charges)


# --- Peaks ---------------------------------------------------------------------------


def spectrum_of(mz: list[float], charge: int | None = 2) -> Spectrum:
    heights = np.arange(1.0, len(mz) + 1)
    return Spectrum(mz, heights, precursor_mz=400.0, charge=charge)


def test_every_ion_of_a_peptide_is_found_and_noise_is_not() -> None:
    ions = fragment_ladder(residue_masses("PEPTIDEK", Vocabulary()))
    noise = [121.5, 333.3, 800.8]
    spectrum = spectrum_of(sorted([*ions.mz * (1 + 4e-6), *noise]))
    table = annotate(spectrum, "PEPTIDEK", types="by")
    assert table["ion"].tolist() == ions.names
    assert table["error_ppm"].to_numpy() == pytest.approx(np.full(14, 4.0), abs=1e-3)
    assert spectrum.mz[table["peak"]].tolist() == table["peak_mz"].tolist()
    assert spectrum.intensity[table["peak"]].tolist() == table["intensity"].tolist()
    assert annotate(spectrum, "PEPTIDEK", tolerance_ppm=3, types="by").empty


def test_the_nearest_peak_counts() -> None:
    b1 = 57.021464 + PROTON
    peaks = [b1 * (1 - 9e-6), b1 * (1 + 5e-6), b1 * (1 + 8e-6)]
    table = annotate(spectrum_of(peaks), "GK", types="b")
    assert table["peak"].tolist() == [1]
    assert table["error_ppm"].to_numpy() == pytest.approx([5.0], abs=1e-6)


@pytest.mark.parametrize(
    ("charge", "ions"), [(None, ["b1"]), (1, ["b1"]), (2, ["b1"]), (3, ["b1", "b1^2"])]
)
def test_ions_carry_less_charge_than_the_precursor(
    charge: int | None, ions: list[str]
) -> None:
    peaks = [mz_of(57.021464, z) for z in (3, 2, 1)]
    table = annotate(spectrum_of(peaks, charge), "GK", types="b")
    assert table["ion"].tolist() == ions


def test_a_tolerance_must_be_positive() -> None:
    with pytest.raises(InputError, match="tolerance_ppm"):
        annotate(spectrum_of([100.0]), "GK", tolerance_ppm=0)


def first_spectra(path: Path, count: int) -> list[Spectrum]:
    found, peaks, fields = [], [], {}
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            name, equals, value = line.strip().partition("=")
            if equals:
                fields[name] = value
            elif line[:1].isdigit():
                peaks.append([float(part) for part in line.split()[:2]])
            elif line.startswith("END IONS"):
                mz, intensity = np.array(peaks).T
                charge = int(fields["CHARGE"].rstrip("+"))
                precursor = float(fields["PEPMASS"].split()[0])
                found.append(
                    Spectrum(mz, intensity, precursor, charge, peptide=fields["SEQ"])
                )
                peaks, fields = [], {}
                if len(found) == count:
                    break
    return found


def test_true_peptides_explain_real_spectra_and_reversed_ones_do_not(
    data_dir: Path,
) -> None:
    path = data_dir / "peptides" / "mass_simulator_experimental_hcd.mgf.gz"
    true_share, reversed_share, errors = [], [], []
    for spectrum in first_spectra(path, 200):
        peptide = spectrum.peptide or ""
        if "[" in peptide:
            continue
        backwards = peptide[-2::-1] + peptide[-1]
        n_bonds = len(peptide) - 1
        table = annotate(spectrum, peptide, types="by")
        errors += table.loc[table["charge"] == 1, "error_ppm"].tolist()
        true_share.append(bonds_seen(table, n_bonds))
        wrong = annotate(spectrum, backwards, types="by")
        reversed_share.append(bonds_seen(wrong, n_bonds))
    assert len(true_share) > 50
    assert np.mean(true_share) > 0.8
    assert np.mean(reversed_share) < 0.5 * np.mean(true_share)
    assert abs(np.median(errors)) < 3


def bonds_seen(table: object, n_bonds: int) -> float:
    number = table["number"]  # type: ignore[index]
    kind = table["type"]  # type: ignore[index]
    bonds = np.where(kind == "y", n_bonds + 1 - number, number)
    return len(set(bonds.tolist())) / n_bonds
