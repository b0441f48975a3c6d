"""The simulator: masses, physics, determinism, and likeness to measured spectra."""

import dataclasses
import re
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sciseq.errors import InputError
from sciseq.sequencing import simulator_ions
from sciseq.sequencing.residues import C13, PROTON, Vocabulary, mz_of
from sciseq.sequencing.simulator import (
    Physics,
    SimulatedSpectra,
    Simulator,
    simulate_spectrum,
    statistics,
)
from sciseq.sequencing.simulator_physics import PhysicsTable
from sciseq.sequencing.simulator_statistics import ladder_peaks, merged_masses
from sciseq.sequencing.spectra import Spectrum
from sciseq.sequencing.spectrum_files import read_spectra

VOCABULARY = Vocabulary()
PHOSPHO = VOCABULARY.with_modifications(["Phospho@STY", "Acetyl@K"])
# Nothing but the ions of the peptide, at their exact m/z, however small.
CLEAN = Physics(
    bond_spread=0.0,
    ion_spread=0.0,
    loss_spread=0.0,
    isotopes=0.0,
    internal_level=0.0,
    immonium_level=0.0,
    precursor_level=0.0,
    isolation_peaks=0.0,
    noise_peaks=0.0,
    water_loss=1e-9,
    ammonia_loss=1e-9,
    phosphoric_loss=1e-9,
    detection_limit=1e-4,
    detection_spread=0.0,
    dilution=0.0,
    drop=0.0,
    most_peaks=5000.0,
    resolution=1e-3,
    lowest_mz=20.0,
    highest_mz=9000.0,
    fragment_offset=0.0,
    fragment_jitter=0.0,
    precursor_offset=0.0,
    precursor_jitter=0.0,
    isotope_above=0.0,
    isotope_below=0.0,
)
TOKENS = st.lists(
    st.integers(0, len(VOCABULARY) - 1).filter(
        lambda token: not VOCABULARY.is_terminal[token]
    ),
    min_size=2,
    max_size=40,
)


def spectrum_of(
    peptide: str,
    charge: int = 2,
    physics: Physics = CLEAN,
    seed: int = 0,
    vocabulary: Vocabulary = PHOSPHO,
) -> Spectrum:
    return simulate_spectrum(
        vocabulary.encode(peptide),
        charge,
        vocabulary=vocabulary,
        physics=physics,
        rng=np.random.default_rng(seed),
    )


def with_knobs(**knobs: float) -> Physics:
    return dataclasses.replace(CLEAN, **knobs)


def height(spectrum: Spectrum, mz: float, tolerance: float = 0.002) -> float:
    return float(spectrum.intensity[np.abs(spectrum.mz - mz) < tolerance].sum())


def ladder(peptide: str, vocabulary: Vocabulary = PHOSPHO) -> dict[str, np.ndarray]:
    masses = merged_masses(vocabulary, peptide)
    before = np.cumsum(masses)[:-1]
    return {
        "b": before + PROTON,
        "y": masses.sum() - before + 18.010564684 + PROTON,
    }


def test_clean_spectra_hold_the_exact_backbone_ions() -> None:
    # By hand: y1 of K is 128.094963 + 18.010565 + 1.007276.
    spectrum = spectrum_of("GASPVTLK")
    assert height(spectrum, 147.112804) > 0
    # b2 of GA is 57.021464 + 71.037114 + 1.007276; a2 is 27.994915 below.
    assert height(spectrum, 129.065854) > height(spectrum, 101.070939) * 0.5 > 0
    masses = merged_masses(PHOSPHO, "GASPVTLK")
    found = ladder_peaks(spectrum, masses, tolerance_ppm=1e-3)
    assert (found["y"] >= 0).all()
    assert (found["b"][1:] >= 0).all()
    explained = np.unique(np.concatenate([*found.values()]))
    assert len(explained[explained >= 0]) == len(spectrum.mz)


