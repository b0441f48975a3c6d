"""SAP: a model of masked tokens, used from left to right."""

import numpy as np
import pytest
import torch
from masked_toys import GREEDY, every_row, ready, run, toy_network

from sciseq.errors import InputError, InputTypeError
from sciseq.generation.parts.drawing import Drawing
from sciseq.generation.parts.layout import NOISY, Layout
from sciseq.generation.parts.masks import causal
from sciseq.generation.parts.reveal import Reveal, equal_amounts
from sciseq.generation.parts.whole_decoder import WholeDecoder
from sciseq.generation.sequences.autoregressive import AutoregressiveSequence
from sciseq.generation.sequences.conditional_diffusion import (
    ConditionalDiffusionSequence,
)
from sciseq.generation.sequences.masked_diffusion import (
    MaskedDiffusionSequence,
    denoising_scores,
)
from sciseq.generation.sequences.sequential_prompt import (
    SequentialDecoder,
    SequentialPromptSampler,
)


def every_string_up_to(letters, length):
    rows = [
        row for n in range(length + 1) for row in every_row(len(letters), n).tolist()
    ]
    return ["".join(letters[i] for i in row) for row in rows]


def sampler(n_tokens=3, length=4, *, with_ends=True, keep=1, window=None, **params):
    model = ready(MaskedDiffusionSequence, n_tokens, length, with_ends=with_ends,
                  **params)  # fmt: skip
    return SequentialPromptSampler.around(model, keep=keep, window=window)


# --- Likelihood -----------------------------------------------------------------------


@pytest.mark.parametrize(("keep", "window"), [(1, None), (1, 1), (1, 2), (2, 3)])
def test_the_chain_is_a_law_of_strings_of_one_length(keep, window):
    model = sampler(3, 3, with_ends=False, keep=keep, window=window)
    values = model.score_samples(["".join("ABC"[i] for i in r)
                                  for r in every_row(3, 3).tolist()])  # fmt: skip
    assert np.exp(values).sum() == pytest.approx(1.0, abs=1e-12)


def test_the_chain_is_a_law_of_strings_that_end():
    # Four tokens at most; shorter strings have an end behind them.
    model = sampler(3, 4)
    strings = every_string_up_to("AB", 4)
    total = np.exp(model.score_samples(strings)).sum()
    assert total == pytest.approx(1.0, abs=1e-12)
    # Wrong: each token given all others is no law.
    pseudo = sum(np.exp(pseudo_likelihood(model, one)) for one in strings)
    assert abs(pseudo - total) > 0.05


def pseudo_likelihood(model, string):
    host = model.generator_
    tokens = torch.from_numpy(host.alphabet_.encode([string]))
    total = 0.0
    for i in range(min(len(string) + 1, tokens.shape[1])):
        shown = tokens.clone()
        shown[:, i] = host.network_.mask
        scores = denoising_scores(host.network_, shown, None).log_softmax(dim=2)
        total += float(scores[0, i, tokens[0, i]].detach())
    return total


def test_the_chain_is_that_of_the_samples():
    model = sampler(3, 3, with_ends=False)
    strings = ["".join("ABC"[i] for i in row) for row in every_row(3, 3).tolist()]
    law, n = np.exp(model.score_samples(strings)), 4000
    found = model.sample(n, random_state=5)
    counts = np.array([found.count(one) for one in strings])
    rare = n * law < 5
    expected = np.append(n * law[~rare], n * law[rare].sum() + 1e-9)
    observed = np.append(counts[~rare], counts[rare].sum())
    statistic = ((observed - expected) ** 2 / expected)[expected > 1].sum()
    assert statistic < len(expected) + 4 * (2 * len(expected)) ** 0.5
    # Wrong: units of two are another law.
    other = np.exp(SequentialPromptSampler.around(
        model.generator_, keep=2).score_samples(strings))  # fmt: skip
    gap = ((counts - n * other) ** 2 / (n * other)).sum()
    assert gap > len(strings) + 8 * (2 * len(strings)) ** 0.5


# --- Samples --------------------------------------------------------------------------


def test_the_first_token_is_that_of_the_direct_query():
    network = toy_network(3, 5)
    scores = denoising_scores(network, torch.full((1, 5), network.mask), None)
    tokens, _ = run(network, SequentialDecoder(GREEDY), [[-1] * 5])
    assert int(tokens[0, 0]) == int(scores[0, 0].argmax())


