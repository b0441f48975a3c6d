"""Cards of the methods: each has its own, and what it says is so."""

from dataclasses import fields
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from sequence_toys import fitted

from sciseq.errors import CapabilityError
from sciseq.generation.base import SequenceGenerator
from sciseq.generation.method_card import MethodCard, method_card_of
from sciseq.generation.parts.drawing import Drawing
from sciseq.generation.sequences.autoregressive import AutoregressiveSequence
from sciseq.generation.sequences.axial import AxialAutoregressor
from sciseq.generation.sequences.combiner import CombinerSequence
from sciseq.generation.sequences.energy_diffusion import EnergyDiffusionSequence
from sciseq.generation.sequences.prefix_state_space import PrefixStateSpace
from sciseq.registry import METHODS, Method, method_by_name

DOCS = Path(__file__).parents[2] / "docs"
PICTURES = DOCS / "pictures/generators"
GENERATORS = [method for method in METHODS if method.data == "generation"]
# Made of other networks than the toy's, or of two.
OTHERS = (
    AxialAutoregressor,
    CombinerSequence,
    EnergyDiffusionSequence,
    PrefixStateSpace,
)
every_generator = pytest.mark.parametrize(
    "method", GENERATORS, ids=lambda method: method.name
)


def class_of(method):
    return getattr(import_module(method.module_name), method.class_name)


@every_generator
def test_every_generator_has_a_card_of_its_own(method):
    card = method_card_of(method)
    for one in fields(card):
        text = getattr(card, one.name)
        if one.name in ("cache", "score", "picture"):
            continue
        assert text and text.strip() == text and text.endswith("."), one.name
        assert "|" not in text  # it would end a cell of the table
    assert list(card.settings()) == [
        "order", "who reads whom", "hidden in training", "objective", "decoder",
        "cache", "score",
    ]  # fmt: skip


@every_generator
def test_every_picture_is_there_and_no_other(method):
    card = method_card_of(method)
    assert (PICTURES / f"{method.name}.png").exists() == (card.picture is not None)


def test_pictures_are_of_methods_and_their_parameters_exist():
    names = {method.name for method in GENERATORS}
    assert {one.stem for one in PICTURES.glob("*.png")} <= names
    for method in GENERATORS:
        known = class_of(method)().get_params(deep=False)
        assert set(method_card_of(method).picture or ()) <= set(known)


def test_the_page_says_where_the_cards_are_printed():
    page, hook = (
        (DOCS / name).read_text("utf-8") for name in ("generators.md", "conf.py")
    )
    for mark in ("<!-- table of generators -->", "<!-- generators -->"):
        assert page.count(mark) == 1
        assert mark in hook


def decoders():
    for method in GENERATORS:
        cls = class_of(method)
        if issubclass(cls, SequenceGenerator) and not issubclass(cls, OTHERS):
            yield pytest.param(method, fitted(cls), id=method.name)


@pytest.mark.parametrize(("method", "model"), [*decoders()])
def test_cache_and_score_are_what_the_card_says(method, model):
    card = method_card_of(method)
    is_exact = model._decoder(Drawing()).is_exact
    assert is_exact == (card.cache != "approximate")
    _, errors = model.score_samples(["ABCA", "CCBA"], return_std=True)
    assert (errors == 0).all() == (card.score == "exact")


def test_a_card_is_not_inherited(monkeypatch):
    module = import_module("sciseq.generation.sequences.autoregressive")

    class Child(AutoregressiveSequence):
        pass

    monkeypatch.setattr(module, "Child", Child, raising=False)
    line = vars(method_by_name("autoregressive")) | {
        "target": f"{module.__name__}:Child"
    }
    with pytest.raises(CapabilityError, match="no method_card"):
        method_card_of(Method(**line))
    assert isinstance(Child.method_card, MethodCard)
    assert "method_card" not in Child().get_params()
    assert np.all([one.name != "method_card" for one in fields(Child)])