def test_the_modification_of_the_terminus_is_in_b_and_not_in_y() -> None:
    plain, acetyl = ladder("GASPVTLK"), ladder("[Acetyl]-GASPVTLK")
    np.testing.assert_allclose(acetyl["b"] - plain["b"], 42.010565, atol=1e-6)
    np.testing.assert_allclose(acetyl["y"], plain["y"], atol=1e-9)
    spectrum = spectrum_of("[Acetyl]-GASPVTLK")
    assert spectrum.peptide == "[Acetyl]-GASPVTLK"
    assert all(height(spectrum, mz) > 0 for mz in acetyl["b"][1:])
    assert all(height(spectrum, mz) > 0 for mz in acetyl["y"])
    assert height(spectrum, plain["b"][1]) == 0


@given(TOKENS, st.integers(1, 5))
@settings(max_examples=30)
def test_precursors_weigh_what_their_tokens_do(tokens: list[int], charge: int) -> None:
    spectrum = simulate_spectrum(
        tokens,
        charge,
        vocabulary=VOCABULARY,
        physics=with_knobs(noise_peaks=20.0),
        rng=np.random.default_rng(0),
    )
    exact = mz_of(VOCABULARY.mass(tokens), charge)
    assert spectrum.precursor_mz == pytest.approx(exact, rel=1e-12)
    assert (np.diff(spectrum.mz) >= 0).all()
    assert spectrum.peptide == VOCABULARY.decode(tokens)


def test_ions_of_the_smallest_peptides_keep_a_mass() -> None:
    physics = with_knobs(water_loss=1.0, ammonia_loss=1.0, isotopes=1.0, lowest_mz=0.0)
    with np.errstate(all="raise", under="ignore"):
        spectrum = spectrum_of("[Ammonia-loss]-GS", 3, physics)
    assert spectrum.mz.min() > PROTON


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=25)
def test_spectra_of_any_instrument_keep_its_limits(seed: int) -> None:
    physics = Physics.sample(np.random.default_rng(seed))
    spectrum = spectrum_of("GASPVTLKHDEFMR", 3, physics, seed)
    error = 1 + 1e-6 * 50
    assert physics.lowest_mz / error <= spectrum.mz[0]
    assert spectrum.mz[-1] <= physics.highest_mz * error
    assert len(spectrum.mz) <= round(physics.most_peaks)
    assert (spectrum.intensity > 0).all()
    assert np.isfinite(spectrum.mz).all()


def test_proline_and_immobile_protons_direct_the_break() -> None:
    without, effect = with_knobs(proline_effect=0.0), with_knobs(proline_effect=1.5)
    y5 = ladder("GASPVTLK")["y"][2]  # the bond before P
    gain = height(spectrum_of("GASPVTLK", 2, effect), y5)
    gain /= height(spectrum_of("GASPVTLK", 2, without), y5)
    assert gain == pytest.approx(np.exp(1.5))
    acid = with_knobs(acid_effect=1.2), with_knobs(acid_effect=0.0)
    for charge, expected in ((2, np.exp(1.2)), (3, 1.0)):
        # Two basic residues: at 2+ no proton is mobile, at 3+ one is.
        y4 = ladder("GRADVTLK")["y"][3]
        strong, weak = (
            height(spectrum_of("GRADVTLK", charge, physics), y4) for physics in acid
        )
        assert strong / weak == pytest.approx(expected)


def test_y_ions_fade_towards_the_n_terminus_and_b_ions_away_from_it() -> None:
    peptide = "A" * 18 + "K"
    flat = with_knobs(residue_effect=0.0)
    spectrum, ions = spectrum_of(peptide, 2, flat), ladder(peptide)
    y = np.array([height(spectrum, mz) for mz in ions["y"][::-1]])  # y1, y2, ...
    b = np.array([height(spectrum, mz) for mz in ions["b"]])
    assert (np.diff(y[1:8]) > 0).all()
    assert (np.diff(y[7:]) < 0).all()
    assert (np.diff(b[1:7]) < 0).all()
    assert b[0] < 0.02 * b[1]
    assert y[1:8].min() > 0.4 * y[1:8].max()
    assert b[7] < 0.05 * b[1]


def test_a_third_proton_brings_doubly_charged_fragments() -> None:
    peptide = "GASPVTLHGLVSALGLK"
    y2 = (ladder(peptide)["y"] + PROTON) / 2
    two, three = (spectrum_of(peptide, charge) for charge in (2, 3))
    total = [sum(height(one, mz) for mz in y2[:8]) for one in (two, three)]
    assert total[1] > 2.5 * total[0]
    one = spectrum_of(peptide, 1)
    assert sum(height(one, mz) for mz in y2) == 0


