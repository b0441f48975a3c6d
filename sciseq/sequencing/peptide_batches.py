"""Spectra on a device, gathered by index.

Axes: n spectra, P peaks of the largest, L residues of the longest.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sciseq.sequencing.ion_evidence import Peaks
from sciseq.sequencing.network import Targets
from sciseq.sequencing.objective import PeptideBatch

__all__ = ["PeptideBatches", "stack_peaks", "stack_targets"]


def stack_peaks(
    spectra: Sequence[tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]],
    precursor_mass: npt.NDArray[np.float64],
    charge: npt.NDArray[np.int64],
    *,
    dtype: torch.dtype = torch.float32,
) -> Peaks:
    """Stack the peaks of spectra of different sizes.

    Parameters
    ----------
    spectra : sequence of (mz, intensity)
        Preprocessed peaks, sorted by m/z.
    precursor_mass : ndarray, shape (n,)
        Neutral masses in Da.
    charge : ndarray of int64, shape (n,)
        Charges.
    dtype : torch.dtype, default float32
        Of the intensities.

    Returns
    -------
    Peaks
        On the CPU.

    Examples
    --------
    >>> import numpy as np
    >>> one, two = np.array([100.0]), np.array([100.0, 200.0])
    >>> peaks = stack_peaks([(one, one), (two, two)], np.ones(2), np.ones(2, int))
    >>> peaks.mz.tolist()
    [[100.0, inf], [100.0, 200.0]]
    """
    n_peaks = max((len(mz) for mz, _ in spectra), default=0)
    table = np.zeros((2, len(spectra), max(n_peaks, 1)))
    table[0] = np.inf
    for place, (mz, intensity) in enumerate(spectra):
        table[0, place, : len(mz)] = mz
        table[1, place, : len(mz)] = intensity
    return Peaks(
        torch.from_numpy(table[0]),
        torch.from_numpy(table[1]).to(dtype),
        torch.from_numpy(np.asarray(precursor_mass, np.float64)),
        torch.from_numpy(np.asarray(charge, np.int64)),
    )


def stack_targets(peptides: Sequence[npt.NDArray[np.int64]]) -> Targets:
    """Stack peptides (token indices N to C) as the decoders want them: C to N.

    Examples
    --------
    >>> import numpy as np
    >>> stack_targets([np.array([1, 2]), np.array([3])]).tokens.tolist()
    [[2, 1], [3, 0]]
    """
    lengths = np.array([len(one) for one in peptides], np.int64)
    tokens = np.zeros((len(peptides), int(lengths.max(initial=1))), np.int64)
    for place, one in enumerate(peptides):
        tokens[place, : len(one)] = one[::-1]
    return Targets(torch.from_numpy(tokens), torch.from_numpy(lengths))


class PeptideBatches:
    """Annotated spectra on a device, as the training loop wants them.

    Parameters
    ----------
    peaks : Peaks
        All spectra.
    targets : Targets
        Their peptides.
    device : torch.device
        Where to keep them.
    """

    def __init__(self, peaks: Peaks, targets: Targets, device: torch.device) -> None:
        self._peaks = Peaks(*(one.to(device) for one in peaks))
        self._targets = Targets(*(one.to(device) for one in targets))
        self._n_peaks = peaks.is_peak.sum(dim=1)
        self._is_on_cpu = device.type == "cpu"

    @property
    def n_items(self) -> int:
        """Number of spectra."""
        return len(self._peaks.mz)

    def gather(self, indices: Tensor) -> PeptideBatch:
        """Return some spectra and their peptides."""
        peaks = Peaks(*(one[indices] for one in self._peaks))
        targets = Targets(*(one[indices] for one in self._targets))
        if self._is_on_cpu:  # elsewhere the host would have to wait for the numbers
            n_peaks = max(int(self._n_peaks[indices].max()), 1)
            n_places = int(targets.lengths.max())
            peaks = peaks._replace(
                mz=peaks.mz[:, :n_peaks].contiguous(),
                intensity=peaks.intensity[:, :n_peaks].contiguous(),
            )
            targets = targets._replace(tokens=targets.tokens[:, :n_places])
        return PeptideBatch(peaks, targets)
