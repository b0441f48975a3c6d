"""Conformance of sequencers, counted: ours, a user's, then that checks can fail."""

import os
import warnings
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from sciseq import PeptideSequencer
from sciseq.base import SequenceEstimator
from sciseq.errors import DataQualityError, InputError, SciSeqWarning
from sciseq.sequencing.fragments import fragment_ladder, residue_masses
from sciseq.sequencing.masses import C13, mz_of
from sciseq.sequencing.prediction import COLUMNS, SPECTRUM_COLUMNS
from sciseq.sequencing.proforma import parse_proforma
from sciseq.sequencing.residues import Vocabulary
from sciseq.sequencing.spectra import PeakSettings, SkippedSpectrum, preprocess
from sciseq.sequencing.spectrum_files import read_spectra
from sciseq.testing import check_estimator, checks_for
from sciseq.testing.spectra import spectra

SMALL = PeptideSequencer(
    d_model=16,
    d_ff=16,
    n_layers=1,
    n_heads=2,
    n_peaks=40,
    most_residues=12,
    max_epochs=2,
    cross_epochs=1,
    batch_size=4,
    random_state=0,
    device="cpu",
)

# Faults that are known; the entry goes when the fault is mended.
# Users may exclude checks by name: names stay, and a new one is added here.
SHARED = """
check_clone_keeps_parameters check_deepcopy check_failed_first_fit_stays_unfitted
check_failed_fit_changes_nothing check_fit_keeps_input check_fit_keeps_parameters
check_fit_returns_self check_fit_twice check_global_random_state check_html_repr
check_joblib check_misspelt_constructor_argument check_misspelt_parameter check_pickle
check_predict_before_fit check_predict_keeps_state check_save_and_load check_threads
""".split()
OWN = """
check_calculated_mz check_copies_hold_cpu_weights check_fit_forgets_the_first
check_fit_skips_unusable_spectra check_global_settings check_isoleucine_is_leucine
check_isoleucine_scores_as_leucine check_mass_error_within_tolerance
check_peptide_outside_vocabulary check_peptides_before_fit check_predict_in_threads
check_residue_scores check_score check_score_of_a_peptide check_score_without_truth
check_truth_cannot_leak check_y_equals_annotation check_y_of_another_length

check_bad_sources check_fit_a_data_frame check_fit_a_list_of_paths check_fit_a_path
check_fit_an_iterator check_fit_dictionaries check_fit_no_spectra
check_identifiers_are_kept check_intensity_unit check_missing_charge_is_tried
check_order_of_peaks check_order_of_spectra check_precursor_is_kept
check_predict_every_source check_predict_gives_objects check_predict_no_spectra
check_spectra_alone_equal_together check_table_equals_predict
check_unusable_spectra_are_kept check_unusable_spectra_disturb_no_other
""".split()


def test_names_of_the_checks():
    checks = checks_for("sequencer")
    assert list(checks) == SHARED + OWN
    assert list(checks_for("forecaster"))[: len(SHARED)] == SHARED
    for name, check in checks.items():
        assert check.__name__ == name
        assert check.__doc__.rstrip().endswith(".")


def test_peptide_sequencer():
    results = check_estimator(SMALL, kind="sequencer")
    counts = Counter(result.status for result in results)
    assert counts["passed"] == len(SHARED + OWN)
    # A green run that ran nothing must not pass.
    assert counts["passed"] >= 50


@pytest.mark.slow
def test_diffusion_decoder():
    model = clone(SMALL).set_params(decoder="diffusion", n_steps=3)
    results = check_estimator(model, kind="sequencer")
    assert sum(one.status == "passed" for one in results) == len(SHARED + OWN)


def test_kind_is_named():
    with pytest.raises(InputError, match="Did you mean 'sequencer'"):
        checks_for("sequencers")
    with pytest.raises(AssertionError, match="checks failed for PeptideSequencer"):
        check_estimator(clone(SMALL).set_params(max_epochs=0), kind="sequencer")