def test_all_at_once_is_one_infill():
    network, rows = toy_network(3, 5), [[-1] * 5, [-1, 2, -1, -1, 0]]
    plain = WholeDecoder(Drawing(), Reveal("random", equal_amounts(1)))
    expected, _ = run(network, plain, rows)
    found, work = run(network, SequentialDecoder(Drawing(), keep=5), rows)
    assert torch.equal(found, expected)
    assert work.n_passes.tolist() == [1, 1]
    one_by_one, _ = run(network, SequentialDecoder(Drawing()), rows)
    assert not torch.equal(one_by_one, expected)


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_passes_are_units_and_the_end(keep):
    model = sampler(4, 7, keep=keep)
    found = model.sample(40, random_state=0)
    lengths = np.array([len(one) for one in found])
    assert len(set(lengths)) > 2
    inside = lengths < 6  # the longest ones may do without the pass of their end
    passes = model.last_work.n_passes.numpy()
    assert (passes[inside] == -(-(lengths[inside] + 1) // keep)).all()
    assert (passes <= -(-7 // keep)).all()


def test_a_window_leaves_out_what_is_behind_it():
    network = toy_network(3, 6)
    _, work = run(network, SequentialDecoder(Drawing(), window=2), [[-1] * 6])
    # The begin, what is there, and two masks while there are as many.
    assert work.n_rows.tolist() == [sum(1 + min(i + 2, 6) for i in range(6))]
    _, work = run(network, SequentialDecoder(Drawing(), window=2),
                  [[-1, -1, -1, -1, 0, 0]])  # fmt: skip
    assert work.n_rows.tolist() == [(1 + 4) + (1 + 5) + 2 * (1 + 6)]


def test_a_causal_model_and_a_window_of_one_is_autoregressive():
    network = toy_network(3, 5)
    decoder = SequentialDecoder(GREEDY, window=1)
    decoder.rule = causal
    tokens, _ = run(network, decoder, [[-1] * 5])
    made = []
    for i in range(5):  # a mask behind what there is, read causally
        shown = torch.tensor([[*made, network.mask]])
        layout = Layout.of(i + 1, copy=NOISY)
        scores = network.scores(network.read(shown, layout, causal, None))
        made.append(int(scores[0, -1].argmax()))
    assert tokens[0].tolist() == made


@pytest.mark.parametrize("window", [None, 2])
def test_samples_are_whole_reproducible_and_of_themselves(window):
    model = sampler(4, 7, window=window)
    four = model.sample(4, template="?B", random_state=3)
    assert four == model.sample(4, template="?B", random_state=3)
    assert four[:2] == model.sample(2, template="?B", random_state=3)
    assert four != model.sample(4, template="?B", random_state=4)
    assert all(set(one) <= set("ABC") for one in four)
    assert model.infill(["A??B"], random_state=0)[0][::3] == "AB"


def test_a_template_of_the_model_stays_and_does_not_count():
    host = ready(ConditionalDiffusionSequence, 3, 4, template="??C?")
    model = SequentialPromptSampler.around(host)
    assert all(one[2] == "C" for one in model.sample(10, random_state=0))
    assert model.last_work.n_passes.tolist() == [3] * 10
    strings = [f"{a}{b}C{c}" for a in "ABC" for b in "ABC" for c in "ABC"]
    total = np.exp(model.score_samples(strings)).sum()
    assert total == pytest.approx(1.0, abs=1e-12)
    values, errors = model.score_samples(strings, return_std=True, random_state=None)
    assert np.exp(values).sum() == pytest.approx(1.0, abs=1e-12)
    assert not errors.any()
    # The model itself is not changed.
    host.sample(2, random_state=0)
    assert host.last_work.n_passes.tolist() == [4, 4]


def test_what_does_not_fit_is_refused():
    with pytest.raises(InputTypeError, match="is needed"):
        SequentialPromptSampler.around(ready(AutoregressiveSequence))
    with pytest.raises(InputError, match="window=1 must be at least keep=2"):
        sampler(keep=2, window=1)


def test_fit_leaves_the_given_model_as_it_is():
    host = MaskedDiffusionSequence(
        d_model=8, d_ff=8, n_heads=2, n_layers=1, max_epochs=1, random_state=0,
        device="cpu",
    )  # fmt: skip
    model = SequentialPromptSampler(generator=host, keep=2).fit(["ABAB", "BABA"] * 5)
    assert not hasattr(host, "network_")
    assert len(model.sample(3, random_state=0)) == 3
    assert model.score(["ABAB"]) < 0
