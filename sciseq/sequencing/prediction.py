"""What a fitted sequencer does: peptides, tables and scores of spectra.

Axes: n spectra.
"""

import functools
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from sciseq.errors import CapabilityError, InputError
from sciseq.sequencing.calibration import ScoreCalibration, q_values
from sciseq.sequencing.candidate_features import candidate_features
from sciseq.sequencing.decoys import decoy_q_values, decoy_spectra
from sciseq.sequencing.ion_evidence import Peaks
from sciseq.sequencing.mass_table import MassTable
from sciseq.sequencing.masses import mz_of, neutral_mass, ppm_error
from sciseq.sequencing.network import PeptideNetwork
from sciseq.sequencing.peptide_batches import stack_peaks
from sciseq.sequencing.peptide_search import (
    Found,
    SearchSettings,
    search_paths,
    search_residues,
)
from sciseq.sequencing.reranking import Reranker
from sciseq.sequencing.residues import Vocabulary
from sciseq.sequencing.spectra import PeakSettings, SkippedSpectrum, preprocess
from sciseq.sequencing.spectrum_files import read_spectra
from sciseq.torch_base import TorchEstimator
from sciseq.training import resolve_seed

__all__ = ["COLUMNS", "SPECTRUM_COLUMNS", "SequencePrediction"]

SPECTRUM_COLUMNS = (
    "source", "identifier", "index", "scan", "title", "retention_time",
    "precursor_mz", "charge",
)  # fmt: skip
COLUMNS = (
    *SPECTRUM_COLUMNS, "peptide", "score", "residue_scores", "calculated_mz",
    "error_ppm", "reason",
)  # fmt: skip
"""Columns of the table of peptide-spectrum matches."""

# Spectra that are read before they are sorted by size, and those computed at once.
_CHUNK, _TOGETHER = 1024, 64


class _Query(NamedTuple):
    """One spectrum with one charge."""

    row: int  # in the chunk
    mz: npt.NDArray[np.float64]
    intensity: npt.NDArray[np.float64]
    mass: float
    charge: int


