"""Preprocessing of spectra, and the picking of peaks."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sciseq.errors import DataQualityError, InputError
from sciseq.sequencing import spectra
from sciseq.sequencing.spectra import (
    SKIP_REASONS,
    Peaks,
    PeakSettings,
    SkippedSpectrum,
    Spectrum,
    centroid,
    preprocess,
    spectrum_or_skip,
)

PROTON = 1.007276466879


@st.composite
def measured(draw: st.DrawFn) -> Spectrum:
    """A spectrum of 1 to 60 peaks, some of them out of range or at the precursor."""
    n_peaks = draw(st.integers(1, 60))
    mz = draw(st.lists(st.floats(10.0, 3000.0), min_size=n_peaks, max_size=n_peaks))
    height = st.floats(0.0, 1e9) | st.sampled_from([1.0, 1e-4, 1e4])
    heights = draw(st.lists(height, min_size=n_peaks, max_size=n_peaks))
    precursor_mz = draw(st.floats(200.0, 1500.0))
    return Spectrum(mz, heights, precursor_mz, charge=draw(st.integers(1, 4)))


LENIENT = PeakSettings(n_peaks=25, fewest_peaks=1)


def assert_invariants(spectrum: Spectrum, peaks: Peaks, settings: PeakSettings) -> None:
    """Card, section 16, number 3."""
    assert settings.fewest_peaks <= len(peaks.mz) <= settings.n_peaks
    assert np.all(np.diff(peaks.mz) >= 0)
    assert np.linalg.norm(peaks.intensity) == pytest.approx(1.0, abs=1e-12)
    assert peaks.mz.min() >= settings.minimum_mz
    assert peaks.mz.max() <= settings.maximum_mz
    mass = (spectrum.precursor_mz - PROTON) * peaks.charge
    for charge in range(1, peaks.charge + 1):
        distance = np.abs(peaks.mz - (mass / charge + PROTON))
        assert distance.min() > settings.precursor_tolerance
    highest = peaks.intensity.max()
    assert np.all(peaks.intensity >= settings.minimum_intensity * highest * (1 - 1e-12))


@settings(max_examples=50)
@given(measured())
def test_preprocessing_keeps_its_promises(spectrum):
    peaks = preprocess(spectrum, settings=LENIENT)
    if isinstance(peaks, SkippedSpectrum):
        assert peaks.reason == "too_few_peaks"
    else:
        assert_invariants(spectrum, peaks, LENIENT)


@settings(max_examples=50)
@given(measured(), st.integers(-30, 30))
def test_the_unit_of_intensity_does_not_matter(spectrum, power):
    # A power of two scales without rounding, so results are the same to the last bit.
    scaled = replace(spectrum, intensity=spectrum.intensity * 2.0**power)
    assert_same(
        preprocess(spectrum, settings=LENIENT), preprocess(scaled, settings=LENIENT)
    )


@settings(max_examples=50)
@given(measured(), st.randoms(use_true_random=False))
def test_the_order_of_peaks_does_not_matter(spectrum, random):
    order = list(range(len(spectrum.mz)))
    random.shuffle(order)
    shuffled = replace(
        spectrum, mz=spectrum.mz[order], intensity=spectrum.intensity[order]
    )
    assert_same(
        preprocess(spectrum, settings=LENIENT), preprocess(shuffled, settings=LENIENT)
    )


@settings(max_examples=50)
@given(measured())
def test_a_second_pass_removes_nothing(spectrum):
    first = preprocess(spectrum, settings=LENIENT)
    if isinstance(first, SkippedSpectrum):
        return
    again = preprocess(
        replace(spectrum, mz=first.mz, intensity=first.intensity), settings=LENIENT
    )
    np.testing.assert_array_equal(again.mz, first.mz)


def assert_same(one: Peaks | SkippedSpectrum, other: Peaks | SkippedSpectrum) -> None:
    assert type(one) is type(other)
    if isinstance(one, Peaks):
        np.testing.assert_array_equal(one.mz, other.mz)
        np.testing.assert_array_equal(one.intensity, other.intensity)


def test_a_preprocessing_that_forgets_the_reduced_charges_is_caught(monkeypatch):
    # The charge-reduced precursor at 1+ is the highest peak of this spectrum.
    mass = (500.0 - PROTON) * 2
    spectrum = Spectrum(
        [100.0, 200.0, 500.0, mass + PROTON], [1.0, 2.0, 3.0, 9.0], 500.0, charge=2
    )
    good = preprocess(spectrum, settings=LENIENT)
    np.testing.assert_array_equal(good.mz, [100.0, 200.0])
    monkeypatch.setattr(spectra, "range", lambda *_: [2], raising=False)
    bad = preprocess(spectrum, settings=LENIENT)
    with pytest.raises(AssertionError):
        assert_invariants(spectrum, bad, LENIENT)


def test_the_order_of_steps_is_that_of_the_card():
    # Root first, then 1 %: a peak of 0.0002 of the base is kept, one of 0.00005 is not.
    # The peak at 60 would be the base if the range were cut later.
    spectrum = Spectrum(
        [40.0, 100.0, 200.0, 300.0, 400.0],
        [1e9, 1e4, 2.0, 0.5, 2500.0],
        precursor_mz=900.0,
        charge=1,
    )
    peaks = preprocess(spectrum, settings=PeakSettings(fewest_peaks=1))
    np.testing.assert_array_equal(peaks.mz, [100.0, 200.0, 400.0])
    root = np.sqrt([1e4, 2.0, 2500.0])
    np.testing.assert_allclose(peaks.intensity, root / np.linalg.norm(root), rtol=1e-15)


def test_limits_are_inclusive_and_ties_go_to_the_lower_mz():
    settings = PeakSettings(n_peaks=2, fewest_peaks=1)
    spectrum = Spectrum(
        [50.0, 700.0, 2500.0, 2500.5], [1.0, 1.0, 1.0, 9.0], 1200.0, charge=1
    )
    np.testing.assert_array_equal(
        preprocess(spectrum, settings=settings).mz, [50.0, 700.0]
    )
    at_limit = Spectrum([100.0, 200.0], [1.0, 1e-4], 900.0, charge=1)
    kept = preprocess(at_limit, settings=settings)
    np.testing.assert_array_equal(kept.mz, [100.0, 200.0])


def test_each_refusal_has_its_reason():
    many = np.linspace(100.0, 800.0, 50)
    spectrum = Spectrum(many, np.ones(50), 900.0, identifier="index=7", source="a.mgf")
    assert preprocess(spectrum).reason == "missing_charge"
    assert preprocess(spectrum, charge=5).reason == "charge_limit"
    assert isinstance(preprocess(spectrum, 5, PeakSettings(largest_charge=5)), Peaks)
    profile = preprocess(replace(spectrum, is_profile=True), charge=2)
    assert profile.reason == "profile"
    assert "profile='centroid'" in profile.explanation
    few = preprocess(replace(spectrum, mz=many[:19], intensity=many[:19]), charge=2)
    assert (few.reason, few.identifier, few.source) == (
        "too_few_peaks",
        "index=7",
        "a.mgf",
    )
    silent = replace(spectrum, intensity=np.zeros(50), is_profile=True)
    picked = preprocess(silent, 2, PeakSettings(profile="centroid"))
    assert picked.reason == "too_few_peaks"


def test_several_charges_are_named_and_can_be_chosen():
    many = np.linspace(100.0, 800.0, 50)
    spectrum = Spectrum(many, np.ones(50), 900.0, charges=(2, 3))
    assert "it may be 2 or 3" in preprocess(spectrum).explanation
    assert preprocess(spectrum, charge=3).charge == 3


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"minimum_mz": -1.0}, "minimum_mz"),
        ({"maximum_mz": 50.0}, "maximum_mz"),
        ({"n_peaks": 0}, "n_peaks"),
        ({"precursor_tolerance": float("nan")}, "precursor_tolerance"),
        ({"minimum_intensity": 1.0}, "minimum_intensity"),
        ({"n_peaks": 10}, "fewest_peaks"),
        ({"largest_charge": 0}, "largest_charge"),
        ({"profile": "guess"}, "profile"),
    ],
)
def test_settings_out_of_range_are_refused(change, named):
    with pytest.raises(InputError, match=named):
        PeakSettings(**change)


def test_a_charge_below_one_is_refused():
    with pytest.raises(InputError, match="charge is 0"):
        preprocess(Spectrum([100.0], [1.0], 450.0), charge=0)


@pytest.mark.parametrize(
    ("mz", "intensity", "precursor_mz", "reason"),
    [
        ([], [], 450.0, "no_peaks"),
        ([-1.0], [1.0], 450.0, "malformed_peaks"),
        ([0.0], [1.0], 450.0, "malformed_peaks"),
        ([np.nan, 100.0], [1.0, 1.0], 450.0, "malformed_peaks"),
        ([np.inf], [1.0], 450.0, "malformed_peaks"),
        ([100.0], [np.nan], 450.0, "malformed_peaks"),
        ([100.0, 200.0], [1.0], 450.0, "malformed_peaks"),
        ([[100.0]], [[1.0]], 450.0, "malformed_peaks"),
        (["a"], [1.0], 450.0, "malformed_peaks"),
        ([100.0], [1.0], None, "missing_precursor"),
        ([100.0], [1.0], 0.0, "missing_precursor"),
        ([100.0], [1.0], np.nan, "missing_precursor"),
    ],
)
def test_what_cannot_be_a_spectrum_becomes_a_record(
    mz, intensity, precursor_mz, reason
):
    record = spectrum_or_skip(
        mz, intensity, precursor_mz, identifier="index=2", charge=2
    )
    assert isinstance(record, SkippedSpectrum)
    assert (record.reason, record.identifier, record.charge) == (reason, "index=2", 2)
    assert record.reason in SKIP_REASONS and record.explanation
    if precursor_mz is not None:
        with pytest.raises((DataQualityError, ValueError)):
            Spectrum(mz, intensity, precursor_mz)


def test_a_reason_outside_the_list_is_refused():
    with pytest.raises(InputError, match="no_such"):
        SkippedSpectrum("no_such", "it is so")


@given(
    st.floats(200.0, 1500.0),
    st.floats(0.003, 0.02),
    st.floats(1.0, 1e8),
    st.floats(-0.5, 0.5),
)
def test_centroiding_is_exact_for_a_gaussian(center, width, height, offset):
    step = width / 2
    x = center + step * (np.arange(-8, 9) + offset)
    profile = Spectrum(
        x, height * np.exp(-0.5 * ((x - center) / width) ** 2), 900.0, is_profile=True
    )
    picked = centroid(profile)
    assert not picked.is_profile
    top = np.argmax(picked.intensity)
    # The m/z itself has about 14 digits left after the subtraction of neighbours.
    assert picked.mz[top] == pytest.approx(center, abs=1e-7 * width / 1e-3)
    assert picked.intensity[top] == pytest.approx(height, rel=1e-6)


def test_a_picking_without_the_parabola_would_be_caught():
    x = 500.0 + 0.005 * np.arange(-8, 9)
    profile = np.exp(-0.5 * ((x - 500.002) / 0.01) ** 2)
    at_apex = x[np.argmax(profile)]
    assert abs(at_apex - 500.002) > 1e-3
    picked = centroid(Spectrum(x, profile, 900.0))
    assert abs(picked.mz[0] - 500.002) < 1e-9


def test_peaks_side_by_side_stay_apart_and_points_alone_stay():
    x = np.concatenate(
        [500.0 + 0.005 * np.arange(40), [600.0, 600.005], [700.0, 700.005]]
    )
    y = np.zeros(44)
    for center in (500.05, 500.15):
        y[:40] += np.exp(-0.5 * ((x[:40] - center) / 0.01) ** 2)
    y[40:] = 0.5, 0.0, 0.7, 0.2
    picked = centroid(Spectrum(x, y, 900.0))
    assert len(picked.mz) == 4
    np.testing.assert_allclose(picked.mz[:2], [500.05, 500.15], atol=1e-5)
    # Neither has a neighbour with signal on both sides: no parabola goes through it.
    np.testing.assert_array_equal(picked.mz[2:], [600.0, 700.0])


def test_spectra_are_sorted_once_and_keep_their_fields():
    spectrum = Spectrum([3.0, 1.0, 2.0, 1.0], [1, 9, 3, 4], 450.0, index=4, scan=17)
    np.testing.assert_array_equal(spectrum.mz, [1.0, 1.0, 2.0, 3.0])
    np.testing.assert_array_equal(spectrum.intensity, [4.0, 9.0, 3.0, 1.0])
    skipped = SkippedSpectrum.of(spectrum, "profile", "it is")
    assert (skipped.index, skipped.scan, skipped.precursor_mz) == (4, 17, 450.0)
