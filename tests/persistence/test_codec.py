"""Values come back exactly as they went in, or are refused by name."""

import datetime
import json
import math
import pathlib
import subprocess
import sys
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from sciseq.errors import CapabilityError, CheckpointError
from sciseq.persistence import codec
from sciseq.persistence.codec import Decoder, Encoder
from sciseq.persistence.tensors import read_tensors


def round_trip(value: Any) -> Any:
    """Through JSON text and safetensors bytes, as in a file."""
    encoder = Encoder()
    node = encoder.encode(value, "value")
    text = json.dumps(node, allow_nan=False, ensure_ascii=False)
    stored = read_tensors(encoder.state.to_bytes(), "state")
    decoder = Decoder(stored)
    result = decoder.decode(json.loads(text), "value")
    assert decoder.unused() == []
    return result


any_text = st.text(st.characters(codec=None), max_size=8)
numbers = st.one_of(
    st.integers(), st.integers(-(2**5000), 2**5000), st.floats(allow_nan=True)
)
number_dtypes = st.one_of(
    st_numpy.boolean_dtypes(),
    st_numpy.integer_dtypes(endianness="="),
    st_numpy.unsigned_integer_dtypes(endianness="="),
    st_numpy.floating_dtypes(endianness="=", sizes=(16, 32, 64)),
    st_numpy.datetime64_dtypes(endianness="="),
    st_numpy.timedelta64_dtypes(endianness="="),
    st_numpy.unicode_string_dtypes(endianness="=", max_len=5),
)
arrays = st_numpy.arrays(number_dtypes, st_numpy.array_shapes(min_dims=0, min_side=0))
scalars = number_dtypes.flatmap(st_numpy.from_dtype).filter(
    lambda value: isinstance(value, np.generic)
)
leaves = st.one_of(st.none(), st.booleans(), numbers, any_text, arrays, scalars)
keys = st.one_of(any_text, st.integers(), st.none(), st.tuples(st.integers(), any_text))
values = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(keys, inner, max_size=4),
        st.dictionaries(st.sampled_from(["$", "a", "a.b"]), inner, max_size=3),
    ),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(value=values)
def test_any_value_comes_back_exactly(same, value):
    assert same(round_trip(value), value)


def test_the_comparison_sees_small_differences(same):
    pairs = [
        (1, True),
        (0.0, -0.0),
        ((1,), [1]),
        (np.float64(1), 1.0),
        (np.zeros(2), np.zeros(2, np.float32)),
        (np.zeros((2, 3)), np.zeros((2, 3), order="F")),
        (pd.RangeIndex(2), pd.Index([0, 1])),
        (pd.Timestamp("2026"), pd.Timestamp("2026").as_unit("s")),
        (np.array(["a"], dtype="U1"), np.array(["a"], dtype="U2")),
    ]
    for one, other in pairs:
        assert same(one, one)
        assert not same(one, other), (one, other)


def test_nan_infinity_and_long_integers(same):
    value = [math.nan, math.inf, -math.inf, -0.0, 5e-324, 2**63, -(2**63), 16**5000]
    assert same(round_trip(value), value)


def test_fortran_order_is_kept(same):
    array = np.asfortranarray(np.arange(24.0).reshape(2, 3, 4))
    assert not array.flags.c_contiguous
    assert same(round_trip(array), array)


def test_strided_and_foreign_byte_order_keep_their_values():
    strided = np.arange(20)[::3]
    assert np.array_equal(round_trip(strided), strided)
    swapped = np.arange(5, dtype=">f8")
    assert round_trip(swapped).dtype == np.float64
    assert np.array_equal(round_trip(swapped), swapped)
    assert round_trip(np.array(["äb"], dtype=">U4")).tolist() == ["äb"]


def test_loaded_arrays_can_be_written_to():
    for array in (np.zeros(3), np.zeros(2, "M8[s]"), np.array(["ab"])):
        result = round_trip(array)
        result[0] = array[0]
        assert result.flags.writeable


def test_object_array_of_names(same):
    names = np.array([["a", "süd"], ["", None]], dtype=object)
    assert same(round_trip(names), names)


def test_paths():
    assert round_trip(pathlib.Path("runs/a")) == pathlib.Path("runs/a")


