"""Values to tagged JSON and back, over a fixed list of exact types.

Plain JSON stands for itself; everything else is an object with the key ``"$"`` that
names its kind. Arrays go into the safetensors member of the state and leave a
reference. A type that is not listed is refused when saving, and a tag that is not
listed is refused when loading: nothing is ever looked up by a name from the file.
Kinds of NumPy and pandas live in modules of their own.
"""

import dataclasses
import importlib
import math
import pathlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from sciseq.errors import CapabilityError, CheckpointError, SciSeqError
from sciseq.persistence.nodes import TAG, refuse_type, take
from sciseq.persistence.tensors import DAMAGE_HINT, TENSOR_DTYPES, TensorTable

__all__ = ["SAVABLE_TYPES", "Decoder", "Encoder"]

# Deeper nesting than any state has reason for, well inside Python's recursion limit.
MAX_DEPTH = 64

# Dataclasses that may stand in a saved state, by a short name that never changes.
SAVABLE_TYPES: dict[str, str] = {
    "array-layout": "sciseq.data.containers:ArrayLayout",
    "column-scaler": "sciseq.data.scaling:ColumnScaler",
    "frame-layout": "sciseq.data.pandas_tables:FrameLayout",
    "many-layout": "sciseq.data.containers:ManyLayout",
    "panel": "sciseq.data.panel:Panel",
    "series-scaler": "sciseq.data.scaling:SeriesScaler",
    "step": "sciseq.data.timeline:Step",
    "two-level-layout": "sciseq.data.pandas_tables:TwoLevelLayout",
    "windows-layout": "sciseq.data.containers:WindowsLayout",
    "xarray-layout": "sciseq.data.xarray_tables:XarrayLayout",
}

# Packages whose types have a codec module of their own, imported when such a type
# comes: a model without pandas never imports pandas.
_MODULES = {
    "numpy": "sciseq.persistence.numpy_codec",
    "pandas": "sciseq.persistence.pandas_codec",
    "sklearn": "sciseq.persistence.sklearn_codec",
    "torch": "sciseq.persistence.torch_codec",
}

ObjectEncoder = Callable[["Encoder", Any, str], Any]
ObjectDecoder = Callable[["Decoder", dict[str, Any], str], Any]

_PLAIN_INT = 2**63


class _Nesting:
    """Counts how deep the values are nested, against cycles and crafted files."""

    def __init__(self) -> None:
        self._depth = 0

    @contextmanager
    def level(self, error: type[SciSeqError], path: str) -> Iterator[None]:
        if self._depth >= MAX_DEPTH:
            raise error(
                f"values are nested deeper than {MAX_DEPTH} levels, or hold themselves",
                where=path,
                hint="Flatten the value.",
            )
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1


class Encoder:
    """Turns values into tagged JSON, gathering arrays and network weights.

    Parameters
    ----------
    encode_object : callable, optional
        Encodes what the codec itself does not know (estimators); None refuses it.

    Examples
    --------
    >>> encoder = Encoder()
    >>> encoder.encode({"lags": (1, 12), "mean": np.zeros(2)}, "attributes")
    {'lags': {'$': 'tuple', 'items': [1, 12]},
     'mean': {'$': 'numpy.array', 'ref': 'attributes.mean', 'dtype': 'float64',
              'order': 'C'}}
    """

    def __init__(self, encode_object: ObjectEncoder | None = None) -> None:
        self.state = TensorTable()
        self.weights = TensorTable()
        self.packages = {"numpy"}
        self._encode_object = encode_object
        self._nesting = _Nesting()

    def encode(self, value: Any, path: str) -> Any:
        """Return the JSON form of ``value``.

        Parameters
        ----------
        value : object
            What to store.
        path : str
            Where it stands, for messages and names of arrays.

        Raises
        ------
        CapabilityError
            For types that are not on the list, naming path and type.
        """
        with self._nesting.level(CapabilityError, path):
            return self._encode(value, path)

    def _encode(self, value: Any, path: str) -> Any:
        kind = type(value)
        encode = _ENCODERS.get(kind)
        if encode is not None:
            return encode(self, value, path)
        package = kind.__module__.partition(".")[0]
        if package in _MODULES:
            self.packages.add(package)
            return importlib.import_module(_MODULES[package]).encode(self, value, path)
        target = f"{kind.__module__}:{kind.__qualname__}"
        if target in SAVABLE_TYPES.values():
            return _encode_dataclass(self, value, path, target)
        return self.encode_object(value, path)

    def encode_object(self, value: Any, path: str) -> Any:
        """Encode what the codec itself does not know (estimators), or refuse it."""
        if self._encode_object is None:
            refuse_type(value, path)
        return self._encode_object(self, value, path)

    def add_weight(self, name: str, array: Any, path: str) -> str:
        """Keep one network weight; return its name in the weights member."""
        if type(array) is not np.ndarray or array.dtype.name not in TENSOR_DTYPES:
            refuse_type(array, path)
        return self.weights.add(name, array)


