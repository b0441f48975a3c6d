"""pandas labels and indexes for the codec; imported only when such a value comes.

What comes back is identical to what went in (values, dtype, name, time zone,
frequency): each value is decoded once while it is encoded, and one that would change
is refused. So a custom holiday calendar is an error when saving, never a silently
different calendar after loading.
"""

import datetime
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from sciseq.errors import CapabilityError, CheckpointError
from sciseq.persistence.codec import Decoder, Encoder
from sciseq.persistence.nodes import TAG, exact, refuse_type, take

__all__ = ["DECODERS", "encode"]

# A range takes three numbers in the file, but may become an array when it is used.
_RANGE_LIMIT = 2**27
_UNITS = ("s", "ms", "us", "ns")
_TEXT_DTYPES = ("object", "str", "string")
# Names of the time zone data base; anything else could reach for other files.
_ZONE = re.compile(r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+){0,2}")


def encode(encoder: Encoder, value: Any, path: str) -> Any:
    """Encode a pandas label, offset or index.

    Raises
    ------
    CapabilityError
        For other pandas types, and for values that would not come back the same.
    """
    write = _ENCODERS.get(type(value))
    if write is None and isinstance(value, pd.offsets.BaseOffset):
        write = _encode_offset
    if write is None:
        refuse_type(value, path)
    node = write(encoder, value, path)
    try:
        same = _is_same(Decoder(encoder.state.arrays).decode(node, path), value)
    except CheckpointError:
        same = False
    if not same:
        raise CapabilityError(
            f"cannot save {_describe(value)} without changing it",
            where=path,
            hint="Frequencies with settings of their own (holidays, opening hours), "
            "categories and nullable numbers are not supported: use a plain index.",
        )
    return node


def _describe(value: Any) -> str:
    details = [
        f"{name} {getattr(value, name)}"
        for name in ("dtype", "freq", "tz")
        if getattr(value, name, None) is not None
    ]
    return " of ".join([type(value).__name__, *details])


def _is_same(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, pd.MultiIndex):
        return bool(
            one.identical(other)
            and all(map(_is_same, one.levels, other.levels))
            and all(map(np.array_equal, one.codes, other.codes))
        )
    if isinstance(one, pd.Index):
        return bool(one.identical(other) and _frequency(one) == _frequency(other))
    if one is pd.NaT:
        return True
    settings = [
        [getattr(value, name, None) for name in ("unit", "tz", "freq")]
        for value in (one, other)
    ]
    return bool(one == other) and settings[0] == settings[1]


def _frequency(index: Any) -> Any:
    return getattr(index, "freq", None)


def _zone_name(zone: Any, path: str) -> str | int | None:
    """Name of a time zone, or its constant offset in microseconds."""
    if zone is None:
        return None
    if zone == datetime.UTC:
        return "UTC"
    if type(zone) is datetime.timezone:
        return zone.utcoffset(None) // datetime.timedelta(microseconds=1)
    # zoneinfo calls it key; pytz, the default of pandas before 3, calls it zone.
    name = getattr(zone, "key", None) or getattr(zone, "zone", None)
    if not isinstance(name, str):
        raise CapabilityError(
            f"cannot save the time zone {zone!r}, which has no name",
            where=path,
            hint="Convert with .tz_convert('Europe/Berlin') or the like.",
        )
    return name


def _zone(name: str | int | None, path: str) -> Any:
    if isinstance(name, int):
        return datetime.timezone(datetime.timedelta(microseconds=name))
    if name is not None and not (_ZONE.fullmatch(name) and "dateutil" not in name):
        raise CheckpointError(f"{name!r} is no time zone name", where=path)
    # As text, so that pandas makes the kind of zone that it makes for users.
    return name


def _check_unit(unit: str, path: str) -> None:
    if unit not in _UNITS:
        raise CheckpointError(f"{unit!r} is no unit of time", where=path)


# Encoders: (encoder, value, path) -> JSON.


def _encode_timestamp(encoder: Encoder, value: pd.Timestamp, path: str) -> Any:
    return {
        TAG: "pandas.timestamp",
        "value": int(value.asm8.view(np.int64)),
        "unit": value.unit,
        "zone": _zone_name(value.tz, path),
    }


def _encode_timedelta(encoder: Encoder, value: pd.Timedelta, path: str) -> Any:
    count = int(value.asm8.view(np.int64))
    return {TAG: "pandas.timedelta", "value": count, "unit": value.unit}