@pytest.mark.parametrize(
    ("knob", "peptide", "mass", "charge"),
    [
        ("water_loss", "GASPVTLK", 18.010565, 1),
        ("ammonia_loss", "GASPVTLK", 17.026549, 1),
        ("phosphoric_loss", "GAS[Phospho]PVTLK", 97.976896, 1),
        ("isotopes", "GASPVTLK", -C13, 1),
    ],
)
def test_losses_and_isotopes_have_their_height(
    knob: str, peptide: str, mass: float, charge: int
) -> None:
    spectrum = spectrum_of(peptide, 2, with_knobs(**{knob: 0.5}))
    y6 = ladder(peptide)["y"][1]
    ratio = height(spectrum, y6 - mass) / height(spectrum, y6)
    expected = 5.4e-4 * y6 * 0.5 if knob == "isotopes" else 0.5
    assert ratio == pytest.approx(expected, rel=1e-3)
    assert height(spectrum_of(peptide), y6 - mass) == 0


def test_phosphoric_acid_is_lost_only_from_fragments_that_hold_it() -> None:
    peptide, physics = "GAS[Phospho]PVTLK", with_knobs(phosphoric_loss=0.5)
    spectrum, ions = spectrum_of(peptide, 2, physics), ladder(peptide)
    for place, mz in enumerate(ions["y"]):
        assert (height(spectrum, mz - 97.976896) > 0) == (place < 2)
    ratios = []
    for one in ("GAT[Phospho]LVK", "GAY[Phospho]LVK"):
        y5 = ladder(one)["y"][1]
        spectrum = spectrum_of(one, 2, physics)
        ratios.append(height(spectrum, y5 - 97.976896) / height(spectrum, y5))
    assert ratios == pytest.approx([0.5, 0.05])


def test_immonium_and_internal_ions_appear() -> None:
    physics = with_knobs(immonium_level=1.0, immonium_background=0.0)
    with_f = spectrum_of("GAFPVTLK", 2, physics)
    without = spectrum_of("GAYPVTLK", 2, physics)
    assert height(with_f, 120.080776) > 0 == height(without, 120.080776)
    assert height(without, 136.075691) > 0
    oxidised = spectrum_of("GAM[Oxidation]LVTLK", 2, physics)
    assert height(oxidised, 147.035400 - 27.994915 + PROTON) > 0
    # PV inside the peptide: 97.052764 + 99.068414 + 1.007276.
    inside = spectrum_of("GASPVTLK", 2, with_knobs(internal_level=100.0))
    assert height(inside, 197.128454) > 0


def test_precursor_remnants_and_isolation_noise_lie_where_they_should() -> None:
    left = spectrum_of("GASPVTLK", 2, with_knobs(precursor_level=50.0))
    exact = mz_of(PHOSPHO.mass(PHOSPHO.encode("GASPVTLK")), 2)
    assert height(left, exact) > 0 == height(spectrum_of("GASPVTLK"), exact)
    noisy = spectrum_of(
        "GASPVTLK", 2, with_knobs(isolation_peaks=300.0, isolation_width=1.6)
    )
    clean = spectrum_of("GASPVTLK")
    added = noisy.mz[~np.isin(noisy.mz, clean.mz)]
    assert len(added) > 200
    assert np.abs(added - exact).max() <= 0.8


def test_noise_has_the_mass_defect_of_peptides_unless_told_otherwise() -> None:
    def defects(**knobs: float) -> np.ndarray:
        physics = with_knobs(noise_peaks=3000.0, noise_reach=0.5, **knobs)
        mz = spectrum_of("GASPVTLKGASPVTLK", 2, physics).mz
        return np.abs(mz / 1.00048 - np.round(mz / 1.00048))

    assert (defects(noise_uniform=0.0, noise_double=0.0) < 0.2).mean() > 0.95
    assert 0.35 < (defects(noise_uniform=1.0, noise_double=0.0) < 0.2).mean() < 0.5
    assert (defects(noise_uniform=0.0, noise_double=1.0) > 0.3).mean() > 0.3


