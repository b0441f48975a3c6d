"""Draft and verify: the autoregressive law, whatever the drafts."""

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
    request,
    run,
    steps,
    tiny_network,
)

from sciseq.generation.parts.batches import SequenceBatch
from sciseq.generation.parts.cache import KeyValueCache
from sciseq.generation.parts.drawing import Drawing
from sciseq.generation.parts.layout import NOISY, NOTHING, Layout
from sciseq.generation.parts.masks import causal, two_copy
from sciseq.generation.sequences import draft_verify
from sciseq.generation.sequences.autoregressive import (
    AutoregressiveDecoder,
    AutoregressiveSequence,
    next_token_scores,
)
from sciseq.generation.sequences.draft_verify import (
    DraftVerifyDecoder,
    DraftVerifySequence,
    all_hidden,
)

N_TOKENS, LENGTH = 3, 4


def model(**kwargs):
    return fitted(DraftVerifySequence, **{"n_drafts": 3, **kwargs})


def shares(found, strings):
    return [found.count(one) for one in strings]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("k", [1, 2, 4])
def test_greedy_output_is_autoregressive_for_any_weights(seed, k):
    """T08, with gaps and given tokens as well."""
    network = tiny_network(4, 9, seed=seed)
    rows = [[-1] * 9, [2] + [-1] * 8, [-1, -1, 3, -1, -1, 0, 0, -1, -1]]
    wanted, plain = run(network, AutoregressiveDecoder(GREEDY), rows)
    found, work = run(network, DraftVerifyDecoder(GREEDY, k), rows)
    assert found.equal(wanted)
    if k == 1:  # one token for a pass
        assert work.n_passes[0] == plain.n_passes[0] == 9
        assert work.tokens_per_pass[0] == 1


def test_samples_have_the_autoregressive_law():
    """T09: all strings of 3 tokens, length 4, K = 3."""
    one, strings = model(), every_string("ABC", LENGTH)
    law = np.exp(fitted(AutoregressiveSequence).score_samples(strings))
    assert (np.abs(np.exp(one.score_samples(strings)) - law) < 1e-14).all()
    found = one.sample(4000, random_state=0)
    assert follows(shares(found, strings), law)
    assert float(one.last_work.tokens_per_pass.mean()) > 1.05


def test_other_rules_have_another_law(monkeypatch):
    """The wrong versions: all drafts accepted; a plain draw after a refusal."""
    one, strings = model(), every_string("ABC", LENGTH)
    law = np.exp(one.score_samples(strings))
    right = DraftVerifyDecoder._accepted

    def accept_all(self, requests, scores):
        is_next = self._places(requests)[1:] < requests.memory["n_drafts"][:, None]
        return scores, 1 + is_next.long().sum(dim=1)

    monkeypatch.setattr(DraftVerifyDecoder, "_accepted", accept_all)
    assert not follows(shares(one.sample(4000, random_state=0), strings), law)
    monkeypatch.setattr(DraftVerifyDecoder, "_accepted", right)

    def plain(self, requests, scores, n_accepted):
        every = torch.arange(len(requests))
        position = (requests.memory["at"] + n_accepted).unsqueeze(1)
        return Drawing()(scores[every, n_accepted - 1].unsqueeze(1), requests.seeds,
                         position, purpose=self._purpose(requests, 3))  # fmt: skip

    monkeypatch.setattr(DraftVerifyDecoder, "_next", plain)
    assert not follows(shares(one.sample(4000, random_state=0), strings), law)


def residual_always(self, requests, scores, n_accepted):
    """Wrong: what p has above the last q, though all drafts were accepted."""
    every, k = torch.arange(len(requests)), self.n_drafts
    was_compared = requests.memory["n_drafts"] > 1
    law = self.drawing.law(scores[every, n_accepted - 1])
    source = self.drawing.law(
        requests.memory["scores"][every, n_accepted.clamp_max(k - 1)]
    )
    left = (law.exp() - source.exp()).clamp_min(0).log()
    law = left.where(was_compared[:, None], law).unsqueeze(1)
    position = (requests.memory["at"] + n_accepted).unsqueeze(1)
    return Drawing()(law, requests.seeds, position, purpose=self._purpose(requests, 3))


