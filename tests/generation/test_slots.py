"""Slots: fewest moves by brute force, contiguity, order of arrival, no mixed state."""

from collections import deque

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sciseq.errors import InputError
from sciseq.generation.parts.slots import SlotPool, fewest_moves

# --- Fewest moves --------------------------------------------------------------------


def least_numbers_of_moves(n_slots):
    """For every set of active slots, by a search outwards from the contiguous ones.

    A move takes one request to any free slot. Moves can be undone, so that the search
    may run backwards.
    """
    contiguous = {
        frozenset(range(first, first + n))
        for n in range(n_slots + 1)
        for first in range(n_slots - n + 1)
    }
    least = dict.fromkeys(contiguous, 0)
    queue = deque(contiguous)
    while queue:
        active = queue.popleft()
        for source in active:
            for target in set(range(n_slots)) - active:
                moved = active - {source} | {target}
                if moved not in least:
                    least[moved] = least[active] + 1
                    queue.append(moved)
    return least


def moves_to_the_front(active):
    """Wrong: every request goes to the first free slot before it."""
    return sum(slot != rank for rank, slot in enumerate(sorted(active)))


@pytest.mark.parametrize("n_slots", range(1, 9))
def test_no_sequence_of_moves_is_shorter(n_slots):
    least = least_numbers_of_moves(n_slots)
    assert len(least) == 2**n_slots
    for active, n_moves in least.items():
        is_active = np.isin(np.arange(n_slots), list(active))
        first, moves = fewest_moves(is_active)
        assert len(moves) == n_moves
        after = active - set(moves.sources.tolist()) | set(moves.targets.tolist())
        assert after == set(range(first, first + len(active)))
        assert set(moves.sources.tolist()) <= active
        assert not set(moves.targets.tolist()) & active
    if n_slots > 1:
        assert any(moves_to_the_front(one) > n for one, n in least.items())


def test_moves_by_hand():
    is_active = np.array([1, 0, 1, 1, 0, 1, 0, 0], dtype=bool)
    first, moves = fewest_moves(is_active)
    assert (first, moves.sources.tolist(), moves.targets.tolist()) == (0, [5], [1])
    first, moves = fewest_moves(np.array([0, 0, 1, 1, 1, 0], dtype=bool))
    assert (first, len(moves)) == (2, 0)
    first, moves = fewest_moves(np.zeros(3, dtype=bool))
    assert (first, len(moves)) == (0, 0)


# --- The pool ------------------------------------------------------------------------


def step(value):
    """One step of a request: its state after it depends on all steps before."""
    return (value * 1_103_515_245 + 12_345) % 2**31


def alone(request, n_steps):
    value = request + 1
    for _ in range(n_steps):
        value = step(value)
    return value


def served(arrivals, lengths, capacity, move=True):
    """Serve requests together; results, rounds of joining and the number of rounds."""
    pool = SlotPool(capacity)
    state = np.zeros(capacity, dtype=np.int64)
    left = np.zeros(capacity, dtype=np.int64)
    results, joined, now = {}, {}, 0
    while len(results) < len(lengths):
        for request in np.flatnonzero(np.equal(arrivals, now)).tolist():
            pool.submit(request)
        for request, slot in pool.admit():
            assert slot not in (
                pool.slot_of(one) for one in pool.requests if one != request
            )
            state[slot], left[slot] = request + 1, lengths[request]
            joined[request] = now
        n_active = pool.active.stop - pool.active.start
        assert n_active == len(pool.requests) <= capacity
        assert 0 <= pool.active.start <= pool.active.stop <= capacity
        # Nobody waits while there is room.
        assert pool.n_waiting == 0 or n_active == capacity
        state[pool.active] = step(state[pool.active])
        left[pool.active] -= 1
        ended = [one for one in pool.requests if left[pool.slot_of(one)] == 0]
        results |= {one: int(state[pool.slot_of(one)]) for one in ended}
        moves = pool.release(ended)
        if move:
            state[moves.targets] = state[moves.sources]
            left[moves.targets] = left[moves.sources]
        slots = [pool.slot_of(one) for one in pool.requests]
        assert slots == list(range(pool.active.start, pool.active.stop))
        now += 1
        if now > 1000:
            return None
    assert pool.requests == []
    assert pool.active == slice(0, 0)
    return results, joined, now


@given(
    requests=st.lists(
        st.tuples(st.integers(0, 12), st.integers(1, 9)), min_size=1, max_size=14
    ),
    capacity=st.integers(1, 6),
)
@settings(max_examples=60)
def test_requests_served_together_end_as_they_do_alone(requests, capacity):
    arrivals, lengths = zip(*requests, strict=True)
    results, joined, n_rounds = served(arrivals, lengths, capacity)
    assert results == {i: alone(i, length) for i, length in enumerate(lengths)}
    # First come, first served: requests of one round by their number.
    order = sorted(range(len(lengths)), key=lambda i: (arrivals[i], i))
    assert [joined[i] for i in order] == sorted(joined.values())
    assert n_rounds == max(joined[i] + lengths[i] for i in range(len(lengths)))
    # With room for all, everyone joins on arrival, and lengths do not add up.
    _, joined, n_rounds = served(arrivals, lengths, len(lengths))
    assert joined == dict(enumerate(arrivals))
    assert n_rounds == max(a + n for a, n in requests)


def test_state_that_is_not_moved_is_caught():
    arrivals, lengths = (0, 0, 0, 0), (5, 1, 5, 5)
    right = {i: alone(i, length) for i, length in enumerate(lengths)}
    assert served(arrivals, lengths, 4)[0] == right
    wrong = served(arrivals, lengths, 4, move=False)
    assert wrong is None or wrong[0] != right


def filled(capacity=6):
    pool = SlotPool(capacity)
    for request in range(capacity):
        pool.submit(request)
    pool.admit()
    return pool


def test_slots_freed_at_the_ends_cost_no_move():
    pool = filled()
    assert len(pool.release([0, 5])) == 0
    assert pool.active == slice(1, 5)
    assert len(pool.release([1])) == 0
    pool.submit("a")
    pool.submit("b")
    pool.submit("c")
    assert pool.admit() == [("a", 5), ("b", 1), ("c", 0)]
    assert pool.requests == ["c", "b", 2, 3, 4, "a"]


def test_a_slot_freed_inside_costs_one_move():
    pool = filled()
    moves = pool.release([2])
    assert (moves.sources.tolist(), moves.targets.tolist()) == ([5], [2])
    assert pool.requests == [0, 1, 5, 3, 4]
    assert pool.slot_of(5) == 2


def test_requests_are_admitted_in_the_order_of_submission():
    pool = SlotPool(2)
    for request in "abcde":
        pool.submit(request)
    admitted = [one for one, _ in pool.admit()]
    while pool.requests:
        pool.release(pool.requests[:1])
        admitted += [one for one, _ in pool.admit()]
    assert admitted == list("abcde")


def test_wrong_calls_are_refused_and_change_nothing():
    with pytest.raises(InputError, match="capacity is 0"):
        SlotPool(0)
    pool = filled(2)
    with pytest.raises(InputError, match="submitted once"):
        pool.submit(1)
    pool.submit(7)
    with pytest.raises(InputError, match="submitted once"):
        pool.submit(7)
    assert pool.admit() == []
    with pytest.raises(InputError, match="7 has no slot"):
        pool.release([0, 7])
    assert pool.requests == [0, 1]
    assert len(pool.release([])) == 0
    assert pool.requests == [0, 1]
