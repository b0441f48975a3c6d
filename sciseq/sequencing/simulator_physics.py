"""Instruments and runs of the simulator: every number that its physics depends on.

Heights are relative to that of a typical y ion in the middle of a peptide, which is 1;
"ln" marks numbers that are added to the logarithm of a height. Defaults and ranges come
from a regression of the measured peak heights of annotated Orbitrap HCD spectra.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from sciseq.errors import InputError

__all__ = ["Physics", "PhysicsTable"]

FloatArray = npt.NDArray[np.float64]


def _knob(default: float, low: float, high: float, *, log: bool = False) -> Any:
    """Return a field that `Physics.sample` draws from `low` to `high`."""
    return field(default=default, metadata={"range": (low, high), "log": log})


@dataclass(frozen=True)
class Physics:
    r"""One instrument and run, as the simulator sees it.

    Parameters
    ----------
    residue_effect : float
        Factor on the ln strengths that the two residues at a bond give it; 0 makes all
        residues alike.
    proline_effect : float
        ln; how much likelier a bond in front of proline breaks.
    acid_effect : float
        ln; how much likelier a bond behind aspartate or glutamate breaks when no proton
        is mobile (charge not above the number of R, K and H).
    bond_spread : float
        Standard deviation of ln strength between bonds, common to all ions of a bond.
    ion_spread : float
        Further standard deviation of ln height of each ion.
    y_start : float
        ln; by how much y2 is below y8, fading with e-fold 2.5 residues.
    y_fade : float
        ln per residue by which y ions fall from y9 on, up to eight residues.
    y_edge : float
        ln; by how much the y ion at the first bond is below, fading with e-fold 1.3
        residues from the N-terminus.
    b_level : float
        ln height of b2 far from the C-terminus.
    b_decay : float
        ln; by how much b ions fall from b2 on, d in the notes.
    b_retreat : float
        ln; by how much b ions near the C-terminus are below; half of it eight residues
        away from it.
    basic_pull : float
        ln; gain of a b ion that holds a basic residue. About 70 % of it is lost for
        each basic residue beyond one in its y partner.
    a_level : float
        ln height of a2 over b2.
    double_level : float
        ln gain of 2+ fragments when the precursor has more than two protons.
    water_loss, ammonia_loss : float
        Typical height of a fragment less H2O or NH3 over the fragment's, where a
        residue in it can lose that.
    phosphoric_loss : float
        The same for H3PO4 of phosphorylated serine and threonine; a tenth for
        phosphotyrosine.
    loss_spread : float
        Standard deviation of the ln of these ratios.
    isotopes : float
        Share of the heavier isotopes that isolation lets through, 0 to 1.
    internal_level : float
        Height of internal fragments of two residues; each further residue takes off
        ln 0.42.
    immonium_level : float
        Height of the immonium ion of phenylalanine; others stand in fixed proportion.
    immonium_background : float
        Share of that height at which immonium ions of absent residues are seen, from
        peptides isolated along with this one.
    precursor_level : float
        Height of what is left of the precursor.
    isolation_peaks : float
        Mean number of foreign peaks inside the isolation window.
    isolation_width : float
        Width of that window, m/z.
    noise_peaks : float
        Mean number of noise peaks.
    noise_spread : float
        Standard deviation of their ln height, counted upwards from the detection limit
        (a log-normal of which the lower half is not seen).
    noise_reach : float
        Mean m/z of noise above the lower end of the range, in parts of the peptide
        mass; the density falls exponentially.
    noise_double : float
        Share of noise peaks with the mass defect of 2+ ions.
    noise_uniform : float
        Share of noise peaks without the mass defect of peptides.
    detection_limit : float
        Height below which no peak is reported.
    dilution : float
        Power of the number of residues per charge, over 7.5, with which that limit
        grows: the same number of ions is spread over more fragments.
    detection_spread : float
        Standard deviation of its ln between the spectra of a run.
    drop : float
        Share of peaks lost for no reason of height.
    resolution : float
        Peaks nearer than this merge, ppm.
    most_peaks : float
        Most peaks of a spectrum; the highest stay.
    lowest_mz, highest_mz : float
        Recorded range, m/z.
    fragment_offset : float
        Error of all m/z of a run, ppm.
    fragment_jitter : float
        Standard deviation of the m/z of each peak, ppm; double for peaks at the
        detection limit.
    precursor_offset, precursor_jitter : float
        The same for precursors, ppm. Their sum is cut at 12 ppm.
    isotope_above, isotope_below : float
        Shares of spectra whose precursor was read one carbon-13 too high or too low.
    signal : float
        Detector counts of height 1.

    Notes
    -----
    With :math:`k_C` and :math:`k_N` residues to the termini, a y ion with a basic
    residue and a b ion stand at

    .. math::

        \ln h_y &= 0.4 - s\,e^{-(k_C - 2) / 2.5} - f \min(\max(k_C - 8, 0), 8)
                   - e\,e^{-(k_N - 1) / 1.3} \\
        \ln h_b &= l - d\,g(k_N - 2) - r / (1 + e^{(k_C - 8) / 2})

    with :math:`g(k) = 0.29 \min(k, 5.5)` for precursors up to 2+, whose b ions break
    further, and :math:`g(k) = 0.7 (1 - e^{-k/2}) + 0.035 k` for others. To this come
    the residues at the bond and the place of the protons.

    Examples
    --------
    >>> Physics().proline_effect
    1.3
    >>> one, same = (Physics.sample(np.random.default_rng(1)) for _ in range(2))
    >>> one == same
    True
    """

    residue_effect: float = _knob(1.0, 0.6, 1.3)
    proline_effect: float = _knob(1.3, 0.7, 2.0)
    acid_effect: float = _knob(0.8, 0.0, 1.6)
    bond_spread: float = _knob(0.5, 0.3, 0.8)
    ion_spread: float = _knob(0.6, 0.4, 0.9)
    y_start: float = _knob(0.8, 0.2, 1.4)
    y_fade: float = _knob(0.33, 0.18, 0.48)
    y_edge: float = _knob(3.3, 2.2, 4.2)
    b_level: float = _knob(0.5, -0.8, 1.1)
    b_decay: float = _knob(2.6, 0.8, 3.6)
    b_retreat: float = _knob(3.8, 2.6, 4.6)
    basic_pull: float = _knob(1.3, 0.8, 1.8)
    a_level: float = _knob(0.3, -0.8, 0.8)
    double_level: float = _knob(1.3, 0.6, 2.0)
    water_loss: float = _knob(0.05, 0.02, 0.12, log=True)
    ammonia_loss: float = _knob(0.07, 0.02, 0.15, log=True)
    phosphoric_loss: float = _knob(0.6, 0.15, 2.0, log=True)
    loss_spread: float = _knob(1.2, 0.8, 1.5)
    isotopes: float = _knob(0.95, 0.4, 1.0)
    internal_level: float = _knob(0.1, 0.03, 0.25, log=True)
    immonium_level: float = _knob(1.5, 0.3, 4.0, log=True)
    immonium_background: float = _knob(0.35, 0.0, 0.6)
    precursor_level: float = _knob(0.2, 0.01, 30.0, log=True)
    isolation_peaks: float = _knob(3.0, 0.0, 10.0)
    isolation_width: float = _knob(2.0, 1.0, 3.0)
    noise_peaks: float = _knob(140.0, 25.0, 350.0, log=True)
    noise_spread: float = _knob(0.8, 0.6, 1.2)
    noise_reach: float = _knob(0.25, 0.12, 0.5)
    noise_double: float = _knob(0.08, 0.0, 0.2)
    noise_uniform: float = _knob(0.04, 0.0, 0.2)
    detection_limit: float = _knob(0.07, 0.02, 0.17, log=True)
    dilution: float = _knob(0.9, 0.5, 1.3)
    detection_spread: float = _knob(0.6, 0.3, 0.9)
    drop: float = _knob(0.02, 0.0, 0.08)
    resolution: float = _knob(15.0, 8.0, 25.0)
    most_peaks: float = _knob(500.0, 150.0, 600.0)
    lowest_mz: float = _knob(110.0, 70.0, 150.0)
    highest_mz: float = _knob(2000.0, 1500.0, 2200.0)
    fragment_offset: float = _knob(-1.0, -4.0, 4.0)
    fragment_jitter: float = _knob(1.2, 0.4, 4.0, log=True)
    precursor_offset: float = _knob(0.0, -6.0, 6.0)
    precursor_jitter: float = _knob(2.0, 0.5, 4.0)
    isotope_above: float = _knob(0.03, 0.0, 0.1)
    isotope_below: float = _knob(0.005, 0.0, 0.02)
    signal: float = _knob(1e5, 1e4, 1e7, log=True)

    def __post_init__(self) -> None:
        bad = [
            one.name
            for one in fields(self)
            if not np.isfinite(getattr(self, one.name))
            or (one.name not in _SIGNED and getattr(self, one.name) < 0)
        ]
        if bad:
            raise InputError(
                f"{bad[0]} is {getattr(self, bad[0])}, must be a finite number of at "
                "least 0",
                where="Physics",
            )
        if not self.lowest_mz < self.highest_mz or self.most_peaks < 1:
            raise InputError(
                f"the range is {self.lowest_mz} to {self.highest_mz} and most_peaks "
                f"{self.most_peaks}; a range that is not empty and at least one peak "
                "are needed",
                where="Physics",
            )

    @classmethod
    def sample(cls, rng: np.random.Generator) -> "Physics":
        """Draw an instrument and run from the ranges of all knobs.

        Parameters
        ----------
        rng : numpy.random.Generator
            Moves on by one draw per knob.
        """
        values = PhysicsTable.sample(rng, 1).values[0].tolist()
        return cls(*values)


# Knobs that may be negative: added to logarithms, and errors with a sign.
_SIGNED = {
    "proline_effect",
    "acid_effect",
    "y_start",
    "y_fade",
    "y_edge",
    "b_level",
    "b_decay",
    "b_retreat",
    "basic_pull",
    "a_level",
    "double_level",
    "fragment_offset",
    "precursor_offset",
}
_COLUMN = {one.name: place for place, one in enumerate(fields(Physics))}


class PhysicsTable:
    """The physics of several spectra: each knob is a column of shape (n, 1).

    Parameters
    ----------
    values : ndarray of shape (n, n_knobs)
        One row per spectrum, columns in the order of the fields of :class:`Physics`.

    Examples
    --------
    >>> PhysicsTable.of([Physics(), Physics(drop=0.5)]).drop.tolist()
    [[0.02], [0.5]]
    """

    def __init__(self, values: FloatArray) -> None:
        self.values = values

    def __getattr__(self, name: str) -> FloatArray:
        try:
            place = _COLUMN[name]
        except KeyError:
            raise AttributeError(f"no knob is called {name!r}") from None
        return self.values[:, place, None]

    @classmethod
    def of(cls, physics: Sequence[Physics]) -> "PhysicsTable":
        """Return the table of these instruments, one row each."""
        rows = [[float(getattr(one, name)) for name in _COLUMN] for one in physics]
        return cls(np.array(rows))

    @classmethod
    def sample(cls, rng: np.random.Generator, n: int) -> "PhysicsTable":
        """Draw `n` instruments from the ranges of all knobs."""
        low, high, log = (np.array(column) for column in zip(*_RANGES, strict=True))
        share = rng.random((n, len(_COLUMN)))
        start, end = np.log(low, where=log, out=low), np.log(high, where=log, out=high)
        drawn = start + share * (end - start)
        return cls(np.exp(drawn, where=log, out=drawn))


_RANGES = [(*one.metadata["range"], one.metadata["log"]) for one in fields(Physics)]