class Decoder:
    """Turns tagged JSON back into values.

    Parameters
    ----------
    state, weights : dict of str to ndarray
        Content of the two members. Each array may be used once.
    decode_object : callable, optional
        Decodes the tag ``"estimator"``.
    """

    def __init__(
        self,
        state: dict[str, npt.NDArray[Any]],
        weights: dict[str, npt.NDArray[Any]] | None = None,
        decode_object: ObjectDecoder | None = None,
    ) -> None:
        self._state = state
        self._weights = weights or {}
        self._used: set[tuple[str, str]] = set()
        self._decode_object = decode_object
        self._nesting = _Nesting()

    def decode(self, node: Any, path: str) -> Any:
        """Return the value that ``node`` stands for.

        Raises
        ------
        CheckpointError
            For unknown tags, wrong fields, and values that cannot be built.
        """
        with self._nesting.level(CheckpointError, path):
            if type(node) is list:
                return self.decode_items(node, path)
            if type(node) is not dict:
                return node
            if TAG not in node:
                return {
                    key: self.decode(item, f"{path}.{key}")
                    for key, item in node.items()
                }
            return self._decode_tagged(node, path)

    def decode_items(self, items: list[Any], path: str) -> list[Any]:
        """Decode the items of a list."""
        return [self.decode(item, f"{path}[{i}]") for i, item in enumerate(items)]

    def _decode_tagged(self, node: dict[str, Any], path: str) -> Any:
        tag = node[TAG]
        decode = _DECODERS.get(tag) if isinstance(tag, str) else None
        if decode is None and tag == "estimator":
            decode = self._decode_object
        package = tag.partition(".")[0] if isinstance(tag, str) else ""
        if decode is None and package in _MODULES:
            decode = importlib.import_module(_MODULES[package]).DECODERS.get(tag)
        if decode is None:
            raise CheckpointError(f"unknown kind of value {tag!r}", where=path)
        try:
            return decode(self, node, path)
        except SciSeqError:
            raise
        except (
            ArithmeticError,
            LookupError,
            NotImplementedError,
            TypeError,
            ValueError,
        ) as error:
            raise CheckpointError(
                f"a value of kind {tag!r} cannot be rebuilt: {error}",
                where=path,
                hint=DAMAGE_HINT,
            ) from error

    def take_array(self, name: str, path: str) -> npt.NDArray[Any]:
        """Take an array out of the state member."""
        return self._take("state", self._state, name, path)

    def take_weight(self, name: str, path: str) -> npt.NDArray[Any]:
        """Take a network weight out of the weights member."""
        return self._take("weights", self._weights, name, path)

    def unused(self) -> list[str]:
        """Names of the arrays that nothing has asked for."""
        every = [("state", name) for name in self._state]
        every += [("weights", name) for name in self._weights]
        return [name for kind, name in every if (kind, name) not in self._used]

    def _take(
        self, kind: str, table: dict[str, npt.NDArray[Any]], name: str, path: str
    ) -> npt.NDArray[Any]:
        if name not in table or (kind, name) in self._used:
            raise CheckpointError(
                f"array {name!r} is missing in the {kind} member, or used twice",
                where=path,
                hint=DAMAGE_HINT,
            )
        self._used.add((kind, name))
        return table[name]


# Encoders: (encoder, value, path) -> JSON.


def _encode_plain(encoder: Encoder, value: Any, path: str) -> Any:
    return value


def _encode_int(encoder: Encoder, value: int, path: str) -> Any:
    if abs(value) < _PLAIN_INT:
        return value
    # Decimal text of very long integers is limited by Python; hexadecimal is not.
    return {TAG: "int", "hex": hex(value)}


