"""Named arrays as safetensors bytes, with a header check of our own.

Layout of the bytes: 8 bytes header length (little-endian), the header as JSON
``{name: {dtype, shape, data_offsets: [begin, end]}}``, then the data without gaps.
Several readers in the wild trusted the header and overflowed, so everything that it
claims is checked here before the safetensors library sees the bytes.
"""

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors import numpy as safetensors_numpy

from sciseq.errors import CheckpointError

__all__ = ["HEADER_LIMIT", "TENSOR_DTYPES", "TensorTable", "check_weights"]

# The cap of the safetensors format itself.
HEADER_LIMIT = 100_000_000

DAMAGE_HINT = "Copy the model again from where it was made, or load an earlier save."

_DTYPES = {
    "BOOL": np.dtype("bool"),
    **{f"I{bits}": np.dtype(f"int{bits}") for bits in (8, 16, 32, 64)},
    **{f"U{bits}": np.dtype(f"uint{bits}") for bits in (8, 16, 32, 64)},
    **{f"F{bits}": np.dtype(f"float{bits}") for bits in (16, 32, 64)},
}
TENSOR_DTYPES = frozenset(dtype.name for dtype in _DTYPES.values())

# The one key of the header that is no tensor. sciseq writes none.
_RESERVED = "__metadata__"


class TensorTable:
    """Arrays of one safetensors member under unique names.

    Examples
    --------
    >>> table = TensorTable()
    >>> table.add("mean", np.zeros(2)), table.add("mean", np.ones(1))
    ('mean', 'mean#2')
    >>> sorted(read_tensors(table.to_bytes(), "state"))
    ['mean', 'mean#2']
    """

    def __init__(self) -> None:
        self.arrays: dict[str, npt.NDArray[Any]] = {}

    def add(self, name: str, array: npt.NDArray[Any]) -> str:
        """Keep ``array`` under ``name``, or the next free name; return that name."""
        # The safetensors header is strict UTF-8; Python text need not be.
        base = name.encode("utf-8", "replace").decode("utf-8")
        unique, copy = base, 1
        while unique in self.arrays or unique == _RESERVED:
            copy += 1
            unique = f"{base}#{copy}"
        self.arrays[unique] = np.asarray(array, order="C")
        return unique

    def to_bytes(self) -> bytes:
        """Return the safetensors bytes; the same arrays give the same bytes."""
        return safetensors_numpy.save(self.arrays)


def read_tensors(data: bytes, where: str) -> dict[str, npt.NDArray[Any]]:
    """Check the header of safetensors bytes, then read the arrays.

    Parameters
    ----------
    data : bytes
        Content of a safetensors file.
    where : str
        Name of the file, for messages.

    Returns
    -------
    dict of str to ndarray
        Writable arrays by name.

    Raises
    ------
    CheckpointError
        When the header claims anything that the bytes do not hold.
    """
    _checked_header(data, where)
    try:
        return safetensors_numpy.load(data)
    except SafetensorError as error:
        raise _refuse(f"the library refuses it: {error}", where) from error


def read_shapes(data: bytes, where: str) -> dict[str, list[int]]:
    """Check the header of safetensors bytes, and return the shapes that it gives.

    Raises
    ------
    CheckpointError
        As :func:`read_tensors`.

    Examples
    --------
    >>> table = TensorTable()
    >>> table.add("mean", np.zeros((2, 3)))
    'mean'
    >>> read_shapes(table.to_bytes(), "state")
    {'mean': [2, 3]}
    """
    header = _checked_header(data, where)
    return {name: list(entry["shape"]) for name, entry in header.items()}


def _checked_header(data: bytes, where: str) -> dict[str, Any]:
    header, start = _read_header(data, where)
    n_bytes = len(data) - start
    spans = sorted(
        _check_entry(name, entry, n_bytes, where) for name, entry in header.items()
    )
    position = 0
    for begin, end, name in spans:
        if begin != position:
            kind = "overlaps the tensor before it" if begin < position else "has a gap"
            raise _refuse(f"tensor {name!r} {kind} at byte {begin}", where)
        position = end
    if position != n_bytes:
        raise _refuse(f"{n_bytes - position} data bytes belong to no tensor", where)
    return header


