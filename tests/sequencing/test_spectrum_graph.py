"""Paths through the peaks: all of them, in their places, as the network is told."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peptide_toys import PEPTIDES, VOCABULARY, batch, ladder, network, spectrum

import sciseq
from sciseq import PeptideSequencer
from sciseq.sequencing import spectrum_graph
from sciseq.sequencing.ion_evidence import Peaks
from sciseq.sequencing.network import grown_weights
from sciseq.sequencing.objective import JointTraining
from sciseq.sequencing.peptide_batches import stack_peaks
from sciseq.sequencing.residues import PROTON, WATER, Vocabulary
from sciseq.sequencing.spectrum_graph import place_probabilities, steps_of

MASSES = np.array(VOCABULARY.masses)[~np.array(VOCABULARY.is_terminal)]
STEPS = steps_of(torch.from_numpy(MASSES))
FEW = np.array([57.021464, 71.037114, 87.032028])


def peaks_of(mz, mass, intensity=None):
    """One spectrum."""
    mz = np.sort(mz)
    heights = np.ones(len(mz)) if intensity is None else np.asarray(intensity)
    spectra = [(mz, heights)]
    return stack_peaks(spectra, np.array([mass]), np.array([2]), dtype=torch.float64)


def enumerated(mz, heights, mass, n_places):
    """Sum over the paths one by one."""
    module, whole = spectrum_graph, mass - WATER
    nodes = [(0.0, 0.0, False), (whole, 0.0, True)]
    for one, height in zip(mz, heights / heights.max(), strict=True):
        both = (one - PROTON - WATER, whole - (one - PROTON))
        nodes += [(place, height, False) for place in both if 0 < place < whole]
    nodes.sort(key=lambda one: one[0])

    def tolerance(place):
        return min(max(15e-6 * place, 0.004), 0.018)

    def weight(index):
        place, height, is_end = nodes[index]
        if is_end:
            return 1.0
        near = [index - 1] if place - nodes[index - 1][0] <= tolerance(place) else []
        after = nodes[index + 1][0]
        near += [index + 1] if after - place <= tolerance(after) else []
        other = max((nodes[one][1] for one in near), default=0.0)
        return math.exp(
            module._NODE + module._HEIGHT * height + module._COMPLEMENT * other
        )

    found, total = np.zeros((n_places, len(FEW) + 1)), 0.0

    def follow(index, residues, product):
        nonlocal total
        place, _, is_end = nodes[index]
        ended = product * (math.exp(module._LOST) + is_end)
        total += ended
        for at, shares in enumerate(residues[:n_places]):
            found[at, :-1] += ended * np.asarray(shares)
        found[len(residues) :, -1] += product * is_end
        for other in range(index + 1, len(nodes)):
            apart = nodes[other][0] - place
            allowed = tolerance(nodes[other][0])
            closeness = 1 - np.abs(apart - FEW) / allowed
            if closeness.max() > 0:
                step = [np.eye(3)[closeness.argmax()]]
                weighed = product * closeness.max() * weight(other)
                follow(other, residues + step, weighed)
            pairs = [(i, j) for i in range(3) for j in range(3)]
            closeness = np.array(
                [1 - abs(apart - FEW[i] - FEW[j]) / allowed for i, j in pairs]
            )
            best = closeness.max()
            if best > 0:
                same = [one for one, near in zip(pairs, closeness, strict=True)
                        if near > best - 1e-6]  # fmt: skip
                shares = np.mean([np.eye(3)[i] + np.eye(3)[j] for i, j in same], 0) / 2
                weighed = product * best * weight(other) * math.exp(module._TWO)
                follow(other, [*residues, shares, shares], weighed)

    follow(0, [], 1.0)
    return found / total


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.integers(2, 6))
def test_all_paths_are_summed(seed, n_residues):
    rng = np.random.default_rng(seed)
    sums = np.cumsum(rng.choice(FEW, n_residues))
    mass = sums[-1] + WATER
    y, b = sums[:-1] + WATER + PROTON, mass - WATER - sums[:-1] + PROTON
    mz = np.concatenate([y, b])[rng.random(2 * n_residues - 2) < 0.8]
    mz = np.sort(np.append(mz, rng.uniform(60, mass, 3)) * (1 + rng.normal(0, 4e-6)))
    heights = rng.uniform(0.1, 1.0, len(mz))
    found = place_probabilities(
        peaks_of(mz, mass, heights), steps_of(torch.from_numpy(FEW)), 5
    )[0]
    wanted = enumerated(mz, heights, mass, 5)
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-7, atol=1e-10)


def probability_of(found, mass):
    """Probability of all residues of a mass, place by place."""
    return found[:, :-1][:, np.isclose(MASSES, mass, rtol=0, atol=1e-4)].sum(axis=1)


@pytest.mark.parametrize("peptide", ["PEPTLDEK", "AAGLLEVK", "LDKGGFWYK"])
def test_a_whole_ladder_tells_every_place(peptide):
    tokens = VOCABULARY.encode(peptide)
    peaks = peaks_of(ladder(peptide, noise=0)[0], VOCABULARY.mass(tokens))
    found = place_probabilities(peaks, STEPS, 12)[0].numpy()
    masses = VOCABULARY.token_masses(peptide)[::-1]
    for place, mass in enumerate(masses):
        assert probability_of(found, mass)[place] > 0.95
    assert (found[len(tokens) :, -1] > 0.99).all()
    assert (found[: len(tokens), -1] < 0.05).all()


def test_what_weighs_the_same_is_as_probable():
    peaks = peaks_of(ladder("PEPTLDEK", noise=0)[0], VOCABULARY.mass(
        VOCABULARY.encode("PEPTLDEK")))  # fmt: skip
    found = place_probabilities(peaks, STEPS, 8)[0, :, :-1].numpy()
    residues = [one for one in VOCABULARY.tokens if one[0] != "["]
    for one, other in (("D", "N"), ("E", "Q")):
        pair = [residues.index(one), residues.index(f"{other}[Deamidated]")]
        assert found[:, pair].max() > 0.4
        # Sums over a row may be taken in another order for the last columns.
        np.testing.assert_allclose(*found[:, pair].T, rtol=1e-14, atol=0)


def test_a_missing_peak_leaves_two_residues(monkeypatch):
    peptide = "LDKGGFWYK"
    masses = VOCABULARY.token_masses(peptide)[::-1]
    y = np.delete(np.cumsum(masses)[:-1], 2) + WATER + PROTON  # W and F together
    peaks = peaks_of(y, VOCABULARY.mass(VOCABULARY.encode(peptide)))

    def told():
        return place_probabilities(peaks, STEPS, 9)[0].numpy()

    found = told()
    for residue in masses[2:4]:
        assert probability_of(found, residue)[2:4] == pytest.approx(0.5, abs=0.02)
    assert probability_of(found, masses[1])[1] > 0.95
    assert probability_of(found, masses[-1])[8] > 0.9
    monkeypatch.setattr(spectrum_graph, "_TWO", -math.inf)
    assert told()[2:].max() < 1e-6  # no way across


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 40), st.integers(1, 15))
def test_they_are_probabilities(seed, n_peaks, n_places):
    rng = np.random.default_rng(seed)
    peaks = peaks_of(rng.uniform(50, 1500, n_peaks), rng.uniform(100, 2000))
    found = place_probabilities(peaks, STEPS, n_places)[0]
    assert found.isfinite().all() and found.min() >= 0
    assert found.sum(dim=1).max() <= 1 + 1e-9
    assert found[:, -1].diff().min() >= 0 if n_places > 1 else True


@pytest.mark.parametrize("n_residues", [100, 250])
def test_odd_masses_do_no_harm(n_residues):
    y = 57.021464 * np.arange(1, n_residues) + WATER + PROTON
    for mass in (57.021464 * n_residues + WATER, 10.0, -5.0, 3e5):
        found = place_probabilities(peaks_of(y, mass), STEPS, 40)
        assert found.isfinite().all() and 0 <= found.min() <= found.max() <= 1 + 1e-9


def test_alone_or_in_a_batch_is_the_same():
    peaks = batch().peaks
    together = place_probabilities(peaks, STEPS, 12)
    for row, peptide in enumerate(PEPTIDES):
        alone = place_probabilities(batch([peptide]).peaks, STEPS, 12)[0]
        torch.testing.assert_close(together[row], alone, rtol=0, atol=1e-12)
    order = torch.tensor([2, 0, 3, 1])
    turned = place_probabilities(Peaks(*(one[order] for one in peaks)), STEPS, 12)
    torch.testing.assert_close(turned, together[order], rtol=0, atol=1e-12)


def test_the_network_is_told_and_nothing_else_changes():
    plain, told = network(), network(spectrum_graph=True)
    added = told.state_dict().keys() - plain.state_dict().keys()
    assert added == {"nonautoregressive.told.weight"}
    peaks = batch().peaks
    with torch.no_grad():
        memory = told.encode(peaks)
        states = told.slot_states(peaks, memory)
        told.nonautoregressive.told.weight.zero_()
        assert (told.slot_states(peaks, memory) - states).abs().max() > 1e-3
    alone = network(spectrum_graph=True, decoder="autoregressive")
    assert alone.state_dict().keys() == (
        network(decoder="autoregressive").state_dict().keys()
    )


@pytest.mark.parametrize("glancing", [False, True])
def test_what_it_is_told_is_trained(glancing):
    net = network(spectrum_graph=True, glancing=glancing, decoder="nonautoregressive")
    if glancing:
        net.nonautoregressive.coins.generator = torch.Generator()
    JointTraining()(net.train(), batch())[0].backward()
    assert net.nonautoregressive.told.weight.grad.abs().max() > 0


def test_a_vocabulary_can_grow():
    more = Vocabulary().with_modifications(["Phospho@ST"])
    old = network(spectrum_graph=True).state_dict()
    fresh = network(1, spectrum_graph=True, vocabulary=more).state_dict()
    name, n = "nonautoregressive.told.weight", len(MASSES)
    grown = grown_weights(old, fresh)[name]
    assert grown.shape == (16, n + 3)
    assert torch.equal(grown[:, :n], old[name][:, :n])
    assert torch.equal(grown[:, -1], old[name][:, -1])
    assert torch.equal(grown[:, n:-1], fresh[name][:, n:-1])


def test_fit_and_save(tmp_path):
    model = PeptideSequencer(
        d_model=16, d_ff=16, n_layers=1, n_heads=2, most_residues=12, max_epochs=1,
        cross_epochs=1, batch_size=4, random_state=0, device="cpu", n_peaks=40,
        spectrum_graph=True,
    )  # fmt: skip
    spectra = [spectrum(one, 2) for one in PEPTIDES]
    expected = model.fit(spectra).predict_table(spectra)
    model.save(tmp_path / "model")
    found = sciseq.load(tmp_path / "model").predict_table(spectra)
    assert list(found["peptide"]) == list(expected["peptide"])
    np.testing.assert_array_equal(found["score"], expected["score"])
