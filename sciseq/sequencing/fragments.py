r"""Fragment ions of a peptide, and which peaks of a spectrum they explain.

With residue masses :math:`m_1 \dots m_n`, N to C, and charge z:

.. math::
    a_i = b_i - \mathrm{CO}, \qquad
    b_i = \frac{1}{z} \sum_{k \le i} m_k + \mathrm{proton}, \qquad
    y_i = \frac{1}{z} \Bigl( \sum_{k > n - i} m_k + \mathrm{water} \Bigr)
          + \mathrm{proton}.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from sciseq.errors import DataQualityError, InputError
from sciseq.sequencing.masses import CARBON_MONOXIDE, WATER, mz_of
from sciseq.sequencing.proforma import parse_proforma
from sciseq.sequencing.residues import Vocabulary
from sciseq.sequencing.spectra import Spectrum

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Fragments", "annotate", "fragment_ladder", "residue_masses"]

FloatArray = npt.NDArray[np.float64]

# What an ion weighs besides its residues and protons, in Da, and its terminus.
_KINDS = {"a": (-CARBON_MONOXIDE, "N"), "b": (0.0, "N"), "y": (WATER, "C")}


@dataclass(frozen=True, eq=False)
class Fragments:
    """Fragment ions in the order type, charge, number.

    All arrays have shape (n_ions,); ``mz.reshape(len(types), len(charges), -1)`` gives
    them as a grid.

    Parameters
    ----------
    mz : ndarray
        m/z.
    type : ndarray of str
        ``"a"``, ``"b"`` or ``"y"``.
    number : ndarray of int
        Residues in the ion, from 1.
    charge : ndarray of int
        Charge.
    """

    mz: FloatArray
    type: npt.NDArray[np.str_]
    number: npt.NDArray[np.int64]
    charge: npt.NDArray[np.int64]

    @property
    def names(self) -> list[str]:
        """Names of the ions: ``"b3"``, ``"y5^2"`` at charge 2."""
        parts = zip(self.type, self.number, self.charge, strict=True)
        return [f"{t}{n}" if z == 1 else f"{t}{n}^{z}" for t, n, z in parts]

    def __len__(self) -> int:
        return len(self.mz)


def fragment_ladder(
    masses: npt.ArrayLike, types: str = "by", charges: Sequence[int] = (1,)
) -> Fragments:
    """Return the fragment ions of a peptide.

    Parameters
    ----------
    masses : array-like of shape (n_residues,)
        Residue masses in Da, N to C, a modification of the N-terminus added to the
        first (:func:`residue_masses` does that).
    types : str, default="by"
        Any of the letters ``a``, ``b``, ``y``.
    charges : sequence of int, default=(1,)
        Charges, each at least 1.

    Returns
    -------
    Fragments
        ``len(types) * len(charges) * (n_residues - 1)`` ions.

    Raises
    ------
    InputError
        When `masses` is not one-dimensional or empty, or a type or charge is not
        allowed.
    DataQualityError
        When a mass is not finite.

    Examples
    --------
    >>> ladder = fragment_ladder([57.021464, 71.037114, 128.094963])
    >>> ladder.names
    ['b1', 'b2', 'y1', 'y2']
    >>> ladder.mz.round(4).tolist()
    [58.0287, 129.0659, 147.1128, 218.1499]
    """
    residues = np.asarray(masses, np.float64)
    _check(residues, types, charges)
    sums = {
        "N": np.cumsum(residues)[:-1],
        "C": np.cumsum(residues[::-1])[:-1],
    }
    neutral = {kind: sums[end] + extra for kind, (extra, end) in _KINDS.items()}
    n_bonds, n_charges = len(residues) - 1, len(charges)
    ladders = [mz_of(neutral[kind], charge) for kind in types for charge in charges]
    return Fragments(
        mz=np.concatenate(ladders),
        type=np.repeat(np.array(list(types)), n_charges * n_bonds),
        number=np.tile(np.arange(1, n_bonds + 1), len(types) * n_charges),
        charge=np.tile(np.repeat(np.array(charges, np.int64), n_bonds), len(types)),
    )


def residue_masses(peptide: str, vocabulary: Vocabulary) -> FloatArray:
    """Return the residue masses of a peptide, the N-terminus added to the first.

    Parameters
    ----------
    peptide : str
        ProForma; modifications outside the vocabulary are looked up in the table of
        modifications.
    vocabulary : Vocabulary
        How letters and names are read.

    Returns
    -------
    ndarray of shape (n_residues,)
        Da, N to C.

    Raises
    ------
    InputError
        When the peptide cannot be read, or a mass is not known.

    Examples
    --------
    >>> residue_masses("[Acetyl]-GK", Vocabulary()).round(4).tolist()
    [99.032, 128.095]
    """
    masses = vocabulary.token_masses(peptide)
    if len(masses) == len(parse_proforma(peptide).residues):
        return masses
    return np.concatenate([masses[:1] + masses[1:2], masses[2:]])


def annotate(
    spectrum: Spectrum,
    peptide: str,
    vocabulary: Vocabulary | None = None,
    tolerance_ppm: float = 20.0,
    types: str = "aby",
) -> "pd.DataFrame":
    """Return the peaks that are fragments of a peptide.

    Ions carry charge 1 up to one less than the precursor's, and at least 1. Of several
    peaks within the tolerance the nearest one counts; one peak may explain two ions.

    Parameters
    ----------
    spectrum : Spectrum
        Peaks in order of m/z.
    peptide : str
        ProForma.
    vocabulary : Vocabulary, optional
        How letters and names are read; default ``Vocabulary()``.
    tolerance_ppm : float, default=20.0
        Largest distance of a peak, in parts per million of the ion's m/z.
    types : str, default="aby"
        Types of ions, see :func:`fragment_ladder`.

    Returns
    -------
    DataFrame
        One row per ion with a peak: ``ion``, ``type``, ``number``, ``charge``,
        ``mz`` (calculated), ``peak`` (its index), ``peak_mz``, ``intensity``,
        ``error_ppm`` (peak minus calculated).

    Raises
    ------
    InputError
        When the peptide cannot be read, or the tolerance is not above zero.

    Examples
    --------
    >>> spectrum = Spectrum([58.0288, 100.0], [5.0, 1.0], precursor_mz=102.57, charge=2)
    >>> annotate(spectrum, "GK")[["ion", "intensity"]].values.tolist()
    [['b1', 5.0]]
    """
    import pandas as pd

    if not tolerance_ppm > 0:
        raise InputError(
            f"tolerance_ppm is {tolerance_ppm}, must be above 0", where="tolerance_ppm"
        )
    masses = residue_masses(peptide, vocabulary or Vocabulary())
    charges = range(1, max(2, spectrum.charge or 1))
    ions = fragment_ladder(masses, types, charges)
    peaks = _nearest_peaks(spectrum.mz, ions.mz)
    error = (spectrum.mz[peaks] - ions.mz) / ions.mz * 1e6
    table = pd.DataFrame(
        {
            "ion": ions.names,
            "type": ions.type,
            "number": ions.number,
            "charge": ions.charge,
            "mz": ions.mz,
            "peak": peaks,
            "peak_mz": spectrum.mz[peaks],
            "intensity": spectrum.intensity[peaks],
            "error_ppm": error,
        }
    )
    return table[np.abs(error) <= tolerance_ppm].reset_index(drop=True)


def _nearest_peaks(peaks: FloatArray, ions: FloatArray) -> npt.NDArray[np.intp]:
    above = np.searchsorted(peaks, ions).clip(0, len(peaks) - 1)
    below = (above - 1).clip(0)
    return np.where(ions - peaks[below] < peaks[above] - ions, below, above)


def _check(residues: FloatArray, types: str, charges: Sequence[int]) -> None:
    if residues.ndim != 1 or not residues.size:
        raise InputError(
            f"masses have shape {residues.shape}, (n_residues,) is needed",
            where="masses",
        )
    if not np.isfinite(residues).all():
        raise DataQualityError("masses hold NaN or infinity", where="masses")
    if not types or set(types) - set(_KINDS):
        raise InputError(
            f"types is {types!r}, must be some of {''.join(_KINDS)!r}", where="types"
        )
    if not len(charges) or min(charges) < 1:
        raise InputError(
            f"charges are {list(charges)}, each must be at least 1", where="charges"
        )
