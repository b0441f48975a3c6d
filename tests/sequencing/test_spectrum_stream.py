"""Simulated spectra without end: equal for equal seeds, other ones in every epoch."""

import numpy as np
import pytest
import torch
from peptide_toys import VOCABULARY, spectrum

from sciseq import PeptideSequencer
from sciseq.errors import DataQualityError, InputError
from sciseq.sequencing.masses import neutral_mass
from sciseq.sequencing.simulator import Physics, Simulator
from sciseq.sequencing.spectra import PeakSettings, preprocess
from sciseq.sequencing.spectrum_stream import SpectrumStream, StreamBatches

NAMES = ["PEPTLDEK", "AAGLLEVK", "GASPVTLK", "LDKGGFWYK", "SSMTAR", "VVLNDQEK"]
SETTINGS = PeakSettings()
TINY = {
    "d_model": 16, "d_ff": 16, "n_layers": 1, "n_heads": 2, "n_peaks": 60,
    "most_residues": 12, "max_epochs": 2, "cross_epochs": 1, "batch_size": 8,
    "random_state": 0, "device": "cpu", "dropout": 0.0,
}  # fmt: skip


@pytest.fixture(scope="module")
def simulator():
    return Simulator(NAMES)


def epoch(stream, number=0, settings=SETTINGS):
    return stream.epoch(number, settings, most_residues=40)


def equal(one, other):
    return all(
        torch.equal(a, b)
        for mine, theirs in zip(one, other, strict=True)
        for a, b in zip(mine, theirs, strict=True)
    )


def test_an_epoch_is_what_the_simulator_gives_preprocessed(simulator):
    peaks, targets = epoch(simulator.stream(20))
    made = simulator.sample_arrays(20, np.random.default_rng([0, 0, 0]))
    for row in range(20):
        one = made.spectrum(row, VOCABULARY)
        wanted = preprocess(one, one.charge, SETTINGS)
        n = len(wanted.mz)
        assert np.array_equal(peaks.mz[row, :n], wanted.mz)
        assert torch.isinf(peaks.mz[row, n:]).all()
        assert np.array_equal(peaks.intensity[row, :n], wanted.intensity)
        assert peaks.charge[row] == one.charge
        mass = neutral_mass(one.precursor_mz, one.charge)
        assert peaks.precursor_mass[row] == float(mass)
        tokens = targets.tokens[row, : targets.lengths[row]].numpy()[::-1]
        assert VOCABULARY.decode(tokens) == one.peptide


def test_epochs_differ_and_equal_seeds_do_not(simulator):
    stream = simulator.stream(16)
    assert equal(epoch(stream, 1), epoch(simulator.stream(16), 1))
    assert not equal(epoch(stream, 0), epoch(stream, 1))
    assert not equal(epoch(stream), epoch(simulator.stream(16, random_state=1)))
    held = stream.held_out(16, SETTINGS, most_residues=40)
    assert not any(equal(held, epoch(stream, number)) for number in range(3))


def test_the_number_of_workers_changes_nothing(simulator, monkeypatch):
    monkeypatch.setattr("sciseq.sequencing.spectrum_stream._SHARD", 16)
    # Several shards of different widths, in other processes.
    one = epoch(simulator.stream(40))
    assert len(one[0].mz) == 40
    assert equal(one, epoch(simulator.stream(40, n_workers=2)))


def test_spectra_that_cannot_be_used_are_replaced(simulator):
    strict = PeakSettings(fewest_peaks=130, largest_charge=2)
    peaks, _ = epoch(simulator.stream(24), settings=strict)
    assert len(peaks.mz) == 24
    assert (peaks.mz.isfinite().sum(dim=1) >= 130).all()
    assert (peaks.charge <= 2).all()
    hopeless = PeakSettings(n_peaks=5000, fewest_peaks=5000)
    with pytest.raises(DataQualityError, match="0 can be used"):
        epoch(simulator.stream(8), settings=hopeless)


