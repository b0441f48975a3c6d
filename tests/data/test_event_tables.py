"""Event tables: order, vocabulary, leave-one-out, gaps, and what errors name."""

import gzip

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sciseq.data.event_sequences import gap_edges, gap_tokens, leave_one_out
from sciseq.data.event_tables import read_events
from sciseq.errors import (
    DataQualityError,
    FileFormatError,
    InputError,
    InputTypeError,
)

ROWS = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 4), st.sampled_from("abcde")),
    min_size=1,
    max_size=25,
)


def table(rows):
    return pd.DataFrame(rows, columns=["entity", "time", "item"])


def as_lists(events):
    return {
        entity: events.vocabulary[items].tolist()
        for entity, items in zip(events.entities.tolist(), events, strict=True)
    }


def by_hand(rows):
    found = {}
    for entity, _, item in sorted(rows, key=lambda row: row[:2]):  # stable
        found.setdefault(entity, []).append(item)
    return found


# ------------------------------------------------------------------- order


@given(ROWS)
def test_events_are_in_the_order_of_time_and_then_of_the_table(rows):
    events = read_events(table(rows))
    assert as_lists(events) == by_hand(rows)
    assert events.vocabulary.tolist() == sorted({item for *_, item in rows})
    assert events.item_counts().sum() == len(rows) == events.lengths.sum()


def test_an_unstable_order_is_caught():
    rows = [("a", 1, "x"), ("a", 1, "w"), ("a", 0, "z")]
    assert as_lists(read_events(table(rows))) == {"a": ["z", "x", "w"]}
    assert [item for *_, item in sorted(rows)] == ["z", "w", "x"]  # by item as well


def test_rows_in_order_need_no_time():
    frame = table([("b", 9, "x"), ("a", 1, "z"), ("b", 0, "y")]).drop(columns="time")
    events = read_events(frame, time=None)
    assert as_lists(events) == {"a": ["z"], "b": ["x", "y"]}
    assert events.times is None


def test_times_beyond_the_precision_of_floats_are_ordered():
    late = 2**60
    rows = [("a", late + 1, "y"), ("a", late, "x")]
    assert float(late) == float(late + 1)
    assert as_lists(read_events(table(rows))) == {"a": ["x", "y"]}


@pytest.mark.parametrize(
    "dates",
    [
        ["2024-01-02", "2024-01-01 12:00", "2024-01-01"],
        ["02.01.2024 00:00", "01.01.2024 12:00", "01.01.2024 00:00"],
        list(
            pd.DatetimeIndex(
                ["2024-01-02 00:00", "2024-01-01 12:00", "2024-01-01 00:00"]
            )
        ),
        pd.DatetimeIndex(["2024-01-02 02:00", "2024-01-01 14:00", "2024-01-01 02:00"])
        .tz_localize("Africa/Cairo")
        .tolist(),
        pd.PeriodIndex(["2024-01-02 00", "2024-01-01 12", "2024-01-01 00"], freq="h"),
    ],
)
def test_dates_become_seconds(dates):
    frame = pd.DataFrame({"entity": 1, "time": dates, "item": ["c", "b", "a"]})
    events = read_events(frame)
    assert as_lists(events) == {1: ["a", "b", "c"]}
    first = pd.Timestamp("2024-01-01").timestamp()
    assert (events.times - first).tolist() == [0, 43_200, 86_400]


# ------------------------------------------------------------------- vocabulary


def test_a_vocabulary_that_is_given_numbers_new_events():
    training = read_events(table([(1, 0, "b"), (1, 1, "c"), (2, 0, "a")]))
    later = read_events(table([(9, 0, "c")]), vocabulary=training.vocabulary)
    assert later[0].tolist() == [2]
    with pytest.raises(InputError, match="item 'z' is not in the vocabulary") as caught:
        rows = [(9, 0, "c"), (9, 1, "z")]
        read_events(table(rows), vocabulary=training.vocabulary)
    assert "row 1 (from 0)" in caught.value.where


def test_take_and_index():
    events = read_events(table([(1, 0, "b"), (2, 0, "a"), (2, 1, "c"), (3, 0, "a")]))
    part = events.take([2, 1])
    assert as_lists(part) == {3: ["a"], 2: ["a", "c"]}
    assert part.times.tolist() == [0, 0, 1]
    assert events[-1].tolist() == [0]
    with pytest.raises(IndexError):
        events[3]


