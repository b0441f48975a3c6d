"""Annotated spectra of a user, checked and stacked for the training.

Axes: n spectra.
"""

import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from sciseq.decoding.ctc import required_length
from sciseq.errors import DataQualityError, InputError, SciSeqWarning
from sciseq.sequencing.ion_evidence import Peaks
from sciseq.sequencing.network import Targets
from sciseq.sequencing.peptide_batches import stack_peaks, stack_targets
from sciseq.sequencing.residues import Vocabulary, neutral_mass
from sciseq.sequencing.spectra import PeakSettings, SkippedSpectrum, preprocess
from sciseq.sequencing.spectrum_files import read_spectra

__all__ = ["TrainingSpectra", "read_annotated", "split_by_peptide"]


@dataclass(frozen=True)
class TrainingSpectra:
    """Preprocessed spectra and their peptides.

    Parameters
    ----------
    peaks : list of (mz, intensity)
        Preprocessed peaks.
    precursor_mass : ndarray, shape (n,)
        Neutral masses in Da.
    charge : ndarray of int64, shape (n,)
        Charges.
    peptides : list of ndarray
        Token indices, N to C.
    skipped : list of (identifier, reason)
        What was left out.
    """

    peaks: list[tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]]
    precursor_mass: npt.NDArray[np.float64]
    charge: npt.NDArray[np.int64]
    peptides: list[npt.NDArray[np.int64]]
    skipped: list[tuple[str, str]]

    def __len__(self) -> int:
        return len(self.peaks)

    def subset(self, rows: Sequence[int]) -> "TrainingSpectra":
        """Return some of the spectra."""
        return TrainingSpectra(
            [self.peaks[row] for row in rows],
            self.precursor_mass[list(rows)],
            self.charge[list(rows)],
            [self.peptides[row] for row in rows],
            [],
        )

    def stacked(self, dtype: torch.dtype) -> tuple[Peaks, Targets]:
        """Stack everything into tensors on the CPU."""
        peaks = stack_peaks(self.peaks, self.precursor_mass, self.charge, dtype=dtype)
        return peaks, stack_targets(self.peptides)


def read_annotated(
    X: Any,
    y: Iterable[str] | None,
    *,
    vocabulary: Vocabulary,
    settings: PeakSettings,
    most_residues: int,
    n_slots: int | None = None,
) -> TrainingSpectra:
    """Read spectra with known peptides; what cannot be used is warned of and counted.

    Parameters
    ----------
    X : any source of spectra
        As in :func:`~sciseq.sequencing.spectrum_files.read_spectra`.
    y : iterable of str, optional
        Peptides in ProForma, one per spectrum. By default those of the files.
    vocabulary : Vocabulary
        Tokens that peptides are written with.
    settings : PeakSettings
        Of the preprocessing.
    most_residues : int
        Longest peptide.
    n_slots : int, optional
        Symbols of the nonautoregressive decoder, where there is one.

    Raises
    ------
    InputError
        When the numbers of spectra and peptides differ.
    DataQualityError
        When no spectrum can be used.

    Warns
    -----
    SciSeqWarning
        With the numbers of spectra that were left out, by reason; and with that of
        those whose peptides the nonautoregressive decoder has too few symbols for.
    """
    names = None if y is None else list(y)
    kept: list[tuple[Any, float, int, npt.NDArray[np.int64]]] = []
    identifiers: list[str] = []
    skipped: list[tuple[str, str]] = []
    n_spectra = 0
    for spectrum in read_spectra(X):
        place, n_spectra = n_spectra, n_spectra + 1
        if isinstance(spectrum, SkippedSpectrum):
            skipped.append((spectrum.identifier, spectrum.reason))
            continue
        if names is not None and place >= len(names):
            continue  # refused below, with both numbers
        peptide = spectrum.peptide if names is None else names[place]
        found = _usable(spectrum, peptide, vocabulary, settings, most_residues)
        if isinstance(found, str):
            skipped.append((spectrum.identifier, found))
        else:
            kept.append(found)
            identifiers.append(spectrum.identifier)
    if names is not None and len(names) != n_spectra:
        raise InputError(
            f"there are {n_spectra} spectra and {len(names)} peptides",
            where="y",
            hint="Give one peptide per spectrum, in the same order.",
        )
    _report(len(kept), skipped)
    if n_slots is not None:
        _report_crowded([tokens for *_, tokens in kept], identifiers, n_slots)
    return TrainingSpectra(
        [peaks for peaks, *_ in kept],
        np.array([mass for _, mass, _, _ in kept]),
        np.array([charge for _, _, charge, _ in kept], np.int64),
        [tokens for *_, tokens in kept],
        skipped,
    )