def test_noise_is_log_normal_above_the_detection_limit() -> None:
    physics = with_knobs(
        noise_peaks=4000.0, noise_spread=0.8, detection_limit=0.1, y_fade=50.0
    )
    spectrum = spectrum_of("GASPVTLK", 2, physics)
    ln = np.log(spectrum.intensity / physics.signal / 0.1)
    assert ln.min() > 0
    # Half-normal: median 0.6745, mean 0.7979 standard deviations.
    assert np.median(ln) == pytest.approx(0.8 * 0.6745, rel=0.1)
    assert ln.mean() == pytest.approx(0.8 * 0.7979, rel=0.1)


def test_errors_of_mz_have_their_size() -> None:
    peptide = "GASPVTLHGLVSALGLK"
    ions = ladder(peptide)["y"]
    physics = with_knobs(fragment_offset=3.0, fragment_jitter=2.0)
    errors = []
    for seed in range(40):
        spectrum = spectrum_of(peptide, 2, physics, seed)
        near = np.abs(spectrum.mz[:, None] - ions).argmin(axis=0)
        errors.append((spectrum.mz[near] / ions - 1) * 1e6)
    assert np.median(errors) == pytest.approx(3.0, abs=0.3)
    assert np.std(errors) == pytest.approx(2.0, rel=0.15)


def test_precursor_errors_are_cut_and_isotopes_are_misread() -> None:
    physics = with_knobs(
        precursor_offset=8.0, precursor_jitter=9.0, isotope_above=0.3, isotope_below=0.1
    )
    simulator = Simulator(["GASPVTLK"], modifications={}, physics=physics)
    spectra = simulator.sample_arrays(2000, np.random.default_rng(0))
    exact = mz_of(VOCABULARY.mass(VOCABULARY.encode("GASPVTLK")), spectra.charge)
    shift = (spectra.precursor_mz - exact) * spectra.charge / C13
    isotope = np.round(shift)
    counts = Counter(isotope.astype(int).tolist())
    assert counts[1] / 2000 == pytest.approx(0.3, abs=0.03)
    assert counts[-1] / 2000 == pytest.approx(0.1, abs=0.02)
    assert set(counts) == {-1, 0, 1}
    true_mz = exact + isotope * C13 / spectra.charge
    ppm = (spectra.precursor_mz / true_mz - 1) * 1e6
    assert np.abs(ppm).max() == pytest.approx(12.0, abs=1e-6)
    assert np.median(ppm) == pytest.approx(8.0, abs=0.7)


def test_neighbouring_peaks_merge_into_their_centre() -> None:
    physics = with_knobs(noise_peaks=3000.0, resolution=20.0)
    mz = spectrum_of("GASPVTLKGASPVTLK", 2, physics).mz
    gaps = np.diff(mz) / mz[1:] * 1e6
    assert gaps.min() > 5.0
    sharp = spectrum_of("GASPVTLKGASPVTLK", 2, with_knobs(noise_peaks=3000.0)).mz
    assert np.sum(np.diff(sharp) / sharp[1:] * 1e6 < 5.0) > 20


def test_dropping_and_the_count_limit_take_peaks() -> None:
    noisy = with_knobs(noise_peaks=1000.0)
    everything = spectrum_of("GASPVTLK", 2, noisy)
    few = spectrum_of("GASPVTLK", 2, dataclasses.replace(noisy, most_peaks=50.0))
    highest = np.sort(np.argsort(everything.intensity)[-50:])
    np.testing.assert_array_equal(few.mz, everything.mz[highest])
    dropped = spectrum_of("GASPVTLK", 2, dataclasses.replace(noisy, drop=0.5))
    assert 0.4 < len(dropped.mz) / len(everything.mz) < 0.6


def test_instruments_are_drawn_within_their_ranges_and_by_seed() -> None:
    table = PhysicsTable.sample(np.random.default_rng(0), 4000)
    for one in dataclasses.fields(Physics):
        low, high = one.metadata["range"]
        column = getattr(table, one.name)[:, 0]
        assert low <= one.default <= high, one.name
        assert column.min() >= low * (1 - 1e-12) or low < 0, one.name
        assert low - 1e-9 <= column.min() and column.max() <= high * (1 + 1e-9)
        middle = np.sqrt(low * high) if one.metadata["log"] else (low + high) / 2
        assert np.median(column) == pytest.approx(middle, abs=0.06 * (high - low))
    assert Physics.sample(np.random.default_rng(5)) == Physics.sample(
        np.random.default_rng(5)
    )
    with pytest.raises(AttributeError, match="no knob is called 'speed'"):
        _ = table.speed


