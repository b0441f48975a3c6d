"""Features of candidates, the choice among them, and the recipe of the default."""

import json

import numpy as np
import pytest
import torch
from peptide_toys import VOCABULARY, ladder, network, spectrum

import sciseq
from sciseq import PeptideSequencer
from sciseq.decoding.ctc import ctc_loss
from sciseq.errors import CapabilityError, DataQualityError
from sciseq.sequencing.candidate_features import (
    FEATURES,
    _longest_run,
    candidate_features,
)
from sciseq.sequencing.default_model import (
    default_sequencer,
    default_training,
    peptides_of,
    save_default,
)
from sciseq.sequencing.mgf_files import write_mgf
from sciseq.sequencing.peptide_batches import stack_peaks
from sciseq.sequencing.peptide_search import Found
from sciseq.sequencing.reranking import Reranker, _logsumexp

TINY = {
    "d_model": 16, "d_ff": 16, "n_layers": 1, "n_heads": 2, "n_peaks": 60,
    "most_residues": 12, "max_epochs": 1, "cross_epochs": 1, "batch_size": 8,
    "random_state": 0, "device": "cpu", "dropout": 0.0, "beam_size": 4,
}  # fmt: skip
NAMES = ["PEPTLDEK", "AAGLLEVK", "GASPVTLK", "LDKGGFWYK", "SSMTAR", "VVLNDQEK"]


def found(peptide, log_score=-1.0):
    tokens = VOCABULARY.encode(peptide)
    return Found(tokens, np.full(len(tokens), 0.9), log_score)


def peaks_of(peptide, charge=2, noise=0):
    mz, intensity = ladder(peptide, noise=noise)
    order = np.argsort(mz)
    mass = np.array([VOCABULARY.mass(VOCABULARY.encode(peptide))])
    return stack_peaks(
        [(mz[order], intensity[order])], mass, np.array([charge]), dtype=torch.float64
    )


def described(peptide, candidates, **changes):
    net = network()
    with torch.no_grad():
        (table,) = candidate_features(
            net, peaks_of(peptide, **changes), [[found(one) for one in candidates]]
        )
    assert table.shape == (len(candidates), len(FEATURES))
    return {name: table[:, place] for place, name in enumerate(FEATURES)}


def test_the_true_peptide_explains_its_clean_spectrum():
    right = described("PEPTLDEK", ["PEPTLDEK", "PEPTDLEK", "KEPTLDEP"])
    assert right["bonds"].tolist()[0] == 1.0
    assert right["missing"].tolist()[0] == 0.0
    assert right["signal"][0] == pytest.approx(1.0)
    assert right["root_signal"][0] == pytest.approx(1.0)
    assert right["fragment_error"][0] == pytest.approx(0.0, abs=1e-6)
    # LD written DL: the one bond between them has no ion.
    assert right["missing"][1] == 1.0
    assert right["longest_gap"][1] == 1.0
    assert right["bonds"][1] == pytest.approx(6 / 7)
    # K and P changed places: of all bonds none is right.
    assert right["missing"][2] == 7.0
    assert right["longest_gap"][2] == 7.0
    assert np.allclose(right["error_ppm"], 0.0, atol=1e-6)
    assert right["residues"].tolist() == [8.0, 8.0, 8.0]


def test_a_terminal_modification_is_in_the_first_residue():
    right = described("[Acetyl]-SSM[Oxidation]TAR", ["[Acetyl]-SSM[Oxidation]TAR"])
    assert right["bonds"][0] == 1.0
    assert right["residues"][0] == 6.0


def test_singly_charged_precursors_have_no_doubly_charged_ions():
    # All ions of the ladder are 1+; only from 2+ on may 2+ ions be looked for.
    mz, intensity = ladder("PEPTLDEK", noise=0)
    doubled = (np.sort(mz) + 1.007276466879) / 2
    mass = np.array([VOCABULARY.mass(VOCABULARY.encode("PEPTLDEK"))])
    net = network()
    shares = []
    for charge in (1, 2):
        peaks = stack_peaks(
            [(doubled, np.sort(intensity))], mass, np.array([charge]),
            dtype=torch.float64,
        )  # fmt: skip
        with torch.no_grad():
            (table,) = candidate_features(net, peaks, [[found("PEPTLDEK")]])
        shares.append(table[0, FEATURES.index("bonds")])
    assert shares[0] < 0.5
    assert shares[1] == 1.0