def _usable(
    spectrum: Any,
    peptide: str | None,
    vocabulary: Vocabulary,
    settings: PeakSettings,
    most_residues: int,
) -> tuple[Any, float, int, npt.NDArray[np.int64]] | str:
    """Return what the training needs of one spectrum, or why it is of no use."""
    if peptide is None:
        return "it has no peptide"
    if spectrum.charge is None:
        return "it has no charge"
    try:
        tokens = vocabulary.encode(peptide)
    except InputError:
        return "its peptide cannot be written with the vocabulary"
    if len(tokens) > most_residues:
        return f"its peptide is longer than {most_residues} residues"
    peaks = preprocess(spectrum, spectrum.charge, settings)
    if isinstance(peaks, SkippedSpectrum):
        return peaks.reason
    mass = neutral_mass(spectrum.precursor_mz, spectrum.charge)
    return (peaks.mz, peaks.intensity), float(mass), int(spectrum.charge), tokens


def _report(n_kept: int, skipped: list[tuple[str, str]]) -> None:
    counts = Counter(reason for _, reason in skipped)
    listed = "; ".join(f"{number}: {reason}" for reason, number in counts.most_common())
    if not n_kept:
        raise DataQualityError(
            f"no spectrum can be trained on ({listed or 'there is none'})",
            where="X",
            hint="Spectra need peaks, a charge, and a peptide of known residues.",
        )
    if skipped:
        first = ", ".join(identifier for identifier, _ in skipped[:3])
        warnings.warn(
            f"{len(skipped)} of {n_kept + len(skipped)} spectra were left out "
            f"({listed}), the first ones {first}",
            SciSeqWarning,
            stacklevel=4,
        )


def _report_crowded(
    peptides: list[npt.NDArray[np.int64]], identifiers: list[str], n_slots: int
) -> None:
    """Warn of peptides that no path of the nonautoregressive decoder collapses to."""
    needed = required_length(*stack_targets(peptides)).numpy()
    rows = np.flatnonzero(needed > n_slots)
    if len(rows):
        first = ", ".join(identifiers[row] for row in rows[:3])
        warnings.warn(
            f"the nonautoregressive decoder learns nothing from {len(rows)} of "
            f"{len(peptides)} spectra: it has {n_slots} symbols, and their peptides "
            "need more, one for each residue and one between equal neighbours; the "
            f"first ones {first}. most_residues={needed.max()} would be enough",
            SciSeqWarning,
            stacklevel=4,
        )


def split_by_peptide(
    peptides: Sequence[npt.NDArray[np.int64]],
    vocabulary: Vocabulary,
    fraction: float,
    rng: np.random.Generator,
) -> tuple[list[int], list[int]]:
    """Split spectra so that no peptide is on both sides, whatever its modifications.

    Parameters
    ----------
    peptides : sequence of ndarray
        Token indices.
    vocabulary : Vocabulary
        What they mean.
    fraction : float
        Share of the different peptides that is held out.
    rng : numpy.random.Generator
        Chooses them.

    Returns
    -------
    tuple of two lists of int
        Rows to train on, and rows to validate on.

    Examples
    --------
    >>> import numpy as np
    >>> vocabulary = Vocabulary()
    >>> names = ["PEPTM[Oxidation]K", "PEPTMK", "LKAGGR"]
    >>> peptides = [vocabulary.encode(one) for one in names]
    >>> split_by_peptide(peptides, vocabulary, 0.5, np.random.default_rng(0))
    ([0, 1], [2])
    """
    bare = [_bare(vocabulary, one) for one in peptides]
    names = sorted(set(bare))
    n_held = round(fraction * len(names))
    if fraction > 0 and len(names) > 1:
        n_held = min(max(n_held, 1), len(names) - 1)
    held = {names[place] for place in rng.permutation(len(names))[:n_held]}
    training = [row for row, name in enumerate(bare) if name not in held]
    return training, [row for row, name in enumerate(bare) if name in held]


def _bare(vocabulary: Vocabulary, tokens: npt.NDArray[np.int64]) -> str:
    letters = (vocabulary.tokens[one][0] for one in tokens)
    return "".join(letter for letter in letters if letter != "[")
