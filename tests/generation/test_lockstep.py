"""Requests in step give what the loop for requests at places of their own gives."""

import numpy as np
import pytest
import torch

from sciseq.generation.base import SequenceGenerator
from sciseq.generation.parts import lockstep
from sciseq.generation.sequences.autoregressive import AutoregressiveSequence

VARIED = ["ACGTACGT", "ACG", "TTGACA", "GAT", "CC"] * 4
FIXED = ["ACGTACG", "TTGACAT", "GATTACA", "CCCCGGG", "AGCTAGC"] * 4
LABELS = ["on", "off"] * 10
PEAKS = [np.full((1 + i % 3, 2), float(i % 2)) for i in range(20)]
SMALL = {
    "d_model": 16, "d_ff": 16, "n_layers": 2, "n_heads": 2, "max_epochs": 2,
    "random_state": 0, "device": "cpu", "precision": "float64",
}  # fmt: skip
COUNTS = ("n_passes", "n_rows", "n_read", "n_tokens")


class OneByOne(AutoregressiveSequence):
    """Samples by the general loop."""

    def _run_requests(self, network, drawing, requests):
        return SequenceGenerator._run_requests(self, network, drawing, requests)


def pair(X, y=None):
    fast = AutoregressiveSequence(**SMALL).fit(X, y)
    slow = OneByOne(**SMALL).fit(X, y)
    return fast, slow


CALLS = [
    {},
    {"temperature": 0},
    {"temperature": 0.7},
    {"top_k": 2},
    {"top_p": 0.7},
    {"allowed": "AC"},
]


@pytest.mark.parametrize("X", [VARIED, FIXED], ids=["varied", "fixed"])
def test_samples_are_equal(X):
    fast, slow = pair(X)
    for call in CALLS:
        assert fast.sample(40, random_state=1, **call) == slow.sample(
            40, random_state=1, **call
        )
        for name in COUNTS:
            found, expected = (getattr(one.last_work, name) for one in (fast, slow))
            assert torch.equal(found, expected), (call, name)


@pytest.mark.parametrize(
    ("y", "told"), [(LABELS, LABELS[:6]), (PEAKS, PEAKS[:6])], ids=["one", "padded"]
)
def test_conditions_are_read_alike(y, told):
    fast, slow = pair(VARIED, y)
    assert fast.sample(condition=told, random_state=2) == slow.sample(
        condition=told, random_state=2
    )


def test_templates_are_read_alike():
    for X, template in ((VARIED, ["A?G", "????T", "AC"]), (FIXED, ["A?G????"] * 3)):
        fast, slow = pair(X)
        assert fast.sample(template=template, random_state=3) == slow.sample(
            template=template, random_state=3
        )


GIVEN = ["ACGTA?G", "ACGT?AA", "TTTT???", "ACGT???"]  # four places, of two kinds


def test_what_all_give_is_read_once_for_those_that_give_the_same(monkeypatch):
    fast, slow = pair(FIXED)
    sizes, read = [], lockstep.StoredRows.read

    def counted(rows, x, turn, mask):
        sizes.append(x.shape[:2])
        return read(rows, x, turn, mask)

    monkeypatch.setattr(lockstep.StoredRows, "read", counted)
    found = fast.sample(template=GIVEN, random_state=3)
    assert found == slow.sample(template=GIVEN, random_state=3)
    # The begin and four bases, of two kinds; then a base of each that has gaps left.
    assert sizes == [(2, 5), (3, 1), (2, 1)]
    work = fast.last_work
    assert work.n_passes.tolist() == [2, 1, 3, 3]
    assert work.n_rows.tolist() == [6, 5, 7, 7]
    assert work.n_read.tolist() == [5, 0, 11, 11]
    # The same template for all: the counts of the loop, less its pass over the begin.
    fast.sample(9, template="ACGT???", random_state=3)
    slow.sample(9, template="ACGT???", random_state=3)
    assert torch.equal(fast.last_work.n_passes, slow.last_work.n_passes - 1)
    assert torch.equal(fast.last_work.n_rows, slow.last_work.n_rows)


def test_what_is_given_is_read_behind_its_condition():
    for y, told in ((LABELS, LABELS[:4]), (PEAKS, PEAKS[:4])):
        fast, slow = pair(FIXED, y)
        for template in (GIVEN, "ACGT???"):
            assert fast.sample(condition=told, template=template, random_state=3) == (
                slow.sample(condition=told, template=template, random_state=3)
            )


def test_the_beginning_of_another_request_would_be_seen(monkeypatch):
    fast, _ = pair(FIXED)
    expected = fast.sample(template=GIVEN * 5, random_state=3)
    different = lockstep._different

    def turned(tokens):
        rows, which = different(tokens)
        return rows, 1 - which

    monkeypatch.setattr(lockstep, "_different", turned)
    assert fast.sample(template=GIVEN * 5, random_state=3) != expected


def test_noise_goes_on_where_it_was_cut(monkeypatch):
    fast, _ = pair(VARIED)
    expected = fast.sample(20, random_state=4)
    monkeypatch.setattr(lockstep, "_NOISE_TOGETHER", 2)
    assert fast.sample(20, random_state=4) == expected


def test_keys_of_another_place_would_be_seen(monkeypatch):
    fast, slow = pair(FIXED)
    turns = lockstep.turns
    monkeypatch.setattr(lockstep, "turns", lambda *args: torch.ones_like(turns(*args)))
    assert fast.sample(40, random_state=1) != slow.sample(40, random_state=1)


def test_half_precision_generates():
    # Its matrix products return bfloat16, which no complex number is made of.
    model = AutoregressiveSequence(**{**SMALL, "precision": "bfloat16"}).fit(VARIED)
    made = model.sample(20, random_state=1)
    assert len(made) == 20 and set("".join(made)) <= set("ACGT")
