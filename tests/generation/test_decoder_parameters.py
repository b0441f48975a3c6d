"""What an estimator is told about sampling reaches its decoder."""

import pytest
import torch
from masked_toys import ready, toy_network

from sciseq.generation.parts.combiner_attention import combiner_attention
from sciseq.generation.parts.drawing import Drawing
from sciseq.generation.parts.masks import full, prefix_bidirectional
from sciseq.generation.parts.plans import transfer_plan
from sciseq.generation.sequences.axial import ArrayAlphabet, AxialAutoregressor
from sciseq.generation.sequences.block_diffusion import BlockDiffusionSequence
from sciseq.generation.sequences.combiner import CombinerSequence
from sciseq.generation.sequences.conditional_diffusion import (
    ConditionalDiffusionSequence,
)
from sciseq.generation.sequences.delayed_cache import DelayedCacheDiffusion
from sciseq.generation.sequences.draft_verify import DraftVerifySequence
from sciseq.generation.sequences.efficient_block import EfficientBlockDiffusion
from sciseq.generation.sequences.energy_diffusion import EnergyDiffusionSequence
from sciseq.generation.sequences.masked_diffusion import MaskedDiffusionSequence
from sciseq.generation.sequences.next_block import NextBlockSequence
from sciseq.generation.sequences.reordered_causal import ReorderedCausalDiffusion
from sciseq.generation.sequences.sequential_prompt import SequentialPromptSampler

LENGTH = 12


def amounts(decoder, n_hidden=LENGTH):
    """How many tokens each pass uncovers, at least."""
    hidden, found = torch.tensor([n_hidden]), []
    while int(hidden):
        step = torch.tensor([len(found)])
        found.append(int(decoder.reveal.amount(hidden, step)))
        hidden = hidden - found[-1]
    return found


def made(cls, params):
    return ready(cls, 4, LENGTH, network=toy_network(4, LENGTH), **params)


REVEAL = {
    # Of 12 tokens (or of a block of 5) in four passes, or in two.
    "n_steps": amounts,
    "order": lambda one: one.reveal.order,
    "threshold": lambda one: one.reveal.threshold,
}
BLOCK = {**REVEAL, "n_steps": lambda one: amounts(one, 5), "block_size": None}
BLOCKWISE = {"n_steps": 2, "order": "margin", "threshold": 0.6, "block_size": 5}
FOUND_IN_BLOCK = {**BLOCKWISE, "n_steps": [3, 2]}
TABLE = [
    # Estimator, its parameters, where they are (None: under their names), and values.
    (
        DraftVerifySequence,
        {"n_drafts": 3, "trust": 0.25},
        {"n_drafts": None, "trust": None},
        {},
    ),
    (
        ReorderedCausalDiffusion,
        {"window": 3, "entropy_threshold": 0.7, "distance_weight": 0.3,
         "refill": "after"},
        {"window": None, "entropy_threshold": None, "distance_weight": None,
         "refill": lambda one: one.refills_before},
        {"refill": False},
    ),
    (BlockDiffusionSequence, BLOCKWISE, BLOCK, FOUND_IN_BLOCK),
    (EfficientBlockDiffusion, BLOCKWISE, BLOCK, FOUND_IN_BLOCK),
    (NextBlockSequence, BLOCKWISE, BLOCK, FOUND_IN_BLOCK),
    (
        MaskedDiffusionSequence,
        {"n_steps": 4, "order": "entropy", "threshold": 0.6},
        REVEAL,
        {"n_steps": [3] * 4},
    ),
    (
        DelayedCacheDiffusion,
        {"n_steps": 4, "order": "entropy", "threshold": 0.6, "refresh": 3,
         "window": 2, "variant": "prefill_decode", "n_layers": 1},
        {**REVEAL, "refresh": None, "window": None,
         "variant": lambda one: one.is_frozen, "n_layers": lambda one: one.is_exact},
        {"n_steps": [3] * 4, "variant": True, "n_layers": True},
    ),
    (
        ConditionalDiffusionSequence,
        {"n_steps": 4, "order": "margin", "threshold": 0.6, "alpha": 0.1,
         "prefix_cache": False},
        {**REVEAL, "alpha": amounts, "prefix_cache": lambda one: one.rule},
        {"n_steps": [9, 1, 1, 1], "alpha": [9, 1, 1, 1], "prefix_cache": full},
    ),
    (
        ConditionalDiffusionSequence,
        {"plan": "linear", "n_steps": 3, "template": "AB??????????"},
        {"plan": lambda one: amounts(one, 10), "n_steps": lambda one: amounts(one, 10),
         "template": lambda one: amounts(one, 10)},
        {"plan": [3, 4, 3], "n_steps": [3, 4, 3], "template": [3, 4, 3]},
    ),
    (
        EnergyDiffusionSequence,
        {"n_steps": 4, "n_candidates": 7, "window": 0.3, "energy_temperature": 2.5},
        {"n_steps": amounts, "n_candidates": None, "window": None,
         "energy_temperature": lambda one: one.temperature},
        {"n_steps": [3] * 4},
    ),
]  # fmt: skip


