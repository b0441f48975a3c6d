"""Sequences of events, one per entity: splits, and the gaps between events as tokens.

Axis legend: E entities, J judged entities, n events of all entities, V items of the
vocabulary, B bins of gaps. The events of entity e are the rows ``offsets[e]`` to
``offsets[e + 1]``.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from sciseq.errors import InputError

__all__ = [
    "EventSequences",
    "LeaveOneOut",
    "gap_edges",
    "gap_tokens",
    "leave_one_out",
    "offsets_of",
]

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class EventSequences:
    """Sequences of items, one per entity, in the order of time.

    Parameters
    ----------
    items : ndarray of int64, shape (n,)
        Number of each event's item in ``vocabulary``; entity after entity.
    offsets : ndarray of int64, shape (E + 1,)
        Where the events of each entity start, and where the last ones end.
    entities : ndarray of shape (E,)
        Labels of the entities, in rising order.
    vocabulary : ndarray of shape (V,)
        Labels of the items, in rising order unless one was given.
    times : ndarray of float64, shape (n,), optional
        Times as given; of dates, the seconds since 1970 (UTC).

    Examples
    --------
    >>> events = EventSequences(
    ...     items=np.array([2, 0, 1]), offsets=np.array([0, 2, 3]),
    ...     entities=np.array(["ann", "ben"]), vocabulary=np.array(["x", "y", "z"]))
    >>> len(events), events[0].tolist(), events.vocabulary[events[0]].tolist()
    (2, [2, 0], ['z', 'x'])
    """

    items: IntArray
    offsets: IntArray
    entities: npt.NDArray[Any]
    vocabulary: npt.NDArray[Any]
    times: FloatArray | None = None

    def __len__(self) -> int:
        return len(self.entities)

    def __iter__(self) -> Iterator[IntArray]:
        return (self[entity] for entity in range(len(self)))

    def __getitem__(self, entity: int) -> IntArray:
        """Return the items of the entity at a place, oldest first."""
        place = range(len(self))[entity]
        return self.items[self.offsets[place] : self.offsets[place + 1]]

    @property
    def lengths(self) -> IntArray:
        """Events of each entity, shape (E,)."""
        return np.diff(self.offsets)

    def item_counts(self) -> IntArray:
        """Return how often each item occurs, shape (V,)."""
        return np.bincount(self.items, minlength=len(self.vocabulary))

    def take(self, entities: npt.ArrayLike) -> "EventSequences":
        """Return the sequences of the entities at some places, in that order."""
        places = np.asarray(entities, dtype=np.int64)
        lengths = self.lengths[places]
        offsets = offsets_of(lengths)
        shift = np.repeat(self.offsets[:-1][places] - offsets[:-1], lengths)
        rows = np.arange(offsets[-1]) + shift
        return replace(
            self,
            items=self.items[rows],
            offsets=offsets,
            entities=self.entities[places],
            times=None if self.times is None else self.times[rows],
        )

    def first(self, lengths: npt.ArrayLike) -> "EventSequences":
        """Return the first events of each entity, as many as `lengths` (E,) says."""
        kept = np.minimum(np.asarray(lengths, dtype=np.int64), self.lengths)
        age = np.arange(len(self.items)) - np.repeat(self.offsets[:-1], self.lengths)
        is_kept = age < np.repeat(kept, self.lengths)
        return replace(
            self,
            items=self.items[is_kept],
            offsets=offsets_of(kept),
            times=None if self.times is None else self.times[is_kept],
        )


@dataclass(frozen=True)
class LeaveOneOut:
    """The split of next-event recommendation; see :func:`leave_one_out`.

    Parameters
    ----------
    training : EventSequences
        All events but the two last ones of each judged entity.
    judged : ndarray of int64, shape (J,)
        Places of the entities that are judged.
    validation, test : ndarray of int64, shape (J,)
        Items of their last but one and of their last event.
    test_history : EventSequences
        ``training`` plus the validation events: what is known when the last event is
        to be predicted.
    """

    training: EventSequences
    judged: IntArray
    validation: IntArray
    test: IntArray
    test_history: EventSequences


def leave_one_out(events: EventSequences) -> LeaveOneOut:
    """Split events: the last of each entity is test, the last but one validation.

    Parameters
    ----------
    events : EventSequences
        Sequences in the order of time.

    Returns
    -------
    LeaveOneOut
        Entities with fewer than three events are not judged: all their events are
        training.

    Raises
    ------
    InputError
        When no entity has three events.

    Examples
    --------
    >>> events = EventSequences(
    ...     items=np.array([0, 1, 2, 3, 1]), offsets=np.array([0, 4, 5]),
    ...     entities=np.array(["ann", "ben"]), vocabulary=np.arange(4))
    >>> split = leave_one_out(events)
    >>> [one.tolist() for one in split.training], split.judged, split.test
    ([[0, 1], [1]], array([0]), array([3]))
    """
    lengths = events.lengths
    judged = np.flatnonzero(lengths >= 3)
    if not judged.size:
        raise InputError(
            f"none of {len(events)} entities has three events, the longest has "
            f"{lengths.max(initial=0)}",
            where="events",
            hint="One event is for testing, one for validation, one to learn from.",
        )
    is_judged = lengths >= 3
    last = events.offsets[1:][judged] - 1
    return LeaveOneOut(
        training=events.first(lengths - 2 * is_judged),
        judged=judged,
        validation=events.items[last - 1],
        test=events.items[last],
        test_history=events.first(lengths - is_judged),
    )


def gap_edges(events: EventSequences, n_bins: int) -> FloatArray:
    """Return the edges that cut the gaps between events into equally filled bins.

    Parameters
    ----------
    events : EventSequences
        Training events, with times.
    n_bins : int
        Bins asked for.

    Returns
    -------
    ndarray of shape (B - 1,)
        Rising; fewer edges than asked for where many gaps are equal.

    Raises
    ------
    InputError
        When there are no times, no gaps, or fewer than one bin.

    Examples
    --------
    >>> events = EventSequences(
    ...     items=np.zeros(4, int), offsets=np.array([0, 4]), entities=np.arange(1),
    ...     vocabulary=np.arange(1), times=np.array([0.0, 1.0, 3.0, 7.0]))
    >>> gap_edges(events, 3), gap_tokens(events, gap_edges(events, 3))
    (array([1.66666667, 2.66666667]), array([0, 1, 2, 3]))
    """
    if n_bins < 1:
        raise InputError(f"n_bins is {n_bins}, must be at least 1", where="n_bins")
    gaps = _gaps(events)
    known = gaps[~np.isnan(gaps)]
    if not known.size:
        raise InputError(
            "no entity has two events, so there are no gaps", where="events"
        )
    return np.unique(np.quantile(known, np.arange(1, n_bins) / n_bins))


def gap_tokens(events: EventSequences, edges: npt.ArrayLike) -> IntArray:
    """Return the number of the bin in which the gap before each event falls.

    Parameters
    ----------
    events : EventSequences
        Events with times.
    edges : array-like of shape (B - 1,)
        Edges of :func:`gap_edges`, learnt on training events.

    Returns
    -------
    ndarray of int64, shape (n,)
        0 for the first event of an entity, else 1 to B; a gap on an edge belongs to
        the bin above.

    Raises
    ------
    InputError
        When there are no times.
    """
    gaps = _gaps(events)
    bins = 1 + np.searchsorted(np.asarray(edges, dtype=np.float64), gaps, side="right")
    return np.where(np.isnan(gaps), 0, bins)


def offsets_of(lengths: npt.NDArray[Any]) -> IntArray:
    """Return where the events of each entity start, and where the last ones end."""
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def _gaps(events: EventSequences) -> FloatArray:
    """Time since the entity's event before, (n,); NaN at its first event."""
    if events.times is None:
        raise InputError(
            "the events have no times",
            where="events",
            hint="Read them with time= the name of the column of times.",
        )
    gaps = np.diff(events.times, prepend=np.nan)
    gaps[events.offsets[:-1][events.lengths > 0]] = np.nan
    return gaps