def test_the_token_behind_accepted_drafts_has_the_law_too(monkeypatch):
    """Where all K = 2 drafts hold, as at places 1 and 2, what follows has the law p."""
    network, decoder = tiny_network(3, 5, n_layers=1), DraftVerifyDecoder(Drawing(), 2)
    rows, n_whole = every_row(3, 5), []
    with torch.no_grad():
        logs = next_token_scores(network, rows, None).log_softmax(-1)
    law = logs.gather(2, rows.unsqueeze(2)).sum(dim=(1, 2)).exp()

    def counts(n):
        tokens, _ = run(network, decoder, [[-1] * 5] * n)
        return torch.bincount(tokens @ 3 ** torch.arange(4, -1, -1), minlength=3**5)

    right = DraftVerifyDecoder._next

    def spy(self, requests, scores, n_accepted):
        is_whole = (n_accepted == 2) & (requests.memory["at"] + 2 < 5)
        n_whole.append(int(is_whole.sum()))
        return right(self, requests, scores, n_accepted)

    monkeypatch.setattr(DraftVerifyDecoder, "_next", spy)
    assert follows(counts(20_000), law)
    assert sum(n_whole) > 2000
    monkeypatch.setattr(DraftVerifyDecoder, "_next", residual_always)
    assert not follows(counts(3000), law)


class Kept(Drawing):
    """Keeps the law that a token is drawn from."""

    def __call__(self, scores, *args, **kwargs):
        laws.append(self.law(scores)[:, 0].exp())
        return super().__call__(scores, *args, **kwargs)


laws: list = []


@pytest.mark.parametrize("q", [(0.2, 0.5, 0.3), (0.2, 0.25, 0.55)])
def test_accepting_and_refusing_make_the_law_of_the_next_token(q, monkeypatch):
    """Without draws: the sum over drafts of what is accepted and what comes instead."""
    p, q = torch.tensor([(0.5, 0.3, 0.2), q], dtype=torch.float64)
    decoder = DraftVerifyDecoder(Drawing(), 2)
    requests = request([[0, -1, -1]] * 3, 4)  # one for each draft
    requests.memory = {
        "at": torch.zeros(3).long(),
        "n_steps": torch.ones(3).long(),
        "n_drafts": torch.full((3,), 2),
        "drafts": torch.tensor([[0, 0], [0, 1], [0, 2]]),
        "scores": q.log().expand(3, 2, 3),
        "is_known": torch.zeros(3, 2, dtype=torch.bool),
    }
    scores = p.log().expand(3, 2, 3)
    low, high = torch.zeros(3, 1).double(), torch.ones(3, 1).double()
    for _ in range(60):  # the largest number below which a draft is accepted
        middle = (low + high) / 2
        monkeypatch.setattr(draft_verify, "uniform", lambda *args, u=middle: u)
        is_accepted = (decoder._accepted(requests, scores)[1] == 2)[:, None]
        low, high = middle.where(is_accepted, low), middle.where(~is_accepted, high)
    accepted = low[:, 0]
    monkeypatch.setattr(draft_verify, "Drawing", Kept)
    laws.clear()
    decoder._next(requests, scores, torch.ones(3).long())
    (refused,) = laws

    def law(instead):
        return q * accepted + (q * (1 - accepted)).sum() * instead / instead.sum()

    for instead in refused:  # whatever draft was refused
        assert (law(instead) - p).abs().max() < 1e-12
    # Wrong: a part of q too little is taken away, which shows if two tokens are left.
    too_little = law((p - 0.8 * q).clamp_min(0)) - p
    assert bool(too_little.abs().max() > 1e-2) == (int((p > q).sum()) > 1)
    assert (law(p) - p).abs().max() > 1e-2  # or a plain draw
    # Behind accepted drafts nothing was refused.
    laws.clear()
    decoder._next(requests, scores, torch.full((3,), 2))
    assert (laws[0] - p).abs().max() < 1e-12


@pytest.mark.parametrize("options", [
    {"temperature": 0.7}, {"top_k": 2}, {"top_p": 0.8}, {"allowed": {1: "AB", 2: "CB"}}
])  # fmt: skip
def test_the_law_stays_that_of_the_drawing(options):
    strings = every_string("ABC", LENGTH)
    rows = every_row(3, LENGTH)
    one = model()
    drawing = Drawing(**{k: v for k, v in options.items() if k != "allowed"})
    with torch.no_grad():
        scores = next_token_scores(one.network_, rows, None)
    legal = one._legal(options.get("allowed"))
    logs = drawing.law(scores, legal).gather(2, rows.unsqueeze(2)).squeeze(2)
    found = one.sample(1500, random_state=1, **options)
    assert follows(shares(found, strings), logs.sum(dim=1).exp())