@pytest.mark.parametrize(("cls", "params", "places", "values"), TABLE)
def test_parameters_reach_the_decoder(cls, params, places, values):
    def found(**changes):
        decoder = made(cls, {**params, **changes})._decoder(Drawing(temperature=0.5))
        assert decoder.drawing.temperature == 0.5
        return {
            name: getattr(decoder, name) if where is None else where(decoder)
            for name, where in places.items()
        }

    wanted = {**params, **values}
    assert found() == wanted
    # Were one of them ignored, its default would be seen.
    for name in params:
        assert found(**{name: getattr(cls(), name)})[name] != wanted[name]


@pytest.mark.parametrize("alpha", [0.1, 0.5, 2.0])
def test_the_plan_is_that_of_alpha(alpha):
    decoder = made(ConditionalDiffusionSequence, {"alpha": alpha, "n_steps": 5})
    found = amounts(decoder._decoder(Drawing()))
    assert found == transfer_plan(LENGTH, 5, alpha=alpha).tolist()
    assert found != transfer_plan(LENGTH, 5).tolist()
    rule = made(ConditionalDiffusionSequence, {})._decoder(Drawing()).rule
    assert rule is prefix_bidirectional


# --- Counts of work of samples, by hand (T26) -----------------------------------------


def work_of(cls, **params):
    model = made(cls, params)
    model.sample(2, random_state=0)
    work = model.last_work
    return int(work.n_passes[1]), int(work.n_rows[1])


def test_work_of_streams():
    """WeDLM: the begin; masks of a window; each known token is computed once more."""
    # Nothing is ever sure: one token in a pass, the first one as it is the nearest.
    few = {"window": 3, "entropy_threshold": 0.0, "distance_weight": 100.0}
    rows = [3] + [1 + min(3, LENGTH - i) for i in range(1, LENGTH)]
    before = work_of(ReorderedCausalDiffusion, **few)
    assert before == (1 + LENGTH, 1 + sum(rows))
    # Refilled behind what is stored: the token in the window takes a place.
    after = work_of(ReorderedCausalDiffusion, **few, refill="after")
    assert after[1] < before[1]
    # Everything is sure: four windows of three, of which the last is not stored.
    many = {**few, "entropy_threshold": 1e6}
    sure = work_of(ReorderedCausalDiffusion, **many)
    assert sure == (1 + 4, 1 + 3 + 3 * (3 + 3))
    # Only what is next to the first gap is.
    near = {**few, "entropy_threshold": 150.0}
    assert work_of(ReorderedCausalDiffusion, **near)[0] == 1 + LENGTH // 2