def test_what_was_replaced_is_counted(simulator, monkeypatch):
    strict = PeakSettings(fewest_peaks=130, largest_charge=2)
    monkeypatch.setattr("sciseq.sequencing.spectrum_stream._SHARD", 16)
    sizes = []
    real = Simulator.sample_arrays

    def counted(self, n, rng):
        sizes.append(n)
        return real(self, n, rng)

    stream = simulator.stream(24)
    assert (stream.replaced, stream.n_crowded) == ({}, 0)
    with monkeypatch.context() as patch:
        patch.setattr(Simulator, "sample_arrays", counted)
        epoch(stream, 0, strict)
    first = stream.replaced
    assert len(sizes) > 2  # some of those that replaced others were replaced too
    assert sum(first.values()) == sum(sizes) - 24
    assert sizes[1] < sum(first.values())  # not those of the first draw alone
    assert set(first) == {"too_few_peaks", "charge_limit"}
    assert list(first.values()) == sorted(first.values(), reverse=True)
    # An epoch counts once; what is held out does not count.
    epoch(stream, 0, strict)
    stream.held_out(24, strict, most_residues=40)
    assert stream.replaced == first
    epoch(stream, 1, strict)
    other = simulator.stream(24, n_workers=2)
    epoch(other, 1, strict)
    both = {one: first[one] + other.replaced[one] for one in first}
    assert stream.replaced == both


def test_long_and_crowded_peptides_are_counted():
    # Nine residues, and four blanks between equal ones.
    names = ["AAGGLLEEK", "GASPVTLLDEK"]
    simulator = Simulator(names, modifications={}, charges={2: 1.0})
    stream = simulator.stream(40)
    _, targets = stream.epoch(0, SETTINGS, most_residues=10)
    assert (targets.lengths == 9).all()
    assert list(stream.replaced) == ["its peptide is longer than 10 residues"]
    assert stream.n_crowded == 40
    stream.epoch(0, SETTINGS, most_residues=12)
    assert stream.replaced == {}
    assert 0 < stream.n_crowded < 40  # the other one needs exactly twelve
    stream.epoch(0, SETTINGS, most_residues=13)
    assert stream.n_crowded == 0


def test_a_fit_says_what_was_replaced():
    simulator = Simulator([*NAMES, "GASPVTLKLDEKVNDR"], modifications={})
    stream = simulator.stream(16)
    model = PeptideSequencer(**TINY).fit(stream)
    assert stream.replaced["its peptide is longer than 12 residues"] > 0
    assert model.skipped_ == []  # nothing of the user's is missing


def test_wrong_numbers_are_refused(simulator):
    for changes in ({"n_per_epoch": 0}, {"n_workers": 0}, {"random_state": -1}):
        with pytest.raises(InputError, match=next(iter(changes))):
            SpectrumStream(simulator, **{"n_per_epoch": 8, **changes})


def test_the_fingerprint_tells_what_spectra_depend_on(simulator):
    prints = [
        one.stream(8).fingerprint()
        for one in (
            simulator,
            Simulator(NAMES[1:]),
            Simulator(NAMES, charges={2: 1.0}),
            Simulator(NAMES, physics=Physics()),
            Simulator(NAMES, modifications={"M[Oxidation]": 0.5}),
            Simulator(NAMES, modifications={"M[Oxidation]": 0.25}),
        )
    ]
    prints += [
        simulator.stream(9).fingerprint(),
        simulator.stream(8, random_state=1).fingerprint(),
    ]
    assert len(set(prints)) == len(prints)
    assert Simulator(NAMES).stream(8, n_workers=3).fingerprint() == prints[0]


