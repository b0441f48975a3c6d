"""A beam search held to sequences of the measured mass.

Masses are whole nanodaltons, so that results do not depend on the batch or the device.
Axes: ``item``, ``beam``, ``token``, ``isotope``.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sciseq.decoding.beam_search import State
from sciseq.errors import InputError
from sciseq.sequencing.mass_table import (
    MassTable,
    mass_tolerance,
    mass_units,
    tolerance_units,
)
from sciseq.sequencing.masses import C13, WATER

__all__ = ["MassConstraint"]


class MassConstraint:
    r"""Hold a beam search to sequences of the right mass.

    .. math:: |M - 18.010565 - k \cdot 1.003355 - \sum_i m(a_i)| \le tol

    for some number k of additional neutrons in the measured precursor. A residue is
    allowed when what remains can be composed, a terminal modification when nothing
    remains behind it, the stop when nothing remains.

    Parameters
    ----------
    table : MassTable
        Which masses can be composed. Sequences are built so that the terminal
        modifications come last: C-terminus first.
    neutral_masses : array-like of shape (n_items,)
        Measured neutral masses M of the items of the search, in Da.
    stop : int
        Token that ends a sequence; it may be the one behind those of the table.
    ppm : float, default 20.0
        Relative tolerance, in millionths of M.
    absolute : float, default 0.0
        Added to the tolerance, in Da.
    isotopes : tuple of int, default (0, 0)
        Smallest and largest k.

    Raises
    ------
    InputError
        When a number is out of range.

    Notes
    -----
    A :class:`sciseq.decoding.beam_search.Constraint`. The tolerance is extended by
    1e-7 Da for the rounding of masses. What may come next follows from the mass alone:
    a sequence that the search's ``max_length`` cuts off may have been allowed so far.

    Examples
    --------
    >>> import torch
    >>> table = MassTable([57.021464, 71.037114])
    >>> constraint = MassConstraint(table, [128.058578 + 18.010565], stop=2)
    >>> state = constraint.start(1, 1, torch.device("cpu"))
    >>> constraint.mask(state).tolist()
    [[[True, True, False]]]
    >>> state = constraint.advance(state, torch.tensor([[0]]))
    >>> constraint.mask(state).tolist()
    [[[False, True, False]]]
    """

    def __init__(
        self,
        table: MassTable,
        neutral_masses: npt.ArrayLike,
        *,
        stop: int,
        ppm: float = 20.0,
        absolute: float = 0.0,
        isotopes: tuple[int, int] = (0, 0),
    ) -> None:
        M = np.asarray(neutral_masses, dtype=np.float64)
        if not 0 <= stop <= len(table.units) or isotopes[0] > isotopes[1]:
            raise InputError(
                f"stop is {stop} and isotopes {isotopes}; a stop from 0 to "
                f"{len(table.units)} and two numbers in ascending order are needed",
                where="MassConstraint",
            )
        self.table = table
        self.stop = stop
        tolerance = mass_tolerance(M, ppm=ppm, absolute=absolute)
        self._tolerance = tolerance_units(tolerance)
        self._remaining = mass_units(M - WATER)
        numbers = np.arange(isotopes[0], isotopes[1] + 1)
        self._isotopes = mass_units(numbers * C13)
        one_more = (0, int(stop == len(table.units)))
        self._units = np.pad(table.units, one_more)
        self._is_terminal = np.pad(table.is_terminal, one_more)
        self._is_residue = np.pad(table.is_residue, one_more)
        self._is_residue[stop] = False
        self._is_terminal[stop] = False
        self._constants: dict[torch.device, State] = {}

    def start(self, n_items: int, n_beams: int, device: torch.device) -> State:
        """Return the state of beams without tokens.

        Parameters
        ----------
        n_items, n_beams : int
            Sizes of the search; one item for each mass.
        device : torch.device
            Where the search runs.

        Returns
        -------
        remaining, tolerance, is_closed : Tensor, shape (item, beam)
            Mass that remains and its tolerance in nanodaltons; whether a terminal
            modification has been taken.

        Raises
        ------
        InputError
            When there is not one mass for each item.
        """
        if n_items != len(self._remaining):
            raise InputError(
                f"the search has {n_items} items, the constraint "
                f"{len(self._remaining)} masses",
                where="MassConstraint, neutral_masses",
            )
        remaining, tolerance = (
            torch.from_numpy(one).to(device).unsqueeze(1).repeat(1, n_beams)
            for one in (self._remaining, self._tolerance)
        )
        return remaining, tolerance, torch.zeros_like(remaining, dtype=torch.bool)

    def mask(self, state: State) -> Tensor:
        """Return what is allowed next, bool of shape (item, beam, token)."""
        remaining, tolerance, is_closed = state
        units, isotopes, is_terminal, is_residue, *arrays = self._on(remaining.device)
        tolerance = tolerance[:, :, None, None]
        # (item, beam, token, isotope): what remains after each token
        now = remaining[:, :, None, None] - isotopes
        after = now - units[:, None]
        is_nothing = (after.abs() <= tolerance).any(dim=3)
        low, high = after - tolerance, after + tolerance
        is_composed = self.table.find(low, high, (arrays[0], arrays[1], arrays[2]))
        is_composed = is_composed.any(dim=3)
        allowed: Tensor = (is_terminal & is_nothing) | (is_residue & is_composed)
        allowed &= ~is_closed.unsqueeze(2)
        allowed[:, :, self.stop] = (now.abs() <= tolerance).any(dim=3).squeeze(2)
        return allowed

    def advance(self, state: State, tokens: Tensor) -> State:
        """Return the state after one more token (item, beam) of each beam."""
        remaining, tolerance, is_closed = state
        units, _, is_terminal, *_ = self._on(remaining.device)
        return remaining - units[tokens], tolerance, is_closed | is_terminal[tokens]

    def _on(self, device: torch.device) -> State:
        if device not in self._constants:
            arrays = (
                self._units,
                self._isotopes,
                self._is_terminal,
                self._is_residue,
                *self.table.arrays,
            )
            self._constants[device] = tuple(
                torch.from_numpy(np.array(one)).to(device) for one in arrays
            )
        return self._constants[device]