def test_the_law_stays_with_given_tokens():
    """T09 with templates: given tokens are read as they come, as in autoregression."""
    strings = [x for x in every_string("ABC", LENGTH) if x[2] == "B"]
    one = model()
    rows = every_row(3, LENGTH)
    with torch.no_grad():
        logs = next_token_scores(one.network_, rows, None).log_softmax(-1)
    logs = logs.gather(2, rows.unsqueeze(2)).squeeze(2)
    logs[:, 2] = 0.0
    law = logs.sum(dim=1).exp()[rows[:, 2] == 1]
    found = one.sample(2000, template="??B?", random_state=2)
    assert follows(shares(found, strings), law)


def test_the_law_stays_with_ends():
    one, strings = model(with_ends=True), every_string_up_to("AB", LENGTH)
    law = np.exp(one.score_samples(strings))
    found = one.sample(2000, random_state=3)
    assert follows(shares(found, strings), law)


def test_each_pass_accepts_1_to_k_tokens_and_stores_them_causally():
    """The cache after each step is a fresh causal prefill, layer by layer."""
    network, k, length = tiny_network(3, 8, n_layers=3), 3, 8
    decoder, seen = DraftVerifyDecoder(Drawing(), k), []
    commit = decoder.commit

    def check(requests, rows, scores):
        at = requests.memory["at"].clone()
        commit(requests, rows, scores)
        n_accepted = requests.memory["at"] - at
        seen.extend(n_accepted.tolist())
        assert ((n_accepted >= 1) & (n_accepted <= k)).all()
        for i in range(len(requests)):
            n = int(min(requests.memory["at"][i], length))
            assert requests.cache.is_stored[i].nonzero().flatten().tolist() == list(
                range(n)
            )
            fresh = KeyValueCache(1, length)
            x, layout = network.prefix(1, None)
            some = Layout.of(n)
            x = torch.cat([x, network.embed(requests.tokens[i : i + 1, :n], some)], 1)
            network(x, layout.followed_by(some), causal, fresh)
            fresh.store()
            for mine, wanted in zip(requests.cache._rooms, fresh._rooms, strict=True):
                differs = mine[:, i, :, : n + 1] - wanted[:, 0, :, : n + 1]
                assert differs.abs().max() < 1e-12

    decoder.commit = check
    run(network, decoder, [[-1] * length] * 6 + [[-1, 1, 2, -1, -1, 0, -1, -1]])
    assert {1, 2} <= set(seen)


def test_replicas_are_stand_alone_passes():
    """Replica r equals masks behind the prefix and the drafts up to r."""
    network, k, length = tiny_network(3, 8, n_layers=3), 3, 8
    requests, seen = request([[-1] * length] * 4, network.mask), 0
    for rows, scores, tokens, memory in steps(
        network, DraftVerifyDecoder(Drawing(), k), requests
    ):
        for i in range(len(tokens)):
            at = int(memory["at"][i])
            for r in range(1, int(memory["n_drafts"][i]) + 1):
                drafts = rows.tokens[i : i + 1, :r]
                clean = torch.cat([tokens[i : i + 1, :at], drafts], dim=1)
                n = min(k, length - at - r)
                if n < 1:
                    continue
                masks = Layout.of(n, start=at + r, copy=NOISY)
                masks = type(masks)(
                    **{**vars(masks), "group": torch.full_like(masks.group, at + r)}
                )
                shown = torch.cat([clean, torch.full((1, n), network.mask)], dim=1)
                layout = Layout.of(at + r).followed_by(masks)
                states = network.read(shown, layout, two_copy(clean="causal"), None)
                wanted = network.scores(states[0, -n:])
                first = k + (r - 1) * k
                assert (scores[i, first : first + n] - wanted).abs().max() < 1e-12
                seen += 1
    assert seen > 20