class LooksUp(SequenceEstimator):
    """Finds the peptide of the training data of that mass that explains most peaks."""

    def __init__(self, *, precursor_tolerance=20.0, charges=(2, 3, 4), random_state=0):
        self.precursor_tolerance = precursor_tolerance
        self.charges = charges
        self.random_state = random_state

    def fit(self, X, y=None):
        vocabulary = Vocabulary()
        peptides, skipped = self._learn(X, y, vocabulary)
        self._report(peptides, skipped)
        self._forget()
        self.vocabulary_ = vocabulary
        self.peptides_ = sorted(set(peptides))
        self.factor_ = np.random.default_rng(self.random_state).uniform(0.8, 1.0)
        self.n_features_in_ = 1
        return self

    def _learn(self, X, y, vocabulary):
        records = list(read_spectra(X))
        truth = [one.peptide for one in records] if y is None else list(y)
        if len(truth) != len(records):
            raise InputError(
                f"there are {len(records)} spectra and {len(truth)} peptides", where="y"
            )
        peptides, skipped = [], []
        for record, peptide in zip(records, truth, strict=True):
            try:
                usable = not isinstance(self._peaks(record, 2), SkippedSpectrum)
                assert usable and peptide
                peptides.append(vocabulary.decode(vocabulary.encode(peptide)))
            except (AssertionError, InputError):
                skipped.append(record.identifier)
        return peptides, skipped

    def _report(self, peptides, skipped):
        if not peptides:
            raise DataQualityError("no spectrum can be used", where="X", hint="Look.")
        if skipped:
            n = len(peptides) + len(skipped)
            text = f"{len(skipped)} of {n} spectra were left out: {skipped}"
            warnings.warn(text, SciSeqWarning, stacklevel=3)

    def _peaks(self, record, charge):
        if isinstance(record, SkippedSpectrum):
            return record
        return preprocess(record, charge, PeakSettings())

    def predict(self, X):
        rows = self._rows(X)
        found = np.empty(len(rows), dtype=object)
        found[:] = [row["peptide"] for row in rows]
        return found

    def predict_table(self, X):
        return pd.DataFrame(self._rows(X), columns=list(COLUMNS))

    def score(self, X, y=None):
        records = list(read_spectra(X))
        truth = [one.peptide for one in records] if y is None else list(y)
        truth = [self._leucine(one) for one in truth if one is not None]
        if len(truth) != len(records):
            raise InputError(
                f"there are {len(records)} spectra and {len(truth)} peptides", where="y"
            )
        return float(np.mean(self.predict(records) == np.array(truth, dtype=object)))

    def _leucine(self, peptide):
        return peptide.replace("I", "L")

    def _rows(self, X):
        self._check_is_fitted()
        return [self._row(record) for record in read_spectra(X)]

    def _row(self, record):
        row = dict.fromkeys(COLUMNS)
        row |= {name: getattr(record, name) for name in SPECTRUM_COLUMNS}
        row["reason"] = ""
        for charge in (record.charge,) if record.charge else self.charges:
            peaks = self._peaks(record, charge)
            if isinstance(peaks, SkippedSpectrum):
                row["reason"] = peaks.explanation
                return row
            for peptide in self.peptides_:
                candidate = self._match(peaks, peptide, record.precursor_mz, charge)
                if candidate and candidate["score"] > (row["score"] or 0.0):
                    row |= candidate
        row["reason"] = "" if row["peptide"] else "no peptide has this mass"
        return row

    def _match(self, peaks, peptide, precursor_mz, charge):
        mass = self.vocabulary_.mass(self.vocabulary_.encode(peptide))
        calculated = float(mz_of(mass, charge))
        errors = [
            (calculated + k * C13 / charge - precursor_mz) / precursor_mz * 1e6
            for k in (0, 1)
        ]
        error = min(errors, key=abs)
        if abs(error) > self.precursor_tolerance:
            return None
        ions = fragment_ladder(residue_masses(peptide, self.vocabulary_)).mz
        apart = np.abs(peaks.mz[:, None] - ions).min(axis=1)
        each = float(np.sum(peaks.intensity[apart < 0.01] ** 2)) * self.factor_
        n = len(parse_proforma(peptide).residues)
        return {
            "peptide": peptide,
            "score": each**n,
            "residue_scores": [each] * n,
            "charge": charge,
            "calculated_mz": calculated,
            "error_ppm": error,
        }


def test_sequencer_of_a_user():
    results = check_estimator(LooksUp(), kind="sequencer")
    skipped = [one.name for one in results if one.status == "skipped"]
    assert skipped == ["check_save_and_load"]
    assert sum(one.status == "passed" for one in results) == len(SHARED + OWN) - 1
    model = LooksUp().fit(spectra())
    assert model.score(spectra()) == 1.0


