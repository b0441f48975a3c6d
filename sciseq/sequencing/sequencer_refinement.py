"""What spectra of known peptides teach a fitted sequencer, and tell of it.

Axes: n spectra, c candidates of one of them.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sciseq.errors import CapabilityError, InputError
from sciseq.sequencing.calibration import ScoreCalibration
from sciseq.sequencing.evaluation import evaluate
from sciseq.sequencing.peptide_search import Found
from sciseq.sequencing.prediction import TOGETHER, SequencePrediction
from sciseq.sequencing.reranking import Reranker
from sciseq.sequencing.spectrum_files import read_spectra
from sciseq.training import resolve_seed

__all__ = ["SequenceRefinement"]


class _KnownCandidates(NamedTuple):
    """What the search finds for spectra of known peptides, one entry each (n,)."""

    truths: list[str]
    found: list[list[Found]]  # (n,) of c
    features: list[npt.NDArray[np.float64]]  # (n,) of (c, feature)


class SequenceRefinement(SequencePrediction):
    """Calibration, choice among candidates, and score of a fitted sequencer."""

    random_state: Any

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
        self._check_is_fitted()
        self._check_has_candidates()
        known = self._known_candidates(*_annotated(X, y))
        seed = resolve_seed(self.random_state)
        self.reranker_ = Reranker.fit(
            known.features, self._right_ones(known), seed % 2**31
        )
        if hasattr(self, "calibration_"):
            del self.calibration_
        return self

    def _check_has_candidates(self) -> None:
        if self.decoder in ("nonautoregressive", "diffusion"):
            raise CapabilityError(
                f"decoder={self.decoder!r} finds one peptide for each spectrum",
                where="fit_reranker",
                hint="Fit decoder='hybrid' or 'autoregressive'.",
            )

    def _known_candidates(
        self, records: list[Any], truths: list[str]
    ) -> _KnownCandidates:
        """Search the spectra, one entry for each charge that is tried."""
        queries = [
            (query, truth)
            for record, truth in zip(records, truths, strict=True)
            for query in self._queries(record)
        ]
        known = _KnownCandidates([], [], [])
        for first in range(0, len(queries), TOGETHER):
            part = queries[first : first + TOGETHER]
            peaks, found = self._candidates([one for one, _ in part], self.beam_size)
            known.truths.extend(truth for _, truth in part)
            known.found.extend(found)
            known.features.extend(self._features(peaks, found))
        return known

    def _right_ones(self, known: _KnownCandidates) -> list[npt.NDArray[np.bool_]]:
        """Return which candidates are the true peptides, (n,) of (c,)."""
        pairs = [
            (truth, self.vocabulary_.decode(one.tokens))
            for truth, many in zip(known.truths, known.found, strict=True)
            for one in many
        ]
        evaluation = evaluate(
            [truth for truth, _ in pairs], [peptide for _, peptide in pairs],
            vocabulary=self.vocabulary_,
        )  # fmt: skip
        ends = np.cumsum([len(many) for many in known.found])[:-1]
        return np.split(np.asarray(evaluation.is_match, bool), ends)

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
        records, truths = _annotated(X, y)
        found = self.predict(records)
        evaluation = evaluate(truths, list(found), vocabulary=self.vocabulary_)
        return float(evaluation.peptide_recall)


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
