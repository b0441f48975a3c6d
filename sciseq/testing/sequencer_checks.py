"""Checks of what a sequencer promises: peptides, scores, masses, its fit, no traces."""

import logging
import os
import pickle
import tempfile
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from sciseq.errors import SciSeqWarning
from sciseq.persistence import load
from sciseq.registry import method_by_class_name
from sciseq.sequencing.masses import C13, mz_of
from sciseq.sequencing.proforma import parse_proforma
from sciseq.sequencing.residues import Vocabulary
from sciseq.sequencing.spectra import Spectrum
from sciseq.testing.spectra import fit, same_rows, spectra, unusable
from sciseq.testing.tables import refuses

__all__ = [
    "check_calculated_mz",
    "check_copies_hold_cpu_weights",
    "check_fit_forgets_the_first",
    "check_fit_skips_unusable_spectra",
    "check_global_settings",
    "check_isoleucine_is_leucine",
    "check_isoleucine_scores_as_leucine",
    "check_mass_error_within_tolerance",
    "check_peptide_outside_vocabulary",
    "check_peptides_before_fit",
    "check_predict_in_threads",
    "check_residue_scores",
    "check_score",
    "check_score_of_a_peptide",
    "check_score_without_truth",
    "check_truth_cannot_leak",
    "check_y_equals_annotation",
    "check_y_of_another_length",
]


def _found(model: Any) -> Any:
    """Return the rows with a peptide; a check on none would say nothing."""
    table = model.predict_table(spectra())
    found = table[table["peptide"].notna()]
    assert len(found), "no peptide was predicted, there is nothing to check"
    return found


def _vocabulary(model: Any) -> Vocabulary:
    return getattr(model, "vocabulary_", None) or Vocabulary()


def _without_truth() -> list[Spectrum]:
    """Return the spectra with another peptide, or with none, by turns."""
    return [
        replace(one, peptide="GGGGGGGK" if one.index % 2 else None) for one in spectra()
    ]


# --------------------------------------------------------------- peptides and scores


def check_peptides_before_fit(estimator: Any) -> None:
    """``predict`` before ``fit`` raises scikit-learn's NotFittedError."""
    try:
        estimator.predict(spectra())
    except NotFittedError:
        return
    raise AssertionError("no NotFittedError before fit")


def check_score_of_a_peptide(estimator: Any) -> None:
    """The score of a peptide is in [0, 1], and not above its least residue's."""
    for row in _found(fit(estimator)).itertuples():
        assert 0 <= row.score <= 1, row
        assert row.score <= min(row.residue_scores) * (1 + 1e-6), row


def check_residue_scores(estimator: Any) -> None:
    """There are as many residue scores as residues, each in [0, 1]."""
    for row in _found(fit(estimator)).itertuples():
        n_residues = len(parse_proforma(row.peptide).residues)
        assert len(row.residue_scores) == n_residues, row
        assert all(0 <= one <= 1 for one in row.residue_scores), row


def check_calculated_mz(estimator: Any) -> None:
    """The calculated m/z is that of the peptide at the charge of the row."""
    model = fit(estimator)
    vocabulary = _vocabulary(model)
    for row in _found(model).itertuples():
        mass = vocabulary.mass(vocabulary.encode(row.peptide))
        np.testing.assert_allclose(row.calculated_mz, mz_of(mass, row.charge), 1e-9)


def check_mass_error_within_tolerance(estimator: Any) -> None:
    """The mass error follows from both m/z, and is within the tolerance."""
    model = fit(estimator)
    tolerance = getattr(model, "precursor_tolerance", 20.0)
    isotopes = getattr(model, "isotope_errors", (0, 1))
    for row in _found(model).itertuples():
        assert abs(row.error_ppm) <= tolerance, row
        apart = row.calculated_mz - row.precursor_mz
        errors = [
            (apart + number * C13 / row.charge) / row.precursor_mz * 1e6
            for number in range(min(isotopes), max(isotopes) + 1)
        ]
        np.testing.assert_allclose(row.error_ppm, min(errors, key=abs), atol=1e-3)


def check_score(estimator: Any) -> None:
    """``score`` is the share of all spectra whose peptide is found."""
    model = fit(estimator)
    found = _found(model)
    records = [
        replace(spectra()[place], peptide=peptide)
        for place, peptide in found["peptide"].items()
    ]
    lost = replace(unusable()[1], peptide="PEPTLDEK")
    n = len(records)
    assert model.score(records) == 1.0
    np.testing.assert_allclose(model.score([*records, lost]), n / (n + 1))
    others = [f"{one}GGG" for one in found["peptide"]]
    assert model.score(records, others) == 0.0


def check_score_without_truth(estimator: Any) -> None:
    """``score`` refuses spectra of which one has no known peptide."""
    records = spectra()
    records[1] = replace(records[1], peptide=None)
    model = fit(estimator)
    with refuses("4 spectra", "3 peptides"):
        model.score(records)
    with refuses("4 spectra", "2 peptides"):
        model.score(records, ["PEPTLDEK", "AAGLLEVK"])


