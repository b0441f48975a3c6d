"""Autoregressive sequences: law, likelihood, infilling, what a pass counts."""

import math

import numpy as np
import pytest
import torch
from sequence_toys import (
    GREEDY,
    every_row,
    every_string,
    every_string_up_to,
    fitted,
    follows,
    law_of_gaps,
    run,
    tiny_network,
)
from torch.testing import assert_close

from sciseq.generation.parts.drawing import Drawing
from sciseq.generation.sequences.autoregressive import (
    AutoregressiveDecoder,
    AutoregressiveSequence,
    next_token_scores,
)


def model(**kwargs):
    return fitted(AutoregressiveSequence, **kwargs)


def shares(found, strings):
    return [found.count(one) for one in strings]


def test_likelihoods_sum_to_one():
    strings = every_string("ABC", 4)
    values, errors = model().score_samples(strings, return_std=True)
    assert math.fsum(np.exp(values)) == pytest.approx(1, abs=1e-12)
    assert (errors == 0).all()


def test_likelihoods_sum_to_one_over_all_lengths():
    """The longest sequences need no end: nothing longer exists."""
    strings = every_string_up_to("AB", 4)
    values = model(with_ends=True).score_samples(strings)
    assert math.fsum(np.exp(values)) == pytest.approx(1, abs=1e-12)


def test_samples_have_the_law():
    one, strings = model(), every_string("ABC", 4)
    law = np.exp(one.score_samples(strings))
    counts = shares(one.sample(2000, random_state=3), strings)
    assert sum(counts) == 2000
    assert follows(counts, law)
    assert not follows(shares(one.sample(2000, temperature=1.5, random_state=3),
                              strings), law)  # fmt: skip


def test_samples_of_any_length_have_the_law():
    one, strings = model(with_ends=True), every_string_up_to("AB", 4)
    law = np.exp(one.score_samples(strings))
    counts = shares(one.sample(2000, random_state=3), strings)
    assert sum(counts) == 2000  # none longer than the longest
    assert follows(counts, law)


@torch.no_grad()
def test_greedy_samples_are_greedy():
    one = model()
    tokens = torch.zeros(1, 4, dtype=torch.int64)
    for i in range(4):
        scores = next_token_scores(one.network_, tokens, None)
        tokens[0, i] = scores[0, i].argmax()
    assert one.sample(temperature=0) == one.alphabet_.decode(tokens.numpy())


@torch.no_grad()
def test_no_token_reads_itself_or_later_ones():
    network, length = tiny_network(3, 5, n_layers=3), 5
    tokens = torch.tensor([[0, 1, 2, 0, 1]])
    scores = next_token_scores(network, tokens, None)
    for i in range(length):
        other = tokens.clone()
        other[0, i] = (tokens[0, i] + 1) % 3
        differs = (next_token_scores(network, other, None) != scores).any(-1)[0]
        assert differs.tolist() == [j > i for j in range(length)]


# ------------------------------------------------------------------- infilling


@pytest.mark.parametrize(("string", "temperature"), [("?A", 1.0), ("?B?A", 0.6)])
def test_infilling_reads_what_is_right_of_a_gap(string, temperature):
    one = model(length=len(string), n_candidates=32)
    filled, law = law_of_gaps(one, string, temperature)
    found = one.infill([string] * 400, temperature=temperature, random_state=0)
    assert follows(shares(found, filled), law)


def test_one_candidate_ignores_what_is_right_of_a_gap():
    """The wrong version, and that the weights matter here."""
    one = model(length=2, n_candidates=1)
    filled, law = law_of_gaps(one, "?A")
    found = one.infill(["?A"] * 2000, random_state=0)
    assert not follows(shares(found, filled), law)
    first = [one.score_samples([x + y for y in "ABC"]) for x in "ABC"]
    alone = [np.exp(values).sum() for values in first]
    assert follows(shares(found, filled), alone)


@pytest.mark.parametrize("string", ["?B", "A??"])
def test_infilling_keeps_the_length_of_sequences_with_ends(string):
    """An end that is given weighs as a token; a gap is never an end."""
    one = model(with_ends=True, length=3, n_candidates=32)
    filled, law = law_of_gaps(one, string)
    found = one.infill([string] * 400, random_state=1)
    assert {len(x) for x in found} == {len(string)}
    assert follows(shares(found, filled), law)


