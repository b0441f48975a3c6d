"""Safetensors bytes: every claim of the header is checked before it is used."""

import json
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sciseq.errors import CheckpointError
from sciseq.persistence import check_weights
from sciseq.persistence.tensors import TensorTable, read_tensors


def packed(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    size = len(text) if length is None else length
    return size.to_bytes(8, "little") + text + data


def entry(dtype: Any = "F64", shape: Any = (1,), offsets: Any = (0, 8)) -> dict:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


DATA = bytes(16)
BAD = {
    "empty": (b"", "too few"),
    "short": (b"1234567", "too few"),
    "length-2-63": (packed({}, length=2**63), "allowed"),
    "length-2-64": (packed({}, length=2**64 - 1), "allowed"),
    "length-over-limit": (packed({}, length=100_000_001), "allowed"),
    "length-beyond-file": (packed({}, length=1000), "are there"),
    "not-json": (packed(b"{]"), "not valid JSON"),
    "not-utf8": (packed(b"\xff\xfe"), "not valid JSON"),
    "deep": (packed(b"[" * 100_000), "not valid JSON"),
    "not-a-table": (packed([1]), "not a table"),
    "name-twice": (
        packed(b'{"a":{},"a":{}}'),
        "a name appears twice",
    ),
    "metadata": (packed({"__metadata__": {"a": "b"}}), "no dtype, shape"),
    "metadata-as-tensor": (packed({"__metadata__": entry()}, DATA[:8]), "no dtype"),
    "name-not-utf8": (
        packed(json.dumps({"\ud800": entry()}).encode(), DATA[:8]),
        "the library refuses it",
    ),
    "reversed": (packed({"a": entry(offsets=(8, 0))}, DATA), "lies at bytes 8 to 0"),
    "beyond": (packed({"a": entry(shape=(3,), offsets=(0, 24))}, DATA), "of 16"),
    "negative": (packed({"a": entry(offsets=(-8, 0))}, DATA), "offsets"),
    "fraction": (packed({"a": entry(offsets=(0, 8.0))}, DATA), "offsets"),
    "boolean": (packed({"a": entry(shape=(True,))}, DATA[:8]), "shape"),
    "three-offsets": (packed({"a": entry(offsets=(0, 4, 8))}, DATA), "offsets"),
    "overlap": (
        packed({"a": entry(), "b": entry(offsets=(4, 12))}, DATA[:12]),
        "overlaps",
    ),
    "same-bytes": (packed({"a": entry(), "b": entry()}, DATA[:8]), "overlaps"),
    "gap": (packed({"a": entry(), "b": entry(offsets=(9, 17))}, bytes(17)), "gap"),
    "rest": (packed({"a": entry()}, DATA), "8 data bytes belong to no tensor"),
    "size-mismatch": (packed({"a": entry(shape=(2,))}, DATA[:8]), "needs 16 bytes"),
    "product-overflow": (
        packed({"a": entry(shape=(2**32, 2**32, 2), offsets=(0, 0))}),
        "needs 295147905179352825856 bytes",
    ),
    "product-wraps-to-size": (
        packed({"a": entry(shape=(2**61 + 1,), offsets=(0, 8))}, DATA[:8]),
        "needs",
    ),
    "empty-but-huge": (packed({"a": entry(shape=(0, 2**62), offsets=(0, 0))}), "shape"),
    "many-axes": (packed({"a": entry(shape=[1] * 40)}, DATA[:8]), "shape"),
    "unknown-dtype": (packed({"a": entry(dtype="F128")}, DATA[:8]), "unknown dtype"),
    "dtype-not-text": (packed({"a": entry(dtype=["F64"])}, DATA[:8]), "unknown dtype"),
    "half-an-entry": (packed({"a": {"dtype": "F64"}}, DATA), "no dtype, shape"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_26_crafted_safetensors(name):
    data, fragment = BAD[name]
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match=fragment) as caught:
            read_tensors(data, "weights-00000000.safetensors")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # Refused before anything of the claimed size is allocated.
    assert peak < 5_000_000
    assert caught.value.where == "weights-00000000.safetensors"
    assert "Copy the model again" in caught.value.hint


def test_bad_26_valid_bytes_pass():
    data = packed({"a": entry(), "b": entry("BOOL", (2, 4), (8, 16))}, DATA)
    tensors = read_tensors(data, "x")
    assert tensors["a"].tolist() == [0.0]
    assert tensors["b"].shape == (2, 4)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_bad_26_random_headers(data):
    size = st.one_of(st.integers(-2, 20), st.integers(2**31, 2**65))
    header = data.draw(
        st.dictionaries(
            st.text(max_size=3),
            st.fixed_dictionaries(
                {
                    "dtype": st.sampled_from(["F64", "BOOL", "I16", "C64", "X"]),
                    "shape": st.lists(size, max_size=3),
                    "data_offsets": st.lists(size, min_size=2, max_size=2),
                }
            ),
            max_size=3,
        )
    )
    content = packed(header, bytes(data.draw(st.integers(0, 24))))
    try:
        tensors = read_tensors(content, "x")
    except CheckpointError:
        return
    assert set(tensors) == set(header)


def test_same_arrays_same_bytes_in_any_order():
    arrays = {"b": np.arange(3.0), "a": np.arange(2), "c": np.array(True)}
    texts = []
    for names in ("abc", "cba"):
        table = TensorTable()
        for name in names:
            table.add(name, arrays[name])
        texts.append(table.to_bytes())
    assert texts[0] == texts[1]


def test_bad_29_weights_that_do_not_fit():
    expected = {"a": (2, 3), "b": (4,), "c": ()}
    good = {"a": np.zeros((2, 3)), "b": np.zeros(4), "c": np.zeros(())}
    check_weights(expected, good)
    with pytest.raises(CheckpointError) as caught:
        check_weights(expected, {"a": np.zeros((3, 2)), "c": good["c"], "d": good["b"]})
    message = str(caught.value)
    assert "in 3 places" in message
    assert "b is missing" in message
    assert "d is unexpected" in message
    assert "a has shape (3, 2), needs (2, 3)" in message
    assert "Nothing was loaded" in message


def test_bad_29_lists_the_first_ten():
    expected = {f"layer{number}": (1,) for number in range(25)}
    with pytest.raises(CheckpointError) as caught:
        check_weights(expected, {})
    message = str(caught.value)
    assert "in 25 places" in message
    assert message.count("is missing") == 10