def _read_header(data: bytes, where: str) -> tuple[dict[str, Any], int]:
    if len(data) < 8:
        raise _refuse(f"{len(data)} bytes are too few for a header length", where)
    length = int.from_bytes(data[:8], "little")
    if length > HEADER_LIMIT:
        raise _refuse(
            f"the header claims {length} bytes, {HEADER_LIMIT} are allowed", where
        )
    if length > len(data) - 8:
        raise _refuse(
            f"the header claims {length} bytes, {len(data) - 8} are there", where
        )
    try:
        header = json.loads(
            data[8 : 8 + length].decode("utf-8"), object_pairs_hook=_unique_names
        )
    except (ValueError, RecursionError) as error:
        raise _refuse(f"the header is not valid JSON: {error}", where) from error
    if not isinstance(header, dict):
        raise _refuse("the header is not a table of tensors", where)
    return header, 8 + length


def _unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a name appears twice")
    return table


def _check_entry(
    name: str, entry: Any, n_bytes: int, where: str
) -> tuple[int, int, str]:
    fields = {"dtype", "shape", "data_offsets"}
    if name == _RESERVED or not isinstance(entry, dict) or set(entry) != fields:
        raise _refuse(f"tensor {name!r} has no dtype, shape and data_offsets", where)
    shape, offsets = entry["shape"], entry["data_offsets"]
    if not (_are_sizes(shape) and _are_sizes(offsets) and len(offsets) == 2):
        raise _refuse(
            f"tensor {name!r} has shape {shape!r} and offsets {offsets!r}", where
        )
    dtype = entry["dtype"]
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise _refuse(f"tensor {name!r} has the unknown dtype {dtype!r}", where)
    begin, end = offsets
    if not begin <= end <= n_bytes:
        raise _refuse(
            f"tensor {name!r} lies at bytes {begin} to {end} of {n_bytes}", where
        )
    # Python integers: the product cannot overflow. The second product bounds arrays
    # of size zero, whose other axes NumPy multiplies all the same.
    needed = math.prod(shape) * _DTYPES[dtype].itemsize
    spread = math.prod(size for size in shape if size) * _DTYPES[dtype].itemsize
    if needed != end - begin or spread >= 2**63 or len(shape) > 32:
        raise _refuse(
            f"tensor {name!r} of shape {shape} and dtype {dtype} needs {needed} bytes, "
            f"{end - begin} are given",
            where,
        )
    return begin, end, name


def _are_sizes(values: Any) -> bool:
    return isinstance(values, list) and all(
        type(value) is int and value >= 0 for value in values
    )


def _refuse(problem: str, where: str) -> CheckpointError:
    return CheckpointError(
        f"the safetensors data is not valid: {problem}", where=where, hint=DAMAGE_HINT
    )


def check_weights(expected: Mapping[str, tuple[int, ...]], given: Any) -> None:
    """Check that saved weights have the names and shapes that a network needs.

    Call it before the first tensor is copied, so that nothing is loaded in part.

    Parameters
    ----------
    expected : mapping of str to tuple of int
        Shape of every tensor of the network.
    given : mapping of str to array
        The saved tensors (NumPy or torch: anything with a ``shape``).

    Raises
    ------
    CheckpointError
        Listing the first ten tensors that are missing, unexpected or of another shape.

    Examples
    --------
    >>> check_weights({"bias": (2,)}, {"bias": np.zeros(2)})
    >>> check_weights({"bias": (2,)}, {"bias": np.zeros(3)})
    Traceback (most recent call last):
    sciseq.errors.CheckpointError: the saved weights do not fit the network in 1 place:
    bias has shape (3,), needs (2,). ...
    """
    problems = [f"{name} is missing" for name in expected if name not in given]
    problems += [f"{name} is unexpected" for name in given if name not in expected]
    for name, needed in expected.items():
        if name in given and tuple(given[name].shape) != tuple(needed):
            shape = tuple(given[name].shape)
            problems.append(f"{name} has shape {shape}, needs {tuple(needed)}")
    if problems:
        count = len(problems)
        listed = "; ".join(problems[:10]) + ("; ..." if count > 10 else "")
        raise CheckpointError(
            f"the saved weights do not fit the network in {count} "
            f"place{'' if count == 1 else 's'}: {listed}",
            hint="Nothing was loaded. The file was made with other settings or by "
            "another version of the method: load it with the version named in its "
            "manifest, or fit again.",
        )
