"""Conditional masked diffusion of peptides: pairs of copies, passes, right masses."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peptide_toys import PEPTIDES, VOCABULARY, batch, network, spectrum

import sciseq
from sciseq import PeptideSequencer
from sciseq.errors import CapabilityError
from sciseq.generation.parts.plans import transfer_plan
from sciseq.sequencing import diffusion
from sciseq.sequencing.diffusion import (
    DiffusionTraining,
    PeptideDenoiser,
    denoise,
    noise,
    places_of,
    search_places,
    wanted_tokens,
)
from sciseq.sequencing.network import grown_weights
from sciseq.sequencing.objective import PeptideBatch
from sciseq.sequencing.peptide_search import SearchSettings
from sciseq.sequencing.residues import Vocabulary
from sciseq.sequencing.simulator import Simulator

BATCH = batch()
STOP, MASK = len(VOCABULARY), len(VOCABULARY) + 1
SETTINGS = SearchSettings(3, 20.0, (0, 1), 12, n_steps=4)
TINY = {
    "d_model": 16, "d_ff": 16, "n_layers": 1, "n_heads": 2, "n_peaks": 40,
    "most_residues": 12, "max_epochs": 2, "batch_size": 4, "random_state": 0,
    "device": "cpu", "decoder": "diffusion",
}  # fmt: skip
SPECTRA = [spectrum(one, z) for one in PEPTIDES for z in (2, 3)]


def diffusion_network(seed=0, **changes):
    told = {"spectrum_graph": True, "path_evidence": True, "most_residues": 30}
    return network(seed, **{"decoder": "diffusion", **told, **changes})


def part(rows):
    """Some spectra of the batch, as wide as the whole."""
    peaks, targets = (
        type(one)(*(values[rows] for values in one)) for one in (BATCH.peaks, BATCH[1])
    )
    return PeptideBatch(peaks, targets)


def recorded(net, compute):
    """Arguments and scores of every pass of the decoder, and what came out."""
    calls = []
    handle = net.diffusion.register_forward_hook(
        lambda decoder, given, scores: calls.append((*given[1:], scores))
    )
    try:
        return calls, compute()
    finally:
        handle.remove()


# --------------------------------------------------------------------------- masks


def is_partition(masks, is_place):
    one, other = masks
    return bool(torch.equal(one | other, is_place) and not (one & other).any())


@given(st.integers(0, 2**31), st.integers(0, 10**6))
def test_the_two_copies_share_all_places(seed, step):
    loss, is_place = DiffusionTraining(seed), places((13, 9, 12, 1))
    loss.on_step(step, 10**7)
    masks = loss.masks(torch.nn.Identity().train(), BATCH, is_place)
    assert is_partition(masks, is_place)
    assert masks[0].any(dim=1).all()
    # Two masks that are drawn one by one do not share them.
    loss.on_step(step + 1, 10**7)
    other, _ = loss.masks(torch.nn.Identity().train(), BATCH, is_place)
    assert not is_partition((masks[0], other), is_place)


def places(counts):
    return torch.arange(max(counts)) < torch.tensor(counts).unsqueeze(1)


def test_levels_are_uniform_and_validation_hides_the_same():
    net, is_place = torch.nn.Identity().train(), places((200,) * 4)
    loss, shares = DiffusionTraining(0), []
    for step in range(300):
        loss.on_step(step, 300)
        shares.append(loss.masks(net, BATCH, is_place)[0].double().mean(dim=1))
    shares = torch.cat(shares)
    for level in (0.2, 0.5, 0.8):  # one standard error is 0.014 at most
        assert (shares < level).double().mean() == pytest.approx(level, abs=0.05)
    first = loss.masks(net.eval(), BATCH, is_place)[0]
    loss.on_step(7, 300)
    assert torch.equal(loss.masks(net, BATCH, is_place)[0], first)


def test_noise_of_a_spectrum_does_not_depend_on_its_batch():
    together = noise(BATCH, 3, 5, 9)
    for row, peptide in enumerate(PEPTIDES):
        assert torch.equal(noise(batch([peptide]), 3, 5, 9)[0], together[row])
    # Charges of one peptide, steps and seeds have numbers of their own.
    heavier = BATCH.peaks._replace(precursor_mass=BATCH.peaks.precursor_mass + 1e-3)
    for other in (
        noise(BATCH._replace(peaks=heavier), 3, 5, 9),
        noise(BATCH, 3, 6, 9),
        noise(BATCH, 4, 5, 9),
    ):
        assert (other != together).all()


@given(st.lists(st.integers(0, STOP - 1), min_size=1, max_size=30), st.floats(-2, 2))
def test_a_peptide_fits_into_its_places(tokens, ppm):
    residues = [one for one in tokens if not VOCABULARY.is_terminal[one]] or [0]
    terminals = [one for one in tokens if VOCABULARY.is_terminal[one]][:1]
    mass = VOCABULARY.mass(np.array(terminals + residues)) * (1 + ppm * 1e-5)
    lightest = VOCABULARY.masses[~VOCABULARY.is_terminal].min()
    (n,) = places_of(torch.tensor([mass], dtype=torch.float64), lightest, 99).tolist()
    assert n > len(terminals + residues)


# ------------------------------------------------------------------------ training


def test_every_place_is_a_target_once():
    net, loss = diffusion_network().train(), DiffusionTraining(0)
    calls, (total, n) = recorded(net, lambda: loss(net, BATCH))
    assert len(calls) == 2
    is_place = PeptideDenoiser(net, BATCH.peaks).is_place
    wanted = wanted_tokens(BATCH.targets, is_place.shape[1], STOP)
    asked = torch.zeros_like(wanted)
    by_hand = 0.0
    for shown, _, scores in calls:
        hidden = shown == MASK
        assert torch.equal(shown[~hidden], wanted[~hidden])
        asked += hidden
        logs = scores.log_softmax(-1).gather(2, wanted.unsqueeze(2)).squeeze(2)
        by_hand -= float(logs[hidden].detach().sum())
    assert torch.equal(asked, is_place.long())
    assert total.item() == pytest.approx(by_hand, rel=1e-12)
    assert int(n) == int(is_place.sum())
    # Ends are targets: behind each peptide up to what its mass allows.
    assert ((wanted == STOP) & is_place).any(dim=1).all()


def leaks(net, show=lambda wanted, mask: wanted.masked_fill(mask, MASK)):
    """Whether scores of hidden places change with what is hidden."""
    denoiser = PeptideDenoiser(net, BATCH.peaks)
    is_place = denoiser.is_place
    mask, _ = DiffusionTraining(1).masks(net, BATCH, is_place)
    wanted = wanted_tokens(BATCH.targets, is_place.shape[1], STOP)
    other = ((wanted + 1) % STOP).where(mask, wanted)
    scores = [denoiser.scores(show(one, mask)) for one in (wanted, other)]
    return not torch.equal(*scores)


def test_hidden_tokens_are_not_known():
    net = diffusion_network()
    with torch.no_grad():
        assert not leaks(net)
        assert leaks(net, lambda wanted, mask: wanted)


def test_hidden_places_read_both_sides():
    net = diffusion_network(path_evidence=False, evidence=False)
    with torch.no_grad():
        denoiser = PeptideDenoiser(net, BATCH.peaks)
        n = denoiser.is_place.shape[1]
        wanted = wanted_tokens(BATCH.targets, n, STOP)
        shown = wanted.clone()
        shown[:, [0, 2, 5]] = MASK
        changed = shown.clone()
        changed[:, 3] = (changed[:, 3] + 1) % STOP
        moved = (denoiser.scores(changed) - denoiser.scores(shown)).abs()
    assert (moved.amax(dim=2)[:, [0, 2, 5]] > 1e-6).all()


def test_the_first_hidden_place_is_told_the_mass_before_it():
    net = diffusion_network()
    with torch.no_grad():
        denoiser = PeptideDenoiser(net, BATCH.peaks)
        shown = wanted_tokens(BATCH.targets, denoiser.is_place.shape[1], STOP)
        shown[0, 0] = shown[1, 3] = shown[1, 5] = shown[2, 8] = MASK
        calls, scores = recorded(net, lambda: denoiser.scores(shown))
        _, first, _ = calls[0]
        assert first.place[:3].tolist() == [0, 3, 8]
        tokens = BATCH.targets.tokens
        before = float(net.masses[tokens[1, :3]].sum())
        whole = float(net.masses[VOCABULARY.encode(PEPTIDES[2])].sum())
        assert first.prefix[:3, 0].tolist() == pytest.approx([0.0, before, whole])
        want = net.evidence(BATCH.peaks, first.prefix, net.sought(BATCH.peaks))
        assert torch.equal(first.evidence, want)
        # No other place's score has evidence added, and this one's has.
        net.diffusion.scorer.W2.weight.zero_()
        net.diffusion.scorer.W2.bias.fill_(1.0)
        moved = denoiser.scores(shown) - scores
    is_first = torch.arange(shown.shape[1]) == first.place.unsqueeze(1)
    assert moved[~is_first].abs().max() == 0
    assert (moved[is_first][:, :STOP].abs().amax(dim=1) > 1e-6).all()
    assert moved[is_first][:, STOP].abs().max() == 0


def test_a_spectrum_alone_or_in_a_batch_is_the_same():
    net = diffusion_network().train()
    with torch.no_grad():
        total, n = DiffusionTraining(0)(net, BATCH)
        alone = [DiffusionTraining(0)(net, batch([one])) for one in PEPTIDES]
    assert total.item() == pytest.approx(sum(one.item() for one, _ in alone), rel=1e-10)
    assert int(n) == sum(int(one) for _, one in alone)


def test_places_that_are_none_are_not_read():
    net = diffusion_network()
    with torch.no_grad():
        denoiser = PeptideDenoiser(net, BATCH.peaks)
        is_place = denoiser.is_place
        shown, other = (
            torch.full_like(is_place, MASK, dtype=torch.int64).where(is_place, one)
            for one in (STOP, 3)
        )
        found, changed = denoiser.scores(shown), denoiser.scores(other)
        assert not is_place.all()
        assert torch.equal(found[is_place], changed[is_place])
        # Were they read, the longest of a batch would matter to the others.
        all_of_them = torch.ones_like(is_place)
        denoiser.reading = denoiser.reading._replace(is_place=all_of_them)
        found, changed = denoiser.scores(shown), denoiser.scores(other)
    assert (found - changed)[is_place].abs().max() > 1e-4


def test_a_vocabulary_can_grow():
    more = Vocabulary().with_modifications(["Phospho@ST"])
    old = diffusion_network().state_dict()
    fresh = diffusion_network(1, vocabulary=more).state_dict()
    grown = grown_weights(old, fresh)
    assert {name: one.shape for name, one in grown.items()} == {
        name: one.shape for name, one in fresh.items()
    }
    name = "diffusion.symbols"
    assert torch.equal(grown[name][:STOP], old[name][:STOP])
    assert torch.equal(grown[name][-2:], old[name][-2:])
    assert torch.equal(grown[name][STOP:-2], fresh[name][STOP:-2])
    name = "diffusion.told.weight"
    assert torch.equal(grown[name][:, -1], old[name][:, -1])


# ---------------------------------------------------------------------- prediction


@pytest.mark.parametrize("n_steps", [1, 3, 40])
def test_passes_follow_the_plan(n_steps):
    net = diffusion_network()
    with torch.no_grad():
        denoiser = PeptideDenoiser(net, BATCH.peaks)
        calls, (tokens, logs) = recorded(net, lambda: denoise(denoiser, n_steps))
    counts = denoiser.is_place.sum(dim=1)
    assert len(calls) == n_steps
    shown = torch.stack([*(one for one, *_ in calls), tokens])  # (pass, batch, place)
    is_hidden = shown == MASK
    for row, n in enumerate(counts.tolist()):
        amounts = -is_hidden[:, row].sum(dim=1).diff()
        plan = transfer_plan(n, min(n, n_steps)).tolist()
        assert amounts.tolist() == plan + [0] * (n_steps - len(plan))
    # What is shown stays, and is the surest of what was hidden.
    for number, (before, after) in enumerate(pairwise(shown)):
        assert torch.equal(before[before != MASK], after[before != MASK])
        p = calls[number][2].softmax(-1).amax(-1)
        told, left = (before == MASK) & (after != MASK), after == MASK
        least = p.where(told, 2.0).amin(dim=1)
        assert (p.where(left, -1.0).amax(dim=1) <= least + 1e-12).all()
    assert (tokens[~denoiser.is_place] == STOP).all()
    assert torch.equal(logs.argmax(-1), tokens)


def test_spectra_are_read_and_projected_once():
    net, calls = diffusion_network(), []
    for layer in net.diffusion.layers:
        layer.cross_attention.keys_values.register_forward_hook(
            lambda *given: calls.append("project")
        )
    net.encoder.register_forward_hook(lambda *given: calls.append("encode"))
    with torch.no_grad():
        search_places(net, BATCH.peaks, SETTINGS._replace(n_steps=9))
    assert sorted(calls) == ["encode", "project", "project"]


def test_found_peptides_have_the_mass_and_do_not_depend_on_the_batch():
    net = diffusion_network()
    with torch.no_grad():
        together = search_places(net, BATCH.peaks, SETTINGS)
        denoiser = PeptideDenoiser(net, BATCH.peaks)
        _, logs = denoise(denoiser, SETTINGS.n_steps)
        for row in range(len(PEPTIDES)):
            (alone,) = search_places(net, part([row]).peaks, SETTINGS)
            assert [one.tokens.tolist() for one in alone] == [
                one.tokens.tolist() for one in together[row]
            ]
    assert sum(bool(one) for one in together) >= 3
    for row, one in enumerate(together):
        for peptide in one:
            mass = float(BATCH.peaks.precursor_mass[row])
            own = VOCABULARY.mass(peptide.tokens)
            errors = mass - np.arange(2) * 1.0033548378 - own
            assert np.abs(errors).min() <= mass * 20e-6
            # The score is the probability of all places, in the passes that showed them
            order = torch.full((logs.shape[1],), STOP)
            order[: len(peptide.tokens)] = torch.from_numpy(peptide.tokens[::-1].copy())
            total = logs[row].gather(1, order.unsqueeze(1)).sum()
            assert peptide.log_score == pytest.approx(total.item(), abs=1e-9)
            assert np.exp(peptide.log_score) <= peptide.probabilities.min() + 1e-12


def test_what_the_passes_show_is_taken_or_put_right(monkeypatch):
    net = diffusion_network()
    n_places = PeptideDenoiser(net, BATCH.peaks).is_place.shape[1]
    truth = wanted_tokens(BATCH.targets, n_places, STOP)
    x = torch.randn(*truth.shape, STOP + 1, generator=torch.Generator().manual_seed(0))
    logs = (x + 9 * torch.nn.functional.one_hot(truth, STOP + 1)).double()
    logs[1, 2, 0] = 13.0  # one place of one spectrum is wrong
    logs = logs.log_softmax(-1)
    monkeypatch.setattr(diffusion, "denoise", lambda *given: (logs.argmax(-1), logs))
    controlled, real = [], diffusion.most_probable_paths

    def control(scores, *given, **settings):
        controlled.append(len(scores))
        return real(scores, *given, **settings)

    monkeypatch.setattr(diffusion, "most_probable_paths", control)
    found = search_places(net, BATCH.peaks, SETTINGS)
    assert [VOCABULARY.decode(one[0].tokens) for one in found] == list(PEPTIDES)
    assert controlled == [1]
    # Mass control finds the same where nothing is wrong.
    monkeypatch.setattr(diffusion, "_is_peptide", lambda *given: False)
    again = search_places(net, BATCH.peaks, SETTINGS)
    assert controlled == [1, 4]
    for (one,), (other,) in zip(found, again, strict=True):
        assert one.tokens.tolist() == other.tokens.tolist()
        assert one.log_score == other.log_score


def test_residues_behind_an_end_are_no_peptide():
    net = diffusion_network()
    tokens = np.array([*VOCABULARY.encode("PEPTLDEK")[::-1], STOP, STOP])
    mass = VOCABULARY.mass(VOCABULARY.encode("PEPTLDEK"))
    assert diffusion._is_peptide(tokens, mass, net, SETTINGS)
    assert not diffusion._is_peptide(tokens, mass + 1.5, net, SETTINGS)
    gap = np.insert(tokens[:-1], 3, STOP)
    assert not diffusion._is_peptide(gap, mass, net, SETTINGS)


# ----------------------------------------------------------------------- estimator


@pytest.fixture(scope="module")
def learned():
    model = PeptideSequencer(
        **{**TINY, "d_model": 32, "max_epochs": 80, "dropout": 0.0},
        evidence=False,
        learning_rate=4e-3,
        validation_fraction=0.0,
    )
    return model.fit(SPECTRA[::2])


def test_learns_to_read_what_it_saw(learned):
    table = learned.predict_table(SPECTRA[::2])
    assert list(table["peptide"]) == list(PEPTIDES)
    assert learned.score(SPECTRA[::2]) == 1.0
    assert (table["error_ppm"].abs() < 1).all()
    shuffled = [one.peptide for one in SPECTRA[::2]][::-1]
    assert learned.score(SPECTRA[::2], shuffled) == 0


def test_candidates_are_not_to_be_chosen_from(learned):
    with pytest.raises(CapabilityError, match="finds one peptide for each spectrum"):
        learned.fit_reranker(SPECTRA)


def test_saved_equals_loaded(learned, tmp_path):
    learned.save(tmp_path / "model")
    loaded = sciseq.load(tmp_path / "model")
    assert loaded.decoder == "diffusion" and loaded.n_steps == learned.n_steps
    want = learned.predict_table(SPECTRA)
    found = loaded.predict_table(SPECTRA)
    assert list(found["peptide"]) == list(want["peptide"])
    assert found["score"].tolist() == want["score"].tolist()


def test_a_resumed_run_equals_an_undisturbed_one(tmp_path, monkeypatch):
    settings = {**TINY, "evidence": False, "checkpoint_dir": tmp_path / "run"}
    whole = PeptideSequencer(**settings).fit(SPECTRA).network_.state_dict()
    # As if killed after the first epoch.
    late = [one for one in (tmp_path / "run").rglob("*") if "2" in one.stem]
    assert late
    for one in late:
        one.unlink()
    again = PeptideSequencer(**settings).fit(SPECTRA).network_.state_dict()
    assert all(torch.equal(one, again[name]) for name, one in whole.items())
    # Masks that do not follow the steps are others.
    monkeypatch.setattr(DiffusionTraining, "on_step", lambda *given: None)
    settings["checkpoint_dir"] = None
    other = PeptideSequencer(**settings).fit(SPECTRA).network_.state_dict()
    assert not torch.equal(other["codes.vectors"], whole["codes.vectors"])


def test_fits_streams_in_bfloat16_and_goes_on(tmp_path):
    stream = Simulator(list(PEPTIDES[:2])).stream(8)
    settings = {**TINY, "precision": "bfloat16", "spectrum_graph": True,
                "path_evidence": True, "most_residues": 20}  # fmt: skip
    model = PeptideSequencer(**settings).fit(stream)
    assert [np.isfinite(row["validation_loss"]) for row in model.history_] == [True] * 2
    assert len(model.predict(SPECTRA)) == len(SPECTRA)
    model.set_params(warm_start=True, modifications=["Phospho@STY"], max_epochs=1)
    model.fit([spectrum("PEPTLDEK"), spectrum("AAGLLEVK")])
    assert len(model.vocabulary_) == STOP + 3