@pytest.mark.parametrize("n_workers", [1, 2])
def test_batches_show_the_epoch_that_was_begun(simulator, n_workers):
    stream = simulator.stream(12, n_workers=n_workers)
    batches = StreamBatches(stream, SETTINGS, 40, torch.device("cpu"), torch.float32)
    rows = torch.tensor([3, 1])
    for number in (0, 1, 0):
        batches.begin(number, 2)
        found = batches.gather(rows)
        peaks, _ = epoch(stream, number)
        width = found.peaks.mz.shape[1]
        assert torch.equal(found.peaks.mz, peaks.mz[rows, :width])
        assert found.peaks.intensity.dtype == torch.float32
    assert batches.n_items == 12


def test_fit_shows_other_spectra_in_every_epoch(simulator, monkeypatch):
    seen = []
    real = SpectrumStream.epoch

    def recorded(self, number, *args, **kwargs):
        seen.append((self.n_per_epoch, number))
        return real(self, number, *args, **kwargs)

    monkeypatch.setattr(SpectrumStream, "epoch", recorded)
    PeptideSequencer(**TINY, validation_fraction=0.25).fit(simulator.stream(16))
    numbers = [number for size, number in seen if size == 16]
    assert numbers == [0, 1, 2]  # the third is that of the second stage
    assert [size for size, number in seen if number > 2] == [4]  # held out


def test_a_stopped_run_goes_on_with_the_epochs_it_has_not_seen(simulator, tmp_path):
    stream = simulator.stream(16)
    whole = PeptideSequencer(**TINY).fit(stream)
    folder = tmp_path / "run"

    class StoppedError(Exception):
        pass

    seen = []
    real = SpectrumStream.epoch

    def stopping(self, number, *args, **kwargs):
        seen.append(number)
        if number == 1 and seen.count(1) == 1:
            raise StoppedError
        return real(self, number, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SpectrumStream, "epoch", stopping)
        with pytest.raises(StoppedError):
            PeptideSequencer(**TINY, checkpoint_dir=folder).fit(stream)
        resumed = PeptideSequencer(**TINY, checkpoint_dir=folder).fit(stream)
    assert seen.count(0) == 1
    for one, other in zip(
        whole.network_.parameters(), resumed.network_.parameters(), strict=True
    ):
        assert torch.equal(one, other)


def test_streams_are_checked(simulator):
    with pytest.raises(InputError, match="peptides of its own"):
        PeptideSequencer(**TINY).fit(simulator.stream(8), ["PEPTLDEK"] * 8)
    model = PeptideSequencer(**TINY, modifications=["Phospho@S"])
    with pytest.raises(InputError, match="Phospho"):
        model.fit(simulator.stream(8))


def test_validation_data_choose_the_epoch(simulator):
    held = [spectrum(one) for one in NAMES]
    model = PeptideSequencer(**TINY).fit(simulator.stream(16), validation_data=held)
    other = PeptideSequencer(**TINY).fit(simulator.stream(16))
    losses = [
        [row["validation_loss"] for row in one.history_] for one in (model, other)
    ]
    assert losses[0] != losses[1]
    # With spectra as X no share of them is held out then.
    both = PeptideSequencer(**{**TINY, "batch_size": 2}).fit(
        held, validation_data=held[:2]
    )
    assert len(both.history_) == 3


def test_the_nonautoregressive_loss_keeps_its_least_weight(simulator, monkeypatch):
    from sciseq.sequencing.objective import JointTraining

    weights = []
    real = JointTraining.on_step

    def recorded(self, step, n_steps):
        real(self, step, n_steps)
        weights.append(self.weight)

    monkeypatch.setattr(JointTraining, "on_step", recorded)
    PeptideSequencer(**TINY, min_nar_weight=0.25).fit(simulator.stream(32))
    assert weights[0] == 0.0
    assert weights[-1] == 0.75


def test_held_out_spectra_have_the_precision_of_the_network(simulator):
    """Float64 is what autocast leaves alone: a layer would see two kinds of numbers."""
    model = PeptideSequencer(**TINY, precision="bfloat16", spectrum_graph=True)
    model.fit(simulator.stream(24))
    assert all(np.isfinite(one["validation_loss"]) for one in model.history_)