BERLIN = "Europe/Berlin"
PANDAS_VALUES = {
    "timestamp": pd.Timestamp("2026-01-02 03:04:05.678901234"),
    "timestamp-seconds": pd.Timestamp("1600-01-01").as_unit("s"),
    "timestamp-fold-0": pd.Timestamp(1603585800, unit="s", tz=BERLIN),
    "timestamp-fold-1": pd.Timestamp(1603589400, unit="s", tz=BERLIN),
    "timestamp-utc": pd.Timestamp("2026", tz="UTC"),
    "timestamp-offset": pd.Timestamp("2026-01-01 00:00+05:30"),
    "nat": pd.NaT,
    "timedelta": pd.Timedelta("1D 1ns"),
    "timedelta-seconds": pd.Timedelta(5, "s").as_unit("s"),
    "period": pd.Period("2026-02", "M"),
    "period-weekly": pd.Period("2026-02-01", "W-WED"),
    "offset": pd.offsets.QuarterEnd(2, startingMonth=2),
    "offset-hour": pd.offsets.Hour(6),
    "datetimes": pd.date_range("2026", periods=5, freq="h", name="time"),
    "datetimes-dst": pd.date_range("2026-03-27", periods=5, freq="D", tz=BERLIN),
    "datetimes-dst-hours": pd.date_range(
        "2026-10-24 22:00", periods=40, freq="h", tz=BERLIN
    ),
    "datetimes-offset": pd.date_range(
        "2026", periods=3, freq="ME", tz=datetime.timezone(datetime.timedelta(hours=-3))
    ),
    "datetimes-seconds": pd.date_range("2026", periods=3, freq="W", unit="s"),
    "datetimes-backwards": pd.date_range("2026", periods=4, freq="D")[::-1],
    "datetimes-irregular": pd.DatetimeIndex(["2026-01-01", "NaT", "2026-02-03"]),
    "datetimes-empty": pd.date_range("2026", periods=0, freq="h", tz="UTC"),
    "datetimes-no-freq": pd.DatetimeIndex(pd.date_range("2026", periods=3).to_list()),
    "periods": pd.period_range("2026", periods=4, freq="Q-NOV", name=("a", 1)),
    "periods-nat": pd.PeriodIndex(["2026-01", "NaT"], freq="M"),
    "timedeltas": pd.timedelta_range("1h", periods=3, freq="30min", name="lead"),
    "timedeltas-irregular": pd.TimedeltaIndex(["1h", "3h", None]),
    "range": pd.RangeIndex(3, 30, 3, name="row"),
    "integers": pd.Index([3, 1, 2], dtype="int16", name=7),
    "unsigned": pd.Index([3, 1], dtype="uint64"),
    "floats": pd.Index([0.5, np.nan], dtype="float32"),
    "booleans": pd.Index([True, False]),
    "texts": pd.Index(["a", "süd", ""], name="city"),
    "texts-missing": pd.Index(["a", None]),
    "texts-na": pd.Index(["a", None], dtype="string"),
    "texts-empty": pd.Index([], dtype="str"),
    "objects": pd.Index(
        [1, "a", None, 2.5, (1, 2), pd.Timestamp("2026")], dtype=object
    ),
    "objects-empty": pd.Index([], dtype=object),
    "multi": pd.MultiIndex.from_product(
        [["b", "a"], pd.date_range("2026", periods=3, tz=BERLIN, freq="D")],
        names=["series", None],
    ),
    "multi-missing": pd.MultiIndex.from_tuples([("a", 1.5), (None, np.nan)]),
    "multi-empty": pd.MultiIndex.from_arrays([[], []], names=["a", "b"]),
    "multi-unused-level": pd.MultiIndex.from_product([["a", "b"], [1, 2]])[:2],
}


@pytest.mark.parametrize("name", PANDAS_VALUES)
def test_pandas_value_comes_back_exactly(same, name):
    value = PANDAS_VALUES[name]
    result = round_trip({"value": value, "again": [value]})
    assert same(result["value"], value)
    assert same(result["again"], [value])
    if isinstance(value, pd.MultiIndex):
        assert all(map(same, result["value"].levels, value.levels))


def test_hours_that_occur_twice_stay_apart():
    first, second = (
        round_trip(PANDAS_VALUES[f"timestamp-fold-{fold}"]) for fold in (0, 1)
    )
    assert first.hour == second.hour == 2
    assert second - first == pd.Timedelta("1h")
    assert [first.fold, second.fold] == [0, 1]


