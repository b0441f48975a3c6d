"""Searching with caches equals scoring whole sequences."""

import numpy as np
import pytest
import torch
from peptide_toys import PEPTIDES, VOCABULARY, batch, network

from sciseq.sequencing.mass_table import MassTable
from sciseq.sequencing.peptide_search import (
    CachedDecoder,
    SearchSettings,
    search_paths,
    search_residues,
)

BATCH = batch()
TABLE = MassTable(VOCABULARY.masses, is_terminal=VOCABULARY.is_terminal, maximum=1500.0)
SETTINGS = SearchSettings(beam_size=3, ppm=20.0, isotopes=(0, 1), most_residues=12)


@pytest.fixture(scope="module")
def crossed():
    net = network()
    net.begin_cross_training()
    return net


def forced(net, batch):
    memory = net.encode(batch.peaks)
    states = net.slot_states(batch.peaks, memory) if net.reads_slots else None
    read = net.cross_memory(memory, states)
    return net.forced_scores(batch.peaks, read, batch.targets).log_softmax(-1)


@pytest.mark.parametrize("evidence", [True, False])
@pytest.mark.parametrize("is_crossed", [True, False])
def test_cached_steps_equal_the_forward_pass(is_crossed, evidence):
    net = network(evidence=evidence)
    if is_crossed:
        net.begin_cross_training()
    with torch.no_grad():
        whole = forced(net, BATCH)
        decoder = CachedDecoder(net, BATCH.peaks)
        decoder.start(len(PEPTIDES), 2, 12)
        tokens = BATCH.targets.tokens[:, None].expand(-1, 2, -1)
        for place in range(int(BATCH.targets.lengths.min()) + 1):
            logs = decoder.step(tokens[..., :place])
            for beam in (0, 1):
                torch.testing.assert_close(
                    logs[:, beam].double(), whole[:, place], rtol=0, atol=1e-5
                )


def test_the_nonautoregressive_decoder_runs_once_per_search(crossed, monkeypatch):
    calls = []
    real = type(crossed.nonautoregressive).forward

    def counted(self, *arguments):
        calls.append(1)
        return real(self, *arguments)

    monkeypatch.setattr(type(crossed.nonautoregressive), "forward", counted)
    with torch.no_grad():
        search_residues(crossed, BATCH.peaks, TABLE, SETTINGS)
    assert len(calls) == 1


def test_found_peptides_have_the_mass_and_the_score_of_the_network(crossed):
    with torch.no_grad():
        found = search_residues(crossed, BATCH.peaks, TABLE, SETTINGS)
    names = [VOCABULARY.decode(one[0].tokens) for one in found if one]
    assert len(names) >= 2
    masses = BATCH.peaks.precursor_mass.numpy()
    for one, mass in zip(found, masses, strict=True):
        if not one:
            continue
        own = VOCABULARY.mass(one[0].tokens)
        errors = mass - np.arange(2) * 1.0033548378 - own
        assert np.abs(errors).min() <= mass * 20e-6
        assert (one[0].probabilities <= 1).all()
        assert np.exp(one[0].log_score) <= one[0].probabilities.min() + 1e-12
    rows = [row for row, one in enumerate(found) if one]
    again = batch([VOCABULARY.decode(found[row][0].tokens) for row in rows])
    peaks = type(BATCH.peaks)(*(one[rows] for one in BATCH.peaks))
    with torch.no_grad():
        logs = forced(crossed, again._replace(peaks=peaks))
    for place, row in enumerate(rows):
        path = [*found[row][0].tokens[::-1], len(VOCABULARY)]
        total = sum(float(logs[place, at, token]) for at, token in enumerate(path))
        assert found[row][0].log_score == pytest.approx(total, abs=1e-4)


def test_items_do_not_depend_on_their_batch(crossed):
    with torch.no_grad():
        together = search_residues(crossed, BATCH.peaks, TABLE, SETTINGS)
        for row in range(len(PEPTIDES)):
            peaks = type(BATCH.peaks)(*(one[row : row + 1] for one in BATCH.peaks))
            (alone,) = search_residues(crossed, peaks, TABLE, SETTINGS)
            assert len(alone) == len(together[row])
            for one, other in zip(alone, together[row], strict=True):
                assert np.array_equal(one.tokens, other.tokens)
                assert one.log_score == pytest.approx(other.log_score, abs=1e-4)


def test_a_wider_beam_is_no_worse_here(crossed):
    with torch.no_grad():
        scores = [
            [
                one[0].log_score if one else -np.inf
                for one in search_residues(
                    crossed, BATCH.peaks, TABLE, SETTINGS._replace(beam_size=size)
                )
            ]
            for size in (1, 8)
        ]
    assert all(wide >= narrow for narrow, wide in zip(*scores, strict=True))


def test_paths_have_the_mass():
    net = network(n_slots=24)
    with torch.no_grad():
        found = search_paths(net, BATCH.peaks, SETTINGS)
    masses = BATCH.peaks.precursor_mass.numpy()
    assert sum(bool(one) for one in found) >= 2
    for one, mass in zip(found, masses, strict=True):
        for peptide in one:
            own = VOCABULARY.mass(peptide.tokens)
            errors = mass - np.arange(2) * 1.0033548378 - own
            assert np.abs(errors).min() <= mass * 20e-6
            assert len(peptide.probabilities) == len(peptide.tokens)
            assert (peptide.probabilities > 0).all()