class SequencePrediction(TorchEstimator):
    """Predicting with a fitted network; the estimator's other half."""

    decoder: str
    beam_size: int
    precursor_tolerance: float
    isotope_errors: Any
    charges: Any
    fewest_residues: int
    most_residues: int
    vocabulary_: Vocabulary

    @abstractmethod
    def _peak_settings(self) -> PeakSettings:
        """Return how peaks are prepared."""

    def predict(self, X: Any) -> npt.NDArray[np.object_]:
        """Read the peptides of spectra.

        Parameters
        ----------
        X : path, list of paths, or spectra
            As in fit; peptides are not needed.

        Returns
        -------
        ndarray of object, shape (n,)
            Peptides in ProForma, one per spectrum in order; None where there is none,
            :meth:`predict_table` says why.
        """
        peptides = [row["peptide"] for row in self.iter_rows(X)]
        found = np.empty(len(peptides), dtype=object)
        found[:] = peptides
        return found

    def predict_table(self, X: Any, *, fdr: str = "calibrated") -> Any:
        """Read the peptides of spectra, with scores and the fate of every spectrum.

        Parameters
        ----------
        X : path, list of paths, or spectra
            As in :meth:`predict`.
        fdr : {"calibrated", "decoy"}, default="calibrated"
            How false discovery rates are estimated. ``"decoy"`` reads a decoy of every
            spectrum too, in twice the time; its rates are too small as a rule, see
            :mod:`sciseq.sequencing.decoys`.

        Returns
        -------
        DataFrame
            One row per spectrum, in order: source, native identifier, index in the
            source, scan number, title, retention time in s, precursor m/z, charge,
            peptide in ProForma, score in [0, 1], scores of the residues from the
            N-terminus, calculated m/z, mass error in ppm, and the reason where there is
            no peptide. After :meth:`calibrate` also probability and q_value; with
            ``fdr="decoy"`` also decoy_score and decoy_q_value.

        Raises
        ------
        InputError
            For another `fdr`.
        """
        import pandas as pd

        if fdr not in ("calibrated", "decoy"):
            raise InputError(
                f"fdr is {fdr!r}, must be 'calibrated' or 'decoy'", where="fdr"
            )
        if fdr == "decoy":
            X = list(read_spectra(X))
        table = pd.DataFrame(list(self.iter_rows(X)), columns=list(COLUMNS))
        calibration: ScoreCalibration | None = getattr(self, "calibration_", None)
        if calibration is not None:
            scores = table["score"].to_numpy(np.float64)
            table["probability"] = calibration.probability(scores)
            table["q_value"] = q_values(table["probability"].to_numpy())
        if fdr == "decoy":
            decoys = pd.DataFrame(list(self.iter_rows(decoy_spectra(X))))
            table["decoy_score"] = decoys["score"].astype(np.float64)
            table["decoy_q_value"] = decoy_q_values(
                table["score"].astype(np.float64), table["decoy_score"]
            )
        return table

    def calibrate(self, X: Any, y: Iterable[str] | None = None) -> Any:
        """Learn from annotated spectra how probable peptides of a score are right.

        Afterwards :meth:`predict_table` has two more columns: ``probability``, and
        ``q_value``, the expected share of wrong peptides among all that are at least
        as probable.

        Parameters
        ----------
        X : path, list of paths, or spectra
            Annotated spectra that were not trained on, of the kind to be read later.
        y : iterable of str, optional
            True peptides; by default those of the files.

        Returns
        -------
        self

        Raises
        ------
        DataQualityError
            When fewer than ten of the spectra get a peptide.
        """
        from sciseq.sequencing.evaluation import evaluate

        records, truths = _annotated(X, y)
        table = self.predict_table(records)
        found = evaluate(truths, list(table["peptide"]), vocabulary=self.vocabulary_)
        has_peptide = table["peptide"].notna().to_numpy()
        self.calibration_ = ScoreCalibration.fit(
            table["score"].to_numpy(np.float64)[has_peptide],
            np.asarray(found.is_match)[has_peptide],
        )
        return self

    def fit_reranker(self, X: Any, y: Iterable[str] | None = None) -> Any:
        """Learn to choose among the candidates that the search finds.

        The search ranks peptides by what one decoder says, residue by residue. The
        candidates of its ``beam_size`` beams are then described by more: the other
        decoder's probability, the ions and the intensity that a peptide explains, the
        longest gap, the mass error; a small network of these says which is right.
        Afterwards predictions are chosen, and scored, by that probability.

        Parameters
        ----------
        X : path, list of paths, or spectra
            Annotated spectra with charges, that were not trained on.
        y : iterable of str, optional
            True peptides; by default those of the files.

        Returns
        -------
        self

        Raises
        ------
        CapabilityError
            When there is no autoregressive decoder, whose search has candidates.
        DataQualityError
            When fewer than twenty spectra have a right and a wrong candidate.

        Notes
        -----
        An addition to the published method. Scores of before, and a calibration of
        them, no longer count: calibrate afterwards.
        """
        from sciseq.sequencing.evaluation import evaluate

        self._check_is_fitted()
        if self.decoder == "nonautoregressive":
            raise CapabilityError(
                "a nonautoregressive decoder finds one peptide for each spectrum",
                where="fit_reranker",
                hint="Fit decoder='hybrid' or 'autoregressive'.",
            )
        records, truths = _annotated(X, y)
        features: list[Any] = []
        found: list[list[Found]] = []
        names: list[str] = []
        settings = self._peak_settings()
        queries = [
            (query, truth)
            for record, truth in zip(records, truths, strict=True)
            for query in _queries_of(record, 0, settings, self.charges)[1]
        ]
        for first in range(0, len(queries), _TOGETHER):
            part = queries[first : first + _TOGETHER]
            peaks, some = self._candidates([one for one, _ in part], self.beam_size)
            features += self._features(peaks, some)
            found += some
            names += [truth for _, truth in part]
        pairs = [
            (truth, self.vocabulary_.decode(one.tokens))
            for truth, many in zip(names, found, strict=True)
            for one in many
        ]
        evaluation = evaluate(
            [truth for truth, _ in pairs], [peptide for _, peptide in pairs],
            vocabulary=self.vocabulary_,
        )  # fmt: skip
        ends = np.cumsum([len(many) for many in found])[:-1]
        is_right = np.split(np.asarray(evaluation.is_match, bool), ends)
        seed = resolve_seed(self.random_state)
        self.reranker_ = Reranker.fit(features, is_right, seed % 2**31)
        if hasattr(self, "calibration_"):
            del self.calibration_
        return self

    def score(self, X: Any, y: Iterable[str] | None = None) -> float:
        """Return the share of all spectra whose peptide is found.

        Parameters
        ----------
        X : path, list of paths, or spectra
            As in fit.
        y : iterable of str, optional
            True peptides; by default those of the files.

        Returns
        -------
        float
            Matched peptides over all spectra, compared by mass: isoleucine is leucine.
        """
        from sciseq.sequencing.evaluation import evaluate

        records, truths = _annotated(X, y)
        found = self.predict(records)
        evaluation = evaluate(truths, list(found), vocabulary=self.vocabulary_)
        return float(evaluation.peptide_recall)

    def iter_rows(self, X: Any) -> Iterator[dict[str, Any]]:
        """Yield the rows of :meth:`predict_table` one by one, in constant memory."""
        self._check_is_fitted()
        chunk: list[Any] = []
        for record in read_spectra(X):
            chunk.append(record)
            if len(chunk) == _CHUNK:
                yield from self._rows_of(chunk)
                chunk = []
        yield from self._rows_of(chunk)

    def _rows_of(self, records: list[Any]) -> list[dict[str, Any]]:
        settings = self._peak_settings()
        rows, queries = [], []
        for number, record in enumerate(records):
            row, own = _queries_of(record, number, settings, self.charges)
            rows.append(row)
            queries += own
        # Spectra of one size together need little padding, and those of one mass are
        # read to their ends in as many steps.
        queries.sort(key=lambda one: (len(one.mz), one.mass))
        for first in range(0, len(queries), _TOGETHER):
            part = queries[first : first + _TOGETHER]
            for query, found in zip(part, self._search(part), strict=True):
                self._take(rows[query.row], query, found)
        for row in rows:
            if row["peptide"] is None and not row["reason"]:
                row["reason"] = "no peptide of this mass was found"
        return rows

    def _search(self, queries: list[_Query]) -> list[list[Found]]:
        reranker: Reranker | None = getattr(self, "reranker_", None)
        if reranker is None:
            return self._candidates(queries, 1)[1]
        peaks, found = self._candidates(queries, int(self.beam_size))
        features = self._features(peaks, found)
        return [
            reranker.rank(some, own) if some else []
            for some, own in zip(found, features, strict=True)
        ]

    def _candidates(
        self, queries: list[_Query], n_best: int
    ) -> tuple[Peaks, list[list[Found]]]:
        """Return the peaks on the device, and the best candidates of each query."""
        device = self._run_device()
        network = self.network_
        assert isinstance(network, PeptideNetwork)
        peaks = stack_peaks(
            [(one.mz, one.intensity) for one in queries],
            np.array([one.mass for one in queries]),
            np.array([one.charge for one in queries]),
            dtype=self._dtype,
        )
        peaks = Peaks(*(one.to(device) for one in peaks))
        settings = self._search_settings()._replace(n_best=n_best)
        with torch.inference_mode(), self._autocast(device):
            if network.autoregressive is None:
                return peaks, search_paths(network, peaks, settings)
            table = _mass_table(self.vocabulary_)
            return peaks, search_residues(network, peaks, table, settings)

    def _features(self, peaks: Peaks, found: list[list[Found]]) -> list[Any]:
        network = self.network_
        assert isinstance(network, PeptideNetwork)
        with torch.inference_mode(), self._autocast(peaks.mz.device):
            return list(candidate_features(network, peaks, found))

    def _search_settings(self) -> SearchSettings:
        isotopes = [int(one) for one in self.isotope_errors]
        return SearchSettings(
            beam_size=int(self.beam_size),
            ppm=float(self.precursor_tolerance),
            isotopes=(min(isotopes), max(isotopes)),
            most_residues=int(self.most_residues),
        )

    def _take(self, row: dict[str, Any], query: _Query, found: list[Found]) -> None:
        """Put a peptide into its row, when it beats what is there."""
        if not found:
            return
        best = found[0]
        is_terminal = self.vocabulary_.is_terminal[best.tokens]
        if int((~is_terminal).sum()) < self.fewest_residues:
            if row["peptide"] is None:  # another charge may have had a longer one
                row["reason"] = f"the peptide is shorter than {self.fewest_residues}"
            return
        score = float(np.exp(best.log_score))
        if row["peptide"] is not None and row["score"] >= score:
            return
        mass = self.vocabulary_.mass(best.tokens)
        isotopes = [int(one) for one in self.isotope_errors]
        errors = [
            float(ppm_error(row["precursor_mz"], mass, query.charge, one))
            for one in range(min(isotopes), max(isotopes) + 1)
        ]
        row.update(
            charge=query.charge,
            peptide=self.vocabulary_.decode(best.tokens),
            score=score,
            residue_scores=_residue_scores(best, is_terminal),
            calculated_mz=float(mz_of(mass, query.charge)),
            error_ppm=min(errors, key=abs),
            reason="",
        )