# ------------------------------------------------------------------- leave one out


@given(ROWS)
def test_leave_one_out_keeps_test_events_from_training(rows):
    events = read_events(table(rows))
    if events.lengths.max() < 3:
        with pytest.raises(InputError, match="three events"):
            leave_one_out(events)
        return
    split = leave_one_out(events)
    judged = set(split.judged.tolist())
    assert judged == {place for place, one in enumerate(events) if len(one) >= 3}
    targets = dict(
        zip(split.judged, zip(split.validation, split.test, strict=True), strict=True)
    )
    for place, whole in enumerate(events):
        known, before = split.training[place].tolist(), split.test_history[place]
        if place in judged:
            assert [*known, *targets[place]] == whole.tolist()
            assert [*before, targets[place][1]] == whole.tolist()
        else:
            assert known == before.tolist() == whole.tolist()
    assert len(split.training.items) == len(rows) - 2 * len(judged)


def test_the_test_event_is_the_last_in_time_and_not_in_the_table():
    rows = [("a", 3, "test"), ("a", 2, "valid"), ("a", 1, "y"), ("a", 0, "x")]
    split = leave_one_out(read_events(table(rows)))
    names = split.training.vocabulary
    assert names[split.test] == ["test"]
    assert names[split.validation] == ["valid"]
    assert set(names[split.training.items]) == {"x", "y"}
    # The last row of the table is the oldest event: to take it is wrong.
    assert rows[-1][2] != "test"


# ------------------------------------------------------------------- gaps


def test_gaps_are_within_an_entity():
    rows = [(1, 0.0, "a"), (1, 5.0, "a"), (2, 100.0, "a"), (2, 101.0, "a"), (3, 0, "a")]
    events = read_events(table(rows))
    edges = gap_edges(events, 2)
    assert edges.tolist() == [3.0]
    assert gap_tokens(events, edges).tolist() == [0, 2, 0, 1, 0]
    across = np.diff(events.times)  # over the borders of entities
    assert 95.0 in across


@given(ROWS, st.integers(1, 4))
def test_bins_of_gaps_are_in_range(rows, n_bins):
    events = read_events(table(rows))
    if events.lengths.max() < 2:
        with pytest.raises(InputError, match="no gaps"):
            gap_edges(events, n_bins)
        return
    edges = gap_edges(events, n_bins)
    tokens = gap_tokens(events, edges)
    assert len(edges) <= n_bins - 1
    assert (tokens[events.offsets[:-1]] == 0).all()
    assert (tokens == 0).sum() == len(events)
    assert tokens.max() <= n_bins


def test_gaps_need_times():
    events = read_events(table([(1, 0, "a")]), time=None)
    with pytest.raises(InputError, match="no times"):
        gap_tokens(events, [1.0])


# ------------------------------------------------------------------- files


@pytest.mark.parametrize("name", ["events.csv", "events.tsv.gz"])
def test_csv_files(tmp_path, name):
    frame = pd.DataFrame({"user": [2, 1, 2], "at": [5, 1, 3], "film": ["x", "y", "z"]})
    separator = "\t" if ".tsv" in name else ","
    frame.to_csv(tmp_path / name, index=False, sep=separator)
    events = read_events(tmp_path / name, entity="user", time="at", item="film")
    assert as_lists(events) == {1: ["y"], 2: ["z", "x"]}


def test_text_files_are_in_order_already(tmp_path):
    file = tmp_path / "pairs.txt.gz"
    file.write_bytes(gzip.compress(b"10 3\n9 20\n\n10 1\n"))
    events = read_events(file)
    assert events.entities.tolist() == [9, 10]
    assert as_lists(events) == {9: [20], 10: [3, 1]}


@pytest.mark.parametrize(
    ("text", "message", "where"),
    [
        ("1 2\n1 2 3\n", "3 fields", "pairs.txt:2"),
        ("1 2\n7\n", "1 fields", "pairs.txt:2"),
        ("\n", "holds no events", "pairs.txt"),
    ],
)
def test_bad_text_files(tmp_path, text, message, where):
    file = tmp_path / "pairs.txt"
    file.write_text(text)
    with pytest.raises(FileFormatError, match=message) as caught:
        read_events(file)
    assert caught.value.where.endswith(where)


