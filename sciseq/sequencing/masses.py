"""Monoisotopic masses of residues, and mass against m/z. All masses are in Da."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = [
    "AMMONIA",
    "C13",
    "CARBON_MONOXIDE",
    "DEFAULT_MASSES",
    "PROTON",
    "RESIDUE_MASSES",
    "WATER",
    "mz_of",
    "neutral_mass",
    "ppm_error",
]

PROTON = 1.007276466879  # Da
WATER = 18.010564684  # Da
AMMONIA = 17.026549101  # Da
CARBON_MONOXIDE = 27.994914620  # Da
C13 = 1.0033548378  # Da, carbon-13 minus carbon-12

RESIDUE_MASSES: Mapping[str, float] = MappingProxyType(
    {
        "G": 57.021464,
        "A": 71.037114,
        "S": 87.032028,
        "P": 97.052764,
        "V": 99.068414,
        # Published vocabularies have 101.047670, which adds up in long peptides.
        "T": 101.047678,
        "C": 103.009185,
        "L": 113.084064,
        "N": 114.042927,
        "D": 115.026943,
        "Q": 128.058578,
        "K": 128.094963,
        "E": 129.042593,
        "M": 131.040485,
        "H": 137.058912,
        "F": 147.068414,
        "R": 156.101111,
        "Y": 163.063329,
        "W": 186.079313,
    }
)

DEFAULT_MASSES: Mapping[str, float] = MappingProxyType(
    {letter: mass for letter, mass in RESIDUE_MASSES.items() if letter != "C"}
    | {
        "C[Carbamidomethyl]": 160.030649,
        "M[Oxidation]": 147.035400,
        "N[Deamidated]": 115.026943,
        "Q[Deamidated]": 129.042594,
        "[Acetyl]-": 42.010565,
        "[Carbamyl]-": 43.005814,
        "[Ammonia-loss]-": -17.026549,
        # The sum of the two. Published vocabularies have 25.980265, 1 mDa too much.
        "[Carbamyl][Ammonia-loss]-": 25.979265,
    }
)


def neutral_mass(mz: npt.ArrayLike, charge: npt.ArrayLike) -> Any:
    """Return the neutral mass ``(mz - proton) * charge`` in Da.

    Examples
    --------
    >>> float(neutral_mass(500.0, 2).round(6))
    997.985447
    """
    return (np.asarray(mz, np.float64) - PROTON) * np.asarray(charge)


def mz_of(mass: npt.ArrayLike, charge: npt.ArrayLike) -> Any:
    """Return the m/z ``mass / charge + proton`` of a neutral mass in Da.

    Examples
    --------
    >>> float(mz_of(997.985447, 2).round(6))
    500.0
    """
    return np.asarray(mass, np.float64) / np.asarray(charge) + PROTON


def ppm_error(
    mz: npt.ArrayLike,
    mass: npt.ArrayLike,
    charge: npt.ArrayLike,
    isotope: npt.ArrayLike = 0,
) -> Any:
    r"""Return by how much a mass exceeds a measured m/z, in parts per million.

    .. math:: 10^6 \, \frac{m_{calc} - (m_{obs} - k \, \Delta_{13C} / z)}{m_{obs}}

    Parameters
    ----------
    mz : array-like
        Measured m/z of the precursor.
    mass : array-like
        Calculated neutral mass in Da.
    charge : array-like of int
        Charge z.
    isotope : array-like of int, default=0
        Number k of carbon-13 atoms in the peak that was measured.

    Returns
    -------
    float or ndarray
        Shape after broadcasting.

    Examples
    --------
    >>> float(ppm_error(500.0, 997.985447 + 0.001, 2).round(2))
    1.0
    """
    observed = np.asarray(mz, np.float64)
    measured = observed - np.asarray(isotope) * C13 / np.asarray(charge)
    return (mz_of(mass, charge) - measured) / observed * 1e6