@pytest.mark.parametrize(
    "knobs",
    [
        {"noise_peaks": -1.0},
        {"drop": float("nan")},
        {"lowest_mz": 500.0, "highest_mz": 400.0},
        {"most_peaks": 0.0},
    ],
)
def test_impossible_instruments_are_refused(knobs: dict[str, float]) -> None:
    with pytest.raises(InputError):
        with_knobs(**knobs)


# ------------------------------------------------------------------- the simulator

PEPTIDES = ["GASPVTLK", "PEPTIDEK", "MCNQHFR", "AAAGGGSSSVVVLLLDDDK"]


def as_bytes(spectra: SimulatedSpectra) -> bytes:
    return b"".join(np.ascontiguousarray(column).tobytes() for column in spectra)


def test_equal_seeds_give_equal_bytes(
    no_global_side_effects: Callable[[], AbstractContextManager[None]],
) -> None:
    with no_global_side_effects():
        first = Simulator(PEPTIDES).sample_arrays(150, np.random.default_rng(7))
        again = Simulator(PEPTIDES).sample_arrays(150, np.random.default_rng(7))
        other = Simulator(PEPTIDES).sample_arrays(150, np.random.default_rng(8))
    assert as_bytes(first) == as_bytes(again)
    assert as_bytes(first) != as_bytes(other)


def test_records_and_arrays_are_the_same_spectra() -> None:
    simulator = Simulator(PEPTIDES)
    records = simulator.sample(100, random_state=3)
    arrays = simulator.sample_arrays(100, np.random.default_rng(3))
    assert arrays.mz.shape == arrays.intensity.shape == (100, arrays.n_peaks.max())
    for number, spectrum in enumerate(records):
        count = arrays.n_peaks[number]
        np.testing.assert_array_equal(spectrum.mz, arrays.mz[number, :count])
        np.testing.assert_array_equal(
            spectrum.intensity, arrays.intensity[number, :count]
        )
        assert not arrays.mz[number, count:].any()
        tokens = arrays.tokens[number]
        assert (tokens[arrays.n_tokens[number] :] == -1).all()
        assert spectrum.peptide == VOCABULARY.decode(tokens[: arrays.n_tokens[number]])
        assert spectrum.charge == arrays.charge[number]


def test_a_batch_is_as_good_as_single_spectra() -> None:
    # Without chance a peptide must not depend on the padding beside it.
    simulator = Simulator(PEPTIDES, modifications={}, charges={2: 1.0}, physics=CLEAN)
    for spectrum in simulator.sample(20, random_state=0):
        alone = spectrum_of(spectrum.peptide or "", 2, CLEAN, 0, VOCABULARY)
        np.testing.assert_allclose(spectrum.mz, alone.mz, rtol=1e-12)
        np.testing.assert_allclose(spectrum.intensity, alone.intensity, rtol=1e-9)


def test_modifications_come_at_their_frequency() -> None:
    chances = {"M[Oxidation]": 0.25, "N[Deamidated]": 0.5, "[Acetyl]-": 0.1}
    simulator = Simulator(["MANMALK"], modifications=chances, physics=CLEAN)
    peptides = [one.peptide or "" for one in simulator.sample(3000, random_state=0)]
    n_oxidised = sum(one.count("M[Oxidation]") for one in peptides)
    assert n_oxidised / 6000 == pytest.approx(0.25, abs=0.02)
    n_deamidated = sum("N[Deamidated]" in one for one in peptides)
    assert n_deamidated / 3000 == pytest.approx(0.5, abs=0.03)
    n_acetyl = sum(one.startswith("[Acetyl]-") for one in peptides)
    assert n_acetyl / 3000 == pytest.approx(0.1, abs=0.02)
    assert {re.sub(r"\[[^]]*\]-?", "", one) for one in peptides} == {"MANMALK"}