def test_isotopes_and_mass_errors_are_told():
    peaks = peaks_of("PEPTLDEK")
    mass = float(peaks.precursor_mass[0])
    heavy = peaks._replace(precursor_mass=peaks.precursor_mass * (1 + 5e-6) + 1.0033548)
    with torch.no_grad():
        (table,) = candidate_features(network(), heavy, [[found("PEPTLDEK")]])
    assert table[0, FEATURES.index("isotope")] == 1.0
    wanted = 5.0 * mass / float(heavy.precursor_mass[0])
    assert table[0, FEATURES.index("error_ppm")] == pytest.approx(wanted, rel=1e-3)


def test_path_scores_are_those_of_ctc():
    net, peaks = network(), peaks_of("PEPTLDEK")
    names = ["PEPTLDEK", "GASPVTLKKKKK"]
    with torch.no_grad():
        (table,) = candidate_features(net, peaks, [[found(one) for one in names]])
        logs = net.symbol_scores(net.slot_states(peaks, net.encode(peaks)))
        logs = logs.log_softmax(dim=-1)
        tokens = torch.from_numpy(VOCABULARY.encode(names[0])[::-1].copy())[None]
        loss, *_ = ctc_loss(
            logs, tokens, torch.tensor([8]), blank=logs.shape[-1] - 1
        )  # fmt: skip
    scores = table[:, FEATURES.index("path_score")]
    assert scores[0] == pytest.approx(-float(loss), rel=1e-4)
    assert scores[1] == -60.0  # five K in a row need more slots than there are
    margins = table[:, FEATURES.index("path_margin")]
    assert margins[0] == pytest.approx(min(scores[0] - scores[1], 30.0))


def test_one_candidate_or_none_is_no_trouble():
    net, peaks = network(decoder="autoregressive"), peaks_of("PEPTLDEK")
    with torch.no_grad():
        (none,) = candidate_features(net, peaks, [[]])
        (one,) = candidate_features(net, peaks, [[found("PEPTLDEK")]])
    assert none.shape == (0, len(FEATURES))
    assert np.isfinite(one).all()
    assert one[0, FEATURES.index("path_score")] == 0.0


def test_longest_run_by_hand():
    flags = np.array([[1, 1, 0, 1], [0, 0, 0, 0], [0, 1, 1, 1]], bool)
    assert _longest_run(flags).tolist() == [2, 0, 3]


def test_logsumexp_of_groups():
    values, group = (
        torch.randn(7, dtype=torch.float64),
        torch.tensor([0, 0, 1, 2, 2, 2, 0]),
    )
    wanted = [torch.logsumexp(values[group == one], 0) for one in range(3)]
    assert torch.allclose(_logsumexp(values, group, 3), torch.stack(wanted))


def groups(n=400, seed=0, telling=True):
    """Candidates of which one is right: by two of the features, not their order."""
    rng = np.random.default_rng(seed)
    features, is_right = [], []
    for _ in range(n):
        table = rng.normal(size=(5, len(FEATURES)))
        right = np.zeros(5, bool)
        place = (table[:, 0] - table[:, 9]).argmax()
        right[place if telling else rng.integers(5)] = True
        features.append(table)
        is_right.append(right)
    return features, is_right


def test_reranker_learns_what_tells_right_from_wrong():
    reranker = Reranker.fit(*groups())
    features, is_right = groups(seed=1)
    chosen = [
        right[reranker.log_probability(table).argmax()]
        for table, right in zip(features, is_right, strict=True)
    ]
    assert np.mean(chosen) > 0.8
    blind = Reranker.fit(*groups(telling=False))
    chosen = [
        right[blind.log_probability(table).argmax()]
        for table, right in zip(features, is_right, strict=True)
    ]
    assert np.mean(chosen) < 0.5
    probability = np.exp(reranker.log_probability(np.concatenate(features)))
    assert probability.mean() == pytest.approx(0.2, abs=0.05)


def test_reranker_ranks_and_is_saved():
    reranker = Reranker.fit(*groups())
    again = Reranker.from_dict(json.loads(json.dumps(reranker.to_dict())))
    table = groups(1, seed=3)[0][0]
    logs = reranker.log_probability(table)
    assert np.array_equal(again.log_probability(table), logs)
    many = [found("PEPTLDEK", float(number)) for number in range(5)]
    ranked = reranker.rank(many, table)
    assert [one.log_score for one in ranked] == sorted(logs, reverse=True)
    assert all(one.log_score <= 0 for one in ranked)