PANDAS_REFUSED = {
    "holidays": (
        pd.offsets.CustomBusinessDay(holidays=["2026-01-01"]),
        "CustomBusinessDay",
    ),
    "holidays-index": (
        pd.date_range(
            "2026",
            periods=3,
            freq=pd.offsets.CustomBusinessDay(holidays=["2026-01-01"]),
        ),
        "freq",
    ),
    "date-offset": (pd.DateOffset(months=1), "DateOffset"),
    "opening-hours": (pd.offsets.BusinessHour(start="10:00"), "BusinessHour"),
    "category": (pd.CategoricalIndex(["a", "b"]), "CategoricalIndex"),
    "nullable": (pd.Index(pd.array([1, None], dtype="Int64")), "Index"),
    "interval": (pd.interval_range(0, 3), "IntervalIndex"),
    "series": (pd.Series([1.0]), "Series"),
    "frame": (pd.DataFrame({"a": [1.0]}), "DataFrame"),
}


@pytest.mark.parametrize("name", PANDAS_REFUSED)
def test_pandas_value_that_would_change_is_refused(name):
    value, fragment = PANDAS_REFUSED[name]
    with pytest.raises(CapabilityError, match=fragment) as caught:
        round_trip({"calendar_": value})
    assert caught.value.where == "value.calendar_"
    assert "cannot save" in str(caught.value)


class SubList(list):
    pass


class SubText(str):
    pass