def _encode_period(encoder: Encoder, value: pd.Period, path: str) -> Any:
    return {TAG: "pandas.period", "value": value.ordinal, "freq": value.freqstr}


def _encode_nat(encoder: Encoder, value: Any, path: str) -> Any:
    return {TAG: "pandas.nat"}


def _encode_offset(encoder: Encoder, value: Any, path: str) -> Any:
    return {TAG: "pandas.offset", "freq": value.freqstr}


def _encode_times(encoder: Encoder, value: Any, path: str) -> Any:
    """Dates, durations and periods: whole numbers with a unit or frequency."""
    node = {
        TAG: _TIME_TAGS[type(value)],
        "values": encoder.encode(value.asi8, path),
        "name": encoder.encode(value.name, f"{path}.name"),
        "freq": value.freqstr,
    }
    if not isinstance(value, pd.PeriodIndex):
        node["unit"] = value.unit
    if isinstance(value, pd.DatetimeIndex):
        node["zone"] = _zone_name(value.tz, path)
    return node


def _encode_range(encoder: Encoder, value: pd.RangeIndex, path: str) -> Any:
    return {
        TAG: "pandas.range",
        "range": [value.start, value.stop, value.step],
        "name": encoder.encode(value.name, f"{path}.name"),
    }


def _encode_index(encoder: Encoder, value: Any, path: str) -> Any:
    dtype = str(value.dtype)
    if dtype in _TEXT_DTYPES:
        items = value.tolist()
        if dtype != "object":
            missing = value.isna()
            items = [None if missing[i] else item for i, item in enumerate(items)]
        content = encoder.encode(items, path)
    elif isinstance(value.dtype, np.dtype):
        content = encoder.encode(value.to_numpy(), path)
    else:
        refuse_type(value, path)
    return {
        TAG: "pandas.index",
        "values": content,
        "dtype": dtype,
        "name": encoder.encode(value.name, f"{path}.name"),
    }


def _encode_multi(encoder: Encoder, value: pd.MultiIndex, path: str) -> Any:
    codes = [np.asarray(code) for code in value.codes]
    return {
        TAG: "pandas.multiindex",
        "levels": encoder.encode(list(value.levels), f"{path}.levels"),
        "codes": encoder.encode(codes, f"{path}.codes"),
        "names": encoder.encode(list(value.names), f"{path}.names"),
    }


_TIME_TAGS: dict[type, str] = {
    pd.DatetimeIndex: "pandas.datetimes",
    pd.TimedeltaIndex: "pandas.timedeltas",
    pd.PeriodIndex: "pandas.periods",
}

_ENCODERS: dict[type, Callable[[Encoder, Any, str], Any]] = {
    pd.Timestamp: _encode_timestamp,
    pd.Timedelta: _encode_timedelta,
    pd.Period: _encode_period,
    type(pd.NaT): _encode_nat,
    pd.DatetimeIndex: _encode_times,
    pd.TimedeltaIndex: _encode_times,
    pd.PeriodIndex: _encode_times,
    pd.RangeIndex: _encode_range,
    pd.Index: _encode_index,
    pd.MultiIndex: _encode_multi,
}


# Decoders: (decoder, tagged object, path) -> value.


def _decode_timestamp(decoder: Decoder, node: dict[str, Any], path: str) -> Any:
    value, unit, zone = take(
        node, path, value=int, unit=str, zone=(str, int, type(None))
    )
    _check_unit(unit, path)
    stamp = pd.Timestamp(np.datetime64(value, unit))
    if zone is None:
        return stamp
    return stamp.tz_localize("UTC").tz_convert(_zone(zone, path))


def _decode_timedelta(decoder: Decoder, node: dict[str, Any], path: str) -> Any:
    value, unit = take(node, path, value=int, unit=str)
    _check_unit(unit, path)
    return pd.Timedelta(np.timedelta64(value, unit))


def _decode_period(decoder: Decoder, node: dict[str, Any], path: str) -> Any:
    ordinal, frequency = take(node, path, value=int, freq=str)
    return pd.Period(ordinal=ordinal, freq=frequency)


def _decode_nat(decoder: Decoder, node: dict[str, Any], path: str) -> Any:
    take(node, path)
    return pd.NaT


def _decode_offset(decoder: Decoder, node: dict[str, Any], path: str) -> Any:
    (frequency,) = take(node, path, freq=str)
    return pd.tseries.frequencies.to_offset(frequency)