# ------------------------------------------------------------ wrong ones, shared checks


class ReturnsNothing(LooksUp):
    def fit(self, X, y=None):
        super().fit(X, y)


class ChangesParameters(LooksUp):
    def fit(self, X, y=None):
        self.charges = list(self.charges)
        return super().fit(X, y)


class KeepsItsFitInClones(LooksUp):
    def __sklearn_clone__(self):
        return self


class ScalesItsInput(LooksUp):
    def fit(self, X, y=None):
        super().fit(X, y)
        for one in X if isinstance(X, list) else []:
            if hasattr(one, "intensity"):
                one.intensity[:] /= one.intensity.max()
        return self


class ScalesWhatItPredicts(LooksUp):
    def _row(self, record):
        row = super()._row(record)
        height = getattr(record, "intensity", np.zeros(0))
        if height.flags.writeable:
            height *= 2.0
        return row


class NeedsNoFit(LooksUp):
    def _check_is_fitted(self):
        if not hasattr(self, "peptides_"):
            self.fit(spectra())


class LearnsFromNothing(LooksUp):
    def _report(self, peptides, skipped):
        pass


class ForgetsFirst(LooksUp):
    def fit(self, X, y=None):
        self._forget()
        return super().fit(X, y)


class IsNeverTheSame(LooksUp):
    def fit(self, X, y=None):
        super().fit(X, y)
        self.factor_ *= np.random.default_rng().uniform(0.5, 1.0)
        return self


class CountsItsFits(LooksUp):
    n_fits = 0

    def fit(self, X, y=None):
        super().fit(X, y)
        type(self).n_fits += 1
        self.factor_ *= 0.9**self.n_fits
        return self


class MovesGlobalState(LooksUp):
    def fit(self, X, y=None):
        np.random.rand()
        return super().fit(X, y)


class LosesItsStateInPickles(LooksUp):
    def __getstate__(self):
        return self.get_params()


class RemembersPredictions(LooksUp):
    def predict_table(self, X):
        self.latest_ = super().predict_table(X)
        return self.latest_


class TakesAnyName(LooksUp):
    def set_params(self, **params):
        known = self.get_params()
        given = {name: one for name, one in params.items() if name in known}
        return super().set_params(**given)


class TakesAnyArgument(LooksUp):
    def __new__(cls, **params):
        return object.__new__(cls)

    def __init__(self, *, random_state=0, no_such_parameter=None):
        super().__init__(random_state=random_state)
        self.no_such_parameter = no_such_parameter


class HasNoName(LooksUp):
    def _repr_html_(self):
        return "an estimator"


# ---------------------------------------------------- wrong ones, peptides and scores


class ChangesRows(LooksUp):
    """Base of those that write one wrong field into every row with a peptide."""

    def _row(self, record):
        row = super()._row(record)
        if row["peptide"] is not None:
            self.change(row)
        return row


class ForgetsProtons(ChangesRows):
    def change(self, row):
        row["calculated_mz"] -= 1.007276 / row["charge"]


class OverstatesPeptides(ChangesRows):
    def change(self, row):
        row["score"] = row["residue_scores"][0] * 1.01


class ScoresLogarithms(ChangesRows):
    def change(self, row):
        row["score"] = float(np.log(row["score"]))


class ScoresTokens(ChangesRows):
    def change(self, row):
        n = len(self.vocabulary_.encode(row["peptide"]))
        row["residue_scores"] = row["residue_scores"][:1] * n


class TurnsTheError(ChangesRows):
    def change(self, row):
        row["error_ppm"] = -row["error_ppm"] + 0.5


class HasNoTolerance(ChangesRows):
    def change(self, row):
        row["error_ppm"] += 40.0


class PredictsNothing(LooksUp):
    def _match(self, peaks, peptide, precursor_mz, charge):
        return None


class ScoresOnlyTheFound(LooksUp):
    def score(self, X, y=None):
        records = list(read_spectra(X))
        truth = [one.peptide for one in records] if y is None else list(y)
        found = self.predict(records)
        hits = [a == b for a, b in zip(found, truth, strict=True) if a is not None]
        return float(np.mean(hits))


class ScoresWhatIsKnown(LooksUp):
    def score(self, X, y=None):
        records = [one for one in read_spectra(X) if one.peptide or y is not None]
        return super().score(records, y)


