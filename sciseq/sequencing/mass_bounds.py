"""How probable the rest of a CTC path, or of a sequence, can be with a given mass.

Masses are whole nanodaltons. Axes: ``batch``, ``position`` (T), ``symbol`` (S, the
blank among them), ``nominal`` (remaining masses, rounded), ``state``.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sciseq.errors import InputError
from sciseq.sequencing.mass_table import mass_units

__all__ = ["PathBounds", "PathSymbols", "PathTargets", "SequenceBounds"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

# Masses of peptides lie close to whole multiples of this, in nanodaltons.
_NOMINAL = 1.000495 * 10**9


@dataclass(frozen=True)
class PathSymbols:
    """What the symbols weigh and where they may stand."""

    units: IntArray  # nanodaltons, 0 for the blank
    nominal: IntArray  # multiples of _NOMINAL
    is_terminal: BoolArray
    is_excluded: BoolArray
    blank: int

    @classmethod
    def read(
        cls,
        masses: npt.ArrayLike,
        is_terminal: npt.ArrayLike | None,
        excluded: Sequence[int],
        blank: int,
        shape: tuple[int, ...],
    ) -> "PathSymbols":
        """Check what :func:`most_probable_paths` was given, for scores of a shape."""
        m = np.array(masses, dtype=np.float64)
        terminal = np.array(
            np.zeros(m.shape) if is_terminal is None else is_terminal, dtype=np.bool_
        )
        if len(shape) == 3 and m.shape == terminal.shape == (shape[2] - 1,):
            m, terminal = np.append(m, 0.0), np.append(terminal, False)
        fits = len(shape) == 3 and m.shape == terminal.shape == (shape[2],)
        if not fits or not 0 <= blank < len(m) or not shape[1]:
            raise InputError(
                f"log_probs has shape {shape}, masses {m.shape}, is_terminal "
                f"{terminal.shape} and blank is {blank}; (batch, position, symbol) "
                "with one position or more and twice (symbol,) are needed, the blank "
                "among the symbols",
                where="most_probable_paths",
            )
        is_excluded = np.zeros(len(m), dtype=np.bool_)
        is_excluded[list(excluded)] = True
        m[is_excluded] = 1.0  # never used
        m[blank], terminal[blank] = 0.0, False
        is_residue = ~terminal
        is_residue[blank] = False
        if not np.isfinite(m).all() or not (m[is_residue] > 0).all():
            raise InputError(
                f"masses are {m.tolist()}; they must be finite, and positive for "
                "residues",
                where="masses",
                hint="Mark modifications of a terminus in is_terminal, and tokens "
                "without a mass in excluded.",
            )
        units = mass_units(m)
        nominal = np.round(units / _NOMINAL).astype(np.int64)
        return cls(units, nominal, terminal, is_excluded, blank)

    def off_nominal(self) -> tuple[float, float]:
        """Largest error of nominal masses: per unit of residues, and besides in units.

        A sum of residues of mass x with a terminal modification is off by at most
        ``relative * x + constant``.
        """
        error = np.abs(self.units - self.nominal * _NOMINAL)
        size = np.abs(self.units)
        used = ~self.is_excluded & (size > 0)
        residue, terminal = used & ~self.is_terminal, used & self.is_terminal
        relative = float((error[residue] / size[residue]).max(initial=0.0))
        constant = error[terminal] + relative * size[terminal]
        return relative, float(constant.max(initial=0.0))


@dataclass(frozen=True)
class PathTargets:
    """Masses of the spectra of a chunk, in nanodaltons."""

    units: IntArray  # (batch,)
    tolerance: IntArray  # (batch,)
    shifts: IntArray  # (isotope,)

    def is_met(self, item: IntArray, remaining: IntArray) -> BoolArray:
        """Tell whether so little remains that a path may end."""
        off = np.abs(remaining[:, None] - self.shifts)
        return np.asarray((off <= self.tolerance[item][:, None]).any(axis=1))


class PathBounds:
    """How probable the rest of a path can be at best.

    ``table[t, s, i, n]`` is for spectrum i after t positions, the last of them s, with
    n nominal units remaining (from ``lowest`` on). It lets a token follow itself as a
    new one, and a terminal modification stand anywhere: neither makes it too small.
    """

    def __init__(
        self, scores: FloatArray, targets: PathTargets, symbols: PathSymbols
    ) -> None:
        self.relative, constant = symbols.off_nominal()
        n_batch, n_positions, n_symbols = scores.shape
        heaviest = int(np.abs(symbols.units).max()) * n_positions
        # No path can miss its mass by more than this.
        most_off = int(np.abs(targets.units).max()) + heaviest
        tolerance = np.minimum(targets.tolerance, most_off)
        shifts = targets.shifts
        ends = [
            np.round((shifts + sign * tolerance[:, None]) / _NOMINAL).astype(np.int64)
            for sign in (-1, 1)
        ]
        # What is left at the end is rounded, too, and no sum of residues.
        of_shift = np.abs(shifts - np.round(shifts / _NOMINAL) * _NOMINAL).max()
        constant += np.minimum(tolerance + of_shift, _NOMINAL / 2)
        self.constant = constant + self.relative * (tolerance + np.abs(shifts).max())
        low = min(0, int(symbols.nominal.min()))
        self.lowest = int(ends[0].min()) + low
        most = (1 + self.relative) * targets.units + self.constant
        highest = max(int(most.max() / _NOMINAL) + 1, int(ends[1].max()))
        n_nominal = highest - self.lowest + 1
        size = (n_positions + 1, self._n_rows(n_symbols), n_batch, n_nominal)
        self.table = np.empty(size, dtype=np.float32)
        self.table[-1] = -np.inf
        for item in range(n_batch):
            for first, last in zip(ends[0][item], ends[1][item], strict=True):
                start = first - self.lowest
                self.table[-1, :, item, start : last - self.lowest + 1] = 0.0
        self._fill(scores.transpose(1, 2, 0).astype(np.float32), symbols)
        # Without a look at the mass: cheap, and it settles most of what is hopeless.
        best = scores.max(axis=2)
        rest = np.cumsum(best[:, ::-1], axis=1)[:, ::-1]
        self.without_mass = np.pad(rest, ((0, 0), (0, 1)))

    def _n_rows(self, n_symbols: int) -> int:
        return n_symbols

    def _row(self, last: IntArray) -> IntArray:
        """Return which row of the table is for states with a last symbol."""
        return last

    def _fill(self, scores: npt.NDArray[np.float32], symbols: PathSymbols) -> None:
        n_nominal = self.table.shape[3]
        tokens = np.flatnonzero(~symbols.is_excluded)
        for t in range(len(scores) - 1, -1, -1):
            # (symbol, batch, nominal): the last symbol goes on at this position
            now = np.add(self.table[t + 1], scores[t][:, :, None], out=self.table[t])
            anew = now[symbols.blank].copy()
            for token in tokens:
                shift = int(symbols.nominal[token])
                if token == symbols.blank or abs(shift) >= n_nominal:
                    continue
                into, out_of = _shifted(shift, n_nominal)
                np.maximum(anew[:, into], now[token][:, out_of], out=anew[:, into])
            np.maximum(now, anew, out=now)

    def __call__(
        self, t: int, last: IntArray, item: IntArray, remaining: IntArray
    ) -> FloatArray:
        """Bound of the rest after ``t`` positions, for states (state,)."""
        off = self.relative * np.abs(remaining) + self.constant[item]
        low = np.ceil((remaining - off) / _NOMINAL).astype(np.int64) - self.lowest
        high = np.floor((remaining + off) / _NOMINAL).astype(np.int64) - self.lowest
        n_nominal, row = self.table.shape[3], self._row(last)
        low, high = np.maximum(low, 0), np.minimum(high, n_nominal - 1)
        best = np.full(len(item), -np.inf)
        for number in range(int((high - low).max(initial=-1)) + 1):
            place = np.clip(low + number, 0, n_nominal - 1)
            found = self.table[t, row, item, place]
            np.maximum(best, found, out=best, where=low + number <= high)
        return best


class SequenceBounds(PathBounds):
    """The same for sequences: every symbol counts, and behind a blank stand blanks.

    ``table[t, 0]`` is for sequences that may go on, ``table[t, 1]`` for those that are
    over; these have a last symbol beyond all others.
    """

    def _n_rows(self, n_symbols: int) -> int:
        self._over = n_symbols
        return 2

    def _row(self, last: IntArray) -> IntArray:
        return np.asarray(last == self._over, dtype=np.int64)

    def _fill(self, scores: npt.NDArray[np.float32], symbols: PathSymbols) -> None:
        n_nominal = self.table.shape[3]
        tokens = np.flatnonzero(~symbols.is_excluded)
        for t in range(len(scores) - 1, -1, -1):
            own = scores[t][:, :, None]
            # (batch, nominal): blanks from here on
            over = np.add(self.table[t + 1, 1], own[symbols.blank])
            self.table[t] = over
            now = self.table[t, 0]
            for token in tokens:
                shift = int(symbols.nominal[token])
                if token == symbols.blank or abs(shift) >= n_nominal:
                    continue
                rest = self.table[t + 1, int(symbols.is_terminal[token])]
                into, out_of = _shifted(shift, n_nominal)
                reached = rest[:, out_of] + own[token]
                np.maximum(now[:, into], reached, out=now[:, into])


def _shifted(shift: int, n_nominal: int) -> tuple[slice, slice]:
    """Return which masses remain before a token of so much mass, and after it."""
    return (
        slice(max(shift, 0), n_nominal + min(shift, 0)),
        slice(max(-shift, 0), n_nominal - max(shift, 0)),
    )
