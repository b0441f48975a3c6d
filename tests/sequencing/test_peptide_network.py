"""Invariants of the hybrid network and of its training (card: peptide §16)."""

import math

import pytest
import torch
from peptide_toys import PEPTIDES, VOCABULARY, batch, network

from sciseq.sequencing.ion_evidence import Peaks
from sciseq.sequencing.objective import (
    CrossTraining,
    JointTraining,
    annealed_weight,
    forced_loss,
    path_loss,
)

BATCH = batch()


def scores_of(net, peaks, targets, *, with_states=False):
    memory = net.encode(peaks)
    states = net.slot_states(peaks, memory) if with_states else None
    return net.forced_scores(peaks, net.cross_memory(memory, states), targets)


@pytest.mark.parametrize("evidence", [True, False])
def test_a_spectrum_alone_or_padded_in_a_batch_is_the_same(evidence):
    net = network(evidence=evidence)
    with torch.no_grad():
        together = scores_of(net, *BATCH, with_states=True)
        for row, peptide in enumerate(PEPTIDES):
            one = batch([peptide])
            alone = scores_of(net, *one, with_states=True)
            n_places = alone.shape[1]
            torch.testing.assert_close(
                together[row, :n_places], alone[0], rtol=0, atol=1e-10
            )
    # Without the mask padding would be read as peaks.
    padded = BATCH.peaks._replace(mz=BATCH.peaks.mz.nan_to_num(posinf=0.0))
    with torch.no_grad():
        unmasked = scores_of(net, padded, BATCH.targets, with_states=True)
    assert (unmasked - together).abs().max() > 1e-4


def test_the_order_of_a_batch_does_not_matter():
    net, order = network(), torch.tensor([2, 0, 3, 1])
    peaks = Peaks(*(one[order] for one in BATCH.peaks))
    targets = type(BATCH.targets)(*(one[order] for one in BATCH.targets))
    with torch.no_grad():
        torch.testing.assert_close(
            scores_of(net, peaks, targets), scores_of(net, *BATCH)[order],
            rtol=0, atol=1e-10,
        )  # fmt: skip


def test_a_token_is_known_to_later_places_only():
    net = network()
    tokens = BATCH.targets.tokens.clone()
    tokens[:, 3] = (tokens[:, 3] + 1) % 18
    changed = BATCH.targets._replace(tokens=tokens)
    with torch.no_grad():
        before, after = (
            scores_of(net, BATCH.peaks, one) for one in (BATCH.targets, changed)
        )
    difference = (after - before).abs().amax(dim=(0, 2))
    assert difference[:4].max() == 0
    assert difference[4:].min() > 1e-6


def test_slots_see_each_other():
    net = network()
    decoder = net.nonautoregressive
    hint = torch.zeros(12, 16, dtype=torch.float64)
    hint[8, :4] = 1.0
    with torch.no_grad():
        memory = net.encode(BATCH.peaks)
        states = decoder(BATCH.peaks, memory)
        decoder.layers[0].register_forward_pre_hook(
            lambda layer, given: (given[0] + hint, *given[1:])
        )
        changed = decoder(BATCH.peaks, memory)
    assert (changed - states).abs().amax(dim=(0, 2)).min() > 1e-6


def test_the_gradient_block_blocks():
    for block in (True, False):
        net = network(gradient_block=block)
        total, _ = CrossTraining()(net, BATCH)
        total.backward()
        gradients = [one.grad for one in net.nonautoregressive.parameters()]
        reached = any(one is not None and one.abs().max() > 0 for one in gradients)
        assert reached == (not block)


def test_cross_training_moves_the_autoregressive_decoder_alone():
    net = network()
    net.begin_cross_training()
    before = {name: one.clone() for name, one in net.state_dict().items()}
    trained = [one for one in net.parameters() if one.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=1e-2)
    total, count = CrossTraining()(net, BATCH)
    (total / count).backward()
    optimizer.step()
    for name, one in net.state_dict().items():
        is_equal = torch.equal(one, before[name])
        assert is_equal == (not name.startswith("autoregressive"))


def test_without_the_slots_it_is_the_plain_decoder():
    net = network()
    with torch.no_grad():
        memory = net.encode(BATCH.peaks)
        states = net.slot_states(BATCH.peaks, memory)
        both = net.cross_memory(memory, states)
        is_token = both.is_token.clone()
        is_token[:, :12] = False
        masked = net.forced_scores(
            BATCH.peaks, both._replace(is_token=is_token), BATCH.targets
        )
        plain = scores_of(net, *BATCH)
        torch.testing.assert_close(masked, plain, rtol=0, atol=1e-10)
        read = net.forced_scores(BATCH.peaks, both, BATCH.targets)
    assert (read - plain).abs().max() > 1e-4


