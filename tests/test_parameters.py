"""Rules for constructor parameters."""

import inspect
import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from sciseq import LinearForecaster, NaiveForecaster, SMambaForecaster
from sciseq.errors import InputError
from sciseq.parameters import (
    PATH,
    AnyOf,
    Boolean,
    Instance,
    Integer,
    Nothing,
    Option,
    Real,
    check_parameters,
)

FORECASTERS = [LinearForecaster, NaiveForecaster, SMambaForecaster]


@pytest.mark.parametrize(
    ("rule", "allowed", "refused"),
    [
        (
            Integer(1),
            [1, 5, 10**30, np.int8(3), np.uint64(2**63)],
            [0, -1, 1.0, True, np.True_, "1", None, np.float64(2), math.nan],
        ),
        (Integer(0), [0, np.int64(0)], [-1, np.int64(-1), False]),
        (
            Real(0.0, 1.0, open_high=True),
            [0, 0.0, 0.999, np.float32(0.5), Fraction(1, 3)],
            [1, 1.0, -1e-300, math.nan, math.inf, True, "0.5", None, 0.5j],
        ),
        (Real(0.0, open_low=True), [1e-300, 10**300], [0, -0.0, math.inf, 10**400]),
        (Real(-1.0, 1.0), [-1, 1], [-1.0001, 1.0001, math.nan]),
        (Boolean(), [True, False, np.True_], [0, 1, None, "True"]),
        (Nothing(), [None], [0, False, "", math.nan]),
        (Option("mse", "mae"), ["mse", "mae"], ["MSE", "", None, ["mse"], b"mse"]),
        (Instance("a path", str, Path), ["x", Path("x")], [1, None, b"x"]),
        (PATH, [None, "folder", Path("folder")], [1, b"x", ["x"]]),
        (AnyOf(Option("auto"), Real(0.0)), ["auto", 0, 2.5], ["aut", -1, None]),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, list) else None,
)
def test_what_a_rule_allows(rule, allowed, refused):
    assert [one for one in allowed if not rule.allows(one)] == []
    assert [one for one in refused if rule.allows(one)] == []


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (Integer(2), "an integer of at least 2"),
        (Real(0.0, 1.0, open_high=True), "a number in [0, 1)"),
        (Real(0.0, 1.0, open_low=True), "a number in (0, 1]"),
        (Real(0.5), "a number of at least 0.5"),
        (Real(0.0, open_low=True), "a number above 0"),
        (Option("a", "b"), "one of 'a', 'b'"),
        (AnyOf(Nothing(), Option("auto")), "None or 'auto'"),
    ],
)
def test_what_a_rule_says(rule, words):
    assert rule.describe() == words


def test_all_violations_are_told_at_once():
    rules = {"loss": Option("mse", "mae"), "d": Integer(1), "rate": Real(0.0, 1.0)}
    with pytest.raises(InputError) as caught:
        check_parameters({"d": 0, "loss": "msee", "rate": 0.5}, rules, owner="Model")
    assert caught.value.message == (
        "d=0 is not allowed: must be an integer of at least 1; loss='msee' is not "
        "allowed: must be one of 'mse', 'mae'. Did you mean 'mse'?"
    )
    assert caught.value.where == "parameters of Model"


def test_relations_are_asked_only_about_valid_parameters():
    asked = []

    def relations():
        asked.append(True)
        return ["a must not exceed b"]

    rules = {"a": Integer(1)}
    with pytest.raises(InputError, match="a=0"):
        check_parameters({"a": 0}, rules, owner="Model", relations=relations)
    assert asked == []
    with pytest.raises(InputError, match="must not exceed"):
        check_parameters({"a": 3}, rules, owner="Model", relations=relations)
    check_parameters({"a": 3, "free": object()}, rules, owner="Model")


# The estimators


@pytest.mark.parametrize("kind", FORECASTERS)
def test_every_parameter_has_a_rule_that_its_default_keeps(kind):
    defaults = {
        name: one.default for name, one in inspect.signature(kind).parameters.items()
    }
    assert defaults.keys() == kind._parameter_rules.keys()
    for name, rule in kind._parameter_rules.items():
        assert rule.allows(defaults[name]), name
        assert not rule.allows(object()), name


@pytest.mark.parametrize("kind", FORECASTERS)
def test_the_constructor_stores_what_it_is_given_and_looks_at_nothing(kind):
    values = {name: object() for name in inspect.signature(kind).parameters}
    model = kind(**values)
    assert vars(model) == values
    with pytest.raises(TypeError):
        kind(1)  # keyword only
    with pytest.raises(InputError) as caught:
        model.fit(np.ones((50, 2)))
    for name in values:
        assert f"{name}=<object object" in caught.value.message


def test_parameters_are_checked_in_fit_before_the_data():
    for model in (
        SMambaForecaster(learning_rate=0.0),
        LinearForecaster(alpha=-1.0),
        LinearForecaster(kind="dlinear", kernel_size=4),
        NaiveForecaster(strategy="seasonal", season_length=5, lookback=4),
    ):
        with pytest.raises(InputError) as caught:
            model.fit("no table at all")
        assert caught.value.where == f"parameters of {type(model).__name__}"


def test_devices_are_names_or_objects():
    rule = SMambaForecaster._parameter_rules["device"]
    assert rule.allows("cuda:1")
    assert rule.allows(torch.device("cpu"))
    assert not rule.allows(0)