@functools.lru_cache(maxsize=4)
def _mass_table(vocabulary: Vocabulary) -> MassTable:
    """Return which masses can be composed; making it takes a moment."""
    return MassTable(vocabulary.masses, is_terminal=vocabulary.is_terminal)


def _annotated(X: Any, y: Iterable[str] | None) -> tuple[list[Any], list[str]]:
    """Read spectra and their true peptides."""
    records = list(read_spectra(X))
    given = [one.peptide for one in records] if y is None else list(y)
    truths = [one for one in given if one is not None]
    if len(truths) != len(records):
        raise InputError(
            f"there are {len(records)} spectra and {len(truths)} peptides",
            where="y",
            hint="Give one peptide per spectrum, or files that hold them.",
        )
    return records, truths


def _queries_of(
    record: Any, number: int, settings: PeakSettings, charges: Any
) -> tuple[dict[str, Any], list[_Query]]:
    """Return the empty row of a spectrum, and what is to be searched for it."""
    row: dict[str, Any] = dict.fromkeys(COLUMNS)
    row |= {name: getattr(record, name) for name in SPECTRUM_COLUMNS}
    row["reason"] = ""
    if isinstance(record, SkippedSpectrum):
        row["reason"] = record.explanation
        return row, []
    tried = (record.charge,) if record.charge else (record.charges or tuple(charges))
    queries = []
    for charge in tried:
        peaks = preprocess(record, charge, settings)
        if isinstance(peaks, SkippedSpectrum):
            row["reason"] = peaks.explanation
            continue
        mass = float(neutral_mass(record.precursor_mz, charge))
        queries.append(_Query(number, peaks.mz, peaks.intensity, mass, charge))
    if queries:
        row["reason"] = ""
    return row, queries


def _residue_scores(found: Found, is_terminal: npt.NDArray[np.bool_]) -> list[float]:
    """Scores of the residues; a terminal modification's goes into the first one."""
    scores = [float(one) for one in found.probabilities]
    if is_terminal[0] and len(scores) > 1:
        scores = [scores[0] * scores[1], *scores[2:]]
    return scores
