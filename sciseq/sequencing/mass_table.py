"""Which total masses can be composed of residues.

Masses are counted in whole nanodaltons, so that sums do not depend on their order.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sciseq.errors import InputError

__all__ = ["MassTable", "mass_tolerance", "mass_units", "tolerance_units"]

IntArray = npt.NDArray[np.int64]

# Whole numbers of these are added exactly; float64 holds the masses to about 1e-12 Da.
_PER_DALTON = 10**9
# Masses with more digits are off by half of one, times the tokens of a sequence.
_ROUNDING = 100


def mass_tolerance(
    masses: npt.ArrayLike, *, ppm: float, absolute: float
) -> npt.NDArray[np.float64]:
    r"""Return how far a mass may be off, in Da.

    .. math:: tol = M \cdot ppm \cdot 10^{-6} + absolute

    Parameters
    ----------
    masses : array-like of shape (n,)
        Neutral masses M in Da.
    ppm : float
        Relative part, in millionths.
    absolute : float
        Part that is the same for all masses, in Da.

    Returns
    -------
    ndarray of shape (n,)
        Tolerances.

    Raises
    ------
    InputError
        When a part is negative or a mass is not finite.

    Examples
    --------
    >>> mass_tolerance([1000.0], ppm=20, absolute=0.005).round(6).tolist()
    [0.025]
    """
    M = np.asarray(masses, dtype=np.float64)
    if not (ppm >= 0 and absolute >= 0) or M.ndim != 1 or not np.isfinite(M).all():
        raise InputError(
            f"masses have shape {M.shape}, ppm is {ppm} and absolute {absolute}; "
            "finite masses (n,) and tolerances of at least 0 are needed",
            where="mass tolerance",
        )
    return np.asarray(np.abs(M) * ppm * 1e-6 + absolute)


class MassTable:
    r"""Total masses of any residues with at most one terminal modification.

    .. math:: \{ \sum_a n_a m_a + [m_t] : n_a \in \{0, 1, \dots\} \}

    A mass that can be composed is never refused. The converse nearly holds: of each bin
    the lowest and the highest mass that can be composed are known, and what lies
    between them counts as composed.

    Parameters
    ----------
    masses : array-like of shape (n_tokens,)
        Mass of each token in Da; residues have positive ones.
    is_terminal : array-like of bool of shape (n_tokens,), optional
        Terminal modifications, of any sign. None when None.
    excluded : sequence of int, default ()
        Tokens that compose nothing: stop, blank, padding, unknown. Their masses are
        not read.
    maximum : float, default 6000.0
        Largest mass of the table in Da; every larger mass counts as composed.
    width : float, default 0.01
        Width of a bin in Da, below the mass of every residue.

    Attributes
    ----------
    is_composed : ndarray of bool of shape (n_bins,)
        Whether some mass in the bin can be composed.
    first : int
        Number of the first bin: bin i begins at ``(first + i) * width``.
    arrays : tuple of ndarray
        What :meth:`find` reads, with one bin more on both sides: the number of composed
        bins before each, and the lowest and highest mass in each, from its begin.

    Raises
    ------
    InputError
        When shapes disagree, a residue weighs less than one bin, or there is none.

    Notes
    -----
    Card: peptide §11, the "knapsack" of DeepNovo and InstaNovo.

    Examples
    --------
    >>> table = MassTable([57.021464, 71.037114], maximum=300.0)
    >>> table.contains([0.0, 57.02, 58.0, 128.058578], tolerance=0.01).tolist()
    [True, True, False, True]
    """

    def __init__(
        self,
        masses: npt.ArrayLike,
        *,
        is_terminal: npt.ArrayLike | None = None,
        excluded: Sequence[int] = (),
        maximum: float = 6000.0,
        width: float = 0.01,
    ) -> None:
        m = np.array(masses, dtype=np.float64)
        terminal = np.zeros(m.shape, bool) if is_terminal is None else is_terminal
        self.is_terminal = np.array(terminal, dtype=np.bool_)
        self.is_excluded = np.zeros(m.shape, dtype=np.bool_)
        self.is_excluded[[one for one in excluded if one < len(m)]] = True
        self.is_terminal &= ~self.is_excluded
        m[self.is_excluded] = 0.0
        self.is_residue = ~(self.is_terminal | self.is_excluded)
        self._check(m, maximum, width)
        self.units = mass_units(m)
        self.bin_units = round(width * _PER_DALTON)
        bins, self.first = self._build(maximum)
        self.is_composed = bins.is_composed
        # Below the table there is nothing, and beyond it everything.
        full = self.bin_units - 1
        padded = np.pad(self.is_composed, 1, constant_values=(False, True))
        self.arrays = (
            np.append(0, np.cumsum(padded)),
            np.pad(bins.low, 1, constant_values=(self.bin_units, 0)),
            np.pad(bins.high, 1, constant_values=(-1, full)),
        )

    def contains(
        self, masses: npt.ArrayLike, tolerance: npt.ArrayLike = 0.0
    ) -> npt.NDArray[np.bool_]:
        """Tell which masses can be composed, up to a tolerance.

        Parameters
        ----------
        masses : array-like
            Sums of tokens in Da, without water.
        tolerance : array-like, default 0.0
            Largest distance in Da; broadcast against ``masses``.

        Returns
        -------
        ndarray of bool
            False only where nothing within the tolerance can be composed.
        """
        units, off = mass_units(masses), tolerance_units(tolerance)
        return np.asarray(self.find(units - off, units + off, self.arrays))

    def find(self, low: Any, high: Any, arrays: tuple[Any, Any, Any]) -> Any:
        """Tell whether something between two masses can be composed.

        Parameters
        ----------
        low, high : ndarray or Tensor of int64
            Masses in nanodaltons, of the same shape.
        arrays : tuple of ndarray or Tensor
            ``self.arrays``, or a copy where ``low`` and ``high`` are.

        Returns
        -------
        ndarray or Tensor of bool
            One answer for each pair.
        """
        n_before, lowest, highest = arrays
        first, last = (
            (one // self.bin_units - self.first).clip(-1, len(self.is_composed)) + 1
            for one in (low, high)
        )
        in_first = highest[first] >= low % self.bin_units
        in_last = lowest[last] <= high % self.bin_units
        is_one = first == last
        between = n_before[last] > n_before[first + 1]
        return (is_one & in_first & in_last) | (
            ~is_one & (in_first | in_last | between)
        )

    def _check(self, m: npt.NDArray[np.float64], maximum: float, width: float) -> None:
        if m.ndim != 1 or self.is_terminal.shape != m.shape or not np.isfinite(m).all():
            raise InputError(
                f"masses has shape {m.shape} and is_terminal {self.is_terminal.shape}; "
                "both must be (n_tokens,), and the masses finite",
                where="MassTable",
                hint="Name tokens without a mass in excluded.",
            )
        if not (1e-6 <= width <= 1 and width < maximum < 1e6):
            raise InputError(
                f"width is {width} and maximum {maximum}; a width from 1e-6 to 1 and a "
                "maximum above it and below 1e6 are needed",
                where="MassTable",
            )
        lightest = m[self.is_residue].min(initial=np.inf)
        if not self.is_residue.any() or lightest < width:
            raise InputError(
                f"the lightest of {int(self.is_residue.sum())} residues weighs "
                f"{lightest} Da; at least one residue is needed, and none below the "
                f"width {width}",
                where="MassTable, masses",
                hint="Mark modifications of a terminus in is_terminal.",
            )

    def _build(self, maximum: float) -> tuple["_Bins", int]:
        """Fill the bins from below: each reads bins at least one residue lower."""
        terminals = np.unique(self.units[self.is_terminal])
        residues = np.unique(self.units[self.is_residue])
        lowest = min(0, int(terminals.min(initial=0)))
        first = lowest // self.bin_units
        n_kept = round(maximum * _PER_DALTON) // self.bin_units - first + 1
        # A terminal modification of negative mass reads beyond the largest mass.
        n_bins = n_kept - first + 1
        bins = _Bins(n_bins, self.bin_units)
        bins.low[-first], bins.high[-first] = 0, 0  # nothing weighs nothing
        step = int(residues[0] // self.bin_units)
        n_full, heaviest = 0, int(residues[-1] // self.bin_units) + 1
        for start in range(-first + step, n_bins, step):
            end = min(start + step, n_bins)
            for mass in residues:
                bins.add(bins, int(mass), start, end)
            n_full = n_full + step if bins.is_composed[start:end].all() else 0
            if n_full > heaviest:  # all bins that are read from now on are composed
                bins.low[end:], bins.high[end:] = 0, self.bin_units - 1
                break
        composed = bins.copy()
        for mass in terminals:
            composed.add(bins, int(mass), 0, n_kept)
        composed.low, composed.high = composed.low[:n_kept], composed.high[:n_kept]
        return composed, first


class _Bins:
    """The lowest and the highest mass in each bin, from the bin's own begin.

    In a bin without a mass, ``low`` is not below the width and ``high`` below 0.
    """

    def __init__(self, n_bins: int, width: int) -> None:
        self.width = width
        self.low = np.full(n_bins, width, dtype=np.int32)
        self.high = np.full(n_bins, -1, dtype=np.int32)

    @property
    def is_composed(self) -> npt.NDArray[np.bool_]:
        """Whether there is a mass, for each bin."""
        return np.asarray(self.low < self.width)

    def copy(self) -> "_Bins":
        """Return bins that change apart from these."""
        other = _Bins(0, self.width)
        other.low, other.high = self.low.copy(), self.high.copy()
        return other

    def add(self, source: "_Bins", mass: int, start: int, end: int) -> None:
        """Add to the bins from ``start`` to ``end`` what is ``mass`` below them."""
        shift, rest = divmod(mass, self.width)
        # A bin of the source comes to lie over two bins here, and the upper part of
        # what is in it may pass into the second.
        first, last = max(start, shift), min(end, len(self.low) + shift)
        if first < last:
            part = slice(first - shift, last - shift)
            low, high = source.low[part] + rest, source.high[part] + rest
            stays = low < self.width
            high = np.where(stays, np.minimum(high, self.width - 1), -1)
            self._widen(low, high, first, last)
        first, last = max(start, shift + 1), min(end, len(self.low) + shift + 1)
        if first < last:
            part = slice(first - shift - 1, last - shift - 1)
            over = rest - self.width
            low, high = source.low[part] + over, source.high[part] + over
            low = np.where(high >= 0, np.maximum(low, 0), self.width)
            self._widen(low, high, first, last)

    def _widen(self, low: Any, high: Any, first: int, last: int) -> None:
        np.minimum(self.low[first:last], low, out=self.low[first:last])
        np.maximum(self.high[first:last], high, out=self.high[first:last])


def mass_units(masses: npt.ArrayLike) -> IntArray:
    """Round masses in Da to whole nanodaltons.

    Examples
    --------
    >>> mass_units([57.021464]).tolist()
    [57021464000]
    """
    return np.round(np.asarray(masses, np.float64) * _PER_DALTON).astype(np.int64)


def tolerance_units(tolerance: npt.ArrayLike) -> IntArray:
    """Return tolerances in Da as nanodaltons, and 100 more for the rounding of masses.

    Examples
    --------
    >>> tolerance_units(0.02).tolist()
    20000100
    """
    units = np.asarray(tolerance, dtype=np.float64) * _PER_DALTON
    return np.asarray(np.ceil(units).astype(np.int64) + _ROUNDING)