REFUSED = {
    "function": (len, "builtin_function_or_method"),
    "class": (int, "builtins.type"),
    "object": (object(), "builtins.object"),
    "set": ({1}, "builtins.set"),
    "bytes": (b"a", "builtins.bytes"),
    "complex": (1j, "builtins.complex"),
    "list-subclass": (SubList(), "SubList"),
    "text-subclass": (SubText("a"), "SubText"),
    "datetime": (datetime.datetime(2026, 1, 1), "datetime.datetime"),
    "complex-array": (np.zeros(2, complex), "complex128"),
    "structured-array": (np.zeros(2, "i4,f8"), "array of dtype"),
    "bytes-array": (np.array([b"a"]), r"\|S1"),
    "long-double": (np.longdouble(1), "longdouble"),
    "masked-array": (np.ma.array([1.0]), "MaskedArray"),
    "memory-map-like": (np.zeros(2).view(np.recarray), "recarray"),
    "random-generator": (np.random.default_rng(0), "Generator"),
    "object-array": (np.array([object()], dtype=object), "builtins.object"),
    "ragged-array": (np.array([[1], [1, 2]], dtype=object), "list"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_types_are_refused_with_path_and_type(name):
    value, fragment = REFUSED[name]
    with pytest.raises(CapabilityError, match=fragment) as caught:
        round_trip({"state_": [0, value]})
    assert caught.value.where.startswith("value.state_[1]")
    assert "convert the value" in caught.value.hint


def test_values_that_hold_themselves_are_refused():
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(CapabilityError, match="nested deeper than 64"):
        round_trip(loop)


@dataclass(frozen=True)
class Scaler:
    mean: Any
    scale: float = 1.0
    total: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        object.__setattr__(self, "total", float(np.sum(self.mean)))


def test_listed_dataclasses_only(monkeypatch):
    value = Scaler(np.arange(3.0), 2.0)
    with pytest.raises(CapabilityError, match="Scaler"):
        round_trip(value)
    monkeypatch.setitem(codec.SAVABLE_TYPES, "scaler", f"{__name__}:Scaler")
    result = round_trip(value)
    assert type(result) is Scaler
    assert (result.mean.tolist(), result.scale, result.total) == ([0, 1, 2], 2.0, 3.0)


def test_every_listed_dataclass_exists():
    import importlib
    from dataclasses import is_dataclass

    for target in codec.SAVABLE_TYPES.values():
        module, _, name = target.partition(":")
        assert is_dataclass(getattr(importlib.import_module(module), name))


BAD_NODES = {
    "unknown-tag": {"$": "os.system", "items": ["touch x"]},
    "tag-not-text": {"$": ["tuple"]},
    "unknown-pandas": {"$": "pandas.read_pickle", "path": "x"},
    "unknown-numpy": {"$": "numpy.load", "path": "x"},
    "missing-field": {"$": "tuple"},
    "extra-field": {"$": "tuple", "items": [], "cls": "list"},
    "wrong-type": {"$": "tuple", "items": {}},
    "bad-int": {"$": "int", "hex": "0xzz"},
    "bad-float": {"$": "float", "value": "1e5"},
    "unhashable-key": {"$": "dict", "items": [[[1], 2]]},
    "no-pair": {"$": "dict", "items": [[1, 2, 3]]},
    "import-path": {"$": "dataclass", "name": "subprocess:Popen", "fields": {}},
    "other-fields": {"$": "dataclass", "name": "step", "fields": {"args": "x"}},
    "scalar-range": {"$": "numpy.scalar", "dtype": "int8", "value": 300},
    "scalar-type": {"$": "numpy.scalar", "dtype": "int8", "value": 1.0},
    "scalar-boolean": {"$": "numpy.scalar", "dtype": "int8", "value": True},
    "scalar-dtype": {"$": "numpy.scalar", "dtype": "O", "value": 1},
    "scalar-unit": {"$": "numpy.scalar", "dtype": "datetime64[x]", "value": 1},
    "missing-array": {"$": "numpy.array", "ref": "b", "dtype": "int64", "order": "C"},
    "other-dtype": {"$": "numpy.array", "ref": "a", "dtype": "int64", "order": "C"},
    "object-dtype": {"$": "numpy.array", "ref": "a", "dtype": "object", "order": "C"},
    "other-order": {"$": "numpy.array", "ref": "a", "dtype": "float64", "order": "K"},
    "not-text": {"$": "numpy.array", "ref": "a", "dtype": "str", "order": "C"},
    "bad-code": {"$": "numpy.array", "ref": "t", "dtype": "str", "order": "C"},
    "shape-negative": {"$": "numpy.objects", "shape": [-1], "items": []},
    "shape-other": {"$": "numpy.objects", "shape": [2, 2], "items": [1]},
    "shape-huge": {"$": "numpy.objects", "shape": [0, 2**62, 8], "items": []},
    "zone-file": {
        "$": "pandas.timestamp",
        "value": 0,
        "unit": "s",
        "zone": "dateutil//etc/passwd",
    },
    "zone-path": {
        "$": "pandas.timestamp",
        "value": 0,
        "unit": "s",
        "zone": "../../etc/passwd",
    },
    "zone-unknown": {
        "$": "pandas.timestamp",
        "value": 0,
        "unit": "s",
        "zone": "Mars/Olympus",
    },
    "unit": {"$": "pandas.timedelta", "value": 0, "unit": "Y"},
    "value-huge": {"$": "pandas.timedelta", "value": 2**70, "unit": "s"},
    "freq": {"$": "pandas.offset", "freq": "no such"},
    "freq-huge": {"$": "pandas.period", "value": 0, "freq": "9" * 40 + "D"},
    "range": {"$": "pandas.range", "range": [0, 1], "name": None},
    "range-huge": {"$": "pandas.range", "range": [0, 2**33, 1], "name": None},
    "range-text": {"$": "pandas.range", "range": [0, "5", 1], "name": None},
    "zone-out-of-range": {
        "$": "pandas.timestamp",
        "value": 2**50,
        "unit": "s",
        "zone": "Europe/Berlin",
    },
    "range-step": {"$": "pandas.range", "range": [0, 5, 0], "name": None},
    "name": {"$": "pandas.range", "range": [0, 5, 1], "name": [1]},
    "multi-codes": {
        "$": "pandas.multiindex",
        "levels": [{"$": "pandas.range", "range": [0, 2, 1], "name": None}],
        "codes": [[0, 9]],
        "names": [None],
    },
    "index": {"$": "pandas.index", "values": [1], "dtype": "category", "name": None},
    "deep": None,
}


@pytest.mark.parametrize("name", BAD_NODES)
def test_crafted_nodes_are_refused(name):
    node = BAD_NODES[name]
    if name == "deep":
        node = []
        for _ in range(70):
            node = [node]
    state = {"a": np.zeros(2), "t": np.full((1, 1), 2**31, np.uint32)}
    with pytest.raises(CheckpointError) as caught:
        Decoder(state).decode([node], "estimator")
    assert caught.value.where.startswith("estimator[0]")


def test_one_array_serves_one_value():
    node = {"$": "numpy.array", "ref": "a", "dtype": "float64", "order": "C"}
    decoder = Decoder({"a": np.zeros(2)})
    with pytest.raises(CheckpointError, match="used twice"):
        decoder.decode([node, node], "estimator")


def test_neither_pandas_nor_torch_is_imported_without_need():
    code = (
        "import sys, numpy as np; from sciseq.persistence.codec import Encoder;"
        "import sciseq.persistence;"
        "Encoder().encode({'a': [np.zeros(3), np.float32(1)]}, 'x');"
        "print([m for m in ('torch', 'pandas', 'sklearn') if m in sys.modules])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "[]"
