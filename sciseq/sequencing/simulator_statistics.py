"""How complete annotated spectra are, to compare simulated with measured ones."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from sciseq.errors import InputError
from sciseq.sequencing.masses import CARBON_MONOXIDE, PROTON, WATER
from sciseq.sequencing.proforma import parse_proforma
from sciseq.sequencing.residues import Vocabulary
from sciseq.sequencing.spectra import Spectrum

__all__ = ["ladder_peaks", "merged_masses", "statistics"]

FloatArray = npt.NDArray[np.float64]
IndexArray = npt.NDArray[np.int64]


def statistics(
    spectra: Iterable[Spectrum],
    *,
    vocabulary: Vocabulary | None = None,
    tolerance_ppm: float = 20.0,
) -> dict[str, float]:
    """Measure how much of their peptides annotated spectra show.

    Each number but the last is a mean over spectra.

    Parameters
    ----------
    spectra : iterable of Spectrum
        With ``peptide`` and ``charge``; others are not counted.
    vocabulary : Vocabulary, optional
        Masses; default ``Vocabulary()``, which also knows the masses of common
        modifications that are not among its tokens.
    tolerance_ppm : float, default=20.0
        Largest distance between a peak and its ion, ppm.

    Returns
    -------
    dict of str to float
        ``"evidence"``: share of bonds with a b or y ion, 2+ counted for precursors
        above 2+. ``"b"``, ``"y"``: share of bonds with that ion, 1+. ``"signal"``:
        share of the intensity in b and y 1+. ``"complete"``: share of spectra with
        evidence at every bond. ``"no_long_gap"``: share without two neighbouring
        bonds that lack evidence. ``"peaks"``: peaks per spectrum. ``"n_spectra"``: how
        many counted.

    Raises
    ------
    InputError
        When no spectrum counts, or a peptide cannot be read.

    Examples
    --------
    >>> mz = np.array([58.03, 147.11])  # b1 and y1 of GK
    >>> spectrum = Spectrum(mz, np.ones(2), precursor_mz=102.57, charge=2, peptide="GK")
    >>> found = statistics([spectrum], tolerance_ppm=50)
    >>> found["b"], found["y"], found["complete"]
    (1.0, 1.0, 1.0)
    """
    masses = Vocabulary() if vocabulary is None else vocabulary
    rows = [
        _one(one, one.charge, merged_masses(masses, one.peptide), tolerance_ppm)
        for one in spectra
        if one.peptide is not None and one.charge is not None
    ]
    if not rows:
        raise InputError(
            "there is no spectrum with peptide and charge", where="spectra"
        )
    means = np.mean(rows, axis=0).tolist()
    names = ("evidence", "b", "y", "signal", "complete", "no_long_gap", "peaks")
    return dict(zip(names, means, strict=True)) | {"n_spectra": float(len(rows))}


def ladder_peaks(
    spectrum: Spectrum,
    masses: FloatArray,
    tolerance_ppm: float = 20.0,
) -> dict[str, IndexArray]:
    """Return which peak is which backbone ion.

    Parameters
    ----------
    spectrum : Spectrum
        Peaks sorted by m/z.
    masses : ndarray of shape (n_residues,)
        Of the residues N to C in Da, a modification of the N-terminus in the first.
    tolerance_ppm : float, default=20.0
        Largest distance, ppm.

    Returns
    -------
    dict of str to ndarray of int of shape (n_residues - 1,)
        For ``"b"``, ``"y"``, ``"b2+"``, ``"y2+"`` and ``"a"``, by bond from the
        N-terminus: place of the nearest peak, -1 where none is near enough.
    """
    before = np.cumsum(masses)[:-1]
    b, y = before + PROTON, masses.sum() - before + WATER + PROTON
    ions = {"b": b, "y": y, "b2+": (b + PROTON) / 2, "y2+": (y + PROTON) / 2}
    ions["a"] = b - CARBON_MONOXIDE
    return {name: _nearest(spectrum.mz, mz, tolerance_ppm) for name, mz in ions.items()}


def _nearest(peaks: FloatArray, mz: FloatArray, tolerance_ppm: float) -> IndexArray:
    right = np.clip(np.searchsorted(peaks, mz), 0, len(peaks) - 1)
    left = np.maximum(right - 1, 0)
    nearer = np.abs(peaks[left] - mz) < np.abs(peaks[right] - mz)
    place = np.where(nearer, left, right)
    near = np.abs(peaks[place] - mz) <= tolerance_ppm * 1e-6 * mz
    return np.where(near, place, -1)


def merged_masses(vocabulary: Vocabulary, peptide: str) -> FloatArray:
    """Return the residue masses of a peptide, for :func:`ladder_peaks`.

    Parameters
    ----------
    vocabulary : Vocabulary
        Masses of tokens.
    peptide : str
        ProForma.

    Returns
    -------
    ndarray of shape (n_residues,)
        Da; the first includes a modification of the N-terminus.
    """
    masses = vocabulary.token_masses(peptide)
    n_residues = len(parse_proforma(peptide).residues)
    if len(masses) > n_residues:
        masses[1] += masses[0]
    return masses[len(masses) - n_residues :]


def _one(
    spectrum: Spectrum, charge: int, masses: FloatArray, tolerance_ppm: float
) -> tuple[float, ...]:
    peaks = ladder_peaks(spectrum, masses, tolerance_ppm)
    seen = {name: place >= 0 for name, place in peaks.items()}
    evidence = seen["b"] | seen["y"]
    if charge > 2:
        evidence = evidence | seen["b2+"] | seen["y2+"]
    used = np.unique(np.concatenate([peaks["b"][seen["b"]], peaks["y"][seen["y"]]]))
    gap = ~evidence
    return (
        float(evidence.mean()),
        float(seen["b"].mean()),
        float(seen["y"].mean()),
        float(spectrum.intensity[used].sum() / spectrum.intensity.sum()),
        float(evidence.all()),
        float(not (gap[1:] & gap[:-1]).any()),
        float(len(spectrum.mz)),
    )