def test_work_is_counted():
    """T26: the begin, one draft with its K masks, then K drafts with K replicas."""
    network, k, length = tiny_network(3, 6), 2, 6
    total = [torch.zeros(1, dtype=torch.int64), 0]
    requests = request([[-1] * length], network.mask)
    for rows, *_ in steps(network, DraftVerifyDecoder(GREEDY, k), requests):
        total[0] += (rows.layout.segment != NOTHING).sum()
        total[1] += 1
    _, work = run(network, DraftVerifyDecoder(GREEDY, k), [[-1] * length])
    assert int(work.n_passes) == 1 + total[1]
    assert int(work.n_rows) == 1 + int(total[0])
    assert int(work.n_tokens) == length
    # K = 1: every pass has K (K + 1) = 2 rows, but for the last one.
    _, work = run(network, DraftVerifyDecoder(GREEDY, 1), [[-1] * length])
    assert work.n_passes.tolist() == [length]
    assert work.n_rows.tolist() == [1 + 2 * (length - 1)]
    assert work.n_read.tolist() == [sum(range(1, length))]


def test_perfect_drafts_are_all_accepted():
    """Where drafts come from the law of the verifier, K pass at once."""
    network, k, length = tiny_network(3, 9), 4, 9
    with torch.no_grad():  # all laws are one distribution
        network.backbone.head.weight.zero_()
    _, work = run(network, DraftVerifyDecoder(Drawing(), k), [[-1] * length] * 8)
    # Begin: 1 token. One draft: 1 more. Then 4 drafts accepted and one drawn: 9 tokens.
    assert work.n_passes.unique().tolist() == [1 + 1 + 2]


@pytest.mark.parametrize(
    ("string", "options"),
    [("?A", {}), ("?B?A", {"temperature": 0.6}), ("?B", {"with_ends": True})],
)
def test_gaps_have_the_autoregressive_law_of_what_is_given(string, options):
    """As in autoregression, also what is right of a gap is read."""
    options = dict(options)
    told = {"temperature": options.pop("temperature", 1.0), "random_state": 0}
    length = len(string) + bool(options)  # room for an end
    one = model(length=length, n_candidates=32, **options)
    filled, law = law_of_gaps(one, string, told["temperature"])
    found = one.infill([string] * 200, **told)
    assert follows(shares(found, filled), law)


def test_one_candidate_ignores_what_is_right_of_a_gap():
    """The wrong version: what it did before candidates were weighed."""
    one = model(length=2, n_candidates=1)
    filled, law = law_of_gaps(one, "?A")
    found = one.infill(["?A"] * 2000, random_state=0)
    assert not follows(shares(found, filled), law)


def test_trust_mixes_the_scores():
    one, strings = model(trust=1.0), every_string("ABC", LENGTH)
    exact = one.sample(400, random_state=0)
    law = np.exp(one.score_samples(strings))
    one.set_params(trust=0.0)
    trusting = one.sample(1500, random_state=0)
    # All drafts pass when only what drafted them decides.
    assert float(one.last_work.tokens_per_pass.double().mean()) > 1.3
    assert not follows(shares(trusting, strings), law)
    one.set_params(trust=1 - 1e-12)
    assert one.sample(400, random_state=0) == exact


def test_all_weight_on_the_next_token_is_plain_training():
    """alpha to infinity: the loss of autoregression."""
    one = model(autoregressive_weight=1e12)
    tokens = torch.tensor([[0, 1, 2, 2], [1, 1, 0, 2]])
    batch = SequenceBatch(tokens, torch.arange(2), None)
    with torch.no_grad():
        total, n = one._loss(0)(one.network_, batch)
    wanted = -one.score_samples(["ABCC", "BBAC"]).sum()
    assert float(total) == pytest.approx(wanted, rel=1e-9)
    assert int(n) == 8
    # With ends, what stands behind the first one is not told.
    one = model(autoregressive_weight=1e12, with_ends=True, length=4)
    rows = torch.from_numpy(one.alphabet_.encode(["A", "BABA", ""]))
    with torch.no_grad():
        total, _ = one._loss(0)(
            one.network_, SequenceBatch(rows, torch.arange(3), None)
        )
    wanted = -one.score_samples(["A", "BABA", ""]).sum()
    assert float(total) == pytest.approx(wanted, rel=1e-9)
    broken = all_hidden(torch.zeros(2, 4), torch.zeros(2, 2), 2)
    assert bool(broken.mask.all())
