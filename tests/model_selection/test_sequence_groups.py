"""Families of sequences that share a run."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.model_selection import GroupShuffleSplit

from sciseq.errors import InputError
from sciseq.model_selection import sequence_groups


def runs(sequence, length):
    """All runs of a sequence; a shorter one is its own."""
    places = range(max(len(sequence) - length, 0) + 1)
    return {sequence[place : place + length] for place in places}


def spread(sequences, length):
    """Families by spreading numbers until nothing changes."""
    family = list(range(len(sequences)))
    known = [runs(one, length) for one in sequences]
    has_changed = True
    while has_changed:
        has_changed = False
        for one, some in enumerate(known):
            for other, more in enumerate(known):
                if some & more and family[one] > family[other]:
                    family[one], has_changed = family[other], True
    return family


strings = st.lists(st.text("ACGT", max_size=7), max_size=9)


@given(sequences=strings, length=st.integers(1, 4))
def test_groups_equal_those_of_plain_spreading(sequences, length):
    found = sequence_groups(sequences, length)
    assert found.dtype == np.int64
    # Numbered by first appearance; the plain number is that of the first relative.
    plain = spread(sequences, length)
    numbers = {one: rank for rank, one in enumerate(dict.fromkeys(plain))}
    assert found.tolist() == [numbers[one] for one in plain]


def test_relatives_of_relatives_are_joined_though_they_share_nothing():
    sequences = ["AAACCC", "CCCGGG", "GGGTTT", "ACGACG"]
    assert sequence_groups(sequences, 3).tolist() == [0, 0, 0, 1]
    assert not runs(sequences[0], 3) & runs(sequences[2], 3)


def test_no_run_is_on_both_sides_of_a_split():
    rng = np.random.default_rng(0)
    genome = "".join(rng.choice(list("ACGT"), size=4000))
    sequences = [genome[at : at + 60] for at in rng.integers(0, 3900, size=90)]
    groups = sequence_groups(sequences, 12)
    assert 1 < len(set(groups)) < len(sequences)
    split = GroupShuffleSplit(n_splits=3, test_size=0.3, random_state=0)
    for train, test in split.split(sequences, groups=groups):
        known = set().union(*(runs(sequences[row], 12) for row in train))
        assert not any(runs(sequences[row], 12) & known for row in test)
    # A split by sequence leaks, so that the lines above can fail.
    known = set().union(*(runs(one, 12) for one in sequences[:60]))
    assert any(runs(one, 12) & known for one in sequences[60:])


def test_lists_of_tokens_group_like_strings():
    words = ["ABCD", "BCDE", "XYZ", ""]
    lists = [list(one) for one in words]
    assert (
        sequence_groups(lists, 3).tolist()
        == sequence_groups(words, 3).tolist()
        == [0, 0, 1, 2]
    )


def test_nothing_has_no_groups():
    assert sequence_groups([], 3).shape == (0,)


def test_a_length_below_one_is_refused():
    with pytest.raises(InputError, match="shared_length is 0"):
        sequence_groups(["ACGT"], 0)
