"""Estimators of scikit-learn for the codec: linear regressors and what feeds them.

A fitted linear regressor is its coefficients: arrays and numbers. The classes are a
fixed list; what a file names is looked up there and nowhere else. Regressors made of
other objects (trees, kernels, neighbours) are not on the list: only pickle holds them.
"""

import importlib
from typing import Any

from sciseq.errors import CapabilityError, CheckpointError
from sciseq.persistence.codec import Decoder, Encoder
from sciseq.persistence.nodes import TAG, exact, refuse_cache, take

__all__ = ["DECODERS", "SAVABLE_ESTIMATORS", "encode"]

# Module of each class by its name; all that ``predict`` and ``transform`` of these
# read are parameters and fitted attributes, as a test shows for each.
SAVABLE_ESTIMATORS: dict[str, str] = {
    "BayesianRidge": "sklearn.linear_model",
    "ElasticNet": "sklearn.linear_model",
    "ElasticNetCV": "sklearn.linear_model",
    "HuberRegressor": "sklearn.linear_model",
    "Lars": "sklearn.linear_model",
    "Lasso": "sklearn.linear_model",
    "LassoCV": "sklearn.linear_model",
    "LassoLars": "sklearn.linear_model",
    "LinearRegression": "sklearn.linear_model",
    "MaxAbsScaler": "sklearn.preprocessing",
    "MinMaxScaler": "sklearn.preprocessing",
    "MultiTaskElasticNet": "sklearn.linear_model",
    "MultiTaskLasso": "sklearn.linear_model",
    "OrthogonalMatchingPursuit": "sklearn.linear_model",
    "Pipeline": "sklearn.pipeline",
    "QuantileRegressor": "sklearn.linear_model",
    "Ridge": "sklearn.linear_model",
    "RidgeCV": "sklearn.linear_model",
    "StandardScaler": "sklearn.preprocessing",
}


def encode(encoder: Encoder, value: Any, path: str) -> Any:
    """Encode an estimator of the list; anything else goes the way of estimators."""
    name = type(value).__name__
    if name not in SAVABLE_ESTIMATORS or type(value) is not _class_of(name):
        return encoder.encode_object(value, path)
    parameters = value.get_params(deep=False)
    refuse_cache(parameters, CapabilityError, path)
    attributes = {
        key: item
        for key, item in vars(value).items()
        if key not in parameters and _is_attribute(key)
    }
    return {
        TAG: "sklearn.estimator",
        "name": name,
        "parameters": encoder.encode(parameters, f"{path}.parameters"),
        "attributes": encoder.encode(attributes, f"{path}.attributes"),
    }


def _decode_estimator(decoder: Decoder, node: dict[str, Any], path: str) -> Any:
    name, parameters, attributes = take(
        node, path, name=str, parameters=dict, attributes=dict
    )
    if name not in SAVABLE_ESTIMATORS:
        raise CheckpointError(f"unknown estimator {name!r}", where=path)
    parameters = exact(decoder.decode(parameters, f"{path}.parameters"), dict, path)
    attributes = exact(decoder.decode(attributes, f"{path}.attributes"), dict, path)
    refuse_cache(parameters, CheckpointError, path)
    estimator = _class_of(name)(**parameters)
    for key, item in attributes.items():
        if not _is_attribute(key) or hasattr(type(estimator), key):
            raise CheckpointError(
                f"{key!r} is no fitted attribute of {name}", where=path
            )
        setattr(estimator, key, item)
    return estimator


def _class_of(name: str) -> Any:
    return getattr(importlib.import_module(SAVABLE_ESTIMATORS[name]), name)


def _is_attribute(name: Any) -> bool:
    """Tell whether a name is one that ``fit`` gives, by scikit-learn's convention."""
    return isinstance(name, str) and name.endswith("_") and not name.startswith("_")


DECODERS = {"sklearn.estimator": _decode_estimator}