def check_isoleucine_scores_as_leucine(estimator: Any) -> None:
    """``score`` tells nothing apart that has one mass: isoleucine is leucine."""
    model = fit(estimator)
    with_l = [one.peptide for one in spectra()]
    with_i = [str(one).replace("L", "I") for one in with_l]
    assert model.score(spectra(), with_i) == model.score(spectra(), with_l)
    found = _found(model)["peptide"]
    records = [spectra()[place] for place in found.index]
    assert model.score(records, [one.replace("L", "I") for one in found]) == 1.0


def check_truth_cannot_leak(estimator: Any) -> None:
    """Predictions do not depend on peptides that the spectra are annotated with."""
    model = fit(estimator)
    known = model.predict_table(spectra())
    same_rows(model.predict_table(_without_truth()), known)


# ------------------------------------------------------------------------------- fit


def check_isoleucine_is_leucine(estimator: Any) -> None:
    """Peptides written with I and with L teach the same."""
    records = [
        replace(one, peptide=str(one.peptide).replace("L", "I")) for one in spectra()
    ]
    model = fit(estimator, records)
    same_rows(model.predict_table(spectra()), fit(estimator).predict_table(spectra()))


def check_y_equals_annotation(estimator: Any) -> None:
    """Peptides given as ``y`` teach what those of the file teach, and go before."""
    annotated = fit(estimator).predict_table(spectra())
    truth = [one.peptide for one in spectra()]
    model = fit(estimator, _without_truth(), truth)
    same_rows(model.predict_table(spectra()), annotated)


def check_y_of_another_length(estimator: Any) -> None:
    """``y`` of another length is refused with both numbers."""
    for peptides in (["PEPTLDEK"], ["PEPTLDEK"] * 5):
        with refuses("4 spectra", f"{len(peptides)} peptides"):
            fit(estimator, spectra(), peptides)


def check_peptide_outside_vocabulary(estimator: Any) -> None:
    """A peptide that cannot be written is warned of, counted and left out."""
    odd = replace(spectra()[0], peptide="W[Phospho]PTLDEK", identifier="scan=99")
    _expect_left_out(estimator, [odd], "1 of 5", "scan=99")


def check_fit_skips_unusable_spectra(estimator: Any) -> None:
    """Spectra that cannot be used are warned of, counted and left out of ``fit``."""
    _expect_left_out(estimator, unusable(), "5 of 9", "few")


def _expect_left_out(estimator: Any, odd: list[Any], *fragments: str) -> None:
    model = clone(estimator)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit([*spectra(), *odd])
    texts = [str(one.message) for one in caught if one.category is SciSeqWarning]
    found = [text for text in texts if all(part in text for part in fragments)]
    assert found, f"no SciSeqWarning says {fragments}: {texts}"
    same_rows(model.predict_table(spectra()), fit(estimator).predict_table(spectra()))


def check_fit_forgets_the_first(estimator: Any) -> None:
    """A second ``fit`` learns as if there had been no first one."""
    used = fit(estimator, spectra()[:2])
    used.fit(spectra())
    fresh = fit(estimator)
    same_rows(used.predict_table(spectra()), fresh.predict_table(spectra()))


# --------------------------------------------------------------------- no traces


def check_predict_in_threads(estimator: Any) -> None:
    """One model predicts the same bits from several threads at once."""
    alone = fit(estimator).predict_table(spectra())
    fresh = fit(estimator)
    with ThreadPoolExecutor(2) as pool:
        for table in pool.map(fresh.predict_table, [spectra() for _ in range(4)]):
            same_rows(table, alone)


def check_global_settings(estimator: Any) -> None:
    """No call changes settings of the process: torch, folder, logging, warnings."""
    before = _settings()
    model = clone(estimator).fit(spectra())
    model.predict(spectra())
    model.score(spectra())
    after = _settings()
    changed = [name for name, value in before.items() if after[name] != value]
    assert not changed, f"changed: {changed}"


def _settings() -> dict[str, Any]:
    """Return what a library must leave as it is, by name."""
    root = logging.getLogger()
    return {
        "random state of torch": torch.get_rng_state().tolist(),
        "threads of torch": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "default type of torch": torch.get_default_dtype(),
        "default device of torch": torch.get_default_device(),
        "gradients of torch": torch.is_grad_enabled(),
        "precision of torch": torch.get_float32_matmul_precision(),
        "determinism of torch": torch.are_deterministic_algorithms_enabled(),
        "working directory": Path.cwd(),
        "environment": dict(os.environ),
        "logging": (root.level, root.disabled, root.handlers[:], root.manager.disable),
        "warnings filters": warnings.filters[:],
        "floating point errors of NumPy": np.geterr(),
    }


def check_copies_hold_cpu_weights(estimator: Any) -> None:
    """Pickled and saved models hold their weights on the CPU, and open there."""
    model = fit(estimator)
    copies = [pickle.loads(pickle.dumps(model))]
    if method_by_class_name(type(estimator).__name__) is not None:
        with tempfile.TemporaryDirectory() as folder:
            model.save(Path(folder) / "model")
            copies.append(load(Path(folder) / "model"))
    for copied in copies:
        for value in vars(copied).values():
            if isinstance(value, torch.nn.Module):
                devices = {one.device.type for one in value.state_dict().values()}
                assert devices <= {"cpu"}, f"weights on {devices}"
