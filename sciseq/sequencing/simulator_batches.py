"""Batches of peptides in, batches of spectra out: the simulator as arrays.

Axes: ``spectrum`` (n), ``peak``, ``token`` (N to C), the last two padded.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sciseq.sequencing.residues import Vocabulary
from sciseq.sequencing.simulator_chemistry import Chemistry, Peptides
from sciseq.sequencing.simulator_detector import (
    Ions,
    foreign_ions,
    measured_precursors,
    record,
)
from sciseq.sequencing.simulator_ions import (
    backbone_ions,
    immonium_ions,
    internal_ions,
    join,
    precursor_ions,
    with_isotopes,
    with_losses,
)
from sciseq.sequencing.simulator_physics import PhysicsTable
from sciseq.sequencing.spectra import Spectrum

__all__ = ["Drawn", "SimulatedSpectra", "simulate_batch", "stack"]

FloatArray = npt.NDArray[np.float64]
IndexArray = npt.NDArray[np.int64]


class SimulatedSpectra(NamedTuple):
    """Spectra as arrays, one row each.

    Parameters
    ----------
    mz, intensity : ndarray of shape (n_spectra, most_peaks)
        Sorted by m/z; 0 behind the last peak.
    n_peaks : ndarray of int of shape (n_spectra,)
        Peaks of each.
    precursor_mz : ndarray of shape (n_spectra,)
        As measured.
    charge : ndarray of int of shape (n_spectra,)
        Charge of the precursor.
    tokens : ndarray of int of shape (n_spectra, most_tokens)
        The peptides, N to C, a token of the N-terminus first; -1 behind the last.
    n_tokens : ndarray of int of shape (n_spectra,)
        Tokens of each.
    """

    mz: FloatArray
    intensity: FloatArray
    n_peaks: IndexArray
    precursor_mz: FloatArray
    charge: IndexArray
    tokens: IndexArray
    n_tokens: IndexArray

    def spectrum(self, number: int, vocabulary: Vocabulary) -> Spectrum:
        """Return one of them as a record."""
        tokens = self.tokens[number, : self.n_tokens[number]]
        bare = self.bare_spectrum(number)
        return replace(bare, peptide=vocabulary.decode(tokens))

    def bare_spectrum(self, number: int) -> Spectrum:
        """Return one of them as a record that does not tell its peptide."""
        n_peaks = self.n_peaks[number]
        return Spectrum(
            self.mz[number, :n_peaks].copy(),
            self.intensity[number, :n_peaks].copy(),
            precursor_mz=float(self.precursor_mz[number]),
            charge=int(self.charge[number]),
            identifier=f"index={number}",
            source="simulated",
            index=number,
        )


class Drawn(NamedTuple):
    """Peptides that are to be simulated."""

    tokens: IndexArray  # (spectrum, token), anything behind the last
    n_tokens: IndexArray
    charge: IndexArray


def simulate_batch(
    drawn: Drawn, chemistry: Chemistry, physics: PhysicsTable, rng: np.random.Generator
) -> SimulatedSpectra:
    """Simulate one spectrum for every peptide.

    Parameters
    ----------
    drawn : Drawn
        Peptides and charges.
    chemistry : Chemistry
        Of the vocabulary.
    physics : PhysicsTable
        One row per spectrum.
    rng : numpy.random.Generator
        Source of all randomness.
    """
    peptides = _split_terminal(drawn, chemistry)
    n = len(drawn.charge)
    limit = np.log(np.maximum(physics.detection_limit, 1e-9))
    limit = limit + physics.detection_spread * rng.standard_normal((n, 1))
    per_charge = peptides.lengths[:, None] / peptides.charge[:, None]
    limit = limit + physics.dilution * np.log(per_charge / 7.5)
    ions = _all_ions(peptides, physics, limit, rng)
    peaks = record(ions, physics, limit[:, 0], rng)
    precursor_mz = measured_precursors(peptides, physics, rng)
    return SimulatedSpectra(
        _padded(peaks.mz, peaks.counts),
        _padded(peaks.intensity, peaks.counts),
        peaks.counts,
        precursor_mz,
        drawn.charge,
        np.where(_inside(drawn.n_tokens, drawn.tokens.shape[1]), drawn.tokens, -1),
        drawn.n_tokens,
    )


def _all_ions(
    peptides: Peptides,
    physics: PhysicsTable,
    limit: FloatArray,
    rng: np.random.Generator,
) -> Ions:
    broken = join(
        [
            backbone_ions(peptides, physics, limit, rng),
            internal_ions(peptides, physics, limit, rng),
        ]
    )
    fragments = with_losses(broken, physics, limit, rng)
    whole = precursor_ions(peptides, physics, rng)
    own = with_isotopes(join([fragments, whole]), physics, limit)
    singles = immonium_ions(peptides, physics, rng)
    foreign = foreign_ions(peptides, physics, limit[:, 0], rng)
    columns = zip(own[:3], singles, foreign, strict=True)
    return Ions(*(np.concatenate(column) for column in columns))


def _split_terminal(drawn: Drawn, chemistry: Chemistry) -> Peptides:
    """Take the tokens of the N-terminus off the residues."""
    first = drawn.tokens[:, 0]
    has = chemistry.is_terminal[first]
    places = np.arange(drawn.tokens.shape[1]) + has[:, None]
    last = drawn.tokens.shape[1] - 1
    residues = np.take_along_axis(drawn.tokens, np.minimum(places, last), axis=1)
    mass = np.where(has, chemistry.masses[first], 0.0)
    return Peptides(chemistry, residues, drawn.n_tokens - has, mass, drawn.charge)


def _inside(counts: IndexArray, width: int) -> npt.NDArray[np.bool_]:
    return np.asarray(np.arange(width) < counts[:, None])


def _padded(values: FloatArray, counts: IndexArray) -> FloatArray:
    """(all peaks,) -> (spectrum, peak), 0 behind the last."""
    inside = _inside(counts, int(counts.max(initial=0)))
    result = np.zeros(inside.shape)
    result[inside] = values
    return result


def stack(parts: Sequence[SimulatedSpectra]) -> SimulatedSpectra:
    """Put batches of different widths below each other."""
    columns = []
    for name, column in zip(
        SimulatedSpectra._fields, zip(*parts, strict=True), strict=True
    ):
        if column[0].ndim == 2:
            width = max(part.shape[1] for part in column)
            fill = -1 if name == "tokens" else 0
            column = tuple(
                np.pad(part, ((0, 0), (0, width - part.shape[1])), constant_values=fill)
                for part in column
            )
        columns.append(np.concatenate(column))
    return SimulatedSpectra(*columns)
