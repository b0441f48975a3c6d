r"""Slots of requests that start and end at any time, always side by side in memory.

State of a request (caches, tokens, step) lies in the row of its slot, so that one pass
over a contiguous range of rows serves every active request. The pool decides who gets
which slot and what must move when requests end; whoever owns the state moves it.

Axes: ``move``. Symbols: n active requests, C slots.
"""

from collections import deque
from collections.abc import Container, Hashable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from sciseq.errors import InputError

__all__ = ["Moves", "SlotPool", "fewest_moves"]

Request = TypeVar("Request", bound=Hashable)
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Moves:
    """Rows of state to copy; no slot is a source and a target.

    Parameters
    ----------
    sources : ndarray of int64, shape (move,)
        Slots to copy from, growing.
    targets : ndarray of int64, shape (move,)
        Slots to copy to, growing.

    Examples
    --------
    >>> import numpy as np
    >>> state = np.array([10, 0, 12, 13])
    >>> moves = Moves(np.array([3]), np.array([1]))
    >>> state[moves.targets] = state[moves.sources]
    >>> state.tolist(), len(moves)
    ([10, 13, 12, 13], 1)
    """

    sources: IntArray
    targets: IntArray

    def __len__(self) -> int:
        return len(self.sources)


def fewest_moves(is_active: npt.NDArray[np.bool_]) -> tuple[int, Moves]:
    r"""Bring active slots side by side with as few moves as there can be.

    .. math:: \min_w \left(n - |A \cap \{w, \dots, w + n - 1\}|\right)

    over all windows of n neighbouring slots, with the set A of active ones. The active
    slots outside of the best window go into its holes.

    Parameters
    ----------
    is_active : ndarray of bool, shape (slot,)
        Which slots are active, in any arrangement.

    Returns
    -------
    first : int
        First slot of the window; of equally good windows the first. 0 without any
        active slot.
    moves : Moves
        What must be moved.

    Examples
    --------
    >>> import numpy as np
    >>> first, moves = fewest_moves(np.array([1, 0, 0, 1, 0, 1], dtype=bool))
    >>> first, moves.sources.tolist(), moves.targets.tolist()
    (3, [0], [4])
    """
    n = int(is_active.sum())
    n_before = np.concatenate([[0], is_active.cumsum()])
    # How many active slots each window holds.
    first = int((n_before[n:] - n_before[: len(n_before) - n]).argmax())
    slots = np.arange(len(is_active))
    is_inside = (first <= slots) & (slots < first + n)
    return first, Moves(slots[is_active & ~is_inside], slots[~is_active & is_inside])


class SlotPool(Generic[Request]):
    """Assigns slots to requests, first come, first served, and keeps them contiguous.

    Parameters
    ----------
    capacity : int
        Slots C, at least 1: requests that can be active at the same time.

    Raises
    ------
    InputError
        When there is no slot.

    Notes
    -----
    Each round of a loop admits what waits, makes one step of all active requests
    together, and releases those that ended. A request that ended at an end of the range
    costs no move; one inside costs at most one. The decisions depend on the calls only,
    so that several workers with the same calls decide the same.

    References
    ----------
    Flover: a temporal fusion framework for efficient autoregressive model
    parallel inference, arXiv:2305.13484, 2023.

    Examples
    --------
    >>> pool = SlotPool(capacity=3)
    >>> for name in "abcd":
    ...     pool.submit(name)
    >>> pool.admit()
    [('a', 0), ('b', 1), ('c', 2)]
    >>> moves = pool.release(["b"])
    >>> moves.sources.tolist(), moves.targets.tolist()
    ([2], [1])
    >>> pool.requests, pool.active
    (['a', 'c'], slice(0, 2, None))
    >>> pool.admit()
    [('d', 2)]
    """

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise InputError(
                f"capacity is {capacity}; must be at least 1", where="capacity"
            )
        self.capacity = capacity
        self._waiting: deque[Request] = deque()
        self._slots: dict[Request, int] = {}  # of active requests
        self._first = 0

    @property
    def active(self) -> slice:
        """Slots of all active requests."""
        return slice(self._first, self._first + len(self._slots))

    @property
    def requests(self) -> list[Request]:
        """Active requests in the order of their slots."""
        return sorted(self._slots, key=self._slots.__getitem__)

    @property
    def n_waiting(self) -> int:
        """How many requests wait for a slot."""
        return len(self._waiting)

    def slot_of(self, request: Request) -> int:
        """Return the slot of an active request.

        Raises
        ------
        InputError
            When the request is not active.
        """
        if request not in self._slots:
            raise InputError(
                f"{request!r} has no slot; {len(self._slots)} requests are active",
                where="request",
            )
        return self._slots[request]

    def submit(self, request: Request) -> None:
        """Let a request wait for a slot, behind all others.

        Raises
        ------
        InputError
            When it waits already or is active.
        """
        if request in self._slots or request in self._waiting:
            raise InputError(
                f"{request!r} is active or waits already; requests are submitted once",
                where="request",
            )
        self._waiting.append(request)

    def withdraw(self, requests: Container[Request]) -> None:
        """Let requests that still wait go.

        Parameters
        ----------
        requests : container
            Which; those that do not wait are passed over.
        """
        self._waiting = deque(one for one in self._waiting if one not in requests)

    def admit(self) -> list[tuple[Request, int]]:
        """Give slots to waiting requests, the longest waiting first.

        Returns
        -------
        list of (request, slot)
            New ones in the order of submission: behind the active slots while there is
            room, then in front of them. None when all slots are taken.
        """
        admitted = []
        while self._waiting and len(self._slots) < self.capacity:
            slot = self.active.stop
            if slot == self.capacity:
                self._first -= 1
                slot = self._first
            request = self._waiting.popleft()
            self._slots[request] = slot
            admitted.append((request, slot))
        return admitted

    def release(self, requests: Iterable[Request]) -> Moves:
        """Free the slots of requests that ended and close the holes.

        Parameters
        ----------
        requests : iterable
            Active requests.

        Returns
        -------
        Moves
            State to move, at once and before anything else; afterwards all rows outside
            of :attr:`active` are free.

        Raises
        ------
        InputError
            When a request is not active; then nothing is changed.
        """
        ended = list(requests)
        for request in ended:
            self.slot_of(request)
        for request in set(ended):
            del self._slots[request]
        is_active = np.zeros(self.capacity, dtype=np.bool_)
        is_active[list(self._slots.values())] = True
        self._first, moves = fewest_moves(is_active)
        new_slots = dict(
            zip(moves.sources.tolist(), moves.targets.tolist(), strict=True)
        )
        for request, slot in self._slots.items():
            self._slots[request] = new_slots.get(slot, slot)
        return moves