def test_work_of_next_blocks():
    """The begin draws a token; blocks of four: the other three, then it is stored."""
    one = work_of(NextBlockSequence, threshold=None)
    assert one == (1 + 2 * (3 + 1) + 3, 1 + 4 * (2 * 4 + 3))
    two = work_of(NextBlockSequence, threshold=None, n_steps=2)
    assert two == (1 + 2 * (2 + 1) + 2, 1 + 4 * (2 * 3 + 2))
    sure = work_of(NextBlockSequence, threshold=0.0)
    assert sure == (1 + 2 * (1 + 1) + 1, 1 + 4 * (2 * 2 + 1))


def test_work_of_plans():
    """The begin once, and all tokens in as many passes as the plan has levels."""
    params = {"n_steps": 4, "alpha": 0.1}
    cached = work_of(ConditionalDiffusionSequence, **params)
    assert cached == (1 + 4, 1 + 4 * LENGTH)
    anew = work_of(ConditionalDiffusionSequence, **params, prefix_cache=False)
    assert anew == (4, 4 * (1 + LENGTH))


@pytest.mark.parametrize(("window", "n_compared"), [(0.0, 1), (0.5, 7), (1.0, 12)])
def test_work_of_energies(window, n_compared):
    """Candidates are compared while a share 1 - w is hidden: 12, 11, ... of 12."""
    params = {"energy": "autoregressive", "n_candidates": 3, "window": window}
    model = made(EnergyDiffusionSequence, params)
    model.proposal_ = made(MaskedDiffusionSequence, {})
    model.sample(2, random_state=0)
    rows = LENGTH * (1 + LENGTH) + n_compared * 3 * LENGTH
    assert model.last_work.n_passes.tolist() == [LENGTH + n_compared] * 2
    assert model.last_work.n_rows.tolist() == [rows] * 2


@pytest.mark.parametrize(("keep", "window"), [(1, 2), (1, None), (3, 4), (3, None)])
def test_work_of_prompts(keep, window):
    """SAP: the begin, what is there, and a span of masks."""
    host = made(MaskedDiffusionSequence, {})
    model = SequentialPromptSampler.around(host, keep=keep, window=window)
    model.sample(2, random_state=0)
    at = range(0, LENGTH, keep)
    rows = [1 + min(LENGTH, i + (window or LENGTH)) for i in at]
    assert model.last_work.n_passes.tolist() == [len(at)] * 2
    assert model.last_work.n_rows.tolist() == [sum(rows)] * 2


# --- Backbones ------------------------------------------------------------------------


@pytest.mark.parametrize("plan", ["axial_vertical", ["fixed", "logsparse"]])
def test_spans_and_plans_reach_the_backbone(plan, monkeypatch):
    """Combiner: what attention is told in a pass."""
    seen = []

    def spy(*args, **kwargs):
        seen.append(kwargs)
        return combiner_attention(*args, **kwargs)

    module = "sciseq.generation.parts.combiner_backbone.combiner_attention"
    monkeypatch.setattr(module, spy)
    names = [plan] if isinstance(plan, str) else plan
    for span, wanted in ((5, 5), (None, 4)):  # the root of 12 tokens and the begin
        model = made(CombinerSequence, {"plan": plan, "span": span})
        model.network_ = model._make_network().double().eval()
        for one in model.network_.parameters():
            torch.nn.init.ones_(one)
        seen.clear()
        model.score_samples(["ABCDABCDABCD"])
        assert len(seen) == 2  # layers
        for one in seen:
            assert one["span"] == wanted and list(one["plan"]) == names
    default = made(CombinerSequence, {})._make_network().backbone
    assert list(default.plan) == ["fixed"]


def test_layers_reach_the_axial_backbone():
    model = ready(AxialAutoregressor, 3, 12, n_layers=3, n_inner_layers=2)
    model.alphabet_ = ArrayAlphabet(**vars(model.alphabet_), shape=(3, 4))
    cells = model._make_network().backbone.cells
    sizes = [len(cells.outer.row_layers), len(cells.outer.column_layers)]
    assert sizes == [3, 3] and len(cells.inner.layers) == 2