def test_gaps_at_the_end_need_one_candidate(monkeypatch):
    one, seen = model(n_candidates=7), []
    original = AutoregressiveSequence._generate_some

    def spy(self, rows, *args):
        seen.append(len(rows))
        return original(self, rows, *args)

    monkeypatch.setattr(AutoregressiveSequence, "_generate_some", spy)
    one.infill(["AB??", "ABCA"], random_state=0)
    one.infill(["A?B?"], temperature=0)
    assert seen == [2, 1]
    one.infill(["AB??", "A?B?", "ABCA"], random_state=0)
    assert seen[2:] == [1 + 7 + 1]
    with_ends = model(n_candidates=7, with_ends=True, length=4)
    with_ends.infill(["BA??"], random_state=0)  # how probable an end was differs
    with_ends.infill(["BAA?"], random_state=0)
    assert seen[3:] == [7, 1]


def test_infilling_of_a_sequence_does_not_depend_on_the_others():
    one = model(n_candidates=5)
    strings = ["A?B?", "????", "?A?C", "ABCA", "?B??"]
    all_of_them = one.infill(strings, random_state=4)
    assert one.infill(strings[:3], random_state=4) == all_of_them[:3]
    assert one.infill(["????", *strings[1:]], random_state=4)[1:] == all_of_them[1:]
    for string, filled in zip(strings, all_of_them, strict=True):
        assert all(x in ("?", y) for x, y in zip(string, filled, strict=True))


# ------------------------------------------------------------------- what it took


def test_work_is_counted():
    """T26: one pass for the begin, one for each token but the last."""
    network = tiny_network(3, 5)
    rows = [[-1] * 5, [0, 1, -1, -1, -1], [-1, 2, 1, -1, -1], [-1, 2, 1, 0, 1], [0] * 5]
    _, work = run(network, AutoregressiveDecoder(Drawing()), rows)
    # The second reads its 2 given tokens at once; the third its first token and 2 more.
    assert work.n_passes.tolist() == [5, 4, 3, 1, 0]
    assert work.n_rows.tolist() == [1 + 4, 1 + 2 + 1 + 1, 1 + 3 + 1, 1, 0]
    assert work.n_tokens.tolist() == [5, 3, 3, 1, 0]
    assert work.tokens_per_pass.tolist() == [1, 0.75, 1, 1, 0]
    assert work.n_read.tolist()[0] == 1 + 2 + 3 + 4
    assert_close(work.cache_share[0], torch.tensor(10 / 15))


def test_tokens_count_up_to_the_end():
    network = tiny_network(3, 6)
    with torch.no_grad():
        network.backbone.head.bias[2] += 60.0  # the end
    tokens, work = run(network, AutoregressiveDecoder(GREEDY), [[-1] * 6], end=2)
    assert tokens.tolist() == [[2] * 6]
    assert (int(work.n_tokens), int(work.n_passes)) == (1, 1)


def test_given_tokens_survive_ends():
    """No end before a given token: it would cut the token off."""
    one = model(with_ends=True, length=5)
    with torch.no_grad():
        one.network_.backbone.head.bias[2] += 5.0
    found = one.sample(50, template="A?B", random_state=0)
    assert all(x[0] == "A" and x[2] == "B" for x in found)
    assert {len(x) for x in found} >= {3}
    assert "" in one.sample(50, random_state=0)


def test_templates_are_read_as_they_come():
    one = model()
    rows = every_row(3, 4)
    strings = [x for x in every_string("ABC", 4) if x[1] == "B"]
    with torch.no_grad():
        logs = next_token_scores(one.network_, rows, None).log_softmax(-1)
    logs = logs.gather(2, rows.unsqueeze(2)).squeeze(2)
    logs[:, 1] = 0.0
    law = logs.sum(dim=1).exp()[rows[:, 1] == 1]
    found = one.sample(2000, template="?B??", random_state=2)
    assert follows(shares(found, strings), law)