def test_several_modifications_of_a_residue_share_its_chance() -> None:
    wide = VOCABULARY.with_modifications(["Acetyl@K", "Methyl@K"])
    chances = {"K[Acetyl]": 0.5, "K[Methyl]": 0.5}
    simulator = Simulator(
        ["GASPVTLK"], vocabulary=wide, modifications=chances, physics=CLEAN
    )
    ends = Counter(
        (one.peptide or "").partition("L")[2] for one in simulator.sample(400, 0)
    )
    assert set(ends) == {"K[Acetyl]", "K[Methyl]"}
    assert 150 < ends["K[Acetyl]"] < 250


def test_every_variable_token_appears_by_default() -> None:
    simulator = Simulator(["MANQALK"], vocabulary=PHOSPHO)
    drawn = simulator.sample_arrays(6000, np.random.default_rng(0)).tokens
    used = {PHOSPHO.tokens[token] for token in np.unique(drawn[drawn >= 0])}
    sites = {"M[Oxidation]", "N[Deamidated]", "Q[Deamidated]", "K[Acetyl]"}
    terminal = {one for one in PHOSPHO.tokens if one.endswith("-")}
    assert sites | terminal <= used


def test_given_modifications_stay() -> None:
    simulator = Simulator(["[Acetyl]-M[Oxidation]ALK"], modifications={})
    assert simulator.sample(1, 0)[0].peptide == "[Acetyl]-M[Oxidation]ALK"


def test_excluded_peptides_never_appear() -> None:
    exclude = {"PEPTLDEK", "[Acetyl]-M[Oxidation]C[+57.021464]NQHFR"}
    simulator = Simulator(PEPTIDES, exclude=exclude)
    assert simulator.n_peptides == 2
    bare = {
        re.sub(r"\[[^]]*\]-?", "", one.peptide or "")
        for one in simulator.sample(200, random_state=0)
    }
    assert bare == {"GASPVTLK", "AAAGGGSSSVVVLLLDDDK"}
    with pytest.raises(InputError, match="no peptide is left: 4 found, 4 excluded"):
        Simulator(PEPTIDES, exclude=PEPTIDES)


def test_charges_follow_basic_residues_or_the_given_shares() -> None:
    def mean_charge(peptide: str) -> float:
        drawn = Simulator([peptide]).sample_arrays(400, np.random.default_rng(0))
        assert set(drawn.charge.tolist()) <= {2, 3, 4}
        return float(drawn.charge.mean())

    assert mean_charge("GASLLLTK") < 2.1
    assert mean_charge("GASLHLLTLKVVSGTLHDEFK") > 2.9
    simulator = Simulator(PEPTIDES, charges={1: 1.0, 5: 3.0})
    charges = Counter(simulator.sample_arrays(800, np.random.default_rng(0)).charge)
    assert set(charges) == {1, 5}
    assert charges[5] / 800 == pytest.approx(0.75, abs=0.05)


def test_proteins_are_digested_with_the_stated_shares(tmp_path: Path) -> None:
    letters = np.random.default_rng(0).choice(list("ADEFGLMNPQSTVWYKR"), (30, 200))
    file = tmp_path / "some.fasta"
    file.write_text("".join(f">{row[0]}\n{''.join(row)}\n" for row in letters))
    simulator = Simulator(
        [file], missed_cleavages=(0.6, 0.4), lengths=(7, 20), modifications={}
    )
    peptides = [one.peptide or "" for one in simulator.sample(1500, random_state=0)]
    bare = [re.sub(r"\[[^]]*\]-?", "", one) for one in peptides]
    assert all(7 <= len(one) <= 20 for one in bare)
    missed = [len(re.findall("[KR](?!P|$)", one)) for one in bare]
    assert Counter(missed)[1] / 1500 == pytest.approx(0.4, abs=0.05)
    assert set(missed) == {0, 1}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"proteins": []}, "no peptide is left"),
        ({"modifications": {"M[oxidation]": 0.1}}, "Did you mean 'M[Oxidation]'"),
        ({"modifications": {"K[Acetyl]": 0.1}}, "no variable token"),
        ({"modifications": {"M[Oxidation]": 1.5}}, "must be in [0, 1]"),
        ({"modifications": {"[Acetyl]-": 0.6, "[Carbamyl]-": 0.6}}, "more than 1"),
        ({"charges": {0: 1.0}}, "at least one of 1 or more"),
        ({"charges": {}}, "at least one of 1 or more"),
        ({"charges": {2: -1.0}}, "at least 0"),
        ({"missed_cleavages": (0.0,)}, "one must be above 0"),
        ({"proteins": ["GAXK"]}, "X"),
    ],
)
def test_wrong_arguments_are_refused(
    arguments: dict[str, object], message: str
) -> None:
    given_ones: dict[str, object] = {"proteins": PEPTIDES} | arguments
    with pytest.raises(InputError, match=re.escape(message)):
        Simulator(**given_ones)  # type: ignore[arg-type]


