"""NumPy arrays and scalars for the codec: numbers, dates, durations and text.

Arrays keep shape, dtype and memory order; the byte order becomes the machine's own.
"""

import math
import re
from typing import Any

import numpy as np
import numpy.typing as npt

from sciseq.errors import CheckpointError
from sciseq.persistence.codec import Decoder, Encoder
from sciseq.persistence.nodes import TAG, exact, refuse_type, take
from sciseq.persistence.tensors import DAMAGE_HINT, TENSOR_DTYPES

__all__ = ["DECODERS", "encode"]

_OBJECTS = (type(None), bool, int, float, str)
_TIME_DTYPE = re.compile(
    r"(datetime64|timedelta64)(\[\d{0,9}(Y|M|W|D|h|m|s|ms|us|ns|ps|fs|as)\])?"
)


def encode(encoder: Encoder, value: Any, path: str) -> Any:
    """Encode an array or a NumPy scalar; anything else of NumPy is refused."""
    if type(value) is np.ndarray:
        return _encode_array(encoder, value, path)
    if isinstance(value, np.generic):
        return _encode_scalar(encoder, value, path)
    refuse_type(value, path)


def _encode_scalar(encoder: Encoder, value: np.generic, path: str) -> Any:
    dtype = value.dtype
    content: Any = None
    if dtype.kind in "mM":
        content = int(value.view(np.int64))
    elif dtype.name in TENSOR_DTYPES or type(value) is np.str_:
        content = encoder.encode(value.item(), path)
    else:
        refuse_type(value, path)
    name = "str" if dtype.kind == "U" else dtype.name
    return {TAG: "numpy.scalar", "dtype": name, "value": content}


def _encode_array(encoder: Encoder, value: npt.NDArray[Any], path: str) -> Any:
    if value.dtype.kind == "O":
        return _encode_objects(encoder, value, path)
    array = value.astype(value.dtype.newbyteorder("="), copy=False)
    name = array.dtype.name
    if array.dtype.kind in "mM":
        array = array.view(np.int64)
    elif array.dtype.kind == "U":
        name, array = "str", _code_points(array)
    elif name not in TENSOR_DTYPES:
        refuse_type(value, path)
    # The memory order is kept: matrix products may differ in the last bit by it.
    is_fortran = array.flags.f_contiguous and not array.flags.c_contiguous
    reference = encoder.state.add(path, array.T if is_fortran else array)
    order = "F" if is_fortran else "C"
    return {TAG: "numpy.array", "ref": reference, "dtype": name, "order": order}


def _code_points(array: npt.NDArray[np.str_]) -> npt.NDArray[np.uint32]:
    # One more axis: the characters. The file then is as large as the array, and a
    # crafted file cannot ask for more memory than it brings.
    width = max(array.dtype.itemsize // 4, 1)
    padded = np.asarray(array, dtype=np.dtype((np.str_, width)), order="C")
    return padded.reshape(-1).view(np.uint32).reshape(*array.shape, width)


def _encode_objects(encoder: Encoder, value: npt.NDArray[Any], path: str) -> Any:
    items = value.reshape(-1).tolist()
    for position, item in enumerate(items):
        if type(item) not in _OBJECTS:
            refuse_type(item, f"{path}.flat[{position}]")
    return {
        TAG: "numpy.objects",
        "shape": list(value.shape),
        "items": encoder.encode(items, path),
    }


def _decode_scalar(decoder: Decoder, node: dict[str, Any], path: str) -> Any:
    name, content = take(node, path, dtype=str, value=object)
    value = decoder.decode(content, path)
    if name == "str":
        return np.str_(exact(value, str, path))
    if _TIME_DTYPE.fullmatch(name):
        return np.int64(exact(value, int, path)).view(np.dtype(name))
    dtype = _tensor_dtype(name, path)
    kind = {"b": bool, "f": float}.get(dtype.kind, int)
    scalar = dtype.type(exact(value, kind, path))
    if kind is int and int(scalar) != value:
        raise ValueError(f"{value} does not fit into {name}")
    return scalar


def _decode_array(decoder: Decoder, node: dict[str, Any], path: str) -> Any:
    reference, name, order = take(node, path, ref=str, dtype=str, order=str)
    array = decoder.take_array(reference, path)
    if order not in ("C", "F"):
        raise CheckpointError(f"unknown memory order {order!r}", where=path)
    if order == "F":
        array = array.T
    if name == "str":
        return _from_code_points(array, path)
    is_time = _TIME_DTYPE.fullmatch(name) is not None
    stored = np.dtype(np.int64) if is_time else _tensor_dtype(name, path)
    if array.dtype != stored:
        raise CheckpointError(
            f"array {reference!r} has dtype {array.dtype}, the manifest says {name}",
            where=path,
            hint=DAMAGE_HINT,
        )
    return array.view(np.dtype(name)) if is_time else array


def _from_code_points(codes: npt.NDArray[Any], path: str) -> npt.NDArray[np.str_]:
    if codes.dtype != np.uint32 or codes.ndim == 0 or codes.shape[-1] == 0:
        raise CheckpointError("text is not stored as code points", where=path)
    if codes.size and codes.max() > 0x10FFFF:
        raise CheckpointError(f"{codes.max()} is no code point", where=path)
    kind = np.dtype((np.str_, codes.shape[-1]))
    flat = np.ascontiguousarray(codes).reshape(-1).view(kind)
    return np.asarray(flat.reshape(codes.shape[:-1]), dtype=kind)


def _decode_objects(decoder: Decoder, node: dict[str, Any], path: str) -> Any:
    shape, items = take(node, path, shape=list, items=list)
    values = decoder.decode_items(items, path)
    if any(type(size) is not int or size < 0 for size in shape):
        raise CheckpointError(f"shape {shape} is not a shape", where=path)
    if math.prod(shape) != len(values):
        raise CheckpointError(
            f"{len(values)} items do not fill the shape {shape}", where=path
        )
    array = np.empty(len(values), dtype=object)
    for position, value in enumerate(values):
        array[position] = value
    return array.reshape(shape)


def _tensor_dtype(name: str, path: str) -> np.dtype[Any]:
    if name not in TENSOR_DTYPES:
        raise CheckpointError(f"unknown dtype {name!r}", where=path)
    return np.dtype(name)


DECODERS = {
    "numpy.scalar": _decode_scalar,
    "numpy.array": _decode_array,
    "numpy.objects": _decode_objects,
}