def test_annealing_goes_from_one_loss_to_the_other():
    weights = [annealed_weight(step / 10) for step in range(11)]
    assert weights[0] == 0 and weights[-1] == 1
    assert weights == sorted(weights)
    net = network().train()
    loss, n_steps = JointTraining(), 11
    with torch.no_grad():
        memory = net.encode(BATCH.peaks)
        wanted = {
            0: float(path_loss(net, BATCH, memory)),
            10: float(forced_loss(net, BATCH, net.cross_memory(memory, None))),
        }
    for step, want in wanted.items():
        loss.on_step(step, n_steps)
        total, count = loss(net, BATCH)
        assert total.item() == pytest.approx(want, rel=1e-12)
        assert int(count) == sum(len(VOCABULARY.encode(one)) + 1 for one in PEPTIDES)
    even = JointTraining(annealing=False)
    even.on_step(10, n_steps)
    half = 0.5 * (wanted[0] + wanted[10])
    assert even(net, BATCH)[0].item() == pytest.approx(half, rel=1e-12)


def test_forced_loss_is_the_log_probability_of_the_peptides():
    net = network()
    with torch.no_grad():
        memory = net.cross_memory(net.encode(BATCH.peaks), None)
        logs = net.forced_scores(BATCH.peaks, memory, BATCH.targets).log_softmax(-1)
        total = float(forced_loss(net, BATCH, memory))
    wanted, stop = 0.0, len(VOCABULARY)
    for row, peptide in enumerate(PEPTIDES):
        path = [*VOCABULARY.encode(peptide)[::-1], stop]
        wanted -= sum(float(logs[row, place, one]) for place, one in enumerate(path))
    assert total == pytest.approx(wanted, rel=1e-10)


def test_a_peptide_that_is_too_long_for_the_slots_has_no_part():
    net = network(n_slots=6)
    with torch.no_grad():
        total = float(path_loss(net, BATCH, net.encode(BATCH.peaks)))
        short = batch(PEPTIDES[2:3])
        alone = float(path_loss(net, short, net.encode(short.peaks)))
    assert math.isfinite(total)
    assert total == pytest.approx(alone, rel=1e-6)


@pytest.mark.parametrize("decoder", ["autoregressive", "nonautoregressive"])
def test_one_decoder_alone_has_its_own_loss(decoder):
    net = network(decoder=decoder)
    total, _ = JointTraining()(net.train(), BATCH)
    memory = net.encode(BATCH.peaks)
    if decoder == "autoregressive":
        want = forced_loss(net, BATCH, net.cross_memory(memory, None))
    else:
        want = path_loss(net, BATCH, memory)
    assert total.item() == pytest.approx(want.item(), rel=1e-12)


def test_the_code_of_a_mass_is_shared_by_equal_masses():
    net = network()
    D, deamidated = (VOCABULARY.encode(one)[0] for one in ("D", "N[Deamidated]"))
    with torch.no_grad():
        net.codes.vectors[deamidated] = net.codes.vectors[D]
        codes = net.codes(net.masses)
    assert (codes[D] - codes[deamidated]).abs().max() < 0.05
    assert (codes[D] - codes[VOCABULARY.encode("G")[0]]).abs().max() > 0.1


def test_two_encoders_begin_as_the_shared_one_does():
    shared, two = network(), network(shared_encoder=False)
    own, other = shared.state_dict(), two.state_dict()
    added = other.keys() - own.keys()
    assert {name.partition(".")[0] for name in added} == {"slot_encoder"}
    assert own.keys() <= other.keys()
    assert all(torch.equal(one, other[name]) for name, one in own.items())
    # As drawn before there could be two.
    found = torch.stack([shared.codes.vectors[0, 0], shared.encoder.peaks.weight[0, 0]])
    wanted = torch.tensor([0.15611311793, 0.11250536144], dtype=torch.float64)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)
    sizes = [
        [one.shape for one in encoder.parameters()]
        for encoder in (two.encoder, two.slot_encoder)
    ]
    assert sizes[0] == sizes[1]
    for decoder in ("autoregressive", "nonautoregressive"):
        alone = network(decoder=decoder, shared_encoder=False)
        assert alone.slot_encoder is None


@pytest.mark.parametrize("shared", [True, False])
def test_each_loss_trains_the_encoder_that_its_decoder_reads(shared):
    net = network(shared_encoder=shared)
    for weight, reads_own in ((0.0, True), (1.0, False)):
        net.zero_grad()
        loss = JointTraining()
        loss.weight = weight
        loss(net.train(), BATCH)[0].backward()
        trained = {
            name.partition(".")[0]
            for name, one in net.named_parameters()
            if one.grad is not None and one.grad.abs().max() > 0
        }
        encoder = "slot_encoder" if reads_own and not shared else "encoder"
        decoder = "nonautoregressive" if reads_own else "autoregressive"
        assert trained == {encoder, "codes", decoder}


def test_with_two_encoders_both_states_are_still_read_together():
    net = network(shared_encoder=False)
    with torch.no_grad():
        memory = net.encode(BATCH.peaks)
        own = net.slot_encoder(BATCH.peaks, net.residues)
        states = net.slot_states(BATCH.peaks, memory)
        assert torch.equal(states, net.nonautoregressive(BATCH.peaks, own))
        wrong = net.nonautoregressive(BATCH.peaks, memory)
        assert (states - wrong).abs().max() > 1e-3
        both = net.cross_memory(memory, states)
        plain = net.cross_memory(memory, None)
    assert torch.equal(both.tokens[:, 12:], plain.tokens)
    net.begin_cross_training()
    CrossTraining()(net, BATCH)[0].backward()
    assert all(one.grad is None for one in net.slot_encoder.parameters())