def test_wrong_peptides_and_numbers_are_refused() -> None:
    with pytest.raises(InputError, match="at least two residues"):
        spectrum_of("[Acetyl]-K")
    with pytest.raises(InputError, match="charge 0"):
        spectrum_of("GK", 0)
    with pytest.raises(InputError, match="n is 0"):
        Simulator(PEPTIDES).sample_arrays(0, np.random.default_rng(0))


# -------------------------------------------------------- likeness to measured spectra


def test_statistics_by_hand() -> None:
    # GAK: b1 58.02874, b2 129.06585, y1 147.11280, y2 218.14992.
    def found(mz: list[float], charge: int = 2) -> dict[str, float]:
        spectrum = Spectrum(
            np.array([*mz, 300.0]),
            np.ones(len(mz) + 1),
            precursor_mz=138.1,
            charge=charge,
            peptide="GAK",
        )
        return statistics([spectrum])

    full = found([58.02874, 147.11280])
    assert full["evidence"] == full["complete"] == full["no_long_gap"] == 1.0
    assert (full["b"], full["y"]) == (0.5, 0.5)
    assert full["signal"] == pytest.approx(2 / 3)
    half = found([147.11280])
    assert (half["evidence"], half["complete"], half["no_long_gap"]) == (0.5, 0, 1)
    none = found([147.12])
    assert (none["evidence"], none["no_long_gap"]) == (0.0, 0.0)
    doubly = 109.57860  # y2 at 2+
    assert found([doubly])["evidence"] == 0.0
    assert found([doubly], charge=3)["evidence"] == 0.5
    with pytest.raises(InputError, match="no spectrum"):
        statistics([])


def measured(data_dir: Path, every: int) -> list[Spectrum]:
    file = data_dir / "peptides" / "mass_simulator_experimental_hcd.mgf.gz"
    spectra = [one for one in read_spectra(file) if isinstance(one, Spectrum)]
    return [one for one in spectra[::every] if "[+79" not in (one.peptide or "")]


def differences(real: list[Spectrum], physics: Physics | None) -> dict[str, float]:
    rng = np.random.default_rng(0)
    made = [
        simulate_spectrum(
            VOCABULARY.encode(one.peptide or ""),
            one.charge or 2,
            vocabulary=VOCABULARY,
            physics=physics or Physics.sample(rng),
            rng=rng,
        )
        for one in real
    ]
    wanted, got = statistics(real), statistics(made)
    return {name: got[name] - wanted[name] for name in wanted}


LIMITS = {
    "evidence": 0.06,
    "b": 0.06,
    "y": 0.06,
    "signal": 0.06,
    "complete": 0.12,
    "no_long_gap": 0.11,
}


@pytest.mark.slow
@pytest.mark.parametrize("physics", [Physics(), None], ids=["default", "ranges"])
def test_simulated_spectra_are_as_complete_as_measured_ones(
    data_dir: Path, physics: Physics | None
) -> None:
    off = differences(measured(data_dir, every=6), physics)
    assert {name: off[name] for name in LIMITS if abs(off[name]) > LIMITS[name]} == {}


@pytest.mark.slow
def test_physics_without_position_rules_would_be_caught(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flat(peptides: object, physics: PhysicsTable) -> np.ndarray:
        return np.zeros((len(physics.values), 1))

    monkeypatch.setattr(simulator_ions, "_y_position", flat)
    monkeypatch.setattr(simulator_ions, "_b_position", flat)
    off = differences(measured(data_dir, every=12), Physics())
    assert off["b"] > 5 * LIMITS["b"]
    assert abs(off["complete"]) > 2 * LIMITS["complete"]
