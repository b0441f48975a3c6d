"""The glancing curriculum: hints, passes, and no truth where none may be known."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peptide_toys import VOCABULARY, batch, network, spectrum

import sciseq
from sciseq import PeptideSequencer
from sciseq.decoding.ctc import best_alignment, collapse, ctc_loss
from sciseq.nn import set_dropout_generator
from sciseq.sequencing import objective
from sciseq.sequencing.network import grown_weights
from sciseq.sequencing.objective import (
    CrossTraining,
    JointTraining,
    glancing_factor,
    hinted,
    path_loss,
)
from sciseq.sequencing.residues import Vocabulary
from sciseq.training.dropout_rows import DropoutRows

BATCH = batch()
BLANK, UNKNOWN = len(VOCABULARY), len(VOCABULARY) + 1
TINY = {
    "d_model": 16, "d_ff": 16, "n_layers": 1, "n_heads": 2, "n_peaks": 40,
    "most_residues": 12, "max_epochs": 2, "cross_epochs": 1, "batch_size": 4,
    "random_state": 0, "device": "cpu", "dropout": 0.1, "glancing": True,
}  # fmt: skip
SPECTRA = [
    spectrum(one, charge, identifier=f"{one}/{charge}")
    for one in ("PEPTLDEK", "AAGLLEVK", "[Acetyl]-SSM[Oxidation]TAR", "LDKGGFWYK")
    for charge in (2, 3)
]


def glancing_network(seed=0, **changes):
    """A network with glancing, ready to be trained."""
    net = network(seed, glancing=True, decoder="nonautoregressive", **changes).train()
    set_dropout_generator(net, torch.Generator().manual_seed(1))
    return net


def passes(net, compute):
    """Guesses that the decoder is given, and its symbol scores, pass by pass."""
    guesses, scores = [], []

    def record(decoder, given, states):
        guesses.append(given[2] if len(given) > 2 else None)
        scores.append(net.symbol_scores(states))

    handle = net.nonautoregressive.register_forward_hook(record)
    try:
        value = compute()
    finally:
        handle.remove()
    return guesses, scores, value


def train_passes(net, factor=0.9):
    memory = net.encode(BATCH.peaks)
    return passes(net, lambda: path_loss(net, BATCH, memory, factor))


def other_truth():
    """The batch with peptides of other spectra."""
    targets = type(BATCH.targets)(*(one.roll(1, dims=0) for one in BATCH.targets))
    return BATCH._replace(targets=targets)


def test_the_factor_falls_with_the_epoch():
    factors = [glancing_factor(epoch) for epoch in range(120)]
    assert factors[0] == 0.93 and factors[-1] == 0
    steps = [before - after for before, after in itertools.pairwise(factors[:94])]
    assert steps == pytest.approx([0.01] * 93)
    loss, n_batches = JointTraining(n_epochs=10), 7
    found = []
    for step in range(10 * n_batches):
        loss.on_step(step, 10 * n_batches)
        found.append(loss.factor)
    assert found == [glancing_factor(step // n_batches) for step in range(70)]


@given(st.integers(0, 2**32), st.floats(0, 1), st.integers(1, 30))
def test_hints_are_given_only_where_they_may_be(seed, factor, n_slots):
    generator = torch.Generator().manual_seed(seed)
    oracle, found = torch.randint(0, 3, (2, 5, n_slots), generator=generator)
    found[0] = oracle[0]  # all right: no hint is needed
    draws = torch.rand(5, n_slots, generator=generator, dtype=torch.float64)
    guess = hinted(oracle, found, draws, factor, unknown=9)
    is_told = guess != 9
    assert torch.equal(guess[is_told], oracle[is_told])
    error = (oracle != found).double().mean(dim=1)
    assert not is_told[0].any()
    for row in range(5):
        allowed = draws[row] < error[row] * factor
        assert torch.equal(is_told[row], allowed)
    assert (hinted(oracle, found, draws, 0.0, unknown=9) == 9).all()


def test_so_many_hints_as_errors_ask_for():
    decoder = glancing_network().nonautoregressive
    draws = torch.cat([decoder.draws(64) for _ in range(40)]).flatten()
    assert 0 <= draws.min() < 0.001 and 0.999 < draws.max() < 1
    # Standard error 0.0016 at most.
    for level in (0.1, 0.5, 0.93):
        assert (draws < level).double().mean().item() == pytest.approx(level, abs=0.008)
    assert (decoder.eval().draws(3) > 0.999).all()


def test_training_looks_at_hints_then_at_what_came_of_them():
    net = glancing_network()
    guesses, scores, total = train_passes(net)
    first = scores[0].log_softmax(-1)
    oracle, _ = best_alignment(first, *BATCH.targets, blank=BLANK)
    _, lengths = collapse(oracle, BLANK)
    assert torch.equal(lengths, BATCH.targets.lengths)
    assert len(guesses) == 3 and guesses[0] is None
    is_told = guesses[1] != UNKNOWN
    assert torch.equal(guesses[1][is_told], oracle[is_told])
    error = (oracle != scores[0].argmax(-1)).double().mean(dim=1)
    assert 0.4 * error.mean() < is_told.double().mean() < error.mean()
    assert torch.equal(guesses[2], scores[1].argmax(-1))
    losses = [ctc_loss(one.log_softmax(-1), *BATCH.targets, blank=BLANK)[0].sum()
              for one in scores]  # fmt: skip
    assert total.item() == pytest.approx((losses[1] + losses[2]).item(), rel=1e-6)
    # Both passes teach, the first one does not.
    weights = list(net.nonautoregressive.parameters())
    wanted = torch.autograd.grad(losses[1] + losses[2], weights, retain_graph=True)
    given_ = torch.autograd.grad(total, weights)
    for one, want in zip(given_, wanted, strict=True):
        torch.testing.assert_close(one, want, rtol=1e-4, atol=1e-5)
    assert not scores[0].requires_grad


def test_no_hints_at_the_end_of_the_curriculum():
    guesses, _, _ = train_passes(glancing_network(), factor=0.0)
    assert (guesses[1] == UNKNOWN).all()


def leaks(net):
    """Whether the truth reaches the decoder through its guesses or its loss."""
    seen = []
    for one in (BATCH, other_truth()):
        set_dropout_generator(net, torch.Generator().manual_seed(1))
        memory = net.encode(BATCH.peaks)
        guesses, scores, total = passes(
            net, lambda one=one, memory=memory: objective.path_loss(net, one, memory)
        )
        logs = scores[-1].log_softmax(-1)
        own = ctc_loss(logs, *one.targets, blank=BLANK)[0].sum()
        seen.append((guesses, total.item() == pytest.approx(own.item(), rel=1e-6)))
    (mine, is_last), (other, _) = seen
    pairs = zip(mine[1:], other[1:], strict=True)
    return not is_last or not all(torch.equal(*pair) for pair in pairs)


def test_no_truth_where_it_is_judged(monkeypatch):
    net = glancing_network().eval()
    with torch.no_grad():
        assert not leaks(net)
        memory = net.encode(BATCH.peaks)
        guesses, scores, _ = passes(net, lambda: net.slot_states(BATCH.peaks, memory))
        assert guesses[0] is None and len(guesses) == 3
        for guess, before in zip(guesses[1:], scores[:2], strict=True):
            assert torch.equal(guess, before.argmax(-1))

        def leaking(net, batch, memory, factor=0.0):
            """Hints in evaluation as in training."""
            net.nonautoregressive.coins.train()
            return objective._glancing_loss(net, batch, memory, 0.9)

        monkeypatch.setattr(objective, "path_loss", leaking)
        assert leaks(net)


def test_the_other_decoder_reads_the_last_pass_behind_the_block():
    for block in (True, False):
        net = network(glancing=True, gradient_block=block).train()
        set_dropout_generator(net, torch.Generator())
        read = []
        net.autoregressive.register_forward_pre_hook(
            lambda decoder, given, read=read: read.append(given[1].tokens[:, :12])
        )
        guesses, _, (total, _) = passes(
            net, lambda net=net: CrossTraining()(net, BATCH)
        )
        # The truth is not asked for, though this is training.
        assert guesses[0] is None and len(guesses) == 3
        assert not any((one == UNKNOWN).any() for one in guesses[1:])
        decoder = net.nonautoregressive
        with torch.no_grad():
            memory = net.encode(BATCH.peaks)
            last = decoder(BATCH.peaks, memory, guesses[2])
            first = decoder(BATCH.peaks, memory)
            wanted = net.cross_memory(memory, last).tokens[:, :12]
            other = net.cross_memory(memory, first).tokens[:, :12]
        torch.testing.assert_close(read[0], wanted, rtol=0, atol=1e-12)
        assert (read[0] - other).abs().max() > 1e-4
        total.backward()
        gradients = [one.grad for one in decoder.parameters()]
        assert any(one is not None for one in gradients) == (not block)


def test_without_glancing_there_is_nothing_to_load():
    plain, glancing = network(), network(glancing=True)
    added = glancing.state_dict().keys() - plain.state_dict().keys()
    assert added == {"nonautoregressive.guesses"}
    assert glancing.state_dict()["nonautoregressive.guesses"].shape == (UNKNOWN + 1, 16)
    assert network(glancing=True, decoder="autoregressive").nonautoregressive is None
    guesses, _, _ = passes(plain, lambda: JointTraining()(plain.train(), BATCH))
    assert guesses == [None]


def test_hints_of_a_batch_in_parts_are_those_of_the_whole():
    decoder = glancing_network().nonautoregressive
    generator = decoder.coins.generator
    start = generator.get_state()
    whole, end = decoder.draws(6), generator.get_state()
    rows = DropoutRows(decoder)
    for first, n_here in ((0, 4), (4, 2)):
        generator.set_state(start)
        with rows.known(), rows.part(first, n_here, n_rows=6):
            assert torch.equal(decoder.draws(n_here), whole[first : first + n_here])
        assert torch.equal(generator.get_state(), end)


def test_a_vocabulary_can_grow():
    more = Vocabulary().with_modifications(["Phospho@ST"])
    old = network(glancing=True, shared_encoder=False).state_dict()
    fresh = network(1, glancing=True, shared_encoder=False, vocabulary=more)
    fresh = fresh.state_dict()
    grown = grown_weights(old, fresh)
    assert {name: one.shape for name, one in grown.items()} == {
        name: one.shape for name, one in fresh.items()
    }
    name = "nonautoregressive.guesses"
    assert torch.equal(grown[name][:BLANK], old[name][:BLANK])
    assert torch.equal(grown[name][-2:], old[name][-2:])
    assert torch.equal(grown[name][BLANK:-2], fresh[name][BLANK:-2])
    name = "slot_encoder.evidence.weight"
    assert torch.equal(grown[name][:, :24], old[name][:, :24])


@pytest.fixture(scope="module")
def fitted():
    return PeptideSequencer(**TINY).fit(SPECTRA)


def test_a_resumed_run_equals_an_undisturbed_one(fitted, tmp_path):
    settings = {"checkpoint_dir": tmp_path / "run"}
    PeptideSequencer(**TINY, **settings).fit(SPECTRA)
    # As if killed after the first epoch.
    for one in (tmp_path / "run").rglob("*"):
        if one.is_file() and ("2" in one.stem or one.parent.name == "cross"):
            one.unlink()
    again = PeptideSequencer(**TINY, **settings).fit(SPECTRA)
    weights = again.network_.state_dict()
    for name, one in fitted.network_.state_dict().items():
        assert torch.equal(one, weights[name]), name
    other = PeptideSequencer(**{**TINY, "glancing": False}).fit(SPECTRA)
    assert not torch.equal(other.network_.codes.vectors, again.network_.codes.vectors)


def test_saved_models_read_the_same(fitted, tmp_path):
    expected = fitted.predict_table(SPECTRA)
    fitted.save(tmp_path / "model")
    found = sciseq.load(tmp_path / "model").predict_table(SPECTRA)
    assert list(found["peptide"]) == list(expected["peptide"])
    np.testing.assert_array_equal(found["score"], expected["score"])
    order = fitted.predict(SPECTRA[::-1])
    assert list(order[::-1]) == list(expected["peptide"])


@pytest.mark.slow
def test_it_learns():
    model = PeptideSequencer(
        **{**TINY, "d_model": 32, "max_epochs": 120, "dropout": 0.0, "batch_size": 8},
        decoder="nonautoregressive",
        learning_rate=3e-3,
        validation_fraction=0.0,
    )
    model.fit(SPECTRA)
    assert model.score(SPECTRA) >= 0.75