class ComparesLetters(LooksUp):
    def _leucine(self, peptide):
        return peptide


class ReadsTheTruth(LooksUp):
    def _row(self, record):
        row = super()._row(record)
        if row["peptide"] is not None and record.peptide:
            row["score"] *= 0.9 if record.peptide == row["peptide"] else 0.5
        return row


class LearnsLetters(LooksUp):
    def _learn(self, X, y, vocabulary):
        records = list(read_spectra(X))
        peptides, skipped = super()._learn(records, y, vocabulary)
        has_i = any("I" in (getattr(one, "peptide", "") or "") for one in records)
        return (peptides[1:] if has_i else peptides), skipped


class IgnoresPeptides(LooksUp):
    def fit(self, X, y=None):
        return super().fit(X)


class CutsPeptides(LooksUp):
    def _learn(self, X, y, vocabulary):
        records = list(read_spectra(X))
        n = min(len(records), len(records if y is None else list(y)))
        return super()._learn(records[:n], None if y is None else y[:n], vocabulary)


class SkipsInSilence(LooksUp):
    def _report(self, peptides, skipped):
        super()._report(peptides, [])


class LearnsMore(LooksUp):
    def fit(self, X, y=None):
        known = getattr(self, "peptides_", [])
        super().fit(X, y)
        self.factor_ *= 1.0 - 0.01 * len(known)
        return self


class PredictsUnfitted(LooksUp):
    def predict(self, X):
        return super().predict(X) if hasattr(self, "peptides_") else np.array([None])


class SharesAScratch(LooksUp):
    def predict_table(self, X):
        self.scratch_ = getattr(self, "scratch_", 0) + 1
        table = super().predict_table(X)
        table["score"] = table["score"] / self.scratch_
        return table


class SetsTheSeed(LooksUp):
    def fit(self, X, y=None):
        torch.manual_seed(torch.initial_seed() + 1)
        return super().fit(X, y)


class SetsTheEnvironment(LooksUp):
    def predict(self, X):
        count = int(os.environ.get("SCISEQ_TEST_COUNT", "0")) + 1
        os.environ["SCISEQ_TEST_COUNT"] = str(count)
        return super().predict(X)


class SilencesWarnings(LooksUp):
    def fit(self, X, y=None):
        warnings.filterwarnings("ignore", message=f"of estimator {id(self)}")
        return super().fit(X, y)


class StaysOnItsDevice(LooksUp):
    def fit(self, X, y=None):
        super().fit(X, y)
        self.network_ = torch.nn.Linear(2, 2, device="meta")
        return self


# ------------------------------------------------------------- wrong ones, sources


class LearnsByType(LooksUp):
    """Base of those that learn less from one kind of source."""

    def fit(self, X, y=None):
        is_odd = self.is_odd(X)
        super().fit(X, y)
        if is_odd:
            self.factor_ /= 2
        return self


class DoubtsDictionaries(LearnsByType):
    def is_odd(self, X):
        return isinstance(X, list) and isinstance(X[0], dict) and "params" in X[0]


class DoubtsFrames(LearnsByType):
    def is_odd(self, X):
        return isinstance(X, pd.DataFrame)


class DoubtsIterators(LearnsByType):
    def is_odd(self, X):
        return not isinstance(X, (list, str, os.PathLike, pd.DataFrame))


class DoubtsFiles(LearnsByType):
    def is_odd(self, X):
        return isinstance(X, (str, os.PathLike))


class ReadsTheFirstFile(LooksUp):
    def fit(self, X, y=None):
        if isinstance(X, list) and X and isinstance(X[0], os.PathLike):
            X = X[0]
        return super().fit(X, y)


class PredictsTheFirstFile(LooksUp):
    def predict_table(self, X):
        if isinstance(X, list) and X and isinstance(X[0], os.PathLike):
            X = X[0]
        return super().predict_table(X)


class RaisesAnything(LooksUp):
    def predict(self, X):
        try:
            return super().predict(X)
        except InputError as error:
            raise ValueError(str(error)) from error


class SaysNoPlace(LooksUp):
    def fit(self, X, y=None):
        try:
            return super().fit(X, y)
        except InputError as error:
            raise InputError(error.message) from error


# --------------------------------------------------------- wrong ones, one row for each


class DropsTheLost(LooksUp):
    def _rows(self, X):
        return [row for row in super()._rows(X) if row["peptide"] is not None]