# ------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("column", "value"),
    [("entity", None), ("time", np.nan), ("item", None), ("time", np.inf)],
)
def test_a_missing_value_names_its_row(column, value):
    frame = table([(1.0, 0.0, "a"), (1.0, 1.0, "b"), (2.0, 2.0, "c")])
    frame.loc[1, column] = value
    with pytest.raises(DataQualityError, match=f"column '{column}'") as caught:
        read_events(frame)
    assert "row 1 (from 0)" in caught.value.where


@pytest.mark.parametrize(
    ("frame", "kind", "message"),
    [
        ([[1, 2, 3]], InputTypeError, "type list"),
        (table([]), InputError, "no events"),
        (table([(1, 0, "a")]).rename(columns={"item": "items"}), InputError, "'items'"),
        (table([(1, 0, "a"), (1, 0, 2)]), InputTypeError, "mixes types: 'a' and 2"),
        (table([(1, "2024-01-01", "a"), (1, "x", "b")]), InputError, "first 'x'"),
    ],
)
def test_bad_tables(frame, kind, message):
    with pytest.raises(kind, match=message):
        read_events(frame)


# ------------------------------------------------------------------- real files


def test_real_ratings(data_dir):
    file = data_dir / "events" / "ml_small_ratings.csv.gz"
    events = read_events(file, entity="userId", time="timestamp", item="movieId")
    assert (len(events), len(events.vocabulary), len(events.items)) == (
        671,
        9066,
        100_004,
    )
    within = np.diff(events.times)
    within[events.offsets[1:-1] - 1] = 0  # between users, times may fall
    assert (within >= 0).all()
    split = leave_one_out(events)
    assert len(split.judged) == 671
    assert len(split.training.items) == 100_004 - 2 * 671
    frame = pd.read_csv(file)
    last = frame[frame.userId == 1].sort_values("timestamp", kind="stable").iloc[-1]
    assert events.vocabulary[split.test[0]] == last.movieId


def test_real_purchases(data_dir):
    events = read_events(data_dir / "events" / "amazon_beauty_bert4rec.txt.gz")
    assert (len(events), len(events.vocabulary), len(events.items)) == (
        40_226,
        54_542,
        353_962,
    )
    assert (events.lengths.min(), events.lengths.max()) == (5, 293)
    assert events.vocabulary[events[0]].tolist()[:4] == [1, 2, 3, 4]


def test_real_earthquakes_have_a_mixed_format_of_dates(data_dir):
    file = data_dir / "events" / "earthquakes_23k.csv.gz"
    with pytest.raises(InputError, match=r"'1975-02-23T02:58:41\.000Z'"):
        read_events(file, entity="Magnitude", time="Date", item="Latitude")


@pytest.mark.parametrize("name", ["events.csv", "events.txt"])
def test_labels_that_look_alike_stay_apart(tmp_path, name):
    rows = [("007", "01"), ("7", "1"), ("1e1", "10"), ("10", "1")]
    separator, head = (",", "entity,item\n") if name.endswith("csv") else (" ", "")
    path = tmp_path / name
    path.write_text(head + "".join(f"{a}{separator}{b}\n" for a, b in rows))
    events = read_events(path, time=None)
    assert sorted(events.entities.tolist()) == ["007", "10", "1e1", "7"]
    assert events.vocabulary.tolist() == ["01", "1", "10"]
    # Where nothing is lost, numbers are numbers, and 2 comes before 10.
    path.write_text(head + f"10{separator}2 \n2{separator}10\n")
    events = read_events(path, time=None)
    assert events.entities.tolist() == [2, 10]
    assert events.vocabulary.tolist() == [2, 10]


def test_times_of_several_zones_are_refused():
    times = [pd.Timestamp("2024-01-01", tz="UTC"), pd.Timestamp("2024-01-01 01:00+02")]
    table = pd.DataFrame(
        {"entity": ["a", "a"], "time": pd.Series(times, dtype=object), "item": [1, 2]}
    )
    with pytest.raises(InputError, match="'time' cannot be compared"):
        read_events(table)
