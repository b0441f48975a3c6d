"""Estimators of scikit-learn in saved models: the list, and nothing beside it."""

import importlib

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.linear_model import Ridge
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeRegressor

from sciseq.errors import CapabilityError, CheckpointError
from sciseq.persistence.codec import Decoder, Encoder
from sciseq.persistence.sklearn_codec import SAVABLE_ESTIMATORS

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 4))
Y = X @ RNG.normal(size=(4, 2)) + RNG.normal(size=(60, 2)) / 5


def round_trip(value):
    encoder = Encoder()
    node = encoder.encode(value, "regressor")
    arrays = encoder.state.arrays
    return Decoder(dict(arrays)).decode(node, "regressor")


def build(name):
    if name == "Pipeline":
        return make_pipeline(StandardScaler(), Ridge(alpha=0.5))
    cls = getattr(importlib.import_module(SAVABLE_ESTIMATORS[name]), name)
    return cls()


@pytest.mark.parametrize("name", SAVABLE_ESTIMATORS)
def test_what_is_listed_computes_the_same_bits(name):
    y = Y if name.startswith("MultiTask") else Y[:, 0]
    fitted = build(name).fit(X, y)
    loaded = round_trip(fitted)
    assert type(loaded) is type(fitted) and repr(loaded) == repr(fitted)
    method = "predict" if hasattr(fitted, "predict") else "transform"
    new = RNG.normal(size=(20, 4))
    expected = getattr(fitted, method)(new)
    np.testing.assert_array_equal(getattr(loaded, method)(new), expected)
    # A clone of what was loaded learns as one of the original does.
    again = getattr(clone(loaded).fit(X, y), method)(new)
    np.testing.assert_array_equal(again, expected)


def test_several_outputs_and_unfitted_estimators():
    loaded = round_trip([Ridge(alpha=3.0), Ridge().fit(X, Y)])
    assert loaded[0].alpha == 3.0 and not hasattr(loaded[0], "coef_")
    np.testing.assert_array_equal(loaded[1].predict(X), Ridge().fit(X, Y).predict(X))


class MyRidge(Ridge):
    """A class of the same kind under another name."""


@pytest.mark.parametrize(
    "value",
    [
        DecisionTreeRegressor(),
        make_pipeline(StandardScaler(), DecisionTreeRegressor()),
        MyRidge(),
        type("Ridge", (Ridge,), {})(),
        Pipeline([("ridge", Ridge())], memory="cache"),
    ],
    ids=["tree", "tree-in-pipeline", "subclass", "namesake", "cache"],
)
def test_others_are_refused_with_their_path(value):
    with pytest.raises(CapabilityError) as caught:
        Encoder().encode(value, "regressor")
    assert caught.value.where.startswith("regressor")


def node(**fields):
    return {
        "$": "sklearn.estimator",
        "name": "Ridge",
        "parameters": {},
        "attributes": {},
        **fields,
    }


PIPELINE = {"$": "tuple", "items": ["ridge", node()]}


@pytest.mark.parametrize(
    "crafted",
    [
        node(name="DecisionTreeRegressor"),
        node(name="sklearn.linear_model:Ridge"),
        node(name="__init__"),
        node(parameters={"alpa": 1.0}),
        node(parameters=[]),
        node(attributes={"predict": 1.0}),
        node(attributes={"_validate_data_": 1.0}),
        node(attributes={"__class__": 1.0}),
        node(name="Pipeline", parameters={"steps": [PIPELINE], "memory": "cache"}),
        {"$": "sklearn.estimator", "name": "Ridge"},
        {"$": "sklearn.other", "name": "Ridge"},
    ],
)
def test_crafted_nodes_are_refused(crafted):
    with pytest.raises(CheckpointError):
        Decoder({}).decode(crafted, "regressor")


def test_the_crafted_nodes_are_near_a_good_one():
    assert Decoder({}).decode(node(parameters={"alpha": 2.0}), "x").alpha == 2.0
    good = node(name="Pipeline", parameters={"steps": [PIPELINE], "memory": None})
    assert type(Decoder({}).decode(good, "x")) is Pipeline
