"""How paths through the peaks lead on from a candidate to the end."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peptide_toys import PEPTIDES, VOCABULARY, batch, ladder, network, spectrum

import sciseq
from sciseq import PeptideSequencer
from sciseq.errors import InputError
from sciseq.sequencing import path_evidence, spectrum_graph
from sciseq.sequencing.ion_evidence import N_FEATURES, Peaks, candidates_of
from sciseq.sequencing.network import Sought, grown_weights
from sciseq.sequencing.objective import JointTraining
from sciseq.sequencing.path_evidence import (
    N_PATH_FEATURES,
    onward_evidence,
    onward_of,
)
from sciseq.sequencing.peptide_batches import stack_peaks
from sciseq.sequencing.peptide_search import CachedDecoder
from sciseq.sequencing.residues import PROTON, WATER, Vocabulary
from sciseq.sequencing.spectrum_graph import MISSING, node_weights, steps_of

MASSES = torch.from_numpy(np.array(VOCABULARY.masses))
IS_TERMINAL = torch.from_numpy(np.array(VOCABULARY.is_terminal))
STEPS = steps_of(MASSES[~IS_TERMINAL])
ALL = candidates_of(MASSES)
CANDIDATES = ALL._replace(place=ALL.place[:, ~IS_TERMINAL])

FEW = np.array([57.021464, 71.037114, 87.032028])
ACETYL = 42.010565


def peaks_of(mz, mass, intensity=None):
    """One spectrum."""
    mz = np.sort(mz)
    heights = np.ones(len(mz)) if intensity is None else np.asarray(intensity)
    spectra = [(mz, heights)]
    return stack_peaks(spectra, np.array([mass]), np.array([2]), dtype=torch.float64)


def allowed(place):
    return min(max(15e-6 * place, 0.004), 0.018)


def listed_nodes(mz, heights, mass, ends):
    """Masses and weights of all nodes, and which are ends, one by one."""
    module, whole = spectrum_graph, mass - WATER
    nodes = [(0.0, 0.0, False)] + [(one, 0.0, True) for one in ends]
    for one, height in zip(mz, heights / heights.max(), strict=True):
        both = (one - PROTON - WATER, whole - (one - PROTON))
        nodes += [(place, height, False) for place in both if 0 < place < whole]
    nodes.sort(key=lambda one: one[0])
    weights = []
    for index, (place, height, is_end) in enumerate(nodes):
        near = [
            nodes[other][1]
            for other in (index - 1, index + 1)
            if 0 <= other < len(nodes)
            and abs(nodes[other][0] - place) <= allowed(max(place, nodes[other][0]))
        ]
        log = module._NODE + module._HEIGHT * height
        log += module._COMPLEMENT * max(near, default=0.0)
        weights.append(1.0 if is_end else math.exp(log))
    places, _, is_end = (np.array(one) for one in zip(*nodes, strict=True))
    return places, np.array(weights), is_end.astype(bool)


def weight_onwards(index, places, weights, is_end):
    """Sum over all paths from a node, one by one."""
    total = math.exp(spectrum_graph._LOST) + is_end[index]
    for other in range(index + 1, len(places)):
        apart = places[other] - places[index]
        for masses, price in (
            (FEW, 1.0),
            ((FEW[:, None] + FEW).ravel(), math.exp(spectrum_graph._TWO)),
        ):
            closeness = 1 - np.abs(apart - masses).min() / allowed(places[other])
            if closeness > 0:
                onwards = weight_onwards(other, places, weights, is_end)
                total += closeness * price * weights[other] * onwards
    return total


def toy(seed, n_residues):
    """Peaks of a peptide with an acetyl group, some missing, some of noise."""
    rng = np.random.default_rng(seed)
    sums = np.cumsum(np.append(rng.choice(FEW, n_residues), ACETYL))
    mass = sums[-1] + WATER
    y, b = sums[:-1] + WATER + PROTON, mass - WATER - sums[:-1] + PROTON
    mz = np.concatenate([y[:-1], b[:-1]])
    mz = mz[rng.random(len(mz)) < 0.8]
    mz = np.sort(np.append(mz, rng.uniform(60, mass, 3)) * (1 + rng.normal(0, 4e-6)))
    return mz, rng.uniform(0.1, 1.0, len(mz)), mass


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.integers(2, 5))
def test_all_paths_onwards_are_summed(seed, n_residues):
    mz, heights, mass = toy(seed, n_residues)
    ends = [mass - WATER, mass - WATER - ACETYL]
    places, weights, is_end = listed_nodes(mz, heights, mass, ends)
    after = [weight_onwards(one, places, weights, is_end) for one in range(len(places))]
    terminal = torch.tensor([ACETYL], dtype=torch.float64)
    steps = steps_of(torch.from_numpy(FEW))
    found, weight = node_weights(peaks_of(mz, mass, heights), steps, terminal)
    is_node = found[0] < spectrum_graph.NOWHERE
    np.testing.assert_allclose(found[0, is_node].numpy(), places, atol=1e-9)
    np.testing.assert_allclose(
        weight[0, is_node].exp().numpy(), weights * after, rtol=1e-7
    )
    # Without the end before the acetyl group it is another sum.
    other = node_weights(peaks_of(mz, mass, heights), steps, terminal[:0])[1]
    assert (other[0, 0] - weight[0, 0]).abs() > 1e-3


def one_by_one(peaks, prefix):
    """The features of one place, candidate by candidate."""
    mass, weight = node_weights(peaks, STEPS, MASSES[IS_TERMINAL])
    mass, weight = mass[0].numpy(), weight[0].numpy()

    def best(place):
        tolerances = np.clip(15e-6 * mass, 0.004, 0.018)
        return weight[np.abs(mass - place) < tolerances].max(initial=-np.inf)

    values, whole = [], float(peaks.precursor_mass[0]) - WATER
    residues = MASSES[~IS_TERMINAL].tolist()
    for own, is_terminal in zip(MASSES.tolist(), IS_TERMINAL.tolist(), strict=True):
        place = prefix + own
        if is_terminal:
            values.append(0.0 if abs(place - whole) < allowed(place) else -np.inf)
        else:
            bridged = max(best(place + one) for one in residues)
            values.append(max(best(place), MISSING + bridged))
    values = np.array(values)
    if not np.isfinite(values).any():
        return np.zeros((len(values), 2))
    below = values - values.max()
    share = np.exp(below) / np.exp(below).sum()
    return np.stack([np.maximum(1 + below / 16, 0), share], axis=1)


@pytest.mark.parametrize("peptide", PEPTIDES)
def test_features_one_by_one(peptide):
    mz, heights = ladder(peptide, noise=40)
    order = np.argsort(mz)[::2]  # half of the peaks are missing
    tokens = VOCABULARY.encode(peptide)
    peaks = peaks_of(mz[order], VOCABULARY.mass(tokens), heights[order])
    masses = MASSES[tokens[::-1].copy()]
    prefix = torch.nn.functional.pad(masses.cumsum(0), (1, 0))[None]
    onward = onward_of(peaks, STEPS, MASSES[IS_TERMINAL])
    found = onward_evidence(onward, prefix, CANDIDATES, IS_TERMINAL)[0].numpy()
    assert found.shape == (len(tokens) + 1, len(MASSES), N_PATH_FEATURES)
    for place in range(len(found)):
        wanted = one_by_one(peaks, float(prefix[0, place]))
        np.testing.assert_allclose(found[place], wanted, atol=1e-9)
    assert (found[-1] == 0).all()  # nothing goes on behind the end
    # Where other paths than those of the right place are looked up, it is noticed.
    wrong = onward_evidence(onward, prefix + 1.0, CANDIDATES, IS_TERMINAL)[0].numpy()
    assert np.abs(wrong - found).max() > 0.5


def truth(peptide, peaks):
    """Features (place, 2) of the true candidates after true residues."""
    tokens = torch.from_numpy(VOCABULARY.encode(peptide)[::-1].copy())
    prefix = torch.nn.functional.pad(MASSES[tokens].cumsum(0), (1, 0))[None, :-1]
    onward = onward_of(peaks, STEPS, MASSES[IS_TERMINAL])
    found = onward_evidence(onward, prefix, CANDIDATES, IS_TERMINAL)[0]
    return found[torch.arange(len(tokens)), tokens].numpy()


@pytest.mark.parametrize("peptide", PEPTIDES)
def test_a_whole_ladder_leads_to_the_end(peptide):
    mass = VOCABULARY.mass(VOCABULARY.encode(peptide))
    found = truth(peptide, peaks_of(ladder(peptide, noise=0)[0], mass))
    assert found[:, 0].min() == 1  # the best of every place, the terminal one included
    # Two residues weigh the same, and as much as an acetyl group with serine.
    assert found[:, 1].min() > 0.33


def test_terminal_modifications_only_end_a_peptide():
    peptide = "[Acetyl]-SSM[Oxidation]TAR"
    mass = VOCABULARY.mass(VOCABULARY.encode(peptide))
    peaks = peaks_of(ladder(peptide, noise=0)[0], mass)
    onward = onward_of(peaks, STEPS, MASSES[IS_TERMINAL])
    acetyl = VOCABULARY.encode(peptide)[0]
    # From a place 42 Da before a peak it is no candidate, although paths go on there.
    prefix = MASSES[VOCABULARY.encode("R")][None] - MASSES[acetyl]
    found = onward_evidence(onward, prefix, CANDIDATES, IS_TERMINAL)
    assert (found[..., acetyl, :] == 0).all()
    wrong = onward_evidence(onward, prefix, CANDIDATES, torch.zeros_like(IS_TERMINAL))
    assert wrong[..., acetyl, 0] == 1


def test_one_missing_peak_is_bridged(monkeypatch):
    peptide = "LDKGGFWYK"
    masses = VOCABULARY.token_masses(peptide)[::-1]
    y = np.delete(np.cumsum(masses)[:-1], 2) + WATER + PROTON  # between W and F
    peaks = peaks_of(y, VOCABULARY.mass(VOCABULARY.encode(peptide)))
    found = truth(peptide, peaks)
    assert found[:, 0].min() > 0.9
    monkeypatch.setattr(path_evidence, "MISSING", -math.inf)
    assert truth(peptide, peaks)[2, 0] == 0


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 40))
def test_features_are_between_0_and_1(seed, n_peaks):
    rng = np.random.default_rng(seed)
    mass = rng.uniform(100, 2000)
    peaks = peaks_of(rng.uniform(50, 1500, n_peaks), mass)
    onward = onward_of(peaks, STEPS, MASSES[IS_TERMINAL])
    prefix = torch.from_numpy(rng.uniform(-50, mass + 50, (1, 7)))
    found = onward_evidence(onward, prefix, CANDIDATES, IS_TERMINAL)
    assert found.isfinite().all() and found.min() >= 0 and found.max() <= 1
    total = found[..., 1].sum(dim=-1)
    assert ((total == 0) | ((total - 1).abs() < 1e-9)).all()
    assert ((found[..., 0].amax(dim=-1) == 1) == (total > 0)).all()


@pytest.mark.parametrize("mass", [57.021464 * 250 + WATER, 10.0, -5.0, 3e5, 1e5])
def test_odd_masses_do_no_harm(mass):
    y = 57.021464 * np.arange(1, 250) + WATER + PROTON
    onward = onward_of(peaks_of(y, mass), STEPS, MASSES[IS_TERMINAL])
    prefix = torch.arange(0.0, 3000.0, 57.021464, dtype=torch.float64)[None]
    found = onward_evidence(onward, prefix, CANDIDATES, IS_TERMINAL)
    assert found.isfinite().all() and 0 <= found.min() <= found.max() <= 1


def test_alone_or_in_a_batch_and_padded_is_the_same():
    peaks, terminal = batch().peaks, MASSES[IS_TERMINAL]
    prefix = MASSES[batch().targets.tokens].cumsum(dim=1)

    def told(peaks, prefix):
        onward = onward_of(peaks, STEPS, terminal)
        return onward_evidence(onward, prefix, CANDIDATES, IS_TERMINAL)

    together = told(peaks, prefix)
    padded = peaks._replace(
        mz=torch.nn.functional.pad(peaks.mz, (0, 9), value=torch.inf),
        intensity=torch.nn.functional.pad(peaks.intensity, (0, 9)),
    )
    assert torch.equal(told(padded, prefix), together)
    for row, peptide in enumerate(PEPTIDES):
        alone = told(batch([peptide]).peaks, prefix[row : row + 1])[0]
        assert torch.equal(alone, together[row])
    order = torch.tensor([2, 0, 3, 1])
    turned = told(Peaks(*(one[order] for one in peaks)), prefix[order])
    assert torch.equal(turned, together[order])


# ------------------------------------------------------------------ the network


def test_the_network_is_told_and_nothing_else_changes():
    plain = network(decoder="autoregressive")
    told = network(decoder="autoregressive", path_evidence=True)
    own, other = plain.state_dict(), told.state_dict()
    assert own.keys() == other.keys()
    wider = {name for name in own if own[name].shape != other[name].shape}
    assert all(N_FEATURES + N_PATH_FEATURES in other[name].shape for name in wider)
    assert {name.split(".")[1] for name in wider} == {"features", "scorer"}
    memory = told.cross_memory(told.encode(batch().peaks), None)
    scores = told.forced_scores(batch().peaks, memory, batch().targets)
    with torch.no_grad():
        told.autoregressive.features.weight[:, N_FEATURES:] = 0.0
    again = told.forced_scores(batch().peaks, memory, batch().targets)
    assert (again - scores).abs().max() > 1e-4
    for changes in ({"evidence": False}, {"decoder": "nonautoregressive"}):
        assert network(path_evidence=True, **changes).state_dict().keys() == (
            network(**changes).state_dict().keys()
        )


def test_without_it_weights_are_drawn_as_before():
    drawn = network().state_dict()
    assert drawn["autoregressive.features.weight"].shape == (16, 17)
    sums = [float(drawn[name].abs().sum()) for name in (
        "encoder.peaks.weight", "autoregressive.features.weight",
        "autoregressive.found.weight",
        "nonautoregressive.layers.1.feed_forward.W1.weight",
    )]  # fmt: skip
    # As drawn before there were paths.
    before = [45.02812595, 30.84503696, 30.99149531, 33.39908683]
    np.testing.assert_allclose(sums, before, rtol=0, atol=1e-5)
    other = network(path_evidence=True).state_dict()
    assert not torch.equal(other["autoregressive.found.weight"],
                           drawn["autoregressive.found.weight"])  # fmt: skip


@pytest.mark.parametrize("is_crossed", [True, False])
def test_cached_steps_equal_the_forward_pass(is_crossed):
    net, toys = network(path_evidence=True), batch()
    if is_crossed:
        net.begin_cross_training()

    def logs_of_steps(decoder, n_places):
        decoder.start(len(PEPTIDES), 2, 12)
        tokens = toys.targets.tokens[:, None].expand(-1, 2, -1)
        made = [decoder.step(tokens[..., :place]) for place in range(n_places)]
        return torch.stack(made, dim=2).double()

    with torch.no_grad():
        memory = net.encode(toys.peaks)
        states = net.slot_states(toys.peaks, memory) if is_crossed else None
        memory = net.cross_memory(memory, states)
        n_places = int(toys.targets.lengths.min()) + 1
        whole = net.forced_scores(toys.peaks, memory, toys.targets).log_softmax(-1)
        whole = whole[:, None, :n_places].expand(-1, 2, -1, -1)
        decoder = CachedDecoder(net, toys.peaks)
        found = logs_of_steps(decoder, n_places)
        torch.testing.assert_close(found, whole, rtol=0, atol=1e-5)
        # With the paths of another spectrum it is something else.
        other = torch.tensor([1, 2, 3, 0])
        decoder = CachedDecoder(net, toys.peaks)
        decoder.sought = Sought(decoder.sought.windows, decoder.sought.of(other).onward)
        assert (logs_of_steps(decoder, n_places) - whole).abs().max() > 1e-3


def test_spectra_that_are_done_take_their_paths_along():
    net, toys = network(path_evidence=True), batch()
    kept = torch.tensor([3, 1])
    with torch.no_grad():
        decoder = CachedDecoder(net, toys.peaks)
        decoder.start(len(PEPTIDES), 1, 12)
        tokens = toys.targets.tokens[:, None]
        decoder.step(tokens[..., :0])
        wanted = [decoder.step(tokens[..., :place])[kept] for place in (1, 2)]
        decoder = CachedDecoder(net, toys.peaks)
        decoder.start(len(PEPTIDES), 1, 12)
        decoder.step(tokens[..., :0])
        decoder.keep(kept)
        found = [decoder.step(tokens[kept][..., :place]) for place in (1, 2)]
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)


def test_it_is_trained():
    net = network(path_evidence=True, decoder="autoregressive")
    JointTraining()(net.train(), batch())[0].backward()
    for one in (
        net.autoregressive.features,
        next(net.autoregressive.scorer.children()),
    ):
        assert one.weight.grad[:, N_FEATURES:].abs().max() > 0


def test_a_vocabulary_can_grow():
    more = Vocabulary().with_modifications(["Phospho@ST", "TMT6plex@N-term"])
    old = network(path_evidence=True)
    fresh = network(1, path_evidence=True, vocabulary=more)
    fresh.load_state_dict(grown_weights(old.state_dict(), fresh.state_dict()))
    name = "autoregressive.features.weight"
    assert torch.equal(fresh.state_dict()[name], old.state_dict()[name])


def test_it_needs_evidence():
    model = PeptideSequencer(path_evidence=True, evidence=False)
    with pytest.raises(InputError, match="path_evidence=True needs evidence=True"):
        model.fit([spectrum(one, 2) for one in PEPTIDES])


def test_fit_and_save(tmp_path):
    model = PeptideSequencer(
        d_model=16, d_ff=16, n_layers=1, n_heads=2, most_residues=12, max_epochs=1,
        cross_epochs=1, batch_size=4, random_state=0, device="cpu", n_peaks=40,
        path_evidence=True,
    )  # fmt: skip
    spectra = [spectrum(one, 2) for one in PEPTIDES]
    expected = model.fit(spectra).predict_table(spectra)
    model.save(tmp_path / "model")
    found = sciseq.load(tmp_path / "model").predict_table(spectra)
    assert list(found["peptide"]) == list(expected["peptide"])
    np.testing.assert_array_equal(found["score"], expected["score"])
