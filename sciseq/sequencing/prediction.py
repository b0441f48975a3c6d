"""What a fitted sequencer does: peptides, tables and scores of spectra.

Axes: n spectra.
"""

import functools
from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from sciseq.errors import InputError
from sciseq.sequencing.calibration import ScoreCalibration, q_values
from sciseq.sequencing.candidate_features import candidate_features
from sciseq.sequencing.decoys import decoy_q_values, decoy_spectra
from sciseq.sequencing.diffusion import search_places
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

__all__ = ["COLUMNS", "SPECTRUM_COLUMNS", "TOGETHER", "SequencePrediction"]

SPECTRUM_COLUMNS = (
    "source", "identifier", "index", "scan", "title", "retention_time",
    "precursor_mz", "charge",
)  # fmt: skip
COLUMNS = (
    *SPECTRUM_COLUMNS, "peptide", "score", "residue_scores", "calculated_mz",
    "error_ppm", "reason",
)  # fmt: skip
"""Columns of the table of peptide-spectrum matches."""

_CHUNK = 1024  # spectra that are read before they are sorted by size
TOGETHER = 64
"""Spectra that are computed at once."""


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
    n_steps: int
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
        for first in range(0, len(queries), TOGETHER):
            part = queries[first : first + TOGETHER]
            for query, found in zip(part, self._search(part), strict=True):
                self._take(rows[query.row], query, found)
        for row in rows:
            if row["peptide"] is None and not row["reason"]:
                row["reason"] = "no peptide of this mass was found"
        return rows

    def _queries(self, record: Any) -> list[_Query]:
        """Return what is to be searched for one spectrum."""
        return _queries_of(record, 0, self._peak_settings(), self.charges)[1]

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
            if network.diffusion is not None:
                return peaks, search_places(network, peaks, settings)
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
            n_steps=int(self.n_steps),
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