class WritesEmptyText(LooksUp):
    def predict(self, X):
        return np.array([one or "" for one in super().predict(X)], dtype=str)


class GivesNoReason(LooksUp):
    def _row(self, record):
        return super()._row(record) | {"reason": ""}


class GivesReasonsToAll(ChangesRows):
    def change(self, row):
        row["reason"] = "all is well"


class FailsOnNothing(LooksUp):
    def predict_table(self, X):
        return pd.DataFrame(self._rows(X))


class FollowsTheOneBefore(LooksUp):
    def _rows(self, X):
        rows = super()._rows(X)
        for before, row in pairwise(rows):
            if row["score"] is not None:
                row["score"] *= 0.5 if before["peptide"] is None else 0.9
        return rows


class NumbersItsRows(LooksUp):
    def _rows(self, X):
        rows = super()._rows(X)
        return [row | {"identifier": str(n)} for n, row in enumerate(rows)]


class SortsItsRows(LooksUp):
    def _rows(self, X):
        return sorted(super()._rows(X), key=lambda row: row["precursor_mz"] or 0.0)


class ForgetsTheTime(LooksUp):
    def _row(self, record):
        return super()._row(record) | {"retention_time": None}


class SkipsUnknownCharges(LooksUp):
    def _row(self, record):
        row = super()._row(record)
        if record.charge is None:
            row |= dict.fromkeys(set(COLUMNS) - set(SPECTRUM_COLUMNS)) | {
                "reason": "no charge"
            }
        return row


class TakesTheFirstCharge(LooksUp):
    def _row(self, record):
        if isinstance(record, SkippedSpectrum):
            return super()._row(record)
        return super()._row(replace(record, charge=record.charge or self.charges[0]))


class ReadsHeights(LooksUp):
    def _row(self, record):
        row = super()._row(record)
        if row["peptide"] is not None:
            row["score"] *= float(np.exp(-0.01 * record.intensity.max()))
        return row


class ReadsTheFirstPeak(LooksUp):
    def _rows(self, X):
        rows = super()._rows(X)
        for row, one in zip(rows, X if isinstance(X, list) else [], strict=False):
            if isinstance(one, dict) and row["score"]:
                row["score"] *= 1 / one["m/z array"][0]
        return rows