def _decode_datetimes(decoder: Decoder, node: dict[str, Any], path: str) -> Any:
    values, name, frequency, unit, zone = take(
        node,
        path,
        values=dict,
        name=object,
        freq=(str, type(None)),
        unit=str,
        zone=(str, int, type(None)),
    )
    _check_unit(unit, path)
    index = pd.DatetimeIndex(_counts(decoder, values, path).view(f"M8[{unit}]"))
    if zone is not None:
        index = index.tz_localize("UTC").tz_convert(_zone(zone, path))
    return _finish(pd.DatetimeIndex, index, decoder, name, frequency, path)


def _decode_timedeltas(decoder: Decoder, node: dict[str, Any], path: str) -> Any:
    values, name, frequency, unit = take(
        node, path, values=dict, name=object, freq=(str, type(None)), unit=str
    )
    _check_unit(unit, path)
    index = pd.TimedeltaIndex(_counts(decoder, values, path).view(f"m8[{unit}]"))
    return _finish(pd.TimedeltaIndex, index, decoder, name, frequency, path)


def _finish(
    kind: Any, index: Any, decoder: Decoder, name: Any, freq: str | None, path: str
) -> Any:
    # The frequency is set last, when pandas checks it against the values.
    return kind(index, freq=freq, name=decoder.decode(name, f"{path}.name"))


def _decode_periods(decoder: Decoder, node: dict[str, Any], path: str) -> Any:
    values, name, frequency = take(node, path, values=dict, name=object, freq=str)
    kind: Any = pd.PeriodIndex
    return kind.from_ordinals(
        _counts(decoder, values, path),
        freq=frequency,
        name=decoder.decode(name, f"{path}.name"),
    )


def _counts(decoder: Decoder, node: dict[str, Any], path: str) -> Any:
    values = exact(decoder.decode(node, path), np.ndarray, path)
    if values.dtype != np.int64 or values.ndim != 1:
        raise CheckpointError("times are not stored as whole numbers", where=path)
    return values


def _decode_range(decoder: Decoder, node: dict[str, Any], path: str) -> Any:
    limits, name = take(node, path, range=list, name=object)
    start, stop, step = limits
    if len(range(start, stop, step)) > _RANGE_LIMIT:
        raise CheckpointError(
            f"a range has more than {_RANGE_LIMIT} labels: {limits}", where=path
        )
    return pd.RangeIndex(start, stop, step, name=decoder.decode(name, f"{path}.name"))


def _decode_index(decoder: Decoder, node: dict[str, Any], path: str) -> Any:
    content, dtype, name = take(node, path, values=object, dtype=str, name=object)
    values = decoder.decode(content, path)
    name = decoder.decode(name, f"{path}.name")
    if dtype not in _TEXT_DTYPES:
        array = exact(values, np.ndarray, path)
        if array.dtype.name != dtype or array.ndim != 1:
            raise CheckpointError(f"labels are not of dtype {dtype}", where=path)
        return pd.Index(array, name=name)
    items = exact(values, list, path)
    if dtype != "object":
        return pd.Index(items, dtype=dtype, name=name)
    # Filled one by one: tuples among the labels stay labels.
    array = np.empty(len(items), dtype=object)
    for position, item in enumerate(items):
        array[position] = item
    return pd.Index(array, dtype=object, name=name, tupleize_cols=False)


def _decode_multi(decoder: Decoder, node: dict[str, Any], path: str) -> Any:
    levels, codes, names = take(node, path, levels=list, codes=list, names=list)
    return pd.MultiIndex(
        levels=decoder.decode_items(levels, f"{path}.levels"),
        codes=decoder.decode_items(codes, f"{path}.codes"),
        names=decoder.decode_items(names, f"{path}.names"),
    )


DECODERS: dict[str, Callable[[Decoder, dict[str, Any], str], Any]] = {
    "pandas.timestamp": _decode_timestamp,
    "pandas.timedelta": _decode_timedelta,
    "pandas.period": _decode_period,
    "pandas.nat": _decode_nat,
    "pandas.offset": _decode_offset,
    "pandas.datetimes": _decode_datetimes,
    "pandas.timedeltas": _decode_timedeltas,
    "pandas.periods": _decode_periods,
    "pandas.range": _decode_range,
    "pandas.index": _decode_index,
    "pandas.multiindex": _decode_multi,
}
