"""The model that a job describes, made from the texts and numbers of its file."""

import importlib
from collections.abc import Mapping
from typing import Any

from sciseq.errors import InputError, nearest_name
from sciseq.registry import METHODS, method_by_name

__all__ = ["build_model"]

_SKLEARN = "sklearn."
_KEYS = {"method", "name", "settings"}


def build_model(model: Mapping[str, Any]) -> Any:
    """Return the unfitted model that a section ``model`` describes.

    Parameters
    ----------
    model : mapping
        ``method`` and ``settings``. A setting that is itself such a table becomes an
        estimator, a list of them the members of an ensemble, by ``name`` or by that of
        their method. Classes of scikit-learn are named in full, as in
        ``"sklearn.linear_model.Ridge"``.

    Raises
    ------
    InputError
        For a setting that the method does not have, or does not allow.

    Examples
    --------
    >>> line = {"method": "sklearn.linear_model.Ridge", "settings": {"alpha": 2.0}}
    >>> build_model({"method": "window", "settings": {"regressor": line}}).regressor
    Ridge(alpha=2.0, random_state=0)
    """
    return _built(model, "model")


def _built(described: Mapping[str, Any], where: str) -> Any:
    name = described["method"]
    made = _class_of(name, where)()
    known = made.get_params()
    settings = dict(described.get("settings", {}))
    for key, value in settings.items():
        if key not in known:
            raise InputError(
                f"{name} has no parameter {key!r}, it has {', '.join(known)}",
                where=f"{where}.settings",
                hint=nearest_name(key, known) or None,
            )
        settings[key] = _value(value, f"{where}.settings.{key}")
    if "random_state" in known and settings.get("random_state") is None:
        settings["random_state"] = 0  # a job gives the same bytes each time
    made.set_params(**settings)
    if hasattr(made, "_check_parameters"):
        made._check_parameters()
    return made


def _value(value: Any, where: str) -> Any:
    """Make estimators of the tables that describe one."""
    if _is_estimator(value):
        return _built(value, where)
    if isinstance(value, list) and value and all(map(_is_estimator, value)):
        members = [
            (one.get("name", one["method"]), _built(one, f"{where}[{place}]"))
            for place, one in enumerate(value)
        ]
        names = [one for one, _ in members]
        if len(set(names)) < len(names):
            raise InputError(
                f"the members are called {', '.join(names)}",
                where=where,
                hint='Tell them apart: {name = "short", method = "linear"}.',
            )
        return members
    return value


def _is_estimator(value: Any) -> bool:
    return isinstance(value, dict) and "method" in value and set(value) <= _KEYS


def _class_of(name: str, where: str) -> Any:
    method = method_by_name(name)
    if method is not None:
        return getattr(importlib.import_module(method.module_name), method.class_name)
    module, _, class_name = name.rpartition(".")
    if module.startswith(_SKLEARN):
        from sklearn.base import BaseEstimator

        try:
            found = getattr(importlib.import_module(module), class_name, None)
        except ImportError:
            found = None
        if isinstance(found, type) and issubclass(found, BaseEstimator):
            return found
    names = [one.name for one in METHODS]
    raise InputError(
        f"{name!r} is no method, and no class of scikit-learn",
        where=f"{where}.method",
        hint=nearest_name(name, names)
        or 'Write a name that `sciseq methods` lists, or "sklearn.linear_model.Ridge".',
    )