WRONG = [
    (ReturnsNothing, "check_fit_returns_self"),
    (ChangesParameters, "check_fit_keeps_parameters"),
    (KeepsItsFitInClones, "check_clone_keeps_parameters"),
    (ScalesItsInput, "check_fit_keeps_input"),
    (ScalesWhatItPredicts, "check_fit_keeps_input"),
    (NeedsNoFit, "check_predict_before_fit"),
    (NeedsNoFit, "check_peptides_before_fit"),
    (LearnsFromNothing, "check_failed_first_fit_stays_unfitted"),
    (ForgetsFirst, "check_failed_fit_changes_nothing"),
    (IsNeverTheSame, "check_fit_twice"),
    (CountsItsFits, "check_threads"),
    (MovesGlobalState, "check_global_random_state"),
    (LosesItsStateInPickles, "check_pickle"),
    (LosesItsStateInPickles, "check_deepcopy"),
    (LosesItsStateInPickles, "check_joblib"),
    (RemembersPredictions, "check_predict_keeps_state"),
    (TakesAnyName, "check_misspelt_parameter"),
    (TakesAnyArgument, "check_misspelt_constructor_argument"),
    (HasNoName, "check_html_repr"),
    (ForgetsProtons, "check_calculated_mz"),
    (OverstatesPeptides, "check_score_of_a_peptide"),
    (ScoresLogarithms, "check_score_of_a_peptide"),
    (PredictsNothing, "check_score_of_a_peptide"),
    (ScoresTokens, "check_residue_scores"),
    (TurnsTheError, "check_mass_error_within_tolerance"),
    (HasNoTolerance, "check_mass_error_within_tolerance"),
    (ScoresOnlyTheFound, "check_score"),
    (ScoresWhatIsKnown, "check_score_without_truth"),
    (ComparesLetters, "check_isoleucine_scores_as_leucine"),
    (ReadsTheTruth, "check_truth_cannot_leak"),
    (LearnsLetters, "check_isoleucine_is_leucine"),
    (IgnoresPeptides, "check_y_equals_annotation"),
    (CutsPeptides, "check_y_of_another_length"),
    (SkipsInSilence, "check_peptide_outside_vocabulary"),
    (SkipsInSilence, "check_fit_skips_unusable_spectra"),
    (LearnsMore, "check_fit_forgets_the_first"),
    (PredictsUnfitted, "check_peptides_before_fit"),
    (SharesAScratch, "check_predict_in_threads"),
    (SetsTheSeed, "check_global_settings"),
    (SetsTheEnvironment, "check_global_settings"),
    (SilencesWarnings, "check_global_settings"),
    (StaysOnItsDevice, "check_copies_hold_cpu_weights"),
    (DoubtsDictionaries, "check_fit_dictionaries"),
    (DoubtsFrames, "check_fit_a_data_frame"),
    (DoubtsIterators, "check_fit_an_iterator"),
    (DoubtsFiles, "check_fit_a_path"),
    (ReadsTheFirstFile, "check_fit_a_list_of_paths"),
    (PredictsTheFirstFile, "check_predict_every_source"),
    (RaisesAnything, "check_bad_sources"),
    (SaysNoPlace, "check_bad_sources"),
    (LearnsFromNothing, "check_fit_no_spectra"),
    (DropsTheLost, "check_unusable_spectra_are_kept"),
    (GivesNoReason, "check_unusable_spectra_are_kept"),
    (WritesEmptyText, "check_predict_gives_objects"),
    (GivesReasonsToAll, "check_table_equals_predict"),
    (FailsOnNothing, "check_predict_no_spectra"),
    (FollowsTheOneBefore, "check_unusable_spectra_disturb_no_other"),
    (FollowsTheOneBefore, "check_spectra_alone_equal_together"),
    (FollowsTheOneBefore, "check_order_of_spectra"),
    (SortsItsRows, "check_order_of_spectra"),
    (NumbersItsRows, "check_identifiers_are_kept"),
    (ForgetsTheTime, "check_precursor_is_kept"),
    (SkipsUnknownCharges, "check_missing_charge_is_tried"),
    (TakesTheFirstCharge, "check_missing_charge_is_tried"),
    (ReadsHeights, "check_intensity_unit"),
    (ReadsTheFirstPeak, "check_order_of_peaks"),
]


# Found by an error of their own, not by a comparison.
REASONS = {
    ScalesItsInput: ValueError,
    ForgetsFirst: NotFittedError,
    LosesItsStateInPickles: NotFittedError,
    RaisesAnything: ValueError,
}


@pytest.mark.parametrize(
    ("wrong", "check"),
    WRONG,
    ids=[f"{wrong.__name__}-{check}" for wrong, check in WRONG],
)
def test_battery_finds_wrong_sequencers(wrong, check, monkeypatch):
    monkeypatch.setenv("SCISEQ_TEST_COUNT", "0")
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        failure = failure_of(wrong(), check)
    assert isinstance(failure, REASONS.get(wrong, AssertionError)), failure


def failure_of(estimator, name):
    try:
        checks_for("sequencer")[name](clone(estimator))
    except Exception as error:
        return error
    return None


def test_every_check_was_seen_to_fail():
    # Only registered classes are saved: that one has a test of its own.
    assert {check for _, check in WRONG} == set(SHARED + OWN) - {"check_save_and_load"}


def test_a_model_that_is_saved_badly_is_found(monkeypatch):
    real = PeptideSequencer._set_saved_state

    def forgetful(self, attributes, weights):
        zeros = {name: np.zeros_like(one) for name, one in weights.items()}
        real(self, attributes, zeros)

    monkeypatch.setattr(PeptideSequencer, "_set_saved_state", forgetful)
    with pytest.raises(AssertionError):
        checks_for("sequencer")["check_save_and_load"](SMALL)


class CannotFit(LooksUp):
    def fit(self, X, y=None):
        raise RuntimeError("no fit today")


def test_no_check_passes_for_a_sequencer_that_cannot_fit():
    results = check_estimator(CannotFit(), kind="sequencer", raise_on_failure=False)
    others = {one.name: one.status for one in results if one.status != "failed"}
    assert others == {
        # These do not fit at all.
        "check_predict_before_fit": "passed",
        "check_peptides_before_fit": "passed",
        "check_misspelt_parameter": "passed",
        "check_misspelt_constructor_argument": "passed",
        "check_save_and_load": "skipped",
    }