def test_too_little_to_learn_from_is_refused():
    features, is_right = groups(10)
    with pytest.raises(DataQualityError, match="10 of 10"):
        Reranker.fit(features, is_right)
    with pytest.raises(DataQualityError, match="0 of 400"):
        Reranker.fit(groups()[0], [np.zeros(5, bool)] * 400)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The recipe at a tiny size, its model saved."""
    folder = tmp_path_factory.mktemp("default")
    fasta = folder / "proteins.fasta"
    fasta.write_text(">one\n" + "".join(NAMES) * 3 + "\n")
    known = folder / "known.mgf"
    write_mgf([spectrum("AAGLLEVK")], known)
    model = default_training(
        [fasta], [known], n_spectra=64, n_candidate_spectra=0, **TINY
    )
    return folder, model


def test_the_recipe_trains_and_saves_half_sized_weights(trained):
    folder, model = trained
    whole = folder / "whole"
    model.save(whole)
    save_default(model, folder / "half")
    sizes = [
        sum(one.stat().st_size for one in place.iterdir() if "weights" in one.name)
        for place in (whole, folder / "half")
    ]
    assert 0.45 < sizes[1] / sizes[0] < 0.6
    loaded = sciseq.load(folder / "half")
    spectra = [spectrum(one) for one in NAMES]
    table = loaded.predict_table(spectra)
    assert list(model.predict(spectra)) == list(table["peptide"])
    for one, other in zip(
        loaded.network_.parameters(), model.network_.parameters(), strict=True
    ):
        assert torch.equal(one, other)  # the rounded ones
        assert one.dtype == torch.float32


def test_the_recipe_leaves_out_known_peptides(trained, tmp_path):
    folder, _ = trained
    assert peptides_of(folder / "known.mgf") == {"AAGLLEVK"}
    from sciseq.sequencing.default_model import default_simulator

    simulator = default_simulator([folder / "proteins.fasta"], [folder / "known.mgf"])
    seen = {one.peptide for one in simulator.sample(200, 0)}
    assert not any("AAGLLEVK" == one for one in seen)
    free = default_simulator([folder / "proteins.fasta"])
    assert free.n_peptides == simulator.n_peptides + 1


def test_the_recipe_divides_its_spectra():
    model = default_sequencer(120_000)
    assert model.max_epochs + model.cross_epochs == 10
    assert default_sequencer(10).cross_epochs == 1


def test_a_reranker_changes_order_and_scores(trained, tmp_path, monkeypatch):
    _, model = trained
    spectra = [spectrum(one) for one in NAMES]
    plain = model.predict_table(spectra)
    rng = np.random.default_rng(0)
    favoured = {}

    class Contrary:
        """Likes the last candidate best."""

        def rank(self, candidates, features):
            assert features.shape == (len(candidates), len(FEATURES))
            favoured[tuple(candidates[-1].tokens)] = len(candidates)
            logs = np.sort(np.log(rng.uniform(0.1, 0.9, len(candidates))))[::-1]
            return [
                one._replace(log_score=float(log))
                for one, log in zip(candidates[::-1], logs, strict=True)
            ]

        def to_dict(self):
            return {}

    model.reranker_ = Contrary()
    try:
        table = model.predict_table(spectra)
    finally:
        del model.reranker_
    chosen = [tuple(VOCABULARY.encode(one)) for one in table["peptide"].dropna()]
    assert chosen and all(one in favoured for one in chosen)
    assert max(favoured.values()) > 1
    assert list(table["peptide"]) != list(plain["peptide"])
    assert table["score"].dropna().between(0.1, 0.9).all()


def test_fit_reranker_asks_for_candidates(trained):
    _, model = trained
    spectra = [spectrum(one) for one in NAMES]
    with pytest.raises(DataQualityError, match="right and wrong"):
        model.fit_reranker(spectra)
    other = PeptideSequencer(**TINY, decoder="nonautoregressive").fit(spectra)
    with pytest.raises(CapabilityError, match="one peptide"):
        other.fit_reranker(spectra)


def test_a_fitted_reranker_is_saved_with_the_model(trained, tmp_path):
    _, model = trained
    model.reranker_ = Reranker.fit(*groups())
    try:
        model.save(tmp_path / "model")
        loaded = sciseq.load(tmp_path / "model")
        spectra = [spectrum(one) for one in NAMES]
        assert list(loaded.predict(spectra)) == list(model.predict(spectra))
        assert loaded.reranker_.to_dict() == model.reranker_.to_dict()
    finally:
        del model.reranker_
