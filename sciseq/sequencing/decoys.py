r"""False discovery rates from decoy spectra, which are far too small as a rule.

**Do not rely on them to say how many peptides are right.** A decoy looks like a
spectrum and belongs to no peptide. What is read from decoys shows how well peptides
score that were read from nothing, and so, in database searches, how many of the others
are wrong. A sequencer without a database errs otherwise: most of its wrong peptides
have the right mass, most of the right residues, and two that changed places, where the
peaks did not tell. No decoy resembles such a peptide, so the count leaves nearly all of
these errors out. What it does tell is how many peptides were read from spectra that
hold none. ``benchmarks/peptide_fdr.py`` measures the difference;
:meth:`~sciseq.PeptideSequencer.calibrate`, which needs annotated spectra, has no such
fault.

Axes: n spectra.
"""

import math
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from sciseq.errors import InputError
from sciseq.sequencing.spectrum_records import SkippedSpectrum, Spectrum

__all__ = ["decoy_q_values", "decoy_spectra"]

FloatArray = npt.NDArray[np.float64]

# In Da: more than any isotope error and precursor tolerance.
_LEAST_SHIFT, _LARGEST_SHIFT = 4.5, 11.5


def decoy_spectra(
    spectra: Iterable[Spectrum | SkippedSpectrum],
    random_state: int | np.random.Generator = 0,
) -> list[Spectrum | SkippedSpectrum]:
    r"""Return a decoy of every spectrum: its peaks, with another precursor mass.

    The mass of the precursor moves up or down by 4.5 to 11.5 Da, an amount of its own
    for each spectrum, and the peaks stay. So their number, heights, noise and distances
    are those of a real spectrum, but b and y ions contradict each other: no peptide has
    both.

    Parameters
    ----------
    spectra : iterable of Spectrum or SkippedSpectrum
        Spectra; skipped ones stay as they are.
    random_state : int or numpy.random.Generator, default=0
        Seed of the amounts; equal seeds give equal decoys. With one generator, spectra
        may be given part by part.

    Returns
    -------
    list of Spectrum or SkippedSpectrum
        In the same order, without annotated peptides.

    Notes
    -----
    For a precursor of unknown charge, the charge is taken to be 2, or the lowest of the
    possible ones.

    Examples
    --------
    >>> spectrum = Spectrum([200.0, 300.0], [1.0, 2.0], precursor_mz=450.2, charge=2)
    >>> (decoy,) = decoy_spectra([spectrum])
    >>> 2.2 < abs(decoy.precursor_mz - 450.2) < 5.8, decoy.mz is spectrum.mz
    (True, True)
    """
    rng = np.random.default_rng(random_state)
    return [_decoy_of(one, rng) for one in spectra]


def _decoy_of(
    spectrum: Spectrum | SkippedSpectrum, rng: np.random.Generator
) -> Spectrum | SkippedSpectrum:
    # Drawn for skipped ones too: they must not change the decoys of the others.
    shift = rng.uniform(_LEAST_SHIFT, _LARGEST_SHIFT) * rng.choice([-1.0, 1.0])
    if isinstance(spectrum, SkippedSpectrum):
        return spectrum
    charge = spectrum.charge or min(spectrum.charges, default=2)
    moved = float(spectrum.precursor_mz + shift / charge)
    if moved <= 0:  # no peptide is so light, and no spectrum either
        moved = spectrum.precursor_mz - shift / charge
    return replace(spectrum, precursor_mz=moved, peptide=None)


def decoy_q_values(scores: npt.ArrayLike, decoy_scores: npt.ArrayLike) -> FloatArray:
    r"""Estimate false discovery rates by counting decoys.

    .. math::

        FDR(t) = \min\Bigl(1, \frac{1 + \#\{\text{decoys} \ge t\}}
                                   {\#\{\text{spectra} \ge t\}}\Bigr), \qquad
        q_i = \min_{t \le s_i} FDR(t) .

    Parameters
    ----------
    scores : array-like of shape (n,)
        Scores of the peptides, higher is better; NaN where there is none.
    decoy_scores : array-like of shape (n,)
        Scores of the peptides of as many decoys; NaN where there is none.

    Returns
    -------
    ndarray, shape (n,)
        q-values; NaN where there is no peptide.

    Raises
    ------
    InputError
        When the shapes differ.

    Notes
    -----
    The rate holds, or is too large, where wrong peptides score no higher than those of
    decoys. That is an assumption about the decoys that no count can check, and for
    peptides read without a database it is wrong: see the head of this module.

    Every decoy counts, whether or not its spectrum scores higher. Competition within
    pairs would count fewer, and make the estimate smaller still. The 1 in the
    numerator keeps the expected rate below the estimate in small samples (Levitsky et
    al., J. Proteome Res. 2017).

    Examples
    --------
    >>> decoy_q_values([0.9, 0.8, 0.7, 0.3], [0.1, 0.2, 0.1, 0.6]).round(3).tolist()
    [0.333, 0.333, 0.333, 0.5]
    """
    own, other = np.asarray(scores, np.float64), np.asarray(decoy_scores, np.float64)
    if own.shape != other.shape or own.ndim != 1:
        raise InputError(
            f"scores have shape {own.shape}, decoy_scores {other.shape}; both must be "
            "(n,)",
            where="decoy_q_values",
        )
    has_peptide = ~np.isnan(own)
    falling = np.sort(own[has_peptide])[::-1]
    decoys = np.sort(other[~np.isnan(other)])[::-1]
    # Equal scores are accepted together, and decoys of the same score count.
    n_decoys = np.searchsorted(-decoys, -falling, side="right")
    n_accepted = np.searchsorted(-falling, -falling, side="right")
    rates = np.minimum((1 + n_decoys) / n_accepted, 1.0)
    smallest = np.minimum.accumulate(rates[::-1])[::-1]
    q = np.full(own.shape, math.nan)
    q[has_peptide] = smallest[np.searchsorted(-falling, -own[has_peptide])]
    return q
