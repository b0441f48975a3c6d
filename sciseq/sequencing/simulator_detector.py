"""What an instrument records of ions: noise, detection, errors of m/z, peak lists.

Axes: arrays are flat, one entry per ion or peak, with the ``spectrum`` (B) that it
belongs to.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sciseq.sequencing.residues import C13
from sciseq.sequencing.simulator_chemistry import Peptides
from sciseq.sequencing.simulator_physics import PhysicsTable

__all__ = ["Ions", "PeakLists", "foreign_ions", "measured_precursors", "record"]

FloatArray = npt.NDArray[np.float64]
IndexArray = npt.NDArray[np.int64]

# Da of a peptide per whole number of nucleons: masses of peptides lie near multiples.
_PEPTIDE_STEP = 1.00048
_MOST_PRECURSOR_PPM = 12.0
# Row and m/z in one number to sort by; no m/z comes near it.
_ROW = 1e5


class Ions(NamedTuple):
    """Ions of all spectra of a batch, one entry each."""

    row: IndexArray  # spectrum
    mz: FloatArray
    ln: FloatArray  # logarithm of the height


class PeakLists(NamedTuple):
    """Peaks of a batch, one list behind the other, each sorted by m/z."""

    mz: FloatArray
    intensity: FloatArray
    counts: IndexArray  # (spectrum,), peaks of each


def foreign_ions(
    peptides: Peptides,
    physics: PhysicsTable,
    limit: FloatArray,
    rng: np.random.Generator,
) -> Ions:
    """Return ions that are not the peptide's: noise, and what was isolated along.

    Noise is denser at low m/z, and most of it has the mass defect of peptides, as
    fragments of other peptides have.

    Parameters
    ----------
    peptides : Peptides
        The batch.
    physics : PhysicsTable
        One row per spectrum.
    limit : ndarray of shape (n_spectra,)
        ln of the detection limit, from which the heights of noise go up.
    rng : numpy.random.Generator
        Source of randomness.
    """
    n_noise = rng.poisson(physics.noise_peaks[:, 0])
    n_isolated = rng.poisson(physics.isolation_peaks[:, 0])
    row = np.repeat(np.arange(len(limit)), n_noise)
    reach = (physics.noise_reach[:, 0] * peptides.mass)[row]
    mz = physics.lowest_mz[row, 0] + reach * rng.standard_exponential(len(row))
    mz = _with_mass_defect(mz, row, physics, rng)
    isolated = np.repeat(np.arange(len(limit)), n_isolated)
    offset = rng.random(len(isolated)) - 0.5
    window = (
        peptides.precursor_mz[isolated]
        + offset * (physics.isolation_width[isolated, 0])
    )
    rows = np.concatenate([row, isolated])
    above = np.abs(rng.standard_normal(len(rows))) * physics.noise_spread[rows, 0]
    return Ions(rows, np.concatenate([mz, window]), limit[rows] + above)


def _with_mass_defect(
    mz: FloatArray, row: IndexArray, physics: PhysicsTable, rng: np.random.Generator
) -> FloatArray:
    kind = rng.random(len(mz))
    uniform = kind < physics.noise_uniform[row, 0]
    # Ions of charge two lie near multiples of half a step.
    per_step = np.where(kind > 1 - physics.noise_double[row, 0], 2.0, 1.0)
    near = np.round(mz * per_step / _PEPTIDE_STEP) * _PEPTIDE_STEP / per_step
    near += (0.02 + 4e-5 * mz) * rng.standard_normal(len(mz))
    return np.where(uniform, mz, near)


def record(
    ions: Ions,
    physics: PhysicsTable,
    limit: FloatArray,
    rng: np.random.Generator,
) -> PeakLists:
    """Return the peaks that the instrument reports.

    Ions below the limit, outside the recorded range, or dropped by chance are lost; m/z
    get the offset of the run and a jitter; neighbours merge; the highest peaks stay.

    Parameters
    ----------
    ions : Ions
        Of all spectra, in any order.
    physics : PhysicsTable
        One row per spectrum.
    limit : ndarray of shape (n_spectra,)
        ln of the detection limit.
    rng : numpy.random.Generator
        Source of randomness.
    """
    row, mz, ln = ions
    kept = (
        (ln > limit[row])
        & (mz >= physics.lowest_mz[row, 0])
        & (mz <= physics.highest_mz[row, 0])
        & (rng.random(len(row)) >= physics.drop[row, 0])
    )
    row, mz, ln = row[kept], mz[kept], ln[kept]
    # Weak peaks are centred less well.
    jitter = physics.fragment_jitter[row, 0] * (1 + np.exp(limit[row] - ln))
    error = physics.fragment_offset[row, 0] + jitter * rng.standard_normal(len(row))
    mz = mz * (1 + 1e-6 * error)
    order = np.argsort(row * _ROW + mz, kind="stable")
    row, mz, height = _merge(row[order], mz[order], np.exp(ln[order]), physics)
    row, mz, height = _highest(row, mz, height, physics)
    counts = np.bincount(row, minlength=len(limit))
    return PeakLists(mz, height * physics.signal[row, 0], counts)


def _merge(
    row: IndexArray, mz: FloatArray, height: FloatArray, physics: PhysicsTable
) -> tuple[IndexArray, FloatArray, FloatArray]:
    """Merge peaks that the instrument cannot tell apart into their centre."""
    if not len(mz):
        return row, mz, height
    gap = np.diff(mz) > 1e-6 * physics.resolution[row[1:], 0] * mz[1:]
    starts = np.flatnonzero(np.concatenate([[True], gap | (np.diff(row) > 0)]))
    total = np.add.reduceat(height, starts)
    return row[starts], np.add.reduceat(height * mz, starts) / total, total


def _highest(
    row: IndexArray, mz: FloatArray, height: FloatArray, physics: PhysicsTable
) -> tuple[IndexArray, FloatArray, FloatArray]:
    counts = np.bincount(row, minlength=len(physics.values))
    most = np.round(physics.most_peaks[:, 0]).astype(np.int64)
    kept = np.ones(len(row), bool)
    ends = np.cumsum(counts)
    for crowded in np.flatnonzero(counts > most):
        start, end = ends[crowded] - counts[crowded], ends[crowded]
        weakest_first = np.argsort(height[start:end], kind="stable")
        kept[start + weakest_first[: counts[crowded] - most[crowded]]] = False
    return row[kept], mz[kept], height[kept]


def measured_precursors(
    peptides: Peptides, physics: PhysicsTable, rng: np.random.Generator
) -> FloatArray:
    """Return the precursor m/z that a file would state, (spectrum,).

    The error is at most 12 ppm, besides one carbon-13 in some spectra.
    """
    n = len(peptides.mass)
    jitter = physics.precursor_jitter[:, 0] * rng.standard_normal(n)
    error = np.clip(
        physics.precursor_offset[:, 0] + jitter,
        -_MOST_PRECURSOR_PPM,
        _MOST_PRECURSOR_PPM,
    )
    chance = rng.random(n)
    above = chance < physics.isotope_above[:, 0]
    below = chance > 1 - physics.isotope_below[:, 0]
    isotope = (above.astype(np.int64) - below) * C13 / peptides.charge
    return np.asarray((peptides.precursor_mz + isotope) * (1 + 1e-6 * error))