def _encode_float(encoder: Encoder, value: float, path: str) -> Any:
    return value if math.isfinite(value) else {TAG: "float", "value": repr(value)}


def _encode_list(encoder: Encoder, value: list[Any], path: str) -> Any:
    return [encoder.encode(item, f"{path}[{i}]") for i, item in enumerate(value)]


def _encode_tuple(encoder: Encoder, value: tuple[Any, ...], path: str) -> Any:
    return {TAG: "tuple", "items": _encode_list(encoder, list(value), path)}


def _encode_dict(encoder: Encoder, value: dict[Any, Any], path: str) -> Any:
    if TAG not in value and all(type(key) is str for key in value):
        return {
            key: encoder.encode(item, f"{path}.{key}") for key, item in value.items()
        }
    items = [
        [encoder.encode(key, f"{path}.keys"), encoder.encode(item, f"{path}[{key!r}]")]
        for key, item in value.items()
    ]
    return {TAG: "dict", "items": items}


def _encode_path(encoder: Encoder, value: pathlib.Path, path: str) -> Any:
    return {TAG: "path", "value": str(value)}


def _encode_dataclass(encoder: Encoder, value: Any, path: str, target: str) -> Any:
    name = next(key for key, known in SAVABLE_TYPES.items() if known == target)
    fields = {
        field.name: encoder.encode(getattr(value, field.name), f"{path}.{field.name}")
        for field in dataclasses.fields(value)
    }
    return {TAG: "dataclass", "name": name, "fields": fields}


_ENCODERS: dict[type, Callable[[Encoder, Any, str], Any]] = {
    type(None): _encode_plain,
    bool: _encode_plain,
    str: _encode_plain,
    int: _encode_int,
    float: _encode_float,
    list: _encode_list,
    tuple: _encode_tuple,
    dict: _encode_dict,
    pathlib.PosixPath: _encode_path,
    pathlib.WindowsPath: _encode_path,
}


# Decoders: (decoder, tagged object, path) -> value.


def _decode_int(decoder: Decoder, node: dict[str, Any], path: str) -> int:
    (text,) = take(node, path, hex=str)
    return int(text, 16)


def _decode_float(decoder: Decoder, node: dict[str, Any], path: str) -> float:
    (text,) = take(node, path, value=str)
    if text not in ("nan", "inf", "-inf"):
        raise ValueError(f"{text!r} is not nan, inf or -inf")
    return float(text)


def _decode_tuple(decoder: Decoder, node: dict[str, Any], path: str) -> Any:
    (items,) = take(node, path, items=list)
    return tuple(decoder.decode_items(items, path))


def _decode_dict(decoder: Decoder, node: dict[str, Any], path: str) -> Any:
    (items,) = take(node, path, items=list)
    return dict(decoder.decode_items(items, path))


def _decode_path(decoder: Decoder, node: dict[str, Any], path: str) -> pathlib.Path:
    (text,) = take(node, path, value=str)
    return pathlib.Path(text)


def _decode_dataclass(decoder: Decoder, node: dict[str, Any], path: str) -> Any:
    name, fields = take(node, path, name=str, fields=dict)
    if name not in SAVABLE_TYPES:
        raise CheckpointError(f"unknown dataclass {name!r}", where=path)
    module_name, _, class_name = SAVABLE_TYPES[name].partition(":")
    cls = getattr(importlib.import_module(module_name), class_name)
    known = {field.name: field.init for field in dataclasses.fields(cls)}
    # Files of older versions lack the fields that came later, all with a default.
    needed = {
        field.name
        for field in dataclasses.fields(cls)
        if field.default is dataclasses.MISSING
    }
    if not needed <= set(fields) <= set(known):
        raise CheckpointError(
            f"{class_name} has the fields {sorted(known)}, the file gives "
            f"{sorted(fields)}",
            where=path,
        )
    values = {
        key: decoder.decode(item, f"{path}.{key}") for key, item in fields.items()
    }
    built = cls(**{key: value for key, value in values.items() if known[key]})
    for key in (key for key in values if not known[key]):
        object.__setattr__(built, key, values[key])
    return built


_DECODERS: dict[str, ObjectDecoder] = {
    "int": _decode_int,
    "float": _decode_float,
    "tuple": _decode_tuple,
    "dict": _decode_dict,
    "path": _decode_path,
    "dataclass": _decode_dataclass,
}
